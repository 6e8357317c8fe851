//! Hosts on one machine that do not share a network stack: namespaces on a bridge of their own. Needs root.
//!
//! ```text
//!   <prefix>-sw   10.77.0.1, fd77::1   a bridge
//!      ├── <prefix>-h1   eth0   10.77.0.11, fd77::11
//!      ├── <prefix>-h2   eth0   10.77.0.12, fd77::12
//!      └── …
//! ```
//! Nothing of it is visible outside, and all of it goes when the network is dropped.

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A switch and the hosts on it.
#[derive(Debug)]
pub struct Network {
    pub switch: Host,
    pub hosts: Vec<Host>,
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
    /// A network with so many hosts.
    pub fn create(count: u8) -> Result<Network> {
        let prefix = format!("baton-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let host = |name: String, number: u8| Host {
            name,
            v4: Ipv4Addr::new(10, 77, 0, number),
            v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number)),
        };
        let network = Network {
            switch: host(format!("{prefix}-sw"), 1),
            hosts: (1..=count).map(|at| host(format!("{prefix}-h{at}"), 10 + at)).collect(),
        };
        // From here on a failure drops the network, which removes what is there already.
        let switch = &network.switch;
        switch.create()?;
        switch.ip(&["link", "add", "br0", "type", "bridge"])?;
        switch.address("br0")?;
        for (at, host) in network.hosts.iter().enumerate() {
            let port = format!("p{at}");
            host.create()?;
            host.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &switch.name])?;
            switch.ip(&["link", "set", &port, "master", "br0", "up"])?;
            host.address("eth0")?;
        }
        Ok(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in self.hosts.iter().chain([&self.switch]) {
            host.remove();
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
