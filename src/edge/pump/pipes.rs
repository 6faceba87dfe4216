//! The pipe that spliced bytes go through, and what it is when there is none to be had.
//!
//! One is enough for a pump: a session has it for one splice in and the splice out of the same
//! bytes, and what the outgoing socket does not take is read out of it at once. So no session ever
//! holds a pipe from one turn to the next, however many peers do not read, and the one stays warm
//! in the CPU's cache.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::{SysconfVar, pipe2, read, sysconf};

/// What a pipe shall have room for, in bytes. It has a place for each page of that, and a segment
/// off the wire takes one however short it is.
const PIPE_BYTES: i32 = 256 << 10;

/// A pipe with less room is not worth the calls. The kernel makes them of 8 KiB, silently, for a
/// user beyond `fs.pipe-user-pages-soft`.
const PIPE_BYTES_MIN: i32 = 64 << 10;

/// How long to do without a pipe before another is asked for, in milliseconds.
const REST_MS: u64 = 1_000;

/// An empty pipe, or one with the bytes of one splice on their way.
#[derive(Debug)]
pub(in crate::edge) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    places: usize,
}

impl Pipe {
    /// A pipe that is large enough.
    fn new() -> Result<Self, Errno> {
        Self::of(PIPE_BYTES)
    }

    /// A pipe of `bytes`, or of as many as there are to be had.
    fn of(bytes: i32) -> Result<Self, Errno> {
        let (out, into) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        // Refused to a user who has many pipes already: the usual size will do.
        let _usual = fcntl(&into, FcntlArg::F_SETPIPE_SZ(bytes));
        let size = fcntl(&into, FcntlArg::F_GETPIPE_SZ)?;
        if size < PIPE_BYTES_MIN {
            // What the kernel answers such a user who asks for more.
            return Err(Errno::EPERM);
        }
        let page = sysconf(SysconfVar::PAGE_SIZE)?.ok_or(Errno::EINVAL)?;
        let places = usize::try_from(i64::from(size) / page).unwrap_or_default();
        Ok(Self { out, into, places })
    }

    /// However these bytes came, they did not fill the pipe: there is none without a place.
    pub(super) const fn has_place_for(&self, count: usize) -> bool {
        count < self.places
    }

    /// Moves at most `count` bytes from a socket to here; 0: the peer's FIN. The pipe is empty
    /// before, so `EAGAIN` is the socket's.
    pub(super) fn fill(&self, from: impl AsFd, count: usize) -> Result<usize, Errno> {
        splice(from, None, &self.into, None, count, SpliceFFlags::SPLICE_F_NONBLOCK)
    }

    /// Moves the first `count` bytes, which are here, to a socket.
    pub(super) fn empty(&self, to: impl AsFd, count: usize) -> Result<usize, Errno> {
        splice(&self.out, None, to, None, count, SpliceFFlags::SPLICE_F_NONBLOCK)
    }

    /// Copies what is here.
    pub(super) fn read(&self, room: &mut [u8]) -> Result<usize, Errno> {
        read(&self.out, room)
    }
}

/// The pipe of one pump.
#[derive(Debug)]
pub(in crate::edge) struct Pipes {
    idle: Option<Pipe>,
    /// Since the last one was refused: when to ask again.
    rest_until_ms: u64,
    make: fn() -> Result<Pipe, Errno>,
}

impl Default for Pipes {
    fn default() -> Self {
        Self { idle: None, rest_until_ms: 0, make: Pipe::new }
    }
}

impl Pipes {
    /// Lends an empty pipe. None: there is none to be had for now.
    pub(super) fn lend(&mut self, now_ms: u64) -> Option<Pipe> {
        if let Some(pipe) = self.idle.take() {
            return Some(pipe);
        }
        if now_ms < self.rest_until_ms {
            return None;
        }
        match (self.make)() {
            Ok(pipe) => {
                self.rest_until_ms = 0;
                Some(pipe)
            }
            Err(error) => {
                if self.rest_until_ms == 0 {
                    tracing::warn!(%error, "no pipe to splice through: bytes are copied until there is");
                }
                self.rest_until_ms = now_ms + REST_MS;
                None
            }
        }
    }

    /// Takes an empty pipe back. One that still holds bytes is dropped instead: they must never
    /// reach somebody else.
    pub(super) fn give_back(&mut self, pipe: Pipe) {
        self.idle = Some(pipe);
    }

    /// Pipes held.
    #[cfg(test)]
    pub(super) const fn count(&self) -> usize {
        self.idle.is_some() as usize
    }

    /// Has later ones made by `make`.
    #[cfg(test)]
    pub(super) fn made_by(&mut self, make: fn() -> Result<Pipe, Errno>) {
        *self = Self { make, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_pipe_that_the_kernel_made_small_is_none() {
        assert_eq!(Pipe::of(8 << 10).err(), Some(Errno::EPERM));
        assert!(Pipe::of(PIPE_BYTES_MIN).is_ok());
    }

    #[test]
    fn whoever_was_refused_a_pipe_asks_again_after_a_while_and_not_before() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let mut pipes = Pipes::default();
        pipes.made_by(|| {
            if ASKED.fetch_add(1, Ordering::SeqCst) == 0 { Err(Errno::EMFILE) } else { Pipe::new() }
        });
        assert!(pipes.lend(5).is_none());
        assert!(pipes.lend(4 + REST_MS).is_none());
        assert_eq!(ASKED.load(Ordering::SeqCst), 1);
        let pipe = pipes.lend(5 + REST_MS).expect("a pipe");
        pipes.give_back(pipe);
        assert!(pipes.lend(0).is_some());
        assert_eq!(ASKED.load(Ordering::SeqCst), 2);
    }
}
