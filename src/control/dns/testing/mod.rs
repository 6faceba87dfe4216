//! A small zone for the tests, and a client that speaks UDP and TCP.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};

use super::{Addresses, Entry, Label, Names, PointsAt, Zone};
use crate::config::{Dns, DomainName, NameServer};
use crate::ssh::publickey::PublicKey;

const HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINILzCr80scSuAcnYpxLu4nnirz6xztusEayvak/vj9f edge";

/// Names in two maps.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) addresses: Mutex<HashMap<Label, Addresses>>,
    pub(super) vms: Mutex<HashMap<Label, Label>>,
    pub(super) serial: AtomicU32,
}

impl Names for Listing {
    fn vm(&self, name: &Label) -> Option<PointsAt> {
        let name = *self.vms.lock().unwrap().get(name)?;
        Some(PointsAt { name, addresses: self.address(&name)? })
    }

    fn address(&self, name: &Label) -> Option<Addresses> {
        self.addresses.lock().unwrap().get(name).copied()
    }

    fn serial(&self) -> u32 {
        self.serial.load(Ordering::Relaxed)
    }

    fn walk(&self, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) {
        let addresses = self.addresses.lock().unwrap().clone();
        let vms = self.vms.lock().unwrap().clone();
        let addresses = addresses.into_iter().map(|(name, some)| Entry::Address(name, some));
        let vms = vms.into_iter().map(|(name, at)| Entry::Vm(name, at));
        let _stopped = addresses.chain(vms).try_for_each(visit);
    }
}

pub(super) fn label(text: &str) -> Label {
    Label::new(text.as_bytes()).unwrap()
}

/// s001 has both families, s002 has IPv4 only; `blue` is at s001, `green` at s002.
pub(super) fn listing() -> Arc<Listing> {
    let listing = Listing::default();
    listing.serial.store(7, Ordering::Relaxed);
    for (name, v4, v6) in [("s001", "192.0.2.1", Some("2001:db8::1")), ("s002", "192.0.2.2", None)]
    {
        let v6 = v6.map(|v6| v6.parse().unwrap());
        let addresses = Addresses { v4: Some(v4.parse().unwrap()), v6 };
        listing.addresses.lock().unwrap().insert(label(name), addresses);
    }
    for (vm, at) in [("blue", "s001"), ("green", "s002")] {
        listing.vms.lock().unwrap().insert(label(vm), label(at));
    }
    Arc::new(listing)
}

pub(super) fn domain(text: &str) -> DomainName {
    DomainName::new(text).unwrap()
}

/// `ns1` in the zone with both families, one deeper in it, and one elsewhere.
pub(super) fn settings() -> Dns {
    let server = |name, addresses: &[&str]| NameServer {
        name: domain(name),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
    };
    Dns {
        zone: domain("vm.test"),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        ns: vec![
            server("ns1.vm.test", &["192.0.2.53", "2001:db8::53"]),
            server("a.deep.vm.test", &["192.0.2.54"]),
            server("ns.example.net", &[]),
        ],
        ttl_s: 30,
        expire_s: 604_800,
        secondaries: Vec::new(),
        dnssec_key: None,
        responses_per_second: None,
    }
}

pub(super) fn host_keys() -> Vec<PublicKey> {
    vec![PublicKey::parse_line(HOST_KEY).unwrap().0]
}

pub(super) fn zone_of(settings: &Dns, names: Arc<Listing>) -> Arc<Zone> {
    Arc::new(Zone::new(settings, &host_keys(), names).unwrap())
}

pub(super) fn zone() -> Arc<Zone> {
    zone_of(&settings(), listing())
}

pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(super) fn query(text: &str, wanted: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), wanted));
    message
}

pub(super) fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.edns = Some(edns);
    message
}

/// Far beyond any answer of a server that is alive.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn ask_udp(server: SocketAddr, request: &[u8]) -> Message {
    let socket = UdpSocket::bind(if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
    // A connected socket takes answers from there and from nowhere else.
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(request).unwrap();
    let mut buffer = vec![0; 65_535];
    let len = socket.recv(&mut buffer).unwrap();
    Message::from_vec(&buffer[..len]).unwrap()
}

pub(super) fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(super) fn send(stream: &mut TcpStream, request: &[u8]) {
    let len = u16::try_from(request.len()).unwrap().to_be_bytes();
    stream.write_all(&[&len, request].concat()).unwrap();
}

pub(super) fn receive(stream: &mut TcpStream) -> Message {
    let mut len = [0; 2];
    stream.read_exact(&mut len).unwrap();
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut message).unwrap();
    Message::from_vec(&message).unwrap()
}
