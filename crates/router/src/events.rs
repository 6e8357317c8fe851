//! What the router reports, as values: one line each, INFO for changes of the cluster, DEBUG for single connections.

use crate::cut_reason::CutReason;
use crate::lag::Lag;
use crate::truth::{Target, Truth};
use crate::verdict::NoPrimary;
use std::net::SocketAddr;
use std::time::Duration;
use tracing::{debug, info, warn};
use types::{NodeName, Term};

pub(crate) enum Event<'a> {
    Listening {
        service: &'a str,
        role: &'a str,
        address: SocketAddr,
    },
    ApiListening {
        address: SocketAddr,
    },
    /// The primary or its term changed, and so many sessions were cut for it.
    PrimaryChanged {
        cluster: &'a str,
        truth: &'a Truth,
        cut: usize,
    },
    MemberChanged {
        cluster: &'a str,
        member: &'a NodeName,
        verdict: String,
    },
    EtcdLost {
        cluster: &'a str,
        why: &'a str,
    },
    EtcdBack {
        cluster: &'a str,
    },
    /// A replica fell behind for a service, or caught up.
    Lagging {
        service: &'a str,
        member: &'a NodeName,
        out: bool,
        lag: Lag,
    },
    /// Before a switchover no transaction is left.
    Quiet {
        cluster: &'a str,
        term: Term,
    },
    /// Before a switchover transactions outlasted the drain.
    NotQuiet {
        cluster: &'a str,
        sessions: usize,
        cut: bool,
    },
    /// This router cannot tell the agents that it is here.
    NotPublished {
        cluster: &'a str,
        why: String,
    },
    Reloaded,
    NotReloaded {
        why: String,
    },
    Drained {
        cluster: &'a str,
        member: &'a NodeName,
        out: bool,
    },
    /// A person sent a service to a member.
    Pinned {
        cluster: &'a str,
        member: &'a NodeName,
        service: &'a str,
        on: bool,
    },
    /// More clients are allowed than there are file descriptors for.
    FewDescriptors {
        wanted: usize,
        descriptors: u64,
        clients: usize,
    },
    /// A session, with the address under which the member sees its client; INFO where that is wanted.
    Opened {
        client: SocketAddr,
        service: &'a str,
        member: &'a NodeName,
        seen_as: Option<SocketAddr>,
        wanted: bool,
    },
    Closed {
        client: SocketAddr,
        service: &'a str,
        member: &'a NodeName,
        seen_as: Option<SocketAddr>,
        lived: Duration,
        wanted: bool,
    },
    Cut {
        client: SocketAddr,
        why: &'a CutReason,
    },
    Held {
        client: SocketAddr,
        service: &'a str,
        why: String,
    },
    HeldInVain {
        client: SocketAddr,
        service: &'a str,
        why: String,
    },
    Unreachable {
        service: &'a str,
        member: &'a NodeName,
        why: String,
    },
    Refused {
        client: SocketAddr,
        service: &'a str,
        why: String,
    },
    AcceptFailed {
        service: &'a str,
        why: String,
    },
    ApiFailed {
        why: String,
    },
    /// Another process listens from here on.
    HandedOver {
        successor: u32,
        sessions: usize,
    },
    NotHandedOver {
        why: &'a str,
    },
    Stopping {
        sessions: usize,
    },
    /// There is no io_uring here.
    NoCarrier {
        why: String,
    },
    /// The thread that carries busy sessions does not answer, or does again.
    CarrierHangs {
        hangs: bool,
        carried: usize,
    },
    /// The thread that carries busy sessions cannot go on; so many could not be given back.
    CarrierFailed {
        why: String,
        lost: usize,
    },
    /// The thread that carries busy sessions does not end.
    CarrierStays,
    /// A session that could not be given to the carrier, or did not come back.
    LostByCarrier {
        why: String,
    },
}

impl Event<'_> {
    /// Writes the line.
    pub(crate) fn log(&self) {
        match self {
            Event::Listening { service, role, address } => info!(service, role, %address, "listening"),
            Event::ApiListening { address } => info!(%address, "status and metrics are served"),
            Event::PrimaryChanged { cluster, truth, cut } => primary_changed(cluster, truth, *cut),
            Event::MemberChanged { cluster, member, verdict } => {
                info!(cluster, %member, "member is now {verdict}")
            }
            Event::EtcdLost { cluster, why } => {
                warn!(cluster, why, "etcd is out of reach: going by what was last seen");
            }
            Event::EtcdBack { cluster } => info!(cluster, "etcd answers again"),
            Event::Lagging { service, member, out: true, lag } => {
                info!(service, %member, "too far behind, gets no new sessions: {lag}");
            }
            Event::Lagging { service, member, out: false, lag } => {
                info!(service, %member, "has caught up, gets sessions again: {lag}");
            }
            Event::Quiet { cluster, term } => {
                info!(cluster, %term, "no transaction is left before the switchover");
            }
            Event::NotQuiet { cluster, sessions, cut: true } => {
                info!(cluster, sessions, "transactions outlasted the drain before the switchover: cut");
            }
            Event::NotQuiet { cluster, sessions, cut: false } => {
                info!(cluster, sessions, "transactions outlasted the drain before the switchover: all go on");
            }
            Event::NotPublished { cluster, why } => {
                warn!(
                    cluster,
                    "a planned switchover does not wait for transactions through this router: {why}"
                );
            }
            Event::Reloaded => info!("the configuration was read again"),
            Event::NotReloaded { why } => warn!("the configuration stays as it was: {why}"),
            Event::Drained { cluster, member, out: true } => {
                warn!(cluster, %member, "by order: gets no new sessions");
            }
            Event::Drained { cluster, member, out: false } => {
                info!(cluster, %member, "by order: gets sessions again")
            }
            Event::Pinned { cluster, member, service, on: true } => {
                warn!(cluster, %member, service, "by order: gets the service's new sessions while it can serve them");
            }
            Event::Pinned { cluster, member, service, on: false } => {
                info!(cluster, %member, service, "by order: the service is no longer sent to it alone");
            }
            Event::FewDescriptors { wanted, descriptors, clients } => {
                info!(
                    "max_connections is {wanted}, and {descriptors} file descriptors allow {clients} clients: \
                     raise LimitNOFILE to more than twice max_connections"
                );
            }
            Event::Opened { client, service, member, seen_as, wanted } => {
                let seen_as = shown(*seen_as);
                if *wanted {
                    info!(%client, service, %member, %seen_as, "session opened");
                } else {
                    debug!(%client, service, %member, %seen_as, "session opened");
                }
            }
            Event::Closed { client, service, member, seen_as, lived, wanted } => {
                let (seen_as, seconds) = (shown(*seen_as), lived.as_secs_f64());
                if *wanted {
                    info!(%client, service, %member, %seen_as, seconds, "session closed");
                } else {
                    debug!(%client, service, %member, %seen_as, seconds, "session closed");
                }
            }
            Event::Cut { client, why } => debug!(%client, "session cut: {why}"),
            Event::Held { client, service, why } => debug!(%client, service, "connection held: {why}"),
            Event::HeldInVain { client, service, why } => {
                info!(%client, service, "connection refused after waiting: {why}");
            }
            Event::Unreachable { service, member, why } => {
                debug!(service, %member, "failed to open a session: {why}");
            }
            Event::Refused { client, service, why } => debug!(%client, service, "connection refused: {why}"),
            Event::AcceptFailed { service, why } => warn!(service, "failed to accept connections: {why}"),
            Event::ApiFailed { why } => debug!("failed to serve a status request: {why}"),
            Event::HandedOver { successor, sessions } => {
                info!(
                    successor,
                    sessions, "a new process has taken over; the sessions here go on until they end"
                );
            }
            Event::NotHandedOver { why } => warn!("everything goes on in this process: {why}"),
            Event::Stopping { sessions } => info!(sessions, "stopping: sessions are told to end"),
            Event::NoCarrier { why } => {
                info!("busy sessions are served by epoll like all others: no io_uring is to be had: {why}");
            }
            Event::CarrierHangs { hangs: true, carried } => {
                warn!(
                    carried,
                    "failed to hear from the thread that carries busy sessions: no more are given to it until it answers; those that it \
                     carries stand still, and restarting the router ends them"
                );
            }
            Event::CarrierHangs { hangs: false, .. } => {
                info!("the thread that carries busy sessions answers again");
            }
            Event::CarrierFailed { why, lost } => {
                warn!(
                    lost,
                    "failed to carry busy sessions by io_uring: {why}; those that are lost have ended, all others are served by epoll \
                     until the router is restarted"
                );
            }
            Event::CarrierStays => {
                warn!(
                    "failed to end the thread that carries busy sessions in time: it ends with the process"
                );
            }
            Event::LostByCarrier { why } => debug!("failed to carry a session by io_uring: {why}"),
        }
    }
}

fn shown(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "-".to_owned(), |address| address.to_string())
}

fn primary_changed(cluster: &str, truth: &Truth, cut: usize) {
    let term = truth.term.map_or(0, |term| term.0);
    match &truth.primary {
        Ok(Target { name, host, port, .. }) => {
            info!(cluster, term, primary = %name, "sessions go to {host}:{port}; {cut} of older terms cut");
        }
        Err(why @ NoPrimary::NeverSeen { .. }) => info!(cluster, "closed: {why}"),
        Err(why) => info!(cluster, term, "new connections wait: {why}; {cut} sessions cut"),
    }
}
