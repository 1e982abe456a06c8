//! What tiny-counter has kept is taken over.

use quipu::{
    Bundle, Cursor, Db, ErrorKind, Grain, ImportOptions, Keep, Options, TestClock, TimeZone,
    Timestamp, TinyCounter, View,
};
use std::collections::BTreeMap;
use std::path::Path;

fn counters() -> View {
    View::new("counters").by(["event"]).grain(Grain::Hour, Keep::Last(48))
}

/// `tests/data/tiny-counter/README.md` says what was recorded: when, and how many.
fn tiny_counter(file: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-counter");
    std::fs::read(folder.join(file)).unwrap()
}

/// When, and how many.
type Recorded = &'static [(&'static str, u64)];

const LAUNCHES: [(&str, u64); 9] = [
    ("2023-02-28T23:59:59Z", 3),
    ("2025-12-31T23:59:59Z", 1),
    ("2026-01-01T00:00:00Z", 2),
    ("2026-05-17T18:45:00Z", 4),
    ("2026-06-24T06:00:00Z", 5),
    ("2026-06-29T23:30:00Z", 6),
    ("2026-06-30T08:45:00Z", 7),
    ("2026-06-30T12:00:00Z", 8),
    ("2026-06-30T12:34:56.789Z", 9),
];

const ERRORS: [(&str, u64); 5] = [
    ("2026-03-08T04:59:00Z", 1),
    ("2026-03-08T05:01:00Z", 2),
    ("2026-03-09T03:59:00Z", 4),
    ("2026-03-09T04:01:00Z", 8),
    ("2026-04-01T02:00:00Z", 16),
];

/// The middle, the half width and the number of events of each that a bundle has.
fn spells(bundle: &Bundle) -> Vec<(Timestamp, u64, u64)> {
    let text = serde_json::to_value(bundle).unwrap();
    let events = text["frames"].as_array().unwrap().iter();
    let events = events.flat_map(|frame| frame["events"].as_array().unwrap());
    let spell = |event: &serde_json::Value| {
        let at = Timestamp::parse_rfc3339(event["at"].as_str().unwrap()).unwrap();
        let about = event["about_micros"].as_u64().unwrap_or(0);
        (at, about, event["times"].as_u64().unwrap_or(1))
    };
    events.map(spell).collect()
}

#[test]
fn files_of_tiny_counter_are_taken_over_with_every_event_where_it_may_have_been() {
    let day = 86_400_000_000;
    let cases: [(&str, &str, Recorded, u64); 4] = [
        ("utc/app_launch.bin", "UTC", &LAUNCHES, 365 * day / 2),
        ("uniform/app_launch.bin", "UTC", &LAUNCHES, 365 * day / 2),
        (
            "new-york/api%2Fv1%3Aerrors%20caf%C3%A9%20100%25.bin",
            "America/New_York",
            &ERRORS,
            day / 2,
        ),
        // In a zone that it is not of the buckets are taken for spans of 24 hours.
        ("new-york/api%2Fv1%3Aerrors%20caf%C3%A9%20100%25.bin", "UTC", &ERRORS, 7 * day / 2),
    ];
    for (file, zone, recorded, widest) in cases {
        let counter = TinyCounter::from_bincode(&tiny_counter(file)).unwrap();
        let zone = zone.parse().unwrap();
        let bundle = Bundle::of_tiny_counters([("event", counter.clone())], zone).unwrap();
        let spells = spells(&bundle);
        let number = |of: &mut dyn Iterator<Item = u64>| of.sum::<u64>();
        let total = number(&mut recorded.iter().map(|(_, n)| *n));
        assert_eq!(number(&mut spells.iter().map(|(_, _, n)| *n)), total, "{file}");
        assert!(spells.iter().all(|(_, half, _)| *half <= widest), "{file}: {spells:?}");
        if zone.name() != "UTC" || !file.starts_with("new") {
            for (at, times) in recorded {
                let at = Timestamp::parse_rfc3339(at).unwrap();
                let has = |(middle, half, n): &&(Timestamp, u64, u64)| {
                    at.micros().abs_diff(middle.micros()) <= *half && n >= times
                };
                assert!(spells.iter().any(|spell| has(&spell)), "{file}: {at} in {spells:?}");
            }
        }
        let root = tempfile::tempdir().unwrap();
        let clock = TestClock::at(Timestamp::parse_rfc3339("2026-07-01T00:00:00Z").unwrap());
        let open = |name| Options::new().clock(clock.clone()).open(root.path().join(name)).unwrap();
        let (a, b) = (open("a"), open("b"));
        a.define(counters()).unwrap();
        assert_eq!(a.import(&bundle).unwrap().imported, spells.len() as u64);
        // The same state in another file, in which the grains come in another order.
        let text = serde_json::to_string(&bundle).unwrap();
        assert_eq!(a.import(&serde_json::from_str(&text).unwrap()).unwrap().imported, 0);
        let again = Bundle::of_tiny_counters([("event", counter)], zone).unwrap();
        assert_eq!(a.import(&again).unwrap().imported, 0);
        b.import(&a.export(&Cursor::beginning()).unwrap()).unwrap();
        assert_eq!(b.import(&again).unwrap().imported, 0, "by way of others, too");
        let row = a.query("counters").unwrap().get(&["event"]).unwrap().unwrap();
        assert_eq!(row.count, total);
        let first = Timestamp::parse_rfc3339(recorded[0].0).unwrap();
        assert!(row.first_seen <= first && row.first_seen <= row.last_seen);
    }
}

#[test]
fn an_export_of_tiny_counter_is_taken_over() {
    let text = String::from_utf8(tiny_counter("export.json")).unwrap();
    let counters: BTreeMap<String, TinyCounter> = serde_json::from_str(&text).unwrap();
    let bundle = Bundle::of_tiny_counters(counters.clone(), TimeZone::UTC).unwrap();
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::parse_rfc3339("2026-07-01T00:00:00Z").unwrap());
    let db = Options::new().clock(clock).open(root.path().join("a")).unwrap();
    db.define(self::counters()).unwrap();
    db.import(&bundle).unwrap();
    let count = |id: &str| db.query("counters").unwrap().get(&[id]).unwrap().unwrap().count;
    assert_eq!((count("refund"), count("sale")), (u64::from(u32::MAX), 33));
    // Of the sale before yesterday's noon only its day is known.
    let sale = spells(
        &Bundle::of_tiny_counters([("sale", counters["sale"].clone())], TimeZone::UTC).unwrap(),
    );
    let noon = Timestamp::parse_rfc3339("2026-06-28T12:00:00Z").unwrap();
    assert_eq!(sale[0], (noon, 43_200_000_000, 10));
    assert_eq!(
        sale[1..].iter().map(|(_, half, n)| (*half, *n)).collect::<Vec<_>>(),
        [(500_000, 11), (0, 12)]
    );
    for bad in ["", "x", &"long".repeat(99)] {
        let named = [(bad, counters["sale"].clone())];
        let bundle = Bundle::of_tiny_counters(named, TimeZone::UTC);
        assert_eq!(bundle.is_ok(), bad == "x", "{bad}");
    }
    let bad = text.replace("\"Days\"", "\"Ever\"");
    assert!(serde_json::from_str::<BTreeMap<String, TinyCounter>>(&bad).is_err());
}

#[test]
fn a_damaged_file_of_tiny_counter_is_an_error_or_another_counter() {
    let sample = tiny_counter("utc/app_launch.bin");
    for end in 0..sample.len() {
        let error = TinyCounter::from_bincode(&sample[..end]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    for at in 0..sample.len() {
        for to in [0, 0xff, sample[at] ^ 1] {
            let mut changed = sample.clone();
            changed[at] = to;
            if let Ok(counter) = TinyCounter::from_bincode(&changed) {
                let _ = Bundle::of_tiny_counters([("x", counter)], TimeZone::UTC);
            }
        }
    }
}

/// A counter of days, weeks and months, which lie across each other, in a zone that is so far behind.
fn state(today: u32, zone_hours: u32) -> TinyCounter {
    let (weeks, months) = (["2"; 40].join(","), ["9"; 10].join(","));
    let text = format!(
        r#"{{"starting_instant": "2026-06-30T12:00:01Z", "intervals": {{
        "Days": {{"data": [{today}, 0, 1, 4], "interval_start": "2026-06-30T{zone_hours:02}:00:00Z"}},
        "Weeks": {{"data": [{weeks}], "interval_start": "2026-06-29T{zone_hours:02}:00:00Z"}},
        "Months": {{"data": [{months}], "interval_start": "2026-06-01T{zone_hours:02}:00:00Z"}}}}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn directory(root: &tempfile::TempDir, name: &str) -> Db {
    let clock = TestClock::at(Timestamp::parse_rfc3339("2026-07-01T00:00:00Z").unwrap());
    Options::new().clock(clock).view(counters()).open(root.path().join(name)).unwrap()
}

fn count(db: &Db) -> u64 {
    db.query("counters").unwrap().get(&["event"]).unwrap().unwrap().count
}

#[test]
fn a_counter_is_moved_over_once_whatever_zone_was_said() {
    let root = tempfile::tempdir().unwrap();
    let zones = ["UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata"];
    let bundle = |zone: &str| {
        Bundle::of_tiny_counters([("event", state(2, 4))], zone.parse().unwrap()).unwrap()
    };
    let all: Vec<_> = zones.iter().map(|zone| spells(&bundle(zone))).collect();
    assert!(all.iter().any(|spells| spells.len() != all[0].len()), "zones matter: {all:?}");
    for (nth, first) in zones.iter().enumerate() {
        let db = directory(&root, first.rsplit('/').next().unwrap());
        db.import(&bundle(first)).unwrap();
        let number: u64 = all[nth].iter().map(|(_, _, n)| n).sum();
        assert_eq!(count(&db), number);
        for again in zones {
            for options in [ImportOptions::new(), ImportOptions::new().once()] {
                let outcome = db.import_with(&bundle(again), &options).unwrap();
                assert_eq!(outcome.imported, 0, "{first}, then {again}");
            }
        }
        assert_eq!(count(&db), number);
        // Nor by way of another directory that was told another zone.
        let other = directory(&root, &format!("other{nth}"));
        other.import(&bundle(zones[(nth + 1) % 4])).unwrap();
        let told = db.export(&Cursor::beginning()).unwrap();
        assert_eq!(other.import(&told).unwrap().imported, 0);
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(other.import(&serde_json::from_str(&text).unwrap()).unwrap().imported, 0);
    }
}

#[test]
fn a_later_state_of_a_counter_is_refused_where_it_is_moved_over_once() {
    let root = tempfile::tempdir().unwrap();
    let db = directory(&root, "db");
    let bundle =
        |today| Bundle::of_tiny_counters([("event", state(today, 0))], TimeZone::UTC).unwrap();
    let once = ImportOptions::new().once();
    db.import_with(&bundle(2), &once).unwrap();
    let before = count(&db);
    let error = db.import_with(&bundle(3), &once).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("(\"event\")"), "{error}");
    // Together with one that is not here nothing is taken of either.
    let two = [("event", state(3, 0)), ("other", state(1, 0))];
    let two = Bundle::of_tiny_counters(two, TimeZone::UTC).unwrap();
    assert!(db.import_with(&two, &once).is_err());
    assert_eq!((count(&db), db.query("counters").unwrap().key_count().unwrap()), (before, 1));
    // Another device's counter of this name is no later state.
    assert!(db.import(&bundle(3)).unwrap().imported > 0);
    assert!(count(&db) > before);
    assert_eq!(db.import_with(&bundle(3), &once).unwrap().imported, 0);
}

#[test]
fn a_counter_of_more_buckets_than_are_moved_over_is_refused() {
    let data = vec!["1"; (1 << 20) + 1].join(",");
    let text = format!(
        r#"{{"starting_instant": "2026-06-30T12:00:01Z", "intervals":
        {{"Seconds": {{"data": [{data}], "interval_start": "2026-06-30T12:00:00Z"}}}}}}"#
    );
    let counter: TinyCounter = serde_json::from_str(&text).unwrap();
    let error = Bundle::of_tiny_counters([("event", counter)], TimeZone::UTC).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("1048576"), "{error}");
}
