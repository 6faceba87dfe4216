//! A deadline on a phase of a connection.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use glommio::timer::Timer;

use super::clock;

/// The coarse clock may be a kernel tick behind the timer that fires: this close to the deadline the timer itself
/// is asked.
const NEAR_MS: u64 = 20;

/// Runs `phase` for at most `limit`; `None` when the time is up.
///
/// The phase is boxed: a connection then takes the memory of the phase it is in and not that of its largest one. The
/// timer is registered once, not at every wake.
pub(super) async fn within<T>(
    limit: Duration,
    mut phase: Pin<Box<dyn Future<Output = T> + '_>>,
) -> Option<T> {
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let deadline_ms = clock::monotonic_ms().saturating_add(limit_ms);
    let mut timer = pin!(Timer::new(limit));
    let mut registered = false;
    poll_fn(move |cx| {
        if let Poll::Ready(done) = phase.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        let near = clock::monotonic_ms().saturating_add(NEAR_MS) >= deadline_ms;
        if registered && !near {
            return Poll::Pending;
        }
        registered = true;
        timer.as_mut().poll(cx).map(|_| None)
    })
    .await
}
