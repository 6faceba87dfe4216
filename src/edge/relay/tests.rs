//! Tests of `relay`: a client and a VM made of our own transports, real sockets and a real
//! epoll between them and the session, virtual time and seeded randomness. One thread:
//! nothing here waits.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::epoll::EpollTimeout;

use super::super::buffers::Inbox;
use super::super::epoll::{Event as Ready, Interest, Poller, Target};
use super::super::pump::Pipes;
use super::super::slab::Key;
use super::leg::{Reading, Tally};
use super::parting::{HALF_CLOSED_MS_MAX, LINGER_MS_MAX};
use super::*;
use crate::ended::{Cause, Side, Stage};
use crate::ssh::cipher::{Cipher, Mac};
use crate::ssh::entropy::Entropy as _;
use crate::ssh::fault::Fault;
use crate::ssh::kex::Method;
use crate::ssh::message::{self, CHANNEL_DATA, Reason};
use crate::ssh::testing::{End, Pair, Seeded, client_config, server_config};
use crate::ssh::transport::{Algorithms, Context, Instant, RekeyLimits};

mod alive;
mod elsewhere;
mod exchange;
mod rules;

/// What one leg is made with.
#[derive(Clone)]
struct Made {
    algorithms: Algorithms,
    /// When the edge's end of the leg re-keys by itself.
    limits: RekeyLimits,
}

impl Default for Made {
    fn default() -> Self {
        Self { algorithms: algorithms(Cipher::Aes128Gcm, Mac::Sha256), limits: never() }
    }
}

fn never() -> RekeyLimits {
    RekeyLimits { bytes: u64::MAX, packets: u64::MAX, age_ms: u64::MAX }
}

fn algorithms(cipher: Cipher, mac: Mac) -> Algorithms {
    Algorithms { methods: vec![Method::Curve25519], ciphers: vec![cipher], macs: vec![mac] }
}

/// An end of the session outside the edge.
struct Peer {
    end: End,
    socket: Option<UnixStream>,
    /// Bytes a write may take; 0: it does not write.
    piece: usize,
    is_deaf: bool,
    has_read_end: bool,
    fault: Option<Fault>,
}

impl Peer {
    fn new(end: End, socket: UnixStream) -> Self {
        socket.set_nonblocking(true).unwrap();
        Self {
            end,
            socket: Some(socket),
            piece: usize::MAX,
            is_deaf: false,
            has_read_end: false,
            fault: None,
        }
    }

    /// Writes and reads what the socket takes and has. True if a byte moved.
    fn work(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(socket) = &mut self.socket else {
            return false;
        };
        let mut moved = false;
        let output = self.end.transport.output();
        let piece = &output[..output.len().min(self.piece)];
        if !piece.is_empty() {
            match socket.write(piece) {
                Ok(count) => {
                    self.end.transport.sent(count);
                    moved = true;
                }
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::BrokenPipe),
                    "{error}"
                ),
            }
        }
        if self.is_deaf || self.has_read_end {
            return moved;
        }
        let mut bytes = vec![0; 256 << 10];
        match socket.read(&mut bytes) {
            Ok(0) => self.has_read_end = true,
            Ok(count) => {
                self.end.inbox.extend_from_slice(&bytes[..count]);
                moved = true;
                if self.fault.is_none() {
                    self.fault = self.end.receive(cx).err();
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.has_read_end = true,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        moved
    }

    fn rekeys(&self) -> usize {
        self.end.events.iter().filter(|event| **event == Event::Rekeyed).count()
    }
}

struct World {
    client: Peer,
    vm: Peer,
    relay: Relay,
    tools: PumpContext,
    poller: Poller,
    random: Seeded,
    over: Option<Ended>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self::with(seed, Made::default(), Made::default())
    }

    fn with(seed: u64, client: Made, vm: Made) -> Self {
        eprintln!("seed {seed}");
        let mut relay = Self::joined(seed, client, vm);
        relay.relay.begin(&mut relay.tools);
        relay
    }

    /// Both legs are past authentication; the session has not begun.
    fn joined(seed: u64, client: Made, vm: Made) -> Self {
        let server = server_config(seed ^ 1, client.algorithms.clone(), client.limits);
        let front = Pair::new(seed, Arc::clone(&server), client_config(client.algorithms, never()));
        Self::joined_to(seed, front, server, vm)
    }

    /// The same, where the client's leg has had no key exchange, or one that waits for
    /// nothing.
    fn joined_to(seed: u64, mut front: Pair, server: Arc<ServerConfig>, vm: Made) -> Self {
        let back_server = server_config(seed ^ 2, vm.algorithms.clone(), never());
        let mut back = Pair::new(seed ^ 3, back_server, client_config(vm.algorithms, vm.limits));
        for pair in [&mut front, &mut back] {
            pair.settle().unwrap();
            pair.authenticate();
        }
        // As the door does right behind its USERAUTH_SUCCESS.
        let host_keys = requests::host_keys(server.host_keys());
        let mut door = tools(seed ^ 6, front.now);
        front.server.transport.send(&host_keys, &mut door.context()).unwrap();
        let (client_socket, client_fd) = UnixStream::pair().unwrap();
        let (vm_socket, vm_fd) = UnixStream::pair().unwrap();
        for socket in [&client_fd, &vm_fd] {
            socket.set_nonblocking(true).unwrap();
        }
        let leg = |fd: UnixStream, end: End| EstablishedLeg {
            fd: fd.into(),
            transport: Box::new(end.transport),
            leftover: Vec::new(),
        };
        let relay = Relay::new(leg(client_fd, front.server), leg(vm_fd, back.client), server);
        let (poller, _waker) = Poller::new().unwrap();
        for (second, socket) in [false, true].into_iter().zip(relay.sockets()) {
            let key = Key { index: 0, generation: 0 };
            poller.watch(socket, Target { key, second }, Interest::Both).unwrap();
        }
        Self {
            client: Peer::new(front.client, client_socket),
            vm: Peer::new(back.server, vm_socket),
            relay,
            tools: tools(seed ^ 4, front.now),
            poller,
            random: Seeded(seed ^ 5),
            over: None,
        }
    }

    fn peer(&mut self, party: Party) -> &mut Peer {
        match party {
            Party::Client => &mut self.client,
            Party::Vm => &mut self.vm,
        }
    }

    /// One of our turns, if epoll or the session itself asks for one.
    fn turn(&mut self, again: &mut bool) -> bool {
        let mut wanted = std::mem::take(again);
        let events: Vec<_> = self.poller.wait(EpollTimeout::ZERO).unwrap().collect();
        for event in events {
            if let Ready::Ready(target, readiness) = event {
                let party = if target.second { Party::Vm } else { Party::Client };
                self.relay.ready(party, readiness);
                wanted = true;
            }
        }
        if wanted && self.over.is_none() {
            match self.relay.turn(&mut self.tools) {
                Turn::Wait => {}
                Turn::Again => *again = true,
                Turn::Over(ended) => {
                    self.over = Some(ended);
                    // What the pump does: both sockets close.
                    let nowhere = UnixStream::pair().unwrap().0;
                    self.relay.client.fd = nowhere.try_clone().unwrap().into();
                    self.relay.vm.fd = nowhere.into();
                }
            }
        }
        wanted
    }

    /// Goes on until nothing moves any more.
    fn settle(&mut self) {
        let mut again = true;
        loop {
            let mut cx = Context { now: self.tools.now, entropy: &mut self.random };
            let mut moved = self.client.work(&mut cx);
            moved |= self.vm.work(&mut cx);
            moved |= self.turn(&mut again);
            if !moved {
                return;
            }
        }
    }

    fn send(&mut self, party: Party, payload: &[u8]) {
        let mut cx = Context { now: self.tools.now, entropy: &mut self.random };
        let peer = match party {
            Party::Client => &mut self.client,
            Party::Vm => &mut self.vm,
        };
        peer.end.transport.send(payload, &mut cx).unwrap();
    }

    fn rekey(&mut self, party: Party) {
        let mut cx = Context { now: self.tools.now, entropy: &mut self.random };
        let peer = match party {
            Party::Client => &mut self.client,
            Party::Vm => &mut self.vm,
        };
        peer.end.transport.rekey(None, &mut cx).unwrap();
    }

    fn disconnect(&mut self, party: Party, text: &str) {
        let mut cx = Context { now: self.tools.now, entropy: &mut self.random };
        let peer = match party {
            Party::Client => &mut self.client,
            Party::Vm => &mut self.vm,
        };
        peer.end.transport.disconnect(Reason::TooManyConnections, text, &mut cx);
    }

    /// What the client got besides our own word at the start.
    fn to_client(&self) -> &[Vec<u8>] {
        let (first, rest) = self.client.end.payloads.split_first().expect("host keys were told");
        assert_eq!(first, &requests::host_keys(self.relay.server.host_keys()));
        rest
    }

    fn to_vm(&self) -> &[Vec<u8>] {
        &self.vm.end.payloads
    }

    /// Bytes the session holds for others.
    fn held(&self) -> usize {
        [&self.relay.client, &self.relay.vm]
            .map(|line| line.inbox.capacity() + line.transport.output().len())
            .iter()
            .sum()
    }

    fn later(&mut self, ms: u64) {
        self.tools.now.0 += ms;
        if let Turn::Over(ended) = self.relay.expire(&mut self.tools) {
            self.over = Some(ended);
        }
    }
}

fn tools(seed: u64, now: Instant) -> PumpContext {
    PumpContext {
        pool: Pool::default(),
        entropy: Box::new(Seeded(seed)),
        now,
        prefer_gcm: PreferGcm::Bulk,
        client_alive: ClientAlive { interval: Duration::ZERO, count_max: 0 },
        pipes: Pipes::default(),
        tally: Tally::default(),
    }
}

/// A message no relay looks into.
fn data(random: &mut Seeded, len: usize) -> Vec<u8> {
    let mut payload = vec![0; len.max(1)];
    random.fill(&mut payload);
    payload[0] = [CHANNEL_OPEN, CHANNEL_DATA, 127][random.below(3)];
    payload
}

/// A good `len` bytes of them.
fn much(random: &mut Seeded, len: usize) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut total = 0;
    while total < len {
        let size = 1 + random.below(32_000);
        total += size;
        messages.push(data(random, size));
    }
    messages
}

const EACH: [Party; 2] = [Party::Client, Party::Vm];

fn session(side: Side, cause: Cause) -> Ended {
    Ended { side, stage: Stage::Session, cause }
}

#[test]
fn every_pair_of_suites_relays_every_payload_as_it_is() {
    let suites: Vec<_> = Cipher::ALL
        .iter()
        .flat_map(|cipher| {
            let macs = if *cipher == Cipher::Aes128Ctr { &Mac::ALL[..] } else { &Mac::ALL[..1] };
            macs.iter().map(|mac| algorithms(*cipher, *mac))
        })
        .collect();
    let mut seed = 100;
    for front in &suites {
        for back in &suites {
            seed += 1;
            let made =
                |algorithms: &Algorithms| Made { algorithms: algorithms.clone(), limits: never() };
            let mut world = World::with(seed, made(front), made(back));
            let mut random = Seeded(seed);
            let mut sent = EACH.map(|_| Vec::new());
            for round in 0..20 {
                for (party, sent) in EACH.into_iter().zip(&mut sent) {
                    let len = 1 + random.below(if round % 4 == 0 { 30_000 } else { 300 });
                    let payload = data(&mut random, len);
                    world.send(party, &payload);
                    sent.push(payload);
                    world.peer(party).piece = 1 + random.below(20_000);
                }
                if round % 3 == 0 {
                    world.settle();
                }
            }
            world.settle();
            assert!(world.to_vm() == sent[0], "{front:?} to {back:?}");
            assert!(world.to_client() == sent[1], "{back:?} to {front:?}");
        }
    }
}

#[test]
fn bytes_may_come_one_at_a_time() {
    let mut world = World::new(1);
    let mut random = Seeded(2);
    let messages: Vec<_> = (0..40).map(|len| data(&mut random, len)).collect();
    for party in EACH {
        world.peer(party).piece = 1;
        for message in &messages {
            world.send(party, message);
        }
    }
    world.settle();
    assert_eq!(world.to_vm(), messages);
    assert_eq!(world.to_client(), messages);
}

#[test]
fn packets_larger_than_a_buffer_pass() {
    let mut world = World::new(3);
    let mut random = Seeded(4);
    // The last but one: 256 KiB for standard error, header and all.
    let messages = [200 << 10, 9, 262_000, 131_072, (256 << 10) + 13, 40];
    let messages = messages.map(|len| data(&mut random, len));
    for message in &messages {
        world.send(Party::Client, message);
        world.send(Party::Vm, message);
    }
    world.settle();
    assert!(world.to_vm() == messages);
    assert!(world.to_client() == messages);
}

#[test]
fn bytes_that_the_door_had_read_come_first() {
    let mut world = World::joined(5, Made::default(), Made::default());
    let mut random = Seeded(6);
    let messages = much(&mut random, 300_000);
    for message in &messages {
        world.send(Party::Client, message);
    }
    let bytes = world.client.end.take_output();
    let (leftover, rest) = bytes.split_at(100_001);
    world.relay.client.inbox = Inbox::new(leftover.to_vec());
    world.relay.client.received = 100_001;
    world.client.socket.as_mut().unwrap().write_all(&rest[..5_000]).unwrap();
    world.relay.begin(&mut world.tools);
    world.settle();
    world.client.socket.as_mut().unwrap().set_nonblocking(false).unwrap();
    for piece in rest[5_000..].chunks(50_000) {
        world.client.socket.as_mut().unwrap().write_all(piece).unwrap();
        let mut again = false;
        world.turn(&mut again);
    }
    world.client.socket.as_mut().unwrap().set_nonblocking(true).unwrap();
    world.settle();
    assert!(world.to_vm() == messages);
    assert_eq!(world.relay.received().0, u64::try_from(bytes.len()).unwrap());
    assert_eq!(world.tools.tally.up, u64::try_from(bytes.len()).unwrap());
}

#[test]
fn an_idle_session_has_no_buffer() {
    let mut world = World::new(7);
    for party in EACH {
        let payload = data(&mut Seeded(8), 60_000);
        world.send(party, &payload);
    }
    world.settle();
    assert_eq!(world.held(), 0);
}

/// End-to-end back-pressure: a peer that does not read stops the other one, not our memory.
#[test]
fn a_peer_that_does_not_read_costs_bounded_memory_and_loses_nothing() {
    let chacha =
        Made { algorithms: algorithms(Cipher::Chacha20Poly1305, Mac::Sha256), ..Made::default() };
    for (front, back) in [(Made::default(), Made::default()), (chacha, Made::default())] {
        for deaf in EACH {
            let mut world = World::with(9, front.clone(), back.clone());
            world.settle();
            world.peer(deaf).is_deaf = true;
            let mut random = Seeded(10);
            let mut sent = Vec::new();
            for _ in 0..20 {
                for message in much(&mut random, 200_000) {
                    world.send(deaf.other(), &message);
                    sent.push(message);
                }
                world.settle();
                assert!(world.held() <= 2 * (128 << 10) + (64 << 10), "{}", world.held());
                if !world.peer(deaf.other()).end.transport.output().is_empty() {
                    break;
                }
            }
            let waiting = world.peer(deaf.other()).end.transport.output().len();
            assert!(waiting > 0, "the sender was never stopped");
            // The other direction is not concerned.
            world.peer(deaf).is_deaf = false;
            world.settle();
            let arrived = if deaf == Party::Vm { world.to_vm() } else { world.to_client() };
            assert!(arrived == sent);
            assert_eq!(world.held(), 0);
        }
    }
}

/// Small packets grow by more than half on their way into another suite.
#[test]
fn output_for_a_full_socket_is_bounded_whatever_packets_grow_by() {
    let front =
        Made { algorithms: algorithms(Cipher::Chacha20Poly1305, Mac::Sha256), ..Made::default() };
    let back =
        Made { algorithms: algorithms(Cipher::Aes256Ctr, Mac::Sha512Etm), ..Made::default() };
    let mut world = World::with(50, front, back);
    world.settle();
    world.vm.is_deaf = true;
    for _ in 0..20_000 {
        world.send(Party::Client, &[CHANNEL_DATA]);
    }
    world.settle();
    let output = world.relay.vm.transport.output().len();
    assert!(output > 0 && output <= OUTPUT_MAX + 128, "{output}");
    world.vm.is_deaf = false;
    world.settle();
    assert_eq!(world.to_vm().len(), 20_000);
}

/// More lies in the two sockets than one turn reads: no further event tells of it.
#[test]
fn what_a_turn_leaves_in_the_socket_is_read_in_the_next() {
    let mut world = World::joined(51, Made::default(), Made::default());
    let mut random = Seeded(52);
    let mut sent = EACH.map(|_| Vec::new());
    for (party, sent) in EACH.into_iter().zip(&mut sent) {
        let socket = world.peer(party).socket.as_ref().unwrap();
        socket2::SockRef::from(socket).set_send_buffer_size(212_992).unwrap();
        for message in much(&mut random, 600_000) {
            world.send(party, &message);
            sent.push(message);
        }
        let mut cx = Context { now: world.tools.now, entropy: &mut world.random };
        let peer = match party {
            Party::Client => &mut world.client,
            Party::Vm => &mut world.vm,
        };
        peer.work(&mut cx);
        peer.piece = 0;
    }
    world.relay.begin(&mut world.tools);
    world.settle();
    for party in EACH {
        assert_eq!(world.relay.line(party).reading, Reading::Drained, "{party:?}");
        world.peer(party).piece = usize::MAX;
    }
    world.settle();
    assert!(world.to_vm() == sent[0]);
    assert!(world.to_client() == sent[1]);
}

#[test]
fn a_direction_flows_while_the_other_is_stuck() {
    let mut world = World::new(11);
    world.settle();
    let mut random = Seeded(12);
    world.client.is_deaf = true;
    for message in much(&mut random, 900_000) {
        world.send(Party::Vm, &message);
    }
    world.settle();
    let messages = much(&mut random, 600_000);
    for message in &messages {
        world.send(Party::Client, message);
    }
    world.settle();
    assert!(world.to_vm() == messages);
}
