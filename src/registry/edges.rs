//! Edges as they stand: who may hand sessions to agents, and who may no more.

use std::collections::BTreeMap;

use super::document::{Document, Edge, EdgeState, Stored};
use super::model::Model;
use super::name::Label;
use crate::ssh::publickey::Fingerprint;

impl Model {
    /// All edges by their identities, those that are removed too.
    #[must_use]
    pub const fn edges(&self) -> &BTreeMap<Fingerprint, Stored<Edge>> {
        &self.edges
    }

    /// The edge of this name: the one that is admitted, else the one that was removed last.
    #[must_use]
    pub fn edge_named(&self, name: &Label) -> Option<(Fingerprint, &Stored<Edge>)> {
        let named = self.edges.iter().filter(|(_, stored)| stored.document.name == *name);
        let latest = named.max_by_key(|(_, Stored { document, revision })| {
            (document.state == EdgeState::Admitted, *revision)
        });
        latest.map(|(key, stored)| (*key, stored))
    }

    pub(super) fn put_edge(
        &mut self,
        key: Fingerprint,
        new: Option<Document>,
        revision: u64,
    ) -> Option<(Document, u64)> {
        let old = match new {
            Some(Document::Edge(document)) => self.edges.insert(key, Stored { document, revision }),
            _ => self.edges.remove(&key),
        };
        old.map(|old| (Document::Edge(old.document), old.revision))
    }
}
