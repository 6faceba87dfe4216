//! What followers take of the API's thread, and what they leave to others: how many of them do
//! what takes time or memory at once. All others wait for their turn.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Handshakes at a time. Each is a millisecond of the thread that sends to all others.
const HANDSHAKES_MAX: usize = 32;
/// Threads that read the registry for followers: whoever changes it waits for them.
pub(in crate::control) const READS_MAX: usize = 2;
/// Followers at a time that are sent everything: it is in memory until it is taken.
const BEGINS_MAX: usize = 32;
/// Threads that pin host keys: each waits for a commit.
pub(in crate::control) const PINS_MAX: usize = 4;

/// Turns of all followers.
pub(in crate::control) struct Seats {
    pub(in crate::control) handshakes: Semaphore,
    pub(in crate::control) reads: Arc<Semaphore>,
    pub(super) begins: Semaphore,
    pub(in crate::control) pins: Arc<Semaphore>,
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            begins: Semaphore::new(BEGINS_MAX),
            pins: Arc::new(Semaphore::new(PINS_MAX)),
        }
    }
}
