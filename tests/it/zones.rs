//! Time zones: every moment is in one bucket of each grain, whatever a zone does to its clocks.
//!
//! The answers come from chrono's local dates, asked minute by minute.

use chrono::{DateTime, Datelike, Days, NaiveDate, TimeZone as _, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;
use quipu::{Grain, TimeZone, Timestamp};
use std::collections::BTreeSet;
use std::time::Duration;

/// Zones that do what is easily got wrong.
const NASTY: [&str; 21] = [
    "UTC",
    "Europe/Paris",
    "America/New_York",
    // Half an hour off; put its clocks back at one minute past midnight.
    "America/St_Johns",
    "Asia/Kolkata",
    // 45 minutes off, half an hour before.
    "Asia/Kathmandu",
    "Pacific/Chatham",
    // Puts its clocks forward by half an hour.
    "Australia/Lord_Howe",
    // Skipped a day, in 2011 and in 1993; had one twice.
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "Pacific/Kiritimati",
    "Pacific/Guam",
    "Africa/Casablanca",
    // Put its clocks forward at midnight.
    "America/Sao_Paulo",
    "Asia/Tehran",
    "Asia/Beirut",
    // Half an hour forward at half past eleven in the evening.
    "Asia/Pyongyang",
    "America/Caracas",
    // An hour forward at half past eleven in the evening, in 1919.
    "America/Toronto",
    // 44 minutes and 30 seconds off until 1972.
    "Africa/Monrovia",
    "Europe/Amsterdam",
];

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn grains() -> impl Iterator<Item = Grain> {
    let seconds = [90, 21_600, 100_000].map(|n| millis(n * 1_000));
    Grain::ALL.into_iter().chain(seconds).chain([1, 70, 100, 1_500].map(millis))
}

fn millis(n: u64) -> Grain {
    Grain::every(Duration::from_millis(n)).unwrap()
}

fn zone(name: &str) -> (TimeZone, Tz) {
    (name.parse().unwrap(), name.parse().unwrap())
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

fn local(tz: Tz, micros: i64) -> DateTime<Tz> {
    tz.from_utc_datetime(&DateTime::<Utc>::from_timestamp_micros(micros).unwrap().naive_utc())
}

fn offset(tz: Tz, micros: i64) -> i32 {
    use chrono::Offset;
    local(tz, micros).offset().fix().local_minus_utc()
}

fn day_number(date: NaiveDate) -> i64 {
    date.signed_duration_since(NaiveDate::from_ymd_opt(1970, 1, 1).unwrap()).num_days()
}

/// The least local date that the clocks show from this moment on.
fn date(tz: Tz, micros: i64) -> NaiveDate {
    let later = (0..26 * 60).map(|minute| local(tz, micros + minute * MINUTE).date_naive());
    later.min().unwrap()
}

/// Moments of the years 1900 to 2100, half of them within two days of a change of the clocks.
fn moments() -> impl Strategy<Value = (&'static str, i64)> {
    let any = -2_208_988_800_000_000_i64..4_102_444_800_000_000;
    (prop::sample::select(&NASTY[..]), any, prop::option::of(-2 * DAY..2 * DAY)).prop_map(
        |(name, moment, near)| {
            let tz: Tz = name.parse().unwrap();
            let changes =
                |day: &i64| offset(tz, moment + day * DAY) != offset(tz, moment + (day + 1) * DAY);
            let change = near.and_then(|_| (0..4_000).find(changes));
            (name, moment + change.unwrap_or(0) * DAY + near.unwrap_or(0))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_moment_is_in_one_bucket_of_each_grain((name, micros) in moments()) {
        let (zone, _) = zone(name);
        let moment = Timestamp::from_micros(micros);
        for grain in grains() {
            let number = zone.bucket(grain, moment);
            let span = zone.span(grain, number);
            prop_assert!(span.contains(&moment), "{name} {grain} {moment}: {span:?}");
            prop_assert_eq!(zone.bucket(grain, span.start), number);
            let last = Timestamp::from_micros(span.end.micros() - 1);
            prop_assert_eq!(zone.bucket(grain, last), number);
            prop_assert!(zone.bucket(grain, span.end) > number);
            let before = Timestamp::from_micros(span.start.micros() - 1);
            prop_assert!(zone.bucket(grain, before) < number);
            // The bucket before ends where this one begins.
            prop_assert_eq!(zone.span(grain, number - 1).end, span.start);
        }
    }

    #[test]
    fn numbers_never_decrease((name, micros) in moments(), later in prop_oneof![0..3 * DAY, 0..900 * DAY]) {
        let (zone, _) = zone(name);
        for grain in grains() {
            let before = zone.bucket(grain, Timestamp::from_micros(micros));
            prop_assert!(before <= zone.bucket(grain, Timestamp::from_micros(micros + later)));
        }
    }

    #[test]
    fn finer_buckets_lie_in_coarser_ones((name, micros) in moments()) {
        let (zone, _) = zone(name);
        let moment = Timestamp::from_micros(micros);
        let span = |grain| zone.span(grain, zone.bucket(grain, moment));
        let pairs = [
            (millis(1), millis(20)),
            (millis(20), millis(500)),
            (millis(500), Grain::Second),
            (Grain::Second, Grain::Minute),
            (Grain::Minute, Grain::Hour),
            (Grain::Hour, Grain::Day),
            (Grain::Day, Grain::Week),
            (Grain::Day, Grain::Month),
            (Grain::Month, Grain::Year),
        ];
        for (fine, coarse) in pairs {
            let (inner, outer) = (span(fine), span(coarse));
            prop_assert!(
                outer.start <= inner.start && inner.end <= outer.end,
                "{name} {moment}: {fine} {inner:?} in {coarse} {outer:?}"
            );
        }
        // A day is the sum of its hours.
        let day = span(Grain::Day);
        let first = zone.bucket(Grain::Hour, day.start);
        let hours: Vec<_> = (first..first + 60)
            .map(|number| zone.span(Grain::Hour, number))
            .take_while(|hour| hour.start < day.end)
            .collect();
        prop_assert_eq!(hours[0].start, day.start);
        prop_assert!(hours.windows(2).all(|two| two[0].end == two[1].start));
        prop_assert_eq!(hours.last().unwrap().end, day.end);
    }

    #[test]
    fn calendar_buckets_are_those_of_the_local_date((name, micros) in moments()) {
        let (zone, tz) = zone(name);
        let date = date(tz, micros);
        let moment = Timestamp::from_micros(micros);
        prop_assert_eq!(zone.bucket(Grain::Day, moment), day_number(date), "{} {}", name, moment);
        let monday = date - Days::new(u64::from(date.weekday().num_days_from_monday()));
        let first_monday = NaiveDate::from_ymd_opt(1969, 12, 29).unwrap();
        let week = monday.signed_duration_since(first_monday).num_days() / 7;
        prop_assert_eq!(zone.bucket(Grain::Week, moment), week);
        let month = i64::from(date.year()) * 12 + i64::from(date.month0());
        prop_assert_eq!(zone.bucket(Grain::Month, moment), month);
        prop_assert_eq!(zone.bucket(Grain::Year, moment), i64::from(date.year()));
        prop_assert_eq!(zone.offset_seconds(moment), offset(tz, micros));
    }
}

/// Day, first moment and length in hours of a date.
#[track_caller]
fn check_day(name: &str, date: (i32, u32, u32), start: &str, minutes: i64) {
    let (zone, _) = zone(name);
    let number = day_number(NaiveDate::from_ymd_opt(date.0, date.1, date.2).unwrap());
    let span = zone.span(Grain::Day, number);
    assert_eq!(span.start, at(start), "{name} {date:?}");
    assert_eq!((span.end.micros() - span.start.micros()) / MINUTE, minutes, "{name} {date:?}");
}

#[test]
fn days_are_as_long_as_the_clocks_make_them() {
    check_day("Europe/Paris", (2024, 3, 31), "2024-03-31T00:00:00+01:00", 23 * 60);
    check_day("Europe/Paris", (2024, 10, 27), "2024-10-27T00:00:00+02:00", 25 * 60);
    check_day("Europe/Paris", (2024, 2, 29), "2024-02-29T00:00:00+01:00", 24 * 60);
    check_day("America/New_York", (2024, 3, 10), "2024-03-10T00:00:00-05:00", 23 * 60);
    check_day("America/New_York", (2024, 11, 3), "2024-11-03T00:00:00-04:00", 25 * 60);
    check_day("Australia/Lord_Howe", (2024, 4, 7), "2024-04-07T00:00:00+11:00", 24 * 60 + 30);
    check_day("Australia/Lord_Howe", (2024, 10, 6), "2024-10-06T00:00:00+10:30", 23 * 60 + 30);
    check_day("Asia/Kolkata", (2024, 1, 1), "2023-12-31T18:30:00Z", 24 * 60);
    check_day("Asia/Kathmandu", (2024, 1, 1), "2023-12-31T18:15:00Z", 24 * 60);
    // There is no midnight: the day begins at one.
    check_day("America/Sao_Paulo", (2018, 11, 4), "2018-11-04T01:00:00-02:00", 23 * 60);
    check_day("America/Sao_Paulo", (2018, 2, 17), "2018-02-17T00:00:00-02:00", 25 * 60);
    // At one minute past midnight the clocks went back into Saturday, for 59 minutes.
    check_day("America/St_Johns", (2006, 10, 28), "2006-10-28T00:00:00-02:30", 25 * 60);
    check_day("America/St_Johns", (2006, 10, 29), "2006-10-29T00:00:00-03:30", 24 * 60);
    // Half an hour forward at half past eleven.
    check_day("Asia/Pyongyang", (2018, 5, 4), "2018-05-04T00:00:00+08:30", 23 * 60 + 30);
    // The date line.
    check_day("Pacific/Apia", (2011, 12, 29), "2011-12-29T00:00:00-10:00", 24 * 60);
    check_day("Pacific/Apia", (2011, 12, 30), "2011-12-31T00:00:00+14:00", 0);
    check_day("Pacific/Apia", (2011, 12, 31), "2011-12-31T00:00:00+14:00", 24 * 60);
    check_day("Pacific/Kwajalein", (1993, 8, 21), "1993-08-22T00:00:00+12:00", 0);
}

#[test]
fn a_day_that_a_zone_skipped_holds_nothing() {
    let (apia, _) = zone("Pacific/Apia");
    let skipped = day_number(NaiveDate::from_ymd_opt(2011, 12, 30).unwrap());
    let around = at("2011-12-28T00:00:00Z").micros()..at("2012-01-02T00:00:00Z").micros();
    let moments = around.step_by(MINUTE as usize).map(Timestamp::from_micros);
    let days: BTreeSet<i64> = moments.map(|moment| apia.bucket(Grain::Day, moment)).collect();
    assert!(!days.contains(&skipped));
    assert!(days.contains(&(skipped - 1)) && days.contains(&(skipped + 1)));
    // The week goes on: it has six days.
    let week = apia.span(Grain::Week, apia.bucket(Grain::Week, at("2011-12-31T12:00:00Z")));
    assert_eq!((week.end.micros() - week.start.micros()) / DAY, 6);
}

#[test]
fn a_year_has_53_weeks_where_iso_says_so() {
    let weeks = |year: i32| {
        let (utc, _) = zone("UTC");
        let number = |date: NaiveDate| {
            let noon = date.and_hms_opt(12, 0, 0).unwrap().and_utc();
            utc.bucket(Grain::Week, Timestamp::from_secs(noon.timestamp()))
        };
        // The 4th of January is in week 1.
        let first = number(NaiveDate::from_ymd_opt(year, 1, 4).unwrap());
        number(NaiveDate::from_ymd_opt(year + 1, 1, 4).unwrap()) - first
    };
    assert_eq!([2019, 2020, 2021, 2025, 2026, 2027].map(weeks), [52, 53, 52, 52, 53, 52]);
}

#[test]
fn hours_begin_with_the_clock_of_the_zone() {
    let hour = |name: &str, moment: &str| {
        let (zone, _) = zone(name);
        let span = zone.span(Grain::Hour, zone.bucket(Grain::Hour, at(moment)));
        (span.start, (span.end.micros() - span.start.micros()) / MINUTE)
    };
    let noon = "2024-01-01T12:00:00Z";
    assert_eq!(hour("Europe/Paris", noon), (at(noon), 60));
    assert_eq!(hour("Asia/Kolkata", noon), (at("2024-01-01T11:30:00Z"), 60));
    assert_eq!(hour("Asia/Kathmandu", noon), (at("2024-01-01T11:15:00Z"), 60));
    // One to half past two by the clock: it was put forward by half an hour at two.
    let lord_howe = hour("Australia/Lord_Howe", "2024-10-06T01:10:00+10:30");
    assert_eq!(lord_howe, (at("2024-10-06T01:00:00+10:30"), 90));
    // Half past one to two comes twice; the second time it is an hour of its own.
    let lord_howe = hour("Australia/Lord_Howe", "2024-04-07T01:40:00+10:30");
    assert_eq!(lord_howe, (at("2024-04-07T01:30:00+10:30"), 30));
    // The hour is over with the day.
    let pyongyang = hour("Asia/Pyongyang", "2018-05-04T23:10:00+08:30");
    assert_eq!(pyongyang, (at("2018-05-04T22:00:00+08:30"), 90));
    assert_eq!(hour("Asia/Pyongyang", "2018-05-05T00:10:00+09:00").1, 60);
}

#[test]
fn no_moment_and_no_number_panics() {
    let ends = [i64::MIN, i64::MIN + 1, i64::MIN / 2, -1, 0, 1, i64::MAX / 2, i64::MAX];
    for name in NASTY {
        let (zone, _) = zone(name);
        for grain in grains() {
            for end in ends {
                let number = zone.bucket(grain, Timestamp::from_micros(end));
                assert!(zone.start(grain, number) <= Timestamp::from_micros(end.max(0)));
                let _ = zone.span(grain, end);
            }
        }
    }
}

#[test]
fn a_zone_is_known_by_its_name_only() {
    let refused = |text: &str| text.parse::<TimeZone>().unwrap_err().to_string();
    assert!(refused("europe/paris").contains("there is Europe/Paris"));
    assert!(refused("CET+1").contains("Europe/Paris"));
    assert!(refused(&"x".repeat(10_000)).len() < 300);
    assert!("".parse::<TimeZone>().is_err());
    let json = serde_json::to_string(&zone("Asia/Kolkata").0).unwrap();
    assert_eq!(json, "\"Asia/Kolkata\"");
    assert_eq!(serde_json::from_str::<TimeZone>(&json).unwrap(), zone("Asia/Kolkata").0);
    assert_eq!(TimeZone::default(), TimeZone::UTC);
}
