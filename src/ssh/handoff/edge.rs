//! The edge's end of a handoff.

use std::sync::Arc;

use super::link::sign_blindly;
use super::{Claim, OPEN_LENGTH_MAX, Open, number};
use crate::ssh::cipher::Cipher;
use crate::ssh::fault::{Fault, Stage};
use crate::ssh::message::{self, Reason};
use crate::ssh::negotiate::HostKeyAlgorithm;
use crate::ssh::packet::{Opened, Opener, Sealer};
use crate::ssh::text::printable;
use crate::ssh::transport::{
    Context, GivenUp, PACKET_MAX_BYTES, ServerConfig, Transport, kex_reply,
};
use crate::ssh::wire::{Malformed, Put, Reader};

/// Most bytes that `packet_length` may claim of what an agent says.
const SAID_LENGTH_MAX: u32 = 8 * 1024;
/// Longest reason for a refusal, in bytes of printable ASCII.
const REASON_BYTES_MAX: usize = 512;

/// A data connection on which the agent is asked to take a session.
pub struct Asked {
    to_agent: Sealer,
    from_agent: Opener,
}

/// What the agent says to that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answered {
    /// It has judged, and takes the session.
    Ready,
    /// It does not; why, for operators: printable ASCII.
    Refused(String),
}

impl Asked {
    /// Starts the key exchange that changes hands, and puts into `out` what the data connection
    /// begins with. `request`: the proof
    /// ([`ProvedKey::request`](crate::ssh::userauth::ProvedKey::request)). `details`: what else the
    /// agent is to know, in the caller's own words.
    ///
    /// # Errors
    /// The transport's.
    pub fn begin(
        transport: &mut Transport,
        claim: Claim,
        (request, details): (&[u8], &[u8]),
        ciphers: Option<&[Cipher]>,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Result<Self, Fault> {
        let first = transport.begin_handoff(ciphers, cx)?;
        out.put_bytes(&claim.id);
        let open = Open::message(&first, request, details);
        let (mut to_agent, from_agent) = claim.at_edge();
        to_agent.seal(&open, cx.entropy, out)?;
        Ok(Self { to_agent, from_agent })
    }

    /// What the agent says, once it is there; and the input bytes used.
    ///
    /// # Errors
    /// What it says is something else, or not from it.
    pub fn answer(&mut self, input: &mut [u8]) -> Result<Option<(Answered, usize)>, Fault> {
        let Some(Opened { payload, used }) = self.from_agent.open(input, SAID_LENGTH_MAX)? else {
            return Ok(None);
        };
        let mut reader = Reader::new(input.get(payload).unwrap_or_default());
        let answered = match reader.u8()? {
            number::READY => Answered::Ready,
            number::REFUSED => {
                let why = reader.string()?;
                Answered::Refused(printable(&String::from_utf8_lossy(why), REASON_BYTES_MAX))
            }
            number => return Err(unexpected(number)),
        };
        reader.end()?;
        Ok(Some((answered, used)))
    }

    /// The agent has said [`Answered::Ready`]: it goes on. What the transport has not written yet
    /// is put into `out`.
    ///
    /// # Errors
    /// The transport itself, if it is not one that [`Asked::begin`] left.
    pub fn hand_off(
        self,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Result<EdgeEnd, Box<Transport>> {
        let GivenUp { opener, sealer, out: unsent, config } = transport.hand_off()?;
        out.put_bytes(&unsent);
        let Self { to_agent, from_agent } = self;
        Ok(EdgeEnd {
            is_asked: false,
            upwards: Upwards::Framed(Box::new((opener, to_agent))),
            downwards: Downwards::Framed(Box::new((from_agent, sealer))),
            config,
        })
    }
}

/// A session on its way from the edge to an agent: each direction is carried packet by packet
/// until it is raw.
pub struct EdgeEnd {
    /// The client's KEX_ECDH_INIT has passed.
    is_asked: bool,
    upwards: Upwards,
    downwards: Downwards,
    config: Arc<ServerConfig>,
}

/// From the client to the agent.
enum Upwards {
    /// Opened under the old key, sealed for the agent.
    Framed(Box<(Opener, Sealer)>),
    /// The client's NEWKEYS has passed: its old key is gone.
    Raw,
}

/// From the agent to the client.
enum Downwards {
    /// The agent speaks to us; what the client is to hear goes out under the old key.
    Framed(Box<(Opener, Sealer)>),
    /// Our NEWKEYS is sealed, the last packet under the old key: it is gone.
    Raw,
}

/// What came of the input of one direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Passed {
    /// No whole packet is there: read more.
    Starved,
    /// A packet of so many input bytes was dealt with.
    Packet(usize),
    /// So was one, and it was this direction's last: from the next byte on it is raw.
    Last(usize),
    /// The direction is raw: nothing was touched.
    Raw,
}

impl EdgeEnd {
    /// Takes the first packet that the client sent; what the agent is to read is put into `out`.
    ///
    /// # Errors
    /// The client's, final: [`EdgeEnd::disconnect`] may still tell it.
    pub fn from_client(
        &mut self,
        input: &mut [u8],
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Result<Passed, Fault> {
        let Upwards::Framed(line) = &mut self.upwards else { return Ok(Passed::Raw) };
        let (opener, to_agent) = &mut **line;
        let Some(Opened { payload, used }) = opener.open(input, PACKET_MAX_BYTES)? else {
            return Ok(Passed::Starved);
        };
        let payload = input.get(payload).unwrap_or_default();
        to_agent.seal(payload, cx.entropy, out)?;
        match payload.first() {
            Some(&message::NEWKEYS) => {
                self.upwards = Upwards::Raw;
                return Ok(Passed::Last(used));
            }
            Some(&message::KEX_ECDH_INIT) => self.is_asked = true,
            Some(_) | None => {}
        }
        Ok(Passed::Packet(used))
    }

    /// Takes the first packet that the agent sent; what the client is to read is put into `out`.
    ///
    /// # Errors
    /// The agent's, final, and ours: [`Fault::HostKey`] if it asks for a signature
    /// that we do not make.
    pub fn from_agent(
        &mut self,
        input: &mut [u8],
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Result<Passed, Fault> {
        let Downwards::Framed(line) = &mut self.downwards else { return Ok(Passed::Raw) };
        let (opener, to_client) = &mut **line;
        let Some(Opened { payload, used }) = opener.open(input, SAID_LENGTH_MAX)? else {
            return Ok(Passed::Starved);
        };
        let payload = input.get(payload).unwrap_or_default();
        match payload.first().copied().unwrap_or_default() {
            number::SIGN => {
                let reply = reply(payload, &self.config)?;
                to_client.seal(&reply, cx.entropy, out)?;
                to_client.seal(&[message::NEWKEYS], cx.entropy, out)?;
                self.downwards = Downwards::Raw;
                Ok(Passed::Last(used))
            }
            message::DISCONNECT => {
                to_client.seal(payload, cx.entropy, out)?;
                Ok(Passed::Packet(used))
            }
            number => Err(unexpected(number)),
        }
    }

    /// The client has done its part of the key exchange, and the agent has not answered.
    #[must_use]
    pub const fn awaits_agent(&self) -> bool {
        self.is_asked && matches!(self.downwards, Downwards::Framed(_))
    }

    /// Both directions are raw, and no key of the session is left.
    #[cfg(test)]
    pub(super) const fn is_raw(&self) -> bool {
        matches!((&self.upwards, &self.downwards), (Upwards::Raw, Downwards::Raw))
    }

    /// Tells the client why this is the end, as long as we hold a key to say it under.
    pub fn disconnect(
        &mut self,
        reason: Reason,
        text: &str,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        if let Downwards::Framed(line) = std::mem::replace(&mut self.downwards, Downwards::Raw) {
            let (_, mut to_client) = *line;
            let mut payload = vec![message::DISCONNECT];
            payload.put_u32(reason.code());
            payload.put_string(printable(text, REASON_BYTES_MAX).as_bytes());
            payload.put_string(b"");
            // Keys that are used up say nothing more; the socket closes either way.
            let _unsaid = to_client.seal(&payload, cx.entropy, out);
        }
    }
}

/// KEX_ECDH_REPLY for what SIGN asks.
fn reply(sign: &[u8], config: &ServerConfig) -> Result<Vec<u8>, Fault> {
    let mut reader = Reader::new(sign);
    reader.u8()?;
    let (algorithm, hash, value) = (reader.name()?, reader.string()?, reader.string()?);
    reader.end()?;
    let algorithm = HostKeyAlgorithm::from_name(algorithm).ok_or(Malformed::Range)?;
    let (host_key, signature) = sign_blindly(config, algorithm, hash)?;
    Ok(kex_reply(host_key, value, &signature))
}

const fn unexpected(number: u8) -> Fault {
    Fault::Unexpected { number, during: Stage::Rekey }
}

/// OPEN is small enough for both sides.
const _: () = assert!(OPEN_LENGTH_MAX < PACKET_MAX_BYTES);
