//! Times that people write for a switchover or a restart.

use crate::failure::Failure;
use etcd::Schedule;

/// Reads a time; `now` and nothing are none. One without an offset is local time, one without a date is today.
pub(super) fn read(text: &str) -> Result<Option<Schedule>, Failure> {
    let text = text.trim();
    if text.is_empty() || text == "now" {
        return Ok(None);
    }
    let found = Schedule::read_here(text, super::wall().date());
    found.map(Some).ok_or_else(|| {
        Failure::refused(format!(
            "Unable to parse scheduled timestamp ({text}). It should be in an unambiguous format (e.g. ISO 8601)"
        ))
    })
}

/// The time an hour from now, as an example of how to write one.
pub(super) fn example() -> String {
    let soon = super::wall().checked_add(jiff::Span::new().hours(1)).unwrap_or_else(|_| super::wall());
    soon.strftime("%Y-%m-%dT%H:%M").to_string()
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn now_and_nothing_are_no_time() {
        assert_eq!(read("now").unwrap(), None);
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read("2030-01-01T10:00Z").unwrap().unwrap().iso(), "2030-01-01T10:00:00+00:00");
        assert!(read("tomorrow").unwrap_err().message.contains("(tomorrow)"));
    }
}
