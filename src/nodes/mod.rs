//! Nodes: hosts that VMs lie on, reached over SSH with nothing installed on them.
//!
//! A *tunnel* is one SSH connection to a node, its host key pinned; a *stream* is one channel
//! of it, to the node's Docker socket or to an address there. *Docker* speaks to a daemon
//! over such streams. The *roster* keeps all nodes there are; a *trial* looks at others.

pub mod daemon;
pub mod docker;
pub mod roster;
pub mod trial;
pub mod tunnel;
