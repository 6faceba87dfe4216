//! The cryptography under `packet`: one direction's keys, and a whole packet opened or sealed
//! with them in place.
//!
//! Knows nothing of streams, limits or padding: it gets exactly one packet,
//! `uint32 packet_length || body || tag`, and the sequence number.

use aws_lc_rs::aead::chacha20_poly1305_openssh::{OpeningKey, SealingKey};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use super::cipher::{Cipher, IV_LEN_MAX, KEY_LEN_MAX, Keys, Mac, Suite};

/// Bytes of the `packet_length` field.
pub(super) const LENGTH_LEN: usize = 4;
/// Bytes of an AES block.
const AES_BLOCK: usize = 16;
/// Bytes of a GCM or Poly1305 tag.
const AEAD_TAG: usize = 16;

/// The packet does not authenticate, or is too short to hold its own frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Refused;

impl From<Unspecified> for Refused {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

/// How a suite lays packets out (RFC 4253 §6, RFC 5647 §7.3, OpenSSH PROTOCOL §1.6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Framing {
    /// The padded packet is a multiple of this many bytes.
    pub(super) block: u32,
    /// How many bytes of the length field belong to that multiple: none where it is not
    /// encrypted with the rest.
    pub(super) counted: u32,
    /// Bytes that must have arrived before the length can be told.
    pub(super) head: usize,
    /// Bytes of tag behind the packet.
    pub(super) tag: usize,
    /// What the length field is worth before the tag holds.
    pub(super) length: Length,
}

/// What the length field is worth before the tag holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Length {
    /// It is on the wire in clear: to name it tells nobody anything.
    Public,
    /// It is encrypted: to name a false one would tell a man in the middle the keystream over it.
    Secret,
    /// It is encrypted as part of the first block (encrypt-and-MAC): even *when* a false one is
    /// refused must not depend on its value.
    Untimed,
}

impl Framing {
    /// Before the first NEWKEYS.
    pub(super) const PLAIN: Self =
        Self { block: 8, counted: 4, head: LENGTH_LEN, tag: 0, length: Length::Public };

    const fn of(mode: Mode) -> Self {
        match mode {
            Mode::Gcm => Self {
                block: 16,
                counted: 0,
                head: LENGTH_LEN,
                tag: AEAD_TAG,
                length: Length::Public,
            },
            Mode::Chacha => Self {
                block: 8,
                counted: 0,
                head: LENGTH_LEN,
                tag: AEAD_TAG,
                length: Length::Secret,
            },
            Mode::Ctr(mac) if mac.is_etm() => Self {
                block: 16,
                counted: 0,
                head: LENGTH_LEN,
                tag: mac.key_len(),
                length: Length::Public,
            },
            Mode::Ctr(mac) => Self {
                block: 16,
                counted: 4,
                head: AES_BLOCK,
                tag: mac.key_len(),
                length: Length::Untimed,
            },
        }
    }

    /// Whether a packet of this length fills whole blocks.
    pub(super) fn aligned(self, length: u32) -> bool {
        length.checked_add(self.counted).is_some_and(|bytes| bytes.is_multiple_of(self.block))
    }

    /// Input bytes of a packet of this length, length field and tag included.
    pub(super) fn whole(self, length: u32) -> usize {
        usize::try_from(length)
            .unwrap_or(usize::MAX)
            .saturating_add(LENGTH_LEN)
            .saturating_add(self.tag)
    }

    /// A whole packet: length field and body, then the tag.
    fn split(self, packet: &mut [u8]) -> Result<(&mut [u8], &mut [u8]), Refused> {
        let end = packet.len().checked_sub(self.tag).ok_or(Refused)?;
        packet.split_at_mut_checked(end).ok_or(Refused)
    }
}

/// A suite with the impossible combinations gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Gcm,
    Chacha,
    Ctr(Mac),
}

impl Mode {
    #[expect(
        clippy::expect_used,
        reason = "a CTR cipher without a MAC is a bug of ours, see Suite"
    )]
    fn of(suite: Suite) -> Self {
        match suite.cipher {
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => Self::Gcm,
            Cipher::Chacha20Poly1305 => Self::Chacha,
            Cipher::Aes128Ctr | Cipher::Aes192Ctr | Cipher::Aes256Ctr => {
                Self::Ctr(suite.mac.expect("a CTR cipher is never negotiated without a MAC"))
            }
        }
    }
}

/// The two chacha20-poly1305 keys of the provider, which differ by direction in type only.
pub(super) trait ChachaKey {
    /// Expands nothing: the key is the key.
    fn from_bytes(key: &[u8; KEY_LEN_MAX]) -> Self;
}

impl ChachaKey for OpeningKey {
    fn from_bytes(key: &[u8; KEY_LEN_MAX]) -> Self {
        Self::new(key)
    }
}

impl ChachaKey for SealingKey {
    fn from_bytes(key: &[u8; KEY_LEN_MAX]) -> Self {
        Self::new(key)
    }
}

/// What one direction's packets are protected with. `C` is the provider's chacha20-poly1305 key
/// of that direction.
pub(super) enum Protection<C> {
    /// Before the first NEWKEYS.
    Plain,
    /// Under keys.
    Keyed(Box<Keyed<C>>),
}

/// Keys and what has been expanded from them. Neither lies here itself, so that a move
/// leaves nothing behind.
pub(super) struct Keyed<C> {
    framing: Framing,
    mode: Mode,
    keys: Keys,
    schedule: Schedule<C>,
}

/// The expanded keys. The large ones are boxed each, so that a GCM direction does not
/// pay for an HMAC.
enum Schedule<C> {
    /// Nothing is expanded: the next packet does it (0.2 to 1 us).
    Resting,
    Gcm(LessSafeKey),
    Chacha(Box<C>),
    Ctr(Box<Ctr>),
}

struct Ctr {
    cipher: EncryptingKey,
    mac: hmac::Key,
    /// Whether the MAC covers the ciphertext.
    etm: bool,
}

impl<C: ChachaKey> Protection<C> {
    /// Takes keys; expands nothing yet.
    ///
    /// # Panics
    /// On a CTR cipher without a MAC, which [`Suite::new`] cannot make.
    pub(super) fn keyed(keys: Keys) -> Self {
        let mode = Mode::of(keys.suite());
        let framing = Framing::of(mode);
        Self::Keyed(Box::new(Keyed { framing, mode, keys, schedule: Schedule::Resting }))
    }

    pub(super) fn framing(&self) -> Framing {
        match self {
            Self::Plain => Framing::PLAIN,
            Self::Keyed(keyed) => keyed.framing,
        }
    }

    pub(super) fn suite(&self) -> Option<Suite> {
        match self {
            Self::Plain => None,
            Self::Keyed(keyed) => Some(keyed.keys.suite()),
        }
    }

    /// Drops what was expanded; the next packet expands it again.
    pub(super) fn rest(&mut self) {
        match self {
            Self::Plain => {}
            Self::Keyed(keyed) => keyed.schedule = Schedule::Resting,
        }
    }

    /// Gives the keys up as they stand.
    pub(super) fn into_keys(self) -> Option<Keys> {
        match self {
            Self::Plain => None,
            Self::Keyed(keyed) => Some(keyed.keys),
        }
    }
}

impl Protection<OpeningKey> {
    /// The claimed `packet_length` of the packet that begins with `head` (at least
    /// [`Framing::head`] bytes, which stay as they are).
    pub(super) fn length(&mut self, seq: u32, head: &[u8]) -> Result<u32, Refused> {
        let field = *head.first_chunk::<LENGTH_LEN>().ok_or(Refused)?;
        let clear = match self {
            Self::Plain => field,
            Self::Keyed(keyed) => match keyed.expand() {
                (Schedule::Chacha(key), _) => key.decrypt_packet_length(seq, field),
                (Schedule::Ctr(ctr), iv) if !ctr.etm => {
                    let mut block = *head.first_chunk::<AES_BLOCK>().ok_or(Refused)?;
                    ctr.crypt(*iv, &mut block)?;
                    *block.first_chunk::<LENGTH_LEN>().ok_or(Refused)?
                }
                (Schedule::Resting | Schedule::Gcm(_) | Schedule::Ctr(_), _) => field,
            },
        };
        Ok(u32::from_be_bytes(clear))
    }

    /// Opens one whole packet in place: `packet` is length field, body and tag. The tag stays as it
    /// was, the rest is plaintext afterwards; after an error it is rubbish.
    pub(super) fn open(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), Refused> {
        let Self::Keyed(keyed) = self else { return Ok(()) };
        let (sealed, tag) = keyed.framing.split(packet)?;
        match keyed.expand() {
            (Schedule::Gcm(key), iv) => {
                let (head, body) = sealed.split_first_chunk_mut::<LENGTH_LEN>().ok_or(Refused)?;
                let nonce = Nonce::assume_unique_for_key(next_nonce(iv));
                key.open_in_place_separate_tag(nonce, Aad::from(*head), tag, body)?;
                Ok(())
            }
            (Schedule::Chacha(key), _) => {
                let tag = tag.first_chunk::<AEAD_TAG>().ok_or(Refused)?;
                let body = key.open_in_place(seq, sealed, tag)?;
                let length = u32::try_from(body.len()).map_err(|_| Refused)?;
                *sealed.first_chunk_mut::<LENGTH_LEN>().ok_or(Refused)? = length.to_be_bytes();
                Ok(())
            }
            (Schedule::Ctr(ctr), iv) if ctr.etm => {
                verify_slices_are_equal(ctr.tag(seq, sealed).as_ref(), tag)?;
                let (_, body) = sealed.split_first_chunk_mut::<LENGTH_LEN>().ok_or(Refused)?;
                ctr.advance(iv, body)
            }
            (Schedule::Ctr(ctr), iv) => {
                ctr.advance(iv, sealed)?;
                verify_slices_are_equal(ctr.tag(seq, sealed).as_ref(), tag)?;
                Ok(())
            }
            (Schedule::Resting, _) => Err(Refused),
        }
    }
}

impl Protection<SealingKey> {
    /// Seals one whole packet in place: `packet` is length field and body in plaintext, then
    /// room for the tag.
    pub(super) fn seal(&mut self, seq: u32, packet: &mut [u8]) -> Result<(), Refused> {
        let Self::Keyed(keyed) = self else { return Ok(()) };
        let (clear, tag) = keyed.framing.split(packet)?;
        match keyed.expand() {
            (Schedule::Gcm(key), iv) => {
                let (head, body) = clear.split_first_chunk_mut::<LENGTH_LEN>().ok_or(Refused)?;
                let nonce = Nonce::assume_unique_for_key(next_nonce(iv));
                key.seal_in_place_scatter(nonce, Aad::from(*head), body, &[], tag)?;
                Ok(())
            }
            (Schedule::Chacha(key), _) => {
                let tag = tag.first_chunk_mut::<AEAD_TAG>().ok_or(Refused)?;
                clear.first_chunk::<LENGTH_LEN>().ok_or(Refused)?;
                key.seal_in_place(seq, clear, tag);
                Ok(())
            }
            (Schedule::Ctr(ctr), iv) if ctr.etm => {
                let (_, body) = clear.split_first_chunk_mut::<LENGTH_LEN>().ok_or(Refused)?;
                ctr.advance(iv, body)?;
                write_tag(&ctr.tag(seq, clear), tag)
            }
            (Schedule::Ctr(ctr), iv) => {
                write_tag(&ctr.tag(seq, clear), tag)?;
                ctr.advance(iv, clear)
            }
            (Schedule::Resting, _) => Err(Refused),
        }
    }
}

impl<C: ChachaKey> Keyed<C> {
    /// The expanded keys, and the IV of the next packet.
    fn expand(&mut self) -> (&mut Schedule<C>, &mut [u8; IV_LEN_MAX]) {
        if matches!(self.schedule, Schedule::Resting) {
            self.schedule = expanded(self.mode, &self.keys);
        }
        (&mut self.schedule, self.keys.iv_block())
    }
}

#[expect(
    clippy::expect_used,
    reason = "key lengths follow from the suite: only memory can run out"
)]
fn expanded<C: ChachaKey>(mode: Mode, keys: &Keys) -> Schedule<C> {
    let key = keys.key();
    match mode {
        Mode::Chacha => {
            let key = key.first_chunk().expect("key of this cipher's own length");
            Schedule::Chacha(Box::new(C::from_bytes(key)))
        }
        Mode::Gcm => {
            let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
            let key = UnboundKey::new(algorithm, key).expect("key of this cipher's own length");
            Schedule::Gcm(LessSafeKey::new(key))
        }
        Mode::Ctr(mac) => {
            let algorithm = match key.len() {
                16 => &AES_128,
                24 => &AES_192,
                _ => &AES_256,
            };
            let digest = if mac.key_len() == 32 { hmac::HMAC_SHA256 } else { hmac::HMAC_SHA512 };
            Schedule::Ctr(Box::new(Ctr {
                cipher: UnboundCipherKey::new(algorithm, key)
                    .and_then(EncryptingKey::ctr)
                    .expect("key of this cipher's own length"),
                mac: hmac::Key::new(digest, keys.mac_key()),
                etm: mac.is_etm(),
            }))
        }
    }
}

impl Ctr {
    /// Encrypts or decrypts, which is the same, from the counter block `iv` on.
    fn crypt(&self, iv: [u8; IV_LEN_MAX], data: &mut [u8]) -> Result<(), Refused> {
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        self.cipher.less_safe_encrypt(data, context)?;
        Ok(())
    }

    /// As [`Ctr::crypt`], and moves the counter past `data` (RFC 4344 §4: 128 bit,
    /// big-endian, wraps).
    fn advance(&self, iv: &mut [u8; IV_LEN_MAX], data: &mut [u8]) -> Result<(), Refused> {
        self.crypt(*iv, data)?;
        let blocks = u128::try_from(data.len().div_ceil(AES_BLOCK)).map_err(|_| Refused)?;
        *iv = u128::from_be_bytes(*iv).wrapping_add(blocks).to_be_bytes();
        Ok(())
    }

    /// The MAC over sequence number and packet (RFC 4253 §6.4).
    fn tag(&self, seq: u32, packet: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(&seq.to_be_bytes());
        context.update(packet);
        context.sign()
    }
}

fn write_tag(from: &hmac::Tag, to: &mut [u8]) -> Result<(), Refused> {
    let from = from.as_ref();
    if from.len() != to.len() {
        return Err(Refused);
    }
    to.copy_from_slice(from);
    Ok(())
}

/// The nonce of this packet; moves the invocation counter on (RFC 5647 §7.1). The counter is 64 bit
/// and does not carry into the fixed field: it starts anywhere, so it may pass zero, but comes
/// nowhere near its start again because the packets under one key are limited far below.
fn next_nonce(iv: &mut [u8; IV_LEN_MAX]) -> [u8; 12] {
    let [nonce @ .., _, _, _, _] = *iv;
    let [_, _, _, _, counter @ .., _, _, _, _] = iv;
    *counter = u64::from_be_bytes(*counter).wrapping_add(1).to_be_bytes();
    nonce
}
