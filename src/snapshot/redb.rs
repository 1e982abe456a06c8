//! The snapshot store in redb: one file, one transaction a checkpoint.
//!
//! Two-phase commit with quick repair: a reopening after a kill does not walk the file. redb
//! panics on some damaged pages; every call goes through [`guarded`], which makes that an error of
//! kind corruption. It does not sync the directory of its file; the caller does, at creation.
//!
//! redb writes to its file as soon as it opens it. A directory whose log turns out to be damaged is
//! to be left as it was, though, and the log can only be read with what the store says. So the
//! store is opened *held back*: what redb writes stays in memory until [`RedbStorage::release`].

use super::{Changes, Row, Snapshot, Start, Storage, Table};
use crate::disk::{Access, Disk, File};
use crate::error::{Error, ErrorKind, Result};
use parking_lot::RwLock;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Of the page cache, in bytes; redb's own default is a gibibyte.
const CACHE_BYTES: usize = 48 << 20;

type Rows = TableDefinition<'static, &'static [u8], &'static [u8]>;

fn definition(table: Table) -> Rows {
    TableDefinition::new(match table {
        Table::Meta => "meta",
        Table::Series => "series",
        Table::Buckets => "buckets",
        Table::Ids => "ids",
    })
}

#[derive(Debug)]
pub(crate) struct RedbStorage {
    path: PathBuf,
    backend: Arc<Held>,
    /// Taken away by `close`.
    database: RwLock<Option<Database>>,
}

/// redb's file, through the seam.
#[derive(Debug)]
struct Backend(Arc<Held>);

/// A file whose changes are held back in memory until they are released.
#[derive(Debug)]
struct Held {
    file: Arc<dyn File>,
    /// `None`: released, everything goes to the file.
    back: RwLock<Option<HeldBack>>,
}

#[derive(Debug)]
struct HeldBack {
    len: u64,
    /// In the order in which they came.
    writes: Vec<(u64, Vec<u8>)>,
}

impl Held {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let back = self.back.read();
        let Some(back) = &*back else { return self.file.read_at(offset, out) };
        let end = offset + out.len() as u64;
        if end > back.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // What lies behind the file's own end is zero until it is written.
        let in_file = self.file.len()?.clamp(offset, end) - offset;
        let (below, beyond) = out.split_at_mut(in_file as usize);
        self.file.read_at(offset, below)?;
        beyond.fill(0);
        for (at, bytes) in &back.writes {
            let (from, to) = ((*at).max(offset), (at + bytes.len() as u64).min(end));
            if from < to {
                out[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
            }
        }
        Ok(())
    }

    fn release(&self) -> io::Result<()> {
        let mut back = self.back.write();
        if let Some(held) = &*back {
            if self.file.len()? != held.len {
                self.file.set_len(held.len)?;
            }
            for (offset, bytes) in &held.writes {
                self.file.write_at(*offset, bytes)?;
            }
            self.file.sync()?;
        }
        *back = None;
        Ok(())
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        match &*self.0.back.read() {
            Some(back) => Ok(back.len),
            None => self.0.file.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match &mut *self.0.back.write() {
            Some(back) => {
                if len < back.len {
                    // What is cut off must read as zero should the file grow again.
                    let zeros = vec![0; (back.len - len) as usize];
                    back.writes.push((len, zeros));
                }
                back.len = len;
                Ok(())
            }
            None => self.0.file.set_len(len),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.0.back.read().is_some() { Ok(()) } else { self.0.file.sync() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &mut *self.0.back.write() {
            Some(back) => {
                back.len = back.len.max(offset + data.len() as u64);
                back.writes.push((offset, data.to_vec()));
                Ok(())
            }
            None => self.0.file.write_at(offset, data),
        }
    }
}

impl RedbStorage {
    /// Makes a store at `path`, where there is none, with empty tables.
    pub(crate) fn create(disk: &dyn Disk, path: &Path) -> Result<()> {
        let file = disk.create(path).map_err(|e| Error::io("make the snapshot", path, e))?;
        let storage = RedbStorage::on(file, path)?;
        storage.release()?;
        // Tables exist from the start, so that reading never meets a missing one.
        storage.commit(&Changes::default())?;
        storage.close()
    }

    /// Opens the store at `path`, held back until it is [released](RedbStorage::release).
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let file = disk.open(path, Access::Write);
        RedbStorage::on(file.map_err(|e| Error::io("open the snapshot", path, e))?, path)
    }

    fn on(file: Arc<dyn File>, path: &Path) -> Result<Self> {
        let len = file.len().map_err(|e| Error::io("open the snapshot", path, e))?;
        let back = RwLock::new(Some(HeldBack { len, writes: Vec::new() }));
        let backend = Arc::new(Held { file, back });
        let database = guarded(path, || {
            Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(Backend(backend.clone()))
                .map_err(|e| failed(path, redb::Error::from(e)))
        })?;
        Ok(RedbStorage { path: path.to_owned(), backend, database: RwLock::new(Some(database)) })
    }

    /// Lets everything through to the file from now on.
    pub(crate) fn release(&self) -> Result<()> {
        self.backend.release().map_err(|e| Error::io("write the snapshot", &self.path, e))
    }

    fn with<R>(&self, run: impl FnOnce(&Database) -> Result<R, redb::Error>) -> Result<R> {
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(Error::closed)?;
        guarded(&self.path, || run(database).map_err(|e| failed(&self.path, e)))
    }
}

impl Storage for RedbStorage {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        let transaction = self.with(|database| Ok(database.begin_read()?))?;
        Ok(Box::new(RedbSnapshot { path: &self.path, transaction }))
    }

    fn commit(&self, changes: &Changes) -> Result<()> {
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            transaction.set_two_phase_commit(true);
            transaction.set_quick_repair(true);
            for table in Table::ALL {
                let mut rows = transaction.open_table(definition(table))?;
                for (key, value) in &changes.0[table as usize] {
                    match value {
                        Some(value) => rows.insert(key.as_slice(), value.as_slice())?,
                        None => rows.remove(key.as_slice())?,
                    };
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }

    fn close(&self) -> Result<()> {
        let database = self.database.write().take();
        guarded(&self.path, || {
            drop(database);
            Ok(())
        })
    }
}

struct RedbSnapshot<'a> {
    path: &'a Path,
    transaction: redb::ReadTransaction,
}

impl RedbSnapshot<'_> {
    fn with<R>(
        &self,
        table: Table,
        run: impl FnOnce(&redb::ReadOnlyTable<&'static [u8], &'static [u8]>) -> Result<R, redb::Error>,
    ) -> Result<R> {
        guarded(self.path, || {
            let rows = self
                .transaction
                .open_table(definition(table))
                .map_err(|e| failed(self.path, redb::Error::from(e)))?;
            run(&rows).map_err(|e| failed(self.path, e))
        })
    }
}

impl Snapshot for RedbSnapshot<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.with(table, |rows| Ok(rows.get(key)?.map(|value| value.value().to_vec())))
    }

    fn range(
        &self,
        table: Table,
        from: Start<'_>,
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        let from = match from {
            Start::At(key) => Bound::Included(key),
            Start::Behind(key) => Bound::Excluded(key),
        };
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        if let (Bound::Included(a) | Bound::Excluded(a), Bound::Excluded(b)) = (from, to)
            && a >= b
        {
            return Ok(Vec::new());
        }
        self.with(table, |rows| {
            let mut out = Vec::new();
            for row in rows.range::<&[u8]>((from, to))?.take(limit) {
                let (key, value) = row?;
                out.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(out)
        })
    }
}

/// Runs `run`; a panic in it, which redb has on some damaged pages, is corruption.
fn guarded<R>(path: &Path, run: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let why = panic
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Err(Error::new(ErrorKind::Corruption, format!("the snapshot is damaged: {why}"))
            .at(path, None))
    })
}

fn failed(path: &Path, error: redb::Error) -> Error {
    match error {
        redb::Error::Io(e) => Error::io("use the snapshot", path, e),
        redb::Error::Corrupted(why) => {
            Error::new(ErrorKind::Corruption, format!("the snapshot is damaged: {why}"))
                .at(path, None)
        }
        redb::Error::UpgradeRequired(version) => Error::new(
            ErrorKind::NewerFormat,
            format!(
                "the snapshot has redb's file format {version}, which this software does not read"
            ),
        )
        .at(path, None),
        other => Error::new(ErrorKind::Io, format!("the snapshot cannot be used: {other}"))
            .at(path, None)
            .because(other),
    }
}
