//! One leg of a spliced session: its socket, and what was read from it and is not yet gone
//! to the other one.
//!
//! # Whose event ends a wait
//! Edge-triggered epoll tells of room again only where the kernel has been asked for it and found
//! none. A send that takes nothing asks; where our own sum says that there is no room, `poll` does.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};

use super::super::super::buffers::{BUFFER, Inbox, Pool};
use super::super::super::relay::leg::{Party, PumpContext, Read, Reading, Writing, receive};
use super::super::super::socket_options;
use super::super::pipes::Pipe;
use super::inflow::Inflow;

/// Bytes that one splice takes at most: what is stuck fits into one buffer, and
/// others get their turn.
pub(super) const SPLICE_BYTES_MAX: usize = BUFFER;

/// Below this many bytes of room that are known of, the socket is asked how many there are.
const ROOM_LOW: usize = 16 << 10;

/// What a splice costs of that room beyond its bytes, as the kernel reckons, at most.
const OVERHEAD: usize = 2 << 10;

/// One side of a session, as the door hands it over.
pub struct SplicedLeg {
    /// A connected TCP socket, non-blocking.
    pub fd: OwnedFd,
    /// What goes to the other side before anything else: read from this one already, or owed to the
    /// other. Counts as read.
    pub leftover: Vec<u8>,
}

/// One leg while the session lives.
pub(super) struct Leg {
    pub(super) fd: OwnedFd,
    /// What was read here and could not be spliced; all of it waits to be written to the other leg.
    pub(super) inbox: Inbox,
    pub(super) reading: Reading,
    pub(super) writing: Writing,
    /// Bytes read so far.
    pub(super) received: u64,
    /// Bytes that the socket takes now, or more: it takes less only by what we write.
    pub(super) room: usize,
    /// What it brought lately.
    pub(super) inflow: Inflow,
}

/// A socket failed.
pub(super) struct Lost(pub(super) Party, pub(super) Errno);

impl Leg {
    pub(super) fn new(leg: SplicedLeg) -> Self {
        let count = leg.leftover.len();
        let mut inbox = Inbox::new(leg.leftover);
        inbox.keep(count, count);
        Self {
            fd: leg.fd,
            inbox,
            // What lies in the socket already, epoll tells when it begins to watch.
            reading: Reading::Drained,
            writing: Writing::Ready,
            received: u64::try_from(count).unwrap_or_default(),
            room: 0,
            inflow: Inflow::default(),
        }
    }

    /// A read here could bring bytes that `to` takes.
    pub(super) fn goes_on(&self, to: &Self) -> bool {
        self.reading.may_read() && to.writing == Writing::Ready
    }

    /// Bytes that the socket takes for sure; if there are none, an event will tell when there are.
    pub(super) fn room(&mut self) -> usize {
        if self.room < ROOM_LOW {
            self.room = match socket_options::send_buffer(&self.fd) {
                // It would tell at once: this is the kernel's own measure (`sk_stream_min_wspace`).
                Some(buffer) if buffer.free() >= buffer.queued / 2 => buffer.free(),
                // Where that cannot be known, what is stuck shows it.
                None => SPLICE_BYTES_MAX,
                Some(_) if socket_options::takes_bytes(&self.fd) => ROOM_LOW,
                Some(_) => 0,
            };
            if self.room == 0 {
                self.writing = Writing::Full;
            }
        }
        self.room
    }

    fn wrote(&mut self, count: usize) {
        self.room = self.room.saturating_sub(count + OVERHEAD);
    }

    /// Moves up to `room` bytes to the other leg without a copy.
    pub(super) fn splice(
        &mut self,
        party: Party,
        to: &mut Self,
        pipe: Pipe,
        room: usize,
        tools: &mut PumpContext,
    ) -> Result<Read, Lost> {
        let asked = room.min(SPLICE_BYTES_MAX);
        let read = loop {
            match pipe.fill(&self.fd, asked) {
                Ok(0) => {
                    self.reading = Reading::Finished;
                    break Ok(Read::End);
                }
                Ok(count) => break Ok(Read::Bytes(count)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.reading = Reading::Drained;
                    break Ok(Read::Nothing);
                }
                Err(errno) => break Err(Lost(party, errno)),
            }
        };
        if let Ok(Read::Bytes(count)) = read {
            self.count(party, count, tools);
            self.inflow.came(count, tools.now.0, &self.fd);
            // As in `receive`, where it was not the pipe that was full: a key that was pressed.
            if count < asked && pipe.has_place_for(count) && self.reading == Reading::Ready {
                self.reading = Reading::Drained;
            }
            let left = to.take(&pipe, count);
            tools.tally.spliced += u64::try_from(count - left).unwrap_or_default();
            if to.writing == Writing::Finished && left > 0 {
                // With what it holds.
                drop(pipe);
                return read;
            }
            tools.tally.stuck += u64::try_from(left).unwrap_or_default();
            self.unplug(&pipe, left, &mut tools.pool).map_err(|errno| Lost(party, errno))?;
        }
        tools.pipes.give_back(pipe);
        read
    }

    /// Writes `count` bytes that are in the pipe; says how many are still there.
    fn take(&mut self, pipe: &Pipe, count: usize) -> usize {
        let mut left = count;
        while left > 0 && self.writing == Writing::Ready {
            match pipe.empty(&self.fd, left) {
                Ok(moved) => {
                    left -= moved;
                    self.wrote(moved);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => (self.writing, self.room) = (Writing::Full, 0),
                Err(_) => self.is_gone(),
            }
        }
        left
    }

    /// Copies the `left` bytes that are stuck in the pipe.
    fn unplug(&mut self, pipe: &Pipe, mut left: usize, pool: &mut Pool) -> Result<(), Errno> {
        while left > 0 {
            let room = self.inbox.room(0, pool).ok_or(Errno::ENOBUFS)?;
            match pipe.read(room) {
                Ok(count) => {
                    self.inbox.filled(count);
                    self.inbox.keep(count, count);
                    left -= count;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Moves bytes to the other leg where there is no pipe.
    pub(super) fn copy(
        &mut self,
        party: Party,
        to: &mut Self,
        tools: &mut PumpContext,
    ) -> Result<Read, Lost> {
        let room = self.inbox.room(0, &mut tools.pool).ok_or(Lost(party, Errno::ENOBUFS))?;
        let read = receive(&self.fd, &mut self.reading, room, MsgFlags::empty())
            .map_err(|errno| Lost(party, errno))?;
        if let Read::Bytes(count) = read {
            self.inbox.filled(count);
            self.inbox.keep(count, count);
            self.count(party, count, tools);
            tools.tally.unpiped += u64::try_from(count).unwrap_or_default();
            to.flush(&mut self.inbox);
        }
        Ok(read)
    }

    /// Reads what nobody will look at: over TCP it does not leave the kernel (`MSG_TRUNC`, tcp(7)).
    pub(super) fn ignore(&mut self, party: Party, reads: &mut u32, tools: &mut PumpContext) {
        while *reads > 0 && self.reading.may_read() {
            *reads -= 1;
            let Self { fd, reading, .. } = self;
            match tools.pool.scratch(|room| receive(fd, reading, room, MsgFlags::MSG_TRUNC)) {
                Ok(Read::Bytes(count)) => self.count(party, count, tools),
                Ok(Read::Nothing) => {}
                Ok(Read::End) | Err(_) => self.reading = Reading::Finished,
            }
        }
    }

    fn count(&mut self, party: Party, count: usize, tools: &mut PumpContext) {
        let count = u64::try_from(count).unwrap_or_default();
        self.received += count;
        match party {
            Party::Client => tools.tally.up += count,
            Party::Vm => tools.tally.down += count,
        }
    }

    /// Writes what the other leg's inbox has for this one. True if that showed the peer to be gone.
    pub(super) fn flush(&mut self, run: &mut Inbox) -> bool {
        while self.writing == Writing::Ready && !run.run().is_empty() {
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match send(self.fd.as_raw_fd(), run.run(), flags) {
                Ok(count) => {
                    run.written(count);
                    self.wrote(count);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => (self.writing, self.room) = (Writing::Full, 0),
                Err(_) => {
                    self.is_gone();
                    run.forget_run();
                    return true;
                }
            }
        }
        if self.writing == Writing::Finished {
            run.forget_run();
        }
        false
    }

    /// A write has failed. The verdict is left to the reading side: the peer's last words may
    /// still lie there.
    fn is_gone(&mut self) {
        self.writing = Writing::Finished;
        if self.reading == Reading::Drained {
            self.reading = Reading::HungUp;
        }
    }

    /// Says FIN, once.
    pub(super) fn finish(&mut self) {
        if self.writing != Writing::Finished {
            let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Write);
            self.writing = Writing::Finished;
        }
    }
}
