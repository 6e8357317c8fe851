//! The PostgreSQL on this host as the agent sees it.
//!
//! ```text
//!   prober task ───── asks every second, every 20 ms while something is expected to change ─────► Seen
//!   watcher task ──── waits on the postmaster's pidfd; when it ends: end what it left, read the files ──► stopped
//! ```
//! No call into PostgreSQL or its disk is made by the loop itself: it looks at what these tasks found.

use crate::before_stop::BeforeStop;
use crate::pace::{self, Pace};
use crate::senders::Senders;
use crate::stalls::Stalls;
use crate::sync_names::{self, SyncNames};
use crate::wake::{Cell, Wake};
use etcd::PendingChange;
use ha::Data;
use postgres::config_files::{Refusal, Wanted};
use postgres::connection::ConnectTo;
use postgres::data_dir::{self, DataDir};
use postgres::installation::Installation;
use postgres::postmaster::{Postmaster, StartOptions, Stop, last_log_lines};
use postgres::probe::{Facts, Probe, Prober};
use postgres::slots::CopiedSlot;
use settings::Raised;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use types::{Lsn, Moment, Timeline};

const STEADY: Duration = Duration::from_secs(1);
/// A standby that comes is waited for by commits, or even by all of them.
const STEADY_SYNCHRONOUS: Duration = Duration::from_millis(250);
const HOT: Duration = Duration::from_millis(20);
/// A change that was asked for is expected within this time.
const HOT_FOR: Duration = Duration::from_secs(60);
const HOT_FOR_NAMES: Duration = Duration::from_secs(2);
/// An answer of this age is as good as a new one: many who ask at once cost one question.
const FRESH: Duration = Duration::from_millis(20);
const PROBE_WITHIN: Duration = Duration::from_millis(1500);
/// A disk that takes longer for a file is taken for one that hangs.
const DISK_WITHIN: Duration = Duration::from_secs(5);
/// Killed processes get so long to end before they count as still there.
const LEFTOVERS_WITHIN: Duration = Duration::from_millis(500);

/// What the prober found last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The last good answer of this postmaster, and when it was given.
    pub facts: Option<(Arc<Facts>, Moment)>,
    /// What it answered last.
    pub now: Answer,
    /// Since when it has not answered, while it lives.
    pub silent_since: Option<Moment>,
    /// Since when it takes no connections although it ran before: it recovers from the end of one of its processes.
    pub recovers_since: Option<Moment>,
    /// When the question was asked that this answers.
    pub asked: Moment,
    /// When a primary was last seen to have forced more WAL to its disk.
    pub written: Option<Moment>,
    /// How far its standbys have come.
    pub stalls: Arc<Stalls>,
}

/// The kind of the last answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Answer {
    /// There is no postmaster, or it was not asked yet.
    #[default]
    None,
    Running,
    /// It lives and has no connection left for us: what it said last stands.
    Crowded,
    NotYet,
    Silent,
}

/// The postmaster's life, as the loop knows it.
#[derive(Clone, Default)]
pub(crate) struct Life {
    pub postmaster: Option<Arc<Postmaster>>,
    /// When it was started or found.
    pub since: Moment,
    /// When it was told to stop.
    pub stopping: Option<Moment>,
    /// When all of its processes were killed; they may still be there.
    pub killed: Option<Moment>,
    /// Whom it was configured to follow.
    pub upstream: Option<ha::Upstream>,
    /// The command that runs before the signal to stop; ended when a harder stop is asked for.
    before_stop: Option<CancellationToken>,
}

/// The local PostgreSQL; a cheap clone.
#[derive(Clone)]
pub(crate) struct Local {
    inner: Arc<Inner>,
}

struct Inner {
    installation: Installation,
    data_dir: PathBuf,
    log_file: PathBuf,
    connect: Cell<ConnectTo>,
    wake: Wake,
    life: Cell<Life>,
    data: Cell<Data>,
    /// What is wrong with unusable data, for people.
    data_fault: Cell<Option<String>>,
    segment_size: Cell<u64>,
    /// Parameters that this standby has to run with larger than configured.
    raised: Cell<Vec<Raised>>,
    /// The configuration that PostgreSQL last checked, and the parameters that it would not start with.
    checked: Cell<Option<(Wanted, Vec<Refusal>)>>,
    /// Copies of the primary's logical slots, to be placed before the next start as a standby.
    staged: Cell<Vec<CopiedSlot>>,
    /// The slots of standbys for which consumers of failover slots wait; `None`: nobody manages that.
    awaited: Cell<Option<Vec<String>>>,
    /// The cluster in the data directory is complete and not yet known to etcd: it still bears the mark of unfinished work.
    newborn: Cell<bool>,
    seen: watch::Sender<Seen>,
    poke: Wake,
    /// A person may start PostgreSQL by hand: it is looked for.
    by_hand: Cell<bool>,
    hot_until: Cell<Moment>,
    /// When the question was asked that has no answer yet.
    waits: Cell<Option<Moment>>,
    names: SyncNames,
    senders: Senders,
    pace: Pace,
    /// WAL that the agent of a crashed primary has put into ours, up to there, and how much there was of it.
    handed: Cell<(Option<(Timeline, Lsn)>, u64)>,
}

impl Local {
    pub(crate) fn new(
        installation: Installation,
        data_dir: PathBuf,
        connect: ConnectTo,
        wake: Wake,
    ) -> Local {
        let log_file = beside(&data_dir, "log");
        let poke = Wake::default();
        let pace = Pace::new(&data_dir);
        Local {
            inner: Arc::new(Inner {
                installation,
                data_dir,
                log_file,
                connect: Cell::new(connect),
                wake,
                life: Cell::new(Life::default()),
                data: Cell::new(Data::Unusable),
                data_fault: Cell::new(None),
                segment_size: Cell::new(16 << 20),
                raised: Cell::new(Vec::new()),
                checked: Cell::new(None),
                staged: Cell::new(Vec::new()),
                awaited: Cell::new(None),
                newborn: Cell::new(false),
                seen: watch::Sender::new(Seen::default()),
                senders: Senders::new(poke.clone()),
                names: SyncNames::default(),
                poke,
                by_hand: Cell::new(false),
                hot_until: Cell::new(Moment::default()),
                pace,
                handed: Cell::new((None, 0)),
                waits: Cell::new(None),
            }),
        }
    }

    pub(crate) fn installation(&self) -> &Installation {
        &self.inner.installation
    }

    pub(crate) fn data_dir(&self) -> &std::path::Path {
        &self.inner.data_dir
    }

    pub(crate) fn log_file(&self) -> &std::path::Path {
        &self.inner.log_file
    }

    pub(crate) fn connect(&self) -> ConnectTo {
        self.inner.connect.get()
    }

    /// Connects in this way from now on.
    pub(crate) fn reconnect(&self, connect: ConnectTo) {
        let changed = self.inner.connect.with(|kept| std::mem::replace(kept, connect.clone()) != connect);
        if changed {
            self.inner.poke.wake();
        }
    }

    /// What recoveries and promotions take.
    pub(crate) fn pace(&self) -> &Pace {
        &self.inner.pace
    }

    /// WAL up to there was put into ours: it is replayed at the latest when this standby is promoted, and counts as received.
    pub(crate) fn was_handed(&self, timeline: Timeline, to: Lsn, bytes: u64) {
        self.inner.handed.with(|(handed, taken)| {
            let before = handed.filter(|(known, _)| *known == timeline).map(|(_, lsn)| lsn);
            *handed = Some((timeline, to.max(before.unwrap_or_default())));
            *taken += bytes;
        });
        self.inner.seen.send_modify(|seen| {
            if let Some((facts, _)) = &mut seen.facts {
                self.add_handed(Arc::make_mut(facts));
            }
        });
        self.inner.wake.wake();
    }

    /// How much WAL was taken in this way.
    pub(crate) fn taken(&self) -> u64 {
        self.inner.handed.with(|(_, taken)| *taken)
    }

    /// What was handed here counts as received.
    fn add_handed(&self, facts: &mut Facts) {
        let handed = self.inner.handed.with(|(handed, _)| *handed);
        if let Some((timeline, lsn)) = handed
            && facts.in_recovery
            && facts.timeline == Some(timeline)
        {
            facts.received_lsn = facts.received_lsn.max(Some(lsn));
        }
    }

    pub(crate) fn life(&self) -> Life {
        self.inner.life.get()
    }

    pub(crate) fn data(&self) -> Data {
        self.inner.data.get()
    }

    pub(crate) fn seen(&self) -> Seen {
        self.inner.seen.borrow().clone()
    }

    /// When its processes were killed, while some are still there.
    pub(crate) fn killed(&self) -> Option<Moment> {
        self.inner.life.with(|life| life.killed)
    }

    /// Since when a question waits for its answer.
    pub(crate) fn waits_since(&self) -> Option<Moment> {
        self.inner.waits.get()
    }

    /// When a primary was last seen to have forced more WAL to its disk.
    pub(crate) fn written_at(&self) -> Option<Moment> {
        self.inner.seen.borrow().written
    }

    /// The size of a WAL file.
    pub(crate) fn segment_size(&self) -> u64 {
        self.inner.segment_size.get()
    }

    /// So many more clients can connect.
    pub(crate) fn free_slots(&self) -> Option<i64> {
        let seen = self.inner.seen.borrow();
        if seen.now == Answer::Crowded {
            return Some(0);
        }
        seen.facts.as_ref().map(|(facts, _)| facts.free_slots)
    }

    /// The timeline of the running PostgreSQL.
    pub(crate) fn timeline(&self) -> Option<Timeline> {
        self.seen().facts.and_then(|(facts, _)| facts.timeline)
    }

    /// The parameters whose configured values need a restart. Those that PostgreSQL names, and on a standby those that it can take
    /// only after its primary has.
    pub(crate) fn pending(&self) -> BTreeMap<String, PendingChange> {
        let Some((facts, _)) = self.seen().facts else { return BTreeMap::new() };
        let raised = self.inner.raised.get().into_iter().filter(|_| facts.in_recovery);
        let raised = raised.map(|raised| {
            let change = PendingChange { old_value: Some(raised.used), new_value: Some(raised.configured) };
            (raised.name, change)
        });
        let named = facts.pending_restart.iter().map(|pending| {
            let change =
                PendingChange { old_value: pending.running.clone(), new_value: pending.wanted.clone() };
            (pending.name.clone(), change)
        });
        raised.chain(named).collect()
    }

    /// Notes the parameters that had to be raised when the configuration was written.
    pub(crate) fn raised(&self, raised: &[Raised]) {
        self.inner.raised.with(|kept| raised.clone_into(kept));
    }

    /// What PostgreSQL said against exactly this configuration; `None` when it was not asked.
    pub(crate) fn checked(&self, wanted: &Wanted) -> Option<Vec<Refusal>> {
        let same = |checked: &mut Option<(Wanted, Vec<Refusal>)>| match checked {
            Some((known, refused)) if known == wanted => Some(refused.clone()),
            Some(_) | None => None,
        };
        self.inner.checked.with(same)
    }

    /// Notes what PostgreSQL said against a configuration; answers with what is news.
    pub(crate) fn note_checked(&self, wanted: Wanted, refused: &[Refusal]) -> Vec<Refusal> {
        self.inner.checked.with(|checked| {
            let known = checked.as_ref().map(|(_, known)| known.as_slice()).unwrap_or_default();
            let news = refused.iter().filter(|refusal| !known.contains(refusal)).cloned().collect();
            *checked = Some((wanted, refused.to_vec()));
            news
        })
    }

    /// Keeps copies of logical slots for the next start as a standby.
    pub(crate) fn stage(&self, slots: Vec<CopiedSlot>) {
        self.inner.staged.with(|staged| *staged = slots);
    }

    /// The copies that are to be placed now.
    pub(crate) fn take_staged(&self) -> Vec<CopiedSlot> {
        self.inner.staged.with(std::mem::take)
    }

    /// Sets for whose slots consumers of failover slots wait while this is the primary.
    pub(crate) fn await_slots(&self, slots: Option<Vec<String>>) {
        let changed = self.inner.awaited.with(|kept| std::mem::replace(kept, slots.clone()) != slots);
        if changed {
            self.inner.wake.wake();
        }
    }

    /// For whose slots they wait.
    pub(crate) fn awaited_slots(&self) -> Option<Vec<String>> {
        self.inner.awaited.get()
    }

    /// Whether the WAL segment with this position is here.
    pub(crate) fn has_wal(&self, at: Lsn) -> bool {
        newest_timeline_at(&self.inner.data_dir, Lsn(at.0.saturating_add(1)), self.inner.segment_size.get())
            .is_some()
    }

    /// What it says of itself, asked a moment ago at most; the last answer when that takes longer than `within`.
    pub(crate) async fn fresh(&self, within: Duration) -> Seen {
        let asked = clock::now().before(FRESH);
        if self.inner.seen.borrow().asked >= asked {
            return self.seen();
        }
        let mut seen = self.inner.seen.subscribe();
        self.inner.poke.wake();
        let newer = seen.wait_for(|seen| seen.asked >= asked);
        let _ = tokio::time::timeout(within, newer).await;
        self.seen()
    }

    /// Something was asked of PostgreSQL: look often until it shows.
    pub(crate) fn expect_change(&self) {
        self.inner.hot_until.with(|until| *until = clock::now().after(HOT_FOR));
        self.inner.poke.wake();
    }

    /// Whose confirmation commits shall wait for.
    pub(crate) fn names(&self) -> &SyncNames {
        &self.inner.names
    }

    /// Whose confirmation commits wait for, as the running PostgreSQL shows it.
    pub(crate) fn shown_names(&self) -> Option<String> {
        let (facts, _) = self.seen().facts?;
        (!facts.in_recovery).then(|| facts.synchronous_standby_names.clone())
    }

    /// Whether a PostgreSQL runs here and takes connections.
    pub(crate) fn is_running(&self) -> bool {
        self.life().postmaster.is_some() && self.seen().now == Answer::Running
    }

    /// Whether a primary runs here.
    pub(crate) fn is_primary(&self) -> bool {
        self.life().postmaster.is_some() && self.seen().facts.is_some_and(|(facts, _)| !facts.in_recovery)
    }

    /// Makes a primary take up new names; that shows within moments.
    pub(crate) fn reload_for_names(&self) -> Result<(), postgres::Error> {
        let Some(postmaster) = self.life().postmaster else { return Ok(()) };
        postmaster.reload()?;
        let hot = clock::now().after(HOT_FOR_NAMES);
        self.inner.hot_until.with(|until| *until = hot.max(*until));
        self.inner.poke.wake();
        Ok(())
    }

    /// Takes up a postmaster that runs on the data directory already.
    pub(crate) fn adopt(&self) -> Result<bool, postgres::Error> {
        match Postmaster::adopt(&self.inner.data_dir)? {
            None => {
                if postgres::postmaster::leftovers(&self.inner.data_dir)? > 0 {
                    // Of a postmaster that was killed and whose processes do not end: nothing may be started beside them.
                    self.inner.life.with(|life| life.killed = Some(clock::now()));
                    let local = self.clone();
                    tokio::spawn(async move { local.end_leftovers().await });
                }
                Ok(false)
            }
            Some(postmaster) => {
                self.took_up(postmaster);
                Ok(true)
            }
        }
    }

    /// Whether a person may start PostgreSQL by hand at the moment, and nobody here does.
    pub(crate) fn expect_start_by_hand(&self, expect: bool) {
        self.inner.by_hand.with(|kept| *kept = expect);
    }

    /// Takes up a PostgreSQL that was started by hand.
    async fn look_for_start_by_hand(&self) {
        let data_dir = self.inner.data_dir.clone();
        let found = tokio::task::spawn_blocking(move || Postmaster::adopt(&data_dir)).await;
        if let Ok(Ok(Some(postmaster))) = found
            && self.inner.by_hand.get()
        {
            tracing::info!(pid = postmaster.pid, "took up a PostgreSQL that was started by hand");
            self.inner.life.with(|life| life.upstream = None);
            self.took_up(postmaster);
        }
    }

    /// Before a start that has no member to get WAL from: what was received of a new timeline by halves is of no use to it.
    pub(crate) async fn remove_half_received(&self) {
        let dir = self.inner.data_dir.clone();
        let removing = tokio::task::spawn_blocking(move || data_dir::remove_half_received(&dir));
        let why = match removing.await {
            Ok(Ok(segments)) => {
                for segment in segments {
                    tracing::info!(
                        segment,
                        "removed WAL that was received by halves: an older timeline has it whole"
                    );
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        // PostgreSQL may start all the same.
        tracing::warn!(error = why, "failed to look for WAL that was received by halves");
    }

    /// Starts PostgreSQL, before `not_after` or not at all; the configuration is written already.
    pub(crate) async fn start(
        &self,
        args: Vec<(String, String)>,
        upstream: Option<ha::Upstream>,
        not_after: Option<Moment>,
    ) -> Result<(), postgres::Error> {
        let log_file = self.inner.log_file.clone();
        let options = StartOptions { args, log_file, not_after, ..StartOptions::default() };
        // What was handed is in its WAL, and is replayed by this start.
        self.inner.handed.with(|(handed, _)| *handed = None);
        self.inner.pace.starts(upstream.is_some());
        match Postmaster::start(&self.inner.installation, &self.inner.data_dir, &options).await {
            Ok(postmaster) => {
                self.inner.life.with(|life| life.upstream = upstream);
                self.took_up(postmaster);
            }
            // An earlier agent started it and ended before anybody could see it, or a person did. Whatever it is, from now on it is
            // seen: a primary that the agent takes for stopped would go on beside the next one.
            Err(postgres::Error::AlreadyRunning { pid }) if self.adopt()? => {
                tracing::info!(pid, "took up a PostgreSQL that was started by somebody else");
                self.inner.life.with(|life| life.upstream = None);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn took_up(&self, postmaster: Postmaster) {
        if self.life().postmaster.is_some_and(|known| known.pid == postmaster.pid) {
            return;
        }
        let postmaster = Arc::new(postmaster);
        self.inner.seen.send_replace(Seen::default());
        self.inner.life.with(|life| {
            life.postmaster = Some(postmaster.clone());
            life.since = clock::now();
            life.stopping = None;
            life.killed = None;
            life.before_stop = None;
        });
        let local = self.clone();
        tokio::spawn(async move { local.watch(postmaster).await });
        self.expect_change();
    }

    /// Waits for the end of this postmaster, then says it is stopped; not before nothing of it is left.
    async fn watch(self, postmaster: Arc<Postmaster>) {
        postmaster.exited().await;
        tracing::info!(pid = postmaster.pid, "PostgreSQL has ended");
        if self.seen().facts.is_none() && self.life().stopping.is_none() {
            let words = last_log_lines(&self.inner.log_file, 3).join(" | ");
            let log = self.inner.log_file.display();
            tracing::warn!(%log, words, "PostgreSQL ended before it took connections; the last lines of its log say why");
        }
        self.end_leftovers().await;
    }

    /// Ends what a postmaster that has ended left behind, however long that takes: as long as one process is left, PostgreSQL is not
    /// stopped.
    async fn end_leftovers(&self) {
        let mut told = false;
        while let Err(error) = kill_leftovers(&self.inner.data_dir).await {
            // Somebody has started another one already: it is taken up instead of started.
            if let postgres::Error::AlreadyRunning { .. } = error {
                break;
            }
            self.inner.life.with(|life| {
                life.stopping = life.stopping.or(Some(clock::now()));
                life.killed = life.killed.or(Some(clock::now()));
            });
            self.inner.wake.wake();
            if !std::mem::replace(&mut told, true) {
                tracing::error!(%error, "failed to end what the postmaster left behind; it is tried again and again");
            }
            tokio::time::sleep(LEFTOVERS_WITHIN).await;
        }
        self.look_at_data().await;
        self.inner.seen.send_replace(Seen::default());
        self.inner.life.with(|life| {
            life.postmaster = None;
            life.stopping = None;
            life.killed = None;
            if let Some(command) = life.before_stop.take() {
                command.cancel();
            }
        });
        self.inner.wake.wake();
    }

    /// Signals the postmaster; the first time after the operator's command, which a harder stop does not wait for.
    pub(crate) fn stop(&self, mode: ha::StopMode, before: Option<BeforeStop>) -> Result<(), postgres::Error> {
        let Some(postmaster) = self.life().postmaster else { return Ok(()) };
        let superseded = CancellationToken::new();
        let (earlier, first) = self.inner.life.with(|life| {
            let first = life.stopping.is_none();
            life.stopping = life.stopping.or(Some(clock::now()));
            (life.before_stop.replace(superseded.clone()), first)
        });
        if let Some(earlier) = earlier {
            earlier.cancel();
        }
        self.expect_change();
        if mode == ha::StopMode::Kill {
            self.kill(postmaster);
            return Ok(());
        }
        let Some(before) = before.filter(|_| first) else { return signal(&postmaster, mode) };
        let installation = self.inner.installation.clone();
        tokio::spawn(async move {
            before.run(installation, &superseded).await;
            if superseded.is_cancelled() {
                return;
            }
            if let Err(error) = signal(&postmaster, mode) {
                tracing::error!(%error, "failed to stop PostgreSQL after before_stop");
            }
        });
        Ok(())
    }

    /// Kills everything of it, beside the loop: the directory is looked at, and its disk may hang.
    fn kill(&self, postmaster: Arc<Postmaster>) {
        let local = self.clone();
        tokio::task::spawn_blocking(move || {
            match postmaster.kill_all() {
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "failed to kill PostgreSQL"),
            }
            local.inner.life.with(|life| {
                let same = life.postmaster.as_ref().is_some_and(|known| known.pid == postmaster.pid);
                if same {
                    life.killed = life.killed.or(Some(clock::now()));
                }
            });
            local.inner.wake.wake();
        });
    }

    /// Signals the promotion.
    pub(crate) async fn promote(&self) -> Result<(), postgres::Error> {
        let Some(postmaster) = self.life().postmaster else { return Ok(()) };
        self.inner.pace.promotes();
        // It leaves a file in the data directory, whose disk may hang.
        let promote = tokio::task::spawn_blocking(move || postmaster.promote());
        match tokio::time::timeout(DISK_WITHIN, promote).await {
            Ok(Ok(promoted)) => promoted?,
            Ok(Err(error)) => return Err(postgres::Error::Refused(format!("promote: {error}"))),
            Err(_) => {
                let what = "promote: the disk of the data directory does not answer".to_owned();
                return Err(postgres::Error::Timeout { what, within: DISK_WITHIN });
            }
        }
        self.expect_change();
        Ok(())
    }

    /// Makes PostgreSQL read its configuration again.
    pub(crate) fn reload(&self, upstream: Option<ha::Upstream>) -> Result<(), postgres::Error> {
        let Some(postmaster) = self.life().postmaster else { return Ok(()) };
        postmaster.reload()?;
        self.inner.life.with(|life| life.upstream = upstream);
        self.expect_change();
        Ok(())
    }

    /// Notes whom the running PostgreSQL turned out to follow.
    pub(crate) fn follows(&self, upstream: Option<ha::Upstream>) {
        self.inner.life.with(|life| life.upstream = upstream);
    }

    /// Notes that the data are those of a cluster that was created here and that etcd does not know yet.
    pub(crate) fn newborn(&self, newborn: bool) {
        self.inner.newborn.with(|kept| *kept = newborn);
    }

    /// etcd knows the cluster: its data are no longer unfinished.
    pub(crate) async fn is_known(&self) -> Result<(), postgres::Error> {
        if self.inner.newborn.get() {
            let data_dir = self.inner.data_dir.clone();
            let clear = tokio::task::spawn_blocking(move || data_dir::clear_mark(&data_dir));
            clear.await.map_err(|error| postgres::Error::Refused(format!("clear the mark: {error}")))??;
            self.newborn(false);
        }
        Ok(())
    }

    /// Looks at the files of the data directory, beside the loop: a disk that hangs must not hang the agent.
    pub(crate) async fn look_at_data(&self) {
        let (data_dir, installation) = (self.inner.data_dir.clone(), self.inner.installation.clone());
        let newborn = self.inner.newborn.get();
        // Nothing is written to the end of the WAL while PostgreSQL is stopped, nor while it recovers.
        let still = self.life().postmaster.is_none_or(|postmaster| !postmaster.alive())
            || self.seen().recovers_since.is_some();
        let look = tokio::task::spawn_blocking(move || {
            let found = inspect(&data_dir, &installation, newborn)?;
            let pace = match &found {
                DataDir::Present { control, .. } if still => pace::Found::look(&data_dir, control),
                _ => None,
            };
            Ok::<_, postgres::Error>((found, pace))
        });
        let (data, fault) = match tokio::time::timeout(DISK_WITHIN, look).await {
            Ok(Ok(Ok((found, pace)))) => {
                self.inner.pace.found(pace);
                if let DataDir::Present { control, .. } = &found {
                    let size = u64::from(control.wal_segment_size);
                    self.inner.segment_size.with(|kept| *kept = size);
                }
                crate::observe::data(found)
            }
            Ok(Ok(Err(error))) => (Data::Unusable, Some(error.to_string())),
            Ok(Err(error)) => (Data::Unusable, Some(error.to_string())),
            Err(_) => (Data::Unusable, Some("the disk of the data directory does not answer".to_owned())),
        };
        if let Some(fault) = &fault
            && self.inner.data_fault.get().as_ref() != Some(fault)
        {
            tracing::error!(fault, "the data directory cannot be used");
        }
        self.inner.data_fault.with(|kept| *kept = fault);
        self.inner.data.with(|kept| *kept = data);
        self.inner.wake.wake();
    }

    /// PostgreSQL shows by itself what it is; the files are read again only when it stops.
    fn note_role(&self, primary: bool) {
        self.inner.data.with(|data| {
            if let Data::Present(control) = data {
                control.standby = !primary;
            }
        });
    }

    /// Probes for ever; ends when dropped.
    pub(crate) async fn probe_forever(self) {
        let mut connect = self.connect();
        let mut prober = Prober::new(connect.clone());
        loop {
            let now = self.connect();
            if now != connect {
                connect = now;
                prober = Prober::new(connect.clone());
            }
            if self.life().postmaster.is_some() {
                self.probe(&mut prober).await;
            } else {
                self.inner.seen.send_modify(|seen| seen.asked = clock::now());
                if self.inner.by_hand.get() {
                    self.look_for_start_by_hand().await;
                }
            }
            let hot = clock::now() < self.inner.hot_until.get();
            let steady = if self.inner.names.managed() { STEADY_SYNCHRONOUS } else { STEADY };
            let rest = if hot { HOT } else { steady };
            let _ = tokio::time::timeout(rest, self.inner.poke.changed()).await;
        }
    }

    async fn probe(&self, prober: &mut Prober) {
        let asked = clock::now();
        let before = self.life().postmaster.map(|postmaster| postmaster.pid);
        self.inner.waits.with(|waits| *waits = Some(asked));
        let answer = prober.probe(PROBE_WITHIN).await;
        self.inner.waits.with(|waits| *waits = None);
        // The answer of a postmaster that has ended: its end is about to be noted, and what refused us is no server that starts.
        let life = self.life();
        if life.postmaster.as_ref().map(|postmaster| postmaster.pid) != before
            || life.postmaster.is_some_and(|postmaster| !postmaster.alive())
        {
            return;
        }
        let old = self.seen();
        let mut new = Seen { asked, ..old.clone() };
        match answer {
            Probe::Running(mut facts) => {
                self.note_role(!facts.in_recovery);
                self.inner.senders.watch(facts.replication.iter().map(|standby| standby.pid));
                if facts.in_recovery {
                    facts.timeline = self.standby_timeline(&facts, &old).await;
                    self.add_handed(&mut facts);
                }
                self.inner.pace.runs(!facts.in_recovery);
                if let Some((before, _)) = &old.facts
                    && sync_names::took_effect(before, &facts)
                {
                    self.release_commits();
                }
                note_progress(&mut new, &facts, asked);
                new.facts = Some((Arc::from(facts), asked));
                new.now = Answer::Running;
                new.silent_since = None;
                new.recovers_since = None;
            }
            Probe::Crowded { .. } => {
                new.now = Answer::Crowded;
                new.silent_since = None;
            }
            Probe::Starting { .. } | Probe::NotAccepting { .. } => {
                new.now = Answer::NotYet;
                new.silent_since = None;
                if old.facts.is_some() {
                    new.recovers_since = old.recovers_since.or(Some(asked));
                }
            }
            Probe::Unresponsive { why } | Probe::Failed { why } => {
                // One that is being ended need not answer.
                if old.silent_since.is_none() && self.life().stopping.is_none() {
                    tracing::warn!(why, "PostgreSQL does not answer");
                }
                new.now = Answer::Silent;
                new.silent_since = old.silent_since.or(Some(asked));
            }
        }
        let changed = shape(&old) != shape(&new);
        let crashed = old.recovers_since.is_none() && new.recovers_since.is_some();
        self.inner.seen.send_replace(new);
        if crashed {
            // How long that will take is to be known.
            let local = self.clone();
            tokio::spawn(async move { local.look_at_data().await });
        }
        if changed {
            if old.now != Answer::Running {
                self.inner.hot_until.with(|until| *until = clock::now().after(Duration::from_secs(3)));
            }
            self.inner.wake.wake();
        }
    }

    /// Lets commits go on that the new names have confirmed already: PostgreSQL looks at them only when a standby speaks.
    fn release_commits(&self) {
        let connect = self.connect().named("baton names");
        tokio::spawn(async move {
            if let Err(error) = postgres::waiters::release(&connect, PROBE_WITHIN).await {
                tracing::info!(%error, "commits that wait may do so until a standby speaks the next time");
            }
        });
    }

    /// The timeline of a standby. What it received says it while it receives; then PostgreSQL only knows where its last restart
    /// point was. But it never goes back, and the segment that it got to is named after the timeline.
    async fn standby_timeline(&self, facts: &Facts, old: &Seen) -> Option<Timeline> {
        let before = old.facts.as_ref().filter(|(facts, _)| facts.in_recovery);
        let before = before.and_then(|(facts, _)| facts.timeline);
        if before.is_some() || facts.receiver.is_some() {
            return facts.timeline.max(before);
        }
        let reached = facts.received_lsn.max(facts.replayed_lsn)?;
        let (data_dir, segment_size) = (self.inner.data_dir.clone(), self.inner.segment_size.get());
        let look = tokio::task::spawn_blocking(move || newest_timeline_at(&data_dir, reached, segment_size));
        let found = tokio::time::timeout(PROBE_WITHIN, look).await;
        facts.timeline.max(found.ok().and_then(Result::ok).flatten())
    }
}

/// Notes what a primary shows of its disk's and its standbys' progress.
fn note_progress(new: &mut Seen, facts: &Facts, asked: Moment) {
    let flushed = |facts: &Facts| facts.flush_lsn.filter(|_| !facts.in_recovery);
    let before = new.facts.as_ref().and_then(|(facts, _)| flushed(facts));
    if flushed(facts) > before {
        new.written = Some(asked);
    }
    if flushed(facts).is_some() {
        let mut stalls = Stalls::clone(&new.stalls);
        stalls.note(facts, asked);
        new.stalls = Arc::new(stalls);
    }
}

/// Ends leftovers on a thread of its own: the directory is looked at, and its disk may hang.
async fn kill_leftovers(data_dir: &std::path::Path) -> Result<(), postgres::Error> {
    let data_dir = data_dir.to_owned();
    let runtime = tokio::runtime::Handle::current();
    let ended = tokio::task::spawn_blocking(move || {
        let end = postgres::postmaster::kill_leftovers_within(&data_dir, LEFTOVERS_WITHIN);
        runtime.block_on(end).map(drop)
    });
    ended.await.map_err(|error| postgres::Error::Refused(format!("end leftovers: {error}")))?
}

fn signal(postmaster: &Postmaster, mode: ha::StopMode) -> Result<(), postgres::Error> {
    match mode {
        ha::StopMode::Fast => postmaster.signal(Stop::Fast),
        ha::StopMode::Immediate => postmaster.signal(Stop::Immediate),
        ha::StopMode::Kill => postmaster.kill_all().map(drop),
    }
}

/// In recovery, on which timeline, streaming; who streams from here, and whose confirmation commits wait for.
type Shape = (Answer, Option<(bool, Option<Timeline>, bool, Vec<(String, Option<String>)>, String)>);

/// What of an answer makes a difference to a decision.
fn shape(seen: &Seen) -> Shape {
    let facts = seen.facts.as_ref().map(|(facts, _)| {
        let streaming = facts.receiver.as_ref().is_some_and(|receiver| receiver.status == "streaming");
        let standby =
            |standby: &postgres::probe::Standby| (standby.application_name.clone(), standby.state.clone());
        let standbys = facts.replication.iter().map(standby).collect();
        let names = facts.synchronous_standby_names.clone();
        (facts.in_recovery, facts.timeline, streaming, standbys, names)
    });
    (seen.now, facts)
}

/// What the data directory is; a cluster that was just created here counts as present although it is marked.
fn inspect(
    data_dir: &std::path::Path,
    installation: &Installation,
    newborn: bool,
) -> Result<DataDir, postgres::Error> {
    match data_dir::inspect_for(data_dir, installation)? {
        DataDir::Incomplete { work: data_dir::Work::Bootstrap, .. } if newborn => Ok(DataDir::Present {
            control: postgres::control::read(data_dir)?,
            standby_signal: false,
            recovery_signal: false,
            backup_label: false,
            major: installation.version.major,
        }),
        found => Ok(found),
    }
}

/// The newest timeline that a WAL segment with this position is named after.
fn newest_timeline_at(data_dir: &std::path::Path, reached: Lsn, segment_size: u64) -> Option<Timeline> {
    let segment = reached.0.saturating_sub(1) / segment_size.max(1);
    let per_file = (1_u64 << 32) / segment_size.max(1);
    let wanted = format!("{:08X}{:08X}", segment / per_file.max(1), segment % per_file.max(1));
    let entries = std::fs::read_dir(data_dir.join("pg_wal")).ok()?;
    let timeline = |name: std::ffi::OsString| {
        let name = name.into_string().ok()?;
        let named = name.len() == 24 && name.get(8..) == Some(wanted.as_str());
        named.then(|| u32::from_str_radix(name.get(..8)?, 16).ok()).flatten()
    };
    entries.filter_map(|entry| timeline(entry.ok()?.file_name())).max().map(Timeline)
}

/// A path beside the data directory: `<data_dir>.<ending>`.
fn beside(data_dir: &std::path::Path, ending: &str) -> PathBuf {
    let mut name = data_dir.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}
