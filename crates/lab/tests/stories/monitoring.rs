//! check_patroni against a cluster: what it is content with under Patroni, it is content with under Baton.

use crate::story::Story;
use crate::tools::run;
use lab::patroni_bin;

/// The probe, which node it asks, and its code: 0 is OK.
pub(crate) type Probed = Vec<(String, Option<i32>, String)>;

/// Every probe of check_patroni, asked of every node.
pub(crate) async fn probes(story: &Story) -> Probed {
    let program = patroni_bin().unwrap().join("check_patroni");
    let mut probed = Vec::new();
    let primary = story.primary().await;
    let replica = story.a_replica().await;
    // What pg_control says is that of the last checkpoint, which may be from before the lead changed.
    let timeline = "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int";
    let timeline = story.ask(&primary, timeline).await;
    let both = [primary.as_str(), replica.as_str()];
    let asked: Vec<(&[&str], Vec<&str>)> = vec![
        (&both, vec!["cluster_has_leader"]),
        (&both, vec!["cluster_has_replica", "--warning", "@1", "--critical", "@0"]),
        (&both, vec!["cluster_has_scheduled_action"]),
        (&both, vec!["cluster_is_in_maintenance"]),
        (
            &both,
            vec!["cluster_node_count", "--warning", "@2", "--critical", "@1", "--healthy-critical", "@1"],
        ),
        (&both, vec!["node_is_alive"]),
        (&both[..1], vec!["node_is_leader"]),
        (&both[..1], vec!["node_is_primary"]),
        (&both[1..], vec!["node_is_replica", "--max-lag", "10MB"]),
        (&both[1..], vec!["node_is_replica", "--is-async"]),
        (&both, vec!["node_is_pending_restart"]),
        (&both, vec!["node_patroni_version", "--patroni-version", "4.1.5"]),
        (&both, vec!["node_tl_has_changed", "--timeline", timeline.as_str()]),
    ];
    for (nodes, words) in &asked {
        for node in *nodes {
            let endpoint = format!("http://{}", story.at(node).rest);
            let said = run(&program, &[&["--endpoints", endpoint.as_str()], words.as_slice()].concat()).await;
            let kind = if *node == primary { "the primary" } else { "a replica" };
            let mut words = words.clone();
            words.retain(|word| *word != timeline);
            probed.push((format!("{} on {kind}", words.join(" ")), said.code, said.out + &said.err));
        }
    }
    probed
}

/// Every probe that was content with `theirs` is content with `ours`.
pub(crate) fn as_well_as(theirs: &Probed, ours: &Probed) {
    let content = theirs.iter().filter(|(_, code, _)| *code == Some(0)).count();
    assert_eq!(content, theirs.len(), "check_patroni is content with a healthy Patroni: {theirs:?}");
    for ((probe, _, _), (same, code, said)) in theirs.iter().zip(ours) {
        assert_eq!(probe, same);
        assert_eq!(*code, Some(0), "{probe}: {said}");
    }
}
