//! Counts of real data as of a dozen moments, in seven time zones: what Quipu answers against what SQLite
//! counts over the times of the events.
//!
//! SQL knows no time zones: each event has the offset of the zone's clocks at its moment, by chrono-tz,
//! and everything else, what day it was and which days are the last seven, is SQL.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends there")]

use chrono::{Offset, TimeZone as _};
use flate2::read::GzDecoder;
use quipu::{Event, Grain, Keep, Options, RangeQuery, SeriesQuery, TestClock, Timestamp, View};
use rusqlite::{Connection, named_params};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

const ZONES: [&str; 7] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    // At one minute past midnight, half an hour off.
    "America/St_Johns",
    "Asia/Kathmandu",
    // By half an hour.
    "Australia/Lord_Howe",
    "Pacific/Apia",
];

/// Among them those about a change of the clocks: on 2011-03-13, 2011-03-27, 2011-04-02.
const MOMENTS: [&str; 12] = [
    "2010-12-06T00:00:30Z",
    "2010-12-31T23:59:59Z",
    "2011-01-01T05:30:00Z",
    "2011-01-31T12:00:00Z",
    "2011-03-13T06:59:59Z",
    "2011-03-13T15:00:00Z",
    "2011-03-27T00:59:59Z",
    "2011-03-27T13:00:00Z",
    "2011-03-28T10:15:00Z",
    "2011-04-02T14:45:00Z",
    "2011-04-03T15:20:00Z",
    "2011-05-31T22:30:00Z",
];

/// Those that are asked about by themselves, beside all of them together.
const COUNTRIES: [&str; 2] = ["France", "EIRE"];

struct Sale {
    seconds: i64,
    country: String,
}

/// Every eighth sale of half a year, in the order of time.
fn sales() -> Vec<Sale> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/online_retail_h1.ndjson.gz");
    let mut text = String::new();
    GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let sale = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let millis = line["ts"].as_i64().unwrap();
        assert_eq!(millis % 1_000, 0);
        let country = line["category"].as_str().unwrap().to_owned();
        Sale { seconds: millis / 1_000, country }
    };
    let mut sales: Vec<Sale> = text.lines().step_by(8).map(sale).collect();
    sales.sort_by_key(|sale| sale.seconds);
    assert!(sales.len() > 30_000);
    sales
}

fn offset(zone: chrono_tz::Tz, seconds: i64) -> i32 {
    let moment = chrono::DateTime::from_timestamp(seconds, 0).unwrap().naive_utc();
    zone.offset_from_utc_datetime(&moment).fix().local_minus_utc()
}

/// The sales, and what the clocks of the zone showed.
fn table(sales: &[Sale], zone: chrono_tz::Tz) -> Connection {
    let mut sql = Connection::open_in_memory().unwrap();
    sql.execute_batch("CREATE TABLE raw (ts INTEGER, off INTEGER, country TEXT)").unwrap();
    let writing = sql.transaction().unwrap();
    let mut insert = writing.prepare("INSERT INTO raw VALUES (?, ?, ?)").unwrap();
    for sale in sales {
        insert.execute((sale.seconds, offset(zone, sale.seconds), &sale.country)).unwrap();
    }
    drop(insert);
    writing.commit().unwrap();
    sql.execute_batch(
        "CREATE TABLE sale AS SELECT ts, country,
            ts / 60 AS minute,
            (ts + off % 3600) / 3600 AS hour,
            date(ts + off, 'unixepoch') AS day,
            date(ts + off, 'unixepoch', 'weekday 0', '-6 days') AS monday,
            strftime('%Y-%m', ts + off, 'unixepoch') AS month,
            strftime('%Y', ts + off, 'unixepoch') AS year
        FROM raw",
    )
    .unwrap();
    sql
}

/// All, and those of the countries, up to now and where this holds.
fn count(sql: &Connection, condition: &str, now: i64, off: i32) -> [u64; 3] {
    let text = format!(
        "WITH present AS (SELECT
            :now AS now,
            :now / 60 AS minute,
            (:now + :off % 3600) / 3600 AS hour,
            date(:now + :off, 'unixepoch') AS day,
            date(:now + :off, 'unixepoch', 'weekday 0', '-6 days') AS monday,
            strftime('%Y', :now + :off, 'unixepoch') AS year)
        SELECT COUNT(*),
            COUNT(*) FILTER (WHERE country = '{}'),
            COUNT(*) FILTER (WHERE country = '{}')
        FROM sale, present WHERE ts <= now AND {condition}",
        COUNTRIES[0], COUNTRIES[1],
    );
    let mut statement = sql.prepare_cached(&text).unwrap();
    let counts = named_params! { ":now": now, ":off": off };
    let row = |row: &rusqlite::Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?]);
    let counts: [i64; 3] = statement.query_row(counts, row).unwrap();
    counts.map(|count| u64::try_from(count).unwrap())
}

/// A range of whole buckets, and the same in SQL.
type Bucketed = (fn(&SeriesQuery) -> RangeQuery, &'static str);

const BUCKETED: [Bucketed; 17] = [
    (|series| series.last_minutes(60), "sale.minute > present.minute - 60"),
    (|series| series.last_hours(1), "sale.hour = present.hour"),
    (|series| series.last_hours(24), "sale.hour > present.hour - 24"),
    (|series| series.last_hours(72), "sale.hour > present.hour - 72"),
    (|series| series.today(), "sale.day = present.day"),
    (|series| series.yesterday(), "sale.day = date(present.day, '-1 day')"),
    (|series| series.last_days(7), "sale.day > date(present.day, '-7 days')"),
    (|series| series.last_days(56), "sale.day > date(present.day, '-56 days')"),
    (
        |series| series.days(1..8),
        "sale.day BETWEEN date(present.day, '-7 days') AND date(present.day, '-1 day')",
    ),
    (|series| series.this_week(), "sale.monday = present.monday"),
    (|series| series.previous_week(), "sale.monday = date(present.monday, '-7 days')"),
    (|series| series.last_weeks(4), "sale.monday > date(present.monday, '-28 days')"),
    (|series| series.this_month(), "sale.month = strftime('%Y-%m', present.day)"),
    (
        |series| series.previous_month(),
        "sale.month = strftime('%Y-%m', present.day, 'start of month', '-1 month')",
    ),
    (
        |series| series.last_months(3),
        "sale.month >= strftime('%Y-%m', present.day, 'start of month', '-2 months')",
    ),
    (|series| series.this_year(), "sale.year = present.year"),
    (|series| series.last_years(2), "sale.year >= present.year - 1"),
];

const TRAILING: [(Duration, &str); 5] = [
    (Duration::from_mins(90), "ts > now - 5400"),
    (Duration::from_hours(24), "ts > now - 86400"),
    (Duration::from_hours(7 * 24), "ts > now - 7 * 86400"),
    (Duration::from_hours(30 * 24), "ts > now - 30 * 86400"),
    // Not a multiple of any bucket.
    (Duration::from_secs(1_234_567), "ts > now - 1234567"),
];

#[test]
fn what_sqlite_counts_is_what_quipu_answers() {
    let sales = sales();
    let (mut compared, mut exact, mut not_empty) = (0_u32, 0_u32, 0_u32);
    for name in ZONES {
        let zone: chrono_tz::Tz = name.parse().unwrap();
        let sql = table(&sales, zone);
        let root = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        let options = Options::new().clock(clock.clone()).time_zone(name.parse().unwrap());
        let seconds = |view: &str| View::new(view).grain(Grain::Second, Keep::All);
        let db = options
            .view(View::new("all").counter_grains())
            .view(View::new("by_country").by(["country"]).counter_grains())
            .view(seconds("all_by_second"))
            .view(seconds("by_country_by_second").by(["country"]))
            .open(root.path().join("db"))
            .unwrap();
        let mut coming = sales.iter().peekable();
        for moment in MOMENTS {
            let moment = Timestamp::parse_rfc3339(moment).unwrap();
            let now = moment.micros() / 1_000_000;
            // The end of that second, so that what trails begins with one.
            clock.set(moment.saturating_add(Duration::from_micros(999_999)));
            let mut batch = db.batch();
            while let Some(sale) = coming.next_if(|sale| sale.seconds <= now) {
                let event = Event::new("sale").dim("country", &sale.country);
                batch.push(&event.at(Timestamp::from_secs(sale.seconds))).unwrap();
            }
            db.record_batch(&mut batch).unwrap();
            let off = offset(zone, now);
            let series = |view: &str, country: Option<&str>| {
                let view = if country.is_some() {
                    format!("by_country{view}")
                } else {
                    format!("all{view}")
                };
                let key: Vec<&str> = country.into_iter().collect();
                db.query(&view).unwrap().series(&key).unwrap()
            };
            let asked = || std::iter::once(None).chain(COUNTRIES.map(Some));
            for (range, condition) in BUCKETED {
                let counts = count(&sql, condition, now, off);
                for (country, expected) in asked().zip(counts) {
                    let got = range(&series("", country)).sum().unwrap().unwrap_or(0);
                    assert_eq!(got, expected, "{name} at {moment}, {country:?}: {condition}");
                    compared += 1;
                    not_empty += u32::from(expected > 0);
                }
            }
            for (length, condition) in TRAILING {
                let counts = count(&sql, condition, now, off);
                for (country, expected) in asked().zip(counts) {
                    let what = || format!("{name} at {moment}, {country:?}: {condition}");
                    let by_second = series("_by_second", country).trailing(length).sum().unwrap();
                    assert_eq!(
                        by_second.map_or(Some(0), |n| n.exact()),
                        Some(expected),
                        "{}",
                        what()
                    );
                    let Some(got) = series("", country).trailing(length).sum().unwrap() else {
                        continue;
                    };
                    assert!(got.lower <= expected && expected <= got.upper, "{}: {got:?}", what());
                    compared += 2;
                    exact += u32::from(got.exact().is_some());
                    not_empty += u32::from(expected > 0);
                }
            }
        }
    }
    println!("{compared} answers, {not_empty} of them of some events; {exact} trailing ones exact");
    assert!(compared > 5_000 && not_empty * 2 > compared, "{compared} {not_empty}");
}
