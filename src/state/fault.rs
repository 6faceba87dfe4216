//! Why the state directory cannot be used, and what to do.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use crate::ssh::publickey::{Fingerprint, KeyFault};

/// Why the state directory cannot be used. The operator's to repair; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StateFault {
    /// The system refused.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// Others than the service's user can get at it.
    #[error("{} is open to others (mode {mode:04o}); fix: chmod go= {}", .path.display(), .path.display())]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key file that is no key.
    #[error("{}: {fault}; fix: restore it from a backup, or move it away to have a new one made", .path.display())]
    Key {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        fault: KeyFault,
    },
    /// Lines of old pins that cannot be read. A lost pin would be taken anew from whoever answers,
    /// so none is skipped.
    #[error("{}", lines(.path, .faults))]
    Pins {
        /// The file or directory.
        path: PathBuf,
        /// Line, from 1, and what is wrong with it.
        faults: Vec<(usize, String)>,
    },
    /// Another process serves with this directory. Each would overwrite what the other writes.
    #[error("{} is in use by another keyway{}; fix: end that one first, or set another state_dir", .path.display(), process(*.by))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, if it left its id.
        by: Option<u32>,
    },
    /// A process uses the store. One that drains holds neither the directory nor, if the file is
    /// damaged, a lock of the store's own.
    #[error("{} is in use, maybe by a keyway that drains; fix: end that one (fuser shows it), then try again", .path.display())]
    StoreInUse {
        /// The store.
        path: PathBuf,
    },
    /// A key would have to take the place of another one, which clients or VMs know.
    #[error("{} holds another key ({fingerprint}); fix: move it away if nobody knows it", .path.display())]
    OtherKey {
        /// The file or directory.
        path: PathBuf,
        /// Of the key that is there.
        fingerprint: Fingerprint,
    },
}

fn process(id: Option<u32>) -> String {
    id.map_or_else(String::new, |id| format!(" (process {id})"))
}

fn lines(path: &Path, faults: &[(usize, String)]) -> String {
    let mut all = String::new();
    for (index, (line, what)) in faults.iter().enumerate() {
        let separator = if index == 0 { "" } else { "\n" };
        let fix = "restore the line, or remove it to pin the VM's key anew";
        let _ = write!(all, "{separator}{}:{line}: {what}; fix: {fix}", path.display());
    }
    all
}
