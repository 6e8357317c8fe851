//! The faults there are.

use std::fmt;

/// Whom a fault strikes; looked up when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Primary,
    /// The first synchronous standby; without any, the first standby.
    Synchronous,
    /// The last of the standbys.
    Other,
}

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SIGKILL to the postmaster.
    KillPostmaster(Who),
    /// SIGKILL to a process that serves a client.
    KillBackend,
    /// SIGSTOP to every process of PostgreSQL.
    HangPostgres(Who),
    /// SIGKILL to everything on the host.
    KillHost(Who),
    KillAgent(Who),
    FreezeAgent(Who),
    /// The agent ends as for an upgrade, and its successor starts.
    RestartAgent(Who),
    /// The agent is told to end, with its PostgreSQL.
    StopInOrder(Who),
    Switchover,
    /// An ordered failover to the synchronous standby, which races with whatever else goes on.
    FailoverToSynchronous,
    KillEtcdLeader,
    /// SIGTERM to an etcd member that does not lead.
    StopEtcdFollower,
    FreezeEtcdLeader,
    UnplugHost(Who),
    CutFromEtcd(Who),
    UnplugEtcdLeader,
    FillWalDisk,
}

impl Kind {
    /// All of them, the more often the more there is to learn from it; those that need root only with it.
    pub(super) fn all(root: bool) -> Vec<Kind> {
        use Who::{Other, Primary, Synchronous};
        let mut kinds = vec![Kind::KillBackend, Kind::Switchover, Kind::FailoverToSynchronous];
        kinds.extend([Kind::KillEtcdLeader, Kind::StopEtcdFollower, Kind::FreezeEtcdLeader]);
        for who in [Primary, Primary, Synchronous] {
            kinds.extend([Kind::KillPostmaster(who), Kind::KillHost(who), Kind::FreezeAgent(who)]);
            kinds.extend([Kind::HangPostgres(who), Kind::KillAgent(who), Kind::StopInOrder(who)]);
            if root {
                kinds.extend([Kind::UnplugHost(who), Kind::CutFromEtcd(who)]);
            }
        }
        kinds.extend([Kind::RestartAgent(Primary), Kind::RestartAgent(Synchronous), Kind::KillHost(Other)]);
        if root {
            kinds.extend([Kind::UnplugHost(Other), Kind::UnplugEtcdLeader, Kind::FillWalDisk]);
        }
        kinds
    }

    /// Whether it is over as soon as it has happened.
    pub(super) fn is_brief(self) -> bool {
        matches!(
            self,
            Kind::KillPostmaster(_)
                | Kind::KillBackend
                | Kind::RestartAgent(_)
                | Kind::Switchover
                | Kind::FailoverToSynchronous
        )
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Who::Primary => "primary",
            Who::Synchronous => "synchronous standby",
            Who::Other => "other standby",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::KillPostmaster(who) => write!(f, "{who}'s postmaster killed"),
            Kind::KillBackend => f.write_str("a backend killed"),
            Kind::HangPostgres(who) => write!(f, "{who}'s PostgreSQL frozen"),
            Kind::KillHost(who) => write!(f, "{who}'s host killed"),
            Kind::KillAgent(who) => write!(f, "{who}'s agent killed"),
            Kind::FreezeAgent(who) => write!(f, "{who}'s agent frozen"),
            Kind::RestartAgent(who) => write!(f, "{who}'s agent restarted"),
            Kind::StopInOrder(who) => write!(f, "{who} stopped in order"),
            Kind::Switchover => f.write_str("switchover"),
            Kind::FailoverToSynchronous => f.write_str("failover to a synchronous standby"),
            Kind::KillEtcdLeader => f.write_str("etcd's leader killed"),
            Kind::StopEtcdFollower => f.write_str("an etcd follower restarted"),
            Kind::FreezeEtcdLeader => f.write_str("etcd's leader frozen"),
            Kind::UnplugHost(who) => write!(f, "{who} unplugged"),
            Kind::CutFromEtcd(who) => write!(f, "{who} cut off from etcd"),
            Kind::UnplugEtcdLeader => f.write_str("etcd's leader unplugged"),
            Kind::FillWalDisk => f.write_str("primary's WAL disk full"),
        }
    }
}
