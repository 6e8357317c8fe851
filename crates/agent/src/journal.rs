//! The journal: the last decisions with their reasons, for `baton why` and for the log.
//!
//! A decision that repeats the one before it (the same branch, nothing to do) only counts it up, so quiet hours take one row.

use ha::{Decision, Observation, Postgres, Running};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;
use types::Moment;

/// So many rows are kept.
const ROWS: usize = 512;
/// So many rows about other things than decisions are kept.
const TOLD: usize = 64;

/// One decision, or several of the same kind in a row.
#[derive(Clone, Debug)]
struct Row {
    at: Timestamp,
    until: Timestamp,
    count: u64,
    duty: &'static str,
    code: String,
    text: String,
    seen: String,
    actions: Vec<String>,
}

/// The last decisions.
#[derive(Default)]
pub(crate) struct Journal {
    rows: VecDeque<Row>,
    /// What came to light between decisions.
    told: VecDeque<Row>,
    /// When the last line was logged.
    logged: Moment,
    /// The last heartbeat, until something else is logged.
    heartbeat: Option<String>,
}

impl Journal {
    /// Notes a decision; logs it when it is news, and else that all is as before, once every `loop_wait`. With `once`, a
    /// heartbeat is not repeated.
    pub(crate) fn note(&mut self, seen: &Observation, decision: &Decision, at: Moment, once: bool) {
        let now = Timestamp::try_from(clock::wall()).unwrap_or_default();
        let (duty, code, text) =
            (decision.reason.duty(), decision.reason.code(), decision.reason.to_string());
        let actions: Vec<String> = decision.actions.iter().map(ToString::to_string).collect();
        if let Some(last) = self.rows.back_mut()
            && last.duty == duty
            && last.code == code
            && last.text == text
            && (actions.is_empty() || actions == last.actions)
        {
            last.until = now;
            last.count += 1;
            self.beat(seen, decision, at, once);
            return;
        }
        self.logged = at;
        self.heartbeat = None;
        let steps = actions.join(", ");
        match (decision.reason.is_warning(), actions.is_empty()) {
            (true, true) => tracing::warn!(duty, code, "{text}"),
            (true, false) => tracing::warn!(duty, code, actions = steps, "{text}"),
            (false, true) => tracing::info!(duty, code, "{text}"),
            (false, false) => tracing::info!(duty, code, actions = steps, "{text}"),
        }
        if self.rows.len() == ROWS {
            self.rows.pop_front();
        }
        let seen = describe(seen);
        self.rows.push_back(Row { at: now, until: now, count: 1, duty, code, text, seen, actions });
    }

    /// Notes something that came to light and is no decision.
    pub(crate) fn tell(&mut self, duty: &'static str, code: &str, text: String) {
        let now = Timestamp::try_from(clock::wall()).unwrap_or_default();
        if self.told.len() == TOLD {
            self.told.pop_front();
        }
        let (code, seen) = (code.to_owned(), String::new());
        self.told.push_back(Row {
            at: now,
            until: now,
            count: 1,
            duty,
            code,
            text,
            seen,
            actions: Vec::new(),
        });
    }

    fn beat(&mut self, seen: &Observation, decision: &Decision, at: Moment, once: bool) {
        if !self.beat_is_due(seen.rules.loop_wait, at) {
            return;
        }
        let line = heartbeat(seen, decision, at);
        if self.is_said(&line, once) {
            tracing::info!("{line}");
        }
    }

    fn beat_is_due(&mut self, loop_wait: Duration, at: Moment) -> bool {
        // A little early is in time: the loop is woken by the clock and by events.
        let due = at.since(self.logged) >= loop_wait.mul_f32(0.9);
        if due {
            self.logged = at;
        }
        due
    }

    /// Whether this heartbeat goes into the log: always, or with `once` when it is another than the last one.
    fn is_said(&mut self, line: &str, once: bool) -> bool {
        let said = !once || self.heartbeat.as_deref() != Some(line);
        self.heartbeat = Some(line.to_owned());
        said
    }

    /// Why the agent does what it does now.
    pub(crate) fn now(&self) -> Option<(&'static str, String)> {
        self.rows.back().map(|row| (row.duty, row.text.clone()))
    }

    /// The last refusal of a switchover.
    pub(crate) fn refused(&self) -> Option<(&'static str, String)> {
        let row = self.rows.iter().rev().find(|row| row.duty == "step aside" && row.code == "Refused")?;
        Some((row.duty, row.text.clone()))
    }

    /// The rows for `GET /baton/why`, oldest first.
    pub(crate) fn to_json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "at": row.at.to_string(), "until": row.until.to_string(), "count": row.count,
                "duty": row.duty, "reason": row.code, "text": row.text, "seen": row.seen,
                "actions": row.actions,
            })
        };
        let mut rows: Vec<&Row> = self.rows.iter().chain(&self.told).collect();
        rows.sort_by_key(|row| row.at);
        rows.into_iter().map(row).collect()
    }
}

/// The line that says that all is as before, as readers of Patroni's log know it.
fn heartbeat(seen: &Observation, decision: &Decision, at: Moment) -> String {
    let me = &seen.me;
    let leader = match seen.cluster().map(|cluster| &cluster.leader) {
        Some(ha::LeaderKey::Held { name, .. }) if name != me => Some(name),
        Some(ha::LeaderKey::Held { .. } | ha::LeaderKey::Free | ha::LeaderKey::Spoiled { .. }) | None => None,
    };
    let pause = if seen.rules.pause { "PAUSE: " } else { "" };
    match (&seen.postgres, leader, seen.leads(at)) {
        (Postgres::Running(Running::Primary { .. }), _, Some(_)) => {
            format!("{pause}no action. I am ({me}), the leader with the lock")
        }
        (Postgres::Running(Running::Standby { .. }), _, Some(_)) => {
            format!("{pause}no action. I am ({me}), the standby leader with the lock")
        }
        (Postgres::Running(Running::Standby { .. }), Some(leader), None) => {
            format!("{pause}no action. I am ({me}), a secondary, and following a leader ({leader})")
        }
        (_, _, _) => format!("{pause}{}", decision.reason),
    }
}

/// What was seen, in one line.
fn describe(seen: &Observation) -> String {
    let postgres = match &seen.postgres {
        Postgres::Stopped => "PostgreSQL stopped".to_owned(),
        Postgres::Starting { .. } => "PostgreSQL starting".to_owned(),
        Postgres::Stopping { .. } => "PostgreSQL stopping".to_owned(),
        Postgres::Unresponsive { .. } => "PostgreSQL silent".to_owned(),
        Postgres::Running(Running::Primary { timeline, lsn }) => {
            format!("primary on timeline {timeline} at {lsn}")
        }
        Postgres::Running(Running::Standby { timeline, lsn, streaming, .. }) => {
            let how = if *streaming { "streaming" } else { "not streaming" };
            format!("standby on timeline {timeline} at {lsn}, {how}")
        }
    };
    let etcd = match seen.cluster() {
        None => "etcd not read yet".to_owned(),
        Some(cluster) => {
            let leader = match &cluster.leader {
                ha::LeaderKey::Free => "nobody".to_owned(),
                ha::LeaderKey::Held { name, term, .. } => format!("{name} in term {term}"),
                ha::LeaderKey::Spoiled { .. } => "a spoiled key".to_owned(),
            };
            format!("leader {leader}, members {}", cluster.members.len())
        }
    };
    let contact = match &seen.etcd {
        ha::Etcd::Seen { contact: ha::Contact::Lost { .. }, .. } => ", etcd silent",
        ha::Etcd::Seen { contact: ha::Contact::Live, .. } | ha::Etcd::Never { .. } => "",
    };
    format!("{postgres}; {etcd}{contact}")
}

#[cfg(test)]
mod tests {
    use super::Journal;
    use ha::duties::{race, synchronize};
    use ha::{Reason, Refusal};
    use std::collections::BTreeMap;
    use std::time::Duration;
    use types::{Lsn, Moment, NodeName, StandbyNames};

    fn refuses(refusal: Refusal) -> Reason {
        Reason::Race(race::Why::Refuses(refusal))
    }

    /// The warnings of a file with these tags.
    fn warnings(tags: &str) -> String {
        let yaml = format!(
            "{{scope: demo, name: n1, restapi: {{listen: '127.0.0.1:8008'}}, etcd3: {{host: '127.0.0.1'}}, tags: {tags}, \
             postgresql: {{listen: '127.0.0.1:5433', data_dir: /data, authentication: {{replication: {{username: r}}}}}}}}"
        );
        let env = BTreeMap::from([(settings::CONFIGURATION.to_owned(), yaml)]);
        let loaded = settings::load_environment(&env).unwrap();
        loaded.warnings.iter().map(|warning| format!("{warning}\n")).collect()
    }

    /// `log.deduplicate_heartbeat_logs`
    #[test]
    fn a_heartbeat_comes_every_loop_wait_and_once_where_that_is_asked_for() {
        let told = |once| {
            let mut journal = Journal::default();
            let mut told = Vec::new();
            for millis in (0..6000).step_by(500) {
                let at = Moment(10_000).after(Duration::from_millis(millis));
                let line = if millis < 3000 { "the leader" } else { "a secondary" };
                if journal.beat_is_due(Duration::from_secs(1), at) && journal.is_said(line, once) {
                    told.push((millis, line));
                }
            }
            told
        };
        let (first, then) = ("the leader", "a secondary");
        let all = [(0, first), (1000, first), (2000, first), (3000, then), (4000, then), (5000, then)];
        assert_eq!(told(false), all);
        assert_eq!(told(true), [(0, first), (3000, then)]);
    }

    /// Test suites that were written for Patroni look for these words, and for the level of the line.
    #[test]
    fn every_text_that_log_readers_look_for_is_said() {
        let (peer, mine, theirs) = (NodeName::from("postgres-3"), Lsn(1), Lsn(2));
        let nobody = |any| synchronize::Why::SetsNames { names: StandbyNames::Everybody { any } };
        for (reason, warning, words) in [
            (
                Reason::Synchronize(nobody(false)),
                true,
                "No active replication connections from Patroni members and synchronous_mode_strict is requested",
            ),
            (
                Reason::Synchronize(nobody(true)),
                true,
                "No active replication connections from Patroni members and synchronous_mode_strict is requested",
            ),
            (
                refuses(Refusal::NoFailoverTag),
                false,
                "following a different leader because I am not allowed to promote",
            ),
            (
                refuses(Refusal::PeerPreferred { peer: peer.clone(), theirs: 2, mine: 1 }),
                false,
                "postgres-3 has equally tolerable WAL position and priority 2, while this node has priority 1",
            ),
            (
                refuses(Refusal::PeerAhead { peer, theirs, mine }),
                false,
                "Wal position of postgres-3 is ahead of my wal position",
            ),
        ] {
            assert_eq!(reason.is_warning(), warning, "{reason}");
            assert!(reason.to_string().contains(words), "{reason}");
        }
        // `finish` of the binary says it with the level CRITICAL.
        let taken =
            crate::Error::NameTaken { name: "postgres-0".to_owned(), api_url: "http://a/".to_owned() };
        let words = "Can't start; there is already a node named 'postgres-0' running";
        assert!(taken.to_string().starts_with(words), "{taken}");
        for (tags, words) in [
            (
                "{nofailover: true, failover_priority: 1}",
                "Conflicting configuration between nofailover: True and failover_priority: 1. Defaulting to nofailover: True",
            ),
            (
                "{nofailover: 'False', failover_priority: 0}",
                "Conflicting configuration between nofailover: False and failover_priority: 0. Defaulting to nofailover: False",
            ),
            (
                "{nosync: true, sync_priority: 1}",
                "Conflicting configuration between nosync: True and sync_priority: 1. Defaulting to nosync: True",
            ),
            (
                "{nosync: false, sync_priority: 0}",
                "Conflicting configuration between nosync: False and sync_priority: 0. Defaulting to nosync: False",
            ),
        ] {
            let said = warnings(tags);
            assert!(said.contains(words), "{tags}: {said}");
        }
        assert_eq!(warnings("{nofailover: true, failover_priority: 0}"), "");
    }
}
