//! What the API asks of those who reach nodes, whom it does not know: one trait, and what goes
//! in and out of it.

use zeroize::Zeroizing;

use super::dto;
use crate::registry::Label;
use crate::registry::document::{Docker, NodeState, SealedKey};

/// A private key, as somebody gave it. Shown to nobody.
#[derive(Clone)]
pub struct GivenKey {
    /// OpenSSH's form, or PEM.
    pub text: Zeroizing<String>,
    /// What opens it.
    pub passphrase: Option<Zeroizing<String>>,
}

/// A node that is to be tried.
pub struct Trial {
    /// What it is called, if it is one already.
    pub name: Option<Label>,
    /// Where it is. Its host key, if there is one, is what it has to show.
    pub docker: Docker,
    /// What to log in with, if not with what `docker` says.
    pub key: Option<GivenKey>,
    /// Whether the host key that it shows first will do; else the trial ends before anything
    /// is sent that only the node should see.
    pub accept_new: bool,
}

/// What came of a trial.
pub struct Tried {
    /// For whoever asked.
    pub shown: dto::NodeTest,
    /// For the registry; none: it is not online.
    pub state: Option<NodeState>,
}

/// What the API shows and does that needs nodes to be reached. Called on a thread that may wait.
pub trait Nodes: Send + Sync {
    /// Seals a key for a node.
    ///
    /// # Errors
    /// Why it cannot be used, and what to do.
    fn seal(&self, node: &Label, key: &GivenKey) -> Result<SealedKey, String>;

    /// Tries a node, within a time.
    fn test(&self, trial: Trial) -> Tried;

    /// Unix time at which the node's Docker answered last, if it did while this process runs.
    fn seen_s(&self, node: &Label) -> Option<u64>;
}
