//! Why there is no answer.

use downshift_scheduler::{Attempt, ConfigError, Refused};

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The models or settings are wrong: file, line, key and remedy.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No model answered, or an answer broke off: every attempt and why it failed.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Error {
    /// What was tried, in order.
    pub fn attempts(&self) -> &[Attempt] {
        match self {
            Self::Config(_) => &[],
            Self::Refused(refused) => &refused.attempts,
        }
    }
}
