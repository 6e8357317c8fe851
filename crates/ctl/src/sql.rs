//! A session with a member's PostgreSQL for `query`: any SQL, its rows as plain values.
//!
//! The types of the columns come from preparing the text; several statements at once cannot be prepared, their values
//! stay text. The text itself is always run as it is.

use crate::failure::Failure;
use serde_json::Value;
use std::time::Duration;
use tokio_postgres::types::{Kind, Type};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Who connects.
pub(crate) struct Login {
    user: String,
    database: String,
    password: Option<String>,
}

impl Login {
    /// By what was said, else by libpq's variables.
    pub(crate) fn new(
        user: Option<&str>,
        database: Option<&str>,
        password: Option<String>,
    ) -> Result<Login, Failure> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(mode @ ("require" | "verify-ca" | "verify-full")) = var("PGSSLMODE").as_deref() {
            return Err(Failure::refused(format!(
                "failed to connect with PGSSLMODE={mode}: query speaks no TLS; use psql with what `dsn` prints"
            )));
        }
        let system = || var("USER").or_else(|| var("LOGNAME"));
        let user = user.map(str::to_owned).or_else(|| var("PGUSER")).or_else(system);
        let user =
            user.ok_or_else(|| Failure::refused("which user of PostgreSQL? Name it by -U or PGUSER"))?;
        let database = database.map(str::to_owned).or_else(|| var("PGDATABASE"));
        let database = database.unwrap_or_else(|| user.clone());
        Ok(Login { user, database, password: password.or_else(|| var("PGPASSWORD")) })
    }

    /// The password that was given, else the one in the password file.
    fn password(&self, host: &str, port: u16) -> Option<String> {
        let file = || {
            let home = std::env::var_os("HOME").map(|home| std::path::PathBuf::from(home).join(".pgpass"));
            let path = std::env::var_os("PGPASSFILE").map(Into::into).or(home)?;
            let text = std::fs::read_to_string(path).ok()?;
            text.lines().find_map(|line| entry(line, [host, &port.to_string(), &self.database, &self.user]))
        };
        self.password.clone().or_else(file)
    }
}

/// The password of a line `host:port:database:user:password` that is for `wanted`.
fn entry(line: &str, wanted: [&str; 4]) -> Option<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => fields.last_mut()?.extend(characters.next()),
            ':' if fields.len() < 5 => fields.push(String::new()),
            other => fields.last_mut()?.push(other),
        }
    }
    let (password, keys) = fields.split_last()?;
    let fits = keys.iter().zip(wanted).all(|(key, wanted)| key == "*" || key == wanted);
    (keys.len() == 4 && fits && !line.starts_with('#')).then(|| password.clone())
}

/// Why there are no rows.
pub(crate) enum Trouble {
    /// There is no session.
    Connection(String),
    /// PostgreSQL refused the SQL.
    Sql { sqlstate: String, message: String },
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Trouble {
        match error.as_db_error() {
            Some(refused) => Trouble::Sql {
                sqlstate: refused.code().code().to_owned(),
                message: refused.message().to_owned(),
            },
            None => Trouble::Connection(error.to_string()),
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
pub(crate) struct Session {
    client: Client,
}

impl Session {
    /// Connects to a member.
    pub(crate) async fn connect(host: &str, port: u16, login: &Login) -> Result<Session, Trouble> {
        let mut config = Config::new();
        config.host(host).port(port).user(&login.user).dbname(&login.database);
        config.application_name("Patroni ctl").connect_timeout(CONNECT);
        if let Some(password) = login.password(host, port) {
            config.password(password);
        }
        let (client, connection) = config.connect(NoTls).await.map_err(|error| {
            let why = match error.as_db_error() {
                Some(refused) => format!("{}:  {}", refused.severity(), refused.message()),
                None => std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string),
            };
            Trouble::Connection(format!("connection to server at \"{host}\", port {port} failed: {why}"))
        })?;
        tokio::spawn(connection);
        Ok(Session { client })
    }

    /// Whether it is a standby.
    pub(crate) async fn in_recovery(&self) -> Result<bool, Trouble> {
        Ok(self.client.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await?.try_get(0)?)
    }

    /// Runs `sql` and keeps the rows of the last statement that has some.
    pub(crate) async fn run(&self, sql: &str) -> Result<Rows, Trouble> {
        let types: Vec<Type> = match self.client.prepare(sql).await {
            Ok(statement) => statement.columns().iter().map(|column| column.type_().clone()).collect(),
            // What is wrong is said when it is run.
            Err(_) => Vec::new(),
        };
        let mut found = Rows::default();
        for message in self.client.simple_query(sql).await? {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    found.columns = columns.iter().map(|column| column.name().to_owned()).collect();
                    found.rows.clear();
                }
                SimpleQueryMessage::Row(row) => {
                    let cell = |at: usize| value(row.get(at), types.get(at));
                    found.rows.push((0..row.len()).map(cell).collect());
                }
                _ => {}
            }
        }
        Ok(found)
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
    use super::{entry, value};
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

    #[test]
    fn the_password_file_is_libpq_s() {
        let wanted = ["db", "5432", "postgres", "me"];
        assert_eq!(entry(r"*:*:*:me:a\:b", wanted).as_deref(), Some("a:b"));
        assert_eq!(entry("db:5432:postgres:me:x:y", wanted).as_deref(), Some("x:y"));
        for other in ["db:5433:*:me:x", "#*:*:*:*:x", "db:5432", ""] {
            assert_eq!(entry(other, wanted), None, "{other}");
        }
    }
}
