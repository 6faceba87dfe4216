//! What is kept of a first key exchange, for an agent that is to compute its hash again.

use crate::ssh::kex::Secret;

/// What the first exchange hash was made of, beside identification lines and host key. It is secret
/// and makes a proof worth something elsewhere: kept from the first key exchange until the session
/// has a route, or an agent has it.
pub(super) struct FirstExchange {
    pub(super) our_cookie: [u8; 16],
    pub(super) peer_kexinit: Box<[u8]>,
    pub(super) init_value: Box<[u8]>,
    pub(super) reply_value: Box<[u8]>,
    pub(super) secret: Secret,
}
