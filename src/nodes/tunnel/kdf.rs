//! What an encrypted PKCS#8 file asks for before it opens: work and memory that its
//! writer chose, and so whoever hands it in.
//!
//! Sources: RFC 8018 §A.2 (PBKDF2) and §A.4 (PBES2), RFC 7914 §7 (scrypt).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// 1.2.840.113549.1.5.12, as DER has it.
const PBKDF2: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
/// 1.3.6.1.4.1.11591.4.11.
const SCRYPT: &[u8] = &[0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x04, 0x0b];
/// Most rounds of PBKDF2: OpenSSL writes 2,048, careful people a million.
const ROUNDS_MAX: u64 = 2_000_000;
/// Most memory that scrypt may take, in bytes: 128 times N times r. OpenSSL asks for 16 MiB.
const SCRYPT_BYTES_MAX: u64 = 64 << 20;
/// Most passes over that memory.
const SCRYPT_PASSES_MAX: u64 = 4;

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
const INTEGER: u8 = 0x02;

/// Whether the file asks for no more than a second's work; not if it asks in a way that is
/// not known here.
pub(super) fn is_affordable(pem: &str) -> bool {
    let inner: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let Ok(der) = STANDARD.decode(inner) else { return true };
    cost(&der) == Some(true)
}

/// `EncryptedPrivateKeyInfo { { PBES2, { { function, parameters }, cipher } }, data }`.
fn cost(der: &[u8]) -> Option<bool> {
    let (whole, _) = take(der, SEQUENCE)?;
    let (algorithm, _) = take(whole, SEQUENCE)?;
    let (_, of_pbes2) = take(algorithm, 0x06)?;
    let (of_pbes2, _) = take(of_pbes2, SEQUENCE)?;
    let (function, _) = take(of_pbes2, SEQUENCE)?;
    let is_pbkdf2 = function.starts_with(PBKDF2);
    if !is_pbkdf2 && !function.starts_with(SCRYPT) {
        return None;
    }
    let (_, parameters) = take(function, 0x06)?;
    let (parameters, _) = take(parameters, SEQUENCE)?;
    let (_, rest) = take(parameters, OCTETS)?;
    let (first, rest) = integer(rest)?;
    if is_pbkdf2 {
        return Some(first <= ROUNDS_MAX);
    }
    let ((blocks, rest), n) = (integer(rest)?, first);
    let (passes, _) = integer(rest)?;
    let bytes = n.checked_mul(blocks)?.checked_mul(128)?;
    Some(bytes <= SCRYPT_BYTES_MAX && passes <= SCRYPT_PASSES_MAX)
}

/// The contents of the element with this tag, and what stands behind it.
fn take(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[first, length], rest) = der.split_first_chunk()?;
    if first != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => {
            let (length, rest) = rest.split_first()?;
            (usize::from(*length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn integer(der: &[u8]) -> Option<(u64, &[u8])> {
    let (digits, rest) = take(der, INTEGER)?;
    let value = digits
        .iter()
        .try_fold(0_u64, |value, digit| value.checked_mul(256)?.checked_add(u64::from(*digit)))?;
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element of DER, shorter than 128 bytes.
    fn element(tag: u8, inner: &[&[u8]]) -> Vec<u8> {
        let inner = inner.concat();
        [&[tag, u8::try_from(inner.len()).unwrap()][..], &inner].concat()
    }

    fn asks(function: &[u8], numbers: &[&[u8]]) -> Option<bool> {
        let numbers: Vec<u8> =
            numbers.iter().flat_map(|number| element(INTEGER, &[number])).collect();
        let parameters = element(SEQUENCE, &[&element(OCTETS, &[b"saltsalt"]), &numbers]);
        let function = element(SEQUENCE, &[function, &parameters]);
        let of_pbes2 = element(SEQUENCE, &[&function, &element(SEQUENCE, &[])]);
        let algorithm = element(SEQUENCE, &[&element(6, &[&[1, 2, 3]]), &of_pbes2]);
        cost(&element(SEQUENCE, &[&algorithm, &element(OCTETS, &[&[0; 16]])]))
    }

    #[test]
    fn work_and_memory_are_bounded_and_what_is_unknown_is_refused() {
        assert_eq!(asks(PBKDF2, &[&[0x08, 0x00]]), Some(true));
        assert_eq!(asks(PBKDF2, &[&[0x7f, 0xff, 0xff, 0xff]]), Some(false));
        assert_eq!(asks(PBKDF2, &[&[0xff; 9]]), None);
        assert_eq!(asks(SCRYPT, &[&[0x40, 0x00], &[8], &[1]]), Some(true));
        assert_eq!(asks(SCRYPT, &[&[0x40, 0x00, 0x00], &[8], &[1]]), Some(false));
        assert_eq!(asks(SCRYPT, &[&[0x40, 0x00], &[8], &[99]]), Some(false));
        assert_eq!(asks(&element(6, &[&[9, 9]]), &[&[1]]), None);
    }

    #[test]
    fn cut_files_are_refused() {
        let whole = element(SEQUENCE, &[&element(SEQUENCE, &[&element(6, &[&[1]])])]);
        for len in 0..whole.len() {
            assert_eq!(cost(&whole[..len]), None);
        }
    }
}
