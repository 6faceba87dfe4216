//! What a routing map says of the registry it was made of: a model to show while the store is away.
//!
//! Never one to change: what no route needs is not in it. Keys are known by their fingerprints,
//! host keys stand as pinned, whoever gave them, and tokens, quarantined slots, and the addresses
//! that VMs had before are not there at all.

use super::document::{
    Access, Address, AddressState, Agent, Document, Key, Node, Origin, Serial, Team, User, UserKey,
    Vm, VmState,
};
use super::model::{Limits, Model};
use super::name::{Label, Principal};
use crate::route::{
    AddressEntry, Contents, KeyEntry, NodeEntry, Pin, TeamEntry, UserEntry, VmEntry,
};
use crate::ssh::publickey::{Fingerprint, PublicKey};

impl Model {
    /// What is known of the registry by its routes at `revision`.
    #[must_use]
    pub fn of_routes(limits: Limits, revision: u64, contents: Contents) -> Self {
        let Contents { addresses, users, teams, nodes, vms } = contents;
        let mut model = Self::new(limits);
        // Names of a routing map are labels; whatever else is not is none of the registry's.
        let addresses = addresses.into_iter().filter_map(address);
        let users = users.into_iter().filter_map(user);
        let teams = teams.into_iter().filter_map(team);
        let nodes = nodes.into_iter().filter_map(node);
        let vms = (1..).map(Serial).zip(vms).filter_map(|(serial, entry)| vm(serial, entry));
        for (key, document) in addresses.chain(users).chain(teams).chain(nodes).chain(vms) {
            model.put(&key, Some(document), revision);
        }
        model.at_revision(revision);
        model.of_routes = true;
        model
    }

    /// Whose a thing of this model is; routes do not say.
    #[must_use]
    pub fn known(&self, origin: Origin) -> Option<Origin> {
        (!self.of_routes).then_some(origin)
    }
}

fn address(entry: AddressEntry) -> Option<(Key, Document)> {
    let AddressEntry { name, public, public6, private, lobby, closed } = entry;
    let state = if closed { AddressState::Maint } else { AddressState::Ready };
    let origin = Origin::Command;
    let document = Address { public, public6, private, lobby, state, origin };
    Some((Key::Address(label(&name)?), Document::Address(document)))
}

fn user(entry: UserEntry) -> Option<(Key, Document)> {
    let UserEntry { name, keys, closed: going } = entry;
    let keys = keys.into_iter().map(|KeyEntry { fingerprint, options }| UserKey {
        fingerprint: Fingerprint(fingerprint).to_string(),
        options: options.as_deref().unwrap_or_default().to_owned(),
        key: String::new(),
        comment: String::new(),
    });
    let document = User { keys: keys.collect(), origin: Origin::Command, going };
    Some((Key::User(label(&name)?), Document::User(document)))
}

fn team(entry: TeamEntry) -> Option<(Key, Document)> {
    let TeamEntry { name, members, members_by_name } = entry;
    let of = |access| move |member: String| Some((label(&member)?, access));
    let members = members.into_iter().filter_map(of(Access::Slot));
    let by_name = members_by_name.into_iter().filter_map(of(Access::ByName));
    let document =
        Team { members: members.chain(by_name).collect(), origin: Origin::Command, going: false };
    Some((Key::Team(label(&name)?), Document::Team(document)))
}

fn node(entry: NodeEntry) -> Option<(Key, Document)> {
    let NodeEntry { name, agent, trusted } = entry;
    let agent = agent.map(|agent| {
        let key = Some(Fingerprint(agent.key).to_string());
        Agent { at: agent.at, key }
    });
    let document = Node { agent, trusted, ..Node::default() };
    Some((Key::Node(label(&name)?), Document::Node(Box::new(document))))
}

fn vm(serial: Serial, entry: VmEntry) -> Option<(Key, Document)> {
    let VmEntry { vm, slots, by_name } = entry;
    let owner: Principal = vm.owner.parse().ok()?;
    let slots = slots.into_iter().map(|slot| (slot.principal, Access::Slot));
    let everybody = slots.chain(by_name.into_iter().map(|name| (name, Access::ByName)));
    let shares = everybody
        .filter_map(|(name, access)| Some((name.parse::<Principal>().ok()?, access)))
        .filter(|(principal, _)| *principal != owner)
        .collect();
    let (host_key, pin) = match vm.host_key {
        // Nobody has seen but a fingerprint: it was given.
        Some(Pin::Fingerprint(hash)) => (Some(Fingerprint(hash).to_string()), None),
        Some(pin) => (None, line(&pin)),
        None => (None, None),
    };
    let document = Vm {
        name: label(&vm.name)?,
        id: vm.id,
        owner,
        shares,
        address: vm.address.as_deref().and_then(label),
        old: Vec::new(),
        ssh: vm.endpoint,
        login: vm.login,
        host_key,
        source_address: vm.source_address,
        pin,
        pinned_s: 0,
        node: vm.node.as_deref().and_then(label),
        carry: vm.carry,
        state: if vm.closed { VmState::Maint } else { VmState::Ready },
        origin: Origin::Command,
    };
    Some((Key::Vm(serial), Document::Vm(Box::new(document))))
}

fn label(name: &str) -> Option<Label> {
    Label::new(name).ok()
}

fn line(pin: &Pin) -> Option<Box<str>> {
    let key = PublicKey::parse(&pin.key()?).ok()?;
    Some(key.to_line().into_boxed_str())
}

#[cfg(test)]
#[path = "stand_in_tests.rs"]
mod tests;
