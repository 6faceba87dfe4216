//! One route lookup at a million slots, alone and beside a writer, in nanoseconds of thread CPU;
//! what a delta costs its writer; and how long a start from a saved snapshot takes.
//!
//! `cargo bench --bench route`. The fleet is 200,000 users with 5 VMs each over 1,000 pool
//! addresses, and 20,000 teams of 5 members with one VM; lookups pick a random {key, address} where
//! a user has a VM, so that little stays in the caches. One writer applies deltas of one VM each,
//! 10,000 a second: a new VM, the same moved, and deleted. The other applies whole snapshots in a
//! loop, between which 10,000 VMs change their login.
//!
//! Four ways to ask: `lookup` reads the VM's address only, `lookup, VM kept` also counts a
//! reference to it, `admits` answers an offered key, and `admit` gives everything that a login
//! needs (once a login, after the signature). A CPU works on several lookups at a time where it
//! can; `one by one` is a lookup that waits for the answer to the last.

#![expect(clippy::disallowed_methods, reason = "it measures, by threads and clocks")]
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "a program of its own"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keyway::route::{
    Address, AddressEntry, Admission, Carry, Change, Contents, Delta, KeyEntry, Pin, Snapshot,
    Table, TeamEntry, UserEntry, Vm, VmEntry, Who, saved_routes,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USERS: u32 = 200_000;
const VMS_PER_USER: u32 = 5;
const ADDRESSES: u32 = 1000;
const TEAMS: u32 = 20_000;
const MEMBERS: u32 = 5;
const CHANGED: usize = 10_000;
/// Deltas of one VM each.
const DELTAS_A_SECOND: u32 = 10_000;
const DELTAS_A_TICK: u32 = 10;
const DELTAS: u32 = 300_000;
/// Of one kind at a time, so that the clock is not read for each.
const BATCH: u32 = 1000;
/// One VM in so many changes.
const STEP: usize = USERS as usize * VMS_PER_USER as usize / CHANGED;
const LOOKUPS: u32 = 1_000_000;
const RUNS: usize = 7;
const TABLES: usize = 3;

fn main() {
    let before = contents();
    let mut after = before.clone();
    for entry in after.vms.iter_mut().step_by(STEP) {
        entry.vm.login = Some("admin".to_owned());
    }
    let before = Snapshot::new(before).expect("no contradiction");
    let after = Snapshot::new(after).expect("no contradiction");

    // The mean of several: the first is built in part of what making the snapshots left free.
    drop(contents());
    let (resident, mut tables) = (resident_kb(), Vec::new());
    for _ in 0..TABLES {
        let (start, table) = (Instant::now(), Table::new());
        table.apply(before.clone());
        println!("apply of all: {} ms", start.elapsed().as_millis());
        tables.push(table);
    }
    // What a table was made from is given back to the system only some time after it was freed.
    std::thread::sleep(Duration::from_secs(1));
    drop(contents());
    let grown = resident_kb().saturating_sub(resident) * 1024;
    let table = tables.pop().expect("there is one");
    drop(tables);
    let counts = table.counts();
    println!("slots {}, keys {}, addresses {}", counts.slots, counts.keys, counts.addresses);
    println!("about {} bytes of memory a route", grown / TABLES / counts.slots);

    let addresses: Vec<Arc<Address>> =
        (0..ADDRESSES).map(|n| table.address(ip(n)).expect("in the pool")).collect();
    report("alone", &table, &addresses);
    report_deltas(&table);
    report_beside_deltas(&table, &addresses);

    report_beside_snapshots(&table, &addresses, &before, &after);
    drop((table, before, after));
    // Last, for it leaves memory in pieces.
    start_from_saved();
}

/// What an edge does that starts without its store.
fn start_from_saved() {
    let head = saved_routes::Head { store: [7; 16], program: [0; 8], revision: 1 };
    let start = Instant::now();
    let bytes: Vec<u8> = saved_routes::encode(head, &contents()).flatten().collect();
    println!(
        "saved: {} MB, made and encoded in {} ms",
        bytes.len() >> 20,
        start.elapsed().as_millis()
    );
    for _ in 0..TABLES {
        let start = Instant::now();
        let (_, contents) = saved_routes::decode(&bytes).expect("just encoded");
        let decoded = start.elapsed();
        let snapshot = Snapshot::new(contents).expect("no contradiction");
        let checked = start.elapsed();
        let table = Table::new();
        table.apply(snapshot);
        println!(
            "start from saved: {} ms (decode {}, check {}, apply {})",
            start.elapsed().as_millis(),
            decoded.as_millis(),
            checked.saturating_sub(decoded).as_millis(),
            start.elapsed().saturating_sub(checked).as_millis()
        );
        drop(table);
    }
}

/// A VM beside the others of one user after another: new, moved, deleted.
struct Deltas {
    step: u32,
    user: u32,
}

impl Deltas {
    const fn new() -> Self {
        Self { step: 0, user: 0 }
    }

    fn next(&mut self) -> Delta {
        let extra = |user: u32, at: u32| {
            let address = name((place(user, 0) + at) % ADDRESSES);
            VmEntry::owned(
                vm(&format!("extra-{user}"), &format!("user-{user}"), &address),
                &address,
            )
        };
        self.step += 1;
        let change = match self.step % 3 {
            1 => {
                // A prime, so that no user comes twice before all others did.
                self.user = (self.user + 104_729) % USERS;
                Change::PutVm(extra(self.user, 1))
            }
            2 => Change::PutVm(extra(self.user, 2)),
            _ => Change::RemoveVm(format!("extra-{}", self.user)),
        };
        Delta { changes: vec![change] }
    }
}

fn report_deltas(table: &Table) {
    let mut deltas = Deltas::new();
    let mut took = [0_u64; 3];
    let mut longest = Duration::ZERO;
    for _ in 0..DELTAS / BATCH / 3 {
        let all: Vec<_> = (0..3 * BATCH).map(|_| deltas.next()).collect();
        for (kind, took) in took.iter_mut().enumerate() {
            let batch: Vec<_> = all.iter().skip(kind).step_by(3).cloned().collect();
            let start = cpu_ns();
            for delta in batch {
                let began = Instant::now();
                table.change(delta).expect("no contradiction");
                longest = longest.max(began.elapsed());
            }
            *took += cpu_ns() - start;
        }
    }
    for (kind, took) in ["create", "move", "delete"].iter().zip(took) {
        println!("delta, {kind}: {} ns of CPU", took / u64::from(DELTAS / 3));
    }
    println!("longest of {DELTAS}: {} us", longest.as_micros());
}

fn report_beside_deltas(table: &Table, addresses: &[Arc<Address>]) {
    let stop = AtomicBool::new(false);
    let (applied, cpu, lasted) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut deltas, mut applied) = (Deltas::new(), 0);
            let (began, cpu) = (Instant::now(), cpu_ns());
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..DELTAS_A_TICK {
                    table.change(deltas.next()).expect("no contradiction");
                    applied += 1;
                }
                let due = Duration::from_secs(1) * applied / DELTAS_A_SECOND;
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
            (applied, cpu_ns() - cpu, began.elapsed())
        });
        report("under 10,000 deltas a second", table, addresses);
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer does not panic")
    });
    let a_second = u128::from(applied) * 1000 / lasted.as_millis().max(1);
    println!("deltas applied meanwhile: {applied}, {a_second} a second");
    println!("all a writer does for a delta, paced: {} ns of CPU", cpu / u64::from(applied.max(1)));
}

fn report_beside_snapshots(
    table: &Table,
    addresses: &[Arc<Address>],
    before: &Snapshot,
    after: &Snapshot,
) {
    let stop = AtomicBool::new(false);
    let applied = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut applied = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                let next = if applied.is_multiple_of(2) { after } else { before };
                table.apply(next.clone());
                applied += 1;
            }
            applied
        });
        report("under snapshots", table, addresses);
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer does not panic")
    });
    println!("snapshots applied meanwhile: {applied}");
}

fn name(address: u32) -> String {
    format!("s{address:04}")
}

fn vm(name: &str, owner: &str, address: &str) -> Vm {
    Vm {
        id: name.to_owned(),
        name: name.to_owned(),
        owner: owner.to_owned(),
        endpoint: "10.0.0.1:22".to_owned(),
        login: None,
        host_key: Some(Pin::Ed25519([7; 32])),
        source_address: None,
        address: Some(address.to_owned()),
        closed: false,
        carry: Carry::Auto,
        node: None,
    }
}

fn contents() -> Contents {
    let addresses = (0..ADDRESSES)
        .map(|n| AddressEntry {
            name: name(n),
            public: ip(n),
            public6: None,
            private: None,
            lobby: false,
            closed: false,
        })
        .collect();
    let users = (0..USERS)
        .map(|n| UserEntry {
            name: format!("user-{n}"),
            keys: vec![KeyEntry::plain(key(n))],
            closed: false,
        })
        .collect();
    let teams = (0..TEAMS).map(|n| TeamEntry {
        name: format!("team-{n}"),
        members: (0..MEMBERS).map(|m| format!("user-{}", n * (USERS / TEAMS) + m)).collect(),
        members_by_name: Vec::new(),
    });
    let of_users = (0..USERS).flat_map(|user| (0..VMS_PER_USER).map(move |vm| (user, vm))).map(
        |(user, number)| {
            let (vm_name, at) = (format!("vm-{user}-{number}"), name(place(user, number)));
            VmEntry::owned(vm(&vm_name, &format!("user-{user}"), &at), &at)
        },
    );
    // Members have their own VMs at every 7th address from there on.
    let of_teams = (0..TEAMS).map(|team| {
        let at = name((place(team * (USERS / TEAMS), 0) + 4) % ADDRESSES);
        VmEntry::owned(vm(&format!("shared-{team}"), &format!("team:team-{team}"), &at), &at)
    });
    let vms = of_users.chain(of_teams).collect();
    Contents { addresses, users, teams: teams.collect(), nodes: Vec::new(), vms }
}

fn ip(address: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 78, 0, 0)) + address))
}

/// Where a user's VM is: spread, and never two at one address.
const fn place(user: u32, number: u32) -> u32 {
    (user * 7 + number * (ADDRESSES / VMS_PER_USER)) % ADDRESSES
}

/// As good as a SHA-256 for the purpose: all bytes differ from key to key.
fn key(user: u32) -> [u8; 32] {
    let mut state = u64::from(user);
    let mut bytes = [0; 32];
    for word in bytes.as_chunks_mut::<8>().0 {
        *word = next(&mut state).to_le_bytes();
    }
    bytes
}

/// `SplitMix64`.
const fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Asks in every way, by turns, so that what else the machine does meets all of them alike.
fn report(what: &str, table: &Table, addresses: &[Arc<Address>]) {
    let mut state = 42;
    let mut draw = || asked(addresses, &mut state);
    let lookup = |key, at: &Address| table.lookup(Who::Key(key), at, Arc::as_ptr).is_some();
    let kept = |key, at: &Address| black_box(table.lookup(Who::Key(key), at, Arc::clone)).is_some();
    let admits = |key, at: &Address| table.ask(Who::Key(key), at, "root", |_, _| ()).is_ok();
    let admit = |key, at: &Address| {
        let asked = table.ask(Who::Key(key), at, "root", |user, way| way.admission(user));
        matches!(black_box(asked), Ok((Admission::Vm(_), _)))
    };
    let ways = ["lookup", "lookup, one by one", "lookup, VM kept", "admits", "admit"];
    let mut runs = ways.map(|_| Vec::new());
    for _ in 0..RUNS {
        let took = [
            each(&draw(), lookup),
            one_by_one(&draw(), table),
            each(&draw(), kept),
            each(&draw(), admits),
            each(&draw(), admit),
        ];
        runs.iter_mut().zip(took).for_each(|(runs, took)| runs.push(took));
    }
    for (way, mut runs) in ways.iter().zip(runs) {
        runs.sort_unstable();
        let median = runs.get(RUNS / 2).expect("at least one run");
        println!("{way}, {what}: {median} ns (median of {runs:?})");
    }
}

/// What is asked for, drawn before the clock runs.
fn asked<'a>(addresses: &'a [Arc<Address>], state: &mut u64) -> Vec<([u8; 32], &'a Address)> {
    (0..LOOKUPS)
        .map(|_| {
            let random = next(state);
            let user = u32::try_from(random % u64::from(USERS)).unwrap_or(0);
            let number = u32::try_from((random >> 40) % u64::from(VMS_PER_USER)).unwrap_or(0);
            let address = addresses.get(place(user, number) as usize).expect("in the pool");
            (key(user), &**address)
        })
        .collect()
}

/// Nanoseconds of CPU for one answer.
fn each(asked: &[([u8; 32], &Address)], ask: impl Fn([u8; 32], &Address) -> bool) -> u64 {
    let start = cpu_ns();
    for (key, address) in asked {
        assert!(black_box(ask(*key, address)), "a route was lost");
    }
    (cpu_ns() - start) / u64::from(LOOKUPS)
}

/// As [`each`], for lookups, but what is asked next follows from the answer.
fn one_by_one(asked: &[([u8; 32], &Address)], table: &Table) -> u64 {
    let nothing = black_box(0);
    let (start, mut at) = (cpu_ns(), 0);
    while let Some((key, address)) = asked.get(at) {
        let vm = table.lookup(Who::Key(*key), address, Arc::as_ptr).expect("a route was lost");
        at += 1 + (vm.addr() & nothing);
    }
    (cpu_ns() - start) / u64::from(LOOKUPS)
}

/// CPU time of this thread: other processes on the machine do not count.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let first = text.split_whitespace().next().expect("three numbers");
    first.parse().expect("a number")
}

fn resident_kb() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    let Some(number) = line.and_then(|line| line.split_whitespace().nth(1)) else {
        panic!("no VmRSS in /proc/self/status");
    };
    number.parse().expect("a number")
}
