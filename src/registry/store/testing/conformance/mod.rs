//! The suite every engine is held to. A new engine gives a [`Factory`] and calls [`hold`].

use std::sync::{Arc, Barrier};
use std::time::Duration;

use crate::registry::store::{
    Change, Commit, Entry, Expected, Head, KEY_BYTES_MAX, OPERATIONS_MAX, Order, Part, Refusal,
    Revision, Snapshot, Store, StoreError, StoreId, TRANSACTION_BYTES_MAX, TransactFault,
    Transaction, VALUE_BYTES_MAX, Watch,
};

mod histories;

/// Makes stores of one engine.
pub(crate) trait Factory {
    /// An empty store with this id.
    fn fresh(&self, store_id: StoreId) -> Arc<dyn Store>;

    /// The same store after its process has ended and another has begun.
    fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store>;
}

/// Long enough to notice what never comes; nothing that passes waits for it.
pub(crate) const LONG: Duration = Duration::from_mins(2);
const ID: StoreId = StoreId([7; 16]);

type Rule = (&'static str, fn(&dyn Factory));

const RULES: &[Rule] = &[
    ("a fresh store is empty and has its id", fresh_is_empty),
    ("an entry has its last value and its revision", entries_have_revisions),
    ("a prefix shows its keys only, in the order of their bytes", prefixes),
    ("a part begins and ends where it is asked to, either way", parts),
    ("a snapshot is of one moment", snapshot_of_one_moment),
    ("any value comes back as it was", values_come_back),
    ("a compare decides", compares_decide),
    ("a refused transaction changes nothing", refused_changes_nothing),
    ("a transaction that changes nothing takes no revision", nothing_takes_no_revision),
    ("a put of the same value is a change", same_value_is_a_change),
    ("what is over a limit is refused, what is at it is not", limits),
    ("a group answers each of its transactions", groups),
    ("a large group is made whole", large_groups),
    ("a watcher gets whole commits in order", watchers_get_commits),
    ("a watcher that waits is woken", watchers_wake),
    ("watchers do not disturb each other", many_watchers),
    ("what is compacted cannot be watched", compacted_is_told),
    ("a watcher that lags behind a compaction is told", lagging_is_told),
    ("a revision that was never reached is refused", future_is_told),
    ("compare and swap loses no update", counters),
    ("everything outlives its process", reopened),
    ("any history is that of the reference", histories::hold),
];

/// Holds an engine to every rule; says which one it breaks.
#[expect(clippy::print_stdout, reason = "the harness shows it if the rule is broken")]
pub(crate) fn hold(factory: &dyn Factory) {
    for (name, rule) in RULES {
        println!("rule: {name}");
        rule(factory);
    }
}

fn revisions(store: &dyn Store, transactions: &[Transaction]) -> Vec<Revision> {
    store.transact_all(transactions).into_iter().map(Result::unwrap).collect()
}

fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    store.transact(&Transaction::new().put(key, value)).unwrap()
}

fn delete(store: &dyn Store, key: &str) -> Revision {
    store.transact(&Transaction::new().delete(key)).unwrap()
}

fn refusal(answer: Result<Revision, TransactFault>) -> Refusal {
    match answer {
        Err(TransactFault::Refused(refusal)) => refusal,
        other => panic!("{other:?} is no refusal"),
    }
}

fn keys(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.entries.iter().map(|entry| entry.key.as_str()).collect()
}

fn entry(key: &str, value: &str, modified: Revision) -> Entry {
    Entry { key: key.into(), value: value.into(), modified }
}

fn change(key: &str, value: Option<&str>) -> Change {
    Change { key: key.into(), value: value.map(Into::into) }
}

/// What a watcher has now.
fn drain(watcher: &mut dyn Watch) -> Vec<Commit> {
    std::iter::from_fn(|| watcher.next(Duration::ZERO).unwrap()).collect()
}

fn fault(watch: Result<Box<dyn Watch>, StoreError>) -> StoreError {
    match watch {
        Err(fault) => fault,
        Ok(_) => panic!("the watch began"),
    }
}

fn fresh_is_empty(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    let head = Head { store_id: ID, revision: Revision::ZERO };
    assert_eq!(store.snapshot("").unwrap(), Snapshot { head, entries: vec![] });
    assert_eq!(store.watch(Revision::ZERO).unwrap().next(Duration::ZERO), Ok(None));
}

fn entries_have_revisions(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    let first = put(&*store, "a", "1");
    let second = put(&*store, "b", "2");
    let third = put(&*store, "a", "3");
    assert!(Revision::ZERO < first && first < second && second < third);
    let snapshot = store.snapshot("").unwrap();
    assert_eq!(snapshot.head, Head { store_id: ID, revision: third });
    assert_eq!(snapshot.entries, [entry("a", "3", third), entry("b", "2", second)]);
    let fourth = delete(&*store, "a");
    let snapshot = store.snapshot("").unwrap();
    assert_eq!((snapshot.head.revision, keys(&snapshot)), (fourth, vec!["b"]));
    assert!(fourth > third);
}

fn prefixes(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    let all = ["v", "vm", "vm.", "vm/", "vm/A", "vm/a", "vm/a\0", "vm/ab", "vm/\u{e9}", "vm0", "w"];
    let mut sorted = all;
    sorted.sort_unstable();
    assert_eq!(all, sorted, "the test's own order");
    for key in all.iter().rev() {
        put(&*store, key, "");
    }
    let shown = |prefix: &str| {
        let snapshot = store.snapshot(prefix).unwrap();
        keys(&snapshot).join(" ")
    };
    assert_eq!(shown(""), all.join(" "));
    assert_eq!(shown("vm/"), all[3..9].join(" "));
    assert_eq!(shown("vm/a"), all[5..8].join(" "));
    assert_eq!(shown("vm/\u{e9}"), all[8]);
    assert_eq!(shown("vm1"), "");
    assert_eq!(shown("\u{10ffff}"), "");
    // Whatever the prefix finds, the snapshot is at the store's revision.
    let revision = store.snapshot("").unwrap().head.revision;
    assert_eq!(store.snapshot("vm1").unwrap().head.revision, revision);
}

/// Every part that can be asked for, beside what a list of all keys says.
fn parts(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    let mut keys =
        ["a", "vm", "vm/", "vm/1", "vm/1\0", "vm/\u{e9}", "vm/\u{10ffff}x", "vm0", "\u{10ffff}"];
    for key in keys {
        put(&*store, key, key);
    }
    let between = ["", "vm/0", "vm/2", "vm/\u{10ffff}", "\u{10ffff}\u{10ffff}"];
    let limits = [0, 1, 2, usize::MAX];
    for order in [Order::Up, Order::Down] {
        keys.sort_unstable();
        if order == Order::Down {
            keys.reverse();
        }
        let cursors = keys.iter().chain(&between).map(|key| Some(*key));
        for after in cursors.chain([None]) {
            for (prefix, limit) in ["", "vm", "vm/", "vm/1", "vm1", "\u{10ffff}"]
                .into_iter()
                .flat_map(|prefix| limits.map(|limit| (prefix, limit)))
            {
                let part = Part { prefix, after, order, limit };
                let behind = |key: &&str| {
                    after.is_none_or(
                        |after| if order == Order::Up { *key > after } else { *key < after },
                    )
                };
                let all = keys.into_iter().filter(|key| key.starts_with(prefix)).filter(behind);
                let wanted: Vec<&str> = all.take(limit).collect();
                let mut shown = vec![];
                let head = store.snapshot_part(part, &mut |entry| {
                    assert_eq!(entry.value, entry.key.as_bytes());
                    shown.push(entry.key.to_owned());
                });
                assert_eq!(shown, wanted, "{part:?}");
                assert_eq!(head.unwrap().store_id, ID);
            }
        }
    }
}

fn snapshot_of_one_moment(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    let before = store.transact(&Transaction::new().put("a", "1").put("z", "1")).unwrap();
    let mut shown = vec![];
    // In two parts, the later first.
    let parts = [Part::whole("z"), Part::whole("a"), Part::whole("y")];
    let head = store.snapshot_parts(&parts, &mut |entry| {
        if shown.is_empty() {
            let change = Transaction::new().put("a", "2").put("y", "2").delete("z");
            store.transact(&change).unwrap();
        }
        shown.push(entry.to_owned());
    });
    assert_eq!(head.unwrap().revision, before);
    assert_eq!(shown, [entry("z", "1", before), entry("a", "1", before)]);
    assert_eq!(keys(&store.snapshot("").unwrap()), ["a", "y"]);
}

fn values_come_back(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    let every: Vec<u8> = (0..=255).collect();
    let values = [vec![], vec![0], every, b"\xff\xfe".to_vec(), vec![b'x'; 5000]];
    for (number, value) in values.iter().enumerate() {
        store.transact(&Transaction::new().put(number.to_string(), value.clone())).unwrap();
    }
    let shown: Vec<_> =
        store.snapshot("").unwrap().entries.into_iter().map(|entry| entry.value).collect();
    assert_eq!(shown, values);
    let watched = drain(&mut *store.watch(Revision::ZERO).unwrap());
    let watched: Vec<_> =
        watched.into_iter().map(|commit| commit.changes[0].value.clone()).collect();
    assert_eq!(watched, values.map(Some));
}

fn compares_decide(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    let when = |expected| store.transact(&Transaction::new().when("a", expected).put("b", "x"));
    let conflict = |found| Refusal::Conflict { key: "a".into(), found };
    assert_eq!(refusal(when(Expected::Modified(Revision(1)))), conflict(None));
    when(Expected::Absent).unwrap();
    let first = put(&*store, "a", "1");
    assert_eq!(refusal(when(Expected::Absent)), conflict(Some(first)));
    when(Expected::Modified(first)).unwrap();
    let second = put(&*store, "a", "2");
    assert_eq!(refusal(when(Expected::Modified(first))), conflict(Some(second)));
    assert_eq!(refusal(when(Expected::Modified(Revision(second.0 + 9)))), conflict(Some(second)));
    delete(&*store, "a");
    assert_eq!(refusal(when(Expected::Modified(second))), conflict(None));
    when(Expected::Absent).unwrap();
    // All must hold; the first that does not is named.
    let both = Transaction::new().when("a", Expected::Absent).when("b", Expected::Absent);
    assert!(matches!(
        refusal(store.transact(&both)),
        Refusal::Conflict { key, found: Some(_) } if key == "b"
    ));
}

fn refused_changes_nothing(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    put(&*store, "a", "1");
    let before = store.snapshot("").unwrap();
    let change = Transaction::new().when("a", Expected::Absent).put("b", "1").delete("a");
    refusal(store.transact(&change));
    assert_eq!(store.snapshot("").unwrap(), before);
    let mut watcher = store.watch(before.head.revision).unwrap();
    assert_eq!(watcher.next(Duration::ZERO), Ok(None));
    let next = put(&*store, "c", "1");
    assert_eq!(watcher.next(LONG).unwrap().unwrap().revision, next);
}

fn nothing_takes_no_revision(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    assert_eq!(delete(&*store, "a"), Revision::ZERO);
    let first = put(&*store, "a", "1");
    let held = Transaction::new().when("a", Expected::Modified(first));
    assert_eq!(store.transact(&Transaction::new()), Ok(first));
    assert_eq!(store.transact(&held), Ok(first));
    assert_eq!(delete(&*store, "b"), first);
    assert_eq!(store.transact(&held.clone().delete("b").delete("c")), Ok(first));
    // Beside a real change the absent key is passed over in silence.
    let second = store.transact(&held.delete("b").delete("a")).unwrap();
    assert_eq!(store.snapshot("").unwrap().head.revision, second);
    let commits = drain(&mut *store.watch(first).unwrap());
    assert_eq!(commits, [Commit { revision: second, changes: vec![change("a", None)] }]);
}

fn same_value_is_a_change(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    let first = put(&*store, "a", "1");
    let second = put(&*store, "a", "1");
    assert!(second > first);
    assert_eq!(store.snapshot("").unwrap().entries, [entry("a", "1", second)]);
    assert_eq!(drain(&mut *store.watch(Revision::ZERO).unwrap()).len(), 2);
}

fn limits(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    let puts = |count| (0..count).fold(Transaction::new(), |all, n| all.put(format!("k{n}"), "v"));
    let deletes =
        |all: Transaction, count| (0..count).fold(all, |all, n| all.delete(format!("d{n}")));
    let compares = |count| {
        (0..count).fold(Transaction::new(), |all, n| all.when(format!("c{n}"), Expected::Absent))
    };
    let value = |bytes: usize| Transaction::new().put("big", vec![b'v'; bytes]);
    let half = TRANSACTION_BYTES_MAX / 2;
    let two = |more: usize| {
        Transaction::new().put("1", vec![1; half - 1]).put("2", vec![2; half - 1 + more])
    };
    let long = |bytes: usize| "k".repeat(bytes);
    let fits = [
        puts(OPERATIONS_MAX),
        deletes(puts(OPERATIONS_MAX - 1), 1),
        compares(OPERATIONS_MAX),
        value(VALUE_BYTES_MAX),
        two(0),
        Transaction::new().put(long(KEY_BYTES_MAX), "v"),
    ];
    for (number, transaction) in fits.iter().enumerate() {
        assert!(store.transact(transaction).is_ok(), "fit {number}");
    }
    let before = store.snapshot("").unwrap();
    let count = OPERATIONS_MAX + 1;
    let key = |bytes| Refusal::Key { bytes };
    let twice = || Refusal::Twice { key: "a".into() };
    let over = [
        (puts(count), Refusal::Operations { count }),
        (deletes(puts(OPERATIONS_MAX), 1), Refusal::Operations { count }),
        (compares(count), Refusal::Operations { count }),
        (
            value(VALUE_BYTES_MAX + 1),
            Refusal::Value { key: "big".into(), bytes: VALUE_BYTES_MAX + 1 },
        ),
        (two(1), Refusal::Bytes { bytes: TRANSACTION_BYTES_MAX + 1 }),
        (Transaction::new().put("", "v"), key(0)),
        (Transaction::new().delete(""), key(0)),
        (Transaction::new().when("", Expected::Absent), key(0)),
        (Transaction::new().put(long(KEY_BYTES_MAX + 1), "v"), key(KEY_BYTES_MAX + 1)),
        (Transaction::new().put("a", "1").put("b", "1").put("a", "2"), twice()),
        (Transaction::new().put("a", "1").delete("a"), twice()),
        (Transaction::new().delete("a").delete("a"), twice()),
    ];
    for (transaction, why) in over {
        assert_eq!(refusal(store.transact(&transaction)), why);
    }
    assert_eq!(store.snapshot("").unwrap(), before);
}

fn groups(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    assert_eq!(store.transact_all(&[]), []);
    let answers = store.transact_all(&[
        Transaction::new().put("a", "1"),
        Transaction::new().when("a", Expected::Absent).put("b", "1"),
        Transaction::new().when("c", Expected::Absent).put("c", "1").delete("a"),
        Transaction::new().put("", "1"),
        Transaction::new().delete("a"),
        Transaction::new().when("a", Expected::Absent).put("d", "1"),
    ]);
    let first = *answers[0].as_ref().unwrap();
    let conflict = Refusal::Conflict { key: "a".into(), found: Some(first) };
    assert_eq!(answers[1], Err(conflict.into()), "the second saw what the first did");
    let third = *answers[2].as_ref().unwrap();
    assert_eq!(answers[3], Err(Refusal::Key { bytes: 0 }.into()));
    assert_eq!(answers[4], Ok(third), "nothing to delete any more");
    let last = *answers[5].as_ref().unwrap();
    assert!(first < third && third < last);
    let commits = drain(&mut *store.watch(Revision::ZERO).unwrap());
    let expected = [
        (first, vec![change("a", Some("1"))]),
        (third, vec![change("c", Some("1")), change("a", None)]),
        (last, vec![change("d", Some("1"))]),
    ];
    assert_eq!(commits, expected.map(|(revision, changes)| Commit { revision, changes }));
    let snapshot = store.snapshot("").unwrap();
    assert_eq!(snapshot.head.revision, last);
    assert_eq!(snapshot.entries, [entry("c", "1", third), entry("d", "1", last)]);
}

fn large_groups(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    let all: Vec<_> = (0..1000).map(|n| Transaction::new().put(format!("{n:04}"), "v")).collect();
    let revisions = revisions(&*store, &all);
    assert!(revisions.is_sorted_by(|one, next| one < next));
    let snapshot = store.snapshot("").unwrap();
    assert_eq!(Some(&snapshot.head.revision), revisions.last());
    let modified: Vec<_> = snapshot.entries.iter().map(|entry| entry.modified).collect();
    assert_eq!(modified, revisions);
}

fn watchers_get_commits(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    let mut early = store.watch(Revision::ZERO).unwrap();
    let first = Transaction::new().put("z", "1").put("a", "1").put("m", "1");
    let first = store.transact(&first).unwrap();
    let second = Transaction::new().delete("z").put("a", "2").delete("nothing").delete("m");
    let second = store.transact(&second).unwrap();
    let changes = vec![change("z", Some("1")), change("a", Some("1")), change("m", Some("1"))];
    let first = Commit { revision: first, changes };
    let changes = vec![change("a", Some("2")), change("z", None), change("m", None)];
    let second = Commit { revision: second, changes };
    let mut middle = store.watch(first.revision).unwrap();
    let mut late = store.watch(second.revision).unwrap();
    assert_eq!(drain(&mut *early), [first, second.clone()]);
    assert_eq!(drain(&mut *middle), [second]);
    assert_eq!(drain(&mut *late), []);
    let third = put(&*store, "b", "3");
    let third = Commit { revision: third, changes: vec![change("b", Some("3"))] };
    for watcher in [&mut early, &mut middle, &mut late] {
        assert_eq!(drain(&mut **watcher), std::slice::from_ref(&third));
    }
}

/// The writer waits for each answer of the watcher's, so the watcher has nothing to read
/// when it asks again.
fn watchers_wake(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    let mut watcher = store.watch(Revision::ZERO).unwrap();
    let (seen, answers) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        while let Some(commit) = watcher.next(LONG).unwrap() {
            let is_last = commit.changes.iter().any(|change| change.key == "end");
            if seen.send(commit.revision).is_err() || is_last {
                return;
            }
        }
        panic!("nothing came");
    });
    for number in 0..50 {
        let revision = put(&*store, "a", &number.to_string());
        assert_eq!(answers.recv_timeout(LONG), Ok(revision));
    }
    put(&*store, "end", "");
    reader.join().unwrap();
}

fn many_watchers(factory: &dyn Factory) {
    const WATCHERS: usize = 8;
    const COMMITS: usize = 40;
    let store = factory.fresh(ID);
    let start = Barrier::new(WATCHERS + 1);
    std::thread::scope(|scope| {
        let watch = || {
            let mut watcher = store.watch(Revision::ZERO).unwrap();
            start.wait();
            let next = |_| watcher.next(LONG).unwrap().expect("a commit");
            (0..COMMITS).map(next).collect::<Vec<_>>()
        };
        let readers: Vec<_> = (0..WATCHERS).map(|_| scope.spawn(watch)).collect();
        start.wait();
        let commits: Vec<_> = (0..COMMITS)
            .map(|number| {
                let (one, two) = (format!("one {number}"), format!("two {number}"));
                let revision =
                    store.transact(&Transaction::new().put(&*one, "").put(&*two, "")).unwrap();
                Commit { revision, changes: vec![change(&one, Some("")), change(&two, Some(""))] }
            })
            .collect();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), commits);
        }
    });
}

fn compacted_is_told(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    let revisions: Vec<_> = (0..5).map(|n| put(&*store, "a", &n.to_string())).collect();
    let before = store.snapshot("").unwrap();
    store.compact(Revision::ZERO).unwrap();
    assert_eq!(drain(&mut *store.watch(Revision::ZERO).unwrap()).len(), 5);
    store.compact(revisions[2]).unwrap();
    let oldest = revisions[2];
    for early in [Revision::ZERO, revisions[0], revisions[1]] {
        assert_eq!(fault(store.watch(early)), StoreError::Compacted { oldest });
    }
    assert_eq!(drain(&mut *store.watch(oldest).unwrap()).len(), 2);
    // Backwards or again: nothing to do.
    store.compact(revisions[1]).unwrap();
    store.compact(oldest).unwrap();
    assert_eq!(drain(&mut *store.watch(oldest).unwrap()).len(), 2);
    // All of it, a deletion last: what is, stays.
    assert_eq!(store.snapshot("").unwrap(), before);
    let last = delete(&*store, "a");
    store.compact(last).unwrap();
    assert_eq!(fault(store.watch(revisions[4])), StoreError::Compacted { oldest: last });
    let mut watcher = store.watch(last).unwrap();
    assert_eq!(drain(&mut *watcher), []);
    let next = put(&*store, "a", "x");
    assert!(next > last);
    assert_eq!(drain(&mut *watcher).len(), 1);
}

fn lagging_is_told(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    let mut watcher = store.watch(Revision::ZERO).unwrap();
    put(&*store, "a", "1");
    let oldest = put(&*store, "a", "2");
    put(&*store, "a", "3");
    store.compact(oldest).unwrap();
    for _ in 0..2 {
        assert_eq!(watcher.next(LONG), Err(StoreError::Compacted { oldest }));
    }
}

fn future_is_told(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    let current = put(&*store, "a", "1");
    let future = StoreError::Future { store_id: ID, current };
    for later in [Revision(current.0 + 1), Revision(u64::MAX)] {
        assert_eq!(fault(store.watch(later)), future);
        assert_eq!(store.compact(later), Err(future.clone()));
    }
    assert_eq!(drain(&mut *store.watch(Revision::ZERO).unwrap()).len(), 1);
}

fn counters(factory: &dyn Factory) {
    const WRITERS: u32 = 4;
    const EACH: u32 = 25;
    let store = factory.fresh(ID);
    let count = |store: &dyn Store| {
        let snapshot = store.snapshot("count").unwrap();
        let Some(entry) = snapshot.entries.first() else { return (0_u32, Expected::Absent) };
        let count = str::from_utf8(&entry.value).unwrap().parse().unwrap();
        (count, Expected::Modified(entry.modified))
    };
    let raise = || {
        for _ in 0..EACH {
            loop {
                let (now, expected) = count(&*store);
                let next = (now + 1).to_string();
                let change = Transaction::new().when("count", expected).put("count", next);
                match store.transact(&change) {
                    Ok(_) => break,
                    Err(TransactFault::Refused(Refusal::Conflict { .. })) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(raise);
        }
    });
    assert_eq!(count(&*store).0, WRITERS * EACH);
    assert_eq!(drain(&mut *store.watch(Revision::ZERO).unwrap()).len(), (WRITERS * EACH) as usize);
}

fn reopened(factory: &dyn Factory) {
    let store = factory.fresh(ID);
    put(&*store, "a", "1");
    let oldest = put(&*store, "b", "2");
    let last = delete(&*store, "a");
    store.compact(oldest).unwrap();
    let before = store.snapshot("").unwrap();
    let store = factory.reopen(store);
    assert_eq!(store.snapshot("").unwrap(), before);
    assert_eq!(fault(store.watch(Revision::ZERO)), StoreError::Compacted { oldest });
    let commit = Commit { revision: last, changes: vec![change("a", None)] };
    assert_eq!(drain(&mut *store.watch(oldest).unwrap()), [commit]);
    assert!(put(&*store, "a", "3") > last);
}
