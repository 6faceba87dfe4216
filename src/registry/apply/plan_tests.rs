//! Tests of `fleet_commands`: random registries against random fleets.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::registry::command::Options;
use crate::registry::draft::Draft;
use crate::registry::fleet::{FleetNode, FleetTeam, FleetUser};
use crate::registry::model::{CommandContext, Limits};
use crate::registry::testing::dice::Dice;
use crate::registry::values::parse_key;
use crate::route::{Carry, Contents};
use crate::ssh::entropy::Entropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::testing::Seeded;

fn label(name: &str) -> Label {
    Label::new(name).unwrap()
}

/// Public key lines, the same in every run.
fn lines() -> Vec<String> {
    let mut entropy = Seeded(77);
    let entropy: &mut dyn Entropy = &mut entropy;
    (0..6).map(|_| PrivateKey::generate_ed25519(entropy).public().to_line()).collect()
}

struct World {
    model: Model,
    now_s: u64,
    nonce: u64,
}

impl World {
    fn new() -> Self {
        Self {
            model: Model::new(Limits { quarantine_s: 100, ..Limits::default() }),
            now_s: 1_000,
            nonce: 0,
        }
    }

    /// A registry after so many random commands, with users, teams, addresses and
    /// keys to begin with.
    fn random(seed: u64, steps: u64) -> Self {
        let mut world = Self::new();
        let mut dice = Dice(Seeded(seed));
        let fleet = fleet(&mut dice);
        world.apply(&fleet, Prune::FromFleet);
        for _ in 0..steps {
            world.now_s += dice.below(60);
            let command = dice.command();
            let _refused_or_done = world.run(&command, dice.below(2) == 0, Origin::Command);
        }
        world
    }

    fn run(&mut self, command: &Command, renumber: bool, origin: Origin) -> Result<(), Refusal> {
        self.nonce += 1;
        let stamp = CommandContext { now_s: self.now_s, nonce: self.nonce };
        let mut draft = Draft::new(&mut self.model, stamp);
        draft.carry_out(command, Options { renumber, origin, ..Options::default() })?;
        let _written = draft.keep();
        Ok(())
    }

    /// Carries a plan out; returns what was refused.
    fn apply(&mut self, fleet: &Fleet, prune: Prune) -> Vec<String> {
        let plan = plan(fleet, &self.model, prune).unwrap();
        let mut refused = Vec::new();
        for step in plan {
            if let Err(refusal) = self.run(&step.command, true, step.origin) {
                refused.push(format!("{}: {refusal}", step.text));
            }
        }
        refused
    }

    /// Who enters which VMs, and by which keys.
    fn entering(&self) -> Entering {
        let mut entering = Entering::default();
        for (user, stored) in self.model.users() {
            let keys = stored.document.keys.iter().map(|key| key.fingerprint.clone());
            entering.keys.extend(keys.map(|key| (user.clone(), key)));
            for serial in self.model.visible_to(&Principal::User(user.clone())) {
                let vm = self.model.vm(serial).unwrap().document.name.clone();
                entering.vms.insert((user.clone(), vm));
            }
        }
        entering
    }

    fn plan(&self, fleet: &Fleet, prune: Prune) -> Vec<String> {
        plan(fleet, &self.model, prune).unwrap().into_iter().map(|step| step.text).collect()
    }
}

/// Users and VMs, users and fingerprints.
#[derive(Clone, Default)]
struct Entering {
    vms: BTreeSet<(Label, Label)>,
    keys: BTreeSet<(Label, String)>,
}

impl Entering {
    /// As a fleet says, by its lists alone.
    fn of(fleet: &Fleet) -> Self {
        let mut entering = Self::default();
        for vm in &fleet.vms {
            let others = vm.shares.iter().chain(&vm.shares_by_name);
            for principal in std::iter::once(&vm.owner).chain(others) {
                let users = match principal {
                    Principal::User(user) => vec![user.clone()],
                    Principal::Team(name) => {
                        let team = fleet.teams.iter().find(|team| team.name == *name).unwrap();
                        team.members.iter().chain(&team.members_by_name).cloned().collect()
                    }
                };
                entering.vms.extend(users.into_iter().map(|user| (user, vm.name.clone())));
            }
        }
        for user in &fleet.users {
            let keys = user.keys.iter().map(|line| parse_key(line).unwrap().fingerprint);
            entering.keys.extend(keys.map(|key| (user.name.clone(), key)));
        }
        entering
    }

    /// By the names that VMs will have.
    fn renamed(self, names: &HashMap<Label, Label>) -> Self {
        let new = |(user, vm): (Label, Label)| (user, names.get(&vm).cloned().unwrap_or(vm));
        Self { vms: self.vms.into_iter().map(new).collect(), keys: self.keys }
    }

    fn users_with_keys(&self) -> BTreeSet<&Label> {
        self.keys.iter().map(|(user, _)| user).collect()
    }
}

/// Carries a fleet out step by step. Nothing if a step is refused, else what was wrong on the way.
fn walked(world: &mut World, fleet: &Fleet) -> Option<Vec<String>> {
    let steps = plan(fleet, &world.model, Prune::Everything).unwrap();
    let renamed: HashMap<Label, Label> = steps
        .iter()
        .filter_map(|step| {
            let Command::VmRename { name, to } = &step.command else { return None };
            Some((name.clone(), to.clone()))
        })
        .collect();
    let (before, after) = (world.entering().renamed(&renamed), Entering::of(fleet));
    let mut wrong = Vec::new();
    for step in steps {
        world.run(&step.command, true, step.origin).ok()?;
        let now = world.entering().renamed(&renamed);
        for (user, vm) in before.vms.intersection(&after.vms) {
            if !now.vms.contains(&(user.clone(), vm.clone())) {
                wrong.push(format!("{}: {user} does not get into {vm}", step.text));
            }
        }
        for (user, vm) in &now.vms {
            let own = (user.clone(), vm.clone());
            if !before.vms.contains(&own) && !after.vms.contains(&own) {
                wrong.push(format!("{}: {user} gets into {vm}", step.text));
            }
        }
        for (user, key) in before.keys.intersection(&after.keys) {
            if !now.keys.contains(&(user.clone(), key.clone())) {
                wrong.push(format!("{}: {user} misses {key}", step.text));
            }
        }
        // A new key that nobody has is there before the last old one goes.
        let is_free = |key: &String| before.keys.iter().all(|(_, other)| other != key);
        for user in before.users_with_keys() {
            let mut new = after.keys.iter().filter(|(of, key)| of == user && is_free(key));
            if new.next().is_some() && !now.users_with_keys().contains(user) {
                wrong.push(format!("{}: {user} has no key", step.text));
            }
        }
    }
    let now = world.entering();
    if now.vms != after.vms || now.keys != after.keys {
        wrong.push("the end is not as the fleet says".to_owned());
    }
    Some(wrong)
}

fn addresses(dice: &mut Dice) -> Vec<FleetAddress> {
    let mut all = Vec::new();
    for last in 0..4_u8 {
        if dice.below(5) > 0 {
            let other = |dice: &mut Dice, text: &str| {
                (dice.below(3) == 0).then(|| format!("{text}{last}").parse().unwrap())
            };
            all.push(FleetAddress {
                name: label(&format!("s{last}")),
                public: [127, 0, 77, last].into(),
                public6: other(dice, "fd00::"),
                private: other(dice, "10.0.0.10"),
                lobby: false,
                state: None,
                origin: None,
            });
        }
    }
    all
}

fn nodes(dice: &mut Dice) -> Vec<FleetNode> {
    let mut all = Vec::new();
    for n in 0..3_u8 {
        if dice.below(3) > 0 {
            let key = Fingerprint([u8::try_from(dice.below(2)).unwrap() * 3 + n; 32]).to_string();
            let agent = (dice.below(4) > 0).then(|| ([10, 0, 0, n + 1], 7022).into());
            let ssh = (dice.below(2) == 0).then(|| format!("root@10.0.9.{n}:22"));
            let host_key = ssh.as_ref().filter(|_| dice.below(2) == 0);
            all.push(FleetNode {
                agent,
                agent_key: agent.map(|_| key),
                trusted: dice.below(2) == 0,
                host_key: host_key.map(|_| Fingerprint([n; 32]).to_string()),
                networks: ssh.iter().map(|_| format!("10.0.{}.0/24", dice.below(3))).collect(),
                local: ssh.is_none() && dice.below(2) == 0,
                labels: (0..dice.below(2)).map(|n| format!("zone=z{n}")).collect(),
                ssh,
                ..FleetNode::new(label(&format!("n{n}")))
            });
        }
    }
    all
}

/// A random fleet that does not contradict itself.
fn fleet(dice: &mut Dice) -> Fleet {
    let mut fleet = Fleet { addresses: addresses(dice), ..Fleet::default() };
    let users: Vec<Label> =
        (0..4).map(|n| label(&format!("u{n}"))).filter(|_| dice.below(5) > 0).collect();
    let teams: Vec<Label> =
        (0..3).map(|n| label(&format!("t{n}"))).filter(|_| dice.below(4) > 0).collect();
    let user = |name: &Label| FleetUser { name: name.clone(), keys: vec![], origin: None };
    fleet.users = users.iter().map(user).collect();
    for line in lines() {
        let at = usize::try_from(dice.below(5)).unwrap();
        let (before, after) = match dice.below(4) {
            0 => ("restrict,pty ", " a comment"),
            1 => ("from=\"10.0.0.0/8\" ", ""),
            2 => ("", " laptop"),
            _ => ("", ""),
        };
        if let Some(user) = fleet.users.get_mut(at) {
            user.keys.push(format!("{before}{line}{after}"));
        }
    }
    // Two lists of those who are in, some in neither.
    let split = |dice: &mut Dice, all: &[Principal]| {
        let (mut slot, mut by_name) = (vec![], vec![]);
        for one in all {
            match dice.below(4) {
                0 => slot.push(one.clone()),
                1 => by_name.push(one.clone()),
                _ => {}
            }
        }
        (slot, by_name)
    };
    let people: Vec<Principal> = users.iter().cloned().map(Principal::User).collect();
    for name in &teams {
        let (slot, by_name) = split(dice, &people);
        let names = |all: Vec<Principal>| all.iter().map(|one| one.label().clone()).collect();
        let (members, members_by_name) = (names(slot), names(by_name));
        let name = name.clone();
        fleet.teams.push(FleetTeam { name, members, members_by_name, origin: None });
    }
    fleet.nodes = nodes(dice);
    let nodes: Vec<Label> = fleet.nodes.iter().map(|node| node.name.clone()).collect();
    let mut all = people;
    all.extend(teams.into_iter().map(Principal::Team));
    for n in 0..6 {
        if all.is_empty() || dice.below(3) == 0 {
            continue;
        }
        let at = usize::try_from(dice.below(all.len().try_into().unwrap())).unwrap();
        let owner = all[at].clone();
        let others: Vec<Principal> = all.iter().filter(|one| **one != owner).cloned().collect();
        let (shares, shares_by_name) = split(dice, &others);
        let login = (dice.below(3) == 0).then(|| "root".to_owned());
        let host_key = (dice.below(3) == 0).then(|| lines()[0].clone());
        let name = label(&format!("v{n}"));
        fleet.vms.push(FleetVm {
            name,
            owner,
            ssh: format!("127.0.0.1:{}", 22 + dice.below(2)),
            login,
            host_key,
            source_address: (dice.below(3) == 0).then(|| "10.0.0.0/8,fd00::/8".to_owned()),
            address: None,
            no_address: dice.below(4) == 0,
            shares,
            shares_by_name,
            node: (dice.below(3) == 0 && !nodes.is_empty()).then(|| nodes[0].clone()),
            carry: [Carry::Auto, Carry::Relay][usize::try_from(dice.below(2)).unwrap()],
            id: None,
            state: None,
            origin: None,
        });
    }
    fleet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_exported_is_what_is(seed: u64, steps in 0_u64..40) {
        let world = World::random(seed, steps);
        let exported = Fleet::of(&world.model);
        for prune in [Prune::Nothing, Prune::Everything] {
            prop_assert_eq!(world.plan(&exported, prune), Vec::<String>::new());
        }
        // An agent that reads it knows the VMs as the edge does: else every login waits for it.
        let entries = |contents: Contents| {
            let mut all: Vec<_> = contents.vms.iter().map(|it| it.vm.entry()).collect();
            all.sort();
            all
        };
        prop_assert_eq!(entries(exported.contents()), entries(world.model.contents()));
        let text = serde_json::to_string(&exported).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Fleet>(&text).unwrap(), &exported);
        let toml = toml::to_string(&exported).unwrap();
        prop_assert_eq!(&toml::from_str::<Fleet>(&toml).unwrap(), &exported);
        let mut empty = World::new();
        prop_assert_eq!(empty.apply(&exported, Prune::Everything), Vec::<String>::new());
        prop_assert_eq!(Fleet::of(&empty.model), exported);
    }

    #[test]
    fn a_fleet_carried_out_is_what_is_and_takes_nothing_the_second_time(seed: u64, steps in 0_u64..40) {
        let mut world = World::random(seed, steps);
        // All that was held is free again, so that little is refused.
        world.now_s += 1_000;
        world.run(&Command::Sweep, false, Origin::Command).unwrap();
        let wanted = fleet(&mut Dice(Seeded(seed ^ 0xfeed)));
        let refused = world.apply(&wanted, Prune::Everything);
        let again = world.plan(&wanted, Prune::Everything);
        // What was refused is what is left, with whatever stood in its way.
        prop_assert_eq!(refused.is_empty(), again.is_empty(), "{:?} {:?}", refused, again);
        if refused.is_empty() {
            let mut is = Fleet::of(&world.model);
            let mut wanted = wanted;
            for address in &mut is.addresses {
                (address.state, address.origin) = (None, None);
            }
            is.users.iter_mut().for_each(|user| user.origin = None);
            is.teams.iter_mut().for_each(|team| team.origin = None);
            for (is, wanted) in is.nodes.iter_mut().zip(&wanted.nodes) {
                is.origin = None;
                // One that was confirmed stays, where nothing is said of it.
                is.host_key = is.host_key.take().filter(|_| wanted.host_key.is_some());
            }
            for (is, wanted) in is.vms.iter_mut().zip(&mut wanted.vms) {
                // What it says nothing of is as it was, and an id stays over all names.
                (is.id, is.state, is.origin) = (None, None, None);
                if !wanted.no_address {
                    // Where it stands was left open.
                    (is.address, is.no_address) = (None, false);
                }
                wanted.shares.sort();
                wanted.shares_by_name.sort();
            }
            for user in is.users.iter_mut().chain(&mut wanted.users) {
                user.keys.sort();
            }
            prop_assert_eq!(is, wanted);
        }
    }

    #[test]
    fn whoever_enters_a_vm_before_and_after_does_so_all_the_time_and_nobody_else(seed: u64, steps in 0_u64..40) {
        let mut world = World::random(seed, steps);
        world.now_s += 1_000;
        world.run(&Command::Sweep, false, Origin::Command).unwrap();
        let wrong = walked(&mut world, &fleet(&mut Dice(Seeded(seed ^ 0xfeed))));
        prop_assert_eq!(wrong.unwrap_or_default(), Vec::<String>::new());
    }

    #[test]
    fn what_a_served_file_names_is_the_files_however_it_was_made(seed: u64, steps in 0_u64..40) {
        let mut world = World::random(seed, steps);
        let exported = Fleet::of(&world.model);
        let entering = world.entering().vms;
        let taken = plan(&exported, &world.model, Prune::FromFleet).unwrap();
        let only = taken.iter().all(|step| matches!(step.command, Command::TakeOver { .. }));
        prop_assert!(only, "{:?}", taken);
        prop_assert_eq!(world.apply(&exported, Prune::FromFleet), Vec::<String>::new());
        prop_assert_eq!(world.entering().vms, entering);
        prop_assert_eq!(world.plan(&exported, Prune::FromFleet), Vec::<String>::new());
        let mut dice = Dice(Seeded(seed ^ 0xbead));
        for _ in 0..20 {
            let command = dice.command();
            if !command.word().ends_with("-add") {
                let _refused_or_done = world.run(&command, true, Origin::Command);
            }
        }
        // Commands make nothing of it theirs.
        let is = Fleet::of(&world.model);
        let addresses = is.addresses.iter().map(|it| it.origin);
        let people = is.users.iter().map(|it| it.origin).chain(is.teams.iter().map(|it| it.origin));
        let people = people.chain(is.nodes.iter().map(|it| it.origin));
        let all = addresses.chain(people).chain(is.vms.iter().map(|it| it.origin));
        prop_assert!(all.into_iter().all(|origin| origin == Some(Origin::Fleet)));
        let nobody = Fleet { addresses: is.addresses, ..Fleet::default() };
        prop_assert_eq!(world.apply(&nobody, Prune::FromFleet), Vec::<String>::new());
        prop_assert_eq!(Fleet::of(&world.model), nobody);
    }

    #[test]
    fn what_commands_made_stays_where_only_the_fleets_own_is_pruned(seed: u64, steps in 0_u64..40) {
        let world = World::random(seed, steps);
        for step in plan(&Fleet::default(), &world.model, Prune::FromFleet).unwrap() {
            let Some(subject) = step.command.subject() else { continue };
            let origin = match subject {
                Subject::Vm(name) => world.model.vm_named(name).unwrap().1.document.origin,
                Subject::Key(Key::User(name)) => world.model.users()[&name].document.origin,
                Subject::Key(Key::Team(name)) => world.model.teams()[&name].document.origin,
                Subject::Key(Key::Address(name)) => world.model.address(&name).unwrap().document.origin,
                Subject::Key(Key::Node(name)) => world.model.nodes()[&name].document.origin,
                Subject::Edge(name) => world.model.edge_named(name).unwrap().1.document.origin,
                Subject::Key(other) => panic!("{other}"),
            };
            prop_assert_eq!(origin, Origin::Fleet, "{}", step.text);
        }
        let nothing = world.plan(&Fleet::default(), Prune::Nothing);
        prop_assert_eq!(nothing, Vec::<String>::new());
    }
}

#[test]
fn most_random_fleets_are_carried_out_whole() {
    let mut whole = 0;
    for seed in 0..200 {
        let mut world = World::random(seed, 20);
        world.now_s += 1_000;
        world.run(&Command::Sweep, false, Origin::Command).unwrap();
        let wanted = fleet(&mut Dice(Seeded(seed ^ 0xfeed)));
        if walked(&mut world, &wanted).is_some() {
            whole += 1;
        }
    }
    // The others have a pool too small for what they want.
    assert!(whole > 40, "{whole} of 200");
}

fn read(toml: &str) -> Fleet {
    toml::from_str(toml).unwrap()
}

#[test]
fn a_fleet_that_contradicts_itself_is_refused_whole() {
    let (one, two) = (lines()[0].clone(), lines()[1].clone());
    let cases = [
        ("[[user]]\nname='a'\n[[user]]\nname='a'\n".to_owned(), "user `a` stands there twice"),
        (format!("[[user]]\nname='a'\nkeys=['{one}','{one}']\n"), "stands at user `a` and again"),
        (
            format!("[[user]]\nname='a'\nkeys=['{one}']\n[[user]]\nname='b'\nkeys=['{one}']\n"),
            "at `b`",
        ),
        ("[[user]]\nname='a'\nkeys=['rubbish']\n".to_owned(), "not a key that can be used"),
        (
            "[[team]]\nname='t'\nmembers=['a']\nmembers_by_name=['a']\n".to_owned(),
            "in team `t` twice",
        ),
        ("[[vm]]\nname='v'\nowner='a'\nssh='x:1'\nshare=['a']\n".to_owned(), "with `a`, its owner"),
        (
            "[[vm]]\nname='v'\nowner='a'\nssh='x:1'\nshare=['b']\nshare_by_name=['b']\n".to_owned(),
            "twice",
        ),
        (
            "[[vm]]\nname='v'\nowner='a'\nssh='x:1'\naddress='s'\nno_address=true\n".to_owned(),
            "no_address",
        ),
    ];
    let model = Model::new(Limits::default());
    for (toml, told) in cases {
        let refusal = plan(&read(&toml), &model, Prune::Nothing).unwrap_err();
        assert_eq!(refusal.code(), "invalid", "{toml}");
        assert!(refusal.to_string().contains(told), "{refusal}");
    }
    assert!(one != two);
}

#[test]
fn the_order_lets_keys_and_vms_change_hands() {
    let (one, two) = (lines()[0].clone(), lines()[1].clone());
    let mut world = World::new();
    let before = read(&format!(
        "[[address]]\nname='s0'\npublic='127.0.77.1'\n[[user]]\nname='a'\nkeys=['{one}']\n[[user]]\nname='b'\nkeys=['{two}']\n\
         [[vm]]\nname='v'\nowner='a'\nssh='127.0.0.1:22'\nshare=['b']\n"
    ));
    assert_eq!(world.apply(&before, Prune::Everything), Vec::<String>::new());
    let after = read(&format!(
        "[[address]]\nname='s0'\npublic='127.0.77.1'\n[[user]]\nname='b'\nkeys=['{one}']\n[[user]]\nname='c'\nkeys=['{two} new']\n\
         [[vm]]\nname='v'\nowner='b'\nssh='127.0.0.1:23'\nlogin='root'\nshare_by_name=['c']\n"
    ));
    let texts = world.plan(&after, Prune::Everything);
    let fingerprint = |line: &str| parse_key(line).unwrap().fingerprint;
    let (one, two) = (fingerprint(&one), fingerprint(&two));
    assert_eq!(
        texts,
        [
            format!("remove key {one} of user a"),
            format!("remove key {two} of user b"),
            format!("add key {one} to user b"),
            "add user c with keys: 1".to_owned(),
            "transfer VM v from a to b".to_owned(),
            "change VM v".to_owned(),
            "share VM v with c by name".to_owned(),
            "remove user a".to_owned(),
        ]
    );
    assert_eq!(world.apply(&after, Prune::Everything), Vec::<String>::new());
    assert_eq!(world.plan(&after, Prune::Everything), Vec::<String>::new());
}

#[test]
fn what_changes_is_changed_in_place_and_what_others_have_from_then_on_is_taken_last() {
    let (one, two) = (lines()[0].clone(), lines()[1].clone());
    let addresses = "[[address]]\nname='s0'\npublic='127.0.77.1'\n";
    let mut world = World::new();
    let before = read(&format!(
        "{addresses}[[user]]\nname='a'\nkeys=['{one}']\n[[user]]\nname='b'\n\
         [[team]]\nname='t'\nmembers=['a']\n\
         [[vm]]\nname='v'\nowner='a'\nssh='127.0.0.1:22'\nshare=['b']\n\
         [[vm]]\nname='w'\nowner='team:t'\nssh='127.0.0.1:22'\nno_address=true\n"
    ));
    assert_eq!(world.apply(&before, Prune::Everything), Vec::<String>::new());
    let after = read(&format!(
        "{addresses}[[user]]\nname='a'\nkeys=['restrict {one} new', '{two}']\n[[user]]\nname='b'\n\
         [[team]]\nname='t2'\nmembers=['a']\n\
         [[vm]]\nname='v'\nowner='b'\nssh='127.0.0.1:22'\nshare_by_name=['a']\n\
         [[vm]]\nname='w'\nowner='team:t2'\nssh='127.0.0.1:22'\nno_address=true\n"
    ));
    let texts = world.plan(&after, Prune::Everything);
    let fingerprint = |line: &str| parse_key(line).unwrap().fingerprint;
    assert_eq!(
        texts,
        [
            format!("change key {} of user a", fingerprint(&one)),
            format!("add key {} to user a", fingerprint(&two)),
            "add team t2 with members: 1".to_owned(),
            "transfer VM v from a to b".to_owned(),
            "transfer VM w from team:t to team:t2".to_owned(),
            "take VM w from team:t".to_owned(),
            "remove team t".to_owned(),
        ]
    );
    assert_eq!(walked(&mut world, &after), Some(vec![]));
}

#[test]
fn who_would_miss_a_vm_on_the_way_is_lent_it() {
    let mut world = World::new();
    let people = "[[address]]\nname='s0'\npublic='127.0.77.1'\n[[address]]\nname='s1'\npublic='127.0.77.2'\n\
                  [[user]]\nname='a'\n[[user]]\nname='b'\n[[user]]\nname='c'\n";
    let before = read(&format!(
        "{people}[[team]]\nname='t'\nmembers=['a']\n[[team]]\nname='u'\nmembers=['b']\n\
         [[vm]]\nname='v'\nowner='team:t'\nssh='127.0.0.1:22'\nshare=['team:u']\n"
    ));
    assert_eq!(world.apply(&before, Prune::Everything), Vec::<String>::new());
    // Both teams get members who must not see v by them, and t another VM, which a must not see.
    let after = read(&format!(
        "{people}[[team]]\nname='t'\nmembers=['b']\n[[team]]\nname='u'\nmembers=['a', 'c']\n\
         [[vm]]\nname='v'\nowner='a'\nssh='127.0.0.1:22'\nshare=['team:t']\n\
         [[vm]]\nname='w'\nowner='team:t'\nssh='127.0.0.1:22'\n"
    ));
    let texts = world.plan(&after, Prune::Everything);
    assert!(texts.contains(&"let user b into VM v meanwhile".to_owned()), "{texts:?}");
    assert!(texts.contains(&"user b is in VM v by other means now".to_owned()), "{texts:?}");
    assert_eq!(walked(&mut world, &after), Some(vec![]));
}

#[path = "renames_tests.rs"]
mod renames;
