//! Removing a whole cluster from etcd.

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
