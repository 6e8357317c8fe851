//! `etcd3:` (or `etcd:`) in all its spellings, as a list of URLs.

use crate::address;
use crate::build;
use crate::origin;
use crate::problem::Findings;
use crate::secret::{Credentials, Secret};
use crate::values::Values;
use std::fmt;
use std::path::PathBuf;

const PORT: u16 = 2379;
const MAX_ENDPOINTS: usize = 100;

/// How etcd is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Etcd {
    /// `http://10.0.0.1:2379`, at least one, without a user or password in it.
    pub endpoints: Vec<String>,
    /// Whether the list is fixed (`use_proxies`), so that other members are not to be discovered.
    pub fixed: bool,
    pub cacert: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub authentication: Option<Credentials>,
}

/// An endpoint could not be understood. It holds the text, unless that has a password in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadEndpoint(String);

impl fmt::Display for BadEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no etcd member: write host:port or http://host:port", self.0)
    }
}

impl std::error::Error for BadEndpoint {}

/// Reads `host`, `host:port`, or a URL, perhaps with a user, as an endpoint.
pub fn endpoint(text: &str, protocol: &str, port: u16) -> Result<(String, Option<Credentials>), BadEndpoint> {
    let bad = || BadEndpoint(origin::shown("", crate::kind::Kind::Text, text));
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").unwrap_or((protocol, text));
    if !matches!(scheme, "http" | "https") {
        return Err(bad());
    }
    let netloc = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let (user, host) = match netloc.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, netloc),
    };
    let (host, port) = address::split(host, Some(port)).ok_or_else(bad)?;
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == ',') {
        return Err(bad());
    }
    let authentication = user.map(|user| {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        Credentials { username: percent_decoded(name), password: Secret::new(percent_decoded(password)) }
    });
    Ok((format!("{scheme}://{}", address::join(&host, port)), authentication))
}

/// The section as meant; `None` when neither `etcd3` nor `etcd` names a member.
pub(crate) fn build(values: &Values, findings: &mut Findings) -> Option<Etcd> {
    let given = |section: &str| {
        ["proxy", "url", "hosts", "host"]
            .iter()
            .any(|key| values.found.contains_key(&format!("{section}.{key}")))
    };
    let section = if given("etcd3") {
        "etcd3"
    } else if given("etcd") {
        "etcd"
    } else {
        return None;
    };
    if section == "etcd3" && given("etcd") {
        let place = values
            .found
            .iter()
            .find(|(key, _)| key.starts_with("etcd."))
            .map(|(_, found)| found.place.clone());
        if let Some(place) = place {
            findings.warn(
                &place,
                "etcd",
                "etcd has no effect because etcd3 is given as well: remove one of them",
            );
        }
    }
    let at = |key: &str| format!("{section}.{key}");
    let (key, texts) = spelled(values, section)?;
    let protocol = values.text(&at("protocol")).unwrap_or_default();
    let port = values.int(&at("port")).and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT);
    let mut endpoints: Vec<String> = Vec::new();
    let mut authentication = None;
    for text in texts.iter().take(MAX_ENDPOINTS) {
        match endpoint(text, &protocol, port) {
            Ok((url, user)) => {
                authentication = authentication.or(user);
                if !endpoints.contains(&url) {
                    endpoints.push(url);
                }
            }
            Err(error) => findings.error(&values.place(&key), &key, format!("{key}: {error}")),
        }
    }
    if texts.is_empty() {
        findings.error(
            &values.place(&key),
            &key,
            format!("{key} is empty: list at least one etcd member as host:port"),
        );
    }
    if endpoints.is_empty() {
        return None;
    }
    let etcd = Etcd {
        endpoints,
        fixed: values.flag(&at("use_proxies")) || key.ends_with(".proxy"),
        cacert: values.path(&at("cacert")),
        cert: values.path(&at("cert")),
        key: values.path(&at("key")),
        authentication: build::credentials(values, section).or(authentication),
    };
    if etcd.cert.is_some() != etcd.key.is_some() {
        let (has, lacks) = if etcd.cert.is_some() { ("cert", "key") } else { ("key", "cert") };
        let what = format!("{section}.{has} is given without {section}.{lacks}: give both");
        findings.error(&values.place(&at(has)), &at(has), what);
    }
    Some(etcd)
}

/// The spelling that counts, in Patroni's order, and its members.
fn spelled(values: &Values, section: &str) -> Option<(String, Vec<String>)> {
    for name in ["proxy", "url", "hosts", "host"] {
        let key = format!("{section}.{name}");
        if values.found.contains_key(&key) {
            let texts = match name {
                "hosts" => values.texts(&key).unwrap_or_default(),
                _ => values.text(&key).into_iter().collect(),
            };
            return Some((key, texts));
        }
    }
    None
}

fn percent_decoded(text: &str) -> String {
    let mut bytes: Vec<u8> = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend(before.as_bytes());
        match after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(b'%');
                rest = after;
            }
        }
    }
    bytes.extend(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn endpoints_in_all_spellings() {
        let url =
            |text: &str| endpoint(text, "http", 2379).map(|(url, _)| url).map_err(|error| error.to_string());
        assert_eq!(url("10.0.0.1"), Ok("http://10.0.0.1:2379".to_owned()));
        assert_eq!(url(" etcd1:4001 "), Ok("http://etcd1:4001".to_owned()));
        assert_eq!(url("https://etcd1:2379/"), Ok("https://etcd1:2379".to_owned()));
        assert_eq!(url("[::1]:2379"), Ok("http://[::1]:2379".to_owned()));
        for bad in ["", "a b:1", "ftp://x", "host:port", "http://:2379"] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_user_in_the_url_is_taken_out_of_it() {
        let (url, user) = endpoint("http://root:p%40ss@10.0.0.1:2379", "http", 2379).unwrap();
        assert_eq!(url, "http://10.0.0.1:2379");
        let user = user.unwrap();
        assert_eq!((user.username.as_str(), user.password.reveal()), ("root", "p@ss"));
        let error = endpoint("ftp://root:hunter2@x", "http", 2379).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
