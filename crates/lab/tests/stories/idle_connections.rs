//! Ten thousand idle connections to an agent's REST API change nothing.

use crate::story::{SPAN, Story};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::Duration;
use tokio::net::TcpStream;

const MANY: usize = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_rest_connections_change_nothing() {
    // The children inherit it, and their side of each connection counts as well.
    let limit = getrlimit(Resource::Nofile);
    let enough = u64::try_from(MANY).unwrap() + 1000;
    let wanted = Rlimit { current: limit.maximum.or(Some(enough)), maximum: limit.maximum };
    setrlimit(Resource::Nofile, wanted).unwrap();
    assert!(
        limit.maximum.is_none_or(|most| most >= enough),
        "this test needs {enough} open files: ulimit -Hn"
    );

    let mut story = Story::begin("idle", |_| {}).await;
    story.expect("connections");
    let load = story.load().await;
    let (primary, leader) = (story.primary().await, story.lab.view().await.unwrap().leader);
    let rest = story.lab.node(&primary).unwrap().rest;
    let mut idle = Vec::new();
    for _ in 0..MANY {
        // An agent may refuse what is over its limit; it may not fall over.
        if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(rest)).await {
            idle.push(stream);
        }
    }
    assert!(idle.len() > MANY / 2, "only {} connections were made", idle.len());
    load.work.await_progress(1000, SPAN).await.unwrap();
    assert_eq!(story.lab.view().await.unwrap().leader, leader, "the lead did not change");
    let answer = story.get(&primary, "/primary").await;
    assert_eq!(answer.status, 200, "the agent still answers");
    drop(idle);
    let report = load.end().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    story.end().await;
}
