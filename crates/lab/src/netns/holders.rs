//! Which hosts have which addresses, looked at from inside all the time, and whether two ever had one at once.
//!
//! ```text
//!   one thread: host 1 ─► host 2 ─► … ─► two have it? host 1 again: still there ─► at that look at host 2 both had it
//! ```
//! The second look matters: an address may move between two looks, and a busy machine may take long from one to the next.

use super::{Host, stand};
use crate::wait::until;
use anyhow::Result;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The rest between two rounds of looks.
const REST: Duration = Duration::from_millis(2);

/// Looks until it is dropped.
pub struct Holders {
    seen: Arc<Seen>,
}

struct Seen {
    hosts: Vec<Host>,
    ips: Vec<IpAddr>,
    /// For each host, which of the addresses it has.
    held: Mutex<Vec<Vec<bool>>>,
    rounds: AtomicUsize,
    twice: AtomicUsize,
    over: AtomicBool,
}

impl Holders {
    /// Begins to look. Needs root.
    pub fn watch(hosts: &[Host], ips: &[IpAddr]) -> Result<Holders> {
        let seen = Arc::new(Seen {
            hosts: hosts.to_vec(),
            ips: ips.to_vec(),
            held: Mutex::new(vec![vec![false; ips.len()]; hosts.len()]),
            rounds: AtomicUsize::new(0),
            twice: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let Some(first) = hosts.first() else { return Ok(Holders { seen }) };
        let looking = seen.clone();
        stand(first, async move || {
            // A host that is not there any more ends it.
            while !looking.over.load(Ordering::Relaxed) && looking.round().is_ok() {
                tokio::time::sleep(REST).await;
            }
        })?;
        Ok(Holders { seen })
    }

    /// How many of the addresses each host has.
    #[must_use]
    pub fn now(&self) -> Vec<usize> {
        let held = self.seen.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().map(|host| host.iter().filter(|here| **here).count()).collect()
    }

    /// How often it looked at all hosts, and how often two had an address at once.
    #[must_use]
    pub fn looks(&self) -> (usize, usize) {
        (self.seen.rounds.load(Ordering::Relaxed), self.seen.twice.load(Ordering::Relaxed))
    }

    /// Waits until exactly these hosts have all the addresses, and all others none.
    pub async fn at(&self, hosts: &[usize], span: Duration, what: &str) -> Result<()> {
        let all = self.seen.ips.len();
        let wanted: Vec<usize> =
            (0..self.seen.hosts.len()).map(|at| if hosts.contains(&at) { all } else { 0 }).collect();
        until(span, what, async || (self.now() == wanted).then_some(())).await
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        self.seen.over.store(true, Ordering::Relaxed);
    }
}

impl Seen {
    fn round(&self) -> Result<()> {
        let mut held = Vec::with_capacity(self.hosts.len());
        for host in &self.hosts {
            host.enter()?;
            held.push(self.ips.iter().map(|ip| Host::here(*ip)).collect::<Vec<bool>>());
        }
        for (at, ip) in self.ips.iter().enumerate() {
            let holders = self.hosts.iter().zip(&held).filter(|(_, held)| held.get(at) == Some(&true));
            let holders: Vec<&Host> = holders.map(|(host, _)| host).collect();
            let Some((_, earlier)) = holders.split_last() else { continue };
            for host in earlier {
                host.enter()?;
                self.twice.fetch_add(usize::from(Host::here(*ip)), Ordering::Relaxed);
            }
        }
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
        self.rounds.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
