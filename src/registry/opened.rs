//! The ways that a document opens: who has a slot at which address by it.

use std::collections::{BTreeMap, HashSet};

use super::document::{Access, Document, OldSlot, Vm};
use super::name::{Label, Principal};

/// A principal's way to an address.
pub(super) type Way = (Principal, Label);

/// All ways that a VM's document opens.
pub(super) fn ways(vm: &Vm) -> HashSet<Way> {
    let mut ways = HashSet::new();
    if let Some(address) = &vm.address {
        ways.extend(vm.entitled().map(|principal| (principal.clone(), address.clone())));
    }
    for OldSlot { address, principals, .. } in &vm.old {
        ways.extend(principals.iter().map(|principal| (principal.clone(), address.clone())));
    }
    ways
}

/// What a document opens for others than itself.
pub(super) enum Opened {
    /// Nothing, or it is not there.
    Nothing,
    /// A VM's: the ways to it.
    Ways(HashSet<Way>),
    /// A team's: all that the team has.
    Members(BTreeMap<Label, Access>),
}

impl Opened {
    pub(super) fn by(document: Option<&Document>) -> Self {
        match document {
            Some(Document::Vm(vm)) => Self::Ways(ways(vm)),
            Some(Document::Team(team)) => Self::Members(team.members.clone()),
            _ => Self::Nothing,
        }
    }

    pub(super) fn into_ways(self) -> HashSet<Way> {
        if let Self::Ways(ways) = self { ways } else { HashSet::new() }
    }

    pub(super) fn into_members(self) -> BTreeMap<Label, Access> {
        if let Self::Members(members) = self { members } else { BTreeMap::new() }
    }
}
