//! A short wait on the processor, before a session waits in the kernel: where a single client asks one question after the other, most of
//! the time of an answer is two processors that fall asleep and are woken again.
//!
//! ```text
//!   something was moved, and this session alone has kept its thread busy for a while
//!     └─► look at both sockets until one has something, the time is up, or the leash is pulled
//!           ├─ found: moved at once; after a few such rounds the thread looks at its other sessions
//!           └─ in vain, three times in a row: not tried again for some messages
//! ```
//!
//! It is off unless it is set: the processor that waits so is taken from whoever else wants it.

use crate::stream::{ClientStream, ServerStream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::Instant;

/// A session that was served so often in a row has its thread for itself.
const ALONE: u32 = 16;

/// Rounds without a look at the other sessions of the thread.
const ROUNDS: u32 = 4;

/// Waits in vain in a row, after which a session is not waited for.
const MISSES: u32 = 3;

/// Messages until it is tried again.
const REST: u32 = 64;

thread_local! {
    /// The session that was served last on this thread, and how often in a row.
    static LAST: Cell<(u64, u32)> = const { Cell::new((u64::MAX, 0)) };
}

/// Which side has something to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Found {
    pub(crate) client: bool,
    pub(crate) server: bool,
}

/// Whether and how long one session is waited for.
pub(crate) struct Spin {
    limit: Duration,
    session: u64,
    misses: u32,
    rest: u32,
    rounds: u32,
    /// The thread has been given to the other sessions.
    yielded: bool,
}

impl Spin {
    /// Nothing that an idle session would keep, where the limit is zero.
    pub(crate) fn new(limit: Duration, session: u64) -> Option<Box<Spin>> {
        (!limit.is_zero()).then(|| Box::new(Spin::within(limit, session)))
    }

    fn within(limit: Duration, session: u64) -> Spin {
        Spin { limit, session, misses: 0, rest: 0, rounds: 0, yielded: false }
    }

    /// Both sides have been looked at, and something was `moved` or not. What there is to move now, if that came in time.
    pub(crate) fn wait(
        &mut self,
        cx: &mut Context<'_>,
        moved: bool,
        sides: (&TcpStream, &TcpStream),
        over: impl Fn() -> bool,
    ) -> Option<Found> {
        // After a look at the others it goes on as if something had just been moved.
        let goes_on = std::mem::take(&mut self.yielded) || moved;
        if !goes_on || !self.may() {
            self.rounds = 0;
            return None;
        }
        if self.rounds == ROUNDS {
            (self.rounds, self.yielded) = (0, true);
            // Woken again after the event loop has looked at everybody else.
            let _ = pin!(yield_now()).poll(cx);
            return None;
        }
        let found = look_until(Instant::now() + self.limit, sides, over);
        self.learn(found.is_some());
        found
    }

    /// Whether the session is alone on its thread, and was not waited for in vain just now.
    fn may(&mut self) -> bool {
        let (last, times) = LAST.get();
        let times = if last == self.session { times.saturating_add(1) } else { 0 };
        LAST.set((self.session, times));
        self.rest = self.rest.saturating_sub(1);
        times >= ALONE && self.rest == 0
    }

    fn learn(&mut self, found: bool) {
        if found {
            (self.misses, self.rounds) = (0, self.rounds + 1);
            return;
        }
        (self.misses, self.rounds) = (self.misses + 1, 0);
        if self.misses == MISSES {
            (self.misses, self.rest) = (0, REST);
        }
    }
}

fn look_until(end: Instant, sides: (&TcpStream, &TcpStream), over: impl Fn() -> bool) -> Option<Found> {
    let mut both = [PollFd::new(sides.0, PollFlags::IN), PollFd::new(sides.1, PollFlags::IN)];
    loop {
        let count = poll(&mut both, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap_or(0);
        if count > 0 {
            let has = |at: usize| both.get(at).is_some_and(|side| !side.revents().is_empty());
            return Some(Found { client: has(0), server: has(1) });
        }
        if over() || Instant::now() >= end {
            return None;
        }
        std::hint::spin_loop();
    }
}

/// A connection that may be read without the event loop having told of it.
pub(crate) trait Wire: AsyncRead + Unpin {
    /// The connection itself, where nothing lies between it and the bytes.
    fn bare(&self) -> Option<&TcpStream>;
}

impl Wire for ServerStream {
    fn bare(&self) -> Option<&TcpStream> {
        self.tcp()
    }
}

impl Wire for ClientStream {
    fn bare(&self) -> Option<&TcpStream> {
        match self {
            ClientStream::Plain(stream) => Some(stream),
            ClientStream::Tls(_) | ClientStream::Taken => None,
        }
    }
}

/// A side of a session; `found` until it is known to have nothing more.
pub(crate) struct Eager<'a, S> {
    pub(crate) stream: &'a mut S,
    pub(crate) found: bool,
}

impl<S: Wire> AsyncRead for Eager<'_, S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.found)
            && let Some(bare) = this.stream.bare()
        {
            match recv(bare, buffer.initialize_unfilled(), RecvFlags::DONTWAIT) {
                Ok((count, _)) => {
                    buffer.advance(count);
                    this.found = count > 0 && buffer.remaining() == 0;
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Pin::new(&mut *this.stream).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::{ALONE, MISSES, REST, Spin};
    use std::time::Duration;

    #[test]
    fn only_who_is_alone_is_waited_for_and_not_in_vain() {
        let mut one = Spin::within(Duration::from_micros(50), 1);
        let mut other = Spin::within(Duration::from_micros(50), 2);
        let alone = |spin: &mut Spin| (0..=ALONE).map(|_| spin.may()).last().unwrap();
        assert!(alone(&mut one) && one.may());
        assert!(!other.may() && !one.may(), "they take turns");
        assert!(alone(&mut one));
        for _ in 0..MISSES {
            assert!(one.may());
            one.learn(false);
        }
        assert!((1..REST).all(|_| !one.may()) && one.may(), "after a rest");
        one.learn(false);
        one.learn(true);
        one.learn(false);
        assert!(one.may(), "one that came in time makes good");
    }
}
