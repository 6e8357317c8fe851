//! The users that Baton needs, on servers that write down everything they are told.

mod common;
mod sql;

use common::{Scratch, Server, pg_bins};
use postgres::connection::{Connection, Mode};
use postgres::replication::identify_system;
use postgres::users::{User, Users, ensure};
use sql::{LONG, lock, to, to_as};

const SECRETS: [&str; 3] = ["super:geheim-1", "repl'geheim\\2", "rewind geheim ö3"];

fn users() -> Users {
    let user = |name: &str, password: &str| User { name: name.to_owned(), password: Some(password.into()) };
    Users {
        superuser: user("postgres", SECRETS[0]),
        replication: user("Repli \"cator\"", SECRETS[1]),
        rewind: Some(user("rewinder", SECRETS[2])),
    }
}

#[tokio::test]
async fn they_are_made_once_and_no_secret_is_written_anywhere() {
    for bin in pg_bins() {
        for encryption in ["scram-sha-256", "md5"] {
            let scratch = Scratch::new("users");
            let server = Server::init(&scratch, &bin, "data");
            let loud = format!(
                "log_statement = 'all'\nlog_min_duration_statement = 0\nlog_min_error_statement = 'debug5'\n\
                 log_min_messages = 'debug1'\nlog_connections = on\npassword_encryption = '{encryption}'\n\
                 shared_preload_libraries = ''\n"
            );
            server.append("postgresql.conf", &loud);
            lock(&server, "scram-sha-256");
            if encryption == "md5" {
                lock(&server, "md5");
            }
            server.start();
            for _ in 0..2 {
                ensure(&to(&server), &users(), LONG).await.unwrap();
            }
            let kind = if encryption == "md5" { "md5" } else { "SCRAM-SHA-256" };
            let stored = format!("SELECT count(*) FROM pg_authid WHERE rolpassword LIKE '{kind}%'");
            assert_eq!(server.psql(&stored), "3");
            // Nobody has more rights than asked for.
            let attributes = "SELECT string_agg(rolname || rolsuper || rolreplication || rolcanlogin, ' ' ORDER BY 1) \
                              FROM pg_roles WHERE rolname IN ('rewinder', 'Repli \"cator\"')";
            assert_eq!(server.psql(attributes), "Repli \"cator\"falsetruetrue rewinderfalsefalsetrue");

            let replication = to_as(&server, "Repli \"cator\"", SECRETS[1]);
            identify_system(&replication, LONG).await.unwrap();
            let rewind = to_as(&server, "rewinder", SECRETS[2]);
            let mut session = Connection::open(&rewind, Mode::Sql, &[], LONG).await.unwrap();
            let version =
                session.query("SELECT pg_read_binary_file('PG_VERSION', 0, 2, true)", LONG).await.unwrap();
            assert!(version.single().is_some());
            session
                .query("SELECT pg_ls_dir('.', true, true), pg_stat_file('PG_VERSION', true)", LONG)
                .await
                .unwrap();
            Connection::open(&to_as(&server, "postgres", SECRETS[0]), Mode::Sql, &[], LONG).await.unwrap();

            let log = server.log();
            assert!(log.contains("statement: SELECT count(*)"), "the log would show statements:\n{log}");
            let roles = ["CREATE ROLE", "ALTER ROLE", "SCRAM-SHA-256$", "geheim"];
            for word in roles.iter().chain(&SECRETS) {
                assert!(!log.contains(word), "{word} is in the log:\n{log}");
            }
            let shown = format!("{:?} {replication:?} {rewind:?}", users());
            assert!(!shown.contains("geheim") && shown.contains("***"), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_refused_statement_does_not_show_it_either() {
    let scratch = Scratch::new("users-refused");
    let server = Server::init(&scratch, &common::pg_bin(), "data");
    server.append("postgresql.conf", "log_min_error_statement = 'debug5'\n");
    server.start();
    server.psql("CREATE ROLE helpless LOGIN");
    let error = ensure(&to_as(&server, "helpless", SECRETS[0]), &users(), LONG).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("42501"), "{error}");
    assert!(!error.to_string().contains("geheim") && !server.log().contains("geheim"), "{error}");
}
