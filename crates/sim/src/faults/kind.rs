//! What can go wrong, and what people order.

/// A fault, or something that a person does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    NodeCrash,
    /// The host stands still with all its processes, the guard among them, and goes on, often after its deadline.
    HostSuspended,
    PostgresCrash,
    PostgresHangs,
    StartFails,
    /// PostgreSQL comes up as a primary and dies again, a few times.
    CrashLoop,
    ReplicaLags,
    /// The host of a synchronous standby loses its power.
    SyncStandbyDies,
    DiskFull,
    /// Whoever writes waits, and cannot be killed meanwhile.
    DiskHangs,
    /// The copy, rewind or other job that runs dies.
    JobDies,
    AgentKill,
    AgentFreeze,
    FreezeAtDoor,
    GuardDies,
    NodeCutOff,
    CutFromEtcd,
    CutFromPeers,
    HalfCutFromEtcd,
    SlowPeers,
    SlowEtcd,
    LossyEtcd,
    EtcdOutage,
    /// No etcd for up to ten minutes.
    EtcdGone,
    EtcdElection,
    /// The etcd member that a node talks to was deposed and does not know it: it answers keep-alives, and nothing else.
    EtcdDeposed,
    RouterCutOff,
    ClockDrift,
    /// Somebody sets the wall clock.
    WallClockStep,
    ForeignDisk,
    Switchover,
    PlannedSwitchover,
    Failover,
    Pause,
    SyncMode,
    OrderRestart,
    OrderReinitialize,
    OrderShutdown,
    /// The cluster is told to follow a remote one, which is not there, and later to stand on its own again.
    StandbyCluster,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 39] = [
        Kind::NodeCrash,
        Kind::HostSuspended,
        Kind::PostgresCrash,
        Kind::PostgresHangs,
        Kind::StartFails,
        Kind::CrashLoop,
        Kind::ReplicaLags,
        Kind::SyncStandbyDies,
        Kind::DiskFull,
        Kind::DiskHangs,
        Kind::JobDies,
        Kind::AgentKill,
        Kind::AgentFreeze,
        Kind::FreezeAtDoor,
        Kind::GuardDies,
        Kind::NodeCutOff,
        Kind::CutFromEtcd,
        Kind::CutFromPeers,
        Kind::HalfCutFromEtcd,
        Kind::SlowPeers,
        Kind::SlowEtcd,
        Kind::LossyEtcd,
        Kind::EtcdOutage,
        Kind::EtcdGone,
        Kind::EtcdElection,
        Kind::EtcdDeposed,
        Kind::RouterCutOff,
        Kind::ClockDrift,
        Kind::WallClockStep,
        Kind::ForeignDisk,
        Kind::Switchover,
        Kind::PlannedSwitchover,
        Kind::Failover,
        Kind::Pause,
        Kind::SyncMode,
        Kind::OrderRestart,
        Kind::OrderReinitialize,
        Kind::OrderShutdown,
        Kind::StandbyCluster,
    ];
}
