//! What each audience is sent: the changes of the registry as they come, some milliseconds of them
//! together, encoded once and kept in a ring for whoever comes back.

use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::known::{Known, PROGRAM, digest};
use super::ring::{Ring, framed, weight};
use super::stage::{Report, Stage, is_large};
use crate::route::audience::{self, Audiences, Whole};
use crate::route::saved_routes::{self, Head, VERSION};
use crate::route::{Change, Contents, Delta, Denied, FrontDoor, NodeEntry};

/// Bytes of all audiences' changes that are kept, whoever follows: a tenth of what a registry of a
/// million VMs takes itself.
const RINGS_BYTES_MAX: usize = 128 << 20;
/// Bytes of one audience's: some hundreds of commits that touch one node. Whoever was away for more
/// begins anew, which is not much more than that.
const RING_BYTES_MAX: usize = 256 << 10;
/// Names in all changes that wait for a canary: some 50 MB.
const HELD_WEIGHT_MAX: usize = 1 << 18;
/// However many audiences there are.
const RING_BYTES_MIN: usize = 16 << 10;

/// The feed of one registry.
#[derive(Debug, Default)]
pub struct Hub {
    state: Mutex<State>,
    went_on: AtomicU64,
    began_anew: AtomicU64,
    cut_off: AtomicU64,
    watched_ms: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Of what was told last; nothing before the registry is read.
    head: Option<Head>,
    /// The revision that was read then. Later ones nobody was told but here.
    begun: u64,
    audiences: Audiences,
    rings: HashMap<Arc<str>, Ring>,
    front_door: FrontDoor,
    /// Goes up with every change of it.
    front_doors: u64,
    /// As it was encoded last, and at which revision.
    door: Option<(u64, Bytes)>,
    streams: u64,
    /// A large commit that waits.
    stage: Option<Stage>,
    /// Of all that waits with it.
    held_weight: usize,
}

/// A large commit that waits until an agent is well with it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Staged {
    /// What that agent has to come to.
    pub revision: u64,
    /// Its node.
    pub canary: String,
    /// Agents that wait.
    pub waiting: usize,
    /// What keeps it.
    pub trouble: Option<String>,
}

/// How it is with the followers now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gauges {
    /// By their connections.
    pub followers: usize,
    /// Revisions that the last of them is behind.
    pub lag: u64,
    /// Bytes of changes that are kept for whoever comes back.
    pub kept_bytes: usize,
}

/// What became of followers since the start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counts {
    /// Came, and went on where they ended.
    pub went_on: u64,
    /// Came, and began with everything.
    pub began_anew: u64,
    /// Took what they were sent too slowly.
    pub cut_off: u64,
}

/// One who follows, until this is dropped.
#[derive(Debug)]
pub(in crate::control) struct Follower {
    hub: Arc<Hub>,
    audience: Arc<str>,
    number: u64,
    /// The front door as it was sent last.
    front_door: u64,
    moved: watch::Receiver<()>,
    goes_on: bool,
    /// It has what there is, under an earlier revision.
    same_as: Option<u64>,
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry was read, at a start or anew: whoever follows comes again. Which build this is
    /// is nothing to them.
    pub fn begin(&self, head: Head) {
        let mut state = self.state();
        state.head = Some(Head { program: PROGRAM, ..head });
        state.begun = head.revision;
        state.rings.clear();
        state.audiences = Audiences::default();
        (state.stage, state.held_weight) = (None, 0);
    }

    /// The registry has changed, and is `whole` now. `before` is asked for what leads back.
    pub fn change(
        &self,
        revision: u64,
        delta: &Delta,
        before: &dyn Fn() -> Delta,
        whole: &dyn Whole,
    ) {
        let mut state = self.state();
        let ring_bytes_max = state.ring_bytes_max();
        let Some(head) = &mut state.head else { return };
        head.revision = revision;
        let (head, told) = (*head, state.audiences.change(delta, whole));
        if !self.watched().is_zero() {
            state.stage_if_large(head, &told);
        }
        let State { audiences, rings, held_weight, stage, .. } = &mut *state;
        let (before, mut fits) = (LazyCell::new(before), true);
        for (audience, told) in told {
            let Some(ring) = rings.get_mut(&audience) else { continue };
            if ring.is_aside() {
                let denied = Denied::by((&told, &audience), &before, whole).ok();
                // Whoever waits for everything has that in a moment.
                fits &= ring.deny(revision, denied) || !ring.held;
            } else {
                ring.deny_no_more();
            }
            if ring.held {
                *held_weight += told.changes.iter().map(weight).sum::<usize>();
            }
            ring.push(head, told.changes, ring_bytes_max);
        }
        for change in &delta.changes {
            let (name, key) = if let Change::PutNode(NodeEntry { name, agent, .. }) = change {
                (name, agent.map(|it| it.key))
            } else if let Change::RemoveNode(name) = change {
                (name, None)
            } else {
                continue;
            };
            // Whoever has another key now is another one.
            if rings.get(&**name).is_some_and(|ring| Some(ring.key) != key) {
                rings.remove(&**name);
                audiences.close(name, whole);
                fits &= stage.as_ref().is_none_or(|stage| *stage.canary != **name);
            }
        }
        if !fits || *held_weight > HELD_WEIGHT_MAX {
            state.give_up();
        }
    }

    /// How long a canary is watched before the others have what it has; zero: there is none.
    pub fn watch_canaries(&self, watched: Duration) {
        let ms = u64::try_from(watched.as_millis()).unwrap_or(u64::MAX);
        self.watched_ms.store(ms, Ordering::Relaxed);
    }

    fn watched(&self) -> Duration {
        Duration::from_millis(self.watched_ms.load(Ordering::Relaxed))
    }

    /// The large commit that waits, if one does.
    pub fn staged(&self) -> Option<Staged> {
        let state = self.state();
        let Stage { canary, revision, trouble, .. } = state.stage.as_ref()?;
        Some(Staged {
            revision: *revision,
            canary: canary.to_string(),
            waiting: state.rings.values().filter(|ring| ring.held).count(),
            trouble: trouble.clone(),
        })
    }

    /// Whatever waits goes to all; says what that was.
    pub fn release(&self) -> Option<Staged> {
        let staged = self.staged();
        self.state().let_go();
        staged
    }

    /// How the agent of `node` is, which holds `key`. `whole` is what was told last.
    pub(in crate::control) fn hear(
        &self,
        node: &str,
        key: [u8; 32],
        (report, now): (Report, Instant),
        whole: &dyn Whole,
    ) {
        let Report { revision, digest: theirs, well } = report;
        let is_canary = |state: &State| {
            let is_its = state.rings.get(node).is_some_and(|ring| ring.key == key);
            let is = |stage: &Stage| *stage.canary == *node && revision >= stage.revision;
            is_its && state.stage.as_ref().is_some_and(is)
        };
        let has_all = {
            let state = self.state();
            if !is_canary(&state) {
                return;
            }
            state.rings.get(node).is_some_and(|ring| ring.has_come_to(revision))
        };
        // Nothing changes while whoever asks holds `whole`.
        let is_other = has_all
            && theirs.is_some_and(|theirs| theirs != digest(audience::contents(node, whole)));
        let mut all = self.state();
        let Some(stage) = &mut all.stage else { return };
        if is_other {
            stage.troubled("it has made something else of it than control has");
        } else if !well {
            stage.troubled("it says that it is not well");
        } else if stage.is_well(now, self.watched()) {
            tracing::info!(node, revision, "a large commit goes to all: an agent is well with it");
            all.let_go();
        }
    }

    /// What is to be known of the front door from now on, but for its edges.
    pub fn front_door(&self, now: FrontDoor) {
        self.renew(|before| FrontDoor { edges: before.edges.clone(), ..now });
    }

    /// The edges that are admitted from now on.
    pub fn edges(&self, edges: Vec<[u8; 32]>) {
        self.renew(|before| FrontDoor { edges, ..before.clone() });
    }

    fn renew(&self, now: impl FnOnce(&FrontDoor) -> FrontDoor) {
        let mut state = self.state();
        let now = now(&state.front_door);
        if state.front_door != now {
            state.front_door = now;
            state.front_doors += 1;
            state.door = None;
            for ring in state.rings.values() {
                ring.moved.send_replace(());
            }
        }
    }

    /// What is to be known of the front door now, and of which moment that is. Nothing before the
    /// registry is read.
    pub(in crate::control) fn told(&self) -> Option<(Head, FrontDoor)> {
        let state = self.state();
        Some((state.head?, state.front_door.clone()))
    }

    /// How it is now.
    pub fn gauges(&self) -> Gauges {
        let state = self.state();
        let now = state.head.map_or(0, |head| head.revision);
        let streams = || state.rings.values().flat_map(|ring| &ring.streams);
        let lag = streams().map(|stream| now.saturating_sub(stream.after)).max();
        Gauges {
            followers: streams().count(),
            lag: lag.unwrap_or(0),
            kept_bytes: state.rings.values().map(|ring| ring.bytes).sum(),
        }
    }

    /// What has become of those who came.
    pub fn counts(&self) -> Counts {
        Counts {
            went_on: self.went_on.load(Ordering::Relaxed),
            began_anew: self.began_anew.load(Ordering::Relaxed),
            cut_off: self.cut_off.load(Ordering::Relaxed),
        }
    }

    /// The agent of `node` follows, which holds `key` and has so much. `whole` is what was told
    /// last. Nothing if there is nothing to follow.
    pub(in crate::control) fn follow(
        self: &Arc<Self>,
        node: &str,
        key: [u8; 32],
        (speaks, known): (u16, Option<Known>),
        whole: &dyn Whole,
    ) -> Option<Follower> {
        let shown = known.and_then(|known| self.state().shows(node, known));
        // Others' commits wait for the lock, and none for this: whoever asks holds `whole`.
        let shown = shown.and_then(|shown| match shown {
            Shown::Revision(known) => Some((known, None)),
            Shown::Digest(known, theirs) => {
                let same = digest(audience::contents(node, whole)) == theirs;
                same.then_some((known, Some(theirs)))
            }
        });
        let mut state = self.state();
        let ring_bytes_max = state.ring_bytes_max();
        let State { head, begun, audiences, rings, streams, .. } = &mut *state;
        let head = (*head)?;
        audiences.open(node, whole);
        let audience: Arc<str> = node.into();
        let ring =
            rings.entry(Arc::clone(&audience)).or_insert_with(|| Ring::new(key, head.revision));
        if speaks < VERSION {
            // Nothing can be kept from it: what is taken away it is told in no other way.
            ring.let_go(head, ring_bytes_max);
        }
        ring.flush(head, ring_bytes_max);
        let number = *streams;
        *streams += 1;
        let (after, same_as) = match shown {
            None => (head.revision, None),
            Some((known, _)) if known >= ring.floor => (known, None),
            // Whatever was told since, it has that.
            Some((known, _)) => (head.revision, Some(known)),
        };
        if let Some((_, Some(shown))) = shown.filter(|_| head.revision == *begun) {
            ring.origin = Some(shown);
        }
        ring.enter(number, (after, shown.is_none()), speaks);
        let moved = ring.moved.subscribe();
        drop(state);
        let came = if shown.is_some() { &self.went_on } else { &self.began_anew };
        came.fetch_add(1, Ordering::Relaxed);
        let (hub, goes_on) = (Arc::clone(self), shown.is_some());
        // No front door was the first.
        let front_door = u64::MAX;
        Some(Follower { hub, audience, number, front_door, moved, goes_on, same_as })
    }
}

/// By what a follower shows how far it has come, if that is of any use.
enum Shown {
    /// This revision was told to it here.
    Revision(u64),
    /// This one elsewhere: it has what there is now if that has this digest.
    Digest(u64, [u8; 32]),
}

impl State {
    fn shows(&self, node: &str, Known { head: known, digest }: Known) -> Option<Shown> {
        let (head, ring) = (self.head?, self.rings.get(node));
        if known.store != head.store || known.revision > head.revision {
            return None;
        }
        let revision = known.revision;
        let is_kept = ring.map_or(head.revision, |ring| ring.floor) <= revision;
        let as_it_began = || digest.is_some() && ring.and_then(|ring| ring.origin) == digest;
        let is_told_here = revision > self.begun || revision == self.begun && as_it_began();
        if known.program == PROGRAM && is_kept && is_told_here {
            return Some(Shown::Revision(revision));
        }
        digest.map(|digest| Shown::Digest(revision, digest))
    }

    /// The front door, if it is another one than was `sent`.
    fn door(&mut self, sent: &mut u64) -> Option<Bytes> {
        let head = self.head.filter(|_| *sent != self.front_doors)?;
        *sent = self.front_doors;
        let known = self.door.take().filter(|(revision, _)| *revision == head.revision);
        let encode =
            || (head.revision, framed(&[saved_routes::encode_front_door(head, &self.front_door)]));
        let (_, door) = self.door.insert(known.unwrap_or_else(encode));
        Some(door.clone())
    }

    /// If a commit touches much of what an agent has, the agent that it touches most has it first,
    /// and the others later; with one agent alone there is nobody to wait.
    fn stage_if_large(&mut self, head: Head, told: &BTreeMap<Arc<str>, Delta>) {
        let ring_bytes_max = self.ring_bytes_max();
        let Self { audiences, rings, stage, .. } = self;
        let is_large =
            told.iter().any(|(of, delta)| is_large(delta.changes.len(), audiences.entries(of)));
        if let Some(stage) = stage {
            // What comes behind one waits where that is held, and is its remedy perhaps.
            let comes_again = is_large || stage.trouble.is_some();
            if comes_again && told.contains_key(&stage.canary) {
                stage.again(head.revision);
            }
            return;
        }
        let first = told
            .iter()
            .filter(|(of, _)| is_large && rings.get(*of).is_some_and(Ring::can_be_asked))
            .max_by(|(a, x), (b, y)| x.changes.len().cmp(&y.changes.len()).then(b.cmp(a)));
        let Some((canary, _)) = first else { return };
        let waits = |of: &&Arc<str>| *of != canary && rings.get(*of).is_some_and(Ring::can_be_held);
        let others: Vec<_> = told.keys().filter(waits).collect();
        let is_there = |of: &&Arc<str>| rings.get(*of).is_some_and(Ring::can_be_asked);
        if !others.iter().any(is_there) {
            return;
        }
        let (revision, waiting) = (head.revision, others.len());
        for of in others {
            if let Some(ring) = rings.get_mut(of) {
                ring.hold(head, ring_bytes_max);
            }
        }
        tracing::info!(
            node = &**canary,
            revision,
            waiting,
            "a large commit goes to one agent first"
        );
        *stage = Some(Stage::new(Arc::clone(canary), revision));
    }

    /// Nothing waits any more.
    fn let_go(&mut self) {
        (self.stage, self.held_weight) = (None, 0);
        let (Some(head), ring_bytes_max) = (self.head, self.ring_bytes_max()) else { return };
        for ring in self.rings.values_mut() {
            ring.let_go(head, ring_bytes_max);
        }
    }

    /// It cannot wait: what is taken away does not.
    fn give_up(&mut self) {
        if let Some(Stage { canary, revision, .. }) = &self.stage {
            tracing::warn!(
                node = &**canary,
                revision,
                "a large commit goes to all agents before one is known to be well with it: that one's node is gone, or what                  is taken away meanwhile is more than can be told before the rest"
            );
        }
        self.let_go();
    }

    fn ring_bytes_max(&self) -> usize {
        let share = RINGS_BYTES_MAX / self.rings.len().max(1);
        share.clamp(RING_BYTES_MIN, RING_BYTES_MAX)
    }
}

impl Follower {
    /// Comes when there is something more; false when there never will be.
    pub(super) async fn moved(&mut self) -> bool {
        self.moved.changed().await.is_ok()
    }

    /// Whether it goes on where it ended; else it hears everything first.
    pub(super) const fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// A number of its own.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// The front door as it is now, which is heard first: it says whether the rest is to be
    /// believed.
    pub(super) fn door(&mut self) -> Option<Bytes> {
        self.front_door = u64::MAX;
        self.hub.state().door(&mut self.front_door)
    }

    /// Everything; `whole` is what was told last. Nothing if it may follow no longer.
    pub(in crate::control) fn everything(&mut self, whole: &dyn Whole) -> Option<(Head, Contents)> {
        let (head, is_first) = {
            let mut state = self.hub.state();
            let ring_bytes_max = state.ring_bytes_max();
            let State { head, begun, rings, .. } = &mut *state;
            let (head, ring) = ((*head)?, rings.get_mut(&self.audience)?);
            // It has all that waits.
            ring.let_go(head, ring_bytes_max);
            let stream = ring.stream(self.number)?;
            (stream.after, stream.waits) = (head.revision, false);
            (head, head.revision == *begun && ring.origin.is_none())
        };
        // Others follow meanwhile: nothing changes while whoever asks holds `whole`.
        let contents = audience::contents(&self.audience, whole);
        if is_first {
            let origin = digest(contents.clone());
            if let Some(ring) = self.hub.state().rings.get_mut(&self.audience) {
                ring.origin = Some(origin);
            }
        }
        Some((head, contents))
    }

    /// What is to be sent next, in order. `beat`: the follower is told how far it has come.
    /// Nothing if it may follow no longer, or has fallen behind what is kept.
    pub(super) fn next(&mut self, beat: bool, now: Instant) -> Option<Vec<Bytes>> {
        let watched = self.hub.watched();
        let mut state = self.hub.state();
        let mut next: Vec<Bytes> = state.door(&mut self.front_door).into_iter().collect();
        let ring_bytes_max = state.ring_bytes_max();
        let State { head, rings, stage, .. } = &mut *state;
        let (head, ring) = ((*head)?, rings.get_mut(&self.audience)?);
        ring.flush(head, ring_bytes_max);
        let after = ring.stream(self.number)?.after;
        next.extend(ring.denied_to(self.number, head));
        if let Some(before) = self.same_as.take() {
            let head = Head { revision: after, ..head };
            next.push(framed(&[saved_routes::encode_delta(head, before, &Delta::default())]));
        }
        if after < ring.floor {
            if !next.is_empty() {
                // Which edges are no more it hears before it is cut, at once.
                ring.moved.send_replace(());
                return Some(next);
            }
            drop(state);
            self.cut_off();
            return None;
        }
        let (mut to, deltas) = ring.since(after);
        next.extend(deltas);
        if beat {
            // What it waits for has not come.
            let revision = if ring.held { to } else { head.revision };
            let head = Head { revision, ..head };
            next.push(framed(&[saved_routes::encode_delta(head, to, &Delta::default())]));
            to = revision;
        }
        let stream = ring.stream(self.number)?;
        stream.after = to;
        // An older one does not know the question.
        let come_to = if stream.speaks < VERSION { 0 } else { to };
        if let Some(stage) = stage
            && stage.asks(&self.audience, come_to, now, watched)
        {
            next.push(framed(&[saved_routes::encode_asked(Head { revision: to, ..head })]));
        }
        Some(next)
    }

    /// What whoever waits for everything hears meanwhile: who is believed no more, and what was
    /// taken away since it came. Nothing if it may follow no longer.
    pub(super) fn aside(&mut self) -> Option<Vec<Bytes>> {
        let mut state = self.hub.state();
        let mut aside: Vec<Bytes> = state.door(&mut self.front_door).into_iter().collect();
        let State { head, rings, .. } = &mut *state;
        aside.extend(rings.get_mut(&self.audience)?.denied_to(self.number, (*head)?));
        Some(aside)
    }

    /// It is too slow.
    pub(super) fn cut_off(&self) {
        self.hub.cut_off.fetch_add(1, Ordering::Relaxed);
        tracing::info!(node = &*self.audience, "an agent takes the feed too slowly: it is cut off");
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        let State { rings, stage, .. } = &mut *state;
        let Some(ring) = rings.get_mut(&self.audience) else { return };
        ring.leave(self.number);
        if let Some(stage) = stage
            && ring.streams.is_empty()
            && stage.canary == self.audience
        {
            stage.troubled("it is gone");
        }
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
