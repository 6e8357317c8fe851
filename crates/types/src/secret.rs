//! A text that must never be seen: not in a log, not in an error, not in a command line.

use std::fmt;

/// A password or the like. `Debug` shows stars, there is no `Display`, and [`Secret::reveal`] is the only way to the text,
/// so that a search for its callers lists every place where a password leaves.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

/// What is shown in place of a secret.
pub const MASK: &str = "********";

impl Secret {
    /// Takes a text into custody.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret::new(text)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret::new(text)
    }
}
