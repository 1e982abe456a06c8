//! Both engines, filled and asked alike.

use crate::common::{Store, record_in_batches};
use chrono::{DateTime, Datelike, Days, Duration, Months, NaiveDate, TimeDelta, Utc};
use quipu::{Db, Event, Grain, Options, Query, Timestamp, View};
use std::path::Path;
use tiny_counter::EventStore;
use tiny_counter::storage::FilePerEvent;

pub(crate) const KEYS: usize = 10_000;

pub(crate) fn counters() -> View {
    View::new("counters").by(["event"]).counter_grains()
}

pub(crate) fn quipu() -> Store {
    quipu_with(Options::new())
}

pub(crate) fn quipu_with(options: Options) -> Store {
    Store::new(options, [counters()])
}

/// tiny-counter on a directory, as its documentation opens it.
pub(crate) fn tiny_on(dir: &Path) -> EventStore {
    let files = FilePerEvent::new(dir, ".bin").expect("a directory");
    EventStore::builder().with_storage(files).build().expect("a valid configuration")
}

pub(crate) fn temporary_directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("peers-").tempdir().expect("a temp dir")
}

/// `n` names of events, 12 to 14 bytes each.
pub(crate) fn keys(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("event:launch{i}")).collect()
}

/// `n` of the keys, each as often as the others, no two neighbours in a row.
pub(crate) fn calls(keys: &[String], n: usize) -> Vec<&str> {
    // A prime that divides no number of keys used here.
    (0..n).map(|i| keys[i * 7_919 % keys.len()].as_str()).collect()
}

/// The events of the last seven days: today's so far, and those of the six days before.
pub(crate) fn last_seven_days(query: &Query, key: &str) -> u64 {
    let series = query.series(&[key]).expect("a key");
    series.last_days(7).sum().expect("answered").expect("a key that was recorded")
}

pub(crate) fn last_seven_days_of_tiny(store: &EventStore, key: &str) -> u64 {
    u64::from(store.query(key).last_days(7).sum().expect("a key that was recorded"))
}

/// Ten instants over the last two months, oldest first: 59, 41, 26, 17, 10 and 6 days before `now`,
/// then 3 days and 4 hours, 1 day and 2 hours, 5 hours, and 7 minutes.
pub(crate) fn ten_instants(now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let days = [59, 41, 26, 17, 10, 6].map(TimeDelta::days);
    let hours = [3 * 24 + 4, 24 + 2, 5].map(TimeDelta::hours);
    let ages = days.into_iter().chain(hours).chain([TimeDelta::minutes(7)]);
    ages.map(|age| now - age).collect()
}

/// The beginnings of all 256 buckets that are kept at `now`, oldest first. Some are those of two
/// grains, and stand there twice.
pub(crate) fn all_buckets(now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let midnight = |date: NaiveDate| date.and_hms_opt(0, 0, 0).expect("a time of UTC").and_utc();
    let since_hour = now.timestamp_micros().rem_euclid(3_600_000_000);
    let since_minute = now.timestamp_micros().rem_euclid(60_000_000);
    let (minute, hour) =
        (now - Duration::microseconds(since_minute), now - Duration::microseconds(since_hour));
    let today = now.date_naive();
    let monday = today - Days::new(u64::from(today.weekday().num_days_from_monday()));
    let first = today.with_day(1).expect("each month has a first");
    let new_year = first.with_month(1).expect("each year has a January");
    let mut all: Vec<DateTime<Utc>> = (0..60).map(|i| minute - Duration::minutes(i)).collect();
    all.extend((0..72).map(|i| hour - Duration::hours(i)));
    all.extend((0..56).map(|i| midnight(today - Days::new(i))));
    all.extend((0..52).map(|i| midnight(monday - Days::new(7 * i))));
    all.extend((0..12).map(|i| midnight(first - Months::new(i))));
    all.extend((0..4).map(|i| midnight(new_year - Months::new(12 * i))));
    all.sort();
    all
}

pub(crate) fn timestamp(instant: DateTime<Utc>) -> Timestamp {
    Timestamp::from_micros(instant.timestamp_micros())
}

/// Records one event that stands for `count`, of each key at each of the instants, in batches.
pub(crate) fn fill_quipu(db: &Db, keys: &[String], instants: &[DateTime<Utc>], count: u32) {
    let times = instants.iter().map(|instant| timestamp(*instant));
    let count = u64::from(count);
    let events =
        times.flat_map(|time| keys.iter().map(move |key| Event::new(key).at(time).times(count)));
    record_in_batches(db, events);
}

pub(crate) fn fill_tiny(
    store: &EventStore,
    keys: &[String],
    instants: &[DateTime<Utc>],
    count: u32,
) {
    for instant in instants {
        for key in keys {
            store.record_count_at(key.as_str(), count, *instant).expect("of the past");
        }
    }
}

/// That both have counted the same of every key, since ever and in the last seven days.
pub(crate) fn agree(db: &Db, store: &EventStore, keys: &[String]) {
    let query = db.query("counters").expect("a view");
    for key in keys {
        let row = query.get(&[key]).expect("answered").expect("recorded");
        let ever = store.query(key.as_str()).ever().sum().map(u64::from);
        assert_eq!(Some(row.count), ever, "{key} since ever");
        let days = (last_seven_days(&query, key), last_seven_days_of_tiny(store, key));
        assert_eq!(days.0, days.1, "{key} in seven days");
    }
}

/// That both hold as many buckets of a key in each grain, and as many events in them.
pub(crate) fn agree_on_buckets(db: &Db, store: &EventStore, key: &str) {
    let query = db.query("counters").expect("a view");
    let ask = || store.query(key);
    let theirs = [
        (Grain::Minute, ask().last_minutes(60)),
        (Grain::Hour, ask().last_hours(72)),
        (Grain::Day, ask().last_days(56)),
        (Grain::Week, ask().last_weeks(52)),
        (Grain::Month, ask().last_months(12)),
        (Grain::Year, ask().last_years(4)),
    ];
    for (grain, range) in theirs {
        let ours = query.buckets(&[key], grain).expect("answered");
        let counts: Vec<u64> =
            range.into_buckets().into_iter().map(u64::from).filter(|n| *n > 0).collect();
        let ours: Vec<u64> = ours.iter().rev().map(|bucket| bucket.count).collect();
        assert_eq!(ours, counts, "{key} by {grain}");
    }
}
