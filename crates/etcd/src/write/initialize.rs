//! Who bootstraps the cluster, and which system identifier it got.
//!
//! An empty `initialize` does not say who wrote it. So the one who creates it leaves a mark of its own beside it in
//! the same transaction; after a lost answer the mark tells whether it was us. Two members that both believed so
//! would both run initdb.

use crate::Etcd;
use crate::commit::{Read, Seen, Verdict, Write};
use crate::error::Error;
use crate::failure::Failure;
use crate::write::put::{Expected, Put};
use etcd_client::{Compare, CompareOp, PutOptions, TxnOp};
use std::hash::{BuildHasher, RandomState};
use types::{LeaseId, Moment, SystemId};

impl Etcd {
    /// Claims the bootstrap of the cluster. Whether it is ours. With a lease, the claim ends with the one who made it.
    pub async fn create_initialize(&self, lease: Option<LeaseId>, by: Moment) -> Result<bool, Error> {
        let keys = self.keys();
        let (initialize, mark) = (keys.initialize(), keys.baton_bootstrap());
        let claim = Claim { initialize, mark, nonce: nonce(), lease };
        self.commit(&claim, by).await
    }

    /// Writes the cluster's system identifier. [`Error::Conflict`] when the cluster has another one.
    pub async fn set_initialize(&self, id: SystemId, by: Moment) -> Result<(), Error> {
        let what = "write the system identifier";
        loop {
            let expected = match self.read_initialize(by).await? {
                None => 0,
                Some((value, revision)) if value.is_empty() => revision,
                Some((value, _)) if value == id.to_string().as_bytes() => return Ok(()),
                Some(_) => return Err(Error::Conflict),
            };
            let put = Put::own(what, self.keys().initialize(), id.to_string());
            match self.commit(&Put { expected: Expected::Revision(expected), ..put }, by).await {
                Ok(_) => return Ok(()),
                Err(Error::Conflict) => {} // somebody was faster: look again
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives up a bootstrap that failed. [`Error::Conflict`] when the cluster has a system identifier by now.
    pub async fn delete_initialize(&self, by: Moment) -> Result<(), Error> {
        let expected = match self.read_initialize(by).await? {
            None => return Ok(()),
            Some((value, revision)) if value.is_empty() => Expected::Revision(revision),
            Some(_) => return Err(Error::Conflict),
        };
        let delete = Put::delete("give up the bootstrap", self.keys().initialize(), expected);
        self.commit(&delete, by).await.map(drop)
    }

    async fn read_initialize(&self, by: Moment) -> Result<Option<(Vec<u8>, i64)>, Error> {
        let mut rounds = self.endpoints().rounds(by);
        let key = self.keys().initialize();
        while let Some(turn) = rounds.next().await {
            let attempt = self.endpoints().attempt(&turn, |connection| {
                let key = key.as_str();
                async move {
                    let answer = connection.client.kv_client().get(key, None).await?;
                    self.endpoints().confirm(answer.header(), &turn)?;
                    let found = answer.kvs().first().map(|kv| (kv.value().to_vec(), kv.mod_revision()));
                    Ok::<_, Failure>(found)
                }
            });
            match attempt.await {
                Ok(found) => return Ok(found),
                Err(failure) => rounds.failed(&turn, failure)?,
            }
        }
        Err(rounds.unreachable())
    }
}

/// A text that no other call uses. The standard library seeds its hashers from the system's randomness.
fn nonce() -> String {
    format!("{:016x}{:016x}", RandomState::new().hash_one(1), RandomState::new().hash_one(2))
}

struct Claim {
    initialize: String,
    mark: String,
    nonce: String,
    lease: Option<LeaseId>,
}

impl Write for Claim {
    type Outcome = bool;

    fn what(&self) -> &'static str {
        "claim the bootstrap of the cluster"
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::Key(self.initialize.clone()), Read::Key(self.mark.clone())]
    }

    fn transaction(&self, base: i64) -> (Vec<Compare>, Vec<TxnOp>) {
        let absent = Compare::create_revision(self.initialize.as_str(), CompareOp::Equal, 0);
        // A claim that arrives late must not begin anew what was begun and given up since.
        let unchanged = Compare::mod_revision(self.mark.as_str(), CompareOp::Less, base.saturating_add(1));
        let puts = vec![
            TxnOp::put(
                self.initialize.as_str(),
                "",
                self.lease.map(|lease| PutOptions::new().with_lease(lease.0)),
            ),
            TxnOp::put(self.mark.as_str(), self.nonce.as_str(), None),
        ];
        (vec![absent, unchanged], puts)
    }

    fn executed(&self, _revision: i64) -> bool {
        true
    }

    fn judge(&self, seen: &Seen, base: i64, lost: bool) -> Verdict<bool> {
        let mark = seen.get(&self.mark);
        match seen.get(&self.initialize) {
            Some(found) => {
                let ours = mark.is_some_and(|mark| {
                    mark.value() == self.nonce.as_bytes() && mark.mod_revision() == found.create_revision()
                });
                Verdict::Done(lost && ours)
            }
            None if mark.is_none_or(|mark| mark.mod_revision() <= base) => Verdict::Resend,
            // Claimed and given up since the call began.
            None => Verdict::Rebase,
        }
    }
}
