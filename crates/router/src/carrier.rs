//! The thread that carries busy sessions: many small messages by one call of the kernel.
//!
//! ```text
//!   relay ── busy, and its leash is free ──► carrier: read, follow, write on ──► relay, with what is read and not yet written
//!                                              when its leash is pulled, a side ends or fails, it falls silent, or moves large amounts
//! ```
//!
//! It only carries: what a hold, a cut or an end means is known by the relay alone. Once a leash is pulled nothing more
//! is written to the server from here.

mod ring;

use crate::conversation::Conversation;
use crate::leash::{Leash, Rein};
use crate::metrics::{Gauge, Held};
use crate::shared::Service;
use ring::{BUFFER, Done, Ring, Way};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::BTreeMap;
use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::sync::oneshot;

/// Between two looks at who is silent, in seconds.
const TICK: u64 = 1;

/// So many looks without a message, and a session goes back to where it costs less memory.
const SILENT: u32 = 2;

/// So many full buffers in a row are no conversation: large amounts are moved as well by the relay.
const FULL: u32 = 16;

/// What a carrier needs to know of a session.
pub(crate) struct Load {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
    pub(crate) talk: Option<Conversation>,
    /// It is there to write, so a server that says it is a standby is unusual.
    pub(crate) to_write: bool,
    pub(crate) leash: Leash,
    pub(crate) service: Arc<Service>,
}

/// A session that comes back.
pub(crate) struct Back {
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
    pub(crate) talk: Option<Conversation>,
    /// Read from the client and not yet written to the server; and the other way.
    pub(crate) up: Vec<u8>,
    pub(crate) down: Vec<u8>,
    /// A side could not be read.
    pub(crate) broken: bool,
}

enum Order {
    Take { id: u64, load: Box<Load>, back: oneshot::Sender<Back>, held: Held },
    Return(u64),
}

struct Inbox {
    orders: Mutex<Vec<Order>>,
    wake: Arc<OwnedFd>,
    /// Nobody takes orders any more.
    closed: AtomicBool,
    next: AtomicU64,
    carried: Gauge,
}

impl Inbox {
    fn order(&self, order: Order) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            // Dropped, so that whoever waits for it learns that it will not come.
            return;
        }
        orders.push(order);
        drop(orders);
        self.wake();
    }

    fn wake(&self) {
        // It fails only when there is more to hear already than can be counted.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }

    fn take(&self) -> Vec<Order> {
        std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn close(&self) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Ordering::Release);
        orders.clear();
    }
}

/// The way to the thread. Dropped, it ends.
pub(crate) struct Carrier {
    inbox: Arc<Inbox>,
    end: Arc<AtomicBool>,
}

impl Carrier {
    /// Starts the thread; fails where the kernel has no io_uring for it.
    pub(crate) fn start() -> io::Result<Carrier> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let inbox = Arc::new(Inbox {
            orders: Mutex::default(),
            wake: wake.clone(),
            closed: AtomicBool::new(false),
            next: AtomicU64::new(0),
            carried: Gauge::default(),
        });
        let end = Arc::new(AtomicBool::new(false));
        let (tell, told) = mpsc::channel();
        let of_thread = (inbox.clone(), end.clone());
        std::thread::Builder::new().name("carrier".to_owned()).spawn(move || {
            let (inbox, end) = of_thread;
            // Also by a panic: what is ordered afterwards fails at once.
            let closing = Closing(&inbox);
            match Ring::open(wake, TICK) {
                Ok(ring) => {
                    let _ = tell.send(Ok(()));
                    let mut hold = Hold { ring, carried: BTreeMap::new(), places: BTreeMap::new(), leaving: Vec::new() };
                    if let Err(error) = hold.run(&inbox, &end) {
                        tracing::warn!(%error, "failed to carry sessions by io_uring; those it carried are ended, others are not affected");
                    }
                }
                Err(error) => drop(tell.send(Err(error))),
            }
            drop(closing);
        })?;
        told.recv().map_err(io::Error::other)??;
        Ok(Carrier { inbox, end })
    }

    /// Sessions that are carried now.
    pub(crate) fn carried(&self) -> usize {
        self.inbox.carried.get()
    }

    /// Whether it takes sessions.
    pub(crate) fn is_open(&self) -> bool {
        !self.inbox.closed.load(Ordering::Acquire)
    }

    /// Carries a session until something unusual happens; `None` when it is lost with the carrier.
    pub(crate) async fn carry(&self, load: Load) -> Option<Back> {
        let (back, mut comes) = oneshot::channel();
        let leash = load.leash.clone();
        let id = self.inbox.next.fetch_add(1, Ordering::Relaxed);
        let held = self.inbox.carried.take(usize::MAX)?;
        // Dropped in the middle, it does not leave the session there.
        let mut recall = Recall { inbox: &self.inbox, id, needed: true };
        self.inbox.order(Order::Take { id, load: Box::new(load), back, held });
        let back = tokio::select! {
            biased;
            back = &mut comes => back,
            () = leash.pulled(Rein::Free) => {
                self.inbox.order(Order::Return(id));
                comes.await
            }
        };
        recall.needed = false;
        back.ok()
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        self.inbox.wake();
    }
}

struct Closing<'a>(&'a Inbox);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Recall<'a> {
    inbox: &'a Inbox,
    id: u64,
    needed: bool,
}

impl Drop for Recall<'_> {
    fn drop(&mut self) {
        if self.needed {
            self.inbox.order(Order::Return(self.id));
        }
    }
}

/// A session on the ring.
struct Carried {
    id: u64,
    talk: Option<Conversation>,
    to_write: bool,
    leash: Leash,
    service: Arc<Service>,
    back: oneshot::Sender<Back>,
    leaving: bool,
    broken: bool,
    /// Read and not written, in each direction.
    kept: [Range<usize>; 2],
    /// Looks since the last message.
    silent: u32,
    full: u32,
    _held: Held,
}

/// What the thread holds.
struct Hold {
    ring: Ring,
    /// By their places on the ring.
    carried: BTreeMap<usize, Carried>,
    places: BTreeMap<u64, usize>,
    leaving: Vec<usize>,
}

impl Hold {
    fn run(&mut self, inbox: &Inbox, end: &AtomicBool) -> io::Result<()> {
        loop {
            self.ring.wait()?;
            while let Some(done) = self.ring.next()? {
                self.done(done, inbox)?;
            }
            self.let_go()?;
            if end.load(Ordering::Acquire) {
                let all: Vec<usize> = self.carried.keys().copied().collect();
                all.into_iter().for_each(|place| self.leave(place));
                self.let_go()?;
                if self.carried.is_empty() {
                    return Ok(());
                }
            }
        }
    }

    fn done(&mut self, done: Done, inbox: &Inbox) -> io::Result<()> {
        match done {
            Done::Woken => {
                for order in inbox.take() {
                    match order {
                        Order::Take { id, load, back, held } => self.take(id, *load, back, held)?,
                        Order::Return(id) => {
                            if let Some(place) = self.places.get(&id).copied() {
                                self.leave(place);
                            }
                        }
                    }
                }
            }
            Done::Ticked => self.look_around(),
            Done::Read { place, way, count } => self.read(place, way, count)?,
            Done::Ended { place, .. } | Done::Nothing { place } => self.leave(place),
            Done::Failed { place, .. } => {
                if let Some(carried) = self.carried.get_mut(&place) {
                    carried.broken = true;
                }
                self.leave(place);
            }
            Done::Unsent { place, way, rest } => {
                if let Some(carried) = self.carried.get_mut(&place) {
                    carried.kept[way as usize] = rest;
                }
                self.leave(place);
            }
        }
        Ok(())
    }

    fn take(&mut self, id: u64, load: Load, back: oneshot::Sender<Back>, held: Held) -> io::Result<()> {
        let Load { client, server, talk, to_write, leash, service } = load;
        let place = self.ring.join(client, server);
        let carried = Carried {
            id,
            talk,
            to_write,
            leash,
            service,
            back,
            leaving: false,
            broken: false,
            kept: [0..0, 0..0],
            silent: 0,
            full: 0,
            _held: held,
        };
        self.carried.insert(place, carried);
        self.places.insert(id, place);
        self.ring.receive(place, Way::Up)?;
        self.ring.receive(place, Way::Down)
    }

    fn read(&mut self, place: usize, way: Way, count: usize) -> io::Result<()> {
        let Some(carried) = self.carried.get_mut(&place) else { return Ok(()) };
        let bytes = self.ring.bytes(place, way, 0..count);
        let traffic = &carried.service.counts.traffic;
        match way {
            Way::Up => traffic.to_server(count),
            Way::Down => traffic.to_client(count),
        }
        if let Some(talk) = &mut carried.talk {
            match way {
                Way::Up => talk.client_says(bytes),
                Way::Down => talk.server_says(bytes),
            }
        }
        carried.silent = 0;
        carried.full = if count == BUFFER { carried.full + 1 } else { 0 };
        let standby = carried.to_write && carried.talk.as_ref().is_some_and(Conversation::is_with_standby);
        let pulled = carried.leash.rein() != Rein::Free;
        if carried.leaving || pulled || standby || carried.full == FULL {
            carried.kept[way as usize] = 0..count;
            self.leave(place);
            return Ok(());
        }
        self.ring.forward(place, way, count)
    }

    /// Those that have been silent, in both directions, or cannot be written to, go back.
    fn look_around(&mut self) {
        let mut silent = Vec::new();
        for (place, carried) in &mut self.carried {
            carried.silent += 1;
            if carried.silent > SILENT {
                silent.push(*place);
            }
        }
        silent.into_iter().for_each(|place| self.leave(place));
    }

    /// From now on a session is on its way back.
    fn leave(&mut self, place: usize) {
        if let Some(carried) = self.carried.get_mut(&place)
            && !std::mem::replace(&mut carried.leaving, true)
        {
            self.leaving.push(place);
        }
    }

    /// Gives back those that are to leave and have nothing in flight; the others are asked to end that.
    fn let_go(&mut self) -> io::Result<()> {
        for place in std::mem::take(&mut self.leaving) {
            if self.ring.is_flying(place) {
                self.ring.cancel(place)?;
                self.leaving.push(place);
                continue;
            }
            let Some(carried) = self.carried.remove(&place) else { continue };
            self.places.remove(&carried.id);
            let kept = |way: Way| self.ring.bytes(place, way, carried.kept[way as usize].clone()).to_vec();
            let (up, down) = (kept(Way::Up), kept(Way::Down));
            let Some((client, server)) = self.ring.part(place) else { continue };
            let Carried { talk, back, broken, .. } = carried;
            // One that nobody waits for ends here.
            drop(back.send(Back { client, server, talk, up, down, broken }));
        }
        Ok(())
    }
}
