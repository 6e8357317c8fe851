//! Handing the listening sockets to another process of the router: an upgrade that no client notices.
//!
//! ```text
//!   order ─► the program is started anew; its standard input is one end of a socket
//!         ─► the listening sockets, and who is drained or pinned ─► it follows etcd and accepts nothing yet
//!         ◄── ready: all clusters are known ───────────────────────┘
//!         ─► what was ordered meanwhile; the socket stays (`elders`)
//!         ─► accept no more; the sessions that are here go on and are cut with their term as ever, until the last one ends,
//!            or their time is up (`router.linger`), or the new process breaks off: then nobody listens, and a new start is wanted
//!
//!   it ended, was not ready in time, or this one is to stop ─► it is ended; all goes on here as before, and the log says why
//! ```

use crate::elders::{self, Line};
use crate::error::Error;
use crate::shared::Shared;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
};
use serde_json::Value;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Set for a process that is to find sockets at its standard input.
const SUCCESSOR: &str = "BATON_ROUTER_SUCCESSOR";
/// The successor must know all clusters in this time.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// How long the successor waits for the orders of the last moment: a program from before there were any says nothing.
const LAST_ORDERS: Duration = Duration::from_secs(2);
/// The kernel carries at most 253 descriptors in a message.
const MOST_SOCKETS: usize = 250;
/// What is said of drained and pinned members fits into this.
const MOST_BYTES: usize = 60_000;
const READY: u8 = b'r';

/// What the router that ran here before left to this one.
pub struct Inherited {
    listeners: Vec<TcpListener>,
    /// The sockets to processes that were exchanged before it, and still serve sessions.
    elders: Vec<OwnedFd>,
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
        let (mut listeners, mut elders) = (Vec::new(), Vec::new());
        for message in carried.drain() {
            let RecvAncillaryMessage::ScmRights(sockets) = message else { continue };
            for socket in sockets {
                match sockopt::socket_domain(&socket)? {
                    AddressFamily::UNIX => elders.push(socket),
                    _ => listeners.push(TcpListener::from(socket)),
                }
            }
        }
        text.truncate(received.bytes);
        let orders = serde_json::from_slice(&text)?;
        Ok(Inherited { listeners, elders, orders, predecessor })
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
    /// on no more is closed. Gives the sockets to the processes that still serve sessions.
    pub(crate) async fn succeed(self, shared: &Shared) -> Vec<Line> {
        let known = || shared.clusters().iter().all(|cluster| cluster.sessions.truth().is_known());
        while !known() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        elders::take_up(shared, &self.orders);
        let mut lines: Vec<Line> =
            self.elders.into_iter().filter_map(|socket| Line::new(socket).ok()).collect();
        let Ok(mut predecessor) = Line::new(OwnedFd::from(self.predecessor)) else { return lines };
        // One that has given up waiting has ended this process, or is about to.
        if predecessor.say(&[READY]).await.is_ok()
            && let Ok(Ok(orders)) = timeout(LAST_ORDERS, predecessor.hear()).await
        {
            elders::take_up(shared, &orders);
            lines.push(predecessor);
        }
        lines
    }
}

/// Starts the successor, gives it the sockets, and waits until it is ready, or until `stop`. The socket to it stays.
pub(crate) async fn hand_over(
    command: Command,
    sockets: Vec<OwnedFd>,
    shared: &Shared,
    stop: &CancellationToken,
) -> Result<(Child, Line), String> {
    let orders = elders::orders(shared).to_string();
    let begun = spawn_blocking(move || begin(command, &sockets, &orders)).await;
    let (child, ours) = begun.map_err(|error| error.to_string())??;
    let heard = tokio::select! {
        biased;
        () = stop.cancelled() => Err("this one is to stop".to_owned()),
        heard = timeout(READY_WITHIN, hear(ours, shared)) => match heard {
            Ok(heard) => heard.map_err(|error| error.to_string()),
            Err(_) => Err(format!("it does not know all clusters after {} s", READY_WITHIN.as_secs())),
        },
    };
    match heard {
        Ok(line) => Ok((child, line)),
        Err(why) => {
            let given_up = spawn_blocking(move || give_up(child, &why)).await;
            Err(given_up.unwrap_or_else(|error| error.to_string()))
        }
    }
}

fn begin(mut command: Command, sockets: &[OwnedFd], orders: &str) -> Result<(Child, UnixStream), String> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
    command.env(SUCCESSOR, "1").stdin(Stdio::from(OwnedFd::from(theirs)));
    let child = command.spawn();
    let child = child.map_err(|error| format!("failed to start {:?}: {error}", command.get_program()))?;
    // The command still has the other end.
    drop(command);
    match give(&ours, sockets, orders) {
        Ok(()) => Ok((child, ours)),
        Err(error) => Err(give_up(child, &error.to_string())),
    }
}

/// It must not accept anybody any more, now that this one goes on.
fn give_up(mut child: Child, why: &str) -> String {
    let ended = child.try_wait().ok().flatten();
    let _ = child.kill();
    let _ = child.wait();
    match ended {
        Some(status) => format!("the new process ended ({status}); its log says why"),
        None => format!("the new process was not ready in time: {why}"),
    }
}

/// That it is ready; it is told then what was ordered while it started.
async fn hear(ours: UnixStream, shared: &Shared) -> io::Result<Line> {
    let mut line = Line::new(OwnedFd::from(ours))?;
    let _ready: u8 = line.byte().await?;
    // A program from before there were such orders does not hear them.
    let _: io::Result<()> = line.say(&elders::message(&elders::orders(shared))).await;
    Ok(line)
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
