//! What people use today, moved in the same way on two hosts of a network: keepalived, vip-manager, and an address that nobody announces.

use super::Options;
use super::watch::Watch;
use crate::bench::{directory, note};
use crate::netns::{Host, Network, connect};
use crate::processes::signal;
use crate::wait::until;
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::fs;
use std::net::{IpAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SPAN: Duration = Duration::from_secs(60);
/// An address that nobody announces is not waited for longer.
const SILENCE: Duration = Duration::from_secs(90);

/// Moves of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(crate) what: String,
    /// From the event to the first answer of the other host; `None` when there was none.
    pub(crate) back: Vec<Option<Duration>>,
    /// Moves in which both had the address at the end.
    pub(crate) kept: usize,
    /// What there is to say besides.
    pub(crate) remark: String,
}

/// A program in a network; dropped, it is killed.
pub(super) struct Started(Child);

impl Started {
    pub(super) fn start(command: &mut Command, log: &Path) -> Result<Started> {
        let log = fs::File::create(log).context("create a log")?;
        let command = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Started(command.spawn().context("start a program of another project")?))
    }

    /// Waits until it has ended.
    async fn ended(&mut self, span: Duration) -> Result<()> {
        let end = clock::now().after(span);
        while self.0.try_wait().context("wait for a program")?.is_none() {
            ensure!(clock::now() < end, "wait for the end of a program: not within {} s", span.as_secs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn signal(&self, what: Signal) {
        signal(i32::try_from(self.0.id()).unwrap_or_default(), what);
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where tools/setup has put the programs, if it has.
fn program(name: &str) -> Option<PathBuf> {
    let dir = std::env::var("BATON_TEST_ADDRESSES").ok()?;
    Some(Path::new(&dir).join(name)).filter(|path| path.exists())
}

struct Field {
    network: Network,
    dir: Dir,
    ips: [IpAddr; 2],
    watch: Watch,
}

impl Field {
    fn new() -> Result<Field> {
        let network = Network::create_reachable(&[11, 12])?;
        let [a, b, c] = network.range;
        let ips = [IpAddr::from([a, b, c, 100]), IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, 0x100])];
        let watch = Watch::start(&network, &network.hosts, &ips, &[], "")?;
        Ok(Field { network, dir: Dir::new()?, ips, watch })
    }

    fn host(&self, number: usize) -> Result<&Host> {
        self.network.hosts.get(number).context("find a host")
    }

    /// Waits until this host alone has the address and answers at it.
    async fn at(&self, family: usize, number: usize) -> Result<()> {
        until(SPAN, "the address at one host", async || {
            let (_, notes) = self.watch.answers.get(family)?;
            let all = notes.all();
            let newest = all.get(all.len().saturating_sub(20)..)?;
            (newest.len() == 20 && newest.iter().all(|answer| answer.by == Some(number))).then_some(())
        })
        .await?;
        self.watch.clear();
        Ok(())
    }

    /// From now to the first answer of this host.
    async fn back(&self, family: usize, number: usize, within: Duration) -> Option<Duration> {
        let begun = clock::now();
        let found = until(within, "an answer", async || {
            let (_, notes) = self.watch.answers.get(family)?;
            let met =
                notes.all().into_iter().find(|answer| answer.by == Some(number) && answer.begun >= begun);
            met.map(|answer| answer.answered.since(begun))
        });
        found.await.ok()
    }

    /// Whether both hosts have the IPv4 address.
    fn both(&self) -> Result<bool> {
        let mut both = true;
        for host in &self.network.hosts {
            let shown =
                Command::new("ip").args(["-n", &host.name, "-4", "addr", "show", "dev", "eth0"]).output();
            let shown = shown.context("run ip")?.stdout;
            both &= String::from_utf8_lossy(&shown).contains(&format!(" {}/", self.ips[0]));
        }
        Ok(both)
    }

    /// Puts an address there; IPv6 without its second of looking for duplicates.
    fn put(&self, number: usize, what: &str, ip: IpAddr) -> Result<()> {
        let nodad: &[&str] = if ip.is_ipv6() { &["nodad"] } else { &[] };
        self.host(number)?.ip(&[&["addr", "add", what, "dev", "eth0"], nodad].concat())
    }

    fn remove(&self, number: usize, length: u8) -> Result<()> {
        // It may be gone already.
        let host = self.host(number)?;
        let _ = host.ip(&["addr", "del", &format!("{}/{length}", self.ips[0]), "dev", "eth0"]);
        Ok(())
    }
}

/// Everything there is. What one of them cannot do keeps nothing else from being measured.
pub(super) async fn measure(options: &Options, figures: &mut Vec<Reference>) {
    let mut take = |name: &str, measured: Result<Vec<Reference>>| match measured {
        Ok(measured) => figures.extend(measured),
        Err(error) => note(&format!("{name} is left out: failed to {error:#}")),
    };
    if options.silent > 0 {
        take("an address that nobody announces", silent(options.silent).await);
    }
    if options.references == 0 {
        return;
    }
    match program("keepalived") {
        Some(path) => take("keepalived", keepalived(&path, options.references).await),
        None => note("keepalived is left out: tools/setup addresses installs it"),
    }
    match program("vip-manager") {
        Some(path) => take("vip-manager", vip_manager(&path, options.references).await),
        None => note("vip-manager is left out: there is no package of it"),
    }
}

/// An address is taken off one host and put on the other, and nobody is told.
async fn silent(count: usize) -> Result<Vec<Reference>> {
    let mut all = Vec::new();
    for (family, length, name) in [(0, 32, "IPv4"), (1, 128, "IPv6")] {
        let mut own = Reference {
            what: format!("nobody tells the neighbours, {name}"),
            back: Vec::new(),
            kept: 0,
            remark: format!("waited for {} s at most", SILENCE.as_secs()),
        };
        for number in 0..count {
            note(&format!("an address that nobody announces: {} of {count}, {name}", number + 1));
            // Each time in a fresh network: who knows the wrong place may know it for minutes.
            let field = Field::new()?;
            let ip = *field.ips.get(family).context("find an address")?;
            let what = format!("{ip}/{length}");
            field.put(0, &what, ip)?;
            field.at(family, 0).await?;
            field.host(0)?.ip(&["addr", "del", &what, "dev", "eth0"])?;
            field.put(1, &what, ip)?;
            own.back.push(field.back(family, 1, SILENCE).await);
        }
        all.push(own);
    }
    Ok(all)
}

/// One of the two keepalived.
fn start_keepalived(field: &Field, program: &Path, number: usize) -> Result<Started> {
    let host = field.host(number)?;
    let dir = field.dir.path();
    let file = |ending: &str| dir.join(format!("keepalived-{number}.{ending}"));
    let text = format!(
        "global_defs {{\n  router_id h{number}\n}}\nvrrp_instance pg {{\n  state BACKUP\n  interface eth0\n  virtual_router_id 51\n  priority {}\n  \
         advert_int 1\n  virtual_ipaddress {{\n    {}/24 dev eth0\n  }}\n}}\n",
        100 - 10 * number,
        field.ips[0]
    );
    fs::write(file("conf"), text).context("write a configuration")?;
    // A killed one leaves them.
    for left in ["pid", "vrrp.pid"] {
        let _ = fs::remove_file(file(left));
    }
    let mut command = host.command(&program.display().to_string());
    command.args(["--dont-fork", "--log-console", "--vrrp", "--use-file"]).arg(file("conf"));
    command.arg("--pid").arg(file("pid")).arg("--vrrp_pid").arg(file("vrrp.pid"));
    Started::start(&mut command, &file("log"))
}

async fn keepalived(program: &Path, count: usize) -> Result<Vec<Reference>> {
    let field = Field::new()?;
    let mut first = Some(start_keepalived(&field, program, 0)?);
    let _second = start_keepalived(&field, program, 1)?;
    let mut all = Vec::new();
    for (what, sign) in [
        ("keepalived: stopped in good order", Signal::TERM),
        ("keepalived: killed (both processes)", Signal::KILL),
    ] {
        let mut own = Reference {
            what: what.to_owned(),
            back: Vec::new(),
            kept: 0,
            remark: "advertisement each second".to_owned(),
        };
        for number in 0..count {
            note(&format!("{what}: {} of {count}", number + 1));
            field.at(0, 0).await?;
            let mut running = first.take().context("find keepalived")?;
            let child = fs::read_to_string(field.dir.path().join("keepalived-0.vrrp.pid"));
            let child: i32 = child.context("read a pid file")?.trim().parse().context("read a pid file")?;
            running.signal(sign);
            if sign == Signal::KILL {
                signal(child, sign);
            }
            own.back.push(field.back(0, 1, Duration::from_secs(20)).await);
            // When the neighbours have been told, both may still have it.
            own.kept += usize::from(holders_overlap(&field).await?);
            // One that is told to stop takes a second for it, and another one would find it running.
            running.ended(SPAN).await?;
            drop(running);
            field.remove(0, 24)?;
            first = Some(start_keepalived(&field, program, 0)?);
        }
        all.push(own);
    }
    Ok(all)
}

/// Whether both have the address as soon as the second one has it.
async fn holders_overlap(field: &Field) -> Result<bool> {
    let host = field.host(1)?.name.clone();
    let address = format!(" {}/", field.ips[0]);
    until(SPAN, "the address on the second host", async || {
        let shown =
            Command::new("ip").args(["-n", &host, "-4", "addr", "show", "dev", "eth0"]).output().ok()?;
        String::from_utf8_lossy(&shown.stdout).contains(&address).then_some(())
    })
    .await?;
    field.both()
}

async fn vip_manager(program: &Path, count: usize) -> Result<Vec<Reference>> {
    let field = Field::new()?;
    let switch = &field.network.switch;
    // Debian's vip-manager reads the second version of etcd's keys.
    let etcd = crate::binaries::etcd_bins().into_iter().next().context("find etcd: run tools/setup")?;
    let (url, dir) = (format!("http://{}:2379", switch.v4), field.dir.path());
    let mut command = switch.command(&etcd.display().to_string());
    command.arg("--enable-v2=true").arg(format!("--data-dir={}", dir.join("etcd").display()));
    command.arg(format!("--listen-client-urls={url}")).arg(format!("--advertise-client-urls={url}"));
    let _etcd = Started::start(&mut command, &dir.join("etcd.log"))?;
    let endpoint = SocketAddrV4::new(switch.v4, 2379);
    until(SPAN, "etcd", async || put(endpoint, "h0").await.ok()).await?;
    let start = |number: usize| -> Result<Started> {
        let mut command = field.host(number)?.command(&program.display().to_string());
        command.args([
            "--netmask=24",
            "--interface=eth0",
            "--trigger-key=/service/demo/leader",
            "--dcs-type=etcd",
        ]);
        command.args([format!("--ip={}", field.ips[0]), format!("--trigger-value=h{number}")]);
        command.arg(format!("--dcs-endpoints={url}")).arg("--interval=1000");
        Started::start(&mut command, &dir.join(format!("vip-manager-{number}.log")))
    };
    let mut running = [Some(start(0)?), Some(start(1)?)];
    let mut all = Vec::new();
    for (what, kill) in [
        ("vip-manager 1.0.2: the key changes", false),
        ("vip-manager 1.0.2: killed, then the key changes", true),
    ] {
        let mut own = Reference {
            what: what.to_owned(),
            back: Vec::new(),
            kept: 0,
            remark: "interval of one second".to_owned(),
        };
        for number in 0..count {
            note(&format!("{what}: {} of {count}", number + 1));
            put(endpoint, "h0").await?;
            field.at(0, 0).await?;
            if kill {
                drop(running[0].take());
            }
            put(endpoint, "h1").await?;
            own.back.push(field.back(0, 1, Duration::from_secs(20)).await);
            own.kept += usize::from(holders_overlap(&field).await?);
            if kill {
                field.remove(0, 24)?;
                running[0] = Some(start(0)?);
            }
        }
        all.push(own);
    }
    Ok(all)
}

/// Writes the leader key as Patroni does in the second version of etcd's keys.
async fn put(etcd: SocketAddrV4, leader: &str) -> Result<()> {
    let body = format!("value={leader}");
    let request = format!(
        "PUT /v2/keys/service/demo/leader HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = connect(etcd).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 20"), "write the leader key: {answer}");
    Ok(())
}

/// A directory that goes with its owner.
pub(super) struct Dir(PathBuf);

impl Dir {
    pub(super) fn new() -> Result<Dir> {
        let path = directory()?;
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Dir(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
