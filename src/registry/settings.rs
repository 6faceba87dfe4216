//! What can be set of VMs and nodes, each of it by itself.

use serde::{Deserialize, Serialize};

use super::document::VmState;
use crate::route::Carry;

/// What can be set of a VM.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct VmSettings {
    /// `host:port` of its sshd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<String>,
    /// The login to use; empty: the name the user asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Its host key; empty: the first one it shows, or that it has shown since this one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// From where the edge may come, as the VM sees it: `own`, `none`, or networks;
    /// empty: as for all VMs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// Whether it can be entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<VmState>,
    /// The node that it lies on, by name; empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// How its sessions are to be carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carry: Option<Carry>,
}

/// What can be set of a node.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct NodeSettings {
    /// Where its agent listens, `ip:port`; empty: it has none, and no key of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The identity of its agent: `SHA256:...`, or an Ed25519 public key line; empty: nobody's,
    /// until an agent joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_key: Option<String>,
    /// Whether the agent may have digests signed with the host keys of this front door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted: Option<bool>,
}
