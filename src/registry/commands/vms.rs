//! VMs, and with whom they are shared.

use std::collections::BTreeMap;

use super::{Done, host_keys, limit};
use crate::plain_text::{SHOWN_CHARS_MAX, masked};
use crate::registry::command::{NewVm, Options, Placement, VmSettings};
use crate::registry::document::{Access, Serial, Vm};
use crate::registry::draft::Draft;
use crate::registry::name::{Label, Principal};
use crate::registry::refusal::Refusal;
use crate::registry::values::{check_endpoint, check_host_key, check_login, check_source};
use crate::route::is_id;

/// Of an id that is not the VM's name, so much is the name.
const ID_NAME_CHARS: usize = 42;
/// Shares of one VM.
pub(in crate::registry) const SHARES_MAX: usize = 1_000;

impl Draft<'_> {
    pub(super) fn vm_add(&mut self, new: &NewVm, options: Options) -> Done {
        let NewVm { name, owner, ssh, login, host_key, source_address, placement, .. } = new;
        self.free_name(name, "VM")?;
        self.known(owner)?;
        check_endpoint(ssh, &self.model().limits().networks)?;
        let login = login.as_deref().map(check_login).transpose()?.flatten();
        let host_key = host_key.as_deref().map(check_host_key).transpose()?.flatten();
        let source_address = source_address.as_deref().map(check_source).transpose()?.flatten();
        let back = self.own_quarantined(owner, ssh, placement);
        let serial = back.as_ref().map_or_else(|| self.new_serial(), |quarantine| quarantine.vm);
        let mut vm = Vm {
            name: name.clone(),
            id: match &new.id {
                Some(id) => self.free_id(id)?,
                None => self.new_id(name),
            },
            owner: owner.clone(),
            shares: BTreeMap::new(),
            address: None,
            old: Vec::new(),
            ssh: ssh.clone(),
            login,
            host_key,
            source_address,
            pin: None,
            pinned_s: 0,
            node: new.node.clone(),
            carry: new.carry,
            state: new.state,
            origin: options.origin,
        };
        self.check_node(&vm)?;
        let before = back.filter(|_| *placement == Placement::Chosen);
        let before = before.map(|quarantine| Placement::At(quarantine.address));
        // Names in caches lead there still; the allocator's choice is as good where it is not free.
        let before = before.and_then(|before| self.place(serial, &vm, &before).ok());
        vm.address = before.map_or_else(|| self.place(serial, &vm, placement), Ok)?;
        self.report.vm = Some(serial);
        self.put_vm(serial, vm);
        Ok(())
    }

    /// A serial that no VM has: the stamp's chance, or what comes after it.
    fn new_serial(&self) -> Serial {
        let mut serial = Serial(self.stamp().nonce);
        while self.model().vm(serial).is_some() {
            serial = Serial(serial.0.wrapping_add(1));
        }
        serial
    }

    /// An id that was given elsewhere, as it was.
    fn free_id(&self, id: &str) -> Result<String, Refusal> {
        if !is_id(id) {
            let shown = masked(id, SHOWN_CHARS_MAX);
            let fix = "write 1 to 63 letters, digits, - and _, or leave it out";
            return Err(Refusal::invalid(format_args!("`{shown}` is no id of a VM"), fix));
        }
        let has = self.model().of_id(id).and_then(|serial| self.model().vm(serial));
        if let Some(has) = has {
            let by = format!("VM `{}`, whose id it is", has.document.name);
            return Err(Refusal::Taken { name: id.to_owned(), by });
        }
        Ok(id.to_owned())
    }

    /// The name, unless a VM that was renamed still has it as its id. No name has an underscore.
    fn new_id(&self, name: &Label) -> String {
        let mut id = name.to_string();
        let mut next = 2_u64;
        while self.model().of_id(&id).is_some() {
            let short: String = name.as_str().chars().take(ID_NAME_CHARS).collect();
            id = format!("{short}_{next}");
            next += 1;
        }
        id
    }

    pub(super) fn share(
        &mut self,
        name: &Label,
        with: &Principal,
        access: Access,
        options: Options,
    ) -> Done {
        let (serial, mut vm) = self.named(name)?;
        self.known(with)?;
        if vm.owner == *with {
            return Err(Refusal::Already(format!("`{with}` owns VM `{name}`")));
        }
        if vm.shares.get(with) == Some(&access) {
            return Err(Refusal::Already(format!(
                "VM `{name}` is already shared with `{with}` in this way"
            )));
        }
        vm.shares.insert(with.clone(), access);
        if access == Access::ByName {
            vm.forget_ways_of(with);
        }
        check_shares(name, &vm)?;
        self.put_vm(serial, vm);
        if access == Access::ByName {
            return Ok(());
        }
        self.settle_for(serial, with, options)
    }

    /// A principal has gained a VM's slot.
    fn settle_for(&mut self, serial: Serial, principal: &Principal, options: Options) -> Done {
        let viewers = self.model().viewers([principal]);
        let gained: Vec<_> = viewers.into_iter().map(|viewer| (viewer, serial)).collect();
        self.settle(&gained, None, options.renumber)
    }

    pub(super) fn unshare(&mut self, name: &Label, with: &Principal) -> Done {
        let (serial, mut vm) = self.named(name)?;
        if vm.shares.remove(with).is_none() {
            return Err(Refusal::Already(format!("VM `{name}` is not shared with `{with}`")));
        }
        vm.forget_ways_of(with);
        self.put_vm(serial, vm);
        Ok(())
    }

    pub(super) fn rename(&mut self, name: &Label, to: &Label) -> Done {
        let (serial, mut vm) = self.named(name)?;
        self.free_name(to, "VM")?;
        vm.name = to.clone();
        self.put_vm(serial, vm);
        Ok(())
    }

    pub(super) fn transfer(
        &mut self,
        name: &Label,
        to: &Principal,
        keep: Option<Access>,
        options: Options,
    ) -> Done {
        let (serial, mut vm) = self.named(name)?;
        self.known(to)?;
        if vm.owner == *to {
            return Err(Refusal::Already(format!("`{to}` owns VM `{name}` already")));
        }
        let from = std::mem::replace(&mut vm.owner, to.clone());
        self.keep_own_pin(serial, &mut vm);
        vm.shares.remove(to);
        if keep != Some(Access::Slot) {
            vm.forget_ways_of(&from);
        }
        if let Some(access) = keep {
            vm.shares.insert(from, access);
            check_shares(name, &vm)?;
        }
        self.put_vm(serial, vm);
        self.settle_for(serial, to, options)
    }

    pub(super) fn vm_set(&mut self, name: &Label, set: &VmSettings) -> Done {
        let (serial, mut vm) = self.named(name)?;
        let VmSettings { ssh, login, host_key, source_address, state, node, carry } = set;
        if let Some(ssh) = ssh {
            check_endpoint(ssh, &self.model().limits().networks)?;
            vm.ssh.clone_from(ssh);
        }
        if let Some(login) = login {
            vm.login = check_login(login)?;
        }
        if let Some(host_key) = host_key {
            host_keys::give(&mut vm, check_host_key(host_key)?);
        }
        if let Some(source) = source_address {
            vm.source_address = check_source(source)?;
        }
        if let Some(node) = node {
            vm.node = if node.is_empty() { None } else { Some(Label::new(node)?) };
        }
        vm.carry = carry.unwrap_or(vm.carry);
        self.check_node(&vm)?;
        vm.state = state.unwrap_or(vm.state);
        self.put_vm(serial, vm);
        Ok(())
    }
}

fn check_shares(name: &Label, vm: &Vm) -> Done {
    limit(vm.shares.len(), SHARES_MAX, || format!("VM `{name}` would have shares"))
}
