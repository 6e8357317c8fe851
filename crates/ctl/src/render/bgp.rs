//! A BGP speaker's configuration that announces virtual addresses while they are on this host, and imports nothing. Pure.
//!
//! The address has a lifetime, so the route goes when the kernel removes the address: also when nobody is left who could withdraw it. What
//! would keep a route beyond that (graceful restart, a static route) is left out or switched off.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

/// An address and where it comes and goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    pub ip: IpAddr,
    pub prefix_len: Option<u8>,
    pub interface: String,
}

/// What the speaker is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Speaker {
    pub router_id: Ipv4Addr,
    pub asn: u32,
    /// Seconds without a word after which a neighbor drops the routes.
    pub hold: u16,
    pub neighbors: Vec<(IpAddr, u32)>,
    pub addresses: Vec<Announced>,
}

/// Whether it can be announced as written.
pub(crate) fn check(speaker: &Speaker) -> Result<(), String> {
    if speaker.addresses.is_empty() {
        return Err(
            "announce an address: the section vip names none on an interface, add vip.addresses".to_owned()
        );
    }
    for Announced { ip, prefix_len, .. } in &speaker.addresses {
        let alone = if ip.is_ipv4() { 32 } else { 128 };
        if prefix_len.is_some_and(|length| length != alone) {
            return Err(format!(
                "announce {ip}: with a prefix length it would be its whole subnet; write it without one in vip.addresses"
            ));
        }
        if !speaker.neighbors.iter().any(|(neighbor, _)| neighbor.is_ipv4() == ip.is_ipv4()) {
            return Err(format!("announce {ip}: no --neighbor has an address of its kind"));
        }
    }
    Ok(())
}

fn of_kind(speaker: &Speaker, v4: bool) -> Vec<String> {
    let alone = if v4 { 32 } else { 128 };
    let ips = speaker.addresses.iter().map(|address| address.ip).filter(|ip| ip.is_ipv4() == v4);
    ips.map(|ip| format!("{ip}/{alone}")).collect()
}

fn keepalive(speaker: &Speaker) -> u16 {
    (speaker.hold / 3).max(1)
}

/// For BIRD 2.
pub(crate) fn bird(speaker: &Speaker) -> String {
    let interfaces: BTreeSet<String> =
        speaker.addresses.iter().map(|address| format!("{:?}", address.interface)).collect();
    let interfaces: Vec<String> = interfaces.into_iter().collect();
    let mut text = format!(
        "# Written by `baton bird-config`: announces the virtual addresses while they are here.\n\
         router id {};\n\nprotocol device {{\n    scan time 1;\n}}\n\n\
         protocol direct baton_addresses {{\n    ipv4;\n    ipv6;\n    interface {};\n}}\n",
        speaker.router_id,
        interfaces.join(", ")
    );
    for (v4, name) in [(true, "baton_ipv4"), (false, "baton_ipv6")] {
        let routes = of_kind(speaker, v4);
        if !routes.is_empty() {
            let _ = write!(
                text,
                "\nfilter {name} {{\n    if source = RTS_DEVICE && net ~ [ {} ] then accept;\n    reject;\n}}\n",
                routes.join(", ")
            );
        }
    }
    for (at, (neighbor, asn)) in speaker.neighbors.iter().enumerate() {
        let kind = if neighbor.is_ipv4() { "ipv4" } else { "ipv6" };
        if of_kind(speaker, neighbor.is_ipv4()).is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "\nprotocol bgp baton_{number} {{\n    local as {own};\n    neighbor {neighbor} as {asn};\n    hold time {hold};\n    \
             keepalive time {alive};\n    graceful restart off;\n    {kind} {{\n        import none;\n        \
             export filter baton_{kind};\n        next hop self;\n    }};\n}}\n",
            number = at + 1,
            own = speaker.asn,
            hold = speaker.hold,
            alive = keepalive(speaker),
        );
    }
    text
}

/// For FRR.
pub(crate) fn frr(speaker: &Speaker) -> String {
    let mut text = String::from(
        "! Written by `baton frr-config`: announces the virtual addresses while they are here.\n",
    );
    for (v4, ip, name) in [(true, "ip", "baton-ipv4"), (false, "ipv6", "baton-ipv6")] {
        let routes = of_kind(speaker, v4);
        for (at, route) in routes.iter().enumerate() {
            let _ = writeln!(text, "{ip} prefix-list {name} seq {} permit {route}", 5 * (at + 1));
        }
        if !routes.is_empty() {
            let _ = write!(
                text,
                "!\nroute-map {name} permit 10\n match {ip} address prefix-list {name}\nexit\n!\n"
            );
        }
    }
    let _ = write!(
        text,
        "route-map baton-nothing deny 10\nexit\n!\nrouter bgp {}\n bgp router-id {}\n no bgp default ipv4-unicast\n \
         bgp graceful-restart-disable\n",
        speaker.asn, speaker.router_id
    );
    let used = |neighbor: &IpAddr| !of_kind(speaker, neighbor.is_ipv4()).is_empty();
    for (neighbor, asn) in speaker.neighbors.iter().filter(|(neighbor, _)| used(neighbor)) {
        let (alive, hold) = (keepalive(speaker), speaker.hold);
        let _ = write!(
            text,
            " neighbor {neighbor} remote-as {asn}\n neighbor {neighbor} timers {alive} {hold}\n"
        );
    }
    for (v4, name) in [(true, "ipv4"), (false, "ipv6")] {
        if of_kind(speaker, v4).is_empty() {
            continue;
        }
        let _ = write!(
            text,
            " !\n address-family {name} unicast\n  redistribute connected route-map baton-{name}\n"
        );
        for (neighbor, _) in speaker.neighbors.iter().filter(|(neighbor, _)| neighbor.is_ipv4() == v4) {
            let _ = write!(
                text,
                "  neighbor {neighbor} activate\n  neighbor {neighbor} next-hop-self\n  neighbor {neighbor} route-map baton-nothing in\n  \
                 neighbor {neighbor} route-map baton-{name} out\n"
            );
        }
        text.push_str(" exit-address-family\n");
    }
    text.push_str("exit\n");
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Announced, Speaker, bird, check, frr};

    fn speaker() -> Speaker {
        let announced = |ip: &str, interface: &str| Announced {
            ip: ip.parse().unwrap(),
            prefix_len: None,
            interface: interface.to_owned(),
        };
        Speaker {
            router_id: "10.0.0.11".parse().unwrap(),
            asn: 4_200_000_001,
            hold: 3,
            neighbors: vec![("10.0.0.1".parse().unwrap(), 65_000), ("fd00::1".parse().unwrap(), 65_000)],
            addresses: vec![announced("10.0.0.5", "eth0"), announced("fd00::5", "lo")],
        }
    }

    #[test]
    fn both_dialects_announce_only_these_and_import_nothing() {
        assert_eq!(check(&speaker()), Ok(()));
        insta::assert_snapshot!("bird", bird(&speaker()));
        insta::assert_snapshot!("frr", frr(&speaker()));
    }

    /// As the distribution has them: no word of it is unknown to them.
    #[test]
    fn bird_and_frr_accept_it() {
        let dir = tempfile::tempdir().unwrap();
        let peers = std::env::var("BATON_TEST_PEERS").unwrap();
        let cases: [(&str, &[&str], String); 2] =
            [("bird", &["-p", "-c"], bird(&speaker())), ("vtysh", &["-C", "-f"], frr(&speaker()))];
        for (program, words, text) in cases {
            let file = dir.path().join(program);
            std::fs::write(&file, &text).unwrap();
            let path = std::path::Path::new(&peers).join(program);
            let checked = std::process::Command::new(path).args(words).arg(&file).output().unwrap();
            assert!(checked.status.success(), "{program}: {}", String::from_utf8_lossy(&checked.stderr));
            std::fs::write(&file, text + "nonsense here\n").unwrap();
            let path = std::path::Path::new(&peers).join(program);
            let checked = std::process::Command::new(path).args(words).arg(&file).output().unwrap();
            assert!(!checked.status.success(), "{program} accepts anything");
        }
    }

    #[test]
    fn what_cannot_be_announced_is_refused() {
        let mut wide = speaker();
        wide.addresses[0].prefix_len = Some(24);
        assert!(check(&wide).unwrap_err().contains("its whole subnet"));
        let mut one_kind = speaker();
        one_kind.neighbors.truncate(1);
        assert!(check(&one_kind).unwrap_err().contains("fd00::5"));
        let mut none = speaker();
        none.addresses.clear();
        assert!(check(&none).is_err());
    }
}
