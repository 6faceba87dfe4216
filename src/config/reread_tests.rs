//! Tests of `reread`: what a fault in one part leaves of the others.

use std::path::Path;

use super::tests::{ALICE, BOB, Scratch, THIRD, fleet};
use super::*;
use crate::ssh::publickey::PublicKey;

/// Reads both files again.
fn read(scratch: &Scratch, keyway: &str, fleet: &str, last: Option<&Path>) -> Reread {
    let [config, fleet] = [("keyway.toml", keyway), ("fleet.toml", fleet)]
        .map(|(name, text)| scratch.put(name, text));
    reread(Some(&config), Some(&fleet), last)
}

fn key(line: &str) -> PublicKey {
    PublicKey::parse_line(line).unwrap().0
}

fn rights(cas: &str) -> String {
    format!("[edge]\nrevoked_keys = \"revoked\"\ntrusted_user_cas = [{cas}]\n")
}

#[test]
fn what_takes_access_away_is_read_whatever_else_is_wrong() {
    let scratch = Scratch::new();
    scratch.put("revoked", THIRD);
    let sound = rights(&format!("\"{BOB}\""));
    let misspelt = fleet().replace("\"blue\"", "\"_blue\"");
    let cases = [
        (sound.clone(), fleet()),
        (sound.clone(), misspelt),
        (sound.clone() + "shrads = 2\n", fleet()),
        (sound.clone() + "[api]\nlisten = \"127.0.0.1:1\"\ntls_cert = \"no\"\n", String::new()),
        (sound + "[dns]\n", "[[user]\n".to_owned()),
    ];
    for (keyway, fleet) in cases {
        let Reread { rights, .. } = read(&scratch, &keyway, &fleet, None);
        assert!(rights.revocations.unwrap().revokes_key(&key(THIRD)), "{keyway}{fleet}");
        assert_eq!(rights.trusted_user_cas.unwrap(), [key(BOB)], "{keyway}{fleet}");
    }
}

#[test]
fn a_fault_of_one_file_is_none_of_the_other() {
    let scratch = Scratch::new();
    scratch.put("revoked", THIRD);
    let whole = read(&scratch, &rights(""), &fleet(), None);
    assert!(whole.config.is_ok() && whole.fleet.unwrap().is_ok());
    let faulty = read(&scratch, &rights(""), "[[vm]]\nname = \"_\"\n", None);
    assert!(faulty.config.is_ok() && !faulty.fleet.unwrap().unwrap_err().is_empty());
    let faulty = read(&scratch, "[edge]\nshards = -1\n", &fleet(), None);
    assert_eq!(faulty.config.unwrap_err().len(), 1);
    // It is held against a configuration that is not there.
    assert_eq!(faulty.fleet.unwrap().unwrap_err(), []);
    let missing = reread(Some(&scratch.0.join("no")), Some(&scratch.0.join("none")), None);
    assert_eq!(missing.config.unwrap_err().len(), 1);
    assert_eq!(missing.fleet.unwrap().unwrap_err().len(), 1);
}

#[test]
fn what_cannot_be_read_of_the_rights_is_not_taken_for_nothing() {
    let scratch = Scratch::new();
    let last = scratch.put("revoked", THIRD);
    let unsure = rights("\"ssh-ed25519 AAAA\"");
    let read_with = |keyway: &str, last| read(&scratch, keyway, "", last).rights;
    let Rights { revocations, trusted_user_cas } = read_with(&unsure, None);
    assert!(revocations.is_some() && trusted_user_cas.is_none());
    let missing = rights("").replace("\"revoked\"", "\"none\"");
    let Rights { revocations, trusted_user_cas } = read_with(&missing, Some(&last));
    assert!(revocations.is_none() && trusted_user_cas.unwrap().is_empty());
    // Where it is not TOML, or not there, the list that was named before is read, and
    // no CA is missed.
    for broken in ["[edge\nshards = 1\n", "[edge]\nrevoked_keys = \n", "edge = 1\n"] {
        let Rights { revocations, trusted_user_cas } = read_with(broken, Some(&last));
        assert!(revocations.unwrap().revokes_key(&key(THIRD)), "{broken}");
        assert!(trusted_user_cas.is_none(), "{broken}");
        assert!(read_with(broken, None).revocations.is_none(), "{broken}");
    }
    let Rights { revocations, trusted_user_cas } =
        reread(Some(&scratch.0.join("no")), None, Some(&last)).rights;
    assert!(revocations.is_some() && trusted_user_cas.is_none());
}

#[test]
fn a_list_that_revokes_nothing_is_warned_of() {
    let scratch = Scratch::new();
    for nothing in ["", "# nobody yet\n"] {
        scratch.put("revoked", nothing);
        assert_eq!(
            scratch.warnings(&rights(""), &fleet()),
            [
                "keyway.toml:2: `edge.revoked_keys` names revoked, which revokes nothing; fix: make sure that it is the file you meant, or write \"\""
            ]
        );
    }
    scratch.put("revoked", ALICE.replace("alice", ""));
    assert!(!scratch.warnings(&rights(""), &fleet()).iter().any(|it| it.contains("nothing")));
}
