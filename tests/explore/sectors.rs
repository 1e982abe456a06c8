//! A sector of the log that cannot be read: whoever needs it says so, with file and place, and nothing
//! else comes of it.

use quipu::simulation::{
    Fault, OperationKind, SimulatedDisk, Stepped, repair_on, restore_on, verify_on,
};
use quipu::{
    Db, Depth, Error, ErrorKind, Event, OnInvalid, Options, Repair, TestClock, Timestamp, Upto,
    View,
};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const SECTOR_BYTES: u64 = 512;
/// So exactly the place is said.
const PAGE_BYTES: u64 = 4_096;
const BATCHES: u64 = 12;

fn options() -> Options {
    Options::new().clock(TestClock::at(Timestamp::from_secs(1_700_000_000))).tiny_segments(12 << 10)
}

fn start(disk: &SimulatedDisk) -> Result<Stepped, Error> {
    Stepped::open(options(), disk, "db")
}

fn record(db: &Db) {
    for batch in 0..BATCHES {
        let events = (0..40).map(|n| {
            let user = format!("user {}", (batch * 40 + n) % 90);
            let at = Timestamp::from_secs((batch * 40 + n) as i64);
            (user, at)
        });
        let named: Vec<_> = events.collect();
        let payload = [7; 60];
        let events = named.iter().map(|(user, at)| {
            Event::new("e").at(*at).dim("user", user).value(1.0).payload(&payload)
        });
        db.record_all(events, OnInvalid::Refuse).unwrap();
    }
}

fn check(db: &Db, view: &str) {
    let total = db.query(view).unwrap().totals().unwrap();
    assert_eq!((total.count, total.summary().unwrap().sum), (BATCHES * 40, 480.0));
}

/// A directory with a log of several sealed segments, its snapshot being of the end or not there.
fn directory(with_snapshot: bool) -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let engine = start(&disk).unwrap();
    engine.db().define(View::new("v").by(["user"]).stats("value")).unwrap();
    record(engine.db());
    engine.db().sync().unwrap();
    if with_snapshot {
        engine.db().close().unwrap();
    }
    let killed = disk.kill();
    drop(engine);
    // An opening seals the last one, so that there is nothing but sealed ones.
    let engine = start(&killed).unwrap();
    let sealed = killed.kill();
    drop(engine);
    sealed
}

/// The segments in this directory, and the sectors of each.
fn sectors(disk: &SimulatedDisk, dir: &str) -> Vec<(PathBuf, u64)> {
    let is_segment = |path: &Path| {
        path.starts_with(dir) && path.extension().is_some_and(|extension| extension == "qlog")
    };
    let files = disk.files().into_iter().filter(|(path, _)| is_segment(path));
    let sectors: Vec<_> = files
        .flat_map(|(path, bytes)| {
            let sectors = (bytes.len() as u64).div_ceil(SECTOR_BYTES);
            (0..sectors).map(move |sector| (path.clone(), sector * SECTOR_BYTES))
        })
        .collect();
    assert!(sectors.len() > 60, "{}", sectors.len());
    sectors
}

/// From now on this sector cannot be read.
fn spoil(disk: &SimulatedDisk, path: &Path, at: u64) {
    let path = path.to_owned();
    disk.plan(move |op| {
        let hit = op.kind == OperationKind::Read
            && op.path == path
            && op.offset < at + SECTOR_BYTES
            && at < op.offset + op.bytes;
        hit.then_some(Fault::Error(io::ErrorKind::Other))
    });
}

#[track_caller]
fn is_told<T>(what: &str, result: Result<T, Error>, path: &Path, at: u64) {
    let Err(error) = result else { panic!("{what} does not miss {} at {at}", path.display()) };
    assert_eq!(error.kind(), ErrorKind::Io, "{what}: {error}");
    assert_eq!(error.path(), Some(path), "{what}: {error}");
    let page = error.offset().map(|offset| offset / PAGE_BYTES);
    assert_eq!(page, Some(at / PAGE_BYTES), "{what}: {error}");
}

fn on<T>(_: T) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn who_needs_a_sector_of_the_log_that_cannot_be_read_says_which() {
    let disk = directory(false);
    let before = disk.files();
    for (path, at) in sectors(&disk, "db") {
        spoil(&disk, &path, at);
        is_told("open", start(&disk), &path, at);
        is_told("reading", options().open_read_only_on(&disk, "db"), &path, at);
        for depth in [Depth::Checksums, Depth::Refold] {
            is_told("verify", verify_on(&disk, "db", depth, |_| {}), &path, at);
        }
        for mode in [Repair::DryRun, Repair::Apply] {
            let now = Timestamp::from_secs(1_700_000_000);
            is_told("repair", repair_on(&disk, "db", mode, now, |_| {}), &path, at);
        }
        disk.heal();
        assert!(disk.files() == before, "{} at {at}: something was changed", path.display());
    }
    check(start(&disk).unwrap().db(), "v");
}

#[test]
fn a_living_engine_says_which_sector_of_its_log_cannot_be_read_and_goes_on() {
    let disk = directory(true);
    for (path, at) in sectors(&disk, "db") {
        let disk = disk.kill();
        let engine = start(&disk).unwrap();
        let db = engine.db();
        db.define(View::new("late").by(["user"]).stats("value")).unwrap();
        let reader = options().open_read_only_on(&disk, "db").unwrap();
        spoil(&disk, &path, at);
        is_told("backfill", db.backfill("late", on), &path, at);
        is_told("backup", db.backup("backup", on), &path, at);
        is_told("a reader's backup", reader.backup("other", on), &path, at);
        // What is not in need of the place is not disturbed by it.
        check(db, "v");
        check(start(&disk.kill()).unwrap().db(), "v");
        disk.heal();
        db.backfill("late", on).unwrap();
        check(db, "late");
        db.backup("backup", on).unwrap();
        reader.backup("other", on).unwrap();
    }
}

#[test]
fn a_restore_says_which_sector_of_the_backup_cannot_be_read() {
    let disk = directory(true);
    let engine = start(&disk).unwrap();
    engine.db().backup("backup", on).unwrap();
    let (position, time) = (engine.db().position(), Timestamp::from_secs(1_000));
    drop(engine);
    for (path, at) in sectors(&disk, "backup") {
        let disk = disk.kill();
        spoil(&disk, &path, at);
        for upto in [Upto::Everything, Upto::Position(position), Upto::EventTime(time)] {
            is_told("restore", restore_on(&disk, "backup", "again", upto, on), &path, at);
            let opened = Stepped::open(options(), &disk, "again");
            assert_eq!(opened.unwrap_err().kind(), ErrorKind::NotQuipu, "{upto:?}");
        }
        is_told("verify", verify_on(&disk, "backup", Depth::Checksums, |_| {}), &path, at);
        disk.heal();
        restore_on(&disk, "backup", "again", Upto::Everything, on).unwrap();
        check(Stepped::open(options(), &disk, "again").unwrap().db(), "v");
    }
}
