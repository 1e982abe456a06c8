//! Queries: orders, ties, prefixes, totals, and scans while everything moves.

use crate::directory::{NOW, options};
use quipu::aggregate::Sketches;
use quipu::{Component, Db, ErrorKind, Event, Grain, Keep, Query, Row, Timestamp, View};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

fn all(db: &Db, view: &str) -> Vec<Row> {
    db.query(view).unwrap().rows().unwrap().map(Result::unwrap).collect()
}

fn keys(rows: &[Row]) -> Vec<Vec<&str>> {
    rows.iter().map(|row| row.key.iter().map(String::as_str).collect()).collect()
}

/// Answers from memory, partly from memory, and from the store.
fn wherever_they_are(path: &Path, db: Db, check: impl Fn(&Db)) {
    check(&db);
    db.checkpoint().unwrap();
    check(&db);
    drop(db);
    let db = options().open(path).unwrap();
    check(&db);
    db.query("v").unwrap().get(&["k1"]).unwrap();
    check(&db);
    drop(db);
    let db = options().memory_budget(0).open(path).unwrap();
    db.checkpoint().unwrap();
    check(&db);
}

/// Sixty keys with counts, sums, times of both signs and many ties; some measured nothing.
fn ranked(path: &Path) -> Db {
    let db = options().open(path).unwrap();
    let view = View::new("v").by(["k"]).stats("value").stats("weight");
    let view = view.theta("size", 64).distinct("lot").quantiles("weight").quantiles("value");
    db.define(view).unwrap();
    for i in 0..60_i64 {
        let key = format!("k{i}");
        for j in 0..=(i % 4) {
            let at = Timestamp::from_secs(NOW - (i % 7) * 1_000 - j * (i % 3));
            let (lot, size) = ((j * i % 5).to_string(), (j % 2).to_string());
            let event = Event::new("e").dim("k", &key).dim("lot", &lot).dim("size", &size).at(at);
            let event = if i % 11 == 10 { event } else { event.value((i % 9 - 4) as f64 * 0.5) };
            let event = if j % 2 == 0 { event.measure("weight", i as f64) } else { event };
            db.record(&event).unwrap();
        }
    }
    db
}

/// By the row's first measure, and by its lots.
fn component_of(row: &Row, component: Component) -> Option<f64> {
    let (measure, summary) = &row.stats[0];
    match component {
        Component::Count => Some(row.count as f64),
        Component::CountValue => Some(summary.count_value as f64),
        Component::Sum => (summary.count_value > 0).then_some(summary.sum),
        Component::Mean => summary.mean,
        Component::Min => summary.min,
        Component::Max => summary.max,
        Component::FirstSeen => Some(row.first_seen.micros() as f64),
        Component::LastSeen => Some(row.last_seen.micros() as f64),
        Component::Distinct => Some(row.sketches.distinct("lot").unwrap().estimate().value),
        Component::Percentile(percent) => {
            let quantiles = row.sketches.quantiles(measure).unwrap();
            quantiles.percentile(percent.get()).unwrap().map(|approx| approx.value)
        }
    }
}

fn components() -> impl Iterator<Item = Component> {
    let percentiles = [0.0, 50.0, 99.9].map(|percent| Component::percentile(percent).unwrap());
    Component::ALL.into_iter().chain(percentiles)
}

type Order = fn(&f64, &f64) -> Ordering;

#[test]
fn top_and_bottom_agree_with_sorting_by_every_component_and_at_every_length() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = ranked(&path);
    wherever_they_are(&path, db, |db| {
        for measure in ["value", "weight"] {
            let query = db.query("v").unwrap().measure(measure).unwrap().dimension("lot").unwrap();
            let rows: Vec<Row> = query.rows().unwrap().map(Result::unwrap).collect();
            assert_eq!(rows.len(), 60);
            for component in components() {
                let mut expected: Vec<(f64, &Row)> = rows
                    .iter()
                    .filter_map(|row| component_of(row, component).map(|value| (value, row)))
                    .collect();
                let ties = expected.len();
                let by_key = |a: &Row, b: &Row| a.key.cmp(&b.key);
                let orders: [(bool, Order); 2] =
                    [(true, |a, b| b.total_cmp(a)), (false, f64::total_cmp)];
                for (top, order) in orders {
                    expected.sort_by(|a, b| order(&a.0, &b.0).then_with(|| by_key(a.1, b.1)));
                    let expected: Vec<Row> =
                        expected.iter().map(|(_, row)| (*row).clone()).collect();
                    for n in [0, 1, 2, 7, 59, 60, 61, 1_000_000] {
                        let got =
                            if top { query.top(n, component) } else { query.bottom(n, component) };
                        let want = &expected[..n.min(ties)];
                        let figures = |rows: &[Row]| -> Vec<_> {
                            let of = |row| query.figure(row, component).map(|figure| figure.value);
                            rows.iter().map(of).collect()
                        };
                        let is_time =
                            matches!(component, Component::FirstSeen | Component::LastSeen);
                        let known = |row| component_of(row, component).filter(|_| !is_time);
                        assert_eq!(figures(want), want.iter().map(known).collect::<Vec<_>>());
                        assert_eq!(got.unwrap(), want, "{measure}, {component}, {n}, top {top}");
                    }
                }
            }
            let huge = query.top(usize::MAX, Component::Count).unwrap();
            assert_eq!(huge.len(), 60, "asking for all costs no more than there is");
        }
        let means = db.query("v").unwrap().top(60, Component::Mean).unwrap();
        assert!(means.len() < 60, "keys without a measurement have no mean");
        assert!(means.iter().all(|row| row.summary().unwrap().mean.is_some()));
        assert!(means.last().unwrap().summary().unwrap().sum < 0.0, "negative ones are ranked");
    });
}

#[test]
fn totals_are_all_keys_merged() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = ranked(&path);
    db.define(View::new("one").stats("value").stats("weight")).unwrap();
    wherever_they_are(&path, db, |db| {
        let rows = all(db, "v");
        let totals = db.query("v").unwrap().totals().unwrap();
        assert_eq!(totals.key, Vec::<String>::new());
        assert_eq!(totals.count, rows.iter().map(|row| row.count).sum::<u64>());
        assert_eq!(totals.first_seen, rows.iter().map(|row| row.first_seen).min().unwrap());
        assert_eq!(totals.last_seen, rows.iter().map(|row| row.last_seen).max().unwrap());
        for measure in ["value", "weight"] {
            let total = totals.stats(measure).unwrap();
            let each = || rows.iter().map(|row| row.stats(measure).unwrap());
            // Multiples of a half: the plain sum is exact as well.
            assert_eq!(total.sum, each().map(|s| s.sum).sum::<f64>());
            assert_eq!(total.count_value, each().map(|s| s.count_value).sum::<u64>());
            assert_eq!(total.min, each().filter_map(|s| s.min).min_by(f64::total_cmp));
            assert_eq!(total.max, each().filter_map(|s| s.max).max_by(f64::total_cmp));
            assert_eq!(total.mean, Some(total.sum / total.count_value as f64));
        }
        assert_eq!(db.query("v").unwrap().key_count().unwrap(), 60);
    });
}

#[test]
fn totals_of_no_keys_count_nothing() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    db.define(View::new("v").by(["k"]).stats("value").grain(Grain::Day, Keep::All)).unwrap();
    db.define(View::new("one").stats("value")).unwrap();
    for view in ["v", "one"] {
        let query = db.query(view).unwrap();
        let totals = query.totals().unwrap();
        let summary = totals.summary().unwrap();
        assert_eq!((totals.count, summary.count_value, summary.sum), (0, 0, 0.0));
        assert_eq!((summary.mean, summary.min, summary.var_samp), (None, None, None));
        assert_eq!(query.key_count().unwrap(), 0);
        assert_eq!(query.rows().unwrap().count(), 0);
        assert_eq!(query.top(3, Component::Sum).unwrap(), []);
    }
    assert_eq!(db.query("one").unwrap().get(&[]).unwrap(), None);
    assert_eq!(db.query("v").unwrap().buckets(&["x"], Grain::Day).unwrap(), []);
}

#[test]
fn a_measure_is_chosen_by_name_and_an_unknown_one_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = ranked(&path);
    db.define(View::new("counts").by(["k"])).unwrap();
    let query = db.query("v").unwrap();
    let weight = query.clone().measure("weight").unwrap();
    let (first, second) =
        (query.get(&["k5"]).unwrap().unwrap(), weight.get(&["k5"]).unwrap().unwrap());
    assert_eq!(first.summary(), second.stats("value"));
    assert_eq!(second.summary(), first.stats("weight"));
    assert_eq!(second.summary().unwrap().sum, 5.0);
    assert_eq!(second.stats[0].0, "weight");
    assert_eq!((first.stats("nothing"), second.stats.len()), (None, 2));
    let back = weight.measure("value").unwrap();
    assert_eq!(back.get(&["k5"]).unwrap().unwrap(), first);
    let error = query.measure("height").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    for part in ["\"v\"", "height", "value", "weight"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    db.record(&Event::new("e").dim("k", "k5").value(1.0)).unwrap();
    let counts = db.query("counts").unwrap();
    assert_eq!(counts.get(&["k5"]).unwrap().unwrap().summary(), None);
    for component in components() {
        let needs =
            !matches!(component, Component::Count | Component::FirstSeen | Component::LastSeen);
        assert_eq!(counts.top(1, component).is_err(), needs, "{component}");
        assert_eq!(counts.bottom(0, component).is_err(), needs, "{component}");
    }
    assert_eq!(counts.measure("value").unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn components_of_sketches_are_of_what_was_chosen_and_of_the_first_else() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    let view = View::new("v").by(["k"]).stats("cents").quantiles("millis").quantiles("cents");
    db.define(view.theta("user", 64).distinct("city").grain(Grain::Hour, Keep::All)).unwrap();
    for (k, user, city, cents, millis) in [
        ("a", "ann", "Rome", 5.0, 90.0),
        ("a", "bob", "Rome", 6.0, 80.0),
        ("b", "ann", "Oslo", 90.0, 7.0),
        ("b", "ann", "Rome", 80.0, 8.0),
    ] {
        let event = Event::new("e").dim("k", k).dim("user", user).dim("city", city);
        db.record(&event.measure("cents", cents).measure("millis", millis)).unwrap();
    }
    let p90 = Component::percentile(90.0).unwrap();
    let query = db.query("v").unwrap();
    let first = |query: &Query, component| query.top(1, component).unwrap()[0].key[0].clone();
    assert_eq!(first(&query, Component::Distinct), "a", "users, of whom there is a theta sketch");
    let by_city = query.clone().dimension("city").unwrap();
    assert_eq!(first(&by_city, Component::Distinct), "b");
    assert_eq!((first(&query, p90), first(&query, Component::Sum)), ("a".into(), "b".into()));
    let cents = query.clone().measure("cents").unwrap();
    assert_eq!((first(&cents, p90), first(&cents, Component::Sum)), ("b".into(), "b".into()));
    // Of this one there are no statistics; those of another measure are not taken for them.
    let millis = query.clone().measure("millis").unwrap();
    assert_eq!(first(&millis, p90), "a");
    let row = millis.get(&["a"]).unwrap().unwrap();
    assert_eq!((row.summary(), row.stats.len()), (None, 0), "nor shown beside it");
    let error = millis.top(1, Component::Sum).unwrap_err();
    assert!(error.to_string().contains("no statistics of the measure"), "{error}");

    let hours = by_city.series(&["b"]).unwrap().last_hours(1);
    assert_eq!(hours.across(Component::Distinct).unwrap().unwrap().values(), [2.0]);
    assert_eq!(hours.across(p90).unwrap().unwrap().values(), [8.0]);
    for (error, parts) in [
        (
            query.clone().dimension("shop").unwrap_err(),
            ["distinct count of \"shop\"", "user, city"],
        ),
        (query.clone().measure("height").unwrap_err(), ["\"height\"", "cents, millis"]),
        ("p101".parse::<Component>().unwrap_err(), ["101", "0 to 100"]),
        ("median".parse::<Component>().unwrap_err(), ["\"median\"", "p50"]),
    ] {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(parts.iter().all(|part| error.to_string().contains(part)), "{error}");
    }
}

#[test]
fn answers_without_sketches_are_the_same_without_them() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = ranked(&path);
    db.define(View::new("hours").distinct("lot").stats("value").counter_grains()).unwrap();
    db.record(&Event::new("e").dim("lot", "one").value(3.0)).unwrap();
    wherever_they_are(&path, db, |db| {
        let whole = db.query("v").unwrap();
        let bare = whole.clone().without_sketches();
        let stripped = |mut row: Row| {
            assert!(!row.sketches.is_empty());
            row.sketches = Sketches::default();
            row
        };
        let rows = |query: &Query| query.rows().unwrap().map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(rows(&bare), rows(&whole).into_iter().map(stripped).collect::<Vec<_>>());
        for component in components() {
            let top = whole.top(7, component).unwrap().into_iter().map(stripped);
            assert_eq!(bare.top(7, component).unwrap(), top.collect::<Vec<_>>(), "{component}");
        }
        assert_eq!(bare.totals().unwrap(), stripped(whole.totals().unwrap()));

        let day = |query: Query| query.series(&[]).unwrap().last_hours(24);
        let whole = day(db.query("hours").unwrap());
        let bare = day(db.query("hours").unwrap().without_sketches());
        let mut total = whole.total().unwrap().unwrap();
        assert_eq!(total.sketches.distinct("lot").unwrap().estimate().value, 1.0);
        total.sketches = Sketches::default();
        for _ in 0..3 {
            assert_eq!(bare.total().unwrap().unwrap(), total);
        }
        let lots = bare.across(Component::Distinct).unwrap().unwrap();
        assert_eq!((lots.values().len(), lots.max()), (24, Some(1.0)));
    });
}

#[test]
fn an_unknown_view_is_answered_with_those_there_are() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    let error = db.query("users").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownView);
    assert!(error.to_string().contains("no view is defined yet"), "{error}");
    db.define(View::new("by_user")).unwrap();
    db.define(View::new("by_hour")).unwrap();
    for error in [db.query("users").unwrap_err(), db.drop_view("users").unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::UnknownView);
        for part in ["\"users\"", "\"by_hour\", \"by_user\""] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}

#[test]
fn a_key_or_prefix_of_another_length_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    db.define(View::new("pair").by(["user", "product"]).grain(Grain::Day, Keep::All)).unwrap();
    db.record(&Event::new("e").dim("user", "a").dim("product", "b")).unwrap();
    let query = db.query("pair").unwrap();
    for key in [&[][..], &["a"], &["a", "b", "c"]] {
        let errors = [query.get(key).unwrap_err(), query.buckets(key, Grain::Day).unwrap_err()];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("2 parts (user, product)"), "{error}");
        }
    }
    assert_eq!(query.prefix(&["a", "b", "c"]).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(query.prefix(&["a", "b"]).unwrap().count(), 1, "a whole key is a prefix of itself");
    assert_eq!(query.prefix(&[]).unwrap().count(), 1);
    let error = query.buckets(&["a", "b"], Grain::Hour).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotKept);
    assert!(error.to_string().contains("hour") && error.to_string().contains("day"), "{error}");
}

/// More keys than a page, with bytes that could confuse the order or the end of a part.
#[test]
fn rows_and_prefixes_are_in_bytewise_order_and_complete() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().open(&path).unwrap();
    db.define(View::new("v").by(["k"])).unwrap();
    db.define(View::new("three").by(["a", "b", "c"]).stats("value")).unwrap();
    let parts =
        ["", "\0", "\0\u{1}", "\u{1}", "a", "a\0", "a\0b", "a\u{1}", "aa", "b", "é", "\u{ff}"];
    let mut expected: BTreeMap<[String; 3], u64> = BTreeMap::new();
    for round in 0..3_u64 {
        for (i, a) in parts.iter().enumerate() {
            for (j, b) in parts.iter().enumerate() {
                for (k, part) in parts.iter().enumerate() {
                    if (i + j * 3 + k * 5) as u64 % 3 > round {
                        continue;
                    }
                    let c = format!("{part}{k}");
                    db.record(&Event::new("e").dim("a", a).dim("b", b).dim("c", &c).value(1.0))
                        .unwrap();
                    *expected.entry([(*a).to_owned(), (*b).to_owned(), c]).or_default() += 1;
                }
            }
        }
        if round == 1 {
            db.checkpoint().unwrap();
        }
    }
    assert!(expected.len() > 3 * 512);
    wherever_they_are(&path, db, |db| {
        let got: Vec<([String; 3], u64)> = all(db, "three")
            .into_iter()
            .map(|row| (row.key.clone().try_into().unwrap(), row.count))
            .collect();
        let want: Vec<_> = expected.iter().map(|(key, n)| (key.clone(), *n)).collect();
        assert_eq!(got, want);
        let query = db.query("three").unwrap();
        for a in parts {
            let under: Vec<Row> = query.prefix(&[a]).unwrap().map(Result::unwrap).collect();
            let want = expected.keys().filter(|key| key[0] == a);
            assert_eq!(keys(&under), want.map(|key| key.to_vec()).collect::<Vec<_>>(), "{a:?}");
            for b in parts {
                let under: Vec<Row> = query.prefix(&[a, b]).unwrap().map(Result::unwrap).collect();
                let want = expected.keys().filter(|key| key[0] == a && key[1] == b);
                assert_eq!(keys(&under), want.map(|key| key.to_vec()).collect::<Vec<_>>());
            }
        }
        assert_eq!(query.prefix(&["nobody"]).unwrap().count(), 0);
    });
}

#[test]
fn for_each_stops_when_it_is_told_and_lets_its_caller_use_the_engine() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = ranked(&path);
    wherever_they_are(&path, db, |db| {
        let mut seen = 0;
        let query = db.query("v").unwrap();
        let stopped = query.for_each(|row| {
            let key: Vec<&str> = row.key.iter().map(String::as_str).collect();
            assert_eq!(query.get(&key).unwrap().as_ref(), Some(&row));
            seen += 1;
            if seen == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((stopped.is_ok(), seen), (true, 5));
    });
}

/// Scans see every key that was there before they began, once, whatever happens meanwhile.
#[test]
fn scans_see_every_key_once_while_events_are_recorded_and_checkpoints_made() {
    const KEYS: usize = 1_500;
    const NEW_KEYS: usize = 1_000;
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let name = |i: usize| format!("old{:05}", (i * 7_919) % KEYS);
    {
        let db = options().open(&path).unwrap();
        db.define(View::new("v").by(["k"]).stats("value")).unwrap();
        (0..KEYS / 2).for_each(|i| {
            db.record(&Event::new("e").dim("k", &name(i)).value(1.0)).unwrap();
        });
    }
    // A small budget, so that series come and go under the scan.
    let db = options().memory_budget(50_000).open(&path).unwrap();
    (KEYS / 2..KEYS).for_each(|i| {
        db.record(&Event::new("e").dim("k", &name(i)).value(1.0)).unwrap();
    });
    let done = AtomicBool::new(false);
    let recorded = std::thread::scope(|scope| {
        let recorder = scope.spawn(|| {
            let mut n = 0_usize;
            while !done.load(SeqCst) {
                let (old, new) = (name(n), format!("new{:05}", n % NEW_KEYS));
                db.record(&Event::new("e").dim("k", &old).value(1.0)).unwrap();
                db.record(&Event::new("e").dim("k", &new).value(1.0)).unwrap();
                n += 1;
            }
            n
        });
        let checkpointer = scope.spawn(|| {
            while !done.load(SeqCst) {
                db.checkpoint().unwrap();
            }
        });
        let scans = || {
            for _ in 0..4 {
                let query = db.query("v").unwrap();
                let before = db.statistics().events;
                let rows: Vec<Row> = query.rows().unwrap().map(Result::unwrap).collect();
                let after = db.statistics().events;
                assert!(rows.windows(2).all(|two| two[0].key < two[1].key), "in order, once");
                let old = rows.iter().filter(|row| row.key[0].starts_with("old")).count();
                assert_eq!(old, KEYS, "every key from before");
                let counted: u64 = rows.iter().map(|row| row.count).sum();
                assert!(before <= counted && counted <= after, "{before} {counted} {after}");
                let before = db.statistics().events;
                let mut unordered = Vec::new();
                let see = |row: Row| {
                    unordered.push((row.key[0].clone(), row.count));
                    ControlFlow::Continue(())
                };
                query.for_each(see).unwrap();
                let after = db.statistics().events;
                let counted: u64 = unordered.iter().map(|(_, count)| count).sum();
                let seen = unordered.len();
                unordered.sort();
                unordered.dedup_by(|a, b| a.0 == b.0);
                assert_eq!(unordered.len(), seen, "once");
                assert_eq!(
                    unordered.iter().filter(|(key, _)| key.starts_with("old")).count(),
                    KEYS
                );
                assert!(before <= counted && counted <= after, "{before} {counted} {after}");
                let keys = query.prefix(&[]).unwrap().take(700).count();
                assert_eq!(keys, 700, "a scan may be left in the middle");
                assert!(query.key_count().unwrap() >= KEYS as u64);
            }
        };
        // The others must end even if a scan fails.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(scans));
        done.store(true, SeqCst);
        checkpointer.join().unwrap();
        let recorded = recorder.join().unwrap();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        recorded
    });
    let events = (KEYS + 2 * recorded) as u64;
    drop(db);
    let db = options().open(&path).unwrap();
    assert_eq!(db.query("v").unwrap().totals().unwrap().count, events);
    assert_eq!(db.query("v").unwrap().key_count().unwrap(), (KEYS + recorded.min(NEW_KEYS)) as u64);
}

#[test]
fn a_scan_begun_before_a_checkpoint_and_an_eviction_goes_on_behind_them() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let db = options().memory_budget(0).open(&path).unwrap();
    db.define(View::new("v").by(["k"])).unwrap();
    for i in 0..2_000 {
        db.record(&Event::new("e").dim("k", &format!("{i:05}"))).unwrap();
    }
    let mut rows = db.query("v").unwrap().rows().unwrap();
    let mut counts = Vec::new();
    for i in 0..2_000 {
        if i % 700 == 300 {
            db.checkpoint().unwrap();
            db.record(&Event::new("e").dim("k", "01999")).unwrap();
        }
        let row = rows.next().unwrap().unwrap();
        assert_eq!(row.key[0], format!("{i:05}"));
        counts.push(row.count);
    }
    assert!(rows.next().is_none());
    assert!(counts[..1_999].iter().all(|count| *count == 1));
    assert!((1..=4).contains(&counts[1_999]));
    assert_eq!(db.query("v").unwrap().get(&["01999"]).unwrap().unwrap().count, 4);
}

/// Keys are neither counted twice nor missed while their series are written, evicted and read:
/// half of them have a row, half came since opening and are not known to have none.
#[test]
fn the_number_of_keys_is_exact_while_series_come_and_go() {
    const KEYS: usize = 600;
    let root = tempfile::tempdir().unwrap();
    let record = |db: &Db, i: usize| {
        db.record(&Event::new("e").dim("k", &format!("{i:05}"))).unwrap();
    };
    for round in 0..24 {
        let path = root.path().join(format!("{round}"));
        {
            let db = options().open(&path).unwrap();
            db.define(View::new("v").by(["k"])).unwrap();
            (0..KEYS / 2).for_each(|i| record(&db, i));
        }
        let budget = if round % 2 == 0 { 0 } else { usize::MAX };
        let db = options().memory_budget(budget).open(&path).unwrap();
        (0..KEYS).for_each(|i| record(&db, i));
        let done = AtomicBool::new(false);
        let wrong = std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0.. {
                    if done.load(SeqCst) {
                        break;
                    }
                    record(&db, n * 31 % KEYS);
                }
            });
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    db.checkpoint().unwrap();
                }
            });
            let count = |look| (look, db.query("v").unwrap().key_count().unwrap());
            let wrong = (0..200).map(count).find(|(_, keys)| *keys != KEYS as u64);
            done.store(true, SeqCst);
            wrong
        });
        assert_eq!(wrong, None, "of {KEYS} keys, round {round}: look and answer");
        assert_eq!(db.views().unwrap()[0].keys, KEYS as u64);
    }
}
