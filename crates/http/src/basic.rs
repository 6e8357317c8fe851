//! Basic authentication.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// A user and a password. The `Debug` text holds no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    /// The value of the `Authorization` header.
    #[must_use]
    pub fn header(&self) -> String {
        format!("Basic {}", base64(format!("{}:{}", self.username, self.password).as_bytes()))
    }
}

/// Base64 with its padding.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::Credentials;

    #[test]
    fn the_header_is_encoded_and_nothing_shows_the_password() {
        let credentials = Credentials { username: "u".to_owned(), password: "p?>".to_owned() };
        assert_eq!(credentials.header(), "Basic dTpwPz4=");
        assert!(!format!("{credentials:?}").contains("p?>"));
    }
}
