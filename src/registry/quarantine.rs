//! The quarantine: a slot, {principal, address}, that led to a VM points at no other one
//! until its quarantine is over, because somebody's resolver, known_hosts or shell history
//! may still mean the first.
//!
//! A draft puts in quarantine whatever its writes take from somebody. It is enforced in the
//! allocator: an address is chosen by [`Quarantined::is_quarantined_for`], and
//! `Model::collisions`, which every other check of an address asks, counts what is quarantined.
//! Time gives a slot free, or the same owner's VM at the same endpoint. What a registry that was
//! lost had given out comes here by [`Draft::quarantine_ways`], and where not even that is known no
//! new way is opened at all.

use std::collections::{HashMap, HashSet};

use super::access::How;
use super::command::{Placement, Way as KnownWay};
use super::document::{Access, Document, Key, QuarantinedSlot, Serial, Stored};
use super::draft::Draft;
use super::model::Model;
use super::name::{Label, Principal};
use super::opened::{Opened, Way, ways};
use super::reach::Quarantined;
use super::refusal::Refusal;

impl Model {
    /// What each principal must not see again yet.
    pub fn quarantined(&self) -> impl Iterator<Item = (&Principal, &[QuarantinedSlot])> {
        self.quarantined.iter().map(|(principal, stored)| (principal, &*stored.document))
    }

    /// Indexes what is quarantined for a principal, in place of what was.
    pub(super) fn put_quarantined(
        &mut self,
        principal: &Principal,
        new: Option<Stored<Vec<QuarantinedSlot>>>,
    ) -> Option<(Document, u64)> {
        let ix = self.intern_principal(principal);
        let old = self.quarantined.remove(principal);
        let mut now = Vec::new();
        for quarantine in new.iter().flat_map(|new| &new.document) {
            let address = self.intern_address(&quarantine.address);
            now.push(Quarantined { address, vm: quarantine.vm, until_s: quarantine.until_s });
            if let Some(site) = self.sites.get_mut(address.index()) {
                site.quarantined += 1;
            }
        }
        let before = self.reach_mut(ix).map(|reach| std::mem::replace(&mut reach.quarantined, now));
        for quarantine in before.unwrap_or_default() {
            if let Some(site) = self.sites.get_mut(quarantine.address.index()) {
                site.quarantined = site.quarantined.saturating_sub(1);
            }
        }
        let aging = Key::Quarantine(principal.clone());
        if let Some(new) = new {
            self.quarantined.insert(principal.clone(), new);
            self.aging.insert(aging);
        } else {
            self.aging.remove(&aging);
        }
        old.map(|old| (Document::Quarantine(old.document), old.revision))
    }

    /// Unix time until which nobody is given a slot that they have not, if that is after `now_s`.
    #[must_use]
    pub fn closed_until_s(&self, now_s: u64) -> Option<u64> {
        let until_s = self.whole.as_ref()?.document.no_new_slots_until_s?;
        (until_s > now_s).then_some(until_s)
    }
}

impl Draft<'_> {
    /// What the draft's write of a document takes from somebody who had it when the draft began.
    /// `before` stood there until the write, `now` is what stands there.
    pub(super) fn quarantine_lost(&mut self, key: &Key, before: &Document, now: Opened) {
        let until_s = self.stamp().now_s.saturating_add(self.model().limits().quarantine_s);
        // A way that this same draft had opened was never used by anybody.
        let first = Opened::by(self.began_with(key));
        match (key, before) {
            (Key::Vm(serial), Document::Vm(vm)) => {
                let goes = matches!(now, Opened::Nothing);
                let now = now.into_ways();
                let lost = first.into_ways().into_iter().filter(|way| !now.contains(way));
                let mut lost: Vec<Way> = lost.collect();
                lost.sort();
                for (principal, address) in lost {
                    let endpoint = (goes && principal == vm.owner).then(|| vm.ssh.clone());
                    let slot = QuarantinedSlot { address, vm: *serial, until_s, endpoint };
                    self.quarantine(&principal, slot);
                }
            }
            (Key::Team(name), Document::Team(_)) => {
                let (first, now) = (first.into_members(), now.into_members());
                let saw = |(_, access): &(&Label, &Access)| **access == Access::Slot;
                let left = first.iter().filter(saw).map(|(user, _)| user);
                let team = Principal::Team(name.clone());
                for user in left.filter(|user| now.get(*user) != Some(&Access::Slot)) {
                    self.quarantine_left(&team, user, until_s);
                }
            }
            _ => {}
        }
    }

    /// Who leaves a team loses its slots, and takes along what the team must not meet yet.
    fn quarantine_left(&mut self, team: &Principal, user: &Label, until_s: u64) {
        let Some(reach) = self.model().principal_ix(team).and_then(|ix| self.model().reach(ix))
        else {
            return;
        };
        let name = |address| self.model().site(address).map(|site| site.name.clone());
        let quarantine = |address, vm, until_s| {
            Some(QuarantinedSlot { address: name(address)?, vm, until_s, endpoint: None })
        };
        let slots =
            reach.slots.iter().filter_map(|slot| quarantine(slot.address, slot.vm, until_s));
        let now_s = self.stamp().now_s;
        let quarantined = reach.quarantined.iter().filter(|slot| slot.lasts(now_s));
        let quarantined =
            quarantined.filter_map(|slot| quarantine(slot.address, slot.vm, slot.until_s));
        let all: Vec<QuarantinedSlot> = slots.chain(quarantined).collect();
        self.quarantine_all(&Principal::User(user.clone()), all);
    }

    pub(super) fn quarantine(&mut self, principal: &Principal, quarantine: QuarantinedSlot) {
        self.quarantine_all(principal, vec![quarantine]);
    }

    /// Takes the time of what is quarantined of the principal and of `more`, not of one
    /// times the other.
    fn quarantine_all(&mut self, principal: &Principal, more: Vec<QuarantinedSlot>) {
        if more.is_empty() {
            return;
        }
        let key = Key::Quarantine(principal.clone());
        let mut quarantined = match self.model().get(&key) {
            Some((Document::Quarantine(quarantined), _)) => quarantined,
            _ => Vec::new(),
        };
        // What is over takes no room.
        quarantined.retain(|other| other.lasts(self.stamp().now_s));
        let way = |quarantine: &QuarantinedSlot| (quarantine.address.clone(), quarantine.vm);
        let mut places: HashMap<(Label, Serial), usize> =
            quarantined.iter().map(way).zip(0..).collect();
        for quarantine in more {
            if let Some(other) =
                places.get(&way(&quarantine)).and_then(|at| quarantined.get_mut(*at))
            {
                other.until_s = other.until_s.max(quarantine.until_s);
                other.endpoint = quarantine.endpoint.or(other.endpoint.take());
            } else {
                places.insert(way(&quarantine), quarantined.len());
                quarantined.push(quarantine);
            }
        }
        self.write(&key, Some(Document::Quarantine(quarantined)));
    }

    /// Releases what is over.
    pub(super) fn release_quarantined(&mut self, principal: &Principal) {
        let key = Key::Quarantine(principal.clone());
        let Some((Document::Quarantine(mut quarantined), _)) = self.model().get(&key) else {
            return;
        };
        let count = quarantined.len();
        quarantined.retain(|quarantine| quarantine.lasts(self.stamp().now_s));
        if quarantined.is_empty() {
            self.write(&key, None);
        } else if quarantined.len() < count {
            self.write(&key, Some(Document::Quarantine(quarantined)));
        }
    }

    /// What is quarantined for the owner of a VM that was removed at the same endpoint: the new one
    /// is that one, and nobody is led astray where it stood.
    pub(super) fn own_quarantined(
        &self,
        owner: &Principal,
        ssh: &str,
        placement: &Placement,
    ) -> Option<QuarantinedSlot> {
        let (document, _) = self.model().get(&Key::Quarantine(owner.clone()))?;
        let Document::Quarantine(quarantined) = document else { return None };
        let now_s = self.stamp().now_s;
        let own = quarantined.into_iter().filter(|quarantine| {
            let gone = quarantine.lasts(now_s) && self.model().vm(quarantine.vm).is_none();
            gone && quarantine.endpoint.as_deref() == Some(ssh)
        });
        own.max_by_key(|quarantine| {
            let wanted = matches!(placement, Placement::At(at) if *at == quarantine.address);
            (wanted, quarantine.until_s, quarantine.vm)
        })
    }

    /// Quarantines the ways of another history. A VM that has taken the place of another one since
    /// is moved, if it can be, and a second way there ends: whoever remembers the other one must
    /// not find this one.
    pub(super) fn quarantine_ways(&mut self, ways: &[KnownWay]) -> Result<(), Refusal> {
        let quarantine_s = self.model().limits().quarantine_s;
        let latest_s = self.stamp().now_s.saturating_add(quarantine_s);
        for KnownWay { principal, address, vm: serial, until_s, endpoint } in ways {
            let (serial, until_s) = (*serial, until_s.unwrap_or(latest_s));
            let leads = self.model().vm(serial).is_some_and(|stored| {
                let vm = &stored.document;
                let now = vm.address.as_ref() == Some(address);
                let old = vm.old.iter().filter(|old| old.address == *address);
                (now && vm.entitled().any(|it| it == principal))
                    || old.flat_map(|old| &old.principals).any(|it| it == principal)
            });
            if leads || until_s <= self.stamp().now_s {
                continue;
            }
            let endpoint = endpoint.clone();
            self.quarantine(
                principal,
                QuarantinedSlot { address: address.clone(), vm: serial, until_s, endpoint },
            );
            let mut others = Vec::new();
            if let Some(at) = self.model().address_ix(address) {
                for viewer in self.model().viewers([principal]) {
                    let seen = self.model().seen(viewer, None, self.stamp().now_s);
                    let here = seen.filter(|seen| seen.address == at && seen.vm != serial);
                    others.extend(here.map(|seen| (seen.vm, seen.how)));
                }
            }
            others.sort_unstable_by_key(|(other, _)| *other);
            others.dedup();
            for (other, how) in others {
                match how {
                    How::Now => {
                        if self.renumber(other, &Placement::Chosen).is_err() {
                            // No address is free: entered by name it can mislead nobody.
                            let _known = self.renumber(other, &Placement::Nowhere);
                        }
                    }
                    How::Old => {
                        let mut vm = self.vm(other)?;
                        vm.forget_ways(|old, _| old == address);
                        self.put_vm(other, vm);
                    }
                    How::Quarantined { .. } => {}
                }
            }
        }
        Ok(())
    }

    /// While too little is known of a registry that was lost, nobody is given a way that they had
    /// not when the draft began.
    ///
    /// # Errors
    /// [`Refusal::Closed`].
    pub(super) fn open_no_new_way(&self) -> Result<(), Refusal> {
        let Some(until_s) = self.model().closed_until_s(self.stamp().now_s) else { return Ok(()) };
        let refused = |principal: &Principal, address: &Label| {
            let (principal, address) = (principal.clone(), address.clone());
            Err(Refusal::Closed { principal, address, until_s })
        };
        for (key, before) in self.written() {
            match (key, self.model().get(key).map(|(document, _)| document)) {
                (Key::Vm(_), Some(Document::Vm(vm))) => {
                    let had = match before {
                        Some(Document::Vm(before)) => ways(before),
                        _ => HashSet::new(),
                    };
                    let new = ways(&vm).into_iter().filter(|way| !had.contains(way)).min();
                    if let Some((principal, address)) = new {
                        return refused(&principal, &address);
                    }
                }
                (Key::Team(name), Some(Document::Team(team))) => {
                    let had = |user: &Label| match before {
                        Some(Document::Team(before)) => {
                            before.members.get(user) == Some(&Access::Slot)
                        }
                        _ => false,
                    };
                    let ix = self.model().principal_ix(&Principal::Team(name.clone()));
                    let slot = ix.and_then(|ix| self.model().reach(ix)?.slots.first());
                    let Some(site) = slot.and_then(|slot| self.model().site(slot.address)) else {
                        continue;
                    };
                    let mut members = team.members.iter();
                    let new = members.find(|(user, access)| **access == Access::Slot && !had(user));
                    if let Some((user, _)) = new {
                        return refused(&Principal::User(user.clone()), &site.name);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
