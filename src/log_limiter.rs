//! How many log lines somebody may cause: a flood must neither drown the log nor hide who
//! else came meanwhile.
//!
//! Every source has a burst, then a trickle; all together have a rate of their own. What is kept
//! back is counted and told once a minute. Memory is bounded: beyond the sources that are
//! remembered, newcomers share one allowance.
//!
//! Source: the virtual scheduling of the generic cell rate algorithm (ITU-T I.371, annex A): one
//! time for each source.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use crate::log;

/// Of each source: so many at once, then one each so many milliseconds.
const EACH: Rate = Rate { burst: 20, every_ms: 3000 };
/// Of all together.
const ALL: Rate = Rate { burst: 50, every_ms: 20 };
/// Sources remembered: 24 bytes each.
const SOURCES_MAX: usize = 4096;
/// How often it is told how many were kept back.
const TOLD_EVERY_MS: u64 = 60_000;

/// A source network: what one household, office or machine can choose its addresses from.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Network(u64);

impl Network {
    /// The /24 of an IPv4 address, the /56 of an IPv6 one.
    pub(crate) fn of(source: IpAddr) -> Self {
        match source.to_canonical() {
            // The top bit keeps the families apart: 56 bits of IPv6 never reach it.
            IpAddr::V4(ip) => Self(1 << 63 | u64::from(u32::from(ip) >> 8)),
            IpAddr::V6(ip) => {
                let half = ip.segments()[..4].iter().fold(0, |half, &s| half << 16 | u64::from(s));
                Self(half >> 8)
            }
        }
    }
}

/// So many at once, then one each so many milliseconds.
#[derive(Clone, Copy)]
struct Rate {
    burst: u64,
    every_ms: u64,
}

/// When the allowance is whole again.
#[derive(Clone, Copy, Debug, Default)]
struct Whole(u64);

impl Whole {
    /// When it would be whole again after one more; nothing if there is none left.
    fn after_one(self, rate: Rate, now_ms: u64) -> Option<Self> {
        let Rate { burst, every_ms } = rate;
        let owed_ms = self.0.saturating_sub(now_ms);
        (owed_ms <= every_ms.saturating_mul(burst.saturating_sub(1)))
            .then(|| Self(now_ms.saturating_add(owed_ms).saturating_add(every_ms)))
    }
}

/// What sources may still cause.
#[derive(Debug)]
pub(crate) struct LogLimiter<S> {
    sources: HashMap<S, Whole>,
    /// Of sources that there was no room for.
    others: Whole,
    all: Whole,
    kept_back: u64,
    told_ms: u64,
}

impl<S> Default for LogLimiter<S> {
    fn default() -> Self {
        Self {
            sources: HashMap::new(),
            others: Whole::default(),
            all: Whole::default(),
            kept_back: 0,
            told_ms: 0,
        }
    }
}

impl<S: Eq + Hash> LogLimiter<S> {
    /// Whether `source` may cause one more at `now_ms`, on a clock that never goes back.
    /// Else it is counted.
    pub(crate) fn allow(&mut self, source: S, now_ms: u64) -> bool {
        // First, so that a flood costs no more than this.
        let Some(all) = self.all.after_one(ALL, now_ms) else {
            self.kept_back += 1;
            return false;
        };
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            // Whoever has a whole allowance is as good as unknown.
            self.sources.retain(|_, whole| whole.0 > now_ms);
        }
        let room = self.sources.len() < SOURCES_MAX;
        let its = match self.sources.get_mut(&source) {
            Some(its) => its,
            None if room => self.sources.entry(source).or_default(),
            None => &mut self.others,
        };
        let Some(each) = its.after_one(EACH, now_ms) else {
            self.kept_back += 1;
            return false;
        };
        (*its, self.all) = (each, all);
        true
    }

    /// Whether `source` has nothing left of its own. Nothing is taken from it.
    pub(crate) fn is_spent(&self, source: &S, now_ms: u64) -> bool {
        self.sources.get(source).is_some_and(|its| its.after_one(EACH, now_ms).is_none())
    }

    /// [`LogLimiter::allow`] for a line of the log, and how many were kept back, if that
    /// is to be told now.
    pub(crate) fn allow_line(&mut self, source: S, now_ms: u64) -> (bool, Option<u64>) {
        let allowed = self.allow(source, now_ms);
        if !allowed {
            log::kept_back();
        }
        (allowed, self.kept_back(now_ms))
    }

    /// How many were kept back since this was told, once a minute if any were.
    pub(crate) fn kept_back(&mut self, now_ms: u64) -> Option<u64> {
        if self.kept_back == 0 {
            return None;
        }
        if now_ms < self.told_ms.saturating_add(TOLD_EVERY_MS) && self.told_ms > 0 {
            return None;
        }
        self.told_ms = now_ms;
        Some(std::mem::take(&mut self.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u8) -> Network {
        Network::of(IpAddr::from([10, 0, number, 1]))
    }

    fn allowed(ration: &mut LogLimiter<Network>, who: u8, now_ms: u64, tries: u64) -> u64 {
        (0..tries).map(|_| u64::from(ration.allow(source(who), now_ms))).sum()
    }

    #[test]
    fn a_source_has_a_burst_and_then_a_trickle_and_takes_nothing_from_another() {
        let mut ration = LogLimiter::default();
        assert!(!ration.is_spent(&source(1), 1000));
        assert_eq!(allowed(&mut ration, 1, 1000, 100), EACH.burst);
        assert!(ration.is_spent(&source(1), 1000) && !ration.is_spent(&source(2), 1000));
        assert_eq!(allowed(&mut ration, 2, 1000, 100), EACH.burst);
        assert!(!ration.is_spent(&source(1), 1000 + EACH.every_ms));
        assert_eq!(allowed(&mut ration, 1, 1000 + 2 * EACH.every_ms, 100), 2);
        assert_eq!(allowed(&mut ration, 1, 3_600_000, 100), EACH.burst, "rested");
    }

    #[test]
    fn all_sources_together_have_a_rate_too() {
        let mut ration = LogLimiter::default();
        let all: u64 = (0..=255).map(|who| allowed(&mut ration, who, 1000, 1)).sum();
        assert_eq!(all, ALL.burst);
        // Whoever was kept back for the others' sake has not used up what is theirs.
        let second = 1000 / ALL.every_ms;
        assert_eq!(allowed(&mut ration, 255, 2000, 100), EACH.burst.min(second));
    }

    #[test]
    fn what_is_kept_back_is_told_at_once_and_then_once_a_minute() {
        let mut ration = LogLimiter::default();
        allowed(&mut ration, 1, 1000, EACH.burst);
        assert_eq!(ration.kept_back(1000), None);
        allowed(&mut ration, 1, 1000, 7);
        assert_eq!(ration.kept_back(1001), Some(7));
        allowed(&mut ration, 1, 1002, 3);
        assert_eq!(ration.kept_back(1003), None);
        assert_eq!(ration.kept_back(1001 + TOLD_EVERY_MS), Some(3));
        assert_eq!(ration.kept_back(1001 + 2 * TOLD_EVERY_MS), None);
    }

    #[test]
    fn memory_is_bounded_and_newcomers_share_what_is_left() {
        let mut ration: LogLimiter<u32> = LogLimiter::default();
        let mut now_ms = 1000;
        for who in 0..20_000 {
            now_ms += ALL.every_ms;
            assert!(ration.allow(who, now_ms), "{who}");
            assert!(ration.sources.len() <= SOURCES_MAX);
        }
        // All at one time, so that nobody is rested.
        let mut ration: LogLimiter<u32> = LogLimiter::default();
        for who in 0..20_000 {
            ration.all = Whole::default();
            ration.allow(who, 1000);
        }
        assert_eq!(ration.sources.len(), SOURCES_MAX);
        assert_eq!(ration.kept_back, 20_000 - SOURCES_MAX as u64 - EACH.burst);
    }

    #[test]
    fn networks_are_of_24_and_56_bits_and_families_never_meet() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("203.0.113.7"), of("203.0.113.200"));
        assert_eq!(of("203.0.113.7"), of("::ffff:203.0.113.9"));
        assert_ne!(of("203.0.113.7"), of("203.0.114.7"));
        assert_eq!(of("2001:db8:1:200::1"), of("2001:db8:1:2ff::9"));
        assert_ne!(of("2001:db8:1:200::1"), of("2001:db8:1:300::1"));
    }
}
