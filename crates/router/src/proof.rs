//! That a server takes writes, for a session of which nothing can be seen: TLS that is passed on.
//!
//! ```text
//!   connected to PostgreSQL ──► "does yours take writes?" ──► the leader's agent ── yes ──► relay
//!                                                                 └── no, or nothing ──► the client waits, as with no primary
//! ```
//!
//! The order is the proof. A PostgreSQL that has left recovery never goes back without a restart, and a restart ends its connections. So if one
//! accepts writes at some moment after the connection to it stood, then that connection leads to a server that does, or to nobody any more. Neither
//! clocks nor lifetimes are in it, and what etcd shows, or showed when it was last heard, does not count.

use crate::vouch;
use http::Client;
use tokio::sync::Mutex;
use types::{Moment, Term};

/// The last question of one cluster, and what came of it.
struct Asked {
    at: Moment,
    url: String,
    term: Term,
    answer: Result<(), String>,
}

/// One question at a time for all who wait for it.
#[derive(Default)]
pub(crate) struct Proof {
    last: Mutex<Option<Asked>>,
}

impl Proof {
    /// Whether the PostgreSQL of the agent at `url` takes writes in this term, by a question that was asked after now.
    pub(crate) async fn after_now(&self, client: &Client, url: &str, term: Term) -> Result<(), String> {
        let came = clock::now();
        // Those who come while one asks wait here, and share the next question.
        let mut last = self.last.lock().await;
        if let Some(asked) = &*last
            && asked.at >= came
            && asked.is_about(url, term)
        {
            return asked.answer.clone();
        }
        let at = clock::now();
        let answer = vouch::takes_writes(client, url, term).await;
        *last = Some(Asked { at, url: url.to_owned(), term, answer: answer.clone() });
        answer
    }

    /// The same before a connection is made, where the last question came to nothing: a server whose agent is silent gets no connections that
    /// nobody will use.
    pub(crate) async fn is_to_be_had(&self, client: &Client, url: &str, term: Term) -> Result<(), String> {
        let failed = |asked: &Asked| asked.is_about(url, term) && asked.answer.is_err();
        if !self.last.lock().await.as_ref().is_some_and(failed) {
            return Ok(());
        }
        self.after_now(client, url, term).await
    }
}

impl Asked {
    fn is_about(&self, url: &str, term: Term) -> bool {
        self.url == url && self.term == term
    }
}
