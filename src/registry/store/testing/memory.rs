//! The reference engine: what every engine must do, in the fewest words, and a store for
//! other rooms' tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::registry::store::{
    Change, Commit, EntryRef, Head, Order, Part, Refusal, Revision, Store, StoreError, StoreId,
    TransactFault, Transaction, Watch,
};

/// A store that is gone with its last owner. Clones are the same store.
#[derive(Clone)]
pub(crate) struct Memory(Arc<Shared>);

struct Shared {
    store_id: StoreId,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    revision: Revision,
    compacted: Revision,
    entries: BTreeMap<String, (Vec<u8>, Revision)>,
    log: BTreeMap<Revision, Vec<Change>>,
    full: bool,
}

impl Memory {
    pub(crate) fn new(store_id: StoreId) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Shared { store_id, state, changed }))
    }

    /// Whether it takes nothing more.
    pub(crate) fn is_full(&self, full: bool) {
        self.0.state.lock().unwrap().full = full;
    }

    fn reached(&self, state: &State, revision: Revision) -> Result<(), StoreError> {
        if revision > state.revision {
            return Err(StoreError::Future { store_id: self.0.store_id, current: state.revision });
        }
        Ok(())
    }
}

impl Store for Memory {
    fn snapshot_parts(
        &self,
        parts: &[Part<'_>],
        visit: &mut dyn FnMut(EntryRef<'_>),
    ) -> Result<Head, StoreError> {
        // Copied, so that whoever is shown an entry may write.
        let (entries, revision) = {
            let state = self.0.state.lock().unwrap();
            (state.entries.clone(), state.revision)
        };
        for part in parts {
            let wanted = |(key, _): &(&String, _)| {
                let behind = |after| match part.order {
                    Order::Up => key.as_str() > after,
                    Order::Down => key.as_str() < after,
                };
                key.starts_with(part.prefix) && part.after.is_none_or(behind)
            };
            let mut some: Vec<_> = entries.iter().filter(wanted).collect();
            if part.order == Order::Down {
                some.reverse();
            }
            for (key, (value, modified)) in some.into_iter().take(part.limit) {
                visit(EntryRef { key, value, modified: *modified });
            }
        }
        Ok(Head { store_id: self.0.store_id, revision })
    }

    fn transact_all(&self, transactions: &[Transaction]) -> Vec<Result<Revision, TransactFault>> {
        let mut state = self.0.state.lock().unwrap();
        if state.full {
            return vec![
                Err(StoreError::Full { path: "memory".into() }.into());
                transactions.len()
            ];
        }
        let answers = transactions.iter().map(|one| Ok(state.execute(one)?)).collect();
        self.0.changed.notify_all();
        answers
    }

    fn watch(&self, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let state = self.0.state.lock().unwrap();
        self.reached(&state, after)?;
        if after < state.compacted {
            return Err(StoreError::Compacted { oldest: state.compacted });
        }
        Ok(Box::new(Watcher { store: self.clone(), after }))
    }

    fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        let mut state = self.0.state.lock().unwrap();
        self.reached(&state, up_to)?;
        state.compacted = state.compacted.max(up_to);
        let compacted = state.compacted;
        state.log.retain(|revision, _| *revision > compacted);
        Ok(())
    }
}

impl State {
    fn execute(&mut self, transaction: &Transaction) -> Result<Revision, Refusal> {
        transaction.check()?;
        for (key, expected) in &transaction.compares {
            let found = self.entries.get(key).map(|(_, modified)| *modified);
            if !expected.holds(found) {
                return Err(Refusal::Conflict { key: key.clone(), found });
            }
        }
        let (next, mut changes) = (Revision(self.revision.0 + 1), vec![]);
        for (key, value) in &transaction.puts {
            self.entries.insert(key.clone(), (value.clone(), next));
            changes.push(Change { key: key.clone(), value: Some(value.clone()) });
        }
        for key in &transaction.deletes {
            if self.entries.remove(key).is_some() {
                changes.push(Change { key: key.clone(), value: None });
            }
        }
        if !changes.is_empty() {
            self.revision = next;
            self.log.insert(next, changes);
        }
        Ok(self.revision)
    }
}

struct Watcher {
    store: Memory,
    after: Revision,
}

impl Watch for Watcher {
    fn next(&mut self, timeout: Duration) -> Result<Option<Commit>, StoreError> {
        let Shared { state, changed, .. } = &*self.store.0;
        let after = self.after;
        let state = state.lock().unwrap();
        let (state, _) = changed
            .wait_timeout_while(state, timeout, |state| {
                state.revision == after && state.compacted <= after
            })
            .unwrap();
        if after < state.compacted {
            return Err(StoreError::Compacted { oldest: state.compacted });
        }
        let next = state.log.range(Revision(after.0 + 1)..).next();
        let Some((&revision, changes)) = next else { return Ok(None) };
        self.after = revision;
        Ok(Some(Commit { revision, changes: changes.clone() }))
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
