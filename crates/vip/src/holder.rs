//! Holds what it has the right to: one task for each address, whether we put it on an interface or a command moves it.
//!
//! ```text
//!   rights ─poke──┐                          ┌─► netlink: install, extend, remove
//!   netlink news ─┼─► look ─► hold::decide ──┤
//!   tick ─────────┘                          └─► announce (ARP, NA), state for whoever asks, log
//!   claims of others on the wire ─► conflict
//! ```
//! The task is asked for nothing: it looks at the rights, so that a right that is given up counts from the next look on, and whoever
//! gives it up waits until the address is gone.

use crate::address::{Role, Wanted};
use crate::announce::Plan;
use crate::frames;
use crate::hold::{Interface, Right, Seen, Step, Why, decide};
use crate::hook::{Hook, HookState, Mover};
use crate::links::{self, Link, Links};
use crate::packets::Wire;
use crate::subnet::{Misfit, misfit};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use types::Moment;

/// Who may hold what. Asked often, so it must answer from memory.
pub trait Rights: Send + Sync + 'static {
    /// The right to hold this address, which is of this role, now.
    fn right(&self, role: Role, ip: IpAddr) -> Option<Right>;

    /// The address came to this host, or is gone.
    fn here(&self, ip: IpAddr, here: bool);

    /// Whether the rights are known by now. Until then an address with a lifetime that is found here is left alone: an earlier run of this
    /// program gave it one that ends with its right.
    fn known(&self) -> bool {
        true
    }
}

/// One address, for status, metrics and the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub wanted: Wanted,
    /// Since when it is on this host, if it is.
    pub since: Option<Moment>,
    pub why: Why,
    /// With the right to it this host could not hold it: its interface is missing, or it does not belong there.
    pub unusable: bool,
    /// The last one that said on the wire that it has the address as well.
    pub conflict: Option<Conflict>,
    pub counts: Counts,
}

/// Somebody else has the address, it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub mac: frames::Mac,
    pub at: Moment,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub taken: u64,
    pub given_up: u64,
    /// Removed by somebody else, and installed again.
    pub repaired: u64,
    pub conflicts: u64,
    /// Given up because the interface went down or lost its carrier.
    pub carrier_losses: u64,
    pub announced: u64,
}

/// Rights change without news when they end; this often is looked at the least.
const TICK: Duration = Duration::from_millis(250);
/// Longer than a look takes on a host that is not in trouble.
const SUDDEN: Duration = Duration::from_millis(200);
/// A conflict is answered at most this often, so that two hosts that both insist do not flood the network.
const INSIST: Duration = Duration::from_secs(1);
/// A conflict is logged again after this long.
const REMIND: Duration = Duration::from_secs(60);

/// All addresses of this member.
pub struct Holder {
    poke: Arc<Notify>,
    states: Vec<watch::Receiver<Held>>,
    hooks: Vec<watch::Receiver<HookState>>,
    end: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Holder {
    /// Starts to hold.
    pub fn start(
        wanted: Vec<Wanted>,
        hooks: Vec<Hook>,
        rights: Arc<dyn Rights>,
    ) -> Result<Holder, links::Error> {
        let (poke, end) = (Arc::new(Notify::new()), CancellationToken::new());
        let (mut states, mut tasks) = (Vec::new(), Vec::new());
        let own: Arc<[IpAddr]> = wanted.iter().map(|wanted| wanted.ip).collect();
        for wanted in wanted {
            let held = Held {
                wanted,
                since: None,
                why: Why::NoRight,
                unusable: false,
                conflict: None,
                counts: Counts::default(),
            };
            let (state, seen) = watch::channel(held.clone());
            let keeper = Keeper {
                held,
                own: own.clone(),
                rights: rights.clone(),
                links: Links::open()?,
                wire: None,
                told: None,
                plan: None,
                reminded: None,
                complained: None,
                state,
            };
            states.push(seen);
            tasks.push(tokio::spawn(keeper.run(poke.clone(), end.clone())));
        }
        let mut moved = Vec::new();
        for hook in hooks {
            let (mover, seen) = Mover::new(hook, rights.clone());
            moved.push(seen);
            tasks.push(tokio::spawn(mover.work(poke.clone(), end.clone())));
        }
        Ok(Holder { poke, states, hooks: moved, end, tasks: Mutex::new(tasks) })
    }

    /// The rights have changed.
    pub fn poke(&self) {
        self.poke.notify_waiters();
    }

    /// The addresses as they are.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        self.states.iter().map(|state| state.borrow().clone()).collect()
    }

    /// The addresses, for whoever waits for changes.
    #[must_use]
    pub fn watch(&self) -> Vec<watch::Receiver<Held>> {
        self.states.clone()
    }

    /// The addresses that commands move, as they are.
    #[must_use]
    pub fn moved(&self) -> Vec<HookState> {
        self.hooks.iter().map(|state| state.borrow().clone()).collect()
    }

    /// Waits until no address of this role (of any) is on an interface of this host; false when one still is after `within`. Commands are
    /// not waited for: what they call takes longer than anything that saves data may wait.
    pub async fn gone(&self, role: Option<Role>, within: Duration) -> bool {
        self.poke();
        let meant = |held: &Held| role.is_none_or(|role| held.wanted.role == role);
        let gone = async {
            for state in self.states.iter().filter(|state| meant(&state.borrow())) {
                let _ = state.clone().wait_for(|held| held.since.is_none()).await;
            }
        };
        tokio::time::timeout(within, gone).await.is_ok()
    }

    /// Removes all addresses and ends. Those that cannot be removed go with their lifetime.
    pub async fn end(&self) {
        self.end.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            let _ = task.await;
        }
    }
}

/// Without [`Holder::end`] the addresses are left to their lifetimes, for a successor that comes at once.
impl Drop for Holder {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Whether a look is enough for now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Enough,
    Again,
}

/// The lifetime that the kernel was told last.
#[derive(Clone, Copy)]
struct Told {
    end: Moment,
    /// How long the host had been suspended by then.
    suspended: Duration,
}

impl Told {
    /// When the kernel removes the address: it does not count the time in which the host is suspended.
    fn until(self) -> Moment {
        self.end.after(clock::suspended().saturating_sub(self.suspended))
    }
}

struct Keeper {
    held: Held,
    /// All virtual addresses of this member.
    own: Arc<[IpAddr]>,
    rights: Arc<dyn Rights>,
    links: Links,
    /// Open while the address is held.
    wire: Option<Wire>,
    told: Option<Told>,
    plan: Option<Plan>,
    reminded: Option<Moment>,
    /// The last complaint, so that it is made once.
    complained: Option<String>,
    state: watch::Sender<Held>,
}

impl Keeper {
    async fn run(mut self, poke: Arc<Notify>, end: CancellationToken) {
        let mut heard = None;
        while !end.is_cancelled() {
            // Registered before the look, so that a poke during the look is not missed.
            let poked = poke.notified();
            tokio::pin!(poked);
            poked.as_mut().enable();
            if self.look().await == Look::Again {
                continue;
            }
            // Whoever was frozen hears of its successor before it knows that it has one.
            if let Some(claim) = heard.take() {
                self.hear(claim);
            }
            self.announce();
            let rest = self.plan.map_or(TICK, |plan| clock::now().until(plan.next()).min(TICK));
            tokio::select! {
                () = poked => {}
                () = self.links.changed() => {}
                () = tokio::time::sleep(rest) => {}
                () = end.cancelled() => {}
                claim = next_claim(self.wire.as_ref()) => heard = Some(claim),
            }
        }
        if let Some(link) = self.links.link(&self.held.wanted.interface).await {
            self.remove(link, Why::NoRight).await;
        }
    }

    async fn look(&mut self) -> Look {
        let link = self.links.link(&self.held.wanted.interface).await;
        let there = match link {
            Some(link) => self.links.addresses(link).await,
            None => Vec::new(),
        };
        let present = there.iter().any(|there| there.ip == self.held.wanted.ip);
        let misfit = link.and_then(|link| misfit(&self.held.wanted, link.neighbours, &there, &self.own));
        let interface = match link {
            None => Interface::Missing,
            Some(Link { up: false, .. }) => Interface::Down,
            Some(Link { up: true, .. }) => Interface::Up,
        };
        let inherited = there.iter().any(|there| there.ip == self.held.wanted.ip && !there.forever);
        if inherited && self.told.is_none() && !self.rights.known() {
            self.inherit();
            return Look::Enough;
        }
        let fits = misfit.is_none();
        let seen = Seen { present, until: self.told.map(Told::until), interface, fits };
        let right = self.rights.right(self.held.wanted.role, self.held.wanted.ip);
        self.held.unusable = self.told.is_none() && (link.is_none() || !fits);
        // Told before it matters: whoever waits for a failover would find out when it has come.
        if self.told.is_none() {
            self.complain_of_place(link, misfit.as_ref(), right.is_some());
        }
        let now = clock::now();
        match (decide(right, seen, now), link) {
            (Step::Install { seconds, why, .. }, Some(link)) => {
                self.install(link, seconds, why, now).await;
                // Frozen on the way to the kernel, we gave the address a lifetime that began too late: look at once whether the right
                // to it is still there.
                if clock::now().since(now) > SUDDEN {
                    return Look::Again;
                }
            }
            (Step::Remove { why }, Some(link)) => self.remove(link, why).await,
            (Step::Install { why, .. } | Step::Remove { why }, None) => self.away(why),
            (Step::Rest { why, .. }, _) if present => self.say(why),
            (Step::Rest { why, .. }, _) => self.away(why),
        }
        if let Some(link) = link
            && self.held.since.is_some()
            && self.wire.as_ref().is_none_or(|wire| wire.link() != link)
        {
            self.open_wire(link);
        }
        Look::Enough
    }

    /// An earlier run of this program left it. It counts as held: whoever gives it up waits for it.
    fn inherit(&mut self) {
        if self.held.since.is_none() {
            let address = self.held.wanted.to_string();
            tracing::info!(
                address,
                "found the address here; it stays for its lifetime until the right to it is known"
            );
            self.held.since = Some(clock::now());
            self.rights.here(self.held.wanted.ip, true);
            self.say(Why::Holds);
        }
    }

    async fn install(&mut self, link: Link, seconds: u32, why: Why, now: Moment) {
        // Read before the kernel begins to count, so that a sleep in between counts as one.
        let suspended = clock::suspended();
        if let Err(error) = self.links.install(link, &self.held.wanted, seconds).await {
            self.complain(&error);
            return;
        }
        self.complained = None;
        self.told = Some(Told { end: now.after(Duration::from_secs(u64::from(seconds))), suspended });
        if self.held.since.is_none() {
            let address = self.held.wanted.to_string();
            tracing::info!(address, seconds, "took the address: {why}");
            self.held.since = Some(clock::now());
            self.held.counts.taken += 1;
            self.rights.here(self.held.wanted.ip, true);
        } else if why == Why::WasRemoved {
            tracing::warn!(
                address = self.held.wanted.to_string(),
                "the address had been removed by somebody, and was installed again"
            );
            self.held.counts.repaired += 1;
            self.plan = Some(Plan::from(clock::now(), self.held.wanted.refresh));
        }
        self.say(Why::Holds);
    }

    async fn remove(&mut self, link: Link, why: Why) {
        match self.links.remove(link, &self.held.wanted).await {
            Ok(()) => self.away(why),
            Err(error) => self.complain(&error),
        }
    }

    /// The address is not on this host.
    fn away(&mut self, why: Why) {
        if let Some(since) = self.held.since.take() {
            let held_seconds = clock::now().since(since).as_secs();
            let address = self.held.wanted.to_string();
            if why == Why::InterfaceDown {
                tracing::error!(
                    address,
                    held_seconds,
                    "gave the address up: {why}; look at the cable, the switch and `ip link`"
                );
                self.held.counts.carrier_losses += 1;
            } else {
                tracing::info!(address, held_seconds, "gave the address up: {why}");
            }
            self.held.counts.given_up += 1;
            self.rights.here(self.held.wanted.ip, false);
        }
        self.told = None;
        self.wire = None;
        self.plan = None;
        self.say(why);
    }

    fn say(&mut self, why: Why) {
        self.held.why = why;
        self.state.send_if_modified(|state| {
            let changed = *state != self.held;
            if changed {
                state.clone_from(&self.held);
            }
            changed
        });
    }

    fn complain_of_place(&mut self, link: Option<Link>, misfit: Option<&Misfit>, wanted_now: bool) {
        let wanted = self.held.wanted.clone();
        match (link, misfit) {
            (None, _) => self.complain(&format!(
                "hold {wanted}: {}; create it, or correct the name in vip.addresses",
                Why::NoInterface
            )),
            // While a host starts, its interfaces have no addresses for a moment.
            (Some(_), Some(Misfit::Outside { networks })) if networks.is_empty() && !wanted_now => {}
            (Some(_), Some(misfit)) => self.complain(&format!(
                "hold {wanted}: {misfit}; correct vip.addresses, or add \"routed: true\" if routers know the way to it"
            )),
            (Some(_), None) => {}
        }
    }

    fn complain(&mut self, error: &dyn std::fmt::Display) {
        let text = error.to_string();
        if self.complained.as_ref() != Some(&text) {
            tracing::error!("failed to {text}");
            self.complained = Some(text);
        }
    }

    fn open_wire(&mut self, link: Link) {
        if link.mac.is_none() {
            return;
        }
        match Wire::open(link) {
            Ok(wire) => {
                self.wire = Some(wire);
                self.plan = Some(Plan::from(clock::now(), self.held.wanted.refresh));
            }
            Err(error) => self.complain(&format!(
                "open a packet socket to announce {}: {error}; the process needs CAP_NET_RAW, and until it has it neighbours find the \
                 address only when their caches run out",
                self.held.wanted
            )),
        }
    }

    fn announce(&mut self) {
        let (Some(wire), Some(plan)) = (&self.wire, &mut self.plan) else { return };
        let now = clock::now();
        if plan.next() > now {
            return;
        }
        plan.done(now);
        let Some(mac) = wire.link().mac else { return };
        for frame in frames::announcement(self.held.wanted.ip, mac) {
            if let Err(error) = wire.send(&frame) {
                tracing::debug!(address = self.held.wanted.to_string(), %error, "failed to announce the address");
                return;
            }
        }
        self.held.counts.announced += 1;
    }

    fn hear(&mut self, claim: std::io::Result<frames::Claim>) {
        let claim = match claim {
            Ok(claim) => claim,
            Err(error) => {
                tracing::debug!(%error, "failed to listen on the wire");
                self.wire = None;
                return;
            }
        };
        let own = self.wire.as_ref().and_then(|wire| wire.link().mac);
        if self.held.since.is_none() || claim.ip != self.held.wanted.ip || Some(claim.mac) == own {
            return;
        }
        let now = clock::now();
        let before = self.held.conflict.replace(Conflict { mac: claim.mac, at: now });
        self.held.counts.conflicts += 1;
        // Ours by right: say so at once, that those who heard the other one come back.
        if before.is_none_or(|before| now.since(before.at) > INSIST) {
            self.plan = Some(Plan::from(now, self.held.wanted.refresh));
        }
        if self.reminded.is_none_or(|before| now.since(before) > REMIND) {
            self.reminded = Some(now);
            tracing::error!(
                address = self.held.wanted.to_string(),
                "another host with the link address {} says that it has this address too; find it and take the address from it",
                colons(claim.mac)
            );
        }
    }
}

async fn next_claim(wire: Option<&Wire>) -> std::io::Result<frames::Claim> {
    match wire {
        Some(wire) => wire.claim().await,
        None => std::future::pending().await,
    }
}

/// As people write it.
#[must_use]
pub fn colons(mac: frames::Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
