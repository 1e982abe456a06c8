//! The stores: each is opened, written and read as its documentation says, with what makes a record
//! durable before the call that writes it returns, and without what would move it out of the log.
//!
//! One call opens a store, whether it is made, or there already. What it is asked for afterwards,
//! it is asked as a user would: for all records, without the checks that some stores have besides.

use crate::{Record, Result};
use quipu::{Durability, Event, Options, TestClock, Timestamp, View};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use rusqlite::{Connection, params};
use std::path::Path;
use std::time::Duration;

/// A store, in the version that it was built with.
#[derive(Clone, Copy, Debug)]
pub struct Store {
    /// What it is called in the table.
    pub name: &'static str,
    /// The crate whose version stands in `Cargo.lock`.
    pub package: &'static str,
    /// Opens what is in a directory, or makes it there.
    pub open: fn(&Path) -> Result<Box<dyn Opened>>,
}

/// All of them, in the order of the table.
pub const STORES: [Store; 4] = [
    Store { name: "SQLite", package: "rusqlite", open: sqlite },
    Store { name: "sled", package: "sled", open: sled },
    Store { name: "redb", package: "redb", open: redb },
    Store { name: "Quipu", package: "quipu", open: quipu },
];

/// A store that is open; dropping it closes it.
pub trait Opened {
    /// Writes a record and makes it durable.
    ///
    /// # Errors
    /// Whatever the store says.
    fn write(&self, record: &Record) -> Result<()>;

    /// Everything that is there, in any order.
    ///
    /// # Errors
    /// Whatever the store says.
    fn read(&self) -> Result<Vec<Record>>;
}

/// The write-ahead log keeps all commits until the connection is closed: nothing checkpoints by
/// itself.
fn sqlite(dir: &Path) -> Result<Box<dyn Opened>> {
    let connection = Connection::open(dir.join("records.sqlite"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS records (name BLOB PRIMARY KEY, text BLOB NOT NULL)",
    )?;
    Ok(Box::new(connection))
}

impl Opened for Connection {
    fn write(&self, record: &Record) -> Result<()> {
        let mut insert = self.prepare_cached("INSERT INTO records VALUES (?1, ?2)")?;
        insert.execute(params![record.name, record.text])?;
        Ok(())
    }

    fn read(&self) -> Result<Vec<Record>> {
        let mut select = self.prepare("SELECT name, text FROM records")?;
        let rows =
            select.query_map([], |row| Ok(Record { name: row.get(0)?, text: row.get(1)? }))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

/// Flushed by each write, and by no thread of its own.
fn sled(dir: &Path) -> Result<Box<dyn Opened>> {
    let config = sled::Config::new().path(dir.join("records.sled")).flush_every_ms(None);
    Ok(Box::new(config.open()?))
}

impl Opened for sled::Db {
    fn write(&self, record: &Record) -> Result<()> {
        self.insert(&record.name, record.text.as_slice())?;
        self.flush()?;
        Ok(())
    }

    fn read(&self) -> Result<Vec<Record>> {
        let record = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
            let (name, text) = entry?;
            Ok(Record { name: name.to_vec(), text: text.to_vec() })
        };
        self.iter().map(record).collect()
    }
}

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// A commit is durable unless it is told otherwise.
fn redb(dir: &Path) -> Result<Box<dyn Opened>> {
    let database = redb::Database::create(dir.join("records.redb"))?;
    let making = database.begin_write()?;
    making.open_table(TABLE)?;
    making.commit()?;
    Ok(Box::new(database))
}

impl Opened for redb::Database {
    fn write(&self, record: &Record) -> Result<()> {
        let writing = self.begin_write()?;
        writing.open_table(TABLE)?.insert(record.name.as_slice(), record.text.as_slice())?;
        writing.commit()?;
        Ok(())
    }

    fn read(&self) -> Result<Vec<Record>> {
        let table = self.begin_read()?.open_table(TABLE)?;
        let mut records = Vec::new();
        for entry in table.iter()? {
            let (name, text) = entry?;
            records.push(Record { name: name.value().to_vec(), text: text.value().to_vec() });
        }
        Ok(records)
    }
}

const VIEW: &str = "records";

/// Each record is an event, which a view counts by name and text. No checkpoint is made before the
/// engine is closed. The clock stands still, so that each run writes the same.
fn quipu(dir: &Path) -> Result<Box<dyn Opened>> {
    let db = Options::new()
        .durability(Durability::Sync)
        .checkpoint_every(Duration::from_secs(1 << 30))
        .clock(TestClock::at(Timestamp::from_secs(1_700_000_000)))
        .view(View::new(VIEW).by(["name", "text"]))
        .open(dir.join("records.quipu"))?;
    Ok(Box::new(db))
}

impl Opened for quipu::Db {
    fn write(&self, record: &Record) -> Result<()> {
        let (name, text) = (str::from_utf8(&record.name)?, str::from_utf8(&record.text)?);
        self.record(&Event::new("written").dim("name", name).dim("text", text))?;
        Ok(())
    }

    /// A record that was counted more than once is there twice, which is wrong.
    fn read(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for row in self.query(VIEW)?.rows()? {
            let row = row?;
            let [name, text] = row.key.as_slice() else {
                return Err("a key that has not two parts".into());
            };
            let record =
                Record { name: name.clone().into_bytes(), text: text.clone().into_bytes() };
            records.extend(std::iter::repeat_n(record, row.count.min(2) as usize));
        }
        Ok(records)
    }
}
