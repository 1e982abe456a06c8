//! The snapshot store: rows as of one position, replaced together by each checkpoint.
//!
//! Invariants
//! 1. [`Storage::commit`] is atomic and durable: after any crash all of its changes are there or
//!    none. It is never ahead of the durable log; the caller syncs the log first.
//! 2. A [`Snapshot`] sees one state, whatever is committed meanwhile.
//! 3. Values are sealed by the caller (`codec`): a store's own checksums are not relied upon.
//!
//! It knows bytes, not views. Next: `snapshot/redb.rs`.

#[cfg(test)]
mod memory;
mod redb;

pub(crate) use redb::{RedbStorage, StoreHold};

use crate::disk::File;
use crate::error::Result;
use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;

/// The tables of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// The catalog, the position, counters: few rows, by name.
    Meta,
    /// Totals of a series and the directory of its rings (`key.rs`).
    Series,
    /// Blocks of buckets.
    Buckets,
    /// Ids inside the deduplication window, by position.
    Ids,
}

impl Table {
    pub(crate) const ALL: [Table; 4] = [Table::Meta, Table::Series, Table::Buckets, Table::Ids];
}

/// A key and its value, or no value: the row is deleted.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);
/// A key and its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// What a commit changes, by table, each in ascending order of keys, no key twice.
#[derive(Debug, Default)]
pub(crate) struct Changes(pub(crate) [Vec<Change>; 4]);

impl Changes {
    pub(crate) fn of(&mut self, table: Table) -> &mut Vec<Change> {
        &mut self.0[table as usize]
    }
}

/// One state of the store.
pub(crate) trait Snapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Up to `limit` rows from `from` on (or behind it, if `exclusive`) and before `to`.
    fn range(
        &self,
        table: Table,
        from: Start<'_>,
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>>;
}

/// Where a range begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<'a> {
    At(&'a [u8]),
    Behind(&'a [u8]),
}

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl<'a> Start<'a> {
    /// The bounds of a range that begins here and ends before `to`; `None` where it holds nothing.
    fn bounds(self, to: Option<&'a [u8]>) -> Option<Bounds<'a>> {
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

pub(crate) trait Storage: Debug + Send + Sync {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>>;
    fn commit(&self, changes: &Changes) -> Result<()>;
    /// The file that holds the last commit, if there is one. It stays as it is between commits.
    fn file(&self) -> Option<Arc<dyn File>>;
    /// Ends the use of the store.
    fn close(&self) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::memory::MemoryStorage;
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
            changes.of(Table::Series).push((key, Some(value)));
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
