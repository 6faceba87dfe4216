//! What can be set of VMs and nodes, each of it by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use super::document::{SealedKey, VmState};
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
    /// Where its sshd is, `user@host:port`; empty: it is not reached over SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<String>,
    /// Whether it is this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<bool>,
    /// The socket of its Docker there: an absolute path; empty: the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_socket: Option<String>,
    /// The host key that it has to show: a public key line or `SHA256:...`; empty: one that
    /// somebody has yet to confirm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// What its address has to lie in; empty: anywhere that is not special.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    /// What it is logged in to with: a key that is sealed already, and of which the audit log has
    /// the public half alone.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "public_half")]
    pub credential: Option<SealedKey>,
    /// It is logged in to with the front door's own node key again, if none is given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_credential: bool,
    /// All of what is said of it, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

#[expect(clippy::ref_option, reason = "as serde hands it over")]
fn public_half<S: Serializer>(key: &Option<SealedKey>, to: S) -> Result<S::Ok, S::Error> {
    let public = key.as_ref().map(|key| key.public.clone()).unwrap_or_default();
    SealedKey { public, sealed: String::new() }.serialize(to)
}
