//! Snapshots and deltas as bytes, for a disk or a wire. Pure: nothing here opens a file.
//!
//! A head, then chunks, each of them its kind, its length and a piece of the contents in postcard's
//! encoding, with the CRC-32 of all bytes so far (but for the checksums) behind the head and behind
//! every chunk; the last chunk is empty. A chunk is not looked at before its checksum holds, and
//! what ends without the last chunk is torn.
//!
//! [`encode`] gives pieces to write one after the other, [`Decoder`] takes pieces as they are read:
//! neither needs all bytes at once.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Contents, Delta, Denied, FrontDoor};

/// The first bytes of everything saved here.
pub const MAGIC: [u8; 8] = *b"keyway\0r";
/// The newest encoding that is written and read here. Each kind says in its head which one brought
/// it: what was known before is read by an older program too, wherever it stands.
pub const VERSION: u16 = 5;
/// Of which everything is but what is denied.
pub const VERSION_BEFORE: u16 = 4;

/// Entries in one chunk: few enough that nobody holds much more in memory than the
/// contents themselves.
const CHUNK_ENTRIES: usize = 4096;
/// Longest chunk read, in bytes: 4096 VMs take less than 1 MB, but one team may have a
/// million members.
const CHUNK_BYTES_MAX: usize = 256 << 20;
/// Where a head has its kind: behind magic and version.
const KIND_AT: usize = 8 + 2;
/// Magic, version, kind, store id, program, revision.
const HEAD_BYTES: usize = KIND_AT + 1 + 16 + 8 + 8;
/// Kind and length.
const CHUNK_HEAD_BYTES: usize = 1 + 4;
const CRC_BYTES: usize = 4;
/// What [`peek`] needs, in bytes.
pub const HEAD_LEN: usize = HEAD_BYTES + CRC_BYTES;

/// What was saved is true of this moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Head {
    /// Names the store, renewed when a backup is restored: revisions of two stores
    /// cannot be compared.
    pub store: [u8; 16],
    /// Names whoever made routes of what the store holds: another one may make others. On the disk
    /// of whoever reads the store that is a build, in the feed all that can be followed.
    pub program: [u8; 8],
    /// The store's revision: of a delta, the one it leads to.
    pub revision: u64,
}

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SavedRoutesError {
    /// They do not begin as everything saved here does.
    #[error("not a saved routing map")]
    Foreign,
    /// Saved by a newer program, or by one that is too old.
    #[error("saved in encoding {found}, this program reads {VERSION}")]
    Version {
        /// What the bytes say.
        found: u16,
    },
    /// A delta where a snapshot should be, or the other way round.
    #[error("a {found} was saved, not a {wanted}")]
    Kind {
        /// "snapshot", "delta" or "front door".
        found: &'static str,
        /// "snapshot", "delta" or "front door".
        wanted: &'static str,
    },
    /// They end too early.
    #[error("torn: the end is missing")]
    Torn,
    /// A checksum does not hold.
    #[error("altered: a checksum does not hold")]
    Altered,
    /// The checksums hold, but what stands there cannot be read: a bug of whoever saved it.
    #[error("unreadable, though its checksum holds")]
    Unreadable,
    /// Something follows behind the end.
    #[error("bytes follow behind the end")]
    Trailing,
}

/// What a chunk holds.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Chunk {
    End = 0,
    Addresses = 1,
    Users = 2,
    Teams = 3,
    Vms = 4,
    Delta = 5,
    Nodes = 6,
    FrontDoor = 7,
    Denied = 8,
}

impl Chunk {
    const ALL: [Self; 9] = [
        Self::End,
        Self::Addresses,
        Self::Users,
        Self::Teams,
        Self::Vms,
        Self::Delta,
        Self::Nodes,
        Self::FrontDoor,
        Self::Denied,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What was saved, by its byte in the head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Snapshot = 1,
    Delta = 2,
    FrontDoor = 3,
    Denied = 4,
    Asked = 5,
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Snapshot, Self::Delta, Self::FrontDoor, Self::Denied, Self::Asked];

    /// Which encoding brought it as it is.
    const fn version(self) -> u16 {
        match self {
            Self::Snapshot | Self::Delta | Self::FrontDoor => VERSION_BEFORE,
            Self::Denied | Self::Asked => VERSION,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Delta => "delta",
            Self::FrontDoor => "front door",
            Self::Denied => "set of what is denied",
            Self::Asked => "question how somebody is",
        }
    }
}

/// The bytes of `contents`, in pieces to be written in this order.
pub fn encode(head: Head, contents: &Contents) -> impl Iterator<Item = Vec<u8>> + use<'_> {
    let Contents { addresses, users, teams, nodes, vms } = contents;
    let chunks = chunks(Chunk::Addresses, addresses)
        .chain(chunks(Chunk::Users, users))
        .chain(chunks(Chunk::Teams, teams))
        .chain(chunks(Chunk::Nodes, nodes))
        .chain(chunks(Chunk::Vms, vms));
    framed(head, Kind::Snapshot, chunks)
}

/// The bytes of `delta`, which leads from the revision `after` to that of `head`.
pub fn encode_delta(head: Head, after: u64, delta: &Delta) -> Vec<u8> {
    let chunk = (Chunk::Delta, postcard::to_allocvec(&(after, delta)).unwrap_or_default());
    framed(head, Kind::Delta, std::iter::once(chunk)).flatten().collect()
}

/// A snapshot of which all bytes are there.
///
/// # Errors
/// [`SavedRoutesError`], if these are not exactly the bytes that [`encode`] gave.
pub fn decode(bytes: &[u8]) -> Result<(Head, Contents), SavedRoutesError> {
    let mut decoder = Decoder::default();
    decoder.take(bytes)?;
    decoder.finish()
}

/// A delta of which all bytes are there, and the revision it follows.
///
/// # Errors
/// [`SavedRoutesError`], if these are not exactly the bytes that [`encode_delta`] gave.
pub fn decode_delta(bytes: &[u8]) -> Result<(Head, u64, Delta), SavedRoutesError> {
    let (head, (after, delta)) = decode_one(bytes, Kind::Delta, Chunk::Delta)?;
    Ok((head, after, delta))
}

/// What has one chunk.
fn decode_one<T: Default + DeserializeOwned>(
    bytes: &[u8],
    wanted: Kind,
    of: Chunk,
) -> Result<(Head, T), SavedRoutesError> {
    let mut frames = Frames::new(wanted);
    let mut one = T::default();
    frames.take(bytes, &mut |kind, body| {
        if kind != of {
            return Err(SavedRoutesError::Unreadable);
        }
        one = read(body)?;
        Ok(())
    })?;
    Ok((frames.finish()?, one))
}

/// The bytes of what is to be known of the front door, at the moment of `head`.
pub fn encode_front_door(head: Head, front_door: &FrontDoor) -> Vec<u8> {
    let chunk = (Chunk::FrontDoor, postcard::to_allocvec(front_door).unwrap_or_default());
    framed(head, Kind::FrontDoor, std::iter::once(chunk)).flatten().collect()
}

/// The bytes of what is refused until a follower has come to the revision of `head`.
pub fn encode_denied(head: Head, denied: &Denied) -> Vec<u8> {
    let chunk = (Chunk::Denied, postcard::to_allocvec(denied).unwrap_or_default());
    framed(head, Kind::Denied, std::iter::once(chunk)).flatten().collect()
}

/// The bytes of a question to a follower that has come to the revision of `head`: how it is.
pub fn encode_asked(head: Head) -> Vec<u8> {
    framed(head, Kind::Asked, std::iter::empty()).flatten().collect()
}

/// Anything that is written here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// Everything.
    Snapshot(Head, Contents),
    /// What changed since the revision in the middle.
    Delta(Head, u64, Delta),
    /// What is to be known of the front door.
    FrontDoor(Head, FrontDoor),
    /// What is refused until that moment has come.
    Denied(Head, Denied),
    /// How it is with whoever has come so far.
    Asked(Head),
}

/// Whatever all of these bytes are.
///
/// # Errors
/// [`SavedRoutesError`], if they are not exactly what one of the functions here gave.
pub fn decode_any(bytes: &[u8]) -> Result<Message, SavedRoutesError> {
    let kind = bytes.get(KIND_AT).copied();
    match Kind::ALL.into_iter().find(|it| Some(*it as u8) == kind) {
        Some(Kind::Delta) => {
            decode_delta(bytes).map(|(head, after, delta)| Message::Delta(head, after, delta))
        }
        Some(Kind::FrontDoor) => decode_one(bytes, Kind::FrontDoor, Chunk::FrontDoor)
            .map(|(head, it)| Message::FrontDoor(head, it)),
        Some(Kind::Denied) => decode_one(bytes, Kind::Denied, Chunk::Denied)
            .map(|(head, it)| Message::Denied(head, it)),
        Some(Kind::Asked) => {
            let mut frames = Frames::new(Kind::Asked);
            frames.take(bytes, &mut |_, _| Err(SavedRoutesError::Unreadable))?;
            frames.finish().map(Message::Asked)
        }
        // What is nothing of ours is told so there.
        Some(Kind::Snapshot) | None => {
            decode(bytes).map(|(head, contents)| Message::Snapshot(head, contents))
        }
    }
}

/// The moment of a snapshot or a delta, from its first bytes: [`HEAD_LEN`] are enough.
#[must_use]
pub fn peek(bytes: &[u8]) -> Option<Head> {
    let bytes = bytes.get(..HEAD_LEN)?;
    Kind::ALL.into_iter().find_map(|kind| {
        let mut frames = Frames::new(kind);
        frames.take(bytes, &mut |_, _| Ok(())).ok()?;
        frames.head
    })
}

fn chunks<T: Serialize>(
    kind: Chunk,
    entries: &[T],
) -> impl Iterator<Item = (Chunk, Vec<u8>)> + use<'_, T> {
    // Writing to memory does not fail, and what these types hold can all be written.
    entries
        .chunks(CHUNK_ENTRIES)
        .map(move |some| (kind, postcard::to_allocvec(some).unwrap_or_default()))
}

fn framed(
    head: Head,
    kind: Kind,
    chunks: impl Iterator<Item = (Chunk, Vec<u8>)>,
) -> impl Iterator<Item = Vec<u8>> {
    let mut first = Vec::with_capacity(HEAD_BYTES + CRC_BYTES);
    first.extend_from_slice(&MAGIC);
    first.extend_from_slice(&kind.version().to_le_bytes());
    first.push(kind as u8);
    first.extend_from_slice(&head.store);
    first.extend_from_slice(&head.program);
    first.extend_from_slice(&head.revision.to_le_bytes());
    let bodies = chunks.chain(std::iter::once((Chunk::End, Vec::new())));
    let pieces = bodies.map(|(kind, body)| {
        let mut piece = Vec::with_capacity(CHUNK_HEAD_BYTES + body.len() + CRC_BYTES);
        piece.push(kind as u8);
        // A chunk that is longer is refused when it is read.
        piece.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        piece.extend_from_slice(&body);
        piece
    });
    let mut sum = crc32fast::Hasher::new();
    std::iter::once(first).chain(pieces).map(move |mut piece| {
        sum.update(&piece);
        piece.extend_from_slice(&sum.clone().finalize().to_le_bytes());
        piece
    })
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, SavedRoutesError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(SavedRoutesError::Unreadable),
    }
}

/// Reads a snapshot piece by piece.
#[derive(Debug)]
pub struct Decoder {
    frames: Frames,
    contents: Contents,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { frames: Frames::new(Kind::Snapshot), contents: Contents::default() }
    }
}

impl Decoder {
    /// Takes the bytes that follow those taken before.
    ///
    /// # Errors
    /// [`SavedRoutesError`]: nothing that follows can mend it.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), SavedRoutesError> {
        let contents = &mut self.contents;
        self.frames.take(bytes, &mut |kind, body| {
            match kind {
                Chunk::Addresses => contents.addresses.append(&mut read(body)?),
                Chunk::Users => contents.users.append(&mut read(body)?),
                Chunk::Teams => contents.teams.append(&mut read(body)?),
                Chunk::Nodes => contents.nodes.append(&mut read(body)?),
                Chunk::Vms => contents.vms.append(&mut read(body)?),
                Chunk::Delta | Chunk::FrontDoor | Chunk::Denied | Chunk::End => {
                    return Err(SavedRoutesError::Unreadable);
                }
            }
            Ok(())
        })
    }

    /// The contents, once all bytes were taken.
    ///
    /// # Errors
    /// [`SavedRoutesError::Torn`].
    pub fn finish(self) -> Result<(Head, Contents), SavedRoutesError> {
        Ok((self.frames.finish()?, self.contents))
    }
}

/// What is done with each chunk.
type Take<'a> = dyn FnMut(Chunk, &[u8]) -> Result<(), SavedRoutesError> + 'a;

/// Takes the frames off: checks them, and gives each chunk as a whole.
#[derive(Debug)]
struct Frames {
    kind: Kind,
    head: Option<Head>,
    sum: crc32fast::Hasher,
    /// What was taken of a frame that is not whole.
    partial: Vec<u8>,
    ended: bool,
    fault: Option<SavedRoutesError>,
}

impl Frames {
    fn new(kind: Kind) -> Self {
        let (sum, partial) = (crc32fast::Hasher::new(), Vec::new());
        Self { kind, head: None, sum, partial, ended: false, fault: None }
    }

    fn take(&mut self, bytes: &[u8], each: &mut Take<'_>) -> Result<(), SavedRoutesError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let taken = self.take_frames(bytes, each);
        self.fault = taken.err();
        taken
    }

    fn take_frames(
        &mut self,
        mut bytes: &[u8],
        each: &mut Take<'_>,
    ) -> Result<(), SavedRoutesError> {
        while !bytes.is_empty() {
            // A frame that lies in `bytes` as a whole is read where it is.
            if self.partial.is_empty()
                && let Some(length) = self.length(bytes)?
                && let Some((frame, rest)) = bytes.split_at_checked(length)
            {
                self.frame(frame, each)?;
                bytes = rest;
                continue;
            }
            let mut partial = std::mem::take(&mut self.partial);
            let wanted = match self.length(&partial)? {
                Some(length) => length,
                // So many tell how long it is, or that it is nothing of ours.
                None if self.head.is_none() => HEAD_BYTES + CRC_BYTES,
                None => CHUNK_HEAD_BYTES,
            };
            let missing = wanted.saturating_sub(partial.len()).min(bytes.len());
            let (more, rest) = bytes.split_at(missing);
            partial.extend_from_slice(more);
            bytes = rest;
            if self.length(&partial)? == Some(partial.len()) {
                self.frame(&partial, each)?;
            } else {
                self.partial = partial;
            }
        }
        Ok(())
    }

    /// How long the frame is that begins so; `None`: more has to be seen.
    fn length(&self, begin: &[u8]) -> Result<Option<usize>, SavedRoutesError> {
        if self.head.is_none() {
            let seen = begin.len().min(MAGIC.len());
            let same = begin.get(..seen) == MAGIC.get(..seen);
            return if same {
                Ok(Some(HEAD_BYTES + CRC_BYTES))
            } else {
                Err(SavedRoutesError::Foreign)
            };
        }
        if self.ended {
            return if begin.is_empty() { Ok(None) } else { Err(SavedRoutesError::Trailing) };
        }
        let Some(([_, a, b, c, d], _)) = begin.split_first_chunk::<CHUNK_HEAD_BYTES>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        if length > CHUNK_BYTES_MAX {
            // Nobody wrote that: the length itself was altered.
            return Err(SavedRoutesError::Altered);
        }
        Ok(Some(CHUNK_HEAD_BYTES + length + CRC_BYTES))
    }

    /// Judges a whole frame.
    fn frame(&mut self, frame: &[u8], each: &mut Take<'_>) -> Result<(), SavedRoutesError> {
        let (covered, sum) = frame.split_last_chunk::<CRC_BYTES>().ok_or(SavedRoutesError::Torn)?;
        self.sum.update(covered);
        if self.sum.clone().finalize() != u32::from_le_bytes(*sum) {
            return Err(SavedRoutesError::Altered);
        }
        if self.head.is_none() {
            self.head = Some(read_head(covered, self.kind)?);
            return Ok(());
        }
        let (head, body) =
            covered.split_first_chunk::<CHUNK_HEAD_BYTES>().ok_or(SavedRoutesError::Unreadable)?;
        match Chunk::from_byte(head[0]) {
            Some(Chunk::End) if body.is_empty() => self.ended = true,
            Some(kind) => each(kind, body)?,
            None => return Err(SavedRoutesError::Unreadable),
        }
        Ok(())
    }

    fn finish(self) -> Result<Head, SavedRoutesError> {
        match (self.fault, self.head) {
            (Some(fault), _) => Err(fault),
            (None, Some(head)) if self.ended => Ok(head),
            (None, Some(_) | None) => Err(SavedRoutesError::Torn),
        }
    }
}

fn read_head(bytes: &[u8], wanted: Kind) -> Result<Head, SavedRoutesError> {
    type Fields = ([u8; 8], [u8; 2], u8, [u8; 16], [u8; 8], [u8; 8]);
    let ((_magic, version, kind, store, program, revision), _) =
        postcard::take_from_bytes::<Fields>(bytes).map_err(|_| SavedRoutesError::Unreadable)?;
    let found = u16::from_le_bytes(version);
    let kind = Kind::ALL.into_iter().find(|it| *it as u8 == kind);
    if found != kind.map_or(VERSION, Kind::version) {
        return Err(SavedRoutesError::Version { found });
    }
    match kind {
        Some(kind) if kind == wanted => {
            Ok(Head { store, program, revision: u64::from_le_bytes(revision) })
        }
        Some(kind) => Err(SavedRoutesError::Kind { found: kind.name(), wanted: wanted.name() }),
        None => Err(SavedRoutesError::Unreadable),
    }
}

#[cfg(test)]
#[path = "saved_routes_tests.rs"]
mod tests;
