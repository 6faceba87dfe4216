//! Hosts that hold VMs, and what carries sessions there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pattern::NAME;
use crate::registry::document::{self, NodeState, Origin, Reached, fingerprint_of};
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
    /// A name or an IP address; none: it is not reached over SSH.
    pub host: Option<String>,
    /// Its sshd's.
    pub port: Option<u16>,
    /// Whom it is logged in to as.
    pub user: Option<String>,
    /// The key it is logged in with: the line of its public half; none: the front door's
    /// own node key.
    pub key: Option<String>,
    /// The host key that it has to show: `SHA256:...`; none: nobody has confirmed one.
    pub host_key: Option<String>,
    /// What its address has to lie in.
    pub networks: Vec<String>,
    /// Whether it is the machine of the front door.
    pub local: bool,
    /// The socket of its Docker there; none: Keyway reaches none.
    pub docker_socket: Option<String>,
    /// What an operator says of it, by name.
    pub labels: BTreeMap<String, String>,
    /// How it was found; none: Keyway reaches no Docker there.
    pub state: Option<Reached>,
    /// Why it is not online.
    pub reason: Option<String>,
    /// The same in a word.
    pub cause: Option<String>,
    /// Unix time since which it is so.
    pub since_s: Option<u64>,
    /// Unix time at which its Docker answered last.
    pub last_seen: Option<u64>,
    /// Version of its Docker.
    pub docker_version: Option<String>,
    /// As its Docker calls it: `x86_64`.
    pub architecture: Option<String>,
    /// How its Docker is reached: `streamlocal`, `dial-stdio`, `local`.
    pub via: Option<String>,
    /// `SHA256:...` of a host key that it showed and must not.
    pub shown: Option<String>,
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
        let (docker, ssh) = (node.docker.as_ref(), node.ssh());
        let unseen = NodeState::default();
        let found = model.node_state(name).unwrap_or(&unseen);
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
            host: ssh.map(|ssh| ssh.endpoint.host.clone()),
            port: ssh.map(|ssh| ssh.endpoint.port),
            user: ssh.map(|ssh| ssh.endpoint.user.clone()),
            key: ssh.and_then(|ssh| Some(ssh.credential.as_ref()?.public.clone())),
            host_key: ssh.and_then(|ssh| ssh.host_key.as_deref()).map(fingerprint_of),
            networks: ssh
                .map(|it| it.networks.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            local: docker.is_some() && ssh.is_none(),
            docker_socket: docker.map(|docker| docker.socket.clone()),
            labels: node.labels.clone(),
            state: docker.map(|_| found.reached),
            reason: found.reason.clone(),
            cause: found.cause.clone(),
            since_s: Some(found.since_s).filter(|since_s| *since_s > 0),
            last_seen: found.seen_s,
            docker_version: found.docker_version.clone(),
            architecture: found.architecture.clone(),
            via: found.via.clone(),
            shown: found.shown.clone(),
            vms: model.vms_on(name).len(),
            origin: model.known(node.origin),
            revision,
        }
    }
}

/// A new node.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the body")]
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
    /// What an operator says of it, by name.
    #[serde(default)]
    pub(in super::super) labels: BTreeMap<String, String>,
    /// Where its sshd is, if it is reached over SSH.
    #[schemars(example = "root@203.0.113.9:22")]
    pub(in super::super) ssh: Option<String>,
    /// Whether it is the machine of the front door.
    #[serde(default)]
    pub(in super::super) local: bool,
    /// Its socket there; absent: the usual one.
    pub(in super::super) docker_socket: Option<String>,
    /// The host key that it has to show: a public key line or `SHA256:...`.
    pub(in super::super) host_key: Option<String>,
    /// The first host key that it shows will do.
    #[serde(default)]
    pub(in super::super) accept_new: bool,
    /// What its address has to lie in.
    pub(in super::super) networks: Option<Vec<String>>,
    /// What to log in with, in OpenSSH's form or PEM; absent: the front door's own node key.
    pub(in super::super) private_key: Option<String>,
    /// What opens it.
    pub(in super::super) passphrase: Option<String>,
    /// It is kept without being tried, and pending.
    #[serde(default)]
    pub(in super::super) untested: bool,
}

/// A node that is to be tried, and kept by nobody.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NewTest {
    /// Where its sshd is, if it is reached over SSH.
    #[schemars(example = "root@203.0.113.9:22")]
    pub(in super::super) ssh: Option<String>,
    /// Whether it is the machine of the front door.
    #[serde(default)]
    pub(in super::super) local: bool,
    /// Its socket there; absent: the usual one.
    pub(in super::super) docker_socket: Option<String>,
    /// The host key that it has to show: a public key line or `SHA256:...`.
    pub(in super::super) host_key: Option<String>,
    /// The first host key that it shows will do.
    #[serde(default)]
    pub(in super::super) accept_new: bool,
    /// What its address has to lie in.
    pub(in super::super) networks: Option<Vec<String>>,
    /// What to log in with, in OpenSSH's form or PEM; absent: the front door's own node key.
    pub(in super::super) private_key: Option<String>,
    /// What opens it.
    pub(in super::super) passphrase: Option<String>,
}

/// How a node that is known is to be tried.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Retest {
    /// The host key that is confirmed, where none is yet: a public key line or `SHA256:...`.
    pub(in super::super) host_key: Option<String>,
    /// The first host key that it shows will do, where none is confirmed yet.
    #[serde(default)]
    pub(in super::super) accept_new: bool,
}

/// What came of trying a node.
#[derive(Clone, Debug, Default, JsonSchema, Serialize)]
pub struct NodeTest {
    /// How it was found.
    pub state: Reached,
    /// What is in the way, for people; none: nothing.
    pub reason: Option<String>,
    /// What mends it.
    pub fix: Option<String>,
    /// What is in the way, in a word; `host-key-unconfirmed`: whoever asks has to say that the
    /// host key is right.
    pub cause: Option<String>,
    /// The host key that it showed: `SHA256:...`.
    pub host_key: Option<String>,
    /// The same as a line.
    pub host_key_line: Option<String>,
    /// Version of its Docker.
    pub docker_version: Option<String>,
    /// Newest version of the Docker API there.
    pub api_version: Option<String>,
    /// As its Docker calls it: `x86_64`.
    pub architecture: Option<String>,
    /// How its Docker is reached: `streamlocal`, `dial-stdio`, `local`.
    pub via: Option<String>,
    /// What was seen of the account and of the socket, for people.
    pub probe: Option<String>,
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
    /// Empty: it is not reached over SSH any more.
    #[schemars(example = "root@203.0.113.9:22")]
    pub(in super::super) ssh: Option<String>,
    /// Whether it is the machine of the front door.
    pub(in super::super) local: Option<bool>,
    /// Empty: the usual one.
    pub(in super::super) docker_socket: Option<String>,
    /// A public key line or `SHA256:...`; empty: one that somebody has yet to confirm.
    pub(in super::super) host_key: Option<String>,
    /// What its address has to lie in.
    pub(in super::super) networks: Option<Vec<String>>,
    /// What to log in with, in OpenSSH's form or PEM; empty: the front door's own node key.
    pub(in super::super) private_key: Option<String>,
    /// What opens it.
    pub(in super::super) passphrase: Option<String>,
    /// All of what is said of it, by name.
    pub(in super::super) labels: Option<BTreeMap<String, String>>,
}

/// A new token for a node's agent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NewJoinToken {
    /// Unix time from which on it is refused; absent: in an hour.
    pub(in super::super) expires_s: Option<u64>,
}
