//! `log.format`: Python's format of a log line, `%(asctime)s %(levelname)s: %(message)s`, or for JSON a list of its fields.

use serde_json::Value;

/// The format that holds when none is given.
pub const DEFAULT_LOG_FORMAT: &str = "%(asctime)s %(levelname)s: %(message)s";

/// The longest padding that a format may ask for.
const WIDEST: usize = 200;

/// A field of a log record, by Python's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogField {
    /// The time, as `log.dateformat` says.
    Asctime,
    /// The time as seconds since the epoch.
    Created,
    Filename,
    FuncName,
    Levelname,
    Levelno,
    Lineno,
    Message,
    Module,
    Msecs,
    /// The part of the program that speaks.
    Name,
    Pathname,
    Process,
    ProcessName,
    /// Milliseconds since the program began.
    RelativeCreated,
    Thread,
    ThreadName,
    TaskName,
}

const FIELDS: &[(&str, LogField)] = &[
    ("asctime", LogField::Asctime),
    ("created", LogField::Created),
    ("filename", LogField::Filename),
    ("funcName", LogField::FuncName),
    ("levelname", LogField::Levelname),
    ("levelno", LogField::Levelno),
    ("lineno", LogField::Lineno),
    ("message", LogField::Message),
    ("module", LogField::Module),
    ("msecs", LogField::Msecs),
    ("name", LogField::Name),
    ("pathname", LogField::Pathname),
    ("process", LogField::Process),
    ("processName", LogField::ProcessName),
    ("relativeCreated", LogField::RelativeCreated),
    ("thread", LogField::Thread),
    ("threadName", LogField::ThreadName),
    ("taskName", LogField::TaskName),
];

/// A piece of a format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogPiece {
    Literal(String),
    Field {
        field: LogField,
        /// Filled up with blanks to this width, on the right where `left` is set.
        width: usize,
        left: bool,
        /// Filled up with zeros instead.
        zeros: bool,
        /// Digits after the point of a number, or the longest text.
        precision: Option<usize>,
    },
}

/// What a log line is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogFormat {
    /// For plain lines.
    pub pieces: Vec<LogPiece>,
    /// For JSON: keys with their fields.
    pub keys: Vec<(String, LogField)>,
}

impl LogFormat {
    /// Reads a format; `None` where Python would fail, too.
    pub(crate) fn read(given: &Value) -> Option<LogFormat> {
        match given {
            Value::String(text) => LogFormat::parse(text),
            Value::Array(items) => {
                let mut keys = Vec::new();
                for item in items {
                    match item {
                        Value::String(name) => keys.push((name.clone(), field(name)?)),
                        Value::Object(renamed) => {
                            for (name, key) in renamed {
                                keys.push((key.as_str()?.to_owned(), field(name)?));
                            }
                        }
                        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => return None,
                    }
                }
                (!keys.is_empty()).then(|| LogFormat { keys, ..LogFormat::standard() })
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        }
    }

    /// The format that holds when none is given.
    pub(crate) fn standard() -> LogFormat {
        LogFormat::parse(DEFAULT_LOG_FORMAT).unwrap_or(LogFormat { pieces: Vec::new(), keys: Vec::new() })
    }

    fn parse(text: &str) -> Option<LogFormat> {
        let mut pieces = Vec::new();
        let mut keys: Vec<(String, LogField)> = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let (name, after) = after.strip_prefix('(')?.split_once(')')?;
            let (piece, after) = conversion(field(name)?, after)?;
            if let LogPiece::Field { field, .. } = &piece
                && !keys.iter().any(|(_, known)| known == field)
            {
                keys.push((name.to_owned(), *field));
            }
            if !literal.is_empty() {
                pieces.push(LogPiece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(piece);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(LogPiece::Literal(literal));
        }
        // A format without any field would make every line the same; Python refuses it as well.
        (!keys.is_empty()).then_some(LogFormat { pieces, keys })
    }
}

/// What stands between the field's name and the rest: flags, width, precision, and one letter.
fn conversion(field: LogField, text: &str) -> Option<(LogPiece, &str)> {
    let flags = text.find(|c: char| !"-+ #0".contains(c))?;
    let (flags, text) = text.split_at(flags);
    let (width, text) = number(text)?;
    let (precision, text) = match text.strip_prefix('.') {
        Some(text) => number(text).map(|(precision, text)| (Some(precision), text))?,
        None => (None, text),
    };
    let letter = text.chars().next()?;
    if !"diouxXeEfFgGcrsa".contains(letter) {
        return None;
    }
    let zeros = flags.contains('0') && !flags.contains('-') && !"crsa".contains(letter);
    let piece = LogPiece::Field { field, width, left: flags.contains('-'), zeros, precision };
    Some((piece, text.get(letter.len_utf8()..)?))
}

fn number(text: &str) -> Option<(usize, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, rest) = text.split_at(end);
    let number = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    (number <= WIDEST).then_some((number, rest))
}

fn field(name: &str) -> Option<LogField> {
    FIELDS.iter().find(|(known, _)| *known == name).map(|(_, field)| *field)
}

#[cfg(test)]
mod tests {
    use super::{LogField, LogFormat, LogPiece};
    use serde_json::json;

    #[test]
    fn formats_are_taken_apart() {
        let format = LogFormat::read(&json!("%(asctime)s [%(levelname)-8s] 100%% %(message)s")).unwrap();
        assert_eq!(format.pieces.len(), 5);
        assert_eq!(format.pieces[1], LogPiece::Literal(" [".to_owned()));
        let padded = LogPiece::Field {
            field: LogField::Levelname,
            width: 8,
            left: true,
            zeros: false,
            precision: None,
        };
        assert_eq!(format.pieces[2], padded);
        assert_eq!(format.pieces[3], LogPiece::Literal("] 100% ".to_owned()));
    }

    #[test]
    fn a_list_names_the_keys_of_json_lines() {
        let format = LogFormat::read(&json!(["asctime", {"levelname": "level"}, "message"])).unwrap();
        let keys: Vec<_> = format.keys.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["asctime", "level", "message"]);
    }

    #[test]
    fn what_python_would_not_take_is_refused() {
        for bad in ["", "no field", "%(nosuch)s", "%(message)", "%s", "%(message)y", "%(message)9999s", "%"] {
            assert_eq!(LogFormat::read(&json!(bad)), None, "{bad}");
        }
        assert_eq!(LogFormat::read(&json!([])), None);
        assert_eq!(LogFormat::read(&json!(["nosuch"])), None);
    }
}
