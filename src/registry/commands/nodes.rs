//! Nodes come, go and change; their agents join.

use super::node_docker::{check_labels, docker, no_ssh};
use super::{Done, taken};
use crate::plural::count;
use crate::registry::command::{NodeSettings, Options};
use crate::registry::document::{Agent, Document, JoinToken, Key, Node, NodeState, fingerprint_of};
use crate::registry::draft::Draft;
use crate::registry::name::Label;
use crate::registry::refusal::{Kind, Refusal};
use crate::registry::values::{agent_address, agent_key, check_host_key, plain};
use crate::route::Carry;
use crate::ssh::digest;

/// Identities of removed agents that are remembered, at some 50 bytes: more nodes than anybody
/// removes.
const REMOVED_MAX: usize = 4096;

impl Draft<'_> {
    pub(super) fn node_add(&mut self, name: &Label, set: &NodeSettings, options: Options) -> Done {
        if self.model().nodes().contains_key(name) {
            return taken(name, "another node");
        }
        let new = Node { origin: options.origin, ..Node::default() };
        self.change_node(name, Box::new(new), set)
    }

    pub(super) fn node_set(&mut self, name: &Label, set: &NodeSettings) -> Done {
        let node = self.node(name)?;
        self.change_node(name, node, set)
    }

    fn change_node(&mut self, name: &Label, mut node: Box<Node>, set: &NodeSettings) -> Done {
        node.agent = agent(node.agent.take(), set)?;
        let was = node.docker.take();
        node.docker = docker(name, was.clone(), set)?;
        if let Some(labels) = &set.labels {
            node.labels = check_labels(labels)?;
        }
        if node.docker != was && self.model().node_state(name).is_some() {
            // What was found was found somewhere else, or may not be found so again.
            self.put(&Key::NodeState(name.clone()), None);
        }
        node.trusted = set.trusted.unwrap_or(node.trusted);
        // Nobody joins whom nobody would find.
        node.join = node.join.filter(|_| node.agent.is_some());
        if let Some(Agent { key: Some(key), .. }) = &node.agent {
            self.nobodys_key(name, key)?;
            // Whoever writes it down means it.
            self.remember_removed(|removed| removed.retain(|other| other != key));
        }
        if node.no_handoff().is_some() {
            self.nothing_handed_off(name)?;
        }
        self.put(&Key::Node(name.clone()), Some(Document::Node(node)));
        Ok(())
    }

    /// Refuses where another node, or an edge, has the agent's key.
    fn nobodys_key(&self, name: &Label, key: &str) -> Done {
        match self.model().node_of_agent(key).filter(|of| *of != name) {
            Some(of) => Err(Refusal::AgentKeyTaken { key: key.to_owned(), of: of.clone() }),
            None => self.no_edges_identity(key),
        }
    }

    /// Changes what is remembered of agents whose nodes were removed.
    fn remember_removed(&mut self, change: impl FnOnce(&mut Vec<String>)) {
        let before = self.model().registry();
        let mut registry = before.clone();
        change(&mut registry.removed_agents);
        if registry != before {
            self.put(&Key::Registry, Some(Document::Registry(registry)));
        }
    }

    pub(super) fn node_token(&mut self, name: &Label, hash: &str, expires_s: u64) -> Done {
        let mut node = self.node(name)?;
        match &node.agent {
            None => {
                return Err(Refusal::invalid(
                    format_args!("node `{name}` has no agent that could join"),
                    format!("say where it is to listen: `keyway node set {name} --agent IP:PORT`"),
                ));
            }
            Some(Agent { key: Some(key), .. }) => {
                return Err(Refusal::AgentKeyOther { node: name.clone(), key: key.clone() });
            }
            Some(Agent { key: None, .. }) => {}
        }
        let (hash, created_s) = (hash.to_owned(), self.stamp().now_s);
        node.join = Some(JoinToken { hash, created_s, expires_s, used_s: None });
        self.put(&Key::Node(name.clone()), Some(Document::Node(node)));
        Ok(())
    }

    /// Uses the token up and pins the key, or does neither. The same agent may come again with the
    /// same token: the answer can have been lost.
    pub(super) fn node_join(&mut self, name: &Label, hash: &str, key: &str) -> Done {
        let mut node = self.node(name).map_err(|_| Refusal::JoinTokenUnknown)?;
        let now_s = self.stamp().now_s;
        let shown = |join: &&mut JoinToken| digest::same(join.hash.as_bytes(), hash.as_bytes());
        let (Some(join), Some(agent)) = (node.join.as_mut().filter(shown), &mut node.agent) else {
            return Err(Refusal::JoinTokenUnknown);
        };
        if join.used_s.is_some() {
            let its = agent.key.as_deref() == Some(key);
            return if its { Ok(()) } else { Err(Refusal::JoinTokenUsed { node: name.clone() }) };
        }
        if join.expires_s <= now_s {
            return Err(Refusal::JoinTokenExpired { node: name.clone(), at_s: join.expires_s });
        }
        if let Some(other) = agent.key.as_ref().filter(|pinned| *pinned != key) {
            return Err(Refusal::AgentKeyOther { node: name.clone(), key: other.clone() });
        }
        let key = key.to_owned();
        self.nobodys_key(name, &key)?;
        if agent.key.is_none() && self.model().registry().removed_agents.contains(&key) {
            return Err(Refusal::AgentRemoved { key, node: name.clone() });
        }
        (agent.key, join.used_s) = (Some(key), Some(now_s));
        self.put(&Key::Node(name.clone()), Some(Document::Node(node)));
        Ok(())
    }

    /// The first host key that a node showed, once it let Keyway in, is the one that it has to
    /// show.
    pub(super) fn node_pin(&mut self, name: &Label, key: &str) -> Done {
        let mut node = self.node(name)?;
        let line = check_host_key(key)?;
        let ssh = node.docker.as_mut().and_then(|docker| docker.ssh.as_mut());
        let Some(ssh) = ssh else { return Err(no_ssh(name)) };
        match ssh.host_key.as_deref().map(fingerprint_of) {
            Some(pinned) if line.as_deref().map(fingerprint_of) != Some(pinned.clone()) => {
                return Err(Refusal::NodeHostKeyOther {
                    node: name.clone(),
                    pinned,
                    shown: line.as_deref().map(fingerprint_of).unwrap_or_default(),
                });
            }
            _ => ssh.host_key = line,
        }
        self.put(&Key::Node(name.clone()), Some(Document::Node(node)));
        Ok(())
    }

    pub(super) fn node_found(&mut self, name: &Label, state: &NodeState) -> Done {
        self.node(name)?;
        let key = Key::NodeState(name.clone());
        self.put(&key, Some(Document::NodeState(state.clone())));
        Ok(())
    }

    /// Refuses where a VM lies that is handed off or not entered at all.
    fn nothing_handed_off(&self, name: &Label) -> Done {
        let model = self.model();
        let vms = model.vms_on(name).iter().filter_map(|serial| model.vm(*serial));
        let mut handed = vms.map(|it| &it.document).filter(|vm| vm.carry == Carry::Handoff);
        let Some(first) = handed.next() else { return Ok(()) };
        let more = match handed.count() {
            0 => String::new(),
            more => format!(" and {}", count(more, "more VM")),
        };
        Err(Refusal::InUse {
            kind: Kind::Node,
            name: name.to_string(),
            by: format!("VM `{}`{more} there must be handed off", first.name),
            fix: "set carry to auto or relay first (`keyway vm set --carry`)".to_owned(),
        })
    }

    pub(super) fn node_remove(&mut self, name: &Label) -> Done {
        let Node { agent, .. } = *self.node(name)?;
        let lying = self.model().vms_on(name).len();
        if lying > 0 {
            return Err(Refusal::InUse {
                kind: Kind::Node,
                name: name.to_string(),
                by: format!("{} there", count(lying, "VM")),
                fix: "put them elsewhere first (`keyway vm set --node`)".to_owned(),
            });
        }
        self.put(&Key::Node(name.clone()), None);
        if self.model().node_state(name).is_some() {
            self.put(&Key::NodeState(name.clone()), None);
        }
        if let Some(key) = agent.and_then(|agent| agent.key) {
            self.remember_removed(|removed| {
                removed.push(key);
                let beyond = removed.len().saturating_sub(REMOVED_MAX);
                removed.drain(..beyond);
            });
        }
        Ok(())
    }
}

/// The agent of a node from then on: who it is says nothing where nobody knows where it is.
fn agent(was: Option<Agent>, set: &NodeSettings) -> Result<Option<Agent>, Refusal> {
    let (at, key) = was.map_or((None, None), |Agent { at, key }| (Some(at), key));
    let none = set.agent.as_deref() == Some("");
    let at = match set.agent.as_deref().filter(|_| !none) {
        Some(text) => Some(agent_address(text).map_err(|fix| {
            Refusal::invalid(format_args!("`{}` is no address of an agent", plain(text)), fix)
        })?),
        None => at.filter(|_| !none),
    };
    let key = match set.agent_key.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => {
            let read = agent_key(text).map_err(|fix| {
                Refusal::invalid(format_args!("`{}` is no key of an agent", plain(text)), fix)
            })?;
            Some(read.to_string())
        }
        None => key.filter(|_| !none && set.agent_key.is_none()),
    };
    match (at, key) {
        (Some(at), key) => Ok(Some(Agent { at, key })),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(Refusal::invalid(
            "the key of an agent is given, and not where it listens",
            "give both, or an empty agent alone for a node without one",
        )),
    }
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
