//! A network in front of one etcd server that loses answers, or delivers requests late.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use types::Moment;

/// What reaches the network this long after the first held bytes is lost: the request is kept, its cancelling is not.
const REQUEST: Duration = Duration::from_millis(150);

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
    held_since: Option<Moment>,
    held: Vec<(Upstream, Vec<u8>)>,
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
            Arc::new(Mutex::new(State { mode: Mode::Pass, held_since: None, held: Vec::new(), lost: 0 }));
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
        let mut state = self.state.lock().unwrap();
        (state.mode, state.held_since) = (Mode::Hold, None);
    }

    pub(crate) fn pass(&self) {
        self.state.lock().unwrap().mode = Mode::Pass;
    }

    /// Delivers what was held. How many bytes that was.
    pub(crate) async fn release(&self) -> usize {
        let held = std::mem::take(&mut self.state.lock().unwrap().held);
        for (upstream, bytes) in &held {
            upstream.lock().await.write_all(bytes).await.unwrap();
        }
        held.iter().map(|(_, bytes)| bytes.len()).sum()
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
            let now = clock::now();
            if state.mode == Mode::Hold && now.since(*state.held_since.get_or_insert(now)) < REQUEST {
                state.held.push((server.clone(), buffer[..count].to_vec()));
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
