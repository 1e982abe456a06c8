//! What the engine must answer: a list of events, views, and a fold over them.
//!
//! Shared by the tests of behaviour (`tests/it`) and the crash exploration (`tests/explore`).

use quipu::{Component, Db, Error, Event, Grain, Keep, Query, ReadOnlyDb, Timestamp, View};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// The present, in seconds.
pub(crate) const NOW: i64 = 1_700_000_000;

/// An event.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) name: &'static str,
    pub(crate) user: Option<u8>,
    pub(crate) product: Option<u8>,
    pub(crate) value: Option<i32>,
    pub(crate) minute: i32,
    pub(crate) id: Option<u8>,
}

/// How many views there are to be defined.
pub(crate) const VIEWS: usize = 5;

pub(crate) fn view(which: usize) -> View {
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
pub(crate) struct Expected {
    pub(crate) count: u64,
    measured: u64,
    sum: f64,
    min: Option<f64>,
    max: Option<f64>,
    first: i64,
    last: i64,
    buckets: BTreeMap<i64, (u64, f64)>,
}

/// Who can be asked: the owner of a directory, or somebody who reads beside it.
pub(crate) trait Asked {
    fn events(&self) -> u64;
    fn query(&self, view: &str) -> Result<Query, Error>;
}

impl Asked for Db {
    fn events(&self) -> u64 {
        self.statistics().events
    }

    fn query(&self, view: &str) -> Result<Query, Error> {
        Db::query(self, view)
    }
}

impl Asked for ReadOnlyDb {
    fn events(&self) -> u64 {
        self.statistics().events
    }

    fn query(&self, view: &str) -> Result<Query, Error> {
        ReadOnlyDb::query(self, view)
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// Accepted events in order.
    pub(crate) facts: Vec<Fact>,
    /// The defined views and the number of events before they began to count; 0 after a backfill.
    pub(crate) defined: BTreeMap<usize, usize>,
}

impl Model {
    pub(crate) fn expected(&self, which: usize) -> BTreeMap<Vec<String>, Expected> {
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
    pub(crate) fn check(&self, db: &impl Asked) {
        assert_eq!(db.events(), self.facts.len() as u64);
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

/// The fact as an event.
pub(crate) fn with_event<R>(fact: &Fact, run: impl FnOnce(&Event<'_>) -> R) -> R {
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
