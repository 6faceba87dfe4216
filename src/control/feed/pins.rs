//! Host keys that VMs show at their first use go upwards: the registry pins them.

use serde::{Deserialize, Serialize};

/// A VM has shown a key, and there is none that it has to show.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::control) struct PinQuestion {
    /// The VM's id.
    pub(in crate::control) vm: String,
    /// Whose it was, and where, when it was dialled.
    pub(in crate::control) owner: String,
    pub(in crate::control) endpoint: String,
    /// The public key line.
    pub(in crate::control) key: String,
}

/// What came of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PinAnswer {
    /// It is the VM's from now on, or was already.
    Pinned,
    /// Another one is.
    Other,
    /// It is that of this VM, which another owner has.
    OfOtherOwner(String),
    /// Nothing is, and why.
    Failed(String),
}
