//! What was said last of an edge: that it is admitted, or removed. Told by the registry, by what is
//! kept beside it, and by every store that it stands in for, each of its own time.

use std::collections::BTreeMap;

use crate::registry::document::{self, EdgeState};
use crate::registry::{Command, Label, edge_identity};
use crate::ssh::publickey::Fingerprint;
use crate::state::RemovedEdge;

/// Where the registry does not say what was said last.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct LastSaid {
    /// It was removed, and the registry does not say so.
    pub(super) removed: Vec<RemovedEdge>,
    /// It was removed once, and admitted since.
    pub(super) admitted: Vec<Fingerprint>,
}

impl LastSaid {
    /// `now` is the registry. A removal at the second of an admission came after it.
    pub(super) fn of<'a>(
        now: impl Iterator<Item = &'a document::Edge>,
        kept: impl IntoIterator<Item = RemovedEdge>,
        before: impl Iterator<Item = &'a document::Edge>,
    ) -> Self {
        let print = |line: &str| edge_identity(line).ok().map(|key| key.fingerprint());
        let mut removals = BTreeMap::<Fingerprint, RemovedEdge>::new();
        let mut admitted_s = BTreeMap::<Fingerprint, u64>::new();
        let mut settled = Vec::new();
        let mut gone: Vec<RemovedEdge> = kept.into_iter().collect();
        let all = now.map(|edge| (edge, true)).chain(before.map(|edge| (edge, false)));
        for (edge, is_now) in all {
            match (edge.state, print(&edge.key)) {
                (EdgeState::Admitted, Some(key)) => {
                    let last_s = admitted_s.entry(key).or_default();
                    *last_s = edge.since_s.max(*last_s);
                }
                (EdgeState::Removed, Some(key)) if is_now => settled.push(key),
                (EdgeState::Removed, _) => gone.push(removed_edge(edge)),
                (EdgeState::Admitted, None) => {}
            }
        }
        for edge in gone {
            let Some(key) = print(&edge.identity) else { continue };
            let is_later = |last: &RemovedEdge| last.since_s < edge.since_s;
            if removals.get(&key).is_none_or(is_later) {
                removals.insert(key, edge);
            }
        }
        let mut last = Self::default();
        for (key, edge) in removals.into_iter().filter(|(key, _)| !settled.contains(key)) {
            if admitted_s.get(&key).is_some_and(|admitted_s| *admitted_s > edge.since_s) {
                last.admitted.push(key);
            } else {
                last.removed.push(edge);
            }
        }
        last
    }

    /// What tells the registry of the removals.
    pub(super) fn orders(self) -> impl Iterator<Item = Command> {
        self.removed.into_iter().filter_map(|RemovedEdge { name, identity, .. }| {
            Some(Command::EdgeRemove { name: Label::new(&name).ok()?, identity: Some(identity) })
        })
    }
}

/// What is kept of one that was removed.
pub(super) fn removed_edge(edge: &document::Edge) -> RemovedEdge {
    let document::Edge { name, key, since_s, .. } = edge;
    RemovedEdge { name: name.to_string(), identity: key.clone(), since_s: *since_s }
}

#[cfg(test)]
mod tests {
    use super::EdgeState::{Admitted, Removed};
    use super::*;
    use crate::registry::document::Origin;
    use crate::ssh::private_key::PrivateKey;
    use crate::ssh::testing::Seeded;

    type Said = (EdgeState, u64);
    /// The registry, what is kept, stores of before; and what counts.
    type Case<'a> = (Option<Said>, Option<u64>, &'a [Said], Option<EdgeState>);

    #[test]
    fn of_all_that_was_said_of_an_edge_the_last_counts() {
        let key = PrivateKey::generate_ed25519(&mut Seeded(3)).public().clone();
        let edge = |(state, since_s): &(EdgeState, u64)| document::Edge {
            name: Label::new("e").unwrap(),
            key: key.to_line(),
            state: *state,
            since_s: *since_s,
            by: String::new(),
            origin: Origin::Command,
        };
        let cases: &[Case<'_>] = &[
            (None, None, &[], None),
            (Some((Admitted, 1)), None, &[], None),
            (Some((Admitted, 1)), Some(3), &[], Some(Removed)),
            (Some((Admitted, 3)), Some(3), &[], Some(Removed)),
            (Some((Admitted, 4)), Some(3), &[], Some(Admitted)),
            (Some((Removed, 1)), Some(3), &[(Admitted, 5)], None),
            (None, Some(3), &[], Some(Removed)),
            (None, None, &[(Removed, 3)], Some(Removed)),
            // Admitted again, as a store says alone that was replaced since.
            (Some((Admitted, 1)), Some(3), &[(Admitted, 5)], Some(Admitted)),
            (None, Some(3), &[(Admitted, 5)], Some(Admitted)),
            (Some((Admitted, 1)), Some(3), &[(Admitted, 5), (Removed, 6)], Some(Removed)),
            (Some((Admitted, 1)), Some(7), &[(Admitted, 5), (Removed, 4)], Some(Removed)),
            (Some((Admitted, 9)), Some(7), &[(Admitted, 5), (Removed, 8)], Some(Admitted)),
        ];
        for (now, kept, before, last) in cases {
            let now = now.as_ref().map(&edge);
            let kept = kept.map(|since_s| removed_edge(&edge(&(Removed, since_s))));
            let before: Vec<_> = before.iter().map(&edge).collect();
            let said = LastSaid::of(now.iter(), kept.clone(), before.iter());
            let counts = (said.removed.len(), said.admitted.len());
            let wanted = match last {
                None => (0, 0),
                Some(Removed) => (1, 0),
                Some(Admitted) => (0, 1),
            };
            assert_eq!(counts, wanted, "{now:?} {kept:?} {before:?}");
        }
    }
}
