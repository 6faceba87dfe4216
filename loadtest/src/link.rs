//! One SSH transport over one blocking socket, for both roles: clients log in with it, the light VM
//! answers with it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::Duration;

use keyway::ssh::entropy::SystemEntropy;
use keyway::ssh::fault::Fault;
use keyway::ssh::transport::{Context, Event, Instant, Transport};

use crate::Result;

/// Room for the largest packet and then some.
const INPUT_BYTES: usize = 256 << 10;

/// A socket, its transport, and what was read and not dealt with yet.
pub(crate) struct Link {
    stream: TcpStream,
    transport: Transport,
    entropy: SystemEntropy,
    began: std::time::Instant,
    input: Vec<u8>,
    /// Received bytes that are not dealt with yet.
    pending: Range<usize>,
}

/// A message for the layer above at a range of the input.
pub(crate) type Message = Range<usize>;

impl Link {
    /// Takes over a connected socket; reads nothing yet. A peer that neither sends nor reads for
    /// `patience` has failed.
    pub(crate) fn new(
        stream: TcpStream,
        patience: Duration,
        transport: impl FnOnce(&mut Context<'_>) -> Transport,
    ) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut entropy = SystemEntropy::default();
        let transport = transport(&mut Context { now: Instant(0), entropy: &mut entropy });
        let began = std::time::Instant::now();
        Ok(Self { stream, transport, entropy, began, input: vec![], pending: 0..0 })
    }

    /// Runs `body` with the transport and a context of now. What it says goes out
    /// before the next read.
    pub(crate) fn with<T>(
        &mut self,
        body: impl FnOnce(&mut Transport, &mut Context<'_>) -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        let now = self.now();
        let mut cx = Context { now, entropy: &mut self.entropy };
        Ok(body(&mut self.transport, &mut cx)?)
    }

    /// Waits for the next message and runs `body` with it.
    pub(crate) fn take<T>(
        &mut self,
        body: impl FnOnce(&[u8], &mut Transport, &mut Context<'_>) -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        let message = self.message()?;
        let now = self.now();
        let mut cx = Context { now, entropy: &mut self.entropy };
        let payload = self.input.get(message).unwrap_or_default();
        Ok(body(payload, &mut self.transport, &mut cx)?)
    }

    /// The bytes of a message; good until the next is read.
    pub(crate) fn payload(&self, message: Message) -> &[u8] {
        self.input.get(message).unwrap_or_default()
    }

    fn now(&self) -> Instant {
        Instant(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Sends one message at once.
    pub(crate) fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.with(|transport, cx| transport.send(payload, cx))?;
        self.flush()
    }

    /// Writes all that waits.
    pub(crate) fn flush(&mut self) -> Result<()> {
        while !self.transport.output().is_empty() {
            let sent = self.stream.write(self.transport.output())?;
            self.transport.sent(sent);
        }
        Ok(())
    }

    /// The next message for the layer above.
    pub(crate) fn message(&mut self) -> Result<Message> {
        loop {
            match self.event()? {
                Event::Payload(range) => return Ok(range),
                Event::Starved
                | Event::Handled
                | Event::Secured
                | Event::Rekeyed
                | Event::Unimplemented(_) => {}
            }
        }
    }

    /// The next event, a payload's range counting from the start of `input`.
    pub(crate) fn event(&mut self) -> Result<Event> {
        loop {
            self.flush()?;
            let now = self.now();
            let mut cx = Context { now, entropy: &mut self.entropy };
            let pending = self.input.get_mut(self.pending.clone()).unwrap_or_default();
            let received = match self.transport.receive(pending, &mut cx) {
                Ok(received) => received,
                Err(fault) => {
                    let said =
                        self.transport.farewell().map(|(_, text)| String::from_utf8_lossy(text));
                    return Err(format!("{fault}; {}", said.unwrap_or_default()).into());
                }
            };
            let at = self.pending.start;
            self.pending.start += received.used;
            match received.event {
                Event::Starved => self.fill()?,
                Event::Payload(range) => {
                    return Ok(Event::Payload(at + range.start..at + range.end));
                }
                event @ (Event::Handled
                | Event::Secured
                | Event::Rekeyed
                | Event::Unimplemented(_)) => {
                    self.flush()?;
                    return Ok(event);
                }
            }
        }
    }

    /// Reads once more from the target.
    pub(crate) fn fill(&mut self) -> Result<()> {
        if self.input.is_empty() {
            self.input.resize(INPUT_BYTES, 0);
        }
        if self.pending.start > 0 {
            let len = self.pending.len();
            self.input.copy_within(self.pending.clone(), 0);
            self.pending = 0..len;
        }
        let room = self.input.get_mut(self.pending.end..).unwrap_or_default();
        match self.stream.read(room)? {
            0 => Err("the target closed the connection".into()),
            read => {
                self.pending.end += read;
                Ok(())
            }
        }
    }

    /// Gives the input buffer back while nothing is under way, so that many clients can be held.
    pub(crate) fn rest(&mut self) {
        if self.pending.is_empty() {
            self.input = vec![];
            self.pending = 0..0;
        }
    }
}
