//! The conditions of a restart, as they stand in the body of `POST /restart`.

use ha::Unmet;
use serde_json::{Map, Value};
use std::time::Duration;

/// Under which a restart was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Conditions {
    role: Option<String>,
    /// Only a PostgreSQL older than this: as a number, and as it was written.
    below: Option<(u32, String)>,
    pending: bool,
    /// How long PostgreSQL may take to come up.
    pub within: Option<Duration>,
}

/// What they are compared with.
pub(crate) struct Present {
    pub role: &'static str,
    pub version: Option<u32>,
    pub pending: bool,
}

impl Conditions {
    /// Reads all but `schedule`; why they cannot be understood.
    pub(crate) fn read(body: &Map<String, Value>) -> Result<Conditions, String> {
        let mut conditions = Conditions::default();
        for (name, wanted) in body {
            match name.as_str() {
                "role" => conditions.role = Some(role(wanted)?),
                "postgres_version" => conditions.below = Some(version(wanted)?),
                // As with Patroni it counts that it is there, not what it says.
                "restart_pending" => conditions.pending = true,
                "timeout" => conditions.within = Some(seconds(wanted)?),
                "schedule" => {}
                other => return Err(format!("Unknown filter for the scheduled restart: {other}")),
            }
        }
        Ok(conditions)
    }

    /// The first that does not hold. A version that is not known holds nobody back.
    pub(crate) fn unmet(&self, present: &Present) -> Option<Unmet> {
        if let Some(wanted) = self.role.as_ref().filter(|role| *role != present.role) {
            return Some(Unmet::Role { wanted: wanted.clone(), is: present.role.to_owned() });
        }
        if self.pending && !present.pending {
            return Some(Unmet::NotPending);
        }
        let (below, text) = self.below.as_ref()?;
        let newer = present.version.is_some_and(|version| version >= *below);
        newer.then(|| Unmet::Version { below: text.clone() })
    }
}

fn role(wanted: &Value) -> Result<String, String> {
    match wanted.as_str() {
        Some("primary" | "master") => Ok("primary".to_owned()),
        Some(role @ ("replica" | "standby_leader")) => Ok(role.to_owned()),
        Some(_) | None => {
            Err("PostgreSQL role should be either primary, standby_leader, or replica".to_owned())
        }
    }
}

fn seconds(wanted: &Value) -> Result<Duration, String> {
    let number = match wanted {
        Value::String(text) => text.trim().parse::<u64>().ok(),
        other => other.as_u64(),
    };
    let number = number.filter(|seconds| *seconds > 0);
    number.map(Duration::from_secs).ok_or_else(|| "Timeout should be a positive number of seconds".to_owned())
}

/// `15.2` as 150002, `9.6.24` as 90624.
fn version(wanted: &Value) -> Result<(u32, String), String> {
    let text = wanted.as_str().map_or_else(|| wanted.to_string(), str::to_owned);
    let parts: Result<Vec<u32>, _> = text.split('.').map(str::parse::<u32>).collect();
    let Ok(parts) = parts else { return Err(format!("Invalid PostgreSQL version: {text}")) };
    let number = match *parts.as_slice() {
        [major, minor] if major >= 10 => {
            major.checked_mul(10_000).and_then(|number| number.checked_add(minor))
        }
        [major, minor] => number(major, minor, 0),
        [major, minor, patch] => number(major, minor, patch),
        _ => None,
    };
    match number {
        Some(number) => Ok((number, text)),
        None => Err(format!("Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: {text}")),
    }
}

fn number(major: u32, minor: u32, patch: u32) -> Option<u32> {
    major.checked_mul(10_000)?.checked_add(minor.checked_mul(100)?)?.checked_add(patch)
}

#[cfg(test)]
mod tests {
    use super::{Conditions, Present};
    use serde_json::{Value, json};
    use std::time::Duration;

    fn read(body: Value) -> Result<Conditions, String> {
        Conditions::read(body.as_object().unwrap())
    }

    #[test]
    fn all_of_them_must_hold() {
        let present = |role, version, pending| Present { role, version: Some(version), pending };
        let unmet = |body, present: Present| read(body).unwrap().unmet(&present).map(|why| why.to_string());
        assert_eq!(unmet(json!({}), present("replica", 150_018, false)), None);
        let all = json!({ "role": "replica", "postgres_version": "15.19", "restart_pending": false });
        assert_eq!(unmet(all.clone(), present("replica", 150_018, true)), None);
        for (other, word) in [
            (present("primary", 150_018, true), "role replica"),
            (present("replica", 150_019, true), "15.19"),
            (present("replica", 150_018, false), "waits for a restart"),
        ] {
            assert!(unmet(all.clone(), other).unwrap().contains(word), "{word}");
        }
        let old = json!({ "postgres_version": "9.6.24" });
        assert_eq!(unmet(old.clone(), present("replica", 90_623, false)), None);
        assert!(unmet(old, present("replica", 90_624, false)).is_some());
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        assert_eq!(read(json!({ "timeout": "30" })).unwrap().within, Some(Duration::from_secs(30)));
        for (body, word) in [
            (json!({ "role": "nobody" }), "PostgreSQL role should be"),
            (json!({ "postgres_version": "9" }), "X.Y or X.Y.Z is accepted: 9"),
            (json!({ "postgres_version": "x" }), "Invalid PostgreSQL version: x"),
            (json!({ "timeout": -1 }), "positive number"),
            (json!({ "timeout": 0 }), "positive number"),
            (json!({ "unknown": 1 }), "Unknown filter for the scheduled restart: unknown"),
        ] {
            assert!(read(body.clone()).unwrap_err().contains(word), "{body}");
        }
    }
}
