//! Fewer and larger wakes of a socket that brings much: the kernel tells of its bytes only when
//! many have come (`SO_RCVLOWAT`, socket(7)), until the flow becomes slower.
//!
//! A wake costs more than the bytes that it is for. Whoever types is never kept waiting: a flow has
//! to bring [`FAST_BYTES`] within [`FAST_MS`] first, at which rate the bytes that are waited for
//! come in about a millisecond; once a flow has brought nothing for [`LULL_MS`], what lies there
//! is told at once, and later bytes again as they come. The end of a flow is always told.

use std::os::fd::AsRawFd;

use super::super::super::socket_options;

/// Bytes that make a flow a fast one if they come within so many milliseconds: 130 MB/s and more.
const FAST_BYTES: usize = 1 << 20;
const FAST_MS: u64 = 8;

/// Bytes that are waited for.
const LOW_WATER: i32 = 128 << 10;

/// How long, in milliseconds.
const LULL_MS: u64 = 2;

/// What one socket has brought lately.
#[derive(Debug, Default)]
pub(super) struct Inflow {
    /// Bytes since `since_ms`.
    bytes: usize,
    since_ms: u64,
    /// The kernel waits for more, at most until then.
    until_ms: Option<u64>,
}

impl Inflow {
    /// When [`Self::expire`] wants to be called.
    pub(super) const fn deadline(&self) -> Option<u64> {
        self.until_ms
    }

    /// So many bytes came from `fd`.
    pub(super) fn came(&mut self, count: usize, now_ms: u64, fd: &impl AsRawFd) {
        if let Some(until) = &mut self.until_ms {
            *until = now_ms + LULL_MS;
            return;
        }
        if now_ms > self.since_ms + FAST_MS {
            (self.bytes, self.since_ms) = (0, now_ms);
        }
        self.bytes += count;
        if self.bytes >= FAST_BYTES && socket_options::tell_of(fd, LOW_WATER) {
            self.until_ms = Some(now_ms + LULL_MS);
        }
    }

    /// The deadline may have passed: has the kernel tell of whatever has come.
    pub(super) fn expire(&mut self, now_ms: u64, fd: &impl AsRawFd) {
        if self.until_ms.take_if(|until| *until <= now_ms).is_some() {
            self.bytes = 0;
            // Refused to nobody: it is no more than the default.
            socket_options::tell_of(fd, 1);
        }
    }
}
