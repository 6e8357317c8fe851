//! Whom to believe: certificate authorities, and the checks of the other side's certificate against them.
//!
//! A certificate that itself stands in the file of authorities is believed as it is. That is how self-signed certificates
//! are used, and the path builder alone would refuse one that is marked as an authority.

use crate::error::Error;
use crate::identity;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore, SignatureScheme,
};

/// Where the authorities are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authorities {
    /// Those of this host.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}

/// Authorities that were read.
#[derive(Debug)]
pub(crate) struct Roots {
    store: Arc<RootCertStore>,
    /// The certificates of a file, each also believed as it is.
    pinned: Vec<CertificateDer<'static>>,
}

impl Authorities {
    pub(crate) fn read(&self) -> Result<Roots, Error> {
        let (certificates, pinned) = match self {
            Authorities::System => (rustls_native_certs::load_native_certs().certs, Vec::new()),
            Authorities::File(path) => {
                let found = identity::certificates(path)?;
                (found.clone(), found)
            }
        };
        let mut store = RootCertStore::empty();
        let (added, _) = store.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(Error::NoAuthority);
        }
        Ok(Roots { store: Arc::new(store), pinned })
    }
}

impl Roots {
    fn pins(&self, certificate: &CertificateDer<'_>) -> bool {
        self.pinned.iter().any(|pinned| pinned == certificate)
    }
}

/// The check of a server's certificate.
#[derive(Debug)]
pub(crate) struct Servers {
    pub provider: Arc<CryptoProvider>,
    /// `None`: nobody is checked.
    pub roots: Option<Roots>,
    /// Whether the certificate must be for the name that was called.
    pub names: bool,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if !roots.pins(end_entity) {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &roots.store, intermediates, now, algorithms)?;
        }
        if self.names {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The check of a client's certificate.
#[derive(Debug)]
pub(crate) struct Clients {
    chains: Arc<dyn ClientCertVerifier>,
    roots: Roots,
}

impl Clients {
    pub(crate) fn new(provider: Arc<CryptoProvider>, roots: Roots, required: bool) -> Result<Clients, Error> {
        let builder = WebPkiClientVerifier::builder_with_provider(roots.store.clone(), provider);
        let builder = if required { builder } else { builder.allow_unauthenticated() };
        let chains = builder.build().map_err(|error| Error::Unfit(error.to_string()))?;
        Ok(Clients { chains, roots })
    }
}

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        self.chains.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chains.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        if self.roots.pins(end_entity) {
            return Ok(ClientCertVerified::assertion());
        }
        self.chains.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chains.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chains.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
