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
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    net::IpAddr,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering, fence},
    },
};

use arc_swap::ArcSwap;

use super::{
    Address, AddressId, Admission, Admitted, Counts, PrincipalId, Refusal, Vm, Who,
    hash::{Asked, Fingerprint, Seeded},
    person::{Far, Named, Near, Person, Reaching, Rest, Team, VmName},
    snapshot::{AddressEntry, Resolved, Snapshot, TEAM_PREFIX, TeamEntry, UserEntry},
};

/// The live map of who may go where.
pub struct Table {
    /// The snapshot that readers see. Only [`Table::apply`] writes it.
    revision: AtomicU64,
    addresses: Versioned<IpAddr, Arc<Address>, RandomState>,
    places: Versioned<AddressId, Arc<Address>, Seeded>,
    keys: Versioned<Fingerprint, Person, Seeded>,
    users: Versioned<Arc<str>, Person, RandomState>,
    teams: Versioned<PrincipalId, Team, Seeded>,
    names: Versioned<VmName, Named, RandomState>,
    counts: ArcSwap<Counts>,
    writer: Mutex<Writer>,
}

impl papaya::Equivalent<Fingerprint> for Asked<'_> {
    fn equivalent(&self, key: &Fingerprint) -> bool {
        self.is(key)
    }
}

/// What only the writer needs.
#[derive(Debug, Default)]
struct Writer {
    /// By name, teams with their prefix.
    principals: HashMap<Arc<str>, PrincipalId>,
    addresses: HashMap<String, Arc<Address>>,
    /// Never given out before. At a million a second they last half a million years.
    principal_next: u64,
    address_next: u64,
}

/// A decision, before anything is copied for it.
enum Way<'a> {
    Vm { vm: &'a Arc<Vm>, login: &'a str, by_name: bool },
    Lobby,
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
            places: Versioned::new(Seeded::new()),
            keys: Versioned::new(Seeded::new()),
            users: Versioned::new(RandomState::new()),
            teams: Versioned::new(Seeded::new()),
            names: Versioned::new(RandomState::new()),
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
        let places = self.places.mark(wanted.places, shown);
        let keys = self.keys.mark(wanted.keys, shown);
        let users = self.users.mark(wanted.users, shown);
        let teams = self.teams.mark(wanted.teams, shown);
        let names = self.names.mark(wanted.names, shown);
        let people = keys.changes + users.changes + teams.changes;
        let changes = addresses.changes + places.changes + names.changes + people;
        if changes == 0 {
            return;
        }

        self.counts.store(Arc::new(counts));
        self.revision.store(shown + 1, Ordering::Release);
        // Pairs with the fence in `at_one_revision`: who sees anything settled below also sees the new revision.
        fence(Ordering::Release);

        self.addresses.settle(addresses);
        self.places.settle(places);
        self.keys.settle(keys);
        self.users.settle(users);
        self.teams.settle(teams);
        self.names.settle(names);
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
        self.decide(who, address, login, |_, _| ()).is_ok()
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
        self.decide(who, address, login, |person, way| {
            let user = &person.rest.name;
            match way {
                Way::Vm { vm, login, by_name } => {
                    // Read before anything is counted: a CPU waits for one count before it reads what follows.
                    let login = vm.login.as_deref().unwrap_or(login).to_owned();
                    let (user, vm) = (Arc::clone(user), Arc::clone(vm));
                    Admission::Vm(Admitted { user, vm, login, by_name })
                }
                Way::Lobby => Admission::Lobby { user: Arc::clone(user) },
            }
        })
    }

    /// The two steps alone: reads the VM in the slots of `who` at `address`. Allocates nothing and copies nothing. `read`
    /// runs while memory cannot be reclaimed, maybe twice: it must be short.
    pub fn lookup<T>(
        &self,
        who: Who<'_>,
        address: &Address,
        read: impl Fn(&Arc<Vm>) -> T,
    ) -> Option<T> {
        self.at_one_revision(|revision| {
            self.person(&who, revision, |person| self.slot(person, address, revision, &read))
        })
        .flatten()
    }

    /// The user that `who` is, wherever that user may go.
    pub fn user(&self, who: Who<'_>) -> Option<Arc<str>> {
        self.at_one_revision(|revision| {
            self.person(&who, revision, |person| Arc::clone(&person.rest.name))
        })
    }

    /// Whether a session that was admitted once may go on: `who` is still the same user, and that user may still enter
    /// the VM in some way (a VM that moved to another pool address keeps its sessions, one that changed hands does not).
    pub fn keeps(&self, who: Who<'_>, admitted: &Admitted) -> bool {
        let vm = &admitted.vm;
        self.at_one_revision(|revision| {
            self.person(&who, revision, |person| {
                let named =
                    |named: &Named| named.vm.owner == vm.owner && named.admits(&person.rest);
                person.rest.name == admitted.user
                    && self.names.with(vm.name.as_str(), revision, named).unwrap_or(false)
            })
            .unwrap_or(false)
        })
    }

    /// For the lobby: every VM `user` may enter, by name, with an address it answers at for that user (or none, where
    /// it can be entered by name only).
    pub fn visible(&self, user: &str) -> Vec<(Arc<Vm>, Option<Arc<Address>>)> {
        let mut all = self.at_one_revision(|revision| {
            let mut all = Vec::new();
            let mut add = |near: &Near, far: &Far| {
                for (at, vm) in near.slots(far) {
                    all.push((Arc::clone(vm), self.places.get(&at, revision)));
                }
                all.extend(far.by_name.iter().map(|vm| (Arc::clone(vm), None)));
            };
            self.person(&Who::User(user), revision, |person| {
                add(&person.near, &person.rest.far);
                for team in &person.rest.teams {
                    self.teams.with(team, revision, |team| add(&team.near, &team.far));
                }
            });
            all
        });
        // Of the ways to one VM, one with an address first.
        all.sort_by(|(vm, at), (other_vm, other_at)| {
            let place = |at: &Option<Arc<Address>>| match at {
                Some(at) => (0, at.name.clone()),
                None => (1, String::new()),
            };
            vm.name.cmp(&other_vm.name).then_with(|| place(at).cmp(&place(other_at)))
        });
        all.dedup_by(|(later, _), (earlier, _)| later.name == earlier.name);
        all
    }

    /// Sizes, for the metrics.
    pub fn counts(&self) -> Counts {
        **self.counts.load()
    }

    fn decide<T>(
        &self,
        who: Who<'_>,
        address: &Address,
        login: &str,
        answer: impl Fn(&Person, Way<'_>) -> T,
    ) -> Result<T, Refusal> {
        self.at_one_revision(|revision| {
            self.person(&who, revision, |person| {
                let enter = |vm: &Arc<Vm>, login: &str, by_name| {
                    if login.is_empty() && vm.login.is_none() {
                        return Err(Refusal::NoLogin);
                    }
                    Ok(answer(person, Way::Vm { vm, login, by_name }))
                };
                if let Some((login, name)) = login.rsplit_once('+') {
                    let admit = |named: &Named| {
                        if named.admits(&person.rest) {
                            enter(&named.vm, login, true)
                        } else {
                            Err(Refusal::Forbidden)
                        }
                    };
                    self.names.with(name, revision, admit).unwrap_or(Err(Refusal::NoSuchVm))
                } else if address.lobby {
                    Ok(answer(person, Way::Lobby))
                } else {
                    self.slot(person, address, revision, |vm| enter(vm, login, false))
                        .unwrap_or(Err(Refusal::EmptySlot))
                }
            })
            .unwrap_or(Err(Refusal::Unregistered))
        })
    }

    fn person<T>(
        &self,
        who: &Who<'_>,
        revision: u64,
        read: impl FnOnce(&Person) -> T,
    ) -> Option<T> {
        match who {
            Who::Key(key) => self.keys.with(&Asked(key), revision, read),
            Who::User(name) => self.users.with(*name, revision, read),
        }
    }

    /// At most one of a user's principals has a VM at an address, or they all have the same one.
    fn slot<T>(
        &self,
        person: &Person,
        address: &Address,
        revision: u64,
        read: impl Fn(&Arc<Vm>) -> T,
    ) -> Option<T> {
        if let Some(vm) = person.near.at(address.id, &person.rest.far) {
            return Some(read(vm));
        }
        let slot = |team: &Team| team.near.at(address.id, &team.far).map(&read);
        let mut teams = person.rest.teams.iter();
        teams.find_map(|team| self.teams.with(team, revision, slot).flatten())
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

/// What the maps must hold for a snapshot. No key stands twice: [`Snapshot::new`] saw to it.
struct Wanted {
    addresses: Vec<(IpAddr, Arc<Address>)>,
    places: Vec<(AddressId, Arc<Address>)>,
    keys: Vec<(Fingerprint, Person)>,
    users: Vec<(Arc<str>, Person)>,
    teams: Vec<(PrincipalId, Team)>,
    names: Vec<(VmName, Named)>,
    counts: Counts,
}

impl Table {
    fn wanted(&self, writer: &mut Writer, snapshot: Snapshot, shown: u64) -> Wanted {
        let Snapshot { addresses, users, teams, teams_of, vms } = snapshot;
        let addresses = writer.place(&addresses);
        let principals = writer.name(&users, &teams);
        let mut reaching = vec![Reaching::default(); principals.len()];
        let names = self.enter(vms, &addresses, &principals, &mut reaching, shown);

        let mut reached = principals.iter().zip(reaching.into_iter().map(Reaching::finish));
        let mut slots = 0;
        let mut count = |near: &Near, far: &Far| slots += near.slots(far).count();
        let mut keys = Vec::with_capacity(users.iter().map(|user| user.keys.len()).sum());
        let mut people = Vec::with_capacity(users.len());
        let team_ids = principals.get(users.len()..).unwrap_or_default();
        for ((user, of), ((name, own), (near, far))) in
            users.into_iter().zip(teams_of).zip(&mut reached)
        {
            count(&near, &far);
            let teams = of.into_iter().filter_map(|team| team_ids.get(team));
            let teams = teams.map(|(_, id)| *id).collect();
            let rest = Rest { name: Arc::clone(name), own: *own, far, teams };
            let person = Person { near, rest: Arc::new(rest) };
            keys.extend(user.keys.into_iter().map(|key| (Fingerprint(key), person.clone())));
            people.push((Arc::clone(name), person));
        }
        let by_team = reached.map(|((_, id), (near, far))| {
            count(&near, &far);
            (*id, Team { near, far: Arc::new(far) })
        });
        let by_team: Vec<_> = by_team.collect();

        let by_ip = addresses.iter().flat_map(|address| {
            let ips = [Some(address.public), address.public6, address.private];
            ips.into_iter().flatten().map(|ip| (ip, Arc::clone(address)))
        });
        let by_ip = by_ip.collect();
        let places: Vec<_> = addresses.into_iter().map(|address| (address.id, address)).collect();
        let counts = Counts {
            users: people.len(),
            keys: keys.len(),
            vms: names.len(),
            addresses: places.len(),
            slots,
        };
        Wanted { addresses: by_ip, places, keys, users: people, teams: by_team, names, counts }
    }

    /// Gives every VM to whom may enter it.
    #[expect(clippy::indexing_slicing, reason = "Snapshot::new resolved every index")]
    fn enter(
        &self,
        vms: Vec<Resolved>,
        addresses: &[Arc<Address>],
        principals: &[(Arc<str>, PrincipalId)],
        reaching: &mut [Reaching],
        shown: u64,
    ) -> Vec<(VmName, Named)> {
        let mut names = Vec::with_capacity(vms.len());
        for Resolved { vm, slots, by_name } in vms {
            // An unchanged VM stays the one that sessions hold, in memory once.
            let same = |now: &Named| (*now.vm == vm).then(|| Arc::clone(&now.vm));
            let now = self.names.with(vm.name.as_str(), shown, same).flatten();
            let vm = now.unwrap_or_else(|| Arc::new(vm));
            for &(principal, address) in &slots {
                let slot = (addresses[address].id, Arc::clone(&vm));
                reaching[principal].slots.push(slot);
            }
            let slotless = |principal: &&usize| slots.iter().all(|(other, _)| other != *principal);
            for &principal in by_name.iter().filter(slotless) {
                reaching[principal].by_name.push(Arc::clone(&vm));
            }
            let mut allowed: Vec<PrincipalId> =
                by_name.into_iter().map(|principal| principals[principal].1).collect();
            allowed.sort_unstable();
            let mut allowed = allowed.into_iter();
            let (first, others) = (allowed.next(), allowed.as_slice().into());
            names.push((VmName(Arc::clone(&vm)), Named { vm, first, others }));
        }
        names
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
                self.address_next += 1;
                let id = AddressId(NonZeroU64::MIN.saturating_add(self.address_next));
                Arc::new(Address { name, public, public6, private, lobby, id })
            })
            .collect();
        self.addresses = addresses.iter().map(|a| (a.name.clone(), Arc::clone(a))).collect();
        addresses
    }

    /// One identity for each principal of the snapshot, users first; names that are gone are forgotten.
    fn name(&mut self, users: &[UserEntry], teams: &[TeamEntry]) -> Vec<(Arc<str>, PrincipalId)> {
        let users = users.iter().map(|user| Cow::from(&user.name));
        let teams = teams.iter().map(|team| Cow::from(format!("{TEAM_PREFIX}{}", team.name)));
        let named = |name: Cow<'_, str>| {
            if let Some((name, id)) = self.principals.get_key_value(&*name) {
                return (Arc::clone(name), *id);
            }
            let id = PrincipalId(self.principal_next);
            self.principal_next += 1;
            (Arc::from(name), id)
        };
        let all: Vec<_> = users.chain(teams).map(named).collect();
        self.principals = all.iter().cloned().collect();
        all
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
    /// What revisions before `since` have; elsewhere, for few entries have it and none for long.
    before: Option<Box<V>>,
}

impl<V> Cell<V> {
    fn at(&self, revision: u64) -> Option<&V> {
        if self.since <= revision { self.now.as_ref() } else { self.before.as_deref() }
    }
}

/// What [`Versioned::mark`] did.
struct Marked<K> {
    changes: usize,
    /// The entries that still have what was before.
    unsettled: Vec<K>,
}

impl<K, V, S> Versioned<K, V, S>
where
    K: Clone + Eq + Hash,
    V: Clone + Eq,
    S: BuildHasher,
{
    fn new(hasher: S) -> Self {
        // A table that grows bit by bit would make readers look into two.
        let blocking = papaya::ResizeMode::Blocking;
        let map = papaya::HashMap::builder().hasher(hasher).resize_mode(blocking).build();
        Self { map }
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

    /// Writes what differs between revision `shown` and `wanted`, visible from `shown + 1` on.
    fn mark(&self, wanted: Vec<(K, V)>, shown: u64) -> Marked<K> {
        let guard = self.map.guard();
        let mut known = 0;
        let differs = |(key, value): &(K, V)| {
            let Some(cell) = self.map.get(key, &guard) else { return true };
            known += 1;
            // What a writer that panicked left behind is not settled either.
            cell.since > shown || cell.now.as_ref() != Some(value)
        };
        let differs: Vec<bool> = wanted.iter().map(differs).collect();

        let mut marked = Marked { changes: 0, unsettled: Vec::new() };
        let mut write = |key: K, now: Option<V>| {
            let before = self.map.get(&key, &guard).and_then(|cell| cell.at(shown));
            let before = before.map(|value| Box::new(value.clone()));
            marked.changes += 1;
            if before.is_some() || now.is_none() {
                marked.unsettled.push(key.clone());
            }
            self.map.insert(key, Cell { since: shown + 1, now, before }, &guard);
        };
        // Where all entries were among the wanted ones, which is nearly always, there is no need to look for others.
        if known < self.map.len() {
            let wanted: HashSet<&K> = wanted.iter().map(|(key, _)| key).collect();
            let others = self.map.keys(&guard).filter(|key| !wanted.contains(key));
            let others: Vec<K> = others.cloned().collect();
            for key in others {
                write(key, None);
            }
        }
        // All the room at once, instead of by doubling and copying, but hardly more than is needed: a dense table stays in
        // the caches, which saves a reader more than the probes of a full one cost. papaya plans for a load of 75%.
        let room = wanted.len() - wanted.len() / 8;
        if room > self.map.len() {
            self.map.reserve(room - self.map.len(), &guard);
        }
        for ((key, value), _) in wanted.into_iter().zip(differs).filter(|(_, differs)| *differs) {
            write(key, Some(value));
        }
        marked
    }

    /// Forgets what was before, once the revision that `mark` wrote is shown.
    fn settle(&self, marked: Marked<K>) {
        let guard = self.map.guard();
        for key in marked.unsettled {
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
