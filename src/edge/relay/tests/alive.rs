//! Tests of `alive`: a client that says nothing is asked, and given up after as many
//! questions as configured.

use super::*;
use crate::ssh::message::UNIMPLEMENTED;
use crate::ssh::wire::Put as _;

const INTERVAL_MS: u64 = 300_000;

fn minded(seed: u64, interval: Duration, count_max: u32) -> World {
    let mut world = World::joined(seed, Made::default(), Made::default());
    world.tools.client_alive = ClientAlive { interval, count_max };
    world.relay.begin(&mut world.tools);
    world.settle();
    world
}

/// As configured when nothing is.
fn usual(seed: u64) -> World {
    minded(seed, Duration::from_millis(INTERVAL_MS), 12)
}

fn questions(world: &World) -> usize {
    let question = requests::keep_alive();
    world.client.end.payloads.iter().filter(|payload| **payload == question).count()
}

/// Lets a minute pass as the pump does.
fn minute(world: &mut World) {
    world.tools.now.0 += 60_000;
    if world.relay.deadline().is_some_and(|due| due <= world.tools.now.0) {
        world.later(0);
    }
    world.settle();
}

fn request(name: &str) -> Vec<u8> {
    let mut message = vec![GLOBAL_REQUEST];
    message.put_string(name.as_bytes());
    message.put_bool(true);
    message
}

#[test]
fn a_silent_client_that_answers_stays_and_its_vm_hears_nothing_of_it() {
    let mut world = usual(60);
    for asked in 1..=40 {
        assert_eq!(world.relay.deadline(), Some(world.tools.now.0 + INTERVAL_MS));
        world.later(INTERVAL_MS - 1);
        world.settle();
        assert_eq!(questions(&world), asked - 1);
        world.later(1);
        world.settle();
        assert_eq!(questions(&world), asked);
        world.send(Party::Client, &[REQUEST_FAILURE]);
        world.settle();
    }
    assert_eq!(world.over, None);
    assert_eq!(world.to_vm(), Vec::<Vec<u8>>::new());
    world.send(Party::Client, &[CHANNEL_DATA]);
    world.settle();
    assert_eq!(world.to_vm(), [[CHANNEL_DATA]]);
}

/// A closed laptop.
#[test]
fn a_client_that_is_away_for_an_hour_finds_its_session_and_one_that_stays_away_does_not() {
    for back in [true, false] {
        let mut world = usual(61);
        world.client.is_deaf = true;
        for _ in 0..62 {
            minute(&mut world);
        }
        assert_eq!(world.relay.phase, Phase::Open);
        if back {
            world.client.is_deaf = false;
            world.settle();
            assert_eq!(questions(&world), 1, "one question is enough");
            world.send(Party::Client, &[REQUEST_FAILURE]);
            world.settle();
            world.client.is_deaf = true;
        }
        for _ in 0..4 {
            minute(&mut world);
        }
        if back {
            assert_eq!(world.relay.phase, Phase::Open, "it is silent for a minute");
            continue;
        }
        let Phase::Closing { ended, .. } = world.relay.phase else { panic!("still open") };
        assert_eq!(ended, session(Side::Client, Cause::Deadline));
        assert_eq!(world.vm.fault, Some(Fault::Disconnected { reason: 10 }));
    }
}

/// A VM that is stopped while somebody sends to it: the answers lie behind bytes that nobody takes.
#[test]
fn a_client_whose_answers_are_not_read_is_not_taken_for_gone() {
    let mut world = usual(68);
    world.vm.is_deaf = true;
    let mut sent = Vec::new();
    // Until the client itself has to wait.
    while world.client.end.transport.output().is_empty() {
        sent.push(data(&mut Seeded(68), 30_000));
        world.send(Party::Client, sent.last().expect("one"));
        world.settle();
    }
    for _ in 0..180 {
        minute(&mut world);
    }
    assert_eq!(world.relay.phase, Phase::Open);
    world.vm.is_deaf = false;
    world.settle();
    assert_eq!(world.to_vm(), sent);
    assert_eq!(questions(&world), 1);
    // Silence counts from here.
    world.client.is_deaf = true;
    for _ in 0..70 {
        minute(&mut world);
    }
    assert!(matches!(world.relay.phase, Phase::Closing { .. }));
}

#[test]
fn whatever_a_client_sends_shows_that_it_is_there() {
    let mut world = minded(62, Duration::from_mins(5), 1);
    for _ in 0..20 {
        // Asked once, it says something else; then it goes on in between.
        world.later(INTERVAL_MS);
        world.send(Party::Client, &[CHANNEL_DATA]);
        world.settle();
        world.later(INTERVAL_MS / 2);
        world.send(Party::Client, &[CHANNEL_DATA]);
        world.settle();
        world.later(INTERVAL_MS / 2);
        assert_eq!(world.relay.deadline(), Some(world.tools.now.0 + INTERVAL_MS / 2));
        world.later(INTERVAL_MS / 2 - 1);
        world.send(Party::Client, &[CHANNEL_DATA]);
        world.settle();
        world.later(1);
    }
    assert_eq!(world.over, None);
    assert_eq!(questions(&world), 1, "the first was not answered, so no other was asked");
    assert_eq!(world.to_vm().len(), 60);
}

/// Trap 24: replies carry no name, only an order.
#[test]
fn our_question_takes_its_own_answer_out_of_the_replies_to_the_vm() {
    let mut world = usual(63);
    world.send(Party::Vm, &request("one"));
    world.settle();
    world.later(INTERVAL_MS);
    world.send(Party::Vm, &request("two"));
    world.settle();
    assert_eq!(questions(&world), 1);
    let reply = |name: u8| vec![REQUEST_SUCCESS, name];
    for answer in [reply(1), vec![REQUEST_FAILURE], reply(2)] {
        world.send(Party::Client, &answer);
    }
    world.settle();
    assert_eq!(world.to_vm(), [reply(1), reply(2)]);
    // The next one finds the order as it should be.
    world.later(INTERVAL_MS);
    world.settle();
    world.send(Party::Client, &[REQUEST_FAILURE]);
    world.send(Party::Vm, &request("three"));
    world.settle();
    world.send(Party::Client, &reply(3));
    world.settle();
    assert_eq!(world.to_vm().last(), Some(&reply(3)));
}

/// Trap 24: a client that knows no global requests.
#[test]
fn unimplemented_answers_our_question_too() {
    let mut world = usual(64);
    world.later(INTERVAL_MS);
    world.settle();
    let mut unknown = vec![UNIMPLEMENTED];
    unknown.put_u32(world.client.end.transport.receive_seq().wrapping_sub(1));
    world.send(Party::Client, &unknown);
    world.send(Party::Vm, &request("one"));
    world.settle();
    world.send(Party::Client, &[REQUEST_SUCCESS]);
    world.settle();
    assert_eq!(world.to_vm(), [[REQUEST_SUCCESS]]);
    let is_unimplemented = |event: &Event| matches!(event, Event::Unimplemented(_));
    assert!(!world.vm.end.events.iter().any(is_unimplemented));
}

#[test]
fn zero_asks_nobody_and_a_count_of_zero_gives_nobody_up() {
    let world = minded(65, Duration::ZERO, 12);
    assert_eq!(world.relay.deadline(), None);
    let mut world = minded(66, Duration::from_secs(15), 0);
    world.client.is_deaf = true;
    for _ in 0..10_000 {
        world.later(15_000);
    }
    assert_eq!(world.relay.phase, Phase::Open);
}

#[test]
fn a_client_that_owes_a_key_exchange_is_asked_for_nothing_else_and_given_up_all_the_same() {
    let mut world = minded(67, Duration::from_secs(15), 3);
    world.client.is_deaf = true;
    let cx = &mut world.tools.context();
    world.relay.client.transport.rekey(None, cx).unwrap();
    world.settle();
    for _ in 0..3 {
        world.later(15_000);
        assert_eq!(world.relay.phase, Phase::Open);
    }
    world.later(15_000);
    assert!(matches!(world.relay.phase, Phase::Closing { .. }));
    assert_eq!(questions(&world), 0);
}

#[test]
fn the_kernel_waits_as_long_as_all_questions_take() {
    let patience = |interval_s, count_max| {
        let interval = Duration::from_secs(interval_s);
        ClientAlive { interval, count_max }.patience()
    };
    assert_eq!(patience(300, 12), Some(Duration::from_hours(1)));
    assert_eq!(patience(0, 12), None);
    assert_eq!(patience(300, 0), None);
    assert_eq!(patience(86_400, 100_000), Some(Duration::from_millis(0x7fff_ffff)));
}
