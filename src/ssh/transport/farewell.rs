//! What the peer said last: in its DISCONNECT, or, a server, in place of its identification.

use super::Transport;
use crate::ssh::fault::Fault;
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
}

impl Transport {
    pub(super) fn read_disconnect(&mut self, payload: &[u8]) -> Fault {
        let mut reader = Reader::new(payload);
        let fields = (|| {
            reader.u8()?;
            Ok::<_, Malformed>((reader.u32()?, reader.string()?))
        })();
        match fields {
            Ok((reason, text)) => {
                let text = text.get(..FAREWELL_MAX_BYTES).unwrap_or(text);
                self.farewell =
                    Some(Box::new(Farewell { reason: Some(reason), text: text.into() }));
                Fault::Disconnected { reason }
            }
            Err(malformed) => Fault::Malformed(malformed),
        }
    }

    /// The peer's DISCONNECT: reason and text as received (cut to 512 bytes).
    pub fn farewell(&self) -> Option<(u32, &[u8])> {
        let farewell = self.farewell.as_deref()?;
        Some((farewell.reason?, &farewell.text))
    }

    /// What the peer said last before it hung up, in a DISCONNECT or, a server, in place of its
    /// identification: printable ASCII of at most `max_bytes`.
    pub fn last_words(&self, max_bytes: usize) -> Option<String> {
        let text = String::from_utf8_lossy(&self.farewell.as_deref()?.text);
        let text = printable(text.trim(), max_bytes);
        (!text.is_empty()).then_some(text)
    }
}
