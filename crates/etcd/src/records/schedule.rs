//! A time that a person wrote, for a switchover or a restart to come.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use std::time::SystemTime;

/// A moment, and how far the writer's clock is from UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    local: DateTime,
    offset: Offset,
}

/// Why a text is no schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSchedule {
    #[error("it should be in an unambiguous format, as ISO 8601")]
    Unreadable,
    #[error("it has no time zone")]
    NoZone,
}

impl Schedule {
    /// Reads a time with its offset from UTC: every member must understand the same by it.
    pub fn read(text: &str) -> Result<Schedule, NoSchedule> {
        let (civil, offset) = split(text.trim()).ok_or(NoSchedule::Unreadable)?;
        let local: DateTime = civil.parse().map_err(|_| NoSchedule::Unreadable)?;
        Ok(Schedule { local, offset: offset.ok_or(NoSchedule::NoZone)? })
    }

    /// Reads a time as a person writes it here: one without an offset is local time, one without a date is `today`.
    #[must_use]
    pub fn read_here(text: &str, today: Date) -> Option<Schedule> {
        let (civil, offset) = split(text.trim())?;
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

    /// As it is written into orders: `2030-01-01T10:00:00+02:00`.
    #[must_use]
    pub fn iso(&self) -> String {
        self.with('T')
    }

    /// As it is shown in a question: with a space for the T.
    #[must_use]
    pub fn shown(&self) -> String {
        self.with(' ')
    }

    /// On the wall clock.
    #[must_use]
    pub fn at(&self) -> Option<SystemTime> {
        let at: Timestamp = self.offset.to_timestamp(self.local).ok()?;
        Some(at.into())
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
    use super::{NoSchedule, Schedule};
    use jiff::civil::date;
    use std::time::{Duration, SystemTime};

    #[test]
    fn times_are_read_as_they_are_written() {
        for (text, iso) in [
            ("2030-01-01T10:00:00Z", "2030-01-01T10:00:00+00:00"),
            ("2030-01-01T10:00+02:00", "2030-01-01T10:00:00+02:00"),
            ("2030-01-01 10:00+0230", "2030-01-01T10:00:00+02:30"),
            ("2030-01-01 10:00 -05", "2030-01-01T10:00:00-05:00"),
            ("2030-01-01T10:00:00.5Z", "2030-01-01T10:00:00.500000+00:00"),
        ] {
            assert_eq!(Schedule::read(text).unwrap().iso(), iso, "{text}");
        }
        let here = |text| Schedule::read_here(text, date(2026, 11, 23)).unwrap();
        assert_eq!(here("10:30Z").iso(), "2026-11-23T10:30:00+00:00");
        assert!(here("2030-01-01T10:00").iso().starts_with("2030-01-01T10:00:00"));
        assert!(here("2030-01-01").iso().starts_with("2030-01-01T00:00:00"));
        assert_eq!(here("2030-01-01T10:00Z").shown(), "2030-01-01 10:00:00+00:00");
        for bad in ["tomorrow", "2030-13-01T10:00", "10", "2030-01-01T10:00+2"] {
            assert_eq!(Schedule::read_here(bad, date(2026, 11, 23)), None, "{bad}");
        }
    }

    #[test]
    fn between_members_a_time_has_a_zone() {
        assert_eq!(Schedule::read("2030-01-01T10:00:00"), Err(NoSchedule::NoZone));
        assert_eq!(Schedule::read("tomorrow"), Err(NoSchedule::Unreadable));
        let at = Schedule::read("1970-01-01T02:00:01.5+02:00").unwrap().at();
        assert_eq!(at, Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1500)));
    }
}
