//! What the API asks of the data plane, which it does not know: one trait, and what goes
//! in and out of it.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;

use super::nodes_beside::Nodes;
use super::{condition, dto};
use crate::ssh::certificate::{Certificate, CertificateFault};
use crate::ssh::publickey::{Fingerprint, PublicKey};

/// Writes a text that may be long, to whoever takes it as slowly as they like.
pub type WriteText = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// What the API shows and does that is not in the registry. Called on a thread that may wait.
pub trait DataPlane: Send + Sync {
    /// Live sessions, in any order.
    fn sessions(&self) -> Vec<dto::Session>;

    /// Control links to agents, in any order.
    fn links(&self) -> Vec<dto::Link>;

    /// Those who reach nodes.
    fn nodes(&self) -> &dyn Nodes;

    /// Ends a session; false if there is none of that name.
    fn end_session(&self, id: &str) -> bool;

    /// Walks the way of a login and says which step decides.
    fn explain(&self, question: &Question) -> dto::Explanation;

    /// The host keys that this front door presents.
    fn host_keys(&self) -> Vec<dto::HostKey>;

    /// The CA that signs logins to VMs; `None`: they are logged in to with a plain key.
    fn ca(&self) -> Option<Fingerprint>;

    /// The zone as a file for other name servers; `None` without a zone.
    fn zone(&self) -> Option<WriteText>;

    /// How all of it is.
    fn status(&self) -> condition::Status;

    /// Reads the files again; returns when everything that can be renewed is. Nothing if the
    /// process ends meanwhile.
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
    /// There is one already.
    #[error("{0}")]
    Exists(String),
    /// It failed.
    #[error("{0}")]
    Failed(String),
}
