//! What can be judged only when all of a delta is drafted.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::changes::Sorted;
use super::super::ids::{AddressId, PrincipalId};
use super::super::writer::{Known, KnownAddress};
use super::super::{Address, TEAM_PREFIX, TEAMS_MAX, Vm, What};
use super::{Life, TableDraft};

impl TableDraft<'_> {
    pub(super) fn check_all(&mut self, delta: &Sorted) {
        self.check_addresses(delta);
        self.check_users(delta);
        self.check_teams();
        self.check_nodes(&delta.nodes);
        // With names that lead nowhere it is not clear what stands in which slot.
        if self.found.is_empty() {
            self.check_slots(delta);
        }
    }

    pub(super) fn held_after(&self, address: &Arc<Address>) -> KnownAddress {
        let before = self.writer.addresses.get(&address.name);
        let (slots, pointing) = before.map_or((0, 0), |held| (held.slots, held.pointing));
        let more = self.hanging.get(&address.id).copied().unwrap_or_default();
        let (slots, pointing) = (
            slots.saturating_add_signed(more.slots),
            pointing.saturating_add_signed(more.pointing),
        );
        KnownAddress { address: Arc::clone(address), slots, pointing }
    }

    /// Nothing may hang on an address that goes, and no slot on a lobby.
    fn check_addresses(&mut self, delta: &Sorted) {
        for (name, (index, entry)) in &delta.addresses {
            let Some(before) = self.writer.addresses.get(name) else { continue };
            let KnownAddress { slots, pointing, .. } = self.held_after(&before.address);
            let name = name.clone();
            match entry {
                None if slots + pointing > 0 => {
                    let by = format!("slots and VMs, {} of them", slots + pointing);
                    self.fault(*index, What::InUse { name, by });
                }
                Some(entry) if entry.lobby && slots > 0 => {
                    self.fault(*index, What::AtLobby { address: name });
                }
                Some(_) | None => {}
            }
        }
    }

    /// Nothing may name a user who goes, and nobody may be in too many teams.
    fn check_users(&mut self, delta: &Sorted) {
        let mut faults = Vec::new();
        for (id, user) in &self.users {
            let index = delta.users.get(&*user.name).map(|(index, _)| *index);
            let teams = user.teams.len() + user.teams_by_name.len();
            if user.life == Life::Goes {
                let team = user.teams.iter().chain(&user.teams_by_name).next();
                let team = team.and_then(|team| self.writer.known.get(team));
                let team = team.map(|team| quoted("team", team.name()));
                let by = self.some_vm(*id).map(|vm| quoted("VM", &vm.name)).or(team);
                let name = user.name.as_ref().to_owned();
                faults.extend(by.map(|by| (index.unwrap_or(0), What::InUse { name, by })));
            } else if teams > TEAMS_MAX {
                // The team that was one too many, or the last of those that were.
                let last = user.teams.iter().chain(&user.teams_by_name);
                let last =
                    last.filter_map(|team| self.teams.get(team)).map(|team| team.index).max();
                let what = What::TooManyTeams { user: user.name.as_ref().to_owned(), teams };
                faults.push((last.or(index).unwrap_or(0), what));
            }
        }
        self.faults(faults);
    }

    /// No VM may name a team that goes.
    fn check_teams(&mut self) {
        let gone = self.teams.iter().filter(|(_, team)| team.life == Life::Goes);
        let faults = gone.filter_map(|(id, team)| {
            let by = quoted("VM", &self.some_vm(*id)?.name);
            let name = team.name.strip_prefix(TEAM_PREFIX).unwrap_or(&team.name).to_owned();
            Some((team.index, What::InUse { name, by }))
        });
        let faults: Vec<_> = faults.collect();
        self.faults(faults);
    }

    /// A VM that a principal may enter in the end.
    fn some_vm(&self, id: PrincipalId) -> Option<Arc<Vm>> {
        if let Some(reach) = self.reach.get(&id) {
            let slots = reach.slots.iter().map(|(_, vm)| vm);
            return slots.chain(&reach.by_name).next().map(Arc::clone);
        }
        self.published(id, |near, far| near.vms(far).next().map(Arc::clone))?
    }

    /// Nobody may see two VMs at one address: those are looked at to whom a slot is new.
    fn check_slots(&mut self, delta: &Sorted) {
        let mut asked: HashSet<(PrincipalId, AddressId)> = HashSet::new();
        for (id, reach) in &self.reach {
            let is_new = |at: &&AddressId| {
                let now = self.at(*id, **at);
                let same = |(lost_at, vm): &(AddressId, Arc<Vm>)| {
                    lost_at == *at && now.as_ref().is_some_and(|now| now.id == vm.id)
                };
                !reach.lost.iter().any(same)
            };
            let gained: Vec<_> = reach.gained.iter().filter(is_new).copied().collect();
            if gained.is_empty() {
                continue;
            }
            if let Some(members) = self.members(*id) {
                let each = members.iter().flat_map(|user| gained.iter().map(|at| (*user, *at)));
                asked.extend(each);
            } else {
                asked.extend(gained.iter().map(|at| (*id, *at)));
            }
        }
        for (id, user) in &self.users {
            for team in &user.joined {
                asked.extend(self.slots_of(*team).into_iter().map(|at| (*id, at)));
            }
        }
        let mut told = HashSet::new();
        let mut faults = Vec::new();
        for (user, at) in asked {
            let mut here = self.slot_principals(user).filter_map(|id| self.at(id, at));
            let Some(first) = here.next() else { continue };
            for second in here.filter(|vm| vm.id != first.id) {
                faults.extend(self.conflict(delta, user, at, &first, &second, &mut told));
            }
        }
        self.faults(faults);
    }

    /// Told at the change that brought one of the two VMs there, else at the team that
    /// brought the user.
    fn conflict(
        &self,
        delta: &Sorted,
        user: PrincipalId,
        at: AddressId,
        first: &Arc<Vm>,
        second: &Arc<Vm>,
        told: &mut HashSet<(AddressId, String, String)>,
    ) -> Option<(usize, What)> {
        let change = |vm: &Vm| delta.vms.get(&vm.name).map(|(index, _)| *index);
        let (here, other) =
            if change(second) >= change(first) { (second, first) } else { (first, second) };
        let names = (here.name.clone(), other.name.clone());
        let (low, high) = if names.0 < names.1 { names } else { (names.1, names.0) };
        if !told.insert((at, low, high)) {
            return None;
        }
        let joined = self.users.get(&user).into_iter().flat_map(|user| &user.joined);
        let joined = joined.filter_map(|team| self.teams.get(team)).map(|team| team.index).max();
        let address = self.addresses.values().flatten().find(|address| address.id == at);
        let address = address.map(Arc::clone).or_else(|| self.table.places.get(&at, self.shown));
        let address = address.map_or_else(String::new, |address| address.name.clone());
        let user = match self.users.get(&user) {
            Some(user) => user.name.as_ref().to_owned(),
            None => self
                .writer
                .known
                .get(&user)
                .map_or_else(String::new, |user| user.name().as_ref().to_owned()),
        };
        let what = What::SlotTaken { user, address, other: other.name.clone() };
        Some((change(here).or(joined).unwrap_or(0), what))
    }

    /// Who shares the slots of a team in the end; `None` for a user.
    fn members(&self, team: PrincipalId) -> Option<&[PrincipalId]> {
        if let Some(members) = self.teams.get(&team) {
            return Some(&members.slots);
        }
        match self.writer.known.get(&team)? {
            Known::Team { members, .. } => Some(members),
            Known::User { .. } => None,
        }
    }

    /// Whose slots are a user's in the end.
    fn slot_principals(&self, user: PrincipalId) -> impl Iterator<Item = PrincipalId> + use<> {
        let teams = match (self.users.get(&user), self.writer.known.get(&user)) {
            (Some(user), _) => user.teams.clone(),
            (None, Some(Known::User { name, .. })) => {
                let teams =
                    self.table.users.with(&**name, self.shown, |now| now.rest.teams.to_vec());
                teams.unwrap_or_default()
            }
            (None, Some(Known::Team { .. }) | None) => Vec::new(),
        };
        std::iter::once(user).chain(teams)
    }

    /// The addresses of a principal's slots in the end.
    fn slots_of(&self, id: PrincipalId) -> Vec<AddressId> {
        if let Some(reach) = self.reach.get(&id) {
            return reach.slots.iter().map(|(at, _)| *at).collect();
        }
        let slots = self.published(id, |near, far| near.slots(far).map(|(at, _)| at).collect());
        slots.unwrap_or_default()
    }
}

fn quoted(kind: &str, name: &str) -> String {
    format!("{kind} `{}`", name.strip_prefix(TEAM_PREFIX).unwrap_or(name))
}
