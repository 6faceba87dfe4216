//! STORE: a key-value space with revisions behind four verbs, which any engine can give.
//!
//! [`Store`] is snapshot, transaction, watch and compaction, no more, so that an embedded file
//! ([`sqlite`]) and a consensus store serve alike. It knows keys and bytes; what they mean is the
//! business of those who write them. The registry writes, every edge reads: a snapshot once, then
//! the commits behind it.
//!
//! Every engine is held to one suite (`testing::conformance`). What it demands:
//! - A transaction is all or nothing, for a reader, a watcher and a crash. An
//!   acknowledged one is durable.
//! - Revisions rise with every transaction that changes something, and with nothing else; by how
//!   much is the engine's own affair. A fresh store stands at [`Revision::ZERO`].
//! - A put is a change even if the value is the old one. Deleting an absent key changes nothing,
//!   and no watcher hears of it; a transaction that changes nothing takes no revision and answers
//!   the current one.
//! - Keys are in the order of their bytes. A watcher hears of every change once, in order, whole
//!   transactions only.

use std::time::Duration;

mod fault;
mod limits;
mod revision;
pub mod sqlite;

#[cfg(test)]
pub(crate) mod testing;

pub use self::fault::{Refusal, StoreError, TransactFault};
pub use self::limits::{KEY_BYTES_MAX, OPERATIONS_MAX, TRANSACTION_BYTES_MAX, VALUE_BYTES_MAX};
pub use self::revision::{Head, Revision, StoreId};
pub use self::sqlite::Sqlite;

/// A key-value space with revisions. The rules that all engines keep stand at the
/// head of this module.
pub trait Store: Send + Sync {
    /// Shows `visit` the entries of each of `parts`, one part after the other, all at one revision;
    /// returns which. Nothing is held but the entry shown, and what it costs is in proportion to
    /// what it shows. Writers do not wait for it, nor it for them.
    ///
    /// # Errors
    /// A [`StoreError`] may come after some entries were shown: they are then no snapshot.
    fn snapshot_parts(
        &self,
        parts: &[Part<'_>],
        visit: &mut dyn FnMut(EntryRef<'_>),
    ) -> Result<Head, StoreError>;

    /// As [`Store::snapshot_parts`], for one.
    fn snapshot_part(
        &self,
        part: Part<'_>,
        visit: &mut dyn FnMut(EntryRef<'_>),
    ) -> Result<Head, StoreError> {
        self.snapshot_parts(&[part], visit)
    }

    /// Shows `visit` every entry whose key begins with `prefix`, in the order of the keys, as
    /// [`Store::snapshot_part`].
    ///
    /// # Errors
    /// As there.
    fn snapshot_each(
        &self,
        prefix: &str,
        visit: &mut dyn FnMut(EntryRef<'_>),
    ) -> Result<Head, StoreError> {
        self.snapshot_part(Part::whole(prefix), visit)
    }

    /// Where the store stands.
    ///
    /// # Errors
    /// What a [`StoreError`] is.
    fn head(&self) -> Result<Head, StoreError> {
        // No key begins so: only the head is read.
        self.snapshot_each("~", &mut |_| ())
    }

    /// As [`Store::snapshot_each`], in memory.
    fn snapshot(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        let mut entries = Vec::new();
        let head = self.snapshot_each(prefix, &mut |entry| entries.push(entry.to_owned()))?;
        Ok(Snapshot { head, entries })
    }

    /// If every compare holds, makes all changes and returns their revision once they are durable;
    /// if one does not, changes nothing.
    ///
    /// # Errors
    /// [`TransactFault::Refused`]: nothing changed. [`TransactFault::Store`]: whether it did is not
    /// known until it is read again.
    fn transact(&self, transaction: &Transaction) -> Result<Revision, TransactFault> {
        let mut answers = self.transact_all(std::slice::from_ref(transaction));
        answers.pop().unwrap_or(Ok(Revision::ZERO))
    }

    /// Independent transactions, one behind another, each with an answer of its own, as
    /// [`Store::transact`] would have given it; the answers are as many, in the same order. An
    /// engine whose commits cost much makes many durable at once, and answers when they are.
    fn transact_all(&self, transactions: &[Transaction]) -> Vec<Result<Revision, TransactFault>>;

    /// Every commit after the revision `after`, those made before this call included.
    ///
    /// # Errors
    /// [`StoreError::Compacted`], [`StoreError::Future`], and what else a [`StoreError`] is.
    fn watch(&self, after: Revision) -> Result<Box<dyn Watch>, StoreError>;

    /// Forgets the commits up to and with `up_to`; the entries stay. From then on a watch begins at
    /// `up_to` or later. What is compacted already may be again.
    ///
    /// # Errors
    /// [`StoreError::Future`], and what else a [`StoreError`] is.
    fn compact(&self, up_to: Revision) -> Result<(), StoreError>;
}

/// Some of the entries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Part<'a> {
    /// What their keys begin with.
    pub prefix: &'a str,
    /// Only those that come behind this key, in the order that is asked for.
    pub after: Option<&'a str>,
    /// Which come first.
    pub order: Order,
    /// How many at most.
    pub limit: usize,
}

impl<'a> Part<'a> {
    /// All that begins with `prefix`, in the order of the keys.
    pub const fn whole(prefix: &'a str) -> Self {
        Self { prefix, after: None, order: Order::Up, limit: usize::MAX }
    }
}

/// In which order keys come, by their bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// The least first.
    Up,
    /// The greatest first.
    Down,
}

/// The least key that is greater than every key with this prefix; nothing if there is none.
fn behind(prefix: &str) -> Option<String> {
    let mut kept = prefix.chars();
    while let Some(last) = kept.next_back() {
        // In UTF-8 the order of bytes is that of characters.
        if let Some(next) = (last..=char::MAX).nth(1) {
            return Some(kept.as_str().to_owned() + next.encode_utf8(&mut [0; 4]));
        }
    }
    None
}

/// A reader of commits. Watchers are as many as their callers like, each at its own place.
pub trait Watch: Send {
    /// The next commit; `None` if there was none for `timeout`. A commit of this process
    /// wakes it at once; one of another process may be found only when the time is over, or
    /// at the next call.
    ///
    /// # Errors
    /// [`StoreError::Compacted`]: this watcher lags behind a compaction and stays there; take a
    /// snapshot and watch anew.
    fn next(&mut self, timeout: Duration) -> Result<Option<Commit>, StoreError>;
}

/// What a store holds at one revision.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// Which store and which revision.
    pub head: Head,
    /// In the order of the keys.
    pub entries: Vec<Entry>,
}

/// A key, its value, and when that was put.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Such as `vm/0123abcd`.
    pub key: String,
    /// Never interpreted here.
    pub value: Vec<u8>,
    /// The revision of the last put.
    pub modified: Revision,
}

/// An [`Entry`] while it is shown.
#[derive(Clone, Copy, Debug)]
pub struct EntryRef<'a> {
    /// As in [`Entry`].
    pub key: &'a str,
    /// As in [`Entry`].
    pub value: &'a [u8],
    /// As in [`Entry`].
    pub modified: Revision,
}

impl EntryRef<'_> {
    /// A copy to keep.
    pub fn to_owned(self) -> Entry {
        Entry { key: self.key.into(), value: self.value.into(), modified: self.modified }
    }
}

/// The changes of one transaction: what a watcher gets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Commit {
    /// What the transaction was answered.
    pub revision: Revision,
    /// At least one; puts before deletes, each in the order they were given.
    pub changes: Vec<Change>,
}

/// What became of one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The key that was written.
    pub key: String,
    /// Its new value; `None`: deleted.
    pub value: Option<Vec<u8>>,
}

/// What one key must be for a transaction to go through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expected {
    /// Not there.
    Absent,
    /// Last put at exactly this revision.
    Modified(Revision),
}

impl Expected {
    /// Whether a key that was `found` last put at a revision, or not there, is as expected.
    fn holds(self, found: Option<Revision>) -> bool {
        match self {
            Self::Absent => found.is_none(),
            Self::Modified(revision) => found == Some(revision),
        }
    }
}

/// Compares, and the changes to make if all of them hold.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Transaction {
    /// What must be.
    pub compares: Vec<(String, Expected)>,
    /// Keys with their new values.
    pub puts: Vec<(String, Vec<u8>)>,
    /// Keys to remove. None of them among `puts`.
    pub deletes: Vec<String>,
}

impl Transaction {
    /// Expects nothing and changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if `key` is `expected`.
    #[must_use]
    pub fn when(mut self, key: impl Into<String>, expected: Expected) -> Self {
        self.compares.push((key.into(), expected));
        self
    }

    /// Gives `key` a value.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.puts.push((key.into(), value.into()));
        self
    }

    /// Removes `key`.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.deletes.push(key.into());
        self
    }

    /// What every engine refuses, whatever it holds. Engines call it before they look
    /// at a transaction.
    ///
    /// # Errors
    /// Every [`Refusal`] but a conflict.
    pub fn check(&self) -> Result<(), Refusal> {
        let changes = self.puts.len() + self.deletes.len();
        for count in [changes, self.compares.len()] {
            if count > OPERATIONS_MAX {
                return Err(Refusal::Operations { count });
            }
        }
        let puts = self.puts.iter().map(|(key, _)| key);
        let compares = self.compares.iter().map(|(key, _)| key);
        for key in puts.clone().chain(&self.deletes).chain(compares) {
            if key.is_empty() || key.len() > KEY_BYTES_MAX {
                return Err(Refusal::Key { bytes: key.len() });
            }
        }
        for (key, value) in &self.puts {
            if value.len() > VALUE_BYTES_MAX {
                return Err(Refusal::Value { key: key.clone(), bytes: value.len() });
            }
        }
        let bytes = self.bytes();
        if bytes > TRANSACTION_BYTES_MAX {
            return Err(Refusal::Bytes { bytes });
        }
        let mut sorted: Vec<&String> = puts.chain(&self.deletes).collect();
        sorted.sort_unstable();
        if let Some([key, _]) = sorted.array_windows().find(|[one, next]| one == next) {
            return Err(Refusal::Twice { key: (*key).clone() });
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        let puts = self.puts.iter().map(|(key, value)| key.len() + value.len());
        let compares = self.compares.iter().map(|(key, _)| key.len());
        puts.chain(compares).chain(self.deletes.iter().map(String::len)).sum()
    }
}
