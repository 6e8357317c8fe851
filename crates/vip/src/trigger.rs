//! The right to addresses as etcd tells it: for `baton vip` beside an agent that holds none itself, Patroni's or ours.
//!
//! ```text
//!   watch: who leads, does it accept writes ──► ours? ──► how long does its lease still live? (asked again and again) ──► right
//! ```
//! An answer counts from the moment the question was sent, and only with the proof that the key is still ours (`etcd/src/lease.rs`). Between two answers the right ends with the last answer. A lead that is given up ends it at once, as far as this process runs; if
//! it hangs, the address stays until its lifetime ends. Inside the agent, which gives the address up before the lead, there is no such gap.

use crate::address::Role;
use crate::claims::Claims;
use crate::hold::Right;
use crate::holder::Rights;
use etcd::{Etcd, Snapshot, View};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use types::{LeaseId, Moment, NodeName, PostgresState, Term};

/// The lease is looked at this often.
const PERIOD: Duration = Duration::from_millis(500);
/// An answer that takes longer is no use.
const PATIENCE: Duration = Duration::from_secs(2);

/// Follows the leader key, and with `claims` what belongs to no leader.
pub struct Trigger {
    claims: Claims,
    right: Arc<Mutex<Option<Right>>>,
    known: Arc<AtomicBool>,
    changed: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Trigger {
    /// Starts to follow; `me` is the member whose lead counts.
    #[must_use]
    pub fn follow(etcd: Etcd, view: watch::Receiver<View>, me: NodeName, claims: Claims) -> Trigger {
        let right = Arc::new(Mutex::new(None));
        let changed = Arc::new(Notify::new());
        let known = Arc::new(AtomicBool::new(false));
        let following =
            Following { etcd, me, right: right.clone(), known: known.clone(), changed: changed.clone() };
        Trigger { claims, right, known, changed, task: tokio::spawn(following.run(view)) }
    }

    /// Waits until the right came or went since the last wait.
    pub async fn changed(&self) {
        tokio::select! {
            () = self.changed.notified() => {}
            () = self.claims.changed() => {}
        }
    }

    /// Gives the claims back; the addresses must be gone.
    pub async fn end(&self) {
        self.claims.end().await;
    }
}

impl Rights for Trigger {
    fn right(&self, role: Role, ip: IpAddr) -> Option<Right> {
        match role {
            Role::Primary => *self.right.lock().unwrap_or_else(PoisonError::into_inner),
            Role::Replica | Role::Sync | Role::Any => self.claims.right(ip),
        }
    }

    fn here(&self, ip: IpAddr, here: bool) {
        self.claims.here(ip, here);
    }

    fn known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }
}

impl Drop for Trigger {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Following {
    etcd: Etcd,
    me: NodeName,
    right: Arc<Mutex<Option<Right>>>,
    known: Arc<AtomicBool>,
    changed: Arc<Notify>,
}

impl Following {
    async fn run(self, mut view: watch::Receiver<View>) {
        loop {
            let snapshot = view.borrow_and_update().snapshot.clone();
            match snapshot.as_deref().map(|snapshot| lead(snapshot, &self.me)) {
                None => {}
                Some(None) => self.set(None),
                Some(Some((term, lease))) => self.prolong(term, lease).await,
            }
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    async fn prolong(&self, term: Term, lease: LeaseId) {
        match self.etcd.lead_lives_until(lease, (&self.me, term), clock::now().after(PATIENCE)).await {
            Ok(Some(until)) => self.set(Some(Right { term, until })),
            Ok(None) => self.set(None),
            // What was known stays known, and ends when it ends.
            Err(error) => tracing::debug!(%error, "failed to ask how long the leader's lease lives"),
        }
    }

    fn set(&self, right: Option<Right>) {
        let mut kept = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        let was: Option<Moment> = kept.map(|right| right.until);
        *kept = right;
        self.known.store(true, Ordering::Relaxed);
        if was != right.map(|right| right.until) {
            self.changed.notify_one();
        }
    }
}

/// The term and lease in which `me` leads and accepts writes.
fn lead(snapshot: &Snapshot, me: &NodeName) -> Option<(Term, LeaseId)> {
    let leader = snapshot.leader.as_ref().filter(|leader| leader.name == *me)?;
    let member = snapshot.members.get(me);
    let writable = match &snapshot.writable {
        // Baton's agents say it in so many words.
        Some(writable) if member.is_some_and(|member| member.baton.is_some()) => {
            writable.name == *me && writable.term == leader.term
        }
        Some(_) | None => member.is_some_and(|member| {
            member.role.known() == Some(types::Role::Primary)
                && member.state.known() == Some(PostgresState::Running)
        }),
    };
    // A key that was put without a lease never expires: no right that ends can be read from it.
    (writable && leader.lease != LeaseId(0)).then_some((leader.term, leader.lease))
}
