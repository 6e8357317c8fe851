//! Where a member's REST API is.

use hyper::Uri;

/// The parts of an `api_url` that a connection needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub secure: bool,
    /// As in the URL: an IPv6 address has brackets.
    pub host: String,
    pub port: u16,
    /// The path of the URL itself, such as `/patroni`.
    pub path: String,
}

impl Target {
    /// Reads `http[s]://host[:port][/path]`.
    #[must_use]
    pub fn parse(api_url: &str) -> Option<Target> {
        let uri: Uri = api_url.parse().ok()?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?;
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Some(Target { secure, host: host.to_owned(), port, path: uri.path().to_owned() })
    }

    /// The host without the brackets of an IPv6 address.
    #[must_use]
    pub fn connect_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn urls_are_read() {
        let target = Target::parse("https://[::1]:8008/patroni").unwrap();
        assert_eq!((target.secure, target.connect_host(), target.port), (true, "::1", 8008));
        assert_eq!(target.path, "/patroni");
        assert_eq!(Target::parse("http://db/patroni").unwrap().port, 80);
        for bad in ["", "db:8008", "ftp://db/", "http://"] {
            assert!(Target::parse(bad).is_none(), "{bad}");
        }
    }
}
