//! Backup and restore: a copy appears whole or not at all, and no file is removed or written over
//! that was not made here.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::meta::meta;
use super::{file, kept};
use crate::durable;
use crate::registry::store::{Head, StoreError, StoreId};

/// What a copy is called until it is whole, with a number behind it.
const PARTIAL: &str = ".partial-";
/// Copies that were cut short and lie about: nobody leaves so many.
const PARTIAL_MAX: u32 = 1000;

/// A copy that is not whole yet; dropped, it is gone.
struct Partial(PathBuf);

impl Partial {
    /// An empty file beside `to`, under a name that nothing had.
    fn create(to: &Path) -> Result<Self, StoreError> {
        for number in 1..PARTIAL_MAX {
            let path = file::with_suffix(to, &format!("{PARTIAL}{number}"));
            // SQLite takes the mode of an empty file that it finds.
            match file::create_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    return made
                        .map(|()| Self(path))
                        .map_err(|error| StoreError::system(to, &error));
                }
            }
        }
        Err(StoreError::Exists { path: file::with_suffix(to, &format!("{PARTIAL}{PARTIAL_MAX}")) })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Nothing more to say if even that fails; in its place it has this name no more.
        let _ = fs::remove_file(&self.0);
    }
}

/// Copies the store at `from` to the new file `to`. A process may use it meanwhile.
///
/// # Errors
/// [`StoreError::Exists`]; every [`StoreError`] that is about a file.
pub fn backup(from: &Path, to: &Path) -> Result<(), StoreError> {
    let exists = || StoreError::Exists { path: to.to_owned() };
    if fs::symlink_metadata(to).is_ok() {
        return Err(exists());
    }
    let partial = write_partial(from, to)?;
    // A link, not a rename: a file that is there is not replaced.
    let kept = sync(&partial.0).and_then(|()| durable::link(&partial.0, to));
    drop(partial);
    // Somebody else may have made it since it was looked for.
    let taken = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
    kept.map_err(|error| if taken(&error) { exists() } else { StoreError::system(to, &error) })
}

/// What a restore did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Restored {
    /// Of the store that is there now.
    pub head: Head,
    /// Where the store is kept that was there, if there was one.
    pub replaced: Option<PathBuf>,
}

/// Puts the backup `from` in the place of the store `to`, whose directory exists, and gives it the
/// id `fresh` (random): whoever has read the store before sees that its history is another now.
/// What was there is kept under a name with `stamp`, the moment as letters and digits.
///
/// # Errors
/// [`StoreError::Locked`] if a process uses `to` and it is not damaged; every [`StoreError`] that
/// is about a file. `to` is then as it was.
pub fn restore(
    from: &Path,
    to: &Path,
    fresh: StoreId,
    stamp: &str,
) -> Result<Restored, StoreError> {
    let partial = write_partial(from, to)?;
    let head = renew(&partial.0, fresh)?;
    let system = |error| StoreError::system(to, &error);
    sync(&partial.0).map_err(system)?;
    // Held until the new file is in its place.
    let (_keeps_out, replaced) = match set_aside(to, stamp)? {
        Some((connection, replaced)) => (connection, Some(replaced)),
        None => (None, None),
    };
    durable::rename(&partial.0, to).map_err(system)?;
    Ok(Restored { head, replaced })
}

/// A copy of the store at `from` beside `to`, not yet synced.
fn write_partial(from: &Path, to: &Path) -> Result<Partial, StoreError> {
    fs::metadata(from).map_err(|error| StoreError::system(from, &error))?;
    let source = file::connect(from)?;
    if file::check(from, &source)? == file::Kind::Empty {
        return Err(StoreError::NotAStore { path: from.to_owned() });
    }
    let partial = Partial::create(to)?;
    let path = &partial.0;
    let name = path.to_str().ok_or_else(|| StoreError::said(path, "the name is not UTF-8"))?;
    let written = source.execute("VACUUM INTO ?1", [name]);
    written.map_err(|error| file::store_error(path, &error))?;
    Ok(partial)
}

/// Gives a copy its new id. No file stands beside it, now or after a crash: without an id of its
/// own it is never used.
fn renew(path: &Path, fresh: StoreId) -> Result<Head, StoreError> {
    let copy = file::connect(path)?;
    let renewed = copy
        .pragma_update_and_check(None, "journal_mode", "MEMORY", |row| row.get::<_, String>(0))
        .and_then(|_| copy.execute("UPDATE meta SET store_id = ?1", [fresh.0]));
    renewed.and_then(|_| Ok(meta(&copy)?.head)).map_err(|error| file::store_error(path, &error))
}

/// Makes sure that nobody uses the store at `path`, that its log is in its file, and gives it its
/// second name. The connection returned keeps everybody else out.
fn set_aside(
    path: &Path,
    stamp: &str,
) -> Result<Option<(Option<Connection>, PathBuf)>, StoreError> {
    let system = |error| StoreError::system(path, &error);
    if !fs::exists(path).map_err(system)? {
        return Ok(None);
    }
    let held = match hold(path) {
        Ok(held) => Some(held),
        // It cannot be read: that may be why a backup is restored.
        Err(StoreError::Corrupt { .. } | StoreError::NotAStore { .. }) => None,
        Err(fault) => return Err(fault),
    };
    let second = kept::keep(path, stamp).map_err(system)?;
    Ok(Some((held, second)))
}

fn hold(path: &Path) -> Result<Connection, StoreError> {
    let connection = file::connect(path)?;
    // Leaving the write-ahead mode takes a lock that no other connection may share, and
    // empties the log.
    let held = connection
        .pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get::<_, String>(0))
        .and_then(|_| connection.execute_batch("BEGIN EXCLUSIVE"));
    held.map_err(|error| file::store_error(path, &error))?;
    Ok(connection)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
