//! What holds for every row of the table of settings.

use settings::{Kind, Scope, Support, load_environment, rows};
use std::collections::{BTreeMap, BTreeSet};

type Env = BTreeMap<String, String>;

const MINIMAL: &str = "{scope: demo, name: n1, restapi: {listen: '127.0.0.1:8008'}, etcd3: {host: '127.0.0.1'}, postgresql: \
    {listen: '127.0.0.1:5433', data_dir: /data, authentication: {replication: {username: repl}}}}";

fn minimal_with(name: &str, value: &str) -> Env {
    Env::from([("PATRONI_CONFIGURATION".to_owned(), MINIMAL.to_owned()), (name.to_owned(), value.to_owned())])
}

#[test]
fn keys_are_unique_in_their_scope() {
    let mut seen = BTreeSet::new();
    for row in rows() {
        assert!(seen.insert((row.scope == Scope::Dynamic, row.key)), "{} is in the table twice", row.key);
    }
}

#[test]
fn keys_and_variables_are_well_formed() {
    let mut variables = BTreeSet::new();
    for row in rows() {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.*".contains(c);
        assert!(row.key.chars().all(fits), "{}", row.key);
        assert!(row.key.split('.').all(|part| !part.is_empty()), "{}", row.key);
        for name in row.env {
            assert!(name.starts_with("PATRONI_") || name.starts_with("BATON_"), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'), "{name}");
            assert!(variables.insert(*name), "{name} is in the table twice");
            assert!(row.scope != Scope::Dynamic, "{name}: the dynamic configuration has no variables");
        }
    }
}

#[test]
fn every_row_is_documented() {
    for row in rows() {
        assert!(row.doc.ends_with('.') && row.doc.len() > 10, "{}: {:?}", row.key, row.doc);
        match row.support {
            Support::Full => {}
            Support::Ignored(why) | Support::Refused(why) | Support::Limited { why, .. } => {
                assert!(!why.is_empty() && !why.ends_with('.'), "{}: {why:?}", row.key);
            }
        }
    }
}

#[test]
fn old_names_lead_to_rows() {
    for row in rows() {
        if let Some(target) = row.alias_of {
            let target = rows().find(|other| other.key == target && other.scope == row.scope).unwrap();
            assert_eq!(target.kind, row.kind, "{}", row.key);
            assert_eq!(target.alias_of, None, "{}", row.key);
        }
    }
}

#[test]
fn secrets_are_marked_and_have_no_default() {
    for row in rows() {
        let last = row.key.rsplit('.').next().unwrap();
        let secret = last.ends_with("password") || last.ends_with("secret");
        assert_eq!(secret, row.kind == Kind::Secret, "{}", row.key);
        assert!(!row.is_secret() || row.default.is_none(), "{}", row.key);
    }
}

/// A value that fits the kind, as it would stand in an environment variable.
fn sample(key: &str, kind: Kind) -> String {
    match kind {
        Kind::Bool => "true".to_owned(),
        Kind::Int(low, high) | Kind::Seconds(low, high) | Kind::Bytes(low, high) => {
            low.max(1).min(high).to_string()
        }
        Kind::Mode => "0640".to_owned(),
        Kind::Duration => "7s".to_owned(),
        Kind::Choice(words) => words[words.len() - 1].to_owned(),
        Kind::Address | Kind::Listen => "127.0.0.9:1234".to_owned(),
        Kind::Texts => "127.0.0.3:1234,127.0.0.4:1234".to_owned(),
        Kind::Lines | Kind::Options => "[a, b]".to_owned(),
        Kind::TextMap | Kind::Json => "{a: b}".to_owned(),
        Kind::LogFormat => "%(message)s".to_owned(),
        Kind::Text | Kind::Path | Kind::Secret if key.ends_with("url") || key.ends_with("proxy") => {
            "http://127.0.0.9:1".to_owned()
        }
        Kind::Text | Kind::Path | Kind::Secret => "sample".to_owned(),
    }
}

#[test]
fn every_variable_reaches_its_setting() {
    for row in rows() {
        for name in row.env {
            let value = sample(row.key, row.kind);
            match load_environment(&minimal_with(name, &value)) {
                Ok(loaded) => {
                    let place = settings::Place::Environment((*name).into());
                    let origins: Vec<_> =
                        loaded.origins.iter().filter(|origin| origin.origin == place).collect();
                    assert!(!origins.is_empty(), "{name} has no effect");
                    assert!(
                        origins.iter().all(|origin| origin.key.starts_with(row.key)),
                        "{name}: {origins:?}"
                    );
                    assert!(
                        !row.is_secret() || origins.iter().all(|origin| !origin.value.contains(&value)),
                        "{name}"
                    );
                }
                Err(problems) => {
                    let refused = !matches!(row.support, Support::Full | Support::Ignored(_));
                    let half = row.key.ends_with(".cert") || row.key.ends_with(".key");
                    assert!(refused || half, "{name}={value}: {problems}");
                    assert!(problems.to_string().contains(name), "{name}: {problems}");
                }
            }
        }
    }
}

/// Patroni's variables as its documentation lists them: sections with the ends of their names.
const PATRONIS: [(&str, &str); 12] = [
    (
        "",
        "CONFIGURATION NAME NAMESPACE SCOPE THREAD_POOL_SIZE THREAD_STACK_SIZE LOGLEVEL LOGFORMAT LOG_DATEFMT",
    ),
    (
        "LOG_",
        "TYPE LEVEL TRACEBACK_LEVEL FORMAT DATEFORMAT STATIC_FIELDS MAX_QUEUE_SIZE DIR MODE FILE_NUM FILE_SIZE LOGGERS \
         DEDUPLICATE_HEARTBEAT_LOGS",
    ),
    (
        "RESTAPI_",
        "LISTEN CONNECT_ADDRESS CERTFILE KEYFILE KEYFILE_PASSWORD CAFILE CIPHERS VERIFY_CLIENT HTTP_EXTRA_HEADERS \
         HTTPS_EXTRA_HEADERS ALLOWLIST ALLOWLIST_INCLUDE_MEMBERS REQUEST_QUEUE_SIZE SERVER_TOKENS USERNAME PASSWORD \
         THREAD_POOL_SIZE",
    ),
    ("CTL_", "INSECURE CACERT CERTFILE KEYFILE KEYFILE_PASSWORD USERNAME PASSWORD"),
    ("POSTGRESQL_", "LISTEN CONNECT_ADDRESS PROXY_ADDRESS CONFIG_DIR DATA_DIR PGPASS BIN_DIR"),
    ("POSTGRESQL_BIN_", "PG_CTL INITDB PG_CONTROLDATA PG_BASEBACKUP POSTGRES PG_ISREADY PG_REWIND"),
    ("REPLICATION_", LOGIN),
    ("SUPERUSER_", LOGIN),
    ("REWIND_", LOGIN),
    ("ETCD3_", ETCD),
    ("ETCD_", ETCD),
    ("CITUS_", "GROUP DATABASE"),
];
const LOGIN: &str = "USERNAME PASSWORD SSLMODE SSLCERT SSLKEY SSLPASSWORD SSLROOTCERT SSLCRL SSLCRLDIR GSSENCMODE \
    CHANNEL_BINDING SSLNEGOTIATION";
const ETCD: &str =
    "HOST HOSTS PORT URL PROXY USE_PROXIES PROTOCOL SRV SRV_SUFFIX USERNAME PASSWORD CACERT CERT KEY";

#[test]
fn every_variable_of_patroni_is_known_or_refused_by_name() {
    let mut known: BTreeSet<String> = rows().flat_map(|row| row.env).map(|name| (*name).to_owned()).collect();
    known.insert(settings::CONFIGURATION.to_owned());
    for (section, ends) in PATRONIS {
        for end in ends.split_whitespace() {
            let name = format!("PATRONI_{section}{end}");
            let refused = || load_environment(&minimal_with(&name, "x")).unwrap_err().to_string();
            assert!(known.contains(&name) || refused().contains("is refused"), "{name}");
            // And none is known under a name that is a slip away.
            if known.contains(&name) {
                let slip = name.replace("PATRONI_", "PATRONI_X");
                let loaded = load_environment(&minimal_with(&slip, "x")).unwrap();
                assert!(
                    loaded.warnings.iter().any(|warning| warning.to_string().starts_with(&slip)),
                    "{slip}"
                );
            }
        }
    }
}

#[test]
fn a_wrong_value_in_a_variable_names_the_variable() {
    for row in rows() {
        let wrong = match row.kind {
            Kind::Bool
            | Kind::Mode
            | Kind::Int(..)
            | Kind::Seconds(..)
            | Kind::Bytes(..)
            | Kind::Duration => "[]",
            Kind::Choice(_) | Kind::Address | Kind::Listen => "[",
            _ => continue,
        };
        for name in row.env {
            let problems = load_environment(&minimal_with(name, wrong)).unwrap_err();
            assert!(
                problems.0.iter().any(|problem| problem.to_string().starts_with(&format!("{name}: "))),
                "{name}: {problems}"
            );
        }
    }
}

#[test]
fn defaults_are_of_their_kind() {
    let loaded =
        load_environment(&Env::from([("PATRONI_CONFIGURATION".to_owned(), MINIMAL.to_owned())])).unwrap();
    for row in
        rows().filter(|row| row.default.is_some() && row.scope != Scope::Dynamic && !row.key.contains('*'))
    {
        let origin = loaded.origins.iter().find(|origin| origin.key == row.key);
        assert!(origin.is_some(), "{} is not shown with its default", row.key);
    }
}
