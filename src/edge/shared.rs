//! What all shards share: settings, the live configuration, the routing map, and who is present.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::first_use::FirstUse;
use super::gate::Refusal;
use super::handoff::{FarEnd, Part, Peer};
use super::names::Names;
use super::presence::{ConnectionGuard, Presence};
use super::pump::Deliver;
use super::relay::Wanted;
use super::report::{Info, Report};
use super::seats::{Full, Seats, SessionPermit, Shares};
use super::settings::{Live, Settings};
use super::workers::Workers;
use crate::ended::Cause;
use crate::route::Table;

/// Host keys that are written down at a time, of all shards together: the registry makes them
/// durable in one go.
const PINS_MAX: usize = 4;
/// Host keys that wait for that; further ones are refused. Each is a login that waits, and
/// has its deadline.
const PINS_WAITING_MAX: usize = 4096;
/// Lists of VMs made at a time: some milliseconds each for somebody with thousands.
const LISTERS_MAX: usize = 1;
/// Visitors of lobbies that wait for theirs; further ones are told to come again.
const LISTS_WAITING_MAX: usize = 256;

/// Shared by all shards of one edge.
pub struct Shared {
    /// Fixed at start.
    pub settings: Settings,
    /// Replaced by a reload.
    pub live: ArcSwap<Live>,
    /// Who may go where.
    pub table: Table,
    /// Whether sessions are handed to agents, or taken from edges.
    pub part: Part,
    /// Whoever pins the host keys of the VMs.
    pub first_use: Arc<dyn FirstUse>,
    /// Asks it: whoever pins waits for a disk.
    pub(super) pins: Workers,
    /// Addresses of VMs that have a host name.
    pub(super) names: Names,
    presence: Arc<Presence>,
    seats: Seats,
    /// Writes the lists of lobbies.
    pub(super) lister: Workers,
    /// Lists on their way, by user.
    pub(super) lists: Arc<Shares>,
}

impl Shared {
    /// Nobody is present yet.
    pub fn new(settings: Settings, live: Live, table: Table, first_use: Arc<dyn FirstUse>) -> Self {
        Self {
            seats: Seats::new(settings.seats),
            lister: Workers::new("lobby", LISTERS_MAX, LISTS_WAITING_MAX),
            lists: Arc::default(),
            settings,
            part: Part::Alone,
            live: ArcSwap::from_pointee(live),
            table,
            first_use,
            pins: Workers::new("pins", PINS_MAX, PINS_WAITING_MAX),
            names: Names::default(),
            presence: Arc::default(),
        }
    }

    /// As an edge that hands sessions over, or an agent.
    #[must_use]
    pub fn playing(self, part: Part) -> Self {
        Self { part, ..self }
    }

    /// Why a session may not have somebody at its far end, or not be handed over by this edge.
    pub(super) fn refuses(&self, far_end: &FarEnd) -> Option<Refusal> {
        match (far_end, &self.part) {
            (FarEnd::Agent(peer), Part::Edge(links)) if links.is_admitted() => {
                (!self.trusts_agent(peer)).then_some(Refusal::FarEnd)
            }
            (FarEnd::Edge(key), Part::Agent(agent)) if agent.trusts_edge(key) => None,
            (FarEnd::Agent(_) | FarEnd::Edge(_), _) => Some(Refusal::EdgeRemoved),
        }
    }

    /// Whether agents take sessions from this edge from now on. True if that is new: then rights
    /// are to be looked at, if it runs.
    pub fn admit(&self, admitted: bool) -> bool {
        match &self.part {
            Part::Edge(links) => links.admit(admitted),
            Part::Alone | Part::Agent(_) => false,
        }
    }

    fn trusts_agent(&self, peer: &Peer) -> bool {
        self.table.node(&peer.node).is_some_and(|node| {
            node.trusted && node.agent == peer.address && node.agent_key == peer.key.0
        })
    }

    /// An agent that listens no more says so to its edges.
    pub fn leave(&self) {
        if let Part::Agent(agent) = &self.part {
            agent.signers.leave();
        }
    }

    /// Links to agents that are trusted no more are cut, and nothing is signed for them.
    pub(super) fn cut_links(&self) {
        if let Part::Edge(links) = &self.part {
            links.keep(|peer| links.is_admitted() && self.trusts_agent(peer));
        }
    }

    /// The host keys in use sign for agents too.
    pub(super) fn sign_with(&self) {
        if let Part::Edge(links) = &self.part {
            links.sign_with(&self.live.load().server);
        }
    }

    /// Asks an edge for what a session wants that this agent carries. False: nobody can be asked.
    pub(super) fn ask(&self, report: &Report, wanted: Wanted<'_>, deliver: Deliver) -> bool {
        match (&self.part, report.far_end.as_deref()) {
            (Part::Agent(agent), Some(FarEnd::Edge(edge))) => {
                agent.signers.ask((*edge, report.request.0), wanted, deliver)
            }
            (Part::Agent(_) | Part::Alone | Part::Edge(_), _) => false,
        }
    }

    /// A session ends for `cause`: if an agent has its keys, that one tells the user.
    pub(super) fn tell_agent(&self, info: &Info, cause: Cause) {
        if let (Part::Edge(links), Some(handed), Some(FarEnd::Agent(peer))) =
            (&self.part, &info.handed, info.report.far_end.as_deref())
        {
            links.end(peer, handed, cause);
        }
    }

    /// Why the edge that handed a session over ends it, if it has said so.
    pub(super) fn is_ended_by_edge(&self, report: &Report) -> Option<Cause> {
        match (&self.part, report.far_end.as_deref()) {
            (Part::Agent(agent), Some(FarEnd::Edge(edge))) => {
                agent.closing.cause((*edge, report.request.0))
            }
            (Part::Agent(_) | Part::Alone | Part::Edge(_), _) => None,
        }
    }

    /// A session is over: it wants nothing more.
    pub(super) fn forget(&self, report: &Report) {
        if let (Part::Agent(agent), Some(FarEnd::Edge(edge))) =
            (&self.part, report.far_end.as_deref())
        {
            agent.signers.forget((*edge, report.request.0));
        }
    }

    /// Counts a connection or a listener until the returned value is dropped.
    pub fn enter(&self) -> ConnectionGuard {
        self.presence.enter()
    }

    /// Ends every wait for people to leave.
    pub fn stop_waiting(&self) {
        self.presence.stop_waiting();
    }

    /// Waits until nobody is present, at most `patience`. True if everybody left.
    pub fn wait_empty(&self, patience: Duration) -> bool {
        self.presence.wait_empty(patience)
    }

    /// A seat for a session of `user` in the VM whose id is `vm`.
    pub(super) fn take_seat(&self, user: &Arc<str>, vm: &str) -> Result<SessionPermit, Full> {
        self.seats.take(user, vm)
    }

    /// How many seats are taken, at any time.
    pub fn seats_taken(&self) -> Arc<AtomicUsize> {
        Arc::clone(self.seats.taken())
    }
}
