//! The parameters that Patroni and Baton control: equal on all members, given on PostgreSQL's command line.

/// What a controlled parameter may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// A whole number of at least this.
    AtLeast(i64),
    /// Megabytes of at least this.
    Megabytes(i64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// On or off.
    OnOff,
    /// Nobody but us sets it.
    Fixed,
}

/// A controlled parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Controlled {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) rule: Rule,
    /// Whether it is given on the command line; else it stands in the file.
    pub(crate) command_line: bool,
    /// The first version that has it, and the first that no longer has it.
    pub(crate) since: u32,
    pub(crate) until: u32,
}

const fn controlled(name: &'static str, default: &'static str, rule: Rule) -> Controlled {
    Controlled { name, default, rule, command_line: true, since: 0, until: u32::MAX }
}

pub(crate) const CONTROLLED: &[Controlled] = &[
    controlled("listen_addresses", "", Rule::Fixed),
    controlled("port", "", Rule::Fixed),
    controlled("cluster_name", "", Rule::Fixed),
    controlled("wal_level", "replica", Rule::OneOf(&["hot_standby", "replica", "logical"])),
    controlled("hot_standby", "on", Rule::Fixed),
    controlled("max_connections", "100", Rule::AtLeast(25)),
    controlled("max_wal_senders", "10", Rule::AtLeast(3)),
    controlled("max_prepared_transactions", "0", Rule::AtLeast(0)),
    controlled("max_locks_per_transaction", "64", Rule::AtLeast(32)),
    controlled("track_commit_timestamp", "off", Rule::OnOff),
    controlled("max_replication_slots", "10", Rule::AtLeast(4)),
    controlled("max_worker_processes", "8", Rule::AtLeast(2)),
    controlled("wal_log_hints", "on", Rule::Fixed),
    Controlled {
        command_line: false,
        until: 130_000,
        ..controlled("wal_keep_segments", "8", Rule::AtLeast(1))
    },
    Controlled {
        command_line: false,
        since: 130_000,
        ..controlled("wal_keep_size", "128MB", Rule::Megabytes(16))
    },
];

/// Whether a parameter counts only in the dynamic configuration, if at all.
#[must_use]
pub fn is_controlled(name: &str) -> bool {
    CONTROLLED.iter().any(|guc| guc.name == name)
}

/// What a controlled parameter is where nobody asks for anything else, or for something impossible.
#[must_use]
pub fn controlled_default(name: &str) -> Option<&'static str> {
    CONTROLLED.iter().find(|guc| guc.name == name && !matches!(guc.rule, Rule::Fixed)).map(|guc| guc.default)
}

/// Whether nobody but us sets it.
pub(crate) fn is_fixed(name: &str) -> bool {
    CONTROLLED.iter().any(|guc| guc.name == name && matches!(guc.rule, Rule::Fixed))
}

impl Controlled {
    /// The value to use for what was asked for; `Err` says what would have been right.
    pub(crate) fn accept(&self, value: &str) -> Result<String, String> {
        let text = value.trim();
        match self.rule {
            Rule::AtLeast(least) => match text.parse::<i64>() {
                Ok(number) if number >= least => Ok(number.to_string()),
                _ => Err(format!("a whole number of at least {least}")),
            },
            Rule::Megabytes(least) => match megabytes(text) {
                Some(number) if number >= least as f64 => Ok(text.to_owned()),
                _ => Err(format!("a size of at least {least}MB")),
            },
            Rule::OneOf(words) => words
                .iter()
                .find(|word| word.eq_ignore_ascii_case(text))
                .map(|word| (*word).to_owned())
                .ok_or_else(|| format!("one of {}", words.join(", "))),
            Rule::OnOff => match text.to_ascii_lowercase().as_str() {
                "on" | "true" | "yes" | "1" => Ok("on".to_owned()),
                "off" | "false" | "no" | "0" => Ok("off".to_owned()),
                _ => Err("on or off".to_owned()),
            },
            Rule::Fixed => Err("left out: it is set by itself".to_owned()),
        }
    }
}

/// A size in PostgreSQL's units; a bare number counts megabytes, the unit of `wal_keep_size`.
fn megabytes(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match unit.trim() {
        "B" => 1.0 / 1_048_576.0,
        "kB" => 1.0 / 1024.0,
        "" | "MB" => 1.0,
        "GB" => 1024.0,
        "TB" => 1_048_576.0,
        _ => return None,
    };
    Some(number * factor)
}
