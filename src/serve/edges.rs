//! The edges of the registry, and this process among them: who may hand sessions to agents. Agents
//! are told by the feed; this edge hands nothing over once its own identity is removed. What was
//! removed is kept beside the store too, which an older backup may replace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::{fs, iter};

use super::last_said::{LastSaid, removed_edge};
use super::start::Failure;
use crate::control::api::condition::PartState;
use crate::control::feed::Hub;
use crate::edge::Edge;
use crate::edge::handoff::Part;
use crate::edge::shared::Shared;
use crate::registry::document::{self, EdgeState};
use crate::registry::draft::Written;
use crate::registry::refusal::utc;
use crate::registry::writer::{CommandRequest, Mode};
use crate::registry::{Command, Document, Key, Label, Service, edge_identity};
use crate::route::LABEL_BYTES_MAX;
use crate::ssh::publickey::{Fingerprint, PublicKey};
use crate::state::{RemovedEdge, State};

/// What an edge is called whose host's name is none here.
const UNNAMED: &str = "edge";

/// What is known of edges.
pub(super) struct Edges {
    /// Of this process.
    own: PublicKey,
    /// What it is called unless somebody has named it.
    name: Label,
    state: State,
    shared: Arc<Shared>,
    /// The edge, once it runs.
    pub(super) edge: Arc<OnceLock<Weak<Edge>>>,
    /// Whoever follows from elsewhere.
    pub(super) hub: Arc<Hub>,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    /// Nothing before the registry is read.
    known: Option<BTreeMap<Fingerprint, document::Edge>>,
    /// Removed, as was kept beside the store. It counts until the registry is known to say it too.
    kept: BTreeMap<Fingerprint, RemovedEdge>,
    /// What is kept there now.
    on_disk: Vec<RemovedEdge>,
    /// The registry says it all, and what is kept follows it.
    is_settled: bool,
    /// Nothing is kept by a process that drains: its successor does.
    drains: bool,
    /// Of these a newer program wrote what cannot be read here: it may be a removal.
    unread: BTreeSet<Fingerprint>,
    /// The registry did not take this process's identity: nobody could remove it.
    is_refused: bool,
}

impl Edges {
    /// As they are known beside the store.
    ///
    /// # Errors
    /// They cannot be read; or this process is no edge.
    pub(super) fn new(state: &State, shared: &Arc<Shared>) -> Result<Self, Failure> {
        let Part::Edge(links) = &shared.part else { return Err("this process is no edge".into()) };
        let on_disk = state.removed_edges()?;
        let kept = on_disk.iter().cloned();
        let kept = kept
            .filter_map(|edge| Some((edge_identity(&edge.identity).ok()?.fingerprint(), edge)))
            .collect();
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let edges = Self {
            own: links.identity_key().clone(),
            name: host_label(&host).map_or_else(|| Label::new(UNNAMED), Ok)?,
            state: state.clone(),
            shared: Arc::clone(shared),
            edge: Arc::default(),
            hub: Arc::default(),
            all: Mutex::new(All { kept, on_disk, ..All::default() }),
        };
        edges.tell(&edges.all());
        Ok(edges)
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry was read, at a start or anew.
    pub(super) fn are(&self, edges: impl IntoIterator<Item = document::Edge>) {
        let known = edges
            .into_iter()
            .filter_map(|edge| Some((edge_identity(&edge.key).ok()?.fingerprint(), edge)));
        let known = known.collect();
        self.change(|all| {
            all.known = Some(known);
            all.unread.clear();
        });
    }

    /// Something was written into the registry.
    pub(super) fn follow(&self, written: &[Written]) {
        if !written.iter().any(|written| matches!(written.key, Key::Edge(_))) {
            return;
        }
        self.change(|all| {
            let All { known, kept, unread, .. } = all;
            let known = known.get_or_insert_default();
            for Written { key, now, .. } in written {
                match (key, now) {
                    (Key::Edge(key), Some(Document::Edge(edge))) => {
                        if edge.state == EdgeState::Admitted {
                            kept.remove(key);
                        }
                        known.insert(*key, edge.clone());
                        unread.remove(key);
                    }
                    (Key::Edge(key), _) => drop(unread.insert(*key)),
                    (_, _) => {}
                }
            }
        });
    }

    /// The registry was read, and adopted if need be: it is right, and what is kept follows it from
    /// now on. What was removed, and it knows nothing of or only from before, is told to it: no
    /// registry that is begun anew, and no old copy, is a way back.
    pub(super) fn settle(&self, service: &Service) {
        let all = service.read(|model| {
            let documents = model.edges().values().map(|stored| stored.document.clone());
            documents.collect::<Vec<_>>()
        });
        self.are(all);
        let unknown: Vec<CommandRequest> = {
            let all = self.all();
            let known = all.known.iter().flat_map(BTreeMap::values);
            let last = LastSaid::of(known, all.kept.values().cloned(), iter::empty());
            last.orders().map(CommandRequest::of_itself).collect()
        };
        let told = service.carry_out_all(unknown, Mode::Real);
        if let Some(failed) = told.into_iter().find_map(Result::err) {
            // It goes on being kept here.
            return tracing::warn!("the registry is not told which edges were removed: {failed}");
        }
        self.change(|all| all.is_settled = true);
    }

    /// A store that was replaced knows that these were admitted after their removal.
    pub(super) fn were_admitted(&self, keys: &[Fingerprint]) {
        self.change(|all| all.kept.retain(|key, _| !keys.contains(key)));
    }

    /// Keeps nothing from now on.
    pub(super) fn drains(&self) {
        self.all().drains = true;
    }

    fn change(&self, change: impl FnOnce(&mut All)) {
        let mut all = self.all();
        let own = self.own.fingerprint();
        let before = all.admits(&own);
        change(&mut all);
        // Rights first, the disk after.
        self.tell(&all);
        if before != all.admits(&own) {
            if before {
                tracing::error!("{}", self.removed(&all));
            } else {
                tracing::info!(identity = %own, "this front door's identity is admitted again");
            }
        }
        self.keep(&mut all);
    }

    /// Whoever is told has the latest: under the lock.
    fn tell(&self, all: &All) {
        let own = self.own.fingerprint();
        let admitted = all.admits(&own);
        if let Some(edge) = self.edge.get().and_then(Weak::upgrade) {
            edge.admit(admitted);
        } else {
            self.shared.admit(admitted);
        }
        let known = all.known.iter().flatten();
        let of_others = known.map(|(key, _)| key).filter(|key| **key != own && all.admits(key));
        self.hub.edges(of_others.chain(admitted.then_some(&own)).map(|key| key.0).collect());
    }

    fn keep(&self, all: &mut All) {
        if !all.is_settled || all.drains {
            return;
        }
        let known = all.known.iter().flat_map(BTreeMap::values);
        let removed = known.filter(|edge| edge.state == EdgeState::Removed);
        let removed: Vec<RemovedEdge> = removed.map(removed_edge).collect();
        if removed == all.on_disk {
            return;
        }
        match self.state.note_removed_edges(&removed) {
            Ok(()) => all.on_disk = removed,
            Err(fault) => tracing::warn!("which edges were removed is not kept: {fault}"),
        }
    }

    /// This process makes itself known to the registry, if nothing is known of it; one that was
    /// removed says so.
    pub(super) fn register(&self, service: Option<&Arc<Service>>) {
        if let Some(trouble) = self.trouble() {
            return tracing::error!("{trouble}");
        }
        let own = self.own.fingerprint();
        let is_known = self.all().known.as_ref().is_some_and(|known| known.contains_key(&own));
        let Some(service) = service.filter(|_| !is_known) else { return };
        let command =
            Command::EdgeRegister { name: self.name.clone(), identity: self.own.to_line() };
        match service.carry_out(CommandRequest::of_itself(command), Mode::Real) {
            Ok(_) => tracing::info!(identity = %own, "this front door is registered as an edge"),
            Err(failed) => {
                tracing::error!("this front door is not registered as an edge: {failed}");
                self.change(|all| all.is_refused = true);
            }
        }
    }

    /// Why this process hands nothing over, if so.
    pub(super) fn trouble(&self) -> Option<String> {
        let all = self.all();
        (!all.admits(&self.own.fingerprint())).then(|| self.removed(&all))
    }

    /// How it is with this process, for people.
    pub(super) fn status(&self) -> (PartState, String) {
        if let Some(trouble) = self.trouble() {
            return (PartState::Down, trouble);
        }
        let (all, own) = (self.all(), self.own.fingerprint());
        match all.known.as_ref().map(|known| known.get(&own)) {
            Some(Some(edge)) => (PartState::Up, format!("{own} is edge {}", edge.name)),
            Some(None) => {
                let fix =
                    format!("`keyway edge add {} --identity '{}'`", self.name, self.own.to_line());
                (PartState::Down, format!("{own} is not in the registry, see the log; fix: {fix}"))
            }
            None => (PartState::Up, own.to_string()),
        }
    }

    /// What is wrong once it is removed, and what brings it back.
    fn removed(&self, all: &All) -> String {
        let own = self.own.fingerprint();
        let known = all.known.as_ref().and_then(|known| known.get(&own));
        if known.is_none() && !all.kept.contains_key(&own) {
            return format!(
                "the identity of this front door, {own}, is not in the registry, see the log: no session is handed to an \
                 agent; fix: `keyway edge add {} --identity '{}'`",
                self.name,
                self.own.to_line()
            );
        }
        let name = known.map(|edge| edge.name.to_string());
        let name = name.or_else(|| Some(all.kept.get(&own)?.name.clone())).unwrap_or_default();
        let by = known
            .map_or_else(String::new, |edge| format!(" at {} by {}", utc(edge.since_s), edge.by));
        format!(
            "the identity of this front door, {own}, edge {name}, was removed{by}: no session is handed to an agent; if it \
             is to be an edge again: `keyway edge add {name} --identity '{}'`",
            self.own.to_line()
        )
    }
}

impl All {
    /// Whether agents take sessions from it. Of this process too where nothing is known: it has
    /// yet to make itself known.
    fn admits(&self, key: &Fingerprint) -> bool {
        let known = self.known.as_ref().and_then(|known| known.get(key));
        let is_kept = !self.is_settled && self.kept.contains_key(key);
        let is_unsure = is_kept || self.unread.contains(key);
        !is_unsure && known.map_or(!self.is_refused, |edge| edge.state == EdgeState::Admitted)
    }
}

/// What a host is called, as a label, if anything of it can be one.
fn host_label(name: &str) -> Option<Label> {
    let first = name.trim().split('.').next()?.to_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = first.chars().map(plain).take(LABEL_BYTES_MAX).collect();
    Label::new(name.trim_matches('-')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_name_that_can_be_a_label_has_none() {
        let named = |name: &str| host_label(name).map(|label| label.to_string());
        assert_eq!(named("edge1\n").as_deref(), Some("edge1"));
        assert_eq!(named("Edge_1.example.test").as_deref(), Some("edge-1"));
        assert_eq!(named(&"x".repeat(99)).as_deref(), Some(&*"x".repeat(63)));
        for wrong in ["", "-", "\u{e9}", ".example"] {
            assert_eq!(named(wrong), None, "{wrong:?}");
        }
        assert_eq!(named("(none)").as_deref(), Some("none"));
    }
    #[test]
    fn what_nobody_could_remove_or_nobody_can_read_is_not_admitted() {
        let key = Fingerprint([1; 32]);
        let mut all = All::default();
        assert!(all.admits(&key), "it has yet to make itself known");
        all.unread.insert(key);
        assert!(!all.admits(&key), "a newer program wrote it");
        all.unread.clear();
        all.is_refused = true;
        assert!(!all.admits(&key), "it could not make itself known");
    }
}
