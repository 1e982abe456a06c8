//! The calendar of a directory: its time zone is kept, and its views count by it.

use crate::directory::{contents, crash_image, options};
use quipu::{
    Bucket, Db, Depth, ErrorKind, Event, Grain, Keep, ReadOnlyDb, Repair, TimeZone, Timestamp,
    Upto, View,
};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

fn zone(name: &str) -> TimeZone {
    name.parse().unwrap()
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

/// A view of every grain by its name and of some by their length.
fn every_grain() -> View {
    let view = View::new("v").by(["user"]).stats("value");
    let lengths = [Duration::from_hours(6), Duration::from_millis(100), Duration::from_millis(1)];
    let grains = Grain::ALL.into_iter().chain(lengths.map(|length| Grain::every(length).unwrap()));
    grains.fold(view, |view, grain| view.grain(grain, Keep::All))
}

/// Times around what zones did to their clocks, each with its number as the value.
fn times() -> Vec<Timestamp> {
    let around = [
        "2011-12-30T10:00:00Z",
        "2012-02-29T23:30:00Z",
        "2018-05-04T15:00:00Z",
        "2020-12-31T23:59:59Z",
        "2021-03-28T01:00:00Z",
        "2021-10-31T01:00:00Z",
    ];
    let minutes = [-1_500, -180, -59, -29, -1, 0, 1, 29, 59, 180, 1_500];
    let time = |(text, minutes): (&str, i64)| {
        Timestamp::from_micros(at(text).micros() + minutes * 60_000_000)
    };
    around.iter().flat_map(|text| minutes.map(|minutes| time((text, minutes)))).collect()
}

fn buckets(db: &Db, grain: Grain) -> Vec<Bucket> {
    let query = db.query("v").unwrap();
    let mut all = query.buckets(&["a"], grain).unwrap();
    all.extend(query.buckets(&["b"], grain).unwrap());
    all
}

/// Each bucket of every grain has the events between its bounds and no others, and its bounds are
/// those that the zone says.
#[track_caller]
fn check(db: &Db, zone: TimeZone) {
    let times = times();
    assert_eq!(db.time_zone(), zone);
    let grains = db.views().unwrap()[0].view.grains().to_vec();
    assert_eq!(grains.len(), 12);
    for (grain, _) in grains {
        let buckets = buckets(db, grain);
        assert_eq!(buckets.iter().map(|b| b.count).sum::<u64>(), times.len() as u64);
        for bucket in buckets {
            let number = zone.bucket(grain, bucket.start);
            assert_eq!(zone.span(grain, number), bucket.start..bucket.end, "{grain}");
            let user = bucket.summary().unwrap().min.unwrap() as usize % 2;
            let inside = |(n, time): &(usize, &Timestamp)| {
                n % 2 == user && (bucket.start..bucket.end).contains(*time)
            };
            let inside: Vec<usize> =
                times.iter().enumerate().filter(inside).map(|(n, _)| n).collect();
            assert_eq!(bucket.count, inside.len() as u64, "{grain} {}", bucket.start);
            let sum: usize = inside.iter().sum();
            assert_eq!(bucket.summary().unwrap().sum, sum as f64);
        }
    }
}

fn record(db: &Db) {
    let user = |n: usize| ["a", "b"][n % 2];
    for (n, time) in times().into_iter().enumerate() {
        // One by one, alone, and in batches: the three ways in.
        let event = Event::new("e").at(time).dim("user", user(n)).value(n as f64);
        match n % 3 {
            0 => drop(db.record(&event).unwrap()),
            _ => drop(db.record_all([event], quipu::OnInvalid::Refuse).unwrap()),
        }
    }
}

fn quietly(_: quipu::Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_directory_counts_by_the_calendar_of_its_zone_and_keeps_it() {
    for name in ["UTC", "Europe/Paris", "Asia/Kathmandu", "Pacific/Apia", "Asia/Pyongyang"] {
        let zone = zone(name);
        let root = tempfile::tempdir().unwrap();
        let (dir, crashed) = (root.path().join("db"), root.path().join("crashed"));
        let db = options().time_zone(zone).view(every_grain()).open(&dir).unwrap();
        record(&db);
        check(&db, zone);
        crash_image(&dir, &crashed);
        drop(db);
        // From the log alone, then from the snapshot.
        for _ in 0..2 {
            let db = options().open(&crashed).unwrap();
            check(&db, zone);
            db.close().unwrap();
        }
        // The snapshot is lost, and the log says it all.
        fs::write(dir.join("state.redb"), b"lost").unwrap();
        let db = options().time_zone(zone).open(&dir).unwrap();
        check(&db, zone);
    }
}

#[test]
fn a_batch_counts_as_its_events_one_by_one() {
    let root = tempfile::tempdir().unwrap();
    let zone = zone("Pacific/Apia");
    let open = |name: &str| options().time_zone(zone).open(root.path().join(name)).unwrap();
    let (one, all) = (open("one"), open("all"));
    for db in [&one, &all] {
        db.define(every_grain()).unwrap();
        db.define(View::new("days").grain(Grain::Day, Keep::All)).unwrap();
    }
    let mut batch = all.batch();
    for (n, time) in times().into_iter().enumerate() {
        let event = Event::new("e").at(time).dim("user", ["a", "b"][n % 2]).value(n as f64);
        one.record(&event).unwrap();
        batch.push(&event).unwrap();
    }
    all.record_batch(&mut batch).unwrap();
    check(&all, zone);
    check(&one, zone);
    let days = |db: &Db| db.query("days").unwrap().buckets(&[], Grain::Day).unwrap();
    assert_eq!(days(&one), days(&all));
}

#[test]
fn another_zone_than_the_directorys_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let paris = zone("Europe/Paris");
    drop(options().time_zone(paris).view(every_grain()).open(&dir).unwrap());
    let before = contents(&dir);
    for other in ["UTC", "America/New_York"] {
        let error = options().time_zone(zone(other)).open(&dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimeZoneConflict);
        let text = error.to_string();
        assert!(text.contains("Europe/Paris") && text.contains(other), "{text}");
    }
    assert_eq!(contents(&dir), before);
    assert_eq!(options().open(&dir).unwrap().time_zone(), paris);

    // One that was never given a zone is UTC once it has a view.
    let dir = root.path().join("utc");
    drop(options().view(every_grain()).open(&dir).unwrap());
    let error = options().time_zone(paris).open(&dir).unwrap_err();
    assert!(error.to_string().contains("UTC"), "{error}");
    drop(options().time_zone(TimeZone::UTC).open(&dir).unwrap());
}

#[test]
fn a_directory_without_views_takes_a_zone_once() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    let db = options().open(&dir).unwrap();
    assert_eq!(db.time_zone(), TimeZone::UTC);
    record(&db);
    drop(db);
    let apia = zone("Pacific/Apia");
    drop(options().time_zone(apia).open(&dir).unwrap());
    let error = options().time_zone(zone("Asia/Tehran")).open(&dir).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimeZoneConflict);
    // What came before the zone is counted by it as well.
    let db = options().open(&dir).unwrap();
    db.define(every_grain()).unwrap();
    db.backfill("v", quietly).unwrap();
    check(&db, apia);
}

#[test]
fn the_zone_goes_where_the_directory_goes() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let zone = zone("Asia/Kathmandu");
    let db = options().time_zone(zone).view(every_grain()).open(path("db")).unwrap();
    let reader = ReadOnlyDb::open(path("db")).unwrap();
    assert_eq!(reader.time_zone(), zone);
    record(&db);
    db.checkpoint().unwrap();
    reader.refresh().unwrap();
    let days = |query: quipu::Query| query.buckets(&["a"], Grain::Day).unwrap();
    assert_eq!(reader.query("v").unwrap().time_zone(), zone);
    assert_eq!(days(reader.query("v").unwrap()), days(db.query("v").unwrap()));

    db.backup(path("backup"), quietly).unwrap();
    drop(db);
    for (name, upto) in [("all", Upto::Everything), ("anew", Upto::EventTime(Timestamp::MAX))] {
        quipu::restore(path("backup"), path(name), upto, quietly).unwrap();
        check(&options().open(path(name)).unwrap(), zone);
    }
    for dir in ["db", "all", "anew"] {
        let report = quipu::verify(path(dir), Depth::Refold, |_| {}).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
    // Half a catalog is none; the rest is made of the log.
    damage(&path("db").join("state.redb"));
    quipu::repair(path("db"), Repair::Apply, |_| {}).unwrap();
    check(&options().open(path("db")).unwrap(), zone);
}

fn damage(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x55);
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_reader_that_came_before_the_zone_learns_it() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("db");
    drop(options().open(&dir).unwrap());
    let reader = ReadOnlyDb::open(&dir).unwrap();
    assert_eq!(reader.time_zone(), TimeZone::UTC);
    let paris = zone("Europe/Paris");
    let db = options().time_zone(paris).view(every_grain()).open(&dir).unwrap();
    record(&db);
    db.sync().unwrap();
    reader.refresh().unwrap();
    assert_eq!(reader.time_zone(), paris);
    let query = reader.query("v").unwrap();
    assert_eq!(query.buckets(&["a"], Grain::Day).unwrap(), {
        db.query("v").unwrap().buckets(&["a"], Grain::Day).unwrap()
    });
}

#[test]
fn a_grain_that_cannot_be_is_refused_at_definition() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    let refused = |view: View, expect: &str| {
        let error = db.define(view).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(expect), "{error}");
    };
    let six = Grain::every(Duration::from_hours(6)).unwrap();
    refused(View::new("v").grain(six, Keep::All).grain(six, Keep::Last(3)), "6h is given twice");
    refused(View::new("v").grain(Grain::Second, Keep::Last(0)), "0 buckets of second");
    refused(View::new("v").grain(six, Keep::Last(100_001)), "1 to 100000");
    assert!(db.define(View::new("v").grain(six, Keep::Last(100_000))).unwrap());
    let longest = Duration::from_hours(366 * 24);
    let micro = Duration::from_micros(1);
    for length in [Duration::ZERO, micro, Duration::from_micros(1_001), longest + micro] {
        let error = Grain::every(length).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("from 1ms to 366d"), "{error}");
    }
    for length in [Duration::from_millis(1), longest] {
        assert!(Grain::every(length).is_ok());
    }
}

type Preset = (&'static str, fn(View) -> View, &'static str);

#[test]
fn presets_are_definitions_like_others() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    let presets: [Preset; 3] = [
        (
            "counter",
            View::counter_grains,
            "60 minutes, 72 hours, 56 days, 52 weeks, 12 months, 4 years",
        ),
        ("limit", View::rate_limit_grains, "120 seconds, 120 minutes, 48 hours"),
        (
            "analytics",
            View::analytics_grains,
            "168 hours, 400 days, 106 weeks, 36 months, all years",
        ),
    ];
    for (name, preset, says) in presets {
        db.define(preset(View::new(name))).unwrap();
        let views = db.views().unwrap();
        let text = views.last().unwrap().view.to_string();
        assert_eq!(text, format!("{name}: all in one, count, {says}"));
    }
}
