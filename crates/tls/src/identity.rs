//! Our own certificate and its key, which may be encrypted with a password.

use crate::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use tokio_rustls::rustls::pki_types::pem::{PemObject, SectionKind};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The files that say who we are. The `Debug` text holds no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those between it and the authority.
    pub certfile: PathBuf,
    /// The key; it may also stand in the file of the certificate.
    pub keyfile: Option<PathBuf>,
    /// The password of an encrypted key.
    pub password: Option<String>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certfile", &self.certfile).field("keyfile", &self.keyfile).finish()
    }
}

/// A certificate chain and its key.
pub(crate) type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Identity {
    pub(crate) fn read(&self) -> Result<Pair, Error> {
        let chain = certificates(&self.certfile)?;
        let keyfile = self.keyfile.as_deref().unwrap_or(&self.certfile);
        Ok((chain, key(keyfile, self.password.as_deref())?))
    }
}

/// Every certificate of a PEM file; at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path).map_err(|error| Error::file(path, error))?;
    let all: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| Error::file(path, error))?;
    if all.is_empty() {
        return Err(Error::file(path, "there is no certificate in it"));
    }
    Ok(all)
}

fn key(path: &Path, password: Option<&str>) -> Result<PrivateKeyDer<'static>, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        let why =
            "its encryption is the old one of OpenSSL; convert it: openssl pkcs8 -topk8 -in OLD -out NEW";
        return Err(Error::file(path, why));
    }
    let Some(sealed) = sealed(&text) else {
        return PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| Error::file(path, error));
    };
    let Some(password) = password else {
        return Err(Error::file(path, "the key is encrypted and no password is configured"));
    };
    let opened = pkcs8::EncryptedPrivateKeyInfoRef::try_from(sealed.as_slice())
        .map_err(|error| Error::file(path, error))?
        .decrypt(password)
        .map_err(|_| Error::file(path, "the password does not open the key"))?;
    Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(opened.as_bytes().to_vec())))
}

/// The DER of an encrypted PKCS #8 key. The PEM reader knows no name for that section, but its body is that of any other.
fn sealed(text: &str) -> Option<Vec<u8>> {
    const SEALED: &str = "ENCRYPTED PRIVATE KEY";
    let begin = text.find(&format!("-----BEGIN {SEALED}-----"))?;
    let plain = text.get(begin..)?.replace(SEALED, "PRIVATE KEY");
    let section = <(SectionKind, Vec<u8>)>::from_pem_slice(plain.as_bytes()).ok()?;
    Some(section.1)
}
