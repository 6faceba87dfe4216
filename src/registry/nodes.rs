//! Nodes as they stand, and which VMs lie on each.

use std::collections::{BTreeMap, BTreeSet};

use super::document::{Document, Node, NodeState, Serial, Stored, Vm};
use super::draft::Draft;
use super::model::Model;
use super::name::Label;
use super::refusal::{Kind, Refusal};
use crate::route::{Carry, NoHandoff};

impl Model {
    /// All nodes by name.
    #[must_use]
    pub const fn nodes(&self) -> &BTreeMap<Label, Stored<Box<Node>>> {
        &self.nodes
    }

    /// The node whose agent has this key (`SHA256:...`): one at most.
    #[must_use]
    pub fn node_of_agent(&self, key: &str) -> Option<&Label> {
        let its = |it: &Stored<Box<Node>>| {
            it.document.agent.as_ref().is_some_and(|agent| agent.key.as_deref() == Some(key))
        };
        self.nodes.iter().find(|(_, it)| its(it)).map(|(name, _)| name)
    }

    /// How a node was found when that last changed.
    #[must_use]
    pub fn node_state(&self, name: &Label) -> Option<&NodeState> {
        self.node_states.get(name).map(|stored| &stored.document)
    }

    /// The VMs that lie on a node, by serial.
    #[must_use]
    pub fn vms_on(&self, node: &Label) -> &BTreeSet<Serial> {
        static NOTHING: BTreeSet<Serial> = BTreeSet::new();
        self.lying.get(node).unwrap_or(&NOTHING)
    }

    /// Whether sessions with a VM are handed off, rather than relayed.
    #[must_use]
    pub fn hands_off(&self, vm: &Vm) -> bool {
        let node = vm.node.as_ref().and_then(|name| self.nodes.get(name));
        let takes = node.is_some_and(|stored| stored.document.no_handoff().is_none());
        takes && vm.carry != Carry::Relay
    }

    pub(super) fn put_node(
        &mut self,
        name: &Label,
        new: Option<Document>,
        revision: u64,
    ) -> Option<(Document, u64)> {
        let old = match new {
            Some(Document::Node(document)) => {
                self.nodes.insert(name.clone(), Stored { document, revision })
            }
            _ => self.nodes.remove(name),
        };
        old.map(|old| (Document::Node(old.document), old.revision))
    }

    pub(super) fn put_node_state(
        &mut self,
        name: &Label,
        new: Option<Document>,
        revision: u64,
    ) -> Option<(Document, u64)> {
        let old = match new {
            Some(Document::NodeState(document)) => {
                self.node_states.insert(name.clone(), Stored { document, revision })
            }
            _ => self.node_states.remove(name),
        };
        old.map(|old| (Document::NodeState(old.document), old.revision))
    }

    pub(super) fn index_node(&mut self, serial: Serial, vm: &Vm, enter: bool) {
        let Some(node) = &vm.node else { return };
        if enter {
            self.lying.entry(node.clone()).or_default().insert(serial);
        } else if let Some(vms) = self.lying.get_mut(node) {
            vms.remove(&serial);
            if vms.is_empty() {
                self.lying.remove(node);
            }
        }
    }
}

impl Draft<'_> {
    pub(super) fn node(&self, name: &Label) -> Result<Box<Node>, Refusal> {
        let stored = self.model().nodes().get(name);
        stored.map(|it| it.document.clone()).ok_or_else(|| Refusal::unknown(Kind::Node, name))
    }

    /// Whether a VM may lie where it says, and be carried as it says.
    pub(super) fn check_node(&self, vm: &Vm) -> Result<(), Refusal> {
        let why = match &vm.node {
            None => Some(NoHandoff::NoNode),
            Some(name) => self.node(name)?.no_handoff(),
        };
        match why.filter(|_| vm.carry == Carry::Handoff) {
            None => Ok(()),
            Some(why) => {
                Err(Refusal::NoHandoff { vm: vm.name.clone(), node: vm.node.clone(), why })
            }
        }
    }
}
