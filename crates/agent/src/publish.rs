//! What this member says about itself in etcd: its member key, and while it leads the status and the history.
//!
//! A task of its own. The member key is written when something of it that matters changes, and its positions at most once per
//! `loop_wait`; what only the leader may write carries the term and is refused by etcd once the term has passed.

use crate::failsafe::Failsafe;
use crate::failsafe_cache;
use crate::keeper::Keeper;
use crate::local::Local;
use crate::slots::Slots;
use crate::wake::{Cell, Wake};
use etcd::{Etcd, HistoryRow, Member, Snapshot, Status, Writable};
use postgres::probe::Facts;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use types::{LeaseId, Lsn, Moment, NodeName, Term, Timeline, slot_name};

/// What is to be said.
#[derive(Clone)]
pub(crate) struct Word {
    pub member: Member,
    /// Processes of the primary were killed and do not end.
    pub unfenced: Option<&'static str>,
    pub loop_wait: Duration,
    pub retry_timeout: Duration,
    pub snapshot: Option<Arc<Snapshot>>,
    pub leading: Option<Leading>,
}

/// What a leader whose PostgreSQL accepts writes says in addition.
#[derive(Clone)]
pub(crate) struct Leading {
    pub term: Term,
    /// It accepts writes; the leader of a standby cluster does not.
    pub writes: bool,
    pub timeline: Timeline,
    pub lsn: Lsn,
    /// The configuration of a cluster that has none yet.
    pub config: serde_json::Value,
    /// Whether `/failsafe` is kept.
    pub failsafe: bool,
}

/// Says it; a cheap clone.
#[derive(Clone)]
pub(crate) struct Publisher {
    inner: Arc<Inner>,
}

struct Inner {
    etcd: Etcd,
    me: NodeName,
    keeper: Keeper,
    local: Local,
    slots: Slots,
    failsafe: Failsafe,
    word: Cell<Option<Word>>,
    poke: Wake,
    /// The checkpoint after this promotion is done.
    checkpointed: Cell<Option<(Term, Timeline)>>,
    checkpointing: Cell<bool>,
}

/// What was said last.
#[derive(Default)]
struct Said {
    /// That the primary is not fenced, under this lease.
    unfenced: Option<LeaseId>,
    member: Option<(String, LeaseId, Moment)>,
    shape: Option<String>,
    status: Option<(String, Term)>,
    /// What `/failsafe` holds for certain, written in this term.
    failsafe: Option<(BTreeMap<NodeName, String>, Term)>,
    /// The copy of it in the data directory.
    kept: Option<(BTreeMap<NodeName, String>, Term)>,
    chores_at: Option<Moment>,
}

/// A member that has come is in `/failsafe` after this time at the latest, as long as etcd answers.
const LISTED_WITHIN: Duration = Duration::from_millis(500);

/// The members that belong into `/failsafe`.
fn to_be_listed(snapshot: &Snapshot) -> BTreeMap<NodeName, String> {
    let url = |(name, member): (&NodeName, &Member)| Some((name.clone(), member.api_url.clone()?));
    snapshot.members.iter().filter_map(url).collect()
}

fn lists_all(said: &Said, snapshot: &Snapshot) -> bool {
    said.failsafe.as_ref().is_some_and(|(members, _)| *members == to_be_listed(snapshot))
}

impl Publisher {
    pub(crate) fn new(
        etcd: Etcd,
        me: NodeName,
        keeper: Keeper,
        local: Local,
        slots: Slots,
        failsafe: Failsafe,
    ) -> Publisher {
        Publisher {
            inner: Arc::new(Inner {
                etcd,
                me,
                keeper,
                local,
                slots,
                failsafe,
                word: Cell::new(None),
                poke: Wake::default(),
                checkpointed: Cell::new(None),
                checkpointing: Cell::new(false),
            }),
        }
    }

    /// Replaces what is to be said.
    pub(crate) fn say(&self, word: Word) {
        self.inner.word.with(|kept| *kept = Some(word));
        self.inner.poke.wake();
    }

    /// Whether the checkpoint that a rewind of others waits for is still owed in this term.
    pub(crate) fn owes_checkpoint(&self, term: Term, timeline: Timeline) -> bool {
        self.inner.checkpointed.get() != Some((term, timeline))
    }

    /// Publishes for ever; ends when dropped.
    pub(crate) async fn run(self) {
        let mut said = Said::default();
        loop {
            let _ = tokio::time::timeout(Duration::from_secs(1), self.inner.poke.changed()).await;
            let Some(word) = self.inner.word.get() else { continue };
            self.member(&word, &mut said).await;
            self.unfenced(&word, &mut said).await;
            if let Some(leading) = &word.leading {
                self.lead(&word, leading, &mut said).await;
            } else {
                said.status = None;
                said.failsafe = None;
                said.kept = None;
                said.chores_at = None;
            }
        }
    }

    async fn member(&self, word: &Word, said: &mut Said) {
        let Some(lease) = self.inner.keeper.lease().id else { return };
        let now = clock::now();
        let text = word.member.to_json();
        let shape = shape(&word.member);
        let due = match &said.member {
            None => true,
            Some((_, old, _)) if *old != lease => true,
            Some((old, _, at)) => {
                *old != text && (said.shape.as_ref() != Some(&shape) || now.since(*at) >= word.loop_wait)
            }
        };
        // Gone from etcd although nobody here withdrew it: written again.
        let missing = word.snapshot.as_ref().is_some_and(|snapshot| {
            !snapshot.members.contains_key(&self.inner.me)
                && said.member.as_ref().is_some_and(|(_, _, at)| now.since(*at) >= word.loop_wait)
        });
        if !due && !missing {
            return;
        }
        let by = now.after(word.retry_timeout);
        match self.inner.etcd.put_member(&self.inner.me, &word.member, lease, by).await {
            Ok(()) => {
                said.member = Some((text, lease, now));
                said.shape = Some(shape);
            }
            Err(error) => tracing::debug!(%error, "failed to publish this member"),
        }
    }

    /// Says that the primary could not be ended, and takes it back.
    async fn unfenced(&self, word: &Word, said: &mut Said) {
        let Some(lease) = self.inner.keeper.lease().id else { return };
        let wanted = word.unfenced.map(|_| lease);
        if said.unfenced == wanted {
            return;
        }
        let by = clock::now().after(word.retry_timeout);
        let value = word.unfenced.map(|why| serde_json::json!({ "why": why }).to_string());
        match self.inner.etcd.put_unfenced(&self.inner.me, value, lease, by).await {
            Ok(()) => said.unfenced = wanted,
            Err(error) => tracing::debug!(%error, "failed to publish whether the primary is fenced"),
        }
    }

    async fn lead(&self, word: &Word, leading: &Leading, said: &mut Said) {
        let now = clock::now();
        // A member that is not in /failsafe may not take over: a switchover to one that has just come would wait.
        let unlisted =
            leading.failsafe && word.snapshot.as_ref().is_some_and(|snapshot| !lists_all(said, snapshot));
        let rest = if unlisted { word.loop_wait.min(LISTED_WITHIN) } else { word.loop_wait };
        if said.chores_at.is_some_and(|at| now.since(at) < rest) {
            return;
        }
        said.chores_at = Some(now);
        let by = now.after(word.retry_timeout);
        if let Err(error) = self.chores(word, leading, said, by).await {
            tracing::debug!(%error, "failed to write what a leader writes");
        }
        self.checkpoint(leading);
    }

    async fn chores(
        &self,
        word: &Word,
        leading: &Leading,
        said: &mut Said,
        by: Moment,
    ) -> Result<(), etcd::Error> {
        let Some(snapshot) = &word.snapshot else { return Ok(()) };
        let etcd = &self.inner.etcd;
        match &snapshot.config {
            None => drop(etcd.create_config(&leading.config, by).await?),
            Some(key) if key.value.as_object().is_some_and(serde_json::Map::is_empty) => {
                etcd.put_config(&leading.config, Some(key.mod_revision), by).await?;
            }
            Some(_) => {}
        }
        let status = self.status(leading, snapshot);
        let text = status.to_json();
        if said.status != Some((text.clone(), leading.term)) {
            etcd.put_status(&status, leading.term, by).await?;
            said.status = Some((text, leading.term));
        }
        if leading.failsafe {
            self.failsafe(snapshot, leading, said, by).await?;
        }
        // The lease was exchanged for one with another time to live: the word about writes moves along.
        if let (Some(writable), Some(lease)) = (&snapshot.writable, self.inner.keeper.lease().id)
            && writable.term == leading.term
            && writable.lease != Some(lease)
        {
            let writable = Writable { lease: Some(lease), ..writable.clone() };
            etcd.put_writable(&writable, lease, leading.term, by).await?;
        }
        Ok(())
    }

    /// Keeps all members in `/failsafe`. Whoever may be in it counts as in it until it is certain what stands there.
    async fn failsafe(
        &self,
        snapshot: &Snapshot,
        leading: &Leading,
        said: &mut Said,
        by: Moment,
    ) -> Result<(), etcd::Error> {
        let members = to_be_listed(snapshot);
        if !members.contains_key(&self.inner.me) {
            return Ok(());
        }
        if said.failsafe.as_ref() == Some(&(members.clone(), leading.term)) {
            if snapshot.failsafe.as_ref() == Some(&members) {
                self.inner.failsafe.listed();
                self.keep(members, leading.term, said).await;
            }
            return Ok(());
        }
        // What somebody else wrote before our term must have been seen.
        if snapshot.revision < leading.term.0 {
            return Ok(());
        }
        self.inner.failsafe.lists(&members);
        if !self.keep(self.inner.failsafe.possible(snapshot.failsafe.as_ref()), leading.term, said).await {
            return Ok(());
        }
        said.failsafe = None;
        self.inner.etcd.put_failsafe(&members, leading.term, by).await?;
        said.failsafe = Some((members, leading.term));
        Ok(())
    }

    /// Keeps a copy for an agent that is started again while etcd is away. `false`: an old one is in the way.
    async fn keep(&self, members: BTreeMap<NodeName, String>, term: Term, said: &mut Said) -> bool {
        let wanted = Some((members.clone(), term));
        if said.kept == wanted {
            return true;
        }
        let data_dir = self.inner.local.data_dir().to_owned();
        let kept = tokio::task::spawn_blocking(move || failsafe_cache::keep(&data_dir, term, &members)).await;
        match kept {
            Ok(Ok(())) => {
                said.kept = wanted;
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "failed to replace the old copy of /failsafe: the key is not written until that works");
                false
            }
            Err(_) => false,
        }
    }

    fn status(&self, leading: &Leading, snapshot: &Snapshot) -> Status {
        let mut slots = slot_positions(&self.inner.local, &self.inner.me);
        slots.insert(slot_name(&self.inner.me), leading.lsn);
        let before =
            || snapshot.status.as_ref().map(|status| status.retain_slots.clone()).unwrap_or_default();
        let retain_slots = self.inner.slots.retained().unwrap_or_else(before);
        Status { optime: leading.lsn, slots, retain_slots }
    }

    /// After a promotion: the checkpoint that a rewind of the former leader waits for.
    fn checkpoint(&self, leading: &Leading) {
        let owed = leading.writes && self.owes_checkpoint(leading.term, leading.timeline);
        if !owed || self.inner.checkpointing.with(|busy| std::mem::replace(busy, true)) {
            return;
        }
        let (publisher, done) = (self.clone(), (leading.term, leading.timeline));
        tokio::spawn(async move {
            let prober = postgres::probe::Prober::new(publisher.inner.local.connect());
            match prober.checkpoint(Duration::from_secs(300)).await {
                Ok(()) => {
                    publisher.inner.checkpointed.with(|kept| *kept = Some(done));
                    publisher.inner.poke.wake();
                }
                Err(error) => tracing::debug!(%error, "failed to write a checkpoint after the promotion"),
            }
            publisher.inner.checkpointing.with(|busy| *busy = false);
        });
    }
}

/// Where a standby gets its WAL from: the one it follows, or the archive when a `restore_command` is there for it.
pub(crate) fn replication_state(facts: &Facts) -> Option<&'static str> {
    let streaming = facts.receiver.as_ref().is_some_and(|receiver| receiver.status == "streaming");
    match facts.in_recovery {
        true if streaming => Some("streaming"),
        true if facts.restores => Some("in archive recovery"),
        true | false => None,
    }
}

/// How far each slot of this primary is, with our own position under our own name.
pub(crate) fn slot_positions(local: &Local, me: &NodeName) -> BTreeMap<String, Lsn> {
    let seen = local.seen();
    let Some((facts, _)) = &seen.facts else { return BTreeMap::new() };
    let known = facts.slots.iter().filter(|slot| !slot.temporary);
    let mut slots: BTreeMap<String, Lsn> =
        known.filter_map(|slot| Some((slot.name.clone(), slot.position()?))).collect();
    if let Some(lsn) = facts.flush_lsn {
        slots.insert(slot_name(me), lsn);
    }
    slots
}

/// The rows of `/history` for the timeline on which this member leads; `None` when there is nothing new. On the first timeline
/// what another cluster left there goes. The moment of the last change is that of the file in which PostgreSQL wrote it down: it may
/// have been promoted by hand, long before it led.
pub(crate) async fn history(
    snapshot: &Snapshot,
    me: &NodeName,
    local: &Local,
    timeline: Timeline,
    most: usize,
) -> Option<Vec<HistoryRow>> {
    let known = snapshot.history.last().map(|row| row.timeline.0);
    if timeline.0 <= 1 {
        return known.map(|_| Vec::new());
    }
    if known == Some(timeline.0 - 1) {
        return None;
    }
    let path = local.data_dir().join(format!("pg_wal/{:08X}.history", timeline.0));
    let text = tokio::fs::read_to_string(&path).await.ok()?;
    let history = types::History::parse(timeline, &text).ok()?;
    let written = tokio::fs::metadata(&path).await.and_then(|file| file.modified()).ok()?;
    let written = jiff::Timestamp::try_from(written).ok()?;
    let written = written.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string();
    let row =
        |line: types::HistoryLine| match snapshot.history.iter().find(|row| row.timeline == line.timeline) {
            Some(row) => row.clone(),
            None => HistoryRow {
                timeline: line.timeline,
                lsn: line.end,
                reason: line.reason,
                timestamp: None,
                new_leader: None,
            },
        };
    let mut rows: Vec<HistoryRow> = history.lines.into_iter().map(row).collect();
    if let Some(last) = rows.last_mut() {
        last.timestamp.get_or_insert(written);
        last.new_leader.get_or_insert(me.0.clone());
    }
    let excess = rows.len().saturating_sub(most.max(1));
    rows.drain(..excess);
    Some(rows)
}

/// The member key without what moves all the time.
fn shape(member: &Member) -> String {
    Member { xlog_location: None, replay_lsn: None, receive_lsn: None, ..member.clone() }.to_json()
}
