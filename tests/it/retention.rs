//! Retention: what of the log is let go, when, and what is refused afterwards.

use crate::directory::{NOW, crash_image, options, record_alone, segments};
use quipu::{Db, ErrorKind, Event, Options, Progress, Retention, Row, TestClock, Timestamp, View};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn by_user() -> View {
    View::new("by_user").by(["user"]).stats("value")
}

/// Some sixty events fill a segment.
fn record(db: &Db, events: std::ops::Range<u64>) {
    let payload = [7; 1_000];
    for n in events {
        let user = format!("user{}", n % 10);
        let event = Event::new("sale").dim("user", &user).value(n as f64);
        record_alone(db, event.payload(&payload));
    }
}

fn rows(db: &Db, view: &str) -> Vec<Row> {
    db.query(view).unwrap().rows().unwrap().map(Result::unwrap).collect()
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn bytes_of(segments: &[PathBuf]) -> u64 {
    segments.iter().map(|path| path.metadata().unwrap().len()).sum()
}

/// Answers are the same after a close and after a kill.
fn same_after_reopening(path: &Path, with: impl Fn() -> Options, db: Db) {
    let expected = (rows(&db, "by_user"), db.statistics().events, db.position());
    let image = path.with_extension("image");
    crash_image(path, &image);
    drop(db);
    for path in [path, &image] {
        let db = with().open(path).unwrap();
        assert_eq!((rows(&db, "by_user"), db.statistics().events, db.position()), expected);
    }
}

#[test]
fn keeping_all_keeps_all() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().retention(Retention::KeepAll).open(&path).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..500);
    let before = segments(&path);
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    assert!(before.len() >= 8);
    let after = segments(&path);
    assert!(before.iter().all(|segment| after.contains(segment)));
    db.define(View::new("late").by(["user"]).stats("value")).unwrap();
    assert_eq!(db.backfill("late", go_on).unwrap(), 500);
    assert_eq!(rows(&db, "late"), rows(&db, "by_user"));
    same_after_reopening(&path, options, db);
}

#[test]
fn segments_that_recovery_does_not_need_go_with_a_checkpoint_and_not_before() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let with = || options().retention(Retention::Recovery);
    let db = with().open(&path).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..500);
    assert!(segments(&path).len() >= 8);
    assert!(segments(&path)[0].ends_with("0000000001.qlog"));
    db.checkpoint().unwrap();
    // The active one, and the next one if it is prepared.
    assert!(segments(&path).len() <= 2, "{:?}", segments(&path));
    assert_eq!(db.statistics().segments, segments(&path).len() as u64);
    assert_eq!(db.statistics().log_bytes, bytes_of(&segments(&path)));
    record(&db, 500..800);
    assert!(segments(&path).len() >= 4);
    same_after_reopening(&path, with, db);
}

#[test]
fn a_view_is_not_backfilled_from_a_log_whose_beginning_was_retired() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let with = || options().retention(Retention::Recovery);
    let db = with().open(&path).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..200);
    db.checkpoint().unwrap();
    db.define(View::new("late").by(["user"])).unwrap();
    let check = |db: &Db, when: &str| {
        let error = db.backfill("late", go_on).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LogRetired, "{when}: {error}");
        // It was not begun: the view answers for what came since.
        assert_eq!(rows(db, "late").iter().map(|row| row.count).sum::<u64>(), 10, "{when}");
    };
    record(&db, 200..210);
    check(&db, "at once");
    drop(db);
    for opening in 1..4 {
        let db = with().open(&path).unwrap();
        check(&db, &format!("opening {opening}"));
        db.checkpoint().unwrap();
        check(&db, &format!("opening {opening}, after a checkpoint"));
    }
    // Even where the log that is left has nothing in it yet.
    let db = options().open(&path).unwrap();
    check(&db, "by another policy");
}

#[test]
fn the_newest_bytes_are_kept() {
    const KEPT: u64 = 300 << 10;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let with = || options().retention(Retention::Bytes(KEPT));
    let db = with().open(&path).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..150);
    let small = segments(&path);
    db.checkpoint().unwrap();
    assert!(small.iter().all(|segment| segment.exists()), "below the limit nothing goes");
    record(&db, 150..1_000);
    db.sync().unwrap();
    let before = segments(&path);
    assert!(bytes_of(&before) > 2 * KEPT);
    db.checkpoint().unwrap();
    let after = segments(&path);
    assert!(before.iter().filter(|segment| !segment.exists()).count() > 4);
    assert!(after.iter().filter(|segment| before.contains(segment)).count() >= 3);
    // The prepared one comes on top.
    let kept = bytes_of(&after);
    assert!(kept <= KEPT + (64 << 10) && kept > KEPT / 2, "{kept} bytes are left");
    let error = {
        db.define(View::new("late").by(["user"])).unwrap();
        db.backfill("late", go_on).unwrap_err()
    };
    assert_eq!(error.kind(), ErrorKind::LogRetired);
    same_after_reopening(&path, with, db);
}

#[test]
fn what_was_recorded_lately_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let with = || options().clock(clock.clone()).retention(Retention::Age(Duration::from_hours(1)));
    let db = with().open(&path).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..300);
    db.sync().unwrap();
    let old = segments(&path);
    db.checkpoint().unwrap();
    assert!(old.iter().all(|segment| segment.exists()), "all of it was recorded just now");
    clock.advance(Duration::from_mins(50));
    record(&db, 300..600);
    let young: Vec<_> = segments(&path).into_iter().filter(|s| !old.contains(s)).collect();
    clock.advance(Duration::from_mins(20));
    record(&db, 600..601);
    db.checkpoint().unwrap();
    assert!(young.len() >= 3 && young.iter().all(|segment| segment.exists()), "20 minutes old");
    // Of the old ones the last may hold young events.
    let left = old.iter().filter(|segment| segment.exists()).count();
    assert!(left <= 2, "{left} segments of 70 minutes ago are left");
    clock.advance(Duration::from_mins(90));
    record(&db, 601..602);
    db.checkpoint().unwrap();
    assert!(segments(&path).len() <= 3, "{:?}", segments(&path));
    same_after_reopening(&path, with, db);
}

#[test]
fn an_unfinished_backfill_keeps_the_segments_that_it_has_still_to_read() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let with = || options().retention(Retention::Recovery);
    let db = options().open(&path).unwrap();
    db.define(by_user()).unwrap();
    record(&db, 0..500);
    drop(db);
    let db = with().open(&path).unwrap();
    db.define(View::new("late").by(["user"]).stats("value")).unwrap();
    let mut steps = 0;
    let stop = |_: Progress| {
        steps += 1;
        if steps == 200 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    db.backfill("late", stop).unwrap();
    for round in 0..3 {
        record(&db, 500 + round * 100..600 + round * 100);
        db.checkpoint().unwrap();
    }
    assert!(!segments(&path)[0].ends_with("0000000001.qlog"), "what was read may go");
    assert!(segments(&path).len() >= 5, "what was not read stays");
    let image = path.with_extension("image");
    crash_image(&path, &image);
    drop(db);
    for path in [&path, &image] {
        let db = with().open(path).unwrap();
        assert_eq!(db.query("late").unwrap_err().kind(), ErrorKind::Backfilling);
        db.checkpoint().unwrap();
        db.backfill("late", go_on).unwrap();
        assert_eq!(rows(&db, "late"), rows(&db, "by_user"));
        record(&db, 800..801);
        db.checkpoint().unwrap();
        assert!(segments(path).len() <= 3, "nothing needs them any more");
        drop(db);
        assert_eq!(rows(&with().open(path).unwrap(), "late").len(), 10);
    }
}
