//! What a hostile peer or a man in the middle can send: false lengths, false padding, flipped
//! bits, used-up keys.

use super::*;

/// Seals a body of our choice, as a peer with the right keys but no manners would.
fn forged(suite: Suite, length: u32, body: &[u8]) -> Vec<u8> {
    let mut protection = Protection::<SealingKey>::keyed(keys(suite, 20));
    let mut packet = [&length.to_be_bytes()[..], body].concat();
    packet.resize(packet.len() + protection.framing().tag, 0);
    protection.seal(0, &mut packet).unwrap();
    packet
}

fn plain(length: u32, body: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes()[..], body].concat()
}

fn open_new(suite: Suite, packet: &mut [u8]) -> Result<Option<Opened>, Fault> {
    Opener::from_keys(keys(suite, 20), 0).open(packet, LIMIT)
}

/// All that an opener of this suite can ever ask for, behind what is there.
fn followed_by_anything(packet: &[u8]) -> Vec<u8> {
    let mut long = packet.to_vec();
    long.resize(packet.len() + LIMIT as usize + 4 + 64, 0x5a);
    long
}

#[test]
fn one_bit_flipped_in_any_byte_is_refused_by_every_suite() {
    for suite in suites() {
        let (mut sealer, _) = pair(suite, 20, 0);
        let packet = sealed(&mut sealer, &message(21));
        for at in 0..packet.len() {
            let mut bad = followed_by_anything(&packet);
            bad[at] ^= 1 << (at % 8);
            let fault = open_new(suite, &mut bad).expect_err("a flipped bit must not open");
            let length_seen = at < 4 && !encrypt_and_mac(suite);
            assert!(
                fault == Fault::Corrupt || (length_seen && matches!(fault, Fault::Length { .. })),
                "{suite:?} {at}: {fault:?}"
            );
        }
    }
}

#[test]
fn a_packet_replayed_or_out_of_order_is_refused() {
    for suite in suites() {
        let (mut sealer, mut opener) = pair(suite, 20, 0);
        let first = sealed(&mut sealer, &message(40));
        let second = sealed(&mut sealer, &message(40));
        assert!(open_new(suite, &mut followed_by_anything(&second)).is_err(), "{suite:?}");
        opened(&mut opener, &mut first.clone());
        assert!(opener.open(&mut followed_by_anything(&first), LIMIT).is_err(), "{suite:?}");
        // And it stays so, whatever comes.
        let mut good = second;
        let fault = opener.open(&mut good, LIMIT).unwrap_err();
        assert_eq!(opener.open(&mut good, LIMIT), Err(fault));
        assert_eq!(opener.needs(), 0);
        opener.rekey(keys(suite, 20), true);
        assert_eq!(opener.open(&mut first.clone(), LIMIT), Err(fault), "new keys heal nothing");
    }
}

#[test]
fn plain_lengths_out_of_range_are_refused_as_soon_as_they_are_there() {
    for length in [0, 1, 2, 3, 4, 5, 6, 7, 11, 13, 35_001, 35_004, 1 << 31, u32::MAX - 3, u32::MAX]
    {
        let mut input = length.to_be_bytes();
        assert_eq!(
            Opener::plain().open(&mut input, LIMIT),
            Err(Fault::Length { len: length }),
            "{length}"
        );
    }
    let mut opener = Opener::plain();
    assert_eq!(opener.open(&mut 34_996_u32.to_be_bytes(), LIMIT), Ok(None));
    assert_eq!(opener.needs(), 35_000);
}

#[test]
fn lengths_out_of_range_under_keys_are_refused_before_the_packet_is_there() {
    for suite in suites().into_iter().filter(|suite| !encrypt_and_mac(*suite)) {
        for length in
            [0, 1, 4, 5, 6, 15, 17, 34_999, 35_001, 35_008, 1 << 31, u32::MAX - 15, u32::MAX]
        {
            let packet = forged(suite, length, &[0; 28]);
            let fault = open_new(suite, &mut packet[..4].to_vec()).expect_err("a false length");
            let told = if suite.cipher == Cipher::Chacha20Poly1305 { u32::MAX } else { length };
            assert_eq!(fault, Fault::Length { len: told }, "{suite:?} {length}");
        }
        // The largest that both the limit and the block allow.
        let largest = if suite.cipher == Cipher::Chacha20Poly1305 { 35_000 } else { 34_992 };
        let mut opener = Opener::from_keys(keys(suite, 20), 0);
        let packet = forged(suite, largest, &[0; 28]);
        assert_eq!(opener.open(&mut packet[..4].to_vec(), LIMIT), Ok(None));
        let tag = suite.mac.map_or(16, Mac::key_len);
        assert_eq!(opener.needs(), 4 + largest as usize + tag);
    }
}

#[test]
fn a_false_length_under_plain_hmac_looks_like_a_false_mac() {
    for suite in suites().into_iter().filter(|suite| encrypt_and_mac(*suite)) {
        let all = 4 + LIMIT as usize + suite.mac.map_or(0, Mac::key_len);
        for length in [0, 1, 5, 11, 13, 28, 44, 34_988, 34_989, 35_001, 1 << 31, u32::MAX] {
            // Length 28 is right for the body and 44 and 34,988 would be in range: only
            // their MAC is false.
            let mut packet = forged(suite, length, &[7; 28]);
            if let Some(last) = packet.last_mut() {
                *last ^= 1;
            }
            packet.resize(all, 0x5a);
            let mut opener = Opener::from_keys(keys(suite, 20), 0);
            for cut in [16, 100, 1_000, 34_988 + 4 + 32, all - 1] {
                let mut part = packet[..cut].to_vec();
                let told = opener.open(&mut part, LIMIT);
                assert_eq!(told, Ok(None), "{suite:?} {length} {cut}");
                assert!(opener.needs() > cut, "{suite:?} {length} {cut}");
                packet[..cut].copy_from_slice(&part);
            }
            assert_eq!(opener.needs(), all);
            assert_eq!(opener.open(&mut packet, LIMIT), Err(Fault::Corrupt));
        }
    }
}

#[test]
fn padding_that_is_short_or_leaves_no_payload_is_corrupt() {
    let body = |len: usize, padding: u8| {
        let mut body = vec![1; len];
        body[0] = padding;
        body
    };
    for suite in suites() {
        let len = if encrypt_and_mac(suite) { 28 } else { 32 };
        let length = u32::try_from(len).unwrap();
        let most = u8::try_from(len - 2).unwrap();
        for padding in [0, 1, 3, most + 1, most + 2, most + 3, 255] {
            let mut packet = forged(suite, length, &body(len, padding));
            assert_eq!(open_new(suite, &mut packet), Err(Fault::Corrupt), "{suite:?} {padding}");
        }
        for (padding, payload) in [(4, len - 5), (5, len - 6), (most, 1)] {
            let mut packet = forged(suite, length, &body(len, padding));
            let found = open_new(suite, &mut packet).unwrap().unwrap();
            assert_eq!(found.payload, 5..5 + payload, "{suite:?} {padding}");
        }
    }
    for padding in [0, 3, 11, 12, 255] {
        let mut packet = plain(12, &body(12, padding));
        assert_eq!(Opener::plain().open(&mut packet, LIMIT), Err(Fault::Corrupt), "{padding}");
    }
    for padding in [4, 10] {
        let mut packet = plain(12, &body(12, padding));
        assert!(Opener::plain().open(&mut packet, LIMIT).unwrap().is_some(), "{padding}");
    }
}

#[test]
fn payloads_that_are_empty_are_never_sealed() {
    for mut sealer in suites()
        .into_iter()
        .map(|suite| Sealer::from_keys(keys(suite, 20), 0))
        .chain([Sealer::plain()])
    {
        let mut out = b"kept".to_vec();
        let told = sealer.seal(b"", &mut Counting(0), &mut out);
        assert_eq!(told, Err(Fault::Length { len: u32::MAX }));
        assert_eq!((out.as_slice(), sealer.seq()), (&b"kept"[..], 0));
    }
}

#[test]
fn the_sequence_number_wraps_to_zero_and_goes_on() {
    for suite in suites() {
        let (mut sealer, mut opener) = pair(suite, 20, u32::MAX - 1);
        for seq in [u32::MAX - 1, u32::MAX, 0, 1] {
            assert_eq!((sealer.seq(), opener.seq()), (seq, seq));
            let mut packet = sealed(&mut sealer, &message(30));
            assert_eq!(opened(&mut opener, &mut packet), message(30), "{suite:?} {seq}");
        }
    }
}

#[test]
fn keys_are_used_up_before_a_nonce_could_repeat() {
    const { assert!(PACKETS_PER_KEY_MAX < 1 << 32) };
    for suite in suites() {
        let nearly = Used { bytes: 0, packets: PACKETS_PER_KEY_MAX - 1 };
        let (sealer, opener) = pair(suite, 20, 0);
        let (mut sealer, mut opener) = (sealer.continuing(nearly), opener.continuing(nearly));
        let mut last = sealed(&mut sealer, b"last");
        assert_eq!(opened(&mut opener, &mut last.clone()), b"last");
        let mut out = Vec::new();
        let told = sealer.seal(b"one more", &mut Counting(0), &mut out);
        assert_eq!(told, Err(Fault::KeysUsedUp));
        assert!(out.is_empty());
        let before = last.clone();
        assert_eq!(sealer.reseal(&mut last), Err(Fault::KeysUsedUp));
        assert_eq!(last, before);
        assert_eq!(opener.open(&mut last, LIMIT), Err(Fault::KeysUsedUp));
        sealer.rekey(keys(suite, 21), false);
        assert_eq!(sealer.seal(b"fresh", &mut Counting(0), &mut out), Ok(()));
    }
    let mut plain = Opener::plain().continuing(Used { bytes: 0, packets: PACKETS_PER_KEY_MAX });
    assert_eq!(plain.open(&mut [0; 16], LIMIT), Err(Fault::KeysUsedUp));
}

#[test]
fn reseal_refuses_what_no_opener_has_opened() {
    for suite in suites() {
        let (mut sealer, _) = pair(suite, 20, 0);
        for mut bytes in [
            vec![],
            vec![0; 3],
            vec![0; 4],
            vec![0xff; 4],
            vec![0xff; 100],
            plain(32, &[0; 31]),
            plain(u32::MAX - 15, &[0; 64]),
        ] {
            let before = bytes.clone();
            assert_eq!(sealer.reseal(&mut bytes), Ok(false), "{suite:?}");
            assert_eq!(bytes, before);
        }
        assert_eq!(sealer.seq(), 0);
    }
}

#[test]
#[should_panic(expected = "never negotiated without a MAC")]
fn a_ctr_cipher_without_a_mac_is_our_own_bug() {
    let suite = Suite { cipher: Cipher::Aes128Ctr, mac: None };
    Sealer::plain().rekey(Keys::zero(suite), false);
}
