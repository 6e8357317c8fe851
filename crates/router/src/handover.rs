//! Handing the listening sockets to another process of the router: an upgrade that no client notices.
//!
//! ```text
//!   order ─► the program is started anew; its standard input is one end of a socket
//!         ─► the listening sockets, and who is drained by order ──► it follows etcd and accepts nothing yet
//!         ◄── ready: all clusters are known ───────────────────────┘
//!         ─► accept no more; the sessions that are here go on and are cut with their term as ever, until the last one ends
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
/// What is said of drained members fits into this.
const MOST_BYTES: usize = 60_000;
const READY: u8 = b'r';

/// What the router that ran here before left to this one.
pub struct Inherited {
    listeners: Vec<TcpListener>,
    drained: Value,
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
        let drained = serde_json::from_slice(&text)?;
        Ok(Inherited { listeners, drained, predecessor })
    }

    /// Takes out the socket that listens on this address.
    pub(crate) fn listener(&mut self, address: SocketAddr) -> Option<tokio::net::TcpListener> {
        let at =
            self.listeners.iter().position(|socket| socket.local_addr().is_ok_and(|own| own == address))?;
        let listener = self.listeners.swap_remove(at);
        listener.set_nonblocking(true).ok()?;
        tokio::net::TcpListener::from_std(listener).ok()
    }

    /// Waits until all clusters are known, takes over who is drained, and tells the predecessor. What it listened on and is listened
    /// on no more is closed.
    pub(crate) async fn succeed(mut self, shared: &Shared) {
        let known = || shared.clusters().iter().all(|cluster| cluster.sessions.truth().is_known());
        while !known() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for cluster in shared.clusters() {
            let names = self.drained.get(&cluster.name).and_then(Value::as_array);
            for name in names.into_iter().flatten().filter_map(Value::as_str) {
                cluster.sessions.drain(&NodeName::from(name), true);
            }
        }
        // One that has given up waiting has ended this process, or is about to.
        let _ = self.predecessor.write_all(&[READY]);
    }
}

/// Starts the successor, gives it the sockets, and waits until it is ready. Its process id.
pub(crate) async fn hand_over(
    mut command: Command,
    sockets: Vec<OwnedFd>,
    shared: &Shared,
) -> Result<u32, String> {
    let drained = drained(shared);
    let work = tokio::task::spawn_blocking(move || {
        let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
        command.env(SUCCESSOR, "1").stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = command.spawn();
        let child = child.map_err(|error| format!("failed to start {:?}: {error}", command.get_program()))?;
        // The command still has the other end.
        drop(command);
        converse(ours, child, &sockets, &drained)
    });
    work.await.map_err(|error| error.to_string())?
}

fn converse(ours: UnixStream, mut child: Child, sockets: &[OwnedFd], drained: &str) -> Result<u32, String> {
    let outcome = give(&ours, sockets, drained).and_then(|()| hear(ours));
    outcome.map(|()| child.id()).map_err(|error| {
        let ended = child.try_wait().ok().flatten();
        // It must not accept anybody any more, now that this one goes on.
        let _ = child.kill();
        let _ = child.wait();
        match ended {
            Some(status) => format!("the new process ended ({status}); its log says why"),
            None => format!("the new process was not ready in time: {error}"),
        }
    })
}

fn give(ours: &UnixStream, sockets: &[OwnedFd], drained: &str) -> io::Result<()> {
    if sockets.len() > MOST_SOCKETS || drained.len() > MOST_BYTES {
        let why = format!("more than {MOST_SOCKETS} listening sockets, or too many drained members");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let borrowed: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut carried = SendAncillaryBuffer::new(&mut space);
    carried.push(SendAncillaryMessage::ScmRights(&borrowed));
    let text = [IoSlice::new(drained.as_bytes())];
    let sent = sendmsg(ours, &text, &mut carried, SendFlags::NOSIGNAL)?;
    if sent == drained.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
}

fn hear(mut ours: UnixStream) -> io::Result<()> {
    ours.set_read_timeout(Some(READY_WITHIN))?;
    ours.read_exact(&mut [0; 1])
}

/// Who is drained in which cluster.
fn drained(shared: &Shared) -> String {
    let of = |cluster: &crate::shared::Cluster| {
        let names: Vec<String> = cluster.sessions.drained().iter().map(ToString::to_string).collect();
        (cluster.name.clone(), json!(names))
    };
    let all: serde_json::Map<String, Value> = shared.clusters().iter().map(|cluster| of(cluster)).collect();
    Value::Object(all).to_string()
}
