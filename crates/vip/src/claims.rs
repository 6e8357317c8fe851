//! The claims of this member on addresses, in etcd: rights to those that are not the primary's, and word of all that it has.
//!
//! ```text
//!   view ──► elect (pure) ──► key of the address, on a lease of this program's own ──► right, until a second before the lease ends
//!   holder: it is here, it is gone ──┘
//! ```
//! While etcd is away no lease is renewed, so these addresses go; those of the primary, which do not rest on it, stay.

use crate::address::Role;
use crate::elect::{Turn, turn};
use crate::hold::Right;
use etcd::{AddressHolder, Etcd, Renewed, Snapshot, View};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use types::{LeaseId, Moment, NodeName};

/// How long a claim outlives its member.
const TTL_SECONDS: u32 = 10;
/// The pause between renewals.
const RENEW: Duration = Duration::from_secs(2);
/// A right ends this long before its lease.
const MARGIN: Duration = Duration::from_secs(1);
/// What is left of a right when its renewal is on time, at the least.
pub const LEAST_CLAIM: Duration =
    Duration::from_secs(TTL_SECONDS as u64).saturating_sub(MARGIN).saturating_sub(RENEW);
/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Keeps them.
pub struct Claims {
    inner: Arc<Inner>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    me: NodeName,
    wanted: Vec<(IpAddr, Role)>,
    state: Mutex<State>,
    /// Wakes the task.
    news: Notify,
    /// Tells whoever holds addresses that rights have changed.
    changed: Notify,
    end: CancellationToken,
}

#[derive(Default)]
struct State {
    rights: BTreeMap<IpAddr, Right>,
    here: BTreeSet<IpAddr>,
}

impl Claims {
    /// Starts to claim, for the member `me`.
    #[must_use]
    pub fn follow(
        etcd: Etcd,
        view: watch::Receiver<View>,
        me: NodeName,
        wanted: Vec<(IpAddr, Role)>,
    ) -> Claims {
        let inner = Arc::new(Inner {
            me,
            wanted,
            state: Mutex::default(),
            news: Notify::new(),
            changed: Notify::new(),
            end: CancellationToken::new(),
        });
        let claiming = Claiming { etcd, inner: inner.clone(), lease: None, quiet: BTreeSet::new() };
        Claims { inner, task: Mutex::new(Some(tokio::spawn(claiming.run(view)))) }
    }

    /// The right to an address, if there is a claim.
    #[must_use]
    pub fn right(&self, ip: IpAddr) -> Option<Right> {
        self.inner.state().rights.get(&ip).copied()
    }

    /// The address came to this host, or is gone.
    pub fn here(&self, ip: IpAddr, here: bool) {
        let mut state = self.inner.state();
        let news = if here { state.here.insert(ip) } else { state.here.remove(&ip) };
        drop(state);
        if news {
            self.inner.news.notify_one();
        }
    }

    /// Waits until a right came or went since the last wait.
    pub async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    /// Ends all rights.
    pub fn withdraw(&self) {
        self.inner.end.cancel();
        self.inner.state().rights.clear();
    }

    /// Gives all claims back; the addresses must be gone.
    pub async fn end(&self) {
        self.withdraw();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = tokio::time::timeout(PATIENCE, task).await;
        }
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        task.iter().for_each(JoinHandle::abort);
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, ip: IpAddr, right: Option<Right>) {
        let mut state = self.state();
        if self.end.is_cancelled() {
            return;
        }
        let before = match right {
            Some(right) => state.rights.insert(ip, right),
            None => state.rights.remove(&ip),
        };
        if before != right {
            self.changed.notify_one();
        }
    }
}

struct Lease {
    id: LeaseId,
    /// It lives at least until then.
    until: Moment,
    renew_at: Moment,
}

struct Claiming {
    etcd: Etcd,
    inner: Arc<Inner>,
    lease: Option<Lease>,
    /// Addresses whose claim was refused and reported.
    quiet: BTreeSet<IpAddr>,
}

impl Claiming {
    async fn run(mut self, mut view: watch::Receiver<View>) {
        while !self.inner.end.is_cancelled() {
            let snapshot = view.borrow_and_update().snapshot.clone();
            if let Some(snapshot) = snapshot {
                self.renew().await;
                self.look(&snapshot).await;
            }
            tokio::select! {
                changed = view.changed() => if changed.is_err() { break },
                () = self.inner.news.notified() => {}
                () = tokio::time::sleep(RENEW) => {}
                () = self.inner.end.cancelled() => {}
            }
        }
        if let Some(lease) = &self.lease {
            // What is left of it ends with its time to live.
            let _: Result<(), etcd::Error> = self.etcd.revoke(lease.id, clock::now().after(PATIENCE)).await;
        }
    }

    async fn renew(&mut self) {
        let now = clock::now();
        let by = now.after(PATIENCE);
        let kept = match &self.lease {
            Some(lease) if now < lease.renew_at => return,
            Some(lease) => self.etcd.renew(lease.id, None, by).await.map(|renewed| (lease.id, renewed)),
            None => self.etcd.grant(TTL_SECONDS, by).await.map(|granted| {
                let etcd::Granted { lease, ttl_seconds, sent } = granted;
                (lease, Renewed::Kept { ttl_seconds, sent })
            }),
        };
        match kept {
            Ok((id, Renewed::Kept { ttl_seconds, sent })) => {
                let lives = Duration::from_secs(u64::from(ttl_seconds)).saturating_sub(MARGIN);
                self.lease = Some(Lease { id, until: sent.after(lives), renew_at: sent.after(RENEW) });
            }
            Ok((_, Renewed::Gone | Renewed::LeadLost)) => self.lease = None,
            // What was known stays known, and ends when it ends.
            Err(error) => tracing::debug!(%error, "failed to renew the claims on virtual addresses"),
        }
    }

    async fn look(&mut self, snapshot: &Snapshot) {
        for (ip, role) in self.inner.wanted.clone() {
            let here = self.inner.state().here.contains(&ip);
            let lease = self.lease.as_ref().map(|lease| lease.id);
            let turn = turn(snapshot, &self.inner.me, lease, &ip.to_string(), role, here);
            let right = match (&turn, &self.lease) {
                (Turn::Hold { term }, Some(lease)) => Some(Right { term: *term, until: lease.until }),
                _ => None,
            };
            if role != Role::Primary {
                self.inner.set(ip, right);
            }
            self.write(ip, role, lease, turn).await;
        }
    }

    async fn write(&mut self, ip: IpAddr, role: Role, lease: Option<LeaseId>, turn: Turn) {
        let (text, by) = (ip.to_string(), clock::now().after(PATIENCE));
        let own = AddressHolder::new(self.inner.me.clone(), &role.to_string());
        let written = match (turn, lease) {
            (Turn::Claim, Some(lease)) => self.etcd.claim_address(&text, &own, lease, by).await,
            (Turn::Tell, Some(lease)) => self.etcd.tell_address(&text, &own, lease, by).await,
            (Turn::Leave(holder), _) => self.etcd.leave_address(&text, &holder, by).await,
            (Turn::Hold { .. } | Turn::Rest | Turn::Claim | Turn::Tell, _) => return,
        };
        match written {
            Ok(()) => drop(self.quiet.remove(&ip)),
            // Somebody was faster, or etcd is away: the next look shows it.
            Err(error @ etcd::Error::Refused { .. }) if self.quiet.insert(ip) => {
                tracing::error!(
                    address = text,
                    "failed to {error}; allow this user to write below baton/vip/"
                );
            }
            Err(error) => tracing::debug!(address = text, %error, "failed to write who has the address"),
        }
    }
}
