//! The stage: what member `a` sees, changed line by line.
//!
//! ```text
//!   wait 500                                 time passes
//!   postgres stopped | starting | stopping | silent primary|standby | primary TL LSN | standby TL LSN [streaming] [from b|remote|archive]
//!   data empty | incomplete | unusable | foreign | primary TL clean|crashed | standby TL REACHED
//!   etcd live | lost | never                 leader free | spoiled TERM | NAME TERM [other-lease]
//!   authority none | TERM MILLIS             guard absent | disarmed | armed
//!   initialize absent | in-progress | ours | done | spoiled
//!   member NAME gone | primary|standby|down TL LSN [nofailover] [sick] [clonefrom] [after NAME]
//!   said NAME TERM TL [unguarded]            peer NAME silent | down | primary|standby TL LSN [nofailover] [patroni] [priority N]
//!   failover none | [from NAME] [to NAME] [in MILLIS | ago MILLIS | unreadable]
//!   pause on | off    standby-cluster on | off    no-leader on | off
//!   tag NAME VALUE
//!   planned none | in MILLIS | ago MILLIS [overtaken | replica-only]
//!   order none | restart | reinitialize | shutdown
//!   job clone|restore|rewind|bootstrap|checkpoint|archive|remote-clone|remote-rewind|pre-promote|hand-tail running|done|failed
//!   pre-promote on | off                     watchdog fine | failed          start-timeout MILLIS
//!   history TL TL:END…   remote-history TL TL:END…                       ended TL LSN
//!   failsafe on | off | NAME…                agreed NAME… | nobody
//!   disk data|wal fine|low|full|failed|hung  pulse beats|halted|rests|blocked
//!   late                                     killed now | none
//!   routers busy | TERM…                     router ID TERM | nothing | gone            handed-over TERM
//!   await-routers MILLIS                     pooled-router ID OVER-TERM | nothing       pooler    vouched
//!   promised NAME MILLIS                     booted                        kept NAME…
//!   crash auto | restart | failover          replay unknown | BYTES RATE|0 END
//!   mode off | on | quorum                    sync none | LEADER QUORUM VOTER…  optime LSN
//!   turn                                     decide, and say what
//!   what-if dies|unplugged|postgres-crashes|switchover|etcd-away [NAME]      say what would become of `a`
//!   ready                                    say whether somebody could take over, and how much could be lost
//! ```

use ha::sync_quorum::Promise;
use ha::what_if::{Event, What};
use ha::{
    Action, Authority, Cluster, Contact, Control, CrashRule, Data, Disk, Due, Etcd, Failover, Failsafe,
    FailsafePromise, FailsafeRound, Finished, Guard, Initialize, Job, Last, LeaderHistory, LeaderKey, Member,
    Memory, Observation, Order, Pace, PeerAnswer, PeerFacts, Peers, PlannedRestart, Postgres, Pulse, Router,
    Rules, Running, Signs, SyncKey, SyncMode, Synchronous, Unmet, Upstream, Watchdog, Work, Writable,
};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;
use types::{History, HistoryLine, Lsn, Moment, NodeName, SystemId, TagValue, Tags, Term, Timeline};

const OURS: SystemId = SystemId(7_000_000_000_000_000_001);

struct Stage {
    now: Moment,
    seen: Observation,
    cluster: Cluster,
    /// `None` before anything was read.
    contact: Option<Contact>,
    memory: Memory,
    /// Of the last turn.
    actions: Vec<Action>,
}

/// The transcript of a story: its lines, and under each turn what was decided.
pub(crate) fn tell(story: &str) -> String {
    let mut stage = Stage::new();
    let mut told = String::new();
    for line in story.lines() {
        writeln!(told, "{line}").unwrap();
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        if words == ["turn"] {
            stage.turn(&mut told);
        } else if let ["what-if", what, of @ ..] = words.as_slice() {
            stage.what_if(what, of, &mut told);
        } else if words == ["ready"] {
            stage.ready(&mut told);
        } else if let [verb, rest @ ..] = words.as_slice() {
            stage.set(verb, rest);
        }
    }
    told
}

fn name(text: &str) -> NodeName {
    NodeName::from(text)
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("expected a number: {text:?}"))
}

fn timeline(text: &str) -> Timeline {
    Timeline(u32::try_from(number(text)).unwrap())
}

fn term(text: &str) -> Term {
    Term(i64::try_from(number(text)).unwrap())
}

impl Stage {
    fn new() -> Stage {
        let rules = Rules {
            ttl: Duration::from_secs(5),
            loop_wait: Duration::from_secs(1),
            retry_timeout: Duration::from_secs(2),
            maximum_lag_on_failover: 1 << 20,
            pause: false,
            failsafe: false,
            check_timeline: false,
            primary_start_timeout: Duration::from_secs(30),
            primary_stop_timeout: Duration::from_secs(5),
            synchronous: Synchronous::default(),
            pre_promote: false,
            may_bootstrap: true,
            may_rewind: true,
            may_copy_without_leader: false,
            standby_cluster: false,
            crash: CrashRule::Auto,
            await_routers: Duration::ZERO,
            pooler: false,
        };
        let cluster = Cluster {
            revision: 100,
            initialize: Initialize::Done(OURS),
            leader: LeaderKey::Free,
            members: BTreeMap::new(),
            optime: None,
            failover: None,
            sync: None,
            writable: None,
            last: None,
            history: BTreeMap::new(),
            failsafe: None,
            routers: Vec::new(),
            handed_over: None,
        };
        let seen = Observation {
            me: name("a"),
            tags: Tags::default(),
            rules,
            etcd: Etcd::Never { since: Moment(0) },
            authority: Authority::None,
            data: Data::Empty,
            postgres: Postgres::Stopped,
            replication: None,
            pace: Pace::default(),
            job: Job::Idle,
            finished: None,
            guard: Guard::Disarmed,
            watchdog: Watchdog::Fine,
            signs: Signs::default(),
            peers: Peers::default(),
            leader_history: LeaderHistory::Unknown,
            order: None,
            planned: None,
            failsafe: Failsafe::default(),
            vouched: None,
        };
        Stage {
            now: Moment(10_000),
            seen,
            cluster,
            contact: Some(Contact::Live),
            memory: Memory::default(),
            actions: Vec::new(),
        }
    }

    fn look(&mut self) {
        self.seen.etcd = match self.contact {
            Some(contact) => Etcd::Seen { cluster: self.cluster.clone(), contact },
            None => Etcd::Never { since: self.now },
        };
    }

    fn what_if(&mut self, what: &str, of: &[&str], told: &mut String) {
        self.look();
        let what = match what {
            "dies" => What::Dies,
            "unplugged" => What::Unplugged,
            "postgres-crashes" => What::PostgresCrashes,
            "switchover" => What::Switchover,
            "etcd-away" => What::EtcdAway,
            other => panic!("no event: {other}"),
        };
        let event = Event { what, member: of.first().map(|who| name(who)) };
        let foreseen = ha::what_if::foresee(&self.seen, &self.memory, &event, self.now);
        let (outcome, after, text) = (foreseen.outcome, foreseen.after, foreseen.text());
        writeln!(told, "    {outcome:?} after {after:?}: {text}").unwrap();
        let commits = ha::what_if::commits(&self.seen, &event);
        if commits != ha::what_if::Commits::Free {
            writeln!(told, "    commits then: {commits:?}").unwrap();
        }
    }

    fn ready(&mut self, told: &mut String) {
        self.look();
        let ready = ha::what_if::ready(&self.seen, &self.memory, self.now);
        let bound = |cut_off| ha::what_if::loss_bound(&self.seen, |span| span.as_secs() * 100_000, cut_off);
        writeln!(told, "    {:?}: {ready:?}", ready.code()).unwrap();
        writeln!(told, "    lost at 100 kB/s: {:?}, cut off: {:?}", bound(false), bound(true)).unwrap();
    }

    fn turn(&mut self, told: &mut String) {
        self.look();
        let decision = ha::decide(&self.seen, &self.memory, self.now);
        let (duty, code) = (decision.reason.duty(), decision.reason.code());
        writeln!(told, "    {:?} [{duty}] {code}: {}", self.now, decision.reason).unwrap();
        for action in &decision.actions {
            writeln!(told, "        {action:?}").unwrap();
        }
        writeln!(told, "        next turn at {:?} at the latest", decision.wake_at).unwrap();
        self.memory = decision.memory;
        self.actions = decision.actions;
        self.seen.finished = None;
        self.cluster.revision += 1;
    }

    fn set(&mut self, verb: &str, words: &[&str]) {
        match (verb, words) {
            ("wait", [millis]) => self.now = self.now.after(Duration::from_millis(number(millis))),
            ("postgres", words) => self.seen.postgres = self.postgres(words),
            ("data", words) => self.seen.data = data(words),
            ("etcd", [contact]) => {
                self.contact = match *contact {
                    "live" => Some(Contact::Live),
                    "lost" => Some(Contact::Lost { since: self.now }),
                    _ => None,
                };
            }
            ("leader", words) => self.cluster.leader = leader(words),
            ("authority", ["none"]) => self.seen.authority = Authority::None,
            ("authority", [held, millis]) => {
                let deadline = self.now.after(Duration::from_millis(number(millis)));
                self.seen.authority = Authority::Held { term: term(held), deadline };
            }
            ("guard", [guard]) => {
                self.seen.guard = match *guard {
                    "absent" => Guard::Absent,
                    "armed" => Guard::Armed,
                    _ => Guard::Disarmed,
                };
            }
            ("initialize", [word]) => {
                self.cluster.initialize = match *word {
                    "absent" => Initialize::Absent,
                    "in-progress" => Initialize::InProgress { ours: false },
                    "ours" => Initialize::InProgress { ours: true },
                    "spoiled" => Initialize::Spoiled,
                    _ => Initialize::Done(OURS),
                };
            }
            ("sync", ["none"]) => self.cluster.sync = None,
            ("pause", [word]) => self.seen.rules.pause = *word == "on",
            ("standby-cluster", [word]) => self.seen.rules.standby_cluster = *word == "on",
            ("no-leader", [word]) => self.seen.rules.may_copy_without_leader = *word == "on",
            ("tag", [tag, value]) => {
                self.seen.tags.0.insert((*tag).to_owned(), TagValue::Text((*value).to_owned()));
            }
            (verb, words) => self.set_more(verb, words),
        }
    }

    fn set_more(&mut self, verb: &str, words: &[&str]) {
        match (verb, words) {
            ("member", [who, "gone"]) => drop(self.cluster.members.remove(&name(who))),
            ("member", [who, role, tl, lsn, tags @ ..]) => {
                let member = Member {
                    primary: *role == "primary",
                    running: *role != "down",
                    reachable: true,
                    nofailover: tags.contains(&"nofailover"),
                    sick: tags.contains(&"sick"),
                    clonefrom: tags.contains(&"clonefrom"),
                    replicatefrom: tags.last().filter(|_| tags.contains(&"after")).map(|who| name(who)),
                    sync_priority: i64::from(!tags.contains(&"nosync")),
                    timeline: Some(timeline(tl)),
                    lsn: Some(Lsn(number(lsn))),
                };
                self.cluster.members.insert(name(who), member);
            }
            ("said", [who, held, tl, guarded @ ..]) => {
                let (name, term, timeline) = (name(who), term(held), timeline(tl));
                let guarded = guarded.is_empty();
                self.cluster.writable = Some(Writable { name: name.clone(), term, timeline });
                self.cluster.last = Some(Last { name, term, timeline, guarded });
            }
            ("peer", [who, words @ ..]) => self.peer(who, words),
            ("failover", ["none"]) => self.cluster.failover = None,
            ("failover", words) => {
                let after = |word: &str| {
                    let at = words.iter().position(|known| *known == word)?;
                    words.get(at + 1).map(|who| name(who))
                };
                let (leader, candidate) = (after("from"), after("to"));
                self.cluster.failover = Some(Failover {
                    leader,
                    candidate,
                    due: self.due(words),
                    revision: self.cluster.revision,
                });
            }
            ("mode", [mode]) => {
                self.seen.rules.synchronous.mode = match *mode {
                    "on" => SyncMode::On,
                    "quorum" => SyncMode::Quorum,
                    _ => SyncMode::Off,
                };
            }
            ("sync", [leader, quorum, voters @ ..]) => {
                let quorum = usize::try_from(number(quorum)).unwrap();
                let promise = Promise { voters: voters.iter().map(|who| name(who)).collect(), quorum };
                self.cluster.sync = Some(SyncKey { leader: Some(name(leader)), promise, revision: 90 });
            }
            ("optime", [lsn]) => self.cluster.optime = Some(Lsn(number(lsn))),
            ("planned", words) => self.planned(words),
            ("order", [word]) => {
                self.seen.order = match *word {
                    "restart" => Some(Order::Restart { within: None }),
                    "reinitialize" => Some(Order::Reinitialize { from_leader: false }),
                    "reinitialize-from-leader" => Some(Order::Reinitialize { from_leader: true }),
                    "load-slots" => Some(Order::LoadSlots),
                    "shutdown" => Some(Order::Shutdown),
                    _ => None,
                };
            }
            ("job", [work, how]) => self.job(work, how),
            ("history" | "remote-history", [tl, lines @ ..]) => {
                let line = |text: &&str| {
                    let (tl, end) = text.split_once(':').expect("TL:END");
                    HistoryLine { timeline: timeline(tl), end: Lsn(number(end)), reason: String::new() }
                };
                let history = History { timeline: timeline(tl), lines: lines.iter().map(line).collect() };
                let of = match verb {
                    "history" => Upstream::Member(name("b")),
                    _ => Upstream::Remote,
                };
                self.seen.leader_history = LeaderHistory::Known { of, history, asked: self.now };
            }
            ("ended", [tl, lsn]) => drop(self.cluster.history.insert(timeline(tl), Lsn(number(lsn)))),
            (verb, words) => self.set_failsafe(verb, words),
        }
    }

    fn disk(&mut self, which: &str, how: &str) {
        let since = self.now;
        let disk = match how {
            "low" => Disk::Low { since },
            "full" => Disk::Full { since },
            "failed" => Disk::Failed { since },
            "hung" => Disk::Hung { since },
            _ => Disk::Fine,
        };
        match which {
            "data" => self.seen.signs.data_disk = disk,
            _ => self.seen.signs.wal_disk = disk,
        }
    }

    fn due(&self, words: &[&str]) -> Due {
        match words {
            [.., "in", millis] => Due::At(self.now.after(Duration::from_millis(number(millis)))),
            [.., "ago", millis] => Due::At(self.now.before(Duration::from_millis(number(millis)))),
            [.., "unreadable"] => Due::Unreadable,
            _ => Due::Now,
        }
    }

    fn planned(&mut self, words: &[&str]) {
        self.seen.planned = words
            .get(..2)
            .and_then(|when| match self.due(when) {
                Due::At(at) => Some(at),
                Due::Now | Due::Unreadable => None,
            })
            .map(|at| {
                let unmet = Unmet::Role { wanted: "replica".to_owned(), is: "primary".to_owned() };
                let unmet = words.contains(&"replica-only").then_some(unmet);
                PlannedRestart { at, overtaken: words.contains(&"overtaken"), unmet, within: None }
            });
    }

    fn set_failsafe(&mut self, verb: &str, words: &[&str]) {
        match (verb, words) {
            ("failsafe", ["on"]) => self.seen.rules.failsafe = true,
            ("failsafe", ["off"]) => self.seen.rules.failsafe = false,
            ("kept", names) => self.seen.failsafe.kept = Some(names.iter().map(|who| name(who)).collect()),
            ("failsafe", names) => self.cluster.failsafe = Some(names.iter().map(|who| name(who)).collect()),
            ("agreed", names) => {
                let accepted = names.iter().filter(|who| **who != "nobody").map(|who| name(who)).collect();
                let Authority::Held { term, .. } = self.seen.authority else { panic!("nobody was asked") };
                self.seen.failsafe.round = Some(FailsafeRound {
                    term,
                    asked: self.memory.failsafe_asked.unwrap(),
                    over: true,
                    accepted,
                });
            }
            ("pre-promote", [word]) => self.seen.rules.pre_promote = *word == "on",
            ("crash", [word]) => {
                self.seen.rules.crash = match *word {
                    "restart" => CrashRule::Restart,
                    "failover" => CrashRule::Failover,
                    _ => CrashRule::Auto,
                };
            }
            ("replay", ["unknown"]) => self.seen.pace = Pace::default(),
            ("replay", [bytes, rate, end]) => {
                let redo_rate = Some(number(rate)).filter(|rate| *rate > 0);
                let (to_replay, end) = (Some(number(bytes)), Some(Lsn(number(end))));
                self.seen.pace = Pace { to_replay, redo_rate, end, promotion: None };
            }
            ("start-timeout", [millis]) => {
                self.seen.rules.primary_start_timeout = Duration::from_millis(number(millis));
            }
            ("watchdog", [word]) => {
                self.seen.watchdog = if *word == "fine" { Watchdog::Fine } else { Watchdog::Failed };
            }
            ("disk", [which, how]) => self.disk(which, how),
            ("pulse", [how]) => {
                let since = self.now;
                self.seen.signs.pulse = match *how {
                    "halted" => Pulse::Halted { since },
                    "rests" => Pulse::Rests { since },
                    "blocked" => Pulse::Blocked { since },
                    _ => Pulse::Beats,
                };
            }
            ("late", []) => self.seen.signs.late = Some(self.now),
            ("killed", [word]) => self.seen.signs.killed = (*word == "now").then_some(self.now),
            ("promised", [who, millis]) => {
                let until = self.now.after(Duration::from_millis(number(millis)));
                self.seen.failsafe.promise = Some(FailsafePromise { to: name(who), until });
            }
            ("routers", quiet) => {
                let quiet = quiet.iter().map(|held| (*held != "busy").then(|| term(held))).enumerate();
                let router = |(no, quiet)| Router {
                    id: format!("r{}", no + 1),
                    quiet,
                    term: None,
                    over: None,
                    pooled: false,
                };
                self.cluster.routers = quiet.map(router).collect();
            }
            ("router", [id, "gone"]) => self.cluster.routers.retain(|router| router.id != *id),
            ("router", [id, knows]) => {
                self.cluster.routers.retain(|router| router.id != *id);
                let known = (*knows != "nothing").then(|| term(knows));
                let id = (*id).to_owned();
                self.cluster.routers.push(Router { id, quiet: None, term: known, over: None, pooled: false });
            }
            ("pooled-router", [id, over]) => {
                self.cluster.routers.retain(|router| router.id != *id);
                let over = (*over != "nothing").then(|| term(over));
                let id = (*id).to_owned();
                self.cluster.routers.push(Router { id, quiet: None, term: None, over, pooled: true });
            }
            ("pooler", []) => self.seen.rules.pooler = true,
            ("vouched", []) => self.seen.vouched = Some(self.now),
            ("handed-over", [of]) => self.cluster.handed_over = Some(term(of)),
            ("await-routers", [millis]) => {
                self.seen.rules.await_routers = Duration::from_millis(number(millis));
            }
            ("nothing-done", []) => self.memory.void(&self.actions),
            ("booted", []) => self.seen.failsafe.began = self.now,
            (verb, words) => panic!("what is {verb:?} {words:?}?"),
        }
    }

    fn postgres(&self, words: &[&str]) -> Postgres {
        let since = self.now;
        match words {
            ["stopped"] => Postgres::Stopped,
            ["starting"] => Postgres::Starting { since },
            ["stopping"] => Postgres::Stopping { since },
            ["silent", role] => Postgres::Unresponsive { since, primary: *role == "primary" },
            ["primary", tl, lsn] => {
                Postgres::Running(Running::Primary { timeline: timeline(tl), lsn: Lsn(number(lsn)) })
            }
            ["standby", tl, lsn, rest @ ..] => Postgres::Running(Running::Standby {
                timeline: timeline(tl),
                lsn: Lsn(number(lsn)),
                streaming: rest.contains(&"streaming"),
                upstream: rest.last().filter(|_| rest.contains(&"from")).map(|who| match *who {
                    "remote" => Upstream::Remote,
                    "archive" => Upstream::Archive,
                    who => Upstream::Member(name(who)),
                }),
            }),
            other => panic!("what PostgreSQL is {other:?}?"),
        }
    }

    fn peer(&mut self, who: &str, words: &[&str]) {
        let answer = match words {
            ["silent"] => PeerAnswer::Silent,
            ["down"] => PeerAnswer::Down,
            [role, tl, lsn, tags @ ..] => PeerAnswer::Said(PeerFacts {
                primary: *role == "primary",
                timeline: Some(timeline(tl)),
                lsn: Lsn(number(lsn)),
                nofailover: tags.contains(&"nofailover"),
                failover_priority: tags
                    .last()
                    .filter(|_| tags.contains(&"priority"))
                    .map_or(1, |at| i64::try_from(number(at)).unwrap()),
                replayed: Some(Lsn(number(lsn))),
                takes_wal: !tags.contains(&"patroni"),
                unprotected: false,
                sick: words.contains(&"sick"),
                failsafe_active: words.contains(&"unsure"),
            }),
            other => panic!("what peer is {other:?}?"),
        };
        self.seen.peers.asked = Some(self.now);
        self.seen.peers.answers.insert(name(who), answer);
    }

    fn job(&mut self, work: &str, how: &str) {
        let work = match work {
            "clone" => Work::Clone(Upstream::Member(name("b"))),
            "restore" => Work::Clone(Upstream::Archive),
            "remote-clone" => Work::Clone(Upstream::Remote),
            "remote-rewind" => Work::Rewind { from: Upstream::Remote, fork: None },
            "archive" => Work::ArchiveTail,
            "rewind" => Work::Rewind { from: Upstream::Member(name("b")), fork: None },
            "bootstrap" => Work::Bootstrap,
            "pre-promote" => Work::PrePromote(self.memory.term.unwrap()),
            "hand-tail" => Work::HandTail {
                to: name("b"),
                term: self.memory.term.unwrap(),
                within: Duration::from_secs(30),
            },
            _ => Work::Checkpoint,
        };
        self.seen.job = Job::Idle;
        match how {
            "running" => self.seen.job = Job::Running { work, since: self.now },
            how => self.seen.finished = Some(Finished { work, ok: how == "done" }),
        }
    }
}

fn leader(words: &[&str]) -> LeaderKey {
    match words {
        ["free"] => LeaderKey::Free,
        ["spoiled", held] => LeaderKey::Spoiled { term: term(held) },
        [who, held, rest @ ..] => {
            LeaderKey::Held { name: name(who), term: term(held), ours: *who == "a" && rest.is_empty() }
        }
        [] | [_] => panic!("whose leader key is {words:?}?"),
    }
}

fn data(words: &[&str]) -> Data {
    let control = |system_id, tl: &str, reached, clean, standby| {
        let (timeline, checkpoint, reached) = (timeline(tl), Lsn(reached), Lsn(reached));
        Data::Present(Control { system_id, timeline, checkpoint, reached, clean, standby, rewindable: true })
    };
    match words {
        ["empty"] => Data::Empty,
        ["incomplete"] => Data::Incomplete,
        ["unusable"] => Data::Unusable,
        ["foreign"] => control(SystemId(6_000_000_000_000_000_001), "1", 900, true, false),
        ["primary", tl, how] => control(OURS, tl, 900, *how == "clean", false),
        ["standby", tl, reached] => control(OURS, tl, number(reached), true, true),
        other => panic!("what data are {other:?}?"),
    }
}
