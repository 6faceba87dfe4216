//! Host keys of VMs: given by an operator, or pinned when a VM shows one at its first use.
//!
//! What is given comes before what was pinned. A key that a VM of another owner has is not pinned:
//! whoever answers at an endpoint could show the key of a VM that somebody else trusts. Whoever
//! clones images gives the host key.

use crate::registry::command::Dialled;
use crate::registry::document::{Document, Key, Serial, Vm};
use crate::registry::draft::Draft;
use crate::registry::model::Model;
use crate::registry::name::{Label, Principal};
use crate::registry::refusal::{Kind, Refusal};
use crate::route::Pin;
use crate::ssh::publickey::{Fingerprint, PublicKey};

/// What a VM has to show, or nothing if it was never seen.
pub(in crate::registry) fn wanted(vm: &Vm) -> Option<Pin> {
    let given = vm.host_key.as_deref().and_then(read);
    let pinned = vm.pin.as_deref().and_then(read);
    match (given, pinned) {
        // The key itself says more than its fingerprint: its type need not be found out.
        (Some(Pin::Fingerprint(given)), Some(pinned)) if fingerprint(&pinned).0 == given => {
            Some(pinned)
        }
        (None, pinned) => pinned,
        (given, _) => given,
    }
}

/// What was checked when it was written down: a fingerprint or a key.
fn read(text: &str) -> Option<Pin> {
    if let Ok(Fingerprint(hash)) = text.parse() {
        return Some(Pin::Fingerprint(hash));
    }
    let (key, _) = PublicKey::parse_line(text).ok()?;
    Some(Pin::of_key(key.blob()))
}

fn fingerprint(pin: &Pin) -> Fingerprint {
    match pin {
        Pin::Fingerprint(hash) => Fingerprint(*hash),
        Pin::Key(_) | Pin::Ed25519(_) => Fingerprint::of(&pin.key().unwrap_or_default()),
    }
}

/// Where a key stands in the index: a part of its fingerprint, for what is found is looked at.
fn hint(fingerprint: Fingerprint) -> u64 {
    fingerprint.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// The keys of a VM, given or pinned.
fn all(vm: &Vm) -> impl Iterator<Item = Fingerprint> {
    let texts = [vm.host_key.as_deref(), vm.pin.as_deref()];
    texts.into_iter().flatten().filter_map(read).map(|pin| fingerprint(&pin))
}

/// Gives a VM a host key, or takes the one away that was given. A pin that is another key than what
/// is given, or was, is out of date and goes.
pub(in crate::registry) fn give(vm: &mut Vm, host_key: Option<String>) {
    let pinned = vm.pin.as_deref().and_then(read).map(|pin| fingerprint(&pin));
    let before = std::mem::replace(&mut vm.host_key, host_key);
    let given = [before.as_deref(), vm.host_key.as_deref()].into_iter().flatten().filter_map(read);
    if given.map(|pin| fingerprint(&pin)).any(|given| pinned != Some(given)) {
        vm.pin = None;
    }
}

impl Model {
    pub(in crate::registry) fn index_host_keys(&mut self, serial: Serial, vm: &Vm, enter: bool) {
        for fingerprint in all(vm) {
            let entry = (hint(fingerprint), serial);
            if enter {
                self.host_keys.insert(entry);
            } else {
                self.host_keys.remove(&entry);
            }
        }
    }

    /// Another VM, of another owner than `owner`, that has this host key.
    fn of_other_owner(
        &self,
        fingerprint: Fingerprint,
        owner: &Principal,
        except: Serial,
    ) -> Option<&Label> {
        let hint = hint(fingerprint);
        let some = self.host_keys.range((hint, Serial(0))..=(hint, Serial(u64::MAX)));
        let others = some.filter(|(_, serial)| *serial != except);
        let mut vms = others.filter_map(|(_, serial)| self.vm(*serial)).map(|it| &it.document);
        let found = vms.find(|vm| vm.owner != *owner && all(vm).any(|its| its == fingerprint));
        found.map(|vm| &vm.name)
    }
}

impl Draft<'_> {
    /// The VM that was `dialled` has shown `line` and holds its private half.
    pub(in crate::registry) fn vm_pin(
        &mut self,
        id: &str,
        line: &str,
        dialled: &Dialled,
    ) -> Result<(), Refusal> {
        let (key, _) = PublicKey::parse_line(line)
            .map_err(|fault| Refusal::invalid(format_args!("no host key: {fault}"), "try again"))?;
        let model = self.model();
        let found = model.of_id(id).and_then(|serial| Some((serial, model.vm(serial)?)));
        let (serial, stored) = found.ok_or_else(|| Refusal::unknown(Kind::Vm, id))?;
        let vm = &stored.document;
        if vm.owner.to_string() != dialled.owner || vm.ssh != dialled.endpoint {
            return Err(Refusal::HostKeyElsewhere { vm: vm.name.clone() });
        }
        let shown = key.fingerprint();
        let other = || Refusal::HostKeyOther { vm: vm.name.clone(), shown: shown.to_string() };
        match wanted(vm) {
            Some(pin) if pin == Pin::of_key(key.blob()) => return Ok(()),
            Some(Pin::Fingerprint(given)) if given == shown.0 => {}
            Some(_) => return Err(other()),
            None => {
                if let Some(of) = model.of_other_owner(shown, &vm.owner, serial) {
                    return Err(Refusal::HostKeyTaken { vm: vm.name.clone(), of: of.clone() });
                }
            }
        }
        let pin = Some(key.to_line().into_boxed_str());
        let vm = Vm { pin, pinned_s: self.stamp().now_s, ..Vm::clone(vm) };
        self.put(&Key::Vm(serial), Some(Document::Vm(Box::new(vm))));
        Ok(())
    }

    /// A VM has another owner now. What it showed goes if a VM of somebody else shows it too:
    /// whoever has that one could answer for this one. What was given stays, for whoever gives a
    /// key knows who has it.
    pub(in crate::registry) fn keep_own_pin(&self, serial: Serial, vm: &mut Vm) {
        let pinned = vm.pin.as_deref().and_then(read);
        let other = pinned
            .and_then(|pin| self.model().of_other_owner(fingerprint(&pin), &vm.owner, serial));
        if other.is_some() {
            vm.pin = None;
        }
    }

    /// What the VM shows next is pinned.
    pub(in crate::registry) fn vm_unpin(&mut self, name: &Label) -> Result<(), Refusal> {
        let found = self.model().vm_named(name);
        let (serial, stored) = found.ok_or_else(|| Refusal::unknown(Kind::Vm, name))?;
        if stored.document.pin.is_none() {
            return Err(Refusal::NotPinned { name: name.clone() });
        }
        let vm = Vm { pin: None, ..Vm::clone(&stored.document) };
        self.put(&Key::Vm(serial), Some(Document::Vm(Box::new(vm))));
        Ok(())
    }
}

#[cfg(test)]
#[path = "host_keys_tests.rs"]
mod tests;
