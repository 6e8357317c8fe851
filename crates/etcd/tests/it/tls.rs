//! TLS with client certificates.

use crate::cluster::{ATTEMPT, Cluster, keys, servers, within};
use etcd::{Config, Error, Etcd, Tls};
use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::json;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// An authority, and what it signed, as files.
struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        let authority = Authority { directory: TempDir::new().unwrap(), issuer };
        std::fs::write(authority.path("ca.pem"), authority.issuer.pem()).unwrap();
        authority
    }

    /// Signs a certificate for 127.0.0.1; its files are `<name>.pem` and `<name>.key`.
    fn sign(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        // An etcd server is a client too, of itself.
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }
}

fn tls(ca: &Path, client: Option<(&Path, &Path)>) -> Tls {
    let (cert, key) = client.unzip();
    Tls { ca: Some(ca.to_owned()), cert: cert.map(Path::to_owned), key: key.map(Path::to_owned) }
}

#[tokio::test]
async fn both_sides_show_certificates() {
    for server in servers() {
        let ours = Authority::new();
        ours.sign("server");
        ours.sign("client");
        let stranger = Authority::new();
        stranger.sign("client");
        let arguments: Vec<String> =
            [("cert-file", "server.pem"), ("key-file", "server.key"), ("trusted-ca-file", "ca.pem")]
                .iter()
                .map(|(name, file)| format!("--{name}={}", ours.path(file).display()))
                .chain(["--client-cert-auth=true".to_owned()])
                .collect();
        let read = |file: &str| std::fs::read(ours.path(file)).unwrap();
        let options = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")))
            .identity(Identity::from_pem(read("client.pem"), read("client.key")));
        let cluster =
            Cluster::start_with(&server, 1, "https", &arguments, ConnectOptions::new().with_tls(options))
                .await;

        let connect = |tls: Tls| {
            // Without a scheme: certificates make it https.
            let endpoints = cluster.urls().iter().map(|url| url.replace("https://", "")).collect();
            Etcd::new(Config { endpoints, attempt: ATTEMPT * 4, tls: Some(tls), auth: None }, keys()).unwrap()
        };
        let ca = ours.path("ca.pem");
        let client = (ours.path("client.pem"), ours.path("client.key"));
        let good = connect(tls(&ca, Some((&client.0, &client.1))));
        good.put_config(&json!({"n": 1}), None, within(20)).await.unwrap();
        assert_eq!(good.snapshot(within(20)).await.unwrap().config.unwrap().value, json!({"n": 1}));

        let seen = good.health(within(20)).await;
        let holders: Vec<String> = seen.certificates.iter().map(|found| found.holder.to_string()).collect();
        let dated =
            seen.certificates.iter().all(|found| found.expires.as_ref().is_ok_and(|at| *at > clock::wall()));
        assert!(dated && seen.certificates.len() == 3, "the authority, the client, the server: {holders:?}");

        let other = (stranger.path("client.pem"), stranger.path("client.key"));
        for refused in [
            tls(&ca, None),
            tls(&ca, Some((&other.0, &other.1))),
            tls(&stranger.path("ca.pem"), Some((&client.0, &client.1))),
        ] {
            let error = connect(refused.clone()).snapshot(within(2)).await.unwrap_err();
            assert!(matches!(error, Error::Unreachable { .. }), "{refused:?}: {error:?}");
        }
    }
}

#[test]
fn what_cannot_work_is_refused_at_once() {
    let ours = Authority::new();
    ours.sign("client");
    let refusal = |endpoints: &[&str], tls: Option<Tls>| {
        let endpoints = endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect();
        match Etcd::new(Config { endpoints, attempt: ATTEMPT, tls, auth: None }, keys()) {
            Err(Error::Refused { why }) => why,
            other => panic!("{other:?}"),
        }
    };
    let ca = ours.path("ca.pem");
    assert!(refusal(&[], None).contains("no endpoint"));
    assert!(refusal(&["ftp://a:1"], None).contains("ftp://a:1"));
    assert!(refusal(&["http://a:1"], Some(tls(&ca, None))).contains("https://"));
    assert!(refusal(&["a:1"], Some(tls(Path::new("/none/ca.pem"), None))).contains("/none/ca.pem"));
    let lone = Tls { cert: Some(ours.path("client.pem")), ..tls(&ca, None) };
    assert!(refusal(&["a:1"], Some(lone)).contains("key"));
}
