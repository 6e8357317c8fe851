//! A cluster as a person sees it: plain values made from what etcd holds and from who answers, and nothing else. All
//! tables and documents are drawn from it.
//!
//!     etcd::Snapshot ──▶ Cluster::from_snapshot ──▶ Cluster ──▶ render::*
//!     answers of the members (probe) ──▶ Cluster::hear ──┘
//!
//! It never claims more than it knows: a member that does not answer is `unreachable`, whatever it wrote last, and a
//! member that the others count on but that has no key is listed as `gone`.

use etcd::BgpNeighbor;
use serde_json::Value;
use std::collections::BTreeMap;
use types::Lsn;

/// One cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cluster {
    /// Its name, the `scope` of the configuration.
    pub name: String,
    /// The system identifier; `None` before the first bootstrap began.
    pub system_id: Option<String>,
    /// All members, by name.
    pub members: Vec<Member>,
    /// Who holds the leader key, and under which term.
    pub lead: Option<Lead>,
    /// Where writes go, as published by the primary itself.
    pub writable: Option<Writable>,
    /// Whether the cluster is paused: nothing is started, stopped or promoted by itself.
    pub paused: bool,
    /// Which replication a commit waits for.
    pub synchronous: Synchronous,
    /// The switchover that waits for its time.
    pub scheduled_switchover: Option<Scheduled>,
    /// Which member has which virtual address: address, role, member.
    pub addresses: Vec<(String, String, String)>,
    /// How members stand with their BGP neighbours, by member.
    pub bgp: Vec<(String, Vec<BgpNeighbor>)>,
    /// Keys that could not be understood, each with what to do.
    pub spoiled: Vec<String>,
    /// What must be said below the table.
    pub remarks: Vec<String>,
}

/// The holder of the leader key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lead {
    pub name: String,
    pub term: i64,
}

/// The promise of the primary that it accepts writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Writable {
    pub name: String,
    pub term: i64,
    pub timeline: u32,
    pub lsn: Lsn,
}

/// `synchronous_mode` of the dynamic configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Synchronous {
    #[default]
    Off,
    On,
    Quorum,
}

/// A switchover that waits for its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scheduled {
    pub at: String,
    pub from: Option<String>,
    pub to: Option<String>,
}

/// What a member is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Leader,
    StandbyLeader,
    SyncStandby,
    QuorumStandby,
    Replica,
}

impl Standing {
    /// The text in tables.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Standing::Leader => "Leader",
            Standing::StandbyLeader => "Standby Leader",
            Standing::SyncStandby => "Sync Standby",
            Standing::QuorumStandby => "Quorum Standby",
            Standing::Replica => "Replica",
        }
    }

    /// Whether it holds the leader key.
    pub(crate) fn leads(self) -> bool {
        matches!(self, Standing::Leader | Standing::StandbyLeader)
    }
}

/// A position of a replica, and how far it is behind the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// Not asked of a leader.
    NotApplicable,
    /// The member did not say.
    Unknown,
    /// At `lsn`; `lag` in bytes, when the leader's position is known.
    At { lsn: Lsn, lag: Option<u64> },
}

/// One member.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub name: String,
    pub host: String,
    pub port: u16,
    pub api_url: String,
    pub standing: Standing,
    /// What PostgreSQL does, or that nobody answers.
    pub state: String,
    pub timeline: Option<u32>,
    pub receive: Position,
    pub replay: Position,
    pub pending_restart: bool,
    /// `name: old->new` for each parameter that waits for a restart.
    pub pending_restart_reason: Vec<String>,
    pub scheduled_restart: Option<String>,
    pub paused: bool,
    pub tags: BTreeMap<String, Value>,
    /// The version that it says to be.
    pub version: Option<String>,
}

/// Whether a member answered when it was asked just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Answer,
    /// Its host answers that nobody listens there: the agent is down.
    Refused(String),
    /// Nothing came back in time; the cause may also be a firewall between here and there.
    Silence(String),
}

impl Member {
    /// Whether it may be the candidate of a switchover.
    pub(crate) fn may_lead(&self) -> bool {
        let tag = |name: &str| self.tags.get(name);
        let nofailover = tag("nofailover").is_some_and(|value| matches!(value, Value::Bool(true)));
        let priority = tag("failover_priority").and_then(|value| match value {
            Value::String(text) => text.parse().ok(),
            other => other.as_i64(),
        });
        let said_false = matches!(tag("nofailover"), Some(Value::Bool(false)));
        !nofailover && (said_false || priority.is_none_or(|priority: i64| priority > 0))
    }

    /// The member that this one replicates from, when its tags say so.
    pub(crate) fn replicates_from(&self) -> Option<&str> {
        self.tags.get("replicatefrom").and_then(Value::as_str).filter(|name| !name.is_empty())
    }
}

impl Cluster {
    /// The member of this name.
    pub(crate) fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The member that holds the leader key and has a key of its own.
    pub(crate) fn leader(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.standing.leads())
    }

    /// Who could take over, by name.
    pub(crate) fn candidates(&self) -> Vec<&Member> {
        let able = |member: &&Member| !member.standing.leads() && member.may_lead() && member.state != "gone";
        self.members.iter().filter(able).collect()
    }

    /// Leaves only what patronictl shows: members that have a key, and no remarks.
    pub(crate) fn forget_own(&mut self) {
        self.members.retain(|member| member.state != "gone");
        self.remarks.clear();
        self.spoiled.clear();
    }

    /// Takes in who answered. When nobody at all did and nobody refused either, the way from here to the members is
    /// the likelier fault: then the states stay as written, and the remark says that they are only that.
    pub(crate) fn hear(&mut self, heard: &BTreeMap<String, Heard>) {
        let deaf = !heard.is_empty() && heard.values().all(|heard| matches!(heard, Heard::Silence(_)));
        if deaf {
            self.remarks.push(
                "no member's REST API answers from this host: the states above are the last that the members wrote"
                    .to_owned(),
            );
            return;
        }
        for member in &mut self.members {
            let why = match heard.get(&member.name) {
                Some(Heard::Refused(why) | Heard::Silence(why)) => why,
                Some(Heard::Answer) | None => continue,
            };
            self.remarks.push(format!(
                "{} does not answer at {} ({why}); it last wrote `{}`",
                member.name, member.api_url, member.state
            ));
            "unreachable".clone_into(&mut member.state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Heard;
    use crate::render::tests::plain;
    use std::collections::BTreeMap;

    fn heard(pairs: &[(&str, Heard)]) -> BTreeMap<String, Heard> {
        pairs.iter().map(|(name, heard)| ((*name).to_owned(), heard.clone())).collect()
    }

    #[test]
    fn a_member_that_does_not_answer_is_not_shown_as_running() {
        let mut cluster = plain();
        cluster.hear(&heard(&[
            ("pg-1", Heard::Answer),
            ("pg-2", Heard::Refused("connection refused".into())),
            ("pg-3", Heard::Silence("no answer in 1 s".into())),
        ]));
        let states: Vec<&str> = cluster.members.iter().map(|member| member.state.as_str()).collect();
        assert_eq!(states, ["running", "unreachable", "unreachable"]);
        assert_eq!(cluster.remarks.len(), 2);
        assert!(cluster.remarks[0].contains("last wrote `streaming`"), "{:?}", cluster.remarks);
    }

    #[test]
    fn when_nobody_is_heard_at_all_the_way_is_doubted_first() {
        let mut cluster = plain();
        let silence = || Heard::Silence("no answer in 1 s".into());
        cluster.hear(&heard(&[("pg-1", silence()), ("pg-2", silence()), ("pg-3", silence())]));
        assert_eq!(cluster.members[0].state, "running");
        assert_eq!(cluster.remarks.len(), 1);
    }

    #[test]
    fn candidates_are_those_that_may_lead() {
        let mut cluster = plain();
        let names = |cluster: &super::Cluster| {
            cluster.candidates().iter().map(|member| member.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&cluster), ["pg-2", "pg-3"]);
        cluster.members[1].tags.insert("nofailover".into(), true.into());
        assert_eq!(names(&cluster), ["pg-3"]);
        cluster.members[2].tags.insert("failover_priority".into(), "0".into());
        assert!(names(&cluster).is_empty());
    }
}
