//! What differs between two runs of the same program becomes its shape: a position `<lsn>`, a time its pattern of digits.

use serde_json::{Map, Value};

/// Numbers that say nothing but that they are numbers.
const NUMBERS: [&str; 18] = [
    "dcs_last_seen",
    "lag",
    "location",
    "logger_queue_size",
    "logger_records_lost",
    "optime",
    "port",
    "receive_lag",
    "receive_lsn",
    "received_location",
    "replay_lag",
    "replay_lsn",
    "replayed_location",
    "server_version",
    "sync_priority",
    "xlog_location",
    "lsn",
    "postgres_version",
];

/// The metrics whose values move.
const MOVING: [&str; 8] = [
    "patroni_dcs_last_seen",
    "patroni_postgres_server_version",
    "patroni_postmaster_start_time",
    "patroni_xlog_location",
    "patroni_xlog_received_location",
    "patroni_xlog_replayed_location",
    "patroni_xlog_replayed_timestamp",
    "patroni_postgres_timeline",
];

/// The addresses of the lab become names, then the body its normal form: JSON as JSON, anything else as text.
pub(super) fn body(text: &str, addresses: &[(String, String)]) -> Value {
    let mut text = text.to_owned();
    for (address, name) in addresses {
        text = text.replace(address, name);
    }
    if text.trim_start().to_ascii_lowercase().starts_with("<!doctype")
        || text.trim_start().starts_with("<html")
    {
        return Value::from("<html>");
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(value) => shape(None, value),
        Err(_) if text.starts_with("# HELP") => metrics(&text),
        Err(_) => Value::from(text_shape(&text)),
    }
}

fn shape(field: Option<&str>, value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let slots = field == Some("slots");
            let of = |(name, value): (String, Value)| {
                // In `/status` the values are positions, whatever the slot is called.
                let value =
                    if slots && value.is_u64() { Value::from("<lsn>") } else { shape(Some(&name), value) };
                (name, value)
            };
            Value::Object(map.into_iter().map(of).collect::<Map<String, Value>>())
        }
        Value::Array(mut items) => {
            // The server lists its standbys in no order.
            if field == Some("replication") {
                items.sort_by_key(|item| item.get("application_name").map(Value::to_string));
            }
            Value::Array(items.into_iter().map(|item| shape(None, item)).collect())
        }
        Value::Number(number) => match field {
            Some(field) if NUMBERS.contains(&field) => Value::from("<number>"),
            // The positions in a row of the history.
            None if number.as_u64().is_some_and(|number| number > 1_000_000) => Value::from("<lsn>"),
            Some(_) | None => Value::Number(number),
        },
        Value::String(text) => Value::from(text_shape(&text)),
        Value::Bool(_) | Value::Null => value,
    }
}

fn text_shape(text: &str) -> String {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| {
        bytes.get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    if digits(0..4) && bytes.get(4) == Some(&b'-') && digits(5..7) {
        return text.chars().map(|letter| if letter.is_ascii_digit() { '9' } else { letter }).collect();
    }
    if bytes.len() >= 15 && digits(0..bytes.len()) {
        return "<digits>".to_owned();
    }
    let lsn = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.split_once('/') {
        Some((high, low)) if lsn(high) && lsn(low) => "<lsn>".to_owned(),
        Some(_) | None => text.to_owned(),
    }
}

/// One entry for each metric: its help, its type, its labels, and its value where that does not move.
fn metrics(text: &str) -> Value {
    let mut all = Map::new();
    for line in text.lines() {
        let (comment, rest) = match (line.strip_prefix("# HELP "), line.strip_prefix("# TYPE ")) {
            (Some(rest), _) => (Some("help"), rest),
            (None, Some(rest)) => (Some("type"), rest),
            (None, None) => (None, line),
        };
        let name: String =
            rest.chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect();
        let said = rest.get(name.len()..).unwrap_or_default().trim().to_owned();
        let entry = all.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
        let Some(entry) = entry.as_object_mut() else { continue };
        match (comment, said.rsplit_once(' ')) {
            (Some(kind), _) => drop(entry.insert(kind.to_owned(), Value::from(said))),
            (None, Some((labels, value))) => {
                let value = if MOVING.contains(&name.as_str()) { "<number>" } else { value };
                entry.insert("labels".to_owned(), Value::from(labels));
                entry.insert("value".to_owned(), Value::from(value));
            }
            (None, None) => drop(entry.insert("value".to_owned(), Value::from(said))),
        }
    }
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::body;
    use serde_json::json;

    #[test]
    fn what_moves_becomes_its_shape_and_the_rest_stays() {
        let text = r#"{"state":"running","postmaster_start_time":"2026-11-23 03:22:23.123456+00:00","timeline":2,
            "xlog":{"location":67108960},"database_system_identifier":"7312345678901234567",
            "conn_url":"postgres://127.0.77.11:5432/postgres","slots":{"n2":67108960},"lsn":"0/4000060"}"#;
        let normal = body(text, &[("127.0.77.11:5432".to_owned(), "n1:pg".to_owned())]);
        assert_eq!(
            normal,
            json!({
                "state": "running", "postmaster_start_time": "9999-99-99 99:99:99.999999+99:99", "timeline": 2,
                "xlog": { "location": "<number>" }, "database_system_identifier": "<digits>",
                "conn_url": "postgres://n1:pg/postgres", "slots": { "n2": "<lsn>" }, "lsn": "<lsn>",
            })
        );
        let history =
            body(r#"[[1,67108960,"no recovery target specified","2026-11-23T03:22:23+00:00","n2"]]"#, &[]);
        assert_eq!(
            history,
            json!([[1, "<lsn>", "no recovery target specified", "9999-99-99T99:99:99+99:99", "n2"]])
        );
        assert_eq!(body("restarted successfully", &[]), json!("restarted successfully"));
    }

    #[test]
    fn metrics_are_entries() {
        let text = "# HELP patroni_primary It.\n# TYPE patroni_primary gauge\n\
                    patroni_primary{scope=\"demo\",name=\"n1\"} 1\n# HELP patroni_xlog_location X.\n\
                    patroni_xlog_location{scope=\"demo\",name=\"n1\"} 67108960\n";
        let normal = body(text, &[]);
        assert_eq!(
            normal["patroni_primary"],
            json!({ "help": "It.", "type": "gauge", "labels": "{scope=\"demo\",name=\"n1\"}", "value": "1" })
        );
        assert_eq!(normal["patroni_xlog_location"]["value"], "<number>");
    }
}
