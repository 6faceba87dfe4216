//! Tests of host keys at their first use.

use super::*;
use crate::registry::command::{Command, NewVm, Options, Placement, VmSettings};
use crate::registry::model::{CommandContext, Limits};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;

fn label(name: &str) -> Label {
    Label::new(name).unwrap()
}

fn key() -> PublicKey {
    PrivateKey::generate_ed25519(&mut SystemEntropy::default()).public().clone()
}

struct World(Model);

impl World {
    /// One VM of each owner, of the owner's name.
    fn new(owners: &[&str]) -> Self {
        let mut world = Self(Model::new(Limits::default()));
        for owner in owners {
            world.must(&Command::UserAdd { name: label(owner), keys: Vec::new() });
            world.vm(&format!("{owner}-vm"), owner, None);
        }
        world
    }

    fn vm(&mut self, name: &str, owner: &str, host_key: Option<String>) {
        self.must(&Command::VmAdd(NewVm {
            host_key,
            placement: Placement::Nowhere,
            ..NewVm::new(label(name), Principal::User(label(owner)), "127.0.0.1:22".to_owned())
        }));
    }

    fn try_to(&mut self, command: &Command) -> Result<(), Refusal> {
        let nonce = self.0.revision() + 1;
        let mut draft = Draft::new(&mut self.0, CommandContext { now_s: 1, nonce });
        draft.carry_out(command, Options::default())?;
        let _written = draft.keep();
        Ok(())
    }

    #[track_caller]
    fn must(&mut self, command: &Command) {
        self.try_to(command).unwrap();
    }

    /// The VM with this id as it would be dialled now.
    fn dialled(&self, id: &str) -> Dialled {
        let vm = self.0.of_id(id).and_then(|serial| self.0.vm(serial));
        vm.map_or_else(Dialled::default, |vm| Dialled {
            owner: vm.document.owner.to_string(),
            endpoint: vm.document.ssh.clone(),
        })
    }

    fn show(&mut self, id: &str, key: &PublicKey) -> Result<(), Refusal> {
        let dialled = self.dialled(id);
        self.show_of(dialled, id, key)
    }

    fn show_of(&mut self, dialled: Dialled, id: &str, key: &PublicKey) -> Result<(), Refusal> {
        self.try_to(&Command::VmPin { id: id.to_owned(), key: key.to_line(), dialled })
    }

    fn wanted(&self, vm: &str) -> Option<Pin> {
        wanted(&self.0.vm_named(&label(vm)).unwrap().1.document)
    }
}

fn taken(vm: &str, of: &str) -> Refusal {
    Refusal::HostKeyTaken { vm: label(vm), of: label(of) }
}

#[test]
fn the_first_key_shown_is_the_pin_until_it_is_forgotten() {
    let mut world = World::new(&["alice"]);
    let (first, second) = (key(), key());
    assert_eq!(world.wanted("alice-vm"), None);
    world.show("alice-vm", &first).unwrap();
    let revision = world.0.vm_named(&label("alice-vm")).unwrap().1.revision;
    world.show("alice-vm", &first).unwrap();
    assert_eq!(world.0.vm_named(&label("alice-vm")).unwrap().1.revision, revision, "known already");
    let other = world.show("alice-vm", &second).unwrap_err();
    assert_eq!(other.code(), "host-key-changed");
    assert_eq!(world.wanted("alice-vm"), Some(Pin::of_key(first.blob())));

    let forget = Command::VmUnpin { name: label("alice-vm") };
    world.must(&forget);
    assert_eq!(world.try_to(&forget).unwrap_err().code(), "not-found");
    world.show("alice-vm", &second).unwrap();
    assert_eq!(world.wanted("alice-vm"), Some(Pin::of_key(second.blob())));
}

#[test]
fn a_key_of_another_owners_vm_is_not_pinned_however_it_is_known() {
    let mut world = World::new(&["alice", "bob"]);
    let (pinned, by_line, by_print) = (key(), key(), key());
    world.show("alice-vm", &pinned).unwrap();
    world.vm("line", "alice", Some(by_line.to_line()));
    world.vm("print", "alice", Some(by_print.fingerprint().to_string()));
    for (key, of) in [(&pinned, "alice-vm"), (&by_line, "line"), (&by_print, "print")] {
        assert_eq!(world.show("bob-vm", key).unwrap_err(), taken("bob-vm", of));
    }
    assert_eq!(world.wanted("bob-vm"), None);
    // The owner's own clone is the owner's business, and whoever gives the key knows what it is.
    world.vm("clone", "alice", None);
    world.show("clone", &pinned).unwrap();
    let host_key = Some(pinned.to_line());
    let set = VmSettings { host_key, ..VmSettings::default() };
    world.must(&Command::VmSet { name: label("bob-vm"), set });
    world.show("bob-vm", &pinned).unwrap();
}

#[test]
fn a_pin_goes_with_its_vm_to_another_owner_and_away() {
    let mut world = World::new(&["alice", "bob"]);
    let key = key();
    world.show("alice-vm", &key).unwrap();
    let to = Principal::User(label("bob"));
    world.must(&Command::VmTransfer { name: label("alice-vm"), to, keep: None });
    world.show("bob-vm", &key).unwrap();
    world.vm("alices", "alice", None);
    assert_eq!(world.show("alices", &key).unwrap_err().code(), "host-key-taken");
    world.must(&Command::VmRename { name: label("alice-vm"), to: label("old") });
    assert_eq!(world.wanted("old"), Some(Pin::of_key(key.blob())));
    for name in ["old", "bob-vm"] {
        world.must(&Command::VmRemove { name: label(name) });
    }
    world.show("alices", &key).unwrap();
    assert!(world.show("gone", &key).unwrap_err().code() == "not-found");
}

#[test]
fn what_is_given_counts_and_a_fingerprint_becomes_the_key_that_has_it() {
    let mut world = World::new(&["alice"]);
    let (first, given) = (key(), key());
    world.show("alice-vm", &first).unwrap();
    let set = |text: String| {
        let set = VmSettings { host_key: Some(text), ..VmSettings::default() };
        Command::VmSet { name: label("alice-vm"), set }
    };
    world.must(&set(given.fingerprint().to_string()));
    assert_eq!(world.wanted("alice-vm"), Some(Pin::Fingerprint(given.fingerprint().0)));
    assert_eq!(world.show("alice-vm", &first).unwrap_err().code(), "host-key-changed");
    world.show("alice-vm", &given).unwrap();
    assert_eq!(world.wanted("alice-vm"), Some(Pin::of_key(given.blob())));
    world.must(&set(String::new()));
    assert_eq!(world.wanted("alice-vm"), Some(Pin::of_key(given.blob())), "it showed this");
    let dialled = world.dialled("alice-vm");
    let nonsense = Command::VmPin { id: "alice-vm".into(), key: "x".into(), dialled };
    assert_eq!(world.try_to(&nonsense).unwrap_err().code(), "invalid");
}

#[test]
fn a_key_is_pinned_to_what_was_dialled_and_not_to_what_has_its_id_by_then() {
    let mut world = World::new(&["alice", "bob"]);
    let (key, elsewhere) = (key(), Refusal::HostKeyElsewhere { vm: label("box") });
    world.vm("box", "alice", None);
    let hers = world.dialled("box");
    world.must(&Command::VmRemove { name: label("box") });
    world.vm("box", "bob", None);
    assert_eq!(world.show_of(hers, "box", &key), Err(elsewhere.clone()), "it is his by now");

    let before = world.dialled("box");
    let set = VmSettings { ssh: Some("127.0.0.1:23".into()), ..VmSettings::default() };
    world.must(&Command::VmSet { name: label("box"), set });
    assert_eq!(
        world.show_of(before, "box", &key),
        Err(elsewhere.clone()),
        "it is elsewhere by now"
    );

    let his = world.dialled("box");
    let to = Principal::User(label("alice"));
    world.must(&Command::VmTransfer { name: label("box"), to, keep: None });
    assert_eq!(world.show_of(his, "box", &key), Err(elsewhere));
    assert_eq!(world.wanted("box"), None);
    world.show("box", &key).unwrap();
}

#[test]
fn an_entry_of_the_audit_log_from_before_what_was_dialled_was_noted_is_still_read() {
    let old = r#"{"command":"vm-pin","id":"box","key":"ssh-ed25519 AAAA"}"#;
    let read: Command = serde_json::from_str(old).unwrap();
    let dialled = Dialled::default();
    assert_eq!(read, Command::VmPin { id: "box".into(), key: "ssh-ed25519 AAAA".into(), dialled });
}

#[test]
fn a_transferred_vm_forgets_a_pin_that_somebody_elses_vm_has_and_keeps_what_was_given() {
    let mut world = World::new(&["alice", "bob"]);
    let (cloned, of_line, own) = (key(), key(), key());
    let to = |world: &mut World, name: &str, owner: &str| {
        let to = Principal::User(label(owner));
        world.must(&Command::VmTransfer { name: label(name), to, keep: None });
    };
    world.vm("one", "alice", None);
    world.vm("two", "alice", None);
    for vm in ["one", "two"] {
        world.show(vm, &cloned).unwrap();
    }
    to(&mut world, "two", "bob");
    assert_eq!(world.wanted("two"), None, "alice's other clone could answer for it");
    assert_eq!(world.show("two", &cloned).unwrap_err(), taken("two", "one"));
    assert_eq!(world.wanted("one"), Some(Pin::of_key(cloned.blob())));

    // However the former owner's VM has it; and together with its clone a VM keeps it.
    world.vm("three", "alice", Some(of_line.fingerprint().to_string()));
    world.vm("four", "alice", None);
    world.show("four", &of_line).unwrap();
    to(&mut world, "four", "bob");
    assert_eq!(world.wanted("four"), None);
    world.show("four", &own).unwrap();
    to(&mut world, "four", "alice");
    assert_eq!(world.wanted("four"), Some(Pin::of_key(own.blob())), "nobody else has it");

    world.vm("five", "alice", Some(cloned.to_line()));
    to(&mut world, "five", "bob");
    assert_eq!(world.wanted("five"), Some(Pin::of_key(cloned.blob())), "it was given");
}

#[test]
fn a_pin_does_not_come_back_when_another_key_that_was_given_is_taken_away() {
    let mut world = World::new(&["alice", "bob"]);
    let (old, given) = (key(), key());
    let set = |world: &mut World, text: String| {
        let set = VmSettings { host_key: Some(text), ..VmSettings::default() };
        world.must(&Command::VmSet { name: label("alice-vm"), set });
    };
    for text in [given.to_line(), given.fingerprint().to_string()] {
        world.show("alice-vm", &old).unwrap();
        set(&mut world, text);
        world.show("bob-vm", &old).unwrap();
        world.must(&Command::VmUnpin { name: label("bob-vm") });
        set(&mut world, String::new());
        assert_eq!(world.wanted("alice-vm"), None, "what it shows next is pinned");
    }

    // A pin that is what was given stays.
    world.show("alice-vm", &old).unwrap();
    for text in [old.fingerprint().to_string(), old.to_line(), String::new()] {
        set(&mut world, text);
        assert_eq!(world.wanted("alice-vm"), Some(Pin::of_key(old.blob())));
    }

    // As a store may say that was written before this rule.
    let (serial, stored) = world.0.vm_named(&label("alice-vm")).unwrap();
    let host_key = Some(given.to_line());
    let vm = Vm { host_key, ..Vm::clone(&stored.document) };
    let revision = world.0.revision();
    world.0.put(&Key::Vm(serial), Some(Document::Vm(Box::new(vm))), revision);
    set(&mut world, String::new());
    assert_eq!(world.wanted("alice-vm"), None);
}
