//! Handing the listening sockets to another process of the router: an upgrade that no client notices.
//!
//! ```text
//!   order ─► the program is started anew; its standard input is one end of a socket
//!         ─► the listening sockets, and who is drained or pinned ─► it follows etcd and accepts nothing yet
//!         ◄── ready: all clusters are known ───────────────────────┘
//!         ─► accept no more; the sessions that are here go on and are cut with their term as ever, until the last one ends,
//!            or their time is up (`router.linger`), or the new process breaks off: then nobody listens, and a new start is wanted
//!
//!   it ended, or was not ready in time ─► everything goes on here as before, and the log says why
//! ```

use crate::error::Error;
use crate::shared::Shared;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use types::NodeName;

/// Set for a process that is to find sockets at its standard input.
const SUCCESSOR: &str = "BATON_ROUTER_SUCCESSOR";
/// The successor must know all clusters in this time.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// The kernel carries at most 253 descriptors in a message.
const MOST_SOCKETS: usize = 250;
/// What is said of drained and pinned members fits into this.
const MOST_BYTES: usize = 60_000;
const READY: u8 = b'r';

/// What the router that ran here before left to this one.
pub struct Inherited {
    listeners: Vec<TcpListener>,
    orders: Value,
    predecessor: UnixStream,
}

impl Inherited {
    /// What is at the standard input, when this process was started as a successor.
    pub fn take() -> Result<Option<Inherited>, Error> {
        if std::env::var_os(SUCCESSOR).is_none() {
            return Ok(None);
        }
        let own = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
        own.and_then(Inherited::receive).map(Some).map_err(Error::NotInherited)
    }

    fn receive(predecessor: UnixStream) -> io::Result<Inherited> {
        predecessor.set_read_timeout(Some(READY_WITHIN))?;
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut carried = RecvAncillaryBuffer::new(&mut space);
        let mut text = vec![0; MOST_BYTES];
        let received =
            recvmsg(&predecessor, &mut [IoSliceMut::new(&mut text)], &mut carried, RecvFlags::CMSG_CLOEXEC)?;
        let mut listeners = Vec::new();
        for message in carried.drain() {
            if let RecvAncillaryMessage::ScmRights(sockets) = message {
                listeners.extend(sockets.map(|socket: OwnedFd| TcpListener::from(socket)));
            }
        }
        text.truncate(received.bytes);
        let orders = serde_json::from_slice(&text)?;
        Ok(Inherited { listeners, orders, predecessor })
    }

    /// Takes out the socket that listens on this address.
    pub(crate) fn listener(&mut self, address: SocketAddr) -> Option<tokio::net::TcpListener> {
        let at =
            self.listeners.iter().position(|socket| socket.local_addr().is_ok_and(|own| own == address))?;
        let listener = self.listeners.swap_remove(at);
        listener.set_nonblocking(true).ok()?;
        tokio::net::TcpListener::from_std(listener).ok()
    }

    /// Waits until all clusters are known, takes over who is drained and pinned, and tells the predecessor. What it listened on and is listened
    /// on no more is closed.
    pub(crate) async fn succeed(mut self, shared: &Shared) {
        let known = || shared.clusters().iter().all(|cluster| cluster.sessions.truth().is_known());
        while !known() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for cluster in shared.clusters() {
            let of_cluster = self.orders.get(&cluster.name);
            for member in members(of_cluster.and_then(|orders| orders.get("drained"))) {
                cluster.sessions.drain(&member, true);
            }
            let pinned = of_cluster.and_then(|orders| orders.get("pinned")).and_then(Value::as_object);
            for (service, on) in pinned.into_iter().flatten() {
                for member in members(Some(on)) {
                    cluster.sessions.pin(service, &member, true);
                }
            }
        }
        // One that has given up waiting has ended this process, or is about to.
        let _ = self.predecessor.write_all(&[READY]);
    }
}

fn members(list: Option<&Value>) -> Vec<NodeName> {
    let names = list.and_then(Value::as_array).into_iter().flatten();
    names.filter_map(Value::as_str).map(NodeName::from).collect()
}

/// Starts the successor, gives it the sockets, and waits until it is ready.
pub(crate) async fn hand_over(
    mut command: Command,
    sockets: Vec<OwnedFd>,
    shared: &Shared,
) -> Result<Child, String> {
    let orders = orders(shared);
    let work = tokio::task::spawn_blocking(move || {
        let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        command.env(SUCCESSOR, "1").stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = command.spawn();
        let child = child.map_err(|error| format!("failed to start {:?}: {error}", command.get_program()))?;
        // The command still has the other end.
        drop(command);
        converse(ours, child, &sockets, &orders)
    });
    work.await.map_err(|error| error.to_string())?
}

fn converse(ours: UnixStream, mut child: Child, sockets: &[OwnedFd], orders: &str) -> Result<Child, String> {
    let Err(error) = give(&ours, sockets, orders).and_then(|()| hear(ours)) else { return Ok(child) };
    let ended = child.try_wait().ok().flatten();
    // It must not accept anybody any more, now that this one goes on.
    let _ = child.kill();
    let _ = child.wait();
    Err(match ended {
        Some(status) => format!("the new process ended ({status}); its log says why"),
        None => format!("the new process was not ready in time: {error}"),
    })
}

fn give(ours: &UnixStream, sockets: &[OwnedFd], orders: &str) -> io::Result<()> {
    if sockets.len() > MOST_SOCKETS || orders.len() > MOST_BYTES {
        let why = format!("more than {MOST_SOCKETS} listening sockets, or too many orders about members");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let borrowed: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut carried = SendAncillaryBuffer::new(&mut space);
    carried.push(SendAncillaryMessage::ScmRights(&borrowed));
    let text = [IoSlice::new(orders.as_bytes())];
    let sent = sendmsg(ours, &text, &mut carried, SendFlags::NOSIGNAL)?;
    if sent == orders.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
}

fn hear(mut ours: UnixStream) -> io::Result<()> {
    ours.set_read_timeout(Some(READY_WITHIN))?;
    ours.read_exact(&mut [0; 1])
}

/// Who is drained in which cluster, and pinned to what.
fn orders(shared: &Shared) -> String {
    let names = |members: &BTreeSet<NodeName>| members.iter().map(ToString::to_string).collect::<Vec<_>>();
    let of = |cluster: &crate::shared::Cluster| {
        let (drained, pinned) = (cluster.sessions.drained(), cluster.sessions.pinned());
        let pinned: serde_json::Map<String, Value> =
            pinned.iter().map(|(service, members)| (service.clone(), json!(names(members)))).collect();
        (cluster.name.clone(), json!({ "drained": names(&drained), "pinned": pinned }))
    };
    let all: serde_json::Map<String, Value> = shared.clusters().iter().map(|cluster| of(cluster)).collect();
    Value::Object(all).to_string()
}
