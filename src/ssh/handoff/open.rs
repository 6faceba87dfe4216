//! OPEN: a session as an agent is asked to take it, and what the agent makes of it.

use std::net::IpAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{FirstKeys, number};
use crate::ssh::certificate::Certificate;
use crate::ssh::fault::Fault;
use crate::ssh::kex::{ExchangeHash, Secret, Transcript};
use crate::ssh::negotiate::{HostKeyAlgorithm, KexInit, PeerCan};
use crate::ssh::packet::{Opener, Sealer};
use crate::ssh::publickey::PublicKey;
use crate::ssh::transport::{
    Context, Continuation, RekeyLimits, ServerConfig, Transport, peer_can,
};
use crate::ssh::userauth::{Authenticator, Gate, Policy, ProvedKey};
use crate::ssh::wire::{Malformed, Put, Reader};

/// The version of OPEN.
const VERSION: u8 = 1;
/// How long ago the first KEXINIT may have been sent, in seconds: longer than a login may take.
pub const SAID_AGO_S_MAX: u64 = 15 * 60;
/// How far ahead of ours the edge's clock may be, in seconds.
const AHEAD_S_MAX: u64 = 60;

/// Why an agent does not take a session. For operators; nothing of a peer's words is in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// OPEN does not parse.
    #[error("malformed OPEN: {0}")]
    Malformed(#[from] Malformed),
    /// The two first KEXINITs agree on nothing that we speak.
    #[error("the first key exchange is none that this agent speaks")]
    Exchange,
    /// The host key shown is not one of this front door's.
    #[error("the host key is not one of this front door's")]
    HostKey,
    /// The first KEXINIT is too old, or from the future.
    #[error("the proof is too old, or the clocks differ by more than a minute")]
    Stale,
    /// The KEXINIT to go on from is not one that a server of ours sends.
    #[error("the KEXINIT is none that this agent can go on from")]
    KexInit,
}

/// A session as an edge asks to have it taken. Nothing of it is believed: [`Open::session`] and
/// [`Open::prove`] compute what can be computed.
pub struct Open<'a> {
    idents: [&'a [u8]; 2],
    kexinits: [&'a [u8]; 2],
    host_key: &'a [u8],
    values: [&'a [u8]; 2],
    secret: Secret,
    request: &'a [u8],
    later_kexinit: &'a [u8],
    receive_seq: u32,
    send_seq: u32,
    /// What else the edge said.
    pub details: &'a [u8],
}

/// What the first key exchange of a session came to, computed.
pub struct Session {
    /// The first exchange hash.
    pub id: ExchangeHash,
    /// When the server's first KEXINIT was sent, in Unix seconds. The same id may not come again
    /// until this is [`SAID_AGO_S_MAX`] ago.
    pub said_s: u64,
    strict: bool,
    peer_can: PeerCan,
}

impl<'a> Open<'a> {
    /// The message. The secret in it is wiped with it.
    pub(super) fn message(first: &FirstKeys, request: &[u8], details: &[u8]) -> Zeroizing<Vec<u8>> {
        let [client_ident, server_ident] = &first.idents;
        let [client_kexinit, server_kexinit] = &first.kexinits;
        let [init_value, reply_value] = &first.values;
        let fields: [&[u8]; 11] = [
            client_ident,
            server_ident,
            client_kexinit,
            server_kexinit,
            &first.host_key,
            init_value,
            reply_value,
            first.secret.encoded(),
            request,
            &first.later_kexinit,
            details,
        ];
        // Made in one piece: what grows leaves copies behind.
        let len = fields.iter().map(|field| field.len().saturating_add(4)).sum::<usize>();
        let mut message = Zeroizing::new(Vec::with_capacity(len.saturating_add(16)));
        message.put_u8(number::OPEN);
        message.put_u8(VERSION);
        for field in fields {
            message.put_string(field);
        }
        message.put_u32(first.receive_seq);
        message.put_u32(first.send_seq);
        message
    }

    /// Reads a message that a data connection began with.
    ///
    /// # Errors
    /// [`Malformed`] as the fields are.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        if reader.u8()? != number::OPEN || reader.u8()? != VERSION {
            return Err(Malformed::Range);
        }
        let mut field = || reader.string();
        let open = Self {
            idents: [field()?, field()?],
            kexinits: [field()?, field()?],
            host_key: field()?,
            values: [field()?, field()?],
            secret: Secret::from_encoded(field()?)?,
            request: field()?,
            later_kexinit: field()?,
            details: field()?,
            receive_seq: reader.u32()?,
            send_seq: reader.u32()?,
        };
        reader.end()?;
        Ok(open)
    }

    /// Computes the session's id from the first key exchange, which has to be one with this front
    /// door, and fresh.
    ///
    /// # Errors
    /// A [`Refused`].
    pub fn session(&self, host_keys: &[PublicKey], unix_s: u64) -> Result<Session, Refused> {
        let [client, server] = self.kexinits;
        let (client_kexinit, server_kexinit) = (KexInit::parse(client)?, KexInit::parse(server)?);
        let (method, strict) =
            client_kexinit.agreed_method(&server_kexinit).ok_or(Refused::Exchange)?;
        let peer_can = peer_can(&client_kexinit, &server_kexinit).ok_or(Refused::Exchange)?;
        let mut transcript = Transcript::new(method, self.idents, self.kexinits);
        for field in [self.host_key].into_iter().chain(self.values) {
            transcript.string(field);
        }
        let id = transcript.finish(&self.secret);
        if !is_of_front_door(self.host_key, host_keys) {
            return Err(Refused::HostKey);
        }
        // Behind the message number (RFC 4253 §7.1).
        let cookie = server.get(1..).and_then(|rest| rest.first_chunk()).ok_or(Malformed::Short)?;
        let said_s = u64::from_be_bytes(*cookie);
        let oldest = unix_s.saturating_sub(SAID_AGO_S_MAX);
        if !(oldest..=unix_s.saturating_add(AHEAD_S_MAX)).contains(&said_s) {
            return Err(Refused::Stale);
        }
        Ok(Session { id, said_s, strict, peer_can })
    }

    /// Judges the proof as if it had been made here; `None` if it is none, or lets nobody in.
    /// `source`: the client's address.
    pub fn prove(
        &self,
        session: &Session,
        (source, unix_s): (IpAddr, u64),
        policy: &Policy,
        gate: &dyn Gate,
    ) -> Option<Box<ProvedKey>> {
        let over = (session.id.as_bytes(), self.host_key);
        Authenticator::prove_again(self.request, over, (source, unix_s), policy, gate)
    }

    /// Sees whether the key exchange that changes hands can be gone on with here: its KEXINIT has
    /// to be one that we would have sent.
    ///
    /// # Errors
    /// [`Refused::KexInit`].
    pub fn take(
        self,
        session: Session,
        host_keys: &[PublicKey],
        limits: RekeyLimits,
    ) -> Result<Taken<'a>, Refused> {
        let kexinit = KexInit::parse(self.later_kexinit)?;
        let [client, server] = self.kexinits;
        let [peer_ident, our_ident] = self.idents;
        let began = KexInit::parse(client)?.agreed_host_key(&KexInit::parse(server)?);
        let blob = |algorithm: HostKeyAlgorithm| {
            if Some(algorithm) == began {
                return Some(self.host_key.into());
            }
            let key = host_keys.iter().find(|key| key.key_type() == algorithm.signature.key_type());
            key.filter(|_| !algorithm.certificate).map(|key| key.blob().into())
        };
        let config = ServerConfig::elsewhere(&kexinit, blob, limits).ok_or(Refused::KexInit)?;
        let cookie = self.later_kexinit.get(1..).and_then(|rest| rest.first_chunk());
        let cookie = *cookie.ok_or(Malformed::Short)?;
        let config = Arc::new(config);
        if !config.sends(cookie, self.later_kexinit) {
            return Err(Refused::KexInit);
        }
        let our_ident = std::str::from_utf8(our_ident).map_err(|_| Malformed::Text)?;
        Ok(Taken { open: self, session, config, cookie, our_ident, peer_ident })
    }
}

/// A session that the agent is ready to go on with.
pub struct Taken<'a> {
    open: Open<'a>,
    session: Session,
    config: Arc<ServerConfig>,
    cookie: [u8; 16],
    our_ident: &'a str,
    peer_ident: &'a [u8],
}

impl Taken<'_> {
    /// Goes on with it: READY is the first that the transport has to say on the data connection,
    /// which `line` opens and seals ([`Claim::at_agent`](super::Claim::at_agent), after OPEN).
    ///
    /// # Errors
    /// [`Fault::KeysUsedUp`], never of a data connection that has just begun.
    pub fn go_on(self, line: (Opener, Sealer), cx: &mut Context<'_>) -> Result<Transport, Fault> {
        let (opener, mut sealer) = line;
        let Self { open, session, config, cookie, our_ident, peer_ident } = self;
        // Only under keys has there been an OPEN.
        let (keys, _) = opener.into_keys().ok_or(Fault::KeysUsedUp)?;
        let mut out = Vec::new();
        sealer.seal(&[number::READY], cx.entropy, &mut out)?;
        let continuation = Continuation {
            session_id: session.id,
            strict: session.strict,
            host_key: open.host_key.into(),
            peer_can: session.peer_can,
            our_ident: our_ident.to_owned(),
            peer_ident: peer_ident.into(),
            opener: Opener::from_keys(keys, open.receive_seq),
            sealer,
            cookie,
            // The reply and NEWKEYS come before it.
            next_seq: open.send_seq.wrapping_add(2),
            out,
        };
        Ok(Transport::go_on(continuation, config, cx))
    }
}

/// Whether what was shown is one of `host_keys`, or a certificate for one.
fn is_of_front_door(shown: &[u8], host_keys: &[PublicKey]) -> bool {
    let certified = Certificate::parse(shown).ok();
    host_keys.iter().any(|key| {
        key.blob() == shown || certified.as_ref().is_some_and(|shown| shown.key() == key)
    })
}

/// REFUSED, sealed: the last that is said on a data connection. `why`: for operators.
///
/// # Errors
/// [`Fault::KeysUsedUp`].
pub fn refuse(sealer: &mut Sealer, why: &str, cx: &mut Context<'_>) -> Result<Vec<u8>, Fault> {
    let mut message = vec![number::REFUSED];
    message.put_string(why.as_bytes());
    let mut out = Vec::new();
    sealer.seal(&message, cx.entropy, &mut out)?;
    Ok(out)
}
