//! A certificate authority and what it signs, as files.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use std::fs;
use std::path::{Path, PathBuf};

/// A key for certificates of tests.
pub const KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg/0xdBv7dQiGsW2a2
tYJThb3VoKuE/i4H9ZcPyQoWYFqhRANCAARCran4REMrei1fckT9HXZRhuK/qRyf
05hfTBRd7wBlDIyodYsdrL08vWCvh3+z85xjaLHE2doVqh5nv0TcyWy7
-----END PRIVATE KEY-----
";

/// The same key, encrypted with the password `opensesame`.
pub const SEALED_KEY: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgLumAl+BS5iwICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEIZJiwi3aujrnYdAlDxbViwEgZDJ
Cqtmi+zpulX9BnkvUyCF6NuE5KAsMw/tFZnKMTWaQmeH0VBIskLOrU+KTo37Ynil
AxbjETFCTo3rpS4NPE7d43BkK3gsu91gI5TOuXfyG8ReN+aXmdM1IOs111aD3UKz
1jmGpPxiwm0iC6PfDJjWqzkvFNyTTI/H+UavBlpA2+DDR1vSUGYnrIf1pc03qek=
-----END ENCRYPTED PRIVATE KEY-----
";

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

    /// Signs a certificate that names nobody but by its common name.
    pub fn sign_without_hosts(&self, name: &str, common_name: &str) {
        let key = KeyPair::generate().expect("generate a key");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("write a key");
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        let certificate = parameters.signed_by(&key, &self.issuer).expect("sign a certificate");
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("write a certificate");
    }

    /// Writes `file`, the list that takes these certificates back.
    pub fn revoke(&self, file: &str, names: &[&str]) {
        let revoked = names.iter().map(|name| RevokedCertParams {
            serial_number: serial(name),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let parameters = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(vec![1]),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = parameters.signed_by(&self.issuer).expect("sign a list");
        fs::write(self.path(file), list.pem().expect("PEM")).expect("write a list");
    }

    /// The same for the key in this PEM text, which is not written.
    pub fn sign_for(&self, name: &str, hosts: &[&str], key: &str) {
        self.sign_key(name, hosts, &KeyPair::from_pem(key).expect("read a key"));
    }

    fn sign_key(&self, name: &str, hosts: &[&str], key: &KeyPair) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut parameters = CertificateParams::new(hosts).expect("names of hosts");
        parameters.serial_number = Some(serial(name));
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

/// The number of a certificate, by which it is taken back.
fn serial(name: &str) -> SerialNumber {
    SerialNumber::from([&[1], name.as_bytes()].concat())
}
