//! Public keys of users, hosts and CAs, their fingerprints, and the one place where
//! signatures are verified.
//!
//! Key type, signature algorithm, curve name and blob type must all agree; whatever disagrees is
//! refused, never guessed. SHA-1 (`ssh-rsa` signatures) is not known here at all. Keys keep their
//! wire blob: it is what is hashed, compared and sent.
//!
//! Sources: RFC 4253 §6.6, RFC 5656 §3, RFC 8332, RFC 8709, OpenSSH PROTOCOL.u2f.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    EcdsaVerificationAlgorithm, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};

pub use super::keytype::{KeyType, SignatureAlgorithm};
use super::wire::{Malformed, Put, Reader};

/// Shortest RSA modulus let in, in bits: what NIST SP 800-131A still allows.
pub const RSA_BITS_MIN: u32 = 2048;
/// Longest RSA modulus, in bits. Verification grows with its square; the provider stops
/// at the same size.
pub const RSA_BITS_MAX: u32 = 8192;
/// Longest RSA public exponent, in bits: the provider's own limit, and far above the usual 65537.
const RSA_EXPONENT_BITS_MAX: u32 = 33;
/// Longest security key application, in bytes. `ssh:` and a few words in practice.
const APPLICATION_BYTES_MAX: usize = 1024;
/// Security key flag: somebody touched it (OpenSSH PROTOCOL.u2f).
const FLAG_USER_PRESENT: u8 = 0x01;
/// Security key flag: it asked for its PIN or a fingerprint.
const FLAG_USER_VERIFIED: u8 = 0x04;

/// Why a key or a signature is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyFault {
    /// The bytes are not the key they claim to be, or name something that cannot be written as one.
    #[error("malformed key")]
    Malformed,
    /// A key type, curve, algorithm or file format that is not spoken here.
    #[error("unsupported key type")]
    Unsupported,
    /// An RSA key below [`RSA_BITS_MIN`].
    #[error("RSA key too short")]
    Weak,
    /// The signature is malformed, of another algorithm, or does not verify.
    #[error("signature does not verify")]
    Signature,
    /// A valid security key signature without the user-present flag.
    #[error("security key was not touched")]
    Touch,
    /// A private key file that is protected by a passphrase.
    #[error("encrypted private key")]
    Encrypted,
}

impl From<Malformed> for KeyFault {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// SHA-256 of the raw public key blob (never of a certificate). Display:
/// `SHA256:base64-without-padding`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Hash, Ord, PartialOrd, Serialize)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a wire blob.
    pub(crate) fn of(blob: &[u8]) -> Self {
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(digest(&SHA256, blob).as_ref()) {
            *to = *from;
        }
        Self(hash)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = KeyFault;

    /// Reads what `ssh-keygen -l` prints: `SHA256:` and 43 characters.
    fn from_str(text: &str) -> Result<Self, KeyFault> {
        let encoded = text.strip_prefix("SHA256:").ok_or(KeyFault::Malformed)?;
        let bytes = STANDARD_NO_PAD.decode(encoded).map_err(|_| KeyFault::Malformed)?;
        Ok(Self(bytes.try_into().map_err(|_| KeyFault::Malformed)?))
    }
}

/// Whether a security key's signature must say that somebody touched it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Touch {
    /// Refuse a signature without the user-present flag.
    Required,
    /// The key's own entry or certificate says `no-touch-required`.
    NotRequired,
}

/// What a signature proved beside possession.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Proof {
    /// A security key checked its user's PIN or fingerprint. Always false for every other key.
    pub user_verified: bool,
}

/// A parsed plain public key that keeps its wire blob.
#[derive(Clone, Eq, PartialEq, Hash)]
pub struct PublicKey {
    blob: Box<[u8]>,
    key_type: KeyType,
}

impl PublicKey {
    /// From a wire blob (RFC 4253 §6.6).
    ///
    /// # Errors
    /// [`KeyFault::Unsupported`] for other types, certificates among them, and oversized RSA keys;
    /// [`KeyFault::Weak`]; [`KeyFault::Malformed`], also for a point that is not on its curve.
    pub fn parse(blob: &[u8]) -> Result<Self, KeyFault> {
        let material = Material::read(blob)?;
        material.check()?;
        Ok(Self { blob: blob.into(), key_type: material.key_type() })
    }

    /// From one line as in `id_ed25519.pub`: type, base64, comment. Returns the comment too.
    ///
    /// # Errors
    /// As [`PublicKey::parse`], and [`KeyFault::Malformed`] if the line's type is not the blob's.
    pub fn parse_line(line: &str) -> Result<(Self, &str), KeyFault> {
        let (name, blob, comment) = split_line(line)?;
        if KeyType::from_name(name).is_none() {
            return Err(KeyFault::Unsupported);
        }
        let key = Self::parse(&blob)?;
        if key.key_type.name() == name { Ok((key, comment)) } else { Err(KeyFault::Malformed) }
    }

    /// The wire blob, exactly as it was read.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// Its type.
    pub const fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// SHA-256 of the blob: the identity of the key everywhere.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.blob)
    }

    /// `ssh-ed25519 AAAA...` without a comment.
    pub fn to_line(&self) -> String {
        format!("{} {}", self.key_type.name(), STANDARD.encode(&self.blob))
    }

    /// Verifies a signature blob (string algorithm, string signature, security keys: flags and
    /// counter) over `data`. `algorithm` is the one negotiated in the request: the blob must name
    /// the same one. A security key must have been touched.
    ///
    /// # Errors
    /// [`KeyFault::Unsupported`] if a key of this type does not sign with `algorithm`;
    /// [`KeyFault::Signature`]; [`KeyFault::Touch`].
    pub fn verify(
        &self,
        algorithm: SignatureAlgorithm,
        data: &[u8],
        signature: &[u8],
    ) -> Result<Proof, KeyFault> {
        self.verify_with(algorithm, Touch::Required, data, signature)
    }

    /// As [`PublicKey::verify`], for a key whose own entry may say `no-touch-required`
    /// (see [`Restrictions::touch`](super::certificate::Restrictions::touch)).
    ///
    /// # Errors
    /// As [`PublicKey::verify`].
    pub fn verify_with(
        &self,
        algorithm: SignatureAlgorithm,
        touch: Touch,
        data: &[u8],
        signature: &[u8],
    ) -> Result<Proof, KeyFault> {
        if algorithm.key_type() != self.key_type {
            return Err(KeyFault::Unsupported);
        }
        let material = Material::read(&self.blob)?;
        let mut reader = Reader::new(signature);
        let signed = read_signature(&mut reader, algorithm).map_err(|_| KeyFault::Signature)?;
        if let Some(application) = material.application() {
            let assertion = Assertion::read(reader).map_err(|_| KeyFault::Signature)?;
            material.verify(algorithm, &assertion.signed_data(application, data), signed)?;
            assertion.proof(touch)
        } else {
            reader.end().map_err(|_| KeyFault::Signature)?;
            material.verify(algorithm, data, signed)?;
            Ok(Proof::default())
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.key_type.name(), self.fingerprint())
    }
}

/// The three fields of a `.pub` line: type, blob, comment.
pub(super) fn split_line(line: &str) -> Result<(&str, Vec<u8>, &str), KeyFault> {
    let line = line.trim();
    if line.contains(['\n', '\r', '\0']) {
        return Err(KeyFault::Malformed);
    }
    let (name, rest) = line.split_once([' ', '\t']).ok_or(KeyFault::Malformed)?;
    let rest = rest.trim_start();
    let (encoded, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    let blob = STANDARD.decode(encoded).map_err(|_| KeyFault::Malformed)?;
    Ok((name, blob, comment.trim_start()))
}

/// Takes the algorithm's name, which must be the negotiated one, and the signature proper.
fn read_signature<'a>(
    reader: &mut Reader<'a>,
    algorithm: SignatureAlgorithm,
) -> Result<&'a [u8], Malformed> {
    if reader.name()? != algorithm.name() {
        return Err(Malformed::Range);
    }
    reader.string()
}

/// The NIST curves of RFC 5656.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// The identifier of RFC 5656 §6.1, repeated inside every blob.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
            Self::P521 => "nistp521",
        }
    }

    /// Bytes of a coordinate, and of each half of a fixed-width signature.
    pub(super) const fn width(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// The curve of a plain ECDSA key.
    pub(super) const fn of(key_type: KeyType) -> Option<Self> {
        match key_type {
            KeyType::EcdsaP256 => Some(Self::P256),
            KeyType::EcdsaP384 => Some(Self::P384),
            KeyType::EcdsaP521 => Some(Self::P521),
            KeyType::Ed25519 | KeyType::Rsa | KeyType::SkEd25519 | KeyType::SkEcdsaP256 => None,
        }
    }

    const fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }

    /// Verifies `signature` (mpint r, mpint s; RFC 5656 §3.1.2) by `point` over `data`.
    fn verify(self, point: &[u8], data: &[u8], signature: &[u8]) -> Result<(), KeyFault> {
        let fixed = self.fixed_width(signature).map_err(|_| KeyFault::Signature)?;
        UnparsedPublicKey::new(self.verification(), point)
            .verify(data, &fixed)
            .map_err(|_| KeyFault::Signature)
    }

    /// The provider wants r and s at full width. Both mpints must be minimal, so one signature
    /// has one encoding.
    fn fixed_width(self, signature: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut reader = Reader::new(signature);
        let mut fixed = Vec::with_capacity(self.width().saturating_mul(2));
        for _ in 0..2 {
            put_padded(&mut fixed, reader.mpint()?, self.width())?;
        }
        reader.end()?;
        Ok(fixed)
    }
}

/// Appends `digits` with leading zeros up to `width` bytes.
pub(super) fn put_padded(out: &mut Vec<u8>, digits: &[u8], width: usize) -> Result<(), Malformed> {
    let zeros = width.checked_sub(digits.len()).ok_or(Malformed::Range)?;
    out.extend(std::iter::repeat_n(0, zeros));
    out.extend_from_slice(digits);
    Ok(())
}

/// What a blob holds, borrowed from it.
enum Material<'a> {
    Ed25519 { key: &'a [u8] },
    Ecdsa { key_type: KeyType, curve: Curve, point: &'a [u8] },
    Rsa { exponent: &'a [u8], modulus: &'a [u8] },
    SkEd25519 { key: &'a [u8], application: &'a [u8] },
    SkEcdsaP256 { point: &'a [u8], application: &'a [u8] },
}

impl<'a> Material<'a> {
    /// Reads the fields and checks everything that needs no arithmetic.
    fn read(blob: &'a [u8]) -> Result<Self, KeyFault> {
        let mut reader = Reader::new(blob);
        let key_type = KeyType::from_name(reader.name()?).ok_or(KeyFault::Unsupported)?;
        let material = match key_type {
            KeyType::Ed25519 => Self::Ed25519 { key: read_ed25519(&mut reader)? },
            KeyType::EcdsaP256 => Self::read_ecdsa(&mut reader, key_type, Curve::P256)?,
            KeyType::EcdsaP384 => Self::read_ecdsa(&mut reader, key_type, Curve::P384)?,
            KeyType::EcdsaP521 => Self::read_ecdsa(&mut reader, key_type, Curve::P521)?,
            KeyType::Rsa => Self::Rsa { exponent: reader.mpint()?, modulus: reader.mpint()? },
            KeyType::SkEd25519 => Self::SkEd25519 {
                key: read_ed25519(&mut reader)?,
                application: read_application(&mut reader)?,
            },
            KeyType::SkEcdsaP256 => Self::SkEcdsaP256 {
                point: read_point(&mut reader, Curve::P256)?,
                application: read_application(&mut reader)?,
            },
        };
        reader.end()?;
        Ok(material)
    }

    fn read_ecdsa(
        reader: &mut Reader<'a>,
        key_type: KeyType,
        curve: Curve,
    ) -> Result<Self, Malformed> {
        Ok(Self::Ecdsa { key_type, curve, point: read_point(reader, curve)? })
    }

    /// The checks that cost arithmetic, made once when a key enters the program.
    fn check(&self) -> Result<(), KeyFault> {
        match self {
            Self::Ed25519 { .. } | Self::SkEd25519 { .. } => Ok(()),
            Self::Ecdsa { curve, point, .. } => check_point(*curve, point),
            Self::SkEcdsaP256 { point, .. } => check_point(Curve::P256, point),
            Self::Rsa { exponent, modulus } => check_rsa(exponent, modulus),
        }
    }

    const fn key_type(&self) -> KeyType {
        match self {
            Self::Ed25519 { .. } => KeyType::Ed25519,
            Self::Ecdsa { key_type, .. } => *key_type,
            Self::Rsa { .. } => KeyType::Rsa,
            Self::SkEd25519 { .. } => KeyType::SkEd25519,
            Self::SkEcdsaP256 { .. } => KeyType::SkEcdsaP256,
        }
    }

    const fn application(&self) -> Option<&'a [u8]> {
        match self {
            Self::SkEd25519 { application, .. } | Self::SkEcdsaP256 { application, .. } => {
                Some(*application)
            }
            Self::Ed25519 { .. } | Self::Ecdsa { .. } | Self::Rsa { .. } => None,
        }
    }

    fn verify(
        &self,
        algorithm: SignatureAlgorithm,
        data: &[u8],
        signature: &[u8],
    ) -> Result<(), KeyFault> {
        match self {
            Self::Ed25519 { key } | Self::SkEd25519 { key, .. } => {
                UnparsedPublicKey::new(&ED25519, key)
                    .verify(data, signature)
                    .map_err(|_| KeyFault::Signature)
            }
            Self::Ecdsa { curve, point, .. } => curve.verify(point, data, signature),
            Self::SkEcdsaP256 { point, .. } => Curve::P256.verify(point, data, signature),
            Self::Rsa { exponent, modulus } => {
                verify_rsa(rsa_parameters(algorithm)?, exponent, modulus, data, signature)
            }
        }
    }
}

fn read_ed25519<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let key = reader.string()?;
    if key.len() == 32 { Ok(key) } else { Err(Malformed::Range) }
}

/// The curve's name and an uncompressed point of its width (RFC 5656 §3.1).
fn read_point<'a>(reader: &mut Reader<'a>, curve: Curve) -> Result<&'a [u8], Malformed> {
    if reader.name()? != curve.name() {
        return Err(Malformed::Range);
    }
    let point = reader.string()?;
    match point {
        [4, coordinates @ ..] if coordinates.len() == curve.width().saturating_mul(2) => Ok(point),
        _ => Err(Malformed::Range),
    }
}

fn read_application<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let application = reader.string()?;
    if application.len() <= APPLICATION_BYTES_MAX { Ok(application) } else { Err(Malformed::Range) }
}

fn check_point(curve: Curve, point: &[u8]) -> Result<(), KeyFault> {
    ParsedPublicKey::new(curve.verification(), point).map_err(|_| KeyFault::Malformed)?;
    Ok(())
}

fn check_rsa(exponent: &[u8], modulus: &[u8]) -> Result<(), KeyFault> {
    let odd = |digits: &[u8]| digits.last().is_some_and(|last| last & 1 == 1);
    if !odd(exponent) || !odd(modulus) || exponent == [1] {
        return Err(KeyFault::Malformed);
    }
    match bits(modulus) {
        ..RSA_BITS_MIN => Err(KeyFault::Weak),
        RSA_BITS_MIN..=RSA_BITS_MAX if bits(exponent) <= RSA_EXPONENT_BITS_MAX => Ok(()),
        _ => Err(KeyFault::Unsupported),
    }
}

/// Bits of a magnitude without leading zero bytes.
fn bits(magnitude: &[u8]) -> u32 {
    let unused = magnitude.first().map_or(0, |first| first.leading_zeros());
    let bytes = u32::try_from(magnitude.len()).unwrap_or(u32::MAX);
    bytes.saturating_mul(8).saturating_sub(unused)
}

const fn rsa_parameters(algorithm: SignatureAlgorithm) -> Result<&'static RsaParameters, KeyFault> {
    match algorithm {
        SignatureAlgorithm::RsaSha256 => Ok(&RSA_PKCS1_2048_8192_SHA256),
        SignatureAlgorithm::RsaSha512 => Ok(&RSA_PKCS1_2048_8192_SHA512),
        SignatureAlgorithm::Ed25519
        | SignatureAlgorithm::EcdsaP256
        | SignatureAlgorithm::EcdsaP384
        | SignatureAlgorithm::EcdsaP521
        | SignatureAlgorithm::SkEd25519
        | SignatureAlgorithm::SkEcdsaP256 => Err(KeyFault::Unsupported),
    }
}

/// A signature shorter than the modulus lost its leading zeros on the way (some agents strip them):
/// they are put back, as OpenSSH does. A longer one is refused.
fn verify_rsa(
    parameters: &RsaParameters,
    exponent: &[u8],
    modulus: &[u8],
    data: &[u8],
    signature: &[u8],
) -> Result<(), KeyFault> {
    let mut padded = Vec::with_capacity(modulus.len());
    put_padded(&mut padded, signature, modulus.len()).map_err(|_| KeyFault::Signature)?;
    RsaPublicKeyComponents { n: modulus, e: exponent }
        .verify(parameters, data, &padded)
        .map_err(|_| KeyFault::Signature)
}

/// What a security key adds to a signature (OpenSSH PROTOCOL.u2f).
struct Assertion {
    flags: u8,
    counter: u32,
}

impl Assertion {
    fn read(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let assertion = Self { flags: reader.u8()?, counter: reader.u32()? };
        reader.end()?;
        Ok(assertion)
    }

    /// What the security key really signed: SHA-256 of the application, flags, counter,
    /// SHA-256 of the message.
    fn signed_data(&self, application: &[u8], data: &[u8]) -> Vec<u8> {
        let mut signed = Vec::with_capacity(69);
        signed.put_bytes(digest(&SHA256, application).as_ref());
        signed.put_u8(self.flags);
        signed.put_u32(self.counter);
        signed.put_bytes(digest(&SHA256, data).as_ref());
        signed
    }

    /// The one place that enforces touch. Only called once the signature holds: until then the
    /// flags are hearsay.
    fn proof(&self, touch: Touch) -> Result<Proof, KeyFault> {
        match touch {
            Touch::Required if self.flags & FLAG_USER_PRESENT == 0 => Err(KeyFault::Touch),
            Touch::Required | Touch::NotRequired => {
                Ok(Proof { user_verified: self.flags & FLAG_USER_VERIFIED != 0 })
            }
        }
    }
}

#[cfg(test)]
#[path = "publickey_tests.rs"]
mod tests;
