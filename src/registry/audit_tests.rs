//! Tests of `audit`: what a page costs, and what is forgotten when.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::super::store::testing::memory::Memory;
use super::super::store::{EntryRef, Head, Revision, StoreId, TransactFault, Watch};
use super::super::writer::{self, Mode};
use super::super::{Label, Limits, Options, Service};
use super::*;
use crate::ssh::testing::Seeded;

/// Counts what it shows.
#[derive(Clone)]
struct Counting(Memory, Arc<AtomicUsize>);

impl Store for Counting {
    fn snapshot_parts(
        &self,
        parts: &[Part<'_>],
        visit: &mut dyn FnMut(EntryRef<'_>),
    ) -> Result<Head, StoreError> {
        self.0.snapshot_parts(parts, &mut |entry| {
            self.1.fetch_add(1, Relaxed);
            visit(entry);
        })
    }

    fn transact_all(&self, transactions: &[Transaction]) -> Vec<Result<Revision, TransactFault>> {
        self.0.transact_all(transactions)
    }

    fn watch(&self, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.0.watch(after)
    }

    fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        self.0.compact(up_to)
    }
}

/// A store whose log has an entry for each of these times.
fn store(times_s: impl IntoIterator<Item = u64>) -> Counting {
    let store = Counting(Memory::new(StoreId([7; 16])), Arc::default());
    for (revision, at_s) in (1..).zip(times_s) {
        let command = Command::Note { what: Noted::SessionKill, about: revision.to_string() };
        let actor = Actor { name: "test".into(), from: "test".into() };
        let audit = Audit { at_s, actor, command, moves: Vec::new() };
        let value = serde_json::to_vec(&audit).unwrap();
        store.transact(&Transaction::new().put(key(revision), value)).unwrap();
    }
    store
}

fn keys(page: &[(String, Audit)]) -> Vec<u64> {
    page.iter().map(|(key, _)| u64::from_str_radix(key, 16).unwrap()).collect()
}

#[test]
fn a_page_looks_at_no_more_than_it_shows() {
    let store = store(0..1000);
    let shown = |after: Option<u64>, order| {
        store.1.store(0, Relaxed);
        let after = after.map(|after| format!("{after:016x}"));
        let page = page(&store, after.as_deref(), order, 5).unwrap();
        assert_eq!(store.1.load(Relaxed), page.len());
        keys(&page)
    };
    assert_eq!(shown(None, Order::Up), [1, 2, 3, 4, 5]);
    assert_eq!(shown(None, Order::Down), [1000, 999, 998, 997, 996]);
    assert_eq!(shown(Some(500), Order::Up), [501, 502, 503, 504, 505]);
    assert_eq!(shown(Some(500), Order::Down), [499, 498, 497, 496, 495]);
    assert_eq!(shown(Some(998), Order::Up), [999, 1000]);
    assert_eq!(shown(Some(2), Order::Down), [1]);
    assert!(shown(Some(1000), Order::Up).is_empty());
}

#[test]
fn what_cannot_be_read_shortens_no_page() {
    let store = store(0..10);
    for unreadable in [2, 3, 4, 10] {
        store.transact(&Transaction::new().put(key(unreadable), "?")).unwrap();
    }
    let up = |after| keys(&page(&store, after, Order::Up, 3).unwrap());
    assert_eq!(up(None), [1, 5, 6]);
    assert_eq!(up(Some("0000000000000006")), [7, 8, 9]);
    assert_eq!(keys(&page(&store, None, Order::Down, 3).unwrap()), [9, 8, 7]);
}

/// What the log says after all that is too old was removed, and in how many parts.
fn forgotten(store: &Counting, keep_s: u64, now_s: u64) -> (Vec<u64>, usize, Option<String>) {
    let mut forget = Forget::default();
    let mut parts = 0;
    loop {
        let revision = store.head().unwrap().revision.0 + 1;
        let Some(part) = forget.next(store, keep_s, now_s, revision).unwrap() else { break };
        assert_eq!(store.transact(&part).unwrap().0, revision);
        parts += 1;
    }
    let mut left = page(store, None, Order::Up, 10_000).unwrap();
    let note = left.pop_if(|(_, entry)| {
        matches!(entry.command, Command::Note { what: Noted::AuditForget, .. })
    });
    let about = note.map(|(_, entry)| {
        let Command::Note { about, .. } = entry.command else { panic!("{entry:?}") };
        about
    });
    (keys(&left), parts, about)
}

#[test]
fn what_is_too_old_goes_in_parts_and_one_note_is_left() {
    let log = store((0..300).map(|n| n * 10));
    let (left, parts, note) = forgotten(&log, 100, 3000);
    assert_eq!(left, (291..=300).collect::<Vec<_>>());
    assert_eq!(parts, 3);
    assert_eq!(note.unwrap(), "entries from before 1970-01-01T00:48:20Z: 290");
    let (_, parts, _) = forgotten(&log, 100, 3000);
    assert_eq!(parts, 0, "a note was made of nothing");
    let (left, parts, note) = forgotten(&store([5, 6, 7]), 100, 50);
    assert_eq!((left, parts, note), (vec![1, 2, 3], 0, None));
}

#[test]
fn a_clock_that_was_wrong_removes_nothing_behind_an_entry_that_stays() {
    let (left, _, _) = forgotten(&store([10, 500, 20, 600]), 100, 600);
    assert_eq!(left, [2, 3, 4]);
    let log = store([10, 10, 500, 500]);
    for unreadable in [2, 3] {
        log.transact(&Transaction::new().put(key(unreadable), "?")).unwrap();
    }
    let (left, _, note) = forgotten(&log, 100, 600);
    assert_eq!((left, note.unwrap().ends_with(": 3")), (vec![4], true));
}

#[test]
fn a_registry_forgets_by_itself_and_goes_on() {
    const NOW_S: u64 = 1_000_000;
    let store = store([NOW_S - 1001; 200]);
    let service = Service::start(writer::Start {
        store: Arc::new(store.clone()),
        limits: Limits { audit_keep_s: 1000, ..Limits::default() },
        now_s: || NOW_S,
        entropy: Box::new(Seeded(1)),
        known: None,
        follow: Box::new(|_| ()),
    })
    .unwrap();
    let add = |name: &str| {
        let command = Command::UserAdd { name: Label::new(name).unwrap(), keys: Vec::new() };
        let actor = Actor { name: "test".into(), from: "test".into() };
        let order =
            writer::CommandRequest { command, options: Options::default(), expected: None, actor };
        service.carry_out(order, Mode::Real).unwrap()
    };
    add("alice");
    let words = || -> Vec<&str> {
        let log = service.audit(None, false, 1000).unwrap();
        log.iter().map(|(_, entry)| entry.command.word()).collect()
    };
    while words().contains(&"session-kill") {
        std::thread::yield_now();
    }
    let done = add("bob");
    let mut left = words();
    left.sort_unstable();
    assert_eq!(left, ["audit-forget", "user-add", "user-add"]);
    assert_eq!(service.head().unwrap().revision.0, done.revision);
}
