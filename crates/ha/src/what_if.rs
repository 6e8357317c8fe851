//! What would happen if: the same decisions, on an observation that is imagined.
//!
//! ```text
//!   what is seen now ── imagine what the event changes ──► what would be seen ──► decide, turn after turn ──► Foreseen
//! ```
//! Nothing here has an opinion of its own: who would lead, and why another would not, is what [`decide`] answers. What a member
//! cannot know (what the others would say) is what they said when they were asked a moment ago.

mod bound;
mod commits;
mod imagine;
mod ready;

pub use bound::{LossBound, loss_bound};
pub use commits::{Commits, commits};
pub use ready::{Readiness, ready};

use crate::action::Action;
use crate::decision::{Decision, decide};
use crate::duties::{race, step_aside};
use crate::memory::Memory;
use crate::observation::Observation;
use crate::reason::Reason;
use std::time::Duration;
use types::{Moment, NodeName};

/// More turns are not imagined: a race that goes on for so long comes to nothing.
const TURNS: usize = 600;

/// What is imagined, and of whom.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Event {
    pub what: What,
    /// Whom it befalls; to whom the lead goes in a switchover, `None`: to the fittest.
    pub member: Option<NodeName>,
}

/// The kinds of events.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum What {
    /// Its host is gone, at once and for good.
    Dies,
    /// Its host reaches nobody any more, and goes on by itself.
    Unplugged,
    /// Its PostgreSQL ends; its agent lives.
    PostgresCrashes,
    /// The lead is handed over in good order.
    Switchover,
    /// Nobody reaches etcd any more.
    EtcdAway,
}

/// What becomes of one member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Foreseen {
    pub outcome: Outcome,
    /// Counted from the moment when the lead is free, if it ever is; else from now.
    pub after: Duration,
    /// The last decision; missing where nobody is left to decide.
    pub reason: Option<Reason>,
}

/// The kinds of ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// It is gone.
    Gone,
    TakesLead,
    /// It leads now, and goes on.
    KeepsLead,
    /// It hands the lead over, or gives it back.
    HandsOver,
    /// Its PostgreSQL stops accepting writes before its lease ends.
    Ends,
    DoesNotLead,
}

impl Foreseen {
    /// Why, in words; a refusal alone where it is one.
    #[must_use]
    pub fn text(&self) -> String {
        match &self.reason {
            None => "its host is gone".to_owned(),
            Some(Reason::Race(race::Why::Refuses(refusal))) => refusal.to_string(),
            Some(reason) => reason.to_string(),
        }
    }
}

/// What would become of this member. Its peers' answers in `seen` are those that would be given in a race.
#[must_use]
pub fn foresee(seen: &Observation, memory: &Memory, event: &Event, now: Moment) -> Foreseen {
    match imagine::scene(seen, memory, event, now) {
        None => Foreseen { outcome: Outcome::Gone, after: Duration::ZERO, reason: None },
        Some(scene) => play(scene, seen.rules.ttl * 2 + seen.rules.peer_patience()),
    }
}

/// Decides, turn after turn, until it is clear what comes of it. What is waited for is waited for.
fn play(mut scene: imagine::Scene, patience: Duration) -> Foreseen {
    let begun = scene.at;
    let mut last = None;
    for _ in 0..TURNS {
        let decision = decide(&scene.seen, &scene.memory, scene.at);
        let after = scene.at.since(begun);
        let asks = decision.actions.iter().any(|action| matches!(action, Action::AskPeers(_)));
        let races = matches!(decision.reason, Reason::Race(_));
        let outcome = outcome(&scene, &decision);
        if asks {
            scene.seen.peers.asked = Some(scene.at);
        }
        let waits = outcome == Outcome::DoesNotLead && races && after < patience;
        scene.memory = decision.memory;
        scene.seen.finished = None;
        if !asks && !waits {
            return Foreseen { outcome, after, reason: Some(decision.reason) };
        }
        scene.at = if asks { scene.at.after(Duration::from_millis(1)) } else { decision.wake_at };
        last = Some(decision.reason);
    }
    Foreseen { outcome: Outcome::DoesNotLead, after: scene.at.since(begun), reason: last }
}

/// What one decision comes to.
fn outcome(scene: &imagine::Scene, decision: &Decision) -> Outcome {
    let does = |wanted: fn(&Action) -> bool| decision.actions.iter().any(wanted);
    if does(|action| *action == Action::AcquireLeader) {
        return Outcome::TakesLead;
    }
    if let Reason::StepAside(why) = &decision.reason {
        let stays = matches!(
            why,
            step_aside::Why::Refused { .. }
                | step_aside::Why::AsksCandidates
                | step_aside::Why::NamesUs
                | step_aside::Why::NamesAnotherLeader { .. }
                | step_aside::Why::TimeUnreadable
                | step_aside::Why::TooLate { .. }
                | step_aside::Why::InVain
        );
        return if stays { Outcome::KeepsLead } else { Outcome::HandsOver };
    }
    if does(|action| matches!(action, Action::ReleaseLeader(_))) {
        return Outcome::HandsOver;
    }
    let stops = does(|action| matches!(action, Action::Stop(_)));
    if scene.seen.may_be_primary() && (stops || scene.without_word) {
        return Outcome::Ends;
    }
    if scene.seen.leads(scene.at).is_some() { Outcome::KeepsLead } else { Outcome::DoesNotLead }
}
