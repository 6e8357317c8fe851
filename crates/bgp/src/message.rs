//! Messages as they come off the wire (RFC 4271, 4): framed, checked, and nothing kept of what others announce. Pure.
//!
//! ```text
//!   bytes in any pieces ─► Reader ─► OPEN, KEEPALIVE, NOTIFICATION, ROUTE-REFRESH; UPDATE: only that it is one
//!                            └─► what is wrong, as the NOTIFICATION to answer with
//! ```

use crate::open::Open;
use crate::refusal::Refusal;
use crate::update::Family;

/// Marker, length, type.
const HEADER: usize = 19;
/// Nobody may send a longer one: extended messages (RFC 8654) are not offered.
pub(crate) const LONGEST: usize = 4096;
const MARKER: [u8; 16] = [0xFF; 16];

/// The types of messages.
pub(crate) const OPEN: u8 = 1;
pub(crate) const UPDATE: u8 = 2;
pub(crate) const NOTIFICATION: u8 = 3;
pub(crate) const KEEPALIVE: u8 = 4;
pub(crate) const ROUTE_REFRESH: u8 = 5;

/// What a neighbour says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Open(Open),
    /// Its routes are its own affair.
    Update,
    Notification(Refusal),
    Keepalive,
    /// It wants to hear all routes of a family again; `None`: of one that we do not have.
    Refresh(Option<Family>),
}

/// Puts messages together from whatever pieces come.
#[derive(Default)]
pub(crate) struct Reader {
    kept: Vec<u8>,
}

impl Reader {
    /// Takes what has come. Call [`Reader::next`] until it has no more, before the next piece: then no more than one message is kept.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
    }

    /// The next whole message.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Refusal> {
        let Some((marker, rest)) = self.kept.split_first_chunk::<16>() else { return Ok(None) };
        if *marker != MARKER {
            return Err(Refusal::NOT_SYNCHRONIZED);
        }
        let Some(([high, low, kind], _)) = rest.split_first_chunk::<3>() else { return Ok(None) };
        let (length, kind) = (u16::from_be_bytes([*high, *low]), *kind);
        check_length(length, kind)?;
        let length = usize::from(length);
        let Some(body) = self.kept.get(HEADER..length) else { return Ok(None) };
        let message = parse(kind, body);
        self.kept.drain(..length);
        message.map(Some)
    }

    /// What is kept of a message that has not come whole.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn pending(&self) -> usize {
        self.kept.len()
    }
}

/// A length that a message of its type cannot have is known before the message has come.
fn check_length(length: u16, kind: u8) -> Result<(), Refusal> {
    let possible = match kind {
        OPEN => 29..=4096,
        UPDATE => 23..=4096,
        NOTIFICATION => 21..=4096,
        KEEPALIVE => 19..=19,
        // Longer ones carry filters (RFC 5291), which nobody was told that we have; they are taken for plain ones.
        ROUTE_REFRESH => 23..=4096,
        _ => return Err(Refusal::with(1, 3, &[kind])),
    };
    if possible.contains(&length) { Ok(()) } else { Err(Refusal::with(1, 2, &length.to_be_bytes())) }
}

fn parse(kind: u8, body: &[u8]) -> Result<Message, Refusal> {
    match kind {
        OPEN => Open::parse(body).map(Message::Open),
        UPDATE => check_update(body).map(|()| Message::Update),
        NOTIFICATION => match body {
            [code, subcode, data @ ..] => Ok(Message::Notification(Refusal::with(*code, *subcode, data))),
            _ => Err(Refusal::with(1, 2, &[])),
        },
        ROUTE_REFRESH => match body {
            [high, low, _, safi, ..] => {
                Ok(Message::Refresh(Family::of(u16::from_be_bytes([*high, *low]), *safi)))
            }
            _ => Err(Refusal::with(1, 2, &[])),
        },
        _ => Ok(Message::Keepalive),
    }
}

/// Both lists end within the message. What is in them is not read: nothing of it is used.
fn check_update(body: &[u8]) -> Result<(), Refusal> {
    after_list(body).and_then(after_list).map(drop).ok_or(Refusal::BAD_ATTRIBUTES)
}

/// What follows a list that begins with its length.
fn after_list(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.get(usize::from(u16::from_be_bytes(*length))..)
}

/// A message of this type around a body.
pub(crate) fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
    debug_assert!(usize::from(length) <= LONGEST, "what we say is short");
    let mut bytes = MARKER.to_vec();
    bytes.extend(length.to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn keepalive() -> Vec<u8> {
    framed(KEEPALIVE, &[])
}

pub(crate) fn notification(refusal: &Refusal) -> Vec<u8> {
    let mut body = vec![refusal.code, refusal.subcode];
    body.extend_from_slice(&refusal.data);
    framed(NOTIFICATION, &body)
}

#[cfg(test)]
mod tests {
    use super::{
        KEEPALIVE, Message, NOTIFICATION, ROUTE_REFRESH, Reader, UPDATE, framed, keepalive, notification,
    };
    use crate::refusal::Refusal;
    use crate::update::Family;

    fn read(bytes: &[u8]) -> Result<Option<Message>, Refusal> {
        let mut reader = Reader::default();
        reader.feed(bytes);
        reader.next()
    }

    #[test]
    fn messages_are_found_in_any_pieces() {
        let mut stream = keepalive();
        stream.extend(framed(UPDATE, &[0, 0, 0, 0]));
        stream.extend(notification(&Refusal::SHUTDOWN));
        stream.extend(framed(ROUTE_REFRESH, &[0, 2, 0, 1]));
        for size in [1, 7, 19, stream.len()] {
            let (mut reader, mut found) = (Reader::default(), Vec::new());
            for piece in stream.chunks(size) {
                reader.feed(piece);
                while let Some(message) = reader.next().unwrap() {
                    found.push(message);
                }
            }
            let expected = [
                Message::Keepalive,
                Message::Update,
                Message::Notification(Refusal::SHUTDOWN),
                Message::Refresh(Some(Family::V6)),
            ];
            assert_eq!(found, expected);
            assert_eq!(reader.pending(), 0);
        }
    }

    #[test]
    fn what_is_no_message_is_answered_with_what_is_wrong() {
        let mut marker = keepalive();
        marker[15] = 0;
        assert_eq!(read(&marker), Err(Refusal::NOT_SYNCHRONIZED));
        assert_eq!(read(&framed(KEEPALIVE, &[0])), Err(Refusal::with(1, 2, &[0, 20])));
        assert_eq!(read(&framed(9, &[])), Err(Refusal::with(1, 3, &[9])));
        assert_eq!(read(&framed(NOTIFICATION, &[6])), Err(Refusal::with(1, 2, &[0, 20])));
        let mut long = framed(UPDATE, &[0, 0, 0, 0]);
        long[16..18].copy_from_slice(&4097_u16.to_be_bytes());
        assert_eq!(
            read(&long[..19]),
            Err(Refusal::with(1, 2, &[0x10, 1])),
            "at once, and not when it is whole"
        );
        for body in [&[0, 1, 0, 0][..], &[0, 0, 0, 1], &[0xFF, 0xFF, 0, 0]] {
            assert_eq!(read(&framed(UPDATE, body)), Err(Refusal::BAD_ATTRIBUTES), "{body:?}");
        }
        assert_eq!(read(&framed(ROUTE_REFRESH, &[0x40, 4, 0, 71])), Ok(Some(Message::Refresh(None))));
        assert_eq!(read(&keepalive()[..18]), Ok(None));
    }
}
