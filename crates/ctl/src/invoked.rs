//! Under which name this program was called: a link named `patroni`, `patronictl` or `vip-manager` behaves as that command.

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
    /// Patroni's daemon: it knows 1 for whatever keeps it from running.
    Patroni,
}

impl Manner {
    /// By the name of the program.
    pub(crate) fn of(given: &[OsString]) -> Manner {
        match name(given).and_then(OsStr::to_str) {
            Some("patronictl") => Manner::Patronictl,
            // vip-manager ends as a daemon of Patroni does: 0, or 1.
            Some("patroni" | "vip-manager") => Manner::Patroni,
            Some(_) | None => Manner::Baton,
        }
    }

    /// The exit status. patronictl knows 2 for a command line that it does not understand, and 1.
    pub(crate) fn status(self, code: Code) -> u8 {
        match (self, code) {
            (Manner::Baton, code) | (Manner::Patronictl, code @ (Code::Ok | Code::Usage)) => code.number(),
            (Manner::Patroni, Code::Ok) => Code::Ok.number(),
            (Manner::Patronictl | Manner::Patroni, _) => Code::Failed.number(),
        }
    }
}

fn name(given: &[OsString]) -> Option<&OsStr> {
    given.first().and_then(|program| Path::new(program).file_name())
}

/// The arguments as `baton`'s own grammar has them.
pub(crate) fn arguments(given: Vec<OsString>) -> Vec<OsString> {
    let name = name(&given).map(OsStr::to_owned);
    let rest = given.into_iter().skip(1);
    let mut own = vec![OsString::from("baton")];
    if name.as_deref() == Some(OsStr::new("patroni")) {
        // Patroni's says its version whatever else it is asked.
        if rest.clone().any(|word| word == "--version") {
            own.push(OsString::from("version"));
            return own;
        }
        own.push(OsString::from("agent"));
    }
    if name.as_deref() == Some(OsStr::new("vip-manager")) {
        return vip_manager(rest.collect());
    }
    own.extend(rest);
    own
}

/// vip-manager's options: `--config` is ours too, each other one is a setting of its file.
fn vip_manager(given: Vec<OsString>) -> Vec<OsString> {
    let mut own: Vec<OsString> = ["baton", "vip"].map(OsString::from).to_vec();
    let mut rest = given.into_iter();
    let mut configured = false;
    while let Some(word) = rest.next() {
        let text = word.to_string_lossy().into_owned();
        let Some(option) = text.strip_prefix("--").filter(|option| !option.is_empty()) else {
            own.push(word);
            continue;
        };
        if option == "version" {
            return ["baton", "version"].map(OsString::from).to_vec();
        }
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(OsString::from(value))),
            // The one switch among them.
            None if option == "verbose" => (option, Some(OsString::from("true"))),
            None => (option, rest.next()),
        };
        configured = true;
        match (key, value) {
            ("help", _) | (_, None) => own.push(word),
            ("config", Some(file)) => own.extend([OsString::from("--config"), file]),
            (key, Some(value)) => {
                let mut setting = OsString::from(format!("{key}="));
                setting.push(value);
                own.extend([OsString::from("--set"), setting]);
            }
        }
    }
    if !configured {
        // Its variables alone may say everything.
        own.extend(["--set", "verbose=false"].map(OsString::from));
    }
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
        let daemon = Manner::of(&[OsString::from("patroni")]);
        assert_eq!([Code::Ok, Code::Usage, Code::NameTaken].map(|code| daemon.status(code)), [0, 1, 1]);
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
            ("patroni x.yml --version", "baton version"),
            ("patroni x.yml -i --validate-config", "baton agent x.yml -i --validate-config"),
            ("patroni --generate-sample-config", "baton agent --generate-sample-config"),
            ("patroni", "baton agent"),
            ("vip-manager --config=/etc/vip.yml", "baton vip --config /etc/vip.yml"),
            (
                "/usr/bin/vip-manager --config /etc/vip.yml --ip 10.0.0.5",
                "baton vip --config /etc/vip.yml --set ip=10.0.0.5",
            ),
            ("vip-manager --verbose --netmask=24", "baton vip --set verbose=true --set netmask=24"),
            ("vip-manager --version", "baton version"),
            ("vip-manager", "baton vip --set verbose=false"),
            ("patronictl -c x list demo", "baton -c x list demo"),
            ("/opt/baton agent x.yml", "baton agent x.yml"),
            ("./baton-1.0 list", "baton list"),
        ] {
            assert_eq!(as_called(line), own, "{line}");
        }
    }
}
