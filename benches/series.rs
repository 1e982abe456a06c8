//! Asking about time: sums of the last days, trailing spans, buckets, ratios; of one key that is hot, and
//! of 10,000 keys in random order. The view is that of counters, every bucket of which is in use.
//!
//! Wall time, median of rounds; run as `cargo bench --bench series`.
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod common;

use common::events::SplitMix64;
use common::measure::{median, wall};
use common::report::{Target, heading, line, ns_each};
use common::{Store, record_in_batches, without_checkpoints};
use quipu::{Component, Event, Grain, Options, Query, SeriesQuery, TimeZone, Timestamp, View};
use std::hint::black_box;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const KEYS: usize = 10_000;
const ROUNDS: usize = 9;
const HOT: usize = 100_000;

/// Nanoseconds of asking once.
fn each(n: usize, mut ask: impl FnMut(usize)) -> f64 {
    let rounds: Vec<f64> =
        (0..ROUNDS).map(|_| ns_each(wall(|| (0..n).for_each(&mut ask)).0, n)).collect();
    median(&rounds)
}

/// Events of one key in every bucket that a counter keeps: some of each of the last minutes, hours, days
/// and weeks.
fn times() -> Vec<Timestamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let ago = |length: Duration| Timestamp::from_secs(now.as_secs() as i64).saturating_sub(length);
    let grains = [(60, 59), (3_600, 71), (86_400, 55), (7 * 86_400, 206)];
    let steps = grains.iter().flat_map(|(seconds, n)| (1..=*n).map(move |i| seconds * i));
    let mut times: Vec<Timestamp> = steps.map(|s| ago(Duration::from_secs(s))).collect();
    times.push(ago(Duration::ZERO));
    times.sort();
    times
}

fn store(options: Options, keys: usize) -> Store {
    let store = Store::new(options, [View::counters()]);
    let names: Vec<String> = (0..keys).map(|i| format!("event-{i}")).collect();
    let times = times();
    for name in &names {
        record_in_batches(&store.db, times.iter().map(|time| Event::new(name).at(*time)));
    }
    store
}

fn hot(title: &str, options: Options) {
    let store = store(options, 1);
    let query = store.db.query("counters").expect("a view");
    let series = query.series(&["event-0"]).expect("a key");
    let week = series.last_days(7);
    heading(format!("one hot key, {title}"));
    let time = |what: &str, target: Target, ask: &dyn Fn()| {
        line(what, each(HOT, |_| ask()), "ns", target);
    };
    let sum = |sum: quipu::Result<Option<u64>>| black_box(sum.expect("answered").expect("known"));
    time("last_days(7).sum(), prepared", Target::AtMost(60.0), &|| {
        sum(black_box(&week).sum());
    });
    time("last_days(7).sum(), of a prepared series", Target::AtMost(100.0), &|| {
        sum(black_box(&series).last_days(7).sum());
    });
    time("last_days(7).sum(), by the view's name and the key's", Target::None, &|| {
        let query = store.db.query("counters").expect("a view");
        sum(query.series(&["event-0"]).expect("a key").last_days(7).sum());
    });
    time("last_minutes(1).sum()", Target::None, &|| {
        sum(series.last_minutes(1).sum());
    });
    time("last_days(56).sum()", Target::None, &|| {
        sum(series.last_days(56).sum());
    });
    time("ever().sum()", Target::None, &|| {
        sum(series.ever().sum());
    });
    time("last_days(28).count_nonzero()", Target::None, &|| {
        sum(series.last_days(28).count_nonzero());
    });
    time("last_days(28).buckets()", Target::None, &|| {
        black_box(series.last_days(28).buckets().expect("answered"));
    });
    time("last_days(28).across(Count)", Target::None, &|| {
        black_box(series.last_days(28).across(Component::Count).expect("answered"));
    });
    time("last_days(7).ratio(itself)", Target::None, &|| {
        black_box(week.ratio(&series).expect("answered"));
    });
    time("trailing(30 min).sum()", Target::None, &|| {
        black_box(series.trailing(Duration::from_mins(30)).sum().expect("answered"));
    });
    time("trailing(24 h).sum()", Target::None, &|| {
        black_box(series.trailing(Duration::from_hours(24)).sum().expect("answered"));
    });
    time("last_seen()", Target::None, &|| {
        black_box(series.last_seen().expect("answered"));
    });
    time("this(day).by(hour).sum()", Target::None, &|| {
        sum(series.today().by(Grain::Hour).sum());
    });
}

/// Every key once, in random order.
fn each_key(query: &Query, order: &[String], ask: impl Fn(&SeriesQuery)) -> f64 {
    let prepared: Vec<SeriesQuery> =
        order.iter().map(|key| query.series(&[key]).expect("a key")).collect();
    each(prepared.len(), |i| ask(&prepared[i]))
}

fn many() {
    let store = store(without_checkpoints(), KEYS);
    let mut order: Vec<String> = (0..KEYS).map(|i| format!("event-{i}")).collect();
    let mut random = SplitMix64(7);
    for i in (1..order.len()).rev() {
        order.swap(i, random.below(i as u64 + 1) as usize);
    }
    let ask = |query: &Query| {
        each_key(query, &order, |series| {
            black_box(series.last_days(7).sum().expect("answered").expect("known"));
        })
    };
    let query = store.db.query("counters").expect("a view");
    heading(format!("{KEYS} keys in random order"));
    line("last_days(7).sum(), of prepared series", ask(&query), "ns", Target::None);
    let names = each(order.len(), |i| {
        let series = query.series(&[&order[i]]).expect("a key");
        black_box(series.last_days(7).sum().expect("answered").expect("known"));
    });
    line("last_days(7).sum(), by the key's name", names, "ns", Target::None);
    let all = |series: &SeriesQuery| {
        let (time, ()) = wall(|| {
            black_box(series.last_days(7).sum().expect("answered"));
        });
        time.as_secs_f64() * 1e3
    };
    let all_series = query.all_series();
    let rounds: Vec<f64> = (0..ROUNDS).map(|_| all(&all_series)).collect();
    line("last_days(7).sum() of all of them together", median(&rounds), "ms", Target::None);
    drop(query);
    store.db.close().expect("closed");
    let db = without_checkpoints().open(store.db.directory()).expect("opened");
    let query = db.query("counters").expect("a view");
    line("the same after reopening, from the store", all(&query.all_series()), "ms", Target::None);
    let first = wall(|| {
        for key in &order {
            let series = query.series(&[key]).expect("a key");
            black_box(series.last_days(7).sum().expect("answered").expect("known"));
        }
    });
    line("each for the first time, from the store", ns_each(first.0, KEYS), "ns", Target::None);
}

fn main() {
    hot("UTC", without_checkpoints());
    let paris: TimeZone = "Europe/Paris".parse().expect("a zone of the database");
    hot("Europe/Paris", without_checkpoints().time_zone(paris));
    many();
}
