//! The data plane's clocks. Whoever serves connections reads them here or takes time as an
//! argument; only waits of other threads for this room (`presence`, `running`) are measured by the
//! standard library's clock.

#![expect(clippy::disallowed_methods, reason = "the data plane's clock")]

use std::mem::MaybeUninit;

pub use crate::unix_time::{unix_ms, unix_s};

/// Milliseconds since some fixed moment before this process started, for deadlines.
/// Never goes back.
///
/// Reads the coarse clock: it moves once per kernel tick (1 to 10 ms) and costs a few nanoseconds.
#[must_use]
pub fn monotonic_ms() -> u64 {
    let now = read(libc::CLOCK_MONOTONIC_COARSE);
    now.seconds * 1_000 + now.nanos / 1_000_000
}

/// Microseconds since the same moment as [`monotonic_ms`], for measuring: precise,
/// some 30 ns a call.
#[must_use]
pub fn monotonic_us() -> u64 {
    let now = read(libc::CLOCK_MONOTONIC);
    now.seconds * 1_000_000 + now.nanos / 1_000
}

/// When the second `at_s` of [`unix_s`] comes, on the clock of [`monotonic_ms`]: up to a second
/// late, never early as long as nobody sets the host's time.
#[must_use]
pub fn at_ms(at_s: u64) -> u64 {
    let wait_s = at_s.saturating_sub(unix_s());
    monotonic_ms().saturating_add(wait_s.saturating_mul(1_000))
}

/// One reading. Neither part is negative.
struct Reading {
    seconds: u64,
    nanos: u64,
}

fn read(clock: libc::clockid_t) -> Reading {
    let mut now = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `now` is a valid place for one timespec for the whole call.
    let failed = unsafe { libc::clock_gettime(clock, now.as_mut_ptr()) } != 0;
    // Every Linux kernel since 2.6.32 has these two clocks.
    assert!(!failed, "clock {clock} cannot be read");
    // SAFETY: the call succeeded, so the kernel has filled the timespec.
    let now = unsafe { now.assume_init() };
    Reading {
        seconds: u64::try_from(now.tv_sec).unwrap_or(0),
        nanos: u64::try_from(now.tv_nsec).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_clock_never_goes_back_and_agrees_with_the_precise_one() {
        let mut last_ms = monotonic_ms();
        for _ in 0..10_000 {
            let ms = monotonic_ms();
            assert!(ms >= last_ms);
            last_ms = ms;
        }
        let precise_ms = monotonic_us() / 1_000;
        let coarse_ms = monotonic_ms();
        assert!(precise_ms.abs_diff(coarse_ms) < 1_000, "{precise_ms} and {coarse_ms}");
    }
}
