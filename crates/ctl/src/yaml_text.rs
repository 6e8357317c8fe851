//! How a string may be written in YAML 1.1 so that it is read back as this very string, by Patroni and by Baton alike.

/// Whether every character may stand outside of an escape; a newline may.
pub(crate) fn printable(text: &str) -> bool {
    text.chars()
        .all(|c| c == '\n' || (!c.is_control() && c != '\u{FEFF}' && !matches!(c, '\u{2028}' | '\u{2029}')))
}

/// Whether single quotes can hold it: a space beside a break would get lost.
pub(crate) fn single_is_possible(text: &str) -> bool {
    printable(text) && !text.contains(" \n") && !text.contains("\n ")
}

/// `text` in double quotes.
pub(crate) fn double(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            c if printable(c.encode_utf8(&mut [0; 4])) => out.push(c),
            c if u32::from(c) <= 0xFF => out.push_str(&format!("\\x{:02X}", u32::from(c))),
            c => out.push_str(&format!("\\u{:04X}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// Whether the bare text is read back as this very string.
pub(crate) fn plain(text: &str) -> bool {
    let words = ["null", "~", "true", "false", "yes", "no", "on", "off", "=", "<<"];
    let edge = |c: char| c == ' ' || c == '\n';
    if text.is_empty()
        || text.starts_with(edge)
        || text.ends_with(edge)
        || text.contains('\n')
        || !printable(text)
        || words.contains(&text.to_ascii_lowercase().as_str())
    {
        return false;
    }
    let starts_badly = text.starts_with(|c: char| "!&*|>%@`\"'#,[]{}".contains(c))
        || (text.starts_with(['-', '?', ':']) && text.chars().nth(1).is_none_or(|c| c == ' '))
        || text.starts_with("---")
        || text.starts_with("...");
    let breaks = text.contains(": ") || text.contains(" #") || text.ends_with(':');
    !(starts_badly || breaks || like_number_or_date(text))
}

fn like_number_or_date(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let bare = unsigned.replace('_', "");
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let of = |prefix: &str, radix: u32| {
        bare.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    let numeric = digits(&bare) || of("0x", 16) || of("0o", 8) || of("0b", 2) || sexagesimal(unsigned);
    // The reader of the agent takes `1e5` for a number, Patroni's does not.
    let float = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && bare.parse::<f64>().is_ok();
    let special = matches!(unsigned.to_ascii_lowercase().as_str(), ".inf" | ".nan");
    numeric || float || special || date(text)
}

/// `2030-01-01`, alone or with a time behind it.
fn date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 8
        && bytes.iter().take(4).all(u8::is_ascii_digit)
        && bytes.get(4) == Some(&b'-')
        && bytes.get(5).is_some_and(u8::is_ascii_digit)
        && (bytes.get(6) == Some(&b'-') || bytes.get(7) == Some(&b'-'))
}

/// `10:30` and `1:02:03.5` are numbers in YAML 1.1.
fn sexagesimal(text: &str) -> bool {
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    let mut parts = whole.split(':');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let first = parts.next().is_some_and(digits);
    let mut rest = parts.peekable();
    first
        && rest.peek().is_some()
        && rest.all(|part| digits(part) && part.parse::<u8>().is_ok_and(|part| part < 60))
}

#[cfg(test)]
mod tests {
    use crate::yaml::inline;
    use serde_json::json;

    #[test]
    fn strings_that_would_be_something_else_are_quoted() {
        for (text, quoted) in [
            ("on", true),
            ("100", true),
            ("010", true),
            ("1_000", true),
            ("1.5", true),
            ("0x1f", true),
            ("10:30", true),
            ("2030-01-01T10:00:00+00:00", true),
            ("", true),
            ("a: b", true),
            ("*", true),
            ("- x", true),
            ("null", true),
            ("it's", false),
            ("y", false),
            ("-", true),
            ("-x", false),
            ("128MB", false),
            ("0/4000060", false),
            ("md5", false),
            ("/usr/bin/x %p", false),
        ] {
            assert_eq!(inline(&json!(text)).starts_with('\''), quoted, "{text}");
            let back = settings::to_json("text", &inline(&json!(text))).unwrap();
            assert_eq!(back, json!(text));
        }
    }
}
