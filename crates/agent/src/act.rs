//! Carrying out the actions of a decision, in their order, until the first that fails.

use crate::addresses::Addresses;
use crate::before_stop::BeforeStop;
use crate::configure::{self, As};
use crate::failsafe::Failsafe;
use crate::guard::Warden;
use crate::jobs::{Jobs, Tools};
use crate::keeper::Keeper;
use crate::local::Local;
use crate::observe;
use crate::peers::Peers;
use crate::publish;
use crate::slots::{self, Slots};
use crate::timelines;
use crate::upstream::Sender;
use crate::watchdog::Watchdog;
use anyhow::{Context, bail};
use etcd::{Etcd, Grounds, Handover, Snapshot, Writable};
use ha::sync_quorum::Promise;
use ha::{Action, Authority, ExitWhy, Upstream, Work};
use settings::{Dynamic, Settings};
use std::sync::Arc;
use std::time::Duration;
use types::{LeaseId, Moment, StandbyNames, Term, Timeline};

/// A guard is in its place within this time.
const GUARD_WITHIN: Duration = Duration::from_millis(500);

/// The hands of the agent.
pub(crate) struct Hands {
    pub etcd: Etcd,
    pub settings: Arc<Settings>,
    pub keeper: Keeper,
    pub warden: Arc<Warden>,
    pub watchdog: Watchdog,
    pub local: Local,
    pub jobs: Jobs,
    pub peers: Peers,
    pub slots: Slots,
    pub failsafe: Failsafe,
    pub addresses: Addresses,
}

/// Whether clients must no longer be led here when this is done.
fn ends_writing(action: &Action) -> bool {
    matches!(
        action,
        Action::WithdrawWritable(_)
            | Action::Stop(_)
            | Action::ReleaseLeader(_)
            | Action::HandLeadTo { .. }
            | Action::ForsakeLead(_)
    )
}

/// What the actions of one turn are carried out with.
pub(crate) struct Turn {
    pub snapshot: Option<Arc<Snapshot>>,
    pub dynamic: Arc<Dynamic>,
    /// So many rows of the timeline history are kept in etcd.
    pub history_rows: usize,
    /// Nothing may take longer: the next duty is due then.
    pub by: Moment,
}

/// Another member was faster: that is what a race is for, and no fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}: another member was faster")]
pub(crate) struct Faster(&'static str);

/// Something that an action needs is not there for a moment, as after a lease was lost; the action is asked for again.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotYet(pub String);

/// What the loop itself has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Done,
    /// The agent's end.
    Exit(ExitWhy),
    /// The planned restart becomes an order, or is forgotten.
    PlannedRestart {
        begin: bool,
    },
    /// The order at the head of the queue is done, or refused.
    OrderFinished {
        done: bool,
    },
}

impl Hands {
    /// Carries out one action.
    pub(crate) async fn act(&self, action: &Action, turn: &Turn) -> anyhow::Result<Outcome> {
        let me = &self.settings.name;
        let by = turn.by;
        if ends_writing(action) {
            self.addresses.give_up().await;
        }
        match action {
            Action::CreateInitialize => {
                // On our lease: should this agent die on the way, the claim ends and another member begins anew.
                if !self.etcd.create_initialize(Some(self.lease()?), by).await? {
                    bail!(Faster("claim the new cluster"));
                }
            }
            Action::ConfirmInitialize(id) => {
                self.etcd.set_initialize(*id, by).await?;
                self.local.is_known().await?;
            }
            Action::RemoveInitialize => self.etcd.delete_initialize(by).await?,
            Action::AcquireLeader => self.acquire(turn).await?,
            Action::AdoptLeader(term) => self.adopt(*term, by).await?,
            Action::ReleaseLeader(term) => {
                self.keeper.gave_lead_back();
                self.etcd.release_leader(me, *term, by).await?;
            }
            Action::HandLeadTo { term, to } => {
                self.keeper.gave_lead_back();
                self.etcd.release_leader_to(me, *term, to, by).await?;
            }
            Action::ForsakeLead(term) => self.keeper.forsake(*term),
            Action::AnnounceWritable { term, timeline, lsn, guarded } => {
                let lease = self.lease()?;
                // First where the earlier timelines ended: who takes over after us must know which data are of this cluster.
                let rows = match &turn.snapshot {
                    Some(snapshot) => {
                        publish::history(snapshot, me, &self.local, *timeline, turn.history_rows).await
                    }
                    None => None,
                };
                if let Some(rows) = rows {
                    self.etcd.put_history(&rows, *term, by).await?;
                }
                let writable = Writable {
                    term: *term,
                    name: me.clone(),
                    timeline: *timeline,
                    lsn: *lsn,
                    guarded: *guarded,
                    lease: Some(lease),
                };
                self.etcd.put_writable(&writable, lease, *term, by).await?;
                self.addresses.announced(*term);
            }
            Action::AnnounceHandover(term) => {
                let handover = Handover { term: *term, name: me.clone(), mod_revision: 0 };
                self.etcd.put_handover(&handover, self.lease()?, *term, by).await?;
            }
            Action::WithdrawWritable(term) => self.etcd.delete_writable(*term, by).await?,
            Action::ClearFailover(revision) => self.etcd.clear_failover(*revision, by).await?,
            Action::PutSync { promise, over, term } => self.put_sync(promise, *over, *term, by).await?,
            Action::DeleteSync { over, term } => self.etcd.delete_sync(*over, *term, by).await?,
            Action::SetSynchronous(names) => self.set_synchronous(names.clone(), turn).await?,
            Action::AskPeers(names) => self.peers.ask(names, turn.snapshot.clone()),
            Action::AskFailsafe { term, names } => self.ask_failsafe(*term, names, turn),
            Action::ExtendLead { term, until } => {
                if !self.keeper.extend(*term, *until) {
                    bail!(NotYet(format!("lead on without etcd: the lead of term {term} has ended")));
                }
                self.failsafe.extended(*until);
            }
            Action::ReadLeaderHistory(of) => self.read_history(of, turn)?,
            Action::ArmGuard(term) => {
                // In pause nothing depends on the watchdog, and it is off.
                if !turn.dynamic.pause {
                    self.watchdog.activate().await?;
                }
                self.arm(*term).await?;
            }
            Action::DisarmGuard => self.warden.disarm(),
            Action::StartPrimary => self.start(As::Primary, turn).await?,
            Action::StartStandby(upstream) => {
                // Without an address it comes up all the same, and is pointed there as soon as there is one.
                let sender = find(upstream, turn).unwrap_or(Sender::Archive);
                self.start(As::Standby(sender), turn).await?;
            }
            Action::Follow(upstream) => self.follow(upstream, turn).await?,
            Action::Stop(mode) => {
                let rules = observe::rules(&self.settings, &turn.dynamic);
                let before = BeforeStop::of(&self.settings, &turn.dynamic, &rules, *mode);
                self.local.stop(*mode, before)?;
            }
            Action::Promote(term) => self.promote(*term, turn).await?,
            Action::Begin(work) => self.begin(work, turn),
            Action::CancelJob => self.jobs.cancel(),
            Action::BeginPlannedRestart => return Ok(Outcome::PlannedRestart { begin: true }),
            Action::DropPlannedRestart => return Ok(Outcome::PlannedRestart { begin: false }),
            Action::FinishOrder { done } => return Ok(Outcome::OrderFinished { done: *done }),
            Action::Exit(why) => return Ok(Outcome::Exit(*why)),
        }
        Ok(Outcome::Done)
    }

    fn lease(&self) -> anyhow::Result<LeaseId> {
        Ok(self
            .keeper
            .lease()
            .id
            .ok_or_else(|| NotYet("use the lease: there is none at the moment".to_owned()))?)
    }

    async fn acquire(&self, turn: &Turn) -> anyhow::Result<()> {
        let _taking = self.failsafe.take()?;
        let (lease, me) = (self.lease()?, &self.settings.name);
        let of = |seen| Grounds::of(seen, turn.dynamic.failsafe_mode);
        let grounds = turn.snapshot.as_deref().map(of).unwrap_or_default();
        let Some(term) = self.etcd.acquire_leader_over(me, lease, grounds, turn.by).await? else {
            bail!(Faster("take the lead"));
        };
        self.keeper.took_lead(lease, term);
        Ok(())
    }

    async fn adopt(&self, term: Term, by: Moment) -> anyhow::Result<()> {
        let _taking = self.failsafe.take()?;
        let lease = self.lease()?;
        if !self.etcd.adopt_leader(&self.settings.name, term, lease, by).await? {
            bail!("keep the lead: the leader key of term {term} is gone");
        }
        self.keeper.took_lead(lease, term);
        Ok(())
    }

    async fn arm(&self, term: Term) -> anyhow::Result<()> {
        self.warden.ensure()?;
        // A guard that was started a moment ago has not taken its place yet.
        let began = clock::now();
        while self.warden.state() == ha::Guard::Absent && clock::now().since(began) < GUARD_WITHIN {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let deadline = self.check_authority(term)?;
        if !self.warden.arm(term, deadline) {
            bail!("arm the guard: its process does not run");
        }
        Ok(())
    }

    /// The door: with a fresh look at the clock.
    fn check_authority(&self, term: Term) -> anyhow::Result<Moment> {
        drop(self.failsafe.take()?);
        match self.keeper.authority() {
            Authority::Held { term: held, deadline } if held == term && clock::now() < deadline => {
                Ok(deadline)
            }
            Authority::Held { .. } | Authority::None => {
                bail!("act as the leader of term {term}: the authority has ended in the meantime")
            }
        }
    }

    /// Promotes, with a timeline number that no member has used: PostgreSQL alone only knows the numbers of its own past.
    async fn promote(&self, term: Term, turn: &Turn) -> anyhow::Result<()> {
        let snapshot = turn.snapshot.as_deref().context("promote: the cluster was not read yet")?;
        let own = self.local.timeline().context("promote: the own timeline is not known yet")?;
        let next = Timeline(timelines::newest(snapshot).max(own).0.saturating_add(1));
        self.etcd.put_timeline(next, term, turn.by).await?;
        let data_dir = self.local.data_dir().to_owned();
        let taken = tokio::task::spawn_blocking(move || timelines::skip_to(&data_dir, own, next));
        tokio::time::timeout(Duration::from_secs(5), taken)
            .await
            .context("promote: the disk does not answer")???;
        self.check_authority(term)?;
        self.slots.warn_of_unready();
        self.local.promote().await?;
        Ok(())
    }

    async fn configure(&self, role: As, turn: &Turn) -> anyhow::Result<Vec<(String, String)>> {
        let (settings, dynamic, local) = (self.settings.clone(), turn.dynamic.clone(), self.local.clone());
        let write = tokio::task::spawn_blocking(move || {
            if matches!(role, As::Standby(_)) {
                timelines::forget_skipped(local.data_dir());
            }
            let mut effective = configure::effective(&settings, &dynamic, &local);
            configure::write(&settings, &mut effective, &local, &role).map(|_| effective.command_line)
        });
        let written = tokio::time::timeout(Duration::from_secs(10), write).await;
        Ok(written.context("write PostgreSQL's configuration: the disk does not answer")???)
    }

    async fn put_sync(&self, promise: &Promise, over: i64, term: Term, by: Moment) -> anyhow::Result<()> {
        let sync = etcd::Sync {
            leader: Some(self.settings.name.clone()),
            quorum: u32::try_from(promise.quorum).unwrap_or(u32::MAX),
            sync_standby: promise.voters.iter().cloned().collect(),
            mod_revision: 0,
        };
        self.etcd.put_sync(&sync, Some(over), term, by).await?;
        Ok(())
    }

    /// A running primary takes the names up at once; one that starts, or is promoted, with its configuration.
    async fn set_synchronous(&self, names: Option<StandbyNames>, turn: &Turn) -> anyhow::Result<()> {
        self.local.names().choose(names);
        if self.local.is_primary() {
            self.configure(As::Primary, turn).await?;
            self.local.reload_for_names()?;
        }
        Ok(())
    }

    async fn start(&self, role: As, turn: &Turn) -> anyhow::Result<()> {
        let (term, upstream) = match &role {
            As::Primary => {
                let Authority::Held { term, .. } = self.keeper.authority() else {
                    bail!("start PostgreSQL as the primary: the authority has ended in the meantime");
                };
                self.check_authority(term)?;
                (Some(term), None)
            }
            As::Standby(sender) => (None, Some(sender.word())),
        };
        let standby = matches!(role, As::Standby(_));
        let args = self.configure(role, turn).await?;
        slots::place_copies(&self.local, standby).await;
        if upstream == Some(Upstream::Archive) {
            self.local.remove_half_received().await;
        }
        self.local.look_at_data().await;
        // All of that may have taken long, and what comes may: the new process looks at the clock once more itself.
        let not_after = term.map(|term| self.check_authority(term)).transpose()?;
        self.local.start(args, upstream, not_after).await?;
        Ok(())
    }

    async fn follow(&self, upstream: &Upstream, turn: &Turn) -> anyhow::Result<()> {
        let sender = find(upstream, turn)
            .ok_or_else(|| NotYet(format!("follow {upstream}: no address of it is known at the moment")))?;
        self.configure(As::Standby(sender), turn).await?;
        self.local.reload(Some(upstream.clone()))?;
        Ok(())
    }

    fn begin(&self, work: &Work, turn: &Turn) {
        let source = match work {
            Work::Clone(from) | Work::Rewind { from, .. } => find(from, turn),
            Work::Bootstrap
            | Work::Checkpoint
            | Work::ArchiveTail
            | Work::PrePromote(_)
            | Work::HandTail { .. } => None,
        };
        let peer = match work {
            Work::HandTail { to, .. } => {
                let member = turn.snapshot.as_deref().and_then(|snapshot| snapshot.members.get(to));
                let url = member.and_then(|member| member.api_url.clone());
                url.map(|url| (self.peers.client(), url))
            }
            Work::Clone(_)
            | Work::Rewind { .. }
            | Work::Bootstrap
            | Work::Checkpoint
            | Work::ArchiveTail
            | Work::PrePromote(_) => None,
        };
        let tools = Tools {
            settings: self.settings.clone(),
            dynamic: turn.dynamic.clone(),
            local: self.local.clone(),
            source,
            peer,
        };
        self.jobs.begin(work.clone(), tools);
    }

    /// Asks all others whether we may lead on; with the positions of our slots, which they keep up with meanwhile.
    fn ask_failsafe(&self, term: Term, names: &[types::NodeName], turn: &Turn) {
        let settings = &self.settings;
        let mut question = serde_json::json!({
            "name": settings.name.as_str(),
            "conn_url": settings.conn_url(),
            "api_url": settings.api_url(),
            // Of Baton alone: whoever has not heard of a shorter ttl yet keeps its word as long as we rely on it.
            "ttl": turn.dynamic.ttl,
        });
        let slots = publish::slot_positions(&self.local, &settings.name);
        if let (false, Some(question)) = (slots.is_empty(), question.as_object_mut()) {
            let slots = slots.into_iter().map(|(name, lsn)| (name, lsn.0.into())).collect();
            question.insert("slots".to_owned(), serde_json::Value::Object(slots));
        }
        let mut urls = self.failsafe.kept().cloned().unwrap_or_default();
        if let Some(snapshot) = turn.snapshot.as_deref() {
            urls = snapshot.failsafe.clone().unwrap_or_default();
            let members = snapshot.members.iter();
            urls.extend(members.filter_map(|(name, member)| Some((name.clone(), member.api_url.clone()?))));
        }
        self.failsafe.ask(&self.peers.client(), term, names, &urls, question);
    }

    fn read_history(&self, of: &Upstream, turn: &Turn) -> anyhow::Result<()> {
        let sender = find(of, turn).ok_or_else(|| {
            NotYet(format!("ask {of} for its history: no address of it is known at the moment"))
        })?;
        let login = &self.settings.postgresql.authentication.replication;
        self.peers.read_history(of.clone(), sender.connections(login, "postgres", "baton history"));
        Ok(())
    }
}

fn find(upstream: &Upstream, turn: &Turn) -> Option<Sender> {
    Sender::find(upstream, turn.snapshot.as_deref(), &turn.dynamic)
}
