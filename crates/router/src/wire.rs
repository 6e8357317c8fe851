//! The little of PostgreSQL's protocol that a relay has to speak: one error message, and where messages end.

use std::sync::Arc;

/// An error as PostgreSQL sends it to a client: FATAL, with a SQLSTATE.
#[must_use]
pub(crate) fn fatal(sqlstate: &str, message: &str, hint: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(64 + message.len() + hint.len());
    for (field, text) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', sqlstate), (b'M', message), (b'H', hint)] {
        if !text.is_empty() {
            body.push(field);
            body.extend(text.bytes().filter(|byte| *byte != 0));
            body.push(0);
        }
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    let mut packet = vec![b'E'];
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&body);
    packet
}

/// The SQLSTATE of an ErrorResponse at the beginning of `bytes`; `None` for anything else, also for half of one.
#[must_use]
pub(crate) fn sqlstate(bytes: &[u8]) -> Option<&str> {
    let (head, rest) = bytes.split_at_checked(5)?;
    let (b'E', length) = (*head.first()?, head.get(1..)?) else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    let body = rest.get(..length.checked_sub(4)?)?;
    let field = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&b'C'))?;
    std::str::from_utf8(field.get(1..)?).ok()
}

/// How far a login has come, by all that the server has sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Login<'a> {
    /// Nothing yet that its client has to answer, or has waited for.
    Begun,
    /// It is the client's turn: to prove who it is, or to ask; or it is something else that the client has to see.
    Clients,
    /// Refused, with this SQLSTATE.
    Refused(&'a str),
}

/// The most of a greeting: then it is the client's turn, whatever it is.
const GREETING: usize = 4 * 1024;

/// Reads the first answers of a server. A server that is stopped while somebody logs in may say so behind "you are who you say".
#[must_use]
pub(crate) fn login(mut bytes: &[u8]) -> Login<'_> {
    let all = bytes.len();
    loop {
        match bytes.first() {
            Some(b'R' | b'S' | b'K' | b'N' | b'v' | b'E') if all < GREETING => {}
            Some(_) => return Login::Clients,
            None => return Login::Begun,
        }
        let Some((head, rest)) = bytes.split_at_checked(5) else { return Login::Begun };
        let (Some(kind), Some(length)) = (head.first(), head.get(1..).and_then(|four| four.try_into().ok()))
        else {
            return Login::Clients;
        };
        let length = (u32::from_be_bytes(length) as usize).checked_sub(4).filter(|length| *length < GREETING);
        let Some(length) = length else { return Login::Clients };
        let Some((body, next)) = rest.split_at_checked(length) else { return Login::Begun };
        match (kind, body) {
            (b'E', _) => return sqlstate(bytes).map_or(Login::Clients, Login::Refused),
            (b'R', [0, 0, 0, 0]) => bytes = next,
            (b'R', _) => return Login::Clients,
            _ => bytes = next,
        }
    }
}

/// What identifies a backend in a CancelRequest: its process number and the secret (4 bytes, up to 256 since
/// protocol 3.2), as they stand in both messages.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct CancelKey(pub(crate) Arc<[u8]>);

/// The longest body of BackendKeyData and of a CancelRequest after its code.
pub(crate) const CANCEL_KEY_BYTES: usize = 4 + 256;

/// Follows one direction of a stream of messages: where they end, and the few whose content matters.
///
/// ```text
/// Head (collecting 5 bytes) ──► Body (skipping, or collecting what is wanted) ──► Head …
///        └── impossible length ──► Lost (never at an end again)
/// ```
pub(crate) struct Frames {
    state: State,
}

enum State {
    Head { bytes: [u8; 5], have: usize },
    Body { left: usize, wanted: Option<(u8, Vec<u8>)> },
    Lost,
}

const START: State = State::Head { bytes: [0; 5], have: 0 };

impl Frames {
    pub(crate) fn new() -> Frames {
        Frames { state: START }
    }

    /// Whether everything up to the last byte is whole messages.
    pub(crate) fn at_boundary(&self) -> bool {
        matches!(self.state, State::Head { have: 0, .. })
    }

    /// The next bytes. `seen` gets each message: one that is `wanted` (by its kind and length) with its body when it is
    /// complete, any other without it as soon as its head is there.
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        wanted: impl Fn(u8, usize) -> bool,
        mut seen: impl FnMut(u8, &[u8]),
    ) {
        while !input.is_empty() {
            if self.at_boundary() {
                input = skip_whole(input, &wanted, &mut seen);
            }
            match &mut self.state {
                State::Lost => return,
                State::Head { bytes, have } => {
                    let taken = input.len().min(bytes.len() - *have);
                    for (to, from) in bytes.iter_mut().skip(*have).zip(input.iter().take(taken)) {
                        *to = *from;
                    }
                    *have += taken;
                    input = input.get(taken..).unwrap_or_default();
                    if *have == bytes.len() {
                        let [kind, length @ ..] = *bytes;
                        self.state = match (u32::from_be_bytes(length) as usize).checked_sub(4) {
                            None => State::Lost,
                            Some(left) if left > 0 && wanted(kind, left) => {
                                State::Body { left, wanted: Some((kind, Vec::with_capacity(left))) }
                            }
                            Some(left) => {
                                seen(kind, &[]);
                                if left == 0 { START } else { State::Body { left, wanted: None } }
                            }
                        };
                    }
                }
                State::Body { left, wanted } => {
                    let taken = input.len().min(*left);
                    let (now, later) = input.split_at_checked(taken).unwrap_or((input, &[]));
                    if let Some((_, body)) = wanted {
                        body.extend_from_slice(now);
                    }
                    *left -= taken;
                    input = later;
                    if *left == 0 {
                        if let Some((kind, body)) = wanted {
                            seen(*kind, body);
                        }
                        self.state = START;
                    }
                }
            }
        }
    }
}

/// Goes over messages that are there as a whole and of which nobody wants more than their kind: nearly all of a large result. Gives the
/// bytes from the first other one on.
fn skip_whole(
    mut input: &[u8],
    wanted: impl Fn(u8, usize) -> bool,
    mut seen: impl FnMut(u8, &[u8]),
) -> &[u8] {
    while let Some(([kind, length @ ..], body)) = input.split_first_chunk::<5>() {
        let Some(left) = (u32::from_be_bytes(*length) as usize).checked_sub(4) else { break };
        let Some(later) = body.get(left..).filter(|_| left == 0 || !wanted(*kind, left)) else { break };
        seen(*kind, &[]);
        input = later;
    }
    input
}

/// A message, for tests.
#[cfg(test)]
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Frames, Login, fatal, login, message, sqlstate};
    use proptest::prelude::{Just, any, prop_oneof, proptest};

    fn keys(frames: &mut Frames, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        frames.feed(
            bytes,
            |kind, _| kind == b'K',
            |kind, body| {
                if kind == b'K' {
                    found.push(body.to_vec());
                }
            },
        );
        found
    }

    #[test]
    fn a_login_is_followed_until_it_is_the_clients_turn() {
        let welcome =
            [message(b'R', &[0; 4]), message(b'S', b"TimeZone\0UTC\0"), message(b'K', &[9; 8])].concat();
        let refused = [welcome.clone(), fatal("57P01", "stopped", "")].concat();
        let ready = [welcome.clone(), message(b'Z', b"I")].concat();
        assert_eq!(login(&refused), Login::Refused("57P01"));
        for count in 0..refused.len() {
            assert_eq!(login(&refused[..count]), Login::Begun, "{count} of {}", refused.len());
        }
        for count in 0..=ready.len() {
            let expected = if count > welcome.len() { Login::Clients } else { Login::Begun };
            assert_eq!(login(&ready[..count]), expected, "{count} of {}", ready.len());
        }
        for (bytes, expected) in [
            (message(b'R', &[0, 0, 0, 10]), Login::Clients),
            (fatal("53300", "too many", ""), Login::Refused("53300")),
            (b"Eold protocol\0".to_vec(), Login::Clients),
            (message(b'S', &[0; 5000]), Login::Clients),
            (message(b'N', b"").repeat(1000), Login::Clients),
            (b"HTTP/1.1".to_vec(), Login::Clients),
            (vec![b'R', 0, 0, 0, 1], Login::Clients),
        ] {
            assert_eq!(login(&bytes), expected, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn an_error_is_read_as_it_is_written() {
        let error = fatal("57P03", "no primary", "try again");
        assert_eq!(sqlstate(&error), Some("57P03"));
        assert_eq!(sqlstate(&error[..error.len() - 1]), None);
        assert_eq!(sqlstate(&message(b'R', &[0; 4])), None);
        assert_eq!(sqlstate(&[b'E', 0, 0, 0, 1]), None);
        let mut frames = Frames::new();
        assert!(keys(&mut frames, &error).is_empty());
        assert!(frames.at_boundary());
    }

    #[test]
    fn the_cancel_key_is_found_however_the_stream_is_cut() {
        let mut stream = message(b'R', &[0; 4]);
        stream.extend(message(b'S', b"TimeZone\0Etc/UTC\0"));
        stream.extend(message(b'K', &[0, 0, 1, 2, 9, 8, 7, 6]));
        stream.extend(message(b'Z', b"I"));
        for size in 1..stream.len() {
            let mut frames = Frames::new();
            let found: Vec<_> = stream.chunks(size).flat_map(|part| keys(&mut frames, part)).collect();
            assert!(frames.at_boundary());
            assert_eq!(found, [[0, 0, 1, 2, 9, 8, 7, 6]]);
        }
    }

    #[test]
    fn an_impossible_length_is_never_a_boundary_again() {
        let mut frames = Frames::new();
        keys(&mut frames, &[b'D', 0, 0, 0, 3]);
        keys(&mut frames, &message(b'Z', b"I"));
        assert!(!frames.at_boundary());
    }

    proptest! {
        #[test]
        fn boundaries_are_where_messages_end(
            sizes in proptest::collection::vec(0..300usize, 1..20),
            cut in any::<proptest::sample::Index>(),
            kind in prop_oneof![Just(b'K'), Just(b'D'), any::<u8>()],
        ) {
            let all: Vec<Vec<u8>> = sizes.iter().map(|size| message(kind, &vec![7; *size])).collect();
            let ends: Vec<usize> = all.iter().scan(0, |at, m| { *at += m.len(); Some(*at) }).collect();
            let stream = all.concat();
            let cut = cut.index(stream.len() + 1);
            let mut frames = Frames::new();
            keys(&mut frames, &stream[..cut]);
            assert_eq!(frames.at_boundary(), cut == 0 || ends.contains(&cut));
            keys(&mut frames, &stream[cut..]);
            assert!(frames.at_boundary());
        }

        #[test]
        fn any_bytes_are_survived(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut frames = Frames::new();
            for part in &parts {
                keys(&mut frames, part);
                let _ = sqlstate(part);
            }
        }
    }
}
