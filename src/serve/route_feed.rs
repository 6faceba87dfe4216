//! From the registry to the edge: every change of documents becomes a change of the routing map, of
//! the banner's words, and of what is saved for a start without the registry.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use super::edges::Edges;
use super::last_words::last_words;
use super::nodes::Nodes;
use crate::control::feed::Hub;
use crate::edge::Edge;
use crate::edge::settings::Live;
use crate::edge::shared::Shared;
use crate::registry::document::Key;
use crate::registry::draft::Written;
use crate::registry::writer::Update;
use crate::registry::{Model, routes};
use crate::route::saved_routes::Head;
use crate::route::{Contents, Snapshot};
use crate::ssh::userauth::Policy;
use crate::state::routes::{Appended, Saved};

/// Keeps one edge up with one registry.
pub(super) struct Feed {
    pub(super) shared: Arc<Shared>,
    /// The edge, once it runs: it ends sessions whose right is gone.
    pub(super) edge: Arc<OnceLock<Weak<Edge>>>,
    /// Nothing is saved by a process that drains: its successor does.
    pub(super) saved: Option<Saved>,
    /// Whoever follows from elsewhere, if somebody can.
    pub(super) hub: Arc<Hub>,
    /// Whoever may hand sessions over.
    pub(super) edges: Arc<Edges>,
    /// Whoever reaches nodes.
    pub(super) nodes: Arc<Nodes>,
    /// Whose routes these are, by which program.
    pub(super) head: Head,
    /// The serial of the zone.
    pub(super) revision: Arc<AtomicU64>,
}

impl Feed {
    /// See [`crate::registry::writer::Subscriber`].
    pub(super) fn follow(&mut self, news: Update<'_>) {
        let revision = match news {
            Update::Everything { revision, contents, edges } => {
                self.edges.are(edges);
                self.everything(revision, contents);
                revision
            }
            Update::Written { model, written } => {
                self.edges.follow(written);
                self.nodes.follow(written);
                self.written(model, written);
                model.revision()
            }
        };
        self.revision.store(revision, Ordering::Relaxed);
    }

    fn everything(&mut self, revision: u64, contents: Contents) {
        self.hub.begin(self.head_at(revision));
        self.save(revision, &contents);
        match Snapshot::new(contents) {
            Ok(snapshot) => match self.edge() {
                Some(edge) => edge.replace(snapshot),
                None => self.shared.table.apply(snapshot),
            },
            // The allocator lets none through; a store that was altered by hand may have some.
            Err(found) => {
                for contradiction in found {
                    tracing::error!(
                        "the registry contradicts itself, its routes are not applied: {contradiction}"
                    );
                }
            }
        }
        self.reword();
    }

    fn written(&mut self, model: &Model, written: &[Written]) {
        let delta = routes::delta(written);
        let saved = delta.clone();
        let changed = match self.edge() {
            Some(edge) => edge.change(delta),
            None => self.shared.table.change(delta),
        };
        if let Err(found) = changed {
            for contradiction in found {
                tracing::error!(
                    "a change of the registry does not fit the routing map: {contradiction}"
                );
            }
            return self.everything(model.revision(), model.contents());
        }
        // Rights first, the disk after.
        let before = || routes::undone(written);
        self.hub.change(model.revision(), &saved, &before, model);
        let head = self.head_at(model.revision());
        match self.saved.as_mut().map_or(Ok(Appended::Done), |it| it.append(head, &saved)) {
            Ok(Appended::Done | Appended::Rests) => {}
            Ok(Appended::Full | Appended::Missing) => {
                self.save(model.revision(), &model.contents());
            }
            Err(error) => tracing::error!("the routing map is not saved: {error}"),
        }
        if let Some(saved) = &mut self.saved
            && let Err(error) = saved.quarantined.append(model, written)
        {
            tracing::warn!("slots that are held are not saved: {error}");
        }
        if written.iter().any(|written| matches!(written.key, Key::Address(_))) {
            self.reword();
        }
    }

    fn edge(&self) -> Option<Arc<Edge>> {
        self.edge.get().and_then(Weak::upgrade)
    }

    const fn head_at(&self, revision: u64) -> Head {
        Head { revision, ..self.head }
    }

    fn save(&mut self, revision: u64, contents: &Contents) {
        let head = self.head_at(revision);
        if let Some(Err(error)) = self.saved.as_mut().map(|saved| saved.write(head, contents)) {
            tracing::error!("the routing map is not saved: {error}");
        }
    }

    /// The banner names the lobby.
    pub(super) fn reword(&self) {
        let last_words = last_words(&self.shared.table);
        self.shared.live.rcu(|live| {
            let Live { server, policy, credential, source_address } = &**live;
            let policy = Policy { last_words: last_words.clone(), ..Policy::clone(policy) };
            Live {
                server: Arc::clone(server),
                policy: Arc::new(policy),
                credential: credential.clone(),
                source_address: source_address.clone(),
            }
        });
    }
}
