//! Bodies of requests. What has the wrong shape is refused before a handler sees it; names and values are judged by the
//! registry, in its own words.

use std::net::{AddrParseError, IpAddr};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::registry::document::{Access, Role, VmState};

/// A DNS label, as a program that sends requests must know it.
pub(super) const NAME: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
/// A user, or a team.
pub(super) const PRINCIPAL: &str = "^(team:)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
/// A key that nobody has: the private half was thrown away.
const LINE: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIARw/HeTwZikcRO/nQLk+tDE0vudcQT2npuHC4s5TE/m laptop";

/// A new user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    #[schemars(regex(pattern = NAME))]
    pub(super) name: String,
    /// `authorized_keys` lines.
    #[serde(default)]
    #[schemars(example = [LINE])]
    pub(super) keys: Vec<String>,
}

/// A key for a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewKey {
    /// An `authorized_keys` line.
    #[schemars(example = LINE)]
    pub(super) line: String,
}

/// A new team.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTeam {
    #[schemars(regex(pattern = NAME))]
    pub(super) name: String,
    /// Users.
    #[serde(default)]
    #[schemars(inner(regex(pattern = NAME)))]
    pub(super) members: Vec<String>,
}

/// How somebody is let in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewAccess {
    #[serde(default)]
    pub(super) access: Access,
}

/// A new VM.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewVm {
    #[schemars(regex(pattern = NAME))]
    pub(super) name: String,
    /// `alice`, or `team:ops`.
    #[schemars(regex(pattern = PRINCIPAL))]
    pub(super) owner: String,
    /// `host:port` of its sshd.
    #[schemars(example = "127.0.0.1:2201")]
    pub(super) ssh: String,
    /// The login to use whatever name the user asked for.
    pub(super) login: Option<String>,
    /// A public key line or `SHA256:...`.
    pub(super) host_key: Option<String>,
    /// From where the edge may come, as the VM sees it: `own`, `none`, or networks with commas between.
    #[schemars(example = "10.0.0.0/8")]
    pub(super) source_address: Option<String>,
    /// Its address; without one the least loaded is chosen.
    #[schemars(regex(pattern = NAME))]
    pub(super) address: Option<String>,
    /// It gets no address and is entered by name.
    #[serde(default)]
    pub(super) no_address: bool,
}

/// What is to be another way in a VM; what is left out stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VmPatch {
    /// `host:port` of its sshd.
    #[schemars(example = "127.0.0.1:2201")]
    pub(super) ssh: Option<String>,
    /// Empty: the name the user asked for.
    pub(super) login: Option<String>,
    /// Empty: the first one it shows, or that it has shown since this one was given.
    pub(super) host_key: Option<String>,
    /// `own`, `none`, or networks with commas between; empty: as `vm_leg.source_address` says.
    #[schemars(example = "10.0.0.0/8")]
    pub(super) source_address: Option<String>,
    pub(super) state: Option<VmState>,
}

/// A new name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct To {
    #[schemars(regex(pattern = NAME))]
    pub(super) to: String,
}

/// A new owner.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Transfer {
    #[schemars(regex(pattern = PRINCIPAL))]
    pub(super) to: String,
    /// How the owner before goes on entering it; without this, not.
    pub(super) keep: Option<Access>,
}

/// Where a VM is to go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Renumber {
    /// Without it the least loaded is chosen.
    #[schemars(regex(pattern = NAME))]
    pub(super) address: Option<String>,
}

/// A new pool address.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewAddress {
    #[schemars(regex(pattern = NAME))]
    pub(super) name: String,
    /// What clients dial.
    #[schemars(example = "127.0.77.1")]
    pub(super) public: IpAddr,
    /// What clients dial over IPv6.
    pub(super) public6: Option<IpAddr>,
    /// What the host sees behind a NAT.
    pub(super) private: Option<IpAddr>,
    /// Registered keys get the list of their VMs here.
    #[serde(default)]
    pub(super) lobby: bool,
}

/// What is to be another way in an address; what is left out stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddressPatch {
    pub(super) public: Option<IpAddr>,
    /// Empty: none.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(super) public6: IpPatch,
    /// Empty: none.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(super) private: IpPatch,
    pub(super) lobby: Option<bool>,
}

/// An IP that need not be there.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Option<String>")]
pub(super) enum IpPatch {
    /// Left out, or null.
    #[default]
    Same,
    /// Empty.
    None,
    /// An address.
    Is(IpAddr),
}

impl TryFrom<Option<String>> for IpPatch {
    type Error = AddrParseError;

    fn try_from(text: Option<String>) -> Result<Self, AddrParseError> {
        Ok(match text.as_deref() {
            None => Self::Same,
            Some("") => Self::None,
            Some(text) => Self::Is(text.parse()?),
        })
    }
}

impl IpPatch {
    pub(super) const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Is(ip) => Some(ip),
            Self::Same | Self::None => None,
        }
    }
}

/// A new API token.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    #[schemars(regex(pattern = NAME))]
    pub(super) name: String,
    pub(super) role: Role,
    /// Unix time from which on it is refused.
    pub(super) expires_s: Option<u64>,
}

/// A login that somebody wonders about: a key or a certificate, and an address or a name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Explain {
    /// An `authorized_keys` line, or
    pub(super) key: Option<String>,
    /// `SHA256:...`, or
    pub(super) fingerprint: Option<String>,
    /// the line of a user certificate, as in `id-cert.pub`.
    pub(super) cert: Option<String>,
    /// The name or an IP of a pool address, or
    pub(super) address: Option<String>,
    /// a VM's name, with the zone or without.
    pub(super) name: Option<String>,
    /// What stands before the @.
    pub(super) login: Option<String>,
    /// The address that the client comes from. Without it, `depends` says that it matters.
    pub(super) from: Option<IpAddr>,
}

/// Where a backup goes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Backup {
    /// An absolute path on the host that keyway runs on; nothing may be there.
    pub(super) path: String,
}

/// How the files are read again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reload {
    /// `plan` of an answer whose fleet file was held back: that one is carried out, however much it removes.
    pub(super) allow_mass_removal: Option<String>,
}
