//! A PostgreSQL that lets superusers in over TLS alone, for the tests of the command line.

#[path = "../../../postgres/tests/common/mod.rs"]
mod common;

use crate::one_etcd::Etcd;
use common::{Scratch, Server, own, pg_bin};
use std::path::PathBuf;
use std::time::Duration;
use testbed::Authority;

/// The server; ended with this value.
pub(crate) struct Postgres {
    server: Server,
    pub(crate) port: u16,
    pub(crate) data_dir: PathBuf,
    pub(crate) bin_dir: PathBuf,
    /// The authority that signed its certificate.
    pub(crate) ca: String,
    _scratch: Scratch,
}

impl Postgres {
    pub(crate) fn start() -> Postgres {
        let scratch = Scratch::new("ctl");
        let server = Server::init(&scratch, &pg_bin(), "data");
        let authority = Authority::new(&scratch.dir("certificates"));
        authority.sign("server", &["127.0.0.1"]);
        let path = |file: &str| {
            own(&authority.path(file));
            authority.path(file).display().to_string()
        };
        let (ca, certificate, key) = (path("ca.pem"), path("server.pem"), path("server.key"));
        let tls = format!("ssl = on\nssl_cert_file = '{certificate}'\nssl_key_file = '{key}'\n");
        let more = "archive_mode = on\nmax_connections = 50\nwork_mem = '8MB'\narchive_command = '/bin/true ''%p'''\n";
        server.append("postgresql.conf", &format!("{tls}{more}"));
        let rules = "# all of them\nlocal all all trust\n\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(server.data_dir.join("pg_hba.conf"), rules).unwrap();
        server.start();
        let (port, data_dir, bin_dir) = (server.port, server.data_dir.clone(), server.bin_dir.clone());
        Postgres { server, port, data_dir, bin_dir, ca, _scratch: scratch }
    }

    pub(crate) fn psql(&self, sql: &str) {
        self.server.psql(sql);
    }
}

/// Writes what a cluster `demo` would of which this is the leader.
pub(crate) async fn publish(etcd: &Etcd, postgres: &Postgres) {
    let client = etcd.client();
    let by = clock::now().after(Duration::from_secs(30));
    let lease = client.grant(600, by).await.unwrap().lease;
    let name = types::NodeName::from("pg-1");
    assert!(client.acquire_leader(&name, lease, by).await.unwrap().is_some());
    let mut member = etcd::Member::new(types::PostgresState::Running, types::Role::Primary);
    member.conn_url = Some(format!("postgres://127.0.0.1:{}/postgres", postgres.port));
    client.put_member(&name, &member, lease, by).await.unwrap();
}
