//! A user name and its password.

pub use types::{MASK, Secret};

/// A user name and its password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// The user.
    pub username: String,
    /// Its password.
    pub password: Secret,
}
