//! The audit log.

use schemars::JsonSchema;
use serde::Serialize;

/// An entry of the audit log.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Audit {
    /// Later entries have greater keys.
    pub key: String,
    /// Unix time.
    pub at_s: u64,
    /// Who asked for it.
    pub actor: Actor,
    /// What, with all its parameters.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub command: serde_json::Value,
    /// The code of the refusal, of what was tried and not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// VMs that were given another address.
    #[schemars(with = "Vec<std::collections::BTreeMap<String, String>>")]
    pub moves: serde_json::Value,
}

/// Who did something.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Actor {
    /// `uid 0`, `token ci`.
    pub name: String,
    /// `socket`, or an IP address and port.
    pub from: String,
}
