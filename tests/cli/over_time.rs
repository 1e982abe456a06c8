//! `series`, `seen`, `ratio`: questions about time.

use crate::Shop;
use quipu::{Clock, SystemClock};
use std::time::Duration;

/// A directory with a view of counters, in which things happened so many minutes ago.
fn recent(happened: &[(&str, u64)]) -> Shop {
    let shop = Shop::new();
    let now = SystemClock.now();
    let events = happened.iter().map(|(name, minutes)| {
        let ts = now.saturating_sub(Duration::from_mins(*minutes)).millis();
        format!("{{\"event\":\"{name}\",\"ts\":{ts}}}\n")
    });
    let file = shop.file("events.ndjson", events.collect::<String>());
    shop.run(&["load", &file]).ok();
    let grains = "minute=60,hour=72,day=56";
    shop.run(&["define", "counters", "--by", "event", "--grain", grains, "--backfill"]).ok();
    shop
}

#[test]
fn series_shows_each_bucket_of_the_range() {
    let shop = recent(&[("error", 1), ("error", 2), ("error", 90), ("sale", 1)]);
    let days = shop.run(&["series", "counters", "error", "--last", "7d"]).ok().json_lines();
    assert_eq!(days.len(), 7);
    assert_eq!(days.iter().map(|day| day["count"].as_u64().unwrap()).sum::<u64>(), 3);
    assert!(days[0].get("").is_none(), "bars are for people");
    let hours = shop.run(&["series", "counters", "error", "--last", "2d", "--grain", "hour"]).ok();
    assert!((25..=48).contains(&hours.json_lines().len()), "two days up to this hour");
    let table = shop.run(&["series", "counters", "error", "--last", "3h", "-f", "table"]).ok();
    assert!(table.out.contains("████"), "{}", table.out);
}

#[test]
fn a_span_is_counted_between_bounds() {
    let shop = recent(&[("error", 1), ("error", 90), ("error", 60 * 30)]);
    let day = shop.run(&["series", "counters", "error", "--last", "24h", "--trailing"]).ok().json();
    assert_eq!((day["lower"].as_u64(), day["upper"].as_u64()), (Some(2), Some(2)));
    let month = ["series", "counters", "error", "--last", "2mo", "--trailing"];
    shop.run(&month).failed(2, "no length of its own");
    let span = ["--from", "2011-12-02T00:00:00Z", "--to", "2011-12-01T00:00:00Z"];
    shop.run(&[&["series", "counters", "error"], &span[..]].concat()).failed(1, "2011-12-01");
}

#[test]
fn more_than_is_kept_is_refused_or_marked() {
    let shop = recent(&[("error", 1)]);
    let year = ["series", "counters", "error", "--last", "365d"];
    shop.run(&year).failed(1, "--kept");
    let kept = shop.run(&[&year[..], &["--kept"]].concat()).ok().json_lines();
    assert_eq!(kept.len(), 56);
    // Who asked for what is kept is not told to.
    let old = recent(&[("error", 1), ("error", 100 * 24 * 60), ("error", 102 * 24 * 60)]);
    let ago =
        |days: u64| SystemClock.now().saturating_sub(Duration::from_hours(24 * days)).millis();
    let (from, to) = (ago(101).to_string(), ago(99).to_string());
    let span = ["series", "counters", "error", "--from", &from, "--to", &to];
    old.run(&span).failed(1, "--kept");
    let refused = old.run(&[&span[..], &["--kept"]].concat());
    refused.failed(1, "ends later");
    assert!(!refused.err.contains("--kept"), "{refused:?}");
    shop.run(&["series", "counters", "nobody", "--last", "7d"]).failed(1, "no such key");
    shop.run(&["series", "counters", "error", "--last", "7x"]).failed(2, "as in 24h");
    shop.run(&["series", "counters", "error"]).failed(2, "--last");
}

#[test]
fn seen_tells_and_checks_when_it_was() {
    let shop = recent(&[("backup", 3), ("backup", 600)]);
    let seen = shop.run(&["seen", "counters", "backup"]).ok().json();
    assert!(seen["age_s"].as_f64().unwrap() >= 180.0);
    assert!(seen["first_seen"].as_str() < seen["last_seen"].as_str());
    assert_eq!(seen["last_within_s"].as_f64(), Some(0.0));
    shop.run(&["seen", "counters", "backup", "--within", "1d"]).ok();
    shop.run(&["seen", "counters", "backup", "--within", "60s"]).failed(1, "not within 60 s");
    shop.run(&["seen", "counters", "restore"]).failed(1, "no such key");
}

#[test]
fn ratio_sets_two_keys_against_each_other() {
    let shop =
        recent(&[("error", 1), ("request", 1), ("request", 2), ("request", 3), ("old", 5_000)]);
    let ratio = ["ratio", "counters", "error", "request", "--last", "7d"];
    let answer = shop.run(&ratio).ok().json();
    assert_eq!((answer["count"].as_u64(), answer["of"].as_u64()), (Some(1), Some(3)));
    assert!((answer["ratio"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-12);
    shop.run(&["ratio", "counters", "error", "old", "--last", "1d"]).failed(1, "no ratio");
    shop.run(&["ratio", "counters", "error", "nobody", "--last", "1d"]).failed(1, "no such key");
    shop.run(&["ratio", "counters", "error", "--last", "1d"]).failed(2, "2 parts");
}

#[test]
fn a_ratio_of_what_is_kept_is_over_what_both_keys_have() {
    let happened: Vec<(&str, u64)> =
        (0..58).flat_map(|minutes| [("plain", minutes), ("ahead", minutes)]).collect();
    let shop = recent(&happened);
    let now = SystemClock.now();
    // Its ring of minutes goes on half an hour from now, and has lost as much of its begin.
    let millis = now.saturating_add(Duration::from_mins(30)).millis();
    let file = shop.file("ahead.ndjson", format!("{{\"event\":\"ahead\",\"ts\":{millis}}}\n"));
    shop.run(&["load", &file]).ok();
    let ratio = ["ratio", "counters", "ahead", "plain", "--last", "50m"];
    shop.run(&ratio).failed(1, "--kept");
    let answer = shop.run(&[&ratio[..], &["--kept"]].concat()).ok().json();
    assert_eq!(answer["count"], answer["of"], "{answer}");
    assert_eq!(answer["ratio"].as_f64(), Some(1.0), "{answer}");
}

#[test]
fn what_cannot_be_asked_together_is_refused_and_advice_can_be_followed() {
    let shop = Shop::new();
    shop.run(&[
        "load",
        &shop.file("a.ndjson", "{\"event\":\"e\",\"ts\":\"2026-11-01T08:00:00Z\"}\n"),
    ])
    .ok();
    let both = ["--trailing", "--from", "2026-11-01T00:00:00Z", "--to", "2026-11-02T00:00:00Z"];
    let run = shop.run(&[&["series", "by_hour"], &both[..]].concat());
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.err.contains("--trailing"), "{run:?}");
    let run = shop.run(&["series", "by_hour", "--from", "2026-11-01", "--to", "2026-11-02"]);
    assert_eq!(run.ok().json()["lower"], 1, "a date is one of the directory's time zone");
    let run = shop.run(&["series", "by_hour", "--from", "2026-11-01 07:00", "--to", "2026-11-02"]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.err.contains("2026-11-01T07:00:00Z"), "{run:?}");
    assert!(!run.err.contains("--assume-utc"), "{run:?}");
}

#[test]
fn buckets_may_be_shorter_than_a_second() {
    let shop = Shop::new();
    let lines =
        (0..250).map(|n| format!("{{\"event\":\"call\",\"ts\":{}}}\n", 1_700_000_000_000_i64 + n));
    let file = shop.file("events.ndjson", lines.collect::<String>());
    shop.run(&["load", &file]).ok();
    let define = ["define", "calls", "--by", "event", "--backfill", "--grain"];
    shop.run(&[&define[..], &["100ms=20,1ms=50"]].concat()).ok();
    let views = shop.run(&["views"]).ok().out;
    assert!(views.contains("50 buckets of 1ms, 20 buckets of 100ms"), "{views}");
    shop.run(&[&define[..], &["0ms=20"]].concat()).failed(2, "1ms to 366d");
    let tenths = shop.run(&["get", "calls", "call", "--buckets", "100ms"]).ok().json_lines();
    let counts: Vec<_> = tenths.iter().map(|tenth| tenth["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [100, 100, 50]);
    assert_eq!(tenths[2]["start"], "2023-11-14T22:13:20.200Z");
    let span = ["--from", "2023-11-14T22:13:20.210Z", "--to", "2023-11-14T22:13:20.235Z"];
    let sum = shop.run(&[&["series", "calls", "call"], &span[..]].concat()).ok().json();
    assert_eq!((sum["lower"].as_u64(), sum["upper"].as_u64()), (Some(25), Some(25)));
    // By now the last 300 ms are long past, and empty.
    let last = ["series", "calls", "call", "--last", "300ms", "--grain", "100ms"];
    assert!((3..=4).contains(&shop.run(&last).ok().json_lines().len()));
    let seen = ["seen", "calls", "call", "--within", "500ms"];
    shop.run(&seen).failed(1, "not within 0.500 s");
}
