//! What a delta changes about VMs: who may enter them, and where.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::changes::Changes;
use super::super::ids::{AddressId, PrincipalId};
use super::super::snapshot::{judge_id, judge_name};
use super::super::user_routes::{InlineSlots, Named, SpilledSlots, Team, UserRoutes, VmId, VmName};
use super::super::writer::Known;
use super::super::{Slot, Vm, VmEntry, What};
use super::{Reach, TableDraft};

impl TableDraft<'_> {
    pub(super) fn put_vms(&mut self, vms: &Changes<VmEntry>) {
        // All are taken out before one is put in: only the end counts.
        let mut before = Vec::with_capacity(vms.len());
        for name in vms.keys() {
            let now = self.table.names.get(name.as_str(), self.shown);
            if let Some(now) = &now {
                self.take_out(now);
            }
            self.counts.vms -= usize::from(now.is_some());
            before.push(now);
        }
        let mut after = HashMap::new();
        for ((index, entry), now) in vms.values().zip(&before) {
            let now = now.as_ref().map(|now| Arc::clone(&now.vm));
            let Some(entry) = entry else {
                self.names.extend(now.map(|vm| (VmName(vm), None)));
                continue;
            };
            let named = self.put_in(*index, entry, now);
            if !named.vm.closed {
                after.insert(named.vm.id.clone(), named.allowed().collect::<Vec<_>>());
            }
            self.counts.vms += 1;
            self.names.push((VmName(Arc::clone(&named.vm)), Some(named)));
        }
        self.takes_away |= before.iter().flatten().any(|now| {
            let can = after.get(&now.vm.id).map_or(&[][..], Vec::as_slice);
            now.allowed().any(|id| can.binary_search(&id).is_err())
        });
    }

    fn take_out(&mut self, now: &Named) {
        let vm = &now.vm;
        self.ids_freed.insert(VmId(Arc::clone(vm)));
        self.lie(vm, -1);
        let pointed = vm.address.as_ref().and_then(|name| self.writer.addresses.get(name));
        if let Some(id) = pointed.map(|held| held.address.id) {
            self.hanging.entry(id).or_default().pointing -= 1;
        }
        for id in now.allowed() {
            let Some(reach) = self.reach(id) else { continue };
            let lost: Vec<_> = reach.slots.extract_if(.., |(_, at)| Arc::ptr_eq(at, vm)).collect();
            reach.by_name.retain(|other| !Arc::ptr_eq(other, vm));
            reach.lost.extend(lost.iter().cloned());
            for (at, _) in lost {
                self.hanging.entry(at).or_default().slots -= 1;
            }
        }
    }

    /// `now`: the VM of that name before.
    fn put_in(&mut self, index: usize, entry: &VmEntry, now: Option<Arc<Vm>>) -> Named {
        let VmEntry { vm, slots, by_name } = entry;
        let taken = self.address(&vm.name).map(|_| "an address");
        let misnamed = judge_name(&vm.name, taken, true, false);
        let vm = now.filter(|now| **now == *vm).unwrap_or_else(|| Arc::new(vm.clone()));
        let id = VmId(Arc::clone(&vm));
        let taken = self.writer.ids.contains(&id) && !self.ids_freed.contains(&id);
        let taken = !self.ids_taken.insert(id) || taken;
        if let Some(what) = misnamed.or(judge_id(&vm.id, taken)) {
            self.fault(index, what);
        }
        self.lie(&vm, 1);
        if let Some(what) = self.judge_node(&vm) {
            self.fault(index, what);
        }
        if let Some(name) = &vm.address {
            match self.address(name).map(|address| address.id) {
                Some(id) => self.hanging.entry(id).or_default().pointing += 1,
                None => self.fault(index, What::UnknownAddress { address: name.clone() }),
            }
        }
        let mut allowed = Vec::with_capacity(1 + slots.len() + by_name.len());
        match self.principal(&vm.owner) {
            Some(id) => allowed.push(id),
            None => self.fault(index, What::UnknownOwner { owner: vm.owner.clone() }),
        }
        let mut with_slot = Vec::with_capacity(slots.len());
        for slot in slots {
            with_slot.extend(self.fill(index, slot, &vm));
        }
        allowed.extend(&with_slot);
        for principal in by_name {
            match self.principal(principal) {
                Some(id) => allowed.push(id),
                None => {
                    self.fault(index, What::UnknownPrincipal { principal: principal.clone() });
                }
            }
        }
        allowed.sort_unstable();
        allowed.dedup();
        for id in allowed.iter().filter(|id| !with_slot.contains(id)) {
            if let Some(reach) = self.reach(*id) {
                reach.by_name.push(Arc::clone(&vm));
            }
        }
        Named::new(vm, allowed)
    }

    /// Puts `vm` into a slot. Returns whose it is.
    fn fill(&mut self, index: usize, slot: &Slot, vm: &Arc<Vm>) -> Option<PrincipalId> {
        let Slot { principal, address } = slot;
        let id = self.principal(principal);
        if id.is_none() {
            self.fault(index, What::UnknownPrincipal { principal: principal.clone() });
        }
        let place = self.address(address).map(|address| (address.id, address.lobby));
        let Some((at, is_lobby)) = place else {
            self.fault(index, What::UnknownAddress { address: address.clone() });
            return id;
        };
        if is_lobby {
            self.fault(index, What::AtLobby { address: address.clone() });
        }
        let reach = self.reach(id?)?;
        match reach.slots.binary_search_by_key(&at, |(at, _)| *at) {
            Err(free) => {
                reach.slots.insert(free, (at, Arc::clone(vm)));
                reach.gained.push(at);
                self.hanging.entry(at).or_default().slots += 1;
            }
            Ok(full) => {
                let other = reach.slots.get(full).map(|(_, vm)| Arc::clone(vm));
                if let Some(other) = other.filter(|other| !Arc::ptr_eq(other, vm)) {
                    let (user, address) = (principal.clone(), address.clone());
                    let other = other.name.clone();
                    self.fault(index, What::SlotTaken { user, address, other });
                }
            }
        }
        id
    }

    /// What a principal may enter, to be changed, as it is so far.
    fn reach(&mut self, id: PrincipalId) -> Option<&mut Reach> {
        if !self.reach.contains_key(&id) {
            let copy = |near: &InlineSlots, far: &SpilledSlots| {
                let slots = near.slots(far).map(|(at, vm)| (at, Arc::clone(vm)));
                let (slots, by_name) = (slots.collect(), far.by_name.to_vec());
                let mut reach = Reach { slots, by_name, ..Reach::default() };
                // Those that stand near come first, and an id that is too long to stand
                // there may be smaller.
                reach.slots.sort_unstable_by_key(|(at, _)| *at);
                reach
            };
            let reach = self.published(id, copy)?;
            self.reach.insert(id, reach);
        }
        self.reach.get_mut(&id)
    }

    /// Reads what a principal may enter before the delta.
    pub(super) fn published<T>(
        &self,
        id: PrincipalId,
        read: impl FnOnce(&InlineSlots, &SpilledSlots) -> T,
    ) -> Option<T> {
        match self.writer.known.get(&id)? {
            Known::User { name, .. } => {
                let read = |person: &UserRoutes| read(&person.near, &person.rest.far);
                self.table.users.with(&**name, self.shown, read)
            }
            Known::Team { .. } => {
                self.table.teams.with(&id, self.shown, |team: &Team| read(&team.near, &team.far))
            }
        }
    }

    /// The VM in a principal's slot in the end.
    pub(super) fn at(&self, id: PrincipalId, at: AddressId) -> Option<Arc<Vm>> {
        if let Some(reach) = self.reach.get(&id) {
            let found = reach.slots.binary_search_by_key(&at, |(at, _)| *at).ok()?;
            return reach.slots.get(found).map(|(_, vm)| Arc::clone(vm));
        }
        self.published(id, |near, far| near.at(at, far).map(Arc::clone))?
    }
}
