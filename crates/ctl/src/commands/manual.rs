//! What a package installs beside the program: manual pages and completions, written from the grammar itself.

use crate::cli::{Cli, CompletionsArgs, ManualArgs};
use crate::failure::{Failure, Outcome};
use clap::CommandFactory;
use std::io::{Write, stdout};
use std::path::Path;

/// `baton completions SHELL`: to standard output.
pub(crate) fn completions(args: &CompletionsArgs) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "baton", &mut text);
    stdout().lock().write_all(&text).map_err(|error| Failure::refused(format!("failed to print: {error}")))
}

/// `baton manual DIRECTORY`: a page for the program and for each command.
pub(crate) fn pages(args: &ManualArgs) -> Outcome {
    let fail = |error: std::io::Error| {
        Failure::refused(format!("failed to write the manual into {}: {error}", args.directory.display()))
    };
    std::fs::create_dir_all(&args.directory).map_err(fail)?;
    // Options that every command has are told on every page.
    let mut all = Cli::command().disable_help_subcommand(true);
    all.build();
    for command in all.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("baton-{}", command.get_name());
        write(&args.directory, &name, command.clone()).map_err(fail)?;
    }
    write(&args.directory, "baton", all).map_err(fail)
}

fn write(directory: &Path, name: &str, command: clap::Command) -> std::io::Result<()> {
    let page = clap_mangen::Man::new(command).title(name.to_uppercase()).source("Baton").manual("Baton");
    let mut text = Vec::new();
    page.render(&mut text)?;
    std::fs::write(directory.join(format!("{name}.1")), text)
}
