//! Who believes whom: real handshakes over a pipe.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::Path;
use std::sync::Arc;
use testbed::{Authority, KEY, SEALED_KEY};
use tls::{Authorities, Guests, Identity, ServerConfig, ServerName, TlsAcceptor, TlsConnector, Trust};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn identity(authority: &Authority, name: &str) -> Identity {
    let (certfile, keyfile) =
        (authority.path(&format!("{name}.pem")), authority.path(&format!("{name}.key")));
    Identity { certfile, keyfile: Some(keyfile), password: None }
}

fn file(path: &Path) -> Authorities {
    Authorities::File(path.to_owned())
}

/// Whether both sides agree and a byte goes each way.
async fn agree(server: &Arc<ServerConfig>, trust: &Trust, shown: Option<&Identity>, called: &str) -> bool {
    let client = tls::client(trust, shown).unwrap();
    let (near, far) = tokio::io::duplex(64 << 10);
    let acceptor = TlsAcceptor::from(server.clone());
    let serving = tokio::spawn(async move {
        let mut stream = acceptor.accept(far).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.shutdown().await
    });
    let calling = async {
        let name = ServerName::try_from(called.to_owned()).unwrap();
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_u8(7).await?;
        stream.read_u8().await
    };
    let answer = calling.await;
    serving.await.unwrap().is_ok() && answer.is_ok_and(|byte| byte == 7)
}

#[tokio::test]
async fn a_client_believes_whom_it_was_told_to() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (Authority::new(one.path()), Authority::new(two.path()));
    ours.sign("db1", &["127.0.0.1", "db1.example"]);
    let server = tls::server(&identity(&ours, "db1"), &Guests::Unasked, None).unwrap();
    let (known, foreign) = (file(&ours.path("ca.pem")), file(&theirs.path("ca.pem")));
    for (trust, called, believed) in [
        (Trust::Anybody, "10.0.0.1", true),
        (Trust::Chain(known.clone()), "10.0.0.1", true),
        (Trust::Chain(foreign.clone()), "127.0.0.1", false),
        (Trust::Name(known.clone()), "127.0.0.1", true),
        (Trust::Name(known.clone()), "db1.example", true),
        (Trust::Name(known), "10.0.0.1", false),
        (Trust::Name(foreign), "127.0.0.1", false),
        // Self-signed and named as its own authority: believed as it is.
        (Trust::Chain(file(&ours.path("db1.pem"))), "127.0.0.1", true),
    ] {
        assert_eq!(agree(&server, &trust, None, called).await, believed, "{trust:?} {called}");
    }
    let limited = tls::server(&identity(&ours, "db1"), &Guests::Unasked, Some("ECDHE+AESGCM")).unwrap();
    assert!(agree(&limited, &Trust::Anybody, None, "db1.example").await);
}

#[tokio::test]
async fn a_server_lets_in_whom_it_was_told_to() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (Authority::new(one.path()), Authority::new(two.path()));
    ours.sign("db1", &["127.0.0.1"]);
    theirs.sign("guest", &["127.0.0.1"]);
    let (own, guest) = (identity(&ours, "db1"), identity(&theirs, "guest"));
    let known = file(&ours.path("ca.pem"));
    for (guests, shown, let_in) in [
        (Guests::Unasked, None, true),
        (Guests::Unasked, Some(&guest), true),
        (Guests::Asked(known.clone()), None, true),
        (Guests::Asked(known.clone()), Some(&own), true),
        (Guests::Asked(known.clone()), Some(&guest), false),
        (Guests::Required(known.clone()), None, false),
        (Guests::Required(known.clone()), Some(&own), true),
        (Guests::Required(known), Some(&guest), false),
        // Its certificate stands in our file itself.
        (Guests::Required(file(&theirs.path("guest.pem"))), Some(&guest), true),
    ] {
        let server = tls::server(&own, &guests, None).unwrap();
        assert_eq!(agree(&server, &Trust::Anybody, shown, "127.0.0.1").await, let_in, "{guests:?} {shown:?}");
    }
}

#[tokio::test]
async fn an_encrypted_key_opens_with_its_password_alone() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    authority.sign_for("db1", &["127.0.0.1"], KEY);
    std::fs::write(authority.path("db1.key"), SEALED_KEY).unwrap();
    let with = |password: Option<&str>| {
        let identity = Identity { password: password.map(str::to_owned), ..identity(&authority, "db1") };
        tls::server(&identity, &Guests::Unasked, None).map_err(|error| error.to_string())
    };
    assert!(agree(&with(Some("opensesame")).unwrap(), &Trust::Anybody, None, "127.0.0.1").await);
    assert!(with(Some("sesame")).unwrap_err().contains("does not open"));
    assert!(with(None).unwrap_err().contains("no password is configured"));
    let old =
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    std::fs::write(authority.path("db1.key"), old).unwrap();
    assert!(with(Some("x")).unwrap_err().contains("openssl pkcs8 -topk8"));
    std::fs::write(authority.path("db1.pem"), "nothing").unwrap();
    assert!(with(None).unwrap_err().contains("no certificate"));
}
