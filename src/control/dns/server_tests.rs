//! Tests of the running server, over real sockets on loopback.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::Ordering;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::RecordType::{self, A};

use super::testing::{
    ask_udp, connect, label, listing, query, receive, send, settings, with_edns, zone, zone_of,
};
use super::*;
use crate::config::Secondary;

fn started(settings: &Dns) -> Handle {
    start(settings, zone_of(settings, listing())).unwrap()
}

fn request(name: &str, wanted: RecordType) -> Vec<u8> {
    query(name, wanted).to_vec().unwrap()
}

fn secondary(notify: Option<SocketAddr>) -> Secondary {
    Secondary { network: "127.0.0.0/8".parse().unwrap(), notify }
}

#[test]
fn questions_are_answered_over_udp_and_tcp() {
    let handle = started(&settings());
    let server = handle.addresses()[0];
    let over_udp = ask_udp(server, &request("blue.vm.test.", A));
    assert_eq!(over_udp.answers.len(), 2);
    let mut stream = connect(server);
    // Two on one connection, the second before the first is read.
    send(&mut stream, &request("blue.vm.test.", A));
    send(&mut stream, &request("red.vm.test.", A));
    assert_eq!(receive(&mut stream).answers, over_udp.answers);
    assert_eq!(receive(&mut stream).response_code, ResponseCode::NXDomain);
    assert_eq!(handle.counters().answers(Transport::Udp, ResponseKind::Found), 1);
    assert_eq!(handle.counters().answers(Transport::Tcp, ResponseKind::Found), 1);
    assert_eq!(handle.counters().answers(Transport::Tcp, ResponseKind::NxDomain), 1);
    let kinds = Transport::ALL
        .into_iter()
        .flat_map(|transport| ResponseKind::ALL.into_iter().map(move |said| (transport, said)));
    let counts = kinds.map(|(transport, said)| handle.counters().answers(transport, said));
    assert_eq!(counts.sum::<u64>(), 3);
}

#[test]
fn a_network_that_asks_too_much_is_sent_to_tcp_and_others_are_not() {
    let mut settings = settings();
    settings.listen = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    settings.responses_per_second = std::num::NonZeroU32::new(1);
    let handle = started(&settings);
    let server = handle.addresses()[0];
    let asked = request("blue.vm.test.", A);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    // One answer, then every second question: the third is told to come by TCP, unless a second
    // is over by then.
    assert_eq!(ask_udp(server, &asked).answers.len(), 2);
    let told = (0..1000).find_map(|_| {
        socket.send(&asked).unwrap();
        socket.send(&asked).unwrap();
        let mut buffer = [0; 512];
        let len = socket.recv(&mut buffer).unwrap();
        assert!(len <= asked.len() || buffer[2] & 2 == 0, "a truncated answer is no larger");
        let told = Message::from_vec(&buffer[..len]).unwrap();
        told.truncation.then_some(told)
    });
    let told = told.unwrap();
    assert!(told.answers.is_empty() && told.response_code == ResponseCode::NoError);
    assert!(handle.counters().events(Event::Limited) > 0);
    assert!(handle.counters().events(Event::Slipped) > 0);
    assert!(handle.counters().answers(Transport::Udp, ResponseKind::Truncated) > 0);
    let mut stream = connect(server);
    for _ in 0..5 {
        send(&mut stream, &asked);
        assert_eq!(receive(&mut stream).answers.len(), 2);
    }
    assert_eq!(ask_udp(handle.addresses()[1], &asked).answers.len(), 2);
}

#[test]
fn a_wildcard_socket_answers_from_the_address_it_was_asked_at() {
    let mut settings = settings();
    settings.listen = vec!["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()];
    let handle = started(&settings);
    let port = handle.addresses()[0].port();
    for last in [1, 2, 77, 254] {
        let server = SocketAddr::new(IpAddr::from([127, 0, 53, last]), port);
        // The client's socket is connected: an answer from elsewhere would never arrive.
        assert_eq!(ask_udp(server, &request("blue.vm.test.", A)).answers.len(), 2, "{server}");
        let mut stream = connect(server);
        send(&mut stream, &request("blue.vm.test.", A));
        assert_eq!(receive(&mut stream).answers.len(), 2);
    }
    let six = SocketAddr::new("::1".parse().unwrap(), handle.addresses()[1].port());
    assert_eq!(ask_udp(six, &request("blue.vm.test.", A)).answers.len(), 2);
}

#[test]
fn garbage_stops_nothing() {
    let handle = started(&settings());
    let server = handle.addresses()[0];
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in [0_usize, 1, 11, 12, 13, 100, 5000] {
        for fill in [0_u8, 0xff, 0xc0, 0x3f] {
            socket.send_to(&vec![fill; len], server).unwrap();
        }
    }
    let mut stream = connect(server);
    stream.write_all(&[0, 3, 1, 2, 3]).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "no header, no conversation");
    assert_eq!(ask_udp(server, &request("blue.vm.test.", A)).answers.len(), 2);
    assert_eq!(handle.counters().events(Event::Panicked), 0);
}

#[test]
fn a_peer_has_few_connections_and_others_still_get_in() {
    let mut settings = settings();
    settings.listen = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let handle = started(&settings);
    let server = handle.addresses()[0];
    let mut held: Vec<_> = (0..16).map(|_| connect(server)).collect();
    for stream in &mut held {
        send(stream, &request("blue.vm.test.", A));
        receive(stream);
    }
    let mut one_more = connect(server);
    // Closed at once, or reset: in no case served.
    assert!(!matches!(one_more.read(&mut [0]), Ok(1..)));
    assert_eq!(handle.counters().events(Event::Crowded), 1);
    let mut other = connect(handle.addresses()[1]);
    send(&mut other, &request("blue.vm.test.", A));
    assert_eq!(receive(&mut other).answers.len(), 2);
}

/// All records of a transfer, with the number of messages it took.
fn transfer(server: SocketAddr, wanted: RecordType) -> (Vec<hickory_proto::rr::Record>, usize) {
    let mut stream = connect(server);
    send(&mut stream, &request("vm.test.", wanted));
    let (mut records, mut messages) = (Vec::new(), 0);
    loop {
        let message = receive(&mut stream);
        assert_eq!(message.response_code, ResponseCode::NoError);
        assert_eq!(message.queries.len(), usize::from(messages == 0));
        messages += 1;
        records.extend(message.answers);
        let soas = records.iter().filter(|it| it.record_type() == RecordType::SOA).count();
        if soas == 2 {
            return (records, messages);
        }
    }
}

#[test]
fn a_transfer_is_the_whole_zone_between_two_soas() {
    let mut settings = settings();
    settings.secondaries = vec![secondary(None)];
    let names = listing();
    for n in 0..5000 {
        names.vms.lock().unwrap().insert(label(&format!("vm-{n}")), label("s002"));
    }
    let handle = start(&settings, zone_of(&settings, names)).unwrap();
    for wanted in [RecordType::AXFR, RecordType::IXFR] {
        let (records, messages) = transfer(handle.addresses()[0], wanted);
        assert!(messages > 10, "{messages}");
        assert_eq!(
            records.first().map(ToString::to_string),
            records.last().map(ToString::to_string)
        );
        let distinct: HashSet<_> = records.iter().map(ToString::to_string).collect();
        // NS 3, their addresses 3, A 2, AAAA 1, SSHFP 2, CNAME 5002, and the SOA.
        assert_eq!((records.len(), distinct.len()), (5015, 5014));
    }
    assert_eq!(handle.counters().events(Event::Transferred), 2);
}

#[test]
fn a_transfer_to_nobody_listed_is_refused() {
    let handle = started(&settings());
    let mut stream = connect(handle.addresses()[0]);
    send(&mut stream, &request("vm.test.", RecordType::AXFR));
    assert_eq!(receive(&mut stream).response_code, ResponseCode::Refused);
}

#[test]
fn secondaries_are_told_of_a_start_and_of_changes() {
    let secondary_socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    secondary_socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut settings = settings();
    settings.secondaries = vec![secondary(Some(secondary_socket.local_addr().unwrap()))];
    let names = listing();
    let handle = start(&settings, zone_of(&settings, Arc::clone(&names))).unwrap();
    let mut ids = HashSet::new();
    for round in 0..2 {
        let mut buffer = [0; 512];
        let (message, from) = loop {
            let (len, from) = secondary_socket.recv_from(&mut buffer).unwrap();
            let message = Message::from_vec(&buffer[..len]).unwrap();
            // A repetition that crossed our answer to the first round.
            if ids.insert(message.id) {
                break (message, from);
            }
        };
        assert_eq!(message.op_code, OpCode::Notify);
        assert_eq!(message.queries[0].query_type(), RecordType::SOA);
        assert_eq!(message.queries[0].name().to_string(), "vm.test.");
        assert_eq!(from.ip(), handle.addresses()[0].ip());
        let mut answer = message.clone();
        answer.metadata.message_type = hickory_proto::op::MessageType::Response;
        secondary_socket.send_to(&answer.to_vec().unwrap(), from).unwrap();
        names.serial.store(8 + round, Ordering::Relaxed);
    }
}

#[test]
fn large_answers_come_whole_over_tcp() {
    let handle = started(&settings());
    let asked = with_edns(query("vm.test.", RecordType::NS), 512).to_vec().unwrap();
    let mut stream = connect(handle.addresses()[0]);
    send(&mut stream, &asked);
    let answer = receive(&mut stream);
    assert_eq!((answer.answers.len(), answer.additionals.len()), (3, 3));
}

#[test]
fn dropping_the_handle_frees_the_addresses_even_with_a_silent_client() {
    let mut settings = settings();
    // An address of its own, or another test's socket may get the port as soon as it is free.
    settings.listen = vec!["127.0.53.200:0".parse().unwrap()];
    let handle = started(&settings);
    let server = handle.addresses()[0];
    let mut silent = connect(server);
    send(&mut silent, &request("blue.vm.test.", A));
    receive(&mut silent);
    drop(handle);
    assert!(!matches!(silent.read(&mut [0]), Ok(1..)));
    settings.listen = vec![server];
    assert_eq!(started(&settings).addresses(), [server]);
}

#[test]
fn an_address_that_cannot_be_had_is_named_with_what_to_do() {
    let handle = started(&settings());
    let told = |address: &str| {
        let mut settings = settings();
        settings.listen = vec![address.parse().unwrap()];
        start(&settings, zone()).unwrap_err().to_string()
    };
    let taken = handle.addresses()[0].to_string();
    let fault = told(&taken);
    assert!(fault.contains(&taken) && fault.contains("udp"), "{fault}");
    assert!(fault.contains("fix: another server has it"), "{fault}");
    let fault = told("192.0.2.53:5353");
    assert!(fault.contains("fix: this host does not have the address"), "{fault}");
    let denied = fix(&io::ErrorKind::PermissionDenied.into(), "127.0.0.1:53".parse().unwrap());
    assert!(denied.contains("CAP_NET_BIND_SERVICE"), "{denied}");
}
