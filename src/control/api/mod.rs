//! THE API: JSON over HTTP/1.1 on a unix socket, and over TLS where that is configured.
//!
//! One table (`routes`) says everything about every route; `server` serves it. The registry is
//! asked through its service, and what is not in the registry through [`DataPlane`]: this room does
//! not know the data plane. Whoever is at the socket is told by the kernel, whoever comes over TLS
//! by a token; nothing is served on TCP without TLS.
//!
//! Everything a peer can make it hold is bounded, and one bad connection ends alone.

mod auth;
mod body;
pub mod condition;
mod context;
mod converse;
mod data_plane;
pub mod dto;
mod follow;
mod handlers;
mod join;
mod nodes_beside;
mod openapi;
mod origin;
mod over_tls;
mod pipeline;
mod problem;
mod query;
mod reply;
mod response;
mod routes;
mod serve_error;
mod server;
mod shared;
#[cfg(test)]
mod testing;
mod trace;
mod watch;

use std::sync::Arc;

pub use self::data_plane::{Asked, DataPlane, DataPlaneError, Question, Target, WriteText};
pub use self::nodes_beside::{GivenKey, Nodes, Trial, Tried};
pub use self::serve_error::ApiServeError;
pub use self::server::{Handle, Reserved, reserve};
use super::feed::Hub;
use crate::config::Peer;
use crate::registry::Service;
use crate::registry::document::Role;

/// What the API is started with.
pub struct Start {
    /// Where it is served.
    pub reserved: Reserved,
    /// What peers of the socket may do that are neither root nor the user this process runs as.
    pub peers: Vec<(Peer, Role)>,
    /// The registry.
    pub service: Arc<Service>,
    /// Everything else.
    pub beside: Arc<dyn DataPlane>,
    /// The feed, for whoever follows the registry.
    pub hub: Arc<Hub>,
}

/// Serves the API, from the moment this returns.
///
/// # Errors
/// [`ApiServeError`].
pub fn start(start: Start) -> Result<Handle, ApiServeError> {
    let Start { reserved, peers, service, beside, hub } = start;
    let api = Arc::new(shared::Api::new(service, beside, shared::role_of(peers), hub));
    server::start(api, reserved)
}

#[cfg(test)]
mod away_tests;
#[cfg(test)]
mod edge_tests;
#[cfg(test)]
mod follow_tests;
#[cfg(test)]
mod join_tests;
#[cfg(test)]
mod node_tests;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod slow_tests;
#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
#[cfg(test)]
mod walk_tests;
#[cfg(test)]
mod whole_tests;
