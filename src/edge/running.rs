//! A running edge: its shards, what is asked of all of them at once, and its end.

#![expect(
    clippy::disallowed_methods,
    reason = "the API's question waits for the shards by the standard clock"
)]

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::attended::Progress;
use super::handoff::{FarEnd, Handed, Part};
use super::report::{Carried, Info, RequestId};
use super::settings::Live;
use super::shard::Shard;
use super::shared::Shared;
use super::{clock, door, gate, listen, pump, report, revocation, settings};
use crate::ended::Cause;
use crate::metrics::Registry;
use crate::route::{Changed, Contradiction, Delta, Denied, Snapshot};

/// What an edge is started with.
pub struct Start {
    /// Where to listen.
    pub doors: listen::Reserved,
    /// Shards of a process of ours that listens at these addresses too.
    pub beside: usize,
    /// The CPU of each shard; as many shards as CPUs.
    pub cpus: Vec<usize>,
    /// Half-open connections, all shards together.
    pub half_open_max: NonZeroU32,
    /// Made by the caller, who reloads it.
    pub shared: Arc<Shared>,
}

/// Why the edge did not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] listen::ListenError),
    /// A shard did not start.
    #[error("{0}")]
    Shard(#[from] io::Error),
}

/// How long to wait for the pumps to show their sessions.
const VISIT_WAIT: Duration = Duration::from_secs(1);

/// A session, what is to be one, or a visit of the lobby.
#[derive(Clone, Debug)]
pub struct Present {
    /// Who and where.
    pub report: report::Report,
    /// How far it is.
    pub progress: Progress,
    /// How its bytes get across, once there are any.
    pub carry: Option<pump::Carry>,
    /// Bytes read from the client.
    pub up_bytes: u64,
    /// Bytes read from the VM.
    pub down_bytes: u64,
}

/// A running edge: a shard on every CPU.
pub struct Edge {
    shards: Vec<Shard>,
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    cpus: Vec<usize>,
    /// A listener of each address, to steer by; none once this has the addresses for itself, or
    /// listens no more.
    members: Mutex<Vec<listen::Listener>>,
}

impl Edge {
    /// Listens and starts all shards; connections are served when this returns.
    ///
    /// # Errors
    /// [`StartFault`]; nothing is left running.
    pub fn start(start: Start, registry: &Registry) -> Result<Self, StartFault> {
        let Start { doors, beside, cpus, half_open_max, shared } = start;
        doors.be_patient(shared.settings.client_alive.patience())?;
        let listeners = doors.open(beside)?;
        for warning in &listeners.warnings {
            tracing::warn!("{warning}");
        }
        let addresses = listeners
            .shards
            .first()
            .map_or_else(Vec::new, |first| first.iter().map(|listener| listener.address).collect());
        let first = listeners.shards.first().map_or(&[][..], Vec::as_slice);
        let members: io::Result<_> = first.iter().map(listen::Listener::again).collect();
        let members = members?;
        let share = half_open_max.get().div_ceil(u32::try_from(cpus.len()).unwrap_or(1).max(1));
        let share = NonZeroU32::new(share).unwrap_or(NonZeroU32::MIN);
        let mut shards = Vec::with_capacity(cpus.len());
        for (index, (cpu, listeners)) in cpus.iter().copied().zip(listeners.shards).enumerate() {
            let settings::Settings { prefer_gcm, client_alive, .. } = shared.settings;
            let settings = pump::Settings { cpu: Some(cpu), prefer_gcm, client_alive };
            let counters = registry.counters();
            let over = Arc::clone(&shared);
            let ended = move |info: &Info, how: &pump::Report| {
                over.forget(&info.report);
                ended(info, how);
            };
            let words = words(&shared);
            let pump = pump::spawn(format!("pump-{index}"), settings, counters, words, ended)?;
            let door = registry.counters();
            let shared = Arc::clone(&shared);
            shards.push(Shard::start(index, cpu, listeners, shared, door, pump, share)?);
        }
        shared.sign_with();
        for shard in &shards {
            let asked = Arc::clone(&shared);
            shard.pump.ask_with(Arc::new(move |info: &Info, wanted, deliver| {
                asked.ask(&info.report, wanted, deliver)
            }));
        }
        let edge = Self { shards, shared, addresses, cpus, members: Mutex::new(members) };
        // From here on whoever comes to a pump is looked at there, and when a right has its end.
        edge.recheck_rights();
        edge.ends_with_edges();
        Ok(edge)
    }

    /// What is listened on, with the real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Whether a thread of a shard is gone: nobody gets in there.
    pub fn has_fallen(&self) -> bool {
        self.shards.iter().any(Shard::has_fallen)
    }

    /// Replaces what a reload replaces, and ends the sessions whose right is gone.
    /// Others do not notice.
    pub fn renew(&self, live: Live) {
        self.shared.live.store(Arc::new(live));
        self.shared.sign_with();
        self.recheck_rights();
    }

    /// Replaces the routing map as a whole, and ends the sessions whose right is gone.
    pub fn replace(&self, snapshot: Snapshot) {
        self.shared.table.apply(snapshot);
        self.recheck_rights();
    }

    /// Changes the routing map, and ends the sessions whose right is gone with it.
    ///
    /// # Errors
    /// As [`crate::route::Table::change`]; nothing has changed.
    pub fn change(&self, delta: Delta) -> Result<Changed, Vec<Contradiction>> {
        let changed = self.shared.table.change(delta)?;
        if changed.takes_away {
            self.recheck_rights();
        }
        Ok(changed)
    }

    /// Refuses this though the routing map has it, and ends the sessions that have it.
    pub fn deny(&self, denied: Denied) {
        self.shared.table.deny(Some(Arc::new(denied)));
        self.recheck_rights();
    }

    /// The routing map has come so far: nothing else is refused.
    pub fn deny_no_more(&self) {
        self.shared.table.deny(None);
    }

    /// Whether agents take sessions from this edge from now on. If not those that they have end,
    /// and nothing is signed.
    pub fn admit(&self, admitted: bool) {
        if self.shared.admit(admitted) {
            self.recheck_rights();
        }
    }

    /// An agent ends what edges say has ended.
    fn ends_with_edges(&self) {
        let Part::Agent(agent) = &self.shared.part else { return };
        let shards: Vec<_> = self
            .shards
            .iter()
            .map(|shard| (Arc::clone(&shard.attended), shard.pump.clone()))
            .collect();
        let shared = Arc::downgrade(&self.shared);
        agent.closing.look_with(Box::new(move |(edge, request), cause| {
            let Some(shared) = shared.upgrade() else { return };
            let check = check_of(&shared);
            for (attended, pump) in &shards {
                attended.visit(|report, _| {
                    let is_it = report.request.0 == request
                        && report.far_end.as_deref() == Some(&FarEnd::Edge(edge));
                    is_it.then_some(cause)
                });
                // However many end at once, they are found in one go.
                pump.request_recheck(Arc::clone(&check));
            }
        }));
    }

    /// Checks the right of every session again. Comes after what took rights away: a session that
    /// is not on a pump by then is checked when it comes there.
    fn recheck_rights(&self) {
        self.shared.cut_links();
        let check = check_of(&self.shared);
        for shard in &self.shards {
            // First those that may be there in a moment: the pump checks everybody who comes.
            shard.attended.visit(|report, _| {
                revocation::recheck(&self.shared, report, clock::unix_s())
                    .err()
                    .map(gate::Refusal::cause)
            });
            shard.pump.request_recheck(Arc::clone(&check));
        }
    }

    /// Everybody who has a seat or is at the lobby, at about one moment. Asks every pump, and waits
    /// for them a second at most.
    pub fn sessions(&self) -> Vec<Present> {
        let (found, all) = std::sync::mpsc::channel();
        let mut present = HashMap::new();
        for shard in &self.shards {
            shard.attended.visit(|report, progress| {
                let (report, carry, up_bytes, down_bytes) = (report.clone(), None, 0, 0);
                let one = Present { report, progress, carry, up_bytes, down_bytes };
                present.insert(one.report.request.0, one);
                None
            });
            let found = found.clone();
            shard.pump.visit(Box::new(move |info: &Info, seen| {
                let _nobody_waits = found.send(Present {
                    report: info.report.clone(),
                    progress: Progress::Established,
                    carry: Some(seen.carry),
                    up_bytes: seen.up,
                    down_bytes: seen.down,
                });
                true
            }));
        }
        drop(found);
        let end = Instant::now() + VISIT_WAIT;
        let rest = || end.saturating_duration_since(Instant::now());
        // One that was established in between is told of as it is now.
        for one in std::iter::from_fn(|| all.recv_timeout(rest()).ok()) {
            present.insert(one.report.request.0, one);
        }
        present.into_values().collect()
    }

    /// Ends a session, what is to be one, or a visit of the lobby, with a word to its user; true
    /// if there was one.
    pub fn kill(&self, id: RequestId) -> bool {
        let (found, any) = std::sync::mpsc::channel();
        for shard in &self.shards {
            shard.attended.visit(|report, _| {
                let is_it = report.request == id;
                if is_it {
                    let _nobody_waits = found.send(());
                }
                is_it.then_some(Cause::Killed)
            });
            let found = found.clone();
            shard.pump.visit(Box::new(move |info: &Info, _| {
                let is_other = info.report.request != id;
                if !is_other {
                    let _nobody_waits = found.send(());
                }
                is_other
            }));
        }
        drop(found);
        any.recv_timeout(VISIT_WAIT).is_ok()
    }

    /// Whoever listened at the same addresses has closed its listeners.
    pub fn is_alone(&self) {
        let members =
            std::mem::take(&mut *self.members.lock().unwrap_or_else(PoisonError::into_inner));
        for member in members.iter().filter(|_| self.cpus.len() > 1) {
            if let Some(warning) = listen::steer_alone(member, &self.cpus) {
                tracing::warn!("{warning}");
            }
        }
    }

    /// Accepts nothing more; returns when the listeners are closed.
    pub fn stop_accepting(&self) {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shared.leave();
        // The last first: the kernel fills each gap with the last listener of the group, and so a
        // successor's come to stand in the order of its shards.
        for shard in self.shards.iter().rev() {
            shard.stop_accepting();
        }
    }

    /// Accepts nothing more and lets sessions go on until they end, at most `patience`; then tells
    /// `over`, and ends them with a word.
    pub fn drain(&self, patience: Duration, over: impl FnOnce()) {
        self.stop_accepting();
        if self.shared.wait_empty(patience) {
            return;
        }
        over();
        for shard in &self.shards {
            shard.attended.visit(|_, _| Some(Cause::Drained));
            shard.pump.end_all();
        }
        self.shared.wait_empty(door::PARTING_MAX);
    }
}

/// What a user reads whose session is ended; one whose keys an agent has is told there.
fn words(shared: &Arc<Shared>) -> impl Fn(&Info, Cause) -> String + use<> {
    let shared = Arc::clone(shared);
    move |info, cause| {
        shared.tell_agent(info, cause);
        info.report.notice(cause)
    }
}

/// Whether a session may stay, as everything stands when it is asked.
fn check_of(shared: &Arc<Shared>) -> pump::Check<Info> {
    let shared = Arc::clone(shared);
    Arc::new(move |info| revocation::may_stay(&shared, &info.report))
}

/// The log line of a session that the pump has ended.
fn ended(info: &Info, over: &pump::Report) {
    let lasted_ms = u64::try_from(over.lasted.as_millis()).unwrap_or(u64::MAX);
    let carry = Some(over.carry);
    let signatures = info.handed.as_ref().map_or(0, Handed::signatures);
    let carried =
        Carried { carry, up_bytes: over.up, down_bytes: over.down, lasted_ms, signatures };
    match &over.detail {
        None => info.report.write(over.ended, carried),
        detail => {
            let report = report::Report { detail: detail.clone(), ..info.report.clone() };
            report.write(over.ended, carried);
        }
    }
}

#[cfg(test)]
#[path = "running_tests.rs"]
pub(super) mod tests;
