//! `baton router FILE`: one address whose ports lead to the right members, until told to stop.

use super::daemon;
use crate::cli::RouterArgs;
use crate::context::etcd_config;
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use settings::{Fallback, ProcessEnv, RouterSettings, ServiceRole};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// Runs the router.
pub(crate) fn run(args: &RouterArgs) -> Outcome {
    let settings = settings::load_router(&args.file, &ProcessEnv)
        .map_err(|problems| Failure::new(Code::Configuration, problems.to_string()))?;
    let config = config(&settings)?;
    let log = daemon::start(&settings.log, "router.log", &[])?;
    let keys = etcd::Keys::new(&settings.namespace, &settings.scope);
    let etcd = etcd::Etcd::new(etcd_config(&settings.etcd), keys)?;
    daemon::block_on(&log, |stop| async move { router::run(config, etcd, stop).await.map_err(Failure::from) })
}

impl From<router::Error> for Failure {
    fn from(error: router::Error) -> Failure {
        let code = match &error {
            router::Error::AddressInUse { .. } => Code::AddressInUse,
            router::Error::Config(_) => Code::Configuration,
            router::Error::Listen { .. } | router::Error::WatchEnded => Code::Failed,
        };
        Failure::new(code, format!("failed to {error}"))
    }
}

/// The settings as the router takes them.
fn config(settings: &RouterSettings) -> Result<router::Config, Failure> {
    let given = &settings.router;
    let mut config = router::Config::new(settings.scope.clone(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    config.services =
        given.services.iter().map(|service| self::service(given, service)).collect::<Result<_, _>>()?;
    config.api = given.api.as_deref().map(|text| one_address("router.api", text)).transpose()?;
    config.agents = http::Client::for_members(&settings.ctl);
    config.hold.timeout = given.hold_timeout;
    config.hold.limit = given.hold_limit as usize;
    config.truth.etcd_patience = given.etcd_patience;
    Ok(config)
}

fn service(given: &settings::Router, service: &settings::Service) -> Result<router::Service, Failure> {
    let (role, usual) = match service.role {
        ServiceRole::Primary => (router::Role::Primary, Fallback::None),
        ServiceRole::Replica => (router::Role::Replica, Fallback::Primary),
        ServiceRole::Offline => (router::Role::Offline, Fallback::Replica),
    };
    if service.fallback != usual {
        return Err(Failure::new(
            Code::Configuration,
            format!(
                "service {}: only the usual fallback of its role is supported yet: leave `fallback` out",
                service.name
            ),
        ));
    }
    let mut listen = Vec::new();
    for host in &given.listen {
        listen.extend(addresses(&format!("service {}", service.name), host, service.port)?);
    }
    Ok(router::Service {
        name: service.name.clone(),
        listen,
        role,
        destination: service
            .destination_port
            .map_or(router::Destination::Postgres, router::Destination::Port),
        max_sessions: service.max_sessions as usize,
        max_lag: None,
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
