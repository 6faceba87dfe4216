//! WHO OWNS WHAT: users, keys, teams, VMs, pool addresses, nodes, edges, tokens, and the allocator
//! that gives every VM an address at which nobody who may enter it sees another one.
//!
//! [`Model`] is everything at one revision with the indexes that the allocator needs. It is pure:
//! time and chance are arguments, and no file is touched. A [`Command`] is carried out on a
//! [`Draft`] of the model, which can be thrown away; what a draft changed are [`Document`]s, and
//! those are what a store keeps and what the routing map is fed from.
//!
//! What always holds, over all histories (property-tested against a brute-force model):
//! - No principal sees two VMs at one pool address: owner, team members and shares all count,
//!   access by name does not.
//! - A slot, {principal, address}, points at no other VM within the quarantine of its last use.
//! - A command is carried out whole or not at all, and a refusal names who or what is in the
//!   way and what to do.

mod access;
mod allocator;
pub mod apply;
mod audit;
pub mod command;
mod commands;
pub mod document;
pub mod draft;
mod edges;
pub mod fleet;
mod fleet_node;
mod limits;
pub mod model;
pub mod name;
mod node_documents;
mod nodes;
mod noted;
pub(crate) mod object;
mod opened;
mod origin;
mod place;
mod quarantine;
mod reach;
pub mod refusal;
pub mod routes;
mod settings;
mod stand_in;
pub mod store;
mod subject;
mod values;
pub mod writer;

pub use self::command::{Command, Options};
pub use self::commands::docker_of;
pub use self::document::{Document, Key};
pub use self::draft::{Draft, Move, Report, Written};
pub use self::model::{CommandContext, Limits, Model};
pub use self::name::{Label, Principal};
pub use self::refusal::Refusal;
pub(crate) use self::values::{
    agent_address, agent_key, edge_identity, endpoint, is_login, ssh_endpoint,
};
pub use self::writer::Service;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
