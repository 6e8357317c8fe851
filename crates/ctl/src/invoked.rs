//! Under which name this program was called: a link named `patroni` or `patronictl` behaves as that command.

use crate::exit_codes::Code;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Whose habits the command line keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Manner {
    /// Its own: members are asked whether they answer, whatever failed ends with a status of its own.
    #[default]
    Baton,
    /// What patronictl prints and how it ends, to the letter: scripts read both.
    Patronictl,
}

impl Manner {
    /// By the name of the program.
    pub(crate) fn of(given: &[OsString]) -> Manner {
        if name(given) == Some(OsStr::new("patronictl")) { Manner::Patronictl } else { Manner::Baton }
    }

    /// The exit status. patronictl knows 2 for a command line that it does not understand, and 1.
    pub(crate) fn status(self, code: Code) -> u8 {
        match (self, code) {
            (Manner::Baton, code) | (Manner::Patronictl, code @ (Code::Ok | Code::Usage)) => code.number(),
            (Manner::Patronictl, _) => Code::Failed.number(),
        }
    }
}

fn name(given: &[OsString]) -> Option<&OsStr> {
    given.first().and_then(|program| Path::new(program).file_name())
}

/// The arguments as `baton`'s own grammar has them.
pub(crate) fn arguments(given: Vec<OsString>) -> Vec<OsString> {
    let name = name(&given).map(OsStr::to_owned);
    let mut rest = given.into_iter().skip(1).peekable();
    let mut own = vec![OsString::from("baton")];
    if name.as_deref() == Some(OsStr::new("patroni")) {
        // The version and the help are those of the whole program, a check is a command of its own.
        let first = rest.peek().and_then(|first| first.to_str()).unwrap_or_default().to_owned();
        match first.as_str() {
            "--version" | "-V" | "--help" | "-h" => {}
            _ if rest.clone().any(|word| word == "--validate-config") => {
                own.extend(["check", "--validate-config"].map(OsString::from));
                own.extend(rest.filter(|word| word != "--validate-config"));
                return own;
            }
            "--generate-sample-config" | "--generate-config" => {
                own.push(OsString::from("generate-config"));
                if first == "--generate-sample-config" {
                    own.push(OsString::from("--sample"));
                }
                rest.next();
            }
            _ => own.push(OsString::from("agent")),
        }
    }
    own.extend(rest);
    own
}

#[cfg(test)]
mod tests {
    use super::{Manner, arguments};
    use crate::exit_codes::Code;
    use std::ffi::OsString;

    #[test]
    fn patronictl_has_two_ways_to_fail() {
        let manner = Manner::of(&[OsString::from("/usr/bin/patronictl")]);
        assert_eq!([Code::Ok, Code::Usage, Code::Configuration].map(|code| manner.status(code)), [0, 2, 1]);
        assert_eq!(Manner::of(&[OsString::from("baton")]).status(Code::Configuration), 3);
    }

    fn as_called(line: &str) -> String {
        let given = line.split(' ').map(OsString::from).collect();
        let own: Vec<String> = arguments(given).into_iter().map(|word| word.into_string().unwrap()).collect();
        own.join(" ")
    }

    #[test]
    fn links_are_understood() {
        for (line, own) in [
            ("/usr/bin/patroni /etc/patroni.yml", "baton agent /etc/patroni.yml"),
            ("patroni --version", "baton --version"),
            ("patroni --validate-config x.yml", "baton check --validate-config x.yml"),
            ("patroni x.yml -i --validate-config", "baton check --validate-config x.yml -i"),
            ("patroni --generate-sample-config", "baton generate-config --sample"),
            ("patroni", "baton agent"),
            ("patronictl -c x list demo", "baton -c x list demo"),
            ("/opt/baton agent x.yml", "baton agent x.yml"),
            ("./baton-1.0 list", "baton list"),
        ] {
            assert_eq!(as_called(line), own, "{line}");
        }
    }
}
