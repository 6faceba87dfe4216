//! Who may be half-open: accepted, but not authenticated yet.
//!
//! A full house never turns a newcomer away; it shows somebody else out. That way ten thousand
//! connections that say nothing cost a user nothing but a place that a silent one held. Whom:
//! 1. Connections that have not finished their key exchange (*silent*) and those that have
//!    (*exchanged*: at a passphrase prompt, waiting for a touch, or part of a flood that does the
//!    work) are two queues. The exchanged ones lose a place only when they hold more than half of
//!    all; so neither kind of flood can starve the other kind of user.
//! 2. Within the queue, if one source network (/24 or /56) holds more than an eighth of all places,
//!    the one that holds most loses its oldest. Otherwise the oldest of all goes. The share keeps a
//!    botnet with one connection per network from pushing out an office behind one NAT, which would
//!    always be the biggest.
//!
//! Per shard, no locks, no clock: age is order of arrival. Every call is O(1), amortised
//! over growth. About 30 bytes a connection and 70 more a source network, given out as they
//! come and reused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;

use crate::log_limiter::Network;

/// One source network may hold this part (1/n) of all places before it is the first to lose one.
const SHARE: u32 = 8;

/// The end of a list, or no list.
const NONE: u32 = u32::MAX;

/// A half-open connection. Never means another one, even after it was shown out and
/// its place given on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Id {
    index: u32,
    generation: u32,
}

impl Id {
    /// A small number, unique among the connections that are in: an index for what the caller
    /// keeps beside it.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

/// The answer to a newcomer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Admitted {
    /// The newcomer.
    pub id: Id,
    /// The connection that has to be closed for it. It is already out here, and its index may
    /// be the newcomer's.
    pub evict: Option<Id>,
}

/// The half-open connections of one shard.
#[derive(Debug)]
pub struct Admission {
    places: u32,
    live: u32,
    entries: Vec<Entry>,
    /// Entries that were in use once, linked by `by_age.newer`.
    free: FreeList,
    silent: Queue,
    exchanged: Queue,
}

impl Admission {
    /// At most `places` connections at a time.
    #[must_use]
    pub fn new(places: NonZeroU32) -> Self {
        Self {
            places: places.get(),
            live: 0,
            entries: Vec::new(),
            free: FreeList::default(),
            silent: Queue::default(),
            exchanged: Queue::default(),
        }
    }

    /// Takes in a connection from `source`, always.
    pub fn admit(&mut self, source: IpAddr) -> Admitted {
        let evict = (self.live >= self.places).then(|| self.show_out());
        let index = self.free_entry();
        self.enter(index, Class::Silent, Network::of(source));
        self.live += 1;
        Admitted { id: Id { index, generation: self.entries[index as usize].generation }, evict }
    }

    /// The key exchange of `id` is over. Does nothing if it is out already.
    pub fn progressed(&mut self, id: Id) {
        if let Some(Class::Silent) = self.class(id) {
            let network = self.leave(id.index);
            self.enter(id.index, Class::Exchanged, network);
        }
    }

    /// `id` came through a load balancer, whose header names `source`. Does nothing if
    /// it is out already.
    pub fn sourced(&mut self, id: Id, source: IpAddr) {
        if let Some(class) = self.class(id) {
            self.leave(id.index);
            self.enter(id.index, class, Network::of(source));
        }
    }

    /// `id` is authenticated, or gone. Does nothing if it is out already.
    pub fn finished(&mut self, id: Id) {
        if self.class(id).is_some() {
            self.leave(id.index);
            self.release(id.index);
        }
    }

    /// How many are in.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.live
    }

    /// Whether nobody is in.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Whether `id` is still in.
    #[must_use]
    pub fn holds(&self, id: Id) -> bool {
        self.class(id).is_some()
    }

    fn class(&self, id: Id) -> Option<Class> {
        let entry = self.entries.get(id.index as usize)?;
        (entry.generation == id.generation).then_some(entry.class)
    }

    /// Frees one place of a full house by the rules at the top of this file.
    fn show_out(&mut self) -> Id {
        let crowded = self.exchanged.by_age.len > self.places / 2;
        let queue = if crowded { &self.exchanged } else { &self.silent };
        // `places` is at least 1 and all are taken, so whichever queue this is, it holds somebody.
        let index = queue.first_out(self.places / SHARE);
        let id = Id { index, generation: self.entries[index as usize].generation };
        self.leave(index);
        self.release(index);
        id
    }

    fn free_entry(&mut self) -> u32 {
        let entries = &mut self.entries;
        self.free.take(|index| entries[index as usize].by_age.newer).unwrap_or_else(|| {
            entries.push(Entry::default());
            position_of_last(entries.len())
        })
    }

    fn release(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.by_age.newer = self.free.0;
        self.free = FreeList(index);
        self.live -= 1;
    }

    fn enter(&mut self, index: u32, class: Class, network: Network) {
        self.entries[index as usize].class = class;
        let queue = match class {
            Class::Silent => &mut self.silent,
            Class::Exchanged => &mut self.exchanged,
        };
        queue.enter(&mut self.entries, index, network);
    }

    fn leave(&mut self, index: u32) -> Network {
        let queue = match self.entries[index as usize].class {
            Class::Silent => &mut self.silent,
            Class::Exchanged => &mut self.exchanged,
        };
        queue.leave(&mut self.entries, index)
    }
}

/// Which queue a connection stands in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Class {
    /// Its key exchange is not over.
    #[default]
    Silent,
    /// It has keys and has yet to authenticate.
    Exchanged,
}

/// One place. `source` indexes the sources of the queue that `class` names.
#[derive(Debug, Default)]
struct Entry {
    generation: u32,
    class: Class,
    source: u32,
    by_age: Link,
    by_source: Link,
}

/// The connections of one class, by age, and by source network.
#[derive(Debug, Default)]
struct Queue {
    by_age: List,
    sources: Vec<Source>,
    /// Sources that were in use once, linked by `by_count.newer`.
    free: FreeList,
    known: HashMap<Network, u32>,
    /// Position n lists the sources that hold n + 1 connections.
    by_count: Vec<List>,
    /// The most that any source holds: the length of `by_count` up to its last list
    /// that is not empty.
    most: u32,
}

/// A source network with connections in this queue.
#[derive(Debug)]
struct Source {
    network: Network,
    held: List,
    by_count: Link,
}

impl Queue {
    /// Whose turn it is. The queue is not empty.
    fn first_out(&self, share: u32) -> u32 {
        if self.most > share {
            let source = self.by_count[self.most as usize - 1].oldest;
            self.sources[source as usize].held.oldest
        } else {
            self.by_age.oldest
        }
    }

    fn enter(&mut self, entries: &mut [Entry], index: u32, network: Network) {
        let source = match self.known.get(&network) {
            Some(&source) => source,
            None => self.learn(network),
        };
        self.uncount(source);
        entries[index as usize].source = source;
        self.by_age.push(entries, |entry| &mut entry.by_age, index);
        self.sources[source as usize].held.push(entries, |entry| &mut entry.by_source, index);
        self.count(source);
    }

    fn leave(&mut self, entries: &mut [Entry], index: u32) -> Network {
        let source = entries[index as usize].source;
        self.uncount(source);
        self.by_age.remove(entries, |entry| &mut entry.by_age, index);
        self.sources[source as usize].held.remove(entries, |entry| &mut entry.by_source, index);
        self.count(source);
        let Source { network, ref held, .. } = self.sources[source as usize];
        if held.len == 0 {
            self.forget(source, network);
        }
        network
    }

    fn learn(&mut self, network: Network) -> u32 {
        let new = Source { network, held: List::default(), by_count: Link::default() };
        let index = if let Some(index) =
            self.free.take(|index| self.sources[index as usize].by_count.newer)
        {
            self.sources[index as usize] = new;
            index
        } else {
            self.sources.push(new);
            position_of_last(self.sources.len())
        };
        self.known.insert(network, index);
        index
    }

    fn forget(&mut self, source: u32, network: Network) {
        self.known.remove(&network);
        self.sources[source as usize].by_count.newer = self.free.0;
        self.free = FreeList(source);
    }

    /// Files `source` under the number of connections it holds now.
    fn count(&mut self, source: u32) {
        let held = self.sources[source as usize].held.len;
        if let Some(level) = held.checked_sub(1) {
            if self.by_count.len() <= level as usize {
                self.by_count.resize(held as usize, List::default());
            }
            self.by_count[level as usize].push(
                &mut self.sources,
                |source| &mut source.by_count,
                source,
            );
            self.most = self.most.max(held);
        }
        // A source moves by one, so this is at most one step: the emptied list is the
        // one it has left.
        while self.most > 0 && self.by_count[self.most as usize - 1].len == 0 {
            self.most -= 1;
        }
    }

    /// Takes `source` off the list it is filed in, before its number changes.
    fn uncount(&mut self, source: u32) {
        let held = self.sources[source as usize].held.len;
        if let Some(level) = held.checked_sub(1) {
            self.by_count[level as usize].remove(
                &mut self.sources,
                |source| &mut source.by_count,
                source,
            );
        }
    }
}

/// Places in an array that are not in use, each naming the next.
#[derive(Clone, Copy, Debug)]
struct FreeList(u32);

impl Default for FreeList {
    fn default() -> Self {
        Self(NONE)
    }
}

impl FreeList {
    fn take(&mut self, next: impl FnOnce(u32) -> u32) -> Option<u32> {
        let first = (self.0 != NONE).then_some(self.0)?;
        self.0 = next(first);
        Some(first)
    }
}

/// The neighbours of an element in one list.
#[derive(Clone, Copy, Debug)]
struct Link {
    older: u32,
    newer: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { older: NONE, newer: NONE }
    }
}

/// A doubly linked list through the elements of an array.
#[derive(Clone, Copy, Debug)]
struct List {
    oldest: u32,
    newest: u32,
    len: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { oldest: NONE, newest: NONE, len: 0 }
    }
}

impl List {
    fn push<T>(&mut self, items: &mut [T], link: fn(&mut T) -> &mut Link, index: u32) {
        *link(&mut items[index as usize]) = Link { older: self.newest, newer: NONE };
        match self.newest {
            NONE => self.oldest = index,
            newest => link(&mut items[newest as usize]).newer = index,
        }
        self.newest = index;
        self.len += 1;
    }

    fn remove<T>(&mut self, items: &mut [T], link: fn(&mut T) -> &mut Link, index: u32) {
        let Link { older, newer } = *link(&mut items[index as usize]);
        match older {
            NONE => self.oldest = newer,
            older => link(&mut items[older as usize]).newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => link(&mut items[newer as usize]).older = older,
        }
        self.len -= 1;
    }
}

/// The index of an array's last element. There are at most `places` of them, a u32.
fn position_of_last(len: usize) -> u32 {
    u32::try_from(len - 1).unwrap_or(NONE)
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
