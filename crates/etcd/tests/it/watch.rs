//! The watch: what it shows, and what it survives.

use crate::cluster::{ATTEMPT, Cluster, eventually, keys, servers, within};
use etcd::{Config, Contact, Etcd, Snapshot, View, watch};
use etcd_client::PutOptions;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;
use types::{Lsn, NodeName};

/// Waits until the view is as wanted.
async fn until(views: &mut Receiver<View>, what: &str, wanted: impl FnMut(&View) -> bool) -> View {
    if let Ok(view) = tokio::time::timeout(Duration::from_secs(60), views.wait_for(wanted)).await {
        return view.unwrap().clone();
    }
    panic!("waited in vain until {what}; the view is {:?}", views.borrow())
}

fn snapshot(view: &View) -> Option<&Snapshot> {
    view.snapshot.as_deref()
}

fn config(view: &View) -> Option<i64> {
    snapshot(view)?.config.as_ref()?.value.get("n")?.as_i64()
}

fn live(view: &View) -> bool {
    matches!(view.contact, Contact::Live { .. })
}

fn lost(view: &View) -> bool {
    matches!(view.contact, Contact::Lost { .. })
}

#[tokio::test]
async fn puts_deletes_and_expiry_are_seen() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let etcd = cluster.etcd();
        etcd.put_config(&json!({"n": 1}), None, within(20)).await.unwrap();
        let (mut views, _watcher) = watch(etcd.clone());
        until(&mut views, "what was there is seen", |view| config(view) == Some(1)).await;
        etcd.put_config(&json!({"n": 2}), None, within(20)).await.unwrap();
        until(&mut views, "a put is seen", |view| config(view) == Some(2)).await;

        let me = NodeName::from("pg-a");
        let lease = etcd.grant(6, within(20)).await.unwrap().lease;
        let term = etcd.acquire_leader(&me, lease, within(20)).await.unwrap().unwrap();
        let leads =
            |view: &View| snapshot(view).and_then(|all| all.leader.as_ref()).map(|leader| leader.term);
        until(&mut views, "the leader is seen", |view| leads(view) == Some(term)).await;
        let view = until(&mut views, "its lease expires", |view| leads(view).is_none()).await;
        assert!(live(&view));

        etcd.remove_cluster(within(20)).await.unwrap();
        until(&mut views, "the deletion is seen", |view| {
            snapshot(view).is_some_and(|all| all.config.is_none())
        })
        .await;
        // What the watch carried on is what a read finds.
        etcd.put_config(&json!({"n": 3}), None, within(20)).await.unwrap();
        let view = until(&mut views, "the new config is seen", |view| config(view) == Some(3)).await;
        let read = etcd.snapshot(within(20)).await.unwrap();
        assert_eq!(
            snapshot(&view).map(|all| (&all.config, &all.members)),
            Some((&read.config, &read.members))
        );
    }
}

#[tokio::test]
async fn proof_of_life_comes_by_itself() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        // So patient that a stall of the machine is not taken for a silent etcd: after that all is read anew.
        let config = Config { endpoints: cluster.urls(), attempt: ATTEMPT * 10, tls: None, auth: None };
        let (mut views, _watcher) = watch(Etcd::new(config, keys()).unwrap());
        let mut last = until(&mut views, "etcd is there", live).await;
        let first = last.snapshot.clone().unwrap();
        for _ in 0..3 {
            let Contact::Live { at } = last.contact else { panic!("{last:?}") };
            let later = |view: &View| matches!(view.contact, Contact::Live { at: now } if now > at);
            last = until(&mut views, "the proof is renewed", later).await;
        }
        assert!(Arc::ptr_eq(&first, last.snapshot.as_ref().unwrap()), "nothing changed, nothing was copied");
    }
}

#[tokio::test]
async fn the_watch_moves_on_when_its_member_is_killed_or_frozen() {
    for server in servers() {
        let mut cluster = Cluster::start(&server, 3).await;
        let writer = cluster.etcd_from(2);
        writer.put_config(&json!({"n": 1}), None, within(20)).await.unwrap();
        let (mut views, _watcher) = watch(cluster.etcd_from(0));
        until(&mut views, "the first config is seen", |view| config(view) == Some(1)).await;

        cluster.members[0].kill();
        writer.put_config(&json!({"n": 2}), None, within(30)).await.unwrap();
        until(&mut views, "a put is seen through another member", |view| config(view) == Some(2)).await;
        cluster.members[0].start();
        cluster.serving(0).await;

        cluster.members[1].freeze();
        writer.put_config(&json!({"n": 3}), None, within(30)).await.unwrap();
        let view =
            until(&mut views, "a put is seen past the frozen member", |view| config(view) == Some(3)).await;
        assert!(live(&view), "{view:?}");
        cluster.members[1].thaw();
    }
}

#[tokio::test]
async fn the_watch_survives_compaction() {
    for server in servers() {
        let cluster = Cluster::start(&server, 3).await;
        let leader = cluster.leader().await;
        let (watched, writing) = ((leader + 1) % 3, leader);
        let writer = cluster.etcd_from(writing);
        writer.put_config(&json!({"n": 0}), None, within(20)).await.unwrap();
        let (mut views, _watcher) = watch(cluster.etcd_from(watched));
        until(&mut views, "the first config is seen", |view| config(view) == Some(0)).await;

        // While the watched member is frozen, what it has not sent yet is written and compacted away.
        cluster.members[watched].freeze();
        let mut revision = 0;
        for number in 1..=50 {
            revision = writer.put_config(&json!({"n": number}), None, within(20)).await.unwrap();
        }
        cluster.raw(writing).await.compact(revision, None).await.unwrap();
        cluster.members[watched].thaw();
        until(&mut views, "the newest is seen", |view| config(view) == Some(50)).await;
        writer.put_config(&json!({"n": 51}), None, within(20)).await.unwrap();
        until(&mut views, "the watch goes on", |view| config(view) == Some(51)).await;
    }
}

#[tokio::test]
async fn etcd_away_is_told_and_so_is_its_return() {
    for server in servers() {
        let mut cluster = Cluster::start(&server, 1).await;
        let etcd = cluster.etcd();
        etcd.put_config(&json!({"n": 1}), None, within(20)).await.unwrap();
        let (mut views, _watcher) = watch(etcd.clone());
        let before = clock::now();
        until(&mut views, "the config is seen", |view| config(view) == Some(1)).await;

        cluster.members[0].kill();
        let view = until(&mut views, "etcd is lost", lost).await;
        assert_eq!(config(&view), Some(1), "what was known is kept");
        let Contact::Lost { since, why } = view.contact else { panic!() };
        assert!(since >= before && since <= clock::now());
        assert!(why.contains(&cluster.members[0].url), "{why}");
        cluster.members[0].start();
        until(&mut views, "etcd is back", live).await;
        etcd.put_config(&json!({"n": 2}), None, within(20)).await.unwrap();
        until(&mut views, "the watch goes on", |view| config(view) == Some(2)).await;

        cluster.members[0].freeze();
        until(&mut views, "a frozen etcd is lost too", lost).await;
        cluster.members[0].thaw();
        until(&mut views, "etcd is back", live).await;
    }
}

#[tokio::test]
async fn a_watch_may_begin_before_etcd() {
    let server = servers().remove(0);
    let mut cluster = Cluster::start(&server, 1).await;
    cluster.members[0].kill();
    let (mut views, watcher) = watch(cluster.etcd());
    let never = |view: &View| matches!(&view.contact, Contact::Never { why, .. } if why.contains("refused"));
    let view = until(&mut views, "the refusal is told", never).await;
    assert!(view.snapshot.is_none());
    cluster.members[0].start();
    until(&mut views, "etcd is there", live).await;
    drop(watcher);
    let ended =
        tokio::time::timeout(Duration::from_secs(30), async { while views.changed().await.is_ok() {} }).await;
    assert!(ended.is_ok(), "the watch ends with its guard");
}

#[tokio::test]
async fn spoiled_while_watched_keeps_what_was_there() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let etcd = cluster.etcd();
        let keys = etcd.keys().clone();
        let lease = etcd.grant(60, within(20)).await.unwrap().lease;
        let term = etcd.acquire_leader(&NodeName::from("pg-a"), lease, within(20)).await.unwrap().unwrap();
        etcd.put_config(&json!({"n": 1}), None, within(20)).await.unwrap();
        etcd.put_optime_leader(Lsn(7), term, within(20)).await.unwrap();
        let (mut views, _watcher) = watch(etcd.clone());
        until(&mut views, "the config is seen", |view| config(view) == Some(1)).await;

        let spoiled =
            |count: usize| move |view: &View| snapshot(view).is_some_and(|all| all.spoiled.len() == count);
        let mut raw = cluster.raw(0).await;
        raw.put(keys.config(), "{", None).await.unwrap();
        raw.put(keys.optime_leader(), "far", None).await.unwrap();
        let options = PutOptions::new().with_lease(lease.0);
        raw.put(keys.leader(), "", Some(options)).await.unwrap();
        let view = until(&mut views, "three are spoiled", spoiled(3)).await;
        let all = snapshot(&view).unwrap();
        assert_eq!((config(&view), all.optime()), (Some(1), Some(Lsn(7))));
        assert_eq!(all.leader.as_ref().map(|leader| leader.term), Some(term));

        // A new read keeps it too: the stream ends with its connection.
        cluster.members[0].freeze();
        until(&mut views, "etcd is lost", lost).await;
        cluster.members[0].thaw();
        let view = until(&mut views, "etcd is back", live).await;
        let all = snapshot(&view).unwrap();
        assert_eq!((config(&view), all.optime(), all.spoiled.len()), (Some(1), Some(Lsn(7)), 3));

        raw.put(keys.config(), r#"{"n":2}"#, None).await.unwrap();
        raw.delete(keys.optime_leader(), None).await.unwrap();
        raw.delete(keys.leader(), None).await.unwrap();
        let view = until(&mut views, "nothing is spoiled", spoiled(0)).await;
        let all = snapshot(&view).unwrap();
        assert_eq!((config(&view), all.optime(), all.leader.is_none()), (Some(2), None, true));
    }
}

/// Eight writers, one watch: what it carried on is what a read finds.
#[tokio::test]
async fn the_watch_and_a_read_agree_after_a_storm() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let (mut views, _watcher) = watch(cluster.etcd());
        let lease = cluster.etcd().grant(60, within(20)).await.unwrap().lease;
        let writers = (0..8).map(|writer| {
            let etcd = cluster.etcd();
            tokio::spawn(async move {
                let name = NodeName(format!("pg-{writer}"));
                let mut member = etcd::Member::new(types::PostgresState::Running, types::Role::Replica);
                for number in 0..25 {
                    member.xlog_location = Some(Lsn(number));
                    etcd.put_member(&name, &member, lease, within(30)).await.unwrap();
                    if number % 7 == writer % 7 {
                        etcd.delete_member(&name, within(30)).await.unwrap();
                    }
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        let read = cluster.etcd().snapshot(within(20)).await.unwrap();
        let same = |view: &View| snapshot(view).is_some_and(|all| all.members == read.members);
        until(&mut views, "the watch has caught up", same).await;
        eventually("etcd still answers", || async { cluster.etcd().snapshot(within(5)).await.ok() }).await;
    }
}
