//! Addresses and names of real members, as docs/vip.md has them: they follow the primary, stay with it while etcd is away, leave with its agent,
//! and end by themselves where the power fails. Needs root.
//!
//! ```text
//!   n1, n2: the address of the primary (v4, v6), one of a replica, names by DNS
//!   psql at the switch: by the name, looked up for each attempt; by the connection string with all hosts
//! ```

use crate::document;
use crate::story::{SPAN, Story};
use lab::netns::{Holders, Host};
use serde_json::{Value, json};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

const ZONE: &str = "pg-main.db.example.org";
/// As the document has it.
const DATABASE: &str = "app";
/// What an agent says that had no time to let go of all that belonged to its lead. PostgreSQL is stopped all the same.
pub(crate) const LATE: [&str; 2] =
    ["failed to withdraw a route in time", "failed to remove a virtual address in time"];

/// Who has what, and clients beside it.
struct Site {
    primary_s: Holders,
    replica_s: Holders,
    clients: Clients,
}

/// psql, as people start it, on the switch.
struct Clients {
    at: Host,
    psql: PathBuf,
    password: String,
    resolver: PathBuf,
    hosts: String,
}

impl Clients {
    /// The address of the server that this connection string leads to, when it takes writes.
    fn reach(&self, connection: &str) -> Option<Ipv4Addr> {
        let line = format!(
            "mount --bind {} /etc/resolv.conf && exec {} -XAtqw -c 'CREATE TEMP TABLE here AS SELECT inet_server_addr() AS ip; SELECT host(ip) FROM here' '{connection}'",
            self.resolver.display(),
            self.psql.display()
        );
        let mut command = self.at.command("sh");
        command.args(["-c", &line]).env("PGUSER", lab::SUPERUSER).env("PGPASSWORD", &self.password);
        let said = command.output().unwrap();
        String::from_utf8_lossy(&said.stdout).trim().parse().ok()
    }

    /// By the name and by the list of hosts, each of them looked up or tried anew for each attempt: both lead to this host, and never again to another.
    async fn meet(&self, host: &Host) {
        let by_name = format!("host=primary.{ZONE} dbname={DATABASE} connect_timeout=2");
        for connection in [&by_name, &self.hosts] {
            let began = clock::now();
            lab::wait::until(SPAN, &format!("a client at {} by {connection:?}", host.v4), async || {
                (self.reach(connection) == Some(host.v4)).then_some(())
            })
            .await
            .unwrap();
            println!("{connection:?} led to {} after {:?}", host.v4, clock::now().since(began));
            for _ in 0..3 {
                let reached = self.reach(connection);
                assert!(reached.is_none_or(|ip| ip == host.v4), "{reached:?} by {connection:?}");
            }
        }
    }
}

/// Two members with what the document has.
async fn begin(name: &str) -> (Story, Site) {
    let mut story = Story::prepare(name, |spec| {
        (spec.members, spec.etcd) = (2, 1);
        (spec.cables, spec.network_rights) = (true, true);
        spec.dynamic = json!({ "failsafe_mode": true });
    })
    .await;
    let network = story.lab.network().unwrap();
    let hosts: Vec<Host> =
        story.lab.nodes.iter().map(|node| network.host(node.address).unwrap().clone()).collect();
    let [a, b, c] = network.range;
    let range = format!("{a}.{b}.{c}.");
    let addresses = document::with(
        &document::example("## An address in one subnet", "yaml"),
        &[("10.0.0.", &range), ("fd00::", "fd77::")],
    );
    for (node, host) in story.lab.nodes.iter().zip(&hosts) {
        // Port 53 is where clients ask, and the agents may not take it here any more than elsewhere.
        let low = host
            .command("sh")
            .args(["-c", "echo 53 > /proc/sys/net/ipv4/ip_unprivileged_port_start"])
            .status();
        assert!(low.unwrap().success());
        let file = fs::read_to_string(node.config()).unwrap();
        let names = format!("dns: {{zone: {ZONE}, listen: \"*:53\"}}\n");
        node.write_config(&format!("{file}{addresses}{names}")).unwrap();
    }
    let ip = |last: u8| IpAddr::from([a, b, c, last]);
    let primary_s = Holders::watch(&hosts, &[ip(5), "fd77::5".parse().unwrap()]).unwrap();
    let replica_s = Holders::watch(&hosts, &[ip(6)]).unwrap();
    let resolver = story.spec.base.join("resolv.conf");
    let servers: String = hosts.iter().map(|host| format!("nameserver {}\n", host.v4)).collect();
    fs::write(&resolver, format!("{servers}options timeout:1 attempts:2\n")).unwrap();
    let clients = Clients {
        at: network.switch.clone(),
        psql: story.spec.binaries.postgres.join("psql"),
        password: story.lab.target().password,
        resolver,
        hosts: document::with(document::example("## Which way", "text").trim(), &[("10.0.0.", &range)]),
    };
    story.start().await;
    (story, Site { primary_s, replica_s, clients })
}

impl Site {
    /// The primary's addresses are on this host and nowhere else, and clients find it.
    async fn leads(&self, story: &Story, name: &str) {
        let at = story.lab.index(name).unwrap();
        self.primary_s.at(&[at], SPAN, &format!("the primary's addresses on {name}")).await.unwrap();
        let network = story.lab.network().unwrap();
        self.clients.meet(network.host(story.lab.nodes[at].address).unwrap()).await;
    }

    /// The replica's address is on this host and nowhere else.
    async fn serves_reads(&self, story: &Story, name: &str) {
        let at = story.lab.index(name).unwrap();
        self.replica_s.at(&[at], SPAN, &format!("the replica's address on {name}")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_and_names_follow_the_primary_stay_without_etcd_and_end_when_the_power_fails() {
    let (mut story, site) = begin("addresses").await;
    for expected in ["etcd", "lease", "failsafe", "does not answer"].into_iter().chain(LATE) {
        story.expect(expected);
    }
    let old = story.primary().await;
    let create = format!("CREATE DATABASE {DATABASE}");
    story.lab.own_socket(story.at(&old)).run(&create, SPAN).await.unwrap();
    site.leads(&story, &old).await;
    let new = story.a_replica().await;
    site.serves_reads(&story, &new).await;
    story.switch_over(&old, &json!({ "leader": old })).await;
    assert_eq!(story.another_primary(&old).await, new);
    site.leads(&story, &new).await;
    story.healthy().await;
    site.serves_reads(&story, &old).await;

    // The lease has 5 s. The others agree that the primary leads on, so it keeps what belongs to it.
    let number = story.lab.index(&new).unwrap();
    story.lab.etcd[0].kill();
    let until = clock::now().after(Duration::from_secs(8));
    while clock::now() < until {
        assert_eq!(site.primary_s.now().get(number), Some(&2), "without etcd the primary has its addresses");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    story.lab.etcd[0].start().unwrap();
    story.lab.wait_for_etcd().await.unwrap();
    story.healthy().await;
    assert_eq!(story.primary().await, new);

    // Its agent is told to end: the addresses go with it, and come to the other one.
    story.lab.node(&new).unwrap().tell_agent_to_end();
    story.another_primary(&new).await;
    site.leads(&story, &old).await;
    // Three stays of each of the primary's addresses are written down, the last two of them open.
    lab::wait::until(SPAN, "all stays written down", async || {
        let keys = story.lab.keys().read().await.ok()?;
        let rows: Value = serde_json::from_str(&keys.get("baton/addresses")?.value).ok()?;
        let of_primaries = rows.as_array()?.iter().filter(|row| row["role"] == "primary");
        let told: Vec<(&str, bool)> =
            of_primaries.map(|row| (row["member"].as_str().unwrap(), row["to"].is_null())).collect();
        let expected = [(old.as_str(), false), (new.as_str(), false), (old.as_str(), true)];
        let twice: Vec<(&str, bool)> = expected.into_iter().flat_map(|one| [one, one]).collect();
        (told == twice).then_some(())
    })
    .await
    .unwrap();

    // Its host loses the power: nobody is left to remove anything. The kernel does, before the other one leads.
    let node = story.lab.node(&new).unwrap();
    assert!(node.stop_agent(SPAN).await, "it was told to end");
    node.start_agent().unwrap();
    story.healthy().await;
    // The standby has what is written now, so it has the beginning of this timeline as well.
    story.lab.own_socket(story.at(&old)).run("CREATE TABLE last_words ()", SPAN).await.unwrap();
    lab::wait::until(SPAN, "the standby to have all of it", async || {
        let standby = story.lab.own_socket(story.at(&new));
        standby.run("SELECT FROM last_words", SPAN).await.ok()
    })
    .await
    .unwrap();
    // Frozen first, or it could see that its cable is dead.
    story.lab.node(&old).unwrap().freeze_agent();
    story.lab.unplug(&old).unwrap();
    story.lab.node(&old).unwrap().kill_host();
    story.another_primary(&old).await;
    site.leads(&story, &new).await;
    for holders in [&site.primary_s, &site.replica_s] {
        let (looks, twice) = holders.looks();
        assert!(looks > 100 && twice == 0, "{twice} of {looks} looks saw two hosts with an address");
    }
    story.end().await;
}
