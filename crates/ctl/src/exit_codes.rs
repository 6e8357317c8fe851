//! What the exit status of `baton` means: one table, from which `docs/exit-codes.md` is written and which a test compares
//! with it. A number never changes its meaning; scripts and unit files depend on them.

/// Why the process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Code {
    Ok,
    Failed,
    Usage,
    Configuration,
    EtcdUnreachable,
    MissingBinaries,
    AddressInUse,
    DataDirectory,
    NameTaken,
    GuardFailed,
    NobodyWouldLead,
    WouldLose,
}

/// One line of the table.
pub(crate) struct Row {
    /// The name in the table and in the code.
    pub code: Code,
    /// The exit status.
    pub number: u8,
    /// What happened.
    pub meaning: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

/// All exit codes, by number.
pub(crate) const TABLE: [Row; 12] = [
    Row { code: Code::Ok, number: 0, meaning: "done, or stopped as asked", remedy: "nothing" },
    Row {
        code: Code::Failed,
        number: 1,
        meaning: "failed or refused",
        remedy: "read the line that starts with `Error:`; nothing was changed unless it says so",
    },
    Row {
        code: Code::Usage,
        number: 2,
        meaning: "the command line was not understood",
        remedy: "`baton help`, or `baton help COMMAND`",
    },
    Row {
        code: Code::Configuration,
        number: 3,
        meaning: "the configuration is missing or invalid",
        remedy: "correct the lines that are named; `baton check FILE` reads it without starting anything",
    },
    Row {
        code: Code::EtcdUnreachable,
        number: 4,
        meaning: "no etcd endpoint answered a command (an agent or router waits instead)",
        remedy: "check the endpoints that are named, and whether a majority of etcd is up",
    },
    Row {
        code: Code::MissingBinaries,
        number: 5,
        meaning: "a program that is needed was not found",
        remedy: "install it, or set `postgresql.bin_dir`",
    },
    Row {
        code: Code::AddressInUse,
        number: 6,
        meaning: "an address to listen on is taken",
        remedy: "stop the other process (`ss -ltnp` shows it), or change the address that is named",
    },
    Row {
        code: Code::DataDirectory,
        number: 7,
        meaning: "the data directory cannot be used: it belongs to another cluster or another user",
        remedy: "correct `postgresql.data_dir`, its owner or `scope`; nothing in it was touched",
    },
    Row {
        code: Code::NameTaken,
        number: 8,
        meaning: "a running member already has this name",
        remedy: "give this one another `name`, or stop the other one",
    },
    Row {
        code: Code::GuardFailed,
        number: 9,
        meaning: "the guard ended by itself (only `baton guard`, which the agent starts)",
        remedy: "read the agent's log",
    },
    Row {
        code: Code::NobodyWouldLead,
        number: 10,
        meaning: "`baton what-if`: nobody would accept writes",
        remedy: "remove what it says against each member, before it happens",
    },
    Row {
        code: Code::WouldLose,
        number: 11,
        meaning: "`baton what-if`: somebody would lead, but acknowledged commits or promised slots could be lost",
        remedy: "use a synchronous mode, or accept the bound that it prints; look after the slots that it names",
    },
];

impl Code {
    /// The exit status.
    #[must_use]
    pub(crate) fn number(self) -> u8 {
        TABLE.iter().find(|row| row.code == self).map_or(1, |row| row.number)
    }
}

/// The table for `baton --help`.
pub(crate) fn help() -> String {
    let rows = TABLE.iter().map(|row| format!("  {:>3}  {}: {}", row.number, row.meaning, row.remedy));
    format!(
        "Exit status:\n{}\nCalled as patronictl: 0, 2 for the command line, 1 for everything else.",
        rows.collect::<Vec<_>>().join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::TABLE;
    use std::fmt::Write;

    fn document() -> String {
        let mut text = String::from(
            "# Exit codes\n\nWhat the exit status of `baton` (also as `patroni` or `patronictl`) means, and what to do.\n\n\
             | status | meaning | what to do |\n|---|---|---|\n",
        );
        for row in TABLE {
            writeln!(text, "| {} | {} | {} |", row.number, row.meaning, row.remedy).unwrap();
        }
        text.push_str(
            "\nCalled as `patronictl` it ends as that does: 2 when the command line was not understood, 1 for every other failure, \
             and 0 also when\na member refused an order (`Failed: …` is printed). Called as `patroni` it knows 0, 2 for the command line, and 1.\n",
        );
        text
    }

    #[test]
    fn the_document_is_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/exit-codes.md");
        if std::env::var_os("BATON_BLESS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert_eq!(written, document(), "set BATON_BLESS=1 to write docs/exit-codes.md from the table");
    }

    #[test]
    fn numbers_are_distinct_and_every_code_has_its_row() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.code.number(), row.number);
            assert!(TABLE.iter().skip(index + 1).all(|other| other.number != row.number));
        }
    }
}
