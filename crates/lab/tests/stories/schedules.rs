//! Switchovers and restarts that are planned for a time: then, and not before; by Baton, by Patroni, and each for the other.

use crate::mixed::three;
use crate::story::{SPAN, Story};
use lab::AgentKind::{Baton, Patroni};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// So far ahead that what is planned is seen to wait.
const AHEAD: Duration = Duration::from_secs(5);

impl Story {
    /// A time on the wall clock, and how people write it.
    async fn ahead(&self, node: &str, ahead: Duration) -> (SystemTime, String) {
        let at = clock::wall() + ahead;
        let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let form = "YYYY-MM-DD\"T\"HH24:MI:SS.US";
        let sql = format!("SELECT to_char(to_timestamp({seconds}) AT TIME ZONE 'UTC', '{form}') || '+00:00'");
        (at, self.ask(node, &sql).await)
    }

    /// Orders a switchover for a time by `by`, and sees it done then.
    async fn switch_at_the_time(&self, by: &str, from: &str, to: &str) {
        let (at, text) = self.ahead(from, AHEAD).await;
        let body = json!({ "leader": from, "candidate": to, "scheduled_at": text });
        let answer = self.send(by, "POST", "/switchover", &body).await;
        assert_eq!((answer.status, answer.body.as_str()), (202, "Switchover scheduled"));
        let planned = self.get(by, "/cluster").await.json().unwrap()["scheduled_switchover"].clone();
        assert_eq!((&planned["from"], &planned["to"]), (&json!(from), &json!(to)), "{planned}");
        let listed = self.baton(by, &["list"]).await;
        assert!(listed.contains("Switchover scheduled at"), "{listed}");
        lab::wait::until(SPAN, &format!("{from} to hand over to {to}"), async || {
            let leader = self.lab.view().await.ok()?.leader.map(|(name, _)| name);
            (leader.as_deref() != Some(from)).then_some(())
        })
        .await
        .unwrap();
        assert!(clock::wall() >= at, "{from} led until the time");
        self.led_by(to).await;
        assert_eq!(self.key("failover").await, json!({}), "the wish is done with");
    }

    async fn planned_restart(&self, name: &str) -> Option<Value> {
        self.key(&format!("members/{name}")).await.get("scheduled_restart").cloned()
    }

    /// Plans a restart of a member; how it is seen in the member key.
    async fn plan_restart(&self, name: &str, ahead: Duration, conditions: &Value) -> (SystemTime, Value) {
        let (at, text) = self.ahead(name, ahead).await;
        let mut body = conditions.clone();
        body["schedule"] = json!(text);
        let answer = self.send(name, "POST", "/restart", &body).await;
        assert_eq!((answer.status, answer.body.as_str()), (202, "Restart scheduled"));
        let published =
            lab::wait::until(SPAN, "the plan in the member key", async || self.planned_restart(name).await);
        (at, published.await.unwrap())
    }

    async fn no_restart_planned(&self, name: &str) {
        lab::wait::until(SPAN, "no plan in the member key", async || {
            self.planned_restart(name).await.is_none().then_some(())
        })
        .await
        .unwrap();
    }

    fn postmaster(&self, name: &str) -> i32 {
        self.at(name).postmaster().unwrap().pid
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_planned_is_done_at_its_time() {
    let mut story = Story::begin_led_by_the_first("schedules", |spec| {
        three(spec);
        spec.etcd = 1;
        spec.agents = vec![Baton, Patroni, Baton];
    })
    .await;
    switchovers(&story).await;
    restarts(&mut story).await;
    story.end().await;
}

async fn switchovers(story: &Story) {
    // Taken back: by REST, and by both command lines.
    for by in ["rest", "baton", "patronictl"] {
        let (_, text) = story.ahead("n1", Duration::from_secs(3600)).await;
        let words = ["switchover", "--candidate", "n2", "--scheduled", &text, "--force"];
        match by {
            "patronictl" => story.patronictl("n1", &words).await,
            _ => story.baton("n1", &words).await,
        };
        let flush = ["flush", "demo", "switchover", "--force"];
        match by {
            "rest" => {
                let answer = story.send("n3", "DELETE", "/switchover", &json!({})).await;
                assert_eq!((answer.status, answer.body.as_str()), (200, "scheduled switchover deleted"));
            }
            "baton" => {
                assert!(story.baton("n1", &flush).await.contains("Success: scheduled switchover deleted"))
            }
            _ => assert!(
                story.patronictl("n1", &flush).await.contains("Success: scheduled switchover deleted")
            ),
        }
        assert_eq!(story.send("n3", "DELETE", "/switchover", &json!({})).await.status, 404);
    }
    // A Baton leads and turns at the time for a Patroni; a Patroni does, ordered through a Baton.
    story.switch_at_the_time("n1", "n1", "n2").await;
    story.switch_at_the_time("n3", "n2", "n1").await;
}

async fn restarts(story: &mut Story) {
    let replica = json!({ "role": "replica", "timeout": 40 });
    let before = story.postmaster("n3");
    // Two command lines and another agent come before it.
    let (at, planned) = story.plan_restart("n3", 2 * AHEAD, &replica).await;
    assert_eq!((&planned["role"], &planned["timeout"]), (&json!("replica"), &json!(40)), "{planned}");
    assert!(planned["postmaster_start_time"].is_string(), "{planned}");
    let shown = story.get("n3", "/patroni").await.json().unwrap()["scheduled_restart"].clone();
    assert_eq!((&shown["schedule"], shown.get("postmaster_start_time")), (&planned["schedule"], None));
    let again = story.send("n3", "POST", "/restart", &json!({ "schedule": planned["schedule"] })).await;
    assert_eq!((again.status, again.body.as_str()), (409, "Another restart is already scheduled"));
    for listed in [story.baton("n1", &["list", "-e"]).await, story.patronictl("n1", &["list", "-e"]).await] {
        assert!(listed.contains("Scheduled restart"), "{listed}");
    }
    // An agent that is exchanged under its PostgreSQL keeps the plan.
    assert!(story.lab.node("n3").unwrap().detach_agent(SPAN).await);
    story.lab.node("n3").unwrap().start_agent().unwrap();
    lab::wait::until(SPAN, "n3 to be restarted", async || {
        (story.at("n3").postmaster()?.pid != before).then_some(())
    })
    .await
    .unwrap();
    assert!(clock::wall() >= at, "not before the time");
    story.no_restart_planned("n3").await;
    story.led_by("n1").await;

    // The leader's, with its conditions: the lead stays, and PostgreSQL is another one.
    let (before, leader) = (story.postmaster("n1"), story.lab.view().await.unwrap().leader);
    let conditions = json!({ "role": "primary", "postgres_version": "99.0" });
    story.plan_restart("n1", Duration::from_secs(2), &conditions).await;
    lab::wait::until(SPAN, "n1 to be restarted", async || {
        (story.at("n1").postmaster()?.pid != before).then_some(())
    })
    .await
    .unwrap();
    story.led_by("n1").await;
    assert_eq!(story.lab.view().await.unwrap().leader, leader, "in the same term");

    // Dropped, with the reason: the condition does not hold at the time; taken back; overtaken by another restart.
    let before = story.postmaster("n3");
    story.plan_restart("n3", Duration::from_secs(2), &json!({ "restart_pending": true })).await;
    story.no_restart_planned("n3").await;
    let why = story.get("n3", "/baton/why").await.body;
    assert!(why.contains("none does"), "{why}");
    let later = Duration::from_secs(3600);
    story.plan_restart("n3", later, &replica).await;
    let flushed = story.patronictl("n1", &["flush", "demo", "n3", "restart", "--force"]).await;
    assert!(flushed.contains("Success: flush scheduled restart"), "{flushed}");
    story.no_restart_planned("n3").await;
    assert_eq!(story.postmaster("n3"), before, "nothing of this restarted PostgreSQL");
    story.plan_restart("n3", later, &replica).await;
    let answer = story.send("n3", "POST", "/restart", &json!({ "role": "replica" })).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "restarted successfully"));
    story.no_restart_planned("n3").await;
    story.led_by("n1").await;
}
