//! Who may use the verbs that change something: the allowlist, then the credentials, when they are configured.

use super::Shared;
use super::reply::{self, Reply};
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use std::net::{IpAddr, SocketAddr};

/// The refusal; `None` when the request may pass.
pub(super) fn refusal(headers: &HeaderMap, peer: SocketAddr, shared: &Shared) -> Option<Reply> {
    let settings = shared.settings();
    let rest = &settings.restapi;
    let listed = !rest.allowlist.is_empty() || rest.allowlist_include_members;
    if listed && !allowed(peer.ip(), shared) {
        return Some(reply::text(StatusCode::FORBIDDEN, "Access is denied"));
    }
    let credentials = rest.authentication.as_ref()?;
    let pair = format!("{}:{}", credentials.username, credentials.password.reveal());
    let expected = format!("Basic {}", base64(pair.as_bytes()));
    let denied = |why: &str| {
        let mut reply = reply::text(StatusCode::UNAUTHORIZED, why);
        let realm = HeaderValue::from_static("Basic realm=\"Patroni\"");
        reply.headers_mut().insert(WWW_AUTHENTICATE, realm);
        Some(reply)
    };
    match headers.get(AUTHORIZATION) {
        None => denied("no auth header received"),
        Some(given) if same(given.as_bytes(), expected.as_bytes()) => None,
        Some(_) => denied("not authenticated"),
    }
}

fn allowed(peer: IpAddr, shared: &Shared) -> bool {
    let settings = shared.settings();
    let rest = &settings.restapi;
    let by_list = rest.allowlist.iter().any(|entry| covers(entry, peer));
    let snapshot = shared.view.borrow().snapshot.clone();
    let by_member = rest.allowlist_include_members
        && snapshot.is_some_and(|snapshot| {
            let hosts = snapshot.members.values().filter_map(|member| host(member.api_url.as_deref()?));
            hosts.into_iter().any(|host| covers(&host, peer))
        });
    by_list || by_member
}

fn host(url: &str) -> Option<String> {
    Some(url.parse::<hyper::Uri>().ok()?.host()?.to_owned())
}

/// Whether an entry (an address, a network, or a name) covers this address.
fn covers(entry: &str, peer: IpAddr) -> bool {
    let (address, bits) =
        entry.split_once('/').map_or((entry, None), |(address, bits)| (address, Some(bits)));
    let Ok(network) = address.trim_matches(['[', ']']).parse::<IpAddr>() else {
        return std::net::ToSocketAddrs::to_socket_addrs(&(entry, 0))
            .is_ok_and(|mut found| found.any(|found| found.ip() == peer));
    };
    let widest = if network.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(widest), |bits| bits.parse().ok()).filter(|bits| *bits <= widest);
    let Some(bits) = bits else { return false };
    let shift = widest - bits;
    let top = |value: u128| value.checked_shr(shift).unwrap_or(0);
    match (network, peer) {
        (IpAddr::V4(network), IpAddr::V4(peer)) => {
            top(u32::from(network).into()) == top(u32::from(peer).into())
        }
        (IpAddr::V6(network), IpAddr::V6(peer)) => top(network.into()) == top(peer.into()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// Compares in a time that tells nothing about where the difference is.
fn same(given: &[u8], expected: &[u8]) -> bool {
    given.len() == expected.len()
        && given.iter().zip(expected).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4_usize {
            let digit = DIGITS.get((word >> (18 - 6 * place) & 63) as usize).copied().unwrap_or(b'=');
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{base64, covers};

    #[test]
    fn base64_pads() {
        assert_eq!(base64(b"user:pw"), "dXNlcjpwdw==");
        assert_eq!(base64(b"abc"), "YWJj");
    }

    #[test]
    fn networks_cover_their_addresses() {
        assert!(covers("10.1.0.0/16", "10.1.2.3".parse().unwrap()));
        assert!(!covers("10.1.0.0/16", "10.2.2.3".parse().unwrap()));
        assert!(covers("::1", "::1".parse().unwrap()));
        assert!(covers("0.0.0.0/0", "8.8.8.8".parse().unwrap()));
        assert!(!covers("10.1.0.0/99", "10.1.2.3".parse().unwrap()));
    }
}
