//! The thread that carries busy sessions: many small messages by one call of the kernel.
//!
//! ```text
//!   relay ── busy, and its leash is free ──► carrier: read, follow, write on ──► relay, with what is read and not yet written
//!                                              when its leash is pulled, a side ends, fails or takes no more, it falls silent, or moves
//!                                              large amounts; all of them when the thread ends, also by an error
//! ```
//!
//! It only carries: what a hold, a cut or an end means is known by the relay alone. It looks at the leash before each write, and no write waits
//! for its side to take more: so once a leash is pulled nothing is written to the server from here. What was written before and has not left this
//! host is discarded when the relay closes the connection of a session that is cut (`relay::discard_on_close`), as if it had written it itself.

mod lacking;
mod ring;
mod thread;

use crate::conversation::Conversation;
use crate::events::Event;
use crate::leash::{Leash, Rein};
use crate::metrics::{Gauge, Held};
use crate::shared::Service;
pub(crate) use lacking::lacking;
use ring::Ring;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Sessions at once: 32 MiB of buffers at most. All others are served as if there were no carrier.
const SEATS: usize = 1024;

/// Looks in a row at which the thread has not answered, and it hangs.
const MISSED: u32 = 3;

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
    /// What is kept for the server begins something, and the session was distrusted when it was read.
    pub(crate) withheld: bool,
    /// A side could not be read.
    pub(crate) broken: bool,
}

/// A session on its way to the thread.
struct Fare {
    id: u64,
    load: Load,
    back: oneshot::Sender<Back>,
    held: Held,
}

impl Fare {
    /// Nobody takes it: it goes back as it came.
    fn refuse(self) {
        let Fare { load: Load { client, server, talk, .. }, back, .. } = self;
        // One that nobody waits for ends here.
        let (up, down) = (Vec::new(), Vec::new());
        drop(back.send(Back { client, server, talk, up, down, withheld: false, broken: false }));
    }
}

enum Order {
    Take(Box<Fare>),
    Return(u64),
    /// What a test lets go wrong in the thread.
    #[cfg(test)]
    Do(fn() -> io::Result<()>),
}

/// What is left for the thread to do.
struct Inbox {
    orders: Mutex<Vec<Order>>,
    wake: Arc<OwnedFd>,
    /// Nobody takes orders any more.
    closed: AtomicBool,
    end: AtomicBool,
    /// How often the thread was woken and said so.
    answers: AtomicU64,
    hangs: AtomicBool,
    next: AtomicU64,
    carried: Gauge,
}

impl Inbox {
    fn new(wake: Arc<OwnedFd>) -> Inbox {
        Inbox {
            orders: Mutex::default(),
            wake,
            closed: AtomicBool::new(false),
            end: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            hangs: AtomicBool::new(false),
            next: AtomicU64::new(0),
            carried: Gauge::default(),
        }
    }

    fn order(&self, order: Order) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            drop(orders);
            return refuse([order]);
        }
        orders.push(order);
        drop(orders);
        self.wake();
    }

    fn wake(&self) {
        // A counter that is at its end already wakes as well, and nothing else fails here.
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }

    fn take(&self) -> Vec<Order> {
        std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes no more; what has not been taken goes back.
    fn close(&self) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Ordering::Release);
        let left = std::mem::take(&mut *orders);
        drop(orders);
        refuse(left);
    }

    /// Whether the thread is there, and not known to hang.
    fn is_up(&self) -> bool {
        !self.closed.load(Ordering::Acquire) && !self.hangs.load(Ordering::Relaxed)
    }

    fn told_to_end(&self) {
        self.end.store(true, Ordering::Release);
        self.wake();
    }
}

fn refuse(orders: impl IntoIterator<Item = Order>) {
    for order in orders {
        match order {
            Order::Take(fare) => fare.refuse(),
            Order::Return(_) => {}
            #[cfg(test)]
            Order::Do(_) => {}
        }
    }
}

/// The way to the thread. Dropped, it ends.
pub(crate) struct Carrier {
    inbox: Arc<Inbox>,
    busy: u32,
    thread: Mutex<Option<(JoinHandle<()>, oneshot::Receiver<()>)>>,
}

impl Carrier {
    /// Starts the thread; fails where the kernel has no io_uring for it. `busy` messages make a session worth it.
    pub(crate) fn start(busy: u32) -> io::Result<Carrier> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let inbox = Arc::new(Inbox::new(wake.clone()));
        let (tell, told) = mpsc::channel();
        let (over, ended) = oneshot::channel::<()>();
        let of_thread = inbox.clone();
        let thread = std::thread::Builder::new().name("carrier".to_owned()).spawn(move || {
            // Dropped last, however the thread ends.
            let _over = over;
            match Ring::open(wake) {
                Ok(ring) => {
                    // Who started it waits for this.
                    let _ = tell.send(Ok(()));
                    thread::serve(ring, &of_thread);
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        })?;
        told.recv().map_err(io::Error::other)??;
        Ok(Carrier { inbox, busy, thread: Mutex::new(Some((thread, ended))) })
    }

    /// Messages in a row, none far from the next, that make a session busy.
    pub(crate) fn busy(&self) -> u32 {
        self.busy
    }

    /// Sessions that are carried now.
    pub(crate) fn carried(&self) -> usize {
        self.inbox.carried.get()
    }

    /// Whether busy sessions are taken.
    pub(crate) fn is_up(&self) -> bool {
        self.inbox.is_up()
    }

    /// Wakes the thread at each look, and takes it for one that hangs when it does not answer; until it is told to end.
    pub(crate) fn watch(&self, look: Duration) -> impl Future<Output = ()> + Send + 'static {
        let inbox = self.inbox.clone();
        async move {
            let mut missed = 0;
            while !inbox.closed.load(Ordering::Acquire) && !inbox.end.load(Ordering::Acquire) {
                let before = inbox.answers.load(Ordering::Relaxed);
                inbox.wake();
                tokio::time::sleep(look).await;
                missed = if inbox.answers.load(Ordering::Relaxed) == before { missed + 1 } else { 0 };
                let hangs = missed >= MISSED;
                if inbox.hangs.swap(hangs, Ordering::Relaxed) != hangs {
                    Event::CarrierHangs { hangs, carried: inbox.carried.get() }.log();
                }
            }
        }
    }

    /// A place for one more session; `None` when all are taken, or the thread hangs or has ended.
    pub(crate) fn seat(&self) -> Option<Seat<'_>> {
        let held = self.is_up().then(|| self.inbox.carried.take(SEATS))??;
        Some(Seat { inbox: &self.inbox, held })
    }

    /// Lets it give back what it carries and end; whether that came about in time.
    pub(crate) async fn end(&self, limit: Duration) -> bool {
        self.inbox.told_to_end();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((thread, ended)) = thread else { return true };
        if tokio::time::timeout(limit, ended).await.is_err() {
            return false;
        }
        // One that panicked has said so.
        drop(thread.join());
        true
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.inbox.told_to_end();
    }
}

/// A place among those that are carried.
pub(crate) struct Seat<'a> {
    inbox: &'a Inbox,
    held: Held,
}

impl Seat<'_> {
    /// Carries a session until something unusual happens; `None` when it is lost with the carrier.
    pub(crate) async fn carry(self, load: Load) -> Option<Back> {
        let Seat { inbox, held } = self;
        let (back, mut comes) = oneshot::channel();
        let leash = load.leash.clone();
        let id = inbox.next.fetch_add(1, Ordering::Relaxed);
        // Dropped in the middle, it does not leave the session there.
        let mut recall = Recall { inbox, id, needed: true };
        inbox.order(Order::Take(Box::new(Fare { id, load, back, held })));
        let back = tokio::select! {
            biased;
            back = &mut comes => back,
            // Also when it was pulled before the thread has heard of the session: the orders are taken in turn.
            () = leash.pulled(Rein::Free) => {
                inbox.order(Order::Return(id));
                comes.await
            }
        };
        recall.needed = false;
        back.ok()
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

#[cfg(test)]
mod tests;
