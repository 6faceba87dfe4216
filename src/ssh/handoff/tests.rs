//! A client, an edge and an agent in memory, with virtual time and seeded randomness.

#![expect(clippy::arithmetic_side_effects, reason = "counts of bytes in a test")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::*;
use crate::ssh::certificate::Restrictions;
use crate::ssh::cipher::Mac;
use crate::ssh::fault::Fault;
use crate::ssh::kex::Method;
use crate::ssh::message;
use crate::ssh::packet::Opened;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::PublicKey;
use crate::ssh::testing::{End, Pair, Seeded, client_config, server_config};
use crate::ssh::transport::{
    Algorithms, Context, Event, Instant, RekeyLimits, ServerConfig, Transport,
};
use crate::ssh::userauth::{
    Authenticator, Credential, Gate, Identity, Login, LoginStep, Offer, Pass, Policy, ProvedKey,
    Step,
};

mod frames;
mod open;

const NOW_S: u64 = 1_800_000_000;
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const DETAILS: &[u8] = b"which VM";
const GCM: &[Cipher] = &[Cipher::Aes128Gcm, Cipher::Aes256Gcm];

/// Lets one key in.
struct Only(PublicKey);

impl Gate for Only {
    fn judge_offer(&self, offer: &Offer<'_>) -> Option<Pass> {
        let fingerprint = self.0.fingerprint();
        (offer.subject.fingerprint() == fingerprint).then(|| Pass {
            identity: Identity::Key(fingerprint),
            restrictions: Restrictions::default(),
        })
    }
}

/// What is at the far end of the data connection.
enum Agent {
    /// OPEN is not here yet.
    Waiting(Box<(Opener, Sealer)>),
    Taken(Box<Transport>),
    Gone,
}

/// What is at the edge.
enum Edge {
    Asked(Box<(Transport, Asked)>),
    HandedOff(EdgeEnd),
    Gone,
}

/// Bytes that have arrived at one end of one connection, and those that are cut off for now.
#[derive(Default)]
struct Wires {
    client: Vec<u8>,
    edge_from_client: Vec<u8>,
    edge_from_agent: Vec<u8>,
    agent: Vec<u8>,
}

/// One of the four directions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wire {
    Client,
    EdgeFromClient,
    EdgeFromAgent,
    Agent,
}

const WIRES: [Wire; 4] = [Wire::Client, Wire::EdgeFromClient, Wire::EdgeFromAgent, Wire::Agent];

/// Of one direction, only so many bytes arrive for now.
struct Cut {
    wire: Wire,
    left: usize,
    held_back: Vec<u8>,
}

impl Cut {
    fn of(wire: Wire, left: usize) -> Self {
        Self { wire, left, held_back: Vec::new() }
    }
}

impl Wires {
    fn of(&mut self, wire: Wire) -> &mut Vec<u8> {
        match wire {
            Wire::Client => &mut self.client,
            Wire::EdgeFromClient => &mut self.edge_from_client,
            Wire::EdgeFromAgent => &mut self.edge_from_agent,
            Wire::Agent => &mut self.agent,
        }
    }
}

struct World {
    client: Transport,
    edge: Edge,
    agent: Agent,
    wires: Wires,
    random: Seeded,
    user: PrivateKey,
    /// What the edge signs with.
    server: Arc<ServerConfig>,
    host_keys: Vec<PublicKey>,
    now_s: u64,
    /// Messages that arrived.
    at_client: Vec<Vec<u8>>,
    at_agent: Vec<Vec<u8>>,
    /// Bytes that the edge passed on as they were, from client and agent.
    raw: [usize; 2],
    /// Messages that the client still has to send, one at a time, while things happen.
    to_say: Vec<Vec<u8>>,
    cut: Option<Cut>,
}

fn text(letter: u8, len: usize) -> Vec<u8> {
    let mut payload = vec![message::CHANNEL_DATA];
    payload.resize(len, letter);
    payload
}

impl World {
    /// A client that has proved its key, and an edge that has asked the agent to take it.
    fn new(seed: u64, algorithms: &Algorithms) -> Self {
        let limits = RekeyLimits::default();
        let server = server_config(seed ^ 1, Algorithms::default(), limits);
        let host_keys = server.host_keys().iter().map(|key| key.key.public().clone()).collect();
        let mut random = Seeded(seed);
        let user = PrivateKey::generate_ed25519(&mut random);
        let mut pair =
            Pair::new(seed, Arc::clone(&server), client_config(algorithms.clone(), limits));
        let mut cx = Context { now: pair.now, entropy: &mut random };
        pair.server = End::new(Transport::server_for_handoff(Arc::clone(&server), NOW_S, &mut cx));
        pair.settle().unwrap();
        let proved = log_in(&mut pair, &user);
        pair.settle().unwrap();
        let mut world = Self {
            client: pair.client.transport,
            edge: Edge::Gone,
            agent: Agent::Gone,
            wires: Wires::default(),
            random,
            user,
            server,
            host_keys,
            now_s: NOW_S,
            at_client: Vec::new(),
            at_agent: Vec::new(),
            raw: [0; 2],
            to_say: Vec::new(),
            cut: None,
        };
        let mut transport = pair.server.transport;
        let claim = Claim::generate(&mut world.random);
        let told = Claim::parse(&claim.encoded()).unwrap();
        let id = claim.id;
        let mut cx = Context { now: Instant(0), entropy: &mut world.random };
        let request = proved.request(transport.host_key());
        let ciphers = transport.peer_offered_gcm().then_some(GCM);
        let asked = Asked::begin(
            &mut transport,
            claim,
            (&request, DETAILS),
            ciphers,
            &mut world.wires.agent,
            &mut cx,
        );
        world.wires.client.extend_from_slice(transport.output());
        transport.sent(transport.output().len());
        world.edge = Edge::Asked(Box::new((transport, asked.unwrap())));
        assert_eq!(world.wires.agent.drain(..CLAIM_ID_BYTES).collect::<Vec<_>>(), id);
        world.agent = Agent::Waiting(Box::new(told.at_agent()));
        world
    }

    /// The quickest to compute, for tests of thousands of them.
    fn quick(seed: u64) -> Self {
        let algorithms = Algorithms {
            methods: vec![Method::Curve25519],
            ciphers: vec![Cipher::Aes128Gcm],
            macs: vec![Mac::Sha256],
        };
        Self::new(seed, &algorithms)
    }

    fn client_says(&mut self, payload: &[u8]) {
        let mut cx = Context { now: Instant(0), entropy: &mut self.random };
        self.client.send(payload, &mut cx).unwrap();
    }

    fn vm_says(&mut self, payload: &[u8]) {
        let Agent::Taken(transport) = &mut self.agent else { panic!("not taken yet") };
        let mut cx = Context { now: Instant(0), entropy: &mut self.random };
        transport.send(payload, &mut cx).unwrap();
    }

    /// Takes what the agent makes of OPEN.
    fn agent_takes(&mut self, line: (Opener, Sealer)) -> Result<bool, Refused> {
        let (mut opener, sealer) = line;
        let Some(Opened { payload, used }) =
            opener.open(&mut self.wires.agent, OPEN_LENGTH_MAX).unwrap()
        else {
            self.agent = Agent::Waiting(Box::new((opener, sealer)));
            return Ok(false);
        };
        let open = Open::parse(&self.wires.agent[payload])?;
        assert_eq!(open.details, DETAILS);
        let session = open.session(&self.host_keys, self.now_s)?;
        let gate = Only(self.user.public().clone());
        let (policy, at) = (Policy::default(), (SOURCE, self.now_s));
        let proved = open.prove(&session, at, &policy, &gate).expect("the user's own proof");
        assert_eq!(proved.login(), "root");
        assert_eq!(Some(session.id.as_bytes()), self.client.session_id());
        let taken = open.take(session, &self.host_keys, RekeyLimits::default())?;
        let mut cx = Context { now: Instant(0), entropy: &mut self.random };
        let transport = taken.go_on((opener, sealer), &mut cx).unwrap();
        self.agent = Agent::Taken(Box::new(transport));
        self.wires.agent.drain(..used);
        Ok(true)
    }

    /// Everybody takes what is there, at most once; true if anything happened.
    fn step(&mut self) -> Result<bool, Fault> {
        let client = self.step_client()?;
        let edge = self.step_edge()?;
        let agent = self.step_agent()?;
        Ok(client || edge || agent)
    }

    fn step_client(&mut self) -> Result<bool, Fault> {
        let mut cx = Context { now: Instant(0), entropy: &mut self.random };
        let received = self.client.receive(&mut self.wires.client, &mut cx)?;
        if let Event::Payload(range) = &received.event {
            self.at_client.push(self.wires.client[range.clone()].to_vec());
        }
        self.wires.client.drain(..received.used);
        if let Some(payload) = self.to_say.pop() {
            self.client.send(&payload, &mut cx)?;
        }
        let out = self.client.output().to_vec();
        self.client.sent(out.len());
        self.deliver(Wire::EdgeFromClient, out.clone());
        Ok(received.event != Event::Starved || !out.is_empty())
    }

    fn step_edge(&mut self) -> Result<bool, Fault> {
        match std::mem::replace(&mut self.edge, Edge::Gone) {
            Edge::Asked(pair) => {
                let (transport, mut asked) = *pair;
                let Some((answered, used)) = asked.answer(&mut self.wires.edge_from_agent)? else {
                    self.edge = Edge::Asked(Box::new((transport, asked)));
                    return Ok(false);
                };
                assert_eq!(answered, Answered::Ready);
                self.wires.edge_from_agent.drain(..used);
                let mut out = Vec::new();
                let Ok(end) = asked.hand_off(transport, &mut out) else {
                    panic!("it has heard nothing since");
                };
                self.deliver(Wire::Client, out);
                self.edge = Edge::HandedOff(end);
                Ok(true)
            }
            Edge::HandedOff(mut end) => {
                let mut cx = Context { now: Instant(0), entropy: &mut self.random };
                let Wires { edge_from_client, edge_from_agent, .. } = &mut self.wires;
                let (mut out_up, mut out_down) = (Vec::new(), Vec::new());
                let up = end.from_client(edge_from_client, &mut out_up, &mut cx)?;
                let down = end.from_agent(edge_from_agent, &mut out_down, &mut cx)?;
                let mut any = false;
                for (number, passed, from, out) in [
                    (0, up, edge_from_client, &mut out_up),
                    (1, down, edge_from_agent, &mut out_down),
                ] {
                    match passed {
                        Passed::Starved => {}
                        Passed::Packet(used) | Passed::Last(used) => {
                            from.drain(..used);
                            any = true;
                        }
                        Passed::Raw => {
                            any |= !from.is_empty();
                            self.raw[number] += from.len();
                            out.append(from);
                        }
                    }
                }
                self.deliver(Wire::Agent, out_up);
                self.deliver(Wire::Client, out_down);
                self.edge = Edge::HandedOff(end);
                Ok(any)
            }
            Edge::Gone => Ok(false),
        }
    }

    fn step_agent(&mut self) -> Result<bool, Fault> {
        let any = match std::mem::replace(&mut self.agent, Agent::Gone) {
            Agent::Waiting(line) => self.agent_takes(*line).expect("this one is in order"),
            Agent::Taken(mut transport) => {
                let mut cx = Context { now: Instant(0), entropy: &mut self.random };
                let received = transport.receive(&mut self.wires.agent, &mut cx)?;
                if let Event::Payload(range) = &received.event {
                    self.at_agent.push(self.wires.agent[range.clone()].to_vec());
                }
                self.wires.agent.drain(..received.used);
                self.agent = Agent::Taken(transport);
                received.event != Event::Starved
            }
            Agent::Gone => false,
        };
        let Agent::Taken(transport) = &mut self.agent else { return Ok(any) };
        let out = transport.output().to_vec();
        transport.sent(out.len());
        let said = !out.is_empty();
        self.deliver(Wire::EdgeFromAgent, out);
        Ok(any || said)
    }

    /// Lets bytes arrive, as far as the cut is not reached.
    fn deliver(&mut self, wire: Wire, mut bytes: Vec<u8>) {
        if let Some(cut) = self.cut.as_mut().filter(|cut| cut.wire == wire) {
            let rest = bytes.split_off(cut.left.min(bytes.len()));
            cut.left -= bytes.len();
            cut.held_back.extend(rest);
        }
        self.wires.of(wire).extend(bytes);
    }

    /// What was cut off arrives too.
    fn mend(&mut self) {
        if let Some(Cut { wire, held_back, .. }) = self.cut.take() {
            self.wires.of(wire).extend(held_back);
        }
    }

    fn settle(&mut self) {
        while self.step().unwrap() {}
    }

    /// The edge signs what the agent waits for, over the control link; false if that is nothing.
    fn sign(&mut self) -> bool {
        let Agent::Taken(transport) = &mut self.agent else { panic!("not taken") };
        let Some((algorithm, host_key, hash)) = transport.unsigned() else { return false };
        let signature = sign(&self.server, (algorithm, host_key), hash.as_bytes()).unwrap();
        let mut cx = Context { now: Instant(0), entropy: &mut self.random };
        transport.signed(&signature, &mut cx).unwrap();
        true
    }

    fn agent(&self) -> &Transport {
        let Agent::Taken(transport) = &self.agent else { panic!("not taken") };
        transport
    }

    fn is_raw(&self) -> bool {
        matches!(&self.edge, Edge::HandedOff(end) if end.is_raw())
    }
}

/// Logs `user` in and returns the proof.
fn log_in(pair: &mut Pair, user: &PrivateKey) -> ProvedKey {
    let copy = PrivateKey::from_openssh(&user.to_openssh("", &mut Seeded(1))).unwrap().0;
    let credential = Credential { key: Arc::new(copy), certificate: None };
    let mut login = pair.at_client(|t, cx| Login::start("root", &credential, t, cx)).unwrap();
    let (mut authenticator, policy) = (Authenticator::new(SOURCE), Policy::default());
    let gate = Only(user.public().clone());
    let mut proved = None;
    loop {
        pair.settle().unwrap();
        for payload in std::mem::take(&mut pair.server.payloads) {
            let step = pair
                .at_server(|t, cx| authenticator.receive(&payload, NOW_S, &policy, &gate, t, cx));
            if let Step::Proved(key) = step.unwrap() {
                pair.at_server(|t, cx| authenticator.accept(t, cx)).unwrap();
                proved = Some(key);
            }
        }
        pair.settle().unwrap();
        for payload in std::mem::take(&mut pair.client.payloads) {
            let step = pair.at_client(|t, cx| login.receive(&payload, t, cx)).unwrap();
            if step == LoginStep::Success {
                return *proved.expect("who is let in has proved a key");
            }
        }
    }
}

#[test]
fn a_session_is_handed_over_and_goes_on_both_ways_and_through_later_exchanges() {
    let mut seed = 0;
    for method in [Method::MlKem768X25519, Method::Curve25519, Method::EcdhP256, Method::EcdhP384] {
        for cipher in Cipher::ALL {
            seed += 1;
            let macs = if cipher.is_aead() { Mac::ALL[..1].to_vec() } else { Mac::ALL.to_vec() };
            let mut ciphers = vec![cipher];
            if seed % 2 == 0 {
                ciphers.push(Cipher::Aes256Gcm);
            }
            let gcm = ciphers.iter().any(|cipher| GCM.contains(cipher));
            let algorithms = Algorithms { methods: vec![method], ciphers, macs };
            let mut world = World::new(seed, &algorithms);
            world.settle();
            assert!(world.is_raw(), "{method:?} {cipher:?}");
            assert_eq!(GCM.contains(&world.agent().receive_cipher().unwrap()), gcm);
            for round in 0..3 {
                world.client_says(&text(b'c', 100 + round));
                world.vm_says(&text(b'v', 30_000 + round));
                world.settle();
            }
            let lens = |all: &[Vec<u8>]| all.iter().map(Vec::len).collect::<Vec<_>>();
            assert_eq!(lens(&world.at_agent), [100, 101, 102]);
            assert_eq!(lens(&world.at_client), [30_000, 30_001, 30_002]);
            assert!(world.raw.iter().all(|bytes| *bytes > 0));
        }
    }
}

#[test]
fn later_key_exchanges_go_on_with_a_signature_of_the_edge_whoever_starts_them() {
    let mut seed = 300;
    for method in [Method::MlKem768X25519, Method::Curve25519, Method::EcdhP256, Method::EcdhP384] {
        for cipher in [Cipher::Aes128Gcm, Cipher::Chacha20Poly1305] {
            seed += 1;
            let macs = Mac::ALL[..1].to_vec();
            let algorithms = Algorithms { methods: vec![method], ciphers: vec![cipher], macs };
            let mut world = World::new(seed, &algorithms);
            world.settle();
            for (number, by) in (0_u8..).zip([&[0][..], &[1], &[0, 1], &[1, 0], &[0], &[1]]) {
                for end in by {
                    // Neither has heard of the other's.
                    let mut cx = Context { now: Instant(0), entropy: &mut world.random };
                    let Agent::Taken(agent) = &mut world.agent else { panic!("not taken") };
                    let transport = if *end == 0 { &mut world.client } else { agent };
                    transport.rekey(None, &mut cx).unwrap();
                }
                world.settle();
                assert!(world.client.is_exchanging(), "{method:?} {number}");
                assert!(world.sign(), "{method:?} {number}");
                world.settle();
                assert!(!world.sign() && !world.client.is_exchanging(), "{method:?} {number}");
                world.client_says(&text(b'c', 100 + usize::from(number)));
                world.vm_says(&text(b'v', 200 + usize::from(number)));
                world.settle();
            }
            let lens = |all: &[Vec<u8>]| all.iter().map(Vec::len).collect::<Vec<_>>();
            assert_eq!(lens(&world.at_agent), (100..106).collect::<Vec<_>>());
            assert_eq!(lens(&world.at_client), (200..206).collect::<Vec<_>>());
        }
    }
}

/// Trap 28: whatever the client says around the moment arrives once and in order, wherever the
/// bytes of one direction stop for a while.
#[test]
fn nothing_is_lost_or_doubled_wherever_a_direction_is_cut() {
    let says: Vec<_> = (0..6_u8).map(|number| text(b'a' + number, 40)).collect();
    let mut crossings = 0;
    for wire in WIRES {
        let mut len = 0;
        loop {
            let seed = u64::try_from(len).unwrap();
            let mut world = World::quick(seed);
            let begun = std::mem::take(world.wires.of(wire));
            world.cut = Some(Cut::of(wire, len));
            world.deliver(wire, begun);
            world.to_say = says.iter().rev().cloned().collect();
            // Sometimes the client begins a key exchange of its own just then.
            if len % 3 == 0 {
                let mut cx = Context { now: Instant(0), entropy: &mut world.random };
                world.client.rekey(None, &mut cx).unwrap();
                crossings += 1;
            }
            world.settle();
            let was_cut = world.cut.as_ref().is_some_and(|cut| !cut.held_back.is_empty());
            world.mend();
            world.settle();
            assert!(world.is_raw(), "{wire:?} {len}");
            assert_eq!(world.at_agent, says, "{wire:?} {len}");
            world.vm_says(&text(b'v', 100));
            world.client_says(&text(b'z', 10));
            world.settle();
            assert_eq!(world.at_client, [text(b'v', 100)], "{wire:?} {len}");
            assert_eq!(world.at_agent.len(), says.len() + 1, "{wire:?} {len}");
            if !was_cut {
                break;
            }
            // OPEN is long, and nobody acts before all of it is there.
            len += if wire == Wire::Agent && (100..3000).contains(&len) { 97 } else { 1 };
        }
        assert!(len > 100, "{wire:?}: {len} bytes in all");
    }
    assert!(crossings > 100);
}

/// Trap 31: between the KEXINIT and its NEWKEYS the agent says nothing of the VM's.
#[test]
fn what_the_vm_says_meanwhile_waits_for_the_new_keys() {
    let mut world = World::quick(3);
    while !matches!(world.agent, Agent::Taken(_)) {
        world.step().unwrap();
    }
    for number in 0..20 {
        world.vm_says(&text(b'v', 100 + number));
    }
    world.settle();
    assert_eq!(world.at_client.len(), 20);
    assert!(world.is_raw());
}

#[test]
fn a_data_connection_that_was_tampered_with_ends_and_no_byte_of_it_is_believed() {
    for wire in [Wire::Agent, Wire::EdgeFromAgent] {
        for at in [0, 4, 20] {
            let mut world = World::quick(7);
            while world.wires.of(wire).len() < at + 1 {
                world.step().unwrap();
            }
            world.wires.of(wire)[at] ^= 0x10;
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                while world.step().unwrap() {}
            }));
            assert!(ended.is_err() || !world.is_raw(), "{wire:?} {at}");
        }
    }
}

/// The oracle signs what an exchange hash can be, and under our own algorithms.
#[test]
fn the_edge_signs_exact_lengths_and_its_own_algorithms_only() {
    for (len, algorithm, signs) in [
        (32, "ssh-ed25519", true),
        (48, "ssh-ed25519", true),
        (0, "ssh-ed25519", false),
        (31, "ssh-ed25519", false),
        (33, "ssh-ed25519", false),
        (64, "ssh-ed25519", false),
        (32, "rsa-sha2-512", false),
        (32, "ssh-rsa", false),
    ] {
        let mut world = World::quick(8);
        while matches!(world.edge, Edge::Asked(_)) {
            world.step().unwrap();
        }
        let mut sign = vec![number::SIGN];
        sign.put_string(algorithm.as_bytes());
        sign.put_string(&vec![7; len]);
        sign.put_string(b"Q_S");
        let Agent::Taken(transport) = &mut world.agent else { panic!("taken") };
        let mut cx = Context { now: Instant(0), entropy: &mut world.random };
        // As the agent would, in the framing that the edge still listens to.
        transport.seal_for_tests(&sign, &mut cx);
        let out = transport.output().to_vec();
        transport.sent(out.len());
        world.wires.edge_from_agent = out;
        let stepped = world.step_edge();
        assert_eq!(stepped.is_ok(), signs, "{len} {algorithm}: {stepped:?}");
    }
}

#[test]
fn an_agent_that_ends_the_session_before_the_switch_is_heard_by_the_client() {
    let mut world = World::quick(9);
    while !matches!(world.agent, Agent::Taken(_)) {
        world.step().unwrap();
    }
    let Agent::Taken(transport) = &mut world.agent else { panic!("taken") };
    let mut cx = Context { now: Instant(0), entropy: &mut world.random };
    transport.disconnect(message::Reason::ByApplication, "the VM is gone", &mut cx);
    let last = transport.output().to_vec();
    world.deliver(Wire::EdgeFromAgent, last);
    world.agent = Agent::Gone;
    let ended = loop {
        match world.step() {
            Ok(true) => {}
            Ok(false) => panic!("nobody heard of it"),
            Err(fault) => break fault,
        }
    };
    assert_eq!(ended, Fault::Disconnected { reason: message::Reason::ByApplication.code() });
    assert_eq!(world.client.last_words(100).as_deref(), Some("the VM is gone"));
}
