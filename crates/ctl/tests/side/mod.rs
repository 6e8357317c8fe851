//! One of the two programs: its namespace in etcd, members that answer it, and what came of a case.

mod clusters;
mod gateway;
mod members;

use clusters::keys;
use gateway::Gateway;
use members::Members;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One thing to compare.
pub(crate) struct Case {
    pub(crate) cluster: &'static str,
    pub(crate) words: &'static str,
    input: &'static str,
}

impl Case {
    pub(crate) fn new((cluster, words, input): (&'static str, &'static str, &'static str)) -> Case {
        Case { cluster, words, input }
    }
}

/// One of the two programs.
pub(crate) struct Side {
    program: PathBuf,
    endpoint: String,
    namespace: String,
    gateway: Gateway,
    members: Members,
}

impl Side {
    pub(crate) fn new(endpoint: &str, program: &Path, number: usize) -> Side {
        Side {
            program: program.to_owned(),
            endpoint: endpoint.trim_start_matches("http://").to_owned(),
            namespace: format!("side{number}"),
            gateway: Gateway::new(endpoint),
            members: Members::start(),
        }
    }

    /// Puts the keys, runs the program, and writes down all that came of it.
    pub(crate) fn run(&self, case: &Case) -> String {
        let prefix = format!("/{}/{}/", self.namespace, case.cluster);
        self.gateway.delete(&prefix);
        let lease = self.gateway.lease();
        for (key, value) in keys(case.cluster, self.members.ports(matches!(case.cluster, "dead" | "down"))) {
            let leased = key == "leader" || key.starts_with("members/");
            self.gateway.put(&format!("{prefix}{key}"), &value, if leased { &lease } else { "0" });
        }
        self.members.begin(case.cluster == "refusing");
        let (status, out, err) = self.execute(case);
        let mut all = format!("status: {status}\n{out}\n--- errors\n{err}--- requests\n");
        for request in self.members.asked() {
            writeln!(all, "{request}").unwrap();
        }
        all.push_str("--- keys\n");
        for (key, value) in self.gateway.all(&prefix) {
            let own = key.replace(&prefix, "");
            if !own.starts_with("members/") {
                writeln!(all, "{own} {}", sorted(&value)).unwrap();
            }
        }
        all
    }

    fn execute(&self, case: &Case) -> (i32, String, String) {
        let url = format!("etcd3://{}/{}", self.endpoint, self.namespace);
        let words = case.words.split(' ').map(|word| if word == "SCOPE" { case.cluster } else { word });
        let mut process = Command::new(&self.program)
            .args(["-d", &url])
            .args(words)
            .env_clear()
            .envs([("HOME", "/nonexistent"), ("LC_ALL", "C.UTF-8"), ("TZ", "UTC"), ("PATH", "/usr/bin:/bin")])
            .env("PGUSER", "postgres")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = case.input.replace("SCOPE", case.cluster);
        // A program that does not read all of it has closed the pipe.
        let _closed = process.stdin.take().unwrap().write_all(input.as_bytes());
        let output = process.wait_with_output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // Warnings of either are its own, and so is a usage; the word about the end is compared.
        let last: String = err
            .lines()
            .filter(|line| line.starts_with("Error: ") || *line == "Aborted!")
            .map(|line| format!("{line}\n"))
            .collect();
        (output.status.code().unwrap(), timeless(&out), last)
    }
}

/// JSON with its keys in order, so that their order in the text does not count.
fn sorted(text: &str) -> String {
    fn tidy(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(map) => {
                let pairs: std::collections::BTreeMap<String, serde_json::Value> =
                    map.into_iter().map(|(key, value)| (key, tidy(value))).collect();
                serde_json::Value::Object(pairs.into_iter().collect())
            }
            other => other,
        }
    }
    match serde_json::from_str(text) {
        Ok(value) => tidy(value).to_string(),
        Err(_) => text.to_owned(),
    }
}

/// Text without the time at which it was printed: `2026-11-23 10:00:00.12345`, and the example of a time in questions.
fn timeless(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("20") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let stamp = from.find(|c: char| !(c.is_ascii_digit() || "-:.T ".contains(c))).unwrap_or(from.len());
        let (stamp, after) = from.split_at(stamp);
        let bytes = stamp.as_bytes();
        let dated = bytes.len() >= 16 && bytes[4] == b'-' && bytes[13] == b':';
        // Times far ahead are part of the case.
        out.push_str(if dated && !stamp.starts_with("2030") && !stamp.starts_with("2026-11-20") {
            "TIME "
        } else {
            stamp
        });
        rest = after;
    }
    out + rest
}
