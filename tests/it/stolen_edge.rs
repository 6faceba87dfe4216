//! What somebody can do with the identity of an edge, and cannot: an agent believes nothing that it
//! can compute, and every frame that is none ends its connection and nothing else.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use keyway::route::{Carry, Vm};
use keyway::ssh::certificate::Restrictions;
use keyway::ssh::digest::sha256;
use keyway::ssh::entropy::{Entropy as _, SystemEntropy};
use keyway::ssh::handoff::{Asked, CLAIM_ID_BYTES, Claim, OPEN_LENGTH_MAX, Said};
use keyway::ssh::host_key::HostKey;
use keyway::ssh::kex::Method;
use keyway::ssh::packet::{Opener, Sealer};
use keyway::ssh::private_key::PrivateKey;
use keyway::ssh::publickey::SignatureAlgorithm;
use keyway::ssh::transport::{
    Algorithms, ClientConfig, Context, Event, Instant, RekeyLimits, ServerConfig, Transport,
};
use keyway::ssh::userauth::{
    Authenticator, Credential, Gate, Identity, Login, LoginStep, Offer, Pass, Policy, ProvedKey,
    Step,
};
use keyway::ssh::wire::{Put as _, Reader};

use crate::harness::client::{Client, private_key};
use crate::harness::{Key, Target, World, wait};
use crate::signing::hup_agent;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
/// The proof among the strings of OPEN.
const REQUEST: usize = 8;

/// Alice has blue and red, bob has green where alice has blue.
fn world() -> Option<World> {
    (!World::is_passed_by()).then(|| World::two_users_plan().handed().start())
}

/// As an edge at the agent's door.
#[track_caller]
fn link(world: &World) -> Client {
    let (at, key) = (world.agent_at(), Key::at(world.path("state/identity")));
    let (host, login) = (at.ip().to_string(), "keyway-edge".to_owned());
    let target = world.target("alice", "s001");
    Client::logs_in(&Target { host, port: at.port(), login, key, ..target })
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Lets everybody in: this edge is nobody's any more.
struct Open;

impl Gate for Open {
    fn judge_offer(&self, offer: &Offer<'_>) -> Option<Pass> {
        let identity = Identity::Key(offer.subject.fingerprint());
        Some(Pass { identity, restrictions: Restrictions::default() })
    }
}

/// One end of a connection in memory.
struct End {
    transport: Transport,
    inbox: Vec<u8>,
}

impl End {
    /// The next message, if any.
    fn hear(&mut self, entropy: &mut SystemEntropy) -> Option<Vec<u8>> {
        loop {
            let mut cx = Context { now: Instant(0), entropy };
            let received = self.transport.receive(&mut self.inbox, &mut cx).expect("in order");
            let message = received.event.payload(&self.inbox).to_vec();
            self.inbox.drain(..received.used);
            match received.event {
                Event::Payload(_) => return Some(message),
                Event::Starved => return None,
                Event::Secured | Event::Handled | Event::Rekeyed | Event::Unimplemented(_) => {}
            }
        }
    }

    fn pass(from: &mut Self, to: &mut Self) {
        let out = from.transport.output();
        to.inbox.extend_from_slice(out);
        let len = out.len();
        from.transport.sent(len);
    }
}

/// A user logs in with `key` at a front door that shows `host_key`, at `said_s`.
fn logged_in(host_key: PrivateKey, key: &Key, said_s: u64) -> (Transport, Box<ProvedKey>) {
    let (limits, mut entropy) = (RekeyLimits::default(), SystemEntropy::default());
    let algorithms = Algorithms { methods: vec![Method::Curve25519], ..Algorithms::default() };
    let host_keys = vec![HostKey { key: host_key, certificate: None }];
    let server = ServerConfig::new(host_keys, algorithms.clone(), limits);
    let client = ClientConfig::new(&SignatureAlgorithm::ALL, algorithms, limits);
    let mut cx = Context { now: Instant(0), entropy: &mut entropy };
    let end = |transport| End { transport, inbox: Vec::new() };
    let mut server = end(Transport::server_for_handoff(Arc::new(server), said_s, &mut cx));
    let mut client = end(Transport::client(Arc::new(client), &mut cx));
    let credential = Credential { key: Arc::new(private_key(key)), certificate: None };
    let (mut authenticator, policy) = (Authenticator::new(CLIENT), Policy::default());
    let (mut login, mut proved) = (None, None);
    loop {
        End::pass(&mut client, &mut server);
        while let Some(message) = server.hear(&mut entropy) {
            let mut cx = Context { now: Instant(0), entropy: &mut entropy };
            let transport = &mut server.transport;
            let step = authenticator.receive(&message, now_s(), &policy, &Open, transport, &mut cx);
            if let Step::Proved(key) = step.expect("in order") {
                authenticator.accept(transport, &mut cx).expect("in order");
                proved = Some(key);
            }
        }
        End::pass(&mut server, &mut client);
        while let Some(message) = client.hear(&mut entropy) {
            let mut cx = Context { now: Instant(0), entropy: &mut entropy };
            let login: &mut Login = login.as_mut().expect("a message in its place");
            let step = login.receive(&message, &mut client.transport, &mut cx);
            if step.expect("in order") == LoginStep::Success {
                return (server.transport, proved.expect("who is let in has proved a key"));
            }
        }
        if login.is_none() && client.transport.session_id().is_some() {
            let mut cx = Context { now: Instant(0), entropy: &mut entropy };
            let login_name = crate::harness::target::login();
            let begun = Login::start(&login_name, &credential, &mut client.transport, &mut cx);
            login = Some(begun.expect("in order"));
        }
    }
}

/// What the edge says of a session beside what can be computed.
struct Details<'a> {
    dialled: IpAddr,
    vm: &'a str,
    owner: &'a str,
    endpoint: SocketAddr,
}

impl Details<'_> {
    fn encoded(&self) -> Vec<u8> {
        let vm = Vm {
            id: self.vm.to_owned(),
            name: self.vm.to_owned(),
            owner: self.owner.to_owned(),
            endpoint: self.endpoint.to_string(),
            login: None,
            host_key: None,
            source_address: None,
            address: None,
            closed: false,
            carry: Carry::Auto,
            node: Some("n1".into()),
        };
        let mut out = Vec::new();
        out.put_u64(7);
        let client = SocketAddr::new(CLIENT, 4711).to_string();
        for text in [client, self.dialled.to_string(), self.vm.to_owned()] {
            out.put_string(text.as_bytes());
        }
        out.put_bytes(&sha256(&vm.entry()));
        out
    }
}

/// OPEN of a session at a front door.
fn open(host_key: PrivateKey, key: &Key, said_s: u64, details: &Details<'_>) -> Vec<u8> {
    let (mut transport, proved) = logged_in(host_key, key, said_s);
    let mut entropy = SystemEntropy::default();
    let claim = Claim::generate(&mut entropy);
    let encoded = claim.encoded();
    let (request, mut opening) = (proved.request(transport.host_key()), Vec::new());
    let mut cx = Context { now: Instant(0), entropy: &mut entropy };
    let said = (&request[..], &details.encoded()[..]);
    let asked = Asked::begin(&mut transport, claim, said, None, &mut opening, &mut cx);
    assert!(asked.is_ok(), "nothing was said since");
    let (mut opener, _) = Claim::parse(&encoded).expect("a claim").at_agent();
    let mut frame = opening.split_off(CLAIM_ID_BYTES);
    let whole = opener.open(&mut frame, OPEN_LENGTH_MAX).expect("a frame").expect("whole");
    frame[whole.payload].to_vec()
}

/// An OPEN with another string in one place.
fn with_field(open: &[u8], place: usize, field: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(&open[2..]);
    let mut out = open[..2].to_vec();
    for number in 0..11 {
        let own = reader.string().expect("OPEN has eleven strings");
        out.put_string(if number == place { field } else { own });
    }
    out.extend_from_slice(&open[open.len() - 8..]);
    out
}

fn field(open: &[u8], place: usize) -> Vec<u8> {
    let mut reader = Reader::new(&open[2..]);
    let mut fields = (0..11).map(|_| reader.string().expect("OPEN has eleven strings").to_vec());
    fields.nth(place).expect("a place")
}

/// A data connection that the agent was told of: its id, and the edge's ends.
struct Line {
    id: [u8; CLAIM_ID_BYTES],
    from_agent: Opener,
    to_agent: Sealer,
}

impl Line {
    fn announced(link: &mut Client) -> Self {
        let encoded = Claim::generate(&mut SystemEntropy::default()).encoded();
        link.say(&Said::Claim(&encoded).message());
        // The other end's keys are one's own with both directions changed.
        let (id, keys) = encoded.split_at(CLAIM_ID_BYTES);
        let (first, second) = keys.split_at(keys.len() / 2);
        let changed = Claim::parse(&[id, second, first].concat()).expect("a claim");
        let id = changed.id;
        let (from_agent, to_agent) = changed.at_agent();
        Self { id, from_agent, to_agent }
    }

    /// What the data connection begins with.
    fn opening(&mut self, open: &[u8]) -> Vec<u8> {
        let mut out = self.id.to_vec();
        self.to_agent.seal(open, &mut SystemEntropy::default(), &mut out).expect("fresh keys");
        out
    }

    /// What the agent says; `None` if it just closes.
    fn answer(&mut self, mut stream: TcpStream) -> Option<String> {
        let (mut bytes, mut block) = (Vec::new(), [0; 4096]);
        loop {
            let found = self.from_agent.open(&mut bytes, 8192).expect("from the agent");
            if let Some(opened) = found {
                let mut reader = Reader::new(&bytes[opened.payload]);
                return Some(match reader.u8().expect("a message") {
                    225 => "ready".to_owned(),
                    _ => String::from_utf8_lossy(reader.string().expect("a reason")).into_owned(),
                });
            }
            match stream.read(&mut block) {
                Ok(0) | Err(_) => return None,
                Ok(len) => bytes.extend_from_slice(&block[..len]),
            }
        }
    }
}

fn dial(world: &World) -> TcpStream {
    let stream = TcpStream::connect(world.agent_at()).expect("the agent");
    stream.set_read_timeout(Some(wait::SOON)).expect("a setting");
    stream
}

/// Alice's pool address, and her VM behind it.
fn of_blue(world: &World) -> (IpAddr, SocketAddr) {
    let dialled = world.target("alice", "s001").host.parse().expect("an address");
    let blue = world.vms.iter().find(|vm| vm.name == "blue").expect("a VM of the plan");
    (dialled, blue.address)
}

/// What the agent makes of each of these sessions. All wait for its map at the same time.
fn answers(world: &World, link: &mut Client, opens: &[Vec<u8>]) -> Vec<Option<String>> {
    let asked: Vec<_> = opens
        .iter()
        .map(|open| {
            let (mut data, mut stream) = (Line::announced(link), dial(world));
            stream.write_all(&data.opening(open)).expect("sent");
            (data, stream)
        })
        .collect();
    asked.into_iter().map(|(mut data, stream)| data.answer(stream)).collect()
}

#[test]
fn a_stolen_edge_brings_nobody_in_who_has_not_just_logged_in_here() {
    let Some(world) = world() else { return };
    let mut link = link(&world);
    let host_key = || private_key(&world.key("edge_host_key"));
    let (alice, bob) = (world.key("alice"), world.key("bob"));
    let s001 = world.target("alice", "s001").host.parse().expect("an address");
    let endpoint = |name| {
        let vm = world.vms.iter().find(|vm| vm.name == name);
        vm.expect("a VM of the plan").address
    };
    let to = |vm, owner| Details { dialled: s001, vm, owner, endpoint: endpoint(vm) };
    let now = now_s();
    let good = open(host_key(), &alice, now, &to("blue", "alice"));
    let another = open(host_key(), &alice, now, &to("blue", "alice"));
    assert_eq!(answers(&world, &mut link, std::slice::from_ref(&good)), [Some("ready".to_owned())]);

    let stranger = Key::ed25519(world.dir(), "stranger");
    let other_server = PrivateKey::generate_ed25519(&mut SystemEntropy::default());
    let nowhere = Details { dialled: CLIENT, ..to("blue", "alice") };
    let mut forged = field(&another, REQUEST);
    *forged.last_mut().expect("a signature") ^= 1;
    let cases = [
        (good.clone(), "handed over before"),
        (open(other_server, &alice, now, &to("blue", "alice")), "not one of this front door's"),
        (open(host_key(), &stranger, now, &to("blue", "alice")), "lets nobody in there"),
        (open(host_key(), &bob, now, &to("blue", "alice")), "leads to another VM"),
        (open(host_key(), &alice, now, &to("green", "bob")), "leads to another VM"),
        (open(host_key(), &alice, now, &to("red", "alice")), "leads to another VM"),
        (open(host_key(), &alice, now, &nowhere), "not in this agent's pool"),
        (open(host_key(), &alice, now - 15 * 60 - 5, &to("blue", "alice")), "too old"),
        (open(host_key(), &alice, now + 5 * 60, &to("blue", "alice")), "too old, or the clocks"),
        // Proofs of other sessions, and none.
        (with_field(&another, REQUEST, &field(&good, REQUEST)), "lets nobody in there"),
        (with_field(&another, REQUEST, &forged), "lets nobody in there"),
        (with_field(&another, REQUEST, b""), "lets nobody in there"),
        (another[..another.len() - 1].to_vec(), "malformed OPEN"),
    ];
    let opens: Vec<_> = cases.iter().map(|(open, _)| open.clone()).collect();
    for (answer, (_, expected)) in answers(&world, &mut link, &opens).iter().zip(&cases) {
        let answer = answer.as_deref().unwrap_or_default();
        assert!(answer.contains(expected), "{answer} is not: {expected}");
    }
    // What was refused for its proof has used up nothing of the session; twice at once is once.
    let mut twice = answers(&world, &mut link, &[another.clone(), another]);
    twice.sort();
    let expected = ["ready", "this session was handed over before"];
    assert_eq!(twice, expected.map(|it| Some(it.to_owned())));
}

/// By the agent's map: whatever the edge says, a VM that the agent is not to carry is not entered.
#[test]
fn a_vm_that_is_not_the_agents_to_carry_is_not_entered_through_it() {
    let Some(mut world) = world() else { return };
    let (dialled, endpoint) = of_blue(&world);
    let details = Details { dialled, vm: "blue", owner: "alice", endpoint };
    let fleet = world.path("fleet.toml");
    let before = std::fs::read_to_string(&fleet).expect("the fleet");
    let own = world.identity("agent.toml", &["--fingerprint"]);
    let others = world.identity("keyway.toml", &["--fingerprint"]);
    let relayed = before.replace("node = \"n1\"\n", "node = \"n1\"\ncarry = \"relay\"\n");
    for now in [relayed, before.replace(&own, &others)] {
        std::fs::write(&fleet, &now).expect("the fleet");
        hup_agent(&mut world);
        let mut link = link(&world);
        let open =
            open(private_key(&world.key("edge_host_key")), &world.key("alice"), now_s(), &details);
        let answer = answers(&world, &mut link, &[open]).remove(0).unwrap_or_default();
        assert!(answer.contains("its VM is not this agent's to carry"), "{answer}");
    }
}

#[test]
fn a_proof_that_was_used_stays_so_when_the_agent_is_killed_and_when_it_is_replaced() {
    let Some(mut world) = world() else { return };
    let (dialled, endpoint) = of_blue(&world);
    let details = Details { dialled, vm: "blue", owner: "alice", endpoint };
    let open =
        || open(private_key(&world.key("edge_host_key")), &world.key("alice"), now_s(), &details);
    let [first, second] = [open(), open()];
    let records = |world: &World| {
        let about = std::fs::metadata(world.path("agent_state/used_proofs"));
        about.map_or(0, |about| about.len() / 24)
    };
    let ready = [Some("ready".to_owned())];
    assert_eq!(answers(&world, &mut link(&world), std::slice::from_ref(&first)), ready);
    wait::until("its record", wait::SOON, || records(&world) == 1);
    world.restart_agent();
    let again = |world: &World, open: &Vec<u8>| {
        let answer = answers(world, &mut link(world), std::slice::from_ref(open)).remove(0);
        assert_eq!(answer.as_deref(), Some("this session was handed over before"));
    };
    again(&world, &first);
    assert_eq!(answers(&world, &mut link(&world), std::slice::from_ref(&second)), ready);
    wait::until("its record", wait::SOON, || records(&world) == 2);
    let _before = world.replace_agent();
    again(&world, &first);
    again(&world, &second);
}

#[test]
fn frames_that_are_cut_off_or_forged_end_their_connection_and_use_up_nothing() {
    let Some(mut world) = world() else { return };
    let mut link = link(&world);
    let (dialled, endpoint) = of_blue(&world);
    let details = Details { dialled, vm: "blue", owner: "alice", endpoint };
    let host_key = private_key(&world.key("edge_host_key"));
    let open = open(host_key, &world.key("alice"), now_s(), &details);
    let mut data = Line::announced(&mut link);
    let mut opening = data.opening(&open);
    // Cut off at every byte. Some at a time: each is looked at once its FIN is there, and an
    // announcement does not hold for ever.
    let lens: Vec<usize> = (1..opening.len()).collect();
    for some in lens.chunks(200) {
        data = Line::announced(&mut link);
        opening = data.opening(&open);
        let begun = some.iter().map(|&len| {
            let mut stream = dial(&world);
            stream.write_all(&opening[..len]).expect("sent");
            stream.shutdown(Shutdown::Write).expect("still there");
            (stream, len)
        });
        for (mut stream, len) in begun.collect::<Vec<_>>() {
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "cut off behind {len} bytes");
        }
    }
    // Changed anywhere behind the id: here, and there.
    for at in (CLAIM_ID_BYTES..opening.len()).step_by(97) {
        let mut forged = opening.clone();
        forged[at] ^= 1;
        let mut stream = dial(&world);
        stream.write_all(&forged).expect("sent");
        // A length that became longer waits for more.
        stream.shutdown(Shutdown::Write).expect("still there");
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "changed at {at}");
    }
    // Of whom nobody has heard.
    let mut unheard = [0; CLAIM_ID_BYTES];
    SystemEntropy::default().fill(&mut unheard[1..]);
    let mut stream = dial(&world);
    stream.write_all(&[&unheard[..], &opening[CLAIM_ID_BYTES..]].concat()).expect("sent");
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);

    let mut stream = dial(&world);
    stream.write_all(&opening).expect("sent");
    let again = dial(&world);
    assert_eq!(data.answer(stream).as_deref(), Some("ready"));
    (&again).write_all(&opening).expect("sent");
    assert_eq!(data.answer(again), None, "an announcement is for one connection");

    // On the link: an agent ends it, and takes the next.
    let claim = Said::Claim(b"too short").message();
    for wrong in [&claim[..], &Said::Leaving.message(), &claim[..claim.len() - 3], &[90, 0, 0]] {
        link.say(wrong);
        while link.hear().is_ok() {}
        link = self::link(&world);
    }
    // An answer to nothing is late, not wrong.
    link.say(&Said::Signed { ticket: 99, signature: b"x" }.message());
    let _data = Line::announced(&mut link);
    assert!(!world.agent().has_ended());
    assert_eq!(world.target("alice", "s001").ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
}
