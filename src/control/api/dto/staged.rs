//! A large commit that waits.

use schemars::JsonSchema;
use serde::Serialize;

use crate::control::feed;

/// A large commit that one agent has, and others have later.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Staged {
    /// The registry's revision that the agent has to come to.
    pub revision: u64,
    /// Whose agent has it first.
    pub canary: String,
    /// Nodes whose agents wait.
    pub waiting: usize,
    /// `waiting` while the agent is watched, `held` if something keeps it.
    pub state: String,
    /// What keeps it.
    pub error: Option<String>,
}

impl From<feed::Staged> for Staged {
    fn from(staged: feed::Staged) -> Self {
        let feed::Staged { revision, canary, waiting, trouble: error } = staged;
        let state = if error.is_some() { "held" } else { "waiting" }.to_owned();
        Self { revision, canary, waiting, state, error }
    }
}
