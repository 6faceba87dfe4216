//! What a transport says of its input.

use std::ops::Range;

/// What [`Transport::receive`] found at the front of the input.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Received {
    /// Bytes of the input that are dealt with.
    pub used: usize,
    /// What they were.
    pub event: Event,
}

/// What a packet meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// No whole packet or line is there: read more. `used` is 0.
    Starved,
    /// The transport dealt with it; its answer, if any, stands in `output`.
    Handled,
    /// The first key exchange is done in both directions: the layer above may start.
    Secured,
    /// A later key exchange is done in both directions.
    Rekeyed,
    /// A message for the layer above, at this range of the input, opened in place.
    Payload(Range<usize>),
    /// The peer does not know the message that we sent with this sequence number.
    Unimplemented(u32),
}

impl Event {
    /// The message in the input that it was received from; empty for every event but
    /// [`Event::Payload`].
    #[must_use]
    pub fn payload<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Payload(range) => input.get(range.clone()).unwrap_or_default(),
            Self::Starved
            | Self::Handled
            | Self::Secured
            | Self::Rekeyed
            | Self::Unimplemented(_) => &[],
        }
    }
}

/// Where [`Transport::reseal`] left the packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resealed {
    /// It lies sealed where it was received: to be written from there.
    InPlace,
    /// It was copied, sealed, to the end of `output`.
    Copied,
}
