//! What the table's entries hold: a user with all that the user may enter, laid out for
//! few cache misses.
//!
//! A lookup costs what its misses cost, each of them a read that waits for the one before. So what
//! nearly every lookup needs stands in the table's entry itself, beside the key, and the rest is
//! behind one pointer that few of them follow.

use std::borrow::Borrow;
use std::hash;
use std::sync::Arc;

use super::Vm;
use super::ids::{AddressId, PrincipalId};

/// A user: the first step of a lookup ends here. The user's own slots stand in it, for each further
/// map on the way costs as much again as this one; what a team may enter is found through its id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct UserRoutes {
    pub(super) near: InlineSlots,
    pub(super) rest: Arc<Rest>,
}

/// The rest of a [`UserRoutes`], one for all of the user's keys.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Rest {
    pub(super) name: Arc<str>,
    pub(super) own: PrincipalId,
    pub(super) far: SpilledSlots,
    /// Whose slots are the user's too; sorted.
    pub(super) teams: Box<[PrincipalId]>,
    /// Whose VMs the user may enter by name only; sorted.
    pub(super) teams_by_name: Box<[PrincipalId]>,
    /// Nobody is this user any more.
    pub(super) closed: bool,
}

impl Rest {
    /// All that the user is when a VM is asked for by name.
    pub(super) fn principals(&self) -> impl Iterator<Item = PrincipalId> + '_ {
        std::iter::once(self.own).chain(self.all_teams())
    }

    pub(super) fn all_teams(&self) -> impl Iterator<Item = PrincipalId> + '_ {
        self.teams.iter().chain(&self.teams_by_name).copied()
    }
}

/// What a team's members may enter.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Team {
    pub(super) near: InlineSlots,
    pub(super) far: Arc<SpilledSlots>,
}

/// Slots that stand within an entry, where they cost no further cache miss. Few users have more
/// VMs, and with this many the entry of a key fills two lines of cache, 128 bytes.
pub(super) const NEAR: usize = 6;

/// The first slots of one principal, by address.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct InlineSlots {
    /// Zero: none. An address whose id needs more bits stands with the far ones.
    at: [u32; NEAR],
    vms: [Option<Arc<Vm>>; NEAR],
}

/// What one principal may enter beyond [`InlineSlots`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct SpilledSlots {
    /// Sorted by address.
    slots: Box<[(AddressId, Arc<Vm>)]>,
    /// Without a slot; sorted by name.
    pub(super) by_name: Box<[Arc<Vm>]>,
}

impl InlineSlots {
    /// The VM in the slot at `address`, here or in `far`.
    pub(super) fn at<'a>(
        &'a self,
        address: AddressId,
        far: &'a SpilledSlots,
    ) -> Option<&'a Arc<Vm>> {
        if let Some(short) = address.short() {
            // All are compared: to stop at the one found would be a branch that
            // cannot be predicted.
            let here = self.at.iter().zip(0..);
            let index =
                here.fold(NEAR, |found, (at, index)| if *at == short { index } else { found });
            if let Some(vm) = self.vms.get(index) {
                return vm.as_ref();
            }
        }
        let found = far.slots.binary_search_by_key(&address, |(at, _)| *at);
        found.ok().and_then(|index| far.slots.get(index)).map(|(_, vm)| vm)
    }

    /// These slots and those of `far`.
    pub(super) fn slots<'a>(
        &'a self,
        far: &'a SpilledSlots,
    ) -> impl Iterator<Item = (AddressId, &'a Arc<Vm>)> {
        let near = self.at.iter().zip(&self.vms);
        let near = near.filter_map(|(at, vm)| AddressId::long(*at).zip(vm.as_ref()));
        near.chain(far.slots.iter().map(|(at, vm)| (*at, vm)))
    }

    /// All VMs of these slots and of `far`, some twice.
    pub(super) fn vms<'a>(&'a self, far: &'a SpilledSlots) -> impl Iterator<Item = &'a Arc<Vm>> {
        self.slots(far).map(|(_, vm)| vm).chain(&far.by_name)
    }
}

/// A VM as it is found by name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Named {
    pub(super) vm: Arc<Vm>,
    /// Who may enter it: the least of their ids, which is the only one for most VMs...
    pub(super) first: Option<PrincipalId>,
    /// ...and the others, sorted.
    pub(super) others: Box<[PrincipalId]>,
}

impl Named {
    /// `allowed` in any order, each once.
    pub(super) fn new(vm: Arc<Vm>, mut allowed: Vec<PrincipalId>) -> Self {
        allowed.sort_unstable();
        let mut allowed = allowed.into_iter();
        let (first, others) = (allowed.next(), allowed.as_slice().into());
        Self { vm, first, others }
    }

    /// Everybody who may enter it, sorted.
    pub(super) fn allowed(&self) -> impl Iterator<Item = PrincipalId> + '_ {
        self.first.into_iter().chain(self.others.iter().copied())
    }

    pub(super) fn admits(&self, person: &Rest) -> bool {
        let allowed = |id| self.first == Some(id) || self.others.binary_search(&id).is_ok();
        person.principals().any(allowed)
    }
}

/// The name of a VM as the key of a map: the VM's own, for a copy of each would be as
/// much memory again.
#[derive(Clone, Debug)]
pub(super) struct VmName(pub(super) Arc<Vm>);

impl Borrow<str> for VmName {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Eq for VmName {}

impl PartialEq for VmName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl hash::Hash for VmName {
    fn hash<H: hash::Hasher>(&self, hasher: &mut H) {
        // As `str` does, or it would not be found by one.
        self.0.name.as_str().hash(hasher);
    }
}

/// The id of a VM as the key of a set: the VM's own, as with [`VmName`].
#[derive(Clone, Debug)]
pub(super) struct VmId(pub(super) Arc<Vm>);

impl Borrow<str> for VmId {
    fn borrow(&self) -> &str {
        &self.0.id
    }
}

impl Eq for VmId {}

impl PartialEq for VmId {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl hash::Hash for VmId {
    fn hash<H: hash::Hasher>(&self, hasher: &mut H) {
        self.0.id.as_str().hash(hasher);
    }
}

/// What a principal may enter, while it changes.
#[derive(Clone, Default)]
pub(super) struct Reaching {
    pub(super) slots: Vec<(AddressId, Arc<Vm>)>,
    pub(super) by_name: Vec<Arc<Vm>>,
}

impl Reaching {
    pub(super) fn finish(mut self) -> (InlineSlots, SpilledSlots) {
        self.slots.sort_unstable_by_key(|(at, _)| *at);
        // Sorted, for one state to look the same whatever way it was reached.
        self.by_name.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut near = InlineSlots::default();
        let mut free = near.at.iter_mut().zip(&mut near.vms);
        let mut far = Vec::new();
        for (at, vm) in self.slots {
            match at.short().and_then(|short| free.next().map(|place| (short, place))) {
                Some((short, place)) => (*place.0, *place.1) = (short, Some(vm)),
                None => far.push((at, vm)),
            }
        }
        (near, SpilledSlots { slots: far.into(), by_name: self.by_name.into() })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn id(number: u64) -> AddressId {
        AddressId(NonZeroU64::new(number).unwrap())
    }

    fn vm(name: &str) -> Arc<Vm> {
        Arc::new(Vm {
            id: name.to_owned(),
            name: name.to_owned(),
            owner: String::new(),
            endpoint: String::new(),
            login: None,
            host_key: None,
            source_address: None,
            address: None,
            closed: false,
            carry: crate::route::Carry::Auto,
            node: None,
        })
    }

    #[test]
    fn an_address_whose_id_outgrew_the_near_slots_is_still_told_from_all_others() {
        let beyond = 1 << 32;
        let numbers = [1, 2, u64::from(u32::MAX), beyond, beyond + 1, beyond + 2];
        let slots = numbers.iter().map(|&n| (id(n), vm(&n.to_string()))).collect();
        let (near, far) = Reaching { slots, by_name: Vec::new() }.finish();
        for number in numbers {
            assert_eq!(near.at(id(number), &far).unwrap().name, number.to_string());
        }
        for number in [3, u64::from(u32::MAX) - 1, beyond + 3, 2 * beyond, 2 * beyond + 1] {
            assert_eq!(near.at(id(number), &far), None, "{number}");
        }
        let all: Vec<_> = near.slots(&far).map(|(at, vm)| (at, vm.name.clone())).collect();
        assert_eq!(all, numbers.map(|n| (id(n), n.to_string())));
    }
}
