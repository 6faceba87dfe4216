//! Carries a command out on a draft: each command is one function, under the noun that it is about.
//! All that has to do with a VM's address goes through [`Draft::place`], [`Draft::renumber`] and
//! [`Draft::settle`]; what is taken from somebody is quarantined by
//! [`Draft::put`](super::draft::Draft).

mod addresses;
mod edges;
pub(super) mod host_keys;
mod node_docker;
pub use self::node_docker::docker_of;
mod nodes;
mod remove;
pub(super) mod teams;
mod tokens;
pub(super) mod users;
pub(super) mod vms;

use super::command::{Command, Options, Thing};
use super::document::{Address, Document, Key, Node, Origin, Serial, Team, User, Vm};
use super::draft::Draft;
use super::name::{Label, Principal};
use super::refusal::{Kind, Refusal};
use crate::route::RESERVED;

type Done = Result<(), Refusal>;

impl Draft<'_> {
    /// Carries out one command, or as much of it as has room:
    /// [`Report::progress`](super::draft::Report) tells.
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
            Command::NodeAdd { name, set } => self.node_add(name, set, options),
            Command::NodeRemove { name } => self.node_remove(name),
            Command::NodeSet { name, set } => self.node_set(name, set),
            Command::NodePin { name, key } => self.node_pin(name, key),
            Command::NodeFound { name, state } => self.node_found(name, state),
            Command::EdgeAdd { name, identity } => self.edge_add(name, identity, options),
            Command::EdgeRegister { name, identity } => self.edge_register(name, identity),
            Command::EdgeRemove { name, identity } => {
                self.edge_remove(name, identity.as_deref(), options)
            }
            Command::NodeToken { name, hash, expires_s } => self.node_token(name, hash, *expires_s),
            Command::NodeJoin { name, hash, key } => self.node_join(name, hash, key),
            Command::TokenAdd { name, hash, role, expires_s } => {
                self.token_add(name, hash, *role, *expires_s)
            }
            Command::TokenRemove { name } => self.token_remove(name),
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
            Thing::Node(name) => {
                let node = Node { origin: Origin::Fleet, ..*self.node(name)? };
                self.put(&Key::Node(name.clone()), Some(Document::Node(Box::new(node))));
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

fn limit(count: usize, limit: usize, what: impl Fn() -> String) -> Done {
    if count <= limit {
        return Ok(());
    }
    Err(Refusal::TooMany { what: format!("{}: {count}", what()), limit })
}
