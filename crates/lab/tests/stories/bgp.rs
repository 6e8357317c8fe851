//! A real cluster that announces its primary's address to a real BIRD, both as docs/vip.md has them. Needs root, as network namespaces do.

use crate::addresses::LATE;
use crate::document;
use crate::story::{SPAN, Story};
use lab::netns::Host;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::time::Duration;
use testbed::Running;

/// The hosts that the routes to both addresses of the document lead to.
fn routes(router: &Host) -> [Option<String>; 2] {
    [("-4", "192.0.2.100"), ("-6", "2001:db8::100")].map(|(kind, ip)| {
        let shown = router.command("ip").args([kind, "route", "show", ip]).output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        shown.split_whitespace().skip_while(|word| *word != "via").nth(1).map(str::to_owned)
    })
}

/// When a line was written, of an agent's log or PostgreSQL's.
fn moment(line: &str) -> String {
    line[..23].replace(',', ".")
}

async fn routes_to(router: &Host, story: &Story, name: Option<&str>) {
    let wanted = name.map_or([None, None], |name| {
        let host = story.lab.block.host(story.at(name).address).unwrap();
        [Some(host.v4.to_string()), Some(host.v6.to_string())]
    });
    lab::wait::until(SPAN, &format!("the routes to {name:?}"), async || {
        (routes(router) == wanted).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_moves_the_route_before_the_old_primary_stops_and_a_frozen_agent_loses_it() {
    let mut story = Story::prepare("bgp", |spec| {
        (spec.cables, spec.etcd, spec.members, spec.router) = (true, 1, 2, false);
        spec.network_rights = true;
        spec.ttl = Some(20);
    })
    .await;
    let usual = ["etcd", "lease", "of the BGP neighbour", "BGP with the neighbour", "does not answer"];
    for expected in usual.into_iter().chain(LATE) {
        story.expect(expected);
    }
    let router = story.lab.block.network().unwrap().switch.clone();
    let mut sessions = String::new();
    let speaker = document::example("### The agent's own speaker", "yaml");
    let bird = document::example("and for a BIRD as their router", "text");
    let (router_v4, router_v6) = (router.v4.to_string(), router.v6.to_string());
    for node in &story.lab.nodes {
        let host = story.lab.block.host(node.address).unwrap();
        let (v4, v6, name) = (host.v4.to_string(), host.v6.to_string(), node.name.as_str());
        let section = document::with(
            &speaker,
            &[
                ("router_id: 10.0.0.11 ", &format!("router_id: {v4} ")),
                ("address: 10.0.0.1 ", &format!("address: {router_v4} ")),
                ("address: fd00::1 ", &format!("address: \"{router_v6}\" ")),
                ("…", "swordfish"),
            ],
        );
        let text = fs::read_to_string(node.config()).unwrap();
        node.write_config(&format!("{text}\n{section}")).unwrap();
        sessions.push_str(&document::with(
            &bird,
            &[
                ("bgp n1", &format!("bgp {name}")),
                ("neighbor 10.0.0.11 ", &format!("neighbor {v4} ")),
                ("local 10.0.0.1 ", &format!("local {router_v4} ")),
                ("neighbor fd00::11 ", &format!("neighbor {v6} ")),
                ("local fd00::1 ", &format!("local {router_v6} ")),
                ("…", "swordfish"),
            ],
        ));
    }
    let dir = story.spec.base.clone();
    let conf = dir.join("bird.conf");
    let head = format!(
        "router id {};\nlog stderr all;\nprotocol device {{ }}\nprotocol kernel {{ ipv4 {{ import none; export all; }}; }}\n\
         protocol kernel {{ ipv6 {{ import none; export all; }}; }}\n",
        router.v4
    );
    fs::write(&conf, head + &sessions).unwrap();
    let program = Path::new(&std::env::var("BATON_TEST_PEERS").unwrap()).join("bird");
    let mut command = router.command(&program.display().to_string());
    command.arg("-f").arg("-c").arg(&conf).arg("-s").arg(dir.join("bird.ctl"));
    let _bird = Running::start(&mut command, &dir.join("bird.log"));
    story.lab.start_etcd().await.unwrap();
    story.lab.start_agents().unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    story.healthy().await;
    let old = story.primary().await;
    routes_to(&router, &story, Some(&old)).await;

    // The members say in etcd how it stands, and in their metrics.
    let new = story.a_replica().await;
    lab::wait::until(SPAN, "both sessions in etcd", async || {
        let keys = story.lab.keys().read().await.ok()?;
        let up = |name: &String| {
            keys.get(&format!("baton/bgp/{name}"))
                .is_some_and(|entry| entry.value.matches("\"established\"").count() == 2)
        };
        (up(&old) && up(&new)).then_some(())
    })
    .await
    .unwrap();
    let metrics = story.get(&old, "/metrics").await.body;
    let value = |name: &str| {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name}: {metrics}"));
        line.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(
        (value("baton_bgp_session_up{"), value("baton_bgp_announced_addresses{")),
        ("1".into(), "1".into())
    );

    story.switch_over(&old, &json!({ "leader": old, "candidate": new })).await;
    assert_eq!(story.another_primary(&old).await, new);
    routes_to(&router, &story, Some(&new)).await;
    let log = fs::read_to_string(story.at(&old).log()).unwrap();
    let place = |text: &str| log.rfind(text).unwrap_or_else(|| panic!("no {text:?} in {log}"));
    let parting = place("as one that is about to go (graceful shutdown)");
    let withdrawn = place("withdrew the route: this member has no right to it");
    assert!(parting < withdrawn && log.contains("gave the address up"), "{log}");
    // By the clock of the host that both logs are written with: first the neighbour was told, then PostgreSQL. Where that took too long, the
    // agent says so.
    let told = moment(log[..withdrawn].lines().next_back().unwrap());
    let server = story.at(&old).data_dir().with_extension("log");
    let server = fs::read_to_string(server).unwrap();
    let stopped = server.lines().rfind(|line| line.contains("received fast shutdown request")).unwrap();
    let late = log.contains(LATE[0]);
    assert!(
        late || told <= moment(stopped),
        "withdrawn at {told}, and PostgreSQL was told to stop: {stopped}"
    );
    story.healthy().await;

    // The new primary's agent is frozen: the route goes with the hold time, long before the lease.
    let at = story.lab.index(&new).unwrap();
    let frozen = clock::now();
    story.lab.nodes[at].freeze_agent();
    routes_to(&router, &story, None).await;
    let gone = clock::now().since(frozen);
    assert!(gone < Duration::from_secs(6), "{gone:?}");
    story.lab.nodes[at].thaw_agent();
    routes_to(&router, &story, Some(&new)).await;

    // Killed, it takes the connection along; the next agent takes up the same lead, and announces again.
    story.lab.nodes[at].kill_agent();
    routes_to(&router, &story, None).await;
    story.lab.nodes[at].start_agent().unwrap();
    routes_to(&router, &story, Some(&new)).await;
    story.end().await;
}
