//! What the API shows and does that is not in the registry: sessions, host keys, the zone, and why
//! a login goes where it goes, by the edge's own code.

use std::path::Path;
use std::sync::{Arc, Weak};

use super::events::Asking;
use super::explain::Walk;
use super::health::Health;
use super::nodes::Nodes;
use super::vm_ca;
use crate::control::api::condition::{Reload, Reloaded, Status};
use crate::control::api::dto::{
    Carried, Decision, Explanation, HostKey, Link, Session, SessionState, Step,
};
use crate::control::api::{self, DataPlane, DataPlaneError, Question, WriteText};
use crate::control::dns::{Zone, export};
use crate::edge::handoff::{LinkShown, Part};
use crate::edge::pump::Carry;
use crate::edge::report::RequestId;
use crate::edge::shared::Shared;
use crate::edge::{Edge, Present, Progress, clock};
use crate::registry::Service;
use crate::registry::store::{Sqlite, StoreError};
use crate::ssh::publickey::Fingerprint;

/// All of one process that the API may ask.
pub(super) struct LiveDataPlane {
    pub(super) shared: Arc<Shared>,
    pub(super) service: Arc<Service>,
    /// None while the registry is away.
    pub(super) store: Option<Sqlite>,
    pub(super) zone: Option<Arc<Zone>>,
    pub(super) health: Arc<Health>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) asking: Asking,
}

impl LiveDataPlane {
    fn edge(&self) -> Option<Arc<Edge>> {
        self.health.edge.get().and_then(Weak::upgrade)
    }
}

impl DataPlane for LiveDataPlane {
    fn sessions(&self) -> Vec<Session> {
        // Both move with the kernel's tick: the beginning of a session is always the same moment.
        let started_ms = clock::unix_ms().saturating_sub(clock::monotonic_ms());
        let all = self.edge().map(|edge| edge.sessions()).unwrap_or_default();
        all.into_iter().map(|present| session(present, started_ms)).collect()
    }

    fn links(&self) -> Vec<Link> {
        let Part::Edge(links) = &self.shared.part else { return Vec::new() };
        links.shown().into_iter().map(link).collect()
    }

    fn nodes(&self) -> &dyn api::Nodes {
        &*self.nodes
    }

    fn end_session(&self, id: &str) -> bool {
        let id = u64::from_str_radix(id, 16).ok().filter(|_| id.len() == 16);
        id.zip(self.edge()).is_some_and(|(id, edge)| edge.kill(RequestId(id)))
    }

    fn explain(&self, question: &Question) -> Explanation {
        let live = self.shared.live.load();
        let walk = Walk::new(&self.shared.table, &live, clock::unix_s());
        let explained = walk.explain(question, self.shared.settings.zone.as_deref());
        match self.health.edges.trouble() {
            Some(why) if explained.carried == Some(Carried::Handoff) => not_handed(explained, why),
            Some(_) | None => explained,
        }
    }

    fn host_keys(&self) -> Vec<HostKey> {
        let live = self.shared.live.load();
        let keys = live.server.host_keys().iter().map(|host_key| host_key.key.public());
        keys.map(|key| HostKey {
            key_type: key.to_line().split(' ').next().unwrap_or_default().to_owned(),
            fingerprint: key.fingerprint().to_string(),
            line: key.to_line(),
        })
        .collect()
    }

    fn ca(&self) -> Option<Fingerprint> {
        vm_ca::in_use(&self.shared)
    }

    fn zone(&self) -> Option<WriteText> {
        let zone = Arc::clone(self.zone.as_ref()?);
        Some(Box::new(move |into| export::write(&zone, into)))
    }

    fn status(&self) -> Status {
        self.health.status(vm_ca::is(&self.service, &self.shared))
    }

    fn reload(&self, order: Reload) -> Option<Reloaded> {
        self.asking.reload(order)
    }

    fn backup(&self, to: &Path) -> Result<(), DataPlaneError> {
        let away = || DataPlaneError::Failed("the registry is away".to_owned());
        self.store.as_ref().ok_or_else(away)?.backup(to).map_err(|fault| {
            let kind = if matches!(fault, StoreError::Exists { .. }) {
                DataPlaneError::Exists
            } else {
                DataPlaneError::Failed
            };
            kind(fault.to_string())
        })
    }
}

/// An agent would carry it, and takes nothing from this front door.
fn not_handed(explained: Explanation, why: String) -> Explanation {
    let Explanation { mut steps, .. } = explained;
    steps.push(Step { step: "edge".to_owned(), answer: why.clone() });
    let (decision, code) = (Decision::Refused, "edge-removed".to_owned());
    Explanation { decision, carried: None, reason: why, code, steps, ..explained }
}

fn link(shown: LinkShown) -> Link {
    let LinkShown { peer, state, since_s, sessions, trouble } = shown;
    let (error_s, error) = trouble.unzip();
    Link {
        node: peer.node,
        agent: peer.address,
        agent_key: peer.key.to_string(),
        state: state.as_str().to_owned(),
        since_s,
        sessions,
        error: error.map(|text| text.to_string()),
        error_s,
    }
}

/// `started_ms`: of the clock of `accepted_ms`, in Unix milliseconds.
fn session(present: Present, started_ms: u64) -> Session {
    let Present { report, progress, carry, up_bytes, down_bytes } = present;
    let admitted = report.admitted.as_ref();
    Session {
        id: report.request.to_string(),
        state: match progress {
            Progress::Lobby => SessionState::Lobby,
            Progress::Dialling => SessionState::Dialling,
            Progress::Established => SessionState::Established,
        },
        user: report.user.as_deref().unwrap_or_default().to_owned(),
        fingerprint: report.who.as_ref().map(|who| who.fingerprint.to_string()).unwrap_or_default(),
        vm: admitted.map(|admitted| admitted.vm.name.clone()).unwrap_or_default(),
        address: report.address.as_ref().map(|it| it.name.clone()).unwrap_or_default(),
        login: admitted.map(|admitted| admitted.login.clone()).unwrap_or_default(),
        client: report.client.to_string(),
        carry: carry.map_or("", Carry::as_str).to_owned(),
        since_s: started_ms.saturating_add(report.accepted_ms) / 1000,
        up_bytes,
        down_bytes,
    }
}
