//! The private key that logs in to a node.

#![expect(missing_docs, reason = "a field is what its name says")]

use std::fmt;
use std::sync::Arc;

use russh::keys::ssh_key::{self, Kdf, LineEnding};
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey, decode_secret_key};
use zeroize::Zeroizing;

use super::kdf;
use crate::ssh::publickey::PublicKey;

/// Longest key file, in bytes.
const FILE_BYTES_MAX: usize = 64 << 10;
/// Most rounds of bcrypt that a file may ask for: ssh-keygen writes 16 or 24, and a hundred
/// take a second.
const BCRYPT_ROUNDS_MAX: u32 = 512;
/// Where a PEM block begins.
const BEGIN: &str = "-----BEGIN ";
/// What the header of a PEM block ends with.
const DASHES: &str = "-----";

/// Why a text is not taken as a private key.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CredentialFault {
    /// The half that may be shown to anybody.
    #[error("that is a public key: give the private one, the file without .pub")]
    Public,
    /// Signed by a CA, and without the key that it belongs to.
    #[error("that is a certificate: give the private key")]
    Certificate,
    /// No key at all.
    #[error("that is no private key: give one that begins with -----BEGIN ... PRIVATE KEY-----")]
    NotAKey,
    /// Too long to be one.
    #[error("a private key takes at most {FILE_BYTES_MAX} bytes")]
    TooLong,
    /// A key, and damaged.
    #[error("the private key is damaged: copy it again, as a whole")]
    Malformed,
    /// Encrypted.
    #[error("the private key is encrypted: give its passphrase")]
    PassphraseMissing,
    /// Encrypted with another passphrase.
    #[error("the passphrase does not open the private key")]
    PassphraseWrong,
    /// The file asks for more work than any tool makes one ask for.
    #[error("the private key takes too much work to open: write it anew with `ssh-keygen -p`")]
    TooCostly,
    /// A kind of key, or of file, that is not taken.
    #[error("{kind} is not taken: {fix}")]
    Unsupported { kind: String, fix: &'static str },
}

/// What to do instead of an unsupported kind of key.
const NEW_KEY: &str = "make one with `ssh-keygen -t ed25519`";
/// What to do instead of an unsupported kind of file.
const NEW_FILE: &str = "write it in OpenSSH's format with `ssh-keygen -p -f FILE`";

fn unsupported(kind: impl Into<String>, fix: &'static str) -> CredentialFault {
    CredentialFault::Unsupported { kind: kind.into(), fix }
}

/// A private key: Ed25519 or ECDSA. Wiped when the last copy is dropped.
///
/// RSA is refused: the crate that would sign with it has an open advisory.
#[derive(Clone)]
pub struct Credential {
    key: Arc<PrivateKey>,
    public: PublicKey,
}

impl Credential {
    /// Reads a key in OpenSSH's format, PKCS#8 or SEC 1; an encrypted one with its passphrase.
    ///
    /// # Errors
    /// [`CredentialFault`].
    pub fn read(text: &str, passphrase: Option<&str>) -> Result<Self, CredentialFault> {
        if text.len() > FILE_BYTES_MAX {
            return Err(CredentialFault::TooLong);
        }
        let mut lines = Zeroizing::new(String::with_capacity(text.len().saturating_add(1)));
        for line in text.trim().lines() {
            lines.push_str(line.trim_end());
            lines.push('\n');
        }
        let kind = kind(&lines)?;
        let key = match kind {
            "OPENSSH PRIVATE KEY" => openssh(&lines, passphrase)?,
            "EC PRIVATE KEY" if lines.contains("\nDEK-Info:") => {
                return Err(unsupported("the old encryption of PEM files", NEW_FILE));
            }
            "PRIVATE KEY" | "EC PRIVATE KEY" => pem(&lines, None)?,
            "ENCRYPTED PRIVATE KEY" => {
                if !kdf::is_affordable(&lines) {
                    return Err(CredentialFault::TooCostly);
                }
                pem(&lines, Some(passphrase.ok_or(CredentialFault::PassphraseMissing)?))?
            }
            "RSA PRIVATE KEY" => return Err(unsupported("RSA", NEW_KEY)),
            "DSA PRIVATE KEY" => return Err(unsupported("DSA", NEW_KEY)),
            _ => return Err(CredentialFault::NotAKey),
        };
        is_taken(&key.algorithm())?;
        let blob = key.public_key().to_bytes().map_err(|_| CredentialFault::Malformed)?;
        let public = PublicKey::parse(&blob).map_err(|_| CredentialFault::Malformed)?;
        Ok(Self { key: Arc::new(key), public })
    }

    /// The key without a passphrase, as OpenSSH writes it.
    ///
    /// # Errors
    /// [`CredentialFault::Malformed`].
    pub fn to_openssh(&self) -> Result<Zeroizing<String>, CredentialFault> {
        self.key.to_openssh(LineEnding::LF).map_err(|_| CredentialFault::Malformed)
    }

    /// The public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn key(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.key)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.public.fingerprint())
    }
}

/// What the PEM block says that it holds.
fn kind(text: &str) -> Result<&str, CredentialFault> {
    let first = text.lines().next().unwrap_or_default();
    if first.contains("-cert-v01@openssh.com ") {
        return Err(CredentialFault::Certificate);
    }
    let is_line = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];
    let is_public = is_line.iter().any(|name| first.starts_with(name))
        || first.starts_with("---- BEGIN SSH2 PUBLIC KEY")
        || first.starts_with(BEGIN) && first.contains("PUBLIC KEY");
    if is_public {
        return Err(CredentialFault::Public);
    }
    if first.starts_with("PuTTY-User-Key-File-") {
        let fix = "export it with `puttygen FILE -O private-openssh -o NEW`";
        return Err(unsupported("PuTTY's format", fix));
    }
    // OpenSSL writes curve parameters in a block of their own before an EC key.
    let mut begins = text.lines().filter_map(|line| {
        line.strip_prefix(BEGIN)?.strip_suffix(DASHES).filter(|kind| *kind != "EC PARAMETERS")
    });
    begins.next().ok_or(CredentialFault::NotAKey)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library may learn more kinds")]
fn openssh(text: &str, passphrase: Option<&str>) -> Result<PrivateKey, CredentialFault> {
    let key = PrivateKey::from_openssh(text).map_err(|why| match why {
        ssh_key::Error::AlgorithmUnsupported { algorithm } => {
            is_taken(&algorithm).err().unwrap_or_else(|| unsupported("this kind of key", NEW_KEY))
        }
        ssh_key::Error::AlgorithmUnknown => unsupported("this kind of key or cipher", NEW_KEY),
        _ => CredentialFault::Malformed,
    })?;
    // The type stands in the open part: nobody is asked for a passphrase in vain.
    is_taken(&key.algorithm())?;
    if !key.is_encrypted() {
        return Ok(key);
    }
    if matches!(key.kdf(), Kdf::Bcrypt { rounds, .. } if *rounds > BCRYPT_ROUNDS_MAX) {
        return Err(CredentialFault::TooCostly);
    }
    let passphrase = passphrase.ok_or(CredentialFault::PassphraseMissing)?;
    key.decrypt(passphrase).map_err(|_| CredentialFault::PassphraseWrong)
}

fn pem(text: &str, passphrase: Option<&str>) -> Result<PrivateKey, CredentialFault> {
    decode_secret_key(text, passphrase).map_err(|why| match (why, passphrase) {
        (russh::keys::Error::UnknownAlgorithm(oid), _) => match oid.to_string().as_str() {
            "1.2.840.113549.1.1.1" => unsupported("RSA", NEW_KEY),
            "1.2.840.10040.4.1" => unsupported("DSA", NEW_KEY),
            _ => unsupported("this kind of key", NEW_KEY),
        },
        (_, Some(_)) => CredentialFault::PassphraseWrong,
        (_, None) => CredentialFault::Malformed,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library may learn more kinds")]
fn is_taken(algorithm: &Algorithm) -> Result<(), CredentialFault> {
    match algorithm {
        Algorithm::Ed25519
        | Algorithm::Ecdsa {
            curve: EcdsaCurve::NistP256 | EcdsaCurve::NistP384 | EcdsaCurve::NistP521,
        } => Ok(()),
        Algorithm::Rsa { .. } => Err(unsupported("RSA", NEW_KEY)),
        Algorithm::Dsa => Err(unsupported("DSA", NEW_KEY)),
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => {
            let fix = "nobody is there to touch it; make one with `ssh-keygen -t ed25519`";
            Err(unsupported("a key that lives in a security key", fix))
        }
        _ => Err(unsupported("this kind of key", NEW_KEY)),
    }
}

#[cfg(test)]
#[path = "credential_tests.rs"]
mod tests;
