//! Tests of `publickey`.

use proptest::prelude::*;

use super::super::private_key::PrivateKey;
use super::super::testing::keygen::{Counter, Dir, KINDS, SecurityKey, SshSig, mutations};
use super::*;

// OpenSSH's own security key signatures, its known answers for PROTOCOL.u2f:
// regress/unittests/sshsig/testdata, files ed25519_sk, ecdsa_sk, namespace and signed-data.
const SK_NAMESPACE: &[u8] = b"unittest";
const SK_MESSAGE: &[u8] = b"This is a test, this is only a test";
const SK_ED25519: (&str, &str) = (
    "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIJsaDYXQYruc6bilCYDIK4YSOeG+zmrRO2M9t03//7LHAAAABHNzaDo= ED25519-SK test key",
    "-----BEGIN SSH SIGNATURE-----
U1NIU0lHAAAAAQAAAEoAAAAac2stc3NoLWVkMjU1MTlAb3BlbnNzaC5jb20AAAAgmxoNhd
Biu5zpuKUJgMgrhhI54b7OatE7Yz23Tf//sscAAAAEc3NoOgAAAAh1bml0dGVzdAAAAAAA
AAAGc2hhNTEyAAAAZwAAABpzay1zc2gtZWQyNTUxOUBvcGVuc3NoLmNvbQAAAEAi+7eTjW
/+LQ2M+sCD+KFtH1n7VFFJon/SZFsxODyV8cWTlFKj617Ys1Ur5TV6uaEXQhck8rBA2oQI
HTPANLIPARI0Vng=
-----END SSH SIGNATURE-----
",
);
const SK_ECDSA: (&str, &str) = (
    "sk-ecdsa-sha2-nistp256@openssh.com AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5jb20AAAAIbmlzdHAyNTYAAABBBKDVa5jRcT5V7E6ysmwVi7HJWh7p5D+hebLPakQcpnD2ajJZ6G/4WzuhlYWnclWY63JspDp299Rlhq5AT86/g8AAAAAEc3NoOg== ECDSA-SK test key",
    "-----BEGIN SSH SIGNATURE-----
U1NIU0lHAAAAAQAAAH8AAAAic2stZWNkc2Etc2hhMi1uaXN0cDI1NkBvcGVuc3NoLmNvbQ
AAAAhuaXN0cDI1NgAAAEEEoNVrmNFxPlXsTrKybBWLsclaHunkP6F5ss9qRBymcPZqMlno
b/hbO6GVhadyVZjrcmykOnb31GWGrkBPzr+DwAAAAARzc2g6AAAACHVuaXR0ZXN0AAAAAA
AAAAZzaGE1MTIAAAB3AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5jb20A
AABIAAAAIHohGwyy8iKT3zwd1TYA9V/Ioo7h/3zCJUtyq/Qigt/HAAAAIGzidTwq7D/kFa
7Xjcp/KkdbIs4MfQpfAW/0OciajlpzARI0Vng=
-----END SSH SIGNATURE-----
",
);

fn generate(seed: u64) -> PrivateKey {
    PrivateKey::generate_ed25519(&mut Counter(seed))
}

/// The two fields of a signature blob of a plain key.
fn split(signature: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut reader = Reader::new(signature);
    let fields = (reader.string().unwrap().to_vec(), reader.string().unwrap().to_vec());
    reader.end().unwrap();
    fields
}

fn join(name: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    blob.put_string(name);
    blob.put_string(signature);
    blob
}

#[test]
fn every_name_leads_back_to_its_type_and_sha1_has_none() {
    for key_type in KeyType::ALL {
        assert_eq!(KeyType::from_name(key_type.name()), Some(key_type));
        assert_eq!(KeyType::from_certificate_name(key_type.certificate_name()), Some(key_type));
    }
    for algorithm in SignatureAlgorithm::ALL {
        assert_eq!(SignatureAlgorithm::from_name(algorithm.name()), Some(algorithm));
        let certificate_name = algorithm.certificate_name();
        assert_eq!(SignatureAlgorithm::from_certificate_name(certificate_name), Some(algorithm));
    }
    assert_eq!(SignatureAlgorithm::from_name("ssh-rsa"), None);
    assert_eq!(SignatureAlgorithm::from_name("ssh-dss"), None);
    assert_eq!(SignatureAlgorithm::from_certificate_name("ssh-rsa-cert-v01@openssh.com"), None);
}

#[test]
fn keys_and_fingerprints_are_those_of_ssh_keygen() {
    let dir = Dir::new();
    for (kind, bits) in KINDS {
        let name = format!("{kind}{bits}");
        dir.new_key(&name, kind, bits);
        let line = dir.read(&format!("{name}.pub"));
        let (key, comment) = PublicKey::parse_line(&line).unwrap();
        assert_eq!(comment, "a comment");
        assert_eq!(format!("{} a comment", key.to_line()), line.trim());
        let shown = dir.keygen(&["-l", "-f", &format!("{name}.pub")]);
        assert_eq!(shown.split(' ').nth(1).unwrap(), key.fingerprint().to_string());
        assert_eq!(shown.split(' ').nth(1).unwrap().parse(), Ok(key.fingerprint()));
    }
}

#[test]
fn fingerprints_have_one_spelling() {
    let fingerprint = generate(1).public().fingerprint();
    let text = fingerprint.to_string();
    let tail = text.chars().last().unwrap();
    let other_tail = char::from(u8::try_from(tail).unwrap() ^ 1);
    for bad in [
        text.to_lowercase(),
        text.replace("SHA256:", "MD5:"),
        text.replace("SHA256:", ""),
        format!("{text}="),
        format!("{text} "),
        text[..text.len() - 1].to_owned(),
        format!("{}{other_tail}", &text[..text.len() - 1]),
    ] {
        assert_ne!(bad.parse::<Fingerprint>(), Ok(fingerprint), "{bad}");
    }
}

#[test]
fn signatures_of_ssh_keygen_verify_and_ours_satisfy_it() {
    let dir = Dir::new();
    for (kind, bits) in KINDS {
        let name = format!("{kind}{bits}");
        let key = dir.new_key(&name, kind, bits);
        dir.write("message", b"hello");
        dir.keygen(&["-q", "-Y", "sign", "-n", "test", "-f", &name, "message"]);
        let theirs = SshSig::parse(&dir.read("message.sig"));
        let data = SshSig::signed_data(b"test", b"hello");
        let best = key.algorithms()[0];
        key.public().verify(best, &data, &theirs.signature).unwrap();
        std::fs::remove_file(dir.path("message.sig")).unwrap();

        dir.write("allowed", format!("somebody {}\n", key.public().to_line()));
        for algorithm in key.algorithms() {
            let signature = key.sign(*algorithm, &data).unwrap();
            key.public().verify(*algorithm, &data, &signature).unwrap();
            let ours = SshSig {
                key: key.public().blob().to_vec(),
                namespace: b"test".to_vec(),
                signature,
            };
            dir.write("ours.sig", ours.armor());
            let args =
                ["-Y", "verify", "-f", "allowed", "-I", "somebody", "-n", "test", "-s", "ours.sig"];
            dir.keygen_with(&args, b"hello").unwrap();
            assert!(dir.keygen_with(&args, b"hellO").is_err());
        }
    }
}

#[test]
fn openssh_security_key_signatures_verify() {
    for ((line, armored), algorithm) in
        [(SK_ED25519, SignatureAlgorithm::SkEd25519), (SK_ECDSA, SignatureAlgorithm::SkEcdsaP256)]
    {
        let key = PublicKey::parse_line(line).unwrap().0;
        let sig = SshSig::parse(armored);
        assert_eq!((&*sig.key, &*sig.namespace), (key.blob(), SK_NAMESPACE));
        let data = SshSig::signed_data(SK_NAMESPACE, SK_MESSAGE);
        let proof = key.verify(algorithm, &data, &sig.signature).unwrap();
        assert_eq!(proof, Proof { user_verified: false });
        let other = SshSig::signed_data(SK_NAMESPACE, b"something else");
        assert_eq!(key.verify(algorithm, &other, &sig.signature), Err(KeyFault::Signature));
    }
}

/// Trap 10: security keys with the touch flag unset (CVE-2026-39831).
#[test]
fn an_untouched_security_key_is_refused_unless_its_entry_says_otherwise() {
    let dir = Dir::new();
    for inner in [generate(1), dir.new_key("p256", "ecdsa", "256")] {
        let key = SecurityKey::new(inner, "ssh:");
        let algorithm = key.algorithm();
        for (flags, strict, verified) in [
            (0x00, Err(KeyFault::Touch), false),
            (0x01, Ok(()), false),
            (0x04, Err(KeyFault::Touch), true),
            (0x05, Ok(()), true),
        ] {
            let signature = key.sign(flags, 7, b"data");
            let proof = Proof { user_verified: verified };
            let expected = strict.map(|()| proof);
            assert_eq!(key.public.verify(algorithm, b"data", &signature), expected);
            let relaxed =
                key.public.verify_with(algorithm, Touch::NotRequired, b"data", &signature);
            assert_eq!(relaxed, Ok(proof));
        }
    }
}

#[test]
fn the_flags_the_counter_and_the_application_of_a_security_key_are_signed() {
    let key = SecurityKey::new(generate(1), "ssh:");
    let good = key.sign(0, 7, b"data");
    let flags_at = good.len() - 5;
    for at in flags_at..good.len() {
        let mut forged = good.clone();
        forged[at] ^= 1;
        let verdict = key.public.verify_with(key.algorithm(), Touch::NotRequired, b"data", &forged);
        assert_eq!(verdict, Err(KeyFault::Signature), "byte {at}");
    }
    let elsewhere = SecurityKey::new(generate(1), "ssh:elsewhere").sign(1, 7, b"data");
    let verdict = key.public.verify(key.algorithm(), b"data", &elsewhere);
    assert_eq!(verdict, Err(KeyFault::Signature));
}

/// Trap 8: signature algorithm, key blob type and curve that disagree.
#[test]
fn a_signature_verifies_only_under_the_algorithm_of_its_own_key() {
    let dir = Dir::new();
    let keys: Vec<_> = KINDS
        .iter()
        .map(|(kind, bits)| dir.new_key(&format!("{kind}{bits}"), kind, bits))
        .collect();
    for signer in &keys {
        for signed_as in signer.algorithms() {
            let signature = signer.sign(*signed_as, b"data").unwrap();
            let (_, inner) = split(&signature);
            for verifier in &keys {
                for claimed in SignatureAlgorithm::ALL {
                    let right = verifier.public() == signer.public() && claimed == *signed_as;
                    let verdict = verifier.public().verify(claimed, b"data", &signature);
                    assert_eq!(verdict.is_ok(), right, "{claimed:?} {signed_as:?}");
                    // The name inside says what was negotiated, the rest does not.
                    let renamed = join(claimed.name().as_bytes(), &inner);
                    let verdict = verifier.public().verify(claimed, b"data", &renamed);
                    assert_eq!(verdict.is_ok(), right, "{claimed:?} {signed_as:?}");
                }
            }
        }
    }
}

/// Trap 8: a curve name that is not the type's, inside an otherwise good key.
#[test]
fn a_key_whose_curve_is_not_its_types_is_malformed() {
    let dir = Dir::new();
    let key = dir.new_key("key", "ecdsa", "256");
    let mut reader = Reader::new(key.public().blob());
    let (_, _, point) =
        (reader.string().unwrap(), reader.string().unwrap(), reader.string().unwrap());
    for (name, curve, ok) in [
        ("ecdsa-sha2-nistp256", "nistp256", true),
        ("ecdsa-sha2-nistp256", "nistp384", false),
        ("ecdsa-sha2-nistp384", "nistp256", false),
        ("ecdsa-sha2-nistp384", "nistp384", false),
    ] {
        let mut blob = Vec::new();
        for field in [name.as_bytes(), curve.as_bytes(), point] {
            blob.put_string(field);
        }
        assert_eq!(PublicKey::parse(&blob).is_ok(), ok, "{name} {curve}");
    }
}

/// Trap 8: `ssh-rsa` is a key type, never a signature.
#[test]
fn sha1_signatures_are_refused_under_every_name() {
    let dir = Dir::new();
    let key = dir.new_key("key", "rsa", "2048");
    // As any SHA-1 signer would send it; its bytes do not matter, nothing here computes
    // SHA-1 for signatures.
    let (_, inner) = split(&key.sign(SignatureAlgorithm::RsaSha256, b"data").unwrap());
    let sha1 = join(b"ssh-rsa", &inner);
    for algorithm in SignatureAlgorithm::ALL {
        assert!(key.public().verify(algorithm, b"data", &sha1).is_err());
    }
}

#[test]
fn rsa_keys_outside_the_size_limits_are_refused() {
    let dir = Dir::new();
    dir.keygen(&["-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", "weak"]);
    assert_eq!(PublicKey::parse_line(&dir.read("weak.pub")), Err(KeyFault::Weak));
    let rsa = |exponent: &[u8], bits: usize| {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= (8 - bits % 8) % 8;
        let mut blob = Vec::new();
        blob.put_string(b"ssh-rsa");
        blob.put_mpint(exponent);
        blob.put_mpint(&modulus);
        PublicKey::parse(&blob).map(|_| ())
    };
    assert_eq!(rsa(&[3], 2047), Err(KeyFault::Weak));
    assert_eq!(rsa(&[3], 2048), Ok(()));
    assert_eq!(rsa(&[3], 8192), Ok(()));
    assert_eq!(rsa(&[3], 8193), Err(KeyFault::Unsupported));
    assert_eq!(rsa(&[1], 2048), Err(KeyFault::Malformed));
    assert_eq!(rsa(&[], 2048), Err(KeyFault::Malformed));
    assert_eq!(rsa(&[2], 2048), Err(KeyFault::Malformed));
    assert_eq!(rsa(&[1, 0, 0, 0, 1], 2048), Ok(()));
    assert_eq!(rsa(&[3, 0, 0, 0, 1], 2048), Err(KeyFault::Unsupported));
}

#[test]
fn rsa_signatures_may_lack_leading_zeros_but_not_gain_any() {
    let dir = Dir::new();
    let key = dir.new_key("key", "rsa", "2048");
    let algorithm = SignatureAlgorithm::RsaSha256;
    // One signature in 256 starts with a zero byte; the message is a counter.
    let (data, signature) = (0u32..10_000)
        .map(|number| (number.to_be_bytes(), key.sign(algorithm, &number.to_be_bytes()).unwrap()))
        .find(|(_, signature)| split(signature).1[0] == 0)
        .unwrap();
    let (name, inner) = split(&signature);
    let shorter = join(&name, &inner[1..]);
    assert!(key.public().verify(algorithm, &data, &shorter).is_ok());
    let longer = join(&name, &[&[0], &*inner].concat());
    assert_eq!(key.public().verify(algorithm, &data, &longer), Err(KeyFault::Signature));
    let empty = join(&name, &[]);
    assert_eq!(key.public().verify(algorithm, &data, &empty), Err(KeyFault::Signature));
}

#[test]
fn ecdsa_signatures_have_one_encoding() {
    let dir = Dir::new();
    for bits in ["256", "384", "521"] {
        let key = dir.new_key(&format!("key{bits}"), "ecdsa", bits);
        let algorithm = key.algorithms()[0];
        for number in 0u8..16 {
            let signature = key.sign(algorithm, &[number]).unwrap();
            key.public().verify(algorithm, &[number], &signature).unwrap();
            let (name, inner) = split(&signature);
            let mut reader = Reader::new(&inner);
            let (r, s) = (reader.string().unwrap(), reader.string().unwrap());
            for (r, s, tail) in [
                ([&[0], r].concat(), s.to_vec(), &b""[..]),
                (r.to_vec(), [&[0], s].concat(), b""),
                (r.to_vec(), s.to_vec(), b"\0"),
                (vec![], s.to_vec(), b""),
                (r.to_vec(), vec![], b""),
                (vec![1; 67], s.to_vec(), b""),
                (vec![0xff; 32], s.to_vec(), b""),
            ] {
                let inner = [join(&r, &s), tail.to_vec()].concat();
                let verdict = key.public().verify(algorithm, &[number], &join(&name, &inner));
                assert_eq!(verdict, Err(KeyFault::Signature));
            }
        }
    }
}

#[test]
fn points_off_the_curve_or_compressed_are_malformed() {
    let dir = Dir::new();
    let key = dir.new_key("key", "ecdsa", "256");
    let blob = key.public().blob();
    let mut off = blob.to_vec();
    *off.last_mut().unwrap() ^= 1;
    assert_eq!(PublicKey::parse(&off), Err(KeyFault::Malformed));
    let (head, point) = blob.split_at(blob.len() - 65);
    let mut compressed = head[..head.len() - 4].to_vec();
    compressed.put_string(&[&[2 + (point[64] & 1)], &point[1..33]].concat());
    assert_eq!(PublicKey::parse(&compressed), Err(KeyFault::Malformed));
}

#[test]
fn lines_that_contradict_their_key_are_refused() {
    let line = generate(1).public().to_line();
    let encoded = line.split(' ').nth(1).unwrap();
    assert!(PublicKey::parse_line(&format!("  {line}\t a  comment \r\n")).is_ok());
    assert_eq!(PublicKey::parse_line(&format!("{line} a  b")).unwrap().1, "a  b");
    for (bad, fault) in [
        (format!("ssh-rsa {encoded}"), KeyFault::Malformed),
        (format!("ssh-dss {encoded}"), KeyFault::Unsupported),
        (format!("ssh-ed25519-cert-v01@openssh.com {encoded}"), KeyFault::Unsupported),
        (encoded.to_owned(), KeyFault::Malformed),
        (format!("{line}\nsecond"), KeyFault::Malformed),
        (format!("ssh-ed25519 {}", &encoded[1..]), KeyFault::Malformed),
        (String::new(), KeyFault::Malformed),
    ] {
        assert_eq!(PublicKey::parse_line(&bad), Err(fault), "{bad}");
    }
}

#[test]
fn no_truncation_or_changed_byte_of_a_key_panics_or_passes_for_it() {
    let dir = Dir::new();
    let mut blobs: Vec<Vec<u8>> = KINDS
        .iter()
        .map(|(kind, bits)| dir.new_key(&format!("{kind}{bits}"), kind, bits))
        .map(|key| key.public().blob().to_vec())
        .collect();
    for (line, _) in [SK_ED25519, SK_ECDSA] {
        blobs.push(PublicKey::parse_line(line).unwrap().0.blob().to_vec());
    }
    for blob in blobs {
        let key = PublicKey::parse(&blob).unwrap();
        for changed in mutations(&blob) {
            if let Ok(other) = PublicKey::parse(&changed) {
                assert_eq!(other.blob(), changed);
                assert_ne!(other, key);
                assert_ne!(other.fingerprint(), key.fingerprint());
            }
        }
        let longer = [&*blob, &[0]].concat();
        assert_eq!(PublicKey::parse(&longer), Err(KeyFault::Malformed));
    }
}

#[test]
fn no_truncated_changed_or_longer_signature_verifies() {
    let dir = Dir::new();
    let security_key = SecurityKey::new(generate(1), "ssh:");
    let mut samples = vec![(
        security_key.public.clone(),
        security_key.algorithm(),
        security_key.sign(5, 7, b"data"),
    )];
    for (kind, bits) in KINDS {
        let key = dir.new_key(&format!("{kind}{bits}"), kind, bits);
        let algorithm = key.algorithms()[0];
        samples.push((key.public().clone(), algorithm, key.sign(algorithm, b"data").unwrap()));
    }
    for (key, algorithm, signature) in samples {
        assert!(key.verify(algorithm, b"data", &signature).is_ok());
        for changed in mutations(&signature) {
            let verdict = key.verify(algorithm, b"data", &changed);
            assert_eq!(verdict, Err(KeyFault::Signature), "{algorithm:?}");
        }
        let longer = [&*signature, &[0]].concat();
        assert_eq!(key.verify(algorithm, b"data", &longer), Err(KeyFault::Signature));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_key_signature_or_fingerprint_and_no_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,200}", at in 0usize..7,
    ) {
        let name = KeyType::ALL[at].name();
        let mut named = Vec::new();
        named.put_string(name.as_bytes());
        named.put_bytes(&bytes);
        for blob in [&bytes, &named] {
            if let Ok(key) = PublicKey::parse(blob) {
                let line = key.to_line();
                prop_assert_eq!(PublicKey::parse_line(&line), Ok((key, "")));
            }
            for algorithm in SignatureAlgorithm::ALL {
                let key = PublicKey::parse_line(SK_ED25519.0).unwrap().0;
                prop_assert!(key.verify(algorithm, b"", blob).is_err());
            }
        }
        prop_assert!(PublicKey::parse_line(&text).is_err());
        let line = format!("{name} {text}");
        prop_assert!(PublicKey::parse_line(&line).is_err());
        prop_assert!(text.parse::<Fingerprint>().is_err());
    }
}
