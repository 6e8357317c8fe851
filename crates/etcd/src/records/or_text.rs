//! A word that we know, or the text of one that we do not.

use types::{PostgresState, Role};

/// A word that we know, or the text of one that a newer or older agent wrote.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum OrText<T> {
    Known(T),
    Other(String),
}

impl<T: Copy> OrText<T> {
    /// The word, if we know it.
    #[must_use]
    pub fn known(&self) -> Option<T> {
        match self {
            OrText::Known(word) => Some(*word),
            OrText::Other(_) => None,
        }
    }
}

impl OrText<PostgresState> {
    #[must_use]
    pub fn parse_state(text: &str) -> OrText<PostgresState> {
        PostgresState::parse(text).map_or_else(|| OrText::Other(text.to_owned()), OrText::Known)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            OrText::Known(state) => state.as_str(),
            OrText::Other(text) => text,
        }
    }
}

impl OrText<Role> {
    #[must_use]
    pub fn parse_role(text: &str) -> OrText<Role> {
        Role::parse(text).map_or_else(|| OrText::Other(text.to_owned()), OrText::Known)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            OrText::Known(role) => role.as_str(),
            OrText::Other(text) => text,
        }
    }
}

impl<T> From<T> for OrText<T> {
    fn from(word: T) -> OrText<T> {
        OrText::Known(word)
    }
}
