//! What is compared is of the same stretch: two keys over a range, and a range against the one before it.

use crate::directory::options;
use quipu::{Counter, Db, ErrorKind, Event, Grain, Keep, Options, TestClock, Timestamp, View};
use std::time::Duration;

const NOW: &str = "2024-05-14T10:30:00Z";

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

fn days(n: u64) -> Duration {
    Duration::from_hours(24 * n)
}

fn open(root: &tempfile::TempDir) -> (Db, TestClock) {
    let clock = TestClock::at(at(NOW));
    let options: Options = options().clock(clock.clone()).view(View::counters());
    (options.open(root.path().join("db")).unwrap(), clock)
}

/// A counter with one event in each of the last `n` minutes.
fn each_minute(db: &Db, name: &str, n: u64) -> Counter {
    let counter = db.counter(name).unwrap();
    for minutes in 0..n {
        counter.record_ago(Duration::from_mins(minutes)).unwrap();
    }
    counter
}

#[test]
fn a_trend_is_of_two_whole_ranges_or_there_is_none() {
    let root = tempfile::tempdir().unwrap();
    let (db, _clock) = open(&root);
    let launches = db.counter("app_launch").unwrap();
    for day in 0..100 {
        launches.record_ago(days(day)).unwrap();
    }
    // Of the forty days before these forty the view keeps sixteen.
    for range in
        [launches.last_days(40), launches.last_days(40).kept(), launches.last_days(90).kept()]
    {
        let error = range.trend().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotKept, "{error}");
        assert!(error.to_string().contains("56 days"), "{error}");
        assert!(error.to_string().contains("as many buckets before it"), "{error}");
        assert!(!error.to_string().contains("for what is kept"), "{error}");
    }
    for range in [launches.last_days(28), launches.last_days(28).kept()] {
        let trend = range.trend().unwrap().unwrap();
        assert_eq!((trend.now, trend.before, trend.relative), (28, 28, Some(0.0)));
    }
    // Nor are sixty minutes set against fifty.
    let calls = each_minute(&db, "call", 100);
    calls.record_at(at("2024-05-14T10:40:00Z")).unwrap();
    let error = calls.last_minutes(30).kept().trend().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotKept, "{error}");
    let trend = calls.last_minutes(25).kept().trend().unwrap().unwrap();
    assert_eq!((trend.now, trend.before), (25, 25));
}

#[test]
fn of_what_is_kept_two_keys_are_compared_over_what_both_have() {
    let root = tempfile::tempdir().unwrap();
    let (db, _clock) = open(&root);
    let (ahead, plain) = (each_minute(&db, "ahead", 100), each_minute(&db, "plain", 100));
    // Half of what its ring had has gone.
    ahead.record_at(at("2024-05-14T11:00:00Z")).unwrap();
    let nobody = db.counter("nobody").unwrap();
    let hour = |counter: &Counter| counter.last_minutes(60).kept();
    assert_eq!((hour(&ahead).sum().unwrap(), hour(&plain).sum().unwrap()), (Some(30), Some(60)));

    for (own, other) in [(&ahead, &plain), (&plain, &ahead)] {
        assert_eq!(own.last_minutes(60).ratio(other).unwrap_err().kind(), ErrorKind::NotKept);
        assert_eq!(hour(own).both(other).unwrap(), (Some(30), Some(30)));
        assert_eq!(hour(own).ratio(other).unwrap(), Some(1.0));
        assert_eq!(hour(own).conversion(other).unwrap(), Some(1.0));
        assert_eq!(hour(own).minus(other).unwrap(), Some(0));
        assert_eq!(hour(own).balance(other).unwrap().unwrap().len(), 30);
    }
    // With one that was never heard of there is nothing to be shared.
    assert_eq!(hour(&plain).both(&nobody).unwrap(), (Some(60), None));
    assert_eq!(hour(&plain).minus(&nobody).unwrap(), Some(60));
    assert_eq!(hour(&nobody).both(&ahead).unwrap(), (None, Some(30)));
}

#[test]
fn since_ever_in_buckets_is_since_the_first_event_of_either() {
    let root = tempfile::tempdir().unwrap();
    let (db, _clock) = open(&root);
    let (old, young) = (db.counter("old").unwrap(), db.counter("young").unwrap());
    for day in 0..100 {
        old.record_ago(days(day)).unwrap();
    }
    for day in 0..10 {
        young.record_ago(days(day)).unwrap();
    }
    let whole = old.ever().both(&young).unwrap();
    assert_eq!(whole, (Some(100), Some(10)));
    let by_day = |counter: &Counter| counter.ever().by(Grain::Day).kept();
    assert_eq!(by_day(&old).both(&young).unwrap(), (Some(56), Some(10)));
    assert_eq!(by_day(&young).both(&old).unwrap(), (Some(10), Some(56)));
}

#[test]
fn views_that_keep_more_and_less_are_compared_over_what_both_keep() {
    let root = tempfile::tempdir().unwrap();
    let (db, _clock) = open(&root);
    db.define(View::new("short").grain(Grain::Day, Keep::Last(10))).unwrap();
    for day in 0..30 {
        db.record(&Event::new("e").at(at(NOW).saturating_sub(days(day)))).unwrap();
    }
    let long = db.counter("e").unwrap();
    let short = db.query("short").unwrap().series(&[]).unwrap();
    assert_eq!(long.last_days(30).kept().both(&short).unwrap(), (Some(10), Some(10)));
    assert_eq!(short.last_days(30).kept().both(&long).unwrap(), (Some(10), Some(10)));
    let error = long.days(10..20).kept().ratio(&short).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotKept, "{error}");
}
