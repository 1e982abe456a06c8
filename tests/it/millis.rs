//! Buckets shorter than a second: what is recorded in them, asked of them and made of them, at either end
//! of time and wherever the directory goes.

use crate::directory::{crash_image, options, segments};
use proptest::prelude::*;
use quipu::{
    Bucket, Db, Depth, ErrorKind, Event, Grain, Keep, Progress, ReadOnlyDb, Retention, TestClock,
    Timestamp, View,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

const MILLI: i64 = 1_000;

fn millis(n: u64) -> Grain {
    Grain::every(Duration::from_millis(n)).unwrap()
}

fn micros(n: i64) -> Timestamp {
    Timestamp::from_micros(n)
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Lengths in milliseconds, and of how many buckets each is kept.
const KEPT: [(i64, Keep); 4] =
    [(1, Keep::All), (70, Keep::All), (100, Keep::Last(20)), (1_000, Keep::All)];

/// Two views of every grain: one that only counts, and one with statistics, which are kept differently.
fn views() -> [View; 3] {
    let with = |view: View| {
        KEPT.iter().fold(view, |view, (length, keep)| view.grain(millis(*length as u64), *keep))
    };
    let packed = View::new("packed").by(["user"]).grain(millis(1), Keep::Last(1_000));
    [
        packed,
        with(View::new("counts").by(["user"])),
        with(View::new("stats").by(["user"]).stats("value")),
    ]
}

/// The buckets that these moments make of a grain of so many milliseconds, each by its bounds.
fn counted(times: &[i64], length: i64, keep: Keep) -> Vec<(Timestamp, Timestamp, u64)> {
    let unit = length * MILLI;
    let mut all = BTreeMap::new();
    for time in times {
        *all.entry(time.div_euclid(unit)).or_insert(0) += 1;
    }
    let newest = all.last_key_value().map_or(0, |(newest, _)| *newest);
    let kept = |number: &i64| match keep {
        Keep::All => true,
        Keep::Last(n) => *number > newest - i64::from(n),
    };
    let kept = all.into_iter().filter(|(number, _)| kept(number));
    kept.map(|(n, count)| (micros(n * unit), micros((n + 1) * unit), count)).collect()
}

fn plain(buckets: &[Bucket]) -> Vec<(Timestamp, Timestamp, u64)> {
    buckets.iter().map(|bucket| (bucket.start, bucket.end, bucket.count)).collect()
}

#[track_caller]
fn check(query: impl Fn(&str) -> quipu::Query, times: &[i64]) {
    for view in ["counts", "stats"] {
        for (length, keep) in KEPT {
            let grain = millis(length as u64);
            let buckets = query(view).buckets(&["u"], grain).unwrap();
            assert_eq!(plain(&buckets), counted(times, length, keep), "{view} by {grain}");
        }
    }
    let buckets = query("packed").buckets(&["u"], millis(1)).unwrap();
    assert_eq!(plain(&buckets), counted(times, 1, Keep::Last(1_000)));
}

#[track_caller]
fn intact(dir: &Path) {
    let report = quipu::verify(dir, Depth::Refold, |_| {}).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// From the year 1 to the end of the year 9999; a bucket of a millisecond then has a number that
    /// 32 bits do not hold.
    #[test]
    fn short_buckets_hold_what_was_in_them_wherever_the_directory_goes(
        base in prop::sample::select(vec![
            Timestamp::MIN.micros() + 5_000_000,
            -1_500_000,
            1_700_000_000_000_000,
            Timestamp::MAX.micros() - 5_000_000,
        ]),
        steps in prop::collection::vec(
            prop_oneof![0_i64..3, -2_000..5_000_i64, -900_000..900_000_i64], 1..40,
        ),
    ) {
        let root = tempfile::tempdir().unwrap();
        let (dir, crashed) = (root.path().join("db"), root.path().join("crashed"));
        let clock = TestClock::at(micros(base + 5_000_000));
        let open = |dir: &Path| {
            let options = options().clock(clock.clone()).memory_budget(0);
            views().into_iter().fold(options, quipu::Options::view).open(dir).unwrap()
        };
        let db = open(&dir);
        let mut times = Vec::new();
        for (n, step) in steps.iter().enumerate() {
            let last = times.last().copied().unwrap_or(base);
            let time = (last + step).clamp(base - 4_000_000, base + 4_000_000);
            times.push(time);
            let event = Event::new("e").at(micros(time)).dim("user", "u").value(1.0);
            match n % 3 {
                0 => drop(db.record_all([event], quipu::OnInvalid::Refuse).unwrap()),
                _ => drop(db.record(&event).unwrap()),
            }
            if n % 11 == 10 {
                db.checkpoint().unwrap();
            }
        }
        check(|view| db.query(view).unwrap(), &times);
        db.sync().unwrap();
        crash_image(&dir, &crashed);
        db.close().unwrap();
        drop(db);
        for dir in [&dir, &crashed] {
            let reader = ReadOnlyDb::open(dir).unwrap();
            check(|view| reader.query(view).unwrap(), &times);
            drop(reader);
            let db = open(dir);
            check(|view| db.query(view).unwrap(), &times);
            db.close().unwrap();
            drop(db);
            intact(dir);
        }
    }
}

/// One event a millisecond, for five seconds.
fn busy() -> (tempfile::TempDir, TestClock, Db) {
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::from_secs(1_700_000_000));
    let view = View::new("v")
        .grain(millis(1), Keep::Last(1_000))
        .grain(millis(100), Keep::Last(50))
        .grain(Grain::Second, Keep::Last(60));
    let db = options().clock(clock.clone()).view(view).open(root.path().join("db")).unwrap();
    let mut batch = db.batch();
    for n in 0..5_000 {
        let time = Timestamp::from_millis(1_700_000_000_000 + n);
        batch.push(&Event::new("e").at(time)).unwrap();
    }
    // The end of the last one, so that what trails begins with a millisecond.
    clock.set(micros(1_700_000_004_999_999));
    db.record_batch(&mut batch).unwrap();
    (root, clock, db)
}

#[test]
fn ranges_and_spans_are_asked_to_the_millisecond() {
    let (_root, _, db) = busy();
    let series = db.query("v").unwrap().series(&[]).unwrap();
    // Buckets back from now, of each grain.
    assert_eq!(series.last(250, millis(1)).sum().unwrap(), Some(250));
    assert_eq!(series.last(7, millis(100)).sum().unwrap(), Some(700));
    assert_eq!(series.range(millis(100), 10..20).sum().unwrap(), Some(1_000));
    assert_eq!(series.last_seconds(3).by(millis(100)).buckets().unwrap().unwrap().len(), 30);
    assert_eq!(series.last(1, millis(100)).previous().sum().unwrap(), Some(100));
    let buckets = series.last(2, millis(100)).buckets().unwrap().unwrap();
    let starts: Vec<String> = buckets.iter().map(|bucket| bucket.start.to_string()).collect();
    assert_eq!(starts, ["2023-11-14T22:13:24.800Z", "2023-11-14T22:13:24.900Z"]);
    // Further than the finest is kept, by the next one.
    assert_eq!(series.last(1_001, millis(1)).sum().unwrap_err().kind(), ErrorKind::NotKept);
    // To the moment: exactly where milliseconds are kept, then within a tenth, then within a second.
    for (length, slack) in [(1, 0), (250, 0), (1_000, 0), (1_050, 100), (4_950, 100), (5_500, 0)] {
        let sum = series.trailing(Duration::from_millis(length)).sum().unwrap().unwrap();
        let truth = length.min(5_000);
        assert!(sum.lower <= truth && truth <= sum.upper, "{length}: {sum:?}");
        assert!(sum.upper - sum.lower <= slack, "{length}: {sum:?}");
    }
    let at = |millis: i64| Timestamp::from_millis(1_700_000_000_000 + millis);
    let between = series.between(at(4_120), at(4_345)).sum().unwrap().unwrap();
    assert_eq!((between.lower, between.upper), (225, 225));
    assert_eq!(series.between(at(4_000), at(4_500)).by(millis(100)).sum().unwrap(), Some(500));
}

#[test]
fn a_range_of_more_milliseconds_than_32_bits_hold_is_compared_with_the_one_before_it() {
    let root = tempfile::tempdir().unwrap();
    let now = Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").unwrap();
    let db = options()
        .clock(TestClock::at(now))
        .view(View::new("v").grain(millis(1), Keep::All))
        .open(root.path().join("db"))
        .unwrap();
    let ago = |days: u64| now.saturating_sub(Duration::from_hours(24 * days));
    for (days, n) in [(150, 1), (90, 20), (20, 300)] {
        db.record(&Event::new("e").at(ago(days)).times(n)).unwrap();
    }
    let series = db.query("v").unwrap().series(&[]).unwrap();
    let sixty = series.between(ago(60), now).by(millis(1));
    assert_eq!(sixty.sum().unwrap(), Some(300));
    assert_eq!(sixty.previous().sum().unwrap(), Some(20));
    assert_eq!(sixty.previous().previous().sum().unwrap(), Some(1));
    let error = sixty.buckets().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("5184000000 buckets of 1ms"), "{error}");
}

#[test]
fn short_buckets_become_longer_ones_and_longer_ones_short_ones_without_a_log() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let begin = 1_700_000_000_000_000_i64;
    let clock = TestClock::at(micros(begin + 9_999_999));
    let with = |grains: &[(Grain, u32)]| {
        let view = View::new("v").by(["user"]).only_events(["e"]);
        grains.iter().fold(view, |view, (grain, n)| view.grain(*grain, Keep::Last(*n)))
    };
    let options = options().clock(clock.clone()).retention(Retention::Recovery);
    let db = options.clone().view(with(&[(millis(10), 1_000)])).open(&dir).unwrap();
    let times: Vec<i64> = (0..400).map(|n| begin + n * 24_700).collect();
    for time in &times {
        db.record(&Event::new("e").at(micros(*time)).dim("user", "u")).unwrap();
    }
    let first = segments(&dir)[0].clone();
    let filler = vec![7; 60_000];
    for _ in 0..400 {
        db.record(&Event::new("filler").payload(&filler)).unwrap();
        db.checkpoint().unwrap();
        if !first.exists() {
            break;
        }
    }
    assert!(!first.exists(), "nothing is retired");
    let buckets = |db: &Db, length: u64| {
        plain(&db.query("v").unwrap().buckets(&["u"], millis(length)).unwrap())
    };
    // Tens lie in hundreds and in seconds: nothing is guessed.
    assert!(db.redefine(with(&[(millis(100), 200), (Grain::Second, 60)]), go_on).unwrap());
    for length in [100, 1_000] {
        assert_eq!(buckets(&db, length), counted(&times, length as i64, Keep::All));
    }
    // Which milliseconds of a tenth they were in nobody knows any more.
    assert!(db.redefine(with(&[(millis(1), 5_000), (millis(100), 200)]), go_on).unwrap());
    assert_eq!(buckets(&db, 100), counted(&times, 100, Keep::All));
    let exact = db.views().unwrap()[0].exact_from.clone();
    let last = times[times.len() - 1];
    assert_eq!(exact[0], (millis(1), Some(micros(last + MILLI - last.rem_euclid(MILLI)))));
    assert_eq!(buckets(&db, 1), []);
    // What comes now is known.
    clock.advance(Duration::from_millis(5));
    db.record(&Event::new("e").dim("user", "u")).unwrap();
    let now = begin + 9_999_999 + 5 * MILLI;
    db.close().unwrap();
    drop(db);
    let db = options.open(&dir).unwrap();
    assert_eq!(buckets(&db, 1), counted(&[now], 1, Keep::All));
    let series = db.query("v").unwrap().series(&["u"]).unwrap();
    assert_eq!(series.last(3, millis(1)).sum().unwrap(), Some(1));
    assert_eq!(series.last(1_000, millis(1)).sum().unwrap_err().kind(), ErrorKind::NotKept);
    drop(db);
    intact(&dir);
}
