//! The called side.

use crate::ciphers;
use crate::error::Error;
use crate::identity::Identity;
use crate::trust::{Authorities, Clients};
use std::sync::Arc;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

/// Who must show a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Guests {
    /// Nobody is asked for one.
    Unasked,
    /// Who has one shows it; one that no authority vouches for is refused.
    Asked(Authorities),
    /// Nobody comes in without one.
    Required(Authorities),
}

/// The configuration of a server; `ciphers` in OpenSSL's words.
pub fn server(
    identity: &Identity,
    guests: &Guests,
    ciphers: Option<&str>,
) -> Result<Arc<ServerConfig>, Error> {
    let mut provider = ring::default_provider();
    if let Some(wanted) = ciphers {
        provider.cipher_suites = ciphers::choose(wanted, &provider.cipher_suites)?;
    }
    let provider = Arc::new(provider);
    let unfit = |error: tokio_rustls::rustls::Error| Error::Unfit(error.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unfit)?;
    let builder = match guests {
        Guests::Unasked => builder.with_no_client_auth(),
        Guests::Asked(authorities) => {
            builder.with_client_cert_verifier(Arc::new(Clients::new(provider, authorities.read()?, false)?))
        }
        Guests::Required(authorities) => {
            builder.with_client_cert_verifier(Arc::new(Clients::new(provider, authorities.read()?, true)?))
        }
    };
    let (chain, key) = identity.read()?;
    Ok(Arc::new(builder.with_single_cert(chain, key).map_err(unfit)?))
}
