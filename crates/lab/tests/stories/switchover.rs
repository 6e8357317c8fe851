//! Planned switchovers: nothing is lost, no connection fails, and what makes no sense is refused.

use crate::story::{SPAN, Story};
use lab::FailureKind;
use serde_json::json;
use types::Moment;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switchovers_lose_nothing_and_refuse_no_connection() {
    let story = Story::begin("switchover", |_| {}).await;
    let load = story.load().await;
    for _round in 0..3 {
        let (old, candidate) = (story.primary().await, story.a_replica().await);
        let answer =
            story.send(&old, "POST", "/switchover", &json!({ "leader": old, "candidate": candidate })).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(story.another_primary(&old).await, candidate);
        load.work.await_progress(50, SPAN).await.unwrap();
        story.healthy().await;
    }
    let report = load.end().await;
    let all = (Moment(0), clock::now());
    assert_eq!(report.failed(FailureKind::Connection, all.0, all.1), 0, "{:?}", report.causes(all.0, all.1));
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_that_makes_no_sense_is_refused_and_changes_nothing() {
    let story = Story::begin("refused", |_| {}).await;
    let (primary, replica) = (story.primary().await, story.a_replica().await);
    let before = story.lab.view().await.unwrap().leader;
    for (body, status) in [
        (json!({}), 400),
        (json!({ "candidate": replica }), 400),
        (json!({ "leader": primary, "candidate": primary }), 400),
        (json!({ "leader": replica }), 412),
        (json!({ "leader": primary, "candidate": "nobody" }), 412),
    ] {
        let answer = story.send(&primary, "POST", "/switchover", &body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
    }
    assert_eq!(story.lab.view().await.unwrap().leader, before);
    story.end().await;
}
