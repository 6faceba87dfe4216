//! A host that holds VMs, as a fleet says it.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::name::Label;
use super::origin::Origin;

/// A host that holds VMs.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FleetNode {
    /// Unique among nodes.
    #[schemars(with = "String")]
    pub name: Label,
    /// Where its agent listens, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub agent: Option<SocketAddr>,
    /// The agent's identity: `SHA256:...`, or an Ed25519 public key line. Absent beside `agent`:
    /// the one that it has, or that joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_key: Option<String>,
    /// Whether the agent may have digests signed with the host keys of this front door, and
    /// so impersonate it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trusted: bool,
    /// Where its sshd is, `user@host:port`, if its Docker is reached over SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<String>,
    /// Whether it is the machine of the front door.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
    /// The socket of its Docker there. Absent: the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_socket: Option<String>,
    /// The host key that it has to show: a public key line or `SHA256:...`. Absent: the one that
    /// was, or has to be, confirmed by `keyway node test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// What its address has to lie in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    /// What an operator says of it: `name=value` each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Whose it is; what a served file names is the file's whatever this says. Absent:
    /// whose it is already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

impl FleetNode {
    /// A node of which nothing else is said.
    #[must_use]
    pub const fn new(name: Label) -> Self {
        Self {
            name,
            agent: None,
            agent_key: None,
            trusted: false,
            ssh: None,
            local: false,
            docker_socket: None,
            host_key: None,
            networks: Vec::new(),
            labels: Vec::new(),
            origin: None,
        }
    }
}
