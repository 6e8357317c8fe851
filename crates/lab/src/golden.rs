//! Golden captures: what a real Patroni answers and writes, state by state, and the same walk with Baton beside it.
//!
//! ```text
//!   walk      one cluster, led through the states that installed tools meet; every answer and key is taken
//!   normal    what differs between two runs of the same program becomes its shape
//!   compare   two captures field by field: names, types, presence, values
//! ```
//! `make golden` takes the captures of Patroni anew, `make golden DO=compare` compares Baton's with those in the repository.

mod compare;
mod normal;
mod walk;

pub use compare::{differences, meant};
pub use walk::capture;

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Where the repository keeps the captures, by the version of Patroni that they are of.
pub const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/patroni-4.1.5");

/// By state, by question (`GET n1 /patroni`, `key members/n1`), the normalised answer.
pub type Capture = BTreeMap<String, BTreeMap<String, Value>>;

/// Writes one file for each state into `dir`.
pub fn write(capture: &Capture, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    for (state, answers) in capture {
        let path = dir.join(format!("{state}.json"));
        let text = serde_json::to_string_pretty(answers).context("write the answers as JSON")?;
        fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Reads them back.
pub fn read(dir: &Path) -> Result<Capture> {
    let mut capture = Capture::new();
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        let Some(state) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let answers = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        capture.insert(state.to_owned(), answers);
    }
    Ok(capture)
}
