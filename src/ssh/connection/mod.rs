//! The connection protocol (RFC 4254), server side, for channels we answer ourselves: notices,
//! the lobby, the demo's VMs. Relayed sessions never come here: the relay carries their
//! messages verbatim.
//!
//! It keeps channel numbers, windows and the order of EOF and CLOSE; what a request means is the
//! caller's. It opens no channel and sends no request that wants an answer, so a peer that answers
//! one breaks the protocol.

mod request;

use std::collections::BTreeMap;

pub use self::request::{Asked, Pty};
use self::request::{NAME_BYTES_MAX, Parsed, parse};
use super::fault::{Fault, Stage};
use super::message;
use super::outlet::{Outlet, Sealed};
use super::text::printable;
use super::transport::{Context, Transport};
use super::wire::{Malformed, Put, Reader};

/// The window we give each channel, in bytes: what one channel can make the caller hold.
const WINDOW_BYTES: u32 = 64 << 10;

/// The window is opened again once this much was consumed: one `WINDOW_ADJUST` for
/// many small messages.
const WINDOW_STEP_BYTES: u32 = WINDOW_BYTES / 2;

/// Most bytes of data in one message, both ways (RFC 4253 §6.1 has every side take 32768
/// bytes of payload).
const PACKET_BYTES: u32 = 32 << 10;

/// Most requests of one channel that wait for our answer at a time.
const UNANSWERED_MAX: u32 = 64;

/// Most environment variables of one channel; OpenSSH's own limit is 128.
const ENV_MAX: u32 = 128;

/// Longest text in a refusal, in bytes.
const REFUSAL_BYTES_MAX: usize = 1 << 10;

/// `CHANNEL_EXTENDED_DATA` of standard error (RFC 4254 §5.2).
const STDERR: u32 = 1;

/// `CHANNEL_OPEN_FAILURE` reasons (RFC 4254 §5.1).
const ADMINISTRATIVELY_PROHIBITED: u32 = 1;
const RESOURCE_SHORTAGE: u32 = 4;

/// A channel number as *we* gave it out. Never given out twice on one connection, so that a late
/// answer cannot hit a later channel.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Hash)]
pub struct ChannelId(pub u32);

/// What a message of the peer meant.
#[derive(Debug, Eq, PartialEq)]
pub enum ChannelEvent {
    /// Nothing to do, but a window may have opened: bytes that `data` did not take
    /// can be tried again.
    None,
    /// A session channel was opened (already confirmed).
    Opened(ChannelId),
    /// `wants_reply`: call `answer`, in the order of the requests.
    Request {
        /// On which channel.
        channel: ChannelId,
        /// For what.
        asked: Asked,
        /// Whether an answer is due.
        wants_reply: bool,
    },
    /// Standard input. Call `consumed` once the bytes are used up.
    Data {
        /// On which channel.
        channel: ChannelId,
        /// At most 32 KiB.
        bytes: Vec<u8>,
    },
    /// The peer sends no more data.
    Eof(ChannelId),
    /// Closed by both sides; the number means nothing any more.
    Closed(ChannelId),
}

/// What the peer may still send on a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Incoming {
    Open,
    Eof,
}

/// What we may still send on a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outgoing {
    Open,
    Closed,
}

/// One session channel; it is dropped when both sides have closed it.
struct Channel {
    peer: u32,
    incoming: Incoming,
    outgoing: Outgoing,
    /// Bytes the peer may still send.
    receive_window: u32,
    /// Bytes consumed and not yet given back.
    consumed: u32,
    /// Bytes we may still send.
    send_window: u32,
    /// Most bytes of data in one message to the peer, at least 1.
    packet_max: u32,
    unanswered: u32,
    env_count: u32,
}

/// Server side of the connection protocol. All channels but sessions are refused, and so are all
/// global requests.
pub struct Connection {
    channels: BTreeMap<ChannelId, Channel>,
    channels_max: usize,
    next: u32,
    refusal: String,
    /// The fault that ended it, which every later input gets too.
    standing: Result<(), Fault>,
}

impl Connection {
    /// At most `channels_max` session channels at a time; `refusal`: the text for
    /// `CHANNEL_OPEN_FAILURE` of all other kinds.
    #[must_use]
    pub fn new(channels_max: usize, refusal: &str) -> Self {
        Self {
            channels: BTreeMap::new(),
            channels_max,
            next: 0,
            refusal: printable(refusal, REFUSAL_BYTES_MAX),
            standing: Ok(()),
        }
    }

    /// Takes one connection-protocol message (80..=127).
    ///
    /// # Errors
    /// Final: [`Fault::Malformed`] also for a channel that does not exist and for a window
    /// that is overrun or overflows, [`Fault::Unexpected`] for what a client may not send
    /// now, [`Fault::Flood`] for too many requests without waiting for answers; the
    /// transport's own faults.
    pub fn receive(
        &mut self,
        payload: &[u8],
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<ChannelEvent, Fault> {
        self.take(payload, &mut Sealed { transport, cx })
    }

    /// `CHANNEL_SUCCESS` or `CHANNEL_FAILURE` for the oldest request that waits for one. Nothing on
    /// a channel that is closed.
    ///
    /// # Errors
    /// The transport's.
    pub fn answer(
        &mut self,
        channel: ChannelId,
        success: bool,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        self.put_answer(channel, success, &mut Sealed { transport, cx })
    }

    /// Sends as much as the peer's window allows; returns how many bytes were taken. A channel that
    /// is closed takes all and drops them.
    ///
    /// # Errors
    /// The transport's.
    pub fn data(
        &mut self,
        channel: ChannelId,
        stderr: bool,
        bytes: &[u8],
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<usize, Fault> {
        self.put_data(channel, stderr, bytes, &mut Sealed { transport, cx })
    }

    /// The bytes of a `Data` event were consumed: opens the window again.
    ///
    /// # Errors
    /// The transport's.
    pub fn consumed(
        &mut self,
        channel: ChannelId,
        count: usize,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        self.give_back(channel, count, &mut Sealed { transport, cx })
    }

    /// exit-status, EOF, CLOSE. Nothing on a channel that is closed.
    ///
    /// # Errors
    /// The transport's.
    pub fn finish(
        &mut self,
        channel: ChannelId,
        exit_status: u32,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        self.put_end(channel, exit_status, &mut Sealed { transport, cx })
    }

    /// How many bytes `data` would take now; `None` on a channel that is closed.
    #[must_use]
    pub fn window(&self, channel: ChannelId) -> Option<u32> {
        match self.channels.get(&channel) {
            Some(Channel { outgoing: Outgoing::Open, send_window, .. }) => Some(*send_window),
            Some(Channel { outgoing: Outgoing::Closed, .. }) | None => None,
        }
    }

    /// Channels that at least one side has not closed.
    #[cfg(test)]
    fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// [`Connection::receive`] without a transport, like the five below for the other calls.
    pub(super) fn take(
        &mut self,
        payload: &[u8],
        out: &mut dyn Outlet,
    ) -> Result<ChannelEvent, Fault> {
        self.standing?;
        let event = self.dispatch(payload, out);
        self.standing = event.as_ref().map(|_| ()).map_err(|fault| *fault);
        event
    }

    fn dispatch(&mut self, payload: &[u8], out: &mut dyn Outlet) -> Result<ChannelEvent, Fault> {
        let mut reader = Reader::new(payload);
        let number = reader.u8()?;
        match number {
            message::GLOBAL_REQUEST => global(reader, out),
            message::CHANNEL_OPEN => self.open(reader, out),
            message::CHANNEL_WINDOW_ADJUST => self.adjust(reader),
            message::CHANNEL_DATA => self.input(reader),
            message::CHANNEL_EXTENDED_DATA => self.extended_input(reader, out),
            message::CHANNEL_EOF => self.eof(reader),
            message::CHANNEL_CLOSE => self.close(reader, out),
            message::CHANNEL_REQUEST => self.request(reader),
            // Answers to opens and requests that we never send, and what RFC 4254 does not know.
            _ => Err(unexpected(number)),
        }
    }

    fn open(
        &mut self,
        mut reader: Reader<'_>,
        out: &mut dyn Outlet,
    ) -> Result<ChannelEvent, Fault> {
        let kind = reader.name()?;
        let peer = reader.u32()?;
        let send_window = reader.u32()?;
        let packet_max = reader.u32()?;
        let refusal = if kind != "session" {
            Some((ADMINISTRATIVELY_PROHIBITED, self.refusal.as_str()))
        } else if packet_max == 0 {
            Some((ADMINISTRATIVELY_PROHIBITED, "maximum packet size is 0"))
        } else if self.channels.len() >= self.channels_max || self.next == u32::MAX {
            Some((RESOURCE_SHORTAGE, "too many channels"))
        } else {
            None
        };
        if let Some((reason, text)) = refusal {
            out.send(&open_failure(peer, reason, text))?;
            return Ok(ChannelEvent::None);
        }
        reader.end()?;
        let channel = ChannelId(self.next);
        self.next = self.next.saturating_add(1);
        self.channels.insert(
            channel,
            Channel {
                peer,
                incoming: Incoming::Open,
                outgoing: Outgoing::Open,
                receive_window: WINDOW_BYTES,
                consumed: 0,
                send_window,
                packet_max,
                unanswered: 0,
                env_count: 0,
            },
        );
        let mut confirmation = channel_message(message::CHANNEL_OPEN_CONFIRMATION, peer);
        confirmation.put_u32(channel.0);
        confirmation.put_u32(WINDOW_BYTES);
        confirmation.put_u32(PACKET_BYTES);
        out.send(&confirmation)?;
        Ok(ChannelEvent::Opened(channel))
    }

    fn adjust(&mut self, mut reader: Reader<'_>) -> Result<ChannelEvent, Fault> {
        let (_, channel) = self.channel(&mut reader)?;
        let count = reader.u32()?;
        reader.end()?;
        channel.send_window = channel.send_window.checked_add(count).ok_or(Malformed::Range)?;
        Ok(ChannelEvent::None)
    }

    fn input(&mut self, mut reader: Reader<'_>) -> Result<ChannelEvent, Fault> {
        let (id, channel) = self.channel(&mut reader)?;
        let bytes = reader.string()?;
        reader.end()?;
        channel.received(bytes, message::CHANNEL_DATA)?;
        Ok(match channel.outgoing {
            Outgoing::Open if !bytes.is_empty() => {
                ChannelEvent::Data { channel: id, bytes: bytes.to_vec() }
            }
            // What was under way when we closed; nobody will open the window for it.
            Outgoing::Open | Outgoing::Closed => ChannelEvent::None,
        })
    }

    /// A client has no extended data to send (RFC 4254 §6.6 gives it one direction): dropped, but
    /// within the window.
    fn extended_input(
        &mut self,
        mut reader: Reader<'_>,
        out: &mut dyn Outlet,
    ) -> Result<ChannelEvent, Fault> {
        let (id, channel) = self.channel(&mut reader)?;
        let _kind = reader.u32()?;
        let bytes = reader.string()?;
        reader.end()?;
        channel.received(bytes, message::CHANNEL_EXTENDED_DATA)?;
        self.give_back(id, bytes.len(), out)?;
        Ok(ChannelEvent::None)
    }

    fn eof(&mut self, mut reader: Reader<'_>) -> Result<ChannelEvent, Fault> {
        let (id, channel) = self.channel(&mut reader)?;
        reader.end()?;
        match channel.incoming {
            Incoming::Open => channel.incoming = Incoming::Eof,
            Incoming::Eof => return Err(unexpected(message::CHANNEL_EOF)),
        }
        Ok(match channel.outgoing {
            Outgoing::Open => ChannelEvent::Eof(id),
            Outgoing::Closed => ChannelEvent::None,
        })
    }

    fn close(
        &mut self,
        mut reader: Reader<'_>,
        out: &mut dyn Outlet,
    ) -> Result<ChannelEvent, Fault> {
        let (id, channel) = self.channel(&mut reader)?;
        reader.end()?;
        match channel.outgoing {
            Outgoing::Open => out.send(&channel_message(message::CHANNEL_CLOSE, channel.peer))?,
            Outgoing::Closed => {}
        }
        self.channels.remove(&id);
        Ok(ChannelEvent::Closed(id))
    }

    fn request(&mut self, mut reader: Reader<'_>) -> Result<ChannelEvent, Fault> {
        let (id, channel) = self.channel(&mut reader)?;
        let name = reader.name()?;
        if name.len() > NAME_BYTES_MAX {
            return Err(Malformed::Range.into());
        }
        let wants_reply = reader.bool()?;
        let mut parsed = parse(name, reader)?;
        if let Parsed::Asked(Asked::Env { .. }) = parsed {
            match channel.env_count.checked_add(1) {
                Some(count) if count <= ENV_MAX => channel.env_count = count,
                Some(_) | None => parsed = Parsed::Unfit,
            }
        }
        match channel.outgoing {
            Outgoing::Open => {}
            // RFC 4254 §5.3: nothing may follow our CLOSE, so there is nobody to answer.
            Outgoing::Closed => return Ok(ChannelEvent::None),
        }
        let asked = match parsed {
            Parsed::Asked(asked) => asked,
            Parsed::Unfit if wants_reply => Asked::Other(name.to_owned()),
            Parsed::Unfit => return Ok(ChannelEvent::None),
        };
        if wants_reply {
            channel.unanswered = channel.unanswered.saturating_add(1);
            if channel.unanswered > UNANSWERED_MAX {
                return Err(Fault::Flood);
            }
        }
        Ok(ChannelEvent::Request { channel: id, asked, wants_reply })
    }

    pub(super) fn put_answer(
        &mut self,
        channel: ChannelId,
        success: bool,
        out: &mut dyn Outlet,
    ) -> Result<(), Fault> {
        let Some(channel) = self.sending(channel) else { return Ok(()) };
        let Some(unanswered) = channel.unanswered.checked_sub(1) else { return Ok(()) };
        channel.unanswered = unanswered;
        let number = if success { message::CHANNEL_SUCCESS } else { message::CHANNEL_FAILURE };
        out.send(&channel_message(number, channel.peer))
    }

    pub(super) fn put_data(
        &mut self,
        channel: ChannelId,
        stderr: bool,
        bytes: &[u8],
        out: &mut dyn Outlet,
    ) -> Result<usize, Fault> {
        let Some(channel) = self.sending(channel) else { return Ok(bytes.len()) };
        let window = usize::try_from(channel.send_window).unwrap_or(usize::MAX);
        let packet_max = usize::try_from(channel.packet_max.min(PACKET_BYTES)).unwrap_or(1);
        let taken = bytes.get(..window).unwrap_or(bytes);
        for chunk in taken.chunks(packet_max) {
            let mut data = if stderr {
                let mut data = channel_message(message::CHANNEL_EXTENDED_DATA, channel.peer);
                data.put_u32(STDERR);
                data
            } else {
                channel_message(message::CHANNEL_DATA, channel.peer)
            };
            data.put_string(chunk);
            out.send(&data)?;
            let sent = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            channel.send_window = channel.send_window.saturating_sub(sent);
        }
        Ok(taken.len())
    }

    pub(super) fn give_back(
        &mut self,
        channel: ChannelId,
        count: usize,
        out: &mut dyn Outlet,
    ) -> Result<(), Fault> {
        let Some(channel) = self.sending(channel) else { return Ok(()) };
        let held =
            WINDOW_BYTES.saturating_sub(channel.receive_window).saturating_sub(channel.consumed);
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(held);
        channel.consumed = channel.consumed.saturating_add(count);
        match channel.incoming {
            Incoming::Open if channel.consumed >= WINDOW_STEP_BYTES => {
                let mut adjust = channel_message(message::CHANNEL_WINDOW_ADJUST, channel.peer);
                adjust.put_u32(channel.consumed);
                channel.receive_window = channel.receive_window.saturating_add(channel.consumed);
                channel.consumed = 0;
                out.send(&adjust)
            }
            Incoming::Open | Incoming::Eof => Ok(()),
        }
    }

    pub(super) fn put_end(
        &mut self,
        channel: ChannelId,
        exit_status: u32,
        out: &mut dyn Outlet,
    ) -> Result<(), Fault> {
        let Some(channel) = self.sending(channel) else { return Ok(()) };
        channel.outgoing = Outgoing::Closed;
        let mut status = channel_message(message::CHANNEL_REQUEST, channel.peer);
        status.put_string(b"exit-status");
        status.put_bool(false);
        status.put_u32(exit_status);
        out.send(&status)?;
        out.send(&channel_message(message::CHANNEL_EOF, channel.peer))?;
        out.send(&channel_message(message::CHANNEL_CLOSE, channel.peer))
    }

    /// The channel that a message names.
    fn channel(&mut self, reader: &mut Reader<'_>) -> Result<(ChannelId, &mut Channel), Malformed> {
        let id = ChannelId(reader.u32()?);
        self.channels.get_mut(&id).map(|channel| (id, channel)).ok_or(Malformed::Range)
    }

    /// A channel on which we may still send.
    fn sending(&mut self, channel: ChannelId) -> Option<&mut Channel> {
        let channel = self.channels.get_mut(&channel)?;
        match channel.outgoing {
            Outgoing::Open => Some(channel),
            Outgoing::Closed => None,
        }
    }
}

impl Channel {
    /// Counts data of the peer against the window we gave it.
    fn received(&mut self, bytes: &[u8], number: u8) -> Result<(), Fault> {
        match self.incoming {
            Incoming::Open => {}
            Incoming::Eof => return Err(unexpected(number)),
        }
        let len = u32::try_from(bytes.len()).map_err(|_| Malformed::Range)?;
        if len > PACKET_BYTES {
            return Err(Malformed::Range.into());
        }
        self.receive_window = self.receive_window.checked_sub(len).ok_or(Malformed::Range)?;
        Ok(())
    }
}

/// Refused, each and every one; with an answer where one is wanted, which is how clients ask
/// whether we live.
fn global(mut reader: Reader<'_>, out: &mut dyn Outlet) -> Result<ChannelEvent, Fault> {
    let _name = reader.name()?;
    if reader.bool()? {
        out.send(&[message::REQUEST_FAILURE])?;
    }
    Ok(ChannelEvent::None)
}

fn channel_message(number: u8, peer: u32) -> Vec<u8> {
    let mut message = vec![number];
    message.put_u32(peer);
    message
}

fn open_failure(peer: u32, reason: u32, text: &str) -> Vec<u8> {
    let mut failure = channel_message(message::CHANNEL_OPEN_FAILURE, peer);
    failure.put_u32(reason);
    failure.put_string(text.as_bytes());
    failure.put_string(b"");
    failure
}

const fn unexpected(number: u8) -> Fault {
    Fault::Unexpected { number, during: Stage::Connection }
}

#[cfg(test)]
mod tests;
