//! Snapshots of Quipu in SQLite: a store of one's own, whole enough to be used.
//!
//! The rows of a directory lie in the file `state.sqlite` inside of it. How this keeps the promises of
//! [`Storage`]:
//!
//! 1. Ordered keys: a table `WITHOUT ROWID` by a key of type `BLOB`, which SQLite compares as bytes.
//! 2. Atomic, durable commits: one transaction each, of a database in WAL mode with
//!    `synchronous = FULL`: the log of SQLite is synced before a commit returns.
//! 3. One state: a snapshot is a read transaction, on a connection of its own. In WAL mode it goes on
//!    seeing what was there when it began, and neither waits for a commit nor is waited for.
//! 4. Threads: a connection is used by one thread at a time. Those that are not in use wait in a pool,
//!    so that a question does not open a file.
//! 5. Dying is allowed: SQLite recovers from its log when it is opened.
//!
//! It is slower than redb's store and larger on disk; what it has for it is that other programs can
//! read the file (the values are Quipu's own encoding, though).

use quipu::storage::{Changes, Snapshot, Start, Storage, Table};
use quipu::{Error, ErrorKind, Result};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The name by which a directory knows this store.
pub const NAME: &str = "sqlite";

/// A row of a result: key and value.
type Row = (Vec<u8>, Vec<u8>);

/// The rows of one directory.
pub struct SqliteStorage {
    path: PathBuf,
    writer: Mutex<Connection>,
    /// Connections for snapshots that nobody uses at the moment.
    readers: Mutex<Vec<Connection>>,
}

/// A read transaction; its connection goes back to the pool.
struct SqliteSnapshot<'a> {
    store: &'a SqliteStorage,
    /// Taken away when this is dropped.
    connection: Option<Connection>,
}

/// Options that open directories with this store.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("shop");
/// use quipu::{Event, View};
///
/// let db = quipu_sqlite::options().view(View::new("all")).open(&dir)?;
/// db.record(&Event::new("sale"))?;
/// db.close()?;
/// assert!(dir.join("state.sqlite").exists());
/// # Ok::<(), quipu::Error>(())
/// ```
pub fn options() -> quipu::Options {
    quipu::Options::new().storage(NAME, SqliteStorage::open)
}

impl SqliteStorage {
    /// Opens the store of the directory `dir`, made empty if it is missing.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Corruption`.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("state.sqlite");
        let writer = Connection::open(&path).and_then(|writer| {
            writer.pragma_update(None, "journal_mode", "wal")?;
            writer.pragma_update(None, "synchronous", "full")?;
            for table in Table::ALL {
                let name = table.name();
                writer.execute(
                    &format!(
                        "CREATE TABLE IF NOT EXISTS {name} \
                         (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
                    ),
                    [],
                )?;
            }
            Ok(writer)
        });
        let writer = Mutex::new(writer.map_err(|e| failed("open", e))?);
        Ok(SqliteStorage { path, writer, readers: Mutex::default() })
    }

    fn reader(&self) -> rusqlite::Result<Connection> {
        if let Some(connection) = locked(&self.readers).pop() {
            return Ok(connection);
        }
        // Not for reading only: the first reader after a crash may have to recover.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(&self.path, flags)
    }
}

impl Storage for SqliteStorage {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        let begun = self.reader().and_then(|connection| {
            // A transaction begins with its first read.
            connection.execute_batch("BEGIN")?;
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
            Ok(connection)
        });
        let connection = Some(begun.map_err(|e| failed("begin to read", e))?);
        Ok(Box::new(SqliteSnapshot { store: self, connection }))
    }

    fn commit(&self, changes: &Changes) -> Result<()> {
        let mut writer = locked(&self.writer);
        let commit = |writer: &mut Connection| {
            // Dropped before it is committed it is rolled back.
            let transaction = writer.transaction()?;
            for table in Table::ALL {
                let name = table.name();
                let mut put = transaction
                    .prepare_cached(&format!("INSERT OR REPLACE INTO {name} VALUES (?, ?)"))?;
                let mut delete =
                    transaction.prepare_cached(&format!("DELETE FROM {name} WHERE key = ?"))?;
                for (key, value) in changes.of(table) {
                    match value {
                        Some(value) => put.execute(params![key, value])?,
                        None => delete.execute(params![key])?,
                    };
                }
            }
            transaction.commit()
        };
        commit(&mut writer).map_err(|e| failed("commit", e))
    }

    fn close(&self) -> Result<()> {
        locked(&self.readers).clear();
        // What is in SQLite's log goes into its file; both are recovered together otherwise.
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        let checkpointed = locked(&self.writer).query_row(checkpoint, [], |_| Ok(()));
        checkpointed.map_err(|e| failed("close", e))
    }
}

impl SqliteSnapshot<'_> {
    fn with<R>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<R>) -> Result<R> {
        let Some(connection) = &self.connection else {
            return Err(Error::of_storage(ErrorKind::Io, "the snapshot has ended"));
        };
        read(connection).map_err(|e| failed("read", e))
    }
}

impl Snapshot for SqliteSnapshot<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.with(|connection| {
            let get = format!("SELECT value FROM {} WHERE key = ?", table.name());
            connection.prepare_cached(&get)?.query_row([key], |row| row.get(0)).optional()
        })
    }

    fn range(
        &self,
        table: Table,
        from: Start<'_>,
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        let (compared, key) = match from {
            Start::At(key) => (">=", key),
            Start::Behind(key) => (">", key),
        };
        let before = if to.is_some() { "AND key < ?2" } else { "AND ?2 IS NULL" };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.with(|connection| {
            let name = table.name();
            let range = format!(
                "SELECT key, value FROM {name} WHERE key {compared} ?1 {before} ORDER BY key LIMIT ?3"
            );
            let mut range = connection.prepare_cached(&range)?;
            let rows = range.query_map(params![key, to, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
    }
}

impl Drop for SqliteSnapshot<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // One that cannot be ended is closed, which ends it, too.
        if connection.execute_batch("ROLLBACK").is_ok() {
            locked(&self.store.readers).push(connection);
        }
    }
}

/// Nothing in here is left half-done by a panic: transactions that were not committed are not.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the engine decides by is the kind.
fn failed(doing: &str, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ErrorKind::NoSpace,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corruption,
        _ => ErrorKind::Io,
    };
    Error::of_storage(kind, format!("cannot {doing}: {error}")).because(error)
}
