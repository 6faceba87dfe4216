//! The mistakes of other transports, by their numbers in the list of traps.

use super::*;
use crate::ssh::cipher::Suite;

/// Sends `payload` behind what `end` has sent, past all that its transport would
/// refuse or hold back.
fn smuggle(end: &mut Peer, payload: &[u8]) {
    let Transport { sealer, out, .. } = &mut end.transport;
    sealer.seal(payload, &mut Seeded(3), out).unwrap();
}

fn ping(len: usize) -> Vec<u8> {
    let mut ping = vec![message::PING];
    ping.put_string(&vec![7; len]);
    ping
}

/// Carries what the client sent to the server, and nothing back.
fn to_server(pair: &mut Pair) -> Result<(), Fault> {
    let bytes = pair.client.take_output();
    pair.server.inbox.extend(bytes);
    let mut cx = Context { now: pair.now, entropy: &mut pair.random };
    pair.server.receive(&mut cx)
}

/// The other way round.
fn to_client(pair: &mut Pair) -> Result<(), Fault> {
    let bytes = pair.server.take_output();
    pair.client.inbox.extend(bytes);
    let mut cx = Context { now: pair.now, entropy: &mut pair.random };
    pair.client.receive(&mut cx)
}

/// wolfSSH CVE-2026-83540.
#[test]
fn trap_4_connections_that_share_a_configuration_and_randomness_do_not_mix() {
    let limits = RekeyLimits::default();
    let server = server_config(1, Algorithms::default(), limits);
    let client = client_config(Algorithms::default(), limits);
    let mut pairs = [40, 41].map(|seed| Pair::new(seed, Arc::clone(&server), Arc::clone(&client)));
    let mut random = Seeded(42);
    // One byte of each connection in turn, all drawing from one source.
    for stage in 0..4 {
        loop {
            let mut moved = false;
            for pair in &mut pairs {
                std::mem::swap(&mut pair.random, &mut random);
                for upward in [true, false] {
                    let (from, to) = if upward {
                        (&mut pair.client, &mut pair.server)
                    } else {
                        (&mut pair.server, &mut pair.client)
                    };
                    let Some(byte) = from.transport.output().first().copied() else { continue };
                    from.transport.sent(1);
                    to.inbox.push(byte);
                    to.receive(&mut Context { now: pair.now, entropy: &mut pair.random }).unwrap();
                    moved = true;
                }
                std::mem::swap(&mut pair.random, &mut random);
            }
            if !moved {
                break;
            }
        }
        for (index, pair) in pairs.iter_mut().enumerate() {
            match stage {
                0 => pair.authenticate(),
                1 => {
                    pair.at_client(|t, cx| t.send(&data(100 + index), cx)).unwrap();
                    pair.at_server(|t, cx| t.send(&data(200 + index), cx)).unwrap();
                    pair.at_client(|t, cx| t.rekey(None, cx)).unwrap();
                }
                _ => {}
            }
        }
    }
    let ids = pairs.each_ref().map(|pair| pair.server.transport.session_id().unwrap().to_vec());
    assert_ne!(ids[0], ids[1]);
    for (index, pair) in pairs.iter().enumerate() {
        assert_eq!(pair.client.transport.session_id(), Some(&*ids[index]));
        assert_eq!(pair.server.payloads, [data(100 + index)]);
        assert_eq!(pair.client.payloads, [data(200 + index)]);
        assert!(pair.server.events.contains(&Event::Rekeyed));
    }
    let [one, other] = &mut pairs;
    one.at_client(|t, cx| t.send(&data(9), cx)).unwrap();
    other.server.inbox = one.client.take_output();
    let mut cx = Context { now: other.now, entropy: &mut other.random };
    assert_eq!(other.server.receive(&mut cx), Err(Fault::Corrupt), "keys of the other connection");
}

/// RFC 4252 §5.1: requests behind the one that was let in are ignored, not answered
/// and not delivered.
#[test]
fn trap_11_requests_after_success_are_ignored() {
    let mut pair = Pair::connected(43);
    let mut request = vec![message::USERAUTH_REQUEST];
    for field in ["bob", "ssh-connection", "none"] {
        request.put_string(field.as_bytes());
    }
    pair.at_client(|t, cx| t.send(&request, cx)).unwrap();
    to_server(&mut pair).unwrap();
    assert!(pair.server.payloads.is_empty());
    assert!(pair.server.transport.output().is_empty());
}

/// AsyncSSH CVE-2023-46446, russh CVE-2026-42189.
#[test]
fn trap_11_authentication_messages_after_success_end_either_end() {
    for number in [
        message::SERVICE_REQUEST,
        message::SERVICE_ACCEPT,
        message::USERAUTH_FAILURE,
        message::USERAUTH_SUCCESS,
        message::USERAUTH_BANNER,
        message::USERAUTH_PK_OK,
        61,
    ] {
        let wanted = Err(Fault::Unexpected { number, during: Stage::Connection });
        let mut pair = Pair::connected(u64::from(number));
        smuggle(&mut pair.client, &[number]);
        assert_eq!(pair.settle(), wanted);
        let mut pair = Pair::connected(u64::from(number));
        smuggle(&mut pair.server, &[number]);
        assert_eq!(pair.settle(), wanted);
    }
}

/// wolfSSH CVE-2026-84897, towards our client: a VM's sshd asks us for a service, a
/// login, a key exchange.
#[test]
fn trap_16_messages_only_a_client_may_send_are_refused_from_a_vm() {
    for number in
        [message::SERVICE_REQUEST, message::USERAUTH_REQUEST, message::KEX_ECDH_INIT, 32, 33, 34]
    {
        let mut pair = Pair::plain(u64::from(number));
        pair.settle().unwrap();
        smuggle(&mut pair.server, &[number]);
        let during = Stage::Authentication;
        assert_eq!(pair.settle(), Err(Fault::Unexpected { number, during }));
        let mut pair = Pair::connected(u64::from(number));
        smuggle(&mut pair.server, &[number]);
        let during = Stage::Connection;
        assert_eq!(pair.settle(), Err(Fault::Unexpected { number, during }));
    }
}

/// JSch sends what stood in its queue after its KEXINIT; sshd takes it, and so do we.
#[test]
fn connection_messages_after_the_peers_kexinit_are_delivered() {
    let mut pair = Pair::connected(44);
    pair.at_client(|t, cx| t.rekey(None, cx)).unwrap();
    smuggle(&mut pair.client, &data(20));
    to_server(&mut pair).unwrap();
    assert_eq!(pair.server.payloads, [data(20)], "before its key exchange value");
    assert!(pair.server.transport.is_held());
    pair.at_server(|t, cx| t.send(&data(21), cx)).unwrap();
    to_client(&mut pair).unwrap();
    smuggle(&mut pair.client, &data(22));
    to_server(&mut pair).unwrap();
    assert_eq!(pair.server.payloads.len(), 2, "and between that and its NEWKEYS");
    pair.settle().unwrap();
    assert_eq!(pair.client.payloads, [data(21)], "the answer was held for the new keys");

    pair.at_server(|t, cx| t.rekey(None, cx)).unwrap();
    smuggle(&mut pair.server, &data(23));
    pair.settle().unwrap();
    assert_eq!(pair.client.payloads, [data(21), data(23)], "the same from a VM");
}

/// x/crypto CVE-2025-22869.
#[test]
fn trap_17_messages_after_the_peers_kexinit_are_bounded_in_number_and_size() {
    let over = Err(Fault::Unexpected { number: message::CHANNEL_DATA, during: Stage::Rekey });
    let large = usize::try_from(PACKET_MAX_EARLY_BYTES).unwrap() - 100;
    let fitting = LATE_BYTES_MAX / large;
    let cases = [
        (9, usize::try_from(LATE_MESSAGES_MAX).unwrap()),
        (large, fitting),
        (LATE_BYTES_MAX / 4, 4),
    ];
    for (len, most) in cases {
        let mut pair = Pair::connected(45);
        for _ in 0..2 {
            pair.server.payloads.clear();
            pair.at_client(|t, cx| t.rekey(None, cx)).unwrap();
            for _ in 0..most {
                smuggle(&mut pair.client, &data(len));
            }
            pair.settle().unwrap();
            assert_eq!(pair.server.payloads.len(), most, "counted anew in every key exchange");
        }
        pair.at_client(|t, cx| t.rekey(None, cx)).unwrap();
        for _ in 0..=most {
            smuggle(&mut pair.client, &data(len));
        }
        assert_eq!(pair.settle(), over, "{len}");
    }
}

/// One leg of a relay may be held while the other one's peer sends late.
#[test]
fn trap_17_all_that_may_come_late_on_one_leg_can_be_held_on_the_other() {
    let mut pair = Pair::connected(46);
    pair.at_server(|t, cx| t.rekey(None, cx)).unwrap();
    pair.at_server(|t, cx| t.send(&ping(32 * 1024), cx)).unwrap();
    let mut late = 0;
    while late < LATE_BYTES_MAX {
        pair.at_server(|t, cx| t.send(&data(LATE_BYTES_MAX / 64), cx)).unwrap();
        late += LATE_BYTES_MAX / 64;
    }
    let full = loop {
        if let Err(fault) = pair.at_server(|t, cx| t.send(&data(1024), cx)) {
            break fault;
        }
    };
    assert_eq!(full, Fault::QueueFull);
    assert!(pair.server.transport.waiting_capacity() < 4 * HELD_MAX_BYTES);
}

#[test]
fn trap_17_pings_while_our_kexinit_is_unanswered_cannot_grow_memory() {
    let mut pair = Pair::connected(47);
    pair.at_server(|t, cx| t.rekey(None, cx)).unwrap();
    let mut pings = 0;
    let ended = loop {
        pair.at_client(|t, cx| t.send(&ping(1000), cx)).unwrap();
        if let Err(fault) = to_server(&mut pair) {
            break fault;
        }
        pings += 1;
        assert!(pair.server.transport.waiting_capacity() < 4 * HELD_MAX_BYTES);
    };
    assert_eq!(ended, Fault::QueueFull);
    assert!(pings * 1000 < HELD_MAX_BYTES, "{pings}");
}

#[test]
fn trap_17_a_peer_that_pings_and_never_reads_is_dropped() {
    let mut pair = Pair::connected(48);
    let ended = loop {
        pair.at_client(|t, cx| t.send(&ping(1000), cx)).unwrap();
        if let Err(fault) = to_server(&mut pair) {
            break fault;
        }
        assert!(pair.server.transport.waiting_capacity() < 3 * OUTPUT_MAX_BYTES);
    };
    assert_eq!(ended, Fault::QueueFull);
}

#[test]
fn trap_17_a_peer_that_pings_and_reads_slowly_cannot_grow_memory() {
    let mut pair = Pair::connected(49);
    let mut pongs = 0;
    for round in 0..8_000 {
        pair.at_client(|t, cx| t.send(&ping(1000), cx)).unwrap();
        to_server(&mut pair).unwrap();
        // The output never empties: 1000 bytes always wait.
        let written = pair.server.transport.output().len().saturating_sub(1000);
        let bytes = pair.server.transport.output()[..written].to_vec();
        pair.server.transport.sent(written);
        pair.client.inbox.extend(bytes);
        let mut cx = Context { now: pair.now, entropy: &mut pair.random };
        pair.client.receive(&mut cx).unwrap();
        pongs += std::mem::take(&mut pair.client.events).len();
        let capacity = pair.server.transport.waiting_capacity();
        assert!(capacity <= 4 * WRITTEN_MIN_BYTES, "{capacity} after {round} pings");
    }
    pair.settle().unwrap();
    pongs += pair.client.events.len();
    assert!(pongs >= 8_000, "every answer arrived whole");
}

/// CVE-2008-5161 and its kin: nobody learns from the answer what was wrong with a packet.
#[test]
fn trap_21_every_false_packet_gets_the_same_disconnect() {
    for cipher in Cipher::ALL {
        let macs = if cipher.is_aead() { &[Mac::Sha256][..] } else { &Mac::ALL };
        for mac in macs {
            let algorithms = Algorithms { macs: vec![*mac], ..with_ciphers(&[cipher]) };
            let suite = Suite::new(cipher, Some(*mac)).unwrap();
            let plain_mac = suite.mac.is_some_and(|mac| !mac.is_etm());
            let (len, tag) = (if plain_mac { 28 } else { 32 }, suite.mac.map_or(16, Mac::key_len));
            // Too little padding, none, more than there is, and all of it: an empty payload.
            let paddings = [3, 0, 255, len - 1].map(Some);
            for padding in paddings.into_iter().chain([None]) {
                let mut pair = pair_with(50, &algorithms);
                pair.settle().unwrap();
                pair.authenticate();
                let mut packet = vec![0, 0, 0, len, padding.unwrap_or(4)];
                packet.resize(4 + usize::from(len) + tag, message::IGNORE);
                assert!(pair.client.transport.sealer.reseal(&mut packet).unwrap());
                if padding.is_none() {
                    *packet.last_mut().unwrap() ^= 1;
                }
                // A false packet under a plain MAC is refused only when the largest
                // one would be there.
                packet.resize(packet.len() + usize::try_from(PACKET_MAX_BYTES).unwrap(), 0);
                pair.server.inbox = packet;
                let mut cx = Context { now: pair.now, entropy: &mut pair.random };
                assert_eq!(pair.server.receive(&mut cx), Err(Fault::Corrupt), "{suite:?}");
                assert_eq!(to_client(&mut pair), Err(Fault::Disconnected { reason: 5 }));
                let told = pair.client.transport.farewell();
                assert_eq!(told, Some((5, &b"corrupt packet"[..])), "{suite:?} {padding:?}");
            }
        }
    }
}

#[test]
fn trap_22_key_exchanges_before_authentication_are_bounded() {
    for server_side in [true, false] {
        let mut pair = Pair::plain(51);
        pair.settle().unwrap();
        let rekey = |pair: &mut Pair| {
            let started = if server_side {
                pair.at_server(|t, cx| t.rekey(None, cx))
            } else {
                pair.at_client(|t, cx| t.rekey(None, cx))
            };
            started.and_then(|()| pair.settle())
        };
        for _ in 0..EARLY_EXCHANGES_MAX {
            rekey(&mut pair).unwrap();
        }
        assert_eq!(rekey(&mut pair), Err(Fault::Flood));
    }
}

/// A server that prefers curve25519, after a client's KEXINIT that says a guess
/// follows, and `packets`.
fn guess(methods: &str, packets: &[&[u8]]) -> (Pair, Result<(), Fault>) {
    let algorithms = Algorithms { methods: vec![Method::Curve25519], ..Algorithms::default() };
    let mut pair = pair_with(52, &algorithms);
    let mut kexinit = vec![message::KEXINIT];
    kexinit.put_bytes(&[7; 16]);
    let gcm = "aes128-gcm@openssh.com";
    for list in [methods, "ssh-ed25519", gcm, gcm, "", "", "none", "none", "", ""] {
        kexinit.put_string(list.as_bytes());
    }
    kexinit.put_bool(true);
    kexinit.put_u32(0);
    let mut stream = b"SSH-2.0-guesser\r\n".to_vec();
    let mut sealer = Sealer::plain();
    for payload in std::iter::once(&kexinit[..]).chain(packets.iter().copied()) {
        sealer.seal(payload, &mut pair.random, &mut stream).unwrap();
    }
    pair.server.inbox = stream;
    let mut cx = Context { now: pair.now, entropy: &mut pair.random };
    let outcome = pair.server.receive(&mut cx);
    (pair, outcome)
}

fn is_answered(pair: &Pair) -> bool {
    !pair.server.transport.host_key().is_empty()
}

#[test]
fn trap_22_exactly_one_packet_behind_a_wrong_guess_is_dropped() {
    let mut wrong = vec![30];
    wrong.put_mpint(&[0x42; 256]);
    let mut init = vec![message::KEX_ECDH_INIT];
    init.put_string(&[9; 32]);
    let again = Err(Fault::Unexpected { number: 30, during: Stage::FirstExchange });
    for strict in ["", ",kex-strict-c-v00@openssh.com"] {
        let methods = format!("diffie-hellman-group14-sha256,curve25519-sha256{strict}");
        let (pair, outcome) = guess(&methods, &[&wrong]);
        assert_eq!((outcome, is_answered(&pair)), (Ok(()), false));
        let (pair, outcome) = guess(&methods, &[&wrong, &init]);
        assert_eq!((outcome, is_answered(&pair)), (Ok(()), true));
        let (pair, outcome) = guess(&methods, &[&init]);
        assert_eq!((outcome, is_answered(&pair)), (Ok(()), false), "even if it would have done");
        let (pair, outcome) = guess(&methods, &[&wrong, &wrong]);
        assert_eq!((outcome, is_answered(&pair)), (Err(Fault::KeyExchange), false));
        assert_eq!(guess(&methods, &[&wrong, &init, &init]).1, again);
    }
}

#[test]
fn trap_22_a_right_guess_is_taken() {
    let mut init = vec![message::KEX_ECDH_INIT];
    init.put_string(&[9; 32]);
    for methods in ["curve25519-sha256", "curve25519-sha256,kex-strict-c-v00@openssh.com"] {
        let (pair, outcome) = guess(methods, &[&init]);
        assert_eq!((outcome, is_answered(&pair)), (Ok(()), true));
        let again = Err(Fault::Unexpected { number: 30, during: Stage::FirstExchange });
        assert_eq!(guess(methods, &[&init, &init]).1, again);
    }
}

/// CVE-2023-48795: a guess is no licence for anything else.
#[test]
fn trap_22_under_strict_kex_only_a_key_exchange_packet_is_a_guess() {
    let methods = "diffie-hellman-group14-sha256,curve25519-sha256,kex-strict-c-v00@openssh.com";
    for number in (0..=255).filter(|number| !(30..=49).contains(number)) {
        let ended = guess(methods, &[&[number, 0, 0, 0, 0, 0, 0, 0, 0]]).1;
        assert!(ended.is_err(), "{number}");
    }
}
