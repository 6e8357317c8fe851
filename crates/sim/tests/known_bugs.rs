//! Every known bug is found again within the number of seeds that is stated for it, and the documentation tells the same.

use sim::{KNOWN_BUGS, Twist, run_seeds};
use std::fs;
use std::path::Path;

const THREADS: usize = 2;
const BLOCK: u64 = 50;

#[test]
fn every_known_bug_is_found_again() {
    let mut missed = Vec::new();
    for entry in KNOWN_BUGS {
        let found = (0..entry.seeds).step_by(BLOCK as usize).any(|from| {
            let count = BLOCK.min(entry.seeds - from);
            let report = run_seeds(from, count, THREADS, entry.bug.into(), BLOCK as usize);
            report.findings.iter().any(|finding| entry.laws.contains(&finding.broken.law))
        });
        if !found {
            missed.push(entry.name);
        }
    }
    assert!(missed.is_empty(), "not found within the stated number of seeds: {missed:?}");
}

#[test]
fn each_has_a_name_of_its_own_and_is_off_by_default() {
    for (no, entry) in KNOWN_BUGS.iter().enumerate() {
        assert!(KNOWN_BUGS[..no].iter().all(|other| other.name != entry.name && other.bug != entry.bug));
        assert_eq!(entry.bug.entry().name, entry.name);
    }
    assert_eq!(Twist::default().bug, None);
}

#[test]
fn the_documentation_tells_of_each() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/simulation.md");
    let page = fs::read_to_string(page).unwrap();
    for entry in KNOWN_BUGS {
        let laws: Vec<String> = entry.laws.iter().map(u8::to_string).collect();
        let row = format!(
            "| `{}` | {} | {} | {} | {} |",
            entry.name,
            entry.seen,
            entry.models,
            laws.join(", "),
            entry.seeds
        );
        assert!(page.contains(&row), "docs/simulation.md lacks the row\n{row}");
    }
}
