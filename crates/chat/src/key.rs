//! Secrets.

use std::fmt;

/// A secret that is shown nowhere.
#[derive(Clone)]
pub struct ApiKey(pub(crate) String);

impl ApiKey {
    /// From an environment variable.
    ///
    /// # Errors
    /// What is wrong with it, without its value.
    pub fn from_env(variable: &str) -> std::result::Result<Self, String> {
        match std::env::var(variable) {
            Ok(key) if key.is_empty() => Err(format!("the environment variable {variable} is empty")),
            Ok(key) if key.bytes().all(|c| c.is_ascii_graphic()) => Ok(Self(key)),
            Ok(_) | Err(std::env::VarError::NotUnicode(_)) => {
                Err(format!("the environment variable {variable} holds what is no key: spaces, or not ASCII"))
            }
            Err(std::env::VarError::NotPresent) => {
                Err(format!("the environment variable {variable} is not set"))
            }
        }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(***)")
    }
}
