//! What a VM says to its user before it lets them in, for the first terminal that the user opens.
//!
//! The client is authenticated before the VM is dialled, so the text comes too late to be a banner
//! of ours. It is written to standard error of a terminal, where people read; a program that runs a
//! command over SSH, scp, sftp and git get nothing, as they may take any text for a fault.
//!
//! Windows stay what both sides believe: room for the text is taken off the window in the client's
//! `CHANNEL_OPEN` as that passes. The VM then never sends so much that both together do not fit,
//! and what the client gives back for the text is the VM's.

use crate::ssh::message::{CHANNEL_EXTENDED_DATA, CHANNEL_OPEN};
use crate::ssh::text::{LineEnd, printable_lines};
use crate::ssh::wire::{Malformed, Put, Reader};

/// Longest text, in bytes.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// What a window must have left for the VM, in bytes: nobody's channel becomes slow for a greeting.
const WINDOW_LEFT_MIN: u32 = 64 << 10;

/// `CHANNEL_EXTENDED_DATA` of standard error (RFC 4254 §5.2).
const STDERR: u32 = 1;

/// The text, until a terminal has it.
#[derive(Debug)]
pub(super) struct Banner {
    text: Box<str>,
    at: At,
}

/// The channel that may become a terminal: the session that was opened last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    Nowhere,
    /// The client calls it so.
    Opened {
        client: u32,
    },
    /// And the VM so.
    Confirmed {
        client: u32,
        vm: u32,
    },
}

impl Banner {
    /// `text`: as received. `None` if there is nothing to show.
    pub(super) fn new(text: &str) -> Option<Box<Self>> {
        let text = printable_lines(text.trim_end(), LineEnd::CrLf, TEXT_BYTES_MAX);
        let banner = Self { text: text.into(), at: At::Nowhere };
        (!banner.text.is_empty()).then(|| Box::new(banner))
    }

    /// The client's `CHANNEL_OPEN` passes.
    pub(super) fn opens(&mut self, message: &mut [u8]) {
        if let Ok(Some((client, rest))) = self.reserve(message) {
            self.at = At::Opened { client };
            if let Some(window) = message.get_mut(5 + SESSION.len() + 4..)
                && let Some(window) = window.first_chunk_mut()
            {
                *window = rest.to_be_bytes();
            }
        }
    }

    /// The client's number of a session channel, and what is left of its window. `None`: not a
    /// session, or no room.
    fn reserve(&self, message: &[u8]) -> Result<Option<(u32, u32)>, Malformed> {
        let mut reader = Reader::new(message);
        if reader.u8()? != CHANNEL_OPEN || reader.string()? != SESSION {
            return Ok(None);
        }
        let (client, window, packet) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let len = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        let rest = window.checked_sub(len).filter(|rest| *rest >= WINDOW_LEFT_MIN);
        Ok(rest.filter(|_| packet >= len).map(|rest| (client, rest)))
    }

    /// The VM's `CHANNEL_OPEN_CONFIRMATION` passes.
    pub(super) fn confirmed(&mut self, message: &[u8]) {
        let mut reader = Reader::new(message);
        if let (Ok(_), Ok(to), Ok(vm)) = (reader.u8(), reader.u32(), reader.u32())
            && self.at == (At::Opened { client: to })
        {
            self.at = At::Confirmed { client: to, vm };
        }
    }

    /// The client's `CHANNEL_REQUEST` passes. The message to send to the client if it asks for a
    /// terminal: then this banner is done.
    pub(super) fn requested(&self, message: &[u8]) -> Option<Vec<u8>> {
        let At::Confirmed { client, vm } = self.at else { return None };
        let mut reader = Reader::new(message);
        let (Ok(_), Ok(to), Ok(b"pty-req")) = (reader.u8(), reader.u32(), reader.string()) else {
            return None;
        };
        (to == vm).then(|| {
            let mut shown = vec![CHANNEL_EXTENDED_DATA];
            shown.put_u32(client);
            shown.put_u32(STDERR);
            shown.put_string(self.text.as_bytes());
            shown
        })
    }
}

/// The kind of channel that can have a terminal.
const SESSION: &[u8] = b"session";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::message::{CHANNEL_OPEN_CONFIRMATION, CHANNEL_REQUEST};

    fn open(kind: &str, client: u32, window: u32, packet: u32) -> Vec<u8> {
        let mut message = vec![CHANNEL_OPEN];
        message.put_string(kind.as_bytes());
        for number in [client, window, packet] {
            message.put_u32(number);
        }
        message
    }

    fn confirmation(client: u32, vm: u32) -> Vec<u8> {
        let mut message = vec![CHANNEL_OPEN_CONFIRMATION];
        for number in [client, vm, 0, 32_768] {
            message.put_u32(number);
        }
        message
    }

    fn request(vm: u32, name: &str) -> Vec<u8> {
        let mut message = vec![CHANNEL_REQUEST];
        message.put_u32(vm);
        message.put_string(name.as_bytes());
        message.put_bool(true);
        message
    }

    const WINDOW: u32 = 2 << 20;

    #[test]
    fn a_terminal_gets_the_text_and_the_vm_a_window_without_its_room() {
        let mut banner = Banner::new("Authorised users\x1b[1m only.\nBe kind.\n\n").unwrap();
        let shown = "Authorised users\\x1b[1m only.\r\nBe kind.\r\n";
        let len = u32::try_from(shown.len()).unwrap();
        let mut message = open("session", 7, WINDOW, 32_768);
        banner.opens(&mut message);
        assert_eq!(message, open("session", 7, WINDOW - len, 32_768));
        assert_eq!(banner.requested(&request(0, "pty-req")), None, "not confirmed yet");
        banner.confirmed(&confirmation(7, 3));
        assert_eq!(banner.requested(&request(3, "env")), None);
        assert_eq!(banner.requested(&request(4, "pty-req")), None, "another channel");
        let told = banner.requested(&request(3, "pty-req")).unwrap();
        let mut reader = Reader::new(&told);
        assert_eq!(reader.u8(), Ok(CHANNEL_EXTENDED_DATA));
        assert_eq!((reader.u32(), reader.u32()), (Ok(7), Ok(1)));
        assert_eq!(reader.string(), Ok(shown.as_bytes()));
    }

    #[test]
    fn the_session_that_was_opened_last_may_be_the_terminal() {
        let mut banner = Banner::new("hello").unwrap();
        for (client, vm) in [(1, 11), (2, 12)] {
            banner.opens(&mut open("session", client, WINDOW, 32_768));
            banner.confirmed(&confirmation(client, vm));
        }
        banner.opens(&mut open("direct-tcpip", 3, WINDOW, 32_768));
        assert_eq!(banner.requested(&request(11, "pty-req")), None);
        assert!(banner.requested(&request(12, "pty-req")).is_some());
    }

    #[test]
    fn what_has_no_room_passes_as_it_is() {
        let mut banner = Banner::new("hello").unwrap();
        let mut cut = open("session", 1, WINDOW, 32_768);
        cut.truncate(12);
        for message in [
            open("session", 1, 64 << 10, 32_768),
            open("session", 1, WINDOW, 6),
            open("x11", 1, WINDOW, 32_768),
            cut,
        ] {
            let mut passed = message.clone();
            banner.opens(&mut passed);
            assert_eq!(passed, message);
            assert_eq!(banner.at, At::Nowhere);
        }
        assert!(Banner::new("\r\n \n").is_none());
    }
}
