//! How a command fails: a message for a person and an exit code for a script. Printed once, in `main`.

use crate::exit_codes::Code;
use std::fmt;

/// What is said, alone on its line, when the person leaves a question without an answer.
pub(crate) const ABORTED: &str = "Aborted!";

/// The end of a command that did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit status.
    pub code: Code,
    /// What is printed after `Error: `; empty when everything was said already.
    pub message: String,
}

/// What commands return.
pub(crate) type Outcome = Result<(), Failure>;

impl Failure {
    /// A failure with this exit code.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    /// A refusal, or a failure without a code of its own.
    pub(crate) fn refused(message: impl Into<String>) -> Failure {
        Failure::new(Code::Failed, message)
    }

    /// The person left; nothing was changed.
    pub(crate) fn aborted() -> Failure {
        Failure::refused(ABORTED)
    }

    /// The details are printed already.
    pub(crate) fn said(code: Code) -> Failure {
        Failure::new(code, String::new())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<etcd::Error> for Failure {
    fn from(error: etcd::Error) -> Failure {
        let code = match &error {
            etcd::Error::Unreachable { .. } => Code::EtcdUnreachable,
            etcd::Error::Refused { .. }
            | etcd::Error::Conflict
            | etcd::Error::LeaseGone
            | etcd::Error::Unknown { .. }
            | etcd::Error::Protocol { .. } => Code::Failed,
        };
        Failure::new(code, format!("failed to {error}"))
    }
}
