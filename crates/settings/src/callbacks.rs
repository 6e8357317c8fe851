//! `postgresql.callbacks`: commands that run when PostgreSQL was started, stopped, or changed its role.

use crate::values::Values;

/// A command for each event, as written: it is split like a shell would and given the action, the role and the scope.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Callbacks {
    pub on_start: Option<String>,
    pub on_stop: Option<String>,
    pub on_restart: Option<String>,
    pub on_reload: Option<String>,
    pub on_role_change: Option<String>,
}

impl Callbacks {
    /// The section as meant; `None` when it is not there.
    pub(crate) fn build(values: &Values) -> Option<Callbacks> {
        let named = |name: &str| values.text(&format!("postgresql.callbacks.{name}"));
        let callbacks = Callbacks {
            on_start: named("on_start"),
            on_stop: named("on_stop"),
            on_restart: named("on_restart"),
            on_reload: named("on_reload"),
            on_role_change: named("on_role_change"),
        };
        (callbacks != Callbacks::default()).then_some(callbacks)
    }
}
