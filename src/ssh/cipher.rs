//! What protects one direction of a connection: cipher, MAC, and the key material for both.
//!
//! Names and lengths only. What is done with them stands in `packet` and `protection`; where the
//! material comes from, in `kex` (RFC 4253 §7.2).

use std::ops::Range;

use zeroize::Zeroize;

/// Most bytes of key that any cipher or MAC takes (chacha20-poly1305, HMAC-SHA2-512).
pub const KEY_LEN_MAX: usize = 64;
/// Most bytes of initial IV that any cipher takes (AES-CTR).
pub const IV_LEN_MAX: usize = 16;

/// Which cipher protects one direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cipher {
    /// Two `ChaCha20` keys and Poly1305; hides the packet length too
    /// (draft-ietf-sshm-chacha20-poly1305).
    Chacha20Poly1305,
    /// AES-128-GCM with the length as associated data (RFC 5647 under OpenSSH's name).
    Aes128Gcm,
    /// AES-256-GCM with the length as associated data (RFC 5647 under OpenSSH's name).
    Aes256Gcm,
    /// AES-128 in counter mode (RFC 4344 §4), with a MAC of its own.
    Aes128Ctr,
    /// AES-192 in counter mode (RFC 4344 §4), with a MAC of its own.
    Aes192Ctr,
    /// AES-256 in counter mode (RFC 4344 §4), with a MAC of its own.
    Aes256Ctr,
}

/// Which MAC goes with an AES-CTR cipher.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mac {
    /// HMAC-SHA2-256 over the ciphertext.
    Sha256Etm,
    /// HMAC-SHA2-512 over the ciphertext.
    Sha512Etm,
    /// HMAC-SHA2-256 over the plaintext (RFC 6668): encrypt-and-MAC, for libssh2 1.10.
    Sha256,
    /// HMAC-SHA2-512 over the plaintext (RFC 6668): encrypt-and-MAC, for libssh2 1.10.
    Sha512,
}

/// What one direction negotiated. `mac` is `None` exactly for the AEAD ciphers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Suite {
    /// The cipher.
    pub cipher: Cipher,
    /// The MAC of a cipher that has none built in.
    pub mac: Option<Mac>,
}

impl Suite {
    /// Pairs a cipher with a MAC: an AEAD cipher drops the MAC (OpenSSH PROTOCOL §1.6, RFC 5647
    /// §5.1), another without a MAC is `None`.
    pub const fn new(cipher: Cipher, mac: Option<Mac>) -> Option<Self> {
        match (cipher.is_aead(), mac) {
            (true, _) => Some(Self { cipher, mac: None }),
            (false, Some(_)) => Some(Self { cipher, mac }),
            (false, None) => None,
        }
    }
}

impl Cipher {
    /// Every cipher, in the order we prefer as a server/client default.
    pub const ALL: [Self; 6] = [
        Self::Aes128Gcm,
        Self::Aes256Gcm,
        Self::Chacha20Poly1305,
        Self::Aes128Ctr,
        Self::Aes192Ctr,
        Self::Aes256Ctr,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chacha20Poly1305 => "chacha20-poly1305@openssh.com",
            Self::Aes128Gcm => "aes128-gcm@openssh.com",
            Self::Aes256Gcm => "aes256-gcm@openssh.com",
            Self::Aes128Ctr => "aes128-ctr",
            Self::Aes192Ctr => "aes192-ctr",
            Self::Aes256Ctr => "aes256-ctr",
        }
    }

    /// The cipher of that name on the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cipher| cipher.name() == name)
    }

    /// Bytes of key. For chacha20-poly1305 that of the packets, then that of the lengths.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Chacha20Poly1305 => 64,
            Self::Aes128Gcm | Self::Aes128Ctr => 16,
            Self::Aes192Ctr => 24,
            Self::Aes256Gcm | Self::Aes256Ctr => 32,
        }
    }

    /// Bytes of initial IV.
    pub const fn iv_len(self) -> usize {
        match self {
            Self::Chacha20Poly1305 => 0,
            Self::Aes128Gcm | Self::Aes256Gcm => 12,
            Self::Aes128Ctr | Self::Aes192Ctr | Self::Aes256Ctr => 16,
        }
    }

    /// Whether the cipher authenticates by itself.
    pub const fn is_aead(self) -> bool {
        match self {
            Self::Chacha20Poly1305 | Self::Aes128Gcm | Self::Aes256Gcm => true,
            Self::Aes128Ctr | Self::Aes192Ctr | Self::Aes256Ctr => false,
        }
    }
}

impl Mac {
    /// Every MAC, in the order we prefer.
    pub const ALL: [Self; 4] = [Self::Sha256Etm, Self::Sha512Etm, Self::Sha256, Self::Sha512];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256Etm => "hmac-sha2-256-etm@openssh.com",
            Self::Sha512Etm => "hmac-sha2-512-etm@openssh.com",
            Self::Sha256 => "hmac-sha2-256",
            Self::Sha512 => "hmac-sha2-512",
        }
    }

    /// The MAC of that name on the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mac| mac.name() == name)
    }

    /// Bytes of key, and of the tag.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Sha256Etm | Self::Sha256 => 32,
            Self::Sha512Etm | Self::Sha512 => 64,
        }
    }

    /// Whether the MAC covers the ciphertext, so that a packet is refused before
    /// anything is decrypted.
    pub const fn is_etm(self) -> bool {
        match self {
            Self::Sha256Etm | Self::Sha512Etm => true,
            Self::Sha256 | Self::Sha512 => false,
        }
    }
}

/// Key material of one direction as derived by RFC 4253 §7.2, exactly as long as the suite needs.
///
/// The bytes are born in a box of their own and stay there until they are zeroised on drop:
/// whatever holds the keys can be moved, and leaves none behind.
pub struct Keys {
    suite: Suite,
    /// The IV's block, the key, the MAC key.
    bytes: Box<[u8]>,
}

impl Keys {
    /// All zero: a place to derive into.
    pub fn zero(suite: Suite) -> Self {
        let mac_len = suite.mac.map_or(0, Mac::key_len);
        let len = IV_LEN_MAX.saturating_add(suite.cipher.key_len()).saturating_add(mac_len);
        Self { suite, bytes: vec![0; len].into_boxed_slice() }
    }

    /// What the keys are for.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// [`Cipher::iv_len`] bytes. They are live: GCM's next nonce (4 fixed bytes, 8 bytes of
    /// invocation counter) or CTR's next counter block, so that keys handed on continue exactly
    /// where they were.
    pub fn iv(&self) -> &[u8] {
        self.bytes.get(..self.suite.cipher.iv_len()).unwrap_or_default()
    }

    /// [`Cipher::key_len`] bytes.
    pub fn key(&self) -> &[u8] {
        self.bytes.get(self.key_range()).unwrap_or_default()
    }

    /// [`Mac::key_len`] bytes; none for AEAD ciphers.
    pub fn mac_key(&self) -> &[u8] {
        self.bytes.get(self.key_range().end..).unwrap_or_default()
    }

    /// IV, key and MAC key, to be written.
    pub fn parts_mut(&mut self) -> [&mut [u8]; 3] {
        let Range { start, end } = self.key_range();
        let iv_len = self.suite.cipher.iv_len();
        let (rest, mac_key) = self.bytes.split_at_mut_checked(end).unwrap_or_default();
        let (iv, key) = rest.split_at_mut_checked(start).unwrap_or_default();
        [iv.get_mut(..iv_len).unwrap_or_default(), key, mac_key]
    }

    /// The IV and what follows it up to a whole block, which is no cipher's.
    #[expect(clippy::expect_used, reason = "the box begins with a block: see `zero`")]
    pub(super) fn iv_block(&mut self) -> &mut [u8; IV_LEN_MAX] {
        self.bytes.first_chunk_mut().expect("keys begin with a block for the IV")
    }

    fn key_range(&self) -> Range<usize> {
        IV_LEN_MAX..IV_LEN_MAX.saturating_add(self.suite.cipher.key_len())
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("suite", &self.suite).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_algorithm() {
        for cipher in Cipher::ALL {
            assert_eq!(Cipher::from_name(cipher.name()), Some(cipher));
        }
        for mac in Mac::ALL {
            assert_eq!(Mac::from_name(mac.name()), Some(mac));
        }
        assert_eq!(Cipher::from_name("aes128-cbc"), None);
        assert_eq!(Cipher::from_name("AES128-CTR"), None);
        assert_eq!(Cipher::from_name(""), None);
        assert_eq!(Mac::from_name("hmac-sha1"), None);
        assert_eq!(Mac::from_name("hmac-sha2-256 "), None);
    }

    #[test]
    fn a_suite_has_a_mac_exactly_when_its_cipher_has_none() {
        for cipher in Cipher::ALL {
            let with = Suite::new(cipher, Some(Mac::Sha512));
            let without = Suite::new(cipher, None);
            if cipher.is_aead() {
                assert_eq!(with, Some(Suite { cipher, mac: None }));
                assert_eq!(without, with);
            } else {
                assert_eq!(with, Some(Suite { cipher, mac: Some(Mac::Sha512) }));
                assert_eq!(without, None);
            }
        }
    }

    #[test]
    fn no_algorithm_needs_more_than_keys_hold() {
        for cipher in Cipher::ALL {
            assert!(cipher.key_len() <= KEY_LEN_MAX && cipher.iv_len() <= IV_LEN_MAX);
        }
        for mac in Mac::ALL {
            assert!(mac.key_len() <= KEY_LEN_MAX);
        }
    }

    #[test]
    fn keys_are_as_long_as_their_suite_needs() {
        for cipher in Cipher::ALL {
            for mac in Mac::ALL {
                let suite = Suite::new(cipher, Some(mac)).unwrap();
                let mac_len = suite.mac.map_or(0, Mac::key_len);
                let lens = [cipher.iv_len(), cipher.key_len(), mac_len];
                let mut keys = Keys::zero(suite);
                assert_eq!([keys.iv(), keys.key(), keys.mac_key()].map(<[u8]>::len), lens);
                for (part, byte) in keys.parts_mut().into_iter().zip(1..) {
                    part.fill(byte);
                }
                assert!(keys.iv().iter().all(|byte| *byte == 1));
                assert!(keys.key().iter().all(|byte| *byte == 2));
                assert!(keys.mac_key().iter().all(|byte| *byte == 3));
            }
        }
    }

    #[test]
    fn debug_output_of_keys_shows_no_secret() {
        let suite = Suite { cipher: Cipher::Aes128Ctr, mac: Some(Mac::Sha256) };
        let mut keys = Keys::zero(suite);
        for (part, byte) in keys.parts_mut().into_iter().zip([171, 205, 239]) {
            part.fill(byte);
        }
        let text = format!("{keys:?} {keys:#?}");
        assert!(text.contains("Aes128Ctr"));
        for secret in ["171", "205", "239", "ab", "cd", "ef"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
