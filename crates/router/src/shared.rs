//! What all connections of one router share: the configuration of this moment, the clusters and the services.
//!
//! A reload replaces the values behind the locks; a connection keeps the service and the cluster that it began with.

use crate::carrier::{Carrier, lacking};
use crate::config::{self, Config, Io};
use crate::descriptors;
use crate::elders::Elders;
use crate::error::Error;
use crate::events::Event;
use crate::metrics::{Count, Gauge, ServiceCounts};
use crate::proof::Proof;
use crate::sessions::Sessions;
use crate::workers::Workers;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::rustls::ServerConfig;

pub(crate) struct Shared {
    /// The name under which this router says that it is there: another one after every start.
    pub(crate) id: String,
    config: RwLock<Arc<Config>>,
    clusters: RwLock<BTreeMap<String, Arc<Cluster>>>,
    services: RwLock<BTreeMap<String, Arc<Service>>>,
    /// Connections that wait for a target.
    pub(crate) waiting: Gauge,
    /// All clients.
    pub(crate) connections: Gauge,
    /// Directions of sessions in which large amounts are gathered.
    pub(crate) bulk: Gauge,
    pub(crate) reloads: Count,
    /// The threads that serve clients.
    pub(crate) workers: Workers,
    /// The thread that carries busy sessions, where there is one.
    pub(crate) carrier: Option<Carrier>,
    /// Processes that were exchanged for this one, and still serve sessions.
    pub(crate) elders: Elders,
}

/// One cluster: what is believed of it and the sessions that live under it.
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) etcd_lost: AtomicBool,
    pub(crate) proof: Proof,
    /// Changes of the primary or its term.
    pub(crate) changes: Count,
}

/// One service: its settings of this moment and what happened on it.
pub(crate) struct Service {
    pub(crate) name: String,
    settings: RwLock<Arc<config::Service>>,
    /// Where the router ends TLS itself: the certificate as it was read last.
    tls: RwLock<Option<Arc<ServerConfig>>>,
    pub(crate) counts: ServiceCounts,
    pub(crate) open: Gauge,
    /// Clients that have not said yet what they want.
    pub(crate) handshakes: Gauge,
}

impl Service {
    pub(crate) fn new(settings: config::Service, tls: Option<Arc<ServerConfig>>) -> Arc<Service> {
        Arc::new(Service {
            name: settings.name.clone(),
            settings: RwLock::new(Arc::new(settings)),
            tls: RwLock::new(tls),
            counts: ServiceCounts::default(),
            open: Gauge::default(),
            handshakes: Gauge::default(),
        })
    }

    pub(crate) fn settings(&self) -> Arc<config::Service> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, settings: config::Service, tls: Option<Arc<ServerConfig>>) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }
}

/// Started where it is wanted and can be had.
fn carrier(config: &Config) -> Result<Option<Carrier>, Error> {
    // Who spins looks at the sockets itself.
    if config.io == Io::Epoll || !config.spin.is_zero() {
        return Ok(None);
    }
    match Carrier::start(config.busy) {
        Ok(carrier) => Ok(Some(carrier)),
        Err(error) if config.io == Io::Uring => Err(Error::NoCarrier(lacking(&error))),
        Err(error) => {
            Event::NoCarrier { why: lacking(&error) }.log();
            Ok(None)
        }
    }
}

/// What no other router is called: a person finds the process by the first two parts of it.
fn own_name() -> String {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{name}"));
    let host: String = read("hostname").unwrap_or_default().trim().replace('/', "_");
    let drawn = read("random/uuid").unwrap_or_else(|_| clock::now().0.to_string());
    let drawn: String = drawn.chars().take_while(|c| *c != '-' && !c.is_whitespace()).collect();
    format!("{host}-{}-{drawn}", std::process::id())
}

/// The certificates of the services that end TLS, read anew.
fn certificates(config: &Config) -> Result<BTreeMap<String, Arc<ServerConfig>>, Error> {
    let mut all = BTreeMap::new();
    for service in &config.services {
        let Some(identity) = &service.tls else { continue };
        let read = tls::server(identity, &tls::Guests::Unasked, None);
        let read = read.map_err(|why| Error::Config(format!("service {:?}: {why}", service.name)))?;
        let mut read = ServerConfig::clone(&read);
        // Clients that begin with TLS at once demand it.
        read.alpn_protocols = vec![b"postgresql".to_vec()];
        all.insert(service.name.clone(), Arc::new(read));
    }
    Ok(all)
}

impl Cluster {
    pub(crate) fn new(name: &str) -> Arc<Cluster> {
        Arc::new(Cluster {
            name: name.to_owned(),
            sessions: Sessions::new(),
            etcd_lost: AtomicBool::new(false),
            proof: Proof::default(),
            changes: Count::default(),
        })
    }

    /// Who is led to, and for how many sessions; by name where there are several.
    pub(crate) fn standing(&self, named: bool) -> String {
        let truth = self.sessions.truth();
        let sessions: usize = self.sessions.by_member().values().sum();
        let name = if named { format!("{}: ", self.name) } else { String::new() };
        let primary = match (&truth.primary, truth.in_force) {
            (Ok(target), Some(term)) => format!("leads to {} in term {term}", target.name),
            (Ok(target), None) => format!("leads to {}", target.name),
            (Err(why), _) => format!("no primary: {why}"),
        };
        let replicas = truth.replicas.len();
        format!("{name}{primary}, {replicas} replicas, {sessions} sessions")
    }
}

impl Shared {
    pub(crate) fn new(config: Config) -> Result<Arc<Shared>, Error> {
        descriptors::raise();
        let shared = Arc::new(Shared {
            id: own_name(),
            config: RwLock::new(Arc::new(config.clone())),
            clusters: RwLock::default(),
            services: RwLock::default(),
            waiting: Gauge::default(),
            connections: Gauge::default(),
            bulk: Gauge::default(),
            reloads: Count::default(),
            workers: Workers::start(config.threads).map_err(Error::Threads)?,
            carrier: carrier(&config)?,
            elders: Elders::new(),
        });
        shared.replace(config)?;
        Ok(shared)
    }

    /// Takes up another configuration. Services and clusters of the same name stay what they are, with their sessions.
    pub(crate) fn replace(&self, mut config: Config) -> Result<(), Error> {
        let mut certificates = certificates(&config)?;
        config.max_connections = descriptors::clients(config.max_connections, config.threads);
        {
            let mut clusters = self.clusters.write().unwrap_or_else(PoisonError::into_inner);
            clusters.retain(|name, _| config.clusters.iter().any(|cluster| cluster.name == *name));
            for cluster in &config.clusters {
                clusters.entry(cluster.name.clone()).or_insert_with(|| Cluster::new(&cluster.name));
            }
            let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
            services.retain(|name, _| config.services.iter().any(|service| service.name == *name));
            for settings in &config.services {
                let tls = certificates.remove(&settings.name);
                match services.get(&settings.name) {
                    Some(service) => service.replace(settings.clone(), tls),
                    None => drop(services.insert(settings.name.clone(), Service::new(settings.clone(), tls))),
                }
            }
        }
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        Ok(())
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn service(&self, name: &str) -> Option<Arc<Service>> {
        self.services.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// In the order of their names.
    pub(crate) fn services(&self) -> Vec<Arc<Service>> {
        self.services.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// In the order of their names.
    pub(crate) fn clusters(&self) -> Vec<Arc<Cluster>> {
        self.clusters.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The cluster of that name; without one, the first of the configuration.
    pub(crate) fn cluster(&self, name: Option<&str>) -> Option<Arc<Cluster>> {
        let config = self.config();
        let name = name.or_else(|| config.clusters.first().map(|cluster| cluster.name.as_str()))?;
        self.clusters.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}
