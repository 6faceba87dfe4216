//! The connections of this process to a store's file: one writes, those that read are kept for the
//! next reader; and the word that there is something new to read.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::file::{self, Access};
use crate::registry::store::StoreError;

/// Idle connections kept for readers: a snapshot and a few watchers.
const READERS_KEPT: usize = 4;

/// The connections to one file.
pub(super) struct Connections {
    pub(super) path: PathBuf,
    access: Access,
    pub(super) writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    pub(super) commits: Commits,
}

impl Connections {
    pub(super) fn new(path: &Path, access: Access, writer: Connection) -> Self {
        Self {
            path: path.to_owned(),
            access,
            writer: Mutex::new(writer),
            readers: Mutex::default(),
            commits: Commits::default(),
        }
    }

    /// Runs `read` on one state of the store.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let idle = lock(&self.readers).pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => file::open_reader(&self.path, self.access)?,
        };
        let answer = reader.transaction().and_then(|transaction| read(&transaction));
        let answer = answer.map_err(|error| file::store_error(&self.path, &error))?;
        let mut idle = lock(&self.readers);
        if idle.len() < READERS_KEPT {
            idle.push(reader);
        }
        Ok(answer)
    }

    /// Runs `write` in a transaction of the writer's and makes it durable.
    pub(super) fn write<T>(
        &self,
        write: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut writer = lock(&self.writer);
        let written = writer.transaction_with_behavior(TransactionBehavior::Immediate).and_then(
            |transaction| {
                let answer = write(&transaction)?;
                transaction.commit()?;
                Ok(answer)
            },
        );
        written.map_err(|error| file::store_error(&self.path, &error))
    }
}

/// A thread that panicked under a lock left nothing half done: its transaction was rolled back.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the watchers of this process that there is something to read. Counts, so that none is
/// missed in between.
#[derive(Default)]
pub(super) struct Commits {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Commits {
    pub(super) fn announce(&self) {
        *lock(&self.count) += 1;
        self.changed.notify_all();
    }

    pub(super) fn count(&self) -> u64 {
        *lock(&self.count)
    }

    /// Returns when the count is no longer `seen`, or after `timeout`.
    pub(super) fn wait(&self, seen: u64, timeout: Duration) {
        let count = lock(&self.count);
        let waited = self.changed.wait_timeout_while(count, timeout, |count| *count == seen);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}
