//! The tests of `tests/router` that move bytes, with sessions that are carried by io_uring as soon as they have said two things; and what
//! only carried ones do.

#[cfg(test)]
#[expect(dead_code, reason = "tests/router uses the rest")]
#[path = "../router/backends.rs"]
mod backends;
#[cfg(test)]
#[path = "../router/cancels.rs"]
mod cancels;
#[cfg(test)]
mod carried;
#[cfg(test)]
#[path = "../router/edges.rs"]
mod edges;
#[cfg(test)]
mod forbidden;
#[cfg(test)]
#[expect(dead_code, reason = "tests/router uses the rest")]
#[path = "../router/harness.rs"]
mod harness;
#[cfg(test)]
#[expect(dead_code, reason = "tests/router uses the rest")]
#[path = "../router/servers.rs"]
mod servers;
#[cfg(test)]
#[path = "../router/switchovers.rs"]
mod switchovers;
#[cfg(test)]
#[path = "../router/terms.rs"]
mod terms;

/// Where this host gives nobody an io_uring, the same tests show that all holds without one, and that the router knows.
#[cfg(test)]
fn io() -> router::Io {
    if forbidden::is_io_uring_here() { router::Io::Uring } else { router::Io::Auto }
}
