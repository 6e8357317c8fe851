//! Sessions that go to the thread and come back, seen from their far ends.

use super::ring::BUFFER;
use super::ring::tests::is_io_uring_here;
use super::{Back, Carrier, Load, Order, SEATS, lacking};
use crate::config::{Role, Service as Settings};
use crate::conversation::Conversation;
use crate::cut_reason::CutReason;
use crate::leash::{Leash, Rein, Trust};
use crate::shared::Service;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(60);

/// A session on its way to the carrier, seen from the far ends.
struct Trip {
    client: TcpStream,
    server: TcpStream,
    leash: Leash,
    back: JoinHandle<Option<Back>>,
}

async fn connection() -> (std::net::TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (near.into_std().unwrap(), far)
}

/// Begins to carry; `prepare` sees the far ends and the leash before.
async fn begin(carrier: &Arc<Carrier>, prepare: impl AsyncFnOnce(&mut TcpStream, &Leash)) -> Trip {
    begin_with(carrier, Leash::new(Arc::new(Notify::new()), None), None, prepare).await
}

async fn begin_with(
    carrier: &Arc<Carrier>,
    leash: Leash,
    talk: Option<Conversation>,
    prepare: impl AsyncFnOnce(&mut TcpStream, &Leash),
) -> Trip {
    let (client, mut of_client) = connection().await;
    let (server, of_server) = connection().await;
    prepare(&mut of_client, &leash).await;
    let settings = Settings::new("primary", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Role::Primary);
    let service = Service::new(settings, None);
    let load = Load { client, server, talk, to_write: true, leash: leash.clone(), service };
    let carrier = carrier.clone();
    let back = tokio::spawn(async move { carrier.seat()?.carry(load).await });
    Trip { client: of_client, server: of_server, leash, back }
}

impl Trip {
    /// A question and its answer: from then on it is carried.
    async fn talk(&mut self) {
        let mut heard = [0; 4];
        self.client.write_all(b"ping").await.unwrap();
        self.server.read_exact(&mut heard).await.unwrap();
        self.server.write_all(b"pong").await.unwrap();
        self.client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"pong");
    }

    async fn back(self) -> (Option<Back>, TcpStream, TcpStream) {
        let back = tokio::time::timeout(SOON, self.back).await.expect("it comes back in time");
        (back.unwrap(), self.client, self.server)
    }
}

/// A carrier; on a host without io_uring there is none, and the error says what the host lacks.
fn started() -> Option<Arc<Carrier>> {
    let started = Carrier::start(64);
    assert_eq!(started.is_ok(), is_io_uring_here(), "{:?}", started.as_ref().map_err(lacking).err());
    started.ok().map(Arc::new)
}

async fn closed(carrier: &Carrier) {
    let shut = async {
        while carrier.seat().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, shut).await.expect("it takes no more");
}

/// All that the near end of a connection has, once its far end has ended.
async fn rest_of(near: std::net::TcpStream, mut far: TcpStream) -> Vec<u8> {
    far.shutdown().await.unwrap();
    let (mut near, mut rest) = (TcpStream::from_std(near).unwrap(), Vec::new());
    near.read_to_end(&mut rest).await.unwrap();
    rest
}

#[tokio::test]
async fn an_error_of_the_ring_loses_nobody() {
    let Some(carrier) = started() else { return };
    let mut trips = Vec::new();
    for _ in 0..20 {
        let mut trip = begin(&carrier, async |_, _| {}).await;
        trip.talk().await;
        trips.push(trip);
    }
    assert_eq!(carrier.carried(), 20);
    carrier.inbox.order(Order::Do(|| Err(io::Error::other("this is a test"))));
    for trip in trips {
        let (back, mut client, mut server) = trip.back().await;
        let back = back.expect("it is given back");
        assert!(!back.broken && back.up.is_empty() && back.down.is_empty());
        // Both connections are as they were.
        client.write_all(b"up").await.unwrap();
        server.write_all(b"down").await.unwrap();
        assert_eq!(rest_of(back.client, client).await, b"up");
        assert_eq!(rest_of(back.server, server).await, b"down");
    }
    closed(&carrier).await;
    assert!(carrier.end(SOON).await);
    assert_eq!(carrier.carried(), 0);
}

#[tokio::test]
async fn a_panic_ends_those_that_were_carried_and_no_others() {
    let Some(carrier) = started() else { return };
    let mut trip = begin(&carrier, async |_, _| {}).await;
    trip.talk().await;
    let seat = carrier.seat().unwrap();
    carrier.inbox.order(Order::Do(|| panic!("this is a test")));
    let (back, mut client, mut server) = trip.back().await;
    assert!(back.is_none());
    assert_eq!((client.read(&mut [0; 1]).await.unwrap(), server.read(&mut [0; 1]).await.unwrap()), (0, 0));
    closed(&carrier).await;
    // One that had its place and comes late goes back as it came.
    let (near, far) = connection().await;
    let (server, _far) = connection().await;
    let settings = Settings::new("primary", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Role::Primary);
    let leash = Leash::new(Arc::new(Notify::new()), None);
    let service = Service::new(settings, None);
    let load = Load { client: near, server, talk: None, to_write: true, leash, service };
    let back = tokio::time::timeout(SOON, seat.carry(load)).await.unwrap().expect("it is given back");
    assert_eq!(rest_of(back.client, far).await, b"");
    assert!(carrier.end(SOON).await);
    assert_eq!(carrier.carried(), 0);
}

#[tokio::test]
async fn told_to_end_it_gives_back_what_it_carries_and_ends() {
    let Some(carrier) = started() else { return };
    let mut trip = begin(&carrier, async |_, _| {}).await;
    trip.talk().await;
    assert!(carrier.end(SOON).await);
    let (back, client, server) = trip.back().await;
    let back = back.expect("it is given back");
    assert_eq!(rest_of(back.client, client).await, b"");
    assert_eq!(rest_of(back.server, server).await, b"");
    assert!(carrier.seat().is_none() && carrier.end(SOON).await);
}

/// Whenever a leash is pulled, what the client says from then on does not reach the server; one that is held loses nothing.
#[tokio::test]
async fn nothing_is_written_to_the_server_once_the_leash_is_pulled() {
    let Some(carrier) = started() else { return };
    for round in 0..200 {
        let early = round % 2 == 0;
        let mut trip = begin(&carrier, async |client, leash| {
            if early {
                leash.pull(Rein::Held);
                client.write_all(b"late").await.unwrap();
            }
        })
        .await;
        if !early {
            trip.talk().await;
            if round % 4 == 1 {
                trip.leash.pull(Rein::Held)
            } else {
                assert!(trip.leash.cut(CutReason::Stopping))
            }
            trip.client.write_all(b"late").await.unwrap();
        }
        let (back, client, server) = trip.back().await;
        let back = back.expect("it is given back");
        let said = [back.up, rest_of(back.client, client).await].concat();
        // Of one that is cut nobody wants it any more.
        assert!(said == b"late" || (round % 4 == 3 && said.is_empty()), "{said:?}");
        assert!(back.down.is_empty());
        drop(back.server);
        let (mut server, mut heard) = (server, Vec::new());
        server.read_to_end(&mut heard).await.unwrap();
        assert!(heard.is_empty(), "{heard:?}");
    }
}

#[tokio::test]
async fn who_takes_no_more_is_the_relays_and_no_byte_is_lost() {
    let Some(carrier) = started() else { return };
    let said: Vec<u8> = (0..12_000_000_u32).map(|number| (number ^ (number >> 8)) as u8).collect();
    let trip = begin(&carrier, async |_, _| {}).await;
    let Trip { client, server, leash: _leash, back } = trip;
    let (of_client, mut writer) = client.into_split();
    let all = said.clone();
    let writing = tokio::spawn(async move {
        // It waits for the server to read, and so does the end of the test.
        writer.write_all(&all).await.unwrap();
    });
    let back = tokio::time::timeout(SOON, back).await.unwrap().unwrap().expect("it is given back");
    assert!(!back.broken && back.up.len() <= BUFFER && back.down.is_empty());
    let mut near = TcpStream::from_std(back.client).unwrap();
    let mut rest = vec![0; 1 << 20];
    drop(back.server);
    let (mut server, mut arrived) = (server, Vec::new());
    server.read_to_end(&mut arrived).await.unwrap();
    arrived.extend(&back.up);
    while arrived.len() < said.len() {
        let count = near.read(&mut rest).await.unwrap();
        arrived.extend(&rest[..count]);
    }
    writing.await.unwrap();
    assert!(arrived == said);
    drop(of_client);
}

#[tokio::test]
async fn ends_of_a_side_are_left_to_the_relay() {
    let Some(carrier) = started() else { return };
    for of_server in [false, true] {
        let mut trip = begin(&carrier, async |_, _| {}).await;
        trip.talk().await;
        let ends = if of_server { &mut trip.server } else { &mut trip.client };
        ends.write_all(b"the last").await.unwrap();
        ends.shutdown().await.unwrap();
        let hears = if of_server { &mut trip.client } else { &mut trip.server };
        let mut heard = [0; 8];
        hears.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"the last");
        let (back, client, server) = trip.back().await;
        let back = back.expect("it is given back");
        assert!(!back.broken && back.up.is_empty() && back.down.is_empty());
        assert_eq!(rest_of(back.client, client).await, b"");
        assert_eq!(rest_of(back.server, server).await, b"");
    }
}

#[tokio::test]
async fn there_are_so_many_seats_and_no_more() {
    let Some(carrier) = started() else { return };
    let mut seats: Vec<_> = (0..SEATS).map(|_| carrier.seat().unwrap()).collect();
    assert!(carrier.seat().is_none());
    seats.pop();
    assert!(carrier.seat().is_some());
}

/// What holds up the thread, as long as the test wants.
static HELD_UP: AtomicBool = AtomicBool::new(true);

#[tokio::test]
async fn a_thread_that_hangs_gets_no_more_sessions_until_it_answers() {
    let Some(carrier) = started() else { return };
    let look = Duration::from_millis(20);
    let becomes = async |up: bool| {
        let changed = async {
            while carrier.seat().is_some() != up {
                tokio::time::sleep(look).await;
            }
        };
        tokio::time::timeout(SOON, changed).await.expect("it is noticed");
    };
    let mut trip = begin(&carrier, async |_, _| {}).await;
    trip.talk().await;
    let watching = tokio::spawn(carrier.watch(look));
    carrier.inbox.order(Order::Do(|| {
        while HELD_UP.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        Ok(())
    }));
    becomes(false).await;
    HELD_UP.store(false, Ordering::Release);
    becomes(true).await;
    // What it carried goes on.
    trip.talk().await;
    assert!(carrier.end(SOON).await);
    tokio::time::timeout(SOON, watching).await.expect("nobody is looked after").unwrap();
}

/// Nobody needs to be there to pull the leash of a session in a pooler: what begins after the time is kept back, and one that cannot be read is
/// given back as if it had said nothing.
#[tokio::test]
async fn nothing_begins_through_a_pooler_once_the_time_is_up() {
    let Some(carrier) = started() else { return };
    let far = clock::now().after(Duration::from_secs(600));
    for is_read in [true, false] {
        let trust = Arc::new(Trust::default());
        trust.lasts(far, clock::now());
        let leash = Leash::new(Arc::new(Notify::new()), Some(trust.clone()));
        let mut talk = Conversation::new();
        // AuthenticationOk, ReadyForQuery.
        talk.server_says(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
        assert!(talk.is_idle());
        let mut trip = begin_with(&carrier, leash, is_read.then_some(talk), async |_, _| {}).await;
        let (asked, answer) = (b"Q\0\0\0\x06;\0", b"I\0\0\0\x04Z\0\0\0\x05I");
        trip.client.write_all(asked).await.unwrap();
        trip.server.read_exact(&mut [0; 7]).await.unwrap();
        trip.server.write_all(answer).await.unwrap();
        trip.client.read_exact(&mut [0; 11]).await.unwrap();
        trust.lasts(clock::now(), clock::now());
        trip.client.write_all(asked).await.unwrap();
        let (back, client, mut server) = trip.back().await;
        let back = back.expect("it is given back");
        assert_eq!((back.withheld, back.up.as_slice()), (is_read, if is_read { &asked[..] } else { b"" }));
        assert_eq!(rest_of(back.client, client).await, b"");
        drop(back.server);
        let mut reached = Vec::new();
        server.read_to_end(&mut reached).await.unwrap();
        assert_eq!(reached, b"", "nothing has reached the pooler");
    }
}
