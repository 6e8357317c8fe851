//! The frames that a host hears: what its neighbours say about who has which address, byte by byte.

use super::Host;
use anyhow::{Context, Result};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use types::Moment;

/// `ETH_P_ALL`, as it goes over the wire.
const EVERY: u32 = 0x0300;
/// More frames are not kept.
const MOST: usize = 10_000;

/// One frame, and when it was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub at: Moment,
    pub bytes: Vec<u8>,
}

/// Listens on all interfaces of a host until it is dropped.
pub struct Listener {
    heard: Arc<Mutex<Vec<Frame>>>,
    over: Arc<AtomicBool>,
}

impl Listener {
    /// Begins to listen; what comes from now on is heard. Needs root.
    pub fn start(host: &Host) -> Result<Listener> {
        let listener = Listener { heard: Arc::default(), over: Arc::default() };
        let every = NonZeroU32::new(EVERY).map(Protocol::from_raw);
        let socket =
            host.within(|| socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, every))?;
        let socket = socket.context("open a packet socket")?;
        set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_millis(100)))
            .context("set a time-out")?;
        let (heard, over) = (listener.heard.clone(), listener.over.clone());
        std::thread::spawn(move || listen(&socket, &heard, &over));
        Ok(listener)
    }

    /// What was heard so far: announcements of who has this address, as ARP and neighbour advertisements make them.
    #[must_use]
    pub fn about(&self, ip: std::net::IpAddr) -> Vec<Frame> {
        let all = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|frame| subject(&frame.bytes) == Some(ip)).cloned().collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn listen(socket: &OwnedFd, heard: &Mutex<Vec<Frame>>, over: &AtomicBool) {
    let mut bytes = [0_u8; 2048];
    while !over.load(Ordering::Relaxed) {
        // Nothing came for a while: whether to go on is looked at.
        let Ok((_, length)) = recv(socket, &mut bytes, RecvFlags::empty()) else { continue };
        let Some(bytes) = bytes.get(..length) else { continue };
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        if subject(bytes).is_some() && heard.len() < MOST {
            heard.push(Frame { at: clock::now(), bytes: bytes.to_vec() });
        }
    }
}

/// Whose address an announcement is about: the sender of ARP, the target of an advertisement.
fn subject(frame: &[u8]) -> Option<std::net::IpAddr> {
    match frame.get(12..14)? {
        [0x08, 0x06] => Some(<[u8; 4]>::try_from(frame.get(28..32)?).ok()?.into()),
        [0x86, 0xdd] if frame.get(20) == Some(&58) && frame.get(54) == Some(&136) => {
            Some(<[u8; 16]>::try_from(frame.get(62..78)?).ok()?.into())
        }
        _ => None,
    }
}
