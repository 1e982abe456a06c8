//! Questions about time against a plain list of events, in zones that do what is easily got wrong.
//!
//! The model keeps every event with its time. It finds a range by walking from bucket to bucket, and an
//! answer by going through the list.

use crate::directory::options;
use proptest::prelude::*;
use quipu::{
    Bucket, Component, Db, ErrorKind, Estimate, Event, Grain, Keep, RangeQuery, Result,
    SeriesQuery, TestClock, TimeZone, Timestamp, View,
};
use std::ops::Range;
use std::time::Duration;

const ZONES: [&str; 5] =
    ["UTC", "Europe/Paris", "America/St_Johns", "Pacific/Apia", "Pacific/Kiritimati"];

/// Moments around which a calendar is easily got wrong: clocks put forward and back, a day left out, the
/// end of week 53, the 29th of February.
const NOWS: [&str; 9] = [
    "2024-03-31T09:30:00Z",
    "2024-10-27T00:59:59Z",
    "2006-10-29T02:31:00Z",
    "2012-01-02T03:04:05Z",
    "1995-01-04T12:00:00Z",
    "2021-01-03T23:59:59Z",
    "2021-01-04T00:00:00Z",
    "2024-02-29T12:00:00Z",
    "2024-12-31T23:30:00Z",
];

const KEYS: [&str; 3] = ["api:get", "api:put", "web"];

const HOUR: i64 = 3_600_000_000;

#[derive(Clone, Debug)]
struct Happened {
    key: usize,
    time: Timestamp,
    value: f64,
}

#[derive(Clone, Debug)]
struct Model {
    zone: TimeZone,
    grains: Vec<(Grain, Keep)>,
    events: Vec<Happened>,
    now: Timestamp,
}

/// A bucket and the events in it.
type Filled<'a> = (Range<Timestamp>, Vec<&'a Happened>);

impl Model {
    fn keep(&self, grain: Grain) -> Option<Keep> {
        self.grains.iter().find(|(kept, _)| *kept == grain).map(|(_, keep)| *keep)
    }

    fn of<'a>(&'a self, keys: &'a [usize]) -> impl Iterator<Item = &'a Happened> + Clone {
        self.events.iter().filter(|event| keys.contains(&event.key))
    }

    fn within<'a>(&'a self, keys: &'a [usize], span: &Range<Timestamp>) -> Vec<&'a Happened> {
        self.of(keys).filter(|event| span.contains(&event.time)).collect()
    }

    /// The numbers of the buckets that are so many back, oldest first, by walking.
    fn numbers(&self, grain: Grain, back: &Range<u32>) -> Vec<i64> {
        let present = self.zone.bucket(grain, self.now);
        let has_moment = |number: &i64| !self.zone.span(grain, *number).is_empty();
        let walk = (present - 10_000..=present).rev().filter(has_moment);
        let mut numbers: Vec<i64> =
            walk.take(back.end as usize).skip(back.start as usize).collect();
        numbers.reverse();
        numbers
    }

    /// Whether some key had events in the range, or before it, that its buckets have not any more.
    fn is_lost(&self, keys: &[usize], grain: Grain, from: i64, to: i64) -> bool {
        let Some(Keep::Last(keep)) = self.keep(grain) else { return false };
        keys.iter().any(|key| {
            let key = [*key];
            let numbers = self.of(&key).map(|event| self.zone.bucket(grain, event.time));
            let Some(newest) = numbers.clone().max() else { return false };
            let oldest = newest - i64::from(keep) + 1;
            let first = numbers.clone().min();
            from < oldest && first.is_some_and(|first| first < oldest && first <= to)
        })
    }

    /// The buckets of a range; `None`: the view does not reach so far.
    fn buckets<'a>(
        &'a self,
        keys: &'a [usize],
        grain: Grain,
        back: &Range<u32>,
    ) -> Option<Vec<Filled<'a>>> {
        let keep = self.keep(grain)?;
        let numbers = self.numbers(grain, back);
        let (from, to) = (*numbers.first()?, *numbers.last()?);
        let present = self.zone.bucket(grain, self.now);
        let reaches = match keep {
            Keep::All => true,
            Keep::Last(n) => from > present - i64::from(n),
        };
        if !reaches || self.is_lost(keys, grain, from, to) {
            return None;
        }
        let span = |number: i64| self.zone.span(grain, number);
        Some(numbers.iter().map(|n| (span(*n), self.within(keys, &span(*n)))).collect())
    }
}

fn grain(text: &str) -> Grain {
    text.parse().unwrap()
}

fn grains() -> impl Strategy<Value = Vec<(Grain, Keep)>> {
    let all = ["minute", "hour", "day", "week", "month", "year", "6h", "month30", "250ms", "1ms"];
    let keep = prop_oneof![1 => Just(Keep::All), 4 => (1_u32..12).prop_map(Keep::Last)];
    prop::sample::subsequence(all.to_vec(), 2..=5).prop_flat_map(move |names| {
        let grains: Vec<Grain> = names.into_iter().map(grain).collect();
        prop::collection::vec(keep.clone(), grains.len())
            .prop_map(move |keeps| grains.iter().copied().zip(keeps).collect())
    })
}

fn models() -> impl Strategy<Value = Model> {
    let moment = (prop::sample::select(&NOWS[..]), -30 * HOUR..30 * HOUR).prop_map(|(at, by)| {
        Timestamp::from_micros(Timestamp::parse_rfc3339(at).unwrap().micros() + by)
    });
    let age = prop_oneof![
        // Up to as far ahead of now as is allowed.
        1 => -24 * HOUR..0,
        4 => 0..2 * HOUR,
        4 => 0..100 * HOUR,
        3 => 0..2_000 * HOUR,
        2 => 0..40_000 * HOUR,
        1 => Just(0),
    ];
    // Quarters, so that sums are exact however they are made.
    let event = (0_usize..3, age, -40_i32..40);
    (prop::sample::select(&ZONES[..]), grains(), moment, prop::collection::vec(event, 0..40))
        .prop_map(|(zone, grains, now, events)| {
            let happened = |(key, age, value)| Happened {
                key,
                time: Timestamp::from_micros(now.micros() - age),
                value: f64::from(value) / 4.0,
            };
            let events = events.into_iter().map(happened).collect();
            Model { zone: zone.parse().unwrap(), grains, events, now }
        })
}

/// A directory in which all of a model's events were recorded, some in batches.
struct Store {
    root: tempfile::TempDir,
    clock: TestClock,
    db: Db,
}

impl Store {
    fn of(model: &Model) -> Self {
        let root = tempfile::tempdir().unwrap();
        let clock = TestClock::at(model.now);
        let with_grains = |view: View| {
            model.grains.iter().fold(view, |view, (grain, keep)| view.grain(*grain, *keep))
        };
        let db = options()
            .clock(clock.clone())
            .time_zone(model.zone)
            // One that only counts and one with statistics are kept in different ways.
            .view(with_grains(View::new("counts").by(["event"])))
            .view(with_grains(View::new("stats").by(["event"]).stats("value")))
            .open(root.path().join("db"))
            .unwrap();
        for events in model.events.chunks(3) {
            let event = |e: &Happened| Event::new(KEYS[e.key]).at(e.time).value(e.value);
            let (single, many) = events.split_first().unwrap();
            db.record(&event(single)).unwrap();
            let mut batch = db.batch();
            for happened in many {
                batch.push(&event(happened)).unwrap();
            }
            db.record_batch(&mut batch).unwrap();
        }
        Store { root, clock, db }
    }

    /// Closed and opened again: series come from the snapshot, and find no room to stay.
    fn reopened(self) -> Self {
        let Store { root, clock, db } = self;
        drop(db);
        let options = options().clock(clock.clone()).memory_budget(0);
        let db = options.open(root.path().join("db")).unwrap();
        Store { root, clock, db }
    }

    /// The ways to ask for some of the keys, with their keys.
    fn selections(&self, view: &str) -> Vec<(SeriesQuery, Vec<usize>)> {
        let query = self.db.query(view).unwrap();
        // These first: they leave in the store what is there, the others bring it into memory.
        let mut all = vec![(query.all_series(), vec![0, 1, 2])];
        all.push((query.series_starting_with(&["api:"]).unwrap(), vec![0, 1]));
        all.push((query.series_of([[KEYS[0]], [KEYS[2]], [KEYS[0]]]).unwrap(), vec![0, 2]));
        all.extend((0..3).map(|key| (query.series(&[KEYS[key]]).unwrap(), vec![key])));
        all.push((query.series(&["never"]).unwrap(), vec![]));
        all
    }
}

/// What an answer should be: of a known series the model's, or the error where it does not reach so far.
#[track_caller]
#[expect(clippy::option_option, reason = "out of reach, never heard of, or an answer")]
fn agree<T, W>(got: Result<Option<T>>, want: Option<Option<W>>, what: &str)
where
    T: std::fmt::Debug,
    W: std::fmt::Debug + PartialEq<T>,
{
    match (got, want) {
        (Ok(Some(got)), Some(Some(want))) => assert!(want == got, "{what}: {got:?}, not {want:?}"),
        (Ok(None), Some(None)) => {}
        (Err(error), None) => assert_eq!(error.kind(), ErrorKind::NotKept, "{what}: {error}"),
        (got, want) => panic!("{what}: {got:?}, not {want:?}"),
    }
}

/// Nearly the same: computed in another order.
#[derive(Debug)]
struct Near(f64);

impl PartialEq<f64> for Near {
    fn eq(&self, other: &f64) -> bool {
        (self.0 - other).abs() <= 1e-9 * (1.0 + self.0.abs())
    }
}

fn sum_of(events: &[&Happened]) -> f64 {
    events.iter().map(|event| event.value).sum()
}

/// Compares every answer about a range.
#[track_caller]
fn check_range(range: &RangeQuery, want: Option<&[Filled<'_>]>, known: bool, has_stats: bool) {
    let what = format!("{range:?}");
    // A key never heard of is `None` wherever the view reaches so far.
    let told = |want: Option<&[Filled<'_>]>| want.map(|_| known);
    let counts: Option<Vec<u64>> =
        want.map(|want| want.iter().map(|(_, events)| events.len() as u64).collect());
    let of = |f: &dyn Fn(&[u64]) -> u64| {
        told(want).map(|known| known.then(|| f(counts.as_deref().unwrap())))
    };
    agree(range.sum(), of(&|n| n.iter().sum()), &what);
    agree(range.min(), of(&|n| *n.iter().min().unwrap()), &what);
    agree(range.max(), of(&|n| *n.iter().max().unwrap()), &what);
    agree(range.count_nonzero(), of(&|n| n.iter().filter(|n| **n > 0).count() as u64), &what);
    for percent in [0.0, 1.0, 50.0, 75.0, 99.9, 100.0] {
        let rank = |n: &[u64]| {
            let mut n = n.to_vec();
            n.sort_unstable();
            // The least one that at least so many do not exceed.
            let enough = |at: &usize| (at + 1) as f64 * 100.0 >= percent * n.len() as f64;
            n[(0..n.len()).find(enough).unwrap()]
        };
        agree(range.percentile(percent), of(&rank), &what);
    }
    let mean = |n: &[u64]| n.iter().sum::<u64>() as f64 / n.len() as f64;
    let near = |f: &dyn Fn(&[u64]) -> f64| {
        told(want).map(|known| known.then(|| Near(f(counts.as_deref().unwrap()))))
    };
    agree(range.average(), near(&mean), &what);
    let deviation = |n: &[u64]| {
        let squares: f64 = n.iter().map(|x| (*x as f64 - mean(n)).powi(2)).sum();
        (squares / n.len() as f64).sqrt()
    };
    agree(range.std_dev(), near(&deviation), &what);
    let active: Option<Vec<u64>> =
        counts.as_ref().map(|n| n.iter().copied().filter(|n| *n > 0).collect());
    let nonzero = active.as_ref().map(|n| (!n.is_empty()).then(|| Near(mean(n))));
    agree(range.average_nonzero(), nonzero, &what);

    let ends = |bucket: Bucket| (bucket.start..bucket.end, bucket.count);
    let filled = |(span, events): &Filled<'_>| (span.clone(), events.len() as u64);
    let buckets = told(want).map(|known| known.then(|| want.unwrap().iter().map(filled).collect()));
    let got = range.buckets().map(|got| got.map(|got| got.into_iter().map(ends).collect()));
    agree::<Vec<_>, Vec<_>>(got, buckets, &what);
    let find = |last: bool| {
        want.map(|want| {
            let mut active = want.iter().filter(|(_, events)| !events.is_empty()).map(filled);
            if last { active.next_back() } else { active.next() }
        })
    };
    agree(range.first_active().map(|found| found.map(ends)), find(false), &what);
    agree(range.last_active().map(|found| found.map(ends)), find(true), &what);

    let all: Option<Vec<&Happened>> =
        want.map(|want| want.iter().flat_map(|(_, events)| events.iter().copied()).collect());
    let total = range.total().map(|total| {
        total.map(|total| {
            assert!(!total.is_partial());
            let sum = total.summary().map_or(0.0, |summary| summary.sum);
            (total.start..total.end, total.count, sum)
        })
    });
    let want_total = told(want).map(|known| {
        known.then(|| {
            let (buckets, all) = (want.unwrap(), all.as_ref().unwrap());
            let span = buckets[0].0.start..buckets.last().unwrap().0.end;
            (span, all.len() as u64, if has_stats { sum_of(all) } else { 0.0 })
        })
    });
    agree(total, want_total, &what);
    if has_stats {
        let sums = told(want).map(|known| {
            known.then(|| want.unwrap().iter().map(|(_, events)| sum_of(events)).collect())
        });
        let got = range.across(Component::Sum).map(|got| got.map(|got| got.values().to_vec()));
        agree::<Vec<f64>, Vec<f64>>(got, sums, &what);
        let least = |(_, events): &Filled<'_>| events.iter().map(|e| e.value).reduce(f64::min);
        let least = told(want).map(|known| {
            known.then(|| want.unwrap().iter().filter_map(least).collect::<Vec<f64>>())
        });
        let got = range.across(Component::Min).map(|got| got.map(|got| got.values().to_vec()));
        agree(got, least, &what);
    }
}

fn is_known(model: &Model, keys: &[usize]) -> bool {
    model.of(keys).next().is_some()
}

fn check_ranges(store: &Store, model: &Model, back: &Range<u32>) {
    for view in ["counts", "stats"] {
        for (series, keys) in store.selections(view) {
            let known = is_known(model, &keys);
            for (grain, _) in &model.grains {
                let want = model.buckets(&keys, *grain, back);
                let range = series.range(*grain, back.clone());
                check_range(&range, want.as_deref(), known, view == "stats");
                let before = back.end..back.end + back.len() as u32;
                let want = model.buckets(&keys, *grain, &before);
                check_range(&range.previous(), want.as_deref(), known, view == "stats");
                check_kept(&range, model, &keys, *grain, back);
            }
        }
    }
}

/// What is kept of a range is all from where it says that it is known.
#[track_caller]
fn check_kept(range: &RangeQuery, model: &Model, keys: &[usize], grain: Grain, back: &Range<u32>) {
    let kept = range.kept();
    let Ok(total) = kept.total() else {
        // Nothing of the range is kept.
        let Some(Keep::Last(keep)) = model.keep(grain) else { panic!("{kept:?}: all is kept") };
        let to = *model.numbers(grain, back).last().unwrap();
        let numbers = model.of(keys).map(|event| model.zone.bucket(grain, event.time));
        let newest = numbers.max().unwrap_or(i64::MIN).max(model.zone.bucket(grain, model.now));
        assert!(to <= newest - i64::from(keep), "{kept:?}");
        return;
    };
    let Some(total) = total else { return assert!(!is_known(model, keys)) };
    let whole = model.buckets(keys, grain, back);
    assert_eq!(total.is_partial(), whole.is_none(), "{kept:?}: {total:?}");
    let known = total.known_from..total.end;
    assert_eq!(total.count, model.within(keys, &known).len() as u64, "{kept:?}: {total:?}");
    assert_eq!(kept.sum().unwrap(), Some(total.count));
    let buckets = kept.buckets().unwrap().unwrap();
    assert_eq!(buckets.iter().map(|bucket| bucket.count).sum::<u64>(), total.count);
    assert!(buckets.iter().all(|bucket| bucket.start >= total.known_from), "{kept:?}");
}

/// The bounds hold, and say nothing is uncertain where nothing is.
#[track_caller]
fn check_estimate(
    got: Result<Option<Estimate>>,
    model: &Model,
    keys: &[usize],
    span: &Range<Timestamp>,
) -> bool {
    let truth = model.within(keys, span).len() as u64;
    let Some(got) = (match got {
        Ok(got) => got,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotKept, "{error}");
            return false;
        }
    }) else {
        assert!(!is_known(model, keys));
        return true;
    };
    assert!(got.lower <= truth && truth <= got.upper, "{truth}: {got:?}");
    assert!((got.lower as f64..=got.upper as f64 + 1e-6).contains(&got.estimate), "{got:?}");
    assert_eq!((got.start, got.end), (span.start, span.end));
    assert!(!got.is_partial());
    // What is uncertain lies in buckets that an edge cuts.
    let edges = [span.start, span.end];
    let finest = model.grains.iter().min_by_key(|(grain, _)| *grain);
    if let Some((grain, Keep::All)) = finest.copied() {
        let near = |edge: Timestamp| model.zone.span(grain, model.zone.bucket(grain, edge));
        let cut = edges.map(near).map(|bucket| model.within(keys, &bucket).len() as u64);
        assert!(got.upper - got.lower <= cut.iter().sum(), "{got:?}: {cut:?}");
    }
    true
}

/// Whether some grain reaches back from now, whatever the key.
fn reaches(model: &Model, from: Timestamp) -> bool {
    model.grains.iter().any(|(grain, keep)| match keep {
        Keep::All => true,
        Keep::Last(n) => {
            let number = |moment| model.zone.bucket(*grain, moment);
            number(from) > number(model.now) - i64::from(*n)
        }
    })
}

fn check_spans(store: &Store, model: &Model, hours: &[i64]) {
    let at = |hours: &i64| Timestamp::from_micros(model.now.micros() - hours * HOUR / 7);
    for view in ["counts", "stats"] {
        for (series, keys) in store.selections(view) {
            for (age, other) in hours.iter().zip(hours.iter().skip(1)) {
                let (from, to) = (at(age.max(other)), at(age.min(other)));
                if from < to {
                    check_estimate(series.between(from, to).sum(), model, &keys, &(from..to));
                }
                let length = Duration::from_micros(1 + (age.unsigned_abs() * HOUR as u64) / 7);
                let end = Timestamp::from_micros(model.now.micros() + 1);
                let span = end.saturating_sub(length)..end;
                let trailing = series.trailing(length);
                let answered = check_estimate(trailing.sum(), model, &keys, &span);
                if !reaches(model, span.start) {
                    assert!(!answered, "{trailing:?}: the view does not reach back so far");
                    let kept = trailing.kept().sum();
                    if let Ok(Some(kept)) = kept {
                        assert!(kept.is_partial());
                        let known = kept.known_from..kept.end;
                        let truth = model.within(&keys, &known).len() as u64;
                        assert!(kept.lower <= truth && truth <= kept.upper, "{kept:?}");
                    }
                } else if model.of(&keys).all(|event| event.time <= model.now) {
                    assert!(answered, "{trailing:?}: no event is ahead of now");
                }
                if view == "stats"
                    && let Ok(Some(total)) = trailing.total()
                {
                    let [inside, touching] = [&total.inside, &total.touching].map(|s| &s[0].1);
                    assert_eq!(inside.count_value, total.count.lower);
                    assert_eq!(touching.count_value, total.count.upper);
                    let events = model.within(&keys, &span);
                    let greatest = events.iter().map(|e| e.value).reduce(f64::max);
                    assert!(inside.max <= greatest && greatest <= touching.max);
                }
            }
            // All that there is, by its first and its last moment.
            let times: Vec<Timestamp> = model.of(&keys).map(|event| event.time).collect();
            if let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) {
                let behind = last.saturating_add(Duration::from_micros(1));
                let all = series.between(*first, behind).sum().unwrap().unwrap();
                assert_eq!(all.exact(), Some(times.len() as u64));
                let wider = series.between(Timestamp::MIN, Timestamp::MAX).sum().unwrap().unwrap();
                assert_eq!(wider.exact(), Some(times.len() as u64));
                let seen = [series.first_seen(), series.last_seen()].map(|s| s.unwrap().unwrap());
                assert_eq!([seen[0].time, seen[1].time], [*first, *last]);
                let age = |time: Timestamp| (model.now.micros() - time.micros()).max(0) as u64;
                let ages = seen.map(|seen| seen.age);
                assert_eq!(ages, [*first, *last].map(|time| Duration::from_micros(age(time))));
            } else {
                assert_eq!(series.first_seen().unwrap(), None);
                assert_eq!(series.last_seen().unwrap(), None);
            }
            let ever = series.ever();
            assert_eq!(ever.sum().unwrap(), (!times.is_empty()).then_some(times.len() as u64));
            let total = ever.total().unwrap().map(|total| total.count);
            assert_eq!(total, ever.sum().unwrap());
            if let Ok(Some(buckets)) = ever.buckets() {
                assert_eq!(buckets.iter().map(|b| b.count).sum::<u64>(), times.len() as u64);
            }
        }
    }
}

fn check_several(store: &Store, model: &Model, back: &Range<u32>) {
    let query = store.db.query("stats").unwrap();
    let series = |key: usize| query.series(&[KEYS[key]]).unwrap();
    let (a, b) = (series(0), series(1));
    let known = [[0], [1]].map(|keys| is_known(model, &keys));
    for (grain, _) in &model.grains {
        let range = a.range(*grain, back.clone());
        let (own, other) = (model.buckets(&[0], *grain, back), model.buckets(&[1], *grain, back));
        let count = |buckets: &[Filled<'_>]| buckets.iter().map(|(_, e)| e.len()).sum::<usize>();
        let counts =
            own.as_ref().zip(other.as_ref()).map(|(own, other)| (count(own), count(other)));
        let ratio = counts.map(|(own, other)| {
            (known == [true; 2] && other > 0).then(|| own as f64 / other as f64)
        });
        agree(range.ratio(&b), ratio, "ratio");
        let back_again = counts
            .map(|(own, other)| (known == [true; 2] && own > 0).then(|| other as f64 / own as f64));
        agree(range.conversion(&b), back_again, "conversion");
        let minus =
            counts.map(|(own, other)| (known != [false; 2]).then_some(own as i128 - other as i128));
        agree(range.minus(&b), minus, "minus");
        // Of what is kept, over the part that both have.
        let totals = [&a, &b].map(|series| series.range(*grain, back.clone()).kept().total());
        if let [Ok(Some(own)), Ok(Some(other))] = totals {
            let from = own.known_from.max(other.known_from);
            let count = |key: usize| {
                let key = [key];
                Some(model.within(&key, &(from..own.end)).len() as u64)
            };
            assert_eq!(range.kept().both(&b).unwrap(), (count(0), count(1)), "{grain}");
        }
        let balances = own.zip(other).map(|(own, other)| {
            (known != [false; 2]).then(|| {
                let upto = |key: usize, end: Timestamp| {
                    model.of(&[key]).filter(|event| event.time < end).count() as i128
                };
                let change = |at: usize| own[at].1.len() as i128 - other[at].1.len() as i128;
                let ends = own.iter().map(|(span, _)| upto(0, span.end) - upto(1, span.end));
                ends.enumerate().map(|(at, balance)| (change(at), balance)).collect::<Vec<_>>()
            })
        });
        let got = range.balance(&b).map(|got| {
            got.map(|got| got.iter().map(|b| (b.change, b.balance)).collect::<Vec<_>>())
        });
        agree(got, balances, "balance");
        let before = back.end..back.end + back.len() as u32;
        let both = model.buckets(&[0], *grain, back).zip(model.buckets(&[0], *grain, &before));
        let trend =
            both.map(|(now, before)| known[0].then(|| (count(&now) as u64, count(&before) as u64)));
        agree(range.trend().map(|t| t.map(|t| (t.now, t.before))), trend, "trend");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn answers_are_those_of_a_list_of_events(
        model in models(),
        start in prop_oneof![2 => Just(0_u32), 1 => 0_u32..9],
        len in 1_u32..12,
        hours in prop::collection::vec(
            prop_oneof![0_i64..15, 0_i64..700, 0_i64..14_000, 0_i64..280_000], 2..6
        ),
    ) {
        let back = start..start + len;
        let mut store = Store::of(&model);
        for round in 0..3 {
            check_ranges(&store, &model, &back);
            check_spans(&store, &model, &hours);
            check_several(&store, &model, &back);
            match round {
                0 => store.db.checkpoint().unwrap(),
                _ => store = store.reopened(),
            }
        }
    }
}
