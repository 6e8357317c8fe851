//! Removing a whole cluster from etcd, or only its past.

use crate::Etcd;
use crate::commit::{Read, Seen, Verdict, Write};
use crate::error::Error;
use etcd_client::{Compare, CompareOp, DeleteOptions, TxnOp};
use types::Moment;

impl Etcd {
    /// Deletes everything under the cluster's prefix.
    pub async fn remove_cluster(&self, by: Moment) -> Result<(), Error> {
        self.commit(&Remove { prefix: self.keys().prefix().to_owned() }, by).await
    }
}

impl Etcd {
    /// Deletes what is remembered of a cluster whose data were replaced by older ones: everything but the dynamic configuration.
    /// [`Error::Conflict`] when a member is there.
    pub async fn forget_past(&self, by: Moment) -> Result<(), Error> {
        let keys = self.keys();
        let forget = Forget {
            prefix: keys.prefix().to_owned(),
            config: keys.config(),
            leader: keys.leader(),
            members: keys.members(),
        };
        self.commit(&forget, by).await
    }
}

struct Forget {
    prefix: String,
    config: String,
    leader: String,
    members: String,
}

impl Write for Forget {
    type Outcome = ();

    fn what(&self) -> &'static str {
        "forget what the cluster was"
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::Prefix(self.prefix.clone())]
    }

    fn transaction(&self, base: i64) -> (Vec<Compare>, Vec<TxnOp>) {
        let unchanged = Compare::mod_revision(self.prefix.as_str(), CompareOp::Less, base.saturating_add(1))
            .with_prefix();
        let before = DeleteOptions::new().with_range(self.config.as_str());
        let after = format!("{}\0", self.config);
        // The prefix ends with a slash, which a zero follows.
        let end = format!("{}0", self.prefix.trim_end_matches('/'));
        let rest = DeleteOptions::new().with_range(end);
        // Whoever came in between keeps what he wrote.
        let nobody_leads = Compare::create_revision(self.leader.as_str(), CompareOp::Equal, 0);
        let nobody_is_there =
            Compare::create_revision(self.members.as_str(), CompareOp::Less, 1).with_prefix();
        (
            vec![unchanged, nobody_leads, nobody_is_there],
            vec![TxnOp::delete(self.prefix.as_str(), Some(before)), TxnOp::delete(after, Some(rest))],
        )
    }

    fn executed(&self, _revision: i64) {}

    fn judge(&self, seen: &Seen, base: i64, _lost: bool) -> Verdict<()> {
        let lives = |key: &[u8]| key == self.leader.as_bytes() || key.starts_with(self.members.as_bytes());
        if seen.kvs.iter().any(|kv| lives(kv.key())) {
            Verdict::Conflict
        } else if seen.kvs.iter().all(|kv| kv.key() == self.config.as_bytes()) {
            Verdict::Done(())
        } else if seen.kvs.iter().all(|kv| kv.mod_revision() <= base) {
            Verdict::Resend
        } else {
            Verdict::Rebase
        }
    }
}

struct Remove {
    prefix: String,
}

impl Write for Remove {
    type Outcome = ();

    fn what(&self) -> &'static str {
        "remove the cluster"
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::Prefix(self.prefix.clone())]
    }

    fn transaction(&self, base: i64) -> (Vec<Compare>, Vec<TxnOp>) {
        let unchanged = Compare::mod_revision(self.prefix.as_str(), CompareOp::Less, base.saturating_add(1))
            .with_prefix();
        let options = DeleteOptions::new().with_prefix();
        (vec![unchanged], vec![TxnOp::delete(self.prefix.as_str(), Some(options))])
    }

    fn executed(&self, _revision: i64) {}

    fn judge(&self, seen: &Seen, base: i64, lost: bool) -> Verdict<()> {
        if seen.kvs.is_empty() {
            Verdict::Done(())
        } else if seen.kvs.iter().all(|kv| kv.mod_revision() <= base) {
            Verdict::Resend
        } else if lost {
            // Removed and begun anew, or never removed: deleting what is there now could be too much.
            Verdict::Unknown
        } else {
            Verdict::Rebase
        }
    }
}
