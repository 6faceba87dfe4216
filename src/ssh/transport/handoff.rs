//! A transport in the middle of a key exchange that changes hands: at the edge, which began it, and
//! at the agent, which goes on with it. See `ssh::handoff` for what passes between them.

use std::borrow::Cow;
use std::sync::Arc;

use super::{
    Context, End, Exchange, ExchangeHash, FirstExchange, Late, Ours, Phase, Reply, ServerConfig,
    Session, State, Transport,
};
use crate::ssh::cipher::Cipher;
use crate::ssh::fault::Fault;
use crate::ssh::handoff::FirstKeys;
use crate::ssh::negotiate::{KexInit, PeerCan};
use crate::ssh::packet::{Opener, Sealer};

/// What is left of a transport whose key exchange somebody else goes on with.
pub(in crate::ssh) struct GivenUp {
    pub(in crate::ssh) opener: Opener,
    pub(in crate::ssh) sealer: Sealer,
    /// Sealed bytes that are not written yet.
    pub(in crate::ssh) out: Vec<u8>,
    pub(in crate::ssh) config: Arc<ServerConfig>,
}

/// What a transport goes on from.
pub(in crate::ssh) struct Continuation {
    pub(in crate::ssh) session_id: ExchangeHash,
    pub(in crate::ssh) strict: bool,
    /// As presented in the first key exchange.
    pub(in crate::ssh) host_key: Box<[u8]>,
    pub(in crate::ssh) peer_can: PeerCan,
    pub(in crate::ssh) our_ident: String,
    pub(in crate::ssh) peer_ident: Box<[u8]>,
    /// Opens what the edge passes on, from the client's next packet.
    pub(in crate::ssh) opener: Opener,
    /// Seals what is for the edge.
    pub(in crate::ssh) sealer: Sealer,
    /// Of the KEXINIT that the edge sent.
    pub(in crate::ssh) cookie: [u8; 16],
    /// Of the packet behind the edge's NEWKEYS.
    pub(in crate::ssh) next_seq: u32,
    /// What is to be written first.
    pub(in crate::ssh) out: Vec<u8>,
}

impl Transport {
    /// Whether a session here can be handed over: what that takes was kept, and no
    /// key exchange runs.
    pub fn can_hand_off(&self) -> bool {
        let kept = self.session.as_ref().is_some_and(|session| session.first_exchange.is_some());
        kept && matches!((&self.state, self.phase()), (State::Open, Some(Phase::Connection { .. })))
    }

    /// Forgets what a handoff takes: there will be none.
    pub fn keep_session(&mut self) {
        if let Some(session) = &mut self.session {
            session.first_exchange = None;
        }
    }

    /// Starts the key exchange that somebody else is to go on with, and hands out what that
    /// somebody needs of the first one. Nothing more is sent before it is known who goes on, and
    /// nothing may be received.
    ///
    /// # Errors
    /// [`Fault::KeyExchange`] unless [`Transport::can_hand_off`]; the transport's own faults.
    pub(in crate::ssh) fn begin_handoff(
        &mut self,
        ciphers: Option<&[Cipher]>,
        cx: &mut Context<'_>,
    ) -> Result<FirstKeys, Fault> {
        if !self.can_hand_off() {
            return Err(Fault::KeyExchange);
        }
        self.rekey(ciphers, cx)?;
        let State::Exchange(exchange) = &self.state else { return Err(Fault::KeyExchange) };
        let Exchange::Offered(ours) = &**exchange else { return Err(Fault::KeyExchange) };
        let later_kexinit = self.end.offer(ours, false).kexinit(ours.cookie);
        let Some(session) = &mut self.session else { return Err(Fault::KeyExchange) };
        let Some(first) = session.first_exchange.take() else { return Err(Fault::KeyExchange) };
        let FirstExchange { our_cookie, peer_kexinit, init_value, reply_value, secret } = *first;
        let began = Ours { cookie: our_cookie, ..Ours::default() };
        Ok(FirstKeys {
            idents: [self.peer_ident.clone(), self.our_ident.as_bytes().into()],
            kexinits: [peer_kexinit, self.end.offer(&began, true).kexinit(our_cookie).into()],
            host_key: session.host_key.clone(),
            values: [init_value, reply_value],
            secret,
            later_kexinit,
            receive_seq: self.opener.seq(),
            send_seq: self.sealer.seq(),
        })
    }

    /// Seals a message that no transport of ours sends by itself.
    #[cfg(test)]
    pub(in crate::ssh) fn seal_for_tests(&mut self, payload: &[u8], cx: &mut Context<'_>) {
        self.seal(payload, cx).unwrap();
    }

    /// Gives the key exchange up that [`Transport::begin_handoff`] started.
    ///
    /// # Errors
    /// The transport itself, unchanged, unless it is a server that has heard nothing since.
    pub(in crate::ssh) fn hand_off(self) -> Result<GivenUp, Box<Self>> {
        let offered = self.is_offering();
        match (&self.end, self.phase()) {
            (End::Server(config), Some(Phase::Connection { .. })) if offered => {
                let config = Arc::clone(config);
                let Self { opener, sealer, mut out, out_sent, .. } = self;
                out.drain(..out_sent.min(out.len()));
                Ok(GivenUp { opener, sealer, out, config })
            }
            (End::Server(_) | End::Client(_), _) => Err(Box::new(self)),
        }
    }

    /// Goes on with the key exchange of a server elsewhere, whose KEXINIT is what `config`
    /// [sends](ServerConfig::sends).
    pub(in crate::ssh) fn go_on(
        from: Continuation,
        config: Arc<ServerConfig>,
        cx: &mut Context<'_>,
    ) -> Self {
        let reply = Reply::Theirs { next_seq: from.next_seq };
        let ours = Ours { cookie: from.cookie, ciphers: None, reply };
        Self {
            end: End::Server(config),
            state: State::Exchange(Box::new(Exchange::Offered(ours))),
            session: Some(Box::new(Session {
                id: from.session_id,
                strict: from.strict,
                host_key: from.host_key,
                peer_can: from.peer_can,
                peer_sig_algs: None,
                first_exchange: None,
                phase: Phase::Connection { late: Late::default() },
            })),
            opener: from.opener,
            sealer: from.sealer,
            out: from.out,
            out_sent: 0,
            held: Vec::new(),
            our_ident: Cow::Owned(from.our_ident),
            peer_ident: from.peer_ident,
            farewell: None,
            upgrade: None,
            keys_since: cx.now,
            keys_age_ms: 0,
        }
    }
}

/// What two KEXINITs of a first key exchange agreed on, as far as it counts later.
pub(in crate::ssh) fn peer_can(client: &KexInit<'_>, server: &KexInit<'_>) -> Option<PeerCan> {
    let host_key = client.agreed_host_key(server)?;
    Some(PeerCan { gcm: client.offers_gcm(), rsa_proofs: client.rsa_proofs(host_key) })
}
