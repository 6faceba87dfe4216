//! Tests of what an agent makes of OPEN.

use super::*;

/// OPEN as the agent gets it, opened.
fn open_of(world: &mut World) -> Vec<u8> {
    let Agent::Waiting(line) = std::mem::replace(&mut world.agent, Agent::Gone) else {
        panic!("taken already");
    };
    let (mut opener, _) = *line;
    let found = opener.open(&mut world.wires.agent, OPEN_LENGTH_MAX).unwrap().unwrap();
    world.wires.agent[found.payload].to_vec()
}

fn judged(world: &World, open: &[u8], now_s: u64) -> Result<bool, Refused> {
    let open = Open::parse(open)?;
    let session = open.session(&world.host_keys, now_s)?;
    let gate = Only(world.user.public().clone());
    let proved = open.prove(&session, (SOURCE, now_s), &Policy::default(), &gate);
    open.take(session, &world.host_keys, RekeyLimits::default()).map(|_| proved.is_some())
}

#[test]
fn an_open_that_is_cut_off_or_too_long_is_malformed_wherever() {
    let mut world = World::quick(4);
    let open = open_of(&mut world);
    assert_eq!(judged(&world, &open, NOW_S), Ok(true));
    for len in 0..open.len() {
        assert!(matches!(judged(&world, &open[..len], NOW_S), Err(Refused::Malformed(_))), "{len}");
    }
    let longer = [&open[..], &[0]].concat();
    assert!(matches!(judged(&world, &longer, NOW_S), Err(Refused::Malformed(_))));
}

/// Whatever byte of OPEN is another one: it proves nothing, or says nothing that is believed.
#[test]
fn an_open_that_was_changed_anywhere_lets_nobody_in() {
    let mut world = World::quick(5);
    let open = open_of(&mut world);
    let mut unproved = 0;
    let details = open.windows(DETAILS.len()).position(|window| window == DETAILS).unwrap();
    let kexinit = details - 4 - 1;
    for at in 0..open.len() {
        let mut changed = open.clone();
        changed[at] ^= 1;
        let lets_in = matches!(judged(&world, &changed, NOW_S), Ok(true));
        // The later KEXINIT's cookie and the edge's own words prove nothing; sequence numbers count
        // nothing under keys that only the edge has.
        let later = at > kexinit - 1200;
        assert!(!lets_in || later, "{at} of {}", open.len());
        unproved += usize::from(!lets_in);
    }
    assert!(unproved > 1000);
}

/// A signature that the user made for somebody else, or long ago, is no proof here.
#[test]
fn a_proof_for_another_server_or_of_another_time_is_refused() {
    let mut world = World::quick(6);
    let open = open_of(&mut world);
    let stranger = PrivateKey::generate_ed25519(&mut Seeded(77)).public().clone();
    let own = std::mem::replace(&mut world.host_keys, vec![stranger]);
    assert_eq!(judged(&world, &open, NOW_S), Err(Refused::HostKey));
    world.host_keys = own;
    assert_eq!(judged(&world, &open, NOW_S + SAID_AGO_S_MAX), Ok(true));
    assert_eq!(judged(&world, &open, NOW_S + SAID_AGO_S_MAX + 1), Err(Refused::Stale));
    assert_eq!(judged(&world, &open, NOW_S - 61), Err(Refused::Stale));
    // Somebody else's key, as this agent knows the users.
    let other = PrivateKey::generate_ed25519(&mut Seeded(78));
    world.user = other;
    assert_eq!(judged(&world, &open, NOW_S), Ok(false));
}
