//! What is known of the peer: its identification, what it can, and what it said last.

use super::Transport;
use crate::ssh::cipher::Cipher;
use crate::ssh::negotiate::PeerCan;
use crate::ssh::publickey::SignatureAlgorithm;
use crate::ssh::text::printable;

impl Transport {
    /// The peer's identification line as printable ASCII, for logs.
    pub fn peer_ident(&self) -> String {
        printable(&String::from_utf8_lossy(&self.peer_ident), 255)
    }

    /// The algorithms that the server says it verifies (RFC 8308 §3.1).
    pub fn server_sig_algs(&self) -> Option<&str> {
        self.session.as_ref()?.peer_sig_algs.as_deref()
    }

    /// The cipher from the peer to us.
    pub fn receive_cipher(&self) -> Option<Cipher> {
        self.opener.suite().map(|suite| suite.cipher)
    }

    /// The peer's latest KEXINIT had AES-GCM both ways.
    pub fn peer_offered_gcm(&self) -> bool {
        self.peer_can().gcm
    }

    /// The algorithm for proofs of RSA host keys to this client; `None` if it takes none.
    pub fn rsa_proofs(&self) -> Option<SignatureAlgorithm> {
        self.peer_can().rsa_proofs
    }

    fn peer_can(&self) -> PeerCan {
        self.session.as_ref().map_or_else(PeerCan::default, |session| session.peer_can)
    }

    /// The peer's DISCONNECT: reason and text as received (cut to 512 bytes).
    pub fn farewell(&self) -> Option<(u32, &[u8])> {
        self.farewell.as_deref()?.disconnect()
    }

    /// What the peer said last before it hung up, in a DISCONNECT or, a server, in place of its
    /// identification: printable ASCII of at most `max_bytes`.
    pub fn last_words(&self, max_bytes: usize) -> Option<String> {
        self.farewell.as_deref()?.words(max_bytes)
    }
}
