//! The tree of timelines of a cluster, from what etcd holds and what pgBackRest tells of its backups.
//!
//! ```text
//!   history: where each one ended, who led the next ─┐
//!   members: who is where                            ├──► Tree ──► render::timelines
//!   losses: what a former leader had alone           │
//!   backups: from where to where each one reaches   ─┘
//! ```
//! etcd's history is that of the newest timeline: a line without branches. What stands beside the line was left by somebody: a member
//! that is on a timeline of no ancestor, or further on an old one than the cluster went; a backup of such a timeline; a loss.

use crate::backups::Backup;
use crate::view::{Cluster, Member, Position};
use etcd::{ArchiveRow, Loss, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use types::{Lsn, NodeName, Timeline};

/// All timelines, the oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tree {
    pub cluster: String,
    pub branches: Vec<Branch>,
    /// What must be said below.
    pub remarks: Vec<String>,
}

/// One timeline.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Branch {
    pub timeline: u32,
    /// It is the newest one or an ancestor of it.
    pub ancestor: bool,
    /// Which timeline it left, and where; `None` for the oldest that is known, and beside the line.
    pub from: Option<(u32, Lsn)>,
    pub reason: Option<String>,
    pub since: Option<String>,
    pub leader: Option<String>,
    /// Where the next one left it; `None` for the newest.
    pub until: Option<Lsn>,
    pub members: Vec<Here>,
    pub backups: Vec<Backup>,
    pub lost: Vec<Loss>,
    /// What the archive holds of its beginning.
    pub archive: Option<ArchiveRow>,
}

/// A member that is on this timeline.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Here {
    pub name: String,
    pub role: &'static str,
    pub state: String,
    pub at: Option<Lsn>,
    /// So many bytes behind the fork, which the cluster does not have.
    pub beyond: Option<u64>,
}

/// Puts the tree together.
pub(crate) fn tree(cluster: &Cluster, snapshot: &Snapshot, backups: Vec<Backup>) -> Tree {
    let mut branches: BTreeMap<u32, Branch> = BTreeMap::new();
    let newest = newest(snapshot);
    let mut from: Option<&etcd::HistoryRow> = None;
    for row in &snapshot.history {
        let branch = ancestor(row.timeline.0, from, Some(row.lsn));
        branches.insert(row.timeline.0, branch);
        from = Some(row);
    }
    let mut last = ancestor(newest, from, None);
    last.leader = last.leader.or_else(|| cluster.lead.as_ref().map(|lead| lead.name.clone()));
    branches.insert(newest, last);

    let mut unplaced = Vec::new();
    for member in &cluster.members {
        match member.timeline {
            None => unplaced.push(member.name.as_str()),
            Some(timeline) => {
                let branch = branches.entry(timeline).or_insert_with(|| beside(timeline));
                branch.members.push(here(member, snapshot, branch.until));
            }
        }
    }
    for backup in backups {
        let branch = branches.entry(backup.timeline).or_insert_with(|| beside(backup.timeline));
        branch.backups.push(backup);
    }
    for loss in &snapshot.losses {
        let timeline = loss.timeline.0;
        branches.entry(timeline).or_insert_with(|| beside(timeline)).lost.push(loss.clone());
    }
    for row in &snapshot.archive {
        if let Some(branch) = branches.get_mut(&row.timeline.0) {
            branch.archive = Some(row.clone());
        }
    }
    let mut remarks = Vec::new();
    if !unplaced.is_empty() {
        remarks.push(format!("on which timeline they are is not known of: {}", unplaced.join(", ")));
    }
    remarks.extend(skipped(&branches, snapshot.claimed));
    Tree { cluster: cluster.name.clone(), branches: branches.into_values().collect(), remarks }
}

/// The newest timeline that somebody led on.
fn newest(snapshot: &Snapshot) -> u32 {
    let leader = snapshot.leader.as_ref().and_then(|leader| snapshot.members.get(&leader.name));
    let written =
        [&snapshot.writable, &snapshot.last].into_iter().flatten().map(|writable| writable.timeline);
    let known = written.chain(leader.and_then(|leader| leader.timeline)).max();
    let ended = snapshot.history.last().map(|row| Timeline(row.timeline.0.saturating_add(1)));
    known.max(ended).unwrap_or(Timeline(1)).0
}

fn ancestor(timeline: u32, from: Option<&etcd::HistoryRow>, until: Option<Lsn>) -> Branch {
    Branch {
        ancestor: true,
        from: from.map(|row| (row.timeline.0, row.lsn)),
        reason: from.map(|row| row.reason.clone()),
        since: from.and_then(|row| row.timestamp.clone()),
        leader: from.and_then(|row| row.new_leader.clone()),
        until,
        ..beside(timeline)
    }
}

fn beside(timeline: u32) -> Branch {
    Branch {
        timeline,
        ancestor: false,
        from: None,
        reason: None,
        since: None,
        leader: None,
        until: None,
        members: Vec::new(),
        backups: Vec::new(),
        lost: Vec::new(),
        archive: None,
    }
}

fn here(member: &Member, snapshot: &Snapshot, until: Option<Lsn>) -> Here {
    let found = snapshot.members.get(&NodeName::from(member.name.as_str()));
    let received = match member.receive {
        Position::At { lsn, .. } => Some(lsn),
        Position::NotApplicable | Position::Unknown => None,
    };
    let at = received.max(found.and_then(|found| found.xlog_location.max(found.replay_lsn)));
    let beyond = at.zip(until).map(|(at, until)| at.bytes_since(until)).filter(|bytes| *bytes > 0);
    Here { name: member.name.clone(), role: member.standing.text(), state: member.state.clone(), at, beyond }
}

/// Numbers that a promotion took in etcd and that nobody is known to have led on.
fn skipped(branches: &BTreeMap<u32, Branch>, claimed: Option<Timeline>) -> Option<String> {
    let first = *branches.keys().next()?;
    let last = claimed.map(|claimed| claimed.0).max(branches.keys().next_back().copied())?;
    let known: BTreeSet<u32> = branches.keys().copied().collect();
    // A history may begin late and an order to PostgreSQL may name any number: not more than can be read.
    let missing: Vec<u32> = (first..=last).filter(|number| !known.contains(number)).take(21).collect();
    let mut names: Vec<String> = missing.iter().take(20).map(u32::to_string).collect();
    if missing.len() > 20 {
        names.push("…".to_owned());
    }
    (!names.is_empty()).then(|| {
        format!("taken by promotions that the cluster did not follow: timelines {}", names.join(", "))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Tree, tree};
    use crate::backups;
    use crate::render::tests::loss;
    use crate::snapshot::cluster;
    use etcd::{ArchiveRow, Continuity, HistoryRow, Leader, Loss, Member, Snapshot, Writable};
    use types::{LeaseId, Lsn, NodeName, SystemId, Term, Timeline};

    /// Five timelines of which the third led nowhere; one member stayed behind, one went on alone.
    pub(crate) fn snapshot() -> Snapshot {
        let name = |name: &str| NodeName::from(name);
        let member = |role: &str, timeline: u32, lsn: u64| {
            let text = format!(
                r#"{{"conn_url":"postgres://h:1/x","state":"running","role":"{role}","xlog_location":{lsn},"timeline":{timeline}}}"#
            );
            Member::parse(&text).unwrap()
        };
        let row = |timeline, lsn, hour, leader: &str| HistoryRow {
            timeline: Timeline(timeline),
            lsn: Lsn(lsn),
            reason: "no recovery target specified".into(),
            timestamp: Some(format!("2026-11-27T{hour}:00:00+00:00")),
            new_leader: Some(leader.into()),
        };
        let unknown = Member::parse(r#"{"conn_url":"postgres://h:1/x","state":"starting","role":"replica"}"#);
        Snapshot {
            leader: Some(Leader { name: name("pg-1"), lease: LeaseId(1), term: Term(40), mod_revision: 40 }),
            members: [
                (name("pg-1"), member("primary", 5, 0x600_0148)),
                (name("pg-2"), member("replica", 4, 0x500_0000)),
                (name("pg-3"), member("replica", 4, 0x500_1000)),
                (name("pg-4"), unknown.unwrap()),
            ]
            .into(),
            history: vec![
                row(1, 0x300_0060, 10, "pg-2"),
                row(2, 0x400_0060, 11, "pg-3"),
                row(4, 0x500_0000, 12, "pg-1"),
            ],
            writable: Some(Writable {
                term: Term(40),
                name: name("pg-1"),
                timeline: Timeline(5),
                lsn: Lsn(0x500_0000),
                guarded: true,
                lease: None,
            }),
            losses: vec![Loss { at: "2026-11-27T10:00:05.000Z".into(), relations: vec![], ..loss() }],
            archive: vec![
                archived(2, Continuity::Complete, &[]),
                archived(4, Continuity::Incomplete, &["000000020000000000000003"]),
                archived(5, Continuity::Waits, &["000000050000000000000005"]),
            ],
            claimed: Some(Timeline(6)),
            ..Snapshot::default()
        }
    }

    fn archived(timeline: u32, found: Continuity, names: &[&str]) -> ArchiveRow {
        ArchiveRow {
            timeline: Timeline(timeline),
            fork: Lsn(0),
            member: NodeName::from("pg-1"),
            at: "2026-11-27T10:00:09Z".into(),
            found,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            why: None,
        }
    }

    pub(crate) fn whole() -> Tree {
        let snapshot = snapshot();
        let text = include_str!("backups/info.json");
        let backups = backups::parse(text, "main", Some(SystemId(7_391_234_567_890_123_456))).unwrap();
        tree(&cluster("demo", &snapshot), &snapshot, backups)
    }

    #[test]
    fn the_line_is_that_of_the_newest_timeline() {
        let tree = whole();
        let line: Vec<(u32, bool, Option<u32>)> = tree
            .branches
            .iter()
            .map(|branch| (branch.timeline, branch.ancestor, branch.from.map(|(parent, _)| parent)))
            .collect();
        assert_eq!(line, [(1, true, None), (2, true, Some(1)), (4, true, Some(2)), (5, true, Some(4))]);
        let beyond: Vec<Option<u64>> = tree.branches[2].members.iter().map(|member| member.beyond).collect();
        assert_eq!(beyond, [None, Some(0x1000)]);
        assert_eq!(tree.remarks.len(), 2, "{:?}", tree.remarks);
        assert!(tree.remarks[1].ends_with("timelines 3, 6"), "{:?}", tree.remarks);
    }

    #[test]
    fn a_cluster_of_which_nothing_is_known_has_one_timeline() {
        let nothing = tree(&cluster("new", &Snapshot::default()), &Snapshot::default(), Vec::new());
        assert_eq!(nothing.branches.len(), 1);
        assert!(nothing.remarks.is_empty());
    }

    #[test]
    fn who_is_on_no_ancestor_stands_beside_the_line() {
        let mut snapshot = snapshot();
        snapshot.members.get_mut(&NodeName::from("pg-3")).unwrap().timeline = Some(Timeline(3));
        let tree = tree(&cluster("demo", &snapshot), &snapshot, Vec::new());
        let third = tree.branches.iter().find(|branch| branch.timeline == 3).unwrap();
        assert!(!third.ancestor && third.from.is_none());
        assert_eq!(third.members[0].beyond, None, "where it left the line is not known");
    }
}
