//! What a front door starts from, and why it ends.

use crate::config::{Files, Loaded};

/// What `serve` starts from.
#[derive(Debug)]
pub struct Start {
    /// Read again at SIGHUP, with [`crate::config::load`].
    pub files: Files,
    /// What they hold now. Its warnings are to be logged.
    pub loaded: Loaded,
}

/// Why a role ended other than as it should: one line for stderr.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
