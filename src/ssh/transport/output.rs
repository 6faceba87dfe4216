//! What goes to the peer: messages sealed, held back while keys are exchanged, and the last one.

use std::ops::Range;

use super::farewell::FAREWELL_MAX_BYTES;
use super::{Context, LATE_BYTES_MAX, Resealed, State, Transport};
use crate::ssh::fault::Fault;
use crate::ssh::message::{self, Reason};
use crate::ssh::text::printable;
use crate::ssh::wire::{Put, Reader};

/// Messages held back while keys are exchanged: answers of our own (PONG, replies to global
/// requests), and all that the other leg of a relay may send late while this one is held.
pub(super) const HELD_MAX_BYTES: usize = 64 * 1024 + LATE_BYTES_MAX;
/// Output we make by ourselves for a peer that does not read it.
pub(super) const OUTPUT_MAX_BYTES: usize = 1024 * 1024;
/// Written output is cut off once there is this much of it, and it is half of the buffer: moving
/// the rest then costs no more than writing it did.
pub(super) const WRITTEN_MIN_BYTES: usize = 64 * 1024;

impl Transport {
    /// Seals a message of the layer above, or holds it back until our NEWKEYS is out.
    ///
    /// # Errors
    /// [`Fault::QueueFull`] when the peer does not read, [`Fault::KeysUsedUp`], or the fault that
    /// ended the transport.
    pub fn send(&mut self, payload: &[u8], cx: &mut Context<'_>) -> Result<(), Fault> {
        if let State::Ended(fault) = &self.state {
            return Err(*fault);
        }
        if self.is_held() {
            if self.held.len().saturating_add(payload.len()) > HELD_MAX_BYTES {
                return Err(Fault::QueueFull);
            }
            self.held.put_string(payload);
            return Ok(());
        }
        self.seal(payload, cx)
    }

    pub(super) fn seal(&mut self, payload: &[u8], cx: &mut Context<'_>) -> Result<(), Fault> {
        if self.out.len().saturating_sub(self.out_sent) > OUTPUT_MAX_BYTES {
            return Err(Fault::QueueFull);
        }
        self.sealer.seal(payload, cx.entropy, &mut self.out)
    }

    pub(super) fn release_held(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        let held = std::mem::take(&mut self.held);
        let mut reader = Reader::new(&held);
        while !reader.is_empty() {
            self.seal(reader.string()?, cx)?;
        }
        Ok(())
    }

    /// Seals a connection packet that another transport's [`Transport::receive`] has just opened:
    /// `packet` is its `input[..used]`, `payload` the range it gave. In place when nothing waits in
    /// `output` and the framing fits, else as a copy at the end of `output`, or held back like
    /// [`Transport::send`] does: no more than the peer's late messages while
    /// [`Transport::is_held`].
    ///
    /// # Errors
    /// As [`Transport::send`].
    pub fn reseal(
        &mut self,
        packet: &mut [u8],
        payload: Range<usize>,
        cx: &mut Context<'_>,
    ) -> Result<Resealed, Fault> {
        if let State::Ended(fault) = &self.state {
            return Err(*fault);
        }
        if self.out.is_empty() && !self.is_held() && self.sealer.reseal(packet)? {
            return Ok(Resealed::InPlace);
        }
        self.send(packet.get(payload).unwrap_or_default(), cx)?;
        Ok(Resealed::Copied)
    }

    /// Sealed bytes to write to the peer.
    pub fn output(&self) -> &[u8] {
        self.out.get(self.out_sent..).unwrap_or_default()
    }

    /// Drops the first `count` bytes of `output`: they were written. An empty buffer is freed, and
    /// one that never empties, because the peer reads slowly, is cut down again and again.
    pub fn sent(&mut self, count: usize) {
        let len = self.out.len();
        self.out_sent = self.out_sent.saturating_add(count).min(len);
        if self.out_sent == len {
            self.out = Vec::new();
            self.out_sent = 0;
        } else if self.out_sent >= WRITTEN_MIN_BYTES && self.out_sent >= len.div_ceil(2) {
            self.out.drain(..self.out_sent);
            self.out_sent = 0;
            self.out.shrink_to(self.out.len().saturating_mul(2));
        }
    }

    /// Frees what the keys were expanded to, for a connection that has gone quiet: see
    /// [`Opener::rest`]. The next packet in either direction pays for it.
    pub fn rest(&mut self) {
        self.opener.rest();
        self.sealer.rest();
    }

    /// Queues a DISCONNECT with a text for people and ends the transport.
    pub fn disconnect(&mut self, reason: Reason, text: &str, cx: &mut Context<'_>) {
        if matches!(self.state, State::Ended(_)) {
            return;
        }
        let mut payload = vec![message::DISCONNECT];
        payload.put_u32(reason.code());
        payload.put_string(printable(text, FAREWELL_MAX_BYTES).as_bytes());
        payload.put_string(b"");
        // A peer that lets its queue fill up hears nothing; it is gone either way.
        let _unsaid = self.seal(&payload, cx);
        self.state = State::Ended(Fault::Disconnected { reason: reason.code() });
        self.held = Vec::new();
    }

    pub(super) fn fail(&mut self, fault: Fault, cx: &mut Context<'_>) {
        if !matches!(fault, Fault::Disconnected { .. }) {
            self.disconnect(fault.reason(), &fault.to_string(), cx);
        }
        self.state = State::Ended(fault);
    }
}
