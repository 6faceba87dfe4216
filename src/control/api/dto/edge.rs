//! Edges, by the identities that agents know them by.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pattern::NAME;
use crate::registry::document::{self, EdgeState, Origin};
use crate::ssh::publickey::Fingerprint;

/// An edge: what agents let hand sessions over to them, and have sign.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Edge {
    /// A DNS label, unique among those that are admitted.
    pub name: String,
    /// Of its identity: `SHA256:...`
    pub fingerprint: String,
    /// Its identity: an Ed25519 public key line.
    pub identity: String,
    /// Whether agents take sessions from it.
    pub state: EdgeState,
    /// Unix time since which that is so.
    pub since_s: u64,
    /// Who made it so, as the audit log names them.
    pub by: String,
    /// Whose it is: what is the served fleet file's goes when that no longer names it. Of one that
    /// is removed: who removed it.
    pub origin: Origin,
    /// Goes up with every change.
    pub revision: u64,
}

impl Edge {
    /// As the registry has it.
    pub(in super::super) fn of(key: Fingerprint, edge: &document::Edge, revision: u64) -> Self {
        Self {
            name: edge.name.to_string(),
            fingerprint: key.to_string(),
            identity: edge.key.clone(),
            state: edge.state,
            since_s: edge.since_s,
            by: edge.by.clone(),
            origin: edge.origin,
            revision,
        }
    }
}

/// A new edge, or one that was removed and comes back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NewEdge {
    #[schemars(regex(pattern = NAME))]
    pub(in super::super) name: String,
    /// Its identity: an Ed25519 public key line, as `keyway identity` prints it there.
    pub(in super::super) identity: String,
}
