//! How one front door follows another on a state directory: who still has its doors open, and who waits to take over.
//!
//! Two files, each locked as long as something is so (flock(2): a process that dies gives both up). `doors`: a process
//! listens, with as many shards as the file says. `successor`: a process waits for the directory, or has it and does not
//! listen yet.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::{FILE_MODE, ID_BYTES_MAX, Lock, State, StateFault};

const DOORS: &str = "doors";
const SUCCESSOR: &str = "successor";
/// Tries for a place that somebody may be looking at just now.
const TRIES_MAX: u32 = 20;

/// Whether this process listens, for others to see.
#[derive(Debug)]
pub struct Doors {
    path: PathBuf,
    file: File,
}

/// The place of the one who takes over. Given up by whoever listens, or ends.
#[derive(Debug)]
pub struct Turn {
    _file: File,
}

impl State {
    /// To say that this process listens.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub fn doors(&self) -> Result<Doors, StateFault> {
        let path = self.path.join(DOORS);
        let file = open(&path).map_err(|error| StateFault::Io { path: path.clone(), error })?;
        Ok(Doors { path, file })
    }

    /// Takes the directory as [`State::lock`] does; if another process has it, says so and waits as long as `waits`
    /// returns true, which it does after a moment.
    ///
    /// # Errors
    /// As there: also if somebody waits already.
    pub fn lock_in_turn(
        &self,
        says: &dyn Fn(&StateFault),
        waits: &mut dyn FnMut() -> bool,
    ) -> Result<(Lock, Option<Turn>), StateFault> {
        let taken = match self.lock() {
            Ok(lock) => return Ok((lock, None)),
            Err(taken @ StateFault::InUse { .. }) => taken,
            Err(fault) => return Err(fault),
        };
        let path = self.path.join(SUCCESSOR);
        let io = |error| StateFault::Io { path: path.clone(), error };
        let file = open(&path).map_err(io)?;
        let mut tries = 0;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(io(error)),
                Err(TryLockError::WouldBlock) => {
                    tries += 1;
                    if tries == TRIES_MAX || !waits() {
                        return Err(taken);
                    }
                }
            }
        }
        says(&taken);
        loop {
            match self.lock() {
                Ok(lock) => return Ok((lock, Some(Turn { _file: file }))),
                Err(taken @ StateFault::InUse { .. }) => {
                    if !waits() {
                        return Err(taken);
                    }
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Whether somebody waits for the directory, or has it and does not listen yet.
    pub fn has_successor(&self) -> bool {
        let file = OpenOptions::new().read(true).open(self.path.join(SUCCESSOR));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

impl Doors {
    /// How many shards another process listens with; nothing if none does, and then none may from now on.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub fn others(&self) -> Result<Option<usize>, StateFault> {
        match self.file.try_lock() {
            Ok(()) => Ok(None),
            Err(TryLockError::Error(error)) => Err(self.fault(error)),
            Err(TryLockError::WouldBlock) => {
                let mut shards = String::new();
                let read = (&self.file).rewind();
                let read = read.and((&self.file).take(ID_BYTES_MAX).read_to_string(&mut shards));
                read.map_err(|error| self.fault(error))?;
                Ok(Some(shards.trim().parse().unwrap_or(0)))
            }
        }
    }

    /// Returns when no other process listens, and none may from now on.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub fn wait(&self) -> Result<(), StateFault> {
        self.file.lock().map_err(|error| self.fault(error))
    }

    /// This process listens with so many shards.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub fn open(&self, shards: usize) -> Result<(), StateFault> {
        let write = self.file.set_len(0).and_then(|()| (&self.file).rewind());
        let write = write.and_then(|()| writeln!(&self.file, "{shards}"));
        write.map_err(|error| self.fault(error))
    }

    /// This process does not listen any more.
    pub fn close(&self) {
        // It is given up at the end of the process at the latest.
        let _later = self.file.unlock();
    }

    fn fault(&self, error: io::Error) -> StateFault {
        StateFault::Io { path: self.path.clone(), error }
    }
}

fn open(path: &std::path::Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    options.open(path)
}
