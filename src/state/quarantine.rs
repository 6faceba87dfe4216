//! Slots that led to a VM not long ago, in a file beside the routes: a store may be damaged, and
//! what it knew of them with it.
//!
//! A line a quarantined slot, appended when its quarantine begins. Like the journal of the
//! routes it is not synced: after a crash of the host its last seconds may be missing, and a
//! line may be torn.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::durable::{self, FILE_MODE};
use crate::registry::command::Way;
use crate::registry::document::QuarantinedSlot;
use crate::registry::{Document, Key, Model, Principal, Written};

/// The file may grow by this, or to twice what it held when it was written anew, if that is more.
const GROWTH_BYTES: u64 = 4 << 20;

/// Where quarantined slots are saved.
#[derive(Debug)]
pub(crate) struct SavedQuarantine {
    path: PathBuf,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
    bytes_max: u64,
}

/// A line.
#[derive(Deserialize, Serialize)]
struct Line {
    principal: Principal,
    #[serde(flatten)]
    quarantine: QuarantinedSlot,
}

impl SavedQuarantine {
    pub(super) const fn at(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// Moves the file there, if there is one.
    pub(super) fn set_aside(&self, there: &Self) -> io::Result<()> {
        match fs::rename(&self.path, &there.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Writes all that the model has in quarantine, in the place of what was saved.
    fn write(&mut self, model: &Model) -> io::Result<()> {
        self.open = None;
        let mut text = Vec::new();
        for (principal, quarantined) in model.quarantined() {
            for quarantine in quarantined {
                line(principal, quarantine, &mut text);
            }
        }
        let temporary = self.path.with_extension("holds-new");
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(FILE_MODE).open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        durable::rename(&temporary, &self.path)?;
        let bytes = text.len() as u64;
        let bytes_max = bytes.saturating_add(bytes.max(GROWTH_BYTES));
        self.open = Some(Open { file, bytes, bytes_max });
        Ok(())
    }

    /// Adds what went into quarantine by a change, after which the model is this one.
    pub(crate) fn append(&mut self, model: &Model, written: &[Written]) -> io::Result<()> {
        let mut text = Vec::new();
        for Written { key, now, before } in written {
            let (Key::Quarantine(principal), Some(Document::Quarantine(now))) = (key, now) else {
                continue;
            };
            let before: HashSet<&QuarantinedSlot> = match before {
                Some((Document::Quarantine(before), _)) => before.iter().collect(),
                _ => HashSet::new(),
            };
            for quarantine in now.iter().filter(|quarantine| !before.contains(quarantine)) {
                line(principal, quarantine, &mut text);
            }
        }
        if text.is_empty() {
            return Ok(());
        }
        // If this fails all must be written: something is missing from then on.
        let Some(mut open) = self.open.take() else { return self.write(model) };
        open.bytes += text.len() as u64;
        if open.bytes > open.bytes_max {
            return self.write(model);
        }
        open.file.write_all(&text)?;
        self.open = Some(open);
        Ok(())
    }

    /// All that was saved, as ways that there were; what is torn is left out.
    pub(crate) fn read(&self) -> io::Result<Vec<Way>> {
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text?,
        };
        let lines = text.split(|byte| *byte == b'\n');
        let ways = lines.filter_map(|line| {
            let Line { principal, quarantine } = serde_json::from_slice(line).ok()?;
            let QuarantinedSlot { address, vm, until_s, endpoint } = quarantine;
            Some(Way { principal, address, vm, until_s: Some(until_s), endpoint })
        });
        Ok(ways.collect())
    }
}

fn line(principal: &Principal, quarantine: &QuarantinedSlot, into: &mut Vec<u8>) {
    let line = Line { principal: principal.clone(), quarantine: quarantine.clone() };
    // Strings and numbers can always be written.
    into.extend(serde_json::to_vec(&line).unwrap_or_default());
    into.push(b'\n');
}
