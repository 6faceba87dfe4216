//! Who is at the other end of a handoff.

use std::net::SocketAddr;

use crate::ssh::publickey::Fingerprint;

/// Who else has part in a session: it ends when that one is trusted no more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FarEnd {
    /// Of an edge's session.
    Agent(Peer),
    /// Of an agent's session: the edge, by its key.
    Edge(Fingerprint),
}

/// Where an agent is, and who it is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Peer {
    /// The node's name.
    pub node: String,
    /// Of its listener.
    pub address: SocketAddr,
    /// Of its identity.
    pub key: Fingerprint,
}
