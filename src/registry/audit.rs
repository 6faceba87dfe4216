//! What the audit log keeps: who did what, when, from where, and what followed from it.

use serde::{Deserialize, Serialize};

use super::command::Command;
use super::draft::Move;

/// Who orders.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Actor {
    /// As the audit log names them: `uid 0`, `token ci`, `keyway serve --fleet`.
    pub name: String,
    /// Where from: `socket`, or an IP address and port.
    pub from: String,
}

/// An entry of the audit log.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Audit {
    /// Unix time.
    pub at_s: u64,
    /// Who.
    pub actor: Actor,
    /// What, with all its parameters.
    pub command: Command,
    /// What followed from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Moved>,
}

/// A [`Move`] as the audit log keeps it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Moved {
    vm: String,
    from: String,
    to: String,
}

impl From<&Move> for Moved {
    fn from(moved: &Move) -> Self {
        let Move { vm, from, to, .. } = moved;
        Self { vm: vm.to_string(), from: from.to_string(), to: to.to_string() }
    }
}
