//! A certificate authority and what it signs, as files.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use std::fs;
use std::path::{Path, PathBuf};

/// A certificate authority whose files are in one directory: `ca.pem`, and of each certificate `NAME.pem` and `NAME.key`.
pub struct Authority {
    directory: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    #[must_use]
    pub fn new(directory: &Path) -> Authority {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("generate a key");
        let issuer = CertifiedIssuer::self_signed(parameters, key).expect("sign the authority");
        let authority = Authority { directory: directory.to_owned(), issuer };
        fs::write(authority.path("ca.pem"), authority.issuer.pem()).expect("write the authority");
        authority
    }

    /// Signs a certificate for these hosts, for a server and a client.
    pub fn sign(&self, name: &str, hosts: &[&str]) {
        let key = KeyPair::generate().expect("generate a key");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("write a key");
        self.sign_key(name, hosts, &key);
    }

    /// The same for the key in this PEM text, which is not written.
    pub fn sign_for(&self, name: &str, hosts: &[&str], key: &str) {
        self.sign_key(name, hosts, &KeyPair::from_pem(key).expect("read a key"));
    }

    fn sign_key(&self, name: &str, hosts: &[&str], key: &KeyPair) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut parameters = CertificateParams::new(hosts).expect("names of hosts");
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = parameters.signed_by(key, &self.issuer).expect("sign a certificate");
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("write a certificate");
    }

    /// Where a file of it is.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }
}
