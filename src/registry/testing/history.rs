//! Arbitrary histories, held against what the documents alone say: the oracle knows no index
//! and no allocator.
//!
//! A history is a seed. Each step lets time pass, notes who sees what, and carries out a random
//! command; commands are thrown away, and models are built anew from their documents, on the way.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::dice::Dice;
use crate::registry::command::{Command, NewAddress, Options, VmSettings};
use crate::registry::document::{Access, Document, Key, Serial, Vm};
use crate::registry::draft::{Draft, PART_DOCUMENTS, Progress};
use crate::registry::model::{CommandContext, Limits, Model};
use crate::registry::name::{Label, Principal};
use crate::registry::routes;
use crate::route::{Carry, Snapshot, Table, Who};
use crate::ssh::testing::Seeded;

/// Histories of the usual run; `KEYWAY_HISTORIES` asks for another number.
const HISTORIES: u64 = 100_000;
/// One history in so many feeds a routing map.
const ROUTED_EVERY: u64 = 16;
const STEPS: u64 = 24;
const QUARANTINE_S: u64 = 100;

/// Everything that is true, by itself.
#[derive(Default)]
pub(crate) struct Truth {
    pub(crate) documents: BTreeMap<Key, (Document, u64)>,
    /// What each principal saw last at an address, and when.
    last: HashMap<(Principal, Label), (Serial, u64)>,
}

impl Truth {
    fn vms(&self) -> impl Iterator<Item = (Serial, &Vm)> {
        self.documents.iter().filter_map(|(key, (document, _))| match (key, document) {
            (Key::Vm(serial), Document::Vm(vm)) => Some((*serial, &**vm)),
            _ => None,
        })
    }

    /// Everybody for whom a way of `principal`'s leads somewhere.
    fn seeing(&self, principal: &Principal) -> Vec<Principal> {
        let mut all = vec![principal.clone()];
        if let Principal::Team(team) = principal
            && let Some((Document::Team(team), _)) = self.documents.get(&Key::Team(team.clone()))
        {
            let members = team.members.iter().filter(|(_, access)| **access == Access::Slot);
            all.extend(members.map(|(user, _)| Principal::User(user.clone())));
        }
        all
    }

    /// Who sees which VMs where.
    fn seen(&self) -> BTreeMap<(Principal, Label), BTreeSet<Serial>> {
        let mut seen: BTreeMap<(Principal, Label), BTreeSet<Serial>> = BTreeMap::new();
        for (serial, vm) in self.vms() {
            let shares = vm.shares.iter().filter(|(_, access)| **access == Access::Slot);
            let everybody: Vec<_> =
                std::iter::once(&vm.owner).chain(shares.map(|(p, _)| p)).collect();
            let now = vm.address.iter().flat_map(|at| everybody.iter().map(move |p| (*p, at)));
            let old =
                vm.old.iter().flat_map(|old| old.principals.iter().map(|p| (p, &old.address)));
            for (principal, address) in now.chain(old) {
                for viewer in self.seeing(principal) {
                    seen.entry((viewer, address.clone())).or_default().insert(serial);
                }
            }
        }
        seen
    }

    /// Notes who sees what now.
    ///
    /// # Panics
    /// Where somebody sees two VMs at one address, or another one too soon.
    pub(crate) fn look(&mut self, now_s: u64, quarantine_s: u64) {
        for ((viewer, address), vms) in self.seen() {
            assert_eq!(vms.len(), 1, "{viewer} sees {vms:?} at {address}");
            let vm = *vms.first().unwrap();
            let last = self.last.insert((viewer.clone(), address.clone()), (vm, now_s));
            if let Some((other, then_s)) = last {
                assert!(
                    other == vm || now_s >= then_s + quarantine_s,
                    "{viewer} saw {other:?} at {address} at {then_s}, and sees {vm:?} at {now_s}"
                );
            }
        }
    }

    /// Names are unique, VMs stand at addresses, and nobody who is gone has anything.
    fn is_whole(&self) {
        let mut names = BTreeSet::new();
        for (serial, vm) in self.vms() {
            assert!(names.insert(vm.name.clone()), "two VMs are called {}", vm.name);
            let address = |at: &Label| self.documents.contains_key(&Key::Address(at.clone()));
            assert!(vm.address.iter().all(address), "{serial:?} stands nowhere");
            let node = vm.node.as_ref().map(|name| &self.documents[&Key::Node(name.clone())].0);
            let trusted = matches!(node, Some(Document::Node(node)) if node.no_handoff().is_none());
            assert!(trusted || vm.carry != Carry::Handoff, "{} cannot be handed off", vm.name);
            assert!(vm.old.iter().all(|old| address(&old.address) && !old.principals.is_empty()));
            for principal in std::iter::once(&vm.owner).chain(vm.shares.keys()) {
                let key = match principal {
                    Principal::User(name) => Key::User(name.clone()),
                    Principal::Team(name) => Key::Team(name.clone()),
                };
                assert!(
                    self.documents.contains_key(&key),
                    "{principal} has {} and is gone",
                    vm.name
                );
            }
        }
        let mut keys = BTreeSet::new();
        for (key, (document, _)) in &self.documents {
            if let Document::User(user) = document {
                let once = user.keys.iter().all(|key| keys.insert(key.fingerprint.clone()));
                assert!(once, "a key of {key} stands twice");
            }
            if let Document::Node(node) = document
                && let Some(agents) = node.agent.as_ref().and_then(|agent| agent.key.clone())
            {
                assert!(keys.insert(agents), "the key of {key}'s agent stands twice");
            }
            if let (Key::Address(name), _) = (key, document) {
                assert!(!names.contains(name), "a VM and an address are called {name}");
            }
            if let Document::Team(team) = document {
                for user in team.members.keys() {
                    assert!(self.documents.contains_key(&Key::User(user.clone())));
                }
            }
        }
    }

    /// A model of these documents alone, as after a restart.
    pub(crate) fn model(&self, limits: &Limits) -> Model {
        let mut model = Model::new(limits.clone());
        let mut all: Vec<_> = self.documents.iter().collect();
        all.sort_by_key(|(_, (_, revision))| *revision);
        for (key, (document, revision)) in all {
            model.put(key, Some(document.clone()), *revision);
        }
        model
    }
}

struct History {
    dice: Dice,
    limits: Limits,
    model: Model,
    /// In some histories: it takes most of the time.
    table: Option<Table>,
    truth: Truth,
    /// What was there at some time.
    backup: Option<BTreeMap<Key, (Document, u64)>>,
    now_s: u64,
    done: u64,
}

impl History {
    fn new(seed: u64) -> Self {
        let limits = Limits { quarantine_s: QUARANTINE_S, ..Limits::default() };
        let model = Model::new(limits.clone());
        let mut history = Self {
            dice: Dice(Seeded(seed)),
            limits,
            model,
            table: seed.is_multiple_of(ROUTED_EVERY).then(Table::new),
            truth: Truth::default(),
            backup: None,
            now_s: 1_000,
            done: 0,
        };
        for last in 0..3_u8 {
            let name = Label::new(&format!("s{last}")).unwrap();
            let public = Some([127, 0, 77, last].into());
            let address = NewAddress { public, ..NewAddress::default() };
            history.carry_out(&Command::AddressAdd { name, address }, false);
        }
        for user in 0..3 {
            let name = Label::new(&format!("u{user}")).unwrap();
            history.carry_out(&Command::UserAdd { name, keys: Vec::new() }, false);
        }
        history
    }

    fn carry_out(&mut self, command: &Command, renumber: bool) {
        if self.dice.below(8) == 0 {
            let stamp = CommandContext { now_s: self.now_s, nonce: self.dice.0.next() };
            let mut draft = Draft::new(&mut self.model, stamp);
            let _thrown_away = draft.carry_out(command, Options { renumber, ..Options::default() });
        } else {
            self.keep(command, renumber);
        }
    }

    /// Carries a command out to its end, in parts that may be small; now and then all ends in
    /// the midst of it.
    fn keep(&mut self, command: &Command, renumber: bool) {
        let room = [1, 2, 3, PART_DOCUMENTS][usize::try_from(self.dice.below(4)).unwrap()];
        let mut going_on = false;
        while self.keep_part(command, renumber, room, going_on) == Some(Progress::Begun) {
            assert!(command.in_parts(), "{command:?}");
            going_on = true;
            self.truth.look(self.now_s, QUARANTINE_S);
            self.truth.is_whole();
            if let Command::UserRemove { name } = command {
                assert!(self.model.users()[name].document.going);
            }
            if let Command::TeamRemove { name } = command {
                assert!(self.model.teams()[name].document.going);
            }
            // Whoever goes is led nowhere from the first part on.
            self.leads();
            if self.dice.below(8) == 0 {
                break;
            }
        }
    }

    fn keep_part(
        &mut self,
        command: &Command,
        renumber: bool,
        room: usize,
        going_on: bool,
    ) -> Option<Progress> {
        let before = command.in_parts().then(|| self.truth.seen());
        let stamp = CommandContext { now_s: self.now_s, nonce: self.dice.0.next() };
        let mut draft = Draft::within(&mut self.model, stamp, room);
        let done = draft.carry_out(command, Options { renumber, ..Options::default() });
        if let Err(refusal) = done {
            assert!(!going_on, "{command:?} is refused half way: {refusal}");
            drop(draft);
            None
        } else {
            self.done += 1;
            let (written, report) = draft.keep();
            if let Some(table) = &self.table {
                table.change(routes::delta(&written)).unwrap();
            }
            for change in written {
                match change.now {
                    Some(document) => {
                        let revision = self.model.get(&change.key).unwrap().1;
                        self.truth.documents.insert(change.key, (document, revision))
                    }
                    None => self.truth.documents.remove(&change.key),
                };
            }
            for (way, vms) in before.iter().flat_map(|_| self.truth.seen()) {
                let had = before.as_ref().and_then(|before| before.get(&way));
                assert_eq!(had, Some(&vms), "{command:?} gave {way:?}");
            }
            Some(report.progress)
        }
    }

    fn step(&mut self) {
        self.now_s += self.dice.below(QUARANTINE_S * 2 / 3);
        self.truth.look(self.now_s, QUARANTINE_S);
        let command = self.dice.command();
        let renumber = self.dice.below(2) == 0;
        self.carry_out(&command, renumber);
        self.truth.look(self.now_s, QUARANTINE_S);
        self.truth.is_whole();
        match self.dice.below(36) {
            0..6 => self.model = self.truth.model(&self.limits),
            6..9 => self.backup = Some(self.truth.documents.clone()),
            9..11 => self.restore(),
            _ => {}
        }
    }

    /// An old copy of everything is put back, and told what it has missed.
    fn restore(&mut self) {
        let Some(documents) = self.backup.take() else { return };
        self.truth.documents = documents;
        let restored = self.truth.model(&self.limits);
        let before = std::mem::replace(&mut self.model, restored);
        let ways = self.model.with_members(before.ways(), before.seeing_members());
        if let Some(table) = &self.table {
            table.apply(Snapshot::new(self.model.contents()).unwrap());
        }
        for some in ways.chunks(5) {
            self.keep(&Command::QuarantineWays { ways: some.to_vec() }, false);
        }
        self.truth.look(self.now_s, QUARANTINE_S);
    }

    /// The routing map that was fed by deltas leads everybody where the documents say.
    fn leads(&self) {
        let Some(table) = &self.table else { return };
        let mut truth = Truth { documents: self.truth.documents.clone(), ..Truth::default() };
        truth.documents.retain(|_, (document, _)| match document {
            Document::Team(team) => !team.going,
            Document::Vm(_)
            | Document::User(_)
            | Document::Address(_)
            | Document::Edge(_)
            | Document::Node(_)
            | Document::NodeState(_)
            | Document::Quarantine(_)
            | Document::Registry(_)
            | Document::Token(_) => true,
        });
        let seen = truth.seen();
        for (_, vm) in truth.vms() {
            let routed = table.vm(vm.name.as_str()).unwrap();
            let node = vm.node.as_ref().map(Label::as_str);
            assert_eq!((routed.node.as_deref(), routed.carry), (node, vm.carry));
            assert!(table.carriage(&routed).is_some());
        }
        for site in self.model.sites() {
            let Some(address) = table.address_named(site.name.as_str()) else { continue };
            for user in 0..4 {
                let user = Label::new(&format!("u{user}")).unwrap();
                let who = Who::User(user.as_str());
                let stored = self.truth.documents.get(&Key::User(user.clone()));
                if let Some((Document::User(it), _)) = stored
                    && it.going
                {
                    assert_eq!(table.user(who), None, "{user} still gets in");
                    assert!(it.keys.is_empty());
                    continue;
                }
                let there = table.lookup(who, &address, |vm| vm.name.clone());
                let vms = seen.get(&(Principal::User(user.clone()), site.name.clone()));
                let vm = vms.and_then(|vms| self.model.vm(*vms.first().unwrap()));
                let vm = vm.map(|vm| vm.document.name.to_string());
                assert_eq!(there, vm, "{user} at {}", site.name);
            }
        }
    }

    /// The model holds these documents and no others, and its indexes are those of a
    /// model made of them.
    fn agrees(&self) {
        let fresh = self.truth.model(&self.limits);
        for (key, (document, revision)) in &self.truth.documents {
            assert_eq!(self.model.get(key), Some((document.clone(), *revision)), "{key}");
        }
        assert_eq!(self.model.vm_names(), fresh.vm_names());
        assert_eq!(self.model.aging, fresh.aging);
        assert_eq!(self.model.lying, fresh.lying);
        for (principal, ix) in self.model.principals() {
            let sorted = |model: &Model, ix| {
                let reach = model.reach(ix).unwrap();
                let at = |address| model.site(address).unwrap().name.clone();
                let mut slots: Vec<_> =
                    reach.slots.iter().map(|s| (at(s.address), s.vm, s.until_s)).collect();
                let mut quarantined: Vec<_> =
                    reach.quarantined.iter().map(|h| (at(h.address), h.vm, h.until_s)).collect();
                let name = |ix| model.reach(ix).unwrap().name.clone();
                let mut teams: Vec<_> = reach.teams.iter().map(|(t, a)| (name(*t), *a)).collect();
                let mut by_name = reach.by_name.clone();
                slots.sort();
                quarantined.sort();
                teams.sort();
                by_name.sort();
                (slots, quarantined, teams, by_name)
            };
            let here = sorted(&self.model, *ix);
            match fresh.principal_ix(principal) {
                Some(ix) => assert_eq!(here, sorted(&fresh, ix), "{principal}"),
                None => assert_eq!(here, Default::default(), "{principal} is remembered"),
            }
        }
        for site in self.model.sites() {
            let other = fresh.address_ix(&site.name).and_then(|ix| fresh.site(ix));
            let here = (site.vms.clone(), site.old, site.quarantined, site.stored.is_some());
            let there = other.map_or_else(Default::default, |site| {
                (site.vms.clone(), site.old, site.quarantined, site.stored.is_some())
            });
            assert_eq!(here, there, "{}", site.name);
        }
    }
}

#[test]
fn nobody_ever_sees_two_vms_at_one_address_nor_another_one_too_soon() {
    let count = std::env::var("KEYWAY_HISTORIES").ok().and_then(|count| count.parse().ok());
    let first = std::env::var("KEYWAY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let histories: u64 = count.unwrap_or(HISTORIES);
    let threads = 2;
    let done: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    let mut done = 0;
                    for seed in (first + worker..first + histories).step_by(2) {
                        let told = Told(seed);
                        let mut history = History::new(seed);
                        for _ in 0..STEPS {
                            history.step();
                        }
                        history.leads();
                        if seed % 16 == worker {
                            history.agrees();
                        }
                        done += history.done;
                        std::mem::forget(told);
                    }
                    done
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    // Most random commands make no sense; enough of them must.
    assert!(done > histories * 8, "{done} commands were carried out in {histories} histories");
}

/// Says which history it was, if it ends in a panic.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("KEYWAY_SEED={} KEYWAY_HISTORIES=1", self.0);
    }
}

#[test]
fn the_oracle_sees_a_vm_that_took_the_place_of_another_too_soon() {
    let mut truth = Truth::default();
    let vm = |name: &str| {
        let json = format!(
            r#"{{"name":"{name}","id":"{name}","owner":"u0","address":"s0","ssh":"127.0.0.1:22"}}"#
        );
        Document::Vm(Box::new(serde_json::from_str(&json).unwrap()))
    };
    truth.documents.insert(Key::Vm(Serial(1)), (vm("a"), 1));
    truth.look(1_000, 100);
    truth.documents.clear();
    truth.documents.insert(Key::Vm(Serial(2)), (vm("b"), 2));
    let soon = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| truth.look(1_099, 100)));
    assert!(soon.is_err());
    truth.last.insert(
        (Principal::User(Label::new("u0").unwrap()), Label::new("s0").unwrap()),
        (Serial(1), 1_000),
    );
    truth.look(1_100, 100);
    truth.documents.insert(Key::Vm(Serial(3)), (vm("c"), 3));
    let two = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| truth.look(1_100, 100)));
    assert!(two.is_err());
}

#[test]
fn settings_of_a_vm_change_nobodys_way() {
    let mut history = History::new(7);
    for _ in 0..STEPS {
        history.step();
    }
    let vms: Vec<Label> = history.model.vm_names().keys().cloned().collect();
    for name in vms {
        let login = Some("root".to_owned());
        let set = VmSettings { login, ..VmSettings::default() };
        history.carry_out(&Command::VmSet { name, set }, false);
        history.truth.look(history.now_s, QUARANTINE_S);
    }
    history.agrees();
}
