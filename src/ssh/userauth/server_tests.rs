//! The server's side message by message, with real keys and without packets.

use std::cell::RefCell;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::messages::{request, signed_data};
use super::super::proof::{BLOB_BYTES_MAX, SIGNATURE_BYTES_MAX};
use super::super::standing::{Offer, Pass};
use super::super::*;
use super::*;
use crate::ssh::certificate::{CertificateFault, Restrictions, UserCertificate};
use crate::ssh::entropy::Entropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::{Fingerprint, PublicKey, SignatureAlgorithm};
use crate::ssh::revocation::Revocations;

#[path = "server_limit_tests.rs"]
mod limits;
#[path = "server_trap_tests.rs"]
mod traps;
#[path = "server_words_tests.rs"]
mod words;

type Sent = Vec<Vec<u8>>;

const SESSION: [u8; 32] = [7; 32];
const HOST_KEY: &[u8] = b"our host key";
const NOW_S: u64 = 1_800_000_000;
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const UNEXPECTED: Fault =
    Fault::Unexpected { number: message::USERAUTH_REQUEST, during: Stage::Authentication };

/// Bytes that count up from a seed: no randomness, so that every run is the same.
struct Seeded(u8);

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            *byte = self.0;
            self.0 = self.0.wrapping_mul(5).wrapping_add(1);
        }
    }
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::generate_ed25519(&mut Seeded(seed))
}

fn rsa() -> PrivateKey {
    PrivateKey::from_openssh(include_str!("testdata/rsa2048")).unwrap().0
}

fn identity(key: &PrivateKey) -> Identity {
    Identity::Key(key.public().fingerprint())
}

/// Lets some identities in, under any login, and remembers whom it was asked about. Of a
/// certificate's principals the first that it knows.
#[derive(Default)]
struct List {
    accepted: Vec<Identity>,
    asked: RefCell<Vec<(String, Identity)>>,
    heard: RefCell<Vec<CertificateFault>>,
}

impl List {
    fn of(keys: &[&PrivateKey]) -> Self {
        Self { accepted: keys.iter().map(|key| identity(key)).collect(), ..Self::default() }
    }

    fn user(name: &str) -> Self {
        Self { accepted: vec![Identity::User(name.to_owned())], ..Self::default() }
    }
}

impl Gate for List {
    fn judge_offer(&self, offer: &Offer<'_>) -> Option<Pass> {
        let standing = offer.stand().ok()?;
        let names = match offer.subject {
            Subject::Certificate(_) => {
                standing.principals.iter().cloned().map(Identity::User).collect()
            }
            Subject::Key(_) | Subject::Fingerprint(_) => {
                vec![Identity::Key(offer.subject.fingerprint())]
            }
        };
        let asked = names.iter().map(|name| (offer.login.to_owned(), name.clone()));
        self.asked.borrow_mut().extend(asked);
        let identity = names.into_iter().find(|name| self.accepted.contains(name))?;
        Some(Pass { identity, restrictions: standing.restrictions })
    }

    fn hears(&self, _login: &str, _key: Option<Fingerprint>, why: CertificateFault) {
        self.heard.borrow_mut().push(why);
    }
}

fn policy() -> Policy {
    Policy {
        attempts_max: 3,
        last_words: "no VM here\ntry the lobby".to_owned(),
        ..Policy::default()
    }
}

fn judge<'a>(policy: &'a Policy, gate: &'a List) -> RequestJudge<'a> {
    let (session_id, host_key) = (&SESSION, HOST_KEY);
    RequestJudge { policy, source: SOURCE, unix_s: NOW_S, gate, session_id, host_key }
}

/// An authenticator with what surrounds it, past `SERVICE_REQUEST`.
struct Server {
    authenticator: Authenticator,
    policy: Policy,
    gate: List,
    sent: Sent,
}

impl Server {
    fn new(policy: Policy, gate: List) -> Self {
        let authenticator = Authenticator::new(SOURCE);
        let mut server = Self { authenticator, policy, gate, sent: Sent::new() };
        server.take(&service_message(message::SERVICE_REQUEST)).unwrap();
        assert_eq!(server.sent, [service_message(message::SERVICE_ACCEPT)]);
        server.sent.clear();
        server
    }

    fn take(&mut self, payload: &[u8]) -> Result<Step, Fault> {
        let judge = judge(&self.policy, &self.gate);
        self.authenticator.take(payload, &judge, &mut self.sent)
    }

    fn refuse(&mut self) -> Result<(), Fault> {
        self.authenticator.put_refusal(&self.policy, &mut self.sent)
    }

    /// The answer to a message that proves nothing and ends nothing.
    fn answer(&mut self, payload: &[u8]) -> Vec<u8> {
        self.sent.clear();
        let step = self.take(payload);
        assert!(matches!(step, Ok(Step::Continue)), "{step:?}");
        assert_eq!(self.sent.len(), 1);
        self.sent.pop().unwrap()
    }

    fn proves(&mut self, payload: &[u8]) -> ProvedKey {
        self.sent.clear();
        match self.take(payload) {
            Ok(Step::Proved(proved)) => {
                assert!(self.sent.is_empty(), "nothing is said before the decision");
                *proved
            }
            other => panic!("{other:?}"),
        }
    }

    /// The fault that a message leads to, which every later message gets too.
    fn fault(&mut self, payload: &[u8]) -> Fault {
        let fault = self.take(payload).unwrap_err();
        let sent = self.sent.len();
        assert_eq!(self.take(&query("alice", &key(1))).unwrap_err(), fault);
        assert_eq!(self.authenticator.put_success(&mut self.sent), Err(fault));
        assert_eq!(self.sent.len(), sent, "nothing is said after a fault");
        fault
    }
}

fn plain_name(key: &PrivateKey) -> &'static str {
    key.algorithms()[0].name()
}

fn query_blob(login: &str, name: &str, blob: &[u8]) -> Vec<u8> {
    request(login, Method::PublicKey, false, name, blob)
}

fn query(login: &str, key: &PrivateKey) -> Vec<u8> {
    query_blob(login, plain_name(key), key.public().blob())
}

/// Puts a signature over `session_id` and the request behind it.
fn sign_with(mut request: Vec<u8>, key: &PrivateKey, session_id: &[u8; 32]) -> Vec<u8> {
    let data = signed_data(session_id, &request);
    request.put_string(&key.sign(key.algorithms()[0], &data).unwrap());
    request
}

fn signed(login: &str, key: &PrivateKey) -> Vec<u8> {
    let blob = key.public().blob();
    sign_with(request(login, Method::PublicKey, true, plain_name(key), blob), key, &SESSION)
}

fn signed_certificate(login: &str, key: &PrivateKey, blob: &[u8]) -> Vec<u8> {
    let name = key.algorithms()[0].certificate_name();
    sign_with(request(login, Method::PublicKey, true, name, blob), key, &SESSION)
}

fn host_bound(login: &str, key: &PrivateKey, signed: bool, host_key: &[u8]) -> Vec<u8> {
    let blob = key.public().blob();
    let mut request = request(login, Method::HostBound, signed, plain_name(key), blob);
    request.put_string(host_key);
    if signed { sign_with(request, key, &SESSION) } else { request }
}

fn other_method(login: &str, service: &str, method: &str) -> Vec<u8> {
    let mut message = vec![message::USERAUTH_REQUEST];
    for field in [login, service, method] {
        message.put_string(field.as_bytes());
    }
    message
}

/// `keyboard-interactive` as stock clients ask for it (RFC 4256 §3.1).
fn interactive(login: &str) -> Vec<u8> {
    let mut message = other_method(login, CONNECTION, KEYBOARD_INTERACTIVE);
    message.put_string(b"");
    message.put_string(b"");
    message
}

fn failure_listing(methods: &str) -> Vec<u8> {
    let mut message = vec![message::USERAUTH_FAILURE];
    message.put_string(methods.as_bytes());
    message.put_bool(false);
    message
}

/// The answer to every key that is refused, as long as the last words are not said.
fn failure() -> Vec<u8> {
    failure_listing("publickey,keyboard-interactive")
}

/// The same before any key is refused, and after the last words.
fn plain_failure() -> Vec<u8> {
    failure_listing("publickey")
}

fn last_words() -> Vec<u8> {
    let mut message = vec![message::USERAUTH_BANNER];
    message.put_string(b"no VM here\r\ntry the lobby\r\n");
    message.put_string(b"");
    message
}

fn usable(name: &str, blob: &[u8]) -> Vec<u8> {
    let mut message = vec![message::USERAUTH_PK_OK];
    message.put_string(name.as_bytes());
    message.put_string(blob);
    message
}

/// A template that lets alice in now; tests change one thing.
fn certificate<'a>(key: &'a PublicKey, restrictions: &'a Restrictions) -> UserCertificate<'a> {
    UserCertificate {
        key,
        key_id: "laptop of alice",
        principals: &["alice"],
        valid_after_s: NOW_S - 60,
        valid_before_s: NOW_S + 60,
        source_address: None,
        restrictions,
        serial: 5,
    }
}

fn trusting(ca: &PrivateKey) -> Policy {
    Policy { cas: vec![ca.public().clone()], ..policy() }
}

#[test]
fn an_accepted_key_is_offered_then_proved_then_let_in() {
    let key = key(1);
    let mut server = Server::new(policy(), List::of(&[&key]));
    let blob = key.public().blob();
    assert_eq!(server.answer(&query("alice", &key)), usable("ssh-ed25519", blob));
    let proved = server.proves(&signed("alice", &key));
    assert_eq!(proved.login(), "alice");
    assert_eq!(*proved.identity(), identity(&key));
    assert_eq!(proved.fingerprint(), key.public().fingerprint());
    assert_eq!(*proved.restrictions(), Restrictions::default());
    assert_eq!(proved.presented(), blob);
    assert_eq!(proved.algorithm(), SignatureAlgorithm::Ed25519);
    assert_eq!(proved.method(), Method::PublicKey);
    assert!(!proved.user_verified());
    server.authenticator.put_success(&mut server.sent).unwrap();
    assert_eq!(server.sent, [[message::USERAUTH_SUCCESS]]);
}

#[test]
fn a_proof_can_be_verified_again_by_somebody_else() {
    let (key, ca) = (key(1), key(9));
    let blob =
        certificate(key.public(), &Restrictions::default()).mint(&ca, &mut Seeded(3)).unwrap();
    for request in [
        signed("alice", &key),
        host_bound("alice", &key, true, HOST_KEY),
        signed_certificate("alice", &key, &blob),
    ] {
        let gate = List {
            accepted: vec![identity(&key), Identity::User("alice".into())],
            ..List::default()
        };
        let proved = Server::new(trusting(&ca), gate).proves(&request);
        let data = proved.signed_data(&SESSION, HOST_KEY);
        proved.key().verify(proved.algorithm(), &data, proved.signature()).unwrap();
        let other = proved.signed_data(&[8; 32], HOST_KEY);
        assert!(proved.key().verify(proved.algorithm(), &other, proved.signature()).is_err());
    }
}

#[test]
fn only_the_authentication_service_is_offered() {
    for service in ["ssh-connection", "", "ssh-userauth2"] {
        let mut authenticator = Authenticator::new(SOURCE);
        let mut asked = vec![message::SERVICE_REQUEST];
        asked.put_string(service.as_bytes());
        let mut sent = Sent::new();
        let (policy, gate) = (policy(), List::default());
        let judge = judge(&policy, &gate);
        assert_eq!(authenticator.take(&asked, &judge, &mut sent).unwrap_err(), Fault::Service);
        assert!(sent.is_empty());
    }
}

#[test]
fn a_repeated_service_request_is_answered_and_changes_nothing() {
    let key = key(1);
    let mut server = Server::new(policy(), List::of(&[&key]));
    server.answer(&query("alice", &key));
    let service = service_message(message::SERVICE_REQUEST);
    assert_eq!(server.answer(&service), service_message(message::SERVICE_ACCEPT));
    assert_eq!(server.fault(&query("bob", &key)), UNEXPECTED, "the user stays bound");
}

#[test]
fn messages_without_end_are_a_flood() {
    let service = service_message(message::SERVICE_REQUEST);
    let mut server = Server::new(policy(), List::default());
    for _ in 1..MESSAGES_MAX {
        server.answer(&service);
    }
    assert_eq!(server.fault(&service), Fault::Flood);
}

#[test]
fn none_lists_publickey_and_is_free_once() {
    let mut server = Server::new(policy(), List::default());
    let none = other_method("alice", CONNECTION, "none");
    let expected = [&[message::USERAUTH_FAILURE, 0, 0, 0, 9][..], b"publickey\0"].concat();
    for _ in 0..3 {
        assert_eq!(server.answer(&none), expected);
    }
    assert_eq!(server.fault(&none), Fault::Attempts);
}

#[test]
fn a_refusal_after_the_proof_counts_and_the_next_key_may_follow() {
    let (first, second) = (key(1), key(2));
    let mut server = Server::new(policy(), List::of(&[&first, &second]));
    for _ in 0..2 {
        server.proves(&signed("alice", &first));
        server.refuse().unwrap();
        assert_eq!(server.sent, [failure()]);
    }
    server.proves(&signed("alice", &second));
    assert_eq!(server.refuse(), Err(Fault::Attempts));
    assert_eq!(server.sent, [last_words(), plain_failure()]);
}

#[test]
fn a_signature_of_another_session_proves_nothing() {
    let key = key(1);
    let mut server = Server::new(policy(), List::of(&[&key]));
    let request = request("alice", Method::PublicKey, true, "ssh-ed25519", key.public().blob());
    assert_eq!(server.answer(&sign_with(request, &key, &[8; 32])), failure());
}

#[test]
fn a_host_bound_request_must_name_our_host_key() {
    let key = key(1);
    for signed in [false, true] {
        let mut server = Server::new(policy(), List::of(&[&key]));
        assert_eq!(server.answer(&host_bound("alice", &key, signed, b"another")), failure());
        assert!(server.gate.asked.borrow().is_empty());
    }
    let mut server = Server::new(policy(), List::of(&[&key]));
    let offer = host_bound("alice", &key, false, HOST_KEY);
    assert_eq!(server.answer(&offer), usable("ssh-ed25519", key.public().blob()));
    let proved = server.proves(&host_bound("alice", &key, true, HOST_KEY));
    assert_eq!(proved.method(), Method::HostBound);
}

#[test]
fn a_revoked_key_is_an_unknown_key() {
    let (key, ca) = (key(1), key(9));
    let blob =
        certificate(key.public(), &Restrictions::default()).mint(&ca, &mut Seeded(3)).unwrap();
    for revoked in [key.public(), ca.public()] {
        let revoked_policy = || Policy {
            revocations: Revocations::parse(revoked.to_line().as_bytes()).unwrap(),
            ..trusting(&ca)
        };
        let gate = || List {
            accepted: vec![identity(&key), Identity::User("alice".into())],
            ..List::default()
        };
        let mut server = Server::new(revoked_policy(), gate());
        assert_eq!(server.answer(&signed_certificate("root", &key, &blob)), failure());
        if revoked == key.public() {
            assert_eq!(server.answer(&query("root", &key)), failure());
            assert_eq!(server.answer(&signed("root", &key)), failure());
        }
        assert!(server.gate.asked.borrow().is_empty());
    }
}

#[test]
fn hide_keys_says_yes_to_every_well_formed_key_and_decides_after_the_signature() {
    let (right, stranger, revoked) = (key(1), key(2), key(3));
    let revocations = Revocations::parse(revoked.public().to_line().as_bytes()).unwrap();
    let policy = Policy { hide_keys: true, revocations, ..policy() };
    let mut server = Server::new(policy, List::of(&[&right, &revoked]));
    for key in [&right, &stranger, &revoked] {
        let blob = key.public().blob();
        assert_eq!(server.answer(&query("alice", key)), usable("ssh-ed25519", blob));
    }
    assert!(server.gate.asked.borrow().is_empty(), "nothing is looked up for an offer");
    assert_eq!(server.answer(&query_blob("alice", "ssh-ed25519", b"no key")), failure());
    assert_eq!(server.answer(&signed("alice", &stranger)), failure());
    assert_eq!(server.answer(&signed("alice", &revoked)), failure());
    server.proves(&signed("alice", &right));
}

#[test]
fn a_user_name_has_255_bytes_of_utf_8_at_most() {
    let key = key(1);
    let longest = "x".repeat(LOGIN_BYTES_MAX);
    let mut server = Server::new(policy(), List::of(&[&key]));
    assert_eq!(server.proves(&signed(&longest, &key)).login(), longest);
    let mut server = Server::new(policy(), List::of(&[&key]));
    assert_eq!(server.fault(&signed(&"x".repeat(256), &key)), Malformed::Range.into());
    let mut server = Server::new(policy(), List::of(&[&key]));
    let mut message = vec![message::USERAUTH_REQUEST];
    message.put_string(b"\xff");
    assert_eq!(server.fault(&message), Malformed::Text.into());
}

#[test]
fn a_request_that_does_not_parse_ends_the_connection() {
    let key = key(1);
    let whole = signed("alice", &key);
    for cut in 1..whole.len() {
        let mut server = Server::new(policy(), List::of(&[&key]));
        assert_eq!(server.fault(&whole[..cut]), Malformed::Short.into());
    }
    let mut server = Server::new(policy(), List::of(&[&key]));
    assert_eq!(server.fault(&[whole.as_slice(), b"\0"].concat()), Malformed::Trailing.into());
    let mut server = Server::new(policy(), List::of(&[&key]));
    assert_eq!(
        server.fault(&[query("alice", &key).as_slice(), b"\0"].concat()),
        Malformed::Trailing.into()
    );
}

#[test]
fn the_signature_flag_is_0_or_1() {
    let key = key(1);
    let mut message = query("alice", &key);
    let mut tail = vec![0];
    tail.put_string(b"ssh-ed25519");
    tail.put_string(key.public().blob());
    let at = message.strip_suffix(tail.as_slice()).unwrap().len();
    message[at] = 2;
    let mut server = Server::new(policy(), List::of(&[&key]));
    assert_eq!(server.fault(&message), Malformed::Range.into());
}

#[test]
fn keys_and_signatures_over_their_limits_are_refused() {
    let key = key(1);
    let mut server = Server::new(policy(), List::of(&[&key]));
    let long = vec![0; BLOB_BYTES_MAX + 1];
    assert_eq!(server.answer(&query_blob("alice", "ssh-ed25519", &long)), failure());
    let mut message = request("alice", Method::PublicKey, true, "ssh-ed25519", key.public().blob());
    message.put_string(&vec![0; SIGNATURE_BYTES_MAX + 1]);
    assert_eq!(server.answer(&message), failure());
}

/// What a peer may send, right and wrong, under two names and with two keys.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let login = prop_oneof![8 => Just("alice"), 1 => Just("bob")];
    let seed = 1_u8..4;
    prop_oneof![
        (login.clone(), seed.clone()).prop_map(|(login, seed)| query(login, &key(seed))),
        (login.clone(), seed.clone()).prop_map(|(login, seed)| signed(login, &key(seed))),
        (login.clone(), seed.clone()).prop_map(|(login, seed)| host_bound(
            login,
            &key(seed),
            true,
            HOST_KEY
        )),
        // Signed by another key than the one it names.
        (login.clone(), seed).prop_map(|(login, seed)| {
            let named = key(seed);
            let unsigned =
                request(login, Method::PublicKey, true, "ssh-ed25519", named.public().blob());
            sign_with(unsigned, &key(seed.wrapping_add(1)), &SESSION)
        }),
        (login, prop_oneof![Just("none"), Just("password")])
            .prop_map(|(login, method)| other_method(login, CONNECTION, method)),
        Just(service_message(message::SERVICE_REQUEST)),
        proptest::collection::vec(any::<u8>(), 0..60),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_sequence_of_messages_proves_a_key_that_did_not_sign(
        messages in proptest::collection::vec((any_message(), any::<bool>()), 0..12),
        hide_keys in any::<bool>(),
    ) {
        let right = key(1);
        let mut server = Server::new(Policy { hide_keys, ..policy() }, List::of(&[&right]));
        let genuine: Vec<_> = ["alice", "bob"]
            .into_iter()
            .flat_map(|login| [signed(login, &right), host_bound(login, &right, true, HOST_KEY)])
            .collect();
        for (message, accept) in messages {
            match server.take(&message) {
                Ok(Step::Continue) => prop_assert!(!genuine.contains(&message)),
                Ok(Step::Proved(proved)) => {
                    prop_assert!(genuine.contains(&message));
                    prop_assert_eq!(proved.identity(), &identity(&right));
                    if accept {
                        server.authenticator.put_success(&mut server.sent).unwrap();
                    } else if server.refuse().is_err() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        prop_assert!(server.authenticator.attempts <= 3);
        let granted = server.sent.iter().filter(|message| message[0] == message::USERAUTH_SUCCESS);
        prop_assert!(granted.count() <= 1);
    }

    #[test]
    fn no_changed_byte_leaves_a_proof(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let key = key(1);
        let mut message = host_bound("alice", &key, true, HOST_KEY);
        let at = at.index(message.len());
        message[at] ^= flip;
        let mut server = Server::new(policy(), List::of(&[&key]));
        let step = server.take(&message);
        prop_assert!(!matches!(step, Ok(Step::Proved(_))), "byte {}", at);
    }
}
