//! Signs of grey failures: of what is half broken. Each is found by a probe with a thread or task of its own, so that what hangs
//! hangs the probe alone; and each has a limit, so that what is only slow is not taken for broken.
//!
//! ```text
//!   disk    a write that does not end ─► hung     no room ─► full, or too little for the next WAL file     an error ─► failed
//!   pulse   not even greeted by PostgreSQL, and its postmaster is stopped, rests, or hangs in the kernel
//!   late    the agent itself was not given the processor: what did not answer before may only have been late
//!   killed  every process got SIGKILL, and some are still there
//! ```

use crate::observation::{Observation, Postgres, Running};
use crate::rules::Rules;
use std::fmt;
use std::time::Duration;
use types::Moment;

/// What the probes found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Signs {
    /// The disk of the data directory.
    pub data_disk: Disk,
    /// The disk of the WAL: the same one, unless `pg_wal` leads elsewhere.
    pub wal_disk: Disk,
    pub pulse: Pulse,
    /// When the agent was last not given the processor in time.
    pub late: Option<Moment>,
    /// When every process of PostgreSQL was killed, while some are still there.
    pub killed: Option<Moment>,
}

/// A disk that PostgreSQL writes to, as a small write found it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Disk {
    /// It was not tried, or the trial says nothing about the disk.
    #[default]
    Unknown,
    Fine,
    /// There is less room than the next WAL file needs.
    Low {
        since: Moment,
    },
    Full {
        since: Moment,
    },
    /// It answers with an error: it cannot be read, or not be written.
    Failed {
        since: Moment,
    },
    /// The write has not ended.
    Hung {
        since: Moment,
    },
}

/// Whether PostgreSQL greets who connects. A greeting needs no query, no lock and no disk, only a postmaster that lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Pulse {
    /// It was not asked, or nobody listens.
    #[default]
    Unknown,
    /// It greets, or its postmaster computes or waits for a processor: it is alive, however busy.
    Beats,
    /// It does not greet: its postmaster was stopped by a signal.
    Halted { since: Moment },
    /// It does not greet although its postmaster has nothing to do.
    Rests { since: Moment },
    /// It does not greet: its postmaster hangs in the kernel, as on a disk that does not answer.
    Blocked { since: Moment },
}

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Volume {
    Data,
    Wal,
}

/// For what a member gives its lead away, or is not given one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ailment {
    DiskHung {
        of: Volume,
    },
    DiskFailed {
        of: Volume,
    },
    DiskFull {
        of: Volume,
    },
    DiskLow,
    /// Neither queries nor greetings are answered.
    Silent,
    /// Queries on old connections are answered, and nobody can connect.
    Closed,
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Volume::Data => "the disk of the data directory",
            Volume::Wal => "the disk of the WAL",
        })
    }
}

impl fmt::Display for Ailment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ailment::DiskHung { of } => write!(f, "{of} does not answer"),
            Ailment::DiskFailed { of } => write!(f, "{of} answers a write with an error"),
            Ailment::DiskFull { of } => write!(f, "{of} is full"),
            Ailment::DiskLow => f.write_str("the disk of the WAL has no room for the next WAL file"),
            Ailment::Silent => f.write_str("PostgreSQL does not answer"),
            Ailment::Closed => f.write_str("PostgreSQL greets nobody who connects"),
        }
    }
}

impl Signs {
    /// The first moment from which on silence counts: before it the agent itself was late.
    fn counted(&self, since: Moment) -> Moment {
        self.late.map_or(since, |late| late.max(since))
    }

    /// What is wrong with the disks, and from when on it counts. What ends by itself more often gets more time.
    fn disks(&self, rules: &Rules) -> Option<(Ailment, Moment)> {
        let of = |of, disk| match disk {
            Disk::Unknown | Disk::Fine => None,
            Disk::Low { since } => {
                (of == Volume::Wal).then(|| (Ailment::DiskLow, since.after(rules.grey_limit())))
            }
            Disk::Full { since } => {
                // A query that spills fills the disk of the data for a moment, and fails.
                let limit = if of == Volume::Wal { rules.grey_limit() } else { rules.disk_limit() };
                Some((Ailment::DiskFull { of }, since.after(limit)))
            }
            Disk::Failed { since } => Some((Ailment::DiskFailed { of }, since.after(rules.grey_limit()))),
            Disk::Hung { since } => {
                Some((Ailment::DiskHung { of }, self.counted(since).after(rules.disk_limit())))
            }
        };
        let both = [of(Volume::Wal, self.wal_disk), of(Volume::Data, self.data_disk)];
        both.into_iter().flatten().min_by_key(|(_, from)| *from)
    }

    /// From when on a PostgreSQL that greets nobody counts as dead.
    fn pulse_lost(&self, rules: &Rules) -> Option<Moment> {
        let (since, limit) = match self.pulse {
            Pulse::Unknown | Pulse::Beats => return None,
            Pulse::Halted { since } => (since, rules.grey_limit()),
            Pulse::Rests { since } => (since, rules.grey_limit() * 3 / 2),
            Pulse::Blocked { since } => (since, rules.disk_limit()),
        };
        Some(self.counted(since).after(limit))
    }
}

impl Observation {
    /// What is wrong with the disks of this host, for long enough to count.
    #[must_use]
    pub fn sick_disk(&self, now: Moment) -> Option<Ailment> {
        let (ailment, from) = self.signs.disks(&self.rules)?;
        (now >= from).then_some(ailment)
    }

    /// What is wrong here, and from when on it counts.
    pub(crate) fn ailment(&self) -> Option<(Ailment, Moment)> {
        let silent = match &self.postgres {
            Postgres::Unresponsive { since, .. } => {
                let long = self.signs.counted(*since).after(self.rules.unresponsive_limit());
                let sure = self.signs.pulse_lost(&self.rules);
                Some((Ailment::Silent, sure.map_or(long, |sure| sure.min(long))))
            }
            Postgres::Running(Running::Primary { .. }) => {
                self.signs.pulse_lost(&self.rules).map(|from| (Ailment::Closed, from))
            }
            Postgres::Running(Running::Standby { .. })
            | Postgres::Stopped
            | Postgres::Starting { .. }
            | Postgres::Stopping { .. } => None,
        };
        let disk = self.signs.disks(&self.rules).map(|(ailment, from)| {
            // Without room it has just crashed, and will do so again: there is nothing to wait for.
            let crashed = matches!(self.postgres, Postgres::Starting { .. } | Postgres::Stopped);
            let hopeless = matches!(ailment, Ailment::DiskFull { of: Volume::Wal } | Ailment::DiskLow);
            if crashed && hopeless {
                (ailment, from.before(self.rules.grey_limit()))
            } else {
                (ailment, from)
            }
        });
        silent.into_iter().chain(disk).min_by_key(|(_, from)| *from)
    }
}

impl Rules {
    /// How long something may be silent that shows by other signs, too, that it is dead.
    #[must_use]
    pub fn grey_limit(&self) -> Duration {
        (self.ttl * 2 / 5).max(Duration::from_secs(2))
    }

    /// How long a write may take: disks have bad moments that end.
    #[must_use]
    pub fn disk_limit(&self) -> Duration {
        (self.ttl * 2).max(Duration::from_secs(10))
    }

    /// How long killed processes may take to be gone before it is said that they are not.
    #[must_use]
    pub fn fence_patience(&self) -> Duration {
        self.grey_limit()
    }

    /// How long a standby that commits wait for may confirm nothing although there is something to confirm.
    #[must_use]
    pub fn stall_limit(&self) -> Duration {
        self.ttl.max(Duration::from_secs(5))
    }
}
