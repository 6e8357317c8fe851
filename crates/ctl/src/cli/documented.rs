//! Every command that the documents tell a reader to run: this grammar understands it, and docs/commands.txt names the test that runs
//! it, or says why none does.
//!
//! ```text
//!   README.md, docs/*.md ──► commands ──► the grammar           `baton …`, `patronictl …`
//!                               │
//!                               └──────► docs/commands.txt ──► a test that has its words, or a reason
//! ```
//! Commands are the lines of indented blocks and of fences without a language or of `console` (with prompts in it, those with one), and
//! what stands in text between backquotes, begins with a program and has more than one word. Other fences have a language.

use super::Cli;
use clap::{CommandFactory, Parser, error::ErrorKind};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Programs that the text names with their arguments. In blocks everything is a command.
const PROGRAMS: [&str; 24] = [
    "apt-get",
    "baton",
    "cargo",
    "chmod",
    "chown",
    "curl",
    "dnsmasq",
    "etcdctl",
    "install",
    "ip",
    "kill",
    "ln",
    "make",
    "man",
    "modprobe",
    "openssl",
    "patronictl",
    "pg_waldump",
    "pgbackrest",
    "ss",
    "sudo",
    "systemctl",
    "tar",
    "test",
];

/// Targets of the Makefile that are tests or measurements themselves, `bench-…` besides.
const MEASURES: [&str; 9] =
    ["bench", "faults", "fuzz", "golden", "packages", "playbooks", "restores", "sim", "stories"];

/// A command as a document has it.
struct Told {
    document: String,
    command: String,
    /// In a block of its own, so that it can be copied; else in a sentence, where arguments may be left out.
    whole: bool,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn documents() -> Vec<String> {
    let pages = fs::read_dir(root().join("docs")).unwrap();
    let pages = pages.map(|entry| format!("docs/{}", entry.unwrap().file_name().to_string_lossy()));
    let mut all: Vec<String> = pages.filter(|path| path.ends_with(".md")).collect();
    all.extend(["README.md".to_owned(), "ansible/README.md".to_owned()]);
    all.sort();
    all
}

/// The command of a line of a block: without its prompt, what a timetable has before it, and what is said of it at the end.
fn command_of(line: &str) -> String {
    let line = without_prompt(line).unwrap_or(line).trim_start();
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    // Minute, hour, day, month, weekday, account.
    if words.len() > 6
        && words[..5].iter().all(|word| word.starts_with(|c: char| c == '*' || c.is_ascii_digit()))
    {
        return words[6..].join(" ");
    }
    line.split("  ").next().unwrap_or_default().trim_end().to_owned()
}

/// `$ `, or the name of a host before `$ ` or `# `.
fn without_prompt(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let (host, command) = line.split_once("$ ").or_else(|| line.split_once("# "))?;
    host.chars().all(|c| c.is_ascii_alphanumeric()).then_some(command)
}

fn block(lines: &[&str]) -> Vec<String> {
    let prompted: Vec<String> =
        lines.iter().filter(|line| without_prompt(line).is_some()).map(|line| command_of(line)).collect();
    match prompted.is_empty() {
        true => lines.iter().filter(|line| !line.trim().is_empty()).map(|line| command_of(line)).collect(),
        false => prompted,
    }
}

/// What stands between backquotes. In tables `|` is written `\|`.
fn spans(line: &str) -> Vec<String> {
    let inside = line.split('`').skip(1).step_by(2).map(|span| span.replace("\\|", "|"));
    inside
        .filter(|span| {
            let first = span.split(' ').next().unwrap_or_default();
            span.contains(' ') && (PROGRAMS.contains(&first) || first.ends_with(".yml"))
        })
        .collect()
}

fn told_by(document: &str) -> Vec<Told> {
    let text = read(document);
    let lines: Vec<&str> = text.lines().collect();
    let mut told = Vec::new();
    let mut say = |commands: Vec<String>, whole: bool| {
        let document = document.to_owned();
        told.extend(commands.into_iter().map(|command| Told { document: document.clone(), command, whole }));
    };
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let indented = |at: usize| lines.get(at).is_some_and(|line| line.starts_with("    "));
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let length =
                lines[at + 1..].iter().position(|line| line.trim_start() == "```").expect("a fence ends");
            if matches!(language, "" | "console") {
                say(block(&lines[at + 1..at + 1 + length]), true);
            }
            at += length + 2;
        } else if indented(at) && lines[at - 1].is_empty() {
            let begin = at;
            // A line without anything goes on with it when more of it comes.
            while indented(at) || (lines.get(at) == Some(&"") && indented(at + 1)) {
                at += 1;
            }
            say(block(&lines[begin..at]), true);
        } else {
            say(spans(line), false);
            at += 1;
        }
    }
    told
}

fn told() -> Vec<Told> {
    documents().iter().flat_map(|document| told_by(document)).collect()
}

/// The words for the grammar: of the first of several commands, without what the shell does with its output, and with something in
/// the place of what a reader has to fill in.
fn words(command: &str) -> Vec<String> {
    let ours = command.strip_prefix("sudo -u postgres ").unwrap_or(command);
    let ours =
        [" && ", " > ", " | "].iter().fold(ours, |ours, end| ours.split(end).next().unwrap_or_default());
    let words = shlex::split(ours).unwrap_or_default().into_iter();
    let filled = words.map(|word| match word.trim_matches(['[', ']']) {
        "…" => "2026-11-27T10:00:00+01:00".to_owned(),
        "COMMAND" => "list".to_owned(),
        word => word.to_owned(),
    });
    filled.collect()
}

#[test]
fn the_grammar_understands_every_command_of_the_documents() {
    let mut broken = Vec::new();
    let mut understood = 0;
    for Told { document, command, whole } in told() {
        let words = words(&command);
        if !words.first().is_some_and(|program| ["baton", "patronictl"].contains(&program.as_str())) {
            continue;
        }
        match Cli::try_parse_from(&words).map_err(|error| (error.kind(), error.to_string())) {
            Ok(_) | Err((ErrorKind::DisplayHelp, _)) => understood += 1,
            Err((ErrorKind::MissingRequiredArgument, _)) if !whole => understood += 1,
            Err((_, error)) => broken.push(format!("{document}: {command}: {error}")),
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(understood > 100, "{understood}");
}

/// Whether a command, or one below it, has the option.
fn takes(command: &clap::Command, option: &str) -> bool {
    let mut arguments = command.get_arguments();
    let own = arguments.any(|argument| {
        argument.get_long_and_visible_aliases().is_some_and(|names| names.contains(&option))
            || argument.get_all_aliases().is_some_and(|names| names.contains(&option))
    });
    own || command.get_subcommands().any(|below| takes(below, option))
}

/// docs/ctl.md has a table of the commands with their options.
#[test]
fn the_grammar_has_every_option_of_the_table_of_commands() {
    let page = read("docs/ctl.md");
    let grammar = Cli::command();
    let mut broken = Vec::new();
    let mut seen = BTreeSet::new();
    let (_, table) = page.split_once("## Commands\n").unwrap();
    for row in
        table.lines().take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("| `"))
    {
        let cells: Vec<&str> = row.split(" | ").collect();
        let named = cells[0].split('`').skip(1).step_by(2);
        let named = named.filter_map(|span| grammar.find_subcommand(span.split(' ').next()?));
        let commands: Vec<_> = named.collect();
        assert!(!commands.is_empty(), "{row}");
        seen.extend(commands.iter().map(|command| command.get_name().to_owned()));
        let options = cells[2].split('`').skip(1).step_by(2).flat_map(|span| span.split(['/', ' ']));
        for option in options.filter_map(|word| word.strip_prefix("--")) {
            if !commands.iter().any(|command| takes(command, option)) {
                broken.push(format!("--{option} in {row}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(seen.len() > 20, "{seen:?}");
}

/// The words of `make …`, also as root.
fn made(command: &str) -> Option<Vec<String>> {
    let words = shlex::split(command.strip_prefix("sudo ").unwrap_or(command)).unwrap_or_default();
    words.first().is_some_and(|program| program == "make").then_some(words)
}

/// Whether it is a test or a measurement itself.
fn measures(command: &str) -> bool {
    let target = made(command).and_then(|words| words.get(1).cloned()).unwrap_or_default();
    target == "test" || target.starts_with("bench-") || MEASURES.contains(&target.as_str())
}

/// Who runs a command: words of a file of tests, or nobody, for a reason.
enum Runner {
    Test { path: String, words: String },
    Nobody,
}

/// docs/commands.txt: commands, then, further in, what runs them.
fn table() -> BTreeMap<String, Vec<Runner>> {
    let mut rows: BTreeMap<String, Vec<Runner>> = BTreeMap::new();
    let mut group: Vec<String> = Vec::new();
    let mut complete = false;
    let text = read("docs/commands.txt");
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some(runner) = line.strip_prefix("    ") else {
            if complete {
                group.clear();
            }
            complete = false;
            group.push(line.to_owned());
            assert!(rows.insert(line.to_owned(), Vec::new()).is_none(), "twice: {line}");
            continue;
        };
        complete = true;
        let (path, words) =
            runner.split_once(": ").unwrap_or_else(|| panic!("neither test nor reason: {line}"));
        for command in &group {
            let runner = match path {
                "nobody" => Runner::Nobody,
                _ => Runner::Test { path: path.to_owned(), words: words.to_owned() },
            };
            rows.get_mut(command).unwrap().push(runner);
        }
    }
    rows
}

#[test]
fn every_command_of_the_documents_is_run_by_a_test_or_it_is_said_why_not() {
    let table = table();
    let mut broken = Vec::new();
    let told = told().into_iter().filter(|told| !measures(&told.command));
    let told: BTreeMap<String, String> = told.map(|told| (told.command, told.document)).collect();
    for (command, document) in told.iter().filter(|(command, _)| !table.contains_key(*command)) {
        broken.push(format!("{document} tells of a command that docs/commands.txt lacks: {command}"));
    }
    for (command, runners) in &table {
        if !told.contains_key(command) {
            broken.push(format!("docs/commands.txt has a command that no document tells of: {command}"));
        }
        if runners.is_empty() {
            broken.push(format!("docs/commands.txt names nobody who runs: {command}"));
        }
        for runner in runners {
            let Runner::Test { path, words } = runner else { continue };
            let of_tests = path.contains("tests") || path.starts_with("crates/lab/");
            let text = fs::read_to_string(root().join(path)).unwrap_or_default();
            if !of_tests || !text.contains(words.as_str()) {
                broken.push(format!("{path} has no \"{words}\", which should run: {command}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Targets and variables; what each of them runs stands in the Makefile.
#[test]
fn the_makefile_has_what_the_documents_make() {
    let makefile = read("Makefile");
    let has = |begin: String| makefile.lines().any(|line| line.starts_with(&begin));
    let mut broken = Vec::new();
    for Told { document, command, .. } in told() {
        let Some(words) = made(&command) else { continue };
        for word in &words[1..] {
            let known = match word.split_once('=') {
                Some(("NAME", _)) => makefile.contains("$(NAME)"),
                Some((variable, _)) => has(format!("{variable} ?=")),
                None => has(format!("{word}:")),
            };
            if !known {
                broken.push(format!("{document}: {command}: {word}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
