//! Events that stand for several, and events whose time is known roughly.

use crate::directory::{NOW, crash_image, options, record_alone, refused};
use proptest::prelude::*;
use quipu::{
    Bucket, Db, Dedup, Depth, Durability, ErrorKind, Event, Grain, Keep, OnInvalid, Row, Timestamp,
    Upto, View,
};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// Views without rings, with rings that are bytes, and with rings of blocks.
fn views() -> [View; 3] {
    [
        View::new("by_user").by(["user"]).stats("value").stats("weight"),
        View::new("counters").by(["user"]).grain(Grain::Hour, Keep::Last(48)),
        View::new("days")
            .stats("value")
            .grain(Grain::Minute, Keep::Last(90))
            .grain(Grain::Day, Keep::All),
    ]
}

fn open(dir: &Path) -> Db {
    let db = options().durability(Durability::Memory).open(dir).unwrap();
    for view in views() {
        db.define(view).unwrap();
    }
    db
}

/// Everything that the views answer.
fn answers(db: &Db) -> Vec<(Vec<Row>, Vec<Vec<Bucket>>)> {
    let answer = |view: View| {
        let query = db.query(view.name()).unwrap();
        let rows: Vec<Row> = query.rows().unwrap().map(Result::unwrap).collect();
        let keys = rows.iter().map(|row| row.key.iter().map(String::as_str).collect::<Vec<_>>());
        let of_key = |key: Vec<&str>| {
            let grains = view.grains().iter();
            grains.map(|(grain, _)| query.buckets(&key, *grain).unwrap()).collect::<Vec<_>>()
        };
        let buckets = keys.flat_map(of_key).collect();
        (rows, buckets)
    };
    views().into_iter().map(answer).collect()
}

/// The stored series are what the log gives.
#[track_caller]
fn is_intact(dir: &Path) {
    let report = quipu::verify(dir, Depth::Refold, |_| {}).unwrap();
    assert!(report.is_intact() && report.views.iter().all(|view| view.refolded), "{report:?}");
}

#[derive(Clone, Debug)]
struct Fact {
    user: u8,
    minute: i64,
    value: Option<f64>,
    weight: bool,
    times: u64,
    alone: bool,
}

impl Fact {
    fn with_event<R>(&self, take: impl FnOnce(Event<'_>) -> R) -> R {
        let user = format!("user{}", self.user);
        let at = Timestamp::from_secs(NOW - 60 * self.minute);
        let mut event = Event::new("sale").dim("user", &user).at(at);
        if let Some(value) = self.value {
            event = event.value(value);
        }
        if self.weight {
            event = event.measure("weight", -1e-300);
        }
        take(event)
    }
}

prop_compose! {
    fn fact()(
        user in 0_u8..4,
        minute in 0_i64..200,
        value in prop::option::of(prop_oneof![3 => -9.0..9.0_f64, 1 => Just(1e300), 1 => Just(0.1)]),
        weight in prop::bool::weighted(0.1),
        times in prop_oneof![3 => Just(1_u64), 3 => 2_u64..40],
        alone: bool,
    ) -> Fact {
        Fact { user, minute, value, weight, times, alone }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn one_that_stands_for_n_leaves_what_n_do(facts in prop::collection::vec(fact(), 1..40)) {
        let root = tempfile::tempdir().unwrap();
        let (once, each) = (root.path().join("once"), root.path().join("each"));
        let (first, second) = (open(&once), open(&each));
        let mut batch = first.batch();
        for fact in &facts {
            fact.with_event(|event| {
                let several = event.clone().times(fact.times);
                if fact.alone {
                    first.record(&several).unwrap();
                } else {
                    batch.push(&several).unwrap();
                }
                for _ in 0..fact.times {
                    second.record(&event).unwrap();
                }
            });
        }
        first.record_batch(&mut batch).unwrap();
        let expected = answers(&second);
        prop_assert_eq!(&answers(&first), &expected);
        prop_assert_eq!(first.statistics().events, facts.len() as u64);
        // From the log alone, then from the snapshot.
        let image = root.path().join("image");
        crash_image(&once, &image);
        prop_assert_eq!(&answers(&open(&image)), &expected);
        first.close().unwrap();
        is_intact(&once);
        prop_assert_eq!(&answers(&open(&once)), &expected);
    }
}

#[test]
fn counts_go_beyond_32_bits_and_stop_at_the_end_of_64() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = open(&dir);
    let more = Event::new("sale").dim("user", "a").value(0.5).times(u64::from(u32::MAX));
    db.record(&more).unwrap();
    record_alone(&db, more);
    let row = |db: &Db| db.query("by_user").unwrap().get(&["a"]).unwrap().unwrap();
    assert_eq!(row(&db).count, 8_589_934_590);
    assert_eq!(row(&db).summary().unwrap().sum, 4_294_967_295.0);
    let most = Event::new("sale").dim("user", "a").value(f64::MAX).times(u64::MAX);
    for _ in 0..3 {
        db.record(&most).unwrap();
        record_alone(&db, most.clone());
    }
    let check = |db: &Db| {
        assert_eq!(row(db).count, u64::MAX);
        let summary = row(db).summary().unwrap().clone();
        assert_eq!((summary.count_value, summary.sum), (u64::MAX, f64::INFINITY));
        for (view, key) in [("counters", &["a"][..]), ("days", &[])] {
            let query = db.query(view).unwrap();
            let grain = if view == "days" { Grain::Day } else { Grain::Hour };
            assert_eq!(query.buckets(key, grain).unwrap()[0].count, u64::MAX);
            assert_eq!(query.totals().unwrap().count, u64::MAX);
        }
    };
    check(&db);
    db.close().unwrap();
    check(&open(&dir));
    is_intact(&dir);
}

#[test]
fn none_and_more_than_all_times_are_refused_with_nothing_recorded() {
    let root = tempfile::tempdir().unwrap();
    let db = open(&root.path().join("db"));
    let noon = Timestamp::from_secs(NOW);
    let good = Event::new("sale").dim("user", "a");
    let widest = Duration::from_micros(315_537_897_599_999_999);
    let bad = [
        (good.clone().times(0), "stands for 0"),
        (good.clone().at_about(noon, widest + Duration::from_nanos(1)), "earlier or later"),
        (good.clone().at_about(noon, Duration::MAX), "earlier or later"),
        (good.clone().at_about(Timestamp::from_secs(NOW + 999_999), widest), "future"),
    ];
    for (event, why) in bad {
        let mut batch = db.batch();
        batch.push(&good).unwrap();
        for error in [
            db.record(&event).unwrap_err(),
            db.record_with(&event, Durability::Sync).unwrap_err(),
            batch.push(&event).unwrap_err(),
            db.record_all([good.clone(), event.clone()], OnInvalid::Refuse).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
        assert_eq!(batch.len(), 1, "what was refused is not in it");
    }
    assert_eq!(db.statistics().events, 0);
    db.record(&good.at_about(noon, widest)).unwrap();
    assert_eq!(db.statistics().events, 1);
}

#[test]
fn one_that_stands_for_several_has_one_position_and_one_id() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().dedup(Dedup::Last(100)).open(&dir).unwrap();
    db.define(View::new("all")).unwrap();
    let event = Event::new("sale").id("order 1").times(70);
    let first = db.record(&event).unwrap();
    assert!(db.record(&event).unwrap().duplicate);
    assert_eq!(db.position(), first.position);
    assert_eq!(db.query("all").unwrap().totals().unwrap().count, 70);
}

/// Frames, the stage, backfills, backups: wherever events go, they go whole.
#[test]
fn counts_and_widths_are_kept_wherever_events_go() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    db.define(View::new("live").by(["user"]).stats("value")).unwrap();
    let at = |second| Timestamp::from_secs(NOW - 1_000 + second);
    let record = |db: &Db, from: i64| {
        let mut batch = db.batch();
        for n in from..from + 20 {
            let user = format!("user{}", n % 3);
            let event = Event::new("sale").dim("user", &user).value(1.5).times(1 + n as u64 % 4);
            let about = Duration::from_secs(n as u64 % 3 * 50);
            batch.push(&event.clone().at_about(at(n), about)).unwrap();
            db.record(&event.at_about(at(n), about)).unwrap();
        }
        db.record_batch(&mut batch).unwrap();
    };
    let rows = |db: &Db, view: &str| -> Vec<Row> {
        db.query(view).unwrap().rows().unwrap().map(Result::unwrap).collect()
    };
    record(&db, 0);
    let half = db.position();
    let before = rows(&db, "live");
    record(&db, 20);
    let expected = rows(&db, "live");
    assert_eq!(expected.iter().map(|row| row.count).sum::<u64>(), 2 * 40 * 5 / 2);
    // An event of 981 seconds ago, give or take 50.
    assert_eq!(before[1].first_seen, at(1 - 50));
    let quietly = |_| ControlFlow::Continue(());
    db.define(View::new("late").by(["user"]).stats("value")).unwrap();
    db.backfill("late", quietly).unwrap();
    assert_eq!(rows(&db, "late"), expected);
    let (backup, again) = (root.path().join("backup"), root.path().join("again"));
    db.backup(&backup, quietly).unwrap();
    for (upto, want) in [
        (Upto::Position(half), &before),
        (Upto::Everything, &expected),
        // The last frame is cut in its middle.
        (Upto::Position((half.get() - 15).into()), &before),
        (Upto::EventTime(at(100)), &expected),
    ] {
        let _ = std::fs::remove_dir_all(&again);
        quipu::restore(&backup, &again, upto, quietly).unwrap();
        let db = options().open(&again).unwrap();
        let cut = matches!(upto, Upto::Position(position) if position < half);
        if cut {
            // Of the twenty of the batch the first five, which stand for 1, 2, 3, 4 and 1.
            assert_eq!(rows(&db, "live").iter().map(|row| row.count).sum::<u64>(), 50 + 11);
        } else {
            assert_eq!(&rows(&db, "live"), want, "{upto:?}");
        }
        drop(db);
        is_intact(&again);
    }
}

#[test]
fn a_rough_time_counts_in_the_bucket_of_its_middle() {
    let root = tempfile::tempdir().unwrap();
    let db = open(&root.path().join("db"));
    let middle = Timestamp::from_secs(NOW / 86_400 * 86_400 - 3_600);
    let event = Event::new("sale").dim("user", "a").at_about(middle, Duration::from_hours(36));
    db.record(&event.clone().times(2)).unwrap();
    record_alone(&db, event);
    let days = db.query("days").unwrap().buckets(&[], Grain::Day).unwrap();
    assert_eq!(days.iter().map(|day| day.count).collect::<Vec<_>>(), [3]);
    assert!(days[0].start <= middle && middle < days[0].end);
}

/// What an older version would have to misread is a kind of frame that it does not know.
#[test]
fn plain_events_are_plain_frames_and_the_others_are_not() {
    let root = tempfile::tempdir().unwrap();
    let kinds = |dir: &Path| -> Vec<u32> {
        let segment = std::fs::read(&crate::directory::segments(dir)[0]).unwrap();
        let frames = crate::directory::frames(&segment).into_iter();
        let kind = |at: usize| u32::from_le_bytes(segment[at..at + 4].try_into().unwrap());
        frames.map(|frame| kind(frame.start + 52)).filter(|kind| [1, 6].contains(kind)).collect()
    };
    let dir = root.path().join("db");
    let db = open(&dir);
    let event = Event::new("sale").dim("user", "a");
    record_alone(&db, event.clone());
    record_alone(&db, event.clone().times(1).at_about(Timestamp::from_secs(NOW), Duration::ZERO));
    record_alone(&db, event.clone().times(2));
    record_alone(&db, event.clone().at_about(Timestamp::from_secs(NOW), Duration::from_nanos(1)));
    db.close().unwrap();
    assert_eq!(kinds(&dir), [1, 1, 6, 6]);
    // A frame of a kind from tomorrow: refused, not taken for damage, and nothing is changed.
    let path = crate::directory::segments(&dir).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let frame =
        crate::directory::frames(&bytes).into_iter().rfind(|frame| bytes[frame.start + 52] == 6);
    bytes[frame.unwrap().start + 52] = 7;
    let salt = bytes[24..32].to_vec();
    for frame in crate::directory::frames(&bytes) {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&salt);
        sum.update(&bytes[frame.start + 8..frame.start + 56]);
        bytes[frame.start + 4..frame.start + 8].copy_from_slice(&sum.finalize().to_le_bytes());
    }
    std::fs::write(&path, bytes).unwrap();
    std::fs::remove_file(dir.join("state.redb")).unwrap();
    let error = refused(&dir, || options().open(&dir));
    assert_eq!(error.kind(), ErrorKind::NewerFormat, "{error}");
    let error = refused(&dir, || quipu::repair(&dir, quipu::Repair::Apply, |_| {}));
    assert_eq!(error.kind(), ErrorKind::NewerFormat, "{error}");
}
