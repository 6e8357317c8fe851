//! The calling side.

use crate::error::Error;
use crate::identity::Identity;
use crate::trust::{Authorities, Chains, Names, Servers};
use std::path::PathBuf;
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
    /// The same, where the common name counts when the certificate has no other names of that kind: libpq's rule.
    NameOrCommonName(Authorities),
}

/// Lists of certificates that are no longer to be believed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Revoked {
    /// A PEM file of them.
    pub file: Option<PathBuf>,
    /// A directory of such files.
    pub directory: Option<PathBuf>,
}

/// The configuration of a client that shows `identity` where it is asked for.
pub fn client(trust: &Trust, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, Error> {
    client_that_heeds(trust, &Revoked::default(), identity)
}

/// The same, where lists of revoked certificates are heeded. As with OpenSSL, every authority of a chain then needs a list
/// that has not expired.
pub fn client_that_heeds(
    trust: &Trust,
    revoked: &Revoked,
    identity: Option<&Identity>,
) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let (authorities, names) = match trust {
        Trust::Anybody => (None, Names::Unasked),
        Trust::Chain(authorities) => (Some(authorities), Names::Unasked),
        Trust::Name(authorities) => (Some(authorities), Names::Alternative),
        Trust::NameOrCommonName(authorities) => (Some(authorities), Names::OrCommon),
    };
    let chains = authorities.map(|authorities| Chains::new(authorities, revoked, &provider)).transpose()?;
    let servers = Servers { provider: Arc::clone(&provider), chains, names };
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
