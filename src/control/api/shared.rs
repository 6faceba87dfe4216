//! What all connections of the API share: whom to ask, how much at a time, and who may what.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use super::auth::{Peers, Process};
use super::data_plane::DataPlane;
use super::trace::Traces;
use crate::config::Peer;
use crate::control::feed::{Hub, Seats};
use crate::registry::Service;
use crate::registry::document::Role;

/// Watchers at a time: each has a thread of its own.
pub(super) const WATCHERS_MAX: usize = 16;
/// Answers at a time that show everything there is: a registry of a million VMs is
/// some 300 MB of text.
pub(super) const WHOLE_MAX: usize = 2;
/// Requests at a time that wait for the registry, each on a thread of its own; others
/// wait for their turn.
pub(super) const TURNS_MAX: usize = 16;

/// What all connections share.
pub(super) struct Api {
    pub(super) service: Arc<Service>,
    pub(super) beside: Arc<dyn DataPlane>,
    pub(super) hub: Arc<Hub>,
    pub(super) following: Arc<Seats>,
    pub(super) watchers: Arc<Semaphore>,
    pub(super) whole: Arc<Semaphore>,
    pub(super) turns: Arc<Semaphore>,
    pub(super) roles: Roles,
    pub(super) traces: Traces,
}

/// What a peer of the socket may do, by the user that this process runs as and by what the kernel
/// says of it. May wait for files.
pub(super) type RoleOf = Box<dyn Fn(Process) -> Option<Role> + Send + Sync>;

/// Replaced at a reload.
pub(super) type Roles = Arc<ArcSwap<RoleOf>>;

/// Roles by what `api.peers` says.
pub(super) fn role_of(peers: Vec<(Peer, Role)>) -> RoleOf {
    let peers = Peers::new(peers, Path::new("/etc"));
    Box::new(move |Process { own_uid, is }| peers.role(own_uid, is))
}

impl Api {
    pub(super) fn new(
        service: Arc<Service>,
        beside: Arc<dyn DataPlane>,
        role_of: RoleOf,
        hub: Arc<Hub>,
    ) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        let (watchers, whole, turns) = (places(WATCHERS_MAX), places(WHOLE_MAX), places(TURNS_MAX));
        let roles = Arc::new(ArcSwap::from_pointee(role_of));
        let (following, traces) = (Arc::default(), Traces::new());
        Self { service, beside, hub, following, watchers, whole, turns, roles, traces }
    }

    pub(super) fn role(&self, process: Process) -> Option<Role> {
        (self.roles.load())(process)
    }
}
