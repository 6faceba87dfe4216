//! What is refused before the change that takes it away has come: a follower to which ordered
//! changes cannot go for a while is told of nothing but what they take away.
//!
//! Pairs of users and VMs are worked out where everything is known, so that whoever refuses needs
//! to look nothing up: a user who has two ways to a VM and loses one is not among them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::audience::{Whole, expand, principals};
use super::{Change, Delta, Refusal, TEAM_PREFIX, TeamEntry, UserEntry, Vm, VmEntry, Who};

/// Entries of a set: 200 kB and less.
pub const DENIED_MAX: usize = 2048;

/// Whom to refuse what, whatever the map says.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Denied {
    /// SHA-256 of public key blobs.
    keys: BTreeSet<[u8; 32]>,
    /// Nobody is these users any more.
    users: BTreeSet<String>,
    /// Ids of VMs that nobody may enter.
    vms: BTreeSet<String>,
    /// By user, ids of VMs.
    rights: BTreeMap<String, BTreeSet<String>>,
}

/// There is more to refuse than is told in this way.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("more is taken away at once than can be told before the rest")]
pub struct TooMuch;

impl Denied {
    /// What a change takes away from those who have an audience. `told` is what it is to that
    /// audience, `before` leads back from the change as a whole, and `whole` is what there is now.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn by(
        (told, node): (&Delta, &str),
        before: &Delta,
        whole: &dyn Whole,
    ) -> Result<Self, TooMuch> {
        let (before, mut denied) = (Before::new(before), Self::default());
        let mut now: BTreeMap<&str, &VmEntry> = BTreeMap::new();
        let mut teams: Vec<&TeamEntry> = Vec::new();
        for change in &told.changes {
            match change {
                Change::PutUser(UserEntry { name, .. }) | Change::RemoveUser(name) => {
                    denied.user(name, &before, whole);
                }
                Change::PutVm(entry) => drop(now.insert(&entry.vm.id, entry)),
                Change::PutTeam(TeamEntry { name, .. }) | Change::RemoveTeam(name) => {
                    teams.extend(before.teams.get(name.as_str()).copied());
                }
                // Whom these keep from entering has lost nothing.
                Change::PutAddress(_)
                | Change::RemoveAddress(_)
                | Change::PutNode(_)
                | Change::RemoveNode(_)
                | Change::RemoveVm(_) => {}
            }
        }
        for entry in before.vms.values().filter(|it| it.vm.node.as_deref() == Some(node)) {
            match now.get(entry.vm.id.as_str()) {
                Some(now) => denied.vm(entry, now, &before, whole)?,
                None => drop(denied.vms.insert(entry.vm.id.clone())),
            }
            denied.fits()?;
        }
        if !teams.is_empty() {
            for entry in whole.vms_on(node) {
                let is_told = before.vms.values().any(|it| it.vm.id == entry.vm.id);
                if !is_told && teams.iter().any(|it| names(&entry, it)) {
                    denied.vm(&entry, &entry, &before, whole)?;
                }
            }
        }
        denied.fits()?;
        Ok(denied)
    }

    /// Both together.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn and(mut self, more: Self) -> Result<Self, TooMuch> {
        self.keys.extend(more.keys);
        self.users.extend(more.users);
        self.vms.extend(more.vms);
        for (user, vms) in more.rights {
            self.rights.entry(user).or_default().extend(vms);
        }
        self.fits()?;
        Ok(self)
    }

    /// Nobody is refused anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Entries.
    #[must_use]
    pub fn count(&self) -> usize {
        let rights: usize = self.rights.values().map(BTreeSet::len).sum();
        self.keys.len() + self.users.len() + self.vms.len() + rights
    }

    /// Whether no more is refused than can be.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn fits(&self) -> Result<(), TooMuch> {
        if self.count() > DENIED_MAX { Err(TooMuch) } else { Ok(()) }
    }

    /// Why somebody who is found to be `user` may not enter a VM, or come at all.
    #[must_use]
    pub fn refusal(&self, who: &Who<'_>, user: &str, vm: Option<&Vm>) -> Option<Refusal> {
        let is_key = matches!(who, Who::Key(key) if self.keys.contains(key));
        if is_key || self.users.contains(user) {
            return Some(Refusal::Unregistered);
        }
        let id = &vm?.id;
        let is_right = self.rights.get(user).is_some_and(|vms| vms.contains(id));
        (is_right || self.vms.contains(id)).then_some(Refusal::Forbidden)
    }

    /// Keys that are the user's no more, or are good for something else.
    fn user(&mut self, name: &str, before: &Before<'_>, whole: &dyn Whole) {
        let Some(before) = before.users.get(name) else { return };
        let now = whole.user(name);
        if now.as_ref().is_none_or(|now| now.closed) {
            self.users.insert(name.to_owned());
        }
        let now = now.map(|now| now.keys).unwrap_or_default();
        let has = |key: &[u8; 32], options| {
            now.iter()
                .any(|it| it.fingerprint == *key && (it.options.is_none() || it.options == options))
        };
        let gone = before.keys.iter().filter(|it| !has(&it.fingerprint, it.options.clone()));
        self.keys.extend(gone.map(|it| it.fingerprint));
    }

    /// Users who might enter a VM and may no more.
    fn vm(
        &mut self,
        then: &VmEntry,
        now: &VmEntry,
        before: &Before<'_>,
        whole: &dyn Whole,
    ) -> Result<(), TooMuch> {
        let may = |entry: &VmEntry, team: &dyn Fn(&str) -> Option<TeamEntry>| {
            expand(principals(entry), team)
        };
        let then_team = |name: &str| match before.teams.get(name) {
            Some(team) => Some((*team).clone()),
            None => whole.team(name),
        };
        let now_may = may(now, &|name| whole.team(name));
        for user in may(then, &then_team).difference(&now_may) {
            self.rights.entry(user.clone()).or_default().insert(now.vm.id.clone());
            self.fits()?;
        }
        Ok(())
    }
}

fn names(entry: &VmEntry, team: &TeamEntry) -> bool {
    principals(entry).any(|it| it.strip_prefix(TEAM_PREFIX) == Some(&team.name))
}

/// What was there, by name.
struct Before<'a> {
    users: BTreeMap<&'a str, &'a UserEntry>,
    teams: BTreeMap<&'a str, &'a TeamEntry>,
    vms: BTreeMap<&'a str, &'a VmEntry>,
}

impl<'a> Before<'a> {
    fn new(before: &'a Delta) -> Self {
        let (mut users, mut teams, mut vms) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for change in &before.changes {
            match change {
                Change::PutUser(it) => drop(users.insert(it.name.as_str(), it)),
                Change::PutTeam(it) => drop(teams.insert(it.name.as_str(), it)),
                Change::PutVm(it) => drop(vms.insert(it.vm.name.as_str(), it)),
                // What was not there took nothing with it.
                Change::RemoveUser(_)
                | Change::RemoveTeam(_)
                | Change::RemoveVm(_)
                | Change::PutAddress(_)
                | Change::RemoveAddress(_)
                | Change::PutNode(_)
                | Change::RemoveNode(_) => {}
            }
        }
        Self { users, teams, vms }
    }
}
