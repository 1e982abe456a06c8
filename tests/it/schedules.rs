//! Schedules: when they are open, and when they open and close next, whatever the clocks do.
//!
//! The answers come from a walk, minute by minute, over what chrono-tz says that the clocks show.

use chrono::{DateTime, NaiveDate, Offset, TimeZone as _, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;
use quipu::{
    Date, Dates, ErrorKind, Hours, Limits, Schedule, TimeOfDay, TimeZone, Timestamp, Weekday,
};

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 24 * 60 * MINUTE;

fn schedule(text: &str) -> Schedule {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

fn date(text: &str) -> Date {
    text.parse().unwrap()
}

fn micros(moment: Timestamp, more: i64) -> Timestamp {
    Timestamp::from_micros(moment.micros() + more)
}

/// The spans between two moments, as text.
fn spans(schedule: &Schedule, from: &str, to: &str) -> Vec<String> {
    let spans = schedule.spans(at(from)..at(to));
    let short = |moment: Timestamp| moment.to_string().replace(":00.000Z", "Z");
    spans.map(|span| format!("{}/{}", short(span.start), short(span.end))).collect()
}

#[test]
fn office_hours_open_and_close_on_weekdays() {
    let office = schedule("weekdays 09:00-17:30 in Europe/Berlin");
    assert_eq!(
        spans(&office, "2026-11-27T00:00:00Z", "2026-12-01T12:00:00Z"),
        [
            "2026-11-27T08:00Z/2026-11-27T16:30Z",
            "2026-11-30T08:00Z/2026-11-30T16:30Z",
            "2026-12-01T08:00Z/2026-12-01T12:00Z",
        ]
    );
    let opens = at("2026-11-30T09:00:00+01:00");
    assert_eq!(office.opens(at("2026-11-27T17:30:00+01:00")), Some(opens));
    assert!(office.is_open(opens) && !office.is_open(micros(opens, -1)));
    assert_eq!(office.opens(opens), Some(opens));
    let closes = at("2026-11-30T17:30:00+01:00");
    assert_eq!(office.closes(opens), Some(closes));
    assert!(!office.is_open(closes) && office.is_open(micros(closes, -1)));
    assert_eq!(office.closes(closes), Some(closes));
}

#[test]
fn hours_are_kept_to_the_second() {
    let open = schedule("09:00:30-09:01");
    let opens = open.opens(at("2026-01-01T09:00:29.999999Z")).unwrap();
    assert_eq!(opens, at("2026-01-01T09:00:30Z"));
    assert_eq!(open.closes(opens), Some(at("2026-01-01T09:01:00Z")));
}

#[test]
fn a_night_belongs_to_the_day_on_which_it_begins() {
    let night = schedule("fri 22:00-06:00");
    assert_eq!(
        spans(&night, "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"),
        ["2026-11-27T22:00Z/2026-11-28T06:00Z"]
    );
    assert!(!night.is_open(at("2026-11-27T03:00:00Z")));
    let dated = schedule("2026-11-27 22:00-06:00");
    assert_eq!(
        spans(&dated, "2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z"),
        ["2026-11-27T22:00Z/2026-11-28T06:00Z"]
    );
}

#[test]
fn an_end_of_midnight_is_the_end_of_the_day() {
    let saturday = schedule("sat 10:00-24:00");
    assert_eq!(saturday, schedule("sat 10:00-00:00"));
    assert_eq!(saturday.closes(at("2026-11-28T12:00:00Z")), Some(at("2026-11-29T00:00:00Z")));
    // And runs into what begins there.
    let both = schedule("sat 10:00-24:00, sun 00:00-02:00");
    assert_eq!(both.closes(at("2026-11-28T12:00:00Z")), Some(at("2026-11-29T02:00:00Z")));
}

#[test]
fn nothing_is_open_on_an_excepted_date() {
    let nights = schedule("22:00-06:00; except 2026-12-24..2026-12-25 2026-12-27");
    assert_eq!(
        spans(&nights, "2026-12-23T12:00:00Z", "2026-12-29T12:00:00Z"),
        [
            "2026-12-23T22:00Z/2026-12-24T00:00Z",
            "2026-12-26T22:00Z/2026-12-27T00:00Z",
            "2026-12-28T22:00Z/2026-12-29T06:00Z",
        ]
    );
    let days = schedule("always; except 2026-12-25");
    assert_eq!(days.closes(at("1970-01-01T00:00:00Z")), Some(at("2026-12-25T00:00:00Z")));
    assert_eq!(days.opens(at("2026-12-25T00:00:00Z")), Some(at("2026-12-26T00:00:00Z")));
    assert_eq!(days.closes(at("2026-12-26T00:00:00Z")), None);
}

#[test]
fn dates_are_inclusive_and_come_to_an_end() {
    let summer = schedule("2026-07-01..2026-08-31 mon 09:00-10:00");
    assert_eq!(summer.opens(Timestamp::MIN), Some(at("2026-07-06T09:00:00Z")));
    assert_eq!(summer.opens(at("2026-08-31T09:30:00Z")), Some(at("2026-08-31T09:30:00Z")));
    assert_eq!(summer.opens(at("2026-08-31T10:00:00Z")), None);
    assert_eq!(summer.opens(Timestamp::MAX), None);
    assert_eq!(summer.spans(Timestamp::MIN..Timestamp::MAX).count(), 9);
}

#[test]
fn a_span_that_begins_in_a_gap_begins_behind_it() {
    // 02:00 to 03:00 is left out in New York.
    let zone = " in America/New_York";
    let day = ["2026-03-08T00:00:00-05:00", "2026-03-09T00:00:00-04:00"];
    let of = |text: &str| spans(&schedule(&format!("{text}{zone}")), day[0], day[1]);
    assert_eq!(of("02:30-05:00"), ["2026-03-08T07:00Z/2026-03-08T09:00Z"]);
    assert_eq!(of("01:00-02:30"), ["2026-03-08T06:00Z/2026-03-08T07:00Z"]);
    assert_eq!(of("02:15-02:45"), [""; 0]);
    assert_eq!(of("00:00-24:00"), ["2026-03-08T05:00Z/2026-03-09T04:00Z"]); // 23 hours
}

#[test]
fn a_span_is_open_both_times_that_an_hour_comes() {
    // 01:00 to 02:00 comes twice in New York.
    let zone = " in America/New_York";
    let day = ["2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00"];
    let of = |text: &str| spans(&schedule(&format!("{text}{zone}")), day[0], day[1]);
    assert_eq!(of("01:30-05:00"), ["2026-11-01T05:30Z/2026-11-01T10:00Z"]);
    assert_eq!(of("00:30-01:30"), ["2026-11-01T04:30Z/2026-11-01T06:30Z"]);
    assert_eq!(of("01:15-01:45"), ["2026-11-01T05:15Z/2026-11-01T06:45Z"]);
    assert_eq!(of("00:00-24:00"), ["2026-11-01T04:00Z/2026-11-02T05:00Z"]); // 25 hours
    assert_eq!(of("00:30-01:30 01:30-03:00"), ["2026-11-01T04:30Z/2026-11-01T08:00Z"]);
}

#[test]
fn half_an_hour_is_left_out_and_comes_twice_at_lord_howe() {
    let open = schedule("sun 01:45-02:15 in Australia/Lord_Howe");
    // Back from 02:00 to 01:30, from +11:00 to +10:30.
    assert_eq!(
        spans(&open, "2026-04-04T00:00:00Z", "2026-04-06T00:00:00Z"),
        ["2026-04-04T14:45Z/2026-04-04T15:45Z"]
    );
    // Forward from 02:00 to 02:30.
    assert_eq!(
        spans(&open, "2026-10-03T00:00:00Z", "2026-10-05T00:00:00Z"),
        ["2026-10-03T15:15Z/2026-10-03T15:30Z"]
    );
}

#[test]
fn a_date_that_was_left_out_has_nothing_but_the_end_of_its_night() {
    // Friday, 2011-12-30 is not there; Saturday begins at 10:00 UTC.
    let days = schedule("thu-sat 09:00-17:00 in Pacific/Apia");
    assert_eq!(
        spans(&days, "2011-12-29T00:00:00Z", "2012-01-01T00:00:00Z"),
        ["2011-12-29T19:00Z/2011-12-30T03:00Z", "2011-12-30T19:00Z/2011-12-31T03:00Z"]
    );
    let night = schedule("fri 22:00-06:00 in Pacific/Apia");
    assert_eq!(
        spans(&night, "2011-12-29T00:00:00Z", "2012-01-02T00:00:00Z"),
        ["2011-12-30T10:00Z/2011-12-30T16:00Z"]
    );
    let date = schedule("2011-12-30 00:00-24:00 in Pacific/Apia");
    assert_eq!(date.opens(Timestamp::MIN), None);
    let always = schedule("always in Pacific/Apia; except 2011-12-30");
    assert_eq!(always.closes(Timestamp::MIN), None);
}

#[test]
fn searches_reach_to_both_ends_of_time() {
    let always = Schedule::always();
    for moment in [Timestamp::MIN, Timestamp::MAX] {
        assert!(always.is_open(moment));
        assert_eq!((always.opens(moment), always.closes(moment)), (Some(moment), None));
    }
    for moment in [i64::MIN, Timestamp::MIN.micros() - 1].map(Timestamp::from_micros) {
        assert!(!always.is_open(moment));
        assert_eq!(always.opens(moment), Some(Timestamp::MIN));
        assert_eq!(schedule("2026-01-01 09:00-10:00").closes(moment), Some(Timestamp::MIN));
    }
    for moment in [Timestamp::MAX.micros() + 1, i64::MAX].map(Timestamp::from_micros) {
        assert!(!always.is_open(moment));
        assert_eq!((always.opens(moment), always.closes(moment)), (None, None));
    }
    assert_eq!(
        always.spans(Timestamp::from_micros(i64::MIN)..Timestamp::from_micros(i64::MAX)).next(),
        Some(Timestamp::MIN..micros(Timestamp::MAX, 1))
    );

    // The last second of all, in zones behind and ahead of it.
    let eve = schedule("9999-12-31 23:59:59-24:00");
    let opens = eve.opens(Timestamp::MIN);
    assert_eq!(opens, Some(at("9999-12-31T23:59:59Z")));
    assert_eq!(eve.closes(opens.unwrap()), None);
    assert_eq!(
        eve.clone().in_zone("America/New_York".parse().unwrap()).opens(opens.unwrap()),
        None
    );
    let ahead = eve.in_zone("Pacific/Kiritimati".parse().unwrap());
    assert_eq!(ahead.closes(at("9999-12-31T09:59:59Z")), Some(at("9999-12-31T10:00:00Z")));
    let first = schedule("0001-01-01 00:00-00:01 in Asia/Tokyo");
    assert_eq!(first.opens(Timestamp::MIN), None);
}

#[test]
fn far_edges_are_found_without_a_walk_over_what_lies_between() {
    // Each of these would be millions of days.
    let last = schedule("always in Europe/Berlin; except 9999-12-31");
    assert_eq!(last.closes(Timestamp::MIN), Some(at("9999-12-30T23:00:00Z")));
    let closed = schedule("always; except 0001-01-02..9999-12-30");
    let begin = at("0001-01-02T00:00:00Z");
    assert_eq!(closed.opens(begin), Some(at("9999-12-31T00:00:00Z")));
    // One minute of the week is missing, on Sunday.
    let shifts = schedule("mon-sat 06:00-22:00 21:00-06:00, sun 06:01-22:00 22:00-06:00");
    let sunday = at("0001-01-07T06:00:00Z");
    assert_eq!(shifts.closes(at("0001-01-01T06:00:00Z")), Some(sunday));
    assert_eq!(shifts.opens(sunday), Some(at("0001-01-07T06:01:00Z")));
    let covered = schedule("mon-fri 06:00-22:00 22:00-06:00, sat-sun 06:00-22:00 21:00-06:00");
    assert_eq!(covered.closes(Timestamp::MIN), None);
    // Hours that take turns, date by date.
    let turns: Vec<String> = (1..=28).map(|day| format!("2026-02-{day:02} 00:00-24:00")).collect();
    let turns = schedule(&turns.join(", "));
    assert_eq!(turns.closes(at("2026-02-01T12:00:00Z")), Some(at("2026-03-01T00:00:00Z")));
}

#[test]
fn what_other_limiters_allow_by_the_hour_and_the_weekday() {
    let hours = schedule("09:00-17:00");
    assert!(
        hours.is_open(at("2025-01-15T12:00:00Z")) && !hours.is_open(at("2025-01-15T20:00:00Z"))
    );
    let wednesday = at("2025-01-15T12:00:00Z");
    let saturday = at("2025-01-18T12:00:00Z");
    let weekdays = Schedule::new([Hours::all_day().weekdays()]).unwrap();
    let weekends = Schedule::new([Hours::all_day().weekends()]).unwrap();
    assert!(weekdays.is_open(wednesday) && !weekdays.is_open(saturday));
    assert!(!weekends.is_open(wednesday) && weekends.is_open(saturday));
    assert!(Hours::between("09:00", "25:00").is_err());
    assert!(Hours::between("09:00", "09:00").is_err());
    // An end before the begin is refused elsewhere. Here it is a night.
    assert!(Hours::between("17:00", "09:00").is_ok());
}

#[test]
fn the_calls_and_the_text_make_the_same() {
    let zone: TimeZone = "Europe/Berlin".parse().unwrap();
    let built = Schedule::new([
        Hours::between("10:00", "24:00").unwrap().on([Weekday::Saturday]),
        Hours::between("13:00", "17:30").unwrap().weekdays(),
        Hours::between("09:00", "13:00").unwrap().weekdays(),
    ]);
    let built = built.unwrap().except(date("2026-12-25")).unwrap().in_zone(zone);
    let texts = [
        "mon-fri 09:00-17:30, sat 10:00-24:00 in Europe/Berlin; except 2026-12-25",
        "Saturday 10:00-24:00; WEEKDAYS 9:00-13:00 13:00-17:30 except 2026-12-25 in Europe/Berlin",
        "mon-tue 09:00-17:30 wed-fri,sat 10:00-24:00 In Europe/Berlin;Except 2026-12-25,",
    ];
    for text in texts {
        assert_eq!(schedule(text), built, "{text}");
    }
    assert_eq!(built.to_string(), texts[0]);
    assert_eq!(format!("{built:?}"), texts[0]);
    assert_eq!(serde_json::to_string(&built).unwrap(), format!("{:?}", texts[0]));
    assert_eq!(schedule("fri-mon 08:00-09:00").to_string(), "mon fri-sun 08:00-09:00");
    assert_eq!(schedule("22:00-06:00").to_string(), "daily 22:00-06:00");
    assert_eq!(schedule("mon-sun 00:00-12:00 12:00-24:00"), Schedule::always());
    assert_eq!(
        schedule("always except 2026-12-31, 2026-12-24 2026-12-25..2026-12-26").to_string(),
        "always; except 2026-12-24..2026-12-26 2026-12-31"
    );
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_would_be_right() {
    let cases = [
        ("", "give some, like mon-fri 09:00-17:30"),
        (" ; except 2026-12-25", "give some"),
        ("mon, wed 09:00-17:00", "`mon wed 09:00-17:00`"),
        ("mon-fri 09:00-12:00, 13:00-17:00", "`mon-fri 09:00-12:00 13:00-17:00`"),
        ("weekends", "`sat-sun 00:00-24:00`"),
        ("moon 09:00-12:00", "\"moon\" is no part of a schedule; there are days"),
        ("mon 9-17", "\"9-17\" is no date; they are like 2026-12-25, spans like 09:00-17:30"),
        ("mon 09:00", "like 09:00-17:30"),
        ("mon 09:00-9:5", "\"9:5\" is no time of day"),
        ("09:00-09:00", "a whole day is 00:00-24:00"),
        ("24:00-06:00", "write 00:00-06:00 on the day after"),
        ("09:00-24:30", "24:00 where a day ends"),
        ("2026-12-32 09:00-10:00", "that month has 31 days"),
        ("2026-12-31..2026-12-24 09:00-10:00", "write 2026-12-24..2026-12-31"),
        ("2026-12-25 sat 09:00-10:00", "none of the dates is such a day of the week"),
        ("2026-12-25 09:00-10:00; except 2026-12-20..2026-12-30", "every date of it is excepted"),
        ("always; except 0001-01-01..9999-12-31", "every date of it is excepted"),
        ("always; except 0001-01-01..9999-12-31 in Asia/Tokio", "names are like"),
        ("always in", "no time zone behind `in`"),
        ("always in europe/berlin", "there is Europe/Berlin"),
        ("always in UTC in UTC", "a second time zone"),
        ("always in UTC sat 09:00-10:00", "behind all hours"),
        ("always; except", "no dates behind `except`"),
        ("always; except mon", "\"mon\" is no date"),
        ("always; except 2026-01-01 except 2026-01-02", "behind one"),
    ];
    for (text, right) in cases {
        let error = text.parse::<Schedule>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(right), "{text:?}: {error}");
        assert!(error.to_string().starts_with("the schedule \""), "{error}");
        let json = serde_json::to_string(text).unwrap();
        assert!(serde_json::from_str::<Schedule>(&json).is_err(), "{text:?}");
    }
    assert!(Schedule::new([]).is_err());
    assert!(Schedule::new([Hours::all_day().on([])]).is_err());
    let backward = date("2026-12-31")..=date("2026-12-24");
    assert!(Schedule::always().except(backward).is_err());
}

#[test]
fn a_schedule_has_so_many_parts() {
    let dates = |n: usize| {
        let date = |i: usize| format!("{:04}-06-01", 2_000 + i);
        (0..n).map(date).collect::<Vec<_>>().join(" ")
    };
    let most = schedule(&format!("always; except {}", dates(Limits::SCHEDULE_PARTS - 1)));
    assert_eq!(most.spans(Timestamp::MIN..Timestamp::MAX).count(), Limits::SCHEDULE_PARTS);
    assert!(most.except(date("1999-01-01")).is_err());
    for text in [
        format!("always; except {}", dates(Limits::SCHEDULE_PARTS)),
        format!("{} 00:00-24:00", dates(Limits::SCHEDULE_PARTS)),
        "mon 09:00-10:00,".repeat(Limits::SCHEDULE_PARTS + 1),
        "mon ".repeat(1_000_000),
    ] {
        let error = text.parse::<Schedule>().unwrap_err().to_string();
        assert!(error.contains("1000") && error.len() < 300, "{error}");
    }
    assert!(Schedule::new(std::iter::repeat(Hours::all_day())).is_err());
}

// Drawn by chance.

/// What a schedule is made of, in plain numbers.
#[derive(Clone, Debug)]
struct Plan {
    hours: Vec<PlanHours>,
    except: Vec<(i64, i64)>,
}

/// Spans in minutes, days of the week, a range of dates counted from the middle of the walk.
#[derive(Clone, Debug)]
struct PlanHours {
    spans: Vec<(i64, i64)>,
    days: u8,
    dates: Option<(i64, i64)>,
}

fn plans() -> impl Strategy<Value = Plan> {
    let minute = prop_oneof![
        3 => (0_i64..48).prop_map(|half| half * 30),
        1 => 0_i64..1_440,
        1 => 0_i64..185,
    ];
    let span = prop_oneof![
        8 => (minute.clone(), minute).prop_map(|(a, b)| (a, if a == b { b + 1 } else { b })),
        1 => Just((0, 1_440)),
    ];
    let range = || (-6_i64..6, 0_i64..4).prop_map(|(first, n)| (first, first + n));
    let days = prop_oneof![2 => Just(0x7f_u8), 3 => 1_u8..0x80];
    let hours = (prop::collection::vec(span, 1..4), days, prop::option::weighted(0.3, range()))
        .prop_map(|(spans, days, dates)| PlanHours { spans, days, dates });
    let except = prop::collection::vec(range(), 0..3);
    (prop::collection::vec(hours, 1..4), except).prop_map(|(hours, except)| Plan { hours, except })
}

fn day_number(date: NaiveDate) -> i64 {
    date.signed_duration_since(NaiveDate::from_ymd_opt(1970, 1, 1).unwrap()).num_days()
}

fn date_of(number: i64) -> Date {
    let date = DateTime::<Utc>::from_timestamp(number * 86_400, 0).unwrap().date_naive();
    date.to_string().parse().unwrap()
}

impl Plan {
    /// The hours begin on this date (1970-01-01 was a Thursday).
    fn begins(&self, hours: &PlanHours, date: i64, middle: i64) -> bool {
        let within = |(first, last): (i64, i64)| (first..=last).contains(&(date - middle));
        hours.days >> (date + 3).rem_euclid(7) & 1 == 1
            && hours.dates.is_none_or(within)
            && !self.except.iter().copied().any(within)
    }

    fn build(&self, middle: i64) -> quipu::Result<Schedule> {
        let dates = |(first, last): (i64, i64)| {
            Dates::from(date_of(middle + first)..=date_of(middle + last))
        };
        let time = |m: i64| TimeOfDay::new((m / 60) as u8, (m % 60) as u8, 0).unwrap();
        let hours = self.hours.iter().map(|plan| {
            let mut spans = plan.spans.iter().map(|(a, b)| (time(*a), time(*b)));
            let (a, b) = spans.next().unwrap();
            let hours = Hours::between(a, b).unwrap();
            let hours = spans.fold(hours, |hours, (a, b)| hours.and(a, b).unwrap());
            let named = (0..7).filter(|day| plan.days >> day & 1 == 1);
            let hours = hours.on(named.map(|day| Weekday::ALL[day]));
            plan.dates.into_iter().fold(hours, |hours, range| hours.dates(dates(range)))
        });
        let schedule = Schedule::new(hours)?;
        self.except.iter().try_fold(schedule, |schedule, range| schedule.except(dates(*range)))
    }

    /// Whether each of the hours has a date.
    fn is_possible(&self, middle: i64) -> bool {
        let near = middle - 20..middle + 20;
        self.hours.iter().all(|hours| near.clone().any(|d| self.begins(hours, d, middle)))
    }
}

/// Zones and dates on which they do what is easily got wrong.
const CHANGES: [(&str, &str); 19] = [
    ("UTC", "2026-06-01"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Europe/Berlin", "2026-10-25"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    // Left out a day.
    ("Pacific/Apia", "2011-12-30"),
    ("Pacific/Kwajalein", "1993-08-21"),
    // Had 23 hours twice; had a day twice, by clocks with odd seconds.
    ("Pacific/Kwajalein", "1969-09-30"),
    ("America/Juneau", "1867-10-18"),
    // Left out a midnight.
    ("America/Sao_Paulo", "2018-11-04"),
    ("Asia/Beirut", "2022-03-27"),
    // Put the clocks back over midnight.
    ("America/St_Johns", "2007-11-04"),
    ("America/Sao_Paulo", "2018-02-18"),
    ("America/Havana", "2026-11-01"),
    ("America/Toronto", "1919-03-30"),
    ("Antarctica/Troll", "2026-03-29"),
    ("Africa/Casablanca", "2026-02-15"),
    ("Asia/Pyongyang", "2018-05-04"),
];

/// What the clocks show, minute by minute, around a date.
struct Walk {
    start: i64,
    /// In microseconds as if it were UTC.
    shown: Vec<i64>,
    /// The least date that they show from this minute on.
    days: Vec<i64>,
    middle: i64,
}

/// The minutes looked at are these, of a walk that is longer: a span begins and ends in it.
const LOOKED_AT: std::ops::Range<usize> = 3 * 1_440..8 * 1_440;

impl Walk {
    fn around(tz: Tz, date: &str) -> Self {
        let middle = day_number(date.parse().unwrap());
        let shown = |t: i64| {
            let utc = DateTime::<Utc>::from_timestamp_micros(t).unwrap().naive_utc();
            let offset = tz.offset_from_utc_datetime(&utc).fix().local_minus_utc();
            t + i64::from(offset) * 1_000_000
        };
        let start = (middle - 5) * DAY;
        let start = start - shown(start).rem_euclid(MINUTE);
        let shown: Vec<i64> =
            (0..11 * 1_440).map(|minute| shown(start + minute * MINUTE)).collect();
        let mut days: Vec<i64> = shown.iter().map(|shown| shown.div_euclid(DAY)).collect();
        for i in (1..days.len()).rev() {
            days[i - 1] = days[i - 1].min(days[i]);
        }
        Walk { start, shown, days, middle }
    }

    fn open(&self, plan: &Plan) -> Vec<bool> {
        let mut open = vec![false; self.shown.len()];
        for hours in &plan.hours {
            for date in self.middle - 9..self.middle + 9 {
                if !plan.begins(hours, date, self.middle) {
                    continue;
                }
                for (a, b) in &hours.spans {
                    let b = if b <= a { b + 1_440 } else { *b };
                    let (from, to) = (date * DAY + a * MINUTE, date * DAY + b * MINUTE);
                    let first = self.shown.iter().position(|shown| *shown >= from);
                    let last = self.shown.iter().rposition(|shown| *shown < to);
                    if let (Some(first), Some(last)) = (first, last)
                        && first <= last
                    {
                        open[first..=last].fill(true);
                    }
                }
            }
        }
        for (open, day) in open.iter_mut().zip(&self.days) {
            let excepted =
                |(first, last): &(i64, i64)| (*first..=*last).contains(&(day - self.middle));
            *open = *open && !plan.except.iter().any(excepted);
        }
        open
    }

    fn time(&self, minute: usize) -> Timestamp {
        Timestamp::from_micros(self.start + minute as i64 * MINUTE)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_schedule_says_what_a_walk_by_the_clock_says(
        (name, date) in prop::sample::select(&CHANGES[..]),
        plan in plans(),
        asked in prop::collection::vec((LOOKED_AT, 0..MINUTE), 20),
    ) {
        let walk = Walk::around(name.parse().unwrap(), date);
        let built = plan.build(walk.middle);
        prop_assert_eq!(built.is_ok(), plan.is_possible(walk.middle));
        let Ok(built) = built else { return Ok(()) };
        let schedule = built.in_zone(name.parse().unwrap());
        let open = walk.open(&plan);
        for minute in LOOKED_AT {
            let moment = walk.time(minute);
            for moment in [moment, micros(moment, MINUTE - 1)] {
                prop_assert_eq!(schedule.is_open(moment), open[minute], "{} {}", schedule, moment);
            }
        }
        for (minute, more) in asked {
            let from = micros(walk.time(minute), more);
            for (answer, want) in [(schedule.opens(from), true), (schedule.closes(from), false)] {
                let next = (minute..LOOKED_AT.end).find(|minute| open[*minute] == want);
                match next {
                    Some(next) => {
                        let next = walk.time(next).max(from);
                        prop_assert_eq!(answer, Some(next), "{} {} {}", schedule, from, want);
                    }
                    None => prop_assert!(answer.is_none_or(|t| t >= walk.time(LOOKED_AT.end))),
                }
            }
        }
        // The spans are the runs.
        let (from, to) = (walk.time(LOOKED_AT.start), walk.time(LOOKED_AT.end));
        let mut runs: Vec<std::ops::Range<Timestamp>> = Vec::new();
        for minute in LOOKED_AT.filter(|minute| open[*minute]) {
            let span = walk.time(minute)..walk.time(minute + 1);
            match runs.last_mut() {
                Some(last) if last.end == span.start => last.end = span.end,
                _ => runs.push(span),
            }
        }
        prop_assert_eq!(schedule.spans(from..to).collect::<Vec<_>>(), runs, "{}", schedule);
    }

    #[test]
    fn answers_are_tight_at_any_time(
        (name, _) in prop::sample::select(&CHANGES[..]),
        plan in plans(),
        middle in prop_oneof![-100_000_i64..100_000, -719_100_i64..2_932_800],
        from in prop_oneof![
            Timestamp::MIN.micros()..Timestamp::MAX.micros(),
            -4_000_000_000_000_000_i64..5_000_000_000_000_000,
        ],
        part in 0.0..1.0_f64,
    ) {
        let Ok(built) = plan.build(middle) else { return Ok(()) };
        let schedule = built.in_zone(name.parse().unwrap());
        let from = Timestamp::from_micros(from);
        for (open, answer) in [(true, schedule.opens(from)), (false, schedule.closes(from))] {
            let end = answer.unwrap_or(micros(Timestamp::MAX, 1));
            prop_assert!(end >= from);
            prop_assert!(answer.is_none_or(|moment| schedule.is_open(moment) == open));
            let length = (end.micros() - from.micros()) as f64;
            for before in [from, micros(from, (length * part) as i64), micros(end, -1)] {
                if (from..end).contains(&before) {
                    prop_assert_eq!(schedule.is_open(before), !open, "{} {}", schedule, before);
                }
            }
        }
    }

    #[test]
    fn a_schedule_is_read_as_it_is_written(
        (name, _) in prop::sample::select(&CHANGES[..]),
        plan in plans(),
        has_zone in any::<bool>(),
    ) {
        let Ok(schedule) = plan.build(20_000) else { return Ok(()) };
        let schedule = if has_zone { schedule.in_zone(name.parse().unwrap()) } else { schedule };
        let text = schedule.to_string();
        prop_assert_eq!(text.parse::<Schedule>().map_err(|e| e.to_string()), Ok(schedule.clone()));
        let json = serde_json::to_string(&schedule).unwrap();
        prop_assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule.clone());
        // The order of the parts does not matter.
        let mut other = plan.clone();
        other.hours.reverse();
        other.except.reverse();
        other.hours.iter_mut().for_each(|hours| hours.spans.reverse());
        let other = other.build(20_000).unwrap();
        prop_assert_eq!(other.to_string(), schedule.or_in_zone(TimeZone::UTC).to_string()
            .replace(&format!(" in {}", if has_zone { name } else { "UTC" }), ""));
    }

    #[test]
    fn no_text_makes_it_panic(
        words in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "mon", "fri-mon", "weekdays", "weekends", "daily", "always", "in", "except",
                    "Europe/Berlin", "UTC", "2026-12-25", "2026-12-24..2027-01-03", "0001-01-01",
                    "9999-12-31", "9999-12-31..0001-01-01", "09:00-17:30", "22:00-6:00",
                    "00:00-24:00", "23:59:59-24:00", "24:00-00:00", "-", "..", "mon-", ":", "10:",
                    "é", "\u{0}", "",
                ]),
                prop::sample::select(vec![" ", ", ", "; ", "", "\t\n"]),
            ),
            0..12,
        ),
        text in ".{0,40}",
        moment in any::<i64>(),
    ) {
        let joined: String = words.iter().flat_map(|(word, gap)| [*word, *gap]).collect();
        for text in [joined.clone(), text.clone(), format!("{joined}{text}")] {
            let Ok(schedule) = text.parse::<Schedule>() else { continue };
            prop_assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule.clone());
            for moment in [moment, i64::MIN, i64::MAX].map(Timestamp::from_micros) {
                let _ = (schedule.is_open(moment), schedule.opens(moment), schedule.closes(moment));
            }
        }
        let _ = (text.parse::<Date>(), text.parse::<Dates>(), text.parse::<TimeOfDay>());
    }
}
