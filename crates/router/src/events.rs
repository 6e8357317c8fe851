//! What the router reports, as values: one line each, INFO for changes of the cluster, DEBUG for single connections.

use crate::sessions::CutReason;
use crate::truth::{NoPrimary, Target, Truth};
use std::net::SocketAddr;
use std::time::Duration;
use tracing::{debug, info, warn};
use types::NodeName;

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
        truth: &'a Truth,
        cut: usize,
    },
    MemberChanged {
        member: &'a NodeName,
        verdict: String,
    },
    EtcdLost {
        why: &'a str,
    },
    EtcdBack,
    Opened {
        client: SocketAddr,
        service: &'a str,
        member: &'a NodeName,
    },
    Closed {
        client: SocketAddr,
        member: &'a NodeName,
        lived: Duration,
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
    Stopping {
        sessions: usize,
    },
}

impl Event<'_> {
    /// Writes the line.
    pub(crate) fn log(&self) {
        match self {
            Event::Listening { service, role, address } => info!(service, role, %address, "listening"),
            Event::ApiListening { address } => info!(%address, "status and metrics are served"),
            Event::PrimaryChanged { truth, cut } => primary_changed(truth, *cut),
            Event::MemberChanged { member, verdict } => info!(%member, "member is now {verdict}"),
            Event::EtcdLost { why } => warn!(why, "etcd is out of reach: going by what was last seen"),
            Event::EtcdBack => info!("etcd answers again"),
            Event::Opened { client, service, member } => debug!(%client, service, %member, "session opened"),
            Event::Closed { client, member, lived } => {
                debug!(%client, %member, seconds = lived.as_secs_f64(), "session closed");
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
            Event::Stopping { sessions } => info!(sessions, "stopping: sessions are told to end"),
        }
    }
}

fn primary_changed(truth: &Truth, cut: usize) {
    let term = truth.term.map_or(0, |term| term.0);
    match &truth.primary {
        Ok(Target { name, host, port, .. }) => {
            info!(term, primary = %name, "sessions go to {host}:{port}; {cut} of older terms cut");
        }
        Err(why @ NoPrimary::NeverSeen { .. }) => info!("closed: {why}"),
        Err(why) => info!(term, "new connections wait: {why}; {cut} sessions cut"),
    }
}
