//! Connection strings as libpq reads them.

/// `key=value` pairs in this order, with quotes and backslashes where libpq needs them.
#[must_use]
pub fn conninfo(pairs: &[(String, String)]) -> String {
    let words: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    words.join(" ")
}

fn quoted(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
    if value.is_empty() || value.contains(char::is_whitespace) { format!("'{escaped}'") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::conninfo;

    #[test]
    fn values_are_quoted_when_they_must_be() {
        let pairs: Vec<(String, String)> =
            [("user", "rep"), ("application_name", "a b"), ("password", r"x'\y"), ("options", "")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into();
        assert_eq!(conninfo(&pairs), r"user=rep application_name='a b' password=x\'\\y options=''");
        assert_eq!(conninfo(&[]), "");
        let config: tokio_postgres::Config = conninfo(&pairs[..3]).parse().unwrap();
        assert_eq!(config.get_password(), Some(r"x'\y".as_bytes()));
        assert_eq!(config.get_application_name(), Some("a b"));
    }
}
