//! `baton check FILE`: read a configuration as the agent or the router would, and say what it means. Starts nothing.

use super::list::print;
use crate::cli::CheckArgs;
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use settings::{Problems, ProcessEnv};

/// Prints every setting with its origin, every warning and every problem.
pub(crate) fn run(args: &CheckArgs) -> Outcome {
    let invalid = |problems: Problems| {
        let count = problems.0.len();
        let plural = if count == 1 { "problem" } else { "problems" };
        Failure::new(Code::Configuration, format!("{count} {plural} in the configuration\n{problems}"))
    };
    if args.router {
        settings::load_router(&args.file, &ProcessEnv).map_err(invalid)?;
    } else {
        let loaded = settings::load(&args.file, &ProcessEnv).map_err(invalid)?;
        for origin in loaded.origins.iter().filter(|_| !args.quiet) {
            print(&format!("{origin}\n"));
        }
        for warning in &loaded.warnings {
            print(&format!("warning: {warning}\n"));
        }
    }
    if !args.quiet {
        print("The configuration is valid.\n");
    }
    Ok(())
}
