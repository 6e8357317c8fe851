//! A former primary that has what the others never got comes back: it follows, and what only it had is kept aside.

use crate::story::{SPAN, Story};
use lab::processes;
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diverged_primary_is_rewound_and_its_tail_is_kept() {
    let mut story = Story::begin("rejoin", |_| {}).await;
    story.expect("the lease is gone");
    // The new primary's first checkpoint takes a moment.
    story.expect("has not written a checkpoint since");
    story.expect("undone and kept");
    let old = story.primary().await;
    let target = story.lab.target();
    target.run("CREATE TABLE tail (word text)", SPAN).await.unwrap();
    story.healthy().await;

    // The primary stops sending; what it commits now is on the primary alone.
    let senders: Vec<i32> = story
        .lab
        .nodes
        .iter()
        .flat_map(lab::Node::processes)
        .filter(|process| process.command.contains("walsender"))
        .map(|process| process.pid)
        .collect();
    assert_eq!(senders.len(), 2);
    senders.iter().for_each(|pid| processes::signal(*pid, Signal::STOP));
    target.run("INSERT INTO tail VALUES ('only the old primary has this')", SPAN).await.unwrap();
    story.lab.node(&old).unwrap().kill_host();

    story.another_primary(&old).await;
    story.lab.await_writable(SPAN).await.unwrap();
    target.run("INSERT INTO tail VALUES ('after')", SPAN).await.unwrap();
    assert_eq!(target.ask("SELECT string_agg(word, ',') FROM tail", SPAN).await.unwrap(), "after");

    story.lab.node(&old).unwrap().start_agent().unwrap();
    story.healthy().await;
    let node = &story.lab.nodes[story.lab.index(&old).unwrap()];
    let rows = story.lab.own_socket(node).ask("SELECT string_agg(word, ',') FROM tail", SPAN).await.unwrap();
    assert_eq!(rows, "after");
    assert!(
        holds(node.dir(), b"only the old primary has this"),
        "the divergent WAL is kept beside the data directory"
    );
    story.end().await;
}

/// Whether a file beside the data directory holds the text.
fn holds(dir: &Path, text: &[u8]) -> bool {
    let data = dir.join("data");
    let mut open: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path != data {
                    open.push(path);
                }
            } else if fs::read(&path)
                .is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text))
            {
                return true;
            }
        }
    }
    false
}
