//! Key exchange arithmetic: X25519 alone (RFC 8731) and with ML-KEM-768
//! (draft-ietf-sshm-mlkem-hybrid-kex), ECDH on NIST curves (RFC 5656 §4), the exchange hash and key
//! derivation (RFC 4253 §7.2, §8).

use aws_lc_rs::{agreement, digest, kem};
use zeroize::{Zeroize, Zeroizing};

use super::cipher::{Keys, Suite};
use super::entropy::Entropy;
use super::fault::Fault;
use super::wire::{Malformed, Put, Reader};

/// An X25519 public value, in bytes.
const X25519_BYTES: usize = 32;
/// An ML-KEM-768 encapsulation key, in bytes (FIPS 203).
const ENCAPSULATION_KEY_BYTES: usize = 1184;
/// An ML-KEM-768 ciphertext, in bytes (FIPS 203).
const CIPHERTEXT_BYTES: usize = 1088;

/// The longest exchange hash, SHA-384, in bytes.
const HASH_BYTES_MAX: usize = 48;
/// What an uncompressed point begins with (SEC 1 §2.3.3). Compressed ones are optional (RFC 5656
/// §3.1): not here.
const UNCOMPRESSED: u8 = 4;
/// Private keys drawn before we give up: one of 2^32 is out of range for P-256, of 2^190 for P-384.
const DRAWS_MAX: u32 = 8;

/// A key exchange method.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    /// Hybrid of ML-KEM-768 and X25519 (draft-ietf-sshm-mlkem-hybrid-kex).
    MlKem768X25519,
    /// RFC 8731.
    Curve25519,
    /// The same under the name it had before RFC 8731.
    Curve25519LibSsh,
    /// RFC 5656, on NIST P-256: for those who have nothing newer.
    EcdhP256,
    /// The same on P-384, hashed with SHA-384.
    EcdhP384,
}

impl Method {
    /// Every method, best first.
    pub const ALL: [Self; 5] = [
        Self::MlKem768X25519,
        Self::Curve25519,
        Self::Curve25519LibSsh,
        Self::EcdhP256,
        Self::EcdhP384,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MlKem768X25519 => "mlkem768x25519-sha256",
            Self::Curve25519 => "curve25519-sha256",
            Self::Curve25519LibSsh => "curve25519-sha256@libssh.org",
            Self::EcdhP256 => "ecdh-sha2-nistp256",
            Self::EcdhP384 => "ecdh-sha2-nistp384",
        }
    }

    /// The method of that name on the wire.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// Is it there for old or FIPS peers only?
    #[must_use]
    pub const fn is_legacy(self) -> bool {
        matches!(self, Self::EcdhP256 | Self::EcdhP384)
    }
}

/// An exchange hash H, or the session identifier, which is the first one (RFC 4253 §7.2).
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct ExchangeHash {
    bytes: [u8; HASH_BYTES_MAX],
    algorithm: HashAlgorithm,
}

/// What a method hashes with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum HashAlgorithm {
    Sha256,
    Sha384,
}

impl HashAlgorithm {
    const fn of(method: Method) -> Self {
        match method {
            Method::MlKem768X25519
            | Method::Curve25519
            | Method::Curve25519LibSsh
            | Method::EcdhP256 => Self::Sha256,
            Method::EcdhP384 => Self::Sha384,
        }
    }

    fn begin(self) -> digest::Context {
        digest::Context::new(match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
        })
    }

    fn finish(self, context: digest::Context) -> ExchangeHash {
        // Filled where it stays: key stream passes through here.
        let mut hash = ExchangeHash { bytes: [0; HASH_BYTES_MAX], algorithm: self };
        for (to, from) in hash.bytes.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        hash
    }
}

impl ExchangeHash {
    /// Its 32 or 48 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let len = match self.algorithm {
            HashAlgorithm::Sha256 => 32,
            HashAlgorithm::Sha384 => HASH_BYTES_MAX,
        };
        self.bytes.get(..len).unwrap_or_default()
    }
}

impl std::fmt::Debug for ExchangeHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ExchangeHash({:02x?})", self.as_bytes())
    }
}

/// The shared secret as the exchange hash and the key derivation take it: an mpint for plain
/// X25519 and the NIST curves, a string for the hybrid.
pub(super) struct Secret(Zeroizing<Vec<u8>>);

/// A client's ephemeral private keys, between its first message and the reply.
pub(super) enum Ephemeral {
    /// X25519 alone.
    X25519(agreement::PrivateKey),
    /// ML-KEM-768 and X25519.
    Hybrid(Box<(kem::DecapsulationKey, agreement::PrivateKey)>),
    /// A point on this curve.
    Nist(Curve, agreement::PrivateKey),
}

/// A NIST curve.
#[derive(Clone, Copy)]
pub(super) enum Curve {
    P256,
    P384,
}

impl Curve {
    const fn algorithm(self) -> &'static agreement::Algorithm {
        match self {
            Self::P256 => &agreement::ECDH_P256,
            Self::P384 => &agreement::ECDH_P384,
        }
    }

    /// A coordinate, or a private key, in bytes.
    const fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    /// A key pair: the private key, and the public one as an uncompressed point.
    fn pair(self, entropy: &mut dyn Entropy) -> Result<(agreement::PrivateKey, Vec<u8>), Fault> {
        let mut seed = Zeroizing::new([0; HASH_BYTES_MAX]);
        let seed = seed.get_mut(..self.bytes()).ok_or(Fault::KeyExchange)?;
        for _ in 0..DRAWS_MAX {
            entropy.fill(seed);
            if let Ok(private) = agreement::PrivateKey::from_private_key(self.algorithm(), seed) {
                let public = private.compute_public_key().map_err(|_| Fault::KeyExchange)?;
                return Ok((private, public.as_ref().to_vec()));
            }
        }
        Err(Fault::KeyExchange)
    }

    fn agree(self, private: &agreement::PrivateKey, peer: &[u8]) -> Result<Secret, Fault> {
        // The provider takes compressed points and DER too; that the point is on the curve and not
        // its zero is checked there (RFC 5656 §4).
        let len = self.bytes().saturating_mul(2).saturating_add(1);
        if peer.len() != len || peer.first() != Some(&UNCOMPRESSED) {
            return Err(Fault::KeyExchange);
        }
        let peer = agreement::UnparsedPublicKey::new(self.algorithm(), peer);
        agreement::agree(private, peer, Fault::KeyExchange, |shared| Ok(Secret::mpint(shared)))
    }
}

impl Ephemeral {
    /// Makes the client's key pair; returns it and the value for KEX_ECDH_INIT.
    pub(super) fn generate(
        method: Method,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, Vec<u8>), Fault> {
        match method {
            Method::Curve25519 | Method::Curve25519LibSsh => {
                let (private, public) = x25519_pair(entropy)?;
                Ok((Self::X25519(private), public.to_vec()))
            }
            Method::EcdhP256 => Self::nist(Curve::P256, entropy),
            Method::EcdhP384 => Self::nist(Curve::P384, entropy),
            Method::MlKem768X25519 => {
                let (private, public) = x25519_pair(entropy)?;
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

    fn nist(curve: Curve, entropy: &mut dyn Entropy) -> Result<(Self, Vec<u8>), Fault> {
        let (private, public) = curve.pair(entropy)?;
        Ok((Self::Nist(curve, private), public))
    }

    /// Combines with the value of KEX_ECDH_REPLY.
    pub(super) fn combine(self, value: &[u8]) -> Result<Secret, Fault> {
        match self {
            Self::X25519(private) => x25519_agree(&private, value, Secret::mpint),
            Self::Nist(curve, private) => curve.agree(&private, value),
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
        Method::EcdhP256 => respond_nist(Curve::P256, value, entropy),
        Method::EcdhP384 => respond_nist(Curve::P384, value, entropy),
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

fn respond_nist(
    curve: Curve,
    value: &[u8],
    entropy: &mut dyn Entropy,
) -> Result<(Vec<u8>, Secret), Fault> {
    let (private, public) = curve.pair(entropy)?;
    let secret = curve.agree(&private, value)?;
    Ok((public, secret))
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
    /// One field, as it stands in the exchange hash.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.0
    }

    /// From [`Secret::encoded`].
    ///
    /// # Errors
    /// [`Malformed`] unless it is exactly one field.
    pub(super) fn from_encoded(encoded: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(encoded);
        reader.string()?;
        reader.end()?;
        Ok(Self(Zeroizing::new(encoded.to_vec())))
    }

    fn mpint(shared: &[u8]) -> Self {
        let mut encoded = Zeroizing::new(Vec::with_capacity(56));
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
pub(super) struct Transcript(HashAlgorithm, digest::Context);

impl Transcript {
    /// Starts with both identification lines and both KEXINITs, the client's first.
    pub(super) fn new(method: Method, idents: [&[u8]; 2], kexinits: [&[u8]; 2]) -> Self {
        let algorithm = HashAlgorithm::of(method);
        let mut transcript = Self(algorithm, algorithm.begin());
        for field in idents.into_iter().chain(kexinits) {
            transcript.string(field);
        }
        transcript
    }

    /// Adds a field as an SSH string.
    pub(super) fn string(&mut self, field: &[u8]) {
        let len = u32::try_from(field.len()).unwrap_or(u32::MAX);
        self.1.update(&len.to_be_bytes());
        self.1.update(field);
    }

    /// Adds the shared secret and returns H.
    pub(super) fn finish(mut self, secret: &Secret) -> ExchangeHash {
        self.1.update(&secret.0);
        self.0.finish(self.1)
    }
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
    hash: &ExchangeHash,
    session_id: &ExchangeHash,
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

/// 64 bytes of key stream for one letter: K1 || K2, by the hash of this exchange.
fn block(
    letter: u8,
    secret: &Secret,
    hash: &ExchangeHash,
    session_id: &ExchangeHash,
) -> Zeroizing<[u8; 64]> {
    let start = || {
        let mut context = hash.algorithm.begin();
        context.update(&secret.0);
        context.update(hash.as_bytes());
        context
    };
    let mut first = start();
    first.update(&[letter]);
    first.update(session_id.as_bytes());
    let mut k1 = hash.algorithm.finish(first);
    let mut second = start();
    second.update(k1.as_bytes());
    let mut k2 = hash.algorithm.finish(second);
    let mut out = Zeroizing::new([0; 64]);
    for (to, from) in out.iter_mut().zip(k1.as_bytes().iter().chain(k2.as_bytes())) {
        *to = *from;
    }
    k1.bytes.zeroize();
    k2.bytes.zeroize();
    out
}

#[cfg(test)]
#[path = "kex_tests.rs"]
mod tests;
