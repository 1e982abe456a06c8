//! Another definition where the log no longer reaches back: the buckets that are kept are converted, and
//! what they do not say is not answered.

use crate::directory::{contents, crash_image, options, segments};
use crate::forged::store;
use crate::model::copy_dir;
use proptest::prelude::*;
use quipu::storage::MemoryStorage;
use quipu::{
    Bucket, Db, Depth, ErrorKind, Event, Grain, Keep, Options, Progress, ReadOnlyDb, Retention,
    TestClock, TimeZone, Timestamp, Upto, View, ViewStatus,
};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Options whose log is retired at every checkpoint, at this moment.
fn at_moment(now: Timestamp) -> (Options, TestClock) {
    let clock = TestClock::at(now);
    (options().clock(clock.clone()).retention(Retention::Recovery), clock)
}

/// One event an hour before `now`, back to so many hours ago, oldest first.
fn hourly(now: Timestamp, hours: i64) -> Vec<Timestamp> {
    (0..hours).rev().map(|n| Timestamp::from_secs(now.micros() / 1_000_000 - n * HOUR)).collect()
}

fn record(db: &Db, key: &str, times: &[Timestamp]) {
    let payload = [7; 300];
    let mut batch = db.batch();
    for (n, time) in times.iter().enumerate() {
        let event = Event::new("visit").dim("user", key).value((n % 7) as f64).payload(&payload);
        batch.push(&event.at(*time)).unwrap();
    }
    db.record_batch(&mut batch).unwrap();
}

/// Makes sure that the log has not what was recorded so far.
fn retire(db: &Db) {
    let first = segments(db.directory())[0].clone();
    for _ in 0..20 {
        let filler = vec![Timestamp::from_secs(0); 200];
        let payload = [7; 300];
        let mut batch = db.batch();
        for time in filler {
            batch.push(&Event::new("filler").payload(&payload).at(time)).unwrap();
        }
        db.record_batch(&mut batch).unwrap();
        db.checkpoint().unwrap();
        if !first.exists() {
            return;
        }
    }
    panic!("nothing is retired");
}

fn visits() -> View {
    View::new("visits").by(["user"]).only_events(["visit"])
}

fn with(grains: &[(Grain, u32)]) -> View {
    grains.iter().fold(visits(), |view, (grain, n)| view.grain(*grain, Keep::Last(*n)))
}

fn buckets(db: &Db, key: &str, grain: Grain) -> Vec<(Timestamp, u64)> {
    let buckets = db.query("visits").unwrap().buckets(&[key], grain).unwrap();
    buckets.iter().map(|bucket: &Bucket| (bucket.start, bucket.count)).collect()
}

/// What the events of these times make of a grain.
fn counted(times: &[Timestamp], grain: Grain, zone: TimeZone) -> Vec<(Timestamp, u64)> {
    let mut all = std::collections::BTreeMap::new();
    for time in times {
        *all.entry(zone.start(grain, zone.bucket(grain, *time))).or_default() += 1;
    }
    all.into_iter().collect()
}

fn last(buckets: &[(Timestamp, u64)], n: usize) -> &[(Timestamp, u64)] {
    &buckets[buckets.len().saturating_sub(n)..]
}

fn status(db: &Db) -> ViewStatus {
    let mut views = db.views().unwrap();
    assert_eq!(views.len(), 1);
    views.remove(0)
}

fn exact_from(db: &Db, grain: Grain) -> Option<Timestamp> {
    let exact = status(db).exact_from;
    exact.iter().find(|(other, _)| *other == grain).expect("it was converted").1
}

#[track_caller]
fn intact(dir: &Path) {
    let report = quipu::verify(dir, Depth::Refold, |_| {}).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
    for view in report.views.iter().filter(|view| !view.refolded) {
        assert!(!view.why_not.as_deref().unwrap_or_default().is_empty());
    }
}

#[test]
fn changing_the_number_of_buckets_moves_nothing_however_often() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let now = at("2024-05-14T10:30:00Z");
    let (options, _) = at_moment(now);
    let mut db = options.clone().open(&dir).unwrap();
    db.define(with(&[(Grain::Day, 7), (Grain::Hour, 30)])).unwrap();
    let times = hourly(now, 24 * 20);
    record(&db, "u", &times);
    // One that was there long ago only.
    record(&db, "old", &["01", "03", "20", "25"].map(|d| at(&format!("2023-01-{d}T00:00:00Z"))));
    retire(&db);
    let (days, hours) =
        (counted(&times, Grain::Day, TimeZone::UTC), counted(&times, Grain::Hour, TimeZone::UTC));
    let old = buckets(&db, "old", Grain::Day);
    for (round, kept) in [56, 7, 365, 9, 100, 7].into_iter().enumerate() {
        let view = with(&[(Grain::Day, kept), (Grain::Hour, 30 + kept)]);
        assert!(db.redefine(view.clone(), go_on).unwrap());
        assert!(!db.redefine(view.clone(), go_on).unwrap(), "it is so already");
        assert_eq!(status(&db).view, db.query("visits").unwrap().view().clone());
        assert_eq!(status(&db).successor, None);
        assert_eq!(buckets(&db, "u", Grain::Day), last(&days, 7), "{kept} days");
        assert_eq!(buckets(&db, "u", Grain::Hour), last(&hours, 30));
        assert_eq!(buckets(&db, "old", Grain::Day), old);
        if round % 2 == 1 {
            db.close().unwrap();
            drop(db);
            intact(&dir);
            db = options.clone().open(&dir).unwrap();
        }
    }
    // More than what was kept is not answered, whatever is kept by now.
    db.redefine(with(&[(Grain::Day, 56)]), go_on).unwrap();
    let series = db.query("visits").unwrap().series(&["u"]).unwrap();
    assert_eq!(series.last_days(7).sum().unwrap(), Some(24 * 6 + 11));
    let eight = series.last_days(8);
    let error = eight.sum().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotKept);
    assert!(error.to_string().contains("converted"), "{error}");
    let kept = eight.kept().total().unwrap().unwrap();
    assert_eq!((kept.count, kept.is_partial()), (24 * 6 + 11, true));
    assert_eq!(kept.known_from, at("2024-05-08T00:00:00Z"));
    assert_eq!(exact_from(&db, Grain::Day), Some(kept.known_from));
    // What another key has kept is known of that.
    let old = db.query("visits").unwrap().series(&["old"]).unwrap();
    let between = |from: &str| old.between(at(from), at("2023-02-01T00:00:00Z")).by(Grain::Day);
    assert_eq!(between("2023-01-19T00:00:00Z").sum().unwrap(), Some(2));
    assert_eq!(between("2023-01-18T00:00:00Z").sum().unwrap_err().kind(), ErrorKind::NotKept);
    // A late event is in a bucket that is kept now, and not known.
    record(&db, "old", &[at("2023-01-10T00:00:00Z")]);
    assert_eq!(buckets(&db, "old", Grain::Day).len(), 2);
    assert_eq!(between("2023-01-10T00:00:00Z").sum().unwrap_err().kind(), ErrorKind::NotKept);
    assert_eq!(series.ever().sum().unwrap(), Some(24 * 20));
}

#[test]
fn hours_become_days_exactly_where_the_clocks_are_changed_too() {
    let root = tempfile::tempdir().unwrap();
    for (n, now) in ["2024-04-02T12:00:00Z", "2024-10-29T12:00:00Z"].map(at).into_iter().enumerate()
    {
        for stats in [false, true] {
            let dir = root.path().join(format!("{n}{stats}"));
            let zone: TimeZone = "Europe/Paris".parse().unwrap();
            let (options, _) = at_moment(now);
            let db = options.time_zone(zone).open(&dir).unwrap();
            let measured = |view: View| if stats { view.stats("value") } else { view };
            db.define(measured(with(&[(Grain::Hour, 200)]))).unwrap();
            let times = hourly(now, 150);
            record(&db, "u", &times);
            retire(&db);
            let new = with(&[(Grain::Day, 56), (Grain::Week, 9), (Grain::Month, 12)]);
            assert!(db.redefine(measured(new), go_on).unwrap());
            for grain in [Grain::Day, Grain::Week, Grain::Month] {
                assert_eq!(buckets(&db, "u", grain), counted(&times, grain, zone), "{grain}");
                assert_eq!(exact_from(&db, grain), None);
            }
            let days = db.query("visits").unwrap().buckets(&["u"], Grain::Day).unwrap();
            let hours = |day: &Bucket| (day.end.micros() - day.start.micros()) / 3_600_000_000;
            let short = days.iter().find(|day| hours(day) != 24).expect("clocks are changed");
            assert_eq!(short.count as i64, hours(short));
            if stats {
                let sum: f64 = days.iter().map(|day| day.summary().unwrap().sum).sum();
                assert_eq!(sum, (0..150).map(|n| f64::from(n % 7)).sum::<f64>());
            }
        }
    }
}

#[test]
fn days_become_hours_that_are_known_from_then_on() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let now = at("2024-05-14T10:30:00Z");
    let (options, clock) = at_moment(now);
    let db = options.open(&dir).unwrap();
    db.define(with(&[(Grain::Day, 30)])).unwrap();
    let times = hourly(now, 24 * 5);
    record(&db, "u", &times);
    // Of a single hour nothing is unknown.
    let once = [at("2024-05-14T07:10:00Z"), at("2024-05-14T07:20:00Z")];
    record(&db, "once", &once);
    retire(&db);
    assert!(db.redefine(with(&[(Grain::Day, 30), (Grain::Hour, 24 * 30)]), go_on).unwrap());
    let edge = at("2024-05-14T11:00:00Z");
    assert_eq!(exact_from(&db, Grain::Hour), Some(edge));
    assert_eq!(exact_from(&db, Grain::Day), None);
    let series = db.query("visits").unwrap().series(&["u"]).unwrap();
    assert_eq!(series.last_hours(1).sum().unwrap_err().kind(), ErrorKind::NotKept);
    assert_eq!(series.last_hours(3).kept().sum().unwrap_err().kind(), ErrorKind::NotKept);
    let between = series.between(at("2024-05-13T00:00:00Z"), at("2024-05-14T00:00:00Z"));
    assert_eq!(between.by(Grain::Hour).sum().unwrap_err().kind(), ErrorKind::NotKept);
    // By the days that are kept it is known.
    let exact = between.sum().unwrap().unwrap();
    assert_eq!((exact.lower, exact.upper), (24, 24));
    let trailing = series.trailing(Duration::from_hours(12)).sum().unwrap().unwrap();
    assert!(trailing.lower <= 12 && 12 <= trailing.upper && trailing.lower < trailing.upper);
    assert_eq!(series.last_days(2).sum().unwrap(), Some(24 + 11));
    assert_eq!(buckets(&db, "u", Grain::Hour), [], "an hour of which nobody knows is none");
    assert_eq!(buckets(&db, "once", Grain::Hour), counted(&once, Grain::Hour, TimeZone::UTC));
    let once = db.query("visits").unwrap().series(&["once"]).unwrap();
    assert_eq!(once.last_hours(24).sum().unwrap(), Some(2));
    assert_eq!(
        db.query("visits").unwrap().series(&["never"]).unwrap().last_hours(2).sum().unwrap(),
        None
    );
    // From the next hour on it is known.
    clock.set(at("2024-05-14T13:10:00Z"));
    let later =
        [at("2024-05-14T10:50:00Z"), at("2024-05-14T11:20:00Z"), at("2024-05-14T13:05:00Z")];
    record(&db, "u", &later);
    assert_eq!(series.last_hours(3).sum().unwrap(), Some(2));
    assert_eq!(series.last_hours(4).sum().unwrap_err().kind(), ErrorKind::NotKept);
    let kept = series.last_hours(4).kept().total().unwrap().unwrap();
    assert_eq!((kept.count, kept.known_from), (2, edge));
    assert_eq!(buckets(&db, "u", Grain::Hour), counted(&later[1..], Grain::Hour, TimeZone::UTC));
    assert_eq!(series.ever().sum().unwrap(), Some(24 * 5 + 3));
    let new = db.query("visits").unwrap().series(&["new"]).unwrap();
    record(&db, "new", &later[1..]);
    let between = new.between(at("2024-05-14T00:00:00Z"), at("2024-05-15T00:00:00Z"));
    assert_eq!(
        between.by(Grain::Hour).sum().unwrap(),
        Some(2),
        "before its first event is nothing"
    );
    // Back to days they are what they are.
    assert!(db.redefine(with(&[(Grain::Day, 30)]), go_on).unwrap());
    let all: Vec<Timestamp> = times.iter().chain(&later).copied().collect();
    assert_eq!(buckets(&db, "u", Grain::Day), counted(&all, Grain::Day, TimeZone::UTC));
    db.close().unwrap();
    drop(db);
    intact(&dir);
}

#[test]
fn weeks_become_months_and_seen_is_what_it_was() {
    let root = tempfile::tempdir().unwrap();
    let now = at("2024-08-20T10:30:00Z");
    let (options, _) = at_moment(now);
    let db = options.open(root.path().join("db")).unwrap();
    db.define(with(&[(Grain::Week, 52)])).unwrap();
    let times = hourly(now, 24 * 120);
    record(&db, "u", &times);
    retire(&db);
    let seen = |db: &Db| {
        let row = db.query("visits").unwrap().get(&["u"]).unwrap().unwrap();
        (row.count, row.first_seen, row.last_seen)
    };
    let before = seen(&db);
    assert!(db.redefine(with(&[(Grain::Month, 12), (Grain::Year, 4)]), go_on).unwrap());
    assert_eq!(seen(&db), before);
    // The week of the 1st of August is July's, too.
    assert_eq!(exact_from(&db, Grain::Month), Some(at("2024-09-01T00:00:00Z")));
    assert_eq!(exact_from(&db, Grain::Year), None);
    let year = db.query("visits").unwrap().series(&["u"]).unwrap().last_years(1);
    assert_eq!(year.sum().unwrap(), Some(24 * 120));
}

/// Of a view whose log is gone: the directory, and a copy of it at each step.
#[test]
fn a_kill_at_any_step_leaves_the_one_or_the_other() {
    const KEYS: usize = 700;
    let root = tempfile::tempdir().unwrap();
    let (dir, scratch) = (root.path().join("db"), root.path().join("scratch"));
    let now = at("2024-05-14T10:30:00Z");
    let (options, _) = at_moment(now);
    let db = options.clone().open(&dir).unwrap();
    let (old, new) = (
        visits().stats("value").grain(Grain::Hour, Keep::Last(200)),
        visits().stats("value").grain(Grain::Hour, Keep::Last(300)).grain(Grain::Day, Keep::All),
    );
    db.define(old.clone()).unwrap();
    let times = hourly(now, 150);
    let mut batch = db.batch();
    for key in 0..KEYS {
        let key = format!("u{key}");
        for (n, time) in times.iter().enumerate() {
            let value = (n % 7) as f64;
            batch.push(&Event::new("visit").dim("user", &key).value(value).at(*time)).unwrap();
        }
    }
    db.record_batch(&mut batch).unwrap();
    retire(&db);
    let mut images = Vec::new();
    let mut image = |db: &Db, more: u64, is_new: bool| {
        let path = root.path().join(format!("image{}", images.len()));
        db.sync().unwrap();
        crash_image(&dir, &path);
        images.push((path, more, is_new));
    };
    image(&db, 0, false);
    let (mut more, mut steps) = (0, 0);
    let converted = db.redefine(new.clone(), |progress| {
        assert_eq!((progress.done, progress.total), (steps * 256, KEYS as u64));
        assert_eq!(status(&db).view.grains(), old.grains());
        image(&db, more, false);
        record(&db, "u3", &[now]);
        record(&db, "new", &[now]);
        (more, steps) = (more + 1, steps + 1);
        image(&db, more, false);
        ControlFlow::Continue(())
    });
    assert!(converted.unwrap());
    assert_eq!(steps, 3);
    image(&db, more, true);
    db.close().unwrap();
    drop(db);
    image_of(&dir, &root.path().join("closed"));
    let check = |db: &Db, more: u64, is_new: bool| {
        let query = db.query("visits").unwrap();
        assert_eq!(query.key_count().unwrap(), KEYS as u64 + u64::from(more > 0));
        for key in ["u0", "u3", "u699", "new"] {
            let mut times = if key == "new" { Vec::new() } else { times.clone() };
            let added = if key == "u3" || key == "new" { more } else { 0 };
            times.extend((0..added).map(|_| now));
            let count = query.get(&[key]).unwrap().map(|row| row.count);
            assert_eq!(count, (!times.is_empty()).then_some(times.len() as u64));
            assert_eq!(buckets(db, key, Grain::Hour), counted(&times, Grain::Hour, TimeZone::UTC));
            if is_new {
                assert_eq!(
                    buckets(db, key, Grain::Day),
                    counted(&times, Grain::Day, TimeZone::UTC)
                );
            }
        }
    };
    for (image, more, is_new) in &images {
        for way in ["on", "anew", "back", "drop"] {
            let _ = std::fs::remove_dir_all(&scratch);
            copy_dir(image, &scratch);
            let db = options.clone().open(&scratch).unwrap();
            assert_eq!(status(&db).successor, None, "nothing is left of it");
            check(&db, *more, *is_new);
            match way {
                "on" => {
                    assert_eq!(db.redefine(new.clone(), go_on).unwrap(), !is_new);
                    check(&db, *more, true);
                }
                "anew" => {
                    let other = visits().stats("value").grain(Grain::Hour, Keep::Last(201));
                    assert!(db.redefine(other, go_on).unwrap());
                    check(&db, *more, false);
                }
                "back" => {
                    assert_eq!(db.redefine(old.clone(), go_on).unwrap(), *is_new);
                    check(&db, *more, false);
                }
                _ => db.drop_view("visits").unwrap(),
            }
            db.close().unwrap();
            drop(db);
            intact(&scratch);
        }
    }
}

fn image_of(from: &Path, to: &Path) {
    copy_dir(from, to);
    assert_eq!(contents(from).len(), contents(to).len());
}

#[test]
fn recording_and_asking_go_on_with_nothing_kept_in_memory() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let now = at("2024-05-14T10:30:00Z");
    let (options, _) = at_moment(now);
    let db = options.memory_budget(0).open(&dir).unwrap();
    db.define(with(&[(Grain::Hour, 100), (Grain::Day, 30)])).unwrap();
    let keys: Vec<String> = (0..400).map(|n| format!("u{n}")).collect();
    let mut batch = db.batch();
    for key in &keys {
        batch.push(&Event::new("visit").dim("user", key).at(now)).unwrap();
    }
    db.record_batch(&mut batch).unwrap();
    retire(&db);
    let done = &AtomicBool::new(false);
    let held = db.query("visits").unwrap();
    let recorded = std::thread::scope(|scope| {
        let recorder = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(SeqCst) || rounds < 5 {
                for key in &keys {
                    db.record(&Event::new("visit").dim("user", key).at(now)).unwrap();
                }
                rounds += 1;
            }
            rounds
        });
        let asker = scope.spawn(|| {
            let mut before = 400;
            while !done.load(SeqCst) {
                for query in [&db.query("visits").unwrap(), &held] {
                    let count = query.totals().unwrap().count;
                    assert!(count >= before, "{count} after {before}");
                    before = count;
                    let series = query.series(&["u7"]).unwrap();
                    let day = series.last_days(1).sum().unwrap().unwrap();
                    assert!(day <= series.ever().sum().unwrap().unwrap());
                }
            }
        });
        for hours in [200, 50, 300, 100] {
            assert!(db.redefine(with(&[(Grain::Hour, hours), (Grain::Day, 30)]), go_on).unwrap());
            db.checkpoint().unwrap();
        }
        assert!(db.redefine(with(&[(Grain::Day, 3), (Grain::Month, 9)]), go_on).unwrap());
        done.store(true, SeqCst);
        asker.join().unwrap();
        recorder.join().unwrap()
    });
    let check = |db: &Db| {
        let query = db.query("visits").unwrap();
        assert_eq!(query.key_count().unwrap(), 400);
        for key in &keys {
            for grain in [Grain::Day, Grain::Month] {
                let start = TimeZone::UTC.start(grain, grain.bucket(now));
                assert_eq!(buckets(db, key, grain), [(start, recorded + 1)], "{key}");
            }
        }
    };
    check(&db);
    db.close().unwrap();
    drop(db);
    intact(&dir);
    check(&Db::open(&dir).unwrap());
}

#[test]
fn what_needs_the_log_is_refused_and_says_which_part() {
    let root = tempfile::tempdir().unwrap();
    let now = at("2024-05-14T10:30:00Z");
    let (options, _) = at_moment(now);
    let db = options.open(root.path().join("db")).unwrap();
    db.define(with(&[(Grain::Day, 7)])).unwrap();
    record(&db, "u", &hourly(now, 300));
    retire(&db);
    let day = |view: View| view.grain(Grain::Day, Keep::Last(9));
    let others = [
        (day(visits().stats("value")), "aggregates"),
        (day(visits().where_equal("user", "u")), "conditions"),
        (day(View::new("visits").by(["user"])), "conditions"),
        (day(visits().by(["event", "user"])), "key"),
    ];
    let (position, before) = (db.position(), buckets(&db, "u", Grain::Day));
    for (view, part) in others {
        let error = db.redefine(view, go_on).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LogRetired);
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.to_string().contains("retired"), "{error}");
    }
    assert_eq!((db.position(), status(&db).successor), (position, None));
    assert_eq!(buckets(&db, "u", Grain::Day), before);
    // What is stopped leaves nothing.
    let stopped = db.redefine(with(&[(Grain::Day, 9)]), |_| ControlFlow::Break(()));
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Stopped);
    assert_eq!(status(&db).successor, None);
    // Nor does what another call makes void.
    let dropped = db.redefine(with(&[(Grain::Day, 9)]), |_| {
        db.drop_view("visits").unwrap();
        db.define(with(&[(Grain::Day, 3)])).unwrap();
        ControlFlow::Continue(())
    });
    assert_eq!(dropped.unwrap_err().kind(), ErrorKind::ViewConflict);
    record(&db, "u", &[now]);
    assert_eq!(db.query("visits").unwrap().totals().unwrap().count, 1);
    for _ in 0..4 {
        db.checkpoint().unwrap();
    }
    db.close().unwrap();
    drop(db);
    intact(&root.path().join("db"));
}

#[test]
fn a_view_whose_backfill_is_under_way_is_not_converted() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let now = at("2024-05-14T10:30:00Z");
    let (options, _) = at_moment(now);
    let db = options.clone().retention(Retention::KeepAll).open(&dir).unwrap();
    for _ in 0..6 {
        record(&db, "u", &hourly(now, 100));
    }
    db.define(with(&[(Grain::Day, 7)])).unwrap();
    db.backfill("visits", |_| ControlFlow::Break(())).unwrap();
    db.close().unwrap();
    drop(db);
    // What it has read is retired, what it has still to read is not.
    let db = options.open(&dir).unwrap();
    for _ in 0..3 {
        db.backfill("visits", |_| ControlFlow::Break(())).unwrap();
    }
    db.checkpoint().unwrap();
    assert!(!segments(&dir)[0].ends_with("0000000001.qlog"));
    let position = db.position();
    let error = db.redefine(with(&[(Grain::Day, 9)]), go_on).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backfilling, "{error}");
    assert!(error.to_string().contains("backfill it to the end"), "{error}");
    assert_eq!(db.position(), position);
    db.backfill("visits", go_on).unwrap();
    assert!(db.redefine(with(&[(Grain::Day, 9)]), go_on).unwrap());
    let count = db.query("visits").unwrap().get(&["u"]).unwrap().unwrap().count;
    assert_eq!(count, 600);
}

#[test]
fn a_reader_goes_from_one_answer_to_the_other() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let now = at("2024-05-14T10:30:00Z");
    let (options, _) = at_moment(now);
    let db = options.clone().open(&dir).unwrap();
    db.define(with(&[(Grain::Hour, 200)])).unwrap();
    let times = hourly(now, 150);
    record(&db, "u", &times);
    retire(&db);
    let reader = ReadOnlyDb::open(&dir).unwrap();
    let see = |reader: &ReadOnlyDb, days: bool, more: usize| {
        let status = reader.views().unwrap().remove(0);
        assert_eq!((status.view.grains()[0].0 == Grain::Day, status.successor), (days, None));
        assert_eq!(status.exact_from.is_empty(), !days);
        let query = reader.query("visits").unwrap();
        let grain = if days { Grain::Day } else { Grain::Hour };
        let counts = query.buckets(&["u"], grain).unwrap();
        assert_eq!(counts.iter().map(|b| b.count).sum::<u64>(), (150 + more) as u64);
    };
    db.redefine(with(&[(Grain::Day, 56)]), |_| {
        record(&db, "u", &[now]);
        db.sync().unwrap();
        reader.refresh().unwrap();
        see(&reader, false, 1);
        see(&ReadOnlyDb::open(&dir).unwrap(), false, 1);
        ControlFlow::Continue(())
    })
    .unwrap();
    record(&db, "u", &[now]);
    see(&ReadOnlyDb::open(&dir).unwrap(), true, 2);
    reader.refresh().unwrap();
    see(&reader, true, 2);
}

#[test]
fn a_backup_and_its_restores_have_what_is_known() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let now = at("2024-05-14T10:30:00Z");
    let (options, _) = at_moment(now);
    let db = options.clone().open(&dir).unwrap();
    db.define(with(&[(Grain::Day, 30)])).unwrap();
    record(&db, "u", &hourly(now, 200));
    // The first backup keeps the segments that are retired afterwards.
    db.backup(&backup, go_on).unwrap();
    retire(&db);
    db.backup(&backup, go_on).unwrap();
    let before = db.position();
    db.redefine(with(&[(Grain::Hour, 300), (Grain::Day, 30)]), go_on).unwrap();
    record(&db, "u", &[now]);
    let (end, exact) = (db.position(), status(&db).exact_from);
    db.backup(&backup, go_on).unwrap();
    db.close().unwrap();
    let restored = |name: &str, upto: Upto| {
        let to = root.path().join(name);
        quipu::restore(&backup, &to, upto, go_on).unwrap();
        intact(&to);
        options.clone().open(&to).unwrap()
    };
    let counts = |db: &Db| buckets(db, "u", Grain::Day).iter().map(|(_, n)| n).sum::<u64>();
    let at_the_end = restored("end", Upto::Position(end));
    assert_eq!((&status(&at_the_end).exact_from, counts(&at_the_end)), (&exact, 201));
    // The backup has no more of the log than the directory had.
    for upto in [Upto::Position(before), Upto::EventTime(now)] {
        let error = quipu::restore(&backup, root.path().join("earlier"), upto, go_on).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LogRetired, "{error}");
    }
    // A repair keeps what is known, too.
    at_the_end.close().unwrap();
    drop(at_the_end);
    let dir = root.path().join("end");
    let path = dir.join("state.redb");
    let state = std::fs::read(&path).unwrap();
    let (key, mut value) = store::rows(&state)[store::SERIES].pop().unwrap();
    *value.last_mut().unwrap() ^= 1;
    std::fs::write(&path, store::changed(&state, &[(store::SERIES, key, Some(value))])).unwrap();
    let repaired = quipu::repair(&dir, quipu::Repair::Apply, |_| {}).unwrap();
    assert!(repaired.applied && !repaired.steps.is_empty());
    let db = options.open(&dir).unwrap();
    assert_eq!(status(&db).exact_from, exact);
}

#[test]
fn a_store_that_is_brought_along_has_the_rows_too() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let now = at("2024-05-14T10:30:00Z");
    let (options, _) = at_moment(now);
    let store = Arc::new(MemoryStorage::default());
    let open = || {
        let shared = store.clone();
        options.clone().storage("memory", move |_dir| Ok(shared.clone())).open(&dir).unwrap()
    };
    let db = open();
    db.define(with(&[(Grain::Hour, 200)])).unwrap();
    let times = hourly(now, 150);
    record(&db, "u", &times);
    retire(&db);
    assert!(db.redefine(with(&[(Grain::Day, 56)]), go_on).unwrap());
    assert_eq!(buckets(&db, "u", Grain::Day), counted(&times, Grain::Day, TimeZone::UTC));
    db.close().unwrap();
    drop(db);
    let db = open();
    assert_eq!(buckets(&db, "u", Grain::Day), counted(&times, Grain::Day, TimeZone::UTC));
    assert_eq!(exact_from(&db, Grain::Day), None);
}

/// What is done to a view and to a model that holds all events.
#[derive(Clone, Debug)]
enum Op {
    /// So many minutes after the start, under which key.
    Record(Vec<(i64, u8)>),
    Redefine(Vec<(Grain, Keep)>),
    Checkpoint,
    Kill,
    Reopen,
    Ask(u8),
}

fn grains() -> impl Strategy<Value = Vec<(Grain, Keep)>> {
    let grain = prop_oneof![
        5 => prop::sample::select(vec![Grain::Minute, Grain::Hour, Grain::Day, Grain::Week, Grain::Month]),
        1 => Just(Grain::every(Duration::from_hours(6)).unwrap()),
        1 => Just(Grain::every(Duration::from_millis(100)).unwrap()),
    ];
    let keep = prop_oneof![3 => (1_u32..80).prop_map(Keep::Last), 1 => Just(Keep::All)];
    let grains = prop::collection::vec((grain, keep), 0..4);
    grains.prop_map(|mut grains| {
        grains.sort_by_key(|(grain, _)| *grain);
        grains.dedup_by_key(|(grain, _)| *grain);
        grains
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => prop::collection::vec((0_i64..60_000, 0_u8..4), 1..25).prop_map(Op::Record),
        4 => grains().prop_map(Op::Redefine),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Kill),
        1 => Just(Op::Reopen),
        2 => (0_u8..4).prop_map(Op::Ask),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_is_answered_is_what_a_model_with_all_events_says(
        stats: bool,
        zone in prop::sample::select(vec!["UTC", "Europe/Paris", "Asia/Kolkata"]),
        begin in grains(),
        ops in prop::collection::vec(op(), 4..14),
        asked in prop::collection::vec((0_i64..60_000, 1_i64..20_000), 12),
    ) {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let zone: TimeZone = zone.parse().unwrap();
        let start = at("2024-03-01T00:00:00Z").micros() / 1_000_000;
        let now = Timestamp::from_secs(start + 60_000 * MINUTE);
        let (options, _) = at_moment(now);
        let options = options.memory_budget(0).time_zone(zone);
        let mut dir = root.path().join("0");
        let mut db = options.clone().open(&dir).unwrap();
        let view = |grains: &[(Grain, Keep)]| {
            let view = if stats { visits().stats("value") } else { visits() };
            grains.iter().fold(view, |view, (grain, keep)| view.grain(*grain, *keep))
        };
        db.define(view(&begin)).unwrap();
        record(&db, "k0", &[Timestamp::from_secs(start)]);
        let mut truth = vec![(start, "k0".to_owned())];
        retire(&db);
        let mut grains = begin;
        for (n, op) in ops.into_iter().enumerate() {
            match op {
                Op::Record(events) => {
                    for (minute, key) in events {
                        let (time, key) = (start + minute * MINUTE, format!("k{key}"));
                        record(&db, &key, &[Timestamp::from_secs(time)]);
                        truth.push((time, key));
                    }
                }
                Op::Redefine(other) => {
                    prop_assert_eq!(db.redefine(view(&other), go_on).unwrap(), other != grains);
                    grains = other;
                }
                Op::Checkpoint => db.checkpoint().unwrap(),
                Op::Kill => {
                    db.sync().unwrap();
                    let to = root.path().join(format!("{}", n + 1));
                    crash_image(&dir, &to);
                    drop(db);
                    dir = to;
                    db = options.clone().open(&dir).unwrap();
                }
                Op::Reopen => {
                    db.close().unwrap();
                    drop(db);
                    db = options.clone().open(&dir).unwrap();
                }
                Op::Ask(key) => drop(db.query("visits").unwrap().get(&[&format!("k{key}")]).unwrap()),
            }
            let query = db.query("visits").unwrap();
            for key in ["k0", "k1", "k2", "k3"] {
                let mine: Vec<i64> =
                    truth.iter().filter(|(_, whose)| whose == key).map(|(time, _)| *time).collect();
                let series = query.series(&[key]).unwrap();
                let ever = series.ever().sum().unwrap();
                prop_assert_eq!(ever, (!mine.is_empty()).then_some(mine.len() as u64));
                if mine.is_empty() {
                    continue;
                }
                for (from, minutes) in &asked {
                    let from = start + from * MINUTE;
                    let (from, to) = (from, from + minutes * MINUTE);
                    let of = |range: std::ops::Range<Timestamp>| {
                        let is_in = |time: &&i64| range.contains(&Timestamp::from_secs(**time));
                        mine.iter().filter(is_in).count() as u64
                    };
                    let between = series.between(Timestamp::from_secs(from), Timestamp::from_secs(to));
                    for (grain, _) in &grains {
                        let range = between.by(*grain);
                        for range in [range.clone(), range.kept()] {
                            match range.total() {
                                Ok(total) => {
                                    let total = total.unwrap();
                                    prop_assert_eq!(total.count, of(total.known_from.max(total.start)..total.end), "{} {:?}", grain, total);
                                    // Of shorter ones there are too many to be listed.
                                    let listed = (*grain >= Grain::Minute).then(|| range.buckets().unwrap().unwrap());
                                    for bucket in listed.unwrap_or_default() {
                                        prop_assert_eq!(bucket.count, of(bucket.start..bucket.end));
                                    }
                                }
                                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::NotKept),
                            }
                        }
                        for bucket in query.buckets(&[key], *grain).unwrap() {
                            prop_assert_eq!(bucket.count, of(bucket.start..bucket.end));
                        }
                    }
                    for between in [between.clone(), between.kept()] {
                        match between.sum() {
                            Ok(Some(sum)) => {
                                let truth = of(sum.known_from.max(sum.start)..sum.end);
                                prop_assert!(sum.lower <= truth && truth <= sum.upper, "{:?}", sum);
                            }
                            Ok(None) => prop_assert!(false, "it is there"),
                            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::NotKept),
                        }
                    }
                }
            }
        }
        db.close().unwrap();
        drop(db);
        let report = quipu::verify(&dir, Depth::Refold, |_| {}).unwrap();
        prop_assert!(report.is_intact(), "{:?}", report.findings);
    }
}
