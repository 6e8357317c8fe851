//! Bytes from one side to the other, both ways at once.
//!
//! An idle session owns no buffer: bytes are read into a buffer of the thread and written on at once. Only what the
//! other side does not take is kept (at most one buffer for each direction), and nothing more is read until it is gone:
//! that is the back-pressure. One side's end is passed on as an end, and the other direction goes on.

use crate::carrier::{Back, Carrier, Load};
use crate::conversation::Conversation;
use crate::cut_reason::CutReason;
use crate::leash::{Leash, Rein};
use crate::sessions::Session;
use crate::shared::Service;
use crate::spin::{Eager, Found, Spin, Wire};
use crate::stream::ClientStream;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
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

/// Messages in a row, none far from the next, that make a session busy.
const BUSY: u32 = 64;

/// The time within which they have to come.
const BUSY_WITHIN: Duration = Duration::from_secs(1);

/// More than this at once is no conversation, but a large amount.
const MESSAGE: usize = 8 * 1024;

/// What a relay works with.
pub(crate) struct Means<'a> {
    /// The member, where the session is there to write.
    pub(crate) to_write: Option<&'a NodeName>,
    pub(crate) session: &'a Session,
    pub(crate) service: &'a Arc<Service>,
    /// Who takes busy sessions.
    pub(crate) carrier: Option<&'a Carrier>,
}

/// Whether a session is worth carrying.
#[derive(Default)]
struct Pace {
    moved: u32,
    since: Option<Instant>,
}

impl Pace {
    /// So many bytes were moved; whether the session is busy.
    fn step(&mut self, bytes: usize) -> bool {
        if bytes > MESSAGE {
            *self = Pace::default();
            return false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        self.moved += 1;
        if self.moved < BUSY {
            return false;
        }
        *self = Pace::default();
        since.elapsed() < BUSY_WITHIN
    }
}

/// Relays until both sides have ended, one has failed, or the session is cut. `talk` follows what both say where that
/// can be read: such a session is held at its next idle moment when its leash says so, and cut when it is there to write on a member that turns out
/// to be a standby. A busy one is carried meanwhile.
pub(crate) async fn relay(
    client: &mut ClientStream,
    mut server: TcpStream,
    means: &Means<'_>,
    mut talk: Option<Conversation>,
    mut spin: Option<Box<Spin>>,
) -> (End, Option<TcpStream>) {
    let (mut up, mut down) = (Pump::default(), Pump::default());
    loop {
        match stretch(client, &mut server, means, talk.as_mut(), (&mut up, &mut down), &mut spin).await {
            Stretch::Over(end) => return (end, Some(server)),
            Stretch::Busy(carrier) => {
                // Not a part of the future of a session that is idle.
                let carried = Box::pin(carry(carrier, client, server, means, talk.take())).await;
                let Some(back) = carried else { return (End::Over, None) };
                (server, talk) = (back.server, back.talk);
                (up.kept, down.kept) = (back.up, back.down);
                if let Some(key) = talk.as_mut().and_then(Conversation::take_key) {
                    means.session.has_key(key);
                }
                if back.broken {
                    return (End::Over, Some(server));
                }
            }
        }
    }
}

/// What a carrier gave back, with the event loop told of it again.
struct Returned {
    server: TcpStream,
    talk: Option<Conversation>,
    up: Vec<u8>,
    down: Vec<u8>,
    broken: bool,
}

async fn carry(
    carrier: &Carrier,
    client: &mut ClientStream,
    server: TcpStream,
    means: &Means<'_>,
    talk: Option<Conversation>,
) -> Option<Returned> {
    let plain = client.take_plain()?;
    let load = Load {
        client: plain.into_std().ok()?,
        server: server.into_std().ok()?,
        talk,
        to_write: means.to_write.is_some(),
        leash: means.session.leash.clone(),
        service: means.service.clone(),
    };
    let Back { client: plain, server, talk, up, down, broken } = carrier.carry(load).await?;
    *client = ClientStream::Plain(TcpStream::from_std(plain).ok()?);
    Some(Returned { server: TcpStream::from_std(server).ok()?, talk, up, down, broken })
}

/// How a part of a relay ended.
enum Stretch<'a> {
    Over(End),
    /// It is busy: this one may carry it.
    Busy(&'a Carrier),
}

/// Relays here, until the end or until it is worth carrying.
async fn stretch<'a>(
    client: &mut ClientStream,
    server: &mut TcpStream,
    means: &Means<'a>,
    mut talk: Option<&mut Conversation>,
    (up, down): (&mut Pump, &mut Pump),
    spin: &mut Option<Box<Spin>>,
) -> Stretch<'a> {
    let &Means { to_write, session, service, carrier } = means;
    let traffic = &service.counts.traffic;
    let carrier = carrier.filter(|carrier| client.bare().is_some() && carrier.is_open());
    let mut pace = Pace::default();
    let leash = &session.leash;
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
            return Stretch::Over(End::Cut { boundary: whole });
        }
        let both = poll_fn(|cx| {
            let mut found = Found::default();
            loop {
                let moved = Cell::new(0);
                let from_server = Eager { stream: &mut *server, found: found.server };
                if let Poll::Ready(stopped) = down.poll(cx, from_server, &mut *client, |bytes| {
                    moved.set(moved.get() + bytes.len());
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
                    return Poll::Ready(Next::Stopped(Direction::Down, stopped));
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
                    moved.set(moved.get() + bytes.len());
                    traffic.to_server(bytes.len());
                    if let Some(talk) = talk.as_deref_mut() {
                        talk.client_says(bytes);
                    }
                };
                // Once there is something to forward it is not idle before the server has answered, so one look is enough.
                let from_client = Eager { stream: &mut *client, found: found.client };
                if let Poll::Ready(stopped) = up.poll(cx, from_client, &mut *server, see) {
                    return Poll::Ready(Next::Stopped(Direction::Up, stopped));
                }
                let free = rein == Rein::Free && up.kept.is_empty() && down.kept.is_empty();
                if let Some(carrier) = carrier
                    && free
                    && moved.get() > 0
                    && pace.step(moved.get())
                {
                    return Poll::Ready(Next::Busy(carrier));
                }
                let bare = client.bare().filter(|_| free);
                let now = bare.zip(spin.as_deref_mut()).and_then(|(client, spin)| {
                    spin.wait(cx, moved.get() > 0, (client, &*server), || leash.rein() != rein)
                });
                let Some(now) = now else { return Poll::Pending };
                found = now;
            }
        });
        let next = tokio::select! {
            biased;
            () = leash.pulled(rein) => continue,
            () = sleep(FRESH), if fresh && rein == Rein::Held => continue,
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return Stretch::Over(End::Over),
            next = both => next,
        };
        let (direction, stopped) = match next {
            Next::Busy(carrier) => return Stretch::Busy(carrier),
            Next::Stopped(direction, stopped) => (direction, stopped),
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
                return Stretch::Over(
                    Box::pin(wait_for_client(std::mem::take(up), client, server, leash)).await,
                );
            }
            _ => return Stretch::Over(End::Over),
        }
    }
}

/// A session that is to write has come to a standby: its member stopped to lead, and the router could not know it yet.
pub(crate) fn refuse_standby(session: &Session, member: &NodeName) {
    session.leash.cut(CutReason::Standby { member: member.clone() });
}

/// What the polling of both directions came to.
enum Next<'a> {
    Busy(&'a Carrier),
    Stopped(Direction, Stopped),
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
