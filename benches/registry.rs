//! The registry at the size of a large edge host, 1M VMs of 200k users and 20k teams at 1,000 addresses: a start from the
//! store and from the saved map, what it takes in memory, and how long a change takes to be a route and a DNS answer.
//!
//! `cargo bench --bench registry`. Each part runs in a process of its own, so that none finds the memory of another. The
//! state directory stands in the temporary directory (`TMPDIR=...` for another disk) and is removed; `-- --keep DIR`
//! makes it there and leaves it, `-- --use DIR` takes what an earlier run left. A word behind that runs one part only:
//! `split`, `store`, `saved`, `changes` or `served`. Wall-clock time: a commit waits for the disk, whose share is printed.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on may end")]
#![expect(clippy::print_stdout, reason = "its figures are its product")]

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use base64::prelude::{BASE64_STANDARD, Engine};
use hdrhistogram::Histogram;
use keyway::registry::command::{Command, NewVm, Options, Placement, VmSettings};
use keyway::registry::document::{
    Access, Address, AddressState, Origin, Serial, Team, User, UserKey, Vm, VmState,
};
use keyway::registry::service::{Actor, Mode, News, Order, Start};
use keyway::registry::store::{
    OPERATIONS_MAX, Sqlite, Store, StoreId, TRANSACTION_BYTES_MAX, Transaction,
};
use keyway::registry::{Document, Key, Label, Limits, Model, Principal, Service, routes};
use keyway::route::{Delta, Snapshot, Table, saved};
use keyway::ssh::entropy::SystemEntropy;
use keyway::ssh::publickey::Fingerprint;
use nix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYWAY: &str = env!("CARGO_BIN_EXE_keyway");
const VMS: u64 = 1_000_000;
const USERS: u64 = 200_000;
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
/// Orders of one thread alone, and of each of several at once.
const ALONE: u64 = 1_000;
const TOGETHER: u64 = 1_000;
const THREADS: u64 = 8;
/// Changes whose answer is looked for in DNS.
const ASKED: u64 = 300;
const STARTS: usize = 3;
const PREFIXES: [&str; 6] = ["address/", "user/", "team/", "vm/", "hold/", "token/"];
const STORE: &str = "registry.db";
const SAVED: &str = "routes.snapshot";
const PARTS: [&str; 5] = ["split", "store", "saved", "changes", "served"];

fn main() {
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["--part", part, dir] => run(part, Path::new(dir)),
        ["--keep", dir] => all(&made(Path::new(dir)), &PARTS),
        ["--use", dir] => all(Path::new(dir), &PARTS),
        ["--use", dir, part] => all(Path::new(dir), &[part]),
        _ => {
            let name = format!("keyway-bench-registry-{}", std::process::id());
            let scratch = Scratch(std::env::temp_dir().join(name));
            all(&made(&scratch.0), &PARTS);
        }
    }
}

fn made(dir: &Path) -> PathBuf {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).unwrap();
    part("fill", dir);
    dir.to_owned()
}

fn all(dir: &Path, parts: &[&str]) {
    for name in parts {
        part(name, dir);
    }
}

/// Runs a part in a process of its own.
fn part(name: &str, dir: &Path) {
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    println!("-- {name}; load {}", load.split_whitespace().next().unwrap_or_default());
    let this = std::env::current_exe().unwrap();
    let ended = Program::new(this).args(["--part", name]).arg(dir).status().unwrap();
    assert!(ended.success(), "{name}: {ended}");
}

fn run(part: &str, dir: &Path) {
    match part {
        "fill" => fill(&dir.join(STORE)),
        "split" => split(&dir.join(STORE)),
        "store" => from_store(dir),
        "saved" => from_saved(&dir.join(SAVED)),
        "changes" => changes(dir),
        _ => served(dir),
    }
}

fn label(letter: char, number: u64) -> Label {
    Label::new(&format!("{letter}{number}")).unwrap()
}

/// The splitmix64 of a number.
fn mixed(number: u64) -> u64 {
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

/// A user with a key of the shape of an Ed25519 one.
fn user(number: u64) -> User {
    let kind = b"ssh-ed25519";
    let mut blob = vec![0, 0, 0, 11];
    blob.extend_from_slice(kind);
    blob.extend_from_slice(&[0, 0, 0, 32]);
    blob.extend((0..4).flat_map(|at| mixed(number * 4 + at).to_le_bytes()));
    let fingerprint = Fingerprint(digest(&SHA256, &blob).as_ref().try_into().unwrap());
    let key = UserKey {
        fingerprint: fingerprint.to_string(),
        options: String::new(),
        key: format!("ssh-ed25519 {}", BASE64_STANDARD.encode(&blob)),
        comment: format!("u{number}@example"),
    };
    User { keys: vec![key], origin: Origin::Command }
}

fn team(number: u64) -> Team {
    let (first, count) = match number.checked_rem(LARGE_EVERY) {
        Some(0) => (number / LARGE_EVERY * LARGE_MEMBERS, LARGE_MEMBERS),
        _ => (number * MEMBERS, MEMBERS),
    };
    let members = (first..first + count).map(|user| (label('u', user), Access::Slot)).collect();
    Team { members, origin: Origin::Command }
}

fn vm(number: u64) -> Vm {
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
    Vm {
        id: name.to_string(),
        name,
        owner,
        shares: BTreeMap::new(),
        address: Some(label('s', at)),
        old: Vec::new(),
        ssh: format!("10.{}.{}.{}:22", number >> 16 & 255, number >> 8 & 255, number & 255),
        login: None,
        host_key: None,
        state: VmState::Ready,
        origin: Origin::Command,
    }
}

fn fill(path: &Path) {
    let began = Instant::now();
    let store = Sqlite::open(path, StoreId([7; 16])).unwrap();
    let addresses = (0..ADDRESSES)
        .map(|number| (Key::Address(label('s', number)), Document::Address(address(number))));
    let users =
        (0..USERS).map(|number| (Key::User(label('u', number)), Document::User(user(number))));
    let teams =
        (0..TEAMS).map(|number| (Key::Team(label('t', number)), Document::Team(team(number))));
    let vms =
        (0..VMS).map(|number| (Key::Vm(Serial(mixed(number))), Document::Vm(Box::new(vm(number)))));
    let mut group = vec![Transaction::new()];
    let mut bytes = 0;
    for (key, document) in addresses.chain(users).chain(teams).chain(vms) {
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
    let head = store.snapshot_each("~", &mut |_| ()).unwrap();
    // As after a month: what watchers needed once is forgotten.
    store.compact(head.revision).unwrap();
    drop(store);
    let mb = fs::metadata(path).unwrap().len() / 1_000_000;
    println!(
        "{VMS} VMs of {USERS} users and {TEAMS} teams at {ADDRESSES} addresses written in {:.1?}: {mb} MB",
        began.elapsed()
    );
}

fn write(store: &Sqlite, group: &mut Vec<Transaction>) {
    assert!(store.transact_all(group).iter().all(Result::is_ok));
    group.clear();
}

fn open(path: &Path) -> (Sqlite, StoreId) {
    let store = Sqlite::open(path, StoreId([7; 16])).unwrap();
    let id = store.snapshot_each("~", &mut |_| ()).unwrap().store_id;
    (store, id)
}

/// What each step of a start costs by itself, one behind another.
fn split(path: &Path) {
    let mut began = Instant::now();
    let mut lap = |what: &str| {
        println!("{what:<44} {:>6} ms", began.elapsed().as_millis());
        began = Instant::now();
    };
    let (store, _) = open(path);
    lap("opened, pages checked");
    let each = |visit: &mut dyn FnMut(Key, &[u8], u64)| {
        for prefix in PREFIXES {
            let seen = store.snapshot_each(prefix, &mut |entry| {
                visit(entry.key.parse().unwrap(), entry.value, entry.modified.0);
            });
            seen.unwrap();
        }
    };
    let mut bytes = 0;
    each(&mut |_, value, _| bytes += value.len());
    lap("all documents read from SQLite");
    each(&mut |key, value, _| drop(Document::from_json(&key, value).unwrap()));
    lap("read again, and their JSON");
    let mut documents = Vec::new();
    each(&mut |key, value, at| {
        documents.push((Document::from_json(&key, value).unwrap(), key, at));
    });
    lap("once more, and kept");
    let resident = resident_kb();
    let mut model = Model::new(Limits::default());
    for (document, key, at) in documents {
        model.put(&key, Some(document), at);
    }
    lap("put into a model one by one");
    println!("{:<44} {:>6} MB", "indexes of the model", (resident_kb() - resident) >> 10);
    let contents = model.contents();
    lap("its contents for the routing map");
    let encoded: usize = saved::encode(head(1), &contents).map(|piece| piece.len()).sum();
    lap("encoded");
    let snapshot = Snapshot::new(contents).unwrap();
    lap("checked as a snapshot");
    let table = Table::new();
    table.apply(snapshot);
    lap("applied to a table");
    drop(model);
    lap("(the model dropped)");
    println!("documents {} MB, saved map {} MB", bytes >> 20, encoded >> 20);
}

fn head(revision: u64) -> saved::Head {
    saved::Head { store: [7; 16], revision }
}

/// Keeps a table up with a service, as `serve` does for its edge.
struct Feed {
    table: Arc<Table>,
    dir: PathBuf,
    journal: Option<File>,
    applied: Arc<Mutex<Option<Duration>>>,
    began: Instant,
}

impl Feed {
    fn follow(&mut self, news: News<'_>) {
        match news {
            News::Everything { revision, contents } => {
                let loaded = self.began.elapsed();
                self.save(&contents, revision);
                let saved = self.began.elapsed();
                let snapshot = Snapshot::new(contents).unwrap();
                let checked = self.began.elapsed();
                self.table.apply(snapshot);
                let applied = self.began.elapsed();
                let ms = |from: Duration, to: Duration| (to - from).as_millis();
                println!(
                    "  read {} ms, save {}, check {}, apply {}",
                    loaded.as_millis(),
                    ms(loaded, saved),
                    ms(saved, checked),
                    ms(checked, applied)
                );
                *self.applied.lock().unwrap() = Some(applied);
            }
            News::Written { model, written } => {
                let delta = routes::delta(written);
                self.append(&delta, model.revision());
                self.table.change(delta).unwrap();
            }
        }
    }

    fn save(&mut self, contents: &keyway::route::Contents, revision: u64) {
        let path = self.dir.join(SAVED);
        let mut file = File::create(&path).unwrap();
        for piece in saved::encode(head(revision), contents) {
            file.write_all(&piece).unwrap();
        }
        file.sync_all().unwrap();
        self.journal = Some(File::create(self.dir.join("bench.journal")).unwrap());
    }

    fn append(&mut self, delta: &Delta, revision: u64) {
        let bytes = saved::encode_delta(head(revision), delta);
        self.journal.as_mut().unwrap().write_all(&bytes).unwrap();
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// From nothing to a filled table and a service that takes orders.
fn started(dir: &Path) -> (Service, Arc<Table>, Duration) {
    let (began, cpu) = (Instant::now(), cpu_ms());
    let (store, _) = open(&dir.join(STORE));
    println!("  opened {} ms", began.elapsed().as_millis());
    let table = Arc::new(Table::new());
    let applied = Arc::new(Mutex::new(None));
    let mut feed = Feed {
        table: Arc::clone(&table),
        dir: dir.to_owned(),
        journal: None,
        applied: Arc::clone(&applied),
        began,
    };
    let service = Service::start(Start {
        store: Arc::new(store),
        limits: Limits::default(),
        now_s,
        entropy: Box::new(SystemEntropy::default()),
        follow: Box::new(move |news| feed.follow(news)),
    });
    let service = service.unwrap();
    println!("  in service after {} ms, {} ms of CPU", began.elapsed().as_millis(), cpu_ms() - cpu);
    let applied = applied.lock().unwrap().unwrap();
    (service, table, applied)
}

fn from_store(dir: &Path) {
    for run in 0..STARTS {
        let (service, table, applied) = started(dir);
        let counts = table.counts();
        assert_eq!(counts.vms, usize::try_from(VMS).unwrap());
        println!("start from the store: {} ms to the filled table", applied.as_millis());
        if run > 0 {
            continue;
        }
        // What is freed goes back to the system only some time later.
        std::thread::sleep(Duration::from_secs(2));
        let both = resident_kb();
        drop(service);
        std::thread::sleep(Duration::from_secs(2));
        let table_alone = resident_kb();
        drop(table);
        let each = |kb: u64| kb * 1024 / VMS;
        println!(
            "resident: {} MB; {} bytes a VM of the model, {} of the table and the rest",
            both >> 10,
            each(both.saturating_sub(table_alone)),
            each(table_alone)
        );
    }
    println!("resident at most: {} MB", status_kb("VmHWM:") >> 10);
}

fn from_saved(path: &Path) {
    for _ in 0..STARTS {
        let began = Instant::now();
        let mut decoder = saved::Decoder::default();
        let mut file = File::open(path).unwrap();
        let mut piece = vec![0; 1 << 20];
        loop {
            let count = file.read(&mut piece).unwrap();
            if count == 0 {
                break;
            }
            decoder.take(&piece[..count]).unwrap();
        }
        let (_, contents) = decoder.finish().unwrap();
        let decoded = began.elapsed();
        let snapshot = Snapshot::new(contents).unwrap();
        let checked = began.elapsed();
        let table = Table::new();
        table.apply(snapshot);
        println!(
            "start from the saved map: {} ms (read and decode {}, check {}, apply {})",
            began.elapsed().as_millis(),
            decoded.as_millis(),
            (checked - decoded).as_millis(),
            (began.elapsed() - checked).as_millis()
        );
        assert_eq!(table.counts().vms, usize::try_from(VMS).unwrap());
    }
    println!("resident at most: {} MB", status_kb("VmHWM:") >> 10);
}

/// A figure of `/proc/self/status`.
fn status_kb(key: &str) -> u64 {
    kb_in(&fs::read_to_string("/proc/self/status").unwrap(), key)
}

fn kb_in(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// CPU time of this process, in its threads that have ended too.
fn cpu_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    u64::try_from(Duration::from(now).as_millis()).unwrap()
}

fn resident_kb() -> u64 {
    status_kb("VmRSS:")
}

struct Times(Histogram<u64>);

impl Times {
    fn new() -> Self {
        Self(Histogram::new(3).unwrap())
    }

    fn add(&mut self, took: Duration) {
        self.0.record(u64::try_from(took.as_micros()).unwrap().max(1)).unwrap();
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |us: u64| f64::from(u32::try_from(us).unwrap()) / 1e3;
        let at = |quantile| ms(self.0.value_at_quantile(quantile));
        let (p50, p99, max) = (at(0.5), at(0.99), ms(self.0.max()));
        write!(f, "p50 {p50:.2} ms, p99 {p99:.2}, max {max:.2}, {} times", self.0.len())
    }
}

/// What the disk alone takes for a few pages: no figure of a commit means much without it.
fn disk(dir: &Path) {
    let path = dir.join("bench.disk");
    let mut file = File::create(&path).unwrap();
    let (pages, mut times) = (vec![1; 5 * 4096], Times::new());
    for _ in 0..ALONE / 4 {
        let began = Instant::now();
        file.write_all(&pages).unwrap();
        file.sync_all().unwrap();
        times.add(began.elapsed());
    }
    fs::remove_file(path).unwrap();
    println!("the disk: sync of {} KB: {times}", pages.len() / 1000);
}

/// What one thread of clients does to its own VM, over and over: made, altered, shared, removed.
fn step(thread: u64, number: u64) -> Command {
    let name = label('w', thread * 1_000_000 + number / 4);
    let user = |salt: u64| label('u', mixed(thread << 40 | number / 4 << 4 | salt) % USERS);
    match number % 4 {
        0 => Command::VmAdd(NewVm {
            name,
            owner: Principal::User(user(0)),
            ssh: "10.9.9.9:22".to_owned(),
            login: None,
            host_key: None,
            placement: Placement::Chosen,
        }),
        1 => {
            let login = Some("admin".to_owned());
            Command::VmSet { name, set: VmSettings { login, ..VmSettings::default() } }
        }
        2 => Command::VmShare { name, with: Principal::User(user(1)), access: Access::ByName },
        _ => Command::VmRemove { name },
    }
}

/// Carries a step out and looks for it in the table.
fn change(service: &Service, table: &Table, thread: u64, number: u64) -> Duration {
    let command = step(thread, number);
    let name = label('w', thread * 1_000_000 + number / 4);
    let actor = Actor { name: "bench".to_owned(), from: "itself".to_owned() };
    let order = Order { command, options: Options::default(), expected: None, actor };
    let began = Instant::now();
    service.carry_out(order, Mode::Real).unwrap();
    let routed = table.vm(name.as_str());
    let took = began.elapsed();
    let seen = match number % 4 {
        0 => routed.is_some(),
        1 => routed.is_some_and(|vm| vm.login.is_some()),
        2 => true,
        _ => routed.is_none(),
    };
    assert!(seen, "step {number} of thread {thread} is not in the table");
    took
}

fn changes(dir: &Path) {
    let (service, table, _) = started(dir);
    let (service, table) = (&service, &*table);
    disk(dir);
    let mut alone = Times::new();
    for number in 0..ALONE {
        alone.add(change(service, table, 0, number));
    }
    println!("change -> route, alone: {alone}");
    let (done, began) = (AtomicBool::new(false), Instant::now());
    let mut together = Times::new();
    let waits = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut waits = Times::new();
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                let _there = service.model().vm_names().len();
                waits.add(began.elapsed());
                std::thread::sleep(Duration::from_micros(500));
            }
            waits
        });
        let clients: Vec<_> = (1..=THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    (0..TOGETHER).map(|at| change(service, table, thread, at)).collect::<Vec<_>>()
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap().into_iter().for_each(|took| together.add(took));
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    let a_second = u128::from(THREADS * TOGETHER) * 1000 / began.elapsed().as_millis();
    println!("change -> route, {THREADS} at once: {together}, {a_second} a second");
    println!("meanwhile a reader waits for the model: {waits}");
    disk(dir);
}

/// The real thing: `keyway serve` on this directory, asked over its socket and over DNS.
struct Served {
    process: Child,
    socket: PathBuf,
    dns: u16,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

impl Served {
    fn start(dir: &Path) -> Self {
        let free = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (dns, ssh, metrics) = (free(), free(), free());
        let config = dir.join("keyway.toml");
        let text = format!(
            "state_dir = \"{}\"\n[edge]\nlisten = [\"127.0.0.1:{ssh}\"]\n[dns]\nzone = \"vm.test\"\n\
             listen = \"127.0.0.1:{dns}\"\n[metrics]\nlisten = \"127.0.0.1:{metrics}\"\n",
            dir.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Program::new(KEYWAY);
        command.arg("serve").arg("--config").arg(&config).stderr(Stdio::piped());
        let began = Instant::now();
        let mut process = command.spawn().unwrap();
        let mut said = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("is up") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "keyway serve ended");
        }
        println!("keyway serve is up after {} ms", began.elapsed().as_millis());
        let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        let (now, most) = (kb_in(&status, "VmRSS:") >> 10, kb_in(&status, "VmHWM:") >> 10);
        println!("resident {now} MB, at most {most} MB");
        // Nobody reads what it says from now on; it would say it to a closed pipe.
        std::thread::spawn(move || {
            let _all = std::io::copy(&mut said, &mut std::io::sink());
        });
        Self { process, socket: dir.join("keyway.sock"), dns }
    }

    fn keyway(&self, words: &str) {
        let began = Instant::now();
        let mut command = Program::new(KEYWAY);
        command.args(words.split(' ')).env("KEYWAY_SOCKET", &self.socket);
        let output = command.output().unwrap();
        let (ms, bytes) = (began.elapsed().as_millis(), output.stdout.len());
        println!("keyway {words}: {ms} ms, {bytes} bytes, {}", output.status);
    }
}

/// A connection to the API.
struct Client(BufReader<UnixStream>);

impl Client {
    /// Sends a request and reads the answer's status.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> u16 {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: keyway\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut length = 0;
        while line.trim_end() != "" {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        self.0.read_exact(&mut vec![0; length]).unwrap();
        status
    }
}

/// Whether the name has an answer, over UDP.
fn resolves(socket: &UdpSocket, name: &str) -> bool {
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').chain([""]) {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 1, 0, 1]);
    socket.send(&packet).unwrap();
    let mut answer = [0; 512];
    let count = socket.recv(&mut answer).unwrap();
    assert!(count > 12 && matches!(answer[3] & 15, 0 | 3), "an answer, or that there is none");
    answer[3] & 15 == 0 && answer[7] > 0
}

fn served(dir: &Path) {
    let served = Served::start(dir);
    let mut client = Client(BufReader::new(UnixStream::connect(&served.socket).unwrap()));
    let dns = UdpSocket::bind("127.0.0.1:0").unwrap();
    dns.connect(("127.0.0.1", served.dns)).unwrap();
    dns.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    disk(dir);
    let (mut added, mut removed, mut asked) = (Times::new(), Times::new(), Times::new());
    for number in 0..ASKED {
        let name = format!("x{number}");
        let owner = mixed(number) % USERS;
        let body =
            format!("{{\"name\":\"{name}\",\"owner\":\"u{owner}\",\"ssh\":\"10.9.9.9:22\"}}");
        let began = Instant::now();
        assert_eq!(client.ask("POST", "/v1/vms", &body), 201);
        while !resolves(&dns, &format!("{name}.vm.test")) {}
        added.add(began.elapsed());
        let began = Instant::now();
        assert!(resolves(&dns, &format!("v{}.vm.test", mixed(number) % VMS)));
        asked.add(began.elapsed());
        let began = Instant::now();
        assert_eq!(client.ask("DELETE", &format!("/v1/vms/{name}"), ""), 200);
        while resolves(&dns, &format!("{name}.vm.test")) {}
        removed.add(began.elapsed());
    }
    println!("change -> answer, API to DNS, a VM added: {added}");
    println!("change -> answer, API to DNS, a VM removed: {removed}");
    println!("DNS alone: {asked}");
    for words in [
        "vm show v5 --output json",
        "vm list --visible-to u77 --output json",
        "vm list --owner u77 --output json",
        "vm list --address s5 --output json",
        "vm add slow --owner u5 --ssh 10.0.0.1:22",
        "vm rm slow",
        "user list --output json",
        "team list --output json",
        "address list --output json",
        "audit list --limit 20 --output json",
        "vm list --output json",
        "export",
    ] {
        served.keyway(words);
    }
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
