//! Tunnels to nodes: stock sshds, each with something in the way.

mod node;
mod ways;
mod when;
