//! The operator's own commands, and the watchdog: what a real Patroni calls, and in which order, Baton calls too.
//!
//! Every command writes its arguments into `hooks.log` of its node. The watchdog is a pipe that hears what the device would be told.

use crate::story::{SPAN, Story};
use lab::AgentKind::{self, Baton, Patroni};
use lab::{processes, wait};
use rustix::fs::OFlags;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

/// What is laid onto every file; `@DIR@` is the node's directory.
fn hooks() -> Value {
    let hook = |words: &str| format!("@DIR@/hook {words}");
    json!({
        "watchdog": { "mode": "required", "driver": "testing", "device": "@DIR@/dog", "safety_margin": 5 },
        "postgresql": {
            "pre_promote": hook("pre_promote 'two words'"),
            "before_stop": hook("before_stop"),
            "callbacks": {
                "on_start": hook(""),
                "on_stop": hook(""),
                "on_restart": hook(""),
                "on_reload": hook(""),
                "on_role_change": hook("'a word'"),
            },
        },
    })
}

/// Two nodes of one kind, their commands and watchdogs in place; the first leads.
async fn begin(name: &str, kind: AgentKind) -> (Story, Vec<Dog>) {
    let mut story = Story::prepare(name, |spec| {
        (spec.etcd, spec.members, spec.router) = (1, 2, false);
        spec.agents = vec![kind; 2];
        spec.dynamic = json!({ "ttl": 20, "loop_wait": 1, "retry_timeout": 3 });
        spec.agent = hooks();
    })
    .await;
    let mut dogs = Vec::new();
    for node in &story.lab.nodes {
        let dir = node.dir().display().to_string();
        node.write_config(&fs::read_to_string(node.config()).unwrap().replace("@DIR@", &dir)).unwrap();
        let hook = node.dir().join("hook");
        let body = format!(
            "#!/bin/sh\necho \"$*\" >> {dir}/hooks.log\nif [ \"$1\" = pre_promote ] && [ -e {dir}/refuse ]; then exit 1; fi\n"
        );
        fs::write(&hook, body).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        let dog = node.dir().join("dog");
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &dog, kind, rustix::fs::Mode::RWXU, 0).unwrap();
        story.lab.account().own(&dog).unwrap();
        dogs.push(Dog::listen(&story, &node.name));
    }
    story.lab.start_etcd().await.unwrap();
    story.lab.nodes[0].start_agent().unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    story.lab.nodes[1].start_agent().unwrap();
    story.healthy().await;
    (story, dogs)
}

/// What a node's watchdog was told; many renewals count as two.
struct Dog {
    pipe: File,
    told: String,
}

impl Dog {
    fn listen(story: &Story, name: &str) -> Self {
        let dog = story.at(name).dir().join("dog");
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let pipe = rustix::fs::open(dog, flags, rustix::fs::Mode::empty()).unwrap().into();
        Self { pipe, told: String::new() }
    }

    fn told(&mut self) -> &str {
        let mut bytes = [0_u8; 4096];
        let length = self.pipe.read(&mut bytes).unwrap_or_default();
        self.told.push_str(&String::from_utf8_lossy(&bytes[..length]));
        while self.told.contains("111") {
            self.told = self.told.replace("111", "11");
        }
        &self.told
    }

    /// Waits until it was told exactly this since the last time, but for renewals before it.
    async fn hears(&mut self, wanted: &str, why: &str) {
        let what = format!("a watchdog to be told {wanted:?}: {why}");
        let right = || std::future::ready((self.told().trim_start_matches('1') == wanted).then_some(()));
        let heard = wait::until(SPAN, &what, right).await;
        assert!(heard.is_ok(), "told {:?}, not {wanted:?}: {why}", self.told);
        self.told.clear();
    }
}

impl Story {
    /// What was called on a node so far. When files are read again is Patroni's own affair.
    fn called(&self, name: &str) -> Vec<String> {
        let log = fs::read_to_string(self.at(name).dir().join("hooks.log")).unwrap_or_default();
        log.lines().filter(|line| !line.starts_with("on_reload")).map(str::to_owned).collect()
    }

    /// Waits until exactly these were called.
    async fn calls(&self, name: &str, wanted: &[&str]) {
        let what = format!("{name} to call {wanted:?}");
        let seen = wait::until(SPAN, &what, async || (self.called(name) == wanted).then_some(())).await;
        assert!(seen.is_ok(), "{name} called {:?}, not {wanted:?}", self.called(name));
    }
}

/// Through a life that both kinds lead; returns the whole of what was called on both nodes.
async fn life(story: &mut Story, dogs: &mut [Dog]) {
    let mut n1 = vec!["on_start primary demo"];
    let mut n2 = vec!["on_start replica demo"];
    story.calls("n1", &n1).await;
    story.calls("n2", &n2).await;
    dogs[0].hears("Ctimeout=15\n11", "opened by the leader, and kept alive").await;
    assert_eq!(dogs[1].told(), "", "a replica needs none");

    for (name, role, called) in [("n1", "primary", &mut n1), ("n2", "replica", &mut n2)] {
        let answer = story.send(name, "POST", "/restart", &json!({ "role": role })).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        called.extend([
            "before_stop",
            if role == "primary" { "on_restart primary demo" } else { "on_restart replica demo" },
        ]);
        story.calls(name, called).await;
        story.healthy().await;
    }
    let reloads = |story: &Story| {
        let log = fs::read_to_string(story.at("n1").dir().join("hooks.log")).unwrap_or_default();
        log.lines().filter(|line| *line == "on_reload primary demo").count()
    };
    let before = reloads(story);
    assert_eq!(story.send("n1", "POST", "/reload", &Value::Null).await.status, 202);
    wait::until(SPAN, "n1 to reload", async || (reloads(story) > before).then_some(())).await.unwrap();

    // A switchover: the old leader is `demoted`, its watchdog is closed, that of the new one is opened.
    let to_n2 = json!({ "leader": "n1", "candidate": "n2" });
    story.switch_over("n1", &to_n2).await;
    n1.extend(["before_stop", "on_stop demoted demo", "a word on_role_change replica demo"]);
    n2.extend(["pre_promote two words", "a word on_role_change primary demo"]);
    story.calls("n1", &n1).await;
    story.calls("n2", &n2).await;
    story.led_by("n2").await;
    dogs[0].hears("V", "closed with the magic letter").await;
    dogs[1].hears("Ctimeout=15\n11", "opened by the new leader, and kept alive").await;

    // A crash: restarted in its place.
    story.lab.node("n2").unwrap().kill_postmaster().unwrap();
    n2.push("on_start primary demo");
    story.calls("n2", &n2).await;
    story.led_by("n2").await;

    // An agent's end, first of the replica, then of the leader.
    for (name, role) in [("n1", "on_stop replica demo"), ("n2", "on_stop primary demo")] {
        assert!(story.lab.node(name).unwrap().stop_agent(SPAN).await, "{name} ends");
        let called = if name == "n1" { &mut n1 } else { &mut n2 };
        called.extend(["before_stop", role]);
        story.calls(name, called).await;
        if name == "n2" {
            n1.extend(["pre_promote two words", "a word on_role_change primary demo"]);
            story.calls("n1", &n1).await;
        }
        story.lab.node(name).unwrap().start_agent().unwrap();
        let called = if name == "n1" { &mut n1 } else { &mut n2 };
        called.push("on_start replica demo");
        story.calls(name, called).await;
        story.healthy().await;
    }
    story.led_by("n1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patroni_calls_the_operators_commands_in_this_order() {
    let (mut story, mut dogs) = begin("hooks-of-patroni", Patroni).await;
    life(&mut story, &mut dogs).await;
    story.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn baton_calls_them_in_the_same_order_and_heeds_what_they_answer() {
    let (mut story, mut dogs) = begin("hooks", Baton).await;
    story.expect("crash");
    life(&mut story, &mut dogs).await;
    a_refused_promotion(&mut story).await;
    a_crash_that_is_not_waited_for(&mut story).await;
    story.end().await;
}

/// pre_promote fails on the candidate of a switchover: it gives the key up, and the old leader leads again.
async fn a_refused_promotion(story: &mut Story) {
    story.expect("pre_promote");
    story.configure(&json!({ "ttl": 10 })).await;
    // Only those may race that a leader without etcd would ask.
    wait::until(SPAN, "n1 to list n2 in /failsafe", async || {
        story.key("failsafe").await.get("n2").is_some().then_some(())
    })
    .await
    .unwrap();
    let refuse = story.at("n2").dir().join("refuse");
    fs::write(&refuse, "").unwrap();
    let to_n2 = json!({ "leader": "n1", "candidate": "n2" });
    let answer = story.send("n1", "POST", "/switchover", &to_n2).await;
    assert_ne!(answer.status, 200, "{}", answer.body);
    fs::remove_file(&refuse).unwrap();
    story.led_by("n1").await;
    assert_eq!(story.called("n2").last().unwrap(), "pre_promote two words");
    let why = story.get("n2", "/patroni").await;
    assert!(why.body.contains("\"role\": \"replica\""), "{}", why.body);
}

/// With primary_start_timeout 0 a crash of the whole PostgreSQL gives the lead away at once; before, the crash of one of its processes
/// does not, however long its postmaster has been there.
async fn a_crash_that_is_not_waited_for(story: &mut Story) {
    for text in ["PostgreSQL does not answer", "undone and kept", "has not written a checkpoint since"] {
        story.expect(text);
    }
    story.configure(&json!({ "primary_start_timeout": 8 })).await;
    let (leader, postmaster) =
        (story.lab.view().await.unwrap().leader, story.at("n1").postmaster().unwrap().pid);
    let named = |story: &Story| {
        let processes = story.at("n1").processes();
        processes.into_iter().find(|process| process.command.contains("background writer"))
    };
    let victim = named(story).unwrap();
    processes::signal(victim.pid, Signal::KILL);
    wait::until(SPAN, "PostgreSQL to recover by itself", async || {
        named(story).filter(|process| process.pid != victim.pid)
    })
    .await
    .unwrap();
    // That process is back when the recovery begins.
    story.await_answer("n1", "SELECT pg_is_in_recovery()", "f").await;
    story.led_by("n1").await;
    assert_eq!(story.at("n1").postmaster().unwrap().pid, postmaster);
    assert_eq!(story.lab.view().await.unwrap().leader, leader, "the term did not change");

    story.expect("master_start_timeout has no effect");
    story.configure(&json!({ "primary_start_timeout": 0, "master_start_timeout": 77 })).await;
    wait::until(SPAN, "n1 to know that no start is waited for", async || {
        (story.get("n1", "/config").await.json().ok()?["primary_start_timeout"] == 0).then_some(())
    })
    .await
    .unwrap();
    story.lab.node("n1").unwrap().kill_postmaster().unwrap();
    story.led_by("n2").await;
    // It may have to be rewound after that, or not.
    let then = wait::until(SPAN, "n1 to call both commands after its lead", async || {
        let mut called = story.called("n1");
        called.retain(|line| line.contains("on_role_change"));
        let led = called.iter().rposition(|line| line.contains("on_role_change primary"))?;
        Some(called.split_off(led + 1)).filter(|then| then.len() >= 2)
    })
    .await
    .unwrap();
    assert_eq!(then[..2], ["a word on_role_change demoted demo", "a word on_role_change replica demo"]);
}
