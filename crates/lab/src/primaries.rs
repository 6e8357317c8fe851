//! Who really takes writes: every node is asked on its own socket, behind the router's back, all the time.
//!
//! A node that says it is no standby is given a row to commit. It was writable at some moment between the sending and the
//! answer, so a stretch of answers proves it writable from the first answer to the last sending. Two nodes whose proven
//! stretches overlap were two primaries; what cannot be proven is not counted.

use crate::client::Target;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use types::Moment;

const PACE: Duration = Duration::from_millis(20);
/// A longer silence ends a stretch.
const SILENCE: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(2);
const MOST_STRETCHES: usize = 10_000;

/// The watchers of all nodes. Dropped, they end.
pub struct Primaries {
    seen: Arc<Mutex<PrimariesReport>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// When which node took writes.
#[derive(Clone, Debug, Default)]
pub struct PrimariesReport {
    stretches: BTreeMap<String, Vec<Stretch>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    /// The first answer.
    from: Moment,
    /// When the last answered commit was sent.
    to: Moment,
    /// The last answer.
    answered: Moment,
}

impl Primaries {
    /// Watches the given nodes: name and own socket. The table must have been made by [`Primaries::prepare`].
    #[must_use]
    pub fn watch(nodes: Vec<(String, Target)>) -> Primaries {
        let seen = Arc::new(Mutex::new(PrimariesReport::default()));
        let (stop, stopped) = watch::channel(false);
        let tasks = nodes.into_iter().map(|(name, target)| {
            let (seen, stopped) = (Arc::clone(&seen), stopped.clone());
            tokio::spawn(probe(name, target, seen, stopped))
        });
        Primaries { tasks: tasks.collect(), seen, stop }
    }

    /// Creates the table that the watchers write to.
    pub async fn prepare(primary: &Target) -> anyhow::Result<()> {
        primary.run("CREATE TABLE IF NOT EXISTS lab_probe (node text, at timestamptz)", LIMIT * 5).await
    }

    /// Ends the watchers and returns what they saw.
    pub async fn stop(mut self) -> PrimariesReport {
        let _ = self.stop.send(true);
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Primaries {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn probe(
    name: String,
    target: Target,
    seen: Arc<Mutex<PrimariesReport>>,
    stopped: watch::Receiver<bool>,
) {
    let mut connection: Option<Client> = None;
    while !*stopped.borrow() {
        match &connection {
            None => connection = connect(&target).await,
            Some(client) => {
                let sent = clock::now();
                match timeout(LIMIT, commit(client, &name)).await {
                    Ok(Ok(accepted)) => {
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        seen.record(&name, accepted, sent, clock::now());
                    }
                    Ok(Err(_)) | Err(_) => connection = None,
                }
            }
        }
        sleep(PACE).await;
    }
}

async fn connect(target: &Target) -> Option<Client> {
    let client = target.connect(LIMIT).await.ok()?;
    // A primary that waits for its standbys takes writes all the same: the wait must not hide it.
    let ready = timeout(LIMIT, client.batch_execute("SET synchronous_commit = local")).await;
    matches!(ready, Ok(Ok(()))).then_some(client)
}

async fn commit(client: &Client, name: &str) -> Result<bool, tokio_postgres::Error> {
    let row = client.query_one("SELECT pg_is_in_recovery() OR to_regclass('lab_probe') IS NULL", &[]).await?;
    if row.get(0) {
        return Ok(false);
    }
    client.execute("INSERT INTO lab_probe VALUES ($1, clock_timestamp())", &[&name]).await.map(|_| true)
}

impl PrimariesReport {
    fn record(&mut self, name: &str, accepted: bool, sent: Moment, answered: Moment) {
        let stretches = self.stretches.entry(name.to_owned()).or_default();
        let room = stretches.len() < MOST_STRETCHES;
        match stretches.last_mut() {
            Some(last) if accepted && sent.since(last.answered) < SILENCE => {
                (last.to, last.answered) = (sent, answered);
            }
            Some(_) | None if accepted && room => {
                stretches.push(Stretch { from: answered, to: answered, answered });
            }
            // A node that says it is a standby ends its stretch: the silence before the next one is made long enough.
            Some(last) if !accepted => last.answered = Moment(0),
            Some(_) | None => {}
        }
    }

    /// How long two nodes provably took writes at the same time.
    #[must_use]
    pub fn two_primaries(&self) -> Duration {
        self.two_primaries_between(Moment(0), Moment(u64::MAX))
    }

    /// The same, within a window.
    #[must_use]
    pub fn two_primaries_between(&self, from: Moment, to: Moment) -> Duration {
        let nodes: Vec<&Vec<Stretch>> = self.stretches.values().collect();
        let mut total = Duration::ZERO;
        for (at, one) in nodes.iter().enumerate() {
            for two in nodes.iter().skip(at + 1) {
                for (a, b) in one.iter().flat_map(|a| two.iter().map(move |b| (a, b))) {
                    total += a.to.min(b.to).min(to).since(a.from.max(b.from).max(from));
                }
            }
        }
        total
    }

    /// When which node took writes, for a message.
    #[must_use]
    pub fn describe(&self) -> String {
        let of = |(name, stretches): (&String, &Vec<Stretch>)| {
            let times: Vec<String> =
                stretches.iter().map(|one| format!("{:?} to {:?}", one.from, one.to)).collect();
            format!("{name}: {}", times.join(", "))
        };
        self.stretches.iter().map(of).collect::<Vec<_>>().join("; ")
    }

    /// How many nodes took writes at some time.
    #[must_use]
    pub fn writers(&self) -> usize {
        self.stretches.values().filter(|stretches| !stretches.is_empty()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::PrimariesReport;
    use types::Moment;

    fn report(rows: &[(&str, bool, u64, u64)]) -> PrimariesReport {
        let mut report = PrimariesReport::default();
        for (name, accepted, sent, answered) in rows {
            report.record(name, *accepted, Moment(*sent), Moment(*answered));
        }
        report
    }

    #[test]
    fn overlapping_stretches_are_two_primaries() {
        let twice =
            report(&[("a", true, 0, 5), ("b", true, 90, 100), ("a", true, 150, 400), ("b", true, 200, 210)]);
        assert_eq!(twice.two_primaries().as_millis(), 50, "{}", twice.describe());
        assert_eq!(twice.writers(), 2);
    }

    #[test]
    fn one_after_the_other_is_not() {
        let once =
            report(&[("a", true, 0, 5), ("a", true, 20, 30), ("b", true, 40, 50), ("b", true, 60, 70)]);
        assert_eq!(once.two_primaries().as_millis(), 0);
        // An answer that came late proves nothing after its sending.
        let late =
            report(&[("a", true, 0, 5), ("a", true, 20, 900), ("b", true, 100, 110), ("b", true, 300, 310)]);
        assert_eq!(late.two_primaries().as_millis(), 0);
    }

    #[test]
    fn a_standby_in_between_ends_a_stretch() {
        let back = report(&[
            ("a", true, 0, 5),
            ("a", false, 30, 30),
            ("a", true, 600, 610),
            ("b", true, 100, 110),
            ("b", true, 200, 210),
        ]);
        assert_eq!(back.two_primaries().as_millis(), 0, "{}", back.describe());
    }
}
