//! Edges of a fleet file.

use super::node::parsed;
use super::{Lines, Section, Walk, label, origin};
use crate::registry::edge_identity;
use crate::registry::fleet::FleetEdge;

impl Walk<'_> {
    pub(super) fn edge(&mut self, section: Section<'_, '_>) {
        let mut lines = Lines { header: section.line, ..Lines::default() };
        let removed = section.get("removed").and_then(|value| value.boolean()).unwrap_or(false);
        // One that is removed leaves its name to others.
        let example = "\"edge1\"";
        let name = if removed {
            section.require("name", example).and_then(|value| label(&value))
        } else {
            self.name(&section, "edge", example, &mut lines)
        };
        let value = section.require("identity", "\"ssh-ed25519 AAAA...\"");
        let key = value.as_ref().and_then(|it| parsed(it, "identity of an edge", edge_identity));
        if let (Some(value), Some(key)) = (&value, &key)
            && let Some(first) = self.identities.insert(key.fingerprint(), value.line)
        {
            let what = format!("is {}, as in line {first}", key.fingerprint());
            value.fault(what, "every agent and every edge has an identity of its own");
        }
        let origin = origin(&section);
        section.finish();
        if let (Some(name), Some(key)) = (name, key) {
            let identity = key.to_line();
            self.fleet.edges.push(FleetEdge { name, identity, removed, origin });
        }
    }
}
