//! The store on this machine's disk: what a durable transaction costs, and how fast a million
//! keys go in and out.
//!
//! `cargo bench --bench store`. The store stands in the temporary directory (`TMPDIR=... ` for
//! another disk). A value has 150 bytes, as much as a VM's document; a transaction of the first two
//! figures puts three keys, as much as a new VM. Wall-clock time: a commit waits for the disk.

#![expect(clippy::disallowed_methods, reason = "it measures, by threads and clocks")]
#![expect(clippy::print_stdout, clippy::expect_used, reason = "a program of its own")]

use std::fs::{self, DirBuilder};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keyway::registry::store::{OPERATIONS_MAX, Revision, Sqlite, Store, StoreId, Transaction};

const KEYS: usize = 1_000_000;
const VALUE_BYTES: usize = 150;
const ALONE: usize = 300;
const GROUP: usize = 32;
const GROUPS: usize = 100;
const RUNS: usize = 5;

fn main() {
    let scratch = Scratch::new();
    let path = scratch.0.join("store.db");
    disk(&scratch.0.join("disk"));
    let (opened, store) = timed(|| open(&path));
    println!("made in {opened:.1?}");
    commits(&store, "an empty store");
    load(&store);
    println!("file: {} MB", fs::metadata(&path).map_or(0, |about| about.len()) / 1_000_000);
    snapshots(&store);
    disk(&scratch.0.join("disk"));
    commits(&store, "a million keys");

    let (took, commits) = timed(|| {
        let mut watcher = store.watch(Revision::ZERO).expect("nothing is compacted");
        std::iter::from_fn(|| watcher.next(Duration::ZERO).expect("a commit")).count()
    });
    println!("watch of all {commits} commits: {took:.2?}");
    let to = scratch.0.join("backup.db");
    let (took, ()) = timed(|| store.backup(&to).expect("a backup"));
    println!("backup: {took:.2?}");
    let head = store.snapshot("none").expect("a snapshot").head;
    let (took, ()) = timed(|| store.compact(head.revision).expect("a compaction"));
    println!("compaction of all: {took:.2?}");
    drop(store);
    let (took, store) = timed(|| open(&path));
    println!("opened, pages checked: {took:.2?}");
    drop(store);
    println!("resident at most: {} MB", resident_max_kb() / 1000);
}

fn open(path: &Path) -> Sqlite {
    Sqlite::open(path, StoreId([1; 16])).expect("a store")
}

fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let answer = run();
    (start.elapsed(), answer)
}

fn key(number: usize) -> String {
    format!("vm/{number:08x}")
}

fn value(number: usize) -> Vec<u8> {
    (0..VALUE_BYTES).map(|at| u8::try_from((at * 7 + number) % 256).unwrap_or(0)).collect()
}

/// What the disk alone takes to sync a few pages: it differs by a factor of ten from one minute to
/// the next on a virtual one, so no figure below means much without it.
fn disk(path: &Path) {
    let file = fs::File::create(path).expect("a file");
    let pages = vec![1; 5 * 4096];
    let mut syncs: Vec<_> = (0..ALONE)
        .map(|_| {
            (&file).write_all(&pages).expect("pages are written");
            timed(|| file.sync_all().expect("a sync")).0
        })
        .collect();
    println!("the disk: sync of {} KB, {}", pages.len() / 1000, percentiles(&mut syncs));
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    format!("p50 {:.2?}, p99 {:.2?}", at(50), at(99))
}

/// Durable transactions of three keys, alone and in groups.
fn commits(store: &Sqlite, what: &str) {
    let three = |number: usize| {
        let spread = number * 7919 % KEYS;
        (0..3).fold(Transaction::new(), |all, next| {
            all.put(format!("new/{what}/{spread}/{next}"), value(number))
        })
    };
    let mut alone: Vec<_> = (0..ALONE)
        .map(|number| timed(|| store.transact(&three(number)).expect("a commit")).0)
        .collect();
    println!("{what}: alone, {} a transaction", percentiles(&mut alone));
    let (took, ()) = timed(|| {
        for group in 0..GROUPS {
            let first = ALONE + group * GROUP;
            let group: Vec<_> = (first..first + GROUP).map(three).collect();
            let answers = store.transact_all(&group);
            assert!(answers.iter().all(Result::is_ok), "a commit");
        }
    });
    let count = u32::try_from(GROUPS * GROUP).unwrap_or(1);
    println!("{what}: groups of {GROUP}, {:.3?} a transaction", took / count);
}

fn load(store: &Sqlite) {
    let (took, ()) = timed(|| {
        // A part of the transactions at a time: they need not all be in memory.
        for part in (0..KEYS).step_by(64 * OPERATIONS_MAX) {
            let transactions: Vec<_> = (part..KEYS.min(part + 64 * OPERATIONS_MAX))
                .step_by(OPERATIONS_MAX)
                .map(|first| {
                    (first..KEYS.min(first + OPERATIONS_MAX))
                        .fold(Transaction::new(), |all, n| all.put(key(n), value(n)))
                })
                .collect();
            let answers = store.transact_all(&transactions);
            assert!(answers.iter().all(Result::is_ok), "a commit");
        }
    });
    println!("load of {KEYS} keys, {OPERATIONS_MAX} a transaction: {took:.2?}");
}

fn snapshots(store: &Sqlite) {
    for run in 1..=RUNS {
        let (took, (keys, bytes)) = timed(|| {
            let (mut keys, mut bytes) = (0, 0);
            let head = store.snapshot_each("vm/", &mut |entry| {
                keys += 1;
                bytes += entry.key.len() + entry.value.len();
            });
            head.expect("a snapshot");
            (keys, bytes)
        });
        println!("snapshot {run}, {keys} keys, {} MB, visited: {took:.2?}", bytes / 1_000_000);
    }
    let (took, snapshot) = timed(|| store.snapshot("vm/").expect("a snapshot"));
    println!("snapshot, {} keys, in memory: {took:.2?}", snapshot.entries.len());
}

fn resident_max_kb() -> usize {
    let text = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let name = format!("keyway-bench-store-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
