//! Read buffers: a pool a pump, and what one leg holds of it.
//!
//! A session with no unprocessed byte has no buffer. A busy one has one a direction, large
//! enough that a bulk stream makes few and large wake-ups: on real SSH traffic these cost more
//! than the bytes do.

use std::ops::Range;

/// Length of a pooled buffer in bytes: four of the 32 KiB packets that SSH programs send in bulk.
pub(super) const BUFFER: usize = 128 << 10;

/// Idle buffers kept for the next reader. One is in use at a time, unless peers are slow.
const FREE_MAX: usize = 4;

/// Buffers that sessions may keep across turns (8 MiB a pump). Beyond that many, what a session
/// must keep is copied to an allocation of its own size, so that a crowd of peers that stop in the
/// middle of a packet costs what they sent, not a whole buffer each.
const KEPT_MAX: usize = 64;

/// With less room than this behind the unopened bytes, they are moved to the front before a read: a
/// read should be able to take all that the kernel has.
const ROOM_MIN: usize = 64 << 10;

/// Most bytes one leg's inbox may grow to: the largest packet the transport lets through (256 KiB
/// of data), with its framing and a sealed run before it.
const INBOX_MAX: usize = 512 << 10;

/// Buffers of one pump.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: Vec<Box<[u8]>>,
    lent: usize,
}

impl Pool {
    fn take(&mut self) -> Box<[u8]> {
        self.lent += 1;
        self.free.pop().unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice())
    }

    fn put(&mut self, buffer: Box<[u8]>) {
        if buffer.len() == BUFFER {
            self.lent = self.lent.saturating_sub(1);
            if self.free.len() < FREE_MAX {
                self.free.push(buffer);
            }
        }
    }

    /// A buffer for the length of `work`, which leaves nothing in it that anybody wants.
    pub(super) fn scratch<T>(&mut self, work: impl FnOnce(&mut [u8]) -> T) -> T {
        let mut buffer = self.take();
        let done = work(&mut buffer);
        self.put(buffer);
        done
    }

    const fn is_crowded(&self) -> bool {
        self.lent > KEPT_MAX
    }
}

/// What was read from one leg and is not yet gone to the other.
///
/// ```text
///   bytes: | free | run (sealed for the other leg) | stale | unopened (from this peer) | free |
/// ```
#[derive(Debug)]
pub(super) struct Inbox {
    /// Empty while nothing is held.
    bytes: Box<[u8]>,
    run: Range<usize>,
    unopened: Range<usize>,
}

impl Inbox {
    /// Starts with bytes that somebody else read.
    pub(super) fn new(leftover: Vec<u8>) -> Self {
        let unopened = 0..leftover.len();
        Self { bytes: leftover.into_boxed_slice(), run: 0..0, unopened }
    }

    /// Bytes from the peer that wait to be opened.
    pub(super) fn unopened(&mut self) -> &mut [u8] {
        &mut self.bytes[self.unopened.clone()]
    }

    /// Bytes from the peer wait to be opened.
    pub(super) fn has_unopened(&self) -> bool {
        !self.unopened.is_empty()
    }

    /// Sealed packets for the other leg, to be written before anything that was
    /// sealed for it later.
    pub(super) fn run(&self) -> &[u8] {
        &self.bytes[self.run.clone()]
    }

    /// The first `used` unopened bytes are dealt with.
    pub(super) fn skip(&mut self, used: usize) {
        self.unopened.start += used;
        debug_assert!(self.unopened.start <= self.unopened.end, "skipped more than there was");
    }

    /// Of the first `used` unopened bytes the first `sealed` are now a packet for the other leg:
    /// it joins the run.
    pub(super) fn keep(&mut self, used: usize, sealed: usize) {
        let start = self.unopened.start;
        self.skip(used);
        if self.run.is_empty() {
            self.run = start..start + sealed;
        } else {
            // A packet that went no further lies between: close the gap, so that
            // one send takes all.
            if self.run.end != start {
                self.bytes.copy_within(start..start + sealed, self.run.end);
            }
            self.run.end += sealed;
        }
    }

    /// The first `count` bytes of the run are written.
    pub(super) fn written(&mut self, count: usize) {
        self.run.start += count;
        debug_assert!(self.run.start <= self.run.end, "wrote more than there was");
    }

    /// Drops what waits to be opened.
    pub(super) fn forget_unopened(&mut self) {
        self.unopened.start = self.unopened.end;
    }

    /// Drops what waits to be written.
    pub(super) fn forget_run(&mut self) {
        self.run = 0..0;
    }

    /// Room to read into. `packet` is how long the first unopened packet is, as far as known: the
    /// inbox grows beyond a pooled buffer only for it, and only once the peer has filled the
    /// buffer, or behind a run that nobody takes, in steps that a read is worth. `None`: no room,
    /// because whole packets wait, or the packet is longer than any may be.
    pub(super) fn room(&mut self, packet: usize, pool: &mut Pool) -> Option<&mut [u8]> {
        if self.bytes.is_empty() {
            self.bytes = pool.take();
        }
        if self.bytes.len() - self.unopened.end < ROOM_MIN {
            let (run, rest) = (self.run.len(), self.unopened.len());
            let size = match (run, rest) {
                (0, ..BUFFER) => BUFFER,
                (0, _) => packet,
                _ => BUFFER.max(run + rest + ROOM_MIN).min(INBOX_MAX),
            };
            // A parked or handed-over remainder has no room behind it at all.
            if self.bytes.len() >= size {
                if self.run.start > 0 {
                    self.bytes.copy_within(self.run.clone(), 0);
                }
                self.bytes.copy_within(self.unopened.clone(), run);
                (self.run, self.unopened) = (0..run, run..run + rest);
            } else if size <= INBOX_MAX {
                let larger =
                    if size == BUFFER { pool.take() } else { vec![0; size].into_boxed_slice() };
                self.move_to(larger, pool);
            } else {
                return None;
            }
        }
        let room = &mut self.bytes[self.unopened.end..];
        if room.is_empty() { None } else { Some(room) }
    }

    /// Goes on in other memory, without what is dealt with.
    fn move_to(&mut self, mut bytes: Box<[u8]>, pool: &mut Pool) {
        let (run, rest) = (self.run.len(), self.unopened.len());
        bytes[..run].copy_from_slice(self.run());
        bytes[run..run + rest].copy_from_slice(&self.bytes[self.unopened.clone()]);
        pool.put(std::mem::replace(&mut self.bytes, bytes));
        (self.run, self.unopened) = (0..run, run..run + rest);
    }

    /// The first `count` bytes of the last [`Self::room`] were read.
    pub(super) fn filled(&mut self, count: usize) {
        self.unopened.end += count;
        debug_assert!(self.unopened.end <= self.bytes.len(), "read more than there was room for");
    }

    /// At the end of a turn: gives the buffer back if nothing is in it, and a smaller one takes its
    /// place if little is and many are out.
    pub(super) fn settle(&mut self, pool: &mut Pool) {
        if self.run.is_empty() && self.unopened.is_empty() {
            self.release(pool);
        } else if pool.is_crowded() {
            let held = self.run.len() + self.unopened.len();
            if held <= self.bytes.len() / 2 {
                self.move_to(vec![0; held].into_boxed_slice(), pool);
            }
        }
    }

    /// Gives up everything.
    pub(super) fn release(&mut self, pool: &mut Pool) {
        pool.put(std::mem::take(&mut self.bytes));
        self.run = 0..0;
        self.unopened = 0..0;
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub(super) const fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
#[path = "buffers_tests.rs"]
mod tests;
