//! What cannot be true beside the rest: the operator's fault, told with the entry to change.

use std::fmt::Write;
use std::net::IpAddr;

#[cfg(doc)]
use super::{Contents, Delta, RESERVED, Table};
use super::{NoHandoff, TEAMS_MAX};

/// An entry of [`Contents`] or a change of a [`Delta`], by its index.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum EntryIndex {
    /// In `addresses`.
    Address(usize),
    /// In `users`.
    User(usize),
    /// In `teams`.
    Team(usize),
    /// In `nodes`.
    Node(usize),
    /// In `vms`.
    Vm(usize),
    /// In the `changes` of a delta.
    Change(usize),
}

/// One thing in [`Contents`] that cannot be true beside the rest. The operator's fault.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{what}")]
pub struct Contradiction {
    /// The entry to change: of two that collide, the later one.
    pub at: EntryIndex,
    /// What is wrong with it.
    pub what: What,
}

/// The ways in which [`Contents`] can be wrong.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum What {
    /// Names become part of DNS names.
    #[error("name `{name}` is not a DNS label")]
    NotALabel {
        /// As given.
        name: String,
    },
    /// See [`RESERVED`].
    #[error("name `{name}` is reserved")]
    Reserved {
        /// As given.
        name: String,
    },
    /// Ids become principals of certificates.
    #[error("id `{id}` is not 1 to 63 letters, digits, - and _")]
    NotAnId {
        /// As given.
        id: String,
    },
    /// Two VMs with one id would each take the other's certificates.
    #[error("id `{id}` is already another VM's")]
    IdTaken {
        /// As given.
        id: String,
    },
    /// What a delta takes out is still needed by what stays.
    #[error("`{name}` is still named by {by}")]
    InUse {
        /// What was to go.
        name: String,
        /// What names it: "VM `blue`", "team `ops`", "slots and VMs, 3 of them".
        by: String,
    },
    /// An earlier change of this table ended in a bug of ours: only a whole snapshot
    /// makes it sound again.
    #[error(
        "the table takes no change until a snapshot is applied: an earlier change was cut short"
    )]
    CutShort,
    /// VMs and addresses share one namespace; users and teams have one each.
    #[error("name `{name}` is already taken by {by}")]
    NameTaken {
        /// As given.
        name: String,
        /// What has it: "a VM", "an address"...
        by: &'static str,
    },
    /// An IP address stands in two places, as public in one and private in another,
    /// or twice the same.
    #[error("{column} {ip} is already {there} of address `{of}`")]
    IpTaken {
        /// The IP address.
        ip: IpAddr,
        /// "public", "public6" or "private".
        column: &'static str,
        /// Its column in the other place.
        there: &'static str,
        /// The address that has it.
        of: String,
    },
    /// An IP address that no client can dial: unspecified, multicast, broadcast or
    /// bound to one link.
    #[error("{column} {ip} cannot be a pool address")]
    NotDialable {
        /// The IP address.
        ip: IpAddr,
        /// "public", "public6" or "private".
        column: &'static str,
    },
    /// `public6` holds an IPv4 address.
    #[error("public6 {ip} is not an IPv6 address")]
    NotV6 {
        /// The IP address.
        ip: IpAddr,
    },
    /// A raw fingerprint names one user, or nobody knows whom.
    #[error("key {} is already a key of user `{of}`", show(.fingerprint))]
    KeyTaken {
        /// SHA-256 of the raw key.
        fingerprint: [u8; 32],
        /// The user who has it; the same user where it was given twice.
        of: String,
    },
    /// A team has a member who is no user.
    #[error("member `{member}` is not a user")]
    UnknownMember {
        /// As given.
        member: String,
    },
    /// A team names a member twice.
    #[error("member `{member}` is named twice")]
    MemberTwice {
        /// As given.
        member: String,
    },
    /// A user is in more than [`TEAMS_MAX`] teams.
    #[error("user `{user}` is in {teams} teams, more than {TEAMS_MAX}")]
    TooManyTeams {
        /// The user's name.
        user: String,
        /// How many.
        teams: usize,
    },
    /// The owner of a VM is nobody.
    #[error("owner `{owner}` is not known")]
    UnknownOwner {
        /// As given.
        owner: String,
    },
    /// A grant to nobody.
    #[error("principal `{principal}` is not known")]
    UnknownPrincipal {
        /// As given.
        principal: String,
    },
    /// A VM on no node.
    #[error("node `{node}` is not known")]
    UnknownNode {
        /// As given.
        node: String,
    },
    /// Two nodes would show the same identity.
    #[error("agent key {} is already that of node `{of}`", show(.key))]
    AgentKeyTaken {
        /// SHA-256 of the key.
        key: [u8; 32],
        /// The node that has it.
        of: String,
    },
    /// A VM is to be handed off where there is nobody to hand it to.
    #[error("carry is handoff, but {0}")]
    NoHandoff(NoHandoff),
    /// A node changes so that VMs that are to be handed off there cannot be.
    #[error("node `{node}` holds VMs whose carry is handoff, {vms} of them, but {why}")]
    HandoffNeeded {
        /// Its name.
        node: String,
        /// How many.
        vms: usize,
        /// What keeps them from it.
        why: NoHandoff,
    },
    /// A slot at no pool address.
    #[error("address `{address}` is not known")]
    UnknownAddress {
        /// As given.
        address: String,
    },
    /// A lobby answers with the list of VMs, so no VM can answer there.
    #[error("address `{address}` is a lobby")]
    AtLobby {
        /// The address's name.
        address: String,
    },
    /// Two VMs for one user at one address: through a slot of the user's own, or one of a team's.
    #[error("VM `{other}` already answers to `{user}` at address `{address}`")]
    SlotTaken {
        /// The principal with two VMs there.
        user: String,
        /// The address's name.
        address: String,
        /// The VM that is there.
        other: String,
    },
}

/// First 8 bytes in hexadecimal are enough to find a key by; the room does not know how SSH
/// writes fingerprints.
fn show(fingerprint: &[u8; 32]) -> String {
    fingerprint.iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
