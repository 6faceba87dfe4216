//! Tests of `sign`: hickory's own validator, which shares no line with the signer, checks
//! what was signed.

use hickory_proto::dnssec::Verifier as _;
use hickory_proto::dnssec::rdata::RRSIG;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType::{
    A, AAAA, CNAME, DNSKEY as DNSKEY_TYPE, NS, NSEC as NSEC_TYPE, SOA, SSHFP,
};

use super::super::responder::{Reply, Responder};
use super::super::testing::{host_keys, listing, name, query, settings, with_edns, zone_of};
use super::super::zone::Zone;
use super::super::{ResponseKind, Transport};
use super::*;

const KEY: &str = include_str!("testdata/ecdsa_p256");
const NOW: u64 = 1_800_000_000;

fn key() -> Arc<PrivateKey> {
    Arc::new(PrivateKey::from_openssh(KEY).unwrap().0)
}

fn signed_zone() -> Arc<Zone> {
    let mut settings = settings();
    settings.dnssec_key = Some(key());
    zone_of(&settings, listing())
}

fn ask_with(
    zone: &Arc<Zone>,
    asked: &str,
    wanted: RecordType,
    flags: u16,
) -> (ResponseKind, Message) {
    let mut request = with_edns(query(asked, wanted), 1232);
    let edns = request.edns.as_mut().unwrap();
    edns.flags_mut().dnssec_ok = flags & 0x8000 != 0;
    edns.flags_mut().z = flags & 0x7fff;
    let (request, mut out) = (request.to_vec().unwrap(), Vec::new());
    let peer = std::net::Ipv4Addr::LOCALHOST.into();
    let reply = Responder::new(Arc::clone(zone)).respond(&request, peer, Transport::Udp, &mut out);
    let Reply::Message(said) = reply else { panic!("{reply:?}") };
    (said, Message::from_vec(&out).unwrap())
}

fn ask(zone: &Arc<Zone>, asked: &str, wanted: RecordType) -> (ResponseKind, Message) {
    ask_with(zone, asked, wanted, 0x8000)
}

fn signature(record: &Record) -> Option<&RRSIG> {
    if let RData::DNSSEC(DNSSECRData::RRSIG(signature)) = &record.data {
        return Some(signature);
    }
    None
}

/// Every set of a section has one valid signature; the types of the sets, in order.
fn checked(section: &[Record]) -> Vec<RecordType> {
    let RData::DNSSEC(DNSSECRData::DNSKEY(dnskey)) =
        Signer::new(key(), name("vm.test.")).unwrap().dnskey()
    else {
        panic!("another type")
    };
    let mut types = Vec::new();
    for record in section.iter().filter(|record| signature(record).is_none()) {
        let set = section.iter().filter(|other| {
            other.name == record.name && other.record_type() == record.record_type()
        });
        let of = |it: &&RRSIG| it.input().type_covered == record.record_type();
        let made: Vec<_> = section
            .iter()
            .filter(|other| other.name == record.name)
            .filter_map(signature)
            .filter(of)
            .collect();
        assert_eq!(made.len(), 1, "{record}");
        dnskey.verify_rrsig(&record.name, DNSClass::IN, made[0], set).unwrap();
        types.push(record.record_type());
    }
    types.dedup();
    types
}

/// What an NSEC says exists.
fn bitmap(section: &[Record]) -> (String, Vec<u16>) {
    let proof = section.iter().find(|record| record.record_type() == NSEC_TYPE);
    let record = proof.expect("a proof");
    let RData::DNSSEC(DNSSECRData::NSEC(nsec)) = &record.data else { panic!("{record}") };
    assert_eq!(record.ttl, 60);
    let next = nsec.next_domain_name();
    assert_eq!(next.iter().next(), Some(&[0][..]), "the next name is the first below");
    assert_eq!(next.base_name(), record.name);
    let mut types: Vec<_> = nsec.type_bit_maps().map(u16::from).collect();
    types.sort_unstable();
    (record.name.to_string(), types)
}

#[test]
fn every_set_of_an_answer_is_signed() {
    let zone = signed_zone();
    let table: &[(&str, RecordType, &[RecordType])] = &[
        ("blue.vm.test.", A, &[CNAME, A]),
        ("BLUE.vm.test.", AAAA, &[CNAME, AAAA]),
        ("blue.vm.test.", SSHFP, &[CNAME, SSHFP]),
        ("s001.vm.test.", A, &[A]),
        ("vm.test.", SOA, &[SOA]),
        ("vm.test.", NS, &[NS]),
        ("vm.test.", DNSKEY_TYPE, &[DNSKEY_TYPE]),
        ("a.deep.vm.test.", A, &[A]),
        ("blue.vm.test.", NSEC_TYPE, &[NSEC_TYPE]),
        ("blue.vm.test.", RecordType::ANY, &[CNAME]),
    ];
    for (asked, wanted, types) in table {
        let (said, answer) = ask(&zone, asked, *wanted);
        assert_eq!(said, ResponseKind::Found, "{asked} {wanted}");
        assert_eq!(checked(&answer.answers), *types, "{asked} {wanted}");
        assert!(answer.edns.unwrap().flags().dnssec_ok);
    }
}

#[test]
fn several_host_keys_are_signed_in_canonical_order() {
    let mut settings = settings();
    settings.dnssec_key = Some(key());
    let keys = [host_keys(), vec![key().public().clone()]].concat();
    let [one, other] = [&keys, &keys.iter().rev().cloned().collect()].map(|keys: &Vec<_>| {
        let zone = Arc::new(Zone::new(&settings, keys, listing()).unwrap());
        let (_, answer) = ask(&zone, "s001.vm.test.", SSHFP);
        assert_eq!(checked(&answer.answers), [SSHFP]);
        answer.answers.len()
    });
    assert_eq!((one, other), (3, 3));
}

#[test]
fn what_is_not_there_is_denied_by_a_proof_of_its_own() {
    let zone = signed_zone();
    // A 1, NS 2, CNAME 5, SOA 6, AAAA 28, SSHFP 44, RRSIG 46, NSEC 47, DNSKEY 48, NXNAME 128.
    let table: &[(&str, RecordType, ResponseKind, &str, &[u16])] = &[
        ("red.vm.test.", A, ResponseKind::NxDomain, "red.vm.test.", &[46, 47, 128]),
        ("*.vm.test.", A, ResponseKind::NxDomain, "*.vm.test.", &[46, 47, 128]),
        ("a.blue.vm.test.", A, ResponseKind::NxDomain, "a.blue.vm.test.", &[46, 47, 128]),
        ("s002.vm.test.", AAAA, ResponseKind::NoData, "s002.vm.test.", &[1, 44, 46, 47]),
        ("green.vm.test.", AAAA, ResponseKind::NoData, "s002.vm.test.", &[1, 44, 46, 47]),
        ("deep.vm.test.", A, ResponseKind::NoData, "deep.vm.test.", &[46, 47]),
        ("vm.test.", A, ResponseKind::NoData, "vm.test.", &[2, 6, 46, 47, 48]),
    ];
    for (asked, wanted, expected, owner, types) in table {
        let (said, answer) = ask(&zone, asked, *wanted);
        assert_eq!(said, *expected, "{asked}");
        // RFC 9824 §3.2: the code agrees with the proof.
        assert_eq!(answer.response_code, ResponseCode::NoError, "{asked}");
        assert_eq!(checked(&answer.authorities), [SOA, NSEC_TYPE], "{asked}");
        assert_eq!(bitmap(&answer.authorities), ((*owner).to_owned(), types.to_vec()), "{asked}");
    }
}

#[test]
fn who_takes_it_gets_nxdomain_beside_the_proof() {
    let (_, answer) = ask_with(&signed_zone(), "red.vm.test.", A, 0xc000);
    assert_eq!(answer.response_code, ResponseCode::NXDomain);
    assert_eq!(checked(&answer.authorities), [SOA, NSEC_TYPE]);
}

#[test]
fn who_does_not_ask_for_signatures_gets_none() {
    let zone = signed_zone();
    let (_, answer) = ask_with(&zone, "blue.vm.test.", A, 0);
    assert_eq!(answer.answers.len(), 2);
    let (_, answer) = ask_with(&zone, "red.vm.test.", A, 0);
    assert_eq!(answer.response_code, ResponseCode::NXDomain);
    assert_eq!(answer.authorities.len(), 1);
}

#[test]
fn a_zone_without_a_key_signs_nothing() {
    let (said, answer) = ask(&super::super::testing::zone(), "red.vm.test.", A);
    assert_eq!((said, answer.response_code), (ResponseKind::NxDomain, ResponseCode::NXDomain));
    assert_eq!(answer.authorities.len(), 1);
    let (said, _) = ask(&super::super::testing::zone(), "vm.test.", DNSKEY_TYPE);
    assert_eq!(said, ResponseKind::NoData);
}

#[test]
fn types_of_proofs_are_not_asked_for() {
    let zone = signed_zone();
    assert_eq!(ask(&zone, "blue.vm.test.", RecordType::RRSIG).0, ResponseKind::NotImplemented);
    assert_eq!(ask(&zone, "blue.vm.test.", nxname()).0, ResponseKind::Malformed);
}

fn addresses() -> Vec<Record> {
    let record = |last| {
        let data = RData::A(hickory_proto::rr::rdata::A::new(192, 0, 2, last));
        Record::from_rdata(name("s001.vm.test."), 30, data)
    };
    vec![record(9), record(1)]
}

#[test]
fn a_signature_is_kept_for_a_day_and_not_for_made_up_names() {
    let signer = Signer::new(key(), name("vm.test.")).unwrap();
    let sign = |keep, now| {
        let mut section = addresses();
        signer.section(&mut section, keep, now).unwrap();
        assert_eq!(checked(&section), [A]);
        signature(&section[2]).unwrap().clone()
    };
    let first = sign(Keep::Yes, NOW);
    assert_eq!(first.input().sig_inception, serial(NOW - 3600));
    assert_eq!(first.input().sig_expiration, serial(NOW + 3 * 86_400));
    assert!(sign(Keep::Yes, NOW + 86_399) == first);
    assert!(sign(Keep::Yes, NOW + 86_400) != first);
    assert!(sign(Keep::Yes, NOW - 1) != first, "a clock that was set back");
    let before = signer.kept().len();
    assert!(sign(Keep::No, NOW) != sign(Keep::No, NOW));
    assert_eq!((before, signer.kept().len()), (1, 1));
}

#[test]
fn kept_signatures_have_a_limit() {
    let signer = Signer::new(key(), name("vm.test.")).unwrap();
    let kept = || Kept {
        signature: RRSIG::from_sig(
            SigInput {
                type_covered: A,
                algorithm: Algorithm::ECDSAP256SHA256,
                num_labels: 3,
                original_ttl: 30,
                sig_expiration: serial(NOW),
                sig_inception: serial(NOW),
                key_tag: 1,
                signer_name: name("vm.test."),
            },
            vec![0; 64],
        ),
        made_unix_s: NOW,
    };
    for n in 0..KEPT_MAX {
        signer.kept().insert(n.to_be_bytes().to_vec(), kept());
    }
    signer.section(&mut addresses(), Keep::Yes, NOW).unwrap();
    assert_eq!(signer.kept().len(), 1);
}

#[test]
fn seconds_wrap_around_and_halves_are_filled_up() {
    assert_eq!(serial((1 << 32) + 5).get(), 5);
    let mut blob = Vec::new();
    for part in [&b"x"[..], &[0, 0, 0, 1, 7, 0, 0, 0, 2, 1, 2]] {
        blob.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        blob.extend(part);
    }
    let fixed = fixed(&blob).unwrap();
    assert_eq!((fixed.len(), fixed[31], fixed[62], fixed[63]), (64, 7, 1, 2));
}

#[test]
fn what_is_denied_may_be_as_long_as_a_name_can_be() {
    let zone = signed_zone();
    let m = "m".repeat(63);
    // 255 bytes on the wire, then one and two fewer: there is room for a byte of the
    // label, or for a label.
    let zone_bytes = ".vm.test.".len();
    let rest = 254 - zone_bytes - 3 * 64;
    for (less, next) in [(0, "b"), (1, "a\\000"), (2, "\\000.")] {
        let first = "a".repeat(rest - less);
        let asked = format!("{first}.{m}.{m}.{m}.vm.test.");
        let (said, answer) = ask(&zone, &asked, A);
        assert_eq!(said, ResponseKind::NxDomain, "{asked}");
        assert_eq!(checked(&answer.authorities), [SOA, NSEC_TYPE], "{asked}");
        let proof = answer.authorities.iter().find(|it| it.record_type() == NSEC_TYPE).unwrap();
        let RData::DNSSEC(DNSSECRData::NSEC(nsec)) = &proof.data else { panic!("{proof}") };
        let is = nsec.next_domain_name();
        assert!(*is > name(&asked), "{is}");
        let told = match less {
            2 => format!("{next}{asked}"),
            1 => format!("{}{next}.{m}.{m}.{m}.vm.test.", "a".repeat(rest - 2)),
            _ => format!("{}{next}.{m}.{m}.{m}.vm.test.", "a".repeat(rest - 1)),
        };
        assert_eq!(is.to_string(), told);
    }
}

#[test]
fn behind_the_last_of_the_longest_names_comes_the_next_label_above_or_the_apex() {
    let zone = ["b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    let apex = name(&format!("{zone}."));
    let of =
        |labels: &[&[u8]]| Name::from_labels(labels.iter().copied().chain(apex.iter())).unwrap();
    let last = [u8::MAX; 63];
    assert_eq!(successor(&of(&[&last]), &apex).unwrap(), apex);
    let mut at = [b'x'; 63];
    at[62] = b'@';
    let mut behind = at;
    behind[62] = b'[';
    assert_eq!(successor(&of(&[&at]), &apex).unwrap(), of(&[&behind]));
    let two = [&[u8::MAX; 30][..], &[b'X'; 32][..]];
    let next = [&[b'x'; 32][..], &[0][..]].concat();
    assert_eq!(successor(&of(&two), &apex).unwrap().to_lowercase(), of(&[&next]));
}
