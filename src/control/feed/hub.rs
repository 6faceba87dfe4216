//! What each audience is sent: the changes of the registry as they come, some milliseconds of them
//! together, encoded once and kept in a ring for whoever comes back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use tokio::sync::watch;

use super::known::{Known, PROGRAM, digest};
use super::ring::{Ring, framed};
use crate::route::audience::{self, Audiences, Whole};
use crate::route::saved_routes::{self, Head};
use crate::route::{Change, Contents, Delta, FrontDoor, NodeEntry};

/// Bytes of all audiences' changes that are kept, whoever follows: a tenth of what a registry of a
/// million VMs takes itself.
const RINGS_BYTES_MAX: usize = 128 << 20;
/// Bytes of one audience's: some hundreds of commits that touch one node. Whoever was away for more
/// begins anew, which is not much more than that.
const RING_BYTES_MAX: usize = 256 << 10;
/// However many audiences there are.
const RING_BYTES_MIN: usize = 16 << 10;

/// The feed of one registry.
#[derive(Debug, Default)]
pub struct Hub {
    state: Mutex<State>,
    went_on: AtomicU64,
    began_anew: AtomicU64,
    cut_off: AtomicU64,
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
    }

    /// The registry has changed, and is `whole` now.
    pub fn change(&self, revision: u64, delta: &Delta, whole: &dyn Whole) {
        let mut state = self.state();
        let ring_bytes_max = state.ring_bytes_max();
        let State { head: Some(head), audiences, rings, .. } = &mut *state else { return };
        head.revision = revision;
        for (audience, Delta { changes }) in audiences.change(delta, whole) {
            if let Some(ring) = rings.get_mut(&audience) {
                ring.push(*head, changes, ring_bytes_max);
            }
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
            }
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
        let lag = streams().map(|(_, after)| now.saturating_sub(*after)).max();
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
        known: Option<Known>,
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
        ring.enter(number, after);
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
            let State { head, begun, rings, .. } = &mut *state;
            let (head, ring) = ((*head)?, rings.get_mut(&self.audience)?);
            *ring.after(self.number)? = head.revision;
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
    pub(super) fn next(&mut self, beat: bool) -> Option<Vec<Bytes>> {
        let mut state = self.hub.state();
        let mut next: Vec<Bytes> = state.door(&mut self.front_door).into_iter().collect();
        let ring_bytes_max = state.ring_bytes_max();
        let State { head, rings, .. } = &mut *state;
        let (head, ring) = ((*head)?, rings.get_mut(&self.audience)?);
        ring.flush(head, ring_bytes_max);
        let after = *ring.after(self.number)?;
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
            let nothing = saved_routes::encode_delta(head, to, &Delta::default());
            next.push(framed(&[nothing]));
            to = head.revision;
        }
        *ring.after(self.number)? = to;
        Some(next)
    }

    /// It is too slow.
    pub(super) fn cut_off(&self) {
        self.hub.cut_off.fetch_add(1, Ordering::Relaxed);
        tracing::info!(node = &*self.audience, "an agent takes the feed too slowly: it is cut off");
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(ring) = self.hub.state().rings.get_mut(&self.audience) {
            ring.leave(self.number);
        }
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
