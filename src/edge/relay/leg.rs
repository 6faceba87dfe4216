//! One leg of a live session: its socket, its transport, and what lies between them
//! and the other leg.
//!
//! Knows how to read, to write in order and to seal; `relay` decides what goes where and when.

use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use socket2::SockRef;

use super::super::buffers::{Inbox, Pool};
use super::super::epoll::Readiness;
use super::super::global_requests::Replies;
use super::super::pump::Pipes;
use super::super::sequence::Origins;
use super::alive::ClientAlive;
use super::gcm::PreferGcm;
use crate::ended::Side;
use crate::ssh::entropy::Entropy;
use crate::ssh::fault::Fault;
use crate::ssh::message::{DISCONNECT, Reason, UNIMPLEMENTED};
use crate::ssh::transport::{Context, Instant, Resealed, Transport};
use crate::ssh::wire::Put;

/// Reads up to this many bytes from the VM are acknowledged at once.
const QUICK_ACK_MAX: usize = 16 << 10;

/// One side of a session, as the door hands it over: authenticated, in the connection protocol.
pub struct EstablishedLeg {
    /// A connected TCP socket, non-blocking, with `TCP_NODELAY`.
    pub fd: OwnedFd,
    /// Its SSH transport.
    pub transport: Box<Transport>,
    /// Bytes already read from the socket that the transport has not seen.
    pub leftover: Vec<u8>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::edge) enum Party {
    Client,
    Vm,
}

impl Party {
    pub(in crate::edge) const fn side(self) -> Side {
        match self {
            Self::Client => Side::Client,
            Self::Vm => Side::Vm,
        }
    }

    pub(in crate::edge) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Vm,
            Self::Vm => Self::Client,
        }
    }
}

/// One leg while the session lives.
pub(in crate::edge) struct RelayLeg {
    pub(in crate::edge) fd: OwnedFd,
    pub(in crate::edge) transport: Box<Transport>,
    /// What this leg's peer sent.
    pub(in crate::edge) inbox: Inbox,
    pub(in crate::edge) reading: Reading,
    pub(in crate::edge) writing: Writing,
    pub(in crate::edge) exchange: Exchange,
    /// Where the packets we send on this leg came from.
    pub(in crate::edge) origins: Origins,
    /// What this leg's peer waits for.
    pub(in crate::edge) replies: Replies,
    /// Bytes read so far.
    pub(in crate::edge) received: u64,
    /// Those of them in packets that were not for the other leg.
    idle: u64,
    /// When the peer was last heard.
    pub(in crate::edge) heard: Instant,
}

/// What the socket has for us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::edge) enum Reading {
    /// Nothing, until an event says otherwise.
    Drained,
    /// Perhaps bytes.
    Ready,
    /// Perhaps bytes, then the peer's FIN or RST, of which no further event will tell.
    HungUp,
    /// The peer's FIN was read, or the socket failed.
    Finished,
}

impl Reading {
    pub(in crate::edge) const fn may_read(self) -> bool {
        matches!(self, Self::Ready | Self::HungUp)
    }

    /// With what epoll said.
    pub(in crate::edge) const fn after(self, readiness: Readiness) -> Self {
        match self {
            Self::Drained | Self::Ready | Self::HungUp if readiness.hangup => Self::HungUp,
            Self::Drained if readiness.readable => Self::Ready,
            Self::Drained | Self::Ready | Self::HungUp | Self::Finished => self,
        }
    }
}

/// What the socket takes from us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::edge) enum Writing {
    /// Perhaps bytes.
    Ready,
    /// Nothing, until an event says otherwise.
    Full,
    /// Nothing ever: our FIN is out, or the peer is gone.
    Finished,
}

impl Writing {
    /// With what epoll said.
    pub(in crate::edge) const fn after(self, readiness: Readiness) -> Self {
        match self {
            Self::Full if readiness.writable => Self::Ready,
            Self::Ready | Self::Full | Self::Finished => self,
        }
    }
}

/// A key exchange of one leg, from its first KEXINIT to the peer's NEWKEYS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::edge) enum Exchange {
    None,
    /// We sent the first KEXINIT: data of the peer may still come before its own.
    Ours,
    /// The peer did: nothing but key exchange comes from it.
    Peers,
}

/// Why a session cannot go on.
#[derive(Clone, Copy, Debug)]
pub(in crate::edge) enum Stop {
    /// A transport gave up, or the peer said goodbye.
    Fault(Party, Fault),
    /// A socket failed.
    Lost(Party, Errno),
}

/// What a turn of any session uses, one a pump.
pub(in crate::edge) struct PumpContext {
    pub(in crate::edge) pool: Pool,
    pub(in crate::edge) entropy: Box<dyn Entropy + Send>,
    pub(in crate::edge) now: Instant,
    pub(in crate::edge) prefer_gcm: PreferGcm,
    pub(in crate::edge) client_alive: ClientAlive,
    pub(in crate::edge) pipes: Pipes,
    pub(in crate::edge) tally: Tally,
}

/// What happened since the pump last looked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::edge) struct Tally {
    /// Bytes read from clients.
    pub(in crate::edge) up: u64,
    /// Bytes read from VMs.
    pub(in crate::edge) down: u64,
    /// Key exchanges completed.
    pub(in crate::edge) rekeys: u64,
    /// Of spliced sessions: bytes moved without a copy.
    pub(in crate::edge) spliced: u64,
    /// Bytes copied because they were stuck in the pipe.
    pub(in crate::edge) stuck: u64,
    /// Bytes copied because there was no pipe.
    pub(in crate::edge) unpiped: u64,
}

/// What a read brought.
pub(in crate::edge) enum Read {
    /// So many, never 0.
    Bytes(usize),
    Nothing,
    End,
}

impl PumpContext {
    pub(in crate::edge) fn context(&mut self) -> Context<'_> {
        Context { now: self.now, entropy: &mut *self.entropy }
    }
}

impl RelayLeg {
    pub(in crate::edge) fn new(leg: EstablishedLeg) -> Self {
        let exchange = match (leg.transport.is_offering(), leg.transport.is_held()) {
            (true, _) => Exchange::Ours,
            (false, true) => Exchange::Peers,
            (false, false) => Exchange::None,
        };
        Self {
            fd: leg.fd,
            received: u64::try_from(leg.leftover.len()).unwrap_or_default(),
            idle: 0,
            inbox: Inbox::new(leg.leftover),
            transport: leg.transport,
            // What lies in the socket already, epoll tells when it begins to watch.
            reading: Reading::Drained,
            writing: Writing::Ready,
            exchange,
            origins: Origins::new(),
            replies: Replies::default(),
            heard: Instant(0),
        }
    }

    /// A payload of the other leg may be sealed for this one.
    pub(in crate::edge) fn takes(&self) -> bool {
        self.writing == Writing::Ready && !self.transport.is_held()
    }

    /// The peer has said its last in the middle of a key exchange: it completes none, and can be
    /// told nothing more.
    pub(in crate::edge) fn is_left_in_exchange(&self) -> bool {
        self.reading == Reading::Finished
            && self.transport.is_held()
            && self.transport.unsigned().is_none()
            && !self.inbox.has_unopened()
    }

    /// The next packet of this leg may be opened, whatever is in it.
    pub(in crate::edge) fn may_open(&self, to: &Self) -> bool {
        to.takes() || self.exchange == Exchange::Peers
    }

    /// Something of this leg waits until the other one takes more.
    pub(in crate::edge) fn is_kept_waiting(&self, to: &Self) -> bool {
        (self.reading == Reading::Ready || self.inbox.has_unopened()) && !self.may_open(to)
    }

    pub(in crate::edge) const fn may_read(&self) -> bool {
        self.reading.may_read()
    }

    /// One read of what the socket has.
    pub(in crate::edge) fn read(
        &mut self,
        party: Party,
        tools: &mut PumpContext,
    ) -> Result<Read, Stop> {
        let packet = self.transport.needs();
        let Some(room) = self.inbox.room(packet, &mut tools.pool) else {
            let len = u32::try_from(packet).unwrap_or(u32::MAX);
            return Err(Stop::Fault(party, Fault::Length { len }));
        };
        let read = receive(&self.fd, &mut self.reading, room, MsgFlags::empty())
            .map_err(|errno| Stop::Lost(party, errno))?;
        if let Read::Bytes(count) = read {
            self.inbox.filled(count);
            self.count(party, count, tools);
            if party == Party::Vm && wants_quick_ack(count) {
                // Not lasting: the kernel goes back to delayed acknowledgements by itself.
                let _ = SockRef::from(&self.fd).set_tcp_quickack(true);
            }
        }
        Ok(read)
    }

    /// One read of bytes that nobody will look at. They never come near the inbox, where a run for
    /// the other leg may wait, and over TCP not even out of the kernel (`MSG_TRUNC`, tcp(7)).
    pub(in crate::edge) fn discard(
        &mut self,
        party: Party,
        tools: &mut PumpContext,
    ) -> Result<Read, Errno> {
        let Self { fd, reading, .. } = self;
        let read = tools.pool.scratch(|room| receive(fd, reading, room, MsgFlags::MSG_TRUNC))?;
        if let Read::Bytes(count) = read {
            self.count(party, count, tools);
        }
        Ok(read)
    }

    fn count(&mut self, party: Party, count: usize, tools: &mut PumpContext) {
        let count = u64::try_from(count).unwrap_or_default();
        self.received += count;
        self.heard = tools.now;
        match party {
            Party::Client => tools.tally.up += count,
            Party::Vm => tools.tally.down += count,
        }
    }

    /// Drops the opened packet at the front, of `used` bytes, which is not for the other leg.
    pub(in crate::edge) fn drop_idle(&mut self, used: usize) {
        self.inbox.skip(used);
        self.idle += u64::try_from(used).unwrap_or_default();
    }

    /// Bytes received for the other leg, as far as is known.
    pub(in crate::edge) const fn carried(&self) -> u64 {
        self.received.saturating_sub(self.idle)
    }

    /// Writes what is sealed for this leg: the run in the other leg's inbox, then the transport's
    /// output. True if that showed the peer to be gone.
    pub(in crate::edge) fn flush(&mut self, run: &mut Inbox) -> bool {
        while self.writing == Writing::Ready {
            let in_run = !run.run().is_empty();
            let bytes = if in_run { run.run() } else { self.transport.output() };
            if bytes.is_empty() {
                return false;
            }
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match send(self.fd.as_raw_fd(), bytes, flags) {
                Ok(count) => {
                    if count < bytes.len() {
                        self.writing = Writing::Full;
                    }
                    if in_run {
                        run.written(count);
                    } else {
                        self.transport.sent(count);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.writing = Writing::Full,
                Err(_) => {
                    // The verdict is left to the reading side: the peer's last words may
                    // still lie there.
                    self.writing = Writing::Finished;
                    if self.reading == Reading::Drained {
                        self.reading = Reading::HungUp;
                    }
                    self.drop_sealed(run);
                    return true;
                }
            }
        }
        if self.writing == Writing::Finished {
            self.drop_sealed(run);
        }
        false
    }

    fn drop_sealed(&mut self, run: &mut Inbox) {
        run.forget_run();
        self.transport.sent(self.transport.output().len());
    }

    /// Says FIN.
    pub(in crate::edge) fn finish(&mut self) {
        let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Write);
        self.writing = Writing::Finished;
    }

    /// Answers a request of this leg's peer in its turn.
    pub(in crate::edge) fn answer(
        &mut self,
        message: Vec<u8>,
        tools: &mut PumpContext,
    ) -> Result<(), Fault> {
        match self.replies.answer(message)? {
            Some(message) => self.transport.send(&message, &mut tools.context()),
            None => Ok(()),
        }
    }

    /// The same, where the answer may be somebody else's to make.
    pub(in crate::edge) fn answer_or_wait(
        &mut self,
        message: Option<Vec<u8>>,
        tools: &mut PumpContext,
    ) -> Result<(), Fault> {
        match message {
            Some(message) => self.answer(message, tools),
            None => self.replies.answer_later(),
        }
    }

    /// The answer is here that was to come later, in its turn.
    pub(in crate::edge) fn answer_came(
        &mut self,
        message: Vec<u8>,
        tools: &mut PumpContext,
    ) -> Result<(), Fault> {
        let due = self.replies.answer_came(message);
        self.say(&due, tools)
    }

    /// Tells this leg's peer the other side's reply in its turn, and the answers of ours that
    /// waited for it.
    pub(in crate::edge) fn reply(
        &mut self,
        reply: Vec<u8>,
        tools: &mut PumpContext,
    ) -> Result<(), Fault> {
        let due = self.replies.reply(reply)?;
        self.say(&due, tools)
    }

    /// A reply of the other side has gone to this leg's peer: the answers of ours that
    /// waited for it follow.
    pub(in crate::edge) fn reply_passed(&mut self, tools: &mut PumpContext) -> Result<(), Fault> {
        let due = self.replies.passed();
        self.say(&due, tools)
    }

    fn say(&mut self, due: &[Vec<u8>], tools: &mut PumpContext) -> Result<(), Fault> {
        due.iter().try_for_each(|message| self.transport.send(message, &mut tools.context()))
    }

    /// Tells this leg's peer that nobody knew its message `seq`.
    pub(in crate::edge) fn unimplemented(
        &mut self,
        seq: u32,
        tools: &mut PumpContext,
    ) -> Result<(), Fault> {
        let mut message = vec![UNIMPLEMENTED];
        message.put_u32(seq);
        self.transport.send(&message, &mut tools.context())
    }

    /// Passes the other peer's DISCONNECT on.
    pub(in crate::edge) fn farewell(&mut self, reason: u32, text: &[u8], tools: &mut PumpContext) {
        let mut message = vec![DISCONNECT];
        message.put_u32(reason);
        message.put_string(text);
        message.put_string(b"");
        if self.transport.is_held() || self.transport.send(&message, &mut tools.context()).is_err()
        {
            let text = "the other side ended the session";
            self.transport.disconnect(Reason::ByApplication, text, &mut tools.context());
        }
    }
}

/// One read into `room`, which is not empty.
pub(in crate::edge) fn receive(
    fd: &OwnedFd,
    reading: &mut Reading,
    room: &mut [u8],
    flags: MsgFlags,
) -> Result<Read, Errno> {
    loop {
        match recv(fd.as_raw_fd(), room, flags | MsgFlags::MSG_DONTWAIT) {
            Ok(0) => {
                *reading = Reading::Finished;
                return Ok(Read::End);
            }
            Ok(count) => {
                // Edge-triggered: a short read emptied the socket, and what comes later is a new
                // event. Only the FIN of a hang-up seen already is not.
                if count < room.len() && *reading == Reading::Ready {
                    *reading = Reading::Drained;
                }
                return Ok(Read::Bytes(count));
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                *reading = Reading::Drained;
                return Ok(Read::Nothing);
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// Seals a message for the other leg, where it lies if that works.
pub(in crate::edge) fn reseal_for_other_leg(
    party: Party,
    from: &mut RelayLeg,
    to: &mut RelayLeg,
    used: usize,
    payload: Range<usize>,
    tools: &mut PumpContext,
) -> Result<(), Stop> {
    let received = from.transport.receive_seq().wrapping_sub(1);
    let sent = to.transport.send_seq();
    let packet = &mut from.inbox.unopened()[..used];
    match to
        .transport
        .reseal(packet, payload, &mut tools.context())
        .map_err(|fault| Stop::Fault(party.other(), fault))?
    {
        Resealed::InPlace => from.inbox.keep(used, used),
        Resealed::Copied => from.inbox.skip(used),
    }
    // A message held back for a key exchange goes out under a number that nobody knows yet.
    if !to.transport.is_held() {
        to.origins.record(sent, received);
    }
    Ok(())
}

/// Whether bytes from the VM are to be acknowledged at once. Its sshd has Nagle's algorithm on
/// until a session is interactive, and would wait for our delayed acknowledgement; a login takes
/// 42 ms more without. In bulk the kernel acknowledges every other segment anyway, and each call
/// would cost a packet.
const fn wants_quick_ack(count: usize) -> bool {
    count <= QUICK_ACK_MAX
}
