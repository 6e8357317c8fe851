//! What libpq would make of a connection string, the environment and the password file: the same words, the same
//! precedence, so that `query` and `generate-config` connect as psql does.
//!
//!     connection string ─▶ Words ◀─ PG… variables ─▶ ConnectTo (◀─ password file)

use postgres::connection::ConnectTo;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use types::Secret;

/// The variables of libpq that stand for a word.
const VARIABLES: [(&str, &str); 14] = [
    ("PGHOST", "host"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
];

/// The words of TLS; they are also settings of a login in the YAML.
pub(crate) const TLS: [&str; 8] = [
    "sslmode",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "channel_binding",
    "sslnegotiation",
];

/// Words that change nothing of where a connection goes.
const PASSED_OVER: [&str; 7] = [
    "application_name",
    "connect_timeout",
    "gssencmode",
    "keepalives",
    "client_encoding",
    "target_session_attrs",
    "fallback_application_name",
];

/// The longest password file that is read.
const MAX_PASSFILE: u64 = 1 << 20;

/// A connection in libpq's words.
#[derive(Clone, Default)]
pub(crate) struct Words(BTreeMap<String, String>);

impl Words {
    /// The words of a connection string, `host=… port=…` or `postgresql://…`; the error says what is wrong with it.
    pub(crate) fn of_dsn(dsn: &str) -> Result<Words, String> {
        let dsn = dsn.trim();
        let rest = dsn.strip_prefix("postgresql://").or_else(|| dsn.strip_prefix("postgres://"));
        let words = rest.map_or_else(|| pairs(dsn), url)?;
        let known = |word: &str| {
            TLS.contains(&word)
                || word == "sslpassword"
                || PASSED_OVER.contains(&word)
                || VARIABLES.iter().any(|(_, known)| *known == word)
        };
        match words.keys().find(|word| !known(word)) {
            Some(word) => Err(format!("{word:?} is not supported; leave it out")),
            None => Ok(Words(words)),
        }
    }

    /// Adds what the environment says and the words do not.
    pub(crate) fn or_environment(mut self, var: impl Fn(&str) -> Option<String>) -> Words {
        for (variable, word) in VARIABLES {
            if let Some(value) = var(variable).filter(|value| !value.is_empty()) {
                self.0.entry(word.to_owned()).or_insert(value);
            }
        }
        if let Some(user) = var("USER").or_else(|| var("LOGNAME")).filter(|user| !user.is_empty()) {
            self.0.entry("user".to_owned()).or_insert(user);
        }
        if let Some(home) = var("HOME") {
            let file = PathBuf::from(home).join(".pgpass").display().to_string();
            self.0.entry("passfile".to_owned()).or_insert(file);
        }
        self
    }

    /// Sets a word, when there is a value for it.
    pub(crate) fn with(mut self, word: &str, value: Option<&str>) -> Words {
        self.0.extend(value.map(|value| (word.to_owned(), value.to_owned())));
        self
    }

    /// A word.
    pub(crate) fn get(&self, word: &str) -> Option<&str> {
        self.0.get(word).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The connection; the error says what is missing.
    pub(crate) fn connect_to(&self, application_name: &str) -> Result<ConnectTo, String> {
        let user = self.get("user").ok_or("which user of PostgreSQL? Name it by -U or PGUSER")?.to_owned();
        let port = self.get("port").unwrap_or("5432");
        let port = port.parse::<u16>().map_err(|_| format!("{port:?} is no port"))?;
        let host = self.get("host").map_or_else(|| local(port), str::to_owned);
        if host.contains(',') {
            return Err(format!("{host:?} names several hosts; name one"));
        }
        let dbname = self.get("dbname").unwrap_or(&user).to_owned();
        let password = self.get("password").map(str::to_owned);
        let password = password.or_else(|| {
            let key = if host.starts_with('/') { "localhost" } else { &host };
            in_file(Path::new(self.get("passfile")?), [key, &port.to_string(), &dbname, &user])
        });
        let tls = TLS.iter().filter_map(|word| Some(((*word).to_owned(), self.get(word)?.to_owned())));
        Ok(ConnectTo {
            host,
            port,
            user,
            password: password.map(Secret::new),
            dbname,
            application_name: application_name.to_owned(),
            tls: tls.collect(),
            sslpassword: self.get("sslpassword").map(Secret::from),
        })
    }
}

/// Where the socket of the PostgreSQL of this host is: Debian's directory, or that of its makers.
fn local(port: u16) -> String {
    let places = ["/var/run/postgresql", "/tmp"];
    let found = places.into_iter().find(|place| Path::new(place).join(format!(".s.PGSQL.{port}")).exists());
    found.unwrap_or("/var/run/postgresql").to_owned()
}

/// `name=value name='a value'`, with `\` before a quote or another `\`.
fn pairs(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut words = BTreeMap::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) =
            rest.split_once('=').ok_or("write it as host=… port=… user=…, or as postgresql://…")?;
        let mut value = String::new();
        let mut characters = after.trim_start().chars();
        let quoted = characters.as_str().starts_with('\'');
        if quoted {
            characters.next();
        }
        loop {
            match characters.next() {
                Some('\\') => value.extend(characters.next()),
                Some('\'') if quoted => break,
                None if quoted => return Err("a quote is not closed".to_owned()),
                None => break,
                Some(blank) if !quoted && blank.is_whitespace() => break,
                Some(other) => value.push(other),
            }
        }
        words.insert(name.trim().to_owned(), value);
        rest = characters.as_str().trim_start();
    }
    Ok(words)
}

/// `user:password@host:port/dbname?word=value`, each with its special characters as `%XX`.
fn url(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut words = BTreeMap::new();
    let mut put = |word: &str, value: &str| {
        if !value.is_empty() {
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
            words.insert(word.to_owned(), value);
        }
    };
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let (authority, dbname) = text.split_once('/').unwrap_or((text, ""));
    put("dbname", dbname);
    let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    put("user", user);
    put("password", password);
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, after)) => (host, after.strip_prefix(':').unwrap_or_default()),
        None => place.split_once(':').unwrap_or((place, "")),
    };
    put("host", host);
    put("port", port);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (word, value) = pair.split_once('=').ok_or_else(|| format!("{pair:?} has no value"))?;
        put(word, value);
    }
    Ok(words)
}

/// The password of the first line that fits.
fn in_file(path: &Path, wanted: [&str; 4]) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(MAX_PASSFILE).read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| entry(line, wanted))
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

#[cfg(test)]
mod tests {
    use super::{Words, entry};

    #[test]
    fn both_spellings_say_the_same() {
        for dsn in [
            "host=db1 port=5433 user=me password='a b\\'c' dbname=x sslmode=verify-full",
            " port = 5433 host=db1  user=me password=a\\ b\\'c sslmode=verify-full dbname=x",
            "postgresql://me:a%20b'c@db1:5433/x?sslmode=verify-full&application_name=y",
            "postgres://me:a%20b'c@/x?host=db1&port=5433&sslmode=verify-full",
        ] {
            let to = Words::of_dsn(dsn).unwrap().connect_to("test").unwrap();
            let word = to.tls.get("sslmode").map(String::as_str);
            let password = to.password.as_ref().map(types::Secret::reveal);
            let seen = (to.host.as_str(), to.port, to.user.as_str(), password, to.dbname.as_str(), word);
            assert_eq!(seen, ("db1", 5433, "me", Some("a b'c"), "x", Some("verify-full")), "{dsn}");
        }
        let six = Words::of_dsn("postgresql://me@[::1]:5433").unwrap().connect_to("test").unwrap();
        assert_eq!((six.host.as_str(), six.port, six.dbname.as_str()), ("::1", 5433, "me"));
    }

    #[test]
    fn what_is_no_connection_string_is_refused() {
        for dsn in ["db1", "host='db1", "host=db1 service=x", "postgresql://db1?sslmode"] {
            assert!(Words::of_dsn(dsn).is_err(), "{dsn}");
        }
        let several = Words::of_dsn("host=a,b user=me").unwrap();
        assert!(several.connect_to("test").is_err());
    }

    #[test]
    fn the_environment_fills_what_is_not_said() {
        let var = |name: &str| match name {
            "PGHOST" => Some("elsewhere".to_owned()),
            "PGSSLMODE" => Some("require".to_owned()),
            "USER" => Some("somebody".to_owned()),
            _ => None,
        };
        let to = Words::of_dsn("host=db1").unwrap().or_environment(var).connect_to("test").unwrap();
        assert_eq!((to.host.as_str(), to.user.as_str(), to.port), ("db1", "somebody", 5432));
        assert_eq!(to.tls["sslmode"], "require");
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
