//! What edge and agent say to each other on their control link: global requests (RFC 4254 §4)
//! that want no reply.

use zeroize::Zeroizing;

use super::super::fault::{Fault, Stage};
use super::super::message::GLOBAL_REQUEST;
use super::super::negotiate::HostKeyAlgorithm;
use super::super::transport::ServerConfig;
use super::super::wire::{Malformed, Put, Reader};

/// Longest host key or certificate shown, in bytes.
const HOST_KEY_BYTES_MAX: usize = 4096;
/// Longest hash that is asked about, in bytes: longer than any that is signed.
const HASH_BYTES_MAX: usize = 64;
/// Most that a client may ask to have proved, in bytes: a few RSA keys with 16384 bits.
pub const PROVE_BYTES_MAX: usize = 8 * 1024;
/// Longest answer, in bytes: signatures are about as long as their keys.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Longest reason for a session's end, in bytes: longer than any of ours.
const REASON_BYTES_MAX: usize = 64;

const CLAIM: &str = "claim@keyway";
const SIGN: &str = "sign@keyway";
const PROVE: &str = "prove@keyway";
const SIGNED: &str = "signed@keyway";
const LEAVING: &str = "leaving@keyway";
const CLOSE: &str = "close@keyway";

/// One message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Said<'a> {
    /// Edge: a data connection is about to come ([`Claim::encoded`](super::Claim::encoded)).
    Claim(&'a [u8]),
    /// Agent: sign the exchange hash of a later key exchange. `ticket` names the answer; `session`
    /// counts what one session asks for.
    Sign {
        /// Of the agent's choice.
        ticket: u64,
        /// The session's request id.
        session: u64,
        /// The host key algorithm's name.
        algorithm: &'a str,
        /// What is shown under it.
        host_key: &'a [u8],
        /// 32 or 48 bytes.
        hash: &'a [u8],
    },
    /// Agent: sign what a client asks to have proved (OpenSSH PROTOCOL §2.5). Only the edge can
    /// that handed the session over: it knows its id.
    Prove {
        /// Of the agent's choice.
        ticket: u64,
        /// The session's request id.
        session: u64,
        /// The host keys, as the client lists them.
        asked: &'a [u8],
    },
    /// Agent: announce nothing more here. Whoever listens at its address now is its successor; this
    /// one keeps what it has, and asks for signatures for it.
    Leaving,
    /// Edge: it ends a session, and has no key to tell the user why.
    Close {
        /// The session's request id.
        session: u64,
        /// A word of a closed set, which this room does not know.
        reason: &'a str,
    },
    /// Edge: its answer; empty if there is none.
    Signed {
        /// Of the question.
        ticket: u64,
        /// As it stands in KEX_ECDH_REPLY; of a proof, all of them as they stand in its reply.
        signature: &'a [u8],
    },
}

impl<'a> Said<'a> {
    /// As it goes over the link. Made in one piece: a claim holds keys, and what
    /// grows leaves copies.
    #[must_use]
    pub fn message(&self) -> Zeroizing<Vec<u8>> {
        let (name, len) = match self {
            Self::Claim(claim) => (CLAIM, claim.len()),
            Self::Sign { host_key, hash, .. } => (SIGN, host_key.len().saturating_add(hash.len())),
            Self::Prove { asked, .. } => (PROVE, asked.len()),
            Self::Signed { signature, .. } => (SIGNED, signature.len()),
            Self::Leaving => (LEAVING, 0),
            Self::Close { reason, .. } => (CLOSE, reason.len()),
        };
        let mut message = Zeroizing::new(Vec::with_capacity(len.saturating_add(128)));
        message.put_u8(GLOBAL_REQUEST);
        message.put_string(name.as_bytes());
        message.put_bool(false);
        match self {
            Self::Claim(claim) => message.put_string(claim),
            Self::Leaving => {}
            Self::Sign { ticket, session, algorithm, host_key, hash } => {
                message.put_u64(*ticket);
                message.put_u64(*session);
                message.put_string(algorithm.as_bytes());
                message.put_string(host_key);
                message.put_string(hash);
            }
            Self::Prove { ticket, session, asked } => {
                message.put_u64(*ticket);
                message.put_u64(*session);
                message.put_string(asked);
            }
            Self::Signed { ticket, signature } => {
                message.put_u64(*ticket);
                message.put_string(signature);
            }
            Self::Close { session, reason } => {
                message.put_u64(*session);
                message.put_string(reason.as_bytes());
            }
        }
        message
    }

    /// Reads a message of the other side.
    ///
    /// # Errors
    /// [`Fault::Malformed`], [`Fault::Unexpected`] for anything else: neither side says more.
    pub fn parse(message: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(message);
        let number = reader.u8()?;
        let unexpected = Fault::Unexpected { number, during: Stage::Connection };
        if number != GLOBAL_REQUEST {
            return Err(unexpected);
        }
        let name = reader.name()?;
        if reader.bool()? {
            return Err(unexpected);
        }
        let said = match name {
            CLAIM => Self::Claim(reader.string()?),
            LEAVING => Self::Leaving,
            SIGN => {
                let (ticket, session) = (reader.u64()?, reader.u64()?);
                let algorithm = reader.name()?;
                let (host_key, hash) = (reader.string()?, reader.string()?);
                if host_key.len() > HOST_KEY_BYTES_MAX || hash.len() > HASH_BYTES_MAX {
                    return Err(Malformed::Range.into());
                }
                Self::Sign { ticket, session, algorithm, host_key, hash }
            }
            PROVE => {
                let (ticket, session) = (reader.u64()?, reader.u64()?);
                let asked = reader.string()?;
                if asked.len() > PROVE_BYTES_MAX {
                    return Err(Malformed::Range.into());
                }
                Self::Prove { ticket, session, asked }
            }
            SIGNED => {
                let (ticket, signature) = (reader.u64()?, reader.string()?);
                if signature.len() > ANSWER_BYTES_MAX {
                    return Err(Malformed::Range.into());
                }
                Self::Signed { ticket, signature }
            }
            CLOSE => {
                let (session, reason) = (reader.u64()?, reader.name()?);
                if reason.len() > REASON_BYTES_MAX {
                    return Err(Malformed::Range.into());
                }
                Self::Close { session, reason }
            }
            _ => return Err(unexpected),
        };
        reader.end()?;
        Ok(said)
    }
}

/// Signs an exchange hash of somebody else's, who has to be trusted: that it is one cannot be seen.
/// Returns the blob shown under `algorithm` too.
///
/// # Errors
/// [`Fault::HostKey`] for what no exchange hash is, and under an algorithm that is not ours.
pub(super) fn sign_blindly<'a>(
    config: &'a ServerConfig,
    algorithm: HostKeyAlgorithm,
    hash: &[u8],
) -> Result<(&'a [u8], Vec<u8>), Fault> {
    if !matches!(hash.len(), 32 | 48) {
        return Err(Fault::HostKey);
    }
    let shown = config.shown(algorithm).ok_or(Fault::HostKey)?;
    let key = shown.key.ok_or(Fault::HostKey)?;
    let signature = key.sign(algorithm.signature, hash).map_err(|_| Fault::HostKey)?;
    Ok((shown.blob, signature))
}

/// The edge's answer to [`Said::Sign`]: the signature blob. That `hash` is an exchange hash cannot
/// be seen: whoever asks has to be trusted.
///
/// # Errors
/// [`Fault::HostKey`] for what no exchange hash is, and under an algorithm or for a key that is
/// not this server's.
pub fn sign(
    config: &ServerConfig,
    (algorithm, host_key): (&str, &[u8]),
    hash: &[u8],
) -> Result<Vec<u8>, Fault> {
    let algorithm = HostKeyAlgorithm::from_name(algorithm).ok_or(Fault::HostKey)?;
    let (shown, signature) = sign_blindly(config, algorithm, hash)?;
    if shown == host_key { Ok(signature) } else { Err(Fault::HostKey) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_comes_out_as_it_went_in_and_cut_or_longer_not_at_all() {
        for said in [
            Said::Claim(b"keys"),
            Said::Leaving,
            Said::Sign {
                ticket: 1,
                session: 2,
                algorithm: "ssh-ed25519",
                host_key: b"key",
                hash: &[7; 32],
            },
            Said::Prove { ticket: 1, session: 2, asked: b"keys" },
            Said::Signed { ticket: 3, signature: b"signature" },
            Said::Signed { ticket: 3, signature: b"" },
            Said::Close { session: 2, reason: "killed" },
        ] {
            let message = said.message();
            assert_eq!(Said::parse(&message), Ok(said));
            for len in 0..message.len() {
                assert!(Said::parse(&message[..len]).is_err(), "{said:?} {len}");
            }
            assert!(Said::parse(&[&message[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn what_is_longer_than_anybody_needs_is_malformed() {
        let (long, longest) = (vec![0; ANSWER_BYTES_MAX + 1], vec![0; HOST_KEY_BYTES_MAX + 1]);
        let (ticket, session, algorithm) = (1, 2, "ssh-ed25519");
        let hash = &long[..=HASH_BYTES_MAX];
        for said in [
            Said::Sign { ticket, session, algorithm, host_key: &longest, hash: b"" },
            Said::Sign { ticket, session, algorithm, host_key: b"", hash },
            Said::Prove { ticket, session, asked: &long[..=PROVE_BYTES_MAX] },
            Said::Signed { ticket, signature: &long },
            Said::Close { session, reason: &"a".repeat(REASON_BYTES_MAX + 1) },
        ] {
            assert_eq!(Said::parse(&said.message()), Err(Malformed::Range.into()));
        }
    }

    #[test]
    fn another_request_or_one_that_wants_a_reply_is_not_expected() {
        for (name, wants_reply) in [("claim@keyway", true), ("keepalive@openssh.com", false)] {
            let mut message = vec![GLOBAL_REQUEST];
            message.put_string(name.as_bytes());
            message.put_bool(wants_reply);
            message.put_string(b"");
            assert!(matches!(Said::parse(&message), Err(Fault::Unexpected { .. })), "{name}");
        }
    }
}
