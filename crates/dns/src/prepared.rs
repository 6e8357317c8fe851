//! Answers that were given before, until the zone changes. Pure but for what it remembers.
//!
//! ```text
//!   question ── its number aside, a turn in its place ──► known? ── yes ──► a copy ──┬─► its number back ──► answer
//!                                                          └─ no ──► made, kept ─────┘
//! ```
//! Questions that differ in their number alone have the same answer, but for the turn of those who share a name. A look at what was
//! answered costs a tenth of an answer that is made.

use crate::answer::{Carrier, answer};
use crate::zone::Zone;
use std::collections::HashMap;
use std::sync::Arc;

/// Who shares a name comes first in turn; so many turns there are.
const TURNS: u16 = 32;
/// So many answers are kept at most; then all are forgotten. Who asks for what is not there cannot make it grow.
const MOST: usize = 2048;
/// A longer question is not worth keeping: 512 bytes have every name that a zone can have, and options.
const LONGEST: usize = 512;

/// What was answered by UDP.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    zone: Option<Arc<Zone>>,
    known: HashMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Prepared {
    /// From now on the answers are those of this zone.
    pub(crate) fn of(&mut self, zone: &Arc<Zone>) {
        if !self.zone.as_ref().is_some_and(|known| Arc::ptr_eq(known, zone)) {
            self.known.clear();
            self.zone = Some(zone.clone());
        }
    }

    /// Puts the answer into `reply`; false when there is none. The question's number is overwritten.
    pub(crate) fn answer(&mut self, question: &mut [u8], reply: &mut Vec<u8>) -> bool {
        reply.clear();
        let (Some(zone), Some(number)) = (&self.zone, question.first_chunk_mut::<2>()) else { return false };
        let own = *number;
        *number = (u16::from_be_bytes(own) % TURNS).to_be_bytes();
        match self.known.get(&*question) {
            Some(known) => reply.extend_from_slice(known.as_deref().unwrap_or_default()),
            None => {
                let made = answer(question, zone, Carrier::Udp);
                reply.extend_from_slice(made.as_deref().unwrap_or_default());
                if question.len() <= LONGEST {
                    if self.known.len() >= MOST {
                        self.known.clear();
                    }
                    self.known.insert(question.to_vec(), made);
                }
            }
        }
        match reply.first_chunk_mut::<2>() {
            Some(number) => *number = own,
            None => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, Prepared, TURNS};
    use crate::answer::{Carrier, answer, tests::question};
    use crate::zone::tests::{facts, zone};
    use domain::base::iana::Rtype;
    use proptest::prelude::{any, prop::collection::vec, proptest};
    use std::sync::Arc;

    fn numbered(number: u16, name: &str) -> Vec<u8> {
        let mut bytes = question(name, Rtype::A, None);
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    fn told(prepared: &mut Prepared, question: &[u8]) -> Option<Vec<u8>> {
        let mut reply = vec![1, 2, 3];
        prepared.answer(&mut question.to_vec(), &mut reply).then_some(reply)
    }

    #[test]
    fn an_answer_is_the_same_the_second_time_but_for_its_number_until_the_zone_changes() {
        let mut prepared = Prepared::default();
        let name = "primary.c1.pg.test";
        assert_eq!(told(&mut prepared, &numbered(1, name)), None, "nothing was read yet");
        let before = Arc::new(zone(&facts()));
        prepared.of(&before);
        for number in [7, 7, 7 + TURNS, u16::MAX] {
            let asked = numbered(number, name);
            assert_eq!(told(&mut prepared, &asked), answer(&asked, &before, Carrier::Udp));
        }
        let mut moved = facts();
        moved.primary = None;
        let after = Arc::new(zone(&moved));
        prepared.of(&after);
        let asked = numbered(7, name);
        assert_eq!(told(&mut prepared, &asked), answer(&asked, &after, Carrier::Udp));
        assert_ne!(answer(&asked, &before, Carrier::Udp), answer(&asked, &after, Carrier::Udp));
    }

    #[test]
    fn who_shares_a_name_comes_first_in_turn() {
        let mut many = facts();
        many.replicas.push(types::NodeName::from("pg-1"));
        let mut prepared = Prepared::default();
        prepared.of(&Arc::new(zone(&many)));
        let answers: std::collections::BTreeSet<Vec<u8>> = (0..100)
            .filter_map(|number| told(&mut prepared, &numbered(number, "replica.c1.pg.test")))
            .map(|reply| reply[2..].to_vec())
            .collect();
        assert_eq!(answers.len(), 2, "each of two is the first one for some");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut prepared = Prepared::default();
        prepared.of(&Arc::new(zone(&facts())));
        for number in 0..3 * MOST {
            assert!(told(&mut prepared, &numbered(0, &format!("x{number}.c1.pg.test"))).is_some());
            assert!(prepared.known.len() <= MOST);
        }
        let kept = prepared.known.len();
        let mut long = numbered(0, "primary.c1.pg.test");
        long.resize(3000, 0);
        told(&mut prepared, &long);
        assert_eq!(prepared.known.len(), kept, "a long one is not kept");
    }

    proptest! {
        /// Whatever comes, twice: what would be answered without a memory, to the same number.
        #[test]
        fn bytes_of_any_kind_are_survived(bytes in vec(any::<u8>(), 0..600)) {
            let zone = Arc::new(zone(&facts()));
            let mut prepared = Prepared::default();
            prepared.of(&zone);
            let once = told(&mut prepared, &bytes);
            assert_eq!(once, told(&mut prepared, &bytes));
            assert_eq!(once.is_some(), answer(&bytes, &zone, Carrier::Udp).is_some());
            assert!(once.is_none_or(|reply| reply[..2] == bytes[..2]));
        }
    }
}
