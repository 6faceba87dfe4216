//! Tests of `admission`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn places(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("at least one")
}

fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    Ipv4Addr::new(a, b, c, d).into()
}

/// An address in a network of its own for each number.
fn botnet(number: u32) -> IpAddr {
    Ipv4Addr::from((20 << 24) | (number << 8) | 1).into()
}

#[test]
fn ten_thousand_silent_connections_do_not_keep_a_login_waiting() {
    let mut admission = Admission::new(places(1_000));
    for number in 0..10_000_u32 {
        let host = u8::try_from(number % 200).expect("small");
        admission.admit(v4(198, 51, 100, host));
    }
    assert_eq!(admission.len(), 1_000);
    let login = admission.admit(v4(192, 0, 2, 1));
    assert!(login.evict.is_some());
    // The flood goes on while the login waits for its user.
    for number in 0..10_000_u32 {
        let host = u8::try_from(number % 200).expect("small");
        admission.admit(v4(198, 51, 100, host));
    }
    assert!(admission.holds(login.id));
}

#[test]
fn a_user_behind_the_flooders_own_nat_gets_in() {
    let mut admission = Admission::new(places(1_000));
    for _ in 0..10_000 {
        admission.admit(v4(198, 51, 100, 7));
    }
    let login = admission.admit(v4(198, 51, 100, 7)).id;
    // A key exchange takes some milliseconds; hundreds of newcomers may come in that time.
    for _ in 0..900 {
        admission.admit(v4(198, 51, 100, 7));
    }
    assert!(admission.holds(login), "only older connections went before it");
    admission.progressed(login);
    for _ in 0..100_000 {
        admission.admit(v4(198, 51, 100, 7));
    }
    assert!(admission.holds(login), "silent ones never push out who has keys");
}

#[test]
fn a_botnet_with_one_connection_per_network_does_not_push_out_an_office_behind_one_nat() {
    let mut admission = Admission::new(places(800));
    for number in 0..5_000 {
        admission.admit(botnet(number));
    }
    // Sixty people log in at once, while the botnet goes on.
    let office: Vec<Id> = (0..60).map(|_| admission.admit(v4(192, 0, 2, 1)).id).collect();
    for number in 5_000..5_700 {
        admission.admit(botnet(number));
    }
    assert!(office.iter().all(|&id| admission.holds(id)), "they were the biggest network, no more");
}

#[test]
fn a_flood_of_full_key_exchanges_leaves_half_the_places_to_newcomers() {
    let mut admission = Admission::new(places(1_000));
    let user = admission.admit(v4(192, 0, 2, 1)).id;
    admission.progressed(user);
    for number in 0..20_000_u32 {
        let host = u8::try_from(number % 200).expect("small");
        let id = admission.admit(v4(198, 51, 100, host)).id;
        admission.progressed(id);
    }
    assert!(admission.holds(user), "at a passphrase prompt all the while");
    let newcomer = admission.admit(v4(192, 0, 2, 9)).id;
    let others: Vec<Id> = (0..450).map(|number| admission.admit(botnet(number)).id).collect();
    assert!(admission.holds(newcomer) && others.iter().all(|&id| admission.holds(id)));
}

#[test]
fn a_busy_network_gives_up_its_own_oldest() {
    let mut admission = Admission::new(places(16));
    let quiet = admission.admit(v4(192, 0, 2, 1)).id;
    let busy: Vec<Id> = (0..15).map(|host| admission.admit(v4(198, 51, 100, host)).id).collect();
    assert_eq!(admission.admit(v4(203, 0, 113, 1)).evict, Some(busy[0]));
    assert_eq!(admission.admit(v4(203, 0, 113, 2)).evict, Some(busy[1]));
    assert!(admission.holds(quiet), "older than all of them");
}

#[test]
fn a_place_given_on_is_no_longer_reached_by_its_old_id() {
    let mut admission = Admission::new(places(1));
    let first = admission.admit(v4(192, 0, 2, 1)).id;
    let second = admission.admit(v4(192, 0, 2, 2));
    assert_eq!(second.evict, Some(first));
    assert_eq!(second.id.index(), first.index());
    admission.finished(first);
    admission.progressed(first);
    admission.sourced(first, v4(10, 0, 0, 1));
    assert!(admission.holds(second.id) && !admission.holds(first));
    admission.finished(second.id);
    admission.finished(second.id);
    assert!(admission.is_empty());
}

#[test]
fn connections_through_one_balancer_count_for_their_own_networks() {
    let mut admission = Admission::new(places(16));
    let balancer = v4(10, 0, 0, 1);
    let user = admission.admit(balancer).id;
    admission.sourced(user, v4(192, 0, 2, 1));
    for _ in 0..100 {
        let id = admission.admit(balancer).id;
        admission.sourced(id, v4(198, 51, 100, 1));
    }
    assert!(admission.holds(user));
}

#[test]
fn networks_are_a_24_or_a_56_and_an_ipv4_address_in_ipv6_clothes_is_ipv4() {
    let network = |text: &str| Network::of(text.parse().expect("an address"));
    assert_eq!(network("192.0.2.1"), network("192.0.2.255"));
    assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
    assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.9"));
    assert_eq!(network("2001:db8:0:ff::1"), network("2001:db8::1"));
    assert_ne!(network("2001:db8:0:100::1"), network("2001:db8::1"));
    assert_ne!(network("0.0.0.1"), network("::1"));
}

#[test]
fn a_half_open_connection_costs_little_memory() {
    assert!(size_of::<Entry>() <= 32, "{}", size_of::<Entry>());
    assert!(size_of::<Source>() <= 32, "{}", size_of::<Source>());
    let mut admission = Admission::new(places(1_000));
    for number in 0..100_000 {
        let id = admission.admit(botnet(number)).id;
        if number % 3 == 0 {
            admission.progressed(id);
        }
    }
    assert_eq!(admission.entries.len(), 1_000);
    assert!(admission.silent.sources.len() <= 1_000);
    assert!(admission.exchanged.sources.len() <= 1_000);
}

/// What the rules say, by looking at everybody.
#[derive(Default)]
struct Model {
    /// In order of age within each class, because every change of class or source goes to the end.
    present: Vec<(Id, Class, Network)>,
}

impl Model {
    fn may_go(&self, places: u32) -> BTreeSet<usize> {
        let of = |class| {
            self.present.iter().filter(|(_, c, _)| *c == class).copied().collect::<Vec<_>>()
        };
        let exchanged = of(Class::Exchanged);
        let crowded = exchanged.len() > places as usize / 2;
        let queue = if crowded { exchanged } else { of(Class::Silent) };
        let held = |network| queue.iter().filter(|(_, _, n)| *n == network).count();
        let most = queue.iter().map(|(_, _, network)| held(*network)).max().expect("not empty");
        let mut allowed = BTreeSet::new();
        let mut seen = Vec::new();
        for (id, _, network) in &queue {
            if most <= (places / SHARE) as usize {
                return BTreeSet::from([id.index()]);
            }
            // Between networks that hold equally much either may lose its oldest.
            if held(*network) == most && !seen.contains(network) {
                allowed.insert(id.index());
            }
            seen.push(*network);
        }
        allowed
    }

    fn remove(&mut self, id: Id) -> Option<(Id, Class, Network)> {
        let at = self.present.iter().position(|(other, ..)| *other == id)?;
        Some(self.present.remove(at))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Admit(u8),
    Progressed(usize),
    Finished(usize),
    Sourced(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..6_u8).prop_map(Step::Admit),
        2 => any::<usize>().prop_map(Step::Progressed),
        2 => any::<usize>().prop_map(Step::Finished),
        1 => (any::<usize>(), 0..6_u8).prop_map(|(id, source)| Step::Sourced(id, source)),
    ]
}

proptest! {
    #[test]
    fn it_does_what_the_rules_say(
        count in 1..40_u32,
        steps in proptest::collection::vec(step(), 1..400),
    ) {
        let mut admission = Admission::new(places(count));
        let mut model = Model::default();
        // Ids of the past as well, so that late calls are tried too.
        let mut known: Vec<Id> = Vec::new();
        let pick = |known: &[Id], n: usize| known.get(n % known.len().max(1)).copied();
        for step in steps {
            match step {
                Step::Admit(network) => {
                    let source = v4(192, 0, network, 1);
                    let full = model.present.len() == count as usize;
                    let may_go = if full { model.may_go(count) } else { BTreeSet::new() };
                    let Admitted { id, evict } = admission.admit(source);
                    prop_assert_eq!(evict.is_some(), full);
                    if let Some(evicted) = evict {
                        prop_assert!(may_go.contains(&evicted.index()), "{evicted:?} of {may_go:?}");
                        prop_assert!(model.remove(evicted).is_some());
                    }
                    prop_assert!(!known.contains(&id));
                    prop_assert!(id.index() < count as usize);
                    model.present.push((id, Class::Silent, Network::of(source)));
                    known.push(id);
                }
                Step::Progressed(n) => {
                    let Some(id) = pick(&known, n) else { continue };
                    admission.progressed(id);
                    let silent = model.present.iter().any(|(i, c, _)| *i == id && *c == Class::Silent);
                    if silent && let Some((id, _, network)) = model.remove(id) {
                        model.present.push((id, Class::Exchanged, network));
                    }
                }
                Step::Finished(n) => {
                    let Some(id) = pick(&known, n) else { continue };
                    admission.finished(id);
                    model.remove(id);
                }
                Step::Sourced(n, network) => {
                    let Some(id) = pick(&known, n) else { continue };
                    let source = v4(192, 0, network, 1);
                    admission.sourced(id, source);
                    if let Some((id, class, _)) = model.remove(id) {
                        model.present.push((id, class, Network::of(source)));
                    }
                }
            }
            prop_assert_eq!(admission.len() as usize, model.present.len());
            for &id in &known {
                let present = model.present.iter().any(|(other, ..)| *other == id);
                prop_assert_eq!(admission.holds(id), present);
            }
        }
    }
}
