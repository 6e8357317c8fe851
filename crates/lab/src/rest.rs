//! A small HTTP client for the agents' REST API: one request, one answer, one deadline. The lab must be able to look at
//! an agent's answers byte by byte, so nothing clever lies between.

use crate::netns;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use std::net::SocketAddrV4;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// An answer larger than this is none of ours.
const LIMIT: u64 = 4 << 20;

/// An agent's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// `Content-Type`, if the answer has one.
    pub content_type: Option<String>,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("read the answer {:?}", self.body))
    }
}

/// GET `path`.
pub async fn get(agent: SocketAddrV4, path: &str, within: Duration) -> Result<Answer> {
    raw(agent, "GET", path, None, within).await
}

/// Sends a request with a JSON body.
pub async fn send(
    agent: SocketAddrV4,
    verb: &str,
    path: &str,
    body: &Value,
    within: Duration,
) -> Result<Answer> {
    raw(agent, verb, path, Some(body.to_string()), within).await
}

/// Any request, with a body of any kind or none.
pub async fn raw(
    agent: SocketAddrV4,
    verb: &str,
    path: &str,
    body: Option<String>,
    within: Duration,
) -> Result<Answer> {
    let exchange = async {
        let mut stream = netns::connect(agent).await?;
        let mut text = format!("{verb} {path} HTTP/1.1\r\nHost: {agent}\r\nConnection: close\r\n");
        if let Some(body) = &body {
            text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body.as_deref().unwrap_or_default());
        stream.write_all(text.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LIMIT).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(within, exchange).await;
    let answer = answer.map_err(|_| anyhow!("{verb} http://{agent}{path}: no answer within {within:?}"))?;
    let answer = answer.with_context(|| format!("{verb} http://{agent}{path}"))?;
    parse(&answer).with_context(|| format!("{verb} http://{agent}{path}"))
}

fn parse(answer: &[u8]) -> Result<Answer> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) =
        text.split_once("\r\n\r\n").ok_or_else(|| anyhow!("read the answer: it has no head"))?;
    let content_type = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
    });
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| anyhow!("read the answer: it has no status"))?;
    let chunked = lines.any(|line| {
        let line = line.to_ascii_lowercase();
        line.starts_with("transfer-encoding:") && line.contains("chunked")
    });
    let body = if chunked { unchunk(body)? } else { body.to_owned() };
    Ok(Answer { status, content_type, body })
}

fn unchunk(mut rest: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let Some((size, tail)) = rest.split_once("\r\n") else {
            bail!("read the answer: a chunk has no size")
        };
        let size = usize::from_str_radix(size.trim(), 16).context("read the size of a chunk")?;
        if size == 0 {
            return Ok(body);
        }
        let chunk = tail.get(..size).ok_or_else(|| anyhow!("read the answer: a chunk is cut short"))?;
        body.push_str(chunk);
        rest = tail.get(size + 2..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn answers_are_read_whole_and_in_chunks() {
        let plain = parse(b"HTTP/1.1 503 Service Unavailable\r\nServer: x\r\n\r\n{\"a\":1}").unwrap();
        assert_eq!((plain.status, plain.body.as_str()), (503, "{\"a\":1}"));
        let chunked =
            parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
        assert_eq!(chunked.unwrap().body, "abcde");
        assert!(parse(b"nonsense").is_err());
    }
}
