//! NOTIFICATION: why a session ends, as bytes (RFC 4271, 4.5 and 6) and in words. Pure.

use std::fmt;

/// Why one side ends a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub code: u8,
    pub subcode: u8,
    pub data: Vec<u8>,
}

/// Of what a neighbour says in its own words (RFC 9003), so much is shown.
const WORDS: usize = 128;

impl Refusal {
    pub(crate) const NOT_SYNCHRONIZED: Refusal = Refusal::plain(1, 1);
    pub(crate) const BAD_OPEN: Refusal = Refusal::plain(2, 0);
    pub(crate) const BAD_PEER_AS: Refusal = Refusal::plain(2, 2);
    pub(crate) const BAD_IDENTIFIER: Refusal = Refusal::plain(2, 3);
    pub(crate) const BAD_PARAMETER: Refusal = Refusal::plain(2, 4);
    pub(crate) const BAD_HOLD_TIME: Refusal = Refusal::plain(2, 6);
    pub(crate) const BAD_ATTRIBUTES: Refusal = Refusal::plain(3, 1);
    pub(crate) const HOLD_EXPIRED: Refusal = Refusal::plain(4, 0);
    pub(crate) const UNEXPECTED: Refusal = Refusal::plain(5, 0);
    pub(crate) const SHUTDOWN: Refusal = Refusal::plain(6, 2);
    pub(crate) const COLLISION: Refusal = Refusal::plain(6, 7);

    pub(crate) const fn plain(code: u8, subcode: u8) -> Refusal {
        Refusal { code, subcode, data: Vec::new() }
    }

    pub(crate) fn with(code: u8, subcode: u8, data: &[u8]) -> Refusal {
        Refusal { code, subcode, data: data.to_vec() }
    }

    /// What the neighbour's people wrote with a shutdown.
    fn words(&self) -> Option<String> {
        if self.code != 6 || !matches!(self.subcode, 2 | 4) {
            return None;
        }
        let (length, rest) = self.data.split_first()?;
        let words = rest.get(..usize::from(*length))?;
        let words = String::from_utf8_lossy(words);
        let shown: String = words.chars().take(WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect();
        (!shown.is_empty()).then_some(shown)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.code, self.subcode) {
            (1, 1) => "not in step (message header, connection not synchronized)",
            (1, 2) => "bad length of a message",
            (1, 3) => "unknown type of a message",
            (1, _) => "bad message header",
            (2, 1) => "another version of BGP is spoken",
            (2, 2) => "bad peer AS: compare the AS numbers on both sides",
            (2, 3) => "bad BGP identifier: each speaker needs a router id of its own",
            (2, 4) => "an optional parameter is not known",
            (2, 6) => "the hold time is not accepted",
            (2, 7) => "a capability is not supported",
            (2, 11) => "the roles of the two do not fit",
            (2, _) => "bad OPEN",
            (3, _) => "bad UPDATE",
            (4, _) => "the hold time passed without a word",
            (5, _) => "a message came that does not fit the state",
            (6, 1) => "too many prefixes",
            (6, 2) => "shut down by its administrator",
            (6, 3) => "this neighbour was removed from its configuration",
            (6, 4) => "reset by its administrator",
            (6, 5) => "connection rejected: it does not expect this neighbour, or not now",
            (6, 6) => "its configuration changed",
            (6, 7) => "two connections met, this one goes",
            (6, 8) => "out of resources",
            (6, 10) => "its link or its BFD session is down",
            (6, _) => "cease",
            _ => "an error without a name",
        };
        write!(f, "{what} (NOTIFICATION {}/{})", self.code, self.subcode)?;
        match self.words() {
            Some(words) => write!(f, ", saying {words:?}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Refusal;

    #[test]
    fn every_code_has_words() {
        for code in 0..=7 {
            for subcode in 0..=12 {
                let text = Refusal::plain(code, subcode).to_string();
                assert!(text.ends_with(&format!("(NOTIFICATION {code}/{subcode})")), "{text}");
            }
        }
    }

    #[test]
    fn what_people_write_is_shown_and_cannot_break_a_line() {
        let said = Refusal::with(6, 2, b"\x0bmaintenance\n");
        assert!(said.to_string().ends_with(r#"saying "maintenance""#), "{said}");
        let odd = Refusal::with(6, 2, b"\x04a\nb\x1b");
        assert!(odd.to_string().ends_with(r#"saying "a b ""#), "{odd}");
        for short in [&b""[..], b"\xff", b"\x05abc"] {
            assert!(!Refusal::with(6, 4, short).to_string().contains("saying"));
        }
    }
}
