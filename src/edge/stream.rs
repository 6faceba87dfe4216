//! A TCP socket of the door: non-blocking, watched by the door's [`Executor`].

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::task::Poll;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::epoll::Interest;
use super::executor::{Direction, Executor, Watch};
use super::listen::Listener;
use super::socket_options;

/// A connected socket, or one that is about to be.
pub(super) struct Stream {
    fd: OwnedFd,
    watch: Watch,
}

/// What a read found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Read {
    /// So many bytes; never 0.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The peer's FIN.
    End,
}

impl Stream {
    /// Begins to connect. The first [`Stream::write`] succeeds, or says why it failed, when
    /// that is decided.
    ///
    /// # Errors
    /// What the kernel refuses at once.
    pub(super) fn connect(tasks: &Executor, to: SocketAddr) -> io::Result<Self> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
        socket_options::established(&socket)?;
        match socket.connect(&SockAddr::from(to)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Self::new(tasks, OwnedFd::from(socket))
    }

    fn new(tasks: &Executor, fd: OwnedFd) -> io::Result<Self> {
        let watch = tasks.watch(&fd, Interest::Read)?;
        Ok(Self { fd, watch })
    }

    /// The executor it waits with.
    pub(super) const fn tasks(&self) -> &Executor {
        self.watch.tasks()
    }

    /// Waits until a read finds bytes, an end or an error.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.watch.ready(&self.fd, Direction::Read).await
    }

    /// Waits until the peer's FIN or RST is there, whatever lies unread before it.
    pub(super) async fn hung_up(&self) {
        poll_fn(|_| self.watch.poll_hangup()).await;
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// The connection is gone; [`io::ErrorKind::InvalidInput`] for an empty buffer, which would
    /// look like a FIN.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<Read> {
        if buffer.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match recv(self.fd.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(0) => Ok(Read::End),
            Ok(count) => {
                // The kernel had no more than this.
                if count < buffer.len() {
                    self.watch.exhausted(Direction::Read);
                }
                Ok(Read::Bytes(count))
            }
            Err(Errno::EAGAIN) => {
                self.watch.exhausted(Direction::Read);
                Ok(Read::Nothing)
            }
            Err(Errno::EINTR) => Ok(Read::Nothing),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes some of `bytes`, waiting while the socket takes none.
    ///
    /// # Errors
    /// The connection is gone, or could not be made.
    pub(super) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => return Ok(count),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.watch.exhausted(Direction::Write);
                    self.watch.ready(&self.fd, Direction::Write).await?;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As [`Stream::write`].
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.write(bytes).await?;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes what the socket takes at once: words for a peer that may not be listening.
    pub(super) fn write_now(&self, bytes: &[u8]) {
        let _unheard = send(self.fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL);
    }

    /// Says FIN.
    pub(super) fn finish(&self) -> io::Result<()> {
        Ok(shutdown(self.fd.as_raw_fd(), Shutdown::Write)?)
    }

    /// The socket without its executor.
    pub(super) fn leave(self) -> OwnedFd {
        let Self { fd, watch } = self;
        watch.end(&fd);
        fd
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A listener and its place in the executor.
pub(super) struct Acceptor {
    socket: Socket,
    watch: Watch,
}

impl Acceptor {
    /// Watches a listener.
    ///
    /// # Errors
    /// Out of kernel memory or of `fs.epoll.max_user_watches`.
    pub(super) fn new(tasks: &Executor, listener: Listener) -> io::Result<Self> {
        let socket = listener.socket;
        let watch = tasks.watch(&socket, Interest::Read)?;
        Ok(Self { socket, watch })
    }

    /// Waits until somebody may be there, or until `over` says that waiting is over and
    /// the task is woken.
    pub(super) async fn waiting(&self, over: &Cell<bool>) {
        poll_fn(|_| {
            if over.get() {
                return Poll::Ready(());
            }
            // A listener is never waited for to be writable, the one thing that can fail.
            self.watch.poll(&self.socket, Direction::Read).map(drop)
        })
        .await;
    }

    /// Takes one connection out of the kernel's queue; `None` when nobody waits there. It has the
    /// listener's options.
    ///
    /// # Errors
    /// Out of descriptors or memory, or that one connection was gone already.
    pub(super) fn accept(&self) -> io::Result<Option<(Stream, SocketAddr)>> {
        match self.socket.accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) {
            Ok((socket, peer)) => {
                let peer = peer.as_socket().ok_or(io::ErrorKind::NotConnected)?;
                let stream = Stream::new(self.watch.tasks(), OwnedFd::from(socket))?;
                Ok(Some((stream, peer)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.watch.exhausted(Direction::Read);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
