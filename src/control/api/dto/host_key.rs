//! Host keys, of this front door and of VMs, and the CA that VMs are logged in to with.

use schemars::JsonSchema;
use serde::Serialize;

use crate::registry::document;
use crate::ssh::publickey::PublicKey;

/// A host key of this front door.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct HostKey {
    /// `ssh-ed25519` and its like.
    #[serde(rename = "type")]
    pub key_type: String,
    /// `SHA256:...`
    pub fingerprint: String,
    /// Type and base64.
    pub line: String,
}

/// Whom a VM is held to be.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct VmHostKey {
    /// Its name.
    pub vm: String,
    /// What an operator gave.
    pub given: Option<String>,
    /// What was seen first.
    pub pinned: Option<Pinned>,
}

/// What a VM showed at its first use.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Pinned {
    /// `SHA256:...`
    pub fingerprint: String,
    /// Type and base64.
    pub line: String,
    /// When it was pinned, as a Unix time; a pin of an earlier version does not say.
    pub at_s: Option<u64>,
}

impl Pinned {
    pub(in super::super) fn of(vm: &document::Vm) -> Option<Self> {
        let (key, _) = PublicKey::parse_line(vm.pin.as_deref()?).ok()?;
        let at_s = (vm.pinned_s > 0).then_some(vm.pinned_s);
        Some(Self { fingerprint: key.fingerprint().to_string(), line: key.to_line(), at_s })
    }
}

/// The CA whose certificates log in to VMs.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Ca {
    /// The fingerprint of the one in use; none: VMs are logged in to with a plain key.
    pub in_use: Option<String>,
    /// The one that the VMs of this registry were prepared for, as far as it knows: it was used
    /// first, or confirmed.
    pub prepared_for: Option<String>,
}
