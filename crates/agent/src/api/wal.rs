//! `POST /baton/wal`: the agent of a crashed primary hands the WAL over that only it has, before this member takes the lead.
//!
//! Taken only from the holder of the leader key, in its term, by a standby of the same cluster that is on the same timeline and streams
//! from nobody: see `postgres::handover` for what happens to the pieces.

use super::Shared;
use super::body;
use super::query::Query;
use super::reply::{self, Reply};
use crate::jobs::PIECE;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use postgres::control;
use postgres::handover::WalFiles;
use postgres::probe::Facts;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use types::{Lsn, NodeName, Timeline};

const FRESH_WITHIN: Duration = Duration::from_millis(300);
const DISK_WITHIN: Duration = Duration::from_secs(4);

/// What the query says.
struct Offer {
    name: NodeName,
    term: i64,
    system: String,
    timeline: Timeline,
    segment: u64,
    /// Where the piece begins, and where everything ends.
    piece: Option<(Lsn, Lsn)>,
}

impl Offer {
    fn parse(query: &Query) -> Option<Offer> {
        let number = |name: &str| query.get(name)?.parse::<u64>().ok();
        let piece = match (number("from"), number("end")) {
            (Some(from), Some(end)) => Some((Lsn(from), Lsn(end))),
            _ => None,
        };
        Some(Offer {
            name: NodeName::from(query.get("name").filter(|name| !name.is_empty())?),
            term: query.get("term")?.parse().ok()?,
            system: query.get("system")?.to_owned(),
            timeline: Timeline(u32::try_from(number("timeline")?).ok()?),
            segment: number("segment")?,
            piece,
        })
    }
}

/// Takes a piece, or only tells how far this member is.
pub(super) async fn taken(request: Request<Incoming>, shared: &Arc<Shared>) -> Reply {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let Some(offer) = Offer::parse(&query) else {
        return reply::error(StatusCode::BAD_REQUEST, "name, term, system, timeline and segment are needed");
    };
    let bytes = match body::bytes(request, PIECE as usize).await {
        Ok(bytes) => bytes,
        Err(refusal) => return refusal,
    };
    if let Some(why) = foreign(&offer, shared) {
        return reply::text(StatusCode::CONFLICT, why);
    }
    let facts = match standby(&offer, shared).await {
        Ok(facts) => facts,
        Err(refusal) => return *refusal,
    };
    let replayed = facts.replayed_lsn.unwrap_or_default();
    let have = facts.received_lsn.unwrap_or_default().max(replayed);
    let Some((from, end)) = offer.piece else {
        return reply::json(StatusCode::OK, &json!({ "have": have.0, "replayed": replayed.0 }));
    };
    let (data_dir, to) = (shared.local.data_dir().to_owned(), Lsn(from.0.saturating_add(bytes.len() as u64)));
    let write = tokio::task::spawn_blocking(move || {
        let files = WalFiles::of(&data_dir, &control::read(&data_dir)?)?.on(offer.timeline)?;
        if files.segment_size() != offer.segment {
            let why = "take another's WAL: its segments have another size";
            return Err(postgres::Error::Refused(why.to_owned()));
        }
        files.write(from, have, &bytes)?;
        if to < end {
            return Ok(false);
        }
        files.is_whole(replayed, end)
    });
    match tokio::time::timeout(DISK_WITHIN, write).await {
        Ok(Ok(Ok(whole))) => {
            shared.local.was_handed(offer.timeline, to, bytes_of(from, to, have));
            tracing::info!(leader = %offer.name, %from, %to, whole, "took WAL of the crashed primary");
            let have = have.max(to);
            reply::json(StatusCode::OK, &json!({ "have": have.0, "replayed": replayed.0, "whole": whole }))
        }
        Ok(Ok(Err(error))) => {
            tracing::warn!(leader = %offer.name, "failed to {error}");
            reply::text(StatusCode::CONFLICT, format!("failed to {error}"))
        }
        Ok(Err(error)) => reply::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Err(_) => reply::text(StatusCode::INTERNAL_SERVER_ERROR, "the disk does not answer"),
    }
}

/// What was new of a piece.
fn bytes_of(from: Lsn, to: Lsn, have: Lsn) -> u64 {
    to.bytes_since(from.max(have))
}

/// Why this is not the word of our leader about our cluster.
fn foreign(offer: &Offer, shared: &Shared) -> Option<String> {
    let view = shared.view.borrow();
    let live = matches!(view.contact, etcd::Contact::Live { .. });
    let leader = view.snapshot.as_ref().filter(|_| live).and_then(|snapshot| snapshot.leader.clone());
    let leads = |leader: &etcd::Leader| leader.name == offer.name && leader.term.0 == offer.term;
    if offer.name == shared.settings().name || !leader.as_ref().is_some_and(leads) {
        let term = offer.term;
        return Some(format!("as far as this member sees, {} does not lead in term {term}", offer.name));
    }
    match shared.local.data() {
        ha::Data::Present(control) if control.system_id.to_string() == offer.system => None,
        ha::Data::Present(_) | ha::Data::Empty | ha::Data::Incomplete | ha::Data::Unusable => {
            Some("this member has no data of that cluster".to_owned())
        }
    }
}

/// The state of this member as a standby that can take WAL in this way.
async fn standby(offer: &Offer, shared: &Shared) -> Result<Arc<Facts>, Box<Reply>> {
    let not_yet = |why: &str| Box::new(reply::text(StatusCode::SERVICE_UNAVAILABLE, why));
    let seen = shared.local.fresh(FRESH_WITHIN).await;
    let life = shared.local.life();
    let facts = seen.facts.map(|(facts, _)| facts).filter(|_| life.postmaster.is_some());
    let Some(facts) = facts.filter(|_| life.stopping.is_none()) else {
        return Err(not_yet("PostgreSQL does not run here"));
    };
    let conflict = |why: &str| Err(Box::new(reply::text(StatusCode::CONFLICT, why)));
    if !facts.in_recovery {
        return conflict("PostgreSQL is a primary here");
    }
    if facts.timeline != Some(offer.timeline) {
        return conflict("PostgreSQL is on another timeline here");
    }
    if life.upstream != Some(ha::Upstream::Member(offer.name.clone())) {
        return conflict("PostgreSQL follows another one here");
    }
    // What still arrives by the stream comes first; it ends by itself, the primary is gone.
    if facts.receiver.as_ref().is_some_and(|receiver| receiver.status == "streaming") {
        return Err(not_yet("the stream from the primary has not ended here"));
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::Offer;
    use crate::api::query::Query;
    use types::Lsn;

    #[test]
    fn an_offer_is_complete_or_none() {
        let parse = |text: &str| Offer::parse(&Query::parse(text));
        let asks = parse("name=n%201&term=7&system=12&timeline=3&segment=16777216").unwrap();
        assert_eq!((asks.name.as_str(), asks.term, asks.timeline.0), ("n 1", 7, 3));
        assert!(asks.piece.is_none());
        let gives = parse("name=a&term=7&system=12&timeline=3&segment=1&from=5&end=9").unwrap();
        assert_eq!(gives.piece, Some((Lsn(5), Lsn(9))));
        for bad in [
            "",
            "name=a",
            "name=&term=7&system=1&timeline=3&segment=1",
            "name=a&term=x&system=1&timeline=3&segment=1",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
