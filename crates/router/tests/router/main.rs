//! The router on a real etcd and real PostgreSQL servers; the tests write the keys that agents would write.

#[cfg(test)]
mod agent;
#[cfg(test)]
mod backends;
#[cfg(test)]
mod cancels;
#[cfg(test)]
mod edges;
#[cfg(test)]
mod etcd_away;
#[cfg(test)]
mod flips;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod holding;
#[cfg(test)]
mod libpq;
#[cfg(test)]
mod logins;
#[cfg(test)]
mod poolers;
#[cfg(test)]
mod reloading;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod services;
#[cfg(test)]
mod switchovers;
#[cfg(test)]
mod terms;
#[cfg(test)]
mod tls;

/// All sessions are served by epoll here; `tests/carried` runs the important ones by io_uring.
#[cfg(test)]
fn io() -> router::Io {
    router::Io::Epoll
}
