//! Commands of the operator that make a cluster or a replica: `bootstrap.<method>` and `postgresql.<method>`.
//!
//! What is not a word of ours is an option that the command gets as `--name=value`.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The method that needs no section: pg_basebackup.
pub(crate) const BASEBACKUP: &str = "basebackup";

/// A section of `create_replica_methods`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaMethod {
    pub command: String,
    /// Whether what is in the data directory stays there for the command, as for a restore of the difference only.
    pub keep_data: bool,
    /// Whether the command gets no `--scope`, `--role`, `--datadir`, `--connstring` of ours.
    pub no_params: bool,
    /// Whether it works without a leader, as a restore from an archive does.
    pub no_leader: bool,
    /// Options of the operator's, in the order they were written.
    pub options: Vec<(String, String)>,
}

/// The section of `bootstrap.method`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootstrapMethod {
    pub name: String,
    pub command: String,
    /// Whether the command gets no `--scope` and `--datadir`.
    pub no_params: bool,
    /// Whether the recovery settings that the command wrote are kept.
    pub keep_existing_recovery_conf: bool,
    /// Recovery parameters for the first start; `None` when the section has none.
    pub recovery_conf: Option<BTreeMap<String, String>>,
    pub options: Vec<(String, String)>,
}

impl ReplicaMethod {
    /// Reads the section; the error says what is wrong with it, after its name.
    pub(crate) fn read(name: &str, section: &Value) -> Result<ReplicaMethod, String> {
        let Value::Object(section) = section else {
            return Err("is a section: give it a command".to_owned());
        };
        let words = ["command", "keep_data", "no_params", "no_master", "no_leader"];
        Ok(ReplicaMethod {
            command: command(name, section)?,
            keep_data: flag(section, "keep_data")?,
            no_params: flag(section, "no_params")?,
            no_leader: flag(section, "no_leader")? || flag(section, "no_master")?,
            options: options(section, &words)?,
        })
    }
}

impl BootstrapMethod {
    /// Reads the section; the error says what is wrong with it, after its name.
    pub(crate) fn read(name: &str, section: &Value) -> Result<BootstrapMethod, String> {
        let Value::Object(section) = section else {
            return Err("is a section: give it a command".to_owned());
        };
        let words = ["command", "no_params", "keep_existing_recovery_conf", "recovery_conf"];
        let recovery_conf = match section.get("recovery_conf") {
            None | Some(Value::Null) => None,
            Some(Value::Object(conf)) => Some(options(conf, &[])?.into_iter().collect()),
            Some(_) => {
                return Err("should have recovery_conf as a mapping of parameters to values".to_owned());
            }
        };
        Ok(BootstrapMethod {
            name: name.to_owned(),
            command: command(name, section)?,
            no_params: flag(section, "no_params")?,
            keep_existing_recovery_conf: flag(section, "keep_existing_recovery_conf")?,
            recovery_conf,
            options: options(section, &words)?,
        })
    }
}

fn command(name: &str, section: &Map<String, Value>) -> Result<String, String> {
    match section.get("command").and_then(Value::as_str).map(str::trim) {
        Some(command) if !command.is_empty() => Ok(command.to_owned()),
        Some(_) | None => Err(format!("has no command: give it one, or take {name} off the list")),
    }
}

fn flag(section: &Map<String, Value>, key: &str) -> Result<bool, String> {
    match section.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(value) => yes_or_no(value).ok_or_else(|| format!("should have {key} as true or false")),
    }
}

/// A yes or no as JSON or as a text.
pub(crate) fn yes_or_no(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => match number.as_i64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            Some(_) | None => None,
        },
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Some(true),
            "off" | "false" | "no" | "0" => Some(false),
            _ => None,
        },
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn options(section: &Map<String, Value>, words: &[&str]) -> Result<Vec<(String, String)>, String> {
    let mut options = Vec::new();
    for (key, value) in section.iter().filter(|(key, _)| !words.contains(&key.as_str())) {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Null => continue,
            Value::Array(_) | Value::Object(_) => {
                return Err(format!("should have {key} as a single value"));
            }
        };
        options.push((key.clone(), text));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::{BootstrapMethod, ReplicaMethod};
    use serde_json::json;

    #[test]
    fn what_is_no_word_of_ours_is_an_option() {
        let section = json!({"command": "/restore.sh -x", "keep_data": "on", "no_leader": 1, "threads": 4, "fast": true});
        let method = ReplicaMethod::read("pgbackrest", &section).unwrap();
        assert_eq!(method.command, "/restore.sh -x");
        assert!(method.keep_data && method.no_leader && !method.no_params);
        let options: Vec<_> = method.options.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(options, [("threads", "4"), ("fast", "true")]);
    }

    #[test]
    fn recovery_parameters_of_a_new_cluster_are_kept_apart() {
        let section =
            json!({"command": "x", "recovery_conf": {"recovery_target_timeline": "latest"}, "k": "v"});
        let method = BootstrapMethod::read("pitr", &section).unwrap();
        assert_eq!(method.recovery_conf.unwrap()["recovery_target_timeline"], "latest");
        assert_eq!(method.options, [("k".to_owned(), "v".to_owned())]);
    }

    #[test]
    fn a_method_that_cannot_run_is_refused() {
        for (section, why) in [
            (json!({"keep_data": true}), "has no command"),
            (json!({"command": "x", "no_params": "perhaps"}), "true or false"),
            (json!({"command": "x", "list": [1]}), "single value"),
            (json!("x"), "section"),
        ] {
            let error = ReplicaMethod::read("m", &section).unwrap_err();
            assert!(error.contains(why), "{section}: {error}");
        }
    }
}
