//! Readiness of many sockets, edge-triggered, and the way for other threads to end a wait.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::slab::Key;

/// Most events taken by one wait. More stay in the kernel and come with the next.
const EVENTS_MAX: usize = 256;

/// The epoll data of the eventfd. No [`Target`] packs to it: indices stay below 2^30.
const WAKE: u64 = u64::MAX;

/// Which socket an event is about: an entry of the pump, and one of its two sockets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Target {
    /// The entry.
    pub(super) key: Key,
    /// The second socket of the entry, not the first.
    pub(super) second: bool,
}

impl Target {
    const fn pack(self) -> u64 {
        ((self.key.generation as u64) << 32) | ((self.key.index as u64) << 1) | self.second as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "takes the two halves apart again")]
    const fn unpack(data: u64) -> Self {
        let key = Key { index: (data as u32) >> 1, generation: (data >> 32) as u32 };
        Self { key, second: data & 1 == 1 }
    }
}

/// What a socket is ready for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Readiness {
    /// Bytes, or an end, or an error can be read.
    pub(super) readable: bool,
    /// A send will take something, or fail for good.
    pub(super) writable: bool,
    /// The peer's FIN or RST is here: a short read does not mean that the next one would wait.
    pub(super) hangup: bool,
}

/// What a socket is watched for; its end and its errors are always told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Interest {
    /// Bytes to read. A socket that can be written says nothing.
    Read,
    /// Both directions.
    Both,
}

impl Interest {
    fn event(self, target: Target) -> EpollEvent {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        let flags = match self {
            Self::Read => flags,
            Self::Both => flags | EpollFlags::EPOLLOUT,
        };
        EpollEvent::new(flags, target.pack())
    }
}

/// An epoll instance and its eventfd.
pub(super) struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

/// What one wait brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Event {
    /// Another thread called [`Waker::wake`].
    Woken,
    /// A socket changed.
    Ready(Target, Readiness),
}

/// Ends a wait of the [`Poller`] it was made with, from any thread.
#[derive(Debug)]
pub(super) struct Waker(EventFd);

impl Waker {
    /// The next or current wait returns. The counter cannot overflow in practice, and if it did,
    /// the poller would be awake: so there is nothing to report.
    pub(super) fn wake(&self) {
        let _ = self.0.write(1);
    }
}

impl Poller {
    /// A poller that watches nothing but its waker.
    ///
    /// # Errors
    /// Out of file descriptors or kernel memory.
    pub(super) fn new() -> io::Result<(Self, Waker)> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake =
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        // Edge-triggered, so that nobody has to read it: each wake is an event of its own.
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, WAKE))?;
        Ok((Self { epoll, events: vec![EpollEvent::empty(); EVENTS_MAX] }, Waker(wake)))
    }

    /// Watches a socket, edge-triggered. If it is ready now, the next wait says so.
    ///
    /// # Errors
    /// Out of kernel memory or of `fs.epoll.max_user_watches`.
    pub(super) fn watch(
        &self,
        fd: impl AsFd,
        target: Target,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(self.epoll.add(fd, interest.event(target))?)
    }

    /// Watches a watched socket for something else. If it is ready now, the next wait says so.
    ///
    /// # Errors
    /// Out of kernel memory.
    pub(super) fn change(
        &self,
        fd: impl AsFd,
        target: Target,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut interest.event(target))?)
    }

    /// Stops watching a socket that stays open; closing one does that by itself.
    pub(super) fn forget(&self, fd: impl AsFd) {
        let _ = self.epoll.delete(fd);
    }

    /// Waits until something happens or `timeout` is over.
    ///
    /// # Errors
    /// None but a broken descriptor, which is our own bug.
    pub(super) fn wait(
        &mut self,
        timeout: EpollTimeout,
    ) -> io::Result<impl Iterator<Item = Event> + '_> {
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        Ok(self.events[..count].iter().map(|event| match event.data() {
            WAKE => Event::Woken,
            data => Event::Ready(Target::unpack(data), readiness(event.events())),
        }))
    }
}

fn readiness(flags: EpollFlags) -> Readiness {
    let hangup =
        flags.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
    let broken = flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
    Readiness {
        readable: hangup || flags.contains(EpollFlags::EPOLLIN),
        writable: broken || flags.contains(EpollFlags::EPOLLOUT),
        hangup,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_survives_packing_and_never_looks_like_the_waker() {
        for index in [0, 1, (1 << 30) - 1] {
            for generation in [0, 1, u32::MAX] {
                for second in [false, true] {
                    let target = Target { key: Key { index, generation }, second };
                    assert_eq!(Target::unpack(target.pack()), target);
                    assert_ne!(target.pack(), WAKE);
                }
            }
        }
    }

    #[test]
    fn a_wake_ends_a_wait_once() {
        let (mut poller, waker) = Poller::new().unwrap();
        waker.wake();
        waker.wake();
        let events: Vec<_> = poller.wait(EpollTimeout::NONE).unwrap().collect();
        assert_eq!(events, [Event::Woken]);
        assert_eq!(poller.wait(EpollTimeout::ZERO).unwrap().count(), 0);
    }
}
