//! A former primary that has what the others never got comes back: it follows, and what only it had is kept aside.

use crate::story::{SPAN, Story};
use lab::{Target, processes};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diverged_primary_is_rewound_and_what_only_it_had_is_kept_and_told_to_the_row() {
    // Every transaction of the tail is a client's.
    let quiet = json!({ "postgresql": { "parameters": { "autovacuum": "off" } } });
    let mut story = Story::begin("rejoin", |spec| spec.dynamic = quiet).await;
    story.expect("the lease is gone");
    story.expect("on without etcd");
    // The new primary's first checkpoint takes a moment.
    story.expect("has not written a checkpoint since");
    story.expect("undone and kept");
    let old = story.primary().await;
    let target = story.lab.target();
    target.run("CREATE TABLE tail (n int, word text)", SPAN).await.unwrap();
    story.healthy().await;
    let mut acknowledged = Vec::new();
    write(&target, 0..10, &mut acknowledged).await;

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
    write(&target, 10..40, &mut acknowledged).await;
    story.lab.node(&old).unwrap().kill_host();

    let new = story.another_primary(&old).await;
    story.lab.await_writable(SPAN).await.unwrap();
    target.run("INSERT INTO tail VALUES (-1, 'after')", SPAN).await.unwrap();

    story.lab.node(&old).unwrap().start_agent().unwrap();
    story.healthy().await;
    let node = &story.lab.nodes[story.lab.index(&old).unwrap()];
    let survived = "SELECT string_agg(n::text, ',') FROM tail";
    let survived = story.lab.own_socket(node).ask(survived, SPAN).await.unwrap();
    let survived: Vec<i32> = survived.split(',').map(|n| n.parse().unwrap()).collect();
    assert!(survived.contains(&-1), "{survived:?}");
    assert!(holds(node.dir(), b"only the old primary has row 39"), "the divergent WAL is kept");

    // The client's own log says what is missing; the account must say the same.
    let mut missing: Vec<u64> =
        acknowledged.iter().filter(|(n, _)| !survived.contains(n)).map(|(_, xid)| *xid).collect();
    missing.sort_unstable();
    assert!(missing.len() >= 29, "{acknowledged:?} {survived:?}");
    let loss = lab::wait::until(SPAN, "the loss to be told in etcd", async || {
        story.get(&new, "/baton/losses").await.json().ok()?.as_array()?.first().cloned()
    })
    .await
    .unwrap();
    assert_eq!(loss["commits"], json!(missing.len()), "{loss}");
    assert_eq!(
        (&loss["member"], &loss["leader"], &loss["complete"], &loss["prepared"]),
        (&json!(old), &json!(new), &json!(true), &json!(0)),
        "{loss}"
    );
    assert!(loss["relations"].to_string().contains("postgres.public.tail"), "{loss}");
    let kept = Path::new(loss["kept"].as_str().unwrap());
    let account: Value = serde_json::from_slice(&fs::read(kept.join("baton.loss.json")).unwrap()).unwrap();
    let mut xids: Vec<u64> =
        account["transactions"]["xids"].as_array().unwrap().iter().map(|xid| xid.as_u64().unwrap()).collect();
    xids.sort_unstable();
    assert_eq!(xids, missing, "{account}");

    // A person looks at it as docs/operations.md has it; pg_waldump fails where the WAL ends.
    let mut looks = Command::new(story.spec.binaries.postgres.join("pg_waldump"));
    looks.arg("--path").arg(kept).args(["--timeline", &loss["timeline"].to_string()]);
    let shown = looks.args(["--start", loss["fork"].as_str().unwrap()]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(shown.matches(" desc: COMMIT ").count(), missing.len(), "{shown}");

    let metrics = story.get(&old, "/metrics").await.body;
    let counted = metrics.lines().find(|line| line.starts_with("baton_lost_transactions_total{"));
    assert!(counted.is_some_and(|line| line.ends_with(&format!(" {}", missing.len()))), "{counted:?}");
    let why = story.get(&old, "/baton/why").await.body;
    assert!(why.contains("transactions committed here alone"), "{why}");

    // And whether the next one could be rewound is known before it has to be.
    lab::wait::until(SPAN, "the members to say that they could be rewound", async || {
        let page = story.get(&new, "/metrics").await.body;
        let ready: Vec<&str> = page.lines().filter(|line| line.starts_with("baton_rejoin_ready{")).collect();
        (ready.len() > 5 && ready.iter().all(|line| line.ends_with("} 1"))).then_some(())
    })
    .await
    .unwrap();
    story.end().await;
}

/// Commits one row a transaction; notes which was acknowledged, and under which number.
async fn write(target: &Target, rows: std::ops::Range<i32>, acknowledged: &mut Vec<(i32, u64)>) {
    let client = target.connect(SPAN).await.unwrap();
    for n in rows {
        let sql = format!(
            "INSERT INTO tail VALUES ({n}, 'only the old primary has row {n}') RETURNING pg_current_xact_id()::text"
        );
        let row = client.query_one(&sql, &[]).await.unwrap();
        acknowledged.push((n, row.get::<_, String>(0).parse().unwrap()));
    }
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
