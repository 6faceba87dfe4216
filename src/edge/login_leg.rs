//! One SSH transport over one socket, while the door owns it.
//!
//! A waiting leg holds no read buffer: it waits for readability, then borrows the shard's
//! one scratch buffer for a single synchronous turn. Only a cut-off packet is kept, and
//! completed where it lies: however small the pieces that it comes in, each of its bytes is
//! moved a few times at most.

use std::cell::RefCell;
use std::net::IpAddr;
use std::{io, mem};

use socket2::SockRef;
use zeroize::Zeroize as _;

use super::stream::{Read, Stream};
use super::{clock, relay, socket_options};
use crate::ended::{Cause, Detail, Ended, Side, Stage};
use crate::ssh::entropy::{Entropy, SystemEntropy};
use crate::ssh::fault::Fault;
use crate::ssh::transport::{Context, Event, Instant, Transport};

/// What a shard's legs share: one read buffer and one source of randomness, used by one leg at a
/// time and never across an await.
pub(super) struct Scratch {
    buffer: RefCell<Box<[u8]>>,
    entropy: RefCell<SystemEntropy>,
}

/// Turns one leg may take in a row before others get the thread.
const TURNS_MAX: u32 = 16;
/// Packets one leg may have handled in a row before others get the thread: each may
/// cost a signature.
const PACKETS_MAX: u32 = 4;
/// Most bytes read at once: what is left over while others have their turn is kept in memory.
const READ_BYTES_MAX: usize = 64 * 1024;

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            buffer: RefCell::new(vec![0; READ_BYTES_MAX].into_boxed_slice()),
            entropy: RefCell::new(SystemEntropy::default()),
        }
    }

    /// 64 random bits.
    pub(super) fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.borrow_mut().fill(&mut bytes);
        u64::from_ne_bytes(bytes)
    }

    /// Reads once, at most so much that `bytes` holds `max_bytes`.
    pub(super) fn read(
        &self,
        stream: &Stream,
        bytes: &mut Vec<u8>,
        max_bytes: usize,
    ) -> io::Result<Read> {
        let mut buffer = self.buffer.borrow_mut();
        let room = max_bytes.saturating_sub(bytes.len()).min(buffer.len());
        let read = stream.read(&mut buffer[..room])?;
        if let Read::Bytes(count) = read {
            bytes.extend_from_slice(&buffer[..count]);
        }
        Ok(read)
    }

    /// Reads what nobody wants any more, until the peer's FIN.
    pub(super) async fn read_to_end(&self, stream: &Stream) -> io::Result<()> {
        let mut turns = 0;
        loop {
            stream.readable().await?;
            turns += 1;
            if turns % TURNS_MAX == 0 {
                stream.tasks().yield_now().await;
            }
            if stream.read(&mut self.buffer.borrow_mut())? == Read::End {
                return Ok(());
            }
        }
    }

    /// Runs `body` with a context of now.
    pub(super) fn with_context<T>(&self, body: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let mut entropy = self.entropy.borrow_mut();
        let entropy: &mut dyn Entropy = &mut *entropy;
        body(&mut Context { now: Instant(clock::monotonic_ms()), entropy })
    }
}

/// Why a leg broke.
#[derive(Debug)]
pub(super) enum Broken {
    /// The peer closed the socket.
    Closed,
    /// The socket failed.
    Socket(io::Error),
    /// The peer broke the protocol, or said goodbye.
    Fault(Fault),
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl Broken {
    /// As the end of a connection, when the leg towards `side` broke in `stage`.
    pub(super) fn ended(&self, side: Side, stage: Stage) -> Ended {
        let cause = match self {
            Self::Closed => Cause::Closed,
            Self::Socket(_) => Cause::Reset,
            Self::Fault(fault) => Cause::from(fault),
        };
        Ended { side, stage, cause }
    }

    /// What is known beyond that: the peer's own words if it had some, else what went wrong.
    pub(super) fn detail(&self, transport: &Transport) -> Option<Detail> {
        let said = || Some(Detail::said(&transport.last_words(Detail::BYTES_MAX)?));
        match self {
            // What went wrong then, ours or the network's, says less than what it said.
            Self::Closed | Self::Fault(Fault::Disconnected { .. } | Fault::Ident) => said(),
            Self::Socket(error) => said().or_else(|| Some(Detail::found(error))),
            Self::Fault(fault) => Some(Detail::found(fault)),
        }
    }
}

/// A leg: socket, transport, and the bytes of a packet that is not whole yet.
pub(super) struct LoginLeg {
    stream: Stream,
    towards: Towards,
    pub(super) transport: Transport,
    unread: Vec<u8>,
    /// Bytes at the front of `unread` whose packets were handled; never all of them.
    handled: usize,
}

/// What came of a turn.
enum Turn<T> {
    /// What was looked for.
    Found(T),
    /// All that is there was handled.
    Starved,
    /// There may be more.
    More,
}

/// Who is at the other end of the socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Towards {
    Client,
    /// Its Nagle waits for our delayed ACK: acknowledge every read at once (a login
    /// takes half the time).
    Vm,
}

impl LoginLeg {
    /// The client's leg. `unread`: bytes already read from the socket.
    pub(super) fn from_client(stream: Stream, transport: Transport, unread: Vec<u8>) -> Self {
        Self { stream, towards: Towards::Client, transport, unread, handled: 0 }
    }

    /// The VM's leg.
    pub(super) fn to_vm(stream: Stream, transport: Transport) -> Self {
        Self { stream, towards: Towards::Vm, transport, unread: Vec::new(), handled: 0 }
    }

    /// Reads and handles packets until `handle` returns something, writing all output on
    /// the way except what came with that last packet: it goes out with what the caller
    /// adds to it. `handle` gets every event but [`Event::Starved`], with the payload's
    /// bytes where there is one.
    pub(super) async fn drive<T>(
        &mut self,
        scratch: &Scratch,
        mut handle: impl FnMut(
            &mut Transport,
            &Event,
            &[u8],
            &mut Context<'_>,
        ) -> Result<Option<T>, Fault>,
    ) -> Result<T, Broken> {
        self.flush().await?;
        let mut turns = 0;
        // What came with the last packet of the phase before may already hold whole packets.
        let mut look_first = !self.unread.is_empty();
        loop {
            if !look_first {
                self.stream.readable().await?;
            }
            let turn = self.turn(scratch, look_first, &mut handle);
            look_first = matches!(turn, Ok(Turn::More));
            // What we send carries the acknowledgement; where we send nothing the VM waits for one.
            if self.towards == Towards::Vm && self.transport.output().is_empty() {
                socket_options::acknowledge_now(&self.stream);
            }
            match turn {
                Ok(Turn::Found(found)) => return Ok(found),
                Ok(Turn::Starved | Turn::More) => {
                    if let Err(error) = self.flush().await {
                        // Whoever hung up may have said why, and it was not read yet.
                        let _heard = self.turn(scratch, false, &mut handle);
                        return Err(error.into());
                    }
                }
                Err(broken) => {
                    // A peer that does not read its last words must not change what it is told for.
                    self.say_now();
                    return Err(broken);
                }
            }
            turns += 1;
            if look_first || turns % TURNS_MAX == 0 {
                self.stream.tasks().yield_now().await;
            }
        }
    }

    /// One read, or none, and the packets in it, up to a bound. Synchronous: it borrows
    /// the shard's buffer.
    fn turn<T>(
        &mut self,
        scratch: &Scratch,
        unread_only: bool,
        handle: &mut impl FnMut(
            &mut Transport,
            &Event,
            &[u8],
            &mut Context<'_>,
        ) -> Result<Option<T>, Fault>,
    ) -> Result<Turn<T>, Broken> {
        let mut buffer = scratch.buffer.borrow_mut();
        let mut filled = 0;
        if !unread_only {
            match self.stream.read(&mut buffer)? {
                Read::End => return Err(Broken::Closed),
                Read::Bytes(count) => filled = count,
                // Readiness was spurious: keep what we had.
                Read::Nothing => {}
            }
        }
        let mut unread = mem::take(&mut self.unread);
        let before = mem::take(&mut self.handled);
        let lies_in_scratch = unread.is_empty();
        let (bytes, mut start) = if lies_in_scratch {
            (&mut buffer[..filled], 0)
        } else {
            unread.extend_from_slice(&buffer[..filled]);
            (&mut unread[..], before)
        };
        let mut packets = 0;
        let found = scratch.with_context(|cx| {
            loop {
                let input = &mut bytes[start..];
                let received = self.transport.receive(input, cx)?;
                if received.event == Event::Starved {
                    return Ok(Turn::Starved);
                }
                let payload = received.event.payload(input);
                let handled = handle(&mut self.transport, &received.event, payload, cx);
                // A fault of the layer above is the peer's fault all the same, and told like one.
                let found = handled.inspect_err(|fault| {
                    self.transport.disconnect(fault.reason(), &fault.to_string(), cx);
                })?;
                start += received.used;
                if let Some(found) = found {
                    return Ok::<_, Fault>(Turn::Found(found));
                }
                packets += 1;
                if packets == PACKETS_MAX {
                    return Ok(Turn::More);
                }
            }
        });
        // What was opened there, a proof maybe, is of no use any more but to who reads our memory.
        bytes[before..start].zeroize();
        let left = &bytes[start..];
        // What is left moves to the front, into as much memory as it needs, once it is
        // the smaller part.
        if lies_in_scratch || left.len() <= start {
            self.unread = left.to_vec();
        } else {
            (self.unread, self.handled) = (unread, start);
        }
        Ok(found?)
    }

    /// Has a host that is gone noticed soon: of a leg that stays with the door for long.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn be_watchful(&self) -> io::Result<()> {
        socket_options::be_watchful(&SockRef::from(&self.stream))
    }

    /// Begins a key exchange if the keys are worn or old: of a leg that stays with the door for
    /// long. Until it is over, what is sent is held back.
    ///
    /// # Errors
    /// The transport's.
    pub(super) fn rekey_if_due(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        if self.transport.rekey_due(cx.now) {
            self.transport.rekey(None, cx)?;
        }
        Ok(())
    }

    /// Writes all of the transport's output.
    ///
    /// # Errors
    /// The connection is gone, or could not be made.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while !self.transport.output().is_empty() {
            let count = self.stream.write(self.transport.output()).await?;
            self.transport.sent(count);
        }
        Ok(())
    }

    /// Writes what the socket takes of the output at once, for a peer that may not be listening.
    pub(super) fn say_now(&self) {
        self.stream.write_now(self.transport.output());
    }

    /// Writes what is left, closes our direction and reads the peer's to its end: data that nobody
    /// reads would turn the close into a reset, and the last words would be lost with it.
    pub(super) async fn finish(&mut self, scratch: &Scratch) -> Result<(), Broken> {
        self.flush().await?;
        self.stream.finish()?;
        Ok(scratch.read_to_end(&self.stream).await?)
    }

    /// Reads nothing more, and waits until the peer is gone.
    pub(super) async fn hung_up(&self) -> Broken {
        self.stream.hung_up().await;
        Broken::Closed
    }

    /// Our own address on this leg.
    pub(super) fn local_ip(&self) -> Option<IpAddr> {
        let address = SockRef::from(&self.stream).local_addr().ok()?.as_socket()?;
        Some(address.ip().to_canonical())
    }

    /// Taken apart, for a session whose keys go elsewhere: the bytes were read and not opened.
    pub(super) fn into_parts(mut self) -> (Stream, Transport, Vec<u8>) {
        self.unread.drain(..self.handled);
        (self.stream, self.transport, self.unread)
    }

    /// Leaves the door for the pump.
    pub(super) fn leave(mut self) -> relay::EstablishedLeg {
        let fd = self.stream.leave();
        self.unread.drain(..self.handled);
        relay::EstablishedLeg { fd, transport: Box::new(self.transport), leftover: self.unread }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpStream;
    use std::time::Duration;

    use super::super::executor::tests::{accepted, acceptor, run};
    use super::*;
    use crate::ssh::message::CHANNEL_DATA;
    use crate::ssh::testing::Pair;

    /// A large packet that drips in, behind small ones that are whole.
    #[test]
    fn a_packet_in_tiny_pieces_is_not_moved_again_for_each_of_them() {
        const PIECE_BYTES: usize = 100;
        run(|tasks| async move {
            let (acceptor, address) = acceptor(&tasks);
            let mut client = TcpStream::connect(address).unwrap();
            client.set_nodelay(true).unwrap();
            let stream = accepted(&acceptor).await;
            let mut pair = Pair::connected(5);
            let large: Vec<u8> = (0..30_000_u32).map(|n| n.to_be_bytes()[3] | 1).collect();
            let large = [&[CHANNEL_DATA][..], &large[..]].concat();
            let sent = [&[CHANNEL_DATA, 1][..], &[CHANNEL_DATA, 2], &large, &[CHANNEL_DATA, 3]];
            for payload in sent {
                pair.at_client(|transport, cx| transport.send(payload, cx)).unwrap();
            }
            let wire = pair.client.take_output();
            let mut leg = LoginLeg::from_client(stream, pair.server.transport, Vec::new());
            let scratch = Scratch::new();
            let mut came = Vec::new();
            let (mut memory, mut moved) = ((leg.unread.as_ptr(), 0), 0);
            for piece in wire.chunks(PIECE_BYTES) {
                client.write_all(piece).unwrap();
                leg.stream.readable().await.unwrap();
                let turn = leg.turn(&scratch, false, &mut |_, event, payload, _| {
                    if matches!(event, Event::Payload(_)) {
                        came.push(payload.to_vec());
                    }
                    Ok(None::<()>)
                });
                assert!(matches!(turn, Ok(Turn::Starved)));
                assert!(leg.handled < leg.unread.len().max(1));
                let now = (leg.unread.as_ptr(), leg.unread.capacity());
                if now != memory {
                    (memory, moved) = (now, moved + leg.unread.len());
                }
            }
            assert_eq!(came, sent);
            assert!(moved < 4 * wire.len(), "{moved} bytes moved for {}", wire.len());
            assert!(leg.leave().leftover.is_empty());
        });
    }

    /// A leg of which nobody else takes care: new keys, again and again, and nothing is lost.
    #[test]
    fn a_leg_that_stays_notices_who_is_gone_and_has_new_keys_when_they_are_due() {
        run(|tasks| async move {
            let (acceptor, address) = acceptor(&tasks);
            let _client = TcpStream::connect(address).unwrap();
            let stream = accepted(&acceptor).await;
            let pair = Pair::connected(3);
            let mut leg = LoginLeg::from_client(stream, pair.server.transport, Vec::new());
            let scratch = Scratch::new();
            leg.be_watchful().unwrap();
            let socket = SockRef::from(&leg.stream);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(10));
            let at = |leg: &mut LoginLeg, age_ms: u64| {
                let mut entropy = scratch.entropy.borrow_mut();
                let mut cx = Context { now: Instant(age_ms), entropy: &mut *entropy };
                leg.rekey_if_due(&mut cx).unwrap();
                leg.transport.is_held()
            };
            assert!(!at(&mut leg, 60_000));
            assert!(at(&mut leg, 2 * 3_600_000));
            // One that runs is not begun again.
            let begun = leg.transport.output().len();
            assert!(at(&mut leg, 3 * 3_600_000));
            assert_eq!(leg.transport.output().len(), begun);
        });
    }

    /// Whoever sends a hundred offers in one go must not have the thread for all of them.
    #[test]
    fn packets_that_came_together_are_handled_a_few_in_a_round() {
        const PACKETS: usize = 41;
        run(|tasks| async move {
            let (acceptor, address) = acceptor(&tasks);
            let mut client = TcpStream::connect(address).unwrap();
            let stream = accepted(&acceptor).await;
            let mut pair = Pair::connected(3);
            for _ in 0..PACKETS {
                pair.at_client(|transport, cx| transport.send(&[CHANNEL_DATA, 1], cx)).unwrap();
            }
            client.write_all(&pair.client.take_output()).unwrap();
            let mut leg = LoginLeg::from_client(stream, pair.server.transport, Vec::new());
            let scratch = Scratch::new();
            let mut rounds = Vec::new();
            let all = leg.drive(&scratch, |_, event, _, _| {
                if matches!(event, Event::Payload(_)) {
                    rounds.push(tasks.round());
                }
                Ok((rounds.len() == PACKETS).then_some(()))
            });
            all.await.unwrap();
            let most = rounds.chunk_by(|one, other| one == other).map(<[u64]>::len).max();
            assert_eq!(most, Some(PACKETS_MAX as usize), "{rounds:?}");
        });
    }
}
