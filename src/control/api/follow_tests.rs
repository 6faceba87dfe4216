//! The feed over TLS, with the client that agents have.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Value, json};
use tokio_rustls::rustls::{ALL_VERSIONS, ClientConnection, StreamOwned};

use super::converse::CONNECTIONS_MAX;
use super::testing::{PATIENCE, World, head, key, read_reply, user};
use crate::control::feed::client::{self, Followed, Follows, Handle, Pins};
use crate::control::feed::{ALPN, PinAnswer, proof, version};
use crate::registry::Label;
use crate::route::saved_routes::{Head, Message};
use crate::route::{Change, Delta, FrontDoor};
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::PublicKey;
use crate::trust;

/// Shows what it is told.
struct Shows {
    head: Option<Head>,
    told: Sender<Message>,
}

impl Follows for Shows {
    fn known(&self) -> Option<Head> {
        self.head
    }

    fn take(&mut self, message: Message) -> Result<(), String> {
        match &message {
            Message::Snapshot(head, _) | Message::Delta(head, ..) => self.head = Some(*head),
            Message::FrontDoor(..) | Message::Denied(..) | Message::Asked(_) => {}
        }
        self.told.send(message).map_err(|_| "nobody looks".to_owned())
    }
}

struct Agent {
    told: Receiver<Message>,
    followed: Arc<Followed>,
    pins: Pins,
    _handle: Handle,
}

impl Agent {
    /// What it hears next that is no heartbeat.
    #[track_caller]
    fn next(&self) -> Message {
        loop {
            let message = self.told.recv_timeout(PATIENCE).expect("a message");
            let beats = |delta: &Delta| delta.changes.is_empty();
            if !matches!(&message, Message::Delta(_, _, delta) if beats(delta)) {
                return message;
            }
        }
    }
}

fn identity() -> Arc<PrivateKey> {
    Arc::new(PrivateKey::generate_ed25519(&mut SystemEntropy::default()))
}

/// An API over TLS, with alice and a node whose agent has `identity`.
fn world(identity: &PrivateKey) -> World {
    let world = World::over_tls();
    user(&world, "alice");
    let line = identity.public().to_line();
    let node = json!({"name": "n1", "agent": "10.0.0.21:7022", "agent_key": line, "trusted": true});
    world.must("POST", "/v1/nodes", &node);
    let revision = world.service.revision();
    world.hub.begin(Head { store: [7; 16], program: [8; 8], revision });
    world
}

fn vm(world: &World, name: &str, node: &str) {
    let vm = json!({
        "name": name, "owner": "alice", "ssh": "127.0.0.1:22", "no_address": true, "node": node,
    });
    world.must("POST", "/v1/vms", &vm);
}

fn follow(world: &World, identity: Arc<PrivateKey>) -> Agent {
    let (told, messages) = channel();
    let followed = Arc::new(Followed::default());
    let url = format!("https://localhost:{}", world.handle.address().unwrap().port());
    let ca = world.scratch.0.join("one.crt");
    let (pins, asked) = client::pins();
    let shows = Box::new(Shows { head: None, told });
    let heard = Arc::clone(&followed);
    let handle = client::start((&url, Some(&ca)), identity, shows, heard, asked).unwrap();
    Agent { told: messages, followed, pins, _handle: handle }
}

#[test]
fn an_agent_hears_everything_of_its_node_and_then_what_changes() {
    let identity = identity();
    let world = world(&identity);
    world.must("POST", "/v1/nodes", &json!({"name": "n2"}));
    vm(&world, "blue", "n1");
    vm(&world, "green", "n2");
    world.hub.edges(vec![[3; 32]]);
    // Whoever tells the rest says nothing of them.
    world.hub.front_door(FrontDoor::default());
    let agent = follow(&world, identity);
    let Message::FrontDoor(_, told) = agent.next() else { panic!("no front door") };
    assert_eq!(told.edges, [[3; 32]]);
    let Message::Snapshot(_, contents) = agent.next() else { panic!("not everything") };
    let names: Vec<_> = contents.vms.iter().map(|entry| entry.vm.name.as_str()).collect();
    assert_eq!(names, ["blue"]);
    assert_eq!((contents.users.len(), contents.nodes.len()), (1, 1));
    assert_eq!(world.hub.gauges().followers, 1);
    vm(&world, "red", "n1");
    let red = world.service.read(|model| {
        let contents = model.contents();
        let red = contents.vms.into_iter().find(|entry| entry.vm.name == "red").unwrap();
        let delta = Delta { changes: vec![Change::PutVm(red.clone())] };
        world.hub.change(model.revision(), &delta, &Delta::default, model);
        red
    });
    let Message::Delta(head, _, delta) = agent.next() else { panic!("no change") };
    assert_eq!(delta.changes, [Change::PutVm(red)]);
    assert_eq!(head.revision, world.service.revision());
    assert!(agent.followed.is_connected());
    // The token of a role is good for none of it, nor is a stranger's key.
    let token = world.token("ops", "admin");
    let reply = world.send_tls(Some(&token), "GET", "/v1/feed", &Value::Null);
    assert_eq!((reply.status, reply.code().as_deref()), (401, Some("unauthenticated")));
    assert_eq!(world.get("/v1/feed").status, 401);
}

/// What somebody is told who shows that it holds `identity`: here, or at another connection.
fn asks(world: &World, identity: &PrivateKey, here: bool) -> (u16, Option<String>) {
    let connect = || {
        let certificate = world.scratch.0.join("one.crt");
        let mut stream = world.connect_tls(&certificate, ALL_VERSIONS);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        let exporter = proof::exporter(&stream.conn).unwrap();
        (stream, exporter)
    };
    let (mut stream, mut exporter) = connect();
    if !here {
        (_, exporter) = connect();
    }
    let shown = proof::authorization(identity, &exporter).unwrap();
    let shown = format!("authorization: {}", shown.to_str().unwrap());
    let question = head("POST", "/v1/feed/pins", &[&shown], b"?");
    stream.write_all(question.as_bytes()).unwrap();
    stream.write_all(b"?").unwrap();
    let reply = read_reply(stream);
    (reply.status, reply.code())
}

#[test]
fn a_stranger_and_a_proof_of_another_connection_are_refused() {
    let identity = identity();
    let world = world(&identity);
    let code = |code: &str| Some(code.to_owned());
    assert_eq!(asks(&world, &identity, true), (400, code("bad-request")));
    assert_eq!(asks(&world, &identity, false), (401, code("unauthenticated")));
    assert_eq!(asks(&world, &self::identity(), true), (403, code("forbidden")));
}

#[test]
fn who_has_lost_its_node_hears_no_more() {
    let identity = identity();
    let world = world(&identity);
    let agent = follow(&world, identity);
    agent.next();
    agent.next();
    world.must("PATCH", "/v1/nodes/n1", &json!({"agent_key": key()}));
    world.service.read(|model| {
        let node = model.contents().nodes.remove(0);
        let delta = Delta { changes: vec![Change::PutNode(node)] };
        world.hub.change(model.revision(), &delta, &Delta::default, model);
    });
    let end = std::time::Instant::now() + PATIENCE;
    while world.hub.gauges().followers > 0 || agent.followed.is_connected() {
        assert!(std::time::Instant::now() < end, "it is followed still");
        std::thread::yield_now();
    }
}

#[test]
fn a_key_that_a_vm_shows_first_is_pinned_on_the_agents_own_node_alone() {
    let identity = identity();
    let world = world(&identity);
    world.must("POST", "/v1/nodes", &json!({"name": "n2"}));
    vm(&world, "blue", "n1");
    vm(&world, "green", "n2");
    let agent = follow(&world, identity);
    let id = |name: &str| {
        world.service.read(|model| {
            let (_, stored) = model.vm_named(&Label::new(name).unwrap()).unwrap();
            stored.document.id.clone()
        })
    };
    let pin = |name: &str, key: &str| {
        agent.pins.pin(&id(name), ("alice", "127.0.0.1:22"), key.to_owned())
    };
    let (first, other) = (key(), key());
    assert_eq!(pin("blue", &first), PinAnswer::Pinned);
    assert_eq!(pin("blue", &first), PinAnswer::Pinned);
    assert_eq!(pin("blue", &other), PinAnswer::Other);
    assert_eq!(pin("green", &first), PinAnswer::Failed("node n1 has no such VM".to_owned()));
    let contents = world.service.read(crate::registry::Model::contents);
    let blue = contents.vms.into_iter().find(|entry| entry.vm.name == "blue").unwrap();
    let (wanted, _) = PublicKey::parse_line(&first).unwrap();
    assert_eq!(blue.vm.host_key.unwrap().key().unwrap(), wanted.blob());
}

/// A connection over TLS that says it follows, and nothing more.
fn arrives(world: &World) -> StreamOwned<ClientConnection, TcpStream> {
    let certificate = world.scratch.0.join("one.crt");
    let mut tls = trust::client_config(Some(&certificate)).unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let name = "localhost".try_into().unwrap();
    let client = ClientConnection::new(Arc::new(tls), name).unwrap();
    let mut stream = StreamOwned::new(client, world.connect_tcp());
    stream.conn.complete_io(&mut stream.sock).unwrap();
    stream
}

#[test]
fn however_many_say_they_follow_nobody_else_makes_room_for_them() {
    let identity = identity();
    let world = world(&identity);
    let certificate = world.scratch.0.join("one.crt");
    let mut early = world.connect_tls(&certificate, ALL_VERSIONS);
    early.conn.complete_io(&mut early.sock).unwrap();
    let _all: Vec<_> = (0..=CONNECTIONS_MAX).map(|_| arrives(&world)).collect();
    early.write_all(head("GET", "/v1/status", &[], b"").as_bytes()).unwrap();
    assert_eq!(read_reply(early).status, 401, "it is there still, and has no token");
    let agent = follow(&world, identity);
    assert!(matches!(agent.next(), Message::FrontDoor(..)));
}

#[test]
fn a_connection_that_says_it_follows_is_good_for_nothing_else() {
    let world = world(&identity());
    let token = format!("authorization: Bearer {}", world.token("ops", "admin"));
    for path in ["/v1/vms", "/v1/feed/no"] {
        let mut stream = arrives(&world);
        stream.write_all(head("GET", path, &[&token], b"").as_bytes()).unwrap();
        let reply = read_reply(stream);
        assert_eq!((reply.status, reply.code().as_deref()), (403, Some("forbidden")), "{path}");
    }
}

#[test]
fn a_follower_of_another_version_is_told_which_end_to_upgrade() {
    let identity = identity();
    let world = world(&identity);
    let ask = |query: &str| {
        let mut stream = arrives(&world);
        let exporter = proof::exporter(&stream.conn).unwrap();
        let shown = proof::authorization(&identity, &exporter).unwrap();
        let shown = format!("authorization: {}", shown.to_str().unwrap());
        let path = format!("/v1/feed{query}");
        stream.write_all(head("GET", &path, &[&shown], b"").as_bytes()).unwrap();
        let reply = read_reply(stream);
        (reply.status, reply.code().unwrap(), reply.json()["detail"].as_str().unwrap().to_owned())
    };
    let (oldest, newest) = (version::SPOKEN.start(), version::SPOKEN.end());
    let (status, code, detail) = ask(&format!("?speaks=1-{}", oldest - 1));
    assert_eq!((status, &*code), (409, "feed-version"));
    assert!(detail.contains("upgrade the follower"), "{detail}");
    let (status, code, detail) = ask(&format!("?speaks={}-{}", newest + 1, newest + 2));
    assert_eq!((status, &*code), (409, "feed-version"));
    assert!(detail.contains("upgrade the front door first"), "{detail}");
    for wrong in ["", "?speaks=x"] {
        assert_eq!(ask(wrong).0, 400, "{wrong}");
    }
}
