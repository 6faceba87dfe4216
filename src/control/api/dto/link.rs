//! Control links to agents.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Serialize;

/// A control link of this front door to an agent. There is none before the first session.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Link {
    /// The agent's node.
    pub node: String,
    /// Where the agent listens.
    #[schemars(with = "String")]
    pub agent: SocketAddr,
    /// The agent's identity: `SHA256:...`
    pub agent_key: String,
    /// `open`, `closed` while nobody needs it, `broken`, or `leaving`: its agent takes nothing
    /// more.
    pub state: String,
    /// Unix time since which it is open, if it is.
    pub since_s: Option<u64>,
    /// Sessions that the agent carries.
    pub sessions: usize,
    /// Why it was not there last.
    pub error: Option<String>,
    /// When that was, in Unix time.
    pub error_s: Option<u64>,
}
