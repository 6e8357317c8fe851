//! `baton generate-config --sample`: a configuration to begin with.

use super::list::print;
use crate::cli::GenerateConfigArgs;
use crate::failure::{Failure, Outcome};

/// The example of this repository; its tests read it as an agent would.
const SAMPLE: &str = include_str!("../../../../examples/baton.yml");

/// Prints or writes it.
pub(crate) fn run(args: &GenerateConfigArgs) -> Outcome {
    if !args.sample || args.dsn.is_some() {
        return Err(Failure::refused(
            "failed to take the settings of a running PostgreSQL: that is not built yet; begin with --sample and copy them by hand",
        ));
    }
    match &args.file {
        None => {
            print(SAMPLE);
            Ok(())
        }
        Some(file) => std::fs::write(file, SAMPLE)
            .map_err(|error| Failure::refused(format!("failed to write {}: {error}", file.display()))),
    }
}
