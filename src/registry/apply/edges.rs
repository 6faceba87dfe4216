//! What a plan does about edges: none is called what another one is called that goes first. Whose
//! identity it is says which it is; one that was removed stays so, whatever name a file gives it.

use super::desired::DesiredFleet;
use super::plan::Plan;
use crate::registry::command::{Command, Thing};
use crate::registry::document::{Edge, EdgeState};
use crate::registry::fleet::{Fleet, FleetEdge};
use crate::registry::name::Label;
use crate::registry::values::edge_identity;

impl Plan<'_> {
    pub(super) fn edges(&mut self, fleet: &Fleet, wanted: &DesiredFleet<'_>) {
        let model = self.model;
        for (key, stored) in model.edges() {
            let Edge { name, state, origin, .. } = &stored.document;
            // Of what others made silence is no order, whatever is pruned: it would be remembered.
            let goes = *state == EdgeState::Admitted && self.is_the_files(*origin);
            if goes && !wanted.edges.contains(key) {
                self.edge_remove(name.clone(), None);
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
        match (is.map(|is| (is.state, is)), removed) {
            (Some((EdgeState::Admitted, is)), false) if is.name == *name => {
                self.take_over(Thing::Edge(name.clone()), is.origin, *origin);
            }
            (Some((EdgeState::Removed, _)), true) => {}
            (_, true) => self.edge_remove(name.clone(), Some(identity.clone())),
            // Under another name it is refused, and told so.
            (_, false) => {
                let (name, identity) = (name.clone(), identity.clone());
                let text = format!("add edge {name}");
                self.make(Command::EdgeAdd { name, identity }, text, *origin);
            }
        }
    }

    fn edge_remove(&mut self, name: Label, identity: Option<String>) {
        let text = format!("remove edge {name}");
        self.add(Command::EdgeRemove { name, identity }, text);
    }
}
