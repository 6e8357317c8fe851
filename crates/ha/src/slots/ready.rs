//! Whether a copied logical slot can be used after a promotion.
//!
//! A logical slot needs old rows of the catalogs. The copy is safe once the primary keeps them for it: the primary's physical slot
//! of this standby holds them back (by the standby's feedback), and everything that was removed before it did is older than what
//! the copy needs by now.

/// The transactions from which on rows are kept; all on the wire as 32 bits that wrap around.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Evidence {
    /// On the primary, for this standby's physical slot.
    pub held_for_standby: Option<u32>,
    /// On the primary, for the logical slot itself.
    pub on_primary: Option<u32>,
    /// Here, for the copy.
    pub here: Option<u32>,
}

/// How far a copy is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// The primary keeps nothing for this standby yet.
    NotHeld,
    /// It keeps rows since the slot was there; the copy must get there too.
    Until(u32),
    Ready,
}

/// The next state of a copy.
#[must_use]
pub fn readiness(before: Readiness, evidence: Evidence) -> Readiness {
    let (Some(held), Some(here)) = (evidence.held_for_standby, evidence.here) else {
        return if before == Readiness::Ready { Readiness::Ready } else { Readiness::NotHeld };
    };
    let must = match (before, evidence.on_primary) {
        (Readiness::Ready, _) => return Readiness::Ready,
        (Readiness::Until(must), _) | (Readiness::NotHeld, Some(must)) => must,
        (Readiness::NotHeld, None) => return Readiness::NotHeld,
    };
    if precedes(here, must) || precedes(here, held) { Readiness::Until(must) } else { Readiness::Ready }
}

/// Whether transaction `a` is older than `b`, on the circle.
fn precedes(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

#[cfg(test)]
mod tests {
    use super::{Evidence, Readiness, readiness};

    fn seen(held: Option<u32>, on_primary: u32, here: u32) -> Evidence {
        Evidence { held_for_standby: held, on_primary: Some(on_primary), here: Some(here) }
    }

    #[test]
    fn a_copy_is_ready_when_the_primary_held_its_rows_all_the_time() {
        assert_eq!(readiness(Readiness::NotHeld, seen(None, 700, 700)), Readiness::NotHeld);
        // Held, but the primary's slot had moved on meanwhile: rows between may be gone.
        let waits = readiness(Readiness::NotHeld, seen(Some(700), 720, 700));
        assert_eq!(waits, Readiness::Until(720));
        assert_eq!(readiness(waits, seen(Some(710), 740, 710)), Readiness::Until(720));
        assert_eq!(readiness(waits, seen(Some(720), 740, 720)), Readiness::Ready);
        assert_eq!(readiness(Readiness::NotHeld, seen(Some(700), 700, 700)), Readiness::Ready);
    }

    #[test]
    fn transactions_are_compared_on_the_circle() {
        assert_eq!(readiness(Readiness::Until(u32::MAX - 5), seen(Some(3), 9, 3)), Readiness::Ready);
        assert_eq!(readiness(Readiness::Until(3), seen(Some(3), 9, u32::MAX)), Readiness::Until(3));
    }

    #[test]
    fn without_feedback_it_is_never_ready() {
        assert_eq!(readiness(Readiness::Until(7), seen(None, 7, 7)), Readiness::NotHeld);
        assert_eq!(readiness(Readiness::Ready, Evidence::default()), Readiness::Ready);
    }
}
