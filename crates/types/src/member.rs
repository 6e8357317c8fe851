//! How a member describes its PostgreSQL to the others.

use std::fmt;

/// The state of a member's PostgreSQL as published in its key and by REST. The texts are Patroni's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PostgresState {
    Initializing,
    InitializeFailed,
    CustomBootstrap,
    CustomBootstrapFailed,
    CreatingReplica,
    Running,
    Starting,
    BootstrapStarting,
    StartFailed,
    Restarting,
    RestartFailed,
    Stopping,
    Stopped,
    StopFailed,
    Crashed,
}

impl PostgresState {
    /// All states, in the order of the metric `patroni_postgres_state`.
    pub const ALL: [PostgresState; 15] = [
        PostgresState::Initializing,
        PostgresState::InitializeFailed,
        PostgresState::CustomBootstrap,
        PostgresState::CustomBootstrapFailed,
        PostgresState::CreatingReplica,
        PostgresState::Running,
        PostgresState::Starting,
        PostgresState::BootstrapStarting,
        PostgresState::StartFailed,
        PostgresState::Restarting,
        PostgresState::RestartFailed,
        PostgresState::Stopping,
        PostgresState::Stopped,
        PostgresState::StopFailed,
        PostgresState::Crashed,
    ];

    /// The text in member keys and REST answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PostgresState::Initializing => "initializing new cluster",
            PostgresState::InitializeFailed => "initdb failed",
            PostgresState::CustomBootstrap => "running custom bootstrap script",
            PostgresState::CustomBootstrapFailed => "custom bootstrap failed",
            PostgresState::CreatingReplica => "creating replica",
            PostgresState::Running => "running",
            PostgresState::Starting => "starting",
            PostgresState::BootstrapStarting => "starting after custom bootstrap",
            PostgresState::StartFailed => "start failed",
            PostgresState::Restarting => "restarting",
            PostgresState::RestartFailed => "restart failed",
            PostgresState::Stopping => "stopping",
            PostgresState::Stopped => "stopped",
            PostgresState::StopFailed => "stop failed",
            PostgresState::Crashed => "crashed",
        }
    }

    /// The state with this text, if there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<PostgresState> {
        PostgresState::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// The value of the metric `patroni_postgres_state`.
    #[must_use]
    pub fn metric(self) -> i64 {
        PostgresState::ALL.iter().position(|state| *state == self).map_or(-1, |at| at as i64)
    }
}

impl fmt::Display for PostgresState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The role of a member as published in its key and by REST. The texts are Patroni's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    Primary,
    Replica,
    StandbyLeader,
    Demoted,
    Promoted,
    Uninitialized,
}

impl Role {
    /// The text in member keys and REST answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::StandbyLeader => "standby_leader",
            Role::Demoted => "demoted",
            Role::Promoted => "promoted",
            Role::Uninitialized => "uninitialized",
        }
    }

    /// The role with this text; `master` is what Patroni before 4.0 wrote for a primary.
    #[must_use]
    pub fn parse(text: &str) -> Option<Role> {
        match text {
            "primary" | "master" => Some(Role::Primary),
            "replica" => Some(Role::Replica),
            "standby_leader" => Some(Role::StandbyLeader),
            "demoted" => Some(Role::Demoted),
            "promoted" => Some(Role::Promoted),
            "uninitialized" => Some(Role::Uninitialized),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::PostgresState;

    #[test]
    fn states_are_numbered_and_named_once() {
        for (number, state) in PostgresState::ALL.into_iter().enumerate() {
            assert_eq!(state.metric(), number as i64);
            assert_eq!(PostgresState::parse(state.as_str()), Some(state));
        }
        assert_eq!(PostgresState::parse("resting"), None);
    }
}
