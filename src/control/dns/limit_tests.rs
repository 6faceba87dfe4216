//! Tests of `limit`: whatever comes, nobody gets more than the limit; whoever stays below it
//! gets everything.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

use proptest::prelude::*;

use super::*;

type Fixed = BuildHasherDefault<DefaultHasher>;

fn limiter(per_second: u32, sets: usize) -> Limiter<Fixed> {
    Limiter::with_hasher(NonZeroU32::new(per_second).unwrap(), sets, Fixed::default())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// How many of `count` questions at once get each verdict.
fn burst(limiter: &mut Limiter<Fixed>, peer: &str, now_us: u64, count: usize) -> [usize; 3] {
    let mut verdicts = [0; 3];
    for _ in 0..count {
        verdicts[limiter.judge_peer(ip(peer), now_us) as usize] += 1;
    }
    verdicts
}

#[test]
fn a_second_has_the_limit_and_every_second_one_beyond_it_is_truncated() {
    let mut limiter = limiter(200, SETS);
    assert_eq!(burst(&mut limiter, "192.0.2.1", 0, 1000), [200, 400, 400]);
    assert_eq!(burst(&mut limiter, "192.0.2.1", 500_000, 1000), [100, 450, 450]);
    assert_eq!(burst(&mut limiter, "192.0.2.1", 60_000_000, 300), [200, 50, 50]);
}

#[test]
fn a_network_shares_its_limit_and_others_have_their_own() {
    let mut limiter = limiter(10, SETS);
    let empty = [
        ("192.0.2.1", "192.0.2.254"),
        ("2001:db8:0:ff::1", "2001:db8:0:0:8000::"),
        ("::ffff:198.51.100.1", "198.51.100.77"),
    ];
    for (one, same) in empty {
        assert_eq!(burst(&mut limiter, one, 0, 10), [10, 0, 0]);
        assert_ne!(limiter.judge_peer(ip(same), 0), LimitVerdict::Answer, "{same}");
    }
    for other in ["192.0.3.1", "192.1.2.1", "2001:db8:0:100::1", "2001:db9::1", "::1"] {
        assert_eq!(burst(&mut limiter, other, 0, 10), [10, 0, 0], "{other}");
    }
}

#[test]
fn networks_of_both_families_are_never_taken_for_each_other() {
    let all = ["0.0.0.0", "192.0.2.0", "255.255.255.255", "::", "::1:0:0:0:0:0", "ffff::", "100::"];
    let networks: std::collections::HashSet<Network> =
        all.iter().map(|text| Network::of(ip(text))).collect();
    assert_eq!(networks.len(), all.len());
}

#[test]
fn a_flood_of_other_networks_does_not_give_one_more_than_its_limit() {
    // Every network of the flood wants the one set there is.
    let mut limiter = limiter(10, 1);
    let (mut answered, victim) = (0, ip("192.0.2.1"));
    for n in 0..100_000_u32 {
        let _other = limiter.judge_peer(std::net::Ipv4Addr::from_bits(n << 8).into(), 0);
        answered += usize::from(limiter.judge_peer(victim, 0) == LimitVerdict::Answer);
    }
    assert!(answered <= 10, "{answered} answers in no time");
}

#[test]
fn the_table_has_the_size_that_is_written_down() {
    assert_eq!(size_of::<[Seen; WAYS]>() * SETS, 1 << 20);
}

proptest! {
    /// In a table with room for few, against counts that are exact.
    #[test]
    fn nobody_gets_more_than_the_rate_and_a_burst(
        per_second in 1_u32..500,
        sets in 1_usize..4,
        questions in prop::collection::vec((0_u32..12, 0_u64..200_000), 1..800),
    ) {
        let mut limiter = limiter(per_second, sets);
        let mut answered: HashMap<u32, Vec<u64>> = HashMap::new();
        let mut now_us = 0;
        for (network, pause_us) in questions {
            // Half of them come at once.
            now_us += pause_us.saturating_sub(100_000);
            let peer = std::net::Ipv4Addr::from_bits(network << 8).into();
            if limiter.judge_peer(peer, now_us) == LimitVerdict::Answer {
                answered.entry(network).or_default().push(now_us);
            }
        }
        for times in answered.values() {
            for (first, from_us) in times.iter().enumerate() {
                for (last, to_us) in times.iter().enumerate().skip(first) {
                    let most = (to_us - from_us + BURST_US) / limiter.each_us;
                    prop_assert!((last - first) as u64 <= most);
                }
            }
        }
    }

    #[test]
    fn whoever_stays_below_the_limit_is_always_answered(
        per_second in 1_u32..500,
        pauses in prop::collection::vec(0_u64..3_000, 1..300),
    ) {
        let mut limiter = limiter(per_second, SETS);
        let mut now_us = 0;
        for pause_us in pauses {
            now_us += limiter.each_us + pause_us;
            prop_assert_eq!(limiter.judge_peer(ip("192.0.2.1"), now_us), LimitVerdict::Answer);
        }
    }
}
