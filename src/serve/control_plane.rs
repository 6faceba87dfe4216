//! The registry beside the edge: the store, the service, the API and DNS.
//!
//! If the map that was saved last is the one of the store as it is, the front door runs from it at
//! once, while the registry is read: with a million VMs that takes some seconds. If the store
//! cannot be opened the edge runs from the map that was saved last, the API shows what that map
//! says, and nothing can be changed until it is mended and keyway started again.

#![expect(
    clippy::disallowed_methods,
    reason = "the store is read by a thread beside the start; saved routes have an age"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use super::adoption::{Adoption, Known};
use super::data_plane::LiveDataPlane;
use super::dns_names::LiveNames;
use super::events::Asking;
use super::first_use::InRegistry;
use super::gauges::Gauges;
use super::health::{self, Health};
use super::nodes::Nodes;
use super::route_feed::Feed;
use super::{Failure, front_door, vm_ca};
use crate::config::{Api, Config, Dns};
use crate::control::api::condition::Reload;
use crate::control::feed::Hub;
use crate::control::{api, dns};
use crate::edge::shared::Shared;
use crate::edge::{Edge, clock};
use crate::registry::apply::served_file::{self, Outcome, PlannedRevision, RemovalsMax};
use crate::registry::command::Noted;
use crate::registry::fleet::Fleet;
use crate::registry::store::{Sqlite, Store as _, StoreId};
use crate::registry::writer::{Actor, CommandRequest, Follower, Mode, Update};
use crate::registry::{Command, Limits, Model, Service, writer};
use crate::route::saved_routes::Head;
use crate::ssh::entropy::{Entropy, SystemEntropy};
use crate::ssh::publickey::PublicKey;
use crate::state::routes::{Saved, program};
use crate::state::{State, StoreUse};

/// What the plane needs of the configuration.
pub(super) struct Settings {
    state_dir: PathBuf,
    api: Api,
    dns: Option<Dns>,
    limits: Limits,
    node_health: Duration,
}

impl Settings {
    pub(super) fn new(config: &mut Config) -> Self {
        let servers = config.dns.iter().flat_map(|dns| {
            dns.ns.iter().filter_map(|ns| ns.name.below(&dns.zone).map(str::to_owned))
        });
        let limits = Limits {
            zone: config.dns.as_ref().map(|dns| dns.zone.as_str().to_owned()),
            reserved: servers.collect(),
            networks: config.vm_leg.networks.clone(),
            quarantine_s: config.registry.quarantine_s,
            audit_keep_s: config.registry.audit_keep_s,
        };
        let state_dir = config.state_dir.clone();
        let (api, dns, node_health) = (config.api.clone(), config.dns.take(), config.nodes.health);
        Self { state_dir, api, dns, limits, node_health }
    }

    /// The zone's name.
    pub(super) fn apex(&self) -> Option<Arc<str>> {
        self.limits.zone.as_deref().map(Arc::from)
    }
}

/// The registry and those who speak for it. Fields end in this order.
pub(super) struct ControlPlane {
    api: Option<api::Handle>,
    dns: Option<dns::Handle>,
    zone: Option<Arc<dns::Zone>>,
    /// Where they will be.
    reserved: (Option<api::Reserved>, Option<dns::Reserved>),
    registry: Registry,
    /// Nobody restores a backup over a store that is open here.
    used: Option<StoreUse>,
    settings: Settings,
    shared: Arc<Shared>,
    first_use: Arc<InRegistry>,
    health: Arc<Health>,
    hub: Arc<Hub>,
    nodes: Arc<Nodes>,
}

/// When the door opens, if the routes that were saved last are still right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Opens {
    /// At once; the registry is read meanwhile.
    AtOnce,
    /// Once the registry is read: a fleet file takes away what it no longer says, and that before
    /// anybody comes in.
    OnceRead,
}

/// The registry on its way.
struct Opening {
    reader: JoinHandle<Result<Service, writer::RegistryError>>,
    store: Sqlite,
    /// When the routes were saved that the front door runs from meanwhile.
    written: SystemTime,
}

/// Where the registry is.
enum Registry {
    Opening(Opening),
    Open(Open),
    /// Nowhere. What stands in for it shows what is known of it.
    Away(Option<Arc<Service>>),
}

struct Open {
    service: Arc<Service>,
    store: Sqlite,
}

impl ControlPlane {
    /// Fills the routing map: from what was saved last if that is all there is, and the registry is
    /// read meanwhile; from the registry; or from what was saved because there is no registry.
    pub(super) fn start(
        settings: Settings,
        shared: Arc<Shared>,
        first_use: Arc<InRegistry>,
        health: Arc<Health>,
        opens: Opens,
    ) -> Result<Self, Failure> {
        let nodes = Arc::new(Nodes::new(State::open(&settings.state_dir)?, settings.node_health));
        let mut plane = Self {
            api: None,
            dns: None,
            zone: None,
            reserved: (None, None),
            registry: Registry::Away(None),
            used: None,
            settings,
            shared,
            first_use,
            hub: Arc::clone(&health.edges.hub),
            health,
            nodes,
        };
        plane.hub.watch_canaries(plane.settings.api.canary);
        if let Err(failure) = plane.open(opens) {
            let mut saved = plane.saved();
            let Ok((head, written)) = saved.restore(&plane.shared.table) else {
                return Err(failure);
            };
            plane.health.revision.store(head.revision, Ordering::Relaxed);
            plane.stand_in(written, &failure);
        }
        Ok(plane)
    }

    /// The routes that were right last. Those of before an adoption that has not come to its end:
    /// what was saved since is the restored store's, of which nothing is held back yet.
    fn saved(&self) -> Saved {
        let before = Saved::before_adoption(&self.settings.state_dir);
        if before.last().is_some() { before } else { Saved::at(&self.settings.state_dir) }
    }

    /// There is no registry: the routes that were saved stand in for it.
    fn stand_in(&mut self, written: SystemTime, failure: &Failure) {
        let why = failure.to_string();
        let age_s = written.elapsed().unwrap_or(Duration::ZERO).as_secs();
        let told = format!(
            "the registry is away: {why}; what is known of it was saved {age_s} s before this start, and nothing can be \
             changed until it is mended and keyway restarted"
        );
        let revision = self.health.revision.load(Ordering::Relaxed);
        let shown = self.saved().contents(revision).map(|(_, contents)| {
            let model = Model::of_routes(self.settings.limits.clone(), revision, contents);
            Arc::new(Service::stand_in(model, told, clock::unix_s))
        });
        if let Err(fault) = &shown {
            // The front door has them already.
            tracing::error!(
                "the API is not served: the saved routes cannot be read again: {fault}"
            );
        }
        self.registry = Registry::Away(shown.ok());
        self.health.registry_is(health::Registry::Away { saved: written, why });
        tracing::error!("{failure}");
        tracing::error!(
            revision,
            age_s,
            "the registry cannot be opened: the front door runs from the routes that were saved last, and nothing can \
             be changed; mend it and restart keyway"
        );
    }

    fn open(&mut self, opens: Opens) -> Result<(), Failure> {
        let mut entropy = SystemEntropy::default();
        let mut id = [0; 16];
        entropy.fill(&mut id);
        let state = State::open(&self.settings.state_dir)?;
        let used = state.use_store()?;
        let store = Sqlite::open(&state.store(), StoreId(id))?;
        let (mut saved, before) = (state.routes(), state.routes_before_adoption());
        saved.unsaved = Arc::clone(&self.health.unsaved);
        let last = saved.last();
        let known = Known {
            state: &state,
            saved: &saved,
            before: &before,
            limits: &self.settings.limits,
            now_s: clock::unix_s(),
        };
        let adoption = Adoption::begin(&store, &known)?;
        let head = store.head()?;
        let (store_id, program) = (head.store_id.0, program());
        let now = Head { store: store_id, program, revision: head.revision.0 };
        let known = if opens == Opens::AtOnce && last == Some(now) && adoption.is_none() {
            self.restore(&mut saved, now)
        } else {
            None
        };
        let mut feed = Feed {
            shared: Arc::clone(&self.shared),
            edge: Arc::clone(&self.health.edge),
            saved: Some(saved),
            hub: Arc::clone(&self.hub),
            edges: Arc::clone(&self.health.edges),
            nodes: Arc::clone(&self.nodes),
            head: now,
            revision: Arc::clone(&self.health.revision),
        };
        if known.is_some() {
            feed.reword();
            self.hub.begin(now);
        }
        let start = writer::Start {
            store: Arc::new(store.clone()),
            limits: self.settings.limits.clone(),
            now_s: clock::unix_s,
            entropy: Box::new(entropy),
            known: known.map(|_| now.revision),
            follow: Box::new(move |news| feed.follow(news)),
        };
        self.used = Some(used);
        if let Some(written) = known {
            let name = "registry-start".to_owned();
            let reader = std::thread::Builder::new().name(name).spawn(|| Service::start(start))?;
            self.registry = Registry::Opening(Opening { reader, store, written });
            let revision = now.revision;
            tracing::info!(
                revision,
                "the routes are those saved last; reading the registry beside them"
            );
            return Ok(());
        }
        let service = Service::start(start)?;
        if let Some(adoption) = adoption {
            // Whoever follows from elsewhere is told: it was said here, once for all.
            state.note_replaced(&adoption.stores())?;
            let admitted = adoption.carry_out(&service)?;
            self.health.edges.were_admitted(&admitted);
            state.settle()?;
        }
        self.opened(service, store);
        Ok(())
    }

    /// Fills the routing map from what was saved, if that is all there is `now`; says
    /// when it was saved.
    fn restore(&self, saved: &mut Saved, now: Head) -> Option<SystemTime> {
        match saved.restore(&self.shared.table) {
            Ok((head, written)) if head == now => {
                self.health.revision.store(head.revision, Ordering::Relaxed);
                Some(written)
            }
            Ok(_) => None,
            Err(error) => {
                tracing::warn!("the routes that were saved last are of no use: {error}");
                None
            }
        }
    }

    fn opened(&mut self, service: Service, store: Sqlite) {
        let service = Arc::new(service);
        // Nobody else sets it.
        let _first = self.first_use.service.set(Arc::downgrade(&service));
        self.health.edges.settle(&service);
        self.health.registry_is(health::Registry::Open(service.store_health().clone()));
        self.registry = Registry::Open(Open { service, store });
    }

    /// Returns when the registry is read.
    fn finish_opening(&mut self) {
        match std::mem::replace(&mut self.registry, Registry::Away(None)) {
            Registry::Opening(Opening { reader, store, written }) => match reader.join() {
                Ok(Ok(service)) => self.opened(service, store),
                Ok(Err(fault)) => self.stand_in(written, &fault.into()),
                Err(_) => self.stand_in(written, &"a bug in keyway, see above".into()),
            },
            settled @ (Registry::Open(_) | Registry::Away(_)) => self.registry = settled,
        }
    }

    /// The registry, if it is open.
    const fn service(&self) -> Option<&Arc<Service>> {
        match &self.registry {
            Registry::Open(Open { service, .. }) => Some(service),
            Registry::Opening(_) | Registry::Away(_) => None,
        }
    }

    /// Says so if the VMs were prepared for another CA than the one in use.
    pub(super) fn check_ca(&self) {
        if let Some(service) = self.service() {
            vm_ca::check(service, &self.shared);
        }
    }

    /// Makes the registry hold what a fleet file says, and no longer hold what such a file said
    /// before. Tells what was done, or line by line what was not; of what would remove too much to
    /// be meant, the plan that has to be allowed.
    pub(super) fn apply(
        &self,
        desired: &Fleet,
        most: RemovalsMax,
        order: Reload,
    ) -> (Result<String, String>, Option<PlannedRevision>) {
        match self.apply_or_fail(desired, most, order) {
            Ok(outcome) => (outcome.told(), outcome.may_be_allowed()),
            Err(failure) => (Err(failure.to_string()), None),
        }
    }

    fn apply_or_fail(
        &self,
        desired: &Fleet,
        most: RemovalsMax,
        order: Reload,
    ) -> Result<Outcome, Failure> {
        let Some(service) = self.service() else {
            return Err("the fleet file is not applied: the registry is not open".into());
        };
        let actor = Actor { name: "keyway serve --fleet".to_owned(), from: "file".to_owned() };
        let mode = if order.dry_run { Mode::DryRun } else { Mode::Real };
        let allowed = order.allow_mass_removal;
        Ok(served_file::carry_out(service, desired, most, allowed, &actor, mode)?)
    }

    /// Reads the API's certificate anew, and what its peers may do.
    pub(super) fn renew(&self, api: &Api) -> Result<(), Failure> {
        let Some(handle) = &self.api else { return Ok(()) };
        if let Some(tls) = &api.tls {
            handle.reload_tls(tls)?;
        }
        handle.reload_peers(api.peers.clone());
        Ok(())
    }

    /// Ends all of this but one thing: whoever loses a right by what a successor writes into the
    /// store is still seen.
    ///
    /// When this returns nothing is written into the store or beside it from here. Nothing to
    /// follow if there is no registry: the routes that were saved last stand until the end.
    ///
    /// DNS is answered as long as its handle lives.
    pub(super) fn hand_over(self) -> (Option<Follower>, Option<dns::Handle>) {
        let Self { api, dns, registry, used, settings, shared, health, nodes, .. } = self;
        // Until the process ends: the follower reads the store, and SQLite removes a log as it
        // closes, by its name.
        std::mem::forget(used);
        drop(api);
        nodes.end();
        let Registry::Open(Open { service, store }) = registry else { return (None, dns) };
        let model = service.retire();
        health.edges.drains();
        // Its name is for what is saved, and nothing is.
        let (edge, revision) = (Arc::clone(&health.edge), Arc::clone(&health.revision));
        let mut feed = Feed {
            shared,
            edge,
            saved: None,
            hub: Arc::default(),
            edges: Arc::clone(&health.edges),
            nodes,
            head: Head::default(),
            revision,
        };
        let follow = Box::new(move |news: Update<'_>| feed.follow(news));
        (Some(Follower::new(Arc::new(store), settings.limits, model, follow)), dns)
    }

    /// Takes the addresses of DNS and the API. `shared`: a process of ours may answer DNS
    /// there until we do.
    pub(super) fn reserve(&mut self, shared: bool) -> Result<(), Failure> {
        if let Some(settings) = &self.settings.dns {
            self.reserved.1 = Some(dns::reserve(settings, shared)?);
        }
        let Api { socket, tls, .. } = &self.settings.api;
        self.reserved.0 = Some(api::reserve(socket, tls.as_ref())?);
        Ok(())
    }

    /// The zone has the host keys that clients see now, under a serial of its own:
    /// secondaries are told.
    pub(super) fn renew_names(&self) -> Result<(), Failure> {
        let Some(zone) = &self.zone else { return Ok(()) };
        zone.renew_host_keys(&self.host_keys());
        self.note_host_keys()
    }

    fn host_keys(&self) -> Vec<PublicKey> {
        let live = self.shared.live.load();
        live.server.host_keys().iter().map(|it| it.key.public().clone()).collect()
    }

    /// If the zone had other host keys, before this start perhaps, its serial grows with the
    /// registry's revision.
    fn note_host_keys(&self) -> Result<(), Failure> {
        let state = State::open(&self.settings.state_dir)?;
        let keys: Vec<String> =
            self.host_keys().iter().map(|key| key.fingerprint().to_string()).collect();
        let now = keys.join(" ");
        let before = state.named_host_keys()?;
        if before.as_deref() == Some(now.as_str()) {
            return Ok(());
        }
        if before.is_some() {
            let Some(service) = self.service() else {
                return Err("the zone's serial stays as it was: the registry is not open".into());
            };
            let command = Command::Note { what: Noted::HostKeys, about: now.clone() };
            service.carry_out(CommandRequest::of_itself(command), Mode::Real)?;
        }
        state.name_host_keys(&now)?;
        Ok(())
    }

    /// Tells whoever follows what is to be known of the front door.
    pub(super) fn tell_front_door(&self) {
        let state = State::open(&self.settings.state_dir);
        let replaced = state.and_then(|state| state.replaced()).map_err(Failure::from);
        match replaced.and_then(|replaced| front_door::now(&self.shared, replaced)) {
            Ok(now) => self.hub.front_door(now),
            Err(fault) => tracing::error!("agents are not told who is believed: {fault}"),
        }
    }

    /// For the page of metrics, once this serves.
    pub(super) fn gauges(&self) -> Gauges {
        let dns = self.dns.as_ref().map(|dns| Arc::clone(dns.counters()));
        let seats = (self.shared.seats_taken(), self.shared.settings.seats.sessions);
        let (health, hub) = (Arc::clone(&self.health), Arc::clone(&self.hub));
        Gauges { health, seats, dns, hub, nodes: Arc::clone(&self.nodes) }
    }

    /// Serves DNS and, once the registry is read or stood in for, the API, for an edge that runs.
    pub(super) fn serve(&mut self, edge: &Arc<Edge>, asking: Asking) -> Result<(), Failure> {
        // Nobody else sets it.
        let _first = self.health.edge.set(Arc::downgrade(edge));
        let mut zone = None;
        if let Some(settings) = &self.settings.dns {
            let names = LiveNames {
                shared: Arc::clone(&self.shared),
                revision: Arc::clone(&self.health.revision),
            };
            let served = Arc::new(dns::Zone::new(settings, &self.host_keys(), Arc::new(names))?);
            let handle = match self.reserved.1.take() {
                Some(reserved) => reserved.serve(settings, Arc::clone(&served))?,
                None => dns::start(settings, Arc::clone(&served))?,
            };
            for address in handle.addresses() {
                tracing::info!(%address, zone = %served.apex(), "answering DNS");
            }
            self.health.dns_is(handle.addresses());
            self.dns = Some(handle);
            zone = Some(Arc::clone(&served));
            self.zone = Some(served);
        }
        self.finish_opening();
        self.health.edges.register(self.service());
        self.tell_front_door();
        let reserved = self.reserved.0.take();
        if self.zone.is_some()
            && let Err(failure) = self.note_host_keys()
        {
            tracing::warn!("{failure}");
        }
        self.check_ca();
        let (service, store) = match &self.registry {
            Registry::Open(Open { service, store }) => (service, Some(store.clone())),
            Registry::Away(Some(service)) => (service, None),
            // It was just read, or something stands in for it.
            Registry::Opening(_) | Registry::Away(None) => return Ok(()),
        };
        self.nodes.begin(service)?;
        let everything = LiveDataPlane {
            shared: Arc::clone(&self.shared),
            service: Arc::clone(service),
            store,
            zone,
            health: Arc::clone(&self.health),
            nodes: Arc::clone(&self.nodes),
            asking,
        };
        let start = api::Start {
            reserved: if let Some(reserved) = reserved {
                reserved
            } else {
                let Api { socket, tls, .. } = &self.settings.api;
                api::reserve(socket, tls.as_ref())?
            },
            peers: self.settings.api.peers.clone(),
            service: Arc::clone(service),
            beside: Arc::new(everything),
            hub: Arc::clone(&self.hub),
        };
        let handle = api::start(start)?;
        self.health.api_is(&self.settings.api.socket, handle.address());
        self.api = Some(handle);
        tracing::info!(socket = %self.settings.api.socket.display(), "answering the API");
        Ok(())
    }
}
