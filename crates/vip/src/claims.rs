//! The claims of this member on addresses, in etcd: rights to those that are not the primary's, and word of all that it has.
//!
//! ```text
//!   view ──► elect (pure) ──► key of the address, on a lease of this program's own ──► renewal that shows the key on the lease, proven
//!   holder: it is here, it is gone ──┘                                                    ──► right, until a second before the lease ends
//! ```
//! The view alone gives no right: it may be old. What counts is the answer to a renewal, from the moment it was sent. While etcd is away no lease is renewed, so these addresses go; those of the primary, which do not rest on it, stay.

use crate::address::Role;
use crate::elect::{Turn, turn};
use crate::hold::Right;
use etcd::{AddressHolder, AddressRow, Claimed, Etcd, Snapshot, View};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use types::{LeaseId, Moment, NodeName, Term};

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
/// While etcd is away, so many comings and goings are kept to be written down later; then the oldest are forgotten.
const UNTOLD: usize = 100;

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
    /// How often each address is here: on an interface, and by a command.
    here: BTreeMap<IpAddr, u8>,
    /// No right is given any more.
    closed: bool,
    /// Comings and goings that are not written down yet.
    news: Vec<Move>,
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
        let claiming =
            Claiming { etcd, inner: inner.clone(), lease: None, quiet: BTreeSet::new(), told: true };
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
        let count = state.here.entry(ip).or_default();
        let before = *count;
        *count = if here { before.saturating_add(1) } else { before.saturating_sub(1) };
        if (before == 0) != (*count == 0) {
            let dropped = state.news.len().saturating_sub(UNTOLD - 1);
            state.news.drain(..dropped);
            state.news.push(Move { ip, here, at: now_as_text() });
        }
        drop(state);
        self.inner.news.notify_one();
    }

    /// Waits until a right came or went since the last wait.
    pub async fn changed(&self) {
        self.inner.changed.notified().await;
    }

    /// Ends all rights. The claims stay until [`Claims::end`]: the addresses are still here.
    pub fn withdraw(&self) {
        let mut state = self.inner.state();
        state.closed = true;
        state.rights.clear();
    }

    /// Gives all claims back; the addresses must be gone.
    pub async fn end(&self) {
        self.withdraw();
        self.inner.end.cancel();
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
        if state.closed {
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

/// An address came to this host, or left it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Move {
    ip: IpAddr,
    here: bool,
    at: String,
}

impl Move {
    /// Enters it into the list of stays.
    fn enter(&self, me: &NodeName, role: Option<Role>, rows: &mut Vec<AddressRow>) {
        let address = self.ip.to_string();
        if self.here {
            let role = role.map(|role| role.to_string()).unwrap_or_default();
            rows.push(AddressRow { address, role, member: me.clone(), from: self.at.clone(), to: None });
            return;
        }
        let open = rows.iter_mut().rev().find(|row| row.address == address && row.member == *me);
        if let Some(row) = open.filter(|row| row.to.is_none()) {
            row.to = Some(self.at.clone());
        }
    }
}

fn now_as_text() -> String {
    let now = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
    format!("{now:.3}")
}

struct Lease {
    id: LeaseId,
    /// It lives at least until then.
    until: Moment,
    renew_at: Moment,
    /// The claims that hung on it then, with the terms in which they were made.
    proven: BTreeMap<String, Term>,
}

struct Claiming {
    etcd: Etcd,
    inner: Arc<Inner>,
    lease: Option<Lease>,
    /// Addresses whose claim was refused and reported.
    quiet: BTreeSet<IpAddr>,
    /// That nothing can be written down was not reported since it last could.
    told: bool,
}

impl Claiming {
    async fn run(mut self, mut view: watch::Receiver<View>) {
        while !self.inner.end.is_cancelled() {
            let snapshot = view.borrow_and_update().snapshot.clone();
            if let Some(snapshot) = snapshot {
                self.renew().await;
                self.look(&snapshot).await;
                self.write_down(&snapshot).await;
            }
            tokio::select! {
                changed = view.changed() => if changed.is_err() { break },
                () = self.inner.news.notified() => {}
                () = tokio::time::sleep(RENEW) => {}
                () = self.inner.end.cancelled() => {}
            }
        }
        self.write_down_the_rest().await;
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
            Some(lease) => self.etcd.renew_claims(lease.id, by).await.map(|renewed| (lease.id, renewed)),
            None => self.etcd.grant(TTL_SECONDS, by).await.map(|granted| {
                let etcd::Granted { lease, ttl_seconds, sent } = granted;
                (lease, Claimed::Kept { ttl_seconds, sent, addresses: BTreeMap::new() })
            }),
        };
        match kept {
            Ok((id, Claimed::Kept { ttl_seconds, sent, addresses: proven })) => {
                let lives = Duration::from_secs(u64::from(ttl_seconds)).saturating_sub(MARGIN);
                self.lease =
                    Some(Lease { id, until: sent.after(lives), renew_at: sent.after(RENEW), proven });
            }
            Ok((_, Claimed::Gone)) => self.lease = None,
            // What was known stays known, and ends when it ends.
            Err(error) => tracing::debug!(%error, "failed to renew the claims on virtual addresses"),
        }
    }

    async fn look(&mut self, snapshot: &Snapshot) {
        for (ip, role) in self.inner.wanted.clone() {
            let (here, closed) = {
                let state = self.inner.state();
                (state.here.get(&ip).is_some_and(|count| *count > 0), state.closed)
            };
            if closed {
                return;
            }
            let lease = self.lease.as_ref().map(|lease| lease.id);
            let turn = turn(snapshot, &self.inner.me, lease, &ip.to_string(), role, here);
            if let (Turn::Hold { term }, Some(lease)) = (&turn, &mut self.lease)
                && lease.proven.get(&ip.to_string()) != Some(term)
            {
                // Claimed a moment ago, or not any more: the next renewal shows which.
                lease.renew_at = clock::now();
                self.renew().await;
            }
            if role != Role::Primary {
                self.inner.set(ip, self.right(ip, &turn));
            }
            let lease = self.lease.as_ref().map(|lease| lease.id);
            self.write(ip, role, lease, turn).await;
        }
    }

    fn right(&self, ip: IpAddr, turn: &Turn) -> Option<Right> {
        let (Turn::Hold { term }, Some(lease)) = (turn, &self.lease) else { return None };
        let proven = lease.proven.get(&ip.to_string()) == Some(term);
        proven.then_some(Right { term: *term, until: lease.until })
    }

    /// At the end there is no next look: what another member wrote in between is read at once.
    async fn write_down_the_rest(&mut self) {
        for _ in 0..3 {
            if self.inner.state().news.is_empty() {
                return;
            }
            let Ok(snapshot) = self.etcd.snapshot(clock::now().after(PATIENCE)).await else { return };
            self.write_down(&snapshot).await;
        }
    }

    /// Writes down what came and went. What another member wrote in between is seen first: the next look tries again.
    async fn write_down(&mut self, snapshot: &Snapshot) {
        let moves = self.inner.state().news.clone();
        if moves.is_empty() {
            return;
        }
        let mut rows = snapshot.address_rows.clone();
        for one in &moves {
            let role = self.inner.wanted.iter().find(|(ip, _)| *ip == one.ip).map(|(_, role)| *role);
            one.enter(&self.inner.me, role, &mut rows);
        }
        match self.etcd.put_address_rows(rows, snapshot, clock::now().after(PATIENCE)).await {
            Ok(()) => {
                let mut state = self.inner.state();
                state.news.retain(|one| !moves.contains(one));
                self.told = true;
            }
            Err(error @ etcd::Error::Refused { .. }) if self.told => {
                self.told = false;
                tracing::error!(
                    "failed to {error}; allow this user to write {}",
                    self.etcd.keys().baton_address_rows()
                );
            }
            Err(error) => tracing::debug!(%error, "failed to write down who had which address"),
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

#[cfg(test)]
mod tests {
    use super::Move;
    use crate::address::Role;
    use etcd::AddressRow;
    use types::NodeName;

    #[test]
    fn a_stay_is_opened_and_closed_by_its_own_member() {
        let (a, b) = (NodeName::from("a"), NodeName::from("b"));
        let ip = "10.0.0.9".parse().unwrap();
        let mut rows: Vec<AddressRow> = Vec::new();
        let mut enter = |me: &NodeName, here: bool, at: &str| {
            Move { ip, here, at: at.to_owned() }.enter(me, Some(Role::Any), &mut rows);
        };
        enter(&a, true, "1");
        enter(&a, false, "2");
        enter(&b, true, "3");
        // Nothing of a's is open: it does not close what b has.
        enter(&a, false, "4");
        // b was killed and came back: when its first stay ended nobody knows.
        enter(&b, true, "5");
        enter(&b, false, "6");
        let told: Vec<String> = rows
            .iter()
            .map(|row| {
                format!("{} {} {}-{}", row.member, row.role, row.from, row.to.as_deref().unwrap_or("?"))
            })
            .collect();
        assert_eq!(told, ["a any 1-2", "b any 3-?", "b any 5-6"]);
    }
}
