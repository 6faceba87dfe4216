//! A small blocking SSH client on Keyway's own protocol core.
//!
//! It trusts whatever host key it meets: it only ever talks to targets that were set
//! up to be loaded.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keyway::ssh::cipher::Cipher;
use keyway::ssh::message;
use keyway::ssh::private_key::PrivateKey;
use keyway::ssh::publickey::SignatureAlgorithm;
use keyway::ssh::transport::{Algorithms, ClientConfig, Event, RekeyLimits, Transport};
use keyway::ssh::userauth::{Credential, Login, LoginStep};
use keyway::ssh::wire::{Put, Reader};

use crate::Result;
use crate::link::Link;

/// The window we grant, renewed when half of it is used: OpenSSH's own figures, so that the
/// load resembles its.
const WINDOW_BYTES: u32 = 2 << 20;
const PACKET_BYTES: u32 = 32 << 10;
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
    link: Link,
}

impl Client {
    /// Connects and reads nothing yet.
    pub(crate) fn connect(to: SocketAddr, config: Arc<ClientConfig>) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        let link = Link::new(stream, PATIENCE, |cx| Transport::client(config, cx))?;
        Ok(Self { link })
    }

    /// Waits for the target's first bytes, which are its identification line.
    pub(crate) fn await_banner(&mut self) -> Result<()> {
        self.link.fill()
    }

    /// Goes through the first key exchange.
    pub(crate) fn secure(&mut self) -> Result<()> {
        while self.link.event()? != Event::Secured {}
        Ok(())
    }

    /// Logs in, after [`Client::secure`].
    pub(crate) fn login(&mut self, login: &str, credential: &Credential) -> Result<()> {
        let mut login =
            self.link.with(|transport, cx| Login::start(login, credential, transport, cx))?;
        loop {
            let step =
                self.link.take(|payload, transport, cx| login.receive(payload, transport, cx))?;
            match step {
                LoginStep::Success => return Ok(()),
                LoginStep::Refused(methods) | LoginStep::MoreWanted(methods) => {
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
        self.link.send(&open)?;
        let mut channel =
            Channel { peer: 0, send_window: 0, send_max: 0, received: 0, status: None };
        loop {
            let message = self.link.message()?;
            let mut reader = Reader::new(self.link.payload(message));
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
        self.link.send(&request)?;
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
            self.link.send(&message)?;
            data = later;
        }
        Ok(())
    }

    /// Says that no more data comes.
    pub(crate) fn end_of_input(&mut self, channel: &Channel) -> Result<()> {
        let mut message = vec![message::CHANNEL_EOF];
        message.put_u32(channel.peer);
        self.link.send(&message)
    }

    /// Reads until something happens to the channel.
    pub(crate) fn channel_event(&mut self, channel: &mut Channel) -> Result<Happened> {
        let message = self.link.message()?;
        let mut reader = Reader::new(self.link.payload(message));
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
                    self.link.send(&adjust)?;
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

    /// Gives the input buffer back while nothing is under way, so that many clients can be held.
    pub(crate) fn rest(&mut self) {
        self.link.rest();
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
