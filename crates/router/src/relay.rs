//! Bytes from one side to the other, both ways at once.
//!
//! ```text
//!   both directions (`pump`) ◄── held, cut, half closed: all of that is here ──► a busy session is given to the carrier, and comes back
//! ```
//!
//! One side's end is passed on as an end, and the other direction goes on.

use crate::bulk::Bulk;
use crate::carrier::{Carrier, Load, Seat};
use crate::conversation::Conversation;
use crate::cut_reason::CutReason;
use crate::events::Event;
use crate::leash::{Leash, Rein};
use crate::metrics::Gauge;
use crate::pump::{Pump, Stopped};
use crate::sessions::Session;
use crate::shared::Service;
use crate::spin::{Eager, Found, Spin, Wire};
use crate::stream::{ClientStream, ServerStream};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};
use types::NodeName;

/// How long a client may take to end after its server has: pools sometimes look at a dead connection only much later.
const SERVER_ENDED: Duration = Duration::from_secs(10);

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

/// The time within which the messages have to come that make a session busy.
const BUSY_WITHIN: Duration = Duration::from_secs(1);

/// More than this at once is no conversation, but a part of a large amount: PostgreSQL sends these by 8 KiB.
const MESSAGE: usize = 4 * 1024;

/// What a relay works with.
pub(crate) struct Means<'a> {
    /// The member, where the session is there to write.
    pub(crate) to_write: Option<&'a NodeName>,
    pub(crate) session: &'a Session,
    pub(crate) service: &'a Arc<Service>,
    /// Who takes busy sessions.
    pub(crate) carrier: Option<&'a Carrier>,
    /// Who moves large amounts.
    pub(crate) bulk: &'a Gauge,
}

/// How far a session is on its way to be busy.
#[derive(Default)]
struct Pace {
    moved: u32,
    since: Option<Instant>,
}

impl Pace {
    /// So many bytes were moved; whether that makes so many messages in a short time.
    fn step(&mut self, bytes: usize, busy: u32) -> bool {
        if bytes > MESSAGE {
            *self = Pace::default();
            return false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        self.moved += 1;
        if self.moved < busy {
            return false;
        }
        *self = Pace::default();
        since.elapsed() < BUSY_WITHIN
    }
}

/// What the polling of both directions came to.
enum Next<'a> {
    /// The session is busy, and there is a place for it.
    Busy(Seat<'a>),
    Stopped(Direction, Stopped),
}

enum Direction {
    Up,
    Down,
}

/// Where a relay stands. It outlasts the times in which somebody else carries the session.
struct Course<'a> {
    means: Means<'a>,
    talk: Option<&'a mut Conversation>,
    spin: Option<Box<Spin>>,
    pace: Pace,
    up: Pump,
    down: Pump,
    up_bulk: Bulk,
    down_bulk: Bulk,
    /// The client may still say something, and the server takes it.
    up_runs: bool,
    /// What is kept for the server begins something, and came when the session was distrusted.
    withheld: bool,
    /// The server takes no more: its last words have this long.
    until: Option<Instant>,
    logged_in: Option<Instant>,
}

/// Relays until both sides have ended, one has failed, or the session is cut. `talk` follows what both say where that
/// can be read: such a session is held at its next idle moment when its leash says so, and cut when it is there to write on a member that turns out
/// to be a standby. A busy one is carried meanwhile.
pub(crate) async fn relay(
    client: &mut ClientStream,
    server: &mut ServerStream,
    means: Means<'_>,
    talk: Option<&mut Conversation>,
    spin: Option<Box<Spin>>,
) -> End {
    let leash = &means.session.leash;
    let mut course = Course::new(means, talk, spin);
    loop {
        let fresh = course.is_fresh();
        let rein = leash.rein();
        if rein == Rein::Cut {
            return poll_fn(|cx| Poll::Ready(course.cut(cx, client))).await;
        }
        let unread = rein == Rein::Distrusted && course.talk.is_none();
        if let Some(member) = course.means.to_write.filter(|_| unread) {
            leash.cut(CutReason::Distrusted { member: member.clone() });
            continue;
        }
        let until = course.until;
        let next = tokio::select! {
            biased;
            () = leash.pulled(rein) => continue,
            () = sleep(FRESH), if fresh && rein.holds() => continue,
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return End::Over,
            next = poll_fn(|cx| course.poll(cx, client, server, (rein, fresh))) => next,
        };
        match next {
            Next::Busy(seat) => {
                // Not a part of the future of a session that is idle.
                let broken = Box::pin(course.carry(seat, client, server)).await;
                // One that is cut as well ends as a cut one.
                if broken && leash.rein() != Rein::Cut {
                    return End::Over;
                }
            }
            // The client has no more to say; the server may still have.
            Next::Stopped(Direction::Up, Stopped::Finished) => course.end_up(client, server),
            // The server takes no more; its last words may still be on the way.
            Next::Stopped(Direction::Up, Stopped::WriteFailed) => {
                course.end_up(client, server);
                course.until = Some(Instant::now() + SERVER_ENDED);
            }
            Next::Stopped(Direction::Down, Stopped::Finished) if course.up_runs => {
                course.gather_no_more(client, server);
                return Box::pin(wait_for_client(course.up, client, server, leash)).await;
            }
            Next::Stopped(..) => return End::Over,
        }
    }
}

impl<'a> Course<'a> {
    fn new(means: Means<'a>, talk: Option<&'a mut Conversation>, spin: Option<Box<Spin>>) -> Course<'a> {
        let greeted = talk.as_deref().is_some_and(Conversation::is_idle);
        Course {
            means,
            talk,
            spin,
            pace: Pace::default(),
            up: Pump::default(),
            down: Pump::default(),
            up_bulk: Bulk::default(),
            down_bulk: Bulk::default(),
            up_runs: true,
            withheld: false,
            until: None,
            logged_in: greeted.then(Instant::now),
        }
    }

    /// Before a switchover, one that has only just logged in is let have what it came for.
    fn is_fresh(&self) -> bool {
        self.talk.as_deref().is_some_and(|talk| !talk.has_asked())
            && self.logged_in.is_none_or(|at| Instant::now() < at + FRESH)
    }

    /// What was read for the client before the cut goes to it, if it takes it at once; whether it has only whole messages then.
    fn cut(&mut self, cx: &mut Context<'_>, client: &mut ClientStream) -> End {
        let rest_is_there = matches!(self.down.poll_rest(cx, client), Poll::Ready(Ok(())));
        let whole = self.talk.as_deref().is_some_and(Conversation::at_boundary);
        End::Cut { boundary: rest_is_there && whole }
    }

    /// Moves what there is to move, both ways, under a rein; `fresh` as it was when the rein was looked at.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut ClientStream,
        server: &mut ServerStream,
        (rein, fresh): (Rein, bool),
    ) -> Poll<Next<'a>> {
        let session = self.means.session;
        let mut found = Found { client: self.up_bulk.is_due(cx), server: self.down_bulk.is_due(cx) };
        loop {
            let mut moved = 0;
            let from_server = Eager { stream: &mut *server, found: found.server };
            if let Poll::Ready(stopped) = self.poll_down(cx, from_server, &mut *client, &mut moved) {
                return Poll::Ready(Next::Stopped(Direction::Down, stopped));
            }
            self.count(cx, Direction::Down, moved, (client, server));
            let standby = self.talk.as_deref().is_some_and(Conversation::is_with_standby);
            if let Some(member) = self.means.to_write.filter(|_| standby) {
                refuse_standby(session, member);
                // The leash wakes this task; what the client asks goes nowhere.
                return Poll::Pending;
            }
            if !self.up_runs || (rein.holds() && self.rests(fresh)) {
                return Poll::Pending;
            }
            if self.withheld && rein == Rein::Distrusted {
                return Poll::Pending;
            }
            self.withheld = false;
            if session.leash.rein() != rein {
                // Its time is up, and nobody has come to say so.
                session.leash.look_again();
                return Poll::Pending;
            }
            // Once there is something to forward it is not idle before the server has answered, so one look is enough.
            let from_client = Eager { stream: &mut *client, found: found.client };
            let answer = moved;
            if let Poll::Ready(stopped) = self.poll_up(cx, from_client, &mut *server, &mut moved) {
                return Poll::Ready(Next::Stopped(Direction::Up, stopped));
            }
            self.count(cx, Direction::Up, moved - answer, (client, server));
            let free = rein == Rein::Free && self.up.kept.is_empty() && self.down.kept.is_empty();
            let Some(bare) = client.bare().zip(server.bare()).filter(|_| free) else { return Poll::Pending };
            if let Some(seat) = self.seat(moved) {
                return Poll::Ready(Next::Busy(seat));
            }
            let over = || session.leash.rein() != rein;
            let now = self.spin.as_deref_mut().and_then(|spin| spin.wait(cx, moved > 0, bare, over));
            let Some(now) = now else { return Poll::Pending };
            found = now;
        }
    }

    /// So many bytes were moved in one direction. Large amounts are gathered; the other side's are over when this one has something to say.
    fn count(
        &mut self,
        cx: &mut Context<'_>,
        direction: Direction,
        bytes: usize,
        (client, server): (&ClientStream, &ServerStream),
    ) {
        let (up, down) = ((&mut self.up_bulk, client.bare()), (&mut self.down_bulk, server.bare()));
        let (this, other) = match direction {
            Direction::Up => (up, down),
            Direction::Down => (down, up),
        };
        if let (bulk, Some(from)) = this {
            bulk.moved(bytes, from, cx, self.means.bulk);
        }
        if let (bulk, Some(from)) = other
            && bytes > 0
        {
            bulk.end(from);
        }
    }

    fn end_up(&mut self, client: &ClientStream, server: &ServerStream) {
        self.up_runs = false;
        self.gather_no_more(client, server);
    }

    /// Both sides are read as something comes, whoever reads them from now on.
    fn gather_no_more(&mut self, client: &ClientStream, server: &ServerStream) {
        for (bulk, from) in [(&mut self.up_bulk, client.bare()), (&mut self.down_bulk, server.bare())] {
            if let Some(from) = from {
                bulk.end(from);
            }
        }
    }

    fn poll_down(
        &mut self,
        cx: &mut Context<'_>,
        from: impl AsyncRead + Unpin,
        to: &mut ClientStream,
        moved: &mut usize,
    ) -> Poll<Stopped> {
        let Course { means, talk, down, logged_in, .. } = self;
        down.poll(cx, from, to, |bytes| {
            *moved += bytes.len();
            means.service.counts.traffic.to_client(bytes.len());
            let Some(talk) = talk.as_deref_mut() else { return };
            talk.server_says(bytes);
            if let Some(key) = talk.take_key() {
                means.session.has_key(key);
            }
            if logged_in.is_none() && talk.is_idle() {
                *logged_in = Some(Instant::now());
            }
        })
    }

    fn poll_up(
        &mut self,
        cx: &mut Context<'_>,
        from: impl AsyncRead + Unpin,
        to: &mut ServerStream,
        moved: &mut usize,
    ) -> Poll<Stopped> {
        let Course { means, talk, up, .. } = self;
        up.poll(cx, from, to, |bytes| {
            *moved += bytes.len();
            means.service.counts.traffic.to_server(bytes.len());
            if let Some(talk) = talk.as_deref_mut() {
                talk.client_says(bytes);
            }
        })
    }

    /// A held session is at rest once it is idle; whether nothing more may be read from its client.
    fn rests(&self, fresh: bool) -> bool {
        let talk = self.talk.as_deref();
        // What cannot be read has no moment to wait for.
        let idle = talk.is_none_or(|talk| talk.is_idle() && (talk.has_asked() || !fresh));
        if !idle || !self.up.kept.is_empty() {
            return false;
        }
        self.means.session.leash.rest();
        talk.is_some()
    }

    /// A place with the carrier, once the session is busy. One that is waited for on the processor stays.
    fn seat(&mut self, moved: usize) -> Option<Seat<'a>> {
        let carrier = self.means.carrier.filter(|_| moved > 0 && self.spin.is_none())?;
        self.pace.step(moved, carrier.busy()).then(|| carrier.seat())?
    }

    /// Gives the session away until it comes back; whether it has come to its end there.
    async fn carry(&mut self, seat: Seat<'_>, client: &mut ClientStream, server: &mut ServerStream) -> bool {
        let ended = self.try_to_carry(seat, client, server).await;
        ended.unwrap_or_else(|why| {
            Event::LostByCarrier { why: why.to_string() }.log();
            true
        })
    }

    async fn try_to_carry(
        &mut self,
        seat: Seat<'_>,
        client: &mut ClientStream,
        server: &mut ServerStream,
    ) -> io::Result<bool> {
        self.gather_no_more(client, server);
        let (Some(of_client), Some(of_server)) = (client.take_plain(), server.take()) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let load = Load {
            client: of_client.into_std()?,
            server: of_server.into_std()?,
            talk: self.talk.as_deref_mut().map(|talk| std::mem::replace(talk, Conversation::new())),
            to_write: self.means.to_write.is_some(),
            leash: self.means.session.leash.clone(),
            service: self.means.service.clone(),
        };
        let back =
            seat.carry(load).await.ok_or_else(|| io::Error::other("the thread that carried it has ended"))?;
        *client = ClientStream::Plain(TcpStream::from_std(back.client)?);
        *server = ServerStream::new(TcpStream::from_std(back.server)?);
        if let Some((talk, carried)) = self.talk.as_deref_mut().zip(back.talk) {
            *talk = carried;
            if let Some(key) = talk.take_key() {
                self.means.session.has_key(key);
            }
        }
        (self.up.kept, self.down.kept) = (back.up, back.down);
        self.withheld = back.withheld;
        Ok(back.broken)
    }
}

/// A session that is to write has come to a standby: its member stopped to lead, and the router could not know it yet.
pub(crate) fn refuse_standby(session: &Session, member: &NodeName) {
    session.leash.cut(CutReason::Standby { member: member.clone() });
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
pub(crate) fn discard_on_close(stream: &ServerStream) -> io::Result<()> {
    let now = |tcp| socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    stream.tcp().map_or(Ok(()), now)
}
