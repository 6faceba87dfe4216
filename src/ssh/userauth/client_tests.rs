//! The client's side message by message, with real keys and without packets.

use super::*;
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::publickey::PublicKey;

const SESSION: [u8; 32] = [7; 32];

fn ed25519() -> Credential {
    let key = PrivateKey::generate_ed25519(&mut SystemEntropy::default());
    Credential { key: Arc::new(key), certificate: None }
}

fn rsa() -> Credential {
    let (key, _) = PrivateKey::from_openssh(include_str!("testdata/rsa2048")).unwrap();
    Credential { key: Arc::new(key), certificate: None }
}

/// Checks a request field by field as a server would; returns its algorithm name.
fn read(message: &[u8], login: &str, credential: &Credential) -> String {
    let mut reader = Reader::new(message);
    assert_eq!(reader.u8().unwrap(), message::USERAUTH_REQUEST);
    assert_eq!(reader.text().unwrap(), login);
    assert_eq!(reader.text().unwrap(), "ssh-connection");
    assert_eq!(reader.text().unwrap(), "publickey");
    assert_eq!(reader.u8().unwrap(), 1);
    let name = reader.text().unwrap();
    let plain = credential.key.public();
    let expected = credential.certificate.as_deref().unwrap_or(plain.blob());
    assert_eq!(reader.string().unwrap(), expected);
    let covered = message.strip_suffix(reader.rest()).unwrap();
    let algorithm = SignatureAlgorithm::from_name(name)
        .or_else(|| SignatureAlgorithm::from_certificate_name(name))
        .unwrap();
    let key = PublicKey::parse(plain.blob()).unwrap();
    let data = signed_data(&SESSION, covered);
    key.verify(algorithm, &data, reader.string().unwrap()).unwrap();
    reader.end().unwrap();
    name.to_owned()
}

fn name(credential: &Credential, server_sig_algs: Option<&str>) -> String {
    let message = signed_request("root", credential, &SESSION, server_sig_algs).unwrap();
    read(&message, "root", credential)
}

fn answering() -> Login {
    let mut login = Login { state: State::Service };
    let accept = service_message(message::SERVICE_ACCEPT);
    assert_eq!(login.take(&accept), Ok(LoginStep::Continue));
    login
}

fn banner(text: &[u8]) -> Vec<u8> {
    let mut message = vec![message::USERAUTH_BANNER];
    message.put_string(text);
    message.put_string(b"en");
    message
}

fn failure(methods: &str) -> Vec<u8> {
    let mut message = vec![message::USERAUTH_FAILURE];
    message.put_string(methods.as_bytes());
    message.put_bool(false);
    message
}

fn unexpected(number: u8) -> Fault {
    Fault::Unexpected { number, during: Stage::Authentication }
}

#[test]
fn the_request_is_signed_over_the_session_and_itself() {
    assert_eq!(name(&ed25519(), None), "ssh-ed25519");
}

#[test]
fn rsa_signs_with_what_the_server_lists() {
    let rsa = rsa();
    for (listed, expected) in [
        (None, "rsa-sha2-512"),
        (Some("ssh-ed25519,rsa-sha2-512,rsa-sha2-256"), "rsa-sha2-512"),
        (Some("rsa-sha2-256,rsa-sha2-512"), "rsa-sha2-512"),
        (Some("ssh-ed25519,rsa-sha2-256"), "rsa-sha2-256"),
        (Some("ssh-rsa"), "rsa-sha2-512"),
    ] {
        assert_eq!(name(&rsa, listed), expected);
    }
}

#[test]
fn a_certificate_goes_under_its_own_name() {
    let certified = Credential { certificate: Some(b"a certificate".to_vec()), ..rsa() };
    assert_eq!(name(&certified, Some("rsa-sha2-256")), "rsa-sha2-256-cert-v01@openssh.com");
    let listed = Some("rsa-sha2-256-cert-v01@openssh.com");
    assert_eq!(name(&certified, listed), "rsa-sha2-256-cert-v01@openssh.com");
}

#[test]
fn a_user_name_over_255_bytes_is_never_sent() {
    let long = "x".repeat(256);
    let result = signed_request(&long, &ed25519(), &SESSION, None);
    assert_eq!(result, Err(Malformed::Range.into()));
}

#[test]
fn success_ends_the_login() {
    let mut login = answering();
    assert_eq!(login.take(&[message::USERAUTH_SUCCESS]), Ok(LoginStep::Success));
    let again = login.take(&[message::USERAUTH_SUCCESS]);
    assert_eq!(again, Err(unexpected(message::USERAUTH_SUCCESS)));
}

#[test]
fn a_failure_says_which_methods_are_left() {
    let mut login = answering();
    let step = login.take(&failure("publickey,password"));
    assert_eq!(step, Ok(LoginStep::Refused("publickey,password".into())));
    assert!(login.take(&[message::USERAUTH_SUCCESS]).is_err(), "no success after a failure");
    let long = "x".repeat(METHODS_BYTES_MAX + 1);
    assert_eq!(answering().take(&failure(&long)), Err(Malformed::Range.into()));
}

#[test]
fn banners_are_handed_on_cut_and_counted() {
    let mut login = answering();
    for _ in 0..BANNERS_MAX {
        assert_eq!(login.take(&banner(b"hi\xff")), Ok(LoginStep::Banner("hi\u{fffd}".into())));
    }
    assert_eq!(login.take(&banner(b"hi")), Err(Fault::Flood));
    assert_eq!(login.take(&[message::USERAUTH_SUCCESS]), Err(Fault::Flood), "a fault sticks");
    let step = answering().take(&banner(&[b'x'; BANNER_BYTES_MAX + 1]));
    assert_eq!(step, Ok(LoginStep::Banner("x".repeat(BANNER_BYTES_MAX))));
}

#[test]
fn trap_11_success_before_the_service_is_accepted_is_no_success() {
    for number in [message::USERAUTH_SUCCESS, message::USERAUTH_FAILURE, message::USERAUTH_BANNER] {
        let mut login = Login { state: State::Service };
        assert_eq!(login.take(&[number]), Err(unexpected(number)));
    }
}

#[test]
fn trap_16_what_answers_nothing_we_sent_ends_the_connection() {
    for number in [
        message::SERVICE_REQUEST,
        message::SERVICE_ACCEPT,
        message::USERAUTH_REQUEST,
        message::USERAUTH_PK_OK,
        61,
        message::GLOBAL_REQUEST,
        message::CHANNEL_OPEN,
        message::CHANNEL_DATA,
    ] {
        assert_eq!(answering().take(&[number]), Err(unexpected(number)));
    }
}

#[test]
fn another_service_accepted_ends_the_connection() {
    let mut accept = vec![message::SERVICE_ACCEPT];
    accept.put_string(b"ssh-connection");
    assert_eq!(Login { state: State::Service }.take(&accept), Err(Fault::Service));
}

#[test]
fn bytes_behind_an_answer_are_malformed() {
    for mut answer in [vec![message::USERAUTH_SUCCESS], failure("publickey"), banner(b"hi")] {
        answer.push(0);
        assert_eq!(answering().take(&answer), Err(Malformed::Trailing.into()));
    }
}

proptest::proptest! {
    #[test]
    fn raw_bytes_never_panic(bytes: Vec<u8>, number in 50_u8..62) {
        let _ = answering().take(&bytes);
        let _ = answering().take(&[vec![number], bytes].concat());
    }
}
