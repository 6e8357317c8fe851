//! The binary `baton`: agent, router and command line in one.
//!
//!     argv ──▶ invoked (which name?) ──▶ cli (grammar) ──▶ commands/* ──▶ failure ──▶ exit_codes
//!
//! `guard` runs before everything else: it must have no other thread and no runtime.

mod ask;
mod backups;
mod cli;
mod commands;
mod context;
mod dcs_url;
mod exit_codes;
mod failure;
mod forecast;
mod invoked;
mod libpq;
mod logging;
mod progress;
mod python_json;
mod render;
mod rest;
mod restore;
mod snapshot;
mod sql;
mod table;
mod timelines;
mod view;
mod yaml;
mod yaml_text;

use clap::Parser;
use cli::{Cli, Command};
use exit_codes::Code;
use failure::Failure;
use invoked::Manner;
use std::process::ExitCode;

fn main() -> ExitCode {
    let given: Vec<_> = std::env::args_os().collect();
    let manner = Manner::of(&given);
    let cli = Cli::parse_from(invoked::arguments(given));
    if let Command::Guard(args) = &cli.command {
        return agent::guard::main(&args.path);
    }
    let code = match commands::run(&cli, manner) {
        Ok(()) => Code::Ok,
        Err(failure) => {
            say(&failure);
            failure.code
        }
    };
    ExitCode::from(manner.status(code))
}

#[expect(clippy::print_stderr, reason = "the one place where a failed command says why")]
fn say(failure: &Failure) {
    match failure.message.as_str() {
        "" => {}
        failure::ABORTED => eprintln!("{failure}"),
        _ => eprintln!("Error: {failure}"),
    }
}
