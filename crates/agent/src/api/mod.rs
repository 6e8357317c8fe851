//! The REST API, on a thread and a runtime of its own: nothing that happens here delays a decision, and the other way round.
//!
//! ```text
//!   accept ─► (full? the connection that has been idle longest goes) ─► request within 5 s ─► route ─► answer, close
//! ```
//! One file per group of endpoints. What is answered is what the agent's tasks found; no health check runs a query.

mod access;
mod cluster;
mod config;
mod health;
mod metrics;
mod order;
mod reply;
mod route;
mod status;
mod switchover;

use crate::error::Error;
use crate::jobs::Jobs;
use crate::journal::Journal;
use crate::keeper::Keeper;
use crate::local::Local;
use crate::orders::Orders;
use crate::wake::Cell;
use etcd::{Etcd, View};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use settings::{Dynamic, RestApi, Settings};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use types::Moment;

/// So many connections at once; one more ends the one that has been idle longest.
const CONNECTIONS: usize = 256;
/// A request must be complete within this time.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// What the handlers look at and act through.
pub(crate) struct Shared {
    /// The file as last read; [`Shared::settings`] gives it.
    pub current: Cell<Arc<Settings>>,
    pub etcd: Etcd,
    pub view: watch::Receiver<View>,
    pub local: Local,
    pub keeper: Keeper,
    pub jobs: Jobs,
    pub journal: Arc<Cell<Journal>>,
    pub orders: Orders,
    pub dynamic: Cell<Arc<Dynamic>>,
    /// When the loop last turned.
    pub turned: Cell<Moment>,
}

impl Shared {
    /// The settings of this node's file as they are now: a reload replaces them.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.current.get()
    }
}

/// Takes the address, so that a busy port is known before anything else begins.
pub(crate) fn bind(rest: &RestApi) -> Result<TcpListener, Error> {
    let host = if rest.listen_host == "*" { "0.0.0.0" } else { rest.listen_host.as_str() };
    let listener = TcpListener::bind((host, rest.listen_port))
        .map_err(|source| Error::AddressInUse { address: rest.listen.clone(), source })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves for as long as the process lives.
pub(crate) fn serve(listener: TcpListener, shared: Arc<Shared>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("rest".to_owned()).spawn(move || {
        runtime.block_on(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => accept(listener, shared).await,
                Err(error) => tracing::error!(%error, "failed to serve the REST API"),
            }
        });
    })?;
    Ok(())
}

/// One connection, as the list of all knows it.
struct Open {
    busy: Arc<AtomicBool>,
    task: tokio::task::AbortHandle,
}

async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    let mut open: BTreeMap<u64, Open> = BTreeMap::new();
    let mut number = 0_u64;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection to the REST API");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        open.retain(|_, connection| !connection.task.is_finished());
        if open.len() >= CONNECTIONS {
            let idle = open.iter().find(|(_, connection)| !connection.busy.load(Ordering::Relaxed));
            let Some(oldest) = idle.map(|(number, _)| *number) else { continue };
            if let Some(connection) = open.remove(&oldest) {
                connection.task.abort();
            }
        }
        let busy = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(converse(stream, peer, shared.clone(), busy.clone())).abort_handle();
        open.insert(number, Open { busy, task });
        number += 1;
    }
}

async fn converse(
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    busy: Arc<AtomicBool>,
) {
    let handler = service_fn(move |request| {
        let (shared, busy) = (shared.clone(), busy.clone());
        async move {
            busy.store(true, Ordering::Relaxed);
            let answer = route::answer(request, peer, &shared).await;
            busy.store(false, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WITHIN)
        .keep_alive(false)
        .max_buf_size(64 << 10);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), handler).await {
        tracing::trace!(%error, %peer, "a connection to the REST API ended early");
    }
}
