//! The router: clients know one address and a few ports, and reach the right member.
//!
//! ```text
//!   etcd ──► steer ──► truth (pure) ──► sessions: cuts what must end, wakes what waits
//!                                          │
//!   listener ──► client ──► startup ──► hold ──► choose (pure) ──► connect ──► relay
//!                   └──► cancel
//!   api: /health, /metrics, /services
//! ```
//!
//! The rules: nothing is routed before the first consistent state was read. A session on the primary carries the term
//! of the leader key; when that term is over, it is cut in the same step in which the router learns of it, and no
//! session is opened to the holder of an older term. While there is nowhere to go, new connections wait.

mod cancel;
mod choose;
mod client;
mod config;
mod error;
mod events;
mod health;
mod hold;
mod listener;
mod metrics;
mod relay;
mod seen;
mod sessions;
mod shared;
mod startup;
mod steer;
mod tcp;
mod truth;
mod vouch;
mod wire;

pub use config::{Backend, Config, Destination, Handshake, Hold, Role, Service, Tcp, TruthLimits};
pub use error::Error;

use crate::events::Event;
use crate::shared::Shared;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A router that has its addresses and does not serve yet.
pub struct Router {
    shared: Arc<Shared>,
    /// One for each address of each service, with the service's place in the configuration.
    listeners: Vec<(usize, TcpListener)>,
    api: Option<TcpListener>,
}

/// Serves until `stop`; then sessions are told to end.
pub async fn run(config: Config, etcd: etcd::Etcd, stop: CancellationToken) -> Result<(), Error> {
    Router::bind(config)?.run(etcd, stop).await
}

impl Router {
    /// Takes all addresses of the configuration, or says which one cannot be had. Needs a tokio runtime.
    pub fn bind(config: Config) -> Result<Router, Error> {
        if config.services.is_empty() {
            return Err(Error::Config("no service is configured: name at least one".to_owned()));
        }
        let mut listeners = Vec::new();
        for (index, service) in config.services.iter().enumerate() {
            for address in &service.listen {
                listeners.push((index, listener::bind(&service.name, *address)?));
            }
        }
        let api = config.api.map(|address| listener::bind("api", address)).transpose()?;
        Ok(Router { shared: Shared::new(config), listeners, api })
    }

    /// The addresses of a service as they were taken.
    #[must_use]
    pub fn addresses(&self, service: &str) -> Vec<SocketAddr> {
        let named =
            |index: &usize| self.shared.config.services.get(*index).is_some_and(|s| s.name == service);
        let of_service = self.listeners.iter().filter(|(index, _)| named(index));
        of_service.filter_map(|(_, listener)| listener.local_addr().ok()).collect()
    }

    /// The address of `/health`, `/metrics` and `/services`.
    #[must_use]
    pub fn api_address(&self) -> Option<SocketAddr> {
        self.api.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until `stop`; then sessions are told to end.
    pub async fn run(self, etcd: etcd::Etcd, stop: CancellationToken) -> Result<(), Error> {
        let Router { shared, listeners, api } = self;
        let (views, _watcher) = etcd::watch(etcd);
        let (clients, serving) = (TaskTracker::new(), stop.child_token());
        let mut handshakes = Vec::new();
        for _ in &shared.config.services {
            handshakes
                .push(Arc::new(Semaphore::new(shared.config.handshake.limit.min(Semaphore::MAX_PERMITS))));
        }
        for (index, listener) in listeners {
            let (Some(service), Some(handshakes)) =
                (shared.config.services.get(index), handshakes.get(index))
            else {
                continue;
            };
            if let Ok(address) = listener.local_addr() {
                Event::Listening { service: &service.name, role: service.role.as_str(), address }.log();
            }
            let (shared, handshakes) = (shared.clone(), handshakes.clone());
            tokio::spawn(listener::accept(
                shared,
                index,
                listener,
                handshakes,
                clients.clone(),
                serving.clone(),
            ));
        }
        if let Some(listener) = api {
            if let Ok(address) = listener.local_addr() {
                Event::ApiListening { address }.log();
            }
            tokio::spawn(health::serve(shared.clone(), listener, serving.clone()));
        }
        let ended = steer::steer(shared.clone(), views, stop).await;
        // Also when the watch failed: without a truth nothing may stay open.
        serving.cancel();
        Event::Stopping { sessions: shared.sessions.stop() }.log();
        clients.close();
        // Whoever has not ended by then is cut off with the process.
        let _: Result<(), tokio::time::error::Elapsed> =
            tokio::time::timeout(shared.config.stop_timeout, clients.wait()).await;
        ended
    }
}
