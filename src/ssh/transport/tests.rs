//! Tests of `transport`: two ends in memory, virtual time, seeded randomness.

use super::exchange::EARLY_EXCHANGES_MAX;
use super::output::{HELD_MAX_BYTES, OUTPUT_MAX_BYTES, WRITTEN_MIN_BYTES};
use super::*;
use crate::ssh::cipher::Mac;
use crate::ssh::host_key::HostKey;
use crate::ssh::kex::Method;
use crate::ssh::message::Reason;
use crate::ssh::packet::{PACKETS_PER_KEY_MAX, Used};
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::SignatureAlgorithm;
use crate::ssh::testing::{End as Peer, Pair, Seeded, client_config, server_config};

mod legal;
mod secrets;
mod traps;

fn pair_with(seed: u64, algorithms: &Algorithms) -> Pair {
    let limits = RekeyLimits::default();
    Pair::new(
        seed,
        server_config(seed ^ 1, algorithms.clone(), limits),
        client_config(algorithms.clone(), limits),
    )
}

fn data(len: usize) -> Vec<u8> {
    let mut payload = vec![message::CHANNEL_DATA];
    payload.resize(len, 0x5a);
    payload
}

#[test]
fn every_method_cipher_and_mac_carries_data_both_ways_and_through_re_keys() {
    let mut seed = 0;
    for method in Method::ALL {
        for cipher in Cipher::ALL {
            let macs = if cipher.is_aead() { vec![Mac::Sha256] } else { Mac::ALL.to_vec() };
            for mac in macs {
                seed += 1;
                let algorithms =
                    Algorithms { methods: vec![method], ciphers: vec![cipher], macs: vec![mac] };
                let mut pair = pair_with(seed, &algorithms);
                pair.settle().unwrap();
                assert_eq!(pair.client.transport.receive_cipher(), Some(cipher));
                assert!(pair.server.events.contains(&Event::Secured));
                assert!(pair.client.events.contains(&Event::Secured));
                assert_eq!(
                    pair.client.transport.session_id().unwrap(),
                    pair.server.transport.session_id().unwrap()
                );
                pair.authenticate();
                for round in 0..3 {
                    pair.at_client(|t, cx| t.send(&data(100 + round), cx)).unwrap();
                    pair.at_server(|t, cx| t.send(&data(32_000 + round), cx)).unwrap();
                    pair.settle().unwrap();
                    match round {
                        0 => pair.at_client(|t, cx| t.rekey(None, cx)).unwrap(),
                        1 => pair.at_server(|t, cx| t.rekey(None, cx)).unwrap(),
                        _ => {}
                    }
                    pair.settle().unwrap();
                }
                let lens = |end: &[Vec<u8>]| end.iter().map(Vec::len).collect::<Vec<_>>();
                assert_eq!(lens(&pair.server.payloads), [100, 101, 102]);
                assert_eq!(lens(&pair.client.payloads), [32_000, 32_001, 32_002]);
            }
        }
    }
}

#[test]
fn bytes_may_come_one_at_a_time() {
    for piece in [1, 2, 3, 7, 16, 61] {
        let mut pair = Pair::plain(piece);
        pair.settle_in_pieces(usize::try_from(piece).unwrap()).unwrap();
        pair.authenticate();
        pair.at_client(|t, cx| t.rekey(None, cx)).unwrap();
        pair.at_client(|t, cx| t.send(&data(9), cx)).unwrap();
        pair.settle_in_pieces(usize::try_from(piece).unwrap()).unwrap();
        assert_eq!(pair.server.payloads, [data(9)]);
    }
}

/// Trap 22: KEXINITs that cross.
#[test]
fn key_exchanges_started_by_both_sides_at_once_are_one_key_exchange() {
    let mut pair = Pair::connected(7);
    pair.at_client(|t, cx| t.rekey(None, cx)).unwrap();
    pair.at_server(|t, cx| t.rekey(None, cx)).unwrap();
    pair.at_client(|t, cx| t.send(&data(20), cx)).unwrap();
    assert!(pair.client.transport.is_held());
    pair.settle().unwrap();
    assert_eq!(pair.client.events.iter().filter(|e| **e == Event::Rekeyed).count(), 1);
    assert_eq!(pair.server.events.iter().filter(|e| **e == Event::Rekeyed).count(), 1);
    assert_eq!(pair.server.payloads, [data(20)]);
    assert!(!pair.client.transport.is_held());
}

#[test]
fn data_of_a_peer_that_has_not_answered_our_kexinit_is_delivered() {
    let mut pair = Pair::connected(8);
    pair.at_server(|t, cx| t.rekey(None, cx)).unwrap();
    pair.at_client(|t, cx| t.send(&data(33), cx)).unwrap();
    let bytes = pair.client.take_output();
    pair.server.inbox.extend(bytes);
    let mut cx = Context { now: pair.now, entropy: &mut pair.random };
    pair.server.receive(&mut cx).unwrap();
    assert_eq!(pair.server.payloads, [data(33)]);
    pair.settle().unwrap();
}

/// Trap 15, CVE-2023-48795 (Terrapin): a packet slipped in before the first NEWKEYS.
#[test]
fn strict_kex_refuses_any_message_slipped_in_before_the_first_newkeys() {
    for number in [message::IGNORE, message::DEBUG, message::UNIMPLEMENTED] {
        for before_kexinit in [true, false] {
            let mut pair = Pair::plain(u64::from(number));
            let mut bytes = pair.client.take_output();
            let line = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
            let mut injected = Vec::new();
            let mut payload = vec![number];
            payload.put_u32(0);
            Sealer::plain().seal(&payload, &mut pair.random, &mut injected).unwrap();
            let at = if before_kexinit { line } else { bytes.len() };
            bytes.splice(at..at, injected);
            pair.server.inbox.extend(bytes);
            let mut cx = Context { now: pair.now, entropy: &mut pair.random };
            let refused = pair.server.receive(&mut cx);
            assert!(matches!(refused, Err(Fault::Unexpected { .. })), "{number}: {refused:?}");
        }
    }
}

#[test]
fn sequence_numbers_restart_at_every_newkeys_under_strict_kex() {
    let mut pair = Pair::connected(9);
    pair.at_client(|t, cx| t.send(&data(9), cx)).unwrap();
    pair.settle().unwrap();
    assert_eq!(pair.client.transport.send_seq(), 1);
    pair.at_client(|t, cx| t.rekey(None, cx)).unwrap();
    pair.settle().unwrap();
    assert_eq!(pair.client.transport.send_seq(), 0);
    assert_eq!(pair.server.transport.receive_seq(), 0);
}

/// Trap 11, Erlang CVE-2025-32433: connection messages before authentication.
#[test]
fn connection_messages_before_authentication_end_the_connection() {
    let mut pair = Pair::plain(10);
    pair.settle().unwrap();
    for number in message::CONNECTION {
        let mut pair = Pair::plain(u64::from(number));
        pair.settle().unwrap();
        pair.at_client(|t, cx| t.send(&[number, 0, 0, 0, 0], cx)).unwrap();
        let wanted = Fault::Unexpected { number, during: Stage::Authentication };
        assert_eq!(pair.settle(), Err(wanted));
    }
}

/// Traps 11 and 16, libssh CVE-2018-10933, wolfSSH CVE-2026-84897: messages of the other role.
#[test]
fn messages_only_a_server_may_send_are_refused_from_a_client() {
    for number in [
        message::SERVICE_ACCEPT,
        message::USERAUTH_FAILURE,
        message::USERAUTH_SUCCESS,
        message::USERAUTH_BANNER,
        message::USERAUTH_PK_OK,
        message::KEX_ECDH_REPLY,
    ] {
        let mut pair = Pair::plain(u64::from(number));
        pair.settle().unwrap();
        pair.at_client(|t, cx| t.send(&[number], cx)).unwrap();
        assert!(matches!(pair.settle(), Err(Fault::Unexpected { .. })), "{number}");
    }
}

/// Trap 17, OpenSSH CVE-2025-26466: floods that make no progress before authentication.
#[test]
fn floods_of_idle_messages_before_authentication_end_the_connection() {
    for number in [
        message::IGNORE,
        message::DEBUG,
        message::UNIMPLEMENTED,
        message::PING,
        message::PONG,
        message::EXT_INFO,
    ] {
        let mut pair = Pair::plain(u64::from(number));
        pair.settle().unwrap();
        let mut payload = vec![number];
        payload.put_u32(0);
        let mut sent = 0;
        let ended = loop {
            pair.at_client(|t, cx| t.send(&payload, cx)).unwrap();
            if let Err(fault) = pair.settle() {
                break fault;
            }
            sent += 1;
            assert!(sent < 1000, "no end");
        };
        // A PONG in answer counts at the other end, beside the server's one EXT_INFO.
        assert_eq!(ended, Fault::Flood);
        assert!((IDLE_MESSAGES_MAX - 1..=IDLE_MESSAGES_MAX).contains(&sent), "{number}: {sent}");
    }
}

#[test]
fn a_ping_is_answered_even_in_the_middle_of_our_key_exchange() {
    let mut pair = Pair::connected(11);
    let mut ping = vec![message::PING];
    ping.put_string(b"echo");
    pair.at_client(|t, cx| t.send(&ping, cx)).unwrap();
    pair.at_server(|t, cx| t.rekey(None, cx)).unwrap();
    let before = pair.client.transport.receive_seq();
    pair.settle().unwrap();
    // KEXINIT, reply and NEWKEYS under the old keys; the PONG was held until the new ones.
    assert_eq!(pair.client.transport.receive_seq(), 1, "restarted, then one PONG; was {before}");
}

#[test]
fn a_state_given_up_goes_on_elsewhere() {
    let mut pair = Pair::connected(12);
    let limits = RekeyLimits::default();
    let config = server_config(13, Algorithms::default(), limits);
    for round in 0..5 {
        pair.at_client(|t, cx| t.send(&data(50 + round), cx)).unwrap();
        pair.at_server(|t, cx| t.send(&data(70 + round), cx)).unwrap();
        pair.settle().unwrap();
        let now = pair.now;
        let server =
            std::mem::replace(&mut pair.server.transport, Pair::plain(99).server.transport);
        let Ok(state) = server.give_up(now) else { panic!("settled") };
        pair.server.transport = Transport::take_over_server(state, Arc::clone(&config), now);
        if round == 2 {
            pair.at_client(|t, cx| t.rekey(None, cx)).unwrap();
            pair.settle().unwrap();
        }
    }
    assert_eq!(pair.server.payloads.len(), 5);
    assert_eq!(pair.client.payloads.len(), 5);
}

#[test]
fn a_transport_in_the_middle_of_something_does_not_give_up_its_state() {
    let mut pair = Pair::connected(13);
    pair.at_server(|t, cx| t.rekey(None, cx)).unwrap();
    let server = std::mem::replace(&mut pair.server.transport, Pair::plain(99).server.transport);
    assert!(server.give_up(pair.now).is_err());
}

/// Gives the server's transport up at `pair.now` and takes it over where the clock says `now`.
fn hand_over(
    pair: &mut Pair,
    limits: RekeyLimits,
    now: Instant,
    change: impl FnOnce(&mut Handover),
) {
    let stand_in = Pair::plain(99).server.transport;
    let server = std::mem::replace(&mut pair.server.transport, stand_in);
    let Ok(mut state) = server.give_up(pair.now) else { panic!("settled") };
    change(&mut state);
    let config = server_config(1, Algorithms::default(), limits);
    pair.server.transport = Transport::take_over_server(state, config, now);
    pair.now = now;
}

fn limited(seed: u64, limits: RekeyLimits) -> Pair {
    let server = server_config(1, Algorithms::default(), limits);
    let client = client_config(Algorithms::default(), RekeyLimits::default());
    let mut pair = Pair::new(seed, server, client);
    pair.settle().unwrap();
    pair.authenticate();
    pair
}

/// Trap 20: what the keys have done counts, wherever they did it.
#[test]
fn the_limits_on_keys_hold_over_a_handover() {
    let limits = RekeyLimits { packets: 20, ..RekeyLimits::default() };
    let mut pair = limited(30, limits);
    for _ in 0..3 {
        assert!(!pair.server.transport.rekey_due(pair.now));
        for _ in 0..6 {
            pair.at_client(|t, cx| t.send(&data(9), cx)).unwrap();
        }
        pair.settle().unwrap();
        let now = pair.now;
        hand_over(&mut pair, limits, now, |_| {});
    }
    pair.at_client(|t, cx| t.send(&data(9), cx)).unwrap();
    pair.at_client(|t, cx| t.send(&data(9), cx)).unwrap();
    pair.settle().unwrap();
    assert!(pair.server.transport.rekey_due(pair.now));

    let nearly = Used { bytes: 0, packets: PACKETS_PER_KEY_MAX - 1 };
    let mut pair = limited(31, limits);
    let now = pair.now;
    hand_over(&mut pair, limits, now, |state| state.send_used = nearly);
    pair.at_server(|t, cx| t.send(&data(9), cx)).unwrap();
    assert_eq!(pair.at_server(|t, cx| t.send(&data(9), cx)), Err(Fault::KeysUsedUp));

    let mut pair = limited(32, limits);
    hand_over(&mut pair, limits, now, |state| state.receive_used = nearly);
    pair.at_client(|t, cx| t.send(&data(9), cx)).unwrap();
    assert_eq!(pair.settle(), Err(Fault::KeysUsedUp));
    assert_eq!(pair.server.payloads, [data(9)], "the last one of its budget");
}

/// Trap 20: also when the clock of the place that takes the keys over began a moment ago.
#[test]
fn the_age_of_keys_goes_on_after_a_handover() {
    let limits = RekeyLimits { age_ms: 1_000, ..RekeyLimits::default() };
    let mut pair = limited(33, limits);
    for _ in 0..3 {
        pair.now = Instant(pair.now.0 + 300);
        assert!(!pair.server.transport.rekey_due(pair.now));
        hand_over(&mut pair, limits, Instant(5), |state| assert!(state.age_ms >= 300));
    }
    assert!(!pair.server.transport.rekey_due(Instant(5 + 99)));
    assert!(pair.server.transport.rekey_due(Instant(5 + 100)));
    pair.at_server(|t, cx| t.rekey(None, cx)).unwrap();
    pair.settle().unwrap();
    assert!(!pair.server.transport.rekey_due(Instant(5 + 999)), "new keys are new");
}

fn with_ciphers(ciphers: &[Cipher]) -> Algorithms {
    Algorithms { ciphers: ciphers.to_vec(), ..Algorithms::default() }
}

#[test]
fn a_cipher_upgrade_lasts_as_long_as_the_peer_has_aes_gcm() {
    let limits = RekeyLimits::default();
    let mut pair = Pair::new(
        34,
        server_config(1, Algorithms::default(), limits),
        client_config(with_ciphers(&[Cipher::Chacha20Poly1305, Cipher::Aes256Gcm]), limits),
    );
    pair.settle().unwrap();
    pair.authenticate();
    let cipher = |pair: &Pair| pair.server.transport.receive_cipher().unwrap();
    assert_eq!(cipher(&pair), Cipher::Chacha20Poly1305);
    let gcm = [Cipher::Aes128Gcm, Cipher::Aes256Gcm];
    pair.at_server(|t, cx| t.rekey(Some(&gcm), cx)).unwrap();
    pair.settle().unwrap();
    assert_eq!(cipher(&pair), Cipher::Aes256Gcm);
    for _ in 0..2 {
        pair.at_server(|t, cx| t.rekey(None, cx)).unwrap();
        pair.settle().unwrap();
        assert_eq!(cipher(&pair), Cipher::Aes256Gcm, "started by us");
        pair.at_client(|t, cx| t.rekey(None, cx)).unwrap();
        pair.settle().unwrap();
        assert_eq!(cipher(&pair), Cipher::Aes256Gcm, "started by the peer");
        let now = pair.now;
        hand_over(&mut pair, limits, now, |_| {});
    }
    let without = client_config(with_ciphers(&[Cipher::Chacha20Poly1305]), limits);
    pair.client.transport.end = End::Client(without);
    pair.at_client(|t, cx| t.rekey(None, cx)).unwrap();
    pair.settle().unwrap();
    assert_eq!(cipher(&pair), Cipher::Chacha20Poly1305, "the peer has no AES-GCM any more");
    pair.at_server(|t, cx| t.rekey(None, cx)).unwrap();
    pair.settle().unwrap();
}

/// OpenSSH PROTOCOL §3.1: a `hostbound` signature names the host key of the initial key exchange.
#[test]
fn the_host_key_that_signatures_are_bound_to_is_the_first_one() {
    let rsa = PrivateKey::from_openssh(include_str!("../userauth/testdata/rsa2048")).unwrap().0;
    let ed25519 = PrivateKey::generate_ed25519(&mut Seeded(1));
    let first = ed25519.public().blob().to_vec();
    let host_keys = [ed25519, rsa].map(|key| HostKey { key, certificate: None });
    let limits = RekeyLimits::default();
    let server = Arc::new(ServerConfig::new(host_keys.into(), Algorithms::default(), limits));
    let mut pair = Pair::new(35, server, client_config(Algorithms::default(), limits));
    pair.settle().unwrap();
    pair.authenticate();
    let other = &[SignatureAlgorithm::RsaSha512];
    let config = ClientConfig::new(other, Algorithms::default(), limits);
    pair.client.transport.end = End::Client(Arc::new(config));
    pair.at_client(|t, cx| t.rekey(None, cx)).unwrap();
    assert_eq!(pair.settle(), Err(Fault::HostKeyChanged), "our own client end refuses it");
    assert!(matches!(&pair.server.transport.state, State::Exchange(_)), "others do not");
    assert_eq!(pair.server.transport.host_key(), first);
}

/// OpenSSH PROTOCOL §2.5: a client checks the proof of an RSA host key with the algorithm that the
/// exchange has used, or with one that it has at all.
#[test]
fn rsa_host_keys_are_proved_with_the_algorithm_that_the_client_expects() {
    use SignatureAlgorithm::{Ed25519, RsaSha256, RsaSha512};
    for (offered, expected) in [
        (&[Ed25519][..], None),
        (&[Ed25519, RsaSha256], Some(RsaSha256)),
        (&[Ed25519, RsaSha256, RsaSha512], Some(RsaSha512)),
        (&[RsaSha256, RsaSha512, Ed25519], Some(RsaSha256)),
        (&[RsaSha512, RsaSha256, Ed25519], Some(RsaSha512)),
    ] {
        let rsa = PrivateKey::from_openssh(include_str!("../userauth/testdata/rsa2048")).unwrap().0;
        let host_keys = [PrivateKey::generate_ed25519(&mut Seeded(1)), rsa];
        let host_keys = host_keys.map(|key| HostKey { key, certificate: None });
        let limits = RekeyLimits::default();
        let server = Arc::new(ServerConfig::new(host_keys.into(), Algorithms::default(), limits));
        let client = Arc::new(ClientConfig::new(offered, Algorithms::default(), limits));
        let mut pair = Pair::new(37, Arc::clone(&server), client);
        pair.settle().unwrap();
        pair.authenticate();
        assert_eq!(pair.server.transport.rsa_proofs(), expected, "{offered:?}");
        let Ok(state) = pair.server.transport.give_up(pair.now) else { panic!("settled") };
        let later = Transport::take_over_server(state, server, pair.now);
        assert_eq!(later.rsa_proofs(), expected, "{offered:?}");
    }
}

#[test]
fn a_transport_at_rest_goes_on_where_it_was() {
    for cipher in Cipher::ALL {
        let mut pair = pair_with(36, &with_ciphers(&[cipher]));
        pair.settle().unwrap();
        pair.authenticate();
        for round in 0..3 {
            pair.at_client(|t, cx| t.send(&data(9 + round), cx)).unwrap();
            pair.at_server(|t, cx| t.send(&data(9 + round), cx)).unwrap();
            pair.settle().unwrap();
            pair.client.transport.rest();
            pair.server.transport.rest();
        }
        let all = [data(9), data(10), data(11)];
        assert_eq!((&pair.server.payloads[..], &pair.client.payloads[..]), (&all[..], &all[..]));
    }
}

#[test]
fn a_server_knows_the_configuration_it_was_made_with() {
    let limits = RekeyLimits::default();
    let config = server_config(1, Algorithms::default(), limits);
    let client = client_config(Algorithms::default(), limits);
    let pair = Pair::new(37, Arc::clone(&config), client);
    assert!(Arc::ptr_eq(pair.server.transport.server_config().unwrap(), &config));
    assert!(pair.client.transport.server_config().is_none());
}

#[test]
fn a_re_key_is_due_by_bytes_by_packets_and_by_age() {
    let cases = [
        RekeyLimits { bytes: 1000, ..RekeyLimits::default() },
        RekeyLimits { packets: 3, ..RekeyLimits::default() },
        RekeyLimits { age_ms: 10, ..RekeyLimits::default() },
    ];
    for limits in cases {
        let server = server_config(1, Algorithms::default(), limits);
        let client = client_config(Algorithms::default(), RekeyLimits::default());
        let mut pair = Pair::new(14, server, client);
        pair.settle().unwrap();
        pair.authenticate();
        assert!(!pair.server.transport.rekey_due(pair.now));
        for _ in 0..4 {
            pair.at_server(|t, cx| t.send(&data(400), cx)).unwrap();
        }
        pair.now = Instant(pair.now.0 + 10);
        assert!(pair.server.transport.rekey_due(pair.now), "{limits:?}");
        pair.at_server(|t, cx| t.rekey(None, cx)).unwrap();
        pair.settle().unwrap();
        assert!(!pair.server.transport.rekey_due(pair.now), "{limits:?}");
    }
}

#[test]
fn a_disconnect_reaches_the_peer_with_its_text_and_both_ends_stay_ended() {
    let mut pair = Pair::connected(15);
    pair.at_server(|t, cx| t.disconnect(Reason::ByApplication, "bye\x1b[0m", cx));
    assert_eq!(pair.settle(), Err(Fault::Disconnected { reason: 11 }));
    let (reason, text) = pair.client.transport.farewell().unwrap();
    assert_eq!((reason, text.contains(&0x1b)), (11, false));
    assert!(pair.at_server(|t, cx| t.send(&data(9), cx)).is_err());
    assert!(pair.at_client(|t, cx| t.send(&data(9), cx)).is_err());
}

/// Trap 19, russh GHSA-5xvq and RFC 7748 §6.1: key exchange values of the wrong size, zero,
/// or out of range.
#[test]
fn bad_key_exchange_values_end_the_connection_without_a_panic() {
    let mut bad_coefficients = vec![0xff; 1184];
    bad_coefficients.extend([9; 32]);
    let cases: [(Method, Vec<u8>); 17] = [
        (Method::Curve25519, vec![0; 32]),
        (Method::Curve25519, vec![9; 31]),
        (Method::Curve25519, vec![9; 33]),
        (Method::Curve25519, vec![]),
        (Method::Curve25519, [&[1][..], &[0; 31]].concat()),
        // RFC 5656 §4: of the right length and form, and on the curve; the point at infinity
        // has no such form.
        (Method::EcdhP256, vec![0]),
        (Method::EcdhP256, [&[4][..], &[0; 64]].concat()),
        (Method::EcdhP256, [&[4][..], &[9; 64]].concat()),
        (Method::EcdhP256, [&[2][..], &[9; 32]].concat()),
        (Method::EcdhP256, [&[4][..], &[9; 96]].concat()),
        (Method::EcdhP384, [&[4][..], &[9; 96]].concat()),
        (Method::EcdhP384, [&[4][..], &[9; 64]].concat()),
        (Method::EcdhP384, vec![]),
        (Method::MlKem768X25519, vec![9; 1184 + 31]),
        (Method::MlKem768X25519, vec![9; 32]),
        (Method::MlKem768X25519, bad_coefficients),
        (Method::MlKem768X25519, vec![0; 1184 + 32]),
    ];
    for (method, value) in cases {
        let mut random = Seeded(1);
        let answer = crate::ssh::kex::respond(method, &value, &mut random);
        assert!(matches!(answer, Err(Fault::KeyExchange)), "{method:?} {}", value.len());
        let reply = Ephemeral::generate(method, &mut random).unwrap().0.combine(&value);
        assert!(matches!(reply, Err(Fault::KeyExchange)), "{method:?} {}", value.len());
    }
}

#[test]
fn random_bytes_never_panic_and_never_get_past_the_first_exchange() {
    let mut random = Seeded(17);
    for _ in 0..300 {
        let mut pair = Pair::plain(random.next());
        let mut bytes = pair.client.take_output();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        pair.server.inbox = bytes;
        let mut cx = Context { now: pair.now, entropy: &mut pair.random };
        let _ended_or_starved = pair.server.receive(&mut cx);
        assert!(pair.server.transport.session_id().is_none());
    }
}
