//! Tests of the speaker as a whole, with neighbours that are sockets on this host and say what a test wants.

use crate::config::Config;
use crate::config::tests::{address, bgp, neighbor};
use crate::message::{Message, Reader, UPDATE, framed, keepalive, notification};
use crate::neighbor::{Phase, State};
use crate::open::Open;
use crate::refusal::Refusal;
use crate::speaker::Speaker;
use crate::update::Family;
use settings::{Bgp, BgpNeighbor};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use types::{Moment, Term};
use vip::{Held, Right, Rights, Role, Wanted, Why};

const SPAN: Duration = Duration::from_secs(10);
const VIP: &str = "192.0.2.7";

/// A right that the test gives and takes.
#[derive(Default)]
struct Given(Mutex<Option<Moment>>);

impl Given {
    fn set(&self, rest: Option<Duration>) {
        *self.0.lock().unwrap() = rest.map(|rest| clock::now().after(rest));
    }
}

impl Rights for Given {
    fn right(&self, _: Role, _: IpAddr) -> Option<Right> {
        self.0.lock().unwrap().map(|until| Right { term: Term(1), until })
    }

    fn here(&self, _: IpAddr, _: bool) {}
}

/// The speaker and what it rests on.
struct Site {
    speaker: Speaker,
    given: Arc<Given>,
    held: watch::Sender<Held>,
}

impl Site {
    fn start(settings: &Bgp) -> Site {
        let config = Config::of(settings, &[address(VIP, "primary")]).unwrap();
        let wanted = Wanted::new(VIP.parse().unwrap(), None, "lo", Role::Primary).unwrap();
        let held = Held {
            wanted,
            since: Some(clock::now()),
            why: Why::Holds,
            unusable: false,
            conflict: None,
            counts: vip::Counts::default(),
        };
        let (held, seen) = watch::channel(held);
        let given = Arc::new(Given::default());
        let speaker = Speaker::start(config, given.clone(), vec![seen]).unwrap();
        Site { speaker, given, held }
    }

    fn give(&self, rest: Duration) {
        self.given.set(Some(rest));
        self.speaker.poke();
    }

    async fn until(&self, so: impl FnMut(&State) -> bool) -> State {
        let mut state = self.speaker.watch().remove(0);
        tokio::time::timeout(SPAN, state.wait_for(so)).await.unwrap().unwrap().clone()
    }
}

/// The other end of a session.
struct Peer {
    stream: TcpStream,
    reader: Reader,
}

/// One message, and its bytes after the header.
type Said = (Message, Vec<u8>);

fn open(asn: u32, hold: u16, id: [u8; 4]) -> Vec<u8> {
    let families = BTreeSet::from([Family::V4]);
    Open { asn, hold, id: id.into(), families, four_octets: true }.bytes()
}

impl Peer {
    fn new(stream: TcpStream) -> Peer {
        Peer { stream, reader: Reader::default() }
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next message; `None` at the end.
    async fn hear(&mut self) -> Option<Said> {
        let next = async {
            let mut header = [0; 19];
            self.stream.read_exact(&mut header).await.ok()?;
            let mut body = vec![0; usize::from(u16::from_be_bytes([header[16], header[17]])) - 19];
            self.stream.read_exact(&mut body).await.ok()?;
            self.reader.feed(&header);
            self.reader.feed(&body);
            Some((self.reader.next().unwrap().unwrap(), body))
        };
        tokio::time::timeout(SPAN, next).await.unwrap()
    }

    /// The next one that is no keepalive; keepalives are answered.
    async fn news(&mut self) -> Option<Said> {
        loop {
            let said = self.hear().await?;
            if said.0 != Message::Keepalive {
                return Some(said);
            }
            // Whoever has gone hears it no more.
            let _ = self.stream.write_all(&keepalive()).await;
        }
    }

    /// Comes up.
    async fn meet(&mut self, own: &[u8]) {
        let (said, _) = self.hear().await.unwrap();
        assert!(matches!(&said, Message::Open(open) if open.asn == 65_001 && open.hold == 3), "{said:?}");
        self.say(own).await;
        assert_eq!(self.hear().await.unwrap().0, Message::Keepalive);
        self.say(&keepalive()).await;
    }
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn at(port: u16) -> Bgp {
    bgp(vec![BgpNeighbor { port, ..neighbor("127.0.0.1") }])
}

async fn accepted(listener: &TcpListener) -> Peer {
    let (stream, _) = tokio::time::timeout(SPAN, listener.accept()).await.unwrap().unwrap();
    Peer::new(stream)
}

const FINE: [u8; 4] = [10, 0, 0, 1];
const LONG: Duration = Duration::from_secs(60);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const WITHDRAWN: &str = "000520c00002070000";

#[tokio::test]
async fn a_neighbor_is_told_of_what_there_is_a_right_to_and_of_its_end() {
    let (listener, port) = listener().await;
    let site = Site::start(&at(port));
    let mut peer = accepted(&listener).await;
    peer.meet(&open(65_000, 240, FINE)).await;
    let state = site.until(|state| state.phase == Phase::Established).await;
    assert_eq!((state.hold, state.counts.established), (Some(Duration::from_secs(3)), 1), "ours is shorter");
    site.give(LONG);
    let (_, announced) = peer.news().await.unwrap();
    let announced = hex(&announced);
    assert!(announced.ends_with("20c0000207") && announced.contains("4003047f000001"), "{announced}");
    // About to go, and then not.
    site.speaker.parting(true);
    assert!(hex(&peer.news().await.unwrap().1).contains("c00804ffff0000"));
    site.speaker.parting(false);
    assert_eq!(hex(&peer.news().await.unwrap().1), announced);
    // Asked to say it once more.
    peer.say(&framed(5, &[0, 1, 0, 1])).await;
    assert_eq!(hex(&peer.news().await.unwrap().1), announced);
    // The right is given up: whoever does that waits for the word.
    site.given.set(None);
    assert!(site.speaker.gone(SPAN).await);
    assert_eq!(hex(&peer.news().await.unwrap().1), WITHDRAWN);
    // The address goes, and comes back.
    site.give(LONG);
    peer.news().await.unwrap();
    site.held.send_modify(|held| held.since = None);
    assert_eq!(hex(&peer.news().await.unwrap().1), WITHDRAWN);
    site.held.send_modify(|held| held.since = Some(clock::now()));
    assert_eq!(hex(&peer.news().await.unwrap().1), announced);
    let state = site.until(|state| state.counts.announced == 5).await;
    assert_eq!(state.announced, [VIP.parse::<IpAddr>().unwrap()]);
    // A clean end.
    site.speaker.end(SPAN).await;
    assert_eq!(hex(&peer.news().await.unwrap().1), WITHDRAWN);
    assert_eq!(peer.news().await.unwrap().0, Message::Notification(Refusal::SHUTDOWN));
    assert_eq!(peer.news().await, None);
}

#[tokio::test]
async fn a_right_that_is_not_renewed_is_not_prolonged_by_any_message() {
    let (listener, port) = listener().await;
    let site = Site::start(&at(port));
    let mut peer = accepted(&listener).await;
    peer.meet(&open(65_000, 3, FINE)).await;
    site.until(|state| state.phase == Phase::Established).await;
    let given = clock::now();
    site.give(Duration::from_secs(9));
    peer.news().await.unwrap();
    // It reaches 5.5 s: 3.5 s later the route goes, and the session stays.
    let (_, withdrawn) = peer.news().await.unwrap();
    let after = clock::now().since(given);
    assert_eq!(hex(&withdrawn), WITHDRAWN);
    assert!(after >= Duration::from_millis(3400) && after < Duration::from_millis(8900), "{after:?}");
    // What would end before the next message is not even begun.
    site.give(Duration::from_millis(6000));
    for _ in 0..2 {
        assert_eq!(peer.hear().await.unwrap().0, Message::Keepalive);
        peer.say(&keepalive()).await;
    }
}

#[tokio::test]
async fn who_talks_nonsense_hears_what_is_wrong_and_the_state_says_it() {
    let fine = open(65_000, 240, FINE);
    let update = |body: &[u8]| [fine.clone(), keepalive(), framed(UPDATE, body)].concat();
    let cases: [(Vec<u8>, (u8, u8), &str); 8] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), (1, 1), "not in step"),
        (framed(9, &[]), (1, 3), "unknown type"),
        (framed(UPDATE, &[0]), (1, 2), "bad length"),
        (open(65_009, 240, FINE), (2, 2), "its AS number is 65009, and 65000 is configured"),
        (open(65_000, 240, [10, 0, 0, 11]), (2, 3), "router id"),
        (open(65_000, 0, FINE), (2, 6), "hold time is not accepted"),
        (keepalive(), (5, 1), "does not fit the state"),
        (update(&[0, 9, 0, 0]), (3, 1), "bad UPDATE"),
    ];
    for (said, (code, subcode), shown) in cases {
        let (listener, port) = listener().await;
        let site = Site::start(&at(port));
        let mut peer = accepted(&listener).await;
        peer.say(&said).await;
        let told = loop {
            match peer.news().await.unwrap().0 {
                Message::Notification(refusal) => break refusal,
                Message::Open(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((told.code, told.subcode), (code, subcode), "{shown}");
        let failed = |state: &State| state.trouble.as_ref().is_some_and(|why| why.contains(shown));
        let state = site.until(failed).await;
        assert!(state.phase != Phase::Established && state.announced.is_empty(), "{state:?}");
    }
    // Its own words are shown as well, and the next session clears all of it.
    let (listener, port) = listener().await;
    let site = Site::start(&at(port));
    let mut peer = accepted(&listener).await;
    peer.say(&notification(&Refusal::with(6, 2, b"\x04tea!"))).await;
    let saying = |state: &State| state.trouble.as_ref().is_some_and(|why| why.contains("saying \"tea!\""));
    site.until(saying).await;
    let mut peer = accepted(&listener).await;
    peer.meet(&fine).await;
    let state = site.until(|state| state.phase == Phase::Established).await;
    assert_eq!((state.trouble, state.counts.failures), (None, 1));
}

#[tokio::test]
async fn a_neighbor_that_falls_silent_is_left() {
    let (listener, port) = listener().await;
    let site = Site::start(&at(port));
    let mut peer = accepted(&listener).await;
    peer.meet(&open(65_000, 3, FINE)).await;
    site.until(|state| state.phase == Phase::Established).await;
    let said = loop {
        match peer.hear().await.unwrap().0 {
            Message::Keepalive => {}
            said => break said,
        }
    };
    assert_eq!(said, Message::Notification(Refusal::HOLD_EXPIRED));
    let silent = |state: &State| state.trouble.as_ref().is_some_and(|why| why.contains("without a word"));
    site.until(silent).await;
}

#[tokio::test]
async fn a_passive_speaker_waits_and_strangers_are_turned_away() {
    let port = testbed::free_port();
    let mut settings = bgp(vec![BgpNeighbor { passive: true, ..neighbor("127.0.0.1") }]);
    settings.listen = vec![("127.0.0.1".to_owned(), port)];
    let site = Site::start(&settings);
    assert_eq!(site.until(|state| state.phase == Phase::Active).await.counts.failures, 0);
    site.give(LONG);
    let here = SocketAddr::new("127.0.0.1".parse().unwrap(), port);
    let from = |ip: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
        socket.connect(here)
    };
    let mut stranger = Peer::new(from("127.0.0.2").await.unwrap());
    assert_eq!(stranger.hear().await, None);
    let mut peer = Peer::new(from("127.0.0.1").await.unwrap());
    peer.meet(&open(65_000, 240, FINE)).await;
    assert!(hex(&peer.news().await.unwrap().1).ends_with("20c0000207"));
    // A second one beside a session that is up is closed, and the session stays.
    let mut second = Peer::new(from("127.0.0.1").await.unwrap());
    assert_eq!(second.hear().await, None);
    let state = site.until(|state| state.phase == Phase::Established).await;
    assert_eq!((state.counts.established, state.counts.failures), (1, 0));
}

/// Both connect at once. The identifier decides whose connection stays, on both sides alike.
#[tokio::test]
async fn of_two_connections_at_once_one_stays() {
    for (id, ours_stays) in [([10, 0, 0, 1], true), ([10, 0, 0, 99], false)] {
        let (theirs, their_port) = listener().await;
        let own_port = testbed::free_port();
        let mut settings = at(their_port);
        settings.listen = vec![("127.0.0.1".to_owned(), own_port)];
        let site = Site::start(&settings);
        let mut ours = accepted(&theirs).await;
        let mut second = Peer::new(TcpStream::connect(("127.0.0.1", own_port)).await.unwrap());
        for peer in [&mut ours, &mut second] {
            assert!(matches!(peer.hear().await.unwrap().0, Message::Open(_)));
        }
        // Both get as far as OpenConfirm before one of them is told to go.
        ours.say(&open(65_000, 240, id)).await;
        assert_eq!(ours.hear().await.unwrap().0, Message::Keepalive);
        second.say(&open(65_000, 240, id)).await;
        let (stays, goes) = if ours_stays { (&mut ours, &mut second) } else { (&mut second, &mut ours) };
        assert_eq!(goes.news().await.unwrap().0, Message::Notification(Refusal::COLLISION));
        assert_eq!(goes.news().await, None);
        stays.say(&keepalive()).await;
        let state = site.until(|state| state.phase == Phase::Established).await;
        assert_eq!((state.counts.established, state.counts.failures), (1, 0));
    }
}
