//! The engine on a disk that fails.

use super::restore::restore_on;
use super::{Db, open};
use crate::disk::Disk;
use crate::disk::faulty::{Faults, FaultyDisk};
use crate::{
    Durability, ErrorKind, Event, Grain, Keep, Options, Position, Progress, ReadOnlyDb, Timestamp,
    Upto, View, restore,
};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

fn options() -> Options {
    Options::new().segment_bytes(64 << 10).checkpoint_every(Duration::from_hours(1))
}

fn start(dir: &Path, options: Options) -> (Db, Arc<Faults>) {
    let disk = FaultyDisk::default();
    let faults = disk.faults.clone();
    let engine = open::open_on(Arc::new(disk), dir, options).unwrap();
    (Db::start(engine).unwrap(), faults)
}

fn define(db: &Db) {
    let view = View::new("v").by(["user"]).stats("value").grain(Grain::Hour, Keep::Last(50));
    db.define(view).unwrap();
}

fn record(db: &Db, users: std::ops::Range<u64>, hour: i64) {
    for user in users {
        let user = format!("u{user}");
        let at = Timestamp::from_secs(hour * 3_600);
        db.record(&Event::new("e").at(at).dim("user", &user).value(1.0)).unwrap();
    }
}

/// Each of these users has so many events, by its totals and by its buckets.
fn check(db: &Db, users: std::ops::Range<u64>, count: u64) {
    let query = db.query("v").unwrap();
    for user in users {
        let user = format!("u{user}");
        assert_eq!(query.get(&[&user]).unwrap().unwrap().count, count, "{user}");
        let buckets = query.buckets(&[&user], Grain::Hour).unwrap();
        assert_eq!(buckets.iter().map(|bucket| bucket.count).sum::<u64>(), count, "{user}");
    }
}

#[test]
fn a_failed_sync_poisons_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let (db, faults) = start(dir.path(), options().durability(Durability::Sync));
    define(&db);
    record(&db, 0..10, 1);
    faults.log_sync.store(true, SeqCst);
    let event = Event::new("e").dim("user", "u0");
    assert_eq!(db.record(&event).unwrap_err().kind(), ErrorKind::Io);
    // The sync would succeed again; that proves nothing of what the failed one was to write.
    faults.log_sync.store(false, SeqCst);
    for error in [
        db.record(&event).unwrap_err(),
        db.record_with(&event, Durability::Memory).unwrap_err(),
        db.sync().unwrap_err(),
        db.checkpoint().unwrap_err(),
        db.define(View::new("w")).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
        assert!(error.to_string().contains("reopen"), "{error}");
    }
    check(&db, 1..10, 1);
    assert!(db.close().is_err());
    let (db, _) = start(dir.path(), options());
    check(&db, 1..10, 1);
    record(&db, 1..10, 2);
    check(&db, 1..10, 2);
}

#[test]
fn a_full_disk_is_told_to_whoever_records_and_costs_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (db, faults) = start(dir.path(), options());
    define(&db);
    faults.prepare.store(true, SeqCst);
    let mut acknowledged = 0;
    let payload = vec![7; 1_000];
    let error = loop {
        let at = Timestamp::from_secs(3_600);
        let event = Event::new("e").at(at).dim("user", "u0").payload(&payload);
        match db.record(&event) {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert!(acknowledged > 10);
    check(&db, 0..1, acknowledged);
    // There is space again.
    faults.prepare.store(false, SeqCst);
    record(&db, 0..1, 1);
    check(&db, 0..1, acknowledged + 1);
    db.close().unwrap();
    let (db, _) = start(dir.path(), options());
    check(&db, 0..1, acknowledged + 1);
}

#[test]
fn a_checkpoint_that_fails_leaves_everything_to_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = start(dir.path(), options());
    define(&db);
    record(&db, 0..40, 1);
    db.close().unwrap();
    for asked_between in [false, true] {
        // Cold rows that are recorded to are partial; new keys are whole or partial, too.
        let (db, faults) = start(dir.path(), options().memory_budget(0));
        let before = db.query("v").unwrap().get(&["u0"]).unwrap().unwrap().count;
        record(&db, 0..60, 2);
        faults.store_write.store(true, SeqCst);
        for failed in 1..=3 {
            assert!(db.checkpoint().is_err());
            record(&db, 0..20, 2 + failed);
            if asked_between {
                check(&db, 0..20, before + 1 + failed as u64);
                check(&db, 20..40, before + 1);
            }
        }
        assert_eq!(db.statistics().checkpoint_failures, 3);
        faults.store_write.store(false, SeqCst);
        if asked_between {
            db.checkpoint().unwrap();
            assert_eq!(db.query("v").unwrap().key_count().unwrap(), 60);
        }
        check(&db, 0..20, before + 4);
        check(&db, 20..40, before + 1);
        db.close().unwrap();
        let (db, _) = start(dir.path(), options());
        assert_eq!(db.statistics().replayed, 0);
        check(&db, 0..20, before + 4);
        check(&db, 20..40, before + 1);
        assert_eq!(db.query("v").unwrap().key_count().unwrap(), 60);
        let mut rows = 0;
        for row in db.query("v").unwrap().rows().unwrap() {
            row.unwrap();
            rows += 1;
        }
        assert_eq!(rows, 60);
        db.close().unwrap();
        // The second round begins where users 20.. have as many events as the first left them.
        let (db, _) = start(dir.path(), options());
        record(&db, 20..40, 5);
        record(&db, 20..40, 5);
        record(&db, 20..40, 5);
        db.close().unwrap();
    }
}

#[test]
fn a_store_that_fails_in_the_middle_of_a_commit_is_good_again_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (db, faults) = start(dir.path(), options().memory_budget(0));
    define(&db);
    record(&db, 0..40, 1);
    db.checkpoint().unwrap();
    record(&db, 0..50, 2);
    faults.store_write.store(true, SeqCst);
    assert!(db.checkpoint().is_err());
    record(&db, 0..50, 3);
    check(&db, 40..50, 2);
    faults.store_write.store(false, SeqCst);
    // The store may refuse until it is reopened; the log has everything.
    let _ = db.checkpoint();
    let _ = db.close();
    let (db, _) = start(dir.path(), options());
    check(&db, 0..40, 3);
    check(&db, 40..50, 2);
    record(&db, 0..50, 4);
    db.close().unwrap();
    let (db, _) = start(dir.path(), options());
    check(&db, 0..40, 4);
    check(&db, 40..50, 3);
    assert_eq!(db.query("v").unwrap().key_count().unwrap(), 50);
}

fn quietly(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Whatever is in `backup` can be restored, and is as of one of these positions.
fn check_backup(root: &Path, backup: &Path, positions: &[Position]) -> Position {
    let to = root.join("to");
    let position = restore(backup, &to, Upto::Everything, quietly).unwrap().position;
    assert!(positions.contains(&position), "{position}");
    let db = options().open(&to).unwrap();
    let events = db.query("v").unwrap().totals().unwrap().count;
    assert_eq!(events, position.get() - 1);
    drop(db);
    std::fs::remove_dir_all(&to).unwrap();
    position
}

/// A reader that backs up writes nothing but the backup, so every operation that changes something is
/// one of the backup.
#[test]
fn a_backup_that_fails_at_any_operation_leaves_the_one_before() {
    let root = tempfile::tempdir().unwrap();
    let (dir, kept) = (root.path().join("db"), root.path().join("backup"));
    let db = options().open(&dir).unwrap();
    define(&db);
    record(&db, 0..400, 1);
    db.checkpoint().unwrap();
    record(&db, 400..420, 1);
    let first = ReadOnlyDb::open(&dir).unwrap().backup(&kept, quietly).unwrap().position;
    record(&db, 420..900, 2);
    db.checkpoint().unwrap();
    record(&db, 900..910, 2);
    let second = db.position();
    let disk = FaultyDisk::default();
    let faults = disk.faults.clone();
    let beside = ReadOnlyDb::open_on(Arc::new(disk), &dir, options()).unwrap();
    for (name, positions) in [("fresh", &[second][..]), ("backup", &[first, second])] {
        let mut operations = 0;
        loop {
            // From the state before, and again over what the failed one has left.
            let copy = root.path().join(format!("{name}-{operations}"));
            if name == "backup" {
                std::fs::create_dir_all(copy.join("log")).unwrap();
                for file in ["", "log"].map(|d| std::fs::read_dir(kept.join(d)).unwrap()) {
                    for entry in file.map(Result::unwrap).filter(|e| e.path().is_file()) {
                        let path = copy.join(entry.path().strip_prefix(&kept).unwrap());
                        std::fs::copy(entry.path(), path).unwrap();
                    }
                }
            }
            *faults.left.lock() = Some(operations);
            let result = beside.backup(&copy, quietly);
            let left = faults.left.lock().take();
            match result {
                Ok(outcome) => {
                    assert_eq!(outcome.position, second);
                    // Each operation was one that failed, before.
                    assert!(left.unwrap() == 0 && operations > 20, "{left:?} {operations}");
                    break;
                }
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Locked), "{error}");
                    if name == "backup" {
                        check_backup(root.path(), &copy, positions);
                    }
                    beside.backup(&copy, quietly).unwrap();
                    if operations % 5 == 0 {
                        assert_eq!(check_backup(root.path(), &copy, positions), second);
                    }
                }
            }
            std::fs::remove_dir_all(&copy).unwrap();
            operations += 1;
        }
    }
}

#[test]
fn a_restore_that_fails_at_any_operation_is_not_opened_and_can_be_repeated() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().open(&dir).unwrap();
    define(&db);
    record(&db, 0..200, 1);
    db.checkpoint().unwrap();
    record(&db, 200..300, 1);
    let last = ReadOnlyDb::open(&dir).unwrap().backup(&backup, quietly).unwrap().position;
    for upto in [Upto::Everything, Upto::Position(Position(100)), Upto::EventTime(Timestamp::MAX)] {
        let position = if upto == Upto::Position(Position(100)) { Position(100) } else { last };
        for operations in 0.. {
            let disk = FaultyDisk::default();
            let faults = disk.faults.clone();
            let disk: Arc<dyn Disk> = Arc::new(disk);
            // Most often what the attempt before has left.
            let to = root.path().join("to");
            *faults.left.lock() = Some(operations);
            let result = restore_on(disk.clone(), &backup, &to, upto, &mut quietly);
            *faults.left.lock() = None;
            let is_done = match result {
                Ok(outcome) => {
                    assert_eq!(outcome.position, position);
                    assert!(operations > 10);
                    true
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                    if to.exists() && to.read_dir().unwrap().next().is_some() {
                        // The last operations are behind the point at which it is whole.
                        match options().must_exist().open(&to) {
                            Err(error) => assert_eq!(error.kind(), ErrorKind::NotQuipu, "{error}"),
                            Ok(whole) => assert_eq!(whole.position(), position),
                        }
                    }
                    if to.join("MANIFEST").exists() && !to.join("RESTORING").exists() {
                        std::fs::remove_dir_all(&to).unwrap();
                    }
                    if operations % 7 > 0 {
                        continue;
                    }
                    restore_on(disk, &backup, &to, upto, &mut quietly).unwrap();
                    false
                }
            };
            let whole = options().open(&to).unwrap();
            assert_eq!(whole.query("v").unwrap().totals().unwrap().count, position.get() - 1);
            drop(whole);
            std::fs::remove_dir_all(&to).unwrap();
            if is_done {
                break;
            }
        }
    }
}
