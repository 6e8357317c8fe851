//! HAProxy before the nodes, as installations of Patroni have it: it asks every node's REST API whom to send clients to.
//!
//! The intervals and the health check are those that Pigsty's services use in its usual preset.

use crate::account::Account;
use crate::binaries::haproxy_binary;
use crate::config::endpoint;
use crate::daemon::{Daemon, Program};
use crate::node::{Node, write_private};
use crate::place::Block;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(2);

/// A running HAProxy. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct HaProxy {
    daemon: Daemon,
    program: Program,
}

impl HaProxy {
    /// Starts it before `nodes`, in a directory of its own under `base`.
    pub(crate) fn start(base: &Path, block: &Block, nodes: &[Node], account: &Account) -> Result<HaProxy> {
        let dir = base.join("haproxy");
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        account.own(&dir)?;
        let file = dir.join("haproxy.cfg");
        write_private(&file, &configuration(block, nodes), account)?;
        let program = Program {
            name: "haproxy".to_owned(),
            path: haproxy_binary()?,
            arguments: vec!["-db".to_owned(), "-f".to_owned(), file.display().to_string()],
            log: dir.join("haproxy.log"),
            directory: dir,
            host: block.host(block.haproxy()),
            network_rights: false,
        };
        Ok(HaProxy { daemon: Daemon::start(&program, account)?, program })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.daemon.pid()
    }

    pub(crate) fn must_run(&mut self) -> Result<()> {
        self.daemon.must_run(&self.program.log)
    }

    pub(crate) async fn stop(&mut self) {
        self.daemon.stop(GRACE).await;
    }
}

fn configuration(block: &Block, nodes: &[Node]) -> String {
    let ports = block.ports;
    let mut text =
        "defaults\n    mode tcp\n    retries 3\n    timeout queue 3s\n    timeout connect 3s\n    \
                    timeout client 24h\n    timeout server 24h\n    timeout check 3s\n"
            .to_owned();
    for (name, port, check) in
        [("primary", ports.primary(), "/primary"), ("replica", ports.replica(), "/read-only")]
    {
        text.push_str(&format!(
            "\nlisten demo-{name}\n    bind {}\n    maxconn 500\n    balance roundrobin\n    option httpchk\n    \
             option http-keep-alive\n    http-check send meth OPTIONS uri {check}\n    \
             http-check expect status 200\n    default-server inter 2s fastinter 1s downinter 2s rise 3 fall 3 \
             on-marked-down shutdown-sessions slowstart 30s maxconn 300 maxqueue 128 weight 100\n",
            endpoint(block.haproxy(), port)
        ));
        for node in nodes {
            text.push_str(&format!(
                "    server {} {} check port {}\n",
                node.name,
                endpoint(node.address, node.postgres_port),
                node.rest.port()
            ));
        }
    }
    text
}
