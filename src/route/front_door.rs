//! What agents and other edges have to know of the front door as a whole.

use serde::{Deserialize, Serialize};

/// Whom a follower believes, and whom it lets in no more. Of SSH this room knows none of it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct FrontDoor {
    /// Wire blobs of its public host keys.
    pub host_keys: Vec<Vec<u8>>,
    /// SHA-256 of the public key blobs of its edges' identities.
    pub edges: Vec<[u8; 32]>,
    /// Wire blobs of the public keys of CAs that users' certificates may be of.
    pub trusted_user_cas: Vec<Vec<u8>>,
    /// What is revoked, in an encoding of the SSH room's.
    pub revocations: Vec<u8>,
    /// Ids of the stores in whose place this one was adopted: whoever knows one of them may go on
    /// with it.
    pub stands_for: Vec<[u8; 16]>,
}
