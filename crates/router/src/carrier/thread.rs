//! What the thread does: takes sessions, writes on what it reads, and gives them back.

use super::ring::{Done, Ring, Way};
use super::{Back, Fare, Inbox, Load, Order, refuse};
use crate::conversation::Conversation;
use crate::events::Event;
use crate::leash::{Leash, Rein};
use crate::metrics::Held;
use crate::shared::Service;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// So many looks (one each second) without a message, and a session goes back to where it costs less memory.
const SILENT: u32 = 2;

/// So much one way without a word the other way is no conversation: large amounts are moved by the relay.
const LARGE: usize = 256 * 1024;

/// At the end the kernel is asked so often, a tenth of a second each time, to end what is in flight.
const ROUNDS: u32 = 10;

/// The thread: carries until it is told to end, or cannot go on.
pub(super) fn serve(ring: Ring, inbox: &Inbox) {
    let mut hold = Hold { ring, carried: BTreeMap::new(), places: BTreeMap::new(), leaving: Vec::new() };
    // Dropped before what the thread holds.
    let _closing = Closing(inbox);
    let ended = hold.run(inbox);
    inbox.close();
    hold.give_all_back(inbox);
    if let Err(why) = ended {
        Event::CarrierFailed { why: why.to_string(), lost: hold.carried.len() }.log();
    }
}

/// However the thread ends: what is ordered afterwards goes back at once.
struct Closing<'a>(&'a Inbox);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
        if std::thread::panicking() {
            Event::CarrierFailed { why: "it panicked".to_owned(), lost: self.0.carried.get() }.log();
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
    withheld: bool,
    /// Read and not written, in each direction.
    kept: [Range<usize>; 2],
    /// Looks since the last message.
    silent: u32,
    /// Who spoke last, and how much in one go.
    amount: (Way, usize),
    _held: Held,
}

/// What the thread holds.
struct Hold {
    ring: Ring,
    /// By their places on the ring.
    carried: BTreeMap<usize, Carried>,
    places: BTreeMap<u64, usize>,
    /// On their way back, with something in flight.
    leaving: Vec<usize>,
}

impl Hold {
    fn run(&mut self, inbox: &Inbox) -> io::Result<()> {
        while !inbox.end.load(Ordering::Acquire) {
            self.ring.wait()?;
            while let Some(done) = self.ring.next()? {
                self.done(done, inbox)?;
            }
            self.let_go()?;
        }
        Ok(())
    }

    /// At the end all go back; those whose operations do not end in time stay, and are lost with the ring.
    fn give_all_back(&mut self, inbox: &Inbox) {
        let all: Vec<usize> = self.carried.keys().copied().collect();
        for place in all {
            self.leave(place);
        }
        for _ in 0..ROUNDS {
            if self.ring.is_still() {
                break;
            }
            self.ring.end_all();
            // All are on their way back, so nothing is begun here that could fail.
            while let Ok(Some(done)) = self.ring.next() {
                self.done(done, inbox).unwrap_or_default();
            }
        }
        for place in std::mem::take(&mut self.leaving) {
            if !self.ring.is_flying(place) {
                self.give_back(place);
            }
        }
    }

    fn done(&mut self, done: Done, inbox: &Inbox) -> io::Result<()> {
        match done {
            Done::Woken => {
                inbox.answers.fetch_add(1, Ordering::Relaxed);
                return self.follow_all(inbox);
            }
            Done::Ticked => self.look_around(),
            Done::Read { place, way, count } => return self.read(place, way, count),
            Done::Ended { place } | Done::Nothing { place } => self.leave(place),
            Done::Failed { place } => {
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

    fn follow_all(&mut self, inbox: &Inbox) -> io::Result<()> {
        let mut orders = inbox.take().into_iter();
        while let Some(order) = orders.next() {
            if let Err(error) = self.follow(order) {
                refuse(orders);
                return Err(error);
            }
        }
        Ok(())
    }

    fn follow(&mut self, order: Order) -> io::Result<()> {
        match order {
            Order::Take(fare) => self.take(*fare),
            Order::Return(id) => {
                if let Some(place) = self.places.get(&id).copied() {
                    self.leave(place);
                }
                Ok(())
            }
            #[cfg(test)]
            Order::Do(what) => what(),
        }
    }

    fn take(&mut self, fare: Fare) -> io::Result<()> {
        let Fare { id, load: Load { client, server, talk, to_write, leash, service }, back, held } = fare;
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
            withheld: false,
            kept: [0..0, 0..0],
            silent: 0,
            amount: (Way::Up, 0),
            _held: held,
        };
        self.carried.insert(place, carried);
        self.places.insert(id, place);
        self.ring.receive(place, Way::Up)?;
        self.ring.receive(place, Way::Down)
    }

    fn read(&mut self, place: usize, way: Way, count: usize) -> io::Result<()> {
        let Some(carried) = self.carried.get_mut(&place) else { return Ok(()) };
        let rein = carried.leash.rein();
        if rein == Rein::Cut || (rein == Rein::Distrusted && carried.talk.is_none()) {
            // As if it had never been read: what the client has had so far decides whether it can be told why.
            self.leave(place);
            return Ok(());
        }
        let begins = way == Way::Up && carried.talk.as_ref().is_some_and(Conversation::is_idle);
        carried.withheld |= begins && rein == Rein::Distrusted;
        carried.follow(way, self.ring.bytes(place, way, 0..count));
        if rein == Rein::Free && carried.is_usual() {
            return self.ring.forward(place, way, count);
        }
        carried.kept[way as usize] = 0..count;
        self.leave(place);
        Ok(())
    }

    /// Those that have been silent, in both directions, go back.
    fn look_around(&mut self) {
        let mut silent = Vec::new();
        for (place, carried) in &mut self.carried {
            carried.silent += 1;
            if carried.silent > SILENT {
                silent.push(*place);
            }
        }
        for place in silent {
            self.leave(place);
        }
    }

    /// From now on a session is on its way back.
    fn leave(&mut self, place: usize) {
        if let Some(carried) = self.carried.get_mut(&place)
            && !std::mem::replace(&mut carried.leaving, true)
        {
            self.leaving.push(place);
        }
    }

    /// Gives back those that are to leave and have nothing in flight; the kernel is asked to end what the others have.
    fn let_go(&mut self) -> io::Result<()> {
        for place in std::mem::take(&mut self.leaving) {
            if self.ring.is_flying(place) {
                self.leaving.push(place);
                // Its answer wakes the ring: they are looked at again then.
                self.ring.cancel(place)?;
            } else {
                self.give_back(place);
            }
        }
        Ok(())
    }

    fn give_back(&mut self, place: usize) {
        let Some(carried) = self.carried.remove(&place) else { return };
        self.places.remove(&carried.id);
        let kept = |way: Way| self.ring.bytes(place, way, carried.kept[way as usize].clone()).to_vec();
        let (up, down) = (kept(Way::Up), kept(Way::Down));
        let Some((client, server)) = self.ring.part(place) else { return };
        let Carried { talk, back, withheld, broken, .. } = carried;
        // One that nobody waits for ends here.
        drop(back.send(Back { client, server, talk, up, down, withheld, broken }));
    }
}

impl Carried {
    fn follow(&mut self, way: Way, bytes: &[u8]) {
        let traffic = &self.service.counts.traffic;
        match way {
            Way::Up => traffic.to_server(bytes.len()),
            Way::Down => traffic.to_client(bytes.len()),
        }
        if let Some(talk) = &mut self.talk {
            match way {
                Way::Up => talk.client_says(bytes),
                Way::Down => talk.server_says(bytes),
            }
        }
        self.silent = 0;
        let before = if self.amount.0 == way { self.amount.1 } else { 0 };
        self.amount = (way, before.saturating_add(bytes.len()));
    }

    /// Whether there is nothing that the relay has to know of.
    fn is_usual(&self) -> bool {
        let standby = self.to_write && self.talk.as_ref().is_some_and(Conversation::is_with_standby);
        !self.leaving && !standby && self.amount.1 < LARGE
    }
}
