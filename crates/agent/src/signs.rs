//! Signs of grey failures on this host, each found beside the loop: what hangs hangs its probe alone.
//!
//! ```text
//!   disk    a thread for each file system: a small write, forced to the disk ─┐
//!   pulse   a task: looks at the postmaster's state, and knocks               ├─► ha::Signs ─► the loop
//!   late    a task: notices that the agent itself is not given the processor ─┘
//! ```
//! A probe that hangs is one thread, never more: nothing is asked of it until it has answered.

mod disk;
mod late;
mod pulse;

use crate::guard::Warden;
use crate::local::Local;
use crate::wake::{Cell, Wake};
use disk::DiskProbe;
use ha::{Ailment, Disk, Rules, Volume};
use std::sync::Arc;
use std::time::Duration;
use types::Moment;

/// The tick of the probes; each has its own pace.
const TICK: Duration = Duration::from_millis(250);

/// What the others, and people, have to know of this host's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// What is wrong with its disks, for long enough to count.
    pub sick: Option<Ailment>,
    /// Since when processes of its primary are there that were killed and do not end.
    pub unfenced: Option<Moment>,
}

/// All signs; a cheap clone.
#[derive(Clone)]
pub(crate) struct Signs {
    inner: Arc<Inner>,
}

struct Inner {
    local: Local,
    warden: Arc<Warden>,
    wake: Wake,
    rules: Cell<Rules>,
    /// The data directory is a database that nothing else works on.
    settled: Cell<bool>,
    data: DiskProbe,
    wal: DiskProbe,
    pulse: Cell<ha::Pulse>,
    late: Cell<late::Late>,
    /// What was said last about the disks and the connection slots.
    told: Cell<Told>,
}

#[derive(Clone, Default, PartialEq, Eq)]
struct Told {
    disk: Option<Ailment>,
    crowded: bool,
    stalled: Vec<String>,
}

impl Signs {
    pub(crate) fn new(local: Local, warden: Arc<Warden>, wake: Wake, rules: Rules) -> std::io::Result<Signs> {
        Ok(Signs {
            inner: Arc::new(Inner {
                data: DiskProbe::start("disk of data", wake.clone())?,
                wal: DiskProbe::start("disk of wal", wake.clone())?,
                local,
                warden,
                wake,
                rules: Cell::new(rules),
                settled: Cell::new(false),
                pulse: Cell::new(ha::Pulse::Unknown),
                late: Cell::new(late::Late::default()),
                told: Cell::new(Told::default()),
            }),
        })
    }

    /// Probes for ever; ends when dropped.
    pub(crate) async fn run(self) {
        tokio::join!(self.disks(), self.take_pulse(), self.watch_lateness());
    }

    /// The settings, and whether the data directory is a database that nothing else works on.
    pub(crate) fn turned(&self, rules: &Rules, settled: bool) {
        self.inner.settled.with(|kept| *kept = settled);
        self.inner.rules.with(|kept| {
            if kept != rules {
                rules.clone_into(kept);
            }
        });
    }

    /// What is known now.
    pub(crate) fn now(&self) -> ha::Signs {
        let inner = &self.inner;
        let data = inner.data.found();
        // Commits that get to the disk show that it answers, whatever becomes of our own small write.
        let written = inner.local.written_at();
        let alive = |disk: Disk| match (disk, written) {
            (Disk::Hung { since }, Some(written)) => Disk::Hung { since: since.max(written) },
            (disk, _) => disk,
        };
        let (data_disk, wal_disk) = if data.wal_apart {
            (data.disk, alive(inner.wal.found().disk))
        } else {
            (Disk::Fine, alive(data.disk))
        };
        ha::Signs {
            data_disk,
            wal_disk,
            pulse: inner.pulse.get(),
            late: inner.late.with(|late| late.last),
            killed: inner.local.killed().or(inner.warden.firing()),
        }
    }

    /// By how much the agent was late, and how often that was too much.
    pub(crate) fn lateness(&self) -> (Duration, u64) {
        self.inner.late.with(|late| (late.worst, late.times))
    }

    /// The standbys that confirm nothing although they are sent WAL.
    pub(crate) fn stalled(&self) -> Vec<String> {
        let limit = self.inner.rules.with(|rules| rules.stall_limit());
        let seen = self.inner.local.seen();
        let primary = seen.facts.filter(|(facts, _)| !facts.in_recovery);
        // Counted up to the answer: what has happened since then nobody has seen.
        primary.map_or_else(Vec::new, |(facts, asked)| seen.stalls.longer_than(limit, &facts, asked))
    }

    async fn disks(&self) {
        loop {
            let rules = self.inner.rules.get();
            let every = (rules.ttl / 5).clamp(Duration::from_secs(1), Duration::from_secs(5));
            if self.inner.settled.get() {
                let room = self.inner.local.segment_size();
                let data_dir = self.inner.local.data_dir();
                self.inner.data.ask(data_dir, room, every);
                if self.inner.data.found().wal_apart {
                    self.inner.wal.ask(&data_dir.join("pg_wal"), room, every);
                }
            } else {
                self.inner.data.forget();
                self.inner.wal.forget();
            }
            self.tell(&rules);
            tokio::time::sleep(TICK).await;
        }
    }

    /// Says once what is wrong, and once that it is over.
    fn tell(&self, rules: &Rules) {
        let signs = self.now();
        let disk = worst(&signs, rules, clock::now());
        let crowded = self.inner.local.free_slots().is_some_and(|free| free <= 0);
        let stalled = self.stalled();
        let before = self
            .inner
            .told
            .with(|told| std::mem::replace(told, Told { disk, crowded, stalled: stalled.clone() }));
        match (before.disk, disk) {
            (old, Some(ailment)) if old != Some(ailment) => tracing::warn!("{ailment}: {}", advice(ailment)),
            (Some(ailment), None) => tracing::info!("no longer: {ailment}"),
            (Some(_) | None, _) => {}
        }
        for name in stalled.iter().filter(|name| !before.stalled.contains(name)) {
            tracing::warn!(
                "standby {name} has confirmed nothing for {:?} although it is sent WAL: its connection may be dead, or its disk may hang; where commits wait for it, they no longer do",
                rules.stall_limit()
            );
        }
        match (before.crowded, crowded) {
            (false, true) => tracing::warn!(
                "PostgreSQL has no free connection slot left for clients: it lives, and nothing is done about it; raise max_connections, or put a pooler in front"
            ),
            (true, false) => tracing::info!("PostgreSQL has free connection slots again"),
            (_, _) => {}
        }
    }
}

/// What is to be told about the disks: a write that takes long before it counts as one that hangs.
fn worst(signs: &ha::Signs, rules: &Rules, now: Moment) -> Option<Ailment> {
    let of = |of, disk| match disk {
        Disk::Unknown | Disk::Fine => None,
        Disk::Low { .. } => (of == Volume::Wal).then_some(Ailment::DiskLow),
        Disk::Full { .. } => Some(Ailment::DiskFull { of }),
        Disk::Failed { .. } => Some(Ailment::DiskFailed { of }),
        Disk::Hung { since } => {
            (now.since(since) >= rules.disk_limit() / 2).then_some(Ailment::DiskHung { of })
        }
    };
    of(Volume::Wal, signs.wal_disk).or_else(|| of(Volume::Data, signs.data_disk))
}

fn advice(ailment: Ailment) -> &'static str {
    match ailment {
        Ailment::DiskHung { .. } => {
            "a small write has not ended; look at the kernel's log and at the storage"
        }
        Ailment::DiskFailed { .. } => {
            "a small write failed; look at the kernel's log, the file system may be read-only"
        }
        Ailment::DiskFull { .. } | Ailment::DiskLow => {
            "make room, but never by removing files of pg_wal: look for slots that hold WAL, and at archive_command"
        }
        Ailment::Silent | Ailment::Closed => "look at the log of PostgreSQL",
    }
}
