//! From the hub to one follower: a task that waits for what comes, and for whoever takes it.

use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::mpsc::Sender;
use tokio::time::{interval, sleep};

use super::HEARTBEAT;
use super::hub::Follower;

/// Changes that come within this time are sent together.
const TOGETHER: Duration = Duration::from_millis(25);

/// Sends until nobody takes it, or the follower may follow no longer.
pub(in crate::control) async fn send(
    mut follower: Follower,
    begins: Vec<Bytes>,
    sender: Sender<Bytes>,
) {
    for bytes in begins {
        if sender.send(bytes).await.is_err() {
            return;
        }
    }
    let mut heartbeat = interval(HEARTBEAT);
    // The first comes at once: what a follower that goes on has missed.
    let mut beat = true;
    heartbeat.tick().await;
    while let Some(next) = follower.next(beat) {
        for bytes in next {
            if sender.send(bytes).await.is_err() {
                return;
            }
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
