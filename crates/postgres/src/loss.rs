//! The account of what only one member had: the WAL that it wrote after the history of the others left its own.
//!
//! ```text
//!   fork ─> record ─> record ─> … ─> end        commits, prepared transactions, their numbers and times  (read here)
//!     └──────────── pg_waldump ────────┘        the relations that they touched                          (asked)
//!                                   └─────────> their names, from the primary that is followed now       (asked)
//! ```
//!
//! It is made before anything of the directory is changed, decides nothing, and never fails a rejoin: what could not be
//! read, it says so. It lies as `baton.loss.json` in the directory that is kept.

mod names;
mod relations;
mod transactions;

pub use names::name_relations;

use crate::control::Control;
use crate::data_dir;
use crate::error::Error;
use crate::files;
use crate::installation::Installation;
use crate::rewind::{EndOfWal, Fork};
use crate::wal::Wal;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use types::{Lsn, SystemId, Timeline};

/// The account in a directory that is kept.
pub const ACCOUNT: &str = "baton.loss.json";
/// Says that the account beside it has been told to the cluster.
const TOLD: &str = "baton.loss.told";
/// So many transactions are listed by their numbers; all are counted.
const LISTED: usize = 10_000;
/// So many relations are listed, those with the most records first; all are counted.
const RELATIONS: usize = 100;
/// A longer account is not ours.
const ACCOUNT_LIMIT: u64 = 4 << 20;

/// What only this member had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// When it was made.
    pub at: String,
    pub system_id: String,
    /// The timeline that both shared last, and its last common position.
    pub fork_timeline: u32,
    #[serde(with = "text")]
    pub fork: Lsn,
    /// The timeline on which this member went on, and where its WAL ended.
    pub end_timeline: u32,
    #[serde(with = "text")]
    pub end: Lsn,
    pub bytes: u64,
    pub transactions: Transactions,
    pub relations: Relations,
    /// Where the WAL is kept, or the whole directory: where the account lies.
    #[serde(skip)]
    pub kept: PathBuf,
}

/// The transactions of the tail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transactions {
    /// Those that were committed.
    pub commits: u64,
    /// Those that were prepared, and so promised, and not ended since.
    pub prepared: u64,
    /// When the first and the last of them was committed.
    pub first_commit: Option<String>,
    pub last_commit: Option<String>,
    /// The numbers of the committed ones in their order (`pg_current_xact_id()` without its epoch), of the first 10000.
    pub xids: Vec<u32>,
    pub prepared_xids: Vec<u32>,
    /// Why there may be more than these.
    pub unread: Option<String>,
}

/// What the transactions touched, those that were rolled back included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relations {
    /// Tables, indexes, sequences; those with the most records first.
    pub touched: Vec<Touched>,
    /// So many more are not listed.
    pub more: u64,
    /// Why there may be others.
    pub unread: Option<String>,
}

/// One relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    pub tablespace: u32,
    pub database: u32,
    pub filenode: u32,
    /// `database.schema.name`, as the primary that is followed now calls it.
    pub name: Option<String>,
    /// So many records of the WAL changed it.
    pub records: u64,
}

impl Account {
    /// Nobody committed or prepared anything after the fork, and that is certain.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        let Transactions { commits, prepared, unread, .. } = &self.transactions;
        *commits == 0 && *prepared == 0 && unread.is_none()
    }

    /// Whether both tell of the same transactions: the end may have moved on by a checkpoint.
    fn is_of(&self, other: &Account) -> bool {
        let of = |account: &Account| {
            let Transactions { commits, prepared, .. } = account.transactions;
            (account.system_id.clone(), account.fork_timeline, account.fork, commits, prepared)
        };
        self.transactions.unread.is_none() && of(self) == of(other) && self.end <= other.end
    }

    /// Writes it into `dir`, durably.
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(ACCOUNT);
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::io("write", &path, std::io::Error::other(error)))?;
        files::replace(&path, format!("{text}\n").as_bytes(), 0o600).map(drop)
    }

    /// The account in `dir`, if there is one that can be understood.
    #[must_use]
    pub fn read(dir: &Path) -> Option<Account> {
        let path = dir.join(ACCOUNT);
        let length = std::fs::metadata(&path).ok()?.len();
        let bytes = files::read_if_there(&path).ok()?.filter(|_| length <= ACCOUNT_LIMIT)?;
        let account: Account = serde_json::from_slice(&bytes).ok()?;
        Some(Account { kept: dir.to_owned(), ..account })
    }

    /// The accounts beside `data_dir` that the cluster has not been told of, oldest first, each with its directory.
    pub fn untold(data_dir: &Path) -> Result<Vec<(PathBuf, Account)>, Error> {
        let kept = data_dir::kept(data_dir)?.into_iter().map(|kept| kept.path);
        let untold = kept.filter(|dir| !dir.join(TOLD).exists());
        Ok(untold.filter_map(|dir| Account::read(&dir).map(|account| (dir, account))).collect())
    }

    /// Notes that the cluster has been told of the account in `dir`.
    pub fn told(dir: &Path) -> Result<(), Error> {
        files::replace(&dir.join(TOLD), b"", 0o600).map(drop)
    }
}

impl fmt::Display for Touched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => write!(f, "database {}, filenode {}", self.database, self.filenode),
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Transactions { commits, prepared, first_commit, last_commit, unread, .. } = &self.transactions;
        let (timeline, fork, end, bytes) = (self.fork_timeline, self.fork, self.end, self.bytes);
        let kept = self.kept.display();
        if self.is_nothing() {
            return write!(
                f,
                "nothing lost: the {bytes} bytes after {fork} on timeline {timeline} hold no transaction; they are kept in {kept}"
            );
        }
        write!(f, "{commits} transactions committed")?;
        if *prepared > 0 {
            write!(f, " and {prepared} prepared")?;
        }
        write!(f, " here alone, after {fork} on timeline {timeline}, in {bytes} bytes up to {end}")?;
        if let (Some(first), Some(last)) = (first_commit, last_commit) {
            write!(f, ", from {first} to {last}")?;
        }
        if let Some(why) = unread {
            write!(f, ", and perhaps more ({why})")?;
        }
        for (at, touched) in self.relations.touched.iter().take(5).enumerate() {
            let before = if at == 0 { "; touched: " } else { ", " };
            write!(f, "{before}{touched} ({} records)", touched.records)?;
        }
        let more = self.relations.more + (self.relations.touched.len().saturating_sub(5)) as u64;
        if more > 0 {
            write!(f, " and {more} more")?;
        }
        if let Some(why) = &self.relations.unread {
            write!(f, "; not all that was touched is known ({why})")?;
        }
        write!(f, "; kept in {kept}")
    }
}

/// Reads the tail in `data_dir`: all but the relations.
pub(crate) fn read_tail(
    data_dir: &Path,
    control: &Control,
    major: u32,
    end: &EndOfWal,
    fork: Fork,
) -> Account {
    let now = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
    let wal = Wal {
        dir: data_dir.join("pg_wal"),
        segment_size: control.wal_segment_size,
        history: end.history.clone(),
    };
    Account {
        at: now.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
        system_id: control.system_id.to_string(),
        fork_timeline: fork.timeline.0,
        fork: fork.lsn,
        end_timeline: end.timeline.0,
        end: end.end,
        bytes: end.end.bytes_since(fork.lsn),
        transactions: transactions::read(&wal, fork.lsn, end.end, major),
        relations: Relations::default(),
        kept: data_dir.to_owned(),
    }
}

/// Adds the relations, from the WAL in `wal_dir`.
pub(crate) async fn add_relations(
    account: &mut Account,
    installation: &Installation,
    wal_dir: &Path,
    end: &EndOfWal,
) {
    account.relations = relations::read(installation, wal_dir, &spans(end, account), end.last_record).await;
}

/// The timelines of the tail, each with where it begins and ends.
fn spans(end: &EndOfWal, account: &Account) -> Vec<(Timeline, Lsn, Lsn)> {
    let last = (end.timeline, Lsn(u64::MAX));
    let all = end.history.lines.iter().map(|line| (line.timeline, line.end)).chain([last]);
    let after = all.skip_while(|(timeline, _)| timeline.0 < account.fork_timeline);
    let mut from = account.fork;
    let mut spans = Vec::new();
    for (timeline, to) in after {
        let to = to.min(end.end);
        if from < to {
            spans.push((timeline, from, to));
            from = to;
        }
    }
    spans
}

/// The account of a stopped PostgreSQL against the history of another, when it went on alone. What the directory holds
/// beyond that is not judged: `None` also when there is nothing to compare.
pub async fn account(
    installation: &Installation,
    data_dir: &Path,
    control: &Control,
    (system_id, history): (SystemId, &types::History),
) -> Option<Account> {
    if control.system_id != system_id {
        return None;
    }
    let end = match crate::rewind::end_of_wal(data_dir, control).await {
        Ok(end) => end,
        Err(error) => {
            tracing::warn!("failed to read what only this member has, which is kept all the same: {error}");
            return None;
        }
    };
    let fork = crate::rewind::fork(&end.history, history)?;
    if end.end <= fork.lsn {
        return None;
    }
    let (dir, control, found, major) =
        (data_dir.to_owned(), control.clone(), end.clone(), installation.version.major);
    let read = tokio::task::spawn_blocking(move || read_tail(&dir, &control, major, &found, fork));
    let mut account = read.await.ok()?;
    add_relations(&mut account, installation, &data_dir.join("pg_wal"), &end).await;
    Some(account)
}

/// The account among those kept of `data_dir` that tells of the same transactions.
pub(crate) fn kept_before(data_dir: &Path, account: &Account) -> Result<Option<Account>, Error> {
    let kept = data_dir::kept(data_dir)?.into_iter().filter(|kept| kept.label == data_dir::WAL_TAIL);
    let mut read = kept.filter_map(|kept| Account::read(&kept.path));
    Ok(read.rfind(|old| old.is_of(account)))
}

/// An LSN as people write it.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};
    use types::Lsn;

    pub(super) fn serialize<S: Serializer>(lsn: &Lsn, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(lsn)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Lsn, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, Relations, Touched, Transactions};
    use types::Lsn;

    fn account() -> Account {
        Account {
            at: "2026-11-27T10:00:00.000Z".to_owned(),
            system_id: "7391234567890123456".to_owned(),
            fork_timeline: 1,
            fork: Lsn(0x300_0060),
            end_timeline: 1,
            end: Lsn(0x300_0860),
            bytes: 0x800,
            transactions: Transactions {
                commits: 2,
                xids: vec![745, 746],
                first_commit: Some("2026-11-27T09:59:58.000001Z".to_owned()),
                last_commit: Some("2026-11-27T09:59:59Z".to_owned()),
                ..Transactions::default()
            },
            relations: Relations {
                touched: vec![
                    Touched {
                        tablespace: 1663,
                        database: 5,
                        filenode: 16384,
                        name: Some("app.public.orders".to_owned()),
                        records: 2,
                    },
                    Touched { tablespace: 1663, database: 5, filenode: 9, name: None, records: 1 },
                ],
                ..Relations::default()
            },
            kept: "/data.kept-x-wal".into(),
        }
    }

    #[test]
    fn it_goes_both_ways_and_reads_as_prose() {
        let account = account();
        let text = serde_json::to_string(&account).unwrap();
        assert!(text.contains(r#""fork":"0/3000060""#), "{text}");
        let read = Account { kept: account.kept.clone(), ..serde_json::from_str(&text).unwrap() };
        assert_eq!(read, account);
        assert_eq!(
            account.to_string(),
            "2 transactions committed here alone, after 0/3000060 on timeline 1, in 2048 bytes up to 0/3000860, \
             from 2026-11-27T09:59:58.000001Z to 2026-11-27T09:59:59Z; touched: app.public.orders (2 records), \
             database 5, filenode 9 (1 records); kept in /data.kept-x-wal"
        );
        let nothing = Account { transactions: Transactions::default(), ..account };
        assert!(nothing.to_string().starts_with("nothing lost: "), "{nothing}");
        let unread =
            Transactions { unread: Some("the segment is gone".to_owned()), ..Transactions::default() };
        let unsure = Account { transactions: unread, ..nothing };
        assert!(!unsure.is_nothing() && unsure.to_string().contains("perhaps more (the segment is gone)"));
    }

    #[test]
    fn a_later_checkpoint_does_not_make_it_another() {
        let first = account();
        let later = Account { end: Lsn(0x300_0900), bytes: 0x8A0, ..account() };
        assert!(first.is_of(&later) && !later.is_of(&first));
        let more = Transactions { commits: 3, ..Transactions::default() };
        assert!(!first.is_of(&Account { transactions: more, ..later }));
    }
}
