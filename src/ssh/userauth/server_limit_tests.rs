//! What a stranger can make us compute before anybody is authenticated: verifications are
//! counted, not time.

use super::*;
use crate::ssh::userauth::proof::CA_CHECKS_MAX;

/// A certificate of a P-521 CA that was asked about 250 times and never signed with took
/// 132 ms of the door.
#[test]
fn offers_that_are_accepted_and_never_signed_have_a_limit() {
    let key = key(1);
    let mut server = Server::new(policy(), List::of(&[&key]));
    for _ in 0..ACCEPTED_MAX {
        assert_eq!(server.answer(&query("alice", &key))[0], message::USERAUTH_PK_OK);
    }
    for _ in 1..OFFERS_MAX {
        assert_eq!(server.answer(&query("alice", &key)), failure());
    }
    assert_eq!(u32::try_from(server.gate.asked.borrow().len()), Ok(ACCEPTED_MAX));
    // It still gets in: only asking is over.
    server.proves(&signed("alice", &key));
}

/// Certificates of `ca` for alice that differ in their serial number; of `forged` ones the CA's
/// signature is not.
fn certificates(key: &PublicKey, ca: &PrivateKey, count: u64, forged: bool) -> Vec<Vec<u8>> {
    let free = Restrictions::default();
    let one = |serial| {
        let template = UserCertificate { serial, ..certificate(key, &free) };
        let mut blob = template.mint(ca, &mut Seeded(3)).unwrap();
        *blob.last_mut().unwrap() ^= u8::from(forged);
        blob
    };
    (1..=count).map(one).collect()
}

const CERTIFICATE: &str = "ssh-ed25519-cert-v01@openssh.com";

#[test]
fn the_last_certificate_is_verified_once_however_often_it_is_offered() {
    let (key, ca) = (key(1), key(9));
    for forged in [false, true] {
        let blob = &certificates(key.public(), &ca, 1, forged)[0];
        let mut server = Server::new(trusting(&ca), List::user("alice"));
        for _ in 0..20 {
            let answer = server.answer(&query_blob("root", CERTIFICATE, blob));
            assert_eq!(answer, if forged { failure() } else { usable(CERTIFICATE, blob) });
        }
        if !forged {
            server.proves(&signed_certificate("root", &key, blob));
        }
        assert_eq!(server.authenticator.ca_checks.done, 1);
    }
}

#[test]
fn one_connection_has_a_bounded_number_of_ca_signatures_verified() {
    let (key, ca) = (key(1), key(9));
    for forged in [false, true] {
        let mut server = Server::new(trusting(&ca), List::user("alice"));
        for (count, blob) in (0..).zip(certificates(key.public(), &ca, 20, forged)) {
            let answer = server.answer(&query_blob("root", CERTIFICATE, &blob));
            let good = !forged && count < CA_CHECKS_MAX;
            assert_eq!(answer == usable(CERTIFICATE, &blob), good, "{count}");
        }
        assert_eq!(server.authenticator.ca_checks.done, CA_CHECKS_MAX);
        assert_eq!(server.gate.heard.borrow().last(), Some(&CertificateFault::TooMany));
    }
}

/// Trap 9. Strangers choose the CA key of what they present, and so how dear its arithmetic is; and
/// whoever has an old certificate may present it for ever.
#[test]
fn a_certificate_that_opens_nothing_here_is_never_verified() {
    let (key, ca, other) = (key(1), key(9), key(10));
    let free = Restrictions::default();
    let old = UserCertificate { valid_before_s: NOW_S, ..certificate(key.public(), &free) };
    let bobs = UserCertificate { principals: &["bob"], ..certificate(key.public(), &free) };
    let mint = |template: &UserCertificate<'_>, ca| template.mint(ca, &mut Seeded(3)).unwrap();
    let strangers = mint(&certificate(key.public(), &free), &other);
    let mut server = Server::new(trusting(&ca), List::user("alice"));
    for blob in [mint(&old, &ca), mint(&bobs, &ca), strangers] {
        assert_eq!(server.answer(&query_blob("root", CERTIFICATE, &blob)), failure());
        server.authenticator.attempts = 0;
        assert_eq!(server.answer(&signed_certificate("root", &key, &blob)), failure());
    }
    assert_eq!(server.authenticator.ca_checks.done, 0);
}

/// With `hide_keys` an offer is answered without arithmetic, and a signed request with the
/// same arithmetic whatever the certificate is worth: the time it takes says nothing about
/// which CA is trusted.
#[test]
fn hidden_keys_cost_nothing_to_ask_about_and_the_same_to_try() {
    let (key, ca, other) = (key(1), key(9), key(10));
    let mut all = certificates(key.public(), &ca, 2, false);
    all.extend(certificates(key.public(), &ca, 1, true));
    all.extend(certificates(key.public(), &other, 1, false));
    let policy = Policy { hide_keys: true, attempts_max: 100, ..trusting(&ca) };
    let mut server = Server::new(policy, List::user("nobody"));
    for blob in &all {
        let answer = server.answer(&query_blob("root", CERTIFICATE, blob));
        assert_eq!(answer, usable(CERTIFICATE, blob));
    }
    assert_eq!(server.authenticator.ca_checks.done, 0);
    for (before, blob) in (0..).zip(&all) {
        assert_eq!(server.authenticator.ca_checks.done, before);
        assert_eq!(server.answer(&signed_certificate("root", &key, blob)), failure());
    }
    assert_eq!(server.authenticator.ca_checks.done, 4);
}

#[test]
fn the_gate_hears_of_what_it_cannot_judge() {
    let (key, ca) = (key(1), key(9));
    let mut server = Server::new(trusting(&ca), List::user("alice"));
    let forged = &certificates(key.public(), &ca, 1, true)[0];
    server.answer(&query_blob("root", CERTIFICATE, forged));
    server.answer(&query_blob("root", CERTIFICATE, &forged[..forged.len() - 1]));
    server.answer(&query_blob("root", "ssh-ed25519", b"no key"));
    let heard = server.gate.heard.borrow();
    assert_eq!(heard[0], CertificateFault::Signature);
    assert!(
        matches!(heard[1..], [CertificateFault::Key(_), CertificateFault::Key(_)]),
        "{heard:?}"
    );
}
