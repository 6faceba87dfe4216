//! Lowers the maximum packet size that peers announce to each other to what we carry.
//!
//! A relay passes channels and windows on as they are. But a maximum packet size is a promise about
//! the way as much as about its end: whoever may send a message that we refuse to carry loses data
//! and session. So a size above ours is lowered where it lies as the message passes; less than
//! announced is always right (RFC 4254 §5.1).

use crate::ssh::message::CHANNEL_OPEN;
use crate::ssh::transport::DATA_MAX_BYTES;

/// Lowers the maximum packet size in a `CHANNEL_OPEN` or its confirmation. One that does not parse
/// as far as that goes on as it is: whom it is for will say so.
pub(super) fn lower(message: &mut [u8]) {
    if let Some(field) = field(message)
        && u32::from_be_bytes(*field) > DATA_MAX_BYTES
    {
        *field = DATA_MAX_BYTES.to_be_bytes();
    }
}

/// Where it stands: behind the numbers of the channel and its window.
fn field(message: &mut [u8]) -> Option<&mut [u8; 4]> {
    let (&number, rest) = message.split_first()?;
    // The kind of channel, or the number that the peer gave it.
    let first = match number {
        CHANNEL_OPEN => {
            let len = u32::from_be_bytes(*rest.first_chunk()?);
            usize::try_from(len).ok()?.checked_add(4)?
        }
        _ => 4,
    };
    let at = first.checked_add(1 + 8)?;
    message.get_mut(at..)?.first_chunk_mut()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::message::CHANNEL_OPEN_CONFIRMATION;
    use crate::ssh::wire::Put;

    fn open(size: u32) -> Vec<u8> {
        let mut message = vec![CHANNEL_OPEN];
        message.put_string(b"session");
        for number in [7, 2_097_152, size] {
            message.put_u32(number);
        }
        message
    }

    fn confirmation(size: u32) -> Vec<u8> {
        let mut message = vec![CHANNEL_OPEN_CONFIRMATION];
        for number in [7, 0, 2_097_152, size] {
            message.put_u32(number);
        }
        message.put_bytes(b"more of its kind");
        message
    }

    #[test]
    fn a_packet_size_over_ours_is_lowered_and_nothing_else_is_touched() {
        for (announced, passed) in [
            (0, 0),
            (32_768, 32_768),
            (DATA_MAX_BYTES, DATA_MAX_BYTES),
            (DATA_MAX_BYTES + 1, DATA_MAX_BYTES),
            (u32::MAX, DATA_MAX_BYTES),
        ] {
            for made in [open, confirmation] {
                let mut message = made(announced);
                lower(&mut message);
                assert_eq!(message, made(passed), "{announced}");
            }
        }
    }

    #[test]
    fn a_message_that_is_cut_off_or_lies_about_its_length_passes_as_it_is() {
        for whole in [open(u32::MAX), confirmation(u32::MAX)] {
            let end = if whole[0] == CHANNEL_OPEN { whole.len() } else { 17 };
            for len in 0..end {
                let mut cut = whole[..len].to_vec();
                lower(&mut cut);
                assert_eq!(cut, whole[..len]);
            }
        }
        let mut lies = open(u32::MAX);
        lies[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
        let before = lies.clone();
        lower(&mut lies);
        assert_eq!(lies, before);
    }
}
