//! What a store keeps of nodes: what each is, and how it was found last.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::origin::Origin;
use crate::route::NoHandoff;
use crate::ssh::publickey::PublicKey;

/// Where Docker listens, unless somebody says otherwise.
pub const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// A host that holds VMs.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What takes sessions over there, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// The token that its agent joins with, made last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<JoinToken>,
    /// Whether the agent may have digests signed with the host keys of this front door, and
    /// so impersonate it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trusted: bool,
    /// Its Docker, and how to get there; none: nothing is run there by Keyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<Docker>,
    /// What an operator says of it, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "is_by_command")]
    pub origin: Origin,
}

/// The agent of a node.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Where it listens.
    pub at: SocketAddr,
    /// `SHA256:...` of its identity, which no other node has; none: it has not joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What an agent joins with, once; only a hash of it is kept.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct JoinToken {
    /// As in [`Token`](super::document::Token).
    pub hash: String,
    /// Unix time.
    pub created_s: u64,
    /// Unix time from which on it is refused.
    pub expires_s: u64,
    /// Unix time at which the agent joined, whose answer may have been lost on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_s: Option<u64>,
}

/// The Docker of a node.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Docker {
    /// Its socket there: an absolute path.
    pub socket: String,
    /// How to get there; none: it is on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshAccess>,
}

/// How a node is logged in to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SshAccess {
    /// Where its sshd is.
    #[serde(flatten)]
    pub endpoint: SshEndpoint,
    /// What it has to show: a public key line or `SHA256:...`; none: nobody has confirmed
    /// one, and it is not dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// What its address has to lie in; empty: anywhere but where only this machine, or nobody,
    /// answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<IpNet>,
    /// What it is logged in to with; none: the node key of this front door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<SealedKey>,
}

/// `user@host:port`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SshEndpoint {
    /// The account.
    pub user: String,
    /// A name, or an IP address without brackets.
    pub host: String,
    /// Its sshd's.
    pub port: u16,
}

impl fmt::Display for SshEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, host, port } = self;
        if host.contains(':') {
            write!(f, "{user}@[{host}]:{port}")
        } else {
            write!(f, "{user}@{host}:{port}")
        }
    }
}

/// A private key that only this front door can read.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SealedKey {
    /// The line of its public half.
    pub public: String,
    /// Base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sealed: String,
}

/// How a node was found.
#[derive(
    Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Reached {
    /// It was never reached.
    #[default]
    Pending,
    /// Its Docker answers.
    Online,
    /// It was reached, and there is something to mend.
    Error,
    /// It is not reached.
    Offline,
}

impl Reached {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Online => "online",
            Self::Error => "error",
            Self::Offline => "offline",
        }
    }
}

/// How a node was found when that last changed.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct NodeState {
    /// How it is.
    pub reached: Reached,
    /// Why it is not online, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Unix time since which it is so.
    pub since_s: u64,
    /// Unix time at which its Docker answered last, as far as it was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_s: Option<u64>,
    /// Version of its Docker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_version: Option<String>,
    /// As its Docker calls it: `x86_64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// How its Docker is reached: `streamlocal`, `dial-stdio`, `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// `SHA256:...` of a host key that it showed and must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_by_command(origin: &Origin) -> bool {
    matches!(origin, Origin::Command)
}

impl Node {
    /// Why nothing is handed off there, if so.
    #[must_use]
    pub const fn no_handoff(&self) -> Option<NoHandoff> {
        match (&self.agent, self.trusted) {
            (None, _) => Some(NoHandoff::NoAgent),
            (Some(Agent { key: None, .. }), _) => Some(NoHandoff::NotJoined),
            (Some(_), false) => Some(NoHandoff::Untrusted),
            (Some(_), true) => None,
        }
    }

    /// How it is logged in to, if it is a host elsewhere.
    #[must_use]
    pub fn ssh(&self) -> Option<&SshAccess> {
        self.docker.as_ref()?.ssh.as_ref()
    }
}

/// The fingerprint of a host key as it is kept: a line, or the fingerprint itself.
#[must_use]
pub fn fingerprint_of(text: &str) -> String {
    PublicKey::parse_line(text)
        .map_or_else(|_| text.to_owned(), |(key, _)| key.fingerprint().to_string())
}
