//! From the hub to one follower: a task that waits for what comes, and for whoever takes it.

#![expect(clippy::disallowed_methods, reason = "heartbeats begin at some time of their own")]

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::AcquireError;
use tokio::sync::mpsc::Sender;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};

use super::HEARTBEAT;
use super::hub::Follower;
use super::seats::Seats;

/// Changes that come within this time are sent together.
const TOGETHER: Duration = Duration::from_millis(25);
/// Whoever takes no piece for so long is cut off, comes back and goes on where it can.
const TAKES_MAX: Duration = Duration::from_secs(10);
/// Bytes of a piece: what a connection holds of what others hold too.
const PIECE_BYTES: usize = 64 << 10;
/// Heartbeats begin at so many times: those who came together do not hear it together.
const BEATS: u32 = 64;

/// Reads everything, framed, on a thread that may wait.
pub(in crate::control) type Read = Box<dyn FnOnce(&mut Follower) -> Option<Bytes> + Send>;

/// Sends until nobody takes it, or the follower may follow no longer.
pub(in crate::control) async fn send(
    mut follower: Follower,
    (seats, everything): (Arc<Seats>, Read),
    sender: Sender<Bytes>,
) {
    let door = follower.door();
    if !take(&follower, door, &sender).await {
        return;
    }
    let begins = Instant::now() + HEARTBEAT * beat_of(follower.number()) / BEATS;
    let mut heartbeat = interval_at(begins, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    if !follower.goes_on() {
        let began = begin(follower, (&seats, everything), &mut heartbeat, &sender).await;
        let Some(began) = began else { return };
        follower = began;
    }
    // The first comes at once: what a follower that goes on has missed.
    let mut beat = true;
    while let Some(next) = follower.next(beat, Instant::now()) {
        if !take(&follower, next, &sender).await {
            return;
        }
        beat = tokio::select! {
            moved = follower.moved() => {
                if !moved {
                    return;
                }
                sleep(TOGETHER).await;
                false
            }
            _ = heartbeat.tick() => true,
            () = sender.closed() => return,
        };
    }
}

fn beat_of(number: u64) -> u32 {
    u32::try_from(number % u64::from(BEATS)).unwrap_or_default()
}

/// Sends everything, when it is this follower's turn. The front door comes again until then:
/// nobody is taken for gone.
async fn begin(
    mut follower: Follower,
    (seats, everything): (&Seats, Read),
    heartbeat: &mut Interval,
    sender: &Sender<Bytes>,
) -> Option<Follower> {
    let turn = async {
        let begins = seats.begins.acquire().await?;
        Ok::<_, AcquireError>((begins, Arc::clone(&seats.reads).acquire_owned().await?))
    };
    tokio::pin!(turn);
    let (_begins, reads) = loop {
        tokio::select! {
            biased;
            turn = &mut turn => break turn.ok()?,
            moved = follower.moved() => {
                if !moved {
                    return None;
                }
                let aside = follower.aside()?;
                if !take(&follower, aside, sender).await {
                    return None;
                }
            }
            _ = heartbeat.tick() => {
                let door = follower.door();
                if !take(&follower, door, sender).await {
                    return None;
                }
            }
            () = sender.closed() => return None,
        }
    };
    let read = spawn_blocking(move || {
        let everything = everything(&mut follower)?;
        drop(reads);
        Some((follower, everything))
    });
    // A panic over there was reported by its hook.
    let (follower, everything) = read.await.ok().flatten()?;
    take(&follower, [everything], sender).await.then_some(follower)
}

/// Whether all of it is taken, piece by piece.
async fn take(
    follower: &Follower,
    frames: impl IntoIterator<Item = Bytes>,
    sender: &Sender<Bytes>,
) -> bool {
    for mut frame in frames {
        while !frame.is_empty() {
            let piece = frame.split_to(frame.len().min(PIECE_BYTES));
            match timeout(TAKES_MAX, sender.send(piece)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return false,
                Err(_) => {
                    follower.cut_off();
                    return false;
                }
            }
        }
    }
    true
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
