//! Hosts that hold VMs, and what carries sessions there.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pattern::NAME;
use crate::registry::document::{self, Origin};
use crate::registry::{Label, Model};

/// What carries a session.
#[derive(Clone, Copy, Debug, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Carried {
    /// The front door, which opens and reseals every packet.
    Relay,
    /// The agent of the VM's node, which the session is handed to.
    Handoff,
}

impl Carried {
    /// Of sessions with a VM.
    pub(super) fn of(model: &Model, vm: &document::Vm) -> Self {
        if model.hands_off(vm) { Self::Handoff } else { Self::Relay }
    }
}

/// A host that holds VMs.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Node {
    /// A DNS label.
    pub name: String,
    /// Where its agent listens; none: it has none.
    #[schemars(with = "Option<String>")]
    pub agent: Option<SocketAddr>,
    /// The agent's identity: `SHA256:...`; none: it has not joined.
    pub agent_key: Option<String>,
    /// The token that its agent is to join with.
    pub join: Option<JoinToken>,
    /// Whether the agent may have digests signed with the host keys of this front door, and
    /// so impersonate it.
    pub trusted: bool,
    /// How many VMs lie here.
    pub vms: usize,
    /// Whose it is: what is the served fleet file's goes when that no longer names it. None while
    /// the registry is away.
    pub origin: Option<Origin>,
    /// Goes up with every change.
    pub revision: u64,
}

/// A token that no agent has joined with.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct JoinToken {
    /// Unix time.
    pub created_s: u64,
    /// Unix time from which on it is refused.
    pub expires_s: u64,
    /// Shown once, to whoever made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl Node {
    /// As the registry has it.
    pub(in super::super) fn of(
        model: &Model,
        name: &Label,
        node: &document::Node,
        revision: u64,
    ) -> Self {
        let agent = node.agent.as_ref();
        let join = node.join.as_ref().filter(|join| join.used_s.is_none());
        Self {
            name: name.to_string(),
            agent: agent.map(|agent| agent.at),
            agent_key: agent.and_then(|agent| agent.key.clone()),
            join: join.map(|join| JoinToken {
                created_s: join.created_s,
                expires_s: join.expires_s,
                token: None,
            }),
            trusted: node.trusted,
            vms: model.vms_on(name).len(),
            origin: model.known(node.origin),
            revision,
        }
    }
}

/// A new node.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NewNode {
    #[schemars(regex(pattern = NAME))]
    pub(in super::super) name: String,
    /// Where its agent listens, if it has one.
    #[schemars(example = "10.0.0.21:7022")]
    pub(in super::super) agent: Option<String>,
    /// The agent's identity: `SHA256:...`, or an Ed25519 public key line. Absent beside `agent`:
    /// that of the agent that joins.
    pub(in super::super) agent_key: Option<String>,
    /// Whether the agent may have digests signed with the host keys of this front door, and
    /// so impersonate it.
    #[serde(default)]
    pub(in super::super) trusted: bool,
}

/// What is to be another way in a node; what is left out stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NodePatch {
    /// Empty: it has none, and no key of one.
    #[schemars(example = "10.0.0.21:7022")]
    pub(in super::super) agent: Option<String>,
    /// Empty: nobody's, until an agent joins.
    pub(in super::super) agent_key: Option<String>,
    pub(in super::super) trusted: Option<bool>,
}

/// A new token for a node's agent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NewJoinToken {
    /// Unix time from which on it is refused; absent: in an hour.
    pub(in super::super) expires_s: Option<u64>,
}
