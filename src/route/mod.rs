//! WHO MAY GO WHERE: {proved identity, pool address} -> VM.
//!
//! Pure: no socket, no clock, no file, and of SSH only how a key is written. A [`Snapshot`] is
//! built from [`Contents`] (a fleet file, or a registry) and cannot contradict itself; a [`Table`]
//! is the live map every shard reads without a lock. One writer applies snapshots and [`Delta`]s; a
//! reader sees all of one or all of the next, never a mixture. [`saved_routes`] writes both as
//! bytes.
//!
//! Words: a *principal* is a user or a team (written `team:ops`), a *slot* is {principal, pool
//! address} and holds at most one VM. A lookup takes two steps, {key -> principals} and {principal,
//! address -> VM}, so that the size of a team multiplies nothing: its slots stand once, and each
//! member has its id.

mod address;
mod apply_snapshot;
pub mod audience;
mod changes;
mod contents;
mod contradiction;
mod counts;
mod delta;
mod denied;
mod draft;
mod front_door;
mod hash;
mod ids;
mod lookup;
mod node;
pub mod saved_routes;
mod snapshot;
mod source_address;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod user_routes;
mod versioned;
mod vm;
mod writer;

pub use self::address::Address;
pub use self::contents::{
    AddressEntry, Agent, Change, Contents, Delta, KeyEntry, NodeEntry, Slot, TEAMS_MAX, TeamEntry,
    UserEntry, VmEntry,
};
pub use self::contradiction::{Contradiction, EntryIndex, What};
pub use self::counts::Counts;
pub use self::delta::Changed;
pub use self::denied::{DENIED_MAX, Denied, TooMuch};
pub use self::front_door::FrontDoor;
pub use self::lookup::{Admission, Admitted, KeyLine, Refusal, Who};
pub use self::node::{Carriage, NoHandoff, Node};
pub use self::snapshot::{
    LABEL_BYTES_MAX, RESERVED, Snapshot, TEAM_PREFIX, is_dialable, is_id, is_label,
};
pub use self::source_address::SourceAddress;
pub use self::table::{Table, Way};
pub use self::vm::{Carry, Pin, Vm};
