//! Connections to a PostgreSQL that demands TLS, in the words of libpq.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;
mod sql;

use common::{Scratch, Server, own, pg_bin};
use postgres::basebackup::CloneFrom;
use postgres::connection::{ConnectTo, Connection, Mode, SqlError};
use sql::{LONG, to_as};
use testbed::{Authority, KEY, SEALED_KEY};

/// Who we are over there, whether encrypted, and with what.
const HOW: &str =
    "SELECT ssl::text || ' ' || coalesce(client_dn, '-') FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

async fn ask(to: &ConnectTo) -> Result<String, SqlError> {
    let mut session = Connection::open(to, Mode::Sql, &[], LONG).await?;
    Ok(session.query(HOW, LONG).await?.single().unwrap().to_owned())
}

async fn ask_owned(to: ConnectTo) -> Result<String, SqlError> {
    ask(&to).await
}

#[tokio::test]
async fn every_sslmode_does_what_libpq_does() {
    let scratch = Scratch::new("tls");
    let server = Server::init(&scratch, &pg_bin(), "data");
    let certificates = scratch.dir("certificates");
    let authority = Authority::new(&certificates);
    authority.sign("server", &["127.0.0.1"]);
    authority.sign("client", &["somebody"]);
    for file in ["ca.pem", "server.pem", "server.key", "client.pem", "client.key"] {
        own(&authority.path(file));
    }
    let path = |file: &str| authority.path(file).display().to_string();
    let (ca, certificate, key) = (path("ca.pem"), path("server.pem"), path("server.key"));
    server.append(
        "postgresql.conf",
        &format!("ssl = on\nssl_ca_file = '{ca}'\nssl_cert_file = '{certificate}'\nssl_key_file = '{key}'\n"),
    );
    let hba = "local all all trust\nhostssl all safe all scram-sha-256\nhostssl all,replication client,carded all cert\n\
               hostnossl all plain all scram-sha-256\n";
    std::fs::write(server.data_dir.join("pg_hba.conf"), hba).unwrap();
    server.start();
    server.psql("CREATE ROLE safe LOGIN PASSWORD 'x'; CREATE ROLE plain LOGIN PASSWORD 'x'; CREATE ROLE client LOGIN; CREATE ROLE carded LOGIN");

    let to = |user: &str, words: &[(&str, &str)]| {
        let tls = words.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ConnectTo { tls, ..to_as(&server, user, "x") }
    };
    for (user, words, encrypted) in [
        ("safe", &[][..], true),
        ("safe", &[("sslmode", "prefer")], true),
        // Not let in over one kind of connection, but over the other.
        ("safe", &[("sslmode", "allow")], true),
        ("plain", &[("sslmode", "prefer")], false),
        ("plain", &[("sslmode", "disable")], false),
        ("safe", &[("sslmode", "require")], true),
        ("safe", &[("sslmode", "require"), ("channel_binding", "require")], true),
        ("safe", &[("sslmode", "require"), ("channel_binding", "disable")], true),
        ("safe", &[("sslmode", "verify-ca"), ("sslrootcert", &ca)], true),
        ("safe", &[("sslmode", "verify-full"), ("sslrootcert", &ca)], true),
    ] {
        let answer = ask(&to(user, words)).await;
        assert_eq!(answer.unwrap(), format!("{encrypted} -"), "{user} {words:?}");
    }
    // The host that is called is not the one in the certificate.
    let (by_chain, by_name) = (
        [("sslmode", "verify-ca"), ("sslrootcert", ca.as_str())],
        [("sslmode", "verify-full"), ("sslrootcert", ca.as_str())],
    );
    let elsewhere = |to: ConnectTo| ConnectTo { host: "localhost".to_owned(), ..to };
    assert!(ask(&elsewhere(to("safe", &by_chain))).await.is_ok());
    let stranger = path("client.pem");
    for refused in [
        elsewhere(to("safe", &by_name)),
        to("safe", &[("sslmode", "verify-ca"), ("sslrootcert", &stranger)]),
        to("safe", &[("sslmode", "verify-ca"), ("sslrootcert", "/nowhere/ca.pem")]),
    ] {
        let error = ask(&refused).await.unwrap_err();
        assert!(matches!(error, SqlError::Tls { .. }), "{refused:?}: {error}");
    }
    let unsafe_one = ask(&to("safe", &[("sslmode", "disable")])).await.unwrap_err();
    assert_eq!(unsafe_one.sqlstate(), Some("28000"), "{unsafe_one}");
    let unbound =
        ask(&to("plain", &[("sslmode", "disable"), ("channel_binding", "require")])).await.unwrap_err();
    assert!(matches!(unbound, SqlError::Login { .. }), "{unbound}");
    // Certificates that were taken back. Without a list of its authority no certificate is believed once lists count.
    let lists = scratch.dir("lists");
    authority.revoke("good.crl", &["somebody-else"]);
    authority.revoke("bad.crl", &["server"]);
    std::fs::copy(authority.path("bad.crl"), lists.join("1f2e3d4c.r0")).unwrap();
    let (good, bad, lists) = (path("good.crl"), path("bad.crl"), lists.display().to_string());
    let heeding = |word: &'static str, list: &str| {
        ask_owned(to("safe", &[("sslmode", "verify-full"), ("sslrootcert", &ca), (word, list)]))
    };
    assert!(heeding("sslcrl", &good).await.is_ok());
    for (word, list) in
        [("sslcrl", bad.as_str()), ("sslcrldir", &lists), ("sslcrl", "/nowhere"), ("sslcrl", &ca)]
    {
        let error = heeding(word, list).await.unwrap_err();
        assert!(matches!(error, SqlError::Tls { .. }), "{word} {list}: {error}");
    }
    // A client certificate is shown where one is configured; it lets in the role that it is for.
    let (shown, secret) = (path("client.pem"), path("client.key"));
    let words = [("sslmode", "require"), ("sslcert", shown.as_str()), ("sslkey", secret.as_str())];
    assert_eq!(ask(&to("client", &words)).await.unwrap(), "true /CN=client");
    assert_eq!(ask(&to("carded", &words)).await.unwrap_err().sqlstate(), Some("28000"));
    // Its key may be encrypted: the agent opens it, and so do libpq's programs, which read its password from a file.
    authority.sign_for("client", &["somebody"], KEY);
    std::fs::write(authority.path("sealed.key"), SEALED_KEY).unwrap();
    own(&authority.path("sealed.key"));
    let sealed = path("sealed.key");
    let words = [("sslmode", "require"), ("sslcert", shown.as_str()), ("sslkey", sealed.as_str())];
    let opened = |password: &str| ConnectTo { sslpassword: Some(password.into()), ..to("client", &words) };
    assert_eq!(ask(&opened("opensesame")).await.unwrap(), "true /CN=client");
    for closed in [opened("wrong"), to("client", &words)] {
        let error = ask(&closed).await.unwrap_err();
        assert!(matches!(error, SqlError::Tls { .. }) && !error.to_string().contains("wrong"), "{error}");
    }
    server.psql("ALTER ROLE client REPLICATION");
    let from = CloneFrom { connect: opened("opensesame"), slot: None };
    let copy = scratch.dir("copy");
    let cancel = tokio_util::sync::CancellationToken::new();
    let installation = common::installation(&pg_bin()).await;
    postgres::basebackup::run(&installation, &from, &copy, &[], |_| {}, &cancel).await.unwrap();
    assert!(copy.join("PG_VERSION").is_file());
    let left = std::fs::read_dir(scratch.path()).unwrap().flatten();
    let left: Vec<_> =
        left.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().contains("pg")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A certificate without alternative names is for the host of its common name.
#[tokio::test]
async fn a_common_name_counts_where_there_is_no_other() {
    let scratch = Scratch::new("tls-name");
    let server = Server::init(&scratch, &pg_bin(), "data");
    let authority = Authority::new(&scratch.dir("certificates"));
    authority.sign_without_hosts("server", "localhost");
    for file in ["ca.pem", "server.pem", "server.key"] {
        own(&authority.path(file));
    }
    let path = |file: &str| authority.path(file).display().to_string();
    let (ca, certificate, key) = (path("ca.pem"), path("server.pem"), path("server.key"));
    server.append(
        "postgresql.conf",
        &format!("ssl = on\nssl_cert_file = '{certificate}'\nssl_key_file = '{key}'\n"),
    );
    server.start();
    server.psql("CREATE ROLE safe LOGIN PASSWORD 'x'");
    let tls = [("sslmode", "verify-full"), ("sslrootcert", ca.as_str())];
    let tls = tls.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let to = ConnectTo { tls, host: "localhost".to_owned(), ..to_as(&server, "safe", "x") };
    assert_eq!(ask(&to).await.unwrap(), "true -");
    let by_address = ask(&ConnectTo { host: "127.0.0.1".to_owned(), ..to }).await.unwrap_err();
    assert!(matches!(by_address, SqlError::Tls { .. }), "{by_address}");
}
