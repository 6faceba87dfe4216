//! What an audience has after every change is what it would be begun with.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::route::testing::{apply, arbitrary, contents as usual, node, sorted, sound, vm};
use crate::route::{Denied, Snapshot, Who};

impl Whole for Contents {
    fn vms_on(&self, node: &str) -> Vec<VmEntry> {
        let on = |entry: &&VmEntry| entry.vm.node.as_deref() == Some(node);
        self.vms.iter().filter(on).cloned().collect()
    }

    fn node(&self, name: &str) -> Option<NodeEntry> {
        self.nodes.iter().find(|it| it.name == name).cloned()
    }

    fn addresses(&self) -> Vec<AddressEntry> {
        self.addresses.clone()
    }

    fn user(&self, name: &str) -> Option<UserEntry> {
        self.users.iter().find(|it| it.name == name).cloned()
    }

    fn team(&self, name: &str) -> Option<TeamEntry> {
        self.teams.iter().find(|it| it.name == name).cloned()
    }
}

/// The rule once more, from the other side: of everything there is, what belongs to a node.
fn model(whole: &Contents, of: &str) -> Contents {
    let mut kept = whole.clone();
    kept.nodes.retain(|node| node.name == of);
    kept.vms.retain(|entry| entry.vm.node.as_deref() == Some(of));
    let vms = kept.vms.clone();
    let named = |name: &str| {
        let names = |entry: &VmEntry| {
            entry.vm.owner == name
                || entry.by_name.iter().any(|it| it == name)
                || entry.slots.iter().any(|slot| slot.principal == name)
        };
        vms.iter().any(names)
    };
    kept.teams.retain(|team| named(&format!("team:{}", team.name)));
    let teams = kept.teams.clone();
    let is_member = |name: &String| {
        teams.iter().any(|it| it.members.contains(name) || it.members_by_name.contains(name))
    };
    kept.users.retain(|user| named(&user.name) || is_member(&user.name));
    kept
}

/// The changes between the entries of one kind.
fn between<T: Clone + PartialEq>(
    (before, after): (&[T], &[T]),
    name: impl Fn(&T) -> String,
    (put, remove): (Put<T>, fn(String) -> Change),
) -> Vec<Change> {
    let before: BTreeMap<_, _> = before.iter().map(|it| (name(it), it)).collect();
    let after: BTreeMap<_, _> = after.iter().map(|it| (name(it), it)).collect();
    let gone = before.keys().filter(|name| !after.contains_key(*name)).cloned().map(remove);
    let new = after.iter().filter(|(name, it)| before.get(*name) != Some(it));
    gone.chain(new.map(|(_, it)| put((*it).clone()))).collect()
}

fn diff(before: &Contents, after: &Contents) -> Delta {
    let (b, a) = (before, after);
    let mut changes =
        between((&b.vms, &a.vms), |it| it.vm.name.clone(), (Change::PutVm, Change::RemoveVm));
    changes.extend(between(
        (&b.users, &a.users),
        |it| it.name.clone(),
        (Change::PutUser, Change::RemoveUser),
    ));
    changes.extend(between(
        (&b.addresses, &a.addresses),
        |it| it.name.clone(),
        (Change::PutAddress, Change::RemoveAddress),
    ));
    changes.extend(between(
        (&b.nodes, &a.nodes),
        |it| it.name.clone(),
        (Change::PutNode, Change::RemoveNode),
    ));
    changes.extend(between(
        (&b.teams, &a.teams),
        |it| it.name.clone(),
        (Change::PutTeam, Change::RemoveTeam),
    ));
    Delta { changes }
}

#[test]
fn a_share_sends_a_user_who_did_not_change() {
    let mut before = usual();
    before.nodes.push(node("n1", 1, true));
    before.vms[0].vm.node = Some("n1".into());
    let mut audiences = Audiences::default();
    audiences.open("n1", &before);
    let mut after = before.clone();
    after.vms[0].by_name.push("team:ops".to_owned());
    let told = audiences.change(&diff(&before, &after), &after);
    let changes = &told["n1"].changes;
    let has = |wanted: Change| changes.contains(&wanted);
    assert!(has(Change::PutUser(after.user("bob").unwrap())), "{changes:?}");
    assert!(has(Change::PutTeam(after.team("ops").unwrap())), "{changes:?}");
    assert_eq!(changes.len(), 3, "{changes:?}");
    let told = audiences.change(&diff(&after, &before), &before);
    let changes = &told["n1"].changes;
    assert!(changes.contains(&Change::RemoveUser("bob".to_owned())), "{changes:?}");
    // Alice owns it, a member or not.
    assert!(!changes.contains(&Change::RemoveUser("alice".to_owned())), "{changes:?}");
}

#[test]
fn who_is_not_touched_is_told_nothing() {
    let mut before = usual();
    before.nodes.extend([node("n1", 1, true), node("n2", 2, true)]);
    before.vms[0].vm.node = Some("n1".into());
    before.vms[1].vm.node = Some("n2".into());
    let mut audiences = Audiences::default();
    audiences.open("n1", &before);
    audiences.open("n2", &before);
    let mut after = before.clone();
    after.vms.push(vm("green", "bob", "s002"));
    after.vms[3].vm.node = Some("n2".into());
    let told = audiences.change(&diff(&before, &after), &after);
    assert_eq!(told.keys().map(|it| &**it).collect::<Vec<_>>(), ["n2"]);
    audiences.close("n2", &after);
    assert_eq!(audiences.change(&diff(&after, &before), &before).len(), 0);
    audiences.close("n1", &before);
    let Audiences { all, counts, vms, users, teams, members } = audiences;
    assert!(counts.is_empty() && all.is_empty() && vms.is_empty());
    assert!(users.is_empty() && teams.is_empty() && members.is_empty());
}

proptest! {
    #[test]
    fn deltas_lead_to_what_an_audience_would_begin_with(
        history in prop::collection::vec((arbitrary(), any::<[bool; 3]>()), 2..8),
    ) {
        const NODES: [&str; 3] = ["n1", "n2", "n3"];
        let mut audiences = Audiences::default();
        let mut held: BTreeMap<&str, Contents> = BTreeMap::new();
        let mut before = Contents::default();
        for (after, follows) in history {
            let (after, _) = sound(after);
            let told = audiences.change(&diff(&before, &after), &after);
            for (of, delta) in &told {
                prop_assert!(!delta.changes.is_empty());
                apply(held.get_mut(&**of).expect("an audience that is open"), delta);
            }
            for (of, contents) in &held {
                prop_assert_eq!(sorted(contents.clone()), sorted(model(&after, of)), "{}", of);
                prop_assert!(Snapshot::new(contents.clone()).is_ok());
                let Contents { users, teams, vms, .. } = contents;
                prop_assert_eq!(audiences.entries(of), users.len() + teams.len() + vms.len());
            }
            for (of, follows) in NODES.into_iter().zip(follows) {
                if follows {
                    audiences.open(of, &after);
                    let begun = contents(of, &after);
                    prop_assert_eq!(sorted(begun.clone()), sorted(model(&after, of)), "{}", of);
                    held.insert(of, begun);
                } else if held.remove(of).is_some() {
                    audiences.close(of, &after);
                }
            }
            before = after;
        }
    }
}

/// Everybody who may enter a VM: by which key, as whom, and its id.
fn rights(contents: &Contents) -> BTreeSet<([u8; 32], String, String)> {
    let mut rights = BTreeSet::new();
    for entry in &contents.vms {
        for name in expand(principals(entry), &|name| contents.team(name)) {
            let keys = contents.user(&name).filter(|it| !it.closed).map(|it| it.keys);
            for key in keys.into_iter().flatten() {
                rights.insert((key.fingerprint, name.clone(), entry.vm.id.clone()));
            }
        }
    }
    rights
}

proptest! {
    /// An agent to which nothing is sent for some commits is told of each what it takes away.
    #[test]
    fn what_was_taken_away_is_denied_before_it_is_told_and_nothing_else_is(
        history in prop::collection::vec(arbitrary(), 2..7),
    ) {
        const NODE: &str = "n1";
        let mut history = history.into_iter().map(|contents| sound(contents).0);
        let mut before = history.next().expect("the first");
        let mut audiences = Audiences::default();
        audiences.open(NODE, &before);
        let had = contents(NODE, &before);
        let mut always = rights(&had);
        let mut denied = Denied::default();
        for after in history {
            let told = audiences.change(&diff(&before, &after), &after);
            if let Some(told) = told.get(NODE) {
                let by = Denied::by((told, NODE), &diff(&after, &before), &after);
                denied = denied.and(by.expect("few")).expect("few");
            }
            let has = rights(&contents(NODE, &after));
            always.retain(|right| has.contains(right));
            for right in rights(&had) {
                let (key, user, id) = &right;
                let vm = had.vms.iter().find(|entry| entry.vm.id == *id).map(|it| &it.vm);
                let refused = denied.refusal(&Who::Key(*key), user, vm).is_some();
                let by_name = denied.refusal(&Who::User(user), user, vm).is_some();
                if !has.contains(&right) {
                    prop_assert!(refused, "{right:?} {denied:?}");
                } else if always.contains(&right) {
                    prop_assert!(!refused && !by_name, "{right:?} {denied:?}");
                }
            }
            before = after;
        }
    }
}
