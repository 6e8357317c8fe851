//! Ports for servers of tests, also when several test programs run at once.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// The ports given away are ours until this process ends: the datagram port of the same number is held.
static OURS: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// A port of the loopback that nobody listens on and that nobody else is given. It lies below the range from which the kernel takes
/// ports: one that was free a moment ago is otherwise soon the other end of somebody's connection.
///
/// # Panics
///
/// When all are taken.
pub fn free_port() -> u16 {
    let (port, ours) = free();
    let mut all = OURS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    all.push(ours);
    port
}

/// The same for a server that takes the datagrams of that port as well: nobody holds it until the server does. In this process it is given
/// only once, and others come to it only by chance.
///
/// # Panics
///
/// When all are taken.
pub fn free_port_for_both() -> u16 {
    free().0
}

fn free() -> (u16, UdpSocket) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..22_000 {
        let number = std::process::id().wrapping_mul(131).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + u16::try_from(number % 22_000).unwrap_or_default();
        let Ok(ours) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return (port, ours);
        }
    }
    panic!("no port between 10000 and 32000 is free");
}
