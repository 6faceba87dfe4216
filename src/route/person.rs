//! What the table's entries hold: a user with all that the user may enter, laid out for few cache misses.

use std::sync::Arc;

use super::{AddressId, PrincipalId, Vm};

/// A user: the first step of a lookup ends here. The user's own slots stand beside it, for each further map on the way
/// costs as much again as this one (cache misses, nearly all of it); what a team may enter is found through its id.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Person {
    pub(super) name: Arc<str>,
    pub(super) own: PrincipalId,
    pub(super) reach: Reach,
    pub(super) teams: Box<[PrincipalId]>,
}

impl Person {
    pub(super) fn principals(&self) -> impl Iterator<Item = PrincipalId> + '_ {
        std::iter::once(self.own).chain(self.teams.iter().copied())
    }
}

/// Slots that stand within a [`Person`], where they cost no further cache miss. Few users have more VMs.
pub(super) const NEAR: usize = 6;

/// What one principal may enter.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Reach {
    near_at: [Option<AddressId>; NEAR],
    near: [Option<Arc<Vm>>; NEAR],
    /// The slots beyond, sorted by address.
    far: Box<[(AddressId, Arc<Vm>)]>,
    /// Without a slot.
    pub(super) by_name: Box<[Arc<Vm>]>,
}

impl Reach {
    pub(super) fn at(&self, address: AddressId) -> Option<&Arc<Vm>> {
        // All are compared: to stop at the one found would be a branch that cannot be predicted.
        let near = self
            .near_at
            .iter()
            .zip(0..)
            .fold(NEAR, |found, (at, index)| if *at == Some(address) { index } else { found });
        if let Some(vm) = self.near.get(near) {
            return vm.as_ref();
        }
        let found = self.far.binary_search_by_key(&address, |(at, _)| *at);
        found.ok().and_then(|index| self.far.get(index)).map(|(_, vm)| vm)
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (AddressId, &Arc<Vm>)> {
        let near =
            self.near_at.iter().zip(&self.near).filter_map(|(at, vm)| (*at).zip(vm.as_ref()));
        near.chain(self.far.iter().map(|(at, vm)| (*at, vm)))
    }
}

/// A VM as it is found by name.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Named {
    pub(super) vm: Arc<Vm>,
    /// Sorted.
    pub(super) allowed: Box<[PrincipalId]>,
}

impl Named {
    pub(super) fn admits(&self, person: &Person) -> bool {
        person.principals().any(|id| self.allowed.binary_search(&id).is_ok())
    }
}

/// A [`Reach`] that grows.
#[derive(Clone, Default)]
pub(super) struct Reaching {
    pub(super) slots: Vec<(AddressId, Arc<Vm>)>,
    pub(super) by_name: Vec<Arc<Vm>>,
}

impl Reaching {
    pub(super) fn finish(mut self) -> Reach {
        self.slots.sort_unstable_by_key(|(at, _)| *at);
        // The snapshot has one VM at most there, but may say so twice.
        self.slots.dedup_by_key(|(at, _)| *at);
        let mut slots = self.slots.into_iter();
        let mut reach = Reach { by_name: self.by_name.into(), ..Reach::default() };
        for (near_at, near) in reach.near_at.iter_mut().zip(&mut reach.near) {
            let Some((at, vm)) = slots.next() else { break };
            (*near_at, *near) = (Some(at), Some(vm));
        }
        reach.far = slots.collect();
        reach
    }
}
