//! The thread that carries established sessions: one a shard, on the door's CPU, waiting for
//! readiness and nothing else.
//!
//! Sessions and commands come in through a [`PumpHandle`]. An idle pump sleeps without a timeout;
//! one with sessions wakes once a minute to see which have gone quiet. Every session that came in
//! ends in exactly one call of the `on_end` given at the start. A panic while a session is served
//! ends that session.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::epoll::EpollTimeout;
use nix::unistd::Pid;

use self::handle::{Command, Queue, Shared};
use super::buffers::Pool;
use super::clock::monotonic_ms;
use super::epoll::{Event, Interest, Poller, Readiness, Target};
use super::relay::Turn;
use super::relay::leg::{Party, PumpContext, Tally};
pub use super::relay::{ClientAlive, EstablishedLeg, PreferGcm};
use super::slab::{Key, Slab};
use crate::ended::{Cause, Ended, Side, Stage};
use crate::metrics::{Counters, Direction, Passage};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::transport::Instant;

mod carriage;
mod handle;
mod pipes;
mod session;
mod splice;
pub use self::carriage::{Carriage, Carry};
pub use self::handle::PumpHandle;
pub(in crate::edge) use self::pipes::Pipes;
pub use self::session::{Ask, Check, Deliver, Report, Seen, Session, Stay, Visit};
pub use self::splice::{Splice, SplicedLeg};

/// How often sessions are looked at for memory that they can do without and key exchanges that are
/// stuck, in milliseconds.
const SCAN_MS: u64 = 60_000;

/// Deadlines that may stand for nobody, beside as many as there are sessions.
const DEADLINES_SPARE: usize = 64;

/// Sessions checked again before the others get their turn: a check takes less than a microsecond.
const CHECKS_A_ROUND: usize = 256;

/// Panics outside of any session after which a pump gives up.
const PANICS_MAX: u32 = 100;

/// What a pump is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The CPU to stay on, by the kernel's number.
    pub cpu: Option<usize>,
    /// Whether bulky clients are re-keyed to AES-GCM.
    pub prefer_gcm: PreferGcm,
    /// How long clients may be silent.
    pub client_alive: ClientAlive,
}

/// Hears of every session's end.
type OnEnd<I> = dyn FnMut(&I, &Report) + Send;

/// What users read when their sessions are ended.
type Words<I> = dyn Fn(&I, Cause) -> String + Send;

/// Starts a pump on a thread of its own. `counters` have this thread as their one writer: the pump
/// counts sessions, ends, bytes, re-keys and panics; `words` is what users read when their sessions
/// are ended, `on_end` writes the log line.
///
/// # Errors
/// Out of file descriptors or threads.
#[expect(clippy::disallowed_methods, reason = "a shard's pump is a thread")]
pub fn spawn<I: Send + 'static>(
    name: String,
    settings: Settings,
    counters: Arc<Counters>,
    words: impl Fn(&I, Cause) -> String + Send + 'static,
    on_end: impl FnMut(&I, &Report) + Send + 'static,
) -> io::Result<(PumpHandle<I>, JoinHandle<()>)> {
    let (pump, handle) = build(settings, counters, words, on_end)?;
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        if let Some(cpu) = settings.cpu {
            pin(cpu);
        }
        pump.run();
    })?;
    Ok((handle, thread))
}

fn build<I>(
    settings: Settings,
    counters: Arc<Counters>,
    words: impl Fn(&I, Cause) -> String + Send + 'static,
    on_end: impl FnMut(&I, &Report) + Send + 'static,
) -> io::Result<(Pump<I>, PumpHandle<I>)> {
    let (poller, waker) = Poller::new()?;
    let shared = Arc::new(Shared::new(waker));
    let handle = PumpHandle::new(Arc::clone(&shared));
    let pump = Pump {
        poller,
        shared,
        entries: Slab::new(),
        ready: VecDeque::new(),
        deadlines: BinaryHeap::new(),
        scan_ms: 0,
        arrivals: Arrivals::Welcome,
        check: None,
        ask: None,
        unchecked: Vec::new(),
        tools: PumpContext {
            pool: Pool::default(),
            entropy: Box::new(SystemEntropy::default()),
            now: Instant(monotonic_ms()),
            prefer_gcm: settings.prefer_gcm,
            client_alive: settings.client_alive,
            pipes: Pipes::default(),
            tally: Tally::default(),
        },
        counters,
        words: Box::new(words),
        on_end: Box::new(on_end),
    };
    Ok((pump, handle))
}

/// Keeps the calling thread on `cpu`. Best effort: a thread on the wrong CPU is slower, not wrong.
pub(super) fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    if set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).is_err() {
        tracing::warn!(cpu, "thread not pinned");
    }
}

struct Pump<I> {
    poller: Poller,
    shared: Arc<Shared<I>>,
    entries: Slab<Box<Entry<I>>>,
    /// Sessions that want a turn, each at most once.
    ready: VecDeque<Key>,
    /// Deadlines of sessions; those that were moved or whose session is gone are found
    /// out when they pass.
    deadlines: BinaryHeap<Reverse<(u64, Key)>>,
    /// When to look at all sessions next.
    scan_ms: u64,
    arrivals: Arrivals,
    /// The check of the last recheck: asked too when somebody comes in, and when a
    /// right has its end.
    check: Option<Check<I>>,
    /// Whom to ask for what sessions want.
    ask: Option<Ask<I>>,
    /// Sessions that this recheck has not come to.
    unchecked: Vec<Key>,
    tools: PumpContext,
    counters: Arc<Counters>,
    /// What users read when their sessions are ended.
    words: Box<Words<I>>,
    on_end: Box<OnEnd<I>>,
}

/// What happens to new sessions.
enum Arrivals {
    Welcome,
    /// They are ended like those that are here.
    Refused,
}

struct Entry<I> {
    carriage: Carriage,
    info: I,
    started_ms: u64,
    /// When to ask again whether it may stay, if its right has an end.
    until: Option<u64>,
    /// The deadline that stands in the heap.
    armed: Option<u64>,
    /// It stands in the queue of those that want a turn.
    is_queued: bool,
    /// What its sockets are watched for: client, VM.
    interest: [Interest; 2],
}

impl<I> Entry<I> {
    /// Has the next moment at which something is due stand in the heap.
    fn arm(&mut self, key: Key, deadlines: &mut BinaryHeap<Reverse<(u64, Key)>>) {
        let deadline = self.carriage.deadline().into_iter().chain(self.until).min();
        // One that stands there and is earlier does as well: when it passes, this is armed again.
        if let Some(at) = deadline
            && self.armed.is_none_or(|armed| at < armed)
        {
            self.armed = deadline;
            deadlines.push(Reverse((at, key)));
        }
    }
}

/// Whether the thread goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Life {
    On,
    Stopped,
}

impl<I: Send + 'static> Pump<I> {
    /// Runs until it is told to stop. A panic outside of any session is ours and must
    /// not end the others.
    fn run(mut self) {
        for _ in 0..PANICS_MAX {
            if catch_unwind(AssertUnwindSafe(|| self.go_on())).is_ok() {
                break;
            }
            self.counters.panicked();
        }
        self.end();
    }

    fn go_on(&mut self) {
        let mut batch = Vec::new();
        // A panic may have come between a wake and what it was for.
        if self.obey() == Life::Stopped {
            return;
        }
        self.run_recheck();
        loop {
            let timeout = self.timeout();
            match self.poller.wait(timeout) {
                Ok(events) => batch.extend(events),
                Err(error) => {
                    tracing::error!(%error, "pump stopped: epoll failed");
                    break;
                }
            }
            self.tools.now = Instant(monotonic_ms());
            let mut woken = false;
            for event in batch.drain(..) {
                match event {
                    Event::Woken => woken = true,
                    Event::Ready(target, readiness) => self.ready(target, readiness),
                }
            }
            if woken && self.obey() == Life::Stopped {
                break;
            }
            if woken || !self.unchecked.is_empty() {
                self.run_recheck();
            }
            self.pass_deadlines();
            // Those that want another turn queue up behind, and epoll is asked before they get it.
            for _ in 0..self.ready.len() {
                if let Some(key) = self.ready.pop_front() {
                    self.turn(key);
                }
            }
            self.report_tally();
        }
    }

    fn timeout(&self) -> EpollTimeout {
        if !self.ready.is_empty() || !self.unchecked.is_empty() {
            return EpollTimeout::ZERO;
        }
        let scan = (!self.entries.is_empty()).then_some(self.scan_ms);
        let deadline = self.deadlines.peek().map(|Reverse((at, _))| *at);
        match scan.into_iter().chain(deadline).min() {
            None => EpollTimeout::NONE,
            Some(at) => {
                let wait = at.saturating_sub(self.tools.now.0).min(SCAN_MS);
                EpollTimeout::try_from(Duration::from_millis(wait)).unwrap_or(EpollTimeout::ZERO)
            }
        }
    }

    fn ready(&mut self, target: Target, readiness: Readiness) {
        let Some(entry) = self.entries.get_mut(target.key) else {
            return;
        };
        entry.carriage.ready(if target.second { Party::Vm } else { Party::Client }, readiness);
        if !entry.is_queued {
            entry.is_queued = true;
            self.ready.push_back(target.key);
        }
    }

    /// Carries out what came through the handles.
    fn obey(&mut self) -> Life {
        // One at a time: those behind one that panics are not lost with it.
        loop {
            let next = match &mut *self.shared.queue() {
                Queue::Open { commands, .. } => commands.pop_front(),
                Queue::Closed => None,
            };
            match next {
                None => return Life::On,
                Some(Command::Session(session)) => self.register(*session),
                Some(Command::Visit(visit)) => self.visit(visit),
                Some(Command::AskWith(ask)) => self.ask = Some(ask),
                Some(Command::Answered(key, want, answer)) => {
                    self.serve(key, |carriage, tools| {
                        carriage.answered(want, answer.as_deref(), tools)
                    });
                }
                Some(Command::EndAll) => {
                    for key in self.entries.keys() {
                        self.evict(key, Cause::Drained);
                    }
                    self.arrivals = Arrivals::Refused;
                }
                Some(Command::Stop) => return Life::Stopped,
            }
        }
    }

    fn visit(&mut self, mut visit: Visit<I>) {
        for key in self.entries.keys() {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            let (up, down) = entry.carriage.received();
            if !visit(&entry.info, Seen { carry: entry.carriage.carry(), up, down }) {
                self.evict(key, Cause::Killed);
            }
        }
    }

    /// Goes on with a recheck, or begins the one that waits. Those that come in meanwhile are
    /// checked as they do.
    fn run_recheck(&mut self) {
        if self.unchecked.is_empty() {
            self.begin_recheck();
        }
        let Some(check) = self.check.clone() else { return };
        let rest = self.unchecked.len().saturating_sub(CHECKS_A_ROUND);
        for key in self.unchecked.split_off(rest) {
            self.check(key, &check);
        }
        // Its wake may have come while this one ran.
        if self.unchecked.is_empty() {
            self.begin_recheck();
        }
    }

    fn begin_recheck(&mut self) {
        let next = match &mut *self.shared.queue() {
            Queue::Open { recheck, .. } => recheck.take(),
            Queue::Closed => None,
        };
        if next.is_some() {
            self.unchecked = self.entries.keys();
            self.check = next;
        }
    }

    fn register(&mut self, session: Session<I>) {
        self.counters.session_started();
        if self.entries.is_empty() {
            self.scan_ms = self.tools.now.0 + SCAN_MS;
        }
        let Session { carriage, info, started_ms } = session;
        let interest = [Interest::Read; 2];
        let (until, armed, is_queued) = (None, None, false);
        let entry =
            Box::new(Entry { carriage, info, started_ms, until, armed, is_queued, interest });
        let ended = Ended::edge(Stage::Session, Cause::Resources);
        let key = match self.entries.insert(entry) {
            Ok(key) => key,
            Err(entry) => return self.bury(*entry, ended),
        };
        if let Err(error) = self.watch(key) {
            tracing::warn!(%error, "session refused: its sockets cannot be watched");
            return self.remove(key, ended);
        }
        self.serve(key, |carriage, tools| {
            carriage.begin(tools);
            Turn::Again
        });
        // Only now that a recheck would find it: what changed since its admission is not missed.
        if let Some(check) = self.check.clone() {
            self.check(key, &check);
        }
        if matches!(self.arrivals, Arrivals::Refused) {
            self.evict(key, Cause::Drained);
        }
    }

    fn watch(&mut self, key: Key) -> io::Result<()> {
        let Some(entry) = self.entries.get_mut(key) else {
            return Ok(());
        };
        let [client, vm] = entry.carriage.sockets();
        self.poller.watch(client, Target { key, second: false }, Interest::Read)?;
        self.poller.watch(vm, Target { key, second: true }, Interest::Read)
    }

    fn check(&mut self, key: Key, check: &Check<I>) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let stay = catch_unwind(AssertUnwindSafe(|| check(&entry.info))).unwrap_or_else(|_| {
            self.counters.panicked();
            // A check that panics has not said yes.
            Stay::End(Cause::RightLost)
        });
        match stay {
            Stay::Until(until) => {
                entry.until = until;
                entry.arm(key, &mut self.deadlines);
            }
            Stay::End(cause) => {
                entry.until = None;
                self.evict(key, cause);
            }
        }
    }

    fn evict(&mut self, key: Key, cause: Cause) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let words = AssertUnwindSafe(|| (self.words)(&entry.info, cause));
        let text = catch_unwind(words).unwrap_or_else(|_| {
            self.counters.panicked();
            String::from("session ended")
        });
        self.serve(key, |carriage, tools| {
            carriage.evict(cause, &text, tools);
            Turn::Again
        });
    }

    /// Gives a session its turn.
    fn turn(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.is_queued = false;
        }
        self.serve(key, Carriage::turn);
    }

    /// Looks at the sessions whose deadline has passed, and at all of them if it is time.
    fn pass_deadlines(&mut self) {
        let now = self.tools.now.0;
        while let Some(Reverse((at, key))) = self.deadlines.peek().copied()
            && at <= now
        {
            self.deadlines.pop();
            let Some(entry) = self.entries.get_mut(key) else { continue };
            // One that was moved: another stands in the heap for it.
            if entry.armed != Some(at) {
                continue;
            }
            entry.armed = None;
            if entry.until.take_if(|until| *until <= now).is_some() {
                match self.check.clone() {
                    Some(check) => self.check(key, &check),
                    None => self.evict(key, Cause::RightExpired),
                }
            }
            self.serve(key, Carriage::expire);
        }
        if self.scan_ms <= now && !self.entries.is_empty() {
            self.scan_ms = now + SCAN_MS;
            for key in self.entries.keys() {
                self.serve(key, Carriage::look);
            }
        }
    }

    /// Runs `work` on a session and does what it asks for. A panic ends the session and no more.
    fn serve(&mut self, key: Key, work: impl FnOnce(&mut Carriage, &mut PumpContext) -> Turn) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let tools = &mut self.tools;
        let carriage = &mut entry.carriage;
        let turn = catch_unwind(AssertUnwindSafe(|| work(carriage, tools))).unwrap_or_else(|_| {
            self.counters.panicked();
            Turn::Over(Ended::edge(Stage::Session, Cause::Panic))
        });
        match turn {
            Turn::Over(ended) => return self.remove(key, ended),
            Turn::Again if !entry.is_queued => {
                entry.is_queued = true;
                self.ready.push_back(key);
            }
            Turn::Again | Turn::Wait => {}
        }
        entry.arm(key, &mut self.deadlines);
        while let Some(wanted) = entry.carriage.wanted() {
            let (own, want) = (PumpHandle::new(Arc::clone(&self.shared)), wanted.want());
            let handle = own.clone();
            let deliver = Box::new(move |answer| handle.answered(key, want, answer));
            if !self.ask.as_ref().is_some_and(|ask| ask(&entry.info, wanted, deliver)) {
                own.answered(key, want, None);
            }
        }
        let is_full = entry.carriage.is_full() != [false; 2];
        self.forget_deadlines();
        // Few sockets are ever full: only those pay for hearing that there is room again.
        if is_full && let Err(error) = self.watch_room(key) {
            tracing::warn!(%error, "session ended: its sockets cannot be watched");
            let ended = Ended::edge(Stage::Session, Cause::Resources);
            self.remove(key, ended);
        }
    }

    /// Drops the deadlines of sessions that are gone, and those that were moved, once they are
    /// most of all. Else a pump with many short sessions would hold each for as long as a
    /// client may be silent.
    fn forget_deadlines(&mut self) {
        let Self { deadlines, entries, .. } = self;
        if deadlines.len() > 2 * entries.len() + DEADLINES_SPARE {
            deadlines.retain(|Reverse((at, key))| {
                entries.get(*key).is_some_and(|entry| entry.armed == Some(*at))
            });
        }
    }

    /// Has epoll tell when a session's full sockets take bytes again.
    fn watch_room(&mut self, key: Key) -> io::Result<()> {
        let Some(entry) = self.entries.get_mut(key) else { return Ok(()) };
        let is_full = entry.carriage.is_full();
        for (at, socket) in entry.carriage.sockets().into_iter().enumerate() {
            if is_full[at] && entry.interest[at] == Interest::Read {
                let target = Target { key, second: at == 1 };
                self.poller.change(socket, target, Interest::Both)?;
                entry.interest[at] = Interest::Both;
            }
        }
        Ok(())
    }

    fn remove(&mut self, key: Key, ended: Ended) {
        if let Some(entry) = self.entries.remove(key) {
            self.bury(*entry, ended);
        }
    }

    /// Closes a session's sockets and says that it is over.
    fn bury(&mut self, entry: Entry<I>, ended: Ended) {
        let Entry { mut carriage, info, started_ms, .. } = entry;
        carriage.release(&mut self.tools.pool);
        let (up, down) = carriage.received();
        let (carry, detail) = (carriage.carry(), carriage.detail());
        drop(carriage);
        self.counters.session_ended();
        self.counters.ended(ended);
        let lasted = Duration::from_millis(self.tools.now.0.saturating_sub(started_ms));
        let report = Report { ended, carry, detail, up, down, lasted };
        if catch_unwind(AssertUnwindSafe(|| (self.on_end)(&info, &report))).is_err() {
            self.counters.panicked();
        }
        self.shared.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    fn report_tally(&mut self) {
        let Tally { up, down, rekeys, spliced, stuck, unpiped } =
            std::mem::take(&mut self.tools.tally);
        if up > 0 {
            self.counters.bytes(Direction::Up, up);
        }
        if down > 0 {
            self.counters.bytes(Direction::Down, down);
        }
        for _ in 0..rekeys {
            self.counters.rekeyed();
        }
        if spliced + stuck + unpiped > 0 {
            self.counters.passed(Passage::Spliced, spliced);
            self.counters.passed(Passage::Stuck, stuck);
            self.counters.passed(Passage::NoPipe, unpiped);
        }
    }

    /// Ends what is left.
    fn end(&mut self) {
        let ended = Ended { side: Side::Operator, stage: Stage::Session, cause: Cause::Killed };
        let last = std::mem::replace(&mut *self.shared.queue(), Queue::Closed);
        if let Queue::Open { commands, .. } = last {
            for command in commands {
                if let Command::Session(session) = command {
                    self.register(*session);
                }
            }
        }
        for key in self.entries.keys() {
            self.remove(key, ended);
        }
        self.report_tally();
    }
}

#[cfg(test)]
pub(super) mod tests;
