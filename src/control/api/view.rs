//! What the API shows: one view a kind of thing, made from the registry's model or handed over by the data plane.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::registry::{
    Label, Model, Principal,
    document::{self, Access, AddressState, Origin, Role, UserKey, VmState},
};
use crate::ssh::publickey::PublicKey;

/// A user.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct User {
    /// A DNS label.
    pub name: String,
    /// In the order they were added.
    pub keys: Vec<Key>,
    /// By name.
    pub teams: Vec<String>,
    /// How many VMs the user may enter, through whatever opens a way.
    pub vms: usize,
    /// Whose it is: what is the served fleet file's goes when that no longer names it. None while the registry is
    /// away.
    pub origin: Option<Origin>,
    /// Set while it is being removed. Whoever finds it so after a removal that was cut short removes it again.
    pub going: bool,
    /// Goes up with every change.
    pub revision: u64,
}

/// A public key of a user.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Key {
    /// `SHA256:...`
    pub fingerprint: String,
    /// `ssh-ed25519` and its like.
    #[serde(rename = "type")]
    pub key_type: String,
    /// What stands behind the key.
    pub comment: String,
    /// What stands before it.
    pub options: String,
    /// All of it, as in `authorized_keys`.
    pub line: String,
    /// Whose it is, in a list of everybody's keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A team.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Team {
    /// A DNS label.
    pub name: String,
    /// By name.
    pub members: Vec<Member>,
    /// How many VMs the team owns or was given.
    pub vms: usize,
    /// Whose it is: what is the served fleet file's goes when that no longer names it. None while the registry is
    /// away.
    pub origin: Option<Origin>,
    /// Set while it is being removed. Whoever finds it so after a removal that was cut short removes it again.
    pub going: bool,
    /// Goes up with every change.
    pub revision: u64,
}

/// A user in a team.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Member {
    /// The user, by name.
    pub user: String,
    /// How the member enters the team's VMs.
    pub access: Access,
}

/// A virtual machine.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Vm {
    /// A DNS label.
    pub name: String,
    /// What certificates for it name; stays over all renames.
    pub id: String,
    /// `alice`, or `team:ops`.
    pub owner: String,
    /// The pool address it answers at; none: it is entered by name.
    pub address: Option<String>,
    /// What clients dial there.
    pub public: Option<IpAddr>,
    /// What clients dial there over IPv6.
    pub public6: Option<IpAddr>,
    /// Its name in DNS, if there is a zone and it has an address.
    pub host: Option<String>,
    /// What stands behind `ssh`: its name in DNS, else what clients dial; none if it is entered by name only.
    pub ssh_dest: Option<String>,
    /// Whether it can be entered.
    pub state: VmState,
    /// `host:port` of its sshd.
    pub ssh: String,
    /// The login to use whatever name the user asked for.
    pub login: Option<String>,
    /// Its host key if given: a public key line or `SHA256:...`.
    pub host_key: Option<String>,
    /// From where the edge may come, as the VM sees it; none: as `vm_leg.source_address` says.
    pub source_address: Option<String>,
    /// The key that it showed at its first use.
    pub pinned: Option<Pinned>,
    /// Who else may enter it.
    pub shares: Vec<Share>,
    /// Addresses it had that still lead to it for some.
    pub old_addresses: Vec<OldAddress>,
    /// Whose it is: what is the served fleet file's goes when that no longer names it. None while the registry is
    /// away.
    pub origin: Option<Origin>,
    /// Goes up with every change.
    pub revision: u64,
}

/// Somebody who may enter another's VM.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Share {
    /// `alice`, or `team:ops`.
    pub principal: String,
    /// How it is entered: at its address, or by name only.
    pub access: Access,
}

/// An address that a VM had.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct OldAddress {
    /// Its name.
    pub address: String,
    /// For whom it still leads to the VM.
    pub principals: Vec<String>,
    /// Until this Unix time.
    pub until_s: u64,
}

/// A pool address.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Address {
    /// A DNS label.
    pub name: String,
    /// What clients dial.
    pub public: IpAddr,
    /// What clients dial over IPv6.
    pub public6: Option<IpAddr>,
    /// What the host sees behind a NAT.
    pub private: Option<IpAddr>,
    /// Whether VMs are put here.
    pub state: AddressState,
    /// Whether registered keys get the list of their VMs here.
    pub lobby: bool,
    /// How many VMs answer here.
    pub vms: usize,
    /// Whose it is: what is the served fleet file's goes when that no longer names it. None while the registry is
    /// away.
    pub origin: Option<Origin>,
    /// Goes up with every change.
    pub revision: u64,
}

/// An API token, of which only a hash is kept.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Token {
    /// A DNS label.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// Unix time.
    pub created_s: u64,
    /// Unix time from which on it is refused.
    pub expires_s: Option<u64>,
    /// Goes up with every change.
    pub revision: u64,
    /// Shown once, to whoever made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// An entry of the audit log.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Audit {
    /// Later entries have greater keys.
    pub key: String,
    /// Unix time.
    pub at_s: u64,
    /// Who asked for it.
    pub actor: Actor,
    /// What, with all its parameters.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    pub command: serde_json::Value,
    /// The code of the refusal, of what was tried and not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// VMs that were given another address.
    #[schemars(with = "Vec<std::collections::BTreeMap<String, String>>")]
    pub moves: serde_json::Value,
}

/// Who did something.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Actor {
    /// `uid 0`, `token ci`.
    pub name: String,
    /// `socket`, or an IP address and port.
    pub from: String,
}

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

/// The CA whose certificates log in to VMs.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Ca {
    /// The fingerprint of the one in use; none: VMs are logged in to with a plain key.
    pub in_use: Option<String>,
    /// The one that the VMs of this registry were prepared for, as far as it knows: it was used first, or confirmed.
    pub prepared_for: Option<String>,
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
    pub(super) fn of(vm: &document::Vm) -> Option<Self> {
        let (key, _) = PublicKey::parse_line(vm.pin.as_deref()?).ok()?;
        let at_s = (vm.pinned_s > 0).then_some(vm.pinned_s);
        Some(Self { fingerprint: key.fingerprint().to_string(), line: key.to_line(), at_s })
    }
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

/// Where a key at an address leads, and why.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Explanation {
    /// What would happen.
    pub decision: Decision,
    /// Whose key it is.
    pub principal: Option<String>,
    /// Where it leads.
    pub vm: Option<String>,
    /// Which address was meant.
    pub address: Option<String>,
    /// As whom in the VM.
    pub login: Option<String>,
    /// Whether `login+vm` decided.
    pub by_name: bool,
    /// For people.
    pub reason: String,
    /// The same for programs.
    pub code: String,
    /// What was asked on the way, up to what decided.
    pub steps: Vec<Step>,
}

/// What would happen to a login.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It enters a VM.
    Vm,
    /// It gets the list of its VMs.
    Lobby,
    /// It depends on what the question does not say: where the client comes from, or more of the key than its fingerprint.
    Depends,
    /// It is not let in.
    Refused,
}

/// One question on the way to a decision.
#[derive(Clone, Debug, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Step {
    /// What was asked.
    pub step: String,
    /// What came of it.
    pub answer: String,
}

impl Key {
    pub(super) fn new(key: &UserKey, user: Option<&Label>) -> Self {
        Self {
            fingerprint: key.fingerprint.clone(),
            key_type: key.key.split(' ').next().unwrap_or_default().to_owned(),
            comment: key.comment.clone(),
            options: key.options.clone(),
            line: key.line(),
            user: user.map(ToString::to_string),
        }
    }
}

pub(super) fn user(model: &Model, name: &Label, user: &document::User, revision: u64) -> User {
    User {
        name: name.to_string(),
        keys: user.keys.iter().map(|key| Key::new(key, None)).collect(),
        teams: model.teams_of(name).keys().map(ToString::to_string).collect(),
        vms: model.visible_to(&Principal::User(name.clone())).len(),
        origin: model.known(user.origin),
        going: user.going,
        revision,
    }
}

pub(super) fn team(model: &Model, name: &Label, team: &document::Team, revision: u64) -> Team {
    let member =
        |(user, access): (&Label, &Access)| Member { user: user.to_string(), access: *access };
    Team {
        name: name.to_string(),
        members: team.members.iter().map(member).collect(),
        vms: model.visible_to(&Principal::Team(name.clone())).len(),
        origin: model.known(team.origin),
        going: team.going,
        revision,
    }
}

pub(super) fn vm(model: &Model, vm: &document::Vm, revision: u64) -> Vm {
    let at = vm.address.as_ref().and_then(|name| model.address(name));
    let share = |(principal, access): (&Principal, &Access)| Share {
        principal: principal.to_string(),
        access: *access,
    };
    let old = |old: &document::OldSlot| OldAddress {
        address: old.address.to_string(),
        principals: old.principals.iter().map(ToString::to_string).collect(),
        until_s: old.until_s,
    };
    let zone = at.and(model.limits().zone.as_ref());
    let host = zone.map(|zone| format!("{}.{zone}", vm.name));
    Vm {
        name: vm.name.to_string(),
        id: vm.id.clone(),
        owner: vm.owner.to_string(),
        address: vm.address.as_ref().map(ToString::to_string),
        public: at.map(|at| at.document.public),
        public6: at.and_then(|at| at.document.public6),
        ssh_dest: host.clone().or_else(|| at.map(|at| at.document.public.to_string())),
        host,
        state: vm.state,
        ssh: vm.ssh.clone(),
        login: vm.login.clone(),
        host_key: vm.host_key.clone(),
        source_address: vm.source_address.as_ref().map(ToString::to_string),
        pinned: Pinned::of(vm),
        shares: vm.shares.iter().map(share).collect(),
        old_addresses: vm.old.iter().map(old).collect(),
        origin: model.known(vm.origin),
        revision,
    }
}

pub(super) fn address(
    model: &Model,
    name: &Label,
    address: &document::Address,
    revision: u64,
) -> Address {
    let document::Address { public, public6, private, lobby, state, origin } = *address;
    let origin = model.known(origin);
    let vms = model.vms_at(name).map_or(0, std::collections::BTreeSet::len);
    Address {
        name: name.to_string(),
        public,
        public6,
        private,
        state,
        lobby,
        vms,
        origin,
        revision,
    }
}

pub(super) fn token(name: &Label, token: &document::Token, revision: u64) -> Token {
    Token {
        name: name.to_string(),
        role: token.role,
        created_s: token.created_s,
        expires_s: token.expires_s,
        revision,
        token: None,
    }
}
