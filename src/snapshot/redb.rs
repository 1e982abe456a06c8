//! The snapshot store in redb: one file, one transaction a checkpoint.
//!
//! Two-phase commit with quick repair: a reopening after a kill does not walk the file. redb
//! panics on some damaged pages; every call goes through [`guarded`], which makes that an error of
//! kind corruption. It does not sync the directory of its file; the caller does, at creation.
//!
//! redb does not compare what it reads with its checksums, and on a damaged page it may panic once
//! more while it unwinds, which ends the process. So its own check of all pages comes before
//! anything is written to a file that was there: at opening where the file is small
//! ([`CHECKED_BYTES`]), else with the first commit. Until then a look-up that finds nothing proves
//! it: the rows before and behind the place where it should be must be whole and in order.
//!
//! What was in order when it was checked may be read otherwise later. So what each block of the file was is
//! remembered, from the check on or from when it was first read or written (`sums.rs`).
//!
//! redb writes to its file as soon as it opens it. A directory whose log turns out to be damaged is
//! to be left as it was, though, and the log can only be read with what the store says. So the
//! store is opened *held back*: what redb writes stays in memory until the first commit. An opening
//! that only asks writes nothing at all. A store that is missing is made the same way: in memory,
//! then under another name, which is changed when the file is whole and synced.
//!
//! After an operation on its file that failed, redb refuses everything until it is opened again. So it is
//! opened again, by the next one who asks, held back as at first: reading goes on where nothing can be
//! written, and the commit that failed, or another, is tried when there is room again. The file may show a
//! header by then whose sync failed, and no sync makes up for that; it is written anew before anything
//! is put in a place that the header on the disk may still need.
//!
//! redb knows nothing of readers in other processes. So the owner holds the lock of the file while it
//! changes it, and others copy it under a shared one ([`RedbStorage::open_copy`]): a copy is the state
//! of one commit, whole.

use super::held::Held;
use super::sums::Sums;
use super::{Changes, Row, Snapshot, Start, Storage, Table, message_of};
use crate::disk::{self, Access, Disk, File, Hold, Sharing};
use crate::error::{Error, ErrorKind, Result};
use parking_lot::RwLock;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use std::cmp::Ordering;
use std::io;
use std::ops::RangeBounds;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

/// Of the page cache, in bytes; redb's own default is a gibibyte.
const CACHE_BYTES: usize = 48 << 20;

/// Files up to this size are checked when they are opened.
const CHECKED_BYTES: u64 = 16 << 20;

type Rows = TableDefinition<'static, &'static [u8], &'static [u8]>;

fn definition(table: Table) -> Rows {
    TableDefinition::new(table.name())
}

#[derive(Debug)]
pub(crate) struct RedbStorage {
    path: PathBuf,
    held: Arc<Held>,
    /// Taken away by `close`.
    database: RwLock<Option<Instance>>,
    /// Every page was compared with its checksum, or written by this opening.
    checked: AtomicBool,
}

/// redb, as it was opened once.
#[derive(Debug)]
struct Instance {
    database: Database,
    /// An operation on its file failed: it is of no use any more.
    failed: Arc<AtomicBool>,
}

/// redb's file, through the seam, for one instance.
#[derive(Debug)]
struct Backend {
    held: Arc<Held>,
    failed: Arc<AtomicBool>,
}

impl Backend {
    /// From the first operation on the file that fails there are no others: an instance that is still read
    /// from must not see what the next one writes. To be called with the state held, without which there is
    /// no next one.
    fn attempt<R>(&self, operation: impl FnOnce(&Sums) -> io::Result<R>) -> io::Result<R> {
        if self.failed.load(SeqCst) {
            return Err(io::Error::other("an earlier operation on the file failed"));
        }
        operation(&self.held.sums).inspect_err(|_| self.failed.store(true, SeqCst))
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        let state = self.held.state.read();
        self.attempt(|_| state.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.held.state.read();
        self.attempt(|sums| state.read(sums, offset, out))
    }

    fn set_len(&self, new: u64) -> io::Result<()> {
        let mut state = self.held.state.write();
        self.attempt(|sums| state.set_len(sums, new))
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = self.held.state.read();
        self.attempt(|_| state.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.held.state.write();
        self.attempt(|sums| state.write(sums, offset, data))
    }
}

/// As much of the file changes with each commit: redb's header, with its transaction numbers.
const STAMP_BYTES: usize = 512;

/// Keeps the owner of a store from changing it.
pub(crate) struct StoreHold {
    file: Arc<dyn File>,
    _hold: Hold,
}

impl StoreHold {
    /// Waits for the commit under way, if there is one. `None`: there is no store.
    pub(crate) fn take(disk: &Arc<dyn Disk>, path: &Path) -> Result<Option<Self>> {
        let file = match disk.open(path, Access::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|e| Error::io("open the snapshot", path, e))?,
        };
        let hold = disk::hold(&file, Sharing::Readers);
        let hold = hold.map_err(|e| Error::io("lock the snapshot for reading", path, e))?;
        Ok(Some(StoreHold { file, _hold: hold }))
    }

    /// Another number after each commit.
    pub(crate) fn stamp(&self) -> io::Result<u64> {
        let mut header = [0; STAMP_BYTES];
        let bytes = (self.file.len()? as usize).min(STAMP_BYTES);
        self.file.read_at(0, &mut header[..bytes])?;
        Ok(xxhash_rust::xxh3::xxh3_64(&header))
    }
}

impl RedbStorage {
    /// Opens the store at `path`, or one that will be made there, held back until the first commit.
    pub(crate) fn open(disk: &Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let fail = |e| Error::io("open the snapshot", path, e);
        let exists = disk.exists(path).map_err(fail)?;
        let file = if exists { Some(disk.open(path, Access::Read).map_err(fail)?) } else { None };
        let len = file.map_or(Ok(0), |file| file.len()).map_err(fail)?;
        let sums = Arc::<Sums>::default();
        if len <= CHECKED_BYTES && exists {
            Self::check_with(disk, path, &sums)?;
        }
        let storage = Self::opened(disk, path, Access::Write, sums)?;
        storage.checked.store(len <= CHECKED_BYTES, SeqCst);
        Ok(storage)
    }

    /// Has redb compare every page of the file at `path` with its checksum.
    pub(crate) fn check(disk: &Arc<dyn Disk>, path: &Path) -> Result<()> {
        Self::check_with(disk, path, &Arc::default())
    }

    /// The same of a file of whose blocks something is known.
    fn check_with(disk: &Arc<dyn Disk>, path: &Path, sums: &Arc<Sums>) -> Result<()> {
        // In an instance of its own: redb wants to be alone for it, and mends what it finds.
        if Self::opened(disk, path, Access::Read, sums.clone())?.check_integrity()? {
            sums.prove();
            return Ok(());
        }
        let message = "the snapshot is damaged: its pages are not what its checksums say";
        Err(Error::new(ErrorKind::Corruption, message).at(path, None))
    }

    /// Opens the store without looking at more of it than that needs. It is to be read only, also
    /// where nothing can be written.
    pub(crate) fn inspect(disk: &Arc<dyn Disk>, path: &Path) -> Result<Self> {
        Self::opened(disk, path, Access::Read, Arc::default())
    }

    fn opened(disk: &Arc<dyn Disk>, path: &Path, access: Access, sums: Arc<Sums>) -> Result<Self> {
        let fail = |e| Error::io("open the snapshot", path, e);
        let file = if disk.exists(path).map_err(fail)? {
            Some(disk.open(path, access).map_err(fail)?)
        } else {
            None
        };
        Self::open_held(disk, path, file, sums, access == Access::Write)
    }

    /// Opens a copy of the store at `path`, which another process may own; what changes there later
    /// is not in it. No commit is made there while the hold is kept. Without a store there is no hold
    /// either.
    ///
    /// The copy takes as much space among the system's temporary files as the store has.
    pub(crate) fn open_copy(
        disk: &Arc<dyn Disk>,
        path: &Path,
    ) -> Result<(Self, Option<StoreHold>)> {
        let fail = |e| Error::io("copy the snapshot", path, e);
        let Some(hold) = StoreHold::take(disk, path)? else {
            return Ok((Self::open_held(disk, path, None, Arc::default(), false)?, None));
        };
        let len = hold.file.len().map_err(fail)?;
        let copy = disk.scratch().map_err(fail)?;
        disk::each_block(&*hold.file, path, 0..len, "copy the snapshot", &mut |at, block| {
            copy.write_at(at, block).map_err(fail)
        })?;
        Ok((Self::open_held(disk, path, Some(copy), Arc::default(), false)?, Some(hold)))
    }

    /// A store that will be made at `path`, where nothing is when it is first committed to.
    pub(crate) fn anew(disk: &Arc<dyn Disk>, path: &Path) -> Result<Self> {
        Self::open_held(disk, path, None, Arc::default(), true)
    }

    fn open_held(
        disk: &Arc<dyn Disk>,
        path: &Path,
        file: Option<Arc<dyn File>>,
        sums: Arc<Sums>,
        is_written: bool,
    ) -> Result<Self> {
        let is_new = file.is_none();
        let held = Held::new(disk, path, file, sums, is_written);
        let held = Arc::new(held.map_err(|e| Error::io("open the snapshot", path, e))?);
        if !is_new && held.state.read().len().is_ok_and(|len| len == 0) {
            return Err(Error::corruption(path, 0, "the snapshot is empty"));
        }
        let instance = Instance::open(&held)?;
        if is_new {
            // Tables exist from the start, so that reading never meets a missing one.
            guarded(&held, || instance.write(&Changes::default()).map_err(|e| failed(path, e)))?;
        }
        let database = RwLock::new(Some(instance));
        let checked = AtomicBool::new(is_new);
        Ok(RedbStorage { path: path.to_owned(), held, database, checked })
    }

    /// Reads every page and compares it with redb's own checksums; whether all is in order. Held
    /// back as the store is, nothing of it reaches the file. No snapshot may be open.
    pub(crate) fn check_integrity(&self) -> Result<bool> {
        self.recover()?;
        let mut instance = self.database.write();
        let instance = instance.as_mut().ok_or_else(Error::closed)?;
        guarded(&self.held, || {
            let Instance { database, .. } = instance;
            database.check_integrity().map_err(|e| failed(&self.path, redb::Error::from(e)))
        })
    }

    /// Calls `see` with every row of a table that can be reached: from the front up to the first
    /// damaged page, and from the end back to the last one. What was seen twice is told twice.
    pub(crate) fn each_readable(
        &self,
        table: Table,
        see: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<()> {
        let mut whole = false;
        for backwards in [false, true] {
            let walked = self.with(|database| {
                let rows = database.begin_read()?.open_table(definition(table))?;
                let mut range = rows.range::<&[u8]>(..)?;
                while let Some(row) = if backwards { range.next_back() } else { range.next() } {
                    let (key, value) = row?;
                    see(key.value(), value.value());
                }
                Ok(())
            });
            match walked {
                Ok(()) => whole = true,
                Err(error) if error.kind() == ErrorKind::Corruption => {}
                Err(error) => return Err(error),
            }
            if whole {
                break;
            }
        }
        Ok(())
    }

    /// The file that holds the last commit, if there is one. It stays as it is between commits.
    pub(crate) fn file(&self) -> Option<Arc<dyn File>> {
        self.held.file()
    }

    fn with<R>(&self, run: impl FnOnce(&Database) -> Result<R, redb::Error>) -> Result<R> {
        self.recover()?;
        let instance = self.database.read();
        let Instance { database, failed } = instance.as_ref().ok_or_else(Error::closed)?;
        let result = guarded(&self.held, || run(database).map_err(|e| self::failed(&self.path, e)));
        result.inspect_err(|error| self.held.doubt(failed, self.checked.load(SeqCst), error))
    }

    /// Ends the holding back; nobody else may change the file until what this gives is dropped.
    fn release(&self) -> Result<Option<Hold>> {
        // Before what it holds back is written.
        self.recover()?;
        self.held.release().map_err(|e| Error::io("write the snapshot", &self.path, e))
    }

    /// Commits to the released file.
    fn write(&self, changes: &Changes) -> Result<()> {
        let instance = self.database.read();
        let instance = instance.as_ref().ok_or_else(Error::closed)?;
        // Who reads may have failed since, and opened redb again: what it writes would be held back, and
        // is not told to be durable. From here on nobody does.
        if instance.failed.load(SeqCst) || self.held.released().is_none() {
            let error = io::Error::other("somebody who read it failed meanwhile");
            return Err(Error::io("write the snapshot", &self.path, error));
        }
        let write = || instance.write(changes).map_err(|e| failed(&self.path, e));
        // redb wants to be opened again after some other errors, too.
        guarded(&self.held, write).inspect_err(|_| instance.failed.store(true, SeqCst))
    }

    /// Has redb opened again before anything else is done.
    fn fail(&self) {
        self.database.read().iter().for_each(|instance| instance.failed.store(true, SeqCst));
    }

    /// Opens redb again if it failed.
    fn recover(&self) -> Result<()> {
        let has_failed = |instance: &Option<Instance>| {
            instance.as_ref().is_some_and(|instance| instance.failed.load(SeqCst))
        };
        if !has_failed(&self.database.read()) {
            return Ok(());
        }
        let mut instance = self.database.write();
        // Somebody else may have been here in between.
        if !has_failed(&instance) {
            return Ok(());
        }
        tracing::warn!(path = %self.path.display(), "the snapshot is opened again after an error");
        let next = self
            .held
            .hold_back()
            .and_then(|()| Instance::open(&self.held).inspect_err(|_| self.held.let_go()))?;
        let before = instance.replace(next);
        if self.held.panicked.swap(false, SeqCst) {
            std::mem::forget(before);
            return Ok(());
        }
        // It does nothing any more to the file.
        let dropped = guarded(&self.held, || {
            drop(before);
            Ok(())
        });
        if let Err(error) = dropped {
            tracing::debug!(%error, "a failed snapshot was let go");
        }
        Ok(())
    }
}

impl Instance {
    fn open(held: &Arc<Held>) -> Result<Self> {
        let failed = Arc::new(AtomicBool::new(false));
        let backend = Backend { held: held.clone(), failed: failed.clone() };
        guarded(held, || {
            let database = Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(backend)
                .map_err(|e| self::failed(&held.path, redb::Error::from(e)))?;
            Ok(Instance { database, failed })
        })
    }

    fn write(&self, changes: &Changes) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
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
    }
}

impl Storage for RedbStorage {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        self.recover()?;
        let instance = self.database.read();
        let Instance { database, failed } = instance.as_ref().ok_or_else(Error::closed)?;
        let (failed, checked) = (failed.clone(), self.checked.load(SeqCst));
        let begin = || database.begin_read().map_err(|e| self::failed(&self.path, e.into()));
        let transaction = guarded(&self.held, begin)?;
        Ok(Box::new(RedbSnapshot { held: &self.held, failed, checked, transaction }))
    }

    fn commit(&self, changes: &Changes) -> Result<()> {
        if !self.checked.load(SeqCst) {
            let checked = Self::check_with(&self.held.disk, &self.path, &self.held.sums);
            // What is read rightly next time may lie wrongly in redb's memory.
            checked.inspect_err(|_| self.fail())?;
            self.checked.store(true, SeqCst);
        }
        let _hold = self.release()?;
        self.write(changes)
    }

    fn close(&self) -> Result<()> {
        // redb writes when it is closed, if it has written before.
        let hold = self.held.released().map(|file| disk::hold(&file, Sharing::Nobody)).transpose();
        let _hold = hold.map_err(|e| Error::io("close the snapshot", &self.path, e))?;
        let database = self.database.write().take();
        if self.held.panicked.load(SeqCst) {
            // What a panic has left can be let go in no other way; it is memory and a file handle.
            std::mem::forget(database);
            return Ok(());
        }
        if self.held.released().is_none() {
            // Nothing was written, so nothing is to be finished. redb would, with a commit of its own,
            // in memory, over pages that nobody has checked; it does not while its thread unwinds.
            let _ = catch_unwind(AssertUnwindSafe(move || {
                let _let_go = database;
                std::panic::resume_unwind(Box::new(()));
            }));
            return Ok(());
        }
        guarded(&self.held, || {
            drop(database);
            Ok(())
        })
    }
}

impl Drop for RedbStorage {
    /// redb works when it is dropped, and panics then, too, where it did before.
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::debug!(%error, "a damaged snapshot was let go");
        }
    }
}

impl RedbStorage {
    /// Calls `see` with every row of a table, in the order of their keys. What `see` does is its own matter;
    /// all that redb does, letting go of pages included, is guarded.
    pub(super) fn each(&self, table: Table, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let fail = |e: redb::Error| failed(&self.path, e);
        let transaction = self.with(|database| Ok(database.begin_read()?))?;
        let mut rows = guarded(&self.held, || {
            let rows = transaction.open_table(definition(table)).map_err(|e| fail(e.into()))?;
            rows.range::<&[u8]>(..).map_err(|e| fail(e.into()))
        })?;
        let (mut before, mut key, mut value) = (Vec::new(), Vec::new(), Vec::new());
        let read = loop {
            std::mem::swap(&mut before, &mut key);
            let next = guarded(&self.held, || {
                let row = rows.next().transpose().map_err(|e| fail(e.into()))?;
                let Some((found, of_it)) = row else { return Ok(false) };
                key.clear();
                key.extend_from_slice(found.value());
                value.clear();
                value.extend_from_slice(of_it.value());
                // (As in `range`; no key is empty.)
                if before >= key {
                    return Err(fail(redb::Error::Corrupted("rows are out of order".to_owned())));
                }
                Ok(true)
            });
            match next {
                Ok(true) => see(&key, &value),
                end => break end.map(|_| ()),
            }
        };
        guarded(&self.held, || {
            drop((rows, transaction));
            Ok(())
        })?;
        read
    }
}

struct RedbSnapshot<'a> {
    held: &'a Held,
    /// The instance's.
    failed: Arc<AtomicBool>,
    checked: bool,
    transaction: redb::ReadTransaction,
}

impl RedbSnapshot<'_> {
    fn with<R>(
        &self,
        table: Table,
        run: impl FnOnce(&redb::ReadOnlyTable<&'static [u8], &'static [u8]>) -> Result<R, redb::Error>,
    ) -> Result<R> {
        let path = &self.held.path;
        let result = guarded(self.held, || {
            let rows = self
                .transaction
                .open_table(definition(table))
                .map_err(|e| failed(path, redb::Error::from(e)))?;
            run(&rows).map_err(|e| failed(path, e))
        });
        result.inspect_err(|error| self.held.doubt(&self.failed, self.checked, error))
    }
}

impl Snapshot for RedbSnapshot<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.with(table, |rows| {
            if let Some(value) = rows.get(key)? {
                return Ok(Some(value.value().to_vec()));
            }
            if self.checked {
                return Ok(None);
            }
            // A flipped bit in the key, or in one above it that leads there, would hide the row.
            // Then one of its neighbours is not whole, or on the wrong side.
            let before = rows.range::<&[u8]>(..key)?.next_back().transpose()?;
            let behind = rows.range::<&[u8]>(key..)?.next().transpose()?;
            for (row, ordered) in [(before, Ordering::Less), (behind, Ordering::Greater)] {
                let Some((other, value)) = row else { continue };
                if other.value().cmp(key) != ordered
                    || crate::codec::unseal(other.value(), value.value()).is_err()
                {
                    let what = "a row beside the one that is looked for is not whole";
                    return Err(redb::Error::Corrupted(what.to_owned()));
                }
            }
            Ok(None)
        })
    }

    fn range(
        &self,
        table: Table,
        from: Start<'_>,
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        let Some(bounds) = from.bounds(to) else { return Ok(Vec::new()) };
        self.with(table, |rows| {
            let mut out: Vec<Row> = Vec::new();
            for row in rows.range::<&[u8]>(bounds)?.take(limit) {
                let (key, value) = row?;
                let key = key.value();
                // redb does not check its branch pages when it reads them. A damaged one leads to
                // leaves that belong elsewhere, and then keys are out of order or out of bounds.
                let ordered = out.last().is_none_or(|(last, _)| last.as_slice() < key)
                    && RangeBounds::<[u8]>::contains(&bounds, key);
                if !ordered {
                    return Err(redb::Error::Corrupted("rows are out of order".to_owned()));
                }
                out.push((key.to_vec(), value.value().to_vec()));
            }
            Ok(out)
        })
    }
}

/// Runs `run`; a panic in it, which redb has on some damaged pages, is corruption.
fn guarded<R>(held: &Held, run: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        held.panicked.store(true, SeqCst);
        let message = format!("the snapshot is damaged: {}", message_of(&*panic));
        Err(Error::new(ErrorKind::Corruption, message).at(&held.path, None))
    })
}

fn failed(path: &Path, error: redb::Error) -> Error {
    match error {
        redb::Error::Io(e)
            if !matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            Error::io("read or write the snapshot", path, e)
        }
        // Older formats of redb's were never written here.
        redb::Error::UpgradeRequired(_)
        | redb::Error::Io(_)
        | redb::Error::Corrupted(_)
        | redb::Error::RepairAborted
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. } => {
            Error::new(ErrorKind::Corruption, format!("the snapshot is damaged: {error}"))
                .at(path, None)
        }
        other => Error::new(ErrorKind::Io, format!("the snapshot cannot be used: {other}"))
            .at(path, None)
            .because(other),
    }
}

#[cfg(test)]
#[cfg(feature = "simulation")]
mod tests {
    use super::*;
    use crate::simulation::{Fault, OperationKind, SimulatedDisk};

    fn open(disk: &SimulatedDisk) -> RedbStorage {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        RedbStorage::open(&disk, Path::new("store")).expect("it opens")
    }

    fn rows(from: u32, to: u32) -> Changes {
        let mut changes = Changes::default();
        let row = |n: u32| (n.to_be_bytes().to_vec(), Some(vec![7; 500]));
        changes.of_mut(Table::Series).extend((from..to).map(row));
        changes
    }

    fn has(storage: &RedbStorage, n: u32) -> Result<bool> {
        let row = storage.snapshot()?.get(Table::Series, &n.to_be_bytes())?;
        Ok(row.is_some())
    }

    /// Has a read of the file fail.
    fn fail(disk: &SimulatedDisk, storage: &RedbStorage, n: u32) {
        let is_read = |kind| kind == OperationKind::Read;
        disk.plan(move |op| is_read(op.kind).then_some(Fault::Error(io::ErrorKind::Other)));
        has(storage, n).expect_err("what was not read yet cannot be read");
        disk.heal();
    }

    /// Between the end of the holding back and the commit somebody fails to read, and may have opened redb
    /// again: what is committed then would lie in memory.
    #[test]
    fn what_is_held_back_is_never_told_to_be_committed() {
        for reopens in [false, true] {
            let disk = SimulatedDisk::new(1);
            open(&disk).commit(&rows(0, 2_000)).expect("written");
            let storage = open(&disk);
            let hold = storage.release().expect("released");
            fail(&disk, &storage, 1_000);
            if reopens {
                assert!(has(&storage, 1_000).expect("read again"));
            }
            storage.write(&rows(2_000, 2_001)).expect_err("it would be held back");
            drop(hold);
            storage.commit(&rows(2_000, 2_001)).expect("written now");
            let crashed = open(&disk.power_cut(crate::simulation::Survival::None));
            assert!(has(&crashed, 2_000).expect("read"));
        }
    }

    /// Who still reads from before sees what was there, or nothing.
    #[test]
    fn an_instance_that_failed_does_not_see_what_the_next_one_writes() {
        let disk = SimulatedDisk::new(2);
        open(&disk).commit(&rows(0, 2_000)).expect("written");
        let storage = open(&disk);
        storage.commit(&rows(0, 1)).expect("written");
        let before = storage.snapshot().expect("a snapshot");
        fail(&disk, &storage, 1_000);
        for _ in 0..4 {
            let mut changes = Changes::default();
            let gone = |n: u32| (n.to_be_bytes().to_vec(), None);
            changes.of_mut(Table::Series).extend((0..2_000).map(gone));
            storage.commit(&changes).expect("written");
            storage.commit(&rows(0, 2_000)).expect("written");
        }
        for n in (0..2_000).rev() {
            match before.get(Table::Series, &u32::to_be_bytes(n)) {
                Ok(row) => assert_eq!(row, Some(vec![7; 500])),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Io),
            }
        }
        drop(before);
        assert!(has(&storage, 3).expect("read"));
    }
}
