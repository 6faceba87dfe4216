//! What commands do, and what they say when they do not.

use super::command::{Command, NewAddress, NewVm, Options, Placement, Thing, VmSettings};
use super::document::{Access, AddressState, Origin, VmState};
use super::draft::{Draft, Report};
use super::model::{CommandContext, Limits, Model};
use super::name::{Label, Principal};
use super::refusal::{Refusal, utc};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;

const NOW_S: u64 = 1_000_000;

fn label(name: &str) -> Label {
    Label::new(name).unwrap()
}

fn principal(name: &str) -> Principal {
    name.parse().unwrap()
}

/// A model under a clock that the test sets.
struct World {
    model: Model,
    now_s: u64,
    nonce: u64,
}

impl World {
    /// Users alice, bob, carol and a pool of so many addresses.
    fn new(addresses: u8) -> Self {
        let mut world = Self { model: Model::new(Limits::default()), now_s: NOW_S, nonce: 0 };
        for name in ["alice", "bob", "carol"] {
            world.must(&Command::UserAdd { name: label(name), keys: vec![] });
        }
        for last in 1..=addresses {
            let public = Some([127, 0, 77, last].into());
            let address = NewAddress { public, ..NewAddress::default() };
            world.must(&Command::AddressAdd { name: label(&format!("s{last:03}")), address });
        }
        world
    }

    fn run(&mut self, command: &Command, renumber: bool) -> Result<Report, Refusal> {
        self.nonce += 1;
        let stamp = CommandContext { now_s: self.now_s, nonce: self.nonce };
        let mut draft = Draft::new(&mut self.model, stamp);
        draft.carry_out(command, Options { renumber, ..Options::default() })?;
        Ok(draft.keep().1)
    }

    fn must(&mut self, command: &Command) -> Report {
        self.run(command, false).unwrap_or_else(|refusal| panic!("{command:?}: {refusal}"))
    }

    fn refused(&mut self, command: &Command) -> String {
        let before = format!("{:?}", self.model);
        let refusal = self.run(command, false).unwrap_err();
        assert_eq!(format!("{:?}", self.model).len(), before.len(), "{command:?} left something");
        format!("{}: {refusal}", refusal.code())
    }

    fn vm(&mut self, name: &str, owner: &str) -> Report {
        self.must(&add(name, owner, Placement::Chosen))
    }

    fn address(&self, name: &str) -> Option<String> {
        let (_, vm) = self.model.vm_named(&label(name)).unwrap();
        vm.document.address.as_ref().map(ToString::to_string)
    }
}

fn add(name: &str, owner: &str, placement: Placement) -> Command {
    Command::VmAdd(NewVm {
        placement,
        ..NewVm::new(label(name), principal(owner), format!("{name}.vm.test:22"))
    })
}

fn share(name: &str, with: &str) -> Command {
    Command::VmShare { name: label(name), with: principal(with), access: Access::Slot }
}

#[test]
fn an_address_loses_its_ipv6_only_where_nothing_stands() {
    let mut world = World::new(1);
    let name = label("s001");
    let with = |address: NewAddress| Command::AddressSet { name: label("s001"), address };
    let both = NewAddress {
        public6: Some("fd00::1".parse().unwrap()),
        private: Some("10.0.0.1".parse().unwrap()),
        ..NewAddress::default()
    };
    world.must(&with(both));
    world.vm("blue", "alice");
    let no_public6 = with(NewAddress { no_public6: true, ..NewAddress::default() });
    assert!(world.refused(&no_public6).starts_with("in-use: "));
    world.must(&with(NewAddress { no_private: true, ..NewAddress::default() }));
    let is = |world: &World| {
        let address = &world.model.address(&name).unwrap().document;
        (address.public6.is_some(), address.private.is_some())
    };
    assert_eq!(is(&world), (true, false));
    world.must(&Command::VmRemove { name: label("blue") });
    world.now_s += 10_000;
    world.must(&Command::Sweep);
    world.must(&no_public6);
    assert_eq!(is(&world), (false, false));
}

#[test]
fn each_vm_of_one_owner_gets_its_own_address_and_owners_share_them() {
    let mut world = World::new(2);
    world.vm("a1", "alice");
    world.vm("a2", "alice");
    world.vm("b1", "bob");
    world.vm("b2", "bob");
    assert_ne!(world.address("a1"), world.address("a2"));
    assert_ne!(world.address("b1"), world.address("b2"));
}

#[test]
fn a_pool_that_is_exhausted_for_somebody_says_for_whom_and_what_to_do() {
    let mut world = World::new(2);
    world.vm("a1", "alice");
    world.vm("a2", "alice");
    assert_eq!(
        world.refused(&add("a3", "alice", Placement::Chosen)),
        "pool-exhausted: pool exhausted for alice: sees 2 VMs, the pool has 2 ready addresses; add an address \
         (`keyway address add`), or grant by name (`keyway vm add --no-address`, `keyway vm share --by-name`, `keyway team join \
         --by-name`)"
    );
    world.must(&add("a3", "alice", Placement::Nowhere));
    assert_eq!(world.address("a3"), None);
}

#[test]
fn a_share_that_would_show_somebody_two_vms_is_refused_or_moves_the_shared_one() {
    let mut world = World::new(2);
    world.must(&add("blue", "alice", Placement::At(label("s001"))));
    world.must(&add("green", "bob", Placement::At(label("s001"))));
    assert_eq!(
        world.refused(&share("blue", "bob")),
        "conflict: bob would see blue and green at s001; ask for a renumbering (--renumber; --dry-run shows it), or \
         grant by name (`keyway vm share --by-name`, `keyway team join --by-name`)"
    );
    let report = world.run(&share("blue", "bob"), true).unwrap();
    let [moved] = report.moves.as_slice() else { panic!("{report:?}") };
    assert_eq!((moved.vm.as_str(), moved.to.as_str()), ("blue", "s002"));
    // Bob never had blue at its old address, and has green there.
    assert_eq!(moved.old_for, [principal("alice")]);
    assert_eq!(world.address("green").as_deref(), Some("s001"));
}

#[test]
fn a_renumbering_is_offered_only_where_one_would_help() {
    let mut world = World::new(1);
    world.vm("blue", "alice");
    world.vm("green", "bob");
    let told = "conflict: bob would see blue and green at s001; ";
    let full = world.refused(&share("blue", "bob"));
    assert!(full.starts_with(&format!("{told}no other address is free for it")), "{full}");
    let other = "; name another address, or none to have one chosen";
    let named = world.refused(&add("red", "bob", Placement::At(label("s001"))));
    assert_eq!(named, format!("conflict: bob would see red and green at s001{other}"));
    // Asked for, it is told why there is none.
    let renumbered = world.run(&share("blue", "bob"), true).unwrap_err();
    assert_eq!(renumbered.code(), "pool-exhausted");
}

#[test]
fn a_moved_vm_is_still_reached_at_its_old_address_until_the_quarantine_is_over() {
    let mut world = World::new(2);
    world.vm("blue", "alice");
    assert_eq!(world.address("blue").as_deref(), Some("s001"));
    let report = world.must(&Command::VmRenumber { name: label("blue"), to: Placement::Chosen });
    assert_eq!(report.moves[0].old_for, [principal("alice")]);
    // Neither address takes another VM of alice's: one is blue's, one still leads there.
    let refused = world.refused(&add("green", "alice", Placement::Chosen));
    assert!(refused.starts_with("pool-exhausted"), "{refused}");
    world.now_s += 3600;
    world.must(&Command::Sweep);
    let refused = world.refused(&add("green", "alice", Placement::At(label("s001"))));
    assert!(refused.contains("not long ago"), "{refused}");
    world.now_s += 3600;
    world.must(&Command::Sweep);
    world.must(&add("green", "alice", Placement::At(label("s001"))));
}

#[test]
fn a_deleted_vm_leaves_its_slot_to_no_other_until_the_quarantine_is_over() {
    let mut world = World::new(1);
    world.vm("blue", "alice");
    world.must(&Command::VmRemove { name: label("blue") });
    assert!(world.refused(&add("green", "alice", Placement::Chosen)).starts_with("pool-exhausted"));
    world.must(&add("red", "bob", Placement::Chosen));
    world.now_s += 3600;
    world.must(&add("green", "alice", Placement::Chosen));
}

#[test]
fn a_vm_that_is_made_anew_by_its_owner_where_it_was_takes_its_slot_back() {
    let mut world = World::new(1);
    world.vm("blue", "alice");
    world.must(&share("blue", "bob"));
    let (serial, _) = world.model.vm_named(&label("blue")).unwrap();
    let anew = |name: &str, owner: &str, ssh: &str, placement: Placement| {
        let Command::VmAdd(new) = add(name, owner, placement) else { unreachable!() };
        Command::VmAdd(NewVm { ssh: ssh.to_owned(), ..new })
    };
    let there = Placement::At(label("s001"));
    world.must(&Command::VmRemove { name: label("blue") });
    // Another endpoint is another machine, and of another owner it is another's.
    let other = world.refused(&anew("blue", "alice", "other.vm.test:22", there.clone()));
    assert!(other.starts_with("conflict: alice could reach a VM at s001 that is gone"), "{other}");
    let bobs = world.refused(&anew("blue", "bob", "blue.vm.test:22", there.clone()));
    assert!(bobs.starts_with("conflict: bob could reach"), "{bobs}");
    world.must(&anew("navy", "alice", "blue.vm.test:22", there));
    let (again, vm) = world.model.vm_named(&label("navy")).unwrap();
    assert_eq!((again, vm.document.pin.as_ref(), vm.document.shares.len()), (serial, None, 0));
    // Bob held it too, and it is the same one.
    world.must(&share("navy", "bob"));
    // A second one at the same endpoint is another, as long as the first one stands.
    let second = world.refused(&anew("green", "alice", "blue.vm.test:22", Placement::Chosen));
    assert!(second.starts_with("pool-exhausted"), "{second}");
    world.must(&Command::VmTransfer { name: label("navy"), to: principal("carol"), keep: None });
    let second = world.refused(&anew("green", "alice", "blue.vm.test:22", Placement::Chosen));
    assert!(second.starts_with("pool-exhausted"), "{second}");
}

#[test]
fn what_another_history_knew_of_a_vm_gives_its_owner_the_slot_back_too() {
    for removed in [true, false] {
        let mut before = World::new(1);
        before.vm("blue", "alice");
        before.must(&share("blue", "bob"));
        let (serial, _) = before.model.vm_named(&label("blue")).unwrap();
        if removed {
            before.must(&Command::VmRemove { name: label("blue") });
        }
        let mut world = World::new(1);
        world.must(&Command::QuarantineWays { ways: before.model.ways() });
        let at = || Placement::At(label("s001"));
        let bobs = world.refused(&add("blue", "bob", at()));
        assert!(bobs.starts_with("conflict: bob could reach"), "{bobs}");
        let other = world.refused(&add("navy", "alice", at()));
        assert!(other.starts_with("conflict: alice could reach"), "{other}");
        world.must(&add("blue", "alice", at()));
        assert_eq!(world.model.vm_named(&label("blue")).unwrap().0, serial);
    }
}

#[test]
fn a_vm_that_is_made_anew_goes_where_it_was_though_others_are_less_loaded() {
    let mut world = World::new(3);
    let at = |name: &str| Placement::At(label(name));
    world.must(&add("b1", "bob", at("s003")));
    world.must(&add("a1", "alice", at("s003")));
    world.must(&Command::VmRemove { name: label("a1") });
    world.vm("a1", "alice");
    assert_eq!(world.address("a1").as_deref(), Some("s003"));
    world.must(&Command::VmRemove { name: label("a1") });
    let drain = Command::AddressState { name: label("s003"), state: AddressState::Drain };
    world.must(&drain);
    world.vm("a1", "alice");
    assert_eq!(world.address("a1").as_deref(), Some("s001"));
}

#[test]
fn settings_and_moves_make_a_files_vm_nobody_elses() {
    let mut world = World::new(2);
    world.vm("blue", "alice");
    let name = label("blue");
    world.must(&Command::TakeOver { thing: Thing::Vm(name.clone()) });
    world.must(&Command::TakeOver { thing: Thing::Address(label("s001")) });
    let set = VmSettings { state: Some(VmState::Maint), ..VmSettings::default() };
    world.must(&Command::VmSet { name: name.clone(), set });
    world.must(&Command::VmRenumber { name: name.clone(), to: Placement::At(label("s002")) });
    world.must(&Command::VmRename { name, to: label("navy") });
    let private = Some("10.0.0.1".parse().unwrap());
    let address = NewAddress { private, ..NewAddress::default() };
    world.must(&Command::AddressSet { name: label("s001"), address });
    let (_, vm) = world.model.vm_named(&label("navy")).unwrap();
    assert_eq!(vm.document.origin, Origin::Fleet);
    assert_eq!(world.model.address(&label("s001")).unwrap().document.origin, Origin::Fleet);
}

#[test]
fn who_leaves_a_team_takes_its_memory_along() {
    let mut world = World::new(1);
    world.must(&Command::TeamAdd { name: label("ops"), members: vec![label("bob")] });
    world.vm("shared", "team:ops");
    world.must(&Command::TeamLeave { team: label("ops"), user: label("bob") });
    assert!(world.refused(&add("own", "bob", Placement::Chosen)).starts_with("pool-exhausted"));
    world.must(&add("own", "carol", Placement::Chosen));
}

#[test]
fn a_member_by_name_takes_no_slot() {
    let mut world = World::new(1);
    world.must(&Command::TeamAdd { name: label("ops"), members: vec![label("alice")] });
    world.vm("shared", "team:ops");
    world.vm("own", "bob");
    let join = |access| Command::TeamJoin { team: label("ops"), user: label("bob"), access };
    let refused = world.refused(&join(Access::Slot));
    assert!(refused.contains("bob would see shared and own at s001"), "{refused}");
    world.must(&join(Access::ByName));
    let refused = world.refused(&join(Access::Slot));
    assert!(refused.contains("bob would see shared and own at s001"), "{refused}");
}

#[test]
fn an_address_that_is_drained_takes_nothing_and_an_address_in_use_stays() {
    let mut world = World::new(2);
    world.must(&add("blue", "alice", Placement::At(label("s001"))));
    let state = AddressState::Drain;
    world.must(&Command::AddressState { name: label("s001"), state });
    assert_eq!(
        world.refused(&add("green", "bob", Placement::At(label("s001")))),
        "address-not-ready: address `s001` takes no VMs: it is being drained; name another, or none to have one chosen"
    );
    assert_eq!(
        world.refused(&Command::AddressRemove { name: label("s001") }),
        "in-use: address `s001` is in use: 1 VM there; move them first (`keyway address drain`)"
    );
    world.must(&Command::VmRenumber { name: label("blue"), to: Placement::Chosen });
    assert_eq!(world.address("blue").as_deref(), Some("s002"));
    let refused = world.refused(&Command::AddressRemove { name: label("s001") });
    assert!(refused.contains("not long ago"), "{refused}");
    for _ in 0..2 {
        world.now_s += 3600;
        world.must(&Command::Sweep);
    }
    world.must(&Command::AddressRemove { name: label("s001") });
}

#[test]
fn a_name_that_means_something_else_is_refused() {
    let mut world = World::new(1);
    world.vm("blue", "alice");
    let at = Placement::Nowhere;
    assert_eq!(
        world.refused(&add("s001", "alice", at.clone())),
        "name-taken: the name `s001` is taken by an address; choose another"
    );
    assert_eq!(
        world.refused(&add("blue", "bob", at.clone())),
        "name-taken: the name `blue` is taken by another VM; choose another"
    );
    assert_eq!(
        world.refused(&add("ns", "bob", at)),
        "name-reserved: the name `ns` is reserved; choose another"
    );
    assert_eq!(
        world.refused(&Command::VmRename { name: label("blue"), to: label("s001") }),
        "name-taken: the name `s001` is taken by an address; choose another"
    );
}

#[test]
fn a_key_names_one_user() {
    let mut world = World::new(1);
    let key = PrivateKey::generate_ed25519(&mut SystemEntropy::default());
    let line = key.public().to_line();
    let key = |user| Command::KeyAdd { user: label(user), line: line.clone() };
    world.must(&key("alice"));
    let refused = world.refused(&key("bob"));
    assert!(refused.contains("is already a key of user `alice`"), "{refused}");
    let refused = world.refused(&Command::KeyAdd { user: label("bob"), line: "rubbish".into() });
    assert!(refused.starts_with("invalid: not a key that can be used"), "{refused}");
}

#[test]
fn a_renamed_vm_keeps_its_id_and_its_name_makes_another() {
    let mut world = World::new(2);
    world.vm("blue", "alice");
    world.must(&Command::VmRename { name: label("blue"), to: label("red") });
    world.vm("blue", "alice");
    let id = |name: &str| world.model.vm_named(&label(name)).unwrap().1.document.id.clone();
    assert_eq!((id("red"), id("blue")), ("blue".to_owned(), "blue_2".to_owned()));
}

#[test]
fn users_and_teams_who_own_vms_stay() {
    let mut world = World::new(2);
    world.vm("blue", "alice");
    assert_eq!(
        world.refused(&Command::UserRemove { name: label("alice") }),
        "in-use: user `alice` is in use: owns VM `blue`; transfer or remove them first (`keyway vm transfer`, `keyway \
         vm rm`)"
    );
    world.must(&Command::VmTransfer { name: label("blue"), to: principal("bob"), keep: None });
    world.must(&Command::UserRemove { name: label("alice") });
}

#[test]
fn a_time_is_written_as_rfc_3339_does() {
    assert_eq!(utc(0), "1970-01-01T00:00:00Z");
    assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
    assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
    assert_eq!(utc(4_107_542_399), "2100-02-28T23:59:59Z");
    assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
}

#[test]
fn options_of_a_key_are_kept_however_its_line_is_spaced() {
    let mut world = World::new(1);
    let key = PrivateKey::generate_ed25519(&mut SystemEntropy::default()).public().to_line();
    let (kind, blob) = key.split_once(' ').unwrap();
    for (index, blanks) in [" ", "  ", "\t", " \t "].into_iter().enumerate() {
        let line = format!("from=\"10.0.0.0/8\",restrict{blanks}{kind}{blanks}{blob}{blanks}c");
        let name = label(&format!("user{index}"));
        world.must(&Command::UserAdd { name: name.clone(), keys: vec![line] });
        let stored = &world.model.users()[&name].document.keys[0];
        assert_eq!(stored.options, "from=\"10.0.0.0/8\",restrict", "{blanks:?}");
        world.must(&Command::UserRemove { name });
    }
}

#[test]
fn a_keys_line_is_changed_where_it_stands() {
    let mut world = World::new(1);
    let mut entropy = SystemEntropy::default();
    let mut line = || PrivateKey::generate_ed25519(&mut entropy).public().to_line();
    let (one, two) = (line(), line());
    let keys = vec![format!("{one} old"), two.clone()];
    world.must(&Command::UserAdd { name: label("dora"), keys });
    let fingerprint = |world: &World, at: usize| {
        world.model.users()[&label("dora")].document.keys[at].fingerprint.clone()
    };
    let (first, second) = (fingerprint(&world, 0), fingerprint(&world, 1));
    let set = |user: &str, fingerprint: &str, line: &str| Command::KeySet {
        user: label(user),
        fingerprint: fingerprint.to_owned(),
        line: line.to_owned(),
    };
    world.must(&set("dora", &first, &format!("restrict {one} new")));
    let key = &world.model.users()[&label("dora")].document.keys[0];
    assert_eq!((key.options.as_str(), key.comment.as_str()), ("restrict", "new"));
    assert_eq!(fingerprint(&world, 1), second);
    for (command, told) in [
        (set("dora", &second, &two), "already"),
        (set("dora", &second, &one), "invalid: the line holds key"),
        (set("dora", &second, "rubbish"), "invalid: not a key that can be used"),
        (set("alice", &first, &one), "not-found: there is no key"),
        (set("nobody", &first, &one), "not-found: there is no user"),
    ] {
        let refusal = world.refused(&command);
        assert!(refusal.starts_with(told), "{refusal}");
    }
}

#[test]
fn whose_vm_it_was_may_keep_a_way_into_it() {
    let mut world = World::new(2);
    world.vm("blue", "alice");
    let transfer =
        |to: &str, keep| Command::VmTransfer { name: label("blue"), to: principal(to), keep };
    world.must(&transfer("bob", Some(Access::Slot)));
    let shares = |world: &World| {
        let (_, vm) = world.model.vm_named(&label("blue")).unwrap();
        vm.document.shares.clone().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(shares(&world), [(principal("alice"), Access::Slot)]);
    world.must(&transfer("alice", Some(Access::ByName)));
    assert_eq!(shares(&world), [(principal("bob"), Access::ByName)]);
    world.must(&transfer("bob", None));
    assert_eq!(shares(&world), []);
}

#[test]
fn a_sweep_of_many_is_done_in_parts() {
    let mut world = World::new(200);
    for number in 0..150 {
        let user = format!("u{number}");
        world.must(&Command::UserAdd { name: label(&user), keys: vec![] });
        world.vm(&format!("v{number}"), &user);
        world.must(&Command::VmRenumber {
            name: label(&format!("v{number}")),
            to: Placement::Chosen,
        });
    }
    let mut sweeps = 0;
    for _ in 0..2 {
        world.now_s += 3600;
        loop {
            world.nonce += 1;
            let stamp = CommandContext { now_s: world.now_s, nonce: world.nonce };
            let mut draft = Draft::new(&mut world.model, stamp);
            draft.carry_out(&Command::Sweep, Options::default()).unwrap();
            let (written, _) = draft.keep();
            assert!(written.len() < 100, "{}", written.len());
            if written.is_empty() {
                break;
            }
            sweeps += 1;
        }
    }
    assert!(sweeps > 4, "{sweeps}");
    assert!(world.model.aging.is_empty());
}
