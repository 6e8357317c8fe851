//! File descriptors: every client needs one, and its session another. A router that ran out of them could not take a client along that is
//! waiting, nor ask etcd anew: so no more clients are let in than there are descriptors for.

use crate::bulk;
use crate::events::Event;
use rustix::process::{Resource, getrlimit, setrlimit};

/// For listeners, etcd, the API, questions to agents, requests to cancel, and the timers of large amounts.
const OWN: u64 = 90 + bulk::LIMIT as u64;

/// For the event loop of a thread.
const OF_THREAD: u64 = 5;

/// Raises the limit of this process to what it may have.
pub(crate) fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where that is not allowed, the limit stays, and is kept.
    let _: rustix::io::Result<()> = setrlimit(Resource::Nofile, limit);
}

/// As many of the wanted clients as there are descriptors for, beside so many threads.
pub(crate) fn clients(wanted: usize, threads: usize) -> usize {
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return wanted };
    let clients = enough_for(descriptors, threads);
    if clients >= wanted {
        return wanted;
    }
    Event::FewDescriptors { wanted, descriptors, clients }.log();
    clients
}

fn enough_for(descriptors: u64, threads: usize) -> usize {
    let own = OWN + OF_THREAD.saturating_mul(threads as u64);
    usize::try_from(descriptors.saturating_sub(own) / 2).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::{clients, enough_for};

    #[test]
    fn every_client_has_two() {
        assert_eq!(enough_for(65_536, 2), 32_686);
        assert_eq!(enough_for(64, 2), 1);
        assert_eq!(clients(1, 1), 1);
    }
}
