//! A configuration of HAProxy that does what the router's services do, as far as HAProxy can.
//!
//! A service is a frontend. Who stands in when nobody of the role is left is another backend, chosen by the number of
//! usable servers: one backend has one health check.

use settings::{Fallback, Router, RouterSettings, Service, ServiceBalance, ServiceRole};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The members of each cluster.
pub(crate) type Known = BTreeMap<String, Vec<Server>>;

/// A member as HAProxy has to know it.
pub(crate) struct Server {
    pub name: String,
    pub postgres: (String, u16),
    pub pooler: Option<(String, u16)>,
    pub api: (String, u16),
    pub api_tls: bool,
    pub offline: bool,
}

/// Servers under one health check.
struct Tier {
    suffix: &'static str,
    check: String,
    /// Of the members, those tagged offline, the others, or all.
    offline: Option<bool>,
}

/// The whole configuration.
pub(crate) fn configuration(settings: &RouterSettings, known: &Known) -> String {
    let router = &settings.router;
    let mut out = head(router);
    let mut used = BTreeMap::new();
    for service in &router.services {
        let cluster = service.cluster.as_ref().unwrap_or(&settings.scope);
        let servers = known.get(cluster).map_or(&[][..], Vec::as_slice);
        let base = unique(&mut used, &format!("{cluster}-{}", service.name));
        frontend(&mut out, router, service, &base);
        for tier in tiers(service) {
            backend(&mut out, service, &base, &tier, servers);
        }
    }
    out
}

fn head(router: &Router) -> String {
    let mut out = String::from(
        "# Written by `baton haproxy-config`: write it anew when members, or their tags `offline` and `pg_offline_query`, come or go.\n\
         # Differences that remain: HAProxy learns of a change by its checks and not at once, takes every server for good until its first\n\
         # checks, holds nobody through a switchover, sends cancel requests on replica services to any server, takes a replica back as soon\n\
         # as it is within max_lag, and uses one that no longer streams. Balancers in proxy_from must always send a header. Sessions from\n\
         # before a reload of HAProxy are not cut at a failover: restart it instead.\n",
    );
    let _ = write!(
        out,
        "global\n    maxconn {}\n\ndefaults\n    mode tcp\n    retries 3\n    option redispatch\n    timeout connect {}ms\n    \
         timeout queue {}ms\n    timeout check 2s\n    timeout client 24h\n    timeout server 24h\n",
        router.max_connections,
        router.connect_timeout.as_millis().max(1),
        router.hold_timeout.as_millis().max(1),
    );
    for side in ["cli", "srv"] {
        let _ = write!(
            out,
            "    option {side}tcpka\n    {side}tcpka-idle {}s\n    {side}tcpka-intvl {}s\n    {side}tcpka-cnt {}\n",
            router.keepalive_idle.as_secs().max(1),
            router.keepalive_interval.as_secs().max(1),
            router.keepalive_probes,
        );
    }
    out
}

/// A name that HAProxy takes and that no other service has.
fn unique(used: &mut BTreeMap<String, usize>, name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    let count = used.entry(plain.clone()).or_insert(0);
    *count += 1;
    if *count == 1 { plain } else { format!("{plain}-{count}") }
}

fn tiers(service: &Service) -> Vec<Tier> {
    let lag = service.max_lag.map(|bytes| format!("?lag={bytes}")).unwrap_or_default();
    let tier = |suffix, check: String, offline| Tier { suffix, check, offline };
    // One that leads and does not accept writes yet would be sent those who are to write.
    let primary = || tier("primary", "/primary?writable".to_owned(), None);
    let replicas = |suffix, offline| tier(suffix, format!("/replica{lag}"), offline);
    let mut tiers = match service.role {
        ServiceRole::Primary => return vec![primary()],
        ServiceRole::Any => return vec![tier("any", format!("/read-only{lag}"), None)],
        ServiceRole::Replica => vec![replicas("replica", Some(false)), replicas("offline", Some(true))],
        ServiceRole::Offline => vec![replicas("offline", Some(true))],
        // Which of the two there are depends on synchronous_mode.
        ServiceRole::Sync => ["sync", "quorum"].map(|kind| tier(kind, format!("/{kind}{lag}"), None)).into(),
    };
    let usual = if service.role == ServiceRole::Offline { Fallback::Replica } else { Fallback::Primary };
    match (service.role, service.fallback.unwrap_or(usual)) {
        (ServiceRole::Replica, Fallback::Replica) | (_, Fallback::None) => {}
        (ServiceRole::Sync, Fallback::Primary) => tiers.push(primary()),
        (_, Fallback::Replica) => tiers.push(replicas("replica", Some(false))),
        (ServiceRole::Offline, Fallback::Primary) => {
            tiers.push(replicas("replica", Some(false)));
            tiers.push(primary());
        }
        (_, Fallback::Primary) => tiers.push(primary()),
    }
    tiers
}

fn frontend(out: &mut String, router: &Router, service: &Service, base: &str) {
    let _ = write!(out, "\nfrontend {base}\n    maxconn {}\n", service.max_sessions);
    if service.certfile.is_some() {
        out.push_str("    # certfile: HAProxy cannot end TLS that begins with PostgreSQL's own request; it is passed on.\n");
    }
    if !service.names.is_empty() {
        out.push_str(
            "    # names: HAProxy cannot find clusters by name behind PostgreSQL's own request; left out.\n",
        );
    }
    if service.max_lag_time.is_some() {
        out.push_str("    # max_lag_time: not checked by HAProxy.\n");
    }
    for host in &router.listen {
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let _ = write!(out, "    bind {host}:{}", service.port);
        if router.tcp_user_timeout.as_millis() > 0 {
            let _ = write!(out, " tcp-ut {}ms", router.tcp_user_timeout.as_millis());
        }
        out.push('\n');
    }
    for (address, bits) in &router.proxy_from {
        let _ = writeln!(out, "    tcp-request connection expect-proxy layer4 if {{ src {address}/{bits} }}");
    }
    let tiers = tiers(service);
    let (last, before) = match tiers.split_last() {
        Some(split) => split,
        None => return,
    };
    for tier in before {
        let name = format!("{base}-{}", tier.suffix);
        let _ = writeln!(out, "    use_backend {name} if {{ nbsrv({name}) gt 0 }}");
    }
    let _ = writeln!(out, "    default_backend {base}-{}", last.suffix);
}

/// Its weight as HAProxy takes it, which knows none above 256: the shares stay what they are.
fn weight(service: &Service, member: &str) -> u32 {
    const MOST: u32 = 256;
    const USUAL: u32 = 100;
    let weight = service.weights.get(member).copied().unwrap_or(USUAL);
    let highest = service.weights.values().copied().max().unwrap_or(USUAL).max(USUAL);
    if highest <= MOST || weight == 0 { weight } else { (weight * MOST / highest).max(1) }
}

fn backend(out: &mut String, service: &Service, base: &str, tier: &Tier, servers: &[Server]) {
    let balance = match service.balance {
        ServiceBalance::LeastConn => "leastconn",
        ServiceBalance::RoundRobin => "roundrobin",
    };
    let _ = write!(
        out,
        "\nbackend {base}-{}\n    balance {balance}\n    option httpchk\n    http-check send meth OPTIONS uri {}\n    \
         http-check expect status 200\n    default-server inter 1s fastinter 500ms downinter 1s rise 2 fall 2 \
         on-marked-down shutdown-sessions\n",
        tier.suffix, tier.check,
    );
    let mut names = BTreeMap::new();
    for server in servers.iter().filter(|server| tier.offline.is_none_or(|offline| server.offline == offline))
    {
        let place = match (service.destination_port, service.pooler) {
            (Some(port), _) => Some((server.postgres.0.clone(), port)),
            (None, true) => server.pooler.clone(),
            (None, false) => Some(server.postgres.clone()),
        };
        let Some((host, port)) = place else { continue };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        // Nobody else does the work of the primary, whatever its weight.
        let weight = if tier.suffix == "primary" { 100 } else { weight(service, &server.name) };
        let name = unique(&mut names, &server.name);
        let (api_host, api_port) = &server.api;
        let _ = write!(
            out,
            "    server {name} {host}:{port} check addr {api_host} port {api_port} weight {weight}"
        );
        if server.api_tls {
            out.push_str(" check-ssl verify none");
        }
        if service.send_proxy {
            out.push_str(" send-proxy-v2");
        }
        // The primary has its whole share at once, as with the router.
        if tier.suffix != "primary" && service.slow_start.as_millis() > 0 {
            let _ = write!(out, " slowstart {}ms", service.slow_start.as_millis());
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::{Known, Server, configuration};
    use std::collections::BTreeMap;
    use std::process::Command;

    fn server(number: u8, offline: bool) -> Server {
        let at = |port| (format!("10.0.0.{number}"), port);
        Server {
            name: format!("pg-{number}"),
            postgres: at(5432),
            pooler: Some(at(6432)),
            api: at(8008),
            api_tls: number == 2,
            offline,
        }
    }

    fn written(yaml: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("router.yml");
        let begin = "scope: demo\netcd3: {hosts: '127.0.0.1:2379'}\n";
        std::fs::write(&file, format!("{begin}{yaml}")).unwrap();
        let settings = settings::load_router(&file, &BTreeMap::new()).unwrap();
        let strange = || Server { name: "a strange\n#name".into(), ..server(4, false) };
        let servers = || vec![server(1, false), server(2, false), server(3, true), strange()];
        let known: Known = [("demo".to_owned(), servers()), ("other".to_owned(), servers())].into();
        configuration(&settings, &known)
    }

    #[test]
    fn haproxy_takes_it() {
        let everything = "router:\n  listen: [127.0.0.1, '::1']\n  proxy_from: [10.0.0.0/8, 'fd00::/8']\n  clusters: [{name: other}]\n  services:\n\
            \x20   - {name: primary, port: 5433, role: primary, destination: pooler, send_proxy: true, weights: {pg-1: 0}}\n\
            \x20   - {name: replica, port: 5434, role: replica, max_lag: 1MB, max_lag_time: 5s, slow_start: 30s, balance: round_robin, weights: {pg-1: 0, pg-2: 200}}\n\
            \x20   - {name: sync one, port: 5435, role: sync}\n\
            \x20   - {name: any, port: 5437, role: any, cluster: other, max_lag: 1MB}\n\
            \x20   - {name: offline, port: 5438, role: offline, destination_port: 7000}\n\
            \x20   - {name: never, port: 5439, role: offline, fallback: none}\n\
            \x20   - {name: last, port: 5440, role: offline, fallback: primary, weights: {pg-3: 2560, pg-1: 0}}\n";
        for yaml in ["", everything] {
            let text = written(yaml);
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("haproxy.cfg");
            std::fs::write(&file, &text).unwrap();
            let haproxy = std::env::var("BATON_TEST_HAPROXY").unwrap_or_else(|_| "haproxy".to_owned());
            let output = Command::new(haproxy).arg("-c").arg("-f").arg(&file).output().expect("haproxy");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !said.contains("WARNING"), "{said}\n{text}");
        }
        let text = written(everything);
        for wanted in [
            "use_backend demo-replica-replica if { nbsrv(demo-replica-replica) gt 0 }",
            "default_backend demo-replica-primary",
            "http-check send meth OPTIONS uri /replica?lag=1048576",
            "server pg-2 10.0.0.2:5432 check addr 10.0.0.2 port 8008 weight 200 check-ssl verify none slowstart 30000ms",
            "server pg-1 10.0.0.1:6432 check addr 10.0.0.1 port 8008 weight 100 send-proxy-v2",
            "server pg-3 10.0.0.3:7000",
            "http-check send meth OPTIONS uri /primary?writable",
            "backend demo-last-offline\n    balance leastconn\n",
            "server pg-3 10.0.0.3:5432 check addr 10.0.0.3 port 8008 weight 256",
            "server pg-1 10.0.0.1:5432 check addr 10.0.0.1 port 8008 weight 0",
            "server pg-2 10.0.0.2:5432 check addr 10.0.0.2 port 8008 weight 10",
            "http-check send meth OPTIONS uri /read-only?lag=1048576",
            "use_backend demo-sync_one-quorum if { nbsrv(demo-sync_one-quorum) gt 0 }",
            "default_backend demo-sync_one-primary",
            "server a_strange__name 10.0.0.4:5432",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
    }
}
