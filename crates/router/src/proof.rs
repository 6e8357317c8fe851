//! That a server takes writes, for a session in which that cannot be seen: TLS that is passed on, and PostgreSQL 13, whose greeting does not say
//! whether it is a standby.
//!
//! ```text
//!   connected to PostgreSQL ──► "does yours take writes?" ──► the leader's agent ── yes ──► relay
//!                                                                 └── no, or nothing ──► the client waits, as with no primary
//! ```
//!
//! The order is the proof. A PostgreSQL that has left recovery never goes back without a restart, and a restart ends its connections. So if one
//! accepts writes at some moment after the connection to it stood, then that connection leads to a server that does, or to nobody any more. Neither
//! clocks nor lifetimes are in it, and what etcd shows, or showed when it was last heard, does not count.

use crate::metrics::Count;
use crate::vouch;
use http::Client;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::sleep;
use types::{Moment, Term};

/// Who waits asks again and again: what is older is over.
const NEWS: Duration = Duration::from_secs(10);

/// Since this version a greeting says whether the server is a standby.
const SAYS_IT: u64 = 140_000;

/// The pause before the agent of a new leader is asked for the version, and before it is asked again.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(10);

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
    /// Whose turn it is to ask.
    turn: tokio::sync::Mutex<()>,
    last: Mutex<Option<Asked>>,
    /// Questions that came to nothing.
    pub(crate) in_vain: Count,
    /// The leader's PostgreSQL does not say by itself whether it is a standby.
    mute: AtomicBool,
}

impl Proof {
    /// Whether the PostgreSQL of the agent at `url` takes writes in this term, by a question that was asked after now.
    pub(crate) async fn after_now(&self, client: &Client, url: &str, term: Term) -> Result<(), String> {
        let came = clock::now();
        // Those who come while one asks wait here, and share the next question.
        let _turn = self.turn.lock().await;
        if let Some(asked) =
            self.last().as_ref().filter(|asked| asked.at >= came && asked.is_about(url, term))
        {
            return asked.answer.clone();
        }
        let at = clock::now();
        let answer = vouch::takes_writes(client, url, term).await;
        self.in_vain.add(u64::from(answer.is_err()));
        *self.last() = Some(Asked { at, url: url.to_owned(), term, answer: answer.clone() });
        answer
    }

    /// The same before a connection is made, where the last question came to nothing: a server whose agent is silent gets no connections that
    /// nobody will use.
    pub(crate) async fn is_to_be_had(&self, client: &Client, url: &str, term: Term) -> Result<(), String> {
        let failed = |asked: &Asked| asked.is_about(url, term) && asked.answer.is_err();
        if self.last().as_ref().is_some_and(failed) {
            return self.after_now(client, url, term).await;
        }
        Ok(())
    }

    /// Whether nobody can see what the leader's server is, not even in the clear.
    pub(crate) fn is_mute(&self) -> bool {
        self.mute.load(Ordering::Relaxed)
    }

    /// Asks the agent of a new leader what its server can say, until that is known.
    pub(crate) async fn learn(&self, client: &Client, url: &str) {
        let mut pause = FIRST;
        loop {
            // A member that has just been promoted has better things to do, and what the last leader said is most likely true of this one.
            sleep(pause).await;
            if let Some(version) = vouch::server_version(client, url).await {
                return self.mute.store(version < SAYS_IT, Ordering::Relaxed);
            }
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// Why the last question came to nothing, while that is news.
    pub(crate) fn trouble(&self, now: Moment) -> Option<String> {
        let last = self.last();
        let asked = last.as_ref().filter(|asked| now.since(asked.at) < NEWS)?;
        asked.answer.clone().err()
    }

    fn last(&self) -> MutexGuard<'_, Option<Asked>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    fn is_about(&self, url: &str, term: Term) -> bool {
        self.url == url && self.term == term
    }
}
