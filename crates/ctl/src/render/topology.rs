//! `topology`: who replicates from whom, as a tree under the leader.

use super::list::indented;
use crate::view::{Cluster, Member};
use std::collections::BTreeSet;

/// Draws the tree.
pub(crate) fn topology(cluster: &Cluster) -> String {
    let mut rows: Vec<(usize, &Member)> = Vec::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    if let Some(leader) = cluster.leader() {
        visit(cluster, leader, 0, &mut rows, &mut seen);
    }
    // Without a leader all hang on it, and a circle of `replicatefrom` hangs on nothing: both stand below the top.
    for member in &cluster.members {
        if !seen.contains(member.name.as_str()) {
            rows.push((1, member));
        }
    }
    indented(cluster, &rows)
}

fn visit<'a>(
    cluster: &'a Cluster,
    member: &'a Member,
    depth: usize,
    rows: &mut Vec<(usize, &'a Member)>,
    seen: &mut BTreeSet<&'a str>,
) {
    if !seen.insert(&member.name) {
        return;
    }
    rows.push((depth, member));
    for below in cluster.members.iter().filter(|other| upstream(cluster, other) == Some(member.name.as_str()))
    {
        visit(cluster, below, depth + 1, rows, seen);
    }
}

/// The member that `member` hangs on: the one its tag names if that exists, else the leader.
fn upstream<'a>(cluster: &'a Cluster, member: &'a Member) -> Option<&'a str> {
    if member.standing.leads() {
        return None;
    }
    let named =
        member.replicates_from().filter(|name| *name != member.name && cluster.member(name).is_some());
    named.or_else(|| cluster.leader().map(|leader| leader.name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::topology;
    use crate::render::tests::rich;
    use serde_json::json;

    #[test]
    fn cascades_hang_below_their_source() {
        insta::assert_snapshot!("topology", topology(&rich()));
    }

    #[test]
    fn a_circle_is_drawn_once() {
        let mut cluster = rich();
        cluster.members[1].tags.insert("replicatefrom".into(), json!("pg-4"));
        let drawn = topology(&cluster);
        assert_eq!(drawn.matches("pg-2 ").count(), 1, "{drawn}");
        assert_eq!(drawn.matches("+ pg-4").count(), 1, "{drawn}");
    }
}
