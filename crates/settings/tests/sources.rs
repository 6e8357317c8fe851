//! Which source of a setting wins, and that none of them gives a secret away.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking, as tests do")]

use proptest::prelude::*;
use settings::{Loaded, Place, Problems, load, load_ctl, load_environment};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

type Env = BTreeMap<String, String>;

const BASE: &str = "\
scope: demo
name: n1
restapi: {listen: '127.0.0.1:8008'}
etcd3: {host: 127.0.0.1}
postgresql:
  listen: 127.0.0.1:5432
  data_dir: /data
  authentication: {replication: {username: repl}}
";

fn env(pairs: &[(&str, &str)]) -> Env {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load_files(files: &[(&str, &str)], env: &Env) -> Result<Loaded, Problems> {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    load(directory.path(), env)
}

#[test]
fn a_directory_is_merged_in_the_order_of_names() {
    let files = [
        ("00-base.yml", BASE),
        (
            "50-site.yaml",
            "postgresql:\n  listen: 127.0.0.5:5999\n  parameters: {work_mem: 4MB, jit: off}\ntags: {mine: a}\n",
        ),
        ("90-node.yml", "name: n2\npostgresql:\n  parameters: {work_mem: 8MB, jit: null}\n"),
        ("99-empty.yml", "# nothing\n"),
        ("ignored.txt", "scope: other\n"),
    ];
    let loaded = load_files(&files, &Env::new()).unwrap();
    assert_eq!(loaded.settings.name.as_str(), "n2");
    assert_eq!(loaded.settings.postgresql.port, 5999);
    assert_eq!(loaded.settings.postgresql.data_dir, Path::new("/data"));
    assert_eq!(loaded.settings.postgresql.parameters, env(&[("work_mem", "8MB")]));
    let name = loaded.origins.iter().find(|origin| origin.key == "name").unwrap();
    assert!(
        matches!(&name.origin, Place::File { name, line: 1, .. } if name.ends_with("90-node.yml")),
        "{name:?}"
    );
}

#[test]
fn a_broken_file_of_a_directory_is_named() {
    let files = [("00-base.yml", BASE), ("10-bad.yml", "log: [\n"), ("20-list.yml", "- a\n")];
    let problems = load_files(&files, &Env::new()).unwrap_err().to_string();
    assert!(problems.contains("10-bad.yml:") && problems.contains("20-list.yml:1:1"), "{problems}");
    assert!(!problems.contains("missing"), "{problems}");
}

#[test]
fn the_environment_wins_over_the_file_and_an_empty_variable_does_not() {
    let over = env(&[
        ("PATRONI_NAME", "from-env"),
        ("PATRONI_SCOPE", ""),
        ("PATRONI_ETCD3_HOSTS", "\"10.0.0.1:2379\", '10.0.0.2:4001'"),
        ("PATRONI_REPLICATION_PASSWORD", "123"),
        ("PATRONI_LOG_LOGLEVEL", "DEBUG"),
        ("HOME", "/root"),
    ]);
    let loaded = load_files(&[("a.yml", BASE)], &over).unwrap();
    assert_eq!(loaded.settings.name.as_str(), "from-env");
    assert_eq!(loaded.settings.scope, "demo");
    assert_eq!(loaded.settings.etcd.endpoints, ["http://10.0.0.1:2379", "http://10.0.0.2:4001"]);
    assert_eq!(loaded.settings.postgresql.authentication.replication.password.unwrap().reveal(), "123");
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["PATRONI_LOG_LOGLEVEL: unknown environment variable: did you mean PATRONI_LOG_LEVEL?"]
    );
}

#[test]
fn the_current_name_of_a_variable_wins_over_its_old_one() {
    let both = env(&[("PATRONI_LOGLEVEL", "ERROR"), ("PATRONI_LOG_LEVEL", "DEBUG")]);
    assert_eq!(load_files(&[("a.yml", BASE)], &both).unwrap().settings.log.level, "DEBUG");
}

#[test]
fn the_whole_document_may_be_a_variable() {
    let loaded = load_environment(&env(&[("PATRONI_CONFIGURATION", BASE), ("PATRONI_NAME", "n9")])).unwrap();
    assert_eq!(loaded.settings.name.as_str(), "n9");
    let problems = load_environment(&env(&[("PATRONI_CONFIGURATION", "scope: [")])).unwrap_err();
    assert!(problems.to_string().starts_with("PATRONI_CONFIGURATION:1:"), "{problems}");
    let variables = env(&[
        ("PATRONI_SCOPE", "demo"),
        ("PATRONI_NAME", "n1"),
        ("PATRONI_RESTAPI_LISTEN", "127.0.0.1:8008"),
        ("PATRONI_ETCD3_URL", "https://etcd:2379"),
        ("PATRONI_POSTGRESQL_LISTEN", "127.0.0.1:5432"),
        ("PATRONI_POSTGRESQL_DATA_DIR", "/data"),
        ("PATRONI_REPLICATION_USERNAME", "repl"),
    ]);
    assert_eq!(load_environment(&variables).unwrap().settings.etcd.endpoints, ["https://etcd:2379"]);
}

#[test]
fn variables_of_other_stores_are_refused() {
    let problems = load_files(&[("a.yml", BASE)], &env(&[("PATRONI_CONSUL_HOST", "x")])).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "PATRONI_CONSUL_HOST: consul is refused: Baton keeps its state in etcd only: use etcd3"
    );
}

#[test]
fn etcd_is_understood_in_all_spellings() {
    for (section, endpoints) in [
        ("etcd3: {host: 'a:2379'}", "http://a:2379"),
        ("etcd: {host: a, port: 4001}", "http://a:4001"),
        ("etcd3: {hosts: 'a:1,b:2'}", "http://a:1 http://b:2"),
        ("etcd3: {hosts: [a, 'https://b:2', 'a:2379'], port: 2379}", "http://a:2379 https://b:2"),
        ("etcd3: {hosts: [a, b], protocol: https, cacert: /ca}", "https://a:2379 https://b:2379"),
        ("etcd3: {url: 'https://u:p@a', host: b}", "https://a:2379"),
        ("etcd3: {proxy: 'http://p:1', url: 'http://a'}", "http://p:1"),
    ] {
        let loaded =
            load_files(&[("a.yml", &BASE.replace("etcd3: {host: 127.0.0.1}", section))], &Env::new())
                .unwrap();
        assert_eq!(loaded.settings.etcd.endpoints.join(" "), endpoints, "{section}");
        assert_eq!(loaded.settings.etcd.fixed, section.contains("proxy"), "{section}");
        assert_eq!(loaded.settings.etcd.authentication.is_some(), section.contains("u:p"), "{section}");
    }
}

#[test]
fn sections_of_methods_are_listed_with_their_origins() {
    let yaml = BASE.replace(
        "  data_dir: /data",
        "  data_dir: /data\n  create_replica_methods: [pgbackrest, basebackup]\n  pgbackrest:\n    command: /bin/restore\n    keep_data: true\n    repo_password: S3CRET",
    ) + "bootstrap:\n  method: pitr\n  pitr:\n    command: /bin/pitr\n    recovery_conf: {restore_command: 'cp %f %p'}\n";
    let loaded = load_files(&[("a.yml", &yaml)], &Env::new()).unwrap();
    let listed: Vec<(&str, &str)> = loaded
        .origins
        .iter()
        .filter(|origin| origin.key.contains("pgbackrest.") || origin.key.contains("pitr."))
        .map(|origin| {
            assert!(matches!(&origin.origin, Place::File { line, .. } if *line > 7), "{origin}");
            (origin.key.as_str(), origin.value.as_str())
        })
        .collect();
    assert_eq!(
        listed,
        [
            ("bootstrap.pitr.command", "/bin/pitr"),
            ("bootstrap.pitr.recovery_conf.restore_command", "cp %f %p"),
            ("postgresql.pgbackrest.command", "/bin/restore"),
            ("postgresql.pgbackrest.keep_data", "true"),
            ("postgresql.pgbackrest.repo_password", "********"),
        ]
    );
}

#[test]
fn no_secret_is_ever_shown() {
    let yaml = "\
scope: demo
name: n1
restapi: {listen: '127.0.0.1:8008', authentication: {username: u, password: S3CRET-rest}, http_extra_headers: {Authorization: S3CRET-h}}
ctl: {authentication: {username: u, password: S3CRET-ctl}, keyfile_password: S3CRET-key}
etcd3: {url: 'http://u:S3CRET-url@a', username: e, password: S3CRET-etcd}
bootstrap:
  dcs: {postgresql: {parameters: {primary_conninfo: 'host=a password=S3CRET-conn'}}}
  users: {admin: {password: S3CRET-user}}
postgresql:
  listen: 127.0.0.1:5432
  data_dir: /data
  create_replica_methods: [basebackup]
  authentication:
    superuser: {username: s, password: S3CRET-super}
    replication: {username: r, password: S3CRET-repl, sslpassword: S3CRET-ssl}
    rewind: {username: w, password: S3CRET-rewind}
  parameters: {my.secret: S3CRET-param, archive_command: 'PGPASSWORD=S3CRET-archive push'}
  recovery_conf: {restore_command: 'curl http://x:S3CRET-curl@host/'}
";
    let loaded = load_files(&[("a.yml", yaml)], &Env::new()).unwrap();
    let clean = |what: &str, text: &str| {
        let at =
            text.find("S3CRET").map(|at| text.get(at.saturating_sub(80)..at + 20).unwrap_or(text).to_owned());
        assert_eq!(at, None, "{what}");
    };
    let origins: Vec<String> = loaded.origins.iter().map(ToString::to_string).collect();
    clean("origins", &origins.join("\n"));
    assert!(
        origins.iter().any(|origin| origin.starts_with("ctl.authentication.password = ********  (")),
        "{origins:#?}"
    );
    clean("warnings", &format!("{:?}", loaded.warnings));
    let mut settings = loaded.settings;
    // Parameters and the raw dcs section are the operator's own texts; the rest of the settings must not show a secret.
    settings.postgresql.parameters.clear();
    settings.postgresql.recovery_conf.clear();
    settings.bootstrap.dcs = serde_json::Value::Null;
    settings.restapi.http_extra_headers.clear();
    clean("settings", &format!("{settings:?} {settings:#?}"));
    assert_eq!(settings.restapi.authentication.unwrap().password.reveal(), "S3CRET-rest");

    let broken = yaml
        .replace("name: n1", "nmae: n1")
        .replace("127.0.0.1:5432", "nowhere")
        .replace("sslpassword", "sslpasword");
    let problems = load_files(&[("a.yml", &broken)], &Env::new()).unwrap_err();
    clean("errors", &format!("{problems} {problems:?}"));
}

#[test]
fn the_command_line_takes_the_rest_user_where_ctl_has_none() {
    let yaml =
        "scope: demo\nrestapi: {authentication: {username: u, password: p}, certfile: /x}\nunknown: 1\n";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("patronictl.yaml");
    fs::write(&file, yaml).unwrap();
    let settings = load_ctl(Some(&file), &Env::new()).unwrap();
    assert_eq!(settings.ctl.authentication.unwrap().username, "u");
    assert_eq!(settings.etcd, None);
    let settings =
        load_ctl(None, &env(&[("PATRONI_ETCD3_HOST", "a:1"), ("PATRONI_NAMESPACE", "/pg/")])).unwrap();
    assert_eq!(settings.etcd.unwrap().endpoints, ["http://a:1"]);
    assert_eq!(settings.namespace, "pg");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s)[ -~\n\t\u{e9}]{0,200}") {
        let _ = load_environment(&env(&[("PATRONI_CONFIGURATION", text.as_str())]));
        let _ = settings::to_json("x", &text);
    }

    #[test]
    fn no_damage_to_a_good_file_makes_it_panic(at in 0..BASE.len(), cut in 0..20usize, put in "[\\[\\]{}:,&*'\"#|> \n\t-]{0,4}") {
        let end = (at + cut).min(BASE.len());
        let text = format!("{}{put}{}", &BASE[..at], &BASE[end..]);
        let _ = load_environment(&env(&[("PATRONI_CONFIGURATION", text.as_str())]));
    }
}
