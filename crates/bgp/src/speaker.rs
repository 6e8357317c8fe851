//! The speaker: what may be announced, the neighbours who are told, and who may connect.
//!
//! ```text
//!   poke: rights have changed ─┐
//!   holder: it came, it went ──┴─► every neighbour's task looks at the rights, and tells what follows
//!   listener ─► a connection of a known neighbour ─► its task        of anybody else: closed
//! ```

use crate::config::{Config, Neighbor};
use crate::fence::Wanted;
use crate::neighbor::{Speaking, State};
use crate::socket::{self, Unable};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vip::{Held, Rights, Role};

/// The speaker could not be started.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] Unable);

/// Connections that wait for a neighbour's task: more than two mean that somebody plays.
const WAITING: usize = 2;
/// A stranger is named again after this long.
const REMIND: Duration = Duration::from_secs(60);
/// The pause after a failure to accept, as without descriptors.
const PAUSE: Duration = Duration::from_millis(250);

/// What may be announced, asked by every neighbour's task.
pub(crate) struct Routes {
    rights: Arc<dyn Rights>,
    held: Vec<watch::Receiver<Held>>,
    parting: AtomicBool,
    pub(crate) poke: Notify,
    pub(crate) end: CancellationToken,
}

impl Routes {
    /// The addresses with the rights to them: an address that is not on this host is none, because packets for it would be lost here.
    pub(crate) fn wanted(&self) -> Vec<Wanted> {
        let parting = self.parting.load(Ordering::SeqCst);
        let wanted = |held: &watch::Receiver<Held>| {
            let held = held.borrow();
            let (role, ip) = (held.wanted.role, held.wanted.ip);
            let right = held.since.and_then(|_| self.rights.right(role, ip));
            Wanted { ip, until: right.map(|right| right.until), parting: parting && role == Role::Primary }
        };
        self.held.iter().map(wanted).collect()
    }
}

/// Speaks with all neighbours.
pub struct Speaker {
    routes: Arc<Routes>,
    states: Vec<watch::Receiver<State>>,
    tasks: Vec<JoinHandle<()>>,
    helpers: Vec<JoinHandle<()>>,
}

impl Speaker {
    /// Starts to speak, of the addresses that `held` tells of and to which there are rights.
    pub fn start(
        config: Config,
        rights: Arc<dyn Rights>,
        mut held: Vec<watch::Receiver<Held>>,
    ) -> Result<Speaker, Error> {
        held.retain(|held| config.addresses.contains(&held.borrow().wanted.ip));
        let routes = Arc::new(Routes {
            rights,
            held,
            parting: AtomicBool::new(false),
            poke: Notify::new(),
            end: CancellationToken::new(),
        });
        let listeners: Vec<TcpListener> = config
            .listen
            .iter()
            .map(|on| socket::listen(*on, &config.neighbors))
            .collect::<Result<_, _>>()?;
        let (mut states, mut tasks, mut doors) = (Vec::new(), Vec::new(), Vec::new());
        for neighbor in &config.neighbors {
            let (door, incoming) = mpsc::channel(WAITING);
            let (speaking, state) = Speaking::new(neighbor.clone(), &config, routes.clone());
            doors.push((neighbor.clone(), door));
            states.push(state);
            tasks.push(tokio::spawn(speaking.run(incoming)));
        }
        let mut helpers: Vec<JoinHandle<()>> =
            routes.held.iter().map(|held| tokio::spawn(pass_on(held.clone(), routes.clone()))).collect();
        let delivery = crate::fence::delivery(config.hold());
        for listener in listeners {
            helpers.push(tokio::spawn(let_in(listener, doors.clone(), delivery)));
        }
        Ok(Speaker { routes, states, tasks, helpers })
    }

    /// The rights have changed.
    pub fn poke(&self) {
        self.routes.poke.notify_waiters();
    }

    /// Whether the primary's addresses are about to be given up: neighbours are told to look for other ways.
    pub fn parting(&self, parting: bool) {
        if self.routes.parting.swap(parting, Ordering::SeqCst) != parting {
            self.poke();
        }
    }

    /// Waits until every neighbour has been told that the addresses to which there is no right are gone; false when one has not after
    /// `within`.
    pub async fn gone(&self, within: Duration) -> bool {
        self.poke();
        let gone = async {
            for state in &self.states {
                let rightless = |ip: &IpAddr| {
                    self.routes.wanted().iter().all(|wanted| wanted.ip != *ip || wanted.until.is_none())
                };
                let _ = state.clone().wait_for(|state| !state.announced.iter().any(rightless)).await;
            }
        };
        tokio::time::timeout(within, gone).await.is_ok()
    }

    /// The neighbours as they are.
    #[must_use]
    pub fn states(&self) -> Vec<State> {
        self.states.iter().map(|state| state.borrow().clone()).collect()
    }

    /// Waits until something about a neighbour has changed since the last wait on these.
    #[must_use]
    pub fn watch(&self) -> Vec<watch::Receiver<State>> {
        self.states.clone()
    }

    /// Takes everything back and ends all sessions.
    pub async fn end(&self, within: Duration) {
        self.routes.end.cancel();
        let over = async {
            for state in &self.states {
                // The task's end closes its side.
                let mut state = state.clone();
                while state.changed().await.is_ok() {}
            }
        };
        let _ = tokio::time::timeout(within, over).await;
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.tasks.iter().chain(&self.helpers).for_each(JoinHandle::abort);
    }
}

/// An address that came or went is news for every neighbour.
async fn pass_on(mut held: watch::Receiver<Held>, routes: Arc<Routes>) {
    while held.changed().await.is_ok() {
        routes.poke.notify_waiters();
    }
}

/// Hands connections to those whom they concern.
async fn let_in(listener: TcpListener, doors: Vec<(Neighbor, mpsc::Sender<TcpStream>)>, delivery: Duration) {
    let mut reminded = None;
    loop {
        let (stream, from) = match listener.accept().await {
            Ok((stream, from)) => (stream, from.ip().to_canonical()),
            Err(error) => {
                tracing::warn!(%error, "failed to accept a BGP connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some((neighbor, door)) = doors.iter().find(|(neighbor, _)| neighbor.address == from) else {
            let now = clock::now();
            if reminded.is_none_or(|before| now.since(before) > REMIND) {
                reminded = Some(now);
                tracing::warn!(
                    "a BGP connection came from {from}, which is no neighbour: closed; add it to vip.bgp.neighbors, or correct its \
                     configuration"
                );
            }
            continue;
        };
        // A new connection takes something at once; the runtime has to learn it before it is written to without waiting.
        if stream.writable().await.is_err() {
            continue;
        }
        match socket::accepted(&stream, neighbor, delivery) {
            // One that its task has no room for is closed.
            Ok(()) => drop(door.try_send(stream)),
            Err(error) => tracing::warn!("failed to {error}"),
        }
    }
}
