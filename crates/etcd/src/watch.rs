//! The watch: the cluster's keys as they change, and whether etcd is there.
//!
//! ```text
//!   read at revision R ──▶ watch the prefix from R+1 ──▶ events, and about every second an answer to "still there?"
//!        ▲                            │ silent, cancelled, compacted, connection lost
//!        └────────── pause ◀──────────┘
//! ```
//!
//! After every interruption the keys are read anew, from a majority: nothing is missed and nothing goes back in time,
//! whatever happened to the events in between. A watch alone never proves that etcd has a majority; that a member
//! without a leader ends it (which every request of ours demands) and that it answers does so well enough for a view
//! that no one acts on without a lease.

use crate::Etcd;
use crate::endpoints::ANSWER_LIMIT;
use crate::error::Error;
use crate::failure::{Failure, Kind};
use crate::rounds::{FIRST_PAUSE, LONGEST_PAUSE, Turn};
use crate::snapshot::Snapshot;
use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use types::Moment;

/// How often the watch is asked whether it is still there.
const PROGRESS: Duration = Duration::from_secs(1);

/// What is known of the cluster.
#[derive(Clone, Debug)]
pub struct View {
    /// The newest that was read; `None` until the first read succeeds. Kept while etcd is away.
    pub snapshot: Option<Arc<Snapshot>>,
    pub contact: Contact,
}

/// Whether etcd is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Contact {
    /// It has not answered since the watch began.
    Never { since: Moment, why: String },
    /// It gave proof at that moment: an event, an answer to "still there?", or a read.
    Live { at: Moment },
    /// It has given no proof since that moment.
    Lost { since: Moment, why: String },
}

/// Keeps the watch running; dropping it ends the watch.
#[derive(Debug)]
pub struct Watcher {
    task: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Begins to watch. A change is published at once, a mere proof that etcd is there about every second.
#[must_use]
pub fn watch(etcd: Etcd) -> (Receiver<View>, Watcher) {
    let began = clock::now();
    let contact = Contact::Never { since: began, why: "not asked yet".to_owned() };
    let (sender, receiver) = channel(View { snapshot: None, contact });
    let watching = Watching { etcd, sender, snapshot: None, began, proof: None };
    (receiver, Watcher { task: tokio::spawn(watching.run()) })
}

struct Watching {
    etcd: Etcd,
    sender: Sender<View>,
    snapshot: Option<Arc<Snapshot>>,
    began: Moment,
    proof: Option<Moment>,
}

impl Watching {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        while !self.sender.is_closed() {
            match self.read().await {
                Ok(revision) => {
                    let watched = self.session(revision).await;
                    tracing::debug!(why = %watched.why, "the watch ended, reading anew");
                    pause = if watched.established { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
                }
                Err(error) => {
                    self.lost(format!("failed to {error}"));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.sender.closed() => {}
            }
        }
    }

    /// Reads everything anew. The revision of what was read.
    async fn read(&mut self) -> Result<i64, Error> {
        let by = clock::now().after(self.patience());
        let asked = clock::now();
        let snapshot = Arc::new(self.etcd.snapshot_after(self.snapshot.as_deref(), by).await?);
        let revision = snapshot.revision;
        self.proof = Some(asked);
        self.snapshot = Some(snapshot);
        self.publish();
        Ok(revision)
    }

    /// Watches from the revision after `revision` until something ends it.
    async fn session(&mut self, revision: i64) -> Ended {
        let turn = self.etcd.endpoints().pinned_turn();
        let mut stream = match self.open(turn, revision).await {
            Ok(stream) => stream,
            Err(failure) => return Ended { established: false, why: failure.why },
        };
        let mut ask = interval(PROGRESS);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_at = Instant::now() + self.patience();
        let why = loop {
            tokio::select! {
                message = timeout_at(silent_at, stream.message()) => {
                    match message {
                        Ok(Ok(Some(response))) if response.canceled() => {
                            // It answers: the endpoint may stay.
                            return Ended { established: true, why: cancelled(&response) };
                        }
                        Ok(Ok(Some(response))) => {
                            silent_at = Instant::now() + self.patience();
                            self.take_up(&response);
                        }
                        Ok(Ok(None)) => break "etcd ended the stream".to_owned(),
                        Ok(Err(error)) => break Failure::from(error).why,
                        Err(_) => break format!("silent for {} ms", self.patience().as_millis()),
                    }
                }
                _ = ask.tick() => {
                    if let Err(error) = stream.request_progress().await {
                        break Failure::from(error).why;
                    }
                }
                () = self.sender.closed() => break "nobody looks any more".to_owned(),
            }
        };
        self.etcd.endpoints().distrust(&turn);
        Ended { established: true, why }
    }

    async fn open(&self, turn: Turn, revision: i64) -> Result<WatchStream, Failure> {
        let prefix = self.etcd.keys().prefix();
        self.etcd
            .endpoints()
            .attempt(&turn, |connection| async move {
                let options =
                    WatchOptions::new().with_prefix().with_start_revision(revision.saturating_add(1));
                let mut client = connection.client.watch_client().max_decoding_message_size(ANSWER_LIMIT);
                let mut stream = client.watch(prefix, Some(options)).await?;
                match stream.message().await? {
                    Some(response) if response.canceled() => {
                        Err(Failure { answered: true, ..Failure::new(Kind::NotServed, cancelled(&response)) })
                    }
                    Some(response) if response.created() => Ok(stream),
                    Some(_) => {
                        Err(Failure::new(Kind::Protocol, "the first answer to a watch was no creation"))
                    }
                    None => Err(Failure::new(Kind::NotServed, "etcd ended the stream")),
                }
            })
            .await
    }

    /// Takes up what one answer brings; all events of one transaction are in it.
    fn take_up(&mut self, response: &WatchResponse) {
        self.proof = Some(clock::now());
        if !response.events().is_empty() {
            let mut snapshot = self.snapshot.as_deref().cloned().unwrap_or_default();
            for event in response.events() {
                let Some(kv) = event.kv() else { continue };
                match event.event_type() {
                    EventType::Put => snapshot.put(self.etcd.keys(), kv),
                    EventType::Delete => snapshot.delete(self.etcd.keys(), kv),
                }
            }
            self.snapshot = Some(Arc::new(snapshot));
        }
        self.publish();
    }

    fn publish(&self) {
        let contact = Contact::Live { at: self.proof.unwrap_or(self.began) };
        self.sender.send_replace(View { snapshot: self.snapshot.clone(), contact });
    }

    fn lost(&self, why: String) {
        let contact = match self.proof {
            Some(since) => Contact::Lost { since, why },
            None => Contact::Never { since: self.began, why },
        };
        self.sender.send_replace(View { snapshot: self.snapshot.clone(), contact });
    }

    /// How long etcd may be silent: three attempts, and time for a question and its answer in any case.
    fn patience(&self) -> Duration {
        let attempts = u32::try_from(self.etcd.endpoints().count().max(3)).unwrap_or(u32::MAX);
        (self.etcd.endpoints().attempt_length() * attempts).max(PROGRESS * 2)
    }
}

/// Why a watch ended, and whether it had begun at all.
struct Ended {
    established: bool,
    why: String,
}

fn cancelled(response: &WatchResponse) -> String {
    match response.compact_revision() {
        0 => format!("etcd cancelled the watch: {}", response.cancel_reason()),
        revision => format!("the watch was behind: etcd has compacted up to revision {revision}"),
    }
}
