//! The REST API of the leader's agent, as far as a router asks it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The status of an agent that cannot be reached.
pub(crate) const SILENT: u16 = 0;

/// The status of one that leads, and whose PostgreSQL is still a standby.
pub(crate) const PROMOTING: u16 = 1;

/// `GET /primary` is answered with the status, and counted; `GET /baton/lead` is counted too, and answered when that is 200 no more. For
/// [`SILENT`] nothing is answered.
pub(crate) struct Agent {
    pub(crate) url: String,
    status: watch::Sender<u16>,
    asked: Arc<Asked>,
}

#[derive(Default)]
struct Asked {
    primary: AtomicU16,
    lead: AtomicU16,
}

impl Agent {
    /// One that leads.
    pub(crate) async fn start() -> Agent {
        Agent::of(150_018).await
    }

    /// The same for a PostgreSQL of that version.
    pub(crate) async fn of(version: u32) -> Agent {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/patroni", listener.local_addr().unwrap());
        let (status, asked) = (watch::Sender::new(200), Arc::new(Asked::default()));
        let (told, counts) = (status.subscribe(), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, version, told.clone(), counts.clone()));
            }
        });
        Agent { url, status, asked }
    }

    pub(crate) fn says(&self, status: u16) {
        self.status.send_replace(status);
    }

    /// How often `GET /primary` came.
    pub(crate) fn asked_for_primary(&self) -> u16 {
        self.asked.primary.load(Ordering::Acquire)
    }

    /// How often `GET /baton/lead` came while it led.
    pub(crate) fn asked_for_lead(&self) -> u16 {
        self.asked.lead.load(Ordering::Acquire)
    }
}

async fn answer(mut stream: TcpStream, version: u32, mut status: watch::Receiver<u16>, asked: Arc<Asked>) {
    let mut request = vec![0; 1024];
    let count = stream.read(&mut request).await.unwrap_or(0);
    let code = if request[..count].starts_with(b"GET /baton/lead?term=") {
        let led = [200, PROMOTING].contains(&*status.borrow_and_update());
        asked.lead.fetch_add(u16::from(led), Ordering::AcqRel);
        let _the_test_is_over = status.wait_for(|status| ![200, SILENT, PROMOTING].contains(status)).await;
        if led { 410 } else { 503 }
    } else {
        let for_primary = request[..count].starts_with(b"GET /primary HTTP/1.1\r\n");
        assert!(for_primary || request[..count].starts_with(b"GET /patroni HTTP/1.1\r\n"));
        asked.primary.fetch_add(u16::from(for_primary), Ordering::AcqRel);
        status.wait_for(|status| *status != SILENT).await.map_or(503, |status| *status)
    };
    let (code, leads) = if code == PROMOTING { (200, false) } else { (code, code == 200) };
    let role = if leads { "primary" } else { "replica" };
    let body = format!(r#"{{"state": "running", "role": "{role}", "server_version": {version}}}"#);
    let length = body.len();
    let answer = format!("HTTP/1.1 {code} So\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    let _client_may_be_gone = stream.write_all(answer.as_bytes()).await;
}
