//! While a fleet is carried out: whoever may enter a VM before and after may enter it all the time,
//! and nobody enters what is theirs neither before nor after.
//!
//! Rights are taken before others are given, so what leads to a VM in another way from now on would
//! be missed in between. What leads there now is taken last then, if nobody new could use it until
//! then; else whoever misses it is lent a share.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::desired::DesiredFleet;
use crate::registry::commands::teams::MEMBERS_MAX;
use crate::registry::commands::vms::SHARES_MAX;
use crate::registry::document::{Access, Vm};
use crate::registry::fleet::FleetVm;
use crate::registry::model::Model;
use crate::registry::name::{Label, Principal};
use crate::route::TEAMS_MAX;

/// What is taken last, and what is lent until then.
#[derive(Default)]
pub(super) struct Transition<'a> {
    /// VM and principal.
    pub(super) late_shares: BTreeSet<(&'a Label, &'a Principal)>,
    /// Team and user.
    pub(super) late_members: BTreeSet<(&'a Label, &'a Label)>,
    /// VM and user, with the access that the user has anyway.
    pub(super) temporary_shares: BTreeMap<(&'a Label, &'a Label), Access>,
}

/// How a user enters a VM after all.
#[derive(Clone, Copy, Eq, PartialEq)]
enum AccessAfter {
    Lost,
    /// As before.
    Unchanged,
    /// Only by a share or a membership that the plan adds.
    ViaNewGrant,
}

struct TransitionPlanner<'a> {
    model: &'a Model,
    wanted: &'a DesiredFleet<'a>,
    /// Teams with members to come.
    growing: HashSet<&'a Label>,
    /// Teams with VMs to come.
    gaining: HashSet<&'a Label>,
    transition: Transition<'a>,
}

impl<'a> Transition<'a> {
    pub(super) fn new(model: &'a Model, wanted: &'a DesiredFleet<'a>) -> Self {
        let growing = wanted.teams.iter().filter(|(team, members)| {
            let before = model.teams().get(**team).map(|stored| &stored.document.members);
            members.keys().any(|user| before.is_none_or(|before| !before.contains_key(*user)))
        });
        let growing = growing.map(|(team, _)| *team).collect();
        let mut gaining = HashSet::new();
        for vm in wanted.vms.values() {
            let before = wanted.standing(model, &vm.name);
            for principal in everybody(vm) {
                if let Principal::Team(team) = principal
                    && before.is_none_or(|before| !has(before, principal))
                {
                    gaining.insert(team);
                }
            }
        }
        let mut sides =
            TransitionPlanner { model, wanted, growing, gaining, transition: Self::default() };
        sides.shares();
        sides.members();
        sides.transition
    }
}

impl<'a> TransitionPlanner<'a> {
    /// Of all that principals lose of VMs.
    fn shares(&mut self) {
        for serial in self.model.vm_names().values() {
            let Some(stored) = self.model.vm(*serial) else { continue };
            let vm = &*stored.document;
            let Some(wanted) = self.wanted.of(*serial, vm) else { continue };
            let stay: HashSet<&Principal> = everybody(wanted).collect();
            let all = std::iter::once(&vm.owner).chain(vm.shares.keys());
            for principal in all.filter(|principal| !stay.contains(principal)) {
                let users: Vec<&'a Label> = match principal {
                    Principal::User(user) => vec![user],
                    Principal::Team(team) => {
                        let team = self.model.teams().get(team);
                        team.into_iter().flat_map(|it| it.document.members.keys()).collect()
                    }
                };
                let mut missed: Vec<&'a Label> = users;
                missed.retain(|user| self.after(vm, wanted, user) == AccessAfter::ViaNewGrant);
                if missed.is_empty() || self.is_full(vm, wanted) {
                    continue;
                }
                let grows = match principal {
                    Principal::User(_) => false,
                    Principal::Team(team) => self.growing.contains(team),
                };
                if grows {
                    for user in missed {
                        self.lend(vm, wanted, user);
                    }
                } else {
                    self.transition.late_shares.insert((&wanted.name, principal));
                }
            }
        }
    }

    /// Of all who leave teams.
    fn members(&mut self) {
        for (team, stored) in self.model.teams() {
            let Some(stay) = self.wanted.teams.get(team) else { continue };
            let before = &stored.document.members;
            let principal = Principal::Team(team.clone());
            let vms: Vec<(&'a Vm, &'a FleetVm)> = self
                .model
                .given(&principal)
                .into_iter()
                .filter_map(|serial| {
                    let vm = &*self.model.vm(serial)?.document;
                    Some((vm, self.wanted.of(serial, vm)?))
                })
                .collect();
            let full = before.keys().chain(stay.keys().copied()).collect::<HashSet<_>>().len()
                > MEMBERS_MAX;
            for user in before.keys().filter(|user| !stay.contains_key(user)) {
                let mut missed = vms.clone();
                missed.retain(|(vm, wanted)| {
                    self.after(vm, wanted, user) == AccessAfter::ViaNewGrant
                });
                if missed.is_empty() {
                    continue;
                }
                if !self.gaining.contains(team) && !full && !self.is_everywhere(user) {
                    self.transition.late_members.insert((team, user));
                    continue;
                }
                for (vm, wanted) in missed {
                    self.lend(vm, wanted, user);
                }
            }
        }
    }

    fn after(&self, vm: &Vm, wanted: &FleetVm, user: &Label) -> AccessAfter {
        let mut after = AccessAfter::Lost;
        for principal in everybody(wanted) {
            let (is, will_be) = match principal {
                Principal::User(name) => (name == user, name == user),
                Principal::Team(team) => {
                    let stored = self.model.teams().get(team);
                    let is = stored.is_some_and(|it| it.document.members.contains_key(user));
                    let wanted = self.wanted.teams.get(team);
                    (is, wanted.map_or(is, |members| members.contains_key(user)))
                }
            };
            if will_be && is && has(vm, principal) {
                return AccessAfter::Unchanged;
            }
            if will_be {
                after = AccessAfter::ViaNewGrant;
            }
        }
        after
    }

    fn lend(&mut self, vm: &'a Vm, wanted: &'a FleetVm, user: &'a Label) {
        let me = Principal::User(user.clone());
        // A share that goes is taken last.
        if has(vm, &me) || self.is_full(vm, wanted) {
            return;
        }
        let ix = self.model.principal_ix(&me);
        let slot = ix.is_some_and(|viewer| {
            let at = vm.address.as_ref().and_then(|at| self.model.address_ix(at));
            let viewers = self.model.viewers(vm.entitled());
            at.is_some() && viewers.binary_search(&viewer).is_ok()
        });
        let access = if slot { Access::Slot } else { Access::ByName };
        self.transition.temporary_shares.insert((&wanted.name, user), access);
    }

    /// Whether a VM has no room for what was and what is to be.
    fn is_full(&self, vm: &Vm, wanted: &FleetVm) -> bool {
        let all: HashSet<&Principal> =
            std::iter::once(&vm.owner).chain(vm.shares.keys()).chain(everybody(wanted)).collect();
        let temporary_shares = self
            .transition
            .temporary_shares
            .keys()
            .filter(|(name, _)| **name == wanted.name)
            .count();
        all.len() + temporary_shares >= SHARES_MAX
    }

    /// Whether a user has no room for the teams that were and those to be.
    fn is_everywhere(&self, user: &Label) -> bool {
        let before = self.model.teams_of(user).into_keys();
        let after = self.wanted.teams.iter().filter(|(_, members)| members.contains_key(user));
        let all: HashSet<&Label> = before.chain(after.map(|(team, _)| *team)).collect();
        all.len() > TEAMS_MAX
    }
}

fn everybody(vm: &FleetVm) -> impl Iterator<Item = &Principal> {
    std::iter::once(&vm.owner).chain(&vm.shares).chain(&vm.shares_by_name)
}

fn has(vm: &Vm, principal: &Principal) -> bool {
    vm.owner == *principal || vm.shares.contains_key(principal)
}
