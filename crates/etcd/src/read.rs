//! Reading the whole cluster: one linearizable range over the prefix.

use crate::Etcd;
use crate::endpoints::{ANSWER_LIMIT, Connection};
use crate::error::Error;
use crate::failure::{Failure, Kind};
use crate::rounds::Turn;
use crate::snapshot::{Limits, Snapshot};
use etcd_client::GetOptions;
use std::sync::Arc;
use types::Moment;

impl Etcd {
    /// Everything under the cluster's prefix, as a majority of etcd knows it at some moment during this call.
    pub async fn snapshot(&self, by: Moment) -> Result<Snapshot, Error> {
        self.snapshot_after(None, by).await
    }

    /// The same; a value that is spoiled now keeps what `previous` had for it.
    pub(crate) async fn snapshot_after(
        &self,
        previous: Option<&Snapshot>,
        by: Moment,
    ) -> Result<Snapshot, Error> {
        let mut rounds = self.endpoints().rounds(by);
        while let Some(turn) = rounds.next().await {
            let attempt =
                self.endpoints().attempt(&turn, |connection| self.range(turn, connection, previous));
            match attempt.await {
                Ok(snapshot) => return Ok(snapshot),
                Err(failure) => rounds.failed(&turn, failure)?,
            }
        }
        Err(rounds.unreachable())
    }

    async fn range(
        &self,
        turn: Turn,
        connection: Arc<Connection>,
        previous: Option<&Snapshot>,
    ) -> Result<Snapshot, Failure> {
        let options = GetOptions::new().with_prefix().with_limit(Limits::KEYS);
        let mut client = connection.client.kv_client().max_decoding_message_size(ANSWER_LIMIT);
        let answer = client.get(self.keys().prefix(), Some(options)).await?;
        let confirmed = self.endpoints().confirm(answer.header(), &turn)?;
        if answer.more() {
            let prefix = self.keys().prefix();
            let why =
                format!("more than {} keys below {prefix}; remove what does not belong there", Limits::KEYS);
            return Err(Failure::new(Kind::Protocol, why));
        }
        Ok(Snapshot::read(self.keys(), confirmed.revision, answer.kvs(), previous))
    }
}
