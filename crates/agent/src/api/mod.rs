//! The REST API, on a thread and a runtime of its own: nothing that happens here delays a decision, and the other way round.
//!
//! ```text
//!   accept ─► (full? the connection that has been idle longest goes) ─► TLS, if configured ─► request within 5 s ─► route
//!          ─► access, for verbs that change something ─► body ─► handler ─► answer, close
//! ```
//! One file per group of endpoints. What is answered is what the agent's tasks found; no health check runs a query.

mod access;
mod body;
mod cluster;
mod config;
mod failsafe;
mod health;
mod lead;
mod listen;
mod metrics;
mod order;
mod query;
mod reply;
mod route;
mod schedule;
mod status;
mod switchover;
mod tls;
mod wal;
mod what_if;

pub(crate) use listen::bind;
pub(crate) use status::present;
pub(crate) use tls::acceptor;

use crate::addresses::Addresses;
use crate::archiving::ArchivingCheck;
use crate::error::Error;
use crate::failsafe::Failsafe;
use crate::in_force::InForce;
use crate::jobs::Jobs;
use crate::journal::Journal;
use crate::keeper::Keeper;
use crate::local::Local;
use crate::losses::Losses;
use crate::lost_wal::LostWalCheck;
use crate::orders::Orders;
use crate::planned::Planned;
use crate::readiness::Readiness;
use crate::signals::Signals;
use crate::signs::{Health, Signs};
use crate::slots::Slots;
use crate::surroundings::Log;
use crate::wake::Cell;
use crate::watchdog::Watchdog;
use crate::what_if::WhatIf;
use ::tls::TlsAcceptor;
use etcd::{Etcd, View};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use settings::{Dynamic, Settings};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use types::Moment;

/// So many connections at once; one more ends the one that has been idle longest.
const CONNECTIONS: usize = 256;
/// A request must be complete within this time.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// What the handlers look at and act through.
pub(crate) struct Shared {
    /// The file as last read, and the dynamic configuration; [`Shared::settings`] and [`Shared::dynamic`] give them.
    pub in_force: InForce,
    pub etcd: Etcd,
    pub view: watch::Receiver<View>,
    pub local: Local,
    pub keeper: Keeper,
    pub watchdog: Watchdog,
    pub jobs: Jobs,
    pub losses: Losses,
    pub readiness: Readiness,
    pub lost_wal: LostWalCheck,
    pub archiving: ArchivingCheck,
    pub journal: Arc<Cell<Journal>>,
    pub orders: Orders,
    pub planned: Planned,
    pub signals: Signals,
    pub log: Arc<dyn Log>,
    pub failsafe: Failsafe,
    pub signs: Signs,
    pub health: Arc<Cell<Health>>,
    pub addresses: Addresses,
    /// What tells the cluster's names, where it does.
    pub names: Option<Arc<dns::Dns>>,
    pub slots: Slots,
    /// What the last turn saw.
    pub what_if: WhatIf,
    /// Places for those who wait for the end of a lead.
    pub questions: Semaphore,
    /// When somebody who asked for the primary was last told that it is here.
    pub vouched: Cell<Option<Moment>>,
    /// When the loop last turned.
    pub turned: Cell<Moment>,
    /// The certificate, where there is one.
    pub tls: Cell<Option<TlsAcceptor>>,
}

/// Who sent a request, and over what.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub peer: SocketAddr,
    /// Over TLS.
    pub secure: bool,
    /// With a certificate that one of our authorities vouches for.
    pub certificate: bool,
}

impl Shared {
    /// As many places as there are.
    pub(crate) fn questions() -> Semaphore {
        Semaphore::new(lead::QUESTIONS)
    }

    /// The settings of this node's file as they are now: a reload replaces them.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.in_force.settings()
    }

    /// The dynamic configuration as it is now.
    pub(crate) fn dynamic(&self) -> Arc<Dynamic> {
        self.in_force.dynamic()
    }

    /// Reads the certificate again, for connections from now on. One that cannot be used leaves the old one in place.
    pub(crate) fn renew_certificate(&self) {
        match acceptor(&self.settings().restapi) {
            Ok(acceptor) => self.tls.with(|kept| *kept = acceptor),
            Err(error) => tracing::error!(
                "failed to {error}; the REST API keeps the certificate it has: correct the file, then reload again"
            ),
        }
    }
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

async fn converse(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, busy: Arc<AtomicBool>) {
    let Some(acceptor) = shared.tls.get() else {
        return answer(stream, Caller { peer, secure: false, certificate: false }, shared, busy).await;
    };
    match tokio::time::timeout(REQUEST_WITHIN, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificate = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
            answer(stream, Caller { peer, secure: true, certificate }, shared, busy).await;
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, %peer, "failed to agree on TLS with a client of the REST API")
        }
        Err(_) => {}
    }
}

async fn answer<S>(stream: S, caller: Caller, shared: Arc<Shared>, busy: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let handler = service_fn(move |request| {
        let (shared, busy) = (shared.clone(), busy.clone());
        async move {
            busy.store(true, Ordering::Relaxed);
            let answer = route::answer(request, caller, &shared).await;
            busy.store(false, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(reply::dress(answer, &shared.settings().restapi, caller.secure))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WITHIN)
        .keep_alive(false)
        .auto_date_header(false)
        .title_case_headers(true)
        .max_buf_size(64 << 10);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), handler).await {
        tracing::trace!(%error, peer = %caller.peer, "a connection to the REST API ended early");
    }
}
