//! Answers at moments when clocks are changed, a day is left out or a year has 53 weeks, in several zones.
//!
//! What is right comes from a list of all events and chrono's local dates: the day of a moment is the
//! least local date that the clocks show from it on, and weeks, months and years are those of that day.

use crate::directory::options;
use chrono::{DateTime, Datelike, NaiveDate, TimeZone as _, Utc};
use chrono_tz::Tz;
use quipu::{Event, Grain, Keep, RangeQuery, SeriesQuery, TestClock, Timestamp, View};
use std::time::Duration;

const MINUTE: i64 = 60;

fn at(text: &str) -> i64 {
    Timestamp::parse_rfc3339(text).unwrap().micros() / 1_000_000
}

/// The day of a moment.
fn day(zone: Tz, seconds: i64) -> NaiveDate {
    let local = |seconds: i64| {
        let moment: DateTime<Utc> = DateTime::from_timestamp(seconds, 0).unwrap();
        zone.from_utc_datetime(&moment.naive_utc()).date_naive()
    };
    // Clocks go back by three hours at the most, at whole minutes.
    (0..=180).map(|minute| local(seconds + minute * MINUTE)).min().unwrap()
}

/// The days that there are before one, the next first: not those that a zone left out.
fn days_before(zone: Tz, now: i64) -> Vec<NaiveDate> {
    let mut days = Vec::new();
    for hours in 0..24 * 60 {
        let day = day(zone, now - hours * 3_600);
        if days.last() != Some(&day) {
            days.push(day);
        }
    }
    days
}

fn week(day: NaiveDate) -> (i32, u32) {
    (day.iso_week().year(), day.iso_week().week())
}

/// One event every so many seconds, and the answers at these moments.
fn check(name: &str, from: &str, to: &str, every: i64, moments: &[&str]) {
    let zone: Tz = name.parse().unwrap();
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::default();
    let view = View::new("all").counter_grains();
    let exact = View::new("by_second").grain(Grain::Second, Keep::All);
    let db = options()
        .clock(clock.clone())
        .time_zone(name.parse().unwrap())
        .view(view)
        .view(exact)
        .open(root.path().join("db"))
        .unwrap();
    let times: Vec<i64> = (at(from)..at(to)).step_by(every as usize).collect();
    let days: Vec<NaiveDate> = times.iter().map(|time| day(zone, *time)).collect();
    let mut coming = times.iter().peekable();
    for moment in moments {
        let now = at(moment);
        // The end of that second, so that what trails begins with one.
        clock.set(Timestamp::from_micros(now * 1_000_000 + 999_999));
        let mut batch = db.batch();
        while let Some(time) = coming.next_if(|time| **time <= now) {
            batch.push(&Event::new("e").at(Timestamp::from_secs(*time))).unwrap();
        }
        db.record_batch(&mut batch).unwrap();

        let before = days_before(zone, now);
        let today = before[0];
        let count = |is_in: &dyn Fn(NaiveDate) -> bool| {
            let past = times.iter().zip(&days).filter(|(time, _)| **time <= now);
            past.filter(|(_, day)| is_in(**day)).count() as u64
        };
        let series = db.query("all").unwrap().series(&[]).unwrap();
        let is = |what: &str, range: RangeQuery, expected: u64| {
            assert_eq!(range.sum().unwrap(), Some(expected), "{name} at {moment}: {what}");
        };
        is("today", series.today(), count(&|day| day == today));
        is("yesterday", series.yesterday(), count(&|day| day == before[1]));
        for n in [1, 2, 3, 9] {
            let last = &before[..n];
            is("last days", series.last_days(n as u32), count(&|day| last.contains(&day)));
        }
        let mut weeks: Vec<(i32, u32)> = before.iter().map(|day| week(*day)).collect();
        weeks.dedup();
        is("this week", series.this_week(), count(&|day| week(day) == weeks[0]));
        is("the week before", series.previous_week(), count(&|day| week(day) == weeks[1]));
        for n in [1, 2, 3, 4, 5] {
            let last = &weeks[..n];
            is("last weeks", series.last_weeks(n as u32), count(&|day| last.contains(&week(day))));
        }
        let month = |day: NaiveDate| (day.year(), day.month());
        let months: Vec<_> = before.iter().map(|day| month(*day)).collect();
        is("this month", series.this_month(), count(&|day| month(day) == months[0]));
        let previous = *months.iter().find(|month| **month != months[0]).unwrap();
        is("the month before", series.previous_month(), count(&|day| month(day) == previous));
        is("this year", series.this_year(), count(&|day| day.year() == today.year()));
        is("two years", series.last_years(2), count(&|day| day.year() >= today.year() - 1));
        let three: Vec<u64> = before[..3].iter().map(|bar| count(&|day| day == *bar)).collect();
        check_days(&series, &three);
        check_trailing(&series, &times, now);
        check_trailing(&db.query("by_second").unwrap().series(&[]).unwrap(), &times, now);
    }
}

/// The bars of days, and those of their hours, which add up to them.
fn check_days(series: &SeriesQuery, expected: &[u64]) {
    let bars = series.last_days(3).buckets().unwrap().unwrap();
    let hours = series.last_days(3).by(Grain::Hour).kept().buckets().unwrap().unwrap();
    assert_eq!(bars.len(), 3);
    for (bar, count) in bars.iter().rev().zip(expected) {
        assert_eq!(bar.count, *count, "{}", bar.start);
        let inside = |hour: &&quipu::Bucket| bar.start <= hour.start && hour.end <= bar.end;
        let hours: Vec<_> = hours.iter().filter(inside).collect();
        // Of three days some have more than 72 hours, which are those kept.
        if hours.first().is_some_and(|hour| hour.start == bar.start) {
            assert_eq!(
                hours.iter().map(|hour| hour.count).sum::<u64>(),
                bar.count,
                "{}",
                bar.start
            );
        }
    }
}

/// Exactly so long, whatever the clocks did.
fn check_trailing(series: &SeriesQuery, times: &[i64], now: i64) {
    for seconds in [90 * 60, 23 * 3_600, 24 * 3_600, 25 * 3_600, 7 * 86_400 + 1] {
        let inside = |time: &&i64| now - seconds < **time && **time <= now;
        let expected = times.iter().filter(inside).count() as u64;
        let length = Duration::from_secs(seconds as u64);
        let got = series.trailing(length).sum().unwrap().unwrap();
        assert!(got.lower <= expected && expected <= got.upper, "{seconds}: {expected}, {got:?}");
        if series.view().name() == "by_second" {
            assert_eq!(got.exact(), Some(expected), "{seconds}");
        }
    }
}

/// Every seven minutes, and so never at the same minute of two hours in a row.
const OFTEN: i64 = 7 * MINUTE;

#[test]
fn clocks_that_are_put_forward_and_back() {
    check(
        "America/New_York",
        "2026-02-20T00:00:00Z",
        "2026-03-10T00:00:00Z",
        OFTEN,
        &[
            "2026-03-08T00:30:00-05:00",
            "2026-03-08T01:59:59-05:00",
            "2026-03-08T03:00:00-04:00",
            "2026-03-08T23:59:59-04:00",
            "2026-03-09T00:00:00-04:00",
            "2026-03-09T02:30:00-04:00",
        ],
    );
    check(
        "America/New_York",
        "2026-10-20T00:00:00Z",
        "2026-11-03T00:00:00Z",
        OFTEN,
        &[
            "2026-11-01T00:59:59-04:00",
            "2026-11-01T01:30:00-04:00",
            "2026-11-01T01:30:00-05:00",
            "2026-11-01T23:59:59-05:00",
            "2026-11-02T00:00:00-05:00",
        ],
    );
    check(
        "Europe/Berlin",
        "2026-03-10T00:00:00Z",
        "2026-03-31T00:00:00Z",
        OFTEN,
        &[
            "2026-03-29T01:59:59+01:00",
            "2026-03-29T03:00:00+02:00",
            "2026-03-29T23:59:59+02:00",
            "2026-03-30T00:00:00+02:00",
        ],
    );
    check(
        "Europe/Berlin",
        "2025-10-10T00:00:00Z",
        "2025-10-28T00:00:00Z",
        OFTEN,
        &[
            "2025-10-26T02:30:00+02:00",
            "2025-10-26T02:30:00+01:00",
            "2025-10-26T23:59:59+01:00",
            "2025-10-27T00:00:00+01:00",
        ],
    );
}

#[test]
fn clocks_that_are_put_by_half_an_hour() {
    check(
        "Australia/Lord_Howe",
        "2026-03-20T00:00:00Z",
        "2026-04-07T00:00:00Z",
        OFTEN,
        &[
            "2026-04-05T01:29:59+11:00",
            "2026-04-05T01:45:00+11:00",
            "2026-04-05T01:45:00+10:30",
            "2026-04-05T23:59:59+10:30",
            "2026-04-06T00:00:00+10:30",
        ],
    );
    check(
        "Australia/Lord_Howe",
        "2025-09-20T00:00:00Z",
        "2025-10-07T00:00:00Z",
        OFTEN,
        &[
            "2025-10-05T01:59:59+10:30",
            "2025-10-05T02:30:00+11:00",
            "2025-10-05T23:59:59+11:00",
            "2025-10-06T00:00:00+11:00",
        ],
    );
}

#[test]
fn clocks_that_are_put_back_into_the_day_before() {
    check(
        "America/St_Johns",
        "2006-10-10T00:00:00Z",
        "2006-10-31T00:00:00Z",
        OFTEN,
        &[
            "2006-10-29T00:00:30-02:30",
            // It is Saturday again.
            "2006-10-28T23:30:00-03:30",
            "2006-10-29T00:00:00-03:30",
            "2006-10-29T12:00:00-03:30",
            "2006-10-30T00:00:00-03:30",
        ],
    );
    check(
        "America/St_Johns",
        "2026-02-20T00:00:00Z",
        "2026-03-10T00:00:00Z",
        OFTEN,
        &["2026-03-08T01:59:59-03:30", "2026-03-08T03:00:00-02:30", "2026-03-09T00:00:00-02:30"],
    );
}

#[test]
fn a_day_that_was_left_out_and_one_of_a_quarter_past() {
    check(
        "Pacific/Apia",
        "2011-12-10T00:00:00Z",
        "2012-01-03T00:00:00Z",
        OFTEN,
        &[
            "2011-12-29T23:59:59-10:00",
            "2011-12-31T00:00:00+14:00",
            "2011-12-31T23:59:59+14:00",
            "2012-01-01T00:00:00+14:00",
            "2012-01-02T09:00:00+14:00",
        ],
    );
    check(
        "Asia/Kathmandu",
        "2025-12-10T00:00:00Z",
        "2026-01-02T00:00:00Z",
        OFTEN,
        &[
            "2025-12-31T18:14:59Z",
            "2025-12-31T18:15:00Z",
            "2026-01-01T05:44:59+05:45",
            "2026-01-01T05:45:00+05:45",
        ],
    );
}

/// 2020 and 2026 have a week 53, which ends on the third of January; 2024 has none.
#[test]
fn weeks_through_the_turn_of_a_year() {
    let zones = [
        "UTC",
        "America/New_York",
        "Europe/Berlin",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Asia/Kathmandu",
        "America/St_Johns",
    ];
    for zone in zones {
        for year in [2020, 2024, 2026] {
            let next = year + 1;
            let from = format!("{year}-11-15T00:00:00Z");
            let to = format!("{next}-01-20T00:00:00Z");
            let moments = [
                format!("{year}-12-27T23:59:59Z"),
                format!("{year}-12-28T12:00:00Z"),
                format!("{year}-12-31T23:59:59Z"),
                format!("{next}-01-01T00:00:00Z"),
                format!("{next}-01-03T10:15:00Z"),
                format!("{next}-01-03T23:59:59Z"),
                format!("{next}-01-04T00:00:00Z"),
                format!("{next}-01-05T00:00:00Z"),
                format!("{next}-01-11T06:00:00Z"),
            ];
            let moments: Vec<&str> = moments.iter().map(String::as_str).collect();
            check(zone, &from, &to, 37 * MINUTE, &moments);
        }
    }
}
