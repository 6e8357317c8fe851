//! When the certificates between us and etcd expire: those in our files, and those the servers show.
//!
//! A server's certificate is read from a handshake that is broken off as soon as it was shown: nothing is ever sent over a
//! connection that was not verified.

use crate::endpoints::Endpoints;
use futures_util::future::join_all;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate and when it expires.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    pub holder: Holder,
    pub expires: Result<SystemTime, String>,
}

/// Whose certificate it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Holder {
    /// The authority in this file.
    Authority(PathBuf),
    /// Ours, in this file.
    Client(PathBuf),
    /// The server's at this endpoint.
    Server(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Authority(path) => write!(f, "the authority in {}", path.display()),
            Holder::Client(path) => write!(f, "this client in {}", path.display()),
            Holder::Server(url) => write!(f, "the server {url}"),
        }
    }
}

/// All certificates that take part.
pub(super) async fn all(endpoints: &Endpoints, within: Duration) -> Vec<Certificate> {
    let mut found = Vec::new();
    if let Some(tls) = endpoints.tls() {
        let files = [tls.ca.clone().map(Holder::Authority), tls.cert.clone().map(Holder::Client)];
        for holder in files.into_iter().flatten() {
            let expires = match &holder {
                Holder::Authority(path) | Holder::Client(path) => of_file(path),
                Holder::Server(_) => continue,
            };
            found.push(Certificate { holder, expires });
        }
    }
    let urls =
        (0..endpoints.count()).map(|slot| endpoints.url(slot)).filter(|url| url.starts_with("https://"));
    let servers = urls.map(|url| async move {
        match tokio::time::timeout(within, of_server(url)).await {
            Ok(Ok(expires)) => Some(Certificate { holder: Holder::Server(url.to_owned()), expires }),
            // An endpoint that does not answer is reported as such already.
            Ok(Err(_)) | Err(_) => None,
        }
    });
    found.extend(join_all(servers).await.into_iter().flatten());
    found
}

/// The first to expire of the certificates in a file.
fn of_file(path: &Path) -> Result<SystemTime, String> {
    let all = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let mut first = None;
    for certificate in all {
        let expires = expires(&certificate.map_err(|error| error.to_string())?)?;
        first = Some(first.map_or(expires, |before: SystemTime| before.min(expires)));
    }
    first.ok_or_else(|| "there is no certificate in the file".to_owned())
}

fn expires(certificate: &CertificateDer<'_>) -> Result<SystemTime, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let at = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(at))
}

async fn of_server(url: &str) -> std::io::Result<Result<SystemTime, String>> {
    let host = url.trim_start_matches("https://").trim_end_matches('/');
    let stream = TcpStream::connect(host).await?;
    let shown = Arc::new(Shown::default());
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(std::io::Error::other)?;
    let config = builder.dangerous().with_custom_certificate_verifier(shown.clone()).with_no_client_auth();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(name).map_err(std::io::Error::other)?;
    let ended = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let shown = shown.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (shown, ended) {
        (Some(certificate), _) => Ok(expires(&certificate)),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => Err(std::io::Error::other("no certificate was shown")),
    }
}

/// Keeps the certificate that a server shows, and accepts none.
#[derive(Debug, Default)]
struct Shown(Mutex<Option<CertificateDer<'static>>>);

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.clone().into_owned());
        Err(Error::General("the certificate was seen, that was all".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("no connection is made".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("no connection is made".to_owned()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
