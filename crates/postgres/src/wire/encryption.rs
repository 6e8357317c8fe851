//! TLS under the protocol, in the words of libpq: `sslmode`, `sslrootcert`, `sslcrl`, `sslcrldir`, `sslcert`, `sslkey`,
//! `sslpassword`, `sslnegotiation`, `channel_binding`.
//!
//! ```text
//! TCP ─ SSLRequest ─> S: handshake ─> encrypted      (sslnegotiation=direct: the handshake at once)
//!                     N: in the clear, if sslmode allows that
//! ```

use super::{Failure, Stream};
use crate::connection::ConnectTo;
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use std::path::PathBuf;
use std::sync::Arc;
use tls::{Authorities, ClientConfig, Identity, Revoked, ServerName, TlsConnector, Trust};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// `sslmode`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SslMode {
    /// Never.
    Disable,
    /// Only where the server does not let us in without.
    Allow,
    /// Where the server can.
    Prefer,
    /// Or not at all.
    Demand,
}

/// `channel_binding`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Binding {
    Disable,
    Prefer,
    Require,
}

/// What a connection string says of TLS.
#[derive(Debug)]
pub(super) struct Plan {
    pub mode: SslMode,
    pub binding: Binding,
    direct: bool,
    trust: Trust,
    revoked: Revoked,
    identity: Option<Identity>,
}

/// A connection, and the hash of the server's certificate when it is encrypted and has one.
pub(super) struct Opened {
    pub stream: Box<dyn Stream>,
    pub encrypted: bool,
    pub end_point: Option<Vec<u8>>,
}

impl Plan {
    pub(super) fn of(to: &ConnectTo) -> Result<Plan, Failure> {
        let words = &to.tls;
        let word = |name: &str| words.get(name).map(String::as_str).filter(|word| !word.is_empty());
        let bad = |what: String| Failure::Tls(what);
        let authorities = match word("sslrootcert") {
            Some("system") => Some(Authorities::System),
            Some(path) => Some(Authorities::File(PathBuf::from(path))),
            None => beside("root.crt").map(Authorities::File),
        };
        let (mode, trust) = match (word("sslmode").unwrap_or("prefer"), authorities) {
            ("disable", _) => (SslMode::Disable, Trust::Anybody),
            ("allow", _) => (SslMode::Allow, Trust::Anybody),
            ("prefer", _) => (SslMode::Prefer, Trust::Anybody),
            // As in libpq: who names an authority wants it to be asked.
            ("require", None) => (SslMode::Demand, Trust::Anybody),
            ("require" | "verify-ca", Some(authorities)) => (SslMode::Demand, Trust::Chain(authorities)),
            ("verify-full", Some(authorities)) => (SslMode::Demand, Trust::NameOrCommonName(authorities)),
            (mode @ ("verify-ca" | "verify-full"), None) => {
                return Err(bad(format!("sslmode {mode} needs sslrootcert, the file of the authority")));
            }
            (mode, _) => return Err(bad(format!("sslmode {mode:?} is not known"))),
        };
        let revoked = Revoked {
            file: word("sslcrl").map(PathBuf::from).or_else(|| beside("root.crl")),
            directory: word("sslcrldir").map(PathBuf::from),
        };
        let binding = match word("channel_binding").unwrap_or("prefer") {
            "disable" => Binding::Disable,
            "require" => Binding::Require,
            "prefer" => Binding::Prefer,
            other => return Err(bad(format!("channel_binding {other:?} is not known"))),
        };
        let certfile = word("sslcert").map(PathBuf::from).or_else(|| beside("postgresql.crt"));
        let keyfile = word("sslkey").map(PathBuf::from).or_else(|| beside("postgresql.key"));
        let identity = certfile.map(|certfile| Identity {
            certfile,
            keyfile,
            password: to.sslpassword.as_ref().map(|password| password.reveal().to_owned()),
        });
        Ok(Plan { mode, binding, direct: word("sslnegotiation") == Some("direct"), trust, revoked, identity })
    }

    fn config(&self) -> Result<Arc<ClientConfig>, Failure> {
        let made = tls::client_that_heeds(&self.trust, &self.revoked, self.identity.as_ref());
        let mut config = made.map_err(|error| Failure::Tls(format!("could not {error}")))?;
        if self.direct {
            Arc::make_mut(&mut config).alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(config)
    }
}

/// A file of libpq's own directory, when it is there.
fn beside(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("HOME")?).join(".postgresql").join(name);
    path.is_file().then_some(path)
}

/// Encrypts a fresh connection, or leaves it in the clear where the server cannot and `must` is false.
pub(super) async fn encrypt(
    mut stream: TcpStream,
    to: &ConnectTo,
    plan: &Plan,
    must: bool,
) -> Result<Opened, Failure> {
    if !plan.direct {
        let mut question = BytesMut::new();
        frontend::ssl_request(&mut question);
        stream.write_all(&question).await.map_err(Failure::Lost)?;
        match stream.read_u8().await.map_err(Failure::Lost)? {
            b'S' => {}
            b'N' if must => {
                return Err(Failure::Tls("the server does no TLS, and sslmode demands it".to_owned()));
            }
            b'N' => return Ok(Opened { stream: Box::new(stream), encrypted: false, end_point: None }),
            _ => {
                return Err(Failure::Nonsense(
                    "an answer to SSLRequest that is neither yes nor no".to_owned(),
                ));
            }
        }
    }
    let name = ServerName::try_from(to.host.clone()).map_err(|error| Failure::Tls(error.to_string()))?;
    let connector = TlsConnector::from(plan.config()?);
    let stream = connector.connect(name, stream).await.map_err(|error| Failure::Tls(error.to_string()))?;
    let end_point = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .and_then(|certificate| tls::end_point_hash(certificate));
    Ok(Opened { stream: Box::new(stream), encrypted: true, end_point })
}

#[cfg(test)]
mod tests {
    use super::{Binding, Failure, Plan, SslMode};
    use crate::connection::ConnectTo;
    use tls::{Authorities, Trust};

    fn plan(words: &[(&str, &str)]) -> Result<Plan, String> {
        let words = words.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let to = ConnectTo {
            host: "db".to_owned(),
            port: 5432,
            user: "u".to_owned(),
            password: None,
            dbname: "d".to_owned(),
            application_name: "a".to_owned(),
            tls: words,
            sslpassword: None,
        };
        Plan::of(&to).map_err(|failure| match failure {
            Failure::Tls(what) => what,
            _ => String::new(),
        })
    }

    #[test]
    fn the_words_of_libpq_are_understood() {
        let ca = || Authorities::File("/ca".into());
        for (words, mode, trust) in [
            (&[("sslmode", "disable")][..], SslMode::Disable, Trust::Anybody),
            (&[("sslmode", "allow")], SslMode::Allow, Trust::Anybody),
            (&[("sslrootcert", "/ca")], SslMode::Prefer, Trust::Anybody),
            (&[("sslmode", "require"), ("sslrootcert", "/ca")], SslMode::Demand, Trust::Chain(ca())),
            (&[("sslmode", "verify-ca"), ("sslrootcert", "/ca")], SslMode::Demand, Trust::Chain(ca())),
            (
                &[("sslmode", "verify-full"), ("sslrootcert", "/ca")],
                SslMode::Demand,
                Trust::NameOrCommonName(ca()),
            ),
        ] {
            let plan = plan(words).unwrap();
            assert_eq!((plan.mode, plan.trust, plan.binding), (mode, trust, Binding::Prefer), "{words:?}");
        }
        let system = plan(&[("sslmode", "verify-full"), ("sslrootcert", "system")]).unwrap();
        assert_eq!(system.trust, Trust::NameOrCommonName(Authorities::System));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for words in [&[("sslmode", "sometimes")][..], &[("channel_binding", "maybe")]] {
            assert!(plan(words).is_err(), "{words:?}");
        }
    }
}
