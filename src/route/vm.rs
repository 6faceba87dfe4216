//! A VM as the data plane needs it.

use std::borrow::Cow;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::source_address::SourceAddress;

/// A VM as the data plane needs it. Never changes in place: a change makes a new one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Vm {
    /// Names it for good, whatever it is called: the certificate that lets the edge in is for this
    /// id. A VM of a fleet file has none but its name.
    pub id: String,
    /// Its name, a DNS label.
    pub name: String,
    /// The principal it belongs to: a user's name, or `team:` and a team's.
    pub owner: String,
    /// `host:port`, resolved and checked at every dial.
    pub endpoint: String,
    /// The login to use in the VM whatever name the user asked for.
    pub login: Option<String>,
    /// The host key it has to show; without one the first key seen is pinned.
    pub host_key: Option<Pin>,
    /// From where the edge may come, as the VM sees it; `None`: as for all VMs.
    pub source_address: Option<SourceAddress>,
    /// The pool address its DNS name points at, by name. Opens no way: slots do.
    pub address: Option<String>,
    /// Whether nobody may enter it: it is in maintenance. Its name, its slots and
    /// everybody's right stay.
    pub closed: bool,
    /// How its sessions are to be carried.
    pub carry: Carry,
    /// The node that it lies on, by name: one text for all VMs that lie there.
    pub node: Option<Arc<str>>,
}

impl Vm {
    /// The entry as every map of one fleet has it, for a comparison: without the host key, which
    /// whoever dials the VM may have pinned by itself, and without its DNS name's address.
    pub fn entry(&self) -> Vec<u8> {
        let entry = Self { host_key: None, address: None, ..self.clone() };
        // Texts, numbers and options of them always have a form.
        postcard::to_allocvec(&entry).unwrap_or_default()
    }
}

/// How the sessions of a VM are to be carried.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Carry {
    /// Handed off where the VM's node has an agent and is trusted, relayed elsewhere.
    #[default]
    Auto,
    /// Relayed.
    Relay,
    /// Handed off.
    Handoff,
}

impl Carry {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Relay, Self::Handoff];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Relay => "relay",
            Self::Handoff => "handoff",
        }
    }
}

/// The host key that a VM has to show.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Pin {
    /// SHA-256 of the public key's wire blob.
    Fingerprint([u8; 32]),
    /// The public key's wire blob.
    Key(Vec<u8>),
    /// The key in a blob of the most common kind: with a million VMs the rest of the blob is
    /// worth leaving out.
    Ed25519([u8; 32]),
}

/// What stands before the key in the wire blob of an Ed25519 key (RFC 8709).
const ED25519: &[u8; 19] = b"\0\0\0\x0bssh-ed25519\0\0\0\x20";

impl Pin {
    /// Of a public key's wire blob.
    pub fn of_key(blob: &[u8]) -> Self {
        match blob.strip_prefix(ED25519).map(TryInto::try_into) {
            Some(Ok(key)) => Self::Ed25519(key),
            Some(Err(_)) | None => Self::Key(blob.to_vec()),
        }
    }

    /// The public key's wire blob, if more than its fingerprint is known.
    pub fn key(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Fingerprint(_) => None,
            Self::Key(blob) => Some(Cow::Borrowed(blob)),
            Self::Ed25519(key) => Some(Cow::Owned([&ED25519[..], key].concat())),
        }
    }
}
