//! The hasher of the two maps on the way of every login.
//!
//! Both keys are short and of fixed size, and one of them is already a SHA-256, so `SipHash` would
//! cost more than the lookup. But a user can grind keys whose fingerprints agree in any chosen 40
//! bits: the words are therefore multiplied with secrets of this process, and which keys collide
//! cannot be known from outside.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

/// Makes [`Folded`] hashers with one process's secrets.
#[derive(Clone, Debug)]
pub(super) struct Seeded {
    first: u64,
    second: u64,
}

impl Seeded {
    /// Secrets drawn from the standard library's own random seeds.
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        // An even or zero multiplier would throw bits away.
        Self { first: random.hash_one(1_u8), second: random.hash_one(2_u8) | 1 }
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folded;
    fn build_hasher(&self) -> Folded {
        Folded { state: self.first, secret: self.second }
    }
}

/// Multiplies 64 x 64 bits to 128 and folds the halves, per word (as wyhash and foldhash do).
#[derive(Debug)]
pub(super) struct Folded {
    state: u64,
    secret: u64,
}

impl Folded {
    fn fold(&mut self, a: u64, b: u64) {
        // The secret goes in again so that one word that meets `state` exactly does not
        // erase what follows.
        self.state = folded(self.state ^ a, self.secret ^ b).wrapping_add(self.secret);
    }
}

const fn folded(a: u64, b: u64) -> u64 {
    let [low, high] = halves(a as u128 * b as u128);
    low ^ high
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (pairs, rest) = bytes.as_chunks::<16>();
        for pair in pairs {
            let [a, b] = halves(u128::from_le_bytes(*pair));
            self.fold(a, b);
        }
        if !rest.is_empty() {
            let mut last = [0; 16];
            last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            let [a, b] = halves(u128::from_le_bytes(last));
            self.fold(a ^ rest.len() as u64, b);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.fold(word, 0);
    }

    fn finish(&self) -> u64 {
        // Once more: for one pair of secrets in a hundred, keys that differ in a few bits of their
        // last word differ too regularly after the one multiplication that this word went through,
        // and crowd into few buckets.
        folded(self.state, self.secret)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
const fn halves(wide: u128) -> [u64; 2] {
    [wide as u64, (wide >> 64) as u64]
}

/// SHA-256 of a public key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fingerprint(pub(super) [u8; 32]);

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        Asked(&self.0).hash(hasher);
    }
}

/// A fingerprint as it is asked for: where the caller has it. A copy would be written in
/// other pieces than the comparison reads it in, which makes the CPU wait for every miss of
/// the lookup before.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a>(pub(super) &'a [u8; 32]);

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // Without the length that a slice would write first: it is always the same.
        hasher.write(self.0);
    }
}

impl Asked<'_> {
    /// Compared in words and without a branch for each.
    pub(super) fn is(self, key: &Fingerprint) -> bool {
        let (asked, _) = self.0.as_chunks::<8>();
        let (here, _) = key.0.as_chunks::<8>();
        let words = asked.iter().zip(here);
        words.fold(0, |differ, (a, b)| differ | (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b)))
            == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn another_process_hashes_otherwise() {
        assert_ne!(Seeded::new().hash_one(7_u64), Seeded::new().hash_one(7_u64));
    }

    /// Many secrets, the same in every run: a property that holds for most secrets holds for
    /// most processes only.
    fn many() -> impl Iterator<Item = Seeded> {
        let mut state = 42_u64;
        let mut next = move || {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        (0..1000).map(move |_| Seeded { first: next(), second: next() | 1 })
    }

    /// 1024 keys thrown into 65,536 buckets at random hit 1016 of them, give or take 3.
    fn assert_spread(hashes: impl Iterator<Item = u64>, seeded: &Seeded) {
        let buckets: HashSet<u64> = hashes.map(|hash| hash & 0xffff).collect();
        assert!(buckets.len() > 980, "{} of 1024 apart with {seeded:x?}", buckets.len());
    }

    #[test]
    fn keys_ground_to_agree_in_all_words_but_one_still_spread() {
        for seeded in many() {
            for word in 0..4 {
                let hash = |n: u64| {
                    let mut key = [0xab_u8; 32];
                    key[8 * word..][..8].copy_from_slice(&n.to_le_bytes());
                    let mut hasher = seeded.build_hasher();
                    hasher.write(&key);
                    hasher.finish()
                };
                assert_spread((0..1024).map(hash), &seeded);
            }
        }
    }

    #[test]
    fn consecutive_ids_spread() {
        for seeded in many() {
            assert_spread((0..1024_u64).map(|id| seeded.hash_one(id)), &seeded);
        }
    }
}
