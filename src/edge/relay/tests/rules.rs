//! Tests of what a relay does not carry as it is, and of how sessions end.

use std::net::Shutdown as Close;

use super::*;
use crate::ssh::message::UNIMPLEMENTED;
use crate::ssh::transport::{Context, Transport};
use crate::ssh::wire::{Put, Reader};

fn request(name: &str, wants_reply: bool, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![GLOBAL_REQUEST];
    message.put_string(name.as_bytes());
    message.put_bool(wants_reply);
    message.put_bytes(rest);
    message
}

/// Trap 23.
#[test]
fn the_vms_host_keys_are_not_told_and_ours_are() {
    let mut world = World::new(19);
    world.send(Party::Vm, &request("hostkeys-00@openssh.com", false, b"\0\0\0\x04keys"));
    world.send(Party::Vm, &request("keepalive@openssh.com", true, b""));
    world.settle();
    assert_eq!(world.to_client(), [request("keepalive@openssh.com", true, b"")]);
}

/// Trap 24: a request of the VM that we swallow is answered in its place.
#[test]
fn host_keys_that_want_a_reply_get_a_refusal_in_their_turn() {
    let mut world = World::new(20);
    world.send(Party::Vm, &request("keepalive@openssh.com", true, b""));
    world.send(Party::Vm, &request("hostkeys-00@openssh.com", true, b""));
    world.settle();
    assert!(world.to_vm().is_empty());
    world.send(Party::Client, &[REQUEST_SUCCESS, 7]);
    world.settle();
    assert_eq!(world.to_vm(), [vec![REQUEST_SUCCESS, 7], vec![REQUEST_FAILURE]]);
}

/// Traps 23 and 24.
#[test]
fn a_proof_of_our_host_keys_is_given_once_and_after_earlier_replies() {
    let mut world = World::new(21);
    world.settle();
    let key = world.relay.server.host_keys()[0].key.public().clone();
    let mut asked = Vec::new();
    asked.put_string(key.blob());
    let prove = request("hostkeys-prove-00@openssh.com", true, &asked);
    world.send(Party::Client, &request("tcpip-forward", true, b""));
    world.send(Party::Client, &prove);
    world.send(Party::Client, &request("keepalive@openssh.com", true, b""));
    world.send(Party::Client, &prove);
    world.settle();
    assert_eq!(world.to_vm().len(), 2, "only what is not ours is relayed");
    assert!(world.to_client().is_empty());
    world.send(Party::Vm, &[REQUEST_SUCCESS, 0, 0, 0, 22]);
    world.settle();
    let [first, proof] = world.to_client() else { panic!("{:?}", world.to_client()) };
    assert_eq!(first, &[REQUEST_SUCCESS, 0, 0, 0, 22]);
    let mut reader = Reader::new(proof);
    assert_eq!(reader.u8(), Ok(REQUEST_SUCCESS));
    let signature = reader.string().unwrap();
    reader.end().unwrap();
    let mut signed = Vec::new();
    signed.put_string(b"hostkeys-prove-00@openssh.com");
    signed.put_string(world.client.end.transport.session_id().unwrap());
    signed.put_string(key.blob());
    let algorithm = world.relay.server.host_keys()[0].key.algorithms()[0];
    key.verify(algorithm, &signed, signature).unwrap();
    world.send(Party::Vm, &[REQUEST_FAILURE]);
    world.settle();
    assert_eq!(world.to_client()[2..], [vec![REQUEST_FAILURE], vec![REQUEST_FAILURE]]);
}

#[test]
fn a_key_that_is_not_ours_is_not_proved() {
    for rest in [&b""[..], b"\0\0\0\x03key", b"\0\0\0\x09key"] {
        let mut world = World::new(22);
        world.send(Party::Client, &request("hostkeys-prove-00@openssh.com", true, rest));
        world.settle();
        assert_eq!(world.to_client(), [vec![REQUEST_FAILURE]]);
        assert!(world.to_vm().is_empty());
    }
}

/// Trap 25.
#[test]
fn messages_of_one_leg_stay_there() {
    let mut world = World::new(23);
    let mut ping = vec![message::PING];
    ping.put_string(b"x");
    for party in EACH {
        world.send(party, &[message::IGNORE, 0, 0, 0, 0]);
        world.send(party, &ping);
        world.send(party, &[CHANNEL_DATA, 1]);
        world.send(party, &[message::EXT_INFO, 0, 0, 0, 0]);
        world.send(party, &[message::DEBUG, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        world.send(party, &[CHANNEL_DATA, 2]);
    }
    world.settle();
    assert_eq!(world.to_vm(), [vec![CHANNEL_DATA, 1], vec![CHANNEL_DATA, 2]]);
    assert_eq!(world.to_client(), [vec![CHANNEL_DATA, 1], vec![CHANNEL_DATA, 2]]);
}

/// Trap 20: UNIMPLEMENTED names the packet by the number of the leg it is sent on.
#[test]
fn unimplemented_reaches_the_sender_with_the_senders_number() {
    let mut world = World::new(24);
    world.settle();
    let mut ping = vec![message::PING];
    ping.put_string(b"x");
    world.send(Party::Client, &ping);
    world.send(Party::Client, &ping);
    let number = world.client.end.transport.send_seq();
    world.send(Party::Client, &[125]);
    world.settle();
    assert_eq!(world.to_vm(), [vec![125]]);
    let mut answer = vec![UNIMPLEMENTED];
    answer.put_u32(world.vm.end.transport.receive_seq().wrapping_sub(1));
    world.send(Party::Vm, &answer);
    world.settle();
    assert!(world.client.end.events.contains(&Event::Unimplemented(number)));
}

/// Trap 24: a peer that does not know a request sends no reply, and the next one would answer
/// the wrong request.
#[test]
fn unimplemented_answers_a_request_as_a_failure_would_and_once() {
    for party in EACH {
        let mut world = World::new(34);
        world.settle();
        for _ in 0..2 {
            world.send(party, &request("nobody@knows.test", true, b""));
        }
        world.settle();
        let other = party.other();
        let last = world.peer(other).end.transport.receive_seq().wrapping_sub(1);
        let mut answer = vec![UNIMPLEMENTED];
        answer.put_u32(last.wrapping_sub(1));
        world.send(other, &answer);
        world.send(other, &[REQUEST_SUCCESS, 7]);
        world.settle();
        let replies = |world: &World| {
            let all = if party == Party::Client { world.to_client() } else { world.to_vm() };
            let is_reply =
                |payload: &&Vec<u8>| [REQUEST_SUCCESS, REQUEST_FAILURE].contains(&payload[0]);
            all.iter().filter(is_reply).cloned().collect::<Vec<_>>()
        };
        let two = [vec![REQUEST_FAILURE], vec![REQUEST_SUCCESS, 7]];
        assert_eq!(replies(&world), two, "{party:?}");
        let (from, _) = world.relay.lines(party);
        assert!(from.replies.owes_none());
        // The same again is about a packet like any other.
        world.send(other, &answer);
        world.settle();
        assert_eq!(replies(&world), two, "{party:?}");
    }
}

#[test]
fn what_is_not_for_the_other_side_does_not_keep_a_half_closed_session() {
    for (payload, stays) in [(vec![200, 1, 2, 3], false), (vec![CHANNEL_DATA, 1], true)] {
        let mut world = World::new(35);
        world.settle();
        world.client.socket.as_ref().unwrap().shutdown(Close::Write).unwrap();
        world.settle();
        world.send(Party::Vm, &payload);
        world.settle();
        assert_eq!(world.over, None);
        world.later(HALF_CLOSED_MS_MAX);
        assert_eq!(world.over.is_none(), stays, "{payload:?}");
    }
}

#[test]
fn the_last_words_of_a_peer_are_kept_for_the_log() {
    for party in EACH {
        let mut world = World::new(36);
        world.settle();
        world.disconnect(party, "too old\n\u{1b}[2J");
        world.settle();
        let Some(Detail::Said(words)) = world.relay.detail() else { panic!("nothing was said") };
        assert!(words.starts_with("too old"), "{words}");
        assert!(words.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{words}");
    }
}

#[test]
fn unimplemented_about_a_packet_of_ours_goes_no_further() {
    let mut world = World::new(25);
    world.settle();
    // Our host keys were the last packet the client got.
    let mut answer = vec![UNIMPLEMENTED];
    answer.put_u32(world.client.end.transport.receive_seq().wrapping_sub(1));
    world.send(Party::Client, &answer);
    world.settle();
    let is_unimplemented = |event: &Event| matches!(event, Event::Unimplemented(_));
    assert!(!world.vm.end.events.iter().any(is_unimplemented));
    assert_eq!(world.over, None);
}

#[test]
fn a_goodbye_is_passed_on_behind_the_data_and_ends_the_session() {
    for party in EACH {
        let mut world = World::new(26);
        world.settle();
        let messages = much(&mut Seeded(27), 700_000);
        for message in &messages {
            world.send(party, message);
        }
        world.disconnect(party, "that was all");
        world.settle();
        let arrived = if party == Party::Client { world.to_vm() } else { world.to_client() };
        assert!(arrived == messages);
        let other = world.peer(party.other());
        assert_eq!(other.fault, Some(Fault::Disconnected { reason: 12 }));
        assert_eq!(other.end.transport.farewell(), Some((12, &b"that was all"[..])));
        assert!(other.has_read_end);
        assert_eq!(world.over, None, "the peers have not closed yet");
        for party in EACH {
            world.peer(party).socket = None;
        }
        world.settle();
        assert_eq!(world.over, Some(session(party.side(), Cause::Closed)));
        assert_eq!(world.held(), 0);
    }
}

#[test]
fn a_session_that_is_over_waits_two_seconds_for_its_peers() {
    let mut world = World::new(28);
    world.settle();
    world.disconnect(Party::Client, "bye");
    world.settle();
    assert_eq!(world.over, None);
    world.later(LINGER_MS_MAX - 1);
    assert_eq!(world.over, None);
    world.later(1);
    assert_eq!(world.over, Some(session(Side::Client, Cause::Closed)));
}

#[test]
fn a_peer_that_never_reads_does_not_hold_a_session_that_is_over() {
    let mut world = World::new(29);
    world.settle();
    world.vm.is_deaf = true;
    for message in much(&mut Seeded(30), 250_000) {
        world.send(Party::Client, &message);
    }
    world.settle();
    world.relay.evict(Cause::Drained, "going down", &mut world.tools);
    world.settle();
    assert_eq!(world.over, None);
    world.later(LINGER_MS_MAX);
    assert_eq!(world.over, Some(session(Side::Operator, Cause::Drained)));
}

#[test]
fn a_half_close_passes_behind_the_data_and_the_other_direction_goes_on() {
    for party in EACH {
        let mut world = World::new(31);
        world.settle();
        let mut random = Seeded(32);
        let (to, back) = (much(&mut random, 400_000), much(&mut random, 400_000));
        for message in &to {
            world.send(party, message);
        }
        let mut again = true;
        // All of it and the FIN lie in the socket before we read the end of it.
        loop {
            let mut cx = Context { now: world.tools.now, entropy: &mut world.random };
            let peer = match party {
                Party::Client => &mut world.client,
                Party::Vm => &mut world.vm,
            };
            if peer.end.transport.output().is_empty() {
                peer.socket.as_ref().unwrap().shutdown(Close::Write).unwrap();
                break;
            }
            if !peer.work(&mut cx) {
                world.turn(&mut again);
                let mut cx = Context { now: world.tools.now, entropy: &mut world.random };
                world.client.work(&mut cx);
                world.vm.work(&mut cx);
            }
        }
        world.settle();
        assert!(world.peer(party.other()).has_read_end);
        assert!(!world.peer(party).has_read_end);
        for message in &back {
            world.send(party.other(), message);
        }
        world.settle();
        let (up, down) = if party == Party::Client { (&to, &back) } else { (&back, &to) };
        assert!(world.to_vm() == up);
        assert!(world.to_client() == down);
        assert_eq!(world.over, None);
        let socket = world.peer(party.other()).socket.as_ref().unwrap();
        socket.shutdown(Close::Write).unwrap();
        world.settle();
        assert_eq!(world.over, Some(session(party.side(), Cause::Closed)));
        assert!(world.peer(party).has_read_end);
    }
}

/// Our FIN in the middle of a key exchange would leave the direction that goes on without keys.
#[test]
fn a_half_close_lets_a_key_exchange_complete_first() {
    let mut world = World::new(60);
    world.settle();
    world.client.socket.as_ref().unwrap().shutdown(Close::Write).unwrap();
    world.rekey(Party::Vm);
    world.settle();
    assert!(world.vm.has_read_end);
    assert_eq!(world.vm.rekeys(), 1);
    world.send(Party::Vm, &[CHANNEL_DATA, 1]);
    world.settle();
    assert_eq!(world.to_client(), [[CHANNEL_DATA, 1]]);
}

/// A send may be the first to notice; what to call it is still for the reading side to say.
#[test]
fn a_send_that_fails_finds_out_why() {
    let mut world = World::new(61);
    world.settle();
    world.vm.is_deaf = true;
    world.send(Party::Client, &[CHANNEL_DATA, 1]);
    world.settle();
    world.vm.socket = None;
    world.send(Party::Client, &[CHANNEL_DATA, 2]);
    let mut cx = Context { now: world.tools.now, entropy: &mut world.random };
    world.client.work(&mut cx);
    let readable = Readiness { readable: true, writable: true, hangup: false };
    world.relay.ready(Party::Client, readable);
    world.relay.turn(&mut world.tools);
    let Phase::Closing { ended, .. } = world.relay.phase else { panic!() };
    assert_eq!(ended, session(Side::Vm, Cause::Reset));
}

#[test]
fn half_a_session_may_not_stay_without_moving_a_byte() {
    let mut world = World::new(33);
    world.settle();
    world.client.socket.as_ref().unwrap().shutdown(Close::Write).unwrap();
    world.settle();
    for _ in 0..3 {
        world.later(HALF_CLOSED_MS_MAX - 1);
        let payload = data(&mut Seeded(34), 5);
        world.send(Party::Vm, &payload);
        world.settle();
        world.later(1);
        assert_eq!(world.over, None);
    }
    world.later(HALF_CLOSED_MS_MAX);
    assert_eq!(world.over, Some(session(Side::Client, Cause::Closed)));
}

#[test]
fn a_peer_that_vanishes_ends_the_session_and_the_other_one_is_told() {
    for party in EACH {
        let mut world = World::new(35);
        world.settle();
        // Unread bytes make its close a reset.
        world.peer(party).is_deaf = true;
        let payload = data(&mut Seeded(36), 50);
        world.send(party.other(), &payload);
        world.settle();
        world.peer(party).socket = None;
        world.send(party.other(), &payload);
        world.settle();
        let other = world.peer(party.other());
        assert_eq!(other.fault, Some(Fault::Disconnected { reason: 10 }));
        other.socket = None;
        world.settle();
        assert_eq!(world.over, Some(session(party.side(), Cause::Reset)));
    }
}

#[test]
fn a_corrupt_packet_ends_the_session_and_both_sides_are_told() {
    for party in EACH {
        let mut world = World::new(37);
        world.settle();
        let payload = data(&mut Seeded(38), 50);
        world.send(party, &payload);
        let mut bytes = world.peer(party).end.take_output();
        *bytes.last_mut().unwrap() ^= 1;
        world.peer(party).socket.as_mut().unwrap().write_all(&bytes).unwrap();
        world.settle();
        let reasons = EACH.map(|party| world.peer(party).fault);
        let (mac, lost) = (Fault::Disconnected { reason: 5 }, Fault::Disconnected { reason: 10 });
        let expected = if party == Party::Client { [mac, lost] } else { [lost, mac] };
        assert_eq!(reasons, expected.map(Some));
        assert!(world.to_vm().is_empty() && world.to_client().is_empty());
        for party in EACH {
            world.peer(party).socket = None;
        }
        world.settle();
        assert_eq!(world.over, Some(session(party.side(), Cause::Corrupt)));
    }
}

#[test]
fn an_evicted_user_reads_why() {
    let mut world = World::new(39);
    world.settle();
    world.relay.evict(Cause::RightLost, "no longer yours", &mut world.tools);
    world.settle();
    let farewell = world.client.end.transport.farewell().unwrap();
    assert_eq!(farewell, (11, &b"no longer yours"[..]));
    assert_eq!(world.vm.fault, Some(Fault::Disconnected { reason: 11 }));
    for party in EACH {
        world.peer(party).socket = None;
    }
    world.settle();
    assert_eq!(world.over, Some(session(Side::Operator, Cause::RightLost)));
}

/// A client that takes chacha20 first and would do AES-GCM as well.
fn prefers_chacha(seed: u64, gcm: bool, prefer_gcm: PreferGcm) -> World {
    let ciphers = [Cipher::Chacha20Poly1305, Cipher::Aes256Gcm];
    let list = &ciphers[..if gcm { 2 } else { 1 }];
    let algorithms = Algorithms {
        methods: vec![Method::Curve25519],
        ciphers: list.to_vec(),
        macs: vec![Mac::Sha256],
    };
    let front = Made { algorithms, limits: never() };
    let mut world = World::with(seed, front, Made::default());
    world.tools.prefer_gcm = prefer_gcm;
    world
}

#[test]
fn a_bulky_chacha20_client_that_has_aes_gcm_is_re_keyed_to_it_once() {
    for (gcm, prefer_gcm, changes) in [
        (true, PreferGcm::Bulk, true),
        (true, PreferGcm::Never, false),
        (false, PreferGcm::Bulk, false),
    ] {
        let mut world = prefers_chacha(40, gcm, prefer_gcm);
        world.settle();
        let mut random = Seeded(41);
        let mut sent = Vec::new();
        for round in 0..12 {
            for message in much(&mut random, 500_000) {
                world.send(Party::Vm, &message);
                sent.push(message);
            }
            world.settle();
            let chacha = Some(Cipher::Chacha20Poly1305);
            let is_chacha = world.client.end.transport.receive_cipher() == chacha;
            assert_eq!(is_chacha, !changes || round < 8, "round {round}");
        }
        assert_eq!(world.client.rekeys(), usize::from(changes));
        assert!(world.to_client() == sent);
    }
}

#[test]
fn a_client_that_floods_us_with_pings_and_reads_nothing_is_ended() {
    let mut world = World::new(42);
    world.settle();
    world.client.is_deaf = true;
    let mut ping = vec![message::PING];
    ping.put_string(&vec![0; 20_000]);
    for _ in 0..200 {
        world.send(Party::Client, &ping);
        world.settle();
        if world.relay.phase != Phase::Open {
            break;
        }
    }
    world.later(LINGER_MS_MAX);
    assert_eq!(world.over.map(|ended| ended.side), Some(Side::Client));
    assert_eq!(world.vm.fault, Some(Fault::Disconnected { reason: 10 }));
}

/// Trap 62: what is thrown away needs no room, and takes no more reads than it must. A run for a VM
/// that reads nothing waits meanwhile.
#[test]
fn a_flood_into_a_session_that_is_over_is_thrown_away_in_large_pieces() {
    let mut world = World::new(44);
    world.settle();
    world.vm.is_deaf = true;
    for message in much(&mut Seeded(45), 900_000) {
        world.send(Party::Client, &message);
    }
    world.settle();
    assert!(!world.relay.client.inbox.run().is_empty(), "nothing waits for the VM");
    world.relay.evict(Cause::Killed, "over", &mut world.tools);
    let held = world.held();
    let (mut left, mut turns, mut again) = (4 << 20, 0, true);
    while left > 0 {
        let piece = vec![0; (64 << 10).min(left)];
        match world.client.socket.as_mut().unwrap().write(&piece) {
            Ok(count) => left -= count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        turns += u32::from(world.turn(&mut again));
        assert!(world.held() <= held, "{} of {held}", world.held());
        assert!(turns < 1_000, "{left} of the flood are left");
    }
    assert!(!world.relay.client.inbox.run().is_empty());
    world.vm.is_deaf = false;
    world.settle();
    assert!(world.vm.fault.is_some(), "the last words came behind the run");
}

/// The figure of the idle session is made of these.
#[test]
fn a_session_without_its_transports_is_small() {
    let size = size_of::<Relay>();
    eprintln!("Relay: {size} bytes, Transport: {} bytes", size_of::<Transport>());
    assert!(size <= 1_024, "{size}");
}

/// A channel's opening, or its confirmation, that announces `size`.
fn announces(number: u8, size: u32) -> Vec<u8> {
    let mut message = vec![number];
    if number == CHANNEL_OPEN {
        message.put_string(b"session");
    } else {
        message.put_u32(3);
    }
    for number in [7, 1 << 21, size] {
        message.put_u32(number);
    }
    message
}

/// Trap 64: what is announced is what is carried.
#[test]
fn no_peer_is_told_of_larger_packets_than_we_carry() {
    let mut world = World::new(43);
    world.settle();
    let carried = crate::ssh::transport::DATA_MAX_BYTES;
    for number in [CHANNEL_OPEN, CHANNEL_OPEN_CONFIRMATION] {
        for party in EACH {
            world.send(party, &announces(number, u32::MAX));
            world.send(party, &announces(number, 1000));
        }
    }
    world.settle();
    let passed = [CHANNEL_OPEN, CHANNEL_OPEN_CONFIRMATION]
        .map(|number| [announces(number, carried), announces(number, 1000)]);
    assert_eq!(world.to_vm(), passed.as_flattened());
    assert_eq!(world.to_client(), passed.as_flattened());
}

/// Trap 68.
#[test]
fn what_the_vm_said_before_the_login_is_shown_on_the_first_terminal_and_windows_stay_true() {
    let mut world = World::new(44);
    world.relay.banner = Banner::new("Back at noon.\n");
    let shown = b"Back at noon.\r\n";
    let text_len = u32::try_from(shown.len()).unwrap();
    world.send(Party::Client, &announces(CHANNEL_OPEN, 32_768));
    world.settle();
    let mut opened = announces(CHANNEL_OPEN, 32_768);
    let at = opened.len() - 8;
    opened[at..at + 4].copy_from_slice(&((1 << 21) - text_len).to_be_bytes());
    assert_eq!(world.to_vm(), [opened.clone()]);
    // The VM takes the client's number 7 for its own 5.
    let mut confirmation = vec![CHANNEL_OPEN_CONFIRMATION];
    for number in [7, 5, 1 << 21, 32_768] {
        confirmation.put_u32(number);
    }
    world.send(Party::Vm, &confirmation);
    world.settle();
    let mut terminal = vec![CHANNEL_REQUEST];
    terminal.put_u32(5);
    terminal.put_string(b"pty-req");
    terminal.put_bool(true);
    world.send(Party::Client, &terminal);
    world.send(Party::Client, &terminal);
    world.settle();
    let mut told = vec![message::CHANNEL_EXTENDED_DATA];
    told.put_u32(7);
    told.put_u32(1);
    told.put_string(shown);
    assert_eq!(world.to_client(), [confirmation, told], "once");
    assert_eq!(world.to_vm(), [opened, terminal.clone(), terminal]);
}
