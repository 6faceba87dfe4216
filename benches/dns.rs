//! Answers a second over UDP on loopback, beside a bare hickory server, with dnsperf as the asker.
//! Prints answers a second, what each cost the server in CPU time, and what was lost; medians of
//! rounds that take turns.
//!
//! `cargo bench --bench dns [SECONDS]`. Ours serves a million VMs at a thousand pool addresses; the
//! questions are random VM names (answer: CNAME and A) or random pool addresses (answer: A). The
//! bare servers are `hickory-server` with a handler that answers every question with one fixed A
//! record, on one thread, as ours, and on two; then our zone behind it.

#![expect(clippy::disallowed_methods, reason = "it measures, by threads and clocks")]
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "a program of its own"
)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Metadata, Query};
use hickory_server::proto::rr::rdata::A;
use hickory_server::proto::rr::{RData, Record};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use keyway::config::{Dns, DomainName, NameServer, Secondary};
use keyway::control::dns::responder::{Reply, Responder};
use keyway::control::dns::zone::Answer;
use keyway::control::dns::{
    self, Addresses, Entry, Label, Names, PointsAt, Transport, Zone, transfer,
};
use keyway::ssh::private_key::PrivateKey;
use tokio::net::UdpSocket;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VMS: u32 = 1_000_000;
const ADDRESSES: u32 = 1000;
const QUESTIONS: u32 = 200_000;
/// For the tests; nothing else is signed with it.
const KEY: &str = include_str!("../src/control/dns/testdata/ecdsa_p256");
/// Short and many, because others may use the machine meanwhile.
const ROUNDS: usize = 15;
const ANSWERS: u32 = 500_000;

/// A million names in maps.
struct Fleet {
    vms: HashMap<Label, u32>,
    addresses: HashMap<Label, Addresses>,
    points: Vec<PointsAt>,
}

impl Fleet {
    fn new() -> Self {
        let label = |text: String| Label::new(text.as_bytes()).expect("a label");
        let point = |n: u32| {
            let v4 = Some(Ipv4Addr::from_bits(n + (198 << 24)));
            let addresses = Addresses { v4, v6: None };
            PointsAt { name: label(format!("s{n:03}")), addresses }
        };
        let points: Vec<_> = (0..ADDRESSES).map(point).collect();
        let addresses = points.iter().map(|it| (it.name, it.addresses)).collect();
        let vms = (0..VMS).map(|n| (label(format!("vm-{n}")), n % ADDRESSES)).collect();
        Self { vms, addresses, points }
    }
}

impl Names for Fleet {
    fn vm(&self, name: &Label) -> Option<PointsAt> {
        self.points.get(*self.vms.get(name)? as usize).copied()
    }

    fn address(&self, name: &Label) -> Option<Addresses> {
        self.addresses.get(name).copied()
    }

    fn serial(&self) -> u32 {
        1
    }

    fn walk(&self, visit: &mut dyn FnMut(Entry) -> ControlFlow<()>) {
        let vms = self
            .vms
            .iter()
            .filter_map(|(vm, at)| Some(Entry::Vm(*vm, self.points.get(*at as usize)?.name)));
        let _stopped = vms.into_iter().try_for_each(visit);
    }
}

/// Answers everything with one address.
struct Bare;

#[async_trait::async_trait]
impl RequestHandler for Bare {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let question = request.request_info().expect("one question").query;
        let name = question.name().into();
        let answer = [Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(192, 0, 2, 1))))];
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        let message = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            &answer,
            [],
            [],
            [],
        );
        response.send_response(message).await.expect("sends")
    }
}

/// Our zone behind hickory's server: the same answers, another way to the wire.
struct Same(Arc<Zone>);

#[async_trait::async_trait]
impl RequestHandler for Same {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let asked = request.request_info().expect("one question").query;
        let question = Query::query(asked.original().name().clone(), asked.query_type());
        let mut answer = Answer::default();
        self.0.answer(&question, &mut answer);
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        let message = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            &answer.answers,
            &answer.authority,
            [],
            [],
        );
        response.send_response(message).await.expect("sends")
    }
}

fn hickory(handler: impl RequestHandler, threads: usize) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut builder = match threads {
            1 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.worker_threads(threads).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
            tell.send(socket.local_addr().expect("bound")).expect("somebody waits");
            let mut server = Server::new(handler);
            server.register_socket(socket);
            server.block_until_done().await.expect("runs");
        });
    });
    told.recv().expect("it starts")
}

struct Figures {
    per_second: f64,
    /// Of this process, which only answers meanwhile.
    cpu_us: f64,
    lost: u64,
}

/// CPU time of every thread so far, in nanoseconds.
fn cpu_ns() -> u64 {
    let threads = fs::read_dir("/proc/self/task").expect("proc");
    let each = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    each.sum()
}

fn ask(server: SocketAddr, questions: &str, seconds: &str) -> Figures {
    let (ip, port) = (server.ip().to_string(), server.port().to_string());
    let before = cpu_ns();
    let output = Command::new("dnsperf")
        .args(["-s", &ip, "-p", &port, "-d", questions, "-l", seconds, "-q", "100", "-c", "4"])
        .output()
        .unwrap_or_else(|error| panic!("dnsperf: {error} (Debian package dnsperf)"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = |key: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(key));
        let line = line.unwrap_or_else(|| panic!("no {key} in {text}"));
        line.split_once(':').expect("a value").1.trim().to_owned()
    };
    let codes = value("Response codes");
    assert!(codes.contains("NOERROR") && !codes.contains("NXDOMAIN"), "{codes}");
    let answers: f64 = words_of(&value("Queries completed")).parse().expect("a number");
    let spent = u32::try_from((cpu_ns() - before) / 1000).expect("less than an hour");
    Figures {
        cpu_us: f64::from(spent) / answers,
        per_second: value("Queries per second").parse().expect("a number"),
        lost: words_of(&value("Queries lost")).parse().expect("a number"),
    }
}

/// A question as it stands in a packet; `dnssec` asks for signatures.
fn request(name: &str, wanted: u8, dnssec: bool) -> Vec<u8> {
    let mut request = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(dnssec)];
    for label in name.split('.').chain([""]) {
        request.push(u8::try_from(label.len()).expect("short"));
        request.extend(label.as_bytes());
    }
    request.extend([0, wanted, 0, 1]);
    if dnssec {
        request.extend([0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
    }
    request
}

/// One answer without any socket, and the whole zone as a secondary gets it.
fn in_memory(settings: &Dns, names: &Arc<Fleet>) {
    let zone = Zone::new(settings, &[], Arc::clone(names) as Arc<dyn Names>).expect("a zone");
    let zone = Arc::new(zone);
    let mut responder = Responder::new(Arc::clone(&zone));
    let (peer, mut out) = (Ipv4Addr::LOCALHOST.into(), Vec::new());
    let signed = settings.dnssec_key.is_some();
    for (what, name) in
        [("a pool address", "s001.vm.test"), ("a VM", "vm-77.vm.test"), ("no VM", "red.vm.test")]
    {
        let request = request(name, 1, signed);
        let answers = if signed { ANSWERS / 10 } else { ANSWERS };
        let began = Instant::now();
        for _ in 0..answers {
            black_box(responder.respond(black_box(&request), peer, Transport::Udp, &mut out));
        }
        let each = began.elapsed().as_nanos() / u128::from(answers);
        let how = if signed { "signed" } else { "plain" };
        println!("{what}, {how}: {each} ns from bytes to bytes, {} bytes", out.len());
    }
    let axfr = request("vm.test", 252, false);
    if let Reply::Transfer(request) = responder.respond(&axfr, peer, Transport::Tcp, &mut out) {
        let (began, mut messages, mut bytes) = (Instant::now(), 0, 0);
        let whole = transfer::stream(&zone, &request, &mut |message| {
            messages += 1;
            bytes += message.len();
            ControlFlow::Continue(())
        });
        assert!(whole);
        let took = began.elapsed().as_millis();
        println!("transfer of {VMS} VMs: {took} ms, {messages} messages, {} MB", bytes / 1_000_000);
    }
}

fn words_of(value: &str) -> String {
    value.split_whitespace().next().unwrap_or_default().to_owned()
}

fn questions(file: &str, name: impl Fn(u32) -> String) -> String {
    let path = std::env::temp_dir().join(format!("keyway-dns-{file}-{}", std::process::id()));
    let (mut text, mut random) = (String::new(), 1_u32);
    for _ in 0..QUESTIONS {
        // Numerical Recipes' generator; the low bits repeat soon, so they are left out.
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        writeln!(text, "{}.vm.test A", name(random >> 8)).expect("a string grows");
    }
    fs::write(&path, text).expect("writes");
    path.display().to_string()
}

fn main() {
    let seconds = std::env::args().nth(1).filter(|it| it.parse::<u32>().is_ok());
    let seconds = seconds.unwrap_or_else(|| "1".to_owned());
    let zone = DomainName::new("vm.test").expect("a name");
    let ns = DomainName::new("ns.vm.test").expect("a name");
    let address = |text: &str| text.parse().expect("an address");
    let key = PrivateKey::from_openssh(KEY).expect("a key").0;
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let settings = |listen: &str| Dns {
        zone: zone.clone(),
        listen: vec![listen.parse().expect("an address")],
        ns: vec![NameServer { name: ns.clone(), addresses: vec![address("192.0.2.53")] }],
        ttl_s: 60,
        expire_s: 604_800,
        secondaries: vec![Secondary { network: peer.into(), notify: None }],
        dnssec_key: None,
        responses_per_second: None,
    };
    let names = Arc::new(Fleet::new());
    let start = |listen, responses_per_second| {
        let settings = Dns { responses_per_second, ..settings(listen) };
        let zone = Zone::new(&settings, &[], Arc::clone(&names) as Arc<dyn Names>);
        dns::start(&settings, Arc::new(zone.expect("a zone"))).expect("starts")
    };
    in_memory(&settings("127.0.0.1:0"), &names);
    let mut signed = settings("127.0.0.1:0");
    (signed.dnssec_key, signed.secondaries) = (Some(Arc::new(key)), Vec::new());
    in_memory(&signed, &names);
    let (one, wildcard) = (start("127.0.0.1:0", None), start("0.0.0.0:0", None));
    // More than anybody asks: what the limit costs whoever stays below it.
    let limited = start("127.0.0.1:0", NonZeroU32::new(1_000_000));
    let wildcard_address = SocketAddr::from(([127, 0, 0, 1], wildcard.addresses()[0].port()));
    let vms = questions("vms", |n| format!("vm-{}", n % VMS));
    let addresses = questions("addresses", |n| format!("s{:03}", n % ADDRESSES));
    let same = Zone::new(&settings("127.0.0.1:0"), &[], Arc::clone(&names) as Arc<dyn Names>);
    let same = Same(Arc::new(same.expect("a zone")));
    let rows: [(&str, SocketAddr, &str); 7] = [
        ("hickory, bare, 1 thread", hickory(Bare, 1), &vms),
        ("hickory, bare, 2 threads", hickory(Bare, 2), &vms),
        ("hickory, our zone, VMs", hickory(same, 1), &vms),
        ("ours, pool addresses", one.addresses()[0], &addresses),
        ("ours, VMs", one.addresses()[0], &vms),
        ("ours, VMs, limited", limited.addresses()[0], &vms),
        ("ours, VMs, wildcard", wildcard_address, &vms),
    ];
    let mut figures: Vec<Vec<Figures>> = rows.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for ((_, server, questions), figures) in rows.iter().zip(&mut figures) {
            figures.push(ask(*server, questions, &seconds));
        }
    }
    for ((name, ..), mut figures) in rows.into_iter().zip(figures) {
        figures.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        let lost: u64 = figures.iter().map(|one| one.lost).sum();
        let (median, best) = (figures[ROUNDS / 2].per_second, figures[ROUNDS - 1].per_second);
        figures.sort_by(|a, b| a.cpu_us.total_cmp(&b.cpu_us));
        let cpu_us = figures[ROUNDS / 2].cpu_us;
        println!(
            "{name:<26} {median:>7.0} answers/s (best {best:>7.0}), {cpu_us:.2} us CPU each, {lost} lost"
        );
    }
    for file in [vms, addresses] {
        let _left = fs::remove_file(file);
    }
}
