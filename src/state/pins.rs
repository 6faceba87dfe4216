//! Host keys of VMs in a file of this directory: those that an earlier Keyway pinned, for the
//! registry to take over, and those that an agent pins, which has no registry.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use super::fault::StateFault;
use super::private_file::{alone_in, read, replace};
use crate::durable;
use crate::plain_text::escaped;
use crate::route::is_id;
use crate::ssh::publickey::PublicKey;

pub(crate) const PINS: &str = "pins";
/// What the file is called when the registry has them.
const IMPORTED: &str = "pins.imported";
/// Those of an agent.
const KEPT: &str = "vm_host_keys";

/// A key and the owner of the VM that showed it first, by the VM's id.
type Pins = BTreeMap<String, (PublicKey, String)>;

/// Pins that wait for the registry to take them over.
#[derive(Debug)]
pub struct OldPins {
    directory: PathBuf,
    pins: Pins,
}

impl OldPins {
    /// The pins of this directory that the registry does not have yet, if there is such a file.
    pub(super) fn open(directory: &Path) -> Result<Option<Self>, StateFault> {
        let path = directory.join(PINS);
        let text = match read(&path) {
            Err(StateFault::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            text => text?,
        };
        match parse(&text) {
            Ok(pins) => Ok(Some(Self { directory: directory.to_owned(), pins })),
            Err(faults) => Err(StateFault::Pins { path, faults }),
        }
    }

    /// Ids of VMs, and the keys they have shown.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &PublicKey)> {
        self.pins.iter().map(|(id, (key, _))| (id.as_str(), key))
    }

    /// The registry has them: the file stays, by another name.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub fn settle(&self) -> Result<(), StateFault> {
        let path = self.directory.join(PINS);
        durable::rename(&path, &self.directory.join(IMPORTED))
            .map_err(|error| StateFault::Io { path, error })
    }
}

/// Host keys that VMs have shown at their first use, where there is no registry. They are read
/// again by making this anew.
#[derive(Debug)]
pub struct KeptPins {
    path: PathBuf,
    pins: Pins,
}

impl KeptPins {
    pub(super) fn open(directory: &Path) -> Result<Self, StateFault> {
        let path = directory.join(KEPT);
        let text = match read(&path) {
            Err(StateFault::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path, pins: Pins::new() });
            }
            text => text?,
        };
        match parse(&text) {
            Ok(pins) => Ok(Self { path, pins }),
            Err(faults) => Err(StateFault::Pins { path, faults }),
        }
    }

    /// What the VM with this id has shown.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&PublicKey> {
        self.pins.get(id).map(|(key, _)| key)
    }

    /// A VM of another owner that has shown this key.
    #[must_use]
    pub fn of_other_owner(&self, key: &PublicKey, owner: &str) -> Option<&str> {
        let of_other = |(_, (pinned, of)): &(_, &(PublicKey, String))| pinned == key && of != owner;
        self.pins.iter().find(of_other).map(|(id, _)| id.as_str())
    }

    /// Pins a key, down to the disk, unless another process has pinned one meanwhile: the first
    /// stands. What an operator has removed meanwhile stays so.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`], [`StateFault::Pins`]; nothing has changed then.
    pub fn pin(&mut self, id: &str, key: &PublicKey, owner: &str) -> Result<Pinned, StateFault> {
        let directory = durable::directory(&self.path);
        let io = |error| StateFault::Io { path: self.path.clone(), error };
        // A process that drains pins what it is still logging in to, beside its successor.
        let _others_wait = alone_in(directory).map_err(io)?;
        let there = Self::open(directory)?;
        if let Some((pinned, of)) = there.pins.get(id) {
            let is_it = pinned == key;
            self.pins.insert(id.to_owned(), (pinned.clone(), of.clone()));
            return Ok(if is_it { Pinned::Done } else { Pinned::Other });
        }
        if let Some(vm) = there.of_other_owner(key, owner) {
            return Ok(Pinned::OfOtherOwner(vm.to_owned()));
        }
        let mut pins = there.pins;
        pins.insert(id.to_owned(), (key.clone(), owner.to_owned()));
        let mut text = String::new();
        for (id, (key, owner)) in &pins {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{id} {} {owner}", key.to_line());
        }
        replace(&self.path, text.as_bytes()).map_err(io)?;
        self.pins.insert(id.to_owned(), (key.clone(), owner.to_owned()));
        Ok(Pinned::Done)
    }
}

/// What came of a key that was to be pinned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Pinned {
    /// It is the VM's.
    Done,
    /// Another one is.
    Other,
    /// It belongs to this VM of another owner.
    OfOtherOwner(String),
}

/// Lines `VM type base64 owner`; empty lines and those that begin with `#` say nothing. The owner
/// is that of the first use: a registry knows better.
fn parse(text: &str) -> Result<Pins, Vec<(usize, String)>> {
    let mut pins = Pins::new();
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (vm, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        if !is_id(vm) {
            faults.push((number, format!("`{}` is no id of a VM", escaped(vm))));
            continue;
        }
        match PublicKey::parse_line(rest.trim_start()) {
            // A line that was cut off.
            Ok((_, owner)) if owner.trim().is_empty() => {
                faults.push((number, format!("the owner of `{vm}` is missing")));
            }
            Ok((key, owner)) => {
                let pin = (key, owner.trim().to_owned());
                if pins.insert(vm.to_owned(), pin).is_some() {
                    faults.push((number, format!("`{vm}` is pinned twice")));
                }
            }
            Err(fault) => faults.push((number, format!("the key of `{vm}`: {fault}"))),
        }
    }
    if faults.is_empty() { Ok(pins) } else { Err(faults) }
}
