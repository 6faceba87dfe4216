//! The lobby as a stock client sees it: of somebody with thousands of VMs, and of people who lose
//! their right to it.

use std::fs;
use std::num::NonZeroU32;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use keyway::edge::first_use::{FirstUse, Shown};
use keyway::edge::local_address::Destination;
use keyway::edge::proxy_header::Senders;
use keyway::edge::relay::{ClientAlive, PreferGcm};
use keyway::edge::seats::Most;
use keyway::edge::settings::{Live, Settings, VmCredential};
use keyway::edge::shared::Shared;
use keyway::edge::{Edge, Start, listen};
use keyway::host;
use keyway::metrics::{Inventory, Registry};
use keyway::route::{
    AddressEntry, Carry, Contents, KeyEntry, Snapshot, SourceAddress, Table, UserEntry, Vm, VmEntry,
};
use keyway::ssh::host_key::HostKey;
use keyway::ssh::private_key::PrivateKey;
use keyway::ssh::publickey::PublicKey;
use keyway::ssh::transport::{Algorithms, RekeyLimits, ServerConfig};
use keyway::ssh::userauth::Policy;

use crate::harness::{Key, Process, Scratch, World, peers, run, wait};
use crate::operations::offline;

const MANY: usize = 16_000;

/// Nobody enters a VM here.
struct Nobody;

impl FirstUse for Nobody {
    fn shown(&self, _: &Vm, _: &PublicKey) -> Shown {
        Shown::Failed { why: String::new() }
    }
}

fn key(key: &Key) -> PrivateKey {
    let text = fs::read_to_string(key.path()).expect("a key");
    PrivateKey::from_openssh(&text).expect("a key").0
}

/// Alice may enter all of them.
fn contents(alice: &PrivateKey) -> Contents {
    let vm = |number: usize| Vm {
        id: format!("vm-{number}"),
        name: format!("vm-{number:05}-of-the-build-farm-in-the-east"),
        owner: "alice".into(),
        endpoint: "127.0.0.1:22".into(),
        login: None,
        host_key: None,
        source_address: None,
        address: None,
        closed: false,
        carry: Carry::Auto,
        node: None,
    };
    let user = KeyEntry::plain(alice.public().fingerprint().0);
    let by_name = |vm| VmEntry { vm, slots: Vec::new(), by_name: vec!["alice".into()] };
    Contents {
        addresses: vec![AddressEntry {
            name: "lobby".into(),
            public: [127, 0, 77, 9].into(),
            public6: None,
            private: None,
            lobby: true,
            closed: false,
        }],
        users: vec![UserEntry { name: "alice".into(), keys: vec![user], closed: false }],
        teams: Vec::new(),
        nodes: Vec::new(),
        vms: (0..MANY).map(vm).map(by_name).collect(),
    }
}

#[test]
fn sixteen_thousand_vms_are_listed_whole_by_a_stock_client() {
    if World::is_passed_by() {
        return;
    }
    let dir = Scratch::new();
    let (alice, host_key) = (Key::ed25519(dir.path(), "alice"), Key::ed25519(dir.path(), "host"));
    let host_key = HostKey { key: key(&host_key), certificate: None };
    let settings = Settings {
        login_grace: Duration::from_mins(1),
        senders: Senders::new(Vec::new()),
        destination: Destination::Socket,
        seats: Most { sessions: 2, per_user: 1, per_vm: 1 },
        dial_timeout: Duration::from_secs(1),
        networks: Vec::new(),
        prefer_gcm: PreferGcm::Never,
        client_alive: ClientAlive { interval: Duration::ZERO, count_max: 0 },
        zone: None,
    };
    let live = Live {
        server: Arc::new(ServerConfig::new(
            vec![host_key],
            Algorithms::default(),
            RekeyLimits::default(),
        )),
        policy: Arc::new(Policy { attempts_max: 6, ..Policy::default() }),
        credential: VmCredential::Identity(Arc::new(key(&alice))),
        source_address: SourceAddress::Own,
    };
    let table = Table::new();
    table.apply(Snapshot::new(contents(&key(&alice))).expect("sound"));
    let cpus = host::cpus().expect("CPUs")[..1].to_vec();
    let start = Start {
        doors: listen::reserve(&[([127, 0, 77, 9], 0).into()], &cpus, false).expect("a port"),
        beside: 0,
        cpus,
        half_open_max: NonZeroU32::new(8).expect("not 0"),
        shared: Arc::new(Shared::new(settings, live, table, Arc::new(Nobody))),
    };
    let edge = Edge::start(start, &Registry::new(0, Inventory::default)).expect("an edge");
    let port = edge.addresses()[0].port();
    let ssh = |command: &[&str]| {
        let program = peers::program("openssh", "ssh").expect("no test runs without OpenSSH");
        run(Command::new(program)
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=/dev/null"])
            .arg("-i")
            .arg(alice.path())
            .args(["-p", &port.to_string(), "alice@127.0.77.9"])
            .args(command))
        .ok()
        .text()
    };
    let text = ssh(&[]);
    assert!(text.len() > 1 << 20, "{} bytes are no test", text.len());
    let names: Vec<_> = text.lines().skip(1).map(|line| line.split(' ').next()).collect();
    assert_eq!(names.len(), MANY);
    assert!(names.is_sorted() && names[MANY - 1].is_some_and(|name| name.starts_with("vm-15999-")));
    let json: serde_json::Value = serde_json::from_str(&ssh(&["--", "--json"])).expect("JSON");
    assert_eq!(json.as_array().map(Vec::len), Some(MANY));
    drop(edge);
}

fn sessions(world: &World) -> Vec<serde_json::Value> {
    let text = offline(world, &["session", "list", "--output", "json"]).ok().stdout;
    let all: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    all.as_array().expect("a list").clone()
}

/// A visitor who asks for nothing yet, and what a list of sessions says of the visit.
fn visitor(world: &World, user: &str) -> (Process, serde_json::Value) {
    let visits = || sessions(world).into_iter().find(|it| it["user"] == user);
    wait::until("an earlier visit is over", wait::SOON, || visits().is_none());
    let mut ssh = world.target(user, "lobby").openssh("ssh");
    let socket = world.path(&format!("{user}-master"));
    let master = ssh.args(["-N", "-M", "-S"]).arg(socket).arg("door");
    let client = Process::start(&format!("{user}-visits"), world.dir(), master);
    let mut seen = None;
    wait::until("the visit is in the list", wait::SOON, || {
        seen = visits();
        seen.is_some()
    });
    (client, seen.expect("just seen"))
}

#[track_caller]
fn ends_with_words(mut visitor: Process, words: &str) {
    wait::until("the visit ends", wait::SOON, || visitor.has_ended());
    assert!(visitor.log().contains(words), "{}", visitor.log());
}

#[test]
fn a_visitor_is_listed_judged_again_and_shown_out_with_words() {
    if World::is_passed_by() {
        return;
    }
    let plan = World::plan().address("s001").lobby("lobby").user("alice").user("bob");
    let plan = plan.vm("blue", "alice", "s001").vm("green", "bob", "s001");
    let mut world = plan.edge("drain_s = 1").start();
    let (alice, seen) = visitor(&world, "alice");
    let text = |key: &str| seen[key].as_str();
    assert_eq!(
        (text("state"), text("vm"), text("address")),
        (Some("lobby"), Some(""), Some("lobby"))
    );
    assert_eq!(text("fingerprint"), Some(&*world.key("alice").fingerprint()));
    offline(&world, &["session", "kill", text("id").expect("an id")]).ok();
    ends_with_words(alice, "an operator ended this session with the lobby");
    wait::until("she is gone from the list", wait::SOON, || sessions(&world).is_empty());

    // Whose right gives less now, or nothing.
    let (alice, _) = visitor(&world, "alice");
    let (bob, _) = visitor(&world, "bob");
    fs::write(
        world.path("line.pub"),
        format!("from=\"10.9.9.9\" {}\n", world.key("alice").public_line()),
    )
    .expect("a file");
    let line = world.path("line.pub").display().to_string();
    offline(&world, &["key", "set", "alice", &line]).ok();
    ends_with_words(alice, "rights of your key at the lobby were narrowed");
    offline(
        &world,
        &["key", "set", "alice", &world.key("alice").public_path().display().to_string()],
    )
    .ok();
    let (alice, _) = visitor(&world, "alice");
    offline(&world, &["key", "rm", "alice", &world.key("alice").fingerprint()]).ok();
    ends_with_words(alice, "your access to the lobby was taken away");
    let refused = world.target("alice", "lobby").ssh(&[], "list").ends(255);
    assert!(refused.stderr.contains("Permission denied"), "{}", refused.stderr);

    // Nobody else noticed: bob gets his list on the connection that he has.
    let socket = world.path("bob-master").display().to_string();
    let list = world.target("bob", "lobby").ssh(&["-S", &socket], "list").ok().text();
    assert!(list.contains("green") && !list.contains("blue"), "{list}");
    drop(bob);
    let (bob, _) = visitor(&world, "bob");
    world.drain(&world.target("bob", "lobby"));
    ends_with_words(bob, "going down for maintenance");
    for cause in ["killed", "right_narrowed", "right_lost", "drained"] {
        let line = format!("\"side\":\"operator\",\"stage\":\"lobby\",\"cause\":\"{cause}\"");
        wait::until(cause, wait::SOON, || world.log().contains(&line));
    }
}
