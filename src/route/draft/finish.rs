//! From a draft without contradictions to the entries to mark, and to what the writer notes.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::super::hash::Fingerprint;
use super::super::ids::{AddressId, PrincipalId};
use super::super::node::Host;
use super::super::user_routes::{
    InlineSlots, Named, Reaching, Rest, SpilledSlots, Team, UserRoutes, VmId, VmName,
};
use super::super::writer::{IdAllocator, Known, KnownAddress, KnownNode, Writer};
use super::super::{Address, Contradiction, Counts};
use super::{Life, Reach, TableDraft, User};

type AddressChanges = Vec<(AddressId, Option<Arc<Address>>)>;

/// What the maps of the table must hold; `None` ends an entry.
pub(in super::super) struct Writes {
    pub(in super::super) addresses: Vec<(IpAddr, Option<Arc<Address>>)>,
    pub(in super::super) places: AddressChanges,
    pub(in super::super) address_names: Vec<(String, Option<Arc<Address>>)>,
    pub(in super::super) keys: Vec<(Fingerprint, Option<UserRoutes>)>,
    pub(in super::super) options: Vec<(Fingerprint, Option<Arc<str>>)>,
    pub(in super::super) users: Vec<(Arc<str>, Option<UserRoutes>)>,
    pub(in super::super) teams: Vec<(PrincipalId, Option<Team>)>,
    pub(in super::super) nodes: Vec<(Arc<str>, Option<Host>)>,
    pub(in super::super) names: Vec<(VmName, Option<Named>)>,
    pub(in super::super) retired: Vec<Arc<Address>>,
}

/// What the writer has to note once all is marked.
pub(in super::super) struct Noted {
    principals: HashMap<Arc<str>, Option<PrincipalId>>,
    known: Vec<(PrincipalId, Option<Known>)>,
    addresses: Vec<(String, Option<KnownAddress>)>,
    nodes: Vec<(Arc<str>, Option<KnownNode>)>,
    ids_freed: HashSet<VmId>,
    ids_taken: HashSet<VmId>,
    given: IdAllocator,
    counts: Counts,
}

impl TableDraft<'_> {
    /// What has to be written and noted, and whether somebody may have lost a right.
    ///
    /// # Errors
    /// All contradictions, in the order of the changes.
    pub(in super::super) fn finish(mut self) -> Result<(Writes, Noted, bool), Vec<Contradiction>> {
        if !self.found.is_empty() {
            self.found.sort_by_key(|contradiction| contradiction.at);
            return Err(self.found);
        }
        let (mut keys, mut users, mut known) = (Vec::new(), Vec::new(), Vec::new());
        for (id, user) in std::mem::take(&mut self.users) {
            let User { life, name, closed, keys: fingerprints, teams, teams_by_name, .. } = user;
            if life == Life::Goes {
                self.reach.remove(&id);
                users.push((name, None));
                known.push((id, None));
                continue;
            }
            let person = self.person(id, &name, Some((teams, teams_by_name, closed)));
            let each = fingerprints.iter().map(|key| (Fingerprint(*key), Some(person.clone())));
            keys.extend(each);
            users.push((Arc::clone(&name), Some(person)));
            known.push((id, Some(Known::User { name, keys: fingerprints.into() })));
        }
        let teams = self.finish_teams(&mut known);
        for id in self.reach.keys().copied().collect::<Vec<_>>() {
            let Some(Known::User { name, keys: fingerprints }) = self.writer.known.get(&id) else {
                continue;
            };
            let person = self.person(id, name, None);
            keys.extend(fingerprints.iter().map(|key| (Fingerprint(*key), Some(person.clone()))));
            users.push((Arc::clone(name), Some(person)));
        }
        let gone = self.key_owners.iter().filter(|(_, owner)| owner.is_none());
        keys.extend(gone.map(|(key, _)| (Fingerprint(*key), None)));

        let (places, retired) = self.places();
        let slots: isize = self.hanging.values().map(|more| more.slots).sum();
        self.counts.slots = self.counts.slots.saturating_add_signed(slots);
        let noted = Noted {
            addresses: self.held(),
            nodes: self.known_nodes(),
            principals: self.principals,
            known,
            ids_freed: self.ids_freed,
            ids_taken: self.ids_taken,
            given: self.given,
            counts: self.counts,
        };
        let writes = Writes {
            addresses: self.ips.into_iter().collect(),
            places,
            address_names: self.addresses.into_iter().collect(),
            keys,
            options: self.options,
            users,
            teams,
            nodes: self.nodes.into_iter().collect(),
            names: self.names,
            retired,
        };
        Ok((writes, noted, self.takes_away))
    }

    /// A user with all that the user may enter. `rest`: the teams whose slots are the user's too,
    /// the others, and whether the user is closed; without it all that is as before.
    fn person(
        &mut self,
        own: PrincipalId,
        name: &Arc<str>,
        rest: Option<(Vec<PrincipalId>, Vec<PrincipalId>, bool)>,
    ) -> UserRoutes {
        let before = self.table.users.get(name, self.shown).filter(|now| now.rest.own == own);
        let (near, far) = match (self.reach.remove(&own), &before) {
            (Some(reach), _) => finish(reach),
            (None, Some(before)) => (before.near.clone(), before.rest.far.clone()),
            (None, None) => (InlineSlots::default(), SpilledSlots::default()),
        };
        let (teams, teams_by_name, closed) = match (rest, &before) {
            (Some((mut teams, mut by_name, closed)), _) => {
                teams.sort_unstable();
                by_name.sort_unstable();
                (teams.into(), by_name.into(), closed)
            }
            (None, Some(before)) => {
                let rest = &before.rest;
                (rest.teams.clone(), rest.teams_by_name.clone(), rest.closed)
            }
            (None, None) => (Box::default(), Box::default(), false),
        };
        let rest = Rest { name: Arc::clone(name), own, far, teams, teams_by_name, closed };
        let same = before.map(|before| before.rest).filter(|before| **before == rest);
        UserRoutes { near, rest: same.unwrap_or_else(|| Arc::new(rest)) }
    }

    fn finish_teams(
        &mut self,
        known: &mut Vec<(PrincipalId, Option<Known>)>,
    ) -> Vec<(PrincipalId, Option<Team>)> {
        let mut teams = Vec::new();
        for (id, team) in std::mem::take(&mut self.teams) {
            if team.life == Life::Goes {
                self.reach.remove(&id);
                teams.push((id, None));
                known.push((id, None));
                continue;
            }
            let (members, members_by_name) = (team.slots.into(), team.by_name.into());
            known.push((id, Some(Known::Team { name: team.name, members, members_by_name })));
        }
        let is_user = |id| matches!(self.writer.known.get(id), Some(Known::User { .. }));
        let changed: Vec<_> = self.reach.keys().filter(|id| !is_user(id)).copied().collect();
        for id in changed {
            let Some(reach) = self.reach.remove(&id) else { continue };
            let (near, far) = finish(reach);
            teams.push((id, Some(Team { near, far: Arc::new(far) })));
        }
        teams
    }

    /// Addresses by their ids, and those in whose slots nothing is any more.
    fn places(&self) -> (AddressChanges, Vec<Arc<Address>>) {
        let (mut places, mut retired) = (Vec::new(), Vec::new());
        for (name, after) in &self.addresses {
            let before = self.writer.addresses.get(name).map(|held| &held.address);
            if let Some(id) = after.as_ref().or(before).map(|address| address.id) {
                places.push((id, after.clone()));
            }
            let dialled = after.as_ref().map(|address| address.dialled());
            retired.extend(before.filter(|now| Some(now.dialled()) != dialled).map(Arc::clone));
        }
        (places, retired)
    }

    /// The changed addresses, and those on which more or less hangs than before.
    fn held(&self) -> Vec<(String, Option<KnownAddress>)> {
        let mut held: Vec<_> = self
            .addresses
            .iter()
            .map(|(name, after)| {
                let after = after.as_ref().map(|address| self.held_after(address));
                (name.clone(), after)
            })
            .collect();
        for id in self.hanging.keys() {
            let Some(address) = self.table.places.get(id, self.shown) else { continue };
            if !self.addresses.contains_key(&address.name) {
                held.push((address.name.clone(), Some(self.held_after(&address))));
            }
        }
        held
    }
}

fn finish(reach: Reach) -> (InlineSlots, SpilledSlots) {
    Reaching { slots: reach.slots, by_name: reach.by_name }.finish()
}

impl Writer {
    /// Takes note of what a delta changed.
    pub(in super::super) fn note(&mut self, noted: Noted) {
        for (name, id) in noted.principals {
            match id {
                Some(id) => self.principals.insert(name, id),
                None => self.principals.remove(&name),
            };
        }
        for (id, known) in noted.known {
            match known {
                Some(known) => self.known.insert(id, known),
                None => self.known.remove(&id),
            };
        }
        for (name, held) in noted.addresses {
            match held {
                Some(held) => self.addresses.insert(name, held),
                None => self.addresses.remove(&name),
            };
        }
        for (name, held) in noted.nodes {
            match held {
                Some(held) => self.nodes.insert(name, held),
                None => self.nodes.remove(&name),
            };
        }
        for id in &noted.ids_freed {
            self.ids.remove(id);
        }
        self.ids.extend(noted.ids_taken);
        (self.given, self.counts) = (noted.given, noted.counts);
    }
}
