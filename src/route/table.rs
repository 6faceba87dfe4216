//! The live map: lock-free reads from every shard, one writer.
//!
//! Every entry carries the revision it is true from and, while a snapshot is being applied, what was true before. The
//! writer marks all its changes with the next revision and only then publishes that revision. A reader notes the
//! revision, reads each entry as of it, and starts again if another was published meanwhile: it sees all of one snapshot
//! or all of the next, it never waits for a writer, and a large change costs it nothing.
//!
//! Why it must be so: when a key moves from alice to bob and a slot of alice's gets another VM in the same change, a
//! reader that combined the old key with the new slot would let bob's machine into a VM that was never meant for it.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering, fence},
    },
};

use arc_swap::ArcSwap;

use super::{
    Address, AddressId, Admission, Admitted, Counts, PrincipalId, Refusal, Vm, Who,
    hash::Seeded,
    snapshot::{AddressEntry, Snapshot, TEAM_PREFIX},
};

/// The live map of who may go where.
pub struct Table {
    /// The snapshot that readers see. Only [`Table::apply`] writes it.
    revision: AtomicU64,
    addresses: Versioned<IpAddr, Arc<Address>, RandomState>,
    keys: Versioned<Fingerprint, Arc<Principals>, Seeded>,
    users: Versioned<Box<str>, Arc<Principals>, RandomState>,
    slots: Versioned<SlotKey, Arc<Vm>, Seeded>,
    names: Versioned<Box<str>, Arc<Named>, RandomState>,
    reach: Versioned<PrincipalId, Arc<[Reached]>, Seeded>,
    counts: ArcSwap<Counts>,
    writer: Mutex<Writer>,
}

/// Everybody a user is, for the second step.
#[derive(Debug, Eq, PartialEq)]
struct Principals {
    user: Arc<str>,
    own: PrincipalId,
    teams: Box<[PrincipalId]>,
}

impl Principals {
    fn all(&self) -> impl Iterator<Item = PrincipalId> + '_ {
        std::iter::once(self.own).chain(self.teams.iter().copied())
    }
}

/// A VM as it is found by name.
#[derive(Debug, Eq, PartialEq)]
struct Named {
    vm: Arc<Vm>,
    /// Sorted.
    allowed: Box<[PrincipalId]>,
}

impl Named {
    fn admits(&self, principals: &Principals) -> bool {
        principals.all().any(|id| self.allowed.binary_search(&id).is_ok())
    }
}

/// A VM as the lobby lists it.
type Reached = (Arc<Vm>, Option<Arc<Address>>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Fingerprint([u8; 32]);

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // Without the length that a slice would write first: it is always the same.
        hasher.write(&self.0);
    }
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct SlotKey {
    principal: PrincipalId,
    address: AddressId,
}

/// What only the writer needs.
#[derive(Debug, Default)]
struct Writer {
    /// By name, teams with their prefix.
    principals: HashMap<String, PrincipalId>,
    addresses: HashMap<String, Arc<Address>>,
    /// Never given out before. At a million a second they last half a million years.
    principal_next: u64,
    address_next: u64,
}

/// A way in, before anything is allocated for it.
struct Way<'a> {
    user: Arc<str>,
    vm: Arc<Vm>,
    login: &'a str,
    by_name: bool,
}

enum Decision<'a> {
    Vm(Way<'a>),
    Lobby(Arc<str>),
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Table");
        shown
            .field("revision", &self.revision)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// An empty table: every address is unknown.
    #[must_use]
    pub fn new() -> Self {
        Self {
            revision: AtomicU64::new(0),
            addresses: Versioned::new(RandomState::new()),
            keys: Versioned::new(Seeded::new()),
            users: Versioned::new(RandomState::new()),
            slots: Versioned::new(Seeded::new()),
            names: Versioned::new(RandomState::new()),
            reach: Versioned::new(Seeded::new()),
            counts: ArcSwap::default(),
            writer: Mutex::default(),
        }
    }

    /// Makes the table equal to `snapshot`, for every reader at one instant. Takes time and memory in proportion to the
    /// snapshot: not for a shard's thread.
    pub fn apply(&self, snapshot: Snapshot) {
        // A writer that panicked published nothing, and what it marked is overwritten here.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = self.revision.load(Ordering::Relaxed);
        let wanted = self.wanted(&mut writer, snapshot, shown);
        let counts = wanted.counts;

        let addresses = self.addresses.mark(wanted.addresses, shown);
        let keys = self.keys.mark(wanted.keys, shown);
        let users = self.users.mark(wanted.users, shown);
        let slots = self.slots.mark(wanted.slots, shown);
        let names = self.names.mark(wanted.names, shown);
        let reach = self.reach.mark(wanted.reach, shown);
        let changed =
            addresses.len() + keys.len() + users.len() + slots.len() + names.len() + reach.len();
        if changed == 0 {
            return;
        }

        self.counts.store(Arc::new(counts));
        self.revision.store(shown + 1, Ordering::Release);
        // Pairs with the fence in `at_one_revision`: who sees anything settled below also sees the new revision.
        fence(Ordering::Release);

        self.addresses.settle(addresses);
        self.keys.settle(keys);
        self.users.settle(users);
        self.slots.settle(slots);
        self.names.settle(names);
        self.reach.settle(reach);
    }

    /// Changes with every `apply` that changed anything; sessions re-check their right when it moved.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// The pool address that `local` stands for, which is what the socket, a header or the NAT said. `None`: not in
    /// the pool (refuse the connection). The private -> public map and IPv4-mapped IPv6 are already applied.
    pub fn address(&self, local: IpAddr) -> Option<Arc<Address>> {
        let local = local.to_canonical();
        self.at_one_revision(|revision| self.addresses.get(&local, revision))
    }

    /// The one admission function. `login` is the SSH user name as sent: `login+vm-name` (split at the last '+') asks
    /// by name among the VMs that `who` may enter, and is never tried again as a plain login.
    pub fn admit(&self, who: Who<'_>, address: &Address, login: &str) -> Admission {
        self.explain(who, address, login).unwrap_or(Admission::Nothing)
    }

    /// Whether [`Table::admit`] gives anything: for the answer to an offered key, where nothing is needed but that.
    pub fn admits(&self, who: Who<'_>, address: &Address, login: &str) -> bool {
        self.decide(who, address, login).is_ok()
    }

    /// As [`Table::admit`], with the step that refused, for the operator.
    ///
    /// # Errors
    /// Where [`Table::admit`] says [`Admission::Nothing`].
    pub fn explain(
        &self,
        who: Who<'_>,
        address: &Address,
        login: &str,
    ) -> Result<Admission, Refusal> {
        Ok(match self.decide(who, address, login)? {
            Decision::Vm(Way { user, vm, login, by_name }) => {
                let login = vm.login.as_deref().unwrap_or(login).to_owned();
                Admission::Vm(Admitted { user, vm, login, by_name })
            }
            Decision::Lobby(user) => Admission::Lobby { user },
        })
    }

    /// The two steps alone: the VM in the slots of `who` at `address`. Allocates nothing.
    pub fn lookup(&self, who: Who<'_>, address: &Address) -> Option<Arc<Vm>> {
        self.at_one_revision(|revision| {
            self.principals(who, revision, |principals| self.slot(principals, address, revision))
        })
        .flatten()
    }

    /// The user that `who` is, wherever that user may go.
    pub fn user(&self, who: Who<'_>) -> Option<Arc<str>> {
        self.at_one_revision(|revision| self.principals(who, revision, |p| Arc::clone(&p.user)))
    }

    /// Whether a session that was admitted once may go on: `who` is still the same user, and that user may still enter
    /// the VM in some way (a VM that moved to another pool address keeps its sessions, one that changed hands does not).
    pub fn keeps(&self, who: Who<'_>, admitted: &Admitted) -> bool {
        self.at_one_revision(|revision| {
            self.principals(who, revision, |principals| {
                principals.user == admitted.user
                    && self.names.get(admitted.vm.name.as_str(), revision).is_some_and(|named| {
                        named.vm.owner == admitted.vm.owner && named.admits(principals)
                    })
            })
            .unwrap_or(false)
        })
    }

    /// For the lobby: every VM `user` may enter, by name, with an address it answers at for that user (or none, where
    /// it can be entered by name only).
    pub fn visible(&self, user: &str) -> Vec<(Arc<Vm>, Option<Arc<Address>>)> {
        let mut all: Vec<Reached> = self.at_one_revision(|revision| {
            let Some(principals) = self.users.get(user, revision) else { return Vec::new() };
            let lists = principals.all().filter_map(|id| self.reach.get(&id, revision));
            lists.flat_map(|list| list.to_vec()).collect()
        });
        // Of the ways to one VM, one with an address first.
        all.sort_by(|(vm, at), (other_vm, other_at)| {
            let key = |vm: &Arc<Vm>| vm.name.clone();
            let place =
                |at: &Option<Arc<Address>>| (at.is_none(), at.as_ref().map(|a| a.name.clone()));
            (key(vm), place(at)).cmp(&(key(other_vm), place(other_at)))
        });
        all.dedup_by(|(later, _), (earlier, _)| later.name == earlier.name);
        all
    }

    /// Sizes, for the metrics.
    pub fn counts(&self) -> Counts {
        **self.counts.load()
    }

    fn decide<'a>(
        &self,
        who: Who<'_>,
        address: &Address,
        login: &'a str,
    ) -> Result<Decision<'a>, Refusal> {
        self.at_one_revision(|revision| {
            self.principals(who, revision, |principals| {
                let user = || Arc::clone(&principals.user);
                let (vm, login, by_name) = if let Some((login, name)) = login.rsplit_once('+') {
                    let named = self.names.get(name, revision).ok_or(Refusal::NoSuchVm)?;
                    if !named.admits(principals) {
                        return Err(Refusal::Forbidden);
                    }
                    (Arc::clone(&named.vm), login, true)
                } else if address.lobby {
                    return Ok(Decision::Lobby(user()));
                } else {
                    let found = self.slot(principals, address, revision);
                    (found.ok_or(Refusal::EmptySlot)?, login, false)
                };
                if vm.login.is_none() && login.is_empty() {
                    return Err(Refusal::NoLogin);
                }
                Ok(Decision::Vm(Way { user: user(), vm, login, by_name }))
            })
            .ok_or(Refusal::Unregistered)?
        })
    }

    fn principals<T>(
        &self,
        who: Who<'_>,
        revision: u64,
        read: impl FnOnce(&Principals) -> T,
    ) -> Option<T> {
        match who {
            Who::Key(key) => self.keys.with(&Fingerprint(key), revision, |p| read(p)),
            Who::User(name) => self.users.with(name, revision, |p| read(p)),
        }
    }

    /// At most one of a user's principals has a VM at an address, or they all have the same one.
    fn slot(&self, principals: &Principals, address: &Address, revision: u64) -> Option<Arc<Vm>> {
        principals.all().find_map(|principal| {
            self.slots.get(&SlotKey { principal, address: address.id }, revision)
        })
    }

    /// Runs `read` on one revision. It starts again only if an `apply` was published within the read, and an `apply`
    /// takes longer than a read: it does not go round for long.
    fn at_one_revision<T>(&self, read: impl Fn(u64) -> T) -> T {
        loop {
            let revision = self.revision.load(Ordering::Acquire);
            let found = read(revision);
            fence(Ordering::Acquire);
            if self.revision.load(Ordering::Relaxed) == revision {
                return found;
            }
        }
    }
}

/// What the maps must hold for a snapshot.
struct Wanted {
    addresses: HashMap<IpAddr, Arc<Address>>,
    keys: HashMap<Fingerprint, Arc<Principals>, Seeded>,
    users: HashMap<Box<str>, Arc<Principals>>,
    slots: HashMap<SlotKey, Arc<Vm>, Seeded>,
    names: HashMap<Box<str>, Arc<Named>>,
    reach: HashMap<PrincipalId, Arc<[Reached]>, Seeded>,
    counts: Counts,
}

impl Table {
    #[expect(clippy::indexing_slicing, reason = "Snapshot::new resolved every index")]
    fn wanted(&self, writer: &mut Writer, snapshot: Snapshot, shown: u64) -> Wanted {
        let addresses = writer.place(&snapshot.addresses);
        let principals = writer.name(&snapshot);
        let seeded = Seeded::new();
        let people: Vec<Arc<Principals>> = snapshot
            .users
            .iter()
            .enumerate()
            .map(|(index, user)| {
                let teams = snapshot.teams_of[index].iter();
                Arc::new(Principals {
                    user: Arc::from(user.name.as_str()),
                    own: principals[index],
                    teams: teams.map(|team| principals[snapshot.users.len() + team]).collect(),
                })
            })
            .collect();

        let mut keys = HashMap::with_hasher(seeded.clone());
        let mut users = HashMap::new();
        for (user, person) in snapshot.users.iter().zip(&people) {
            users.insert(Box::from(user.name.as_str()), Arc::clone(person));
            keys.extend(user.keys.iter().map(|key| (Fingerprint(*key), Arc::clone(person))));
        }

        let mut by_ip = HashMap::new();
        for address in &addresses {
            let ips = [Some(address.public), address.public6, address.private];
            by_ip.extend(ips.into_iter().flatten().map(|ip| (ip, Arc::clone(address))));
        }

        let mut slots = HashMap::with_hasher(seeded.clone());
        let mut names = HashMap::new();
        let mut reach: HashMap<PrincipalId, Vec<Reached>, Seeded> =
            HashMap::with_hasher(seeded.clone());
        for resolved in snapshot.vms {
            // An unchanged VM stays the one that sessions hold, in memory once.
            let vm = match self.names.get(resolved.vm.name.as_str(), shown) {
                Some(now) if *now.vm == resolved.vm => Arc::clone(&now.vm),
                Some(_) | None => Arc::new(resolved.vm),
            };
            let mut at_address = Vec::with_capacity(resolved.slots.len());
            for (principal, address) in resolved.slots {
                let (principal, address) = (principals[principal], &addresses[address]);
                at_address.push(principal);
                slots.insert(SlotKey { principal, address: address.id }, Arc::clone(&vm));
                let list = reach.entry(principal).or_default();
                list.push((Arc::clone(&vm), Some(Arc::clone(address))));
            }
            let mut allowed: Box<[PrincipalId]> =
                resolved.by_name.iter().map(|&principal| principals[principal]).collect();
            allowed.sort_unstable();
            for principal in allowed.iter().filter(|id| !at_address.contains(id)) {
                reach.entry(*principal).or_default().push((Arc::clone(&vm), None));
            }
            names.insert(Box::from(vm.name.as_str()), Arc::new(Named { vm, allowed }));
        }

        let counts = Counts {
            users: users.len(),
            keys: keys.len(),
            vms: names.len(),
            addresses: addresses.len(),
            slots: slots.len(),
        };
        let mut lists = HashMap::with_capacity_and_hasher(reach.len(), seeded);
        lists.extend(reach.into_iter().map(|(id, list)| (id, Arc::from(list))));
        Wanted { addresses: by_ip, keys, users, slots, names, reach: lists, counts }
    }
}

impl Writer {
    /// One [`Address`] for each entry: the present one if nothing about it changed, else one with a new identity.
    fn place(&mut self, entries: &[AddressEntry]) -> Vec<Arc<Address>> {
        let addresses: Vec<Arc<Address>> = entries
            .iter()
            .map(|entry| {
                let AddressEntry { name, public, public6, private, lobby } = entry.clone();
                let unchanged = self.addresses.get(&name).filter(|now| {
                    (now.public, now.public6, now.private, now.lobby)
                        == (public, public6, private, lobby)
                });
                if let Some(now) = unchanged {
                    return Arc::clone(now);
                }
                let id = AddressId(self.address_next);
                self.address_next += 1;
                Arc::new(Address { name, public, public6, private, lobby, id })
            })
            .collect();
        self.addresses = addresses.iter().map(|a| (a.name.clone(), Arc::clone(a))).collect();
        addresses
    }

    /// One identity for each principal of the snapshot, users first; names that are gone are forgotten.
    fn name(&mut self, snapshot: &Snapshot) -> Vec<PrincipalId> {
        let users = snapshot.users.iter().map(|user| user.name.clone());
        let teams = snapshot.teams.iter().map(|team| format!("{TEAM_PREFIX}{}", team.name));
        let names: Vec<String> = users.chain(teams).collect();
        let ids: Vec<PrincipalId> = names
            .iter()
            .map(|name| {
                self.principals.get(name).copied().unwrap_or_else(|| {
                    let id = PrincipalId(self.principal_next);
                    self.principal_next += 1;
                    id
                })
            })
            .collect();
        self.principals = names.into_iter().zip(ids.iter().copied()).collect();
        ids
    }
}

/// A map of which two revisions can be read: the one shown and the one being written.
struct Versioned<K, V, S> {
    map: papaya::HashMap<K, Cell<V>, S>,
}

#[derive(Clone, Debug)]
struct Cell<V> {
    /// The first revision that has `now`.
    since: u64,
    /// `None`: the entry ends with that revision.
    now: Option<V>,
    /// What revisions before `since` have.
    before: Option<V>,
}

impl<V> Cell<V> {
    fn at(&self, revision: u64) -> Option<&V> {
        if self.since <= revision { self.now.as_ref() } else { self.before.as_ref() }
    }
}

impl<K, V, S> Versioned<K, V, S>
where
    K: Clone + Eq + Hash,
    V: Clone + Eq,
    S: BuildHasher,
{
    fn new(hasher: S) -> Self {
        Self { map: papaya::HashMap::with_hasher(hasher) }
    }

    /// Reads one entry as of `revision`. The guard lives no longer than `read`, which must be short.
    fn with<Q, T>(&self, key: &Q, revision: u64, read: impl FnOnce(&V) -> T) -> Option<T>
    where
        Q: papaya::Equivalent<K> + Hash + ?Sized,
    {
        let guard = self.map.guard();
        self.map.get(key, &guard)?.at(revision).map(read)
    }

    fn get<Q>(&self, key: &Q, revision: u64) -> Option<V>
    where
        Q: papaya::Equivalent<K> + Hash + ?Sized,
    {
        self.with(key, revision, V::clone)
    }

    /// Writes what differs between revision `shown` and `wanted`, visible from `shown + 1` on. Returns the keys.
    fn mark<H: BuildHasher>(&self, wanted: HashMap<K, V, H>, shown: u64) -> Vec<K> {
        let guard = self.map.guard();
        let mut changed = Vec::new();
        for (key, cell) in self.map.iter(&guard) {
            // Also what a writer that panicked left behind.
            if !wanted.contains_key(key) && (cell.now.is_some() || cell.at(shown).is_some()) {
                changed.push((key.clone(), None));
            }
        }
        for (key, value) in wanted {
            let cell = self.map.get(&key, &guard);
            let settled = cell.is_some_and(|cell| cell.since <= shown);
            if !settled || cell.and_then(|cell| cell.at(shown)) != Some(&value) {
                changed.push((key, Some(value)));
            }
        }
        let write = |(key, now): (K, Option<V>)| {
            let before = self.map.get(&key, &guard).and_then(|cell| cell.at(shown)).cloned();
            self.map.insert(key.clone(), Cell { since: shown + 1, now, before }, &guard);
            key
        };
        changed.into_iter().map(write).collect()
    }

    /// Forgets what was before, once the revision that `mark` wrote is shown.
    fn settle(&self, keys: Vec<K>) {
        let guard = self.map.guard();
        for key in keys {
            match self.map.get(&key, &guard) {
                Some(Cell { now: None, .. }) => {
                    self.map.remove(&key, &guard);
                }
                Some(Cell { since, now: Some(now), before: Some(_) }) => {
                    let cell = Cell { since: *since, now: Some(now.clone()), before: None };
                    self.map.insert(key, cell, &guard);
                }
                Some(Cell { now: Some(_), before: None, .. }) | None => {}
            }
        }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
