//! What is left for the next start, beside the store: that one was restored, that one of another
//! history is to be believed, and which edges were removed.

use std::path::PathBuf;
use std::{fs, io};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::State;
use super::fault::StateFault;
use super::private_file::{read, replace};
use crate::durable;
use crate::registry::edge_identity;

const ADOPTED: &str = "adopted";
const RESTORED: &str = "restored";
const ADOPTING: &str = "adopting";
const REPLACED: &str = "replaced_stores";
const REMOVED_EDGES: &str = "removed_edges";

/// Which store an operator believes, exactly as it was looked at.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Adopted {
    /// The store's id.
    pub store_id: String,
    /// Its revision.
    pub revision: u64,
    /// The operator knows that nothing was changed after the backup was taken.
    pub nothing_lost: bool,
    /// The operator's user id.
    pub uid: u32,
}

/// An adoption that has begun, as it goes on if it is cut short: the same store, whatever was
/// written into it since.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Adopting {
    /// The store's id.
    pub(crate) store_id: String,
    /// Its revision before.
    pub(crate) revision: u64,
    /// What that is raised to, once.
    pub(crate) floor: u64,
    /// Who asked for it, if somebody did.
    pub(crate) adopted: Option<Adopted>,
}

/// A backup that was put in the place of the store, or is about to be.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Restored {
    /// The id that the store got by it.
    pub store_id: String,
    /// Unix time.
    pub at_s: u64,
    /// Which backup, as it was named.
    pub from: String,
    /// Whose command it was.
    pub uid: u32,
}

/// An edge that was removed: a store that forgets it is told again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct RemovedEdge {
    /// What it was called.
    pub(crate) name: String,
    /// The line of its public key.
    pub(crate) identity: String,
    /// Unix time.
    pub(crate) since_s: u64,
}

impl State {
    /// Notes all edges that were removed.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub(crate) fn note_removed_edges(&self, edges: &[RemovedEdge]) -> Result<(), StateFault> {
        self.write_mark(REMOVED_EDGES, &edges)
    }

    /// All edges that were removed. What cannot be read must not mean that none was.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`].
    pub(crate) fn removed_edges(&self) -> Result<Vec<RemovedEdge>, StateFault> {
        let Some(text) = self.mark_text(REMOVED_EDGES)? else { return Ok(Vec::new()) };
        let all: Option<Vec<RemovedEdge>> = serde_json::from_str(&text).ok();
        all.filter(|all| all.iter().all(|edge| edge_identity(&edge.identity).is_ok()))
            .ok_or_else(|| not_read(self.path.join(REMOVED_EDGES)))
    }

    /// Notes which store is to be believed, though another one was served from before.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub fn adopt(&self, adopted: &Adopted) -> Result<(), StateFault> {
        self.write_mark(ADOPTED, adopted)
    }

    /// What an operator has adopted since [`State::settle`]. A mark that cannot be read is none.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`].
    pub fn adopted(&self) -> Result<Option<Adopted>, StateFault> {
        self.read_mark(ADOPTED)
    }

    /// Notes an adoption before it changes anything.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub(crate) fn note_adopting(&self, adopting: &Adopting) -> Result<(), StateFault> {
        self.write_mark(ADOPTING, adopting)
    }

    /// The adoption that was begun last since [`State::settle`].
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`].
    pub(crate) fn adopting(&self) -> Result<Option<Adopting>, StateFault> {
        self.read_mark(ADOPTING)
    }

    /// Notes a restore before it takes place: whoever serves next has to know of it.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`].
    pub fn note_restored(&self, restored: Restored) -> Result<(), StateFault> {
        let mut all = self.restored()?;
        all.push(restored);
        self.write_mark(RESTORED, &all)
    }

    /// Every restore since [`State::settle`], and those that were begun and failed.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`].
    pub fn restored(&self) -> Result<Vec<Restored>, StateFault> {
        Ok(self.read_mark(RESTORED)?.unwrap_or_default())
    }

    /// Notes the ids of stores in whose place another one was adopted.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`].
    pub(crate) fn note_replaced(&self, stores: &[[u8; 16]]) -> Result<(), StateFault> {
        let mut all = self.replaced()?;
        for store in stores {
            if !all.contains(store) {
                all.push(*store);
            }
        }
        self.write_mark(REPLACED, &all)
    }

    /// The ids of all stores in whose place others were adopted here.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`].
    pub(crate) fn replaced(&self) -> Result<Vec<[u8; 16]>, StateFault> {
        Ok(self.read_mark(REPLACED)?.unwrap_or_default())
    }

    /// The store that is there is believed, and what stood before it is forgotten: the next
    /// adoption has to be asked for again.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub fn settle(&self) -> Result<(), StateFault> {
        self.forget(&[ADOPTED, RESTORED])?;
        let before = self.routes_before_adoption();
        before.remove().map_err(|error| StateFault::Io { path: self.path.clone(), error })?;
        // The last: with it whatever was cut short above goes on as it began.
        self.forget(&[ADOPTING])
    }

    fn forget(&self, names: &[&str]) -> Result<(), StateFault> {
        for name in names {
            let path = self.path.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StateFault::Io { path, error });
                }
                Err(_) | Ok(()) => {}
            }
        }
        durable::sync_names(&self.path)
            .map_err(|error| StateFault::Io { path: self.path.clone(), error })
    }

    fn write_mark(&self, name: &str, mark: &impl Serialize) -> Result<(), StateFault> {
        let path = self.path.join(name);
        let written = serde_json::to_vec(mark).map_err(io::Error::other);
        let written = written.and_then(|text| replace(&path, &text));
        written.map_err(|error| StateFault::Io { path, error })
    }

    fn read_mark<T: for<'t> Deserialize<'t>>(&self, name: &str) -> Result<Option<T>, StateFault> {
        Ok(self.mark_text(name)?.and_then(|text| serde_json::from_str(&text).ok()))
    }

    fn mark_text(&self, name: &str) -> Result<Option<Zeroizing<String>>, StateFault> {
        match read(&self.path.join(name)) {
            Err(StateFault::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            text => text.map(Some),
        }
    }
}

fn not_read(path: PathBuf) -> StateFault {
    let error = "it cannot be read, and says which edges were removed; fix: restore it from a backup, or move it away, \
                 and look at `keyway edge list`";
    StateFault::Io { path, error: io::Error::new(io::ErrorKind::InvalidData, error) }
}
