//! One neighbour: connected to, waited for, told what may be announced.
//!
//! ```text
//!   Idle ──pause over──► Connect ──► OpenSent ─► OpenConfirm ─► Established ──┐
//!    ▲  passive: Active ── it connects ──┘ (two at once: one goes)            │ look: withdraw, announce, keepalive
//!    └───────────────── any end, and why ─────────────────────────────────────┘
//! ```
//! What is said is decided and written in one step that waits for nothing: a right that was there is still there when it is used. What
//! cannot be written at once is not written later; the connection ends instead.

use crate::config::{Config, Neighbor};
use crate::fence::{self, Step, Told, Wanted};
use crate::message::{self, Message, Reader};
use crate::refusal::Refusal;
use crate::session::{End, Heard, Session, Stage, Terms, ours_stays};
use crate::socket::{self, Trouble};
use crate::speaker::Routes;
use crate::update::{self, Attributes, Family, NextHops};
use std::fmt;
use std::future::{Future, pending};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use types::Moment;

/// How it stands with a neighbour, for status and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub address: IpAddr,
    pub asn: u32,
    pub phase: Phase,
    /// Since when the session is up, or is not.
    pub since: Moment,
    /// As agreed, while the session is up.
    pub hold: Option<Duration>,
    /// What the neighbour has been told and has not been told to forget.
    pub announced: Vec<IpAddr>,
    /// Why the last session or attempt ended, until the next one is up.
    pub trouble: Option<String>,
    pub counts: Counts,
}

/// As RFC 4271 calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub established: u64,
    /// Sessions that ended and attempts that failed.
    pub failures: u64,
    pub announced: u64,
    pub withdrawn: u64,
}

/// Whose idea a connection was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Ours,
    Theirs,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Ours => Side::Theirs,
            Side::Theirs => Side::Ours,
        }
    }
}

/// A neighbour that does not answer is given up after this long.
const ANSWER: Duration = Duration::from_secs(5);
/// The first pause after a failure; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// Longer than a look takes on a host that is not in trouble.
const SUDDEN: Duration = Duration::from_millis(200);
/// Rights change without news when they end; this often is looked at the least.
const TICK: Duration = Duration::from_millis(250);

type Attempt = Pin<Box<dyn Future<Output = Result<TcpStream, Trouble>> + Send>>;

struct Connection {
    stream: TcpStream,
    reader: Reader,
    session: Session,
    told: Told,
    hops: NextHops,
    /// Families that were complained of.
    complained: Vec<Family>,
}

/// The conversation with one neighbour.
pub(crate) struct Speaking {
    neighbor: Neighbor,
    terms: Terms,
    attributes: Attributes,
    routes: Arc<Routes>,
    ours: Option<Connection>,
    theirs: Option<Connection>,
    attempt: Option<Attempt>,
    failures: u32,
    retry_at: Moment,
    /// The last complaint, so that it is made once.
    complained: Option<String>,
    state: State,
    shown: watch::Sender<State>,
}

impl Speaking {
    pub(crate) fn new(
        neighbor: Neighbor,
        config: &Config,
        routes: Arc<Routes>,
    ) -> (Speaking, watch::Receiver<State>) {
        let state = State {
            address: neighbor.address,
            asn: neighbor.asn,
            phase: Phase::Idle,
            since: clock::now(),
            hold: None,
            announced: Vec::new(),
            trouble: None,
            counts: Counts::default(),
        };
        let (shown, seen) = watch::channel(state.clone());
        let attributes = Attributes {
            own_as: config.asn,
            internal: neighbor.internal,
            four_octets: true,
            med: config.med,
            communities: config.communities.clone(),
        };
        let speaking = Speaking {
            terms: config.terms(&neighbor),
            neighbor,
            attributes,
            routes,
            ours: None,
            theirs: None,
            attempt: None,
            failures: 0,
            retry_at: state.since,
            complained: None,
            state,
            shown,
        };
        (speaking, seen)
    }

    /// Speaks until the end.
    pub(crate) async fn run(mut self, mut incoming: mpsc::Receiver<TcpStream>) {
        let routes = self.routes.clone();
        while !routes.end.is_cancelled() {
            // Registered before the look, so that a poke during the look is not missed.
            let poked = routes.poke.notified();
            tokio::pin!(poked);
            poked.as_mut().enable();
            self.look();
            self.connect();
            self.show();
            let rest = clock::now().until(self.next()).min(TICK);
            tokio::select! {
                () = poked => {}
                () = tokio::time::sleep(rest) => {}
                () = routes.end.cancelled() => {}
                connected = attempted(&mut self.attempt) => self.connected(connected),
                Some(stream) = incoming.recv() => self.came_in(stream),
                () = readable(self.ours.as_ref()) => self.read(Side::Ours),
                () = readable(self.theirs.as_ref()) => self.read(Side::Theirs),
            }
        }
        self.part();
    }

    fn slot(&mut self, side: Side) -> &mut Option<Connection> {
        match side {
            Side::Ours => &mut self.ours,
            Side::Theirs => &mut self.theirs,
        }
    }

    fn connections(&self) -> impl Iterator<Item = &Connection> {
        [&self.ours, &self.theirs].into_iter().flatten()
    }

    /// Begins to connect, when it is time.
    fn connect(&mut self) {
        let now = clock::now();
        let busy = self.attempt.is_some() || self.connections().next().is_some();
        if self.neighbor.passive || busy || now < self.retry_at {
            return;
        }
        let (neighbor, delivery) = (self.neighbor.clone(), self.delivery());
        self.attempt = Some(Box::pin(async move {
            let connecting = socket::connect(&neighbor, delivery);
            match tokio::time::timeout(ANSWER, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(Trouble::Connect(io::ErrorKind::TimedOut.into())),
            }
        }));
    }

    fn delivery(&self) -> Duration {
        fence::delivery(Duration::from_secs(self.terms.own.hold.into()))
    }

    fn connected(&mut self, connected: Result<TcpStream, Trouble>) {
        self.attempt = None;
        let neighbor = self.neighbor.address;
        match connected {
            Ok(stream) => self.begin(Side::Ours, stream),
            Err(Trouble::Unable(unable)) => {
                self.fail(&format!("connect to the BGP neighbour {neighbor}: {unable}"))
            }
            Err(Trouble::Connect(why)) => {
                let hint = match why.kind() {
                    io::ErrorKind::TimedOut => {
                        "; compare password (TCP-MD5) and ttl_security on both sides, and look at the firewall"
                    }
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
                        "; see whether BGP runs there, and knows this host as its neighbour"
                    }
                    _ => "",
                };
                self.fail(&format!("connect to the BGP neighbour {neighbor}: {why}{hint}"));
            }
        }
    }

    /// The neighbour has connected to us. One such connection at a time is enough.
    fn came_in(&mut self, stream: TcpStream) {
        if self.theirs.is_none() {
            self.begin(Side::Theirs, stream);
        }
    }

    /// Says who we are.
    fn begin(&mut self, side: Side, stream: TcpStream) {
        let local = match stream.local_addr() {
            Ok(local) => local.ip(),
            Err(error) => return self.fail(&format!("use a connection of the BGP neighbour: {error}")),
        };
        // Routes would lead to themselves, and the session would end with the address.
        if self.routes.wanted().iter().any(|wanted| wanted.ip == local.to_canonical()) {
            let neighbor = self.neighbor.address;
            return self.fail(&format!(
                "speak BGP with the neighbour {neighbor} from {local}: it is a virtual address; set local_address, or have it connect to this host's own"
            ));
        }
        let connection = Connection {
            stream,
            reader: Reader::default(),
            session: Session::new(clock::now()),
            told: Told::new(),
            hops: self.neighbor.hops_from(local),
            complained: Vec::new(),
        };
        *self.slot(side) = Some(connection);
        let open = self.terms.own.bytes();
        self.send(side, &open);
    }

    /// Writes it whole, at once; else the connection is of no use any more.
    fn send(&mut self, side: Side, bytes: &[u8]) {
        let Some(connection) = self.slot(side) else { return };
        let why = match connection.stream.try_write(bytes) {
            Ok(written) if written == bytes.len() => {
                connection.session.said(clock::now());
                return;
            }
            Ok(_) => "it takes nothing more".to_owned(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => "it takes nothing more".to_owned(),
            Err(error) => error.to_string(),
        };
        self.lose(side, &format!("send to the BGP neighbour {}: {why}", self.neighbor.address));
    }

    /// What came, up to a buffer full at a time, so that nobody keeps us from our keepalives by talking.
    fn read(&mut self, side: Side) {
        let mut buffer = [0; message::LONGEST];
        let Some(connection) = self.slot(side) else { return };
        let end = match connection.stream.try_read(&mut buffer) {
            Ok(0) => "it closed the connection".to_owned(),
            Ok(count) => {
                connection.reader.feed(buffer.get(..count).unwrap_or_default());
                return self.take_all(side);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => error.to_string(),
        };
        let neighbor = self.neighbor.address;
        self.lose(side, &format!("keep the connection of the BGP neighbour {neighbor}: {end}"));
    }

    fn take_all(&mut self, side: Side) {
        while let Some(connection) = self.slot(side) {
            match connection.reader.next() {
                Ok(Some(message)) => self.take(side, message),
                Ok(None) => return,
                Err(refusal) => self.finish(side, End::Ours(refusal)),
            }
        }
    }

    fn take(&mut self, side: Side, message: Message) {
        let terms = self.terms.clone();
        let Some(connection) = self.slot(side) else { return };
        match connection.session.hear(message, &terms, clock::now()) {
            Ok(Heard::Nothing) => {}
            Ok(Heard::Opened) => self.opened(side),
            Ok(Heard::Established) => self.established(side),
            Ok(Heard::Refresh(family)) => self.repeat(side, family),
            Err(end) => self.finish(side, end),
        }
    }

    /// It is who it should be. Of two connections that have come so far one goes.
    fn opened(&mut self, side: Side) {
        let (own, other) = match side {
            Side::Ours => (&self.ours, &self.theirs),
            Side::Theirs => (&self.theirs, &self.ours),
        };
        let other_side = side.other();
        let agreed = own.as_ref().and_then(|own| own.session.agreed());
        let stays = match (agreed, other.as_ref().map(|other| other.session.stage())) {
            (Some(_), None | Some(Stage::OpenSent)) => side,
            (Some(agreed), Some(Stage::OpenConfirm)) if ours_stays(&self.terms, agreed.peer_id) => Side::Ours,
            (Some(_), Some(Stage::OpenConfirm)) => Side::Theirs,
            (Some(_), Some(Stage::Established)) | (None, _) => other_side,
        };
        if stays != side {
            return self.drop_double(side);
        }
        if other.as_ref().is_some_and(|other| other.session.stage() != Stage::OpenSent) {
            self.drop_double(other_side);
        }
        // The hold time may be shorter than ours, and with it the time in which what we say counts.
        let agreed = self.slot(side).as_ref().and_then(|own| Some((own, own.session.agreed()?.hold)));
        let limited = agreed.map(|(own, hold)| socket::limit(&own.stream, fence::delivery(hold)));
        match limited {
            Some(Err(error)) => {
                self.lose(
                    side,
                    &format!("limit the delivery to the BGP neighbour {}: {error}", self.neighbor.address),
                );
            }
            Some(Ok(())) | None => self.send(side, &message::keepalive()),
        }
    }

    /// Closes a connection because another one stays; that is no trouble.
    fn drop_double(&mut self, side: Side) {
        self.send(side, &message::notification(&Refusal::COLLISION));
        *self.slot(side) = None;
    }

    fn established(&mut self, side: Side) {
        let other_side = side.other();
        if self.slot(other_side).is_some() {
            self.drop_double(other_side);
        }
        self.attempt = None;
        self.failures = 0;
        self.complained = None;
        self.state.trouble = None;
        self.state.since = clock::now();
        self.state.counts.established += 1;
        let agreed = self.slot(side).as_ref().and_then(|connection| connection.session.agreed().cloned());
        let Some(agreed) = agreed else { return };
        self.attributes.four_octets = agreed.four_octets;
        tracing::info!(
            neighbour = %self.neighbor.address,
            asn = self.neighbor.asn,
            hold_seconds = agreed.hold.as_secs(),
            "the BGP session is up"
        );
    }

    /// Everything of a family once more.
    fn repeat(&mut self, side: Side, family: Family) {
        // What must not be said any more is taken back first.
        self.look();
        let Some(connection) = self.slot(side) else { return };
        let (told, hops) = (connection.told.clone(), connection.hops);
        let again = told.iter().filter(|(ip, _)| Family::of_address(**ip) == family);
        let again = again.filter_map(|(ip, parting)| update::announce(*ip, hops, &self.attributes, *parting));
        let bytes: Vec<u8> = again.flatten().collect();
        if !bytes.is_empty() {
            self.send(side, &bytes);
        }
    }

    /// Says what there is to say. Whoever was held up on the way looks again: rights may have ended meanwhile.
    fn look(&mut self) {
        for _ in 0..3 {
            let now = clock::now();
            for side in [Side::Ours, Side::Theirs] {
                self.look_at(side, now);
            }
            if clock::now().since(now) <= SUDDEN {
                return;
            }
        }
    }

    fn look_at(&mut self, side: Side, now: Moment) {
        let Some(connection) = self.slot(side) else { return };
        if connection.session.silent_at() <= now {
            return self.finish(side, End::Ours(Refusal::HOLD_EXPIRED));
        }
        let keepalive = connection.session.keepalive_at().is_some_and(|due| due <= now);
        let mut bytes =
            if connection.session.stage() == Stage::Established { self.news(side, now) } else { Vec::new() };
        if keepalive {
            bytes.extend(message::keepalive());
        }
        if !bytes.is_empty() {
            self.send(side, &bytes);
        }
    }

    /// What a neighbour has to hear about addresses, as bytes; from here on it counts as told.
    fn news(&mut self, side: Side, now: Moment) -> Vec<u8> {
        let wanted = self.routes.wanted();
        let wanted = self.takes(side, wanted);
        let (attributes, neighbor) = (self.attributes.clone(), self.neighbor.address);
        let Some(connection) = self.slot(side) else { return Vec::new() };
        let Some(hold) = connection.session.agreed().map(|agreed| agreed.hold) else { return Vec::new() };
        let (mut bytes, mut announced, mut withdrawn) = (Vec::new(), 0, 0);
        for step in fence::steps(&wanted, &connection.told, hold, now) {
            match step {
                Step::Withdraw { ip, why } => {
                    bytes.extend(update::withdraw(ip));
                    connection.told.remove(&ip);
                    withdrawn += 1;
                    tracing::info!(address = %ip, neighbour = %neighbor, "withdrew the route: {why}");
                }
                Step::Announce { ip, parting } => {
                    let Some(message) = update::announce(ip, connection.hops, &attributes, parting) else {
                        continue;
                    };
                    bytes.extend(message);
                    connection.told.insert(ip, parting);
                    announced += 1;
                    let how = if parting { " as one that is about to go (graceful shutdown)" } else { "" };
                    tracing::info!(address = %ip, neighbour = %neighbor, "announced the route{how}");
                }
            }
        }
        self.state.counts.announced += announced;
        self.state.counts.withdrawn += withdrawn;
        bytes
    }

    /// Of what is wanted, what this neighbour takes.
    fn takes(&mut self, side: Side, wanted: Vec<Wanted>) -> Vec<Wanted> {
        let neighbor = self.neighbor.address;
        let own = self.terms.own.families.clone();
        let Some(connection) = self.slot(side) else { return Vec::new() };
        let Some(agreed) = connection.session.agreed() else { return Vec::new() };
        let mut takes = Vec::new();
        for wanted in wanted {
            let family = Family::of_address(wanted.ip);
            if agreed.families.contains(&family) {
                takes.push(wanted);
            } else if own.contains(&family) && !connection.complained.contains(&family) {
                connection.complained.push(family);
                tracing::warn!(
                    "failed to announce {} to the BGP neighbour {neighbor}: it does not take addresses of its kind; activate them there for this neighbour",
                    wanted.ip
                );
            }
        }
        takes
    }

    /// The next moment at which something is due without news.
    fn next(&self) -> Moment {
        let wanted = self.routes.wanted();
        let of = |connection: &Connection| {
            let session = &connection.session;
            let hold = session.agreed().map(|agreed| agreed.hold);
            let ends = hold.and_then(|hold| fence::next(&wanted, &connection.told, hold));
            [Some(session.silent_at()), session.keepalive_at(), ends].into_iter().flatten().min()
        };
        let dues = self.connections().filter_map(of).min();
        match dues {
            Some(due) => due,
            None if self.attempt.is_none() && !self.neighbor.passive => self.retry_at,
            None => clock::now().after(TICK),
        }
    }

    /// A connection ends for a reason that one side tells the other.
    fn finish(&mut self, side: Side, end: End) {
        let neighbor = self.neighbor.address;
        match end {
            End::Ours(refusal) => {
                self.send(side, &message::notification(&refusal));
                self.lose(
                    side,
                    &format!("speak BGP with the neighbour {neighbor}: {refusal}, as this side sees it"),
                );
            }
            End::OtherAs { says } => {
                self.send(side, &message::notification(&Refusal::BAD_PEER_AS));
                let expected = self.neighbor.asn;
                self.lose(
                    side,
                    &format!(
                        "speak BGP with the neighbour {neighbor}: it says that its AS number is {says}, and {expected} is configured; correct vip.bgp.neighbors, or that side"
                    ),
                );
            }
            // Two connections met, and it chose the other one.
            End::Theirs(refusal) if (refusal.code, refusal.subcode) == (6, 7) => *self.slot(side) = None,
            End::Theirs(refusal) => {
                self.lose(side, &format!("speak BGP with the neighbour {neighbor}: it answered: {refusal}"));
            }
        }
    }

    /// A connection is gone, for this reason, unless something was said of it before.
    fn lose(&mut self, side: Side, why: &str) {
        if self.slot(side).take().is_some() {
            self.fail(why);
        }
    }

    fn fail(&mut self, why: &str) {
        let was_up = self.state.phase == Phase::Established;
        if was_up {
            self.state.since = clock::now();
        }
        self.state.counts.failures += 1;
        self.state.trouble = Some(why.to_owned());
        if self.complained.as_deref() != Some(why) {
            tracing::warn!("failed to {why}");
            self.complained = Some(why.to_owned());
        }
        let pause = (PAUSE * 2_u32.saturating_pow(self.failures.min(8))).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = clock::now().after(pause);
    }

    fn show(&mut self) {
        let best = self.connections().max_by_key(|connection| connection.session.stage());
        let phase = match best.map(|connection| connection.session.stage()) {
            Some(Stage::Established) => Phase::Established,
            Some(Stage::OpenConfirm) => Phase::OpenConfirm,
            Some(Stage::OpenSent) => Phase::OpenSent,
            None if self.attempt.is_some() => Phase::Connect,
            None if self.neighbor.passive => Phase::Active,
            None => Phase::Idle,
        };
        let announced = best.map(|best| best.told.keys().copied().collect()).unwrap_or_default();
        let hold = best.filter(|_| phase == Phase::Established).and_then(|best| best.session.agreed());
        self.state.hold = hold.map(|agreed| agreed.hold);
        self.state.phase = phase;
        self.state.announced = announced;
        self.shown.send_if_modified(|shown| {
            let changed = *shown != self.state;
            if changed {
                shown.clone_from(&self.state);
            }
            changed
        });
    }

    /// Takes everything back, and leaves.
    fn part(&mut self) {
        for side in [Side::Ours, Side::Theirs] {
            let Some(connection) = self.slot(side) else { continue };
            let mut bytes: Vec<u8> = connection.told.keys().flat_map(|ip| update::withdraw(*ip)).collect();
            bytes.extend(message::notification(&Refusal::SHUTDOWN));
            self.send(side, &bytes);
            *self.slot(side) = None;
        }
        self.show();
    }
}

async fn attempted(attempt: &mut Option<Attempt>) -> Result<TcpStream, Trouble> {
    match attempt {
        Some(attempt) => attempt.await,
        None => pending().await,
    }
}

async fn readable(connection: Option<&Connection>) {
    match connection {
        // What is wrong with it is seen when it is read.
        Some(connection) => drop(connection.stream.readable().await),
        None => pending().await,
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Idle => "idle",
            Phase::Connect => "connecting",
            Phase::Active => "waiting for it",
            Phase::OpenSent => "open sent",
            Phase::OpenConfirm => "open confirmed",
            Phase::Established => "established",
        })
    }
}
