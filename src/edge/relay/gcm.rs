//! AES-GCM in place of what a client prefers: chacha20-poly1305 costs us ten times as much.

use crate::ssh::cipher::Cipher;
use crate::ssh::transport::Transport;

/// What costs us least.
pub(in crate::edge) const GCM: &[Cipher] = &[Cipher::Aes128Gcm, Cipher::Aes256Gcm];

/// Whether we re-key a bulky client to a cipher that costs us a tenth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PreferGcm {
    /// Once, after the first 4 MiB, if the client offered AES-GCM too.
    Bulk,
    /// Not at all.
    Never,
}

/// Whether a client that uses another cipher may be moved to AES-GCM.
pub(in crate::edge) fn takes_gcm(client: &Transport) -> bool {
    // libssh2 1.11 loses the session when the cipher changes.
    client.peer_offered_gcm() && !client.peer_ident().starts_with("SSH-2.0-libssh2_")
}
