//! What a store keeps: one document for each user, team, VM, address, node, edge and token, and one
//! for what each principal must not see again yet. JSON under short keys, so that an operator
//! can read a backup.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::name::{Label, Principal};
pub use super::node_documents::{
    Agent, DOCKER_SOCKET, Docker, JoinToken, Node, NodeState, Reached, SealedKey, SshAccess,
    SshEndpoint, fingerprint_of,
};
pub use super::origin::Origin;
use crate::route::{Carry, SourceAddress};
use crate::ssh::publickey::Fingerprint;

/// A VM over all its names and owners: drawn by chance, never given to another VM. One that is made
/// anew by the same owner at the same endpoint before its slots are free is the same VM.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Serial(pub u64);

/// A document and the store's revision that wrote it.
#[derive(Clone, Debug)]
pub struct Stored<T> {
    /// What it says.
    pub document: T,
    /// Goes up with every change.
    pub revision: u64,
}

/// Where a document stands in the store.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Key {
    /// `address/<name>`
    Address(Label),
    /// `edge/<fingerprint in hexadecimal>`
    Edge(Fingerprint),
    /// `hold/<principal>`
    Quarantine(Principal),
    /// `node/<name>`
    Node(Label),
    /// `node-state/<name>`
    NodeState(Label),
    /// `registry/this`
    Registry,
    /// `team/<name>`
    Team(Label),
    /// `token/<name>`
    Token(Label),
    /// `user/<name>`
    User(Label),
    /// `vm/<serial in hexadecimal>`
    Vm(Serial),
}

/// What keys begin with, in the order in which a store is read: what others name stands before
/// them. The audit log is none of them.
pub(super) const PREFIXES: [&str; 10] = [
    "address/",
    "node/",
    "node-state/",
    "user/",
    "team/",
    "edge/",
    "vm/",
    "hold/",
    "token/",
    "registry/",
];

/// There is one registry in a store.
const THIS: &str = "this";

/// A key of the store that is none of ours.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is no key of the registry: the store was written by another program or a newer Keyway"
)]
pub struct StrangeKey(pub String);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(name) => write!(f, "address/{name}"),
            Self::Edge(Fingerprint(hash)) => {
                f.write_str("edge/")?;
                hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Quarantine(principal) => write!(f, "hold/{principal}"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::NodeState(name) => write!(f, "node-state/{name}"),
            Self::Registry => write!(f, "registry/{THIS}"),
            Self::Team(name) => write!(f, "team/{name}"),
            Self::Token(name) => write!(f, "token/{name}"),
            Self::User(name) => write!(f, "user/{name}"),
            Self::Vm(Serial(serial)) => write!(f, "vm/{serial:016x}"),
        }
    }
}

impl FromStr for Key {
    type Err = StrangeKey;

    fn from_str(text: &str) -> Result<Self, StrangeKey> {
        let strange = || StrangeKey(text.to_owned());
        let (kind, rest) = text.split_once('/').ok_or_else(strange)?;
        let label = || Label::new(rest).map_err(|_| strange());
        Ok(match kind {
            "address" => Self::Address(label()?),
            "edge" => Self::Edge(fingerprint(rest).ok_or_else(strange)?),
            "hold" => Self::Quarantine(rest.parse().map_err(|_| strange())?),
            "node" => Self::Node(label()?),
            "node-state" => Self::NodeState(label()?),
            "registry" if rest == THIS => Self::Registry,
            "team" => Self::Team(label()?),
            "token" => Self::Token(label()?),
            "user" => Self::User(label()?),
            "vm" => Self::Vm(Serial(u64::from_str_radix(rest, 16).map_err(|_| strange())?)),
            _ => return Err(strange()),
        })
    }
}

/// 64 digits and nothing else: a key has one spelling.
fn fingerprint(text: &str) -> Option<Fingerprint> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
    bytes.try_into().ok().map(Fingerprint)
}

/// One thing of the registry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Document {
    /// See [`Address`].
    Address(Address),
    /// See [`Edge`].
    Edge(Edge),
    /// See [`QuarantinedSlot`]; never empty.
    Quarantine(Vec<QuarantinedSlot>),
    /// See [`Node`].
    Node(Box<Node>),
    /// See [`NodeState`].
    NodeState(NodeState),
    /// See [`Registry`].
    Registry(Registry),
    /// See [`Team`].
    Team(Team),
    /// See [`Token`].
    Token(Token),
    /// See [`User`].
    User(User),
    /// See [`Vm`].
    Vm(Box<Vm>),
}

impl Document {
    /// The document as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let written = match self {
            Self::Address(it) => serde_json::to_vec(it),
            Self::Edge(it) => serde_json::to_vec(it),
            Self::Quarantine(it) => serde_json::to_vec(it),
            Self::Node(it) => serde_json::to_vec(it),
            Self::NodeState(it) => serde_json::to_vec(it),
            Self::Registry(it) => serde_json::to_vec(it),
            Self::Team(it) => serde_json::to_vec(it),
            Self::Token(it) => serde_json::to_vec(it),
            Self::User(it) => serde_json::to_vec(it),
            Self::Vm(it) => serde_json::to_vec(it),
        };
        // Strings, numbers, lists and maps with string keys can always be written.
        written.unwrap_or_default()
    }

    /// Reads what stands under `key`.
    ///
    /// # Errors
    /// What serde says of it: the store was altered by hand, or written by a newer Keyway.
    pub fn from_json(key: &Key, json: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(match key {
            Key::Address(_) => Self::Address(serde_json::from_slice(json)?),
            Key::Edge(_) => Self::Edge(serde_json::from_slice(json)?),
            Key::Quarantine(_) => Self::Quarantine(serde_json::from_slice(json)?),
            Key::Node(_) => Self::Node(serde_json::from_slice(json)?),
            Key::NodeState(_) => Self::NodeState(serde_json::from_slice(json)?),
            Key::Registry => Self::Registry(serde_json::from_slice(json)?),
            Key::Team(_) => Self::Team(serde_json::from_slice(json)?),
            Key::Token(_) => Self::Token(serde_json::from_slice(json)?),
            Key::User(_) => Self::User(serde_json::from_slice(json)?),
            Key::Vm(_) => Self::Vm(serde_json::from_slice(json)?),
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_command(origin: &Origin) -> bool {
    matches!(origin, Origin::Command)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
pub(super) const fn is_auto(carry: &Carry) -> bool {
    matches!(carry, Carry::Auto)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A user's public key.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct UserKey {
    /// SHA-256 of the raw public key, as OpenSSH writes it.
    pub fingerprint: String,
    /// What stands before the key in an `authorized_keys` line, or nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub options: String,
    /// Type and base64.
    pub key: String,
    /// What stands behind it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

impl UserKey {
    /// The whole `authorized_keys` line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { options, key, comment, .. } = self;
        let parts = [options, key, comment].map(String::as_str);
        let given: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        given.join(" ")
    }
}

/// A person or a program that logs in.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// In the order they were added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<UserKey>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "is_command")]
    pub origin: Origin,
    /// The removal has begun: nobody is the user any more, by a key or a certificate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub going: bool,
}

/// How somebody may enter.
#[derive(
    Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// At the VM's address: takes a slot.
    #[default]
    Slot,
    /// As `login+vm@` at any address: takes none.
    ByName,
}

/// Users who share what is given to the team.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Team {
    /// Users.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub members: BTreeMap<Label, Access>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "is_command")]
    pub origin: Origin,
    /// The removal has begun: nobody enters anything as a member any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub going: bool,
}

/// Whether a VM can be entered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// It can.
    #[default]
    Ready,
    /// Nobody may, but it keeps its slots.
    Maint,
}

impl VmState {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Maint => "maint",
        }
    }
}

/// A second way to a VM that was given another address, for those who had the first.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct OldSlot {
    /// The address, by name.
    pub address: Label,
    /// For whom; never empty.
    pub principals: Vec<Principal>,
    /// Unix time at which it stops to lead anywhere.
    pub until_s: u64,
}

/// A virtual machine.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Vm {
    /// A DNS label, unique among VMs and addresses.
    pub name: Label,
    /// What certificates for it name (`vm:<id>`): the name it was made with, unless
    /// another VM has that id.
    pub id: String,
    /// Whose it is.
    pub owner: Principal,
    /// Who else may enter it, how.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shares: BTreeMap<Principal, Access>,
    /// The pool address it answers at. Without one it is entered by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Label>,
    /// Addresses it had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub old: Vec<OldSlot>,
    /// `host:port` of its sshd.
    pub ssh: String,
    /// The login to use whatever name the user asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Its host key if given: a public key line or `SHA256:...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// From where the edge may come, as the VM sees it: `own`, `none`, or networks with commas
    /// between; as for all VMs if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<SourceAddress>,
    /// The public key it showed at its first use: type and base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Box<str>>,
    /// When that was, as a Unix time; 0: an earlier version did not note it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pinned_s: u64,
    /// The node that it lies on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Label>,
    /// How its sessions are to be carried.
    #[serde(default, skip_serializing_if = "is_auto")]
    pub carry: Carry,
    /// Whether it can be entered.
    #[serde(default)]
    pub state: VmState,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "is_command")]
    pub origin: Origin,
}

/// Whether agents take sessions from an edge, and have it sign.
#[derive(
    Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum EdgeState {
    /// They do.
    Admitted,
    /// No more. What is removed is remembered: no process registers it again by itself.
    Removed,
}

impl EdgeState {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Removed => "removed",
        }
    }
}

/// An edge, known by its identity.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// A DNS label, unique among those that are admitted.
    pub name: Label,
    /// The public key of its identity: type and base64.
    pub key: String,
    /// Whether agents take sessions from it.
    pub state: EdgeState,
    /// Unix time since which that is so.
    pub since_s: u64,
    /// Who made it so, as in the audit log.
    pub by: String,
    /// Whose it is; of one that is removed: who removed it.
    #[serde(default, skip_serializing_if = "is_command")]
    pub origin: Origin,
}

/// Whether VMs are put at an address.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AddressState {
    /// They are.
    #[default]
    Ready,
    /// No more, and those that are here are being moved; connections are served.
    Drain,
    /// No more, and connections are refused.
    Maint,
}

impl AddressState {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// A pool address.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Address {
    /// What clients dial.
    pub public: IpAddr,
    /// What clients dial over IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public6: Option<IpAddr>,
    /// What the host sees behind a NAT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private: Option<IpAddr>,
    /// Whether every registered key gets the list of its VMs here; no VM answers here then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lobby: bool,
    /// Whether VMs are put here.
    #[serde(default)]
    pub state: AddressState,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "is_command")]
    pub origin: Origin,
}

/// A slot that pointed at a VM not long ago: it must point at no other one until then.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct QuarantinedSlot {
    /// The address, by name.
    pub address: Label,
    /// The VM it pointed at.
    pub vm: Serial,
    /// Unix time from which on another VM may stand there.
    pub until_s: u64,
    /// Where that VM's sshd was, in what its owner holds of one that was removed: the same owner's
    /// VM at the same endpoint is the same one, made anew, and may have the slot back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

impl QuarantinedSlot {
    /// Whether it is not over.
    pub(super) const fn lasts(&self, now_s: u64) -> bool {
        self.until_s > now_s
    }
}

/// What is true of the registry as a whole.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Registry {
    /// The CA that its VMs trust, as far as is known: the fingerprint of the one that was used
    /// first, or confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Unix time until which nobody is given a slot that they have not: it may have led to a VM of
    /// a registry that was lost, and somebody's resolver may remember.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_new_slots_until_s: Option<u64>,
    /// Identities of agents whose nodes were removed, the oldest first: they join no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed_agents: Vec<String>,
}

impl Registry {
    /// What is wrong if there are VMs and they were prepared for another CA than the one in use.
    #[must_use]
    pub fn other_ca(&self, in_use: &str, has_vms: bool) -> Option<String> {
        let prepared_for = self.ca.as_ref().filter(|ca| has_vms && *ca != in_use)?;
        Some(format!(
            "the VMs of this registry were prepared for another CA, {prepared_for}, than the one in use, {in_use}, and \
             may let nobody in; fix: bring that CA back (keyway restore, keyway ca import, vm_leg.user_ca), or give the \
             VMs the one in use (keyway ca show --drop-in) and run `keyway ca confirm`"
        ))
    }
}

/// What a token or a peer of the socket may do.
#[derive(
    Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Reader,
    /// Look, and change users, teams and VMs.
    Operator,
    /// Everything: addresses, tokens, the store.
    Admin,
}

/// A bearer token, of which only a hash is kept.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of the token in hexadecimal. Tokens have 256 random bits: a fast hash
    /// gives nothing away.
    pub hash: String,
    /// What its bearer may do.
    pub role: Role,
    /// Unix time.
    pub created_s: u64,
    /// Unix time from which on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u64>,
}
