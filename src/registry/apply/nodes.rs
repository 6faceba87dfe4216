//! What a plan does about nodes: they are there before VMs are put on them, and go when none
//! lies there any more.

use super::desired::DesiredFleet;
use super::plan::{Plan, Stage, differs};
use crate::registry::command::{Command, NodeSettings, Thing};
use crate::registry::document::{DOCKER_SOCKET, Node};
use crate::registry::fleet::{Fleet, FleetNode};
use crate::registry::model::Model;
use crate::registry::name::Label;
use crate::registry::values::{agent_key, ssh_endpoint};
use crate::route::Carry;

impl Plan<'_> {
    pub(super) fn prune_nodes(&mut self, wanted: &DesiredFleet<'_>, stage: Stage) {
        let model = self.model;
        for (name, stored) in model.nodes() {
            let now = if model.vms_on(name).is_empty() { Stage::Early } else { Stage::Late };
            let goes = !wanted.nodes.contains(name) && self.prunes(stored.document.origin);
            if goes && now == stage {
                let command = Command::NodeRemove { name: name.clone() };
                self.add(command, format!("remove node {name}"));
            }
        }
    }

    pub(super) fn nodes(&mut self, fleet: &Fleet, stage: Stage) {
        let model = self.model;
        let (mut old, new): (Vec<_>, Vec<_>) =
            fleet.nodes.iter().partition(|wanted| model.nodes().contains_key(&wanted.name));
        // An identity that goes from one to another is given up before it is taken.
        old.sort_by_key(|wanted| is_taken(model, wanted));
        for wanted in old {
            if let Some(stored) = model.nodes().get(&wanted.name) {
                self.old_node(&stored.document, wanted, stage);
            }
        }
        for wanted in new.into_iter().filter(|_| stage == Stage::Early) {
            let FleetNode { name, origin, .. } = wanted;
            let set = NodeSettings {
                agent: wanted.agent.map(|at| at.to_string()),
                agent_key: wanted.agent_key.clone(),
                trusted: Some(wanted.trusted),
                ..docker_settings(None, wanted)
            };
            let command = Command::NodeAdd { name: name.clone(), set };
            self.make(command, format!("add node {name}"), *origin);
        }
    }

    fn old_node(&mut self, is: &Node, wanted: &FleetNode, stage: Stage) {
        let name = &wanted.name;
        if stage == Stage::Early {
            self.take_over(Thing::Node(name.clone()), is.origin, wanted.origin);
        }
        let at = is.agent.as_ref().map(|agent| agent.at);
        let key = is.agent.as_ref().and_then(|agent| agent.key.clone());
        // Who has joined stays, where it is not said who it is to be.
        let joins = wanted.agent.is_some() && wanted.agent_key.is_none();
        let wanted_key = if joins { key.clone() } else { read_key(wanted) };
        let set = NodeSettings {
            agent: differs(&at, &wanted.agent)
                .map(|at| at.map(|at| at.to_string()).unwrap_or_default()),
            agent_key: differs(&key, &wanted_key).map(Option::unwrap_or_default),
            trusted: differs(&is.trusted, &wanted.trusted),
            ..docker_settings(Some(is), wanted)
        };
        // Trust is taken back at once, unless VMs that must be handed off there are to be put
        // elsewhere first.
        let ends = is.no_handoff().is_none() && !(wanted.trusted && wanted.agent.is_some());
        let now = if ends && holds_handoffs(self.model, name) { Stage::Late } else { Stage::Early };
        if now == stage && set != NodeSettings::default() {
            let command = Command::NodeSet { name: name.clone(), set };
            self.add(command, format!("change node {name}"));
        }
    }
}

/// What has to be set of a node's Docker and its labels.
fn docker_settings(is: Option<&Node>, wanted: &FleetNode) -> NodeSettings {
    let docker = is.and_then(|is| is.docker.as_ref());
    let ssh = is.and_then(Node::ssh);
    let at = ssh.map(|ssh| ssh.endpoint.to_string());
    // As it would be written; what cannot be read is left to the command to refuse.
    let wanted_at = wanted
        .ssh
        .as_ref()
        .map(|text| ssh_endpoint(text).map_or_else(|_| text.clone(), |read| read.to_string()));
    let is_local = docker.is_some() && ssh.is_none();
    let networks: Vec<String> =
        ssh.map(|it| it.networks.iter().map(ToString::to_string).collect()).unwrap_or_default();
    // Said of none it is for the command to refuse.
    let is_reached = wanted.ssh.is_some() || wanted.local;
    let usual = is_reached.then_some(DOCKER_SOCKET);
    let wanted_socket = wanted.docker_socket.as_deref().or(usual);
    let socket = docker.map(|docker| docker.socket.as_str());
    let wanted_socket = wanted_socket.filter(|path| Some(*path) != socket);
    let labels = is.map(|is| is.labels.clone()).unwrap_or_default();
    let halves = wanted.labels.iter().map(|it| it.split_once('=').unwrap_or((it, "")));
    let wanted_labels = halves.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    NodeSettings {
        ssh: differs(&at, &wanted_at).map(Option::unwrap_or_default),
        local: differs(&is_local, &wanted.local),
        docker_socket: wanted_socket.map(str::to_owned),
        // A key that was confirmed stays, where the file says none.
        host_key: wanted
            .host_key
            .clone()
            .filter(|key| ssh.and_then(|ssh| ssh.host_key.as_ref()).is_none_or(|is| is != key)),
        networks: differs(&networks, &wanted.networks).filter(|_| wanted.ssh.is_some()),
        labels: differs(&labels, &wanted_labels),
        ..NodeSettings::default()
    }
}

fn holds_handoffs(model: &Model, node: &Label) -> bool {
    let mut vms = model.vms_on(node).iter().filter_map(|serial| model.vm(*serial));
    vms.any(|vm| vm.document.carry == Carry::Handoff)
}

/// As it is kept. What cannot be read is left to the command to refuse.
fn read_key(wanted: &FleetNode) -> Option<String> {
    let text = wanted.agent_key.as_deref()?;
    Some(agent_key(text).map_or_else(|_| text.to_owned(), |key| key.to_string()))
}

/// Whether another node has the agent's key.
fn is_taken(model: &Model, wanted: &FleetNode) -> bool {
    let of = read_key(wanted).and_then(|key| model.node_of_agent(&key).cloned());
    of.is_some_and(|of| of != wanted.name)
}
