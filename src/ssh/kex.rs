//! Key exchange arithmetic: X25519 alone (RFC 8731) and with ML-KEM-768
//! (draft-ietf-sshm-mlkem-hybrid-kex), the exchange hash and key derivation (RFC 4253 §7.2, §8).

use aws_lc_rs::{agreement, digest, kem};
use zeroize::{Zeroize, Zeroizing};

use super::cipher::{Keys, Suite};
use super::entropy::Entropy;
use super::fault::Fault;
use super::negotiate::Method;
use super::wire::Put;

/// An X25519 public value, in bytes.
const X25519_BYTES: usize = 32;
/// An ML-KEM-768 encapsulation key, in bytes (FIPS 203).
const ENCAPSULATION_KEY_BYTES: usize = 1184;
/// An ML-KEM-768 ciphertext, in bytes (FIPS 203).
const CIPHERTEXT_BYTES: usize = 1088;

/// The shared secret as the exchange hash and the key derivation take it: an mpint for plain
/// X25519, a string for the hybrid.
pub(super) struct Secret(Zeroizing<Vec<u8>>);

/// A client's ephemeral private keys, between its first message and the reply.
pub(super) enum Ephemeral {
    /// X25519 alone.
    X25519(agreement::PrivateKey),
    /// ML-KEM-768 and X25519.
    Hybrid(Box<(kem::DecapsulationKey, agreement::PrivateKey)>),
}

impl Ephemeral {
    /// Makes the client's key pair; returns it and the value for KEX_ECDH_INIT.
    pub(super) fn generate(
        method: Method,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, Vec<u8>), Fault> {
        let (private, public) = x25519_pair(entropy)?;
        match method {
            Method::Curve25519 | Method::Curve25519LibSsh => {
                Ok((Self::X25519(private), public.to_vec()))
            }
            Method::MlKem768X25519 => {
                let decapsulation = kem::DecapsulationKey::generate(&kem::ML_KEM_768)
                    .map_err(|_| Fault::KeyExchange)?;
                let encapsulation =
                    decapsulation.encapsulation_key().map_err(|_| Fault::KeyExchange)?;
                let bytes = encapsulation.key_bytes().map_err(|_| Fault::KeyExchange)?;
                let mut value = bytes.as_ref().to_vec();
                value.put_bytes(&public);
                Ok((Self::Hybrid(Box::new((decapsulation, private))), value))
            }
        }
    }

    /// Combines with the value of KEX_ECDH_REPLY.
    pub(super) fn combine(self, value: &[u8]) -> Result<Secret, Fault> {
        match self {
            Self::X25519(private) => x25519_agree(&private, value, Secret::mpint),
            Self::Hybrid(pair) => {
                let (decapsulation, private) = *pair;
                let (ciphertext, public) = hybrid_parts(value, CIPHERTEXT_BYTES)?;
                let first =
                    decapsulation.decapsulate(ciphertext.into()).map_err(|_| Fault::KeyExchange)?;
                x25519_agree(&private, public, |second| Secret::hybrid(first.as_ref(), second))
            }
        }
    }
}

/// The server's half in one go: returns the value for KEX_ECDH_REPLY and the secret.
pub(super) fn respond(
    method: Method,
    value: &[u8],
    entropy: &mut dyn Entropy,
) -> Result<(Vec<u8>, Secret), Fault> {
    match method {
        Method::Curve25519 | Method::Curve25519LibSsh => {
            let (private, public) = x25519_pair(entropy)?;
            let secret = x25519_agree(&private, value, Secret::mpint)?;
            Ok((public.to_vec(), secret))
        }
        Method::MlKem768X25519 => {
            let (key, peer_public) = hybrid_parts(value, ENCAPSULATION_KEY_BYTES)?;
            let key = kem::EncapsulationKey::new(&kem::ML_KEM_768, key)
                .map_err(|_| Fault::KeyExchange)?;
            let (ciphertext, first) = key.encapsulate().map_err(|_| Fault::KeyExchange)?;
            let (private, public) = x25519_pair(entropy)?;
            let secret = x25519_agree(&private, peer_public, |second| {
                Secret::hybrid(first.as_ref(), second)
            })?;
            let mut reply = ciphertext.as_ref().to_vec();
            reply.put_bytes(&public);
            Ok((reply, secret))
        }
    }
}

/// Splits a hybrid value into its post-quantum part of `first_bytes` and the X25519 part.
fn hybrid_parts(value: &[u8], first_bytes: usize) -> Result<(&[u8], &[u8]), Fault> {
    value.split_at_checked(first_bytes).ok_or(Fault::KeyExchange)
}

fn x25519_pair(
    entropy: &mut dyn Entropy,
) -> Result<(agreement::PrivateKey, [u8; X25519_BYTES]), Fault> {
    let mut seed = Zeroizing::new([0u8; X25519_BYTES]);
    entropy.fill(&mut *seed);
    let private = agreement::PrivateKey::from_private_key(&agreement::X25519, &*seed)
        .map_err(|_| Fault::KeyExchange)?;
    let public = private.compute_public_key().map_err(|_| Fault::KeyExchange)?;
    let public = public.as_ref().try_into().map_err(|_| Fault::KeyExchange)?;
    Ok((private, public))
}

fn x25519_agree(
    private: &agreement::PrivateKey,
    peer: &[u8],
    secret: impl FnOnce(&[u8]) -> Secret,
) -> Result<Secret, Fault> {
    // The provider also takes DER here, which is never 32 bytes long.
    let peer: [u8; X25519_BYTES] = peer.try_into().map_err(|_| Fault::KeyExchange)?;
    let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, peer);
    agreement::agree(private, peer, Fault::KeyExchange, |shared| {
        // RFC 7748 §6.1: the provider refuses low-order points; this holds if it ever stops.
        if shared.iter().all(|byte| *byte == 0) {
            Err(Fault::KeyExchange)
        } else {
            Ok(secret(shared))
        }
    })
}

impl Secret {
    fn mpint(shared: &[u8]) -> Self {
        let mut encoded = Zeroizing::new(Vec::with_capacity(40));
        encoded.put_mpint(shared);
        Self(encoded)
    }

    fn hybrid(first: &[u8], second: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(first);
        context.update(second);
        let mut encoded = Zeroizing::new(Vec::with_capacity(40));
        encoded.put_string(context.finish().as_ref());
        Self(encoded)
    }
}

/// The exchange hash under construction (RFC 4253 §8), fed in the order of its fields so that
/// neither KEXINIT has to be kept.
pub(super) struct Transcript(digest::Context);

impl Transcript {
    /// Starts with both identification lines and both KEXINITs, the client's first.
    pub(super) fn new(idents: [&[u8]; 2], kexinits: [&[u8]; 2]) -> Self {
        let mut transcript = Self(digest::Context::new(&digest::SHA256));
        for field in idents.into_iter().chain(kexinits) {
            transcript.string(field);
        }
        transcript
    }

    /// Adds a field as an SSH string.
    pub(super) fn string(&mut self, field: &[u8]) {
        let len = u32::try_from(field.len()).unwrap_or(u32::MAX);
        self.0.update(&len.to_be_bytes());
        self.0.update(field);
    }

    /// Adds the shared secret and returns H.
    pub(super) fn finish(mut self, secret: &Secret) -> [u8; 32] {
        self.0.update(&secret.0);
        sha256(self.0)
    }
}

fn sha256(context: digest::Context) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    out
}

/// Which letters of RFC 4253 §7.2 a direction uses: IV, key, MAC key.
#[derive(Clone, Copy)]
pub(super) enum Flow {
    /// Client to server: A, C, E.
    ToServer,
    /// Server to client: B, D, F.
    ToClient,
}

/// Derives one direction's keys (RFC 4253 §7.2).
pub(super) fn derive(
    flow: Flow,
    suite: Suite,
    secret: &Secret,
    hash: &[u8; 32],
    session_id: &[u8; 32],
) -> Keys {
    let letters = match flow {
        Flow::ToServer => [b'A', b'C', b'E'],
        Flow::ToClient => [b'B', b'D', b'F'],
    };
    let mut keys = Keys::zero(suite);
    for (letter, to) in letters.into_iter().zip(keys.parts_mut()) {
        let stream = block(letter, secret, hash, session_id);
        for (to, from) in to.iter_mut().zip(stream.iter()) {
            *to = *from;
        }
    }
    keys
}

/// 64 bytes of key stream for one letter: K1 || K2.
fn block(
    letter: u8,
    secret: &Secret,
    hash: &[u8; 32],
    session_id: &[u8; 32],
) -> Zeroizing<[u8; 64]> {
    let start = || {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&secret.0);
        context.update(hash);
        context
    };
    let mut first = start();
    first.update(&[letter]);
    first.update(session_id);
    let mut k1 = sha256(first);
    let mut second = start();
    second.update(&k1);
    let mut k2 = sha256(second);
    let mut out = Zeroizing::new([0; 64]);
    for (to, from) in out.iter_mut().zip(k1.iter().chain(&k2)) {
        *to = *from;
    }
    k1.zeroize();
    k2.zeroize();
    out
}

#[cfg(test)]
#[path = "kex_tests.rs"]
mod tests;
