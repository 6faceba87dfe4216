//! What is revoked: OpenSSH key revocation lists and plain lists of keys (OpenSSH PROTOCOL.krl,
//! ssh-keygen(1) -k).
//!
//! The file is the operator's own, yet it is read like any other: nothing is allocated beyond a
//! small multiple of its size, and what is not understood refuses the whole file. A lookup hashes,
//! or searches a sorted list.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde::{Deserialize, Serialize};

use super::certificate::Certificate;
use super::publickey::{Fingerprint, KeyFault, PublicKey, split_line};
use super::wire::{Malformed, Reader};

/// Largest file read, in bytes: about 8 million serial numbers one by one, and far more
/// as ranges or bits.
pub const FILE_BYTES_MAX: usize = 64 << 20;
/// What a KRL starts with.
const MAGIC: &[u8] = b"SSHKRL\n\0";
const FORMAT_VERSION: u32 = 1;

const SECTION_CERTIFICATES: u8 = 1;
const SECTION_EXPLICIT_KEY: u8 = 2;
const SECTION_FINGERPRINT_SHA1: u8 = 3;
const SECTION_SIGNATURE: u8 = 4;
const SECTION_FINGERPRINT_SHA256: u8 = 5;
const SECTION_EXTENSION: u8 = 255;

const CERTIFICATES_SERIAL_LIST: u8 = 0x20;
const CERTIFICATES_SERIAL_RANGE: u8 = 0x21;
const CERTIFICATES_SERIAL_BITMAP: u8 = 0x22;
const CERTIFICATES_KEY_ID: u8 = 0x23;
const CERTIFICATES_EXTENSION: u8 = 0x39;

/// Everything revoked. Empty by default.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Revocations {
    /// SHA-256 of revoked blobs: fingerprints, and the keys given in full.
    sha256: HashSet<Fingerprint>,
    sha1: HashSet<[u8; 20]>,
    any_ca: Issued,
    by_ca: HashMap<Fingerprint, Issued>,
}

impl Revocations {
    /// A binary KRL or a plain list of public key lines / `SHA256:` fingerprints. Error: readable
    /// text with a line where it has one.
    ///
    /// # Errors
    /// Text for the operator; the list must not be used then, in whole or in part.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > FILE_BYTES_MAX {
            return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
        }
        let mut revocations = Self::default();
        if let Some(body) = bytes.strip_prefix(MAGIC) {
            revocations.read_krl(body).map_err(|fault| format!("KRL: {fault}"))?;
        } else {
            let text = std::str::from_utf8(bytes)
                .map_err(|_| "neither a KRL nor a text file".to_owned())?;
            for (number, line) in (1u32..).zip(text.lines()) {
                revocations.read_line(line).map_err(|fault| format!("line {number}: {fault}"))?;
            }
        }
        revocations.any_ca.settle();
        revocations.by_ca.values_mut().for_each(Issued::settle);
        Ok(revocations)
    }

    /// Nothing is revoked.
    pub fn is_empty(&self) -> bool {
        let Self { sha256, sha1, any_ca, by_ca } = self;
        sha256.is_empty()
            && sha1.is_empty()
            && any_ca.is_empty()
            && by_ca.values().all(Issued::is_empty)
    }

    /// Revokes what `other` revokes as well.
    pub fn extend(&mut self, other: Self) {
        let Self { sha256, sha1, any_ca, by_ca } = other;
        self.sha256.extend(sha256);
        self.sha1.extend(sha1);
        self.any_ca.extend(any_ca);
        for (ca, issued) in by_ca {
            self.by_ca.entry(ca).or_default().extend(issued);
        }
    }

    /// By itself or its fingerprint.
    pub fn revokes_key(&self, key: &PublicKey) -> bool {
        self.revokes_blob(key.blob())
    }

    /// Whether a key's SHA-256 fingerprint says all there is to know: a list of SHA-1 hashes cannot
    /// say anything about it.
    pub fn knows_fingerprints(&self) -> bool {
        self.sha1.is_empty()
    }

    /// By the fingerprint alone, as far as that goes: see [`Self::knows_fingerprints`].
    pub fn revokes_fingerprint(&self, fingerprint: &Fingerprint) -> bool {
        self.sha256.contains(fingerprint)
    }

    /// By its key, its CA, its serial, its key id or its own hash.
    pub fn revokes_certificate(&self, certificate: &Certificate) -> bool {
        let ca = certificate.ca();
        self.revokes_key(certificate.key())
            || self.revokes_key(ca)
            || self.revokes_blob(certificate.blob())
            || self.any_ca.contains(certificate)
            || self.by_ca.get(&ca.fingerprint()).is_some_and(|issued| issued.contains(certificate))
    }

    fn revokes_blob(&self, blob: &[u8]) -> bool {
        !self.sha256.is_empty() && self.sha256.contains(&Fingerprint::of(blob))
            || !self.sha1.is_empty()
                && self.sha1.contains(digest(&SHA1_FOR_LEGACY_USE_ONLY, blob).as_ref())
    }

    /// One line of a plain list. A certificate's line revokes its key, as in sshd, and so every
    /// certificate for it.
    fn read_line(&mut self, line: &str) -> Result<(), &'static str> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let first = line.split_ascii_whitespace().next().unwrap_or_default();
        if first.starts_with("SHA256:") {
            let fingerprint = first.parse().map_err(|_| "malformed SHA256 fingerprint")?;
            self.sha256.insert(fingerprint);
            return Ok(());
        }
        let (name, blob, _comment) =
            split_line(line).map_err(|_| "neither a public key nor a SHA256: fingerprint")?;
        let key = if name.contains("-cert-v01@") {
            let certificate =
                Certificate::parse_line(line).map_err(|_| "certificate cannot be read")?;
            certificate.key().fingerprint()
        } else {
            is_key_blob(&blob)?;
            if Reader::new(&blob).name() != Ok(name) {
                return Err("the type of the line is not the key's");
            }
            Fingerprint::of(&blob)
        };
        self.sha256.insert(key);
        Ok(())
    }

    fn read_krl(&mut self, body: &[u8]) -> Result<(), KrlFault> {
        let mut reader = Reader::new(body);
        if reader.u32()? != FORMAT_VERSION {
            return Err(KrlFault::Version);
        }
        let (_krl_version, _generated_s, _flags) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (_reserved, _comment) = (reader.string()?, reader.string()?);
        while !reader.is_empty() {
            let section = reader.u8()?;
            let data = reader.string()?;
            match section {
                SECTION_CERTIFICATES => self.read_certificates(data)?,
                SECTION_EXPLICIT_KEY => {
                    for blob in Strings(Reader::new(data)) {
                        let blob = blob?;
                        is_key_blob(blob).map_err(|_| KrlFault::Key)?;
                        self.sha256.insert(Fingerprint::of(blob));
                    }
                }
                SECTION_FINGERPRINT_SHA1 => {
                    for hash in Strings(Reader::new(data)) {
                        self.sha1.insert(hash?.try_into().map_err(|_| KrlFault::Hash)?);
                    }
                }
                SECTION_FINGERPRINT_SHA256 => {
                    for hash in Strings(Reader::new(data)) {
                        let hash = hash?.try_into().map_err(|_| KrlFault::Hash)?;
                        self.sha256.insert(Fingerprint(hash));
                    }
                }
                // The first string was the signing key, the signature follows. No OpenSSH
                // ever wrote one and since 9.4 none looks at it: the file is trusted because
                // of where it lies.
                SECTION_SIGNATURE => {
                    reader.string()?;
                }
                SECTION_EXTENSION => read_extension(data)?,
                other => return Err(KrlFault::Section(other)),
            }
        }
        Ok(())
    }

    /// `string ca_key, string reserved`, then sections. An empty CA key means every CA.
    fn read_certificates(&mut self, data: &[u8]) -> Result<(), KrlFault> {
        let mut reader = Reader::new(data);
        let ca = reader.string()?;
        let _reserved = reader.string()?;
        let issued = if ca.is_empty() {
            &mut self.any_ca
        } else {
            is_key_blob(ca).map_err(|_| KrlFault::Key)?;
            self.by_ca.entry(Fingerprint::of(ca)).or_default()
        };
        while !reader.is_empty() {
            let section = reader.u8()?;
            let data = reader.string()?;
            match section {
                CERTIFICATES_SERIAL_LIST => issued.read_list(data)?,
                CERTIFICATES_SERIAL_RANGE => issued.read_range(data)?,
                CERTIFICATES_SERIAL_BITMAP => issued.read_bitmap(data)?,
                CERTIFICATES_KEY_ID => {
                    for key_id in Strings(Reader::new(data)) {
                        issued.key_ids.insert(key_id?.into());
                    }
                }
                CERTIFICATES_EXTENSION => read_extension(data)?,
                other => return Err(KrlFault::Section(other)),
            }
        }
        Ok(())
    }
}

/// Why a KRL is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
enum KrlFault {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("format version is not {FORMAT_VERSION}")]
    Version,
    #[error("section of unknown type {0}")]
    Section(u8),
    #[error("critical extension that is not known")]
    Extension,
    #[error("malformed key")]
    Key,
    #[error("hash of the wrong length")]
    Hash,
    #[error("serial number 0, an empty range, or a bitmap past the last serial number")]
    Serial,
}

/// Certificates of one CA, or of any.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Issued {
    /// 64 serial numbers a word: {serial / 64, one bit each}. Sorted and merged once read. A bit of
    /// a bitmap costs no more than in the file, a serial of a list twice its size.
    words: Vec<(u64, u64)>,
    /// First and last serial. Sorted, disjoint once read.
    ranges: Vec<(u64, u64)>,
    key_ids: HashSet<Box<[u8]>>,
}

impl Issued {
    /// A CA that does not number its certificates gives them all serial 0: that number revokes
    /// nothing, as in OpenSSH.
    fn contains(&self, certificate: &Certificate) -> bool {
        self.key_ids.contains(certificate.key_id().as_bytes())
            || certificate.serial() != 0 && self.contains_serial(certificate.serial())
    }

    fn contains_serial(&self, serial: u64) -> bool {
        let (word, bit) = locate(serial);
        let in_words = self
            .words
            .binary_search_by_key(&word, |(word, _)| *word)
            .ok()
            .and_then(|index| self.words.get(index))
            .is_some_and(|(_, bits)| bits & bit != 0);
        let after = self.ranges.partition_point(|(first, _)| *first <= serial);
        let in_ranges = after
            .checked_sub(1)
            .and_then(|index| self.ranges.get(index))
            .is_some_and(|(_, last)| serial <= *last);
        in_words || in_ranges
    }

    fn insert(&mut self, serial: u64) -> Result<(), KrlFault> {
        if serial == 0 {
            return Err(KrlFault::Serial);
        }
        let (word, bit) = locate(serial);
        match self.words.last_mut() {
            Some((last, bits)) if *last == word => *bits |= bit,
            Some(_) | None => self.words.push((word, bit)),
        }
        Ok(())
    }

    fn read_list(&mut self, data: &[u8]) -> Result<(), KrlFault> {
        let mut reader = Reader::new(data);
        while !reader.is_empty() {
            self.insert(reader.u64()?)?;
        }
        Ok(())
    }

    fn read_range(&mut self, data: &[u8]) -> Result<(), KrlFault> {
        let mut reader = Reader::new(data);
        let (first, last) = (reader.u64()?, reader.u64()?);
        reader.end()?;
        if first == 0 || first > last {
            return Err(KrlFault::Serial);
        }
        self.ranges.push((first, last));
        Ok(())
    }

    /// `uint64 offset, mpint bitmap`: bit n, from the least significant, stands for offset + n.
    fn read_bitmap(&mut self, data: &[u8]) -> Result<(), KrlFault> {
        let mut reader = Reader::new(data);
        let offset = reader.u64()?;
        let bitmap = reader.mpint()?;
        reader.end()?;
        for (position, byte) in (0u64..).zip(bitmap.iter().rev()) {
            for bit in (0u64..8).filter(|bit| byte >> bit & 1 == 1) {
                let serial = position
                    .checked_mul(8)
                    .and_then(|bits| bits.checked_add(bit))
                    .and_then(|bits| offset.checked_add(bits))
                    .ok_or(KrlFault::Serial)?;
                self.insert(serial)?;
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        let Self { words, ranges, key_ids } = self;
        words.is_empty() && ranges.is_empty() && key_ids.is_empty()
    }

    fn extend(&mut self, other: Self) {
        let Self { words, ranges, key_ids } = other;
        self.words.extend(words);
        self.ranges.extend(ranges);
        self.key_ids.extend(key_ids);
        self.settle();
    }

    /// Sorts and merges, so that lookups can search.
    fn settle(&mut self) {
        self.words.sort_unstable();
        self.words.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 |= later.1;
            }
            same
        });
        self.words.shrink_to_fit();
        self.ranges.sort_unstable();
        self.ranges.dedup_by(|later, earlier| {
            let touches = later.0 <= earlier.1.saturating_add(1);
            if touches {
                earlier.1 = earlier.1.max(later.1);
            }
            touches
        });
        self.ranges.shrink_to_fit();
    }
}

/// The word a serial's bit is in, and that bit.
const fn locate(serial: u64) -> (u64, u64) {
    (serial >> 6, 1 << (serial & 63))
}

/// A sequence of strings to the end of the data. Ends after the first malformed one.
struct Strings<'a>(Reader<'a>);

impl<'a> Iterator for Strings<'a> {
    type Item = Result<&'a [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let string = self.0.string();
        if string.is_err() {
            self.0 = Reader::new(&[]);
        }
        Some(string)
    }
}

/// `string name, boolean critical, string contents`. None is known.
fn read_extension(data: &[u8]) -> Result<(), KrlFault> {
    let mut reader = Reader::new(data);
    let _name = reader.string()?;
    let critical = reader.bool()?;
    let _contents = reader.string()?;
    reader.end()?;
    if critical { Err(KrlFault::Extension) } else { Ok(()) }
}

/// Keys that never get in (too short, of an unknown type) may stand in a list made for
/// other servers too. Garbage and certificates may not: they would revoke nothing and
/// nobody would notice.
fn is_key_blob(blob: &[u8]) -> Result<(), &'static str> {
    let fault = "malformed public key";
    match PublicKey::parse(blob) {
        Ok(_) | Err(KeyFault::Weak) => Ok(()),
        Err(KeyFault::Unsupported) => {
            let mut reader = Reader::new(blob);
            let name = reader.name().map_err(|_| fault)?;
            if name.contains("-cert-v01@") || reader.is_empty() { Err(fault) } else { Ok(()) }
        }
        Err(KeyFault::Malformed | KeyFault::Signature | KeyFault::Touch | KeyFault::Encrypted) => {
            Err(fault)
        }
    }
}

#[cfg(test)]
#[path = "revocation_tests.rs"]
mod tests;
