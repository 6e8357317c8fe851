//! A standby that waits for WAL that nobody has: found by asking, told by name.
//!
//! ```text
//!   it is behind the leader and has not moved for STILL ──► the one it follows, for the segment (postgres::wal_sources)
//!                                                     sends it │ removed it
//!                                    nothing is wrong  ◄───────┘      └──► restore_command: 0 there │ not 0
//!                                                                                  nothing is wrong ◄┘     └──► the other members
//!   it moves, or leads ──► no longer                                                lost: log, journal, member key, status, metric
//! ```
//! A quiet or slow moment proves nothing and is not taken for proof: only the answer "removed" of the sender is, to the very question that
//! the standby's own receiver asks. A task of its own, with a limit on every step: nothing waits for it, and it changes nothing.

use crate::configure;
use crate::continuity::{self, Answer};
use crate::in_force::InForce;
use crate::journal::Journal;
use crate::local::Local;
use crate::upstream::Sender;
use crate::wake::Cell;
use etcd::{Snapshot, View};
use postgres::connection::ConnectTo;
use postgres::wal_sources::{self, Needed};
use postgres::{control, replication};
use settings::{Dynamic, Settings};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use types::{Lsn, Moment, NodeName};

/// Its position is looked at so often.
const LOOK: Duration = Duration::from_secs(2);
/// It is asked for when it has not moved for this time: two attempts of PostgreSQL's receiver.
const STILL: Duration = Duration::from_secs(10);
/// Asked again after this time, while it still does not move.
const AGAIN: Duration = Duration::from_secs(30);
/// One server may take so long for its answer.
const WITHIN: Duration = Duration::from_secs(5);
/// More members than these are not asked for help.
const MOST_ASKED: usize = 8;

/// What this member waits for in vain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LostWal {
    /// The segment; of several names the newest timeline's.
    pub segment: String,
    pub start: Lsn,
    /// Who has removed it.
    sender: String,
    archive: Archive,
    /// A member that still has it.
    holder: Option<NodeName>,
    /// What is typed to copy this member anew.
    reinit: String,
}

/// What the archive said.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Archive {
    /// There is no `restore_command`.
    None,
    Lacks,
    Unknown(String),
}

impl fmt::Display for LostWal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LostWal { segment, start, sender, archive, holder, reinit } = self;
        write!(
            f,
            "waits for WAL that {}: ",
            if holder.is_some() { "it does not get" } else { "nobody has" }
        )?;
        write!(f, "{sender} has removed {segment} ({start} and on), ")?;
        match archive {
            Archive::None => f.write_str("and there is no restore_command to get it from an archive")?,
            Archive::Lacks => f.write_str("and the archive does not have it")?,
            Archive::Unknown(why) => write!(f, "and the archive could not be asked ({why})")?,
        }
        match holder {
            Some(holder) => write!(
                f,
                "; {holder} still has it: let this member follow it (tag replicatefrom: {holder}) until it has caught up, or copy it anew: {reinit}"
            ),
            None => write!(f, "; only a new copy helps: {reinit}"),
        }
    }
}

/// The last finding; a cheap clone.
#[derive(Clone)]
pub(crate) struct LostWalCheck {
    inner: Arc<Inner>,
}

struct Inner {
    in_force: InForce,
    local: Local,
    view: watch::Receiver<View>,
    journal: Arc<Cell<Journal>>,
    found: Cell<Option<LostWal>>,
}

/// Since when it stands still, and when that was last looked into.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Watch {
    at: Option<(Lsn, Moment)>,
    asked: Option<Moment>,
}

impl Watch {
    /// Takes in where a standby is that is behind; whether it has stood still for so long that somebody is asked. `None`: it is no
    /// standby, or not behind.
    fn see(&mut self, position: Option<Lsn>, now: Moment) -> bool {
        match (position, self.at) {
            (None, _) => *self = Watch::default(),
            (Some(lsn), Some((before, _))) if lsn == before => {}
            (Some(lsn), _) => *self = Watch { at: Some((lsn, now)), asked: None },
        }
        let still = self.at.is_some_and(|(_, since)| now.since(since) >= STILL);
        let due = still && self.asked.is_none_or(|asked| now.since(asked) >= AGAIN);
        if due {
            self.asked = Some(now);
        }
        due
    }
}

impl LostWalCheck {
    pub(crate) fn new(
        in_force: InForce,
        local: Local,
        view: watch::Receiver<View>,
        journal: Arc<Cell<Journal>>,
    ) -> LostWalCheck {
        LostWalCheck { inner: Arc::new(Inner { in_force, local, view, journal, found: Cell::new(None) }) }
    }

    /// What this member waits for in vain, if it does.
    pub(crate) fn found(&self) -> Option<LostWal> {
        self.inner.found.get()
    }

    /// Looks for ever; ends when dropped.
    pub(crate) async fn run(self) {
        let mut watch = Watch::default();
        loop {
            tokio::time::sleep(LOOK).await;
            let position = self.behind();
            let before = watch.at;
            let due = watch.see(position, clock::now());
            if watch.at != before {
                self.note(None);
            }
            if let (true, Some(position)) = (due, position) {
                match self.look(position).await {
                    Ok(found) => self.note(found),
                    // Whoever cannot be asked has not said that it is gone.
                    Err(why) => tracing::debug!(why, "failed to look for the WAL that this member waits for"),
                }
            }
        }
    }

    /// Where this standby is, when it runs and the leader has written more than it has.
    fn behind(&self) -> Option<Lsn> {
        let inner = &self.inner;
        if !inner.local.is_running() {
            return None;
        }
        let (facts, _) = inner.local.seen().facts?;
        let position = facts.replayed_lsn.max(facts.received_lsn).filter(|_| facts.in_recovery)?;
        let snapshot = inner.view.borrow().snapshot.clone()?;
        let leader = &snapshot.leader.as_ref()?.name;
        let said = snapshot.members.get(leader).and_then(|member| member.xlog_location);
        let written = said.max(snapshot.optime())?;
        (*leader != inner.in_force.settings().name && written > position).then_some(position)
    }

    async fn look(&self, position: Lsn) -> Result<Option<LostWal>, String> {
        let (settings, dynamic) = (self.inner.in_force.settings(), self.inner.in_force.dynamic());
        let snapshot = self.inner.view.borrow().snapshot.clone().ok_or("etcd was not read yet")?;
        let leader = snapshot.leader.as_ref().map(|leader| leader.name.clone()).ok_or("nobody leads")?;
        let upstream = self.inner.local.life().upstream.ok_or("it follows nobody")?;
        // What an archive alone feeds is lost only when the leader cannot archive it any more.
        let upstream =
            if upstream == ha::Upstream::Archive { ha::Upstream::Member(leader) } else { upstream };
        let name = match &upstream {
            ha::Upstream::Member(name) => name.to_string(),
            ha::Upstream::Remote | ha::Upstream::Archive => "the cluster that it follows".to_owned(),
        };
        let sender =
            Sender::find(&upstream, Some(&snapshot), &dynamic).ok_or("whom it follows is not known")?;
        let servers = self.servers(&sender);
        let first = servers.first().ok_or("whom it follows has no address")?;
        let told = replication::identify_with_history(first, WITHIN).await;
        let (_, history) = told.map_err(|error| format!("failed to {error}"))?;
        let data_dir = self.inner.local.data_dir().to_owned();
        let read = move || {
            let size = control::read(&data_dir).ok()?.wal_segment_size;
            let end = wal_sources::local_end(&data_dir, &history, position, size);
            Some(wal_sources::needed(&history, end, size))
        };
        let needed = tokio::task::spawn_blocking(read).await.ok().flatten();
        let needed = needed.ok_or("the control file cannot be read")?;
        for server in &servers {
            let answer = wal_sources::ask(server, needed.timeline, needed.start, WITHIN).await;
            if answer.map_err(|error| format!("failed to {error}"))? == wal_sources::Sender::Sends {
                return Ok(None);
            }
        }
        let Some(archive) = self.archive(&settings, &dynamic, &needed).await else { return Ok(None) };
        let holder = self.holder(&snapshot, &upstream, &needed).await;
        let segment = needed.names.last().cloned().unwrap_or_default();
        let reinit = format!("baton reinit {} {}", settings.scope, settings.name);
        Ok(Some(LostWal { segment, start: needed.start, sender: name, archive, holder, reinit }))
    }

    fn servers(&self, sender: &Sender) -> Vec<ConnectTo> {
        let settings = self.inner.in_force.settings();
        let authentication = &settings.postgresql.authentication;
        sender.connections(&authentication.replication, &settings.postgresql.database, "baton WAL check")
    }

    /// What the archive says about the segment; `None` when it has it under one of its names.
    async fn archive(
        &self,
        settings: &Arc<Settings>,
        dynamic: &Arc<Dynamic>,
        needed: &Needed,
    ) -> Option<Archive> {
        let (settings, dynamic, local) = (settings.clone(), dynamic.clone(), self.inner.local.clone());
        let effective =
            tokio::task::spawn_blocking(move || configure::effective(&settings, &dynamic, &local)).await;
        let command =
            effective.ok().and_then(|effective| effective.recovery_conf.get("restore_command").cloned());
        let Some(command) = command.filter(|command| !command.is_empty()) else { return Some(Archive::None) };
        let Ok(scratch) = tempfile::tempdir() else {
            return Some(Archive::Unknown("failed to make a directory for temporary files".to_owned()));
        };
        let mut said = Archive::Lacks;
        for name in &needed.names {
            match continuity::ask_for(&command, name, scratch.path(), Some(self.inner.local.data_dir())).await
            {
                Answer::There => return None,
                Answer::Missing => {}
                Answer::Unknown(why) => said = Archive::Unknown(why),
            }
        }
        Some(said)
    }

    /// Another member that still has it.
    async fn holder(
        &self,
        snapshot: &Snapshot,
        upstream: &ha::Upstream,
        needed: &Needed,
    ) -> Option<NodeName> {
        let me = self.inner.in_force.settings().name.clone();
        let asked = |name: &&NodeName| **name != me && *upstream != ha::Upstream::Member((*name).clone());
        for name in snapshot.members.keys().filter(asked).take(MOST_ASKED) {
            let member = ha::Upstream::Member(name.clone());
            let Some(sender) = Sender::find(&member, Some(snapshot), &self.inner.in_force.dynamic()) else {
                continue;
            };
            for server in self.servers(&sender) {
                let answer = wal_sources::ask(&server, needed.timeline, needed.start, WITHIN).await;
                if matches!(answer, Ok(wal_sources::Sender::Sends)) {
                    return Some(name.clone());
                }
            }
        }
        None
    }

    /// Says it once.
    fn note(&self, found: Option<LostWal>) {
        let before = self.inner.found.with(|kept| std::mem::replace(kept, found.clone()));
        match (&before, &found) {
            (_, Some(lost)) if before.as_ref() != Some(lost) => {
                tracing::warn!("this member {lost}");
                let text = format!("this member {lost}");
                self.inner.journal.with(|journal| journal.tell("lost WAL", "WaitsInVain", text));
            }
            (Some(lost), None) => {
                tracing::info!(
                    segment = lost.segment,
                    "this member no longer waits for WAL that nobody sends"
                );
            }
            (_, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AGAIN, Archive, LOOK, LostWal, STILL, Watch};
    use types::{Lsn, Moment};

    #[test]
    fn it_is_asked_for_when_it_stands_still_and_not_in_a_quiet_or_slow_moment() {
        let asked = |positions: &dyn Fn(u32) -> Option<u64>| {
            let mut watch = Watch::default();
            let mut moments = Vec::new();
            for round in 0..45_u32 {
                let now = Moment(0).after(LOOK * round);
                if watch.see(positions(round).map(Lsn), now) {
                    moments.push((LOOK * round).as_secs());
                }
            }
            moments
        };
        let (still, again) = (STILL.as_secs(), AGAIN.as_secs());
        assert_eq!(asked(&|_| Some(7)), [still, still + again, still + 2 * again]);
        assert_eq!(asked(&|_| None), Vec::<u64>::new(), "not behind");
        assert_eq!(asked(&|round| Some(u64::from(round / 4))), Vec::<u64>::new(), "slow");
        let moved = |round: u32| Some(u64::from(round > 10));
        assert_eq!(asked(&moved), [still, 22 + still, 22 + still + again]);
    }

    #[test]
    fn what_is_said() {
        let lost = |archive, holder: Option<&str>| LostWal {
            segment: "000000010000000000000003".to_owned(),
            start: Lsn(0x300_0000),
            sender: "n1".to_owned(),
            archive,
            holder: holder.map(Into::into),
            reinit: "baton reinit demo n2".to_owned(),
        };
        assert_eq!(
            lost(Archive::Lacks, None).to_string(),
            "waits for WAL that nobody has: n1 has removed 000000010000000000000003 (0/3000000 and on), and the archive does not \
             have it; only a new copy helps: baton reinit demo n2"
        );
        let unknown = Archive::Unknown("it ended with 25".to_owned());
        assert_eq!(
            lost(unknown, Some("n3")).to_string(),
            "waits for WAL that it does not get: n1 has removed 000000010000000000000003 (0/3000000 and on), and the archive could not \
             be asked (it ended with 25); n3 still has it: let this member follow it (tag replicatefrom: n3) until it has caught up, or \
             copy it anew: baton reinit demo n2"
        );
    }
}
