//! What a caller can do about a failed call.

use std::fmt;
use thiserror::Error;

/// Why a call failed, by what the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// Nothing was changed. Try again later.
    #[error("reach etcd in time ({}); check that a majority of its members is running", attempts(.tried))]
    Unreachable { tried: Vec<Attempt> },
    /// etcd does not want this request: repeating it is useless until something is put right.
    #[error("have a request accepted by etcd: {why}")]
    Refused { why: String },
    /// The compare was lost: somebody else changed the key, or the lead is gone. Read and decide anew.
    #[error("write to etcd: the key was changed by somebody else; read it again")]
    Conflict,
    /// The lease of the write does not exist any more. Grant a new one.
    #[error("write to etcd: the lease has expired; a new one is needed")]
    LeaseGone,
    /// A write whose outcome could not be learnt: it may have happened, or may still happen. Read and decide anew.
    #[error("learn whether etcd has done this: {what} ({why}); read the keys before repeating it")]
    Unknown { what: &'static str, why: String },
    /// An answer that etcd should not give.
    #[error("understand etcd's answer: {why}")]
    Protocol { why: String },
}

/// One endpoint and why it did not serve the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub endpoint: String,
    pub why: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint, self.why)
    }
}

fn attempts(tried: &[Attempt]) -> String {
    if tried.is_empty() {
        return "the deadline passed before the first attempt".to_owned();
    }
    tried.iter().map(Attempt::to_string).collect::<Vec<_>>().join("; ")
}
