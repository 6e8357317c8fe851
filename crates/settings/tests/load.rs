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
    assert_eq!(settings.router.services, settings::Router::default_services());
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
