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

use crate::Etcd;
use crate::endpoints::{Connection, lock};
use crate::error::Error;
use crate::failure::{Failure, Kind};
use crate::rounds::Turn;
use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};
use std::sync::Arc;
use std::time::Duration;
use types::{LeaseId, Moment, NodeName, Term};

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

/// The stream on which one lease is renewed.
pub(crate) struct Keeper {
    lease: LeaseId,
    sender: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

/// The outcome of one attempt to renew.
enum Beat {
    Final(Renewed),
    /// No such lease, says this endpoint. One that was granted a moment ago may not have arrived there.
    NoLease,
    /// The raft term changed in between: nothing is proven.
    TermChanged,
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
        let mut rounds = self.endpoints().rounds(by);
        let mut denials = 0;
        while let Some(turn) = rounds.next().await {
            let attempt =
                self.endpoints().attempt(&turn, |connection| self.beat(turn, connection, lease, holding));
            match attempt.await {
                Ok(Beat::Final(renewed)) => return Ok(renewed),
                Ok(Beat::NoLease) if denials > 0 => return Ok(Renewed::Gone),
                Ok(Beat::NoLease) => {
                    denials += 1;
                    rounds.again(&turn);
                }
                Ok(Beat::TermChanged) => rounds.again(&turn),
                Err(failure) => rounds.failed(&turn, failure)?,
            }
        }
        Err(rounds.unreachable())
    }

    /// How long somebody's lease lives on: the moment it lives until at least, if it lives.
    pub async fn lives_until(&self, lease: LeaseId, by: Moment) -> Result<Option<Moment>, Error> {
        let mut rounds = self.endpoints().rounds(by);
        while let Some(turn) = rounds.next().await {
            let attempt = self.endpoints().attempt(&turn, |connection| async move {
                let sent = clock::now();
                let answer = connection.client.lease_client().time_to_live(lease.0, None).await?;
                self.endpoints().confirm(answer.header(), &turn)?;
                // Whole seconds, rounded down; -1 for a lease that has ended.
                let rest = u64::try_from(answer.ttl()).ok();
                Ok(rest.map(|rest| sent.after(Duration::from_secs(rest))))
            });
            match attempt.await {
                Ok(until) => return Ok(until),
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
        connection: Arc<Connection>,
        lease: LeaseId,
        holding: Option<(&NodeName, Term)>,
    ) -> Result<Beat, Failure> {
        // Taken out for as long as it is in use: a call that is dropped half-way takes the stream along, so that the
        // late answer to an old request is never read as the answer to a newer one.
        let kept = lock(&connection.keeper).take().filter(|keeper| keeper.lease == lease);
        let mut keeper = match kept {
            Some(keeper) => keeper,
            None => match connection.client.lease_client().keep_alive(lease.0).await {
                // The library eats the first answer, and with it the raft term: the renewal that counts comes next.
                Ok((sender, answers)) => Keeper { lease, sender, answers },
                Err(etcd_client::Error::LeaseKeepAliveError(why)) if why == "lease not found" => {
                    return self.denied(turn, &connection, lease).await;
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
            return self.denied(turn, &connection, lease).await;
        }
        let header =
            answer.header().ok_or_else(|| Failure::new(Kind::Protocol, "the answer has no header"))?;
        let renewed_at = header.raft_term();
        *lock(&connection.keeper) = Some(keeper);
        let kept = Renewed::Kept { ttl_seconds: seconds(answer.ttl()), sent };
        let Some((me, term)) = holding else { return Ok(Beat::Final(kept)) };

        let read = connection.client.kv_client().get(self.keys().leader(), None).await?;
        let confirmed = self.endpoints().confirm(read.header(), &turn)?;
        let ours = read.kvs().first().is_some_and(|kv| {
            kv.create_revision() == term.0 && kv.value() == me.as_str().as_bytes() && kv.lease() == lease.0
        });
        Ok(if !ours {
            Beat::Final(Renewed::LeadLost)
        } else if confirmed.raft_term != renewed_at {
            Beat::TermChanged
        } else {
            Beat::Final(kept)
        })
    }

    /// An endpoint does not know the lease. A linearizable read brings it up to date and shows whether the leader key
    /// hangs on that very lease, which is then alive.
    async fn denied(&self, turn: Turn, connection: &Connection, lease: LeaseId) -> Result<Beat, Failure> {
        let read = connection.client.kv_client().get(self.keys().leader(), None).await?;
        self.endpoints().confirm(read.header(), &turn)?;
        if read.kvs().iter().any(|kv| kv.lease() == lease.0) {
            return Err(Failure::new(Kind::NotServed, "this member does not know a lease that is in use"));
        }
        Ok(Beat::NoLease)
    }
}

fn seconds(ttl: i64) -> u32 {
    u32::try_from(ttl).unwrap_or(if ttl < 0 { 0 } else { u32::MAX })
}
