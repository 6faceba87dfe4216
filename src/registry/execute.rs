//! Carries a command out on a draft: each command is one function, and all that has to do with addresses goes through
//! [`Draft::place`], [`Draft::renumber`] and [`Draft::settle`]. What goes stands in `remove`.

use std::collections::BTreeMap;

use super::command::{Command, NewVm, Options, Placement, Thing, VmSettings};
use super::document::{
    Access, Address, Document, Key, Origin, Serial, Team, Token, User, UserKey, Vm,
};
use super::draft::Draft;
use super::host_keys;
use super::name::{Label, Principal};
use super::refusal::{Kind, Refusal};
use super::values::{check_endpoint, check_host_key, check_login, check_source, parse_key};
use crate::route::{RESERVED, TEAMS_MAX, is_id};
use crate::ssh::publickey::Fingerprint;

/// Keys of one user.
pub(super) const KEYS_MAX: usize = 256;
/// Members of one team: its document stays well under a store's limit for one value.
pub(super) const MEMBERS_MAX: usize = 10_000;
/// Of an id that is not the VM's name, so much is the name.
const ID_NAME_CHARS: usize = 42;
/// Shares of one VM.
pub(super) const SHARES_MAX: usize = 1_000;

pub(super) type Done = Result<(), Refusal>;

impl Draft<'_> {
    /// Carries out one command, or as much of it as has room: [`Report::progress`](super::draft::Report) tells.
    ///
    /// # Errors
    /// [`Refusal`]; the draft is to be dropped then.
    pub fn carry_out(&mut self, command: &Command, options: Options) -> Done {
        self.act(command, options)?;
        // What is remembered may have to move a VM out of the way.
        if matches!(command, Command::QuarantineWays { .. }) {
            Ok(())
        } else {
            self.open_no_new_way()
        }
    }

    fn act(&mut self, command: &Command, options: Options) -> Done {
        match command {
            Command::UserAdd { name, keys } => self.user_add(name, keys, options),
            Command::UserRemove { name } => self.user_remove(name),
            Command::KeyAdd { user, line } => self.key_add(user, line),
            Command::KeySet { user, fingerprint, line } => self.key_set(user, fingerprint, line),
            Command::KeyRemove { user, fingerprint } => self.key_remove(user, fingerprint),
            Command::TeamAdd { name, members } => self.team_add(name, members, options),
            Command::TeamRemove { name } => self.team_remove(name),
            Command::TeamJoin { team, user, access } => self.join(team, user, *access, options),
            Command::TeamLeave { team, user } => self.leave_team(team, user),
            Command::VmAdd(new) => self.vm_add(new, options),
            Command::VmRemove { name } => self.vm_remove(name),
            Command::VmShare { name, with, access } => self.share(name, with, *access, options),
            Command::VmUnshare { name, with } => self.unshare(name, with),
            Command::VmRename { name, to } => self.rename(name, to),
            Command::VmTransfer { name, to, keep } => self.transfer(name, to, *keep, options),
            Command::VmSet { name, set } => self.vm_set(name, set),
            Command::VmPin { id, key, dialled } => self.vm_pin(id, key, dialled),
            Command::VmUnpin { name } => self.vm_unpin(name),
            Command::VmRenumber { name, to } => {
                let (serial, _) = self.named(name)?;
                self.renumber(serial, to)
            }
            Command::AddressAdd { name, address } => self.address_add(name, address, options),
            Command::AddressRemove { name } => self.address_remove(name),
            Command::AddressSet { name, address } => self.address_set(name, address),
            Command::AddressState { name, state } => self.address_state(name, *state),
            Command::TokenAdd { name, hash, role, expires_s } => {
                if self.model().tokens().contains_key(name) {
                    return taken(name, "another token");
                }
                let (hash, created_s) = (hash.clone(), self.stamp().now_s);
                let token = Token { hash, role: *role, created_s, expires_s: *expires_s };
                self.put(&Key::Token(name.clone()), Some(Document::Token(token)));
                Ok(())
            }
            Command::TokenRemove { name } => {
                if !self.model().tokens().contains_key(name) {
                    return Err(Refusal::unknown(Kind::Token, name));
                }
                self.put(&Key::Token(name.clone()), None);
                Ok(())
            }
            Command::TakeOver { thing } => self.take_over(thing),
            Command::Sweep => {
                self.sweep();
                Ok(())
            }
            Command::QuarantineWays { ways } => self.quarantine_ways(ways),
            Command::Note { .. } | Command::Refused { .. } => Ok(()),
            Command::Close { until_s } => {
                let mut registry = self.model().registry();
                let later = registry.no_new_slots_until_s.unwrap_or(0).max(*until_s);
                registry.no_new_slots_until_s = Some(later);
                self.put(&Key::Registry, Some(Document::Registry(registry)));
                Ok(())
            }
            Command::CaConfirm { fingerprint } => {
                let mut registry = self.model().registry();
                registry.ca = Some(fingerprint.clone());
                self.put(&Key::Registry, Some(Document::Registry(registry)));
                Ok(())
            }
        }
    }

    pub(super) fn user(&self, name: &Label) -> Result<User, Refusal> {
        let stored = self.model().users().get(name);
        stored.map(|it| it.document.clone()).ok_or_else(|| Refusal::unknown(Kind::User, name))
    }

    pub(super) fn team(&self, name: &Label) -> Result<Team, Refusal> {
        let stored = self.model().teams().get(name);
        stored.map(|it| it.document.clone()).ok_or_else(|| Refusal::unknown(Kind::Team, name))
    }

    pub(super) fn named(&self, name: &Label) -> Result<(Serial, Vm), Refusal> {
        let (serial, stored) =
            self.model().vm_named(name).ok_or_else(|| Refusal::unknown(Kind::Vm, name))?;
        let vm = (*stored.document).clone();
        Ok((serial, vm))
    }

    /// Whether the principal stands and stays, so that something may be given to it.
    fn known(&self, principal: &Principal) -> Done {
        let (kind, name) = match principal {
            Principal::User(name) => (Kind::User, name),
            Principal::Team(name) => (Kind::Team, name),
        };
        if !self.model().exists(principal) {
            return Err(Refusal::unknown(kind, name));
        }
        if self.model().is_going(principal) {
            return Err(Refusal::Going { kind, name: name.to_string() });
        }
        Ok(())
    }

    pub(super) fn put_user(&mut self, name: &Label, user: User) {
        self.put(&Key::User(name.clone()), Some(Document::User(user)));
    }

    pub(super) fn put_team(&mut self, name: &Label, team: Team) {
        self.put(&Key::Team(name.clone()), Some(Document::Team(team)));
    }

    fn user_add(&mut self, name: &Label, keys: &[String], options: Options) -> Done {
        if self.model().users().contains_key(name) {
            self.known(&Principal::User(name.clone()))?;
            return taken(name, "another user");
        }
        let mut user = User { origin: options.origin, ..User::default() };
        for line in keys {
            let key = self.new_key(line)?;
            if user.keys.iter().any(|other| other.fingerprint == key.fingerprint) {
                return Err(Refusal::Already(format!("key {} is given twice", key.fingerprint)));
            }
            user.keys.push(key);
        }
        limit(user.keys.len(), KEYS_MAX, || format!("user `{name}` would have keys"))?;
        self.put_user(name, user);
        Ok(())
    }

    fn new_key(&self, line: &str) -> Result<UserKey, Refusal> {
        let key = parse_key(line)?;
        if let Ok(fingerprint) = key.fingerprint.parse::<Fingerprint>()
            && let Some(of) = self.model().user_of(&fingerprint.0)
        {
            return Err(Refusal::KeyTaken { fingerprint: key.fingerprint, of: of.clone() });
        }
        Ok(key)
    }

    fn key_add(&mut self, name: &Label, line: &str) -> Done {
        self.known(&Principal::User(name.clone()))?;
        let mut user = self.user(name)?;
        user.keys.push(self.new_key(line)?);
        limit(user.keys.len(), KEYS_MAX, || format!("user `{name}` would have keys"))?;
        self.put_user(name, user);
        Ok(())
    }

    fn key_remove(&mut self, name: &Label, fingerprint: &str) -> Done {
        let mut user = self.user(name)?;
        let count = user.keys.len();
        user.keys.retain(|key| key.fingerprint != fingerprint);
        if user.keys.len() == count {
            return Err(unknown_key(fingerprint));
        }
        self.put_user(name, user);
        Ok(())
    }

    /// In one step: whoever is in by this key stays, unless what the line says now forbids it.
    fn key_set(&mut self, name: &Label, fingerprint: &str, line: &str) -> Done {
        self.known(&Principal::User(name.clone()))?;
        let mut user = self.user(name)?;
        let has = user.keys.iter_mut().find(|has| has.fingerprint == fingerprint);
        let Some(has) = has else { return Err(unknown_key(fingerprint)) };
        let key = parse_key(line)?;
        if key.fingerprint != fingerprint {
            return Err(Refusal::invalid(
                format_args!("the line holds key {}, not {fingerprint}", key.fingerprint),
                "add that one, and remove this one",
            ));
        }
        if *has == key {
            let what = format!("key {} of user `{name}` is so already", key.fingerprint);
            return Err(Refusal::Already(what));
        }
        *has = key;
        self.put_user(name, user);
        Ok(())
    }

    fn team_add(&mut self, name: &Label, members: &[Label], options: Options) -> Done {
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

    fn join(&mut self, name: &Label, user: &Label, access: Access, options: Options) -> Done {
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
        // Newcomers get the addresses that the team's VMs have now. A second way that would lead one of them astray ends.
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

    fn leave_team(&mut self, name: &Label, user: &Label) -> Done {
        let mut team = self.team(name)?;
        if team.members.remove(user).is_none() {
            return Err(Refusal::Already(format!("`{user}` is no member of team `{name}`")));
        }
        self.put_team(name, team);
        Ok(())
    }

    fn vm_add(&mut self, new: &NewVm, options: Options) -> Done {
        let NewVm { name, owner, ssh, login, host_key, source_address, placement, id, state } = new;
        self.free_name(name, "VM")?;
        self.known(owner)?;
        check_endpoint(ssh, &self.model().limits().networks)?;
        let login = login.as_deref().map(check_login).transpose()?.flatten();
        let host_key = host_key.as_deref().map(check_host_key).transpose()?.flatten();
        let source_address = source_address.as_deref().map(check_source).transpose()?.flatten();
        let back = self.own_quarantined(owner, ssh, placement);
        let serial = back.as_ref().map_or_else(|| self.new_serial(), |quarantine| quarantine.vm);
        let mut vm = Vm {
            name: name.clone(),
            id: match id {
                Some(id) => self.free_id(id)?,
                None => self.new_id(name),
            },
            owner: owner.clone(),
            shares: BTreeMap::new(),
            address: None,
            old: Vec::new(),
            ssh: ssh.clone(),
            login,
            host_key,
            source_address,
            pin: None,
            pinned_s: 0,
            state: *state,
            origin: options.origin,
        };
        let before = back.filter(|_| *placement == Placement::Chosen);
        let before = before.map(|quarantine| Placement::At(quarantine.address));
        // Names in caches lead there still; the allocator's choice is as good where it is not free.
        let before = before.and_then(|before| self.place(serial, &vm, &before).ok());
        vm.address = before.map_or_else(|| self.place(serial, &vm, placement), Ok)?;
        self.report.vm = Some(serial);
        self.put_vm(serial, vm);
        Ok(())
    }

    /// A serial that no VM has: the stamp's chance, or what comes after it.
    fn new_serial(&self) -> Serial {
        let mut serial = Serial(self.stamp().nonce);
        while self.model().vm(serial).is_some() {
            serial = Serial(serial.0.wrapping_add(1));
        }
        serial
    }

    /// An id that was given elsewhere, as it was.
    fn free_id(&self, id: &str) -> Result<String, Refusal> {
        if !is_id(id) {
            let shown: String = id.chars().filter(|c| !c.is_control()).take(80).collect();
            let fix = "write 1 to 63 letters, digits, - and _, or leave it out";
            return Err(Refusal::invalid(format_args!("`{shown}` is no id of a VM"), fix));
        }
        let has = self.model().of_id(id).and_then(|serial| self.model().vm(serial));
        if let Some(has) = has {
            let by = format!("VM `{}`, whose id it is", has.document.name);
            return Err(Refusal::Taken { name: id.to_owned(), by });
        }
        Ok(id.to_owned())
    }

    /// The name, unless a VM that was renamed still has it as its id. No name has an underscore.
    fn new_id(&self, name: &Label) -> String {
        let mut id = name.to_string();
        let mut next = 2_u64;
        while self.model().of_id(&id).is_some() {
            let short: String = name.as_str().chars().take(ID_NAME_CHARS).collect();
            id = format!("{short}_{next}");
            next += 1;
        }
        id
    }

    fn share(&mut self, name: &Label, with: &Principal, access: Access, options: Options) -> Done {
        let (serial, mut vm) = self.named(name)?;
        self.known(with)?;
        if vm.owner == *with {
            return Err(Refusal::Already(format!("`{with}` owns VM `{name}`")));
        }
        if vm.shares.get(with) == Some(&access) {
            return Err(Refusal::Already(format!(
                "VM `{name}` is already shared with `{with}` in this way"
            )));
        }
        vm.shares.insert(with.clone(), access);
        if access == Access::ByName {
            vm.forget_ways_of(with);
        }
        check_shares(name, &vm)?;
        self.put_vm(serial, vm);
        if access == Access::ByName {
            return Ok(());
        }
        self.settle_for(serial, with, options)
    }

    /// A principal has gained a VM's slot.
    fn settle_for(&mut self, serial: Serial, principal: &Principal, options: Options) -> Done {
        let viewers = self.model().viewers([principal]);
        let gained: Vec<_> = viewers.into_iter().map(|viewer| (viewer, serial)).collect();
        self.settle(&gained, None, options.renumber)
    }

    fn unshare(&mut self, name: &Label, with: &Principal) -> Done {
        let (serial, mut vm) = self.named(name)?;
        if vm.shares.remove(with).is_none() {
            return Err(Refusal::Already(format!("VM `{name}` is not shared with `{with}`")));
        }
        vm.forget_ways_of(with);
        self.put_vm(serial, vm);
        Ok(())
    }

    fn rename(&mut self, name: &Label, to: &Label) -> Done {
        let (serial, mut vm) = self.named(name)?;
        self.free_name(to, "VM")?;
        vm.name = to.clone();
        self.put_vm(serial, vm);
        Ok(())
    }

    fn transfer(
        &mut self,
        name: &Label,
        to: &Principal,
        keep: Option<Access>,
        options: Options,
    ) -> Done {
        let (serial, mut vm) = self.named(name)?;
        self.known(to)?;
        if vm.owner == *to {
            return Err(Refusal::Already(format!("`{to}` owns VM `{name}` already")));
        }
        let from = std::mem::replace(&mut vm.owner, to.clone());
        self.keep_own_pin(serial, &mut vm);
        vm.shares.remove(to);
        if keep != Some(Access::Slot) {
            vm.forget_ways_of(&from);
        }
        if let Some(access) = keep {
            vm.shares.insert(from, access);
            check_shares(name, &vm)?;
        }
        self.put_vm(serial, vm);
        self.settle_for(serial, to, options)
    }

    fn vm_set(&mut self, name: &Label, set: &VmSettings) -> Done {
        let (serial, mut vm) = self.named(name)?;
        let VmSettings { ssh, login, host_key, source_address, state } = set;
        if let Some(ssh) = ssh {
            check_endpoint(ssh, &self.model().limits().networks)?;
            vm.ssh.clone_from(ssh);
        }
        if let Some(login) = login {
            vm.login = check_login(login)?;
        }
        if let Some(host_key) = host_key {
            host_keys::give(&mut vm, check_host_key(host_key)?);
        }
        if let Some(source) = source_address {
            vm.source_address = check_source(source)?;
        }
        vm.state = state.unwrap_or(vm.state);
        self.put_vm(serial, vm);
        Ok(())
    }

    fn take_over(&mut self, thing: &Thing) -> Done {
        match thing {
            Thing::Address(name) => {
                let address = Address { origin: Origin::Fleet, ..self.stored_address(name)? };
                self.put(&Key::Address(name.clone()), Some(Document::Address(address)));
            }
            Thing::User(name) => {
                let user = User { origin: Origin::Fleet, ..self.user(name)? };
                self.put_user(name, user);
            }
            Thing::Team(name) => {
                let team = Team { origin: Origin::Fleet, ..self.team(name)? };
                self.put_team(name, team);
            }
            Thing::Vm(name) => {
                let (serial, vm) = self.named(name)?;
                self.put_vm(serial, Vm { origin: Origin::Fleet, ..vm });
            }
        }
        Ok(())
    }

    /// One namespace for VMs and addresses: both are labels of one zone.
    pub(super) fn free_name(&self, name: &Label, what: &str) -> Done {
        let reserved = &self.model().limits().reserved;
        if RESERVED.contains(&name.as_str()) || reserved.iter().any(|it| it == name.as_str()) {
            return Err(Refusal::Reserved { name: name.to_string() });
        }
        self.free_in_zone(name, what)
    }

    pub(super) fn free_in_zone(&self, name: &Label, what: &str) -> Done {
        let by = if self.model().vm_named(name).is_some() {
            if what == "VM" { "another VM" } else { "a VM" }
        } else if self.model().address(name).is_some() {
            if what == "VM" { "an address" } else { "another address" }
        } else {
            return Ok(());
        };
        taken(name, by)
    }
}

fn taken(name: &Label, by: &str) -> Done {
    Err(Refusal::Taken { name: name.to_string(), by: by.to_owned() })
}

fn unknown_key(fingerprint: &str) -> Refusal {
    let shown: String = fingerprint.chars().filter(|c| !c.is_control()).take(80).collect();
    Refusal::unknown(Kind::Key, shown)
}

fn check_shares(name: &Label, vm: &Vm) -> Done {
    limit(vm.shares.len(), SHARES_MAX, || format!("VM `{name}` would have shares"))
}

fn limit(count: usize, limit: usize, what: impl Fn() -> String) -> Done {
    if count <= limit {
        return Ok(());
    }
    Err(Refusal::TooMany { what: format!("{}: {count}", what()), limit })
}
