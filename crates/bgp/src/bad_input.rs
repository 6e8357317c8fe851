//! What a neighbour, or whoever has its address, may send, and what must hold of its reader whatever that is.
//!
//! ```text
//!   fuzz/ (cargo-fuzz, as long as you like) ─┐
//!   the test below (the same every time) ────┴─► conversation
//! ```
//! Not part of the program: built for tests, and with the feature `fuzzing`.

use crate::message::{LONGEST, Message, Reader, notification};
use crate::open::Open;
use crate::refusal::Refusal;
use crate::session::{End, Heard, Session, Stage, Terms};
use crate::update::Family;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;
use types::Moment;

fn terms() -> Terms {
    let own = Open {
        asn: 65_001,
        hold: 3,
        id: Ipv4Addr::new(10, 0, 0, 11),
        families: BTreeSet::from([Family::V4, Family::V6]),
        four_octets: true,
    };
    Terms { own, peer_as: 65_000 }
}

/// All that is heard, and how it ends.
fn heard(bytes: &[u8], size: usize) -> (Vec<Heard>, Option<End>, Session) {
    let (mut reader, mut session, mut all) = (Reader::default(), Session::new(Moment(0)), Vec::new());
    for piece in bytes.chunks(size) {
        reader.feed(piece);
        loop {
            let end = match reader.next() {
                Ok(None) => break,
                Ok(Some(message)) => {
                    if let Message::Open(open) = &message {
                        said_again(open);
                    }
                    match session.hear(message, &terms(), Moment(1)) {
                        Ok(meaning) => {
                            all.push(meaning);
                            continue;
                        }
                        Err(end) => end,
                    }
                }
                Err(refusal) => End::Ours(refusal),
            };
            return (all, Some(end), session);
        }
        assert!(reader.pending() < LONGEST, "never more than one message is kept");
    }
    (all, None, session)
}

/// What we would say of ourselves, were we it, means the same.
fn said_again(open: &Open) {
    let mut reader = Reader::default();
    reader.feed(&open.bytes());
    let again = reader.next();
    let same = |again: &Open| {
        let families = open.families.is_empty() || again.families == open.families;
        families && (again.asn, again.hold, again.id) == (open.asn, open.hold, open.id)
    };
    assert!(matches!(&again, Ok(Some(Message::Open(again))) if same(again)), "{again:?}");
}

/// Everything that comes on one connection.
pub fn conversation(bytes: &[u8]) {
    let whole = heard(bytes, LONGEST);
    assert_eq!(whole, heard(bytes, 7), "nothing depends on how it is cut");
    let (all, end, session) = whole;
    assert_eq!(session.stage() == Stage::Established, all.contains(&Heard::Established));
    if let Some(agreed) = session.agreed() {
        assert_eq!(agreed.hold, Duration::from_secs(3), "never longer than ours, never none");
        assert!(agreed.peer_id != terms().own.id);
    }
    let told = match end {
        Some(End::Ours(refusal)) => {
            assert!((1..=6).contains(&refusal.code));
            Some(refusal)
        }
        Some(End::OtherAs { says }) => {
            assert_ne!(says, terms().peer_as);
            Some(Refusal::BAD_PEER_AS)
        }
        Some(End::Theirs(refusal)) => Some(refusal),
        None => None,
    };
    if let Some(refusal) = told {
        let shown = refusal.to_string();
        assert!(!shown.chars().any(char::is_control) && shown.chars().count() < 1000, "one line in a log");
        let mut reader = Reader::default();
        reader.feed(&notification(&refusal));
        assert_eq!(reader.next(), Ok(Some(Message::Notification(refusal))));
    }
}

#[cfg(test)]
mod tests {
    use testbed::{Dice, seeds};

    /// So many mutations of the seeds.
    const INPUTS: usize = 50_000;

    fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], dice: &mut Dice) {
        const NUMBERS: [u16; 9] = [0, 1, 2, 18, 19, 23, 255, 4096, u16::MAX];
        let at = dice.roll(bytes.len());
        let end = (at + 1 + dice.roll(16)).min(bytes.len());
        match dice.roll(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.roll(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            4 | 5 => {
                let number = NUMBERS[dice.roll(NUMBERS.len())].to_be_bytes();
                for (to, from) in bytes.iter_mut().skip(at).zip(number) {
                    *to = from;
                }
            }
            _ => bytes.extend_from_slice(&others[dice.roll(others.len())]),
        }
        bytes.truncate(20_000);
    }

    #[test]
    fn mutated_conversations_are_survived() {
        let seeds = seeds("bgp");
        seeds.iter().for_each(|seed| super::conversation(seed));
        let mut dice = Dice(0x00BA_7014);
        for _ in 0..INPUTS {
            let mut bytes = seeds[dice.roll(seeds.len())].clone();
            for _ in 0..=dice.roll(4) {
                mutate(&mut bytes, &seeds, &mut dice);
            }
            super::conversation(&bytes);
        }
    }
}
