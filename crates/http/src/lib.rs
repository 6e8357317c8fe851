//! HTTP: the client for the members' REST APIs, the same for agents, router and command line: one request a connection, a
//! deadline over all of it, a limit on the answer, basic authentication, TLS where the URL says https.
//!
//! ```text
//!   Client (credentials, TLS) ── call(verb, api_url, path, body, within) ──► Reply | Trouble
//! ```
//! And the small server of programs that are asked about themselves ([`serve`]). A member may be Patroni: its answers are HTTP/1.0 and end with the connection.

mod basic;
mod client;
mod members;
mod server;
mod target;

pub use basic::{Credentials, base64};
pub use client::{Client, Reply, Tls, Trouble};
pub use hyper::Method;
pub use server::serve;
pub use target::Target;
