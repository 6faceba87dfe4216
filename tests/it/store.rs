//! The store against kill -9: whatever was acknowledged is there, and nothing is there by half.
//!
//! The process that is killed is this test program itself, started anew with the one test that
//! writes. A kill takes the process, not the machine: that every commit is also synced is a
//! setting, tested beside the engine.

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use keyway::registry::store::{
    Change, Commit, Expected, Revision, Sqlite, Store, StoreError, StoreId, Transaction, Watch,
};

use super::harness::{Leashed, Scratch, full};

const WRITER: &str = "store::a_writer_finds_again_what_it_wrote";
/// Tells the writer to go on until it is killed: the store's file.
const WRITER_PATH: &str = "KEYWAY_TEST_STORE";
const WRITER_SEED: &str = "KEYWAY_TEST_STORE_SEED";
const ACK: &str = "acknowledged ";
const COUNT: &str = "count";
/// Numbers whose keys are not deleted yet.
const KEPT: u64 = 100;
const GROUP_MAX: u64 = 6;
/// Groups before the killed writer would end by itself: more than any parent waits for.
const GROUPS_MAX: u64 = 1_000;

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// The value of a number's two keys: of a length that differs, now and then of many pages.
fn value(number: u64) -> Vec<u8> {
    let len = if number.is_multiple_of(29) { 60_000 } else { number % 300 };
    (0..len).map(|at| u8::try_from((at + number) % 251).expect("below 251")).collect()
}

fn keys(number: u64) -> [String; 2] {
    ["left", "right"].map(|side| format!("{side}/{number:08}"))
}

/// Number `number` as a transaction: it counts, puts both keys and deletes an old pair.
fn transaction(number: u64) -> Transaction {
    let mut transaction = Transaction::new().put(COUNT, number.to_string());
    for key in keys(number) {
        transaction = transaction.when(key.clone(), Expected::Absent).put(key, value(number));
    }
    if let Some(old @ 1..) = number.checked_sub(KEPT) {
        transaction = keys(old).into_iter().fold(transaction, Transaction::delete);
    }
    transaction
}

/// Writes groups of transactions, and says after each the last number that is durable.
fn write_groups(store: &Sqlite, random: &mut Random, groups: u64, acks: &mut dyn Write) {
    let count = store.snapshot(COUNT).expect("a snapshot");
    let mut number = count.entries.first().map_or(0, |entry| parsed(&entry.value));
    for _ in 0..groups {
        let group: Vec<_> =
            (0..=random.below(GROUP_MAX)).map(|next| transaction(number + 1 + next)).collect();
        number += group.len() as u64;
        let answers = store.transact_all(&group).into_iter();
        let revision = answers.map(|answer| answer.expect("a commit")).max().expect("some");
        // One write: a line is whole or not there. The harness's own words may stand before it.
        acks.write_all(format!("\n{ACK}{number}\n").as_bytes()).expect("the parent listens");
        acks.flush().expect("the parent listens");
        if random.below(20) == 0 {
            store.compact(Revision(revision.0.saturating_sub(50))).expect("a compaction");
        }
    }
}

fn parsed(value: &[u8]) -> u64 {
    str::from_utf8(value).expect("digits").parse().expect("a number")
}

/// Opens the store and looks at all that it holds; returns the last number. Fails if anything
/// is there by half.
fn verified(path: &Path) -> u64 {
    let store = Sqlite::open(path, StoreId([0; 16])).expect("the store opens");
    let snapshot = store.snapshot("").expect("a snapshot");
    let Some((count, pairs)) = snapshot.entries.split_first() else {
        assert_eq!(snapshot.head.revision, Revision::ZERO);
        return 0; // killed before its first commit
    };
    assert_eq!((&*count.key, count.modified), (COUNT, snapshot.head.revision));
    let last = parsed(&count.value);
    let alive = last.saturating_sub(KEPT) + 1..=last;
    let left = alive.clone().map(|number| keys(number)[0].clone());
    let right = alive.clone().map(|number| keys(number)[1].clone());
    let expected = left.chain(right).zip(alive.clone().chain(alive).map(value));
    let found = pairs.iter().map(|entry| (entry.key.clone(), entry.value.clone()));
    assert!(found.eq(expected), "the keys are not those of the numbers up to {last}");

    let mut watcher = watch_all(&store);
    let commits: Vec<_> =
        std::iter::from_fn(|| watcher.next(Duration::ZERO).expect("a commit")).collect();
    let Some(earlier) = last.checked_sub(commits.len() as u64) else {
        panic!("{} commits made {last} transactions", commits.len());
    };
    for (number, Commit { revision, changes }) in (earlier + 1..).zip(&commits) {
        let Transaction { puts, deletes, .. } = transaction(number);
        let puts = puts.into_iter().map(|(key, value)| Change { key, value: Some(value) });
        let deletes = deletes.into_iter().map(|key| Change { key, value: None });
        assert!(puts.chain(deletes).eq(changes.iter().cloned()), "commit {revision} is not whole");
    }
    assert_eq!(commits.last().map(|commit| commit.revision), Some(snapshot.head.revision));
    last
}

fn watch_all(store: &Sqlite) -> Box<dyn Watch> {
    let oldest = match store.watch(Revision::ZERO) {
        Ok(watcher) => return watcher,
        Err(StoreError::Compacted { oldest }) => oldest,
        Err(fault) => panic!("{fault}"),
    };
    store.watch(oldest).expect("the oldest that there is")
}

/// Also what a killed writer runs: the environment says so.
#[test]
fn a_writer_finds_again_what_it_wrote() {
    if let (Some(path), Ok(seed)) = (env::var_os(WRITER_PATH), env::var(WRITER_SEED)) {
        let store = Sqlite::open(path.as_ref(), StoreId([9; 16])).expect("the store opens");
        let mut random = Random(seed.parse().expect("a seed"));
        // Not `print!`, which the harness keeps until the end of the test.
        write_groups(&store, &mut random, GROUPS_MAX, &mut std::io::stdout());
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path().join("store").join("store.db");
    let mut acks = vec![];
    for seed in 0..2 {
        let store = Sqlite::open(&path, StoreId([9; 16])).expect("the store opens");
        write_groups(&store, &mut Random(seed), 30, &mut acks);
    }
    let acks = BufReader::new(&*acks).lines().map(|line| line.expect("text"));
    assert_eq!(Some(verified(&path)), acks.filter_map(|line| acknowledged(&line)).last());
}

fn acknowledged(line: &str) -> Option<u64> {
    Some(line.strip_prefix(ACK)?.parse().expect("a number"))
}

#[test]
fn nothing_acknowledged_is_lost_when_the_writer_is_killed() {
    let rounds = if full("1,000 kills of a store's writer") { 1_000 } else { 40 };
    let seed = RandomState::new().hash_one(());
    println!("seed {seed}"); // shown if it fails; where a kill meets the writer is up to the machine
    let mut random = Random(seed);
    let scratch = Scratch::new();
    let path = scratch.path().join("store").join("store.db");
    let (mut last, mut unverified) = (0, 0);
    for round in 1..=rounds {
        last = last.max(killed(&path, &mut random).unwrap_or(0));
        unverified += 1;
        // Now and then the next writer is the first to find what the killed one left.
        if round < rounds && random.below(2) == 0 {
            continue;
        }
        let found = verified(&path);
        // Each kill may have met a writer whose group was durable and not acknowledged yet. A later
        // writer's acknowledgement counts from there.
        assert!(
            (last..=last + GROUP_MAX * unverified).contains(&found),
            "round {round}: {last} was acknowledged, {found} found"
        );
        (last, unverified) = (found, 0);
    }
}

/// Starts a writer, lets it acknowledge some groups and kills it; the last number it acknowledged.
fn killed(path: &Path, random: &mut Random) -> Option<u64> {
    let (groups, spins) = (random.below(25), random.below(1_000_000));
    let mut writer = Leashed::start(
        Command::new(env::current_exe().expect("this program"))
            .args(["--exact", WRITER, "--test-threads=1"])
            .env(WRITER_PATH, path)
            .env(WRITER_SEED, random.below(u64::MAX).to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped()),
    );
    let output = BufReader::new(writer.stdout.take().expect("piped"));
    let mut acks = output.lines().filter_map(|line| acknowledged(&line.expect("text")));
    let mut last = None;
    for _ in 0..groups {
        last = Some(acks.next().expect("the writer goes on until it is killed"));
    }
    // Somewhere within what a commit takes.
    for _ in 0..spins {
        std::hint::spin_loop();
    }
    drop(writer);
    // What it had written before it died it had acknowledged.
    acks.last().or(last)
}
