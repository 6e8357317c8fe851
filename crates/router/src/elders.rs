//! Processes whose program was exchanged and that still serve sessions, and the one that listens now: they stay in touch over the socket by
//! which the ports went over.
//!
//! ```text
//!   the new one ──► who is drained and pinned, whenever that changes ──► an old one: its clients that wait are led by it
//!   an old one  ──► its sessions, once a second                      ──► the new one: API, metrics
//!
//!   one that is exchanged in its turn gives its ends of these sockets to the next, with the ports
//! ```
//!
//! Each message is the whole of it, as JSON in a line: whoever takes a socket over reads on after the next end of a line. When either side
//! ends the other one goes on alone.

use crate::api::older;
use crate::shared::{Cluster, Shared};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use types::NodeName;

/// How often an old process tells of its sessions.
const REPORT: Duration = Duration::from_secs(1);
/// The longest message: some thousand sessions.
const MOST_BYTES: usize = 4 << 20;

/// What the process that listens knows of the older ones.
pub(crate) struct Elders {
    /// The last report of each, by the number of its socket here.
    reports: Mutex<BTreeMap<u64, Value>>,
    /// Counts the orders about members.
    ordered: watch::Sender<u64>,
}

/// A place among the reports; given up when dropped.
struct Entry {
    shared: Arc<Shared>,
    number: u64,
}

/// One of them, looked after.
pub(crate) struct Elder {
    /// For the next process, when this one is exchanged.
    socket: OwnedFd,
    task: AbortHandle,
}

/// The socket to another process of this router.
pub(crate) struct Line {
    stream: UnixStream,
    /// Read, and not a whole message yet.
    begun: Vec<u8>,
}

impl Elders {
    pub(crate) fn new() -> Elders {
        Elders { reports: Mutex::default(), ordered: watch::Sender::new(0) }
    }

    /// Members were drained or pinned, or are no more: the older ones are told.
    pub(crate) fn ordered(&self) {
        self.ordered.send_modify(|count| *count += 1);
    }

    /// What each of them said last.
    pub(crate) fn reports(&self) -> Vec<Value> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Value>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn write(&self, report: Value) {
        self.shared.elders.lock().insert(self.number, report);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.elders.lock().remove(&self.number);
    }
}

impl Elder {
    /// Begins to tell the process at the other end what is ordered, and to hear of its sessions.
    pub(crate) fn look_after(shared: &Arc<Shared>, number: u64, line: Line) -> io::Result<Elder> {
        let socket = line.stream.as_fd().try_clone_to_owned()?;
        let entry = Entry { shared: shared.clone(), number };
        let task = tokio::spawn(follow(entry, line)).abort_handle();
        Ok(Elder { socket, task })
    }

    /// Its socket for another process, which is going to look after it instead.
    pub(crate) fn leave(&self) -> io::Result<OwnedFd> {
        self.task.abort();
        self.socket.try_clone()
    }

    /// The same socket again: nobody else took it.
    pub(crate) fn line(self) -> io::Result<Line> {
        Line::new(self.socket)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

impl Line {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Line> {
        let stream = std::os::unix::net::UnixStream::from(socket);
        stream.set_nonblocking(true)?;
        Ok(Line { stream: UnixStream::from_std(stream)?, begun: Vec::new() })
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next byte, where no message is expected yet.
    pub(crate) async fn byte(&mut self) -> io::Result<u8> {
        self.stream.read_u8().await
    }

    pub(crate) async fn hear(&mut self) -> io::Result<Value> {
        hear(&mut self.stream, &mut self.begun).await
    }
}

/// The next message; half of one, which the process before has begun to read, is passed over. What was read stays in `begun` when this is
/// given up.
async fn hear(from: &mut (impl AsyncRead + Unpin), begun: &mut Vec<u8>) -> io::Result<Value> {
    loop {
        if let Some(end) = begun.iter().position(|byte| *byte == b'\n') {
            let message: Vec<u8> = begun.drain(..=end).collect();
            if let Ok(message) = serde_json::from_slice(&message) {
                return Ok(message);
            }
        } else if begun.len() > MOST_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        } else if from.read_buf(begun).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A message as it is sent.
pub(crate) fn message(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

/// Until the process at the other end is gone.
async fn follow(entry: Entry, line: Line) -> io::Result<()> {
    let Line { mut stream, mut begun } = line;
    // Borrowed halves: owned ones end the socket for whoever it is given to.
    let (mut from, mut to) = stream.split();
    let shared = &entry.shared;
    let mut ordered = shared.elders.ordered.subscribe();
    let tell = async {
        loop {
            ordered.borrow_and_update();
            to.write_all(&message(&orders(shared))).await?;
            if ordered.changed().await.is_err() {
                return Ok(());
            }
        }
    };
    let listen = async {
        loop {
            entry.write(hear(&mut from, &mut begun).await?);
        }
    };
    tokio::select! {
        ended = tell => ended,
        ended = listen => ended,
    }
}

/// Tells the process that listens now of the sessions here, and does as it says, until it is gone.
pub(crate) async fn obey(shared: Arc<Shared>, line: Line) -> io::Result<()> {
    let Line { mut stream, mut begun } = line;
    // Borrowed halves: owned ones end the socket for whoever it is given to.
    let (mut from, mut to) = stream.split();
    let tell = async {
        loop {
            let mut report = message(&older::report(&shared, true));
            if report.len() > MOST_BYTES {
                report = message(&older::report(&shared, false));
            }
            to.write_all(&report).await?;
            sleep(REPORT).await;
        }
    };
    let listen = async {
        loop {
            take_up(&shared, &hear(&mut from, &mut begun).await?);
        }
    };
    tokio::select! {
        ended = tell => ended,
        ended = listen => ended,
    }
}

/// Who is drained in which cluster, and pinned to what.
pub(crate) fn orders(shared: &Shared) -> Value {
    let names = |members: &BTreeSet<NodeName>| members.iter().map(ToString::to_string).collect::<Vec<_>>();
    let of = |cluster: &Cluster| {
        let (drained, pinned) = (cluster.sessions.drained(), cluster.sessions.pinned());
        let pinned: Map<String, Value> =
            pinned.iter().map(|(service, members)| (service.clone(), json!(names(members)))).collect();
        (cluster.name.clone(), json!({ "drained": names(&drained), "pinned": pinned }))
    };
    Value::Object(shared.clusters().iter().map(|cluster| of(cluster)).collect())
}

/// From here on these orders hold. A cluster that they do not name is left alone.
pub(crate) fn take_up(shared: &Shared, orders: &Value) {
    for cluster in shared.clusters() {
        let Some(of_cluster) = orders.get(&cluster.name) else { continue };
        let pinned = of_cluster.get("pinned").and_then(Value::as_object);
        let pinned = pinned.into_iter().flatten().map(|(service, on)| (service.clone(), members(Some(on))));
        let pinned = pinned.filter(|(_, members)| !members.is_empty()).collect();
        cluster.sessions.obey(members(of_cluster.get("drained")), pinned);
    }
}

fn members(list: Option<&Value>) -> BTreeSet<NodeName> {
    let names = list.and_then(Value::as_array).into_iter().flatten();
    names.filter_map(Value::as_str).map(NodeName::from).collect()
}
