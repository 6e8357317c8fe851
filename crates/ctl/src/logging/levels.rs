//! Which events are logged: a level for all of ours, levels for parts, and libraries only when something is wrong.

use std::collections::BTreeMap;
use tracing::{Level, Metadata};

/// Our own parts, by the first segment of an event's target.
const PARTS: [&str; 13] = [
    "baton", "agent", "router", "vip", "bgp", "dns", "etcd", "http", "tls", "postgres", "settings", "ha",
    "lab",
];

/// Patroni's names of parts that have a counterpart here.
const PATRONIS: [(&str, &str); 9] = [
    ("patroni", ""),
    ("patroni.api", "agent::api"),
    ("patroni.ha", "agent"),
    ("patroni.watchdog", "agent"),
    ("patroni.config", "settings"),
    ("patroni.dcs", "etcd"),
    ("patroni.dcs.etcd", "etcd"),
    ("patroni.dcs.etcd3", "etcd"),
    ("patroni.postgresql", "postgres"),
];

/// What names `log.loggers` understands, for a message.
pub(super) const KNOWN: &str = "the parts are agent, etcd, postgres, router, vip, bgp, dns, settings, ha, http, tls, or a module of one, such as agent::api";

/// How important an event must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Levels {
    all: Level,
    /// Prefixes of targets, the longest first.
    parts: Vec<(String, Level)>,
}

impl Levels {
    pub(super) fn new(level: &str, loggers: &BTreeMap<String, String>) -> Levels {
        let known = loggers.iter().filter_map(|(name, level)| Some((target(name)?, self::level(level))));
        let mut parts: Vec<(String, Level)> = known.collect();
        parts.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Levels { all: self::level(level), parts }
    }

    /// Whether an event is to be logged.
    pub(super) fn admit(&self, event: &Metadata<'_>) -> bool {
        *event.level() <= self.of(event.target())
    }

    fn of(&self, target: &str) -> Level {
        let first = target.split("::").next().unwrap_or(target);
        if !PARTS.contains(&first) {
            return Level::ERROR;
        }
        let part = self.parts.iter().find(|(name, _)| {
            target
                .strip_prefix(name.as_str())
                .is_some_and(|rest| name.is_empty() || rest.is_empty() || rest.starts_with("::"))
        });
        part.map_or(self.all, |(_, level)| *level)
    }
}

/// The names in `log.loggers` that are no part of this program.
pub(super) fn strangers(loggers: &BTreeMap<String, String>) -> impl Iterator<Item = &String> {
    loggers.keys().filter(|name| target(name).is_none())
}

fn target(name: &str) -> Option<String> {
    if let Some((_, ours)) = PATRONIS.iter().find(|(theirs, _)| *theirs == name) {
        return Some((*ours).to_owned());
    }
    let path = name.replace('.', "::");
    let first = path.split("::").next().unwrap_or_default();
    PARTS.contains(&first).then_some(path)
}

fn level(name: &str) -> Level {
    match name.to_ascii_uppercase().as_str() {
        "DEBUG" | "NOTSET" => Level::DEBUG,
        "WARNING" | "WARN" => Level::WARN,
        "ERROR" | "CRITICAL" | "FATAL" => Level::ERROR,
        _ => Level::INFO,
    }
}

#[cfg(test)]
mod tests {
    use super::{Levels, strangers};
    use std::collections::BTreeMap;
    use tracing::Level;

    #[test]
    fn the_longest_name_decides_and_libraries_are_quiet() {
        let loggers: BTreeMap<String, String> =
            [("patroni.dcs", "DEBUG"), ("agent", "WARNING"), ("agent.api", "error"), ("urllib3", "DEBUG")]
                .map(|(name, level)| (name.to_owned(), level.to_owned()))
                .into();
        let levels = Levels::new("INFO", &loggers);
        assert_eq!(levels.of("etcd::lease"), Level::DEBUG);
        assert_eq!(levels.of("agent::journal"), Level::WARN);
        assert_eq!(levels.of("agent::api::route"), Level::ERROR);
        assert_eq!(levels.of("agents"), Level::ERROR);
        assert_eq!(levels.of("postgres"), Level::INFO);
        assert_eq!(levels.of("hyper::proto"), Level::ERROR);
        assert_eq!(strangers(&loggers).collect::<Vec<_>>(), ["urllib3"]);
    }
}
