//! `vip:`, Baton's own section.

use crate::build::Raw;
use crate::node::{Content, Node};
use crate::problem::Findings;
use crate::values::Values;
use std::net::IpAddr;
use std::time::Duration;

const MAX_ADDRESSES: usize = 64;
/// More often than this is a burden for everybody in the subnet.
const LEAST_REFRESH: Duration = Duration::from_secs(1);

/// A virtual address as written; `vip::Wanted` says what it must be like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VirtualAddress {
    pub ip: IpAddr,
    pub prefix_len: Option<u8>,
    /// Where it is put; none when only a command moves it.
    pub interface: Option<String>,
    pub role: String,
    /// It need not be in a network of the interface.
    pub routed: bool,
    /// The program that moves it, and its first arguments; empty: none.
    pub command: Vec<String>,
    pub timeout: Duration,
    /// How often neighbours are told again where it is.
    pub refresh: Duration,
    /// Whether it is announced by BGP, if there is a speaker.
    pub bgp: bool,
}

/// The section as meant; without one, no addresses.
pub(crate) fn build(raw: &Raw<'_>, findings: &mut Findings) -> Vec<VirtualAddress> {
    let written = raw.root.get("vip").and_then(|section| section.get("addresses"));
    let Some(Node { content: Content::List(items), place }) = written else { return Vec::new() };
    if items.len() > MAX_ADDRESSES {
        findings.error(
            place,
            "vip.addresses",
            format!("at most {MAX_ADDRESSES} addresses can be held by a member"),
        );
    }
    // Routers are told the way to what is announced to them.
    let speaks = raw.root.get("vip").and_then(|section| section.get("bgp")).is_some_and(|bgp| !bgp.is_null());
    let mut addresses: Vec<VirtualAddress> = Vec::new();
    for (at, item) in items.iter().enumerate().take(MAX_ADDRESSES) {
        let key = format!("vip.addresses.{at}");
        let Some(address) = address(&key, item, raw.local, findings) else { continue };
        if addresses.iter().any(|other| other.ip == address.ip) {
            findings.error(&item.place, &key, format!("{} is there twice: keep one of them", address.ip));
        }
        let routed = address.routed || speaks && address.bgp;
        addresses.push(VirtualAddress { routed, ..address });
    }
    addresses
}

fn address(key: &str, item: &Node, values: &Values, findings: &mut Findings) -> Option<VirtualAddress> {
    let text = |name: &str| values.text(&format!("{key}.{name}"));
    let (written, interface) = (text("address"), text("interface"));
    let command = text("command").map(|line| (shlex::split(&line).unwrap_or_default(), line));
    if written.is_none() && item.get("address").is_none() {
        findings.error(&item.place, key, format!("{key} has no \"address\": add it"));
    }
    if interface.is_none() && command.is_none() && item.get("interface").is_none() {
        let what = format!("{key} has no \"interface\": add it, or a \"command\" that moves the address");
        findings.error(&item.place, key, what);
    }
    if let Some((words, line)) = &command
        && words.is_empty()
    {
        let what =
            format!("{line:?} is no command: write a program and its arguments, with quotes as in a shell");
        findings.error(&item.place, &format!("{key}.command"), what);
    }
    let written = written?;
    let (ip, prefix_len) = match written.split_once('/') {
        Some((ip, length)) => (ip, Some(length)),
        None => (written.as_str(), None),
    };
    let parsed = (ip.trim().parse(), prefix_len.map(|length| length.trim().parse()).transpose());
    let (Ok(ip), Ok(prefix_len)) = parsed else {
        let what = format!("{written:?} is no address: write it like 10.0.0.5 or 10.0.0.5/24 or fd00::5");
        findings.error(&item.place, &format!("{key}.address"), what);
        return None;
    };
    if interface.is_none() && command.is_none() {
        return None;
    }
    let role = text("role").unwrap_or_else(|| "primary".to_owned());
    let (routed, timeout) =
        (values.flag(&format!("{key}.routed")), values.duration(&format!("{key}.timeout")));
    let command = command.map(|(words, _)| words).unwrap_or_default();
    let (refresh, bgp) = (values.duration(&format!("{key}.refresh")), values.flag(&format!("{key}.bgp")));
    if refresh < LEAST_REFRESH {
        let what = format!("{refresh:?} is too often: write {LEAST_REFRESH:?} or more");
        findings.error(&item.place, &format!("{key}.refresh"), what);
    }
    Some(VirtualAddress { ip, prefix_len, interface, role, routed, command, timeout, refresh, bgp })
}
