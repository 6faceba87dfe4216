//! Host keys of VMs: pinned at first use, or given in advance.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use arc_swap::ArcSwap;

use super::{StateFault, read, replace};
use crate::{
    route::{Pin, Vm, is_id},
    ssh::publickey::{Fingerprint, PublicKey},
};

/// The host key of a VM as it was first seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pinned {
    /// The key.
    pub key: PublicKey,
    /// The VM's owner when it was pinned.
    pub owner: String,
}

type PinnedByVm = BTreeMap<String, Arc<Pinned>>;

/// What came of a key that a VM showed at its first use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Recorded {
    /// It is the VM's pin from now on, and on disk.
    First,
    /// It was the pin already: another shard was faster.
    Same,
    /// Another key is pinned: refuse the session.
    Conflict(Arc<Pinned>),
    /// The key belongs to a VM of another owner: refuse the session. Whoever clones images gives `host_key`.
    OtherOwner {
        /// That VM's name.
        vm: String,
    },
}

/// Host keys of VMs. Reads take no lock; only a first use writes, and waits for the disk.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
    pinned: ArcSwap<PinnedByVm>,
    /// Host keys given in advance. Looked at when a key is seen for the first time only.
    given: RwLock<Given>,
    writer: Mutex<Writer>,
}

/// Host keys given in advance.
#[derive(Debug, Default)]
struct Given {
    /// Key -> ids and owners of its VMs.
    vms: HashMap<Fingerprint, Vec<(String, String)>>,
    /// Id of a VM -> its key.
    keys: HashMap<String, Fingerprint>,
}

impl Given {
    fn forget(&mut self, id: &str) {
        let Some(key) = self.keys.remove(id) else { return };
        if let Some(vms) = self.vms.get_mut(&key) {
            vms.retain(|(vm, _)| vm != id);
            if vms.is_empty() {
                self.vms.remove(&key);
            }
        }
    }

    fn note(&mut self, vm: &Vm) {
        self.forget(&vm.id);
        let key = match &vm.host_key {
            Some(Pin::Fingerprint(hash)) => Fingerprint(*hash),
            Some(Pin::Key(blob)) => match PublicKey::parse(blob) {
                Ok(key) => key.fingerprint(),
                Err(_) => return,
            },
            None => return,
        };
        self.vms.entry(key).or_default().push((vm.id.clone(), vm.owner.clone()));
        self.keys.insert(vm.id.clone(), key);
    }
}

/// Who may write the file.
#[derive(Debug)]
enum Writer {
    /// This process, which holds the lock, or nobody else is there.
    Here,
    /// A successor.
    Successor,
}

impl Pins {
    pub(super) fn open(path: PathBuf) -> Result<Self, StateFault> {
        let pinned = ArcSwap::from_pointee(read_pins(&path)?);
        Ok(Self { path, pinned, given: RwLock::default(), writer: Mutex::new(Writer::Here) })
    }

    /// The pin of `vm`, if it was ever entered. A `host_key` in the fleet file comes before it.
    pub fn get(&self, vm: &str) -> Option<Arc<Pinned>> {
        self.pinned.load().get(vm).cloned()
    }

    /// How many VMs are pinned.
    pub fn len(&self) -> usize {
        self.pinned.load().len()
    }

    /// Whether no VM is pinned.
    pub fn is_empty(&self) -> bool {
        self.pinned.load().is_empty()
    }

    /// Reads the file again: pins whose lines an operator removed are forgotten.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`], [`StateFault::Pins`]: nothing has changed.
    pub fn reload(&self) -> Result<(), StateFault> {
        let _one_at_a_time = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.pinned.store(Arc::new(read_pins(&self.path)?));
        Ok(())
    }

    /// Writes nothing from now on: a successor may take the directory's [`Lock`].
    pub fn hand_over(&self) {
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = Writer::Successor;
    }

    /// Takes note of the host keys that are given in advance, so that none of them is pinned to a VM of another owner.
    /// Replaces what was noted before: call it with all VMs.
    pub fn note_given<'a>(&self, vms: impl IntoIterator<Item = &'a Vm>) {
        let mut given = Given::default();
        for vm in vms {
            given.note(vm);
        }
        *self.given.write().unwrap_or_else(PoisonError::into_inner) = given;
    }

    /// As [`Pins::note_given`], for one VM that is new or was changed.
    pub fn note(&self, vm: &Vm) {
        self.given.write().unwrap_or_else(PoisonError::into_inner).note(vm);
    }

    /// Forgets the key that a VM showed at its first use; true if there was one. Blocks for the disk.
    ///
    /// # Errors
    /// As [`Pins::record_first`]; the pin stands then.
    pub fn forget(&self, vm: &str) -> Result<bool, StateFault> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.get(vm).is_none() {
            return Ok(false);
        }
        self.may_write(&writer)?;
        let mut pinned = read_pins(&self.path)?;
        let stood = pinned.remove(vm).is_some();
        self.replace(pinned)?;
        Ok(stood)
    }

    /// As [`Pins::forget`], for a VM that is no more: what was given in advance is forgotten too.
    ///
    /// # Errors
    /// As [`Pins::forget`].
    pub fn forget_vm(&self, vm: &str) -> Result<(), StateFault> {
        self.given.write().unwrap_or_else(PoisonError::into_inner).forget(vm);
        self.forget(vm).map(|_| ())
    }

    fn may_write(&self, writer: &Writer) -> Result<(), StateFault> {
        match writer {
            Writer::Here => Ok(()),
            Writer::Successor => Err(StateFault::HandedOver { path: self.path.clone() }),
        }
    }

    fn replace(&self, pinned: PinnedByVm) -> Result<(), StateFault> {
        self.write(&pinned).map_err(|error| StateFault::Io { path: self.path.clone(), error })?;
        self.pinned.store(Arc::new(pinned));
        Ok(())
    }

    /// A VM of another owner than `owner` that has `key`: pinned at its first use, or given in the fleet file.
    pub fn held_by_other_owner(&self, key: &PublicKey, owner: &str) -> Option<String> {
        let given = self.given.read().unwrap_or_else(PoisonError::into_inner);
        let given = given.vms.get(&key.fingerprint()).into_iter().flatten();
        let other = given.filter(|(_, its)| its != owner).map(|(vm, _)| vm.clone()).next();
        other.or_else(|| {
            let pinned = self.pinned.load();
            let mut others = pinned.iter().filter(|(_, pin)| pin.key == *key && pin.owner != owner);
            others.next().map(|(vm, _)| vm.clone())
        })
    }

    /// Pins `key` to `vm`, whose owner is `owner`, unless it has a pin. The first write wins. Blocks for the disk (a few
    /// milliseconds).
    ///
    /// What is written stands on the file as it is now: a line that was removed by hand does not come back.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`], [`StateFault::Pins`], [`StateFault::HandedOver`]: nothing is pinned, and
    /// the session must be refused.
    pub fn record_first(
        &self,
        vm: &str,
        owner: &str,
        key: &PublicKey,
    ) -> Result<Recorded, StateFault> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.may_write(&writer)?;
        self.pinned.store(Arc::new(read_pins(&self.path)?));
        if let Some(existing) = self.get(vm) {
            let same = existing.key == *key;
            return Ok(if same { Recorded::Same } else { Recorded::Conflict(existing) });
        }
        if let Some(vm) = self.held_by_other_owner(key, owner) {
            return Ok(Recorded::OtherOwner { vm });
        }
        let mut pinned = PinnedByVm::clone(&self.pinned.load());
        let pin = Pinned { key: key.clone(), owner: owner.to_owned() };
        pinned.insert(vm.to_owned(), Arc::new(pin));
        self.replace(pinned)?;
        Ok(Recorded::First)
    }

    /// Replaces the file as a whole.
    fn write(&self, pinned: &PinnedByVm) -> io::Result<()> {
        let mut text =
            String::from("# VM, host key as first seen, owner. Remove a line to pin anew.\n");
        for (vm, pin) in pinned {
            let _ = writeln!(text, "{vm} {} {}", pin.key.to_line(), pin.owner);
        }
        replace(&self.path, text.as_bytes())
    }
}

/// The pins of a file; none if there is no file.
fn read_pins(path: &Path) -> Result<PinnedByVm, StateFault> {
    let text = match read(path) {
        Err(StateFault::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(PinnedByVm::new());
        }
        text => text?,
    };
    parse_pins(&text).map_err(|faults| StateFault::Pins { path: path.to_owned(), faults })
}

/// Lines `VM type base64 owner`; empty lines and those that begin with `#` say nothing.
fn parse_pins(text: &str) -> Result<PinnedByVm, Vec<(usize, String)>> {
    let mut pinned = PinnedByVm::new();
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (vm, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        if !is_id(vm) {
            faults.push((number, format!("`{}` is no name of a VM", vm.escape_debug())));
            continue;
        }
        match PublicKey::parse_line(rest.trim_start()) {
            Ok((_, owner)) if owner.trim().is_empty() => {
                faults.push((number, format!("the owner of `{vm}` is missing")));
            }
            Ok((key, owner)) => {
                let pin = Pinned { key, owner: owner.trim().to_owned() };
                if pinned.insert(vm.to_owned(), Arc::new(pin)).is_some() {
                    faults.push((number, format!("`{vm}` is pinned twice")));
                }
            }
            Err(fault) => faults.push((number, format!("the key of `{vm}`: {fault}"))),
        }
    }
    if faults.is_empty() { Ok(pinned) } else { Err(faults) }
}
