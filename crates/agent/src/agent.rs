//! The loop: observe, decide, act.
//!
//! ```text
//!        ┌───────────── any event, or the moment the decision asked for ◄─────────────┐
//!        ▼                                                                            │
//!     observe ──Observation──► ha::decide ──Decision──► journal ──► act, in order ──► publish
//! ```
//! The loop itself waits for nothing slow: the lease, the probes, the watch, the jobs, the peers and the REST API are tasks beside
//! it, and an action on etcd ends with its deadline.

use crate::act::{Faster, Hands, NotYet, Outcome, Turn};
use crate::addresses::Addresses;
use crate::api::{self, Shared};
use crate::archiving::ArchivingCheck;
use crate::callbacks::{self, Event};
use crate::config_cache::{self, ConfigCache};
use crate::configure::{self, As, Upstream};
use crate::continuity::{ContinuityCheck, Leads};
use crate::error::Error;
use crate::failsafe::Failsafe;
use crate::failsafe_cache;
use crate::guard::Warden;
use crate::in_force::InForce;
use crate::jobs::Jobs;
use crate::journal::Journal;
use crate::keeper::Keeper;
use crate::local::Local;
use crate::losses::Losses;
use crate::lost_wal::LostWalCheck;
use crate::notify;
use crate::observe;
use crate::orders::Orders;
use crate::peers::{self, Peers};
use crate::planned::Planned;
use crate::publish::{self, Leading, Publisher, Word};
use crate::readiness::Readiness;
use crate::reload::{self, Reader};
use crate::signals::{Signal, Signals};
use crate::signs::{Health, Signs};
use crate::slots::{Round, Slots};
use crate::surroundings::{Log, Surroundings};
use crate::upstream::Sender;
use crate::wake::{Cell, Wake};
use crate::watchdog::Watchdog;
use crate::what_if::{Scene, WhatIf};
use etcd::{Etcd, Keys, Snapshot, View};
use ha::{Authority, Data, ExitWhy, Memory, Observation, Postgres, Rules, Running};
use postgres::data_dir::{self, DataDir};
use postgres::installation::Installation;
use serde_json::Value;
use settings::{Dynamic, Loaded, Problems, Settings};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use types::{Moment, NodeName, PostgresState, Role};

/// An agent that is started again as the leader in failsafe mode goes on without etcd after this time.
const GOES_ON_AFTER: Duration = Duration::from_millis(500);

/// What a Patroni in the same cluster takes for our version: the one whose contract we keep.
pub const CONTRACT_VERSION: &str = "4.1.5";

/// Runs the agent until it is told to end.
pub async fn run(settings: Settings, surroundings: Surroundings) -> Result<(), Error> {
    let Some(mut agent) = Agent::start(settings, surroundings).await? else {
        notify::stopping();
        return Ok(());
    };
    let why = agent.turn_forever().await;
    notify::stopping();
    agent.end(why).await
}

/// The role, the revision of the configuration, and the standbys that consumers of failover slots wait for.
type Configured = (As, i64, Option<Vec<String>>);

struct Agent {
    settings: Arc<Settings>,
    hands: Hands,
    view: watch::Receiver<View>,
    publisher: Publisher,
    continuity: ContinuityCheck,
    journal: Arc<Cell<Journal>>,
    orders: Orders,
    planned: Planned,
    signals: Signals,
    reader: Reader,
    log: Arc<dyn Log>,
    wake: Wake,
    signs: Signs,
    /// As the REST API tells it.
    health: Arc<Cell<Health>>,
    memory: Memory,
    dynamic: Arc<Dynamic>,
    /// The configuration as last understood, and the revision of the key it came from.
    config: Value,
    config_revision: i64,
    /// Whether another member was a Patroni then.
    beside_patroni: bool,
    cache: ConfigCache,
    /// The keys that cannot be understood, as last reported.
    spoiled: Vec<etcd::Spoiled>,
    /// The role and configuration that PostgreSQL's files were last written for while it runs.
    configured: Option<Configured>,
    /// PostgreSQL is to read its files again whether they change or not: somebody asked for it.
    reload_postgres: bool,
    /// What the operator's commands have been told of.
    changes: callbacks::Changes,
    callbacks: callbacks::Runner,
    status: notify::Status,
    began: Moment,
    shared: Arc<Shared>,
    /// Tells the cluster's names as long as it is there.
    _names: Option<Arc<dns::Dns>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Agent {
    /// `None` when it was told to end before there was an etcd to work with.
    async fn start(settings: Settings, surroundings: Surroundings) -> Result<Option<Agent>, Error> {
        let settings = Arc::new(settings);
        let data_dir = settings.postgresql.data_dir.clone();
        let (config, config_revision) = (config_cache::initial(&settings, &data_dir), 0);
        let dynamic = Arc::new(settings::dynamic(&config, false).0);
        let bin_dir = settings.postgresql.bin_dir.as_deref().or(dynamic.bin_dir.as_deref());
        let installation = Installation::find(bin_dir).await.map_err(Error::Installation)?;
        check_data_dir(&data_dir, &installation)?;
        let listener = api::bind(&settings.restapi)?;
        let tls = api::acceptor(&settings.restapi).map_err(Error::Certificate)?;
        let wake = Wake::default();
        let warden = Arc::new(Warden::open(&data_dir)?);
        let connect = configure::local_connection(&settings, &dynamic);
        let local = Local::new(installation, data_dir, connect, wake.clone());
        local.look_at_data().await;
        let etcd = connect_etcd(&settings)?;
        let (view, watcher) = etcd::watch(etcd.clone());
        local.names().set_rules(observe::synchronous(&dynamic));
        let rules = rules(&settings, &dynamic);
        let watchdog = Watchdog::new(wake.clone())?;
        let signs = Signs::new(local.clone(), warden.clone(), wake.clone(), rules.clone())?;
        let health = Arc::new(Cell::new(Health::default()));
        let keeper = Keeper::new(
            etcd.clone(),
            settings.name.clone(),
            warden.clone(),
            watchdog.clone(),
            wake.clone(),
            rules,
        );
        let kept =
            keeper.lease().term.and_then(|term| failsafe_cache::read(local.data_dir(), term, &settings.name));
        let failsafe = Failsafe::new(wake.clone(), kept);
        let journal = Arc::new(Cell::new(Journal::default()));
        let addresses =
            Addresses::start(&settings, keeper.clone(), etcd.clone(), view.clone(), journal.clone())?;
        let names = names(&settings, view.clone()).await?;
        let orders = Orders::new(wake.clone());
        let planned = Planned::new(wake.clone());
        let slots = Slots::new(settings.clone(), local.clone(), orders.clone());
        let publisher = Publisher::new(
            etcd.clone(),
            settings.name.clone(),
            keeper.clone(),
            local.clone(),
            slots.clone(),
            failsafe.clone(),
        );
        let losses =
            Losses::new(etcd.clone(), settings.name.clone(), local.data_dir().to_owned(), journal.clone());
        let continuity =
            ContinuityCheck::new(etcd.clone(), settings.name.clone(), local.clone(), journal.clone());
        let jobs = Jobs::new(wake.clone(), losses.clone());
        let in_force = InForce::new(settings.clone(), dynamic.clone());
        let readiness = Readiness::new(in_force.clone(), local.clone(), view.clone());
        let lost_wal = LostWalCheck::new(in_force.clone(), local.clone(), view.clone(), journal.clone());
        let archiving = ArchivingCheck::new(local.clone(), journal.clone());
        let signals = Signals::new(wake.clone());
        signals.install()?;
        let reader = Reader::new(surroundings.file, wake.clone());
        let shared = Arc::new(Shared {
            questions: Shared::questions(),
            in_force: in_force.clone(),
            etcd: etcd.clone(),
            view: view.clone(),
            local: local.clone(),
            keeper: keeper.clone(),
            watchdog: watchdog.clone(),
            jobs: jobs.clone(),
            losses: losses.clone(),
            readiness: readiness.clone(),
            lost_wal: lost_wal.clone(),
            archiving: archiving.clone(),
            journal: journal.clone(),
            orders: orders.clone(),
            planned: planned.clone(),
            signals: signals.clone(),
            log: surroundings.log.clone(),
            failsafe: failsafe.clone(),
            signs: signs.clone(),
            health: health.clone(),
            addresses: addresses.clone(),
            names: names.clone(),
            slots: slots.clone(),
            what_if: WhatIf::new(),
            vouched: Cell::new(None),
            turned: Cell::new(clock::now()),
            tls: Cell::new(tls),
        });
        api::serve(listener, shared.clone())?;
        notify::ready();
        if local.adopt().map_err(|error| Error::DataDirectory {
            path: local.data_dir().to_owned(),
            why: error.to_string(),
        })? {
            tracing::info!("took up the PostgreSQL that runs on the data directory");
        }
        let mut tasks = vec![tokio::spawn(local.clone().probe_forever()), tokio::spawn(signs.clone().run())];
        // A lead that may go on without etcd must not end by waiting for it.
        let patience = failsafe.kept().filter(|_| keeper.authority() != Authority::None);
        let patience = patience.map_or(Duration::MAX, |_| GOES_ON_AFTER);
        let told_to_end = signals.told_to_end(&wake);
        let waited = wait_for_etcd(view.clone(), &settings.name, &settings, &keeper, patience);
        tokio::select! {
            done = waited => done?,
            () = told_to_end => return Ok(None),
        }
        planned.take_up(left_behind(&view.borrow(), &settings.name));
        keeper.turned(&self::rules(&settings, &dynamic));
        if view.borrow().snapshot.is_some() {
            keeper.first_beat(Duration::from_secs(2)).await;
        }
        tasks.push(tokio::spawn(keeper.clone().run()));
        tasks.push(tokio::spawn(publisher.clone().run()));
        tasks.push(tokio::spawn(slots.clone().run()));
        tasks.push(tokio::spawn(losses.run()));
        tasks.push(tokio::spawn(continuity.clone().run()));
        tasks.push(tokio::spawn(readiness.run()));
        tasks.push(tokio::spawn(lost_wal.run()));
        tasks.push(tokio::spawn(archiving.run()));
        tasks.push(tokio::spawn(addresses.clone().tell_neighbors(etcd.clone(), settings.name.clone())));
        tasks.push(tokio::spawn(wake_on_view(view.clone(), wake.clone(), watcher)));
        let peers = Peers::new(http::Client::for_members(&settings.ctl), wake.clone());
        let callbacks = callbacks::Runner::new(&settings.scope);
        let memory = Memory { crashes: local.pace().crashes(), ..Memory::default() };
        let hands = Hands {
            etcd,
            settings: settings.clone(),
            keeper,
            warden,
            watchdog,
            local,
            jobs,
            peers,
            slots,
            failsafe,
            addresses,
        };
        Ok(Some(Agent {
            settings,
            hands,
            view,
            publisher,
            continuity,
            journal,
            orders,
            planned,
            signals,
            reader,
            log: surroundings.log,
            wake,
            signs,
            health,
            memory,
            dynamic,
            config,
            config_revision,
            beside_patroni: false,
            cache: ConfigCache::default(),
            spoiled: Vec::new(),
            configured: None,
            reload_postgres: false,
            changes: callbacks::Changes::default(),
            callbacks,
            status: notify::Status::default(),
            began: clock::now(),
            _names: names,
            shared,
            tasks,
        }))
    }

    /// Turns until a decision, or a signal, ends it. `None`: without touching PostgreSQL.
    async fn turn_forever(&mut self) -> Option<ExitWhy> {
        loop {
            match self.signals.take() {
                Some(Signal::Detach) => return None,
                Some(Signal::Reload) => {
                    notify::reloading();
                    self.reader.begin();
                }
                Some(Signal::Stop) => self.orders.shut_down(),
                None => {}
            }
            let wake_at = match self.turn().await {
                Ok(wake_at) => wake_at,
                Err(why) => return Some(why),
            };
            let rest = clock::now().until(wake_at);
            let _ = tokio::time::timeout(rest, self.wake.changed()).await;
        }
    }

    /// One turn; returns when the next is due, or why the agent ends.
    async fn turn(&mut self) -> Result<Moment, ExitWhy> {
        let view = self.view.borrow().clone();
        if let Some(read) = self.reader.take() {
            self.take_settings(read);
        }
        self.take_config(&view);
        self.cache.keep(&self.config, self.config_revision, &self.hands.local);
        if let Err(error) = self.hands.warden.ensure() {
            tracing::error!(%error, "failed to have a guard");
        }
        self.hands.warden.serves(self.hands.local.life().postmaster.map(|postmaster| postmaster.pid));
        let seen = self.observe(&view);
        let now = clock::now();
        self.hands.keeper.turned(&seen.rules);
        self.hands.addresses.check_hold(&seen.rules);
        self.shared.turned.with(|turned| *turned = now);
        self.signs.turned(&seen.rules, is_settled(&seen));
        let decision = ha::decide(&seen, &self.memory, now);
        let once = self.settings.log.deduplicate_heartbeat_logs;
        self.journal.with(|journal| journal.note(&seen, &decision, now, once));
        self.note_health(&seen, &decision.reason, now);
        self.memory = decision.memory.clone();
        self.hands.addresses.parting(self.memory.step_aside.is_some());
        self.hands.local.pace().note_crashes(&self.memory.crashes);
        let turn = Turn {
            snapshot: view.snapshot.clone(),
            dynamic: self.dynamic.clone(),
            history_rows: match self.dynamic.max_timelines_history {
                0 => 1000,
                rows => rows as usize,
            },
            by: self.etcd_deadline(&seen, now),
        };
        let mut failed = false;
        for (at, action) in decision.actions.iter().enumerate() {
            match self.hands.act(action, &turn).await {
                Ok(Outcome::Done) if matches!(action, ha::Action::Follow(_)) => {
                    if let Some(role) = self.changes.role() {
                        self.callbacks.run(self.callback_commands(), Event::Reload, role);
                    }
                }
                Ok(Outcome::Done) => {}
                Ok(Outcome::Exit(why)) => {
                    self.call_back(&seen, &decision);
                    return Err(why);
                }
                Ok(Outcome::PlannedRestart { begin }) => {
                    let plan = self.planned.take().filter(|_| begin);
                    if let Some(plan) = plan {
                        // An order that waits already does the same.
                        let _ = self.orders.give(ha::Order::Restart { within: plan.within() });
                    }
                }
                Ok(Outcome::OrderFinished { done }) => {
                    let (_, text) = self.journal.with(|journal| journal.now()).unwrap_or_default();
                    self.orders.finish(seen.order.as_ref(), done, &text);
                }
                Err(error) => {
                    report(action, &error);
                    self.memory.void(decision.actions.get(at..).unwrap_or_default());
                    failed = true;
                    break;
                }
            }
        }
        if let Some(snapshot) = &view.snapshot {
            self.hands.addresses.learn(snapshot, &self.settings.name);
        }
        let memory = &self.memory;
        let begun = memory.ordered.is_some() || memory.step_aside.is_some() || memory.returning;
        let idle = !begun && seen.job == ha::Job::Idle;
        self.hands.local.expect_start_by_hand(seen.rules.pause && idle);
        let leads = seen.leads(clock::now()).is_some() && !seen.rules.pause;
        self.hands.watchdog.follow(self.hands.warden.state(), leads);
        self.publish(&seen, &view);
        self.status.follow(&seen, now);
        self.call_back(&seen, &decision);
        self.reconfigure(&seen, &view);
        self.shared.what_if.leave(Scene { seen, memory: self.memory.clone(), at: now });
        let soon = now.after(Duration::from_millis(if failed { 100 } else { 5 }));
        let acted = !decision.actions.is_empty();
        Ok(if acted || failed {
            decision.wake_at.min(soon.after(Duration::from_millis(15)))
        } else {
            decision.wake_at
        })
    }

    /// Notes what the others have to know of this host; a primary that could not be ended is told aloud.
    fn note_health(&self, seen: &Observation, reason: &ha::Reason, now: Moment) {
        let unfenced = match reason {
            ha::Reason::NotFenced(ha::duties::not_fenced::Why::NotFenced { since }) => Some(*since),
            _ => None,
        };
        let health = Health { sick: seen.sick_disk(now), unfenced };
        let before = self.health.with(|kept| std::mem::replace(kept, health));
        match (before.unfenced, unfenced) {
            (None, Some(_)) => tracing::error!(
                "NOT FENCED: processes of this primary were killed and do not end; the leader key is not released, and its lease is left to end"
            ),
            (Some(_), None) => tracing::info!("no process of the old primary is left: it is fenced"),
            (_, _) => {}
        }
    }

    /// An action on etcd ends in time for what comes next.
    fn etcd_deadline(&self, seen: &Observation, now: Moment) -> Moment {
        let by = now.after(seen.rules.retry_timeout.min(Duration::from_secs(2)));
        match seen.authority {
            Authority::Held { deadline, .. } if seen.may_be_primary() => {
                by.min(deadline.before(seen.rules.stop_budget())).max(now.after(Duration::from_millis(50)))
            }
            Authority::Held { .. } | Authority::None => by,
        }
    }

    fn observe(&mut self, view: &View) -> Observation {
        let lease = self.hands.keeper.lease();
        let local = &self.hands.local;
        self.note_upstream(view);
        let postgres = observe::postgres(local);
        Observation {
            me: self.settings.name.clone(),
            tags: self.settings.tags.clone(),
            rules: self.rules(),
            etcd: observe::etcd(view, &self.settings.name, &lease, self.began),
            authority: self.hands.keeper.authority(),
            data: local.data(),
            pace: local.pace().observe(),
            postgres,
            replication: observe::replication(local),
            job: self.hands.jobs.running(),
            finished: self.hands.jobs.take_finished(),
            guard: self.hands.warden.state(),
            watchdog: self.hands.watchdog.look(&self.settings.watchdog, &self.rules()),
            signs: self.signs.now(),
            peers: self.hands.peers.answers(),
            leader_history: self.hands.peers.history(),
            order: self.orders.head(),
            planned: self.planned(),
            failsafe: self.hands.failsafe.observe(),
            vouched: self.shared.vouched.get(),
        }
    }

    fn planned(&self) -> Option<ha::PlannedRestart> {
        let facts = self.hands.local.seen().facts;
        let started = facts.as_ref().map(|(facts, _)| facts.postmaster_start_time.as_str());
        self.planned.observe(started, &api::present(&self.shared))
    }

    fn rules(&self) -> Rules {
        rules(&self.settings, &self.dynamic)
    }

    /// A standby that was taken up: find out whom it follows.
    fn note_upstream(&self, view: &View) {
        let local = &self.hands.local;
        if local.life().upstream.is_some() {
            return;
        }
        let seen = local.seen();
        let Some(receiver) = seen.facts.as_ref().and_then(|(facts, _)| facts.receiver.clone()) else {
            return;
        };
        let (Some(host), Some(port)) = (receiver.sender_host, receiver.sender_port) else { return };
        let Some(snapshot) = &view.snapshot else { return };
        let found = snapshot.members.iter().find(|(name, member)| {
            let upstream = member.conn_url.as_deref().and_then(|url| Upstream::of(name, url));
            upstream.is_some_and(|upstream| upstream.host == host && upstream.port == port)
        });
        let remote = self.dynamic.standby_cluster.clone().map(Sender::Remote);
        let remote = remote.is_some_and(|remote| remote.addresses().contains(&(host.clone(), port)));
        let found = found.map(|(name, _)| ha::Upstream::Member(name.clone()));
        local.follows(found.or(remote.then_some(ha::Upstream::Remote)));
    }

    /// Says once which keys cannot be understood, and what to do about each.
    fn report_spoiled(&mut self, snapshot: &Snapshot) {
        for found in snapshot.spoiled.iter().filter(|found| !self.spoiled.contains(found)) {
            tracing::warn!(
                key = found.key,
                "a key in etcd cannot be understood, what was known before stays in effect: {}",
                found.why
            );
        }
        if self.spoiled != snapshot.spoiled {
            self.spoiled.clone_from(&snapshot.spoiled);
        }
    }

    /// Takes up the dynamic configuration when its key has changed.
    fn take_config(&mut self, view: &View) {
        let Some(snapshot) = &view.snapshot else { return };
        self.report_spoiled(snapshot);
        // A Patroni that joins brings its floors along, the last one that leaves takes them with it.
        let patroni = another_is_patroni(snapshot, &self.settings.name);
        let changed = |key: &&etcd::ConfigKey| {
            key.mod_revision != self.config_revision || patroni != self.beside_patroni
        };
        let Some(config) = snapshot.config.as_ref().filter(changed) else { return };
        self.config_revision = config.mod_revision;
        self.beside_patroni = patroni;
        if config.value.as_object().is_some_and(serde_json::Map::is_empty) {
            return; // as good as missing: the leader writes back what is in effect
        }
        let kept = settings::keep_good(&config.value, &self.config);
        let (dynamic, warnings) = settings::dynamic(&kept, patroni);
        let mut said = settings::dynamic(&config.value, patroni).1;
        said.extend(warnings.into_iter().filter(|warning| !said.contains(warning)).collect::<Vec<_>>());
        for warning in &said {
            tracing::warn!("dynamic configuration: {warning}");
        }
        if *self.dynamic != dynamic {
            tracing::info!(revision = config.mod_revision, "took up the dynamic configuration");
        }
        self.config = kept;
        if self.settings.postgresql.bin_dir.is_none() && self.dynamic.bin_dir != dynamic.bin_dir {
            tracing::warn!(
                "postgresql.bin_dir of the dynamic configuration has changed, which takes effect at the next start of the agent (SIGUSR2 ends it and leaves PostgreSQL running)"
            );
        }
        self.hands.local.names().set_rules(observe::synchronous(&dynamic));
        self.hands.local.reconnect(configure::local_connection(&self.settings, &dynamic));
        self.dynamic = Arc::new(dynamic);
        self.shared.in_force.use_dynamic(&self.dynamic);
    }

    /// Takes up the file that was read again; a broken one changes nothing.
    fn take_settings(&mut self, read: Result<Loaded, Problems>) {
        notify::ready();
        let loaded = match read {
            Ok(loaded) => loaded,
            Err(problems) => {
                let count = problems.0.len();
                tracing::error!(count, "the settings stay as they were, because the new ones are broken");
                for problem in &problems.0 {
                    tracing::error!("{problem}");
                }
                return;
            }
        };
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let (settings, later) = reload::merged(&self.settings, loaded.settings);
        for key in later {
            tracing::warn!(
                "{key} has changed, which takes effect at the next start of the agent (SIGUSR2 ends it and leaves PostgreSQL running)"
            );
        }
        if let Err(error) = self.log.reconfigure(&settings.log) {
            tracing::error!("the log stays as it was: {error}");
        }
        let settings = Arc::new(settings);
        self.hands.local.reconnect(configure::local_connection(&settings, &self.dynamic));
        self.hands.peers.use_client(http::Client::for_members(&settings.ctl));
        self.hands.slots.use_settings(&settings);
        self.shared.in_force.use_settings(&settings);
        self.hands.settings = settings.clone();
        self.shared.renew_certificate();
        self.settings = settings;
        self.reload_postgres = true;
        self.configured = None;
        tracing::info!("the settings were read again");
    }

    /// Writes PostgreSQL's files again when its role or the configuration has changed while it runs.
    fn reconfigure(&mut self, seen: &Observation, view: &View) {
        let role = match &seen.postgres {
            Postgres::Running(Running::Primary { .. }) => As::Primary,
            Postgres::Running(Running::Standby { upstream: Some(upstream), .. }) => {
                match Sender::find(upstream, view.snapshot.as_deref(), &self.dynamic) {
                    Some(sender) => As::Standby(sender),
                    None => return,
                }
            }
            Postgres::Running(Running::Standby { upstream: None, .. })
            | Postgres::Stopped
            | Postgres::Starting { .. }
            | Postgres::Stopping { .. }
            | Postgres::Unresponsive { .. } => {
                self.configured = None;
                return;
            }
        };
        let wanted = Some((role.clone(), self.config_revision, self.hands.local.awaited_slots()));
        if self.configured == wanted {
            return;
        }
        self.configured = wanted;
        let (settings, dynamic, local) =
            (self.settings.clone(), self.dynamic.clone(), self.hands.local.clone());
        let always = std::mem::take(&mut self.reload_postgres);
        let (callbacks, commands) = (self.callbacks.clone(), self.callback_commands().clone());
        let name = self.changes.role();
        tokio::spawn(async move {
            let reloaded = rewrite(settings, dynamic, local, role, always).await;
            if let Some(name) = name.filter(|_| reloaded) {
                callbacks.run(&commands, Event::Reload, name);
            }
        });
    }

    /// Runs the operator's command for what has changed.
    fn call_back(&mut self, seen: &Observation, decision: &ha::Decision) {
        if let Some((event, role)) = self.changes.since(seen, decision) {
            self.callbacks.run(self.callback_commands(), event, role);
        }
    }

    fn callback_commands(&self) -> &settings::Callbacks {
        self.settings.postgresql.callbacks.as_ref().unwrap_or(&self.dynamic.callbacks)
    }

    fn publish(&self, seen: &Observation, view: &View) {
        let member = self.member(seen);
        let leading = match (&seen.postgres, seen.leads(clock::now())) {
            (Postgres::Running(running), Some(term)) if may_speak(running, &seen.rules) => Some(Leading {
                term,
                writes: matches!(running, Running::Primary { .. }),
                timeline: position(running).0,
                lsn: position(running).1,
                config: self.config.clone(),
                failsafe: self.dynamic.failsafe_mode,
            }),
            (_, _) => None,
        };
        // A standby that leads archives nothing unless it is told to, and promotes nothing.
        let leads = leading.as_ref().filter(|leading| leading.writes).and_then(|leading| {
            Some(Leads {
                term: leading.term,
                timeline: leading.timeline,
                lsn: leading.lsn,
                command: self.dynamic.archive_check.clone()?,
                within: Duration::from_secs(self.dynamic.archive_check_timeout.into()),
                snapshot: view.snapshot.clone()?,
            })
        });
        self.continuity.leads(leads);
        let round = Round::of(seen, &self.dynamic, self.config_revision, view.snapshot.clone());
        self.hands.slots.look_after(round.map(|round| round.with(&self.hands.failsafe)));
        let unfenced =
            self.health.get().unfenced.map(|_| "its primary was killed, and processes of it do not end");
        self.publisher.say(Word {
            member,
            unfenced,
            loop_wait: seen.rules.loop_wait,
            retry_timeout: seen.rules.retry_timeout,
            snapshot: view.snapshot.clone(),
            leading,
        });
    }

    fn member(&self, seen: &Observation) -> etcd::Member {
        let (state, role) = state_and_role(seen, self.hands.jobs.creation());
        let settings = &self.settings;
        let mut member = etcd::Member::new(state, role);
        let postgresql = &settings.postgresql;
        member.conn_url = Some(settings.conn_url());
        member.api_url = Some(settings.api_url());
        member.version = Some(CONTRACT_VERSION.to_owned());
        member.baton = Some(env!("CARGO_PKG_VERSION").to_owned());
        member.proxy_url.clone_from(
            &postgresql
                .proxy_address
                .as_ref()
                .map(|address| format!("postgres://{address}/{}", postgresql.database)),
        );
        member.sick = self.health.get().sick.map(|ailment| ailment.to_string());
        member.waits_for = self.shared.lost_wal.found().map(|lost| lost.to_string());
        member.archives_nothing = self.shared.archiving.trouble().map(|trouble| trouble.to_string());
        member.tags = settings.tags.published();
        if self.memory.leaving_sync.is_some() {
            member.tags = member.tags.without_sync();
        }
        member.pause = self.dynamic.pause;
        member.scheduled_restart = self.planned.published();
        if let Postgres::Running(running) = &seen.postgres {
            let facts = self.hands.local.seen().facts.map(|(facts, _)| facts);
            member.pending_restart_reason = self.hands.local.pending();
            member.pending_restart = !member.pending_restart_reason.is_empty();
            match running {
                Running::Primary { timeline, lsn } => {
                    member.timeline = Some(*timeline);
                    member.xlog_location = Some(*lsn);
                    if let Some(term) = seen.leads(clock::now())
                        && timeline.0 > 1
                        && self.publisher.owes_checkpoint(term, *timeline)
                    {
                        member.checkpoint_after_promote = Some(false);
                    }
                }
                Running::Standby { timeline, lsn, .. } => {
                    member.timeline = Some(*timeline);
                    member.xlog_location = Some(*lsn);
                    if let Some(facts) = &facts {
                        member.replication_state = publish::replication_state(facts).map(str::to_owned);
                        member.replay_lsn = facts.replayed_lsn;
                        member.receive_lsn = facts.received_lsn;
                    }
                }
            }
        }
        member
    }

    /// Ends in order: off the list, without a lease, the guard dismissed. `None` leaves everything as it is.
    async fn end(self, why: Option<ExitWhy>) -> Result<(), Error> {
        for task in &self.tasks {
            task.abort();
        }
        self.hands.watchdog.dismiss().await;
        self.callbacks.finish().await;
        let Some(why) = why else {
            tracing::info!("the agent ends and leaves PostgreSQL, its lease and its guard as they are");
            return Ok(());
        };
        self.hands.addresses.end().await;
        let running = self.hands.local.life().postmaster.is_some();
        if !running {
            let by = clock::now().after(Duration::from_secs(2));
            if let Some(lease) = self.hands.keeper.lease().id
                && let Err(error) = self.hands.etcd.revoke(lease, by).await
            {
                tracing::warn!(%error, "failed to give the lease back; the member key ends with it");
            }
            self.hands.warden.dismiss();
        }
        match why {
            ExitWhy::Stopped => Ok(()),
            ExitWhy::ForeignData => Err(Error::ForeignData),
            ExitWhy::BootstrapFailed => Err(Error::BootstrapFailed),
        }
    }
}

/// Begins to tell the cluster's names, where the settings want it.
async fn names(settings: &Settings, view: watch::Receiver<View>) -> Result<Option<Arc<dns::Dns>>, Error> {
    let Some(section) = &settings.dns else { return Ok(None) };
    let config = dns::Config::of(section).map_err(Error::Names)?;
    let started = dns::Dns::start(config, view).await;
    started.map(|dns| Some(Arc::new(dns))).map_err(|error| Error::Names(error.to_string()))
}

/// Whether the data directory is a database that nothing else works on.
fn is_settled(seen: &Observation) -> bool {
    let present = matches!(seen.data, Data::Present(_));
    present
        && match &seen.job {
            ha::Job::Running { work: ha::Work::Checkpoint | ha::Work::PrePromote(_), .. } | ha::Job::Idle => {
                true
            }
            ha::Job::Running { .. } => false,
        }
}

/// Whether the holder of the lead says what a leader says: a primary, or the standby that leads a standby cluster.
fn may_speak(running: &Running, rules: &Rules) -> bool {
    match running {
        Running::Primary { .. } => true,
        Running::Standby { .. } => rules.standby_cluster,
    }
}

fn position(running: &Running) -> (types::Timeline, types::Lsn) {
    match running {
        Running::Primary { timeline, lsn } | Running::Standby { timeline, lsn, .. } => (*timeline, *lsn),
    }
}

fn rules(settings: &Settings, dynamic: &Dynamic) -> Rules {
    observe::rules(settings, dynamic)
}

/// Logs why an action failed: news, a passing lack, or a fault.
fn report(action: &ha::Action, error: &anyhow::Error) {
    match error.downcast_ref::<etcd::Error>() {
        Some(etcd::Error::Conflict) => tracing::info!(%action, "failed to {error}"),
        Some(etcd::Error::LeaseGone) => tracing::debug!(%action, "failed to {error}"),
        Some(_) | None if error.is::<Faster>() => tracing::info!("{error}"),
        Some(_) | None if error.is::<NotYet>() => tracing::debug!(%action, "failed to {error}"),
        Some(_) | None => tracing::warn!(%action, "failed to {error:#}"),
    }
}

fn check_data_dir(data_dir: &std::path::Path, installation: &Installation) -> Result<(), Error> {
    let unusable = |why: String| Error::DataDirectory { path: data_dir.to_owned(), why };
    match data_dir::inspect_for(data_dir, installation) {
        Ok(DataDir::Foreign { why }) => Err(unusable(why)),
        Ok(DataDir::Missing | DataDir::Empty) => may_create(data_dir).map_err(unusable),
        Ok(DataDir::Incomplete { .. } | DataDir::Present { .. }) => Ok(()),
        Err(error) => Err(unusable(error.to_string())),
    }
}

/// Whether a data directory can be made here by this user.
fn may_create(data_dir: &std::path::Path) -> Result<(), String> {
    use rustix::fs::Access;
    use std::os::unix::fs::MetadataExt;
    let me = rustix::process::geteuid().as_raw();
    if let Ok(found) = std::fs::metadata(data_dir)
        && found.uid() != me
    {
        let owner = found.uid();
        return Err(format!(
            "it belongs to the user with the id {owner}, and the agent runs as {me}; change its owner"
        ));
    }
    let parent = data_dir.parent().unwrap_or(data_dir);
    match rustix::fs::access(parent, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => {
            Err(format!("the directory above it, {}, cannot be written: {error}", parent.display()))
        }
    }
}

fn connect_etcd(settings: &Settings) -> Result<Etcd, Error> {
    let etcd = &settings.etcd;
    let tls = etcd::Tls { ca: etcd.cacert.clone(), cert: etcd.cert.clone(), key: etcd.key.clone() };
    let secure =
        tls.ca.is_some() || tls.cert.is_some() || etcd.endpoints.iter().any(|url| url.starts_with("https"));
    let config = etcd::Config {
        endpoints: etcd.endpoints.clone(),
        attempt: Duration::from_millis(700),
        tls: secure.then_some(tls),
        auth: etcd.authentication.as_ref().map(|credentials| etcd::Credentials {
            user: credentials.username.clone(),
            password: credentials.password.reveal().to_owned(),
        }),
    };
    Ok(Etcd::new(config, Keys::new(&settings.namespace, &settings.scope))?)
}

/// Waits until the cluster was read once, or for so long, and makes sure that nobody else runs under our name.
async fn wait_for_etcd(
    mut view: watch::Receiver<View>,
    me: &NodeName,
    settings: &Settings,
    keeper: &Keeper,
    patience: Duration,
) -> Result<(), Error> {
    loop {
        let read = view.wait_for(|view| view.snapshot.is_some());
        match tokio::time::timeout(patience.min(Duration::from_secs(5)), read).await {
            Ok(Ok(_)) => break,
            Ok(Err(_)) => return Err(Error::Etcd(etcd::Error::Unreachable { tried: Vec::new() })),
            Err(_) if patience == GOES_ON_AFTER => {
                tracing::warn!(
                    "etcd does not answer: the lead that this agent held before it was started again goes on while all others agree (failsafe mode)"
                );
                return Ok(());
            }
            Err(_) => {}
        }
        if let etcd::Contact::Never { why, .. } = &view.borrow().contact {
            tracing::warn!(why, "waiting for etcd; PostgreSQL is left as it is until it answers");
        }
    }
    let snapshot = view.borrow().snapshot.clone();
    let Some(member) = snapshot.as_ref().and_then(|snapshot| snapshot.members.get(me)) else { return Ok(()) };
    let resumed = member.lease.is_some() && member.lease == keeper.lease().id;
    let own = settings.api_url();
    let Some(api_url) = member.api_url.clone().filter(|url| !resumed && *url != own) else { return Ok(()) };
    if peers::answers(&http::Client::for_members(&settings.ctl), &api_url).await {
        return Err(Error::NameTaken { name: me.to_string(), api_url });
    }
    Ok(())
}

/// The restart that the own member key says is planned.
fn left_behind<'a>(view: &'a View, me: &NodeName) -> Option<&'a serde_json::Map<String, Value>> {
    view.snapshot.as_ref()?.members.get(me)?.scheduled_restart.as_ref()
}

async fn wake_on_view(mut view: watch::Receiver<View>, wake: Wake, _watcher: etcd::Watcher) {
    while view.changed().await.is_ok() {
        wake.wake();
    }
}

/// Whether PostgreSQL was told to read its files again.
async fn rewrite(
    settings: Arc<Settings>,
    dynamic: Arc<Dynamic>,
    local: Local,
    role: As,
    always: bool,
) -> bool {
    let upstream = match &role {
        As::Primary => None,
        As::Standby(sender) => Some(sender.word()),
    };
    let writer = local.clone();
    let written = tokio::task::spawn_blocking(move || {
        let mut effective = configure::effective(&settings, &dynamic, &writer);
        configure::write(&settings, &mut effective, &writer, &role)
    });
    match written.await {
        Ok(Ok(written)) if written.changed || always => {
            if let Err(error) = local.reload(upstream) {
                tracing::warn!(%error, "failed to make PostgreSQL read its configuration again");
            }
            return true;
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "failed to write PostgreSQL's configuration"),
        Err(error) => tracing::warn!(%error, "failed to write PostgreSQL's configuration"),
    }
    false
}

/// Whether another member runs Patroni, whose floors hold then for all.
fn another_is_patroni(snapshot: &Snapshot, me: &NodeName) -> bool {
    snapshot.members.iter().any(|(name, member)| name != me && member.baton.is_none())
}

/// What the member key and the REST API call this. `creation` is how far a new cluster is.
pub(crate) fn state_and_role(seen: &Observation, creation: PostgresState) -> (PostgresState, Role) {
    let work = match &seen.job {
        ha::Job::Running { work, .. } => Some(work),
        ha::Job::Idle => None,
    };
    let leads = seen.rules.standby_cluster && seen.leads(clock::now()).is_some();
    let stopped_role = match &seen.data {
        Data::Present(_) => Role::Replica,
        Data::Empty | Data::Incomplete | Data::Unusable => Role::Uninitialized,
    };
    match (&seen.postgres, work) {
        (Postgres::Stopped, Some(ha::Work::Bootstrap)) => (creation, Role::Uninitialized),
        (Postgres::Stopped, Some(ha::Work::Clone(_))) => {
            (PostgresState::CreatingReplica, Role::Uninitialized)
        }
        (
            Postgres::Stopped,
            Some(
                ha::Work::Rewind { .. }
                | ha::Work::Checkpoint
                | ha::Work::ArchiveTail
                | ha::Work::PrePromote(_)
                | ha::Work::HandTail { .. },
            )
            | None,
        ) => {
            let crashed = matches!(&seen.data, Data::Present(control) if !control.clean);
            (if crashed { PostgresState::Crashed } else { PostgresState::Stopped }, stopped_role)
        }
        (Postgres::Starting { .. }, _) => (PostgresState::Starting, stopped_role),
        (Postgres::Stopping { .. }, _) => {
            let role = if seen.may_be_primary() { Role::Demoted } else { Role::Replica };
            (PostgresState::Stopping, role)
        }
        (Postgres::Unresponsive { primary, .. }, _) => {
            (PostgresState::Starting, if *primary { Role::Primary } else { Role::Replica })
        }
        (Postgres::Running(Running::Primary { .. }), _) => (PostgresState::Running, Role::Primary),
        (Postgres::Running(Running::Standby { .. }), _) if leads => {
            (PostgresState::Running, Role::StandbyLeader)
        }
        (Postgres::Running(Running::Standby { .. }), _) => (PostgresState::Running, Role::Replica),
    }
}
