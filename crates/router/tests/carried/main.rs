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

#[cfg(test)]
const CARRIED: bool = true;
