//! A put or a delete of one key.

use crate::commit::{Read, Seen, Verdict, Write};
use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, TxnOp};
use types::{LeaseId, Term};

/// A put or a delete of one key.
pub(super) struct Put {
    pub(super) what: &'static str,
    pub(super) key: String,
    /// `None` deletes.
    pub(super) value: Option<String>,
    pub(super) lease: Option<LeaseId>,
    /// A second key that gets the same value in the same transaction, without a lease.
    pub(super) also: Option<String>,
    /// The leader key and the term that it must have.
    pub(super) leader: Option<(String, Term)>,
    pub(super) expected: Expected,
}

/// What the key must be before.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    /// Last changed at this revision; 0: absent.
    Revision(i64),
    /// Anything; nobody but this caller writes the key.
    Own,
    /// Anything; others write the key too.
    Anything,
}

impl Put {
    /// A put of a key that nobody else writes.
    pub(super) fn own(what: &'static str, key: String, value: String) -> Put {
        Put { what, key, value: Some(value), lease: None, also: None, leader: None, expected: Expected::Own }
    }

    pub(super) fn delete(what: &'static str, key: String, expected: Expected) -> Put {
        Put { what, key, value: None, lease: None, also: None, leader: None, expected }
    }

    /// Whether the key is as this write leaves it, and was not so before the call began.
    fn happened(&self, found: Option<&KeyValue>, base: i64) -> bool {
        match (&self.value, found) {
            (None, None) => true,
            (Some(value), Some(kv)) => {
                kv.value() == value.as_bytes()
                    && kv.lease() == self.lease.map_or(0, |lease| lease.0)
                    && kv.mod_revision() > base
            }
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

impl Write for Put {
    type Outcome = i64;

    fn what(&self) -> &'static str {
        self.what
    }

    fn reads(&self) -> Vec<Read> {
        let leader = self.leader.iter().map(|(key, _)| Read::Key(key.clone()));
        leader.chain([Read::Key(self.key.clone())]).collect()
    }

    fn transaction(&self, base: i64) -> (Vec<Compare>, Vec<TxnOp>) {
        let mut compares = Vec::new();
        if let Some((leader, term)) = &self.leader {
            compares.push(Compare::create_revision(leader.as_str(), CompareOp::Equal, term.0));
        }
        let key = self.key.as_str();
        compares.push(match self.expected {
            Expected::Revision(revision) => Compare::mod_revision(key, CompareOp::Equal, revision),
            Expected::Own | Expected::Anything => {
                Compare::mod_revision(key, CompareOp::Less, base.saturating_add(1))
            }
        });
        let operation = match &self.value {
            Some(value) => {
                let options = self.lease.map(|lease| PutOptions::new().with_lease(lease.0));
                TxnOp::put(key, value.as_str(), options)
            }
            None => TxnOp::delete(key, None),
        };
        let also = self.also.as_deref().zip(self.value.as_deref());
        let also = also.map(|(key, value)| TxnOp::put(key, value, None));
        (compares, [operation].into_iter().chain(also).collect())
    }

    fn executed(&self, revision: i64) -> i64 {
        revision
    }

    fn judge(&self, seen: &Seen, base: i64, lost: bool) -> Verdict<i64> {
        let found = seen.get(&self.key);
        let revision = found.map_or(0, KeyValue::mod_revision);
        if let Expected::Revision(expected) = self.expected {
            // Only a lost answer makes an equal value ours; otherwise somebody else had the same idea.
            return if lost && revision != expected && self.happened(found, expected) {
                Verdict::Done(revision)
            } else if self.deposed(seen) {
                Verdict::Conflict
            } else if revision == expected {
                Verdict::Resend
            } else if lost {
                Verdict::Unknown
            } else {
                Verdict::Conflict
            };
        }
        if self.happened(found, base) {
            return Verdict::Done(revision);
        }
        if self.deposed(seen) {
            return Verdict::Conflict;
        }
        match self.expected {
            _ if revision <= base => Verdict::Resend,
            // It may have been ours, and somebody has answered it already: a second one would be a second order.
            Expected::Anything if lost => Verdict::Unknown,
            Expected::Revision(_) | Expected::Own | Expected::Anything => Verdict::Rebase,
        }
    }
}

impl Put {
    fn deposed(&self, seen: &Seen) -> bool {
        self.leader
            .as_ref()
            .is_some_and(|(leader, term)| seen.get(leader).is_none_or(|kv| kv.create_revision() != term.0))
    }
}
