//! Under which name this program was called: a link named `patroni` or `patronictl` behaves as that command.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The arguments as `baton`'s own grammar has them.
pub(crate) fn arguments(given: Vec<OsString>) -> Vec<OsString> {
    let name = given.first().and_then(|program| Path::new(program).file_name()).map(OsStr::to_owned);
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
    use super::arguments;
    use std::ffi::OsString;

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
