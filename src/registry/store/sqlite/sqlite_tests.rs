//! Tests of `sqlite`: the suite, and what only a file has.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::connections::lock;
use super::*;
use crate::registry::store::Expected;
use crate::registry::store::testing::conformance::{self, Factory, LONG};

const ID: StoreId = StoreId([1; 16]);
/// When stores are replaced here.
const STAMP: &str = "20261130T013000Z";
const OTHER: StoreId = StoreId([2; 16]);

/// A directory of its own, removed with it. In memory where there is such a place: what a power
/// failure would leave is not what these tests are about.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        Self(base.join(format!("keyway-store-{}-{number}", std::process::id())))
    }

    fn file(&self) -> PathBuf {
        self.0.join("store.db")
    }

    fn open(&self) -> Sqlite {
        Sqlite::open(&self.file(), ID).unwrap()
    }

    /// The fault of opening a file with these bytes.
    fn fault_of(&self, bytes: &[u8]) -> StoreError {
        fs::create_dir_all(&self.0).unwrap();
        fs::write(self.file(), bytes).unwrap();
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(self.file(), fs::Permissions::from_mode(0o600)).unwrap();
        Sqlite::open(&self.file(), ID).unwrap_err()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.0.join(name)).unwrap().permissions().mode() & 0o7777
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Files {
    scratch: Scratch,
    made: AtomicU32,
    last: Mutex<PathBuf>,
}

impl Factory for Files {
    fn fresh(&self, store_id: StoreId) -> Arc<dyn Store> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.scratch.0.join(format!("{number}.db"));
        *lock(&self.last) = path.clone();
        Arc::new(Sqlite::open(&path, store_id).unwrap())
    }

    fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        drop(store);
        Arc::new(Sqlite::open(&lock(&self.last), OTHER).unwrap())
    }
}

fn put(store: &Sqlite, key: &str, value: &str) -> Revision {
    store.transact(&Transaction::new().put(key, value)).unwrap()
}

#[test]
fn sqlite_keeps_every_rule_of_a_store() {
    let (scratch, made, last) = (Scratch::new(), AtomicU32::new(0), Mutex::default());
    conformance::hold(&Files { scratch, made, last });
}

#[test]
fn every_commit_is_synced_and_the_file_is_in_write_ahead_mode() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let writer = lock(&store.0.writer);
    let pragma = |name| writer.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(pragma("synchronous"), 2, "FULL");
    let mode = writer.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0));
    assert_eq!(mode.unwrap(), "wal");
}

#[test]
fn every_file_is_for_the_service_alone() {
    let scratch = Scratch::new();
    let store = scratch.open();
    put(&store, "a", "1");
    store.backup(&scratch.0.join("backup.db")).unwrap();
    assert_eq!(scratch.mode(""), 0o700);
    assert_eq!(scratch.names(), ["backup.db", "store.db", "store.db-shm", "store.db-wal"]);
    for name in scratch.names() {
        assert_eq!(scratch.mode(&name), 0o600, "{name}");
    }
}

#[test]
fn a_file_or_directory_open_to_others_is_refused() {
    let scratch = Scratch::new();
    drop(scratch.open());
    for (path, mode) in [(scratch.file(), 0o640), (scratch.0.clone(), 0o755)] {
        let before = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let fault = Sqlite::open(&scratch.file(), ID).unwrap_err();
        assert_eq!(fault, StoreError::Open { path: path.clone(), mode });
        fs::set_permissions(&path, before).unwrap();
    }
    scratch.open();
}

#[test]
fn an_existing_store_keeps_its_id() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let store = Sqlite::open(&scratch.file(), OTHER).unwrap();
    assert_eq!(store.snapshot("").unwrap().head.store_id, ID);
}

#[test]
fn an_empty_file_becomes_a_store() {
    let scratch = Scratch::new();
    file::create(&scratch.file()).unwrap();
    put(&scratch.open(), "a", "1");
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    let path = scratch.file();
    let text = b"[listen]\naddress = \"127.0.0.1:22\"\n".repeat(100);
    assert_eq!(scratch.fault_of(&text), StoreError::NotAStore { path: path.clone() });
    assert_eq!(fs::read(&path).unwrap(), text);

    let elsewhere = scratch.0.join("other.db");
    let other = Connection::open(&elsewhere).unwrap();
    other.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(other);
    let bytes = fs::read(&elsewhere).unwrap();
    assert_eq!(scratch.fault_of(&bytes), StoreError::NotAStore { path: path.clone() });
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn the_store_of_a_newer_keyway_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.open();
    lock(&store.0.writer).pragma_update(None, "user_version", 2).unwrap();
    drop(store);
    let fault = Sqlite::open(&scratch.file(), ID).unwrap_err();
    assert_eq!(fault, StoreError::Newer { path: scratch.file(), found: 2, known: 1 });
    assert!(fault.to_string().contains("use the newer keyway"), "{fault}");
}

#[test]
fn a_damaged_file_is_refused() {
    let scratch = Scratch::new();
    let store = scratch.open();
    for number in 0..100 {
        put(&store, &format!("key {number}"), &"x".repeat(300));
    }
    drop(store);
    let mut bytes = fs::read(scratch.file()).unwrap();
    let whole = bytes.clone();
    // All but the first page, which says what the file is.
    bytes[4096..].fill(0xa5);
    assert!(matches!(scratch.fault_of(&bytes), StoreError::Corrupt { .. }));
    assert!(matches!(scratch.fault_of(&whole[..whole.len() / 2]), StoreError::Corrupt { .. }));
    fs::write(scratch.file(), whole).unwrap();
    scratch.open();
}

#[test]
fn tables_that_a_hand_changed_are_reported_as_damage() {
    let scratch = Scratch::new();
    let store = scratch.open();
    put(&store, "a", "1");
    lock(&store.0.writer).execute_batch("UPDATE kv SET modified = -1").unwrap();
    assert!(matches!(store.snapshot(""), Err(StoreError::Corrupt { .. })));
    lock(&store.0.writer).execute_batch("DROP TABLE kv").unwrap();
    assert!(matches!(store.snapshot(""), Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_full_disk_is_said_and_changes_nothing() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let before = put(&store, "a", "1");
    let pages = {
        let writer = lock(&store.0.writer);
        let pages: i64 = writer.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        let limit = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        writer.pragma_update_and_check(None, "max_page_count", pages, limit).unwrap()
    };
    let big = Transaction::new().put("b", vec![0; 100_000]);
    let small = Transaction::new().put("c", "1");
    let answers = store.transact_all(&[small.clone(), big]);
    let full = TransactFault::Store(StoreError::Full { path: scratch.file() });
    assert_eq!(answers, [Err(full.clone()), Err(full)], "both or none: {pages} pages");
    assert_eq!(store.snapshot("").unwrap().head.revision, before);
    // There is room for this one, and the writer is well.
    assert!(store.transact(&small).unwrap() > before);
}

#[test]
fn a_store_that_another_holds_is_said_to_be_locked() {
    let scratch = Scratch::new();
    let (store, other) = (scratch.open(), scratch.open());
    lock(&store.0.writer).busy_timeout(Duration::ZERO).unwrap();
    let writer = lock(&other.0.writer);
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let locked = StoreError::Locked { path: scratch.file() };
    let change = Transaction::new().put("a", "1");
    assert_eq!(store.transact(&change), Err(locked.into()));
    store.snapshot("").unwrap();
    writer.execute_batch("ROLLBACK").unwrap();
    store.transact(&change).unwrap();
}

#[test]
fn the_commits_of_another_process_are_found() {
    let scratch = Scratch::new();
    let (store, other) = (scratch.open(), scratch.open());
    let mut watcher = store.watch(Revision::ZERO).unwrap();
    assert_eq!(watcher.next(Duration::ZERO), Ok(None));
    let first = put(&other, "a", "1");
    assert_eq!(watcher.next(Duration::ZERO).unwrap().unwrap().revision, first);
    let again = Transaction::new().when("a", Expected::Modified(first)).put("a", "2");
    assert!(store.transact(&again).unwrap() > first);
}

#[test]
fn more_than_a_watcher_reads_ahead_comes_in_order_and_whole() {
    let scratch = Scratch::new();
    let store = scratch.open();
    // What is read ahead ends between the two puts of a commit, were commits split.
    let (long, short) = (vec![0; 400_000], vec![0; 50_000]);
    let revisions: Vec<_> = (0..40)
        .map(|_| store.transact(&Transaction::new().put("a", &*long).put("b", &*short)).unwrap())
        .collect();
    let mut watcher = store.watch(Revision::ZERO).unwrap();
    for revision in revisions {
        let commit = watcher.next(LONG).unwrap().unwrap();
        assert_eq!((commit.revision, commit.changes.len()), (revision, 2));
    }
    assert_eq!(watcher.next(Duration::ZERO), Ok(None));
}

#[test]
fn a_compaction_of_many_parts_removes_all_it_should() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let many = 3 * COMPACTED_AT_ONCE + 7;
    let all: Vec<_> =
        (0..many).map(|number| Transaction::new().put("a", number.to_string())).collect();
    store.transact_all(&all);
    store.compact(Revision(many - 1)).unwrap();
    let left = lock(&store.0.writer)
        .query_row("SELECT count(*), min(revision) FROM log", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
        .unwrap();
    assert_eq!(left, (1, i64::try_from(many).unwrap()));
}

#[test]
fn a_backup_of_a_store_in_use_is_the_store_and_restores() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let first = put(&store, "a", "1");
    let backup = scratch.0.join("backup.db");
    store.backup(&backup).unwrap();
    let saved = store.snapshot("").unwrap();
    put(&store, "a", "2");
    drop(store);

    let kept = scratch.0.join(format!("store.db.replaced-{STAMP}"));
    let Restored { head, replaced } = restore(&backup, &scratch.file(), OTHER, STAMP).unwrap();
    assert_eq!(head, Head { store_id: OTHER, revision: first });
    assert_eq!(replaced.as_ref(), Some(&kept));
    let store = scratch.open();
    let restored = store.snapshot("").unwrap();
    assert_eq!((restored.head, restored.entries), (head, saved.entries));
    assert!(store.watch(Revision::ZERO).unwrap().next(LONG).unwrap().is_some());
    put(&store, "b", "1");
    drop(store);
    // The backup is what it was, and so is what the restore replaced.
    assert_eq!(scratch.names(), ["backup.db", "store.db", &format!("store.db.replaced-{STAMP}")]);
    let bytes = fs::read(&kept).unwrap();
    let replaced = Sqlite::open_kept(&kept).unwrap();
    let refused = replaced.transact(&Transaction::new().put("a", "3"));
    assert!(matches!(refused, Err(TransactFault::Store(_))), "{refused:?}");
    let replaced = replaced.snapshot("").unwrap();
    assert_eq!((replaced.head.store_id, &*replaced.entries[0].value), (ID, &b"2"[..]));
    let backup = Sqlite::open(&backup, OTHER).unwrap().snapshot("").unwrap();
    assert_eq!(backup.head, saved.head);
    assert_eq!(fs::read(&kept).unwrap(), bytes, "whoever looked at it changed it");
}

#[test]
fn every_store_that_is_replaced_is_kept_and_found_again() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let backup = scratch.0.join("backup.db");
    store.backup(&backup).unwrap();
    drop(store);
    let mut ids = vec![ID];
    for number in 1..4 {
        let id = StoreId([number; 16]);
        let Restored { replaced, .. } = restore(&backup, &scratch.file(), id, STAMP).unwrap();
        let was = Sqlite::open_kept(&replaced.unwrap()).unwrap().head().unwrap().store_id;
        assert_eq!(Some(was), ids.pop());
        ids.push(id);
    }
    // As an earlier version called it, what another program put there, and a log.
    let old = scratch.0.join("store.db.replaced");
    fs::copy(&backup, &old).unwrap();
    for name in ["store.db.replacement", "store.db.replaced-x-wal", "other.db.replaced"] {
        fs::write(scratch.0.join(name), "").unwrap();
    }
    let all = replaced(&scratch.file()).unwrap();
    let names: Vec<_> =
        all.iter().map(|it| it.path.file_name().unwrap().to_str().unwrap()).collect();
    let stamped = ["", "-2", "-3"].map(|again| format!("store.db.replaced-{STAMP}{again}"));
    assert_eq!(names, ["store.db.replaced", &stamped[0], &stamped[1], &stamped[2]]);
    assert!(all[1..].iter().all(|it| it.until_s == 1_796_002_200), "{all:?}");
    assert!(all[0].until_s > 1_700_000_000, "{all:?}");
}

#[test]
fn a_copy_leaves_files_alone_that_others_made() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let backup = scratch.0.join("backup.db");
    for name in ["backup.db.partial", "backup.db.partial-1", "store.db.partial-1"] {
        fs::write(scratch.0.join(name), "mine").unwrap();
    }
    store.backup(&backup).unwrap();
    drop(store);
    restore(&backup, &scratch.file(), OTHER, STAMP).unwrap();
    for name in ["backup.db.partial", "backup.db.partial-1", "store.db.partial-1"] {
        assert_eq!(fs::read(scratch.0.join(name)).unwrap(), b"mine", "{name}");
    }
    assert_eq!(scratch.names().len(), 6, "{:?}", scratch.names());
}

#[test]
fn a_raised_revision_is_higher_than_all_that_were_and_old_watchers_are_told() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let first = put(&store, "a", "1");
    assert_eq!(store.raise(first).unwrap().revision, first);
    assert_eq!(store.raise(Revision(1000)).unwrap().revision, Revision(1000));
    assert_eq!(put(&store, "a", "2"), Revision(1001));
    let lags = store.watch(Revision(999)).err();
    assert_eq!(lags, Some(StoreError::Compacted { oldest: Revision(1000) }));
    let mut watcher = store.watch(Revision(1000)).unwrap();
    assert_eq!(watcher.next(Duration::ZERO).unwrap().unwrap().revision, Revision(1001));
}

#[test]
fn a_backup_replaces_no_file() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let backup = scratch.0.join("backup.db");
    fs::write(&backup, "mine").unwrap();
    assert_eq!(store.backup(&backup), Err(StoreError::Exists { path: backup.clone() }));
    assert_eq!(fs::read(&backup).unwrap(), b"mine");
    assert!(!fs::exists(scratch.0.join("backup.db.partial")).unwrap());
}

#[test]
fn a_store_in_use_is_not_restored_over() {
    let scratch = Scratch::new();
    let store = scratch.open();
    let backup = scratch.0.join("backup.db");
    store.backup(&backup).unwrap();
    put(&store, "a", "1");
    let before = store.snapshot("").unwrap();
    let fault = restore(&backup, &scratch.file(), OTHER, STAMP).unwrap_err();
    assert_eq!(fault, StoreError::Locked { path: scratch.file() });
    assert_eq!(store.snapshot("").unwrap(), before);
    put(&store, "a", "2");
    assert!(!scratch.names().iter().any(|name| name.contains("partial")), "{:?}", scratch.names());
}

#[test]
fn a_restore_heals_a_damaged_store_and_its_log_is_not_applied() {
    let scratch = Scratch::new();
    let store = scratch.open();
    put(&store, "a", "saved");
    let backup = scratch.0.join("backup.db");
    store.backup(&backup).unwrap();
    drop(store);
    let store = scratch.open();
    put(&store, "a", "lost");
    // As after a crash: the log is still beside the file. It has no first page, which would make
    // the file readable.
    let log = fs::read(scratch.0.join("store.db-wal")).unwrap();
    drop(store);
    scratch.fault_of(
        b"not a database at all, but long enough to be looked at as one by SQLite, \
        which reads a hundred bytes before it says so",
    );
    fs::write(scratch.0.join("store.db-wal"), log).unwrap();
    restore(&backup, &scratch.file(), OTHER, STAMP).unwrap();
    let snapshot = scratch.open().snapshot("").unwrap();
    assert_eq!((snapshot.head.store_id, &*snapshot.entries[0].value), (OTHER, &b"saved"[..]));
}

#[test]
fn a_restore_from_what_is_no_store_leaves_the_store_alone() {
    let scratch = Scratch::new();
    let store = scratch.open();
    put(&store, "a", "1");
    let before = store.snapshot("").unwrap();
    drop(store);
    let (empty, text) = (scratch.0.join("empty"), scratch.0.join("text"));
    fs::write(&empty, "").unwrap();
    fs::write(&text, "x".repeat(5000)).unwrap();
    for from in [&empty, &text] {
        let fault = restore(from, &scratch.file(), OTHER, STAMP).unwrap_err();
        assert_eq!(fault, StoreError::NotAStore { path: from.clone() });
    }
    let missing = restore(&scratch.0.join("missing"), &scratch.file(), OTHER, STAMP).unwrap_err();
    assert!(matches!(missing, StoreError::System { .. }), "{missing}");
    assert_eq!(scratch.open().snapshot("").unwrap(), before);
}

#[test]
fn a_store_can_be_restored_where_there_was_none() {
    let scratch = Scratch::new();
    let store = scratch.open();
    put(&store, "a", "1");
    let backup = scratch.0.join("backup.db");
    store.backup(&backup).unwrap();
    let new = scratch.0.join("new.db");
    restore(&backup, &new, OTHER, STAMP).unwrap();
    assert_eq!(scratch.mode("new.db"), 0o600);
    let entries = Sqlite::open(&new, ID).unwrap().snapshot("").unwrap().entries;
    assert_eq!(entries, store.snapshot("").unwrap().entries);
}
