//! Tests of `packet`: vectors made by other implementations, every suite at every size, every way
//! to cut, flip or forge a packet, and the ends of the counters.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "a test may panic"
)]

use proptest::prelude::*;

use super::*;
use crate::ssh::cipher::{Cipher, Mac};

#[path = "packet_hostile_tests.rs"]
mod hostile;
#[path = "packet_vector_tests.rs"]
mod vectors;

/// `packet_length` limit of most tests, as a transport would set it.
const LIMIT: u32 = 35_000;

/// Counts upwards from its seed: padding that can be told in advance.
struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
    }
}

/// Hands out what it was given; asks for no more.
struct Given(Vec<u8>);

impl Entropy for Given {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.resize(out.len(), 0);
        out.copy_from_slice(&self.0);
    }
}

fn suites() -> Vec<Suite> {
    let mut suites = Vec::new();
    for cipher in Cipher::ALL {
        if cipher.is_aead() {
            suites.push(Suite::new(cipher, None).unwrap());
        } else {
            suites.extend(Mac::ALL.map(|mac| Suite::new(cipher, Some(mac)).unwrap()));
        }
    }
    assert_eq!(suites.len(), 15);
    suites
}

fn encrypt_and_mac(suite: Suite) -> bool {
    suite.mac.is_some_and(|mac| !mac.is_etm())
}

fn keys(suite: Suite, seed: u8) -> Keys {
    let mut keys = Keys::zero(suite);
    let mut entropy = Counting(seed);
    for part in keys.parts_mut() {
        entropy.fill(part);
    }
    keys
}

fn pair(suite: Suite, seed: u8, seq: u32) -> (Sealer, Opener) {
    (Sealer::from_keys(keys(suite, seed), seq), Opener::from_keys(keys(suite, seed), seq))
}

fn message(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + len) as u8).collect()
}

fn sealed(sealer: &mut Sealer, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    sealer.seal(payload, &mut Counting(0x40), &mut out).unwrap();
    out
}

/// Opens the one packet that `packet` must be, checks the frame left behind, and
/// returns the payload.
fn opened(opener: &mut Opener, packet: &mut [u8]) -> Vec<u8> {
    let found = opener.open(packet, u32::MAX).unwrap().expect("a whole packet");
    assert_eq!(found.used, packet.len());
    assert_eq!(found.payload.start, 5);
    let length = u32::from_be_bytes(packet[..4].try_into().unwrap()) as usize;
    let padding = usize::from(packet[4]);
    assert_eq!(4 + length, found.payload.end + padding, "the length stands in clear");
    packet[found.payload].to_vec()
}

#[test]
fn every_suite_carries_payloads_of_every_size() {
    for suite in suites() {
        let (mut sealer, mut opener) = pair(suite, 1, 0);
        for len in (1..=300).chain([1_000, 4_095, 4_096, 32_768, 34_000, 262_144]) {
            let payload = message(len);
            let mut packet = sealed(&mut sealer, &payload);
            assert_ne!(packet.get(5..5 + len).unwrap(), payload, "{suite:?}");
            assert_eq!(opened(&mut opener, &mut packet), payload, "{suite:?} {len}");
        }
        assert_eq!((sealer.seq(), opener.seq()), (306, 306));
        assert_eq!(sealer.used(), opener.used());
        assert_eq!(sealer.used().packets, 306);
    }
}

#[test]
fn plain_packets_are_framed_in_blocks_of_eight_and_at_least_sixteen_bytes() {
    let (mut sealer, mut opener) = (Sealer::plain(), Opener::plain());
    for len in 1..=300 {
        let payload = message(len);
        let mut packet = sealed(&mut sealer, &payload);
        assert!(packet.len().is_multiple_of(8) && packet.len() >= 16);
        assert_eq!(packet[5..5 + len], payload);
        assert_eq!(opened(&mut opener, &mut packet), payload);
    }
    assert_eq!(sealer.used(), opener.used());
}

#[test]
fn padding_is_the_least_that_fills_the_block_and_never_repeats() {
    for suite in suites() {
        let (mut sealer, mut opener) = pair(suite, 2, 0);
        let block = if suite.cipher == Cipher::Chacha20Poly1305 { 8 } else { 16 };
        let counted = if encrypt_and_mac(suite) { 4 } else { 0 };
        let mut entropy = Counting(0);
        let mut next = 0u8;
        for len in 1..=40 {
            let mut packet = Vec::new();
            sealer.seal(&message(len), &mut entropy, &mut packet).unwrap();
            let found = opener.open(&mut packet, LIMIT).unwrap().unwrap();
            let padding = &packet[found.payload.end..][..usize::from(packet[4])];
            assert!((4..4 + block).contains(&padding.len()), "{suite:?} {len}");
            assert!((counted + 1 + len + padding.len()).is_multiple_of(block));
            // The pool never hands out the same byte twice: what it drew counts upwards.
            let ahead = padding[0].wrapping_sub(next);
            assert!(ahead < 20, "skipped {ahead}");
            for (at, byte) in padding.iter().enumerate() {
                assert_eq!(*byte, padding[0].wrapping_add(at as u8));
            }
            next = padding[padding.len() - 1].wrapping_add(1);
        }
    }
}

#[test]
fn a_packet_cut_at_every_byte_opens_once_whole_and_is_untouched_before() {
    for suite in suites() {
        for len in [1, 20, 100] {
            let (mut sealer, mut opener) = pair(suite, 3, 9);
            let first = sealed(&mut sealer, &message(len));
            let second = sealed(&mut sealer, &message(len + 1));
            let head = if encrypt_and_mac(suite) { 16 } else { 4 };
            assert_eq!(opener.needs(), head);
            for cut in 0..first.len() {
                // Each time from another buffer, as after a move by the caller.
                let mut part = first[..cut].to_vec();
                assert_eq!(opener.open(&mut part, LIMIT), Ok(None), "{suite:?} {cut}");
                assert_eq!(part, first[..cut], "{suite:?} {cut}");
                let needs = if cut < head { head } else { first.len() };
                assert_eq!(opener.needs(), needs, "{suite:?} {cut}");
            }
            let mut both = [first.clone(), second.clone()].concat();
            let found = opener.open(&mut both, LIMIT).unwrap().unwrap();
            assert_eq!(found.used, first.len());
            assert_eq!(both[found.payload], message(len));
            assert_eq!(both[first.len()..], second, "the next packet is untouched");
            assert_eq!(opener.needs(), head);
            assert_eq!(opened(&mut opener, &mut both[first.len()..]), message(len + 1));
        }
    }
}

#[test]
fn a_sealer_appends_and_leaves_what_was_there() {
    for suite in suites() {
        let (mut sealer, mut opener) = pair(suite, 4, 0);
        let mut out = b"before".to_vec();
        sealer.seal(b"one", &mut Counting(0), &mut out).unwrap();
        let end = out.len();
        sealer.seal(b"two", &mut Counting(0), &mut out).unwrap();
        assert_eq!(out[..6], *b"before");
        assert_eq!(opened(&mut opener, &mut out[6..end]), b"one");
        assert_eq!(opened(&mut opener, &mut out[end..]), b"two");
    }
}

#[test]
fn reseal_in_place_gives_the_bytes_that_sealing_gives_for_every_pair_of_suites() {
    let mut in_place = 0;
    for from in suites() {
        for to in suites() {
            for len in [1, 5, 6, 7, 8, 9, 15, 16, 17, 100, 1_000] {
                let payload = message(len);
                let (mut sealer, mut opener) = pair(from, 5, 77);
                let mut packet = sealed(&mut sealer, &payload);
                assert_eq!(opened(&mut opener, &mut packet), payload);
                let clear = packet.clone();

                let (mut onward, mut far) = pair(to, 6, 5);
                let fits = reseal_fits(from, to, &clear);
                assert_eq!(onward.reseal(&mut packet), Ok(fits), "{from:?} {to:?} {len}");
                let (mut direct, _) = pair(to, 6, 5);
                let mut expected = Vec::new();
                let padding = clear[5 + len..][..usize::from(clear[4])].to_vec();
                direct.seal(&payload, &mut Given(padding), &mut expected).unwrap();
                if fits {
                    in_place += 1;
                    assert_eq!(onward.seq(), 6);
                    assert_eq!(onward.used().bytes, packet.len() as u64);
                    // The received padding may be a block more than the least; else the
                    // bytes are the same.
                    if expected.len() == packet.len() {
                        assert_eq!(packet, expected, "{from:?} {to:?} {len}");
                    }
                } else {
                    assert_eq!(packet, clear, "{from:?} {to:?} {len}: touched");
                    assert_eq!((onward.seq(), onward.used()), (5, Used::default()));
                    packet.clear();
                    onward.seal(&payload, &mut Counting(1), &mut packet).unwrap();
                    assert_eq!(packet.len(), expected.len());
                }
                assert_eq!(opened(&mut far, &mut packet), payload, "{from:?} {to:?} {len}");
            }
        }
    }
    // Of 11 sizes each: AEAD to the same or a smaller block 7 pairs, HMAC of one kind 9 pairs for
    // each of 4; and 7 of chacha20's packets happen to fill the blocks of either GCM.
    assert_eq!(in_place, 11 * (7 + 36) + 2 * 7);
}

/// By the rules of the wire, not by those of the code under test.
fn reseal_fits(from: Suite, to: Suite, packet: &[u8]) -> bool {
    let tag = |suite: Suite| suite.mac.map_or(16, Mac::key_len);
    let body = packet.len() - 4 - tag(from);
    let aligned = if encrypt_and_mac(to) {
        (body + 4).is_multiple_of(16)
    } else if to.cipher == Cipher::Chacha20Poly1305 {
        body.is_multiple_of(8)
    } else {
        body.is_multiple_of(16)
    };
    tag(from) == tag(to) && aligned
}

#[test]
fn relays_between_the_common_suites_reseal_in_place_always() {
    let [gcm128, gcm256, chacha] = [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::Chacha20Poly1305]
        .map(|cipher| Suite::new(cipher, None).unwrap());
    for (from, to) in [
        (gcm128, gcm128),
        (gcm128, gcm256),
        (gcm256, gcm128),
        (gcm128, chacha),
        (gcm256, chacha),
        (chacha, chacha),
    ] {
        let (mut sealer, mut opener) = pair(from, 7, 0);
        let (mut onward, mut far) = pair(to, 8, 1_000);
        for len in 1..=300 {
            let mut packet = sealed(&mut sealer, &message(len));
            opened(&mut opener, &mut packet);
            assert_eq!(onward.reseal(&mut packet), Ok(true), "{from:?} {to:?} {len}");
            assert_eq!(opened(&mut far, &mut packet), message(len));
        }
    }
}

#[test]
fn keys_given_up_go_on_bit_by_bit_elsewhere() {
    for suite in suites() {
        let (mut stays, mut reads) = pair(suite, 9, 40);
        let (mut leaves, mut moves) = pair(suite, 9, 40);
        for len in [3, 50, 1_000] {
            let packet = sealed(&mut stays, &message(len));
            sealed(&mut leaves, &message(len));
            opened(&mut reads, &mut packet.clone());
            opened(&mut moves, &mut packet.clone());
        }
        let (used, (given, seq)) = (leaves.used(), leaves.into_keys().unwrap());
        assert_eq!((given.suite(), seq), (suite, 43));
        let mut arrived = Sealer::from_keys(given, seq).continuing(used);
        // The same padding for both, whatever is left in the pool of the one that stayed.
        stays.padding = Padding::empty();
        let next = sealed(&mut stays, &message(77));
        assert_eq!(sealed(&mut arrived, &message(77)), next, "{suite:?}");
        assert_eq!(arrived.used(), stays.used());

        // A packet is half there when the opener goes: its bytes are still sealed.
        assert_eq!(moves.open(&mut next[..20].to_vec(), LIMIT), Ok(None));
        let (used, (given, seq)) = (moves.used(), moves.into_keys().unwrap());
        assert_eq!((given.suite(), seq), (suite, 43));
        let mut arrived = Opener::from_keys(given, seq).continuing(used);
        assert_eq!(opened(&mut arrived, &mut next.clone()), message(77), "{suite:?}");
        assert_eq!(opened(&mut reads, &mut next.clone()), message(77));
        assert_eq!(arrived.used(), reads.used());
        let last = sealed(&mut stays, b"last");
        assert_eq!(opened(&mut arrived, &mut last.clone()), b"last");
    }
    assert!(Sealer::plain().into_keys().is_none());
    assert!(Opener::plain().into_keys().is_none());
}

#[test]
fn a_resting_direction_goes_on_as_if_it_had_not() {
    for suite in suites() {
        let (mut sealer, mut opener) = pair(suite, 11, 0);
        let mut restless = Sealer::from_keys(keys(suite, 11), 0);
        for len in 1..=50 {
            sealer.rest();
            let packet = sealed(&mut sealer, &message(len));
            assert_eq!(packet, sealed(&mut restless, &message(len)));
            let mut part = packet[..18].to_vec();
            assert_eq!(opener.open(&mut part, LIMIT), Ok(None));
            opener.rest();
            assert_eq!(opener.needs(), packet.len(), "rest forgets no length");
            assert_eq!(opened(&mut opener, &mut packet.clone()), message(len));
        }
    }
}

#[test]
fn new_keys_take_over_with_the_sequence_number_kept_or_reset() {
    for (suite, reset) in suites().into_iter().flat_map(|suite| [(suite, false), (suite, true)]) {
        let (mut sealer, mut opener) = (Sealer::plain(), Opener::plain());
        for len in 1..=3 {
            let mut packet = sealed(&mut sealer, &message(len));
            opened(&mut opener, &mut packet);
        }
        sealer.rekey(keys(suite, 12), reset);
        opener.rekey(keys(suite, 12), reset);
        let start = if reset { 0 } else { 3 };
        assert_eq!((sealer.seq(), opener.seq()), (start, start));
        assert_eq!((sealer.used(), opener.used()), (Used::default(), Used::default()));
        assert_eq!((sealer.suite(), opener.suite()), (Some(suite), Some(suite)));
        let mut packet = sealed(&mut sealer, b"under new keys");
        // A peer that counted otherwise is refused: the number is part of what is
        // authenticated, but for GCM.
        let mut other = Opener::from_keys(keys(suite, 12), start + 1);
        let gcm = matches!(suite.cipher, Cipher::Aes128Gcm | Cipher::Aes256Gcm);
        let mut long = packet.clone();
        long.resize(packet.len() + LIMIT as usize + 4, 0);
        assert_eq!(other.open(&mut long, LIMIT).is_ok(), gcm, "{suite:?}");
        assert_eq!(opened(&mut opener, &mut packet), b"under new keys");
    }
}

#[test]
fn one_direction_stays_small() {
    assert!(size_of::<Opener>() <= 72, "{}", size_of::<Opener>());
    assert!(size_of::<Sealer>() <= 168, "{}", size_of::<Sealer>());
}

#[test]
fn debug_output_shows_no_secret() {
    let suite = Suite::new(Cipher::Aes256Ctr, Some(Mac::Sha256)).unwrap();
    let mut secret = Keys::zero(suite);
    secret.parts_mut().into_iter().for_each(|part| part.fill(171));
    let opener = Opener::from_keys(secret, 0);
    let mut secret = Keys::zero(suite);
    secret.parts_mut().into_iter().for_each(|part| part.fill(171));
    let mut sealer = Sealer::from_keys(secret, 0);
    sealed(&mut sealer, b"payload");
    let text = format!("{opener:?} {sealer:?}");
    assert!(text.contains("Aes256Ctr"));
    assert!(!text.contains("171") && !text.contains("ab") && !text.contains("64"), "{text}");
}

proptest! {
    #[test]
    fn any_stream_cut_anywhere_comes_out_as_it_went_in(
        which in 0..15usize,
        lens in prop::collection::vec(1..3_000usize, 1..8),
        cuts in prop::collection::vec(1..900usize, 1..40),
    ) {
        let suite = suites()[which];
        let (mut sealer, mut opener) = pair(suite, 13, 0);
        let stream = lens.iter().flat_map(|len| sealed(&mut sealer, &message(*len)));
        let stream = stream.collect::<Vec<_>>();
        let (mut buffer, mut sent, mut out) = (Vec::new(), 0, Vec::new());
        for cut in cuts.iter().cycle() {
            let end = stream.len().min(sent + cut);
            buffer.extend_from_slice(&stream[sent..end]);
            sent = end;
            while let Some(found) = opener.open(&mut buffer, LIMIT).unwrap() {
                out.push(buffer[found.payload].to_vec());
                buffer.drain(..found.used);
            }
            prop_assert!(opener.needs() > buffer.len());
            if sent == stream.len() {
                break;
            }
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(out, lens.into_iter().map(message).collect::<Vec<_>>());
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_open(
        which in 0..15usize,
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        limit in 0..600u32,
        cut in 0..600usize,
    ) {
        let (_, mut opener) = pair(suites()[which], 14, 0);
        let mut bytes = bytes;
        let cut = cut.min(bytes.len());
        let first = opener.open(&mut bytes[..cut], limit);
        prop_assert!(!matches!(first, Ok(Some(_))));
        let second = opener.open(&mut bytes, limit);
        prop_assert!(!matches!(second, Ok(Some(_))));
        if first.is_err() {
            prop_assert_eq!(first, second, "a fault sticks");
        }
    }

    #[test]
    fn arbitrary_plain_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        length in 0..120u32,
        padding in any::<u8>(),
        limit in 0..200u32,
    ) {
        let mut input = [&length.to_be_bytes()[..], &[padding], &bytes].concat();
        let mut opener = Opener::plain();
        if let Ok(Some(found)) = opener.open(&mut input, limit) {
            prop_assert!(!found.payload.is_empty());
            prop_assert!(found.used <= input.len() && found.payload.end + 4 <= found.used);
            prop_assert!(length <= limit);
        }
        let mut sealer = Sealer::plain();
        let before = input.clone();
        let resealed = sealer.reseal(&mut input).unwrap();
        prop_assert_eq!(resealed, input.len() as u64 == u64::from(length) + 4 && input.len() % 8 == 0);
        prop_assert_eq!(input, before);
    }
}
