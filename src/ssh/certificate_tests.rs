//! Tests of `certificate`.

use proptest::prelude::*;

use super::super::testing::keygen::{Counter, Dir, KINDS, SecurityKey, mutations};
use super::*;
use crate::ssh::publickey::{Proof, Touch};

const NOW_S: u64 = 1_800_000_000;

fn generate(seed: u64) -> PrivateKey {
    PrivateKey::generate_ed25519(&mut Counter(seed))
}

fn home() -> Option<IpAddr> {
    "192.0.2.7".parse().ok()
}

/// A certificate written field by field, so that it can be wrong in every way.
struct Forge {
    key: PublicKey,
    number: u32,
    key_id: Vec<u8>,
    principals: Vec<Vec<u8>>,
    valid_after_s: u64,
    valid_before_s: u64,
    critical: Vec<(&'static str, Vec<u8>)>,
    extensions: Vec<(&'static str, Vec<u8>)>,
}

impl Forge {
    fn new() -> Self {
        Self {
            key: generate(1).public().clone(),
            number: 1,
            key_id: b"key id".to_vec(),
            principals: vec![b"alice".to_vec()],
            valid_after_s: NOW_S - 60,
            valid_before_s: NOW_S + 60,
            critical: vec![],
            extensions: vec![],
        }
    }

    fn critical(name: &'static str, value: Vec<u8>) -> Self {
        Self { critical: vec![(name, value)], ..Self::new() }
    }

    /// Everything up to the signature.
    fn unsigned(&self, ca: &[u8]) -> Vec<u8> {
        let list = |pairs: &[(&str, Vec<u8>)]| {
            let mut list = Vec::new();
            for (name, value) in pairs {
                list.put_string(name.as_bytes());
                list.put_string(value);
            }
            list
        };
        let mut plain = Reader::new(self.key.blob());
        plain.string().unwrap();
        let mut principals = Vec::new();
        for principal in &self.principals {
            principals.put_string(principal);
        }
        let mut blob = Vec::new();
        blob.put_string(self.key.key_type().certificate_name().as_bytes());
        blob.put_string(b"nonce");
        blob.put_bytes(plain.rest());
        blob.put_u64(5);
        blob.put_u32(self.number);
        blob.put_string(&self.key_id);
        blob.put_string(&principals);
        blob.put_u64(self.valid_after_s);
        blob.put_u64(self.valid_before_s);
        blob.put_string(&list(&self.critical));
        blob.put_string(&list(&self.extensions));
        blob.put_string(b"");
        blob.put_string(ca);
        blob
    }

    fn blob(&self) -> Vec<u8> {
        let mut blob = self.unsigned(ca().public().blob());
        let signature = ca().sign(SignatureAlgorithm::Ed25519, &blob).unwrap();
        blob.put_string(&signature);
        blob
    }

    fn parse(&self) -> Result<Certificate, CertificateFault> {
        Certificate::parse(&self.blob())
    }

    fn admit(&self) -> Result<(Vec<String>, Restrictions), CertificateFault> {
        let certificate = self.parse().unwrap();
        let admitted = certificate.admit_user(&[ca().public().clone()], home(), NOW_S);
        admitted.map(|standing| (standing.principals.to_vec(), standing.restrictions))
    }
}

fn ca() -> PrivateKey {
    generate(1000)
}

fn string(text: &str) -> Vec<u8> {
    let mut value = Vec::new();
    value.put_string(text.as_bytes());
    value
}

/// Nothing permitted, nothing forced: a certificate without extensions.
fn bare() -> Restrictions {
    Restrictions {
        no_pty: true,
        no_port_forwarding: true,
        no_agent_forwarding: true,
        no_x11_forwarding: true,
        no_user_rc: true,
        ..Restrictions::default()
    }
}

#[test]
fn certificates_of_ssh_keygen_admit_their_principal() {
    let dir = Dir::new();
    for (kind, bits) in KINDS {
        dir.new_key(&format!("ca-{kind}{bits}"), kind, bits);
        dir.new_key(&format!("user-{kind}{bits}"), kind, bits);
    }
    for (ca_kind, ca_bits) in KINDS {
        let ca = format!("ca-{ca_kind}{ca_bits}");
        let ca_key = PublicKey::parse_line(&dir.read(&format!("{ca}.pub"))).unwrap().0;
        for (kind, bits) in KINDS {
            let user = format!("user-{kind}{bits}");
            let key = PublicKey::parse_line(&dir.read(&format!("{user}.pub"))).unwrap().0;
            let line = dir.certify(&ca, &user, &["-n", "alice", "-z", "77", "-V", "-1h:+1h"]);
            let certificate = Certificate::parse_line(&line).unwrap();
            assert_eq!(certificate.key(), &key);
            assert_eq!(certificate.ca(), &ca_key);
            assert_eq!(certificate.certificate_type(), CertificateType::User);
            assert_eq!((certificate.serial(), certificate.key_id()), (77, "key id"));
            assert_eq!(
                line.split(' ').take(2).collect::<Vec<_>>().join(" "),
                certificate.to_line()
            );
            let now_s = certificate.valid_after_s;
            let admitted = certificate.admit_user(std::slice::from_ref(&ca_key), home(), now_s);
            let standing = admitted.unwrap();
            assert_eq!(standing.principals, ["alice"]);
            assert_eq!(standing.restrictions, Restrictions::default());
            assert_eq!(standing.until_s, Some(certificate.valid_before_s()));
        }
    }
}

#[test]
fn rsa_cas_sign_with_either_sha2_and_never_with_sha1() {
    let dir = Dir::new();
    dir.new_key("ca", "rsa", "2048");
    dir.new_key("user", "ed25519", "256");
    for (algorithm, ok) in [("rsa-sha2-256", true), ("rsa-sha2-512", true), ("ssh-rsa", false)] {
        let line = dir.certify("ca", "user", &["-t", algorithm, "-n", "alice"]);
        let verdict = Certificate::parse_line(&line);
        if ok {
            assert!(verdict.is_ok());
        } else {
            assert_eq!(verdict, Err(CertificateFault::Signature));
        }
    }
}

#[test]
fn options_of_ssh_keygen_become_restrictions() {
    let dir = Dir::new();
    dir.new_key("ca", "ed25519", "256");
    dir.new_key("user", "ed25519", "256");
    let cas = [PublicKey::parse_line(&dir.read("ca.pub")).unwrap().0];
    let none = Restrictions::default();
    for (options, expected) in [
        (vec!["clear"], bare()),
        (vec!["no-pty"], Restrictions { no_pty: true, ..none.clone() }),
        (vec!["no-port-forwarding"], Restrictions { no_port_forwarding: true, ..none.clone() }),
        (vec!["no-agent-forwarding"], Restrictions { no_agent_forwarding: true, ..none.clone() }),
        (vec!["no-x11-forwarding"], Restrictions { no_x11_forwarding: true, ..none.clone() }),
        (vec!["no-user-rc"], Restrictions { no_user_rc: true, ..none.clone() }),
        (vec!["no-touch-required"], Restrictions { no_touch_required: true, ..none.clone() }),
        (vec!["verify-required"], Restrictions { verify_required: true, ..none.clone() }),
        (
            vec!["force-command=echo \"hi\", all", "source-address=10.0.0.0/8,192.0.2.0/24"],
            Restrictions { force_command: Some("echo \"hi\", all".to_owned()), ..none.clone() },
        ),
        (vec!["clear", "extension:unknown@example.test"], bare()),
        (vec!["clear", "permit-pty", "permit-user-rc"], {
            Restrictions { no_pty: false, no_user_rc: false, ..bare() }
        }),
    ] {
        let mut args = vec!["-n", "alice"];
        args.extend(options.iter().flat_map(|option| ["-O", option]));
        let certificate = Certificate::parse_line(&dir.certify("ca", "user", &args)).unwrap();
        let admitted = certificate.admit_user(&cas, home(), NOW_S);
        let standing = admitted.unwrap();
        assert_eq!(standing.restrictions, expected, "{options:?}");
        let bound = options.iter().any(|option| option.contains("source-address"));
        assert_eq!(standing.source_bound, bound);
    }
}

#[test]
fn security_key_certificates_carry_their_key() {
    let dir = Dir::new();
    dir.new_key("ca", "ed25519", "256");
    for inner in [generate(1), dir.new_key("p256", "ecdsa", "256")] {
        let key = SecurityKey::new(inner, "ssh:");
        dir.write("sk.pub", key.public.to_line());
        let line = dir.certify("ca", "sk", &["-n", "alice", "-O", "no-touch-required"]);
        let certificate = Certificate::parse_line(&line).unwrap();
        assert_eq!(certificate.key(), &key.public);
        let cas = [certificate.ca().clone()];
        let Standing { restrictions, .. } = certificate.admit_user(&cas, home(), NOW_S).unwrap();
        let untouched = key.sign(0, 1, b"data");
        let verdict = certificate.key().verify_with(
            key.algorithm(),
            restrictions.touch(),
            b"data",
            &untouched,
        );
        assert!(verdict.is_ok());
    }
}

/// Trap 10, for certificates.
#[test]
fn touch_and_verification_are_demanded_as_the_certificate_says() {
    assert_eq!(Restrictions::default().touch(), Touch::Required);
    let relaxed = Restrictions { no_touch_required: true, ..Restrictions::default() };
    assert_eq!(relaxed.touch(), Touch::NotRequired);
    let strict = Restrictions { verify_required: true, ..Restrictions::default() };
    for (restrictions, user_verified, satisfied) in [
        (&relaxed, false, true),
        (&relaxed, true, true),
        (&strict, false, false),
        (&strict, true, true),
    ] {
        assert_eq!(restrictions.is_satisfied_by(Proof { user_verified }), satisfied);
    }
}

/// Trap 9: a host certificate presented as a user's.
#[test]
fn a_host_certificate_admits_no_user() {
    let host = Forge { number: 2, ..Forge::new() };
    assert_eq!(host.parse().unwrap().certificate_type(), CertificateType::Host);
    assert_eq!(host.admit(), Err(CertificateFault::Type));
    for number in [0, 3, u32::MAX] {
        let verdict = Forge { number, ..Forge::new() }.parse();
        assert_eq!(verdict, Err(CertificateFault::Key(KeyFault::Malformed)));
    }
}

/// Trap 9: CA not in the set.
#[test]
fn a_certificate_of_an_unknown_ca_admits_nobody() {
    let certificate = Forge::new().parse().unwrap();
    let others = [generate(2).public().clone(), certificate.key().clone()];
    let verdict = certificate.admit_user(&others, home(), NOW_S);
    assert_eq!(verdict, Err(CertificateFault::Untrusted));
    let verdict = certificate.admit_user(&[], home(), NOW_S);
    assert_eq!(verdict, Err(CertificateFault::Untrusted));
}

/// Trap 9: empty principals mean anybody to some servers.
#[test]
fn a_certificate_names_its_principals_or_admits_nobody() {
    let names = vec![b"alice".to_vec(), b"bob".to_vec()];
    let several = Forge { principals: names, ..Forge::new() }.admit();
    assert_eq!(several.unwrap().0, ["alice", "bob"]);
    for names in [&[][..], &[""], &["alice", ""]] {
        let principals = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let verdict = Forge { principals, ..Forge::new() }.admit();
        assert_eq!(verdict, Err(CertificateFault::Principals), "{names:?}");
    }
    let verdict = Forge { principals: vec![b"a\0b".to_vec()], ..Forge::new() }.parse();
    assert_eq!(verdict, Err(CertificateFault::Key(KeyFault::Malformed)));
    let verdict = Forge { principals: vec![vec![b'a']; PRINCIPALS_MAX + 1], ..Forge::new() };
    assert_eq!(verdict.parse(), Err(CertificateFault::Key(KeyFault::Malformed)));
}

/// Trap 9: dates.
#[test]
fn a_certificate_is_good_from_its_first_second_until_before_its_last() {
    for (valid_after_s, valid_before_s, expected) in [
        (NOW_S, NOW_S + 1, Ok(())),
        (NOW_S + 1, NOW_S + 2, Err(CertificateFault::NotYet)),
        (NOW_S - 1, NOW_S, Err(CertificateFault::Expired)),
        (0, FOREVER, Ok(())),
        (0, 0, Err(CertificateFault::Expired)),
        (FOREVER, FOREVER, Err(CertificateFault::NotYet)),
        (NOW_S + 1, NOW_S - 1, Err(CertificateFault::NotYet)),
    ] {
        let forge = Forge { valid_after_s, valid_before_s, ..Forge::new() };
        assert_eq!(forge.admit().map(|_| ()), expected, "{valid_after_s} {valid_before_s}");
    }
}

/// Trap 9: `source-address`, a v4-mapped client included.
#[test]
fn a_certificate_is_good_only_from_its_source_addresses() {
    for (list, source, expected) in [
        ("192.0.2.0/24", "192.0.2.7", Ok(())),
        ("192.0.2.0/24", "::ffff:192.0.2.7", Ok(())),
        ("10.0.0.0/8,2001:db8::/32", "2001:db8::1", Ok(())),
        ("192.0.2.0/24", "198.51.100.1", Err(CertificateFault::Source)),
        ("::/0", "192.0.2.7", Err(CertificateFault::Source)),
        ("192.0.2.7/24", "192.0.2.7", Err(CertificateFault::Critical)),
        ("", "192.0.2.7", Err(CertificateFault::Critical)),
        ("192.0.2.7,*", "192.0.2.7", Err(CertificateFault::Critical)),
    ] {
        let certificate = Forge::critical(SOURCE_ADDRESS, string(list)).parse().unwrap();
        let cas = [ca().public().clone()];
        let verdict = certificate.admit_user(&cas, source.parse().ok(), NOW_S);
        assert_eq!(
            verdict.map(|standing| standing.source_bound),
            expected.map(|()| true),
            "{list:?} {source}"
        );
        // Where the source is not known, only a list that nobody can be in refuses.
        let open = certificate.admit_user(&cas, None, NOW_S).map(|_| ());
        let malformed = expected == Err(CertificateFault::Critical);
        assert_eq!(open, if malformed { expected } else { Ok(()) }, "{list:?}");
    }
}

/// Trap 9: an unknown critical option; a known one that is malformed, repeated, or
/// in the other list.
#[test]
fn a_critical_option_that_is_not_understood_admits_nobody() {
    let trailing = [string("true"), vec![0]].concat();
    for forge in [
        Forge::critical("unknown@example.test", vec![]),
        Forge::critical("", vec![]),
        Forge::critical("Force-Command", string("true")),
        Forge::critical(PERMIT_PTY, vec![]),
        Forge::critical(NO_TOUCH_REQUIRED, vec![]),
        Forge::critical(VERIFY_REQUIRED, string("yes")),
        Forge::critical(FORCE_COMMAND, vec![]),
        Forge::critical(FORCE_COMMAND, b"true".to_vec()),
        Forge::critical(FORCE_COMMAND, trailing),
        Forge::critical(FORCE_COMMAND, string("true\0; false")),
        Forge {
            critical: vec![(FORCE_COMMAND, string("one")), (FORCE_COMMAND, string("two"))],
            ..Forge::new()
        },
    ] {
        assert_eq!(forge.admit(), Err(CertificateFault::Critical), "{:?}", forge.critical);
    }
    let harmless = Forge { extensions: vec![(FORCE_COMMAND, string("true"))], ..Forge::new() };
    assert_eq!(harmless.admit().unwrap().1, bare());
    let odd = Forge { extensions: vec![(PERMIT_PTY, vec![1])], ..Forge::new() };
    assert_eq!(odd.admit(), Err(CertificateFault::Key(KeyFault::Malformed)));
}

/// Trap 9: a certificate whose signature is somebody else's, or by another algorithm.
#[test]
fn what_the_ca_did_not_sign_is_refused() {
    let forge = Forge::new();
    let unsigned = forge.unsigned(ca().public().blob());
    let sign = |signature: Vec<u8>| {
        let mut blob = unsigned.clone();
        blob.put_string(&signature);
        Certificate::parse(&blob)
    };
    let good = ca().sign(SignatureAlgorithm::Ed25519, &unsigned).unwrap();
    assert!(sign(good.clone()).is_ok());
    let stranger = generate(2).sign(SignatureAlgorithm::Ed25519, &unsigned).unwrap();
    assert_eq!(sign(stranger), Err(CertificateFault::Signature));
    let other = ca().sign(SignatureAlgorithm::Ed25519, b"other").unwrap();
    assert_eq!(sign(other), Err(CertificateFault::Signature));
    let mut reader = Reader::new(&good);
    let (_, inner) = (reader.string().unwrap(), reader.string().unwrap());
    for name in
        ["ssh-rsa", "rsa-sha2-512", "ecdsa-sha2-nistp256", "ssh-ed25519-cert-v01@openssh.com"]
    {
        let mut renamed = string(name);
        renamed.put_string(inner);
        assert_eq!(sign(renamed), Err(CertificateFault::Signature), "{name}");
    }
}

/// Trap 9: a chain of certificates does not exist in this protocol.
#[test]
fn a_ca_is_a_plain_key_never_a_certificate() {
    let inner = Forge { key: ca().public().clone(), ..Forge::new() }.blob();
    let mut blob = Forge::new().unsigned(&inner);
    let signature = ca().sign(SignatureAlgorithm::Ed25519, &blob).unwrap();
    blob.put_string(&signature);
    assert_eq!(Certificate::parse(&blob), Err(CertificateFault::Key(KeyFault::Unsupported)));
}

/// Trap 10: a CA in a security key that nobody touched.
#[test]
fn a_security_key_ca_must_have_been_touched() {
    let security_key = SecurityKey::new(generate(3), "ssh:");
    for (flags, expected) in [(1, Ok(())), (0, Err(CertificateFault::Signature))] {
        let mut blob = Forge::new().unsigned(security_key.public.blob());
        let signature = security_key.sign(flags, 1, &blob);
        blob.put_string(&signature);
        assert_eq!(Certificate::parse(&blob).map(|_| ()), expected);
    }
}

#[test]
fn lines_that_contradict_their_certificate_are_refused() {
    let line = Forge::new().parse().unwrap().to_line();
    let encoded = line.split(' ').nth(1).unwrap();
    assert!(Certificate::parse_line(&format!("{line} comment\n")).is_ok());
    for (bad, fault) in [
        (format!("ssh-rsa-cert-v01@openssh.com {encoded}"), KeyFault::Malformed),
        (format!("ssh-ed25519 {encoded}"), KeyFault::Unsupported),
        (generate(1).public().to_line(), KeyFault::Unsupported),
        (String::new(), KeyFault::Malformed),
    ] {
        assert_eq!(Certificate::parse_line(&bad), Err(CertificateFault::Key(fault)), "{bad}");
    }
}

/// Trap 9: a panic in the parser (x/crypto CVE-2026-39835).
#[test]
fn no_truncation_or_changed_byte_of_a_certificate_panics_or_is_accepted() {
    let forge = Forge {
        critical: vec![(FORCE_COMMAND, string("true")), (SOURCE_ADDRESS, string("192.0.2.0/24"))],
        extensions: vec![(PERMIT_PTY, vec![])],
        ..Forge::new()
    };
    let blob = forge.blob();
    assert!(Certificate::parse(&blob).is_ok());
    for changed in mutations(&blob) {
        assert!(Certificate::parse(&changed).is_err());
    }
    assert!(Certificate::parse(&[&*blob, &[0]].concat()).is_err());
    // The same, signed again: now only the structure protects.
    let unsigned = forge.unsigned(ca().public().blob());
    let mut admitted = 0;
    for mut changed in mutations(&unsigned) {
        let signature = ca().sign(SignatureAlgorithm::Ed25519, &changed).unwrap();
        changed.put_string(&signature);
        if let Ok(certificate) = Certificate::parse(&changed) {
            let verdict = certificate.admit_user(&[ca().public().clone()], home(), NOW_S);
            admitted += u32::from(verdict.is_ok());
        }
    }
    assert!(admitted > 0, "the nonce may change");
}

fn everything() -> Restrictions {
    Restrictions {
        force_command: Some("/usr/bin/true --all".to_owned()),
        no_touch_required: true,
        verify_required: true,
        ..Restrictions::default()
    }
}

#[test]
fn minted_certificates_are_what_ssh_keygen_would_have_made() {
    let dir = Dir::new();
    let user = generate(1);
    let security_key = SecurityKey::new(generate(2), "ssh:");
    for (kind, bits) in KINDS {
        let ca = dir.new_key(&format!("ca-{kind}{bits}"), kind, bits);
        for key in [user.public(), &security_key.public] {
            let restrictions = everything();
            let order = UserCertificate {
                key,
                key_id: "alice from 192.0.2.7",
                principals: &["vm:blue"],
                valid_after_s: 1_700_000_000,
                valid_before_s: 1_900_000_000,
                source_address: Some("192.0.2.0/24,10.0.0.1"),
                restrictions: &restrictions,
                serial: 42,
            };
            let blob = order.mint(&ca, &mut Counter(7)).unwrap();
            let certificate = Certificate::parse(&blob).unwrap();
            let cas = [ca.public().clone()];
            let is_security_key = key.key_type().is_security_key();
            let expected = Restrictions {
                no_touch_required: is_security_key,
                verify_required: is_security_key,
                ..everything()
            };
            let admitted = certificate.admit_user(&cas, home(), NOW_S);
            let standing = admitted.unwrap();
            assert_eq!(
                (standing.principals, standing.restrictions),
                (&["vm:blue".to_owned()][..], expected)
            );

            dir.write("minted-cert.pub", certificate.to_line());
            let shown = dir.keygen(&["-L", "-f", "minted-cert.pub"]);
            let lines: Vec<_> = shown.lines().map(str::trim).collect();
            let mut wanted = vec!["Key ID: \"alice from 192.0.2.7\"", "Serial: 42", "Principals:"];
            wanted.extend(["vm:blue", "Critical Options:", "force-command /usr/bin/true --all"]);
            wanted.push("source-address 192.0.2.0/24,10.0.0.1");
            if is_security_key {
                wanted.push("verify-required");
            }
            wanted.push("Extensions:");
            if is_security_key {
                wanted.push("no-touch-required");
            }
            wanted.extend(["permit-X11-forwarding", "permit-agent-forwarding"]);
            wanted.extend(["permit-port-forwarding", "permit-pty", "permit-user-rc"]);
            let shown: Vec<_> =
                lines[4..].iter().filter(|line| !line.starts_with("Valid:")).collect();
            assert_eq!(shown, wanted.iter().collect::<Vec<_>>());
            assert!(lines[2].contains(&key.fingerprint().to_string()));
            assert!(lines[3].contains(&ca.public().fingerprint().to_string()));
        }
    }
}

#[test]
fn minting_and_admitting_agree_on_every_restriction() {
    for bits in 0u8..64 {
        let bit = |number: u8| bits >> number & 1 == 1;
        let restrictions = Restrictions {
            force_command: bit(5).then(|| "true".to_owned()),
            no_pty: bit(0),
            no_port_forwarding: bit(1),
            no_agent_forwarding: bit(2),
            no_x11_forwarding: bit(3),
            no_user_rc: bit(4),
            verify_required: false,
            no_touch_required: false,
        };
        let order = UserCertificate { restrictions: &restrictions, ..order(&["alice"]) };
        let certificate = Certificate::parse(&order.mint(&ca(), &mut Counter(1)).unwrap()).unwrap();
        let cas = [ca().public().clone()];
        let read = certificate.admit_user(&cas, home(), NOW_S).unwrap().restrictions;
        assert_eq!(read, restrictions);
    }
}

fn order<'a>(principals: &'a [&'a str]) -> UserCertificate<'a> {
    static KEY: std::sync::LazyLock<PublicKey> =
        std::sync::LazyLock::new(|| generate(1).public().clone());
    static NONE: std::sync::LazyLock<Restrictions> =
        std::sync::LazyLock::new(Restrictions::default);
    UserCertificate {
        key: &KEY,
        key_id: "",
        principals,
        valid_after_s: 0,
        valid_before_s: FOREVER,
        source_address: None,
        restrictions: &NONE,
        serial: 0,
    }
}

#[test]
fn a_certificate_that_would_mean_more_than_was_asked_is_not_minted() {
    let forced = Restrictions { force_command: Some("a\0b".to_owned()), ..Restrictions::default() };
    let many = vec!["alice"; PRINCIPALS_MAX + 1];
    for bad in [
        order(&[]),
        order(&[""]),
        order(&["alice", ""]),
        order(&["a\0b"]),
        order(&many),
        UserCertificate { key_id: "a\0b", ..order(&["alice"]) },
        UserCertificate { valid_after_s: 5, valid_before_s: 5, ..order(&["alice"]) },
        UserCertificate { source_address: Some(""), ..order(&["alice"]) },
        UserCertificate { source_address: Some("192.0.2.7/24"), ..order(&["alice"]) },
        UserCertificate { source_address: Some("*"), ..order(&["alice"]) },
        UserCertificate { restrictions: &forced, ..order(&["alice"]) },
    ] {
        assert_eq!(bad.mint(&ca(), &mut Counter(1)), Err(KeyFault::Malformed));
    }
    assert!(order(&["alice", "bob"]).mint(&ca(), &mut Counter(1)).is_ok());
}

#[test]
fn every_certificate_has_its_own_nonce() {
    let mut entropy = Counter(1);
    let one = order(&["alice"]).mint(&ca(), &mut entropy).unwrap();
    let two = order(&["alice"]).mint(&ca(), &mut entropy).unwrap();
    let nonce = |blob: &[u8]| {
        let mut reader = Reader::new(blob);
        reader.string().unwrap();
        reader.string().unwrap().to_vec()
    };
    assert_eq!(nonce(&one).len(), NONCE_BYTES);
    assert_ne!(nonce(&one), nonce(&two));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_certificate_and_no_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..7,
    ) {
        prop_assert!(Certificate::parse(&bytes).is_err());
        let mut named = string(KeyType::ALL[at].certificate_name());
        named.extend(&bytes);
        prop_assert!(Certificate::parse(&named).is_err());
    }

    #[test]
    fn arbitrary_options_signed_by_the_ca_do_not_panic(
        name in "(force-command|source-address|verify-required|permit-pty|.{0,9})",
        value in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let name: &'static str = name.leak();
        let _ = Forge::critical(name, value.clone()).admit();
        let _ = Forge { extensions: vec![(name, value)], ..Forge::new() }.admit();
    }
}
