//! What a snapshot is made from, and what a delta changes of it: plain entries, each
//! naming the others.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::vm::Vm;

/// Teams one user may be in. Bounds the second step of a lookup.
pub const TEAMS_MAX: usize = 64;

/// A pool address as configured.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AddressEntry {
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
    /// Whether connections to it are refused as if it were not in the pool. Names and slots stay.
    pub closed: bool,
}

impl AddressEntry {
    /// IPv4-mapped IPv6 addresses become IPv4.
    pub(super) fn make_canonical(&mut self) {
        self.public = self.public.to_canonical();
        self.public6 = self.public6.map(|ip| ip.to_canonical());
        self.private = self.private.map(|ip| ip.to_canonical());
    }

    /// Its IP addresses and what each is.
    pub(super) fn columns(&self) -> impl Iterator<Item = (&'static str, IpAddr)> {
        columns(self.public, self.public6, self.private)
    }
}

/// The IP addresses of one pool address and what each is.
pub(super) fn columns(
    public: IpAddr,
    public6: Option<IpAddr>,
    private: Option<IpAddr>,
) -> impl Iterator<Item = (&'static str, IpAddr)> {
    let all = [("public", Some(public)), ("public6", public6), ("private", private)];
    all.into_iter().filter_map(|(column, ip)| Some((column, ip?)))
}

/// A key of a user.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct KeyEntry {
    /// SHA-256 of the raw public key blob. Globally unique.
    pub fingerprint: [u8; 32],
    /// The options of its `authorized_keys` line, as they were written. This room
    /// does not read them.
    pub options: Option<Arc<str>>,
}

impl KeyEntry {
    /// A key without options.
    #[must_use]
    pub const fn plain(fingerprint: [u8; 32]) -> Self {
        Self { fingerprint, options: None }
    }
}

/// A user and the user's keys.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UserEntry {
    /// A DNS label.
    pub name: String,
    /// Of any number of machines.
    pub keys: Vec<KeyEntry>,
    /// Whether nobody is this user any more, by a certificate either: there are no keys then. The
    /// name stays, for what names it.
    pub closed: bool,
}

/// A team and its members' names.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TeamEntry {
    /// A DNS label, without the prefix.
    pub name: String,
    /// Users who have the team's slots beside their own.
    pub members: Vec<String>,
    /// Users who may enter the team's VMs by name only.
    pub members_by_name: Vec<String>,
}

/// A host that holds VMs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NodeEntry {
    /// A DNS label, unique among nodes.
    pub name: String,
    /// What takes sessions over there, if anything does.
    pub agent: Option<Agent>,
    /// Whether the agent may have digests signed with the host keys of this front door, and
    /// so impersonate it.
    pub trusted: bool,
}

/// The agent of a node.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Agent {
    /// Where it listens.
    pub at: SocketAddr,
    /// SHA-256 of the public key blob of its identity. No other node has it.
    pub key: [u8; 32],
}

/// A principal's way to a VM: at this address.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Slot {
    /// A user's name, or `team:` and a team's.
    pub principal: String,
    /// The pool address's name.
    pub address: String,
}

/// A VM and who may enter it how. Its owner may always enter it by name.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct VmEntry {
    /// The VM.
    pub vm: Vm,
    /// Where it answers, for whom: also by name, at any address.
    pub slots: Vec<Slot>,
    /// Principals who may enter it by name only.
    pub by_name: Vec<String>,
}

impl VmEntry {
    /// A VM that answers at one address, for its owner.
    #[must_use]
    pub fn owned(vm: Vm, address: &str) -> Self {
        let slot = Slot { principal: vm.owner.clone(), address: address.to_owned() };
        Self { vm, slots: vec![slot], by_name: Vec::new() }
    }
}

/// What a snapshot is made from.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Contents {
    /// The pool.
    pub addresses: Vec<AddressEntry>,
    /// All users.
    pub users: Vec<UserEntry>,
    /// All teams.
    pub teams: Vec<TeamEntry>,
    /// Hosts that hold VMs.
    pub nodes: Vec<NodeEntry>,
    /// All VMs.
    pub vms: Vec<VmEntry>,
}

/// One entry put in, in the place of one of its kind and name if there is one, or taken out by its
/// name. To take out what is not there changes nothing.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Change {
    /// A pool address, new or altered.
    PutAddress(AddressEntry),
    /// No VM may be there any more.
    RemoveAddress(String),
    /// A user, new or altered.
    PutUser(UserEntry),
    /// Nothing may name the user any more.
    RemoveUser(String),
    /// A team, new or altered.
    PutTeam(TeamEntry),
    /// Without the prefix. No VM may name the team any more.
    RemoveTeam(String),
    /// A node, new or altered.
    PutNode(NodeEntry),
    /// No VM may lie there any more.
    RemoveNode(String),
    /// A VM, new or altered.
    PutVm(VmEntry),
    /// By its name.
    RemoveVm(String),
}

/// One step from one state to the next. The end state counts, not the order of the changes; of two
/// changes to one entry the later one. A VM is renamed by taking it out and putting it in under the
/// new name, with the same id.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Delta {
    /// In any order.
    pub changes: Vec<Change>,
}
