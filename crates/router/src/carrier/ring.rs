//! One io_uring and the pairs of sockets on it. The only place of the router that is not safe by itself.
//!
//! ```text
//!   receive ──► Read (or Ended, Failed)
//!   forward ──► the send, linked to the next receive: one call of the kernel ──► Read, Ended, Failed
//!                  └─► Unsent: what could not be written, and nothing was received
//! ```
//!
//! Each direction of a pair has one buffer and at most one of these operations in flight, which alone may touch the buffer. A pair is
//! given back when it has none. Dropped in the middle, the ring leaves the buffers in flight to the kernel for good.

#![expect(
    unsafe_code,
    reason = "the kernel reads and writes buffers by address; each block says why they last"
)]

use io_uring::types::{CancelBuilder, Fd, Timespec};
use io_uring::{IoUring, opcode, squeue};
use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// One buffer. Larger messages than this are not what a carrier is for.
pub(super) const BUFFER: usize = 16 * 1024;

/// Entries to hand in at once; more are handed in between.
const ENTRIES: u32 = 512;

/// Room for completions before the kernel has to keep them elsewhere.
const COMPLETIONS: u32 = 4096;

/// `IORING_RECVSEND_POLL_FIRST`, since Linux 5.19.
const POLL_FIRST: u16 = 1;

const WOKEN: u64 = u64::MAX;
const TICKED: u64 = u64::MAX - 1;
const CANCELLED: u64 = u64::MAX - 2;

/// A direction of a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Up = 0,
    Down = 1,
}

/// What has come of an operation.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Done {
    Read {
        place: usize,
        way: Way,
        count: usize,
    },
    Ended {
        place: usize,
        way: Way,
    },
    Failed {
        place: usize,
        way: Way,
    },
    /// Cancelled before anything had come.
    Nothing {
        place: usize,
    },
    Unsent {
        place: usize,
        way: Way,
        rest: Range<usize>,
    },
    Woken,
    Ticked,
}

/// What a direction waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flight {
    None,
    Receive,
    /// So many bytes are sent first.
    Forward(usize),
}

struct Pair {
    client: TcpStream,
    server: TcpStream,
    buffers: [Box<[u8]>; 2],
    flights: [Flight; 2],
}

pub(super) struct Ring {
    uring: IoUring,
    pairs: Vec<Option<Pair>>,
    /// Places of `pairs` that are free.
    free: Vec<usize>,
    /// How often each place was given: an operation belongs to one of these times.
    times: Vec<u32>,
    /// An eventfd: who writes to it wakes the ring.
    wake: Arc<OwnedFd>,
    count: Box<[u8; 8]>,
    tick: Box<Timespec>,
}

impl Ring {
    /// Opens it, for the calling thread alone.
    pub(super) fn open(wake: Arc<OwnedFd>, tick: u64) -> io::Result<Ring> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(COMPLETIONS)
            .build(ENTRIES)?;
        let mut ring = Ring {
            uring,
            pairs: Vec::new(),
            free: Vec::new(),
            times: Vec::new(),
            wake,
            count: Box::new([0; 8]),
            tick: Box::new(Timespec::new().sec(tick)),
        };
        ring.hear()?;
        ring.wind()?;
        Ok(ring)
    }

    /// Takes both sockets; nothing is moved yet.
    pub(super) fn join(&mut self, client: TcpStream, server: TcpStream) -> usize {
        let buffer = || vec![0; BUFFER].into_boxed_slice();
        let pair = Pair { client, server, buffers: [buffer(), buffer()], flights: [Flight::None; 2] };
        let place = self.free.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            self.times.push(0);
            self.pairs.len() - 1
        });
        if let Some((slot, times)) = self.pairs.get_mut(place).zip(self.times.get_mut(place)) {
            *slot = Some(pair);
            *times = times.wrapping_add(1) & 0x7FFF_FFFF;
        }
        place
    }

    /// Gives the sockets back, once nothing is in flight.
    pub(super) fn part(&mut self, place: usize) -> Option<(TcpStream, TcpStream)> {
        let slot = self.pairs.get_mut(place)?;
        let pair = slot.take_if(|pair| pair.flights == [Flight::None; 2])?;
        self.free.push(place);
        Some((pair.client, pair.server))
    }

    pub(super) fn is_flying(&self, place: usize) -> bool {
        let pair = self.pairs.get(place).and_then(Option::as_ref);
        pair.is_some_and(|pair| pair.flights != [Flight::None; 2])
    }

    /// What was read and is at rest.
    pub(super) fn bytes(&self, place: usize, way: Way, range: Range<usize>) -> &[u8] {
        let pair = self.pairs.get(place).and_then(Option::as_ref);
        let pair = pair.filter(|pair| pair.flights[way as usize] == Flight::None);
        pair.and_then(|pair| pair.buffers[way as usize].get(range)).unwrap_or_default()
    }

    /// Begins to read in one direction.
    pub(super) fn receive(&mut self, place: usize, way: Way) -> io::Result<()> {
        self.start(place, way, Flight::Receive)
    }

    /// Writes the first bytes of the buffer on, all of them, and then reads again.
    pub(super) fn forward(&mut self, place: usize, way: Way, count: usize) -> io::Result<()> {
        self.start(place, way, Flight::Forward(count.min(BUFFER)))
    }

    fn start(&mut self, place: usize, way: Way, flight: Flight) -> io::Result<()> {
        self.room(2)?;
        let times = self.times.get(place).copied().unwrap_or_default();
        let Some(pair) = self.pairs.get_mut(place).and_then(Option::as_mut) else { return Ok(()) };
        let at = way as usize;
        if pair.flights[at] != Flight::None {
            return Ok(());
        }
        let (from, to) = match way {
            Way::Up => (pair.client.as_raw_fd(), pair.server.as_raw_fd()),
            Way::Down => (pair.server.as_raw_fd(), pair.client.as_raw_fd()),
        };
        let buffer = &mut pair.buffers[at];
        let length = u32::try_from(buffer.len()).unwrap_or_default();
        let address = buffer.as_mut_ptr();
        let name = u64::from(times) << 32 | (place as u64) << 2 | (at as u64) << 1;
        pair.flights[at] = flight;
        if let Flight::Forward(count) = flight {
            let count = u32::try_from(count).unwrap_or_default();
            // All of it or an error: a short one would break the rule that the buffer is free afterwards.
            let send =
                opcode::Send::new(Fd(to), address, count).flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL);
            let send = send.build().user_data(name | 1);
            let flags = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
            self.push(&send.flags(flags));
        }
        // The answer to what was just sent is not there yet: the first look would be in vain.
        let receive = opcode::Recv::new(Fd(from), address, length).ioprio(POLL_FIRST).build().user_data(name);
        self.push(&receive);
        Ok(())
    }

    /// Asks the kernel to end what is in flight on a pair; it may have to be asked again.
    pub(super) fn cancel(&mut self, place: usize) -> io::Result<()> {
        self.room(2)?;
        let Some(pair) = self.pairs.get(place).and_then(Option::as_ref) else { return Ok(()) };
        let both: [RawFd; 2] = [pair.client.as_raw_fd(), pair.server.as_raw_fd()];
        for fd in both {
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(fd)).all()).build();
            self.push(&cancel.user_data(CANCELLED));
        }
        Ok(())
    }

    /// Hands everything in, and waits until something is done.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        match self.uring.submit_and_wait(1) {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The next that is done.
    pub(super) fn next(&mut self) -> io::Result<Option<Done>> {
        loop {
            let Some(entry) = self.uring.completion().next() else { return Ok(None) };
            match (entry.user_data(), entry.result()) {
                (CANCELLED, _) => {}
                (WOKEN, _) => {
                    self.hear()?;
                    return Ok(Some(Done::Woken));
                }
                (TICKED, _) => {
                    self.wind()?;
                    return Ok(Some(Done::Ticked));
                }
                (name, result) => {
                    if let Some(done) = self.landed(name, result) {
                        return Ok(Some(done));
                    }
                }
            }
        }
    }

    fn landed(&mut self, name: u64, result: i32) -> Option<Done> {
        let place = usize::try_from((name & 0xFFFF_FFFF) >> 2).ok()?;
        let way = if name & 2 == 0 { Way::Up } else { Way::Down };
        if u64::from(*self.times.get(place)?) != name >> 32 {
            return None;
        }
        let pair = self.pairs.get_mut(place)?.as_mut()?;
        let flight = std::mem::replace(&mut pair.flights[way as usize], Flight::None);
        if name & 1 == 1 {
            let Flight::Forward(count) = flight else { return None };
            let sent = usize::try_from(result).unwrap_or(0);
            return Some(Done::Unsent { place, way, rest: sent..count });
        }
        if flight == Flight::None {
            // The link that followed a send which failed.
            return None;
        }
        Some(match usize::try_from(result) {
            Ok(0) => Done::Ended { place, way },
            Ok(count) => Done::Read { place, way, count },
            Err(_) if matches!(-result, libc::ECANCELED | libc::EINTR) => Done::Nothing { place },
            Err(_) => Done::Failed { place, way },
        })
    }

    fn hear(&mut self) -> io::Result<()> {
        self.room(1)?;
        let (fd, address) = (self.wake.as_raw_fd(), self.count.as_mut_ptr());
        self.push(&opcode::Read::new(Fd(fd), address, 8).build().user_data(WOKEN));
        Ok(())
    }

    fn wind(&mut self) -> io::Result<()> {
        self.room(1)?;
        let tick: *const Timespec = &raw const *self.tick;
        self.push(&opcode::Timeout::new(tick).build().user_data(TICKED));
        Ok(())
    }

    /// Makes room, so that what is linked is handed in together.
    fn room(&mut self, entries: usize) -> io::Result<()> {
        let queue = self.uring.submission();
        if queue.capacity() - queue.len() >= entries {
            return Ok(());
        }
        drop(queue);
        loop {
            match self.uring.submit() {
                Ok(_) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: what an entry points to is a buffer of a pair, `count` or `tick`: all are boxed, none moves, and none is freed while
        // the kernel may use it. A pair leaves by `part` only, without an operation in flight, and its sockets stay open
        // until then; what is in flight at the end is leaked by `drop`.
        // There is room: every caller has made it.
        let _ = unsafe { self.uring.submission().push(entry) };
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for pair in std::mem::take(&mut self.pairs).into_iter().flatten() {
            if pair.flights == [Flight::None; 2] {
                continue;
            }
            // The sockets are closed, the buffers are the kernel's.
            let Pair { client, server, buffers, .. } = pair;
            drop((client, server));
            std::mem::forget(buffers);
        }
        std::mem::forget(std::mem::replace(&mut self.count, Box::new([0; 8])));
        std::mem::forget(std::mem::replace(&mut self.tick, Box::new(Timespec::new())));
    }
}
