//! `--dcs-url`: where etcd is, on one line, as patronictl takes it.
//!
//!     etcd3://10.0.0.1:2379,10.0.0.2:2379/service      scheme, hosts (port 2379 unless said), namespace

use crate::exit_codes::Code;
use crate::failure::Failure;
use settings::Credentials;

/// What the URL says.
#[derive(Clone, Debug)]
pub(crate) struct DcsUrl {
    /// Such as `http://10.0.0.1:2379`; at least one.
    pub endpoints: Vec<String>,
    /// A user of etcd, when one of the hosts has it before an `@`.
    pub authentication: Option<Credentials>,
    /// The namespace; `None` leaves the configured one.
    pub namespace: Option<String>,
}

/// The port of etcd.
const PORT: u16 = 2379;
const EXAMPLE: &str = "expected something like etcd3://10.0.0.1:2379,10.0.0.2:2379/service";

/// Reads the URL. Without a scheme it is etcd's; `https` stands for etcd over TLS.
pub(crate) fn parse(text: &str) -> Result<DcsUrl, Failure> {
    let fail = |what: &str| {
        Failure::new(Code::Configuration, format!("failed to read the DCS URL: {what}; {EXAMPLE}"))
    };
    let (scheme, rest) = text.split_once("://").unwrap_or(("etcd3", text));
    let protocol = match scheme {
        "etcd3" | "etcd" | "http" => "http",
        "https" => "https",
        other => return Err(fail(&format!("{other} is not supported, only etcd is"))),
    };
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (mut endpoints, mut authentication) = (Vec::new(), None);
    for host in hosts.split(',') {
        let (endpoint, user) =
            settings::endpoint(host, protocol, PORT).map_err(|error| fail(&error.to_string()))?;
        endpoints.push(endpoint);
        authentication = authentication.or(user);
    }
    let namespace = Some(path.trim_matches('/')).filter(|path| !path.is_empty());
    Ok(DcsUrl { endpoints, authentication, namespace: namespace.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn all_parts_are_read() {
        let url = parse("etcd3://10.0.0.1:2379,db2,[::1]:23790/pg").unwrap();
        assert_eq!(url.endpoints, ["http://10.0.0.1:2379", "http://db2:2379", "http://[::1]:23790"]);
        assert_eq!(url.namespace.as_deref(), Some("pg"));
        let url = parse("localhost:2380").unwrap();
        assert_eq!((url.endpoints, url.namespace), (vec!["http://localhost:2380".to_owned()], None));
        let url = parse("etcd3://root:secret@a:1,b/service").unwrap();
        assert_eq!(url.endpoints, ["http://a:1", "http://b:2379"]);
        assert_eq!(url.authentication.as_ref().map(|user| user.username.as_str()), Some("root"));
        assert!(!format!("{url:?}").contains("secret"));
        assert_eq!(parse("https://a/").unwrap().endpoints, ["https://a:2379"]);
        assert_eq!(parse("etcd://a:1/b/c/").unwrap().namespace.as_deref(), Some("b/c"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_an_example() {
        for bad in
            ["", "etcd3://", "etcd3://a:x/service", "consul://a:8500", "etcd3://a,,b", "etcd3://:2379", "a:0"]
        {
            let failure = parse(bad).unwrap_err();
            assert!(failure.message.contains("etcd3://10.0.0.1:2379"), "{bad}: {failure}");
        }
    }
}
