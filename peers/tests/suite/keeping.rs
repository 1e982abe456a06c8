//! What a store is made with, and what is there when it is opened again.
//!
//! Next: `exchanging.rs`.

use crate::stores::{Quipu, Store, TinyCounter, grain, tracked};
use crate::words::*;
use quipu::{ErrorKind, Grain, Keep, TestClock, Timestamp};
use quipu_peers::adapter::{EventStore, EventStoreBuilder};
use std::path::Path;
use std::sync::Arc;

fn sum(store: &EventStore, name: &str, days: usize) -> Option<u64> {
    store.query(name).last_days(days).sum().expect("answered")
}

fn clock() -> Arc<TestClock> {
    Arc::new(TestClock::at(Timestamp::from_secs(seconds(NOW))))
}

fn on(dir: &Path) -> EventStoreBuilder {
    EventStore::builder().with_clock(clock()).with_storage(dir)
}

const UNITS: [Unit; 7] = [Second, Minute, Hour, Day, Week, Month, Year];

fn of_one(unit: Unit, count: usize) -> EventStoreBuilder {
    tracked!(EventStore::builder(), [(unit, count)])
}

#[test]
fn a_store_keeps_what_it_was_told_to() {
    let kept = |builder: EventStoreBuilder| {
        builder.build().expect("opened").tracked_intervals().expect("a view")
    };
    let last = |unit, n| (grain(unit), Keep::Last(n));
    let six = DEFAULT.iter().map(|(unit, n)| last(*unit, *n as u32)).collect::<Vec<_>>();
    assert_eq!(kept(EventStore::builder()), six);
    assert_eq!(kept(EventStore::builder()).len(), 6);
    let builder = || EventStore::builder().track_hours(24).track_days(7);
    assert_eq!(kept(builder()), [last(Hour, 24), last(Day, 7)]);
    // In whatever order they are named.
    assert_eq!(kept(EventStore::builder().track_days(7).track_hours(24)), kept(builder()));
    for unit in UNITS {
        assert_eq!(kept(of_one(unit, 12)), [last(unit, 12)]);
    }
    let limits = kept(EventStore::builder().for_rate_limiting());
    assert!(limits.iter().any(|(grain, _)| *grain == Grain::Minute));
    assert!(limits.iter().any(|(grain, _)| *grain == Grain::Hour));
    let reports = kept(EventStore::builder().for_analytics());
    for unit in [Day, Week, Month] {
        assert!(reports.iter().any(|(kept, _)| *kept == grain(unit)));
    }
    // A preset is in place of what was named before it, and is added to.
    assert_eq!(kept(EventStore::builder().track_days(7).for_rate_limiting()), limits);
    let more = kept(EventStore::builder().for_rate_limiting().track_days(7));
    assert_eq!(more.len(), limits.len() + 1);
}

#[test]
fn presets_answer_for_their_units() {
    let store = EventStore::builder().for_rate_limiting().build().expect("opened");
    store.record("event").expect("recorded");
    assert_eq!(store.query("event").last_minutes(2).sum().expect("answered"), Some(1));
    assert_eq!(store.query("event").last_hours(2).sum().expect("answered"), Some(1));
    let store = EventStore::builder().for_analytics().build().expect("opened");
    store.record("event").expect("recorded");
    assert_eq!(store.query("event").last_days(2).sum().expect("answered"), Some(1));
    assert_eq!(store.query("event").last_weeks(2).sum().expect("answered"), Some(1));
    assert_eq!(store.query("event").last_months(2).sum().expect("answered"), Some(1));
}

#[test]
fn grains_that_cannot_be_are_refused() {
    let refused = |builder: EventStoreBuilder| {
        let error = builder.build().err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    };
    for unit in UNITS {
        refused(of_one(unit, 0));
        refused(of_one(unit, 100_001));
        refused(of_one(unit, usize::MAX));
        assert!(of_one(unit, 1).build().is_ok());
        assert!(of_one(unit, 100_000).build().is_ok());
    }
    refused(EventStore::builder().track_days(0).track_hours(0));
    refused(EventStore::builder().track_hours(24).track_days(0));
    refused(EventStore::builder().track_hours(24).track_hours(48));
}

#[test]
fn a_clock_can_be_given() {
    let quipu = Quipu::open(DEFAULT, seconds(NOW));
    assert_eq!(quipu.store.clock_now(), crate::stores::moment(seconds(NOW)));
    quipu.record(&Record("event", 1));
    assert_eq!(quipu.ask(&Sum(&["event"], Last(1, Day))), Count(1));
}

#[test]
fn what_is_recorded_is_dirty_until_it_is_persisted() {
    let root = tempfile::tempdir().expect("a folder");
    let store = on(&root.path().join("db")).build().expect("opened");
    store.persist().expect("also of nothing");
    assert!(!store.is_dirty());
    for (n, total) in [(10, 10), (20, 30), (30, 60)] {
        store.record_count("event", n).expect("recorded");
        assert!(store.is_dirty());
        store.persist().expect("persisted");
        assert!(!store.is_dirty());
        assert_eq!(sum(&store, "event", 1), Some(total));
    }
    for name in ["a", "b", "c"] {
        store.record(name).expect("recorded");
    }
    store.persist_all().expect("persisted");
    assert!(!store.is_dirty());
    store.persist().expect("also when there is nothing to do");
    assert!(["a", "b", "c"].iter().all(|name| sum(&store, name, 1) == Some(1)));
}

/// tiny-counter calls clean what it was told to call clean, saved or not.
#[test]
fn dirty_is_what_is_not_saved() {
    let peer = TinyCounter::open(DEFAULT, seconds(NOW));
    peer.store.record("event");
    peer.store.reset_dirty();
    assert!(!peer.store.is_dirty());

    let quipu = Quipu::open(DEFAULT, seconds(NOW));
    quipu.store.record("event").expect("recorded");
    quipu.store.reset_dirty();
    assert!(quipu.store.is_dirty());
    assert_eq!(sum(&quipu.store, "event", 1), Some(1));
}

#[test]
fn a_store_that_is_opened_again_goes_on() {
    let root = tempfile::tempdir().expect("a folder");
    let dir = root.path().join("db");
    for round in 1..=6_u64 {
        let mut store = on(&dir).build().expect("opened");
        store.record_count("event", 111).expect("recorded");
        store.record_ago("old", chrono::Duration::days(20)).expect("recorded");
        match round % 4 {
            0 => store.close().expect("closed"),
            1 => {
                store.persist().expect("persisted");
                drop(store);
            }
            2 => {
                store.compact().expect("persisted");
                drop(store);
            }
            _ => drop(store),
        }
        let store = on(&dir).build().expect("opened");
        assert_eq!(sum(&store, "event", 1), Some(111 * round));
        assert_eq!(sum(&store, "event", 7), Some(111 * round));
        assert_eq!(sum(&store, "old", 7), Some(0));
        assert_eq!(sum(&store, "old", 21), Some(round));
        assert_eq!(sum(&store, "nothing", 7), None);
    }
}

#[test]
fn compacting_changes_no_answer() {
    let mut store = EventStore::builder().track_days(7).build().expect("opened");
    store.record_count("a", 100).expect("recorded");
    store.record_count("b", 50).expect("recorded");
    for _ in 0..2 {
        store.compact().expect("persisted");
        assert_eq!((sum(&store, "a", 7), sum(&store, "b", 7)), (Some(100), Some(50)));
    }
}

/// Of tiny-counter each change shifts what is there by a bucket.
#[test]
fn other_grains_for_a_directory_move_nothing() {
    let root = tempfile::tempdir().expect("a folder");
    let dir = root.path().join("db");
    let store = on(&dir).track_days(7).build().expect("opened");
    for days in [0, 1, 3, 6, 20] {
        store.record_ago("event", chrono::Duration::days(days)).expect("recorded");
    }
    drop(store);
    for days in [30, 7, 30, 9, 8, 7, 60] {
        let store = on(&dir).track_days(days).track_hours(days).build().expect("opened");
        let buckets = store.query("event").last_days(days).into_buckets().expect("answered");
        let active: Vec<usize> = (0..days).filter(|back| buckets[*back] == 1).collect();
        let expected: Vec<usize> = [0, 1, 3, 6, 20].into_iter().filter(|d| *d < days).collect();
        assert_eq!(active, expected, "{days}");
        assert_eq!(store.query("event").ever().sum().expect("answered"), Some(5));
        assert_eq!(store.query("event").last_hours(1).sum().expect("answered"), Some(1));
    }
}
