//! What the engine must answer: a list of events, views, and a fold over them.
//!
//! Shared by the tests of behaviour (`tests/it`) and the crash exploration (`tests/explore`).

pub(crate) mod sketches;

use quipu::{
    Component, Db, Error, Event, Grain, Keep, Query, ReadOnlyDb, Seen, TimeZone, Timestamp, View,
};
use sketches::Observed;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

/// The present, in seconds.
pub(crate) const NOW: i64 = 1_700_000_000;

/// A moment of the two weeks before the present and the two behind those, by its minute: 0 is in the middle.
pub(crate) fn minute(minute: i32) -> Timestamp {
    Timestamp::from_secs(NOW + (i64::from(minute) - 20_000) * 60)
}

/// An event.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) name: &'static str,
    pub(crate) user: Option<u8>,
    pub(crate) product: Option<u8>,
    pub(crate) visitor: Option<u16>,
    pub(crate) value: Option<i32>,
    pub(crate) time: Timestamp,
    /// So many minutes earlier or later it may have been.
    pub(crate) about: u16,
    /// It stands for so many that are alike.
    pub(crate) times: u64,
    pub(crate) id: Option<u8>,
}

impl Fact {
    fn user(&self) -> Option<String> {
        self.user.map(|user| format!("u{user}"))
    }

    fn visitor(&self) -> Option<String> {
        self.visitor.map(|visitor| format!("v{visitor}"))
    }

    fn half_width(&self) -> Duration {
        Duration::from_mins(self.about.into())
    }
}

/// How many views there are to be defined.
pub(crate) const VIEWS: usize = 8;
/// Those that are of use to limits ...
pub(crate) const CALLS: usize = 6;
pub(crate) const REFUNDS: usize = 7;
/// ... and the one that has sketches.
pub(crate) const SKETCHES: usize = 5;

pub(crate) fn view(which: usize) -> View {
    let of_calls = |name, event| View::new(name).by(["user"]).only_events([event]);
    let view = match which {
        0 => View::new("by_user").by(["user"]).stats("value"),
        1 => View::new("by_user_product").by(["user", "product"]).stats("value"),
        2 => View::new("sales").by(["product"]).only_events(["sale"]).stats("value"),
        3 => View::new("hours").stats("value"),
        4 => View::new("days").by(["user"]).where_in("product", ["p1", "p2", "p3"]),
        SKETCHES => sketches::with_counts(sketches::common()),
        CALLS => of_calls("calls", "call"),
        _ => of_calls("refunds", "refund"),
    };
    match kept(which) {
        Some((grain, keep)) => view.grain(grain, keep),
        None => view,
    }
}

/// The buckets that a view keeps by its first definition.
fn kept(which: usize) -> Option<(Grain, Keep)> {
    match which {
        0..3 => None,
        3 => Some((Grain::Hour, Keep::Last(40))),
        4 => Some((Grain::Day, Keep::All)),
        // A length of its own.
        SKETCHES => Some((Grain::every(Duration::from_hours(36)).unwrap(), Keep::Last(5))),
        _ => Some((Grain::Minute, Keep::Last(200))),
    }
}

/// What of a fact is its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    event: Option<&'static str>,
    user: Option<u8>,
    product: Option<u8>,
}

/// What a key should say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) count: u64,
    measured: u64,
    sum: f64,
    min: Option<f64>,
    max: Option<f64>,
    /// When the earliest event began and ended, as far as is known, and the latest.
    first: (i64, i64),
    last: (i64, i64),
    sketches: Option<Observed>,
    buckets: BTreeMap<i64, Bucket>,
}

/// What a bucket of it should say.
#[derive(Clone, Debug, PartialEq)]
struct Bucket {
    count: u64,
    sum: f64,
    sketches: Option<Observed>,
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
    /// Whose days and hours buckets are.
    pub(crate) zone: TimeZone,
}

impl Model {
    pub(crate) fn expected(&self, which: usize) -> BTreeMap<Vec<String>, Expected> {
        let mut keys: BTreeMap<Key, Expected> = BTreeMap::new();
        let has_stats = view(which).measures().len() > 0;
        let kept = kept(which);
        let sketches = (which == SKETCHES).then(Observed::nothing);
        for fact in &self.facts[self.defined[&which]..] {
            let Some(key) = key(which, fact) else { continue };
            let (time, about) = (fact.time.micros(), i64::from(fact.about) * 60_000_000);
            let (start, end) = (time - about, time + about);
            let row = keys.entry(key).or_insert_with(|| Expected {
                count: 0,
                measured: 0,
                sum: 0.0,
                min: None,
                max: None,
                first: (i64::MAX, i64::MAX),
                last: (i64::MIN, i64::MIN),
                sketches: sketches.clone(),
                buckets: BTreeMap::new(),
            });
            row.count += fact.times;
            row.first = (row.first.0.min(start), row.first.1.min(end));
            row.last = (row.last.0.max(start), row.last.1.max(end));
            let value = fact.value.map(f64::from);
            let sum = value.unwrap_or(0.0) * fact.times as f64;
            if let Some(value) = value.filter(|_| has_stats) {
                row.measured += fact.times;
                row.sum += sum;
                row.min = Some(row.min.map_or(value, |min| min.min(value)));
                row.max = Some(row.max.map_or(value, |max| max.max(value)));
            }
            if let Some(sketches) = &mut row.sketches {
                sketches.observe(fact);
            }
            if let Some((grain, _)) = kept {
                let bucket = row.buckets.entry(self.zone.bucket(grain, fact.time));
                let nothing = || Bucket { count: 0, sum: 0.0, sketches: sketches.clone() };
                let bucket = bucket.or_insert_with(nothing);
                bucket.count += fact.times;
                bucket.sum += sum;
                if let Some(sketches) = &mut bucket.sketches {
                    sketches.observe(fact);
                }
            }
        }
        if let Some((_, Keep::Last(most))) = kept {
            for row in keys.values_mut() {
                let newest = *row.buckets.keys().next_back().unwrap();
                row.buckets.retain(|number, _| *number > newest - i64::from(most));
            }
        }
        keys.into_iter().map(|(key, row)| (key.text(), row)).collect()
    }

    /// Compares everything that the engine can be asked with the model.
    ///
    /// # Errors
    /// What the engine says instead of an answer.
    pub(crate) fn check(&self, db: &impl Asked) -> Result<(), Error> {
        assert_eq!(db.events(), self.facts.len() as u64);
        for &which in self.defined.keys() {
            let expected = self.expected(which);
            let query = db.query(view(which).name())?;
            assert_eq!(query.time_zone(), self.zone);
            let rows = query.rows()?.collect::<Result<Vec<_>, _>>()?;
            assert_eq!(
                rows.iter().map(|row| &row.key).collect::<Vec<_>>(),
                expected.keys().collect::<Vec<_>>(),
                "keys of view {which}, in order"
            );
            for row in &rows {
                let want = &expected[&row.key];
                assert_eq!(row.count, want.count, "view {which}, {:?}", row.key);
                assert_eq!(row.first_seen.micros(), want.first.0);
                assert_eq!(row.last_seen.micros(), want.last.1);
                if let Some(summary) = row.summary() {
                    assert_eq!(summary.count_value, want.measured);
                    assert_eq!(summary.sum, want.sum);
                    assert_eq!((summary.min, summary.max), (want.min, want.max));
                }
                if let Some(sketches) = &want.sketches {
                    sketches.check(&row.sketches, query.view(), &format!("{:?}", row.key));
                }
            }
            let mut unordered = Vec::new();
            query.for_each(|row| {
                unordered.push(row);
                ControlFlow::Continue(())
            })?;
            unordered.sort_by(|a, b| a.key.cmp(&b.key));
            assert_eq!(unordered, rows, "unordered, view {which}");
            assert_eq!(query.key_count()?, expected.len() as u64, "view {which}");
            self.check_totals(which, &query, &expected)?;
            let mut ranked: Vec<_> =
                expected.iter().map(|(key, row)| (std::cmp::Reverse(row.count), key)).collect();
            ranked.sort();
            let top = query.top(4, Component::Count)?;
            let top: Vec<_> = top.iter().map(|row| &row.key).collect();
            assert_eq!(top, ranked.iter().take(4).map(|(_, key)| *key).collect::<Vec<_>>());
            for (key, want) in &expected {
                self.check_key(which, &query, key, want)?;
            }
            assert_eq!(
                query.get(&vec!["nobody"; view(which).key().len()])?.is_some(),
                which == 3 && !expected.is_empty()
            );
        }
        Ok(())
    }

    /// All keys together.
    fn check_totals(
        &self,
        which: usize,
        query: &Query,
        expected: &BTreeMap<Vec<String>, Expected>,
    ) -> Result<(), Error> {
        let total: u64 = expected.values().map(|row| row.count).sum();
        let totals = query.totals()?;
        assert_eq!(totals.count, total);
        if which == SKETCHES {
            let mut all = Observed::nothing();
            let facts = self.facts[self.defined[&which]..].iter();
            facts.filter(|fact| key(which, fact).is_some()).for_each(|fact| all.observe(fact));
            all.check(&totals.sketches, query.view(), "all keys");
        }
        Ok(())
    }

    /// One key, asked for by itself.
    fn check_key(
        &self,
        which: usize,
        query: &Query,
        key: &[String],
        want: &Expected,
    ) -> Result<(), Error> {
        let key: Vec<&str> = key.iter().map(String::as_str).collect();
        let row = query.get(&key)?.unwrap();
        assert_eq!(row.count, want.count);
        if let Some(sketches) = &want.sketches {
            sketches.check(&row.sketches, query.view(), &format!("{key:?} alone"));
        }
        let series = query.series(&key)?;
        let seen = [series.first_seen()?, series.last_seen()?];
        for (seen, (start, end)) in seen.into_iter().zip([want.first, want.last]) {
            let Seen { time, half_width, .. } = seen.unwrap();
            let width = end.abs_diff(start);
            let middle = Timestamp::from_micros(start.saturating_add_unsigned(width / 2));
            assert_eq!(
                (time, half_width),
                (middle, Duration::from_micros(width.div_ceil(2))),
                "when {key:?} was seen in view {which}"
            );
        }
        let Some((grain, _)) = kept(which) else { return Ok(()) };
        let buckets = query.buckets(&key, grain)?;
        let numbers = buckets.iter().map(|bucket| self.zone.bucket(grain, bucket.start));
        assert_eq!(
            numbers.collect::<Vec<_>>(),
            want.buckets.keys().copied().collect::<Vec<_>>(),
            "buckets of view {which}, {key:?}"
        );
        for (bucket, (number, want)) in buckets.iter().zip(&want.buckets) {
            let sum = bucket.summary().map_or(want.sum, |summary| summary.sum);
            assert_eq!(
                (bucket.count, sum),
                (want.count, want.sum),
                "bucket {number} of view {which}, {key:?}"
            );
            if let Some(sketches) = &want.sketches {
                sketches.check(&bucket.sketches, query.view(), &format!("{key:?}, {number}"));
            }
        }
        Ok(())
    }
}

/// The key that a fact has in a view, if it is in it.
fn key(which: usize, fact: &Fact) -> Option<Key> {
    let of_user = |event: &str| {
        let user = fact.user.filter(|_| fact.name == event);
        user.map(|user| Key { user: Some(user), ..Key::default() })
    };
    let (user, product) = (fact.user, fact.product);
    match which {
        0 => user.map(|_| Key { user, ..Key::default() }),
        1 => user.and(product).map(|_| Key { user, product, ..Key::default() }),
        2 => product.filter(|_| fact.name == "sale").map(|_| Key { product, ..Key::default() }),
        3 => Some(Key::default()),
        4 => {
            user.filter(|_| matches!(product, Some(1..=3))).map(|_| Key { user, ..Key::default() })
        }
        SKETCHES => Some(Key { event: Some(fact.name), ..Key::default() }),
        CALLS => of_user("call"),
        REFUNDS => of_user("refund"),
        _ => None,
    }
}

impl Key {
    fn text(self) -> Vec<String> {
        let event = self.event.map(str::to_owned);
        let user = self.user.map(|user| format!("u{user}"));
        let product = self.product.map(|product| format!("p{product}"));
        event.into_iter().chain(user).chain(product).collect()
    }
}

/// The fact as an event.
pub(crate) fn with_event<R>(fact: &Fact, run: impl FnOnce(&Event<'_>) -> R) -> R {
    let product = fact.product.map(|product| format!("p{product}"));
    let (user, visitor) = (fact.user(), fact.visitor());
    let id = fact.id.map(|id| format!("id{id}"));
    let mut event = Event::new(fact.name).at_about(fact.time, fact.half_width());
    if fact.times != 1 {
        event = event.times(fact.times);
    }
    let dimensions = [("user", &user), ("product", &product), ("visitor", &visitor)];
    for (name, value) in dimensions {
        if let Some(value) = value {
            event = event.dim(name, value);
        }
    }
    if let Some(value) = fact.value {
        event = event.value(f64::from(value));
    }
    if let Some(id) = &id {
        event = event.id(id);
    }
    run(&event)
}
