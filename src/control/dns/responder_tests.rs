//! Tests of `responder`: what every kind of request gets, byte for byte where it matters.

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::DNSClass;
use hickory_proto::rr::RecordType::A;
use proptest::prelude::*;

use super::super::testing::{label, listing, query, settings, with_edns, zone, zone_of};
use super::*;
use crate::config::Secondary;
use crate::control::dns::Names as _;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

struct Asked {
    reply: Reply,
    bytes: Vec<u8>,
}

impl Asked {
    fn said(&self) -> ResponseKind {
        match &self.reply {
            Reply::Message(said) => *said,
            other @ (Reply::Nothing | Reply::Transfer(_)) => panic!("{other:?}"),
        }
    }

    fn message(&self) -> Message {
        Message::from_vec(&self.bytes).unwrap()
    }
}

fn ask_at(zone: &Arc<Zone>, request: &[u8], transport: Transport) -> Asked {
    let mut bytes = vec![1, 2, 3];
    let reply = Responder::new(Arc::clone(zone)).respond(request, PEER, transport, &mut bytes);
    Asked { reply, bytes }
}

fn ask(request: &Message) -> Asked {
    ask_at(&zone(), &request.to_vec().unwrap(), Transport::Udp)
}

/// A zone whose peer may copy it.
fn copied() -> Arc<Zone> {
    let mut settings = settings();
    settings.secondaries = vec![Secondary { network: PEER.into(), notify: None }];
    zone_of(&settings, listing())
}

#[test]
fn an_answer_repeats_the_question_and_its_case() {
    let asked = ask(&query("BLUE.vm.TEST.", A));
    let answer = asked.message();
    assert_eq!(asked.said(), ResponseKind::Found);
    assert_eq!(answer.id, 4711);
    let flags = answer.metadata;
    assert!(flags.authoritative && flags.recursion_desired);
    assert!(!flags.recursion_available && !flags.truncation && !flags.authentic_data);
    assert_eq!(answer.queries[0].name().to_string(), "BLUE.vm.TEST.");
    assert_eq!(answer.answers[0].name.to_string(), "BLUE.vm.TEST.");
    assert!(answer.edns.is_none());
}

#[test]
fn names_are_compressed() {
    let asked = ask(&query("blue.vm.test.", A));
    // Header, question, CNAME (pointer, 10, label and pointer), A (pointer, 10, 4).
    assert_eq!(asked.bytes.len(), 12 + (14 + 4) + (2 + 10 + 7) + (2 + 10 + 4));
}

#[test]
fn codes_of_requests_that_are_no_questions() {
    let mut notify = query("vm.test.", RecordType::SOA);
    notify.metadata.op_code = OpCode::Notify;
    let mut update = notify.clone();
    update.metadata.op_code = OpCode::Update;
    let mut status = notify.clone();
    status.metadata.op_code = OpCode::Status;
    let mut unknown = notify.clone();
    unknown.metadata.op_code = OpCode::Unknown(6);
    let mut two = query("blue.vm.test.", A);
    two.add_query(two.queries[0].clone());
    let none = Message::new(4711, MessageType::Query, OpCode::Query);
    let table = [
        (notify, ResponseKind::Refused, ResponseCode::Refused),
        (update, ResponseKind::Refused, ResponseCode::Refused),
        (status, ResponseKind::NotImplemented, ResponseCode::NotImp),
        (unknown, ResponseKind::NotImplemented, ResponseCode::NotImp),
        (two, ResponseKind::Malformed, ResponseCode::FormErr),
        (none, ResponseKind::Malformed, ResponseCode::FormErr),
    ];
    for (request, said, code) in table {
        let asked = ask(&request);
        assert_eq!(asked.said(), said);
        let answer = asked.message();
        assert_eq!((answer.id, answer.response_code), (4711, code));
        assert_eq!(answer.op_code, request.op_code);
        assert!(!answer.metadata.authoritative);
    }
}

#[test]
fn a_class_other_than_in_is_refused() {
    let mut request = query("version.bind.", RecordType::TXT);
    request.queries[0].set_query_class(DNSClass::CH);
    let asked = ask(&request);
    assert_eq!(
        (asked.said(), asked.message().response_code),
        (ResponseKind::Refused, ResponseCode::Refused)
    );
}

#[test]
fn answers_and_scraps_are_met_with_silence() {
    let mut answer = query("blue.vm.test.", A);
    answer.metadata.message_type = MessageType::Response;
    let answer = answer.to_vec().unwrap();
    for bytes in [&answer[..], &[], &[0; 11], &answer[..12]] {
        let asked = ask_at(&zone(), bytes, Transport::Udp);
        assert!(matches!(asked.reply, Reply::Nothing), "{bytes:?}");
        assert!(asked.bytes.is_empty());
    }
}

#[test]
fn a_header_that_claims_many_questions_costs_nothing() {
    let mut bytes = vec![0x12, 0x34, 1, 0];
    bytes.extend([0xff; 8]);
    let asked = ask_at(&zone(), &bytes, Transport::Udp);
    assert_eq!(asked.said(), ResponseKind::Malformed);
    assert_eq!(asked.bytes.len(), 12);
}

#[test]
fn edns_is_answered_with_edns() {
    let mut request = with_edns(query("blue.vm.test.", A), 4096);
    request.edns.as_mut().unwrap().set_dnssec_ok(true);
    let answer = ask(&request).message();
    let edns = answer.edns.unwrap();
    assert_eq!((edns.version(), edns.max_payload()), (0, 1232));
    assert!(edns.flags().dnssec_ok);
}

#[test]
fn an_edns_version_of_the_future_is_named_bad() {
    let mut request = with_edns(query("blue.vm.test.", A), 4096);
    request.edns.as_mut().unwrap().set_version(1);
    let asked = ask(&request);
    assert_eq!(asked.said(), ResponseKind::BadVersion);
    let answer = asked.message();
    // BADSIG has the same number.
    assert_eq!(u16::from(answer.response_code), u16::from(ResponseCode::BADVERS));
    assert_eq!(answer.edns.unwrap().version(), 0);
    assert!(answer.answers.is_empty());
}

#[test]
fn two_opt_records_are_malformed() {
    let mut bytes = with_edns(query("blue.vm.test.", A), 4096).to_vec().unwrap();
    let opt = bytes[bytes.len() - 11..].to_vec();
    bytes.extend(opt);
    bytes[11] = 2;
    assert_eq!(ask_at(&zone(), &bytes, Transport::Udp).said(), ResponseKind::Malformed);
}

/// A zone whose NS answer has `count` name servers, each with two addresses.
fn many_name_servers(count: usize) -> Arc<Zone> {
    let mut settings = settings();
    settings.ns = (0..count)
        .map(|n| crate::config::NameServer {
            name: super::super::testing::domain(&format!(
                "a-name-server-{n:02}.elsewhere-{n:02}.vm.test"
            )),
            addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        })
        .collect();
    zone_of(&settings, listing())
}

#[test]
fn what_does_not_fit_a_datagram_is_truncated_and_whole_over_tcp() {
    let zone = many_name_servers(40);
    let plain = query("vm.test.", RecordType::NS);
    for (request, max) in [
        (plain.clone(), 512),
        (with_edns(plain.clone(), 512), 512),
        (with_edns(plain.clone(), 100), 512),
        (with_edns(plain.clone(), 1232), 1232),
        (with_edns(plain.clone(), 65_000), 1232),
    ] {
        let request = request.to_vec().unwrap();
        let asked = ask_at(&zone, &request, Transport::Udp);
        assert_eq!(asked.said(), ResponseKind::Truncated);
        assert!(asked.bytes.len() <= max, "{} > {max}", asked.bytes.len());
        let answer = asked.message();
        assert!(answer.metadata.truncation && answer.answers.is_empty());
        assert_eq!(answer.queries.len(), 1);
        let whole = ask_at(&zone, &request, Transport::Tcp).message();
        assert!(!whole.metadata.truncation);
        assert_eq!((whole.answers.len(), whole.additionals.len()), (40, 80));
    }
}

#[test]
fn addresses_of_name_servers_are_left_out_before_an_answer_is_truncated() {
    let zone = many_name_servers(8);
    let request = query("vm.test.", RecordType::NS).to_vec().unwrap();
    let asked = ask_at(&zone, &request, Transport::Udp);
    assert_eq!(asked.said(), ResponseKind::Found);
    let answer = asked.message();
    assert!(!answer.metadata.truncation);
    assert_eq!((answer.answers.len(), answer.additionals.len()), (8, 0));
}

#[test]
fn the_longest_names_are_answered() {
    let mut settings = settings();
    let zone_name = ["a".repeat(63), "b".repeat(63), "c".repeat(61)].join(".");
    settings.zone = super::super::testing::domain(&zone_name);
    let (vm, at) = ("v".repeat(63), "s".repeat(63));
    let names = listing();
    let addresses = names.address(&label("s001")).unwrap();
    names.addresses.lock().unwrap().insert(label(&at), addresses);
    names.vms.lock().unwrap().insert(label(&vm), label(&at));
    let zone = zone_of(&settings, names);
    let request = with_edns(query(&format!("{vm}.{zone_name}."), A), 1232).to_vec().unwrap();
    let asked = ask_at(&zone, &request, Transport::Udp);
    assert_eq!(asked.said(), ResponseKind::Found);
    assert_eq!(asked.message().answers.len(), 2);
}

fn ixfr(serial: u32) -> Vec<u8> {
    let mut request = query("vm.test.", RecordType::IXFR);
    request.authorities.push(zone().soa_of(serial));
    request.to_vec().unwrap()
}

#[test]
fn the_zone_is_copied_by_those_listed_and_over_tcp() {
    let axfr = query("vm.test.", RecordType::AXFR).to_vec().unwrap();
    let refused = |zone: &Arc<Zone>, transport| ask_at(zone, &axfr, transport).said();
    assert_eq!(refused(&zone(), Transport::Tcp), ResponseKind::Refused);
    assert_eq!(refused(&zone(), Transport::Udp), ResponseKind::Refused);
    assert_eq!(refused(&copied(), Transport::Udp), ResponseKind::Refused);
    assert!(matches!(ask_at(&copied(), &axfr, Transport::Tcp).reply, Reply::Transfer(_)));
    let other = query("blue.vm.test.", RecordType::AXFR).to_vec().unwrap();
    let asked = ask_at(&copied(), &other, Transport::Tcp);
    assert_eq!(asked.message().response_code, ResponseCode::NotAuth);
}

#[test]
fn an_incremental_transfer_is_a_whole_one_or_says_that_nothing_changed() {
    let zone = copied();
    let soa = zone.soa().to_string();
    for serial in [7, 8, 7 + (1 << 30)] {
        for transport in Transport::ALL {
            let answers = ask_at(&zone, &ixfr(serial), transport).message().answers;
            assert!(answers.len() == 1 && answers[0].to_string() == soa, "{serial}");
        }
    }
    for serial in [6, 0, u32::MAX] {
        let asked = ask_at(&zone, &ixfr(serial), Transport::Tcp);
        assert!(matches!(asked.reply, Reply::Transfer(_)), "{serial}");
        // Over UDP: the newer SOA alone, and the secondary comes back over TCP (RFC 1995 §4).
        assert_eq!(ask_at(&zone, &ixfr(serial), Transport::Udp).message().answers.len(), 1);
    }
    assert_eq!(
        ask_at(&super::super::testing::zone(), &ixfr(6), Transport::Tcp).said(),
        ResponseKind::Refused
    );
}

#[test]
fn serials_compare_around_the_corner() {
    assert!(newer(1, 0) && newer(0, u32::MAX) && newer(5, u32::MAX - 5));
    assert!(!newer(0, 0) && !newer(0, 1) && !newer(u32::MAX, 0));
}

proptest! {
    #[test]
    fn no_request_is_fatal_and_every_answer_can_be_read(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        tcp in any::<bool>(),
    ) {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let asked = ask_at(&copied(), &bytes, transport);
        if let Reply::Message(_) = asked.reply {
            let answer = Message::from_vec(&asked.bytes).unwrap();
            prop_assert_eq!(answer.metadata.message_type, MessageType::Response);
        }
    }

    #[test]
    fn any_name_in_any_case_gets_an_answer(
        labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..5),
        wanted in any::<u16>(),
        inside in any::<bool>(),
    ) {
        let mut name = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
        if inside {
            name = name.append_domain(&Name::from_ascii("vm.test.").unwrap()).unwrap();
        }
        let mut request = Message::new(1, MessageType::Query, OpCode::Query);
        request.add_query(Query::query(name.clone(), RecordType::from(wanted)));
        let asked = ask(&request);
        let answer = asked.message();
        prop_assert!(answer.queries[0].name().eq_case(&name));
        if !inside {
            prop_assert!(matches!(
                asked.said(),
                ResponseKind::Refused | ResponseKind::NotImplemented | ResponseKind::Malformed
            ));
        }
    }
}
