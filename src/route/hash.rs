//! The hasher of the two maps on the way of every login.
//!
//! Both keys are short and of fixed size, and one of them is already a SHA-256, so `SipHash` would cost more than the
//! lookup. But a user can grind keys whose fingerprints agree in any chosen 40 bits: the words are therefore multiplied
//! with secrets of this process, and which keys collide cannot be known from outside.

use std::hash::{BuildHasher, Hasher, RandomState};

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
        let product = u128::from(self.state ^ a) * u128::from(self.secret ^ b);
        let [low, high] = halves(product);
        // The secret goes in again so that one word that meets `state` exactly does not erase what follows.
        self.state = (low ^ high).wrapping_add(self.secret);
    }
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
        self.state
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
const fn halves(wide: u128) -> [u64; 2] {
    [wide as u64, (wide >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn another_process_hashes_otherwise() {
        assert_ne!(Seeded::new().hash_one(7_u64), Seeded::new().hash_one(7_u64));
    }

    #[test]
    fn keys_ground_to_agree_in_their_first_words_still_spread() {
        let seeded = Seeded::new();
        let buckets: HashSet<u64> = (0..1024_u64)
            .map(|n| {
                let mut key = [0xab_u8; 32];
                key[24..].copy_from_slice(&n.to_le_bytes());
                let mut hasher = seeded.build_hasher();
                hasher.write(&key);
                hasher.finish() & 0xffff
            })
            .collect();
        assert!(buckets.len() > 950, "{} of 1024 apart", buckets.len());
    }

    #[test]
    fn consecutive_slots_spread() {
        let seeded = Seeded::new();
        let buckets: HashSet<u64> = (0..64_u64)
            .flat_map(|p| (0..16_u64).map(move |a| (p, a)))
            .map(|(principal, address)| {
                let mut hasher = seeded.build_hasher();
                hasher.write_u64(principal);
                hasher.write_u64(address);
                hasher.finish() & 0xffff
            })
            .collect();
        assert!(buckets.len() > 950, "{} of 1024 apart", buckets.len());
    }
}
