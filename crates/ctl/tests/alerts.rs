//! The alerts that are shipped: each is whole, asks for metrics that are served, and none is left out that the documents call for.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn alerts() -> String {
    fs::read_to_string(root().join("packaging/alerts.yml")).unwrap()
}

/// The metrics among the words of a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("baton_") || word.starts_with("patroni_"))
        .map(str::to_owned)
        .collect()
}

/// The files of a crate that write metrics.
fn exporters(dir: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &exporters(&path);
        } else if path.ends_with("metrics.rs") {
            text += &fs::read_to_string(&path).unwrap();
        }
    }
    text
}

#[test]
fn every_metric_of_an_alert_is_served() {
    let served = |name: &str| exporters(&root().join("crates").join(name).join("src"));
    let ours = ["agent", "bgp", "dns", "vip"].map(served).concat();
    let routers = served("router");
    let alerts = alerts();
    let asked: BTreeSet<String> =
        alerts.lines().filter(|line| line.trim_start().starts_with("expr: ")).flat_map(metrics).collect();
    assert!(asked.len() > 25, "{asked:?}");
    for name in asked {
        let found = match name.strip_prefix("baton_router_") {
            Some(name) => routers.contains(&format!("\"{name}\"")),
            None => ours.contains(&format!("\"{name}\"")),
        };
        assert!(found, "nobody serves {name}");
    }
}

#[test]
fn every_alert_says_what_happened_and_what_to_do() {
    let alerts = alerts();
    let all: Vec<&str> = alerts.split("- alert: ").skip(1).collect();
    let names: BTreeSet<&str> = all.iter().filter_map(|alert| alert.lines().next()).collect();
    assert_eq!(names.len(), all.len(), "each name once");
    for alert in all {
        for part in ["expr: ", "labels: { severity: ", "summary: \"", "description: \""] {
            assert_eq!(alert.matches(part).count(), 1, "{part} of {alert}");
        }
    }
}

#[test]
fn what_the_documents_say_to_alert_on_is_there() {
    let alerts = metrics(&alerts());
    let mut called = 0;
    for page in ["backup-and-restore.md", "operations.md", "vip.md"] {
        let text = fs::read_to_string(root().join("docs").join(page)).unwrap();
        for row in text.lines().filter(|line| line.starts_with('|') && line.contains("**alert ")) {
            let named = metrics(row);
            called += 1;
            assert!(named.iter().any(|name| alerts.contains(name) || short(&alerts, name)), "{page}: {row}");
        }
    }
    assert!(called > 8, "{called}");
}

/// A row may shorten the later of its names.
fn short(alerts: &BTreeSet<String>, name: &str) -> bool {
    name.rsplit_once('_').is_some_and(|(begin, _)| alerts.iter().any(|alert| alert.starts_with(begin)))
}
