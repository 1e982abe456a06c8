//! Backups and restores that are cut and fail at every place.
//!
//! The value of every event is its position, so a sum says which events there are.

use crate::calls::Call;
use quipu::simulation::{OperationKind, SimulatedDisk, Stepped, Survival, restore_on};
use quipu::{
    Db, Durability, Error, ErrorKind, Event, Grain, Keep, Options, Position, Progress, ReadOnlyDb,
    TestClock, Timestamp, Upto, View,
};
use std::cell::Cell;
use std::ops::ControlFlow;
use std::time::Duration;

const NOW: i64 = 1_700_000_000;

fn options() -> Options {
    Options::new()
        .clock(TestClock::at(Timestamp::from_secs(NOW)))
        .durability(Durability::Memory)
        .tiny_segments(4_096)
}

fn quietly(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn open(disk: &SimulatedDisk) -> Stepped {
    Stepped::open(options(), disk, "db").unwrap()
}

/// Records batches of ten; the value of each event is its position, and so is its minute.
fn record(db: &Db, batches: u64) {
    try_to_record(db, batches).unwrap();
}

fn try_to_record(db: &Db, batches: u64) -> Result<(), Error> {
    let mut batch = db.batch();
    for _ in 0..batches {
        let next = db.position().get() + 1;
        for position in next..next + 10 {
            let user = format!("u{}", position % 7);
            let at = Timestamp::from_secs(NOW + position as i64 * 60);
            batch.push(&Event::new("e").at(at).dim("user", &user).value(position as f64)).unwrap();
        }
        db.record_batch(&mut batch)?;
    }
    Ok(())
}

/// A directory with segments that are full, a snapshot, records behind it, and a view that was filled.
fn source() -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let engine = Stepped::open(options().clock(clock.clone()), &disk, "db").unwrap();
    let db = engine.db();
    let view = View::new("v").by(["user"]).stats("value").grain(Grain::Hour, Keep::Last(50));
    db.define(view).unwrap();
    record(db, 12);
    db.define(View::new("late").stats("value")).unwrap();
    clock.advance(Duration::from_mins(1));
    record(db, 4);
    db.backfill("late", quietly).unwrap();
    db.checkpoint().unwrap();
    record(db, 3);
    db.close().unwrap();
    disk
}

/// How many control records are among the first ones.
fn controls(position: u64) -> Vec<u64> {
    // The definitions, and that the backfill was asked for and done.
    [1, 122, 163, 164].into_iter().filter(|control| *control <= position).collect()
}

/// The directory holds the events up to this position, each of them once in every view.
fn holds(disk: &SimulatedDisk, dir: &str, position: u64) {
    let engine = Stepped::open(options(), disk, dir).unwrap();
    let db = engine.db();
    assert_eq!(db.position().get(), position);
    let controls = controls(position);
    let events = position - controls.len() as u64;
    let sum = position * (position + 1) / 2 - controls.iter().sum::<u64>();
    for view in db.views().unwrap() {
        let row = db.query(view.view.name()).unwrap().totals().unwrap();
        assert_eq!((row.count, row.summary().unwrap().sum), (events, sum as f64), "{view:?}");
    }
    assert_eq!(db.views().unwrap().len(), controls.iter().filter(|at| **at < 163).count());
    assert_eq!(db.statistics().snapshots_rebuilt, 0);
}

/// Restores what is in the backup, if there is one, and gives its position.
fn restored(disk: &SimulatedDisk) -> Option<u64> {
    let disk = disk.kill();
    match restore_on(&disk, "kept", "again", Upto::Everything, quietly) {
        Ok(outcome) => {
            holds(&disk, "again", outcome.position.get());
            Some(outcome.position.get())
        }
        Err(error) => {
            let none = [ErrorKind::NotQuipu, ErrorKind::NotFound];
            assert!(none.contains(&error.kind()), "{error}");
            None
        }
    }
}

/// Cuts a backup over the one at position `before`, of a source that has `durable` records safe.
fn cut<S>(
    name: &str,
    disk: &SimulatedDisk,
    before: Option<u64>,
    durable: u64,
    prepare: &dyn Fn(&SimulatedDisk) -> S,
    make: &dyn Fn(&S, &SimulatedDisk) -> Result<(), Error>,
) {
    let source_is_whole = |disk: &SimulatedDisk, backup: Option<u64>| {
        let position = open(&disk.kill()).db().position().get();
        assert!(position >= durable, "the source has {position}, {durable} were safe");
        // What is in a backup is not lost where it came from.
        assert!(backup.is_none_or(|backup| position >= backup), "{position}, in it {backup:?}");
    };
    Call {
        name,
        prepare,
        // After a sync that failed nobody but the owner, opening it anew, can know what is on the
        // disk; what a reader's later sync says means nothing.
        spared: &|op| op.kind == OperationKind::Sync && op.path.starts_with("db/log"),
        make,
        interrupted: &|disk| {
            let position = restored(disk);
            assert!(
                position >= before && position.is_none_or(|p| Some(p) == before || p >= durable)
            );
            source_is_whole(disk, position);
        },
        complete: &|disk| {
            let position = restored(disk);
            assert!(position.is_some_and(|position| position >= durable), "{position:?}");
            source_is_whole(disk, position);
        },
    }
    .everywhere(disk);
}

/// A backup by the owner, who goes on recording meanwhile.
fn by_owner(engine: &Stepped, _: &SimulatedDisk) -> Result<(), Error> {
    let calls = Cell::new(0);
    let db = engine.db();
    db.backup("kept", |_| {
        calls.set(calls.get() + 1);
        if calls.get() % 3 == 1 && db.position().get() < 1_000 {
            // Where the disk fails, that is no matter of the backup's.
            let _ = try_to_record(db, 1);
        }
        ControlFlow::Continue(())
    })
    .map(|_| ())
}

fn beside(disk: &SimulatedDisk) -> ReadOnlyDb {
    options().open_read_only_on(disk, "db").unwrap()
}

fn by_reader(reader: &ReadOnlyDb, _: &SimulatedDisk) -> Result<(), Error> {
    reader.backup("kept", quietly).map(|_| ())
}

#[test]
fn a_backup_by_the_owner_is_there_whole_or_not() {
    let disk = source();
    let durable = open(&disk.kill()).db().position().get();
    cut("backup by the owner", &disk, None, durable, &open, &by_owner);
}

#[test]
fn a_backup_by_a_reader_is_there_whole_or_not() {
    let disk = source();
    let engine = open(&disk);
    let durable = engine.db().position().get();
    // Of these a power cut would leave nothing, until the backup has them.
    record(engine.db(), 3);
    cut("backup by a reader", &disk.kill(), None, durable, &beside, &by_reader);
}

/// A backup that was begun and killed, then cut when it was begun again, can be begun once more.
#[test]
fn a_backup_that_was_just_begun_can_be_begun_again() {
    let disk = source();
    let moments = |disk: &SimulatedDisk| {
        let reader = beside(disk);
        disk.keep_moments();
        by_reader(&reader, disk).unwrap();
        let moments = disk.moments();
        moments.into_iter().take(20)
    };
    for (first, killed) in moments(&disk) {
        for (second, moment) in moments(&killed.kill()) {
            for seed in 0..4 {
                let cut = moment.power_cut(Survival::Some(seed));
                let again = by_reader(&beside(&cut), &cut);
                assert!(again.is_ok(), "{again:?}: {first:?}, then {second:?}, {seed}");
            }
        }
    }
}

/// A source with a backup at the position, and what came since: segments, a checkpoint, a tail.
fn grown() -> (SimulatedDisk, u64, u64) {
    let disk = source();
    let engine = open(&disk);
    let db = engine.db();
    record(db, 2);
    let before = db.backup("kept", quietly).unwrap().position.get();
    record(db, 12);
    db.checkpoint().unwrap();
    record(db, 2);
    let durable = db.sync().unwrap().get();
    record(db, 2);
    (disk.kill(), before, durable)
}

#[test]
fn a_backup_over_an_earlier_one_leaves_that_until_it_is_whole() {
    let (disk, before, durable) = grown();
    cut("backup by the owner over one", &disk, Some(before), durable, &open, &by_owner);
}

#[test]
fn a_backup_by_a_reader_over_an_earlier_one_leaves_that_until_it_is_whole() {
    let (disk, before, durable) = grown();
    cut("backup by a reader over one", &disk, Some(before), durable, &beside, &by_reader);
}

fn is_whole(disk: &SimulatedDisk) -> bool {
    let there = |name: &str| disk.files().contains_key(std::path::Path::new(name));
    there("to/MANIFEST") && !there("to/RESTORING")
}

/// Restores if that is not done yet.
fn to_restore(upto: Upto) -> impl Fn(&(), &SimulatedDisk) -> Result<(), Error> {
    move |(), disk| match restore_on(disk, "kept", "to", upto, quietly) {
        // It is whole, and so it is opened.
        Err(error) if error.kind() == ErrorKind::Invalid && is_whole(disk) => {
            Stepped::open(options(), disk, "to")?.db().close()
        }
        restored => restored.map(|_| ()),
    }
}

#[test]
fn a_restore_is_opened_when_it_is_whole_and_can_be_repeated() {
    let disk = source();
    let last = open(&disk).db().backup("kept", quietly).unwrap().position.get();
    let disk = disk.kill();
    let ends = [
        ("everything", Upto::Everything, last),
        // In the middle of a batch, before the backfill.
        ("a position", Upto::Position(Position::from(137)), 137),
        // The backfill had been asked for and was not done.
        ("a position inside a backfill", Upto::Position(Position::from(163)), 163),
        ("recorded at", Upto::RecordedAt(Timestamp::from_secs(NOW + 30)), 122),
    ];
    for (name, upto, position) in ends {
        Call {
            name: &format!("restore of {name}"),
            prepare: &|_| (),
            spared: &|_| false,
            make: &to_restore(upto),
            interrupted: &|disk| {
                if is_whole(disk) {
                    restored_to(disk, position);
                } else if disk.files().keys().any(|path| path.starts_with("to")) {
                    let opened = Stepped::open(options().must_exist(), disk, "to");
                    let kinds = [ErrorKind::NotQuipu, ErrorKind::NotFound];
                    assert!(kinds.contains(&opened.unwrap_err().kind()));
                }
                // The backup is only read.
                assert_eq!(restored(disk), Some(last));
            },
            complete: &|disk| restored_to(disk, position),
        }
        .everywhere(&disk);
    }
}

/// What is restored is open to everybody; before the backfill it has one view.
fn restored_to(disk: &SimulatedDisk, position: u64) {
    let disk = disk.kill();
    let engine = Stepped::open(options(), &disk, "to").unwrap();
    assert_eq!(engine.db().position().get(), position);
    let cut = disk.power_cut(Survival::None);
    assert_eq!(Stepped::open(options(), &cut, "to").unwrap().db().position().get(), position);
    let row = engine.db().query("v").unwrap().totals().unwrap();
    let controls = controls(position);
    assert_eq!(row.count, position - controls.len() as u64);
    let sum = position * (position + 1) / 2 - controls.iter().sum::<u64>();
    assert_eq!(row.summary().unwrap().sum, sum as f64);
    if position == 163 {
        // As it was then: asked for, and to be gone on with.
        let late = engine.db().query("late").unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Backfilling);
        engine.db().backfill("late", |_| ControlFlow::Continue(())).unwrap();
    }
    if position >= 163 {
        let late = engine.db().query("late").unwrap().totals().unwrap();
        assert_eq!(late.count, row.count);
    }
}

#[test]
fn a_restore_as_of_an_event_time_is_opened_when_it_is_whole_and_can_be_repeated() {
    let disk = source();
    open(&disk).db().backup("kept", quietly).unwrap();
    let time = Timestamp::from_secs(NOW + 100 * 60);
    let whole = |disk: &SimulatedDisk| {
        let engine = Stepped::open(options(), &disk.kill(), "to").unwrap();
        for view in ["v", "late"] {
            let row = engine.db().query(view).unwrap().totals().unwrap();
            assert_eq!((row.count, row.summary().unwrap().sum), (99, 5_049.0));
        }
    };
    Call {
        name: "restore as of an event time",
        prepare: &|_| (),
        spared: &|_| false,
        make: &to_restore(Upto::EventTime(time)),
        interrupted: &|disk| {
            if is_whole(disk) {
                whole(disk);
            } else {
                let opened = Stepped::open(options().must_exist(), disk, "to");
                let kinds = [ErrorKind::NotQuipu, ErrorKind::NotFound];
                assert!(kinds.contains(&opened.unwrap_err().kind()));
            }
        },
        complete: &whole,
    }
    .everywhere(&disk.kill());
}
