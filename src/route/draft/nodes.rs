//! What a delta changes about nodes, and what lies on them in the end.

use std::sync::Arc;

use super::super::changes::Changes;
use super::super::node::Host;
use super::super::snapshot::judge_name;
use super::super::writer::KnownNode;
use super::super::{Carry, NodeEntry, Vm, What};
use super::{Lying, TableDraft};

impl TableDraft<'_> {
    pub(super) fn put_nodes(&mut self, nodes: &Changes<NodeEntry>) {
        for (name, (index, entry)) in nodes {
            let before = self.writer.nodes.get_key_value(name.as_str());
            if let Some(entry) = entry
                && let Some(what) = judge_name(&entry.name, None, false, false)
            {
                self.fault(*index, what);
            }
            let host = before.map(|(_, held)| &held.host);
            let after = entry.as_ref().map(|entry| Host::of(entry, host));
            // Sessions that were handed off there may be the agent's no more.
            let trusted = host.is_some_and(|host| host.handoff().is_ok());
            self.takes_away |= trusted && after.as_ref() != host;
            let known = before.map(|(name, _)| Arc::clone(name));
            let name = known.unwrap_or_else(|| Arc::from(name.as_str()));
            self.nodes.insert(name, after);
        }
        self.check_agent_keys(nodes);
    }

    /// Looks at all nodes, of which there are few and which hardly ever change.
    fn check_agent_keys(&mut self, nodes: &Changes<NodeEntry>) {
        for (name, (index, entry)) in nodes {
            let Some(agent) = entry.as_ref().and_then(|entry| entry.agent) else { continue };
            let is_same = |other: &&Arc<str>| {
                let host = if ***other == **name { None } else { self.host(other) };
                let node = host.and_then(Host::node);
                node.is_some_and(|node| node.agent_key == agent.key)
            };
            let of = self.writer.nodes.keys().chain(self.nodes.keys()).find(is_same);
            if let Some(of) = of.map(|of| of.as_ref().to_owned()) {
                self.fault(*index, What::AgentKeyTaken { key: agent.key, of });
            }
        }
    }

    /// The node of that name in the end.
    fn host(&self, name: &str) -> Option<&Host> {
        match self.nodes.get(name) {
            Some(changed) => changed.as_ref(),
            None => self.writer.nodes.get(name).map(|held| &held.host),
        }
    }

    /// Counts a VM that is put in, or one that is taken out.
    pub(super) fn lie(&mut self, vm: &Vm, more: isize) {
        let Some(node) = &vm.node else { return };
        let Lying { vms, handoffs } = self.lying.entry(Arc::clone(node)).or_default();
        *vms += more;
        *handoffs += if vm.carry == Carry::Handoff { more } else { 0 };
    }

    /// What is wrong with where a VM lies.
    pub(super) fn judge_node(&self, vm: &Vm) -> Option<What> {
        let host = vm.node.as_deref().map(|name| (name, self.host(name)));
        match host {
            Some((name, None)) => Some(What::UnknownNode { node: name.to_owned() }),
            Some((_, host)) => vm.carriage(host).err().map(What::NoHandoff),
            None => vm.carriage(None).err().map(What::NoHandoff),
        }
    }

    /// No VM may lie on a node that goes, nor be handed off where that is no more.
    pub(super) fn check_nodes(&mut self, nodes: &Changes<NodeEntry>) {
        for (name, (index, _)) in nodes {
            let after = self.known_node(name);
            let (lying, handoffs) = self.lying_after(name);
            match after {
                None if lying > 0 => {
                    let (name, by) = (name.clone(), format!("VMs, {lying} of them"));
                    self.fault(*index, What::InUse { name, by });
                }
                Some(KnownNode { host, .. }) if handoffs > 0 => {
                    if let Err(why) = host.handoff() {
                        let (node, vms) = (name.clone(), handoffs);
                        self.fault(*index, What::HandoffNeeded { node, vms, why });
                    }
                }
                Some(_) | None => {}
            }
        }
    }

    fn lying_after(&self, name: &str) -> (usize, usize) {
        let before = self.writer.nodes.get(name);
        let (vms, handoffs) = before.map_or((0, 0), |held| (held.vms, held.handoffs));
        let more = self.lying.get(name).copied().unwrap_or_default();
        (vms.saturating_add_signed(more.vms), handoffs.saturating_add_signed(more.handoffs))
    }

    fn known_node(&self, name: &str) -> Option<KnownNode> {
        let (vms, handoffs) = self.lying_after(name);
        self.host(name).map(|host| KnownNode { host: host.clone(), vms, handoffs })
    }

    /// The changed nodes, and those on which more or less lies than before.
    pub(super) fn known_nodes(&self) -> Vec<(Arc<str>, Option<KnownNode>)> {
        let counted = self.lying.keys().filter(|name| !self.nodes.contains_key(*name));
        let all = self.nodes.keys().chain(counted);
        all.map(|name| (Arc::clone(name), self.known_node(name))).collect()
    }
}
