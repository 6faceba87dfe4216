//! Backup and restore: a copy appears whole or not at all.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use rusqlite::Connection;

use super::{file, meta};
use crate::registry::store::{Fault, Head, StoreId};

/// What a copy is called until it is whole.
const PARTIAL: &str = ".partial";
/// What a store that a restore replaced is called.
const REPLACED: &str = ".replaced";

/// Copies the store at `from` to the new file `to`.
pub(super) fn backup(from: &Path, to: &Path) -> Result<(), Fault> {
    let exists = || Fault::Exists { path: to.to_owned() };
    if fs::symlink_metadata(to).is_ok() {
        return Err(exists());
    }
    let partial = file::with_suffix(to, PARTIAL);
    write_partial(from, &partial)?;
    // A link, not a rename: a file that is there is not replaced.
    let linked = sync(&partial).and_then(|()| fs::hard_link(&partial, to));
    let removed = fs::remove_file(&partial);
    let kept = linked.and(removed).and_then(|()| sync(file::directory(to)));
    // Somebody else may have made it since it was looked for.
    let taken = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
    kept.map_err(|error| if taken(&error) { exists() } else { Fault::system(to, &error) })
}

/// Puts the backup `from` in the place of the store `to`, whose directory exists, and gives it the id `fresh` (random):
/// whoever has read the store before sees that its history is another now. What was there is kept as `to.replaced`.
///
/// # Errors
/// [`Fault::Locked`] if a process uses `to`; every [`Fault`] that is about a file. `to` is then as it was.
pub fn restore(from: &Path, to: &Path, fresh: StoreId) -> Result<Head, Fault> {
    let partial = file::with_suffix(to, PARTIAL);
    write_partial(from, &partial)?;
    let renewed = renew(&partial, fresh);
    let replaced = renewed.and_then(|head| {
        let system = |error| Fault::system(to, &error);
        sync(&partial).map_err(system)?;
        // Held until the new file is in its place.
        let _held = set_aside(to)?;
        fs::rename(&partial, to).map_err(system)?;
        sync(file::directory(to)).map_err(system)?;
        Ok(head)
    });
    if replaced.is_err() {
        // Nothing more to say if even that fails: the next attempt removes it first.
        let _ = fs::remove_file(&partial);
    }
    replaced
}

/// A copy of the store at `from` under a name that is ours, not yet synced.
fn write_partial(from: &Path, partial: &Path) -> Result<(), Fault> {
    let system = |error| Fault::system(partial, &error);
    unless_absent(fs::remove_file(partial)).map_err(system)?;
    fs::metadata(from).map_err(|error| Fault::system(from, &error))?;
    let source = file::connect(from)?;
    if file::check(from, &source)? == file::Kind::Empty {
        return Err(Fault::NotAStore { path: from.to_owned() });
    }
    // SQLite takes the mode of an empty file that it finds.
    file::create_file(partial).map_err(system)?;
    let name = partial.to_str().ok_or_else(|| Fault::said(partial, "the name is not UTF-8"))?;
    let written = source.execute("VACUUM INTO ?1", [name]).map_err(|error| {
        let _ = fs::remove_file(partial);
        file::judge(partial, &error)
    });
    written.map(drop)
}

/// Gives a copy its new id. No file stands beside it, now or after a crash: without an id of its own it is never used.
fn renew(path: &Path, fresh: StoreId) -> Result<Head, Fault> {
    let copy = file::connect(path)?;
    let renewed = copy
        .pragma_update_and_check(None, "journal_mode", "MEMORY", |row| row.get::<_, String>(0))
        .and_then(|_| copy.execute("UPDATE meta SET store_id = ?1", [fresh.0]));
    renewed.and_then(|_| Ok(meta(&copy)?.head)).map_err(|error| file::judge(path, &error))
}

/// Makes sure that nobody uses the store at `path`, that its log is in its file, and links it to its second name.
/// The connection returned keeps everybody else out.
fn set_aside(path: &Path) -> Result<Option<Connection>, Fault> {
    let system = |error| Fault::system(path, &error);
    if !fs::exists(path).map_err(system)? {
        return Ok(None);
    }
    let held = match hold(path) {
        Ok(held) => Some(held),
        // It cannot be read: that may be why a backup is restored.
        Err(Fault::Corrupt { .. } | Fault::NotAStore { .. }) => None,
        Err(fault) => return Err(fault),
    };
    let second = file::with_suffix(path, REPLACED);
    unless_absent(fs::remove_file(&second)).map_err(system)?;
    for (name, second) in file::beside(path).iter().zip(&file::beside(&second)) {
        unless_absent(fs::remove_file(second)).map_err(system)?;
        // SQLite removes a log as it closes, if it can. One that is still here belongs to the damaged file, and would
        // be applied to the new one.
        unless_absent(fs::rename(name, second)).map_err(system)?;
    }
    fs::hard_link(path, &second).map_err(system)?;
    Ok(held)
}

fn hold(path: &Path) -> Result<Connection, Fault> {
    let connection = file::connect(path)?;
    // Leaving the write-ahead mode takes a lock that no other connection may share, and empties the log.
    let held = connection
        .pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get::<_, String>(0))
        .and_then(|_| connection.execute_batch("BEGIN EXCLUSIVE"));
    held.map_err(|error| file::judge(path, &error))?;
    Ok(connection)
}

fn unless_absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
