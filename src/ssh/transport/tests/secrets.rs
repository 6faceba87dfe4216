//! Tests of what stays in memory when keys are retired.

use super::*;
use crate::ssh::testing::hunt::Hunt;

fn look_for(hunt: &mut Hunt, name: &str, keys: &Keys) {
    hunt.look_for(&format!("{name}, key"), keys.key());
    if !keys.mac_key().is_empty() {
        hunt.look_for(&format!("{name}, MAC key"), keys.mac_key());
    }
}

/// Looks for both directions of one end, which stays as it is.
fn look_for_keys(hunt: &mut Hunt, name: &str, transport: &mut Transport) {
    let opener = std::mem::replace(&mut transport.opener, Opener::plain());
    let used = opener.used();
    let (received, seq) = opener.into_keys().unwrap();
    look_for(hunt, &format!("{name}, received"), &received);
    transport.opener = Opener::from_keys(received, seq).continuing(used);
    let sealer = std::mem::replace(&mut transport.sealer, Sealer::plain());
    let used = sealer.used();
    let (sent, seq) = sealer.into_keys().unwrap();
    look_for(hunt, &format!("{name}, sent"), &sent);
    transport.sealer = Sealer::from_keys(sent, seq).continuing(used);
}

/// Trap 48: of no suite and no key exchange, the first or a later one, is a key left when it is
/// retired or its session is over.
#[test]
fn retired_keys_are_nowhere_in_memory() {
    let (mut retired, mut live, mut pairs) = (Hunt::default(), Hunt::default(), Vec::new());
    let mut seed = 900;
    for cipher in Cipher::ALL {
        let macs = if cipher.is_aead() { &Mac::ALL[..1] } else { &Mac::ALL[..] };
        for mac in macs {
            for method in [Method::Curve25519, Method::MlKem768X25519] {
                seed += 1;
                let algorithms =
                    Algorithms { methods: vec![method], ciphers: vec![cipher], macs: vec![*mac] };
                let limits = RekeyLimits::default();
                let server = server_config(seed, algorithms.clone(), limits);
                let mut pair = Pair::new(seed, server, client_config(algorithms, limits));
                pair.settle().unwrap();
                pair.authenticate();
                let name = format!("{cipher:?} {mac:?} {method:?}");
                let first = format!("first keys of {name}");
                // Both ends hold the same keys.
                look_for_keys(&mut retired, &first, &mut pair.server.transport);
                pair.at_server(|t, cx| t.send(&[message::CHANNEL_DATA], cx)).unwrap();
                pair.at_client(|t, cx| t.send(&[message::CHANNEL_DATA], cx)).unwrap();
                pair.settle().unwrap();
                if seed % 2 == 0 {
                    pair.at_client(|t, cx| t.rekey(None, cx)).unwrap();
                } else {
                    pair.at_server(|t, cx| t.rekey(None, cx)).unwrap();
                }
                pair.settle().unwrap();
                let later = format!("later keys of {name}");
                look_for_keys(&mut live, &later, &mut pair.server.transport);
                pairs.push(pair);
            }
        }
    }
    assert_eq!(retired.seen(), Vec::<&str>::new());
    // Each stands at both ends: a search that finds nothing would show nothing.
    for (name, count) in live.sightings() {
        assert!(count >= 2, "{name}: {count}");
    }
    drop(pairs);
    assert_eq!(live.seen(), Vec::<&str>::new());
}
