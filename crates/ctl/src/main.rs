//! The binary `baton`: agent, router and command line in one.
//!
//!     argv ──▶ invoked (which name?) ──▶ cli (grammar) ──▶ commands/* ──▶ failure ──▶ exit_codes
//!
//! `guard` runs before everything else: it must have no other thread and no runtime.

mod ask;
mod cli;
mod commands;
mod context;
mod dcs_url;
mod exit_codes;
mod failure;
mod invoked;
mod logging;
mod progress;
mod render;
mod rest;
mod snapshot;
mod table;
mod view;
mod yaml;

use clap::Parser;
use cli::{Cli, Command};
use exit_codes::Code;
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse_from(invoked::arguments(std::env::args_os().collect()));
    if let Command::Guard(args) = &cli.command {
        return agent::guard::main(&args.path);
    }
    match commands::run(&cli) {
        Ok(()) => Code::Ok.into(),
        Err(failure) => {
            say(&failure);
            failure.code.into()
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one place where a failed command says why")]
fn say(failure: &Failure) {
    if !failure.message.is_empty() {
        eprintln!("Error: {failure}");
    }
}
