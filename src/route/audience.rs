//! What each agent has of the whole: the VMs of its node, the teams and users who may enter them,
//! and the pool, for a VM is entered by its name at any address.
//!
//! An audience is a join, so an entry comes into it by a change of another one: a share draws in
//! users who did not change. All audiences stand in one index, from what is named to those that
//! name it, with counts: a change costs what it and those whom it touches cost, however many
//! audiences there are. Only names are kept here; what is drawn in is looked up in the [`Whole`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::changes::{Changes, Sorted};
use super::{
    AddressEntry, Change, Contents, Delta, NodeEntry, TEAM_PREFIX, TeamEntry, UserEntry, VmEntry,
};

/// Everything as it is now, to look things up in.
pub trait Whole {
    /// The VMs that lie on a node.
    fn vms_on(&self, node: &str) -> Vec<VmEntry>;
    /// By its name.
    fn node(&self, name: &str) -> Option<NodeEntry>;
    /// The pool.
    fn addresses(&self) -> Vec<AddressEntry>;
    /// By the name.
    fn user(&self, name: &str) -> Option<UserEntry>;
    /// By its name, without the prefix.
    fn team(&self, name: &str) -> Option<TeamEntry>;
}

/// All that the agent of `node` has of the whole.
pub fn contents(node: &str, whole: &dyn Whole) -> Contents {
    let vms = whole.vms_on(node);
    let mut named = Names::default();
    for entry in &vms {
        named.add(entry);
    }
    let teams: Vec<_> = named.teams.iter().filter_map(|name| whole.team(name)).collect();
    let mut users = named.users;
    users.extend(teams.iter().flat_map(members));
    Contents {
        addresses: whole.addresses(),
        users: users.iter().filter_map(|name| whole.user(name)).collect(),
        teams,
        nodes: whole.node(node).into_iter().collect(),
        vms,
    }
}

/// The audiences that are followed, each by the name of its node.
#[derive(Debug, Default)]
pub struct Audiences {
    all: BTreeSet<Arc<str>>,
    /// How many entries each has, but for its node and the pool.
    counts: HashMap<Arc<str>, usize>,
    /// Every VM that is in an audience, what it is in, and what it names.
    vms: HashMap<Box<str>, Placed>,
    users: Index,
    teams: Index,
    /// Of the teams that are in an audience.
    members: HashMap<String, BTreeSet<String>>,
}

/// From a name to the audiences in which it stands, in order, and how often it is named there. Most
/// names stand in few: a million VMs name as many.
type Index = HashMap<Arc<str>, Vec<(Arc<str>, u32)>>;

/// An audience, and what a VM in it names.
type Placed = (Arc<str>, Box<[Named]>);

/// One thing that a VM names, by the name that its index has.
#[derive(Debug)]
enum Named {
    User(Arc<str>),
    Team(Arc<str>),
}

/// What a VM names.
#[derive(Debug, Default)]
struct Names {
    users: BTreeSet<String>,
    teams: BTreeSet<String>,
}

impl Names {
    fn of(entry: &VmEntry) -> Self {
        let mut names = Self::default();
        names.add(entry);
        names
    }

    fn add(&mut self, entry: &VmEntry) {
        for principal in principals(entry) {
            match principal.strip_prefix(TEAM_PREFIX) {
                Some(team) => self.teams.insert(team.to_owned()),
                None => self.users.insert(principal.to_owned()),
            };
        }
    }
}

/// Everybody who may enter a VM, as it names them.
pub(super) fn principals(entry: &VmEntry) -> impl Iterator<Item = &str> {
    let VmEntry { vm, slots, by_name } = entry;
    let slots = slots.iter().map(|slot| slot.principal.as_str());
    slots.chain(by_name.iter().map(String::as_str)).chain([vm.owner.as_str()])
}

/// The users among principals, and those of their teams.
pub(super) fn expand<'a>(
    principals: impl Iterator<Item = &'a str>,
    team: &dyn Fn(&str) -> Option<TeamEntry>,
) -> BTreeSet<String> {
    let mut users = BTreeSet::new();
    for principal in principals {
        match principal.strip_prefix(TEAM_PREFIX) {
            Some(name) => users.extend(team(name).iter().flat_map(members)),
            None => drop(users.insert(principal.to_owned())),
        }
    }
    users
}

fn members(team: &TeamEntry) -> impl Iterator<Item = String> + use<'_> {
    team.members.iter().chain(&team.members_by_name).cloned()
}

/// What a change touches, by name and audience, and whether it stood there before.
#[derive(Default)]
struct Touched {
    users: Before,
    teams: Before,
    vms: Before,
}

type Before = BTreeMap<String, BTreeMap<Arc<str>, bool>>;

impl Audiences {
    /// Follows the audience of `node` from now on. It begins with [`contents`].
    pub fn open(&mut self, node: &str, whole: &dyn Whole) {
        if self.all.insert(node.into()) {
            let vms = whole.vms_on(node);
            self.take(vms.iter().map(|entry| (&*entry.vm.name, Some(entry))), whole);
        }
    }

    /// Follows the audience of `node` no more.
    pub fn close(&mut self, node: &str, whole: &dyn Whole) {
        if self.all.contains(node) {
            let vms = whole.vms_on(node);
            self.take(vms.iter().map(|entry| (&*entry.vm.name, None)), whole);
            self.all.remove(node);
            self.counts.remove(node);
        }
    }

    /// Takes VMs in, or out, of which nobody is told here.
    fn take<'a>(
        &mut self,
        vms: impl Iterator<Item = (&'a str, Option<&'a VmEntry>)>,
        whole: &dyn Whole,
    ) {
        let mut touched = Touched::default();
        for (name, entry) in vms {
            self.change_vm(name, entry, &mut touched);
        }
        self.change_teams(&Changes::new(), whole, &mut touched);
        self.count(&touched);
    }

    /// How many entries an audience has, but for its node and the pool.
    #[must_use]
    pub fn entries(&self, of: &str) -> usize {
        self.counts.get(of).copied().unwrap_or_default()
    }

    fn count(&mut self, touched: &Touched) {
        let Self { counts, vms, users, teams, .. } = self;
        let is_in = |index: &Index, name: &str, audience: &str| {
            index.get(name).is_some_and(|all| place(all, audience).is_ok())
        };
        let mut count = |before: &Before, stands: &dyn Fn(&str, &str) -> bool| {
            for (name, audiences) in before {
                for (audience, was) in audiences {
                    let count = counts.entry(Arc::clone(audience)).or_default();
                    match (*was, stands(name, audience)) {
                        (false, true) => *count += 1,
                        (true, false) => *count = count.saturating_sub(1),
                        (true, true) | (false, false) => {}
                    }
                }
            }
        };
        count(&touched.users, &|name, of| is_in(users, name, of));
        count(&touched.teams, &|name, of| is_in(teams, name, of));
        count(&touched.vms, &|name, of| vms.get(name).is_some_and(|(is, _)| **is == *of));
    }

    /// What a change of the whole, which has taken place, is to each audience; nothing to those
    /// that it does not touch.
    pub fn change(&mut self, delta: &Delta, whole: &dyn Whole) -> BTreeMap<Arc<str>, Delta> {
        if self.all.is_empty() {
            return BTreeMap::new();
        }
        let sorted = Sorted::new(delta.clone());
        let mut touched = Touched::default();
        touch(&mut touched.users, &self.users, &sorted.users);
        for (name, (_, entry)) in &sorted.vms {
            self.change_vm(name, entry.as_ref(), &mut touched);
        }
        self.change_teams(&sorted.teams, whole, &mut touched);
        self.count(&touched);
        self.told(sorted, &touched, whole)
    }

    /// A VM leaves the audience that it was in, and comes into that of its node.
    fn change_vm(&mut self, name: &str, entry: Option<&VmEntry>, touched: &mut Touched) {
        let Self { all, vms, users, teams, .. } = self;
        let Touched { users: by, teams: of, vms: its } = touched;
        let its = its.entry(name.to_owned()).or_default();
        if let Some((audience, named)) = vms.remove(name) {
            its.insert(Arc::clone(&audience), true);
            for it in &named {
                match it {
                    Named::User(it) => leave(users, by, it, &audience),
                    Named::Team(it) => leave(teams, of, it, &audience),
                }
            }
        }
        let Some(entry) = entry else { return };
        let Some(audience) = entry.vm.node.as_ref().and_then(|node| all.get(node)) else { return };
        its.entry(Arc::clone(audience)).or_insert(false);
        let names = Names::of(entry);
        let by = names.users.iter().map(|it| Named::User(enter(users, by, it, audience)));
        let of = names.teams.iter().map(|it| Named::Team(enter(teams, of, it, audience)));
        let all = by.chain(of).collect();
        vms.insert(name.into(), (Arc::clone(audience), all));
    }

    /// Members come and go with their teams, and by themselves.
    fn change_teams(&mut self, put: &Changes<TeamEntry>, whole: &dyn Whole, touched: &mut Touched) {
        touch(&mut touched.teams, &self.teams, put);
        let Touched { users: by, teams: of, .. } = touched;
        for (name, audiences) in of {
            let then = self.members.remove(name).unwrap_or_default();
            let stands = self.teams.contains_key(&**name);
            let now: Option<BTreeSet<_>> = match put.get(name) {
                Some((_, entry)) => Some(entry.iter().flat_map(members).collect()),
                // It was there before: nobody came and nobody went.
                None if audiences.values().any(|was| *was) || !then.is_empty() => None,
                None => Some(whole.team(name).iter().flat_map(members).collect()),
            };
            // Once, however many audiences name the team.
            let (gone, come): (Vec<_>, Vec<_>) = match &now {
                Some(now) => (then.difference(now).collect(), now.difference(&then).collect()),
                None => Default::default(),
            };
            let after = now.as_ref().unwrap_or(&then);
            for (audience, was) in audiences.iter() {
                let is = self.teams.get(&**name).is_some_and(|all| place(all, audience).is_ok());
                match (*was, is) {
                    (true, true) => {
                        for it in &gone {
                            leave(&mut self.users, by, it, audience);
                        }
                        for it in &come {
                            enter(&mut self.users, by, it, audience);
                        }
                    }
                    (true, false) => {
                        for it in &then {
                            leave(&mut self.users, by, it, audience);
                        }
                    }
                    (false, true) => {
                        for it in after {
                            enter(&mut self.users, by, it, audience);
                        }
                    }
                    (false, false) => {}
                }
            }
            if stands {
                self.members.insert(name.clone(), now.unwrap_or(then));
            }
        }
    }

    /// What each audience is told of what was touched.
    fn told(
        &self,
        sorted: Sorted,
        touched: &Touched,
        whole: &dyn Whole,
    ) -> BTreeMap<Arc<str>, Delta> {
        let mut told = Told::default();
        let Sorted { addresses, users, teams, nodes, vms } = sorted;
        let stands = |index: &Index, name: &str, audience: &Arc<str>| {
            index.get(name).is_some_and(|all| place(all, audience).is_ok())
        };
        for (name, (_, entry)) in addresses {
            let change = entry.map_or(Change::RemoveAddress(name), Change::PutAddress);
            for audience in &self.all {
                told.tell(audience, change.clone());
            }
        }
        told.add(
            (&touched.users, &users),
            &|name, audience| stands(&self.users, name, audience),
            &|name| whole.user(name),
            (Change::PutUser, Change::RemoveUser),
        );
        told.add(
            (&touched.teams, &teams),
            &|name, audience| stands(&self.teams, name, audience),
            &|name| whole.team(name),
            (Change::PutTeam, Change::RemoveTeam),
        );
        for (name, (_, entry)) in nodes {
            let Some(audience) = self.all.get(&*name) else { continue };
            told.tell(audience, entry.map_or(Change::RemoveNode(name), Change::PutNode));
        }
        told.add(
            (&touched.vms, &vms),
            &|name, audience| self.vms.get(name).is_some_and(|(of, _)| of == audience),
            &|_| None,
            (Change::PutVm, Change::RemoveVm),
        );
        told.0
    }
}

/// What is changed by itself is touched wherever it stands.
fn touch<T>(before: &mut Before, index: &Index, changes: &Changes<T>) {
    for name in changes.keys() {
        for (audience, _) in index.get(&**name).into_iter().flatten() {
            let known = before.entry(name.clone()).or_default();
            known.entry(Arc::clone(audience)).or_insert(true);
        }
    }
}

/// Where an audience stands among those of a name, or would.
fn place(all: &[(Arc<str>, u32)], audience: &str) -> Result<usize, usize> {
    all.binary_search_by(|(other, _)| (**other).cmp(audience))
}

/// Names something once more; gives the name as it stands in the index.
fn enter(index: &mut Index, before: &mut Before, name: &str, audience: &Arc<str>) -> Arc<str> {
    let named = index.get_key_value(name).map_or_else(|| name.into(), |(it, _)| Arc::clone(it));
    let all = index.entry(Arc::clone(&named)).or_default();
    let stood = match place(all, audience) {
        Ok(at) => {
            all[at].1 += 1;
            true
        }
        Err(at) => {
            if all.is_empty() {
                // Most stand in one alone.
                all.reserve_exact(1);
            }
            all.insert(at, (Arc::clone(audience), 1));
            false
        }
    };
    let known = before.entry(name.to_owned()).or_default();
    known.entry(Arc::clone(audience)).or_insert(stood);
    named
}

fn leave(index: &mut Index, before: &mut Before, name: &str, audience: &Arc<str>) {
    let known = before.entry(name.to_owned()).or_default();
    known.entry(Arc::clone(audience)).or_insert(true);
    let Some(all) = index.get_mut(name) else { return };
    if let Ok(at) = place(all, audience)
        && let Some((_, count)) = all.get_mut(at)
    {
        *count -= 1;
        if *count == 0 {
            all.remove(at);
        }
    }
    if all.is_empty() {
        index.remove(name);
    }
}

/// Puts an entry in.
type Put<T> = fn(T) -> Change;

#[derive(Default)]
struct Told(BTreeMap<Arc<str>, Delta>);

impl Told {
    fn tell(&mut self, audience: &Arc<str>, change: Change) {
        self.0.entry(Arc::clone(audience)).or_default().changes.push(change);
    }

    /// Of the entries of one kind: whether one stands in an audience now, and where to look up what
    /// did not change itself.
    fn add<T: Clone>(
        &mut self,
        (touched, changes): (&Before, &Changes<T>),
        stands: &dyn Fn(&str, &Arc<str>) -> bool,
        find: &dyn Fn(&str) -> Option<T>,
        (put, remove): (Put<T>, fn(String) -> Change),
    ) {
        for (name, audiences) in touched {
            let entry = changes.get(name).and_then(|(_, entry)| entry.as_ref());
            for (audience, was) in audiences {
                let change = match (*was, stands(name, audience)) {
                    (_, true) if entry.is_some() => entry.cloned().map(put),
                    (false, true) => find(name).map(put),
                    (true, false) => Some(remove(name.clone())),
                    (true, true) | (false, false) => None,
                };
                if let Some(change) = change {
                    self.tell(audience, change);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "audience_tests.rs"]
mod tests;
