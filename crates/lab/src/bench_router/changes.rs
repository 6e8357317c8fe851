//! Changes of the primary, with both proxies probed at the same time: from the fact (the key that says who accepts writes, as it is read
//! from etcd all the time) to the first new connection there, and the new connections that still reach the old one.

use super::cost::{figures, program};
use crate::bench::note;
use crate::client::Target;
use crate::demo::switchover;
use crate::lab::Lab;
use crate::wait::until;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use types::Moment;

pub(crate) const SPAN: Duration = Duration::from_secs(60);
/// A failed probe is followed by the next one after this.
const PAUSE: Duration = Duration::from_millis(5);
/// Asks who answers.
const WHO: &str = "select host(inet_server_addr())";
/// So many connections to the primary one after the other, and a proxy has made up its mind.
const IN_A_ROW: usize = 10;
/// Probes go on for so long after both have found the new primary.
const AFTERMATH: Duration = Duration::from_millis(500);

/// What one proxy made of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// From the fact to the first new connection to the new primary.
    pub(crate) landed: Duration,
    /// Connections that were begun after the fact and reached the old one.
    pub(crate) to_the_old: usize,
    /// Connections that failed.
    pub(crate) failed: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) haproxy: Seen,
    pub(crate) baton: Seen,
}

/// A hung primary: what became of a session on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hang {
    /// From the end of its lease to the end of the session through the router.
    pub(crate) baton_after_lease: Duration,
    /// From its last sign of life to the end of the session.
    pub(crate) baton: Duration,
    /// `None` when it was still open when the primary came back to life.
    pub(crate) haproxy: Option<Duration>,
}

/// One connection: when it was begun and when it was answered, and by whom.
type Probe = (Moment, Moment, Option<String>);

struct Prober {
    over: Arc<AtomicBool>,
    task: JoinHandle<Vec<Probe>>,
}

impl Prober {
    /// One connection after the other; why one failed is told of those that must not.
    fn start(target: &Target, must_not_fail: bool) -> Prober {
        let over = Arc::new(AtomicBool::new(false));
        let (target, ends) = (target.clone(), over.clone());
        let task = tokio::spawn(async move {
            let mut probes = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                let begun = clock::now();
                let answer = target.ask(WHO, SPAN).await;
                if let Err(error) = &answer {
                    if must_not_fail {
                        note(&format!("a connection failed: {error:#}"));
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                probes.push((begun, clock::now(), answer.ok()));
            }
            probes
        });
        Prober { over, task }
    }

    async fn stop(self) -> Result<Vec<Probe>> {
        self.over.store(true, Ordering::Relaxed);
        self.task.await.context("probe")
    }
}

fn seen(probes: &[Probe], fact: Moment, new: &str) -> Option<Seen> {
    let landing = |(_, answered, by): &&Probe| *answered >= fact && by.as_deref() == Some(new);
    let (_, landed, _) = probes.iter().find(landing)?;
    let old = |(begun, _, by): &&Probe| *begun > fact && by.as_deref().is_some_and(|by| by != new);
    Some(Seen {
        landed: landed.since(fact),
        to_the_old: probes.iter().filter(old).count(),
        failed: probes.iter().filter(|(_, _, by)| by.is_none()).count(),
    })
}

/// A planned switchover.
pub(crate) async fn once(lab: &mut Lab, baton: &Target, haproxy: &Target) -> Result<Change> {
    let old = settled(lab, [baton, haproxy]).await?;
    let probers = [Prober::start(baton, true), Prober::start(haproxy, false)];
    switchover(lab, &old).await?;
    let (fact, new) = fact(lab, &old).await?;
    let new = lab.node(&new)?.address.to_string();
    // HAProxy takes seconds: it is asked apart until it has found it.
    for target in [baton, haproxy] {
        until(SPAN, "a new connection to the new primary", async || {
            let by = target.ask(WHO, SPAN).await.ok()?;
            (by == new).then_some(())
        })
        .await?;
    }
    tokio::time::sleep(AFTERMATH).await;
    let [through_baton, through_haproxy] = probers;
    let (through_baton, through_haproxy) = (through_baton.stop().await?, through_haproxy.stop().await?);
    let of =
        |probes: &[Probe]| seen(probes, fact, &new).context("find the first connection to the new primary");
    Ok(Change { haproxy: of(&through_haproxy)?, baton: of(&through_baton)? })
}

/// Waits until all members are well and both proxies lead to the primary every time: HAProxy changes its mind for seconds. The primary.
pub(crate) async fn settled(lab: &mut Lab, proxies: [&Target; 2]) -> Result<String> {
    lab.await_healthy(lab.nodes.len()).await?;
    let primary = lab.primary().await?;
    let address = lab.node(&primary)?.address.to_string();
    for target in proxies {
        let mut in_a_row = 0;
        while in_a_row < IN_A_ROW {
            let by = until(SPAN, "a connection", async || target.ask(WHO, SPAN).await.ok()).await?;
            in_a_row = if by == address { in_a_row + 1 } else { 0 };
        }
    }
    Ok(primary)
}

/// When another member than `old` says that it accepts writes, and which.
async fn fact(lab: &Lab, old: &str) -> Result<(Moment, String)> {
    let end = clock::now().after(SPAN);
    loop {
        let view = lab.view().await?;
        if let Some(new) = view.writable.filter(|name| name != old) {
            return Ok((clock::now(), new));
        }
        anyhow::ensure!(clock::now() < end, "wait for a new primary: not within {} s", SPAN.as_secs());
    }
}

/// Transactions of `pgbench -S -C -c 32` during a switchover, and clients that gave up.
pub(crate) async fn under_load(lab: &mut Lab, bin: &Path, target: &Target) -> Result<(u64, u64)> {
    let old = settled(lab, [target, target]).await?;
    let mut pgbench = program(bin, "pgbench", target);
    // A thread for each client: pgbench connects with the whole thread, and others in it could not go on meanwhile.
    pgbench.args(["--no-vacuum", "--select-only", "--connect", "--client=32", "--jobs=32", "--time=10"]);
    let running = pgbench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("run pgbench")?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    switchover(lab, &old).await?;
    let output = running.wait_with_output().await.context("wait for pgbench")?;
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let done = figures(&said).map_or(0, |(count, _)| count as u64);
    let gave_up = errors.lines().filter(|line| line.contains("aborted")).count();
    Ok((done, gave_up as u64))
}

/// The host of the primary hangs, as a whole, and comes back when another leads.
pub(crate) async fn hang(lab: &mut Lab, baton: &Target, haproxy: &Target) -> Result<Hang> {
    let old = settled(lab, [baton, haproxy]).await?;
    let sessions = [baton.connect(SPAN).await?, haproxy.connect(SPAN).await?];
    let node = lab.node(&old)?;
    node.freeze_agent();
    node.freeze_postgres();
    let frozen = clock::now();
    let watch = |at: usize| {
        let session = &sessions[at];
        async move {
            while !session.is_closed() {
                if clock::now().since(frozen) > SPAN {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Some(clock::now())
        }
    };
    let lease = async {
        while let Ok(view) = lab.view().await {
            if view.leader.is_none_or(|(name, _)| name != old) {
                break;
            }
        }
        clock::now()
    };
    let (through_baton, through_haproxy, lease) = tokio::join!(watch(0), watch(1), lease);
    let node = lab.node(&old)?;
    node.thaw_postgres();
    node.thaw_agent();
    let ended = through_baton.context("see the session through the router end")?;
    Ok(Hang {
        baton_after_lease: ended.since(lease),
        baton: ended.since(frozen),
        haproxy: through_haproxy.map(|ended| ended.since(frozen)),
    })
}

#[cfg(test)]
mod tests {
    use super::{Seen, seen};
    use std::time::Duration;
    use types::Moment;

    #[test]
    fn probes_are_told_by_when_they_began_and_who_answered() {
        let probe = |begun, answered, by: &str| {
            (Moment(begun), Moment(answered), (!by.is_empty()).then(|| by.to_owned()))
        };
        let probes = [
            probe(1, 5, "old"),
            // Held from before the fact.
            probe(6, 130, "new"),
            probe(90, 104, "old"),
            probe(131, 140, "old"),
            probe(141, 142, ""),
        ];
        let expected = Seen { landed: Duration::from_millis(30), to_the_old: 1, failed: 1 };
        assert_eq!(seen(&probes, Moment(100), "new"), Some(expected));
        assert_eq!(seen(&probes[..1], Moment(100), "new"), None);
    }
}
