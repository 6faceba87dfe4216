//! What the file says of itself, and its revisions as SQLite keeps them.

use rusqlite::types::FromSqlError;
use rusqlite::{Connection, Row};

use crate::registry::store::{Head, Revision, StoreError, StoreId};

/// The row of `meta`.
pub(super) struct Meta {
    pub(super) head: Head,
    pub(super) compacted: Revision,
}

impl Meta {
    /// # Errors
    /// [`StoreError::Future`] if `revision` is one that nobody can have got from this store.
    pub(super) fn reached(&self, revision: Revision) -> Result<(), StoreError> {
        let Head { store_id, revision: current } = self.head;
        if revision > current { Err(StoreError::Future { store_id, current }) } else { Ok(()) }
    }
}

pub(super) fn meta(connection: &Connection) -> rusqlite::Result<Meta> {
    let mut statement =
        connection.prepare_cached("SELECT store_id, revision, compacted FROM meta")?;
    statement.query_row([], |row| {
        let head = Head { store_id: StoreId(row.get(0)?), revision: revision(row, 1)? };
        Ok(Meta { head, compacted: revision(row, 2)? })
    })
}

/// SQLite's integers are signed.
pub(super) fn number(revision: Revision) -> i64 {
    revision.0.try_into().unwrap_or(i64::MAX)
}

pub(super) fn revision(row: &Row<'_>, column: usize) -> rusqlite::Result<Revision> {
    let number: i64 = row.get(column)?;
    Ok(Revision(number.try_into().map_err(|_| FromSqlError::OutOfRange(number))?))
}
