//! Times that people write for a switchover or a restart.

use crate::failure::Failure;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};

/// A moment, and how far the writer's clock is from UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    local: DateTime,
    offset: Offset,
}

impl Schedule {
    /// As it is written into orders: `2030-01-01T10:00:00+02:00`.
    pub(super) fn iso(&self) -> String {
        self.with('T')
    }

    /// As it is shown in a question: with a space for the T.
    pub(super) fn shown(&self) -> String {
        self.with(' ')
    }

    fn with(&self, between: char) -> String {
        let (time, seconds) = (self.local, self.offset.seconds());
        let fraction = time.time().strftime("%6f").to_string();
        let fraction = if fraction == "000000" { String::new() } else { format!(".{fraction}") };
        let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
        format!(
            "{}{between}{}{fraction}{sign}{:02}:{:02}",
            time.strftime("%Y-%m-%d"),
            time.strftime("%H:%M:%S"),
            minutes / 60,
            minutes % 60
        )
    }
}

/// Reads a time; `now` and nothing are none. One without an offset is local time, one without a date is today.
pub(super) fn read(text: &str) -> Result<Option<Schedule>, Failure> {
    let text = text.trim();
    if text.is_empty() || text == "now" {
        return Ok(None);
    }
    let found = parse(text, super::wall().date());
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

fn parse(text: &str, today: Date) -> Option<Schedule> {
    let (civil, offset) = split(text)?;
    let local: DateTime = match civil.parse::<DateTime>() {
        Ok(local) => local,
        Err(_) if !civil.contains(':') => return None,
        Err(_) => today.to_datetime(civil.parse::<Time>().ok()?),
    };
    let offset = match offset {
        Some(offset) => offset,
        None => local.to_zoned(TimeZone::system()).ok()?.offset(),
    };
    Some(Schedule { local, offset })
}

/// The time and its offset: `Z`, `+02`, `+0200` or `+02:00` behind it, if any.
fn split(text: &str) -> Option<(&str, Option<Offset>)> {
    if let Some(civil) = text.strip_suffix(['Z', 'z']) {
        return Some((civil.trim_end(), Some(Offset::UTC)));
    }
    let from = text.find(':').unwrap_or(text.len());
    let Some(at) = text.get(from..).and_then(|time| time.rfind(['+', '-'])).map(|at| at + from) else {
        return Some((text, None));
    };
    let (civil, offset) = text.split_at_checked(at)?;
    let digits: String = offset.chars().filter(char::is_ascii_digit).collect();
    let number = |part: Option<&str>| part.unwrap_or("0").parse::<i32>().ok();
    let (hours, minutes) = match digits.len() {
        2 => (number(digits.get(..2))?, 0),
        4 => (number(digits.get(..2))?, number(digits.get(2..))?),
        _ => return None,
    };
    let seconds = hours * 3600 + minutes * 60;
    let seconds = if offset.starts_with('-') { -seconds } else { seconds };
    Some((civil.trim_end(), Some(Offset::from_seconds(seconds).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::{parse, read};
    use jiff::civil::date;

    #[test]
    fn times_are_read_as_they_are_written() {
        assert_eq!(read("now").unwrap(), None);
        assert_eq!(read("").unwrap(), None);
        for (text, iso) in [
            ("2030-01-01T10:00:00Z", "2030-01-01T10:00:00+00:00"),
            ("2030-01-01T10:00+02:00", "2030-01-01T10:00:00+02:00"),
            ("2030-01-01 10:00+0230", "2030-01-01T10:00:00+02:30"),
            ("2030-01-01 10:00 -05", "2030-01-01T10:00:00-05:00"),
            ("2030-01-01T10:00:00.5Z", "2030-01-01T10:00:00.500000+00:00"),
            ("10:30Z", "2026-11-23T10:30:00+00:00"),
        ] {
            assert_eq!(parse(text, date(2026, 11, 23)).unwrap().iso(), iso, "{text}");
        }
        assert!(read("2030-01-01T10:00").unwrap().unwrap().iso().starts_with("2030-01-01T10:00:00"));
        assert!(read("2030-01-01").unwrap().unwrap().iso().starts_with("2030-01-01T00:00:00"));
        assert_eq!(read("2030-01-01T10:00Z").unwrap().unwrap().shown(), "2030-01-01 10:00:00+00:00");
        for bad in ["tomorrow", "2030-13-01T10:00", "10", "2030-01-01T10:00+2"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
