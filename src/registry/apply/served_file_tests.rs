//! What a served file may do by itself, and what somebody has to say yes to.

use std::sync::Arc;

use super::super::doings::NAMES_MAX;
use super::*;
use crate::registry::command::Command;
use crate::registry::fleet::{FleetEdge, FleetUser};
use crate::registry::store::StoreId;
use crate::registry::store::testing::memory::Memory;
use crate::registry::writer::{CommandRequest, Start};
use crate::registry::{Label, Limits, Options};
use crate::ssh::entropy::Entropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::testing::Seeded;

fn service() -> Service {
    Service::start(Start {
        store: Arc::new(Memory::new(StoreId([7; 16]))),
        limits: Limits::default(),
        now_s: || 1_000_000,
        entropy: Box::new(Seeded(1)),
        known: None,
        follow: Box::new(|_| ()),
    })
    .unwrap()
}

fn actor() -> Actor {
    Actor { name: "test".to_owned(), from: "test".to_owned() }
}

fn user(name: &str, keys: &[String]) -> FleetUser {
    FleetUser { name: Label::new(name).unwrap(), keys: keys.to_vec(), origin: None }
}

/// Users `u0` to `u<count - 1>`.
fn users(count: usize) -> Fleet {
    let users = (0..count).map(|number| user(&format!("u{number}"), &[])).collect();
    Fleet { users, ..Fleet::default() }
}

fn served(service: &Service, fleet: &Fleet, most: RemovalsMax) -> Outcome {
    carry_out(service, fleet, most, None, &actor(), Mode::Real).unwrap()
}

fn command(service: &Service, command: Command) {
    let options = Options { renumber: false, ..Options::default() };
    let order = CommandRequest { command, options, expected: None, actor: actor() };
    service.carry_out(order, Mode::Real).unwrap();
}

#[test]
fn an_empty_file_is_never_carried_out() {
    let service = service();
    served(&service, &users(3), RemovalsMax::Usual);
    for most in [RemovalsMax::Usual, RemovalsMax::Things(u32::MAX)] {
        let outcome = served(&service, &Fleet::default(), most);
        assert_eq!(outcome.ended, Ended::HeldBack(HeldBack::Empty));
        let allowed = Some(outcome.planned);
        let again =
            carry_out(&service, &Fleet::default(), most, allowed, &actor(), Mode::Real).unwrap();
        assert_eq!(again.ended, Ended::HeldBack(HeldBack::Empty));
        assert!(again.trouble().unwrap().contains("empty"), "{again:?}");
    }
    assert_eq!(service.read(|model| model.users().len()), 3);
}

#[test]
fn more_than_ten_things_and_a_tenth_of_a_kind_are_not_removed_by_a_file_alone() {
    let cases = [
        (20, 10, RemovalsMax::Usual, true),
        (100, 89, RemovalsMax::Usual, false),
        (100, 90, RemovalsMax::Usual, true),
        (110, 99, RemovalsMax::Usual, true),
        (110, 104, RemovalsMax::Things(5), false),
        (110, 105, RemovalsMax::Things(5), true),
        (110, 1, RemovalsMax::Things(109), true),
        (3, 2, RemovalsMax::Things(0), false),
    ];
    for (before, after, most, carried_out) in cases {
        let service = service();
        served(&service, &users(before), most);
        let outcome = served(&service, &users(after), most);
        let case = format!("{before} -> {after}, {most:?}");
        assert_eq!(outcome.ended == Ended::Applied, carried_out, "{case}: {outcome:?}");
        assert_eq!(outcome.tally.users.removed, (before - after) as u64, "{case}");
        let stand = if carried_out { after } else { before };
        assert_eq!(service.read(|model| model.users().len()), stand, "{case}");
        let told = format!("{} of {before} users", before - after);
        assert!(carried_out || outcome.trouble().unwrap().contains(&told), "{case}");
    }
}

#[test]
fn what_a_file_cannot_remove_does_not_make_its_removals_few() {
    let service = service();
    for number in 0..1000 {
        let name = Label::new(&format!("by-hand-{number}")).unwrap();
        command(&service, Command::UserAdd { name, keys: Vec::new() });
    }
    served(&service, &users(40), RemovalsMax::Usual);
    let outcome = served(&service, &users(1), RemovalsMax::Usual);
    assert!(outcome.trouble().unwrap().contains("39 of 40 users"), "{outcome:?}");
    assert_eq!(service.read(|model| model.users().len()), 1040);
}

#[test]
fn nodes_that_a_file_no_longer_names_count_among_its_removals() {
    let fleet = |nodes: usize| {
        let node = |number: usize| format!("[[node]]\nname = 'n{number}'\n");
        let text = "[[user]]\nname = 'alice'\n".to_owned();
        toml::from_str::<Fleet>(&(text + &(0..nodes).map(node).collect::<String>())).unwrap()
    };
    let service = service();
    let added = served(&service, &fleet(20), RemovalsMax::Usual);
    assert_eq!((added.tally.nodes.added, service.read(|model| model.nodes().len())), (20, 20));
    let outcome = served(&service, &fleet(8), RemovalsMax::Usual);
    assert!(outcome.trouble().unwrap().contains("12 of 20 nodes"), "{outcome:?}");
    assert_eq!(service.read(|model| model.nodes().len()), 20);
    let outcome = served(&service, &fleet(15), RemovalsMax::Usual);
    assert_eq!(outcome.told(), Ok("5 nodes removed".to_owned()));
}

#[test]
fn an_agent_that_has_joined_stays_the_one_of_a_node_whose_key_the_file_does_not_say() {
    let fleet = |agent: &str| {
        let text =
            format!("[[user]]\nname = 'alice'\n[[node]]\nname = 'n'\ntrusted = true\n{agent}");
        toml::from_str::<Fleet>(&text).unwrap()
    };
    let service = service();
    let label = Label::new("n").unwrap();
    let node = || service.read(|model| model.nodes()[&label].document.clone());
    let key = |of: u8| Some(crate::ssh::publickey::Fingerprint([of; 32]).to_string());
    served(&service, &fleet("agent = '10.0.0.1:7'\n"), RemovalsMax::Usual);
    assert_eq!(node().agent.unwrap().key, None);
    let (name, hash) = (Label::new("n").unwrap(), "a".to_owned());
    let token = Command::NodeToken { name: name.clone(), hash: hash.clone(), expires_s: 2_000_000 };
    command(&service, token);
    // Nor does it take back a token that it knows nothing of.
    served(&service, &fleet("agent = '10.0.0.1:7'\n"), RemovalsMax::Usual);
    command(&service, Command::NodeJoin { name, hash, key: key(1).unwrap() });
    let again = served(&service, &fleet("agent = '10.0.0.1:7'\n"), RemovalsMax::Usual);
    assert_eq!((again.tally.nodes.changed, node().agent.unwrap().key), (0, key(1)));
    served(&service, &fleet("agent = '10.0.0.2:7'\n"), RemovalsMax::Usual);
    let agent = node().agent.unwrap();
    assert_eq!((agent.at.to_string().as_str(), agent.key), ("10.0.0.2:7", key(1)));
    let other = key(2).unwrap();
    let says = fleet(&format!("agent = '10.0.0.2:7'\nagent_key = '{other}'\n"));
    served(&service, &says, RemovalsMax::Usual);
    assert_eq!(node().agent.unwrap().key, Some(other));
    served(&service, &fleet(""), RemovalsMax::Usual);
    assert_eq!(node().agent, None);
}

/// Twelve users, of whom `members` are in team `ops`, and a VM that is shared with
/// `shares` of them.
fn shared(members: usize, shares: usize) -> Fleet {
    let names = |count: usize| (0..count).map(|number| format!("'u{number}'")).collect::<Vec<_>>();
    let (members, shares) = (names(members).join(","), names(shares).join(","));
    let vm = "[[vm]]\nname='v'\nowner='boss'\nssh='127.0.0.1:22'\nno_address=true";
    let text = format!(
        "[[user]]\nname='boss'\n[[team]]\nname='ops'\nmembers=[{members}]\n{vm}\nshare_by_name=[{shares}]\n"
    );
    let Fleet { users: all, .. } = users(12);
    let mut fleet: Fleet = toml::from_str(&text).unwrap();
    fleet.users.extend(all);
    fleet
}

#[test]
fn memberships_and_shares_that_a_file_drops_are_held_back_too() {
    let service = service();
    let first = served(&service, &shared(12, 12), RemovalsMax::Usual);
    assert_eq!(first.ended, Ended::Applied, "{first:?}");
    let cases = [
        (shared(0, 12), "12 of 12 memberships"),
        (shared(12, 0), "12 of 12 shares"),
        (shared(6, 7), "6 of 12 memberships, 5 of 12 shares"),
    ];
    for (fleet, told) in cases {
        let outcome = served(&service, &fleet, RemovalsMax::Usual);
        assert!(outcome.trouble().unwrap().contains(told), "{told}: {outcome:?}");
    }
    // Whoever goes takes no membership along that would count beside.
    let mut fewer = shared(5, 5);
    fewer.users.truncate(1 + 5);
    let outcome = served(&service, &fewer, RemovalsMax::Things(7));
    assert_eq!(outcome.ended, Ended::Applied, "{outcome:?}");
    let Tally { users, memberships, shares, .. } = outcome.tally;
    assert_eq!((users.removed, memberships.removed, shares.removed), (7, 0, 0));
    let again = served(&service, &fewer, RemovalsMax::Usual);
    assert_eq!(again.told().unwrap(), "all is as it says");
}

#[test]
fn what_somebody_has_seen_and_meant_is_carried_out_if_it_is_still_that() {
    let service = service();
    let (before, after) = (users(40), users(1));
    served(&service, &before, RemovalsMax::Usual);
    let shown = service.read(|model| plan(&after, model, RemovalsMax::Usual)).unwrap();
    assert!(shown.held.is_some());
    let sent: PlannedRevision = shown.at.to_string().parse().unwrap();
    assert_eq!(sent, shown.at);
    let allowed = |fleet: &Fleet| {
        carry_out(&service, fleet, RemovalsMax::Usual, Some(sent), &actor(), Mode::Real)
    };
    // The file was written anew meanwhile.
    let other = allowed(&users(2)).unwrap_err().to_string();
    assert!(other.contains("something else"), "{other}");
    let bob = Label::new("bob").unwrap();
    command(&service, Command::UserAdd { name: bob.clone(), keys: Vec::new() });
    let moved = allowed(&after).unwrap_err();
    assert!(matches!(moved, ServiceError::Refused(Refusal::Outdated { .. })), "{moved}");
    assert_eq!(service.read(|model| model.users().len()), 41);
    command(&service, Command::UserRemove { name: bob });
    let shown = service.read(|model| plan(&after, model, RemovalsMax::Usual)).unwrap();
    let outcome =
        carry_out(&service, &after, RemovalsMax::Usual, Some(shown.at), &actor(), Mode::Real)
            .unwrap();
    assert_eq!((outcome.ended, outcome.tally.users.removed), (Ended::Applied, 39));
    assert_eq!(service.read(|model| model.users().len()), 1);
    assert!("rubbish".parse::<PlannedRevision>().is_err());
}

#[test]
fn a_key_that_is_replaced_is_not_lost_and_keys_that_are_lost_count() {
    let service = service();
    let mut entropy = Seeded(7);
    let entropy: &mut dyn Entropy = &mut entropy;
    let mut keys = |count: usize| -> Vec<String> {
        (0..count).map(|_| PrivateKey::generate_ed25519(entropy).public().to_line()).collect()
    };
    let (old, new) = (keys(12), keys(12));
    let fleet = |keys: &[String]| Fleet { users: vec![user("u0", keys)], ..Fleet::default() };
    served(&service, &fleet(&old), RemovalsMax::Usual);
    let replaced = served(&service, &fleet(&new), RemovalsMax::Usual);
    assert_eq!(replaced.ended, Ended::Applied);
    let Counts { added, removed, .. } = replaced.tally.keys;
    assert_eq!((added, removed), (12, 12));
    let lost = served(&service, &fleet(&[]), RemovalsMax::Usual);
    assert!(lost.trouble().unwrap().contains("12 of 12 keys"), "{lost:?}");
    // Few enough.
    let some = served(&service, &fleet(&new[..2]), RemovalsMax::Usual);
    assert_eq!(some.ended, Ended::Applied);
}

#[test]
fn what_is_refused_keeps_nothing_else_from_being_done_and_is_told() {
    let service = service();
    command(&service, Command::UserAdd { name: Label::new("bob").unwrap(), keys: Vec::new() });
    let text = "[[user]]\nname='a'\n[[user]]\nname='bob'\n[[vm]]\nname='v'\nowner='a'\nssh='127.0.0.1:22'\n";
    let fleet: Fleet = toml::from_str(text).unwrap();
    let outcome = served(&service, &fleet, RemovalsMax::Usual);
    let trouble = outcome.trouble().unwrap();
    assert!(trouble.contains("\nadd VM v of a: pool exhausted"), "{trouble}");
    let Tally { users, vms, .. } = outcome.tally;
    assert_eq!((users.added, users.taken_over, vms.added), (1, 1, 0));
    // Only tried, it is told and not done.
    let more =
        Fleet { users: vec![user("a", &[]), user("bob", &[]), user("c", &[])], ..Fleet::default() };
    let tried =
        |mode| carry_out(&service, &more, RemovalsMax::Usual, None, &actor(), mode).unwrap();
    assert_eq!(tried(Mode::DryRun).told().unwrap(), "1 user added");
    assert_eq!(service.read(|model| model.users().len()), 2);
    assert_eq!(tried(Mode::Real).told().unwrap(), "1 user added");
    assert_eq!(tried(Mode::Real).told().unwrap(), "all is as it says");
}

#[test]
fn a_file_is_told_what_can_be_written_in_a_file() {
    let service = service();
    let vm = |name: &str, owner: &str, more: &str| {
        format!(
            "[[vm]]\nname='{name}'\nowner='{owner}'\nssh='{name}.test:22'\naddress='s1'\n{more}"
        )
    };
    let one = |number| format!("[[address]]\nname='s{number}'\npublic='127.0.77.{number}'\n");
    let addresses = one(1) + &one(2);
    let text = |more: &str| {
        let vms = vm("blue", "a", more) + &vm("green", "b", "");
        toml::from_str::<Fleet>(&format!(
            "{addresses}[[user]]\nname='a'\n[[user]]\nname='b'\n{vms}"
        ))
    };
    let first = served(&service, &text("").unwrap(), RemovalsMax::Usual);
    assert_eq!(first.ended, Ended::Applied, "{first:?}");
    let shared = served(&service, &text("share=['b']\n").unwrap(), RemovalsMax::Usual);
    let trouble = shared.trouble().unwrap();
    assert!(
        trouble.contains("b would see blue and green at s1; give it another `address`"),
        "{trouble}"
    );
    assert!(!trouble.contains("--renumber"), "{trouble}");
}

#[test]
fn the_log_names_the_first_of_each_kind_and_counts_the_others() {
    let model = Model::new(Limits::default());
    let planned = plan(&users(NAMES_MAX + 3), &model, RemovalsMax::Usual).unwrap();
    let lines: Vec<String> = Doings::of(&planned.doings).lines().collect();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("23 users added: u0, u1, u10, "), "{lines:?}");
    assert!(lines[0].ends_with(" and 3 more"), "{lines:?}");
    // A thing that is new is not changed too.
    let text = "[[user]]\nname='a'\n[[user]]\nname='b'\n[[vm]]\nname='v'\nowner='a'\nssh='127.0.0.1:22'\n\
                no_address=true\nshare_by_name=['b']\n";
    let planned = plan(&toml::from_str(text).unwrap(), &model, RemovalsMax::Usual).unwrap();
    let lines: Vec<String> = Doings::of(&planned.doings).lines().collect();
    assert_eq!(lines, ["2 users added: a, b", "1 VM added: v"]);
}

#[test]
fn edges_that_a_file_says_are_removed_hold_nothing_back_and_those_it_drops_do() {
    let edge = |of: u64, removed| FleetEdge {
        name: Label::new(&format!("e{of}")).unwrap(),
        identity: PrivateKey::generate_ed25519(&mut Seeded(of)).public().to_line(),
        removed,
        origin: None,
    };
    let file = |removed| Fleet { edges: (0..11).map(|of| edge(of, removed)).collect(), ..users(3) };
    let most = RemovalsMax::Things(0);
    // A registry that is begun anew has none of them.
    let outcome = served(&service(), &file(true), most);
    assert_eq!((outcome.ended, outcome.tally.edges.removed), (Ended::Applied, 11));
    let stood = service();
    served(&stood, &file(false), most);
    let outcome = served(&stood, &users(3), RemovalsMax::Usual);
    assert!(outcome.trouble().unwrap().contains("11 of 11 edges"), "{outcome:?}");
    assert_eq!(served(&stood, &file(true), most).ended, Ended::Applied);
}
