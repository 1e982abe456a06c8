//! Directories that cannot be opened: the error says which check failed, and nothing in them is
//! made, changed or removed.

use quipu::{
    Db, Error, ErrorKind, Event, OnInvalid, Options, Retention, Row, TestClock, Timestamp, View,
};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) const NOW: i64 = 1_700_000_000;

pub(crate) fn options() -> Options {
    Options::new()
        .clock(TestClock::at(Timestamp::from_secs(NOW)))
        .checkpoint_every(Duration::from_hours(1))
        .checkpoint_log_bytes(u64::MAX)
        .segment_bytes(64 << 10)
}

/// Every file with its bytes and every directory (without), below `dir`.
pub(crate) fn contents(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let Ok(entries) = fs::read_dir(dir) else { return all };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
            all.insert(path, None);
        } else {
            let bytes = fs::read(&path).unwrap();
            all.insert(path, Some(bytes));
        }
    }
    all
}

/// The directory as another process would find it if this one was killed now. While it is copied
/// nothing may be recorded and no checkpoint made; what the background prepares meanwhile is in
/// the copy or not, never in the manifest alone.
pub(crate) fn crash_image(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("log")).unwrap();
    for name in ["MANIFEST", "LOCK", "STAGE", "state.redb"] {
        // Before the first checkpoint there is no snapshot, before the first single event no stage.
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
    for path in segments(from) {
        fs::copy(&path, to.join("log").join(path.file_name().unwrap())).unwrap();
    }
}

/// Records an event as a frame of its own.
pub(crate) fn record_alone(db: &Db, event: Event<'_>) {
    db.record_all([event], OnInvalid::Refuse).unwrap();
}

/// The segments of a log, oldest first.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().unwrap() == "qlog").collect();
    paths.sort();
    paths
}

/// The frames of a segment, found by their magic.
pub(crate) fn frames(segment: &[u8]) -> Vec<Range<usize>> {
    let magic = |at: &usize| segment[*at..].starts_with(b"QFR1");
    let ends = segment.len().saturating_sub(4);
    let mut starts: Vec<usize> = (64..ends).step_by(8).filter(magic).collect();
    let end = segment.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    starts.push(end.next_multiple_of(8));
    starts.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

/// The call, an opening say, is refused, and everything below `root` is as it was.
pub(crate) fn refused<T: Debug>(root: &Path, call: impl FnOnce() -> quipu::Result<T>) -> Error {
    let before = contents(root);
    let error = call().unwrap_err();
    let after = contents(root);
    let names = |all: &BTreeMap<PathBuf, _>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before), "after {error}");
    let changed: Vec<_> = before.iter().filter(|(path, old)| after[*path] != **old).collect();
    let changed: Vec<_> = changed.into_iter().map(|(path, _)| path).collect();
    assert!(changed.is_empty(), "changed by {error}: {changed:?}");
    error
}

/// Opening fails with `kind`, and everything below `root` is as it was.
fn fails(root: &Path, dir: &Path, options: Options, kind: ErrorKind) -> Error {
    let error = refused(root, || options.open(dir));
    assert_eq!(error.kind(), kind, "{error}");
    error
}

fn rows(db: &Db, view: &str) -> Vec<Row> {
    db.query(view).unwrap().rows().unwrap().map(Result::unwrap).collect()
}

fn record(db: &Db, events: std::ops::Range<u64>) {
    let payload = [7; 400];
    for n in events {
        let user = format!("user{}", n % 10);
        let event = Event::new("sale").dim("user", &user).value(n as f64).payload(&payload);
        db.record(&event.at(Timestamp::from_secs(n as i64))).unwrap();
    }
}

/// A directory of several segments, of which a checkpoint has seen the first half.
fn populated(path: &Path, options: Options) -> Vec<Row> {
    let db = options.open(path).unwrap();
    db.define(View::new("by_user").by(["user"]).stats("value")).unwrap();
    record(&db, 0..400);
    db.checkpoint().unwrap();
    record(&db, 400..800);
    let rows = rows(&db, "by_user");
    let image = path.with_extension("image");
    crash_image(path, &image);
    drop(db);
    fs::remove_dir_all(path).unwrap();
    fs::rename(&image, path).unwrap();
    assert!(segments(path).len() >= 6);
    rows
}

#[test]
fn a_directory_of_other_files_is_not_taken() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("home");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("letter.txt"), "dear").unwrap();
    let error = fails(root.path(), &dir, options(), ErrorKind::NotQuipu);
    assert!(error.to_string().contains("letter.txt"), "{error}");
    assert_eq!(error.path(), Some(dir.as_path()));
    // Names that are ours, one that is not.
    fs::write(dir.join("LOCK"), "").unwrap();
    fs::create_dir(dir.join("log")).unwrap();
    fails(root.path(), &dir, options(), ErrorKind::NotQuipu);
    fails(root.path(), &dir, options().must_exist(), ErrorKind::NotQuipu);
}

#[test]
fn a_file_is_not_taken_for_a_directory() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "content").unwrap();
    let error = fails(root.path(), &file, options(), ErrorKind::NotQuipu);
    assert!(error.to_string().contains("file; a directory is needed"), "{error}");
    let error = fails(root.path(), &file.join("below"), options(), ErrorKind::Io);
    assert!(error.to_string().contains("below"), "{error}");
}

#[test]
fn the_directories_around_and_inside_one_of_ours_are_not_ours() {
    let root = tempfile::tempdir().unwrap();
    let outer = root.path().join("outer");
    populated(&outer.join("db"), options());
    fails(root.path(), &outer, options(), ErrorKind::NotQuipu);
    fails(root.path(), &outer.join("db").join("log"), options(), ErrorKind::NotQuipu);
}

#[test]
fn a_log_without_its_manifest_is_not_begun_anew() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    populated(&dir, options());
    fs::remove_file(dir.join("MANIFEST")).unwrap();
    fails(root.path(), &dir, options(), ErrorKind::Corruption);
    fs::remove_file(dir.join("state.redb")).unwrap();
    let error = fails(root.path(), &dir, options(), ErrorKind::Corruption);
    assert!(error.to_string().contains("MANIFEST"), "{error}");
}

#[test]
fn a_directory_that_is_open_is_locked_and_goes_on_working() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    db.define(View::new("by_user").by(["user"]).stats("value")).unwrap();
    record(&db, 0..10);
    // The background's last witness must not be taken for the second opening's doing.
    db.sync().unwrap();
    let names = |dir: &Path| contents(dir).into_keys().collect::<Vec<_>>();
    let before = names(&dir);
    for _ in 0..2 {
        let error = options().open(&dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
        assert_eq!(error.path(), Some(dir.as_path()));
    }
    assert_eq!(names(&dir), before);
    record(&db, 10..20);
    db.checkpoint().unwrap();
    let clone = db.clone();
    drop(db);
    assert_eq!(options().open(&dir).unwrap_err().kind(), ErrorKind::Locked, "a clone holds it");
    drop(clone);
    assert_eq!(rows(&options().open(&dir).unwrap(), "by_user").len(), 10);
}

#[test]
fn what_must_exist_is_not_made() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("no").join("such");
    fails(root.path(), &dir, options().must_exist(), ErrorKind::NotFound);
    fs::create_dir_all(&dir).unwrap();
    fails(root.path(), &dir, options().must_exist(), ErrorKind::NotFound);
    options().open(&dir).unwrap().close().unwrap();
    options().must_exist().open(&dir).unwrap().close().unwrap();
}

#[test]
fn an_empty_or_a_missing_directory_is_begun_with_its_parents() {
    let root = tempfile::tempdir().unwrap();
    for dir in [root.path().join("empty"), root.path().join("a").join("b").join("c")] {
        if dir.ends_with("empty") {
            fs::create_dir(&dir).unwrap();
        }
        let db = options().open(&dir).unwrap();
        assert_eq!(db.directory(), dir);
        assert_eq!((db.position().get(), db.views().unwrap().len()), (0, 0));
    }
}

fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

fn manifest_with(dir: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(dir.join("MANIFEST")).unwrap();
    change(&mut bytes);
    let sum = crc32(bytes[..12].iter().chain(&bytes[16..]).copied());
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    fs::write(dir.join("MANIFEST"), bytes).unwrap();
}

#[test]
fn a_newer_format_is_refused_and_this_one_is_not() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let expected = populated(&dir, options());
    let whole = fs::read(dir.join("MANIFEST")).unwrap();
    for format in [2_u32, 3, u32::MAX] {
        manifest_with(&dir, |bytes| bytes[8..12].copy_from_slice(&format.to_le_bytes()));
        let error = fails(root.path(), &dir, options(), ErrorKind::NewerFormat);
        assert!(error.to_string().contains(&format!("format {format}")), "{error}");
        assert_eq!(error.path(), Some(dir.join("MANIFEST").as_path()));
    }
    // The check-sum by hand is right: with the old version the file is byte for byte the old one.
    manifest_with(&dir, |bytes| bytes[8..12].copy_from_slice(&1_u32.to_le_bytes()));
    assert_eq!(fs::read(dir.join("MANIFEST")).unwrap(), whole);
    assert_eq!(rows(&options().open(&dir).unwrap(), "by_user"), expected);
}

#[test]
fn a_damaged_manifest_is_reported_byte_by_byte() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    populated(&dir, options());
    let whole = fs::read(dir.join("MANIFEST")).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        fs::write(dir.join("MANIFEST"), bytes).unwrap();
        fails(root.path(), &dir, options(), ErrorKind::Corruption);
    }
    for length in [0, 7, 8, 55, 57] {
        let mut bytes = whole.clone();
        bytes.resize(length, 0);
        fs::write(dir.join("MANIFEST"), bytes).unwrap();
        fails(root.path(), &dir, options(), ErrorKind::Corruption);
    }
}

#[test]
fn each_missing_segment_is_missed_and_nothing_is_touched() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let expected = populated(&dir, options());
    let aside = root.path().join("aside");
    let mut not_missed = Vec::new();
    let mut written = segments(&dir);
    // One that was made in advance may be in the image although its MANIFEST does not name it yet.
    while written.last().is_some_and(|last| !fs::read(last).unwrap()[64..].starts_with(b"QFR1")) {
        written.pop();
    }
    for segment in written {
        fs::rename(&segment, &aside).unwrap();
        // Opening a copy first, so that one that is not missed does not spoil the others.
        let copy = root.path().join("copy");
        crash_image(&dir, &copy);
        if options().open(&copy).is_ok() {
            not_missed.push(segment.clone());
        } else {
            let error = fails(root.path(), &dir, options(), ErrorKind::MissingSegment);
            assert_eq!(error.path(), Some(segment.as_path()));
        }
        fs::remove_dir_all(&copy).unwrap();
        fs::rename(&aside, &segment).unwrap();
    }
    assert_eq!(rows(&options().open(&dir).unwrap(), "by_user"), expected);
    assert!(not_missed.is_empty(), "opened without {not_missed:?} of a log of which all is kept");
}

#[test]
fn all_segments_missing_is_an_error_too() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    populated(&dir, options());
    for segment in segments(&dir) {
        fs::remove_file(segment).unwrap();
    }
    fails(root.path(), &dir, options(), ErrorKind::MissingSegment);
}

#[test]
fn a_snapshot_that_was_deleted_is_rebuilt_from_the_log() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let expected = populated(&dir, options());
    // Once from a crash, once from a clean close.
    for _ in 0..2 {
        fs::remove_file(dir.join("state.redb")).unwrap();
        let db = options().open(&dir).unwrap();
        assert_eq!(rows(&db, "by_user"), expected);
        assert_eq!(db.statistics().events, 800);
        db.close().unwrap();
    }
    let db = options().open(&dir).unwrap();
    record(&db, 0..10);
    assert_eq!(db.statistics().events, 810);
}

/// "The log is the whole truth, and a directory can be rebuilt from it."
#[test]
fn a_backfilled_view_is_not_cut_short_when_the_snapshot_is_rebuilt() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    populated(&dir, options());
    let db = options().open(&dir).unwrap();
    db.define(View::new("late").by(["user"]).stats("value")).unwrap();
    assert_eq!(db.backfill("late", |_| ControlFlow::Continue(())).unwrap(), 800);
    record(&db, 800..900);
    let expected = rows(&db, "late");
    assert_eq!(expected.iter().map(|row| row.count).sum::<u64>(), 900);
    db.close().unwrap();
    fs::remove_file(dir.join("state.redb")).unwrap();
    let db = options().open(&dir).unwrap();
    // That it was complete stood in the snapshot alone. It may be asked for again, but not pass
    // over in silence what came before its definition.
    if let Err(error) = db.query("late") {
        assert_eq!(error.kind(), ErrorKind::Backfilling);
        db.backfill("late", |_| ControlFlow::Continue(())).unwrap();
    }
    assert_eq!(rows(&db, "late"), expected);
}

#[test]
fn a_dropped_view_stays_dropped_when_the_snapshot_is_rebuilt() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let expected = populated(&dir, options());
    let db = options().open(&dir).unwrap();
    db.define(View::new("gone").by(["user"])).unwrap();
    db.define(View::new("again").by(["user"])).unwrap();
    record(&db, 0..10);
    db.drop_view("gone").unwrap();
    db.drop_view("again").unwrap();
    db.define(View::new("again").stats("value")).unwrap();
    db.record(&Event::new("visit")).unwrap();
    db.close().unwrap();
    fs::remove_file(dir.join("state.redb")).unwrap();
    let db = options().open(&dir).unwrap();
    let names: Vec<_> = db.views().unwrap().iter().map(|v| v.view.name().to_owned()).collect();
    assert_eq!(names, ["by_user", "again"]);
    assert_eq!(rows(&db, "again")[0].count, 1);
    assert_eq!(rows(&db, "by_user").len(), expected.len());
}

#[test]
fn a_snapshot_that_was_deleted_after_segments_were_retired_is_missed() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    populated(&dir, options());
    let db = options().retention(Retention::Recovery).open(&dir).unwrap();
    db.checkpoint().unwrap();
    db.close().unwrap();
    assert!(!segments(&dir)[0].ends_with("0000000001.qlog"));
    let expected = {
        let db = options().open(&dir).unwrap();
        rows(&db, "by_user")
    };
    let store = dir.join("state.redb");
    let aside = root.path().join("aside");
    fs::rename(&store, &aside).unwrap();
    fails(root.path(), &dir, options(), ErrorKind::MissingSegment);
    fs::rename(&aside, &store).unwrap();
    assert_eq!(rows(&options().open(&dir).unwrap(), "by_user"), expected);
}

#[test]
fn a_directory_where_nothing_may_be_made_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    fails(root.path(), Path::new("/proc/no-such-quipu"), options(), ErrorKind::NotFound);
    // What has one of our names is not what we put there.
    for (name, is_dir) in [("log", false), ("LOCK", true)] {
        let dir = root.path().join(name);
        fs::create_dir(&dir).unwrap();
        if is_dir {
            fs::create_dir(dir.join(name)).unwrap();
        } else {
            fs::write(dir.join(name), "").unwrap();
        }
        let before = contents(&dir);
        refused(&dir, || options().open(&dir));
        assert_eq!(contents(&dir), before);
    }
}

#[test]
fn an_error_gives_the_error_of_the_system_behind_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = options().open(file.path().join("below")).unwrap_err();
    let source = std::error::Error::source(&error).expect("a source");
    let source = source.downcast_ref::<std::io::Error>().expect("the system's");
    assert_eq!(source.kind(), std::io::ErrorKind::NotADirectory);
}
