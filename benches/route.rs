//! One route lookup at a million slots, alone and beside a writer. Prints nanoseconds of thread CPU per lookup.
//!
//! `cargo bench --bench route`. The fleet is 200,000 users with 5 VMs each over 1,000 pool addresses; lookups pick a
//! random {key, address} that has a VM, so that little stays in the caches. The writer applies whole snapshots in a loop,
//! between which 10,000 VMs change their login.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "a program of its own"
)]

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use keyway::route::{
    Address, AddressEntry, Contents, Snapshot, Table, UserEntry, Vm, VmEntry, Who,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USERS: u32 = 200_000;
const VMS_PER_USER: u32 = 5;
const ADDRESSES: u32 = 1000;
const CHANGED: usize = 10_000;
/// One VM in so many changes.
const STEP: usize = USERS as usize * VMS_PER_USER as usize / CHANGED;
const LOOKUPS: u32 = 2_000_000;
const RUNS: usize = 5;

fn main() {
    let before = contents();
    let mut after = before.clone();
    for entry in after.vms.iter_mut().step_by(STEP) {
        entry.vm.login = Some("admin".to_owned());
    }
    let before = Snapshot::new(before).expect("no contradiction");
    let after = Snapshot::new(after).expect("no contradiction");

    let table = Table::new();
    let (resident, start) = (resident_kb(), Instant::now());
    table.apply(before.clone());
    let (took, grown) = (start.elapsed(), resident_kb() - resident);
    let counts = table.counts();
    println!("slots {}, keys {}, addresses {}", counts.slots, counts.keys, counts.addresses);
    let bytes = grown * 1024 / counts.slots;
    println!("apply of all: {} ms, about {bytes} bytes of memory a route", took.as_millis());

    let addresses: Vec<Arc<Address>> =
        (0..ADDRESSES).map(|n| table.address(ip(n)).expect("in the pool")).collect();
    report("alone", &run(&table, &addresses, Arc::as_ptr));
    report("alone, with a copy of the VM's Arc", &run(&table, &addresses, Arc::clone));

    let stop = AtomicBool::new(false);
    let (with_writer, applied) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut applied = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                let next = if applied.is_multiple_of(2) { &after } else { &before };
                table.apply(next.clone());
                applied += 1;
            }
            applied
        });
        let with_writer = run(&table, &addresses, Arc::as_ptr);
        stop.store(true, Ordering::Relaxed);
        (with_writer, writer.join().expect("the writer does not panic"))
    });
    report("under a writer", &with_writer);
    println!("snapshots applied meanwhile: {applied}");
}

fn contents() -> Contents {
    let name = |address: u32| format!("s{address:04}");
    let addresses = (0..ADDRESSES)
        .map(|n| AddressEntry {
            name: name(n),
            public: ip(n),
            public6: None,
            private: None,
            lobby: false,
        })
        .collect();
    let users =
        (0..USERS).map(|n| UserEntry { name: format!("user-{n}"), keys: vec![key(n)] }).collect();
    let vms = (0..USERS)
        .flat_map(|user| (0..VMS_PER_USER).map(move |vm| (user, vm)))
        .map(|(user, number)| {
            let vm = Vm {
                name: format!("vm-{user}-{number}"),
                owner: format!("user-{user}"),
                endpoint: "10.0.0.1:22".to_owned(),
                login: None,
                host_key: None,
            };
            VmEntry::owned(vm, &name(place(user, number)))
        })
        .collect();
    Contents { addresses, users, teams: Vec::new(), vms }
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

/// Nanoseconds of CPU for one lookup, for each run.
fn run<T>(table: &Table, addresses: &[Arc<Address>], read: fn(&Arc<Vm>) -> T) -> Vec<u64> {
    let mut state = 42;
    (0..RUNS)
        .map(|_| {
            // What is asked for is drawn before the clock runs.
            let asked: Vec<([u8; 32], &Address)> = (0..LOOKUPS)
                .map(|_| {
                    let random = next(&mut state);
                    let user = u32::try_from(random % u64::from(USERS)).unwrap_or(0);
                    let number =
                        u32::try_from((random >> 40) % u64::from(VMS_PER_USER)).unwrap_or(0);
                    let address = addresses.get(place(user, number) as usize).expect("in the pool");
                    (key(user), &**address)
                })
                .collect();
            let start = cpu_ns();
            for (key, address) in asked {
                let vm = table.lookup(Who::Key(key), address, read);
                assert!(black_box(vm).is_some(), "a route was lost");
            }
            (cpu_ns() - start) / u64::from(LOOKUPS)
        })
        .collect()
}

fn report(what: &str, runs: &[u64]) {
    let mut sorted = runs.to_vec();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).expect("at least one run");
    println!("lookup {what}: {median} ns (median of {runs:?})");
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
