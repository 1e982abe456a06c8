//! What the exploration found, each made small.

use quipu::simulation::{Fault, OperationKind, SimulatedDisk, Stepped, Survival, restore_on};
use quipu::{
    Db, Durability, ErrorKind, Event, OnInvalid, Options, Retention, TestClock, Upto, View,
};
use std::io;
use std::ops::ControlFlow;

fn options() -> Options {
    Options::new().clock(TestClock::default()).durability(Durability::Sync).tiny_segments(4_096)
}

/// Names that a process made, and did not live to sync, are in the page cache: whoever finds them
/// and builds upon them has to sync them first.
#[test]
fn names_that_a_killed_process_left_are_made_durable() {
    let disk = SimulatedDisk::new(1);
    disk.keep_moments();
    let engine = Stepped::open(options(), &disk, "a/b/db").unwrap();
    engine.db().record(&Event::new("e")).unwrap();
    drop(engine);
    let moments = disk.moments();
    assert!(moments.len() > 20);
    for (operation, moment) in moments {
        let killed = moment.kill();
        killed.keep_moments();
        let engine = Stepped::open(options(), &killed, "a/b/db").unwrap();
        let position = engine.db().record(&Event::new("e")).unwrap().position;
        let cut = killed.power_cut(Survival::None);
        let after = Stepped::open(options(), &cut, "a/b/db").unwrap();
        assert_eq!(after.db().position(), position, "killed before {operation:?}");
        // And while that opening is at it.
        for (again, moment) in killed.moments() {
            for survival in [Survival::None, Survival::Some(operation.number), Survival::All] {
                let opened = Stepped::open(options(), &moment.power_cut(survival), "a/b/db");
                assert!(opened.is_ok(), "{opened:?}: {operation:?}, then {again:?}");
            }
        }
    }
}

fn open(disk: &SimulatedDisk, options: Options) -> Stepped {
    Stepped::open(options, disk, "db").unwrap()
}

fn record(db: &Db, n: usize) {
    db.record_all(vec![Event::new("e").dim("k", "v"); n], OnInvalid::Refuse).unwrap();
}

/// After a failed sync the page cache shows what is not on the disk, and a second sync succeeds
/// without doing anything. A later opening has to write again what it serves.
#[test]
fn what_a_failed_sync_lost_is_not_served_as_durable() {
    for seed in 0..10 {
        let disk = SimulatedDisk::new(seed);
        let engine = open(&disk, options().durability(Durability::Memory));
        engine.db().record_with(&Event::new("e"), Durability::Sync).unwrap();
        for _ in 0..20 {
            record(engine.db(), 30);
        }
        disk.plan(|op| {
            (op.kind == OperationKind::Sync).then_some(Fault::Error(io::ErrorKind::Other))
        });
        assert!(engine.db().sync().is_err());
        let killed = disk.kill();
        let engine = open(&killed, options());
        let found = engine.db().position();
        assert_eq!((found.get(), engine.db().durable_position()), (601, found));
        let after = open(&killed.power_cut(Survival::None), options());
        assert_eq!(after.db().position(), found, "seed {seed}");
    }
}

/// A checkpoint that a kill interrupted may be seen in the page cache, and be gone after a power
/// cut. The segments that it retired are needed then.
#[test]
fn segments_are_not_removed_for_a_checkpoint_that_may_not_last() {
    let options = || options().retention(Retention::Recovery);
    let disk = SimulatedDisk::new(1);
    let engine = open(&disk, options());
    record(engine.db(), 50);
    engine.db().checkpoint().unwrap();
    for _ in 0..10 {
        record(engine.db(), 500);
    }
    let position = engine.db().position();
    disk.keep_moments();
    engine.db().checkpoint().unwrap();
    for (operation, moment) in disk.moments() {
        let killed = moment.kill();
        let engine = open(&killed, options());
        assert_eq!(engine.db().position(), position, "killed before {operation:?}");
        for survival in [Survival::None, Survival::Some(operation.number), Survival::All] {
            let after = open(&killed.power_cut(survival), options());
            assert_eq!(after.db().position(), position, "killed before {operation:?}");
        }
    }
}

/// A segment that was retired and could not be removed is not part of the log.
#[test]
fn a_retired_segment_that_is_still_there_is_not_read() {
    let options = || options().retention(Retention::Recovery);
    let disk = SimulatedDisk::new(1);
    let engine = open(&disk, options());
    for _ in 0..10 {
        record(engine.db(), 500);
    }
    let first = std::path::Path::new("db/log/0000000001.qlog");
    disk.plan(move |op| {
        let refused = op.kind == OperationKind::Remove && op.path == first;
        refused.then_some(Fault::Error(io::ErrorKind::Other))
    });
    engine.db().checkpoint().unwrap();
    assert!(engine.db().statistics().segments > 1);
    engine.db().define(View::new("late")).unwrap();
    let filled = engine.db().backfill("late", |_| ControlFlow::Continue(()));
    assert_eq!(filled.unwrap_err().kind(), ErrorKind::LogRetired);
    // The next checkpoint removes it, and so does one of a later opening.
    let killed = disk.kill();
    for (disk, engine) in [(&disk, engine), (&killed, open(&killed, options()))] {
        disk.heal();
        record(engine.db(), 1);
        engine.db().checkpoint().unwrap();
        assert_eq!(engine.db().statistics().segments, 1);
    }
}

/// The end of a backfill is durable by the checkpoint behind it; where that failed, the next call
/// makes it.
#[test]
fn a_backfill_whose_checkpoint_failed_is_complete_when_it_says_so() {
    let disk = SimulatedDisk::new(1);
    let engine = open(&disk, options());
    record(engine.db(), 50);
    engine.db().define(View::new("late")).unwrap();
    let fill = |engine: &Stepped| engine.db().backfill("late", |_| ControlFlow::Continue(()));
    disk.plan(|op| {
        (op.kind == OperationKind::Create).then_some(Fault::Error(io::ErrorKind::StorageFull))
    });
    assert_eq!(fill(&engine).unwrap_err().kind(), ErrorKind::NoSpace);
    assert_eq!(engine.db().query("late").unwrap().totals().unwrap().count, 50);
    assert_eq!(fill(&engine).unwrap_err().kind(), ErrorKind::NoSpace);
    disk.heal();
    assert_eq!(fill(&engine).unwrap(), 0, "everything was read before");
    let after = open(&disk.power_cut(Survival::None), options());
    assert_eq!(after.db().query("late").unwrap().totals().unwrap().count, 50);
}

/// The rest of a backfill is read last, from segments that the snapshot covers. Where they are damaged the
/// opening is refused, and the torn end of the log is still there.
#[test]
fn an_opening_that_misses_what_a_backfill_needs_changes_nothing() {
    let disk = SimulatedDisk::new(1);
    let engine = open(&disk, options().durability(Durability::Memory));
    for _ in 0..4 {
        record(engine.db(), 300);
    }
    engine.db().close().unwrap();
    let engine = open(&disk, options().durability(Durability::Memory));
    engine.db().define(View::new("late")).unwrap();
    engine.db().checkpoint().unwrap();
    disk.plan(|op| {
        let of_store = op.path.to_string_lossy().contains("state.redb");
        let failing = of_store && op.kind == OperationKind::Write;
        failing.then_some(Fault::Error(io::ErrorKind::Other))
    });
    assert!(engine.db().backfill("late", |_| ControlFlow::Continue(())).is_err());
    disk.heal();
    engine.db().sync().unwrap();
    record(engine.db(), 1);
    let killed = disk.kill();
    let first = std::path::Path::new("db/log/0000000001.qlog");
    let whole = killed.files()[first].clone();
    let mut damaged = whole.clone();
    damaged[200] ^= 1;
    let (last, mut torn) = killed
        .files()
        .into_iter()
        .rfind(|(path, bytes)| path.starts_with("db/log") && bytes[64..].iter().any(|b| *b != 0))
        .unwrap();
    let end = torn.iter().rposition(|byte| *byte != 0).unwrap();
    torn[end] ^= 0xff;
    assert_ne!(first, last);
    killed.replace(first, Some(&damaged));
    killed.replace(&last, Some(&torn));
    killed.replace("db/LOCK", None);
    let before = killed.files();
    let error = Stepped::open(options(), &killed, "db").unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Corruption, Some(first)), "{error}");
    assert!(killed.files() == before, "a file was changed");
    killed.replace(first, Some(&whole));
    let engine = open(&killed, options());
    assert_eq!(engine.db().query("late").unwrap().totals().unwrap().count, 1_200);
}

/// Of two restores at once one is done, and the other one is told; never is there a mixture.
#[test]
fn restores_into_one_directory_exclude_each_other() {
    let source = SimulatedDisk::new(1);
    let engine = open(&source, options());
    for _ in 0..4 {
        record(engine.db(), 300);
    }
    engine.db().backup("backup", |_| ControlFlow::Continue(())).unwrap();
    let position = engine.db().position();
    drop(engine);
    // One begins while the other copies.
    let disk = source.kill();
    let mut met = Vec::new();
    let outcome = restore_on(&disk, "backup", "to", Upto::Everything, |_| {
        let other =
            restore_on(&disk, "backup", "to", Upto::Everything, |_| ControlFlow::Continue(()));
        met.push(other.unwrap_err().kind());
        ControlFlow::Continue(())
    });
    assert_eq!(outcome.unwrap().position, position);
    assert!(met.contains(&ErrorKind::Locked), "{met:?}");
    // Both at any moments.
    for _ in 0..200 {
        let disk = source.kill();
        let restore =
            || restore_on(&disk, "backup", "to", Upto::Everything, |_| ControlFlow::Continue(()));
        let ends = std::thread::scope(|scope| {
            let both = [scope.spawn(restore), scope.spawn(restore)];
            both.map(|thread| thread.join().unwrap())
        });
        let refusals: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
        assert_eq!(refusals.len(), 1, "{ends:?}");
        let kind = refusals[0].kind();
        assert!(matches!(kind, ErrorKind::Locked | ErrorKind::Invalid), "{ends:?}");
        let engine = Stepped::open(options(), &disk, "to").unwrap();
        assert_eq!(engine.db().position(), position);
    }
}

/// What a failed write leaves is no damage of the log: a process that met it and is asked to read the log
/// says that writing failed.
#[test]
fn a_frame_that_could_not_be_written_is_not_taken_for_damage() {
    let go_on = |_| ControlFlow::Continue(());
    for seed in 0..20 {
        let disk = SimulatedDisk::new(seed);
        let engine = open(&disk, options());
        engine.db().define(View::new("before")).unwrap();
        record(engine.db(), 3);
        drop(engine);
        let engine = open(&disk, options().durability(Durability::Memory));
        engine.db().define(View::new("late")).unwrap();
        drop(engine);
        // The next opening's first frame is the first one of a segment.
        let engine = open(&disk, options());
        disk.plan(|op| {
            let is_log = op.path.extension().is_some_and(|extension| extension == "qlog");
            let is_frame = op.kind == OperationKind::Write && op.offset == 64 && is_log;
            is_frame.then_some(Fault::Error(io::ErrorKind::Other))
        });
        let events = vec![Event::new("e").dim("k", "v"); 30];
        assert!(engine.db().record_all(events, OnInvalid::Refuse).is_err());
        let db = engine.db();
        let beginning = quipu::Cursor::beginning();
        let errors = [
            db.backfill("late", go_on).unwrap_err(),
            db.redefine(View::new("late").by(["k"]), go_on).unwrap_err(),
            db.export(&beginning).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Poisoned, "seed {seed}: {error}");
        }
    }
}
