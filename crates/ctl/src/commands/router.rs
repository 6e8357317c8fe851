//! `baton router FILE`: one address whose ports lead to the right members, until told to stop. SIGHUP and `POST /reload`
//! read the file again; open sessions go on. SIGUSR2 starts the program that is now where this one was, and hands the ports over.

use super::{daemon, service_manager};
use crate::cli::RouterArgs;
use crate::context::etcd_config;
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use sd_notify::NotifyState;
use settings::{Fallback, ProcessEnv, RouterSettings, ServiceBalance, ServiceRole};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

/// Runs the router.
pub(crate) fn run(args: &RouterArgs) -> Outcome {
    let settings = settings_of(&args.file)?;
    let config = config(&settings)?;
    let log = daemon::start(&settings.log, "router.log", &[])?;
    let file = args.file.clone();
    let reread: router::Reread = Arc::new(move || {
        let settings = settings_of(&file).map_err(|failure| failure.message)?;
        self::config(&settings).map_err(|failure| failure.message)
    });
    daemon::block_on(&log, |stop| async move {
        let router = router::Router::succeed(config, router::Inherited::take()?)?;
        let (orders, ordered) = mpsc::channel(1);
        take_signals(orders)
            .map_err(|error| Failure::new(Code::Failed, format!("failed to start: {error}")))?;
        service_manager::ready(router.standing());
        router.run(reread, ordered, stop).await.map_err(Failure::from)
    })
}

/// Makes orders of SIGHUP and SIGUSR2. One that comes while another waits is the same wish.
fn take_signals(orders: mpsc::Sender<router::Order>) -> std::io::Result<()> {
    let (mut hangup, mut exchange) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined2())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = hangup.recv() => drop(orders.try_send(router::Order::Reload)),
                Some(()) = exchange.recv() => {
                    let (answer, answered) = oneshot::channel();
                    let begun = this_program().map(|command| orders.try_send(router::Order::HandOver(Box::new(command), answer)));
                    if let Err(error) = begun {
                        tracing::warn!(%error, "failed to find this program, for a new process of it");
                    } else if let Ok(successor) = answered.await {
                        service_manager::tell(&[NotifyState::MainPid(successor)]);
                    }
                }
                else => return,
            }
        }
    });
    Ok(())
}

/// What is now at the place that this program was started from, with the same words.
fn this_program() -> std::io::Result<Command> {
    let path = std::env::current_exe()?;
    // The kernel says so of a file that an upgrade has replaced.
    let path =
        path.to_str().and_then(|text| text.strip_suffix(" (deleted)")).map_or(path.clone(), PathBuf::from);
    let mut command = Command::new(path);
    command.args(std::env::args_os().skip(1));
    Ok(command)
}

/// The settings of a router's file.
pub(super) fn settings_of(file: &Path) -> Result<RouterSettings, Failure> {
    settings::load_router(file, &ProcessEnv)
        .map_err(|problems| Failure::new(Code::Configuration, problems.to_string()))
}

impl From<router::Error> for Failure {
    fn from(error: router::Error) -> Failure {
        let code = match &error {
            router::Error::AddressInUse { .. } => Code::AddressInUse,
            router::Error::Config(_) | router::Error::NoCarrier(_) => Code::Configuration,
            router::Error::Listen { .. }
            | router::Error::Threads(_)
            | router::Error::NotInherited(_)
            | router::Error::SuccessorEnded(_)
            | router::Error::WatchEnded => Code::Failed,
        };
        Failure::new(code, format!("failed to {error}"))
    }
}

/// The settings as the router takes them.
fn config(settings: &RouterSettings) -> Result<router::Config, Failure> {
    let given = &settings.router;
    let own = router::Cluster {
        name: settings.scope.clone(),
        etcd: etcd_config(&settings.etcd),
        keys: etcd::Keys::new(&settings.namespace, &settings.scope),
    };
    let mut config = router::Config::new(own, IpAddr::V4(Ipv4Addr::LOCALHOST));
    config.clusters.extend(given.clusters.iter().map(|cluster| further(settings, cluster)));
    config.services =
        given.services.iter().map(|service| self::service(given, service)).collect::<Result<_, _>>()?;
    config.api = given.api.as_deref().map(|text| one_address("router.api", text)).transpose()?;
    config.login = given.authentication.as_ref().map(|login| http::Credentials {
        username: login.username.clone(),
        password: login.password.reveal().to_owned(),
    });
    config.agents = http::Client::for_members(&settings.ctl);
    if given.threads > 0 {
        config.threads = given.threads as usize;
    }
    config.spin = given.spin;
    config.io = match given.io.as_str() {
        "epoll" => router::Io::Epoll,
        "io_uring" => router::Io::Uring,
        _ => router::Io::Auto,
    };
    config.max_connections = given.max_connections as usize;
    config.proxy_from = given
        .proxy_from
        .iter()
        .map(|(address, bits)| router::Network { address: *address, bits: *bits })
        .collect();
    let end = if given.drain_cuts { router::DrainEnd::Cut } else { router::DrainEnd::Resume };
    config.drain = router::Drain { timeout: given.drain_timeout, end };
    config.linger = given.linger;
    config.hold.timeout = given.hold_timeout;
    config.hold.limit = given.hold_limit as usize;
    config.handshake.timeout = given.handshake_timeout;
    config.handshake.limit = given.handshake_limit as usize;
    config.backend.connect_timeout = given.connect_timeout;
    config.truth.etcd_patience = given.etcd_patience;
    config.tcp = router::Tcp {
        keepalive_idle: given.keepalive_idle,
        keepalive_interval: given.keepalive_interval,
        keepalive_probes: given.keepalive_probes,
        user_timeout: Some(given.tcp_user_timeout).filter(|time| *time > Duration::ZERO),
    };
    Ok(config)
}

/// A cluster besides that of `scope`.
fn further(settings: &RouterSettings, cluster: &settings::RouterCluster) -> router::Cluster {
    let mut etcd = etcd_config(&settings.etcd);
    if let Some(login) = &cluster.authentication {
        let (user, password) = (login.username.clone(), login.password.reveal().to_owned());
        etcd.auth = Some(etcd::Credentials { user, password });
    }
    let namespace = cluster.namespace.as_ref().unwrap_or(&settings.namespace);
    router::Cluster { name: cluster.name.clone(), etcd, keys: etcd::Keys::new(namespace, &cluster.scope) }
}

fn service(given: &settings::Router, service: &settings::Service) -> Result<router::Service, Failure> {
    let role = match service.role {
        ServiceRole::Primary => router::Role::Primary,
        ServiceRole::Replica => router::Role::Replica,
        ServiceRole::Sync => router::Role::Sync,
        ServiceRole::Any => router::Role::Any,
        ServiceRole::Offline => router::Role::Offline,
    };
    let mut listen = Vec::new();
    for host in &given.listen {
        listen.extend(addresses(&format!("service {}", service.name), host, service.port)?);
    }
    let fallback = service.fallback.map_or(role.usual_fallback(), |fallback| match fallback {
        Fallback::None => router::Fallback::None,
        Fallback::Primary => router::Fallback::Primary,
        Fallback::Replica => router::Fallback::Replica,
    });
    let destination = match (service.destination_port, service.pooler) {
        (Some(port), _) => router::Destination::Port(port),
        (None, true) => router::Destination::Pooler,
        (None, false) => router::Destination::Postgres,
    };
    let tls = service.certfile.as_ref().map(|certfile| tls::Identity {
        certfile: certfile.clone(),
        keyfile: service.keyfile.clone(),
        password: service.keyfile_password.as_ref().map(|secret| secret.reveal().to_owned()),
    });
    Ok(router::Service {
        name: service.name.clone(),
        listen,
        cluster: service.cluster.clone(),
        names: service.names.clone(),
        role,
        fallback,
        destination,
        max_sessions: service.max_sessions as usize,
        balance: match service.balance {
            ServiceBalance::LeastConn => router::Balance::LeastConn,
            ServiceBalance::RoundRobin => router::Balance::RoundRobin,
        },
        weights: service
            .weights
            .iter()
            .map(|(name, weight)| (types::NodeName::from(name.as_str()), *weight))
            .collect(),
        slow_start: service.slow_start,
        max_lag: router::LagLimit { bytes: service.max_lag, time: service.max_lag_time },
        send_proxy: service.send_proxy,
        log_connections: given.log_connections,
        tls,
    })
}

/// Every address of `host`; `*` is every one of this machine.
fn addresses(what: &str, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let fail = |why: &str| {
        Failure::new(
            Code::Configuration,
            format!("{what}: failed to find {host:?}: {why}; write an address of this host"),
        )
    };
    if matches!(host, "*" | "") {
        // Where the kernel has IPv6, its wildcard takes IPv4 along or not; IPv4 alone is what is always there.
        return Ok(vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))]);
    }
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        return Ok(vec![SocketAddr::from((address, port))]);
    }
    let found: Vec<SocketAddr> =
        (host, port).to_socket_addrs().map_err(|error| fail(&error.to_string()))?.collect();
    if found.is_empty() { Err(fail("it has no address")) } else { Ok(found) }
}

fn one_address(what: &str, text: &str) -> Result<SocketAddr, Failure> {
    let bad = || Failure::new(Code::Configuration, format!("{what}: {text:?} is no host:port"));
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let port = port.parse().map_err(|_| bad())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    addresses(what, host, port)?.into_iter().next().ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::{addresses, one_address};
    use crate::exit_codes::Code;
    use crate::failure::Failure;

    #[test]
    fn addresses_are_found() {
        assert_eq!(addresses("x", "*", 5433).unwrap(), ["0.0.0.0:5433".parse().unwrap()]);
        assert_eq!(addresses("x", "127.0.0.1", 1).unwrap(), ["127.0.0.1:1".parse().unwrap()]);
        assert_eq!(addresses("x", "::1", 1).unwrap(), ["[::1]:1".parse().unwrap()]);
        assert_eq!(one_address("api", "[::1]:8009").unwrap(), "[::1]:8009".parse().unwrap());
        assert!(one_address("api", "8009").unwrap_err().message.contains("api"));
    }

    #[test]
    fn a_busy_port_has_an_exit_code_of_its_own() {
        let busy = router::Error::AddressInUse {
            service: "primary".into(),
            address: "127.0.0.1:5433".parse().unwrap(),
        };
        let failure = Failure::from(busy);
        assert_eq!(failure.code, Code::AddressInUse);
        assert!(failure.message.contains("127.0.0.1:5433"), "{failure}");
    }
}
