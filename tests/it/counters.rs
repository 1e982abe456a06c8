//! Counters and ranges, told one by one: what tiny-counter answers wrongly, what is refused and in which
//! words, and what is ahead of now.

use crate::directory::options;
use quipu::{
    Component, Counter, Db, ErrorKind, Event, Grain, Keep, ReadOnlyDb, Seen, SeriesQuery,
    TestClock, TimeZone, Timestamp, View,
};
use std::time::Duration;

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

fn hours(n: u64) -> Duration {
    Duration::from_hours(n)
}

fn days(n: u64) -> Duration {
    Duration::from_hours(24 * n)
}

struct App {
    _root: tempfile::TempDir,
    clock: TestClock,
    db: Db,
}

impl App {
    fn new(now: &str) -> Self {
        App::in_zone(now, "UTC", [View::counters()])
    }

    fn in_zone(now: &str, zone: &str, views: impl IntoIterator<Item = View>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let clock = TestClock::at(at(now));
        let options = options().clock(clock.clone()).time_zone(zone.parse().unwrap());
        let options = views.into_iter().fold(options, quipu::Options::view);
        let db = options.open(root.path().join("db")).unwrap();
        App { _root: root, clock, db }
    }

    fn counter(&self, name: &str) -> Counter {
        self.db.counter(name).unwrap()
    }

    fn series(&self, view: &str, key: &[&str]) -> SeriesQuery {
        self.db.query(view).unwrap().series(key).unwrap()
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: quipu::Result<T>, kind: ErrorKind, words: &[&str]) {
    let error = answer.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?}: {error}");
    }
}

// What tiny-counter 0.1.0 answers wrongly.

#[test]
fn an_event_of_a_quarter_to_nine_is_in_the_hour_of_eight() {
    let app = App::new("2024-05-14T10:30:00Z");
    let launches = app.counter("app_launch");
    launches.record_at(at("2024-05-14T08:45:00Z")).unwrap();
    let counts: Vec<u64> =
        launches.last_hours(4).buckets().unwrap().unwrap().iter().map(|b| b.count).collect();
    assert_eq!(counts, [0, 1, 0, 0]);
    assert_eq!(launches.range(Grain::Hour, 2..3).sum().unwrap(), Some(1));
}

#[test]
fn four_seconds_are_four_seconds_also_across_a_minute() {
    let app = App::new("2024-05-14T10:30:02Z");
    let saves = app.counter("save");
    saves.record_at(at("2024-05-14T10:29:58Z")).unwrap();
    let four = Duration::from_secs(4);
    let seen = saves.last_seen().unwrap().unwrap();
    assert_eq!((seen.age, seen.half_width), (four, Duration::ZERO));
    assert!(saves.seen_within(Duration::from_mins(1)).unwrap(), "a minute has not passed");
    assert!(saves.seen_within(four + Duration::from_micros(1)).unwrap());
    assert!(!saves.seen_within(four).unwrap(), "so long ago is not within");
}

#[test]
fn one_event_is_first_and_last_seen_at_one_moment() {
    let app = App::new("2024-05-14T10:30:00Z");
    let launches = app.counter("app_launch");
    launches.record().unwrap();
    for passed in [1, 29, 30, 36, 24 * 8, 24 * 60, 24 * 500] {
        app.clock.set(at("2024-05-14T10:30:00Z").saturating_add(hours(passed)));
        let seen = [launches.first_seen(), launches.last_seen()].map(|seen| seen.unwrap().unwrap());
        let time = at("2024-05-14T10:30:00Z");
        let want = Seen { time, half_width: Duration::ZERO, age: hours(passed) };
        assert_eq!(seen, [want.clone(), want]);
    }
}

#[test]
fn a_year_is_not_answered_with_eight_weeks() {
    let app = App::new("2024-05-14T10:30:00Z");
    let launches = app.counter("app_launch");
    for ago in [0, 10, 55, 56, 100, 300] {
        launches.record_ago(days(ago)).unwrap();
    }
    launches.last_days(56).sum().unwrap();
    let year = launches.last_days(365);
    let words = ["\"counters\"", "56 days", "365th day"];
    refused(year.sum(), ErrorKind::NotKept, &words);
    refused(year.buckets(), ErrorKind::NotKept, &words);
    refused(year.average(), ErrorKind::NotKept, &words);
    refused(year.percentile(50.0), ErrorKind::NotKept, &words);
    refused(year.first_active(), ErrorKind::NotKept, &words);
    refused(year.trend(), ErrorKind::NotKept, &words);
    refused(launches.trailing(days(365 * 5)).sum(), ErrorKind::NotKept, &["56 days", "2019-05"]);
    // Also on the first day, and of a key that nobody has heard of.
    refused(app.counter("new").last_days(57).sum(), ErrorKind::NotKept, &["57th day"]);

    let kept = year.kept().total().unwrap().unwrap();
    assert_eq!((kept.count, kept.is_partial()), (3, true));
    assert_eq!(kept.known_from, at("2024-03-20T00:00:00Z"));
    assert_eq!(kept.start, at("2023-05-16T00:00:00Z"));
    assert_eq!(year.kept().buckets().unwrap().unwrap().len(), 56);
    // Coarser buckets reach so far.
    assert_eq!(launches.last_months(12).sum().unwrap(), Some(6));
    // Where nothing of it is kept there is nothing to give.
    refused(launches.days(60..70).kept().sum(), ErrorKind::NotKept, &["70th day", "ends later"]);
}

#[test]
fn durations_are_what_they_say() {
    let seconds = View::new("seconds").by(["event"]).rate_limit_grains();
    let app = App::in_zone("2024-05-14T10:30:00Z", "UTC", [View::counters(), seconds]);
    let calls = app.counter("call");
    for seconds in [10, 29, 30, 31, 100] {
        calls.record_ago(Duration::from_secs(seconds)).unwrap();
    }
    let trailing = |length| app.series("seconds", &["call"]).trailing(length).sum();
    let exactly = |length| trailing(length).unwrap().unwrap().exact();
    // 30 s ago is not less than 30 s ago; to the second, its own second is uncertain.
    let half_minute = trailing(Duration::from_secs(30)).unwrap().unwrap();
    assert_eq!((half_minute.lower, half_minute.upper), (2, 3));
    assert_eq!(exactly(Duration::from_millis(30_500)), None, "half of the second of 31 s ago");
    assert_eq!(exactly(Duration::from_mins(1)), Some(4), "not 30 minutes");
    assert_eq!(calls.last_seen().unwrap().unwrap().age, Duration::from_secs(10));

    let reports = app.counter("report");
    for hours_ago in [1, 35, 37] {
        reports.record_ago(hours(hours_ago)).unwrap();
    }
    let day_and_a_half = reports.trailing(hours(36)).sum().unwrap().unwrap();
    assert_eq!(day_and_a_half.exact(), Some(2), "neither one day nor two");
    assert_eq!(day_and_a_half.end.micros() - day_and_a_half.start.micros(), 36 * 3_600_000_000);
}

#[test]
fn ratios_with_itself_and_crosswise_come_to_an_end() {
    let app = App::new("2024-05-14T10:30:00Z");
    let names: Vec<String> = (0..40).map(|n| format!("e{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        for _ in 0..=n % 4 {
            app.counter(name).record().unwrap();
        }
    }
    let counters: Vec<Counter> = names.iter().map(|name| app.counter(name)).collect();
    assert_eq!(counters[3].last_days(7).ratio(&counters[3]).unwrap(), Some(1.0));
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let counters = &counters;
            scope.spawn(move || {
                for round in 0..2_000_usize {
                    let (a, b) = (&counters[round % 40], &counters[(round * 7 + 1) % 40]);
                    let (a, b) = if thread % 2 == 0 { (a, b) } else { (b, a) };
                    let own = a.today().sum().unwrap().unwrap() as f64;
                    let other = b.today().sum().unwrap().unwrap() as f64;
                    assert_eq!(a.today().ratio(b).unwrap(), Some(own / other));
                    assert_eq!(a.today().minus(b).unwrap(), Some((own - other) as i128));
                }
            });
        }
    });
}

#[test]
fn weeks_go_on_through_a_week_53() {
    let app = App::new("2020-12-21T12:00:00Z");
    let launches = app.counter("app_launch");
    let mut recorded = Vec::new();
    // W52 and W53 of 2020, W01 and on of 2021.
    for week in 0..60_usize {
        for _ in 0..=week % 3 {
            launches.record().unwrap();
        }
        recorded.push(week as u64 % 3 + 1);
        let kept = recorded.len().min(52);
        let weeks = launches.last_weeks(kept as u32).buckets().unwrap().unwrap();
        let counts: Vec<u64> = weeks.iter().map(|bucket| bucket.count).collect();
        assert_eq!(counts, recorded[recorded.len() - kept..]);
        assert!(
            weeks.iter().all(|week| week.end.micros() - week.start.micros() == 604_800_000_000)
        );
        app.clock.advance(days(7));
    }
}

#[test]
fn a_clock_put_back_makes_no_negative_age_and_loses_nothing() {
    let app = App::new("2024-05-14T10:30:00Z");
    let launches = app.counter("app_launch");
    launches.record_ago(days(3)).unwrap();
    launches.record().unwrap();
    app.clock.set(at("2024-05-12T10:30:00Z"));
    let [first, last] = [launches.first_seen(), launches.last_seen()].map(|s| s.unwrap().unwrap());
    assert_eq!((first.age, last.age), (days(1), Duration::ZERO));
    assert!(launches.seen_within(Duration::from_secs(1)).unwrap());
    // Its time has not come yet.
    assert_eq!(launches.today().sum().unwrap(), Some(0));
    assert_eq!(launches.yesterday().sum().unwrap(), Some(1));
    assert_eq!(launches.trailing(hours(23)).sum().unwrap().unwrap().exact(), Some(0));
    launches.record().unwrap();
    assert_eq!(launches.today().sum().unwrap(), Some(1));
    app.clock.set(at("2024-05-14T10:30:00Z"));
    assert_eq!(launches.last_days(7).sum().unwrap(), Some(3));
}

#[test]
fn none_in_the_range_is_not_never_heard_of() {
    let app = App::new("2024-05-14T10:30:00Z");
    let old = app.counter("old");
    old.record_ago(days(20)).unwrap();
    let never = app.counter("never");
    let week = old.last_days(7);
    assert_eq!((week.sum().unwrap(), never.last_days(7).sum().unwrap()), (Some(0), None));
    assert_eq!(week.total().unwrap().map(|total| total.count), Some(0));
    assert_eq!(never.last_days(7).total().unwrap(), None);
    assert_eq!(week.buckets().unwrap().map(|buckets| buckets.len()), Some(7));
    assert_eq!(never.last_days(7).buckets().unwrap(), None);
    assert_eq!((week.max().unwrap(), never.last_days(7).max().unwrap()), (Some(0), None));
    assert_eq!((week.average().unwrap(), week.average_nonzero().unwrap()), (Some(0.0), None));
    assert_eq!((week.count_nonzero().unwrap(), week.std_dev().unwrap()), (Some(0), Some(0.0)));
    assert_eq!(week.ratio(&never).unwrap(), None);
    assert_eq!(never.last_days(7).ratio(&old).unwrap(), None);
    assert_eq!(week.minus(&never).unwrap(), Some(0));
    assert_eq!(never.last_days(7).minus(&never).unwrap(), None);
    assert_eq!(never.last_days(7).balance(&never).unwrap(), None);
    assert!(!never.seen_within(days(10_000)).unwrap());
    // A selection that was made before is told of what comes.
    never.record().unwrap();
    assert_eq!(never.last_days(7).sum().unwrap(), Some(1));
}

// What is refused, and in which words.

#[test]
fn what_cannot_be_answered_says_what_could() {
    let views = [
        View::new("pair").by(["a", "b"]).grain(Grain::Day, Keep::Last(30)),
        View::new("plain").by(["a"]),
        View::new("seconds").grain(Grain::Second, Keep::All),
    ];
    let app = App::in_zone("2024-05-14T10:30:00Z", "UTC", views);
    app.db.record(&Event::new("e").dim("a", "x").dim("b", "y")).unwrap();
    let query = |view: &str| app.db.query(view).unwrap();
    let pair = query("pair");
    for key in [&[][..], &["x"], &["x", "y", "z"]] {
        refused(pair.series(key), ErrorKind::Invalid, &["2 parts (a, b)"]);
    }
    refused(pair.series_of([["x"]]), ErrorKind::Invalid, &["2 parts"]);
    refused(pair.series_starting_with(&["x", "y", "z"]), ErrorKind::Invalid, &["2 parts"]);
    let series = pair.series(&["x", "y"]).unwrap();
    refused(series.last_hours(3).sum(), ErrorKind::NotKept, &["no buckets by hour", "30 days"]);
    refused(series.last_days(3).by(Grain::Week).sum(), ErrorKind::NotKept, &["by week"]);
    refused(series.last_days(0).sum(), ErrorKind::Invalid, &["0..0"]);
    let (from, to) = (7, 3);
    refused(series.days(from..to).buckets(), ErrorKind::Invalid, &["7..3"]);
    refused(series.trailing(Duration::ZERO).sum(), ErrorKind::Invalid, &["no length"]);
    let (early, late) = (at("2024-05-01T00:00:00Z"), at("2024-05-02T00:00:00Z"));
    refused(series.between(late, early).sum(), ErrorKind::Invalid, &["2024-05-02", "2024-05-01"]);
    refused(series.between(early, early).by(Grain::Day).sum(), ErrorKind::Invalid, &["behind"]);
    for percent in [-0.1, 100.1, f64::NAN] {
        refused(series.last_days(3).percentile(percent), ErrorKind::Invalid, &["0 to 100"]);
    }
    for component in [Component::Sum, Component::Max] {
        refused(series.last_days(3).across(component), ErrorKind::Invalid, &["no statistics"]);
    }
    refused(series.last_days(3).across(Component::LastSeen), ErrorKind::Invalid, &["last_seen"]);
    refused(series.ever().previous().sum(), ErrorKind::Invalid, &["before ever"]);
    refused(series.ever().trend(), ErrorKind::Invalid, &["before ever"]);

    let plain = query("plain").series(&["x"]).unwrap();
    assert_eq!(plain.ever().sum().unwrap(), Some(1));
    refused(plain.ever().buckets(), ErrorKind::NotKept, &["\"plain\"", "no buckets"]);
    refused(plain.last_days(3).sum(), ErrorKind::NotKept, &["it keeps: none"]);
    refused(plain.trailing(hours(1)).sum(), ErrorKind::NotKept, &["\"plain\""]);

    let seconds = query("seconds").series(&[]).unwrap();
    let long = seconds.last_seconds(2_000_000);
    assert_eq!(long.sum().unwrap(), Some(1));
    refused(long.buckets(), ErrorKind::Invalid, &["2000000 buckets", "coarser"]);
    refused(seconds.last(u32::MAX, Grain::Second).max(), ErrorKind::Invalid, &["1000000"]);

    app.db.close().unwrap();
    refused(series.last_days(7).sum(), ErrorKind::Closed, &[]);
    refused(query_all(&app), ErrorKind::Closed, &[]);
    refused(series.trailing(hours(24)).sum(), ErrorKind::Closed, &[]);
}

fn query_all(app: &App) -> quipu::Result<SeriesQuery> {
    app.db.query("plain").map(|query| query.all_series())
}

#[test]
fn counters_need_their_view() {
    let app = App::in_zone("2024-05-14T10:30:00Z", "UTC", [View::new("other")]);
    refused(app.db.counter("a"), ErrorKind::UnknownView, &["View::counters()"]);
    let reader = ReadOnlyDb::open(app.db.directory()).unwrap();
    refused(reader.counter("a"), ErrorKind::UnknownView, &["View::counters()"]);
    // Some events only are no counter's, nor are those of another key.
    for view in [View::counters().by(["user"]), View::counters().only_events(["x"])] {
        app.db.define(view).unwrap();
        refused(app.db.counter("a"), ErrorKind::ViewConflict, &["by event, count"]);
        app.db.drop_view("counters").unwrap();
    }
    // Other grains are the user's choice.
    app.db.define(View::new("counters").by(["event"]).grain(Grain::Day, Keep::Last(7))).unwrap();
    app.counter("a").record().unwrap();
    assert_eq!(app.counter("a").name(), "a");
    assert_eq!(app.counter("a").last_days(7).sum().unwrap(), Some(1));
    let reader = ReadOnlyDb::open(app.db.directory()).unwrap();
    assert_eq!(reader.counter("a").unwrap().ever().sum().unwrap(), Some(1));
}

// Ahead of now.

#[test]
fn an_event_ahead_of_now_counts_when_its_bucket_is_there() {
    let app = App::new("2024-05-14T10:30:00Z");
    let calls = app.counter("call");
    calls.record_at(at("2024-05-14T10:30:40Z")).unwrap();
    calls.record_at(at("2024-05-14T10:50:00Z")).unwrap();
    calls.record_at(at("2024-05-15T09:00:00Z")).unwrap();
    // The hour holds two of them, and the day; tomorrow's is not of today.
    assert_eq!(calls.last_hours(24).sum().unwrap(), Some(2));
    assert_eq!(calls.today().sum().unwrap(), Some(2));
    assert_eq!(calls.this_month().sum().unwrap(), Some(3));
    // To the moment none has been.
    assert_eq!(calls.trailing(hours(24)).sum().unwrap().unwrap().exact(), Some(0));
    // Of the hour that is cut now, finer buckets are not kept any more: they are counted back from
    // tomorrow.
    calls.record_at(at("2024-05-14T10:05:00Z")).unwrap();
    let day = calls.trailing(hours(24)).sum().unwrap().unwrap();
    assert_eq!((day.lower, day.upper), (0, 3));
    assert_eq!(calls.last_hours(24).sum().unwrap(), Some(3));
    let span = calls.between(at("2024-05-14T00:00:00Z"), at("2024-05-16T00:00:00Z"));
    assert_eq!(span.sum().unwrap().unwrap().exact(), Some(4));
    app.clock.set(at("2024-05-15T10:00:00Z"));
    assert_eq!(calls.today().sum().unwrap(), Some(1));
    assert_eq!(calls.trailing(hours(24)).sum().unwrap().unwrap().exact(), Some(4));
}

#[test]
fn finer_buckets_count_what_an_event_ahead_of_now_makes_uncertain() {
    let app = App::new("2024-05-14T10:30:30Z");
    let calls = app.counter("call");
    for time in ["02:15:00", "10:10:00", "10:30:10", "10:40:00"] {
        calls.record_at(at(&format!("2024-05-14T{time}Z"))).unwrap();
    }
    // The hour of ten goes on behind now; its minutes up to 10:30 do not.
    let ten_hours = calls.trailing(hours(10)).sum().unwrap().unwrap();
    assert_eq!((ten_hours.lower, ten_hours.upper), (2, 3));
    let upto = calls.between(at("2024-05-14T00:00:00Z"), at("2024-05-14T10:30:00Z"));
    assert_eq!(upto.sum().unwrap().unwrap().exact(), Some(2));
}

#[test]
fn buckets_pushed_out_by_an_event_ahead_of_now_are_missed_aloud() {
    let app = App::new("2024-05-14T10:30:00Z");
    let calls = app.counter("call");
    for minutes in 0..100 {
        calls.record_ago(Duration::from_mins(minutes)).unwrap();
    }
    assert_eq!(calls.last_minutes(60).sum().unwrap(), Some(60));
    calls.record_at(at("2024-05-14T10:40:00Z")).unwrap();
    // The newest minute is that of 10:40: ten of the sixty before 10:30 have gone.
    assert_eq!(calls.last_minutes(50).sum().unwrap(), Some(50));
    let words = ["from 2024-05-14T09:31", "from 2024-05-14T09:41", "60 minutes"];
    refused(calls.last_minutes(60).sum(), ErrorKind::NotKept, &words);
    refused(calls.last_minutes(60).ratio(&calls), ErrorKind::NotKept, &words);
    refused(calls.last_minutes(60).balance(&calls), ErrorKind::NotKept, &words);
    let kept = calls.last_minutes(60).kept().total().unwrap().unwrap();
    assert_eq!((kept.count, kept.known_from), (50, at("2024-05-14T09:41:00Z")));
    assert_eq!(kept.start, at("2024-05-14T09:31:00Z"));
    // A key that had nothing before them has lost nothing.
    let young = app.counter("young");
    young.record().unwrap();
    young.record_at(at("2024-05-14T10:40:00Z")).unwrap();
    assert_eq!(young.last_minutes(60).sum().unwrap(), Some(1));
    // Taken together they are known from where both are.
    let query = app.db.query("counters").unwrap();
    let both = query.series_of([["call"], ["young"]]).unwrap();
    refused(both.last_minutes(60).sum(), ErrorKind::NotKept, &words);
    let kept = both.last_minutes(60).kept().total().unwrap().unwrap();
    assert_eq!((kept.count, kept.known_from), (51, at("2024-05-14T09:41:00Z")));
}

// Calendars.

#[test]
fn a_day_that_a_zone_left_out_is_no_day() {
    let view = View::counters();
    let app = App::in_zone("2011-12-29T20:00:00-10:00", "Pacific/Apia", [view]);
    let launches = app.counter("app_launch");
    launches.record().unwrap();
    // An hour past midnight of the 31st; there was no 30th.
    app.clock.set(at("2011-12-31T01:00:00+14:00"));
    launches.record().unwrap();
    assert_eq!(launches.yesterday().sum().unwrap(), Some(1));
    let two = launches.last_days(2).buckets().unwrap().unwrap();
    assert_eq!(two.iter().map(|day| day.count).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(two[0].end, two[1].start);
    assert_eq!(launches.last_days(2).average().unwrap(), Some(1.0));
    assert_eq!(launches.days(2..3).sum().unwrap(), Some(0), "the 28th");
    assert_eq!(launches.days(0..1).previous().sum().unwrap(), Some(1));
    // It takes a place in the ring: of 56 days kept, 55 were days.
    assert_eq!(launches.last_days(55).sum().unwrap(), Some(2));
    refused(launches.last_days(56).sum(), ErrorKind::NotKept, &["56 days"]);
}

#[test]
fn as_many_days_as_a_number_holds_are_not_walked_through() {
    let views = [View::counters(), View::new("all").by(["event"]).grain(Grain::Day, Keep::All)];
    let app = App::in_zone("2024-05-14T10:30:00Z", "Europe/Paris", views);
    for year in ["1850", "2011", "2024"] {
        let time = at(&format!("{year}-05-14T10:30:00Z"));
        app.db.record(&Event::new("e").at(time)).unwrap();
    }
    let all = app.series("all", &["e"]);
    for many in [100_000, 3_000_000, u32::MAX] {
        assert_eq!(all.last_days(many).sum().unwrap(), Some(3));
        let last = app.counter("e").last_days(many);
        refused(last.sum(), ErrorKind::NotKept, &["56 days"]);
        assert_eq!(last.kept().sum().unwrap(), Some(1));
    }
    assert_eq!(all.last_days(50_000).sum().unwrap(), Some(2));
}

#[test]
fn todays_begin_at_midnight_of_the_zone() {
    let app = App::in_zone("2024-06-30T22:30:00Z", "Europe/Paris", [View::counters()]);
    let launches = app.counter("app_launch");
    for time in ["2024-06-30T21:59:59Z", "2024-06-30T22:00:00Z", "2024-06-24T00:00:00Z"] {
        launches.record_at(at(time)).unwrap();
    }
    assert_eq!(launches.today().sum().unwrap(), Some(1));
    assert_eq!(launches.yesterday().sum().unwrap(), Some(1));
    // The first of July is a Monday.
    assert_eq!(launches.this_week().sum().unwrap(), Some(1));
    assert_eq!(launches.previous_week().sum().unwrap(), Some(2));
    assert_eq!(launches.this_month().sum().unwrap(), Some(1));
    assert_eq!(launches.previous_month().sum().unwrap(), Some(2));
    assert_eq!(launches.this_year().sum().unwrap(), Some(3));
    assert_eq!(launches.previous_year().sum().unwrap(), Some(0));
    let week = launches.this_week().total().unwrap().unwrap();
    assert_eq!((week.start, week.end), (at("2024-06-30T22:00:00Z"), at("2024-07-07T22:00:00Z")));
}

#[test]
fn ranges_are_cut_into_other_grains() {
    let app = App::in_zone("2024-03-31T12:00:00Z", "Europe/Paris", [View::counters()]);
    let launches = app.counter("app_launch");
    for ago in 0..40 {
        launches.record_ago(days(ago)).unwrap();
    }
    let starts = |range: quipu::RangeQuery| -> Vec<Timestamp> {
        range.buckets().unwrap().unwrap().iter().map(|bucket| bucket.start).collect()
    };
    let hours_of_today = starts(launches.today().by(Grain::Hour));
    assert_eq!(hours_of_today.len(), 14, "to 14:00 by the clock, of which one hour was left out");
    assert_eq!(hours_of_today[0], at("2024-03-31T00:00:00+01:00"));
    assert_eq!(starts(launches.yesterday().by(Grain::Hour)).len(), 24);
    assert_eq!(starts(launches.this_month().by(Grain::Day)).len(), 31);
    assert_eq!(starts(launches.previous_month().by(Grain::Week)).len(), 5);
    assert_eq!(launches.this_month().by(Grain::Day).sum().unwrap(), Some(31));
    // A week that begins in the month before is touched.
    let weeks = starts(launches.this_month().by(Grain::Week));
    assert_eq!(weeks[0], at("2024-02-26T00:00:00+01:00"));
    assert_eq!(weeks.len(), 5);
    let span = launches.between(at("2024-03-30T10:30:00Z"), at("2024-03-31T10:00:00Z"));
    let hours = starts(span.by(Grain::Hour));
    assert_eq!((hours[0], hours.len()), (at("2024-03-30T10:00:00Z"), 24));
    let before = starts(span.by(Grain::Day).previous());
    assert_eq!(before, [at("2024-03-28T00:00:00+01:00"), at("2024-03-29T00:00:00+01:00")]);
    // Ever, in the coarsest grain or another.
    assert_eq!(starts(launches.ever()), [at("2024-01-01T00:00:00+01:00")]);
    assert_eq!(starts(launches.ever().by(Grain::Month)).len(), 2);
    refused(launches.ever().by(Grain::Minute).sum(), ErrorKind::NotKept, &["60 minutes"]);
}

#[test]
fn what_was_before_the_first_event_is_known_to_be_nothing() {
    let view = View::new("v").by(["event"]).grain(Grain::Hour, Keep::Last(48));
    let app = App::in_zone("2024-05-14T10:30:00Z", "UTC", [view]);
    for ago in [1, 2, 30] {
        app.db
            .record(&Event::new("young").at(at("2024-05-14T10:15:00Z").saturating_sub(hours(ago))))
            .unwrap();
        app.db
            .record(&Event::new("old").at(at("2024-05-14T10:15:00Z").saturating_sub(days(ago))))
            .unwrap();
    }
    let (from, to) = (at("1990-01-01T00:00:00Z"), at("2024-05-14T10:00:00Z"));
    let young = app.series("v", &["young"]).between(from, to);
    assert_eq!(young.sum().unwrap().unwrap().exact(), Some(3));
    assert_eq!(young.by(Grain::Hour).sum().unwrap(), Some(3));
    // All of it, so the totals say.
    let old = app.series("v", &["old"]);
    assert_eq!(old.between(from, to).sum().unwrap().unwrap().exact(), Some(3));
    let part = old.between(from, at("2024-05-13T00:00:00Z"));
    refused(part.sum(), ErrorKind::NotKept, &["48 hours", "1990-01-01"]);
    let kept = part.kept().sum().unwrap().unwrap();
    // Its newest hour is that of yesterday.
    assert_eq!((kept.known_from, kept.exact()), (at("2024-05-11T11:00:00Z"), None));
    assert_eq!((kept.lower, kept.upper), (1, 1));
    let empty = old.between(from, at("2024-01-01T00:00:00Z")).sum().unwrap().unwrap();
    assert_eq!(empty.exact(), Some(0));
}

#[test]
fn statistics_are_of_the_measure_that_is_asked_for() {
    let view = View::new("v").stats("value").stats("weight").grain(Grain::Day, Keep::Last(30));
    let app = App::in_zone("2024-05-14T10:30:00Z", "UTC", [view]);
    for (day, value, weight) in [(0, 1.0, 10.0), (0, 2.0, 20.0), (2, 0.5, 5.0)] {
        let time = at("2024-05-14T08:00:00Z").saturating_sub(days(day));
        app.db.record(&Event::new("e").at(time).value(value).measure("weight", weight)).unwrap();
    }
    let query = app.db.query("v").unwrap();
    let three =
        |measure: &str| query.clone().measure(measure).unwrap().series(&[]).unwrap().last_days(3);
    let values = |measure: &str, component| {
        three(measure).across(component).unwrap().unwrap().values().to_vec()
    };
    assert_eq!(values("value", Component::Sum), [0.5, 0.0, 3.0]);
    assert_eq!(values("weight", Component::Sum), [5.0, 0.0, 30.0]);
    assert_eq!(values("weight", Component::Mean), [5.0, 15.0], "of nothing there is no mean");
    assert_eq!(values("weight", Component::CountValue), [1.0, 0.0, 2.0]);
    let weights = three("weight").across(Component::Sum).unwrap().unwrap();
    assert_eq!((weights.min(), weights.max()), (Some(0.0), Some(30.0)));
    assert_eq!((weights.count_nonzero(), weights.average_nonzero()), (2, Some(17.5)));
    assert_eq!(weights.percentile(50.0).unwrap(), Some(5.0));
    let total = three("weight").total().unwrap().unwrap();
    assert_eq!(
        total.stats.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["weight", "value"]
    );
    assert_eq!(three("weight").buckets().unwrap().unwrap()[2].summary().unwrap().max, Some(20.0));
}

#[test]
fn another_moment_is_asked_about_as_if_it_was_now() {
    let view = View::new("all").grain(Grain::Day, Keep::All).grain(Grain::Hour, Keep::Last(24));
    let app = App::in_zone("2024-05-14T10:30:00Z", "UTC", [view]);
    for day in 1..=14 {
        let time = at(&format!("2024-05-{day:02}T08:00:00Z"));
        app.db.record(&Event::new("e").at(time)).unwrap();
    }
    let then = app.series("all", &[]).at(at("2024-05-10T12:00:00Z"));
    assert_eq!(then.last_days(3).sum().unwrap(), Some(3));
    assert_eq!(then.today().total().unwrap().unwrap().end, at("2024-05-11T00:00:00Z"));
    assert_eq!(then.first_seen().unwrap().unwrap().age, days(9) + hours(4));
    // What was recorded since is there, and what was let go since is not.
    assert_eq!(then.last_seen().unwrap().unwrap().age, Duration::ZERO);
    refused(then.last_hours(24).sum(), ErrorKind::NotKept, &["nothing of it"]);
}

#[test]
fn a_balance_begins_with_what_was_before() {
    let app = App::new("2024-05-14T10:30:00Z");
    let (ins, outs) = (app.counter("in"), app.counter("out"));
    for ago in [400, 60, 9, 2] {
        ins.record_ago(days(ago)).unwrap();
    }
    let only_in = ins.last_days(3).balance(&outs).unwrap().unwrap();
    assert_eq!(only_in.iter().map(|b| b.balance).collect::<Vec<_>>(), [4, 4, 4]);
    outs.record_ago(days(1)).unwrap();
    outs.record_ago(days(100)).unwrap();
    let stock = ins.last_days(3).balance(&outs).unwrap().unwrap();
    let steps: Vec<_> = stock.iter().map(|b| (b.change, b.balance)).collect();
    assert_eq!(steps, [(1, 3), (-1, 2), (0, 2)]);
    let other_way = outs.last_days(3).balance(&ins).unwrap().unwrap();
    assert_eq!(other_way.iter().map(|b| b.balance).collect::<Vec<_>>(), [-3, -2, -2]);
    let ever = ins.ever().balance(&outs).unwrap().unwrap();
    assert_eq!(ever.iter().map(|b| b.balance).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(ins.ever().minus(&outs).unwrap(), Some(2));

    // All of one is still to come, and some of that is in no bucket any more.
    let far = app.counter("far");
    for ahead in ["2024-05-14T11:00:00Z", "2024-05-15T10:00:00Z"] {
        far.record_at(at(ahead)).unwrap();
    }
    let minutes = far.last_minutes(2).balance(&far).unwrap().unwrap();
    assert_eq!(minutes.iter().map(|b| b.balance).collect::<Vec<_>>(), [0, 0]);
    let against = ins.last_minutes(2).balance(&far).unwrap().unwrap();
    assert_eq!(against.iter().map(|b| b.balance).collect::<Vec<_>>(), [4, 4]);
}

#[test]
fn a_selection_outlives_the_handle_and_is_shared_between_threads() {
    let app = App::new("2024-05-14T10:30:00Z");
    app.counter("a").record().unwrap();
    let week = app.counter("a").last_days(7);
    let all = app.db.query("counters").unwrap().all_series().last_days(7);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..200 {
                    app.counter("a").record().unwrap();
                    assert!(week.sum().unwrap() <= all.sum().unwrap());
                }
            });
        }
    });
    assert_eq!((week.sum().unwrap(), all.sum().unwrap()), (Some(601), Some(601)));
    let App { _root, db, .. } = app;
    drop(db);
    refused(week.sum(), ErrorKind::Closed, &[]);
}

#[test]
fn a_selection_is_not_of_a_zone_but_of_its_store() {
    let zone: TimeZone = "Asia/Kathmandu".parse().unwrap();
    let app = App::in_zone("2024-05-14T10:30:00Z", zone.name(), [View::counters()]);
    let series = app.counter("a");
    assert_eq!(series.time_zone(), zone);
    assert_eq!(series.view().name(), View::COUNTERS);
    series.record().unwrap();
    let hour = series.this(Grain::Hour).total().unwrap().unwrap();
    assert_eq!((hour.start, hour.end), (at("2024-05-14T10:15:00Z"), at("2024-05-14T11:15:00Z")));
}

// What came with events that stand for several, times that are known roughly, and redefinitions.

#[test]
fn counts_go_on_beyond_32_bits() {
    let app = App::new("2024-05-14T10:30:00Z");
    let (many, one) = (5_000_000_000, app.counter("one"));
    app.db.record(&Event::new("many").times(many)).unwrap();
    app.db.record(&Event::new("many").times(many).at(at("2024-05-13T10:30:00Z"))).unwrap();
    one.record().unwrap();
    let days = app.counter("many").last_days(2);
    assert_eq!(days.sum().unwrap(), Some(2 * many));
    assert_eq!((days.min().unwrap(), days.max().unwrap()), (Some(many), Some(many)));
    assert_eq!(days.average().unwrap(), Some(many as f64));
    assert_eq!(
        one.last_days(2).minus(app.counter("many")).unwrap(),
        Some(1 - 2 * i128::from(many))
    );
    let half_hour = app.counter("many").trailing(Duration::from_mins(30)).sum().unwrap().unwrap();
    assert_eq!(half_hour.exact(), Some(many));
    // At the end of 64 bits it stays.
    for _ in 0..2 {
        app.db.record(&Event::new("many").times(u64::MAX)).unwrap();
    }
    assert_eq!(days.sum().unwrap(), Some(u64::MAX));
    assert_eq!(days.trend().unwrap().unwrap().now, u64::MAX);
}

#[test]
fn what_is_known_roughly_says_how_roughly() {
    let app = App::new("2024-05-14T10:30:00Z");
    let noon = at("2024-05-10T12:00:00Z");
    app.db.record(&Event::new("e").at_about(noon, hours(12))).unwrap();
    let series = app.counter("e");
    let some_time_that_day = Seen {
        time: noon,
        half_width: hours(12),
        age: days(3) + hours(22) + Duration::from_mins(30),
    };
    assert_eq!(series.first_seen().unwrap(), Some(some_time_that_day.clone()));
    assert_eq!(series.last_seen().unwrap(), Some(some_time_that_day));
    // Another one, of which is known when it was, makes it the first or the last for certain.
    app.db.record(&Event::new("e").at(at("2024-05-10T18:00:00Z"))).unwrap();
    let [first, last] = [series.first_seen(), series.last_seen()].map(|s| s.unwrap().unwrap());
    assert_eq!((first.time, first.half_width), (at("2024-05-10T09:00:00Z"), hours(9)));
    assert_eq!((last.time, last.half_width), (at("2024-05-10T21:00:00Z"), hours(3)));
    assert!(first.age >= last.age);
    // It counts at the time that was said.
    assert_eq!(series.range(Grain::Day, 4..5).sum().unwrap(), Some(2));
}

#[test]
fn a_selection_that_was_kept_asks_the_definition_of_now() {
    let on = |_: quipu::Progress| std::ops::ControlFlow::Continue(());
    let app = App::new("2024-05-14T10:30:00Z");
    let launches = app.counter("app_launch");
    for ago in [0, 30, 100, 200] {
        launches.record_ago(days(ago)).unwrap();
    }
    let (year, span) = (launches.last_days(365), launches.trailing(days(150)));
    let all = app.db.query("counters").unwrap().all_series().last_days(365);
    refused(year.sum(), ErrorKind::NotKept, &["56 days"]);
    refused(all.sum(), ErrorKind::NotKept, &["56 days"]);
    let longer = View::new("counters").by(["event"]).grain(Grain::Day, Keep::Last(365));
    app.db.redefine(longer, on).unwrap();
    assert_eq!((year.sum().unwrap(), all.sum().unwrap()), (Some(4), Some(4)));
    assert_eq!(year.previous().sum().unwrap_err().kind(), ErrorKind::NotKept);
    assert_eq!(year.ratio(&launches).unwrap(), Some(1.0));
    assert_eq!(year.balance(&launches).unwrap().unwrap().len(), 365);
    assert_eq!(span.sum().unwrap().unwrap().exact(), Some(3));
    assert_eq!(span.by(Grain::Day).buckets().unwrap().unwrap().len(), 151);
    refused(launches.last_hours(1).sum(), ErrorKind::NotKept, &["365 days"]);
    assert_eq!(launches.first_seen().unwrap().unwrap().age, days(200));
    // A key of the old definition is none of the new one.
    app.db.redefine(View::new("counters").by(["event", "user"]), on).unwrap();
    refused(year.sum(), ErrorKind::ViewConflict, &["by event, user"]);
    refused(launches.last_seen(), ErrorKind::ViewConflict, &["by event, user"]);
    refused(app.db.counter("app_launch"), ErrorKind::ViewConflict, &["stored"]);
    assert_eq!(all.by(Grain::Day).sum().unwrap_err().kind(), ErrorKind::NotKept);
    app.db.drop_view("counters").unwrap();
    refused(all.sum(), ErrorKind::UnknownView, &["counters"]);
}

#[test]
fn a_selection_is_not_taken_for_one_of_another_key() {
    let on = |_: quipu::Progress| std::ops::ControlFlow::Continue(());
    let app = App::new("2024-05-14T10:30:00Z");
    let by = |dimension: &str| View::new("counters").by([dimension]).grain(Grain::Day, Keep::All);
    app.db.redefine(by("event"), on).unwrap();
    for (event, user) in [("visit", "ann"), ("visit", "bob"), ("ann", "visit")] {
        app.db.record(&Event::new(event).dim("user", user)).unwrap();
    }
    let visits = app.counter("visit");
    let query = app.db.query("counters").unwrap();
    let several = query.series_of([["visit"], ["ann"]]).unwrap();
    let beginning = query.series_starting_with(&["vi"]).unwrap();
    let today = || {
        let all = [&visits, &several, &beginning, &query.all_series()].map(|s| s.today().sum());
        all.map(|sum| sum.map_err(|error| error.kind()))
    };
    let conflict = Err(ErrorKind::ViewConflict);
    let all = [Ok(Some(2)), Ok(Some(3)), Ok(Some(2)), Ok(Some(3))];
    assert_eq!(today(), all);
    // As many parts, of something else.
    app.db.redefine(by("user"), on).unwrap();
    assert_eq!(today(), [conflict, conflict, conflict, Ok(Some(3))]);
    refused(visits.trailing(hours(1)).sum(), ErrorKind::ViewConflict, &["by event", "by user"]);
    // Of some events it is no counter.
    app.db.redefine(by("event").only_events(["visit"]), on).unwrap();
    assert_eq!(today(), [conflict; 4]);
    // The selection is what it was once the view is.
    app.db.redefine(by("event"), on).unwrap();
    assert_eq!(today(), all);
    // Another view may take other events by now, and each selection with it.
    let view = || View::new("users").by(["user"]).grain(Grain::Day, Keep::All);
    app.db.define(view()).unwrap();
    app.db.backfill("users", on).unwrap();
    let ann = app.series("users", &["ann"]);
    app.db.record(&Event::new("sale").dim("user", "ann")).unwrap();
    assert_eq!(ann.today().sum().unwrap(), Some(2));
    app.db.redefine(view().only_events(["sale"]), on).unwrap();
    assert_eq!(ann.today().sum().unwrap(), Some(1));
}

#[test]
fn a_rough_time_counts_as_the_time_that_it_was_recorded_under() {
    let app = App::new("2024-05-14T10:30:00Z");
    app.db.record(&Event::new("e").at_about(at("2024-05-14T09:00:00Z"), hours(3))).unwrap();
    let hour = app.counter("e").trailing(hours(1)).sum().unwrap().unwrap();
    assert_eq!((hour.lower, hour.upper, hour.exact()), (0, 0, Some(0)));
    let two = app.counter("e").trailing(hours(2)).sum().unwrap().unwrap();
    assert_eq!(two.exact(), Some(1));
}

#[test]
fn a_trailing_span_in_buckets_is_of_the_moment_of_asking() {
    let app = App::new("2024-05-14T10:30:00Z");
    let errors = app.counter("error");
    errors.record().unwrap();
    let day = errors.trailing(hours(24)).by(Grain::Hour);
    assert_eq!(day.sum().unwrap(), Some(1));
    app.clock.advance(hours(30));
    errors.record().unwrap();
    errors.record().unwrap();
    assert_eq!(day.sum().unwrap(), Some(2));
    assert_eq!(day.previous().sum().unwrap(), Some(1));
    let buckets = day.buckets().unwrap().unwrap();
    assert_eq!((buckets.len(), buckets[24].start), (25, at("2024-05-15T16:00:00Z")));
    // As with days counted back: what the view keeps decides, not what the key has had.
    let long = errors.trailing(days(300)).by(Grain::Day);
    refused(long.sum(), ErrorKind::NotKept, &["56 days", "301st day"]);
    let kept = long.kept().total().unwrap().unwrap();
    assert_eq!((kept.count, kept.is_partial()), (3, true));
    assert_eq!(errors.trailing(days(55)).by(Grain::Day).sum().unwrap(), Some(3));
    refused(
        errors.trailing(Duration::ZERO).by(Grain::Day).sum(),
        ErrorKind::Invalid,
        &["no length"],
    );
}

#[test]
fn what_is_kept_is_not_advised_to_who_asked_for_it() {
    let days_only = View::new("counters").by(["event"]).grain(Grain::Day, Keep::Last(56));
    let app = App::in_zone("2024-05-14T10:30:00Z", "UTC", [days_only]);
    let calls = app.counter("call");
    for ago in [0, 100, 101] {
        calls.record_ago(days(ago)).unwrap();
    }
    let (from, to) = (at("2024-02-01T00:00:00Z"), at("2024-02-10T00:00:00Z"));
    let span = calls.between(from, to);
    let answers = |kept: bool| {
        let old = calls.days(60..70);
        let (old, span) = if kept { (old.kept(), span.kept()) } else { (old, span.clone()) };
        [old.sum().unwrap_err(), span.by(Grain::Day).sum().unwrap_err(), span.sum().unwrap_err()]
    };
    for error in answers(false) {
        assert!(error.to_string().ends_with("for what is kept"), "{error}");
    }
    for error in answers(true) {
        assert_eq!(error.kind(), ErrorKind::NotKept);
        assert!(error.to_string().contains("nothing is kept"), "{error}");
    }
}

#[test]
fn a_grain_by_its_length_is_the_one_of_that_name_where_they_are_the_same() {
    let every = |seconds| Grain::every(Duration::from_secs(seconds)).unwrap();
    let spelled = Grain::Every(quipu::Period::new(Duration::from_secs(1)).unwrap());
    let same = [("1s", Grain::Second), ("30d", Grain::Month30), ("365d", Grain::Year365)];
    for (text, grain) in same {
        assert_eq!(text.parse::<Grain>().unwrap(), grain);
    }
    assert_eq!((every(1), spelled.to_string().as_str()), (Grain::Second, "second"));
    // In Monrovia the clocks were 44 minutes and a half behind, and minutes began with the half.
    let views = [
        View::new("seconds").grain(spelled, Keep::Last(10)),
        View::new("both").grain(every(60), Keep::All).grain(Grain::Minute, Keep::All),
        View::new("hours").grain(Grain::Hour, Keep::Last(72)),
        View::new("lengths").grain(every(3_600), Keep::Last(72)),
    ];
    let app = App::in_zone("1970-06-01T12:00:10Z", "Africa/Monrovia", views);
    app.db.record(&Event::new("e")).unwrap();
    let seconds = app.series("seconds", &[]);
    assert_eq!(seconds.view().grains(), [(Grain::Second, Keep::Last(10))]);
    for grain in [Grain::Second, spelled] {
        assert_eq!(seconds.last(5, grain).sum().unwrap(), Some(1));
        assert_eq!(seconds.last(5, Grain::Second).by(grain).sum().unwrap(), Some(1));
        assert_eq!(app.db.query("seconds").unwrap().buckets(&[], grain).unwrap().len(), 1);
    }
    let twice = View::new("twice").grain(Grain::Second, Keep::All).grain(spelled, Keep::All);
    refused(app.db.define(twice), ErrorKind::Invalid, &["second is given twice"]);
    let both = app.series("both", &[]);
    let start = |grain| both.this(grain).buckets().unwrap().unwrap()[0].start.to_string();
    assert_eq!(start(every(60)), "1970-06-01T12:00:00.000Z");
    assert_eq!(start(Grain::Minute), "1970-06-01T11:59:30.000Z");
    // An hour is not an hour of the zone's clock; the error names the one that there is.
    let hours = app.series("hours", &[]).last(3, every(3_600));
    refused(hours.sum(), ErrorKind::NotKept, &["no buckets by 1h", "ask by hour"]);
    let lengths = app.series("lengths", &[]).last_hours(3);
    refused(lengths.sum(), ErrorKind::NotKept, &["no buckets by hour", "ask by 1h"]);
}
