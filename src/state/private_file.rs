//! A file for the service's user alone: read if it is closed to others, replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::fault::StateFault;
use crate::durable::{self, MODE_OTHERS, write_new};
use crate::ssh::entropy::{Entropy, SystemEntropy};

/// Random bytes in the name of a temporary file: nobody else writes here, it only has to differ
/// between two processes.
const SUFFIX_BYTES: usize = 8;
/// No process takes so long to write a file.
pub(super) const LEFT_AFTER: Duration = Duration::from_hours(1);

/// A whole file of ours, as text.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, StateFault> {
    let io = |error| StateFault::Io { path: path.to_owned(), error };
    let file = File::open(path).map_err(io)?;
    let about = file.metadata().map_err(io)?;
    if about.mode() & MODE_OTHERS != 0 {
        return Err(StateFault::Open { path: path.to_owned(), mode: about.mode() & 0o7777 });
    }
    // Read in one piece, for what a growing buffer leaves behind is not wiped.
    let mut text =
        Zeroizing::new(String::with_capacity(usize::try_from(about.len()).unwrap_or(0) + 1));
    (&file).read_to_string(&mut text).map_err(io)?;
    Ok(text)
}

/// Makes others who ask for the same wait until this is dropped: for what is read, changed and
/// replaced.
pub(super) fn alone_in(directory: &Path) -> io::Result<File> {
    let directory = File::open(directory)?;
    directory.lock()?;
    Ok(directory)
}

/// Writes a file unless there is one.
pub(super) fn make_once(path: &Path, bytes: &[u8], entropy: &mut dyn Entropy) -> io::Result<()> {
    let temporary = temporary(path, entropy);
    let made = write_new(&temporary, bytes)
        // A link fails if the name is taken, where a rename would replace
        // another process's key.
        .and_then(|()| match durable::link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
    let removed = fs::remove_file(&temporary);
    made.and(removed)
}

/// Writes a file in place of the one that is there, down to the disk.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(path, &mut SystemEntropy::default());
    let written = write_new(&temporary, bytes).and_then(|()| {
        forget_left(path, &temporary);
        durable::rename(&temporary, path)
    });
    if written.is_err() {
        // Of two faults the first says more.
        let _gone = fs::remove_file(&temporary);
    }
    written
}

/// What a file is written as, by one process of all.
fn temporary(path: &Path, entropy: &mut dyn Entropy) -> PathBuf {
    let mut suffix = [0; SUFFIX_BYTES];
    entropy.fill(&mut suffix);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = format!(".{name}.{:016x}", u64::from_le_bytes(suffix));
    durable::directory(path).join(name)
}

/// Removes what processes left that died while they wrote the file at `path`: all that is much
/// older than `new`. What cannot be removed is in nobody's way.
fn forget_left(path: &Path, new: &Path) {
    let directory = durable::directory(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let modified = |path: &Path| fs::metadata(path).and_then(|about| about.modified());
    let (Ok(now), Ok(entries)) = (modified(new), fs::read_dir(directory)) else { return };
    let begins = format!(".{name}.");
    for entry in entries.flatten() {
        let file = entry.file_name();
        let suffix = file.to_str().and_then(|file| file.strip_prefix(&begins));
        let is_ours = suffix.is_some_and(|suffix| {
            suffix.len() == 2 * SUFFIX_BYTES && suffix.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        let age = modified(&entry.path()).ok().and_then(|then| now.duration_since(then).ok());
        if is_ours && age.is_some_and(|age| age > LEFT_AFTER) {
            let _gone = fs::remove_file(entry.path());
        }
    }
}

/// Files of one name that are kept, of one second. A thousandth is no operator.
const KEPT_MAX: u32 = 1000;

/// Gives a file a second name, with `stamp` in it, that was free.
pub(super) fn link_beside(path: &Path, stamp: &str) -> io::Result<PathBuf> {
    for number in 1..KEPT_MAX {
        let again = if number == 1 { String::new() } else { format!("-{number}") };
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".replaced-{stamp}{again}"));
        match durable::link(path, Path::new(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            linked => return linked.map(|()| name.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
