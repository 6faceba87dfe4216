//! Files that are there after a crash of the host: what is in a file is on the disk before it has
//! its name, and its name is before anybody relies on it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Permission bits that let others than the owner at a file.
pub(crate) const MODE_OTHERS: u32 = 0o077;
/// Mode of a file that is for the service's user alone.
pub(crate) const FILE_MODE: u32 = 0o600;

/// Writes a file that must not exist. Its name may be lost by a crash until it is linked, renamed
/// or its directory synced.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives a file that is synced its name, in place of what had it.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_names(directory(to))
}

/// Gives a file that is synced a name that must be free: unlike a rename it replaces nothing.
pub(crate) fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)?;
    sync_names(directory(to))
}

/// What a directory has by name now is there after a crash, and what was removed is not.
pub(crate) fn sync_names(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()?;
    #[cfg(test)]
    seen::note(directory);
    Ok(())
}

/// Where a file is.
pub(crate) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What a crash would have left: no test can ask a disk.
#[cfg(test)]
pub(crate) mod seen {
    use std::cell::RefCell;
    use std::fs;
    use std::path::Path;

    thread_local! {
        static SYNCED: RefCell<Vec<Vec<String>>> = const { RefCell::new(Vec::new()) };
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let whole = fs::canonicalize(directory).unwrap();
        let path = |entry: fs::DirEntry| whole.join(entry.file_name()).display().to_string();
        entries.map(|entry| path(entry.unwrap())).collect()
    }

    pub(super) fn note(directory: &Path) {
        SYNCED.with_borrow_mut(|all| all.push(names(directory)));
    }

    /// The paths that each sync of a directory by this thread found there, the earliest first.
    pub(crate) fn synced() -> Vec<Vec<String>> {
        SYNCED.with_borrow(Clone::clone)
    }

    /// Whether this name is on the disk.
    pub(crate) fn has_synced(path: &Path) -> bool {
        let path = fs::canonicalize(path).unwrap().display().to_string();
        synced().iter().any(|names| names.contains(&path))
    }

    /// Whether the names of `directory` are as they were when it was synced last.
    pub(crate) fn is_synced(directory: &Path) -> bool {
        let (mut now, mut last) = (names(directory), synced().pop().unwrap_or_default());
        now.sort();
        last.sort();
        now == last
    }
}
