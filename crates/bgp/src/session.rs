//! One connection to a neighbour: what is expected next, and when somebody has been silent for too long (RFC 4271, 8). Pure.
//!
//! ```text
//!   OpenSent ──OPEN──► OpenConfirm ──KEEPALIVE──► Established ──► until a NOTIFICATION, an error, or silence
//!      └─────── anything else: a NOTIFICATION, and the end ───────┘
//! ```
//! The states before, Idle, Connect and Active, have no connection and belong to the neighbour.

use crate::fence;
use crate::message::Message;
use crate::open::Open;
use crate::refusal::Refusal;
use crate::update::Family;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;
use types::Moment;

/// What a neighbour and we must agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub own: Open,
    pub peer_as: u32,
}

/// What was agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub hold: Duration,
    pub four_octets: bool,
    /// Of ours, those that the neighbour takes.
    pub families: BTreeSet<Family>,
    pub peer_id: Ipv4Addr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    OpenSent,
    OpenConfirm,
    Established,
}

/// What a message means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Nothing,
    /// It is who it should be; answer with a keepalive, and see whether there is another connection to it.
    Opened,
    Established,
    /// All routes of this family once more.
    Refresh(Family),
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Tell the neighbour.
    Ours(Refusal),
    /// The same, with a bad peer AS: it is somebody else than configured.
    OtherAs {
        says: u32,
    },
    Theirs(Refusal),
}

/// The state of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    stage: Stage,
    agreed: Option<Agreed>,
    heard: Moment,
    said: Moment,
}

/// A neighbour may take so long until its OPEN comes.
const PATIENCE: Duration = Duration::from_secs(10);
/// RFC 4271: a shorter hold time is refused, and so is none, under which nobody's silence would mean anything.
pub(crate) const SHORTEST_HOLD: u16 = 3;

impl Session {
    /// A connection on which our OPEN was just sent.
    pub(crate) fn new(now: Moment) -> Session {
        Session { stage: Stage::OpenSent, agreed: None, heard: now, said: now }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    pub(crate) fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_ref()
    }

    /// Something was sent.
    pub(crate) fn said(&mut self, now: Moment) {
        self.said = now;
    }

    /// Takes a message.
    pub(crate) fn hear(&mut self, message: Message, terms: &Terms, now: Moment) -> Result<Heard, End> {
        self.heard = now;
        match (self.stage, message) {
            (_, Message::Notification(why)) => Err(End::Theirs(why)),
            (Stage::OpenSent, Message::Open(open)) => {
                self.agreed = Some(agree(terms, &open)?);
                self.stage = Stage::OpenConfirm;
                Ok(Heard::Opened)
            }
            (Stage::OpenConfirm, Message::Keepalive) => {
                self.stage = Stage::Established;
                Ok(Heard::Established)
            }
            (Stage::Established, Message::Refresh(Some(family))) => Ok(Heard::Refresh(family)),
            (Stage::Established, Message::Keepalive | Message::Update | Message::Refresh(None)) => {
                Ok(Heard::Nothing)
            }
            (
                Stage::OpenSent | Stage::OpenConfirm | Stage::Established,
                Message::Open(_) | Message::Keepalive | Message::Update | Message::Refresh(_),
            ) => Err(End::Ours(self.unexpected())),
        }
    }

    /// By state (RFC 6608).
    fn unexpected(&self) -> Refusal {
        let subcode = match self.stage {
            Stage::OpenSent => 1,
            Stage::OpenConfirm => 2,
            Stage::Established => 3,
        };
        Refusal { subcode, ..Refusal::UNEXPECTED }
    }

    /// When the neighbour has been silent for too long.
    pub(crate) fn silent_at(&self) -> Moment {
        self.heard.after(self.agreed.as_ref().map_or(PATIENCE, |agreed| agreed.hold))
    }

    /// When the next keepalive is due; none before there is something to keep.
    pub(crate) fn keepalive_at(&self) -> Option<Moment> {
        Some(self.said.after(fence::period(self.agreed.as_ref()?.hold)))
    }
}

/// Whether it is who it should be, and what both can.
fn agree(terms: &Terms, open: &Open) -> Result<Agreed, End> {
    if open.asn != terms.peer_as {
        return Err(End::OtherAs { says: open.asn });
    }
    // Unique among all speakers; within one AS only that must hold (RFC 6286), and no host speaks with itself.
    if open.id.is_unspecified() || open.id == terms.own.id {
        return Err(End::Ours(Refusal::BAD_IDENTIFIER));
    }
    if open.hold < SHORTEST_HOLD {
        return Err(End::Ours(Refusal::BAD_HOLD_TIME));
    }
    Ok(Agreed {
        hold: Duration::from_secs(u64::from(open.hold.min(terms.own.hold))),
        four_octets: open.four_octets,
        families: terms.own.families.intersection(&open.families).copied().collect(),
        peer_id: open.id,
    })
}

/// Of two connections to one neighbour, whether ours is the one that stays: the larger identifier's (RFC 4271, 6.8), and of equal ones
/// the larger AS number's (RFC 6286).
pub(crate) fn ours_stays(terms: &Terms, peer_id: Ipv4Addr) -> bool {
    (terms.own.id, terms.own.asn) > (peer_id, terms.peer_as)
}

#[cfg(test)]
mod tests {
    use super::{End, Heard, Session, Stage, Terms, ours_stays};
    use crate::message::Message;
    use crate::open::Open;
    use crate::refusal::Refusal;
    use crate::update::Family;
    use std::collections::BTreeSet;
    use std::time::Duration;
    use types::Moment;

    fn open(asn: u32, hold: u16, id: &str, families: &[Family]) -> Open {
        let families = families.iter().copied().collect();
        Open { asn, hold, id: id.parse().unwrap(), families, four_octets: true }
    }

    fn terms() -> Terms {
        Terms { own: open(65_001, 3, "10.0.0.11", &[Family::V4, Family::V6]), peer_as: 65_000 }
    }

    fn theirs() -> Open {
        open(65_000, 240, "10.0.0.1", &[Family::V4])
    }

    fn established() -> Session {
        let mut session = Session::new(Moment(0));
        session.hear(Message::Open(theirs()), &terms(), Moment(10)).unwrap();
        session.hear(Message::Keepalive, &terms(), Moment(20)).unwrap();
        session
    }

    #[test]
    fn it_comes_up_with_the_shorter_hold_time_and_what_both_can() {
        let mut session = Session::new(Moment(0));
        assert_eq!((session.stage(), session.keepalive_at()), (Stage::OpenSent, None));
        assert_eq!(session.silent_at(), Moment(10_000));
        assert_eq!(session.hear(Message::Open(theirs()), &terms(), Moment(10)), Ok(Heard::Opened));
        assert_eq!(session.stage(), Stage::OpenConfirm);
        session.said(Moment(10));
        assert_eq!(session.hear(Message::Keepalive, &terms(), Moment(20)), Ok(Heard::Established));
        let agreed = session.agreed().unwrap();
        assert_eq!((agreed.hold, agreed.four_octets), (Duration::from_secs(3), true));
        assert_eq!(agreed.families, BTreeSet::from([Family::V4]));
        assert_eq!((session.silent_at(), session.keepalive_at()), (Moment(3020), Some(Moment(1010))));
        for (message, heard) in [
            (Message::Keepalive, Heard::Nothing),
            (Message::Update, Heard::Nothing),
            (Message::Refresh(None), Heard::Nothing),
            (Message::Refresh(Some(Family::V6)), Heard::Refresh(Family::V6)),
        ] {
            assert_eq!(session.hear(message, &terms(), Moment(500)), Ok(heard));
        }
        assert_eq!(session.silent_at(), Moment(3500));
    }

    #[test]
    fn who_is_somebody_else_is_refused() {
        let families = [Family::V4];
        for (open, why) in [
            (open(65_000, 9, "0.0.0.0", &families), Refusal::BAD_IDENTIFIER),
            (open(65_000, 9, "10.0.0.11", &families), Refusal::BAD_IDENTIFIER),
            (open(65_000, 2, "10.0.0.1", &families), Refusal::BAD_HOLD_TIME),
            (open(65_000, 0, "10.0.0.1", &families), Refusal::BAD_HOLD_TIME),
        ] {
            let refused = Session::new(Moment(0)).hear(Message::Open(open), &terms(), Moment(1));
            assert_eq!(refused, Err(End::Ours(why)));
        }
        let other = open(65_009, 9, "10.0.0.1", &families);
        let refused = Session::new(Moment(0)).hear(Message::Open(other), &terms(), Moment(1));
        assert_eq!(refused, Err(End::OtherAs { says: 65_009 }));
    }

    #[test]
    fn what_does_not_fit_the_state_ends_it() {
        let ours = |subcode| Err(End::Ours(Refusal::plain(5, subcode)));
        let mut fresh = Session::new(Moment(0));
        assert_eq!(fresh.hear(Message::Keepalive, &terms(), Moment(1)), ours(1));
        assert_eq!(fresh.hear(Message::Open(theirs()), &terms(), Moment(1)), Ok(Heard::Opened));
        assert_eq!(fresh.hear(Message::Update, &terms(), Moment(1)), ours(2));
        assert_eq!(established().hear(Message::Open(theirs()), &terms(), Moment(1)), ours(3));
        let bye = Message::Notification(Refusal::SHUTDOWN);
        assert_eq!(established().hear(bye, &terms(), Moment(1)), Err(End::Theirs(Refusal::SHUTDOWN)));
    }

    #[test]
    fn of_two_connections_the_larger_identifier_s_stays() {
        assert!(ours_stays(&terms(), "10.0.0.1".parse().unwrap()));
        assert!(!ours_stays(&terms(), "10.0.0.12".parse().unwrap()));
        assert!(ours_stays(&terms(), "10.0.0.11".parse().unwrap()), "65001 is larger than 65000");
    }
}
