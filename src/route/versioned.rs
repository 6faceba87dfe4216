//! A map of which two revisions can be read: the one shown and the one being written.
//!
//! Every entry carries the revision it is true from and, while a change is being written, what was
//! true before. A writer marks all its changes with the next revision, then shows that revision,
//! then settles: forgets what was before.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash};

use super::hash::{Asked, Fingerprint};

pub(super) struct Versioned<K, V, S> {
    pub(super) map: papaya::HashMap<K, Cell<V>, S>,
}

#[derive(Clone, Debug)]
pub(super) struct Cell<V> {
    /// The first revision that has `now`.
    since: u64,
    /// `None`: the entry ends with that revision.
    now: Option<V>,
    /// What revisions before `since` have; elsewhere, for few entries have it and none for long.
    before: Option<Box<V>>,
}

impl<V> Cell<V> {
    fn at(&self, revision: u64) -> Option<&V> {
        if self.since <= revision { self.now.as_ref() } else { self.before.as_deref() }
    }
}

/// What was marked in one map.
pub(super) struct Marked<K> {
    pub(super) changes: usize,
    /// The entries that still have what was before.
    unsettled: Vec<K>,
}

impl papaya::Equivalent<Fingerprint> for Asked<'_> {
    fn equivalent(&self, key: &Fingerprint) -> bool {
        self.is(key)
    }
}

impl<K, V, S> Versioned<K, V, S>
where
    K: Clone + Eq + Hash,
    V: Clone + Eq,
    S: BuildHasher,
{
    pub(super) fn new(hasher: S) -> Self {
        // A table that grows bit by bit would make readers look into two.
        let blocking = papaya::ResizeMode::Blocking;
        let map = papaya::HashMap::builder().hasher(hasher).resize_mode(blocking).build();
        Self { map }
    }

    /// Reads one entry as of `revision`. The guard lives no longer than `read`,
    /// which must be short.
    pub(super) fn with<Q, T>(&self, key: &Q, revision: u64, read: impl FnOnce(&V) -> T) -> Option<T>
    where
        Q: papaya::Equivalent<K> + Hash + ?Sized,
    {
        let guard = self.map.guard();
        self.map.get(key, &guard)?.at(revision).map(read)
    }

    pub(super) fn get<Q>(&self, key: &Q, revision: u64) -> Option<V>
    where
        Q: papaya::Equivalent<K> + Hash + ?Sized,
    {
        self.with(key, revision, V::clone)
    }

    /// Reads all entries as of `revision`, in any order.
    pub(super) fn each(&self, revision: u64, read: impl FnMut(&V)) {
        let guard = self.map.guard();
        self.map.values(&guard).filter_map(|cell| cell.at(revision)).for_each(read);
    }

    /// Writes what differs between revision `shown` and `wanted`, visible from `shown + 1` on. All
    /// other entries end.
    pub(super) fn mark_all(&self, wanted: Vec<(K, V)>, shown: u64) -> Marked<K> {
        let guard = self.map.guard();
        let mut known = 0;
        let differs = |(key, value): &(K, V)| {
            let Some(cell) = self.map.get(key, &guard) else { return true };
            known += 1;
            // What a writer that panicked left behind is not settled either.
            cell.since > shown || cell.now.as_ref() != Some(value)
        };
        let differs: Vec<bool> = wanted.iter().map(differs).collect();

        let mut marked = Marked { changes: 0, unsettled: Vec::new() };
        // Where all entries were among the wanted ones, which is nearly always, there is no need to
        // look for others.
        if known < self.map.len() {
            let wanted: HashSet<&K> = wanted.iter().map(|(key, _)| key).collect();
            let others = self.map.keys(&guard).filter(|key| !wanted.contains(key));
            let others: Vec<K> = others.cloned().collect();
            for key in others {
                self.write(key, None, shown, &mut marked, &guard);
            }
        }
        // All the room at once, instead of by doubling and copying, but hardly more than is needed:
        // a dense table stays in the caches, which saves a reader more than the probes of a full
        // one cost. papaya plans for a load of 75%.
        let room = wanted.len() - wanted.len() / 8;
        if room > self.map.len() {
            self.map.reserve(room - self.map.len(), &guard);
        }
        for ((key, value), _) in wanted.into_iter().zip(differs).filter(|(_, differs)| *differs) {
            self.write(key, Some(value), shown, &mut marked, &guard);
        }
        marked
    }

    /// Writes these entries where they differ from revision `shown`, visible from `shown + 1` on.
    /// `None` ends an entry. No key stands twice, and nothing is left of a writer that panicked.
    pub(super) fn mark(&self, wanted: Vec<(K, Option<V>)>, shown: u64) -> Marked<K> {
        let guard = self.map.guard();
        let mut marked = Marked { changes: 0, unsettled: Vec::new() };
        for (key, value) in wanted {
            let now = self.map.get(&key, &guard).and_then(|cell| cell.at(shown));
            if now != value.as_ref() {
                self.write(key, value, shown, &mut marked, &guard);
            }
        }
        marked
    }

    fn write(
        &self,
        key: K,
        now: Option<V>,
        shown: u64,
        marked: &mut Marked<K>,
        guard: &papaya::LocalGuard<'_>,
    ) {
        let before = self.map.get(&key, guard).and_then(|cell| cell.at(shown));
        let before = before.map(|value| Box::new(value.clone()));
        marked.changes += 1;
        if before.is_some() || now.is_none() {
            marked.unsettled.push(key.clone());
        }
        self.map.insert(key, Cell { since: shown + 1, now, before }, guard);
    }

    /// Forgets what was before, once the revision that was marked is shown.
    pub(super) fn settle(&self, marked: Marked<K>) {
        let guard = self.map.guard();
        for key in marked.unsettled {
            match self.map.get(&key, &guard) {
                Some(Cell { now: None, .. }) => {
                    self.map.remove(&key, &guard);
                }
                Some(Cell { since, now: Some(now), before: Some(_) }) => {
                    let cell = Cell { since: *since, now: Some(now.clone()), before: None };
                    self.map.insert(key, cell, &guard);
                }
                Some(Cell { now: Some(_), before: None, .. }) | None => {}
            }
        }
    }
}
