//! What anybody may send before the router knows who it is, and what must hold of its readers whatever that is.
//!
//! ```text
//!   fuzz/ (cargo-fuzz, as long as you like) ─┐
//!   the test below (the same every time) ────┴─► startup, tls_hello, proxy_header, messages
//! ```
//! Not part of the program: built for tests, and with the feature `fuzzing`.

use crate::conversation::Conversation;
use crate::startup::First;
use crate::wire::CANCEL_KEY_BYTES;
use crate::{hello, proxy, startup, wire};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_rustls::rustls::server::Acceptor;

/// PostgreSQL's limit, which is the router's.
const PACKET: usize = 10_000;

/// No hello makes the router keep more: one of the longest and a record that begins in it.
const HELLO: usize = 64 * 1024;

/// A client that sends so many bytes at a time, and then goes away.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.rest.len().min(self.size).min(buffer.remaining());
        let (now, later) = self.rest.split_at(count);
        buffer.put_slice(now);
        self.rest = later;
        Poll::Ready(Ok(()))
    }
}

/// What comes of a future that never waits; `None` when it does.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// The first packets of a client: each is taken whole and nothing after it, in whatever pieces it comes.
pub fn startup(bytes: &[u8]) {
    let read_all = |size| {
        let mut client = Pieces { rest: bytes, size };
        let mut taken = Vec::new();
        for _ in 0..4 {
            let before = client.rest;
            let first = at_once(startup::read(&mut client, PACKET)).expect("it does not wait");
            let used = before.len() - client.rest.len();
            assert!(used <= PACKET);
            let packet = match first {
                Err(_) => break,
                Ok(First::Cancel { key, packet }) => {
                    assert!(key.0.len() <= CANCEL_KEY_BYTES && packet.ends_with(&key.0));
                    packet
                }
                Ok(First::DirectTls(packet) | First::Encryption(packet)) => {
                    assert_eq!(packet.len(), 8);
                    packet
                }
                Ok(First::Startup(packet)) => packet,
            };
            assert_eq!(packet, before.split_at(used).0, "what is passed on is what came");
            taken.push(packet);
        }
        taken
    };
    assert_eq!(read_all(usize::MAX), read_all(1), "nothing depends on how it is cut");
}

/// The first message of a TLS client: it is kept as it came, and where another implementation finds a name it is ours. The first byte
/// says how much was read before.
pub fn tls_hello(bytes: &[u8]) {
    let Some((begun, raw)) = bytes.split_first() else { return };
    let (begun, _) = raw.split_at(raw.len().min(usize::from(*begun)));
    let read = |size| {
        let mut client = Pieces { rest: raw.get(begun.len()..).unwrap_or_default(), size };
        at_once(hello::read(&mut client, begun)).expect("it does not wait").ok()
    };
    let found = read(usize::MAX);
    assert_eq!(found, read(7), "nothing depends on how it is cut");
    let Some((name, kept)) = found else { return };
    assert!(kept.len() <= HELLO && raw.starts_with(&kept), "what is passed on is what came");
    let mut acceptor = Acceptor::default();
    let mut rest = kept.as_slice();
    while acceptor.read_tls(&mut rest).is_ok_and(|count| count > 0) {
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                if let Some(theirs) = accepted.client_hello().server_name() {
                    assert_eq!(name, Some(theirs.to_ascii_lowercase()));
                }
                return;
            }
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

/// The header of a load balancer: exactly it is taken, and what we would write for the same client is read as the same.
pub fn proxy_header(bytes: &[u8]) {
    let read = |bytes: &[u8], size| {
        let mut balancer = Pieces { rest: bytes, size };
        let found = at_once(proxy::read(&mut balancer)).expect("it does not wait");
        (found, bytes.len() - balancer.rest.len())
    };
    let (found, used) = read(bytes, usize::MAX);
    let (again, _) = read(bytes, 1);
    assert_eq!(found.as_ref().ok(), again.as_ref().ok(), "nothing depends on how it is cut");
    let Ok(client) = found else { return };
    let length = bytes.get(14..16).map(|length| usize::from(length[0]) << 8 | usize::from(length[1]));
    assert_eq!(Some(used), length.map(|length| length + 16), "the header, and nothing after it");
    if let Some(client) = client {
        let ours = proxy::header(client, client);
        let (read_as, used) = read(&ours, usize::MAX);
        let read_as = read_as.expect("what we write we read").expect("a client");
        assert_eq!(
            (read_as.ip().to_canonical(), read_as.port()),
            (client.ip().to_canonical(), client.port())
        );
        assert_eq!(used, ours.len());
    }
}

/// What client and server say, as the relay sees it. The input is pieces: a byte with the direction (128 is the client) and the length,
/// and so many bytes.
pub fn messages(bytes: &[u8]) {
    let (mut in_pieces, mut byte_by_byte) = (Conversation::new(), Conversation::new());
    let mut server = Vec::new();
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_first() {
        let (said, later) = after.split_at(after.len().min(usize::from(head & 0x7F)));
        rest = later;
        let mut key = None;
        if head & 0x80 == 0 {
            in_pieces.server_says(said);
            for byte in said {
                byte_by_byte.server_says(&[*byte]);
                key = byte_by_byte.take_key().or(key);
            }
            server.extend_from_slice(said);
        } else {
            in_pieces.client_says(said);
            said.iter().for_each(|byte| byte_by_byte.client_says(&[*byte]));
        }
        // Whoever may be told something is between two messages, counted plainly from the beginning.
        assert_eq!(in_pieces.at_boundary(), between_messages(&server));
        let states =
            [&in_pieces, &byte_by_byte].map(|talk| (talk.is_idle(), talk.has_asked(), talk.at_boundary()));
        assert_eq!(states[0], states[1], "nothing depends on how it is cut");
        let whole = in_pieces.take_key();
        assert!(whole.as_ref().is_none_or(|key| key.0.len() <= CANCEL_KEY_BYTES));
        assert_eq!(whole.map(|key| key.0), key.map(|key| key.0));
    }
    let _ = (wire::sqlstate(&server), wire::login(&server));
}

fn between_messages(mut stream: &[u8]) -> bool {
    while let Some((_, after)) = stream.split_first() {
        let Some(length) = after.first_chunk::<4>() else { return false };
        let length = u32::from_be_bytes(*length) as usize;
        match after.get(length..) {
            Some(later) if length >= 4 => stream = later,
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use testbed::{Dice, seeds};

    /// So many mutations of the seeds of each reader.
    const INPUTS: usize = 50_000;

    fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], dice: &mut Dice) {
        const NUMBERS: [u32; 10] = [0, 1, 3, 4, 8, 127, 255, 0x7FFF, 0xFFFF, u32::MAX];
        let at = dice.roll(bytes.len());
        let end = (at + 1 + dice.roll(16)).min(bytes.len());
        match dice.roll(8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.roll(8),
            1 if !bytes.is_empty() => bytes[at] = NUMBERS[dice.roll(NUMBERS.len())] as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            // Lengths stand in two and in four bytes.
            5 | 6 => {
                let number = NUMBERS[dice.roll(NUMBERS.len())].to_be_bytes();
                let number = &number[dice.roll(2) * 2..];
                for (to, from) in bytes.iter_mut().skip(at).zip(number) {
                    *to = *from;
                }
            }
            _ => {
                let other = &others[dice.roll(others.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[dice.roll(other.len())..]);
            }
        }
        bytes.truncate(70_000);
    }

    fn survived(target: &str, read: fn(&[u8])) {
        let seeds = seeds(target);
        seeds.iter().for_each(|seed| read(seed));
        let mut dice = Dice(0x00BA_7014_u64 + target.len() as u64);
        for _ in 0..INPUTS {
            let mut bytes = seeds[dice.roll(seeds.len())].clone();
            for _ in 0..=dice.roll(4) {
                mutate(&mut bytes, &seeds, &mut dice);
            }
            read(&bytes);
        }
    }

    #[test]
    fn mutated_startup_packets_are_survived() {
        survived("startup", super::startup);
    }

    #[test]
    fn mutated_hellos_are_survived() {
        survived("tls_hello", super::tls_hello);
    }

    #[test]
    fn mutated_proxy_headers_are_survived() {
        survived("proxy_header", super::proxy_header);
    }

    #[test]
    fn mutated_messages_are_survived() {
        survived("messages", super::messages);
    }
}
