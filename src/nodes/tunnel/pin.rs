//! Which host key a node must show.
//!
//! Host certificates are no pins: none is asked for in the negotiation, so a node that has one
//! shows its plain key. RSA host keys are not spoken here, as their verification would bring in a
//! crate with an open advisory.

use std::pin::Pin as Pinned;
use std::str::FromStr;

use russh::keys::{Algorithm, EcdsaCurve};

use crate::ssh::publickey::{Fingerprint, KeyType, PublicKey};

/// The types that are asked for, best first.
pub(super) const HOST_KEY_TYPES: [KeyType; 4] =
    [KeyType::Ed25519, KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::EcdsaP521];

/// The key that a node must show.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Pin {
    /// This one.
    Key(PublicKey),
    /// The one with this fingerprint, whose type is not known: types are tried in turn.
    Fingerprint(Fingerprint),
}

/// Why a text is no pin.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PinFault {
    /// A certificate, or the line of a certificate authority.
    #[error(
        "a host certificate is no pin: give the host's plain key, a line of its \
         /etc/ssh/ssh_host_ed25519_key.pub"
    )]
    Certificate,
    /// A key of a type that is not negotiated with nodes.
    #[error(
        "host keys of type {} are not taken from nodes: give the one of type ssh-ed25519 or \
         ecdsa-sha2-nistp256, in /etc/ssh of the node",
        .0.name()
    )]
    Type(KeyType),
    /// Neither a fingerprint nor a key.
    #[error("no host key: give SHA256:... as `ssh-keygen -lf` prints it, or `ssh-ed25519 AAAA...`")]
    Malformed,
}

impl FromStr for Pin {
    type Err = PinFault;

    fn from_str(text: &str) -> Result<Self, PinFault> {
        let text = text.trim();
        if let Ok(fingerprint) = text.parse() {
            return Ok(Self::Fingerprint(fingerprint));
        }
        if text.contains("-cert-v01@openssh.com") || text.starts_with("@cert-authority") {
            return Err(PinFault::Certificate);
        }
        let (key, _) = PublicKey::parse_line(text).map_err(|_| PinFault::Malformed)?;
        if !HOST_KEY_TYPES.contains(&key.key_type()) {
            return Err(PinFault::Type(key.key_type()));
        }
        Ok(Self::Key(key))
    }
}

impl Pin {
    /// The fingerprint that the key must have.
    pub fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Key(key) => key.fingerprint(),
            Self::Fingerprint(fingerprint) => *fingerprint,
        }
    }
}

/// Asked with the key of a node that has no pin, before anything of a credential is sent. The
/// answer no ends the connection.
pub type Question =
    Box<dyn FnOnce(PublicKey) -> Pinned<Box<dyn Future<Output = bool> + Send>> + Send>;

/// What to make of the key that a node shows.
pub enum Trust {
    /// It must be this one.
    Pinned(Pin),
    /// Somebody is asked. The key is for the caller to store, once login and Docker were reached.
    FirstUse(Question),
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pinned(pin) => f.debug_tuple("Pinned").field(pin).finish(),
            Self::FirstUse(_) => f.write_str("FirstUse"),
        }
    }
}

/// A type's name in the SSH library; nothing for those that are not asked for.
pub(super) const fn algorithm(key_type: KeyType) -> Option<Algorithm> {
    let curve = match key_type {
        KeyType::Ed25519 => return Some(Algorithm::Ed25519),
        KeyType::EcdsaP256 => EcdsaCurve::NistP256,
        KeyType::EcdsaP384 => EcdsaCurve::NistP384,
        KeyType::EcdsaP521 => EcdsaCurve::NistP521,
        KeyType::Rsa | KeyType::SkEd25519 | KeyType::SkEcdsaP256 => return None,
    };
    Some(Algorithm::Ecdsa { curve })
}
