//! A watcher reads the log, some commits ahead, and waits for the writer's word when
//! it has read all.

#![expect(clippy::disallowed_methods, reason = "a wait for a change is measured by the clock")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connections::Connections;
use super::meta::{meta, number, revision};
use crate::registry::store::{Change, Commit, Revision, StoreError, Watch};

/// Bytes of values and keys read ahead. The last commit read may go beyond: none is ever split.
const AHEAD_BYTES_MAX: usize = 4 << 20;
/// What a change weighs beside its bytes, so that a million deletions are not read ahead either.
const CHANGE_BYTES: usize = 64;
/// Longest single wait, so that no clock overflows.
const WAIT_MAX: Duration = Duration::from_hours(1);

pub(super) struct Watcher {
    store: Arc<Connections>,
    /// The last revision read.
    after: Revision,
    /// Read, not yet taken.
    ahead: VecDeque<Commit>,
}

impl Watcher {
    pub(super) fn new(store: Arc<Connections>, after: Revision) -> Self {
        Self { store, after, ahead: VecDeque::new() }
    }

    fn read_ahead(&mut self) -> Result<(), StoreError> {
        let after = self.after;
        let read = self.store.read(|reader| {
            let compacted = meta(reader)?.compacted;
            if after < compacted {
                return Ok(Err(compacted));
            }
            commits(reader, after).map(Ok)
        })?;
        self.ahead = read.map_err(|oldest| StoreError::Compacted { oldest })?;
        if let Some(last) = self.ahead.back() {
            self.after = last.revision;
        }
        Ok(())
    }
}

impl Watch for Watcher {
    fn next(&mut self, timeout: Duration) -> Result<Option<Commit>, StoreError> {
        let until = Instant::now() + timeout.min(WAIT_MAX);
        loop {
            if let Some(commit) = self.ahead.pop_front() {
                return Ok(Some(commit));
            }
            let left = until.saturating_duration_since(Instant::now());
            let seen = self.store.commits.count();
            self.read_ahead()?;
            if self.ahead.is_empty() {
                if left.is_zero() {
                    return Ok(None);
                }
                self.store.commits.wait(seen, left);
            }
        }
    }
}

fn commits(reader: &rusqlite::Connection, after: Revision) -> rusqlite::Result<VecDeque<Commit>> {
    let mut statement = reader.prepare_cached(
        "SELECT revision, key, value FROM log WHERE revision > ?1 ORDER BY revision, seq",
    )?;
    let mut rows = statement.query([number(after)])?;
    let (mut all, mut bytes) = (VecDeque::<Commit>::new(), 0);
    while let Some(row) = rows.next()? {
        let revision = revision(row, 0)?;
        let change = Change { key: row.get(1)?, value: row.get(2)? };
        let of_the_last = all.back_mut().filter(|last| last.revision == revision);
        if of_the_last.is_none() && bytes > AHEAD_BYTES_MAX {
            break;
        }
        bytes += CHANGE_BYTES + change.key.len() + change.value.as_ref().map_or(0, Vec::len);
        match of_the_last {
            Some(last) => last.changes.push(change),
            None => all.push_back(Commit { revision, changes: vec![change] }),
        }
    }
    Ok(all)
}
