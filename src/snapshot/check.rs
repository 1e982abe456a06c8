//! What a store promises ([`Storage`]), tried as far as it can be seen from outside.
//!
//! The same calls go to the store and to maps; what both say is compared. What cannot be tried in a
//! process that goes on, that a commit survives a power cut, is the store's own to test.

use super::{Change, Changes, KEY_BYTES_MAX, Snapshot, Start, Storage, Table};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

/// Commits that are compared with maps.
const ROUNDS: u64 = 48;
/// Rows of one commit that is read in pages.
const MANY: u32 = 3_000;
/// The largest value that is tried.
const LARGE_BYTES: usize = 1 << 20;
/// Commits that are made while others read.
const SHARED_ROUNDS: u64 = 40;
const READERS: usize = 3;

type Model = [BTreeMap<Vec<u8>, Vec<u8>>; 4];

/// Runs a store through its contract ([`Storage`]): order of keys, ranges and limits, what a snapshot
/// sees, several of them, threads that read while one commits, large rows, and that everything is
/// there when it is opened again, after [`close`](Storage::close) and without it. `open` is called
/// several times, never while the store that it gave before is in use, and gives a store of the same
/// rows, which is empty at first.
///
/// Makes some hundred commits of some ten rows each, always the same ones.
///
/// ```
/// use quipu::storage::{self, MemoryStorage};
///
/// let rows = MemoryStorage::default();
/// storage::check(|| Ok(rows.clone()))?;
/// # Ok::<(), quipu::Error>(())
/// ```
///
/// # Errors
/// `Invalid` where the store does not do what the contract says: the message says what it did and what
/// would have been right. Errors of the store itself are passed on.
pub fn check<S: Storage>(mut open: impl FnMut() -> Result<S>) -> Result<()> {
    let store = open()?;
    let mut model = Model::default();
    compare_all(&*store.snapshot()?, &model, "a store that was never committed to")?;
    store.close()?;
    drop(store);
    rounds(&mut open, &mut model)?;
    large(&mut open, &mut model)?;
    let store = open()?;
    shared(&store)?;
    store.close()
}

/// Numbers that look drawn, and are the same each time.
struct Dice(u64);

impl Dice {
    /// A number below `n`.
    fn below(&mut self, n: u64) -> u64 {
        self.0 += 1;
        xxhash_rust::xxh3::xxh3_64(&self.0.to_le_bytes()) % n
    }

    /// A short key, of bytes at which orders go wrong.
    fn key(&mut self) -> Vec<u8> {
        let bytes = [0x00, 0x01, b'a', 0x7f, 0x80, 0xff];
        (0..=self.below(3)).map(|_| bytes[self.below(6) as usize]).collect()
    }

    fn value(&mut self) -> Vec<u8> {
        (0..=self.below(40)).map(|_| self.below(256) as u8).collect()
    }
}

fn table(dice: &mut Dice) -> Table {
    Table::ALL[dice.below(4) as usize]
}

fn commit(store: &impl Storage, model: &mut Model, rows: &[(Table, Change)]) -> Result<()> {
    let mut changes = Changes::default();
    for (table, (key, value)) in rows {
        match value {
            Some(value) => model[*table as usize].insert(key.clone(), value.clone()),
            None => model[*table as usize].remove(key),
        };
        changes.put(*table, key.clone(), value.clone());
    }
    store.commit(&changes)
}

/// Random commits, each compared; the snapshots before it are compared again.
fn rounds<S: Storage>(open: &mut impl FnMut() -> Result<S>, model: &mut Model) -> Result<()> {
    let mut dice = Dice(0);
    let mut round = 0;
    while round < ROUNDS {
        let store = open()?;
        compare_all(&*store.snapshot()?, model, "a store that was opened again")?;
        let mut before: Vec<(Box<dyn Snapshot + '_>, Model)> = Vec::new();
        for _ in 0..=dice.below(8) {
            round += 1;
            before.push((store.snapshot()?, model.clone()));
            // Some without any change.
            let rows: Vec<_> = (0..dice.below(30))
                .map(|_| {
                    let value = (dice.below(4) > 0).then(|| dice.value());
                    (table(&mut dice), (dice.key(), value))
                })
                .collect();
            commit(&store, model, &rows)?;
            let now = store.snapshot()?;
            compare_all(&*now, model, "a snapshot after a commit")?;
            for _ in 0..24 {
                compare_some(&*now, model, &mut dice)?;
            }
            let (snapshot, then) = &before[dice.below(before.len() as u64) as usize];
            compare_all(&**snapshot, then, "a snapshot from before a commit")?;
        }
        drop(before);
        if dice.below(2) == 0 {
            store.close()?;
        }
    }
    Ok(())
}

fn large<S: Storage>(open: &mut impl FnMut() -> Result<S>, model: &mut Model) -> Result<()> {
    let mut long = vec![0xfe; KEY_BYTES_MAX];
    let mut rows = vec![(Table::Meta, (b"large".to_vec(), Some(vec![7; LARGE_BYTES])))];
    for last in [0x00, 0x01, 0xff] {
        long[KEY_BYTES_MAX - 1] = last;
        rows.push((Table::Buckets, (long.clone(), Some(vec![last]))));
    }
    let many = |n: u32| (Table::Series, (n.to_be_bytes().to_vec(), Some(n.to_le_bytes().to_vec())));
    rows.extend((0..MANY).map(many));
    let store = open()?;
    commit(&store, model, &rows)?;
    store.close()?;
    drop(store);
    let store = open()?;
    let snapshot = store.snapshot()?;
    compare_all(&*snapshot, model, "a store with long keys, a large value and many rows")?;
    // In pages, as a list is read.
    let (mut behind, mut read) = (None::<Vec<u8>>, 0);
    loop {
        let start = behind.as_deref().map_or(Start::At(&[]), Start::Behind);
        let page = snapshot.range(Table::Series, start, None, 512)?;
        read += page.len();
        let Some((last, _)) = page.into_iter().last() else { break };
        behind = Some(last);
    }
    let there = model[Table::Series as usize].len();
    if read != there {
        return Err(Error::invalid(format!("read in pages, {there} rows were {read}")));
    }
    drop(snapshot);
    store.close()
}

/// One commits a number into all rows at once, others look whether all rows have the same one.
fn shared(store: &impl Storage) -> Result<()> {
    let keys: Vec<Vec<u8>> = (0..20_u8).map(|n| vec![b's', n]).collect();
    let write = |number: u64| {
        let mut changes = Changes::default();
        for table in Table::ALL {
            let row = |key: &Vec<u8>| (key.clone(), Some(number.to_le_bytes().to_vec()));
            changes.of_mut(table).extend(keys.iter().map(row));
        }
        store.commit(&changes)
    };
    write(0)?;
    let committed = AtomicU64::new(0);
    let is_done = || committed.load(SeqCst) >= SHARED_ROUNDS;
    let read = || {
        let mut last = false;
        while !last {
            last = is_done();
            let known = committed.load(SeqCst);
            let snapshot = store.snapshot()?;
            let mut seen: Vec<Vec<u8>> = Vec::new();
            for table in Table::ALL {
                for (_, value) in snapshot.range(table, Start::At(b"s"), Some(b"t"), usize::MAX)? {
                    seen.push(value);
                }
                seen.extend(snapshot.get(table, &keys[7])?);
            }
            let first = seen.first().cloned().unwrap_or_default();
            if seen.len() != Table::ALL.len() * (keys.len() + 1) || seen.iter().any(|v| *v != first)
            {
                let message = "a snapshot that was read while another thread committed has rows of \
                               two commits, or not all of one; all are to be of the same";
                return Err(Error::invalid(message));
            }
            let number = first.try_into().map_or(0, u64::from_le_bytes);
            if number < known {
                return Err(Error::invalid(format!(
                    "a snapshot shows commit {number}; commit {known} had returned before it was \
                     asked for"
                )));
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        let mut written = Ok(());
        for number in 1..=SHARED_ROUNDS {
            written = written.and_then(|()| write(number));
            committed.store(number, SeqCst);
        }
        let joined = readers.into_iter().map(|reader| {
            let panicked = || Err(Error::invalid("the store panicked in a thread that reads"));
            reader.join().unwrap_or_else(|_| panicked())
        });
        // All of them are joined before any is asked.
        let joined: Vec<Result<()>> = joined.collect();
        joined.into_iter().collect::<Result<()>>().and(written)
    })
}

fn wrong(
    what: &str,
    table: Table,
    did: &impl std::fmt::Debug,
    right: &impl std::fmt::Debug,
) -> Error {
    let told = |value: String| {
        let mut told: String = value.chars().take(300).collect();
        told.push_str(if told.len() < value.len() { " .." } else { "" });
        told
    };
    let (did, right) = (told(format!("{did:?}")), told(format!("{right:?}")));
    Error::invalid(format!("{what}, table {:?}: {did}; right would be {right}", table.name()))
}

/// Compares every row, and looks for one that is not there.
fn compare_all(snapshot: &dyn Snapshot, model: &Model, what: &str) -> Result<()> {
    for table in Table::ALL {
        let rows = snapshot.range(table, Start::At(&[]), None, usize::MAX)?;
        let right: Vec<_> = model[table as usize].clone().into_iter().collect();
        if rows != right {
            return Err(wrong(what, table, &rows, &right));
        }
        for (key, value) in &right {
            let found = snapshot.get(table, key)?;
            if found.as_ref() != Some(value) {
                return Err(wrong(&format!("{what}, key {key:?}"), table, &found, value));
            }
        }
        let absent = snapshot.get(table, b"no such key")?;
        if absent.is_some() {
            return Err(wrong(&format!("{what}, a key without a row"), table, &absent, &"none"));
        }
    }
    Ok(())
}

/// Compares a row and a range.
fn compare_some(snapshot: &dyn Snapshot, model: &Model, dice: &mut Dice) -> Result<()> {
    let (table, key) = (table(dice), dice.key());
    let rows = &model[table as usize];
    let (found, right) = (snapshot.get(table, &key)?, rows.get(&key).cloned());
    if found != right {
        return Err(wrong(&format!("key {key:?}"), table, &found, &right));
    }
    let start = if dice.below(2) == 0 { Start::At(&key) } else { Start::Behind(&key) };
    let end = dice.key();
    let to = (dice.below(3) > 0).then_some(end.as_slice());
    let limit = [0, 1, 2, 7, usize::MAX][dice.below(5) as usize];
    let found = snapshot.range(table, start, to, limit)?;
    let bounds = start.bounds(to);
    let range = bounds.into_iter().flat_map(|bounds| rows.range::<[u8], _>(bounds));
    let right: Vec<_> = range.take(limit).map(|(k, v)| (k.clone(), v.clone())).collect();
    if found != right {
        let what = format!("the range {start:?} to {to:?}, at most {limit} rows");
        return Err(wrong(&what, table, &found, &right));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryStorage, RedbStorage};
    use super::*;
    use crate::disk::{Disk, OsDisk};
    use crate::error::ErrorKind;
    use std::sync::Arc;

    #[test]
    fn the_stores_of_the_crate_do_what_they_promise() {
        let rows = MemoryStorage::default();
        check(|| Ok(rows.clone())).unwrap();
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        check(|| RedbStorage::open(&disk, &dir.path().join("store"))).unwrap();
    }

    /// A store in memory that breaks one promise.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Flaw {
        NoDeletions,
        LimitIsOneMore,
        BehindIsAt,
        EndIsIncluded,
        BackwardsOrder,
        SignedOrder,
        TablesAreOne,
        SnapshotsMove,
        SnapshotsLag,
        ForgetsOnClose,
        KeysAreCut,
        ValuesAreCut,
        CommitsInSteps,
    }

    struct Flawed {
        flaw: Flaw,
        rows: MemoryStorage,
        /// As of one commit before, and that commit.
        behind: MemoryStorage,
        pending: parking_lot::Mutex<Changes>,
        kept: Arc<parking_lot::Mutex<MemoryStorage>>,
        /// Snapshots that were asked for.
        seen: AtomicU64,
    }

    struct FlawedSnapshot<'a>(&'a Flawed, Box<dyn Snapshot + 'a>);

    impl Storage for Flawed {
        fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
            self.seen.fetch_add(1, SeqCst);
            let lags = self.flaw == Flaw::SnapshotsLag;
            let rows = if lags { self.behind.snapshot()? } else { self.rows.snapshot()? };
            Ok(Box::new(FlawedSnapshot(self, rows)))
        }

        fn commit(&self, changes: &Changes) -> Result<()> {
            let mut changes = changes.clone();
            let before = std::mem::replace(&mut *self.pending.lock(), changes.clone());
            self.behind.commit(&before)?;
            let mut parts: Vec<Changes> = Vec::new();
            for table in Table::ALL {
                let rows = changes.of_mut(table);
                match self.flaw {
                    Flaw::NoDeletions => rows.retain(|(_, value)| value.is_some()),
                    Flaw::KeysAreCut => rows.iter_mut().for_each(|(key, _)| key.truncate(4_096)),
                    Flaw::ValuesAreCut => {
                        let values = rows.iter_mut().filter_map(|(_, value)| value.as_mut());
                        values.for_each(|value| value.truncate(1 << 16));
                    }
                    _ => {}
                }
                if self.flaw == Flaw::TablesAreOne {
                    let rows = std::mem::take(rows);
                    let mut one = Changes::default();
                    one.of_mut(Table::Meta).extend(rows);
                    parts.push(one);
                }
                if self.flaw == Flaw::CommitsInSteps {
                    let mut one = Changes::default();
                    one.of_mut(table).append(rows);
                    parts.push(one);
                }
            }
            parts.push(changes);
            for part in parts {
                self.rows.commit(&part)?;
                let is_shared = part.0.iter().flatten().any(|(key, _)| key.starts_with(b"s"));
                if self.flaw == Flaw::CommitsInSteps && is_shared {
                    // Until somebody has come to see it.
                    let before = self.seen.load(SeqCst);
                    let seen = |_| {
                        thread::yield_now();
                        self.seen.load(SeqCst) > before + READERS as u64
                    };
                    let _ = (0..100_000).any(seen);
                }
            }
            Ok(())
        }

        fn close(&self) -> Result<()> {
            *self.kept.lock() = MemoryStorage::default();
            Ok(())
        }
    }

    impl Snapshot for FlawedSnapshot<'_> {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
            match self.0.flaw {
                Flaw::TablesAreOne => self.1.get(Table::Meta, key),
                Flaw::SnapshotsMove => self.0.rows.snapshot()?.get(table, key),
                _ => self.1.get(table, key),
            }
        }

        fn range(
            &self,
            table: Table,
            from: Start<'_>,
            to: Option<&[u8]>,
            limit: usize,
        ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
            let all = |limit| self.1.range(table, from, to, limit);
            Ok(match (self.0.flaw, from) {
                (Flaw::LimitIsOneMore, _) => all(limit.saturating_add(1))?,
                (Flaw::BehindIsAt, Start::Behind(key)) => {
                    self.1.range(table, Start::At(key), to, limit)?
                }
                (Flaw::EndIsIncluded, _) => {
                    let longer = to.map(|to| [to, &[0]].concat());
                    self.1.range(table, from, longer.as_deref(), limit)?
                }
                (Flaw::BackwardsOrder, _) => {
                    let mut rows = all(usize::MAX)?;
                    rows.reverse();
                    rows.truncate(limit);
                    rows
                }
                (Flaw::SignedOrder, _) => {
                    let mut rows = all(usize::MAX)?;
                    let signed = |key: &[u8]| key.iter().map(|b| *b as i8).collect::<Vec<_>>();
                    rows.sort_by_key(|(key, _)| signed(key));
                    rows.truncate(limit);
                    rows
                }
                (Flaw::TablesAreOne, _) => self.1.range(Table::Meta, from, to, limit)?,
                (Flaw::SnapshotsMove, _) => {
                    self.0.rows.snapshot()?.range(table, from, to, limit)?
                }
                _ => all(limit)?,
            })
        }
    }

    #[test]
    fn a_store_that_breaks_a_promise_is_told_which() {
        use Flaw::*;
        for flaw in [
            NoDeletions,
            LimitIsOneMore,
            BehindIsAt,
            EndIsIncluded,
            BackwardsOrder,
            SignedOrder,
            TablesAreOne,
            SnapshotsMove,
            SnapshotsLag,
            ForgetsOnClose,
            KeysAreCut,
            ValuesAreCut,
            CommitsInSteps,
        ] {
            let kept = Arc::new(parking_lot::Mutex::new(MemoryStorage::default()));
            let rows = MemoryStorage::default();
            let error = check(|| {
                let rows = if flaw == ForgetsOnClose { kept.lock().clone() } else { rows.clone() };
                Ok(Flawed {
                    flaw,
                    rows,
                    behind: MemoryStorage::default(),
                    pending: parking_lot::Mutex::default(),
                    kept: kept.clone(),
                    seen: AtomicU64::new(0),
                })
            });
            let error = error.expect_err(&format!("{flaw:?}"));
            assert_eq!(error.kind(), ErrorKind::Invalid, "{flaw:?}: {error}");
        }
    }
}
