//! A restored database beside the cluster: made by `baton restore`, started on a socket of its own, read, ended, removed.

use super::writer::Row;
use super::{By, Outcome, Point};
use crate::client::Target;
use crate::lab::Lab;
use crate::processes;
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::Signal;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SPAN: Duration = Duration::from_secs(60);
/// More differences are not told.
const MOST_TOLD: usize = 5;

pub(super) async fn restored(lab: &Lab, dir: &Path, point: &Point, log: &[Row]) -> Result<Outcome> {
    let into = dir.join("restored");
    let began = clock::now();
    restore(lab, dir, &into, point)?;
    let took = clock::now().since(began);
    let found = read(lab, dir, &into).await?;
    std::fs::remove_dir_all(&into).with_context(|| format!("remove {}", into.display()))?;
    let wanted = log.get(..point.rows).ok_or_else(|| anyhow!("the log is shorter than it was"))?;
    let differs = compare(&found, wanted);
    Ok(Outcome { title: point.title.clone(), by: point.by, rows: point.rows, took, differs })
}

fn restore(lab: &Lab, dir: &Path, into: &Path, point: &Point) -> Result<()> {
    let node = lab.nodes.first().ok_or_else(|| anyhow!("a lab without nodes"))?;
    let mut command = Command::new(node.dir().join("bin/baton"));
    command.arg("restore").arg(node.config()).arg("--to").arg(into).args(target(point)).arg("--force");
    command.env("TMPDIR", dir).current_dir(dir);
    lab.account().apply(&mut command);
    let done = command.output().context("run baton restore")?;
    if !done.status.success() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        bail!("restore {:?}: {}{}", target(point), text(&done.stdout), text(&done.stderr));
    }
    Ok(())
}

/// The options that name the point. Positions are those of the record after the row, so that one is left out.
fn target(point: &Point) -> Vec<String> {
    let at = &point.at;
    let words = match point.by {
        By::Lsn => vec!["--lsn", &at.lsn, "--exclusive"],
        By::Time => vec!["--time", &at.at],
        By::Xid => vec!["--xid", &at.xid, "--set", &point.backup],
        By::Name => vec!["--name", &point.name, "--set", &point.backup],
        By::Timeline => {
            let mut words = vec!["--lsn".to_owned(), at.lsn.clone(), "--exclusive".to_owned()];
            words.extend(["--timeline".to_owned(), at.timeline.to_string()]);
            return words;
        }
    };
    words.into_iter().map(str::to_owned).collect()
}

/// Its rows, in order.
async fn read(lab: &Lab, dir: &Path, data: &Path) -> Result<Vec<(i64, String)>> {
    let node = lab.nodes.first().ok_or_else(|| anyhow!("a lab without nodes"))?;
    let socket = dir.display().to_string();
    let options = std::fs::read_to_string(node.data_dir().join("postmaster.opts"))
        .context("find PostgreSQL's program")?;
    let program =
        options.split_whitespace().next().ok_or_else(|| anyhow!("an empty postmaster.opts"))?.to_owned();
    let mut command = Command::new(program);
    command.arg("-D").arg(data).current_dir(data).stdin(Stdio::null()).stdout(Stdio::null());
    for (name, value) in [
        ("listen_addresses", ""),
        ("unix_socket_directories", socket.as_str()),
        ("archive_mode", "off"),
        ("logging_collector", "off"),
        ("synchronous_standby_names", ""),
    ] {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    let errors = std::fs::File::create(dir.join("restored.log")).context("write a log")?;
    command.stderr(errors);
    lab.account().apply(&mut command);
    let mut postgres = command.spawn().context("start PostgreSQL")?;
    let target = Target { host: socket, ..lab.own_socket(node) };
    let found = ask(&target, &mut postgres).await;
    processes::signal(postgres.id().cast_signed(), Signal::INT);
    let ended = tokio::task::spawn_blocking(move || postgres.wait()).await.context("wait for PostgreSQL")?;
    ended.context("wait for PostgreSQL")?;
    found
}

async fn ask(target: &Target, postgres: &mut Child) -> Result<Vec<(i64, String)>> {
    let end = clock::now().after(SPAN);
    let client = loop {
        if let Some(status) = postgres.try_wait()? {
            bail!("start the restored PostgreSQL: it ended with {status}");
        }
        match target.connect(Duration::from_secs(2)).await {
            Ok(client) => break client,
            Err(error) if clock::now() >= end => return Err(error.context("ask the restored PostgreSQL")),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let rows = client.query("SELECT id, word FROM written ORDER BY id", &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// What differs, row by row.
fn compare(found: &[(i64, String)], wanted: &[Row]) -> Vec<String> {
    let mut differs = Vec::new();
    if found.len() != wanted.len() {
        differs.push(format!("{} rows where the log has {}", found.len(), wanted.len()));
    }
    for ((id, word), row) in found.iter().zip(wanted) {
        if (*id, word) != (row.id, &row.word) && differs.len() < MOST_TOLD {
            differs.push(format!("{id} {word:?} where the log has {} {:?}", row.id, row.word));
        }
    }
    differs
}

#[cfg(test)]
mod tests {
    use super::compare;
    use crate::restores::writer::Row;

    #[test]
    fn every_difference_is_seen() {
        let row = |id: i64, word: &str| Row {
            id,
            word: word.to_owned(),
            timeline: 1,
            lsn: String::new(),
            xid: String::new(),
            at: String::new(),
        };
        let wanted = [row(1, "a"), row(2, "b")];
        let found = |rows: &[(i64, &str)]| {
            rows.iter().map(|(id, word)| (*id, (*word).to_owned())).collect::<Vec<_>>()
        };
        assert!(compare(&found(&[(1, "a"), (2, "b")]), &wanted).is_empty());
        for other in [
            &[(1, "a")][..],
            &[(1, "a"), (2, "b"), (3, "c")],
            &[(1, "a"), (2, "x")],
            &[(2, "b"), (1, "a")],
            &[],
        ] {
            assert!(!compare(&found(other), &wanted).is_empty(), "{other:?}");
        }
    }
}
