//! Why one attempt at one endpoint failed, by what it means for the request: certainly without effect, perhaps with
//! effect, or unwanted by etcd wherever it is sent.

use std::error::Error as StdError;

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) why: String,
    /// etcd itself said so: the connection works.
    pub(crate) answered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request certainly had no effect; another endpoint, or the same one later, may serve it.
    NotServed,
    /// The answer was lost: the request may have had its effect, or may still have it.
    Lost,
    /// The answer comes from an older raft term than one already seen.
    Stale,
    /// The token or user was not accepted: a new connection authenticates again.
    Unauthenticated,
    /// Unwanted wherever it is sent.
    Refused,
    /// The lease named in the request does not exist.
    LeaseGone,
    /// An answer that cannot be understood.
    Protocol,
}

impl Failure {
    pub(crate) fn new(kind: Kind, why: impl Into<String>) -> Failure {
        Failure { kind, why: why.into(), answered: false }
    }

    /// The answer did not come within the attempt's allowance.
    pub(crate) fn timed_out(kind: Kind, what: &str, allowance: std::time::Duration) -> Failure {
        Failure::new(kind, format!("{what} within {} ms", allowance.as_millis()))
    }

    /// Whether the request may have had an effect.
    pub(crate) fn may_have_happened(&self) -> bool {
        matches!(self.kind, Kind::Lost | Kind::Stale)
    }
}

/// The gRPC codes, by their numbers in the protocol.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

impl From<etcd_client::Error> for Failure {
    fn from(error: etcd_client::Error) -> Failure {
        use etcd_client::Error as Client;
        match error {
            Client::GRpcStatus(status) => {
                let number = i32::from(status.code());
                let text = match status.source() {
                    Some(source) => chain(source),
                    None => status.message().to_owned(),
                };
                of_status(number, text, status.source().is_none())
            }
            Client::TransportError(error) => of_transport(chain(&error)),
            Client::IoError(error) => Failure::new(Kind::Lost, error.to_string()),
            // The request went into a stream that had ended: nobody will answer it.
            Client::WatchError(why) | Client::LeaseKeepAliveError(why) => Failure::new(Kind::Lost, why),
            other => Failure::new(Kind::Refused, other.to_string()),
        }
    }
}

fn of_status(number: i32, text: String, no_source: bool) -> Failure {
    let answered = no_source && (text.starts_with("etcdserver:") || text.starts_with("auth:"));
    if !no_source {
        return of_transport(text);
    }
    let kind = match number {
        code::NOT_FOUND if text.contains("lease not found") => Kind::LeaseGone,
        code::UNAUTHENTICATED => Kind::Unauthenticated,
        // A user is demanded since a moment ago, or the users were changed since our token was given.
        code::INVALID_ARGUMENT
            if text.contains("user name is empty") || text.contains("auth store is old") =>
        {
            Kind::Unauthenticated
        }
        // No user is demanded any more since a moment ago, and our token was given before.
        code::FAILED_PRECONDITION if text.contains("authentication is not enabled") => Kind::Unauthenticated,
        code::PERMISSION_DENIED => Kind::Unauthenticated,
        code::RESOURCE_EXHAUSTED if text.contains("database space exceeded") => {
            return Failure {
                kind: Kind::Refused,
                why: format!(
                    "{text}; compact and defragment etcd, then disarm its alarm (etcdctl alarm disarm)"
                ),
                answered: true,
            };
        }
        code::RESOURCE_EXHAUSTED if text.contains("too many requests") => Kind::NotServed,
        code::INVALID_ARGUMENT | code::FAILED_PRECONDITION | code::UNIMPLEMENTED | code::NOT_FOUND => {
            Kind::Refused
        }
        code::OUT_OF_RANGE | code::RESOURCE_EXHAUSTED => Kind::Protocol,
        // `no leader` is said before a request is looked at, because every request of ours demands a leader.
        _ if text == "etcdserver: no leader" => Kind::NotServed,
        _ => Kind::Lost,
    };
    Failure { kind, why: text, answered }
}

/// A connection that could not be made never carried the request; one that broke may have.
fn of_transport(text: String) -> Failure {
    let never_sent = [
        "tcp connect error",
        "dns error",
        "Connection refused",
        "HandshakeFailed",
        "invalid peer certificate",
    ];
    let kind = if never_sent.iter().any(|sign| text.contains(sign)) { Kind::NotServed } else { Kind::Lost };
    Failure::new(kind, text)
}

/// An error with its causes; a cause that repeats its effect's words is left out.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Kind, of_status, of_transport};

    #[test]
    fn what_etcd_says_decides_what_may_have_happened() {
        for (number, text, kind) in [
            (14, "etcdserver: no leader", Kind::NotServed),
            (14, "etcdserver: leader changed", Kind::Lost),
            (14, "etcdserver: request timed out", Kind::Lost),
            (2, "etcdserver: not a primary lessor", Kind::Lost),
            (5, "etcdserver: requested lease not found", Kind::LeaseGone),
            (3, "etcdserver: user name is empty", Kind::Unauthenticated),
            (16, "etcdserver: invalid auth token", Kind::Unauthenticated),
            (7, "etcdserver: permission denied", Kind::Unauthenticated),
            (9, "etcdserver: authentication is not enabled", Kind::Unauthenticated),
            (3, "etcdserver: request is too large", Kind::Refused),
            (8, "etcdserver: mvcc: database space exceeded", Kind::Refused),
            (8, "etcdserver: too many requests", Kind::NotServed),
            (11, "error, decoded message length too large", Kind::Protocol),
        ] {
            assert_eq!(of_status(number, text.to_owned(), true).kind, kind, "{text}");
        }
    }

    #[test]
    fn a_connection_that_was_never_made_carried_nothing() {
        let kind = |text: &str| of_transport(text.to_owned()).kind;
        assert_eq!(
            kind("transport error: tcp connect error: Connection refused (os error 111)"),
            Kind::NotServed
        );
        assert_eq!(kind("transport error: connection reset by peer"), Kind::Lost);
    }
}
