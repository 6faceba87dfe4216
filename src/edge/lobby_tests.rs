//! Tests of `lobby`: lists message by message, through transports joined in memory.

use std::net::TcpStream;

use super::*;
use crate::edge::Progress;
use crate::edge::attended::Attended;
use crate::edge::executor::tests::{accepted, acceptor, run};
use crate::edge::gate::Grant;
use crate::edge::report::{Proved, RequestId};
use crate::edge::running::tests::{contents, shared};
use crate::edge::settings::Live;
use crate::metrics::Counters;
use crate::route::{AddressEntry, Carry, Contents, KeyEntry, Snapshot, Table, UserEntry, VmEntry};
use crate::ssh::authorized_keys::KeyOptions;
use crate::ssh::message;
use crate::ssh::private_key::PrivateKey;
use crate::ssh::revocation::Revocations;
use crate::ssh::testing::{Pair, Seeded};
use crate::ssh::userauth::{Policy, Presented};
use crate::ssh::wire::{Put, Reader};

/// More text than any transport holds: some 1.2 MB as a table.
const MANY: usize = 16_000;

fn vm(name: &str) -> Vm {
    Vm {
        id: name.into(),
        name: name.into(),
        owner: "alice".into(),
        endpoint: "127.0.0.1:22".into(),
        login: None,
        host_key: None,
        source_address: None,
        address: None,
        closed: false,
        carry: Carry::Auto,
        node: None,
    }
}

fn live(vms: Vec<VmEntry>) -> Table {
    let user = |name: &str, key| UserEntry {
        name: name.into(),
        keys: vec![KeyEntry::plain([key; 32])],
        closed: false,
    };
    let contents = Contents {
        addresses: vec![AddressEntry {
            name: "s001".into(),
            public: [127, 0, 77, 1].into(),
            public6: None,
            private: None,
            lobby: false,
            closed: false,
        }],
        users: vec![user("alice", 1), user("bob", 2)],
        teams: Vec::new(),
        nodes: Vec::new(),
        vms,
    };
    let table = Table::new();
    table.apply(Snapshot::new(contents).unwrap());
    table
}

fn by_name(name: &str) -> VmEntry {
    VmEntry { vm: vm(name), slots: Vec::new(), by_name: vec!["alice".into()] }
}

fn share() -> Share {
    Shares::take(&Arc::default(), &Arc::from("alice"), 1).ok().unwrap()
}

/// All pages.
fn whole(table: &Table, user: &str, format: Format) -> String {
    whole_in(None, table, user, format)
}

fn whole_in(zone: Option<&str>, table: &Table, user: &str, format: Format) -> String {
    let mut list = List::new(table.visible(user), zone.map(Arc::from), format, share());
    std::iter::from_fn(|| list.page()).collect()
}

#[test]
fn a_user_sees_names_and_where_to_connect() {
    let table = live(vec![VmEntry::owned(vm("blue"), "s001"), by_name("longer-name")]);
    let expected = "VM           OWNER  ADDRESS    CONNECT TO\n\
                    blue         alice  s001       127.0.77.1\n\
                    longer-name  alice  (by name)  user+longer-name@\n";
    assert_eq!(whole(&table, "alice", Format::Table), expected);
    assert_eq!(
        whole(&table, "alice", Format::Json),
        "[{\"name\":\"blue\",\"owner\":\"alice\",\"address\":\"s001\",\"public\":\"127.0.77.1\",\"host\":null,\"maintenance\":false},\
         {\"name\":\"longer-name\",\"owner\":\"alice\",\"address\":null,\"public\":null,\"host\":null,\"maintenance\":false}]\n"
    );
}

#[test]
fn in_a_zone_vms_are_shown_by_their_host_names_and_maintenance_is_marked() {
    let named = |name| Vm { address: Some("s001".into()), ..vm(name) };
    let shown = |vms, format| whole_in(Some("example.test"), &live(vms), "alice", format);
    let vms = vec![VmEntry::owned(named("blue"), "s001"), by_name("grey")];
    let text = shown(vms, Format::Table);
    assert!(text.contains("s001       blue.example.test\n"), "{text}");
    assert!(text.contains("(by name)  user+grey@\n"), "an address is what a name leads to: {text}");
    // A name that leads to another address would lead to another VM of this user, or to none.
    let text = shown(vec![VmEntry::owned(vm("blue"), "s001")], Format::Table);
    assert!(text.ends_with(" 127.0.77.1\n"), "{text}");

    let closed = || vec![VmEntry::owned(Vm { closed: true, ..named("red") }, "s001")];
    let table = shown(closed(), Format::Table);
    assert!(table.ends_with("s001     red.example.test (in maintenance)\n"), "{table}");
    let json = shown(closed(), Format::Json);
    assert!(json.ends_with("\"host\":\"red.example.test\",\"maintenance\":true}]\n"), "{json}");
}

#[test]
fn a_user_without_vms_is_told_so() {
    let table = live(Vec::new());
    assert_eq!(whole(&table, "bob", Format::Table), "You have no VMs here yet.\n");
    assert_eq!(whole(&table, "bob", Format::Json), "[]\n");
}

#[test]
fn pages_make_one_list_however_many_there_are() {
    for count in [1, PAGE_VMS - 1, PAGE_VMS, PAGE_VMS + 1, 2 * PAGE_VMS] {
        let names: Vec<_> = (0..count).map(|number| format!("vm-{number:05}")).collect();
        let table = live(names.iter().map(|name| by_name(name)).collect());
        let text = whole(&table, "alice", Format::Table);
        let told: Vec<_> =
            text.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(told, names);
        let text = whole(&table, "alice", Format::Json);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json.as_array().unwrap().len(), count);
    }
}

/// A visitor and the lobby, and what the visitor has heard.
struct Visit {
    pair: Pair,
    lobby: Lobby,
    heard: Vec<u8>,
    heard_stderr: Vec<u8>,
    status: Option<u32>,
}

impl Visit {
    fn new() -> Self {
        let (pair, lobby) = (Pair::connected(7), Lobby::new());
        Self { pair, lobby, heard: Vec::new(), heard_stderr: Vec::new(), status: None }
    }

    fn send(&mut self, message: &[u8]) -> Option<Step> {
        self.pair.at_client(|client, cx| client.send(message, cx)).unwrap();
        self.pair.settle().unwrap();
        let mut step = None;
        for payload in std::mem::take(&mut self.pair.server.payloads) {
            let lobby = &mut self.lobby;
            step = self.pair.at_server(|server, cx| lobby.receive(&payload, server, cx)).unwrap();
        }
        step
    }

    /// A channel with `window`, and a command in it.
    fn ask(&mut self, window: u32, command: &str) -> Option<Step> {
        let mut open = vec![message::CHANNEL_OPEN];
        open.put_string(b"session");
        open.put_u32(9);
        open.put_u32(window);
        open.put_u32(32 << 10);
        self.send(&open);
        let mut exec = vec![message::CHANNEL_REQUEST];
        exec.put_u32(0);
        exec.put_string(b"exec");
        exec.put_bool(true);
        exec.put_string(command.as_bytes());
        self.send(&exec)
    }

    fn give(&mut self, window: u32) -> Option<Step> {
        let mut adjust = vec![message::CHANNEL_WINDOW_ADJUST];
        adjust.put_u32(0);
        adjust.put_u32(window);
        self.send(&adjust)
    }

    /// One turn of the lobby; what it sealed is bounded, and heard.
    fn turn(&mut self) -> Told {
        let lobby = &mut self.lobby;
        let told = self.pair.at_server(|server, cx| lobby.tell(server, cx)).unwrap();
        let waiting = self.pair.server.transport.output().len();
        assert!(waiting <= OUTPUT_MAX + MESSAGE_BYTES + 1024, "{waiting} bytes wait");
        self.pair.settle().unwrap();
        for payload in std::mem::take(&mut self.pair.client.payloads) {
            let mut reader = Reader::new(&payload);
            match reader.u8().unwrap() {
                message::CHANNEL_DATA => {
                    reader.u32().unwrap();
                    self.heard.extend_from_slice(reader.string().unwrap());
                }
                message::CHANNEL_EXTENDED_DATA => {
                    reader.u32().unwrap();
                    reader.u32().unwrap();
                    self.heard_stderr.extend_from_slice(reader.string().unwrap());
                }
                message::CHANNEL_REQUEST => {
                    reader.u32().unwrap();
                    reader.string().unwrap();
                    reader.bool().unwrap();
                    self.status = Some(reader.u32().unwrap());
                }
                _ => {}
            }
        }
        told
    }
}

fn many() -> Table {
    live((0..MANY).map(|number| by_name(&format!("vm-{number:05}-with-a-long-name"))).collect())
}

#[test]
fn thousands_of_vms_are_told_whole_and_little_waits_whatever_the_window() {
    let table = many();
    let expected = whole(&table, "alice", Format::Table);
    assert!(expected.len() > 1 << 20);
    let mut visit = Visit::new();
    assert_eq!(visit.ask(u32::MAX, "list"), Some(Step::List));
    visit.lobby.show(List::new(table.visible("alice"), None, Format::Table, share()));
    while visit.turn() == Told::Page {}
    assert_eq!(visit.status, Some(0));
    assert!(visit.heard == expected.as_bytes(), "the list has changed on its way");
}

#[test]
fn a_small_window_is_kept_to_and_opens_the_rest() {
    let table = live((0..1000).map(|number| by_name(&format!("vm-{number:05}"))).collect());
    let expected = whole(&table, "alice", Format::Json);
    let mut visit = Visit::new();
    assert_eq!(visit.ask(100, "--json"), Some(Step::List));
    visit.lobby.show(List::new(table.visible("alice"), None, Format::Json, share()));
    assert_eq!(visit.turn(), Told::Nothing);
    assert_eq!(visit.heard.len(), 100);
    while visit.status.is_none() {
        let before = visit.heard.len();
        assert_eq!(visit.give(1000), Some(Step::Again));
        assert_eq!(visit.turn(), Told::Nothing);
        assert!(visit.heard.len() <= before + 1000);
    }
    assert!(visit.heard == expected.as_bytes());
    let mut close = vec![message::CHANNEL_CLOSE];
    close.put_u32(0);
    assert_eq!(visit.send(&close), Some(Step::Over));
}

#[test]
fn somebody_who_closes_is_told_nothing_more() {
    let table = many();
    let mut visit = Visit::new();
    visit.ask(10, "list");
    visit.lobby.show(List::new(table.visible("alice"), None, Format::Table, share()));
    visit.turn();
    let mut close = vec![message::CHANNEL_CLOSE];
    close.put_u32(0);
    visit.send(&close);
    assert_eq!(visit.turn(), Told::Nothing);
    assert!(!visit.lobby.is_telling());
}

#[test]
fn what_cannot_be_listed_is_said_on_stderr() {
    let mut visit = Visit::new();
    assert_eq!(visit.ask(1000, "list"), Some(Step::List));
    visit.lobby.refuse(BUSY);
    assert_eq!(visit.turn(), Told::Nothing);
    assert_eq!((visit.heard_stderr.as_slice(), visit.status), (BUSY.as_bytes(), Some(1)));
    let mut visit = Visit::new();
    assert_eq!(visit.ask(1000, "reboot"), Some(Step::Again));
    visit.turn();
    assert_eq!((visit.heard_stderr.as_slice(), visit.status), (USAGE.as_bytes(), Some(2)));
}

#[test]
fn whoever_reads_too_slowly_has_no_time_left_and_whoever_reads_gets_more() {
    let mut lobby = Lobby::new();
    let mut patience = Patience::new();
    assert!(patience.rest(&lobby) > READ_WAIT, "a visit of somebody who reads nothing");
    // The time is over, and not enough was read.
    lobby.written = READ_BYTES - 1;
    patience.until_ms = 0;
    assert_eq!(patience.rest(&lobby), Duration::ZERO);
    // One byte more begins the next stretch, from what was read by now.
    lobby.written = READ_BYTES;
    let rest = patience.rest(&lobby);
    assert!(!rest.is_zero() && rest <= READ_WAIT, "{rest:?}");
    lobby.written = 2 * READ_BYTES - 1;
    patience.until_ms = 0;
    assert_eq!(patience.rest(&lobby), Duration::ZERO);
    lobby.written = 2 * READ_BYTES;
    assert!(!patience.rest(&lobby).is_zero());
}

#[test]
fn a_user_has_few_lists_at_a_time_and_each_counts_until_it_is_told_or_given_up() {
    let table = many();
    let (lists, alice) = (Arc::<Shares>::default(), Arc::from("alice"));
    let take = || Shares::take(&lists, &alice, LISTS_MAX);
    let mut visits: Vec<Visit> = (0..LISTS_MAX)
        .map(|_| {
            let mut visit = Visit::new();
            visit.ask(10, "list");
            let share = take().ok().unwrap();
            visit.lobby.show(List::new(table.visible("alice"), None, Format::Table, share));
            visit.turn();
            visit
        })
        .collect();
    assert_eq!(take().err(), Some(LISTS_MAX));
    assert!(
        Shares::take(&lists, &Arc::from("bob"), LISTS_MAX).is_ok(),
        "somebody else's are their own"
    );
    // One is closed, one is told to its end, and one visitor is gone.
    let mut close = vec![message::CHANNEL_CLOSE];
    close.put_u32(0);
    visits[0].send(&close);
    visits[0].turn();
    visits[1].give(u32::MAX - 10);
    while visits[1].turn() == Told::Page {}
    assert_eq!(visits[1].status, Some(0));
    visits.pop();
    let free: Vec<_> = std::iter::from_fn(|| take().ok()).collect();
    assert_eq!(free.len(), 3);
}

/// Alice at the lobby, with a key of this line; bob has a key too.
struct Right {
    shared: Arc<Shared>,
    contents: Contents,
    keys: [PrivateKey; 2],
    visitor: Report,
}

impl Right {
    fn with(options: Option<&str>) -> Self {
        let keys = [1, 2].map(|seed| PrivateKey::generate_ed25519(&mut Seeded(seed)));
        let shared = Arc::new(shared());
        let mut contents = contents(&[("alice", &keys[0]), ("bob", &keys[1])]);
        contents.addresses.push(AddressEntry {
            name: "home".into(),
            public: [127, 0, 77, 9].into(),
            public6: None,
            private: None,
            lobby: true,
            closed: false,
        });
        contents.users[0].keys[0].options = options.map(Arc::from);
        let mut visitor = Report::new(RequestId(1), ([192, 0, 2, 1], 1).into(), 0);
        let key = keys[0].public();
        let fingerprint = key.fingerprint();
        let line = KeyOptions::parse(options.unwrap_or_default()).unwrap();
        visitor.who = Some(Proved {
            fingerprint,
            login: "me".into(),
            presented: Arc::new(Presented::Key(key.clone())),
            grant: Arc::new(Grant { restrictions: line.restrictions, user_verified: false }),
        });
        visitor.user = Some("alice".into());
        visitor.dialled = Some([127, 0, 77, 9].into());
        let right = Self { shared, contents, keys, visitor };
        right.apply();
        right
    }

    fn apply(&self) {
        self.shared.table.apply(Snapshot::new(self.contents.clone()).unwrap());
    }

    /// What becomes of her next list after a change.
    fn then(mut self, change: impl FnOnce(&mut Contents)) -> Result<(), Refusal> {
        change(&mut self.contents);
        self.apply();
        make(&self.shared, &self.visitor, Format::Table, share()).map(drop)
    }
}

#[test]
fn a_list_is_made_for_whoever_may_still_come_and_for_nobody_else() {
    let set = |options: &'static str| {
        move |it: &mut Contents| it.users[0].keys[0].options = Some(options.into())
    };
    let with = || Right::with(None);
    assert_eq!(with().then(|_| {}), Ok(()));
    assert_eq!(with().then(|it| it.users[0].keys.clear()), Err(Refusal::NotRegistered));
    let gone = with().then(|it| {
        it.users.remove(0);
        it.vms.remove(0);
    });
    assert_eq!(gone, Err(Refusal::NotRegistered));
    let his = with().then(|it| {
        let hers = std::mem::take(&mut it.users[0].keys);
        it.users[1].keys.extend(hers);
    });
    assert_eq!(his, Err(Refusal::Forbidden), "the key is bob's now, and so would be the list");
    assert_eq!(with().then(set("from=\"10.9.9.9\"")), Err(Refusal::From));
    assert_eq!(with().then(set("from=\"192.0.2.0/24\"")), Ok(()));
    assert_eq!(with().then(set("expiry-time=\"20200101\"")), Err(Refusal::KeyExpired));
    assert_eq!(with().then(set("no-pty")), Err(Refusal::Narrowed));
    assert_eq!(Right::with(Some("no-pty")).then(set("no-pty")), Ok(()));
    // Of the place: maintenance lets visits be, as it does sessions.
    assert_eq!(with().then(|it| it.addresses[1].closed = true), Ok(()));
    assert_eq!(with().then(|it| it.addresses[1].lobby = false), Err(Refusal::NoVmHere));
    assert_eq!(with().then(|it| it.addresses.truncate(1)), Err(Refusal::NoVmHere));

    let right = with();
    let list = right.keys[0].public().fingerprint().to_string();
    let revocations = Revocations::parse(list.as_bytes()).unwrap();
    let policy = Arc::new(Policy { revocations, ..Policy::default() });
    let live = right.shared.live.load_full();
    let Live { server, credential, source_address, .. } = &*live;
    let (server, credential) = (Arc::clone(server), credential.clone());
    let source_address = source_address.clone();
    right.shared.live.store(Arc::new(Live { server, policy, credential, source_address }));
    assert_eq!(right.then(|_| {}), Err(Refusal::Revoked));
}

/// What becomes of a visit on which nothing is asked, when `meanwhile` is done once
/// it is in the list.
fn visit(right: Right, meanwhile: impl FnOnce(&Right, &Attended) + 'static) -> Cause {
    let (told, heard) = std::sync::mpsc::channel();
    run(|tasks| async move {
        let (acceptor, address) = acceptor(&tasks);
        let _client = TcpStream::connect(address).unwrap();
        let transport = Pair::connected(5).server.transport;
        let mut leg = LoginLeg::from_client(accepted(&acceptor).await, transport, Vec::new());
        let attended = Arc::new(Attended::new(Arc::new(Counters::default())));
        let wake = tasks.wake_me().unwrap();
        let visitor = attended.enter(right.visitor.clone(), Stage::Lobby, wake);
        meanwhile(&right, &attended);
        let scratch = Scratch::new();
        let over = host(&tasks, &scratch, &right.shared, &mut leg, &visitor).await;
        told.send(over.unwrap_err()).unwrap();
    });
    heard.recv().unwrap()
}

#[test]
fn a_visit_ends_at_once_when_somebody_says_so_and_when_its_right_was_gone_before_it_was_listed() {
    let killed = visit(Right::with(None), |_, attended| {
        let mut seen = Vec::new();
        attended.visit(|report, progress| {
            seen.push((report.request, progress));
            Some(Cause::Killed)
        });
        assert_eq!(seen, [(RequestId(1), Progress::Lobby)]);
    });
    assert_eq!(killed, Cause::Killed);
    let lost = visit(Right::with(None), |right, _| {
        let mut contents = right.contents.clone();
        contents.users[0].keys.clear();
        right.shared.table.apply(Snapshot::new(contents).unwrap());
    });
    assert_eq!(lost, Cause::RightLost);
}
