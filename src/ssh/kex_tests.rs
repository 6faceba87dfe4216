//! Tests of `kex`: what stays of a key exchange. Its results are compared in the
//! tests of `transport`.

use super::*;
use crate::ssh::cipher::{Cipher, Mac};
use crate::ssh::testing::Seeded;
use crate::ssh::testing::hunt::Hunt;

/// Trap 48.
#[test]
fn a_shared_secret_is_nowhere_in_memory_once_keys_are_derived() {
    for method in [Method::Curve25519, Method::MlKem768X25519] {
        let (mut hunt, mut entropy) = (Hunt::default(), Seeded(7));
        let suite = Suite::new(Cipher::Aes256Ctr, Some(Mac::Sha512Etm)).unwrap();
        let (ephemeral, value) = Ephemeral::generate(method, &mut entropy).unwrap();
        let (reply, secret) = respond(method, &value, &mut entropy).unwrap();
        hunt.look_for("K", &secret.0);
        let same = ephemeral.combine(&reply).unwrap();
        let hash = Transcript::new(method, [b"", b""], [b"", b""]).finish(&same);
        let keys = derive(Flow::ToServer, suite, &same, &hash, &hash);
        let (_, count) = hunt.sightings()[0];
        assert!(count >= 2, "it stands at both ends: {count}");
        hunt.look_for("key", keys.key());
        hunt.look_for("MAC key", keys.mac_key());
        drop((keys, secret, same));
        assert_eq!(hunt.seen(), Vec::<&str>::new(), "{method:?}");
    }
}
