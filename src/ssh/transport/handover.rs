//! Giving up the whole state of an established transport, and going on from one: for a handoff
//! or a hot restart.

use std::borrow::Cow;
use std::sync::Arc;

use super::{
    ClientConfig, End, ExchangeHash, Instant, Late, Phase, ServerConfig, Session, State, Transport,
};
use crate::ssh::cipher::{Cipher, Keys};
use crate::ssh::negotiate::PeerCan;
use crate::ssh::packet::{Opener, Sealer, Used};
use crate::ssh::publickey::SignatureAlgorithm;

impl Transport {
    /// Gives up the whole state of an established transport, for a handoff or a restart.
    ///
    /// # Errors
    /// The transport itself, unchanged, unless it is authenticated, no key exchange runs and all
    /// output is written.
    pub fn give_up(self, now: Instant) -> Result<Handover, Box<Self>> {
        let settled = matches!(self.state, State::Open) && self.out.is_empty();
        let connected = matches!(self.phase(), Some(Phase::Connection { .. }));
        if !settled || !connected {
            return Err(Box::new(self));
        }
        let age_ms = self.keys_age_ms(now);
        let Self { session, opener, sealer, our_ident, peer_ident, upgrade, .. } = self;
        let (receive_used, send_used) = (opener.used(), sealer.used());
        let (receive, send) = (opener.into_keys(), sealer.into_keys());
        let (Some(session), Some(receive), Some(send)) = (session, receive, send) else {
            unreachable!("a connected transport has a session, and keys in both directions")
        };
        Ok(Handover {
            session_id: session.id,
            strict: session.strict,
            send,
            send_used,
            receive,
            receive_used,
            age_ms,
            our_ident,
            peer_ident,
            host_key: session.host_key,
            peer_offered_gcm: session.peer_can.gcm,
            rsa_proofs: session.peer_can.rsa_proofs,
            upgrade,
        })
    }

    /// Goes on from a state given up elsewhere, as a server.
    pub fn take_over_server(state: Handover, config: Arc<ServerConfig>, now: Instant) -> Self {
        Self::take_over(state, End::Server(config), now)
    }

    /// Goes on from a state given up elsewhere, as a client.
    pub fn take_over_client(state: Handover, config: Arc<ClientConfig>, now: Instant) -> Self {
        Self::take_over(state, End::Client(config), now)
    }

    fn take_over(state: Handover, end: End, now: Instant) -> Self {
        let (receive, receive_seq) = state.receive;
        let (send, send_seq) = state.send;
        Self {
            end,
            state: State::Open,
            session: Some(Box::new(Session {
                id: state.session_id,
                strict: state.strict,
                host_key: state.host_key,
                peer_can: PeerCan { gcm: state.peer_offered_gcm, rsa_proofs: state.rsa_proofs },
                peer_sig_algs: None,
                first_exchange: None,
                phase: Phase::Connection { late: Late::default() },
            })),
            opener: Opener::from_keys(receive, receive_seq).continuing(state.receive_used),
            sealer: Sealer::from_keys(send, send_seq).continuing(state.send_used),
            out: Vec::new(),
            out_sent: 0,
            held: Vec::new(),
            our_ident: state.our_ident,
            peer_ident: state.peer_ident,
            farewell: None,
            upgrade: state.upgrade,
            keys_since: now,
            keys_age_ms: state.age_ms,
        }
    }
}

/// Everything another process needs to go on with an established transport. Keys are
/// zeroised on drop.
pub struct Handover {
    /// The first exchange hash.
    pub session_id: ExchangeHash,
    /// Sequence numbers restart at every NEWKEYS.
    pub strict: bool,
    /// Sending keys and the next sequence number.
    pub send: (Keys, u32),
    /// What the sending keys have done: the limits on it hold over a handover.
    pub send_used: Used,
    /// Receiving keys and the next sequence number.
    pub receive: (Keys, u32),
    /// What the receiving keys have done.
    pub receive_used: Used,
    /// Age of the keys, in milliseconds.
    pub age_ms: u64,
    /// Our identification line, without CR LF.
    pub our_ident: Cow<'static, str>,
    /// The peer's, as received.
    pub peer_ident: Box<[u8]>,
    /// The host key blob of the first key exchange.
    pub host_key: Box<[u8]>,
    /// The peer's latest KEXINIT had AES-GCM both ways.
    pub peer_offered_gcm: bool,
    /// The algorithm for proofs of RSA host keys to the peer.
    pub rsa_proofs: Option<SignatureAlgorithm>,
    /// What to offer in place of the configured ciphers.
    pub upgrade: Option<Box<[Cipher]>>,
}
