//! Rows of `state.redb` with right checksums and any content, by `guide/format.md`.

use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// The tables, each in the place by which the targets call it.
pub const TABLES: [&str; 4] = ["meta", "series", "buckets", "ids"];
/// The place of the table that has the catalog.
pub const META: usize = 0;
/// The place of the rows of series.
pub const SERIES: usize = 1;
/// The key of its row.
pub const CATALOG: &[u8] = b"catalog";

/// A key and its stored value.
pub type Row = (Vec<u8>, Vec<u8>);

/// A stored value: version, checksum over key, version and payload, payload.
pub fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut sum = crc32fast::Hasher::new();
    sum.update(key);
    sum.update(&[1]);
    sum.update(payload);
    [&[1], &sum.finalize().to_le_bytes()[..], payload].concat()
}

/// The payload of a stored value.
pub fn payload(value: &[u8]) -> &[u8] {
    &value[5..]
}

/// The rows of every table of a store.
pub fn rows(store: &[u8]) -> [Vec<Row>; 4] {
    let memory = Memory::new(store);
    let database = open(&memory);
    let transaction = database.begin_read().expect("reads");
    TABLES.map(|name| {
        let table = transaction.open_table(definition(name)).expect("is there");
        let rows = table.iter().expect("reads").map(|row| row.expect("reads"));
        rows.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).collect()
    })
}

/// A table by its place, a key, and its new value; none takes the row out.
pub type Change = (usize, Vec<u8>, Option<Vec<u8>>);

/// The store with some rows changed.
pub fn changed(store: &[u8], changes: &[Change]) -> Vec<u8> {
    let memory = Memory::new(store);
    let database = open(&memory);
    let mut transaction = database.begin_write().expect("writes");
    transaction.set_quick_repair(true);
    for (table, key, value) in changes {
        let mut table = transaction.open_table(definition(TABLES[*table])).expect("is there");
        match value {
            Some(value) => table.insert(key.as_slice(), value.as_slice()).expect("inserts"),
            None => table.remove(key.as_slice()).expect("removes"),
        };
    }
    transaction.commit().expect("commits");
    drop(database);
    memory.take()
}

fn definition(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

fn open(memory: &Memory) -> Database {
    Database::builder().create_with_backend(memory.clone()).expect("was written by the engine")
}

/// A file in memory.
#[derive(Clone, Debug)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn new(bytes: &[u8]) -> Self {
        Memory(Arc::new(Mutex::new(bytes.to_vec())))
    }

    fn take(self) -> Vec<u8> {
        std::mem::take(&mut self.bytes())
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("nobody panics with it")
    }
}

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        let bytes = self.bytes();
        let found = bytes.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.bytes()[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }
}
