//! The little of PostgreSQL's protocol that a relay has to speak: one error message, and where messages end.

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

/// What identifies a backend in a CancelRequest: its process number and the secret (4 bytes, up to 256 since
/// protocol 3.2), as they stand in both messages.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct CancelKey(pub(crate) Vec<u8>);

/// The longest body of BackendKeyData and of a CancelRequest after its code.
pub(crate) const CANCEL_KEY_BYTES: usize = 4 + 256;

/// Follows the messages from a server: where they end, and the one that holds the cancel key.
///
/// ```text
/// Head (collecting 5 bytes) ──► Body (skipping, or collecting for BackendKeyData) ──► Head …
///        └── impossible length ──► Lost (never at an end again)
/// ```
pub(crate) struct ServerMessages {
    state: State,
    key: Option<CancelKey>,
}

enum State {
    Head { bytes: [u8; 5], have: usize },
    Body { left: usize, key: Option<Vec<u8>> },
    Lost,
}

const START: State = State::Head { bytes: [0; 5], have: 0 };

impl ServerMessages {
    pub(crate) fn new() -> ServerMessages {
        ServerMessages { state: START, key: None }
    }

    /// Whether everything up to the last byte is whole messages, so that one of ours may follow.
    pub(crate) fn at_boundary(&self) -> bool {
        matches!(self.state, State::Head { have: 0, .. })
    }

    /// The cancel key, once, when it has come by.
    pub(crate) fn take_key(&mut self) -> Option<CancelKey> {
        self.key.take()
    }

    /// The next bytes from the server.
    pub(crate) fn feed(&mut self, mut input: &[u8]) {
        while !input.is_empty() {
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
                        self.state = body_of(*bytes);
                    }
                }
                State::Body { left, key } => {
                    let taken = input.len().min(*left);
                    let (now, later) = input.split_at_checked(taken).unwrap_or((input, &[]));
                    if let Some(key) = key {
                        key.extend_from_slice(now);
                    }
                    *left -= taken;
                    input = later;
                    if *left == 0 {
                        self.key = key.take().map(CancelKey).or(self.key.take());
                        self.state = START;
                    }
                }
            }
        }
    }
}

fn body_of([kind, length @ ..]: [u8; 5]) -> State {
    match (u32::from_be_bytes(length) as usize).checked_sub(4) {
        None => State::Lost,
        Some(0) => START,
        Some(left) => {
            let wanted = kind == b'K' && left <= CANCEL_KEY_BYTES;
            State::Body { left, key: wanted.then(|| Vec::with_capacity(left)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ServerMessages, fatal, sqlstate};
    use proptest::prelude::{Just, any, prop_oneof, proptest};

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn an_error_is_read_as_it_is_written() {
        let error = fatal("57P03", "no primary", "try again");
        assert_eq!(sqlstate(&error), Some("57P03"));
        assert_eq!(sqlstate(&error[..error.len() - 1]), None);
        assert_eq!(sqlstate(&message(b'R', &[0; 4])), None);
        assert_eq!(sqlstate(&[b'E', 0, 0, 0, 1]), None);
        let mut messages = ServerMessages::new();
        messages.feed(&error);
        assert!(messages.at_boundary());
    }

    #[test]
    fn the_cancel_key_is_found_however_the_stream_is_cut() {
        let mut stream = message(b'R', &[0; 4]);
        stream.extend(message(b'S', b"TimeZone\0Etc/UTC\0"));
        stream.extend(message(b'K', &[0, 0, 1, 2, 9, 8, 7, 6]));
        stream.extend(message(b'Z', b"I"));
        for size in 1..stream.len() {
            let mut messages = ServerMessages::new();
            for part in stream.chunks(size) {
                messages.feed(part);
            }
            assert!(messages.at_boundary());
            assert_eq!(messages.take_key().unwrap().0, [0, 0, 1, 2, 9, 8, 7, 6]);
            assert!(messages.take_key().is_none());
        }
    }

    #[test]
    fn an_impossible_length_is_never_a_boundary_again() {
        let mut messages = ServerMessages::new();
        messages.feed(&[b'D', 0, 0, 0, 3]);
        messages.feed(&message(b'Z', b"I"));
        assert!(!messages.at_boundary());
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
            let mut messages = ServerMessages::new();
            messages.feed(&stream[..cut]);
            assert_eq!(messages.at_boundary(), cut == 0 || ends.contains(&cut));
            messages.feed(&stream[cut..]);
            assert!(messages.at_boundary());
        }

        #[test]
        fn any_bytes_are_survived(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut messages = ServerMessages::new();
            for part in &parts {
                messages.feed(part);
                let _ = sqlstate(part);
            }
        }
    }
}
