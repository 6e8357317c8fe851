//! Cables are pulled: hosts that live and reach nobody, or everybody but etcd. Needs root, as network namespaces do.

use crate::story::{SPAN, Story, cut_off};
use serde_json::json;
use std::time::Duration;

impl Story {
    /// Waits until both standbys are in `/sync`.
    async fn both_synchronous(&self) {
        lab::wait::until(SPAN, "two synchronous standbys", async || {
            (self.lab.view().await.ok()?.synchronous.len() == 2).then_some(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primarys_cable_is_pulled_and_every_acknowledged_row_stays() {
    let mut story = Story::begin("cable", |spec| {
        spec.cables = true;
        spec.dynamic = json!({ "synchronous_mode": "quorum" });
    })
    .await;
    for expected in ["etcd", "lease", "does not answer", "undone and kept"] {
        story.expect(expected);
    }
    story.both_synchronous().await;
    let load = story.load().await;
    let old = story.primary().await;
    let pulled = clock::now();
    story.lab.unplug(&old).unwrap();
    story.another_primary(&old).await;
    load.work.await_progress(50, SPAN).await.unwrap();
    let writing = clock::now();
    story.lab.plug(&old).unwrap();
    story.healthy().await;
    assert_ne!(story.primary().await, old, "it follows whoever leads now");
    story.both_synchronous().await;
    // Each node was asked on its own socket all the time, also the one that nobody else could reach.
    let report = load.end().await;
    let pause = report.longest_pause(pulled, writing);
    println!("no commit for {} ms after the cable had been pulled", pause.as_millis());
    // The lease has 5 s; twice that is for a busy machine.
    assert!(pause < Duration::from_secs(10), "{pause:?}");
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_alone_is_cut_off_from_etcd_steps_down_in_time_and_follows() {
    let mut story = Story::begin("cut-off", |spec| spec.cables = true).await;
    // Stopped at once and without synchronous standbys, it may have rows that they had not got yet.
    for expected in ["etcd", "lease", "without etcd", "failsafe", "undone and kept"] {
        story.expect(expected);
    }
    let load = story.load().await;
    let old = story.primary().await;
    let before = story.lab.view().await.unwrap().leader;

    // For less than a lease: nothing moves.
    story.lab.cut_from_etcd(&old).unwrap();
    load.work.await_progress(100, SPAN).await.unwrap();
    story.lab.mend_to_etcd(&old).unwrap();
    load.work.await_progress(300, SPAN).await.unwrap();
    assert_eq!(story.lab.view().await.unwrap().leader, before, "the lead and its term are the same");

    // For longer: those who reach etcd do not agree to its leading on, and it ends by itself, before its deadline.
    story.lab.cut_from_etcd(&old).unwrap();
    story.another_primary(&old).await;
    load.work.await_progress(50, SPAN).await.unwrap();
    let log = std::fs::read_to_string(story.at(&old).log()).unwrap();
    for said in [
        "etcd answers here",
        "PostgreSQL is stopped now, so that it has ended before another member may lead",
    ] {
        assert!(log.contains(said), "{log}");
    }
    story.lab.mend_to_etcd(&old).unwrap();
    story.healthy().await;
    let old = {
        let now = story.primary().await;
        assert_ne!(now, old);
        now
    };

    // And with the router, which goes on to believe in it: what it leads there is not accepted once another may lead.
    for cut in [old.as_str(), "router"] {
        story.lab.cut_from_etcd(cut).unwrap();
    }
    story.another_primary(&old).await;
    // Both go through the router: who comes anew, and the load, which counts what it was told is written.
    let (counted, end) = (load.work.acked(), clock::now().after(cut_off()));
    while clock::now() < end {
        let written = story.lab.target().can_write(Duration::from_millis(300)).await;
        assert!(written.is_err(), "a write into a primary that is no more");
    }
    assert_eq!(load.work.acked(), counted, "rows into a primary that is no more");
    for cut in [old.as_str(), "router"] {
        story.lab.mend_to_etcd(cut).unwrap();
    }
    load.work.await_progress(50, SPAN).await.unwrap();
    story.healthy().await;
    let report = load.end().await;
    let causes = report.causes(types::Moment(0), clock::now());
    assert!(causes.keys().all(|cause| !cause.contains("25006")), "{causes:?}");
    story.end().await;
}
