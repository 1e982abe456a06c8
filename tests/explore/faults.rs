//! What the engine does on a disk that fails: at chosen places, with what its callers are told.
//!
//! `faults_everywhere.rs` fails every operation there is; here is what the figures must be.

use quipu::simulation::{Fault, Operation, OperationKind, SimulatedDisk, Stepped, Survival};
use quipu::{
    Db, Durability, ErrorKind, Event, Grain, Keep, OnInvalid, Options, TestClock, Timestamp, View,
};
use std::io;
use std::time::Duration;

fn options() -> Options {
    Options::new().clock(TestClock::at(Timestamp::from_secs(1_700_000_000))).tiny_segments(64 << 10)
}

fn start(disk: &SimulatedDisk, options: Options) -> Stepped {
    Stepped::open(options, disk, "db").unwrap()
}

/// Fails every operation that is one of `which`.
fn fail(disk: &SimulatedDisk, which: fn(&Operation) -> bool) {
    disk.plan(move |op| which(op).then_some(Fault::Error(io::ErrorKind::Other)));
}

fn is_log_sync(op: &Operation) -> bool {
    op.kind == OperationKind::Sync && op.path.extension().is_some_and(|end| end == "qlog")
}

fn is_store_write(op: &Operation) -> bool {
    let name = op.path.file_name().map(|name| name.to_string_lossy());
    op.kind == OperationKind::Write && name.is_some_and(|name| name.starts_with("state.redb"))
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
    let disk = SimulatedDisk::new(1);
    let engine = start(&disk, options().durability(Durability::Sync));
    let db = engine.db();
    define(db);
    record(db, 0..10, 1);
    fail(&disk, is_log_sync);
    let event = Event::new("e").dim("user", "u0");
    assert_eq!(db.record(&event).unwrap_err().kind(), ErrorKind::Io);
    // The sync would succeed again; that proves nothing of what the failed one was to write.
    disk.heal();
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
    check(db, 1..10, 1);
    assert!(db.close().is_err());
    let engine = start(&disk, options());
    let db = engine.db();
    check(db, 1..10, 1);
    record(db, 1..10, 2);
    check(db, 1..10, 2);
}

/// Records until there is no room; gives how many were acknowledged, and the error.
fn fill_up(db: &Db) -> (u64, quipu::Error) {
    let payload = vec![7; 1_000];
    let event =
        || Event::new("e").at(Timestamp::from_secs(3_600)).dim("user", "u0").payload(&payload);
    let mut acknowledged = 0;
    loop {
        let recorded = if acknowledged % 5 == 0 {
            db.record_all([event(), event()], OnInvalid::Refuse).map(|outcome| outcome.recorded)
        } else {
            db.record(&event()).map(|_| 1)
        };
        match recorded {
            Ok(n) => acknowledged += n,
            Err(error) => return (acknowledged, error),
        }
    }
}

#[test]
fn a_full_disk_is_told_to_whoever_records_and_costs_nothing_acknowledged() {
    for durability in [Durability::Memory, Durability::default(), Durability::Sync] {
        let disk = SimulatedDisk::new(1);
        let engine = start(&disk, options().durability(durability));
        let db = engine.db();
        define(db);
        db.checkpoint().unwrap();
        disk.set_capacity(Some(disk.allocated() + (100 << 10)));
        let (mut acknowledged, error) = fill_up(db);
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        assert!(error.to_string().contains("free some space"), "{error}");
        assert!(error.path().is_some(), "{error}");
        assert!(acknowledged > 10);
        // Again and again: each caller is told, nobody is poisoned, reading goes on.
        for _ in 0..3 {
            let (more, error) = fill_up(db);
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            acknowledged += more;
            check(db, 0..1, acknowledged);
        }
        assert_eq!(db.define(View::new("w").by(["user"])).map_err(|e| e.kind()), Ok(true), "small");
        assert_eq!(db.sync().unwrap(), db.durable_position());
        // There is space again: the same engine goes on.
        disk.set_capacity(None);
        record(db, 0..1, 1);
        check(db, 0..1, acknowledged + 1);
        assert_eq!(db.query("w").unwrap().get(&["u0"]).unwrap().unwrap().count, 1);
        let position = db.sync().unwrap();
        // So does one that is opened after a power cut, and after a close.
        let after = start(&disk.power_cut(Survival::Some(7)), options());
        check(after.db(), 0..1, acknowledged + 1);
        assert_eq!(after.db().position(), position);
        db.close().unwrap();
        let engine = start(&disk, options());
        check(engine.db(), 0..1, acknowledged + 1);
    }
}

#[test]
fn a_disk_that_is_full_for_the_snapshot_leaves_everything_in_the_log() {
    let disk = SimulatedDisk::new(1);
    let engine = start(&disk, options());
    let db = engine.db();
    define(db);
    record(db, 0..50, 1);
    disk.set_capacity(Some(disk.allocated() + 4_096));
    for _ in 0..2 {
        let error = db.checkpoint().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        record(db, 0..50, 2);
    }
    check(db, 0..50, 3);
    assert_eq!(db.statistics().checkpoint_failures, 2);
    let is_half_made = |path: &std::path::PathBuf| path.ends_with("state.redb.new");
    assert!(!disk.files().keys().any(is_half_made), "it would hold the space that is missing");
    assert_eq!(db.close().unwrap_err().kind(), ErrorKind::NoSpace);
    // Opening needs no room.
    let engine = start(&disk, options());
    check(engine.db(), 0..50, 3);
    disk.set_capacity(None);
    engine.db().checkpoint().unwrap();
    engine.db().close().unwrap();
    let engine = start(&disk, options());
    assert_eq!(engine.db().statistics().replayed, 0);
    check(engine.db(), 0..50, 3);
}

#[test]
fn a_checkpoint_that_fails_leaves_everything_to_the_next_one() {
    let disk = SimulatedDisk::new(1);
    let engine = start(&disk, options());
    let db = engine.db();
    define(db);
    record(db, 0..40, 1);
    db.close().unwrap();
    for asked_between in [false, true] {
        // Cold rows that are recorded to are partial; new keys are whole or partial, too.
        let engine = start(&disk, options().memory_budget(0));
        let db = engine.db();
        let before = db.query("v").unwrap().get(&["u0"]).unwrap().unwrap().count;
        record(db, 0..60, 2);
        fail(&disk, is_store_write);
        for failed in 1..=3 {
            assert!(db.checkpoint().is_err());
            record(db, 0..20, 2 + failed);
            if asked_between {
                check(db, 0..20, before + 1 + failed as u64);
                check(db, 20..40, before + 1);
            }
        }
        assert_eq!(db.statistics().checkpoint_failures, 3);
        disk.heal();
        if asked_between {
            db.checkpoint().unwrap();
            assert_eq!(db.query("v").unwrap().key_count().unwrap(), 60);
        }
        check(db, 0..20, before + 4);
        check(db, 20..40, before + 1);
        db.close().unwrap();
        let engine = start(&disk, options());
        let db = engine.db();
        assert_eq!(db.statistics().replayed, 0);
        check(db, 0..20, before + 4);
        check(db, 20..40, before + 1);
        assert_eq!(db.query("v").unwrap().key_count().unwrap(), 60);
        let mut rows = 0;
        for row in db.query("v").unwrap().rows().unwrap() {
            row.unwrap();
            rows += 1;
        }
        assert_eq!(rows, 60);
        db.close().unwrap();
        // The second round begins where users 20.. have as many events as the first left them.
        let engine = start(&disk, options());
        let db = engine.db();
        record(db, 20..40, 5);
        record(db, 20..40, 5);
        record(db, 20..40, 5);
        db.close().unwrap();
    }
}

#[test]
fn a_store_that_fails_in_the_middle_of_a_commit_is_good_again_after_reopening() {
    let disk = SimulatedDisk::new(1);
    let engine = start(&disk, options().memory_budget(0));
    let db = engine.db();
    define(db);
    record(db, 0..40, 1);
    db.checkpoint().unwrap();
    record(db, 0..50, 2);
    fail(&disk, is_store_write);
    assert!(db.checkpoint().is_err());
    record(db, 0..50, 3);
    check(db, 40..50, 2);
    disk.heal();
    // The store may refuse until it is reopened; the log has everything.
    let _ = db.checkpoint();
    let _ = db.close();
    let engine = start(&disk, options());
    let db = engine.db();
    check(db, 0..40, 3);
    check(db, 40..50, 2);
    record(db, 0..50, 4);
    db.close().unwrap();
    let engine = start(&disk, options());
    let db = engine.db();
    check(db, 0..40, 4);
    check(db, 40..50, 3);
    assert_eq!(db.query("v").unwrap().key_count().unwrap(), 50);
}

/// Turns after which something in the background should have happened long ago.
const PATIENCE: usize = 50_000_000;

#[test]
fn an_interval_is_kept_by_the_background_and_outlives_a_power_cut() {
    let disk = SimulatedDisk::new(1);
    let level = Durability::Interval(Duration::from_millis(5));
    let db = options().durability(level).open_on(&disk, "db").unwrap();
    define(&db);
    for user in 0..3 {
        record(&db, user..user + 1, 1);
        let position = db.position();
        let synced = (0..PATIENCE).any(|_| {
            std::thread::yield_now();
            db.durable_position() >= position
        });
        assert!(synced, "nobody synced it");
        let after = start(&disk.power_cut(Survival::None), options());
        assert!(after.db().position() >= position);
        check(after.db(), 0..user + 1, 1);
    }
}

/// Threads that wait for the disk share their syncs; whatever each was told is durable.
#[test]
fn what_several_threads_were_told_is_durable_outlives_a_power_cut() {
    let view = || View::new("by").by(["thread", "n"]);
    let mut in_all = 0;
    for round in 0..40_u64 {
        let disk = SimulatedDisk::new(round);
        let db = options().durability(Durability::Sync).open_on(&disk, "db").unwrap();
        db.define(view()).unwrap();
        let end = disk.operations() + 5 + round * 3;
        disk.plan(move |op| (op.number >= end).then_some(Fault::PowerOff));
        let record = |thread: u64| {
            let thread = thread.to_string();
            let record = |n: &u64| {
                let n = n.to_string();
                db.record(&Event::new("e").dim("thread", &thread).dim("n", &n)).is_ok()
            };
            (0..u64::MAX).take_while(record).count() as u64
        };
        let told: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || record(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        in_all += told.iter().sum::<u64>();
        for survival in [Survival::None, Survival::Some(round), Survival::All] {
            let after = start(&disk.power_cut(survival), options());
            let query = after.db().query("by").unwrap();
            for (thread, told) in told.iter().enumerate() {
                for n in 0..*told {
                    let row = query.get(&[&thread.to_string(), &n.to_string()]).unwrap();
                    assert_eq!(row.map(|row| row.count), Some(1), "{thread}, {n} of {told:?}");
                }
            }
            assert!(query.rows().unwrap().all(|row| row.unwrap().count == 1), "none twice");
        }
    }
    assert!(in_all > 500, "{in_all}");
}
