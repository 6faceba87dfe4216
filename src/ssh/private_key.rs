//! Private keys that sign: host keys, CA keys, identities, one-time user keys.
//!
//! Reads and writes the `openssh-key-v1` format without a passphrase (OpenSSH PROTOCOL.key).
//! Secrets are wiped when dropped, here and in the provider, and no `Debug` shows one.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeyPairComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::entropy::Entropy;
use super::publickey::{Curve, KeyFault, KeyType, PublicKey, SignatureAlgorithm, put_padded};
use super::wire::{Put, Reader};

const PEM_BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const PEM_END: &str = "-----END OPENSSH PRIVATE KEY-----";
/// What the decoded file starts with.
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// Longest private key file read, in bytes. An RSA-8192 key takes about 7 kB.
const FILE_BYTES_MAX: usize = 64 << 10;
/// Characters of base64 on a line, as ssh-keygen writes them.
const LINE_CHARS: usize = 70;
/// The private part is padded to this many bytes when nothing encrypts it.
const BLOCK_BYTES: usize = 8;

/// A private key: Ed25519, ECDSA P-256/384/521 or RSA from 2048 bits. Wiped on drop.
pub struct PrivateKey {
    public: PublicKey,
    signer: Signer,
    /// The key's fields of an openssh-key-v1 private part, after the type: the provider
    /// gives no secret back.
    fields: Zeroizing<Vec<u8>>,
}

/// The provider's half of a key. All three keep their secret behind a pointer that the provider
/// wipes when freed.
enum Signer {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl PrivateKey {
    /// A new Ed25519 key from 32 bytes of `entropy`.
    ///
    /// # Panics
    /// If the provider is out of memory: a seed itself is never refused.
    #[expect(
        clippy::expect_used,
        reason = "every 32-byte seed is an Ed25519 key (RFC 8032 §5.1.5)"
    )]
    pub fn generate_ed25519(entropy: &mut dyn Entropy) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        entropy.fill(seed.as_mut_slice());
        Self::from_seed(seed.as_slice()).expect("32 bytes are a seed")
    }

    /// Reads an unencrypted `-----BEGIN OPENSSH PRIVATE KEY-----` file; also returns the comment.
    ///
    /// # Errors
    /// [`KeyFault::Encrypted`]; [`KeyFault::Unsupported`] for other formats and key types;
    /// [`KeyFault::Weak`]; [`KeyFault::Malformed`], also when the private and the public part do
    /// not belong together.
    pub fn from_openssh(text: &str) -> Result<(Self, String), KeyFault> {
        let file = decode_pem(text)?;
        let mut reader = Reader::new(file.strip_prefix(MAGIC).ok_or(KeyFault::Malformed)?);
        let (cipher, kdf, options) = (reader.name()?, reader.name()?, reader.string()?);
        if cipher != "none" || kdf != "none" {
            return Err(KeyFault::Encrypted);
        }
        if !options.is_empty() {
            return Err(KeyFault::Malformed);
        }
        if reader.u32()? != 1 {
            return Err(KeyFault::Unsupported);
        }
        let public = reader.string()?;
        let private = reader.string()?;
        reader.end()?;
        let (key, comment) = Self::read_private(private)?;
        if key.public.blob() == public { Ok((key, comment)) } else { Err(KeyFault::Malformed) }
    }

    /// Writes that format, byte for byte as `ssh-keygen` does.
    pub fn to_openssh(&self, comment: &str, entropy: &mut dyn Entropy) -> Zeroizing<String> {
        let mut check = [0; 4];
        entropy.fill(&mut check);
        let private_len = self.fields.len().saturating_add(comment.len()).saturating_add(128);
        // Full capacity at once: a vector that grows leaves copies behind that nobody wipes.
        let mut private = Zeroizing::new(Vec::with_capacity(private_len));
        private.put_bytes(&check);
        private.put_bytes(&check);
        private.put_string(self.public.key_type().name().as_bytes());
        private.put_bytes(&self.fields);
        private.put_string(comment.as_bytes());
        let padding = private.len().next_multiple_of(BLOCK_BYTES).saturating_sub(private.len());
        private.extend((1u8..).take(padding));

        let file_len = private_len.saturating_add(self.public.blob().len()).saturating_add(128);
        let mut file = Zeroizing::new(Vec::with_capacity(file_len));
        file.put_bytes(MAGIC);
        file.put_string(b"none");
        file.put_string(b"none");
        file.put_string(b"");
        file.put_u32(1);
        file.put_string(self.public.blob());
        file.put_string(&private);
        encode_pem(&file)
    }

    /// The public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Algorithms it signs with, best first: rsa-sha2-512, rsa-sha2-256 for RSA.
    pub const fn algorithms(&self) -> &'static [SignatureAlgorithm] {
        match self.public.key_type() {
            KeyType::Ed25519 => &[SignatureAlgorithm::Ed25519],
            KeyType::EcdsaP256 => &[SignatureAlgorithm::EcdsaP256],
            KeyType::EcdsaP384 => &[SignatureAlgorithm::EcdsaP384],
            KeyType::EcdsaP521 => &[SignatureAlgorithm::EcdsaP521],
            KeyType::Rsa => &[SignatureAlgorithm::RsaSha512, SignatureAlgorithm::RsaSha256],
            KeyType::SkEd25519 | KeyType::SkEcdsaP256 => &[],
        }
    }

    /// The signature blob (string algorithm name, string signature).
    ///
    /// # Errors
    /// [`KeyFault::Unsupported`] if `algorithm` is not one of [`PrivateKey::algorithms`];
    /// [`KeyFault::Signature`] if the provider fails.
    pub fn sign(&self, algorithm: SignatureAlgorithm, data: &[u8]) -> Result<Vec<u8>, KeyFault> {
        if !self.algorithms().contains(&algorithm) {
            return Err(KeyFault::Unsupported);
        }
        let signature = match &self.signer {
            Signer::Ed25519(pair) => {
                pair.try_sign(data).map_err(|_| KeyFault::Signature)?.as_ref().to_vec()
            }
            Signer::Ecdsa(pair) => sign_ecdsa(pair, data)?,
            Signer::Rsa(pair) => sign_rsa(pair, algorithm, data)?,
        };
        let mut blob = Vec::with_capacity(signature.len().saturating_add(64));
        blob.put_string(algorithm.name().as_bytes());
        blob.put_string(&signature);
        Ok(blob)
    }

    /// Reads the private part: two equal check numbers, the key, the comment, padding 1, 2, 3...
    fn read_private(private: &[u8]) -> Result<(Self, String), KeyFault> {
        let mut reader = Reader::new(private);
        if reader.u32()? != reader.u32()? {
            return Err(KeyFault::Malformed);
        }
        let key_type = KeyType::from_name(reader.name()?).ok_or(KeyFault::Unsupported)?;
        let key = match key_type {
            KeyType::Ed25519 => Self::read_ed25519(&mut reader)?,
            KeyType::EcdsaP256 | KeyType::EcdsaP384 | KeyType::EcdsaP521 => {
                Self::read_ecdsa(&mut reader, key_type)?
            }
            KeyType::Rsa => Self::read_rsa(&mut reader)?,
            KeyType::SkEd25519 | KeyType::SkEcdsaP256 => return Err(KeyFault::Unsupported),
        };
        let comment = reader.text()?.to_owned();
        let padding = reader.rest();
        if (1..=u8::MAX).take(padding.len()).eq(padding.iter().copied()) {
            Ok((key, comment))
        } else {
            Err(KeyFault::Malformed)
        }
    }

    /// `string public, string (seed and public again)`.
    fn read_ed25519(reader: &mut Reader<'_>) -> Result<Self, KeyFault> {
        let public = reader.string()?;
        let (seed, again) = reader.string()?.split_at_checked(32).ok_or(KeyFault::Malformed)?;
        let key = Self::from_seed(seed)?;
        let Signer::Ed25519(pair) = &key.signer else { return Err(KeyFault::Malformed) };
        if pair.public_key().as_ref() == public && public == again {
            Ok(key)
        } else {
            Err(KeyFault::Malformed)
        }
    }

    fn from_seed(seed: &[u8]) -> Result<Self, KeyFault> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyFault::Malformed)?;
        let public = pair.public_key().as_ref();
        let mut blob = Vec::with_capacity(64);
        blob.put_string(KeyType::Ed25519.name().as_bytes());
        blob.put_string(public);
        let mut fields = Zeroizing::new(Vec::with_capacity(128));
        fields.put_string(public);
        fields.put_u32(64);
        fields.put_bytes(seed);
        fields.put_bytes(public);
        Ok(Self { public: PublicKey::parse(&blob)?, signer: Signer::Ed25519(pair), fields })
    }

    /// `string curve, string point, mpint secret`. The provider checks that point and secret agree.
    fn read_ecdsa(reader: &mut Reader<'_>, key_type: KeyType) -> Result<Self, KeyFault> {
        let curve = Curve::of(key_type).ok_or(KeyFault::Unsupported)?;
        let start = reader.rest();
        let (name, point, secret) = (reader.name()?, reader.string()?, reader.mpint()?);
        let fields = consumed(start, reader);
        let mut blob = Vec::with_capacity(256);
        blob.put_string(key_type.name().as_bytes());
        blob.put_string(name.as_bytes());
        blob.put_string(point);
        let public = PublicKey::parse(&blob)?;
        let mut scalar = Zeroizing::new(Vec::with_capacity(curve.width()));
        put_padded(&mut scalar, secret, curve.width())?;
        let pair =
            EcdsaKeyPair::from_private_key_and_public_key(ecdsa_signing(curve), &scalar, point)
                .map_err(|_| KeyFault::Malformed)?;
        Ok(Self { public, signer: Signer::Ecdsa(pair), fields })
    }

    /// `mpint n, e, d, iqmp, p, q`. The provider checks that they agree.
    fn read_rsa(reader: &mut Reader<'_>) -> Result<Self, KeyFault> {
        let start = reader.rest();
        let (modulus, exponent, d) = (reader.mpint()?, reader.mpint()?, reader.mpint()?);
        let (iqmp, p, q) = (reader.mpint()?, reader.mpint()?, reader.mpint()?);
        let fields = consumed(start, reader);
        let mut blob = Vec::with_capacity(modulus.len().saturating_add(64));
        blob.put_string(KeyType::Rsa.name().as_bytes());
        blob.put_mpint(exponent);
        blob.put_mpint(modulus);
        // Bounds every length below: the public key's limits hold, and no factor is longer
        // than the modulus.
        let public = PublicKey::parse(&blob)?;
        if [d, iqmp, p, q].iter().any(|part| part.len() > modulus.len()) {
            return Err(KeyFault::Malformed);
        }
        let (d_p, d_q) = (reduce(d, &less_one(p)?), reduce(d, &less_one(q)?));
        let pair = RsaKeyPair::from_components(&KeyPairComponents {
            public_key: RsaPublicKeyComponents { n: modulus, e: exponent },
            d,
            p,
            q,
            dP: d_p.as_slice(),
            dQ: d_q.as_slice(),
            qInv: iqmp,
        })
        .map_err(|_| KeyFault::Malformed)?;
        Ok(Self { public, signer: Signer::Rsa(pair), fields })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// The decoded bytes between the two marker lines.
fn decode_pem(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyFault> {
    if text.len() > FILE_BYTES_MAX {
        return Err(KeyFault::Malformed);
    }
    let text = text.trim();
    if !text.starts_with("-----BEGIN ") {
        return Err(KeyFault::Malformed);
    }
    let body = text.strip_prefix(PEM_BEGIN).ok_or(if text.contains("ENCRYPTED") {
        KeyFault::Encrypted
    } else {
        KeyFault::Unsupported
    })?;
    let body = body.strip_suffix(PEM_END).ok_or(KeyFault::Malformed)?;
    let mut encoded = Zeroizing::new(Vec::with_capacity(body.len()));
    encoded.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let mut decoded = Zeroizing::new(vec![0; body.len()]);
    let len = STANDARD.decode_slice(&*encoded, &mut decoded).map_err(|_| KeyFault::Malformed)?;
    decoded.truncate(len);
    Ok(decoded)
}

fn encode_pem(file: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(STANDARD.encode(file));
    let line_ends = encoded.len().div_ceil(LINE_CHARS).saturating_add(2);
    let len = [PEM_BEGIN.len(), encoded.len(), line_ends, PEM_END.len()].iter().sum();
    let mut text = Zeroizing::new(String::with_capacity(len));
    text.push_str(PEM_BEGIN);
    for (index, symbol) in encoded.chars().enumerate() {
        if index.is_multiple_of(LINE_CHARS) {
            text.push('\n');
        }
        text.push(symbol);
    }
    text.push('\n');
    text.push_str(PEM_END);
    text.push('\n');
    text
}

/// What `reader` took since it stood at `start`.
fn consumed(start: &[u8], reader: &Reader<'_>) -> Zeroizing<Vec<u8>> {
    let len = start.len().saturating_sub(reader.rest().len());
    Zeroizing::new(start.get(..len).unwrap_or_default().to_vec())
}

const fn ecdsa_signing(curve: Curve) -> &'static EcdsaSigningAlgorithm {
    match curve {
        Curve::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
        Curve::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        Curve::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
    }
}

/// `mpint r, mpint s` (RFC 5656 §3.1.2).
fn sign_ecdsa(pair: &EcdsaKeyPair, data: &[u8]) -> Result<Vec<u8>, KeyFault> {
    let fixed = pair.sign(&SystemRandom::new(), data).map_err(|_| KeyFault::Signature)?;
    let (r, s) = fixed.as_ref().split_at(fixed.as_ref().len() / 2);
    let mut signature = Vec::with_capacity(fixed.as_ref().len().saturating_add(16));
    signature.put_mpint(r);
    signature.put_mpint(s);
    Ok(signature)
}

fn sign_rsa(
    pair: &RsaKeyPair,
    algorithm: SignatureAlgorithm,
    data: &[u8],
) -> Result<Vec<u8>, KeyFault> {
    let encoding: &'static dyn RsaEncoding = if algorithm == SignatureAlgorithm::RsaSha256 {
        &RSA_PKCS1_SHA256
    } else {
        &RSA_PKCS1_SHA512
    };
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), data, &mut signature)
        .map_err(|_| KeyFault::Signature)?;
    Ok(signature)
}

/// `prime - 1`, for an odd prime.
fn less_one(prime: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyFault> {
    let mut less = Zeroizing::new(prime.to_vec());
    let last = less.last_mut().ok_or(KeyFault::Malformed)?;
    if *last & 1 == 0 {
        return Err(KeyFault::Malformed);
    }
    *last ^= 1;
    Ok(less)
}

/// `value` modulo `modulus`, both big-endian. OpenSSH's files leave the two CRT exponents out,
/// and the provider has no public function for it. Runs once per key loaded; the same steps
/// whatever the bits are.
fn reduce(value: &[u8], modulus: &[u8]) -> Zeroizing<Vec<u8>> {
    // One byte more than the modulus, for the bit shifted out on top. Equal widths make `zip`
    // line the digits up.
    let width = modulus.len().saturating_add(1);
    let mut rest = Zeroizing::new(vec![0u8; width]);
    let mut less = Zeroizing::new(vec![0u8; width]);
    let bits = value.iter().flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1));
    for bit in bits {
        let mut carry = bit;
        for digit in rest.iter_mut().rev() {
            let out = *digit >> 7;
            *digit = *digit << 1 | carry;
            carry = out;
        }
        let mut borrow = false;
        let subtrahend = modulus.iter().rev().chain(&[0]);
        for ((to, from), minus) in less.iter_mut().rev().zip(rest.iter().rev()).zip(subtrahend) {
            let (difference, first) = from.overflowing_sub(*minus);
            let (difference, second) = difference.overflowing_sub(u8::from(borrow));
            *to = difference;
            borrow = first | second;
        }
        // All ones if the subtraction held.
        let keep = u8::from(borrow).wrapping_sub(1);
        for (digit, other) in rest.iter_mut().zip(less.iter()) {
            *digit = *digit & !keep | *other & keep;
        }
    }
    rest
}

#[cfg(test)]
#[path = "private_key_tests.rs"]
mod tests;
