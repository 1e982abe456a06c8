//! The engine on a disk that fails.

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
