//! The lobby of somebody with thousands of VMs, as a stock client sees it.

use crate::harness::{Key, Scratch, World, peers, run};
use keyway::{
    edge::{
        Edge, Start, limits, listen,
        local_address::Destination,
        proxy_header::Senders,
        relay::{ClientAlive, PreferGcm},
        seats::Most,
        shared::{FirstUse, Live, Settings, Shared, Shown, VmCredential},
    },
    metrics::{Inventory, Registry},
    route::{
        AddressEntry, Contents, KeyEntry, Snapshot, SourceAddress, Table, UserEntry, Vm, VmEntry,
    },
    ssh::{
        hostkey::{HostKey, PrivateKey},
        publickey::PublicKey,
        transport::{Algorithms, RekeyLimits, ServerConfig},
        userauth::Policy,
    },
};
use std::{fs, num::NonZeroU32, process::Command, sync::Arc, time::Duration};

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
        vms: (0..MANY).map(vm).map(by_name).collect(),
    }
}

#[test]
fn sixteen_thousand_vms_are_listed_whole_by_a_stock_client() {
    if World::is_direct() {
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
    let cpus = limits::cpus().expect("CPUs")[..1].to_vec();
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
