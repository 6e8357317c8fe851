//! The client.

use crate::basic::Credentials;
use crate::target::Target;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tls::{ClientConfig, ServerName, TlsConnector};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest answer that is read.
const MAX_ANSWER: usize = 8 << 20;

/// Whom to believe, and the certificate to show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    pub trust: tls::Trust,
    pub identity: Option<tls::Identity>,
}

/// Sends requests to members; a cheap clone.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    credentials: Option<Credentials>,
    tls: Tls,
    /// Made at the first request that needs it: who calls nobody over TLS needs no files.
    config: OnceLock<Result<Arc<ClientConfig>, String>>,
}

/// What a member answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    /// An answer without headers.
    #[must_use]
    pub fn new(status: u16, body: &str) -> Reply {
        Reply { status, headers: HeaderMap::new(), body: body.to_owned() }
    }

    /// Whether the status is in the two hundreds.
    #[must_use]
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body, when it is JSON.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.body).ok()
    }

    /// A header, when it is there and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The host says that nobody listens there.
    Refused(String),
    /// Nothing came in time.
    Silence(String),
    /// The request could not be made, or the answer was none.
    Broken(String),
    /// Somebody is there, but the two sides do not believe each other's certificates.
    Untrusted(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Refused(why)
            | Trouble::Silence(why)
            | Trouble::Broken(why)
            | Trouble::Untrusted(why) => f.write_str(why),
        }
    }
}

impl Client {
    /// A client that gives these credentials to every member.
    #[must_use]
    pub fn new(credentials: Option<Credentials>, tls: Tls) -> Client {
        Client { inner: Arc::new(Inner { credentials, tls, config: OnceLock::new() }) }
    }

    /// Sends `method` to `path` of the member whose `api_url` this is; an empty path means that of the URL.
    pub async fn call(
        &self,
        method: Method,
        api_url: &str,
        path: &str,
        body: Option<&Value>,
        within: Duration,
    ) -> Result<Reply, Trouble> {
        let late = || Trouble::Silence(format!("no answer within {} s", within.as_secs_f32()));
        let body = body.map(|body| (Bytes::from(body.to_string()), "application/json"));
        timeout(within, self.exchange(method, api_url, path, body)).await.map_err(|_| late())?
    }

    /// The same with a body of bytes.
    pub async fn send(
        &self,
        method: Method,
        api_url: &str,
        path: &str,
        body: Vec<u8>,
        within: Duration,
    ) -> Result<Reply, Trouble> {
        let late = || Trouble::Silence(format!("no answer within {} s", within.as_secs_f32()));
        let body = Some((Bytes::from(body), "application/octet-stream"));
        timeout(within, self.exchange(method, api_url, path, body)).await.map_err(|_| late())?
    }

    async fn exchange(
        &self,
        method: Method,
        api_url: &str,
        path: &str,
        body: Option<(Bytes, &str)>,
    ) -> Result<Reply, Trouble> {
        let no_url = || Trouble::Broken(format!("{api_url:?} is no URL of a REST API"));
        let target = Target::parse(api_url).ok_or_else(no_url)?;
        let stream = TcpStream::connect((target.connect_host(), target.port)).await.map_err(refused)?;
        let request =
            self.request(method, &target, if path.is_empty() { &target.path } else { path }, body)?;
        if !target.secure {
            return converse(stream, request).await;
        }
        let host = target.connect_host();
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| Trouble::Broken(format!("{host}: {error}")))?;
        let connector = TlsConnector::from(self.config().map_err(Trouble::Untrusted)?);
        let stream = connector.connect(name, stream).await.map_err(|error| untrusted(host, &error))?;
        converse(stream, request).await
    }

    fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let make = || {
            let made = tls::client(&self.inner.tls.trust, self.inner.tls.identity.as_ref());
            made.map_err(|error| format!("failed to {error}"))
        };
        self.inner.config.get_or_init(make).clone()
    }

    fn request(
        &self,
        method: Method,
        target: &Target,
        path: &str,
        body: Option<(Bytes, &str)>,
    ) -> Result<Request<Full<Bytes>>, Trouble> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{}:{}", target.host, target.port))
            .header(header::USER_AGENT, concat!("baton/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close");
        if let Some((_, kind)) = &body {
            request = request.header(header::CONTENT_TYPE, *kind);
        }
        let bytes = body.map(|(bytes, _)| bytes).unwrap_or_default();
        if let Some(credentials) = &self.inner.credentials {
            request = request.header(header::AUTHORIZATION, credentials.header());
        }
        request.body(Full::new(bytes)).map_err(|error| Trouble::Broken(error.to_string()))
    }
}

async fn converse<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Reply, Trouble>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |error: hyper::Error| Trouble::Broken(format!("the connection broke: {error}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let ask = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body =
            body.map_err(|error| Trouble::Broken(format!("the answer is cut off or too long: {error}")))?;
        Ok(Reply { status, headers, body: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
    };
    // The connection is driven beside the request and given up with it.
    let drive = async {
        let _ended = connection.await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        reply = ask => reply,
        never = drive => match never {},
    }
}

fn refused(error: std::io::Error) -> Trouble {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => Trouble::Refused("connection refused".to_owned()),
        std::io::ErrorKind::TimedOut => Trouble::Silence("the connection timed out".to_owned()),
        _ => Trouble::Silence(error.to_string()),
    }
}

fn untrusted(host: &str, error: &std::io::Error) -> Trouble {
    let why = format!("failed to agree on TLS with {host}: {error}");
    match error.kind() {
        std::io::ErrorKind::InvalidData => Trouble::Untrusted(format!(
            "{why}; check cacert, certfile and keyfile of the section ctl, or use insecure"
        )),
        _ => Trouble::Broken(why),
    }
}

#[cfg(test)]
mod tests {
    use super::{Client, Tls, Trouble};
    use crate::Credentials;
    use hyper::Method;
    use serde_json::json;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn client(credentials: Option<Credentials>) -> Client {
        Client::new(credentials, Tls { trust: tls::Trust::Anybody, identity: None })
    }

    /// Answers one connection with `answer` and gives back what was asked.
    async fn serve(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/patroni", listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let count = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..count]).into_owned()
        });
        (url, served)
    }

    #[tokio::test]
    async fn http_1_0_answers_without_a_length_are_read() {
        let client = client(Some(Credentials { username: "u".into(), password: "p".into() }));
        let (url, served) =
            serve("HTTP/1.0 202 Accepted\r\nServer: x\r\nlsn: 17\r\n\r\nreload scheduled").await;
        let body = json!({"a": 1});
        let reply =
            client.call(Method::POST, &url, "/reload", Some(&body), Duration::from_secs(10)).await.unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (202, "reload scheduled"));
        assert_eq!(reply.header("lsn"), Some("17"));
        let asked = served.await.unwrap();
        assert!(asked.starts_with("POST /reload HTTP/1.1\r\n"), "{asked}");
        assert!(asked.to_lowercase().contains("authorization: basic dtpw\r\n"), "{asked}");
        assert!(asked.contains("content-length: 7\r\n") && asked.ends_with("{\"a\":1}"), "{asked}");
    }

    #[tokio::test]
    async fn bytes_are_sent_as_they_are() {
        let (url, served) = serve("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
        let within = Duration::from_secs(10);
        let client = client(None);
        let sent = client.send(Method::POST, &url, "/x?y=1", vec![b'a', 0, b'z'], within);
        assert_eq!(sent.await.unwrap().json(), Some(json!({})));
        let asked = served.await.unwrap();
        assert!(asked.starts_with("POST /x?y=1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("content-length: 3\r\n") && asked.ends_with("a\0z"), "{asked}");
    }

    #[tokio::test]
    async fn a_status_line_alone_is_an_answer() {
        let (url, served) = serve("HTTP/1.0 503 Service Unavailable\r\n\r\n").await;
        let reply = client(None).call(Method::GET, &url, "", None, Duration::from_secs(10)).await.unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (503, ""));
        assert!(served.await.unwrap().starts_with("GET /patroni HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn a_member_that_is_down_and_one_that_is_silent_are_told_apart() {
        let client = client(None);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/patroni", listener.local_addr().unwrap());
        let call = || client.call(Method::GET, &url, "/patroni", None, Duration::from_millis(200));
        assert!(matches!(call().await, Err(Trouble::Silence(_))));
        drop(listener);
        assert!(matches!(call().await, Err(Trouble::Refused(_))));
    }
}
