//! VMs: who owns them, who may enter them, and where.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::host_key::Pinned;
use super::node::Carried;
use super::pattern::{NAME, PRINCIPAL};
use crate::registry::document::{self, Access, Origin, VmState};
use crate::registry::{Model, Principal};
use crate::route::Carry;

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
    /// What stands behind `ssh`: its name in DNS, else what clients dial; none if it is
    /// entered by name only.
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
    /// The node that it lies on.
    pub node: Option<String>,
    /// How its sessions are to be carried...
    pub carry: Carry,
    /// ...and how they are, then.
    pub carried: Carried,
    /// The key that it showed at its first use.
    pub pinned: Option<Pinned>,
    /// Who else may enter it.
    pub shares: Vec<Share>,
    /// Addresses it had that still lead to it for some.
    pub old_addresses: Vec<OldAddress>,
    /// Whose it is: what is the served fleet file's goes when that no longer names it. None while
    /// the registry is away.
    pub origin: Option<Origin>,
    /// Goes up with every change.
    pub revision: u64,
}

impl Vm {
    /// As the registry has it.
    pub(in super::super) fn of(model: &Model, vm: &document::Vm, revision: u64) -> Self {
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
        Self {
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
            node: vm.node.as_ref().map(ToString::to_string),
            carry: vm.carry,
            carried: Carried::of(model, vm),
            pinned: Pinned::of(vm),
            shares: vm.shares.iter().map(share).collect(),
            old_addresses: vm.old.iter().map(old).collect(),
            origin: model.known(vm.origin),
            revision,
        }
    }
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

/// A new VM.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NewVm {
    #[schemars(regex(pattern = NAME))]
    pub(in super::super) name: String,
    /// `alice`, or `team:ops`.
    #[schemars(regex(pattern = PRINCIPAL))]
    pub(in super::super) owner: String,
    /// `host:port` of its sshd.
    #[schemars(example = "127.0.0.1:2201")]
    pub(in super::super) ssh: String,
    /// The login to use whatever name the user asked for.
    pub(in super::super) login: Option<String>,
    /// A public key line or `SHA256:...`.
    pub(in super::super) host_key: Option<String>,
    /// From where the edge may come, as the VM sees it: `own`, `none`, or networks
    /// with commas between.
    #[schemars(example = "10.0.0.0/8")]
    pub(in super::super) source_address: Option<String>,
    /// Its address; without one the least loaded is chosen.
    #[schemars(regex(pattern = NAME))]
    pub(in super::super) address: Option<String>,
    /// It gets no address and is entered by name.
    #[serde(default)]
    pub(in super::super) no_address: bool,
    /// The node that it lies on.
    #[schemars(regex(pattern = NAME))]
    pub(in super::super) node: Option<String>,
    /// How its sessions are to be carried.
    #[serde(default)]
    pub(in super::super) carry: Carry,
}

/// What is to be another way in a VM; what is left out stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct VmPatch {
    /// `host:port` of its sshd.
    #[schemars(example = "127.0.0.1:2201")]
    pub(in super::super) ssh: Option<String>,
    /// Empty: the name the user asked for.
    pub(in super::super) login: Option<String>,
    /// Empty: the first one it shows, or that it has shown since this one was given.
    pub(in super::super) host_key: Option<String>,
    /// `own`, `none`, or networks with commas between; empty: as `vm_leg.source_address` says.
    #[schemars(example = "10.0.0.0/8")]
    pub(in super::super) source_address: Option<String>,
    pub(in super::super) state: Option<VmState>,
    /// The node that it lies on; empty: none.
    pub(in super::super) node: Option<String>,
    /// How its sessions are to be carried.
    pub(in super::super) carry: Option<Carry>,
}

/// A new name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct To {
    #[schemars(regex(pattern = NAME))]
    pub(in super::super) to: String,
}

/// A new owner.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Transfer {
    #[schemars(regex(pattern = PRINCIPAL))]
    pub(in super::super) to: String,
    /// How the owner before goes on entering it; without this, not.
    pub(in super::super) keep: Option<Access>,
}

/// Where a VM is to go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Renumber {
    /// Without it the least loaded is chosen.
    #[schemars(regex(pattern = NAME))]
    pub(in super::super) address: Option<String>,
}
