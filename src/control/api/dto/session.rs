//! Live sessions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A live session.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Session {
    /// Names it while it lives.
    pub id: String,
    /// How far it is.
    pub state: SessionState,
    /// The user, by name.
    pub user: String,
    /// By which key.
    pub fingerprint: String,
    /// Where; empty at the lobby.
    pub vm: String,
    /// The pool address that was dialled.
    pub address: String,
    /// As whom in the VM; empty at the lobby.
    pub login: String,
    /// Where from: an IP address and port.
    pub client: String,
    /// How it is carried, once it is: `relay`, or `splice` where the edge holds no key of it.
    pub carry: String,
    /// Unix time.
    pub since_s: u64,
    /// Bytes from the client.
    pub up_bytes: u64,
    /// Bytes to the client.
    pub down_bytes: u64,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// Its user is at the lobby, and in no VM.
    Lobby,
    /// Its VM is being reached, or its user is told why that failed.
    Dialling,
    /// It is carried.
    Established,
}
