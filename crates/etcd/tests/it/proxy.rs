//! A network in front of one etcd server that loses answers, or delivers requests late.

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// HTTP/2 frames that cancel a request; the network keeps the request and loses them.
const CANCELLING: [u8; 2] = [3, 7];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Requests arrive, answers do not.
    LoseAnswers,
    /// Requests wait until they are released; answers are lost.
    Hold,
}

type Upstream = Arc<tokio::sync::Mutex<OwnedWriteHalf>>;

struct State {
    mode: Mode,
    held: Vec<(Upstream, Vec<u8>)>,
    /// Dropping one would close it, and cancel what was sent on it.
    open: Vec<Upstream>,
    lost: usize,
}

pub(crate) struct Proxy {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(target: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let target = target.trim_start_matches("http://").to_owned();
        let state =
            Arc::new(Mutex::new(State { mode: Mode::Pass, held: Vec::new(), open: Vec::new(), lost: 0 }));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&target).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(requests(
                    from_client,
                    Arc::new(tokio::sync::Mutex::new(to_server)),
                    shared.clone(),
                ));
                tokio::spawn(answers(from_server, to_client, shared.clone()));
            }
        });
        Proxy { url, state, task }
    }

    pub(crate) fn lose_answers(&self) {
        self.state.lock().unwrap().mode = Mode::LoseAnswers;
    }

    pub(crate) fn hold(&self) {
        self.state.lock().unwrap().mode = Mode::Hold;
    }

    pub(crate) fn pass(&self) {
        self.state.lock().unwrap().mode = Mode::Pass;
    }

    /// Delivers what was held. How many bytes that was.
    pub(crate) async fn release(&self) -> usize {
        let held = std::mem::take(&mut self.state.lock().unwrap().held);
        let mut count = 0;
        for (upstream, bytes) in held {
            let bytes = without_cancelling(&bytes);
            upstream.lock().await.write_all(&bytes).await.unwrap();
            count += bytes.len();
            self.state.lock().unwrap().open.push(upstream);
        }
        count
    }

    /// How many bytes of answers were lost so far.
    pub(crate) fn lost(&self) -> usize {
        self.state.lock().unwrap().lost
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn requests(mut client: OwnedReadHalf, server: Upstream, state: Arc<Mutex<State>>) {
    let mut buffer = vec![0; 65536];
    while let Ok(count @ 1..) = client.read(&mut buffer).await {
        let pass = {
            let mut state = state.lock().unwrap();
            if state.mode == Mode::Hold {
                match state.held.iter_mut().find(|(upstream, _)| Arc::ptr_eq(upstream, &server)) {
                    Some((_, bytes)) => bytes.extend_from_slice(&buffer[..count]),
                    None => state.held.push((server.clone(), buffer[..count].to_vec())),
                }
            }
            state.mode != Mode::Hold
        };
        if pass && server.lock().await.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    // The client's end reaches the server only when nothing is held or lost: it would cancel the request.
    if state.lock().unwrap().mode == Mode::Pass {
        let _ = server.lock().await.shutdown().await;
    }
}

/// The frames of a connection that was idle before, without those that cancel.
fn without_cancelling(mut bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    while let [a, b, c, kind, ..] = *bytes {
        let length = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        let (frame, rest) = bytes.split_at(length.min(bytes.len()));
        if !CANCELLING.contains(&kind) {
            kept.extend_from_slice(frame);
        }
        bytes = rest;
    }
    kept
}

async fn answers(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, state: Arc<Mutex<State>>) {
    let mut buffer = vec![0; 65536];
    let mut whole = true;
    while let Ok(count @ 1..) = server.read(&mut buffer).await {
        // A stream with a hole in it is no stream: what follows lost bytes is lost too.
        whole = whole && state.lock().unwrap().mode == Mode::Pass;
        if !whole {
            state.lock().unwrap().lost += count;
        } else if client.write_all(&buffer[..count]).await.is_err() {
            whole = false;
        }
    }
}
