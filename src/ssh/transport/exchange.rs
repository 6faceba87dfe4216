//! Key exchange (RFC 4253 §7, §8; RFC 5656 §4): from a KEXINIT of either side to both NEWKEYS, the
//! first and every later one.

use super::{
    Answer, Context, End, Event, Exchange, ExchangeHash, FirstExchange, Instant, Late, Ours, Phase,
    Reply, Session, State, Transport, Unsigned,
};
use crate::ssh::certificate::Certificate;
use crate::ssh::cipher::Cipher;
use crate::ssh::fault::Fault;
use crate::ssh::kex::{self, Ephemeral, Flow, Secret, Transcript};
use crate::ssh::negotiate::{Agreement, HostKeyAlgorithm, KexInit};
use crate::ssh::packet::Sealer;
use crate::ssh::publickey::PublicKey;
use crate::ssh::role::Role;
use crate::ssh::wire::{Put, Reader};
use crate::ssh::{handoff, message};

/// Key exchanges a peer may start before a user is authenticated: each costs us the arithmetic.
pub(super) const EARLY_EXCHANGES_MAX: u32 = 2;

impl Transport {
    /// The ciphers of an earlier upgrade, as long as the peer has AES-GCM at all: without them the
    /// next key exchange, whoever starts it, would take the upgrade back.
    fn upgraded(&self, peer_has_gcm: bool) -> Option<Box<[Cipher]>> {
        if peer_has_gcm { self.upgrade.clone() } else { None }
    }

    /// Sends our KEXINIT.
    pub(super) fn offer(
        &mut self,
        ciphers: Option<Box<[Cipher]>>,
        cx: &mut Context<'_>,
    ) -> Result<Ours, Fault> {
        let ours = Ours::fresh(ciphers, cx.entropy);
        let first = self.session.is_none();
        let kexinit = self.end.offer(&ours, first).kexinit(ours.cookie);
        self.seal(&kexinit, cx)?;
        Ok(ours)
    }

    pub(super) fn receive_kexinit(
        &mut self,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<Event, Fault> {
        let unexpected = Fault::Unexpected { number: message::KEXINIT, during: self.stage() };
        let offered = match &mut self.state {
            State::Exchange(exchange) => match &mut **exchange {
                Exchange::Offered(ours) => Some(std::mem::take(ours)),
                Exchange::AwaitInit { .. }
                | Exchange::AwaitReply { .. }
                | Exchange::AwaitSignature(_)
                | Exchange::AwaitNewKeys { .. } => return Err(unexpected),
            },
            State::Open => None,
            State::Ident { .. } | State::Ended(_) => return Err(unexpected),
        };
        match self.phase_mut() {
            None | Some(Phase::FirstExchange) => {}
            Some(Phase::Authentication { exchanges, .. }) => {
                *exchanges = exchanges.saturating_add(1);
                if *exchanges > EARLY_EXCHANGES_MAX {
                    return Err(Fault::Flood);
                }
            }
            Some(Phase::Connection { late }) => *late = Late::default(),
        }
        let theirs = KexInit::parse(payload)?;
        let has_gcm = theirs.offers_gcm();
        let ours = match offered {
            Some(ours) => ours,
            None => self.offer(self.upgraded(has_gcm), cx)?,
        };
        let first = self.session.is_none();
        let offer = self.end.offer(&ours, first);
        let agreement = offer.agree(&theirs)?;
        // Strict KEX: their KEXINIT must be their very first packet, number 0.
        if first && agreement.strict && self.opener.seq() != 1 {
            return Err(unexpected);
        }
        let kexinit = offer.kexinit(ours.cookie);
        let (our_ident, peer_ident) = (self.our_ident.as_bytes(), &*self.peer_ident);
        let exchange = match self.end.role() {
            Role::Server => Exchange::AwaitInit {
                agreement,
                transcript: Transcript::new(
                    agreement.method,
                    [peer_ident, our_ident],
                    [payload, &kexinit],
                ),
                answer: match ours.reply {
                    Reply::Ours => Answer::Send,
                    Reply::Kept => {
                        Answer::Keep { our_cookie: ours.cookie, peer_kexinit: payload.into() }
                    }
                    Reply::Theirs { next_seq } => Answer::Hand { next_seq },
                },
            },
            Role::Client => {
                let transcript =
                    Transcript::new(agreement.method, [our_ident, peer_ident], [&kexinit, payload]);
                let (ephemeral, value) = Ephemeral::generate(agreement.method, cx.entropy)?;
                let mut init = vec![message::KEX_ECDH_INIT];
                init.put_string(&value);
                self.seal(&init, cx)?;
                Exchange::AwaitReply { agreement, transcript, ephemeral, value }
            }
        };
        self.state = State::Exchange(Box::new(exchange));
        Ok(Event::Handled)
    }

    /// Server: KEX_ECDH_INIT -> KEX_ECDH_REPLY and NEWKEYS (RFC 5656 §4).
    pub(super) fn receive_init(
        &mut self,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<Event, Fault> {
        let unexpected = Fault::Unexpected { number: message::KEX_ECDH_INIT, during: self.stage() };
        let Exchange::AwaitInit { agreement, mut transcript, answer } =
            self.take_exchange(unexpected)?
        else {
            return Err(unexpected);
        };
        let End::Server(config) = self.end.clone() else { return Err(unexpected) };
        let mut reader = Reader::new(payload);
        reader.u8()?;
        let value = reader.string()?;
        reader.end()?;
        let (reply_value, secret) = kex::respond(agreement.method, value, cx.entropy)?;
        let shown =
            config.shown(agreement.host_key).ok_or(Fault::NoCommon("host key algorithm"))?;
        transcript.string(shown.blob);
        transcript.string(value);
        transcript.string(&reply_value);
        let hash = transcript.finish(&secret);
        let unsigned = Unsigned { agreement, reply_value, secret, hash };
        match (answer, shown.key) {
            (Answer::Hand { next_seq }, _) => self.hand(&unsigned, next_seq, cx)?,
            (Answer::Send | Answer::Keep { .. }, None) => {
                let exchange = Exchange::AwaitSignature(Box::new(unsigned));
                self.state = State::Exchange(Box::new(exchange));
            }
            (answer @ (Answer::Send | Answer::Keep { .. }), Some(key)) => {
                let signature = key
                    .sign(agreement.host_key.signature, hash.as_bytes())
                    .map_err(|_| Fault::HostKey)?;
                self.reply(&unsigned, shown.blob, &signature, cx)?;
                if let (Answer::Keep { our_cookie, peer_kexinit }, Some(session)) =
                    (answer, &mut self.session)
                {
                    let Unsigned { reply_value, secret, .. } = unsigned;
                    session.first_exchange = Some(Box::new(FirstExchange {
                        our_cookie,
                        peer_kexinit,
                        init_value: value.into(),
                        reply_value: reply_value.into(),
                        secret,
                    }));
                }
            }
        }
        Ok(Event::Handled)
    }

    /// Sends KEX_ECDH_REPLY and NEWKEYS.
    fn reply(
        &mut self,
        unsigned: &Unsigned,
        blob: &[u8],
        signature: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        self.seal(&kex_reply(blob, &unsigned.reply_value, signature), cx)?;
        self.seal(&[message::NEWKEYS], cx)?;
        self.switch(unsigned.agreement, blob, &unsigned.secret, unsigned.hash, None, cx)
    }

    /// Tells whoever sent our KEXINIT what to reply, and seals for the client from here: the
    /// packets of the other one, which it then sends, are its last.
    fn hand(
        &mut self,
        unsigned: &Unsigned,
        next_seq: u32,
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let sign = handoff::sign_message(
            unsigned.agreement.host_key,
            &unsigned.hash,
            &unsigned.reply_value,
        );
        self.seal(&sign, cx)?;
        let blob = self.host_key().to_vec();
        let Unsigned { agreement, secret, hash, .. } = unsigned;
        self.switch(*agreement, &blob, secret, *hash, Some(next_seq), cx)
    }

    /// What is to be signed, and how, if a reply waits for that: the algorithm's name, what is
    /// shown under it, the hash.
    pub fn unsigned(&self) -> Option<(&'static str, &[u8], ExchangeHash)> {
        let (State::Exchange(exchange), End::Server(config)) = (&self.state, &self.end) else {
            return None;
        };
        let Exchange::AwaitSignature(unsigned) = &**exchange else { return None };
        let algorithm = unsigned.agreement.host_key;
        Some((algorithm.name(), config.shown(algorithm)?.blob, unsigned.hash))
    }

    /// Goes on with the signature that [`Transport::unsigned`] asked for.
    ///
    /// # Errors
    /// [`Fault::HostKey`] if nothing waits for one, or this one is another's; the transport's
    /// own faults. Final.
    pub fn signed(&mut self, signature: &[u8], cx: &mut Context<'_>) -> Result<(), Fault> {
        self.take_signature(signature, cx).inspect_err(|fault| self.fail(*fault, cx))
    }

    fn take_signature(&mut self, signature: &[u8], cx: &mut Context<'_>) -> Result<(), Fault> {
        let Exchange::AwaitSignature(unsigned) = self.take_exchange(Fault::HostKey)? else {
            return Err(Fault::HostKey);
        };
        let End::Server(config) = self.end.clone() else { return Err(Fault::HostKey) };
        let algorithm = unsigned.agreement.host_key;
        let shown = config.shown(algorithm).ok_or(Fault::HostKey)?;
        // A wrong one would end the session at the client, who would cry of an attack.
        let key = shown_key(shown.blob, algorithm).ok_or(Fault::HostKey)?;
        key.verify(algorithm.signature, unsigned.hash.as_bytes(), signature)
            .map_err(|_| Fault::HostKey)?;
        self.reply(&unsigned, shown.blob, signature, cx)
    }

    /// Client: KEX_ECDH_REPLY -> NEWKEYS (RFC 5656 §4).
    pub(super) fn receive_reply(
        &mut self,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<Event, Fault> {
        let unexpected =
            Fault::Unexpected { number: message::KEX_ECDH_REPLY, during: self.stage() };
        let Exchange::AwaitReply { agreement, mut transcript, ephemeral, value } =
            self.take_exchange(unexpected)?
        else {
            return Err(unexpected);
        };
        let mut reader = Reader::new(payload);
        reader.u8()?;
        let (blob, reply_value, signature) = (reader.string()?, reader.string()?, reader.string()?);
        reader.end()?;
        let secret = ephemeral.combine(reply_value)?;
        transcript.string(blob);
        transcript.string(&value);
        transcript.string(reply_value);
        let hash = transcript.finish(&secret);
        let key = PublicKey::parse(blob).map_err(|_| Fault::HostKey)?;
        key.verify(agreement.host_key.signature, hash.as_bytes(), signature)
            .map_err(|_| Fault::HostKey)?;
        if self.session.as_ref().is_some_and(|session| *session.host_key != *blob) {
            return Err(Fault::HostKeyChanged);
        }
        self.seal(&[message::NEWKEYS], cx)?;
        self.switch(agreement, blob, &secret, hash, None, cx)?;
        Ok(Event::Handled)
    }

    fn take_exchange(&mut self, unexpected: Fault) -> Result<Exchange, Fault> {
        match std::mem::replace(&mut self.state, State::Ended(unexpected)) {
            State::Exchange(exchange) => Ok(*exchange),
            State::Ident { .. } | State::Open | State::Ended(_) => Err(unexpected),
        }
    }

    /// Seals under the new keys from here, and waits for the peer's NEWKEYS. `next_seq`: of the
    /// next packet, where it does not follow from ours.
    fn switch(
        &mut self,
        agreement: Agreement,
        host_key: &[u8],
        secret: &Secret,
        hash: ExchangeHash,
        next_seq: Option<u32>,
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        let first = self.session.is_none();
        let session = self.session.get_or_insert_with(|| {
            Box::new(Session {
                id: hash,
                strict: agreement.strict,
                // A client binds its signature to the first host key it saw, as it does
                // to the session id.
                host_key: host_key.into(),
                peer_can: agreement.peer_can,
                peer_sig_algs: None,
                first_exchange: None,
                phase: Phase::FirstExchange,
            })
        });
        session.peer_can = agreement.peer_can;
        let (id, strict) = (session.id, session.strict);
        let role = self.end.role();
        let [to_server, to_client] =
            [(Flow::ToServer, agreement.to_server), (Flow::ToClient, agreement.to_client)];
        let (send, receive) = match role {
            Role::Server => (to_client, to_server),
            Role::Client => (to_server, to_client),
        };
        let keys = |(flow, suite)| kex::derive(flow, suite, secret, &hash, &id);
        match next_seq {
            Some(seq) if !strict => self.sealer = Sealer::from_keys(keys(send), seq),
            Some(_) | None => self.sealer.rekey(keys(send), strict),
        }
        self.keys_since = cx.now;
        self.keys_age_ms = 0;
        let exchange = Exchange::AwaitNewKeys { receive: keys(receive) };
        self.state = State::Exchange(Box::new(exchange));
        if let (true, End::Server(config), true) = (first, &self.end, agreement.ext_info) {
            let info = ext_info(&config.sig_algs);
            self.seal(&info, cx)?;
        }
        self.release_held(cx)
    }

    pub(super) fn receive_newkeys(
        &mut self,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<Event, Fault> {
        let unexpected = Fault::Unexpected { number: message::NEWKEYS, during: self.stage() };
        Reader::new(payload.get(1..).unwrap_or_default()).end()?;
        let Exchange::AwaitNewKeys { receive } = self.take_exchange(unexpected)? else {
            return Err(unexpected);
        };
        let Some(session) = &mut self.session else { return Err(unexpected) };
        self.opener.rekey(receive, session.strict);
        self.keys_since = cx.now;
        self.state = State::Open;
        if matches!(session.phase, Phase::FirstExchange) {
            session.phase = Phase::Authentication { exchanges: 0, idle_messages: 0 };
            Ok(Event::Secured)
        } else {
            Ok(Event::Rekeyed)
        }
    }

    /// A key exchange is due by our own limits and none runs. The caller starts it with
    /// [`Transport::rekey`]; a relay does so on one of its legs at a time. `at`: when the
    /// keys' age is judged.
    pub fn rekey_due(&self, at: Instant) -> bool {
        let limits = self.end.limits();
        let worn = [self.sealer.used(), self.opener.used()]
            .iter()
            .any(|used| used.bytes >= limits.bytes || used.packets >= limits.packets);
        let old = self.keys_age_ms(at) >= limits.age_ms;
        matches!((&self.state, self.phase()), (State::Open, Some(Phase::Connection { .. })))
            && (worn || old)
    }

    pub(super) fn keys_age_ms(&self, now: Instant) -> u64 {
        now.0.saturating_sub(self.keys_since.0).saturating_add(self.keys_age_ms)
    }

    /// Starts a key exchange, unless one runs. `ciphers`: offer only these, now and in every later
    /// exchange while the peer has AES-GCM; else what was offered last.
    ///
    /// # Errors
    /// [`Fault::KeysUsedUp`], or the fault that ended the transport.
    pub fn rekey(&mut self, ciphers: Option<&[Cipher]>, cx: &mut Context<'_>) -> Result<(), Fault> {
        match &self.state {
            State::Ended(fault) => Err(*fault),
            State::Ident { .. } | State::Exchange(_) => Ok(()),
            State::Open => {
                let ciphers = match ciphers {
                    Some(ciphers) => {
                        self.upgrade = Some(ciphers.into());
                        Some(ciphers.into())
                    }
                    None => self.upgraded(self.peer_offered_gcm()),
                };
                let ours = self.offer(ciphers, cx)?;
                self.state = State::Exchange(Box::new(Exchange::Offered(ours)));
                Ok(())
            }
        }
    }

    /// Our KEXINIT is out and our NEWKEYS is not: nothing of the layer above may go out
    /// (RFC 4253 §7.1).
    pub fn is_held(&self) -> bool {
        match &self.state {
            State::Ident { .. } => true,
            State::Exchange(exchange) => !matches!(**exchange, Exchange::AwaitNewKeys { .. }),
            State::Open | State::Ended(_) => false,
        }
    }

    /// Our KEXINIT is out and the peer's is not here: it may still send anything.
    pub fn is_offering(&self) -> bool {
        match &self.state {
            State::Exchange(exchange) => matches!(**exchange, Exchange::Offered(_)),
            State::Ident { .. } | State::Open | State::Ended(_) => false,
        }
    }

    /// A key exchange runs: from the first KEXINIT of either side to the peer's NEWKEYS.
    pub fn is_exchanging(&self) -> bool {
        matches!(self.state, State::Ident { .. } | State::Exchange(_))
    }
}

/// KEX_ECDH_REPLY (RFC 5656 §4).
pub(in crate::ssh) fn kex_reply(host_key: &[u8], value: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut reply = Vec::with_capacity(512);
    reply.put_u8(message::KEX_ECDH_REPLY);
    reply.put_string(host_key);
    reply.put_string(value);
    reply.put_string(signature);
    reply
}

/// The plain key in what is shown under `algorithm`.
fn shown_key(blob: &[u8], algorithm: HostKeyAlgorithm) -> Option<PublicKey> {
    if algorithm.certificate {
        Some(Certificate::parse(blob).ok()?.key().clone())
    } else {
        PublicKey::parse(blob).ok()
    }
}

/// EXT_INFO as a server sends it (RFC 8308 §2.3; OpenSSH PROTOCOL §1.9, §1.11, §3.1).
fn ext_info(sig_algs: &str) -> Vec<u8> {
    let extensions = [
        ("server-sig-algs", sig_algs),
        ("publickey-hostbound@openssh.com", "0"),
        ("ping@openssh.com", "0"),
    ];
    let mut out = vec![message::EXT_INFO];
    out.put_u32(3);
    for (name, value) in extensions {
        out.put_string(name.as_bytes());
        out.put_string(value.as_bytes());
    }
    out
}
