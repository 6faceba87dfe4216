//! THE API: JSON over HTTP/1.1 on a unix socket, and over TLS where that is configured.
//!
//! One table (`routes`) says everything about every route; `server` serves it. The registry is asked through its
//! service, and what is not in the registry through [`DataPlane`]: this room does not know the data plane. Whoever is at
//! the socket is told by the kernel, whoever comes over TLS by a token; nothing is served on TCP without TLS.
//!
//! Everything a peer can make it hold is bounded, and one bad connection ends alone.

mod auth;
mod body;
pub mod condition;
mod context;
mod handlers;
mod openapi;
mod origin;
mod pipeline;
mod problem;
mod query;
mod reply;
mod request;
mod response;
mod routes;
mod server;
#[cfg(test)]
mod testing;
mod trace;
pub mod view;
mod watch;

use std::{
    io::{self, Write},
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

pub use server::{ApiServeError, Handle, Reserved, reserve};

use auth::{Peers, Process};
use trace::Traces;

use crate::{
    config::Peer,
    registry::{Service, document::Role},
    ssh::{
        certificate::{Certificate, CertificateFault},
        publickey::{Fingerprint, PublicKey},
    },
};

/// Watchers at a time: each has a thread of its own.
const WATCHERS_MAX: usize = 16;
/// Answers at a time that show everything there is: a registry of a million VMs is some 300 MB of text.
const WHOLE_MAX: usize = 2;
/// Requests at a time that wait for the registry, each on a thread of its own; others wait for their turn.
const TURNS_MAX: usize = 16;

/// Writes a text that may be long, to whoever takes it as slowly as they like.
pub type WriteText = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

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
}

/// What the API shows and does that is not in the registry. Called on a thread that may wait.
pub trait DataPlane: Send + Sync {
    /// Live sessions, in any order.
    fn sessions(&self) -> Vec<view::Session>;

    /// Ends a session; false if there is none of that name.
    fn end_session(&self, id: &str) -> bool;

    /// Walks the way of a login and says which step decides.
    ///
    /// # Errors
    /// [`DataPlaneError`].
    fn explain(&self, question: &Question) -> Result<view::Explanation, DataPlaneError>;

    /// The host keys that this front door presents.
    fn host_keys(&self) -> Vec<view::HostKey>;

    /// The CA that signs logins to VMs; `None`: they are logged in to with a plain key.
    fn ca(&self) -> Option<Fingerprint>;

    /// The zone as a file for other name servers; `None` without a zone.
    fn zone(&self) -> Option<WriteText>;

    /// How all of it is.
    fn status(&self) -> condition::Status;

    /// Reads the files again; returns when everything that can be renewed is. Nothing if the process ends meanwhile.
    fn reload(&self, order: condition::Reload) -> Option<condition::Reloaded>;

    /// Copies the store to a file that must not exist. The path is absolute.
    ///
    /// # Errors
    /// [`DataPlaneError`].
    fn backup(&self, to: &Path) -> Result<(), DataPlaneError>;
}

/// A login that somebody wonders about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Question {
    /// With what.
    pub asked: Asked,
    /// Where to.
    pub target: Target,
    /// What stands before the @.
    pub login: Option<String>,
    /// Where from; `None` for wherever it would do.
    pub from: Option<IpAddr>,
}

/// What somebody would log in with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Asked {
    /// A key.
    Key(PublicKey),
    /// A key of which nobody knows more.
    Fingerprint(Fingerprint),
    /// A certificate, or what is wrong with its signature.
    Certificate(Result<Box<Certificate>, CertificateFault>),
}

/// Where a login goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// The name or an IP of a pool address; as given.
    Address(String),
    /// A VM's name, with the zone or without; as given.
    Name(String),
}

/// Why something beside the registry was not done.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DataPlaneError {
    /// There is no such thing.
    #[error("{0}")]
    Absent(String),
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There is one already.
    #[error("{0}")]
    Exists(String),
    /// It failed.
    #[error("{0}")]
    Failed(String),
}

/// What all connections share.
pub(crate) struct Api {
    service: Arc<Service>,
    beside: Arc<dyn DataPlane>,
    watchers: Arc<Semaphore>,
    whole: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    roles: Roles,
    traces: Traces,
}

/// What a peer of the socket may do, by the user that this process runs as and by what the kernel says of it. May wait for
/// files.
type RoleOf = Box<dyn Fn(Process) -> Option<Role> + Send + Sync>;

/// Replaced at a reload.
type Roles = Arc<ArcSwap<RoleOf>>;

fn role_of(peers: Vec<(Peer, Role)>) -> RoleOf {
    let peers = Peers::new(peers, Path::new("/etc"));
    Box::new(move |Process { own_uid, is }| peers.role(own_uid, is))
}

impl Api {
    fn new(service: Arc<Service>, beside: Arc<dyn DataPlane>, role_of: RoleOf) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        let (watchers, whole, turns) = (places(WATCHERS_MAX), places(WHOLE_MAX), places(TURNS_MAX));
        let roles = Arc::new(ArcSwap::from_pointee(role_of));
        Self { service, beside, watchers, whole, turns, roles, traces: Traces::new() }
    }

    fn role(&self, process: Process) -> Option<Role> {
        (self.roles.load())(process)
    }
}

/// Serves the API, from the moment this returns.
///
/// # Errors
/// [`ApiServeError`].
pub fn start(start: Start) -> Result<Handle, ApiServeError> {
    let Start { reserved, peers, service, beside } = start;
    let api = Arc::new(Api::new(service, beside, role_of(peers)));
    server::start(api, reserved)
}

#[cfg(test)]
mod away_tests;
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
