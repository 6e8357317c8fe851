//! `baton demo`: a whole cluster on this machine, for looking at and for breaking.

use crate::cli::DemoArgs;
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use lab::demo::{Ending, Options};

/// Runs the demo to its end.
pub(crate) async fn run(args: &DemoArgs) -> Outcome {
    let options = Options {
        drive: args.drive,
        directory: args.directory.clone(),
        synchronous: args.synchronous,
        ttl: args.ttl,
    };
    match lab::demo::run(options).await {
        Ok(Ending::Well) => Ok(()),
        Ok(Ending::Lost) => Err(Failure::said(Code::Failed)),
        Err(error) => Err(Failure::refused(format!("failed to {error:#}"))),
    }
}
