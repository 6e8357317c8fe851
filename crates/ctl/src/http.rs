//! A small HTTP client for the members' REST APIs: one request a connection, a deadline over all of it, a limit on the
//! answer, basic authentication, TLS where the URL says https.

use crate::tls::Tls;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest answer that is read.
const MAX_ANSWER: usize = 8 << 20;

/// Sends requests to members.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    credentials: Option<settings::Credentials>,
    tls: Tls,
}

/// What a member answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub status: u16,
    pub body: String,
}

impl Reply {
    /// Whether the status is in the two hundreds.
    pub(crate) fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body, when it is JSON.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.body).ok()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The host says that nobody listens there.
    Refused(String),
    /// Nothing came in time.
    Silence(String),
    /// The request could not be made, or the answer was none.
    Broken(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Refused(why) | Trouble::Silence(why) | Trouble::Broken(why) => f.write_str(why),
        }
    }
}

impl Client {
    /// A client that gives these credentials to every member.
    pub(crate) fn new(credentials: Option<settings::Credentials>, tls: Tls) -> Client {
        Client { credentials, tls }
    }

    /// Sends `method` to `path` of the member whose `api_url` this is.
    pub(crate) async fn call(
        &self,
        method: Method,
        api_url: &str,
        path: &str,
        body: Option<&Value>,
        within: Duration,
    ) -> Result<Reply, Trouble> {
        let late = || Trouble::Silence(format!("no answer within {} s", within.as_secs_f32()));
        timeout(within, self.exchange(method, api_url, path, body)).await.map_err(|_| late())?
    }

    async fn exchange(
        &self,
        method: Method,
        api_url: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, Trouble> {
        let target = Target::parse(api_url)?;
        let stream = TcpStream::connect((target.connect_host(), target.port)).await.map_err(refused)?;
        let request = self.request(method, &target, path, body)?;
        if target.secure {
            let stream = self.tls.connect(stream, target.connect_host()).await.map_err(Trouble::Broken)?;
            converse(stream, request).await
        } else {
            converse(stream, request).await
        }
    }

    fn request(
        &self,
        method: Method,
        target: &Target,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, Trouble> {
        let text = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{}:{}", target.host, target.port))
            .header(header::USER_AGENT, concat!("baton/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(credentials) = &self.credentials {
            let pair = format!("{}:{}", credentials.username, credentials.password.reveal());
            request = request.header(header::AUTHORIZATION, format!("Basic {}", base64(pair.as_bytes())));
        }
        request.body(Full::new(Bytes::from(text))).map_err(|error| Trouble::Broken(error.to_string()))
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
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body =
            body.map_err(|error| Trouble::Broken(format!("the answer is cut off or too long: {error}")))?;
        Ok(Reply { status, body: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
    };
    // The connection is driven beside the request and given up with it.
    let drive = async {
        let _ended = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        reply = ask => reply,
        () = drive => Err(Trouble::Broken("the connection ended".to_owned())),
    }
}

fn refused(error: std::io::Error) -> Trouble {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => Trouble::Refused("connection refused".to_owned()),
        std::io::ErrorKind::TimedOut => Trouble::Silence("the connection timed out".to_owned()),
        _ => Trouble::Silence(error.to_string()),
    }
}

/// Where a member's REST API is.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    secure: bool,
    host: String,
    port: u16,
}

impl Target {
    fn parse(api_url: &str) -> Result<Target, Trouble> {
        let fail = || Trouble::Broken(format!("{api_url:?} is no URL of a REST API"));
        let uri: Uri = api_url.parse().map_err(|_| fail())?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => return Err(fail()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(fail)?;
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Target { secure, host: host.to_owned(), port })
    }

    /// The host without the brackets of an IPv6 address.
    fn connect_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit) & 63) as usize;
            let known = digit <= chunk.len();
            out.push(if known { DIGITS.get(index).map_or('=', |byte| char::from(*byte)) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Client, Target, Trouble, base64};
    use crate::tls::Tls;
    use hyper::Method;
    use serde_json::json;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn base64_is_padded() {
        for (text, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("a:b?>", "YTpiPz4=")]
        {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn urls_are_read() {
        let target = Target::parse("https://[::1]:8008/patroni").unwrap();
        assert_eq!((target.secure, target.connect_host(), target.port), (true, "::1", 8008));
        assert_eq!(Target::parse("http://db/patroni").unwrap().port, 80);
        for bad in ["", "db:8008", "ftp://db/", "http://"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
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
        let credentials =
            settings::Credentials { username: "u".into(), password: settings::Secret::new("p") };
        let client = Client::new(Some(credentials), Tls::default());
        let (url, served) = serve("HTTP/1.0 202 Accepted\r\nServer: x\r\n\r\nreload scheduled").await;
        let body = json!({"a": 1});
        let reply =
            client.call(Method::POST, &url, "/reload", Some(&body), Duration::from_secs(10)).await.unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (202, "reload scheduled"));
        let asked = served.await.unwrap();
        assert!(asked.starts_with("POST /reload HTTP/1.1\r\n"), "{asked}");
        assert!(asked.to_lowercase().contains("authorization: basic dtpw\r\n"), "{asked}");
        assert!(asked.contains("content-length: 7\r\n") && asked.ends_with("{\"a\":1}"), "{asked}");
    }

    #[tokio::test]
    async fn a_member_that_is_down_and_one_that_is_silent_are_told_apart() {
        let client = Client::new(None, Tls::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/patroni", listener.local_addr().unwrap());
        let call = || client.call(Method::GET, &url, "/patroni", None, Duration::from_millis(200));
        assert!(matches!(call().await, Err(Trouble::Silence(_))));
        drop(listener);
        assert!(matches!(call().await, Err(Trouble::Refused(_))));
    }
}
