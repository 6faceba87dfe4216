//! Tests of `hostkey`.

use proptest::prelude::*;

use super::super::certificate::{Restrictions, UserCertificate};
use super::super::testing::keygen::{Counter, Dir, KINDS, mutations};
use super::*;
use crate::ssh::certificate::{Certificate, CertificateFault};
use crate::ssh::host_key::HostKey;

/// Gives back fixed bytes: the check numbers of a file to be reproduced.
struct Fixed([u8; 4]);

impl Entropy for Fixed {
    fn fill(&mut self, out: &mut [u8]) {
        out.copy_from_slice(&self.0);
    }
}

fn generate(seed: u64) -> PrivateKey {
    PrivateKey::generate_ed25519(&mut Counter(seed))
}

/// What stands before the private part, and the private part.
fn split(text: &str) -> (Vec<u8>, Vec<u8>) {
    let file = decode_pem(text).unwrap();
    let mut reader = Reader::new(file.strip_prefix(MAGIC).unwrap());
    for _ in 0..3 {
        reader.string().unwrap();
    }
    reader.u32().unwrap();
    reader.string().unwrap();
    let head = file.strip_suffix(reader.rest()).unwrap().to_vec();
    (head, reader.string().unwrap().to_vec())
}

/// A key file with its private part changed by `change`.
fn rewritten(key: &PrivateKey, change: impl Fn(&mut Vec<u8>)) -> String {
    let (mut file, mut private) = split(&key.to_openssh("comment", &mut Counter(9)));
    change(&mut private);
    file.put_string(&private);
    encode_pem(&file).to_string()
}

#[test]
fn key_files_of_ssh_keygen_are_read_and_written_byte_for_byte() {
    let dir = Dir::new();
    for (kind, bits) in KINDS {
        let name = format!("{kind}{bits}");
        dir.new_key(&name, kind, bits);
        let text = dir.read(&name);
        let (key, comment) = PrivateKey::from_openssh(&text).unwrap();
        assert_eq!(comment, "a comment");
        let public = dir.read(&format!("{name}.pub"));
        assert_eq!(format!("{} a comment", key.public().to_line()), public.trim());
        let check = split(&text).1[..4].try_into().unwrap();
        assert_eq!(*key.to_openssh("a comment", &mut Fixed(check)), text, "{name}");
    }
}

#[test]
fn ssh_keygen_reads_the_key_files_written_here() {
    let dir = Dir::new();
    // Every length of padding.
    for (seed, len) in (0..).zip(0..=8) {
        let comment = "comment!"[..len].to_owned();
        let key = generate(seed);
        dir.write("key", key.to_openssh(&comment, &mut Counter(1)).as_bytes());
        let public = dir.keygen(&["-y", "-f", "key"]);
        assert_eq!(public.trim(), format!("{} {comment}", key.public().to_line()).trim());
        let (again, read) = PrivateKey::from_openssh(&dir.read("key")).unwrap();
        assert_eq!((again.public(), read), (key.public(), comment));
    }
}

#[test]
fn a_written_key_signs_as_before_when_read_again() {
    let dir = Dir::new();
    for (kind, bits) in KINDS {
        let key = dir.new_key(&format!("{kind}{bits}"), kind, bits);
        let text = key.to_openssh("", &mut Counter(1));
        let again = PrivateKey::from_openssh(&text).unwrap().0;
        for algorithm in key.algorithms() {
            let signature = again.sign(*algorithm, b"data").unwrap();
            key.public().verify(*algorithm, b"data", &signature).unwrap();
        }
    }
}

#[test]
fn larger_rsa_keys_are_read() {
    let dir = Dir::new();
    let key = dir.new_key("key", "rsa", "3072");
    let signature = key.sign(SignatureAlgorithm::RsaSha512, b"data").unwrap();
    key.public().verify(SignatureAlgorithm::RsaSha512, b"data", &signature).unwrap();
}

#[test]
fn no_key_signs_with_another_types_algorithm() {
    let key = generate(1);
    for algorithm in SignatureAlgorithm::ALL {
        let verdict = key.sign(algorithm, b"data");
        assert_eq!(verdict.is_ok(), algorithm == SignatureAlgorithm::Ed25519);
    }
}

#[test]
fn encrypted_and_foreign_key_files_say_what_they_are() {
    let dir = Dir::new();
    dir.keygen(&["-q", "-t", "ed25519", "-N", "secret", "-f", "locked"]);
    let verdict = PrivateKey::from_openssh(&dir.read("locked"));
    assert_eq!(verdict.unwrap_err(), KeyFault::Encrypted);
    dir.keygen(&["-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f", "pem"]);
    let verdict = PrivateKey::from_openssh(&dir.read("pem"));
    assert_eq!(verdict.unwrap_err(), KeyFault::Unsupported);
    dir.keygen(&["-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", "weak"]);
    let verdict = PrivateKey::from_openssh(&dir.read("weak"));
    assert_eq!(verdict.unwrap_err(), KeyFault::Weak);
    let verdict = PrivateKey::from_openssh(&generate(1).public().to_line());
    assert_eq!(verdict.unwrap_err(), KeyFault::Malformed);
}

#[test]
fn carriage_returns_and_blanks_around_a_key_file_do_no_harm() {
    let text = generate(1).to_openssh("comment", &mut Counter(1));
    let windows = format!("\r\n{}\r\n", text.replace('\n', "\r\n"));
    assert_eq!(PrivateKey::from_openssh(&windows).unwrap().0.public(), generate(1).public());
}

#[test]
fn a_private_part_that_does_not_fit_is_refused() {
    type Change = dyn Fn(&mut Vec<u8>);
    let dir = Dir::new();
    for key in [generate(1), dir.new_key("p521", "ecdsa", "521"), dir.new_key("rsa", "rsa", "2048")]
    {
        assert!(PrivateKey::from_openssh(&rewritten(&key, |_| {})).is_ok());
        let refused: [&Change; 5] = [
            &|private| private[0] ^= 1,
            &|private| *private.last_mut().unwrap() ^= 1,
            &|private| private.push(0),
            &|private| {
                // The last byte of the secret: before the comment and its length, and the padding.
                let comment = private.windows(7).rposition(|bytes| bytes == b"comment").unwrap();
                private[comment - 5] ^= 2;
            },
            &|private| private.truncate(20),
        ];
        for (number, change) in refused.into_iter().enumerate() {
            let verdict = PrivateKey::from_openssh(&rewritten(&key, change));
            assert_eq!(verdict.unwrap_err(), KeyFault::Malformed, "change {number}");
        }
    }
}

#[test]
fn the_public_part_of_a_key_file_must_be_the_private_parts() {
    let (one, two) = (generate(1), generate(2));
    let text = one.to_openssh("", &mut Counter(1));
    let file = decode_pem(&text).unwrap();
    let at = file.windows(32).position(|bytes| one.public().blob().ends_with(bytes)).unwrap();
    let mut swapped = file.to_vec();
    swapped[at..at + 32].copy_from_slice(&two.public().blob()[19..]);
    let verdict = PrivateKey::from_openssh(&encode_pem(&swapped));
    assert_eq!(verdict.unwrap_err(), KeyFault::Malformed);
}

#[test]
fn debug_shows_the_fingerprint_and_nothing_else() {
    let key = generate(1);
    let expected = format!(
        "PrivateKey {{ public: PublicKey(ssh-ed25519 {}), .. }}",
        key.public().fingerprint()
    );
    assert_eq!(format!("{key:?}"), expected);
}

#[test]
fn a_host_key_takes_only_a_host_certificate_for_itself() {
    let dir = Dir::new();
    dir.new_key("ca", "ed25519", "256");
    let host = dir.new_key("host", "ed25519", "256");
    let line = dir.certify("ca", "host", &["-h", "-n", "host.example.test"]);
    let certificate = Certificate::parse_line(&line).unwrap();
    let verdict = HostKey::with_certificate(generate(1), certificate.clone());
    assert_eq!(verdict.unwrap_err(), CertificateFault::Key(KeyFault::Malformed));
    assert!(HostKey::with_certificate(host, certificate).is_ok());

    let (user, ca) = (generate(1), generate(2));
    let blob = UserCertificate {
        key: user.public(),
        key_id: "",
        principals: &["alice"],
        valid_after_s: 0,
        valid_before_s: 1,
        source_address: None,
        restrictions: &Restrictions::default(),
        serial: 0,
    };
    let blob = blob.mint(&ca, &mut Counter(1)).unwrap();
    let verdict = HostKey::with_certificate(user, Certificate::parse(&blob).unwrap());
    assert_eq!(verdict.unwrap_err(), CertificateFault::Type);
}

#[test]
fn no_truncation_or_changed_byte_of_a_key_file_panics() {
    let dir = Dir::new();
    let mut read = 0;
    for key in [generate(1), dir.new_key("key", "ecdsa", "384")] {
        let file = decode_pem(&key.to_openssh("comment", &mut Counter(1))).unwrap();
        for changed in mutations(&file) {
            if let Ok((other, _)) = PrivateKey::from_openssh(&encode_pem(&changed)) {
                // Only the comment is free text; its characters may change.
                assert_eq!(other.public(), key.public());
                read += 1;
            }
        }
    }
    assert!(read > 0);
    let text = generate(1).to_openssh("comment", &mut Counter(1));
    for changed in mutations(text.as_bytes()) {
        if let Ok(changed) = std::str::from_utf8(&changed) {
            let _ = PrivateKey::from_openssh(changed);
        }
    }
}

proptest! {
    #[test]
    fn reduce_is_the_remainder(value in any::<u128>(), modulus in 1u64..) {
        let expected = value.checked_rem(u128::from(modulus)).unwrap();
        let expected = u64::try_from(expected).unwrap();
        let rest = reduce(&value.to_be_bytes(), &modulus.to_be_bytes());
        prop_assert_eq!(rest.as_slice(), [&[0], &expected.to_be_bytes()[..]].concat());
    }

    #[test]
    fn reduce_takes_any_bytes(
        value in proptest::collection::vec(any::<u8>(), 0..40),
        modulus in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let rest = reduce(&value, &modulus);
        prop_assert_eq!(rest.len().checked_sub(modulus.len()), Some(1));
    }

    #[test]
    fn arbitrary_text_is_no_key_file_and_no_panic(
        text in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        prop_assert!(PrivateKey::from_openssh(&text).is_err());
        let file = [MAGIC, &bytes].concat();
        prop_assert!(PrivateKey::from_openssh(&encode_pem(&file)).is_err());
    }
}
