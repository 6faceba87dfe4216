//! Tests of `edge` as a whole.

use std::fs;

use super::*;
use crate::edge::clock::monotonic_ms;
use crate::edge::first_use::{FirstUse, Shown};
use crate::edge::local_address::Destination;
use crate::edge::proxy_header::Senders;
use crate::edge::pump::Session;
use crate::edge::pump::tests::{Peer, carriage};
use crate::edge::relay::{ClientAlive, PreferGcm};
use crate::edge::report::{Proved, Report, RequestId};
use crate::edge::seats::Most;
use crate::edge::settings::{Settings, VmCredential};
use crate::host;
use crate::metrics::Inventory;
use crate::route::{
    AddressEntry, Admission, Carry, Change, Contents, KeyEntry, Snapshot, SourceAddress, Table,
    UserEntry, Vm, VmEntry, Who,
};
use crate::ssh::cipher::Cipher;
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::message::CHANNEL_DATA;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::publickey::PublicKey;
use crate::ssh::testing::server_config;
use crate::ssh::transport::{Algorithms, RekeyLimits};
use crate::ssh::userauth::{Policy, Presented};

/// No VM is reached here.
struct Nobody;

impl FirstUse for Nobody {
    fn shown(&self, _: &Vm, _: &PublicKey) -> Shown {
        Shown::Failed { why: String::new() }
    }
}

pub(in crate::edge) fn shared() -> Shared {
    shared_with(Arc::new(Nobody))
}

/// What shards share, with somebody else who pins.
pub(in crate::edge) fn shared_with(first_use: Arc<dyn FirstUse>) -> Shared {
    let settings = Settings {
        login_grace: Duration::from_secs(1),
        senders: Senders::new(Vec::new()),
        destination: Destination::Socket,
        seats: Most { sessions: 8, per_user: 8, per_vm: 8 },
        dial_timeout: Duration::from_secs(1),
        networks: Vec::new(),
        prefer_gcm: PreferGcm::Never,
        client_alive: ClientAlive { interval: Duration::ZERO, count_max: 0 },
        zone: None,
    };
    let key = PrivateKey::generate_ed25519(&mut SystemEntropy::default());
    let live = Live {
        server: server_config(1, Algorithms::default(), RekeyLimits::default()),
        policy: Arc::new(Policy::default()),
        credential: VmCredential::Identity(Arc::new(key)),
        source_address: SourceAddress::Own,
    };
    Shared::new(settings, live, Table::new(), first_use)
}

fn key_of(key: &PrivateKey) -> KeyEntry {
    KeyEntry::plain(key.public().fingerprint().0)
}

fn user(name: &str, key: &PrivateKey) -> Change {
    Change::PutUser(UserEntry { name: name.into(), keys: vec![key_of(key)], closed: false })
}

/// One address, and a VM there for each of `owners`.
pub(in crate::edge) fn contents(owners: &[(&str, &PrivateKey)]) -> Contents {
    let vm = |owner: &str| Vm {
        id: format!("{owner}-1"),
        name: format!("{owner}-vm"),
        owner: owner.into(),
        endpoint: "127.0.0.1:22".into(),
        login: None,
        host_key: None,
        source_address: None,
        address: Some("s001".into()),
        closed: false,
        carry: Carry::Auto,
        node: None,
    };
    let user = |(name, key): &(&str, &PrivateKey)| UserEntry {
        name: (*name).into(),
        keys: vec![key_of(key)],
        closed: false,
    };
    Contents {
        addresses: vec![AddressEntry {
            name: "s001".into(),
            public: [127, 0, 77, 1].into(),
            public6: None,
            private: None,
            lobby: false,
            closed: false,
        }],
        users: owners.iter().map(user).collect(),
        teams: Vec::new(),
        nodes: Vec::new(),
        vms: owners.iter().map(|(owner, _)| VmEntry::owned(vm(owner), "s001")).collect(),
    }
}

/// A session as the door hands it over: admitted now, established when it is carried.
fn admitted(seed: u64, shared: &Arc<Shared>, key: &PrivateKey) -> (Peer, Peer, Session<Info>) {
    let fingerprint = key.public().fingerprint();
    let place = shared.table.address([127, 0, 77, 1].into()).unwrap();
    let admission = shared.table.admit(Who::Key(fingerprint.0), &place, "me");
    let Some(Admission::Vm(admitted)) = admission else {
        panic!("the key has a VM");
    };
    let mut report = Report::new(RequestId(seed), ([192, 0, 2, 1], 1).into(), 0);
    report.who = Some(Proved {
        fingerprint,
        login: "me".into(),
        presented: Arc::new(Presented::Key(key.public().clone())),
        grant: Arc::default(),
    });
    let seat = shared.take_seat(&admitted.user, &admitted.vm.id).ok().unwrap();
    report.admitted = Some(admitted);
    let info = Info { report, presence: shared.enter(), seat, handed: None };
    let (client, vm, carriage) = carriage(seed, Cipher::Aes128Gcm);
    (client, vm, Session { carriage, info, started_ms: monotonic_ms() })
}

/// An edge of one shard, at a port that the kernel chose.
pub(in crate::edge) fn started(shared: &Arc<Shared>) -> Edge {
    let start = Start {
        doors: listen::reserve(&[([127, 0, 77, 1], 0).into()], &[0], false).unwrap(),
        beside: 0,
        cpus: host::cpus().unwrap()[..1].to_vec(),
        half_open_max: NonZeroU32::new(64).unwrap(),
        shared: Arc::clone(shared),
    };
    Edge::start(start, &Registry::new(0, Inventory::default)).unwrap()
}

#[test]
fn a_delta_ends_who_lost_the_right_and_whoever_was_admitted_before_and_comes_after_it() {
    let shared = Arc::new(shared());
    let [alice, bob, other] =
        std::array::from_fn(|_| PrivateKey::generate_ed25519(&mut SystemEntropy::default()));
    shared.table.apply(Snapshot::new(contents(&[("alice", &alice), ("bob", &bob)])).unwrap());
    let edge = started(&shared);
    let pump = &edge.shards[0].pump;
    let goes_on = |client: &mut Peer, vm: &mut Peer, count: usize| {
        client.send(&[CHANNEL_DATA, 5]);
        assert_eq!(vm.wait_for(count).len(), count);
    };
    let change = |changes| edge.change(Delta { changes }).unwrap().takes_away;

    let (mut hers, mut her_vm, session) = admitted(1, &shared, &alice);
    assert!(pump.carry(session).is_ok());
    let (mut his, mut his_vm, session) = admitted(2, &shared, &bob);
    assert!(pump.carry(session).is_ok());
    let (mut late, mut late_vm, half_way) = admitted(3, &shared, &alice);
    let (mut last, vm_of_later, also_half_way) = admitted(4, &shared, &alice);

    // Another name for her VM, and one more user: nobody loses anything.
    let mut renamed = contents(&[("alice", &alice)]).vms.remove(0);
    renamed.vm.name = "azure".into();
    let rename = vec![Change::RemoveVm("alice-vm".into()), Change::PutVm(renamed)];
    assert!(!change(rename));
    assert!(!change(vec![user("carol", &other)]));
    goes_on(&mut hers, &mut her_vm, 1);
    assert!(pump.carry(half_way).is_ok());
    goes_on(&mut late, &mut late_vm, 1);

    assert!(change(vec![Change::PutUser(UserEntry {
        name: "alice".into(),
        keys: Vec::new(),
        closed: false
    })]));
    for client in [&mut hers, &mut late] {
        assert!(client.wait_for_goodbye().contains("was taken away"));
    }
    // Established only now.
    assert!(pump.carry(also_half_way).is_ok());
    assert!(last.wait_for_goodbye().contains("was taken away"));
    goes_on(&mut his, &mut his_vm, 1);
    drop((hers, her_vm, late, late_vm, last, vm_of_later));
    drop((his, his_vm));

    // A refused delta changes nothing.
    let before = shared.table.revision();
    assert!(edge.change(Delta { changes: vec![user("alice", &bob)] }).is_err());
    assert_eq!(shared.table.revision(), before);
    drop(edge);
}

#[test]
fn a_line_that_gives_less_ends_the_session_with_words_and_one_that_gives_more_does_not() {
    let shared = Arc::new(shared());
    let key = PrivateKey::generate_ed25519(&mut SystemEntropy::default());
    shared.table.apply(Snapshot::new(contents(&[("alice", &key)])).unwrap());
    let edge = started(&shared);
    let set = |options: Option<&str>| {
        let options = options.map(Arc::from);
        let keys = vec![KeyEntry { options, ..key_of(&key) }];
        let put = Change::PutUser(UserEntry { name: "alice".into(), keys, closed: false });
        edge.change(Delta { changes: vec![put] }).unwrap();
    };
    for (seed, less, words) in [
        (11, "from=\"10.9.9.9\"", "were narrowed"),
        (12, "restrict,command=\"true\"", "were narrowed"),
        (13, "expiry-time=\"20200101\"", "is over"),
    ] {
        set(None);
        let (mut client, mut vm, session) = admitted(seed, &shared, &key);
        assert!(edge.shards[0].pump.carry(session).is_ok());
        set(Some("expiry-time=\"21000101\""));
        set(None);
        client.send(&[CHANNEL_DATA, 5]);
        assert_eq!(vm.wait_for(1).len(), 1, "more ends nothing");
        set(Some(less));
        let text = client.wait_for_goodbye();
        assert!(text.contains(words), "{less}: {text}");
    }
}

/// How many threads of this process have this name.
fn threads(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|of| of.trim_end() == name).count()
}

#[test]
fn a_shard_that_does_not_start_leaves_no_thread_behind() {
    let registry = Registry::new(0, Inventory::default);
    let client_alive = ClientAlive { interval: Duration::ZERO, count_max: 0 };
    let settings = pump::Settings { cpu: None, prefer_gcm: PreferGcm::Never, client_alive };
    let (door, shared) = (registry.counters(), Arc::new(shared()));
    let words = words(&shared);
    let pump = pump::spawn("pump-x".into(), settings, registry.counters(), words, ended);
    // Nobody can wait for a file: epoll refuses it.
    let file = std::os::fd::OwnedFd::from(fs::File::open("/proc/self/stat").unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = listen::Listener { socket: file.into(), address };
    let started = Shard::start(77, 0, vec![listener], shared, door, pump.unwrap(), NonZeroU32::MIN);
    assert!(started.is_err());
    assert_eq!((threads("door-77"), threads("pump-x")), (0, 0));
}
