//! The embedded engine: one SQLite file in write-ahead mode, every commit synced
//! (`synchronous = FULL`).
//!
//! One connection writes, in `BEGIN IMMEDIATE`; readers have their own and see the last commit when
//! they began. Tables: `kv` (what is), `log` (what became of it since the last compaction) and
//! `meta` (one row: store id, revision, how far the log is compacted). Another process may use the
//! file too, such as the successor in a restart.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension};

use super::{
    EntryRef, Head, Order, Part, Refusal, Revision, Store, StoreError, StoreId, TransactFault,
    Transaction, Watch, behind,
};

mod connections;
mod copy;
mod file;
mod kept;
mod meta;
mod watch;

use self::connections::Connections;
pub use self::copy::{Restored, backup, restore};
use self::file::Access;
pub use self::kept::{Replaced, replaced};
use self::meta::{meta, number, revision};

/// Transactions that share one commit: at most 256 times 1.25 MiB go to the
/// write-ahead log at once.
const GROUP_MAX: usize = 256;
/// Commits that one deletion of a compaction removes; between two of them writers get their turn.
const COMPACTED_AT_ONCE: u64 = 1024;

const UP: &str = "SELECT key, value, modified FROM kv WHERE key >= ?1 ORDER BY key LIMIT ?2";
const DOWN: &str = "SELECT key, value, modified FROM kv WHERE key < ?1 ORDER BY key DESC LIMIT ?2";

/// A store in a file.
#[derive(Clone)]
pub struct Sqlite(Arc<Connections>);

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sqlite").field(&self.0.path).finish()
    }
}

impl Sqlite {
    /// Opens the store at `path` and checks its pages. If there is none it is made, with
    /// `fresh` (random) as its id, and so is the directory. Both must be closed to others than
    /// the service's user.
    ///
    /// # Errors
    /// Every [`StoreError`] that is about a file.
    pub fn open(path: &Path, fresh: StoreId) -> Result<Self, StoreError> {
        file::create(path)?;
        let writer = file::open_writer(path, fresh)?;
        Ok(Self::new(path, Access::Used, writer))
    }

    /// Opens a store to look at it: one that a restore has replaced, or that a process may use.
    /// Nothing is made, and what is written to it is refused.
    ///
    /// # Errors
    /// Every [`StoreError`] that is about a file.
    pub fn open_kept(path: &Path) -> Result<Self, StoreError> {
        let reader = file::open_reader(path, Access::Kept)?;
        if file::check(path, &reader)? == file::Kind::Empty {
            return Err(StoreError::NotAStore { path: path.to_owned() });
        }
        Ok(Self::new(path, Access::Kept, reader))
    }

    fn new(path: &Path, access: Access, writer: Connection) -> Self {
        Self(Arc::new(Connections::new(path, access, writer)))
    }

    /// Makes `floor` the revision, if it is less, and forgets what was committed before: a restored
    /// store goes on behind whatever was seen of the one that it takes the place of, and whoever
    /// watched that takes a snapshot.
    ///
    /// # Errors
    /// Every [`StoreError`] that is about a file.
    pub fn raise(&self, floor: Revision) -> Result<Head, StoreError> {
        self.0.write(|writer| {
            let sql = "UPDATE meta SET revision = ?1, compacted = ?1 WHERE revision < ?1";
            if writer.execute(sql, [number(floor)])? > 0 {
                writer.execute("DELETE FROM log", [])?;
            }
            Ok(meta(writer)?.head)
        })
    }

    /// Writes what the store holds now, history and id included, to a new file (mode 0600) that a
    /// [`restore`] or [`Sqlite::open`] can read. Writers do not wait for it.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is such a file already, and what else a [`StoreError`] is.
    pub fn backup(&self, to: &Path) -> Result<(), StoreError> {
        backup(&self.0.path, to)
    }

    fn commit(&self, group: &[Transaction]) -> Result<Vec<Result<Revision, Refusal>>, StoreError> {
        let answers = self.0.write(|writer| {
            let before = meta(writer)?.head.revision;
            let mut revision = before;
            let answers: Vec<_> = group
                .iter()
                .map(|transaction| execute(writer, transaction, &mut revision))
                .collect::<Result<_, _>>()?;
            if revision > before {
                let mut statement = writer.prepare_cached("UPDATE meta SET revision = ?1")?;
                statement.execute([number(revision)])?;
            }
            Ok(answers)
        })?;
        self.0.commits.announce();
        Ok(answers)
    }
}

impl Store for Sqlite {
    fn snapshot_parts(
        &self,
        parts: &[Part<'_>],
        visit: &mut dyn FnMut(EntryRef<'_>),
    ) -> Result<Head, StoreError> {
        self.0.read(|reader| {
            let head = meta(reader)?.head;
            parts.iter().try_for_each(|part| show(reader, *part, visit))?;
            Ok(head)
        })
    }

    fn transact_all(&self, transactions: &[Transaction]) -> Vec<Result<Revision, TransactFault>> {
        let mut answers = Vec::with_capacity(transactions.len());
        for group in transactions.chunks(GROUP_MAX) {
            match self.commit(group) {
                Ok(group) => answers.extend(group.into_iter().map(|one| one.map_err(Into::into))),
                Err(fault) => answers.extend(group.iter().map(|_| Err(fault.clone().into()))),
            }
        }
        answers
    }

    fn watch(&self, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let meta = self.0.read(meta)?;
        meta.reached(after)?;
        if after < meta.compacted {
            return Err(StoreError::Compacted { oldest: meta.compacted });
        }
        Ok(Box::new(watch::Watcher::new(Arc::clone(&self.0), after)))
    }

    fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        self.0.read(meta)?.reached(up_to)?;
        // First it is said, then done: a watcher never meets a history with holes,
        // whenever a crash comes.
        self.0.write(|writer| {
            let mut statement =
                writer.prepare_cached("UPDATE meta SET compacted = ?1 WHERE compacted < ?1")?;
            statement.execute([number(up_to)]).map(drop)
        })?;
        while self.0.write(forget)? {}
        Ok(())
    }
}

fn show(
    reader: &Connection,
    part: Part<'_>,
    visit: &mut dyn FnMut(EntryRef<'_>),
) -> rusqlite::Result<()> {
    // The first key that could be shown, going up, or the first that no longer can, going down.
    let (sql, bound) = match part.order {
        Order::Up => {
            let next = part.after.map(|after| after.to_owned() + "\0");
            let from = next.filter(|next| next.as_str() > part.prefix);
            (UP, Value::Text(from.unwrap_or_else(|| part.prefix.to_owned())))
        }
        Order::Down => {
            let ends = [part.after.map(str::to_owned), behind(part.prefix)];
            // No text is greater than a blob.
            let least = ends.into_iter().flatten().min();
            (DOWN, least.map_or(Value::Blob(Vec::new()), Value::Text))
        }
    };
    let limit = i64::try_from(part.limit).unwrap_or(i64::MAX);
    let mut statement = reader.prepare_cached(sql)?;
    let mut rows = statement.query((&bound, limit))?;
    while let Some(row) = rows.next()? {
        let key = row.get_ref(0)?.as_str()?;
        if !key.starts_with(part.prefix) {
            break; // keys with one prefix stand together
        }
        let value = row.get_ref(1)?.as_blob()?;
        visit(EntryRef { key, value, modified: revision(row, 2)? });
    }
    Ok(())
}

/// One transaction within a commit; `revision` is the last one taken.
fn execute(
    writer: &Connection,
    transaction: &Transaction,
    revision: &mut Revision,
) -> rusqlite::Result<Result<Revision, Refusal>> {
    if let Err(refusal) = transaction.check() {
        return Ok(Err(refusal));
    }
    for (key, expected) in &transaction.compares {
        let mut statement = writer.prepare_cached("SELECT modified FROM kv WHERE key = ?1")?;
        let found = statement.query_row([key], |row| meta::revision(row, 0)).optional()?;
        if !expected.holds(found) {
            return Ok(Err(Refusal::Conflict { key: key.clone(), found }));
        }
    }
    let next = Revision(revision.0 + 1);
    let mut changes = 0_i64;
    let mut log = |key: &str, value: Option<&[u8]>| {
        let sql = "INSERT INTO log (revision, seq, key, value) VALUES (?1, ?2, ?3, ?4)";
        writer.prepare_cached(sql)?.execute((number(next), changes, key, value))?;
        changes += 1;
        Ok::<_, rusqlite::Error>(())
    };
    for (key, value) in &transaction.puts {
        let sql = "INSERT INTO kv (key, value, modified) VALUES (?1, ?2, ?3) \
                   ON CONFLICT (key) DO UPDATE SET value = ?2, modified = ?3";
        writer.prepare_cached(sql)?.execute((key, value, number(next)))?;
        log(key, Some(value))?;
    }
    for key in &transaction.deletes {
        let sql = "DELETE FROM kv WHERE key = ?1";
        if writer.prepare_cached(sql)?.execute([key])? > 0 {
            log(key, None)?;
        }
    }
    if changes > 0 {
        *revision = next;
    }
    Ok(Ok(*revision))
}

/// Removes a part of what is compacted from the log; whether there may be more.
fn forget(writer: &Connection) -> rusqlite::Result<bool> {
    let mut oldest = writer.prepare_cached("SELECT min(revision) FROM log")?;
    let Some(oldest) = oldest.query_row([], |row| row.get::<_, Option<i64>>(0))? else {
        return Ok(false);
    };
    let compacted = number(meta(writer)?.compacted);
    let part = oldest.saturating_add_unsigned(COMPACTED_AT_ONCE).min(compacted);
    let mut statement = writer.prepare_cached("DELETE FROM log WHERE revision <= ?1")?;
    statement.execute([part])?;
    Ok(part < compacted)
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
