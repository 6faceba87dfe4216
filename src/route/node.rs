//! Hosts that hold VMs, and what carries a session there: decided by configuration, never by
//! what can be reached.

use std::net::SocketAddr;
use std::sync::Arc;

use super::contents::{Agent, NodeEntry};
use super::vm::{Carry, Vm};

/// A node with an agent, as the live map holds it. Never changes in place: a change
/// makes a new one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// A DNS label.
    pub name: String,
    /// Where its agent listens.
    pub agent: SocketAddr,
    /// SHA-256 of the public key blob of the agent's identity.
    pub agent_key: [u8; 32],
    /// Whether the agent may have digests signed with the host keys of this front door.
    pub trusted: bool,
}

/// What carries a session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Carriage {
    /// This process opens and reseals every packet.
    Relay,
    /// The agent of this node takes the session over. The node is trusted.
    Handoff(Arc<Node>),
}

/// Why no session is handed off.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoHandoff {
    /// The VM lies on none.
    #[error("the VM has no node")]
    NoNode,
    /// Nobody takes a session over there.
    #[error("the node has no agent")]
    NoAgent,
    /// Nobody knows yet who would.
    #[error("the agent of the node has not joined")]
    NotJoined,
    /// Its agent must not have anything signed.
    #[error("the node is not trusted")]
    Untrusted,
}

/// A node as the live map holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Host {
    /// Without an agent.
    Plain,
    /// With one.
    Agent(Arc<Node>),
}

impl Host {
    /// The one there is, if that is the same.
    pub(super) fn of(entry: &NodeEntry, now: Option<&Self>) -> Self {
        let NodeEntry { name, agent, trusted } = entry;
        let Some(Agent { at, key }) = *agent else { return Self::Plain };
        let node = Node { name: name.clone(), agent: at, agent_key: key, trusted: *trusted };
        match now {
            Some(Self::Agent(now)) if **now == node => Self::Agent(Arc::clone(now)),
            Some(_) | None => Self::Agent(Arc::new(node)),
        }
    }

    pub(super) const fn node(&self) -> Option<&Arc<Node>> {
        match self {
            Self::Plain => None,
            Self::Agent(node) => Some(node),
        }
    }

    /// Whom a session is handed to.
    pub(super) fn handoff(&self) -> Result<&Arc<Node>, NoHandoff> {
        let node = self.node().ok_or(NoHandoff::NoAgent)?;
        if node.trusted { Ok(node) } else { Err(NoHandoff::Untrusted) }
    }
}

impl Vm {
    /// What carries its sessions, where its node is known.
    ///
    /// # Errors
    /// It is to be handed off, and cannot be.
    pub(super) fn carriage(&self, host: Option<&Host>) -> Result<Carriage, NoHandoff> {
        if self.carry == Carry::Relay {
            return Ok(Carriage::Relay);
        }
        match host.map_or(Err(NoHandoff::NoNode), Host::handoff) {
            Ok(node) => Ok(Carriage::Handoff(Arc::clone(node))),
            Err(_) if self.carry == Carry::Auto => Ok(Carriage::Relay),
            Err(why) => Err(why),
        }
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
