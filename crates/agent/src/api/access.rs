//! Who may use the verbs that change something: the allowlist, then the client's certificate, then the credentials, each
//! where it is configured.

use super::reply::{self, Reply};
use super::{Caller, Shared};
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use settings::{RestApi, VerifyClient};
use std::net::IpAddr;
use std::time::Duration;

/// A name of the allowlist is looked up within this time.
const LOOKUP: Duration = Duration::from_secs(2);

/// The refusal; `None` when the request may pass. `etcd_may_be_away`: an allowlist of
/// nobody but the members lets everybody pass, because who the members are may not be known.
pub(super) async fn refusal(
    headers: &HeaderMap,
    caller: Caller,
    shared: &Shared,
    etcd_may_be_away: bool,
) -> Option<Reply> {
    let settings = shared.settings();
    let rest = &settings.restapi;
    let listed = !rest.allowlist.is_empty() || (rest.allowlist_include_members && !etcd_may_be_away);
    if listed && !allowed(caller.peer.ip().to_canonical(), rest, shared).await {
        return Some(reply::text(StatusCode::FORBIDDEN, "Access is denied"));
    }
    if caller.secure && rest.verify_client != VerifyClient::None && !caller.certificate {
        return Some(reply::text(StatusCode::FORBIDDEN, "client certificate required"));
    }
    credentials(headers, rest)
}

fn credentials(headers: &HeaderMap, rest: &RestApi) -> Option<Reply> {
    let wanted = rest.authentication.as_ref()?;
    let password = wanted.password.reveal().to_owned();
    let expected = http::Credentials { username: wanted.username.clone(), password }.header();
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

async fn allowed(peer: IpAddr, rest: &RestApi, shared: &Shared) -> bool {
    let mut entries = rest.allowlist.clone();
    let snapshot = shared.view.borrow().snapshot.clone();
    if let Some(snapshot) = snapshot.filter(|_| rest.allowlist_include_members) {
        let urls = snapshot.members.values().filter_map(|member| member.api_url.as_deref());
        entries.extend(urls.filter_map(|url| Some(http::Target::parse(url)?.connect_host().to_owned())));
    }
    for entry in &entries {
        let covered = match covers(entry, peer) {
            Some(covered) => covered,
            None => has_address(entry, peer).await,
        };
        if covered {
            return true;
        }
    }
    false
}

/// Whether a host name has this address.
async fn has_address(name: &str, peer: IpAddr) -> bool {
    match tokio::time::timeout(LOOKUP, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(mut found)) => found.any(|found| found.ip() == peer),
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Whether an entry covers this address; `None` when it is neither an address nor a network, but a name.
fn covers(entry: &str, peer: IpAddr) -> Option<bool> {
    let (address, bits) =
        entry.split_once('/').map_or((entry, None), |(address, bits)| (address, Some(bits)));
    let network = address.trim_matches(['[', ']']).parse::<IpAddr>().ok()?;
    let widest: u32 = if network.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(widest), |bits| bits.parse().ok()).filter(|bits| *bits <= widest);
    let Some(bits) = bits else { return Some(false) };
    let shift = widest - bits;
    let top = |value: u128| value.checked_shr(shift).unwrap_or(0);
    Some(match (network, peer) {
        (IpAddr::V4(network), IpAddr::V4(peer)) => {
            top(u32::from(network).into()) == top(u32::from(peer).into())
        }
        (IpAddr::V6(network), IpAddr::V6(peer)) => top(network.into()) == top(peer.into()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    })
}

/// Compares in a time that tells nothing about where the difference is.
fn same(given: &[u8], expected: &[u8]) -> bool {
    given.len() == expected.len()
        && given.iter().zip(expected).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn networks_cover_their_addresses() {
        let covers = |entry: &str, peer: &str| covers(entry, peer.parse().unwrap());
        assert_eq!(covers("10.1.0.0/16", "10.1.2.3"), Some(true));
        assert_eq!(covers("10.1.0.0/16", "10.2.2.3"), Some(false));
        assert_eq!(covers("::1", "::1"), Some(true));
        assert_eq!(covers("0.0.0.0/0", "8.8.8.8"), Some(true));
        assert_eq!(covers("10.1.0.0/99", "10.1.2.3"), Some(false));
        assert_eq!(covers("db1.example", "10.1.2.3"), None);
    }
}
