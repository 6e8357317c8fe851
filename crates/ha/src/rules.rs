//! The settings that decisions depend on, and the times that follow from them.

use std::time::Duration;

/// What the configuration says about leading and following.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rules {
    /// Time to live of the lease that carries the lead.
    pub ttl: Duration,
    /// The longest rest between two turns.
    pub loop_wait: Duration,
    /// How long one operation on etcd or PostgreSQL may be tried.
    pub retry_timeout: Duration,
    /// A candidate that is further behind than this many bytes does not lead.
    pub maximum_lag_on_failover: u64,
    /// Nothing is started, stopped, promoted or demoted by itself.
    pub pause: bool,
    /// A primary without etcd leads on while all other members agree.
    pub failsafe: bool,
    /// A candidate must be on the newest timeline.
    pub check_timeline: bool,
    /// How long a crashed or starting primary may take before the lead is given away.
    pub primary_start_timeout: Duration,
    /// How long a clean stop of a synchronous primary may take before it is stopped hard; 0 is any time.
    pub primary_stop_timeout: Duration,
    /// A command of the operator's must succeed before a promotion.
    pub pre_promote: bool,
    /// This member may create a new cluster.
    pub may_bootstrap: bool,
    /// Whether commits wait for standbys.
    pub synchronous: Synchronous,
    /// A diverged data directory may be rewound (else it is kept aside and cloned anew).
    pub may_rewind: bool,
    /// A method to create a replica needs no leader (`no_leader`).
    pub may_copy_without_leader: bool,
    /// The whole cluster follows a remote one: its leader is a standby.
    pub standby_cluster: bool,
    /// Where a crashed primary comes back.
    pub crash: CrashRule,
    /// How long a promotion after a failure waits at most for the routers to have ended what they had on the one before; 0 is not at all.
    pub await_routers: Duration,
    /// A pooler stands beside this PostgreSQL (`postgresql.proxy_address`).
    pub pooler: bool,
}

/// `baton.crash`: what comes first after a crash of the primary.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum CrashRule {
    /// Whatever is faster and loses nothing.
    #[default]
    Auto,
    /// A restart where it crashed.
    Restart,
    /// A failover, as long as it loses nothing.
    Failover,
}

/// Which standbys commits wait for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Synchronous {
    pub mode: SyncMode,
    /// Commits wait even when no standby is there.
    pub strict: bool,
    /// For so many standbys, if there are so many.
    pub count: usize,
    /// A standby further behind than so many bytes is not waited for.
    pub maximum_lag: Option<u64>,
}

/// `synchronous_mode`
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SyncMode {
    #[default]
    Off,
    /// For a few chosen ones, each of which may be promoted.
    On,
    /// For any few; an election needs so many votes that one of them is among the voters.
    Quorum,
}

impl Rules {
    /// Between the guard's deadline and the end of the lease: time for killed processes to be gone.
    #[must_use]
    pub fn margin(ttl: Duration) -> Duration {
        (ttl / 20).clamp(Duration::from_millis(100), Duration::from_secs(1))
    }

    /// How long before the guard's deadline the agent itself stops a primary that cannot renew.
    #[must_use]
    pub fn stop_budget(&self) -> Duration {
        (self.ttl / 10).clamp(Duration::from_millis(200), Duration::from_secs(2))
    }

    /// How long a clean stop may take before a harder one. `primary_stop_timeout` counts only where commits wait for standbys, and 0
    /// is no limit: elsewhere a harder stop would lose what the standbys were still being sent.
    #[must_use]
    pub fn stop_patience(&self) -> Duration {
        let limited = self.synchronous.mode != SyncMode::Off && !self.primary_stop_timeout.is_zero();
        if limited { self.primary_stop_timeout } else { Duration::MAX }
    }

    /// How much of the authority must be left before a leader whose renewals fail asks the others whether it may lead on.
    #[must_use]
    pub fn failsafe_ahead(&self) -> Duration {
        self.ttl.saturating_sub(Rules::margin(self.ttl)) / 2
    }

    /// How late something that was planned may begin.
    #[must_use]
    pub fn plan_tolerance(&self) -> Duration {
        self.loop_wait * 3 / 2
    }

    /// The rest between two renewals of the lease.
    #[must_use]
    pub fn renew_every(&self) -> Duration {
        (self.ttl / 3).min(self.loop_wait.max(Duration::from_millis(500)))
    }

    /// How long the race waits for a silent peer that was last seen ahead.
    #[must_use]
    pub fn peer_patience(&self) -> Duration {
        (self.ttl / 2).clamp(Duration::from_secs(1), Duration::from_secs(5))
    }

    /// The rest between two rounds of questions in a race that nobody may win yet.
    #[must_use]
    pub fn race_pause(&self) -> Duration {
        (self.loop_wait / 2).clamp(Duration::from_millis(100), Duration::from_millis(500))
    }

    /// How long PostgreSQL may be silent before the lead is given away.
    #[must_use]
    pub fn unresponsive_limit(&self) -> Duration {
        (self.ttl * 3).max(Duration::from_secs(15))
    }
}
