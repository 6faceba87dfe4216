//! A registry that is like one of a large edge host, in a store.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::{BASE64_STANDARD, Engine};
use keyway::registry::document::{
    Access, Address, AddressState, Agent, Node, Origin, Serial, Team, User, UserKey, Vm, VmState,
};
use keyway::registry::store::{
    OPERATIONS_MAX, Sqlite, Store, StoreId, TRANSACTION_BYTES_MAX, Transaction,
};
use keyway::registry::{Document, Key, Label, Principal};
use keyway::ssh::entropy::Entropy;
use keyway::ssh::private_key::PrivateKey;
use keyway::ssh::publickey::Fingerprint;

pub(crate) const USERS: u64 = 200_000;
const TEAMS: u64 = 20_000;
const ADDRESSES: u64 = 1_000;
/// Users of a team; one in a hundred teams has a thousand. A user is in one team of a kind at most.
const MEMBERS: u64 = 8;
const LARGE_EVERY: u64 = 100;
const LARGE_MEMBERS: u64 = 1_000;
/// One VM in so many belongs to a team.
const TEAM_EVERY: u64 = 10;
/// Where VMs of users, of teams and of large teams stand: nobody sees two at one address.
const OF_USERS: u64 = 700;
const OF_TEAMS: u64 = 150;
/// Transactions written together.
const GROUP: usize = 256;

pub(crate) fn label(letter: char, number: u64) -> Label {
    Label::new(&format!("{letter}{number}")).unwrap()
}

/// The splitmix64 of a number.
pub(crate) fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn address(number: u64) -> Address {
    let ip = Ipv4Addr::from(0x0a00_0000 + u32::try_from(number).unwrap());
    Address {
        public: IpAddr::V4(ip),
        public6: None,
        private: None,
        lobby: false,
        state: AddressState::Ready,
        origin: Origin::Command,
    }
}

/// The blob of a key of the shape of an Ed25519 one.
pub(crate) fn blob(number: u64) -> Vec<u8> {
    let key = (0..4).flat_map(|at| mixed(number * 4 + at).to_le_bytes());
    b"\0\0\0\x0bssh-ed25519\0\0\0\x20".iter().copied().chain(key).collect()
}

/// A user with a key of the shape of an Ed25519 one.
fn user(number: u64) -> User {
    let blob = blob(number);
    let fingerprint = Fingerprint(digest(&SHA256, &blob).as_ref().try_into().unwrap());
    let key = UserKey {
        fingerprint: fingerprint.to_string(),
        options: String::new(),
        key: format!("ssh-ed25519 {}", BASE64_STANDARD.encode(&blob)),
        comment: format!("u{number}@example"),
    };
    User { keys: vec![key], ..User::default() }
}

fn team(number: u64) -> Team {
    let (first, count) = match number.checked_rem(LARGE_EVERY) {
        Some(0) => (number / LARGE_EVERY * LARGE_MEMBERS, LARGE_MEMBERS),
        _ => (number * MEMBERS, MEMBERS),
    };
    let members = (first..first + count).map(|user| (label('u', user), Access::Slot)).collect();
    Team { members, ..Team::default() }
}

fn vm(number: u64, nodes: u64) -> Vm {
    let (group, turn) = (number / TEAM_EVERY, number % TEAM_EVERY);
    let (owner, at) = if turn == 0 {
        let (team, nth) = (group % TEAMS, group / TEAMS);
        let large = team.is_multiple_of(LARGE_EVERY);
        let first = if large { OF_USERS + OF_TEAMS } else { OF_USERS };
        (Principal::Team(label('t', team)), first + (mixed(team) + nth) % OF_TEAMS)
    } else {
        let own = group * (TEAM_EVERY - 1) + turn - 1;
        let (user, nth) = (own % USERS, own / USERS);
        (Principal::User(label('u', user)), (mixed(user) + nth) % OF_USERS)
    };
    let name = label('v', number);
    // Every VM was entered once.
    let pin = format!("ssh-ed25519 {}", BASE64_STANDARD.encode(blob(USERS + number)));
    Vm {
        id: name.to_string(),
        name,
        owner,
        shares: BTreeMap::new(),
        address: Some(label('s', at)),
        old: Vec::new(),
        ssh: format!("10.{}.{}.{}:22", (number >> 16) & 255, (number >> 8) & 255, number & 255),
        login: None,
        host_key: None,
        source_address: None,
        pin: Some(pin.into()),
        pinned_s: 1_790_000_000,
        node: (nodes > 0).then(|| label('n', node_of(number, nodes))),
        carry: keyway::route::Carry::Auto,
        state: VmState::Ready,
        origin: Origin::Command,
    }
}

/// On which of so many nodes a VM lies.
pub(crate) fn node_of(vm: u64, nodes: u64) -> u64 {
    mixed(vm) % nodes
}

/// The identity of a node's agent.
pub(crate) fn identity(node: u64) -> PrivateKey {
    struct Of(u64);
    impl Entropy for Of {
        fn fill(&mut self, out: &mut [u8]) {
            let bytes = (0..).flat_map(|at| mixed(self.0 << 8 | at).to_le_bytes());
            out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte);
        }
    }
    PrivateKey::generate_ed25519(&mut Of(node))
}

fn node(number: u64) -> Node {
    let at = SocketAddr::from(([10, 255, 0, 1], 7022));
    let key = identity(number).public().fingerprint().to_string();
    Node { agent: Some(Agent { at, key: Some(key) }), trusted: true, ..Node::default() }
}

/// So many VMs, each on one of so many nodes, or on none.
pub(crate) fn fill(path: &Path, vms: u64, nodes: u64) {
    let began = Instant::now();
    let store = Sqlite::open(path, StoreId([7; 16])).unwrap();
    let addresses = (0..ADDRESSES)
        .map(|number| (Key::Address(label('s', number)), Document::Address(address(number))));
    let users =
        (0..USERS).map(|number| (Key::User(label('u', number)), Document::User(user(number))));
    let teams =
        (0..TEAMS).map(|number| (Key::Team(label('t', number)), Document::Team(team(number))));
    let hosts = (0..nodes)
        .map(|number| (Key::Node(label('n', number)), Document::Node(Box::new(node(number)))));
    let all = (0..vms)
        .map(|number| (Key::Vm(Serial(mixed(number))), Document::Vm(Box::new(vm(number, nodes)))));
    let mut group = vec![Transaction::new()];
    let mut bytes = 0;
    for (key, document) in addresses.chain(users).chain(teams).chain(hosts).chain(all) {
        let (key, json) = (key.to_string(), document.to_json());
        bytes += key.len() + json.len();
        let last = group.last_mut().unwrap();
        if last.puts.len() == OPERATIONS_MAX || bytes > TRANSACTION_BYTES_MAX {
            bytes = key.len() + json.len();
            if group.len() == GROUP {
                write(&store, &mut group);
            }
            group.push(Transaction::new());
        }
        group.last_mut().unwrap().puts.push((key, json));
    }
    write(&store, &mut group);
    let head = store.head().unwrap();
    // As after a month: what watchers needed once is forgotten.
    store.compact(head.revision).unwrap();
    drop(store);
    let mb = fs::metadata(path).unwrap().len() / 1_000_000;
    println!(
        "{vms} VMs of {USERS} users and {TEAMS} teams at {ADDRESSES} addresses written in {:.1?}: {mb} MB",
        began.elapsed()
    );
}

fn write(store: &Sqlite, group: &mut Vec<Transaction>) {
    assert!(store.transact_all(group).iter().all(Result::is_ok));
    group.clear();
}

pub(crate) fn open(path: &Path) -> (Sqlite, StoreId) {
    let store = Sqlite::open(path, StoreId([7; 16])).unwrap();
    let id = store.head().unwrap().store_id;
    (store, id)
}
