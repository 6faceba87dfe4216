//! Nodes of a fleet file, and whether VMs can be handed off there.

use super::{Lines, Section, Value, Walk, origin};
use crate::registry::fleet::FleetNode;
use crate::registry::{agent_address, agent_key, ssh_endpoint};
use crate::route::Carry;

/// What `read` makes of a value.
pub(super) fn parsed<T>(
    value: &Value<'_, '_>,
    what: &str,
    read: fn(&str) -> Result<T, &'static str>,
) -> Option<T> {
    let text = value.string()?;
    let told = |fix| value.fault(format_args!("is \"{text}\", which is no {what}"), fix);
    read(text).map_err(told).ok()
}

impl Walk<'_> {
    pub(super) fn node(&mut self, section: Section<'_, '_>) {
        let mut lines = Lines { header: section.line, ..Lines::default() };
        let name = self.name(&section, "node", "\"n1\"", &mut lines);
        let agent = lines.note("agent", section.get("agent"));
        let at = agent.as_ref().map(|value| parsed(value, "address of an agent", agent_address));
        let key = lines.note("agent_key", section.get("agent_key"));
        let read = key.as_ref().map(|value| parsed(value, "key of an agent", agent_key));
        if let (Some(value), Some(Some(key))) = (&key, read)
            && let Some(first) = self.identities.insert(key, value.line)
        {
            let what = format!("is {key}, as in line {first}");
            value.fault(what, "every agent has an identity of its own");
        }
        // An agent without a key is one that joins.
        let nowhere = key.as_ref().filter(|_| agent.is_none());
        if let Some(value) = nowhere {
            let fix = "give both, or none for a node without an agent";
            value.fault("is given, and `node.agent` is not", fix);
        }
        let flag =
            |key: &'static str| section.get(key).and_then(|value| value.boolean()).unwrap_or(false);
        let (trusted, local) = (flag("trusted"), flag("local"));
        let ssh = lines.note("ssh", section.get("ssh"));
        let ssh_read = ssh.as_ref().map(|value| parsed(value, "user@host:port", ssh_endpoint));
        let is_twice = local && ssh.is_some();
        if let Some(value) = ssh.as_ref().filter(|_| is_twice) {
            value.fault("is given beside `node.local`", "give one of them");
        }
        let text = |key: &'static str| Some(section.get(key)?.string()?.to_owned());
        let (docker_socket, host_key) = (text("docker_socket"), text("host_key"));
        let texts = |key: &'static str| {
            let all = section.get(key).and_then(|value| value.one_or_more()).unwrap_or_default();
            all.into_iter().map(|(_, text)| text.to_owned()).collect::<Vec<_>>()
        };
        let (networks, labels) = (texts("networks"), texts("labels"));
        let origin = origin(&section);
        section.finish();
        let Some(name) = name else { return };
        // What was given and could not be read is told already.
        let sound = nowhere.is_none()
            && at != Some(None)
            && read != Some(None)
            && ssh_read != Some(None)
            && !is_twice;
        if !sound {
            self.broken.nodes.insert(name.to_string());
            return;
        }
        let (agent, key) = (at.flatten(), read.flatten());
        let agent_key = key.map(|key| key.to_string());
        let ssh = ssh_read.flatten().map(|endpoint| endpoint.to_string());
        self.fleet.nodes.push(FleetNode {
            name,
            agent,
            agent_key,
            trusted,
            ssh,
            local,
            docker_socket,
            host_key,
            networks,
            labels,
            origin,
        });
        self.places.nodes.push(lines);
    }

    /// Tells which VMs are to be handed off and cannot be, where the file says all of it.
    pub(super) fn check_handoffs(&self) {
        let handoffs = self.fleet.vms.iter().zip(&self.places.vms);
        for (vm, lines) in handoffs.filter(|(vm, _)| vm.carry == Carry::Handoff) {
            let (line, vm) = (lines.of("carry"), vm.node.as_ref());
            let Some(name) = vm else {
                let fix = "name the VM's `node`, or leave carry out";
                self.document.fault(line, "`vm.carry` is \"handoff\", and the VM has no node", fix);
                continue;
            };
            let mut nodes = self.fleet.nodes.iter().zip(&self.places.nodes);
            let Some((node, there)) = nodes.find(|(node, _)| node.name == *name) else { continue };
            let (why, key) = match (node.agent, &node.agent_key, node.trusted) {
                (None, ..) => ("has no agent", "agent and agent_key"),
                (Some(_), None, _) => ("has an agent that this file has no key of", "agent_key"),
                (Some(_), Some(_), false) => ("is not trusted", "trusted = true"),
                (Some(_), Some(_), true) => continue,
            };
            let what = format!("`vm.carry` is \"handoff\", and node `{name}` {why}");
            let fix = format!("write {key} there (line {}), or leave carry out", there.header);
            self.document.fault(line, what, fix);
        }
    }
}
