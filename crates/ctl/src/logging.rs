//! The log of the agent and the router: one line an event, on standard error or in `log.dir`.
//!
//!     2026-11-23 10:00:00,123 INFO: pg-1 holds the lead term=17       the level begins at column 24, as log readers expect

use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use jiff::tz::TimeZone;
use settings::Log;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// Opens the log and directs every event of this process to it.
pub(crate) fn start(log: &Log) -> Outcome {
    let sink = match &log.dir {
        None => Sink::Stderr,
        Some(dir) => Sink::File(Arc::new(Mutex::new(Rotating::open(dir, log.file_size, log.file_num)?))),
    };
    let filter = EnvFilter::try_new(filter(log)).map_err(|error| {
        Failure::new(
            Code::Configuration,
            format!("failed to read log.level: {error}; use DEBUG, INFO, WARNING or ERROR"),
        )
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(sink).with_ansi(false);
    let started = if log.json { builder.json().try_init() } else { builder.event_format(Line).try_init() };
    started.map_err(|error| Failure::refused(format!("failed to open the log: {error}")))
}

/// Our own crates at the level that was asked for; the libraries speak only when something is wrong.
fn filter(log: &Log) -> String {
    let level = match log.level.to_ascii_uppercase().as_str() {
        "DEBUG" => "debug",
        "WARNING" | "WARN" => "warn",
        "ERROR" | "CRITICAL" | "FATAL" => "error",
        _ => "info",
    };
    let ours = ["baton", "agent", "router", "etcd", "postgres", "settings", "ha"];
    let ours = ours.map(|name| format!("{name}={level}"));
    format!("error,etcd_client=error,{}", ours.join(","))
}

/// Writes the last line of a process that ends because of a failure.
pub(crate) fn critical(message: &str) {
    tracing::error!(target: CRITICAL, "{message}");
}

/// Events of this target are shown with the level CRITICAL, which tracing has not.
const CRITICAL: &str = "baton::critical";

/// The format of a line.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let level = match (metadata.target(), *metadata.level()) {
            (CRITICAL, _) => "CRITICAL",
            (_, Level::ERROR) => "ERROR",
            (_, Level::WARN) => "WARNING",
            (_, Level::INFO) => "INFO",
            (_, _) => "DEBUG",
        };
        write!(out, "{} {level}: ", timestamp())?;
        context.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

fn timestamp() -> String {
    let now = jiff::Timestamp::try_from(clock::wall()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    now.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S,%3f").to_string()
}

/// Where lines go.
#[derive(Clone)]
enum Sink {
    Stderr,
    File(Arc<Mutex<Rotating>>),
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Sink;

    fn make_writer(&'a self) -> Sink {
        self.clone()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Stderr => io::stderr().lock().write(bytes),
            Sink::File(file) => file.lock().unwrap_or_else(PoisonError::into_inner).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `patroni.log` and its `patroni.log.1` … predecessors.
struct Rotating {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
    keep: u32,
}

impl Rotating {
    fn open(dir: &Path, limit: u64, keep: u32) -> Result<Rotating, Failure> {
        let path = dir.join("patroni.log");
        let fail = |error: io::Error| {
            Failure::new(
                Code::Configuration,
                format!("failed to open {}: {error}; correct log.dir or its owner", path.display()),
            )
        };
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(fail)?;
        let written = file.metadata().map_err(fail)?.len();
        Ok(Rotating { path, file, written, limit: limit.max(1), keep })
    }

    fn turn(&mut self) -> io::Result<()> {
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        for number in (1..self.keep).rev() {
            if numbered(number).exists() {
                std::fs::rename(numbered(number), numbered(number + 1))?;
            }
        }
        if self.keep > 0 {
            std::fs::rename(&self.path, numbered(1))?;
        }
        self.file = OpenOptions::new().create(true).write(true).truncate(true).open(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

impl Write for Rotating {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written > 0 && self.written + bytes.len() as u64 > self.limit {
            self.turn()?;
        }
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::{Rotating, timestamp};
    use std::io::Write;

    #[test]
    fn the_level_begins_at_column_24() {
        assert_eq!(format!("{} ", timestamp()).len(), 24);
    }

    #[test]
    fn files_are_turned_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Rotating::open(dir.path(), 10, 2).unwrap();
        for line in ["first\n", "second\n", "third\n", "fourth\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("patroni.log"), "fourth\n");
        assert_eq!(read("patroni.log.1"), "third\n");
        assert_eq!(read("patroni.log.2"), "second\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
