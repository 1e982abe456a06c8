//! Every power cut beside a store of one's own, and while a directory goes over to one, or comes back.
//!
//! The store is one in memory, of which a copy is kept with each commit: of what a power cut leaves
//! of the disk, the last commit before it is there.

use quipu::simulation::{SimulatedDisk, Stepped, Survival};
use quipu::storage::{Changes, MemoryStorage, Snapshot, Start, Storage, Table};
use quipu::{
    Db, Durability, ErrorKind, Event, OnInvalid, Options, Result, Retention, TestClock, Timestamp,
    View,
};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

/// A store whose every state is kept, with the number of disk operations that came before it.
#[derive(Clone)]
struct Kept {
    rows: MemoryStorage,
    disk: SimulatedDisk,
    states: Arc<Mutex<Vec<(u64, MemoryStorage)>>>,
}

fn copy_of(rows: &MemoryStorage) -> MemoryStorage {
    let (snapshot, copy) = (rows.snapshot().unwrap(), MemoryStorage::default());
    let mut changes = Changes::default();
    for table in Table::ALL {
        for (key, value) in snapshot.range(table, Start::At(&[]), None, usize::MAX).unwrap() {
            changes.put(table, key, Some(value));
        }
    }
    copy.commit(&changes).unwrap();
    copy
}

impl Kept {
    fn new(rows: MemoryStorage, disk: &SimulatedDisk) -> Self {
        let states = Arc::new(Mutex::new(vec![(0, copy_of(&rows))]));
        Kept { rows, disk: disk.clone(), states }
    }

    /// The rows as they were before this operation of the disk.
    fn before(&self, operation: u64) -> MemoryStorage {
        let states = self.states.lock().unwrap();
        let (_, rows) = states.iter().rfind(|(done, _)| *done < operation).unwrap();
        copy_of(rows)
    }

    fn options(&self) -> Options {
        with(self.clone())
    }
}

impl Storage for Kept {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        self.rows.snapshot()
    }

    fn commit(&self, changes: &Changes) -> Result<()> {
        self.rows.commit(changes)?;
        let state = (self.disk.operations(), copy_of(&self.rows));
        self.states.lock().unwrap().push(state);
        Ok(())
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }
}

fn options() -> Options {
    Options::new()
        .clock(TestClock::at(Timestamp::from_secs(1_700_000_000)))
        .durability(Durability::Sync)
        .memory_budget(0)
        .tiny_segments(4 << 10)
}

fn with(store: impl Storage + Clone + 'static) -> Options {
    options().storage("kept", move |_| Ok(store.clone()))
}

fn start(disk: &SimulatedDisk, options: Options) -> Result<Stepped> {
    Stepped::open(options, disk, "db")
}

fn define(db: &Db) {
    db.define(View::new("v").by(["user"])).unwrap();
}

/// Batches of ten users each, and a checkpoint behind every third.
fn record(db: &Db, batches: RangeInclusive<u64>, mut acknowledged: impl FnMut(u64)) {
    for batch in batches {
        let users: Vec<String> = (0..10).map(|n| format!("u{}", (n * 7 + batch) % 30)).collect();
        let events = users.iter().map(|user| Event::new("e").dim("user", user).payload(&[7; 90]));
        db.record_all(events, OnInvalid::Refuse).unwrap();
        acknowledged(batch);
        if batch % 3 == 0 {
            db.checkpoint().unwrap();
        }
    }
}

/// What a view says must be that of whole batches: every user of them, once for each.
fn check(db: &Db, at_least: u64, what: &str) -> u64 {
    let view = db.query("v").unwrap();
    let total = view.totals().unwrap().count;
    assert_eq!(total % 10, 0, "{what}: {total}");
    let batches = total / 10;
    assert!(batches >= at_least, "{what}: {batches} batches, {at_least} were acknowledged");
    for n in 0..30 {
        let user = format!("u{n}");
        let expected: u64 = (1..=batches)
            .map(|batch| {
                (0..10).filter(|n| format!("u{}", (n * 7 + batch) % 30) == user).count() as u64
            })
            .sum();
        let found = view.get(&[&user]).unwrap().map_or(0, |row| row.count);
        assert_eq!(found, expected, "{what}: {user} after {batches} batches");
    }
    batches
}

const SURVIVALS: [Survival; 3] = [Survival::None, Survival::All, Survival::Some(3)];

#[test]
fn every_power_cut_beside_a_store_of_ones_own() {
    let mut images = 0;
    for retention in [Retention::KeepAll, Retention::Recovery] {
        let disk = SimulatedDisk::new(1);
        let store = Kept::new(MemoryStorage::default(), &disk);
        let engine = start(&disk, store.options().retention(retention)).unwrap();
        define(engine.db());
        disk.keep_moments();
        let mut acknowledged = vec![(0, 0)];
        record(engine.db(), 1..=12, |batch| acknowledged.push((disk.operations(), batch)));
        engine.db().close().unwrap();
        for (operation, moment) in disk.moments() {
            let known = acknowledged.iter().rfind(|(done, _)| *done < operation.number);
            let at_least = known.unwrap().1;
            for survival in SURVIVALS {
                images += 1;
                let what = format!("{retention:?}, {survival:?} before {operation:?}");
                let cut = moment.power_cut(survival);
                let rows = store.before(operation.number);
                let engine = start(&cut, with(rows.clone()).retention(retention));
                let engine = engine.unwrap_or_else(|error| panic!("{what}: {error}"));
                let batches = check(engine.db(), at_least, &what);
                // It goes on, and again.
                engine.db().checkpoint().unwrap();
                drop(engine);
                let engine = start(&cut, with(rows)).unwrap();
                assert_eq!(check(engine.db(), batches, &what), batches);
            }
        }
    }
    assert!(images > 500, "{images}");
}

#[test]
fn every_power_cut_while_a_directory_goes_over_to_another_store() {
    let mut changed = [0, 0];
    for comes_back in [false, true] {
        let disk = SimulatedDisk::new(1);
        let earlier = MemoryStorage::default();
        let engine = start(&disk, options()).unwrap();
        define(engine.db());
        record(engine.db(), 1..=12, |_| ());
        engine.db().close().unwrap();
        start(&disk, with(earlier.clone()).change_storage()).unwrap().db().close().unwrap();
        let mut batches = 12;
        if !comes_back {
            // Rows of this stay are in the way, and the log does not go back to them any more.
            let options = options().change_storage().retention(Retention::Recovery);
            let engine = start(&disk, options).unwrap();
            batches = 24;
            record(engine.db(), 13..=batches, |_| ());
            engine.db().close().unwrap();
        }
        let store = Kept::new(earlier, &disk);
        let guest = |rows: MemoryStorage| with(rows);
        let change = if comes_back { options() } else { store.options() };
        disk.keep_moments();
        start(&disk, change.change_storage()).unwrap().db().close().unwrap();
        for (operation, moment) in disk.moments() {
            for survival in SURVIVALS {
                let what = format!("{survival:?} before {operation:?}");
                let cut = moment.power_cut(survival);
                let rows = store.before(operation.number);
                // It has one of the two, and with that it is whole.
                let has_guest = match start(&cut, guest(rows.clone())) {
                    Ok(engine) => {
                        check(engine.db(), batches, &what);
                        true
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::StorageConflict, "{what}: {error}");
                        check(start(&cut, options()).unwrap().db(), batches, &what);
                        false
                    }
                };
                changed[usize::from(has_guest)] += 1;
                // The change is made again, if need be, and back.
                let engine = start(&cut, guest(rows.clone()).change_storage()).unwrap();
                check(engine.db(), batches, &what);
                engine.db().close().unwrap();
                drop(engine);
                if comes_back {
                    check(start(&cut, options().change_storage()).unwrap().db(), batches, &what);
                }
            }
        }
    }
    assert!(changed.iter().all(|images| *images > 10), "{changed:?}");
}
