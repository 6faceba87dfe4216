//! What the steps of a served file do, counted and named: each thing once, whatever number
//! of steps it takes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::plan::Step;
use super::tally::{Counts, Kind, Tally};
use crate::plural::count;
use crate::registry::command::{Command, NewVm, Thing};
use crate::registry::document::Vm;
use crate::registry::model::Model;
use crate::registry::name::{Label, Principal};

/// Names that a line of the log says.
pub(super) const NAMES_MAX: usize = 20;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum What {
    Added,
    Changed,
    Removed,
    TakenOver,
    /// Of what stood only meanwhile.
    TakenBack,
}

/// What a step does to what.
#[derive(Clone, Debug)]
pub(super) struct Doing {
    kind: Kind,
    what: What,
    name: String,
    /// The thing that it is a part of: what is new has parts, which are not told beside it.
    of: Option<(Kind, Label)>,
    /// Of a user's keys: one more, or one less.
    net: Option<(Label, i64)>,
}

/// Reads steps, given what stands before them.
pub(super) struct Reader<'m> {
    model: &'m Model,
    /// Who goes, and every right with them.
    gone: HashSet<Principal>,
    /// What VMs were called that have another name by then.
    renamed: HashMap<Label, Label>,
}

impl<'m> Reader<'m> {
    pub(super) fn new(model: &'m Model, steps: &[Step]) -> Self {
        let mut gone = HashSet::new();
        for step in steps {
            if let Command::UserRemove { name } = &step.command {
                gone.insert(Principal::User(name.clone()));
            } else if let Command::TeamRemove { name } = &step.command {
                gone.insert(Principal::Team(name.clone()));
            }
        }
        Self { model, gone, renamed: HashMap::new() }
    }

    /// What each does, in their order; nothing that would be told.
    pub(super) fn read(mut self, steps: &[Step]) -> Vec<Option<Doing>> {
        steps.iter().map(|step| self.doing(&step.command)).collect()
    }

    /// As it is before all steps.
    fn vm(&self, name: &Label) -> Option<&'m Vm> {
        let name = self.renamed.get(name).unwrap_or(name);
        self.model.vm(*self.model.vm_names().get(name)?).map(|stored| &*stored.document)
    }

    fn doing(&mut self, command: &Command) -> Option<Doing> {
        let (kind, what, name) = match command {
            Command::AddressAdd { name, .. } => (Kind::Address, What::Added, name),
            Command::AddressRemove { name } => (Kind::Address, What::Removed, name),
            Command::AddressSet { name, .. } | Command::AddressState { name, .. } => {
                (Kind::Address, What::Changed, name)
            }
            Command::NodeAdd { name, .. } => (Kind::Node, What::Added, name),
            Command::NodeRemove { name } => (Kind::Node, What::Removed, name),
            Command::NodeSet { name, .. } => (Kind::Node, What::Changed, name),
            Command::EdgeAdd { name, .. } => (Kind::Edge, What::Added, name),
            Command::EdgeRemove { name, .. } => (Kind::Edge, What::Removed, name),
            Command::UserAdd { name, .. } => (Kind::User, What::Added, name),
            Command::UserRemove { name } => (Kind::User, What::Removed, name),
            Command::TeamAdd { name, .. } => (Kind::Team, What::Added, name),
            Command::TeamRemove { name } => (Kind::Team, What::Removed, name),
            Command::TeamJoin { team, user, .. } => {
                let stands = self.model.teams().get(team);
                let stands = stands.is_some_and(|it| it.document.members.contains_key(user));
                let what = if stands { What::Changed } else { What::Added };
                return Some(part(Kind::Membership, what, user, (Kind::Team, team)));
            }
            Command::TeamLeave { team, user } => {
                let stays = !self.gone.contains(&Principal::User(user.clone()));
                let of = (Kind::Team, team);
                return stays.then(|| part(Kind::Membership, What::Removed, user, of));
            }
            Command::VmAdd(NewVm { name, .. }) => (Kind::Vm, What::Added, name),
            Command::VmRemove { name } => (Kind::Vm, What::Removed, name),
            Command::VmRename { name, to } => {
                let was = self.renamed.remove(name).unwrap_or_else(|| name.clone());
                self.renamed.insert(to.clone(), was);
                (Kind::Vm, What::Changed, to)
            }
            Command::VmShare { name, with, .. } => {
                let stands = self.vm(name).is_some_and(|vm| vm.shares.contains_key(with));
                let what = if stands { What::Changed } else { What::Added };
                return Some(part(Kind::Share, what, with, (Kind::Vm, name)));
            }
            Command::VmUnshare { name, with } => {
                let stood = self.vm(name).is_some_and(|vm| vm.shares.contains_key(with));
                let what = if stood { What::Removed } else { What::TakenBack };
                let stays = !self.gone.contains(with);
                return stays.then(|| part(Kind::Share, what, with, (Kind::Vm, name)));
            }
            Command::VmSet { name, .. }
            | Command::VmTransfer { name, .. }
            | Command::VmRenumber { name, .. }
            | Command::VmUnpin { name } => (Kind::Vm, What::Changed, name),
            Command::TakeOver { thing } => taken_over(thing),
            Command::KeyAdd { .. } | Command::KeySet { .. } | Command::KeyRemove { .. } => {
                return of_key(command);
            }
            // No fleet names these.
            Command::VmPin { .. }
            | Command::EdgeRegister { .. }
            | Command::NodePin { .. }
            | Command::NodeFound { .. }
            | Command::NodeToken { .. }
            | Command::NodeJoin { .. }
            | Command::TokenAdd { .. }
            | Command::TokenRemove { .. }
            | Command::Sweep
            | Command::QuarantineWays { .. }
            | Command::Close { .. }
            | Command::CaConfirm { .. }
            | Command::Refused { .. }
            | Command::Note { .. } => return None,
        };
        Some(whole(kind, what, name))
    }
}

fn whole(kind: Kind, what: What, name: &Label) -> Doing {
    let of = (what == What::Changed).then(|| (kind, name.clone()));
    Doing { kind, what, name: name.to_string(), of, net: None }
}

const fn taken_over(thing: &Thing) -> (Kind, What, &Label) {
    match thing {
        Thing::Address(name) => (Kind::Address, What::TakenOver, name),
        Thing::User(name) => (Kind::User, What::TakenOver, name),
        Thing::Team(name) => (Kind::Team, What::TakenOver, name),
        Thing::Node(name) => (Kind::Node, What::TakenOver, name),
        Thing::Vm(name) => (Kind::Vm, What::TakenOver, name),
    }
}

fn part(kind: Kind, what: What, who: &impl ToString, (whole, name): (Kind, &Label)) -> Doing {
    let told = format!("{} of {name}", who.to_string());
    Doing { kind, what, name: told, of: Some((whole, name.clone())), net: None }
}

fn of_key(command: &Command) -> Option<Doing> {
    if let Command::KeyAdd { user, line } = command {
        let name = crate::registry::values::parse_key(line).map(|key| key.fingerprint);
        Some(key(What::Added, &name.unwrap_or_default(), user, 1))
    } else if let Command::KeySet { user, fingerprint, .. } = command {
        Some(key(What::Changed, fingerprint, user, 0))
    } else if let Command::KeyRemove { user, fingerprint } = command {
        Some(key(What::Removed, fingerprint, user, -1))
    } else {
        None
    }
}

fn key(what: What, fingerprint: &str, user: &Label, net: i64) -> Doing {
    let net = Some((user.clone(), net));
    Doing { kind: Kind::Key, what, name: fingerprint.to_owned(), of: None, net }
}

/// What steps do to what, each thing once.
#[derive(Default)]
pub(super) struct Doings {
    names: BTreeMap<(Kind, What), BTreeSet<String>>,
    /// By user: keys that come, less those that go.
    pub(super) keys: BTreeMap<Label, i64>,
}

impl Doings {
    pub(super) fn of(doings: &[Option<Doing>]) -> Self {
        let mut all = Self::default();
        for doing in doings {
            all.add(doing.as_ref());
        }
        all
    }

    pub(super) fn add(&mut self, doing: Option<&Doing>) {
        let Some(Doing { kind, what, name, of, net }) = doing else { return };
        if let Some((user, net)) = net {
            *self.keys.entry(user.clone()).or_default() += net;
        }
        let is_new = |(kind, name): &(Kind, Label)| self.has(*kind, What::Added, name.as_str());
        if of.as_ref().is_some_and(is_new) {
            return;
        }
        if *what == What::TakenBack {
            if let Some(added) = self.names.get_mut(&(*kind, What::Added)) {
                added.remove(name);
            }
            return;
        }
        self.names.entry((*kind, *what)).or_default().insert(name.clone());
    }

    pub(super) fn has(&self, kind: Kind, what: What, name: &str) -> bool {
        self.names.get(&(kind, what)).is_some_and(|names| names.contains(name))
    }

    pub(super) fn count(&self, kind: Kind, what: What) -> u64 {
        number(self.names.get(&(kind, what)).map_or(0, BTreeSet::len))
    }

    pub(super) fn tally(&self) -> Tally {
        let counts = |kind| Counts {
            added: self.count(kind, What::Added),
            changed: self.count(kind, What::Changed),
            removed: self.count(kind, What::Removed),
            taken_over: self.count(kind, What::TakenOver),
        };
        Tally {
            addresses: counts(Kind::Address),
            users: counts(Kind::User),
            keys: counts(Kind::Key),
            teams: counts(Kind::Team),
            memberships: counts(Kind::Membership),
            nodes: counts(Kind::Node),
            edges: counts(Kind::Edge),
            vms: counts(Kind::Vm),
            shares: counts(Kind::Share),
        }
    }

    /// One for each kind and what becomes of it, with the first names.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.names.iter().filter(|(_, names)| !names.is_empty()).map(|((kind, what), names)| {
            let what = match what {
                What::Added => "added",
                What::Changed => "changed",
                What::Removed | What::TakenBack => "removed",
                What::TakenOver => "taken over",
            };
            let first: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
            let more = names.len() - first.len();
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            format!("{} {what}: {}{more}", count(names.len(), kind.word()), first.join(", "))
        })
    }
}

pub(super) fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
