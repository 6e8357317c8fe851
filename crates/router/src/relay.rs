//! Bytes from one side to the other, both ways at once.
//!
//! An idle session owns no buffer: bytes are read into a buffer of the thread and written on at once. Only what the
//! other side does not take is kept (at most one buffer for each direction), and nothing more is read until it is gone:
//! that is the back-pressure. One side's end is passed on as an end, and the other direction goes on.

use crate::conversation::Conversation;
use crate::cut_reason::CutReason;
use crate::leash::{Leash, Rein};
use crate::metrics::Traffic;
use crate::sessions::Session;
use crate::spin::{Eager, Found, Spin, Wire};
use crate::stream::ClientStream;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};
use types::NodeName;

/// One buffer: PostgreSQL sends in pieces of 8 KiB, large results in several.
const BUFFER: usize = 32 * 1024;

/// How long a client may take to end after its server has: pools sometimes look at a dead connection only much later.
const SERVER_ENDED: Duration = Duration::from_secs(10);

thread_local! {
    static BUFFERS: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// How long a session that has logged in and asked for nothing yet counts as one that is about to.
const FRESH: Duration = Duration::from_millis(500);

/// How a relay ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Both sides have ended, or one has broken off.
    Over,
    /// The router ends it; `boundary` when the client has only whole messages and could be told why.
    Cut { boundary: bool },
}

/// One direction.
#[derive(Default)]
struct Pump {
    /// Read and not yet written, from `written` on.
    kept: Vec<u8>,
    written: usize,
    /// Written, and perhaps still in a buffer of TLS.
    unflushed: bool,
    ended: bool,
}

/// What a direction came to.
enum Stopped {
    /// The reader had no more, and the writer was told so.
    Finished,
    ReadFailed,
    WriteFailed,
}

impl Pump {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        mut see: impl FnMut(&[u8]),
    ) -> Poll<Stopped> {
        loop {
            while let Some(rest) = self.kept.get(self.written..).filter(|rest| !rest.is_empty()) {
                match ready!(Pin::new(&mut to).poll_write(cx, rest)) {
                    Ok(0) | Err(_) => return Poll::Ready(Stopped::WriteFailed),
                    Ok(count) => self.written += count,
                }
            }
            if self.written > 0 {
                self.kept = Vec::new();
                self.written = 0;
            }
            // TLS keeps what the socket did not take: a full one holds up the reading.
            if self.unflushed {
                if ready!(Pin::new(&mut to).poll_flush(cx)).is_err() {
                    return Poll::Ready(Stopped::WriteFailed);
                }
                self.unflushed = false;
            }
            if self.ended {
                return match ready!(Pin::new(&mut to).poll_shutdown(cx)) {
                    Ok(()) => Poll::Ready(Stopped::Finished),
                    Err(_) => Poll::Ready(Stopped::WriteFailed),
                };
            }
            let step = BUFFERS.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer);
                if let Err(error) = ready!(Pin::new(&mut from).poll_read(cx, &mut read)) {
                    return Poll::Ready(Err(error));
                }
                let bytes = read.filled();
                see(bytes);
                let count = match Pin::new(&mut to).poll_write(cx, bytes) {
                    _ if bytes.is_empty() => 0,
                    Poll::Ready(Ok(count)) => count,
                    Poll::Ready(Err(_)) => return Poll::Ready(Ok(Step::WriteFailed)),
                    Poll::Pending => 0,
                };
                self.unflushed = true;
                self.kept.extend_from_slice(bytes.get(count..).unwrap_or_default());
                Poll::Ready(Ok(if bytes.is_empty() { Step::Ended } else { Step::Moved }))
            });
            match ready!(step) {
                Ok(Step::Moved) => {}
                Ok(Step::Ended) => self.ended = true,
                Ok(Step::WriteFailed) => return Poll::Ready(Stopped::WriteFailed),
                Err(_) => return Poll::Ready(Stopped::ReadFailed),
            }
        }
    }
}

enum Step {
    Moved,
    Ended,
    WriteFailed,
}

/// Relays until both sides have ended, one has failed, or the session is cut. `talk` follows what both say where that
/// can be read: such a session is held at its next idle moment when its leash says so, and cut when it is `to_write` on a member that turns out
/// to be a standby.
pub(crate) async fn relay(
    client: &mut ClientStream,
    server: &mut TcpStream,
    to_write: Option<&NodeName>,
    session: &Session,
    mut talk: Option<&mut Conversation>,
    traffic: &Traffic,
    mut spin: Option<Box<Spin>>,
) -> End {
    let leash = &session.leash;
    let (mut up, mut down) = (Pump::default(), Pump::default());
    let (mut up_runs, mut until) = (true, None::<Instant>);
    let greeted = talk.as_deref().is_some_and(Conversation::is_idle);
    let mut logged_in = greeted.then(Instant::now);
    loop {
        // Before a switchover, one that has only just logged in is let have what it came for.
        let fresh = talk.as_deref().is_some_and(|talk| !talk.has_asked())
            && logged_in.is_none_or(|at| Instant::now() < at + FRESH);
        let rein = leash.rein();
        if rein == Rein::Cut {
            let whole = down.kept.is_empty() && talk.is_some_and(|talk| talk.at_boundary());
            return End::Cut { boundary: whole };
        }
        let both = poll_fn(|cx| {
            let mut found = Found::default();
            loop {
                let moved = Cell::new(false);
                let from_server = Eager { stream: &mut *server, found: found.server };
                if let Poll::Ready(stopped) = down.poll(cx, from_server, &mut *client, |bytes| {
                    moved.set(true);
                    traffic.to_client(bytes.len());
                    if let Some(talk) = talk.as_deref_mut() {
                        talk.server_says(bytes);
                        if let Some(key) = talk.take_key() {
                            session.has_key(key);
                        }
                        if logged_in.is_none() && talk.is_idle() {
                            logged_in = Some(Instant::now());
                        }
                    }
                }) {
                    return Poll::Ready((Direction::Down, stopped));
                }
                if let Some(member) =
                    to_write.filter(|_| talk.as_deref().is_some_and(Conversation::is_with_standby))
                {
                    refuse_standby(session, member);
                    // The leash wakes this task; what the client asks goes nowhere.
                    return Poll::Pending;
                }
                if !up_runs {
                    return Poll::Pending;
                }
                if rein == Rein::Held {
                    // What cannot be read has no moment to wait for.
                    let rests = |talk: &Conversation| talk.is_idle() && (talk.has_asked() || !fresh);
                    let idle = talk.as_deref().is_none_or(rests) && up.kept.is_empty();
                    if idle {
                        leash.rest();
                        if talk.is_some() {
                            return Poll::Pending;
                        }
                    }
                }
                let see = |bytes: &[u8]| {
                    moved.set(true);
                    traffic.to_server(bytes.len());
                    if let Some(talk) = talk.as_deref_mut() {
                        talk.client_says(bytes);
                    }
                };
                // Once there is something to forward it is not idle before the server has answered, so one look is enough.
                let from_client = Eager { stream: &mut *client, found: found.client };
                if let Poll::Ready(stopped) = up.poll(cx, from_client, &mut *server, see) {
                    return Poll::Ready((Direction::Up, stopped));
                }
                let free = rein == Rein::Free && up.kept.is_empty() && down.kept.is_empty();
                let bare = client.bare().filter(|_| free);
                let now = bare.zip(spin.as_deref_mut()).and_then(|(client, spin)| {
                    spin.wait(cx, moved.get(), (client, &*server), || leash.rein() != rein)
                });
                let Some(now) = now else { return Poll::Pending };
                found = now;
            }
        });
        let (direction, stopped) = tokio::select! {
            biased;
            () = leash.pulled(rein) => continue,
            () = sleep(FRESH), if fresh && rein == Rein::Held => continue,
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return End::Over,
            stopped = both => stopped,
        };
        match (direction, stopped) {
            // The client has no more to say; the server may still have.
            (Direction::Up, Stopped::Finished) => up_runs = false,
            // The server takes no more; its last words may still be on the way.
            (Direction::Up, Stopped::WriteFailed) => {
                up_runs = false;
                until = Some(Instant::now() + SERVER_ENDED);
            }
            (Direction::Down, Stopped::Finished) if up_runs => {
                return Box::pin(wait_for_client(up, client, server, leash)).await;
            }
            _ => return End::Over,
        }
    }
}

/// A session that is to write has come to a standby: its member stopped to lead, and the router could not know it yet.
pub(crate) fn refuse_standby(session: &Session, member: &NodeName) {
    session.leash.cut(CutReason::Standby { member: member.clone() });
}

enum Direction {
    Up,
    Down,
}

/// The server has ended: the client's last bytes still go to it, for a while.
async fn wait_for_client(
    mut up: Pump,
    mut client: impl AsyncRead + Unpin,
    mut server: impl AsyncWrite + Unpin,
    leash: &Leash,
) -> End {
    let rest = poll_fn(|cx| up.poll(cx, &mut client, &mut server, |_| {}));
    tokio::select! {
        biased;
        () = leash.cut_ordered() => {}
        _ = tokio::time::timeout(SERVER_ENDED, rest) => {}
    }
    End::Over
}

/// Makes the coming close of a connection a break: the other side learns it at once, and nothing that is still queued
/// is delivered.
pub(crate) fn discard_on_close(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}
