//! Who sees what: from principals to everybody who sees what they see, and from one of those to
//! all that is seen.

use std::collections::{BTreeMap, BTreeSet};

use super::command::Way;
use super::document::{Access, QuarantinedSlot, Serial, Vm};
use super::model::Model;
use super::name::{Label, Principal};
use super::reach::{AddressIx, PrincipalIx, Reach, Slot};

/// Something that a viewer sees at an address, or saw not long ago.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Seen {
    pub(super) address: AddressIx,
    pub(super) vm: Serial,
    pub(super) how: How,
}

/// How it is seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum How {
    /// It is the VM's address.
    Now,
    /// It was, and still leads there.
    Old,
    /// It led there until not long ago.
    Quarantined { until_s: u64 },
}

impl Vm {
    /// How somebody may enter it, as its owner or by a share.
    pub(super) fn access(&self, principal: &Principal) -> Option<Access> {
        if self.owner == *principal {
            return Some(Access::Slot);
        }
        self.shares.get(principal).copied()
    }

    /// Who may enter at the VM's address: the owner, and shares that are not by name.
    pub(super) fn entitled(&self) -> impl Iterator<Item = &Principal> {
        let shares = self.shares.iter().filter(|(_, access)| **access == Access::Slot);
        std::iter::once(&self.owner).chain(shares.map(|(principal, _)| principal))
    }
}

impl Model {
    /// `principals` and, of teams, the members who see what the team sees. Sorted, each once.
    pub(super) fn viewers<'a>(
        &self,
        principals: impl IntoIterator<Item = &'a Principal>,
    ) -> Vec<PrincipalIx> {
        let mut viewers = Vec::new();
        for principal in principals {
            let Some(ix) = self.principal_ix(principal) else { continue };
            viewers.push(ix);
            let members = self.reach(ix).map_or(&[][..], |reach| &reach.members);
            let seeing = members.iter().filter(|(_, access)| *access == Access::Slot);
            viewers.extend(seeing.map(|(user, _)| *user));
        }
        viewers.sort_unstable();
        viewers.dedup();
        viewers
    }

    /// The principals whose slots a viewer sees: the viewer, and the teams a user is in with
    /// slots. Without `but`.
    pub(super) fn seen_through(
        &self,
        viewer: PrincipalIx,
        but: Option<PrincipalIx>,
    ) -> impl Iterator<Item = PrincipalIx> + '_ {
        let teams = self.reach(viewer).map_or(&[][..], |reach| &reach.teams);
        let teams = teams.iter().filter(|(_, access)| *access == Access::Slot);
        std::iter::once(viewer)
            .chain(teams.map(|(team, _)| *team))
            .filter(move |principal| Some(*principal) != but)
    }

    /// All that `viewer` sees, or saw not long ago at `now_s`, through everybody but `but`.
    pub(super) fn seen(
        &self,
        viewer: PrincipalIx,
        but: Option<PrincipalIx>,
        now_s: u64,
    ) -> impl Iterator<Item = Seen> + '_ {
        self.seen_through(viewer, but).flat_map(move |principal| self.slots_of(principal, now_s))
    }

    /// All slots of one principal, and those it had not long ago at `now_s`.
    pub(super) fn slots_of(
        &self,
        principal: PrincipalIx,
        now_s: u64,
    ) -> impl Iterator<Item = Seen> + '_ {
        let reach = self.reach(principal).into_iter();
        reach.flat_map(move |reach| {
            let slots = reach.slots.iter().map(|slot| Seen::of(*slot));
            let quarantined =
                reach.quarantined.iter().filter(move |quarantined| quarantined.lasts(now_s));
            slots.chain(quarantined.map(|quarantined| Seen {
                address: quarantined.address,
                vm: quarantined.vm,
                how: How::Quarantined { until_s: quarantined.until_s },
            }))
        })
    }

    /// Whether the removal of the user or team has begun.
    pub(super) fn is_going(&self, principal: &Principal) -> bool {
        match principal {
            Principal::User(name) => self.users().get(name).is_some_and(|it| it.document.going),
            Principal::Team(name) => self.teams().get(name).is_some_and(|it| it.document.going),
        }
    }

    /// The VMs that a principal owns or was given itself.
    pub(super) fn given(&self, principal: &Principal) -> BTreeSet<Serial> {
        let reach = self.principal_ix(principal).and_then(|ix| self.reach(ix));
        let Some(reach) = reach else { return BTreeSet::new() };
        let slots = reach.slots.iter().map(|slot| slot.vm);
        slots.chain(reach.by_name.iter().copied()).collect()
    }

    /// All VMs that a user or team may enter, through whatever opens a way, each once, by serial.
    #[must_use]
    pub fn visible_to(&self, principal: &Principal) -> BTreeSet<Serial> {
        let mut all = BTreeSet::new();
        let mut add = |ix: PrincipalIx| {
            if let Some(reach) = self.reach(ix) {
                all.extend(reach.slots.iter().map(|slot| slot.vm));
                all.extend(reach.by_name.iter().copied());
            }
        };
        if let Some(ix) = self.principal_ix(principal) {
            add(ix);
            let teams = self.reach(ix).map_or(&[][..], |reach| &reach.teams);
            for (team, _) in teams {
                add(*team);
            }
        }
        all
    }

    /// The teams that a user is in, by name.
    #[must_use]
    pub fn teams_of(&self, user: &Label) -> BTreeMap<&Label, Access> {
        let ix = self.principal_ix(&Principal::User(user.clone()));
        let teams = ix.and_then(|ix| self.reach(ix)).map_or(&[][..], |reach| &reach.teams);
        let named = |(team, access): &(PrincipalIx, Access)| {
            self.reach(*team).map(|team| (team.name.label(), *access))
        };
        teams.iter().filter_map(named).collect()
    }

    /// The VMs that answer at an address, by serial; nothing if it does not stand.
    #[must_use]
    pub fn vms_at(&self, address: &Label) -> Option<&BTreeSet<Serial>> {
        let site = self.site(self.address_ix(address)?)?;
        site.stored.as_ref().map(|_| &site.vms)
    }

    /// Teams and the users who see what they see.
    pub fn seeing_members(&self) -> impl Iterator<Item = (&Label, &Label)> {
        self.teams().iter().flat_map(|(team, stored)| {
            let members = stored.document.members.iter();
            let seeing = members.filter(|(_, access)| **access == Access::Slot);
            seeing.map(move |(user, _)| (team, user))
        })
    }

    /// The ways of another history, and the same for each of the users who had them by being in a
    /// team there (team, user) and are not in it here: what is remembered of the team is not
    /// remembered of them.
    #[must_use]
    pub fn with_members<'a>(
        &self,
        mut ways: Vec<Way>,
        members: impl IntoIterator<Item = (&'a Label, &'a Label)>,
    ) -> Vec<Way> {
        let mut gone: BTreeMap<&Label, Vec<&Label>> = BTreeMap::new();
        for (team, user) in members {
            let here = self.teams().get(team).and_then(|it| it.document.members.get(user));
            if here != Some(&Access::Slot) {
                gone.entry(team).or_default().push(user);
            }
        }
        let theirs = ways.iter().flat_map(|way| {
            let users = match &way.principal {
                Principal::Team(team) => gone.get(team).map_or(&[][..], Vec::as_slice),
                Principal::User(_) => &[],
            };
            users.iter().map(|user| {
                let principal = Principal::User((*user).clone());
                // It is no owner of what the team had.
                Way { principal, endpoint: None, ..way.clone() }
            })
        });
        let theirs: Vec<Way> = theirs.collect();
        ways.extend(theirs);
        ways
    }

    /// Every way that there is, or was until not long ago.
    #[must_use]
    pub fn ways(&self) -> Vec<Way> {
        let mut ways = Vec::new();
        for reach in self.reaches() {
            for slot in &reach.slots {
                let Some(site) = self.site(slot.address) else { continue };
                let (principal, address) = (reach.name.clone(), site.name.clone());
                let vm = self.vm(slot.vm).filter(|vm| vm.document.owner == principal);
                let endpoint = vm.map(|vm| vm.document.ssh.clone());
                ways.push(Way { principal, address, vm: slot.vm, until_s: None, endpoint });
            }
        }
        for (principal, quarantined) in self.quarantined() {
            for QuarantinedSlot { address, vm, until_s, endpoint } in quarantined.iter().cloned() {
                let (principal, until_s) = (principal.clone(), Some(until_s));
                ways.push(Way { principal, address, vm, until_s, endpoint });
            }
        }
        ways
    }
}

impl Reach {
    /// The VMs that were given, some of them twice.
    pub(super) fn vms(&self) -> impl Iterator<Item = Serial> + '_ {
        self.slots.iter().map(|slot| slot.vm).chain(self.by_name.iter().copied())
    }
}

impl Seen {
    const fn of(slot: Slot) -> Self {
        let how = if slot.until_s.is_some() { How::Old } else { How::Now };
        Self { address: slot.address, vm: slot.vm, how }
    }
}
