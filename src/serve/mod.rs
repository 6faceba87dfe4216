//! `keyway serve`: configuration and registry -> a running front door, until a signal ends it.
//!
//! SIGHUP reads the files again and replaces what can be replaced under live sessions; SIGTERM
//! drains, and a second one ends the drain; SIGINT ends at once.
//! - `agent`: `keyway agent`, the other end of a handoff.
//! - `control_plane`: the registry with its API and DNS, beside the edge.
//! - `route_feed`: from the registry to the routing map; `adoption`: what a store of another
//!   history is asked before it is believed.
//! - `first_use`: host keys of VMs, from the edge to the registry.
//! - `start`: what it starts from, read again where it had to wait.
//! - `process`: what every role begins with, and its loop; `events`: signals, and what the API asks
//!   for; `turn`: two processes on one state directory; `door`: what the edge is started with;
//!   `drain`: the end of it all.
//! - `reload`: the files read again; `rights`: what takes access away; `fixed`: what of the files
//!   takes a restart.
//! - `health`: how each part is; `notify`: systemd; `told`: what the log says of all of them.
//! - `front_door`: what agents have to know of it, told and heard; `edges`: who may hand sessions
//!   to them; `last_said`: whether an edge was admitted or removed last.
//! - `nodes`: the nodes of the registry, reached, and how they are found.
//! - `vm_ca`: whether the VMs were prepared for the CA in use.
//! - `dns_names`, `data_plane`, `explain`: what DNS and the API ask of the edge; `gauges`: what
//!   they add to the metrics.

mod adoption;
mod agent;
mod control_plane;
mod data_plane;
mod dns_names;
mod door;
mod drain;
mod edges;
mod events;
mod explain;
mod first_use;
mod fixed;
mod front_door;
mod gauges;
mod health;
mod last_said;
mod last_words;
mod nodes;
mod notify;
mod process;
mod reload;
mod rights;
mod route_feed;
mod start;
mod told;
mod turn;
mod vm_ca;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub(crate) use self::agent::shared_by_agent;
pub use self::agent::{AgentStart, JoinFault, KeptTerms, Meeting, Terms, agent};
use self::control_plane::{ControlPlane, Opens};
pub(crate) use self::door::shared;
use self::door::{at, inventory};
use self::drain::Leaves;
use self::edges::Edges;
use self::events::Events;
use self::first_use::{Applied, InRegistry};
use self::fixed::Fixed;
use self::gauges::Gauges;
use self::health::Health;
use self::process::Role;
use self::start::StartsFrom;
pub use self::start::{Failure, Start};
use self::turn::{Taken, follow_at_the_doors};
use crate::config::{self, Config, Files, Fleet, Loaded};
use crate::control::api::condition::{Reload, Reloaded};
use crate::control::metrics_endpoint::{self, Pages};
use crate::edge::handoff::{Links, Part};
use crate::edge::shared::Shared;
use crate::edge::{Edge, clock};
use crate::host;
use crate::metrics::Registry;
use crate::registry::apply::served_file::RemovalsMax;
use crate::ssh::entropy::SystemEntropy;
use crate::state::{Doors, Lock, State};

/// Runs the front door that `start` describes.
///
/// # Errors
/// What kept it from starting; once it runs it ends by signals only.
pub fn serve(start: Start) -> Result<(), Failure> {
    let Start { files, mut loaded } = start;
    process::run(loaded.config.edge.log, |events| {
        let config = files.config.as_deref().or_else(config::usual);
        told::begins("keyway", config, files.fleet.as_deref(), &loaded.config.state_dir);
        if let Some(odd) = host::check(&loaded.config.edge, host::descriptors()?) {
            loaded.warn_of_counts(odd);
        }
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        Running::start(files, loaded, events)
    })
}

/// A front door that runs.
struct Running {
    /// Ends first: nothing may ask an edge that is gone.
    plane: ControlPlane,
    edge: Arc<Edge>,
    shared: Arc<Shared>,
    state: State,
    lock: Lock,
    files: Files,
    /// What stays as it is until a restart.
    fixed: Fixed,
    /// The list of what is revoked that was named last.
    revoked_keys: Option<PathBuf>,
    health: Arc<Health>,
    drain: Duration,
    counted: Arc<Registry>,
    /// For others to see.
    doors: Arc<Doors>,
    metrics: metrics_endpoint::Handle,
}

impl Running {
    fn start(files: Files, loaded: Loaded, events: &Events) -> Result<Self, Failure> {
        let Loaded { config, fleet, .. } = loaded;
        let state = State::open(&config.state_dir)?;
        let taken = Taken::take(state, &config.edge, events)?;
        let from = if taken.turn.has_waited() {
            StartsFrom::read_again(&files, config)
        } else {
            StartsFrom { config, fleet: fleet.map(Ok) }
        };
        Self::in_turn(taken, files, from, events)
    }

    fn in_turn(
        taken: Taken,
        files: Files,
        from: StartsFrom,
        events: &Events,
    ) -> Result<Self, Failure> {
        let Taken { state, doors, cpus, reserved, lock, turn } = taken;
        let StartsFrom { mut config, fleet } = from;
        rights::follow_files(&state, files.config.as_deref().or_else(config::usual));
        // Not who was there before the turn came.
        let beside = doors.others()?;
        let budget = host::raise_descriptors()?;
        let sessions_max = usize::try_from(host::count(config.edge.sessions_max, budget.sessions))?;
        let half_open_max = host::count(config.edge.half_open_max, budget.half_open);
        let (drain, metrics_listen) = (config.edge.drain, config.metrics.listen);
        let fixed = Fixed::of(&config);
        let revoked_keys = config.edge.revoked_keys.clone();
        let removals_max = config.fleet_file.removals_max;
        let settings = control_plane::Settings::new(&mut config);
        let first_use = Arc::new(InRegistry::new(state.old_pins()?));
        let pinning = Arc::clone(&first_use);
        let part = part(&state)?;
        let Config { edge, vm_leg, .. } = config;
        let mut shared = shared(edge, vm_leg, None, &state, sessions_max, pinning)?.playing(part);
        shared.settings.zone = settings.apex();
        let shared = Arc::new(shared);
        let counted = Arc::clone(&shared);
        let registry = Arc::new(Registry::new(clock::unix_s(), move || inventory(&counted.table)));
        let edges = Edges::new(&state, &shared)?;
        let health = Health::new(&registry, (sessions_max, half_open_max), edges);
        let opens = if fleet.is_some() { Opens::OnceRead } else { Opens::AtOnce };
        let mut plane = ControlPlane::start(
            settings,
            Arc::clone(&shared),
            Arc::clone(&first_use),
            Arc::clone(&health),
            opens,
        )?;
        let applied = match fleet {
            None => Applied::Whole,
            Some(fleet) => apply_at_start(&plane, fleet, removals_max, &health),
        };
        // Everything is taken before anybody is let in.
        let metrics = metrics_endpoint::reserve(metrics_listen)?;
        plane.reserve(beside.is_some())?;
        let shards = cpus.len();
        let at = (reserved, beside.unwrap_or(0), cpus);
        let edge = door::open(at, half_open_max, &shared, &registry)?;
        plane.serve(&edge, events.asking())?;
        // The predecessor goes now.
        drop(turn);
        follow_at_the_doors(&doors, beside, shards, &edge)?;
        first_use.import(applied);
        let metrics = metrics.serve(pages(&registry, plane.gauges(), &health, &shared))?;
        health.metrics_are(metrics.address());
        told::empty_pool(&shared.table);
        tracing::info!(
            metrics = %metrics.address(),
            sessions_max,
            half_open_max,
            "keyway {} is up",
            env!("CARGO_PKG_VERSION")
        );
        Ok(Self {
            plane,
            edge,
            shared,
            state,
            lock,
            files,
            fixed,
            revoked_keys,
            health,
            drain,
            counted: registry,
            doors,
            metrics,
        })
    }
}

impl Role for Running {
    fn status(&self) -> String {
        format!("letting people in at {}", at(&self.edge))
    }

    fn reload(&mut self, order: Reload) -> Option<Reloaded> {
        Some(self.reload(order))
    }

    #[expect(clippy::disallowed_methods, reason = "sessions that go on are told by a thread")]
    fn drain(self, events: Events) {
        let Self { plane, edge, shared, state, lock, doors, files, revoked_keys, .. } = self;
        let Self { health, drain, metrics, counted, .. } = self;
        let (of, with) = (Arc::clone(&edge), Arc::clone(&shared));
        let withdraw = move |config: Option<PathBuf>| {
            // Without a file there is nothing that could have changed.
            let own = || files.config.clone().or_else(|| config::usual().map(PathBuf::from));
            if let Some(config) = config.or_else(own) {
                rights::follow(&of, &with, &config, revoked_keys.as_deref());
            }
        };
        let withdraw = Box::new(withdraw);
        let leaves = Leaves { edge, shared, state, doors, patience: drain, counted, withdraw };
        leaves.drain(events, || {
            drop(metrics);
            let (follower, dns) = plane.hand_over();
            drop(lock);
            health.drains();
            if let Some(follower) = follower {
                // The process ends with this drain, and this thread with it.
                let thread = std::thread::Builder::new().name("registry-follower".to_owned());
                if let Err(error) = thread.spawn(move || follower.run(&AtomicBool::new(false))) {
                    tracing::error!(
                        "sessions go on without being told what is taken from them: {error}"
                    );
                }
            }
            dns
        });
    }
}

/// Has the registry say what the fleet file says, or says why it does not: what was right before is
/// right still, and a door that is shut helps nobody.
fn apply_at_start(
    plane: &ControlPlane,
    fleet: Result<Fleet, String>,
    removals_max: RemovalsMax,
    health: &Health,
) -> Applied {
    let apply = |fleet: Fleet| plane.apply(&fleet.desired, removals_max, Reload::default()).0;
    let told = fleet.and_then(apply);
    let lines = told.as_ref().err().into_iter().flat_map(|why| why.lines());
    lines.for_each(|line| tracing::error!("{line}"));
    let applied = if told.is_ok() { Applied::Whole } else { Applied::Partly };
    health.fleet_file_is(Some(told));
    applied
}

/// Sessions with VMs on nodes that have an agent are handed to it. Nodes come and go while this
/// runs, so it is always ready.
pub(crate) fn part(state: &State) -> Result<Part, Failure> {
    let identity = state.identity(&mut SystemEntropy::default())?;
    Ok(Part::Edge(Links::start(Arc::new(identity))?))
}

/// What is scraped and probed.
fn pages(
    registry: &Arc<Registry>,
    gauges: Gauges,
    health: &Arc<Health>,
    shared: &Arc<Shared>,
) -> Pages {
    let (registry, shared) = (Arc::clone(registry), Arc::clone(shared));
    let (healthy, ready) = (Arc::clone(health), Arc::clone(health));
    Pages {
        metrics: Arc::new(move || registry.render() + &gauges.render() + &gauges::links(&shared)),
        healthy: Arc::new(move || healthy.is_healthy()),
        ready: Arc::new(move || ready.is_ready()),
    }
}
