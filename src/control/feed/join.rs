//! An agent joins: by a token that is good once, its key becomes that of the token's node, and it
//! learns whom to believe.
//!
//! It asks twice. The first time it only looks, and whoever sits there is shown what it would
//! believe; the second time it says what that was, and joins if it is so still.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::route::FrontDoor;
use crate::route::saved_routes::{self, Head, Message};
use crate::ssh::publickey::Fingerprint;

/// Somebody holds a token, and the key that the request is signed with.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::control) struct JoinQuestion {
    pub(in crate::control) token: String,
    /// What [`believed`] says of what was shown; without it nothing is changed.
    #[serde(default)]
    pub(in crate::control) believes: Option<Vec<String>>,
}

/// What somebody joins, or has joined.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::control) struct JoinAnswer {
    /// The token's node.
    pub(in crate::control) node: String,
    /// Where edges look for its agent.
    pub(in crate::control) agent: SocketAddr,
    /// Whether sessions are handed to it.
    pub(in crate::control) trusted: bool,
    /// Whom to believe: the frame that the feed would send, in base64.
    pub(in crate::control) front_door: String,
}

impl JoinAnswer {
    pub(in crate::control) fn front_door(head: Head, told: &FrontDoor) -> String {
        STANDARD.encode(saved_routes::encode_front_door(head, told))
    }

    /// Of which moment, and what.
    pub(super) fn read(&self) -> Option<(Head, FrontDoor)> {
        let frame = STANDARD.decode(&self.front_door).ok()?;
        match saved_routes::decode_any(&frame).ok()? {
            Message::FrontDoor(head, told) => Some((head, told)),
            Message::Snapshot(..)
            | Message::Delta(..)
            | Message::Denied(..)
            | Message::Asked(_) => None,
        }
    }
}

/// The keys that a front door is believed by, as somebody compares them.
pub(in crate::control) fn believed(told: &FrontDoor) -> Vec<String> {
    let FrontDoor { host_keys, edges, trusted_user_cas, .. } = told;
    let blobs = |blobs: &[Vec<u8>]| {
        blobs.iter().map(|blob| Fingerprint::of(blob).to_string()).collect::<Vec<_>>()
    };
    let edges = edges.iter().map(|edge| Fingerprint(*edge).to_string()).collect();
    let mut all = [blobs(host_keys), edges, blobs(trusted_user_cas)];
    for keys in &mut all {
        keys.sort();
    }
    let of = ["host key", "edge", "CA"].into_iter().zip(all);
    of.flat_map(|(of, keys)| keys.into_iter().map(move |key| format!("{of} {key}"))).collect()
}
