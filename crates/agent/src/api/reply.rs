//! Answers, and what all of them wear: the version of HTTP, the server's name, the date, the headers that were configured.
//!
//! As Patroni answers: HTTP/1.0, one request a connection; texts are `text/html`, errors have a page of HTML, and health checks
//! that want only a status get only a status. What Patroni leaves out, a length, is there: clients need not wait for the end.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, DATE, HeaderName, HeaderValue, SERVER};
use hyper::{Response, StatusCode, Version};
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::Formatter;
use settings::{RestApi, ServerTokens};
use std::io;

pub(super) type Reply = Response<Full<Bytes>>;

pub(super) fn json(status: StatusCode, body: &Value) -> Reply {
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut text, Spaced);
    match body.serialize(&mut writer) {
        Ok(()) => with(status, "application/json", String::from_utf8_lossy(&text).into_owned()),
        // Memory takes every byte, and every value is JSON.
        Err(_) => with(status, "application/json", body.to_string()),
    }
}

/// JSON with a blank after each comma and colon, as Patroni writes it: scripts look for `"role": "primary"`.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// A text, of the type that Patroni gives its texts.
pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Reply {
    with(status, "text/html", body.into())
}

pub(super) fn plain(body: String) -> Reply {
    with(StatusCode::OK, "text/plain", body)
}

/// The status alone.
pub(super) fn bare(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply
}

/// An error, as a page of HTML that says why.
pub(super) fn error(status: StatusCode, why: &str) -> Reply {
    let (code, why) = (status.as_u16(), escape(why));
    let page = format!(
        "<!DOCTYPE HTML>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Error response</title></head>\n\
         <body>\n<h1>Error response</h1>\n<p>Error code: {code}</p>\n<p>Message: {why}.</p>\n</body>\n</html>\n"
    );
    with(status, "text/html;charset=utf-8", page)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn with(status: StatusCode, kind: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// Puts on what every answer wears; a bare status stays bare.
pub(super) fn dress(mut reply: Reply, rest: &RestApi, secure: bool) -> Reply {
    *reply.version_mut() = Version::HTTP_10;
    if !reply.headers().contains_key(CONTENT_TYPE) {
        return reply;
    }
    let headers = reply.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static(server(rest.server_tokens)));
    if let Ok(now) = jiff::Timestamp::try_from(clock::wall())
        && let Ok(date) = HeaderValue::from_str(&now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
    {
        headers.insert(DATE, date);
    }
    let secure = rest.https_extra_headers.iter().filter(|_| secure);
    for (name, value) in rest.http_extra_headers.iter().chain(secure) {
        // Names and values that are no headers were refused when the settings were read.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    reply
}

fn server(tokens: ServerTokens) -> &'static str {
    match tokens {
        ServerTokens::Original => concat!("Baton/", env!("CARGO_PKG_VERSION")),
        // The version whose contract is kept.
        ServerTokens::Minimal => "Patroni/4.1.5",
        ServerTokens::ProductOnly => "Patroni",
    }
}

#[cfg(test)]
mod tests {
    use super::{StatusCode, error, json, server};
    use http_body_util::BodyExt;
    use serde_json::json as value;
    use settings::ServerTokens;

    #[tokio::test]
    async fn json_is_written_with_blanks_and_errors_are_pages() {
        let text = async |reply: super::Reply| {
            let bytes = reply.into_body().collect().await.unwrap().to_bytes();
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        let body =
            json(StatusCode::OK, &value!({"role": "primary", "xlog": {"location": 1}, "a": [1, 2], "e": []}));
        assert_eq!(text(body).await, r#"{"role": "primary", "xlog": {"location": 1}, "a": [1, 2], "e": []}"#);
        let page = text(error(StatusCode::NOT_IMPLEMENTED, "a < b")).await;
        assert!(page.contains("Error code: 501") && page.contains("a &lt; b"), "{page}");
    }

    #[test]
    fn the_server_names_itself_as_it_was_told() {
        assert!(server(ServerTokens::Original).starts_with("Baton/"));
        assert_eq!(server(ServerTokens::ProductOnly), "Patroni");
    }
}
