//! A slab whose keys carry a generation: a key that outlived its entry finds nothing, never the
//! entry that came after.
//!
//! The kernel may still report an event for a socket that was closed earlier in the same batch, and
//! timers are never taken back. Both hold keys, and both must miss.

/// Most entries: keys share a `u64` of epoll data with two more bits.
const ENTRIES_MAX: usize = 1 << 30;

/// Names one entry for as long as it lives.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Key {
    /// Place in the slab, below [`ENTRIES_MAX`].
    pub(super) index: u32,
    /// How often the place was given up before.
    pub(super) generation: u32,
}

/// Entries in stable places, found by [`Key`].
#[derive(Debug)]
pub(super) struct Slab<T> {
    buckets: Vec<Bucket<T>>,
    /// Places to use again, last given up first.
    vacant: Vec<u32>,
}

#[derive(Debug)]
struct Bucket<T> {
    generation: u32,
    entry: Option<T>,
}

impl<T> Slab<T> {
    /// An empty slab; allocates nothing.
    pub(super) const fn new() -> Self {
        Self { buckets: Vec::new(), vacant: Vec::new() }
    }

    /// How many entries live.
    pub(super) const fn len(&self) -> usize {
        self.buckets.len() - self.vacant.len()
    }

    /// True when no entry lives.
    pub(super) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts `entry` into a free place; gives it back when there are [`ENTRIES_MAX`] already.
    pub(super) fn insert(&mut self, entry: T) -> Result<Key, T> {
        if let Some(index) = self.vacant.pop() {
            let bucket = &mut self.buckets[index as usize];
            bucket.entry = Some(entry);
            return Ok(Key { index, generation: bucket.generation });
        }
        match u32::try_from(self.buckets.len()) {
            Ok(index) if self.buckets.len() < ENTRIES_MAX => {
                self.buckets.push(Bucket { generation: 0, entry: Some(entry) });
                Ok(Key { index, generation: 0 })
            }
            _ => Err(entry),
        }
    }

    /// The entry, unless it is gone.
    pub(super) fn get(&self, key: Key) -> Option<&T> {
        self.buckets
            .get(key.index as usize)
            .filter(|bucket| bucket.generation == key.generation)
            .and_then(|bucket| bucket.entry.as_ref())
    }

    /// The entry, unless it is gone.
    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.buckets
            .get_mut(key.index as usize)
            .filter(|bucket| bucket.generation == key.generation)
            .and_then(|bucket| bucket.entry.as_mut())
    }

    /// Takes the entry out, unless it is gone. Its key finds nothing from now on.
    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let bucket = self
            .buckets
            .get_mut(key.index as usize)
            .filter(|bucket| bucket.generation == key.generation)?;
        let entry = bucket.entry.take()?;
        bucket.generation = bucket.generation.wrapping_add(1);
        self.vacant.push(key.index);
        Some(entry)
    }

    /// The keys of all entries that live now.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }

    /// Every entry with its key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0..).zip(&self.buckets).filter_map(|(index, bucket)| {
            Some((Key { index, generation: bucket.generation }, bucket.entry.as_ref()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_misses_the_entry_that_took_its_place() {
        let mut slab = Slab::new();
        let old = slab.insert('a').unwrap();
        assert_eq!(slab.remove(old), Some('a'));
        let new = slab.insert('b').unwrap();
        assert_eq!(old.index, new.index);
        assert_eq!(slab.get_mut(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.get_mut(new), Some(&mut 'b'));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn keys_names_every_entry_that_lives() {
        let mut slab = Slab::new();
        let keys: Vec<_> = ('a'..='d').map(|c| slab.insert(c).unwrap()).collect();
        slab.remove(keys[1]);
        assert_eq!(slab.keys(), [keys[0], keys[2], keys[3]]);
        for key in [keys[0], keys[2], keys[3]] {
            slab.remove(key);
        }
        assert!(slab.is_empty());
    }
}
