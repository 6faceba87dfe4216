//! What a table is asked, and what it answers.

use std::sync::Arc;

use super::vm::Vm;

/// Who asks: the fingerprint of a key, or the user a trusted certificate names.
#[derive(Clone, Copy, Debug)]
pub enum Who<'a> {
    /// SHA-256 of the raw public key blob.
    Key([u8; 32]),
    /// A user's name.
    User(&'a str),
}

/// What the `authorized_keys` line of a key says beside the key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeyLine {
    /// Nobody has this key.
    Unknown,
    /// Somebody has it, without options. So it is for everybody who comes without a key.
    Plain,
    /// Its options, as they were given.
    Options(Arc<str>),
}

/// A way in that exists.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The user's name, whichever of the user's principals opened the way.
    pub user: Arc<str>,
    /// Where it leads.
    pub vm: Arc<Vm>,
    /// The login to use in the VM.
    pub login: String,
    /// Whether the VM was asked for by name (`login+vm-name`).
    pub by_name: bool,
}

/// The answer to somebody at an address.
#[derive(Clone, Debug)]
pub enum Admission {
    /// One VM, no other.
    Vm(Admitted),
    /// Any registered user at a lobby address.
    Lobby {
        /// The user's name.
        user: Arc<str>,
    },
}

/// Why there is no way in. For `explain` and the operator's log only: a stranger must not learn
/// which of these it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No user has this key, or no user has this name.
    #[error("not registered")]
    Unregistered,
    /// The user has no VM at this address.
    #[error("no VM at this address")]
    EmptySlot,
    /// No VM has the name asked for.
    #[error("no VM of that name")]
    NoSuchVm,
    /// The VM named exists, but the user may not enter it.
    #[error("not allowed to enter that VM")]
    Forbidden,
    /// Neither the VM nor the request names a login.
    #[error("no login name")]
    NoLogin,
}
