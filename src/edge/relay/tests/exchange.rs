//! Tests of key exchanges beside the data of a session (trap 22).

use std::net::Shutdown as Close;

use super::*;

/// Trap 22: any mixture of key exchanges, started by the two peers and by us on both legs,
/// with data in flight.
#[test]
fn key_exchanges_from_all_sides_at_once_complete_and_lose_nothing() {
    for case in 0..16_u64 {
        for fragments in [false, true] {
            let seed = 1_000 + case * 2 + u64::from(fragments);
            let limits = |bit: u64| RekeyLimits {
                age_ms: if case & bit == 0 { u64::MAX } else { 60_000 },
                ..never()
            };
            let made = |bit| Made { limits: limits(bit), ..Made::default() };
            let mut world = World::with(seed, made(1), made(2));
            world.settle();
            let mut random = Seeded(seed);
            let mut sent = EACH.map(|_| Vec::new());
            let speak = |world: &mut World, random: &mut Seeded, sent: &mut [Vec<_>; 2]| {
                for (party, sent) in EACH.into_iter().zip(sent) {
                    if world.peer(party).end.transport.is_held() {
                        continue;
                    }
                    for message in much(random, 100_000) {
                        world.send(party, &message);
                        sent.push(message);
                    }
                    if fragments {
                        world.peer(party).piece = 1 + random.below(9_000);
                    }
                }
            };
            speak(&mut world, &mut random, &mut sent);
            world.tools.now.0 += 60_000;
            if case & 4 != 0 {
                world.rekey(Party::Client);
            }
            if case & 8 != 0 {
                world.rekey(Party::Vm);
            }
            speak(&mut world, &mut random, &mut sent);
            world.settle();
            speak(&mut world, &mut random, &mut sent);
            world.settle();
            assert_eq!(world.over, None, "case {case}");
            assert!(world.to_vm() == sent[0], "case {case}");
            assert!(world.to_client() == sent[1], "case {case}");
            let (front, back) = (case & 0b0101 != 0, case & 0b1010 != 0);
            assert_eq!(world.client.rekeys() > 0, front, "case {case}");
            assert_eq!(world.vm.rekeys() > 0, back, "case {case}");
            assert_eq!(world.relay.client.exchange, Exchange::None);
            assert_eq!(world.relay.vm.exchange, Exchange::None);
        }
    }
}

#[test]
fn a_peer_that_never_answers_our_key_exchange_is_ended_after_a_long_wait() {
    let made = Made { limits: RekeyLimits { age_ms: 60_000, ..never() }, ..Made::default() };
    let mut world = World::with(77, made, Made::default());
    world.settle();
    world.tools.now.0 += 60_000;
    world.send(Party::Client, &[CHANNEL_DATA]);
    world.client.work(&mut Context { now: world.tools.now, entropy: &mut world.random });
    // Our KEXINIT goes out; nobody runs the client any more.
    world.turn(&mut false);
    for _ in 0..rekey::EXCHANGE_MS_MAX / 60_000 {
        assert_eq!(world.relay.look(&mut world.tools), Turn::Wait);
        world.tools.now.0 += 60_000;
    }
    world.relay.look(&mut world.tools);
    let Phase::Closing { ended, .. } = world.relay.phase else { panic!("still open") };
    assert_eq!(ended, session(Side::Client, Cause::Deadline));
}

/// What the other one has to say nobody would ever take.
#[test]
fn a_peer_that_leaves_in_the_middle_of_a_key_exchange_leaves_nobody_waiting() {
    for party in EACH {
        let mut world = World::new(78);
        world.settle();
        world.rekey(party);
        let mut cx = Context { now: world.tools.now, entropy: &mut world.random };
        let peer = match party {
            Party::Client => &mut world.client,
            Party::Vm => &mut world.vm,
        };
        peer.work(&mut cx);
        peer.is_deaf = true;
        peer.socket.as_ref().unwrap().shutdown(Close::Write).unwrap();
        world.settle();
        assert!(world.peer(party.other()).has_read_end);
        world.later(LINGER_MS_MAX);
        assert_eq!(world.over, Some(session(party.side(), Cause::Closed)));
    }
}

/// A client stopped with `~^Z`, or out of reach, could only miss the deadline of an exchange.
#[test]
fn keys_that_grow_old_while_their_peer_is_silent_are_changed_when_it_is_heard() {
    for party in EACH {
        let limits = RekeyLimits { age_ms: 60_000, ..never() };
        let old = Made { limits, ..Made::default() };
        let (front, back) = match party {
            Party::Client => (old, Made::default()),
            Party::Vm => (Made::default(), old),
        };
        let mut world = World::with(78, front, back);
        world.settle();
        world.peer(party).is_deaf = true;
        for minute in 0..75 {
            world.tools.now.0 += 60_000;
            assert_eq!(world.relay.look(&mut world.tools), Turn::Wait);
            world.send(party.other(), &[CHANNEL_DATA, minute]);
            world.settle();
        }
        assert_eq!(world.over, None, "{party:?}");
        assert!(!world.relay.line(party).transport.is_exchanging(), "{party:?}");
        world.peer(party).is_deaf = false;
        world.settle();
        assert_eq!(world.peer(party).rekeys(), 0);
        world.send(party, &[CHANNEL_DATA, 100]);
        world.settle();
        assert_eq!(world.peer(party).rekeys(), 1);
        let heard = if party == Party::Client { world.to_client() } else { world.to_vm() };
        assert_eq!(heard.len(), 75);
    }
}

/// Trap 22: the peer's KEXINIT stands behind data that the other leg cannot take yet.
#[test]
fn a_key_exchange_behind_data_that_nobody_takes_completes_once_it_is_taken() {
    for party in EACH {
        let mut world = World::new(13);
        world.settle();
        let mut random = Seeded(14);
        world.peer(party.other()).is_deaf = true;
        let messages = much(&mut random, 900_000);
        for message in &messages {
            world.send(party, message);
        }
        world.rekey(party);
        world.settle();
        assert_eq!(world.peer(party).rekeys(), 0);
        world.peer(party.other()).is_deaf = false;
        world.settle();
        assert_eq!(world.peer(party).rekeys(), 1);
        let arrived = if party == Party::Client { world.to_vm() } else { world.to_client() };
        assert!(arrived == messages);
    }
}

/// The packets of a peer's own key exchange need nothing of the other leg, so they do
/// not wait for it.
#[test]
fn a_peers_key_exchange_completes_while_the_other_leg_is_full() {
    for party in EACH {
        let mut world = World::new(15);
        world.settle();
        world.rekey(party);
        world.settle();
        assert_eq!(world.peer(party).rekeys(), 1);
        let mut random = Seeded(16);
        // Its KEXINIT is through; only then the other leg fills up behind it.
        world.rekey(party);
        let mut kexinit = world.peer(party).end.take_output();
        let line = match party {
            Party::Client => &mut world.relay.client,
            Party::Vm => &mut world.relay.vm,
        };
        let cx = &mut world.tools.context();
        let received = line.transport.receive(&mut kexinit, cx).unwrap();
        assert_eq!(received.event, Event::Handled);
        line.exchange = Exchange::Peers;
        match party {
            Party::Client => world.relay.vm.writing = Writing::Full,
            Party::Vm => world.relay.client.writing = Writing::Full,
        }
        world.settle();
        assert_eq!(world.peer(party).rekeys(), 2);
        let payload = data(&mut random, 10);
        world.send(party, &payload);
        world.settle();
        let last = match party {
            Party::Client => world.to_vm().last(),
            Party::Vm => world.to_client().last(),
        };
        assert_ne!(last, Some(&payload), "opened for a leg that is full");
    }
}

#[test]
fn we_start_no_key_exchange_while_one_runs_on_the_other_leg() {
    let made = Made { limits: RekeyLimits { age_ms: 60_000, ..never() }, ..Made::default() };
    let mut world = World::with(17, made.clone(), made);
    world.settle();
    world.client.is_deaf = true;
    world.tools.now.0 += 60_000;
    let payload = data(&mut Seeded(18), 10);
    for party in EACH {
        world.send(party, &payload);
    }
    world.settle();
    assert_eq!(world.relay.client.exchange, Exchange::Ours);
    assert_eq!(world.vm.rekeys(), 0);
    world.client.is_deaf = false;
    world.settle();
    assert_eq!((world.client.rekeys(), world.vm.rekeys()), (1, 1));
    assert_eq!(world.tools.tally.rekeys, 2);
}
