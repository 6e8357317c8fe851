//! Backends that say a PostgreSQL's words and nothing else: as many as a test wants, with keys of any length, with TLS.

use crate::harness::{SOON, World, cluster_at, etcd_at};
use etcd::Member;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use types::{NodeName, PostgresState, Role, Term, Timeline};

/// What a backend does with a query: it answers at once, but for one that waits until it is cancelled.
pub(crate) const WAITS: &[u8] = b"wait\0";

/// A backend and the requests to cancel that it got.
pub(crate) struct Scripted {
    pub(crate) port: u16,
    pub(crate) cancels: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Scripted {
    /// One that greets with this key; with `tls` it begins with TLS at once, as PostgreSQL 17 can.
    pub(crate) async fn start(key: Vec<u8>, tls: Option<Arc<ServerConfig>>) -> Scripted {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cancels: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let (seen, key) = (cancels.clone(), Arc::new(key));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, key, tls) = (seen.clone(), key.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &key, &seen).await,
                        Some(tls) => match TlsAcceptor::from(tls).accept(stream).await {
                            Ok(stream) => serve(stream, &key, &seen).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Scripted { port, cancels }
    }

    /// Leads the cluster of that name in the world's etcd. Its term.
    pub(crate) async fn lead(&self, world: &World, cluster: &str, name: &str) -> Term {
        let etcd = etcd_at(world.etcd_server.client, cluster);
        let by = || clock::now().after(SOON);
        let name = NodeName::from(name);
        let lease = etcd.grant(600, by()).await.unwrap().lease;
        let member = Member { api_url: Some(world.api_url.clone()), ..self.member(Role::Primary) };
        etcd.put_member(&name, &member, lease, by()).await.unwrap();
        if let Some(leader) = etcd.snapshot(by()).await.unwrap().leader {
            assert!(etcd.release_leader(&leader.name, leader.term, by()).await.unwrap());
        }
        let term = etcd.acquire_leader(&name, lease, by()).await.unwrap().unwrap();
        let writable = etcd::Writable {
            term,
            name,
            timeline: Timeline(1),
            lsn: types::Lsn(1),
            guarded: true,
            lease: None,
        };
        etcd.put_writable(&writable, lease, term, by()).await.unwrap();
        term
    }

    pub(crate) fn member(&self, role: Role) -> Member {
        let mut member = Member::new(PostgresState::Running, role);
        member.conn_url = Some(format!("postgres://127.0.0.1:{}/postgres", self.port));
        member.baton = Some("0.1.0".into());
        if role == Role::Replica {
            member.replication_state = Some("streaming".into());
        }
        member
    }
}

/// One connection, until it ends.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    key: &[u8],
    seen: &Mutex<Vec<Vec<u8>>>,
) -> Option<()> {
    loop {
        let length = stream.read_u32().await.ok()? as usize;
        let mut packet = vec![0; length - 4];
        stream.read_exact(&mut packet).await.ok()?;
        match packet[..4] {
            [4, 210, 22, 46] => {
                seen.lock().unwrap().push(packet[4..].to_vec());
                return None;
            }
            [4, 210, 22, _] => stream.write_all(b"N").await.ok()?,
            _ => break,
        }
    }
    let ready = message(b'Z', b"I");
    let greeting = [message(b'R', &[0; 4]), message(b'K', key), ready.clone()].concat();
    stream.write_all(&greeting).await.ok()?;
    stream.flush().await.ok()?;
    loop {
        let kind = stream.read_u8().await.ok()?;
        let length = stream.read_u32().await.ok()? as usize;
        let mut body = vec![0; length - 4];
        stream.read_exact(&mut body).await.ok()?;
        let answer = match kind {
            b'Q' if body == WAITS => continue,
            b'Q' => [message(b'C', b"SELECT 0\0"), ready.clone()].concat(),
            _ => return None,
        };
        stream.write_all(&answer).await.ok()?;
        stream.flush().await.ok()?;
    }
}

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A startup packet of protocol 3 and that minor version.
pub(crate) fn startup(minor: u8) -> Vec<u8> {
    message(b' ', &[&[0, 3, 0, minor], b"user\0postgres\0database\0postgres\0\0".as_slice()].concat())[1..]
        .to_vec()
}

/// Adds the cluster `other`, in the same etcd.
pub(crate) fn with_other(config: &mut router::Config) {
    let mut other = cluster_at(1, "other");
    other.etcd = config.clusters[0].etcd.clone();
    config.clusters.push(other);
}
