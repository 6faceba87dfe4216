//! How each part of a front door is, for `keyway status`, the metrics and the probes of others.

#![expect(clippy::disallowed_methods, reason = "saved routes have an age")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::SystemTime;

use super::edges::Edges;
use crate::control::api::condition::{Counts, Part, PartState, PartStatus, State, Status};
use crate::edge::{Edge, clock};
use crate::metrics;
use crate::registry::writer::StoreHealth;
use crate::state::routes::Unsaved;

/// Of a door that has lost a thread.
pub(super) const FALLEN: &str = "a thread of it has ended, see the log; restart keyway";

/// What every part says of itself, kept where anybody may look.
pub(super) struct Health {
    pub(super) edge: Arc<OnceLock<Weak<Edge>>>,
    pub(super) edges: Arc<Edges>,
    pub(super) revision: Arc<AtomicU64>,
    /// Whether the routes are kept for a start without the registry.
    pub(super) unsaved: Arc<Unsaved>,
    counted: Arc<metrics::Registry>,
    since_s: u64,
    sessions_max: u64,
    half_open_max: u64,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    drains: bool,
    registry: Registry,
    fleet_file: FleetFile,
    api: Vec<String>,
    dns: Vec<SocketAddr>,
    metrics: Option<SocketAddr>,
}

/// How the registry is.
#[derive(Clone, Debug, Default)]
pub(super) enum Registry {
    /// It is being read; the routes are those saved last.
    #[default]
    Reading,
    /// It is open; its store tells whether it can be changed.
    Open(StoreHealth),
    /// It cannot be opened: the routes that were saved last stand in for it.
    Away {
        /// When they were saved.
        saved: SystemTime,
        /// What is wrong with it.
        why: String,
    },
}

/// What came of the fleet file that was named last: what was done, or why it is not in force. For
/// people, line by line.
pub(super) type FleetFile = Option<Result<String, String>>;

impl Health {
    pub(super) fn new(
        counted: &Arc<metrics::Registry>,
        (sessions_max, half_open_max): (usize, u32),
        edges: Edges,
    ) -> Arc<Self> {
        Arc::new(Self {
            edge: Arc::clone(&edges.edge),
            edges: Arc::new(edges),
            revision: Arc::default(),
            unsaved: Arc::default(),
            counted: Arc::clone(counted),
            since_s: clock::unix_s(),
            sessions_max: u64::try_from(sessions_max).unwrap_or(u64::MAX),
            half_open_max: half_open_max.into(),
            said: Mutex::default(),
        })
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn registry_is(&self, registry: Registry) {
        self.said().registry = registry;
    }

    pub(super) fn fleet_file_is(&self, fleet_file: FleetFile) {
        self.said().fleet_file = fleet_file;
    }

    pub(super) fn api_is(&self, socket: &Path, tls: Option<SocketAddr>) {
        let tls = tls.map(|address| format!("https://{address}"));
        self.said().api = std::iter::once(socket.display().to_string()).chain(tls).collect();
    }

    pub(super) fn dns_is(&self, addresses: &[SocketAddr]) {
        self.said().dns = addresses.to_vec();
    }

    pub(super) fn metrics_are(&self, address: SocketAddr) {
        self.said().metrics = Some(address);
    }

    /// Nobody more is let in.
    pub(super) fn drains(&self) {
        self.said().drains = true;
    }

    /// When the routes were saved that stand in for the registry, if they do.
    pub(super) fn saved(&self) -> Option<SystemTime> {
        match &self.said().registry {
            Registry::Away { saved, .. } => Some(*saved),
            Registry::Reading | Registry::Open(_) => None,
        }
    }

    /// Whether the registry can be changed.
    pub(super) fn registry_is_up(&self) -> bool {
        registry(&self.said().registry).0 == PartState::Up
    }

    /// Whether this process works as far as it can tell: a door that is shut on purpose does.
    pub(super) fn is_healthy(&self) -> Result<String, String> {
        match self.edge.get().and_then(Weak::upgrade) {
            Some(edge) if edge.has_fallen() => Err(FALLEN.to_owned()),
            Some(_) | None => Ok("ok".to_owned()),
        }
    }

    /// Whether people are let in; what else does not work is told beside.
    pub(super) fn is_ready(&self) -> Result<String, String> {
        let parts = self.parts();
        let lines: Vec<String> = parts
            .iter()
            .filter(|part| part.state == PartState::Down)
            .map(|part| format!("{:?}: {}", part.part, part.detail))
            .collect();
        let shut = |part: &PartStatus| part.part == Part::Door && part.state == PartState::Down;
        if parts.iter().any(shut) {
            return Err(lines.join("\n"));
        }
        Ok(if lines.is_empty() { "ok".to_owned() } else { lines.join("\n") })
    }

    /// `vm_ca`: the part that others know.
    pub(super) fn status(&self, (state, detail): (PartState, String)) -> Status {
        let mut parts = self.parts();
        parts.push(PartStatus { part: Part::VmCa, state, detail });
        let down = |part: &PartStatus| part.state == PartState::Down;
        let state = if parts.iter().any(|part| part.part == Part::Door && down(part)) {
            State::Down
        } else if parts.iter().any(down) {
            State::Degraded
        } else {
            State::Up
        };
        let held = self.counted.inventory();
        Status {
            state,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            since_s: self.since_s,
            revision: self.revision.load(Ordering::Relaxed),
            counts: Counts {
                sessions: self.counted.sessions(),
                sessions_max: self.sessions_max,
                half_open: self.counted.half_open(),
                half_open_max: self.half_open_max,
                users: held.users,
                keys: held.keys,
                vms: held.vms,
                addresses: held.addresses,
            },
            parts,
        }
    }

    fn parts(&self) -> Vec<PartStatus> {
        let said = self.said();
        let part = |part, (state, detail)| PartStatus { part, state, detail };
        vec![
            part(Part::Door, self.door(&said)),
            part(Part::Registry, registry(&said.registry)),
            part(Part::Api, (PartState::Up, said.api.join(", "))),
            part(Part::Dns, listening(&said.dns)),
            part(Part::Metrics, listening(said.metrics.as_slice())),
            part(Part::FleetFile, fleet_file(&said.fleet_file)),
            part(Part::Identity, self.edges.status()),
        ]
    }

    fn door(&self, said: &Said) -> (PartState, String) {
        let Some(edge) = self.edge.get().and_then(Weak::upgrade) else {
            return (PartState::Down, "it is not open yet".to_owned());
        };
        if said.drains {
            return (PartState::Down, "it drains: nobody more is let in".to_owned());
        }
        if edge.has_fallen() {
            return (PartState::Down, FALLEN.to_owned());
        }
        listening(edge.addresses())
    }
}

fn listening(addresses: &[SocketAddr]) -> (PartState, String) {
    let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let state = if shown.is_empty() { PartState::Off } else { PartState::Up };
    (state, shown.join(", "))
}

fn registry(registry: &Registry) -> (PartState, String) {
    match registry {
        Registry::Open(store) => match store.fault() {
            None => (PartState::Up, String::new()),
            Some(why) => {
                (PartState::Down, format!("{why}; nothing can be changed until the store takes it"))
            }
        },
        Registry::Reading => {
            (PartState::Down, "it is being read; nothing can be changed yet".to_owned())
        }
        Registry::Away { saved, why } => {
            let age_s = saved.elapsed().map_or(0, |age| age.as_secs());
            let what = format!(
                "{why}; the routes are those saved {age_s} s ago and nothing can be changed: mend it and restart keyway"
            );
            (PartState::Down, what)
        }
    }
}

fn fleet_file(fleet_file: &FleetFile) -> (PartState, String) {
    match fleet_file {
        None => (PartState::Off, String::new()),
        Some(Ok(what)) => (PartState::Up, what.clone()),
        Some(Err(why)) => (PartState::Down, why.clone()),
    }
}
