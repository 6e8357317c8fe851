//! One job at a time; while it runs, nothing else is begun. The lease is renewed beside the turns all the while.

use crate::action::{Action, Work};
use crate::decision::{Answer, Turn};
use crate::observation::{Job, Order};
use crate::upstream::Upstream;
use std::fmt;
use types::{NodeName, Term};

/// Which job runs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    Bootstrapping,
    Cloning { from: Upstream },
    Rewinding { from: Upstream },
    Checkpointing,
    ArchivingTail,
    HandingTail { to: NodeName },
    LostLeadBeforeTail { term: Term },
    PrePromoting { term: Term },
    LostLeadBeforePromotion { term: Term },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Bootstrapping => f.write_str("a new cluster is being created"),
            Why::Cloning { from: from @ (Upstream::Member(_) | Upstream::Remote) } => {
                write!(f, "the data directory of {from} is being copied")
            }
            Why::Cloning { from: Upstream::Archive } => {
                f.write_str("a data directory is being made from a backup")
            }
            Why::Rewinding { from } => {
                write!(f, "the data directory is being rewound to the history of {from}")
            }
            Why::Checkpointing => {
                f.write_str("a checkpoint is being written, so that the stop that follows is short")
            }
            Why::ArchivingTail => {
                f.write_str("the WAL with the checkpoint of the stop is being given to the archive")
            }
            Why::HandingTail { to } => write!(
                f,
                "the WAL of the crashed primary that only it has is being handed to {to}, which then leads and loses nothing"
            ),
            Why::LostLeadBeforeTail { term } => write!(
                f,
                "the lead of term {term} has ended while the last WAL was handed over, which is ended too"
            ),
            Why::PrePromoting { term } => write!(
                f,
                "this member took the lead in term {term}: pre_promote runs, and must succeed before PostgreSQL is promoted"
            ),
            Why::LostLeadBeforePromotion { term } => write!(
                f,
                "lost leader before promote: the lead of term {term} has ended while pre_promote ran, which is ended too"
            ),
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    let work = match &turn.seen.job {
        Job::Idle => return None,
        Job::Running { work, .. } => work,
    };
    let answer = Answer::because(match work {
        Work::Bootstrap => Why::Bootstrapping,
        Work::Clone(from) => Why::Cloning { from: from.clone() },
        Work::Rewind { from, .. } => Why::Rewinding { from: from.clone() },
        Work::Checkpoint => Why::Checkpointing,
        Work::ArchiveTail => Why::ArchivingTail,
        Work::HandTail { to, term, .. } if turn.leads() == Some(*term) => Why::HandingTail { to: to.clone() },
        Work::HandTail { term, .. } => Why::LostLeadBeforeTail { term: *term },
        Work::PrePromote(term) if turn.leads() == Some(*term) => Why::PrePromoting { term: *term },
        Work::PrePromote(term) => Why::LostLeadBeforePromotion { term: *term },
    });
    let shutdown = turn.seen.order == Some(Order::Shutdown);
    Some(match work {
        Work::PrePromote(term) | Work::HandTail { term, .. } if turn.leads() != Some(*term) => {
            answer.act(Action::CancelJob)
        }
        Work::Bootstrap | Work::Clone(_) | Work::Rewind { .. } | Work::ArchiveTail | Work::PrePromote(_)
            if shutdown =>
        {
            answer.act(Action::CancelJob)
        }
        Work::Bootstrap
        | Work::Clone(_)
        | Work::Rewind { .. }
        | Work::Checkpoint
        | Work::ArchiveTail
        | Work::HandTail { .. }
        | Work::PrePromote(_) => answer,
    })
}
