//! What bad input gets: an error that names it, and nothing of it is recorded anywhere. What is
//! merely strange (empty values, NUL, clocks that jump) is recorded and found again.

use quipu::{
    Component, Db, Durability, ErrorKind, Event, Grain, Keep, Limits, OnInvalid, Options, Row,
    TestClock, Timestamp, View,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const NOW: i64 = 1_700_000_000;
const DAY: Duration = Duration::from_hours(24);
const MICRO: Duration = Duration::from_micros(1);

fn now() -> Timestamp {
    Timestamp::from_secs(NOW)
}

fn options() -> Options {
    Options::new().clock(TestClock::at(now())).checkpoint_every(Duration::from_hours(1))
}

fn define_all(db: &Db) {
    db.define(View::new("by_event").by(["event"]).stats("value")).unwrap();
    db.define(View::new("by_user").by(["user"]).grain(Grain::Year, Keep::All)).unwrap();
    db.define(View::new("all").stats("value").stats("m0")).unwrap();
}

fn rows(db: &Db, view: &str) -> Vec<Row> {
    db.query(view).unwrap().rows().unwrap().map(Result::unwrap).collect()
}

fn everything(db: &Db) -> Vec<Vec<Row>> {
    ["by_event", "by_user", "all"].iter().map(|view| rows(db, view)).collect()
}

/// The event is refused by every way in, with an error that says these, and leaves no trace.
fn refused(db: &Db, event: &Event<'_>, says: &[&str]) {
    let before = (db.position(), db.statistics().events, everything(db));
    let refused = db.statistics().refused;
    let mut batch = db.batch();
    let errors = [
        db.record(event).unwrap_err(),
        db.record_with(event, Durability::Sync).unwrap_err(),
        batch.push(event).unwrap_err(),
        db.record_all([event.clone()], OnInvalid::Refuse).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        for part in says {
            assert!(error.to_string().contains(part), "{part:?} is not in: {error}");
        }
    }
    assert!(batch.is_empty());
    assert_eq!(db.record_batch(&mut batch).unwrap().recorded, 0);
    assert_eq!(db.statistics().refused, refused + 4);
    assert_eq!((db.position(), db.statistics().events, everything(db)), before);
}

fn reopened(path: &Path, check: impl Fn(&Db)) {
    for _ in 0..2 {
        let db = options().open(path).unwrap();
        check(&db);
        db.close().unwrap();
    }
}

#[test]
fn an_event_over_a_limit_is_refused_and_leaves_no_trace() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    define_all(&db);
    db.record(&Event::new("sale").dim("user", "alice").value(1.0)).unwrap();
    let e = || Event::new("sale").dim("user", "bob");
    let (name, value) = ("n".repeat(256), "v".repeat(1_025));
    let (wide, id) = ("é".repeat(128), "i".repeat(256));
    let payload = vec![0; Limits::PAYLOAD_BYTES + 1];
    let names: Vec<String> = (0..33).map(|i| format!("m{i}")).collect();
    let many_dims = names.iter().fold(Event::new("sale"), |e, name| e.dim(name, "x"));
    let many_measures = names.iter().fold(Event::new("sale"), |e, name| e.measure(name, 1.0));

    refused(&db, &Event::new(""), &["event name is empty"]);
    refused(&db, &Event::new(&name), &["event name", "256 bytes", "255 are allowed"]);
    refused(&db, &Event::new(&wide), &["256 bytes"]);
    refused(&db, &e().dim("", "x"), &["sale", "dimension name is empty"]);
    refused(&db, &e().dim(&name, "x"), &["sale", "dimension name", "256 bytes"]);
    refused(&db, &e().dim("product", &value), &["sale", "\"product\"", "1025 bytes", "1024"]);
    refused(&db, &e().dim("user", "carol"), &["sale", "\"user\"", "twice"]);
    refused(&db, &e().dim("event", "x"), &["sale", "\"event\""]);
    refused(&db, &many_dims, &["sale", "33 dimensions", "32"]);
    refused(&db, &e().measure("", 1.0), &["sale", "measure name is empty"]);
    refused(&db, &e().measure(&name, 1.0), &["sale", "measure name", "256 bytes"]);
    refused(&db, &e().value(1.0).value(2.0), &["sale", "\"value\"", "twice"]);
    refused(&db, &many_measures, &["sale", "33 measures", "32"]);
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        refused(&db, &e().value(1.0).measure("weight", bad), &["\"sale\"", "\"weight\"", "finite"]);
    }
    refused(&db, &e().entity(""), &["sale", "entity is empty"]);
    refused(&db, &e().entity(&id), &["sale", "entity", "256 bytes"]);
    refused(&db, &e().id(""), &["sale", "id is empty"]);
    refused(&db, &e().id(&id), &["sale", "id", "256 bytes"]);
    refused(&db, &e().payload(&payload), &["sale", "payload", "1048577 bytes", "1048576"]);
    db.close().unwrap();
    reopened(&root.path().join("db"), |db| {
        assert_eq!(db.statistics().events, 1);
        assert_eq!(rows(db, "by_user").len(), 1);
    });
}

#[test]
fn an_event_at_every_limit_is_accepted_and_found_after_reopening() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let (name, value, id) = ("é".repeat(127), "v".repeat(1_024), "i".repeat(255));
    let payload = vec![7; Limits::PAYLOAD_BYTES];
    let names: Vec<String> = (0..32).map(|i| format!("{i:0255}")).collect();
    let event = names.iter().fold(Event::new(&name), |e, name| e.dim(name, &value));
    let event = names.iter().fold(event, |e, name| e.measure(name, 0.25));
    let event = event.entity(&id).id(&id).payload(&payload);
    {
        let db = options().segment_bytes(64 << 10).open(&path).unwrap();
        db.define(View::new("v").by(names[..8].to_vec()).stats(&names[31])).unwrap();
        db.record(&event).unwrap();
        db.record_all(vec![event.clone(); 6], OnInvalid::Refuse).unwrap();
        // What comes behind a frame larger than a segment is there as well.
        db.record(&Event::new("small")).unwrap();
    }
    reopened(&path, |db| {
        assert_eq!(db.statistics().events, 8);
        let row = db.query("v").unwrap().get(&[value.as_str(); 8]).unwrap().unwrap();
        assert_eq!((row.count, row.summary().unwrap().sum), (7, 1.75));
    });
}

#[test]
fn event_times_are_accepted_to_the_microsecond_at_both_ends() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let at = |time| Event::new("sale").dim("user", "alice").at(time);
    let micros = Timestamp::from_micros;
    {
        let db = options().open(&path).unwrap();
        define_all(&db);
        for time in [i64::MIN, Timestamp::MIN.micros() - 1, Timestamp::MAX.micros() + 1, i64::MAX] {
            refused(&db, &at(micros(time)), &["sale", "out of range"]);
        }
        refused(&db, &at(now().saturating_add(DAY + MICRO)), &["sale", "future", "86400s"]);
        db.record(&at(now().saturating_add(DAY))).unwrap();
        db.record(&at(Timestamp::MIN)).unwrap();
        db.close().unwrap();
        let db = options().future_skew(Duration::ZERO).open(&path).unwrap();
        refused(&db, &at(now().saturating_add(MICRO)), &["future"]);
        db.record(&at(now())).unwrap();
        db.close().unwrap();
        let db = options().future_skew(Duration::MAX).open(&path).unwrap();
        refused(&db, &at(micros(Timestamp::MAX.micros() + 1)), &["out of range"]);
        db.record(&at(Timestamp::MAX)).unwrap();
    }
    reopened(&path, |db| {
        let query = db.query("by_user").unwrap();
        let row = query.get(&["alice"]).unwrap().unwrap();
        assert_eq!(row.count, 4);
        assert_eq!((row.first_seen, row.last_seen), (Timestamp::MIN, Timestamp::MAX));
        let years = query.buckets(&["alice"], Grain::Year).unwrap();
        let years: Vec<_> = years.iter().map(|b| (b.start.to_string(), b.count)).collect();
        let expected = [("0001", 1), ("2023", 2), ("9999", 1)];
        assert_eq!(years, expected.map(|(y, n)| (format!("{y}-01-01T00:00:00.000Z"), n)));
    });
}

#[test]
fn a_batch_begun_long_ago_measures_the_future_from_now() {
    let root = tempfile::tempdir().unwrap();
    let clock = TestClock::at(now());
    let db = options().clock(clock.clone()).open(root.path().join("db")).unwrap();
    let mut batch = db.batch();
    batch.push(&Event::new("early")).unwrap();
    clock.advance(DAY * 10);
    batch.push(&Event::new("late").at(now().saturating_add(DAY * 11))).unwrap();
    batch.push(&Event::new("later").at(now().saturating_add(DAY * 12))).unwrap_err();
    assert_eq!(db.record_batch(&mut batch).unwrap().recorded, 2);
}

/// What is known of the event before spares looking at names again, and at nothing else.
#[test]
fn an_event_like_the_one_before_it_is_checked_no_less() {
    let root = tempfile::tempdir().unwrap();
    let skew = options().future_skew(Duration::MAX);
    let db = skew.open(root.path().join("db")).unwrap();
    define_all(&db);
    let good = || Event::new("sale").at(now());
    let whole = || good().dim("user", "ann").dim("product", "tea").value(1.0);
    let long = "v".repeat(Limits::VALUE_BYTES + 1);
    let wrong = [
        good().dim("user", &long),
        good().dim("user", "ann").dim("product", &long),
        good().dim("user", "ann").dim("user", "bob"),
        good().dim("product", "ann").dim("event", "tea"),
        good().dim("", "ann"),
        good().value(f64::NAN),
        whole().measure("value", 2.0),
        whole().times(0),
        whole().entity(""),
        whole().id(""),
        Event::new("").at(now()).dim("user", "ann"),
        Event::new(&long).at(now()),
        whole().at(Timestamp::MAX.saturating_add(MICRO)),
        whole().at(Timestamp::MIN.saturating_sub(MICRO)),
    ];
    let mut batch = db.batch();
    for wrong in &wrong {
        batch.push(&whole()).unwrap();
        let before = batch.len();
        let error = batch.push(wrong).unwrap_err();
        assert_eq!((error.kind(), batch.len()), (ErrorKind::Invalid, before), "{error}");
        batch.push(&good().dim("user", "ann")).unwrap();
        batch.push(&good().dim("product", "tea").dim("user", "bob").value(0.5)).unwrap();
    }
    let n = wrong.len() as u64;
    assert_eq!(db.record_batch(&mut batch).unwrap().recorded, 3 * n);
    let users: Vec<_> =
        rows(&db, "by_user").iter().map(|row| (row.key[0].clone(), row.count)).collect();
    assert_eq!(users, [("ann".to_owned(), 2 * n), ("bob".to_owned(), n)]);
    assert_eq!(rows(&db, "all")[0].summary().unwrap().sum, 1.5 * n as f64);
    assert_eq!(db.statistics().refused, n);
}

/// Batches of which each event counts for one at a time that is known take a shorter way.
#[test]
fn a_batch_leaves_what_its_events_do_one_by_one_whatever_they_stand_for() {
    let root = tempfile::tempdir().unwrap();
    let views = [
        View::new("one").by(["user"]).stats("value"),
        View::new("two").by(["user", "product"]).stats("value").stats("price"),
        View::new("none").by(["product"]),
        View::new("some").stats("price").only_events(["sale"]),
        View::new("users").by(["user"]).stats("value").distinct("product"),
    ];
    let open = |name: &str| {
        let db = options().open(root.path().join(name)).unwrap();
        for view in &views {
            db.define(view.clone()).unwrap();
        }
        db
    };
    for rare in [0, 1, 2, 3] {
        let (single, together) = (open(&format!("single{rare}")), open(&format!("batch{rare}")));
        let mut batch = together.batch();
        let mut counts = BTreeMap::new();
        for n in 0..300_u64 {
            let user = format!("user{}", n * n % 17);
            *counts.entry(user.clone()).or_insert(0) +=
                if rare == 1 && n % 11 == 3 { n } else { 1 };
            let time = now().saturating_sub(Duration::from_secs(n * 7_919 % 1_000));
            let mut event =
                Event::new(["sale", "visit"][usize::from(n % 5 == 4)]).dim("user", &user);
            event = if rare == 2 && n % 9 == 0 {
                event.at_about(time, Duration::from_secs(n))
            } else {
                event.at(time)
            };
            if rare == 1 && n % 11 == 3 {
                event = event.times(n);
            }
            if n % 3 > 0 {
                event =
                    event.dim("product", ["tea", "pot"][(n % 2) as usize]).measure("price", 0.1);
            }
            if rare == 3 || n % 4 > 0 {
                event = event.value(n as f64 - 100.0);
            }
            single.record(&event).unwrap();
            batch.push(&event).unwrap();
            if n % 97 == 96 {
                together.record_batch(&mut batch).unwrap();
            }
        }
        together.record_batch(&mut batch).unwrap();
        let rows_of_one = rows(&together, "one").into_iter();
        assert_eq!(
            rows_of_one.map(|row| (row.key[0].clone(), row.count)).collect::<BTreeMap<_, _>>(),
            counts
        );
        for view in &views {
            let (single, together) = (rows(&single, view.name()), rows(&together, view.name()));
            assert_eq!(single, together, "{} of {rare}", view.name());
        }
    }
}

#[test]
fn a_batch_that_refused_an_event_goes_on_without_it() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let check = |db: &Db| {
        let users: Vec<_> = rows(db, "by_user").into_iter().map(|r| (r.key, r.count)).collect();
        assert_eq!(users, [(vec!["alice".to_owned()], 2), (vec!["bob".to_owned()], 1)]);
        let all = &rows(db, "all")[0];
        assert_eq!(all.stats("value").unwrap().sum, 7.0);
        assert_eq!(all.stats("m0").unwrap().count_value, 0);
        assert_eq!(db.statistics().events, 4);
    };
    {
        let db = options().open(&path).unwrap();
        define_all(&db);
        let mut batch = db.batch();
        batch.push(&Event::new("sale").dim("user", "alice").value(1.0)).unwrap();
        // Everything before the part that is wrong was right.
        let bad = Event::new("sale").dim("user", "mallory").measure("m0", 5.0).payload(&[1]);
        batch.push(&bad.clone().value(f64::NAN)).unwrap_err();
        batch.push(&bad.clone().at(Timestamp::MAX)).unwrap_err();
        batch.push(&bad.dim("user", "twice")).unwrap_err();
        batch.push(&Event::new("sale").dim("user", "bob").value(2.0)).unwrap();
        batch.push(&Event::new("")).unwrap_err();
        assert_eq!(batch.len(), 2);
        let outcome = db.record_batch(&mut batch).unwrap();
        assert_eq!((outcome.recorded, outcome.position), (2, db.position()));
        assert!(batch.is_empty());
        // And it is used again, cleared or not.
        batch.push(&Event::new("gone")).unwrap();
        batch.clear();
        assert_eq!(batch.len(), 0);
        batch.push(&Event::new("sale").dim("user", "alice").value(4.0)).unwrap();
        batch.push(&Event::new("other")).unwrap();
        assert_eq!(db.record_batch(&mut batch).unwrap().recorded, 2);
        check(&db);
        assert_eq!(db.statistics().refused, 4);
    }
    reopened(&path, check);
}

#[test]
fn recording_all_refuses_or_skips_and_says_which() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("db")).unwrap();
    define_all(&db);
    let events = || {
        (0..6).map(|i| {
            let name = if i == 3 { "" } else { "sale" };
            Event::new(name).value(if i == 4 { f64::NAN } else { 1.0 })
        })
    };
    let error = db.record_all(events(), OnInvalid::Refuse).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("event 3"), "{error}");
    assert_eq!((db.statistics().events, rows(&db, "all").len()), (0, 0));
    let outcome = db.record_all(events(), OnInvalid::Skip).unwrap();
    assert_eq!((outcome.recorded, outcome.position), (4, db.position()));
    let places: Vec<usize> = outcome.refused.iter().map(|(at, _)| *at).collect();
    assert_eq!(places, [3, 4]);
    assert!(outcome.refused[1].1.to_string().contains("\"sale\""));
    assert_eq!(rows(&db, "all")[0].count, 4);
    assert_eq!(db.statistics().refused, 3);
    let none = db.record_all([], OnInvalid::Refuse).unwrap();
    assert_eq!((none.recorded, none.position), (0, db.position()));
}

#[test]
fn a_batch_is_recorded_where_it_was_made() {
    let root = tempfile::tempdir().unwrap();
    let db = options().open(root.path().join("a")).unwrap();
    let other = options().open(root.path().join("b")).unwrap();
    let mut batch = db.batch();
    batch.push(&Event::new("sale")).unwrap();
    let error = other.record_batch(&mut batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("another Db"), "{error}");
    assert_eq!((batch.len(), other.statistics().events), (1, 0));
    assert_eq!(db.clone().record_batch(&mut batch).unwrap().recorded, 1, "a clone is the same");
    batch.push(&Event::new("sale")).unwrap();
    drop(db);
    let db = options().open(root.path().join("a")).unwrap();
    assert_eq!(db.record_batch(&mut batch).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(db.statistics().events, 1);
}

#[test]
fn strange_texts_are_values_like_others() {
    let texts = [
        "",
        "\n",
        "\r\n",
        "\0",
        "\0\0",
        "\0a",
        "a",
        "a\0",
        "a\0\0",
        "a\0b",
        "a\u{1}",
        "a\u{1}b",
        "ab",
        "a\u{ff}",
        "\u{1}",
        "\u{7f}",
        "é",
        "e\u{301}",
        "日本",
        "🦀",
        "\u{10ffff}",
        "\u{d7ff}",
        " ",
        "\"",
        "\u{feff}",
        "NULL",
        "event",
    ];
    let mut sorted = texts.to_vec();
    sorted.sort_unstable();
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let check = |db: &Db| {
        let keys = |rows: Vec<Row>| rows.into_iter().map(|row| row.key).collect::<Vec<_>>();
        let expected: Vec<Vec<&str>> = sorted.iter().map(|text| vec![*text]).collect();
        assert_eq!(keys(rows(db, "one")), expected, "in bytewise order");
        let named: Vec<_> = sorted.iter().filter(|text| !text.is_empty()).collect();
        let names = keys(rows(db, "names"));
        assert_eq!(names, named.iter().map(|text| vec![**text]).collect::<Vec<_>>());
        let pairs: Vec<Vec<&str>> =
            sorted.iter().flat_map(|a| sorted.iter().map(move |b| vec![*a, *b])).collect();
        assert_eq!(keys(rows(db, "two")), pairs);
        for (i, text) in texts.iter().enumerate() {
            let row = db.query("one").unwrap().get(&[text]).unwrap().unwrap();
            assert_eq!(row.count, texts.len() as u64, "{text:?}");
            let under = db.query("two").unwrap().prefix(&[text]).unwrap();
            let under = keys(under.map(Result::unwrap).collect());
            let expected: Vec<Vec<&str>> = sorted.iter().map(|b| vec![*text, *b]).collect();
            assert_eq!(under, expected, "under {text:?}");
            let only = &rows(db, &format!("only{i}"))[0];
            assert_eq!(only.count, texts.len() as u64, "{text:?}");
        }
        let top = db.query("one").unwrap().top(texts.len(), Component::Count).unwrap();
        assert_eq!(keys(top), expected, "ties by key");
    };
    {
        let db = options().open(&path).unwrap();
        db.define(View::new("names").by(["event"])).unwrap();
        db.define(View::new("one").by(["a"])).unwrap();
        db.define(View::new("two").by(["a", "b"])).unwrap();
        for (i, text) in texts.iter().enumerate() {
            db.define(View::new(format!("only{i}")).where_equal("a", *text)).unwrap();
        }
        for a in texts {
            for b in texts {
                let event = Event::new(if a.is_empty() { "a" } else { a }).dim("a", a).dim("b", b);
                let named = if a.is_empty() { event } else { event.dim(a, "x").id(a) };
                match a {
                    // Those names are the event's dimensions already.
                    "a" | "event" => db.record(&Event::new(a).dim("a", a).dim("b", b)),
                    _ => db.record(&named.entity("\0\n")),
                }
                .unwrap();
            }
        }
        check(&db);
    }
    reopened(&path, check);
    options().open(&path).unwrap().checkpoint().unwrap();
    reopened(&path, check);
}

/// Sparse columns: 700 dimension names, each in some events only, over chunk borders.
#[test]
fn a_huge_batch_of_many_shapes_is_recorded_whole() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let names: Vec<String> = (0..700).map(|i| format!("d{i}")).collect();
    let mut expected: BTreeMap<(usize, usize, usize), (u64, f64)> = BTreeMap::new();
    let n = 20_000_usize;
    // A burst of strangers every 4,000 events, one or two of a few familiar ones else.
    let dims_of = |i: usize| -> Vec<usize> {
        match i % 4_000 {
            j @ 0..700 => (0..(j % 32)).map(|k| (j + k * 17) % 700).collect(),
            _ if i.is_multiple_of(3) => vec![],
            _ if i.is_multiple_of(5) => vec![3, 1],
            _ => vec![1, 2, 3],
        }
    };
    {
        let db = options().open(&path).unwrap();
        for watched in [1, 3, 250, 699] {
            let view = View::new(format!("w{watched}")).by([&names[watched]]).stats("value");
            db.define(view).unwrap();
        }
        db.define(View::new("pair").by(["d3", "d1"]).stats("other")).unwrap();
        db.define(View::new("all").stats("value").stats("other")).unwrap();
        let mut batch = db.batch();
        for i in 0..n {
            let values: Vec<String> =
                dims_of(i).iter().map(|d| format!("{}", (i + d) % 5)).collect();
            let mut event = Event::new(if i % 2 == 0 { "even" } else { "odd" });
            for (dim, value) in dims_of(i).into_iter().zip(&values) {
                event = event.dim(&names[dim], value);
            }
            if i % 7 == 0 {
                event = event.measure("other", -1.0);
            }
            if i % 3 != 1 {
                event = event.value(i as f64);
            }
            batch.push(&event).unwrap();
            for dim in dims_of(i) {
                let entry = expected.entry((dim, (i + dim) % 5, 0)).or_default();
                entry.0 += 1;
                entry.1 += if i % 3 == 1 { 0.0 } else { i as f64 };
            }
        }
        assert_eq!(batch.len(), n);
        let outcome = db.record_batch(&mut batch).unwrap();
        assert_eq!((outcome.recorded, batch.len()), (n as u64, 0));
    }
    reopened(&path, |db| {
        assert_eq!(db.statistics().events, n as u64);
        for watched in [1_usize, 3, 250, 699] {
            let got: BTreeMap<_, _> = rows(db, &format!("w{watched}"))
                .into_iter()
                .map(|row| {
                    let value: usize = row.key[0].parse().unwrap();
                    ((watched, value, 0), (row.count, row.stats[0].1.sum))
                })
                .collect();
            let want: BTreeMap<_, _> = expected
                .range((watched, 0, 0)..(watched + 1, 0, 0))
                .map(|(k, v)| (*k, *v))
                .collect();
            assert_eq!(got, want, "dimension {watched}");
            assert!(!want.is_empty());
        }
        let both = (0..n).filter(|i| {
            let dims = dims_of(*i);
            dims.contains(&1) && dims.contains(&3)
        });
        let both: Vec<usize> = both.collect();
        let totals = db.query("pair").unwrap().totals().unwrap();
        assert_eq!(totals.count, both.len() as u64);
        let other = both.iter().filter(|i| *i % 7 == 0).count();
        assert_eq!(totals.summary().unwrap().sum, -(other as f64));
        let all = &rows(db, "all")[0];
        assert_eq!(all.count, n as u64);
        let measured = (0..n).filter(|i| i % 3 != 1);
        assert_eq!(all.stats("value").unwrap().count_value, measured.clone().count() as u64);
        assert_eq!(all.stats("value").unwrap().sum, measured.map(|i| i as f64).sum::<f64>());
        assert_eq!(all.stats("other").unwrap().count_value, n.div_ceil(7) as u64);
    });
}

#[test]
fn an_event_without_the_measure_is_counted_and_without_the_dimension_in_no_group() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    {
        let db = options().open(&path).unwrap();
        define_all(&db);
        db.define(View::new("pair").by(["user", "shop"])).unwrap();
        db.record(&Event::new("sale").dim("user", "alice")).unwrap();
        db.record(&Event::new("sale").dim("user", "alice").value(2.0).measure("other", 9.0))
            .unwrap();
        db.record(&Event::new("sale").dim("shop", "north").value(3.0)).unwrap();
        db.record(&Event::new("visit")).unwrap();
    }
    reopened(&path, |db| {
        let users = rows(db, "by_user");
        assert_eq!(users.len(), 1);
        assert_eq!((users[0].key.as_slice(), users[0].count), (&["alice".to_owned()][..], 2));
        assert_eq!(rows(db, "pair"), []);
        assert_eq!(db.query("pair").unwrap().totals().unwrap().count, 0);
        let events = db.query("by_event").unwrap();
        let sale = events.get(&["sale"]).unwrap().unwrap();
        let summary = sale.summary().unwrap();
        assert_eq!((sale.count, summary.count_value, summary.sum), (3, 2, 5.0));
        let visit = events.get(&["visit"]).unwrap().unwrap();
        let summary = visit.summary().unwrap();
        assert_eq!((visit.count, summary.count_value, summary.sum), (1, 0, 0.0));
        assert_eq!((summary.min, summary.max, summary.mean), (None, None, None));
        assert_eq!((summary.var_pop, summary.var_samp), (None, None));
        assert_eq!(events.top(5, Component::Sum).unwrap().len(), 1);
        assert_eq!(events.top(5, Component::Count).unwrap().len(), 2);
    });
}

#[test]
fn a_negative_zero_measures_like_a_positive_one_in_either_order() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    {
        let db = options().open(&path).unwrap();
        define_all(&db);
        for (name, values) in
            [("a", &[0.0, -0.0][..]), ("b", &[-0.0, 0.0]), ("c", &[-0.0]), ("d", &[0.0])]
        {
            for value in values {
                db.record(&Event::new(name).value(*value)).unwrap();
            }
        }
    }
    reopened(&path, |db| {
        let summaries: Vec<_> = rows(db, "by_event")
            .iter()
            .map(|row| {
                let s = row.summary().unwrap();
                let bits = |x: Option<f64>| x.unwrap().to_bits();
                (bits(Some(s.sum)), bits(s.min), bits(s.max), bits(s.mean), s.var_pop)
            })
            .collect();
        assert!(summaries.iter().all(|s| *s == (0, 0, 0, 0, Some(0.0))), "{summaries:?}");
        let order = |component| {
            let top = db.query("by_event").unwrap().top(4, component).unwrap();
            top.into_iter().map(|row| row.key[0].clone()).collect::<String>()
        };
        assert_eq!(order(Component::Min), "abcd");
        assert_eq!(order(Component::Sum), "abcd");
    });
}

#[test]
fn extreme_measures_are_summed_and_come_back() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let values = [f64::MAX, f64::MIN_POSITIVE, 5e-324, 1.0, -f64::MAX];
    {
        let db = options().open(&path).unwrap();
        define_all(&db);
        for value in values {
            db.record(&Event::new("sum").value(value)).unwrap();
            db.record(&Event::new("over").value(value.abs())).unwrap();
        }
    }
    reopened(&path, |db| {
        let query = db.query("by_event").unwrap();
        let sum = query.get(&["sum"]).unwrap().unwrap();
        let sum = sum.summary().unwrap();
        assert_eq!(sum.sum, 1.0);
        assert_eq!((sum.min, sum.max), (Some(-f64::MAX), Some(f64::MAX)));
        let over = query.get(&["over"]).unwrap().unwrap();
        let over = over.summary().unwrap();
        assert_eq!(over.sum, f64::INFINITY, "documented: infinite only where it exceeds f64");
        assert!(!over.mean.unwrap().is_nan() && !over.var_pop.unwrap().is_nan());
    });
}

#[test]
fn a_clock_that_jumps_back_and_forth_is_taken_at_its_word() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let clock = TestClock::at(now());
    let times = [NOW, NOW + 86_400 * 400, NOW - 86_400 * 4_000, 0, NOW - 1, -5_000_000_000, NOW];
    {
        let db = options().clock(clock.clone()).open(&path).unwrap();
        define_all(&db);
        let mut batch = db.batch();
        for (i, secs) in times.into_iter().enumerate() {
            clock.set(Timestamp::from_secs(secs));
            db.record(&Event::new("tick").dim("user", "alice").value(1.0)).unwrap();
            batch.push(&Event::new("tick").dim("user", "bob")).unwrap();
            db.record_batch(&mut batch).unwrap();
            if i % 2 == 1 {
                db.checkpoint().unwrap();
            }
        }
    }
    reopened(&path, |db| {
        for user in ["alice", "bob"] {
            let row = db.query("by_user").unwrap().get(&[user]).unwrap().unwrap();
            assert_eq!(row.count, times.len() as u64);
            assert_eq!(row.first_seen, Timestamp::from_secs(-5_000_000_000), "{user}");
            assert_eq!(row.last_seen, Timestamp::from_secs(NOW + 86_400 * 400), "{user}");
            let years = db.query("by_user").unwrap().buckets(&[user], Grain::Year).unwrap();
            assert_eq!(years.iter().map(|b| b.count).collect::<Vec<_>>(), [1, 1, 1, 3, 1]);
        }
    });
}

/// A clock may say anything; what it says is checked like what a caller says.
#[test]
fn an_event_takes_no_time_from_the_clock_that_it_could_not_be_given() {
    for moment in [i64::MIN, Timestamp::MIN.micros() - 1, Timestamp::MAX.micros() + 1, i64::MAX] {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("db");
        let clock = TestClock::at(Timestamp::from_micros(moment));
        {
            let db = options().clock(clock.clone()).open(&path).unwrap();
            define_all(&db);
            let error = db.record(&Event::new("tick").dim("user", "alice")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{moment}");
            clock.set(now());
            db.record(&Event::new("tick").dim("user", "alice")).unwrap();
            clock.set(Timestamp::from_micros(moment));
            db.checkpoint().unwrap();
        }
        reopened(&path, |db| {
            let row = db.query("by_user").unwrap().get(&["alice"]).unwrap().unwrap();
            assert_eq!((row.count, row.first_seen), (1, now()));
        });
    }
}

#[test]
fn absurd_durations_do_not_stop_the_engine() {
    let absurd = [Duration::ZERO, Duration::from_nanos(1), Duration::MAX];
    for (i, every) in absurd.into_iter().enumerate() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(format!("db{i}"));
        let open = || {
            options()
                .checkpoint_every(every)
                .checkpoint_log_bytes(i as u64)
                .durability(Durability::Interval(every))
                .dedup(quipu::Dedup::For(every))
                .retention(quipu::Retention::Age(every))
                .future_skew(every)
                .memory_budget(0)
                .segment_bytes(0)
        };
        let db = open().open(&path).unwrap();
        define_all(&db);
        for n in 0..50 {
            let id = n.to_string();
            db.record(&Event::new("e").dim("user", "alice").id(&id)).unwrap();
        }
        db.sync().unwrap();
        drop(db);
        let db = open().open(&path).unwrap();
        assert_eq!(rows(&db, "by_user")[0].count, 50);
    }
}

#[test]
fn an_absurd_number_of_expected_keys_is_only_a_hint() {
    let root = tempfile::tempdir().unwrap();
    let db = options().expected_keys(usize::MAX).open(root.path().join("db")).unwrap();
    define_all(&db);
    db.record(&Event::new("e").dim("user", "alice")).unwrap();
    assert_eq!(rows(&db, "by_user")[0].count, 1);
}
