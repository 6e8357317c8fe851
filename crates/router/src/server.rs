//! The running router: its listeners, its clusters, and how a new configuration is taken up without a restart.
//!
//! ```text
//!   reload: read and check ──► take the addresses that are new ──► replace the values ──► open and close listeners,
//!           │ wrong                 │ cannot be had                                       begin and end clusters
//!           └──────── everything stays as it was, and the log says why ◄┘
//! ```
//! Sessions that are open go on: a service that is gone has no new ones, a cluster that is gone ends its own.

use crate::config::{self, Config};
use crate::cut_reason::CutReason;
use crate::elders::{self, Elder, Line};
use crate::error::Error;
use crate::events::Event;
use crate::handover::{self, Inherited};
use crate::shared::{Cluster, Shared};
use crate::{api, listener, presence, steer, survey};
use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the thread that carries busy sessions has to end.
const CARRIER_ENDS: Duration = Duration::from_secs(2);

/// How often that thread is asked whether it is there.
const LOOK_AT_CARRIER: Duration = Duration::from_secs(1);

/// How often an old process looks at the sessions that are left, and at the new process.
const LOOK: Duration = Duration::from_millis(100);

/// Reads the configuration again; the error says what is wrong with it.
pub type Reread = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// What a running router can be told.
pub enum Order {
    /// Take up the configuration as it is now; the log has the outcome.
    Reload,
    /// Give the listening sockets to this program, which is another router, and serve the sessions that are left. The answer is its
    /// process id.
    HandOver(Box<Command>, oneshot::Sender<u32>),
}

/// A router that has its addresses and does not serve yet.
pub struct Router {
    shared: Arc<Shared>,
    listeners: BTreeMap<(String, SocketAddr), TcpListener>,
    api: Option<TcpListener>,
    inherited: Option<Inherited>,
}

/// A port that is served.
struct Open {
    /// For a successor; who accepts has its own.
    listener: OwnedFd,
    stop: CancellationToken,
}

/// A cluster that is followed.
struct Followed {
    settings: config::Cluster,
    cluster: Arc<Cluster>,
    stop: CancellationToken,
    survey: AbortHandle,
    _watcher: etcd::Watcher,
}

struct Server {
    shared: Arc<Shared>,
    /// By the service and the address as configured.
    open: BTreeMap<(String, SocketAddr), Open>,
    api: Option<Open>,
    followed: BTreeMap<String, Followed>,
    /// Processes that were exchanged, and still serve sessions.
    elders: Vec<Elder>,
    /// The number of the next of them.
    next_elder: u64,
    clients: TaskTracker,
    steering: TaskTracker,
    /// A cluster's watch ended by itself.
    failed: mpsc::Sender<Error>,
    stop: CancellationToken,
}

impl Router {
    /// Takes all addresses of the configuration, or says which one cannot be had. Needs a tokio runtime.
    pub fn bind(config: Config) -> Result<Router, Error> {
        Router::succeed(config, None)
    }

    /// The same; what another router left is not taken anew.
    pub fn succeed(config: Config, mut inherited: Option<Inherited>) -> Result<Router, Error> {
        let listeners = addresses(&config, &BTreeMap::new(), inherited.as_mut())?;
        let api = config.api.map(|address| take("api", address, inherited.as_mut())).transpose()?;
        Ok(Router { shared: Shared::new(config)?, listeners, api, inherited })
    }

    /// The addresses of a service as they were taken.
    #[must_use]
    pub fn addresses(&self, service: &str) -> Vec<SocketAddr> {
        let of_service = self.listeners.iter().filter(|((name, _), _)| name == service);
        of_service.filter_map(|(_, listener)| listener.local_addr().ok()).collect()
    }

    /// The address of `/health`, `/metrics` and `/services`.
    #[must_use]
    pub fn api_address(&self) -> Option<SocketAddr> {
        self.api.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Says at any time who leads each cluster, and how many sessions there are: a line.
    pub fn standing(&self) -> impl Fn() -> String + Send + 'static {
        let shared = self.shared.clone();
        move || {
            let clusters = shared.clusters();
            let lines = clusters.iter().map(|cluster| cluster.standing(clusters.len() > 1));
            lines.collect::<Vec<String>>().join("; ")
        }
    }

    /// Serves until `stop`; then sessions are told to end. A reload takes up what `reread` gives.
    pub async fn run(
        self,
        reread: Reread,
        mut told: mpsc::Receiver<Order>,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let Router { shared, listeners, api, inherited } = self;
        let (failed, mut failures) = mpsc::channel(1);
        let mut server = Server {
            shared: shared.clone(),
            open: BTreeMap::new(),
            api: None,
            followed: BTreeMap::new(),
            elders: Vec::new(),
            next_elder: 0,
            clients: TaskTracker::new(),
            steering: TaskTracker::new(),
            failed,
            stop: stop.child_token(),
        };
        server.follow(&shared.config())?;
        if let Some(inherited) = inherited {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                lines = inherited.succeed(&shared) => lines.into_iter().for_each(|line| server.look_after(line)),
            }
        }
        if let Some(carrier) = &shared.carrier {
            tokio::spawn(carrier.watch(LOOK_AT_CARRIER));
        }
        server.listen(listeners);
        let (orders, mut ordered) = mpsc::channel(1);
        if let Some(listener) = api {
            server.serve_api(listener, orders.clone());
        }
        let ended = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                Some(error) = failures.recv() => break Err(error),
                Some(order) = told.recv() => match order {
                    Order::Reload => drop(server.reload(&reread)),
                    Order::HandOver(command, answer) => {
                        let Some((successor, line)) = server.hand_over(*command, &stop).await else { continue };
                        // Who ordered it may be gone.
                        let _ = answer.send(successor.id());
                        tokio::spawn(elders::obey(shared.clone(), line));
                        break server.linger(successor, &mut failures, &stop).await;
                    }
                },
                Some(api::Reload(answer)) = ordered.recv() => {
                    let taken_up = server.reload(&reread);
                    // Who asked may be gone.
                    let _ = answer.send(taken_up);
                }
            }
        };
        server.end().await;
        ended
    }
}

/// Takes the addresses of the configuration that are not open already.
fn addresses(
    config: &Config,
    open: &BTreeMap<(String, SocketAddr), Open>,
    mut inherited: Option<&mut Inherited>,
) -> Result<BTreeMap<(String, SocketAddr), TcpListener>, Error> {
    if config.services.is_empty() {
        return Err(Error::Config("no service is configured: name at least one".to_owned()));
    }
    let mut listeners = BTreeMap::new();
    for service in &config.services {
        let known = |name: &String| config.clusters.iter().any(|cluster| cluster.name == *name);
        if let Some(unknown) = service.cluster.iter().chain(service.names.values()).find(|name| !known(name))
        {
            let why =
                format!("service {:?} leads to cluster {unknown:?}, which is not configured", service.name);
            return Err(Error::Config(why));
        }
        for address in &service.listen {
            let key = (service.name.clone(), *address);
            if !open.contains_key(&key) {
                listeners.insert(key, take(&service.name, *address, inherited.as_deref_mut())?);
            }
        }
    }
    Ok(listeners)
}

/// The socket that was inherited for this address, or a new one.
fn take(what: &str, address: SocketAddr, inherited: Option<&mut Inherited>) -> Result<TcpListener, Error> {
    match inherited.and_then(|inherited| inherited.listener(address)) {
        Some(listener) => Ok(listener),
        None => listener::bind(what, address),
    }
}

impl Server {
    /// Follows the clusters of the configuration, and no others.
    fn follow(&mut self, config: &Config) -> Result<(), Error> {
        let same = |followed: &Followed| {
            let kept = config.clusters.iter().find(|cluster| cluster.name == followed.settings.name);
            kept.is_some_and(|cluster| {
                cluster.etcd == followed.settings.etcd && cluster.keys == followed.settings.keys
            })
        };
        let gone: Vec<String> = self
            .followed
            .iter()
            .filter(|(_, followed)| !same(followed))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            let Some(followed) = self.followed.remove(&name) else { continue };
            followed.stop.cancel();
            followed.survey.abort();
            if !config.clusters.iter().any(|cluster| cluster.name == name) {
                followed.cluster.sessions.stop(&CutReason::ClusterDropped);
            }
        }
        for settings in &config.clusters {
            if self.followed.contains_key(&settings.name) {
                continue;
            }
            let Some(cluster) = self.shared.cluster(Some(&settings.name)) else { continue };
            let etcd = etcd::Etcd::new(settings.etcd.clone(), settings.keys.clone())
                .map_err(|why| Error::Config(format!("cluster {:?}: {why}", settings.name)))?;
            let followed = self.begin(settings.clone(), cluster, etcd);
            self.followed.insert(settings.name.clone(), followed);
        }
        Ok(())
    }

    fn begin(&self, settings: config::Cluster, cluster: Arc<Cluster>, etcd: etcd::Etcd) -> Followed {
        let stop = self.stop.child_token();
        let (views, watcher) = etcd::watch(etcd.clone());
        let (says, said) = watch::channel(etcd::Router::default());
        let (shared, failed) = (self.shared.clone(), self.failed.clone());
        let (steered, stopped) = (cluster.clone(), stop.clone());
        self.steering.spawn(async move {
            if let Err(error) = steer::steer(shared, steered, views, says, stopped).await {
                // Full: another cluster has failed already.
                let _ = failed.try_send(error);
            }
        });
        self.steering.spawn(presence::keep(etcd, settings.name.clone(), self.shared.id.clone(), said));
        let survey = tokio::spawn(survey::survey(self.shared.clone(), cluster.clone())).abort_handle();
        Followed { settings, cluster, stop, survey, _watcher: watcher }
    }

    fn listen(&mut self, listeners: BTreeMap<(String, SocketAddr), TcpListener>) {
        for (key, listener) in listeners {
            let Some(service) = self.shared.service(&key.0) else { continue };
            if let Ok(address) = listener.local_addr() {
                let role = service.settings().role.as_str();
                Event::Listening { service: &service.name, role, address }.log();
            }
            let stop = self.stop.child_token();
            let both =
                listener.as_fd().try_clone_to_owned().and_then(|kept| Ok((kept, listener.into_std()?)));
            let (listener, accepted) = match both {
                Ok(both) => both,
                Err(error) => {
                    Event::AcceptFailed { service: &service.name, why: error.to_string() }.log();
                    continue;
                }
            };
            let Some((home, thread)) = self.shared.workers.next_home() else { continue };
            let (shared, clients) = (self.shared.clone(), self.clients.clone());
            thread.spawn(listener::accept(shared, service, (accepted, home), clients, stop.clone()));
            self.open.insert(key, Open { listener, stop });
        }
    }

    fn serve_api(&mut self, listener: TcpListener, orders: mpsc::Sender<api::Reload>) {
        if let Ok(address) = listener.local_addr() {
            Event::ApiListening { address }.log();
        }
        let stop = self.stop.child_token();
        match listener.as_fd().try_clone_to_owned() {
            Ok(listener) => self.api = Some(Open { listener, stop: stop.clone() }),
            Err(error) => Event::ApiFailed { why: error.to_string() }.log(),
        }
        tokio::spawn(api::serve(self.shared.clone(), orders, listener, stop));
    }

    /// Stays in touch with a process that still serves sessions.
    fn look_after(&mut self, line: Line) {
        self.elders.retain(|elder| !elder.has_ended());
        self.next_elder += 1;
        // One that cannot be looked after goes on alone.
        self.elders.extend(Elder::look_after(&self.shared, self.next_elder, line));
    }

    /// Gives the listening sockets to a successor, and those to the processes before. Without one that is ready, everything stays as it is.
    async fn hand_over(&mut self, command: Command, stop: &CancellationToken) -> Option<(Child, Line)> {
        let all = self.open.values().chain(&self.api);
        let listeners = all.map(|open| open.listener.as_fd().try_clone_to_owned());
        let elders = self.elders.iter().filter(|elder| !elder.has_ended()).map(Elder::leave);
        let sockets: Result<Vec<OwnedFd>, _> = listeners.chain(elders).collect();
        let handed = match sockets {
            Ok(sockets) => handover::hand_over(command, sockets, &self.shared, stop).await,
            Err(error) => Err(error.to_string()),
        };
        let elders = std::mem::take(&mut self.elders);
        match handed {
            Ok((successor, line)) => {
                let open = self.shared.clusters().into_iter().map(|cluster| cluster.sessions.by_member());
                let sessions = open.flat_map(|by_member| by_member.into_values().collect::<Vec<_>>()).sum();
                Event::HandedOver { successor: successor.id(), sessions }.log();
                Some((successor, line))
            }
            Err(why) => {
                elders
                    .into_iter()
                    .filter_map(|elder| elder.line().ok())
                    .for_each(|line| self.look_after(line));
                Event::NotHandedOver { why: &why }.log();
                None
            }
        }
    }

    /// Another process listens: what is here goes on until it ends by itself, until its time is up, or until `stop`.
    async fn linger(
        &mut self,
        mut successor: Child,
        failures: &mut mpsc::Receiver<Error>,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        for (_, open) in std::mem::take(&mut self.open) {
            open.stop.cancel();
        }
        if let Some(open) = self.api.take() {
            open.stop.cancel();
        }
        self.clients.close();
        let limit = self.shared.config().linger;
        let over = async {
            if limit.is_zero() {
                pending::<()>().await;
            }
            sleep(limit).await;
            self.wind_up().await;
        };
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = self.clients.wait() => Ok(()),
            Some(error) = failures.recv() => Err(error),
            status = broken_off(&mut successor) => Err(Error::SuccessorEnded(status)),
            () = over => Ok(()),
        }
    }

    /// The sessions that are left end: at their next idle moment, or when the time for that is up.
    async fn wind_up(&self) {
        let why = CutReason::Exchanged;
        let all = || self.followed.values().map(|followed| &followed.cluster.sessions);
        let at_rest = async {
            while all().map(|sessions| sessions.cut_at_rest(&why)).sum::<usize>() > 0 {
                sleep(LOOK).await;
            }
        };
        // What outlasts that is cut where it is.
        let _: Result<(), Elapsed> = timeout(self.shared.config().drain.timeout, at_rest).await;
        for sessions in all() {
            sessions.stop(&why);
        }
        let _: Result<(), Elapsed> = timeout(self.shared.config().stop_timeout, self.clients.wait()).await;
    }

    /// Takes up the configuration as it is now, or leaves everything as it is.
    fn reload(&mut self, reread: &Reread) -> Result<(), String> {
        let taken_up = reread().and_then(|config| self.take_up(config).map_err(|error| error.to_string()));
        match &taken_up {
            Ok(()) => {
                self.shared.reloads.add(1);
                Event::Reloaded.log();
            }
            Err(why) => Event::NotReloaded { why: why.clone() }.log(),
        }
        taken_up
    }

    fn take_up(&mut self, config: Config) -> Result<(), Error> {
        let listeners = addresses(&config, &self.open, None)?;
        let before = self.shared.config();
        if config.api != before.api {
            return Err(Error::Config("router.api changed: restart the router for that".to_owned()));
        }
        if config.threads != before.threads {
            return Err(Error::Config("router.threads changed: restart the router for that".to_owned()));
        }
        if config.io != before.io {
            return Err(Error::Config("router.io changed: restart the router for that".to_owned()));
        }
        let wanted: Vec<(String, SocketAddr)> = config
            .services
            .iter()
            .flat_map(|service| service.listen.iter().map(|address| (service.name.clone(), *address)))
            .collect();
        self.shared.replace(config.clone())?;
        self.open.retain(|key, open| {
            let kept = wanted.contains(key);
            if !kept {
                open.stop.cancel();
            }
            kept
        });
        self.follow(&config)?;
        self.listen(listeners);
        Ok(())
    }

    /// Sessions are told to end, and get a moment for it.
    async fn end(self) {
        self.stop.cancel();
        let sessions =
            self.followed.values().map(|followed| followed.cluster.sessions.stop(&CutReason::Stopping)).sum();
        Event::Stopping { sessions }.log();
        self.clients.close();
        self.steering.close();
        let over = async {
            self.clients.wait().await;
            self.steering.wait().await;
        };
        // Whoever has not ended by then is cut off with the process.
        let _: Result<(), Elapsed> = timeout(self.shared.config().stop_timeout, over).await;
        let carrier = self.shared.carrier.as_ref();
        if let Some(carrier) = carrier
            && !carrier.end(CARRIER_ENDS).await
        {
            Event::CarrierStays.log();
        }
    }
}

/// Ends when the process has ended, and not in good order: one that was stopped, or has handed over itself, has.
async fn broken_off(process: &mut Child) -> ExitStatus {
    loop {
        match process.try_wait() {
            Ok(Some(status)) if !status.success() => return status,
            Ok(Some(_)) | Err(_) => pending::<()>().await,
            Ok(None) => sleep(LOOK).await,
        }
    }
}
