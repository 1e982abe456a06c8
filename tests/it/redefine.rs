//! Another definition for a view that lives: exact, while recording and asking go on, and over every
//! kill.

use crate::directory::{crash_image, options, segments};
use crate::model::copy_dir;
use quipu::{
    Component, Db, Depth, ErrorKind, Event, Grain, Keep, Options, Progress, Query, ReadOnlyDb,
    Retention, Row, Timestamp, Upto, View, ViewStatus,
};
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

const DAY: i64 = 86_400;

/// Event `n` of the model: when, whose, how much. Times go forward and, now and then, far back.
fn event(n: u64) -> (i64, String, f64) {
    let n = n as i64;
    let late = if n % 11 == 3 { 30 * DAY } else { 0 };
    (100 * DAY + n * DAY / 5 - late, format!("u{}", n % 3), (n % 17) as f64 / 4.0)
}

fn record(db: &Db, events: std::ops::Range<u64>) {
    let payload = [7; 100];
    let mut batch = db.batch();
    for n in events {
        let (time, user, value) = event(n);
        let event = Event::new("visit").dim("user", &user).value(value).payload(&payload);
        batch.push(&event.at(Timestamp::from_secs(time))).unwrap();
        if n % 7 == 6 {
            db.record_batch(&mut batch).unwrap();
        }
    }
    db.record_batch(&mut batch).unwrap();
}

/// A view of days, and of a grain or more.
fn days(n: u32) -> View {
    View::new("visits").by(["user"]).stats("value").grain(Grain::Day, Keep::Last(n))
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn stop_after(steps: usize) -> impl FnMut(Progress) -> ControlFlow<()> {
    let mut seen = 0;
    move |_| {
        seen += 1;
        if seen == steps { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn rows(query: &Query) -> Vec<Row> {
    query.rows().unwrap().map(Result::unwrap).collect()
}

type Buckets = BTreeMap<i64, (u64, f64)>;

fn buckets(query: &Query, user: &str, grain: Grain) -> Buckets {
    let buckets = query.buckets(&[user], grain).unwrap();
    let of =
        |b: &quipu::Bucket| (b.start.micros() / 1_000_000, (b.count, b.summary().unwrap().sum));
    buckets.iter().map(of).collect()
}

/// The buckets of `seconds` of a user that the events give, of which the last `kept` stay.
fn expected(events: std::ops::Range<u64>, user: &str, seconds: i64, kept: i64) -> Buckets {
    let mut all = Buckets::new();
    for (time, _, value) in events.map(event).filter(|(_, whose, _)| whose == user) {
        let bucket = all.entry(time.div_euclid(seconds) * seconds).or_default();
        (bucket.0, bucket.1) = (bucket.0 + 1, bucket.1 + value);
    }
    let newest = all.last_key_value().map_or(0, |(start, _)| *start);
    all.retain(|start, _| *start > newest - kept * seconds);
    all
}

/// The view keeps `kept` days of these events, and all of them in its totals.
#[track_caller]
fn check(query: &Query, events: std::ops::Range<u64>, kept: i64) {
    let rows = rows(query);
    assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), events.end - events.start);
    for user in ["u0", "u1", "u2"] {
        let row = rows.iter().find(|row| row.key == [user]).unwrap();
        let mine = || events.clone().map(event).filter(|(_, whose, _)| whose == user);
        assert_eq!(row.summary().unwrap().sum, mine().map(|(.., value)| value).sum::<f64>());
        assert_eq!(row.first_seen, Timestamp::from_secs(mine().map(|e| e.0).min().unwrap()));
        let want = expected(events.clone(), user, DAY, kept);
        assert_eq!(buckets(query, user, Grain::Day), want, "{kept} days of {user}");
    }
}

fn status(db: &Db) -> ViewStatus {
    let mut views = db.views().unwrap();
    assert_eq!(views.len(), 1, "one view of the name");
    assert_eq!(db.statistics().views, 1);
    views.remove(0)
}

#[track_caller]
fn intact(dir: &Path) {
    let report = quipu::verify(dir, Depth::Refold, |_| {}).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
    assert!(report.views.iter().all(|view| view.refolded), "{:?}", report.views);
}

#[test]
fn changing_the_number_of_buckets_moves_nothing_however_often() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let mut db = options().open(&dir).unwrap();
    db.define(days(7)).unwrap();
    record(&db, 0..400);
    for round in 0..12_u64 {
        let kept = if round % 2 == 0 { 56 } else { 7 };
        assert!(db.redefine(days(kept), go_on).unwrap());
        let events = 0..400 + round * 5;
        let query = db.query("visits").unwrap();
        check(&query, events.clone(), i64::from(kept));
        let status = status(&db);
        assert_eq!(
            (status.view, status.backfill, status.successor),
            (query.view().clone(), None, None)
        );
        assert!(!db.redefine(days(kept), go_on).unwrap(), "it is so already");
        if round % 3 == 2 {
            db.close().unwrap();
            drop(db);
            intact(&dir);
            db = options().open(&dir).unwrap();
            check(&db.query("visits").unwrap(), events.clone(), i64::from(kept));
        }
        record(&db, events.end..events.end + 5);
        check(&db.query("visits").unwrap(), 0..events.end + 5, i64::from(kept));
    }
}

#[test]
fn grains_measures_keys_and_conditions_can_be_others() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    let definitions = [
        View::new("visits").by(["user"]),
        days(7).grain(Grain::Hour, Keep::Last(100)).grain(Grain::Week, Keep::All),
        days(9).grain("6h".parse().unwrap(), Keep::Last(40)),
        View::new("visits").stats("value").grain(Grain::Month, Keep::All),
        View::new("visits").by(["user"]).where_in("user", ["u0", "u2"]).stats("value"),
        View::new("visits").by(["event", "user"]).stats("price").stats("value"),
        View::new("visits").by(["user"]),
    ];
    // Each of them beside it, defined from the beginning.
    let serialized = |view: &View, name: &str| {
        let mut view = serde_json::to_value(view).unwrap();
        view["name"] = name.into();
        serde_json::from_value::<View>(view).unwrap()
    };
    for (n, view) in definitions.iter().enumerate() {
        db.define(serialized(view, &format!("from the beginning {n}"))).unwrap();
    }
    db.define(definitions[0].clone()).unwrap();
    record(&db, 0..300);
    for (n, view) in definitions.iter().enumerate().skip(1) {
        assert!(db.redefine(view.clone(), go_on).unwrap());
        let (now, other) = (db.query("visits").unwrap(), format!("from the beginning {n}"));
        let other = db.query(&other).unwrap();
        assert_eq!(rows(&now), rows(&other), "{view}");
        for row in rows(&now) {
            let key: Vec<&str> = row.key.iter().map(String::as_str).collect();
            for (grain, _) in view.grains() {
                let of = |query: &Query| query.buckets(&key, *grain).unwrap();
                assert_eq!(of(&now), of(&other), "{view}, {grain}");
            }
        }
    }
    db.close().unwrap();
    intact(&dir);
}

#[test]
fn recording_and_asking_go_on() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    db.define(days(7)).unwrap();
    record(&db, 0..600);
    let done = &AtomicBool::new(false);
    let held = db.query("visits").unwrap();
    let recorded = std::thread::scope(|scope| {
        let recorder = scope.spawn(|| {
            let mut n = 600;
            while !done.load(SeqCst) || n < 700 {
                record(&db, n..n + 5);
                n += 5;
            }
            n
        });
        let asker = scope.spawn(|| {
            let mut before = 600;
            while !done.load(SeqCst) {
                for query in [&db.query("visits").unwrap(), &held] {
                    let count = rows(query).iter().map(|row| row.count).sum::<u64>();
                    assert!(count >= before, "{count} after {before}");
                    before = query.totals().unwrap().count;
                    assert!(before >= count);
                    assert!(query.top(1, Component::Sum).unwrap().len() == 1);
                }
            }
        });
        for (round, kept) in [56, 7, 30, 7, 56].into_iter().enumerate() {
            let view = days(kept);
            let view = if round == 2 { view.grain(Grain::Hour, Keep::All) } else { view };
            assert!(db.redefine(view, go_on).unwrap());
        }
        done.store(true, SeqCst);
        asker.join().unwrap();
        recorder.join().unwrap()
    });
    check(&db.query("visits").unwrap(), 0..recorded, 56);
    check(&held, 0..recorded, 56);
    db.close().unwrap();
    intact(&dir);
    check(&options().open(&dir).unwrap().query("visits").unwrap(), 0..recorded, 56);
}

/// Kills the process at every step, and takes up each of what it leaves in every way.
#[test]
fn a_kill_at_any_step_leaves_the_old_definition_and_what_can_be_gone_on_with() {
    let root = tempfile::tempdir().unwrap();
    let (dir, scratch) = (root.path().join("db"), root.path().join("scratch"));
    let db = options().open(&dir).unwrap();
    db.define(days(7)).unwrap();
    record(&db, 0..300);
    db.checkpoint().unwrap();
    let mut images = Vec::new();
    let mut image = |db: &Db, events: u64| {
        let path = root.path().join(format!("image{}", images.len()));
        db.sync().unwrap();
        crash_image(&dir, &path);
        images.push((path, events));
    };
    image(&db, 300);
    let (mut steps, mut events) = (0, 300);
    db.redefine(days(56), |at| {
        steps += 1;
        assert_eq!(status(&db).successor.unwrap().progress, at);
        if steps % 9 == 4 {
            record(&db, events..events + 3);
            events += 3;
        }
        if steps % 12 == 7 {
            db.checkpoint().unwrap();
        }
        if steps % 3 == 0 {
            image(&db, events);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    image(&db, events);
    drop(db);
    assert!(steps >= 40 && images.len() > 15);
    let (count, mut read) = (images.len(), Vec::new());
    for (at, (image, events)) in images.into_iter().enumerate() {
        let (begun, ended) = (at > 0, at == count - 1);
        for way in ["on", "anew", "back", "drop", "rebuild"] {
            let _ = fs::remove_dir_all(&scratch);
            copy_dir(&image, &scratch);
            if way == "rebuild" {
                fs::remove_file(scratch.join("state.redb")).unwrap();
            }
            let db = options().open(&scratch).unwrap();
            let successor = status(&db).successor;
            assert_eq!(successor.is_some(), begun && !ended);
            check(&db.query("visits").unwrap(), 0..events, if ended { 56 } else { 7 });
            match way {
                "on" | "rebuild" => {
                    let mut steps = 0;
                    let count = |_| {
                        steps += 1;
                        ControlFlow::Continue(())
                    };
                    assert_eq!(db.redefine(days(56), count).unwrap(), !ended);
                    check(&db.query("visits").unwrap(), 0..events, 56);
                    if way == "on" {
                        read.push(steps);
                    }
                }
                "anew" => {
                    assert!(db.redefine(days(9), go_on).unwrap());
                    check(&db.query("visits").unwrap(), 0..events, 9);
                }
                "back" => {
                    assert_eq!(db.redefine(days(7), go_on).unwrap(), ended);
                    check(&db.query("visits").unwrap(), 0..events, 7);
                }
                _ => {
                    db.drop_view("visits").unwrap();
                    assert_eq!(db.views().unwrap().len(), 0);
                    assert_eq!(db.query("visits").unwrap_err().kind(), ErrorKind::UnknownView);
                }
            }
            if way != "drop" {
                assert_eq!(status(&db).successor, None);
            }
            db.close().unwrap();
            intact(&scratch);
        }
    }
    assert!(read[count - 2] < read[1] / 2, "what a checkpoint saw is not read again: {read:?}");
}

/// The commits behind it are lost, and the log has them: what was half done in the snapshot is done.
#[test]
fn a_snapshot_from_the_middle_is_completed_from_the_log() {
    let root = tempfile::tempdir().unwrap();
    let (dir, half) = (root.path().join("db"), root.path().join("half"));
    // Whether somebody had asked for the backfill of the first definition, and asks for that of a later.
    for (asked, asks) in [(true, false), (false, false), (false, true)] {
        let _ = fs::remove_dir_all(&dir);
        let db = options().open(&dir).unwrap();
        record(&db, 0..100);
        db.define(days(7)).unwrap();
        if asked {
            db.backfill("visits", go_on).unwrap();
        }
        record(&db, 100..300);
        let mut steps = 0;
        db.redefine(days(56), |_| {
            steps += 1;
            if steps == 12 {
                db.checkpoint().unwrap();
                fs::copy(dir.join("state.redb"), &half).unwrap();
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        record(&db, 300..310);
        if asks {
            db.backfill("visits", go_on).unwrap();
        }
        assert!(db.redefine(days(20), go_on).unwrap());
        record(&db, 310..320);
        let expected = if asked || asks { 0..320 } else { 100..320 };
        check(&db.query("visits").unwrap(), expected.clone(), 20);
        db.close().unwrap();
        fs::copy(&half, dir.join("state.redb")).unwrap();
        let reader = ReadOnlyDb::open(&dir).unwrap();
        check(&reader.query("visits").unwrap(), expected.clone(), 20);
        let db = options().open(&dir).unwrap();
        check(&db.query("visits").unwrap(), expected, 20);
        assert_eq!(status(&db).view.grains(), days(20).grains());
        db.close().unwrap();
        intact(&dir);
    }
}

#[test]
fn a_view_that_counts_from_its_definition_on_holds_the_same_afterwards() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let mut db = options().open(&dir).unwrap();
    record(&db, 0..100);
    db.define(days(7)).unwrap();
    record(&db, 100..250);
    let before = status(&db).defined_at;
    for (round, kept) in [56, 7, 30].into_iter().enumerate() {
        assert!(db.redefine(days(kept), go_on).unwrap());
        check(&db.query("visits").unwrap(), 100..250, i64::from(kept));
        assert_eq!(status(&db).defined_at, before);
        db.close().unwrap();
        drop(db);
        intact(&dir);
        if round == 1 {
            fs::remove_file(dir.join("state.redb")).unwrap();
        }
        db = options().open(&dir).unwrap();
        check(&db.query("visits").unwrap(), 100..250, i64::from(kept));
    }
    // A backfill while it is under way would be forgotten with the old definition.
    let stopped = db.redefine(days(8), stop_after(3)).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Stopped);
    let refused = db.backfill("visits", go_on).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Backfilling);
    assert!(refused.to_string().contains("8 days"), "{refused}");
    assert!(db.redefine(days(8), go_on).unwrap());
    assert_eq!(db.backfill("visits", go_on).unwrap(), 100);
    check(&db.query("visits").unwrap(), 0..250, 8);
    assert!(db.redefine(days(56), go_on).unwrap());
    check(&db.query("visits").unwrap(), 0..250, 56);
    db.close().unwrap();
    intact(&dir);
    fs::remove_file(dir.join("state.redb")).unwrap();
    check(&options().open(&dir).unwrap().query("visits").unwrap(), 0..250, 56);
}

#[test]
fn a_view_whose_backfill_is_under_way_is_redefined_with_all_of_it() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    record(&db, 0..200);
    db.define(days(7)).unwrap();
    db.backfill("visits", stop_after(5)).unwrap();
    assert!(db.redefine(days(56), go_on).unwrap());
    check(&db.query("visits").unwrap(), 0..200, 56);
    assert_eq!(db.backfill("visits", go_on).unwrap(), 0);
}

#[test]
fn a_log_that_does_not_reach_back_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().retention(Retention::Recovery).open(&dir).unwrap();
    db.define(days(7)).unwrap();
    record(&db, 0..600);
    db.checkpoint().unwrap();
    assert!(!segments(&dir)[0].ends_with("0000000001.qlog"));
    let position = db.position();
    // The grains alone could be converted (`convert.rs`).
    let error = db.redefine(days(56).stats("price"), go_on).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LogRetired, "{error}");
    assert!(!db.redefine(days(7), go_on).unwrap(), "it needs no log");
    assert_eq!((db.position(), status(&db).successor), (position, None));
    check(&db.query("visits").unwrap(), 0..600, 7);
    // One that begins where the log does not reach is not one that begins later.
    db.define(View::new("late").by(["user"])).unwrap();
    record(&db, 600..650);
    assert!(db.redefine(View::new("late").by(["user"]).stats("value"), go_on).unwrap());
    assert_eq!(db.query("late").unwrap().totals().unwrap().count, 50);
    db.close().unwrap();
    let db = options().open(&dir).unwrap();
    assert_eq!(db.query("late").unwrap().totals().unwrap().count, 50);
    check(&db.query("visits").unwrap(), 0..650, 7);
}

#[test]
fn the_log_that_is_still_needed_is_not_retired() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    db.define(days(7)).unwrap();
    record(&db, 0..300);
    db.close().unwrap();
    let db = options().retention(Retention::Recovery).open(&dir).unwrap();
    db.redefine(days(56), stop_after(6)).unwrap_err();
    record(&db, 300..400);
    db.close().unwrap();
    assert!(segments(&dir)[0].ends_with("0000000001.qlog"));
    let db = options().retention(Retention::Recovery).open(&dir).unwrap();
    check(&db.query("visits").unwrap(), 0..400, 7);
    assert!(db.redefine(days(56), go_on).unwrap());
    check(&db.query("visits").unwrap(), 0..400, 56);
    db.checkpoint().unwrap();
    assert!(!segments(&dir)[0].ends_with("0000000001.qlog"));
}

#[test]
fn calls_that_meet_do_not_mix() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    assert_eq!(db.redefine(days(7), go_on).unwrap_err().kind(), ErrorKind::UnknownView);
    db.define(days(7)).unwrap();
    record(&db, 0..200);
    let within = |step: usize, call: &dyn Fn(&Db)| {
        let mut steps = 0;
        db.redefine(days(56), |_| {
            steps += 1;
            if steps == step {
                call(&db);
            }
            ControlFlow::Continue(())
        })
    };
    // The same once more, by somebody else.
    let same = within(5, &|db| {
        assert_eq!(db.redefine(days(56), go_on).unwrap_err().kind(), ErrorKind::Backfilling);
    });
    assert!(same.unwrap());
    // Another one, which is faster.
    db.redefine(days(7), go_on).unwrap();
    let other = within(5, &|db| assert!(db.redefine(days(9), go_on).unwrap()));
    assert_eq!(other.unwrap_err().kind(), ErrorKind::ViewConflict);
    check(&db.query("visits").unwrap(), 0..200, 9);
    // The old one.
    let back = within(5, &|db| assert!(!db.redefine(days(9), go_on).unwrap()));
    assert_eq!(back.unwrap_err().kind(), ErrorKind::ViewConflict);
    check(&db.query("visits").unwrap(), 0..200, 9);
    assert_eq!(status(&db).successor, None);
    // A drop, and another view of the name.
    let dropped = within(5, &|db| {
        db.drop_view("visits").unwrap();
        db.define(days(3)).unwrap();
    });
    assert_eq!(dropped.unwrap_err().kind(), ErrorKind::ViewConflict);
    record(&db, 200..220);
    check(&db.query("visits").unwrap(), 200..220, 3);
    // A close.
    assert_eq!(within(2, &|db| db.close().unwrap()).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn what_cannot_be_defined_is_refused_and_a_conflict_names_the_way() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    db.define(days(7)).unwrap();
    let position = db.position();
    let error = db.redefine(days(0), go_on).unwrap_err();
    assert_eq!((error.kind(), db.position()), (ErrorKind::Invalid, position));
    let conflict = db.define(days(9)).unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::ViewConflict);
    assert!(conflict.to_string().contains("redefine"), "{conflict}");
}

#[test]
fn a_question_that_was_begun_is_answered_by_the_old_definition_to_the_end() {
    let root = tempfile::tempdir().unwrap();
    let db = options().memory_budget(0).open(root.path().join("db")).unwrap();
    let view = |measures: &[&str]| {
        measures.iter().fold(View::new("visits").by(["user"]), |view, m| view.stats(*m))
    };
    db.define(view(&["value"])).unwrap();
    let mut batch = db.batch();
    for n in 0..3_000 {
        let user = format!("user{n:05}");
        batch
            .push(&Event::new("visit").dim("user", &user).value(1.0).measure("price", 2.0))
            .unwrap();
    }
    db.record_batch(&mut batch).unwrap();
    db.checkpoint().unwrap();
    let query = db.query("visits").unwrap();
    let by_value = query.clone().measure("value").unwrap();
    let mut begun = query.rows().unwrap();
    begun.next().unwrap().unwrap();
    assert!(db.redefine(view(&["price"]), go_on).unwrap());
    for _ in 0..3 {
        db.checkpoint().unwrap();
    }
    let rest: Vec<Row> = begun.map(Result::unwrap).collect();
    assert_eq!(rest.len(), 2_999);
    assert!(rest.iter().all(|row| row.stats[0].0 == "value"));
    // What was not begun is answered by the new one, or cannot be.
    assert_eq!(query.get(&["user00007"]).unwrap().unwrap().stats[0].0, "price");
    assert_eq!(by_value.totals().unwrap_err().kind(), ErrorKind::Invalid);
    db.drop_view("visits").unwrap();
    assert_eq!(query.totals().unwrap_err().kind(), ErrorKind::UnknownView);
    // Nobody reads them any more: their rows go.
    drop((query, by_value));
    // Each deletes those of one view.
    for _ in 0..2 {
        db.checkpoint().unwrap();
    }
    db.close().unwrap();
    let report = quipu::verify(root.path().join("db"), Depth::Checksums, |_| {}).unwrap();
    assert_eq!(report.rows, 1, "of the catalog");
}

#[test]
fn a_reader_goes_from_one_answer_to_the_other() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    db.define(days(7)).unwrap();
    record(&db, 0..300);
    let reader = ReadOnlyDb::open(&dir).unwrap();
    let mut steps = 0;
    db.redefine(days(56), |_| {
        steps += 1;
        if steps % 10 == 3 {
            reader.refresh().unwrap();
            let views = reader.views().unwrap();
            assert_eq!((views.len(), &views[0].view), (1, &status(&db).view));
            let successor = views[0].successor.as_ref().unwrap();
            assert_eq!(successor.view.grains(), days(56).grains());
            check(&reader.query("visits").unwrap(), 0..300, 7);
            let late = ReadOnlyDb::open(&dir).unwrap();
            check(&late.query("visits").unwrap(), 0..300, 7);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    record(&db, 300..310);
    check(&reader.query("visits").unwrap(), 0..300, 7);
    assert_eq!(reader.refresh().unwrap(), db.position());
    check(&reader.query("visits").unwrap(), 0..310, 56);
    assert_eq!(reader.views().unwrap()[0].successor, None);
    // Another one, with a snapshot that the reader has not seen and a log that is retired.
    db.close().unwrap();
    let db = options().retention(Retention::Recovery).open(&dir).unwrap();
    let reader = ReadOnlyDb::open(&dir).unwrap();
    assert!(db.redefine(days(9), go_on).is_ok_and(|new| new));
    db.checkpoint().unwrap();
    record(&db, 310..330);
    reader.refresh().unwrap();
    check(&reader.query("visits").unwrap(), 0..330, 9);
}

#[test]
fn a_backup_and_its_restores_have_the_definition_of_their_position() {
    let root = tempfile::tempdir().unwrap();
    let (dir, backup) = (root.path().join("db"), root.path().join("backup"));
    let db = options().open(&dir).unwrap();
    db.define(days(7)).unwrap();
    record(&db, 0..300);
    let before = db.position();
    db.redefine(days(56), stop_after(5)).unwrap_err();
    db.checkpoint().unwrap();
    let begun = db.position();
    db.redefine(days(56), go_on).unwrap();
    let end = db.position();
    db.backup(&backup, go_on).unwrap();
    db.close().unwrap();
    for (at, kept, successor) in [(before, 7, false), (begun, 7, true), (end, 56, false)] {
        let to = root.path().join(format!("to{at}"));
        quipu::restore(&backup, &to, Upto::Position(at), go_on).unwrap();
        intact(&to);
        let db = options().open(&to).unwrap();
        check(&db.query("visits").unwrap(), 0..300, kept);
        assert_eq!(status(&db).successor.is_some(), successor);
        db.redefine(days(56), go_on).unwrap();
        check(&db.query("visits").unwrap(), 0..300, 56);
    }
    // Positions are others where the log is written anew.
    let to = root.path().join("by time");
    let time = Timestamp::from_secs(1_000 * DAY);
    quipu::restore(&backup, &to, Upto::EventTime(time), go_on).unwrap();
    check(&Db::open(&to).unwrap().query("visits").unwrap(), 0..300, 56);
}

#[test]
fn a_full_directory_takes_another_definition_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = Options::new().open(&dir).unwrap();
    for n in 0..quipu::Limits::VIEWS - 1 {
        db.define(View::new(format!("view {n}"))).unwrap();
    }
    db.define(days(7)).unwrap();
    record(&db, 0..20);
    assert!(db.redefine(days(56), go_on).unwrap());
    db.redefine(days(9), stop_after(1)).unwrap_err();
    assert_eq!(db.define(View::new("more")).unwrap_err().kind(), ErrorKind::Invalid);
    db.close().unwrap();
    let db = Db::open(&dir).unwrap();
    check(&db.query("visits").unwrap(), 0..20, 56);
    assert_eq!(db.views().unwrap().len(), quipu::Limits::VIEWS);
}
