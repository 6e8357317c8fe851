//! Hosts on one machine that do not share a network stack: namespaces on a bridge of their own. Needs root.
//!
//! ```text
//!   <prefix>-sw   10.77.0.254, fd77::254   a bridge; whoever looks at the hosts stands here
//!      │ p11 ──── <prefix>-h11   eth0   10.77.0.11, fd77::11
//!      │ p12 ──── <prefix>-h12   eth0   10.77.0.12, fd77::12
//!      └── …      unplug: the port of the switch goes down      cut: two hosts have wrong link addresses for each other
//! ```
//! Nothing of it is visible outside, and all of it goes when the network is dropped. What a killed process left is removed by
//! the next one.

mod frames;
mod holders;

pub use frames::{Frame, Listener};
pub use holders::Holders;

use anyhow::{Context, Result, anyhow, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// The networks that this process can look into, by the first three bytes of their addresses, and where one stands to do so.
static KNOWN: Mutex<BTreeMap<[u8; 3], Host>> = Mutex::new(BTreeMap::new());

/// Nobody has this link address: what is sent to it is lost without a word, as in a cable that is cut.
const NOBODY: &str = "02:00:00:00:00:00";

/// A switch and the hosts on it.
#[derive(Debug)]
pub struct Network {
    pub switch: Host,
    pub hosts: Vec<Host>,
    /// The first three bytes of its addresses.
    pub range: [u8; 3],
}

/// One namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The name of its namespace.
    pub name: String,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Network {
    /// A network with so many hosts, 10.77.0.11 and up.
    pub fn create(count: u8) -> Result<Network> {
        let numbers: Vec<u8> = (1..=count).map(|at| 10 + at).collect();
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Network::build(serial, [10, 77, 0], &numbers)
    }

    /// A network of its own range with a host for each of these last bytes. [`connect`] reaches its hosts from anywhere.
    pub fn create_reachable(numbers: &[u8]) -> Result<Network> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let range = [10, 77, u8::try_from(1 + serial % 250).unwrap_or(u8::MAX)];
        let network = Network::build(serial, range, numbers)?;
        known().insert(range, network.switch.clone());
        Ok(network)
    }

    fn build(serial: u32, range: [u8; 3], numbers: &[u8]) -> Result<Network> {
        remove_leftovers();
        let prefix = format!("baton-{}-{serial}", std::process::id());
        let [a, b, c] = range;
        let host = |name: String, number: u8| Host {
            name,
            v4: Ipv4Addr::new(a, b, c, number),
            v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, decimal(number)),
        };
        let network = Network {
            switch: host(format!("{prefix}-sw"), 254),
            hosts: numbers.iter().map(|number| host(format!("{prefix}-h{number}"), *number)).collect(),
            range,
        };
        // From here on a failure drops the network, which removes what is there already.
        let switch = &network.switch;
        switch.create()?;
        switch.ip(&["link", "add", "br0", "type", "bridge"])?;
        switch.address("br0")?;
        for host in &network.hosts {
            let port = host.port();
            host.create()?;
            host.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &switch.name])?;
            switch.ip(&["link", "set", &port, "master", "br0", "up"])?;
            host.address("eth0")?;
        }
        Ok(network)
    }

    /// The host with this address.
    #[must_use]
    pub fn host(&self, v4: Ipv4Addr) -> Option<&Host> {
        self.hosts.iter().find(|host| host.v4 == v4)
    }

    /// Pulls the cable of a host.
    pub fn unplug(&self, host: &Host) -> Result<()> {
        self.switch.ip(&["link", "set", &host.port(), "down"])
    }

    /// Plugs it in again.
    pub fn plug(&self, host: &Host) -> Result<()> {
        self.switch.ip(&["link", "set", &host.port(), "up"])
    }

    /// Nothing passes between two hosts any more; both reach all others as before.
    pub fn cut(&self, one: &Host, two: &Host) -> Result<()> {
        for (from, to) in [(one, two), (two, one)] {
            let to = to.v4.to_string();
            from.ip(&["neigh", "replace", &to, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent"])?;
        }
        Ok(())
    }

    /// They reach each other again.
    pub fn mend(&self, one: &Host, two: &Host) -> Result<()> {
        for (from, to) in [(one, two), (two, one)] {
            from.ip(&["neigh", "del", &to.v4.to_string(), "dev", "eth0"])?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let mut known = known();
        if known.get(&self.range) == Some(&self.switch) {
            known.remove(&self.range);
        }
        drop(known);
        for host in self.hosts.iter().chain([&self.switch]) {
            host.remove();
        }
    }
}

/// A connection to an address of this machine, or into one of the reachable networks.
pub(crate) async fn connect(to: SocketAddrV4) -> io::Result<TcpStream> {
    match place_of(*to.ip()) {
        None => TcpStream::connect(to).await,
        Some(place) => {
            let socket = place.within(|| {
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
            });
            let socket = socket.map_err(io::Error::other)??;
            TcpSocket::from_std_stream(socket.into()).connect(SocketAddr::V4(to)).await
        }
    }
}

/// Where one stands to reach this address; `None`: anywhere.
pub(crate) fn place_of(v4: Ipv4Addr) -> Option<Host> {
    let [a, b, c, _] = v4.octets();
    known().get(&[a, b, c]).cloned()
}

fn known() -> MutexGuard<'static, BTreeMap<[u8; 3], Host>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 11 as 0x11, so that the last part of both addresses of a host reads the same.
fn decimal(number: u8) -> u16 {
    let number = u16::from(number);
    number / 100 * 256 + number / 10 % 10 * 16 + number % 10
}

/// Removes the namespaces of processes that were killed.
fn remove_leftovers() {
    let listed = Command::new("ip").args(["netns", "list"]).output();
    let listed = listed.map(|output| output.stdout).unwrap_or_default();
    for name in String::from_utf8_lossy(&listed).lines().filter_map(|line| line.split(' ').next()) {
        let pid = name.strip_prefix("baton-").and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            Host { name: name.to_owned(), v4: Ipv4Addr::UNSPECIFIED, v6: Ipv6Addr::UNSPECIFIED }.remove();
        }
    }
}

impl Host {
    fn create(&self) -> Result<()> {
        ip(&["netns", "add", &self.name])?;
        self.ip(&["link", "set", "lo", "up"])
    }

    fn address(&self, interface: &str) -> Result<()> {
        self.ip(&["addr", "add", &format!("{}/24", self.v4), "dev", interface])?;
        self.ip(&["addr", "add", &format!("{}/64", self.v6), "dev", interface, "nodad"])?;
        self.ip(&["link", "set", interface, "up"])
    }

    fn remove(&self) {
        // What is still in it is of no use to anybody without its network.
        let pids = Command::new("ip").args(["netns", "pids", &self.name]).output();
        for pid in pids.iter().flat_map(|output| output.stdout.split(|byte| *byte == b'\n')) {
            if let Some(pid) = std::str::from_utf8(pid).ok().and_then(|pid| pid.parse().ok()) {
                crate::processes::signal(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
    }

    /// Runs `ip` in it.
    pub fn ip(&self, words: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name], words].concat())
    }

    /// A command that will run in it.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// The port of the switch that its cable ends at.
    fn port(&self) -> String {
        format!("p{}", self.v4.octets()[3])
    }

    /// Does something on a thread that is in it: what is opened or started there belongs to it.
    pub(crate) fn within<T: Send>(&self, what: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = || {
            self.enter()?;
            Ok(what())
        };
        let done = std::thread::scope(|scope| scope.spawn(inside).join());
        done.unwrap_or_else(|_| Err(anyhow!("work in the network namespace {}: it panicked", self.name)))
    }

    /// Moves this thread into it, for good: sockets that it opens from now on are there.
    pub fn enter(&self) -> Result<()> {
        let file = File::open(format!("/run/netns/{}", self.name)).context("open the network namespace")?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter the network namespace {}", self.name))
    }

    /// Whether the calling thread's namespace has the address: only then can a socket be bound to it.
    #[must_use]
    pub fn here(ip: IpAddr) -> bool {
        std::net::UdpSocket::bind((ip, 0)).is_ok()
    }
}

fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(words).output().context("run ip: install iproute2")?;
    if !output.status.success() {
        bail!("run ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Does something on a thread of its own that is in the network of `host`: every socket that it opens is there.
pub(crate) fn stand<T>(host: &Host, work: impl AsyncFnOnce() -> T + Send + 'static) -> Result<()> {
    let host = host.clone();
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let begun = host.enter().and_then(|()| runtime.context("start a runtime"));
        match begun {
            Ok(runtime) => {
                let _ = told.send(Ok(()));
                runtime.block_on(work());
            }
            Err(error) => drop(told.send(Err(error))),
        }
    });
    heard.recv_timeout(Duration::from_secs(10)).context("stand in a network")?
}
