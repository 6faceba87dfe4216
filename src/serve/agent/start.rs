//! What an agent starts from.

use crate::config::{AgentFiles, LoadedAgent};

/// What `agent` starts from.
#[derive(Debug)]
pub struct AgentStart {
    /// Read again at SIGHUP, with [`crate::config::load_agent`].
    pub files: AgentFiles,
    /// What they hold now. Its warnings are to be logged.
    pub loaded: LoadedAgent,
}
