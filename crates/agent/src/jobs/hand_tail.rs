//! The last WAL of our crashed primary goes to the standby that takes over, before the lead does.
//!
//! ```text
//!   ask how far it is ─► find where our WAL ends ─► flush ─► piece after piece ─► it says that it has everything
//! ```
//! Nothing here can make things worse: what is sent is WAL that our primary wrote and finds again should it be started here after all.

use super::Tools;
use anyhow::{Context, bail};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use postgres::control;
use postgres::handover::WalFiles;
use serde_json::Value;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use types::{Lsn, NodeName, Term};

/// So much is in memory, and in one request, at a time.
pub(crate) const PIECE: u64 = 2 << 20;
const PAGE: u64 = 8192;
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// What the primary sent before it died has arrived by then.
const STREAM_ENDS_WITHIN: Duration = Duration::from_secs(3);
/// A standby that still ends its stream is asked again after this rest.
const AGAIN: Duration = Duration::from_millis(30);

/// How far the standby says that it is.
struct Place {
    have: Lsn,
    replayed: Lsn,
    whole: bool,
}

/// Hands it over; how many bytes that were.
pub(super) async fn run(
    tools: &Tools,
    to: &NodeName,
    term: Term,
    within: Duration,
    token: &CancellationToken,
) -> anyhow::Result<u64> {
    let handed = tokio::time::timeout(within, hand(tools, to, term));
    tokio::select! {
        () = token.cancelled() => bail!("hand the last WAL to {to}: the lead has ended meanwhile"),
        handed = handed => handed.with_context(|| format!("hand the last WAL to {to} within {within:?}"))?,
    }
}

async fn hand(tools: &Tools, to: &NodeName, term: Term) -> anyhow::Result<u64> {
    let data_dir = tools.local.data_dir().to_owned();
    let (files, system) = blocking(move || {
        let control = control::read(&data_dir)?;
        Ok((WalFiles::of(&data_dir, &control)?, control.system_id))
    })
    .await?;
    let me = utf8_percent_encode(tools.settings.name.as_str(), NON_ALPHANUMERIC);
    let (timeline, size) = (files.timeline().0, files.segment_size());
    let whom =
        format!("/baton/wal?name={me}&term={}&system={system}&timeline={timeline}&segment={size}", term.0);
    let began = clock::now();
    let place = loop {
        match call(tools, &whom, Vec::new()).await? {
            Some(place) => break place,
            None if clock::now().since(began) < STREAM_ENDS_WITHIN => tokio::time::sleep(AGAIN).await,
            None => bail!(
                "ask its agent how far it is: its stream from here does not end, or PostgreSQL does not run there"
            ),
        }
    };
    let ours = files.clone();
    let end = blocking(move || ours.end(place.replayed)).await?;
    tracing::info!(%to, %end, has = %place.have, "the last WAL is compared with what the next leader has");
    if place.have >= end {
        return Ok(0);
    }
    // From the page on which it ends there: what both have must be the same.
    let from = Lsn(place.have.0.saturating_sub(1) / PAGE * PAGE);
    let ours = files.clone();
    blocking(move || ours.flush(from, end)).await?;
    let mut at = from;
    let mut whole = false;
    while at < end {
        let ours = files.clone();
        let piece = blocking(move || ours.read(at, end, PIECE)).await?;
        let next = Lsn(at.0 + piece.len() as u64);
        let path = format!("{whom}&from={}&end={}", at.0, end.0);
        let place =
            call(tools, &path, piece).await?.context("hand a piece over: its stream has begun again")?;
        (at, whole) = (next, place.whole);
    }
    anyhow::ensure!(whole, "hand the last WAL over: it says that it cannot read all of it");
    Ok(end.bytes_since(place.have))
}

/// Sends a piece, or asks with an empty one. `None`: not now, but soon.
async fn call(tools: &Tools, path: &str, piece: Vec<u8>) -> anyhow::Result<Option<Place>> {
    let (client, url) = tools.peer.as_ref().context("find its REST API in its member key")?;
    let reply = client.send(Method::POST, url, path, piece, ANSWER_WITHIN).await;
    let reply = reply.map_err(|trouble| anyhow::anyhow!("ask its agent: {trouble}"))?;
    match reply.status {
        200 => {}
        503 => return Ok(None),
        status => bail!("ask its agent: it answers {status}: {}", reply.body),
    }
    let body = reply.json().context("read the answer of its agent: it is no JSON")?;
    let lsn = |name: &str| body.get(name).and_then(Value::as_u64).map(Lsn);
    Ok(Some(Place {
        have: lsn("have").context("read the answer of its agent: it does not say what it has")?,
        replayed: lsn("replayed").unwrap_or_default(),
        whole: body.get("whole").and_then(Value::as_bool).unwrap_or(false),
    }))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, postgres::Error> + Send + 'static,
) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await??)
}
