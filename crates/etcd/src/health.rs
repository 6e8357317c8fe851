//! How etcd itself is, for `baton etcd`: every endpoint is asked alone, so that one that does not answer is seen.
//!
//! ```text
//!   every endpoint ── status ──► version, size, quota, raft position      ┐
//!   any of them ───── members, alarms, the oldest readable revision ──────┼──► Health ──► warnings (pure)
//!   files, handshakes ─────────── certificates and when they expire ──────┘
//! ```

mod certificates;
mod warnings;

pub use certificates::{Certificate, Holder};
pub use warnings::Warning;

use crate::Etcd;
use crate::endpoints::Connection;
use crate::error::Error;
use crate::failure::{Failure, Kind};
use crate::rounds::Turn;
use etcd_client::{AlarmAction, AlarmType, GetOptions};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use types::Moment;

/// What was found.
#[derive(Clone, Debug)]
pub struct Health {
    /// The configured endpoints, in their order.
    pub endpoints: Vec<Endpoint>,
    /// What the cluster as a whole says; the error when no majority could be reached.
    pub cluster: Result<Whole, Error>,
    /// Every certificate that takes part in a connection.
    pub certificates: Vec<Certificate>,
    /// How many revisions are added a second; `None` while it was not measured.
    pub growth: Option<u64>,
}

/// One configured endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub url: String,
    /// What its member says of itself, or why it does not.
    pub status: Result<Status, String>,
}

/// What one member says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    pub member: u64,
    pub version: String,
    /// The file, in bytes.
    pub size: u64,
    /// What of it is in use; the rest comes back with a defragmentation. Not told before etcd 3.4.
    pub used: Option<u64>,
    /// What the file may grow to. Told from etcd 3.6 on.
    pub quota: Option<u64>,
    pub leads: bool,
    pub learner: bool,
    pub raft_term: u64,
    pub raft_index: u64,
    pub applied_index: u64,
    /// Faults that it reports itself.
    pub errors: Vec<String>,
    pub answered_in: Duration,
}

/// What the cluster as a whole says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Whole {
    pub members: Vec<Listed>,
    pub alarms: Vec<Alarm>,
    pub revision: i64,
    /// The oldest revision that can still be read: what compaction has left.
    pub oldest: i64,
}

/// One member as the cluster lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    pub id: u64,
    /// Empty until it has started for the first time.
    pub name: String,
    pub client_urls: Vec<String>,
    pub learner: bool,
}

/// An alarm, which stays until somebody disarms it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alarm {
    /// The file has reached the quota: nothing can be written any more.
    NoSpace { member: u64 },
    /// Members hold different data.
    Corrupt { member: u64 },
}

impl Etcd {
    /// Looks at all endpoints and the cluster.
    pub async fn health(&self, by: Moment) -> Health {
        let endpoints = self.endpoints();
        let status = (0..endpoints.count()).map(|slot| async move {
            Endpoint { url: endpoints.url(slot).to_owned(), status: self.status(slot).await }
        });
        let (statuses, cluster, certificates) = tokio::join!(
            join_all(status),
            self.whole(by),
            certificates::all(endpoints, endpoints.attempt_length())
        );
        Health { endpoints: statuses, cluster, certificates, growth: None }
    }

    /// How many revisions are added a second, by everybody who writes to this etcd: looked at twice, `span` apart.
    pub async fn growth(&self, span: Duration, by: Moment) -> Option<u64> {
        let (first, before) = (self.revision(by).await?, clock::now());
        tokio::time::sleep(span).await;
        let added = u64::try_from(self.revision(by).await?.saturating_sub(first)).unwrap_or_default();
        let millis = u64::try_from(clock::now().since(before).as_millis()).unwrap_or(u64::MAX).max(1);
        Some(added.saturating_mul(1000) / millis)
    }

    async fn revision(&self, by: Moment) -> Option<i64> {
        let mut rounds = self.endpoints().rounds(by);
        while let Some(turn) = rounds.next().await {
            let ask = |connection: Arc<Connection>| async move { self.readable(&connection, 0).await };
            match self.endpoints().attempt(&turn, ask).await {
                Ok(revision) => return revision,
                Err(failure) => rounds.failed(&turn, failure).ok()?,
            }
        }
        None
    }

    async fn status(&self, slot: usize) -> Result<Status, String> {
        let turn = Turn { slot, allowance: self.endpoints().attempt_length(), known_term: 0 };
        let asked = clock::now();
        let ask = |connection: Arc<Connection>| async move {
            Ok(connection.client.maintenance_client().status().await?)
        };
        let answer = self.endpoints().attempt(&turn, ask).await.map_err(|failure| failure.why)?;
        let size = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
        let told = |bytes: i64| Some(size(bytes)).filter(|bytes| *bytes > 0);
        let member = answer.header().map(etcd_client::ResponseHeader::member_id).unwrap_or_default();
        Ok(Status {
            member,
            version: answer.version().to_owned(),
            size: size(answer.db_size()),
            used: told(answer.raft_used_db_size()),
            quota: told(answer.db_size_quota()),
            leads: member != 0 && answer.leader() == member,
            learner: answer.is_learner(),
            raft_term: answer.raft_term(),
            raft_index: answer.raft_index(),
            applied_index: answer.raft_applied_index(),
            errors: answer.errors().to_vec(),
            answered_in: clock::now().since(asked),
        })
    }

    async fn whole(&self, by: Moment) -> Result<Whole, Error> {
        let mut rounds = self.endpoints().rounds(by);
        while let Some(turn) = rounds.next().await {
            let ask = |connection: Arc<Connection>| async move { self.ask_whole(&connection).await };
            match self.endpoints().attempt(&turn, ask).await {
                Ok(whole) => return Ok(whole),
                Err(failure) => rounds.failed(&turn, failure)?,
            }
        }
        Err(rounds.unreachable())
    }

    async fn ask_whole(&self, connection: &Connection) -> Result<Whole, Failure> {
        let members = connection.client.cluster_client().member_list().await?;
        let members = members.members().iter().map(|member| Listed {
            id: member.id(),
            name: member.name().to_owned(),
            client_urls: member.client_urls().to_vec(),
            learner: member.is_learner(),
        });
        let members = members.collect();
        let mut maintenance = connection.client.maintenance_client();
        let answer = maintenance.alarm(AlarmAction::Get, AlarmType::None, None).await?;
        let alarms = answer.alarms().iter().filter_map(|raised| match raised.alarm() {
            AlarmType::Nospace => Some(Alarm::NoSpace { member: raised.member_id() }),
            AlarmType::Corrupt => Some(Alarm::Corrupt { member: raised.member_id() }),
            AlarmType::None => None,
        });
        let alarms = alarms.collect();
        let revision = self.readable(connection, 0).await?.unwrap_or_default();
        let oldest = self.oldest(connection, revision).await?;
        Ok(Whole { members, alarms, revision, oldest })
    }

    /// The oldest revision that compaction has left, by halving.
    async fn oldest(&self, connection: &Connection, revision: i64) -> Result<i64, Failure> {
        let (mut gone, mut kept) = (0, revision);
        while kept - gone > 1 {
            let middle = gone + (kept - gone) / 2;
            match self.readable(connection, middle).await? {
                Some(_) => kept = middle,
                None => gone = middle,
            }
        }
        Ok(kept)
    }

    /// The present revision when the keys of `at` can be read (0: of now); `None` when they were compacted away.
    async fn readable(&self, connection: &Connection, at: i64) -> Result<Option<i64>, Failure> {
        let options = GetOptions::new().with_count_only().with_revision(at);
        let mut client = connection.client.kv_client();
        match client.get(self.keys().prefix(), Some(options)).await.map_err(Failure::from) {
            Ok(answer) => {
                let header = answer.header().ok_or_else(|| Failure::new(Kind::Protocol, "no header"))?;
                Ok(Some(header.revision()))
            }
            Err(failure) if failure.why.contains("has been compacted") => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

impl Health {
    /// What somebody should do something about, the worst first.
    #[must_use]
    pub fn warnings(&self, now: SystemTime) -> Vec<Warning> {
        warnings::of(self, now)
    }
}
