//! The ring against real sockets: what the kernel does with linked sends, and that nothing outlives what it uses.

use super::{Done, Ring, Way};
use io_uring::IoUring;
use rustix::event::{EventfdFlags, eventfd};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

/// Both ends of a connection.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Whether the kernel gives this process what a ring needs, asked without this one.
pub(in crate::carrier) fn is_io_uring_here() -> bool {
    let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8);
    ring.and_then(|ring: IoUring| ring.submit()).is_ok()
}

/// A ring; on a host that gives none, opening it is refused, and there is nothing else to see.
fn ring() -> Option<Ring> {
    let opened = Ring::open(Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap()));
    assert_eq!(opened.is_ok(), is_io_uring_here());
    opened.ok()
}

/// A ring with one pair, and the far ends of client and server.
fn one_pair() -> Option<(Ring, usize, TcpStream, TcpStream)> {
    let (client, of_client) = connection();
    let (server, of_server) = connection();
    let mut ring = ring()?;
    let place = ring.join(client, server);
    Some((ring, place, of_client, of_server))
}

/// What comes next, but for the ticks.
fn next(ring: &mut Ring) -> Done {
    loop {
        match ring.next().unwrap() {
            Some(Done::Ticked) => {}
            Some(done) => return done,
            None => ring.wait().unwrap(),
        }
    }
}

/// Until nothing is in flight: how many completions of operations on pairs came, as the kernel counts them.
fn completions_until_still(ring: &mut Ring) -> usize {
    let mut count = 0;
    for _ in 0..100 {
        ring.end_all();
        let entries: Vec<_> = ring.uring.completion().collect();
        for entry in entries {
            match entry.user_data() {
                super::CANCELLED => {}
                super::WOKEN => ring.hears = false,
                super::TICKED => ring.winds = false,
                name => {
                    count += 1;
                    ring.landed(name, entry.result());
                }
            }
        }
        if ring.is_still() {
            return count;
        }
    }
    panic!("something stays in flight");
}

#[test]
fn what_is_read_is_written_on_by_one_operation_with_one_completion() {
    let Some((mut ring, place, mut of_client, mut of_server)) = one_pair() else { return };
    ring.receive(place, Way::Up).unwrap();
    let mut answer = [0; 5];
    for _ in 0..3 {
        of_client.write_all(b"hello").unwrap();
        assert_eq!(next(&mut ring), Done::Read { place, way: Way::Up, count: 5 });
        assert_eq!(ring.bytes(place, Way::Up, 0..5), b"hello");
        ring.forward(place, Way::Up, 5).unwrap();
        assert_eq!(ring.bytes(place, Way::Up, 0..5), b"", "it is the kernel's now");
        // Handed in by the next wait.
        ring.uring.submit().unwrap();
        of_server.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
    }
    assert!(ring.part(place).is_none() && ring.is_flying(place));
    assert_eq!(completions_until_still(&mut ring), 1, "the receive; nothing for the send before it");
    assert!(ring.part(place).is_some());
}

/// Until a side takes no more; what there is for it is more than all buffers on the way hold, or nothing as it is gone.
#[test]
fn a_send_that_fails_posts_one_completion_and_nothing_is_received() {
    let said: Arc<Vec<u8>> =
        Arc::new((0..16_000_000_u32).map(|number| (number ^ (number >> 8)) as u8).collect());
    for gone in [false, true] {
        let Some((mut ring, place, mut of_client, mut of_server)) = one_pair() else { return };
        if gone {
            ring.pairs[place].as_ref().unwrap().server.shutdown(Shutdown::Write).unwrap();
        }
        let says = said.clone();
        let client = std::thread::spawn(move || of_client.write_all(&says));
        ring.receive(place, Way::Up).unwrap();
        let rest = loop {
            match next(&mut ring) {
                Done::Read { count, .. } => ring.forward(place, Way::Up, count).unwrap(),
                Done::Unsent { way: Way::Up, rest, .. } => break rest,
                other => panic!("{other:?}"),
            }
        };
        assert!(!ring.is_flying(place) && !rest.is_empty());
        assert_eq!(completions_until_still(&mut ring), 0, "nothing follows it");
        // What was sent has arrived; what was not is here; what was not read is in the socket.
        let here = ring.bytes(place, Way::Up, rest).to_vec();
        let (mut of_client, server) = ring.part(place).unwrap();
        drop(server);
        let mut all = Vec::new();
        of_server.read_to_end(&mut all).unwrap();
        assert_eq!(all.is_empty(), gone);
        all.extend(here);
        let mut unread = vec![0; said.len() - all.len()];
        of_client.read_exact(&mut unread).unwrap();
        all.extend(unread);
        assert!(all == *said);
        client.join().unwrap().unwrap();
    }
}

#[test]
fn what_is_cancelled_has_read_nothing() {
    let Some((mut ring, place, mut of_client, _of_server)) = one_pair() else { return };
    ring.receive(place, Way::Up).unwrap();
    ring.receive(place, Way::Down).unwrap();
    ring.cancel(place).unwrap();
    assert_eq!([next(&mut ring), next(&mut ring)], [Done::Nothing { place }, Done::Nothing { place }]);
    let (mut client, _server) = ring.part(place).unwrap();
    of_client.write_all(b"later").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"later");
    // The place is given again, and the ring still hears.
    let (client, _of_client) = connection();
    let (server, _of_server) = connection();
    assert_eq!(ring.join(client, server), place);
    rustix::io::write(&*ring.wake, &1_u64.to_ne_bytes()).unwrap();
    assert_eq!(next(&mut ring), Done::Woken);
}

#[test]
fn ends_and_breaks_are_told_apart() {
    let Some((mut ring, place, of_client, of_server)) = one_pair() else { return };
    ring.receive(place, Way::Up).unwrap();
    of_client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(next(&mut ring), Done::Ended { place });
    ring.receive(place, Way::Down).unwrap();
    socket2::SockRef::from(&of_server).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(of_server);
    assert_eq!(next(&mut ring), Done::Failed { place });
}

/// Dropped with operations in flight, it ends them first: the connections are closed, and the buffers are nobody's.
#[test]
fn dropped_in_the_middle_it_ends_what_is_in_flight() {
    let Some((mut ring, place, mut of_client, mut of_server)) = one_pair() else { return };
    ring.receive(place, Way::Up).unwrap();
    ring.receive(place, Way::Down).unwrap();
    ring.uring.submit().unwrap();
    drop(ring);
    assert_eq!(of_client.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(of_server.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn more_than_fits_at_once_is_handed_in_between() {
    let Some(mut ring) = ring() else { return };
    let pairs: Vec<_> = (0..super::ENTRIES as usize).map(|_| (connection(), connection())).collect();
    let mut far = Vec::new();
    for ((client, mut of_client), (server, of_server)) in pairs {
        let place = ring.join(client, server);
        ring.receive(place, Way::Up).unwrap();
        ring.receive(place, Way::Down).unwrap();
        of_client.write_all(b"x").unwrap();
        far.push((of_client, of_server));
    }
    for _ in 0..far.len() {
        let Done::Read { place, way: Way::Up, count: 1 } = next(&mut ring) else { panic!("not read") };
        ring.forward(place, Way::Up, 1).unwrap();
    }
    ring.uring.submit().unwrap();
    for (_, of_server) in &mut far {
        assert_eq!(of_server.read(&mut [0; 2]).unwrap(), 1);
    }
    assert_eq!(completions_until_still(&mut ring), 2 * far.len());
}
