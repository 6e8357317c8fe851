//! What `baton etcd` is told: by a sound cluster, by one that has lost a member, by one that is full.

use crate::cluster::{Cluster, eventually, keys, servers, within};
use etcd::{Alarm, Config, Etcd, Warning};
use etcd_client::{CompactionOptions, ConnectOptions};
use std::time::{Duration, SystemTime};

fn now() -> SystemTime {
    clock::wall()
}

/// Without the warnings that a busy machine gives.
fn calm(warnings: Vec<Warning>) -> Vec<Warning> {
    warnings.into_iter().filter(|warning| !matches!(warning, Warning::Slow { .. })).collect()
}

#[tokio::test]
async fn a_sound_cluster_has_nothing_to_warn_of_and_a_lost_member_is_named() {
    let mut cluster = Cluster::start(&servers()[0], 3).await;
    // Patient: a busy machine is no fault of a member.
    let config = Config { endpoints: cluster.urls(), attempt: Duration::from_secs(5), tls: None, auth: None };
    let etcd = Etcd::new(config, keys()).unwrap();
    let sound = eventually("all members are level", || async {
        let health = etcd.health(within(20)).await;
        calm(health.warnings(now())).is_empty().then_some(health)
    })
    .await;
    let whole = sound.cluster.unwrap();
    assert_eq!(whole.members.len(), 3);
    let leaders = sound.endpoints.iter().filter(|endpoint| endpoint.status.as_ref().unwrap().leads);
    assert_eq!(leaders.count(), 1);

    let mut raw = cluster.raw(0).await;
    for n in 0..40 {
        raw.put("n", n.to_string(), None).await.unwrap();
    }
    let revision = raw.get("n", None).await.unwrap().header().unwrap().revision();
    let kept = etcd.health(within(20)).await.cluster.unwrap();
    assert_eq!((kept.revision, kept.oldest), (revision, 1), "nothing was compacted yet");
    raw.compact(revision - 5, Some(CompactionOptions::new().with_physical())).await.unwrap();
    let kept = etcd.health(within(20)).await.cluster.unwrap();
    assert_eq!((kept.revision, kept.oldest), (revision, revision - 5));

    cluster.members[2].kill();
    let lost = cluster.members[2].url.clone();
    let warnings = calm(etcd.health(within(20)).await.warnings(now()));
    assert!(
        matches!(warnings.first(), Some(Warning::Silent { endpoint, .. }) if *endpoint == lost),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn a_full_etcd_is_named_on_every_version() {
    for server in servers() {
        let quota = ["--quota-backend-bytes=1048576".to_owned()];
        let cluster = Cluster::start_with(&server, 1, "http", &quota, ConnectOptions::new()).await;
        let mut raw = cluster.raw(0).await;
        let full = eventually("etcd is full", || {
            let mut raw = raw.clone();
            async move { raw.put("filling", vec![b'x'; 256 << 10], None).await.err() }
        })
        .await;
        assert!(full.to_string().contains("space exceeded"), "{full}");
        let health = cluster.etcd().health(within(20)).await;
        let whole = health.cluster.clone().unwrap();
        assert!(matches!(whole.alarms.as_slice(), [Alarm::NoSpace { .. }]), "{whole:?}");
        let warnings = health.warnings(now());
        assert_eq!(warnings.first(), Some(&Warning::NoSpace { member: "m0".to_owned() }), "{warnings:?}");
        // Reads and the list of what is wrong go on; a write is refused with what to do about it.
        let refused = cluster.etcd().put_config(&serde_json::json!({"ttl": 5}), None, within(20)).await;
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("disarm"), "{text}");
        raw.delete("filling", None).await.unwrap();
    }
}
