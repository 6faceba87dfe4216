//! What the messages of authentication have in common, both roles: names, and requests as they are
//! sent and signed (RFC 4252).

use super::super::message;
use super::super::wire::Put;

/// The service that authentication itself is (RFC 4252 §4).
pub(super) const SERVICE: &str = "ssh-userauth";

/// The only service a user may log in to (RFC 4254).
pub(super) const CONNECTION: &str = "ssh-connection";

/// The plain method (RFC 4252 §7).
pub(super) const PUBLIC_KEY: &str = "publickey";

/// The method that also signs the server's host key (OpenSSH PROTOCOL §3.1).
pub(super) const PUBLIC_KEY_HOST_BOUND: &str = "publickey-hostbound-v00@openssh.com";

/// The method whose only answer is the last words (RFC 4256).
pub(super) const KEYBOARD_INTERACTIVE: &str = "keyboard-interactive";

/// Longest user name, in bytes of UTF-8. POSIX's `LOGIN_NAME_MAX` is 256 with its NUL, and a user
/// name with a VM name behind a `+` stays far below.
pub const LOGIN_BYTES_MAX: usize = 255;

/// Whether an account can have this name, or a request ask for it: it is short enough, and has no
/// control character.
#[must_use]
pub fn is_login(name: &str) -> bool {
    name.len() <= LOGIN_BYTES_MAX && !name.chars().any(char::is_control)
}

/// Which of the two public-key methods a request used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    /// `publickey` (RFC 4252 §7).
    PublicKey,
    /// `publickey-hostbound-v00@openssh.com`: the signature also covers our host key.
    HostBound,
}

impl Method {
    /// The method's name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PublicKey => PUBLIC_KEY,
            Self::HostBound => PUBLIC_KEY_HOST_BOUND,
        }
    }
}

/// `SERVICE_REQUEST` and `SERVICE_ACCEPT` differ in their number only (RFC 4253 §10).
pub(super) fn service_message(number: u8) -> Vec<u8> {
    let mut message = vec![number];
    message.put_string(SERVICE.as_bytes());
    message
}

/// A public-key request up to, and without, its signature (RFC 4252 §7).
pub(super) fn request(
    login: &str,
    method: Method,
    signed: bool,
    algorithm: &str,
    blob: &[u8],
) -> Vec<u8> {
    let mut message = vec![message::USERAUTH_REQUEST];
    message.put_string(login.as_bytes());
    message.put_string(CONNECTION.as_bytes());
    message.put_string(method.name().as_bytes());
    message.put_bool(signed);
    message.put_string(algorithm.as_bytes());
    message.put_string(blob);
    message
}

/// What a signature covers: the session identifier, then the request without it (RFC 4252 §7).
pub(super) fn signed_data(session_id: &[u8], request: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    data.put_string(session_id);
    data.put_bytes(request);
    data
}
