//! `synchronous_standby_names` as it is to be written: the leader's choice, or the user's own.
//!
//! ```text
//!   off ──────► the user's own parameter
//!   managed ──► primary: what was chosen; what it shows already, as long as this agent has chosen nothing
//!           └─► standby: what it starts with when it is promoted, nobody or (strict) everybody
//! ```

use crate::wake::Cell;
use ha::{SyncMode, Synchronous};
use postgres::probe::Facts;
use std::sync::{Mutex, MutexGuard, PoisonError};
use types::StandbyNames;

/// The names, and the lock under which files with them are written.
pub(crate) struct SyncNames {
    rules: Cell<Synchronous>,
    chosen: Cell<Chosen>,
    writing: Mutex<()>,
}

#[derive(Clone)]
enum Chosen {
    /// Nothing was chosen since this agent started.
    Untouched,
    /// The user's own parameter.
    Users,
    Names(StandbyNames),
}

impl Default for SyncNames {
    fn default() -> SyncNames {
        SyncNames {
            rules: Cell::new(Synchronous::default()),
            chosen: Cell::new(Chosen::Untouched),
            writing: Mutex::new(()),
        }
    }
}

impl SyncNames {
    /// The settings have changed.
    pub(crate) fn set_rules(&self, rules: Synchronous) {
        self.rules.with(|kept| *kept = rules);
    }

    /// Whether the leader chooses them.
    pub(crate) fn managed(&self) -> bool {
        self.rules.get().mode != SyncMode::Off
    }

    /// The leader has chosen; `None`: the user's own.
    pub(crate) fn choose(&self, names: Option<StandbyNames>) {
        self.chosen.with(|chosen| *chosen = names.map_or(Chosen::Users, Chosen::Names));
    }

    /// While this is held nobody else writes a file with the names in it.
    pub(crate) fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be written; `None`: the user's own. `shown` is what a running primary says.
    pub(crate) fn value(&self, primary: bool, shown: Option<String>) -> Option<String> {
        let rules = self.rules.get();
        let managed = rules.mode != SyncMode::Off;
        match (primary, self.chosen.get()) {
            (true, Chosen::Names(names)) => Some(names.to_string()),
            (true, Chosen::Users) => None,
            (true, Chosen::Untouched) => shown.filter(|_| managed),
            (false, _) if !managed => None,
            (false, _) if rules.strict => {
                Some(StandbyNames::Everybody { any: rules.mode == SyncMode::Quorum }.to_string())
            }
            (false, _) => Some(String::new()),
        }
    }
}

/// Whether a primary that ran before shows other names now, and commits wait for somebody.
pub(crate) fn took_effect(before: &Facts, now: &Facts) -> bool {
    let (old, new) = (&before.synchronous_standby_names, &now.synchronous_standby_names);
    !before.in_recovery && !now.in_recovery && old != new && !new.is_empty()
}

#[cfg(test)]
mod tests {
    use super::SyncNames;
    use ha::{SyncMode, Synchronous};
    use types::StandbyNames;

    fn rules(mode: SyncMode, strict: bool) -> Synchronous {
        Synchronous { mode, strict, count: 1, maximum_lag: None }
    }

    #[test]
    fn the_users_own_names_count_while_nobody_manages_them() {
        let names = SyncNames::default();
        assert_eq!(names.value(true, Some("x".to_owned())), None);
        assert_eq!(names.value(false, None), None);
    }

    #[test]
    fn an_agent_that_starts_leaves_a_primary_as_it_is() {
        let names = SyncNames::default();
        names.set_rules(rules(SyncMode::On, false));
        assert_eq!(names.value(true, Some("n2".to_owned())).as_deref(), Some("n2"));
        names.choose(Some(StandbyNames::Nobody));
        assert_eq!(names.value(true, Some("n2".to_owned())).as_deref(), Some(""));
        // Until the leader has taken /sync away.
        names.set_rules(rules(SyncMode::Off, false));
        assert_eq!(names.value(true, None).as_deref(), Some(""));
        names.choose(None);
        assert_eq!(names.value(true, None), None);
    }

    #[test]
    fn a_standby_is_ready_to_be_promoted() {
        let names = SyncNames::default();
        for (mode, strict, text) in
            [(SyncMode::On, false, ""), (SyncMode::On, true, "*"), (SyncMode::Quorum, true, "ANY 1 (*)")]
        {
            names.set_rules(rules(mode, strict));
            assert_eq!(names.value(false, None).as_deref(), Some(text));
        }
    }
}
