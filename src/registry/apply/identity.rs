//! Which VM that stands each VM of a fleet is: the one of its id; else the one of its name; else,
//! where what a fleet does not name goes, the one that would go and has the same owner and
//! endpoint. It was renamed, and keeps its slots, its sessions and its host key.

use std::collections::{HashMap, HashSet};

use crate::registry::document::{Serial, Vm};
use crate::registry::fleet::FleetVm;
use crate::registry::model::Model;
use crate::registry::name::{Label, Principal};
use crate::registry::refusal::Refusal;

/// Only what is not as the names say; of a million VMs that is next to nothing.
#[derive(Default)]
pub(super) struct Identities<'a> {
    /// By the name in the fleet.
    standing: HashMap<&'a Label, Serial>,
    wanted: HashMap<Serial, &'a FleetVm>,
}

/// Who owns it, and where it is.
type OwnedAt<'a> = (&'a Principal, &'a str);

impl<'a> Identities<'a> {
    /// `goes` says whether a VM goes that the fleet does not name.
    ///
    /// # Errors
    /// [`Refusal::Invalid`]: ids that cannot be.
    pub(super) fn new(
        model: &'a Model,
        vms: &HashMap<&'a Label, &'a FleetVm>,
        goes: impl Fn(&Vm) -> bool,
    ) -> Result<Self, Refusal> {
        let mut all = Self::default();
        all.by_id(model, vms)?;
        all.by_place(model, vms, goes);
        Ok(all)
    }

    /// The VM that stands and is this one of the fleet.
    pub(super) fn standing(&self, model: &Model, name: &Label) -> Option<Serial> {
        self.standing.get(name).copied().or_else(|| {
            let serial = *model.vm_names().get(name)?;
            (!self.wanted.contains_key(&serial)).then_some(serial)
        })
    }

    /// The VM of the fleet that one that stands is.
    pub(super) fn wanted(
        &self,
        vms: &HashMap<&'a Label, &'a FleetVm>,
        (serial, vm): (Serial, &Vm),
    ) -> Option<&'a FleetVm> {
        self.wanted.get(&serial).copied().or_else(|| {
            let wanted = *vms.get(&vm.name)?;
            (!self.standing.contains_key(&wanted.name)).then_some(wanted)
        })
    }

    /// Those that get another name, in an order in which the names are free; names that go round in
    /// a circle are not.
    pub(super) fn renamed(&self, model: &'a Model) -> Vec<(&'a Label, &'a Label)> {
        let mut pending = HashMap::new();
        for (serial, wanted) in &self.wanted {
            if let Some(vm) = model.vm(*serial) {
                pending.insert(&vm.document.name, &wanted.name);
            }
        }
        let mut first: Vec<&Label> = pending.keys().copied().collect();
        first.sort_unstable();
        let mut ordered = Vec::with_capacity(pending.len());
        for from in first {
            // Whoever has the name goes before.
            let (mut chain, mut from) = (Vec::new(), from);
            while let Some(to) = pending.remove(from) {
                chain.push((from, to));
                from = to;
            }
            ordered.extend(chain.into_iter().rev());
        }
        ordered
    }

    fn is(&mut self, wanted: &'a FleetVm, serial: Serial) {
        self.standing.insert(&wanted.name, serial);
        self.wanted.insert(serial, wanted);
    }

    fn by_id(
        &mut self,
        model: &Model,
        vms: &HashMap<&'a Label, &'a FleetVm>,
    ) -> Result<(), Refusal> {
        let with_id = || vms.values().filter_map(|vm| Some((*vm, vm.id.as_deref()?)));
        let mut ids = HashSet::new();
        for (vm, id) in with_id() {
            let named = Label::new(id).ok().and_then(|name| vms.get(&name));
            let implied = named.is_some_and(|named| named.id.is_none());
            if !ids.insert(id) || implied {
                let what = format!("the id `{id}` of VM `{}` is another VM's too", vm.name);
                return Err(Refusal::invalid(what, "give one of them another"));
            }
            let serial = model.of_id(id);
            let has = serial.and_then(|serial| model.vm(serial));
            if let (Some(serial), Some(has)) = (serial, has)
                && has.document.name != vm.name
            {
                self.is(vm, serial);
            }
        }
        for (vm, id) in with_id().filter(|(_, id)| model.of_id(id).is_none()) {
            let stands = self.standing(model, &vm.name).and_then(|serial| model.vm(serial));
            if let Some(stands) = stands {
                let (name, is) = (&vm.name, &stands.document.id);
                let what =
                    format!("VM `{name}` has the id `{is}`, not `{id}`, and keeps it for good");
                return Err(Refusal::invalid(what, "write that one, or leave it out"));
            }
        }
        Ok(())
    }

    fn by_place(
        &mut self,
        model: &'a Model,
        vms: &HashMap<&'a Label, &'a FleetVm>,
        goes: impl Fn(&Vm) -> bool,
    ) {
        let is_new =
            |vm: &&&'a FleetVm| vm.id.is_none() && self.standing(model, &vm.name).is_none();
        // Of two at one place nobody knows which is which.
        let mut new: HashMap<OwnedAt<'a>, Option<&'a FleetVm>> = HashMap::new();
        for vm in vms.values().filter(is_new) {
            let first = Some(*vm);
            new.entry((&vm.owner, vm.ssh.as_str())).and_modify(|vm| *vm = None).or_insert(first);
        }
        if new.is_empty() {
            return;
        }
        let mut gone: HashMap<OwnedAt<'a>, Option<Serial>> = HashMap::new();
        for serial in model.vm_names().values() {
            let Some(stored) = model.vm(*serial) else { continue };
            let vm = &*stored.document;
            let place = (&vm.owner, vm.ssh.as_str());
            if new.contains_key(&place) && self.wanted(vms, (*serial, vm)).is_none() && goes(vm) {
                gone.entry(place).and_modify(|serial| *serial = None).or_insert(Some(*serial));
            }
        }
        for (place, serial) in gone {
            if let (Some(Some(wanted)), Some(serial)) = (new.get(&place), serial) {
                self.is(wanted, serial);
            }
        }
    }
}
