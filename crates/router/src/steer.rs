//! Follows etcd and keeps the truth: the one task that decides where sessions may be.
//!
//! ```text
//!   etcd watch ─────► follow ───┐
//!   etcd lost ──────► remember ─┼──► Sessions::learn (cuts, then wakes) ──► events
//!   leader's agent ──► Vouch ───┘
//! ```

use crate::error::Error;
use crate::events::Event;
use crate::seen::Seen;
use crate::shared::Shared;
use crate::truth::{Truth, Vouch, follow, remember};
use crate::vouch::{self, Doubt};
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use types::{Moment, Term};

/// How often grace periods are looked at, and the agent is asked at most.
const TICK: Duration = Duration::from_secs(1);

/// A question to the leader's agent: for which term, and when.
struct Question {
    term: Term,
    asked: Moment,
    answer: Pin<Box<dyn Future<Output = Result<(), Doubt>> + Send>>,
}

struct Steering {
    shared: Arc<Shared>,
    /// The last truth that came from etcd itself.
    known: Truth,
    vouch: Vouch,
    question: Option<Question>,
    next_question: Moment,
}

/// Runs until `stop`.
pub(crate) async fn steer(
    shared: Arc<Shared>,
    mut views: watch::Receiver<etcd::View>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut steering = Steering {
        shared,
        known: Truth::closed("etcd has not answered yet"),
        vouch: Vouch::default(),
        question: None,
        next_question: Moment::default(),
    };
    loop {
        let view = views.borrow_and_update().clone();
        steering.turn(&view, clock::now());
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = views.changed() => changed.map_err(|_| Error::WatchEnded)?,
            answer = Steering::answer(&mut steering.question) => steering.answered(answer),
            () = sleep(TICK) => {}
        }
    }
}

impl Steering {
    /// One look at etcd, and what follows from it.
    fn turn(&mut self, view: &etcd::View, now: Moment) {
        let limits = &self.shared.config.truth;
        let lost = match &view.contact {
            etcd::Contact::Live { .. } => None,
            etcd::Contact::Never { since, why } | etcd::Contact::Lost { since, why } => Some((*since, why)),
        };
        if let Some(snapshot) = &view.snapshot
            && (lost.is_none() || snapshot.revision != self.known.revision)
        {
            self.known = follow(&Seen::from(snapshot.as_ref()), &self.known, limits, now);
        }
        if lost.is_some() {
            self.vouch.asked.get_or_insert(now);
        }
        self.note_contact(lost.map(|(_, why)| why.as_str()));
        let truth = match lost {
            None => self.known.clone(),
            Some((_, why)) if !self.known.is_known() => Truth::closed(why),
            Some((since, _)) => remember(&self.known, since, &self.vouch, limits, now),
        };
        self.publish(truth, now);
        if lost.is_none() {
            self.question = None;
            self.vouch = Vouch::default();
        } else if self.question.is_none() && now >= self.next_question {
            self.ask(now);
        }
    }

    fn note_contact(&self, lost: Option<&str>) {
        let was_lost = self.shared.etcd_lost.swap(lost.is_some(), Ordering::Relaxed);
        match lost {
            Some(why) if !was_lost && self.known.is_known() => Event::EtcdLost { why }.log(),
            None if was_lost => Event::EtcdBack.log(),
            Some(_) | None => {}
        }
    }

    fn publish(&self, truth: Truth, now: Moment) {
        let before = self.shared.sessions.truth();
        if *before == truth {
            return;
        }
        let cut = self.shared.sessions.learn(truth.clone(), now);
        let place =
            |truth: &Truth| truth.primary.as_ref().map(|target| (target.host.clone(), target.port)).ok();
        let moved = before.in_force != truth.in_force || place(&before) != place(&truth);
        if moved || cut > 0 {
            self.shared.changes.add(1);
            Event::PrimaryChanged { truth: &truth, cut }.log();
        }
        for (member, verdict) in &truth.members {
            let verdict = verdict.to_string();
            if before.members.get(member).map(ToString::to_string).as_ref() != Some(&verdict) {
                Event::MemberChanged { member, verdict }.log();
            }
        }
    }

    fn ask(&mut self, now: Moment) {
        let Some((term, url)) = self.known.in_force.zip(self.known.leader_api.clone()) else { return };
        self.next_question = now.after(TICK);
        let client = self.shared.config.agents.clone();
        let answer = Box::pin(async move { vouch::ask(&client, &url, term).await });
        self.question = Some(Question { term, asked: now, answer });
    }

    /// The next answer; never, while nothing was asked.
    async fn answer(question: &mut Option<Question>) -> Result<(), Doubt> {
        match question {
            Some(question) => question.answer.as_mut().await,
            None => pending().await,
        }
    }

    fn answered(&mut self, answer: Result<(), Doubt>) {
        let Some(Question { term, asked, .. }) = self.question.take() else { return };
        match answer {
            // Counted from the question: the agent spoke for some moment after it.
            Ok(()) => (self.vouch.yes, self.vouch.why_not) = (Some((term, asked)), None),
            // The last yes still holds for its time: an answer may get lost.
            Err(Doubt::Silent(why)) => self.vouch.why_not = Some(why),
            Err(Doubt::No(why)) => (self.vouch.yes, self.vouch.why_not) = (None, Some(why)),
        }
    }
}
