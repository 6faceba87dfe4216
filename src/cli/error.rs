//! What keeps a command from being done, and the exit code that says so.

use std::io;

use super::table::plain;
use super::{CHANGED, FAULTS, UNREACHABLE, USAGE};

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The arguments make no sense together.
    #[error("{0}")]
    Usage(String),
    /// No server.
    #[error("{0}")]
    Unreachable(String),
    /// The server says no; nothing has changed.
    #[error("{detail} [{code}]")]
    Refused {
        /// A word for programs.
        code: String,
        /// What and why, and what to do about it.
        detail: String,
    },
    /// Anything else, with what to do.
    #[error("{0}")]
    Failed(String),
    /// Nobody reads what is said.
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl CliError {
    pub(super) fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }

    /// The exit code.
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Unreachable(_) => UNREACHABLE,
            Self::Refused { code, .. } if code == "changed" => CHANGED,
            Self::Refused { .. } | Self::Failed(_) | Self::Output(_) => FAULTS,
        }
    }

    /// Tells it, unless nobody reads.
    pub(super) fn tell(self, stderr: &mut dyn io::Write) -> io::Result<u8> {
        let code = self.code();
        if let Self::Output(error) = self {
            return Err(error);
        }
        writeln!(stderr, "keyway: {}", plain(&self.to_string()))?;
        Ok(code)
    }
}

/// The exit code, or why not.
pub(super) type Outcome = Result<u8, CliError>;
