//! `keyway agent`: takes sessions from edges that are pinned, and judges each by its own reading of
//! who may go where.
//!
//! The same edge, relay and drain as a front door's, without a registry: its map is a fleet file,
//! or what a control plane sends. SIGHUP reads the files again; SIGTERM drains, and a second one
//! ends the drain; SIGINT ends at once.
//! - `feed`: from what control sends to the map, and to the disk for a start without it.
//! - `join`: how it becomes known there, before it follows for the first time.
//! - `pins`: host keys of VMs, from their first use to a file. `reload`: the files read again;
//!   `again`: what of that does not need an agent that runs.
//! - `used`: which sessions were taken, over a restart. `standing`: how it is, for whoever asks.

mod again;
mod feed;
mod join;
mod pins;
mod reload;
mod standing;
mod start;
mod used;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use self::feed::{Feed, Following, InRegistry, Kept};
pub use self::join::{JoinFault, KeptTerms, Meeting, Terms};
use self::pins::InFile;
use self::standing::{Phase, Standing, ends_s};
pub use self::start::AgentStart;
use super::door::{self, at, identity, inventory, shared};
use super::drain::Leaves;
use super::events::{Asking, Events};
use super::fixed::Fixed;
use super::process::{self, Role};
use super::start::Failure;
use super::turn::{Taken, follow_at_the_doors};
use super::{gauges, health, rights, told};
use crate::config::{
    AgentConfig, AgentFiles, AgentReread, Control, Fleet, LoadedAgent, Replica, reread_agent,
};
use crate::control::api::condition::{Reload, Reloaded};
use crate::control::feed::client;
use crate::control::metrics_endpoint::{self, Pages};
use crate::edge::first_use::FirstUse;
use crate::edge::handoff::{Agent, Part, Trusted};
use crate::edge::shared::Shared;
use crate::edge::{Edge, clock};
use crate::host;
use crate::metrics::Registry;
use crate::route::Snapshot;
use crate::ssh::entropy::SystemEntropy;
use crate::state::{AgentSocket, Doors, Lock, State};

/// Runs the agent that `start` describes.
///
/// # Errors
/// What kept it from starting; once it runs it ends by signals only.
pub fn agent(start: AgentStart) -> Result<(), Failure> {
    let AgentStart { files, mut loaded } = start;
    process::run(loaded.config.edge.log, |events| {
        let AgentConfig { state_dir, replica, edge, .. } = &loaded.config;
        let replica = match replica {
            Replica::File(path) => Some(path.as_path()),
            Replica::Feed(_) => None,
        };
        told::begins("keyway agent", Some(&files.config), replica, state_dir);
        if let Some(odd) = host::check(edge, host::descriptors()?) {
            loaded.warn_of_counts(odd);
        }
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        Running::start(files, loaded, events)
    })
}

/// An agent that runs.
struct Running {
    edge: Arc<Edge>,
    shared: Arc<Shared>,
    state: State,
    lock: Lock,
    files: AgentFiles,
    /// What stays as it is until a restart.
    fixed: Fixed,
    /// The list of what is revoked that was named last.
    revoked_keys: Option<PathBuf>,
    map: Map,
    drain: Duration,
    counted: Arc<Registry>,
    /// For others to see.
    doors: Arc<Doors>,
    metrics: metrics_endpoint::Handle,
    standing: Arc<Standing>,
    /// Its file goes with this.
    socket: Option<AgentSocket>,
}

/// Where the map is from.
enum Map {
    File(Arc<InFile>),
    Feed(Feed),
}

impl Map {
    fn following(&self) -> Option<Following> {
        match self {
            Self::File(_) => None,
            Self::Feed(feed) => Some(feed.following()),
        }
    }
}

impl Running {
    fn start(files: AgentFiles, loaded: LoadedAgent, events: &Events) -> Result<Self, Failure> {
        let LoadedAgent { config, fleet, .. } = loaded;
        let state = own_state(&config.state_dir)?;
        let taken = Taken::take(state, &config.edge, events)?;
        let from = if taken.turn.has_waited() {
            again::read_again(&files, config, fleet)
        } else {
            (config, fleet)
        };
        Self::in_turn(taken, files, from, events.asking())
    }

    fn in_turn(
        taken: Taken,
        files: AgentFiles,
        (mut config, fleet): (AgentConfig, Option<Fleet>),
        asking: Asking,
    ) -> Result<Self, Failure> {
        let Taken { state, doors, cpus, reserved, lock, turn } = taken;
        rights::follow_files(&state, Some(&files.config));
        // Not who was there before the turn came.
        let beside = doors.others()?;
        let budget = host::raise_descriptors()?;
        let sessions_max = usize::try_from(host::count(config.edge.sessions_max, budget.sessions))?;
        let half_open_max = host::count(config.edge.half_open_max, budget.half_open);
        let (drain, metrics_listen) = (config.edge.drain, config.metrics.listen);
        let fixed = Fixed::of_agent(&config);
        let revoked_keys = config.edge.revoked_keys.clone();
        let beginning = Beginning::new(&mut config, fleet, &state)?;
        let shared = Arc::new(takes_over(config, &beginning, &state, sessions_max)?);
        used::keep(&state, &shared)?;
        let counted = Arc::clone(&shared);
        let registry = Arc::new(Registry::new(clock::unix_s(), move || inventory(&counted.table)));
        // Everything is taken before anybody is let in.
        let metrics = metrics_endpoint::reserve(metrics_listen)?;
        let shards = cpus.len();
        let at = (reserved, beside.unwrap_or(0), cpus);
        let edge = door::open(at, half_open_max, &shared, &registry)?;
        // The predecessor goes now.
        drop(turn);
        follow_at_the_doors(&doors, beside, shards, &edge)?;
        let map = beginning.goes_on(&shared, &edge, &state)?;
        let seats = (shared.seats_taken(), sessions_max);
        let metrics = metrics.serve(pages(&registry, (seats, &shared), &edge, &map))?;
        let standing = Arc::new(Standing {
            edge: Arc::downgrade(&edge),
            shared: Arc::clone(&shared),
            counted: Arc::clone(&registry),
            seats_max: sessions_max,
            following: map.following(),
            since_s: clock::unix_s(),
            phase: Mutex::new(Phase::Up),
        });
        let socket = answers(&state, &standing, asking);
        let live = shared.live.load();
        let identity = live.server.host_keys().first().map(|it| it.key.public().fingerprint());
        tracing::info!(
            metrics = %metrics.address(),
            sessions_max,
            half_open_max,
            identity = identity.map(|it| it.to_string()),
            "keyway agent {} is up",
            env!("CARGO_PKG_VERSION")
        );
        drop(live);
        let counted = registry;
        Ok(Self {
            edge,
            shared,
            state,
            lock,
            files,
            fixed,
            revoked_keys,
            map,
            drain,
            counted,
            doors,
            metrics,
            standing,
            socket,
        })
    }
}

/// An agent's state directory, which is made if it is missing. Not a front door's: whoever has the
/// CA of that opens every VM that trusts it.
fn own_state(path: &Path) -> Result<State, Failure> {
    let state = State::open(path)?;
    if state.store().exists() {
        let path = path.display();
        let why = format!("{path} is the state_dir of a front door; fix: name one of its own");
        return Err(why.into());
    }
    Ok(state)
}

/// Whoever asks is answered. An agent that cannot be asked is one all the same.
fn answers(state: &State, standing: &Arc<Standing>, asking: Asking) -> Option<AgentSocket> {
    let answered = state.agent_socket(&mut SystemEntropy::default()).map_err(Failure::from);
    let answered = answered.and_then(|socket| {
        standing::answer(&socket, Arc::clone(standing), asking)?;
        Ok(socket)
    });
    answered
        .inspect_err(|why| tracing::warn!("`keyway agent status` gets no answer here: {why}"))
        .ok()
}

/// What all shards of an agent share that has its state directory for itself.
///
/// # Errors
/// What keeps the state directory from being used.
pub(crate) fn shared_by_agent(
    mut config: AgentConfig,
    fleet: Option<Fleet>,
    state: &State,
    sessions_max: usize,
) -> Result<Shared, Failure> {
    let beginning = Beginning::new(&mut config, fleet, state)?;
    takes_over(config, &beginning, state, sessions_max)
}

/// What a map begins with.
enum Beginning {
    File(Arc<InFile>, Snapshot),
    Feed(Control, Box<Kept>, client::Asked, Arc<InRegistry>),
}

impl Beginning {
    /// Of what comes with the feed, `config` has what is known.
    fn new(config: &mut AgentConfig, fleet: Option<Fleet>, state: &State) -> Result<Self, Failure> {
        if let Replica::Feed(control) = &config.replica {
            let control = control.clone();
            let kept = Kept::read(state, config)?;
            let (pins, asked) = client::pins();
            return Ok(Self::Feed(control, Box::new(kept), asked, Arc::new(InRegistry(pins))));
        }
        let pins = Arc::new(InFile::open(state)?);
        let fleet = fleet.ok_or("there is no fleet file")?;
        let map = pins.map_of(&fleet)?;
        Ok(Self::File(pins, map))
    }

    /// With an edge that runs.
    fn goes_on(
        self,
        shared: &Arc<Shared>,
        edge: &Arc<Edge>,
        state: &State,
    ) -> Result<Map, Failure> {
        match self {
            Self::File(pins, _) => {
                told::empty_pool(&shared.table);
                Ok(Map::File(pins))
            }
            Self::Feed(control, kept, asked, _) => {
                let identity = Arc::new(state.identity(&mut SystemEntropy::default())?);
                let feed = Feed::follow(&control, *kept, identity, (shared, edge), asked)?;
                Ok(Map::Feed(feed))
            }
        }
    }
}

/// What all shards of an agent share.
fn takes_over(
    config: AgentConfig,
    beginning: &Beginning,
    state: &State,
    sessions_max: usize,
) -> Result<Shared, Failure> {
    let AgentConfig { mut edge, vm_leg, edge_networks, edges, host_keys, .. } = config;
    edge.host_keys = identity(state)?;
    let (map, pinning): (_, Arc<dyn FirstUse>) = match beginning {
        Beginning::File(pins, map) => (map.clone(), Arc::clone(pins) as _),
        Beginning::Feed(_, kept, _, pins) => (kept.map.clone(), Arc::clone(pins) as _),
    };
    let shared = shared(edge, vm_leg, Some(map), state, sessions_max, pinning)?;
    if let Beginning::Feed(_, kept, ..) = beginning {
        let denied = kept.denied.as_ref().map(|(_, denied)| Arc::new(denied.clone()));
        shared.table.deny(denied);
    }
    let server = Arc::clone(&shared.live.load().server);
    let agent = Agent::new(
        edge_networks,
        server,
        Trusted { edges: edges.into_iter().collect(), host_keys },
    );
    Ok(shared.playing(Part::Agent(Box::new(agent))))
}

impl Role for Running {
    fn status(&self) -> String {
        format!("taking sessions from edges at {}", at(&self.edge))
    }

    fn reload(&mut self, _: Reload) -> Option<Reloaded> {
        self.read_again();
        // Nobody can ask for it but by a signal.
        None
    }

    fn drain(self, events: Events) {
        let Self { edge, shared, state, lock, doors, files, revoked_keys, .. } = self;
        let Self { drain: patience, metrics, counted, map, standing, socket, .. } = self;
        standing.is(Phase::HandingOver);
        let (of, with) = (Arc::clone(&edge), Arc::clone(&shared));
        // Whoever follows the feed is told there what is taken away, until its last session ends.
        let follows = matches!(map, Map::Feed(_));
        let withdraw = Box::new(move |config: Option<PathBuf>| {
            if follows {
                return;
            }
            let files = match config {
                Some(config) => AgentFiles { config, ..files.clone() },
                None => files.clone(),
            };
            let AgentReread { rights, config, .. } = reread_agent(&files, revoked_keys.as_deref());
            // A successor that follows a feed believes others than a file names.
            let of_a_file = |config: &&AgentConfig| matches!(config.replica, Replica::File(_));
            let whole = config.as_ref().ok().filter(of_a_file);
            rights::log(again::withdraw(&of, &with, rights, whole));
        });
        let leaves = Leaves { edge, shared, state, doors, patience, counted, withdraw };
        leaves.drain(events, || {
            drop(metrics);
            if let Map::Feed(feed) = &map {
                feed.saves_no_more();
            }
            drop(lock);
            standing.is(Phase::Draining { until_s: ends_s(patience) });
        });
        drop(socket);
    }
}

/// What is scraped and probed. Once it drains nobody can ask any more.
fn pages(
    registry: &Arc<Registry>,
    (seats, shared): ((Arc<AtomicUsize>, usize), &Arc<Shared>),
    edge: &Arc<Edge>,
    map: &Map,
) -> Pages {
    let shared = Arc::clone(shared);
    let following = map.following();
    let (registry, edge): (_, Weak<Edge>) = (Arc::clone(registry), Arc::downgrade(edge));
    let works: metrics_endpoint::Probe = Arc::new(move || match edge.upgrade() {
        Some(edge) if edge.has_fallen() => Err(health::FALLEN.to_owned()),
        Some(_) | None => Ok("ok".to_owned()),
    });
    Pages {
        metrics: Arc::new(move || {
            let followed = following.as_ref().map(|it| gauges::followed(&it.followed, &it.unsaved));
            let links = gauges::links(&shared);
            registry.render() + &gauges::seats(&seats) + &links + &followed.unwrap_or_default()
        }),
        healthy: Arc::clone(&works),
        ready: works,
    }
}
