//! What goes wrong with a store, whose fault it is and what to do.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use super::limits::{KEY_BYTES_MAX, OPERATIONS_MAX, TRANSACTION_BYTES_MAX, VALUE_BYTES_MAX};
use super::revision::{Revision, StoreId};

/// Why a transaction was not made. The store is as it was.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Somebody else was faster: read again, decide again.
    #[error("{key} {}; read it and try again", was(*.found))]
    Conflict {
        /// Whose compare failed: the first, in the order they were given.
        key: String,
        /// When it was last put, if it is there.
        found: Option<Revision>,
    },
    /// The caller's fault: split it.
    #[error(
        "{count} operations in one transaction, at most {OPERATIONS_MAX} compares and as many changes"
    )]
    Operations {
        /// How many compares, or how many changes.
        count: usize,
    },
    /// The caller's fault.
    #[error("a key of {bytes} bytes; one has 1 to {KEY_BYTES_MAX}")]
    Key {
        /// Its length.
        bytes: usize,
    },
    /// The caller's fault.
    #[error("the value of {key} has {bytes} bytes, at most {VALUE_BYTES_MAX}")]
    Value {
        /// Whose.
        key: String,
        /// Its length.
        bytes: usize,
    },
    /// The caller's fault: split it.
    #[error("{bytes} bytes in one transaction, at most {TRANSACTION_BYTES_MAX}")]
    Bytes {
        /// Those of all keys and values.
        bytes: usize,
    },
    /// The caller's fault: which of the two changes is meant?
    #[error("{key} is changed twice in one transaction")]
    Twice {
        /// The key that was meant.
        key: String,
    },
}

fn was(revision: Option<Revision>) -> String {
    match revision {
        None => "is gone".to_owned(),
        Some(revision) => format!("was changed (revision {revision})"),
    }
}

/// Why a transaction has no revision.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TransactFault {
    /// Nothing was changed, and the store is well.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed. No reader sees the changes; after a crash they may be there all the same.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a store cannot be used as asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// The reader is too late: what it asks for was compacted. Take a snapshot and
    /// watch from there.
    #[error("the history up to revision {oldest} is compacted; take a new snapshot")]
    Compacted {
        /// The oldest revision that a watch may begin after.
        oldest: Revision,
    },
    /// The caller speaks of a revision that this store has not reached: it has read another store,
    /// or this one before somebody put an old copy of the file back.
    #[error("store {store_id} is at revision {current} only; was an old copy of it put back?")]
    Future {
        /// Which store this is.
        store_id: StoreId,
        /// Where it is.
        current: Revision,
    },
    /// The operator's to repair; what was acknowledged is safe.
    #[error("{}: no space left; fix: make room, then try again", .path.display())]
    Full {
        /// The store's file.
        path: PathBuf,
    },
    /// Another process holds the file for longer than a transaction takes.
    #[error("{} is locked by another process; fix: end that one (fuser shows it; a keyway that drains is one too), then try again", .path.display())]
    Locked {
        /// The store's file.
        path: PathBuf,
    },
    /// Others than the service's user can get at it.
    #[error("{} is open to others (mode {mode:04o}); fix: chmod go= {}", .path.display(), .path.display())]
    Open {
        /// The file or its directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The operator's: a wrong path.
    #[error("{} is not a keyway store; fix: name the right file", .path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// The operator's: an older keyway was started on a newer one's file. Nothing was changed.
    #[error("{} has version {found} and this keyway knows {known}; fix: use the newer keyway, or restore a backup of the older", .path.display())]
    Newer {
        /// The store's file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest this program can read.
        known: i64,
    },
    /// The file was damaged: by the disk, or by a hand.
    #[error("{} is damaged ({what}); fix: keyway store restore", .path.display())]
    Corrupt {
        /// The store's file.
        path: PathBuf,
        /// What was noticed first.
        what: String,
    },
    /// The operator's: nothing is written over a file.
    #[error("{} is there already; fix: name another file, or remove it", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// There is none: it could not be opened.
    #[error("{why}")]
    Away {
        /// Why, and what to do.
        why: String,
    },
    /// The system refused.
    #[error("{}: {what}", .path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// What it said.
        what: String,
    },
}

impl StoreError {
    /// What the system said about `path`.
    pub(super) fn system(path: &Path, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::StorageFull {
            return Self::Full { path: path.to_owned() };
        }
        Self::said(path, error)
    }

    pub(super) fn said(path: &Path, what: impl fmt::Display) -> Self {
        Self::System { path: path.to_owned(), what: what.to_string() }
    }
}
