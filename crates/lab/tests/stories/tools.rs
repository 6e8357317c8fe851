//! The programs of people, run against a lab: the real patronictl and check_patroni, and Baton's own command line.

use crate::story::{SPAN, Story};
use lab::{Node, patroni_bin};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Story {
    /// The real patronictl with a node's own configuration file; it must succeed.
    pub(crate) async fn patronictl(&self, node: &str, words: &[&str]) -> String {
        let program = patroni_bin().unwrap().join("patronictl");
        self.ctl(&program, node, words).await
    }

    /// Baton's command line with a node's own configuration file; it must succeed.
    pub(crate) async fn baton(&self, node: &str, words: &[&str]) -> String {
        let program = self.at(node).dir().join("bin/baton");
        self.ctl(&program, node, words).await
    }

    async fn ctl(&self, program: &Path, node: &str, words: &[&str]) -> String {
        let config = self.at(node).config().display().to_string();
        let all = [&["-c", config.as_str()], words].concat();
        let said = run(program, &all).await;
        assert_eq!(said.code, Some(0), "{} {words:?}: {}{}", program.display(), said.out, said.err);
        said.out
    }

    /// Member and state of each row of `baton list`.
    pub(crate) async fn listed_by_baton(&self, node: &str) -> Vec<(String, String)> {
        let rows: Vec<Value> =
            serde_json::from_str(&self.baton(node, &["list", "-f", "json"]).await).unwrap();
        let cell = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        rows.iter().map(|row| (cell(row, "Member"), cell(row, "State"))).collect()
    }

    /// What both command lines say about the cluster: member, role, state and timeline of each, sorted by member.
    pub(crate) async fn listed_alike(&self, node: &str) -> Vec<(String, String, String, String)> {
        let rows = |text: String| {
            let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
            let cell =
                |row: &Value, name: &str| row[name].as_str().map_or(row[name].to_string(), str::to_owned);
            let row =
                |row: &Value| (cell(row, "Member"), cell(row, "Role"), cell(row, "State"), cell(row, "TL"));
            let mut rows: Vec<_> = rows.iter().map(row).collect();
            rows.sort();
            rows
        };
        let words = ["list", "-f", "json"];
        // The keys move between two looks: both must agree at some moment.
        lab::wait::until(SPAN, "both command lines to say the same", async || {
            let theirs = rows(self.patronictl(node, &words).await);
            let ours = rows(self.baton(node, &words).await);
            if theirs != ours {
                println!("patronictl: {theirs:?}\nbaton:      {ours:?}");
            }
            (theirs == ours).then_some(ours)
        })
        .await
        .unwrap()
    }

    /// The node called `name`.
    pub(crate) fn at(&self, name: &str) -> &Node {
        &self.lab.nodes[self.lab.index(name).unwrap()]
    }
}

/// Runs a program to its end.
pub(crate) async fn run(program: &Path, words: &[&str]) -> Said {
    let mut command = Command::new(program);
    // A person's own settings are not part of a test.
    command
        .args(words)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", "/nowhere");
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}
