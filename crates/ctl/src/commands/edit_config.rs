//! `baton edit-config`: change the dynamic configuration.
//!
//!     read /config ─▶ edit (--set, --pg, --apply, --replace, or $EDITOR) ─▶ is it valid? ─▶ show the difference ─▶ sure?
//!        ─▶ write it, if nobody else has changed it since

use super::list::print;
use crate::ask::{self, Answers};
use crate::cli::EditConfigArgs;
use crate::context::{Context, deadline};
use crate::failure::{Failure, Outcome};
use crate::invoked::Manner;
use crate::render::diff::diff;
use crate::yaml;
use serde_json::{Value, json};
use std::io::{IsTerminal, Read};
use std::path::Path;

/// The longest document that is read.
const MAX_INPUT: u64 = 1 << 20;

/// Edits the configuration.
pub(crate) async fn run(context: &Context, args: &EditConfigArgs, answers: &mut dyn Answers) -> Outcome {
    let scope = context.scope(args.cluster.cluster.as_deref())?;
    let (snapshot, cluster) = context.read(&scope).await?;
    let config = snapshot
        .config
        .as_ref()
        .ok_or_else(|| Failure::refused(format!("The config key does not exist in the cluster {scope}")))?;
    let before = yaml::block(&config.value);
    let edited = edited(&config.value, args, &scope, &before)?;
    let difference = diff(&before, &yaml::block(&edited));
    if difference.is_empty() {
        print("Not changed\n");
        return Ok(());
    }
    if !args.quiet {
        print(&difference);
    }
    for warning in accepted(&config.value, &edited)? {
        match context.manner {
            Manner::Baton => print(&format!("Note: {warning}\n")),
            // Scripts compare the output; this is beside it.
            Manner::Patronictl | Manner::Patroni => super::warn(&warning),
        }
    }
    if !args.force {
        if [&args.apply, &args.replace].into_iter().flatten().any(|file| file == "-") {
            // Standard input is used up: there is nothing left to answer with.
            print("Use --force option to apply changes\n");
            return Ok(());
        }
        if !ask::yes(answers, "Apply these changes?")? {
            return Ok(());
        }
    }
    match context.etcd(&cluster.name)?.put_config(&edited, Some(config.mod_revision), deadline()).await {
        Ok(_) => {
            print("Configuration changed\n");
            Ok(())
        }
        Err(etcd::Error::Conflict) => Err(Failure::refused(
            "Config modification aborted due to concurrent changes: look at it again with `baton show-config`",
        )),
        Err(error) => Err(error.into()),
    }
}

/// The configuration as it is wanted.
fn edited(config: &Value, args: &EditConfigArgs, scope: &str, before: &str) -> Result<Value, Failure> {
    let mut value = config.clone();
    let mut by_option = false;
    if let Some(file) = &args.replace {
        value = document(file)?;
        by_option = true;
    }
    if let Some(file) = &args.apply {
        value = settings::patch(&value, &document(file)?);
        by_option = true;
    }
    for pair in &args.set {
        value = settings::patch(&value, &setting(pair, &[])?);
        by_option = true;
    }
    for pair in &args.pg {
        value = settings::patch(&value, &setting(pair, &["postgresql", "parameters"])?);
        by_option = true;
    }
    if by_option { Ok(value) } else { in_editor(scope, before) }
}

/// `a.b=c` under `above` as a patch; an empty value removes the key.
fn setting(pair: &str, above: &[&str]) -> Result<Value, Failure> {
    let (key, text) =
        pair.split_once('=').ok_or_else(|| Failure::refused(format!("Invalid parameter setting {pair}")))?;
    let value = if text.trim().is_empty() { Value::Null } else { read(&format!("value of {key}"), text)? };
    let mut path: Vec<&str> = above.to_vec();
    // Names of PostgreSQL's parameters may hold dots themselves.
    match key.trim().strip_prefix("postgresql.parameters.") {
        Some(parameter) if above.is_empty() => path.extend(["postgresql", "parameters", parameter]),
        _ if above.is_empty() => path.extend(key.trim().split('.')),
        _ => path.push(key.trim()),
    }
    if path.iter().any(|part| part.is_empty()) {
        return Err(Failure::refused(format!(
            "Invalid parameter setting {pair}: a part of the key is empty"
        )));
    }
    Ok(path.into_iter().rev().fold(value, |inner, part| json!({part: inner})))
}

/// Reads a YAML document from a file, or from standard input for `-`.
fn document(file: &str) -> Result<Value, Failure> {
    let fail = |error: std::io::Error| Failure::refused(format!("failed to read {file}: {error}"));
    let mut text = String::new();
    if file == "-" {
        std::io::stdin().lock().take(MAX_INPUT).read_to_string(&mut text).map_err(fail)?;
    } else {
        let opened = std::fs::File::open(file).map_err(fail)?;
        opened.take(MAX_INPUT).read_to_string(&mut text).map_err(fail)?;
    }
    let value = read(if file == "-" { "standard input" } else { file }, &text)?;
    if value.is_object() {
        return Ok(value);
    }
    Err(Failure::refused(format!("{file} holds no configuration: expected keys and values")))
}

fn read(name: &str, text: &str) -> Result<Value, Failure> {
    settings::to_json(name, text).map_err(|problems| Failure::refused(problems.to_string()))
}

/// Lets the person edit `before` in a file of its own. When the outcome cannot be read the file is kept.
fn in_editor(scope: &str, before: &str) -> Result<Value, Failure> {
    let Some(editor) = editor() else {
        return Err(Failure::refused(
            "nothing to change: give --set, --pg, --apply or --replace, or set EDITOR where there is no terminal",
        ));
    };
    let fail = |error: std::io::Error| Failure::refused(format!("failed to edit the configuration: {error}"));
    let file = tempfile::Builder::new()
        .prefix(&format!("{}-config-", scope.replace('/', "-")))
        .suffix(".yaml")
        .tempfile()
        .map_err(fail)?;
    std::fs::write(file.path(), before).map_err(fail)?;
    let status = std::process::Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(file.path())
        .status()
        .map_err(fail)?;
    if !status.success() {
        return Err(Failure::refused(match status.code() {
            Some(code) => format!("Editor exited with return code {code}"),
            None => format!("the editor ended with {status}; nothing was changed"),
        }));
    }
    let edited = document(&file.path().display().to_string());
    if edited.is_err() {
        let (_, kept) = file.keep().map_err(|error| fail(error.error))?;
        return edited.map_err(|failure| {
            Failure::refused(format!("{failure}\nyour text is kept in {}", kept.display()))
        });
    }
    edited
}

/// What the person has chosen; on a terminal also what is there.
fn editor() -> Option<String> {
    let set = |name| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
    let found = || {
        ["/usr/bin/editor", "/usr/bin/vim", "/usr/bin/vi", "/usr/bin/nano"]
            .into_iter()
            .find(|path| Path::new(path).exists())
    };
    let chosen = set("EDITOR").or_else(|| set("VISUAL"));
    chosen.or_else(|| std::io::stdin().is_terminal().then(|| found().unwrap_or("vi").to_owned()))
}

/// What is worth a note about the new configuration; refuses it where a value is wrong that was not so before.
fn accepted(before: &Value, after: &Value) -> Result<Vec<String>, Failure> {
    let known = match settings::validate_dynamic(before, false) {
        Ok(known) | Err(known) => known,
    };
    let new = |found: Vec<String>| -> Vec<String> {
        found.into_iter().filter(|what| !known.contains(what)).collect()
    };
    match settings::validate_dynamic(after, false) {
        Ok(warnings) => Ok(new(warnings)),
        Err(problems) => match new(problems) {
            new if new.is_empty() => Ok(new),
            new => Err(Failure::refused(format!(
                "the configuration would not be valid:\n  {}",
                new.join("\n  ")
            ))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{accepted, setting};
    use serde_json::json;

    #[test]
    fn settings_become_patches() {
        let patch = |pair: &str| setting(pair, &[]).unwrap();
        assert_eq!(patch("ttl=20"), json!({"ttl": 20}));
        assert_eq!(patch("postgresql.use_pg_rewind=true"), json!({"postgresql": {"use_pg_rewind": true}}));
        assert_eq!(
            patch("postgresql.parameters.pg_stat_statements.max=10"),
            json!({"postgresql": {"parameters": {"pg_stat_statements.max": 10}}})
        );
        assert_eq!(patch("ttl="), json!({"ttl": null}));
        assert_eq!(patch("ttl=null"), json!({"ttl": null}));
        assert_eq!(patch("slots={a: {type: physical}}"), json!({"slots": {"a": {"type": "physical"}}}));
        let pg = setting("log_line_prefix='%m '", &["postgresql", "parameters"]).unwrap();
        assert_eq!(pg, json!({"postgresql": {"parameters": {"log_line_prefix": "%m "}}}));
        for bad in ["ttl", "=1", "a..b=1"] {
            assert!(setting(bad, &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_new_problems_are_refused() {
        let sound = json!({"ttl": 30});
        assert!(accepted(&sound, &json!({"ttl": 20})).is_ok());
        let failure = accepted(&sound, &json!({"ttl": "soon"})).unwrap_err();
        assert!(failure.message.contains("ttl"), "{failure}");
        let broken = json!({"ttl": "soon"});
        assert!(accepted(&broken, &json!({"ttl": "soon", "loop_wait": 5})).is_ok());
    }
}
