//! The engine against a model: a list of events and a fold over it.
//!
//! The law that tests everything: snapshot + tail == full replay == model.

use proptest::prelude::*;
use quipu::{
    Component, Db, Dedup, ErrorKind, Event, Grain, Keep, Options, TestClock, Timestamp, View,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;

const NOW: i64 = 1_700_000_000;

#[derive(Clone, Debug)]
struct Fact {
    name: &'static str,
    user: Option<u8>,
    product: Option<u8>,
    value: Option<i32>,
    minute: i32,
    id: Option<u8>,
}

#[derive(Clone, Debug)]
enum Op {
    Record(Vec<Fact>),
    Single(Fact),
    Checkpoint,
    Close,
    /// The directory as another process would find it if this one was killed now.
    Kill,
    Define(usize),
    Drop(usize),
    Backfill(usize),
    Ask(u8),
    Check,
}

fn fact() -> impl Strategy<Value = Fact> {
    (
        prop_oneof![Just("sale"), Just("cancel")],
        prop::option::of(0_u8..24),
        prop::option::weighted(0.8, 0_u8..12),
        prop::option::weighted(0.8, -500..500_i32),
        -20_000..20_000_i32,
        prop::option::weighted(0.3, any::<u8>()),
    )
        .prop_map(|(name, user, product, value, minute, id)| Fact {
            name,
            user,
            product,
            value,
            minute,
            id,
        })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => prop::collection::vec(fact(), 0..60).prop_map(Op::Record),
        4 => fact().prop_map(Op::Single),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::Close),
        1 => Just(Op::Kill),
        1 => (0_usize..VIEWS).prop_map(Op::Define),
        1 => (0_usize..VIEWS).prop_map(Op::Drop),
        2 => (0_usize..VIEWS).prop_map(Op::Backfill),
        2 => any::<u8>().prop_map(Op::Ask),
        1 => Just(Op::Check),
    ]
}

const VIEWS: usize = 5;

fn view(which: usize) -> View {
    match which {
        0 => View::new("by_user").by(["user"]).stats("value"),
        1 => View::new("by_user_product").by(["user", "product"]).stats("value"),
        2 => View::new("sales").by(["product"]).only_events(["sale"]).stats("value"),
        3 => View::new("hours").stats("value").grain(Grain::Hour, Keep::Last(40)),
        _ => View::new("days")
            .by(["user"])
            .where_in("product", ["p1", "p2", "p3"])
            .grain(Grain::Day, Keep::All),
    }
}

/// What a key should say: count, measured, sum, least, greatest, first, last.
#[derive(Clone, Debug, Default, PartialEq)]
struct Expected {
    count: u64,
    measured: u64,
    sum: f64,
    min: Option<f64>,
    max: Option<f64>,
    first: i64,
    last: i64,
    buckets: BTreeMap<i64, (u64, f64)>,
}

struct Model {
    /// Accepted events in order.
    facts: Vec<Fact>,
    ids: BTreeSet<u8>,
    /// The defined views and the number of events before they began to count; 0 after a backfill.
    defined: BTreeMap<usize, usize>,
}

impl Model {
    fn record(&mut self, fact: &Fact) -> bool {
        if fact.id.is_some_and(|id| !self.ids.insert(id)) {
            return false;
        }
        self.facts.push(fact.clone());
        true
    }

    fn expected(&self, which: usize) -> BTreeMap<Vec<String>, Expected> {
        let mut keys: BTreeMap<Vec<String>, Expected> = BTreeMap::new();
        for fact in &self.facts[self.defined[&which]..] {
            let user = fact.user.map(|u| format!("u{u}"));
            let product = fact.product.map(|p| format!("p{p}"));
            let key = match which {
                0 => user.map(|u| vec![u]),
                1 => user.zip(product).map(|(u, p)| vec![u, p]),
                2 => product.filter(|_| fact.name == "sale").map(|p| vec![p]),
                3 => Some(vec![]),
                _ => user.filter(|_| matches!(fact.product, Some(1..=3))).map(|u| vec![u]),
            };
            let Some(key) = key else { continue };
            let time = time(fact).micros();
            let row = keys.entry(key).or_insert_with(|| Expected {
                first: i64::MAX,
                last: i64::MIN,
                ..Expected::default()
            });
            row.count += 1;
            row.first = row.first.min(time);
            row.last = row.last.max(time);
            let value = fact.value.map(f64::from);
            if let Some(value) = value.filter(|_| which != 4) {
                row.measured += 1;
                row.sum += value;
                row.min = Some(row.min.map_or(value, |min| min.min(value)));
                row.max = Some(row.max.map_or(value, |max| max.max(value)));
            }
            let size = if which == 3 { 3_600_000_000 } else { 86_400_000_000 };
            if which >= 3 {
                let bucket = row.buckets.entry(time.div_euclid(size)).or_default();
                bucket.0 += 1;
                bucket.1 += value.unwrap_or(0.0);
            }
        }
        if which == 3 {
            for row in keys.values_mut() {
                let newest = *row.buckets.keys().next_back().unwrap();
                row.buckets.retain(|number, _| *number > newest - 40);
            }
        }
        keys
    }

    /// Compares everything that the engine can be asked with the model.
    fn check(&self, db: &Db) {
        assert_eq!(db.statistics().events, self.facts.len() as u64);
        for &which in self.defined.keys() {
            let expected = self.expected(which);
            let query = db.query(view(which).name()).unwrap();
            let rows: Vec<_> = query.rows().unwrap().map(Result::unwrap).collect();
            assert_eq!(
                rows.iter().map(|row| &row.key).collect::<Vec<_>>(),
                expected.keys().collect::<Vec<_>>(),
                "keys of view {which}, in order"
            );
            for row in &rows {
                let want = &expected[&row.key];
                assert_eq!(row.count, want.count, "view {which}, {:?}", row.key);
                assert_eq!(row.first_seen.micros(), want.first);
                assert_eq!(row.last_seen.micros(), want.last);
                if let Some(summary) = row.summary() {
                    assert_eq!(summary.count_value, want.measured);
                    assert_eq!(summary.sum, want.sum);
                    assert_eq!((summary.min, summary.max), (want.min, want.max));
                }
            }
            let mut unordered = Vec::new();
            query
                .for_each(|row| {
                    unordered.push(row);
                    ControlFlow::Continue(())
                })
                .unwrap();
            unordered.sort_by(|a, b| a.key.cmp(&b.key));
            assert_eq!(unordered, rows, "unordered, view {which}");
            assert_eq!(query.key_count().unwrap(), expected.len() as u64, "view {which}");
            let total: u64 = expected.values().map(|row| row.count).sum();
            assert_eq!(query.totals().unwrap().count, total);
            let mut ranked: Vec<_> =
                expected.iter().map(|(key, row)| (std::cmp::Reverse(row.count), key)).collect();
            ranked.sort();
            let top = query.top(4, Component::Count).unwrap();
            let top: Vec<_> = top.iter().map(|row| &row.key).collect();
            assert_eq!(top, ranked.iter().take(4).map(|(_, key)| *key).collect::<Vec<_>>());
            for (key, want) in &expected {
                let key: Vec<&str> = key.iter().map(String::as_str).collect();
                assert_eq!(query.get(&key).unwrap().unwrap().count, want.count);
                let grain = match which {
                    3 => Grain::Hour,
                    4 => Grain::Day,
                    _ => continue,
                };
                let buckets: BTreeMap<i64, (u64, f64)> = query
                    .buckets(&key, grain)
                    .unwrap()
                    .iter()
                    .map(|b| {
                        let sum = b.summary().map(|summary| summary.sum);
                        let want = want.buckets.get(&grain.bucket(b.start)).map(|b| b.1);
                        (grain.bucket(b.start), (b.count, sum.or(want).unwrap_or(0.0)))
                    })
                    .collect();
                assert_eq!(buckets, want.buckets, "buckets of view {which}, {key:?}");
            }
            assert_eq!(
                query.get(&vec!["nobody"; view(which).key().len()]).unwrap().is_some(),
                which == 3 && !expected.is_empty()
            );
        }
    }
}

fn time(fact: &Fact) -> Timestamp {
    Timestamp::from_secs(NOW - 20_000 * 60 + i64::from(fact.minute) * 60)
}

fn with_event<R>(fact: &Fact, run: impl FnOnce(&Event<'_>) -> R) -> R {
    let (user, product) =
        (fact.user.map(|u| format!("u{u}")), fact.product.map(|p| format!("p{p}")));
    let id = fact.id.map(|id| format!("id{id}"));
    let mut event = Event::new(fact.name).at(time(fact));
    if let Some(user) = &user {
        event = event.dim("user", user);
    }
    if let Some(product) = &product {
        event = event.dim("product", product);
    }
    if let Some(value) = fact.value {
        event = event.value(f64::from(value));
    }
    if let Some(id) = &id {
        event = event.id(id);
    }
    run(&event)
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    // First, so that it names no segment that is made after the log was copied.
    let _ = std::fs::copy(from.join("MANIFEST"), to.join("MANIFEST"));
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_name() == "MANIFEST" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            // A file may be renamed or removed by the background between the listing and this.
            let _ = std::fs::copy(entry.path(), target);
        }
    }
}

fn run(ops: &[Op], budget: usize) {
    let root = tempfile::tempdir().unwrap();
    let mut generation = 0;
    let mut path = root.path().join("db0");
    let clock = TestClock::at(Timestamp::from_secs(NOW));
    let open = |path: &Path| {
        Options::new()
            .clock(clock.clone())
            .memory_budget(budget)
            .segment_bytes(64 << 10)
            .checkpoint_every(std::time::Duration::from_hours(1))
            .dedup(Dedup::Last(1_000))
            .open(path)
            .unwrap()
    };
    let mut db = open(&path);
    let mut model = Model { facts: Vec::new(), ids: BTreeSet::new(), defined: BTreeMap::new() };
    for op in ops {
        match op {
            Op::Record(facts) => {
                let mut batch = db.batch();
                for fact in facts {
                    with_event(fact, |event| batch.push(event)).unwrap();
                }
                let outcome = db.record_batch(&mut batch).unwrap();
                let accepted = facts.iter().filter(|fact| model.record(fact)).count() as u64;
                assert_eq!(outcome.recorded, accepted);
                assert_eq!(outcome.duplicates, facts.len() as u64 - accepted);
            }
            Op::Single(fact) => {
                let recorded = with_event(fact, |event| db.record(event)).unwrap();
                assert_eq!(recorded.duplicate, !model.record(fact));
            }
            Op::Checkpoint => db.checkpoint().unwrap(),
            Op::Close => {
                db.close().unwrap();
                db = open(&path);
            }
            Op::Kill => {
                generation += 1;
                let copy = root.path().join(format!("db{generation}"));
                copy_dir(&path, &copy);
                db = open(&copy);
                path = copy;
            }
            Op::Define(which) => {
                let new = db.define(view(*which)).unwrap();
                assert_eq!(new, !model.defined.contains_key(which));
                model.defined.entry(*which).or_insert(model.facts.len());
            }
            Op::Drop(which) => {
                let dropped = db.drop_view(view(*which).name());
                assert_eq!(dropped.is_ok(), model.defined.remove(which).is_some());
            }
            Op::Backfill(which) => {
                let result = db.backfill(view(*which).name(), |_| ControlFlow::Continue(()));
                match model.defined.get_mut(which) {
                    Some(from) => {
                        result.unwrap();
                        *from = 0;
                    }
                    None => assert_eq!(result.unwrap_err().kind(), ErrorKind::UnknownView),
                }
            }
            Op::Ask(user) => {
                if model.defined.contains_key(&0) {
                    let user = format!("u{}", user % 24);
                    let row = db.query("by_user").unwrap().get(&[&user]).unwrap();
                    let count = row.map(|row| row.count);
                    assert_eq!(count, model.expected(0).get(&vec![user]).map(|row| row.count));
                }
            }
            Op::Check => model.check(&db),
        }
    }
    model.check(&db);
    db.close().unwrap();
    model.check(&open(&path));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_agrees_with_a_model(
        first in prop::collection::vec((0_usize..VIEWS).prop_map(Op::Define), 1..5),
        ops in prop::collection::vec(op(), 1..40),
        budget in prop_oneof![Just(0_usize), Just(6_000), Just(1 << 30)],
    ) {
        let ops: Vec<Op> = first.into_iter().chain(ops).collect();
        run(&ops, budget);
    }
}
