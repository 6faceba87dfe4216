//! Packet protection: opens and seals SSH packets in place (RFC 4253 §6).
//!
//! Never allocates for a packet (but for what the output vector grows) and never sees a socket. Fed
//! by `transport`, and by the relay, which opens on one leg and reseals on the other in the same
//! buffer. Keys arrive from `kex` and leave only through a handoff.

use std::ops::Range;

use aws_lc_rs::aead::chacha20_poly1305_openssh::{OpeningKey, SealingKey};

use super::cipher::{Keys, Suite};
use super::entropy::Entropy;
use super::fault::Fault;
use super::protection::{ChachaKey, Framing, LENGTH_LEN, Length, Protection};

/// Most packets under one set of keys, in either direction. From 2^32 on chacha20-poly1305 would
/// use a nonce twice and a MAC could not tell a replay; OpenSSH asks for a re-key at 2^31, we at a
/// small part of that, and this leaves both room to finish it. Before the first NEWKEYS it keeps
/// the sequence number from wrapping.
pub const PACKETS_PER_KEY_MAX: u64 = 3 << 30;
/// Least `packet_length`: padding length, one byte of payload (its message number), 4 of padding.
pub const PACKET_LENGTH_MIN: u32 = 6;
/// Least padding (RFC 4253 §6).
const PADDING_MIN: u32 = 4;
/// Bytes of randomness a sealer draws at a time. The generator's price is per call (0.4 us, for 8
/// bytes as for 128) and a packet pads with 4 to 19: undivided it would cost four times what
/// AES-GCM does for a short packet.
const PADDING_POOL: usize = 128;
/// What [`Fault::Length`] names where the true value must not be told: see [`Opener::open`].
const LENGTH_UNTOLD: u32 = u32::MAX;

/// One opened packet: the payload's place in the input and the input bytes used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opened {
    /// Where the payload lies; never empty.
    pub payload: Range<usize>,
    /// Length field, body and tag.
    pub used: usize,
}

/// What went through one set of keys.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Used {
    /// Bytes on the wire, framing and tags included.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

impl Used {
    fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.packets = self.packets.saturating_add(1);
    }

    fn check(self) -> Result<(), Fault> {
        if self.packets < PACKETS_PER_KEY_MAX { Ok(()) } else { Err(Fault::KeysUsedUp) }
    }
}

/// What opening and sealing have in common: keys, the sequence number, and what went through these
/// keys. `C` is the provider's chacha20-poly1305 key of this direction.
struct Direction<C> {
    seq: u32,
    used: Used,
    protection: Protection<C>,
}

impl<C: ChachaKey> Direction<C> {
    const fn new(protection: Protection<C>, seq: u32) -> Self {
        Self { seq, used: Used { bytes: 0, packets: 0 }, protection }
    }

    fn rekey(&mut self, keys: Keys, reset: bool) {
        let seq = if reset { 0 } else { self.seq };
        *self = Self::new(Protection::keyed(keys), seq);
    }

    /// A packet of so many bytes went through.
    fn passed(&mut self, bytes: usize) {
        self.seq = self.seq.wrapping_add(1);
        self.used.add(bytes);
    }
}

/// What both directions answer alike.
macro_rules! direction {
    ($name:ident) => {
        impl $name {
            /// No protection: before the first NEWKEYS. Sequence number 0.
            pub fn plain() -> Self {
                Self::of(Direction::new(Protection::Plain, 0))
            }

            /// Sequence number of the next packet.
            pub fn seq(&self) -> u32 {
                self.way.seq
            }

            /// Wire bytes and packets since these keys began (for re-key limits).
            pub fn used(&self) -> Used {
                self.way.used
            }

            /// What protects this direction; `None` while plain.
            pub fn suite(&self) -> Option<Suite> {
                self.way.protection.suite()
            }

            /// Frees what was expanded from the keys, for a connection that has gone quiet; the
            /// next packet expands them again (0.2 to 1 us).
            pub fn rest(&mut self) {
                self.way.protection.rest();
            }

            /// Gives up keys (with GCM's current invocation counter or CTR's current counter block
            /// in `iv`) and the sequence number. `None` while plain. Of an opener, bytes of a
            /// packet that is not whole yet are still sealed: hand them on.
            pub fn into_keys(self) -> Option<(Keys, u32)> {
                let Direction { seq, protection, .. } = self.way;
                protection.into_keys().map(|keys| (keys, seq))
            }

            /// Goes on where `into_keys` stopped. `used` starts anew: see `continuing`.
            ///
            /// # Panics
            /// On a CTR cipher without a MAC, which [`Suite::new`] cannot make.
            pub fn from_keys(keys: Keys, seq: u32) -> Self {
                Self::of(Direction::new(Protection::keyed(keys), seq))
            }

            /// Counts on from what these keys have done elsewhere, so that [`PACKETS_PER_KEY_MAX`]
            /// holds over a handoff.
            #[must_use]
            pub fn continuing(mut self, used: Used) -> Self {
                self.way.used = used;
                self
            }
        }
    };
}

direction!(Opener);
direction!(Sealer);

/// Opens received packets in place.
///
/// It keeps numbers about the packet at the front of the input, never a pointer: between two calls
/// the caller may move the unread bytes anywhere and append to them, as long as the next call gets
/// them from the same byte on.
pub struct Opener {
    way: Direction<OpeningKey>,
    front: Front,
}

/// What is known of the packet at the front of the input.
#[derive(Clone, Copy, Debug)]
enum Front {
    /// Its length is still unread.
    Unread,
    /// It takes this many bytes in all.
    Claimed(usize),
    /// An encrypt-and-MAC packet that is false: refused once `whole` bytes are there, of which
    /// `spent` had their MAC computed already.
    Doomed { whole: usize, spent: usize },
    /// Over: every later call gets this answer.
    Ended(Fault),
}

impl Opener {
    const fn of(way: Direction<OpeningKey>) -> Self {
        Self { way, front: Front::Unread }
    }

    /// Takes new keys; the sequence number goes on unless `reset` (strict KEX).
    ///
    /// # Panics
    /// On a CTR cipher without a MAC, which [`Suite::new`] cannot make.
    pub fn rekey(&mut self, keys: Keys, reset: bool) {
        self.way.rekey(keys, reset);
        self.front = match self.front {
            Front::Ended(fault) => Front::Ended(fault),
            Front::Unread | Front::Claimed(_) | Front::Doomed { .. } => Front::Unread,
        };
    }

    /// Opens the first packet of `input` in place: afterwards `input[..used]` is the packet in
    /// plaintext (`uint32` length, padding length, payload, padding) followed by its stale tag,
    /// ready for [`Sealer::reseal`]. `limit`: most bytes `packet_length` may claim.
    ///
    /// `None` until the packet is whole, with no byte of `input` changed (but for a false
    /// encrypt-and-MAC packet, of which nothing will come): the caller comes back with the same
    /// bytes and more, at this place or another, best when there are [`Opener::needs`] of them. A
    /// length is decrypted once, then remembered; coming back early costs a comparison.
    ///
    /// # Errors
    /// All are final.
    /// - [`Fault::Length`]: under [`PACKET_LENGTH_MIN`], over `limit`, or not whole blocks. Said as
    ///   soon as the length is there, since it is public on the wire or authenticated with the
    ///   packet. chacha20-poly1305 decrypts it before it is authenticated; like OpenSSH we refuse
    ///   at once, but the fault then names a constant, not the value: a man in the middle who flips
    ///   bits of the length must not read what became of it in a message.
    /// - [`Fault::Corrupt`]: tag or padding is wrong, or the payload is empty. Under plain HMAC
    ///   (encrypt-and-MAC) a bad length ends here too, and every false packet only once `limit`
    ///   bytes have come, with as much MAC work: otherwise the point of failure would tell what a
    ///   forged length decrypts to.
    /// - [`Fault::KeysUsedUp`].
    pub fn open(&mut self, input: &mut [u8], limit: u32) -> Result<Option<Opened>, Fault> {
        let result = self.advance(input, limit);
        if let Err(fault) = result {
            self.front = Front::Ended(fault);
        }
        result
    }

    fn advance(&mut self, input: &mut [u8], limit: u32) -> Result<Option<Opened>, Fault> {
        if matches!(self.front, Front::Unread) {
            self.way.used.check()?;
            let framing = self.way.protection.framing();
            if input.len() < framing.head {
                return Ok(None);
            }
            self.front = self.claim(framing, input, limit)?;
        }
        match self.front {
            Front::Unread => Ok(None),
            Front::Claimed(whole) => self.open_whole(whole, input, limit),
            Front::Doomed { whole, spent } => self.discard(whole, spent, input),
            Front::Ended(fault) => Err(fault),
        }
    }

    /// Reads the length and judges it.
    fn claim(&mut self, framing: Framing, input: &[u8], limit: u32) -> Result<Front, Fault> {
        let length = self.way.protection.length(self.way.seq, input).map_err(|_| Fault::Corrupt)?;
        if (PACKET_LENGTH_MIN..=limit).contains(&length) && framing.aligned(length) {
            return Ok(Front::Claimed(framing.whole(length)));
        }
        match framing.length {
            Length::Public => Err(Fault::Length { len: length }),
            Length::Secret => Err(Fault::Length { len: LENGTH_UNTOLD }),
            Length::Untimed => Ok(Front::Doomed { whole: framing.whole(limit), spent: 0 }),
        }
    }

    fn open_whole(
        &mut self,
        whole: usize,
        input: &mut [u8],
        limit: u32,
    ) -> Result<Option<Opened>, Fault> {
        let Some(packet) = input.get_mut(..whole) else { return Ok(None) };
        let framing = self.way.protection.framing();
        if self.way.protection.open(self.way.seq, packet).is_err() {
            return match framing.length {
                Length::Public | Length::Secret => Err(Fault::Corrupt),
                Length::Untimed => {
                    let limit = framing.whole(limit).max(whole);
                    self.front = Front::Doomed { whole: limit, spent: whole };
                    self.discard(limit, whole, input)
                }
            };
        }
        let payload = payload(packet, framing.tag).ok_or(Fault::Corrupt)?;
        self.way.passed(whole);
        self.front = Front::Unread;
        Ok(Some(Opened { payload, used: whole }))
    }

    /// Takes all that a false encrypt-and-MAC packet could have been, and does the work that it
    /// could have cost (CVE-2008-5161; OpenSSH does the same for CBC).
    fn discard(
        &mut self,
        whole: usize,
        spent: usize,
        input: &mut [u8],
    ) -> Result<Option<Opened>, Fault> {
        let Some(packet) = input.get_mut(..whole) else { return Ok(None) };
        if let Some(rest) = packet.get_mut(spent..) {
            // Whatever it says: the packet was refused before.
            let _ = self.way.protection.open(self.way.seq, rest);
        }
        Err(Fault::Corrupt)
    }

    /// How many input bytes the packet at the front needs in all: exact once [`Opener::open`] has
    /// seen its length, until then those that tell it.
    pub fn needs(&self) -> usize {
        match self.front {
            Front::Unread => self.way.protection.framing().head,
            Front::Claimed(whole) | Front::Doomed { whole, .. } => whole,
            Front::Ended(_) => 0,
        }
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener")
            .field("suite", &self.suite())
            .field("seq", &self.seq())
            .field("used", &self.used())
            .field("front", &self.front)
            .finish_non_exhaustive()
    }
}

/// The payload's place in an opened packet; `None` if the padding leaves none, or is too short.
fn payload(packet: &[u8], tag: usize) -> Option<Range<usize>> {
    const START: usize = LENGTH_LEN + 1;
    let padding = *packet.get(LENGTH_LEN)?;
    let end = packet.len().checked_sub(tag)?.checked_sub(usize::from(padding))?;
    (u32::from(padding) >= PADDING_MIN && end > START).then_some(START..end)
}

/// Seals packets.
pub struct Sealer {
    way: Direction<SealingKey>,
    padding: Padding,
}

impl Sealer {
    const fn of(way: Direction<SealingKey>) -> Self {
        Self { way, padding: Padding::empty() }
    }

    /// Takes new keys; the sequence number goes on unless `reset` (strict KEX).
    ///
    /// # Panics
    /// On a CTR cipher without a MAC, which [`Suite::new`] cannot make.
    pub fn rekey(&mut self, keys: Keys, reset: bool) {
        self.way.rekey(keys, reset);
    }

    /// Appends one sealed packet to `out`, with the least padding that RFC 4253 §6 allows, random.
    ///
    /// # Errors
    /// [`Fault::KeysUsedUp`], and [`Fault::Length`] for a payload that is empty or near 4 GiB.
    /// `out` is then as it was.
    pub fn seal(
        &mut self,
        payload: &[u8],
        entropy: &mut dyn Entropy,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        self.way.used.check()?;
        let framing = self.way.protection.framing();
        let (length, padding) =
            fit(framing, payload).ok_or(Fault::Length { len: LENGTH_UNTOLD })?;
        let start = out.len();
        let whole = framing.whole(length);
        out.reserve(whole);
        out.extend_from_slice(&length.to_be_bytes());
        out.push(padding);
        out.extend_from_slice(payload);
        out.extend_from_slice(self.padding.take(padding, entropy));
        out.resize(out.len().saturating_add(framing.tag), 0);
        let packet = out.get_mut(start..).unwrap_or_default();
        if self.way.protection.seal(self.way.seq, packet).is_err() {
            out.truncate(start);
            return Err(Fault::Length { len: length });
        }
        self.way.passed(whole);
        Ok(())
    }

    /// Seals a packet that [`Opener::open`] has just opened, where it lies (`packet` is its
    /// `input[..used]`), padding and all. False, and nothing touched, when its length is not whole
    /// blocks here or the tag lengths differ.
    ///
    /// # Errors
    /// [`Fault::KeysUsedUp`], with nothing touched.
    pub fn reseal(&mut self, packet: &mut [u8]) -> Result<bool, Fault> {
        self.way.used.check()?;
        let framing = self.way.protection.framing();
        let Some(field) = packet.first_chunk::<LENGTH_LEN>() else { return Ok(false) };
        let length = u32::from_be_bytes(*field);
        if !framing.aligned(length) || framing.whole(length) != packet.len() {
            return Ok(false);
        }
        if self.way.protection.seal(self.way.seq, packet).is_err() {
            return Err(Fault::Length { len: length });
        }
        self.way.passed(packet.len());
        Ok(true)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("suite", &self.suite())
            .field("seq", &self.seq())
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

/// `packet_length` and padding of a payload; `None` if it is empty or too large for the field.
fn fit(framing: Framing, payload: &[u8]) -> Option<(u32, u8)> {
    if payload.is_empty() {
        return None;
    }
    let bare = u32::try_from(payload.len()).ok()?.checked_add(1)?;
    let counted = bare.checked_add(framing.counted)?;
    let padded = counted.checked_add(PADDING_MIN)?.checked_next_multiple_of(framing.block)?;
    let padding = padded.checked_sub(counted)?;
    Some((bare.checked_add(padding)?, u8::try_from(padding).ok()?))
}

/// Random bytes drawn ahead.
struct Padding {
    pool: [u8; PADDING_POOL],
    /// Bytes of `pool` given out already.
    spent: usize,
}

impl Padding {
    const fn empty() -> Self {
        Self { pool: [0; PADDING_POOL], spent: PADDING_POOL }
    }

    /// `len` bytes that were never given out before; at most [`PADDING_POOL`].
    fn take(&mut self, len: u8, entropy: &mut dyn Entropy) -> &[u8] {
        let len = usize::from(len);
        if self.spent.saturating_add(len) > PADDING_POOL {
            entropy.fill(&mut self.pool);
            self.spent = 0;
        }
        let start = self.spent;
        self.spent = start.saturating_add(len);
        self.pool.get(start..self.spent).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
