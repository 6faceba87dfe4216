//! Stores that a restore has replaced: each is kept under a name that says when, none is ever
//! written over, and they are read as they lie.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::file;
use crate::durable;
use crate::registry::store::StoreError;

/// What stands behind the name of the store that was replaced. Earlier versions wrote
/// no more than this.
const REPLACED: &str = ".replaced";
/// Restores within one second. A thousandth is no operator.
const SAME_SECOND_MAX: u32 = 1000;

/// A store that a restore has replaced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replaced {
    /// Where it is kept.
    pub path: PathBuf,
    /// The Unix time at which it was replaced: nobody has served from it since. Where its name does
    /// not say, its last change.
    pub until_s: u64,
}

/// Every store that was replaced at `path`, by name.
///
/// # Errors
/// [`StoreError::System`].
pub fn replaced(path: &Path) -> Result<Vec<Replaced>, StoreError> {
    let directory = durable::directory(path);
    let system = |error| StoreError::system(directory, &error);
    let begin = file::with_suffix(Path::new(path.file_name().unwrap_or_default()), REPLACED);
    let begin = begin.as_os_str().as_encoded_bytes();
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).map_err(system)? {
        let entry = entry.map_err(system)?;
        let name = entry.file_name();
        let Some(rest) = name.as_encoded_bytes().strip_prefix(begin) else { continue };
        // The log and its index are no stores.
        if !(rest.is_empty() || rest.starts_with(b"-") && !is_beside(rest)) {
            continue;
        }
        let named = str::from_utf8(rest).ok().and_then(|rest| from_stamp(rest.get(1..)?));
        let changed = || entry.metadata().map_err(system).map(|about| about.ctime());
        let until_s = match named {
            Some(until_s) => until_s,
            None => changed()?.try_into().unwrap_or(0),
        };
        all.push(Replaced { path: entry.path(), until_s });
    }
    all.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(all)
}

/// The Unix time of what begins with `20261130T013000Z`.
fn from_stamp(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
    let marks = text.get(8..9) == Some("T") && text.get(15..16) == Some("Z");
    if !marks || year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days of the proleptic Gregorian calendar, by years that begin in March and eras of 400 years.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn is_beside(name: &[u8]) -> bool {
    [&b"-wal"[..], b"-shm", b"-journal"].iter().any(|end| name.ends_with(end))
}

/// Gives the file at `path` a second name that was free, with `stamp` in it, and moves the log and
/// its index there; the second name.
pub(super) fn keep(path: &Path, stamp: &str) -> io::Result<PathBuf> {
    for number in 1..SAME_SECOND_MAX {
        let again = if number == 1 { String::new() } else { format!("-{number}") };
        let second = file::with_suffix(path, &format!("{REPLACED}-{stamp}{again}"));
        let mut beside = file::beside(&second).into_iter();
        if beside.any(|name| fs::symlink_metadata(name).is_ok()) {
            continue;
        }
        // A link fails if the name is taken.
        match fs::hard_link(path, &second) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            linked => {
                linked?;
                // SQLite removes a log as it closes, if it can. One that is still here belongs to a
                // damaged file, and would be applied to the new one.
                for (name, second) in file::beside(path).iter().zip(&file::beside(&second)) {
                    match fs::rename(name, second) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        Err(_) | Ok(()) => {}
                    }
                }
                // Before another takes its place.
                durable::sync_names(durable::directory(path))?;
                return Ok(second);
            }
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}
