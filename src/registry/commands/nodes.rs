//! Nodes come, go and change.

use super::{Done, taken};
use crate::plural::count;
use crate::registry::command::{NodeSettings, Options};
use crate::registry::document::{Agent, Document, Key, Node};
use crate::registry::draft::Draft;
use crate::registry::name::Label;
use crate::registry::refusal::{Kind, Refusal};
use crate::registry::values::{agent_address, agent_key, plain};
use crate::route::Carry;

impl Draft<'_> {
    pub(super) fn node_add(&mut self, name: &Label, set: &NodeSettings, options: Options) -> Done {
        if self.model().nodes().contains_key(name) {
            return taken(name, "another node");
        }
        self.change_node(name, Node { origin: options.origin, ..Node::default() }, set)
    }

    pub(super) fn node_set(&mut self, name: &Label, set: &NodeSettings) -> Done {
        let node = self.node(name)?;
        self.change_node(name, node, set)
    }

    fn change_node(&mut self, name: &Label, mut node: Node, set: &NodeSettings) -> Done {
        node.agent = agent(node.agent, set)?;
        node.trusted = set.trusted.unwrap_or(node.trusted);
        if let Some(Agent { key, .. }) = &node.agent {
            let mut nodes = self.model().nodes().iter();
            let of = nodes.find(|(other, stored)| {
                let theirs = stored.document.agent.as_ref();
                *other != name && theirs.is_some_and(|agent| agent.key == *key)
            });
            if let Some((of, _)) = of {
                return Err(Refusal::AgentKeyTaken { key: key.clone(), of: of.clone() });
            }
            self.no_edges_identity(key)?;
        }
        if node.no_handoff().is_some() {
            self.nothing_handed_off(name)?;
        }
        self.put(&Key::Node(name.clone()), Some(Document::Node(node)));
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
        self.node(name)?;
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
        Ok(())
    }
}

/// The agent of a node from then on: where it is and who it is go together.
fn agent(was: Option<Agent>, set: &NodeSettings) -> Result<Option<Agent>, Refusal> {
    let (at, key) = was.map_or((None, None), |Agent { at, key }| (Some(at), Some(key)));
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
        (Some(at), Some(key)) => Ok(Some(Agent { at, key })),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => Err(Refusal::invalid(
            "where an agent listens and its key go together",
            "give both, or an empty agent alone for a node without one",
        )),
    }
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
