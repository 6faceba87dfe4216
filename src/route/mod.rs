//! WHO MAY GO WHERE: {proved identity, pool address} -> VM.
//!
//! Pure: no socket, no clock, no file, and of SSH only how a key is written. A [`Snapshot`] is
//! built from [`Contents`] (a fleet file, or a registry) and cannot contradict itself; a [`Table`]
//! is the live map every shard reads without a lock. One writer applies snapshots and [`Delta`]s; a
//! reader sees all of one or all of the next, never a mixture. [`saved`] writes both as bytes.
//!
//! Words: a *principal* is a user or a team (written `team:ops`), a *slot* is {principal, pool
//! address} and holds at most one VM. A lookup takes two steps, {key -> principals} and {principal,
//! address -> VM}, so that the size of a team multiplies nothing: its slots stand once, and each
//! member has its id.

use std::borrow::Cow;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

mod apply_snapshot;
mod changes;
mod contents;
mod contradiction;
mod delta;
mod draft;
mod hash;
mod node;
pub mod saved_routes;
mod snapshot;
mod source_address;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod user_routes;
mod versioned;
mod writer;

pub use self::contents::{
    AddressEntry, Agent, Change, Contents, Delta, KeyEntry, NodeEntry, Slot, TEAMS_MAX, TeamEntry,
    UserEntry, VmEntry,
};
pub use self::contradiction::{Contradiction, EntryIndex, What};
pub use self::delta::Changed;
pub use self::node::{Carriage, Carry, NoHandoff, Node};
pub use self::snapshot::{
    LABEL_BYTES_MAX, RESERVED, Snapshot, TEAM_PREFIX, is_dialable, is_id, is_label,
};
pub use self::source_address::SourceAddress;
pub use self::table::{Table, Way};

/// Who asks: the fingerprint of a key, or the user a trusted certificate names.
#[derive(Clone, Copy, Debug)]
pub enum Who<'a> {
    /// SHA-256 of the raw public key blob.
    Key([u8; 32]),
    /// A user's name.
    User(&'a str),
}

/// A VM as the data plane needs it. Never changes in place: a change makes a new one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Vm {
    /// Names it for good, whatever it is called: the certificate that lets the edge in is for this
    /// id. A VM of a fleet file has none but its name.
    pub id: String,
    /// Its name, a DNS label.
    pub name: String,
    /// The principal it belongs to: a user's name, or `team:` and a team's.
    pub owner: String,
    /// `host:port`, resolved and checked at every dial.
    pub endpoint: String,
    /// The login to use in the VM whatever name the user asked for.
    pub login: Option<String>,
    /// The host key it has to show; without one the first key seen is pinned.
    pub host_key: Option<Pin>,
    /// From where the edge may come, as the VM sees it; `None`: as for all VMs.
    pub source_address: Option<SourceAddress>,
    /// The pool address its DNS name points at, by name. Opens no way: slots do.
    pub address: Option<String>,
    /// Whether nobody may enter it: it is in maintenance. Its name, its slots and
    /// everybody's right stay.
    pub closed: bool,
    /// How its sessions are to be carried.
    pub carry: Carry,
    /// The node that it lies on, by name: one text for all VMs that lie there.
    pub node: Option<Arc<str>>,
}

impl Vm {
    /// The entry as every map of one fleet has it, for a comparison: without the host key, which
    /// whoever dials the VM may have pinned by itself, and without its DNS name's address.
    pub fn entry(&self) -> Vec<u8> {
        let entry = Self { host_key: None, address: None, ..self.clone() };
        // Texts, numbers and options of them always have a form.
        postcard::to_allocvec(&entry).unwrap_or_default()
    }
}

/// The host key that a VM has to show.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Pin {
    /// SHA-256 of the public key's wire blob.
    Fingerprint([u8; 32]),
    /// The public key's wire blob.
    Key(Vec<u8>),
    /// The key in a blob of the most common kind: with a million VMs the rest of the blob is
    /// worth leaving out.
    Ed25519([u8; 32]),
}

/// What stands before the key in the wire blob of an Ed25519 key (RFC 8709).
const ED25519: &[u8; 19] = b"\0\0\0\x0bssh-ed25519\0\0\0\x20";

impl Pin {
    /// Of a public key's wire blob.
    pub fn of_key(blob: &[u8]) -> Self {
        match blob.strip_prefix(ED25519).map(TryInto::try_into) {
            Some(Ok(key)) => Self::Ed25519(key),
            Some(Err(_)) | None => Self::Key(blob.to_vec()),
        }
    }

    /// The public key's wire blob, if more than its fingerprint is known.
    pub fn key(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Fingerprint(_) => None,
            Self::Key(blob) => Some(Cow::Borrowed(blob)),
            Self::Ed25519(key) => Some(Cow::Owned([&ED25519[..], key].concat())),
        }
    }
}

/// One pool address as the live map holds it. Only a [`Table`] makes one: its hidden identity ties
/// a connection to the address it dialled, so that an answer found before a reload cannot be used
/// for another address after it.
#[derive(Debug)]
pub struct Address {
    /// Its name, e.g. `s003`.
    pub name: String,
    /// What clients dial.
    pub public: IpAddr,
    /// What clients dial over IPv6.
    pub public6: Option<IpAddr>,
    /// What the host sees when a NAT stands before it.
    pub private: Option<IpAddr>,
    /// Whether every registered user gets the list of their VMs here.
    pub lobby: bool,
    /// Whether nobody gets in here: it is in maintenance. [`Table::address`] does not find it.
    pub closed: bool,
    id: AddressId,
    /// The first revision in which the address of this id has other IP addresses, so that nothing
    /// is in this one's slots.
    retired: AtomicU64,
}

impl Address {
    fn is_retired(&self, revision: u64) -> bool {
        self.retired.load(Ordering::Relaxed) <= revision
    }

    /// What a client may have dialled to be here. As long as this stays, a connection may go on
    /// with an older [`Address`].
    fn dialled(&self) -> (IpAddr, Option<IpAddr>, Option<IpAddr>, bool) {
        (self.public, self.public6, self.private, self.lobby)
    }
}

impl Eq for Address {}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.id, self.closed) == (&other.name, other.id, other.closed)
            && self.dialled() == other.dialled()
    }
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

/// Sizes, for the metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Users.
    pub users: usize,
    /// Keys of all users.
    pub keys: usize,
    /// VMs.
    pub vms: usize,
    /// Pool addresses.
    pub addresses: usize,
    /// Filled slots.
    pub slots: usize,
}

/// Names one principal in one table. Given out once: a user removed and added again is
/// another principal.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct PrincipalId(u64);

/// Names one pool address in one table. Given out once; it stays when the address gets
/// other IP addresses.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct AddressId(NonZeroU64);

impl AddressId {
    /// The id in the four bytes that all have until a table has seen four billion addresses.
    fn short(self) -> Option<u32> {
        u32::try_from(self.0.get()).ok()
    }

    /// The id that [`AddressId::short`] gave: never zero.
    fn long(short: u32) -> Option<Self> {
        NonZeroU64::new(u64::from(short)).map(Self)
    }
}
