//! What a plan does about edges: none is called what another one is called that goes first. Whose
//! identity it is says which it is; one that was removed stays so, whatever name a file gives it.
//! What commands or edges themselves made is never the file's, whose silence would end sessions.

use super::desired::DesiredFleet;
use super::plan::Plan;
use crate::registry::command::Command;
use crate::registry::document::{Edge, EdgeState};
use crate::registry::fleet::{Fleet, FleetEdge};
use crate::registry::name::Label;
use crate::registry::values::edge_identity;

impl Plan<'_> {
    pub(super) fn edges(&mut self, fleet: &Fleet, wanted: &DesiredFleet<'_>) {
        let model = self.model;
        for (key, stored) in model.edges() {
            let Edge { name, key: identity, state, origin, .. } = &stored.document;
            // Of what others made silence is no order, whatever is pruned: it would be remembered.
            let goes = *state == EdgeState::Admitted && self.is_the_files(*origin);
            if goes && !wanted.edges.contains(key) {
                self.edge_remove(name, identity);
            }
        }
        let (gone, stands): (Vec<_>, Vec<_>) = fleet.edges.iter().partition(|edge| edge.removed);
        for wanted in gone.into_iter().chain(stands) {
            self.edge(wanted);
        }
    }

    fn edge(&mut self, wanted: &FleetEdge) {
        let FleetEdge { name, identity, removed, origin } = wanted;
        // What cannot be read was told before.
        let Ok(key) = edge_identity(identity) else { return };
        let is = self.model.edges().get(&key.fingerprint()).map(|stored| &stored.document);
        let text = match (is.map(|is| (is.state, &is.name)), removed) {
            (Some((EdgeState::Removed, _)), true) => return,
            (_, true) => return self.edge_remove(name, identity),
            (Some((EdgeState::Admitted, is)), false) if is == name => return,
            (Some((EdgeState::Admitted, is)), false) => format!("rename edge {is} to {name}"),
            (Some((EdgeState::Removed, _)) | None, false) => format!("add edge {name}"),
        };
        let (name, identity) = (name.clone(), identity.clone());
        self.make(Command::EdgeAdd { name, identity }, text, *origin);
    }

    /// By its identity: another one may have the name by the time it is carried out.
    fn edge_remove(&mut self, name: &Label, identity: &str) {
        let text = format!("remove edge {name}");
        let (name, identity) = (name.clone(), Some(identity.to_owned()));
        self.add(Command::EdgeRemove { name, identity }, text);
    }
}
