//! What each audience is sent: the changes of the registry as they come, some milliseconds of them
//! together, encoded once and kept in a ring for whoever comes back.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use tokio::sync::watch;

use crate::route::audience::{self, Audiences, Whole};
use crate::route::saved_routes::{self, Head};
use crate::route::{Change, Contents, Delta, FrontDoor, NodeEntry};

/// Bytes of an audience's changes that are kept: some hundreds of commits that touch one node.
/// Whoever was away for more begins anew, which is not much more than that.
const RING_BYTES_MAX: usize = 256 << 10;
/// Connections of one follower: a process, its successor, and what is not known to be gone yet.
/// The oldest makes room.
const STREAMS_MAX: usize = 4;

/// The feed of one registry.
#[derive(Debug, Default)]
pub struct Hub(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Of what was told last; nothing before the registry is read.
    head: Option<Head>,
    audiences: Audiences,
    rings: HashMap<Arc<str>, Ring>,
    front_door: FrontDoor,
    /// Goes up with every change of it.
    front_doors: u64,
    streams: u64,
}

/// What one audience was sent.
#[derive(Debug)]
struct Ring {
    /// Of the one who may follow.
    key: [u8; 32],
    /// All that changed after this revision is here.
    floor: u64,
    /// Where the last delta leads.
    last: u64,
    /// Encoded, with the revision that each leads to.
    deltas: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// Not encoded yet, and the revision that it leads to.
    pending: (u64, Vec<Change>),
    /// Who follows, the oldest first, and how far each has come.
    streams: VecDeque<(u64, u64)>,
    /// Says that there is something more; gone with the ring.
    moved: watch::Sender<()>,
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
    /// What it begins with, if it does not go on.
    begins: Option<(Head, Contents)>,
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry was read, at a start or anew: whoever follows comes again.
    pub fn begin(&self, head: Head) {
        let mut state = self.state();
        state.head = Some(head);
        state.rings.clear();
        state.audiences = Audiences::default();
    }

    /// The registry has changed, and is `whole` now.
    pub fn change(&self, revision: u64, delta: &Delta, whole: &dyn Whole) {
        let mut state = self.state();
        let State { head: Some(head), audiences, rings, .. } = &mut *state else { return };
        head.revision = revision;
        for (audience, Delta { changes }) in audiences.change(delta, whole) {
            let Some(ring) = rings.get_mut(&audience) else { continue };
            ring.pending.0 = revision;
            ring.pending.1.extend(changes);
            ring.moved.send_replace(());
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

    /// How many follow, and how many revisions the last of them is behind.
    pub fn gauges(&self) -> (usize, u64) {
        let state = self.state();
        let now = state.head.map_or(0, |head| head.revision);
        let streams = || state.rings.values().flat_map(|ring| &ring.streams);
        let lag = streams().map(|(_, after)| now.saturating_sub(*after)).max();
        (streams().count(), lag.unwrap_or(0))
    }

    /// The agent of `node` follows, which holds `key` and knows so much. `whole` is what was told
    /// last. Nothing if there is nothing to follow.
    pub(in crate::control) fn follow(
        self: &Arc<Self>,
        node: &str,
        key: [u8; 32],
        known: Option<Head>,
        whole: &dyn Whole,
    ) -> Option<Follower> {
        let mut state = self.state();
        let State { head, audiences, rings, streams, .. } = &mut *state;
        let head = (*head)?;
        audiences.open(node, whole);
        let audience: Arc<str> = node.into();
        let ring =
            rings.entry(Arc::clone(&audience)).or_insert_with(|| Ring::new(key, head.revision));
        ring.flush(head);
        let goes_on = known.filter(|known| {
            let same = (known.store, known.program) == (head.store, head.program);
            same && (ring.floor..=head.revision).contains(&known.revision)
        });
        let after = goes_on.map_or(head.revision, |known| known.revision);
        let number = *streams;
        *streams += 1;
        ring.streams.push_back((number, after));
        if ring.streams.len() > STREAMS_MAX {
            ring.streams.pop_front();
            ring.moved.send_replace(());
        }
        Some(Follower {
            hub: Arc::clone(self),
            number,
            // None was the first.
            front_door: u64::MAX,
            moved: ring.moved.subscribe(),
            begins: goes_on.is_none().then(|| (head, audience::contents(node, whole))),
            audience,
        })
    }
}

impl State {
    /// The front door, if it is another one than was `sent`.
    fn door(&self, sent: &mut u64) -> Option<Bytes> {
        let head = self.head.filter(|_| *sent != self.front_doors)?;
        *sent = self.front_doors;
        Some(framed(&saved_routes::encode_front_door(head, &self.front_door)))
    }
}

impl Ring {
    fn new(key: [u8; 32], revision: u64) -> Self {
        Self {
            key,
            floor: revision,
            last: revision,
            deltas: VecDeque::new(),
            bytes: 0,
            pending: (revision, Vec::new()),
            streams: VecDeque::new(),
            moved: watch::Sender::new(()),
        }
    }

    /// Encodes what came since the last time.
    fn flush(&mut self, head: Head) {
        if self.pending.1.is_empty() {
            return;
        }
        let (revision, changes) = (self.pending.0, std::mem::take(&mut self.pending.1));
        let head = Head { revision, ..head };
        let delta = framed(&saved_routes::encode_delta(head, self.last, &Delta { changes }));
        self.last = revision;
        self.bytes += delta.len();
        self.deltas.push_back((revision, delta));
        while self.bytes > RING_BYTES_MAX && self.deltas.len() > 1 {
            let Some((gone, delta)) = self.deltas.pop_front() else { break };
            self.bytes -= delta.len();
            self.floor = gone;
        }
    }
}

impl Follower {
    /// Comes when there is something more; false when there never will be.
    pub(super) async fn moved(&mut self) -> bool {
        self.moved.changed().await.is_ok()
    }

    /// What it hears first, encoded: the front door, which says whether the rest is to be
    /// believed; then everything, if it does not go on.
    pub(in crate::control) fn begins(&mut self) -> Vec<Bytes> {
        let door = self.hub.state().door(&mut self.front_door);
        let everything = self.begins.take().map(|(head, contents)| {
            framed(&saved_routes::encode(head, &contents).flatten().collect::<Vec<u8>>())
        });
        door.into_iter().chain(everything).collect()
    }

    /// What is to be sent next, in order. `beat`: the follower is told how far it has come.
    /// Nothing if it may follow no longer, or has fallen behind what is kept.
    pub(super) fn next(&mut self, beat: bool) -> Option<Vec<Bytes>> {
        let mut state = self.hub.state();
        let mut next: Vec<Bytes> = state.door(&mut self.front_door).into_iter().collect();
        let State { head, rings, .. } = &mut *state;
        let (head, ring) = ((*head)?, rings.get_mut(&self.audience)?);
        ring.flush(head);
        let Ring { floor, deltas, streams, .. } = ring;
        let (_, after) = streams.iter_mut().find(|(number, _)| *number == self.number)?;
        if *after < *floor {
            return None;
        }
        let from = deltas.partition_point(|(revision, _)| revision <= after);
        next.extend(deltas.iter().skip(from).map(|(_, delta)| delta.clone()));
        if let Some((revision, _)) = deltas.back() {
            *after = (*after).max(*revision);
        }
        if beat {
            let nothing = saved_routes::encode_delta(head, *after, &Delta::default());
            next.push(framed(&nothing));
            *after = head.revision;
        }
        Some(next)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        if let Some(ring) = state.rings.get_mut(&self.audience) {
            ring.streams.retain(|(number, _)| *number != self.number);
        }
    }
}

/// Behind its length.
fn framed(bytes: &[u8]) -> Bytes {
    // What is longer is refused where it is read.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    Bytes::from([&length.to_be_bytes()[..], bytes].concat())
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
