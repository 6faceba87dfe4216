//! A VM's host key at its first use: whoever keeps it is told here, and answers.

use crate::route::Vm;
use crate::ssh::publickey::PublicKey;

/// Keeps the host keys that VMs show when there is none they have to show. What is kept comes back
/// with the routing map.
pub trait FirstUse: Send + Sync {
    /// What answers for `vm`, as it was dialled, has shown `key`, and has proved that it holds the
    /// private half. Blocks (a few milliseconds).
    fn shown(&self, vm: &Vm, key: &PublicKey) -> Shown;
}

/// What came of a key that a VM has shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Shown {
    /// It is the VM's from now on, or was already: another shard was faster.
    Pinned,
    /// Another key is pinned: refuse the session.
    Other,
    /// The key belongs to a VM of another owner: refuse the session.
    OfOtherOwner {
        /// That VM's name.
        vm: String,
    },
    /// Nothing is pinned: refuse the session.
    Failed {
        /// What failed.
        why: String,
    },
}
