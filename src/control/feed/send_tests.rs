//! Tests of `send`: who is cut off, and who waits for everything. Their time is tokio's paused one.

use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;

use super::*;
use crate::control::feed::{Hub, Seats};
use crate::route::audience::Whole;
use crate::route::saved_routes::Head;
use crate::route::{AddressEntry, NodeEntry, TeamEntry, UserEntry, VmEntry};

/// A registry of nothing.
struct Nothing;

impl Whole for Nothing {
    fn vms_on(&self, _: &str) -> Vec<VmEntry> {
        Vec::new()
    }

    fn node(&self, _: &str) -> Option<NodeEntry> {
        None
    }

    fn addresses(&self) -> Vec<AddressEntry> {
        Vec::new()
    }

    fn user(&self, _: &str) -> Option<UserEntry> {
        None
    }

    fn team(&self, _: &str) -> Option<TeamEntry> {
        None
    }
}

/// One who follows and is sent, as everything, so many bytes.
fn follow(hub: &Arc<Hub>, seats: &Arc<Seats>, bytes: usize) -> (Receiver<Bytes>, JoinHandle<()>) {
    hub.begin(Head { store: [7; 16], program: [8; 8], revision: 10 });
    let follower = hub.follow("n1", [1; 32], (4, None), &Nothing).unwrap();
    let (sender, receiver) = channel(1);
    let everything: Read = Box::new(move |_| Some(Bytes::from(vec![7; bytes])));
    (receiver, tokio::spawn(send(follower, (Arc::clone(seats), everything), sender)))
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_nothing_is_cut_off_and_everything_is_held_no_longer() {
    let (hub, seats) = (Arc::<Hub>::default(), Arc::<Seats>::default());
    let all = seats.begins.available_permits();
    let (mut slow, sends) = follow(&hub, &seats, 3 * PIECE_BYTES);
    assert!(slow.recv().await.is_some(), "the front door");
    assert_eq!(slow.recv().await.unwrap().len(), PIECE_BYTES, "no connection holds more");
    assert_eq!((hub.counts().cut_off, hub.gauges().followers), (0, 1));
    timeout(TAKES_MAX * 2, sends).await.unwrap().unwrap();
    assert_eq!(hub.gauges().followers, 0);
    assert_eq!((hub.counts().cut_off, seats.begins.available_permits()), (1, all));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_everything_hears_that_somebody_is_there() {
    let (hub, seats) = (Arc::<Hub>::default(), Arc::<Seats>::default());
    let all = u32::try_from(seats.begins.available_permits()).unwrap();
    let others = seats.begins.acquire_many(all).await.unwrap();
    let (mut waits, _sends) = follow(&hub, &seats, 5);
    let begun = Instant::now();
    let door = waits.recv().await.unwrap();
    for _ in 0..10 {
        assert_eq!(waits.recv().await.unwrap(), door);
    }
    assert!(begun.elapsed() <= HEARTBEAT * 10, "{:?}", begun.elapsed());
    drop(others);
    assert_eq!(*waits.recv().await.unwrap(), [7; 5]);
}

#[test]
fn those_who_came_together_do_not_hear_their_heartbeats_together() {
    let beats: std::collections::BTreeSet<_> = (0..1_000).map(beat_of).collect();
    assert_eq!(beats.len(), usize::try_from(BEATS).unwrap());
}
