//! DNSSEC, online: the records of one answer are signed when it is asked for, with one ECDSA P-256
//! key (RFC 6605). The zone itself is never signed, so a change costs no more than without.
//!
//! What does not exist is denied by one record made for the question: an NSEC of that very name
//! whose bitmap holds NXNAME, or the types that are there (compact denial, RFC 9824). Nobody can
//! list the zone by walking it.
//!
//! Signatures are kept and used again. Those of denied names are not: strangers choose the names.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use hickory_proto::ProtoError;
use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData, NSEC, RRSIG, SigInput};
use hickory_proto::dnssec::{Algorithm, DigestType, PublicKeyBuf};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, SerialNumber};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};

use crate::ssh::keytype::SignatureAlgorithm;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::KeyFault;
use crate::ssh::wire::{Malformed, Reader};

/// A signature is good from an hour ago, for resolvers whose clock is late.
const BACKDATED_S: u64 = 3600;
/// To three days from now: longer than a resolver's clock is wrong, shorter than a stolen key
/// stays unnoticed.
const VALID_S: u64 = 3 * 86_400;
/// A kept one is made anew after a day, two before it ends.
const KEPT_S: u64 = 86_400;
/// Each is about 400 bytes. When it is full, all of them are made anew.
const KEPT_MAX: usize = 8192;
/// A coordinate of P-256, and each half of a signature.
const FIELD_BYTES: usize = 32;
/// `NXNAME`: what a name's bitmap holds that does not exist (RFC 9824 §2).
const NXNAME: u16 = 128;

/// Why an answer could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The key is not ECDSA P-256, or the provider failed.
    #[error("the DNSSEC key: {0}")]
    Key(#[from] KeyFault),
    /// The key's own encoding.
    #[error("the DNSSEC key: {0}")]
    Encoding(#[from] Malformed),
    /// A name with no room for the label that follows it.
    #[error(transparent)]
    Wire(#[from] ProtoError),
}

/// The key, and signatures made with it.
pub struct Signer {
    key: Arc<PrivateKey>,
    dnskey: DNSKEY,
    key_tag: u16,
    apex: Name,
    /// By what was signed. All tasks that answer share one thread, so nobody waits for it.
    kept: Mutex<HashMap<Vec<u8>, Kept>>,
}

struct Kept {
    signature: RRSIG,
    made_unix_s: u64,
}

/// Whether a signature will be asked for again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keep {
    /// Of records that exist.
    Yes,
    /// Of a name that a stranger made up.
    No,
}

impl Signer {
    /// Signs for the zone `apex`.
    ///
    /// # Errors
    /// [`SigningError::Key`] for another type of key.
    pub fn new(key: Arc<PrivateKey>, apex: Name) -> Result<Self, SigningError> {
        // string type, string curve, string point (RFC 5656 §3.1); the point is 4, x, y.
        let mut blob = Reader::new(key.public().blob());
        let (_type, curve, point) = (blob.string()?, blob.string()?, blob.string()?);
        let point = match point.split_first() {
            Some((4, xy)) if curve == b"nistp256" && xy.len() == 2 * FIELD_BYTES => xy.to_vec(),
            _ => return Err(KeyFault::Unsupported.into()),
        };
        // One key for everything, which the parent's DS names: zone key, and entry point.
        let public = PublicKeyBuf::new(point, Algorithm::ECDSAP256SHA256);
        let dnskey = DNSKEY::new(true, true, false, public);
        let key_tag = dnskey.calculate_key_tag()?;
        Ok(Self { key, dnskey, key_tag, apex, kept: Mutex::default() })
    }

    /// The apex' DNSKEY.
    pub fn dnskey(&self) -> RData {
        RData::DNSSEC(DNSSECRData::DNSKEY(self.dnskey.clone()))
    }

    /// The line that the parent zone needs.
    ///
    /// # Errors
    /// Never for a key that was taken.
    pub fn ds(&self) -> Result<String, SigningError> {
        let digest = self.dnskey.to_digest(&self.apex, DigestType::SHA256)?;
        let mut line = format!("{} IN DS {} 13 2 ", self.apex, self.key_tag);
        for byte in digest.as_ref() {
            // A string always grows.
            let _ = write!(line, "{byte:02X}");
        }
        Ok(line)
    }

    /// Signs every set of records of a section; each signature stands behind its set.
    ///
    /// # Errors
    /// The provider failed; the section is as it was.
    pub fn section(
        &self,
        section: &mut Vec<Record>,
        keep: Keep,
        unix_s: u64,
    ) -> Result<(), SigningError> {
        let mut signed = Vec::with_capacity(section.len() + 2);
        let one_set =
            |a: &Record, b: &Record| a.record_type() == b.record_type() && a.name == b.name;
        for set in section.chunk_by(one_set) {
            signed.extend_from_slice(set);
            signed.extend(self.set(set, keep, unix_s)?);
        }
        *section = signed;
        Ok(())
    }

    /// The signature of one set: records of one name and type.
    fn set(&self, set: &[Record], keep: Keep, unix_s: u64) -> Result<Option<Record>, SigningError> {
        let Some(first) = set.first() else { return Ok(None) };
        let record = |signature| {
            let data = RData::DNSSEC(DNSSECRData::RRSIG(signature));
            Some(Record::from_rdata(first.name.clone(), first.ttl, data))
        };
        let canonical = canonical(first, set)?;
        if keep == Keep::Yes
            && let Some(kept) = self.kept().get(&canonical)
            // A clock that was set back makes all of them too young to be true.
            && unix_s.checked_sub(kept.made_unix_s).is_some_and(|age| age < KEPT_S)
        {
            return Ok(record(kept.signature.clone()));
        }
        let signature = self.sign(first, &canonical, unix_s)?;
        if keep == Keep::Yes {
            let mut all = self.kept();
            if all.len() >= KEPT_MAX {
                all.clear();
            }
            let kept = Kept { signature: signature.clone(), made_unix_s: unix_s };
            all.insert(canonical, kept);
        }
        Ok(record(signature))
    }

    /// RFC 4034 §3.1.8.1.
    fn sign(&self, first: &Record, canonical: &[u8], unix_s: u64) -> Result<RRSIG, SigningError> {
        let input = SigInput {
            type_covered: first.record_type(),
            algorithm: Algorithm::ECDSAP256SHA256,
            num_labels: first.name.num_labels(),
            original_ttl: first.ttl,
            sig_expiration: serial(unix_s.saturating_add(VALID_S)),
            sig_inception: serial(unix_s.saturating_sub(BACKDATED_S)),
            key_tag: self.key_tag,
            signer_name: self.apex.clone(),
        };
        let mut signed = Vec::new();
        let mut encoder = encoder(&mut signed);
        input.emit(&mut encoder)?;
        signed.extend_from_slice(canonical);
        let blob = self.key.sign(SignatureAlgorithm::EcdsaP256, &signed)?;
        Ok(RRSIG::from_sig(input, fixed(&blob)?))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, Kept>> {
        // A map of whole entries is whole whenever it is left.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `types` exist at `name` in the zone `apex`, and no others. It covers nothing but
/// the name itself.
///
/// # Errors
/// Never for a name that was read from a message.
pub fn nsec(
    name: &Name,
    apex: &Name,
    types: impl IntoIterator<Item = RecordType>,
    ttl_s: u32,
) -> Result<Record, SigningError> {
    let next = successor(name, apex)?;
    let data = RData::DNSSEC(DNSSECRData::NSEC(NSEC::new_cover_self(next, types)));
    Ok(Record::from_rdata(name.clone(), ttl_s, data))
}

/// The name behind `name` in canonical order (RFC 4034 §6.1): one label of a zero byte more. The
/// longest names have no room for it, and nothing below them: behind them comes their own label,
/// longer or greater by as little as can be (RFC 4471 §3.1.2), and behind the last of all the apex.
fn successor(name: &Name, apex: &Name) -> Result<Name, ProtoError> {
    if let Ok(next) = name.prepend_label(&[0_u8][..]) {
        return Ok(next);
    }
    let lower = name.to_lowercase();
    let mut labels: Vec<Vec<u8>> = lower.iter().map(<[u8]>::to_vec).collect();
    let of = |labels: &[Vec<u8>]| Name::from_labels(labels.iter().map(Vec::as_slice));
    while labels.len() > apex.iter().len()
        && let Some(first) = labels.first_mut()
    {
        first.push(0);
        if let Ok(next) = of(&labels) {
            return Ok(next);
        }
        let Some(first) = labels.first_mut() else { break };
        first.pop();
        while first.last() == Some(&u8::MAX) {
            first.pop();
        }
        if let Some(last) = first.last_mut() {
            // Upper case is none in that order.
            *last = if *last == b'@' { b'[' } else { last.saturating_add(1) };
            return of(&labels);
        }
        labels.remove(0);
    }
    Ok(apex.clone())
}

/// The type in the bitmap of a name that does not exist.
pub fn nxname() -> RecordType {
    RecordType::from(NXNAME)
}

/// The set as it is signed: owner in lower case, original TTL, data in canonical form and
/// order (RFC 4034 §6).
fn canonical(first: &Record, set: &[Record]) -> Result<Vec<u8>, SigningError> {
    let mut all = Vec::with_capacity(set.len());
    for record in set {
        let mut data = Vec::new();
        record.data.emit(&mut encoder(&mut data))?;
        all.push(data);
    }
    all.sort_unstable();
    all.dedup();
    let mut head = Vec::new();
    let mut encoder = encoder(&mut head);
    encoder.set_name_encoding(NameEncoding::UncompressedLowercase);
    first.name.emit(&mut encoder)?;
    first.record_type().emit(&mut encoder)?;
    DNSClass::IN.emit(&mut encoder)?;
    encoder.emit_u32(first.ttl)?;
    let mut canonical = Vec::new();
    for data in all {
        let len = u16::try_from(data.len()).map_err(|_| ProtoError::from("data over 64 kB"))?;
        canonical.extend_from_slice(&head);
        canonical.extend_from_slice(&len.to_be_bytes());
        canonical.extend_from_slice(&data);
    }
    Ok(canonical)
}

fn encoder(into: &mut Vec<u8>) -> BinEncoder<'_> {
    let mut encoder = BinEncoder::new(into);
    encoder.set_canonical_form(true);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    encoder
}

/// An SSH signature (string algorithm, string of mpint r and mpint s) as DNSSEC writes it: r and s,
/// 32 bytes each (RFC 6605 §4).
fn fixed(blob: &[u8]) -> Result<Vec<u8>, SigningError> {
    let mut blob = Reader::new(blob);
    let _algorithm = blob.string()?;
    let mut halves = Reader::new(blob.string()?);
    let mut fixed = Vec::with_capacity(2 * FIELD_BYTES);
    for _ in 0..2 {
        let half = halves.mpint()?;
        let zeros = FIELD_BYTES.checked_sub(half.len()).ok_or(KeyFault::Signature)?;
        fixed.extend(std::iter::repeat_n(0, zeros));
        fixed.extend_from_slice(half);
    }
    Ok(fixed)
}

/// Seconds modulo 2^32, which is how RRSIG has them (RFC 4034 §3.1.5).
fn serial(unix_s: u64) -> SerialNumber {
    let [.., a, b, c, d] = unix_s.to_be_bytes();
    SerialNumber::new(u32::from_be_bytes([a, b, c, d]))
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;
