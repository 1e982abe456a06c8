//! Asking: one key, the top ten, all keys in order, totals, the number of keys; with all series in
//! memory, and again after reopening, when they are in the snapshot store only.
//!
//! Wall time; run as `cargo bench --bench query`.
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod common;

use common::events::{Sale, SplitMix64, retail};
use common::measure::{median, wall};
use common::report::{Target, heading, line, millis, ns_each};
use common::{Store, five_views, record_in_batches, without_checkpoints};
use quipu::{Component, Db, Event, Query, View};
use std::hint::black_box;

const KEYS: usize = 100_000;
const ROUNDS: usize = 7;

fn shuffled_keys() -> Vec<String> {
    let mut keys: Vec<String> = (0..KEYS).map(|i| format!("user-{i}")).collect();
    let mut random = SplitMix64(7);
    for i in (1..KEYS).rev() {
        keys.swap(i, random.below(i as u64 + 1) as usize);
    }
    keys
}

/// Microseconds of asking for each key once.
fn get_each(view: &Query, keys: &[String]) -> f64 {
    let (time, ()) = wall(|| {
        for key in keys {
            black_box(view.get(&[black_box(key)]).expect("answered").expect("recorded"));
        }
    });
    ns_each(time, keys.len()) / 1e3
}

fn points() {
    let keys = shuffled_keys();
    let view = || View::new("by_user").by(["user"]).stats("value");
    let store = Store::new(without_checkpoints(), [view()]);
    for round in 0..3_u32 {
        let value = f64::from(round) + 0.1;
        let events = keys.iter().map(|key| Event::new("e").dim("user", key).value(value));
        record_in_batches(&store.db, events);
    }
    let query = store.db.query("by_user").expect("a view");
    let resident: Vec<f64> = (0..ROUNDS).map(|_| get_each(&query, &keys)).collect();
    let hot: Vec<f64> = (0..ROUNDS)
        .map(|_| (0..1_000).map(|_| get_each(&query, &keys[..100])).sum::<f64>() / 1e3)
        .collect();
    let unknown = wall(|| {
        for key in &keys {
            assert!(query.get(&[&key[1..]]).expect("answered").is_none());
        }
    });
    drop(query);
    store.db.close().expect("closed");
    let db = without_checkpoints().open(store.db.directory()).expect("opened");
    let query = db.query("by_user").expect("a view");
    let first = get_each(&query, &keys);
    let again: Vec<f64> = (0..ROUNDS).map(|_| get_each(&query, &keys)).collect();

    heading(format!("one key of {KEYS}, in random order, median of {ROUNDS}"));
    line("resident", median(&resident), "us", Target::AtMost(2.0));
    line("resident, the same 100 keys again and again", median(&hot), "us", Target::AtMost(2.0));
    line("a key that was never recorded", ns_each(unknown.0, KEYS) / 1e3, "us", Target::None);
    line("after reopening, the first time: read from the store", first, "us", Target::None);
    line("after that, resident again", median(&again), "us", Target::AtMost(2.0));
}

fn scans(title: &str, db: &Db) {
    let query = db.query("by_user_product").expect("a view");
    let keys = query.key_count().expect("counted");
    heading(format!("{title}: {keys} keys of two parts, median of {ROUNDS}"));
    let timed = |what: &str, work: &dyn Fn()| {
        let times: Vec<f64> = (0..ROUNDS).map(|_| millis(wall(work).0)).collect();
        line(what, median(&times), "ms", Target::None);
    };
    timed("top 10 by sum", &|| {
        assert_eq!(query.top(10, Component::Sum).expect("answered").len(), 10);
    });
    timed("top 10 by count", &|| {
        assert_eq!(query.top(10, Component::Count).expect("answered").len(), 10);
    });
    timed("totals", &|| {
        black_box(query.totals().expect("answered"));
    });
    timed("all rows in key order", &|| {
        assert_eq!(query.rows().expect("begun").map(Result::unwrap).count() as u64, keys);
    });
    timed("all rows in no order", &|| {
        let mut seen = 0;
        let see = |row| {
            black_box(row);
            seen += 1;
            std::ops::ControlFlow::Continue(())
        };
        query.for_each(see).expect("answered");
        assert_eq!(seen, keys);
    });
    timed("the rows of one user", &|| {
        let rows = query.prefix(&["17841"]).expect("begun").map(Result::unwrap);
        assert!(rows.count() > 100);
    });
    timed("number of keys", &|| {
        assert_eq!(query.key_count().expect("counted"), keys);
    });
}

fn main() {
    points();
    let store = Store::new(without_checkpoints(), five_views());
    record_in_batches(&store.db, retail().iter().map(Sale::event));
    scans("retail, resident", &store.db);
    store.db.close().expect("closed");
    let db = without_checkpoints().open(store.db.directory()).expect("opened");
    scans("retail, after reopening", &db);
}
