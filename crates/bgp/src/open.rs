//! OPEN: who each side is and what it can (RFC 4271, 4.2; capabilities: RFC 5492). Pure.
//!
//! Offered are the families, route refresh and AS numbers of four bytes. Graceful restart is not, and never will be: it asks a neighbour to
//! keep the routes of a speaker that is gone.

use crate::message;
use crate::refusal::Refusal;
use crate::update::Family;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Stands in the two bytes of an AS number that needs four (RFC 6793).
pub(crate) const AS_TRANS: u16 = 23_456;

const VERSION: u8 = 4;
/// The optional parameter that holds capabilities.
const CAPABILITIES: u8 = 2;
/// Instead of a length and of a type: lengths have two bytes (RFC 9072).
const EXTENDED: u8 = 255;

const MULTIPROTOCOL: u8 = 1;
const REFRESH: u8 = 2;
const FOUR_OCTETS: u8 = 65;

/// What one side says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub asn: u32,
    /// Seconds.
    pub hold: u16,
    pub id: Ipv4Addr,
    /// Of those that we know. Who names none at all speaks IPv4 unicast.
    pub families: BTreeSet<Family>,
    /// AS numbers have four bytes in its messages.
    pub four_octets: bool,
}

impl Open {
    pub(crate) fn parse(body: &[u8]) -> Result<Open, Refusal> {
        let Some(([version, as1, as2, hold1, hold2, id @ .., length], rest)) = body.split_first_chunk::<10>()
        else {
            return Err(Refusal::BAD_OPEN);
        };
        if *version != VERSION {
            return Err(Refusal::with(2, 1, &[0, VERSION]));
        }
        let mut open = Open {
            asn: u32::from(u16::from_be_bytes([*as1, *as2])),
            hold: u16::from_be_bytes([*hold1, *hold2]),
            id: Ipv4Addr::from(*id),
            families: BTreeSet::new(),
            four_octets: false,
        };
        let mut multiprotocol = false;
        let (wide, parameters) = parameters(*length, rest)?;
        for (kind, value) in Items::new(parameters, wide) {
            if kind != CAPABILITIES {
                return Err(Refusal::BAD_PARAMETER);
            }
            for (capability, value) in Items::new(value.ok_or(Refusal::BAD_OPEN)?, false) {
                let value = value.ok_or(Refusal::BAD_OPEN)?;
                match (capability, value) {
                    (MULTIPROTOCOL, [high, low, _, safi]) => {
                        multiprotocol = true;
                        open.families.extend(Family::of(u16::from_be_bytes([*high, *low]), *safi));
                    }
                    (FOUR_OCTETS, [a, b, c, d]) => {
                        open.four_octets = true;
                        open.asn = u32::from_be_bytes([*a, *b, *c, *d]);
                    }
                    (MULTIPROTOCOL | FOUR_OCTETS, _) => return Err(Refusal::BAD_OPEN),
                    // What else it can is of no use to us.
                    _ => {}
                }
            }
        }
        if !multiprotocol {
            open.families.insert(Family::V4);
        }
        Ok(open)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut capabilities = Vec::new();
        for family in &self.families {
            let [high, low] = family.afi().to_be_bytes();
            capabilities.extend([MULTIPROTOCOL, 4, high, low, 0, family.safi()]);
        }
        capabilities.extend([REFRESH, 0, FOUR_OCTETS, 4]);
        capabilities.extend(self.asn.to_be_bytes());
        let length = u8::try_from(capabilities.len()).unwrap_or(u8::MAX);
        let mut body = vec![VERSION];
        body.extend(u16::try_from(self.asn).unwrap_or(AS_TRANS).to_be_bytes());
        body.extend(self.hold.to_be_bytes());
        body.extend(self.id.octets());
        body.extend([length.saturating_add(2), CAPABILITIES, length]);
        body.extend(capabilities);
        message::framed(message::OPEN, &body)
    }
}

/// The optional parameters, and whether their lengths have two bytes.
fn parameters(length: u8, rest: &[u8]) -> Result<(bool, &[u8]), Refusal> {
    let (wide, length, list) = match (length, rest) {
        (EXTENDED, [EXTENDED, high, low, list @ ..]) => {
            (true, usize::from(u16::from_be_bytes([*high, *low])), list)
        }
        (length, list) => (false, usize::from(length), list),
    };
    if list.len() == length { Ok((wide, list)) } else { Err(Refusal::BAD_OPEN) }
}

/// Types with values, one after the other; the last one without a value when it is cut off.
struct Items<'a> {
    rest: &'a [u8],
    wide: bool,
}

impl<'a> Items<'a> {
    fn new(rest: &'a [u8], wide: bool) -> Items<'a> {
        Items { rest, wide }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = (u8, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, rest) = self.rest.split_first()?;
        let split = match (self.wide, rest) {
            (false, [length, rest @ ..]) => Some((usize::from(*length), rest)),
            (true, [high, low, rest @ ..]) => Some((usize::from(u16::from_be_bytes([*high, *low])), rest)),
            (false | true, _) => None,
        };
        let value = split.and_then(|(length, rest)| rest.split_at_checked(length));
        self.rest = value.map_or(&[], |(_, rest)| rest);
        Some((*kind, value.map(|(value, _)| value)))
    }
}

#[cfg(test)]
mod tests {
    use super::Open;
    use crate::message::{Message, Reader};
    use crate::refusal::Refusal;
    use crate::update::Family;
    use proptest::prelude::{any, prop::collection::vec, proptest};
    use std::collections::BTreeSet;

    fn open(asn: u32, families: &[Family]) -> Open {
        Open {
            asn,
            hold: 3,
            id: "10.0.0.11".parse().unwrap(),
            families: families.iter().copied().collect(),
            four_octets: true,
        }
    }

    fn read(bytes: &[u8]) -> Result<Open, Refusal> {
        let mut reader = Reader::default();
        reader.feed(bytes);
        match reader.next()? {
            Some(Message::Open(open)) => Ok(open),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_we_say_is_read_as_it_was_meant() {
        for asn in [1, 65_001, 4_200_000_001] {
            for families in [&[Family::V4][..], &[Family::V6], &[Family::V4, Family::V6]] {
                let open = open(asn, families);
                assert_eq!(read(&open.bytes()), Ok(open));
            }
        }
        let bytes = open(4_200_000_001, &[Family::V4]).bytes();
        assert_eq!(bytes[20..22], 23_456_u16.to_be_bytes(), "the two bytes of a number that needs four");
        assert!(!bytes.windows(2).any(|pair| pair == [64, 2]), "no graceful restart");
    }

    #[test]
    fn an_old_speaker_has_ipv4_and_two_bytes() {
        let body = [4, 0xFD, 0xE9, 0, 180, 10, 0, 0, 1, 0];
        let open = Open::parse(&body).unwrap();
        assert_eq!((open.asn, open.hold, open.four_octets), (65_001, 180, false));
        assert_eq!(open.families, BTreeSet::from([Family::V4]));
        // One of another family only is not asked for IPv4.
        let other = [4, 0xFD, 0xE9, 0, 180, 10, 0, 0, 1, 8, 2, 6, 1, 4, 0, 25, 0, 65];
        assert!(Open::parse(&other).unwrap().families.is_empty());
        // The same with lengths of two bytes.
        let wide = [4, 0xFD, 0xE9, 0, 180, 10, 0, 0, 1, 255, 255, 0, 9, 2, 0, 6, 1, 4, 0, 2, 0, 1];
        assert_eq!(Open::parse(&wide).unwrap().families, BTreeSet::from([Family::V6]));
    }

    #[test]
    fn a_broken_one_is_refused() {
        let with = |rest: &[u8]| Open::parse(&[&[4, 0, 1, 0, 9, 1, 1, 1, 1][..], rest].concat());
        assert_eq!(Open::parse(&[3, 0, 1, 0, 9, 1, 1, 1, 1, 0]), Err(Refusal::with(2, 1, &[0, 4])));
        for rest in [
            &[1][..],
            &[2, 2],
            &[1, 2],
            &[3, 2, 2, 65],
            &[4, 2, 2, 65, 4],
            &[5, 2, 3, 65, 1, 0],
            &[255, 255, 0],
            &[3, 2, 5, 0],
        ] {
            assert_eq!(with(rest), Err(Refusal::BAD_OPEN), "{rest:?}");
        }
        assert_eq!(with(&[2, 1, 0]), Err(Refusal::BAD_PARAMETER), "authentication of old");
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_survived(body in vec(any::<u8>(), 0..300)) {
            let _ = Open::parse(&body);
        }
    }
}
