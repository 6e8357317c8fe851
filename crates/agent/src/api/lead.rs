//! `GET /baton/lead?term=N`: the standing question of a router, answered when the lead of that term ends here, or after a while. So a
//! router knows at once that this member leads no more, also when etcd tells it nothing, and before PostgreSQL can come up for reading.
//!
//! ```text
//!   200   leads in that term still, after a while: ask again
//!   410   led in that term when it was asked, and leads no more; or there is a newer term
//!   503   does not lead in that term, or so many ask already: another answer may come later
//! ```

use super::query::Query;
use super::reply::{self, Reply};
use super::{Shared, health};
use hyper::StatusCode;
use std::time::Duration;
use tokio::time::timeout;
use types::{Moment, Term};

/// So many may ask at once: the other connections are for everybody else.
pub(super) const QUESTIONS: usize = 64;

/// After this time the answer is that nothing has changed.
const WAIT: Duration = Duration::from_secs(20);

/// What follows from more than the lease is looked at so often.
const LOOK: Duration = Duration::from_secs(1);

/// Answers when the lead is over, or after [`WAIT`].
pub(super) async fn lead(query: &str, shared: &Shared) -> Reply {
    let term = Query::parse(query).get("term").and_then(|term| term.parse().ok()).map(Term);
    let Some(term) = term else {
        return reply::text(StatusCode::BAD_REQUEST, "say which: /baton/lead?term=NUMBER");
    };
    let Ok(_place) = shared.questions.try_acquire() else {
        return reply::text(StatusCode::SERVICE_UNAVAILABLE, "too many ask for the lead at once");
    };
    let mut changes = shared.keeper.changes();
    // Who asks late, or was not heard when it began, hears it all the same.
    let snapshot = shared.view.borrow().snapshot.clone();
    let leader = snapshot.as_ref().and_then(|snapshot| snapshot.leader.as_ref());
    if leader.is_some_and(|leader| leader.term > term) {
        return reply::text(StatusCode::GONE, format!("term {term} is over: there is a newer one"));
    }
    if !leads(shared, term) {
        return reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("does not lead in term {term}"));
    }
    let end = clock::now().after(WAIT);
    while leads(shared, term) {
        let now = clock::now();
        if now >= end {
            return reply::text(StatusCode::OK, format!("leads in term {term}"));
        }
        let pause = now.until(deadline(shared).unwrap_or(end).min(end)).clamp(Duration::from_millis(1), LOOK);
        let _either_way_a_look_follows = timeout(pause, changes.changed()).await;
    }
    reply::text(StatusCode::GONE, format!("leads no more in term {term}"))
}

fn leads(shared: &Shared, term: Term) -> bool {
    let another = match shared.keeper.authority() {
        ha::Authority::Held { term: held, .. } => held != term,
        ha::Authority::None => false,
    };
    !another && health::leads(shared)
}

fn deadline(shared: &Shared) -> Option<Moment> {
    match shared.keeper.authority() {
        ha::Authority::Held { deadline, .. } => Some(deadline),
        ha::Authority::None => None,
    }
}
