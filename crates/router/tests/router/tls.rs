//! psql, with and without encryption, through the router.

use crate::agent::Agent;
use crate::backends::{Scripted, startup, with_other};
use crate::harness::{ANY, World};
use crate::reloading::lead_other;
use crate::servers::pg_bin;
use router::{Role as Serves, Service};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ServerConfig};

fn of_ssl(world: &World, options: &str) -> (bool, String) {
    let sql = "select 'ssl=' || ssl from pg_stat_ssl where pid = pg_backend_pid()";
    asked(world, "primary", &format!("host=127.0.0.1 {options}"), sql)
}

fn asked(world: &World, service: &str, options: &str, sql: &str) -> (bool, String) {
    psql(&format!("port={} {options}", world.router.address(service).port()), sql)
}

/// Whether it went well, and what it said.
pub(crate) fn psql(options: &str, sql: &str) -> (bool, String) {
    psql_of(&pg_bin("psql"), options, sql)
}

/// The same by that psql.
pub(crate) fn psql_of(psql: &Path, options: &str, sql: &str) -> (bool, String) {
    let target = format!("user=postgres dbname=postgres {options}");
    let mut psql = Command::new(psql);
    psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", sql, &target]).current_dir("/");
    let output = psql.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encryption_is_between_client_and_server() {
    let agent = Agent::start().await;
    let mut world = World::prepare(1, 0, |_| {});
    world.api_url = agent.url.clone();
    world.servers[0].use_tls();
    world.servers[0].start();
    world.lead(1).await;
    // The certificate that the client sees is the server's own.
    let certificate = world.servers[0].certificate();
    let verify = format!(
        "host=localhost hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={}",
        certificate.display()
    );
    for (options, expected) in [
        (verify.as_str(), (true, "ssl=true")),
        ("sslmode=require", (true, "ssl=true")),
        ("sslmode=prefer", (true, "ssl=true")),
        ("sslmode=disable", (true, "ssl=false")),
    ] {
        let (ok, text) = tokio::task::block_in_place(|| of_ssl(&world, options));
        assert_eq!((ok, text.as_str()), expected, "{options}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_encryption_is_asked_and_says_no() {
    let world = World::start(1, |_| {}).await;
    world.lead(1).await;
    let (ok, text) = tokio::task::block_in_place(|| of_ssl(&world, "sslmode=prefer"));
    assert_eq!((ok, text.as_str()), (true, "ssl=false"));
    let (ok, text) = tokio::task::block_in_place(|| of_ssl(&world, "sslmode=require"));
    assert!(!ok && text.contains("does not support SSL"), "{text}");
    world.metric(r#"baton_router_sessions{scope="demo",service="primary"} 0"#).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_name_chooses_the_cluster() {
    let agent = Agent::start().await;
    let mut world = World::prepare(2, 0, |config| {
        with_other(config);
        let mut named = Service::new("named", ANY, Serves::Primary);
        named.names.insert("localhost".into(), "other".into());
        config.services.push(named);
    });
    world.api_url = agent.url.clone();
    for server in &world.servers {
        server.use_tls();
        server.start();
    }
    world.lead(1).await;
    lead_other(&world).await;
    world.metric(r#"baton_router_primary_up{scope="other"} 1"#).await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 1"#).await;
    let sql = "select current_setting('port') || ' ' || ssl from pg_stat_ssl where pid = pg_backend_pid()";
    for (host, server) in [("host=localhost hostaddr=127.0.0.1", 1), ("host=127.0.0.1", 0)] {
        let options = format!("{host} sslmode=require");
        let found = tokio::task::block_in_place(|| asked(&world, "named", &options, sql));
        assert_eq!(found, (true, format!("{} true", world.servers[server].port)), "{host}");
    }
    let plain = tokio::task::block_in_place(|| asked(&world, "named", "host=localhost sslmode=disable", sql));
    assert_eq!(plain, (true, format!("{} false", world.servers[0].port)), "no name in the clear");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encryption_can_end_at_the_router() {
    let keys = tempfile::tempdir().unwrap();
    let identity = identity(&keys, "localhost");
    let world = World::start(1, |config| config.services[0].tls = Some(identity)).await;
    world.lead(1).await;
    for options in ["sslmode=require", "sslmode=disable"] {
        let (ok, text) = tokio::task::block_in_place(|| of_ssl(&world, options));
        assert_eq!((ok, text.as_str()), (true, "ssl=false"), "{options}: the server sees none");
    }

    // TLS at once, as `sslnegotiation=direct` does it.
    let mut session = at_once(&world, "primary", "localhost").await.unwrap();
    assert_eq!(session.get_ref().1.alpn_protocol(), Some(b"postgresql".as_slice()));
    session.write_all(b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0").await.unwrap();
    let mut answer = [0; 9];
    session.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"R\0\0\0\x08\0\0\0\0", "logged in");
    // A large result goes through the encryption whole.
    let query = b"select repeat('x', 1000000)\0";
    let mut message = vec![b'Q'];
    message.extend_from_slice(&(query.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(query);
    session.write_all(&message).await.unwrap();
    let (mut count, mut buffer) = (0, vec![0; 65536]);
    while count < 1_000_000 {
        let read = session.read(&mut buffer).await.unwrap();
        assert!(read > 0);
        count += buffer[..read].iter().filter(|byte| **byte == b'x').count();
    }
    // What the router can read it can end with a word.
    let mut rest = Vec::new();
    let term = world.take_lead(1).await;
    world.knows(term).await;
    session.read_to_end(&mut rest).await.unwrap();
    let text = String::from_utf8_lossy(&rest);
    assert!(text.contains("C57P01") && text.contains("no longer leads"), "{text}");
}

/// A new certificate for that name.
pub(crate) fn identity(keys: &tempfile::TempDir, name: &str) -> tls::Identity {
    let at = |kind: &str| keys.path().join(format!("{name}.{kind}"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]);
    openssl.arg("-subj").arg(format!("/CN={name}"));
    let made = openssl.arg("-keyout").arg(at("key")).arg("-out").arg(at("crt")).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    tls::Identity { certfile: at("crt"), keyfile: Some(at("key")), password: None }
}

/// A session that begins with TLS, for that server name.
async fn at_once(world: &World, service: &str, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    encrypted(TcpStream::connect(world.router.address(service)).await?, name).await
}

/// TLS on that connection. To an address no name is sent.
async fn encrypted(stream: TcpStream, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = ClientConfig::clone(&tls::client(&tls::Trust::Anybody, None).unwrap());
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// `sslnegotiation=direct`: the server's certificate is seen, its ALPN agreed on, its cluster found by name, and the session ends with its term.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_at_once_is_passed_through_to_the_cluster_of_its_name() {
    let agent = Agent::start().await;
    let mut world = World::start(0, |config| {
        with_other(config);
        let mut named = Service::new("named", ANY, Serves::Primary);
        named.names.insert("other.example".into(), "other".into());
        config.services.push(named);
    })
    .await;
    world.api_url = agent.url.clone();
    let keys = tempfile::tempdir().unwrap();
    let mut certificates = Vec::new();
    let mut first = None;
    for (cluster, member) in [("demo", "db1"), ("other", "x1")] {
        let identity = identity(&keys, cluster);
        let mut server = ServerConfig::clone(&tls::server(&identity, &tls::Guests::Unasked, None).unwrap());
        server.alpn_protocols = vec![b"postgresql".to_vec()];
        let backend = Scripted::start(vec![0, 0, 0, 1, 9, 9, 9, 9], Some(Arc::new(server))).await;
        backend.lead(&world, cluster, member).await;
        world.metric(&format!("baton_router_primary_up{{scope=\"{cluster}\"}} 1")).await;
        first.get_or_insert(backend);
        certificates.push(std::fs::read(&identity.certfile).unwrap());
    }
    let mut sessions = Vec::new();
    for (service, name) in
        [("primary", "whatever.example"), ("named", "unknown.example"), ("named", "other.example")]
    {
        let mut session = at_once(&world, service, name).await.unwrap();
        assert_eq!(session.get_ref().1.alpn_protocol(), Some(b"postgresql".as_slice()));
        session.write_all(&startup(0)).await.unwrap();
        assert_eq!(session.read_u8().await.unwrap(), b'R', "logged in");
        let seen = session.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        sessions.push((session, seen));
    }
    assert_eq!(sessions[0].1, sessions[1].1);
    assert_ne!(sessions[0].1, sessions[2].1, "another server");
    assert_ne!(certificates[0], certificates[1]);
    // A session that cannot be read ends without a word when its term does; that of the other cluster goes on.
    let term = first.unwrap().lead(&world, "demo", "db1").await;
    world.knows(term).await;
    let mut rest = Vec::new();
    let _ends_without_a_farewell = sessions[0].0.read_to_end(&mut rest).await;
    assert!(!String::from_utf8_lossy(&rest).contains("57P01"));
    let other = &mut sessions[2].0;
    other.write_all(b"Q\0\0\0\x05\0").await.unwrap();
    let mut answer = vec![0; 64];
    assert!(other.read(&mut answer).await.unwrap() > 0);
}

const MAY_I_USE_TLS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const MAY_I_USE_GSS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

/// Logs in; which backend greets, by its key.
async fn greeted_by(mut session: impl AsyncRead + AsyncWrite + Unpin) -> u8 {
    session.write_all(&startup(0)).await.unwrap();
    let mut greeting = [0; 9 + 5 + 8];
    session.read_exact(&mut greeting).await.unwrap();
    assert_eq!((greeting[0], greeting[9]), (b'R', b'K'));
    greeting[17]
}

/// Where clusters are found by name: with TLS that ends here, by both ways to begin it, without a name and with an unknown one; and a client
/// that would rather have GSS is told no, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_chooses_the_cluster_where_tls_ends_and_gss_is_declined() {
    let keys = tempfile::tempdir().unwrap();
    let identity = identity(&keys, "localhost");
    let world = World::start(0, |config| {
        with_other(config);
        for (name, tls) in [("ended", Some(identity)), ("passed", None)] {
            let mut named = Service::new(name, ANY, Serves::Primary);
            named.names.insert("other.example".into(), "other".into());
            named.tls = tls;
            config.services.push(named);
        }
    })
    .await;
    for (number, cluster, member) in [(1, "demo", "db1"), (2, "other", "x1")] {
        let backend = Scripted::start(vec![0, 0, 0, number, 9, 9, 9, 9], None).await;
        backend.lead(&world, cluster, member).await;
        world.metric(&format!("baton_router_primary_up{{scope=\"{cluster}\"}} 1")).await;
    }
    for (name, backend) in
        [("other.example", 2), ("OTHER.example", 2), ("unknown.example", 1), ("127.0.0.1", 1)]
    {
        let session = at_once(&world, "ended", name).await.unwrap();
        assert_eq!(greeted_by(session).await, backend, "{name}, TLS at once");
        let mut session = TcpStream::connect(world.router.address("ended")).await.unwrap();
        session.write_all(&MAY_I_USE_TLS).await.unwrap();
        assert_eq!(session.read_u8().await.unwrap(), b'S');
        assert_eq!(greeted_by(encrypted(session, name).await.unwrap()).await, backend, "{name}");
    }
    for service in ["ended", "passed"] {
        let mut session = TcpStream::connect(world.router.address(service)).await.unwrap();
        session.write_all(&MAY_I_USE_GSS).await.unwrap();
        assert_eq!(session.read_u8().await.unwrap(), b'N', "{service}");
        assert_eq!(greeted_by(session).await, 1, "{service}");
    }
}
