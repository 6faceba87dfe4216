//! What somebody reads who has no key left to try.

use super::*;

#[test]
fn the_last_failure_comes_behind_one_constant_banner() {
    let stranger = key(2);
    for last in [signed("alice", &stranger), other_method("alice", CONNECTION, "password")] {
        let mut server = Server::new(policy(), List::default());
        for _ in 0..2 {
            assert_eq!(server.answer(&signed("alice", &stranger)), failure());
        }
        server.sent.clear();
        assert_eq!(server.fault(&last), Fault::Attempts);
        assert_eq!(server.sent, [last_words(), plain_failure()]);
    }
}

#[test]
fn whoever_has_no_key_left_reads_the_same_words_whatever_the_keys_were() {
    let (known, stranger, rsa, ca) = (key(1), key(2), rsa(), key(9));
    let blob =
        certificate(known.public(), &Restrictions::default()).mint(&ca, &mut Seeded(3)).unwrap();
    let name = known.algorithms()[0].certificate_name();
    let revoked = || {
        let revocations = Revocations::parse(known.public().to_line().as_bytes()).unwrap();
        Policy { revocations, ..policy() }
    };
    for (policy, refused) in [
        (policy(), query("alice", &stranger)),
        (policy(), signed("alice", &stranger)),
        (policy(), query_blob("alice", name, &blob)),
        (policy(), query_blob("alice", "ssh-rsa", rsa.public().blob())),
        (policy(), query_blob("alice", "ssh-ed25519", b"rubbish")),
        (revoked(), query("alice", &known)),
        (Policy { hide_keys: true, ..policy() }, signed("alice", &stranger)),
        (Policy { hide_keys: true, ..revoked() }, signed("alice", &known)),
    ] {
        let mut server = Server::new(policy, List::of(&[&known]));
        assert_eq!(server.answer(&other_method("alice", CONNECTION, "none")), plain_failure());
        assert_eq!(server.answer(&refused), failure());
        server.sent.clear();
        assert!(matches!(server.take(&interactive("alice")), Ok(Step::Continue)));
        assert_eq!(server.sent, [last_words(), plain_failure()]);
    }
}

#[test]
fn the_last_words_are_said_once_and_cost_no_key() {
    let (known, stranger) = (key(1), key(2));
    let mut server = Server::new(policy(), List::of(&[&known]));
    server.answer(&query("alice", &stranger));
    server.take(&interactive("alice")).unwrap();
    assert_eq!(server.answer(&query("alice", &stranger)), plain_failure());
    for _ in 1..policy().attempts_max {
        assert_eq!(server.answer(&interactive("alice")), plain_failure());
    }
    assert_eq!(server.answer(&query("alice", &known))[0], message::USERAUTH_PK_OK);
    server.proves(&signed("alice", &known));
    server.sent.clear();
    server.refuse().unwrap_err();
    assert_eq!(server.sent, [plain_failure()], "the words were said before");
}

#[test]
fn keyboard_interactive_before_a_refused_key_is_any_other_method() {
    let mut server = Server::new(policy(), List::default());
    for _ in 1..policy().attempts_max {
        assert_eq!(server.answer(&interactive("alice")), plain_failure());
    }
    assert_eq!(server.fault(&interactive("alice")), Fault::Attempts);
}

#[test]
fn without_last_words_publickey_alone_is_listed() {
    let mut server = Server::new(Policy { attempts_max: 3, ..Policy::default() }, List::default());
    assert_eq!(server.answer(&query("alice", &key(1))), plain_failure());
    assert_eq!(server.answer(&interactive("alice")), plain_failure());
}

#[test]
fn a_request_for_the_last_words_is_read_strictly_and_counts_as_an_offer() {
    let refused = || {
        let mut server = Server::new(policy(), List::default());
        server.answer(&query("alice", &key(1)));
        server
    };
    let whole = interactive("alice");
    for rubbish in [whole[..whole.len() - 1].to_vec(), [&whole[..], &[0]].concat()] {
        assert!(matches!(refused().fault(&rubbish), Fault::Malformed(_)));
    }
    assert_eq!(refused().fault(&interactive("bob")), UNEXPECTED);
    // There is nothing to respond to: RFC 4256's INFO_RESPONSE has no place here.
    let response = Fault::Unexpected { number: 61, during: Stage::Authentication };
    assert_eq!(refused().fault(&[61, 0, 0, 0, 0]), response);

    let mut server = refused();
    server.take(&interactive("alice")).unwrap();
    for _ in 3..OFFERS_MAX {
        server.answer(&query("alice", &key(1)));
    }
    assert_eq!(server.fault(&query("alice", &key(1))), Fault::Attempts);
}

#[test]
fn a_plus_in_the_user_name_is_explained_behind_the_words_whatever_was_offered() {
    let policy = || Policy { plus_words: "write x+y+vm@host".into(), ..policy() };
    let said = |login: &str, known: &[&PrivateKey]| {
        let mut server = Server::new(policy(), List::of(known));
        server.answer(&query(login, &key(1)));
        server.sent.clear();
        server.take(&interactive(login)).unwrap();
        let mut reader = Reader::new(&server.sent[0][1..]);
        reader.text().unwrap().to_owned()
    };
    let plain = said("alice", &[]);
    for known in [&[][..], &[&key(2)]] {
        assert_eq!(said("alice", known), plain);
        assert_eq!(said("x+y", known), format!("{plain}write x+y+vm@host\r\n"));
    }
}
