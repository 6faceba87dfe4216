//! The plan: from what is to what should be, the commands that make a registry say what a fleet
//! says, each with words for people.
//!
//! Pure: a plan is made of a model, and carried out elsewhere ([`execute`](super::execute)). What
//! is equal takes no command, so that a fleet carried out twice takes none the second time. Rights
//! are taken before others are given, but for those that are only had in another way from then on
//! ([`transition`](super::transition)). A new key is there before an old one goes, unless it has to
//! change hands. Which VM is which is said by [`identity`](super::identity); one of the same name
//! with another owner is transferred. What a fleet says nothing of stays: a state that it does not
//! give, the address of a VM that stands, tokens.

use std::collections::HashSet;

use super::desired::{DesiredFleet, Prune, shares};
use super::transition::Transition;
use crate::registry::command::{Command, NewAddress, NewVm, Placement, Thing, VmSettings};
use crate::registry::commands::users::KEYS_MAX;
use crate::registry::document::{Access, AddressState, Key, Origin, UserKey, Vm, VmState};
use crate::registry::fleet::{Fleet, FleetAddress, FleetVm};
use crate::registry::model::Model;
use crate::registry::name::{Label, Principal};
use crate::registry::refusal::Refusal;
use crate::registry::subject::Subject;
use crate::registry::values::{check_host_key, check_login, check_source};
use crate::ssh::publickey::Fingerprint;

/// One command of a plan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// What to carry out.
    pub command: Command,
    /// The same for people.
    pub text: String,
    /// Whose what it makes becomes.
    pub origin: Origin,
}

impl Step {
    /// The name of what it is about.
    #[must_use]
    pub fn subject(&self) -> String {
        match self.command.subject() {
            Some(Subject::Key(key)) => match key {
                Key::Address(name)
                | Key::Node(name)
                | Key::NodeState(name)
                | Key::Team(name)
                | Key::Token(name)
                | Key::User(name) => name.to_string(),
                Key::Edge(_) | Key::Quarantine(_) | Key::Registry | Key::Vm(_) => key.to_string(),
            },
            Some(Subject::Vm(name) | Subject::Edge(name)) => name.to_string(),
            None => String::new(),
        }
    }
}

/// The commands from `model` to `fleet`, in the order in which they can be carried out.
///
/// # Errors
/// [`Refusal::Invalid`]: the fleet contradicts itself, or holds a key that cannot be used. What
/// contradicts the registry is refused command by command.
pub fn plan(fleet: &Fleet, model: &Model, prune: Prune) -> Result<Vec<Step>, Refusal> {
    let wanted = DesiredFleet::new(fleet, model, prune)?;
    let transition = Transition::new(model, &wanted);
    let mut plan = Plan { model, prune, transition, steps: Vec::new() };
    plan.prune_vms(&wanted);
    plan.prune_addresses(&wanted, Stage::Early);
    plan.rename(&wanted)?;
    plan.lend();
    plan.take_rights(&wanted, Stage::Early);
    plan.keys(&wanted);
    plan.addresses(fleet);
    plan.prune_nodes(&wanted, Stage::Early);
    plan.nodes(fleet, Stage::Early);
    plan.edges(fleet, &wanted);
    plan.people(fleet, &wanted);
    plan.vms(fleet, &wanted);
    plan.take_rights(&wanted, Stage::Late);
    plan.take_back(&wanted);
    plan.prune_people(&wanted);
    plan.prune_addresses(&wanted, Stage::Late);
    plan.nodes(fleet, Stage::Late);
    plan.prune_nodes(&wanted, Stage::Late);
    plan.close_addresses(fleet);
    Ok(plan.steps)
}

/// When something goes: at once, or when what depends on it has changed.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Stage {
    Early,
    Late,
}

pub(super) struct Plan<'m> {
    pub(super) model: &'m Model,
    prune: Prune,
    transition: Transition<'m>,
    steps: Vec<Step>,
}

impl Plan<'_> {
    pub(super) fn add(&mut self, command: Command, text: impl Into<String>) {
        self.make(command, text, None);
    }

    /// As [`Plan::add`], for what is made, where the fleet may say whose it is.
    pub(super) fn make(
        &mut self,
        command: Command,
        text: impl Into<String>,
        origin: Option<Origin>,
    ) {
        let origin = if self.claims(origin) { Origin::Fleet } else { Origin::Command };
        self.steps.push(Step { command, text: text.into(), origin });
    }

    fn claims(&self, origin: Option<Origin>) -> bool {
        self.prune == Prune::FromFleet || origin == Some(Origin::Fleet)
    }

    /// What stands and is named becomes the file's.
    pub(super) fn take_over(&mut self, thing: Thing, is: Origin, wanted: Option<Origin>) {
        if is == Origin::Command && self.claims(wanted) {
            let (kind, name) = match &thing {
                Thing::Address(name) => ("address", name),
                Thing::User(name) => ("user", name),
                Thing::Team(name) => ("team", name),
                Thing::Node(name) => ("node", name),
                Thing::Vm(name) => ("VM", name),
            };
            let text = format!("{kind} {name} becomes the fleet file's");
            self.add(Command::TakeOver { thing }, text);
        }
    }

    /// Whether the fleet is the served file, and this is the file's.
    pub(super) fn is_the_files(&self, origin: Origin) -> bool {
        self.prune == Prune::FromFleet && origin == Origin::Fleet
    }

    pub(super) fn prunes(&self, origin: Origin) -> bool {
        self.prune.takes(origin)
    }

    /// Everything behind a rename means the VM by its new name: one that is not free there would
    /// stand for another VM.
    fn rename(&mut self, wanted: &DesiredFleet<'_>) -> Result<(), Refusal> {
        let removed = |step: &Step| {
            let Command::VmRemove { name } = &step.command else { return None };
            Some(name.clone())
        };
        let mut left: HashSet<Label> = self.steps.iter().filter_map(removed).collect();
        for (from, to) in wanted.identities.renamed(self.model) {
            left.insert(from.clone());
            if self.model.vm_names().contains_key(to) && !left.contains(to) {
                let what = format!("VM `{from}` is to be called `{to}`, as another VM is called");
                let fix = "rename or remove that one first; names that are exchanged take a third one in between";
                return Err(Refusal::invalid(what, fix));
            }
            let (name, new) = (from.clone(), to.clone());
            self.add(Command::VmRename { name, to: new }, format!("rename VM {from} to {to}"));
        }
        Ok(())
    }

    fn prune_vms(&mut self, wanted: &DesiredFleet<'_>) {
        let model = self.model;
        for (name, serial) in model.vm_names() {
            let Some(stored) = model.vm(*serial) else { continue };
            let vm = &*stored.document;
            if self.prunes(vm.origin) && wanted.of(*serial, vm).is_none() {
                self.add(Command::VmRemove { name: name.clone() }, format!("remove VM {name}"));
            }
        }
    }

    fn prune_addresses(&mut self, wanted: &DesiredFleet<'_>, stage: Stage) {
        let model = self.model;
        for (name, stored, vms) in model.addresses() {
            let now = if vms == 0 { Stage::Early } else { Stage::Late };
            let goes = !wanted.addresses.contains(name) && self.prunes(stored.document.origin);
            if goes && now == stage {
                let command = Command::AddressRemove { name: name.clone() };
                self.add(command, format!("remove address {name}"));
            }
        }
    }

    /// Shares for those who would have none until their new way is there.
    fn lend(&mut self) {
        for ((vm, user), access) in self.transition.temporary_shares.clone() {
            let (name, with, access) = (vm.clone(), Principal::User(user.clone()), access);
            let text = format!("let user {user} into VM {vm} meanwhile");
            self.add(Command::VmShare { name, with, access }, text);
        }
    }

    /// And no longer, where they are not to stay.
    fn take_back(&mut self, wanted: &DesiredFleet<'_>) {
        for (vm, user) in self.transition.temporary_shares.clone().into_keys() {
            let with = Principal::User(user.clone());
            let stays = wanted.vms.get(vm).is_some_and(|vm| {
                vm.owner == with || shares(vm).is_ok_and(|shares| shares.contains_key(&with))
            });
            if !stays {
                let text = format!("user {user} is in VM {vm} by other means now");
                self.add(Command::VmUnshare { name: vm.clone(), with }, text);
            }
        }
    }

    /// Shares and memberships that are no more.
    fn take_rights(&mut self, wanted: &DesiredFleet<'_>, stage: Stage) {
        let model = self.model;
        let goes_in = |late: bool| late == (stage == Stage::Late);
        for serial in model.vm_names().values() {
            let Some(stored) = model.vm(*serial) else { continue };
            let Vm { shares, owner, .. } = &*stored.document;
            let Some(vm) = wanted.of(*serial, &stored.document) else { continue };
            let name = &vm.name;
            let kept: HashSet<&Principal> = vm.shares.iter().chain(&vm.shares_by_name).collect();
            // Whoever becomes the owner needs no share, and a transfer takes it.
            let gone = shares.keys().filter(|with| !kept.contains(with) && **with != vm.owner);
            // Who owned it was left a share by the transfer.
            let owned = std::iter::once(owner).filter(|_| stage == Stage::Late);
            for with in gone.chain(owned) {
                if goes_in(self.transition.late_shares.contains(&(name, with))) {
                    let command = Command::VmUnshare { name: name.clone(), with: with.clone() };
                    self.add(command, format!("take VM {name} from {with}"));
                }
            }
        }
        for (name, stored) in model.teams() {
            let Some(members) = wanted.teams.get(name) else { continue };
            for user in stored.document.members.keys().filter(|user| !members.contains_key(user)) {
                if goes_in(self.transition.late_members.contains(&(name, user))) {
                    let command = Command::TeamLeave { team: name.clone(), user: user.clone() };
                    self.add(command, format!("take user {user} out of team {name}"));
                }
            }
        }
    }

    /// Keys that change, come, and are no more. What is somebody else's comes later.
    fn keys(&mut self, wanted: &DesiredFleet<'_>) {
        let model = self.model;
        for (name, stored) in model.users() {
            let kept = wanted.users.get(name);
            let goes = kept.is_none() && self.prunes(stored.document.origin);
            let is = &stored.document.keys;
            for key in kept.into_iter().flatten() {
                let same = is.iter().find(|same| same.fingerprint == key.fingerprint);
                if same.is_some_and(|same| same != key) {
                    let (user, fingerprint) = (name.clone(), key.fingerprint.clone());
                    let text = format!("change key {fingerprint} of user {name}");
                    self.add(Command::KeySet { user, fingerprint, line: key.line() }, text);
                } else if same.is_none() && self.comes_first(name, key, wanted) {
                    self.key_add(name, key);
                }
            }
            for key in is {
                let taken = match kept {
                    Some(kept) => kept.iter().all(|other| other.fingerprint != key.fingerprint),
                    // Of a user who goes, keys that another one gets: they must be free before
                    // the user is gone.
                    None => goes && wanted.keys.contains_key(&key.fingerprint),
                };
                if taken {
                    let (user, fingerprint) = (name.clone(), key.fingerprint.clone());
                    let text = format!("remove key {fingerprint} of user {name}");
                    self.add(Command::KeyRemove { user, fingerprint }, text);
                }
            }
        }
    }

    fn key_add(&mut self, user: &Label, key: &UserKey) {
        let text = format!("add key {} to user {user}", key.fingerprint);
        self.add(Command::KeyAdd { user: user.clone(), line: key.line() }, text);
    }

    /// Whether a new key is nobody's, and there is room for it beside those that go: so nobody is
    /// left without any.
    fn comes_first(&self, user: &Label, key: &UserKey, wanted: &DesiredFleet<'_>) -> bool {
        let fingerprint = key.fingerprint.parse::<Fingerprint>();
        let free = fingerprint.is_ok_and(|it| self.model.user_of(&it.0).is_none());
        let is = self.model.users().get(user).map_or(0, |stored| stored.document.keys.len());
        free && is + wanted.users.get(user).map_or(0, Vec::len) <= KEYS_MAX
    }

    fn addresses(&mut self, fleet: &Fleet) {
        for wanted in &fleet.addresses {
            let FleetAddress { name, public, public6, private, lobby, state, origin } = wanted;
            let (public, private) = (public.to_canonical(), private.map(|ip| ip.to_canonical()));
            let Some(is) = self.model.address(name).map(|stored| &stored.document) else {
                let address = NewAddress {
                    public: Some(public),
                    public6: *public6,
                    private,
                    lobby: Some(*lobby),
                    ..NewAddress::default()
                };
                let text = format!("add address {name}, {public}");
                self.make(Command::AddressAdd { name: name.clone(), address }, text, *origin);
                continue;
            };
            self.take_over(Thing::Address(name.clone()), is.origin, *origin);
            if *state == Some(AddressState::Ready) && is.state != AddressState::Ready {
                self.address_state(name, AddressState::Ready);
            }
            let same = (is.public, is.public6, is.private, is.lobby)
                == (public, *public6, private, *lobby);
            if !same {
                let address = NewAddress {
                    public: differs(&is.public, &public),
                    public6: public6.filter(|ip| is.public6 != Some(*ip)),
                    private: private.filter(|ip| is.private != Some(*ip)),
                    lobby: differs(&is.lobby, lobby),
                    no_public6: public6.is_none() && is.public6.is_some(),
                    no_private: private.is_none() && is.private.is_some(),
                };
                let text = format!("change address {name}");
                self.add(Command::AddressSet { name: name.clone(), address }, text);
            }
        }
    }

    /// Last: what is put at an address is there before nothing more is.
    fn close_addresses(&mut self, fleet: &Fleet) {
        for FleetAddress { name, state, .. } in &fleet.addresses {
            let is = self.model.address(name).map_or(AddressState::Ready, |it| it.document.state);
            if let Some(state) = state.filter(|it| *it != is && *it != AddressState::Ready) {
                self.address_state(name, state);
            }
        }
    }

    fn address_state(&mut self, name: &Label, state: AddressState) {
        let text = match state {
            AddressState::Ready => format!("put VMs at address {name} again"),
            AddressState::Drain => format!("put no more VMs at address {name}"),
            AddressState::Maint => format!("refuse connections at address {name}"),
        };
        self.add(Command::AddressState { name: name.clone(), state }, text);
    }

    /// Users and teams; who joins a team that stands does so when what it loses is gone.
    fn people(&mut self, fleet: &Fleet, wanted: &DesiredFleet<'_>) {
        let model = self.model;
        for user in &fleet.users {
            let name = &user.name;
            let keys = wanted.users.get(name).map_or(&[][..], Vec::as_slice);
            let Some(stored) = model.users().get(name) else {
                let text = format!("add user {name} with keys: {}", keys.len());
                let command = Command::UserAdd { name: name.clone(), keys: user.keys.clone() };
                self.make(command, text, user.origin);
                continue;
            };
            self.take_over(Thing::User(name.clone()), stored.document.origin, user.origin);
            let is = &stored.document.keys;
            for key in keys {
                let has = is.iter().any(|other| other.fingerprint == key.fingerprint);
                if !has && !self.comes_first(name, key, wanted) {
                    self.key_add(name, key);
                }
            }
        }
        for team in &fleet.teams {
            let (name, members) = (team.name.clone(), team.members.clone());
            if let Some(stored) = model.teams().get(&name) {
                self.take_over(Thing::Team(name), stored.document.origin, team.origin);
                continue;
            }
            let text = format!("add team {name} with members: {}", members.len());
            self.make(Command::TeamAdd { name, members }, text, team.origin);
        }
    }

    fn join(&mut self, wanted: &DesiredFleet<'_>) {
        let model = self.model;
        for (name, members) in &wanted.teams {
            let stands = model.teams().get(*name).map(|stored| &stored.document.members);
            for (user, access) in members {
                let has = match stands {
                    Some(stands) => stands.get(*user).copied(),
                    None => Some(Access::Slot).filter(|slot| slot == access),
                };
                if has != Some(*access) {
                    let text = format!("add user {user} to team {name}{}", how(*access));
                    let (team, user) = ((*name).clone(), (*user).clone());
                    self.add(Command::TeamJoin { team, user, access: *access }, text);
                }
            }
        }
    }

    fn vms(&mut self, fleet: &Fleet, wanted: &DesiredFleet<'_>) {
        let model = self.model;
        let (old, new): (Vec<&FleetVm>, Vec<&FleetVm>) =
            fleet.vms.iter().partition(|vm| wanted.standing(model, &vm.name).is_some());
        for vm in &old {
            if let Some(is) = wanted.standing(model, &vm.name) {
                self.old_vm(is, vm);
            }
        }
        self.join(wanted);
        for vm in &new {
            self.new_vm(vm);
        }
        for vm in old.into_iter().chain(new) {
            self.share(wanted.standing(model, &vm.name), vm);
        }
    }

    fn old_vm(&mut self, is: &Vm, wanted: &FleetVm) {
        let name = &wanted.name;
        self.take_over(Thing::Vm(name.clone()), is.origin, wanted.origin);
        if is.owner != wanted.owner {
            let text = format!("transfer VM {name} from {} to {}", is.owner, wanted.owner);
            let (name, to, keep) = (name.clone(), wanted.owner.clone(), self.kept(is, wanted));
            self.add(Command::VmTransfer { name, to, keep }, text);
        }
        let set = VmSettings {
            ssh: differs(&is.ssh, &wanted.ssh),
            login: cleared(is.login.as_deref(), wanted.login.as_deref(), check_login),
            host_key: cleared(is.host_key.as_deref(), wanted.host_key.as_deref(), check_host_key),
            source_address: cleared(
                is.source_address.as_ref().map(ToString::to_string).as_deref(),
                wanted.source_address.as_deref(),
                |text| Ok(check_source(text)?.map(String::from)),
            ),
            state: wanted.state.filter(|state| *state != is.state),
            node: cleared(
                is.node.as_ref().map(Label::as_str),
                wanted.node.as_ref().map(Label::as_str),
                |name| Ok(Some(name.to_owned())),
            ),
            carry: differs(&is.carry, &wanted.carry),
        };
        if set != VmSettings::default() {
            self.add(Command::VmSet { name: name.clone(), set }, format!("change VM {name}"));
        }
        let to = match &wanted.address {
            Some(address) if is.address.as_ref() != Some(address) => Placement::At(address.clone()),
            None if wanted.no_address && is.address.is_some() => Placement::Nowhere,
            _ => return,
        };
        let text = match &to {
            Placement::At(address) => format!("move VM {name} to address {address}"),
            Placement::Chosen | Placement::Nowhere => format!("take VM {name} off its address"),
        };
        self.add(Command::VmRenumber { name: name.clone(), to }, text);
    }

    /// What its owner has of a VM that goes to another one, at first.
    fn kept(&self, is: &Vm, wanted: &FleetVm) -> Option<Access> {
        if self.transition.late_shares.contains(&(&wanted.name, &is.owner)) {
            return Some(Access::Slot);
        }
        // It was read once already.
        shares(wanted).unwrap_or_default().get(&is.owner).copied()
    }

    fn new_vm(&mut self, wanted: &FleetVm) {
        let FleetVm {
            name,
            owner,
            ssh,
            login,
            host_key,
            source_address,
            address,
            no_address,
            node,
            carry,
            ..
        } = wanted;
        let (id, state, origin) = (wanted.id.clone(), wanted.state, wanted.origin);
        let placement = match address {
            Some(address) => Placement::At(address.clone()),
            None if *no_address => Placement::Nowhere,
            None => Placement::Chosen,
        };
        let new = NewVm {
            name: name.clone(),
            owner: owner.clone(),
            ssh: ssh.clone(),
            login: login.clone(),
            host_key: host_key.clone(),
            source_address: source_address.clone(),
            placement,
            id,
            state: state.unwrap_or(VmState::Ready),
            node: node.clone(),
            carry: *carry,
        };
        self.make(Command::VmAdd(new), format!("add VM {name} of {owner}"), origin);
    }

    fn share(&mut self, stands: Option<&Vm>, wanted: &FleetVm) {
        let name = &wanted.name;
        // It was read once already.
        for (with, access) in shares(wanted).unwrap_or_default() {
            let has = stands.and_then(|vm| match with {
                owner if *owner == vm.owner => self.kept(vm, wanted),
                with if vm.shares.contains_key(with) => vm.shares.get(with).copied(),
                Principal::User(user) => {
                    self.transition.temporary_shares.get(&(name, user)).copied()
                }
                Principal::Team(_) => None,
            });
            if has != Some(access) {
                let text = format!("share VM {name} with {with}{}", how(access));
                let command = Command::VmShare { name: name.clone(), with: with.clone(), access };
                self.add(command, text);
            }
        }
    }

    fn prune_people(&mut self, wanted: &DesiredFleet<'_>) {
        let model = self.model;
        for (name, stored) in model.teams() {
            if !wanted.teams.contains_key(name) && self.prunes(stored.document.origin) {
                self.add(Command::TeamRemove { name: name.clone() }, format!("remove team {name}"));
            }
        }
        for (name, stored) in model.users() {
            if !wanted.users.contains_key(name) && self.prunes(stored.document.origin) {
                self.add(Command::UserRemove { name: name.clone() }, format!("remove user {name}"));
            }
        }
    }
}

const fn how(access: Access) -> &'static str {
    match access {
        Access::Slot => "",
        Access::ByName => " by name",
    }
}

pub(super) fn differs<T: Clone + PartialEq>(is: &T, wanted: &T) -> Option<T> {
    (is != wanted).then(|| wanted.clone())
}

/// What has to be set for something that may be absent: the new value, or nothing at all to clear
/// it. What cannot be read is left to the command to refuse.
fn cleared(
    is: Option<&str>,
    wanted: Option<&str>,
    read: fn(&str) -> Result<Option<String>, Refusal>,
) -> Option<String> {
    let read = wanted.map_or(Ok(None), read);
    match read {
        Ok(wanted) if wanted.as_deref() == is => None,
        Ok(wanted) => Some(wanted.unwrap_or_default()),
        Err(_) => wanted.map(str::to_owned),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
