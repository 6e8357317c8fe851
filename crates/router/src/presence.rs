//! What this router says about itself in etcd: that it is there, up to which term it has ended the sessions of older ones, and before a
//! planned switchover that it is quiet.
//!
//! The key hangs on a lease. Agents wait (for a few seconds) for the routers whose keys they see; a router that cannot
//! write its key is not waited for, and its running transactions are ended by PostgreSQL.

use crate::events::Event;
use etcd::{Error, Etcd, Renewed, Router};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use types::{LeaseId, ROUTER_LEASE};

/// The pause between renewals.
const RENEW: Duration = Duration::from_secs(3);

/// How long a write may take.
const WRITE: Duration = Duration::from_secs(2);

/// Keeps the key in etcd, as `says` has it.
pub(crate) async fn keep(etcd: Etcd, cluster: String, id: String, mut says: watch::Receiver<Router>) {
    let mut lease = None;
    let mut written = None;
    let mut failing = false;
    loop {
        let wanted = says.borrow_and_update().clone();
        match write(&etcd, &id, &wanted, &mut lease, &mut written).await {
            Ok(()) => failing = false,
            Err(error) => {
                (lease, written) = (None, None);
                // That etcd is away is said elsewhere; what it does not allow is said here, once.
                if matches!(error, Error::Refused { .. }) && !failing {
                    Event::NotPublished { cluster: &cluster, why: format!("failed to {error}") }.log();
                    failing = true;
                }
            }
        }
        tokio::select! {
            changed = says.changed() => if changed.is_err() { break },
            () = sleep(RENEW) => {}
        }
    }
    if let Some(lease) = lease {
        // What is left of it ends with its time to live.
        let _: Result<(), Error> = etcd.revoke(lease, clock::now().after(WRITE)).await;
    }
}

async fn write(
    etcd: &Etcd,
    id: &str,
    wanted: &Router,
    lease: &mut Option<LeaseId>,
    written: &mut Option<Router>,
) -> Result<(), Error> {
    let by = || clock::now().after(WRITE);
    let ttl = u32::try_from(ROUTER_LEASE.as_secs()).unwrap_or(u32::MAX);
    let held = match *lease {
        Some(held) if written.as_ref() != Some(wanted) => held,
        Some(held) => {
            let renewed = etcd.renew(held, None, by()).await?;
            if matches!(renewed, Renewed::Gone) {
                return Err(Error::LeaseGone);
            }
            held
        }
        None => etcd.grant(ttl, by()).await?.lease,
    };
    *lease = Some(held);
    if written.as_ref() != Some(wanted) {
        etcd.put_router(id, wanted, held, by()).await?;
        *written = Some(wanted.clone());
    }
    Ok(())
}
