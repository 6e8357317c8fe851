//! Why something was decided. Every branch of every duty has a value of its own, kept beside the duty with its prose.

use crate::duties::{
    bootstrap_or_clone, carry_out_order, follow, keep_deadline, keep_schedule, lead, lead_standby_cluster,
    live_on, need_health, need_watchdog, not_fenced, race, recover, refuse_foreign_data, stand_still,
    step_aside, survive_without_etcd, synchronize, wait_for_job,
};
use std::fmt;
use types::{Lsn, Moment, NodeName, StandbyNames, SystemId, Timeline};

/// Defines the reason of a decision: which duty answered, and why.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $duty:ident => $module:ident, $name:literal;)*) => {
        /// Which duty answered, and why.
        #[derive(Clone, PartialEq, Eq, Hash, Debug)]
        pub enum Reason {
            $($(#[doc = $doc])* $duty($module::Why),)*
        }

        impl Reason {
            /// The duty that answered, as a metric label and a word of the journal.
            #[must_use]
            pub fn duty(&self) -> &'static str {
                match self { $(Reason::$duty(_) => $name,)* }
            }

            /// The value as one word: the same for the same branch, whatever the numbers in it.
            #[must_use]
            pub fn code(&self) -> String {
                let debug = match self { $(Reason::$duty(why) => format!("{why:?}"),)* };
                debug.chars().take_while(char::is_ascii_alphanumeric).collect()
            }
        }

        impl fmt::Display for Reason {
            /// One or two sentences for a tired person.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Reason::$duty(why) => why.fmt(f),)* }
            }
        }

        $(impl From<$module::Why> for Reason {
            fn from(why: $module::Why) -> Reason {
                Reason::$duty(why)
            }
        })*
    };
}

reasons! {
    /// Killed processes of the primary do not end.
    NotFenced => not_fenced, "not fenced";
    /// The lead goes on without etcd by the word of all others.
    LiveOn => live_on, "live on";
    /// A primary ends before its authority does.
    KeepDeadline => keep_deadline, "keep deadline";
    /// PostgreSQL hangs here, or a disk does or is full.
    NeedHealth => need_health, "need health";
    /// A job runs.
    WaitForJob => wait_for_job, "wait for job";
    /// A person asked for it.
    CarryOutOrder => carry_out_order, "carry out order";
    /// The cluster is paused.
    StandStill => stand_still, "stand still";
    /// The watchdog is required and does not work.
    NeedWatchdog => need_watchdog, "need watchdog";
    /// The data are of another cluster.
    RefuseForeignData => refuse_foreign_data, "refuse foreign data";
    /// etcd does not answer.
    SurviveWithoutEtcd => survive_without_etcd, "survive without etcd";
    /// There are no data.
    BootstrapOrClone => bootstrap_or_clone, "bootstrap or clone";
    /// The lead is handed over.
    StepAside => step_aside, "step aside";
    /// A restart was planned.
    KeepSchedule => keep_schedule, "keep schedule";
    /// PostgreSQL is stopped.
    Recover => recover, "recover";
    /// This member leads a cluster that follows a remote one.
    LeadStandbyCluster => lead_standby_cluster, "lead standby cluster";
    /// This member leads.
    Lead => lead, "lead";
    /// The synchronous standbys change.
    Synchronize => synchronize, "synchronize";
    /// Nobody leads.
    Race => race, "race";
    /// Another member leads.
    Follow => follow, "follow";
}

impl Reason {
    /// Whether a person should look at it: the log then says WARNING.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        if let Reason::NeedHealth(_) = self {
            return true;
        }
        [true, false].into_iter().any(|any| {
            let names = StandbyNames::Everybody { any };
            *self == Reason::Synchronize(synchronize::Why::SetsNames { names })
        }) || self.costs_something()
    }
}

impl Reason {
    /// Whether commits that were acknowledged may be lost by it.
    fn costs_something(&self) -> bool {
        let Reason::Recover(recover::Why::GivesLeadAway { cost, .. }) = self else { return false };
        match cost {
            recover::Cost::UpTo { bytes } => *bytes > 0,
            recover::Cost::Nothing | recover::Cost::Unknown => false,
        }
    }
}

/// Who does not answer, as the end of a sentence; nothing when all do.
pub(crate) fn unanswered(silent: &[NodeName]) -> String {
    let names: Vec<&str> = silent.iter().map(NodeName::as_str).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => format!(" ({one} does not answer)"),
        [..] => format!(" ({} do not answer)", names.join(", ")),
    }
}

/// Why a member must not lead now.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    NoFailoverTag,
    SteppedAside { until: Moment },
    NotRunning,
    NoGuard,
    Unprotected,
    Sick,
    ClusterUnknown,
    NotOurCluster { ours: SystemId, cluster: SystemId },
    Unfinished,
    Unusable,
    NotSynchronous { leader: NodeName },
    TooFewVotes { votes: usize, wanted: usize, silent: Vec<NodeName> },
    BehindTooFar { by: u64, limit: u64 },
    OldTimeline { mine: Timeline, newest: Timeline },
    Diverged { timeline: Timeline, lsn: Lsn, end: Lsn },
    DeadTimeline { mine: Timeline, newest: Timeline },
    UnguardedPrimary { peer: NodeName },
    PeerIsPrimary { peer: NodeName },
    PeerAhead { peer: NodeName, theirs: Lsn, mine: Lsn },
    PeerOnNewerTimeline { peer: NodeName, theirs: Timeline, mine: Timeline },
    PeerPreferred { peer: NodeName, theirs: i64, mine: i64 },
    PeerSilentAndAhead { peer: NodeName, theirs: Lsn, mine: Lsn },
    GivesWayTo { candidate: NodeName },
    NotInFailsafe,
    PromisedTo { peer: NodeName, until: Moment },
    MayHavePromised { until: Moment },
    Silent,
    Absent,
    IsPrimary,
    TakesNoWal,
    HasToReplay { bytes: u64 },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoFailoverTag => f.write_str("its tags forbid it to lead (nofailover, or failover_priority 0)"),
            Refusal::SteppedAside { .. } => f.write_str("it has just given the lead away and leaves it to others for a while"),
            Refusal::NotRunning => f.write_str("its PostgreSQL does not run as a standby"),
            Refusal::NoGuard => f.write_str("it has no guard process, without which nothing is promoted; see the agent's log for why the guard did not start"),
            Refusal::Unprotected => f.write_str("its watchdog is required (watchdog.mode) and does not work; its agent's log says why"),
            Refusal::Sick => f.write_str("its disk is full, hangs or fails, and another member's does not; its agent's log says more"),
            Refusal::ClusterUnknown => f.write_str("the key /initialize is missing or spoiled, so nobody can tell which data belong to the cluster"),
            Refusal::NotOurCluster { ours, cluster } => write!(f, "its data belong to another cluster: they have the system identifier {ours} and the cluster has {cluster}"),
            Refusal::Unfinished => f.write_str("a copy or rewind of its data directory was begun and has not been finished: until it is, these are nobody's data"),
            Refusal::Unusable => f.write_str("its data directory, or the mark beside it, cannot be read; see the agent's log for why"),
            Refusal::NotSynchronous { leader } => write!(f, "it is not among the synchronous standbys of {leader} in /sync, so it may lack commits that were acknowledged; a person can order a failover to it and accept that"),
            Refusal::TooFewVotes { votes, wanted, silent } => write!(f, "only {votes} of the synchronous standbys in /sync can be seen not to be ahead, itself included, and {wanted} are needed to be sure that no acknowledged commit is lost{}; bring more of them back, or order a failover and accept the loss", unanswered(silent)),
            Refusal::BehindTooFar { by, limit } => write!(f, "it is {by} bytes behind the last known position of the leader; maximum_lag_on_failover allows {limit}"),
            Refusal::OldTimeline { mine, newest } => write!(f, "it is on timeline {mine} and the cluster is on {newest}, which check_timeline or a switchover asks for"),
            Refusal::Diverged { timeline, lsn, end } => write!(f, "it has WAL of timeline {timeline} up to {lsn}, but the cluster left that timeline at {end}: its data have diverged"),
            Refusal::DeadTimeline { mine, newest } => write!(f, "its timeline {mine} is not among the ancestors of {newest}, on which the cluster was last: its data have diverged"),
            Refusal::UnguardedPrimary { peer } => write!(f, "{peer} was left running as a primary in pause, where no guard ends it, and it does not say that it has stopped: bring {peer} back, or make sure that it is off and delete the key baton/last"),
            Refusal::PeerIsPrimary { peer } => write!(f, "{peer} says that it still is a primary"),
            Refusal::PeerAhead { peer, theirs, mine } => write!(f, "Wal position of {peer} is ahead of my wal position: {theirs} against {mine}"),
            Refusal::PeerOnNewerTimeline { peer, theirs, mine } => write!(f, "{peer} is on the newer timeline {theirs}, this member on {mine}"),
            Refusal::PeerPreferred { peer, theirs, mine } => write!(f, "{peer} has equally tolerable WAL position and priority {theirs}, while this node has priority {mine}"),
            Refusal::PeerSilentAndAhead { peer, theirs, mine } => write!(f, "{peer} does not answer and was last seen ahead, at {theirs} against {mine} here; it is given a little time"),
            Refusal::GivesWayTo { candidate } => write!(f, "{candidate} was named as the next leader and is fit"),
            Refusal::NotInFailsafe => f.write_str("it is not listed in /failsafe, so a leader without etcd would not ask it, and no listed member answers that it knows of none; the next leader lists it"),
            Refusal::PromisedTo { peer, .. } => write!(f, "it told {peer}, which leads without etcd (failsafe mode), that it does not take the lead for a ttl, and no listed member answers that this is over"),
            Refusal::MayHavePromised { .. } => f.write_str("its agent has run for less than a ttl, before this start it may have agreed that another member leads without etcd (failsafe mode), and no listed member answers that it knows of none: it waits out the ttl"),
            Refusal::Silent => f.write_str("it does not answer"),
            Refusal::Absent => f.write_str("there is no member of this name"),
            Refusal::IsPrimary => f.write_str("it says that it is a primary itself"),
            Refusal::TakesNoWal => f.write_str("it cannot be handed the last WAL of the crashed primary, which in asynchronous mode nobody else may have: it follows another member, or its agent is a Patroni or an older Baton"),
            Refusal::HasToReplay { bytes } => write!(f, "it has {bytes} bytes to replay itself before it could be promoted"),
        }
    }
}
