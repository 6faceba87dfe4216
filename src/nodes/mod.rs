//! Nodes: hosts that VMs lie on, reached over SSH with nothing installed on them.
//!
//! A *tunnel* is one SSH connection to a node, its host key pinned; a *stream* is one channel
//! of it, to the node's Docker socket or to an address there. *Docker* speaks to a daemon
//! over such streams.

pub mod docker;
pub mod tunnel;
