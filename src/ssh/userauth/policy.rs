//! Which keys and certificates the server's side believes, and how patient it is.

use super::super::publickey::PublicKey;
use super::super::revocation::Revocations;

/// Server-side settings, shared; replaced as a whole by a reload. Each call gets the current ones,
/// so that what a reload revokes is revoked for connections that are half way in.
#[derive(Clone, Default)]
pub struct Policy {
    /// The CAs whose user certificates are believed.
    pub cas: Vec<PublicKey>,
    /// Keys and certificates that are treated as unknown.
    pub revocations: Revocations,
    /// Most refused signed requests and requests of other methods; 0 acts as 1. The first `none` is
    /// free, as with OpenSSH; refused offers have a limit of their own,
    /// [`OFFERS_MAX`](super::OFFERS_MAX).
    pub attempts_max: u32,
    /// Says yes to every well-formed offer and decides after the signature.
    pub hide_keys: bool,
    /// Sent once to somebody who has no key left to try: in answer to `keyboard-interactive`, or
    /// before the failure that uses up the attempts. The same bytes whatever was offered.
    pub last_words: String,
    /// Said behind them to whoever has a `+` in the user name: what that means here. It tells
    /// nobody more than they wrote themselves.
    pub plus_words: String,
}
