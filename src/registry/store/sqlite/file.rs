//! The file: who may read it, whether it is ours and whole, and how its connections are set up.
//!
//! Nothing here opens a store's file by other means than SQLite: closing it would drop every lock
//! that the process's connections hold on it (POSIX record locks belong to the process).

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::durable::{FILE_MODE, MODE_OTHERS, directory};
use crate::registry::store::{StoreError, StoreId};

const DIRECTORY_MODE: u32 = 0o700;
/// `KWAY`: what `file` and SQLite itself show of the file.
const APPLICATION_ID: i64 = 0x4b57_4159;
/// The version of the tables. A change of them raises it and brings what is older up to date.
const SCHEMA_VERSION: i64 = 1;
/// Longest wait for another process that holds the file: a checkpoint, or a successor that starts.
const BUSY_MAX: Duration = Duration::from_secs(5);
/// The write-ahead log goes into the file at this many pages of 4 KiB: 16 MiB, read in well under a
/// second at a start.
const CHECKPOINT_PAGES: i64 = 4096;
/// What a bulk load may leave of the log's length.
const LOG_BYTES_KEPT: i64 = 64 << 20;
/// The page cache of a connection, in KiB (negative: SQLite's way to say that these are not pages).
const CACHE_KIB: i64 = -16_384;
/// Prepared statements a connection keeps; there are fewer.
const STATEMENTS_KEPT: usize = 32;

const SCHEMA: &str = "
    CREATE TABLE kv (
        key TEXT PRIMARY KEY, value BLOB NOT NULL, modified INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE log (
        revision INTEGER, seq INTEGER, key TEXT NOT NULL, value BLOB, PRIMARY KEY (revision, seq)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE meta (
        one INTEGER PRIMARY KEY CHECK (one = 1), store_id BLOB NOT NULL, revision INTEGER NOT NULL,
        compacted INTEGER NOT NULL
    ) STRICT;";

/// Makes the directory and an empty file if they are missing, closed to others from the first
/// moment; checks them if not.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    let directory = directory(path);
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)
        .map_err(|error| StoreError::system(directory, &error))?;
    match create_file(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(StoreError::system(path, &error)),
        Ok(()) => {}
    }
    for path in [directory, path] {
        let about = fs::metadata(path).map_err(|error| StoreError::system(path, &error))?;
        let mode = about.mode() & 0o7777;
        if mode & MODE_OTHERS != 0 {
            return Err(StoreError::Open { path: path.to_owned(), mode });
        }
    }
    Ok(())
}

/// An empty file that was not there before.
pub(super) fn create_file(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path).map(drop)
}

/// What SQLite keeps beside the file: the write-ahead log and its index.
pub(super) fn beside(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|suffix| with_suffix(path, suffix))
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The connection that writes. Makes the tables in an empty file.
pub(super) fn open_writer(path: &Path, fresh: StoreId) -> Result<Connection, StoreError> {
    let mut writer = connect(path)?;
    let _either = check(path, &writer)?;
    let store_error = |error| store_error(path, &error);
    // Before the tables: an empty file changes its mode at no cost, and nobody sees one
    // without the other.
    writer.pragma_update(None, "journal_mode", "WAL").map_err(store_error)?;
    writer.pragma_update(None, "synchronous", "FULL").map_err(store_error)?;
    writer.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(store_error)?;
    writer.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT).map_err(store_error)?;
    writer.pragma_update(None, "cache_size", CACHE_KIB).map_err(store_error)?;
    make_tables(&mut writer, fresh).map_err(store_error)?;
    Ok(writer)
}

pub(super) fn open_reader(path: &Path, access: Access) -> Result<Connection, StoreError> {
    let reader = match access {
        Access::Used => connect(path)?,
        Access::Kept => connect_to_read(path)?,
    };
    reader.pragma_update(None, "query_only", true).map_err(|error| store_error(path, &error))?;
    Ok(reader)
}

/// A connection to a file that exists.
pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    connect_with(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// A connection that leaves the file as it is.
pub(super) fn connect_to_read(path: &Path) -> Result<Connection, StoreError> {
    connect_with(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn connect_with(path: &Path, access: OpenFlags) -> Result<Connection, StoreError> {
    let store_error = |error| store_error(path, &error);
    // One thread at a time has it: the lock is ours, SQLite needs none.
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(store_error)?;
    connection.busy_timeout(BUSY_MAX).map_err(store_error)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(connection)
}

/// How a store is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Access {
    /// To be read and written.
    Used,
    /// To be read, and left as it lies.
    Kept,
}

/// What a file that passed its check is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Of no use yet, and of no harm.
    Empty,
    /// A keyway store.
    Store,
}

/// Is the file a keyway store of a version that we know, or empty, and are its pages whole?
pub(super) fn check(path: &Path, connection: &Connection) -> Result<Kind, StoreError> {
    let store_error = |error| store_error(path, &error);
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (
        pragma("application_id").map_err(store_error)?,
        pragma("user_version").map_err(store_error)?,
    );
    let is_empty = pragma("schema_version").map_err(store_error)? == 0;
    if application != APPLICATION_ID && !is_empty {
        return Err(StoreError::NotAStore { path: path.to_owned() });
    }
    if version > SCHEMA_VERSION {
        let (found, known) = (version, SCHEMA_VERSION);
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    let first = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
        .map_err(store_error)?;
    if first != "ok" {
        return Err(StoreError::Corrupt { path: path.to_owned(), what: first });
    }
    Ok(if is_empty { Kind::Empty } else { Kind::Store })
}

/// Two processes may come here at once: the second finds all done.
fn make_tables(writer: &mut Connection, fresh: StoreId) -> rusqlite::Result<()> {
    let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == SCHEMA_VERSION {
        return Ok(());
    }
    transaction.execute_batch(SCHEMA)?;
    let sql = "INSERT INTO meta (one, store_id, revision, compacted) VALUES (1, ?1, 0, 0)";
    transaction.execute(sql, [fresh.0])?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// Whose fault it is.
pub(super) fn store_error(path: &Path, error: &rusqlite::Error) -> StoreError {
    let corrupt = || StoreError::Corrupt { path: path.to_owned(), what: error.to_string() };
    // Ours to read and yet not readable as ours: a hand was at it.
    let Some(code) = error.sqlite_error_code() else { return corrupt() };
    #[expect(clippy::wildcard_enum_match_arm, reason = "SQLite adds codes as it grows")]
    match code {
        ErrorCode::DiskFull => StoreError::Full { path: path.to_owned() },
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed => StoreError::Locked { path: path.to_owned() },
        ErrorCode::NotADatabase => StoreError::NotAStore { path: path.to_owned() },
        // `Unknown` is SQLITE_ERROR: every statement of ours is right, so a table is
        // not what we made.
        ErrorCode::DatabaseCorrupt
        | ErrorCode::ConstraintViolation
        | ErrorCode::TypeMismatch
        | ErrorCode::Unknown => corrupt(),
        _ => StoreError::said(path, error),
    }
}
