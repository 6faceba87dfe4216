//! A whole fleet as one text: what should be, or what is. In the shape of `fleet.toml`.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::Access;
use super::model::Model;
use super::name::{Label, Principal};

/// Everything but tokens, states and what is on its way out.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// Pool addresses.
    #[serde(default, alias = "address", skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<FleetAddress>,
    /// Users.
    #[serde(default, alias = "user", skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<FleetUser>,
    /// Teams.
    #[serde(default, alias = "team", skip_serializing_if = "Vec::is_empty")]
    pub teams: Vec<FleetTeam>,
    /// VMs.
    #[serde(default, alias = "vm", skip_serializing_if = "Vec::is_empty")]
    pub vms: Vec<FleetVm>,
}

/// A pool address.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FleetAddress {
    /// Unique among addresses and VMs.
    #[schemars(with = "String")]
    pub name: Label,
    /// What clients dial.
    pub public: IpAddr,
    /// What clients dial over IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public6: Option<IpAddr>,
    /// What the host sees behind a NAT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private: Option<IpAddr>,
    /// Whether registered keys get the list of their VMs here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lobby: bool,
}

/// A user.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FleetUser {
    /// Unique among users.
    #[schemars(with = "String")]
    pub name: Label,
    /// `authorized_keys` lines: these and no others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

/// A team.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FleetTeam {
    /// Unique among teams.
    #[schemars(with = "String")]
    pub name: Label,
    /// Users who enter the team's VMs at their addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub members: Vec<Label>,
    /// Users who enter them by name only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub members_by_name: Vec<Label>,
}

/// A VM.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FleetVm {
    /// Unique among VMs and addresses.
    #[schemars(with = "String")]
    pub name: Label,
    /// `alice`, or `team:ops`.
    #[schemars(with = "String")]
    pub owner: Principal,
    /// `host:port` of its sshd.
    pub ssh: String,
    /// The login to use whatever name the user asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Its host key: a public key line or `SHA256:...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// Its address. Without one a new VM gets the least loaded, and one that stands stays where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub address: Option<Label>,
    /// It has no address and is entered by name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_address: bool,
    /// Who else enters it at its address.
    #[serde(default, rename = "share", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub shares: Vec<Principal>,
    /// Who else enters it by name only.
    #[serde(default, rename = "share_by_name", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub shares_by_name: Vec<Principal>,
}

impl Fleet {
    /// What stands, each kind by name.
    #[must_use]
    pub fn of(model: &Model) -> Self {
        let addresses = model.addresses().map(|(name, stored, _)| FleetAddress {
            name: name.clone(),
            public: stored.document.public,
            public6: stored.document.public6,
            private: stored.document.private,
            lobby: stored.document.lobby,
        });
        let users = model.users().iter().map(|(name, stored)| FleetUser {
            name: name.clone(),
            keys: stored.document.keys.iter().map(super::document::UserKey::line).collect(),
        });
        let teams = model.teams().iter().map(|(name, stored)| FleetTeam {
            name: name.clone(),
            members: having(&stored.document.members, Access::Slot),
            members_by_name: having(&stored.document.members, Access::ByName),
        });
        let vms = model.vm_names().values().filter_map(|serial| {
            let vm = &model.vm(*serial)?.document;
            Some(FleetVm {
                name: vm.name.clone(),
                owner: vm.owner.clone(),
                ssh: vm.ssh.clone(),
                login: vm.login.clone(),
                host_key: vm.host_key.clone(),
                address: vm.address.clone(),
                no_address: vm.address.is_none(),
                shares: having(&vm.shares, Access::Slot),
                shares_by_name: having(&vm.shares, Access::ByName),
            })
        });
        Self {
            addresses: addresses.collect(),
            users: users.collect(),
            teams: teams.collect(),
            vms: vms.collect(),
        }
    }
}

/// Who of them has this kind of access.
fn having<T: Clone>(all: &std::collections::BTreeMap<T, Access>, wanted: Access) -> Vec<T> {
    let those = all.iter().filter(|(_, access)| **access == wanted);
    those.map(|(name, _)| name.clone()).collect()
}
