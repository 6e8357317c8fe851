//! What a workload saw: the longest pause, what failed, what was lost.

use super::Target;
use anyhow::{Context, Result, anyhow};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use types::Moment;

/// One acknowledged row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub id: i64,
    pub sent: Moment,
    pub at: Moment,
}

/// One thing that did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub at: Moment,
    pub kind: FailureKind,
    /// SQLSTATE, when the server (or the router) said one.
    pub state: Option<String>,
    pub text: String,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// A statement ended with an error, or its connection was lost under it.
    Statement,
    /// A connection could not be made.
    Connection,
}

/// Everything a workload saw, in the order of time.
#[derive(Default)]
pub struct WorkReport {
    pub acks: Vec<Ack>,
    pub failures: Vec<Failure>,
    pub(super) target: Option<Target>,
}

impl WorkReport {
    /// The longest time between two acknowledged commits, most of which lies between these moments: a pause that begins in the last
    /// moments of one event's window belongs to the next event.
    #[must_use]
    pub fn longest_pause(&self, from: Moment, to: Moment) -> Duration {
        let gaps = self.acks.windows(2).filter_map(|pair| match pair {
            [one, two] => {
                let (length, within) = (two.at.since(one.at), two.at.min(to).since(one.at.max(from)));
                let fills = one.at <= from && two.at >= to;
                (fills || within >= length / 2).then_some(length)
            }
            [..] => None,
        });
        let last = self.acks.last().map_or(Duration::ZERO, |ack| to.since(ack.at));
        gaps.max().unwrap_or_default().max(last)
    }

    /// Every time longer than `least` between two acknowledged commits: when it began, and how long it was.
    #[must_use]
    pub fn pauses(&self, least: Duration) -> Vec<(Moment, Duration)> {
        let gaps = self.acks.windows(2).filter_map(|pair| match pair {
            [one, two] => Some((one.at, two.at.since(one.at))),
            [..] => None,
        });
        gaps.filter(|(_, length)| *length > least).collect()
    }

    /// How many failures of a kind fall between two moments.
    #[must_use]
    pub fn failed(&self, kind: FailureKind, from: Moment, to: Moment) -> usize {
        self.between(from, to).filter(|failure| failure.kind == kind).count()
    }

    /// The failures between two moments, counted by what they were.
    #[must_use]
    pub fn causes(&self, from: Moment, to: Moment) -> BTreeMap<String, usize> {
        let mut causes = BTreeMap::new();
        for failure in self.between(from, to) {
            let state = failure.state.as_deref().unwrap_or("no SQLSTATE");
            *causes.entry(format!("{:?} {state}: {}", failure.kind, failure.text)).or_default() += 1;
        }
        causes
    }

    fn between(&self, from: Moment, to: Moment) -> impl Iterator<Item = &Failure> {
        self.failures.iter().filter(move |failure| failure.at >= from && failure.at <= to)
    }

    /// The acknowledged rows that are not in the table now, asked through the router.
    pub async fn missing(&self) -> Result<Vec<Ack>> {
        let target = self.target.as_ref().ok_or_else(|| anyhow!("this workload has not ended yet"))?;
        let client = target.connect(Duration::from_secs(20)).await?;
        let rows = client.query("SELECT id FROM lab_rows", &[]).await.context("read the rows back")?;
        let present: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        Ok(self.acks.iter().filter(|ack| !present.contains(&ack.id)).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{Ack, Failure, FailureKind, WorkReport};
    use std::time::Duration;
    use types::Moment;

    fn report(times: &[u64]) -> WorkReport {
        let ack = |(id, at): (usize, &u64)| Ack { id: id as i64, sent: Moment(*at), at: Moment(*at) };
        WorkReport { acks: times.iter().enumerate().map(ack).collect(), ..WorkReport::default() }
    }

    #[test]
    fn the_pause_is_the_longest_gap_that_lies_in_the_window() {
        let report = report(&[0, 10, 500, 510, 2000]);
        let pause = |from, to| report.longest_pause(Moment(from), Moment(to)).as_millis();
        assert_eq!(pause(0, 2000), 1490);
        assert_eq!(pause(20, 505), 490);
        assert_eq!(pause(0, 1300), 1490, "a gap that lies in the window for the most part counts whole");
        assert_eq!(pause(0, 511), 490, "one that begins in its last moment belongs to the next window");
        assert_eq!(pause(512, 2100), 1490);
        assert_eq!(pause(600, 700), 1490, "a gap that is longer than the window");
        let long = report.pauses(Duration::from_millis(400));
        assert_eq!(
            long,
            [(Moment(10), Duration::from_millis(490)), (Moment(510), Duration::from_millis(1490))]
        );
        assert_eq!(pause(1900, 9000), 7000, "a pause that has not ended counts as well");
    }

    #[test]
    fn failures_are_counted_by_kind_and_cause() {
        let mut report = report(&[]);
        let failure = |at, kind| Failure { at: Moment(at), kind, state: None, text: "gone".to_owned() };
        report.failures = vec![failure(1, FailureKind::Statement), failure(5, FailureKind::Connection)];
        assert_eq!(report.failed(FailureKind::Statement, Moment(0), Moment(9)), 1);
        assert_eq!(report.failed(FailureKind::Connection, Moment(0), Moment(4)), 0);
        assert_eq!(report.longest_pause(Moment(0), Moment(9)), Duration::ZERO);
        assert_eq!(report.causes(Moment(0), Moment(9)).len(), 2);
    }
}
