//! The certificate of the REST API and who must show one, made anew when the settings are read again.

use settings::{RestApi, VerifyClient};
use tls::{Authorities, Guests, Identity, TlsAcceptor};

/// `None` where no certificate is configured: plain HTTP.
pub(crate) fn acceptor(rest: &RestApi) -> Result<Option<TlsAcceptor>, tls::Error> {
    let Some(certfile) = rest.certfile.clone() else { return Ok(None) };
    let password = rest.keyfile_password.as_ref().map(|secret| secret.reveal().to_owned());
    let identity = Identity { certfile, keyfile: rest.keyfile.clone(), password };
    let authorities = || rest.cafile.clone().map_or(Authorities::System, Authorities::File);
    let guests = match rest.verify_client {
        VerifyClient::None => Guests::Unasked,
        VerifyClient::Optional => Guests::Asked(authorities()),
        VerifyClient::Required => Guests::Required(authorities()),
    };
    Ok(Some(TlsAcceptor::from(tls::server(&identity, &guests, rest.ciphers.as_deref())?)))
}
