//! Who is present: connections and listeners, counted, and the wait for the last one to leave.

#![expect(
    clippy::disallowed_methods,
    reason = "the wait for everybody to leave is measured by the standard clock"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many are present, and whoever waits until nobody is.
pub(super) struct Presence {
    count: AtomicUsize,
    left: Mutex<Wait>,
    everybody_left: Condvar,
}

impl Default for Presence {
    fn default() -> Self {
        let (count, everybody_left) = (AtomicUsize::new(0), Condvar::new());
        Self { count, left: Mutex::new(Wait::Patient), everybody_left }
    }
}

impl Presence {
    /// Counts a connection or a listener until the returned value is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> ConnectionGuard {
        self.count.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard(Arc::clone(self))
    }

    /// Ends every wait for people to leave.
    pub(super) fn stop_waiting(&self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Wait::Over;
        self.everybody_left.notify_all();
    }

    /// Waits until nobody is present, at most `patience`. True if everybody left.
    pub(super) fn wait_empty(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.count.load(Ordering::Acquire) == 0 {
                return true;
            }
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() || matches!(*left, Wait::Over) {
                return false;
            }
            left = self
                .everybody_left
                .wait_timeout(left, rest)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// Whether it is still worth waiting for people to leave.
enum Wait {
    Patient,
    Over,
}

/// One connection that is not over, or one listener.
pub struct ConnectionGuard(Arc<Presence>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Under the lock, so that a waiter cannot miss it between its look and its wait.
            let _left = self.0.left.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.everybody_left.notify_all();
        }
    }
}
