//! PostgreSQL of one node: what is on its disk, and what its processes do.

use crate::clock::Time;
use crate::wal::Wal;
use crate::world::NodeNo;
use ha::{Control, Data, StopMode};
use std::collections::BTreeMap;
use types::{Lsn, Moment, StandbyNames, SystemId, Timeline};

/// A complete data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Database {
    pub system_id: SystemId,
    pub wal: Wal,
    /// `standby.signal` is there.
    pub standby: bool,
    pub clean: bool,
    pub checkpoint: Lsn,
    /// What the control file knows to be reached.
    pub reached: Lsn,
    pub rewindable: bool,
    /// The mark of an unfinished directory, which a bootstrap leaves until `/initialize` says that this is the cluster.
    pub newborn: bool,
    /// It was started although a job had left it unfinished.
    pub torn: bool,
}

/// System identifiers from here to `OURS` belong to other clusters.
pub const FOREIGN: u64 = 6_000_000_000_000_000_000;
/// System identifiers from here on belong to clusters that were born in this world.
pub const OURS: u64 = 7_000_000_000_000_000_000;

/// The data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Disk {
    Empty,
    Incomplete,
    Present(Database),
}

impl Disk {
    /// The database, if it is complete.
    #[must_use]
    pub fn database(&self) -> Option<&Database> {
        match self {
            Disk::Present(database) => Some(database),
            Disk::Empty | Disk::Incomplete => None,
        }
    }

    /// Whether it is the disk of another cluster.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.database().is_some_and(|database| database.system_id.0 < OURS)
    }

    /// The same, to be changed.
    pub fn database_mut(&mut self) -> Option<&mut Database> {
        match self {
            Disk::Present(database) => Some(database),
            Disk::Empty | Disk::Incomplete => None,
        }
    }

    /// As the agent sees it.
    #[must_use]
    pub fn seen(&self) -> Data {
        match self {
            Disk::Empty => Data::Empty,
            Disk::Incomplete => Data::Incomplete,
            Disk::Present(database) => Data::Present(Control {
                system_id: database.system_id,
                timeline: database.wal.timeline(),
                checkpoint: database.checkpoint,
                reached: if database.standby { database.reached } else { database.checkpoint },
                clean: database.clean,
                standby: database.standby,
                rewindable: database.rewindable,
            }),
        }
    }
}

/// The processes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proc {
    Stopped,
    Starting { since: Moment, upstream: Option<NodeNo> },
    Primary,
    Standby { upstream: Option<NodeNo>, streaming: bool, promoting: bool },
    Stopping { since: Moment, mode: StopMode, primary: bool, upstream: Option<NodeNo> },
}

/// Disk and processes.
#[derive(Clone, Debug)]
pub struct Postgres {
    pub disk: Disk,
    pub proc: Proc,
    /// It hangs since then: its processes live and do nothing.
    pub hangs: Option<Moment>,
    /// What it is on its way to; an older token is void.
    pub token: u64,
    /// When it last wrote a checkpoint on request.
    pub checkpointed: Time,
    /// It gets nothing until then, however well it is connected.
    pub lags_until: Time,
    /// The timeline number that the next promotion takes.
    pub claimed: Timeline,
    /// A standby that is being promoted receives until then, if it did so before.
    pub receives_until: Time,
    /// A standby without an upstream here is pointed at the remote cluster.
    pub remote: bool,
    /// How often it was started, by way of a life number.
    pub starts: u32,
    pub names: Names,
    /// Its replication slots, by name: how far each is.
    pub slots: BTreeMap<String, Lsn>,
    /// What a job that was broken off left, for somebody who takes it for a database.
    pub torn: Option<Torn>,
    /// The WAL of the directory that was rewound or moved aside last.
    pub aside: Option<Wal>,
    /// The first checkpoint after a promotion is written then: before it the control file tells of the timeline before.
    pub first_checkpoint: Time,
    pub trouble: DiskTrouble,
    /// Since when.
    pub trouble_since: Time,
    /// By standby, as the walsenders here know it: what it confirmed, and until when it is believed to be there after it fell silent.
    pub walsenders: BTreeMap<NodeNo, (Lsn, Option<Time>)>,
}

/// A directory in the middle of a copy or a rewind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Torn {
    pub database: Database,
    pub by_rewind: bool,
}

/// What is wrong with the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DiskTrouble {
    #[default]
    None,
    /// Nothing more can be written.
    Full,
    /// Whoever writes waits, and cannot be killed meanwhile.
    Hangs,
}

/// Whose confirmation commits wait for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    /// In the file.
    pub configured: StandbyNames,
    /// In the process that releases commits.
    pub effective: StandbyNames,
    /// In a session.
    pub shown: StandbyNames,
}

impl Postgres {
    /// Nothing there.
    #[must_use]
    pub fn none() -> Postgres {
        Postgres {
            disk: Disk::Empty,
            proc: Proc::Stopped,
            hangs: None,
            token: 0,
            checkpointed: 0,
            lags_until: 0,
            claimed: Timeline(1),
            receives_until: 0,
            remote: false,
            starts: 0,
            names: Names::default(),
            slots: BTreeMap::new(),
            torn: None,
            aside: None,
            first_checkpoint: 0,
            trouble: DiskTrouble::None,
            trouble_since: 0,
            walsenders: BTreeMap::new(),
        }
    }

    /// Whether a client that reaches it can commit.
    #[must_use]
    pub fn accepts_writes(&self) -> bool {
        self.proc == Proc::Primary && self.hangs.is_none() && self.trouble == DiskTrouble::None
    }

    /// Whether it serves reads and nothing else.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        matches!(self.proc, Proc::Standby { .. }) && self.hangs.is_none()
    }

    /// Whether others can copy or stream from it.
    #[must_use]
    pub fn serves(&self) -> bool {
        let runs = match self.proc {
            Proc::Primary | Proc::Standby { .. } => true,
            Proc::Stopped | Proc::Starting { .. } | Proc::Stopping { .. } => false,
        };
        runs && self.hangs.is_none()
    }

    /// The end of its WAL.
    #[must_use]
    pub fn end(&self) -> Option<Lsn> {
        self.disk.database().map(|database| database.wal.end())
    }

    /// As the agent sees it.
    #[must_use]
    pub fn seen(&self, names: &[types::NodeName]) -> ha::Postgres {
        let name = |node: Option<NodeNo>| node.and_then(|node| names.get(node)).cloned();
        let Some(database) = self.disk.database() else {
            return ha::Postgres::Stopped;
        };
        let (timeline, lsn) = (database.wal.timeline(), database.wal.end());
        if let (Some(since), Proc::Primary | Proc::Standby { .. }) = (self.hangs, &self.proc) {
            return ha::Postgres::Unresponsive { since, primary: self.proc == Proc::Primary };
        }
        match &self.proc {
            Proc::Stopped => ha::Postgres::Stopped,
            Proc::Starting { since, .. } => ha::Postgres::Starting { since: *since },
            Proc::Stopping { since, .. } => ha::Postgres::Stopping { since: *since },
            Proc::Primary => ha::Postgres::Running(ha::Running::Primary { timeline, lsn }),
            Proc::Standby { upstream, streaming, .. } => ha::Postgres::Running(ha::Running::Standby {
                timeline,
                lsn,
                streaming: *streaming,
                upstream: name(*upstream)
                    .map(ha::Upstream::Member)
                    .or(self.remote.then_some(ha::Upstream::Remote)),
            }),
        }
    }
}
