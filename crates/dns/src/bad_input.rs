//! What anybody may send to the name server, or another name server may answer, and what must hold whatever that is.
//!
//! ```text
//!   fuzz/ (cargo-fuzz, as long as you like) ─┐
//!   the test below (the same every time) ────┴─► question, reply
//! ```
//! Not part of the program: built for tests, and with the feature `fuzzing`.

use crate::answer::{Carrier, answer};
use crate::facts::{Facts, Place};
use crate::update;
use crate::zone::{Origin, Zone};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use types::{NodeName, Term};

/// The longest answers: by UDP what passes every network in one piece, by TCP what its length can say.
const LONGEST: [(Carrier, usize); 2] = [(Carrier::Udp, 1232), (Carrier::Tcp, 65_535)];

/// Three members, of which one leads; v4, v6 and a host by name.
fn zone() -> &'static Zone {
    static ZONE: OnceLock<Zone> = OnceLock::new();
    ZONE.get_or_init(|| {
        let name = |name: &str| NodeName::from(name);
        let place = |host: &str| Place { host: host.to_owned(), port: 5432 };
        let facts = Facts {
            revision: 4711,
            primary: Some((name("pg-1"), Term(17))),
            replicas: vec![name("pg-2"), name("pg-3")],
            sync: vec![name("pg-2")],
            offline: Vec::new(),
            members: BTreeMap::from([
                (name("pg-1"), place("10.0.0.1")),
                (name("pg-2"), place("fd00::2")),
                (name("pg-3"), place("db3.example")),
            ]),
        };
        let own = vec![[10, 0, 0, 53].into()];
        let origin = Origin::new("c1.pg.test", &[], own, 1).expect("a name");
        Zone::of(&origin, &facts, &BTreeMap::from([("db3.example".to_owned(), vec![[10, 0, 0, 3].into()])]))
    })
}

/// A question: it is answered under its own number and within the limit, or not at all, and the same every time.
pub fn question(bytes: &[u8]) {
    for (carrier, most) in LONGEST {
        let reply = answer(bytes, zone(), carrier);
        assert_eq!(reply, answer(bytes, zone(), carrier));
        if let Some(reply) = reply {
            assert!(reply.len() <= most, "{} bytes", reply.len());
            assert_eq!(reply.get(..2), bytes.get(..2), "its number");
            let (asked, said) =
                (bytes.get(2).copied().unwrap_or_default(), reply.get(2).copied().unwrap_or_default());
            assert!(asked & 0x80 == 0 && said & 0x80 != 0, "a question is answered, an answer is not");
            // An answer to an answer would be a storm between two servers.
            assert_eq!(answer(&reply, zone(), carrier), None);
        }
    }
}

/// What another server answers to the question for the term: understood or refused, and never a text that is not in it.
pub fn reply(bytes: &[u8]) {
    if let Ok(Some(text)) = update::text_of(bytes, 0x0102) {
        assert!(text.len() <= bytes.len() * 3, "each byte that is no text becomes three");
    }
}

#[cfg(test)]
mod tests {
    use super::{question, reply};
    use testbed::{Dice, seeds};

    /// So many mutations of each seed.
    const MUTATIONS: u64 = 20_000;

    /// A seed with bytes changed, put in, taken out, repeated, or cut.
    fn mutated(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=dice.roll(6) {
            let at = dice.roll(bytes.len());
            match dice.roll(6) {
                0 => bytes.insert(at, u8::try_from(dice.roll(256)).unwrap()),
                1 => bytes.truncate(at.max(1)),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                // A pointer to anywhere in the message.
                3 if at + 1 < bytes.len() => {
                    bytes[at] = 0xc0;
                    bytes[at + 1] = u8::try_from(dice.roll(256)).unwrap();
                }
                4 => bytes.extend_from_within(at..),
                _ => bytes[at] = u8::try_from(dice.roll(256)).unwrap(),
            }
            bytes.truncate(4096);
        }
        bytes
    }

    fn all(target: &str, feed: fn(&[u8])) {
        for (number, seed) in seeds(target).iter().enumerate() {
            feed(seed);
            let mut dice = Dice(0x9e37_79b9_7f4a_7c15 + u64::try_from(number).unwrap());
            for _ in 0..MUTATIONS {
                feed(&mutated(seed, &mut dice));
            }
        }
    }

    #[test]
    fn questions_are_survived() {
        all("dns_question", question);
    }

    #[test]
    fn replies_are_survived() {
        all("dns_reply", reply);
    }
}
