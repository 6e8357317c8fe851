//! The virtual addresses of this member: its right to them is its right to write.
//!
//! ```text
//!   announced as writable ──granted──► right to the primary's addresses until the lease's deadline
//!   about to stop, or to give the lead away ──► right gone, and only when the addresses are gone the action itself
//!   fit for another role ──claimed in etcd──► right to that address until the claim's lease ends
//! ```
//! Held on an interface, moved by a command, announced by BGP: all of it rests on that one right.

use crate::journal::Journal;
use crate::keeper::Keeper;
use crate::telling::Telling;
use crate::wake::Cell;
use bgp::Speaker;
use etcd::{Etcd, Snapshot, View};
use ha::Rules;
use settings::{Settings, VirtualAddress};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use types::{NodeName, Term};
use vip::{Claims, Held, Holder, Hook, HookState, Right, Rights, Role, Wanted};

/// The kernel takes an address off in a millisecond; nothing that saves data may wait longer for it.
const AT_MOST: Duration = Duration::from_millis(200);

/// The addresses, and the word on which they are held. A cheap clone.
#[derive(Clone)]
pub(crate) struct Addresses {
    inner: Arc<Inner>,
}

struct Inner {
    holder: Option<Holder>,
    speaker: Option<Announcer>,
    word: Arc<Word>,
}

/// The BGP speaker, and whether its hold time fits the lease.
struct Announcer {
    speaker: Speaker,
    hold: Duration,
    /// The `ttl` that was last found too short for it.
    warned: Cell<Option<Duration>>,
}

/// What the right to them rests on.
struct Word {
    keeper: Keeper,
    claims: Option<Arc<Claims>>,
    said: Cell<Said>,
    /// etcd was read since the start.
    known: AtomicBool,
    journal: Arc<Cell<Journal>>,
}

#[derive(Clone, Copy, Default)]
struct Said {
    /// The term in which this member was announced as writable.
    writable: Option<Term>,
    /// The term in which that was taken back: an older look at etcd does not bring it back.
    withdrawn: Option<Term>,
}

impl Rights for Word {
    fn right(&self, role: Role, ip: IpAddr) -> Option<Right> {
        match role {
            Role::Primary => {
                let lease = self.keeper.lease();
                let (term, until) = (lease.term?, lease.deadline?);
                (self.said.get().writable == Some(term)).then_some(Right { term, until })
            }
            Role::Replica | Role::Sync | Role::Any => self.claims.as_ref()?.right(ip),
        }
    }

    fn here(&self, ip: IpAddr, here: bool) {
        let (code, what) = if here { ("Came", "is here") } else { ("Went", "is gone from here") };
        self.journal
            .with(|journal| journal.tell("address", code, format!("the virtual address {ip} {what}")));
        if let Some(claims) = &self.claims {
            claims.here(ip, here);
        }
    }

    fn known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }
}

impl Addresses {
    /// Begins to hold what the settings name.
    pub(crate) fn start(
        settings: &Settings,
        keeper: Keeper,
        etcd: Etcd,
        view: watch::Receiver<View>,
        journal: Arc<Cell<Journal>>,
    ) -> Result<Addresses, crate::Error> {
        let refuse = |why: String| crate::Error::VirtualAddress(why);
        let (mut wanted, mut hooks, mut roles) = (Vec::new(), Vec::new(), Vec::new());
        for address in &settings.vip {
            let role = Role::of(&address.role).map_err(|why| refuse(why.to_string()))?;
            roles.push((address.ip, role));
            wanted.extend(on_interface(address, role).map_err(|why| refuse(why.to_string()))?);
            hooks.extend(moved(address, role));
        }
        let some = !roles.is_empty();
        let claims = some.then(|| Arc::new(Claims::follow(etcd, view, settings.name.clone(), roles)));
        let word = Arc::new(Word {
            keeper,
            claims,
            said: Cell::new(Said::default()),
            known: AtomicBool::new(false),
            journal,
        });
        let holder = some.then(|| Holder::start(wanted, hooks, word.clone())).transpose();
        let holder = holder.map_err(|error| refuse(error.to_string()))?;
        let speaker = match (&settings.bgp, &holder) {
            (Some(bgp), Some(holder)) => {
                Some(Announcer::start(bgp, &settings.vip, holder, &word).map_err(refuse)?)
            }
            (Some(_), None) => {
                return Err(refuse(
                    "announce an address by BGP: there is none; add vip.addresses".to_owned(),
                ));
            }
            (None, _) => None,
        };
        let inner = Arc::new(Inner { holder, speaker, word });
        if some {
            tokio::spawn(pass_on(Arc::downgrade(&inner)));
        }
        Ok(Addresses { inner })
    }

    /// This member was announced as writable in this term.
    pub(crate) fn announced(&self, term: Term) {
        self.inner.word.said.with(|said| *said = Said { writable: Some(term), withdrawn: None });
        self.poke();
    }

    /// What etcd says of it, for an agent that was restarted and did not announce it itself.
    pub(crate) fn learn(&self, snapshot: &Snapshot, me: &NodeName) {
        self.take_up(snapshot, me);
        self.inner.word.known.store(true, Ordering::Relaxed);
    }

    fn take_up(&self, snapshot: &Snapshot, me: &NodeName) {
        let Some(writable) = snapshot.writable.as_ref().filter(|writable| writable.name == *me) else {
            return;
        };
        let news = self.inner.word.said.with(|said| {
            let news = said.writable != Some(writable.term) && said.withdrawn != Some(writable.term);
            if news {
                said.writable = Some(writable.term);
            }
            news
        });
        if news {
            self.poke();
        }
    }

    /// Gives them up and waits until they are gone. Those that cannot be removed in time go with their lifetime.
    pub(crate) async fn give_up(&self) {
        let had = self.inner.word.said.with(|said| {
            let had = said.writable.take();
            said.withdrawn = had.or(said.withdrawn);
            had
        });
        // What an earlier agent left is given up as well.
        let found = !self.inner.word.known.swap(true, Ordering::Relaxed);
        let Some(holder) = self.inner.holder.as_ref().filter(|_| had.is_some() || found) else { return };
        let withdrawn = async {
            match &self.inner.speaker {
                Some(announcer) => announcer.speaker.gone(AT_MOST).await,
                None => true,
            }
        };
        let (withdrawn, gone) = tokio::join!(withdrawn, holder.gone(Some(Role::Primary), AT_MOST));
        if !withdrawn {
            tracing::error!(
                "failed to withdraw a route in time; the neighbour drops it after the hold time, before the lease ends"
            );
        }
        if !gone {
            tracing::error!(
                "failed to remove a virtual address in time; it goes with its lifetime, before the lease ends"
            );
        }
    }

    /// Gives up those of every role, at a clean end.
    pub(crate) async fn end(&self) {
        self.give_up().await;
        let (Some(holder), Some(claims)) = (&self.inner.holder, &self.inner.word.claims) else { return };
        claims.withdraw();
        if let Some(announcer) = &self.inner.speaker {
            announcer.speaker.end(AT_MOST).await;
        }
        if holder.gone(None, AT_MOST).await {
            claims.end().await;
        }
    }

    /// The addresses that commands move, as they are.
    pub(crate) fn moved(&self) -> Vec<HookState> {
        self.inner.holder.as_ref().map(Holder::moved).unwrap_or_default()
    }

    /// The lead is about to be handed over, or is not: BGP neighbours may look for another way before.
    pub(crate) fn parting(&self, parting: bool) {
        if let Some(announcer) = &self.inner.speaker {
            announcer.speaker.parting(parting);
        }
    }

    /// Warns, once for each `ttl`, when no lease of it proves that neighbours forget in time: the routes then come and go.
    pub(crate) fn check_hold(&self, rules: &Rules) {
        let Some(Announcer { hold, warned, .. }) = &self.inner.speaker else { return };
        let ttl = rules.ttl;
        let least = ttl.saturating_sub(Rules::margin(ttl)).saturating_sub(rules.renew_every());
        let longest = bgp::longest_hold(least);
        let fits = hold.as_secs() <= u64::from(longest);
        if warned.with(|warned| std::mem::replace(warned, (!fits).then_some(ttl))) == Some(ttl) || fits {
            return;
        }
        tracing::warn!(
            "vip.bgp.hold_time is {hold:?}, and a lease of ttl {ttl:?} proves {longest} s at most: addresses are announced by BGP only now and \
             then, or never; raise ttl (3 s, the least that BGP knows, want 10), or lower hold_time"
        );
    }

    /// Tells in etcd how it stands with BGP neighbours, for as long as this runs.
    pub(crate) async fn tell_neighbors(self, etcd: Etcd, me: NodeName) {
        let Some(announcer) = &self.inner.speaker else { return };
        let mut telling = Telling::of(&announcer.speaker, etcd, me);
        loop {
            telling.tell(self.inner.word.keeper.lease().id).await;
            telling.news().await;
        }
    }

    /// The BGP neighbours as they are.
    pub(crate) fn neighbors(&self) -> Vec<bgp::State> {
        self.inner.speaker.as_ref().map(|announcer| announcer.speaker.states()).unwrap_or_default()
    }

    /// The addresses as they are.
    pub(crate) fn held(&self) -> Vec<Held> {
        self.inner.holder.as_ref().map(Holder::held).unwrap_or_default()
    }

    fn poke(&self) {
        self.inner.poke();
    }
}

impl Inner {
    fn poke(&self) {
        if let Some(holder) = &self.holder {
            holder.poke();
        }
        if let Some(announcer) = &self.speaker {
            announcer.speaker.poke();
        }
    }
}

impl Announcer {
    fn start(
        settings: &settings::Bgp,
        addresses: &[VirtualAddress],
        holder: &Holder,
        word: &Arc<Word>,
    ) -> Result<Announcer, String> {
        let config = bgp::Config::of(settings, addresses)?;
        let hold = config.hold();
        let speaker =
            Speaker::start(config, word.clone(), holder.watch()).map_err(|error| error.to_string())?;
        Ok(Announcer { speaker, hold, warned: Cell::new(None) })
    }
}

/// Claims that come and go are news for the holder.
async fn pass_on(inner: Weak<Inner>) {
    while let Some(claims) = inner.upgrade().and_then(|inner| inner.word.claims.clone()) {
        claims.changed().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.poke();
    }
}

fn on_interface(address: &VirtualAddress, role: Role) -> Result<Option<Wanted>, vip::Unusable> {
    let put = |interface: &String| {
        let wanted = Wanted::new(address.ip, address.prefix_len, interface, role)?;
        Ok(Wanted { routed: address.routed, refresh: address.refresh, ..wanted })
    };
    address.interface.as_ref().map(put).transpose()
}

fn moved(address: &VirtualAddress, role: Role) -> Option<Hook> {
    let VirtualAddress { ip, command, timeout, .. } = address.clone();
    (!command.is_empty()).then_some(Hook { ip, role, command, timeout })
}
