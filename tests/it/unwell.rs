//! The store's file fails once: what lies there is read again afterwards, and written to.

use quipu::simulation::{Fault, Operation, OperationKind, SimulatedDisk, Survival};
use quipu::{Db, Event, Options, View};
use std::io::ErrorKind::{Other, StorageFull};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

const STORE: &str = "db/state.redb";
const KEYS: u64 = 3_000;

fn options() -> Options {
    Options::new().checkpoint_every(Duration::from_hours(1))
}

fn open(disk: &SimulatedDisk) -> Db {
    options().open_on(disk, "db").unwrap()
}

fn record(db: &Db, keys: impl Iterator<Item = u64>) {
    let mut batch = db.batch();
    for key in keys {
        batch.push(&Event::new("e").dim("user", &format!("u{key:05}")).value(0.5)).unwrap();
    }
    db.record_batch(&mut batch).unwrap();
}

/// A directory with rows that are on the disk alone, and are more than what an opening reads of them.
fn begin(disk: &SimulatedDisk) -> Db {
    let view = View::new("by_user").by(["user"]).stats("value");
    let db = options().view(view).open_on(disk, "db").unwrap();
    record(&db, 0..KEYS);
    db.close().unwrap();
    open(disk)
}

fn count(db: &Db, key: u64) -> quipu::Result<u64> {
    let row = db.query("by_user")?.get(&[&format!("u{key:05}")])?;
    Ok(row.map_or(0, |row| row.count))
}

fn counts(db: &Db) -> Vec<(Vec<String>, u64)> {
    let rows = db.query("by_user").unwrap().rows().unwrap();
    rows.map(|row| row.map(|row| (row.key, row.count)).unwrap()).collect()
}

/// Every key of the first ones was recorded so many times, the others once.
fn check(db: &Db, first: u64, times: u64) {
    for (key, count) in counts(db) {
        let key: u64 = key[0][1..].parse().unwrap();
        assert_eq!(count, if key < first { times } else { 1 }, "{key}");
    }
    let keys = db.query("by_user").unwrap().key_count().unwrap();
    assert_eq!(keys, counts(db).len() as u64);
    assert!(keys >= KEYS);
}

/// Each operation on the store's file that a checkpoint does fails in a round of its own.
#[test]
fn a_checkpoint_that_fails_at_the_disk_leaves_a_store_that_is_read_and_written() {
    for (kind, error) in [
        (OperationKind::Write, Other),
        (OperationKind::Write, StorageFull),
        (OperationKind::Sync, Other),
        (OperationKind::SetLen, StorageFull),
        (OperationKind::Read, Other),
    ] {
        let disk = SimulatedDisk::new(3);
        let mut db = begin(&disk);
        let (mut times, mut new) = (1, 0);
        let mut nth = 0;
        loop {
            if kind == OperationKind::Read {
                // What was read once is in redb's memory.
                db.close().unwrap();
                db = open(&disk);
            }
            record(&db, 0..40);
            // The file grows, too.
            new += 30;
            record(&db, KEYS + new - 30..KEYS + new);
            times += 1;
            let met = Arc::new(AtomicBool::new(false));
            let (mut seen, tell) = (0, met.clone());
            disk.plan(move |op| {
                let hit = op.kind == kind && op.path == Path::new(STORE);
                seen += u64::from(hit);
                let fails = hit && seen == nth + 1;
                tell.fetch_or(fails, SeqCst);
                fails.then_some(Fault::Error(error))
            });
            let result = db.checkpoint();
            disk.heal();
            if !met.load(SeqCst) {
                // Fewer than that are done; the file does not grow each time.
                if kind == OperationKind::SetLen && nth == 0 && new < 60_000 {
                    new += 3_000;
                    record(&db, KEYS + new - 3_000..KEYS + new);
                    nth = 0;
                    continue;
                }
                assert!(nth > 0, "{kind:?}");
                break;
            }
            nth += 1;
            // What redb could do without is not told.
            if result.is_ok() {
                continue;
            }
            for cold in [KEYS - 1, KEYS / 2, 41] {
                assert_eq!(count(&db, cold).unwrap(), 1, "{kind:?} {nth}");
            }
            assert_eq!(count(&db, 39).unwrap(), times, "{kind:?} {nth}");
            check(&db, 40, times);
            // Another process would come to the same, now and after a power cut.
            for image in [disk.kill(), disk.power_cut(Survival::Some(nth))] {
                check(&open(&image), 40, times);
            }
            match nth % 3 {
                0 => db.checkpoint().unwrap(),
                1 => {}
                _ => {
                    db.close().unwrap();
                    db = open(&disk);
                }
            }
            for image in [disk.kill(), disk.power_cut(Survival::None)] {
                check(&open(&image), 40, times);
            }
        }
        db.checkpoint().unwrap();
        check(&db, 40, times);
        db.close().unwrap();
    }
}

/// After a checkpoint that failed, the question that opens the store again is told wrong things, or fails
/// itself, at each of its operations.
#[test]
fn opening_the_store_again_may_fail_and_is_tried_again() {
    let fail = |kind: OperationKind| {
        move |op: &Operation| {
            (op.kind == kind && op.path == Path::new(STORE)).then_some(Fault::Error(Other))
        }
    };
    for fault in [Fault::Error(Other), Fault::FlippedBit] {
        let mut met = 0;
        for nth in 1..60 {
            let disk = SimulatedDisk::new(nth);
            let db = begin(&disk);
            record(&db, 0..40);
            db.checkpoint().unwrap();
            record(&db, 0..40);
            disk.plan(fail(OperationKind::Sync));
            db.checkpoint().unwrap_err();
            let mut seen = 0;
            disk.plan(move |op| {
                let hit = op.kind == OperationKind::Read || op.kind == OperationKind::Len;
                let hit = hit && op.path == Path::new(STORE);
                seen += u64::from(hit);
                (hit && seen == nth && op.kind == OperationKind::Read).then_some(fault)
            });
            let answer = count(&db, KEYS - 7);
            disk.heal();
            met += u64::from(answer.is_err());
            assert!(answer.is_err() || answer.unwrap() == 1);
            // A bit that was read wrongly may have been remembered: once more.
            if count(&db, KEYS - 9).is_err() {
                assert_eq!(fault, Fault::FlippedBit);
            }
            check(&db, 40, 3);
            db.checkpoint().unwrap();
            check(&open(&disk.power_cut(Survival::None)), 40, 3);
        }
        assert!(met > 2, "{fault:?}: {met}");
    }
}

/// One sector that is not read the first time costs one question its answer.
#[test]
fn a_row_that_could_not_be_read_is_read_when_it_is_asked_for_again() {
    for fault in [Fault::Error(Other), Fault::FlippedBit] {
        let disk = SimulatedDisk::new(4);
        let db = begin(&disk);
        let mut failed = 0;
        for key in (0..KEYS).rev().step_by(50) {
            disk.plan(move |op| {
                let hit = op.kind == OperationKind::Read && op.path == Path::new(STORE);
                hit.then_some(fault)
            });
            let answer = count(&db, key);
            disk.heal();
            failed += u64::from(answer.is_err());
            assert_eq!(count(&db, key).unwrap(), 1, "{fault:?} {key} {answer:?}");
        }
        assert!(failed > 0, "every page was in memory already");
        record(&db, 0..10);
        db.checkpoint().unwrap();
        check(&db, 10, 2);
    }
}

/// A disk that takes nothing any more is read nevertheless, and written to as soon as it takes it.
#[test]
fn a_full_disk_is_read_and_written_to_once_there_is_room() {
    let disk = SimulatedDisk::new(5);
    let db = begin(&disk);
    // Up to the first commit nothing is written to the file.
    record(&db, 0..40);
    db.checkpoint().unwrap();
    record(&db, 0..40);
    disk.plan(|op| {
        let writes = matches!(op.kind, OperationKind::Write | OperationKind::SetLen);
        let full = writes && op.path == Path::new(STORE);
        full.then_some(Fault::Error(StorageFull))
    });
    for round in 0..3 {
        let error = db.checkpoint().unwrap_err();
        assert!(error.to_string().contains(STORE), "{error}");
        assert_eq!(count(&db, KEYS - 1 - round).unwrap(), 1);
        check(&db, 40, 3);
    }
    disk.heal();
    db.checkpoint().unwrap();
    assert!(!db.is_dirty());
    check(&open(&disk.power_cut(Survival::None)), 40, 3);
}

/// After a sync that failed, the file shows what is not on the disk, and no later sync makes up for it.
/// The power is cut at every moment of the checkpoint after that.
#[test]
fn a_sync_that_failed_is_not_built_upon() {
    let mut images = 0;
    for nth in 1.. {
        let disk = SimulatedDisk::new(nth);
        let db = begin(&disk);
        for key in [0, KEYS / 2, KEYS - 2] {
            record(&db, key..=key);
            db.checkpoint().unwrap();
        }
        record(&db, 0..40);
        let mut seen = 0;
        disk.plan(move |op| {
            let hit = op.kind == OperationKind::Sync && op.path == Path::new(STORE);
            seen += u64::from(hit);
            (hit && seen == nth).then_some(Fault::Error(Other))
        });
        let result = db.checkpoint();
        disk.heal();
        if result.is_ok() {
            break;
        }
        record(&db, 0..40);
        db.sync().unwrap();
        disk.keep_moments();
        db.checkpoint().unwrap();
        let expected = counts(&db);
        for (op, image) in disk.moments() {
            for survival in [Survival::None, Survival::All, Survival::Some(op.number)] {
                images += 1;
                let db = open(&image.power_cut(survival));
                assert!(counts(&db) == expected, "sync {nth}, then {survival:?} before {op:?}");
            }
        }
    }
    assert!(images > 100, "{images}");
}
