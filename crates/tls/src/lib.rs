//! TLS from PEM files, the same for the REST API, for the calls to it, and for connections to PostgreSQL.
//!
//! ```text
//!   Identity (certificate, key, its password) ─┐
//!   Trust    (nobody is checked, chain, name) ─┼─► client() ─► ClientConfig
//!   Guests   (who needs a certificate)        ─┼─► server() ─► ServerConfig
//!   ciphers  (OpenSSL's words)                ─┘
//! ```
//! Nothing here opens a socket; files are read when a configuration is made, so that a renewed certificate needs only a new
//! configuration.

mod binding;
mod ciphers;
mod client;
mod common_name;
mod error;
mod identity;
mod server;
mod trust;

pub use binding::end_point_hash;
pub use client::{Revoked, Trust, client, client_that_heeds};
pub use error::Error;
pub use identity::Identity;
pub use server::{Guests, server};
pub use tokio_rustls::rustls::pki_types::ServerName;
pub use tokio_rustls::rustls::{ClientConfig, ServerConfig};
pub use tokio_rustls::{TlsAcceptor, TlsConnector};
pub use trust::Authorities;
