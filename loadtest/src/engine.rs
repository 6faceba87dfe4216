//! A small blocking SSH client on Keyway's own protocol core.
//!
//! It trusts whatever host key it meets: it only ever talks to targets that were set up to be loaded.

use crate::Result;
use keyway::ssh::{
    cipher::Cipher,
    entropy::SystemEntropy,
    hostkey::PrivateKey,
    message,
    publickey::SignatureAlgorithm,
    transport::{Algorithms, ClientConfig, Context, Event, Instant, RekeyLimits, Transport},
    userauth::{Credential, Login, LoginStep},
    wire::{Put, Reader},
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    ops::Range,
    path::Path,
    sync::Arc,
    time::Duration,
};

/// The window we grant, renewed when half of it is used: OpenSSH's own figures, so that the load resembles its.
const WINDOW_BYTES: u32 = 2 << 20;
const PACKET_BYTES: u32 = 32 << 10;
/// Room for the largest packet and then some.
const INPUT_BYTES: usize = 256 << 10;
/// A target that says nothing for this long has failed.
const PATIENCE: Duration = Duration::from_mins(1);
/// The one channel of a client.
const CHANNEL: u32 = 0;

/// Reads a private key.
pub(crate) fn credential(path: &Path) -> Result<Credential> {
    let text = std::fs::read_to_string(path).map_err(|why| format!("{}: {why}", path.display()))?;
    let (key, _comment) = PrivateKey::from_openssh(&text)?;
    Ok(Credential { key: Arc::new(key), certificate: None })
}

/// What clients ask for: `cipher` alone, or all.
pub(crate) fn config(cipher: Option<&str>) -> Result<Arc<ClientConfig>> {
    let mut algorithms = Algorithms::default();
    if let Some(name) = cipher {
        algorithms.ciphers = vec![Cipher::from_name(name).ok_or(format!("no cipher {name}"))?];
    }
    Ok(Arc::new(ClientConfig::new(&SignatureAlgorithm::ALL, algorithms, RekeyLimits::default())))
}

/// A connection, from the first byte to whatever stage its caller takes it.
pub(crate) struct Client {
    stream: TcpStream,
    transport: Transport,
    entropy: SystemEntropy,
    began: std::time::Instant,
    input: Vec<u8>,
    /// Received bytes that are not dealt with yet.
    pending: Range<usize>,
}

/// A message for this client at a range of its input.
type Message = Range<usize>;

impl Client {
    /// Connects and reads nothing yet.
    pub(crate) fn connect(to: SocketAddr, config: Arc<ClientConfig>) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut entropy = SystemEntropy::default();
        let mut cx = Context { now: Instant(0), entropy: &mut entropy };
        let transport = Transport::client(config, &mut cx);
        let began = std::time::Instant::now();
        Ok(Self { stream, transport, entropy, began, input: vec![], pending: 0..0 })
    }

    /// Waits for the target's first bytes, which are its identification line.
    pub(crate) fn await_banner(&mut self) -> Result<()> {
        self.fill()
    }

    /// Goes through the first key exchange.
    pub(crate) fn secure(&mut self) -> Result<()> {
        while self.event()? != Event::Secured {}
        Ok(())
    }

    /// Logs in, after [`Client::secure`].
    pub(crate) fn login(&mut self, login: &str, credential: &Credential) -> Result<()> {
        let now = self.now();
        let mut cx = Context { now, entropy: &mut self.entropy };
        let mut login = Login::start(login, credential, &mut self.transport, &mut cx)?;
        loop {
            let message = self.message()?;
            let now = self.now();
            let mut cx = Context { now, entropy: &mut self.entropy };
            let payload = self.input.get(message).unwrap_or_default();
            match login.receive(payload, &mut self.transport, &mut cx)? {
                LoginStep::Success => return Ok(()),
                LoginStep::Refused(methods) => {
                    return Err(format!("refused; left: {methods}").into());
                }
                LoginStep::Continue | LoginStep::Banner(_) => {}
            }
        }
    }

    /// Opens a session and starts `command` in it.
    pub(crate) fn exec(&mut self, command: &str) -> Result<Channel> {
        let mut open = vec![message::CHANNEL_OPEN];
        open.put_string(b"session");
        open.put_u32(CHANNEL);
        open.put_u32(WINDOW_BYTES);
        open.put_u32(PACKET_BYTES);
        self.send(&open)?;
        let mut channel =
            Channel { peer: 0, send_window: 0, send_max: 0, received: 0, status: None };
        loop {
            let message = self.message()?;
            let mut reader = Reader::new(self.input.get(message).unwrap_or_default());
            match reader.u8()? {
                message::CHANNEL_OPEN_CONFIRMATION => {
                    let _ours = reader.u32()?;
                    channel.peer = reader.u32()?;
                    channel.send_window = reader.u32()?;
                    channel.send_max = reader.u32()?;
                    break;
                }
                message::CHANNEL_OPEN_FAILURE => {
                    let (_ours, _code) = (reader.u32()?, reader.u32()?);
                    let text = String::from_utf8_lossy(reader.string()?).into_owned();
                    return Err(format!("channel refused: {text}").into());
                }
                // Global requests (`hostkeys-00`) want no answer of a load generator.
                _ => {}
            }
        }
        let mut request = vec![message::CHANNEL_REQUEST];
        request.put_u32(channel.peer);
        request.put_string(b"exec");
        request.put_bool(false);
        request.put_string(command.as_bytes());
        self.send(&request)?;
        Ok(channel)
    }

    /// Sends `data`, waiting for window where the peer gives none.
    pub(crate) fn write(&mut self, channel: &mut Channel, mut data: &[u8]) -> Result<()> {
        let mut message = Vec::with_capacity(data.len().min(PACKET_BYTES as usize) + 16);
        while !data.is_empty() {
            while channel.send_window == 0 {
                match self.channel_event(channel)? {
                    Happened::Closed => return Err("the channel closed under our data".into()),
                    Happened::Data(_) | Happened::Other => {}
                }
            }
            let room = channel.send_window.min(channel.send_max).min(PACKET_BYTES) as usize;
            let (now, later) = data.split_at(room.min(data.len()));
            message.clear();
            message.put_u8(message::CHANNEL_DATA);
            message.put_u32(channel.peer);
            message.put_string(now);
            channel.send_window -= u32::try_from(now.len())?;
            self.send(&message)?;
            data = later;
        }
        Ok(())
    }

    /// Says that no more data comes.
    pub(crate) fn end_of_input(&mut self, channel: &Channel) -> Result<()> {
        let mut message = vec![message::CHANNEL_EOF];
        message.put_u32(channel.peer);
        self.send(&message)
    }

    /// Reads until something happens to the channel.
    pub(crate) fn channel_event(&mut self, channel: &mut Channel) -> Result<Happened> {
        let message = self.message()?;
        let mut reader = Reader::new(self.input.get(message).unwrap_or_default());
        match reader.u8()? {
            message::CHANNEL_DATA => {
                let _ours = reader.u32()?;
                let len = u32::try_from(reader.string()?.len())?;
                channel.received += len;
                if channel.received >= WINDOW_BYTES / 2 {
                    let mut adjust = vec![message::CHANNEL_WINDOW_ADJUST];
                    adjust.put_u32(channel.peer);
                    adjust.put_u32(channel.received);
                    channel.received = 0;
                    self.send(&adjust)?;
                }
                Ok(Happened::Data(len))
            }
            message::CHANNEL_EXTENDED_DATA => {
                let (_ours, _stream) = (reader.u32()?, reader.u32()?);
                let text = String::from_utf8_lossy(reader.string()?).into_owned();
                Err(format!("the target says: {}", text.trim_end()).into())
            }
            message::CHANNEL_WINDOW_ADJUST => {
                let _ours = reader.u32()?;
                channel.send_window = channel.send_window.saturating_add(reader.u32()?);
                Ok(Happened::Other)
            }
            message::CHANNEL_REQUEST => {
                let _ours = reader.u32()?;
                if reader.string()? == b"exit-status" {
                    let _want_reply = reader.bool()?;
                    channel.status = Some(reader.u32()?);
                }
                Ok(Happened::Other)
            }
            message::CHANNEL_CLOSE => Ok(Happened::Closed),
            _ => Ok(Happened::Other),
        }
    }

    /// Reads until the channel is closed; counts the bytes that still came.
    pub(crate) fn finish(&mut self, channel: &mut Channel) -> Result<u64> {
        let mut bytes = 0;
        loop {
            match self.channel_event(channel)? {
                Happened::Data(len) => bytes += u64::from(len),
                Happened::Other => {}
                Happened::Closed => break,
            }
        }
        match channel.status {
            Some(0) => Ok(bytes),
            status => Err(format!("the command ended with {status:?}").into()),
        }
    }

    fn now(&self) -> Instant {
        Instant(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn send(&mut self, payload: &[u8]) -> Result<()> {
        let now = self.now();
        let mut cx = Context { now, entropy: &mut self.entropy };
        self.transport.send(payload, &mut cx)?;
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        while !self.transport.output().is_empty() {
            let sent = self.stream.write(self.transport.output())?;
            self.transport.sent(sent);
        }
        Ok(())
    }

    /// The next message for the layer above.
    fn message(&mut self) -> Result<Message> {
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
    fn event(&mut self) -> Result<Event> {
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
    fn fill(&mut self) -> Result<()> {
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

/// The one session of a client.
pub(crate) struct Channel {
    peer: u32,
    send_window: u32,
    send_max: u32,
    /// Bytes that came since the window was last renewed.
    received: u32,
    status: Option<u32>,
}

/// What a message meant for the channel.
pub(crate) enum Happened {
    /// That many bytes came.
    Data(u32),
    /// Nothing that a scenario counts.
    Other,
    /// It is over.
    Closed,
}
