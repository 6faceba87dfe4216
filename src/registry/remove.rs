//! Takes away: users, teams, VMs, and what time ends. Much may hang on one of them, more than one transaction holds, so
//! each goes in parts if need be. The first part ends all that somebody could enter by, each part leaves a registry that
//! is whole, and the same command goes on where the last part ended, after a crash too.

use std::collections::BTreeSet;

use super::document::{Key, Vm, VmState};
use super::draft::{Draft, Progress};
use super::execute::Done;
use super::name::{Label, Principal};
use super::refusal::{Kind, Refusal};

impl Draft<'_> {
    /// Without keys nobody is the user any more, whatever is left.
    pub(super) fn user_remove(&mut self, name: &Label) -> Done {
        let mut user = self.user(name)?;
        let principal = Principal::User(name.clone());
        self.own_nothing(&principal, Kind::User)?;
        if self.unshare_all(&principal) && self.leave_all(name)? {
            self.put(&Key::User(name.clone()), None);
        } else {
            user.keys.clear();
            self.put_user(name, user);
            self.report.progress = Progress::Begun;
        }
        Ok(())
    }

    /// The VMs first: what led members to them is the team's to hold, and members who leave take that along.
    pub(super) fn team_remove(&mut self, name: &Label) -> Done {
        let mut team = self.team(name)?;
        let principal = Principal::Team(name.clone());
        self.own_nothing(&principal, Kind::Team)?;
        if self.unshare_all(&principal) && team.members.len() <= self.room() {
            self.put(&Key::Team(name.clone()), None);
            return Ok(());
        }
        self.report.progress = Progress::Begun;
        let mut room = self.room();
        team.members.retain(|_, _| {
            let stays = room == 0;
            room = room.saturating_sub(1);
            stays
        });
        self.put_team(name, team);
        Ok(())
    }

    /// Whoever could enter must meet no other VM there soon, which is a document for each.
    pub(super) fn vm_remove(&mut self, name: &Label) -> Done {
        let (serial, mut vm) = self.named(name)?;
        let old = vm.old.iter().flat_map(|old| &old.principals);
        let others: BTreeSet<&Principal> =
            vm.shares.keys().chain(old).filter(|principal| **principal != vm.owner).collect();
        if others.len() <= self.room() {
            self.put(&Key::Vm(serial), None);
            return Ok(());
        }
        let gone: BTreeSet<Principal> = others.into_iter().take(self.room()).cloned().collect();
        vm.shares.retain(|principal, _| !gone.contains(principal));
        vm.forget_ways(|_, principal| gone.contains(principal));
        vm.state = VmState::Maint;
        self.put_vm(serial, vm);
        self.report.progress = Progress::Begun;
        Ok(())
    }

    fn own_nothing(&self, principal: &Principal, kind: Kind) -> Done {
        let owned = self.model().given(principal).into_iter().filter_map(|serial| {
            let vm = &self.model().vm(serial)?.document;
            (vm.owner == *principal).then(|| vm.name.clone())
        });
        let owned: Vec<Label> = owned.collect();
        let Some(first) = owned.first() else { return Ok(()) };
        let more =
            if owned.len() > 1 { format!(" and {} more", owned.len() - 1) } else { String::new() };
        Err(Refusal::InUse {
            kind,
            name: principal.label().to_string(),
            by: format!("owns VM `{first}`{more}"),
            fix: "transfer or remove them first (`keyway vm transfer`, `keyway vm rm`)".to_owned(),
        })
    }

    /// False if there was no room for all.
    fn unshare_all(&mut self, principal: &Principal) -> bool {
        for serial in self.model().given(principal) {
            if self.room() == 0 {
                return false;
            }
            let Ok(mut vm) = self.vm(serial) else { continue };
            vm.shares.remove(principal);
            vm.forget_ways_of(principal);
            self.put_vm(serial, vm);
        }
        true
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
    pub(super) fn sweep(&mut self) {
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
                Key::Hold(principal) => self.forget_holds(&principal),
                Key::Address(_) | Key::Team(_) | Key::Token(_) | Key::User(_) => {}
            }
        }
    }
}

impl Vm {
    pub(super) fn forget_ways_of(&mut self, gone: &Principal) {
        self.forget_ways(|_, principal| principal == gone);
    }

    /// Ends the second ways for which `gone` says so.
    pub(super) fn forget_ways(&mut self, gone: impl Fn(&Label, &Principal) -> bool) {
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
