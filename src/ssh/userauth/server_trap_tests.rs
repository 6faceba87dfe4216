//! The mistakes of other servers, by their numbers in the list of traps.

use aws_lc_rs::digest::{SHA256, digest};

use super::*;

#[test]
fn trap_1_the_proved_key_decides_never_the_offered_one() {
    let (offered, signing) = (key(1), key(2));
    let mut server = Server::new(policy(), List::of(&[&offered, &signing]));
    server.answer(&query("alice", &signing));
    server.answer(&query("alice", &offered));
    assert_eq!(*server.proves(&signed("alice", &signing)).identity(), identity(&signing));

    // Key A in the request, signed by key B.
    let mut server = Server::new(policy(), List::of(&[&offered, &signing]));
    server.answer(&query("alice", &offered));
    let blob = offered.public().blob();
    let forged = request("alice", Method::PublicKey, true, "ssh-ed25519", blob);
    assert_eq!(server.answer(&sign_with(forged, &signing, &SESSION)), failure());
}

#[test]
fn trap_1_an_offer_does_nothing_but_ask_the_gate() {
    let (accepted, stranger) = (key(1), key(2));
    let mut server = Server::new(policy(), List::of(&[&accepted]));
    server.answer(&query("alice", &accepted));
    server.answer(&query("alice", &stranger));
    let asked = [&accepted, &stranger].map(|key| ("alice".to_owned(), identity(key)));
    assert_eq!(*server.gate.asked.borrow(), asked);
    assert_eq!(server.authenticator.attempts, 0);
}

#[test]
fn trap_2_a_signed_request_needs_no_offer_before_it() {
    let key = key(1);
    let mut server = Server::new(policy(), List::of(&[&key]));
    server.proves(&signed("alice", &key));
    assert_eq!(server.gate.asked.borrow().len(), 1, "asked before the signature");
}

#[test]
fn trap_2_another_user_midway_ends_the_connection() {
    let key = key(1);
    let mut server = Server::new(policy(), List::of(&[&key]));
    server.answer(&query("alice", &key));
    assert_eq!(server.fault(&signed("bob", &key)), UNEXPECTED);
}

#[test]
fn trap_2_another_service_midway_ends_the_connection() {
    let key = key(1);
    let mut server = Server::new(policy(), List::of(&[&key]));
    server.answer(&query("alice", &key));
    assert_eq!(server.fault(&other_method("alice", "ssh-userauth", "none")), Fault::Service);
}

#[test]
fn trap_3_no_message_is_taken_while_a_decision_is_due() {
    let key = key(1);
    for message in [signed("alice", &key), service_message(message::SERVICE_REQUEST)] {
        let mut server = Server::new(policy(), List::of(&[&key]));
        server.proves(&signed("alice", &key));
        let number = message[0];
        let during = Stage::Authentication;
        assert_eq!(server.fault(&message), Fault::Unexpected { number, during });
    }
}

#[test]
fn trap_3_a_decision_is_taken_once_and_only_for_a_proof() {
    let key = key(1);
    let success =
        Fault::Unexpected { number: message::USERAUTH_SUCCESS, during: Stage::Authentication };
    let mut server = Server::new(policy(), List::of(&[&key]));
    assert_eq!(server.authenticator.put_success(&mut server.sent), Err(success));

    let mut server = Server::new(policy(), List::of(&[&key]));
    server.answer(&query("alice", &key));
    assert_eq!(server.authenticator.put_success(&mut server.sent), Err(success));

    let mut server = Server::new(policy(), List::of(&[&key]));
    server.proves(&signed("alice", &key));
    server.refuse().unwrap();
    assert_eq!(server.authenticator.put_success(&mut server.sent), Err(success));
}

#[test]
fn trap_5_an_agent_full_of_keys_is_no_failed_login() {
    let right = key(200);
    let mut server = Server::new(Policy { attempts_max: 1, ..policy() }, List::of(&[&right]));
    for seed in 1..OFFERS_MAX {
        let wrong = key(u8::try_from(seed).unwrap());
        assert_eq!(server.answer(&query("alice", &wrong)), failure());
    }
    server.answer(&query("alice", &right));
    server.proves(&signed("alice", &right));
}

#[test]
fn offers_have_a_limit_of_their_own() {
    let mut server = Server::new(policy(), List::default());
    for _ in 1..OFFERS_MAX {
        assert_eq!(server.answer(&query("alice", &key(1))), failure());
    }
    server.sent.clear();
    assert_eq!(server.fault(&query("alice", &key(1))), Fault::Attempts);
    assert_eq!(server.sent.len(), 2);
}

#[test]
fn trap_6_a_key_without_a_route_is_refused_at_the_offer() {
    let (no_route, right) = (key(1), key(2));
    let mut server = Server::new(policy(), List::of(&[&right]));
    assert_eq!(server.answer(&query("alice", &no_route)), failure());
    assert_eq!(server.answer(&query("alice", &right))[0], message::USERAUTH_PK_OK);
}

#[test]
fn trap_8_sha_1_and_unknown_algorithms_are_refused_before_the_key_is_parsed() {
    let rsa = rsa();
    for name in ["ssh-rsa", "ssh-rsa-cert-v01@openssh.com", "ssh-dss", "", "rsa-sha2-512,"] {
        let mut server = Server::new(policy(), List::of(&[&rsa]));
        assert_eq!(server.answer(&query_blob("alice", name, rsa.public().blob())), failure());
        assert!(server.gate.asked.borrow().is_empty());
    }
}

#[test]
fn trap_8_algorithm_key_and_signature_must_agree() {
    let (rsa, ed25519) = (rsa(), key(1));
    let gate = || List::of(&[&rsa, &ed25519]);
    // The name of one type, the blob of another.
    for (name, key) in
        [("ssh-ed25519", &rsa), ("rsa-sha2-512", &ed25519), ("ecdsa-sha2-nistp256", &ed25519)]
    {
        let blob = key.public().blob();
        assert_eq!(
            Server::new(policy(), gate()).answer(&query_blob("alice", name, blob)),
            failure()
        );
        let request = request("alice", Method::PublicKey, true, name, blob);
        let request = sign_with(request, key, &SESSION);
        assert_eq!(Server::new(policy(), gate()).answer(&request), failure());
    }
    // rsa-sha2-256 asked for, rsa-sha2-512 inside the signature, and the other way round.
    let (sha256, sha512) = (SignatureAlgorithm::RsaSha256, SignatureAlgorithm::RsaSha512);
    for asked in [sha256, sha512] {
        for inside in [sha256, sha512] {
            let blob = rsa.public().blob();
            let mut request = request("alice", Method::PublicKey, true, asked.name(), blob);
            let signature = rsa.sign(inside, &signed_data(&SESSION, &request)).unwrap();
            request.put_string(&signature);
            let mut server = Server::new(policy(), gate());
            if asked == inside {
                assert_eq!(server.proves(&request).algorithm(), asked);
            } else {
                assert_eq!(server.answer(&request), failure());
            }
        }
    }
}

#[test]
fn trap_9_a_certificate_stands_for_the_user_it_names() {
    let (key, ca) = (key(1), key(9));
    let restrictions =
        Restrictions { no_pty: true, force_command: Some("ls".into()), ..Restrictions::default() };
    let blob = certificate(key.public(), &restrictions).mint(&ca, &mut Seeded(3)).unwrap();
    let mut server = Server::new(trusting(&ca), List::user("alice"));
    let name = "ssh-ed25519-cert-v01@openssh.com";
    assert_eq!(server.answer(&query_blob("root", name, &blob)), usable(name, &blob));
    let proved = server.proves(&signed_certificate("root", &key, &blob));
    assert_eq!(*proved.identity(), Identity::User("alice".into()));
    assert_eq!(proved.fingerprint(), key.public().fingerprint());
    assert_eq!(*proved.restrictions(), restrictions);
    assert_eq!(proved.presented(), blob);
}

#[test]
fn trap_9_a_certificate_that_lets_nobody_in_is_an_unknown_key() {
    let (key, ca, other) = (key(1), key(9), key(10));
    let free = Restrictions::default();
    let mint = |change: &dyn Fn(&mut UserCertificate<'_>), ca: &PrivateKey| {
        let mut template = certificate(key.public(), &free);
        change(&mut template);
        template.mint(ca, &mut Seeded(3)).unwrap()
    };
    let mut unsigned = mint(&|_| {}, &ca);
    *unsigned.last_mut().unwrap() ^= 1;
    let cases = [
        unsigned,
        mint(&|_| {}, &other),
        mint(&|c| c.valid_before_s = NOW_S, &ca),
        mint(&|c| c.valid_after_s = NOW_S + 1, &ca),
        mint(&|c| c.principals = &["bob"], &ca),
        mint(&|c| c.source_address = Some("198.51.100.0/24"), &ca),
    ];
    for blob in &cases {
        // The certified key itself would be let in: a certificate must not fall back to it.
        let gate = || List {
            accepted: vec![identity(&key), Identity::User("alice".into())],
            ..List::default()
        };
        let name = "ssh-ed25519-cert-v01@openssh.com";
        let mut server = Server::new(trusting(&ca), gate());
        assert_eq!(server.answer(&query_blob("root", name, blob)), failure());
        assert_eq!(server.answer(&signed_certificate("root", &key, blob)), failure());
        let mut server = Server::new(Policy { hide_keys: true, ..trusting(&ca) }, gate());
        assert_eq!(server.answer(&query_blob("root", name, blob)), usable(name, blob));
        assert_eq!(server.answer(&signed_certificate("root", &key, blob)), failure());
    }
    let good = mint(&|_| {}, &ca);
    Server::new(trusting(&ca), List::user("alice"))
        .proves(&signed_certificate("root", &key, &good));
}

#[test]
fn trap_9_names_of_plain_keys_and_certificates_do_not_mix() {
    let (key, ca) = (key(1), key(9));
    let blob =
        certificate(key.public(), &Restrictions::default()).mint(&ca, &mut Seeded(3)).unwrap();
    let gate =
        List { accepted: vec![identity(&key), Identity::User("alice".into())], ..List::default() };
    let mut server = Server::new(trusting(&ca), gate);
    assert_eq!(server.answer(&query_blob("root", "ssh-ed25519", &blob)), failure());
    let name = "ssh-ed25519-cert-v01@openssh.com";
    assert_eq!(server.answer(&query_blob("root", name, key.public().blob())), failure());
}

/// A security key, its request and what it attests.
fn security_key(blob: Option<&[u8]>, flags: u8) -> (PublicKey, Vec<u8>) {
    let inner = key(5);
    let mut reader = Reader::new(inner.public().blob());
    reader.string().unwrap();
    let mut plain = Vec::new();
    plain.put_string(b"sk-ssh-ed25519@openssh.com");
    plain.put_string(reader.string().unwrap());
    plain.put_string(b"ssh:");
    let public = PublicKey::parse(&plain).unwrap();
    let algorithm = SignatureAlgorithm::SkEd25519;
    let (name, blob) = match blob {
        Some(blob) => (algorithm.certificate_name(), blob),
        None => (algorithm.name(), plain.as_slice()),
    };
    let mut request = request("root", Method::PublicKey, true, name, blob);
    let mut asserted = digest(&SHA256, b"ssh:").as_ref().to_vec();
    asserted.put_u8(flags);
    asserted.put_u32(1);
    asserted.put_bytes(digest(&SHA256, &signed_data(&SESSION, &request)).as_ref());
    let raw = inner.sign(SignatureAlgorithm::Ed25519, &asserted).unwrap();
    let mut raw = Reader::new(&raw);
    raw.string().unwrap();
    let mut signature = Vec::new();
    signature.put_string(algorithm.name().as_bytes());
    signature.put_string(raw.string().unwrap());
    signature.put_u8(flags);
    signature.put_u32(1);
    request.put_string(&signature);
    (public, request)
}

#[test]
fn trap_10_a_security_key_must_be_touched() {
    let gate = |public: &PublicKey| List {
        accepted: vec![Identity::Key(public.fingerprint())],
        ..List::default()
    };
    for (flags, touched, verified) in
        [(0, false, false), (4, false, true), (1, true, false), (5, true, true)]
    {
        let (public, request) = security_key(None, flags);
        let mut server = Server::new(policy(), gate(&public));
        if touched {
            assert_eq!(server.proves(&request).user_verified(), verified);
        } else {
            assert_eq!(server.answer(&request), failure());
        }
    }
}

#[test]
fn trap_10_a_certificate_may_waive_the_touch_or_demand_more() {
    let ca = key(9);
    let public = security_key(None, 0).0;
    for (no_touch_required, verify_required, flags, accepted) in [
        (false, false, 0, false),
        (false, false, 1, true),
        (true, false, 0, true),
        (false, true, 1, false),
        (false, true, 5, true),
        (true, true, 0, false),
        (true, true, 4, true),
    ] {
        let restrictions =
            Restrictions { verify_required, no_touch_required, ..Restrictions::default() };
        let blob = certificate(&public, &restrictions).mint(&ca, &mut Seeded(3)).unwrap();
        let request = security_key(Some(&blob), flags).1;
        let mut server = Server::new(trusting(&ca), List::user("alice"));
        if accepted {
            server.proves(&request);
        } else {
            assert_eq!(server.answer(&request), failure());
        }
    }
}

#[test]
fn trap_11_what_only_a_server_sends_ends_the_connection() {
    let key = key(1);
    for number in [
        message::SERVICE_ACCEPT,
        message::USERAUTH_FAILURE,
        message::USERAUTH_SUCCESS,
        message::USERAUTH_BANNER,
        message::USERAUTH_PK_OK,
        message::CHANNEL_OPEN,
        message::GLOBAL_REQUEST,
        0,
    ] {
        let mut server = Server::new(policy(), List::of(&[&key]));
        let during = Stage::Authentication;
        assert_eq!(server.fault(&[number]), Fault::Unexpected { number, during });
        assert!(server.sent.is_empty());
    }
}

#[test]
fn trap_11_no_request_is_taken_before_the_service_or_after_success() {
    let key = key(1);
    let mut server = Server::new(policy(), List::of(&[&key]));
    server.authenticator = Authenticator::new(SOURCE);
    assert_eq!(server.fault(&signed("alice", &key)), UNEXPECTED);

    let mut server = Server::new(policy(), List::of(&[&key]));
    server.proves(&signed("alice", &key));
    server.authenticator.put_success(&mut server.sent).unwrap();
    assert_eq!(server.fault(&signed("alice", &key)), UNEXPECTED);
}

fn revoking(what: &str, policy: Policy) -> Policy {
    Policy { revocations: Revocations::parse(what.as_bytes()).unwrap(), ..policy }
}

#[test]
fn trap_12_a_reload_revokes_for_connections_that_are_half_way_in() {
    let (key, ca) = (key(1), key(9));
    let gate = || List {
        accepted: vec![identity(&key), Identity::User("alice".into())],
        ..List::default()
    };
    let mut server = Server::new(policy(), gate());
    assert_eq!(server.answer(&query("root", &key))[0], message::USERAUTH_PK_OK);
    server.policy = revoking(&key.public().to_line(), policy());
    assert_eq!(server.answer(&signed("root", &key)), failure());

    let blob =
        certificate(key.public(), &Restrictions::default()).mint(&ca, &mut Seeded(3)).unwrap();
    let name = "ssh-ed25519-cert-v01@openssh.com";
    for reloaded in [policy(), revoking(&ca.public().to_line(), trusting(&ca))] {
        let mut server = Server::new(trusting(&ca), gate());
        assert_eq!(server.answer(&query_blob("root", name, &blob)), usable(name, &blob));
        server.policy = reloaded;
        assert_eq!(server.answer(&signed_certificate("root", &key, &blob)), failure());
    }
}

#[test]
fn trap_12_a_session_stands_until_its_key_certificate_or_ca_is_taken_away() {
    let (key, ca, other) = (key(1), key(9), key(10));
    let stands_at = |policy: &Policy, presented: &Presented, unix_s| {
        policy.stand(presented.into(), Some(SOURCE), unix_s).map(|_| ())
    };
    let stands =
        |policy: &Policy, presented: &Presented| stands_at(policy, presented, NOW_S).is_ok();
    let plain = Server::new(policy(), List::of(&[&key])).proves(&signed("root", &key)).standing();
    assert!(stands(&policy(), &plain));
    assert!(stands(&revoking(&other.public().to_line(), policy()), &plain));
    assert!(!stands(&revoking(&key.public().to_line(), policy()), &plain));

    let blob =
        certificate(key.public(), &Restrictions::default()).mint(&ca, &mut Seeded(3)).unwrap();
    let certified = Server::new(trusting(&ca), List::user("alice"))
        .proves(&signed_certificate("root", &key, &blob))
        .standing();
    assert_eq!((certified.key(), certified.blob()), (key.public(), blob.as_slice()));
    assert!(stands(&trusting(&ca), &certified));
    assert!(!stands(&policy(), &certified), "its CA left the configuration");
    assert!(!stands(&trusting(&other), &certified));
    let late = stands_at(&trusting(&ca), &certified, NOW_S + 60);
    assert_eq!(late, Err(CertificateFault::Expired));
    for (revoked, good) in [
        (other.public().to_line(), true),
        (key.public().to_line(), false),
        (ca.public().to_line(), false),
        (Fingerprint::of(&blob).to_string(), false),
    ] {
        let policy = revoking(&revoked, trusting(&ca));
        assert_eq!(stands(&policy, &certified), good, "{revoked}");
    }
}

#[test]
fn trap_14_answers_are_the_same_for_every_user_name() {
    let stranger = key(3);
    let transcript = |login: &str| {
        let mut server = Server::new(policy(), List::default());
        let mut faults = Vec::new();
        for message in [
            other_method(login, CONNECTION, "none"),
            query(login, &stranger),
            signed(login, &stranger),
            other_method(login, CONNECTION, "password"),
            signed(login, &stranger),
        ] {
            faults.push(server.take(&message).map(|_| ()));
        }
        (server.sent, faults)
    };
    let expected = transcript("root");
    for login in ["", "nobody", "root+blue", "\u{e9}", "a\nb"] {
        assert_eq!(transcript(login), expected);
    }
}

/// Trap 46: sshd hangs up on a NUL, and no account has a control character. Whatever the key is,
/// the answer is the one to an unknown key, and the routing map is not asked.
#[test]
fn trap_46_a_login_with_a_control_character_is_an_unknown_one() {
    let (known, unknown) = (key(1), key(2));
    for login in ["alice\0", "al\nice", "\u{1b}[2Jalice", "alice\u{7f}", "alice\u{9b}", "a\r+vm"] {
        for hide_keys in [false, true] {
            let policy = Policy { hide_keys, ..policy() };
            for key in [&known, &unknown] {
                for message in [query(login, key), signed(login, key)] {
                    let mut server = Server::new(policy.clone(), List::of(&[&known]));
                    assert_eq!(server.answer(&message), failure(), "{login:?}");
                    assert!(server.gate.asked.borrow().is_empty(), "{login:?}");
                    assert_eq!(*server.gate.heard.borrow(), [CertificateFault::Login]);
                }
            }
        }
    }
    let mut server = Server::new(policy(), List::of(&[&known]));
    assert_eq!(server.proves(&signed("zo\u{eb} müller", &known)).login(), "zo\u{eb} müller");
}
