//! What PostgreSQL itself would say about a configuration, before it is written: with one wrong value it would not start.
//!
//! ```text
//!   wanted ── written beside postgresql.conf ──> postgres -C, which reads it and starts nothing ──> its complaints
//!      ▲                                                                                                │
//!      └────────────────── without the parameters it complained about, and again ◄──────────────────────┘
//! ```
//! PostgreSQL names first all parameters it does not know, and values only when it knows all names; so it is asked again until it
//! is content. The parameters of extensions (with a dot) it always takes.

use super::{BASE, CONF, Wanted, render};
use crate::error::Error;
use crate::files;
use crate::installation::Installation;
use std::path::Path;

/// A parameter that PostgreSQL would not start with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// As it was written in the configuration.
    pub name: String,
    /// PostgreSQL's words.
    pub why: String,
}

/// Unknown names, wrong values, and what only shows when those are gone.
const ROUNDS: usize = 4;

/// The parameters of `wanted` that this PostgreSQL does not know or whose values it does not take.
pub fn refusals(
    installation: &Installation,
    data_dir: &Path,
    config_dir: Option<&Path>,
    wanted: &Wanted,
) -> Result<Vec<Refusal>, Error> {
    let config_dir = std::path::absolute(config_dir.unwrap_or(data_dir));
    let config_dir = config_dir.map_err(|error| Error::io("resolve", data_dir, error))?;
    let draft = config_dir.join("postgresql.conf.baton-draft");
    let mut wanted = wanted.clone();
    let mut refused: Vec<Refusal> = Vec::new();
    for _ in 0..ROUNDS {
        let (text, _) = render::postgresql_conf(&wanted, &include(&config_dir, &wanted)?, &[])?;
        files::replace(&draft, text.as_bytes(), files::mode_in(data_dir))?;
        let words = complaints(installation, data_dir, &draft);
        files::remove_if_there(&draft)?;
        let Some(words) = words? else { break };
        let found = named(&words, &wanted);
        if found.is_empty() {
            // Something that is not ours, such as the user's own file: PostgreSQL's log will say it.
            break;
        }
        for refusal in found {
            wanted.parameters.remove(&refusal.name);
            if let Some(follow) = &mut wanted.standby {
                follow.others.remove(&refusal.name);
            }
            refused.push(refusal);
        }
    }
    Ok(refused)
}

/// The file that ours includes, wherever it is by now.
fn include(config_dir: &Path, wanted: &Wanted) -> Result<String, Error> {
    if let Some(custom) = &wanted.custom_conf {
        return Ok(custom.display().to_string());
    }
    let base = config_dir.join(BASE);
    if base.exists() {
        return Ok(BASE.to_owned());
    }
    let present = files::read_if_there(&config_dir.join(CONF))?;
    let original = present.is_some_and(|content| !render::is_managed(content));
    Ok(if original { CONF } else { "/dev/null" }.to_owned())
}

/// What PostgreSQL says against the file; `None` when it would start with it.
fn complaints(installation: &Installation, data_dir: &Path, draft: &Path) -> Result<Option<String>, Error> {
    let mut command = installation.command("postgres");
    // Its words come in English, to us, and all of them, whatever the file says.
    let ours = ["log_destination=stderr", "lc_messages=C", "log_min_messages=log", "log_line_prefix="];
    command.args(["-C", "data_directory", "-D"]).arg(data_dir);
    command.arg("-c").arg(format!("config_file={}", draft.display()));
    command.args(ours.iter().flat_map(|setting| ["-c", setting]));
    let output = command.into_std().output();
    let output = output.map_err(|error| Error::io("run", &installation.bin_dir.join("postgres"), error))?;
    Ok((!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// The parameters of ours that a complaint names.
fn named(words: &str, wanted: &Wanted) -> Vec<Refusal> {
    let others = wanted.standby.iter().flat_map(|follow| follow.others.keys());
    let ours: Vec<&String> = wanted.parameters.keys().chain(others).collect();
    let mut found: Vec<Refusal> = Vec::new();
    for line in words.lines().filter(|line| !line.starts_with("HINT") && !line.starts_with("DETAIL")) {
        let Some((_, rest)) = line.split_once("parameter ") else { continue };
        let rest = rest.strip_prefix("name ").unwrap_or(rest);
        let Some(name) = rest.strip_prefix('"').and_then(|rest| rest.split('"').next()) else { continue };
        let ours = ours.iter().find(|ours| ours.eq_ignore_ascii_case(name));
        if let Some(ours) = ours.filter(|ours| !found.iter().any(|refusal| refusal.name == ***ours)) {
            let why = line.split_once(":  ").map_or(line, |(_, words)| words);
            found.push(Refusal { name: (*ours).to_string(), why: without_place(why).to_owned() });
        }
    }
    found
}

/// The place in the draft means nothing to anybody.
fn without_place(why: &str) -> &str {
    why.split(" in file \"").next().unwrap_or(why)
}

#[cfg(test)]
mod tests {
    use super::{Refusal, Wanted, named};

    #[test]
    fn complaints_are_understood() {
        let words = concat!(
            "2026-11-23 03:40:11.123 UTC [71] LOG:  unrecognized configuration parameter \"wrk_mem\" in file \"/d/x\" line 5\n",
            "LOG:  invalid value for parameter \"shared_buffers\": \"lots\"\n",
            "HINT:  Valid units for this parameter are \"B\".\n",
            "LOG:  2 is outside the valid range for parameter \"Jit_Above_Cost\" (-1 .. 1)\n",
            "LOG:  parameter \"jit\" requires a Boolean value\n",
            "LOG:  unrecognized configuration parameter \"theirs\" in file \"/d/base\" line 1\n",
            "FATAL:  configuration file \"/d/x\" contains errors\n",
        );
        let pairs = ["wrk_mem", "shared_buffers", "jit_above_cost", "jit", "fine"]
            .map(|name| (name.to_owned(), String::new()));
        let wanted = Wanted { parameters: pairs.into(), ..Wanted::default() };
        let refusal = |name: &str, why: &str| Refusal { name: name.to_owned(), why: why.to_owned() };
        assert_eq!(
            named(words, &wanted),
            [
                refusal("wrk_mem", "unrecognized configuration parameter \"wrk_mem\""),
                refusal("shared_buffers", "invalid value for parameter \"shared_buffers\": \"lots\""),
                refusal(
                    "jit_above_cost",
                    "2 is outside the valid range for parameter \"Jit_Above_Cost\" (-1 .. 1)"
                ),
                refusal("jit", "parameter \"jit\" requires a Boolean value"),
            ]
        );
    }
}
