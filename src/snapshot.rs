//! The snapshot store: rows as of one position, replaced together by each checkpoint.
//!
//! The contract of a store is that of [`Storage`], which the crate shows as `quipu::storage`: redb's
//! (`snapshot/redb.rs`) is the one that a directory has by itself, a *guest* (`snapshot/guest.rs`) one
//! that the program brought along.
//!
//! Invariants
//! 1. [`Storage::commit`] is atomic and durable: after any crash all of its changes are there or
//!    none. It is never ahead of the durable log; the caller syncs the log first.
//! 2. A [`Snapshot`] sees one state, whatever is committed meanwhile.
//! 3. Values are sealed by the caller (`codec`): a store's own checksums are not relied upon.
//!
//! It knows bytes, not views. Next: `snapshot/redb.rs`.

mod check;
mod guest;
mod held;
mod memory;
mod redb;
mod sums;

pub use check::check;
pub(crate) use guest::{Guest, Opener};
pub use memory::MemoryStorage;
pub(crate) use redb::{RedbStorage, StoreHold};

use crate::codec;
use crate::disk::File;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Limits;
use crate::key;
use std::any::Any;
use std::ops::Bound;
use std::sync::Arc;

/// No key of a row is longer, in bytes; keys are at least 1 byte long.
pub const KEY_BYTES_MAX: usize = key::bytes_max(Limits::KEY_PARTS, Limits::VALUE_BYTES);

/// The tables of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// The catalog, which says what the rest is: one row, the largest; a commit always replaces it.
    Meta,
    /// Totals of a series and the directory of its rings: a row a key of a view.
    Series,
    /// Up to 32 neighbouring buckets of one series each.
    Buckets,
    /// Ids inside the deduplication window.
    Ids,
}

impl Table {
    /// All of them.
    pub const ALL: [Table; 4] = [Table::Meta, Table::Series, Table::Buckets, Table::Ids];

    /// A name for it: `meta`, `series`, `buckets`, `ids`.
    pub fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Series => "series",
            Table::Buckets => "buckets",
            Table::Ids => "ids",
        }
    }
}

/// A key and its new value; no value: the row is deleted, if there is one.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// A key and its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// What a commit changes.
#[derive(Clone, Debug, Default)]
pub struct Changes(pub(crate) [Vec<Change>; 4]);

impl Changes {
    /// The changes of one table, in ascending order of their keys, no key twice.
    pub fn of(&self, table: Table) -> &[Change] {
        &self.0[table as usize]
    }

    /// Adds a change, in its place, or in place of another one of the same key: for tests of a store.
    ///
    /// ```
    /// use quipu::storage::{Changes, MemoryStorage, Storage, Table};
    ///
    /// let store = MemoryStorage::default();
    /// let mut changes = Changes::default();
    /// changes.put(Table::Series, "key", Some(b"value".to_vec()));
    /// store.commit(&changes)?;
    /// let snapshot = store.snapshot()?;
    /// assert_eq!(snapshot.get(Table::Series, b"key")?, Some(b"value".to_vec()));
    /// # Ok::<(), quipu::Error>(())
    /// ```
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: Option<Vec<u8>>) {
        let (changes, key) = (self.of_mut(table), key.into());
        match changes.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => changes[at].1 = value,
            Err(at) => changes.insert(at, (key, value)),
        }
    }

    pub(crate) fn of_mut(&mut self, table: Table) -> &mut Vec<Change> {
        &mut self.0[table as usize]
    }
}

/// Where a range begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<'a> {
    /// With this key, if there is such a row. No bytes at all: with the first row.
    At(&'a [u8]),
    /// Behind this key.
    Behind(&'a [u8]),
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl<'a> Start<'a> {
    /// The bounds of a range that begins here and ends before `to`; `None` where it holds nothing,
    /// because its end is not behind its start.
    ///
    /// ```
    /// use quipu::storage::Start;
    /// use std::ops::Bound;
    ///
    /// let bounds = Start::Behind(b"a").bounds(Some(b"c"));
    /// assert_eq!(bounds, Some((Bound::Excluded(&b"a"[..]), Bound::Excluded(&b"c"[..]))));
    /// assert_eq!(Start::At(b"c").bounds(Some(b"c")), None);
    /// ```
    pub fn bounds(self, to: Option<&'a [u8]>) -> Option<Bounds<'a>> {
        let (from, key) = match self {
            Start::At(key) => (Bound::Included(key), key),
            Start::Behind(key) => (Bound::Excluded(key), key),
        };
        match to {
            Some(to) if key >= to => None,
            Some(to) => Some((from, Bound::Excluded(to))),
            None => Some((from, Bound::Unbounded)),
        }
    }
}

/// One state of a store, as [`Storage::snapshot`] gives it. It is used by one thread, for a look-up or
/// a page of a list, and dropped.
pub trait Snapshot {
    /// The value of a row, if there is one.
    ///
    /// # Errors
    /// What kept it from being read: see [`Error::of_storage`](crate::Error::of_storage).
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// The first `limit` rows from `from` on and before `to`, as pairs of key and value in ascending
    /// order of keys; fewer only where there are no more. `limit` may be 0, or `usize::MAX`.
    ///
    /// # Errors
    /// As [`get`](Snapshot::get).
    fn range(
        &self,
        table: Table,
        from: Start<'_>,
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>>;
}

/// A store for snapshots: four tables of rows from bytes to bytes.
///
/// Each checkpoint is one [`commit`](Storage::commit); questions for series that are not in memory, and
/// opening, read from [`snapshot`](Storage::snapshot)s. What this asks of a store:
///
/// 1. **Ordered keys.** Keys compare as bytes (unsigned, a shorter key before its longer continuation).
///    They have 1 to [`KEY_BYTES_MAX`] bytes, values 1 byte to 128 MiB; a series takes some hundred.
/// 2. **Atomic commits.** Of a commit all changes are there, or none: after an error, after the death
///    of the process, and after a power cut.
/// 3. **Durable commits.** When a commit has returned `Ok` it survives a power cut. The engine then
///    lets go of memory, and of parts of the log where the [retention](crate::Retention) says so, that
///    have the same. A store that forgets is found out as long as the log is whole, and costs its
///    replay; with a log that was retired it is an error, and the data are lost.
/// 4. **One state.** A snapshot sees every commit that had returned before it was asked for, and
///    nothing of a later one, however long it is kept.
/// 5. **Threads.** Any number of threads read at the same time, each with snapshots of its own, also
///    while one commits. Never do two commit at the same time. A commit does not wait for snapshots to
///    be dropped.
/// 6. **One owner.** From opening to closing nobody else changes what is stored, so that anything may
///    be cached. The engine holds the lock of its directory meanwhile.
/// 7. **Dying is allowed.** A process that dies, or drops the store, closes nothing; that loses no
///    commit, and the next one opens.
///
/// Values are sealed by the engine with a checksum over key and value. A store need not have any of its
/// own, and one that gives the wrong row is found out.
///
/// **When it fails.** What a commit that failed was to write stays to be written, in memory and in the
/// log; the engine tries again with the next checkpoint and goes on recording meanwhile. The commit may
/// have happened all the same: the next one writes the same rows again. A read that fails is an error of
/// the question that needed it, and of nothing else. A panic in a store is taken for an error.
///
/// **How redb's store does it** ([`Options::storage`](crate::Options::storage) not being used): each
/// commit is a transaction in two phases, with a sync each; a snapshot is a read transaction, which
/// keeps the pages of its state from being used again; pages are cached, up to 48 MiB. Nothing is
/// written to the file before the first commit, so that an opening which is refused changes nothing.
///
/// [`check`] runs a store through all of this that can be seen from outside.
///
/// ```
/// use quipu::storage::{Changes, MemoryStorage, Snapshot, Storage};
/// use quipu::{Db, ErrorKind, Event, Options, View};
/// use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
/// use std::{io, sync::Arc};
///
/// /// Rows in memory, and a commit that fails as long as it is told to.
/// #[derive(Default)]
/// struct Moody {
///     rows: MemoryStorage,
///     fails: AtomicBool,
/// }
///
/// impl Storage for Moody {
///     fn snapshot(&self) -> quipu::Result<Box<dyn Snapshot + '_>> {
///         self.rows.snapshot()
///     }
///     fn commit(&self, changes: &Changes) -> quipu::Result<()> {
///         if self.fails.load(SeqCst) {
///             let source = io::Error::other("not today");
///             return Err(quipu::Error::of_storage(ErrorKind::Io, "cannot commit").because(source));
///         }
///         self.rows.commit(changes)
///     }
///     fn close(&self) -> quipu::Result<()> {
///         self.rows.close()
///     }
/// }
///
/// # let root = tempfile::tempdir().unwrap();
/// # let dir = root.path().join("shop");
/// let store = Arc::new(Moody::default());
/// let shared = store.clone();
/// let options = Options::new().storage("moody", move |_dir| Ok(shared.clone()));
/// let db = options.view(View::new("all")).open(&dir)?;
/// db.record(&Event::new("sale"))?;
///
/// store.fails.store(true, SeqCst);
/// assert_eq!(db.checkpoint().unwrap_err().kind(), ErrorKind::Io);
/// assert!(db.is_dirty());
/// assert_eq!(db.query("all")?.totals()?.count, 1);
///
/// store.fails.store(false, SeqCst);
/// db.checkpoint()?;
/// assert!(!db.is_dirty());
/// # Ok::<(), quipu::Error>(())
/// ```
pub trait Storage: Send + Sync {
    /// The state after the last commit.
    ///
    /// # Errors
    /// What keeps it from being read: see [`Error::of_storage`](crate::Error::of_storage).
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>>;

    /// Makes all changes, durably, or none of them.
    ///
    /// # Errors
    /// What prevented it: see [`Error::of_storage`](crate::Error::of_storage).
    fn commit(&self, changes: &Changes) -> Result<()>;

    /// Ends the use of the store: the last commit is made, and the store is dropped soon. Threads that
    /// still read may get errors from now on, and no wrong answers. Whatever this gives, the next
    /// opening finds all that was committed.
    ///
    /// # Errors
    /// What went wrong; whoever closes the engine is told.
    fn close(&self) -> Result<()>;
}

impl<S: Storage + ?Sized> Storage for Arc<S> {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        (**self).snapshot()
    }

    fn commit(&self, changes: &Changes) -> Result<()> {
        (**self).commit(changes)
    }

    fn close(&self) -> Result<()> {
        (**self).close()
    }
}

/// Rows read at once of a store that a program brought along.
const PAGE: usize = 1_024;

/// The store of an engine.
pub(crate) enum Store {
    Redb(RedbStorage),
    Guest(Guest),
}

impl Store {
    fn inner(&self) -> &dyn Storage {
        match self {
            Store::Redb(store) => store,
            Store::Guest(store) => store,
        }
    }

    /// Calls `see` with every row of a table, in the order of their keys.
    pub(crate) fn each(&self, table: Table, see: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let guest = match self {
            Store::Redb(store) => return store.each(table, see),
            Store::Guest(guest) => guest,
        };
        let snapshot = guest.snapshot()?;
        let mut behind: Option<Vec<u8>> = None;
        loop {
            let start = behind.as_deref().map_or(Start::At(&[]), Start::Behind);
            let page = snapshot.range(table, start, None, PAGE)?;
            for (key, value) in &page {
                see(key, value);
            }
            if page.len() < PAGE {
                return Ok(());
            }
            behind = page.into_iter().last().map(|(key, _)| key);
        }
    }

    /// The file that holds the last commit, if there is one. It stays as it is between commits.
    pub(crate) fn file(&self) -> Option<Arc<dyn File>> {
        match self {
            Store::Redb(store) => store.file(),
            Store::Guest(_) => None,
        }
    }
}

impl Storage for Store {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        self.inner().snapshot()
    }

    fn commit(&self, changes: &Changes) -> Result<()> {
        self.inner().commit(changes)
    }

    fn close(&self) -> Result<()> {
        self.inner().close()
    }
}

/// What a panic said.
fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Rows read at once, or given to one commit, by who goes through all of them.
const PAGE_ROWS: usize = 1_024;

/// Hands all rows to `see`, table by table in the order of [`Table::ALL`], in pages.
pub(crate) fn each_page(
    snapshot: &dyn Snapshot,
    see: &mut dyn FnMut(Table, Vec<Row>) -> Result<()>,
) -> Result<()> {
    for table in Table::ALL {
        let mut behind: Option<Vec<u8>> = None;
        loop {
            let start = behind.as_deref().map_or(Start::At(&[]), Start::Behind);
            let page = snapshot.range(table, start, None, PAGE_ROWS)?;
            let Some((last, _)) = page.last() else { break };
            behind = Some(last.clone());
            see(table, page)?;
        }
    }
    Ok(())
}

/// Deletes all rows, in several commits.
pub(crate) fn clear(store: &dyn Storage) -> Result<()> {
    let snapshot = store.snapshot()?;
    each_page(&*snapshot, &mut |table, page| {
        let mut changes = Changes::default();
        changes.of_mut(table).extend(page.into_iter().map(|(key, _)| (key, None)));
        store.commit(&changes)
    })
}

/// Copies all rows into an empty store, in several commits; those of [`Table::Meta`] come with the last
/// one, so that nothing is taken for whole before it is. A row that is not whole is not copied: it is
/// corruption.
pub(crate) fn copy(from: &dyn Snapshot, to: &dyn Storage) -> Result<()> {
    let mut last = Changes::default();
    each_page(from, &mut |table, page| {
        for (key, value) in &page {
            codec::unseal(key, value).map_err(|malformed| {
                let message = format!("a row of the snapshot is damaged: {malformed}");
                Error::new(ErrorKind::Corruption, message)
            })?;
        }
        let rows = page.into_iter().map(|(key, value)| (key, Some(value)));
        if table == Table::Meta {
            last.of_mut(table).extend(rows);
            return Ok(());
        }
        let mut changes = Changes::default();
        changes.of_mut(table).extend(rows);
        to.commit(&changes)
    })?;
    to.commit(&last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, OsDisk};
    use proptest::prelude::*;

    prop_compose! {
        fn changes()(
            rows in prop::collection::btree_map(
                (0_usize..4, prop::collection::vec(0_u8..3, 0..4)),
                prop::option::of(prop::collection::vec(any::<u8>(), 0..5)),
                0..30,
            ),
        ) -> Changes {
            let mut changes = Changes::default();
            for ((table, key), value) in rows {
                changes.0[table].push((key, value));
            }
            changes
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn the_store_answers_as_a_map_does(
            commits in prop::collection::vec(changes(), 1..5),
            asked in prop::collection::vec(prop::collection::vec(0_u8..3, 0..4), 8),
            limit in 0_usize..6,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store");
            let model = MemoryStorage::default();
            let disk: Arc<dyn Disk> = Arc::new(OsDisk);
            for changes in &commits {
                // Opened anew for each commit: everything is in the file.
                let before = std::fs::read(&path).ok();
                let store = RedbStorage::open(&disk, &path).unwrap();
                store.snapshot().unwrap().get(Table::Meta, b"").unwrap();
                prop_assert!(std::fs::read(&path).ok() == before, "opening and reading write nothing");
                store.commit(changes).unwrap();
                model.commit(changes).unwrap();
                let (store_state, model_state) = (store.snapshot().unwrap(), model.snapshot().unwrap());
                for table in Table::ALL {
                    for pair in asked.windows(2) {
                        let (from, to) = (pair[0].as_slice(), pair[1].as_slice());
                        prop_assert_eq!(
                            store_state.get(table, from).unwrap(),
                            model_state.get(table, from).unwrap()
                        );
                        for start in [Start::At(from), Start::Behind(from)] {
                            for to in [None, Some(to)] {
                                prop_assert_eq!(
                                    store_state.range(table, start, to, limit).unwrap(),
                                    model_state.range(table, start, to, limit).unwrap()
                                );
                            }
                        }
                    }
                }
                drop(store_state);
                store.close().unwrap();
                prop_assert!(store.snapshot().is_err());
            }
        }
    }

    /// A file that is too large to be checked when it is opened is read as it is. Sealed rows and
    /// their neighbours are all the proof there is then.
    #[test]
    fn a_flipped_bit_in_a_store_that_is_not_checked_hides_no_row() {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = dir.path().join("store");
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let mut changes = Changes::default();
        for n in 0..400 {
            let key = format!("key {n:03}").into_bytes();
            let value = crate::codec::seal(&key, |out| out.extend_from_slice(&[n as u8; 40]));
            changes.of_mut(Table::Series).push((key, Some(value)));
        }
        let store = RedbStorage::open(&disk, &path).unwrap();
        store.commit(&changes).unwrap();
        store.close().unwrap();
        let original = std::fs::read(&path).unwrap();
        let mut told = 0;
        for at in (0..original.len()).filter(|at| at % 37 == 0 && original[*at] != 0) {
            let mut flipped = original.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&path, &flipped).unwrap();
            let Ok(store) = RedbStorage::inspect(&disk, &path) else { continue };
            let Ok(snapshot) = store.snapshot() else { continue };
            for (key, value) in changes.of(Table::Series) {
                match snapshot.get(Table::Series, key) {
                    // What is not what was written does not pass for it.
                    Ok(Some(found)) if crate::codec::unseal(key, &found).is_ok() => {
                        assert_eq!(Some(&found), value.as_ref(), "byte {at}");
                    }
                    Ok(Some(_)) | Err(_) => told += 1,
                    Ok(None) => panic!("byte {at}: {:?} is hidden", String::from_utf8_lossy(key)),
                }
            }
            drop(snapshot);
            assert!(std::fs::read(&path).unwrap() == flipped, "reading writes nothing");
        }
        assert!(told > 0);
    }
}
