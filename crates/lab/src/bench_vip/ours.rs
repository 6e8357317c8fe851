//! Our own agents: planned switchovers, and agents that are killed or frozen.
//!
//! A figure after "writable" counts from the last look at etcd that did not show the fact yet, so it is rather too large than too small.

use super::watch::{Answer, Change, Notes, Watch};
use super::{Figures, Options, stand};
use crate::bench::note;
use crate::binaries::Binaries;
use crate::client::Target;
use crate::demo::switchover;
use crate::lab::{Lab, Spec};
use crate::netns::Host;
use crate::wait::until;
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tokio::task::JoinHandle;
use types::Moment;

const SPAN: Duration = Duration::from_secs(60);
/// Where the agents answer for names.
const DNS: u16 = 5353;
const ZONE: &str = "c1.pg.test";
/// Short, so that a death does not take for ever.
const TTL: u32 = 5;
/// How much later than its lifetime an address may go.
pub(crate) const GRACE: Duration = Duration::from_millis(500);

/// A planned switchover; two values are of the IPv4 and of the IPv6 address.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    /// From the fact to the first answer of the new primary's host at the address.
    pub(crate) back: [Duration; 2],
    /// From the address gone on the old host to the address on the new one; `None` when it was the other way round.
    pub(crate) free: [Option<Duration>; 2],
    /// From the fact to the first new answer of each name server.
    pub(crate) named: Vec<Duration>,
    /// Answers with the old address after that.
    pub(crate) misnamed: usize,
    /// From the fact to the first statement of a client that looks the name up for each attempt.
    pub(crate) client: Duration,
}

/// How an agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Killed,
    Frozen,
}

/// An agent that ended while it had the addresses.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    pub(crate) kind: Kind,
    /// The longest lifetime that the kernel said was left.
    pub(crate) left: Duration,
    /// From the end of the agent to the address gone.
    pub(crate) gone: [Duration; 2],
    /// From there to the address on the next host; `None` when that was earlier.
    pub(crate) free: [Option<Duration>; 2],
}

struct Site<'a> {
    lab: &'a mut Lab,
    hosts: Vec<Host>,
    ips: [IpAddr; 2],
    watch: Watch,
}

/// All switchovers and deaths, in a lab of their own.
pub(super) async fn measure(
    options: &Options,
    base: PathBuf,
    binaries: &Binaries,
    figures: &mut Figures,
) -> Result<()> {
    let mut spec = Spec::usual(base, binaries.clone());
    (spec.members, spec.etcd, spec.router) = (2, 1, false);
    (spec.cables, spec.network_rights) = (true, true);
    spec.dynamic = json!({ "ttl": TTL, "loop_wait": 1, "retry_timeout": 2 });
    spec.ttl = Some(TTL);
    note("a cluster with addresses and names");
    let mut lab = Lab::create(&spec)?;
    let measured = all(options, &mut lab, figures).await;
    if measured.is_err() {
        note(&format!("the logs are in {}", lab.stop_and_keep().await?.display()));
        return measured;
    }
    lab.stop().await
}

async fn all(options: &Options, lab: &mut Lab, figures: &mut Figures) -> Result<()> {
    let [a, b, c] = lab.network()?.range;
    let v4 = IpAddr::from([a, b, c, 100]);
    let ips = [v4, IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, 0x100])];
    let more = format!(
        "vip:\n  addresses:\n    - {{address: {v4}, interface: eth0}}\n    - {{address: \"{}\", interface: eth0}}\ndns:\n  zone: {ZONE}\n  \
         listen: \"*:{DNS}\"\n",
        ips[1]
    );
    for node in &lab.nodes {
        let file = fs::read_to_string(node.config()).context("read a configuration")?;
        node.write_config(&format!("{file}{more}"))?;
    }
    lab.start_etcd().await?;
    lab.start_agents()?;
    lab.await_writable(SPAN).await?;
    let network = lab.network()?;
    let found = lab.nodes.iter().map(|node| network.host(node.address).cloned());
    let hosts: Vec<Host> = found.collect::<Option<_>>().context("find the hosts")?;
    let servers: Vec<SocketAddr> = hosts.iter().map(|host| SocketAddr::from((host.v4, DNS))).collect();
    let watch = Watch::start(network, &hosts, &ips, &servers, &format!("primary.{ZONE}"))?;
    let mut site = Site { lab, hosts, ips, watch };
    // For a lease after the members' start nobody can say, in failsafe mode, that nobody leads on without etcd: a switchover would wait for that
    // as well.
    note("a lease, so that no member is too young to lead");
    tokio::time::sleep(Duration::from_secs(u64::from(TTL))).await;
    for number in 0..options.switchovers {
        note(&format!("switchover {} of {}", number + 1, options.switchovers));
        figures.moves.push(site.switchover().await?);
        figures.repairs.push(site.repair().await?);
    }
    for number in 0..2 * options.deaths {
        let kind = if number % 2 == 0 { Kind::Killed } else { Kind::Frozen };
        note(&format!("death {} of {}: {kind:?}", number + 1, 2 * options.deaths));
        figures.deaths.push(site.death(kind).await?);
    }
    figures.twice = site.watch.twice();
    Ok(())
}

impl Site<'_> {
    /// Everything is well, and everybody at the switch has met the primary. Its number.
    async fn settled(&mut self) -> Result<usize> {
        self.lab.await_healthy(self.hosts.len()).await?;
        let primary = self.lab.primary().await?;
        let number = self.lab.index(&primary).context("find the primary")?;
        self.met(number).await?;
        self.watch.clear();
        Ok(number)
    }

    /// Waits until the address, the names and the answers are at this host.
    async fn met(&self, number: usize) -> Result<()> {
        let v4 = self.hosts.get(number).context("find the host")?.v4;
        until(SPAN, "the primary at its addresses", async || {
            let met = |(_, notes): &(IpAddr, Notes<Answer<usize>>)| last(notes) == Some(number);
            let named = |(_, notes): &(SocketAddr, Notes<Answer<Ipv4Addr>>)| last(notes) == Some(v4);
            // The one that is frozen or dead answers no question.
            let well = self.watch.answers.iter().all(met) && self.watch.names.iter().any(named);
            well.then_some(())
        })
        .await
    }

    async fn switchover(&mut self) -> Result<Move> {
        let old = self.settled().await?;
        let name = self.lab.nodes.get(old).context("find the primary")?.name.clone();
        let client = self.reconnecting(old);
        switchover(self.lab, &name).await?;
        let (fact, new) = self.fact(&name).await?;
        self.met(new).await?;
        // Both name servers, and the client.
        let v4 = self.hosts.get(new).context("find the host")?.v4;
        until(SPAN, "the new name everywhere", async || {
            self.watch.names.iter().all(|(_, notes)| last(notes) == Some(v4)).then_some(())
        })
        .await?;
        let client = client.await.context("wait for the client")??;
        let changes = self.watch.changes.all();
        let mut free = [None; 2];
        let mut back = [Duration::ZERO; 2];
        for (at, ip) in self.ips.into_iter().enumerate() {
            if let (Some(free), Some(back)) = (free.get_mut(at), back.get_mut(at)) {
                *free = gap(&changes, ip, old, new)?;
                *back = self.first_answer(ip, new)?.since(fact);
            }
        }
        let mut named = Vec::new();
        let mut misnamed = 0;
        let old_v4 = self.hosts.get(old).context("find the host")?.v4;
        for (_, notes) in &self.watch.names {
            let all = notes.all();
            let first = all.iter().find(|answer| answer.by == Some(v4)).context("find the new name")?;
            named.push(first.answered.since(fact));
            let late =
                |answer: &&Answer<Ipv4Addr>| answer.begun > first.answered && answer.by == Some(old_v4);
            misnamed += all.iter().filter(late).count();
        }
        Ok(Move { back, free, named, misnamed, client: client.since(fact) })
    }

    /// From the removal of an address by hand to its return.
    async fn repair(&mut self) -> Result<[Duration; 2]> {
        let primary = self.settled().await?;
        let host = self.hosts.get(primary).context("find the host")?.clone();
        let mut repaired = [Duration::ZERO; 2];
        for (ip, took) in self.ips.into_iter().zip(&mut repaired) {
            let begun = clock::now();
            let length = if ip.is_ipv4() { 32 } else { 128 };
            host.ip(&["addr", "del", &format!("{ip}/{length}"), "dev", "eth0"])?;
            let (told, heard) = std::sync::mpsc::channel();
            stand(&host, async move || {
                while !Host::here(ip) && clock::now().since(begun) < SPAN {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let _ = told.send(clock::now());
            })?;
            let back = tokio::task::spawn_blocking(move || heard.recv()).await?;
            *took = back.context("wait for the address")?.since(begun);
        }
        Ok(repaired)
    }

    async fn death(&mut self, kind: Kind) -> Result<Death> {
        let old = self.settled().await?;
        let host = self.hosts.get(old).context("find the host")?.clone();
        let left = lifetime(&host, &self.ips)?;
        let ended = clock::now();
        let node = self.lab.nodes.get_mut(old).context("find the primary")?;
        let name = node.name.clone();
        match kind {
            Kind::Killed => node.kill_agent(),
            Kind::Frozen => node.freeze_agent(),
        }
        let (_, new) = self.fact(&name).await?;
        self.met(new).await?;
        let changes = self.watch.changes.all();
        let mut death = Death { kind, left, gone: [Duration::ZERO; 2], free: [None; 2] };
        for (at, ip) in self.ips.into_iter().enumerate() {
            if let (Some(gone), Some(free)) = (death.gone.get_mut(at), death.free.get_mut(at)) {
                *gone = change(&changes, ip, old, false)?.since(ended);
                *free = gap(&changes, ip, old, new)?;
            }
        }
        let node = self.lab.nodes.get_mut(old).context("find the former primary")?;
        match kind {
            Kind::Killed => node.start_agent()?,
            Kind::Frozen => node.thaw_agent(),
        }
        Ok(death)
    }

    /// When another member than `old` said that it accepts writes, and its number.
    async fn fact(&self, old: &str) -> Result<(Moment, usize)> {
        let end = clock::now().after(SPAN);
        let mut before = clock::now();
        loop {
            let begun = clock::now();
            let view = self.lab.view().await?;
            if let Some(new) = view.writable.filter(|name| name != old) {
                return Ok((before, self.lab.index(&new).context("find the new primary")?));
            }
            before = begun;
            ensure!(clock::now() < end, "wait for a new primary: not within {} s", SPAN.as_secs());
        }
    }

    fn first_answer(&self, ip: IpAddr, new: usize) -> Result<Moment> {
        let notes = self.watch.answers.iter().find(|(other, _)| *other == ip).map(|(_, notes)| notes.all());
        let first = notes.into_iter().flatten().find(|answer| answer.by == Some(new));
        first.map(|answer| answer.answered).ok_or_else(|| anyhow!("find an answer of the new host at {ip}"))
    }

    /// A client that looks the name up for each attempt, until a statement succeeds on another host than `old`.
    fn reconnecting(&self, old: usize) -> JoinHandle<Result<Moment>> {
        let names: Vec<Notes<Answer<Ipv4Addr>>> =
            self.watch.names.iter().map(|(_, notes)| notes.clone()).collect();
        let old = self.hosts.get(old).map(|host| host.v4);
        let target = self.lab.nodes.first().map(|node| self.lab.own_socket(node));
        tokio::spawn(async move {
            let target = target.context("find a node")?;
            let end = clock::now().after(SPAN);
            while clock::now() < end {
                // The newest answer of any server is a few milliseconds old.
                let found = names.iter().filter_map(last).find(|v4| Some(*v4) != old).or(old);
                let at = Target { host: found.context("look the name up")?.to_string(), ..target.clone() };
                let recovers = at.ask("select pg_is_in_recovery()", Duration::from_millis(500)).await;
                if found != old && recovers.is_ok_and(|recovers| recovers == "f") {
                    return Ok(clock::now());
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(anyhow!("reach the new primary by its name: not within {} s", SPAN.as_secs()))
        })
    }
}

fn last<T: Clone>(notes: &Notes<Answer<T>>) -> Option<T> {
    notes.last().and_then(|answer| answer.by)
}

fn change(changes: &[Change], ip: IpAddr, host: usize, here: bool) -> Result<Moment> {
    let found = changes.iter().find(|change| change.ip == ip && change.host == host && change.here == here);
    found
        .map(|change| change.at)
        .ok_or_else(|| anyhow!("find when {ip} {} host {host}", if here { "came to" } else { "left" }))
}

/// From gone here to come there; `None` when it was there first.
fn gap(changes: &[Change], ip: IpAddr, from: usize, to: usize) -> Result<Option<Duration>> {
    let (gone, come) = (change(changes, ip, from, false)?, change(changes, ip, to, true)?);
    Ok((come >= gone).then(|| come.since(gone)))
}

/// The longest lifetime of these addresses, as the kernel tells it: whole seconds, rounded up.
fn lifetime(host: &Host, ips: &[IpAddr]) -> Result<Duration> {
    let shown = Command::new("ip").args(["-n", &host.name, "-j", "addr", "show", "dev", "eth0"]).output();
    let shown: Value = serde_json::from_slice(&shown.context("run ip")?.stdout).context("read addresses")?;
    let infos = shown.pointer("/0/addr_info").and_then(Value::as_array).cloned().unwrap_or_default();
    let ours = infos.iter().filter(|info| {
        let ip = info.get("local").and_then(Value::as_str).and_then(|text| text.parse().ok());
        ip.is_some_and(|ip: IpAddr| ips.contains(&ip))
    });
    let left = ours.filter_map(|info| info.get("valid_life_time")?.as_u64()).max();
    left.map(Duration::from_secs).context("find the addresses with their lifetimes")
}

#[cfg(test)]
mod tests {
    use super::{Change, gap};
    use std::time::Duration;
    use types::Moment;

    #[test]
    fn an_address_that_comes_before_it_has_gone_leaves_no_gap() {
        let ip = [10, 0, 0, 9].into();
        let change = |at, host, here| Change { at: Moment(at), host, ip, here };
        let good = [change(5, 0, false), change(9, 1, true)];
        assert_eq!(gap(&good, ip, 0, 1).unwrap(), Some(Duration::from_millis(4)));
        let bad = [change(5, 1, true), change(9, 0, false)];
        assert_eq!(gap(&bad, ip, 0, 1).unwrap(), None);
        assert!(gap(&good[..1], ip, 0, 1).is_err());
    }
}
