//! Version exchange (RFC 4253 §4.2): one line each way before any packet.

use super::fault::Fault;
use super::transport::Role;

/// What we call ourselves towards VMs, without CR LF.
pub const TO_SERVERS: &str = "SSH-2.0-Keyway_0.1";

/// What we call ourselves towards clients, without CR LF. Behind us stands the VM's own sshd, and OpenSSH clients say some
/// things only to a peer whose name begins like theirs: without `eow@openssh.com`, `ssh vm yes | head` never ends.
pub const TO_CLIENTS: &str = "SSH-2.0-OpenSSH_10.0 Keyway_0.1";

/// Longest identification line, CR LF included (RFC 4253 §4.2).
const LINE_MAX_BYTES: usize = 255;
/// Most bytes a server may send in lines before its identification line; a client may send none.
const PREAMBLE_MAX_BYTES: usize = 8192;

/// Looks for the identification line, counting what stands before it.
#[derive(Debug, Default)]
pub(super) struct IdentReader {
    preamble_bytes: usize,
}

/// What the front of the input is.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Line {
    /// No line end yet.
    Starved,
    /// A line before the identification, `used` bytes long; to be skipped.
    Preamble { used: usize },
    /// The identification line without CR LF, and the bytes it took.
    Ident { used: usize, text: Box<[u8]> },
}

impl IdentReader {
    /// Reads one line. `role` is our own: only servers may send lines before the identification.
    ///
    /// # Errors
    /// [`Fault::Ident`] on an endless, binary or non-SSH-2.0 line.
    pub(super) fn read(&mut self, role: Role, input: &[u8]) -> Result<Line, Fault> {
        let window = input.get(..LINE_MAX_BYTES).unwrap_or(input);
        let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
            let hopeless =
                window.len() == LINE_MAX_BYTES || (role == Role::Server && !starts(window));
            return if hopeless { Err(Fault::Ident) } else { Ok(Line::Starved) };
        };
        let used = end.saturating_add(1);
        let line = window.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b"SSH-2.0-") || line.starts_with(b"SSH-1.99-") {
            if line.contains(&0) {
                return Err(Fault::Ident);
            }
            return Ok(Line::Ident { used, text: line.into() });
        }
        self.preamble_bytes = self.preamble_bytes.saturating_add(used);
        let legal = role == Role::Client
            && !line.starts_with(b"SSH-")
            && self.preamble_bytes <= PREAMBLE_MAX_BYTES;
        if legal { Ok(Line::Preamble { used }) } else { Err(Fault::Ident) }
    }
}

/// Can `window` still become an identification line?
fn starts(window: &[u8]) -> bool {
    let prefix = window.get(..4).unwrap_or(window);
    b"SSH-".starts_with(prefix)
}

#[cfg(test)]
mod tests {
    use super::{IdentReader, Line};
    use crate::ssh::fault::Fault;
    use crate::ssh::transport::Role;

    fn read(role: Role, input: &[u8]) -> Result<Line, Fault> {
        IdentReader::default().read(role, input)
    }

    #[test]
    fn a_line_ends_with_cr_lf_or_bare_lf() {
        for line in [&b"SSH-2.0-x y\r\nrest"[..], b"SSH-2.0-x y\nrest"] {
            let Ok(Line::Ident { used, text }) = read(Role::Server, line) else {
                panic!("no identification in {line:?}")
            };
            assert_eq!(&*text, b"SSH-2.0-x y");
            assert_eq!(&line[used..], b"rest");
        }
    }

    /// CVE-2026-48108: endless bytes before the version line.
    #[test]
    fn endless_bytes_before_the_version_line_end_the_connection() {
        assert_eq!(read(Role::Client, &[b'a'; 255]), Err(Fault::Ident));
        let mut reader = IdentReader::default();
        let mut line = [b'a'; 200];
        line[199] = b'\n';
        let lines = (0..1000).take_while(|_| reader.read(Role::Client, &line).is_ok()).count();
        assert_eq!(lines, 8192 / 200);
    }

    #[test]
    fn a_client_may_send_nothing_before_its_version_line() {
        assert_eq!(read(Role::Server, b"hello\r\nSSH-2.0-x\r\n"), Err(Fault::Ident));
        assert_eq!(read(Role::Server, b"G"), Err(Fault::Ident));
        assert_eq!(read(Role::Server, b"SSH"), Ok(Line::Starved));
        assert_eq!(read(Role::Client, b"hello\r\n"), Ok(Line::Preamble { used: 7 }));
    }

    #[test]
    fn protocol_one_and_binary_lines_are_refused() {
        assert_eq!(read(Role::Client, b"SSH-1.5-old\r\n"), Err(Fault::Ident));
        assert_eq!(read(Role::Client, b"SSH-2.0-a\0b\r\n"), Err(Fault::Ident));
        assert!(matches!(read(Role::Client, b"SSH-1.99-x\r\n"), Ok(Line::Ident { .. })));
    }
}
