//! Handoff: a session whose client has proved its key goes from the edge to an agent beside the VM,
//! in the middle of a key exchange that the edge begins and the agent ends. From then on the edge
//! holds no key of it.
//!
//! ```text
//! client <-- old keys --> edge <-- data connection --> agent
//!                          |  id, OPEN        -->   judges by its own replica
//!                          |  <--  READY | REFUSED
//!   each packet        --> |  the same packet -->   KEXINIT, KEX_ECDH_INIT, what came beside
//!   KEX_ECDH_REPLY     <-- |  <--  SIGN             H and Q_S
//!   NEWKEYS            <-- |  <--  raw, from the next byte on
//!   NEWKEYS            --> |  the same packet, then raw -->
//! ```
//!
//! A data connection speaks the binary packet protocol (RFC 4253 §6) under AES-256-GCM from its
//! first byte behind the id, with a key for each direction that went to the agent before, over the
//! control link ([`Claim`]). So a client's packet is sealed again like any other, and its place in
//! the stream is its sequence number. Each direction ends its own framing: the edge's with the
//! client's NEWKEYS, the agent's with SIGN.
//!
//! The agent believes nothing that it can compute: [`Open`] carries the whole first
//! exchange and the proof.
//!
//! Sans-IO, like the rest of `ssh`. Driven by the edge's door and the agent's.

use zeroize::Zeroizing;

use super::cipher::{Cipher, Keys, Suite};
use super::entropy::Entropy;
use super::kex::{ExchangeHash, Secret};
use super::negotiate::HostKeyAlgorithm;
use super::packet::{Opener, Sealer};
use super::wire::{Malformed, Put, Reader};

mod edge;
mod link;
mod open;
pub use self::edge::{Answered, Asked, EdgeEnd, Passed};
pub use self::link::{PROVE_BYTES_MAX, Said, sign};
pub use self::open::{Open, Refused, SAID_AGO_S_MAX, Session, Taken, refuse};

/// Messages of a data connection, in the range of local extensions (RFC 4250 §4.1.2): no client's
/// message has such a number and passes.
mod number {
    pub(super) const OPEN: u8 = 224;
    pub(super) const READY: u8 = 225;
    pub(super) const REFUSED: u8 = 226;
    pub(super) const SIGN: u8 = 227;
}

/// Most bytes that `packet_length` of OPEN may claim: two KEXINITs of 35,000 at most,
/// and a certificate.
pub const OPEN_LENGTH_MAX: u32 = 128 * 1024;
/// Bytes of a data connection's id.
pub const CLAIM_ID_BYTES: usize = 16;
/// What protects a data connection.
const SUITE: Suite = Suite { cipher: Cipher::Aes256Gcm, mac: None };

/// Names a data connection before it says anything.
pub type ClaimId = [u8; CLAIM_ID_BYTES];

/// The keys of a data connection, made by the edge.
pub struct Claim {
    /// What the data connection begins with.
    pub id: ClaimId,
    to_agent: Keys,
    to_edge: Keys,
}

impl Claim {
    /// Fresh keys under a fresh id.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut id = [0; CLAIM_ID_BYTES];
        // The first byte stays 0: no identification line begins so.
        if let Some((_, rest)) = id.split_first_mut() {
            entropy.fill(rest);
        }
        let mut keys = || {
            let mut keys = Keys::zero(SUITE);
            let [iv, key, _] = keys.parts_mut();
            entropy.fill(iv);
            entropy.fill(key);
            keys
        };
        Self { id, to_agent: keys(), to_edge: keys() }
    }

    /// As it goes over the control link.
    #[must_use]
    pub fn encoded(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(256));
        out.put_bytes(&self.id);
        for keys in [&self.to_agent, &self.to_edge] {
            out.put_string(keys.iv());
            out.put_string(keys.key());
        }
        out
    }

    /// From [`Claim::encoded`].
    ///
    /// # Errors
    /// [`Malformed`] as the fields are.
    pub fn parse(encoded: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(encoded);
        let id = reader.array()?;
        let mut keys = || {
            let mut keys = Keys::zero(SUITE);
            for to in keys.parts_mut().into_iter().take(2) {
                let from = reader.string()?;
                if from.len() != to.len() {
                    return Err(Malformed::Range);
                }
                to.copy_from_slice(from);
            }
            Ok(keys)
        };
        let claim = Self { id, to_agent: keys()?, to_edge: keys()? };
        reader.end()?;
        Ok(claim)
    }

    /// The edge's end of the data connection.
    fn at_edge(self) -> (Sealer, Opener) {
        (Sealer::from_keys(self.to_agent, 0), Opener::from_keys(self.to_edge, 0))
    }

    /// The agent's end, before the client's packets come.
    #[must_use]
    pub fn at_agent(self) -> (Opener, Sealer) {
        (Opener::from_keys(self.to_agent, 0), Sealer::from_keys(self.to_edge, 0))
    }
}

/// What an agent needs of a session's first key exchange, and of the one that it is to go on with.
pub(super) struct FirstKeys {
    /// Identification lines: the client's, the server's.
    pub(super) idents: [Box<[u8]>; 2],
    /// KEXINITs, whole: the client's, the server's.
    pub(super) kexinits: [Box<[u8]>; 2],
    /// As presented.
    pub(super) host_key: Box<[u8]>,
    /// The client's, the server's.
    pub(super) values: [Box<[u8]>; 2],
    pub(super) secret: Secret,
    /// That began the exchange that changes hands.
    pub(super) later_kexinit: Vec<u8>,
    /// Of the client's next packet.
    pub(super) receive_seq: u32,
    /// Of the packet behind the KEXINIT.
    pub(super) send_seq: u32,
}

/// SIGN: what the edge is to reply to the client's value, once it has signed `hash`.
pub(super) fn sign_message(
    algorithm: HostKeyAlgorithm,
    hash: &ExchangeHash,
    reply_value: &[u8],
) -> Vec<u8> {
    let mut message = vec![number::SIGN];
    message.put_string(algorithm.name().as_bytes());
    message.put_string(hash.as_bytes());
    message.put_string(reply_value);
    message
}

#[cfg(test)]
mod tests;
