//! The live map: lock-free reads from every shard, one writer.
//!
//! Every entry carries the revision it is true from and, while a change is being written, what was
//! true before. The writer marks all its changes with the next revision and only then publishes
//! that revision. A reader notes the revision, reads each entry as of it, and starts again if
//! another was published meanwhile: it sees all of one state or all of the next, it never waits for
//! a writer, and a large change costs it nothing.
//!
//! Why it must be so: when a key moves from alice to bob and a slot of alice's gets another VM in
//! the same change, a reader that combined the old key with the new slot would let bob's machine
//! into a VM that was never meant for it.

use std::fmt;
use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::hash::{Asked, Fingerprint, Seeded};
use super::ids::{AddressId, PrincipalId};
use super::node::Host;
use super::user_routes::{InlineSlots, Named, SpilledSlots, Team, UserRoutes, VmName};
use super::versioned::{Marked, Versioned};
use super::writer::Writer;
use super::{
    Address, Admission, Admitted, Carriage, Carry, Counts, Denied, KeyLine, Node, Refusal, Vm, Who,
};

/// The live map of who may go where.
pub struct Table {
    /// The state that readers see. Only [`Table::publish`] writes it.
    revision: AtomicU64,
    /// By every IP address that leads there.
    pub(super) addresses: Versioned<IpAddr, Arc<Address>, RandomState>,
    pub(super) places: Versioned<AddressId, Arc<Address>, Seeded>,
    pub(super) address_names: Versioned<String, Arc<Address>, RandomState>,
    pub(super) keys: Versioned<Fingerprint, UserRoutes, Seeded>,
    /// Of the few keys that have any.
    pub(super) options: Versioned<Fingerprint, Arc<str>, Seeded>,
    pub(super) users: Versioned<Arc<str>, UserRoutes, RandomState>,
    pub(super) teams: Versioned<PrincipalId, Team, Seeded>,
    pub(super) nodes: Versioned<Arc<str>, Host, RandomState>,
    pub(super) names: Versioned<VmName, Named, RandomState>,
    counts: ArcSwap<Counts>,
    /// What is refused though it stands here. Read within a read of the rest: it goes when what it
    /// stood for is shown.
    denied: ArcSwapOption<Denied>,
    pub(super) writer: Mutex<Writer>,
}

/// Everything that was marked for one revision, in the order of the maps of [`Table`].
pub(super) struct Marks {
    pub(super) addresses: Marked<IpAddr>,
    pub(super) places: Marked<AddressId>,
    pub(super) address_names: Marked<String>,
    pub(super) keys: Marked<Fingerprint>,
    pub(super) options: Marked<Fingerprint>,
    pub(super) users: Marked<Arc<str>>,
    pub(super) teams: Marked<PrincipalId>,
    pub(super) nodes: Marked<Arc<str>>,
    pub(super) names: Marked<VmName>,
    /// Addresses in whose slots nothing is from that revision on.
    pub(super) retired: Vec<Arc<Address>>,
}

impl Marks {
    const fn changes(&self) -> usize {
        let places = self.addresses.changes + self.places.changes + self.address_names.changes;
        let people = self.keys.changes + self.options.changes + self.users.changes;
        places + people + self.teams.changes + self.nodes.changes + self.names.changes
    }
}

/// A way that exists, before anything is copied for it.
#[derive(Clone, Copy, Debug)]
pub enum Way<'a> {
    /// To a VM, which may be closed.
    Vm {
        /// It.
        vm: &'a Arc<Vm>,
        /// The login asked for, without the VM's name.
        login: &'a str,
        /// Whether the VM was asked for by name.
        by_name: bool,
    },
    /// To the list of VMs.
    Lobby,
}

impl Way<'_> {
    /// Whether nobody may go it now.
    #[must_use]
    pub fn closed(&self) -> bool {
        match self {
            Self::Vm { vm, .. } => vm.closed,
            Self::Lobby => false,
        }
    }

    /// Where it leads, if not to the list.
    #[must_use]
    pub fn vm(&self) -> Option<&Vm> {
        match self {
            Self::Vm { vm, .. } => Some(vm),
            Self::Lobby => None,
        }
    }

    /// The decision with copies of what it is about.
    #[must_use]
    pub fn admission(&self, user: &Arc<str>) -> Admission {
        match *self {
            Self::Vm { vm, login, by_name } => {
                // Read before anything is counted: a CPU waits for one count before it
                // reads what follows.
                let login = vm.login.as_deref().unwrap_or(login).to_owned();
                let (user, vm) = (Arc::clone(user), Arc::clone(vm));
                Admission::Vm(Admitted { user, vm, login, by_name })
            }
            Self::Lobby => Admission::Lobby { user: Arc::clone(user) },
        }
    }
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
            address_names: Versioned::new(RandomState::new()),
            keys: Versioned::new(Seeded::new()),
            options: Versioned::new(Seeded::new()),
            users: Versioned::new(RandomState::new()),
            teams: Versioned::new(Seeded::new()),
            nodes: Versioned::new(RandomState::new()),
            names: Versioned::new(RandomState::new()),
            counts: ArcSwap::default(),
            denied: ArcSwapOption::empty(),
            writer: Mutex::default(),
        }
    }

    /// Shows what was marked, for every reader at one instant. Returns the revision shown from then
    /// on, which is the same if nothing changed.
    pub(super) fn publish(&self, marks: Marks, counts: Counts) -> u64 {
        let shown = self.revision.load(Ordering::Relaxed);
        if marks.changes() == 0 {
            return shown;
        }
        self.counts.store(Arc::new(counts));
        for address in &marks.retired {
            address.retired.store(shown + 1, Ordering::Relaxed);
        }
        self.revision.store(shown + 1, Ordering::Release);
        // Pairs with the fence in `at_one_revision`: who sees anything settled below also sees
        // the new revision.
        fence(Ordering::Release);

        self.addresses.settle(marks.addresses);
        self.places.settle(marks.places);
        self.address_names.settle(marks.address_names);
        self.keys.settle(marks.keys);
        self.options.settle(marks.options);
        self.users.settle(marks.users);
        self.teams.settle(marks.teams);
        self.nodes.settle(marks.nodes);
        self.names.settle(marks.names);
        shown + 1
    }

    /// Moves with every snapshot or delta that changed anything.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// The pool address that `local` stands for, which is what the socket, a header or the NAT
    /// said, closed or not. `None`: not in the pool (refuse the connection). The private -> public
    /// map and IPv4-mapped IPv6 are already applied.
    pub fn dialled(&self, local: IpAddr) -> Option<Arc<Address>> {
        let local = local.to_canonical();
        self.at_one_revision(|revision| self.addresses.get(&local, revision))
    }

    /// As [`Table::dialled`], of those that are open.
    pub fn address(&self, local: IpAddr) -> Option<Arc<Address>> {
        self.dialled(local).filter(|address| !address.closed)
    }

    /// The pool address called `name`, closed or not.
    pub fn address_named(&self, name: &str) -> Option<Arc<Address>> {
        self.at_one_revision(|revision| self.address_names.get(name, revision))
    }

    /// All pool addresses, closed ones too, by name.
    pub fn addresses(&self) -> Vec<Arc<Address>> {
        let mut all = self.at_one_revision(|revision| {
            let mut all = Vec::new();
            self.address_names.each(revision, |address| all.push(Arc::clone(address)));
            all
        });
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The VM called `name`.
    pub fn vm(&self, name: &str) -> Option<Arc<Vm>> {
        self.at_one_revision(|revision| {
            self.names.with(name, revision, |named| Arc::clone(&named.vm))
        })
    }

    /// What carries a session with a VM that was admitted to. `None`: the VM is another one by now,
    /// and what it was cannot be carried as it says.
    pub fn carriage(&self, vm: &Vm) -> Option<Carriage> {
        let Some(name) = vm.node.as_deref().filter(|_| vm.carry != Carry::Relay) else {
            return vm.carriage(None).ok();
        };
        let host = self.at_one_revision(|revision| self.nodes.get(name, revision))?;
        vm.carriage(Some(&host)).ok()
    }

    /// Whether there is any node: else no session is handed off.
    pub fn has_nodes(&self) -> bool {
        !self.nodes.map.is_empty()
    }

    /// The node called `name`, if it has an agent.
    pub fn node(&self, name: &str) -> Option<Arc<Node>> {
        let host = self.at_one_revision(|revision| self.nodes.get(name, revision))?;
        host.node().map(Arc::clone)
    }

    /// Tells `each` of every VM, in any order, as they are in the revision that is returned. Not
    /// for a shard's thread: it takes 8 bytes a VM, and nothing can be changed until all are
    /// collected (some 100 ms for a million).
    pub fn zone(&self, each: &mut dyn FnMut(&Vm)) -> u64 {
        let (revision, all) = {
            let _nobody_writes = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let revision = self.revision.load(Ordering::Acquire);
            let mut all = Vec::with_capacity(self.names.map.len());
            self.names.each(revision, |named| all.push(Arc::clone(&named.vm)));
            (revision, all)
        };
        for vm in &all {
            each(vm);
        }
        revision
    }

    /// What the line of the key with this fingerprint says.
    pub fn key_options(&self, fingerprint: &[u8; 32]) -> KeyLine {
        self.at_one_revision(|revision| self.line(&Who::Key(*fingerprint), revision))
    }

    /// What `read` makes of the way of `who` at an address and of its user's name, with what the
    /// line of the key says, both of one revision. `login` is the SSH user name as sent:
    /// `login+vm-name` (split at the last '+') asks by name among the VMs that `who` may enter, and
    /// is never tried again as a plain login. Allocates nothing and copies nothing. `read` runs
    /// while memory cannot be reclaimed, maybe twice: it must be short.
    ///
    /// # Errors
    /// Why there is no way.
    pub fn ask<T>(
        &self,
        who: Who<'_>,
        address: &Address,
        login: &str,
        read: impl Fn(&Arc<str>, Way<'_>) -> T,
    ) -> Result<(T, KeyLine), Refusal> {
        let answer = |person: &UserRoutes, way: Way<'_>| read(&person.rest.name, way);
        self.at_one_revision(|revision| {
            let found = self.decide(revision, &who, address, login, answer)?;
            Ok((found, self.line(&who, revision)))
        })
    }

    /// As [`Table::ask`], of the VM that was admitted to once, however it is entered by now: `who`
    /// is still the same user, and that user may still enter the VM in some way. It is known by its
    /// id: it may have moved, been renamed or changed hands since.
    ///
    /// # Errors
    /// [`Refusal::Unregistered`], [`Refusal::Forbidden`].
    pub fn hold<T>(
        &self,
        who: Who<'_>,
        admitted: &Admitted,
        read: impl Fn(&Arc<Vm>) -> T,
    ) -> Result<(T, KeyLine), Refusal> {
        let (name, id) = (admitted.vm.name.as_str(), admitted.vm.id.as_str());
        self.at_one_revision(|revision| {
            let held = self.person(&who, revision, |person| {
                if person.rest.name != admitted.user {
                    return None;
                }
                let same = |named: &Named| {
                    (named.vm.id == id && named.admits(&person.rest)).then(|| read(&named.vm))
                };
                let by_name = self.names.with(name, revision, same).flatten();
                by_name.or_else(|| self.reached(person, id, revision, &read))
            });
            let found = held.ok_or(Refusal::Unregistered)?.ok_or(Refusal::Forbidden)?;
            Ok((found, self.line(&who, revision)))
        })
    }

    /// The two steps alone: reads the VM in the slots of `who` at `address`. Allocates nothing and
    /// copies nothing. `read` runs while memory cannot be reclaimed, maybe twice: it must be short.
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

    /// Whether there is a user of this name, who is not on the way out.
    pub fn is_user(&self, name: &str) -> bool {
        self.at_one_revision(|revision| self.person(&Who::User(name), revision, |_| ()).is_some())
    }

    /// Looks for a VM among all that `person` may enter.
    fn reached<T>(
        &self,
        person: &UserRoutes,
        id: &str,
        revision: u64,
        read: impl Fn(&Arc<Vm>) -> T,
    ) -> Option<T> {
        let among = |near: &InlineSlots, far: &SpilledSlots| {
            near.vms(far).find(|vm| vm.id == id).map(&read)
        };
        let team = |team: &Team| among(&team.near, &team.far);
        among(&person.near, &person.rest.far).or_else(|| {
            let mut teams = person.rest.all_teams();
            teams.find_map(|id| self.teams.with(&id, revision, team).flatten())
        })
    }

    /// For the lobby: every VM `user` may enter, by name, with an address it answers at for that
    /// user (or none, where it can be entered by name only): the one that its DNS name points at,
    /// if it is among them and open.
    pub fn visible(&self, user: &str) -> Vec<(Arc<Vm>, Option<Arc<Address>>)> {
        let mut all = self.at_one_revision(|revision| {
            let mut all = Vec::new();
            let by_name = |vm: &Arc<Vm>| (Arc::clone(vm), None);
            let slot =
                |(at, vm): (AddressId, &Arc<Vm>)| (Arc::clone(vm), self.places.get(&at, revision));
            self.person(&Who::User(user), revision, |person| {
                let UserRoutes { near, rest } = person;
                all.extend(near.slots(&rest.far).map(slot));
                all.extend(rest.far.by_name.iter().map(by_name));
                for team in &rest.teams {
                    self.teams.with(team, revision, |Team { near, far }| {
                        all.extend(near.slots(far).map(slot));
                        all.extend(far.by_name.iter().map(by_name));
                    });
                }
                for team in &rest.teams_by_name {
                    self.teams.with(team, revision, |Team { near, far }| {
                        all.extend(near.vms(far).map(by_name));
                    });
                }
            });
            all
        });
        // Of the ways to one VM, the best first.
        all.sort_by(|(vm, at), (other_vm, other_at)| {
            let rank = |at: &Option<Arc<Address>>| {
                let at = at
                    .as_ref()
                    .map(|at| (at.closed, vm.address.as_ref() != Some(&at.name), at.name.clone()));
                (at.is_none(), at)
            };
            vm.name.cmp(&other_vm.name).then_with(|| rank(at).cmp(&rank(other_at)))
        });
        all.dedup_by(|(later, _), (earlier, _)| later.name == earlier.name);
        all
    }

    /// Refuses this and nothing else from now on, whatever else is shown.
    pub fn deny(&self, denied: Option<Arc<Denied>>) {
        self.denied.store(denied);
    }

    /// Why somebody who is found to be `user` is refused what [`Table::ask`] or [`Table::hold`]
    /// finds. To be asked by what reads it there.
    pub fn denies(&self, who: &Who<'_>, user: &str, vm: Option<&Vm>) -> Option<Refusal> {
        self.denied.load().as_ref()?.refusal(who, user, vm)
    }

    /// Sizes, for the metrics.
    pub fn counts(&self) -> Counts {
        **self.counts.load()
    }

    /// `who` where the caller has it: see [`Asked`].
    fn decide<T>(
        &self,
        revision: u64,
        who: &Who<'_>,
        address: &Address,
        login: &str,
        answer: impl Fn(&UserRoutes, Way<'_>) -> T,
    ) -> Result<T, Refusal> {
        self.person(who, revision, |person| {
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
    }

    fn line(&self, who: &Who<'_>, revision: u64) -> KeyLine {
        let Who::Key(key) = who else { return KeyLine::Plain };
        match self.keys.with(&Asked(key), revision, |_| ()) {
            None => KeyLine::Unknown,
            Some(()) => {
                self.options.get(&Asked(key), revision).map_or(KeyLine::Plain, KeyLine::Options)
            }
        }
    }

    fn person<T>(
        &self,
        who: &Who<'_>,
        revision: u64,
        read: impl FnOnce(&UserRoutes) -> T,
    ) -> Option<T> {
        match who {
            Who::Key(key) => self.keys.with(&Asked(key), revision, read),
            // A closed one has no keys: that is not asked of each of them.
            Who::User(name) => {
                let read = |person: &UserRoutes| (!person.rest.closed).then(|| read(person));
                self.users.with(*name, revision, read).flatten()
            }
        }
    }

    /// At most one of a user's principals has a VM at an address, or they all have the same one.
    fn slot<T>(
        &self,
        person: &UserRoutes,
        address: &Address,
        revision: u64,
        read: impl Fn(&Arc<Vm>) -> T,
    ) -> Option<T> {
        if address.is_retired(revision) {
            return None;
        }
        if let Some(vm) = person.near.at(address.id, &person.rest.far) {
            return Some(read(vm));
        }
        let slot = |team: &Team| team.near.at(address.id, &team.far).map(&read);
        let mut teams = person.rest.teams.iter();
        teams.find_map(|team| self.teams.with(team, revision, slot).flatten())
    }

    /// Runs `read` on one revision. It starts again only if another was published within the read,
    /// and to write one takes longer than a read: it does not go round for long.
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

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
