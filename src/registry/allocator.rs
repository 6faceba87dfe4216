//! Finds an address for a VM: one at which nobody who may enter it sees another VM, or saw
//! one not long ago.

use std::collections::HashSet;

use super::access::How;
use super::document::{Access, AddressState, Serial};
use super::model::Model;
use super::name::{Label, Principal};
use super::reach::{AddressIx, PrincipalIx, Reach, Site, Slot};
use super::refusal::{Collision, Kind, Refusal, WayOut};

impl Model {
    /// The least loaded ready address that is free for all of `viewers`, by name among equals.
    /// Takes time in proportion to what they see and to the pool.
    ///
    /// # Errors
    /// [`Refusal::Exhausted`] names who sees the most.
    pub(super) fn choose_address(
        &self,
        vm: Serial,
        viewers: &[PrincipalIx],
        now_s: u64,
    ) -> Result<Label, Refusal> {
        self.choose_address_except(vm, viewers, now_s, None)
    }

    /// As [`Model::choose_address`], without one address.
    pub(super) fn choose_address_except(
        &self,
        vm: Serial,
        viewers: &[PrincipalIx],
        now_s: u64,
        but: Option<&Label>,
    ) -> Result<Label, Refusal> {
        let mut taken = vec![false; self.sites().len()];
        // Plain loops: of a team of a thousand this is nearly all that a VM costs, and half of it
        // if they are chained.
        let mut take = |reach: &Reach| {
            for Slot { address, .. } in reach.slots.iter().filter(|slot| slot.vm != vm) {
                if let Some(taken) = taken.get_mut(address.index()) {
                    *taken = true;
                }
            }
            for slot in &reach.quarantined {
                if slot.is_quarantined_for(vm, now_s)
                    && let Some(taken) = taken.get_mut(slot.address.index())
                {
                    *taken = true;
                }
            }
        };
        let mut teams = Vec::with_capacity(viewers.len());
        for reach in viewers.iter().filter_map(|viewer| self.reach(*viewer)) {
            take(reach);
            for (team, access) in &reach.teams {
                if *access == Access::Slot {
                    teams.push(*team);
                }
            }
        }
        // Members of one team share others too: each team is looked at once, and each
        // viewer is another.
        teams.sort_unstable();
        teams.dedup();
        for team in teams {
            self.reach(team).into_iter().for_each(&mut take);
        }
        let free = self
            .sites()
            .iter()
            .zip(taken)
            .filter(|(site, taken)| !taken && site.takes_vms() && Some(&site.name) != but);
        let least = free.map(|(site, _)| site).min_by_key(|site| (site.vms.len(), &site.name));
        match least {
            Some(site) => Ok(site.name.clone()),
            None => Err(self.exhausted(viewers, now_s)),
        }
    }

    fn exhausted(&self, viewers: &[PrincipalIx], now_s: u64) -> Refusal {
        let ready = self.sites().iter().filter(|site| site.takes_vms()).count();
        // A user rather than the team that the user is in, and the first of equals.
        let mut most: Option<((usize, usize), PrincipalIx)> = None;
        for viewer in viewers {
            let least = most.map_or(0, |((sees, quarantined), _)| sees + quarantined + 1);
            if self.seen_at_most(*viewer) >= least {
                let (sees, quarantined) = self.counted(*viewer, now_s);
                if sees + quarantined >= least {
                    most = Some(((sees, quarantined), *viewer));
                }
            }
        }
        let name = |viewer| self.reach(viewer).map(|reach| reach.name.clone());
        let named = most.and_then(|(counts, viewer)| Some((counts, name(viewer)?)));
        match named {
            Some(((sees, quarantined), principal)) => {
                Refusal::Exhausted { principal, sees, quarantined, ready }
            }
            // Every VM has an owner, who is a viewer.
            None => Refusal::invalid("nobody would see the VM", "give it an owner"),
        }
    }

    /// VMs that `viewer` sees, and addresses at which it saw one not long ago.
    fn counted(&self, viewer: PrincipalIx, now_s: u64) -> (usize, usize) {
        let (mut sees, mut quarantined) = (Vec::new(), Vec::new());
        for seen in self.seen(viewer, None, now_s) {
            match seen.how {
                How::Now | How::Old => sees.push(seen.vm),
                How::Quarantined { .. } => quarantined.push(seen.address),
            }
        }
        sees.sort_unstable();
        sees.dedup();
        quarantined.sort_unstable();
        quarantined.dedup();
        (sees.len(), quarantined.len())
    }

    /// No less than both of [`Model::counted`] together, at little cost.
    fn seen_at_most(&self, viewer: PrincipalIx) -> usize {
        let principals = self.seen_through(viewer, None);
        let reaches = principals.filter_map(|principal| self.reach(principal));
        reaches.map(|reach| reach.slots.len() + reach.quarantined.len()).sum()
    }

    /// Whether `vm` can stand at the address of this name for all of `viewers`.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::NotReady`], [`Refusal::Conflict`].
    pub(super) fn fits(
        &self,
        (vm, name): (Serial, &Label),
        at: &Label,
        viewers: &[PrincipalIx],
        now_s: u64,
    ) -> Result<(), Refusal> {
        let unknown = || Refusal::unknown(Kind::Address, at);
        let ix = self.address_ix(at).ok_or_else(unknown)?;
        let stored = self.site(ix).and_then(|site| site.stored.as_ref()).ok_or_else(unknown)?;
        let not = |why| Err(Refusal::NotReady { address: at.clone(), why });
        if stored.document.lobby {
            return not("the lobby");
        }
        match stored.document.state {
            AddressState::Ready => {}
            AddressState::Drain => return not("being drained"),
            AddressState::Maint => return not("in maintenance"),
        }
        let mut collisions = Vec::new();
        for viewer in viewers {
            collisions.extend(self.collisions(*viewer, None, (vm, name, ix), now_s));
        }
        if collisions.is_empty() {
            return Ok(());
        }
        let (collisions, way_out) = (shown(collisions), WayOut::AnotherAddress);
        Err(Refusal::Conflict { collisions, way_out })
    }

    /// What `viewer` sees at an address beside `vm`, or saw there until its quarantine is over,
    /// through everybody but `but`.
    pub(super) fn collisions<'a>(
        &'a self,
        viewer: PrincipalIx,
        but: Option<PrincipalIx>,
        (vm, name, at): (Serial, &'a Label, AddressIx),
        now_s: u64,
    ) -> impl Iterator<Item = Clash> + 'a {
        let others = self.seen(viewer, but, now_s);
        let others = others.filter(move |seen| seen.address == at && seen.vm != vm);
        others.filter_map(move |seen| {
            let other = self.vm(seen.vm).map(|other| other.document.name.clone());
            let quarantined_until_s = match seen.how {
                How::Now => None,
                How::Old => other.is_none().then_some(now_s),
                How::Quarantined { until_s } => Some(until_s),
            };
            let principal: Principal = self.reach(viewer)?.name.clone();
            let address = self.site(at)?.name.clone();
            let told =
                Collision { principal, vm: name.clone(), address, other, quarantined_until_s };
            Some(Clash { vm, told })
        })
    }
}

impl Site {
    /// Whether a VM may be put here.
    pub(super) fn takes_vms(&self) -> bool {
        self.stored.as_ref().is_some_and(|stored| {
            stored.document.state == AddressState::Ready && !stored.document.lobby
        })
    }
}

/// A [`Collision`] and the VM that can be moved.
#[derive(Clone, Debug)]
pub(super) struct Clash {
    pub(super) vm: Serial,
    pub(super) told: Collision,
}

/// Each pair of VMs once, for its first principal.
pub(super) fn shown(clashes: Vec<Clash>) -> Vec<Collision> {
    let mut told = HashSet::new();
    let first = |clash: &Clash| {
        let Collision { vm, address, other, .. } = &clash.told;
        told.insert((vm.clone(), address.clone(), other.clone()))
    };
    let mut clashes = clashes;
    clashes.retain(first);
    clashes.into_iter().map(|clash| clash.told).collect()
}
