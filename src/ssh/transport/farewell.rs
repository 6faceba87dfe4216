//! What the peer said last: in its DISCONNECT, or, a server, in place of its identification.

use crate::ssh::text::printable;
use crate::ssh::wire::{Malformed, Reader};

/// Longest text kept from a peer's DISCONNECT, or of what it said in place of its
/// identification, in bytes.
pub(super) const FAREWELL_MAX_BYTES: usize = 512;

/// What the peer said last.
pub(super) struct Farewell {
    /// Of a DISCONNECT. `None`: a server's line in place of its identification, where sshd gives
    /// its reason for hanging up ("Exceeded MaxStartups").
    reason: Option<u32>,
    text: Box<[u8]>,
}

impl Farewell {
    /// The first line of `input`, which stands where the server's identification should.
    pub(super) fn overheard(input: &[u8]) -> Option<Box<Self>> {
        let line = input.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.get(..FAREWELL_MAX_BYTES).unwrap_or(line).trim_ascii();
        (!line.is_empty()).then(|| Box::new(Self { reason: None, text: line.into() }))
    }

    /// A DISCONNECT, and its reason.
    pub(super) fn disconnected(payload: &[u8]) -> Result<(Self, u32), Malformed> {
        let mut reader = Reader::new(payload);
        reader.u8()?;
        let (reason, text) = (reader.u32()?, reader.string()?);
        let text = text.get(..FAREWELL_MAX_BYTES).unwrap_or(text);
        Ok((Self { reason: Some(reason), text: text.into() }, reason))
    }

    /// Of a DISCONNECT: reason and text as received.
    pub(super) fn disconnect(&self) -> Option<(u32, &[u8])> {
        Some((self.reason?, &self.text))
    }

    /// The text in printable ASCII, if there is any.
    pub(super) fn words(&self, max_bytes: usize) -> Option<String> {
        let text = printable(String::from_utf8_lossy(&self.text).trim(), max_bytes);
        (!text.is_empty()).then_some(text)
    }
}
