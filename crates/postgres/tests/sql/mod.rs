//! What the tests of the SQL side share: the way to a test server, and users with passwords.
#![expect(clippy::expect_used, reason = "a helper of tests fails by panicking, as tests do")]
#![allow(dead_code, reason = "every test program uses another part of this module")]

use crate::common::{SOON, SUPERUSER, Server};
use postgres::connection::{ConnectTo, Connection, Mode};
use postgres::probe::{Facts, Probe, Prober};
use postgres::users::{User, Users, ensure};
use std::collections::BTreeMap;
use std::time::Duration;

/// More than any answer takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// The superuser through the Unix socket.
pub(crate) fn to(server: &Server) -> ConnectTo {
    ConnectTo {
        host: server.socket_dir.to_str().expect("UTF-8").to_owned(),
        port: server.port,
        user: SUPERUSER.to_owned(),
        password: None,
        dbname: "postgres".to_owned(),
        application_name: "baton test".to_owned(),
        tls: BTreeMap::new(),
        sslpassword: None,
    }
}

/// A user with a password through TCP, where `pg_hba.conf` of [`lock`] asks for it.
pub(crate) fn to_as(server: &Server, user: &str, password: &str) -> ConnectTo {
    ConnectTo {
        host: "127.0.0.1".to_owned(),
        user: user.to_owned(),
        password: Some(password.into()),
        ..to(server)
    }
}

/// Lets everybody in through the socket, and through TCP only with a password, asked for by `method`.
pub(crate) fn lock(server: &Server, method: &str) {
    let lines = format!(
        "local all all trust\nlocal replication all trust\n\
         host all all 127.0.0.1/32 {method}\nhost replication all 127.0.0.1/32 {method}\n"
    );
    std::fs::write(server.data_dir.join("pg_hba.conf"), lines).expect("write pg_hba.conf");
}

/// Probes until it runs and `wanted` agrees.
pub(crate) async fn facts_until(
    what: &str,
    prober: &mut Prober,
    mut wanted: impl FnMut(&Facts) -> bool,
) -> Facts {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let probe = prober.probe(Duration::from_secs(5)).await;
        match probe {
            Probe::Running(facts) if wanted(&facts) => return *facts,
            other => assert!(tokio::time::Instant::now() < deadline, "waited for {what}, last: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An open SQL session of the superuser.
pub(crate) async fn session(server: &Server) -> Connection {
    Connection::open(&to(server), Mode::Sql, &[], LONG).await.expect("connect")
}

/// The users `replicator` and `rewinder`, with this password.
pub(crate) async fn ensure_users(server: &Server, password: &str) {
    let user = |name: &str| User { name: name.to_owned(), password: Some(password.into()) };
    let superuser = User { name: SUPERUSER.to_owned(), password: None };
    let users = Users { superuser, replication: user("replicator"), rewind: Some(user("rewinder")) };
    ensure(&to(server), &users, LONG).await.expect("make the users");
}
