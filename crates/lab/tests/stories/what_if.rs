//! What `baton what-if` predicts is what happens.

use crate::story::{SPAN, Story};
use serde_json::{Value, json};

impl Story {
    /// What the command line says, and its exit status.
    pub(crate) fn what_if(&self, words: &[&str]) -> (String, Option<i32>) {
        let mut command = std::process::Command::new(lab::baton_of_this_build().unwrap());
        command.arg("-c").arg(self.lab.nodes[0].config()).arg("what-if").args(words);
        let output = command.output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        (String::from_utf8_lossy(&output.stdout).into_owned() + &err, output.status.code())
    }

    /// The same as a document.
    pub(crate) fn forecast(&self, words: &[&str]) -> Value {
        let (text, _) = self.what_if(&[words, &["-f", "json"]].concat());
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        value[0].clone()
    }

    /// The line of a metric of a member.
    async fn line(&self, name: &str, metric: &str) -> Option<String> {
        let page = self.get(name, "/metrics").await.body;
        page.lines().find(|line| line.starts_with(&format!("{metric}{{"))).map(str::to_owned)
    }

    /// Its value.
    pub(crate) async fn metric(&self, name: &str, metric: &str) -> Option<f64> {
        self.line(name, metric).await?.rsplit_once(' ')?.1.parse().ok()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_predicted_of_the_loss_of_a_host_is_what_happens() {
    let mut story = Story::begin("what-if", |spec| {
        spec.dynamic =
            json!({ "slots": { "archive": { "type": "physical" } }, "baton": { "await_routers": "2s" } });
        spec.tags = json!({ "nofailover": true });
    })
    .await;
    let never = story.lab.nodes.last().unwrap().name.clone();
    let mut old = story.primary().await;
    if old == never {
        // It may create a cluster. Only one may follow when another leads.
        story.switch_over(&old, &json!({ "leader": old })).await;
        old = story.another_primary(&old).await;
        story.healthy().await;
    }
    let load = story.load().await;
    lab::wait::until(SPAN, "every member to answer, and the slot to be everywhere", async || {
        let told = story.forecast(&[]);
        let all = told["members"].as_object()?.len() == 3;
        let settled = told["leads"].as_array()?.len() == 1 && told["slots"]["archive"] == "survives";
        let awaits = told["awaits_routers"].as_array()?.len() == 1 && told["awaits_routers_seconds"] == 2.0;
        (all && settled && awaits && told["loss_bound_bytes"].as_u64()? > 1 << 20).then_some(())
    })
    .await
    .unwrap();

    let (text, code) = story.what_if(&[]);
    assert_eq!(code, Some(11), "asynchronous replication may lose something: {text}");
    assert!(text.starts_with(&format!("If the host of {old}, which leads, died now:")), "{text}");
    assert!(text.contains("its tags forbid it to lead"), "{text}");
    let (all, _) = story.what_if(&["--all"]);
    assert_eq!(all.lines().count(), 3 * 3 + 2 + 1, "{all}");
    let restarted = story.forecast(&["--event", "postgres-crashes"]);
    assert_eq!(restarted["verdict"], "stays", "{restarted}");
    let refused = story.forecast(&[&never, "--event", "switchover"]);
    assert_eq!((&refused["verdict"], &refused["exit"]), (&json!("refused"), &json!(1)), "{refused}");
    for node in &story.lab.nodes {
        let wanted = if node.name == never { "reason=\"NoFailoverTag\"} 0" } else { "reason=\"\"} 1" };
        // It goes by what was published: of a cluster that is a few seconds old that is old.
        let what = format!("baton_failover_ready of {} to be {wanted}", node.name);
        lab::wait::until(SPAN, &what, async || {
            story.line(&node.name, "baton_failover_ready").await?.ends_with(wanted).then_some(())
        })
        .await
        .unwrap();
    }
    let bound = story.metric(&old, "baton_loss_bound_bytes").await.unwrap();
    // A segment that was switched to may be in it, and the load writes little.
    assert!(bound < f64::from(1 << 30), "{bound}");

    let told = story.forecast(&[]);
    let killed = clock::now();
    story.lab.node(&old).unwrap().kill_host();
    let new = story.another_primary(&old).await;
    let took = clock::now().since(killed).as_secs_f64();
    assert_eq!(told["leads"], json!([new]), "{told}");
    let seconds = told["seconds"].as_f64().unwrap();
    println!("predicted {seconds:.1} s, took {took:.1} s; {told}");
    // A lease is renewed at any moment after the question; the machine may be busy.
    assert!((1.0..=6.0).contains(&seconds), "{told}");
    load.work.await_progress(50, SPAN).await.unwrap();
    let held = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'archive'";
    assert_eq!(story.lab.target().ask(held, SPAN).await.unwrap(), "1");

    story.expect("undone and kept");
    story.expect("the lease is gone");
    story.expect("on without etcd");
    story.lab.node(&old).unwrap().start_agent().unwrap();
    story.healthy().await;
    let lost = story.metric(&old, "baton_undone_bytes").await.unwrap_or(0.0);
    println!("lost {lost} bytes, at most {bound}");
    assert!(lost <= bound, "{lost} bytes were lost, at most {bound} were predicted");
    load.end().await;
    story.end().await;
}
