//! Teams and who is in them.

use super::{Done, limit, taken};
use crate::registry::command::Options;
use crate::registry::document::{Access, Team};
use crate::registry::draft::Draft;
use crate::registry::name::{Label, Principal};
use crate::registry::refusal::Refusal;
use crate::route::TEAMS_MAX;

/// Members of one team: its document stays well under a store's limit for one value.
pub(in crate::registry) const MEMBERS_MAX: usize = 10_000;

impl Draft<'_> {
    pub(super) fn team_add(&mut self, name: &Label, members: &[Label], options: Options) -> Done {
        if self.model().teams().contains_key(name) {
            self.known(&Principal::Team(name.clone()))?;
            return taken(name, "another team");
        }
        self.put_team(name, Team { origin: options.origin, ..Team::default() });
        for member in members {
            self.join(name, member, Access::Slot, options)?;
        }
        Ok(())
    }

    pub(super) fn join(
        &mut self,
        name: &Label,
        user: &Label,
        access: Access,
        options: Options,
    ) -> Done {
        self.known(&Principal::Team(name.clone()))?;
        self.known(&Principal::User(user.clone()))?;
        let mut team = self.team(name)?;
        if team.members.get(user) == Some(&access) {
            return Err(Refusal::Already(format!(
                "`{user}` is already a member of team `{name}` in this way"
            )));
        }
        let newcomer = !team.members.contains_key(user);
        team.members.insert(user.clone(), access);
        limit(team.members.len(), MEMBERS_MAX, || format!("team `{name}` would have members"))?;
        self.put_team(name, team);
        let principal = Principal::User(user.clone());
        let Some(viewer) = self.model().principal_ix(&principal) else { return Ok(()) };
        let teams = self.model().reach(viewer).map_or(0, |reach| reach.teams.len());
        if newcomer && teams > TEAMS_MAX {
            return Err(Refusal::too_many_teams(user, teams));
        }
        if access == Access::ByName {
            return Ok(());
        }
        let team = Principal::Team(name.clone());
        let Some(team_ix) = self.model().principal_ix(&team) else { return Ok(()) };
        let slots = self.model().reach(team_ix).map(|reach| reach.slots.clone());
        let slots = slots.unwrap_or_default();
        // Newcomers get the addresses that the team's VMs have now. A second way that would lead
        // one of them astray ends.
        for slot in slots.iter().filter(|slot| slot.until_s.is_some()) {
            let mut vm = self.vm(slot.vm)?;
            let about = (slot.vm, &vm.name.clone(), slot.address);
            let now_s = self.stamp().now_s;
            let clash = self.model().collisions(viewer, Some(team_ix), about, now_s).next();
            if clash.is_some() {
                let address = self.model().site(slot.address).map(|site| site.name.clone());
                vm.forget_ways(|old, principal| {
                    Some(old) == address.as_ref() && *principal == team
                });
                self.put_vm(slot.vm, vm);
            }
        }
        let now = slots.iter().filter(|slot| slot.until_s.is_none());
        let gained: Vec<_> = now.map(|slot| (viewer, slot.vm)).collect();
        self.settle(&gained, Some(team_ix), options.renumber)
    }

    pub(super) fn leave_team(&mut self, name: &Label, user: &Label) -> Done {
        let mut team = self.team(name)?;
        if team.members.remove(user).is_none() {
            return Err(Refusal::Already(format!("`{user}` is no member of team `{name}`")));
        }
        self.put_team(name, team);
        Ok(())
    }
}
