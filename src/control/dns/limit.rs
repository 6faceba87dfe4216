//! Response rate limiting: how much anybody can have sent to somebody else by asking under
//! a false address.
//!
//! The source of a datagram is its sender's word. Every network (/24, /56) gets so many answers a
//! second and no more; of those beyond, every second one is a truncated header, on which a true
//! resolver asks again over TCP, where nobody lies about who they are. After BIND's and NSD's RRL;
//! NSD's in that a network is counted, whatever it asks: the names of a large fleet are many, and
//! whoever knows them would have the limit once for each.
//!
//! Pure: time is an argument. A table of fixed size, which no packet makes grow.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;

use crate::log_limiter::Network;

/// Networks that share a line of the processor's cache.
const WAYS: usize = 4;
/// 64 Ki networks in 1 MiB.
const SETS: usize = 1 << 14;
/// How much may come at once, in microseconds of the rate.
const BURST_US: u64 = 1_000_000;

/// What becomes of a question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LimitVerdict {
    /// It is answered.
    Answer,
    /// It is answered that the answer is to be had over TCP.
    Slip,
    /// It is not.
    Drop,
}

/// A network that was answered of late.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Which, as far as 32 bits of its hash say.
    tag: u32,
    /// Limited answers so far, which take turns.
    limited: u32,
    /// When all that it was sent would be over at the rate that is allowed, in microseconds.
    over_us: u64,
}

/// Counts answers by network.
#[derive(Debug)]
pub struct Limiter<S = RandomState> {
    hasher: S,
    /// Microseconds for each answer.
    each_us: u64,
    sets: Vec<[Seen; WAYS]>,
}

impl Limiter {
    /// So many answers a second for each network. The hash is a secret, so that nobody can choose
    /// who shares a place.
    pub fn new(per_second: NonZeroU32) -> Self {
        Self::with_hasher(per_second, SETS, RandomState::new())
    }
}

impl<S: BuildHasher> Limiter<S> {
    fn with_hasher(per_second: NonZeroU32, sets: usize, hasher: S) -> Self {
        let each_us = (BURST_US / u64::from(per_second.get())).max(1);
        Self { hasher, each_us, sets: vec![[Seen::default(); WAYS]; sets.max(1)] }
    }

    /// Judges one question of `peer` at `now_us`, which does not go back.
    pub fn judge_peer(&mut self, peer: IpAddr, now_us: u64) -> LimitVerdict {
        let hash = self.hasher.hash_one(Network::of(peer));
        let tag = u32::try_from(hash >> 32).unwrap_or_default();
        let at = usize::try_from(hash & u64::from(u32::MAX)).unwrap_or_default() % self.sets.len();
        let Some(set) = self.sets.get_mut(at) else { return LimitVerdict::Answer };
        // Without a place of its own a network takes the place of the least busy one, and what that
        // one had: so nobody gets more than the limit, however many ask.
        let mine = |seen: &&mut Seen| seen.tag == tag;
        let seen = match set.iter_mut().find(mine) {
            Some(seen) => seen,
            None => match set.iter_mut().min_by_key(|seen| seen.over_us) {
                Some(seen) => {
                    seen.tag = tag;
                    seen
                }
                None => return LimitVerdict::Answer,
            },
        };
        let over_us = seen.over_us.max(now_us) + self.each_us;
        if over_us <= now_us + BURST_US {
            seen.over_us = over_us;
            return LimitVerdict::Answer;
        }
        seen.limited = seen.limited.wrapping_add(1);
        if seen.limited.is_multiple_of(2) { LimitVerdict::Slip } else { LimitVerdict::Drop }
    }
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
