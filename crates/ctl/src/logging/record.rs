//! An event, taken apart: its message and its fields.

use serde_json::{Map, Value};
use std::fmt::{self, Write};
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

/// What a line is made of.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub at: SystemTime,
    /// When the program began.
    pub began: SystemTime,
    pub level: &'static str,
    /// Python's number of the level.
    pub number: u32,
    pub target: &'a str,
    pub file: &'a str,
    pub line: u32,
    pub message: String,
    /// What the event says besides, in its order.
    pub fields: Map<String, Value>,
}

impl<'a> Record<'a> {
    pub(super) fn of(event: &Event<'a>, at: SystemTime, began: SystemTime) -> Record<'a> {
        let metadata = event.metadata();
        let (level, number) = match (metadata.target(), *metadata.level()) {
            (super::CRITICAL, _) => ("CRITICAL", 50),
            (_, Level::ERROR) => ("ERROR", 40),
            (_, Level::WARN) => ("WARNING", 30),
            (_, Level::INFO) => ("INFO", 20),
            (_, _) => ("DEBUG", 10),
        };
        let mut parts = Parts::default();
        event.record(&mut parts);
        Record {
            at,
            began,
            level,
            number,
            target: metadata.target(),
            file: metadata.file().unwrap_or_default(),
            line: metadata.line().unwrap_or_default(),
            message: parts.message,
            fields: parts.fields,
        }
    }

    /// The message with the fields behind it, as a plain line has it.
    pub(super) fn text(&self) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.fields {
            let separator = if text.is_empty() { "" } else { " " };
            // Writing to a text cannot fail.
            let _ = match value {
                Value::String(value) if plain(value) => write!(text, "{separator}{name}={value}"),
                value => write!(text, "{separator}{name}={value}"),
            };
        }
        text
    }
}

/// Whether a value needs no quotes.
fn plain(value: &str) -> bool {
    !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"' || c == '=')
}

#[derive(Default)]
struct Parts {
    message: String,
    fields: Map<String, Value>,
}

impl Parts {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", value) => self.message = value.to_string(),
            (name, value) => drop(self.fields.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::String(value.to_owned()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }
}
