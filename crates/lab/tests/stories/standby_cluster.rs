//! A cluster that follows another one: it is made from it, hands its lead over, loses its leader, lives from the archive, takes over
//! from the other site, and the other site comes to follow it, once with and once without a history of its own.

use crate::mixed::PATRONI_SAYS;
use crate::story::{SPAN, Story};
use crate::ways_to_make_data::{argument, command};
use lab::{AgentKind, Spec, Target, View};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The first node is a cluster of its own; the others follow it. `section` is their `standby_cluster`, but for the port.
async fn two_sites(name: &str, section: &str, edit: impl FnOnce(&mut Spec)) -> Story {
    let mut story = Story::prepare(name, |spec| {
        spec.etcd = 1;
        spec.router = false;
        spec.dynamic = json!({
            "slots": { "site_b": { "type": "physical", "cluster_type": "primary" } },
            "postgresql": { "parameters": {
                "archive_mode": "on",
                "archive_command": format!("cp %p {}/%f", spec.base.join("archive").display()),
            } },
        });
        edit(spec);
    })
    .await;
    let archive = story.lab.base().join("archive");
    fs::create_dir(&archive).unwrap();
    story.lab.account().own(&archive).unwrap();
    let (origin, port) = (story.lab.nodes[0].address, story.lab.nodes[0].postgres_port);
    let section = section.replace("ORIGIN", &origin.to_string());
    let remote = format!("  dcs:\n    standby_cluster:\n      port: {port}\n{section}");
    for node in &story.lab.nodes {
        let file = fs::read_to_string(node.config()).unwrap();
        let file = match node.name.as_str() {
            "n1" => file.replacen("scope: \"demo\"", "scope: \"origin\"", 1),
            _ => file.replacen("  dcs:\n", &remote, 1),
        };
        node.write_config(&file).unwrap();
    }
    story.lab.start_etcd().await.unwrap();
    story.lab.node("n1").unwrap().start_agent().unwrap();
    story.answers("n1", "/primary", 200).await;
    runs(&story, "n1", "CREATE TABLE words (word text)").await;
    runs(&story, "n1", "INSERT INTO words VALUES ('a')").await;
    story
}

fn own(story: &Story, name: &str) -> Target {
    story.lab.own_socket(story.at(name))
}

/// The standby leader, another one than `but`, and its replica; both stream, the replica from the leader.
async fn followed(story: &Story, but: &str) -> (String, String) {
    let found = |view: &View| {
        let leader = view.leading().filter(|leader| leader.role == "standby_leader" && leader.name != but)?;
        let replica = view.members.iter().find(|member| member.name != leader.name)?;
        let streams = |name: &lab::Member| name.replication.as_deref() == Some("streaming");
        (streams(leader) && streams(replica)).then(|| (leader.name.clone(), replica.name.clone()))
    };
    let (leader, replica) = lab::wait::until(SPAN, "a standby leader and its replica", async || {
        found(&story.lab.view().await.ok()?)
    })
    .await
    .unwrap();
    let sender = "SELECT sender_host FROM pg_stat_wal_receiver";
    lab::wait::until(
        SPAN,
        "the replica to stream from its leader and that one from the other site",
        async || {
            let above = |name: &str| story.at(name).address.to_string();
            let mut right = own(story, &replica).ask(sender, SPAN).await.ok()? == above(&leader);
            right &= own(story, &leader).ask(sender, SPAN).await.ok()? == above("n1");
            right.then_some(())
        },
    )
    .await
    .unwrap();
    (leader, replica)
}

/// The words that are there, once they are on this node.
async fn arrives(story: &Story, name: &str, words: &str) {
    shows(story, name, "SELECT string_agg(word, ',' ORDER BY word) FROM words", words).await;
}

async fn shows(story: &Story, name: &str, sql: &str, wanted: &str) {
    lab::wait::until(SPAN, &format!("{wanted:?} on {name} for {sql}"), async || {
        own(story, name).ask(sql, SPAN).await.ok().filter(|found| found == wanted)
    })
    .await
    .unwrap();
}

async fn writes(story: &Story, name: &str, word: &str) {
    runs(story, name, &format!("INSERT INTO words VALUES ('{word}')")).await;
}

/// Whoever holds the lead may need a moment until it accepts writes.
async fn runs(story: &Story, name: &str, sql: &str) {
    lab::wait::until(SPAN, &format!("{name} to write"), async || own(story, name).run(sql, SPAN).await.ok())
        .await
        .unwrap();
}

async fn configure(story: &Story, name: &str, standby_cluster: Value) {
    let answer = story.send(name, "PATCH", "/config", &json!({ "standby_cluster": standby_cluster })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// The other site has all that `from` has; until then a promotion there would leave a part of it behind.
async fn caught_up(story: &Story, from: &str, to: &str) {
    let reached = "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())";
    lab::wait::until(SPAN, &format!("{to} to be where {from} is"), async || {
        let there = own(story, from).ask(reached, SPAN).await.ok()?;
        let here = own(story, to).ask(&format!("SELECT ({reached}) >= '{there}'"), SPAN).await.ok()?;
        (here == "t").then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_follows_takes_over_and_is_followed() {
    let scripts = crate::story::directory("site");
    let section = "      host: \"127.255.255.1,ORIGIN\"\n      primary_slot_name: \"site_b\"\n      create_replica_methods: [\"site\", \"basebackup\"]\n";
    let path = scripts.join("site").display().to_string();
    let mut story = two_sites("standby-cluster", section, |spec| {
        spec.agent = json!({ "postgresql": { "site": { "command": path } } });
    })
    .await;
    for text in [
        "undone and kept",
        "has not written a checkpoint since",
        "failed to read the timeline history",
        "the lease is gone",
    ] {
        story.expect(text);
    }
    let account = story.lab.account().clone();
    account.own(&scripts).unwrap();
    copy_of_the_site(&story, &scripts);
    for name in ["n2", "n3"] {
        story.lab.node(name).unwrap().start_agent().unwrap();
    }
    let (leader, replica) = followed(&story, "").await;
    truth_table(&story, &leader, &replica).await;
    arrives(&story, &replica, "a").await;
    shows(&story, "n1", "SELECT active FROM pg_replication_slots WHERE slot_name = 'site_b'", "t").await;
    let told = fs::read_to_string(scripts.join("told")).unwrap();
    let origin = format!("host={}", story.at("n1").address);
    assert!(
        told.contains(&origin),
        "of several hosts the command is told the one that accepts writes: {told}"
    );
    assert_eq!(told.lines().count(), 1, "the replica is a copy of its leader: {told}");
    let conninfo = "SELECT current_setting('primary_conninfo') LIKE '%target_session_attrs=read-write%'";
    shows(&story, &leader, conninfo, "t").await;
    shows(&story, &replica, conninfo, "f").await;

    without_etcd(&mut story, &leader, &replica).await;

    // The lead goes over within the site, once by order and once with the host; nothing has to be stopped for it.
    story.switch_over(&leader, &json!({ "leader": leader })).await;
    let (leader, replica) = followed(&story, &leader).await;
    writes(&story, "n1", "b").await;
    arrives(&story, &replica, "0,a,b").await;
    story.lab.node(&leader).unwrap().kill_host();
    story.answers(&replica, "/standby-leader", 200).await;
    story.lab.node(&leader).unwrap().start_agent().unwrap();
    let (leader, replica) = followed(&story, &leader).await;
    from_the_archive(&story, &leader, &replica).await;
    planned_change(&story, &leader, &replica).await;

    // The old site writes on its own for a while; when it follows again, what it wrote alone is kept aside.
    configure(&story, "n1", Value::Null).await;
    story.answers("n1", "/primary", 200).await;
    writes(&story, "n1", "lost").await;
    writes(&story, &leader, "e").await;
    let place = story.at(&leader).address.to_string();
    configure(&story, "n1", json!({ "host": place, "port": story.at("n1").postgres_port })).await;
    arrives(&story, "n1", "0,a,b,c,d,e").await;
    story.answers("n1", "/standby-leader", 200).await;
    story.end().await;
    fs::remove_dir_all(&scripts).unwrap();
}

/// etcd is silent for longer than a lease: the members agree (failsafe mode), and what the other site writes arrives.
async fn without_etcd(story: &mut Story, leader: &str, replica: &str) {
    for text in ["etcd", "lease", "failsafe", "without etcd"] {
        story.expect(text);
    }
    story.lab.etcd[0].freeze();
    for name in [leader, "n1"] {
        let log = story.at(name).log();
        lab::wait::until(SPAN, &format!("{name} to lead on without etcd"), async || {
            let log = fs::read_to_string(log).ok()?;
            log.contains("all other members agreed that this one leads on").then_some(())
        })
        .await
        .unwrap();
    }
    writes(story, "n1", "0").await;
    arrives(story, replica, "0,a").await;
    assert_eq!(story.status(leader, "/standby-leader").await, Some(200));
    story.lab.etcd[0].thaw();
    // Keys of leases that ended meanwhile go before they come back.
    lab::wait::until(SPAN, "the keys to hang on leases that live", async || {
        let keys = story.lab.keys().read().await.ok()?;
        for name in ["leader", "members/n2", "members/n3"] {
            (story.lab.keys().remaining(keys.get(name)?.lease).await.ok()? > 0).then_some(())?;
        }
        Some(())
    })
    .await
    .unwrap();
    let after = followed(story, "").await;
    assert_eq!(after.0, leader, "the lead did not change");
}

/// The site's own way to make its first member.
fn copy_of_the_site(story: &Story, scripts: &Path) {
    let body = format!(
        "{}\n{}\necho \"$connstring\" >> {}\n{}/pg_basebackup -D \"$datadir\" -X stream -c fast -d \"$connstring\"",
        argument("datadir"),
        argument("connstring"),
        scripts.join("told").display(),
        story.spec.binaries.postgres.display(),
    );
    command(scripts, "site", &body, story.lab.account());
}

async fn truth_table(story: &Story, leader: &str, replica: &str) {
    for (path, leads, follows) in [
        ("/primary", 503, 503),
        ("/leader", 200, 503),
        ("/standby-leader", 200, 503),
        ("/replica", 503, 200),
        ("/read-only", 200, 200),
        ("/health", 200, 200),
    ] {
        assert_eq!(story.status(leader, path).await, Some(leads), "{leader} {path}");
        assert_eq!(story.status(replica, path).await, Some(follows), "{replica} {path}");
    }
    let cluster = story.get(leader, "/cluster").await.json().unwrap();
    let roles = |row: &Value| row["role"].as_str().unwrap().to_owned();
    let mut shown: Vec<String> = cluster["members"].as_array().unwrap().iter().map(roles).collect();
    shown.sort();
    assert_eq!(shown, ["replica", "standby_leader"]);
}

/// Without a host there is still the archive; the three settings of it are the leader's alone.
async fn from_the_archive(story: &Story, leader: &str, replica: &str) {
    let archive = story.lab.base().join("archive").display().to_string();
    let restore = format!("cp {archive}/%f %p");
    let section = json!({
        "host": null, "port": null, "primary_slot_name": null, "create_replica_methods": null,
        "restore_command": restore, "archive_cleanup_command": "true", "recovery_min_apply_delay": "10ms",
    });
    configure(story, leader, section).await;
    let settings = "SELECT concat_ws('|', current_setting('restore_command'), current_setting('archive_cleanup_command'), \
                    current_setting('recovery_min_apply_delay'), current_setting('primary_conninfo'))";
    shows(story, leader, settings, &format!("{restore}|true|10ms|")).await;
    shows(
        story,
        replica,
        "SELECT current_setting('restore_command') || current_setting('archive_cleanup_command')",
        "",
    )
    .await;
    lab::wait::until(SPAN, "the leader to live from the archive", async || {
        let state = story.get(leader, "/patroni").await.json().ok()?["replication_state"].clone();
        (state == "in archive recovery").then_some(())
    })
    .await
    .unwrap();
    writes(story, "n1", "c").await;
    runs(story, "n1", "SELECT pg_switch_wal()").await;
    arrives(story, replica, "0,a,b,c").await;
    assert_eq!(story.status(leader, "/standby-leader").await, Some(200));
    let n1 = story.at("n1");
    let section = json!({
        "host": n1.address.to_string(), "port": n1.postgres_port,
        "archive_cleanup_command": null, "recovery_min_apply_delay": null,
    });
    configure(story, leader, section).await;
    followed(story, "").await;
}

/// The sites change places as planned: first the one stops writing, then the other begins. Nothing is rewound.
async fn planned_change(story: &Story, leader: &str, replica: &str) {
    let (place, port) = (story.at(leader).address.to_string(), story.at("n1").postgres_port.to_string());
    let words = ["demote-cluster", "--host", &place, "--port", &port, "--force"];
    let said = story.baton("n1", &words).await;
    assert!(said.contains("cluster is successfully demoted"), "{said}");
    story.answers("n1", "/standby-leader", 200).await;
    assert_eq!(story.status("n1", "/primary").await, Some(503));
    caught_up(story, "n1", leader).await;
    let said = story.baton(leader, &["promote-cluster", "--force"]).await;
    assert!(said.contains("cluster is successfully promoted"), "{said}");
    story.answers(leader, "/primary", 200).await;
    writes(story, leader, "d").await;
    arrives(story, replica, "0,a,b,c,d").await;
    arrives(story, "n1", "0,a,b,c,d").await;
    let log = fs::read_to_string(story.at("n1").log()).unwrap();
    assert!(!log.contains("undone and kept"), "a planned change of sites rewinds nothing");
    assert!(
        log.contains("archived the WAL with the checkpoint of the stop"),
        "the other site could find it there"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_is_kept_by_patroni_and_baton_together() {
    let section = "      host: \"ORIGIN\"\n      primary_slot_name: \"site_b\"\n";
    let mut story = two_sites("mixed-site", section, |spec| {
        spec.agents = vec![AgentKind::Baton, AgentKind::Patroni, AgentKind::Baton];
        spec.dynamic["loop_wait"] = json!(1);
        spec.dynamic["ttl"] = json!(20);
        spec.dynamic["retry_timeout"] = json!(3);
    })
    .await;
    PATRONI_SAYS.iter().for_each(|text| story.expect(text));
    story.lab.node("n2").unwrap().start_agent().unwrap();
    story.answers("n2", "/standby-leader", 200).await;
    story.lab.node("n3").unwrap().start_agent().unwrap();
    assert_eq!(followed(&story, "").await, ("n2".to_owned(), "n3".to_owned()));
    arrives(&story, "n3", "a").await;
    story.switch_over("n2", &json!({ "leader": "n2", "candidate": "n3" })).await;
    assert_eq!(followed(&story, "n2").await, ("n3".to_owned(), "n2".to_owned()));
    truth_table(&story, "n3", "n2").await;
    writes(&story, "n1", "b").await;
    arrives(&story, "n2", "a,b").await;
    story.switch_over("n3", &json!({ "leader": "n3", "candidate": "n2" })).await;
    assert_eq!(followed(&story, "n3").await, ("n2".to_owned(), "n3".to_owned()));
    // The Patroni that leads is promoted, and Baton follows it as a primary.
    configure(&story, "n3", Value::Null).await;
    story.answers("n2", "/primary", 200).await;
    writes(&story, "n2", "c").await;
    arrives(&story, "n3", "a,b,c").await;
    story.lab.await_healthy(2).await.unwrap();
    story.end().await;
}
