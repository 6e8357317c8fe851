//! The BGP speaker with real routers in network namespaces: from the change of the leader key, or the end of the speaker, until the route
//! is in the router's kernel, or gone from it. In the same run BIRD alone on both sides. Needs root.
//!
//! ```text
//!   host 1: baton vip, 192.0.2.100 on lo ── BGP ──┐
//!   host 2: BIRD, 192.0.2.200 by hand ───── BGP ──┴─► host 3: BIRD, then FRR; its kernel's table, looked at every 0.2 ms
//! ```

use crate::bench::{directory, note};
use crate::binaries::{baton_of_this_build, etcd_bins};
use crate::config::{NAMESPACE, SCOPE};
use crate::keys::Gateway;
use crate::netns::{Host, Network};
use crate::wait::until;
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{Write, stdout};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use types::Moment;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of each event but frozen ones.
    pub runs: usize,
    /// Frozen speakers; each takes some seconds.
    pub frozen: usize,
    /// Another binary than that of this build.
    pub baton: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options { runs: 20, frozen: 20, baton: None }
    }
}

const OURS: &str = "192.0.2.100";
const REFERENCE: &str = "192.0.2.200";
const SPAN: Duration = Duration::from_secs(30);
/// A lease that proves enough for the hold time of 3 s.
const LEASE: u32 = 15;
/// The pace of the looking at a table.
const LOOK: Duration = Duration::from_micros(200);

/// A process that is killed at the end.
struct Running(Child);

impl Running {
    fn start(mut command: Command, log: &Path) -> Result<Running> {
        let file = File::create(log).with_context(|| format!("write {}", log.display()))?;
        let command = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Running(command.spawn().context("start a process")?))
    }

    fn signal(&self, what: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.0.id())?).ok_or_else(|| anyhow!("it has no pid"))?;
        kill_process(pid, what).context("send a signal")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a host has a route to an address, and since when it has or has not.
struct Table {
    /// Odd: it is there. Every change counts one.
    changes: Arc<AtomicU64>,
    at: Arc<Mutex<Moment>>,
    end: Arc<AtomicBool>,
}

impl Table {
    fn watch(host: &Host, ip: &str) -> Result<Table> {
        let octets: std::net::Ipv4Addr = ip.parse()?;
        let destination = format!("\t{:08X}\t", u32::from(octets).swap_bytes());
        let table =
            Table { changes: Arc::default(), at: Arc::new(Mutex::new(clock::now())), end: Arc::default() };
        let (changes, at, end) = (table.changes.clone(), table.at.clone(), table.end.clone());
        let host = host.clone();
        std::thread::spawn(move || {
            if host.enter().is_err() {
                return;
            }
            while !end.load(Ordering::SeqCst) {
                let there = fs::read_to_string("/proc/thread-self/net/route")
                    .is_ok_and(|routes| routes.contains(&destination));
                if there != (changes.load(Ordering::SeqCst) % 2 == 1) {
                    *at.lock().unwrap_or_else(PoisonError::into_inner) = clock::now();
                    changes.fetch_add(1, Ordering::SeqCst);
                }
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the pace of the looking; nothing is ordered by it"
                )]
                std::thread::sleep(LOOK);
            }
        });
        Ok(table)
    }

    /// Waits until it is there, or not, and says since when.
    async fn until(&self, there: bool) -> Result<Moment> {
        let so = async || (self.changes.load(Ordering::SeqCst) % 2 == u64::from(there)).then_some(());
        until(SPAN, if there { "the route" } else { "no route" }, so).await?;
        Ok(*self.at.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
    }
}

/// The parts that every run has.
struct Site {
    network: Network,
    dir: PathBuf,
    keys: Gateway,
    baton: PathBuf,
    _etcd: Running,
}

impl Site {
    async fn start(options: &Options) -> Result<Site> {
        let network = Network::create_reachable(&[11, 12, 13])?;
        let dir = directory()?;
        fs::create_dir(&dir)?;
        let etcd = etcd_bins().into_iter().next().context("find etcd: run tools/setup")?;
        let at = SocketAddrV4::new(network.switch.v4, 2379);
        let mut command = network.switch.command(&etcd.display().to_string());
        command.arg(format!("--data-dir={}", dir.join("etcd").display()));
        command
            .arg(format!("--listen-client-urls=http://{at}"))
            .arg(format!("--advertise-client-urls=http://{at}"));
        let running = Running::start(command, &dir.join("etcd.log"))?;
        let keys = Gateway::new(vec![at], NAMESPACE, SCOPE);
        until(SPAN, "etcd", async || keys.read().await.ok()).await?;
        let baton = options.baton.clone().map_or_else(baton_of_this_build, Ok)?;
        Ok(Site { network, dir, keys, baton, _etcd: running })
    }

    fn peer(name: &str) -> Result<String> {
        let peers = std::env::var("BATON_TEST_PEERS").context("find BIRD and FRR: run tools/setup test")?;
        Ok(Path::new(&peers).join(name).display().to_string())
    }

    fn bird(&self, host: &Host, name: &str, text: &str) -> Result<Running> {
        let conf = self.dir.join(format!("{name}.conf"));
        fs::write(&conf, text)?;
        let mut command = host.command(&Site::peer("bird")?);
        command.arg("-f").arg("-c").arg(conf).arg("-s").arg(self.dir.join(format!("{name}.ctl")));
        Running::start(command, &self.dir.join(format!("{name}.log")))
    }

    /// The router, which knows both other hosts.
    fn router(&self, kind: &str) -> Result<Vec<Running>> {
        let [one, two, router] = &self.network.hosts[..] else { bail!("there are three hosts") };
        if kind == "BIRD" {
            let session = |name: &str, host: &Host, asn: u32| {
                format!(
                    "protocol bgp {name} {{ local as 65000; neighbor {} as {asn}; hold time 3; error wait time 1, 1; error forget time 1; \
                     connect delay time 1; ipv4 {{ import all; export none; }}; }}\n",
                    host.v4
                )
            };
            let text = format!(
                "router id {};\nprotocol device {{ }}\nprotocol kernel {{ ipv4 {{ import none; export all; }}; }}\n{}{}",
                router.v4,
                session("ours", one, 65001),
                session("reference", two, 65002)
            );
            return Ok(vec![self.bird(router, "router", &text)?]);
        }
        let text = format!(
            "router bgp 65000\n no bgp ebgp-requires-policy\n timers bgp 1 3\n neighbor {} remote-as 65001\n neighbor {} remote-as 65002\n",
            one.v4, two.v4
        );
        let (conf, run, group) = (self.dir.join("frr.conf"), self.dir.join("frr"), self.dir.join("group"));
        fs::create_dir_all(&run)?;
        fs::write(&conf, text)?;
        fs::write(&group, fs::read_to_string("/etc/group")? + "frrvty:x:64999:root\n")?;
        let start = |name: &str| {
            let mut command = router.command("sh");
            command.arg("-c").arg(format!(
                "mount --bind {group} /etc/group && exec {program} -u root -g root -f {conf} -i {run}/{name}.pid -z {run}/zserv.api \
                 --vty_socket {run} -P 0",
                group = group.display(),
                program = Site::peer(name)?,
                conf = conf.display(),
                run = run.display()
            ));
            Running::start(command, &self.dir.join(format!("{name}.log")))
        };
        Ok(vec![start("zebra")?, start("bgpd")?])
    }

    fn speaker(&self) -> Result<Running> {
        let [one, _, router] = &self.network.hosts[..] else { bail!("there are three hosts") };
        let file = self.dir.join("n1.yml");
        let text = format!(
            "scope: {SCOPE}\nnamespace: {NAMESPACE}\nname: n1\netcd3: {{host: '{}:2379'}}\nvip:\n  addresses: [{{address: {OURS}, interface: \
             lo}}]\n  bgp: {{as: 65001, router_id: {}, neighbors: [{{address: {}, as: 65000}}]}}\n",
            self.network.switch.v4, one.v4, router.v4
        );
        fs::write(&file, text)?;
        let mut command = one.command(&self.baton.display().to_string());
        command.arg("vip").arg(&file);
        Running::start(command, &self.dir.join("n1.log"))
    }

    async fn up(&self) -> Result<()> {
        let log = self.dir.join("n1.log");
        let up = async || fs::read_to_string(&log).ok()?.contains("the BGP session is up").then_some(());
        until(SPAN, "the BGP session", up).await
    }

    /// Who leads, on a lease that is renewed until the answer is dropped.
    async fn lead(&self) -> Result<Lead> {
        let member = r#"{"state":"running","role":"primary","conn_url":"postgres://h:5432/postgres","api_url":"http://h:8008/patroni"}"#;
        let lease = self.keys.grant(LEASE).await?;
        self.keys.put_leased("members/n1", member, lease).await?;
        let keys = self.keys.clone();
        let renewing = tokio::spawn(async move {
            while keys.keep_alive(lease).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        Ok(Lead { lease, renewing })
    }
}

struct Lead {
    lease: i64,
    renewing: tokio::task::JoinHandle<()>,
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// One row: what happened, and the milliseconds it took each time.
struct Row {
    what: String,
    took: Vec<u64>,
}

/// Measures and prints.
pub async fn run(options: &Options) -> Result<()> {
    let site = Site::start(options).await?;
    let mut rows = Vec::new();
    for router in ["BIRD", "FRR"] {
        note(&format!("the router is {router}"));
        rows.extend(with(&site, router, options).await?);
    }
    let dir = site.dir.clone();
    drop(site);
    fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    let mut text = String::from("| router | event | n | median | least to most |\n|---|---|---|---|---|\n");
    for Row { what, mut took } in rows {
        took.sort_unstable();
        let middle = took.get(took.len() / 2).copied().unwrap_or_default();
        let (least, most) =
            (took.first().copied().unwrap_or_default(), took.last().copied().unwrap_or_default());
        text.push_str(&format!("| {what} | {} | {middle} ms | {least} to {most} ms |\n", took.len()));
    }
    stdout().lock().write_all(text.as_bytes()).context("write the table")
}

async fn with(site: &Site, router: &str, options: &Options) -> Result<Vec<Row>> {
    let [_, two, three] = &site.network.hosts[..] else { bail!("there are three hosts") };
    let _router = site.router(router)?;
    let mut speaker = site.speaker()?;
    site.up().await?;
    let ours = Table::watch(three, OURS)?;
    let lead = site.lead().await?;
    let mut rows: Vec<Row> = Vec::new();
    let mut note_row = |event: &str, took: Vec<u64>| {
        note(&format!("{event}: {took:?}"));
        rows.push(Row { what: format!("{router} | {event}"), took });
    };
    let (mut announced, mut withdrawn, mut killed, mut frozen) = (vec![], vec![], vec![], vec![]);
    for _ in 0..options.runs {
        let from = clock::now();
        site.keys.put_leased("leader", "n1", lead.lease).await?;
        announced.push(millis(from, ours.until(true).await?));
        let from = clock::now();
        site.keys.delete("leader").await?;
        withdrawn.push(millis(from, ours.until(false).await?));
    }
    note_row("announced: from the leader key", announced);
    note_row("withdrawn: from the leader key's end", withdrawn);
    for (times, signal, took) in
        [(options.runs, Signal::KILL, &mut killed), (options.frozen, Signal::STOP, &mut frozen)]
    {
        for _ in 0..times {
            site.keys.put_leased("leader", "n1", lead.lease).await?;
            ours.until(true).await?;
            let from = clock::now();
            speaker.signal(signal)?;
            took.push(millis(from, ours.until(false).await?));
            site.keys.delete("leader").await?;
            drop(speaker);
            speaker = site.speaker()?;
            site.up().await?;
        }
    }
    note_row("killed", killed);
    note_row("frozen (hold time 3 s)", frozen);
    drop(speaker);
    let (came, went) = reference(site, two, three, options.runs).await?;
    note_row("reference, BIRD as speaker: address added", came);
    note_row("reference, BIRD as speaker: address removed", went);
    Ok(rows)
}

/// BIRD announces an address that comes and goes.
async fn reference(site: &Site, host: &Host, router: &Host, runs: usize) -> Result<(Vec<u64>, Vec<u64>)> {
    let text = format!(
        "router id {};\nprotocol device {{ }}\nprotocol direct {{ ipv4; interface \"lo\"; }}\nprotocol bgp {{ local as 65002; neighbor {} as 65000; \
         hold time 3; connect delay time 1; ipv4 {{ import none; export where net = {REFERENCE}/32; next hop self; }}; }}\n",
        host.v4, router.v4
    );
    let _bird = site.bird(host, "reference", &text)?;
    let table = Table::watch(router, REFERENCE)?;
    let address = format!("{REFERENCE}/32");
    let (mut came, mut went) = (vec![], vec![]);
    host.ip(&["addr", "add", &address, "dev", "lo"])?;
    table.until(true).await?;
    for _ in 0..runs {
        let from = clock::now();
        host.ip(&["addr", "del", &address, "dev", "lo"])?;
        went.push(millis(from, table.until(false).await?));
        let from = clock::now();
        host.ip(&["addr", "add", &address, "dev", "lo"])?;
        came.push(millis(from, table.until(true).await?));
    }
    host.ip(&["addr", "del", &address, "dev", "lo"])?;
    table.until(false).await?;
    Ok((came, went))
}

fn millis(from: Moment, to: Moment) -> u64 {
    u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)
}
