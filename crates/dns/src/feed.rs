//! From the view of etcd to everything that tells the names.

use crate::facts::Facts;
use crate::hosts;
use crate::metrics;
use crate::server::{Counts, Current, Sockets, serve_tcp};
use crate::udp;
use crate::update::{self, Plan, Record, Sent, Target, plan};
use crate::zone::{Origin, Zone, unresolved};
use etcd::View;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use types::Moment;

/// Names of hosts are looked up again after this long.
const FRESH: Duration = Duration::from_secs(30);
const LOOKUP: Duration = Duration::from_secs(2);
/// An update that failed is tried again after this long, and what stands there is looked at this often.
const AGAIN: Duration = Duration::from_secs(2);
const CHECK: Duration = Duration::from_secs(60);

/// What to tell, and where.
pub struct Config {
    pub origin: Origin,
    pub listen: Vec<SocketAddr>,
    pub hosts_file: Option<PathBuf>,
    /// Replicas further behind, in bytes, are not among `replica.`
    pub max_lag: Option<u64>,
    pub updates: Vec<Target>,
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "listen for DNS on {address}: {why}; port 53 needs CAP_NET_BIND_SERVICE, and another server may have it"
    )]
    Listen { address: SocketAddr, why: std::io::Error },
}

/// The names, being told. Dropping it ends that.
pub struct Dns {
    counts: Arc<Counts>,
    zone: Current,
    /// Where it listens.
    pub listens: Vec<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

impl Dns {
    /// Starts to tell.
    pub async fn start(config: Config, view: watch::Receiver<View>) -> Result<Dns, Error> {
        let (sender, zone) = watch::channel(None);
        let counts = Arc::new(Counts::default());
        let (mut tasks, mut listens) = (Vec::new(), Vec::new());
        for address in &config.listen {
            let failed = |why| Error::Listen { address: *address, why };
            let Sockets { udp, tcp } = Sockets::bind(*address).await.map_err(failed)?;
            listens.push(tcp.local_addr().map_err(failed)?);
            tasks.push(tokio::spawn(udp::serve(udp, zone.clone(), counts.clone())));
            tasks.push(tokio::spawn(serve_tcp(tcp, zone.clone(), counts.clone())));
        }
        if let Some(path) = config.hosts_file {
            tasks.push(tokio::spawn(keep_file(path, zone.clone(), counts.clone())));
        }
        for target in config.updates {
            tasks.push(tokio::spawn(keep_told(target, zone.clone(), counts.clone())));
        }
        let feed = Feed { origin: config.origin, max_lag: config.max_lag, sender, known: BTreeMap::new() };
        tasks.push(tokio::spawn(feed.run(view)));
        Ok(Dns { counts, zone, listens, tasks })
    }

    /// Whether there is anything to tell: etcd was read.
    #[must_use]
    pub fn known(&self) -> bool {
        self.zone.borrow().is_some()
    }

    /// For Prometheus; `labels` are those that every value has.
    #[must_use]
    pub fn metrics(&self, labels: &str) -> String {
        let zone = self.zone.borrow().clone();
        metrics::metrics(&self.counts, zone.as_deref(), labels)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

struct Feed {
    origin: Origin,
    max_lag: Option<u64>,
    sender: watch::Sender<Option<Arc<Zone>>>,
    /// Hosts that are names: their addresses, and when they were asked for.
    known: BTreeMap<String, (Vec<IpAddr>, Moment)>,
}

impl Feed {
    async fn run(mut self, mut view: watch::Receiver<View>) {
        loop {
            let snapshot = view.borrow_and_update().snapshot.clone();
            if let Some(snapshot) = snapshot {
                let facts = Facts::of(&snapshot, self.max_lag);
                // First with what is known: an answer never waits for another server.
                self.publish(&facts);
                if self.look_up(&facts).await {
                    self.publish(&facts);
                }
            }
            let named = !self.known.is_empty();
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(FRESH), if named => {}
            }
        }
    }

    fn publish(&self, facts: &Facts) {
        let resolved = self.known.iter().map(|(host, (ips, _))| (host.clone(), ips.clone())).collect();
        let zone = Zone::of(&self.origin, facts, &resolved);
        self.sender.send_if_modified(|current| {
            let before = current.as_ref().map(|zone| (zone.primary.clone(), &zone.entries));
            if before == Some((zone.primary.clone(), &zone.entries)) {
                return false;
            }
            let primary = zone.primary.as_ref().map_or("none", |(name, _)| name.as_str());
            tracing::info!(zone = %zone.origin.name, serial = zone.serial, primary, "the names have changed");
            *current = Some(Arc::new(zone));
            true
        });
    }

    /// Whether anything came of it. A host that is not found keeps the addresses it had.
    async fn look_up(&mut self, facts: &Facts) -> bool {
        let wanted = unresolved(facts);
        self.known.retain(|host, _| wanted.contains(host));
        let mut news = false;
        for host in wanted {
            let now = clock::now();
            if self.known.get(&host).is_some_and(|(_, asked)| now.since(*asked) < FRESH) {
                continue;
            }
            let found: Vec<IpAddr> = match timeout(LOOKUP, lookup_host((host.as_str(), 0))).await {
                Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
                Ok(Err(error)) => {
                    tracing::warn!(
                        host,
                        "failed to look up the address of a member's host: {error}; its name has no new address"
                    );
                    Vec::new()
                }
                Err(_) => {
                    tracing::warn!(
                        host,
                        "failed to look up the address of a member's host within {LOOKUP:?}; its name has no new address"
                    );
                    Vec::new()
                }
            };
            let entry = self.known.entry(host).or_insert((Vec::new(), now));
            entry.1 = now;
            if !found.is_empty() && entry.0 != found {
                entry.0 = found;
                news = true;
            }
        }
        news
    }
}

/// Keeps the hosts file.
async fn keep_file(path: PathBuf, mut zone: Current, counts: Arc<Counts>) {
    let mut complained = false;
    loop {
        let now = zone.borrow_and_update().clone();
        let mut failed = false;
        if let Some(now) = now {
            let (text, file) = (hosts::text(&now), path.clone());
            let written = tokio::task::spawn_blocking(move || hosts::write(&file, &text)).await;
            let error = match written {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            failed = error.is_some();
            counts.file_failures.fetch_add(u64::from(failed), Ordering::Relaxed);
            if let Some(error) = error
                && !complained
            {
                tracing::error!(
                    file = %path.display(),
                    "failed to write the hosts file: {error}; let this user write into its directory"
                );
            }
            complained = failed;
        }
        tokio::select! {
            changed = zone.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN), if failed => {}
        }
    }
}

/// Keeps a name on another server. Without a primary it says what it said: the next term replaces it.
async fn keep_told(target: Target, mut zone: Current, counts: Arc<Counts>) {
    let mut complained = None;
    loop {
        let now = zone.borrow_and_update().clone();
        let wanted = now.as_ref().and_then(|zone| zone.primary()).map(|(ips, _, term)| Record { term, ips });
        let mut pause = CHECK;
        if let Some(wanted) = wanted {
            match tell(&target, &wanted, &counts).await {
                Ok(Sent::Done) => complained = None,
                Ok(Sent::Overtaken) => pause = Duration::from_millis(100),
                Err(error) => {
                    pause = AGAIN;
                    counts.update_failures.fetch_add(1, Ordering::Relaxed);
                    let text = error.to_string();
                    if complained.as_ref() != Some(&text) {
                        tracing::error!(server = target.server, "failed to {text}");
                        complained = Some(text);
                    }
                }
            }
        }
        tokio::select! {
            changed = zone.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn tell(target: &Target, wanted: &Record, counts: &Counts) -> Result<Sent, update::UpdateError> {
    let before = update::current(target).await?;
    match plan(before.as_deref(), wanted) {
        Plan::Done => Ok(Sent::Done),
        Plan::Newer(term) => {
            tracing::debug!(server = target.server, term, "the name is of a later term already");
            Ok(Sent::Done)
        }
        Plan::Send => {
            let sent = update::send(target, wanted, before.as_deref()).await?;
            if sent == Sent::Done {
                counts.updates.fetch_add(1, Ordering::Relaxed);
                tracing::info!(server = target.server, term = wanted.term, "updated the name of the primary");
            }
            Ok(sent)
        }
    }
}
