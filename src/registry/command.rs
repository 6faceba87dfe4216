//! What can be asked of the registry.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::document::{Access, AddressState, NodeState, Origin, Role, Serial, VmState, is_auto};
use super::name::{Label, Principal};
pub use super::noted::Noted;
pub use super::settings::{NodeSettings, VmSettings};
use crate::route::Carry;

/// One change, carried out whole or not at all; what goes and is too large for that goes in
/// parts, access first.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// A new user.
    UserAdd {
        /// Unique among users.
        name: Label,
        /// `authorized_keys` lines.
        #[serde(default)]
        keys: Vec<String>,
    },
    /// A user goes, out of all teams and shares. VMs must have gone before.
    UserRemove {
        /// The user's name.
        name: Label,
    },
    /// A key for a user.
    KeyAdd {
        /// Whose.
        user: Label,
        /// An `authorized_keys` line.
        line: String,
    },
    /// Another comment or other options for a key that the user has.
    KeySet {
        /// Whose.
        user: Label,
        /// `SHA256:...`
        fingerprint: String,
        /// An `authorized_keys` line.
        line: String,
    },
    /// A key goes.
    KeyRemove {
        /// Whose.
        user: Label,
        /// `SHA256:...`
        fingerprint: String,
    },
    /// A new team.
    TeamAdd {
        /// Unique among teams.
        name: Label,
        /// Users.
        #[serde(default)]
        members: Vec<Label>,
    },
    /// A team goes, out of all shares. Its VMs must have gone before.
    TeamRemove {
        /// The team's name.
        name: Label,
    },
    /// A user becomes a member, or gets the other kind of access.
    TeamJoin {
        /// Of which team.
        team: Label,
        /// The user, by name.
        user: Label,
        /// How the member enters the team's VMs.
        #[serde(default)]
        access: Access,
    },
    /// A member leaves.
    TeamLeave {
        /// Which team.
        team: Label,
        /// The user, by name.
        user: Label,
    },
    /// A new VM.
    VmAdd(NewVm),
    /// A VM goes.
    VmRemove {
        /// The VM's name.
        name: Label,
    },
    /// Somebody else may enter a VM, or may in the other way.
    VmShare {
        /// The VM's name.
        name: Label,
        /// The user or team that it is shared with.
        with: Principal,
        /// How it may be entered: at its address, or by name only.
        #[serde(default)]
        access: Access,
    },
    /// Somebody may no longer.
    VmUnshare {
        /// The VM's name.
        name: Label,
        /// The user or team that it is shared with.
        with: Principal,
    },
    /// Another name; whoever is inside stays there.
    VmRename {
        /// The VM's name.
        name: Label,
        /// The new name.
        to: Label,
    },
    /// Another owner.
    VmTransfer {
        /// The VM's name.
        name: Label,
        /// The new owner.
        to: Principal,
        /// How the one before may go on entering it; without this, not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep: Option<Access>,
    },
    /// Other properties; what is not given stays.
    VmSet {
        /// The VM's name.
        name: Label,
        /// What is set; the rest stays.
        #[serde(flatten)]
        set: VmSettings,
    },
    /// A VM has shown its host key, and no other counts from now on. The edge's own; nothing
    /// happens if it is known.
    VmPin {
        /// Its id.
        id: String,
        /// A public key line.
        key: String,
        /// The VM as it was when it was dialled. Entries of the audit log may be older than this.
        #[serde(default)]
        dialled: Dialled,
    },
    /// The key that a VM showed first is forgotten.
    VmUnpin {
        /// The VM's name.
        name: Label,
    },
    /// Another address; the old one leads there until the quarantine is over.
    VmRenumber {
        /// The VM's name.
        name: Label,
        /// Where; without it the least loaded address is chosen.
        #[serde(default)]
        to: Placement,
    },
    /// A new pool address.
    AddressAdd {
        /// Unique among addresses and VMs.
        name: Label,
        /// What it is.
        #[serde(flatten)]
        address: NewAddress,
    },
    /// A pool address goes. Nothing may stand there or have stood there lately.
    AddressRemove {
        /// The address's name.
        name: Label,
    },
    /// Other properties; what is not given stays.
    AddressSet {
        /// The address's name.
        name: Label,
        /// What it is from now on.
        #[serde(flatten)]
        address: NewAddress,
    },
    /// Takes VMs, takes none, or refuses connections. Draining moves the VMs away with
    /// [`Command::VmRenumber`].
    AddressState {
        /// The address's name.
        name: Label,
        /// Its state from now on.
        state: AddressState,
    },
    /// A new node.
    NodeAdd {
        /// Unique among nodes.
        name: Label,
        /// What it is.
        #[serde(flatten)]
        set: NodeSettings,
    },
    /// A node goes. No VM may lie there.
    NodeRemove {
        /// The node's name.
        name: Label,
    },
    /// Other properties; what is not given stays.
    NodeSet {
        /// The node's name.
        name: Label,
        /// What is set; the rest stays.
        #[serde(flatten)]
        set: NodeSettings,
    },
    /// Somebody has confirmed the host key of a node that had none, and its Docker was reached.
    NodePin {
        /// The node's name.
        name: Label,
        /// A public key line.
        key: String,
    },
    /// How a node was found. The front door's own.
    NodeFound {
        /// The node's name.
        name: Label,
        /// From now on.
        state: NodeState,
    },
    /// Agents take sessions from an edge from now on, one that was removed too.
    EdgeAdd {
        /// Unique among edges that are admitted.
        name: Label,
        /// Its identity: an Ed25519 public key line.
        identity: String,
    },
    /// A process has an identity of which nothing is known. The edge's own; nothing happens if it
    /// is known, as one that was removed too.
    EdgeRegister {
        /// What to call it, with a number behind it where another edge is called so.
        name: Label,
        /// An Ed25519 public key line.
        identity: String,
    },
    /// Agents take no more sessions from an edge, which is remembered.
    EdgeRemove {
        /// The edge's name.
        name: Label,
        /// Its identity, where nobody may know it here: what was removed elsewhere is so here too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        identity: Option<String>,
    },
    /// A token with which the node's agent joins; the one before is good for nothing any more.
    NodeToken {
        /// The node's name.
        name: Label,
        /// SHA-256 of the token in hexadecimal.
        hash: String,
        /// Unix time at which it ends.
        expires_s: u64,
    },
    /// An agent has shown the token, and that it holds the identity: it is the node's from now on.
    NodeJoin {
        /// The node's name.
        name: Label,
        /// SHA-256 of the token in hexadecimal.
        hash: String,
        /// `SHA256:...` of the identity.
        key: String,
    },
    /// A new API token.
    TokenAdd {
        /// What to call it.
        name: Label,
        /// SHA-256 of the token in hexadecimal.
        hash: String,
        /// What its bearer may do.
        role: Role,
        /// Unix time at which it ends.
        #[serde(default)]
        expires_s: Option<u64>,
    },
    /// A token ends.
    TokenRemove {
        /// The token's name.
        name: Label,
    },
    /// A thing becomes the fleet file's, which keeps it from then on and takes it away once it no
    /// longer names it. Nothing else of it changes, and nobody's session ends.
    TakeOver {
        /// The thing that becomes the file's.
        #[serde(flatten)]
        thing: Thing,
    },
    /// What time alone changes: second ways end, quarantines are over.
    Sweep,
    /// Ways that another history of this registry had, before a backup was restored: they lead to
    /// no other VM soon.
    #[serde(rename = "remember")]
    QuarantineWays {
        /// Where to.
        ways: Vec<Way>,
    },
    /// Somebody known wanted this and was refused: nothing changes but the audit log.
    Refused {
        /// The command that was refused.
        of: Box<Command>,
        /// The code of the refusal.
        code: String,
    },
    /// Nobody is given a slot that they have not before a time: too little is known of a
    /// registry that was lost.
    Close {
        /// Unix time.
        until_s: u64,
    },
    /// The VMs trust this CA from now on.
    CaConfirm {
        /// `SHA256:...`
        fingerprint: String,
    },
    /// Something was done beside the registry: nothing changes but the audit log.
    Note {
        /// The event.
        what: Noted,
        /// To what.
        about: String,
    },
}

/// Something that a fleet names.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "lowercase")]
pub enum Thing {
    /// A pool address.
    Address(Label),
    /// A user.
    User(Label),
    /// A team.
    Team(Label),
    /// A node.
    Node(Label),
    /// A VM.
    Vm(Label),
}

/// What was dialled when a VM showed its host key. Between that and the pin the VM's id may have
/// become another VM's.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Dialled {
    /// The owner's name, `team:` before a team's.
    pub owner: String,
    /// `host:port`.
    pub endpoint: String,
}

/// A way that there was.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Way {
    /// Whose.
    pub principal: Principal,
    /// From where.
    pub address: Label,
    /// The VM it led to.
    pub vm: Serial,
    /// Unix time from which on another VM may stand there, if that is known; else the
    /// quarantine begins now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_s: Option<u64>,
    /// As in [`QuarantinedSlot`](super::document::QuarantinedSlot).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// A VM to be.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct NewVm {
    /// A DNS label, unique among VMs and addresses.
    pub name: Label,
    /// Whose.
    pub owner: Principal,
    /// `host:port` of its sshd.
    pub ssh: String,
    /// The login to use whatever name the user asked for.
    #[serde(default)]
    pub login: Option<String>,
    /// Its host key: a public key line or `SHA256:...`.
    #[serde(default)]
    pub host_key: Option<String>,
    /// From where the edge may come, as the VM sees it: `own`, `none`, or networks.
    #[serde(default)]
    pub source_address: Option<String>,
    /// Its address.
    #[serde(default)]
    pub placement: Placement,
    /// What certificates for it name, where that is not its name: it was made elsewhere,
    /// and renamed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Whether it can be entered.
    #[serde(default)]
    pub state: VmState,
    /// The node that it lies on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Label>,
    /// How its sessions are to be carried.
    #[serde(default, skip_serializing_if = "is_auto")]
    pub carry: Carry,
}

impl NewVm {
    /// A VM of which nothing else is said.
    #[must_use]
    pub const fn new(name: Label, owner: Principal, ssh: String) -> Self {
        Self {
            name,
            owner,
            ssh,
            login: None,
            host_key: None,
            source_address: None,
            placement: Placement::Chosen,
            id: None,
            state: VmState::Ready,
            node: None,
            carry: Carry::Auto,
        }
    }
}

/// Where a VM is put.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// At the least loaded address that is free for all who may enter.
    #[default]
    Chosen,
    /// Here.
    At(Label),
    /// Nowhere: it is entered by name.
    Nowhere,
}

/// What can be set of a pool address.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct NewAddress {
    /// What clients dial. Needed for a new one.
    #[serde(default)]
    pub public: Option<IpAddr>,
    /// What clients dial over IPv6.
    #[serde(default)]
    pub public6: Option<IpAddr>,
    /// What the host sees behind a NAT.
    #[serde(default)]
    pub private: Option<IpAddr>,
    /// Whether registered keys get the list of their VMs here.
    #[serde(default)]
    pub lobby: Option<bool>,
    /// It has no `public6` any more, if none is given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_public6: bool,
    /// It has no `private` any more, if none is given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_private: bool,
}

/// How a command is carried out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// Give VMs other addresses where the command needs it.
    pub renumber: bool,
    /// Whose what is made becomes. Whose something is that stands changes by
    /// [`Command::TakeOver`] alone.
    pub origin: Origin,
    /// It is a step of a plan: a fleet says so, and nobody who means this very thing.
    pub planned: bool,
}
