//! One SSH transport over one TCP socket, for a thread that waits with poll(2). Both roles use it:
//! the VMs answer with it, the check logs in with it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant as Clock;

use nix::poll::{PollFd, PollFlags};

use crate::ssh::entropy::SystemEntropy;
use crate::ssh::fault::Fault;
use crate::ssh::message::Reason;
use crate::ssh::transport::{Context, Event, Instant, Transport};

/// What is read at once.
const INBOX_BYTES: usize = 64 << 10;
/// While more than this waits to be written, nothing that the other side did not ask for is added.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

/// Why a link is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The peer closed the socket.
    #[error("the other side closed the connection")]
    Closed,
    /// The socket failed.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// The peer broke the protocol, or said goodbye.
    #[error("{0}")]
    Fault(#[from] Fault),
}

/// A socket, its transport, and what was read of a packet that is not whole yet.
pub(super) struct Link {
    stream: TcpStream,
    transport: Transport,
    entropy: SystemEntropy,
    began: Clock,
    inbox: Vec<u8>,
    /// Where in the inbox the bytes begin and end that the transport has not seen.
    unread: std::ops::Range<usize>,
}

impl Link {
    /// Takes over a connected socket.
    pub(super) fn new(
        stream: TcpStream,
        transport: impl FnOnce(&mut Context<'_>) -> Transport,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let mut entropy = SystemEntropy::default();
        let transport = transport(&mut Context { now: Instant(0), entropy: &mut entropy });
        Ok(Self {
            stream,
            transport,
            entropy,
            began: Clock::now(),
            inbox: vec![0; INBOX_BYTES],
            unread: 0..0,
        })
    }

    /// The socket's addresses: the peer's, ours.
    pub(super) fn addresses(&self) -> io::Result<[std::net::SocketAddr; 2]> {
        Ok([self.stream.peer_addr()?, self.stream.local_addr()?])
    }

    /// What to wait for.
    pub(super) fn interest(&self) -> PollFd<'_> {
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, !self.transport.output().is_empty());
        PollFd::new(self.stream.as_fd(), events)
    }

    /// Data may be sent: no key exchange holds it back, and the peer reads what it gets.
    pub(super) fn takes_data(&self) -> bool {
        takes_data(&self.transport)
    }

    /// Runs `body` with the transport and a context of now.
    pub(super) fn with<T>(
        &mut self,
        body: impl FnOnce(&mut Transport, &mut Context<'_>) -> T,
    ) -> T {
        let mut cx = Context { now: now(self.began), entropy: &mut self.entropy };
        body(&mut self.transport, &mut cx)
    }

    /// Reads once and hands every packet to `handle`, with the payload's bytes where there is one.
    pub(super) fn receive(
        &mut self,
        mut handle: impl FnMut(&mut Transport, &Event, &[u8], &mut Context<'_>) -> Result<(), Fault>,
    ) -> Result<(), Broken> {
        self.make_room();
        match (&self.stream).read(&mut self.inbox[self.unread.end..]) {
            Ok(0) => return Err(Broken::Closed),
            Ok(count) => self.unread.end += count,
            Err(error) if is_later(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let mut cx = Context { now: now(self.began), entropy: &mut self.entropy };
        loop {
            let input = &mut self.inbox[self.unread.clone()];
            let received = self.transport.receive(input, &mut cx)?;
            if received.event == Event::Starved {
                return Ok(());
            }
            let payload = received.event.payload(input);
            handle(&mut self.transport, &received.event, payload, &mut cx)?;
            self.unread.start += received.used;
        }
    }

    /// Room for at least one more byte: by moving what is unread to the front, or, for a packet
    /// longer than the inbox, by growing to what the transport says it takes. The transport has
    /// checked that against its own limit.
    fn make_room(&mut self) {
        self.inbox.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        let wanted = self.transport.needs().max(self.unread.end + 1);
        if self.inbox.len() < wanted {
            self.inbox.resize(wanted, 0);
        }
    }

    /// Writes what the socket takes. A key exchange that is due by our own limits begins here.
    pub(super) fn flush(&mut self) -> Result<(), Broken> {
        if self.transport.rekey_due(now(self.began)) {
            self.with(|transport, cx| transport.rekey(None, cx))?;
        }
        while !self.transport.output().is_empty() {
            match (&self.stream).write(self.transport.output()) {
                Ok(count) => self.transport.sent(count),
                Err(error) if is_later(&error) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Says goodbye, as far as the socket takes it at once.
    pub(super) fn disconnect(&mut self, text: &str) {
        self.with(|transport, cx| transport.disconnect(Reason::ByApplication, text, cx));
        // Whoever does not read hears nothing.
        let _unheard = self.flush();
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// See [`Link::takes_data`].
pub(super) fn takes_data(transport: &Transport) -> bool {
    !transport.is_held() && transport.output().len() < OUTPUT_BYTES_MAX
}

fn now(began: Clock) -> Instant {
    Instant(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// Nothing is wrong: there is just nothing to be done now.
pub(super) fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
