//! The engine on a disk that fails.

use super::repair::{Repair, repair_on};
use super::{Db, open};
use crate::disk::faulty::{Faults, FaultyDisk};
use crate::{Durability, ErrorKind, Event, Grain, Keep, Options, Timestamp, View};
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

/// A repair that dies at any of its steps leaves a directory that the next one brings in order, with
/// everything that the first would have kept.
#[test]
fn a_repair_that_dies_is_finished_by_the_next_one() {
    let root = tempfile::tempdir().unwrap();
    let template = root.path().join("template");
    let (db, _) = start(&template, options());
    define(&db);
    record(&db, 0..40, 1);
    db.close().unwrap();
    let (db, _) = start(&template, options());
    record(&db, 0..40, 2);
    db.close().unwrap();
    let spoil = |name: &str, places: &[usize]| {
        let mut bytes = std::fs::read(template.join(name)).unwrap();
        for place in places {
            bytes[*place] ^= 0xff;
        }
        std::fs::write(template.join(name), bytes).unwrap();
    };
    spoil("MANIFEST", &[20, 21]);
    spoil("log/0000000001.qlog", &[30, 900, 901]);
    spoil("log/0000000002.qlog", &[700, 701]);
    // The catalog: of the snapshot nothing can be kept.
    let store = std::fs::read(template.join("state.redb")).unwrap();
    let name: Vec<usize> =
        (0..store.len() - 10).filter(|at| store[*at..].starts_with(b"\x01v\x01\x04user")).collect();
    assert!(!name.is_empty());
    spoil("state.redb", &name);
    let copy = |to: &Path| {
        std::fs::create_dir_all(to.join("log")).unwrap();
        for name in ["MANIFEST", "LOCK", "state.redb", "log/0000000001.qlog", "log/0000000002.qlog"]
        {
            std::fs::copy(template.join(name), to.join(name)).unwrap();
        }
    };
    let now = Timestamp::from_secs(1_700_000_000);
    let answers = |dir: &Path| {
        let db = Db::open(dir).unwrap();
        let rows = db.query("v").unwrap().rows().unwrap();
        let rows: Vec<_> = rows.map(|row| format!("{:?}", row.unwrap())).collect();
        (rows, db.statistics().events, db.position())
    };
    let mut expected = None;
    for from_change in 0.. {
        let dir = root.path().join(format!("cut{from_change}"));
        copy(&dir);
        let disk = FaultyDisk::default();
        let faults = disk.faults.clone();
        faults.from_change.store(from_change, SeqCst);
        let done = repair_on(Arc::new(disk), &dir, Repair::Apply, now, &mut |_| {});
        let died = done.is_err();
        assert!(died || from_change == 0 || faults.changes.load(SeqCst) < from_change);
        if died {
            // Whatever it left is either damaged still or as good as it gets.
            crate::repair(&dir, Repair::Apply, |_| {}).unwrap();
        }
        assert!(crate::verify(&dir, crate::Depth::Refold, |_| {}).unwrap().is_intact());
        let answers = answers(&dir);
        assert!(answers.1 > 40 && answers.1 < 80, "{}", answers.1);
        assert_eq!(expected.get_or_insert_with(|| answers.clone()), &answers, "{from_change}");
        std::fs::remove_dir_all(&dir).unwrap();
        if !died && from_change > 0 {
            assert!(from_change > 20, "the test reaches the steps");
            break;
        }
    }
}
