//! What a model looks up of one principal or one address: its ways, what is quarantined for it,
//! what stands there.

use std::collections::BTreeSet;

use super::document::{Access, Address, Serial, Stored};
use super::name::{Label, Principal};

/// An index into the principals of one model.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct PrincipalIx(u32);

impl PrincipalIx {
    /// Of the one at `index`.
    pub(super) fn at(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// An index into the addresses of one model.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct AddressIx(u32);

impl AddressIx {
    /// Of the one at `index`.
    pub(super) fn at(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A way of one principal to a VM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Slot {
    pub(super) address: AddressIx,
    pub(super) vm: Serial,
    /// The end of a second way, to an address the VM had.
    pub(super) until_s: Option<u64>,
}

/// [`QuarantinedSlot`](super::document::QuarantinedSlot) with its address looked up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Quarantined {
    pub(super) address: AddressIx,
    pub(super) vm: Serial,
    pub(super) until_s: u64,
}

impl Quarantined {
    /// Whether it is not over.
    pub(super) const fn lasts(&self, now_s: u64) -> bool {
        self.until_s > now_s
    }

    /// Whether `vm` must not stand there yet.
    pub(super) fn is_quarantined_for(&self, vm: Serial, now_s: u64) -> bool {
        self.lasts(now_s) && self.vm != vm
    }
}

/// What holds for one principal. It may stand here although the principal is gone, for
/// what is quarantined.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) name: Principal,
    pub(super) slots: Vec<Slot>,
    pub(super) quarantined: Vec<Quarantined>,
    /// VMs entered by name only.
    pub(super) by_name: Vec<Serial>,
    /// How many VMs it owns, all of them among the others.
    pub(super) owned: usize,
    /// Of a user: teams.
    pub(super) teams: Vec<(PrincipalIx, Access)>,
    /// Of a team: users.
    pub(super) members: Vec<(PrincipalIx, Access)>,
}

impl Reach {
    /// Nothing yet.
    pub(super) const fn of(name: Principal) -> Self {
        Self {
            name,
            slots: Vec::new(),
            quarantined: Vec::new(),
            by_name: Vec::new(),
            owned: 0,
            teams: Vec::new(),
            members: Vec::new(),
        }
    }
}

/// An address and what stands on it. It may stand here although the address is gone,
/// for what is held.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) name: Label,
    pub(super) stored: Option<Stored<Address>>,
    /// VMs that answer here.
    pub(super) vms: BTreeSet<Serial>,
    /// VMs that answered here and still do for some.
    pub(super) old: usize,
    pub(super) quarantined: usize,
}

impl Site {
    /// Nothing yet.
    pub(super) const fn of(name: Label) -> Self {
        Self { name, stored: None, vms: BTreeSet::new(), old: 0, quarantined: 0 }
    }
}
