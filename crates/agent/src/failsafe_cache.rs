//! The copy of `/failsafe` in the data directory: whom an agent that is started again while etcd is away has to ask.
//!
//! ```text
//!   while it leads:  kept, with its term ──► then written to etcd     a superset of what may stand there, at every moment
//!   after a restart: the guard's term = the term of the copy ──► good until etcd was read
//! ```
//! Only the leader of a term writes `/failsafe`, so what it kept in that term is all there can be.

use postgres::config_files;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use types::{NodeName, Term};

const FILE: &str = "baton.failsafe.json";

/// Keeps `members` for this term; without them nothing is kept: an old copy could name too few.
pub(crate) fn keep(data_dir: &Path, term: Term, members: &BTreeMap<NodeName, String>) -> io::Result<()> {
    let members: BTreeMap<&str, &str> =
        members.iter().map(|(name, url)| (name.as_str(), url.as_str())).collect();
    let text = json!({ "term": term.0, "members": members }).to_string();
    match config_files::keep(data_dir, FILE, text.as_bytes()) {
        Ok(_) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, "failed to keep a copy of /failsafe: an agent that is started again while etcd is away cannot lead on");
            match std::fs::remove_file(data_dir.join(FILE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            }
        }
    }
}

/// What was kept for this term, if it names us.
pub(crate) fn read(data_dir: &Path, term: Term, me: &NodeName) -> Option<BTreeMap<NodeName, String>> {
    let text = std::fs::read_to_string(data_dir.join(FILE)).ok()?;
    let value: Value = serde_json::from_str(&text).ok()?;
    if value.get("term")?.as_i64()? != term.0 {
        return None;
    }
    let members: Option<BTreeMap<NodeName, String>> = value
        .get("members")?
        .as_object()?
        .iter()
        .map(|(name, url)| Some((NodeName::from(name.as_str()), url.as_str()?.to_owned())))
        .collect();
    members.filter(|members| members.contains_key(me))
}

#[cfg(test)]
mod tests {
    use super::{FILE, keep, read};
    use std::collections::BTreeMap;
    use types::{NodeName, Term};

    #[test]
    fn a_copy_counts_in_its_own_term_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (NodeName::from("a"), NodeName::from("b"));
        let url = |name: &NodeName| (name.clone(), format!("http://{}/patroni", name.as_str()));
        let members = BTreeMap::from([url(&a), url(&b)]);
        assert_eq!(read(dir.path(), Term(7), &a), None);
        keep(dir.path(), Term(7), &members).unwrap();
        assert_eq!(read(dir.path(), Term(7), &a), Some(members));
        assert_eq!(read(dir.path(), Term(8), &a), None, "another term");
        assert_eq!(read(dir.path(), Term(7), &NodeName::from("c")), None, "a member that is not listed");
        std::fs::write(dir.path().join(FILE), "{\"term\":7,\"members\":{\"a\":1}}").unwrap();
        assert_eq!(read(dir.path(), Term(7), &a), None, "spoiled");
    }
}
