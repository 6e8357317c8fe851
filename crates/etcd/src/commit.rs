//! How a write is carried through although answers get lost.
//!
//! ```text
//!           ┌────────── resend ───────────┐
//!           ▼                             │
//!   send the transaction ──refused──▶   judge ──▶ done | conflict | unknown
//!           │ answer lost                 ▲
//!           └──▶ read the same keys ──────┘
//! ```
//!
//! A request whose answer was lost may still be on its way, in the socket of a frozen member, and arrive long after it
//! was given up. Two things make that harmless. A transaction is sent again only after a linearizable read has shown
//! that it had no effect so far. And each one compares something that a second sending, or any later write, changes:
//! the revision that the caller expects, or else that the key was not changed since the newest revision known when
//! the call began (its `base`). So of all sendings of one call at most one has an effect, and none has once a later
//! write has succeeded.

use crate::Etcd;
use crate::endpoints::{ANSWER_LIMIT, Connection};
use crate::error::Error;
use crate::failure::{Failure, Kind};
use crate::rounds::Turn;
use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse, TxnResponse};
use std::sync::Arc;
use types::Moment;

/// A write that can tell from the keys whether it happened.
pub(crate) trait Write: Sync {
    type Outcome: Send;

    /// What it is, for the error that says its outcome is unknown.
    fn what(&self) -> &'static str;
    /// The keys from which the outcome can be judged.
    fn reads(&self) -> Vec<Read>;
    /// The transaction. `base` is the revision after which nothing may have touched the key, where no other compare
    /// protects it.
    fn transaction(&self, base: i64) -> (Vec<Compare>, Vec<TxnOp>);
    /// The outcome when the transaction was executed at `revision`.
    fn executed(&self, revision: i64) -> Self::Outcome;
    /// What to do after the compare failed, or, with `lost`, after an answer was lost.
    fn judge(&self, seen: &Seen, base: i64, lost: bool) -> Verdict<Self::Outcome>;
}

/// A key, or all keys with a prefix.
pub(crate) enum Read {
    Key(String),
    Prefix(String),
}

/// What the keys of [`Write::reads`] hold.
pub(crate) struct Seen {
    pub(crate) revision: i64,
    pub(crate) kvs: Vec<KeyValue>,
}

impl Seen {
    pub(crate) fn get(&self, key: &str) -> Option<&KeyValue> {
        self.kvs.iter().find(|kv| kv.key() == key.as_bytes())
    }
}

pub(crate) enum Verdict<T> {
    Done(T),
    Conflict,
    /// It happened or not, and it can no longer be seen which.
    Unknown,
    /// Without effect so far: send it again, as it was.
    Resend,
    /// Without effect so far, and what was compared has changed for good reason: send it on the new base.
    Rebase,
}

enum Step {
    Executed(i64),
    Saw(Seen),
}

impl Etcd {
    pub(crate) async fn commit<W: Write>(&self, write: &W, by: Moment) -> Result<W::Outcome, Error> {
        let mut rounds = self.endpoints().rounds(by);
        let mut base = self.endpoints().revision();
        let mut lost: Option<String> = None;
        let mut look_first = false;
        while let Some(turn) = rounds.next().await {
            let looking = look_first;
            let attempt = self.endpoints().attempt(&turn, |connection| async move {
                if looking {
                    self.look(turn, connection, write).await
                } else {
                    self.send(turn, connection, write, base).await
                }
            });
            let seen = match attempt.await {
                Ok(Step::Executed(revision)) => return Ok(write.executed(revision)),
                Ok(Step::Saw(seen)) => seen,
                Err(failure) => {
                    if !looking && failure.may_have_happened() {
                        lost = Some(failure.why.clone());
                        look_first = true;
                    }
                    match (rounds.failed(&turn, failure), lost) {
                        (Ok(()), still) => lost = still,
                        (Err(Error::LeaseGone), _) => return Err(Error::LeaseGone),
                        (Err(error), None) => return Err(error),
                        (Err(_), Some(why)) => return Err(Error::Unknown { what: write.what(), why }),
                    }
                    continue;
                }
            };
            match write.judge(&seen, base, lost.is_some()) {
                Verdict::Done(outcome) => return Ok(outcome),
                Verdict::Conflict => return Err(Error::Conflict),
                Verdict::Unknown => {
                    let why = lost.unwrap_or_else(|| "it was overwritten at once".to_owned());
                    return Err(Error::Unknown { what: write.what(), why });
                }
                Verdict::Resend => {}
                Verdict::Rebase => base = seen.revision,
            }
            look_first = false;
            rounds.again(&turn);
        }
        match lost {
            Some(why) => Err(Error::Unknown { what: write.what(), why }),
            None => Err(rounds.unreachable()),
        }
    }

    async fn send<W: Write>(
        &self,
        turn: Turn,
        connection: Arc<Connection>,
        write: &W,
        base: i64,
    ) -> Result<Step, Failure> {
        let (compares, then) = write.transaction(base);
        let txn = Txn::new().when(compares).and_then(then).or_else(gets(write));
        let (revision, answer) = self.transact(turn, &connection, txn).await?;
        if answer.succeeded() { Ok(Step::Executed(revision)) } else { saw(revision, &answer) }
    }

    async fn look<W: Write>(
        &self,
        turn: Turn,
        connection: Arc<Connection>,
        write: &W,
    ) -> Result<Step, Failure> {
        let (revision, answer) = self.transact(turn, &connection, only_gets(write)).await?;
        saw(revision, &answer)
    }

    async fn transact(
        &self,
        turn: Turn,
        connection: &Connection,
        txn: Txn,
    ) -> Result<(i64, TxnResponse), Failure> {
        let mut client = connection.client.kv_client().max_decoding_message_size(ANSWER_LIMIT);
        let answer = client.txn(txn).await?;
        let confirmed = self.endpoints().confirm(answer.header(), &turn)?;
        Ok((confirmed.revision, answer))
    }
}

fn saw(revision: i64, answer: &TxnResponse) -> Result<Step, Failure> {
    let mut kvs = Vec::new();
    for response in answer.op_responses() {
        match response {
            TxnOpResponse::Get(mut get) => kvs.extend(get.take_kvs()),
            TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => {
                return Err(Failure::new(Kind::Protocol, "a read was answered by something else"));
            }
        }
    }
    Ok(Step::Saw(Seen { revision, kvs }))
}

/// Reads all keys at one revision, linearizably. It is none of reads alone: etcd before 3.5.5 panics when such a one is given up by its client in the
/// middle, as it is by ours when an answer is late. So it has a write, too, that never comes about.
fn only_gets<W: Write>(write: &W) -> Txn {
    let (mut never, mut deletes) = (Vec::new(), Vec::new());
    for Read::Key(key) | Read::Prefix(key) in write.reads() {
        // Of a key that is not there it is 0.
        never.push(Compare::mod_revision(key.as_str(), CompareOp::Less, 0));
        deletes.push(TxnOp::delete(key, None));
    }
    Txn::new().when(never).and_then(deletes).or_else(gets(write))
}

fn gets<W: Write>(write: &W) -> Vec<TxnOp> {
    let get = |read| match read {
        Read::Key(key) => TxnOp::get(key, None),
        Read::Prefix(prefix) => TxnOp::get(prefix, Some(GetOptions::new().with_prefix())),
    };
    write.reads().into_iter().map(get).collect()
}
