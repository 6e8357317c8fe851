//! The replication commands against real servers, with every way to log in, and against what is no server.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking, as tests do")]

mod common;
mod sql;

use common::{Scratch, Server, pg_bin, pg_bins};
use postgres::connection::{ConnectTo, Connection, Mode, SqlError};
use postgres::control;
use postgres::replication::{identify_system, identify_with_history, timeline_history};
use sql::{LONG, lock, to, to_as};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use types::{History, Timeline};

const PASSWORD: &str = "p:a\\s's\"w ö";

#[tokio::test]
async fn every_way_to_log_in_works_and_a_wrong_password_is_refused() {
    for bin in pg_bins() {
        let scratch = Scratch::new("repl-login");
        let server = Server::init(&scratch, &bin, "data");
        server.start();
        let quoted = PASSWORD.replace('\'', "''");
        for (encryption, method) in [
            ("scram-sha-256", "scram-sha-256"),
            ("md5", "md5"),
            ("scram-sha-256", "md5"),
            ("md5", "password"),
        ] {
            let create = format!("SET password_encryption = '{encryption}'; DROP ROLE IF EXISTS r");
            server.psql(&format!("{create}; CREATE ROLE r REPLICATION LOGIN PASSWORD '{quoted}'"));
            lock(&server, method);
            server.psql("SELECT pg_reload_conf()");
            let right = to_as(&server, "r", PASSWORD);
            let identity = wait_for_login(&right).await;
            let control = control::read(&server.data_dir).unwrap();
            assert_eq!((identity.system_id, identity.timeline), (control.system_id, Timeline(1)));
            assert!(identity.xlogpos >= control.checkpoint);

            let wrong = identify_system(&to_as(&server, "r", "wrong"), LONG).await.unwrap_err();
            assert_eq!(wrong.sqlstate(), Some("28P01"), "{method}: {wrong}");
            let none =
                identify_system(&ConnectTo { password: None, ..right.clone() }, LONG).await.unwrap_err();
            assert!(matches!(none, SqlError::Login { .. }), "{method}: {none}");
        }
        assert!(identify_system(&to(&server), LONG).await.is_ok(), "trust, through the socket");
    }
}

/// The reloaded pg_hba.conf counts from a moment after the reload on.
async fn wait_for_login(to: &ConnectTo) -> postgres::replication::Identity {
    let deadline = tokio::time::Instant::now() + common::SOON;
    loop {
        match identify_system(to, LONG).await {
            Ok(identity) => return identity,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
    }
}

#[tokio::test]
async fn histories_are_read() {
    for bin in pg_bins() {
        let scratch = Scratch::new("repl-history");
        let primary = Server::init(&scratch, &bin, "primary");
        primary.start();
        assert_eq!(timeline_history(&to(&primary), Timeline(1), LONG).await.unwrap(), History::first());
        let (_, history) = identify_with_history(&to(&primary), LONG).await.unwrap();
        assert_eq!(history, History::first());
        let missing = timeline_history(&to(&primary), Timeline(7), LONG).await.unwrap_err();
        assert!(missing.to_string().contains("00000007.history"), "{missing}");

        let standby = primary.standby(&scratch, "standby");
        standby.start();
        assert_eq!(identify_system(&to(&standby), LONG).await.unwrap().timeline, Timeline(1));
        standby.psql("SELECT pg_promote(true)");
        let (identity, history) = identify_with_history(&to(&standby), LONG).await.unwrap();
        assert_eq!((identity.timeline, history.timeline), (Timeline(2), Timeline(2)));
        let end = history.end_of(Timeline(1)).expect("the first timeline ended");
        assert!(end <= identity.xlogpos && end.is_valid(), "{history:?}");
        assert_eq!(timeline_history(&to(&standby), Timeline(2), LONG).await.unwrap(), history);
    }
}

#[tokio::test]
async fn a_session_survives_errors_and_spends_itself_on_silence() {
    let scratch = Scratch::new("repl-session");
    let server = Server::init(&scratch, &pg_bin(), "data");
    server.start();
    let mut session = Connection::open(&to(&server), Mode::Sql, &[("jit", "off")], LONG).await.unwrap();
    let error = session.query("SELECT 1/0", LONG).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("22012"));
    let rows = session
        .query("SELECT 1 AS a, NULL AS b; SELECT 'x' AS c, current_setting('jit')", LONG)
        .await
        .unwrap();
    assert_eq!(
        (rows.first("c"), rows.first("a"), rows.first("current_setting")),
        (Some("x"), None, Some("off"))
    );
    assert_eq!(session.query("SELECT 1 WHERE false", LONG).await.unwrap().rows.len(), 0);
    let big =
        session.query("SELECT repeat('x', 1000000) FROM generate_series(1, 20)", LONG).await.unwrap_err();
    assert!(matches!(big, SqlError::Nonsense { .. }), "{big}");
    assert!(!session.usable());
    let mut session = sql::session(&server).await;
    let silent = session.query("SELECT pg_sleep(600)", Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(silent, SqlError::NoAnswer { .. }), "{silent}");
    assert!(session.query("SELECT 1", LONG).await.is_err(), "the answer would be that of the query before");
}

#[tokio::test]
async fn what_is_no_postgresql_gives_errors() {
    let error_response = b"E\0\0\0\x0bVFATAL\0\0";
    let garbage: [&[u8]; 12] = [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"R\x7f\xff\xff\xff",
        b"R\0\0\0\x03",
        b"R\xff\xff\xff\xff\0\0\0\0",
        b"R\0\0\0\x08\0\0\0\x0b",
        b"R\0\0\0\x08\0\0\0\x0c",
        b"R\0\0\0\x08\0\0\0\x63",
        b"R\0\0\0\x08\0\0\0\0T\0\0\0\x06\xff\xff",
        b"D\0\0\0\x06\0\x01",
        b"E\0\0\0\x05\x4d",
        error_response,
    ];
    for bytes in garbage {
        let error = identify_system(&hostile(bytes.to_vec()).await, LONG).await.unwrap_err();
        let expected = matches!(
            error,
            SqlError::Nonsense { .. }
                | SqlError::Lost { .. }
                | SqlError::Login { .. }
                | SqlError::Refused { .. }
        );
        assert!(expected, "{bytes:?}: {error}");
    }
    // A login that is let in without a proof, and a login that never ends.
    let unproven = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    let error = identify_system(&hostile(unproven.to_vec()).await, LONG).await.unwrap_err();
    assert!(matches!(error, SqlError::Login { .. }), "{error}");
    let endless = b"R\0\0\0\x08\0\0\0\0".repeat(10_000);
    let error = identify_system(&hostile(endless).await, LONG).await.unwrap_err();
    assert!(matches!(error, SqlError::Nonsense { .. }), "{error}");
    // Logged in, and then rubbish for an answer.
    let answers: [&[u8]; 5] = [
        b"T\0\0\0\x06\0\0D\0\0\0\x06\0\0C\0\0\0\x05\0Z\0\0\0\x05I",
        b"Z\0\0\0\x05I",
        b"T\0\0\0\x06\0\x05Z\0\0\0\x05I",
        b"D\0\0\0\x0a\0\x01\x7f\xff\xff\xffZ\0\0\0\x05I",
        b"T\0\0\0\x1c\0\x01timeline\0\0\0\0\0",
    ];
    for bytes in answers {
        let bytes = [b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I", bytes].concat();
        let error = identify_system(&hostile(bytes.clone()).await, LONG).await.unwrap_err();
        assert!(matches!(error, SqlError::Nonsense { .. } | SqlError::Lost { .. }), "{bytes:?}: {error}");
    }
}

#[tokio::test]
async fn a_silent_server_costs_no_more_than_the_deadline() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let to = at(listener.local_addr().unwrap().port());
    let asked = tokio::time::Instant::now();
    let error = identify_system(&to, Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, SqlError::NoAnswer { .. }), "{error}");
    assert!(asked.elapsed() < LONG);
}

/// Sends `bytes` to whoever connects, reads what comes, and hangs up.
async fn hostile(bytes: Vec<u8>) -> ConnectTo {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let to = at(listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 4096];
        let _ = stream.read(&mut asked).await;
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        while stream.read(&mut asked).await.is_ok_and(|count| count > 0) {}
    });
    to
}

fn at(port: u16) -> ConnectTo {
    ConnectTo {
        host: "127.0.0.1".to_owned(),
        port,
        user: "r".to_owned(),
        password: Some("secret".into()),
        dbname: "postgres".to_owned(),
        application_name: "baton test".to_owned(),
        tls: [("sslmode".to_owned(), "disable".to_owned())].into(),
        sslpassword: None,
    }
}
