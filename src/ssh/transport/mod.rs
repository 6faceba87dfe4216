//! The transport layer of one connection (RFC 4253), either role.
//!
//! Order of use: feed what the socket gave to [`Transport::receive`] until it is starved, act
//! on each event, write what stands in [`Transport::output`] and say so with
//! [`Transport::sent`]. After an `Err` the output holds the DISCONNECT for the peer, and every
//! later call gets the same answer.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::cipher::{Cipher, Keys};
use super::fault::{Fault, Stage};
use super::ident::{self, IdentReader, Line};
pub use super::kex::ExchangeHash;
use super::kex::{Ephemeral, Secret, Transcript};
use super::message;
pub use super::negotiate::Algorithms;
use super::negotiate::{Agreement, PeerCan};
use super::packet::{Opened, Opener, Sealer};
use super::role::Role;
use super::wire::{Malformed, Put, Reader};

mod config;
mod event;
mod exchange;
mod farewell;
mod first_exchange;
mod handoff;
mod handover;
mod output;
mod peer;
pub use self::config::{ClientConfig, Context, Instant, RekeyLimits, ServerConfig};
use self::config::{End, Ours, Reply};
pub use self::event::{Event, Received, Resealed};
pub(super) use self::exchange::kex_reply;
use self::farewell::Farewell;
use self::first_exchange::FirstExchange;
pub(super) use self::handoff::{Continuation, GivenUp, peer_can};
pub use self::handover::Handover;

/// Most bytes `packet_length` may claim before a user is authenticated (RFC 4253 §6.1).
const PACKET_MAX_EARLY_BYTES: u32 = 35_000;
/// Most bytes of channel data in one message that we carry: what paramiko and asyncssh announce,
/// and sshd then sends.
pub const DATA_MAX_BYTES: u32 = 256 * 1024;
/// Most bytes `packet_length` may claim afterwards: such a message with its header (13 bytes at
/// most) and with any padding (255 and its length).
pub(super) const PACKET_MAX_BYTES: u32 = DATA_MAX_BYTES + 512;
/// Connection messages that a peer may still send between its KEXINIT and its NEWKEYS. RFC 4253
/// §7.1 forbids them, but JSch and others check too late and sshd takes them: what stood in their
/// own queue, so a few windows' worth is generous.
const LATE_MESSAGES_MAX: u32 = 64;
/// The same in bytes of payload: one message of the largest kind is among what may
/// stand in a queue.
const LATE_BYTES_MAX: usize = 257 * 1024;
/// IGNORE, DEBUG, UNIMPLEMENTED and PING messages, and those that we answer with UNIMPLEMENTED,
/// before a user is authenticated.
const IDLE_MESSAGES_MAX: u32 = 64;
/// Longest data of a PING before a user is authenticated, in bytes: all answers together stay below
/// 7 kB, however little the peer reads. OpenSSH sends 5.
const PING_MAX_EARLY_BYTES: usize = 64;
/// Longest `server-sig-algs` value kept, in bytes.
const SIG_ALGS_MAX_BYTES: usize = 1024;

/// Where the connection stands.
enum State {
    /// Reading the peer's identification line; our own line and KEXINIT are out.
    Ident { reader: IdentReader, ours: Ours },
    /// A key exchange runs.
    Exchange(Box<Exchange>),
    /// Packets flow and no key exchange runs.
    Open,
    /// Over. Every later call gets this same answer.
    Ended(Fault),
}

/// A key exchange, from our KEXINIT to the peer's NEWKEYS.
enum Exchange {
    /// Our KEXINIT is out, the peer's is not here. The peer may still send anything else.
    Offered(Ours),
    /// Server: both KEXINITs are known; KEX_ECDH_INIT is next, after a wrong guess if there is one.
    AwaitInit { agreement: Agreement, transcript: Transcript, answer: Answer },
    /// Server: the reply is ready but for its signature, which somebody else makes.
    AwaitSignature(Box<Unsigned>),
    /// Client: KEX_ECDH_INIT is out; KEX_ECDH_REPLY is next, after a wrong guess if there is one.
    AwaitReply {
        agreement: Agreement,
        transcript: Transcript,
        ephemeral: Ephemeral,
        value: Vec<u8>,
    },
    /// Our NEWKEYS is out and our sending keys are new; the peer's NEWKEYS is next.
    AwaitNewKeys { receive: Keys },
}

/// What a server does with its answer to the client's value.
enum Answer {
    /// It goes out.
    Send,
    /// It goes out, and what the hash was made of is kept.
    Keep { our_cookie: [u8; 16], peer_kexinit: Box<[u8]> },
    /// See [`Reply::Theirs`].
    Hand { next_seq: u32 },
}

/// A reply without its signature.
struct Unsigned {
    agreement: Agreement,
    reply_value: Vec<u8>,
    secret: Secret,
    hash: ExchangeHash,
}

/// What the first key exchange fixed for the life of the connection, and how far the
/// connection is since.
struct Session {
    /// The first exchange hash (RFC 4253 §7.2).
    id: ExchangeHash,
    /// Sequence numbers restart at every NEWKEYS (OpenSSH PROTOCOL §1.10).
    strict: bool,
    /// Host key blob of the first key exchange: the server's as proved (client role), ours as
    /// presented (server role).
    host_key: Box<[u8]>,
    /// What the peer's latest KEXINIT had besides what was agreed.
    peer_can: PeerCan,
    /// Of a server's EXT_INFO.
    peer_sig_algs: Option<Box<str>>,
    /// What the id was made of, if it is kept.
    first_exchange: Option<Box<FirstExchange>>,
    phase: Phase,
}

/// How far the connection is in the protocol's own order, from our first NEWKEYS on.
enum Phase {
    /// The peer's first NEWKEYS is not here.
    FirstExchange,
    /// A user is still to be authenticated.
    Authentication { exchanges: u32, idle_messages: u32 },
    /// A user is authenticated.
    Connection { late: Late },
}

/// Connection messages that came after the peer's latest KEXINIT and before its NEWKEYS.
#[derive(Clone, Copy, Default)]
struct Late {
    messages: u32,
    bytes: usize,
}

/// One SSH transport.
pub struct Transport {
    end: End,
    state: State,
    /// From our first NEWKEYS on.
    session: Option<Box<Session>>,
    opener: Opener,
    sealer: Sealer,
    /// Sealed bytes on their way out, and how many at its front are written already.
    out: Vec<u8>,
    out_sent: usize,
    /// Messages of the layer above that wait for our NEWKEYS, as SSH strings.
    held: Vec<u8>,
    our_ident: Cow<'static, str>,
    peer_ident: Box<[u8]>,
    farewell: Option<Box<Farewell>>,
    /// What [`Transport::rekey`] was last told to offer in place of the configured ciphers.
    upgrade: Option<Box<[Cipher]>>,
    keys_since: Instant,
    /// How old the keys were at `keys_since`: not 0 if they were taken over.
    keys_age_ms: u64,
}

impl Transport {
    /// A server's end. `output` at once holds our identification line and KEXINIT.
    pub fn server(config: Arc<ServerConfig>, cx: &mut Context<'_>) -> Self {
        let ours = Ours::fresh(None, cx.entropy);
        Self::new(End::Server(config), ours, cx)
    }

    /// As [`Transport::server`], and keeps what an agent must know of the first key exchange to
    /// take the session over; the KEXINIT says when this was.
    pub fn server_for_handoff(
        config: Arc<ServerConfig>,
        unix_s: u64,
        cx: &mut Context<'_>,
    ) -> Self {
        let ours = Ours::dated(unix_s, cx.entropy);
        Self::new(End::Server(config), ours, cx)
    }

    /// A client's end. `output` at once holds our identification line and KEXINIT.
    pub fn client(config: Arc<ClientConfig>, cx: &mut Context<'_>) -> Self {
        let ours = Ours::fresh(None, cx.entropy);
        Self::new(End::Client(config), ours, cx)
    }

    fn new(end: End, ours: Ours, cx: &mut Context<'_>) -> Self {
        let our_ident = match end.role() {
            Role::Client => ident::TO_SERVERS,
            Role::Server => ident::TO_CLIENTS,
        };
        let kexinit = end.offer(&ours, true).kexinit(ours.cookie);
        let mut transport = Self {
            end,
            state: State::Ident { reader: IdentReader::default(), ours },
            session: None,
            opener: Opener::plain(),
            sealer: Sealer::plain(),
            out: Vec::new(),
            out_sent: 0,
            held: Vec::new(),
            our_ident: Cow::Borrowed(our_ident),
            peer_ident: Box::default(),
            farewell: None,
            upgrade: None,
            keys_since: cx.now,
            keys_age_ms: 0,
        };
        transport.out.put_bytes(transport.our_ident.as_bytes());
        transport.out.put_bytes(b"\r\n");
        if let Err(fault) = transport.seal(&kexinit, cx) {
            transport.state = State::Ended(fault);
        }
        transport
    }

    /// Takes the first line or packet of `input`, opening it in place. Call again with the rest
    /// until [`Event::Starved`]; bytes not used must stand at the front of the next call's input.
    ///
    /// # Errors
    /// A [`Fault`], final. Its DISCONNECT stands in `output`.
    pub fn receive(&mut self, input: &mut [u8], cx: &mut Context<'_>) -> Result<Received, Fault> {
        let step = match &mut self.state {
            State::Ended(fault) => return Err(*fault),
            State::Ident { .. } => self.receive_ident(input),
            State::Exchange(_) | State::Open => self.receive_packet(input, cx),
        };
        step.inspect_err(|fault| self.fail(*fault, cx))
    }

    fn receive_ident(&mut self, input: &[u8]) -> Result<Received, Fault> {
        let State::Ident { reader, ours } = &mut self.state else {
            return Ok(Received { used: 0, event: Event::Starved });
        };
        let role = self.end.role();
        let line = reader.read(role, input);
        // Of a stranger's words nothing is kept.
        if role == Role::Client {
            match &line {
                Ok(Line::Ident { .. }) => self.farewell = None,
                Ok(Line::Starved | Line::Preamble { .. }) | Err(_) => {
                    self.farewell = Farewell::overheard(input).or(self.farewell.take());
                }
            }
        }
        match line? {
            Line::Starved => Ok(Received { used: 0, event: Event::Starved }),
            Line::Preamble { used } => Ok(Received { used, event: Event::Handled }),
            Line::Ident { used, text } => {
                self.peer_ident = text;
                let ours = std::mem::take(ours);
                self.state = State::Exchange(Box::new(Exchange::Offered(ours)));
                Ok(Received { used, event: Event::Handled })
            }
        }
    }

    fn receive_packet(
        &mut self,
        input: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Result<Received, Fault> {
        let limit = match (self.phase(), self.end.role()) {
            // A server that we have chosen and whose key we know may have a long banner.
            (Some(Phase::Connection { .. }), _)
            | (Some(Phase::Authentication { .. }), Role::Client) => PACKET_MAX_BYTES,
            (None | Some(Phase::FirstExchange | Phase::Authentication { .. }), _) => {
                PACKET_MAX_EARLY_BYTES
            }
        };
        let Some(Opened { payload: range, used }) = self.opener.open(input, limit)? else {
            return Ok(Received { used: 0, event: Event::Starved });
        };
        let payload = input.get(range.clone()).unwrap_or_default();
        let event = match payload.first() {
            // Most packets are the relay's; they ask nothing of us.
            Some(number) if message::CONNECTION.contains(number) && self.is_connection() => {
                Event::Payload(range)
            }
            Some(_) => self.dispatch(payload, range, cx)?,
            None => return Err(Fault::Malformed(Malformed::Short)),
        };
        Ok(Received { used, event })
    }

    /// Is a user authenticated, and no key exchange past the peer's KEXINIT?
    fn is_connection(&self) -> bool {
        self.stage() == Stage::Connection
    }

    /// Where we stand in the table of legal messages.
    fn stage(&self) -> Stage {
        let exchanging = match &self.state {
            State::Exchange(exchange) => !matches!(**exchange, Exchange::Offered(_)),
            State::Ident { .. } | State::Open | State::Ended(_) => false,
        };
        match (self.phase(), exchanging) {
            (None | Some(Phase::FirstExchange), _) => Stage::FirstExchange,
            (Some(_), true) => Stage::Rekey,
            (Some(Phase::Authentication { .. }), false) => Stage::Authentication,
            (Some(Phase::Connection { .. }), false) => Stage::Connection,
        }
    }

    fn phase(&self) -> Option<&Phase> {
        self.session.as_deref().map(|session| &session.phase)
    }

    fn phase_mut(&mut self) -> Option<&mut Phase> {
        self.session.as_deref_mut().map(|session| &mut session.phase)
    }

    /// The table of legal messages. Everything it does not name ends the connection.
    fn dispatch(
        &mut self,
        payload: &[u8],
        range: Range<usize>,
        cx: &mut Context<'_>,
    ) -> Result<Event, Fault> {
        let number = payload.first().copied().unwrap_or_default();
        let stage = self.stage();
        let role = self.end.role();
        if self.takes_guess(number) {
            return Ok(Event::Handled);
        }
        match (number, stage) {
            (message::DISCONNECT, _) => Err(self.receive_disconnect(payload)),
            (message::IGNORE | message::DEBUG | message::UNIMPLEMENTED, Stage::FirstExchange) => {
                self.idle_early(number)
            }
            // We send no PING, so no PONG is ours to expect: OpenSSH ignores a stray one as well.
            (message::IGNORE | message::DEBUG, _)
            | (message::PONG, Stage::Authentication | Stage::Connection) => {
                self.idle(Event::Handled)
            }
            (message::UNIMPLEMENTED, _) => {
                let mut reader = Reader::new(payload);
                reader.u8()?;
                let seq = reader.u32()?;
                self.idle(Event::Unimplemented(seq))
            }
            (message::KEXINIT, _) => self.receive_kexinit(payload, cx),
            (message::KEX_ECDH_INIT, Stage::FirstExchange | Stage::Rekey)
                if role == Role::Server =>
            {
                self.receive_init(payload, cx)
            }
            (message::KEX_ECDH_REPLY, Stage::FirstExchange | Stage::Rekey)
                if role == Role::Client =>
            {
                self.receive_reply(payload, cx)
            }
            (message::NEWKEYS, Stage::FirstExchange | Stage::Rekey) => {
                self.receive_newkeys(payload, cx)
            }
            (message::EXT_INFO, Stage::Authentication | Stage::Connection) => {
                self.read_ext_info(payload)?;
                self.idle(Event::Handled)
            }
            (message::PING, Stage::Authentication | Stage::Connection) => {
                let mut reader = Reader::new(payload);
                reader.u8()?;
                let data = reader.string()?;
                if stage == Stage::Authentication && data.len() > PING_MAX_EARLY_BYTES {
                    return Err(Malformed::Range.into());
                }
                let mut pong = vec![message::PONG];
                pong.put_string(data);
                self.answer_idle(&pong, cx)
            }
            // RFC 4253 §11.4. It also says MUST of numbers that only a wrong peer sends: those
            // end the connection.
            (number, Stage::Authentication | Stage::Connection) if message::is_foreign(number) => {
                let mut unknown = vec![message::UNIMPLEMENTED];
                unknown.put_u32(self.opener.seq().wrapping_sub(1));
                self.answer_idle(&unknown, cx)
            }
            (message::SERVICE_REQUEST | message::USERAUTH_REQUEST, Stage::Authentication)
                if role == Role::Server =>
            {
                Ok(Event::Payload(range))
            }
            (number, Stage::Rekey) if message::CONNECTION.contains(&number) => {
                self.take_late(number, payload.len())?;
                Ok(Event::Payload(range))
            }
            // RFC 4252 §5.1: requests after success are to be ignored.
            (message::USERAUTH_REQUEST, Stage::Connection) if role == Role::Server => {
                Ok(Event::Handled)
            }
            (
                message::SERVICE_ACCEPT
                | message::USERAUTH_FAILURE
                | message::USERAUTH_SUCCESS
                | message::USERAUTH_BANNER
                | message::USERAUTH_PK_OK,
                Stage::Authentication,
            ) if role == Role::Client => Ok(Event::Payload(range)),
            _ => Err(Fault::Unexpected { number, during: stage }),
        }
    }

    fn receive_disconnect(&mut self, payload: &[u8]) -> Fault {
        match Farewell::disconnected(payload) {
            Ok((farewell, reason)) => {
                self.farewell = Some(Box::new(farewell));
                Fault::Disconnected { reason }
            }
            Err(malformed) => Fault::Malformed(malformed),
        }
    }

    /// Messages without progress before the first NEWKEYS: never legal under strict KEX, which is
    /// known once the peer's KEXINIT is here (CVE-2023-48795); what came before it shows in its
    /// sequence number.
    fn idle_early(&mut self, number: u8) -> Result<Event, Fault> {
        let strict = match &self.state {
            State::Exchange(exchange) => match &**exchange {
                Exchange::AwaitInit { agreement, .. } | Exchange::AwaitReply { agreement, .. } => {
                    agreement.strict
                }
                Exchange::Offered(_) => false,
                Exchange::AwaitSignature(_) | Exchange::AwaitNewKeys { .. } => {
                    self.session.as_ref().is_some_and(|session| session.strict)
                }
            },
            State::Ident { .. } | State::Open | State::Ended(_) => false,
        };
        // The sequence number counts every packet, so it bounds the idle ones too.
        if strict || self.opener.seq() > IDLE_MESSAGES_MAX {
            return Err(Fault::Unexpected { number, during: Stage::FirstExchange });
        }
        Ok(Event::Handled)
    }

    /// Counts a connection message inside the peer's key exchange. Before a user is authenticated,
    /// or past the limits, there is none.
    fn take_late(&mut self, number: u8, len: usize) -> Result<(), Fault> {
        if let Some(Phase::Connection { late }) = self.phase_mut() {
            late.messages = late.messages.saturating_add(1);
            late.bytes = late.bytes.saturating_add(len);
            if late.messages <= LATE_MESSAGES_MAX && late.bytes <= LATE_BYTES_MAX {
                return Ok(());
            }
        }
        Err(Fault::Unexpected { number, during: Stage::Rekey })
    }

    /// Answers a message without progress.
    fn answer_idle(&mut self, answer: &[u8], cx: &mut Context<'_>) -> Result<Event, Fault> {
        let event = self.idle(Event::Handled)?;
        self.send(answer, cx)?;
        Ok(event)
    }

    fn idle(&mut self, event: Event) -> Result<Event, Fault> {
        if let Some(Phase::Authentication { idle_messages, .. }) = self.phase_mut() {
            *idle_messages = idle_messages.saturating_add(1);
            if *idle_messages > IDLE_MESSAGES_MAX {
                return Err(Fault::Flood);
            }
        }
        Ok(event)
    }

    /// Drops the packet that followed a KEXINIT on a wrong guess (RFC 4253 §7).
    fn takes_guess(&mut self, number: u8) -> bool {
        let State::Exchange(exchange) = &mut self.state else { return false };
        match &mut **exchange {
            Exchange::AwaitInit { agreement, .. } | Exchange::AwaitReply { agreement, .. } => {
                (30..=49).contains(&number) && std::mem::take(&mut agreement.skip_guess)
            }
            Exchange::Offered(_) | Exchange::AwaitSignature(_) | Exchange::AwaitNewKeys { .. } => {
                false
            }
        }
    }

    /// Reads `server-sig-algs` (RFC 8308 §3.1); other extensions ask nothing of us.
    fn read_ext_info(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let mut reader = Reader::new(payload);
        reader.u8()?;
        let count = reader.u32()?;
        for _ in 0..count {
            // Every turn takes at least eight bytes, so a made-up count ends as a short message.
            let (name, value) = (reader.string()?, reader.string()?);
            if name == b"server-sig-algs"
                && self.end.role() == Role::Client
                && let Some(session) = &mut self.session
            {
                let value = value.get(..SIG_ALGS_MAX_BYTES).unwrap_or(value);
                session.peer_sig_algs = std::str::from_utf8(value).ok().map(Into::into);
            }
        }
        Ok(())
    }

    /// A user is authenticated: connection messages and larger packets become legal.
    pub fn authenticated(&mut self) {
        if let Some(phase @ Phase::Authentication { .. }) = self.phase_mut() {
            *phase = Phase::Connection { late: Late::default() };
        }
    }

    /// How many bytes the packet at the front of the input takes in all, as far as known.
    pub fn needs(&self) -> usize {
        match self.state {
            State::Ident { .. } => 1,
            State::Exchange(_) | State::Open | State::Ended(_) => self.opener.needs(),
        }
    }

    /// The session identifier, once the first key exchange is done.
    pub fn session_id(&self) -> Option<&[u8]> {
        let session = self.session.as_ref()?;
        let secured = !matches!(session.phase, Phase::FirstExchange);
        secured.then(|| session.id.as_bytes())
    }

    /// The host key blob of the first key exchange: as the server proved it (client role), as we
    /// presented it (server role). A later exchange may agree on another key of ours; `hostbound`
    /// signatures name this one.
    pub fn host_key(&self) -> &[u8] {
        self.session.as_ref().map_or(&[], |session| &session.host_key)
    }

    /// Sequence number of the next packet we send.
    pub fn send_seq(&self) -> u32 {
        self.sealer.seq()
    }

    /// Sequence number of the next packet we receive.
    pub fn receive_seq(&self) -> u32 {
        self.opener.seq()
    }

    /// The configuration a server was made with; a later one does not reach it.
    pub fn server_config(&self) -> Option<&Arc<ServerConfig>> {
        match &self.end {
            End::Server(config) => Some(config),
            End::Client(_) => None,
        }
    }

    /// Bytes of memory that what waits for the peer takes.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn waiting_capacity(&self) -> usize {
        self.out.capacity().saturating_add(self.held.capacity())
    }
}

#[cfg(test)]
mod tests;
