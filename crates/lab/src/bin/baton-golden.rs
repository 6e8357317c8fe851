//! `baton-golden capture`: runs a real Patroni through the walk and writes what it answered into the repository.
//! `baton-golden compare`: runs Baton through the same walk and prints where it differs; fails if it does.

#![expect(clippy::print_stdout, reason = "the differences are what it is run for")]

use anyhow::{Context, Result, bail};
use lab::{AgentKind, Binaries, baton_of_this_build, golden};
use std::path::Path;

#[tokio::main]
async fn main() -> Result<()> {
    let kept = Path::new(golden::DIRECTORY);
    let scratch = std::env::temp_dir().join(format!("baton-golden-{}", std::process::id()));
    let binaries = Binaries::find(baton_of_this_build()?)?;
    match std::env::args().nth(1).as_deref() {
        Some("capture") => {
            let capture = golden::capture(scratch, binaries, AgentKind::Patroni).await;
            golden::write(&capture.context("take the captures of Patroni")?, kept)
        }
        Some("compare") => {
            let ours = golden::capture(scratch, binaries, AgentKind::Baton).await;
            let ours = ours.context("lead Baton through the walk")?;
            let found = golden::differences(&golden::read(kept)?, &ours);
            let others: Vec<&String> = found.iter().filter(|line| !golden::meant(line)).collect();
            others.iter().for_each(|line| println!("{line}"));
            if !others.is_empty() {
                bail!("Baton differs from Patroni at {} places", others.len());
            }
            Ok(())
        }
        Some(_) | None => bail!("say what to do: baton-golden capture, or baton-golden compare"),
    }
}
