//! "The last 24 hours" of real data, in both readings: against the answers of the oracles (computed in
//! SQL, `tests/data/README.md`), and in a time zone against a plain scan.
//!
//! Events are recorded in the order of their times up to the moment of asking, and the clock shows it.

use crate::directory::options;
use crate::oracles::{Line, answers_of, events_of};
use quipu::{Db, Event, Grain, Keep, SeriesQuery, TestClock, TimeZone, Timestamp, View};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn a_web_log_is_counted_as_the_oracle_does() {
    check_set("apache_10k");
}

#[test]
fn a_day_of_edits_is_counted_as_the_oracle_does() {
    check_set("wikiticker");
}

#[test]
fn half_a_year_of_retail_is_counted_as_the_oracle_does() {
    check_set("online_retail_h1");
}

#[derive(Deserialize)]
struct Oracle {
    answers: Answers,
}

#[derive(Deserialize)]
struct Answers {
    trailing: Vec<Trailing>,
}

/// Counts as of a moment: of 60 minutes, 24 hours and 7 days.
#[derive(Deserialize)]
struct Trailing {
    #[serde(rename = "T")]
    moment: i64,
    dim: Option<String>,
    key: Option<String>,
    #[serde(rename = "60x1m")]
    minutes: Counts,
    #[serde(rename = "24x1h")]
    hours: Counts,
    #[serde(rename = "7x1d")]
    days: Counts,
}

#[derive(Deserialize)]
struct Counts {
    exact: u64,
    bucket_aligned: u64,
}

/// Two views a dimension: one with the grains of counters, one of which every second is kept.
fn open(root: &tempfile::TempDir, clock: &TestClock, zone: TimeZone) -> Db {
    let dims = [("all", None), ("user", Some("user")), ("product", Some("product"))];
    let mut options = options().clock(clock.clone()).time_zone(zone);
    for (name, dim) in dims {
        let by = |view: View| view.by(dim);
        options = options
            .view(by(View::new(name)).counter_grains())
            .view(by(View::new(format!("{name}_by_second"))).grain(Grain::Second, Keep::All));
    }
    options.open(root.path().join("db")).unwrap()
}

fn series(db: &Db, view: &str, key: Option<&str>) -> SeriesQuery {
    let key: Vec<&str> = key.into_iter().collect();
    db.query(view).unwrap().series(&key).unwrap()
}

fn record_upto(db: &Db, lines: &mut std::iter::Peekable<std::vec::IntoIter<Line<'_>>>, to: i64) {
    let mut batch = db.batch();
    while let Some(line) = lines.next_if(|line| line.ts <= to) {
        batch.push(&line.event()).unwrap();
        if batch.len() == 5_000 {
            db.record_batch(&mut batch).unwrap();
        }
    }
    db.record_batch(&mut batch).unwrap();
}

fn in_order(text: &str) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = text.lines().map(Line::parse).collect();
    lines.sort_by_key(|line| line.ts);
    lines
}

fn check_set(set: &str) {
    let text = events_of(set);
    let mut lines = in_order(&text).into_iter().peekable();
    let mut asked: BTreeMap<i64, Vec<Trailing>> = BTreeMap::new();
    for trailing in answers_of::<Oracle>(set).answers.trailing {
        asked.entry(trailing.moment).or_default().push(trailing);
    }
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::default();
    let db = open(&root, &clock, TimeZone::UTC);
    let (mut compared, mut exact, mut cut) = (0, 0, 0);
    for (moment, asked) in asked {
        clock.set(Timestamp::from_millis(moment));
        record_upto(&db, &mut lines, moment);
        for Trailing { dim, key, minutes, hours, days, .. } in asked {
            let view = dim.as_deref().unwrap_or("all");
            let counter = series(&db, view, key.as_deref());
            let bucketed = [counter.last_minutes(60), counter.last_hours(24), counter.last_days(7)];
            let lengths =
                [Duration::from_hours(1), Duration::from_hours(24), Duration::from_hours(168)];
            let by_second = series(&db, &format!("{view}_by_second"), key.as_deref());
            for ((range, length), want) in bucketed.iter().zip(lengths).zip([minutes, hours, days])
            {
                let what = format!("{set} {view} {key:?} at {moment}, {length:?}");
                assert_eq!(range.sum().unwrap().unwrap_or(0), want.bucket_aligned, "{what}");
                for asked in [&counter, &by_second] {
                    let Some(got) = asked.trailing(length).sum().unwrap() else {
                        assert_eq!(want.exact, 0, "{what}");
                        continue;
                    };
                    assert!(got.lower <= want.exact && want.exact <= got.upper, "{what}: {got:?}");
                    let off = (got.estimate - want.exact as f64).abs();
                    assert!(off <= (got.upper - got.lower) as f64, "{what}: {got:?}");
                    exact += u64::from(got.exact().is_some());
                    cut += u64::from(got.exact().is_none());
                }
                compared += 1;
            }
        }
    }
    // The sets have 3 lengths of 11 keys at 5 moments or more.
    assert!(compared >= 165, "{compared}");
    assert!(exact > compared, "{exact} of {} are exact, {cut} are not", 2 * compared);
}

#[test]
fn a_shop_in_its_time_zone_is_counted_as_a_scan_does() {
    let text = events_of("online_retail_h1");
    let lines = in_order(&text);
    let zone: TimeZone = "Europe/Paris".parse().unwrap();
    let times: BTreeMap<&str, Vec<i64>> = lines.iter().fold(BTreeMap::new(), |mut times, line| {
        let product = line.product.as_deref().unwrap();
        // Those whose names begin so are asked for together, too.
        if product.starts_with("8512") {
            times.entry(product).or_insert_with(Vec::new).push(line.ts * 1_000);
        }
        times
    });
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::from_millis(lines.last().unwrap().ts));
    let db = open(&root, &clock, zone);
    let mut batch = db.batch();
    let of =
        lines.iter().filter(|line| line.product.as_deref().is_some_and(|p| times.contains_key(p)));
    for line in of {
        batch.push(&line.event()).unwrap();
    }
    db.record_batch(&mut batch).unwrap();

    // 2011-03-27, when clocks were put forward, is in the last 56 days of none of them by then; so every
    // day is kept here.
    let days = View::new("days").by(["product"]).grain(Grain::Day, Keep::All);
    db.define(days.grain(Grain::Week, Keep::All).grain(Grain::Hour, Keep::All)).unwrap();
    db.backfill("days", |_| std::ops::ControlFlow::Continue(())).unwrap();
    let query = db.query("days").unwrap();
    let midnight = |text: &str| Timestamp::parse_rfc3339(text).unwrap().micros();
    let counted = |product: Option<&str>, from: i64, to: i64| -> u64 {
        let of = times.iter().filter(|(name, _)| product.is_none_or(|product| product == **name));
        of.map(|(_, times)| {
            let before = |moment: i64| times.partition_point(|time| *time < moment) as u64;
            before(to) - before(from)
        })
        .sum()
    };
    let all = query.series_starting_with(&["8512"]).unwrap();
    let mut asked: Vec<(Option<&str>, SeriesQuery)> = vec![(None, all)];
    asked.extend(times.keys().map(|product| (Some(*product), query.series(&[product]).unwrap())));
    for (product, series) in asked {
        let then = series.at(Timestamp::parse_rfc3339("2011-03-28T00:30:00+02:00").unwrap());
        let sum = |range: quipu::RangeQuery| range.sum().unwrap().unwrap();
        let [monday, sunday, saturday, seventh] = [
            "2011-03-28T00:00:00+02:00",
            "2011-03-27T00:00:00+01:00",
            "2011-03-26T00:00:00+01:00",
            "2011-03-22T00:00:00+01:00",
        ]
        .map(midnight);
        let tuesday = midnight("2011-03-29T00:00:00+02:00");
        assert_eq!(sum(then.yesterday()), counted(product, sunday, monday));
        assert_eq!(sum(then.days(2..3)), counted(product, saturday, sunday));
        assert_eq!(sum(then.last_days(7)), counted(product, seventh, tuesday));
        assert_eq!(then.yesterday().by(Grain::Hour).buckets().unwrap().unwrap().len(), 23);
        assert_eq!(sum(then.yesterday().by(Grain::Hour)), counted(product, sunday, monday));
        let week = midnight("2011-03-21T00:00:00+01:00");
        assert_eq!(sum(then.previous_week()), counted(product, week, monday));
        for days in [1, 3, 30] {
            let length = Duration::from_hours(24 * days);
            let got = then.trailing(length).sum().unwrap().unwrap();
            let end = midnight("2011-03-28T00:30:00+02:00") + 1;
            let truth = counted(product, end - length.as_micros() as i64, end);
            assert!(got.lower <= truth && truth <= got.upper, "{got:?}, not {truth}");
        }
    }
}

/// One event a minute: the two readings and the truth between them, as the clock goes on.
#[test]
fn the_two_readings_of_24_hours_differ_by_what_lies_between_their_begins() {
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::parse_rfc3339("2024-05-14T00:00:30Z").unwrap());
    let db = open(&root, &clock, TimeZone::UTC);
    let all = series(&db, "all", None);
    for minute in 0..3 * 24 * 60_u64 {
        db.record(&Event::new("tick")).unwrap();
        if minute % 37 == 0 && minute > 25 * 60 {
            let bucketed = all.last_hours(24).sum().unwrap().unwrap();
            assert_eq!(bucketed, 23 * 60 + minute % 60 + 1);
            let trailing = all.trailing(Duration::from_hours(24)).sum().unwrap().unwrap();
            assert!(trailing.lower <= 1_440 && 1_440 <= trailing.upper, "{trailing:?}");
            assert_eq!(trailing.lower, bucketed);
            assert!((trailing.estimate - 1_440.0).abs() <= 1.0, "{trailing:?}");
        }
        clock.advance(Duration::from_mins(1));
    }
}
