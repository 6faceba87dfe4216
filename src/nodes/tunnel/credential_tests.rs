//! Keys of every kind and in every format, as OpenSSH's and OpenSSL's own tools write them.

use std::process::Command;

use super::*;
use crate::testing::scratch::Scratch;

/// A key file of ssh-keygen, and its public line.
fn generated(kind: &[&str], passphrase: &str, format: &[&str]) -> (String, String) {
    let dir = Scratch::new();
    let path = dir.path("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-C", "", "-N", passphrase, "-f"])
        .arg(&path)
        .args(kind)
        .args(format)
        .status();
    assert!(made.unwrap().success(), "{kind:?} {format:?}");
    let read = |name: &str| std::fs::read_to_string(dir.path(name)).unwrap();
    (read("key"), read("key.pub"))
}

const KINDS: [&[&str]; 4] = [
    &["-t", "ed25519"],
    &["-t", "ecdsa", "-b", "256"],
    &["-t", "ecdsa", "-b", "384"],
    &["-t", "ecdsa", "-b", "521"],
];

#[test]
fn keys_are_read_in_every_format_plain_and_encrypted() {
    let formats: [&[&str]; 2] = [&[], &["-m", "PKCS8"]];
    for kind in KINDS {
        for format in formats {
            // ssh-keygen writes Ed25519 in its own format only.
            for passphrase in ["", "open sesame"] {
                let (text, public) = generated(kind, passphrase, format);
                let given = (!passphrase.is_empty()).then_some(passphrase);
                let read = Credential::read(&text, given);
                let read = read.unwrap_or_else(|why| panic!("{kind:?} {format:?}: {why}"));
                assert_eq!(read.public().to_line(), public.trim());
                let spoilt = text.replace('\n', "\r\n");
                assert!(Credential::read(&format!("\n{spoilt}  "), given).is_ok());
            }
        }
    }
    let (text, public) = generated(KINDS[1], "", &["-m", "PEM"]);
    assert!(text.contains("BEGIN EC PRIVATE KEY"));
    assert_eq!(Credential::read(&text, None).unwrap().public().to_line(), public.trim());
}

#[test]
fn a_passphrase_that_is_missing_or_wrong_is_told_apart() {
    for (kind, format) in [(KINDS[0], &[][..]), (KINDS[1], &["-m", "PKCS8"][..])] {
        let (text, _) = generated(kind, "right!", format);
        let read = |passphrase| Credential::read(&text, passphrase).unwrap_err();
        assert_eq!(read(None), CredentialFault::PassphraseMissing, "{kind:?}");
        assert_eq!(read(Some("wrong!")), CredentialFault::PassphraseWrong, "{kind:?}");
    }
}

#[test]
fn what_is_no_private_key_of_a_kind_that_is_taken_is_named() {
    let (text, public) = generated(KINDS[0], "", &[]);
    let fault = |text: &str| Credential::read(text, None).unwrap_err();
    assert_eq!(fault(&public), CredentialFault::Public);
    assert_eq!(fault("-----BEGIN PUBLIC KEY-----\nAAAA\n"), CredentialFault::Public);
    assert_eq!(fault("ssh-ed25519-cert-v01@openssh.com AAAA x"), CredentialFault::Certificate);
    assert_eq!(fault(""), CredentialFault::NotAKey);
    assert_eq!(fault("hello\nworld"), CredentialFault::NotAKey);
    assert_eq!(fault(&"x".repeat(70_000)), CredentialFault::TooLong);
    let kind = |text: &str, passphrase| {
        let why = Credential::read(text, passphrase).unwrap_err();
        let CredentialFault::Unsupported { kind, .. } = why else { panic!("{why}") };
        kind
    };
    assert_eq!(kind("PuTTY-User-Key-File-3: ssh-ed25519\n", None), "PuTTY's format");
    let rsa = ["-t", "rsa", "-b", "2048"];
    for format in [&[][..], &["-m", "PKCS8"], &["-m", "PEM"]] {
        assert_eq!(kind(&generated(&rsa, "", format).0, None), "RSA", "{format:?}");
    }
    assert_eq!(kind(&generated(&rsa, "secret", &[]).0, None), "RSA");
    assert_eq!(kind(&generated(&rsa, "secret", &["-m", "PKCS8"]).0, Some("secret")), "RSA");
    let old = generated(KINDS[1], "secret", &["-m", "PEM"]).0;
    assert_eq!(kind(&old, Some("secret")), "the old encryption of PEM files");
    let damaged = text.replace("AAAA", "AAAB");
    assert_eq!(fault(&damaged), CredentialFault::Malformed);
    assert_eq!(fault(&text[..text.len() / 2]), CredentialFault::Malformed);
}

#[test]
fn a_file_that_asks_for_much_work_is_refused_before_any_is_done() {
    let (text, _) = generated(KINDS[0], "secret", &["-a", "520"]);
    assert_eq!(Credential::read(&text, Some("secret")).unwrap_err(), CredentialFault::TooCostly);
}

#[test]
fn trap_48_nothing_shows_a_secret() {
    let (text, public) = generated(KINDS[0], "", &[]);
    let shown = format!("{:?}", Credential::read(&text, None).unwrap());
    let fingerprint = PublicKey::parse_line(&public).unwrap().0.fingerprint();
    assert_eq!(shown, format!("Credential({fingerprint})"));
}
