//! Tests of `revocation`.

use proptest::prelude::*;

use super::super::certificate::{Restrictions, UserCertificate};
use super::super::private_key::PrivateKey;
use super::super::testing::keygen::{Counter, Dir, KINDS, mutations};
use super::super::wire::Put;
use super::*;

fn generate(seed: u64) -> PrivateKey {
    PrivateKey::generate_ed25519(&mut Counter(seed))
}

fn certificate(ca: &PrivateKey, serial: u64, key_id: &str) -> Certificate {
    let blob = UserCertificate {
        key: generate(1).public(),
        key_id,
        principals: &["alice"],
        valid_after_s: 0,
        valid_before_s: u64::MAX,
        source_address: None,
        restrictions: &Restrictions::default(),
        serial,
    }
    .mint(ca, &mut Counter(serial));
    Certificate::parse(&blob.unwrap()).unwrap()
}

/// A KRL of these sections.
fn krl(sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    file.put_u32(FORMAT_VERSION);
    for number in [1, 0, 0] {
        file.put_u64(number);
    }
    file.put_string(b"");
    file.put_string(b"comment");
    for (section, data) in sections {
        file.put_u8(*section);
        file.put_string(data);
    }
    file
}

/// A section on certificates of `ca` with one part.
fn about(ca: &[u8], part: u8, data: &[u8]) -> (u8, Vec<u8>) {
    let mut section = Vec::new();
    section.put_string(ca);
    section.put_string(b"");
    section.put_u8(part);
    section.put_string(data);
    (SECTION_CERTIFICATES, section)
}

fn strings(items: &[&[u8]]) -> Vec<u8> {
    let mut data = Vec::new();
    for item in items {
        data.put_string(item);
    }
    data
}

fn extension(critical: bool) -> Vec<u8> {
    let mut data = strings(&[b"name@example.test"]);
    data.put_bool(critical);
    data.put_string(b"contents");
    data
}

fn revoked_serials(section: (u8, Vec<u8>), candidates: &[u64]) -> Vec<u64> {
    let revocations = Revocations::parse(&krl(&[section])).unwrap();
    let contains = |serial: &u64| revocations.any_ca.contains_serial(*serial);
    candidates.iter().copied().filter(contains).collect()
}

#[test]
fn lists_of_ssh_keygen_revoke_what_they_name_and_nothing_else() {
    let dir = Dir::new();
    let ca = dir.new_key("ca", "ed25519", "256");
    let other_ca = dir.new_key("other", "ecdsa", "256");
    for (name, (kind, bits)) in ["one", "two", "three", "four", "five"].iter().zip(KINDS) {
        dir.new_key(name, kind, bits);
    }
    let key = |name: &str| PublicKey::parse_line(&dir.read(&format!("{name}.pub"))).unwrap().0;
    let spec = format!(
        "serial: 5\nserial: 100-200\nserial: 18446744073709551615\nid: lost laptop\n\
         key: {}\nsha1: {}\nsha256: {}\nhash: {}\n",
        dir.read("one.pub").trim(),
        dir.read("two.pub").trim(),
        dir.read("three.pub").trim(),
        key("four").fingerprint(),
    );
    dir.write("spec", spec);
    dir.keygen(&["-q", "-k", "-f", "krl", "-s", "ca.pub", "-z", "9", "spec"]);
    let revocations = Revocations::parse(&dir.read_bytes("krl")).unwrap();
    for (name, revoked) in [
        ("one", true),
        ("two", true),
        ("three", true),
        ("four", true),
        ("five", false),
        ("ca", false),
    ] {
        assert_eq!(revocations.revokes_key(&key(name)), revoked, "{name}");
    }
    for serial in [0, 1, 4, 5, 6, 99, 100, 150, 200, 201, u64::MAX - 1, u64::MAX] {
        let revoked = matches!(serial, 5 | 100..=200 | u64::MAX);
        for (ca, revoked) in [(&ca, revoked), (&other_ca, false)] {
            let certificate = certificate(ca, serial, "key id");
            assert_eq!(revocations.revokes_certificate(&certificate), revoked, "{serial}");
            // ssh-keygen itself says the same.
            dir.write("asked-cert.pub", certificate.to_line());
            let verdict = dir.keygen_with(&["-Q", "-f", "krl", "asked-cert.pub"], b"");
            assert_eq!(verdict.is_err(), revoked, "{serial}");
        }
    }
    assert!(revocations.revokes_certificate(&certificate(&ca, 1, "lost laptop")));
    assert!(revocations.revokes_certificate(&certificate(&ca, 0, "lost laptop")));
    assert!(!revocations.revokes_certificate(&certificate(&other_ca, 1, "lost laptop")));
}

/// ssh-keygen chooses list, range or bitmap by size; each shape must mean the same.
#[test]
fn serials_in_every_shape_agree_with_ssh_keygen() {
    let dir = Dir::new();
    let ca = dir.new_key("ca", "ed25519", "256");
    let sets: [Vec<u64>; 4] = [
        vec![3, 1 << 40, 1 << 60],
        (1000..3000).collect(),
        (1000..3000).filter(|serial| serial % 3 != 0).collect(),
        (1..600).filter(|serial| serial % 7 < 3 || *serial > 500).collect(),
    ];
    for serials in sets {
        let spec: Vec<_> = serials.iter().map(|serial| format!("serial: {serial}")).collect();
        dir.write("spec", spec.join("\n"));
        dir.keygen(&["-q", "-k", "-f", "krl", "-s", "ca.pub", "spec"]);
        let revocations = Revocations::parse(&dir.read_bytes("krl")).unwrap();
        let issued = &revocations.by_ca[&ca.public().fingerprint()];
        for serial in (1..4000).chain([1 << 40, (1 << 40) + 1, 1 << 60, u64::MAX]) {
            assert_eq!(issued.contains_serial(serial), serials.contains(&serial), "{serial}");
        }
    }
}

#[test]
fn a_list_for_every_ca_revokes_for_every_ca() {
    let dir = Dir::new();
    dir.write("spec", "serial: 5\nid: lost laptop\n");
    dir.keygen(&["-q", "-k", "-f", "krl", "-s", "none", "spec"]);
    let revocations = Revocations::parse(&dir.read_bytes("krl")).unwrap();
    for ca in [generate(10), generate(11)] {
        assert!(revocations.revokes_certificate(&certificate(&ca, 5, "")));
        assert!(revocations.revokes_certificate(&certificate(&ca, 6, "lost laptop")));
        assert!(!revocations.revokes_certificate(&certificate(&ca, 6, "")));
    }
}

#[test]
fn a_revoked_ca_or_key_revokes_the_certificate() {
    let ca = generate(10);
    let certificate = certificate(&ca, 5, "key id");
    let all: [&[u8]; 3] = [ca.public().blob(), certificate.key().blob(), certificate.blob()];
    for blob in all {
        let line = format!("# why\n\n{} at noon\n", Fingerprint::of(blob));
        let revocations = Revocations::parse(line.as_bytes()).unwrap();
        assert!(revocations.revokes_certificate(&certificate));
        let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, blob);
        let section = (SECTION_FINGERPRINT_SHA1, strings(&[sha1.as_ref()]));
        let revocations = Revocations::parse(&krl(&[section])).unwrap();
        assert!(revocations.revokes_certificate(&certificate));
        let sha256 = Fingerprint::of(blob).0;
        let section = (SECTION_FINGERPRINT_SHA256, strings(&[&sha256]));
        let revocations = Revocations::parse(&krl(&[section])).unwrap();
        assert!(revocations.revokes_certificate(&certificate));
    }
    assert!(!Revocations::default().revokes_certificate(&certificate));
    assert!(!Revocations::parse(&krl(&[])).unwrap().revokes_certificate(&certificate));
}

#[test]
fn plain_lists_hold_keys_fingerprints_certificates_and_comments() {
    let dir = Dir::new();
    dir.keygen(&["-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", "weak"]);
    let ca = generate(10);
    let (given, hashed, other) = (generate(2), generate(3), generate(4));
    let text = format!(
        "# lost\n\n  {} comment\r\n{}\n{}\n{}\nssh-dss AAAAB3NzaC1kc3MAAAABAQ==\n",
        given.public().to_line(),
        hashed.public().fingerprint(),
        certificate(&ca, 5, "").to_line(),
        dir.read("weak.pub").trim(),
    );
    let revocations = Revocations::parse(text.as_bytes()).unwrap();
    assert!(revocations.revokes_key(given.public()));
    assert!(revocations.revokes_key(hashed.public()));
    assert!(revocations.revokes_key(generate(1).public()), "the certificate's own key");
    assert!(revocations.revokes_certificate(&certificate(&generate(11), 9, "")));
    assert!(!revocations.revokes_key(other.public()));
    assert!(!revocations.revokes_key(ca.public()));
    assert!(!Revocations::parse(b"").unwrap().revokes_key(given.public()));
}

#[test]
fn a_plain_list_with_a_line_that_means_nothing_is_refused_with_its_number() {
    let line = generate(2).public().to_line();
    let encoded = line.split(' ').nth(1).unwrap();
    for bad in [
        "SHA256:abc".to_owned(),
        "MD5:00:11".to_owned(),
        "nonsense".to_owned(),
        format!("ssh-rsa {encoded}"),
        format!("ssh-ed25519x {encoded}"),
        format!("ssh-ed25519-cert-v01@openssh.com {encoded}"),
        format!("ssh-ed25519 {}", &encoded[4..]),
        format!("restrict {line}"),
    ] {
        let text = format!("{line}\n# comment\n{bad}\n");
        let fault = Revocations::parse(text.as_bytes()).unwrap_err();
        assert!(fault.starts_with("line 3: "), "{bad}: {fault}");
    }
    assert!(Revocations::parse(b"\xff\xfe").is_err());
    let huge = vec![b'\n'; FILE_BYTES_MAX + 1];
    assert!(Revocations::parse(&huge).is_err());
}

#[test]
fn serials_at_both_ends_are_found() {
    let mut range = Vec::new();
    range.put_u64(u64::MAX - 2);
    range.put_u64(u64::MAX);
    let candidates = [1, 2, 63, 64, 65, u64::MAX - 3, u64::MAX - 2, u64::MAX - 1, u64::MAX];
    let found = revoked_serials(about(b"", CERTIFICATES_SERIAL_RANGE, &range), &candidates);
    assert_eq!(found, [u64::MAX - 2, u64::MAX - 1, u64::MAX]);

    let mut bitmap = Vec::new();
    bitmap.put_u64(u64::MAX - 2);
    bitmap.put_mpint(&[0b101]);
    let found = revoked_serials(about(b"", CERTIFICATES_SERIAL_BITMAP, &bitmap), &candidates);
    assert_eq!(found, [u64::MAX - 2, u64::MAX]);

    let mut bitmap = Vec::new();
    bitmap.put_u64(1);
    bitmap.put_mpint(&[1, 0xc0, 0, 0, 0, 0, 0, 0, 1]);
    let found = revoked_serials(about(b"", CERTIFICATES_SERIAL_BITMAP, &bitmap), &candidates);
    assert_eq!(found, [1, 63, 64, 65]);

    let mut list = Vec::new();
    for serial in [u64::MAX, 64, 1, 64] {
        list.put_u64(serial);
    }
    let found = revoked_serials(about(b"", CERTIFICATES_SERIAL_LIST, &list), &candidates);
    assert_eq!(found, [1, 64, u64::MAX]);
}

#[test]
fn overlapping_ranges_are_one() {
    let ranges = vec![(50, 60), (1, 10), (11, 12), (5, 30), (59, 59), (100, u64::MAX), (200, 300)];
    let mut issued = Issued { ranges, ..Issued::default() };
    issued.settle();
    assert_eq!(issued.ranges, [(1, 30), (50, 60), (100, u64::MAX)]);
}

#[test]
fn a_list_that_is_not_understood_is_refused_whole() {
    let serials = |numbers: &[u64]| {
        let mut data = Vec::new();
        for number in numbers {
            data.put_u64(*number);
        }
        data
    };
    let bitmap = |offset: u64, bits: &[u8]| {
        let mut data = serials(&[offset]);
        data.put_mpint(bits);
        data
    };
    let certified = certificate(&generate(10), 1, "");
    for (section, why) in [
        ((9, vec![]), "section of unknown type 9"),
        ((SECTION_EXTENSION, extension(true)), "critical extension"),
        (about(b"", CERTIFICATES_EXTENSION, &extension(true)), "critical extension"),
        (about(b"", 0x24, b""), "section of unknown type 36"),
        (about(b"", CERTIFICATES_SERIAL_LIST, &serials(&[1, 0])), "serial"),
        (about(b"", CERTIFICATES_SERIAL_LIST, &[0; 7]), "ends inside"),
        (about(b"", CERTIFICATES_SERIAL_RANGE, &serials(&[0, 5])), "serial"),
        (about(b"", CERTIFICATES_SERIAL_RANGE, &serials(&[6, 5])), "serial"),
        (about(b"", CERTIFICATES_SERIAL_RANGE, &serials(&[5, 6, 7])), "after the last"),
        (about(b"", CERTIFICATES_SERIAL_BITMAP, &bitmap(0, &[1])), "serial"),
        (about(b"", CERTIFICATES_SERIAL_BITMAP, &bitmap(u64::MAX, &[2])), "serial"),
        (about(b"nonsense", CERTIFICATES_KEY_ID, b""), "malformed key"),
        (about(certified.blob(), CERTIFICATES_KEY_ID, b""), "malformed key"),
        ((SECTION_EXPLICIT_KEY, strings(&[b"nonsense"])), "malformed key"),
        ((SECTION_EXPLICIT_KEY, strings(&[certified.blob()])), "malformed key"),
        ((SECTION_FINGERPRINT_SHA1, strings(&[&[0; 32]])), "hash"),
        ((SECTION_FINGERPRINT_SHA256, strings(&[&[0; 20]])), "hash"),
    ] {
        let fault = Revocations::parse(&krl(&[section])).unwrap_err();
        assert!(fault.starts_with("KRL: ") && fault.contains(why), "{why}: {fault}");
    }
    let mut version = krl(&[]);
    version[MAGIC.len() + 3] = 2;
    assert!(Revocations::parse(&version).unwrap_err().contains("version"));
}

#[test]
fn extensions_that_are_not_critical_and_signatures_are_passed_over() {
    let mut file = krl(&[
        (SECTION_EXTENSION, extension(false)),
        about(b"", CERTIFICATES_EXTENSION, &extension(false)),
        (SECTION_EXPLICIT_KEY, strings(&[generate(2).public().blob()])),
        (SECTION_SIGNATURE, generate(10).public().blob().to_vec()),
    ]);
    assert!(Revocations::parse(&file).is_err(), "the signature itself is missing");
    file.put_string(b"signature");
    assert!(Revocations::parse(&file).unwrap().revokes_key(generate(2).public()));
}

/// Trap 18: allocation driven by what the input says, here by the bits of a bitmap.
#[test]
fn memory_stays_within_a_small_multiple_of_the_file() {
    let mut bitmap = Vec::new();
    bitmap.put_u64(3);
    bitmap.put_mpint(&vec![0x55; 1 << 20]);
    let section = about(b"", CERTIFICATES_SERIAL_BITMAP, &bitmap);
    let revocations = Revocations::parse(&krl(&[section])).unwrap();
    // 16 bytes hold 64 serials, which took 8 bytes of the file.
    assert!(revocations.any_ca.words.capacity() <= (1 << 20) / 8 + 2);
    assert!(revocations.any_ca.contains_serial(3));
    assert!(!revocations.any_ca.contains_serial(4));
    let last = 3 + 8 * (1 << 20) - 2;
    assert!(revocations.any_ca.contains_serial(last));
    assert!(!revocations.any_ca.contains_serial(last + 2));
}

#[test]
fn no_truncation_or_changed_byte_of_a_list_panics() {
    let dir = Dir::new();
    dir.new_key("ca", "ed25519", "256");
    let key = generate(2).public().to_line();
    let bits: Vec<_> = (1..100).map(|number| format!("serial: {}\n", number * 2)).collect();
    let bits = bits.concat();
    dir.write(
        "spec",
        format!("{bits}serial: 1000-2000\nid: a\nkey: {key}\nsha1: {key}\nsha256: {key}\n"),
    );
    dir.keygen(&["-q", "-k", "-f", "krl", "-s", "ca.pub", "spec"]);
    let file = dir.read_bytes("krl");
    assert!(Revocations::parse(&file).is_ok());
    let certificate = certificate(&generate(10), 7, "a");
    for changed in mutations(&file) {
        if let Ok(revocations) = Revocations::parse(&changed) {
            let _ = revocations.revokes_certificate(&certificate);
        }
    }
}

#[test]
fn joined_lists_revoke_what_either_revokes() {
    let [ca, key, other] = [generate(10), generate(11), generate(12)];
    let line = |key: &PrivateKey| Revocations::parse(key.public().to_line().as_bytes()).unwrap();
    let ids = about(ca.public().blob(), CERTIFICATES_KEY_ID, &strings(&[b"a"]));
    let mut joined = line(&key);
    joined.extend(Revocations::parse(&krl(&[ids])).unwrap());
    joined.extend(line(&other));
    assert!(joined.revokes_key(key.public()) && joined.revokes_key(other.public()));
    assert!(joined.revokes_certificate(&certificate(&ca, 7, "a")));
    assert!(!joined.revokes_certificate(&certificate(&ca, 7, "b")));
    assert!(!joined.is_empty() && Revocations::default().is_empty());
}

proptest! {
    #[test]
    fn arbitrary_lists_do_not_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), section in 0u8..6, part in 0x20u8..0x25,
    ) {
        let _ = Revocations::parse(&bytes);
        let _ = Revocations::parse(&[MAGIC, &bytes].concat());
        let _ = Revocations::parse(&krl(&[(section, bytes.clone())]));
        let _ = Revocations::parse(&krl(&[about(b"", part, &bytes)]));
    }

    #[test]
    fn serials_are_found_whatever_shape_they_came_in(
        list in proptest::collection::vec(1u64..300, 0..20),
        ranges in proptest::collection::vec((1u64..300, 1u64..340), 0..5),
        offset in 1u64..200, bits in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut sections = Vec::new();
        let mut expected = std::collections::BTreeSet::new();
        let mut data = Vec::new();
        for serial in &list {
            data.put_u64(*serial);
            expected.insert(*serial);
        }
        sections.push(about(b"", CERTIFICATES_SERIAL_LIST, &data));
        for (first, last) in ranges.into_iter().map(|(one, two)| (one.min(two), one.max(two))) {
            let mut data = Vec::new();
            data.put_u64(first);
            data.put_u64(last);
            expected.extend(first..=last);
            sections.push(about(b"", CERTIFICATES_SERIAL_RANGE, &data));
        }
        let mut data = Vec::new();
        data.put_u64(offset);
        data.put_mpint(&bits);
        let flags = bits.iter().rev().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        let flagged = (offset..).zip(flags).filter(|(_, flag)| *flag);
        expected.extend(flagged.map(|(serial, _)| serial));
        sections.push(about(b"", CERTIFICATES_SERIAL_BITMAP, &data));
        let revocations = Revocations::parse(&krl(&sections)).unwrap();
        // The same from a list of its own for each section.
        let mut joined = Revocations::default();
        for section in sections {
            joined.extend(Revocations::parse(&krl(&[section])).unwrap());
        }
        prop_assert_eq!(joined.is_empty(), expected.is_empty());
        for serial in 0..600 {
            for all in [&revocations, &joined] {
                let found = all.any_ca.contains_serial(serial);
                prop_assert_eq!(found, expected.contains(&serial), "serial {}", serial);
            }
        }
    }
}
