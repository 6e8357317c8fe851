//! What this member had alone and the cluster has not: told to everybody who asks.
//!
//! ```text
//!   job ── account in the directory that is kept ──► log, journal, metrics ──► etcd: `baton/losses` ──► told
//!                                                                  └─ does not answer: again, also after a restart ─┘
//! ```
//! The account is a file beside the WAL that it tells of, so nothing is forgotten when the agent ends in between.

use crate::journal::Journal;
use crate::wake::{Cell, Wake};
use etcd::{Error, Etcd, Loss, LostIn, Snapshot};
use postgres::loss::Account;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use types::{NodeName, Timeline};

/// etcd is asked again after this time.
const AGAIN: Duration = Duration::from_secs(5);
const WITHIN: Duration = Duration::from_secs(5);

/// What was found since the agent was started.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    /// Committed and prepared ones.
    pub transactions: u64,
    pub bytes: u64,
    pub last: Option<Arc<Account>>,
}

/// Tells of losses; a cheap clone.
#[derive(Clone)]
pub(crate) struct Losses {
    inner: Arc<Inner>,
}

struct Inner {
    etcd: Etcd,
    me: NodeName,
    data_dir: PathBuf,
    journal: Arc<Cell<Journal>>,
    poke: Wake,
    counts: Cell<Counts>,
}

impl Losses {
    pub(crate) fn new(etcd: Etcd, me: NodeName, data_dir: PathBuf, journal: Arc<Cell<Journal>>) -> Losses {
        let (poke, counts) = (Wake::default(), Cell::new(Counts::default()));
        Losses { inner: Arc::new(Inner { etcd, me, data_dir, journal, poke, counts }) }
    }

    /// There may be a new account.
    pub(crate) fn look(&self) {
        self.inner.poke.wake();
    }

    pub(crate) fn counts(&self) -> Counts {
        self.inner.counts.get()
    }

    /// Tells for ever; ends when dropped.
    pub(crate) async fn run(self) {
        let mut noted = BTreeSet::new();
        loop {
            if self.tell_all(&mut noted).await {
                self.inner.poke.changed().await;
            } else {
                let _ = tokio::time::timeout(AGAIN, self.inner.poke.changed()).await;
            }
        }
    }

    /// Whether nothing is left to be told.
    async fn tell_all(&self, noted: &mut BTreeSet<PathBuf>) -> bool {
        let data_dir = self.inner.data_dir.clone();
        let untold = match tokio::task::spawn_blocking(move || Account::untold(&data_dir)).await {
            Ok(Ok(untold)) => untold,
            Ok(Err(error)) => {
                tracing::debug!(%error, "failed to look for accounts of what was lost");
                return false;
            }
            Err(_) => return false,
        };
        let mut all = true;
        for (dir, account) in untold {
            if noted.insert(dir.clone()) {
                self.note(&account);
            }
            match self.publish(&account).await {
                Ok(()) => all &= told(dir).await,
                Err(error) => {
                    tracing::debug!(%error, "failed to write down what was lost");
                    all = false;
                }
            }
        }
        all
    }

    fn note(&self, account: &Account) {
        let text = account.to_string();
        let (commits, prepared) = (account.transactions.commits, account.transactions.prepared);
        if account.is_nothing() {
            tracing::info!("this member went on alone: {text}");
        } else {
            tracing::warn!(
                commits, prepared, bytes = account.bytes, fork = %account.fork, timeline = account.fork_timeline,
                "what only this member had is undone and kept: {text}"
            );
        }
        let code = if account.is_nothing() { "NothingLost" } else { "Lost" };
        self.inner.journal.with(|journal| journal.tell("rejoin", code, text));
        self.inner.counts.with(|counts| {
            counts.transactions += commits + prepared;
            counts.bytes += account.bytes;
            counts.last = Some(Arc::new(account.clone()));
        });
    }

    /// Several members may write at once: whoever was slower reads and adds again.
    async fn publish(&self, account: &Account) -> Result<(), Error> {
        let by = clock::now().after(WITHIN);
        loop {
            let snapshot = self.inner.etcd.snapshot(by).await?;
            let loss = record(&self.inner.me, account, &snapshot);
            if snapshot.losses.iter().any(|known| known.member == loss.member && known.at == loss.at) {
                return Ok(());
            }
            match self.inner.etcd.add_loss(&loss, &snapshot, by).await {
                Err(Error::Conflict) => {}
                ended => return ended,
            }
        }
    }
}

async fn told(dir: PathBuf) -> bool {
    let shown = dir.display().to_string();
    match tokio::task::spawn_blocking(move || Account::told(&dir)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(%error, kept = shown, "failed to note that a loss was told");
            false
        }
        Err(_) => false,
    }
}

fn record(me: &NodeName, account: &Account, snapshot: &Snapshot) -> Loss {
    let relation =
        |touched: &postgres::loss::Touched| LostIn { name: touched.to_string(), records: touched.records };
    let transactions = &account.transactions;
    Loss {
        member: me.clone(),
        at: account.at.clone(),
        leader: snapshot.leader.as_ref().map(|leader| leader.name.clone()),
        term: snapshot.leader.as_ref().map(|leader| leader.term),
        timeline: Timeline(account.fork_timeline),
        fork: account.fork,
        end: account.end,
        bytes: account.bytes,
        commits: transactions.commits,
        prepared: transactions.prepared,
        complete: transactions.unread.is_none(),
        first_commit: transactions.first_commit.clone(),
        last_commit: transactions.last_commit.clone(),
        relations: account.relations.touched.iter().take(10).map(relation).collect(),
        kept: account.kept.display().to_string(),
    }
}
