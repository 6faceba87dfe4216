//! Edges come and go, by their identities. One that goes is remembered: it comes back by a command
//! of somebody who means it, and never by itself; what a served file took away itself it brings
//! back.

use super::{Done, limit, taken};
use crate::registry::audit::Actor;
use crate::registry::command::Options;
use crate::registry::document::{Document, Edge, EdgeState, Key, Origin};
use crate::registry::draft::Draft;
use crate::registry::name::Label;
use crate::registry::refusal::{Kind, Refusal};
use crate::registry::values::{edge_identity, plain};
use crate::route::LABEL_BYTES_MAX;
use crate::ssh::publickey::{Fingerprint, PublicKey};

/// Edges that are admitted: each is told to every agent.
const EDGES_MAX: usize = 4096;

impl Draft<'_> {
    pub(super) fn edge_add(&mut self, name: &Label, identity: &str, options: Options) -> Done {
        let key = read(identity)?;
        let Options { origin, planned, .. } = options;
        match self.edge_of(key.fingerprint()) {
            Some(known) if known.state == EdgeState::Admitted => {
                if !planned {
                    let of = format!("edge `{}`", known.name);
                    return Err(Refusal::IdentityTaken { key: key.fingerprint().to_string(), of });
                }
                if known.name != *name {
                    self.make_room(name, planned)?;
                    self.rename_edge(key.fingerprint(), known, name);
                }
                return Ok(());
            }
            // A file brings back what it took away itself.
            Some(Edge { name, since_s, by, origin: remover, .. })
                if planned && (origin, remover) != (Origin::Fleet, Origin::Fleet) =>
            {
                return Err(Refusal::EdgeRemoved { name, since_s, by });
            }
            Some(_) | None => {}
        }
        self.make_room(name, planned)?;
        self.put_edge(name, &key, EdgeState::Admitted, origin)
    }

    /// The name is free. What registered itself has no name that a fleet cannot give to another.
    fn make_room(&mut self, name: &Label, planned: bool) -> Done {
        let named = self.model().edge_named(name);
        let named = named.map(|(key, stored)| (key, stored.document.clone()));
        match named.filter(|(_, edge)| edge.state == EdgeState::Admitted) {
            None => Ok(()),
            Some((key, edge)) if planned && edge.by == Actor::itself().name => {
                let free = self.free_edge_name(name);
                self.rename_edge(key, edge, &free);
                Ok(())
            }
            Some(_) => taken(name, "another edge"),
        }
    }

    fn rename_edge(&mut self, key: Fingerprint, edge: Edge, name: &Label) {
        let edge = Edge { name: name.clone(), ..edge };
        self.put(&Key::Edge(key), Some(Document::Edge(edge)));
    }

    pub(super) fn edge_register(&mut self, name: &Label, identity: &str) -> Done {
        let key = read(identity)?;
        if self.edge_of(key.fingerprint()).is_some() {
            return Ok(());
        }
        // Whoever loses its identity is no other host by that.
        if let Some(Edge { name: last, state: EdgeState::Removed, since_s, by, .. }) =
            self.last_edge_of_host(name)
        {
            let (name, identity) = (name.clone(), key.to_line());
            return Err(Refusal::EdgeOfHostRemoved { name, identity, last, since_s, by });
        }
        let name = self.free_edge_name(name);
        self.put_edge(&name, &key, EdgeState::Admitted, Origin::Command)
    }

    /// What was said last of edges by this name, or by it with a number behind.
    fn last_edge_of_host(&self, host: &Label) -> Option<Edge> {
        let is_of_host = |name: &Label| {
            let numbered = name.as_str().rsplit_once('-').is_some_and(|(begin, number)| {
                let room = LABEL_BYTES_MAX - 1 - number.len();
                let whole = host.as_str().get(..room).unwrap_or(host.as_str());
                begin == whole && number.bytes().all(|byte| byte.is_ascii_digit())
            });
            name == host || numbered
        };
        let edges = self.model().edges().values();
        let of_host = edges.filter(|stored| is_of_host(&stored.document.name));
        of_host.max_by_key(|stored| stored.revision).map(|stored| stored.document.clone())
    }

    pub(super) fn edge_remove(
        &mut self,
        name: &Label,
        identity: Option<&str>,
        options: Options,
    ) -> Done {
        let Some(identity) = identity else {
            let named = self.model().edge_named(name).map(|(_, stored)| stored.document.clone());
            let edge = named.ok_or_else(|| Refusal::unknown(Kind::Edge, name))?;
            // What a file took away, a command takes for good.
            if edge.state == EdgeState::Removed && edge.origin == Origin::Command {
                return Err(Refusal::Already(format!("edge `{name}` is removed already")));
            }
            return self.put_edge(name, &read(&edge.key)?, EdgeState::Removed, options.origin);
        };
        let key = read(identity)?;
        match self.edge_of(key.fingerprint()) {
            Some(Edge { state: EdgeState::Removed, .. }) => Ok(()),
            Some(Edge { name, .. }) => {
                self.put_edge(&name, &key, EdgeState::Removed, options.origin)
            }
            None => self.put_edge(name, &key, EdgeState::Removed, options.origin),
        }
    }

    fn put_edge(
        &mut self,
        name: &Label,
        key: &PublicKey,
        state: EdgeState,
        origin: Origin,
    ) -> Done {
        let fingerprint = key.fingerprint();
        // A removal is never one too many.
        if state == EdgeState::Admitted {
            self.no_agents_identity(fingerprint)?;
            let others = self.model().edges().iter().filter(|(other, stored)| {
                **other != fingerprint && stored.document.state == EdgeState::Admitted
            });
            limit(others.count() + 1, EDGES_MAX, || "edges".to_owned())?;
        }
        let (since_s, by) = (self.stamp().now_s, self.by().to_owned());
        let (name, key) = (name.clone(), key.to_line());
        let edge = Edge { name, key, state, since_s, by, origin };
        self.put(&Key::Edge(fingerprint), Some(Document::Edge(edge)));
        Ok(())
    }

    fn edge_of(&self, key: Fingerprint) -> Option<Edge> {
        self.model().edges().get(&key).map(|stored| stored.document.clone())
    }

    fn is_admitted(&self, name: &Label) -> bool {
        let named = self.model().edge_named(name);
        named.is_some_and(|(_, stored)| stored.document.state == EdgeState::Admitted)
    }

    /// What no agent has.
    pub(super) fn no_edges_identity(&self, key: &str) -> Done {
        let known = key.parse().ok().and_then(|key| self.edge_of(key));
        match known.filter(|edge| edge.state == EdgeState::Admitted) {
            None => Ok(()),
            Some(Edge { name, .. }) => {
                Err(Refusal::IdentityTaken { key: key.to_owned(), of: format!("edge `{name}`") })
            }
        }
    }

    /// Two lines of `keyway identity` look alike.
    fn no_agents_identity(&self, key: Fingerprint) -> Done {
        let text = key.to_string();
        self.model().node_of_agent(&text).map_or(Ok(()), |node| {
            Err(Refusal::IdentityTaken {
                key: text.clone(),
                of: format!("the agent of node `{node}`"),
            })
        })
    }

    /// The name, or the first with a number behind it that is no admitted edge's.
    fn free_edge_name(&self, name: &Label) -> Label {
        let numbered = (2..=EDGES_MAX + 2).filter_map(|number| {
            let behind = format!("-{number}");
            let room = LABEL_BYTES_MAX - behind.len();
            let begin = name.as_str().get(..room).unwrap_or(name.as_str());
            Label::new(&format!("{begin}{behind}")).ok()
        });
        let mut all = std::iter::once(name.clone()).chain(numbered);
        all.find(|name| !self.is_admitted(name)).unwrap_or_else(|| name.clone())
    }
}

fn read(identity: &str) -> Result<PublicKey, Refusal> {
    edge_identity(identity).map_err(|fix| {
        Refusal::invalid(format_args!("`{}` is no identity of an edge", plain(identity)), fix)
    })
}

#[cfg(test)]
#[path = "edges_tests.rs"]
mod tests;
