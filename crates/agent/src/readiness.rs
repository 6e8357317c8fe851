//! Whether this member could be rewound if it had to be: looked at now and then while all is well, and said before it is
//! needed.
//!
//! ```text
//!   every minute, and after another leads ──► the directory, the local PostgreSQL, a login at the leader ──► obstacles
//!                                                                one line in the log when that changes, metric, status ◄─┘
//! ```
//! A task of its own, with a limit on every step: nothing waits for it.

use crate::configure;
use crate::in_force::InForce;
use crate::local::Local;
use crate::upstream::Sender;
use crate::wake::Cell;
use etcd::View;
use postgres::rewind::preflight::{self, Here, Obstacle};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use types::NodeName;

const EVERY: Duration = Duration::from_secs(60);
/// A change of leaders is over after this time, and so is the start of a member.
const SETTLED: Duration = Duration::from_secs(10);

/// The last findings; a cheap clone.
#[derive(Clone)]
pub(crate) struct Readiness {
    inner: Arc<Inner>,
}

struct Inner {
    in_force: InForce,
    local: Local,
    view: watch::Receiver<View>,
    /// `None` before the first look.
    obstacles: Cell<Option<Vec<Obstacle>>>,
    /// The most WAL that was seen between two checkpoints.
    most_wal: Cell<u64>,
}

impl Readiness {
    pub(crate) fn new(in_force: InForce, local: Local, view: watch::Receiver<View>) -> Readiness {
        Readiness {
            inner: Arc::new(Inner {
                in_force,
                local,
                view,
                obstacles: Cell::new(None),
                most_wal: Cell::new(0),
            }),
        }
    }

    /// What a rewind would fail of; `None` when that is not known yet.
    pub(crate) fn obstacles(&self) -> Option<Vec<Obstacle>> {
        self.inner.obstacles.get()
    }

    /// Looks for ever; ends when dropped.
    pub(crate) async fn run(self) {
        let mut view = self.inner.view.clone();
        loop {
            tokio::time::sleep(SETTLED).await;
            if self.inner.local.is_running() {
                match self.look().await {
                    Ok(found) => self.note(found),
                    Err(why) => tracing::debug!(why, "failed to look whether this member could be rewound"),
                }
            }
            let leader = leader(&view.borrow());
            let another = view.wait_for(|view| self::leader(view) != leader);
            if let Ok(Err(_)) = tokio::time::timeout(EVERY, another).await {
                return;
            }
        }
    }

    async fn look(&self) -> Result<Vec<Obstacle>, String> {
        let (settings, dynamic) = (self.inner.in_force.settings(), self.inner.in_force.dynamic());
        let local = &self.inner.local;
        if !settings.postgresql.use_pg_rewind.unwrap_or(dynamic.use_pg_rewind) {
            return Ok(vec![Obstacle::SwitchedOff]);
        }
        let (for_effective, of) = ((settings.clone(), dynamic), local.clone());
        let effective = tokio::task::spawn_blocking(move || {
            configure::effective(&for_effective.0, &for_effective.1, &of)
        });
        let effective = effective.await.map_err(|error| error.to_string())?;
        let restores = effective.recovery_conf.contains_key("restore_command");
        let here =
            preflight::here(local.installation(), local.data_dir(), &local.connect(), restores).await?;
        let mut obstacles = self.with_wal(here);
        if let Some(other) = self.other(&settings.name) {
            let authentication = &settings.postgresql.authentication;
            let login = authentication.rewind.as_ref().unwrap_or(&authentication.superuser);
            let database = &settings.postgresql.database;
            for connect in other.connections(login, database, "baton rewind check") {
                obstacles.extend(preflight::there(&connect).await.map_err(|error| error.to_string())?);
            }
        }
        Ok(obstacles)
    }

    /// The WAL that is kept is measured by the most that was ever needed, so that the finding does not come and go with
    /// every checkpoint.
    fn with_wal(&self, here: Here) -> Vec<Obstacle> {
        let Here { mut obstacles, wal } = here;
        if let Some((written, kept)) = wal {
            let needed = self.inner.most_wal.with(|most| {
                *most = written.max(*most);
                *most
            });
            if kept < needed {
                obstacles.push(Obstacle::WalNotKept { kept, needed });
            }
        }
        obstacles
    }

    /// Where a rewind would log in: at the leader, or, of the leader itself, at one that may follow it.
    fn other(&self, me: &NodeName) -> Option<Sender> {
        let snapshot = self.inner.view.borrow().snapshot.clone()?;
        let leader = snapshot.leader.as_ref().map(|leader| leader.name.clone()).filter(|name| name != me);
        let running = |member: &etcd::Member| {
            matches!(member.state, etcd::OrText::Known(types::PostgresState::Running))
        };
        let mut others = snapshot.members.iter().filter(|(name, member)| *name != me && running(member));
        let name = leader.or_else(|| others.next().map(|(name, _)| name.clone()))?;
        Sender::find(&ha::Upstream::Member(name), Some(&snapshot), &self.inner.in_force.dynamic())
    }

    fn note(&self, found: Vec<Obstacle>) {
        let before = self.inner.obstacles.with(|kept| kept.replace(found.clone()));
        let codes = |obstacles: &[Obstacle]| obstacles.iter().map(Obstacle::code).collect::<Vec<_>>();
        if before.as_deref().map(codes) == Some(codes(&found)) {
            return;
        }
        let words: Vec<String> = found.iter().map(ToString::to_string).collect();
        let words = words.join("; ");
        match found.as_slice() {
            [] if before.is_some() => tracing::info!("this member could be rewound again if it had to be"),
            [] => {}
            found if found.iter().any(Obstacle::is_certain) => {
                tracing::warn!("if this member had to be rewound, that would fail: {words}");
            }
            _ => tracing::info!("if this member had to be rewound, that could fail: {words}"),
        }
    }
}

fn leader(view: &View) -> Option<NodeName> {
    view.snapshot.as_ref()?.leader.as_ref().map(|leader| leader.name.clone())
}
