//! What the audit log keeps: who did what, when, from where, and what followed from it.

use serde::{Deserialize, Serialize};

use super::command::{Command, Noted};
use super::draft::Move;
use super::refusal::utc;
use super::store::{OPERATIONS_MAX, Order, Part, Store, StoreError, Transaction};

/// The log's prefix in the store. The key of an entry is its revision, in the order
/// of what was done.
const PREFIX: &str = "audit/";
/// Entries removed at once, beside a note of it and the note before.
const REMOVED_AT_ONCE: usize = OPERATIONS_MAX - 2;

/// The key of the entry of a revision.
pub(super) fn key(revision: u64) -> String {
    format!("{PREFIX}{revision:016x}")
}

/// Up to `count` entries with their keys, behind the key `after` in this order. What cannot be
/// read is left out.
pub(super) fn page(
    store: &dyn Store,
    after: Option<&str>,
    order: Order,
    count: usize,
) -> Result<Vec<(String, Audit)>, StoreError> {
    let mut after = after.map(|after| format!("{PREFIX}{after}"));
    let mut page = Vec::new();
    loop {
        let limit = count.saturating_sub(page.len());
        let (mut seen, mut last) = (0, None);
        let part = Part { prefix: PREFIX, after: after.as_deref(), order, limit };
        store.snapshot_part(part, &mut |entry| {
            seen += 1;
            last = Some(entry.key.to_owned());
            let key = entry.key.strip_prefix(PREFIX).unwrap_or(entry.key);
            let read = serde_json::from_slice(entry.value).ok();
            page.extend(read.map(|read| (key.to_owned(), read)));
        })?;
        if page.len() >= count || seen < limit {
            return Ok(page);
        }
        after = last;
    }
}

/// Removes what is too old, part by part, and leaves one note of it.
#[derive(Debug, Default)]
pub(super) struct Forget {
    /// The note so far, and how many entries it tells of.
    noted: Option<(String, usize)>,
}

impl Forget {
    /// The next part of what is older than `keep_s`: what to do to the store, which will then be at
    /// `revision`. Nothing if nothing is.
    pub(super) fn next(
        &mut self,
        store: &dyn Store,
        keep_s: u64,
        now_s: u64,
        revision: u64,
    ) -> Result<Option<Transaction>, StoreError> {
        let before_s = now_s.saturating_sub(keep_s);
        let limit = REMOVED_AT_ONCE;
        let part = Part { prefix: PREFIX, after: None, order: Order::Up, limit };
        let (mut old, mut last_s, mut over) = (Vec::new(), 0, false);
        store.snapshot_part(part, &mut |entry| {
            // What cannot be read is as old as what was before it.
            last_s = serde_json::from_slice::<At>(entry.value).map_or(last_s, |at| at.at_s);
            over |= last_s >= before_s;
            if !over {
                old.push(entry.key.to_owned());
            }
        })?;
        if old.is_empty() {
            self.noted = None;
            return Ok(None);
        }
        let mut transaction = Transaction::new();
        let mut count = old.len();
        if let Some((note, noted)) = self.noted.take() {
            count += noted;
            transaction = transaction.delete(note);
        }
        for key in old {
            transaction = transaction.delete(key);
        }
        let about = format!("entries from before {}: {count}", utc(before_s));
        let command = Command::Note { what: Noted::AuditForget, about };
        let audit = Audit { at_s: now_s, actor: Actor::itself(), command, moves: Vec::new() };
        let note = key(revision);
        transaction = transaction.put(&note, serde_json::to_vec(&audit).unwrap_or_default());
        self.noted = Some((note, count));
        Ok(Some(transaction))
    }
}

/// When an entry was made, whatever else it says: a keyway of another version may have written it.
#[derive(Deserialize)]
struct At {
    at_s: u64,
}

/// Who orders.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Actor {
    /// As the audit log names them: `uid 0`, `token ci`, `keyway serve --fleet`.
    pub name: String,
    /// Where from: `socket`, or an IP address and port.
    pub from: String,
}

impl Actor {
    /// Nobody: what keyway does of its own accord.
    #[must_use]
    pub fn itself() -> Self {
        Self { name: "keyway".to_owned(), from: "itself".to_owned() }
    }
}

/// An entry of the audit log.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Audit {
    /// Unix time.
    pub at_s: u64,
    /// Who asked for it.
    pub actor: Actor,
    /// What, with all its parameters.
    pub command: Command,
    /// What followed from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Moved>,
}

/// A [`Move`] as the audit log keeps it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Moved {
    vm: String,
    from: String,
    to: String,
}

impl From<&Move> for Moved {
    fn from(moved: &Move) -> Self {
        let Move { vm, from, to, .. } = moved;
        Self { vm: vm.to_string(), from: from.to_string(), to: to.to_string() }
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
