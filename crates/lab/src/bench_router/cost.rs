//! One load through one proxy: its rate, and the CPU of the proxy and of the whole machine for it, from /proc.
//!
//! What the kernel does for a socket in an interrupt is in the machine's figure alone.

use super::{Options, Proxy};
use crate::client::Target;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// One kind of load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    /// `pgbench -S -M prepared` with so many clients.
    Prepared(u32),
    /// `pgbench -S -C`: a connection for each transaction.
    Connect(u32),
    /// One large result.
    CopyOut,
}

/// What a run cost.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Cost {
    /// Transactions, or megabytes, per second.
    pub(crate) rate: f64,
    /// Microseconds for one of them.
    pub(crate) proxy: f64,
    pub(crate) machine: f64,
}

/// Linux counts CPU in hundredths of a second, whatever its own clock.
const TICK_MICROS: f64 = 10_000.0;

impl Load {
    pub(crate) const ALL: [Load; 5] =
        [Load::Prepared(1), Load::Prepared(8), Load::Prepared(64), Load::Connect(8), Load::CopyOut];

    /// By the word for it on the command line.
    #[must_use]
    pub fn called(word: &str) -> Option<Load> {
        match word {
            "connect" => Some(Load::Connect(8)),
            "copy" => Some(Load::CopyOut),
            _ => word.strip_prefix('c')?.parse().ok().map(Load::Prepared),
        }
    }

    pub(crate) fn describe(self) -> String {
        match self {
            Load::Prepared(clients) => format!("`-S -M prepared`, c = {clients}"),
            Load::Connect(clients) => format!("`-S -C`, c = {clients}"),
            Load::CopyOut => "`COPY` out".to_owned(),
        }
    }
}

/// The tables of pgbench.
pub(crate) async fn prepare(bin: &Path, target: &Target) -> Result<()> {
    said(bin, "pgbench", target, &["--initialize", "--quiet", "--scale=10"]).await.map(drop)
}

pub(crate) async fn run(bin: &Path, load: Load, proxy: &Proxy, options: &Options) -> Result<Cost> {
    let before = (of_process(proxy.pid)?, of_machine()?);
    let begun = clock::now();
    let (count, rate) = match load {
        Load::Prepared(clients) => {
            pgbench(bin, proxy, options, clients, &["--select-only", "--protocol=prepared"]).await?
        }
        Load::Connect(clients) => {
            pgbench(bin, proxy, options, clients, &["--select-only", "--connect"]).await?
        }
        Load::CopyOut => {
            let rows = u64::from(options.copy_megabytes) * 1000;
            let sql = format!("COPY (SELECT repeat('x', 999) FROM generate_series(1, {rows})) TO STDOUT");
            let mut psql = program(bin, "psql", &proxy.target);
            psql.args(["--no-psqlrc", "--quiet", "--command", &sql]).stdout(Stdio::null());
            let status = psql.status().await.context("run psql")?;
            if !status.success() {
                bail!("copy out: psql ended with {status}");
            }
            let seconds = clock::now().since(begun).as_secs_f64();
            let megabytes = f64::from(options.copy_megabytes);
            (megabytes, megabytes / seconds)
        }
    };
    let spent = |ticks: u64| ticks as f64 * TICK_MICROS / count.max(1.0);
    let after = (of_process(proxy.pid)?, of_machine()?);
    Ok(Cost { rate, proxy: spent(after.0 - before.0), machine: spent(after.1 - before.1) })
}

async fn pgbench(
    bin: &Path,
    proxy: &Proxy,
    options: &Options,
    clients: u32,
    more: &[&str],
) -> Result<(f64, f64)> {
    let (clients, seconds) = (format!("--client={clients}"), format!("--time={}", options.seconds));
    // One thread for the clients, so that they do not take both cores of a small machine.
    let words = [&["--no-vacuum", "--jobs=1", &clients, &seconds], more].concat();
    let text = said(bin, "pgbench", &proxy.target, &words).await?;
    figures(&text).with_context(|| format!("read the answer of pgbench: {text}"))
}

/// The number of transactions and their rate.
pub(crate) fn figures(text: &str) -> Option<(f64, f64)> {
    let after = |head: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(head))?;
        rest.split([' ', '/']).next()?.parse::<f64>().ok()
    };
    Some((after("number of transactions actually processed: ")?, after("tps = ")?))
}

/// A client program; its password is in its environment.
pub(crate) fn program(bin: &Path, name: &str, target: &Target) -> Command {
    let mut command = Command::new(bin.join(name));
    let port = target.port.to_string();
    command.args(["--host", &target.host, "--port", &port, "--username", &target.user]);
    command
        .env("PGPASSWORD", &target.password)
        .env("PGDATABASE", &target.database)
        .env("PGSSLMODE", "disable");
    command.current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What the program says on its standard output, if it ends well.
async fn said(bin: &Path, name: &str, target: &Target, words: &[&str]) -> Result<String> {
    let output =
        program(bin, name, target).args(words).output().await.with_context(|| format!("run {name}"))?;
    if !output.status.success() {
        bail!("run {name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Ticks that a process has spent, with those of threads that have ended.
fn of_process(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    ticks_of_process(&stat).with_context(|| format!("understand {path}"))
}

fn ticks_of_process(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn of_machine() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    ticks_of_machine(&stat).context("understand /proc/stat")
}

/// Everything but idling and waiting; what guests use is in user time already.
fn ticks_of_machine(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let numbers: Vec<u64> = line.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    let [user, nice, system, _, _, irq, softirq, ..] = numbers[..] else { return None };
    Some(user + nice + system + irq + softirq)
}

#[cfg(test)]
mod tests {
    use super::{figures, ticks_of_machine, ticks_of_process};

    #[test]
    fn the_answer_of_pgbench_is_read() {
        let text = "transaction type: <builtin: select only>\nnumber of transactions actually processed: 4711\n\
                    number of failed transactions: 0 (0.000%)\ntps = 588.25 (without initial connection time)\n";
        assert_eq!(figures(text), Some((4711.0, 588.25)));
        assert_eq!(
            figures("number of transactions actually processed: 10/100\ntps = 2.5 (x)\n"),
            Some((10.0, 2.5))
        );
        assert_eq!(figures("connection failed"), None);
    }

    #[test]
    fn cpu_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4 1 0 0 0 30 12 0 0 20 0 9 0 1 2";
        assert_eq!(ticks_of_process(stat), Some(42));
        assert_eq!(ticks_of_machine("cpu  1 2 4 1000 500 8 16 32 0 0\ncpu0 1\n"), Some(31));
    }
}
