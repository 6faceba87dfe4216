//! Edges come and go, by their identities. One that goes is remembered: it comes back by a command
//! of somebody who means it, and never by itself.

use super::{Done, limit, taken};
use crate::registry::command::Options;
use crate::registry::document::{Document, Edge, EdgeState, Key, Origin};
use crate::registry::draft::Draft;
use crate::registry::name::Label;
use crate::registry::refusal::{Kind, Refusal};
use crate::registry::values::{edge_identity, plain};
use crate::ssh::publickey::{Fingerprint, PublicKey};

/// Identities that are known, those that were removed too: each is told to every agent.
const EDGES_MAX: usize = 4096;
/// Longest name, in bytes (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 63;

impl Draft<'_> {
    pub(super) fn edge_add(&mut self, name: &Label, identity: &str, options: Options) -> Done {
        let key = read(identity)?;
        let known = self.edge_of(key.fingerprint());
        let origin = options.origin;
        if let Some(known) = &known {
            if known.state == EdgeState::Admitted {
                let of = format!("edge `{}`", known.name);
                return Err(Refusal::IdentityTaken { key: key.fingerprint().to_string(), of });
            }
            // A file brings back what it took away itself.
            if origin == Origin::Fleet && known.origin != Origin::Fleet {
                let Edge { name, since_s, by, .. } = known.clone();
                return Err(Refusal::EdgeRemoved { name, since_s, by });
            }
        }
        if self.is_admitted(name) {
            return taken(name, "another edge");
        }
        self.put_edge(name, &key, EdgeState::Admitted, origin)
    }

    pub(super) fn edge_register(&mut self, name: &Label, identity: &str) -> Done {
        let key = read(identity)?;
        if self.edge_of(key.fingerprint()).is_some() {
            return Ok(());
        }
        let name = self.free_edge_name(name);
        self.put_edge(&name, &key, EdgeState::Admitted, Origin::Command)
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
            if edge.state == EdgeState::Removed {
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

    /// As it stands, for whoever changes whose it is.
    pub(super) fn edge(&self, name: &Label) -> Result<(Key, Edge), Refusal> {
        let (key, stored) =
            self.model().edge_named(name).ok_or_else(|| Refusal::unknown(Kind::Edge, name))?;
        Ok((Key::Edge(key), stored.document.clone()))
    }

    fn put_edge(
        &mut self,
        name: &Label,
        key: &PublicKey,
        state: EdgeState,
        origin: Origin,
    ) -> Done {
        let fingerprint = key.fingerprint();
        if state == EdgeState::Admitted {
            self.no_agents_identity(fingerprint)?;
        }
        let (known, edges) = (self.edge_of(fingerprint).is_some(), self.model().edges().len());
        limit(edges + usize::from(!known), EDGES_MAX, || "edges, with those removed".to_owned())?;
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
        let its = self.model().nodes().iter().find(|(_, stored)| {
            stored.document.agent.as_ref().is_some_and(|agent| agent.key.as_ref() == Some(&text))
        });
        its.map_or(Ok(()), |(node, _)| {
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
            let room = NAME_BYTES_MAX - behind.len();
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
