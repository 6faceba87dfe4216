//! A whole fleet as one text: what should be, or what is. In the shape of `fleet.toml`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::{
    Access, Address, AddressState, Agent, DOCKER_SOCKET, Document, Edge, EdgeState, Key, Node,
    Origin, Serial, Stored, Team, User, Vm, VmState, is_auto,
};
pub use super::fleet_node::FleetNode;
use super::model::Model;
use super::name::{Label, Principal};
use super::values::{agent_key, parse_key};
use super::{object, routes};
use crate::plain_text::is_unsafe;
use crate::route::{Carry, Contents};

/// Everything but tokens and what is on its way out.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// Pool addresses.
    #[serde(
        default,
        alias = "address",
        deserialize_with = "object::all",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub addresses: Vec<FleetAddress>,
    /// Users.
    #[serde(
        default,
        alias = "user",
        deserialize_with = "object::all",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub users: Vec<FleetUser>,
    /// Teams.
    #[serde(
        default,
        alias = "team",
        deserialize_with = "object::all",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub teams: Vec<FleetTeam>,
    /// Hosts that hold VMs.
    #[serde(
        default,
        alias = "node",
        deserialize_with = "object::all",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub nodes: Vec<FleetNode>,
    /// Edges, by their identities.
    #[serde(
        default,
        alias = "edge",
        deserialize_with = "object::all",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub edges: Vec<FleetEdge>,
    /// VMs.
    #[serde(
        default,
        alias = "vm",
        deserialize_with = "object::all",
        skip_serializing_if = "Vec::is_empty"
    )]
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
    /// Whether VMs are put here. Absent: as it is; of a new one `ready`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<AddressState>,
    /// Whose it is; what a served file names is the file's whatever this says. Absent:
    /// whose it is already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
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
    /// Whose it is; what a served file names is the file's whatever this says. Absent:
    /// whose it is already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
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
    /// Whose it is; what a served file names is the file's whatever this says. Absent:
    /// whose it is already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// An edge, by its identity.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FleetEdge {
    /// Unique among those that are not removed.
    #[schemars(with = "String")]
    pub name: Label,
    /// Its identity: an Ed25519 public key line.
    pub identity: String,
    /// It was removed. Only a command brings it back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// Whose it is; what a served file names is the file's whatever this says. Absent:
    /// whose it is already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
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
    /// From where the edge may come, as the VM sees it: `own`, `none`, or networks
    /// with commas between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// Its address. Without one a new VM gets the least loaded, and one that stands
    /// stays where it is.
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
    /// The node that it lies on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub node: Option<Label>,
    /// How its sessions are to be carried.
    #[serde(default, skip_serializing_if = "is_auto")]
    pub carry: Carry,
    /// Which VM it is, whatever it is called: what certificates for it name. Absent: the one of
    /// this name; a new one has its name as its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Whether it can be entered. Absent: as it is; a new one can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<VmState>,
    /// Whose it is; what a served file names is the file's whatever this says. Absent:
    /// whose it is already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
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
            state: Some(stored.document.state).filter(|state| *state != AddressState::Ready),
            origin: told(stored.document.origin),
        });
        let users = model.users().iter().map(|(name, stored)| FleetUser {
            name: name.clone(),
            keys: stored.document.keys.iter().map(super::document::UserKey::line).collect(),
            origin: told(stored.document.origin),
        });
        let teams = model.teams().iter().map(|(name, stored)| FleetTeam {
            name: name.clone(),
            members: having(&stored.document.members, Access::Slot),
            members_by_name: having(&stored.document.members, Access::ByName),
            origin: told(stored.document.origin),
        });
        let nodes = model.nodes().iter().map(|(name, stored)| node(name, &stored.document));
        let mut edges: Vec<FleetEdge> = model.edges().values().map(edge).collect();
        edges.sort_by(|one, other| (&one.name, one.removed).cmp(&(&other.name, other.removed)));
        let vms = model.vm_names().values().filter_map(|serial| {
            let vm = &model.vm(*serial)?.document;
            Some(FleetVm {
                name: vm.name.clone(),
                owner: vm.owner.clone(),
                ssh: vm.ssh.clone(),
                login: vm.login.clone(),
                host_key: vm.host_key.clone(),
                source_address: vm.source_address.as_ref().map(ToString::to_string),
                address: vm.address.clone(),
                no_address: vm.address.is_none(),
                shares: having(&vm.shares, Access::Slot),
                shares_by_name: having(&vm.shares, Access::ByName),
                node: vm.node.clone(),
                carry: vm.carry,
                id: Some(vm.id.clone()).filter(|id| id != vm.name.as_str()),
                state: Some(vm.state).filter(|state| *state != VmState::Ready),
                origin: told(vm.origin),
            })
        });
        Self {
            addresses: addresses.collect(),
            users: users.collect(),
            teams: teams.collect(),
            nodes: nodes.collect(),
            edges,
            vms: vms.collect(),
        }
    }

    /// What it says, for a routing map of its own. What cannot be read in it leads nowhere.
    #[must_use]
    pub fn contents(&self) -> Contents {
        let addresses = self.addresses.iter().map(|it| {
            let FleetAddress { name, public, public6, private, lobby, state, .. } = it.clone();
            let (state, origin) = (state.unwrap_or_default(), Origin::Fleet);
            let address = Address { public, public6, private, lobby, state, origin };
            (Key::Address(name), Document::Address(address))
        });
        let users = self.users.iter().map(|FleetUser { name, keys, .. }| {
            let keys = keys.iter().filter_map(|line| parse_key(line).ok()).collect();
            (
                Key::User(name.clone()),
                Document::User(User { keys, origin: Origin::Fleet, going: false }),
            )
        });
        let teams =
            self.teams.iter().map(|FleetTeam { name, members, members_by_name, .. }| {
                let members = accesses(members, members_by_name);
                (
                    Key::Team(name.clone()),
                    Document::Team(Team { members, origin: Origin::Fleet, going: false }),
                )
            });
        let nodes =
            self.nodes.iter().map(|FleetNode { name, agent, agent_key: key, trusted, .. }| {
                let key = key.as_deref().and_then(|key| agent_key(key).ok());
                let key = key.map(|key| key.to_string());
                let agent = agent.map(|at| Agent { at, key });
                let node = Node { agent, trusted: *trusted, ..Node::default() };
                (Key::Node(name.clone()), Document::Node(Box::new(node)))
            });
        let vms = self.vms.iter().map(|vm| {
            let document = Vm {
                name: vm.name.clone(),
                id: vm.id.clone().unwrap_or_else(|| vm.name.to_string()),
                owner: vm.owner.clone(),
                shares: accesses(&vm.shares, &vm.shares_by_name),
                address: vm.address.clone().filter(|_| !vm.no_address),
                old: Vec::new(),
                ssh: vm.ssh.clone(),
                login: vm.login.clone(),
                host_key: vm.host_key.clone(),
                source_address: vm.source_address.as_ref().and_then(|text| text.parse().ok()),
                pin: None,
                pinned_s: 0,
                node: vm.node.clone(),
                carry: vm.carry,
                state: vm.state.unwrap_or_default(),
                origin: Origin::Fleet,
            };
            (Key::Vm(Serial(0)), Document::Vm(Box::new(document)))
        });
        let mut contents = Contents::default();
        for (key, document) in addresses.chain(users).chain(teams).chain(nodes).chain(vms) {
            routes::enter(&mut contents, &key, &document);
        }
        contents
    }

    /// How many things there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.addresses.len()
            + self.users.len()
            + self.teams.len()
            + self.nodes.len()
            + self.edges.len()
            + self.vms.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As a fleet file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut file = String::new();
        for FleetAddress { name, public, public6, private, lobby, state, origin } in &self.addresses
        {
            file.push_str("[[address]]\n");
            put_text(&mut file, "name", name);
            put_text(&mut file, "public", public);
            put_some(&mut file, "public6", public6.as_ref());
            put_some(&mut file, "private", private.as_ref());
            put_flag(&mut file, "lobby", *lobby);
            put_some(&mut file, "state", state.map(AddressState::word).as_ref());
            put_some(&mut file, "origin", origin.map(Origin::word).as_ref());
        }
        for FleetUser { name, keys, origin } in &self.users {
            file.push_str("[[user]]\n");
            put_text(&mut file, "name", name);
            put_list(&mut file, "keys", keys);
            put_some(&mut file, "origin", origin.map(Origin::word).as_ref());
        }
        for FleetTeam { name, members, members_by_name, origin } in &self.teams {
            file.push_str("[[team]]\n");
            put_text(&mut file, "name", name);
            put_list(&mut file, "members", members);
            put_list(&mut file, "members_by_name", members_by_name);
            put_some(&mut file, "origin", origin.map(Origin::word).as_ref());
        }
        for node in &self.nodes {
            put_node(&mut file, node);
        }
        for FleetEdge { name, identity, removed, origin } in &self.edges {
            file.push_str("[[edge]]\n");
            put_text(&mut file, "name", name);
            put_text(&mut file, "identity", identity);
            put_flag(&mut file, "removed", *removed);
            put_some(&mut file, "origin", origin.map(Origin::word).as_ref());
        }
        for vm in &self.vms {
            file.push_str("[[vm]]\n");
            put_text(&mut file, "name", &vm.name);
            put_text(&mut file, "owner", &vm.owner);
            put_some(&mut file, "address", vm.address.as_ref());
            put_flag(&mut file, "no_address", vm.no_address);
            put_text(&mut file, "ssh", &vm.ssh);
            put_some(&mut file, "login", vm.login.as_ref());
            put_some(&mut file, "host_key", vm.host_key.as_ref());
            put_some(&mut file, "source_address", vm.source_address.as_ref());
            put_list(&mut file, "share", &vm.shares);
            put_list(&mut file, "share_by_name", &vm.shares_by_name);
            put_some(&mut file, "node", vm.node.as_ref());
            put_some(
                &mut file,
                "carry",
                Some(vm.carry.word()).filter(|_| !is_auto(&vm.carry)).as_ref(),
            );
            put_some(&mut file, "id", vm.id.as_ref());
            put_some(&mut file, "state", vm.state.map(VmState::word).as_ref());
            put_some(&mut file, "origin", vm.origin.map(Origin::word).as_ref());
        }
        file
    }
}

fn node(name: &Label, node: &Node) -> FleetNode {
    let (agent, docker, ssh) = (node.agent.as_ref(), node.docker.as_ref(), node.ssh());
    FleetNode {
        name: name.clone(),
        agent: agent.map(|agent| agent.at),
        agent_key: agent.and_then(|agent| agent.key.clone()),
        trusted: node.trusted,
        ssh: ssh.map(|ssh| ssh.endpoint.to_string()),
        local: docker.is_some() && ssh.is_none(),
        docker_socket: docker.map(|it| it.socket.clone()).filter(|path| path != DOCKER_SOCKET),
        host_key: ssh.and_then(|ssh| ssh.host_key.clone()),
        networks: ssh
            .map(|it| it.networks.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        labels: node.labels.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        origin: told(node.origin),
    }
}

fn put_node(file: &mut String, node: &FleetNode) {
    file.push_str("[[node]]\n");
    put_text(file, "name", &node.name);
    put_some(file, "agent", node.agent.as_ref());
    put_some(file, "agent_key", node.agent_key.as_ref());
    put_flag(file, "trusted", node.trusted);
    put_some(file, "ssh", node.ssh.as_ref());
    put_flag(file, "local", node.local);
    put_some(file, "docker_socket", node.docker_socket.as_ref());
    put_some(file, "host_key", node.host_key.as_ref());
    put_list(file, "networks", &node.networks);
    put_list(file, "labels", &node.labels);
    put_some(file, "origin", node.origin.map(Origin::word).as_ref());
}

fn edge(stored: &Stored<Edge>) -> FleetEdge {
    let Edge { name, key, state, origin, .. } = &stored.document;
    FleetEdge {
        name: name.clone(),
        identity: key.clone(),
        removed: *state == EdgeState::Removed,
        origin: told(*origin),
    }
}

/// Who has which access.
fn accesses<T: Clone + Ord>(slot: &[T], by_name: &[T]) -> BTreeMap<T, Access> {
    let slot = slot.iter().map(|name| (name.clone(), Access::Slot));
    slot.chain(by_name.iter().map(|name| (name.clone(), Access::ByName))).collect()
}

/// Whose it is, where that has to be said.
fn told(origin: Origin) -> Option<Origin> {
    Some(origin).filter(|origin| *origin != Origin::Command)
}

/// Who of them has this kind of access.
fn having<T: Clone>(all: &BTreeMap<T, Access>, wanted: Access) -> Vec<T> {
    let those = all.iter().filter(|(_, access)| **access == wanted);
    those.map(|(name, _)| name.clone()).collect()
}

/// A basic string, with everything escaped that is not safe to show (TOML 1.0, "String").
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if is_unsafe(c) => {
                let code = u32::from(c);
                let _ = if code <= 0xffff {
                    write!(quoted, "\\u{code:04x}")
                } else {
                    write!(quoted, "\\U{code:08x}")
                };
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn put_text(file: &mut String, key: &str, text: &impl fmt::Display) {
    let _ = writeln!(file, "{key} = {}", quoted(&text.to_string()));
}

fn put_some(file: &mut String, key: &str, text: Option<&impl fmt::Display>) {
    if let Some(text) = text {
        put_text(file, key, text);
    }
}

fn put_flag(file: &mut String, key: &str, flag: bool) {
    if flag {
        let _ = writeln!(file, "{key} = true");
    }
}

fn put_list(file: &mut String, key: &str, texts: &[impl fmt::Display]) {
    match texts {
        [] => {}
        [one] => {
            let _ = writeln!(file, "{key} = [{}]", quoted(&one.to_string()));
        }
        more => {
            let _ = writeln!(file, "{key} = [");
            for text in more {
                let _ = writeln!(file, "    {},", quoted(&text.to_string()));
            }
            file.push_str("]\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_comes_back_from_its_quotes_which_show_nothing_unsafe() {
        let all: String = (0..=u32::from(char::MAX)).filter_map(char::from_u32).collect();
        let quoted = quoted(&all);
        assert!(!quoted.chars().any(is_unsafe));
        let file: toml::Table = format!("text = {quoted}").parse().unwrap();
        assert_eq!(file["text"].as_str(), Some(all.as_str()));
    }
}
