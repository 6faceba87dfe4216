//! How many things of each kind a file adds, changes and removes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    Address,
    User,
    Key,
    Team,
    Membership,
    Node,
    Edge,
    Vm,
    Share,
}

impl Kind {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::User => "user",
            Self::Key => "key",
            Self::Team => "team",
            Self::Membership => "membership",
            Self::Node => "node",
            Self::Edge => "edge",
            Self::Vm => "VM",
            Self::Share => "share",
        }
    }
}

/// How many of one kind.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Counts {
    /// That are new.
    pub added: u64,
    /// That stay and become another way.
    pub changed: u64,
    /// That go.
    pub removed: u64,
    /// That were made by commands and become the file's.
    pub taken_over: u64,
}

/// How many of each kind.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Tally {
    /// Pool addresses.
    pub addresses: Counts,
    /// Users.
    pub users: Counts,
    /// Keys of users who stay.
    pub keys: Counts,
    /// Teams.
    pub teams: Counts,
    /// Users in teams, both of which stay.
    #[serde(default)]
    pub memberships: Counts,
    /// Hosts that hold VMs.
    #[serde(default)]
    pub nodes: Counts,
    /// Edges, by their identities.
    #[serde(default)]
    pub edges: Counts,
    /// VMs.
    pub vms: Counts,
    /// VMs that stay, and those with whom they are shared and who stay.
    #[serde(default)]
    pub shares: Counts,
}

impl Tally {
    /// Each kind with its name.
    #[must_use]
    pub fn kinds(&self) -> [(&'static str, Counts); 9] {
        let Self { addresses, users, keys, teams, memberships, nodes, edges, vms, shares } = *self;
        [
            (Kind::Address.word(), addresses),
            (Kind::User.word(), users),
            (Kind::Key.word(), keys),
            (Kind::Team.word(), teams),
            (Kind::Membership.word(), memberships),
            (Kind::Node.word(), nodes),
            (Kind::Edge.word(), edges),
            (Kind::Vm.word(), vms),
            (Kind::Share.word(), shares),
        ]
    }
}
