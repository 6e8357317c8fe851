//! A router that serves reads: a replica whose replay stands still gets no sessions; and what a session costs beside HAProxy.

use crate::story::{SPAN, Story};
use lab::Target;
use lab::bench_router::{Load, Options, beside_haproxy};
use serde_json::json;
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use types::Moment;

const WHO: &str = "SELECT host(inet_server_addr())";

impl Story {
    fn own(&self, name: &str) -> Target {
        self.lab.own_socket(&self.lab.nodes[self.lab.index(name).unwrap()])
    }

    fn address(&self, name: &str) -> String {
        self.lab.nodes[self.lab.index(name).unwrap()].address.to_string()
    }

    /// Waits until the router's log has said this so many times.
    async fn router_says(&self, text: &str, times: usize) -> Moment {
        let log = self.lab.router_log().unwrap().to_owned();
        lab::wait::until(SPAN, text, async || {
            let said = std::fs::read_to_string(&log).ok()?;
            (said.matches(text).count() >= times).then(clock::now)
        })
        .await
        .unwrap()
    }

    /// So many megabytes of WAL.
    async fn write_wal(&self, megabytes: usize) {
        let sql = "SELECT pg_logical_emit_message(false, 'story', repeat('x', 1000000))";
        let client = self.lab.target().connect(SPAN).await.unwrap();
        for _ in 0..megabytes {
            client.batch_execute(sql).await.unwrap();
        }
    }
}

/// Whom twelve new sessions reach.
async fn reached(target: &Target) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for _ in 0..12 {
        all.insert(target.ask(WHO, SPAN).await.unwrap());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_leave_who_does_not_replay_and_a_session_costs_little() {
    let mut story = Story::prepare("reads", |_| {}).await;
    let ports = story.lab.block.ports;
    let services = json!([
        { "name": "primary", "port": ports.primary(), "role": "primary" },
        { "name": "replica", "port": ports.replica(), "role": "replica", "max_lag": "2MB" },
        { "name": "strict", "port": ports.offline(), "role": "replica", "max_lag": "2MB", "fallback": "none" },
        { "name": "patient", "port": ports.direct(), "role": "replica", "fallback": "none" },
    ]);
    story.spec.router_file = json!({ "router": { "services": services, "hold_timeout": "1s" } });
    story.lab.configure_router(&story.spec).unwrap();
    story.lab.start_etcd().await.unwrap();
    story.lab.start_agents().unwrap();
    story.lab.start_router().unwrap();
    story.lab.start_haproxy().unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    story.healthy().await;
    standing_still(&story).await;
    haproxy_leads_as_we_do(&story).await;
    costs(&mut story).await;
    story.end().await;
}

/// The replay of one replica stands still, then that of the other; then both go on.
async fn standing_still(story: &Story) {
    let [replica, strict, patient] = {
        let ports = story.lab.block.ports;
        [ports.replica(), ports.offline(), ports.direct()].map(|port| story.lab.service(port))
    };
    let primary = story.primary().await;
    let names = story.lab.nodes.iter().map(|node| node.name.clone()).filter(|name| *name != primary);
    let [one, other] = <[String; 2]>::try_from(names.collect::<Vec<_>>()).unwrap();
    let (one_at, other_at) = (story.address(&one), story.address(&other));
    // Of one that has only just come it is not known yet how far behind it is.
    leads_to(&replica, [one_at.clone(), other_at.clone()].into()).await;

    story.own(&one).run("SELECT pg_wal_replay_pause()", SPAN).await.unwrap();
    story.write_wal(3).await;
    let written = clock::now();
    // For each of the two services that have a limit.
    let out = story.router_says("too far behind", 2).await;
    println!("left out {:?} after the last of it was written", out.since(written));
    // What was written reaches the other one a moment later: it may be left out for one look of the router.
    leads_to(&replica, [other_at.clone()].into()).await;
    assert_eq!(reached(&patient).await, [one_at.clone(), other_at.clone()].into(), "it has no limit");

    story.own(&other).run("SELECT pg_wal_replay_pause()", SPAN).await.unwrap();
    story.write_wal(3).await;
    story.router_says("too far behind", 4).await;
    // The primary may stand in.
    leads_to(&replica, [story.address(&primary)].into()).await;
    let refused = strict.connect(SPAN).await.expect_err("it may not stand in");
    assert!(format!("{refused:#}").contains("no connection within"), "{refused:#}");

    for name in [&one, &other] {
        story.own(name).run("SELECT pg_wal_replay_resume()", SPAN).await.unwrap();
    }
    story.router_says("has caught up", 4).await;
    leads_to(&strict, [one_at, other_at].into()).await;
}

/// A process that is ended with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _waited_already = self.0.wait();
    }
}

/// What `baton haproxy-config` makes of services leads where the router would, before and after a switchover.
async fn haproxy_leads_as_we_do(story: &Story) {
    let ports = [(); 4].map(|()| testbed::free_port());
    let services = json!([
        { "name": "primary", "port": ports[0], "role": "primary" },
        { "name": "replica", "port": ports[1], "role": "replica", "max_lag": "2MB", "slow_start": "1s" },
        { "name": "sync", "port": ports[2], "role": "sync" },
        { "name": "any", "port": ports[3], "role": "any", "balance": "round_robin" },
    ]);
    let mut spec = story.spec.clone();
    spec.router_file =
        json!({ "router": { "services": services, "listen": "127.0.0.1", "max_connections": 500 } });
    story.lab.configure_router(&spec).unwrap();
    let file = story.lab.base().join("router/router.yml");
    let written = Command::new(lab::baton_of_this_build().unwrap()).arg("haproxy-config").arg(&file).output();
    let written = written.unwrap();
    story.lab.configure_router(&story.spec).unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let config = story.lab.base().join("haproxy-config.cfg");
    std::fs::write(&config, &written.stdout).unwrap();
    let mut haproxy = Command::new(lab::haproxy_binary().unwrap());
    let log = std::fs::File::create(story.lab.base().join("haproxy-config.log")).unwrap();
    haproxy.arg("-db").arg("-f").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let _haproxy = Running(haproxy.spawn().unwrap());
    let targets = ports.map(|port| Target { host: "127.0.0.1".into(), ..story.lab.service(port) });
    for round in 0..2 {
        let primary = story.primary().await;
        let all: BTreeSet<String> = story.lab.nodes.iter().map(|node| node.address.to_string()).collect();
        let leader: BTreeSet<String> = [story.address(&primary)].into();
        let replicas: BTreeSet<String> = all.difference(&leader).cloned().collect();
        // Nobody is a synchronous standby here: the primary stands in.
        let wanted = [leader.clone(), replicas, leader, all];
        for (target, wanted) in targets.iter().zip(wanted) {
            leads_to(target, wanted).await;
        }
        let table = format!("CREATE TABLE by_haproxy_{round} ()");
        targets[0].run(&table, SPAN).await.expect("it can be written to");
        if round == 0 {
            story.switch_over(&primary, &json!({ "leader": primary })).await;
            story.another_primary(&primary).await;
            story.healthy().await;
        }
    }
}

/// Whom twelve new sessions reach, if they all reach somebody.
async fn tried(target: &Target) -> Option<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for _ in 0..12 {
        all.insert(target.ask(WHO, SPAN).await.ok()?);
    }
    Some(all)
}

/// Waits until twelve new sessions reach just these.
async fn leads_to(target: &Target, wanted: BTreeSet<String>) {
    let what = format!("port {} to lead to {wanted:?}", target.port);
    lab::wait::until(SPAN, &what, async || (tried(target).await? == wanted).then_some(())).await.unwrap();
}

/// Very wide bounds, against what is slower by an order of magnitude: this is no optimized build, and the machine has other things to do. `make bench-router` has the narrow ones.
async fn costs(story: &mut Story) {
    let options = Options {
        loads: vec![Load::Prepared(8), Load::Connect(8), Load::CopyOut],
        pairs: 1,
        seconds: 2,
        copy_megabytes: 50,
        idle: 500,
        ..Options::default()
    };
    let spec = story.spec.clone();
    let (ratios, idle) = beside_haproxy(&options, &spec, &mut story.lab).await.unwrap();
    println!("beside HAProxy: {ratios:?}; bytes of an idle session: {idle:?}");
    for of in ratios {
        assert!(of.rate > 0.05 && of.proxy < 20.0, "{of:?}");
    }
    let (haproxy, baton) = idle.unwrap();
    assert!(baton < 3 * haproxy, "{baton} bytes for an idle session; HAProxy {haproxy}");
}
