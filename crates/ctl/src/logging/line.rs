//! A record as one line, by Python's format or as JSON.

use super::layer::Plan;
use super::record::Record;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use settings::{LogField, LogPiece};
use std::fmt::Write;
use std::time::{Duration, SystemTime};

/// The line, with its end.
pub(super) fn render(record: &Record<'_>, plan: &Plan) -> String {
    let mut line = if plan.json { json(record, plan) } else { plain(record, plan) };
    line.push('\n');
    line
}

fn json(record: &Record<'_>, plan: &Plan) -> String {
    let mut object = Map::new();
    for (key, field) in &plan.format.keys {
        let value = match field {
            // What the event says besides has keys of its own.
            LogField::Message => Value::String(record.message.clone()),
            LogField::Levelno => Value::from(record.number),
            LogField::Lineno => Value::from(record.line),
            LogField::Process => Value::from(std::process::id()),
            LogField::Created => Value::from(epoch(record.at).as_secs_f64()),
            LogField::Asctime
            | LogField::Filename
            | LogField::FuncName
            | LogField::Levelname
            | LogField::Module
            | LogField::Msecs
            | LogField::Name
            | LogField::Pathname
            | LogField::ProcessName
            | LogField::RelativeCreated
            | LogField::Thread
            | LogField::ThreadName
            | LogField::TaskName => Value::String(text(*field, record, plan, None)),
        };
        object.insert(key.clone(), value);
    }
    for (key, value) in record.fields.iter().chain(&plan.static_fields) {
        object.insert(key.clone(), value.clone());
    }
    Value::Object(object).to_string()
}

fn plain(record: &Record<'_>, plan: &Plan) -> String {
    let mut line = String::new();
    for piece in &plan.format.pieces {
        match piece {
            LogPiece::Literal(text) => line.push_str(text),
            LogPiece::Field { field, width, left, zeros, precision } => {
                let text = text(*field, record, plan, *precision);
                // Writing to a text cannot fail.
                let _ = match (left, zeros) {
                    (true, _) => write!(line, "{text:<width$}"),
                    (false, true) => write!(line, "{text:0>width$}"),
                    (false, false) => write!(line, "{text:>width$}"),
                };
            }
        }
    }
    line
}

fn text(field: LogField, record: &Record<'_>, plan: &Plan, precision: Option<usize>) -> String {
    let short = |text: &str| match precision {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_owned(),
    };
    let number = |value: f64, digits: usize| format!("{value:.*}", precision.unwrap_or(digits));
    match field {
        LogField::Asctime => short(&time(record.at, plan.dateformat.as_deref())),
        LogField::Created => number(epoch(record.at).as_secs_f64(), 6),
        LogField::Filename => short(file_name(record.file)),
        LogField::FuncName | LogField::TaskName => String::new(),
        LogField::Levelname => short(record.level),
        LogField::Levelno => record.number.to_string(),
        LogField::Lineno => record.line.to_string(),
        LogField::Message => short(&record.text()),
        LogField::Module => short(file_name(record.file).trim_end_matches(".rs")),
        LogField::Msecs => number(f64::from(epoch(record.at).subsec_millis()), 0),
        LogField::Name => short(record.target),
        LogField::Pathname => short(record.file),
        LogField::Process => std::process::id().to_string(),
        LogField::ProcessName => short("MainProcess"),
        LogField::RelativeCreated => {
            let since = record.at.duration_since(record.began).unwrap_or_default();
            number(since.as_secs_f64() * 1000.0, 3)
        }
        LogField::Thread => {
            format!("{:?}", std::thread::current().id()).chars().filter(char::is_ascii_digit).collect()
        }
        LogField::ThreadName => short(std::thread::current().name().unwrap_or("unnamed")),
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn epoch(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The wall clock as Python's logging writes it.
fn time(at: SystemTime, format: Option<&str>) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let at = at.to_zoned(TimeZone::system());
    let standard = "%Y-%m-%d %H:%M:%S,%3f";
    let written = format.and_then(|format| jiff::fmt::strtime::format(format, &at).ok());
    written.unwrap_or_else(|| at.strftime(standard).to_string())
}

#[cfg(test)]
mod tests {
    use super::super::layer::Plan;
    use super::super::levels::Levels;
    use super::super::record::Record;
    use super::{render, time};
    use serde_json::{Map, Value, json};
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    fn record() -> Record<'static> {
        let mut fields = Map::new();
        fields.insert("term".to_owned(), json!(17));
        fields.insert("why".to_owned(), json!("two words"));
        Record {
            at: SystemTime::UNIX_EPOCH,
            began: SystemTime::UNIX_EPOCH,
            level: "WARNING",
            number: 30,
            target: "agent::keeper",
            file: "crates/agent/src/keeper.rs",
            line: 7,
            message: "the lease is gone".to_owned(),
            fields,
        }
    }

    /// A plan from the `log:` section of a file.
    fn plan(log: &str) -> Plan {
        let yaml = format!(
            "{{scope: demo, name: n1, restapi: {{listen: '127.0.0.1:8008'}}, etcd3: {{host: '127.0.0.1'}}, log: {log}, \
             postgresql: {{listen: '127.0.0.1:5433', data_dir: /data, authentication: {{replication: {{username: r}}}}}}}}"
        );
        let env = BTreeMap::from([(settings::CONFIGURATION.to_owned(), yaml)]);
        let log = settings::load_environment(&env).unwrap().settings.log;
        assert!(Levels::new(&log.level, &log.loggers).admit(&METADATA));
        super::super::plan(&log)
    }

    static METADATA: tracing::Metadata<'static> = {
        struct Here;
        impl tracing::callsite::Callsite for Here {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &tracing::Metadata<'_> {
                &METADATA
            }
        }
        static HERE: Here = Here;
        tracing::Metadata::new(
            "test",
            "agent",
            tracing::Level::ERROR,
            None,
            None,
            None,
            tracing::field::FieldSet::new(&[], tracing::callsite::Identifier(&HERE)),
            tracing::metadata::Kind::EVENT,
        )
    };

    #[test]
    fn the_level_begins_at_column_24() {
        let line = render(&record(), &plan("{}"));
        assert_eq!(line.find("WARNING: "), Some(24), "{line}");
        assert!(line.ends_with(" WARNING: the lease is gone term=17 why=\"two words\"\n"), "{line}");
    }

    #[test]
    fn formats_are_pythons() {
        let asked = "{format: '[%(levelname)-8s] %(name)s %(lineno)03d %(module).3s %%: %(message)s', dateformat: '%Y'}";
        let line = render(&record(), &plan(asked));
        assert_eq!(line, "[WARNING ] agent::keeper 007 kee %: the lease is gone term=17 why=\"two words\"\n");
        assert_eq!(time(SystemTime::UNIX_EPOCH, Some("%H")).len(), 2);
        assert_eq!(
            time(SystemTime::UNIX_EPOCH, Some("%!")).len(),
            23,
            "a mistake in the format costs no line"
        );
    }

    #[test]
    fn json_lines_have_patronis_keys_and_the_fields() {
        let line = render(&record(), &plan("{type: json, static_fields: {app: x, n: 1}}"));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["levelname"], "WARNING");
        assert_eq!(value["message"], "the lease is gone");
        assert_eq!((&value["term"], &value["app"], &value["n"]), (&json!(17), &json!("x"), &json!(1)));
        let asked = "{type: json, format: [asctime, {levelname: level}, message]}";
        let value: Value = serde_json::from_str(&render(&record(), &plan(asked))).unwrap();
        assert_eq!(value["level"], "WARNING");
        assert_eq!(value.get("levelname"), None);
    }
}
