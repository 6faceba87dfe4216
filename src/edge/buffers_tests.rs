//! Tests of `buffers`: an inbox against a plain model of what it should hold.

use super::*;
use crate::ssh::entropy::Entropy as _;
use crate::ssh::testing::Seeded;

#[test]
fn whatever_is_read_sealed_skipped_and_parked_comes_out_in_order() {
    for seed in 0..40 {
        eprintln!("seed {seed}");
        let mut random = Seeded(seed);
        let mut pool = Pool { lent: if seed % 2 == 0 { 0 } else { KEPT_MAX }, free: Vec::new() };
        let mut inbox = Inbox::new(vec![9; random.below(3) * 700]);
        let mut unopened = inbox.unopened().to_vec();
        let mut run = Vec::new();
        for _ in 0..300 {
            match random.below(6) {
                0 | 1 => {
                    let packet = unopened.len() + 1;
                    if let Some(room) = inbox.room(packet, &mut pool) {
                        let count = random.below(room.len()) + 1;
                        random.fill(&mut room[..count]);
                        unopened.extend_from_slice(&room[..count]);
                        inbox.filled(count);
                    } else {
                        assert!(unopened.len() + run.len() > INBOX_MAX - BUFFER);
                    }
                }
                2 => {
                    let used = random.below(unopened.len() + 1);
                    inbox.skip(used);
                    unopened.drain(..used);
                }
                3 => {
                    let used = random.below(unopened.len() + 1);
                    inbox.keep(used, used);
                    run.extend(unopened.drain(..used));
                }
                4 => {
                    let count = random.below(run.len() + 1);
                    inbox.written(count);
                    run.drain(..count);
                }
                _ => inbox.settle(&mut pool),
            }
            assert!(unopened == inbox.unopened());
            assert!(run == inbox.run());
            assert_eq!(inbox.has_unopened(), !unopened.is_empty());
        }
    }
}

#[test]
fn an_empty_inbox_gives_its_buffer_back_and_the_pool_lends_it_again() {
    let mut pool = Pool::default();
    let mut inbox = Inbox::new(Vec::new());
    assert_eq!(inbox.capacity(), 0);
    inbox.room(1, &mut pool).unwrap();
    inbox.filled(100);
    inbox.settle(&mut pool);
    assert_eq!((inbox.capacity(), pool.lent), (BUFFER, 1));
    inbox.skip(100);
    inbox.settle(&mut pool);
    assert_eq!((inbox.capacity(), pool.lent, pool.free.len()), (0, 0, 1));
    inbox.room(1, &mut pool).unwrap();
    assert_eq!((pool.lent, pool.free.len()), (1, 0));
}

/// A crowd that stops in the middle of a packet costs what it sent.
#[test]
fn beyond_the_buffers_a_pump_may_keep_a_remainder_takes_its_own_size() {
    let mut pool = Pool::default();
    let mut crowd = Vec::new();
    for _ in 0..500 {
        let mut inbox = Inbox::new(Vec::new());
        inbox.room(1_000, &mut pool).unwrap();
        inbox.filled(10);
        inbox.settle(&mut pool);
        crowd.push(inbox);
    }
    let held: usize = crowd.iter().map(Inbox::capacity).sum();
    assert_eq!(pool.lent, KEPT_MAX);
    assert_eq!(held, KEPT_MAX * BUFFER + (500 - KEPT_MAX) * 10);
    for inbox in &mut crowd {
        inbox.release(&mut pool);
    }
    assert_eq!((pool.lent, pool.free.len()), (0, FREE_MAX));
}

/// Trap 62: the packets of a key exchange are read behind a run that nobody takes.
#[test]
fn what_is_dealt_with_behind_a_run_that_waits_takes_no_room() {
    let mut pool = Pool::default();
    let mut inbox = Inbox::new(Vec::new());
    inbox.room(4, &mut pool).unwrap();
    inbox.filled(BUFFER);
    inbox.keep(BUFFER, BUFFER);
    for round in 0..10_000 {
        let room = inbox.room(4, &mut pool).unwrap().len();
        assert!(room >= ROOM_MIN, "round {round}: {room}");
        inbox.filled(32);
        inbox.skip(32);
    }
    assert_eq!(inbox.run().len(), BUFFER);
    assert_eq!(inbox.capacity(), BUFFER + ROOM_MIN);
}

/// Trap 18: a length field alone allocates nothing.
#[test]
fn an_inbox_outgrows_a_pooled_buffer_only_once_the_peer_has_filled_it() {
    let mut pool = Pool::default();
    let mut inbox = Inbox::new(Vec::new());
    inbox.room(250_000, &mut pool).unwrap();
    inbox.filled(BUFFER - 1);
    assert_eq!(inbox.room(250_000, &mut pool).unwrap().len(), 1);
    assert_eq!(inbox.capacity(), BUFFER);
    inbox.filled(1);
    assert_eq!(inbox.room(250_000, &mut pool).unwrap().len(), 250_000 - BUFFER);
    assert_eq!(pool.lent, 0, "the pooled buffer went back");
}

#[test]
fn a_packet_longer_than_any_may_be_gets_no_room() {
    let mut pool = Pool::default();
    let mut inbox = Inbox::new(vec![0; BUFFER]);
    assert!(inbox.room(INBOX_MAX + 1, &mut pool).is_none());
}
