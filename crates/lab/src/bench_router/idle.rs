//! Many idle sessions, through a router and an HAProxy that have nothing else to do, to a backend that only greets.

use crate::account::Account;
use crate::bench::pss;
use crate::binaries::haproxy_binary;
use crate::config::{NAMESPACE, yaml};
use crate::daemon::{Daemon, Program};
use crate::keys::Gateway;
use crate::lab::{Lab, Spec};
use crate::node::write_private;
use crate::wait::until;
use anyhow::{Context, Result};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SPAN: Duration = Duration::from_secs(60);
/// For everything else that this process has open.
const OWN: u64 = 300;
const SCOPE: &str = "idle";

/// What they keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    pub(crate) sessions: usize,
    /// Bytes for each session (the proportional share of memory of the process).
    pub(crate) haproxy: u64,
    pub(crate) baton: u64,
}

/// As many descriptors as this process may have; what it starts inherits them.
pub(crate) fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Fewer sessions otherwise.
    let _: rustix::io::Result<()> = setrlimit(Resource::Nofile, limit);
}

pub(crate) async fn measure(spec: &Spec, lab: &Lab, wanted: usize) -> Result<Idle> {
    // This process has both ends: the clients', and the backend's.
    let most = getrlimit(Resource::Nofile)
        .current
        .map_or(wanted, |limit| usize::try_from(limit.saturating_sub(OWN) / 2).unwrap_or(wanted));
    let sessions = wanted.min(most);
    let backend = greeter().await?;
    let dir = lab.base().join(SCOPE);
    fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
    lab.account().own(&dir)?;
    let haproxy = of_haproxy(&dir, backend, sessions, lab.account()).await?;
    let baton = of_baton(spec, lab, &dir, backend, sessions).await?;
    Ok(Idle { sessions, haproxy, baton })
}

/// A backend that logs everybody in and says no more.
async fn greeter() -> Result<SocketAddrV4> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen")?;
    let port = listener.local_addr().context("listen")?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let length = stream.read_u32().await?;
                let mut packet = vec![0; (length.clamp(4, 1000) - 4) as usize];
                stream.read_exact(&mut packet).await?;
                stream.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await?;
                // Until the other side ends.
                while stream.read(&mut [0; 16]).await? > 0 {}
                Ok::<(), std::io::Error>(())
            });
        }
    });
    Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

fn free_address() -> Result<SocketAddrV4> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, listener.local_addr().context("find a free port")?.port()))
}

async fn of_haproxy(dir: &Path, backend: SocketAddrV4, sessions: usize, account: &Account) -> Result<u64> {
    let (address, most) = (free_address()?, sessions + 50);
    let file = dir.join("haproxy.cfg");
    let text = format!(
        "global\n    maxconn {most}\ndefaults\n    mode tcp\n    maxconn {most}\n    timeout connect 3s\n    timeout client 24h\n    \
         timeout server 24h\nlisten idle\n    bind {address}\n    server one {backend}\n"
    );
    write_private(&file, &text, account)?;
    let arguments = vec!["-db".to_owned(), "-f".to_owned(), file.display().to_string()];
    each(program("haproxy", haproxy_binary()?, arguments, dir), address, sessions, account).await
}

async fn of_baton(spec: &Spec, lab: &Lab, dir: &Path, backend: SocketAddrV4, sessions: usize) -> Result<u64> {
    let endpoints =
        (0..spec.etcd).map(|at| SocketAddrV4::new(lab.block.etcd(at), lab.block.ports.etcd_client()));
    // A member without Baton's mark is believed by its role.
    let keys = Gateway::new(endpoints.collect(), NAMESPACE, SCOPE);
    let member = json!({ "conn_url": format!("postgres://{backend}/postgres"), "api_url": "http://127.0.0.1:1/patroni",
                         "state": "running", "role": "primary", "version": "4.1.5", "xlog_location": 1, "timeline": 1 });
    keys.put("members/x1", &member.to_string()).await?;
    keys.put("leader", "x1").await?;
    let address = free_address()?;
    let file = dir.join("router.yml");
    let settings = json!({
        "scope": SCOPE,
        "namespace": NAMESPACE,
        "etcd3": { "hosts": lab.etcd_hosts(spec) },
        "router": {
            "listen": address.ip().to_string(),
            "services": [{ "name": "idle", "port": address.port(), "role": "primary", "max_sessions": sessions + 50 }],
        },
    });
    write_private(&file, &yaml(&settings), lab.account())?;
    let arguments = vec!["router".to_owned(), file.display().to_string()];
    each(program("router", lab.base().join("baton"), arguments, dir), address, sessions, lab.account()).await
}

fn program(name: &str, path: PathBuf, arguments: Vec<String>, dir: &Path) -> Program {
    let (log, directory) = (dir.join(format!("{name}.log")), dir.to_owned());
    Program {
        name: format!("idle {name}"),
        path,
        arguments,
        directory,
        log,
        host: None,
        network_rights: false,
    }
}

/// The bytes that each session costs a proxy.
async fn each(program: Program, address: SocketAddrV4, sessions: usize, account: &Account) -> Result<u64> {
    let mut daemon = Daemon::start(&program, account)?;
    until(SPAN, "the proxy to serve", async || session(address).await.ok()).await?;
    let share = || pss(daemon.pid()).context("read the memory of a proxy");
    let before = share()?;
    let mut open = Vec::with_capacity(sessions);
    while open.len() < sessions {
        let some = (0..100.min(sessions - open.len())).map(|_| session(address));
        for session in futures_util::future::join_all(some).await {
            open.push(session.with_context(|| format!("open session {}", open.len() + 1))?);
        }
    }
    let after = share()?;
    drop(open);
    daemon.kill();
    Ok(after.saturating_sub(before) * 1024 / sessions.max(1) as u64)
}

/// A session that has logged in.
async fn session(address: SocketAddrV4) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0").await?;
    stream.read_u8().await?;
    Ok(stream)
}
