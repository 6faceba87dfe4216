//! How one front door follows another on a state directory: who still has its doors open, and who
//! waits to take over.
//!
//! Two files, each locked as long as something is so (flock(2): a process that dies gives both up).
//! `doors`: a process listens, with as many shards as the file says. `successor`: a process waits
//! for the directory, or has it and does not listen yet.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{FILE_MODE, ID_BYTES_MAX, LOCK, Lock, State, StateFault};

const DOORS: &str = "doors";
const SUCCESSOR: &str = "successor";
/// Tries for a place that somebody may be looking at just now.
const TRIES_MAX: u32 = 20;

/// Whether this process listens, for others to see.
#[derive(Debug)]
pub struct Doors {
    path: PathBuf,
    file: File,
    are_open: AtomicBool,
}

/// The place of the one who takes over. Given up by whoever listens, or ends.
#[derive(Debug)]
pub struct Turn {
    _file: File,
    has_waited: bool,
}

impl Turn {
    /// Whether another process had the directory when this one came.
    #[must_use]
    pub const fn has_waited(&self) -> bool {
        self.has_waited
    }
}

impl State {
    /// To say that this process listens.
    ///
    /// # Errors
    /// [`StateFault::Io`].
    pub fn doors(&self) -> Result<Doors, StateFault> {
        let path = self.path.join(DOORS);
        let file = open(&path).map_err(|error| StateFault::Io { path: path.clone(), error })?;
        Ok(Doors { path, file, are_open: AtomicBool::new(false) })
    }

    /// Takes the directory as [`State::lock`] does; if another process has it, says so and waits as
    /// long as `waits` returns true, which it does after a moment.
    ///
    /// # Errors
    /// As there: also if somebody waits already.
    pub fn lock_in_turn(
        &self,
        says: &dyn Fn(&StateFault),
        waits: &mut dyn FnMut() -> bool,
    ) -> Result<(Lock, Turn), StateFault> {
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
                        let taken = StateFault::InUse { path: self.path.clone(), by: None };
                        return Err(self.lock().err().unwrap_or(taken));
                    }
                }
            }
        }
        let mut has_waited = false;
        loop {
            match self.lock() {
                Ok(lock) => return Ok((lock, Turn { _file: file, has_waited })),
                Err(taken @ StateFault::InUse { .. }) => {
                    if !has_waited {
                        says(&taken);
                    }
                    has_waited = true;
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
        self.is_held(SUCCESSOR)
    }

    /// Whether another process has the directory and listens. One that ended on its way there
    /// has neither file.
    pub fn is_succeeded(&self) -> bool {
        self.is_held(LOCK) && !self.has_successor() && self.is_held(LOCK)
    }

    fn is_held(&self, name: &str) -> bool {
        let file = OpenOptions::new().read(true).open(self.path.join(name));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

impl Doors {
    /// How many shards another process listens with; nothing if none does, and then none
    /// may from now on.
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
        write.map_err(|error| self.fault(error))?;
        self.are_open.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether this process listens, and no other one.
    pub fn are_open(&self) -> bool {
        self.are_open.load(Ordering::Acquire)
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
