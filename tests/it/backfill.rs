//! Backfill: a view defined late says what it would have said had it been there from the start.

use crate::directory::{crash_image, options, segments};
use quipu::{Db, ErrorKind, Event, Grain, Keep, Progress, Row, Timestamp, View};
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

fn early() -> View {
    View::new("early").by(["user"]).stats("value").grain(Grain::Day, Keep::Last(5))
}

fn late() -> View {
    View::new("late").by(["user"]).stats("value").grain(Grain::Day, Keep::Last(5))
}

fn record(db: &Db, events: std::ops::Range<u64>) {
    let payload = [7; 300];
    let mut batch = db.batch();
    for n in events {
        let user = format!("user{}", n % 13);
        let event = Event::new("sale").dim("user", &user).value(n as f64 / 8.0).payload(&payload);
        batch.push(&event.at(Timestamp::from_secs((n * 7_919 % 2_000_000) as i64))).unwrap();
        if n % 10 == 9 {
            db.record_batch(&mut batch).unwrap();
        }
    }
    db.record_batch(&mut batch).unwrap();
}

fn rows(db: &Db, view: &str) -> Vec<Row> {
    db.query(view).unwrap().rows().unwrap().map(Result::unwrap).collect()
}

fn buckets(db: &Db, view: &str) -> Vec<Vec<(Timestamp, u64, f64)>> {
    let query = db.query(view).unwrap();
    let of = |row: Row| {
        let buckets = query.buckets(&[&row.key[0]], Grain::Day).unwrap();
        buckets.iter().map(|b| (b.start, b.count, b.summary().unwrap().sum)).collect()
    };
    rows(db, view).into_iter().map(of).collect()
}

/// Both views are the same in everything, and hold `events`.
fn agree(db: &Db, events: u64) {
    let (early, late) = (rows(db, "early"), rows(db, "late"));
    assert_eq!(early.iter().map(|row| row.count).sum::<u64>(), events);
    assert_eq!(late, early);
    assert_eq!(buckets(db, "late"), buckets(db, "early"));
    assert_eq!(db.views().unwrap()[1].backfill, None);
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

#[test]
fn a_late_view_is_filled_over_segments_and_openings() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    for opening in 0..4_u64 {
        let db = options().open(&path).unwrap();
        db.define(early()).unwrap();
        record(&db, opening * 300..opening * 300 + 300);
        if opening % 2 == 0 {
            db.checkpoint().unwrap();
        }
    }
    assert!(segments(&path).len() >= 6);
    let db = options().open(&path).unwrap();
    assert!(db.define(late()).unwrap());
    assert_eq!(rows(&db, "late"), [], "it counts from its definition on until it is asked to");
    record(&db, 1_200..1_250);
    let mut progress = Vec::new();
    let read = db.backfill("late", |at| {
        progress.push(at);
        ControlFlow::Continue(())
    });
    assert_eq!(read.unwrap(), 1_200);
    assert!(progress.len() > 1 && progress.windows(2).all(|two| two[0].done < two[1].done));
    let last = progress.last().unwrap();
    assert!(last.done <= last.total && progress.iter().all(|at| at.total == last.total));
    agree(&db, 1_250);
    assert_eq!(db.backfill("late", go_on).unwrap(), 0, "once is enough");
    agree(&db, 1_250);
    let image = root.path().join("image");
    crash_image(&path, &image);
    drop(db);
    agree(&options().open(&path).unwrap(), 1_250);
    agree(&options().open(&image).unwrap(), 1_250);
}

#[test]
fn a_backfill_is_exact_while_two_threads_record_and_another_checkpoints() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().open(&path).unwrap();
    db.define(early()).unwrap();
    record(&db, 0..3_000);
    let done = &AtomicBool::new(false);
    let recorded = std::thread::scope(|scope| {
        let recorders: Vec<_> = (0..2)
            .map(|thread| {
                let db = db.clone();
                scope.spawn(move || {
                    let mut n = 0;
                    while !done.load(SeqCst) || n < 500 {
                        record(&db, thread * 1_000_000 + n..thread * 1_000_000 + n + 25);
                        n += 25;
                    }
                    n
                })
            })
            .collect();
        let checkpointer = scope.spawn(|| {
            while !done.load(SeqCst) {
                db.checkpoint().unwrap();
            }
        });
        db.define(late()).unwrap();
        let read = db.backfill("late", go_on).unwrap();
        assert!(read >= 3_000);
        done.store(true, SeqCst);
        checkpointer.join().unwrap();
        recorders.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
    });
    agree(&db, 3_000 + recorded);
    drop(db);
    agree(&options().open(&path).unwrap(), 3_000 + recorded);
}

#[test]
fn a_backfill_that_was_stopped_goes_on_where_it_was() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().open(&path).unwrap();
    db.define(early()).unwrap();
    record(&db, 0..1_000);
    db.define(late()).unwrap();
    let mut read = 0;
    for stop in [1, 1, 7, 20] {
        read += db.backfill("late", stop_after(stop)).unwrap();
        let error = db.query("late").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Backfilling);
        assert!(error.to_string().contains("late"), "{error}");
        let progress = db.views().unwrap()[1].backfill.unwrap();
        assert!(progress.done > 0 && progress.done < progress.total, "{progress:?}");
        record(&db, 1_000..1_003);
    }
    assert!(read > 0 && read < 1_000);
    read += db.backfill("late", go_on).unwrap();
    assert_eq!(read, 1_000, "every event is read once");
    agree(&db, 1_012);
}

#[test]
fn a_backfill_that_died_goes_on_where_the_last_checkpoint_saw_it() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().open(&path).unwrap();
    db.define(early()).unwrap();
    record(&db, 0..1_000);
    db.define(late()).unwrap();
    db.checkpoint().unwrap();
    let image = |at: usize| root.path().join(format!("image{at}"));
    let mut step = 0;
    db.backfill("late", |_| {
        step += 1;
        if step % 10 == 5 {
            record(&db, 5_000..5_010);
        }
        if step % 30 == 10 {
            db.checkpoint().unwrap();
        }
        if step % 15 == 0 {
            crash_image(&path, &image(step / 15));
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(step >= 60);
    for at in 1..=step / 15 {
        for clean in [false, true] {
            let db = options().open(image(at)).unwrap();
            let events = rows(&db, "early").iter().map(|row| row.count).sum();
            assert_eq!(events, db.statistics().events);
            if !clean {
                assert_eq!(db.query("late").unwrap_err().kind(), ErrorKind::Backfilling);
                db.backfill("late", stop_after(2)).unwrap();
                record(&db, 1..4);
                // Dropped and closed in the middle.
                continue;
            }
            let read = db.backfill("late", go_on).unwrap();
            assert!(read < 1_000, "what the checkpoint saw is not read again");
            agree(&db, events);
        }
    }
}

#[test]
fn a_backfill_that_died_before_any_checkpoint_begins_again() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let image = root.path().join("image");
    let db = options().open(&path).unwrap();
    db.define(early()).unwrap();
    record(&db, 0..500);
    db.define(late()).unwrap();
    db.backfill("late", stop_after(20)).unwrap();
    crash_image(&path, &image);
    let db = options().open(&image).unwrap();
    assert_eq!(db.backfill("late", go_on).unwrap(), 500);
    agree(&db, 500);
}

#[test]
fn two_callers_of_one_backfill_count_nothing_twice() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    db.define(early()).unwrap();
    record(&db, 0..500);
    db.define(late()).unwrap();
    // The second comes while the first is on its way. It may wait, be refused or share the work.
    let mut second = None;
    let first = db.backfill("late", |_| {
        if second.is_none() {
            let db = db.clone();
            second = Some(std::thread::spawn(move || db.backfill("late", go_on)));
            // Time for it to come in, not to be done: a bounded number of turns.
            for _ in 0..2_000 {
                std::thread::yield_now();
            }
        }
        ControlFlow::Continue(())
    });
    let second = second.unwrap().join().unwrap();
    if first.is_err() || second.is_err() {
        db.backfill("late", go_on).unwrap();
    }
    agree(&db, 500);
}

#[test]
fn a_view_dropped_during_its_backfill_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().open(&path).unwrap();
    db.define(early()).unwrap();
    record(&db, 0..500);
    db.define(late()).unwrap();
    let mut step = 0;
    let _ = db.backfill("late", |_| {
        step += 1;
        if step == 5 {
            db.drop_view("late").unwrap();
            db.define(late()).unwrap();
        }
        ControlFlow::Continue(())
    });
    record(&db, 500..510);
    let counted = |db: &Db| rows(db, "late").iter().map(|row| row.count).sum::<u64>();
    assert_eq!(counted(&db), 10, "the new view knows nothing of the old one's backfill");
    db.checkpoint().unwrap();
    drop(db);
    let db = options().open(&path).unwrap();
    assert_eq!(counted(&db), 10);
    assert_eq!(db.backfill("late", go_on).unwrap(), 500);
    agree(&db, 510);
}

#[test]
fn a_close_during_a_backfill_ends_it_and_it_goes_on_later() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().open(&path).unwrap();
    db.define(early()).unwrap();
    record(&db, 0..500);
    db.define(late()).unwrap();
    let mut step = 0;
    let error = db.backfill("late", |_| {
        step += 1;
        if step == 5 {
            db.close().unwrap();
        }
        ControlFlow::Continue(())
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Closed);
    let db = options().open(&path).unwrap();
    assert_eq!(db.query("late").unwrap_err().kind(), ErrorKind::Backfilling);
    let read = db.backfill("late", go_on).unwrap();
    assert!(read > 0 && read < 500);
    agree(&db, 500);
}

#[test]
fn a_view_without_a_past_is_complete_at_once() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    db.define(early()).unwrap();
    db.define(late()).unwrap();
    record(&db, 0..20);
    assert_eq!(db.backfill("late", go_on).unwrap(), 0);
    agree(&db, 20);
    assert_eq!(db.backfill("nowhere", go_on).unwrap_err().kind(), ErrorKind::UnknownView);
}
