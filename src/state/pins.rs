//! Host keys of VMs that an earlier Keyway pinned in a file of this directory, for the registry to take over.

use std::{collections::BTreeMap, io, path::Path, path::PathBuf};

use super::{StateFault, read};
use crate::{durable, plain_text::escaped, route::is_id, ssh::publickey::PublicKey};

pub(crate) const PINS: &str = "pins";
/// What the file is called when the registry has them.
const IMPORTED: &str = "pins.imported";

/// Pins that wait for the registry to take them over.
#[derive(Debug)]
pub struct OldPins {
    directory: PathBuf,
    pins: BTreeMap<String, PublicKey>,
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
        self.pins.iter().map(|(id, key)| (id.as_str(), key))
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

/// Lines `VM type base64 owner`; empty lines and those that begin with `#` say nothing. The owner is that of the first use:
/// the registry knows better.
fn parse(text: &str) -> Result<BTreeMap<String, PublicKey>, Vec<(usize, String)>> {
    let mut pins = BTreeMap::new();
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
            Ok((key, _)) => {
                if pins.insert(vm.to_owned(), key).is_some() {
                    faults.push((number, format!("`{vm}` is pinned twice")));
                }
            }
            Err(fault) => faults.push((number, format!("the key of `{vm}`: {fault}"))),
        }
    }
    if faults.is_empty() { Ok(pins) } else { Err(faults) }
}
