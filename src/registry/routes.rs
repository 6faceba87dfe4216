//! What documents mean for the routing map: a document written becomes a change of the map, all of
//! them its contents.

use std::sync::Arc;

use super::commands::host_keys;
use super::document::{
    Access, Address, AddressState, Agent, Document, Key, Node, OldSlot, Team, User, Vm, VmState,
};
use super::draft::Written;
use super::model::Model;
use super::name::Label;
use crate::route::audience::Whole;
use crate::route::{
    self, AddressEntry, Change, Contents, Delta, KeyEntry, NodeEntry, Slot, TeamEntry, UserEntry,
    VmEntry,
};
use crate::ssh::publickey::Fingerprint;

impl Model {
    /// Everything, for the routing map.
    #[must_use]
    pub fn contents(&self) -> Contents {
        let vms = self.vms().map(|stored| &*stored.document);
        Contents {
            addresses: self.addresses().map(|(name, it, _)| address(name, &it.document)).collect(),
            users: self.users().iter().map(|(name, it)| user(name, &it.document)).collect(),
            teams: self.teams().iter().map(|(name, it)| team(name, &it.document)).collect(),
            nodes: self.nodes().iter().map(|(name, it)| node(name, &it.document)).collect(),
            vms: vms.map(entry).collect(),
        }
    }
}

impl Whole for Model {
    fn vms_on(&self, node: &str) -> Vec<VmEntry> {
        let Ok(node) = Label::new(node) else { return Vec::new() };
        let vms = Self::vms_on(self, &node).iter().filter_map(|serial| self.vm(*serial));
        vms.map(|stored| entry(&stored.document)).collect()
    }

    fn node(&self, name: &str) -> Option<NodeEntry> {
        let name = Label::new(name).ok()?;
        self.nodes().get(&name).map(|it| node(&name, &it.document))
    }

    fn addresses(&self) -> Vec<AddressEntry> {
        Self::addresses(self).map(|(name, it, _)| address(name, &it.document)).collect()
    }

    fn user(&self, name: &str) -> Option<UserEntry> {
        let name = Label::new(name).ok()?;
        self.users().get(&name).map(|it| user(&name, &it.document))
    }

    fn team(&self, name: &str) -> Option<TeamEntry> {
        let name = Label::new(name).ok()?;
        self.teams().get(&name).map(|it| team(&name, &it.document))
    }
}

/// Adds what a document means, which stands in the store after all that were added.
pub(super) fn enter(contents: &mut Contents, key: &Key, document: &Document) {
    match (key, document) {
        (Key::Address(name), Document::Address(it)) => contents.addresses.push(address(name, it)),
        (Key::User(name), Document::User(it)) => contents.users.push(user(name, it)),
        (Key::Team(name), Document::Team(it)) => contents.teams.push(team(name, it)),
        (Key::Node(name), Document::Node(it)) => contents.nodes.push(node(name, it)),
        (Key::Vm(_), Document::Vm(vm)) => contents.vms.push(entry(vm)),
        _ => {}
    }
}

/// What a change of documents means for the routing map. Of one document written twice, the
/// later one counts.
#[must_use]
pub fn delta(written: &[Written]) -> Delta {
    let mut changes = Vec::new();
    for Written { key, now, before } in written {
        match (key, now) {
            (Key::Address(name), Some(Document::Address(it))) => {
                changes.push(Change::PutAddress(address(name, it)));
            }
            (Key::Address(name), _) => changes.push(Change::RemoveAddress(name.to_string())),
            (Key::User(name), Some(Document::User(it))) => {
                changes.push(Change::PutUser(user(name, it)));
            }
            (Key::User(name), _) => changes.push(Change::RemoveUser(name.to_string())),
            (Key::Team(name), Some(Document::Team(it))) => {
                changes.push(Change::PutTeam(team(name, it)));
            }
            (Key::Team(name), _) => changes.push(Change::RemoveTeam(name.to_string())),
            (Key::Node(name), Some(Document::Node(it))) => {
                changes.push(Change::PutNode(node(name, it)));
            }
            (Key::Node(name), _) => changes.push(Change::RemoveNode(name.to_string())),
            (Key::Vm(_), now) => {
                let now = match now {
                    Some(Document::Vm(vm)) => Some(vm),
                    _ => None,
                };
                if let Some((Document::Vm(before), _)) = before
                    && now.is_none_or(|now| now.name != before.name)
                {
                    changes.push(Change::RemoveVm(before.name.to_string()));
                }
                changes.extend(now.map(|vm| Change::PutVm(entry(vm))));
            }
            // They travel with what is to be known of the front door.
            (
                Key::Edge(_)
                | Key::NodeState(_)
                | Key::Quarantine(_)
                | Key::Registry
                | Key::Token(_),
                _,
            ) => {}
        }
    }
    Delta { changes }
}

/// What leads back from a change of documents: what was before.
#[must_use]
pub fn undone(written: &[Written]) -> Delta {
    // Of one document written twice, what stood there first.
    let back = written.iter().rev().map(|Written { key, now, before }| Written {
        key: key.clone(),
        now: before.clone().map(|(document, _)| document),
        before: now.clone().map(|document| (document, 0)),
    });
    delta(&back.collect::<Vec<_>>())
}

fn address(name: &Label, it: &Address) -> AddressEntry {
    AddressEntry {
        name: name.to_string(),
        public: it.public,
        public6: it.public6,
        private: it.private,
        lobby: it.lobby,
        closed: it.state == AddressState::Maint,
    }
}

/// Of a user who goes the name alone stands, for the VMs that still say it.
fn user(name: &Label, it: &User) -> UserEntry {
    let keys = it.keys.iter().filter(|_| !it.going).filter_map(|key| {
        let Fingerprint(fingerprint) = key.fingerprint.parse().ok()?;
        let options = (!key.options.is_empty()).then(|| Arc::from(key.options.as_str()));
        Some(KeyEntry { fingerprint, options })
    });
    UserEntry { name: name.to_string(), keys: keys.collect(), closed: it.going }
}

/// A team that goes has no members, whoever its document still names.
fn team(name: &Label, it: &Team) -> TeamEntry {
    let with = |wanted: Access| {
        let members = it.members.iter().filter(|(_, access)| !it.going && **access == wanted);
        members.map(|(user, _)| user.to_string()).collect()
    };
    TeamEntry {
        name: name.to_string(),
        members: with(Access::Slot),
        members_by_name: with(Access::ByName),
    }
}

fn node(name: &Label, it: &Node) -> NodeEntry {
    let agent = it.agent.as_ref().and_then(|Agent { at, key }| {
        let Fingerprint(key) = key.as_ref()?.parse().ok()?;
        Some(route::Agent { at: *at, key })
    });
    NodeEntry { name: name.to_string(), agent, trusted: it.trusted }
}

fn entry(vm: &Vm) -> VmEntry {
    let mut slots = Vec::new();
    if let Some(address) = &vm.address {
        slots.extend(vm.entitled().map(|principal| Slot {
            principal: principal.to_string(),
            address: address.to_string(),
        }));
    }
    for OldSlot { address, principals, .. } in &vm.old {
        slots.extend(principals.iter().map(|principal| Slot {
            principal: principal.to_string(),
            address: address.to_string(),
        }));
    }
    let everybody = std::iter::once((&vm.owner, Access::Slot))
        .chain(vm.shares.iter().map(|(principal, access)| (principal, *access)));
    let slotless = everybody.filter(|(principal, access)| {
        let now = *access == Access::Slot && vm.address.is_some();
        !now && vm.old.iter().all(|old| !old.principals.contains(principal))
    });
    let by_name = slotless.map(|(principal, _)| principal.to_string()).collect();
    VmEntry { by_name, vm: routed(vm), slots }
}

/// A VM as the data plane needs it.
fn routed(vm: &Vm) -> route::Vm {
    route::Vm {
        id: vm.id.clone(),
        name: vm.name.to_string(),
        owner: vm.owner.to_string(),
        endpoint: vm.ssh.clone(),
        login: vm.login.clone(),
        host_key: host_keys::wanted(vm),
        source_address: vm.source_address.clone(),
        address: vm.address.as_ref().map(ToString::to_string),
        closed: vm.state == VmState::Maint,
        carry: vm.carry,
        node: vm.node.as_ref().map(Label::shared),
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
