//! Version exchange (RFC 4253 §4.2): one line each way before any packet.

use super::fault::Fault;
use super::role::Role;

/// What we call ourselves towards VMs, without CR LF.
pub const TO_SERVERS: &str = "SSH-2.0-Keyway_0.1";

/// What we call ourselves towards clients, without CR LF. Behind us stands the VM's own sshd, and
/// OpenSSH clients say some things only to a peer whose name begins like theirs: without
/// `eow@openssh.com`, `ssh vm yes | head` never ends. With the name come the rules that others
/// keep for its versions, so it is one that no such rule is about: one digit before the point
/// (paramiko to 4.0 reads `OpenSSH_10` as older than 7.8 and signs RSA certificates with SHA-1)
/// and the last of those.
pub const TO_CLIENTS: &str = "SSH-2.0-OpenSSH_9.9 Keyway_0.1";

/// Longest identification line of a client, CR LF included (RFC 4253 §4.2).
const LINE_MAX_BYTES: usize = 255;
/// Longest line of a server, before its identification or that itself: what OpenSSH reads from one.
const SERVER_LINE_MAX_BYTES: usize = 8192;
/// Most lines a server may send before its identification line, as with OpenSSH; a
/// client may send none.
const PREAMBLE_LINES_MAX: u32 = 1024;
/// The same in bytes, which OpenSSH does not bound: a login that waits reads no more than this.
const PREAMBLE_BYTES_MAX: u32 = 256 * 1024;

/// Looks for the identification line, counting what stands before it.
#[derive(Debug, Default)]
pub(super) struct IdentReader {
    preamble_bytes: u32,
    preamble_lines: u32,
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
        let line_max = match role {
            Role::Server => LINE_MAX_BYTES,
            Role::Client => SERVER_LINE_MAX_BYTES,
        };
        let window = input.get(..line_max).unwrap_or(input);
        let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
            let hopeless = window.len() == line_max || (role == Role::Server && !starts(window));
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
        let bytes = u32::try_from(used).unwrap_or(u32::MAX);
        self.preamble_bytes = self.preamble_bytes.saturating_add(bytes);
        self.preamble_lines = self.preamble_lines.saturating_add(1);
        let legal = role == Role::Client
            && !line.starts_with(b"SSH-")
            && self.preamble_bytes <= PREAMBLE_BYTES_MAX
            && self.preamble_lines <= PREAMBLE_LINES_MAX;
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
    use super::{IdentReader, Line, TO_CLIENTS};
    use crate::ssh::fault::Fault;
    use crate::ssh::role::Role;

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
        assert_eq!(read(Role::Server, &[b'S'; 255]), Err(Fault::Ident));
        assert_eq!(read(Role::Client, &[b'a'; 8191]), Ok(Line::Starved));
        assert_eq!(read(Role::Client, &[b'a'; 8192]), Err(Fault::Ident));
        for (len, most) in [(8192, 32), (200, 1024)] {
            let mut reader = IdentReader::default();
            let mut line = vec![b'a'; len];
            line[len - 1] = b'\n';
            let lines = (0..9999).take_while(|_| reader.read(Role::Client, &line).is_ok()).count();
            assert_eq!(lines, most, "lines of {len}");
        }
    }

    #[test]
    fn a_server_may_say_as_much_before_its_version_line_as_openssh_reads() {
        let mut reader = IdentReader::default();
        let mut line = vec![b'-'; 8000];
        line.push(b'\n');
        for _ in 0..20 {
            assert_eq!(reader.read(Role::Client, &line), Ok(Line::Preamble { used: 8001 }));
        }
        let found = reader.read(Role::Client, b"SSH-2.0-x\r\n");
        assert!(matches!(found, Ok(Line::Ident { .. })), "{found:?}");
    }

    /// Rules that clients keep for versions of OpenSSH, each found in the program named: all are
    /// about one that lacks something or has a bug.
    #[test]
    fn no_clients_rule_about_some_version_of_openssh_is_about_ours() {
        let software = TO_CLIENTS.strip_prefix("SSH-2.0-").expect("version 2");
        let version = software.strip_prefix("OpenSSH_").expect("clients look for this name");
        let digit = |at: usize| version.as_bytes()[at].is_ascii_digit();
        // libssh and libssh2 read one digit, a point and a number; paramiko (to 4.0)
        // `OpenSSH_(?:[1-6]|7\.[0-7])`; OpenSSH's own compat.c `OpenSSH_2*` to `OpenSSH_7.7*`;
        // PuTTY `OpenSSH_[2-5].*`, `OpenSSH_6.[0-6]*`, `OpenSSH_7.[0-4]*`; node's ssh2
        // `^OpenSSH_5\.\d+` and `^OpenSSH_7\.4`.
        assert!(digit(0) && version.as_bytes()[1] == b'.' && digit(2), "{version}");
        assert!(version.as_bytes()[0] >= b'8', "{version}");
        // And some only about the newest: what it may do that we do not is not theirs to guess.
        assert!(version.starts_with("9.9 "), "{version}");
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
