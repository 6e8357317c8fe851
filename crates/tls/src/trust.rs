//! Whom to believe: certificate authorities, and the checks of the other side's certificate against them.
//!
//! A certificate that itself stands in the file of authorities is believed as it is. That is how self-signed certificates
//! are used, and the path builder alone would refuse one that is marked as an authority.

use crate::client::Revoked;
use crate::common_name;
use crate::error::Error;
use crate::identity;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{
    WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore,
    SignatureScheme,
};

/// The most files of a directory of lists that are read.
const MAX_LISTS: usize = 1000;

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

/// Which names of a certificate count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Names {
    /// It may be for anybody.
    Unasked,
    /// It must be for the name that was called.
    Alternative,
    /// The same, or its common name must be that where it has no names of the kind that was called.
    OrCommon,
}

/// The check of who vouches for a server.
#[derive(Debug)]
pub(crate) struct Chains {
    roots: Roots,
    /// Set where lists of revoked certificates count.
    heeding: Option<Arc<WebPkiServerVerifier>>,
}

impl Chains {
    pub(crate) fn new(
        authorities: &Authorities,
        revoked: &Revoked,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Chains, Error> {
        let roots = authorities.read()?;
        let lists = revoked.read()?;
        if lists.is_empty() {
            return Ok(Chains { roots, heeding: None });
        }
        let builder = WebPkiServerVerifier::builder_with_provider(roots.store.clone(), Arc::clone(provider));
        let built = builder.with_crls(lists).enforce_revocation_expiration().build();
        Ok(Chains { roots, heeding: Some(built.map_err(|error| Error::Unfit(error.to_string()))?) })
    }

    fn verify(&self, seen: &Seen<'_>, provider: &CryptoProvider) -> Result<(), TlsError> {
        if self.roots.pins(seen.end_entity) {
            return Ok(());
        }
        if let Some(heeding) = &self.heeding {
            // The name is looked at after the chain, and by us.
            let checked = heeding.verify_server_cert(seen.end_entity, seen.between, seen.name, &[], seen.now);
            return match checked {
                Ok(_)
                | Err(TlsError::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => Ok(()),
                Err(error) => Err(error),
            };
        }
        let parsed = ParsedCertificate::try_from(seen.end_entity)?;
        let algorithms = provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots.store,
            seen.between,
            seen.now,
            algorithms,
        )
    }
}

/// What a server shows.
struct Seen<'a> {
    end_entity: &'a CertificateDer<'a>,
    between: &'a [CertificateDer<'a>],
    name: &'a ServerName<'a>,
    now: UnixTime,
}

impl Revoked {
    /// Every list of the file and of the files in the directory.
    fn read(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
        let mut files: Vec<PathBuf> = self.file.iter().cloned().collect();
        if let Some(directory) = &self.directory {
            let entries = std::fs::read_dir(directory).map_err(|error| Error::file(directory, error))?;
            let found = entries.take(MAX_LISTS).filter_map(|entry| entry.ok().map(|entry| entry.path()));
            files.extend(found.filter(|path| path.is_file()));
        }
        let mut lists = Vec::new();
        for path in &files {
            let found = CertificateRevocationListDer::pem_file_iter(path);
            let found = found.map_err(|error| Error::file(path, error))?;
            let before = lists.len();
            for list in found {
                lists.push(list.map_err(|error| Error::file(path, error))?);
            }
            if lists.len() == before {
                return Err(Error::file(path, "there is no list of revoked certificates in it"));
            }
        }
        Ok(lists)
    }
}

/// The check of a server's certificate.
#[derive(Debug)]
pub(crate) struct Servers {
    pub provider: Arc<CryptoProvider>,
    /// `None`: nobody is checked.
    pub chains: Option<Chains>,
    pub names: Names,
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
        let Some(chains) = &self.chains else { return Ok(ServerCertVerified::assertion()) };
        let seen = Seen { end_entity, between: intermediates, name: server_name, now };
        chains.verify(&seen, &self.provider)?;
        let named = || verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name);
        match self.names {
            Names::Unasked => {}
            Names::Alternative => named()?,
            Names::OrCommon => match named() {
                Err(TlsError::InvalidCertificate(_)) if common_name::fits(end_entity, server_name) => {}
                other => other?,
            },
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
