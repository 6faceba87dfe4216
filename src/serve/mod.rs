//! `keyway serve`: configuration and registry -> a running front door, until a signal ends it.
//!
//! SIGHUP reads the files again and replaces what can be replaced under live sessions; SIGTERM drains, and a second
//! one ends the drain; SIGINT ends at once.
//! - `control_plane`: the registry with its API and DNS, beside the edge.
//! - `route_feed`: from the registry to the routing map; `adoption`: what a store of another history is asked before it is believed.
//! - `first_use`: host keys of VMs, from the edge to the registry.
//! - `events`: signals, and what the API asks for; `reload`: the files read again; `fixed`: what of them takes a restart.
//! - `drain`: its end, and how a successor takes over; `health`: how each part is; `notify`: systemd; `told`: what the log says of all of them.
//! - `vm_ca`: whether the VMs were prepared for the CA in use.
//! - `dns_names`, `data_plane`, `explain`: what DNS and the API ask of the edge; `gauges`: what they add to the metrics.

mod adoption;
mod control_plane;
mod data_plane;
mod dns_names;
mod drain;
mod events;
mod explain;
mod first_use;
mod fixed;
mod gauges;
mod health;
mod last_words;
mod notify;
mod reload;
mod route_feed;
mod start;
mod told;
mod vm_ca;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use std::{io, num::NonZeroU32};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::config::{
    self, Config, Count, Files, Fleet, HostKeys, Loaded, Log, Principals, UserCa, VmCredential,
};
use crate::control::api::condition::Reload;
use crate::control::metrics_endpoint::{self, Pages};
use crate::edge::first_use::FirstUse;
use crate::edge::local_address::Destination;
use crate::edge::proxy_header::Senders;
use crate::edge::relay::{ClientAlive, PreferGcm};
use crate::edge::seats::Most;
use crate::edge::settings::{self, Live, Principal, Settings};
use crate::edge::shared::Shared;
use crate::edge::{self, Edge, clock, listen};
use crate::host;
use crate::log;
use crate::metrics::{Inventory, Registry};
use crate::registry::apply::served_file::RemovalsMax;
use crate::route::{Snapshot, Table};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::host_key::HostKey;
use crate::ssh::transport::{Algorithms, RekeyLimits, ServerConfig};
use crate::ssh::userauth::Policy;
use crate::state::{Doors, Lock, State, StateFault, Turn};

pub use start::{Failure, Start};

use control_plane::{ControlPlane, Opens};
use events::{Event, Events};
use first_use::{Applied, InRegistry};
use fixed::Fixed;
use gauges::Gauges;
use health::Health;
use last_words::{PLUS_WORDS, last_words};
use notify::State as Told;
use reload::StartsFrom;

/// How long a successor waits for its turn. Whoever was started by mistake is told then.
const TURN_COMES: Duration = Duration::from_mins(1);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(10);
/// Refused signatures and unknown methods one connection may send, as OpenSSH's `MaxAuthTries`.
const ATTEMPTS_MAX: u32 = 6;

/// Runs the front door that `start` describes.
///
/// # Errors
/// What kept it from starting; once it runs it ends by signals only.
pub fn serve(start: Start) -> Result<(), Failure> {
    let Start { files, mut loaded } = start;
    let _writes_the_rest_when_dropped = log_to_stderr(loaded.config.edge.log)?;
    // Not to stderr itself: a reader that has stopped would stop the thread that panicked.
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(at, "a bug in keyway: {:?}", panic.payload_as_str().unwrap_or_default());
    }));
    told::begins(&files, &loaded.config.state_dir);
    host::keep_secrets_in_memory()?;
    host::use_small_pages();
    let events = Events::start()?;
    let odd = host::check(&loaded.config.edge, host::descriptors()?);
    odd.into_iter().for_each(|odd| loaded.warn_of_counts(odd));
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut running = Running::start(files, loaded, &events)?;
    notify::tell(Told::Ready);
    notify::tell(Told::Status(&format!("letting people in at {}", running.at())));
    loop {
        match events.next() {
            Event::Reload(order, answer) => {
                notify::tell(Told::Reloading);
                let reloaded = running.reload(order);
                notify::tell(Told::Ready);
                let _nobody_waits = answer.map(|answer| answer.send(reloaded));
            }
            Event::Drain => {
                running.drain(events);
                return Ok(());
            }
            Event::End => break,
        }
    }
    tracing::info!("ending now");
    Ok(())
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

/// What a front door has once its turn has come.
struct Taken {
    state: State,
    doors: Arc<Doors>,
    cpus: Vec<usize>,
    reserved: listen::Reserved,
    lock: Lock,
    turn: Turn,
}

impl Running {
    fn start(files: Files, loaded: Loaded, events: &Events) -> Result<Self, Failure> {
        let Loaded { config, fleet, .. } = loaded;
        let state = State::open(&config.state_dir)?;
        let cpus = cpus(config.edge.shards)?;
        let doors = Arc::new(state.doors()?);
        let is_beside = doors.others()?.is_some();
        // What is in use by others is known before a predecessor is asked to go.
        let reserved = listen::reserve(&config.edge.listen, &cpus, is_beside)?;
        let (lock, turn) = take_turn(&state, events)?;
        let from = if turn.has_waited() {
            StartsFrom::read_again(&files, config)
        } else {
            StartsFrom { config, fleet: fleet.map(Ok) }
        };
        let taken = Taken { state, doors, cpus, reserved, lock, turn };
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
        reload::follow_files(&state, &files);
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
        let mut shared = shared(config, None, &state, sessions_max, pinning)?;
        shared.settings.zone = settings.apex();
        let shared = Arc::new(shared);
        let counted = Arc::clone(&shared);
        let registry = Arc::new(Registry::new(clock::unix_s(), move || inventory(&counted.table)));
        let health = Arc::new(Health::new(Arc::clone(&registry), sessions_max, half_open_max));
        let opens = if fleet.is_some() { Opens::OnceRead } else { Opens::AtOnce };
        let pinning = Arc::clone(&first_use);
        let mut plane = ControlPlane::start(
            settings,
            Arc::clone(&shared),
            pinning,
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
        let start = edge::Start {
            doors: reserved,
            beside: beside.unwrap_or(0),
            cpus,
            half_open_max: NonZeroU32::new(half_open_max).unwrap_or(NonZeroU32::MIN),
            shared: Arc::clone(&shared),
        };
        let edge = Arc::new(Edge::start(start, &registry)?);
        for address in edge.addresses() {
            tracing::info!(%address, "listening");
        }
        plane.serve(&edge, events.asking())?;
        // The predecessor goes now.
        drop(turn);
        follow_at_the_doors(&doors, beside, shards, &edge)?;
        first_use.import(applied);
        let metrics = metrics.serve(pages(&registry, plane.gauges(), &health))?;
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

    /// Where people are let in, in words.
    fn at(&self) -> String {
        let addresses: Vec<String> =
            self.edge.addresses().iter().map(ToString::to_string).collect();
        addresses.join(", ")
    }
}

/// Has the registry say what the fleet file says, or says why it does not: what was right before is right still, and a door
/// that is shut helps nobody.
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

/// What is scraped and probed.
fn pages(registry: &Arc<Registry>, gauges: Gauges, health: &Arc<Health>) -> Pages {
    let registry = Arc::clone(registry);
    let (healthy, ready) = (Arc::clone(health), Arc::clone(health));
    Pages {
        metrics: Arc::new(move || registry.render() + &gauges.render()),
        healthy: Arc::new(move || healthy.is_healthy()),
        ready: Arc::new(move || ready.is_ready()),
    }
}

/// Takes the state directory, once a predecessor has been told to go.
#[expect(clippy::disallowed_methods, reason = "the wait for the turn is measured by the clock")]
fn take_turn(state: &State, events: &Events) -> Result<(Lock, Turn), Failure> {
    let says = |taken: &StateFault| {
        tracing::info!("waiting until it hands over, which SIGTERM tells it to: {taken}");
        notify::tell(Told::Status("waiting for the keyway that serves to hand over"));
    };
    let end = Instant::now() + TURN_COMES;
    let mut waits = || {
        // What a reload would read is read behind the turn.
        let told = events.next_within(LOOK);
        !matches!(told, Some(Event::Drain | Event::End)) && Instant::now() < end
    };
    Ok(state.lock_in_turn(&says, &mut waits)?)
}

/// Says that this process listens: at once, or when the one that listens beside it has closed its doors.
#[expect(clippy::disallowed_methods, reason = "a thread waits until the predecessor is gone")]
fn follow_at_the_doors(
    doors: &Arc<Doors>,
    beside: Option<usize>,
    shards: usize,
    edge: &Arc<Edge>,
) -> Result<(), Failure> {
    if beside.is_none() {
        edge.is_alone();
        return Ok(doors.open(shards)?);
    }
    let (doors, edge) = (Arc::clone(doors), Arc::downgrade(edge));
    let alone = move || {
        let said = doors.wait().and_then(|()| doors.open(shards));
        if let Err(fault) = said {
            tracing::warn!("a successor will not know that this keyway listens: {fault}");
        }
        if let Some(edge) = edge.upgrade() {
            edge.is_alone();
        }
    };
    std::thread::Builder::new().name("predecessor".to_owned()).spawn(alone)?;
    Ok(())
}

/// What all shards of the front door share.
///
/// # Errors
/// What keeps the state directory from being used.
pub(crate) fn shared(
    config: Config,
    snapshot: Option<Snapshot>,
    state: &State,
    sessions_max: usize,
    first_use: Arc<dyn FirstUse>,
) -> Result<Shared, Failure> {
    let settings = settings(&config, sessions_max);
    let table = Table::new();
    if let Some(snapshot) = snapshot {
        table.apply(snapshot);
    }
    let live = live(config, &table, state)?;
    Ok(Shared::new(settings, live, table, first_use))
}

/// What a restart is needed for to change.
fn settings(config: &Config, sessions_max: usize) -> Settings {
    Settings {
        login_grace: config.edge.login_grace,
        senders: Senders::new(config.edge.proxy_protocol_from.clone()),
        destination: if config.edge.original_dst {
            Destination::Tracked
        } else {
            Destination::Socket
        },
        seats: Most {
            sessions: sessions_max,
            per_user: share(config.edge.sessions_max_per_user, sessions_max),
            per_vm: share(config.edge.sessions_max_per_vm, sessions_max),
        },
        dial_timeout: config.vm_leg.dial_timeout,
        networks: config.vm_leg.networks.clone(),
        prefer_gcm: match config.edge.prefer_gcm {
            config::PreferGcm::Bulk => PreferGcm::Bulk,
            config::PreferGcm::Never => PreferGcm::Never,
        },
        client_alive: ClientAlive {
            interval: config.edge.client_alive_interval,
            count_max: config.edge.client_alive_count_max,
        },
        // The control plane knows it.
        zone: None,
    }
}

/// What one principal may have of `all`: half, if nothing else is said.
fn share(of_one: Count, all: usize) -> usize {
    match of_one {
        Count::Automatic => all.div_ceil(2),
        Count::Exactly(number) => usize::try_from(number.get()).unwrap_or(usize::MAX),
    }
}

/// What a reload replaces.
fn live(config: Config, table: &Table, state: &State) -> Result<Live, Failure> {
    let mut entropy = SystemEntropy::default();
    let host_keys = match config.edge.host_keys {
        HostKeys::Given(host_keys) => host_keys,
        HostKeys::InState => {
            vec![HostKey { key: state.host_key(&mut entropy)?, certificate: None }]
        }
    };
    let mut algorithms = Algorithms::default();
    if !config.edge.legacy_macs {
        algorithms.macs.retain(|mac| mac.is_etm());
    }
    if !config.edge.legacy_kex {
        algorithms.methods.retain(|method| !method.is_legacy());
    }
    let credential = match config.vm_leg.credential {
        VmCredential::Key(key) => settings::VmCredential::Identity(Arc::new(key)),
        VmCredential::Certificates { ca, principals } => {
            let ca = match ca {
                UserCa::Given(key) => key,
                UserCa::InState => state.user_ca(&mut entropy)?,
            };
            let principal = match principals {
                Principals::Vm => Principal::Vm,
                Principals::Login => Principal::Login,
            };
            settings::VmCredential::Authority { ca: Arc::new(ca), principal }
        }
    };
    let policy = Policy {
        cas: config.edge.trusted_user_cas,
        revocations: config.edge.revocations,
        attempts_max: ATTEMPTS_MAX,
        hide_keys: config.edge.hide_keys,
        last_words: last_words(table),
        plus_words: PLUS_WORDS.to_owned(),
    };
    Ok(Live {
        server: Arc::new(ServerConfig::new(host_keys, algorithms, RekeyLimits::default())),
        policy: Arc::new(policy),
        credential,
        source_address: config.vm_leg.source_address,
    })
}

/// The CPUs to use: the first of those that this process may run on.
fn cpus(shards: Count) -> Result<Vec<usize>, Failure> {
    let mut cpus = host::cpus()?;
    if let Count::Exactly(wanted) = shards {
        let wanted = usize::try_from(wanted.get())?;
        if wanted > cpus.len() {
            let have = cpus.len();
            return Err(format!("shards = {wanted}, but this process may use {have} CPUs").into());
        }
        cpus.truncate(wanted);
    }
    Ok(cpus)
}

fn inventory(table: &Table) -> Inventory {
    let counts = table.counts();
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Inventory {
        users: number(counts.users),
        keys: number(counts.keys),
        vms: number(counts.vms),
        addresses: number(counts.addresses),
        routes: number(counts.slots),
    }
}

/// One line per event on stderr: JSON for machines, readable for people.
fn log_to_stderr(format: Log) -> io::Result<log::Written> {
    use std::io::IsTerminal;
    let readable = match format {
        Log::Readable => true,
        Log::Json => false,
        Log::Auto => io::stderr().is_terminal(),
    };
    let lost = if readable { lost_readable } else { lost_json };
    let (lines, written) = log::start(io::stderr(), lost)?;
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines)
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal());
    // A subscriber that stands already (tests, the demonstration) is as good.
    let _stands = if readable {
        subscriber.try_init()
    } else {
        subscriber.json().flatten_event(true).try_init()
    };
    Ok(written)
}

/// The line that tells of lines that were never written, among those for people.
fn lost_readable(lines: u64) -> String {
    format!("{} WARN {LOST} lines={lines}\n", now())
}

/// The same, among those for machines.
fn lost_json(lines: u64) -> String {
    format!(
        "{{\"timestamp\":\"{}\",\"level\":\"WARN\",\"message\":\"{LOST}\",\"lines\":{lines}}}\n",
        now()
    )
}

const LOST: &str = "log lines were lost: stderr was too slow, or failed";

/// As the other lines have it.
fn now() -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}
