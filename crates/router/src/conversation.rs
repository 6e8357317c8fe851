//! Where a session stands in PostgreSQL's protocol, from the headers of its messages alone.
//!
//! ```text
//!   startup packet, Query, Sync, FunctionCall   one more ReadyForQuery is owed
//!   Parse, Bind, Execute, …                     unfinished until the next Sync
//!   ReadyForQuery (I, T or E)                   one less is owed; the state of the transaction
//!
//!   idle = nothing unfinished, nothing owed, state I, both streams at the end of a message
//! ```
//! A count that is too high (a Sync that the server ignores while it takes a COPY) only makes a session look busy.

use crate::wire::{CANCEL_KEY_BYTES, CancelKey, Frames};

/// Follows both directions of one session.
pub(crate) struct Conversation {
    client: Frames,
    server: Frames,
    /// ReadyForQuery messages that the server owes.
    owed: u32,
    /// The client has sent messages of the extended protocol without a Sync after them.
    unfinished: bool,
    /// The client has asked for something since it logged in.
    asked: bool,
    /// What the last ReadyForQuery said.
    state: u8,
    key: Option<CancelKey>,
    /// The server has said that it is a standby.
    standby: bool,
}

/// What a standby says of itself when a session begins, since PostgreSQL 14.
const STANDBY: &[u8] = b"in_hot_standby\0on\0";

/// Whether the first answer of a server says that it is a standby; where it asks for a password first, it says so later.
pub(crate) fn comes_from_standby(answer: &[u8]) -> bool {
    let mut talk = Conversation::new();
    talk.server_says(answer);
    talk.is_with_standby()
}

impl Conversation {
    /// After the startup packet was sent.
    pub(crate) fn new() -> Conversation {
        Conversation {
            client: Frames::new(),
            server: Frames::new(),
            owed: 1,
            unfinished: false,
            asked: false,
            state: b'I',
            key: None,
            standby: false,
        }
    }

    /// The next bytes from the server.
    pub(crate) fn server_says(&mut self, bytes: &[u8]) {
        let Conversation { server, owed, state, key, standby, .. } = self;
        let wanted = |kind: u8, length: usize| match kind {
            b'K' => length <= CANCEL_KEY_BYTES,
            b'Z' => length == 1,
            b'S' => length == STANDBY.len(),
            _ => false,
        };
        server.feed(bytes, wanted, |kind, body| match (kind, body.first()) {
            (b'Z', Some(now)) => {
                *owed = owed.saturating_sub(1);
                *state = *now;
            }
            (b'S', Some(_)) => *standby |= body == STANDBY,
            (b'K', Some(_)) => *key = Some(CancelKey(body.into())),
            _ => {}
        });
    }

    /// The next bytes from the client.
    pub(crate) fn client_says(&mut self, bytes: &[u8]) {
        let Conversation { client, owed, unfinished, asked, .. } = self;
        client.feed(
            bytes,
            |_, _| false,
            |kind, _| match kind {
                b'Q' | b'S' | b'F' => {
                    *owed = owed.saturating_add(1);
                    *unfinished = false;
                    *asked = true;
                }
                // Data of a COPY, passwords, the end: they ask for nothing new.
                b'd' | b'c' | b'f' | b'p' | b'X' => {}
                _ => {
                    *unfinished = true;
                    *asked = true;
                }
            },
        );
    }

    /// Whether everything the server sent is whole messages, so that one of ours may follow.
    pub(crate) fn at_boundary(&self) -> bool {
        self.server.at_boundary()
    }

    /// Whether nothing is going on: no transaction, no question without its answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.state == b'I'
            && self.owed == 0
            && !self.unfinished
            && self.client.at_boundary()
            && self.server.at_boundary()
    }

    /// Whether the client has asked for something yet.
    pub(crate) fn has_asked(&self) -> bool {
        self.asked
    }

    /// Whether the server is a standby, by its own word.
    pub(crate) fn is_with_standby(&self) -> bool {
        self.standby
    }

    /// The cancel key, once, when it has come by.
    pub(crate) fn take_key(&mut self) -> Option<CancelKey> {
        self.key.take()
    }
}

#[cfg(test)]
mod tests {
    use super::Conversation;
    use crate::wire::message;
    use proptest::prelude::{any, proptest};

    /// `>Q` sends a message of the client, `<Z:I` one of the server; gives whether it is idle after each.
    fn idle_after(script: &[(&str, &[u8])]) -> Vec<bool> {
        let mut talk = Conversation::new();
        let mut idle = Vec::new();
        for (step, body) in script {
            let bytes = message(step.as_bytes()[1], body);
            // Byte by byte: nothing may depend on how the stream is cut.
            for byte in &bytes {
                if step.starts_with('>') {
                    talk.client_says(&[*byte]);
                } else {
                    talk.server_says(&[*byte]);
                }
            }
            idle.push(talk.is_idle());
        }
        idle
    }

    #[test]
    fn a_session_is_idle_between_transactions_only() {
        assert!(!Conversation::new().has_asked());
        let login: [(&str, &[u8]); 4] =
            [("<R", &[0; 4]), (">p", b"secret\0"), ("<K", &[0, 0, 0, 1, 9, 9, 9, 9]), ("<Z", b"I")];
        assert_eq!(idle_after(&login), [false, false, false, true]);
        let mut script = login.to_vec();
        script.extend::<[(&str, &[u8]); 6]>([
            (">Q", b"begin\0"),
            ("<C", b"BEGIN\0"),
            ("<Z", b"T"),
            (">Q", b"commit\0"),
            ("<C", b"COMMIT\0"),
            ("<Z", b"I"),
        ]);
        assert_eq!(idle_after(&script)[4..], [false, false, false, false, false, true]);
    }

    #[test]
    fn the_extended_protocol_is_idle_after_sync_and_a_failed_transaction_is_not() {
        let script: [(&str, &[u8]); 9] = [
            ("<Z", b"I"),
            (">P", b"\0select 1\0\0\0"),
            (">B", b"\0\0"),
            (">E", b"\0\0\0\0\0"),
            (">S", b""),
            ("<E", b"C22012\0\0"),
            ("<Z", b"E"),
            (">Q", b"rollback\0"),
            ("<Z", b"I"),
        ];
        let idle = idle_after(&script);
        assert_eq!(idle, [true, false, false, false, false, false, false, false, true]);
    }

    #[test]
    fn questions_in_a_row_are_all_waited_for() {
        let script: [(&str, &[u8]); 6] = [
            ("<Z", b"I"),
            (">Q", b"select 1\0"),
            (">Q", b"select 2\0"),
            ("<Z", b"I"),
            ("<Z", b"I"),
            (">Q", b"copy\0"),
        ];
        assert_eq!(idle_after(&script), [true, false, false, false, true, false]);
        let copy: [(&str, &[u8]); 6] = [
            ("<Z", b"I"),
            (">Q", b"copy t from stdin\0"),
            ("<G", &[0; 3]),
            (">d", b"1\n"),
            (">c", b""),
            ("<Z", b"I"),
        ];
        assert_eq!(idle_after(&copy), [true, false, false, false, false, true]);
    }

    #[test]
    fn keys_of_protocol_3_2_are_taken_whole() {
        for length in [8, 36, 260] {
            let mut talk = Conversation::new();
            talk.server_says(&message(b'K', &vec![9; length]));
            assert_eq!(talk.take_key().unwrap().0.len(), length);
        }
        let mut talk = Conversation::new();
        talk.server_says(&message(b'K', &[9; 261]));
        assert!(talk.take_key().is_none() && talk.at_boundary(), "no key is longer");
    }

    #[test]
    fn a_standby_says_so() {
        for (said, standby) in [
            (&b"in_hot_standby\0on\0"[..], true),
            (b"in_hot_standby\0off\0", false),
            (b"x\0in_hot_standby\0on", false),
        ] {
            let mut talk = Conversation::new();
            message(b'S', said).iter().for_each(|byte| talk.server_says(&[*byte]));
            assert_eq!(talk.is_with_standby(), standby);
        }
    }

    #[test]
    fn half_a_message_is_not_idle() {
        let mut talk = Conversation::new();
        talk.server_says(&message(b'Z', b"I"));
        assert!(talk.is_idle());
        talk.client_says(b"Q\0\0");
        assert!(!talk.is_idle());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(parts in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..20)) {
            let mut talk = Conversation::new();
            for (up, part) in &parts {
                if *up { talk.client_says(part) } else { talk.server_says(part) }
                let _ = (talk.is_idle(), talk.at_boundary(), talk.take_key());
            }
        }
    }
}
