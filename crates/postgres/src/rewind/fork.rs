//! Where two histories part.

use types::{History, Lsn, Timeline};

/// The last position that two histories share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The timeline it lies on.
    pub timeline: Timeline,
    /// `Lsn(u64::MAX)` when the two are on the same timeline: nothing parts them so far.
    pub lsn: Lsn,
}

/// Finds the fork of two histories; `None` when they share no timeline.
#[must_use]
pub fn fork(ours: &History, theirs: &History) -> Option<Fork> {
    let mut found = None;
    for (our, their) in spans(ours).zip(spans(theirs)) {
        if our.timeline != their.timeline {
            break;
        }
        found = Some(Fork { timeline: our.timeline, lsn: our.lsn.min(their.lsn) });
        if our.lsn != their.lsn {
            break;
        }
    }
    found
}

/// Each timeline with its end; the last one has none.
fn spans(history: &History) -> impl Iterator<Item = Fork> {
    let last = Fork { timeline: history.timeline, lsn: Lsn(u64::MAX) };
    history.lines.iter().map(|line| Fork { timeline: line.timeline, lsn: line.end }).chain([last])
}

#[cfg(test)]
mod tests {
    use super::fork;
    use types::{History, Lsn, Timeline};

    fn history(timeline: u32, content: &str) -> History {
        History::parse(Timeline(timeline), content).unwrap()
    }

    #[test]
    fn the_last_common_position_is_found() {
        let found =
            |ours: &History, theirs: &History| fork(ours, theirs).map(|fork| (fork.timeline.0, fork.lsn));
        let (first, second) = (History::first(), history(2, "1 0/50 x"));
        assert_eq!(found(&first, &second), Some((1, Lsn(0x50))));
        assert_eq!(found(&second, &first), Some((1, Lsn(0x50))));
        assert_eq!(found(&second, &second), Some((2, Lsn(u64::MAX))));
        let third = history(3, "1 0/50 x\n2 0/90 x");
        assert_eq!(found(&second, &third), Some((2, Lsn(0x90))));
        // Two that left the first timeline each on its own, at different positions or under different numbers.
        assert_eq!(found(&history(2, "1 0/40 x"), &third), Some((1, Lsn(0x40))));
        assert_eq!(found(&history(4, "1 0/60 x"), &third), Some((1, Lsn(0x50))));
        assert_eq!(found(&history(3, "2 0/60 x"), &third), None);
    }
}
