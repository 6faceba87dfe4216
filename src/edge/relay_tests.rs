//! Tests of `relay`: a client and a VM made of our own transports, real sockets and a real epoll between
//! them and the session, virtual time and seeded randomness. One thread: nothing here waits.

use super::super::epoll::{Event as Ready, Poller, Target};
use super::super::slab::Key;
use super::*;
use crate::ssh::cipher::{Cipher, Mac};
use crate::ssh::message::{self, CHANNEL_DATA};
use crate::ssh::testing::{End, Pair, Seeded, client_config, server_config};
use crate::ssh::transport::{Algorithms, Method, RekeyLimits};
use crate::ssh::wire::Reader;
use nix::sys::epoll::EpollTimeout;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown as Close;
use std::os::unix::net::UnixStream;

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
    tools: Tools,
    poller: Poller,
    random: Seeded,
    over: Option<Ended>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self::with(seed, Made::default(), Made::default())
    }

    fn with(seed: u64, client: Made, vm: Made) -> Self {
        println!("seed {seed}");
        let mut relay = Self::joined(seed, client, vm);
        relay.relay.begin(&mut relay.tools);
        relay
    }

    /// Both legs are past authentication; the session has not begun.
    fn joined(seed: u64, client: Made, vm: Made) -> Self {
        let server = server_config(seed ^ 1, client.algorithms.clone(), client.limits);
        let mut front =
            Pair::new(seed, Arc::clone(&server), client_config(client.algorithms, never()));
        let back_server = server_config(seed ^ 2, vm.algorithms.clone(), never());
        let mut back = Pair::new(seed ^ 3, back_server, client_config(vm.algorithms, vm.limits));
        for pair in [&mut front, &mut back] {
            pair.settle().unwrap();
            pair.authenticate();
        }
        let (client_socket, client_fd) = UnixStream::pair().unwrap();
        let (vm_socket, vm_fd) = UnixStream::pair().unwrap();
        for socket in [&client_fd, &vm_fd] {
            socket.set_nonblocking(true).unwrap();
        }
        let leg = |fd: UnixStream, end: End| Leg {
            fd: fd.into(),
            transport: Box::new(end.transport),
            leftover: Vec::new(),
        };
        let relay = Relay::new(leg(client_fd, front.server), leg(vm_fd, back.client), server);
        let (poller, _waker) = Poller::new().unwrap();
        for (second, socket) in [false, true].into_iter().zip(relay.sockets()) {
            let key = Key { index: 0, generation: 0 };
            poller.watch(socket, Target { key, second }).unwrap();
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
        if let Turn::Over(ended) = self.relay.expire(&self.tools) {
            self.over = Some(ended);
        }
    }
}

fn tools(seed: u64, now: Instant) -> Tools {
    Tools {
        pool: Pool::default(),
        entropy: Box::new(Seeded(seed)),
        now,
        prefer_gcm: PreferGcm::Bulk,
        tally: Tally::default(),
    }
}

/// A message no relay looks into.
fn data(random: &mut Seeded, len: usize) -> Vec<u8> {
    let mut payload = vec![0; len.max(1)];
    random.fill(&mut payload);
    payload[0] = [message::CHANNEL_OPEN, CHANNEL_DATA, 127][random.below(3)];
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

fn request(name: &str, wants_reply: bool, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![GLOBAL_REQUEST];
    message.put_string(name.as_bytes());
    message.put_bool(wants_reply);
    message.put_bytes(rest);
    message
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
    let messages = [200 << 10, 9, 262_000, 131_072, 40].map(|len| data(&mut random, len));
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

/// Trap 22: any mixture of key exchanges, started by the two peers and by us on both legs, with data in flight.
#[test]
fn key_exchanges_from_all_sides_at_once_complete_and_lose_nothing() {
    for case in 0..16_u64 {
        for fragments in [false, true] {
            let seed = 1_000 + case * 2 + u64::from(fragments);
            let limits = |bit: u64| RekeyLimits {
                age_ms: if case & bit == 0 { u64::MAX } else { 60_000 },
                ..never()
            };
            let made = |bit| Made { limits: limits(bit), ..Made::default() };
            let mut world = World::with(seed, made(1), made(2));
            world.settle();
            let mut random = Seeded(seed);
            let mut sent = EACH.map(|_| Vec::new());
            let speak = |world: &mut World, random: &mut Seeded, sent: &mut [Vec<_>; 2]| {
                for (party, sent) in EACH.into_iter().zip(sent) {
                    if world.peer(party).end.transport.is_held() {
                        continue;
                    }
                    for message in much(random, 100_000) {
                        world.send(party, &message);
                        sent.push(message);
                    }
                    if fragments {
                        world.peer(party).piece = 1 + random.below(9_000);
                    }
                }
            };
            speak(&mut world, &mut random, &mut sent);
            world.tools.now.0 += 60_000;
            if case & 4 != 0 {
                world.rekey(Party::Client);
            }
            if case & 8 != 0 {
                world.rekey(Party::Vm);
            }
            speak(&mut world, &mut random, &mut sent);
            world.settle();
            speak(&mut world, &mut random, &mut sent);
            world.settle();
            assert_eq!(world.over, None, "case {case}");
            assert!(world.to_vm() == sent[0], "case {case}");
            assert!(world.to_client() == sent[1], "case {case}");
            let (front, back) = (case & 5 != 0, case & 10 != 0);
            assert_eq!(world.client.rekeys() > 0, front, "case {case}");
            assert_eq!(world.vm.rekeys() > 0, back, "case {case}");
            assert_eq!(world.relay.client.exchange, Exchange::None);
            assert_eq!(world.relay.vm.exchange, Exchange::None);
        }
    }
}

/// Trap 22: the peer's KEXINIT stands behind data that the other leg cannot take yet.
#[test]
fn a_key_exchange_behind_data_that_nobody_takes_completes_once_it_is_taken() {
    for party in EACH {
        let mut world = World::new(13);
        world.settle();
        let mut random = Seeded(14);
        world.peer(party.other()).is_deaf = true;
        let messages = much(&mut random, 900_000);
        for message in &messages {
            world.send(party, message);
        }
        world.rekey(party);
        world.settle();
        assert_eq!(world.peer(party).rekeys(), 0);
        world.peer(party.other()).is_deaf = false;
        world.settle();
        assert_eq!(world.peer(party).rekeys(), 1);
        let arrived = if party == Party::Client { world.to_vm() } else { world.to_client() };
        assert!(arrived == messages);
    }
}

/// The packets of a peer's own key exchange need nothing of the other leg, so they do not wait for it.
#[test]
fn a_peers_key_exchange_completes_while_the_other_leg_is_full() {
    for party in EACH {
        let mut world = World::new(15);
        world.settle();
        world.rekey(party);
        world.settle();
        assert_eq!(world.peer(party).rekeys(), 1);
        let mut random = Seeded(16);
        // Its KEXINIT is through; only then the other leg fills up behind it.
        world.rekey(party);
        let mut kexinit = world.peer(party).end.take_output();
        let line = match party {
            Party::Client => &mut world.relay.client,
            Party::Vm => &mut world.relay.vm,
        };
        let cx = &mut world.tools.context();
        let received = line.transport.receive(&mut kexinit, cx).unwrap();
        assert_eq!(received.event, Event::Handled);
        line.exchange = Exchange::Peers;
        match party {
            Party::Client => world.relay.vm.writing = Writing::Full,
            Party::Vm => world.relay.client.writing = Writing::Full,
        }
        world.settle();
        assert_eq!(world.peer(party).rekeys(), 2);
        let payload = data(&mut random, 10);
        world.send(party, &payload);
        world.settle();
        let last = match party {
            Party::Client => world.to_vm().last(),
            Party::Vm => world.to_client().last(),
        };
        assert_ne!(last, Some(&payload), "opened for a leg that is full");
    }
}

#[test]
fn we_start_no_key_exchange_while_one_runs_on_the_other_leg() {
    let made = Made { limits: RekeyLimits { age_ms: 60_000, ..never() }, ..Made::default() };
    let mut world = World::with(17, made.clone(), made);
    world.settle();
    world.client.is_deaf = true;
    world.tools.now.0 += 60_000;
    let payload = data(&mut Seeded(18), 10);
    world.send(Party::Client, &payload);
    world.settle();
    assert_eq!(world.relay.client.exchange, Exchange::Ours);
    assert_eq!(world.vm.rekeys(), 0);
    world.client.is_deaf = false;
    world.settle();
    assert_eq!((world.client.rekeys(), world.vm.rekeys()), (1, 1));
    assert_eq!(world.tools.tally.rekeys, 2);
}

/// Trap 23.
#[test]
fn the_vms_host_keys_are_not_told_and_ours_are() {
    let mut world = World::new(19);
    world.send(Party::Vm, &request("hostkeys-00@openssh.com", false, b"\0\0\0\x04keys"));
    world.send(Party::Vm, &request("keepalive@openssh.com", true, b""));
    world.settle();
    assert_eq!(world.to_client(), [request("keepalive@openssh.com", true, b"")]);
}

/// Trap 24: a request of the VM that we swallow is answered in its place.
#[test]
fn host_keys_that_want_a_reply_get_a_refusal_in_their_turn() {
    let mut world = World::new(20);
    world.send(Party::Vm, &request("keepalive@openssh.com", true, b""));
    world.send(Party::Vm, &request("hostkeys-00@openssh.com", true, b""));
    world.settle();
    assert!(world.to_vm().is_empty());
    world.send(Party::Client, &[REQUEST_SUCCESS, 7]);
    world.settle();
    assert_eq!(world.to_vm(), [vec![REQUEST_SUCCESS, 7], vec![REQUEST_FAILURE]]);
}

/// Traps 23 and 24.
#[test]
fn a_proof_of_our_host_keys_is_given_once_and_after_earlier_replies() {
    let mut world = World::new(21);
    world.settle();
    let key = world.relay.server.host_keys()[0].key.public().clone();
    let mut asked = Vec::new();
    asked.put_string(key.blob());
    let prove = request("hostkeys-prove-00@openssh.com", true, &asked);
    world.send(Party::Client, &request("tcpip-forward", true, b""));
    world.send(Party::Client, &prove);
    world.send(Party::Client, &request("keepalive@openssh.com", true, b""));
    world.send(Party::Client, &prove);
    world.settle();
    assert_eq!(world.to_vm().len(), 2, "only what is not ours is relayed");
    assert!(world.to_client().is_empty());
    world.send(Party::Vm, &[REQUEST_SUCCESS, 0, 0, 0, 22]);
    world.settle();
    let [first, proof] = world.to_client() else { panic!("{:?}", world.to_client()) };
    assert_eq!(first, &[REQUEST_SUCCESS, 0, 0, 0, 22]);
    let mut reader = Reader::new(proof);
    assert_eq!(reader.u8(), Ok(REQUEST_SUCCESS));
    let signature = reader.string().unwrap();
    reader.end().unwrap();
    let mut signed = Vec::new();
    signed.put_string(b"hostkeys-prove-00@openssh.com");
    signed.put_string(world.client.end.transport.session_id().unwrap());
    signed.put_string(key.blob());
    let algorithm = world.relay.server.host_keys()[0].key.algorithms()[0];
    key.verify(algorithm, &signed, signature).unwrap();
    world.send(Party::Vm, &[REQUEST_FAILURE]);
    world.settle();
    assert_eq!(world.to_client()[2..], [vec![REQUEST_FAILURE], vec![REQUEST_FAILURE]]);
}

#[test]
fn a_key_that_is_not_ours_is_not_proved() {
    for rest in [&b""[..], b"\0\0\0\x03key", b"\0\0\0\x09key"] {
        let mut world = World::new(22);
        world.send(Party::Client, &request("hostkeys-prove-00@openssh.com", true, rest));
        world.settle();
        assert_eq!(world.to_client(), [vec![REQUEST_FAILURE]]);
        assert!(world.to_vm().is_empty());
    }
}

/// Trap 25.
#[test]
fn messages_of_one_leg_stay_there() {
    let mut world = World::new(23);
    let mut ping = vec![message::PING];
    ping.put_string(b"x");
    for party in EACH {
        world.send(party, &[message::IGNORE, 0, 0, 0, 0]);
        world.send(party, &ping);
        world.send(party, &[CHANNEL_DATA, 1]);
        world.send(party, &[message::EXT_INFO, 0, 0, 0, 0]);
        world.send(party, &[message::DEBUG, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        world.send(party, &[CHANNEL_DATA, 2]);
    }
    world.settle();
    assert_eq!(world.to_vm(), [vec![CHANNEL_DATA, 1], vec![CHANNEL_DATA, 2]]);
    assert_eq!(world.to_client(), [vec![CHANNEL_DATA, 1], vec![CHANNEL_DATA, 2]]);
}

/// Trap 20: UNIMPLEMENTED names the packet by the number of the leg it is sent on.
#[test]
fn unimplemented_reaches_the_sender_with_the_senders_number() {
    let mut world = World::new(24);
    world.settle();
    let mut ping = vec![message::PING];
    ping.put_string(b"x");
    world.send(Party::Client, &ping);
    world.send(Party::Client, &ping);
    let number = world.client.end.transport.send_seq();
    world.send(Party::Client, &[125]);
    world.settle();
    assert_eq!(world.to_vm(), [vec![125]]);
    let mut answer = vec![UNIMPLEMENTED];
    answer.put_u32(world.vm.end.transport.receive_seq().wrapping_sub(1));
    world.send(Party::Vm, &answer);
    world.settle();
    assert!(world.client.end.events.contains(&Event::Unimplemented(number)));
}

#[test]
fn unimplemented_about_a_packet_of_ours_goes_no_further() {
    let mut world = World::new(25);
    world.settle();
    // Our host keys were the last packet the client got.
    let mut answer = vec![UNIMPLEMENTED];
    answer.put_u32(world.client.end.transport.receive_seq().wrapping_sub(1));
    world.send(Party::Client, &answer);
    world.settle();
    let is_unimplemented = |event: &Event| matches!(event, Event::Unimplemented(_));
    assert!(!world.vm.end.events.iter().any(is_unimplemented));
    assert_eq!(world.over, None);
}

#[test]
fn a_goodbye_is_passed_on_behind_the_data_and_ends_the_session() {
    for party in EACH {
        let mut world = World::new(26);
        world.settle();
        let messages = much(&mut Seeded(27), 700_000);
        for message in &messages {
            world.send(party, message);
        }
        world.disconnect(party, "that was all");
        world.settle();
        let arrived = if party == Party::Client { world.to_vm() } else { world.to_client() };
        assert!(arrived == messages);
        let other = world.peer(party.other());
        assert_eq!(other.fault, Some(Fault::Disconnected { reason: 12 }));
        assert_eq!(other.end.transport.farewell(), Some((12, &b"that was all"[..])));
        assert!(other.has_read_end);
        assert_eq!(world.over, None, "the peers have not closed yet");
        for party in EACH {
            world.peer(party).socket = None;
        }
        world.settle();
        assert_eq!(world.over, Some(session(party.side(), Cause::Closed)));
        assert_eq!(world.held(), 0);
    }
}

#[test]
fn a_session_that_is_over_waits_two_seconds_for_its_peers() {
    let mut world = World::new(28);
    world.settle();
    world.disconnect(Party::Client, "bye");
    world.settle();
    assert_eq!(world.over, None);
    world.later(LINGER_MS_MAX - 1);
    assert_eq!(world.over, None);
    world.later(1);
    assert_eq!(world.over, Some(session(Side::Client, Cause::Closed)));
}

#[test]
fn a_peer_that_never_reads_does_not_hold_a_session_that_is_over() {
    let mut world = World::new(29);
    world.settle();
    world.vm.is_deaf = true;
    for message in much(&mut Seeded(30), 250_000) {
        world.send(Party::Client, &message);
    }
    world.settle();
    world.relay.evict(Cause::Drained, "going down", &mut world.tools);
    world.settle();
    assert_eq!(world.over, None);
    world.later(LINGER_MS_MAX);
    assert_eq!(world.over, Some(session(Side::Operator, Cause::Drained)));
}

#[test]
fn a_half_close_passes_behind_the_data_and_the_other_direction_goes_on() {
    for party in EACH {
        let mut world = World::new(31);
        world.settle();
        let mut random = Seeded(32);
        let (to, back) = (much(&mut random, 400_000), much(&mut random, 400_000));
        for message in &to {
            world.send(party, message);
        }
        let mut again = true;
        // All of it and the FIN lie in the socket before we read the end of it.
        loop {
            let mut cx = Context { now: world.tools.now, entropy: &mut world.random };
            let peer = match party {
                Party::Client => &mut world.client,
                Party::Vm => &mut world.vm,
            };
            if peer.end.transport.output().is_empty() {
                peer.socket.as_ref().unwrap().shutdown(Close::Write).unwrap();
                break;
            }
            if !peer.work(&mut cx) {
                world.turn(&mut again);
                let mut cx = Context { now: world.tools.now, entropy: &mut world.random };
                world.client.work(&mut cx);
                world.vm.work(&mut cx);
            }
        }
        world.settle();
        assert!(world.peer(party.other()).has_read_end);
        assert!(!world.peer(party).has_read_end);
        for message in &back {
            world.send(party.other(), message);
        }
        world.settle();
        let (up, down) = if party == Party::Client { (&to, &back) } else { (&back, &to) };
        assert!(world.to_vm() == up);
        assert!(world.to_client() == down);
        assert_eq!(world.over, None);
        let socket = world.peer(party.other()).socket.as_ref().unwrap();
        socket.shutdown(Close::Write).unwrap();
        world.settle();
        assert_eq!(world.over, Some(session(party.side(), Cause::Closed)));
        assert!(world.peer(party).has_read_end);
    }
}

#[test]
fn half_a_session_may_not_stay_without_moving_a_byte() {
    let mut world = World::new(33);
    world.settle();
    world.client.socket.as_ref().unwrap().shutdown(Close::Write).unwrap();
    world.settle();
    for _ in 0..3 {
        world.later(HALF_CLOSED_MS_MAX - 1);
        let payload = data(&mut Seeded(34), 5);
        world.send(Party::Vm, &payload);
        world.settle();
        world.later(1);
        assert_eq!(world.over, None);
    }
    world.later(HALF_CLOSED_MS_MAX);
    assert_eq!(world.over, Some(session(Side::Client, Cause::Closed)));
}

#[test]
fn a_peer_that_vanishes_ends_the_session_and_the_other_one_is_told() {
    for party in EACH {
        let mut world = World::new(35);
        world.settle();
        // Unread bytes make its close a reset.
        world.peer(party).is_deaf = true;
        let payload = data(&mut Seeded(36), 50);
        world.send(party.other(), &payload);
        world.settle();
        world.peer(party).socket = None;
        world.send(party.other(), &payload);
        world.settle();
        let other = world.peer(party.other());
        assert_eq!(other.fault, Some(Fault::Disconnected { reason: 10 }));
        other.socket = None;
        world.settle();
        assert_eq!(world.over, Some(session(party.side(), Cause::Reset)));
    }
}

#[test]
fn a_corrupt_packet_ends_the_session_and_both_sides_are_told() {
    for party in EACH {
        let mut world = World::new(37);
        world.settle();
        let payload = data(&mut Seeded(38), 50);
        world.send(party, &payload);
        let mut bytes = world.peer(party).end.take_output();
        *bytes.last_mut().unwrap() ^= 1;
        world.peer(party).socket.as_mut().unwrap().write_all(&bytes).unwrap();
        world.settle();
        let reasons = EACH.map(|party| world.peer(party).fault);
        let (mac, lost) = (Fault::Disconnected { reason: 5 }, Fault::Disconnected { reason: 10 });
        let expected = if party == Party::Client { [mac, lost] } else { [lost, mac] };
        assert_eq!(reasons, expected.map(Some));
        assert!(world.to_vm().is_empty() && world.to_client().is_empty());
        for party in EACH {
            world.peer(party).socket = None;
        }
        world.settle();
        assert_eq!(world.over, Some(session(party.side(), Cause::Corrupt)));
    }
}

#[test]
fn an_evicted_user_reads_why() {
    let mut world = World::new(39);
    world.settle();
    world.relay.evict(Cause::RightLost, "no longer yours", &mut world.tools);
    world.settle();
    let farewell = world.client.end.transport.farewell().unwrap();
    assert_eq!(farewell, (11, &b"no longer yours"[..]));
    assert_eq!(world.vm.fault, Some(Fault::Disconnected { reason: 11 }));
    for party in EACH {
        world.peer(party).socket = None;
    }
    world.settle();
    assert_eq!(world.over, Some(session(Side::Operator, Cause::RightLost)));
}

/// A client that takes chacha20 first and would do AES-GCM as well.
fn prefers_chacha(seed: u64, gcm: bool, prefer_gcm: PreferGcm) -> World {
    let ciphers = [Cipher::Chacha20Poly1305, Cipher::Aes256Gcm];
    let list = &ciphers[..if gcm { 2 } else { 1 }];
    let algorithms = Algorithms {
        methods: vec![Method::Curve25519],
        ciphers: list.to_vec(),
        macs: vec![Mac::Sha256],
    };
    let front = Made { algorithms, limits: never() };
    let mut world = World::with(seed, front, Made::default());
    world.tools.prefer_gcm = prefer_gcm;
    world
}

#[test]
fn a_bulky_chacha20_client_that_has_aes_gcm_is_re_keyed_to_it_once() {
    for (gcm, prefer_gcm, changes) in [
        (true, PreferGcm::Bulk, true),
        (true, PreferGcm::Never, false),
        (false, PreferGcm::Bulk, false),
    ] {
        let mut world = prefers_chacha(40, gcm, prefer_gcm);
        world.settle();
        let mut random = Seeded(41);
        let mut sent = Vec::new();
        for round in 0..12 {
            for message in much(&mut random, 500_000) {
                world.send(Party::Vm, &message);
                sent.push(message);
            }
            world.settle();
            let chacha = Some(Cipher::Chacha20Poly1305);
            let is_chacha = world.client.end.transport.receive_cipher() == chacha;
            assert_eq!(is_chacha, !changes || round < 8, "round {round}");
        }
        assert_eq!(world.client.rekeys(), usize::from(changes));
        assert!(world.to_client() == sent);
    }
}

#[test]
fn a_client_that_floods_us_with_pings_and_reads_nothing_is_ended() {
    let mut world = World::new(42);
    world.settle();
    world.client.is_deaf = true;
    let mut ping = vec![message::PING];
    ping.put_string(&[0; 20_000]);
    for _ in 0..200 {
        world.send(Party::Client, &ping);
        world.settle();
        if world.relay.phase != Phase::Open {
            break;
        }
    }
    world.later(LINGER_MS_MAX);
    assert_eq!(world.over.map(|ended| ended.side), Some(Side::Client));
    assert_eq!(world.vm.fault, Some(Fault::Disconnected { reason: 10 }));
}

/// The figure of the idle session is made of these.
#[test]
fn a_session_without_its_transports_is_small() {
    let size = size_of::<Relay>();
    println!("Relay: {size} bytes, Transport: {} bytes", size_of::<Transport>());
    assert!(size <= 1_024, "{size}");
}
