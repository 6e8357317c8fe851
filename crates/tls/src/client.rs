//! The calling side.

use crate::error::Error;
use crate::identity::Identity;
use crate::trust::{Authorities, Servers};
use std::sync::Arc;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring;

/// What is asked of a server's certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// Nothing: the line is encrypted, whoever is at its other end.
    Anybody,
    /// That one of these authorities vouches for it.
    Chain(Authorities),
    /// The same, and that it is for the name that was called.
    Name(Authorities),
}

/// The configuration of a client that shows `identity` where it is asked for.
pub fn client(trust: &Trust, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let (roots, names) = match trust {
        Trust::Anybody => (None, false),
        Trust::Chain(authorities) => (Some(authorities.read()?), false),
        Trust::Name(authorities) => (Some(authorities.read()?), true),
    };
    let servers = Servers { provider: Arc::clone(&provider), roots, names };
    let unfit = |error: tokio_rustls::rustls::Error| Error::Unfit(error.to_string());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers));
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = identity.read()?;
            builder.with_client_auth_cert(chain, key).map_err(unfit)?
        }
    };
    Ok(Arc::new(config))
}
