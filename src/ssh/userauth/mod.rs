//! Authentication (RFC 4252), both roles, by public key only.
//!
//! `keyboard-interactive` is listed to people whose keys are refused, and lets nobody in:
//! see `LastWords`.
//!
//! The server side answers offers through a [`Gate`], verifies signatures and hands out
//! [`ProvedKey`]s; it decides nothing about routes, dials nothing and counts nothing beyond its own
//! connection. The client side logs in to a VM with one signed request. Both are fed by whoever
//! drives the transport.

mod client;
mod policy;
mod presented;
mod proof;
mod server;
mod standing;

pub use self::client::{Credential, Login, LoginStep};
pub use self::policy::Policy;
pub use self::presented::{Identity, Presented};
pub use self::proof::{Gate, Method, ProvedKey};
pub use self::server::{Authenticator, OFFERS_MAX, Step};
pub use self::standing::{Offer, Pass, Subject};
use super::message;
use super::wire::Put;

/// The service that authentication itself is (RFC 4252 §4).
const SERVICE: &str = "ssh-userauth";

/// The only service a user may log in to (RFC 4254).
const CONNECTION: &str = "ssh-connection";

/// The plain method (RFC 4252 §7).
const PUBLIC_KEY: &str = "publickey";

/// The method that also signs the server's host key (OpenSSH PROTOCOL §3.1).
const PUBLIC_KEY_HOST_BOUND: &str = "publickey-hostbound-v00@openssh.com";

/// The method whose only answer is the last words (RFC 4256).
const KEYBOARD_INTERACTIVE: &str = "keyboard-interactive";

/// Longest user name, in bytes of UTF-8. POSIX's `LOGIN_NAME_MAX` is 256 with its NUL, and a user
/// name with a VM name behind a `+` stays far below.
pub const LOGIN_BYTES_MAX: usize = 255;

/// Whether an account can have this name, or a request ask for it: it is short enough, and has no
/// control character.
#[must_use]
pub fn is_login(name: &str) -> bool {
    name.len() <= LOGIN_BYTES_MAX && !name.chars().any(char::is_control)
}

/// `SERVICE_REQUEST` and `SERVICE_ACCEPT` differ in their number only (RFC 4253 §10).
fn service_message(number: u8) -> Vec<u8> {
    let mut message = vec![number];
    message.put_string(SERVICE.as_bytes());
    message
}

/// A public-key request up to, and without, its signature (RFC 4252 §7).
fn request(login: &str, method: Method, signed: bool, algorithm: &str, blob: &[u8]) -> Vec<u8> {
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
fn signed_data(session_id: &[u8], request: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    data.put_string(session_id);
    data.put_bytes(request);
    data
}
