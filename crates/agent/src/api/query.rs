//! The query string: the first value of each name counts.

use types::TagValue;

/// The parameters of a request.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Query {
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name), decode(value))
        };
        Query(text.split('&').filter(|part| !part.is_empty()).map(pair).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Whether it is there, with or without a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// `lag`, in bytes; `None` also when it cannot be understood, which means no limit.
    pub(super) fn lag(&self) -> Option<u64> {
        self.get("lag").and_then(bytes)
    }

    /// The tags that are asked for.
    pub(super) fn tags(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.strip_prefix("tag_")?, value.as_str())))
    }
}

/// Whether a tag has the value that was asked for; what is no text is compared by its text in lower case.
pub(super) fn is_meant(tag: &TagValue, wanted: &str) -> bool {
    match tag {
        TagValue::Text(text) => text == wanted,
        TagValue::Bool(value) => value.to_string() == wanted.to_lowercase(),
        TagValue::Int(value) => value.to_string() == wanted,
    }
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// `10MB` as bytes.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let shift = match text.get(end..)?.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        _ => return None,
    };
    let digits = text.get(..end)?;
    match digits.parse::<u64>() {
        Ok(number) => number.checked_mul(1 << shift),
        Err(_) => Some((digits.parse::<f64>().ok()? * f64::from(2_u32).powi(shift)) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::{Query, bytes, is_meant};
    use types::TagValue;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("1048576"), Some(1 << 20));
        assert_eq!(bytes("10MB"), Some(10 << 20));
        assert_eq!(bytes("16 kB"), Some(16 << 10));
        assert_eq!(bytes("1.5MB"), Some(3 << 19));
        for bad in ["much", "", "-1", "1 mile", "."] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_first_value_counts_and_escapes_are_undone() {
        let query = Query::parse("lag=1&lag=2&tag_dc=a%20b+c&writable");
        assert_eq!(query.lag(), Some(1));
        assert_eq!(query.tags().collect::<Vec<_>>(), [("dc", "a b c")]);
        assert!(query.has("writable") && !query.has("mode"));
    }

    #[test]
    fn tags_are_compared_as_their_texts() {
        assert!(is_meant(&TagValue::Bool(true), "True"));
        assert!(is_meant(&TagValue::Int(7), "7"));
        assert!(is_meant(&TagValue::Text("A".to_owned()), "A"));
        assert!(!is_meant(&TagValue::Text("A".to_owned()), "a"));
    }
}
