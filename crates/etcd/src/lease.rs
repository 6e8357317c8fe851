//! The lease: granted, renewed, revoked.
//!
//! A renewal of the lead counts only in this order, at one endpoint:
//!
//! ```text
//!   keep-alive answered at raft term T  ──▶  linearizable read of the leader key, at the same raft term T
//! ```
//!
//! An etcd leader that was deposed and does not know it yet still answers keep-alives by itself, while its successor
//! lets the lease expire. A linearizable read needs a majority that still follows the leader of term T. When one
//! succeeds *after* the keep-alive and in the same term, that leader had not been deposed when it renewed the lease.
//!
//! Claims on virtual addresses are proven in the same way, by a read of the keys that hang on the lease. Somebody else's lease is only
//! asked about, and its answer has no header of before: it is put between two such reads of one term.

use crate::Etcd;
use crate::endpoints::{Connection, lock};
use crate::error::Error;
use crate::failure::{Failure, Kind};
use crate::rounds::Turn;
use crate::snapshot::Limits;
use etcd_client::{GetOptions, GetResponse, LeaseKeepAliveStream, LeaseKeeper};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use types::{LeaseId, Moment, NodeName, Term};

/// So many leases are kept on one connection, each on a stream of its own: that of the lead, and that of claims.
const KEEPERS: usize = 4;

/// A new lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granted {
    pub lease: LeaseId,
    /// As granted: etcd raises what is below its own minimum.
    pub ttl_seconds: u32,
    /// Right before the request was sent: the lease lives at least `ttl_seconds` from here.
    pub sent: Moment,
}

/// What became of a renewal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Renewed {
    /// The lease lives at least `ttl_seconds` from `sent`, which is right before the request that succeeded was sent.
    Kept { ttl_seconds: u32, sent: Moment },
    /// The lease has expired or was revoked.
    Gone,
    /// The lease lives, but the leader key is not ours with that term and lease.
    LeadLost,
}

/// What became of the renewal of a lease on which claims hang.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Claimed {
    /// These addresses are claimed on the lease, each in its term, and the lease lives at least `ttl_seconds` from `sent`.
    Kept {
        ttl_seconds: u32,
        sent: Moment,
        addresses: BTreeMap<String, Term>,
    },
    Gone,
}

/// The stream on which one lease is renewed.
pub(crate) struct Keeper {
    lease: LeaseId,
    sender: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

/// The outcome of one attempt to renew.
enum Beat<T> {
    Final(T),
    /// No such lease, says this endpoint. One that was granted a moment ago may not have arrived there.
    NoLease,
    /// The raft term changed in between: nothing is proven.
    TermChanged,
}

/// A keep-alive that was answered, by an endpoint that was at this raft term when it was asked.
struct KeptAlive {
    ttl_seconds: u32,
    sent: Moment,
    raft_term: u64,
}

impl Etcd {
    /// Grants a lease.
    ///
    /// Repeated at the next endpoint when an answer is lost: a lease that nobody knows of holds no keys and expires.
    pub async fn grant(&self, ttl_seconds: u32, by: Moment) -> Result<Granted, Error> {
        let mut rounds = self.endpoints().rounds(by);
        while let Some(turn) = rounds.next().await {
            let attempt = self.endpoints().attempt(&turn, |connection| async move {
                let sent = clock::now();
                let answer = connection.client.lease_client().grant(i64::from(ttl_seconds), None).await?;
                self.endpoints().confirm(answer.header(), &turn)?;
                if answer.id() == 0 {
                    return Err(Failure::new(
                        Kind::Protocol,
                        format!("no lease was granted: {}", answer.error()),
                    ));
                }
                Ok(Granted { lease: LeaseId(answer.id()), ttl_seconds: seconds(answer.ttl()), sent })
            });
            match attempt.await {
                Ok(granted) => return Ok(granted),
                Err(failure) => rounds.failed(&turn, failure)?,
            }
        }
        Err(rounds.unreachable())
    }

    /// Renews the lease; with `holding`, proves as well that the lead of that term is still this member's.
    pub async fn renew(
        &self,
        lease: LeaseId,
        holding: Option<(&NodeName, Term)>,
        by: Moment,
    ) -> Result<Renewed, Error> {
        let renewed = self
            .proven(by, |turn, connection| async move { self.beat(turn, &connection, lease, holding).await });
        Ok(renewed.await?.unwrap_or(Renewed::Gone))
    }

    /// Renews the lease, and proves which claims on virtual addresses hang on it.
    pub async fn renew_claims(&self, lease: LeaseId, by: Moment) -> Result<Claimed, Error> {
        let renewed = self
            .proven(by, |turn, connection| async move { self.beat_claims(turn, &connection, lease).await });
        Ok(renewed.await?.unwrap_or(Claimed::Gone))
    }

    /// How long the lease of the leader lives on: the moment it lives until at least. `None` when it has ended, or the leader key is not
    /// this member's with that term and lease.
    pub async fn lead_lives_until(
        &self,
        lease: LeaseId,
        holding: (&NodeName, Term),
        by: Moment,
    ) -> Result<Option<Moment>, Error> {
        let asked = self
            .proven(by, |turn, connection| async move { self.ask(turn, &connection, lease, holding).await });
        Ok(asked.await?.flatten())
    }

    /// Tries until something is proven; `None` when the lease is gone.
    async fn proven<T, F>(
        &self,
        by: Moment,
        attempt: impl Fn(Turn, Arc<Connection>) -> F,
    ) -> Result<Option<T>, Error>
    where
        F: Future<Output = Result<Beat<T>, Failure>>,
    {
        let mut rounds = self.endpoints().rounds(by);
        let mut denials = 0;
        while let Some(turn) = rounds.next().await {
            match self.endpoints().attempt(&turn, |connection| attempt(turn, connection)).await {
                Ok(Beat::Final(proven)) => return Ok(Some(proven)),
                Ok(Beat::NoLease) if denials > 0 => return Ok(None),
                Ok(Beat::NoLease) => {
                    denials += 1;
                    rounds.again(&turn);
                }
                Ok(Beat::TermChanged) => rounds.again(&turn),
                Err(failure) if failure.kind == Kind::LeaseGone => return Ok(None),
                Err(failure) => rounds.failed(&turn, failure)?,
            }
        }
        Err(rounds.unreachable())
    }

    /// Ends the lease, and with it every key attached. One that is gone already is no error.
    pub async fn revoke(&self, lease: LeaseId, by: Moment) -> Result<(), Error> {
        let mut rounds = self.endpoints().rounds(by);
        while let Some(turn) = rounds.next().await {
            let attempt = self.endpoints().attempt(&turn, |connection| async move {
                let answer = connection.client.lease_client().revoke(lease.0).await?;
                self.endpoints().confirm(answer.header(), &turn).map(drop)
            });
            match attempt.await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.kind == Kind::LeaseGone => return Ok(()),
                Err(failure) => rounds.failed(&turn, failure)?,
            }
        }
        Err(rounds.unreachable())
    }

    async fn beat(
        &self,
        turn: Turn,
        connection: &Connection,
        lease: LeaseId,
        holding: Option<(&NodeName, Term)>,
    ) -> Result<Beat<Renewed>, Failure> {
        let Some(KeptAlive { ttl_seconds, sent, raft_term }) =
            self.keep_alive(turn, connection, lease).await?
        else {
            return Ok(Beat::NoLease);
        };
        let kept = Renewed::Kept { ttl_seconds, sent };
        let Some(holding) = holding else { return Ok(Beat::Final(kept)) };
        let read = connection.client.kv_client().get(self.keys().leader(), None).await?;
        let confirmed = self.endpoints().confirm(read.header(), &turn)?;
        Ok(if !leads(&read, lease, holding) {
            Beat::Final(Renewed::LeadLost)
        } else if confirmed.raft_term != raft_term {
            Beat::TermChanged
        } else {
            Beat::Final(kept)
        })
    }

    async fn beat_claims(
        &self,
        turn: Turn,
        connection: &Connection,
        lease: LeaseId,
    ) -> Result<Beat<Claimed>, Failure> {
        let Some(KeptAlive { ttl_seconds, sent, raft_term }) =
            self.keep_alive(turn, connection, lease).await?
        else {
            return Ok(Beat::NoLease);
        };
        let prefix = self.keys().baton_address("");
        let options = GetOptions::new().with_prefix().with_limit(Limits::ADDRESSES as i64);
        let read = connection.client.kv_client().get(prefix.as_str(), Some(options)).await?;
        if self.endpoints().confirm(read.header(), &turn)?.raft_term != raft_term {
            return Ok(Beat::TermChanged);
        }
        let ours = read.kvs().iter().filter(|kv| kv.lease() == lease.0);
        let addresses = ours.filter_map(|kv| {
            let ip = std::str::from_utf8(kv.key()).ok()?.strip_prefix(&prefix)?;
            Some((ip.to_owned(), Term(kv.create_revision())))
        });
        Ok(Beat::Final(Claimed::Kept { ttl_seconds, sent, addresses: addresses.collect() }))
    }

    /// Asks about the leader's lease between two reads of one raft term: the answer shows the term that its endpoint had afterwards, and
    /// it may have come from the leader of the term before.
    async fn ask(
        &self,
        turn: Turn,
        connection: &Connection,
        lease: LeaseId,
        holding: (&NodeName, Term),
    ) -> Result<Beat<Option<Moment>>, Failure> {
        let read = || async {
            let read = connection.client.kv_client().get(self.keys().leader(), None).await?;
            let confirmed = self.endpoints().confirm(read.header(), &turn)?;
            Ok::<_, Failure>((confirmed.raft_term, leads(&read, lease, holding)))
        };
        let (before, _) = read().await?;
        let sent = clock::now();
        let answer = connection.client.lease_client().time_to_live(lease.0, None).await?;
        let (after, leads) = read().await?;
        if before != after {
            return Ok(Beat::TermChanged);
        }
        // Whole seconds, rounded down; -1 for a lease that has ended.
        let rest = u64::try_from(answer.ttl()).ok().filter(|_| leads);
        Ok(Beat::Final(rest.map(|rest| sent.after(Duration::from_secs(rest)))))
    }

    /// One keep-alive; `None` when there is no such lease. The raft term is that of before the endpoint passed it on.
    async fn keep_alive(
        &self,
        turn: Turn,
        connection: &Connection,
        lease: LeaseId,
    ) -> Result<Option<KeptAlive>, Failure> {
        // Taken out for as long as it is in use: a call that is dropped half-way takes the stream along, so that the
        // late answer to an old request is never read as the answer to a newer one.
        let kept = {
            let mut keepers = lock(&connection.keepers);
            keepers.iter().position(|keeper| keeper.lease == lease).map(|at| keepers.remove(at))
        };
        let mut keeper = match kept {
            Some(keeper) => keeper,
            None => match connection.client.lease_client().keep_alive(lease.0).await {
                // The library eats the first answer, and with it the raft term: the renewal that counts comes next.
                Ok((sender, answers)) => Keeper { lease, sender, answers },
                Err(etcd_client::Error::LeaseKeepAliveError(why)) if why == "lease not found" => {
                    return self.denied(turn, connection, lease).await.map(|()| None);
                }
                Err(error) => return Err(error.into()),
            },
        };
        let sent = clock::now();
        keeper.sender.keep_alive().await?;
        let ended = || Failure::new(Kind::Lost, "the keep-alive stream ended");
        let answer = keeper.answers.message().await?.ok_or_else(ended)?;
        if answer.id() != lease.0 {
            return Err(Failure::new(Kind::Lost, "the answer is for another lease"));
        }
        if answer.ttl() <= 0 {
            return self.denied(turn, connection, lease).await.map(|()| None);
        }
        let header =
            answer.header().ok_or_else(|| Failure::new(Kind::Protocol, "the answer has no header"))?;
        let raft_term = header.raft_term();
        let mut keepers = lock(&connection.keepers);
        keepers.truncate(KEEPERS - 1);
        keepers.insert(0, keeper);
        Ok(Some(KeptAlive { ttl_seconds: seconds(answer.ttl()), sent, raft_term }))
    }

    /// An endpoint does not know the lease. A linearizable read brings it up to date and shows whether the leader key
    /// hangs on that very lease, which is then alive.
    async fn denied(&self, turn: Turn, connection: &Connection, lease: LeaseId) -> Result<(), Failure> {
        let read = connection.client.kv_client().get(self.keys().leader(), None).await?;
        self.endpoints().confirm(read.header(), &turn)?;
        if read.kvs().iter().any(|kv| kv.lease() == lease.0) {
            return Err(Failure::new(Kind::NotServed, "this member does not know a lease that is in use"));
        }
        Ok(())
    }
}

/// Whether the leader key that was read is this member's, of that term and on that lease.
fn leads(read: &GetResponse, lease: LeaseId, (me, term): (&NodeName, Term)) -> bool {
    read.kvs().first().is_some_and(|kv| {
        kv.create_revision() == term.0 && kv.value() == me.as_str().as_bytes() && kv.lease() == lease.0
    })
}

fn seconds(ttl: i64) -> u32 {
    u32::try_from(ttl).unwrap_or(if ttl < 0 { 0 } else { u32::MAX })
}
