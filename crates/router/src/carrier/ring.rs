//! One io_uring and the pairs of sockets on it. The only place of the router that is not safe by itself.
//!
//! ```text
//!   receive ──► Read (or Ended, Failed)
//!   forward ──► the send, linked to the next receive: one call of the kernel ──► Read, Ended, Failed
//!                  └─► Unsent: what could not be written at once, and nothing was received
//! ```
//!
//! Each direction of a pair has one buffer and at most one of these operations in flight, which alone may touch the buffer; a pair is
//! given back when it has none. What makes that countable is how the kernel ends them (io_uring/net.c, io_uring.c; the tests hold it to that):
//!
//! - A send has MSG_WAITALL and MSG_DONTWAIT: all of it is written at once, or it fails (io_send, REQ_F_NOWAIT) with what was written so far
//!   as its result (io_sendrecv_fail). So none ever waits to go on later, when its session may have been cut.
//! - One that succeeds posts nothing (IOSQE_CQE_SKIP_SUCCESS, since Linux 5.17), and the receive that is linked to it then does. One that
//!   fails posts that (req_set_fail takes its REQ_F_CQE_SKIP away and sets REQ_F_SKIP_LINK_CQES), and the receive is never begun and posts
//!   nothing (io_fail_links then sets REQ_F_CQE_SKIP on it).
//!
//! So each operation ends with exactly one completion. At the end all are cancelled and waited for; buffers of those that do not end in time are
//! left to the kernel for good.

#![expect(
    unsafe_code,
    reason = "the kernel reads and writes buffers by address; each block says why they last"
)]

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// One buffer. Larger messages than this are not what a carrier is for.
pub(super) const BUFFER: usize = 16 * 1024;

/// Dropped with something in flight, it asks the kernel so often to end that.
const ROUNDS: u32 = 10;

/// Entries to hand in at once; more are handed in between.
const ENTRIES: u32 = 512;

/// Room for completions: two operations and two cancellations for each session that may be here.
const COMPLETIONS: u32 = 4096;

/// `IORING_RECVSEND_POLL_FIRST`, since Linux 5.19.
const POLL_FIRST: u16 = 1;

/// Between two looks at who is silent.
static TICK: Timespec = Timespec::new().sec(1);

/// At the end: the most that is waited for at once.
static ROUND: Timespec = Timespec::new().nsec(100_000_000);

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
    },
    Failed {
        place: usize,
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
    /// A vector may move while the kernel uses what it points to, a box may not.
    buffers: [Vec<u8>; 2],
    flights: [Flight; 2],
}

impl Pair {
    fn is_flying(&self) -> bool {
        self.flights != [Flight::None; 2]
    }
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
    /// What is read from it.
    count: Vec<u8>,
    hears: bool,
    winds: bool,
    /// Nothing is begun any more.
    ending: bool,
}

impl Ring {
    /// Opens it, for the calling thread alone. These flags are as new (Linux 6.1) as anything that is used here.
    pub(super) fn open(wake: Arc<OwnedFd>) -> io::Result<Ring> {
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
            count: vec![0; 8],
            hears: false,
            winds: false,
            ending: false,
        };
        ring.hear()?;
        ring.wind()?;
        // To set one up may be allowed, and to use it not.
        ring.uring.submit()?;
        Ok(ring)
    }

    /// Takes both sockets; nothing is moved yet.
    pub(super) fn join(&mut self, client: TcpStream, server: TcpStream) -> usize {
        let buffers = [vec![0; BUFFER], vec![0; BUFFER]];
        let pair = Pair { client, server, buffers, flights: [Flight::None; 2] };
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
        let pair = slot.take_if(|pair| !pair.is_flying())?;
        self.free.push(place);
        Some((pair.client, pair.server))
    }

    pub(super) fn is_flying(&self, place: usize) -> bool {
        let pair = self.pairs.get(place).and_then(Option::as_ref);
        pair.is_some_and(Pair::is_flying)
    }

    /// Whether nothing at all is in flight.
    pub(super) fn is_still(&self) -> bool {
        !self.hears && !self.winds && !self.pairs.iter().flatten().any(Pair::is_flying)
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
        let at = way as usize;
        let pair = self.pairs.get_mut(place).and_then(Option::as_mut);
        let Some(pair) = pair.filter(|pair| pair.flights[at] == Flight::None && !self.ending) else {
            return Ok(());
        };
        let (from, to) = match way {
            Way::Up => (pair.client.as_raw_fd(), pair.server.as_raw_fd()),
            Way::Down => (pair.server.as_raw_fd(), pair.client.as_raw_fd()),
        };
        let address = pair.buffers[at].as_mut_ptr();
        let name = u64::from(times) << 32 | (place as u64) << 2 | (at as u64) << 1;
        pair.flights[at] = flight;
        // The answer to what was just sent is not there yet: the first look would be in vain.
        let receive = opcode::Recv::new(Fd(from), address, BUFFER as u32).ioprio(POLL_FIRST);
        let receive = receive.build().user_data(name);
        let Flight::Forward(count) = flight else { return self.push(&[receive]) };
        let send = opcode::Send::new(Fd(to), address, count as u32);
        let send = send.flags(libc::MSG_WAITALL | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
        let linked = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
        self.push(&[send.build().user_data(name | 1).flags(linked), receive])
    }

    /// Asks the kernel to end what is in flight on a pair; it may have to be asked again.
    pub(super) fn cancel(&mut self, place: usize) -> io::Result<()> {
        self.room(2)?;
        let Some(pair) = self.pairs.get(place).and_then(Option::as_ref) else { return Ok(()) };
        let both = [pair.client.as_raw_fd(), pair.server.as_raw_fd()].map(|fd| {
            let of_socket = CancelBuilder::fd(Fd(fd)).all();
            opcode::AsyncCancel2::new(of_socket).build().user_data(CANCELLED)
        });
        self.push(&both)
    }

    /// Begins nothing any more, asks the kernel to end all that is in flight, and waits a moment. What is done is told by `next`.
    pub(super) fn end_all(&mut self) {
        self.ending = true;
        let all = opcode::AsyncCancel2::new(CancelBuilder::any().all()).build().user_data(CANCELLED);
        let asked = self.room(1).and_then(|()| self.push(&[all]));
        let moment = SubmitArgs::new().timespec(&ROUND);
        // What fails here is done again, or not in time: who calls looks at what is in flight, and at nothing else.
        drop(asked.and_then(|()| self.uring.submitter().submit_with_args(1, &moment)));
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
        Some(match (flight, usize::try_from(result)) {
            (Flight::None, _) => return None,
            // The receive that is linked to it is not begun.
            (Flight::Forward(count), sent) if name & 1 == 1 => {
                Done::Unsent { place, way, rest: sent.unwrap_or_default()..count }
            }
            (_, Ok(0)) => Done::Ended { place },
            (_, Ok(count)) => Done::Read { place, way, count },
            (_, Err(_)) if matches!(-result, libc::ECANCELED | libc::EINTR) => Done::Nothing { place },
            (_, Err(_)) => Done::Failed { place },
        })
    }

    fn hear(&mut self) -> io::Result<()> {
        self.hears = false;
        if self.ending {
            return Ok(());
        }
        self.room(1)?;
        self.hears = true;
        let (fd, address) = (self.wake.as_raw_fd(), self.count.as_mut_ptr());
        self.push(&[opcode::Read::new(Fd(fd), address, 8).build().user_data(WOKEN)])
    }

    fn wind(&mut self) -> io::Result<()> {
        self.winds = false;
        if self.ending {
            return Ok(());
        }
        self.room(1)?;
        self.winds = true;
        self.push(&[opcode::Timeout::new(&raw const TICK).build().user_data(TICKED)])
    }

    /// Makes room, so that what is linked is handed in together.
    fn room(&mut self, entries: usize) -> io::Result<()> {
        let has_room = |uring: &mut IoUring| {
            let queue = uring.submission();
            queue.capacity() - queue.len() >= entries
        };
        while !has_room(&mut self.uring) {
            match self.uring.submit() {
                // It takes as many as it has memory for.
                Ok(0) => return Err(io::ErrorKind::OutOfMemory.into()),
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn push(&mut self, entries: &[squeue::Entry]) -> io::Result<()> {
        // SAFETY: an entry points to a buffer of a pair, to `count` or to a static. The memory of a vector stays where it is when the vector
        // moves, and these are never made longer or shorter. No other entry in flight points to the same memory, and it is neither read nor
        // written here meanwhile: `start` and `bytes` look at `flights`, `hear` comes after its own completion. It is not freed meanwhile: a pair
        // leaves by `part` only, without anything in flight, and `drop` leaks what is. The sockets are open here when the entry is handed in: all are
        // before the pair can leave; from then on the kernel holds them itself.
        let pushed = unsafe { self.uring.submission().push_multiple(entries) };
        pushed.map_err(io::Error::other)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for _ in 0..ROUNDS {
            if self.is_still() {
                return;
            }
            self.end_all();
            while !matches!(self.next(), Ok(None)) {}
        }
        for pair in std::mem::take(&mut self.pairs).into_iter().flatten() {
            if pair.is_flying() {
                // The kernel's now, as the sockets are, which it closes when it has done with them.
                std::mem::forget(pair.buffers);
            }
        }
        std::mem::forget(std::mem::take(&mut self.count));
    }
}

#[cfg(test)]
pub(super) mod tests;
