//! `host:port` in its spellings.

/// Splits `host:port`, `[v6]:port`, `v6:port` (the last colon counts) or a bare host; the port is `default` when missing.
/// `None` when the port is no number from 1 to 65535 or is missing without a default.
#[must_use]
pub fn split(text: &str, default: Option<u16>) -> Option<(String, u16)> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix('[') {
        let (host, tail) = rest.split_once(']')?;
        let port = match tail.strip_prefix(':') {
            Some(port) => parse_port(port)?,
            None if tail.is_empty() => default?,
            None => return None,
        };
        return Some((host.to_owned(), port));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => Some((host.to_owned(), parse_port(port)?)),
        None => Some((text.to_owned(), default?)),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|port| *port != 0)
}

/// `host:port`, with brackets around an IPv6 host.
#[must_use]
pub fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Whether a host to listen on means every address, so that nobody can connect to it as written.
#[must_use]
pub fn is_wildcard(host: &str) -> bool {
    matches!(host, "" | "*" | "0.0.0.0" | "::")
}

#[cfg(test)]
mod tests {
    use super::{join, split};

    #[test]
    fn addresses_are_split() {
        let some = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(split("10.0.0.1:5432", None), some("10.0.0.1", 5432));
        assert_eq!(split("*:8008", None), some("*", 8008));
        assert_eq!(split(":8008", None), some("", 8008));
        assert_eq!(split("[fe80::1]:2379", None), some("fe80::1", 2379));
        assert_eq!(split("[::1]", Some(2379)), some("::1", 2379));
        assert_eq!(split(":::5432", None), some("::", 5432));
        assert_eq!(split("db1", Some(2379)), some("db1", 2379));
        assert_eq!(split("db1", None), None);
        assert_eq!(split("db1:0", None), None);
        assert_eq!(split("db1:99999", Some(1)), None);
        assert_eq!(join("::1", 1), "[::1]:1");
    }
}
