//! Secrets that lie in the registry and that only this front door can read: sealed with a key that
//! never leaves the state directory but in a backup of it.
//!
//! AES-256-GCM with a nonce drawn for each; what a secret is for is its associated data, so that
//! nobody who can write the store makes one node's key another's.

use std::io;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::private_file::{make_once, read};
use super::{State, StateFault};
use crate::ssh::entropy::Entropy;

/// The key's file: base64 in a line.
pub(crate) const SEAL_KEY: &str = "seal_key";
const KEY_BYTES: usize = 32;

/// Seals secrets, and opens them again.
pub struct Sealer(RandomizedNonceKey);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

/// What is sealed cannot be opened: it was sealed elsewhere, for something else, or changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("it was sealed by another front door, or for something else")]
pub struct NotOurs;

impl Sealer {
    /// Of a whole file.
    fn of(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).ok()?);
        (bytes.len() == KEY_BYTES).then_some(())?;
        RandomizedNonceKey::new(&AES_256_GCM, &bytes).ok().map(Self)
    }

    /// Seals `secret` for `purpose`: base64.
    #[must_use]
    pub fn seal(&self, purpose: &str, secret: &[u8]) -> Option<String> {
        // The secret is overwritten where it lies: there is room, so that it is not moved.
        let mut bytes = Vec::with_capacity(secret.len().checked_add(AES_256_GCM.tag_len())?);
        bytes.extend_from_slice(secret);
        let nonce = self.0.seal_in_place_append_tag(Aad::from(purpose), &mut bytes).ok()?;
        Some(STANDARD.encode([nonce.as_ref().as_slice(), &bytes].concat()))
    }

    /// Opens what [`Sealer::seal`] made for the same purpose.
    ///
    /// # Errors
    /// [`NotOurs`].
    pub fn open(&self, purpose: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, NotOurs> {
        let bytes = Zeroizing::new(STANDARD.decode(sealed).map_err(|_| NotOurs)?);
        let (nonce, rest) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(NotOurs)?;
        let mut secret = Zeroizing::new(rest.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.open_in_place(nonce, Aad::from(purpose), &mut secret);
        let length = opened.map_err(|_| NotOurs)?.len();
        secret.truncate(length);
        Ok(secret)
    }
}

impl State {
    /// What seals secrets of the registry; its key is made at first use.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`].
    pub fn sealer(&self, entropy: &mut dyn Entropy) -> Result<Sealer, StateFault> {
        if let Some(text) = self.seal_key_text()? {
            return self.sealer_of(&text);
        }
        let path = self.path.join(SEAL_KEY);
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        entropy.fill(&mut *key);
        let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(STANDARD.encode(*key))));
        let made = make_once(&path, text.as_bytes(), entropy);
        made.map_err(|error| StateFault::Io { path: path.clone(), error })?;
        self.sealer_of(&read(&path)?)
    }

    fn sealer_of(&self, text: &str) -> Result<Sealer, StateFault> {
        Sealer::of(text).ok_or_else(|| StateFault::Io {
            path: self.path.join(SEAL_KEY),
            error: io::Error::new(
                io::ErrorKind::InvalidData,
                "is no key; fix: restore it from a backup, or move it away to have a new one made: private keys that were \
                 given for nodes have to be given again then",
            ),
        })
    }

    /// The file of the key that seals, if there is one.
    ///
    /// # Errors
    /// [`StateFault::Io`], [`StateFault::Open`].
    pub(crate) fn seal_key_text(&self) -> Result<Option<Zeroizing<String>>, StateFault> {
        match read(&self.path.join(SEAL_KEY)) {
            Err(StateFault::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            text => text.map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::testing::Seeded;
    use crate::testing::scratch::Scratch;

    #[test]
    fn what_is_sealed_opens_for_its_purpose_and_here_only() {
        let scratch = Scratch::new();
        let open = |name: &str| State::open(&scratch.0.join(name)).unwrap();
        let (mut one, mut other) = (Seeded(1), Seeded(2));
        let ours = open("a").sealer(&mut one).unwrap();
        let again = open("a").sealer(&mut other).unwrap();
        let theirs = open("b").sealer(&mut other).unwrap();
        let sealed = ours.seal("node n1", b"secret").unwrap();
        assert_eq!(*again.open("node n1", &sealed).unwrap(), b"secret");
        assert_eq!(again.open("node n2", &sealed), Err(NotOurs));
        assert_eq!(theirs.open("node n1", &sealed), Err(NotOurs));
        assert_ne!(ours.seal("node n1", b"secret").unwrap(), sealed, "a nonce of its own");
        for wrong in ["", "AAAA", &sealed[4..], "\u{e9}"] {
            assert_eq!(ours.open("node n1", wrong), Err(NotOurs), "{wrong}");
        }
        let file = scratch.0.join("a").join(SEAL_KEY);
        std::fs::write(&file, "AAAA\n").unwrap();
        assert!(open("a").sealer(&mut one).unwrap_err().to_string().contains("is no key"));
    }
}
