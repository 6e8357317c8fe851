//! What etcd is told of BGP sessions, for people: by the agent, and by `baton vip`.
//!
//! ```text
//!   states of the neighbours ─► rows ─► baton/bgp/<member>, on a lease: the agent's, or one of its own
//! ```

use bgp::{Counts, Speaker, State};
use etcd::{BgpNeighbor, Etcd, Renewed};
use std::future::pending;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use types::{LeaseId, Moment, NodeName};

/// How long one word to etcd may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Looked at this often, also without news.
const LOOK: Duration = Duration::from_secs(2);
/// How long a lease of its own outlives the program.
const TTL_SECONDS: u32 = 10;

/// Tells in etcd how it stands with BGP neighbours.
pub struct Telling {
    etcd: Etcd,
    me: NodeName,
    states: Vec<watch::Receiver<State>>,
    told: Option<(LeaseId, Vec<State>)>,
    /// That it may not be written was not reported since it last was.
    quiet: bool,
}

impl Telling {
    /// Of the neighbours of this speaker, for the member `me`.
    #[must_use]
    pub fn of(speaker: &Speaker, etcd: Etcd, me: NodeName) -> Telling {
        Telling { etcd, me, states: speaker.watch(), told: None, quiet: false }
    }

    /// Tells what is new, if there is a lease to tell it on.
    pub async fn tell(&mut self, lease: Option<LeaseId>) {
        // Counts are for metrics.
        let plain = |state: &State| State { counts: Counts::default(), ..state.clone() };
        let now: Vec<State> = self.states.iter_mut().map(|state| plain(&state.borrow_and_update())).collect();
        let Some(lease) = lease else { return };
        if self.told.as_ref() == Some(&(lease, now.clone())) {
            return;
        }
        let rows: Vec<BgpNeighbor> = now.iter().map(|state| row(state, clock::now())).collect();
        match self.etcd.put_bgp(&self.me, &rows, lease, clock::now().after(PATIENCE)).await {
            Ok(()) => (self.told, self.quiet) = (Some((lease, now)), false),
            Err(error @ etcd::Error::Refused { .. }) if !self.quiet => {
                self.quiet = true;
                tracing::error!("failed to {error}; allow this user to write below baton/bgp/");
            }
            Err(error) => tracing::debug!(%error, "failed to tell how it stands with BGP neighbours"),
        }
    }

    /// Waits for news. A lease may be another one by then, and an attempt may have failed: not for long.
    pub async fn news(&mut self) {
        let changes = self.states.iter_mut().map(|state| {
            Box::pin(async {
                // Of a neighbour that was spoken with to the end there is no more news.
                if state.changed().await.is_err() {
                    pending::<()>().await;
                }
            })
        });
        let _ = tokio::time::timeout(LOOK, futures_util::future::select_all(changes)).await;
    }

    /// Tells on a lease of its own, beside an agent that knows nothing of the sessions, until the end.
    pub async fn alone(mut self, end: CancellationToken) {
        let mut lease: Option<LeaseId> = None;
        let mut renewed = clock::now();
        while !end.is_cancelled() {
            if lease.is_none() || clock::now().since(renewed) >= LOOK {
                renewed = clock::now();
                lease = self.prolong(lease).await;
            }
            self.tell(lease).await;
            tokio::select! {
                () = self.news() => {}
                () = end.cancelled() => {}
            }
        }
        if let Some(lease) = lease {
            // What is left of it ends with its time to live.
            let _: Result<(), etcd::Error> = self.etcd.revoke(lease, clock::now().after(PATIENCE)).await;
        }
    }

    async fn prolong(&self, lease: Option<LeaseId>) -> Option<LeaseId> {
        let by = clock::now().after(PATIENCE);
        let kept = match lease {
            Some(lease) => match self.etcd.renew(lease, None, by).await {
                Ok(Renewed::Kept { .. }) => Ok(Some(lease)),
                Ok(Renewed::Gone | Renewed::LeadLost) => Ok(None),
                // It may live on: whoever tells on it will see.
                Err(error) => Err((Some(lease), error)),
            },
            None => match self.etcd.grant(TTL_SECONDS, by).await {
                Ok(granted) => Ok(Some(granted.lease)),
                Err(error) => Err((None, error)),
            },
        };
        kept.unwrap_or_else(|(lease, error)| {
            tracing::debug!(%error, "failed to keep a lease to tell of BGP neighbours");
            lease
        })
    }
}

/// A neighbour for people.
fn row(state: &State, now: Moment) -> BgpNeighbor {
    let ago = now.since(state.since);
    let since = clock::wall().checked_sub(ago).and_then(|since| jiff::Timestamp::try_from(since).ok());
    let since = since.and_then(|since| since.round(jiff::Unit::Second).ok()).unwrap_or_default();
    BgpNeighbor {
        address: state.address.to_string(),
        asn: state.asn,
        state: state.phase.to_string(),
        since: since.to_string(),
        announced: state.announced.iter().map(ToString::to_string).collect(),
        trouble: state.trouble.clone(),
    }
}
