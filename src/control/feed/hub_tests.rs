//! Tests of the hub: who goes on, who begins anew, and who follows no longer.

use std::sync::LazyLock;

use super::super::ring::{PENDING_MAX, STREAMS_MAX};
use super::*;
use crate::route::saved_routes::{Message, VERSION, VERSION_BEFORE};
use crate::route::{AddressEntry, Agent, Carry, DENIED_MAX, TeamEntry, UserEntry, Vm, VmEntry};

const KEY: [u8; 32] = [1; 32];

/// A node with an agent, and alice's VMs on it.
struct Fleet(Vec<VmEntry>);

impl Whole for Fleet {
    fn vms_on(&self, node: &str) -> Vec<VmEntry> {
        let on = |entry: &&VmEntry| entry.vm.node.as_deref() == Some(node);
        self.0.iter().filter(on).cloned().collect()
    }

    fn node(&self, name: &str) -> Option<NodeEntry> {
        (name == "n1").then(|| node(Some(KEY)))
    }

    fn addresses(&self) -> Vec<AddressEntry> {
        Vec::new()
    }

    fn user(&self, name: &str) -> Option<UserEntry> {
        Some(UserEntry { name: name.to_owned(), keys: Vec::new(), closed: false })
    }

    fn team(&self, _: &str) -> Option<TeamEntry> {
        None
    }
}

fn node(key: Option<[u8; 32]>) -> NodeEntry {
    let agent = key.map(|key| Agent { at: ([10, 0, 0, 1], 7022).into(), key });
    NodeEntry { name: "n1".to_owned(), agent, trusted: true }
}

fn vm(name: &str) -> VmEntry {
    let vm = Vm {
        id: name.to_owned(),
        name: name.to_owned(),
        owner: "alice".to_owned(),
        endpoint: "127.0.0.1:22".to_owned(),
        login: None,
        host_key: None,
        source_address: None,
        address: None,
        closed: false,
        carry: Carry::Auto,
        node: Some("n1".into()),
    };
    VmEntry { vm, slots: Vec::new(), by_name: vec!["alice".to_owned()] }
}

/// How many follow, and how far the last one is behind.
fn gauges(hub: &Hub) -> (usize, u64) {
    let Gauges { followers, lag, .. } = hub.gauges();
    (followers, lag)
}

fn head(revision: u64) -> Head {
    Head { store: [7; 16], program: PROGRAM, revision }
}

/// A hub at revision 10, and the fleet that it knows.
fn hub() -> (Arc<Hub>, Fleet) {
    let hub: Arc<Hub> = Arc::default();
    assert!(
        hub.follow("n1", KEY, (VERSION, None), &Fleet(Vec::new())).is_none(),
        "nothing is read yet"
    );
    hub.begin(head(10));
    (hub, Fleet(vec![vm("blue")]))
}

fn add(hub: &Hub, fleet: &mut Fleet, revision: u64, entry: VmEntry) {
    fleet.0.push(entry.clone());
    let gone = entry.vm.name.clone();
    let before = || Delta { changes: vec![Change::RemoveVm(gone.clone())] };
    let delta = Delta { changes: vec![Change::PutVm(entry)] };
    hub.change(revision, &delta, &before, fleet);
}

/// What frames say, in words.
fn said(frames: &[Bytes]) -> Vec<String> {
    let word = |frame: &Bytes| {
        let (length, frame) = frame.split_first_chunk::<4>().unwrap();
        assert_eq!(usize::try_from(u32::from_be_bytes(*length)).unwrap(), frame.len());
        match saved_routes::decode_any(frame).unwrap() {
            Message::Snapshot(head, contents) => {
                format!("all of {}: {}", head.revision, contents.vms.len())
            }
            Message::Delta(head, after, delta) => {
                format!("{after} to {}: {}", head.revision, delta.changes.len())
            }
            Message::Asked(head) => format!("asked at {}", head.revision),
            Message::Denied(until, denied) => {
                format!("until {}: {}", until.revision, denied.count())
            }
            Message::FrontDoor(_, told) => format!("door {}", told.edges.len()),
        }
    };
    frames.iter().map(word).collect()
}

/// What it hears first, in words.
fn begins(follower: &mut Follower, fleet: &Fleet) -> Vec<String> {
    let door = follower.door();
    let everything = (!follower.goes_on()).then(|| follower.everything(fleet).unwrap());
    let everything = everything.map(crate::control::feed::whole);
    said(&door.into_iter().chain(everything).collect::<Vec<_>>())
}

/// What comes next, in words; "cut" if nothing will.
fn next(follower: &mut Follower, beat: bool) -> Vec<String> {
    next_at(follower, beat, 0)
}

/// So many seconds after some moment.
fn at(s: u64) -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a moment to count from")]
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START + Duration::from_secs(s)
}

/// The same, later.
fn next_at(follower: &mut Follower, beat: bool, s: u64) -> Vec<String> {
    follower.next(beat, at(s)).map_or_else(|| vec!["cut".to_owned()], |frames| said(&frames))
}

#[test]
fn a_follower_begins_with_everything_and_then_hears_of_changes_that_came_together() {
    let (hub, mut fleet) = hub();
    let mut follower = hub.follow("n1", KEY, (VERSION, None), &fleet).unwrap();
    assert_eq!(begins(&mut follower, &fleet), ["door 0", "all of 10: 1"]);
    assert_eq!(next(&mut follower, true), ["10 to 10: 0"]);
    add(&hub, &mut fleet, 11, vm("red"));
    add(&hub, &mut fleet, 12, vm("green"));
    let elsewhere = VmEntry { vm: Vm { node: None, ..vm("far").vm }, ..vm("far") };
    add(&hub, &mut fleet, 13, elsewhere);
    assert_eq!(gauges(&hub), (1, 3));
    assert_eq!(next(&mut follower, false), ["10 to 12: 2"]);
    assert_eq!(next(&mut follower, false), [""; 0]);
    assert_eq!(next(&mut follower, true), ["12 to 13: 0"]);
    hub.edges(vec![[5; 32]]);
    hub.front_door(FrontDoor::default());
    assert_eq!(next(&mut follower, false), ["door 1"]);
    assert_eq!(gauges(&hub), (1, 0));
    drop(follower);
    assert_eq!(gauges(&hub), (0, 0));
}

#[test]
fn whoever_comes_back_goes_on_where_that_is_known() {
    let (hub, mut fleet) = hub();
    drop(hub.follow("n1", KEY, (VERSION, None), &fleet).unwrap());
    add(&hub, &mut fleet, 11, vm("red"));
    add(&hub, &mut fleet, 12, vm("green"));
    add(&hub, &mut fleet, 13, vm("grey"));
    let begins = |head| {
        let known = Known { head, digest: None };
        let mut follower = hub.follow("n1", KEY, (VERSION, Some(known)), &fleet).unwrap();
        let begins = begins(&mut follower, &fleet);
        [begins, next(&mut follower, false)].concat()
    };
    // What nobody has heard yet was encoded together.
    assert_eq!(begins(head(11)), ["door 0", "10 to 13: 3"]);
    assert_eq!(begins(head(13)), ["door 0"]);
    let anew = ["door 0", "all of 13: 4"];
    assert_eq!(begins(head(9)), anew, "before the first that is kept");
    assert_eq!(begins(head(14)), anew, "later than there is");
    assert_eq!(begins(Head { store: [1; 16], ..head(12) }), anew);
    assert_eq!(begins(Head { program: [1; 8], ..head(12) }), anew);
}

/// What a follower of `n1` has that has everything.
fn of_all(fleet: &Fleet) -> [u8; 32] {
    digest(audience::contents("n1", fleet))
}

#[test]
fn of_what_another_process_told_a_follower_goes_on_if_it_shows_that_it_is_the_same() {
    let (before, mut fleet) = hub();
    let of_blue = Some(of_all(&fleet));
    let begins = |hub: &Arc<Hub>, fleet: &Fleet, known: Known| {
        let mut follower = hub.follow("n1", KEY, (VERSION, Some(known)), fleet).unwrap();
        let begins = begins(&mut follower, fleet);
        [begins, next(&mut follower, false)].concat()
    };
    let at = |revision, digest| Known { head: head(revision), digest };
    // The revision alone says nothing: another build may have told something else.
    assert_eq!(begins(&before, &fleet, at(10, None)), ["door 0", "all of 10: 1"]);
    assert_eq!(begins(&before, &fleet, at(10, Some([1; 32]))), ["door 0", "all of 10: 1"]);
    assert_eq!(begins(&before, &fleet, at(10, of_blue)), ["door 0"]);
    // Nor is it asked which build that was.
    let other = Head { program: [1; 8], ..head(10) };
    assert_eq!(begins(&before, &fleet, Known { head: other, digest: of_blue }), ["door 0"]);
    // What came since is told to whoever has what there was, and to nobody else.
    add(&before, &mut fleet, 11, vm("red"));
    assert_eq!(begins(&before, &fleet, at(10, of_blue)), ["door 0", "10 to 11: 1"]);
    assert_eq!(begins(&before, &fleet, at(10, None)), ["door 0", "all of 11: 2"]);
    assert_eq!(begins(&before, &fleet, at(10, Some([1; 32]))), ["door 0", "all of 11: 2"]);
    // After a start much may have changed, and for this node nothing.
    let after = Arc::<Hub>::default();
    after.begin(head(20));
    assert_eq!(begins(&after, &fleet, at(11, of_blue)), ["door 0", "all of 20: 2"]);
    assert_eq!(begins(&after, &fleet, at(11, Some(of_all(&fleet)))), ["door 0", "11 to 20: 0"]);
    let other_store = Head { store: [1; 16], ..head(11) };
    let known = Known { head: other_store, digest: Some(of_all(&fleet)) };
    assert_eq!(begins(&after, &fleet, known), ["door 0", "all of 20: 2"]);
}

/// The first that began with everything is known by that, should it come back before a change.
#[test]
fn whoever_began_here_goes_on_by_what_it_began_with() {
    let (hub, mut fleet) = hub();
    let of_blue = Some(of_all(&fleet));
    let mut first = hub.follow("n1", KEY, (VERSION, None), &fleet).unwrap();
    begins(&mut first, &fleet);
    drop(first);
    add(&hub, &mut fleet, 11, vm("red"));
    let known = Known { head: head(10), digest: of_blue };
    let mut again = hub.follow("n1", KEY, (VERSION, Some(known)), &fleet).unwrap();
    assert_eq!(begins(&mut again, &fleet), ["door 0"]);
    assert_eq!(next(&mut again, false), ["10 to 11: 1"]);
}

#[test]
fn a_follower_that_takes_too_slowly_is_cut_and_the_ring_stays_small() {
    let (hub, mut fleet) = hub();
    let mut slow = hub.follow("n1", KEY, (VERSION, None), &fleet).unwrap();
    let mut quick = hub.follow("n1", KEY, (VERSION, None), &fleet).unwrap();
    let long = "x".repeat(10_000);
    for revision in 11..60 {
        let mut entry = vm("blue");
        entry.vm.login = Some(long.clone());
        add(&hub, &mut fleet, revision, entry);
        assert_ne!(next(&mut quick, false), ["cut"]);
        let state = hub.state();
        assert!(state.rings["n1"].bytes <= RING_BYTES_MAX, "{}", state.rings["n1"].bytes);
    }
    // An edge that is removed is no more for it either, however much came along.
    hub.edges(vec![[5; 32]]);
    assert_eq!(next(&mut slow, false), ["door 1"]);
    assert_eq!(next(&mut slow, false), ["cut"]);
}

#[tokio::test]
async fn whoever_may_follow_no_longer_is_cut_at_once() {
    for gone in [
        Change::RemoveNode("n1".to_owned()),
        Change::PutNode(node(None)),
        Change::PutNode(node(Some([2; 32]))),
    ] {
        let (hub, fleet) = hub();
        let mut follower = hub.follow("n1", KEY, (VERSION, None), &fleet).unwrap();
        assert_ne!(next(&mut follower, true), ["cut"]);
        hub.change(
            11,
            &Delta { changes: vec![Change::PutNode(node(Some(KEY)))] },
            &Delta::default,
            &fleet,
        );
        assert!(follower.moved().await);
        assert_eq!(next(&mut follower, false), ["10 to 11: 1"]);
        hub.change(12, &Delta { changes: vec![gone] }, &Delta::default, &fleet);
        // It wakes, and is told nothing.
        follower.moved().await;
        assert_eq!(next(&mut follower, false), ["cut"]);
        assert!(!follower.moved().await);
    }
    // So is whoever follows a registry that was read anew, and the oldest of many.
    let (hub, fleet) = hub();
    let mut all: Vec<_> = (0..=STREAMS_MAX)
        .map(|_| hub.follow("n1", KEY, (VERSION, None), &fleet).unwrap())
        .collect();
    assert_eq!(next(&mut all[0], true), ["cut"]);
    assert_ne!(next(&mut all[1], true), ["cut"]);
    hub.begin(head(20));
    assert_eq!(next(&mut all[1], true), ["cut"]);
}

#[test]
fn what_nobody_takes_does_not_grow() {
    let (hub, mut fleet) = hub();
    drop(hub.follow("n1", KEY, (VERSION, None), &fleet).unwrap());
    fleet.0.push(vm("red"));
    let long = "x".repeat(100);
    for revision in 11..20_000 {
        let mut entry = vm("red");
        entry.vm.login = Some(long.clone());
        hub.change(
            revision,
            &Delta { changes: vec![Change::PutVm(entry)] },
            &Delta::default,
            &fleet,
        );
        let state = hub.state();
        let ring = &state.rings["n1"];
        assert!(ring.bytes <= RING_BYTES_MAX && ring.pending() < PENDING_MAX);
    }
    assert!(hub.gauges().kept_bytes > RING_BYTES_MAX / 2);
}

#[test]
fn many_audiences_keep_less_each() {
    let (hub, fleet) = hub();
    hub.follow("n1", KEY, (VERSION, None), &fleet).unwrap();
    assert_eq!(hub.state().ring_bytes_max(), RING_BYTES_MAX);
    for number in 0..1_000 {
        hub.follow(&format!("m{number}"), KEY, (VERSION, None), &fleet).unwrap();
    }
    let each = hub.state().ring_bytes_max();
    assert!(each < RING_BYTES_MAX && each * 1_001 <= RINGS_BYTES_MAX, "{each}");
}

#[test]
fn the_front_door_is_encoded_once_for_all() {
    let (hub, fleet) = hub();
    hub.front_door(FrontDoor { edges: vec![[5; 32]], ..FrontDoor::default() });
    let mut both = [(); 2].map(|()| hub.follow("n1", KEY, (VERSION, None), &fleet).unwrap());
    let doors = both.each_mut().map(|follower| follower.door().unwrap());
    assert_eq!(doors[0].as_ptr(), doors[1].as_ptr());
}

/// It hears of nothing else until then, but its front door.
#[test]
fn whoever_waits_for_everything_hears_what_is_taken_away_meanwhile() {
    let (hub, mut fleet) = hub();
    fleet.0.push(vm("red"));
    let mut waits = hub.follow("n1", KEY, (VERSION, None), &fleet).unwrap();
    let mut old = hub.follow("n1", KEY, (VERSION_BEFORE, None), &fleet).unwrap();
    for follower in [&mut waits, &mut old] {
        follower.door();
        assert_eq!(said(&follower.aside().unwrap()), [""; 0]);
    }
    take(&hub, &mut fleet, 11, "red");
    add(&hub, &mut fleet, 12, vm("green"));
    assert_eq!(said(&waits.aside().unwrap()), ["until 11: 1"]);
    assert_eq!(said(&waits.aside().unwrap()), [""; 0], "once each");
    take(&hub, &mut fleet, 13, "green");
    assert_eq!(said(&waits.aside().unwrap()), ["until 13: 2"], "all of it together");
    assert_eq!(said(&old.aside().unwrap()), [""; 0], "it does not know such frames");
    // Whoever has everything needs none of it.
    assert_eq!(begins(&mut waits, &fleet), ["door 0", "all of 13: 1"]);
    take(&hub, &mut fleet, 14, "blue");
    assert_eq!(next(&mut waits, false), ["10 to 14: 5"]);
}

/// How far somebody has come who cannot show what it has.
fn known(revision: u64) -> Known {
    Known { head: head(revision), digest: None }
}

/// On another node.
fn on(node: &str, entry: VmEntry) -> VmEntry {
    VmEntry { vm: Vm { node: Some(node.into()), ..entry.vm }, ..entry }
}

/// What somebody says who has come so far, and has what `of` has.
fn well(revision: u64, of: &Fleet, node: &str) -> Report {
    Report { revision, digest: Some(digest(audience::contents(node, of))), well: true }
}

/// Two agents with a VM each, and what is told to each in words. Then comes a large commit: 40 VMs
/// on the first one's node, 35 on the other's.
fn staged(speaks: u16) -> (Arc<Hub>, Fleet, Follower, Follower) {
    let (hub, mut fleet) = hub();
    hub.watch_canaries(Duration::from_secs(5));
    fleet.0.push(on("n2", vm("red")));
    let mut first = hub.follow("n1", KEY, (VERSION, None), &fleet).unwrap();
    let mut other = hub.follow("n2", [2; 32], (speaks, None), &fleet).unwrap();
    begins(&mut first, &fleet);
    begins(&mut other, &fleet);
    let many = (0..75).map(|n| {
        let node = if n < 40 { "n1" } else { "n2" };
        on(node, vm(&format!("vm{n}")))
    });
    large(&hub, &mut fleet, 11, many.collect());
    (hub, fleet, first, other)
}

fn large(hub: &Hub, fleet: &mut Fleet, revision: u64, entries: Vec<VmEntry>) {
    let gone = entries.iter().map(|entry| Change::RemoveVm(entry.vm.name.clone())).collect();
    let before = Delta { changes: gone };
    fleet.0.extend(entries.clone());
    let delta = Delta { changes: entries.into_iter().map(Change::PutVm).collect() };
    hub.change(revision, &delta, &|| before.clone(), fleet);
}

/// Takes the VM of this name away.
fn take(hub: &Hub, fleet: &mut Fleet, revision: u64, name: &str) {
    let gone = fleet.0.iter().position(|entry| entry.vm.name == name).unwrap();
    let gone = fleet.0.remove(gone);
    let delta = Delta { changes: vec![Change::RemoveVm(name.to_owned())] };
    let before = || Delta { changes: vec![Change::PutVm(gone.clone())] };
    hub.change(revision, &delta, &before, fleet);
}

#[test]
fn a_large_commit_goes_to_one_first_and_to_the_others_once_that_was_well_for_a_while() {
    let (hub, mut fleet, mut first, mut other) = staged(VERSION);
    assert_eq!(next(&mut first, false), ["10 to 11: 40", "asked at 11"]);
    assert_eq!(next(&mut other, true), ["10 to 10: 0"]);
    let waits = hub.staged().unwrap();
    assert_eq!((waits.revision, &*waits.canary, waits.waiting), (11, "n1", 1));
    // What comes behind it waits with it, but for what is taken away.
    add(&hub, &mut fleet, 12, on("n2", vm("late")));
    assert_eq!(next(&mut other, false), [""; 0]);
    take(&hub, &mut fleet, 13, "red");
    assert_eq!(next(&mut other, false), ["until 13: 1"]);
    assert_eq!(next(&mut other, true), ["10 to 10: 0"]);
    // The front door waits for nothing, nor does whoever has none of it.
    hub.edges(vec![[5; 32]]);
    assert_eq!(next(&mut other, false), ["door 1"]);
    hub.hear("n2", [2; 32], (well(13, &fleet, "n2"), at(0)), &fleet);
    hub.hear("n1", [3; 32], (well(13, &fleet, "n1"), at(0)), &fleet);
    hub.hear("n1", KEY, (well(11, &fleet, "n1"), at(1)), &fleet);
    assert_eq!(next_at(&mut first, true, 2), ["door 1", "11 to 13: 0", "asked at 13"]);
    hub.hear("n1", KEY, (well(13, &fleet, "n1"), at(5)), &fleet);
    assert_eq!(next(&mut other, false), [""; 0]);
    hub.hear("n1", KEY, (well(13, &fleet, "n1"), at(6)), &fleet);
    assert_eq!(hub.staged(), None);
    assert_eq!(next(&mut other, false), ["10 to 13: 37"]);
    assert_eq!(next(&mut other, true), ["13 to 13: 0"]);
}

#[test]
fn a_canary_that_is_gone_not_well_or_has_something_else_lets_nothing_go() {
    let at_once = |report: fn(&Fleet) -> Report, trouble: &str| {
        let (hub, fleet, mut first, mut other) = staged(VERSION);
        next(&mut first, false);
        for s in [1, 7, 14] {
            hub.hear("n1", KEY, (report(&fleet), at(s)), &fleet);
        }
        let staged = hub.staged().expect("it waits");
        assert!(staged.trouble.is_some_and(|is| is.contains(trouble)), "{trouble}");
        assert_eq!(next(&mut other, false), [""; 0]);
    };
    at_once(|fleet| Report { well: false, ..well(11, fleet, "n1") }, "not well");
    at_once(|fleet| Report { digest: Some([0; 32]), ..well(11, fleet, "n1") }, "something else");
    let (hub, fleet, first, mut other) = staged(VERSION);
    drop(first);
    assert!(hub.staged().unwrap().trouble.unwrap().contains("gone"));
    // It comes back, by another way, and is well with it.
    let mut back = hub.follow("n1", KEY, (VERSION, Some(known(10))), &fleet).unwrap();
    begins(&mut back, &fleet);
    assert_eq!(next(&mut back, true).last().unwrap(), "asked at 11");
    hub.hear("n1", KEY, (well(11, &fleet, "n1"), at(20)), &fleet);
    hub.hear("n1", KEY, (well(11, &fleet, "n1"), at(25)), &fleet);
    assert_eq!(next(&mut other, false), ["10 to 11: 35"]);
    // One that says nothing is found out by whoever waits.
    let (hub, _, _first, mut other) = staged(VERSION);
    next_at(&mut other, true, 0);
    assert_eq!(hub.staged().unwrap().trouble, None);
    next_at(&mut other, true, 16);
    assert!(hub.staged().unwrap().trouble.unwrap().contains("in time"));
    // Another process of the canary's, which does not know the question, keeps nobody from it.
    let (hub, fleet, mut first, _other) = staged(VERSION);
    let _old = hub.follow("n1", KEY, (VERSION_BEFORE, None), &fleet).unwrap();
    assert_eq!(next(&mut first, false), ["10 to 11: 40", "asked at 11"]);
    let (hub, _, _first, mut other) = staged(VERSION);
    // An operator may know better.
    assert_eq!(hub.release().unwrap().revision, 11);
    assert_eq!(next(&mut other, false), ["10 to 11: 35"]);
}

#[test]
fn nothing_is_held_back_where_nobody_waits_or_what_is_taken_away_could_not_be_told() {
    // An older follower is told of nothing but changes.
    let (hub, _, mut first, mut other) = staged(VERSION_BEFORE);
    assert_eq!(hub.staged(), None);
    assert_eq!(next(&mut first, false), ["10 to 11: 40"]);
    assert_eq!(next(&mut other, false), ["10 to 11: 35"]);
    // One that comes while something waits lets it go.
    let (hub, fleet, _first, mut other) = staged(VERSION);
    assert_eq!(next(&mut other, false), [""; 0]);
    let _old = hub.follow("n2", [2; 32], (VERSION_BEFORE, None), &fleet).unwrap();
    assert_eq!(next(&mut other, false), ["10 to 11: 35"]);
    // Whoever begins anew has everything.
    let (hub, fleet, _first, mut other) = staged(VERSION);
    let mut anew = hub.follow("n2", [2; 32], (VERSION, None), &fleet).unwrap();
    assert_eq!(begins(&mut anew, &fleet), ["door 0", "all of 11: 36"]);
    assert_eq!(next(&mut other, false), ["10 to 11: 35"]);
    // One that is alone waits for nobody.
    let (hub, mut fleet) = self::hub();
    hub.watch_canaries(Duration::from_secs(5));
    let _alone = hub.follow("n1", KEY, (VERSION, None), &fleet).unwrap();
    large(&hub, &mut fleet, 11, (0..40).map(|n| vm(&format!("vm{n}"))).collect());
    assert_eq!(hub.staged(), None);
    // More is taken away than can be told.
    let (hub, mut fleet, _first, mut other) = staged(VERSION);
    let more = DENIED_MAX + 1;
    large(&hub, &mut fleet, 12, (0..more).map(|n| on("n2", vm(&format!("x{n}")))).collect());
    let names: Vec<_> = (0..more).map(|n| format!("x{n}")).collect();
    let (gone, stay) = fleet.0.into_iter().partition(|entry| names.contains(&entry.vm.name));
    fleet = Fleet(stay);
    let back = Delta { changes: Vec::into_iter(gone).map(Change::PutVm).collect() };
    let delta = Delta { changes: names.into_iter().map(Change::RemoveVm).collect() };
    hub.change(13, &delta, &|| back.clone(), &fleet);
    assert_eq!(hub.staged(), None);
    assert_eq!(next(&mut other, false).len(), 1);
    // The node of the canary goes.
    let (hub, fleet, _first, mut other) = staged(VERSION);
    let gone = Delta { changes: vec![Change::RemoveNode("n1".to_owned())] };
    hub.change(12, &gone, &Delta::default, &fleet);
    assert_eq!(hub.staged(), None);
    assert_eq!(next(&mut other, false), ["10 to 11: 35"]);
}

#[path = "hub_history_tests.rs"]
mod histories;
