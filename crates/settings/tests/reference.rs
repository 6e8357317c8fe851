//! `docs/configuration.md` and `docs/baton.schema.json` are written from the table of settings.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking, as tests do")]

use serde_json::{Map, Value, json};
use settings::{Kind, Row, Scope, Support, rows};
use std::fmt::Write;

/// Set to write the files anew.
const BLESS: &str = "BATON_BLESS";

/// Settings of a node's file whose change waits for the next start of the agent; `reload.rs` of the agent holds on to them.
const AT_THE_NEXT_START: [&str; 11] = [
    "scope",
    "namespace",
    "name",
    "etcd3",
    "etcd",
    "restapi.listen",
    "restapi.request_queue_size",
    "postgresql.data_dir",
    "postgresql.bin_dir",
    "vip",
    "dns",
];

fn is_at_or_below(key: &str, section: &str) -> bool {
    key == section || key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}

fn takes_effect(row: &Row) -> &'static str {
    let restart = ["postgresql.listen", "postgresql.parameters"];
    match row.scope {
        Scope::Bootstrap => "when a new cluster is made",
        Scope::Dynamic => "at once, on every member",
        Scope::Local if matches!(row.key, "router.api" | "router.threads" | "router.io") => {
            "when the router starts"
        }
        Scope::Local if is_at_or_below(row.key, "router") => "after a reload of the router",
        Scope::Local if is_at_or_below(row.key, "ctl") => "after a reload, and with the next command",
        Scope::Local if AT_THE_NEXT_START.iter().any(|key| is_at_or_below(row.key, key)) => {
            "when the agent starts"
        }
        Scope::Local if is_at_or_below(row.key, "postgresql.bin_name") => "when the agent starts",
        Scope::Local if restart.contains(&row.key) => {
            "after a reload; what PostgreSQL reads only at its start waits for that (`pending_restart`)"
        }
        Scope::Local => "after a reload",
    }
}

/// What is said of a setting that does not simply work.
fn remark(row: &Row) -> String {
    match (row.support, row.alias_of) {
        (_, Some(name)) => format!(" Old name of `{name}`."),
        (Support::Full, None) => String::new(),
        (Support::Ignored(why), None) => format!(" **Has no effect**: {why}."),
        (Support::Refused(why), None) => format!(" **Refused**: {why}."),
        (Support::Limited { fine, why, .. }, None) => format!(" **Only {}**: {why}.", fine.join(", ")),
    }
}

fn markdown() -> String {
    let mut text = String::from(
        "# Settings\n\nEvery setting of the file, its environment variable, and of the dynamic configuration; written from the \
         table in `crates/settings/src/table`, from which the validation comes as well.\n\n\
         The file is YAML, or a directory of `*.yml` and `*.yaml` that are merged in the order of their names. What counts, from \
         the weakest: the default, the dynamic configuration, the file, the environment variable. `baton check FILE` prints every \
         value with its origin. `kill -HUP` of the agent, `POST /reload` and `baton reload` read the file again.\n\n\
         `*` stands for a name of your own. `baton.schema.json` beside this page is for editors that know JSON schemas.\n",
    );
    for (title, dynamic) in [("The file of a node", false), ("The dynamic configuration", true)] {
        write!(text, "\n## {title}\n").unwrap();
        if dynamic {
            text.push_str(
                "\nThe key `/config` in etcd; `baton edit-config` changes it. A new cluster takes it from `bootstrap.dcs` of its \
                 first member.\n",
            );
        }
        let mut section = "";
        for row in rows().filter(|row| (row.scope == Scope::Dynamic) == dynamic) {
            let (first, _) = row.key.split_once('.').unwrap_or(("", row.key));
            if first != section || section.is_empty() && !text.ends_with("|\n") {
                section = first;
                let name = if first.is_empty() { "At the top" } else { first };
                write!(
                    text,
                    "\n### {name}\n\n| setting | what | default | takes effect |\n|---|---|---|---|\n"
                )
                .unwrap();
            }
            text.push_str(&line(row));
        }
    }
    text
}

fn line(row: &Row) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let variables: String = row.env.iter().map(|name| format!("<br>`{name}`")).collect();
    let default = row.default.map(|yaml| format!("`{}`", cell(yaml))).unwrap_or_default();
    let needed = if row.required { " **Required.**" } else { "" };
    format!(
        "| `{}`{variables} | {}{needed} {}.{} | {default} | {} |\n",
        row.key,
        cell(row.doc),
        cell(&first_upper(&row.kind.expects())),
        cell(&remark(row)),
        takes_effect(row),
    )
}

fn first_upper(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The schema of one value. Every scalar may be written as a text as well, so types are alternatives.
fn value_schema(row: &Row) -> Value {
    let mut schema = match row.kind {
        Kind::Bool => json!({ "type": ["boolean", "string", "integer"] }),
        Kind::Int(low, high) | Kind::Seconds(low, high) | Kind::Bytes(low, high) => {
            let mut schema = json!({ "type": ["integer", "string"], "minimum": low });
            if high != i64::MAX {
                schema["maximum"] = json!(high);
            }
            schema
        }
        Kind::Mode => json!({ "type": ["integer", "string"] }),
        Kind::Duration => json!({ "type": ["number", "string"] }),
        // A plain `on` or `off` is a yes or no for YAML.
        Kind::Choice(words) if words.contains(&"off") => {
            json!({ "anyOf": [{ "enum": words }, { "type": "boolean" }] })
        }
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Text | Kind::Secret => json!({ "type": ["string", "number", "boolean"] }),
        Kind::Path | Kind::Address | Kind::Listen => json!({ "type": "string" }),
        Kind::Texts | Kind::Lines | Kind::LogFormat => json!({ "type": ["array", "string"] }),
        Kind::Options => json!({ "type": ["array", "object"] }),
        Kind::TextMap => json!({ "type": "object" }),
        Kind::Json => json!({ "type": ["object", "array"] }),
    };
    schema["description"] = Value::String(format!("{}{}", row.doc, remark(row)));
    schema
}

/// Puts a value's schema at its key. `*` becomes a schema for all names that are not listed.
fn put(schema: &mut Value, key: &str, value: Value) {
    let (name, rest) = match key.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (key, None),
    };
    let object = schema.as_object_mut().unwrap();
    object.insert("type".to_owned(), json!("object"));
    let slot = if name == "*" {
        object.entry("additionalProperties").or_insert_with(|| json!({}))
    } else {
        let properties = object.entry("properties").or_insert_with(|| Value::Object(Map::new()));
        properties.as_object_mut().unwrap().entry(name).or_insert_with(|| json!({}))
    };
    match rest {
        Some(rest) => put(slot, rest, value),
        None => *slot = value,
    }
}

fn schema() -> Value {
    let mut schema = json!({
        "title": "The file of a Baton agent or router, or of Patroni",
    });
    // A section whose rows lie below it is described by them, also where the section itself is a row.
    let covers = |row: &Row| rows().any(|other| other.key.starts_with(&format!("{}.", row.key)));
    for row in rows().filter(|row| row.scope != Scope::Dynamic && !covers(row)) {
        put(&mut schema, row.key, value_schema(row));
    }
    for row in rows().filter(|row| row.scope == Scope::Dynamic && !covers(row)) {
        put(&mut schema, &format!("bootstrap.dcs.{}", row.key), value_schema(row));
    }
    // Lists or mappings by name.
    schema["properties"]["router"]["properties"]["services"]["type"] = json!(["object", "array"]);
    schema
}

fn compare(name: &str, wanted: &str) {
    let path = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == wanted,
        "docs/{name} is older than the table of settings: {BLESS}=1 cargo test -p baton-settings --test reference"
    );
}

#[test]
fn the_reference_is_the_table() {
    compare("configuration.md", &markdown());
}

#[test]
fn the_schema_is_the_table() {
    compare("baton.schema.json", &format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap()));
}
