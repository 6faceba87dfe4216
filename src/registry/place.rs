//! Where a VM is put: the address it gets, the one it is moved to, and how VMs are moved out of
//! each other's way. Which address is free is the allocator's to say.

use super::allocator::shown;
use super::command::Placement;
use super::document::{Document, Key, OldSlot, Serial, Vm};
use super::draft::{Draft, Move};
use super::name::{Label, Principal};
use super::reach::PrincipalIx;
use super::refusal::{Collision, Kind, Refusal, WayOut};

/// Addresses that a VM can have had at a time and that still lead to it.
pub(super) const OLD_MAX: usize = 8;

impl Draft<'_> {
    pub(super) fn vm(&self, serial: Serial) -> Result<Vm, Refusal> {
        let stored = self.model().vm(serial);
        stored
            .map(|stored| (*stored.document).clone())
            .ok_or_else(|| Refusal::unknown(Kind::Vm, format_args!("{:016x}", serial.0)))
    }

    pub(super) fn put_vm(&mut self, serial: Serial, vm: Vm) {
        self.put(&Key::Vm(serial), Some(Document::Vm(Box::new(vm))));
    }

    /// The address for a VM whose document stands, without regard to the one it has.
    pub(super) fn place(
        &self,
        serial: Serial,
        vm: &Vm,
        placement: &Placement,
    ) -> Result<Option<Label>, Refusal> {
        let viewers = self.model().viewers(vm.entitled());
        let now_s = self.stamp().now_s;
        match placement {
            Placement::Nowhere => Ok(None),
            Placement::Chosen => self.model().choose_address(serial, &viewers, now_s).map(Some),
            Placement::At(at) => {
                self.model().fits((serial, &vm.name), at, &viewers, now_s)?;
                Ok(Some(at.clone()))
            }
        }
    }

    /// Gives a VM another address. The old one goes on leading there for those who had it when the
    /// draft began, where that collides with nothing.
    pub(super) fn renumber(
        &mut self,
        serial: Serial,
        placement: &Placement,
    ) -> Result<(), Refusal> {
        let mut vm = self.vm(serial)?;
        let from = vm.address.take();
        let had = self.had(serial, from.as_ref());
        let to = match (&from, placement) {
            // The least loaded one may be where it is: any other will do.
            (Some(from), Placement::Chosen) => {
                let viewers = self.model().viewers(vm.entitled());
                let now_s = self.stamp().now_s;
                Some(self.model().choose_address_except(serial, &viewers, now_s, Some(from))?)
            }
            _ => self.place(serial, &vm, placement)?,
        };
        if let Some(from) = from.filter(|from| to.as_ref() != Some(from)) {
            let free = |principal: &Principal| {
                let ix = self.model().address_ix(&from);
                ix.is_some_and(|ix| {
                    let viewers = self.model().viewers([principal]);
                    let about = (serial, &vm.name, ix);
                    let now_s = self.stamp().now_s;
                    let mut clashes = viewers
                        .iter()
                        .flat_map(|viewer| self.model().collisions(*viewer, None, about, now_s));
                    clashes.next().is_none()
                })
            };
            let entitled: Vec<&Principal> = vm.entitled().collect();
            let principals: Vec<Principal> = had
                .into_iter()
                .filter(|principal| entitled.contains(&principal) && free(principal))
                .collect();
            if let Some(to) = &to {
                let (vm, from, to) = (vm.name.clone(), from.clone(), to.clone());
                self.report.moves.push(Move { vm, from, to, old_for: principals.clone() });
            }
            if !principals.is_empty() {
                let until_s = self.stamp().now_s.saturating_add(self.model().limits().quarantine_s);
                vm.old.retain(|old| old.address != from);
                if vm.old.len() >= OLD_MAX {
                    vm.old.remove(0);
                }
                vm.old.push(OldSlot { address: from, principals, until_s });
            }
        }
        // Back at an address it had, the second way there is the first again.
        vm.old.retain(|old| Some(&old.address) != to.as_ref());
        vm.address = to;
        self.put_vm(serial, vm);
        Ok(())
    }

    /// Who could enter a VM at an address when this draft began.
    fn had(&self, serial: Serial, at: Option<&Label>) -> Vec<Principal> {
        match self.first(&Key::Vm(serial)) {
            Some(Document::Vm(vm)) if vm.address.as_ref() == at => vm.entitled().cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// Sees to it that `viewers` see one VM at each of the places they have gained, through
    /// everybody but `but`: by moving the VM that they have gained if `renumber` says so, else by
    /// refusing: tried all the same, for only what would help is offered, and a draft that is
    /// refused is taken back.
    pub(super) fn settle(
        &mut self,
        gained: &[(PrincipalIx, Serial)],
        but: Option<PrincipalIx>,
        renumber: bool,
    ) -> Result<(), Refusal> {
        // What would have to move stands in the way of what was asked for.
        let mut in_the_way: Option<Vec<Collision>> = None;
        loop {
            let mut clashes = Vec::new();
            for (viewer, serial) in gained {
                let Some(stored) = self.model().vm(*serial) else { continue };
                let vm = &stored.document;
                let at = vm.address.as_ref().and_then(|at| self.model().address_ix(at));
                let Some(at) = at else { continue };
                let about = (*serial, &vm.name, at);
                clashes.extend(self.model().collisions(*viewer, but, about, self.stamp().now_s));
            }
            let Some(clash) = clashes.first() else {
                let refused =
                    |collisions| Refusal::Conflict { collisions, way_out: WayOut::Renumber };
                return in_the_way.map(refused).map_or(Ok(()), Err);
            };
            // The other one cannot be moved out of the way: whoever saw it there must not see this
            // one there soon. Each round moves one VM to where it collides with nothing, so there
            // are as many rounds as VMs in clashes.
            let moved = clash.vm;
            if !renumber && in_the_way.is_none() {
                in_the_way = Some(shown(clashes));
            }
            match (self.renumber(moved, &Placement::Chosen), in_the_way) {
                (Ok(()), still) => in_the_way = still,
                (Err(refusal), None) => return Err(refusal),
                (Err(_), Some(collisions)) => {
                    return Err(Refusal::Conflict { collisions, way_out: WayOut::MoreAddresses });
                }
            }
        }
    }
}
