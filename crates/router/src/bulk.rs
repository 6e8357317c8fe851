//! Large amounts, gathered: PostgreSQL sends 8 KiB at a time, and to be woken for each of them, to move it and to sleep again costs more than
//! the moving.
//!
//! ```text
//!   read as it comes ── 1 MiB, and not a word from the other side ──► gathered: read when 128 KiB are there, or after 200 µs
//!          ▲                                                               │
//!          └── 200 µs have brought less than 8 KiB, or the other side says something, or the session goes elsewhere
//! ```
//!
//! What is gathered waits in the kernel's buffer of the socket, and no byte of it longer than that. The kernel wakes nobody for less than it is told
//! to (`SO_RCVLOWAT`), so this is only set while the timer runs: it is what reads the rest.

use crate::metrics::{Gauge, Held};
use crate::tcp::wake_at;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

/// So much in one go, and it is worth it: what is over sooner should not be kept waiting at its end.
const ENOUGH: usize = 1024 * 1024;

/// Less than this in the time of one wait is no large amount any more.
const LEAST: usize = 8 * 1024;

/// Who gathers is woken when so much is there.
const GATHERED: i32 = 128 * 1024;

/// Or when so much time has passed. The runtime's own timers count whole milliseconds.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000 };

/// Directions that gather at once: each has a descriptor for its timer.
pub(crate) const LIMIT: usize = 64;

/// What the amounts of one direction come to. An idle session has nothing of it.
#[derive(Default)]
pub(crate) struct Bulk(Option<Box<Run>>);

/// A run of bytes one way.
#[derive(Default)]
struct Run {
    /// Since it began, or since the timer was set.
    moved: usize,
    gathering: Option<Gathering>,
}

struct Gathering {
    timer: AsyncFd<OwnedFd>,
    /// The time is up, and what is there has not been read since.
    due: bool,
    _held: Held,
}

impl Bulk {
    /// Whether what is there is to be read now, though the kernel has not told of it.
    pub(crate) fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        let gathering = self.0.as_deref_mut().and_then(|run| run.gathering.as_mut());
        gathering.is_some_and(|gathering| gathering.look(cx))
    }

    /// So many bytes were read from `from`, until there were none.
    pub(crate) fn moved(&mut self, bytes: usize, from: &TcpStream, cx: &mut Context<'_>, all: &Gauge) {
        if self.0.is_none() && bytes < LEAST {
            return;
        }
        let run = self.0.get_or_insert_default();
        run.moved = run.moved.saturating_add(bytes);
        match &mut run.gathering {
            Some(gathering) if gathering.due => {
                if run.moved < LEAST || gathering.set().is_err() {
                    return self.end(from);
                }
                run.moved = 0;
            }
            None if run.moved >= ENOUGH && bytes >= LEAST => {
                run.moved = 0;
                // Without a descriptor or a place for one it is read as it comes.
                run.gathering = Gathering::begin(from, cx, all).ok().flatten();
            }
            Some(_) | None => {}
        }
    }

    /// From now on it is read as it comes. What is there already wakes the session at once.
    pub(crate) fn end(&mut self, from: &TcpStream) {
        if self.0.take().is_some_and(|run| run.gathering.is_some()) {
            // Only a socket that is closed refuses it.
            let _ = wake_at(from, 1);
        }
    }
}

impl Gathering {
    /// `None` when there are enough that gather.
    fn begin(from: &TcpStream, cx: &mut Context<'_>, all: &Gauge) -> io::Result<Option<Gathering>> {
        let Some(held) = all.take(LIMIT) else { return Ok(None) };
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = watch(timerfd_create(TimerfdClockId::Monotonic, flags)?)?;
        let mut gathering = Gathering { timer, due: false, _held: held };
        gathering.set()?;
        gathering.look(cx);
        wake_at(from, GATHERED)?;
        Ok(Some(gathering))
    }

    fn set(&mut self) -> io::Result<()> {
        self.due = false;
        let once = Itimerspec { it_interval: Timespec::default(), it_value: WAIT };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Whether the time is up; if not, the task is woken then.
    fn look(&mut self, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(ready) = self.timer.poll_read_ready(cx) {
            self.due = true;
            match ready {
                Ok(mut ready) => ready.clear_ready(),
                // The runtime ends.
                Err(_) => break,
            }
        }
        self.due
    }
}

#[expect(deprecated, reason = "its successor is unsafe for types that are not an OwnedFd; ours is one")]
fn watch(timer: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(timer, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use super::{Bulk, ENOUGH, GATHERED, LEAST, LIMIT};
    use crate::metrics::Gauge;
    use std::future::poll_fn;
    use std::io;
    use std::task::Poll;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    async fn moved(bulk: &mut Bulk, bytes: usize, from: &TcpStream, all: &Gauge) {
        poll_fn(|cx| {
            bulk.moved(bytes, from, cx, all);
            Poll::Ready(())
        })
        .await;
    }

    async fn due(bulk: &mut Bulk) {
        poll_fn(|cx| if bulk.is_due(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    fn unread(near: &TcpStream) -> io::ErrorKind {
        near.try_read(&mut [0; 1]).unwrap_err().kind()
    }

    #[tokio::test]
    async fn a_rest_wakes_nobody_and_is_read_when_the_time_is_up() {
        let (near, mut far) = connection().await;
        let (mut bulk, all) = (Bulk::default(), Gauge::default());
        moved(&mut bulk, ENOUGH - LEAST, &near, &all).await;
        assert_eq!(all.get(), 0);
        moved(&mut bulk, LEAST, &near, &all).await;
        assert_eq!(all.get(), 1);

        far.write_all(&[1; LEAST]).await.unwrap();
        due(&mut bulk).await;
        assert_eq!(unread(&near), io::ErrorKind::WouldBlock, "nobody was woken for it");
        due(&mut bulk).await; // until it is read
        moved(&mut bulk, LEAST, &near, &all).await;
        assert_eq!(all.get(), 1, "it goes on");
        due(&mut bulk).await;
        moved(&mut bulk, LEAST - 1, &near, &all).await;
        assert_eq!(all.get(), 0, "so little is no large amount");
        near.readable().await.unwrap();
        assert_eq!(near.try_read(&mut [0; LEAST + 1]).unwrap(), LEAST);
    }

    #[tokio::test]
    async fn enough_wakes_at_once_and_so_does_the_end_of_it() {
        let (near, mut far) = connection().await;
        let (mut bulk, all) = (Bulk::default(), Gauge::default());
        moved(&mut bulk, ENOUGH, &near, &all).await;
        let much = vec![2; GATHERED as usize];
        let ((), ready) = tokio::join!(async { far.write_all(&much).await.unwrap() }, near.readable());
        ready.unwrap();
        let mut read = 0;
        while read < much.len() {
            near.readable().await.unwrap();
            read += near.try_read(&mut vec![0; much.len()]).unwrap_or_default();
            bulk.end(&near);
        }
        moved(&mut bulk, ENOUGH, &near, &all).await;
        far.write_all(&[3]).await.unwrap();
        bulk.end(&near);
        near.readable().await.unwrap();
        assert_eq!(near.try_read(&mut [0; 2]).unwrap(), 1);
        // The end of the connection needs no rest to be told.
        moved(&mut bulk, ENOUGH, &near, &all).await;
        drop(far);
        near.readable().await.unwrap();
        assert_eq!(near.try_read(&mut [0; 1]).unwrap(), 0);
    }

    #[tokio::test]
    async fn only_so_many_gather_at_once() {
        let (near, _far) = connection().await;
        let all = Gauge::default();
        let mut bulks: Vec<Bulk> = (0..=LIMIT).map(|_| Bulk::default()).collect();
        for bulk in &mut bulks {
            moved(bulk, ENOUGH, &near, &all).await;
        }
        assert!(bulks.pop().unwrap().0.unwrap().gathering.is_none());
        assert_eq!(all.get(), LIMIT);
        drop(bulks);
        assert_eq!(all.get(), 0);
    }
}
