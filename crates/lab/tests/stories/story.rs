//! The frame of a story: a cluster, a load, watchers of primaries, and the reading of the logs at the end.

use lab::{Binaries, Lab, Plan, Primaries, Spec, Workload, baton_of_this_build, rest};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Generous: a story waits for a condition, and fails only when it never comes.
pub(crate) const SPAN: Duration = Duration::from_secs(60);

/// How long etcd is away where that has to be borne: `make cut-off` makes it as long as you like.
pub(crate) fn cut_off() -> Duration {
    let seconds = std::env::var("BATON_TEST_CUT_OFF_SECONDS").ok();
    Duration::from_secs(seconds.map_or(2, |seconds| seconds.parse().unwrap()))
}

/// Parts of a healthy life: every race has those who come second. And a machine that runs many tests at once is short of processors.
const USUAL: [&str; 2] = ["another member was faster", "was not given the processor"];

/// So many stories run at once: each has a whole cluster, and most of its time it waits for a lease.
static TURNS: Semaphore = Semaphore::const_new(2);

/// A cluster, and what is expected in its logs.
pub(crate) struct Story {
    pub(crate) lab: Lab,
    pub(crate) spec: Spec,
    expected: Vec<String>,
    dir: PathBuf,
    _turn: SemaphorePermit<'static>,
}

/// The watchers and the load of a story.
pub(crate) struct Load {
    pub(crate) work: Workload,
    primaries: Primaries,
}

/// A fresh directory that the account of the lab can pass through. It stays when the story fails.
pub(crate) fn directory(name: &str) -> PathBuf {
    let dir = tempfile::Builder::new().prefix(&format!("baton-{name}-")).tempdir().unwrap().keep();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Waits until this story may run.
pub(crate) async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.unwrap()
}

impl Story {
    /// The turn of this story, and its directory; nothing runs yet.
    pub(crate) async fn prepare(name: &str, edit: impl FnOnce(&mut Spec)) -> Story {
        let turn = turn().await;
        let dir = directory(name);
        // Seen only when the story fails.
        println!("the lab and its logs: {}", dir.display());
        let binaries = Binaries::find(baton_of_this_build().unwrap()).unwrap();
        let mut spec = Spec::usual(dir.join("lab"), binaries);
        edit(&mut spec);
        let lab = Lab::create(&spec).unwrap();
        Story { lab, spec, expected: USUAL.map(str::to_owned).to_vec(), dir, _turn: turn }
    }

    /// A whole and healthy cluster.
    pub(crate) async fn begin(name: &str, edit: impl FnOnce(&mut Spec)) -> Story {
        let mut story = Story::prepare(name, edit).await;
        story.start().await;
        story
    }

    /// Starts all that was prepared, and waits until it is whole and healthy.
    pub(crate) async fn start(&mut self) {
        self.lab.start_etcd().await.unwrap();
        self.lab.start_agents().unwrap();
        self.lab.start_router().unwrap();
        self.lab.await_writable(SPAN).await.unwrap();
        self.healthy().await;
    }

    /// Waits until all members are.
    pub(crate) async fn healthy(&self) -> lab::View {
        self.lab.await_healthy(self.lab.nodes.len()).await.unwrap()
    }

    /// Lines of WARNING and above that hold this text are part of the story.
    pub(crate) fn expect(&mut self, text: &str) {
        self.expected.push(text.to_owned());
    }

    /// Starts a load and the watchers.
    pub(crate) async fn load(&self) -> Load {
        Primaries::prepare(&self.lab.target()).await.unwrap();
        let work = Workload::start(&self.lab.target(), Plan::default()).await.unwrap();
        let nodes =
            self.lab.nodes.iter().map(|node| (node.name.clone(), self.lab.own_socket(node))).collect();
        let primaries = Primaries::watch(nodes);
        work.await_progress(50, SPAN).await.unwrap();
        Load { work, primaries }
    }

    /// The member that is primary now.
    pub(crate) async fn primary(&self) -> String {
        self.lab.primary().await.unwrap()
    }

    /// A member that is not.
    pub(crate) async fn a_replica(&self) -> String {
        let primary = self.primary().await;
        self.lab.nodes.iter().map(|node| node.name.clone()).find(|name| *name != primary).unwrap()
    }

    /// GET on a member's REST API.
    pub(crate) async fn get(&self, name: &str, path: &str) -> rest::Answer {
        rest::get(self.lab.nodes[self.lab.index(name).unwrap()].rest, path, SPAN).await.unwrap()
    }

    /// The status that a member answers with; none when it does not answer.
    pub(crate) async fn status(&self, name: &str, path: &str) -> Option<u16> {
        rest::get(self.at(name).rest, path, SPAN).await.ok().map(|answer| answer.status)
    }

    /// Waits until it answers with that status.
    pub(crate) async fn answers(&self, name: &str, path: &str, wanted: u16) {
        lab::wait::until(SPAN, &format!("{wanted} from {name} for {path}"), async || {
            self.status(name, path).await.filter(|status| *status == wanted)
        })
        .await
        .unwrap();
    }

    /// Waits until a member's own PostgreSQL answers so.
    pub(crate) async fn await_answer(&self, name: &str, sql: &str, wanted: &str) {
        let socket = self.lab.own_socket(self.at(name));
        let mut last = String::new();
        let end = clock::now().after(SPAN);
        while last != wanted {
            assert!(clock::now() < end, "{name}: {sql}: wanted {wanted:?}, last {last:?}");
            last = socket.ask(sql, SPAN).await.unwrap_or_else(|error| format!("{error:#}"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a member's agent has said so.
    pub(crate) async fn await_log(&self, name: &str, text: &str) {
        let log = self.at(name).log().to_owned();
        lab::wait::until(SPAN, text, async || fs::read_to_string(&log).ok()?.contains(text).then_some(()))
            .await
            .unwrap();
    }

    /// Another request to a member's REST API.
    pub(crate) async fn send(&self, name: &str, verb: &str, path: &str, body: &Value) -> rest::Answer {
        rest::send(self.lab.nodes[self.lab.index(name).unwrap()].rest, verb, path, body, SPAN).await.unwrap()
    }

    /// Changes the dynamic configuration.
    pub(crate) async fn configure(&self, change: &Value) {
        let primary = self.primary().await;
        let answer = self.send(&primary, "PATCH", "/config", change).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// Asks for a switchover until it is done: where the candidate is too busy to answer in time it is refused, and one whose outcome was
    /// not known in time may come true all the same.
    pub(crate) async fn switch_over(&self, from: &str, wish: &Value) {
        let end = clock::now().after(SPAN);
        loop {
            let answer = self.send(from, "POST", "/switchover", wish).await;
            let leader = self.lab.view().await.ok().and_then(|view| view.leader);
            if answer.status == 200 || leader.is_some_and(|(name, _)| name != from) {
                return;
            }
            assert!(clock::now() < end, "the switchover from {from}: {} {}", answer.status, answer.body);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until another member than `old` is the writable primary, and returns it.
    pub(crate) async fn another_primary(&self, old: &str) -> String {
        lab::wait::until(SPAN, &format!("another primary than {old}"), async || {
            self.lab.view().await.ok()?.primary().filter(|name| *name != old).map(str::to_owned)
        })
        .await
        .unwrap()
    }

    /// Ends a story whose agent was refused; what it said was read already.
    pub(crate) async fn leave(self) {
        self.lab.stop().await.unwrap();
        fs::remove_dir_all(&self.dir).unwrap();
    }

    /// Ends the cluster and reads its logs.
    pub(crate) async fn end(self) {
        let mut logs: Vec<PathBuf> = self.lab.nodes.iter().map(|node| node.log().to_owned()).collect();
        logs.extend(self.lab.router_log().map(Path::to_owned));
        self.lab.stop_and_keep().await.unwrap();
        let mut surprises = Vec::new();
        for log in &logs {
            surprises.extend(complaints(log, &self.expected));
        }
        assert!(surprises.is_empty(), "unexpected lines in the logs:\n{}", surprises.join("\n"));
        fs::remove_dir_all(&self.dir).unwrap();
    }
}

impl Load {
    /// Ends the load. Whatever happened: there never were two primaries. Returns what clients saw.
    pub(crate) async fn end(self) -> lab::WorkReport {
        let report = self.work.stop().await;
        let primaries = self.primaries.stop().await;
        assert!(primaries.two_primaries().is_zero(), "two primaries: {}", primaries.describe());
        report
    }
}

/// The lines of WARNING and above that nobody expected.
fn complaints(log: &Path, expected: &[String]) -> Vec<String> {
    let content = fs::read(log).unwrap_or_default();
    let content = String::from_utf8_lossy(&content);
    let complains = |line: &&str| {
        let mut words = line.split_ascii_whitespace().take(3);
        words.any(|word| matches!(word.trim_end_matches(':'), "WARNING" | "ERROR" | "CRITICAL"))
            || line.contains("panicked at")
    };
    // A traceback of a Patroni begins with a line that says nothing.
    let says = |line: &&str| line.split_ascii_whitespace().nth(3).is_some();
    let surprising = |line: &&str| !expected.iter().any(|text| line.contains(text.as_str()));
    let short = log.strip_prefix("/tmp").unwrap_or(log).display().to_string();
    content
        .lines()
        .filter(complains)
        .filter(says)
        .filter(surprising)
        .map(|line| format!("{short}: {line}"))
        .collect()
}
