//! The time of day.

use nix::time::{ClockId, clock_gettime};

/// Seconds since 1970 (UTC), for dates and the log. May step when the host's time is set.
///
/// Reads the coarse clock: it moves once per kernel tick (1 to 10 ms) and costs a few nanoseconds.
/// A clock before 1970 reads as 1970.
#[must_use]
pub fn unix_s() -> u64 {
    unix_ms() / 1_000
}

/// The same in milliseconds, to tell a moment from how long ago it was.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads this clock")]
pub fn unix_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE);
    // Every Linux kernel since 2.6.32 has this clock.
    now.map_or(0, |now| {
        let (seconds, nanos) = (u64::try_from(now.tv_sec()), u64::try_from(now.tv_nsec()));
        seconds.unwrap_or(0).saturating_mul(1_000).saturating_add(nanos.unwrap_or(0) / 1_000_000)
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn unix_time_is_the_time_the_system_tells() {
        let system =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        assert!(unix_s().abs_diff(system) <= 2);
    }
}
