//! UDP: as many questions as wait are taken with one call, and their answers are sent with another one.
//!
//! ```text
//!   socket ── up to BATCH questions ──► prepared ──► answers ── in one call ──► socket
//! ```

use crate::prepared::Prepared;
use crate::server::{Counts, Current, PAUSE};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A longer question is not read.
const QUESTION: usize = 4096;
/// So many questions at a time.
const BATCH: usize = 32;

/// Answers. Before etcd was read there is no answer: whoever asks goes to another server.
pub(crate) async fn serve(socket: UdpSocket, zone: Current, counts: Arc<Counts>) {
    let (mut inbox, mut outbox, mut prepared) = (Inbox::new(), Outbox::new(), Prepared::default());
    loop {
        if let Err(error) = inbox.receive(&socket).await {
            // Such as "nobody listens" about an earlier answer.
            tracing::debug!(%error, "failed to receive a question");
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let Some(now) = zone.borrow().clone() else { continue };
        prepared.of(&now);
        outbox.to.clear();
        for (buffer, (length, from)) in inbox.buffers.iter_mut().zip(&inbox.came) {
            let Some(question) = buffer.get_mut(..*length) else { continue };
            let Some(reply) = outbox.replies.get_mut(outbox.to.len()) else { break };
            if prepared.answer(question, reply) {
                outbox.to.push(Some(*from));
            }
        }
        counts.udp.fetch_add(outbox.to.len() as u64, Ordering::Relaxed);
        outbox.send(&socket).await;
    }
}

/// Questions that came together.
struct Inbox {
    buffers: Vec<Vec<u8>>,
    /// How long each is, and whose.
    came: Vec<(usize, SockaddrStorage)>,
}

impl Inbox {
    fn new() -> Inbox {
        Inbox { buffers: vec![vec![0; QUESTION]; BATCH], came: Vec::with_capacity(BATCH) }
    }

    /// Waits for at least one.
    async fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        loop {
            socket.readable().await?;
            self.came.clear();
            let taken = socket.try_io(Interest::READABLE, || {
                self.take(socket)?;
                // With fewer than there is room for nothing more waits: that is learned without another call.
                if self.came.len() < BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match taken {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Ok(()) | Err(_) if !self.came.is_empty() => return Ok(()),
                Ok(()) | Err(_) => {}
            }
        }
    }

    fn take(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let mut room: Vec<[IoSliceMut<'_>; 1]> =
            self.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        // It holds pointers, so it cannot wait with us for the next question on whichever thread.
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        let all = recvmmsg(socket.as_raw_fd(), &mut headers, room.iter_mut(), flags, None)?;
        self.came.extend(
            all.map(|one| (one.bytes, one.address)).filter_map(|(length, from)| Some((length, from?))),
        );
        Ok(())
    }
}

/// Answers that go together.
struct Outbox {
    replies: Vec<Vec<u8>>,
    /// Whose each is; as many as there are.
    to: Vec<Option<SockaddrStorage>>,
}

impl Outbox {
    fn new() -> Outbox {
        Outbox { replies: vec![Vec::new(); BATCH], to: Vec::with_capacity(BATCH) }
    }

    async fn send(&mut self, socket: &UdpSocket) {
        let mut sent = 0;
        while sent < self.to.len() {
            match socket.try_io(Interest::WRITABLE, || self.put(socket, sent)) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if socket.writable().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    // It concerns the first of the rest.
                    tracing::debug!(%error, "failed to answer");
                    sent += 1;
                }
            }
        }
    }

    fn put(&mut self, socket: &UdpSocket, sent: usize) -> io::Result<usize> {
        let rest: Vec<[IoSlice<'_>; 1]> =
            self.replies.iter().skip(sent).map(|reply| [IoSlice::new(reply)]).collect();
        let to = self.to.get(sent..).unwrap_or_default();
        let flags = MsgFlags::MSG_DONTWAIT;
        let mut headers = MultiHeaders::preallocate(to.len(), None);
        let done = sendmmsg(socket.as_raw_fd(), &mut headers, &rest, to, [], flags)?;
        Ok(done.count())
    }
}
