//! A session with a member's PostgreSQL for `query`: any SQL, its rows as plain values.
//!
//! Over TLS where libpq's variables ask for it. The text is run as it is, in one piece.

use crate::failure::Failure;
use crate::libpq::Words;
use postgres::connection::{Connection, Mode, Rows as Answer, SqlError};
use serde_json::Value;
use std::time::Duration;
use tokio_postgres::types::{Kind, Type};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a statement may take: as long as the person at the terminal waits.
const PATIENCE: Duration = Duration::from_secs(7 * 86_400);
/// The longest answer.
const MAX_ANSWER: usize = 256 << 20;

/// Who connects, and how: TLS as libpq's variables say.
pub(crate) struct Login(Words);

impl Login {
    /// By what was said, else by libpq's variables.
    pub(crate) fn new(
        user: Option<&str>,
        database: Option<&str>,
        password: Option<String>,
    ) -> Result<Login, Failure> {
        let said = Words::default().with("user", user).with("dbname", database);
        let said = said.with("password", password.as_deref());
        let words = said.or_environment(|name| std::env::var(name).ok());
        words.connect_to("").map_err(Failure::refused)?;
        Ok(Login(words))
    }
}

/// Why there are no rows.
pub(crate) enum Trouble {
    /// There is no session.
    Connection(String),
    /// PostgreSQL refused the SQL.
    Sql { sqlstate: String, message: String },
}

impl From<SqlError> for Trouble {
    fn from(error: SqlError) -> Trouble {
        match error {
            SqlError::Refused { answer, .. } => {
                Trouble::Sql { sqlstate: answer.sqlstate, message: answer.message }
            }
            SqlError::Unreachable { .. }
            | SqlError::NoAnswer { .. }
            | SqlError::Lost { .. }
            | SqlError::Nonsense { .. }
            | SqlError::Tls { .. }
            | SqlError::Login { .. } => Trouble::Connection(error.to_string()),
        }
    }
}

/// What the last statement that gave rows gave.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}

/// A connected session.
pub(crate) struct Session(Connection);

impl Session {
    /// Connects to a member.
    pub(crate) async fn connect(host: &str, port: u16, login: &Login) -> Result<Session, Trouble> {
        let there = login.0.clone().with("host", Some(host)).with("port", Some(&port.to_string()));
        let to = there.connect_to("Patroni ctl").map_err(Trouble::Connection)?;
        let connection = Connection::open(&to, Mode::Sql, &[], CONNECT).await.map_err(|error| {
            let why = match error {
                SqlError::Refused { answer, .. } => format!("{}:  {}", answer.severity, answer.message),
                SqlError::Unreachable { source, .. } => source.to_string(),
                SqlError::Tls { what, .. } => what,
                other @ (SqlError::NoAnswer { .. }
                | SqlError::Lost { .. }
                | SqlError::Nonsense { .. }
                | SqlError::Login { .. }) => format!("failed to {other}"),
            };
            Trouble::Connection(format!("connection to server at \"{host}\", port {port} failed: {why}"))
        })?;
        Ok(Session(connection.with_answers_up_to(MAX_ANSWER)))
    }

    /// Whether it is a standby.
    pub(crate) async fn in_recovery(&mut self) -> Result<bool, Trouble> {
        let answer = self.0.query("SELECT pg_catalog.pg_is_in_recovery()", CONNECT).await?;
        Ok(answer.single() == Some("t"))
    }

    /// Runs `sql` and keeps the rows of the last statement that has some.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<Rows, Trouble> {
        let Answer { columns, types, rows } = self.0.query(sql, PATIENCE).await?;
        let types: Vec<Option<Type>> = types.into_iter().map(Type::from_oid).collect();
        let row = |cells: Vec<Option<String>>| {
            let typed = cells.iter().zip(&types);
            typed.map(|(cell, kind)| value(cell.as_deref(), kind.as_ref())).collect()
        };
        Ok(Rows { columns, rows: rows.into_iter().map(row).collect() })
    }
}

/// A value as PostgreSQL writes it, as what its type says.
fn value(text: Option<&str>, kind: Option<&Type>) -> Value {
    let Some(text) = text else { return Value::Null };
    let plain = || Value::from(text);
    let Some(kind) = kind else { return plain() };
    if let Kind::Array(inner) = kind.kind() {
        return array(text, inner).unwrap_or_else(plain);
    }
    let number = |parsed: Option<serde_json::Number>| parsed.map_or_else(plain, Value::Number);
    match *kind {
        Type::BOOL => Value::from(text == "t"),
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => {
            text.parse::<i64>().map_or_else(|_| plain(), Value::from)
        }
        Type::FLOAT4 | Type::FLOAT8 => {
            number(text.parse::<f64>().ok().and_then(serde_json::Number::from_f64))
        }
        Type::JSON | Type::JSONB => serde_json::from_str(text).unwrap_or_else(|_| plain()),
        _ => plain(),
    }
}

/// `{1,NULL,"a b",{…}}`; none when it is written in another way.
fn array(text: &str, kind: &Type) -> Option<Value> {
    let mut characters = text.chars().peekable();
    let found = items(&mut characters, kind)?;
    characters.next().is_none().then_some(found)
}

fn items(characters: &mut std::iter::Peekable<std::str::Chars<'_>>, kind: &Type) -> Option<Value> {
    characters.next_if_eq(&'{')?;
    let mut found = Vec::new();
    if characters.next_if_eq(&'}').is_some() {
        return Some(Value::Array(found));
    }
    loop {
        found.push(match characters.peek()? {
            '{' => items(characters, kind)?,
            '"' => value(Some(&quoted(characters)?), Some(kind)),
            _ => {
                let mut bare = String::new();
                while let Some(next) = characters.next_if(|c| !matches!(c, ',' | '}')) {
                    bare.push(next);
                }
                value(Some(bare.as_str()).filter(|bare| *bare != "NULL"), Some(kind))
            }
        });
        match characters.next()? {
            ',' => continue,
            '}' => return Some(Value::Array(found)),
            _ => return None,
        }
    }
}

fn quoted(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    characters.next_if_eq(&'"')?;
    let mut text = String::new();
    loop {
        match characters.next()? {
            '"' => return Some(text),
            '\\' => text.push(characters.next()?),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::value;
    use serde_json::json;
    use tokio_postgres::types::Type;

    #[test]
    fn values_are_what_their_type_says() {
        for (text, kind, expected) in [
            ("t", Type::BOOL, json!(true)),
            ("-5", Type::INT8, json!(-5)),
            ("2", Type::FLOAT8, json!(2.0)),
            ("NaN", Type::FLOAT8, json!("NaN")),
            ("1.50", Type::NUMERIC, json!("1.50")),
            (r#"{"a": 1}"#, Type::JSONB, json!({"a": 1})),
            ("{1,2,NULL}", Type::INT4_ARRAY, json!([1, 2, null])),
            (r#"{a,"b \"c","NULL",{x}}"#, Type::TEXT_ARRAY, json!(["a", "b \"c", "NULL", ["x"]])),
            ("{}", Type::TEXT_ARRAY, json!([])),
            ("[0:1]={1,2}", Type::INT4_ARRAY, json!("[0:1]={1,2}")),
        ] {
            assert_eq!(value(Some(text), Some(&kind)), expected, "{text}");
        }
        assert_eq!(value(None, Some(&Type::INT4)), json!(null));
        assert_eq!(value(Some("t"), None), json!("t"));
    }
}
