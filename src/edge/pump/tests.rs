//! Tests of `pump`: its own thread and real TCP connections; the peers are threads of the
//! test that block.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{Receiver, channel};

use super::super::epoll::Readiness;
use super::super::relay::Relay;
use super::*;
use crate::ended::Ended;
use crate::ssh::cipher::{Cipher, Mac};
use crate::ssh::entropy::Entropy;
use crate::ssh::fault::Fault;
use crate::ssh::kex::Method;
use crate::ssh::message::{CHANNEL_DATA, GLOBAL_REQUEST};
use crate::ssh::testing::{End, Pair, Seeded, client_config, server_config};
use crate::ssh::transport::{Algorithms, Context, RekeyLimits};

/// One end outside the edge, with a blocking socket.
pub(in crate::edge) struct Peer {
    end: End,
    socket: TcpStream,
    random: Seeded,
}

impl Peer {
    pub(in crate::edge) fn send(&mut self, payload: &[u8]) {
        let mut cx = Context { now: Instant(monotonic_ms()), entropy: &mut self.random };
        self.end.transport.send(payload, &mut cx).unwrap();
        self.flush();
    }

    fn flush(&mut self) {
        let output = self.end.take_output();
        self.socket.write_all(&output).unwrap();
    }

    /// Waits for bytes and handles them; the fault if that ended the transport.
    fn receive(&mut self) -> Result<usize, Fault> {
        let mut bytes = vec![0; 64 << 10];
        let count = self.socket.read(&mut bytes).unwrap_or(0);
        self.end.inbox.extend_from_slice(&bytes[..count]);
        let mut cx = Context { now: Instant(monotonic_ms()), entropy: &mut self.random };
        self.end.receive(&mut cx)?;
        self.flush();
        Ok(count)
    }

    /// Waits until `count` messages of the connection protocol are here, host keys not counted.
    pub(in crate::edge) fn wait_for(&mut self, count: usize) -> Vec<Vec<u8>> {
        loop {
            let is_data = |payload: &&Vec<u8>| payload[0] != GLOBAL_REQUEST;
            let data: Vec<_> = self.end.payloads.iter().filter(is_data).cloned().collect();
            if data.len() >= count {
                return data;
            }
            assert_ne!(self.receive().expect("session alive"), 0, "session alive");
        }
    }

    fn wait_for_end(&mut self) {
        while self.receive().is_ok_and(|count| count > 0) {}
    }

    /// Waits for the DISCONNECT.
    pub(in crate::edge) fn wait_for_goodbye(&mut self) -> String {
        self.wait_for_end();
        let (_, text) = self.end.transport.farewell().expect("a goodbye");
        String::from_utf8(text.to_vec()).unwrap()
    }
}

pub(super) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    for socket in [&near, &far] {
        socket.set_nodelay(true).unwrap();
    }
    (near, far)
}

/// An established session called `info` and its two outer ends.
fn session(seed: u64, info: &'static str) -> (Peer, Peer, Session<&'static str>) {
    session_with(seed, info, Cipher::Aes128Gcm)
}

fn session_with(
    seed: u64,
    info: &'static str,
    client: Cipher,
) -> (Peer, Peer, Session<&'static str>) {
    let (client, vm, carriage) = carriage(seed, client);
    (client, vm, Session { carriage, info, started_ms: monotonic_ms() })
}

/// An established session's way through a pump, and its two outer ends.
pub(in crate::edge) fn carriage(seed: u64, client: Cipher) -> (Peer, Peer, Carriage) {
    let algorithms = |cipher| Algorithms {
        methods: vec![Method::Curve25519],
        ciphers: vec![cipher],
        macs: vec![Mac::Sha256Etm],
    };
    let limits = RekeyLimits::default();
    let server = server_config(seed, algorithms(client), limits);
    let mut front = Pair::new(seed, Arc::clone(&server), client_config(algorithms(client), limits));
    let vm = algorithms(Cipher::Aes128Gcm);
    let mut back =
        Pair::new(!seed, server_config(seed, vm.clone(), limits), client_config(vm, limits));
    for pair in [&mut front, &mut back] {
        pair.now = Instant(monotonic_ms());
        pair.settle().unwrap();
        pair.authenticate();
    }
    let leg = |end: End| {
        let (outer, inner) = tcp_pair();
        inner.set_nonblocking(true).unwrap();
        let leg = EstablishedLeg {
            fd: inner.into(),
            transport: Box::new(end.transport),
            leftover: Vec::new(),
        };
        (outer, leg)
    };
    let (client_socket, client_leg) = leg(front.server);
    let (vm_socket, vm_leg) = leg(back.client);
    let client = Peer { end: front.client, socket: client_socket, random: Seeded(seed) };
    let vm = Peer { end: back.server, socket: vm_socket, random: Seeded(seed) };
    (client, vm, Carriage::Reseal(Box::new(Relay::new(client_leg, vm_leg, server))))
}

pub(super) const SETTINGS: Settings = Settings {
    cpu: None,
    prefer_gcm: PreferGcm::Bulk,
    client_alive: ClientAlive { interval: Duration::from_mins(5), count_max: 12 },
};

pub(super) type Ends = Receiver<(&'static str, Report)>;

pub(super) fn start() -> (PumpHandle<&'static str>, JoinHandle<()>, Ends) {
    let (ended, ends) = channel();
    let settings = SETTINGS;
    let counters = Arc::new(Counters::default());
    let (handle, thread) =
        spawn("pump-test".into(), settings, counters, words, move |info, report| {
            ended.send((*info, report.clone())).unwrap();
        })
        .unwrap();
    (handle, thread, ends)
}

/// What users read here.
pub(super) fn words(info: &&'static str, cause: Cause) -> String {
    format!("{info}: {cause}")
}

/// A pump that is not started.
pub(super) fn pump() -> (Pump<&'static str>, PumpHandle<&'static str>, Ends) {
    let (ended, ends) = channel();
    let settings = SETTINGS;
    let on_end =
        move |info: &&'static str, report: &Report| ended.send((*info, report.clone())).unwrap();
    let (pump, handle) = build(settings, Arc::new(Counters::default()), words, on_end).unwrap();
    (pump, handle, ends)
}

pub(super) fn ended(side: Side, cause: Cause) -> Ended {
    Ended { side, stage: Stage::Session, cause }
}

#[test]
fn sessions_flow_both_ways_in_bulk_and_end_with_one_report_each() {
    let (handle, thread, ends) = start();
    let crowd = 8;
    let mut threads = Vec::new();
    for seed in 0..crowd {
        let cipher = if seed % 2 == 0 { Cipher::Aes128Gcm } else { Cipher::Aes128Ctr };
        let (mut client, mut vm, session) = session_with(seed, "bulk", cipher);
        assert!(handle.carry(session).is_ok());
        threads.push(std::thread::spawn(move || {
            let mut payload = vec![7; 32_000];
            payload[0] = CHANNEL_DATA;
            let echo = std::thread::spawn(move || {
                for count in 1..=100 {
                    let message = vm.wait_for(count).swap_remove(count - 1);
                    vm.send(&message);
                }
                vm
            });
            let mut sender = Peer {
                end: client.end,
                socket: client.socket.try_clone().unwrap(),
                random: Seeded(seed),
            };
            for n in 0..100_u8 {
                payload[1] = n;
                sender.send(&payload);
            }
            client.end = sender.end;
            let echoed = client.wait_for(100);
            for (n, message) in (0..100_u8).zip(echoed) {
                payload[1] = n;
                assert!(message == payload);
            }
            drop(client);
            drop(echo.join().unwrap());
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    for _ in 0..crowd {
        let (_, report) = ends.recv().unwrap();
        assert!(report.up > 3_200_000 && report.down > 3_200_000, "{report:?}");
    }
    handle.stop();
    thread.join().unwrap();
    assert_eq!(handle.sessions(), 0);
    assert!(ends.recv().is_err(), "no session ended twice");
}

/// A client may be silent for long; the deadline of one that is gone must not be kept for as long.
#[test]
fn a_pump_forgets_the_deadlines_of_sessions_that_are_over() {
    let (mut pump, _handle, _ends) = pump();
    let ended = ended(Side::Client, Cause::Closed);
    for seed in 0..3 * u64::try_from(DEADLINES_SPARE).unwrap() {
        let (_client, _vm, session) = session(seed, "short");
        pump.register(session);
        assert!(pump.deadlines.len() <= DEADLINES_SPARE + 2 * 2);
        let key = pump.entries.keys()[0];
        if seed > 0 {
            pump.remove(key, ended);
        }
    }
    assert_eq!(pump.entries.len(), 1);
    let lives = |one: &Reverse<(u64, Key)>| pump.entries.get(one.0.1).is_some();
    assert_eq!(pump.deadlines.iter().filter(|one| lives(one)).count(), 1);
}

#[test]
fn a_recheck_ends_who_lost_the_right_and_touches_no_other() {
    let (handle, thread, ends) = start();
    let (mut lost, lost_vm, session_lost) = session(1, "lost");
    let (mut kept, mut kept_vm, session_kept) = session(2, "kept");
    assert!(handle.carry(session_lost).is_ok());
    assert!(handle.carry(session_kept).is_ok());
    handle.request_recheck(Arc::new(|info| match *info {
        "lost" => Stay::End(Cause::RightLost),
        _ => Stay::Until(None),
    }));
    assert_eq!(lost.wait_for_goodbye(), words(&"lost", Cause::RightLost));
    drop((lost, lost_vm));
    let (info, report) = ends.recv().unwrap();
    assert_eq!((info, report.ended), ("lost", ended(Side::Operator, Cause::RightLost)));
    kept.send(&[CHANNEL_DATA, 5]);
    assert_eq!(kept_vm.wait_for(1), [[CHANNEL_DATA, 5]]);
    // One that was admitted before the recheck and comes in after it.
    let (mut late, late_vm, session_late) = session(3, "lost");
    assert!(handle.carry(session_late).is_ok());
    assert_eq!(late.wait_for_goodbye(), words(&"lost", Cause::RightLost));
    drop((late, late_vm));
    assert_eq!(ends.recv().unwrap().1.ended.cause, Cause::RightLost);
    handle.stop();
    thread.join().unwrap();
    assert_eq!(ends.recv().unwrap().1.ended, ended(Side::Operator, Cause::Killed));
    kept.wait_for_end();
}

#[test]
fn a_visit_sees_every_session_and_ends_those_it_says_no_to() {
    let (handle, thread, ends) = start();
    let (mut one, one_vm, session_one) = session(31, "one");
    let (mut other, other_vm, session_other) = session(32, "other");
    assert!(handle.carry(session_one).is_ok());
    assert!(handle.carry(session_other).is_ok());
    let (found, all) = channel();
    handle.visit(Box::new(move |info, seen| {
        found.send((*info, seen.carry)).unwrap();
        *info != "one"
    }));
    // It ends when the visit is dropped.
    let mut seen: Vec<_> = all.iter().collect();
    seen.sort_unstable_by_key(|(info, _)| *info);
    assert_eq!(seen, [("one", Carry::Relay), ("other", Carry::Relay)]);
    assert_eq!(one.wait_for_goodbye(), words(&"one", Cause::Killed));
    drop((one, one_vm));
    let (info, report) = ends.recv().unwrap();
    assert_eq!((info, report.ended), ("one", ended(Side::Operator, Cause::Killed)));
    handle.stop();
    thread.join().unwrap();
    other.wait_for_end();
    drop(other_vm);
}

#[test]
fn rechecks_asked_for_at_once_are_one_and_one_more_waits_at_most() {
    let (mut pump, handle, _ends) = pump();
    let mut peers = Vec::new();
    for seed in 20..22 {
        let (client, vm, session) = session(seed, "any");
        pump.register(session);
        peers.push((client, vm));
    }
    let checked: [_; 4] = std::array::from_fn(|_| Arc::new(AtomicUsize::new(0)));
    let ask = |at: usize| {
        let count = Arc::clone(&checked[at]);
        handle.request_recheck(Arc::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Stay::Until(None)
        }));
    };
    let counts = || checked.each_ref().map(|count| count.load(Ordering::SeqCst));
    ask(0);
    ask(1);
    pump.run_recheck();
    assert_eq!(counts(), [0, 2, 0, 0]);
    // Two are asked for while one has come half way: the last of them follows it.
    ask(0);
    pump.begin_recheck();
    pump.unchecked.pop();
    ask(2);
    ask(3);
    pump.run_recheck();
    assert_eq!(counts(), [1, 2, 0, 0]);
    assert_eq!(pump.timeout(), EpollTimeout::ZERO);
    pump.run_recheck();
    assert_eq!(counts(), [1, 2, 0, 2]);
    // Who comes in later is checked too.
    let (client, vm, session) = session(22, "late");
    pump.register(session);
    peers.push((client, vm));
    assert_eq!(counts(), [1, 2, 0, 3]);
}

#[test]
fn a_right_that_ends_is_looked_at_when_it_ends_and_no_other_session_with_it() {
    let (mut pump, handle, ends) = pump();
    let mut peers = Vec::new();
    let asked: Arc<[AtomicUsize; 2]> = Arc::default();
    // The first is good until 100; asked then, until 200; asked then, no more.
    let first_at: Arc<AtomicUsize> = Arc::new(AtomicUsize::new(100));
    let (count, until) = (Arc::clone(&asked), Arc::clone(&first_at));
    handle.request_recheck(Arc::new(move |info| {
        count[usize::from(*info != "ends")].fetch_add(1, Ordering::SeqCst);
        match (*info, until.load(Ordering::SeqCst)) {
            ("ends", 0) => Stay::End(Cause::RightExpired),
            ("ends", at) => Stay::Until(Some(far(at))),
            _ => Stay::Until(None),
        }
    }));
    for (seed, info) in [(41, "ends"), (42, "stays")] {
        let (client, vm, session) = session(seed, info);
        pump.register(session);
        peers.push((client, vm));
    }
    pump.run_recheck();
    let counts = || asked.each_ref().map(|count| count.load(Ordering::SeqCst));
    let before = counts();
    let at = |pump: &mut Pump<&'static str>, ms: usize| {
        pump.tools.now = Instant(far(ms));
        pump.pass_deadlines();
        while let Some(key) = pump.ready.pop_front() {
            pump.turn(key);
        }
    };
    at(&mut pump, 99);
    assert_eq!(counts(), before, "not yet");
    first_at.store(200, Ordering::SeqCst);
    at(&mut pump, 100);
    assert_eq!(counts(), [before[0] + 1, before[1]], "asked again, and it may stay longer");
    first_at.store(0, Ordering::SeqCst);
    at(&mut pump, 199);
    assert_eq!(counts(), [before[0] + 1, before[1]]);
    at(&mut pump, 200);
    assert_eq!(counts(), [before[0] + 2, before[1]]);
    let (client, _) = &mut peers[0];
    assert_eq!(client.wait_for_goodbye(), words(&"ends", Cause::RightExpired));
    at(&mut pump, 300);
    assert_eq!(counts(), [before[0] + 2, before[1]]);
    drop(peers);
    drop(ends);
}

/// A moment that comes only when a test says so.
fn far(ms: usize) -> u64 {
    monotonic_ms() / 1_000_000_000 * 1_000_000_000 + 1_000_000_000 + ms as u64
}

#[test]
fn a_check_that_panics_is_a_no() {
    let (handle, thread, ends) = start();
    let (mut client, vm, session) = session(4, "any");
    assert!(handle.carry(session).is_ok());
    handle.request_recheck(Arc::new(|_| panic!("in a check")));
    assert_eq!(client.wait_for_goodbye(), words(&"any", Cause::RightLost));
    drop((client, vm));
    assert_eq!(ends.recv().unwrap().1.ended.cause, Cause::RightLost);
    handle.stop();
    thread.join().unwrap();
}

#[test]
fn ending_all_tells_every_user_and_refuses_newcomers() {
    let (handle, thread, ends) = start();
    let mut peers = Vec::new();
    for seed in 0..5 {
        let (client, vm, session) = session(seed, "old");
        assert!(handle.carry(session).is_ok());
        peers.push((client, vm));
    }
    handle.end_all();
    let (client, vm, session) = session(9, "new");
    assert!(handle.carry(session).is_ok());
    peers.push((client, vm));
    for (mut client, vm) in peers {
        assert!(client.wait_for_goodbye().ends_with(Cause::Drained.as_str()));
        drop((client, vm));
        assert_eq!(ends.recv().unwrap().1.ended, ended(Side::Operator, Cause::Drained));
    }
    handle.stop();
    thread.join().unwrap();
    let (_, _, session) = session_with(10, "late", Cipher::Aes128Gcm);
    assert_eq!(handle.carry(session).err().map(|session| session.info), Some("late"));
    assert_eq!(handle.sessions(), 0);
}

/// Fails once, when it is told to.
struct Bomb(Arc<AtomicBool>);

impl Entropy for Bomb {
    fn fill(&mut self, out: &mut [u8]) {
        assert!(!self.0.swap(false, Ordering::SeqCst), "in a session");
        out.fill(4);
    }
}

#[test]
fn a_panic_ends_one_session_and_no_other() {
    let (mut pump, handle, ends) = pump();
    let fuse = Arc::new(AtomicBool::new(false));
    pump.tools.entropy = Box::new(Bomb(Arc::clone(&fuse)));
    let thread = std::thread::spawn(|| pump.run());
    // Its packets are sealed anew, with new padding; the other one's where they lie, without.
    let (mut hit, mut hit_vm, session_hit) = session_with(11, "hit", Cipher::Aes128Ctr);
    let (mut spared, mut spared_vm, session_spared) = session(12, "spared");
    assert!(handle.carry(session_hit).is_ok());
    assert!(handle.carry(session_spared).is_ok());
    hit.send(&[CHANNEL_DATA, 1]);
    hit_vm.wait_for(1);
    fuse.store(true, Ordering::SeqCst);
    // The padding is drawn for many packets at once.
    for n in 0..100 {
        hit.send(&[CHANNEL_DATA, n]);
        if !fuse.load(Ordering::SeqCst) {
            break;
        }
    }
    let (info, report) = ends.recv().unwrap();
    assert_eq!((info, report.ended), ("hit", ended(Side::Edge, Cause::Panic)));
    hit_vm.wait_for_end();
    spared.send(&[CHANNEL_DATA, 2]);
    assert_eq!(spared_vm.wait_for(1), [[CHANNEL_DATA, 2]]);
    handle.stop();
    thread.join().unwrap();
}

#[test]
fn an_event_for_a_session_that_is_gone_does_not_reach_the_one_in_its_place() {
    let (mut pump, _handle, ends) = pump();
    let (_client, _vm, first) = session(13, "first");
    pump.register(first);
    let old = pump.entries.keys()[0];
    pump.remove(old, ended(Side::Edge, Cause::Panic));
    assert_eq!(ends.recv().unwrap().0, "first");
    let (_client, _vm, second) = session(14, "second");
    pump.register(second);
    let new = pump.entries.keys()[0];
    assert_eq!(old.index, new.index);
    while let Some(key) = pump.ready.pop_front() {
        pump.turn(key);
    }
    let all = Readiness { readable: true, writable: true, hangup: true };
    pump.ready(Target { key: old, second: false }, all);
    assert!(pump.ready.is_empty());
    pump.ready(Target { key: new, second: false }, all);
    assert_eq!(pump.ready, [new]);
}

#[test]
fn an_idle_pump_sleeps_without_a_timeout_and_one_with_sessions_until_the_next_scan() {
    let (mut pump, _handle, _ends) = pump();
    assert_eq!(pump.timeout(), EpollTimeout::NONE);
    let (_client, _vm, session) = session(15, "one");
    pump.register(session);
    assert_eq!(pump.timeout(), EpollTimeout::ZERO);
    while let Some(key) = pump.ready.pop_front() {
        pump.turn(key);
    }
    assert_eq!(pump.timeout(), EpollTimeout::try_from(Duration::from_millis(SCAN_MS)).unwrap());
    eprintln!("Entry: {} bytes", size_of::<Entry<()>>());
}

#[test]
fn keys_that_have_grown_old_are_replaced_when_the_client_is_heard() {
    let (mut pump, _handle, _ends) = pump();
    let (mut client, _vm, session) = session(16, "old");
    pump.register(session);
    while let Some(key) = pump.ready.pop_front() {
        pump.turn(key);
    }
    pump.tools.now.0 += RekeyLimits::default().age_ms + SCAN_MS;
    pump.pass_deadlines();
    assert_eq!(pump.ready.len(), 0, "it may be stopped");
    client.send(&[CHANNEL_DATA]);
    let events: Vec<_> = pump.poller.wait(EpollTimeout::NONE).unwrap().collect();
    for event in events {
        if let Event::Ready(target, readiness) = event {
            pump.ready(target, readiness);
        }
    }
    while let Some(key) = pump.ready.pop_front() {
        pump.turn(key);
    }
    // The client answers our KEXINIT.
    while !client.end.transport.is_exchanging() {
        client.receive().unwrap();
    }
}
