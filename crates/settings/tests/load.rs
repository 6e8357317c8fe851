//! The examples load, and mean what they say.

use settings::{ServiceRole, load, load_ctl, load_router};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Env = BTreeMap<String, String>;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

#[test]
fn the_example_of_a_member_loads_without_a_warning() {
    let loaded = load(&example("baton.yml"), &Env::new()).unwrap();
    assert_eq!(loaded.warnings, []);
    let settings = loaded.settings;
    assert_eq!(settings.scope, "demo");
    assert_eq!(settings.etcd.endpoints.len(), 3);
    assert_eq!(settings.etcd.endpoints[0], "http://10.0.0.21:2379");
    assert_eq!(settings.postgresql.listen, ["10.0.0.11", "127.0.0.1"]);
    assert_eq!(settings.postgresql.connect_address(), "10.0.0.11:5432");
    assert_eq!(settings.postgresql.unix_socket_directory.as_deref(), Some("/var/run/postgresql"));
    assert_eq!(settings.bootstrap.initdb[1], ("data-checksums".to_owned(), None));
    assert_eq!(settings.bootstrap.dcs["synchronous_mode"], false);
    assert_eq!(settings.bootstrap.dcs["ttl"], 5);
    assert!(settings.router.is_none());
    assert!(settings.tags.clonefrom());
}

#[test]
fn the_example_of_a_router_loads() {
    let settings = load_router(&example("router.yml"), &Env::new()).unwrap();
    let known = |service: &settings::Service| (service.name.clone(), service.port, service.role);
    let written: Vec<_> = settings.router.services.iter().map(known).collect();
    assert_eq!(written, settings::Router::default_services().iter().map(known).collect::<Vec<_>>());
    assert_eq!(settings.router.services[3].role, ServiceRole::Offline);
    assert_eq!(settings.router.hold_timeout.as_secs(), 15);
    assert_eq!(settings.etcd.endpoints.len(), 3);
}

#[test]
fn the_command_line_reads_both_examples() {
    for name in ["baton.yml", "router.yml"] {
        let settings = load_ctl(Some(&example(name)), &Env::new()).unwrap();
        assert_eq!(settings.scope.as_deref(), Some("demo"), "{name}");
    }
}

/// The keys that Pigsty's template has, in Pigsty's spellings.
const LIKE_PIGSTY: &str = "\
namespace: /pg/
name: pg-meta-1
scope: pg-meta
log: {level: INFO, dateformat: '%Y-%m-%d %H:%M:%S %z', format: '%(asctime)s %(levelname)s: %(message)s'}
etcd3:
  hosts: '10.10.10.10:2379,10.10.10.11:2379'
  protocol: https
  cacert: /pg/cert/ca.crt
  cert: /pg/cert/server.crt
  key: /pg/cert/server.key
  username: 'pg-meta'
  password: 'pg-meta'
restapi:
  listen: 10.10.10.10:8008
  connect_address: 10.10.10.10:8008
  authentication: {username: 'postgres', password: 'Patroni.API'}
  allowlist: [ 10.10.10.10, 10.10.10.11 ]
ctl: {insecure: true}
tags: {nofailover: false, clonefrom: true, noloadbalance: false, nosync: false, version: '18', spec: '4C.8G.100G', conf: 'oltp.yml'}
watchdog: {mode: off, device: /dev/watchdog}
bootstrap:
  method: initdb
  initdb: [data-checksums, encoding: UTF8, locale-provider: builtin, builtin-locale: C.UTF-8]
  dcs:
    ttl: 30
    loop_wait: 5
    retry_timeout: 10
    primary_start_timeout: 25
    primary_stop_timeout: 30
    maximum_lag_on_syncnode: -1
    synchronous_mode: false
    failsafe_mode: true
    pg_version: 18
    pg_cluster: pg-meta
    pg_group: 0
    postgresql:
      use_slots: true
      parameters: {max_connections: 500, wal_log_hints: 'on', auto_explain.log_nested_statements: true, parallel_tuple_cost: 0.2}
postgresql:
  bin_dir: /usr/pgsql/bin
  data_dir: /pg/data
  config_dir: /pg/data
  pgpass: /var/lib/pgsql/.pgpass
  listen: 0.0.0.0:5432
  connect_address: 10.10.10.10:5432
  use_unix_socket: true
  parameters: {unix_socket_directories: '/var/run/postgresql, /tmp'}
  authentication:
    superuser: {username: postgres}
    replication: {username: replicator, password: 'DBUser.Replicator'}
    rewind: {username: replicator, password: 'DBUser.Replicator'}
  callbacks: {on_start: /pg/bin/pg-failover-callback}
  use_pg_rewind: true
  remove_data_directory_on_rewind_failure: true
  remove_data_directory_on_diverged_timelines: false
  create_replica_methods: [basebackup]
  basebackup: [max-rate: '1000M', checkpoint: fast, verbose, progress]
  pgbackrest: {command: /usr/bin/pgbackrest restore, keep_data: true, no_params: true, no_leader: true}
";

#[test]
fn a_file_as_pigsty_writes_it_loads() {
    let env = Env::from([(settings::CONFIGURATION.to_owned(), LIKE_PIGSTY.to_owned())]);
    let loaded = settings::load_environment(&env).unwrap();
    let warned: Vec<&str> = loaded.warnings.iter().map(|problem| problem.key.as_str()).collect();
    // What other tools note there is left alone, and said to have no effect.
    let strangers = ["bootstrap.dcs.pg_version", "bootstrap.dcs.pg_cluster", "bootstrap.dcs.pg_group"];
    assert!(strangers.iter().all(|key| warned.contains(key)), "{warned:?}");
    assert!(warned.iter().all(|key| !key.starts_with("log.")), "{warned:?}");
    let settings = loaded.settings;
    let pgbackrest = &settings.postgresql.replica_methods["pgbackrest"];
    assert!(pgbackrest.no_leader && pgbackrest.keep_data && pgbackrest.no_params);
    assert_eq!(settings.namespace, "pg");
    assert_eq!(settings.etcd.endpoints, ["https://10.10.10.10:2379", "https://10.10.10.11:2379"]);
    assert_eq!(settings.postgresql.basebackup[0], ("max-rate".to_owned(), Some("1000M".to_owned())));
    assert_eq!(settings.postgresql.basebackup[2], ("verbose".to_owned(), None));
    assert_eq!(settings.bootstrap.initdb[1], ("encoding".to_owned(), Some("UTF8".to_owned())));
    let (dynamic, warnings) = settings::dynamic(&settings.bootstrap.dcs, true);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(dynamic.failsafe_mode);
    assert_eq!(dynamic.parameters["auto_explain.log_nested_statements"], "true");
}
