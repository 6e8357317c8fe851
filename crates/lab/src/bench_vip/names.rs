//! Our name server and dnsmasq, in turn, under the same questions: two askers with many questions on their way, then one with a single one.

use super::stand;
use super::watch::question;
use super::{Options, others::Started};
use crate::bench::note;
use crate::binaries::Binaries;
use crate::config::{NAMESPACE, SCOPE};
use crate::keys::Gateway;
use crate::netns::{Host, Network};
use crate::wait::until;
use anyhow::{Context, Result};
use std::fs;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

const SPAN: Duration = Duration::from_secs(20);
const NAME: &str = "primary.c1.pg.test";
/// Askers, and the questions that each has on its way.
const ASKERS: usize = 2;
const WINDOW: usize = 32;
/// Questions one after the other.
const SINGLE: usize = 5000;
/// A question without an answer is given up after this.
const LOST: Duration = Duration::from_millis(200);

/// One run of one server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speed {
    pub(crate) per_second: f64,
    /// Of questions one after the other: the median and the 99th of a hundred.
    pub(crate) median: Duration,
    pub(crate) slow: Duration,
}

/// Both, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) ours: Speed,
    pub(crate) dnsmasq: Speed,
}

/// Runs both servers and asks them in turn.
pub(super) async fn measure(options: &Options, binaries: &Binaries) -> Result<Vec<Rate>> {
    let Some(dnsmasq) =
        std::env::var_os("BATON_TEST_DNSMASQ").map(PathBuf::from).filter(|path| path.exists())
    else {
        note("the name servers are left out: tools/setup test installs dnsmasq");
        return Ok(Vec::new());
    };
    let network = Network::create_reachable(&[11])?;
    let dir = super::others::Dir::new()?;
    let place = &network.switch;
    let (_etcd, keys) = etcd(place, dir.path(), &binaries.etcd).await?;
    let member = r#"{"state":"running","role":"primary","conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://h:8008/patroni"}"#;
    keys.put("members/pg-1", member).await?;
    keys.put_leased("leader", "pg-1", keys.grant(3600).await?).await?;

    let (ours, theirs) = (SocketAddr::from((place.v4, 5301)), SocketAddr::from((place.v4, 5302)));
    let file = dir.path().join("dns.yml");
    let text = format!(
        "scope: {SCOPE}\nnamespace: {NAMESPACE}\netcd3: {{host: \"{}:2379\"}}\ndns: {{zone: c1.pg.test, listen: \"{ours}\"}}\n",
        place.v4
    );
    fs::write(&file, text).context("write a configuration")?;
    let mut command = place.command(&binaries.baton.display().to_string());
    let _ours = Started::start(command.arg("dns").arg(&file), &dir.path().join("dns.log"))?;
    let hosts = dir.path().join("hosts");
    fs::write(&hosts, format!("10.0.0.1 {NAME}\n")).context("write a hosts file")?;
    let mut command = place.command(&dnsmasq.display().to_string());
    command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--local-ttl=1", "--bind-interfaces"]);
    command.args(["--conf-file=/dev/null", "--pid-file=", "--user=root", "--port=5302"]);
    command.arg(format!("--listen-address={}", place.v4)).arg(format!("--addn-hosts={}", hosts.display()));
    let _theirs = Started::start(&mut command, &dir.path().join("dnsmasq.log"))?;
    let second = Duration::from_secs(1);
    for server in [ours, theirs] {
        until(SPAN, "the name servers", async || {
            load(place, server, second / 10).await.ok().filter(|n| *n > 0)
        })
        .await?;
    }
    let mut all = Vec::new();
    for number in 0..options.pairs {
        note(&format!("name servers, pair {} of {}", number + 1, options.pairs));
        let run = async |server| speed(place, server, second * options.seconds).await;
        // Each is the first one in every other pair.
        all.push(if number % 2 == 0 {
            let dnsmasq = run(theirs).await?;
            Rate { ours: run(ours).await?, dnsmasq }
        } else {
            let ours = run(ours).await?;
            Rate { ours, dnsmasq: run(theirs).await? }
        });
    }
    Ok(all)
}

async fn etcd(place: &Host, dir: &Path, etcd: &Path) -> Result<(Started, Gateway)> {
    let url = format!("http://{}:2379", place.v4);
    let mut command = place.command(&etcd.display().to_string());
    command.arg(format!("--data-dir={}", dir.join("etcd").display()));
    command.arg(format!("--listen-client-urls={url}")).arg(format!("--advertise-client-urls={url}"));
    let running = Started::start(&mut command, &dir.join("etcd.log"))?;
    let keys = Gateway::new(vec![SocketAddrV4::new(place.v4, 2379)], NAMESPACE, SCOPE);
    until(SPAN, "etcd", async || keys.read().await.ok()).await?;
    Ok((running, keys))
}

async fn speed(place: &Host, server: SocketAddr, span: Duration) -> Result<Speed> {
    let answers = load(place, server, span).await?;
    let (told, heard) = mpsc::channel();
    stand(place, async move || drop(told.send(singly(server).await)))?;
    let waited = tokio::task::spawn_blocking(move || heard.recv_timeout(SPAN)).await?;
    let mut times = waited.context("wait for the asker")?.context("ask one question after the other")?;
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    Ok(Speed { per_second: answers as f64 / span.as_secs_f64(), median: at(50), slow: at(99) })
}

/// The answers of a server within `span`.
async fn load(place: &Host, server: SocketAddr, span: Duration) -> Result<usize> {
    let (told, heard) = mpsc::channel();
    for _ in 0..ASKERS {
        let told = told.clone();
        stand(place, async move || drop(told.send(many(server, span).await)))?;
    }
    drop(told);
    let counts =
        tokio::task::spawn_blocking(move || heard.into_iter().collect::<std::io::Result<Vec<usize>>>());
    Ok(counts.await?.context("ask a name server")?.into_iter().sum())
}

/// Keeps so many questions on their way, and counts the answers that have an address in them.
async fn many(server: SocketAddr, span: Duration) -> std::io::Result<usize> {
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    socket.connect(server).await?;
    let (question, end) = (question(7, NAME), Instant::now() + span);
    let (mut answers, mut reply) = (0, [0; 512]);
    let mut under_way = 0;
    while Instant::now() < end {
        while under_way < WINDOW {
            socket.send(&question).await?;
            under_way += 1;
        }
        match timeout(LOST, socket.recv(&mut reply)).await {
            Ok(Ok(length)) => {
                answers += usize::from(length > question.len());
                under_way -= 1;
            }
            // Nobody listens yet, or everything was lost.
            Ok(Err(_)) | Err(_) => under_way = 0,
        }
    }
    Ok(answers)
}

/// How long each of some questions takes, one after the other.
async fn singly(server: SocketAddr) -> std::io::Result<Vec<Duration>> {
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    socket.connect(server).await?;
    let (question, mut reply, mut times) = (question(8, NAME), [0; 512], Vec::new());
    for _ in 0..SINGLE {
        let begun = Instant::now();
        socket.send(&question).await?;
        let _ = timeout(LOST, socket.recv(&mut reply)).await;
        times.push(begun.elapsed());
    }
    Ok(times)
}
