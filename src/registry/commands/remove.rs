//! Takes away: users, teams, VMs, and what time ends. Much may hang on one of them, more than one
//! transaction holds, so each goes in parts if need be. The first part ends all that somebody could
//! enter by, each part leaves a registry that is whole, and the same command goes on where the last
//! part ended, after a crash too. A part costs what it writes, however much is left.

use std::collections::BTreeSet;

use super::Done;
use crate::plural::count;
use crate::registry::document::{Key, Serial, Vm, VmState};
use crate::registry::draft::{Draft, Progress};
use crate::registry::name::{Label, Principal};
use crate::registry::reach::Reach;
use crate::registry::refusal::{Kind, Refusal};

/// VMs that are looked at for the name of one that is owned, of a principal who may have been
/// given a million.
const LOOKED_AT_MAX: usize = 4096;

impl Draft<'_> {
    /// A user who goes has no keys and is let in by no certificate, whatever is left.
    pub(in crate::registry) fn user_remove(&mut self, name: &Label) -> Done {
        let mut user = self.user(name)?;
        let principal = Principal::User(name.clone());
        self.own_nothing(&principal, Kind::User)?;
        if self.unshare_all(&principal) && self.leave_all(name)? {
            self.put(&Key::User(name.clone()), None);
        } else {
            if !user.going {
                user.keys.clear();
                user.going = true;
                self.put_user(name, user);
            }
            self.begun(&principal);
        }
        Ok(())
    }

    /// The VMs first: what led members to them is the team's to hold, and members who leave take
    /// that along. Until then a team that goes lets nobody in.
    pub(in crate::registry) fn team_remove(&mut self, name: &Label) -> Done {
        let mut team = self.team(name)?;
        let principal = Principal::Team(name.clone());
        self.own_nothing(&principal, Kind::Team)?;
        if self.unshare_all(&principal) && team.members.len() <= self.room() {
            self.put(&Key::Team(name.clone()), None);
            return Ok(());
        }
        let mut room = self.room();
        if room == 0 && team.going {
            self.begun(&principal);
            return Ok(());
        }
        team.going = true;
        team.members.retain(|_, _| {
            let stays = room == 0;
            room = room.saturating_sub(1);
            stays
        });
        self.put_team(name, team);
        self.begun(&principal);
        Ok(())
    }

    fn begun(&mut self, principal: &Principal) {
        let reach = self.model().principal_ix(principal).and_then(|ix| self.model().reach(ix));
        let left = reach
            .map_or(0, |it| it.slots.len() + it.by_name.len() + it.teams.len() + it.members.len());
        self.report.progress = Progress::Begun;
        self.report.left = left;
    }

    /// Whoever could enter must meet no other VM there soon, which is a document for each.
    pub(in crate::registry) fn vm_remove(&mut self, name: &Label) -> Done {
        let (serial, mut vm) = self.named(name)?;
        let old = vm.old.iter().flat_map(|old| &old.principals);
        let others: BTreeSet<&Principal> =
            vm.shares.keys().chain(old).filter(|principal| **principal != vm.owner).collect();
        if others.len() <= self.room() {
            self.put(&Key::Vm(serial), None);
            return Ok(());
        }
        self.report.left = others.len() - self.room();
        let gone: BTreeSet<Principal> = others.into_iter().take(self.room()).cloned().collect();
        vm.shares.retain(|principal, _| !gone.contains(principal));
        vm.forget_ways(|_, principal| gone.contains(principal));
        vm.state = VmState::Maint;
        self.put_vm(serial, vm);
        self.report.progress = Progress::Begun;
        Ok(())
    }

    fn own_nothing(&self, principal: &Principal, kind: Kind) -> Done {
        let reach = self.model().principal_ix(principal).and_then(|ix| self.model().reach(ix));
        let Some(reach) = reach.filter(|reach| reach.owned > 0) else { return Ok(()) };
        let own = reach.vms().take(LOOKED_AT_MAX).filter_map(|serial| {
            let vm = &self.model().vm(serial)?.document;
            (vm.owner == *principal).then_some(&vm.name)
        });
        let by = match (own.min(), reach.owned) {
            (Some(one), 1) => format!("owns VM `{one}`"),
            (Some(one), owned) => format!("owns VM `{one}` and {} more", owned - 1),
            (None, owned) => format!("owns {}", count(owned, "VM")),
        };
        Err(Refusal::InUse {
            kind,
            name: principal.label().to_string(),
            by,
            fix: "transfer or remove them first (`keyway vm transfer`, `keyway vm rm`)".to_owned(),
        })
    }

    /// False if there was no room for all. Of what was given the first are taken: what is left
    /// moves up to their places.
    fn unshare_all(&mut self, principal: &Principal) -> bool {
        let Some(ix) = self.model().principal_ix(principal) else { return true };
        let room = self.room();
        let reach = self.model().reach(ix).into_iter();
        let some: Vec<Serial> = reach.flat_map(Reach::vms).take(room).collect();
        for serial in some {
            if self.room() == 0 {
                return false;
            }
            let Ok(mut vm) = self.vm(serial) else { continue };
            vm.shares.remove(principal);
            vm.forget_ways_of(principal);
            self.put_vm(serial, vm);
        }
        self.model().reach(ix).is_none_or(|reach| reach.vms().next().is_none())
    }

    /// False if there was no room for all.
    fn leave_all(&mut self, name: &Label) -> Result<bool, Refusal> {
        let teams: Vec<Label> = self.model().teams_of(name).into_keys().cloned().collect();
        for team in teams {
            if self.room() == 0 {
                return Ok(false);
            }
            let mut document = self.team(&team)?;
            document.members.remove(name);
            self.put_team(&team, document);
        }
        Ok(true)
    }

    /// What has no room is for the next sweep, which follows at once.
    pub(in crate::registry) fn sweep(&mut self) {
        let now_s = self.stamp().now_s;
        let aging: Vec<Key> = self.model().aging.iter().cloned().collect();
        for key in aging {
            let mut room = self.room();
            if room == 0 {
                return;
            }
            match key {
                Key::Vm(serial) => {
                    let Ok(mut vm) = self.vm(serial) else { continue };
                    if vm.old.iter().all(|old| old.until_s > now_s) {
                        continue;
                    }
                    // Each of them holds the way that ends.
                    for old in vm.old.iter_mut().filter(|old| old.until_s <= now_s) {
                        let gone = old.principals.len().min(room);
                        old.principals.drain(..gone);
                        room -= gone;
                    }
                    vm.old.retain(|old| !old.principals.is_empty());
                    self.put_vm(serial, vm);
                }
                Key::Quarantine(principal) => self.release_quarantined(&principal),
                Key::Address(_)
                | Key::Edge(_)
                | Key::Node(_)
                | Key::NodeState(_)
                | Key::Registry
                | Key::Team(_)
                | Key::Token(_)
                | Key::User(_) => {}
            }
        }
    }
}

impl Vm {
    pub(in crate::registry) fn forget_ways_of(&mut self, gone: &Principal) {
        self.forget_ways(|_, principal| principal == gone);
    }

    /// Ends the second ways for which `gone` says so.
    pub(in crate::registry) fn forget_ways(&mut self, gone: impl Fn(&Label, &Principal) -> bool) {
        for old in &mut self.old {
            let address = old.address.clone();
            old.principals.retain(|principal| !gone(&address, principal));
        }
        self.old.retain(|old| !old.principals.is_empty());
    }
}

#[cfg(test)]
#[path = "remove_tests.rs"]
mod tests;
