//! Virtual addresses of real members: they follow the primary, stay with it while etcd is away, and leave with its agent. Needs root.

use crate::story::{SPAN, Story};
use lab::netns::Host;
use serde_json::{Value, json};
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

struct Held {
    hosts: Vec<Host>,
    ips: [IpAddr; 2],
}

impl Held {
    /// How many of the addresses each host has.
    fn now(&self) -> Vec<usize> {
        let on = |host: &Host| {
            let (host, ips) = (host.clone(), self.ips);
            let looked = std::thread::spawn(move || {
                host.enter().unwrap();
                ips.into_iter().filter(|ip| Host::here(*ip)).count()
            });
            looked.join().unwrap()
        };
        self.hosts.iter().map(on).collect()
    }

    /// Waits until this host has both, and no other has any.
    async fn at(&self, number: usize) {
        let wanted: Vec<usize> = (0..self.hosts.len()).map(|at| if at == number { 2 } else { 0 }).collect();
        lab::wait::until(SPAN, &format!("both addresses on host {number}"), async || {
            (self.now() == wanted).then_some(())
        })
        .await
        .unwrap();
    }
}

/// Two members with an address of each kind.
async fn begin(name: &str) -> (Story, Held) {
    let mut story = Story::prepare(name, |spec| {
        (spec.members, spec.etcd) = (2, 1);
        (spec.cables, spec.network_rights) = (true, true);
        spec.dynamic = json!({ "failsafe_mode": true });
    })
    .await;
    let network = story.lab.network().unwrap();
    let hosts = story.lab.nodes.iter().map(|node| network.host(node.address).unwrap().clone()).collect();
    let [a, b, c] = network.range;
    let ips = [IpAddr::from([a, b, c, 100]), "fd77::100".parse().unwrap()];
    for node in &story.lab.nodes {
        let file = fs::read_to_string(node.config()).unwrap();
        let [v4, v6] = ips;
        let more = format!(
            "vip:\n  addresses:\n    - {{address: {v4}, interface: eth0}}\n    - {{address: \"{v6}\", interface: eth0}}\n"
        );
        node.write_config(&format!("{file}{more}")).unwrap();
    }
    story.start().await;
    (story, Held { hosts, ips })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_follow_the_primary_and_stay_with_it_while_etcd_is_away() {
    let (mut story, held) = begin("addresses").await;
    for expected in ["etcd", "lease", "failsafe", "does not answer"] {
        story.expect(expected);
    }
    let old = story.primary().await;
    held.at(story.lab.index(&old).unwrap()).await;
    let answer = story.send(&old, "POST", "/switchover", &json!({ "leader": old })).await;
    assert!([200, 202].contains(&answer.status), "{}", answer.body);
    let new = story.another_primary(&old).await;
    let number = story.lab.index(&new).unwrap();
    held.at(number).await;
    story.healthy().await;

    // The lease has 5 s. The others agree that the primary leads on, so it keeps what belongs to it.
    story.lab.etcd[0].kill();
    let until = clock::now().after(Duration::from_secs(8));
    while clock::now() < until {
        assert_eq!(held.now().get(number), Some(&2), "without etcd the primary has its addresses");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    story.lab.etcd[0].start().unwrap();
    story.lab.wait_for_etcd().await.unwrap();
    story.healthy().await;
    assert_eq!(story.primary().await, new);

    // Its agent is told to end: the addresses go with it, and come to the other one.
    story.lab.node(&new).unwrap().tell_agent_to_end();
    story.another_primary(&new).await;
    held.at(1 - number).await;
    // Three stays of each address are written down, the last two of them open.
    lab::wait::until(SPAN, "all stays written down", async || {
        let keys = story.lab.keys().read().await.ok()?;
        let rows: Value = serde_json::from_str(&keys.get("baton/addresses")?.value).ok()?;
        let told: Vec<(&str, bool)> = rows
            .as_array()?
            .iter()
            .map(|row| (row["member"].as_str().unwrap(), row["to"].is_null()))
            .collect();
        let expected = [(old.as_str(), false), (new.as_str(), false), (old.as_str(), true)];
        let twice: Vec<(&str, bool)> = expected.into_iter().flat_map(|one| [one, one]).collect();
        (told == twice).then_some(())
    })
    .await
    .unwrap();
    story.end().await;
}
