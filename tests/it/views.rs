//! Views: which events they take, how they are told apart, what their buckets keep.

use crate::directory::{NOW, options};
use quipu::{Db, ErrorKind, Event, Grain, Keep, Row, Timestamp, View};

fn rows(db: &Db, view: &str) -> Vec<Row> {
    db.query(view).unwrap().rows().unwrap().map(Result::unwrap).collect()
}

fn count(db: &Db, view: &str) -> u64 {
    db.query(view).unwrap().totals().unwrap().count
}

#[test]
fn filters_take_what_meets_all_their_conditions() {
    type Said = (&'static str, Option<&'static str>, Option<&'static str>);
    type Takes = fn(Said) -> bool;
    let countries = [None, Some(""), Some("FR"), Some("DE"), Some("IT"), Some("fr")];
    let events: Vec<Said> = ["sale", "visit", "other", "Sale"]
        .into_iter()
        .flat_map(|name| countries.map(|country| (name, country)))
        .flat_map(|(name, country)| [None, Some("north")].map(|shop| (name, country, shop)))
        .collect();
    let v = View::new;
    let views: [(View, Takes); 15] = [
        (v("everything"), |_| true),
        (v("sales").only_events(["sale"]), |(n, ..)| n == "sale"),
        (v("two").only_events(["visit", "sale"]), |(n, ..)| n == "sale" || n == "visit"),
        (v("no such event").only_events(["nothing"]), |_| false),
        (v("no event").only_events(Vec::<String>::new()), |_| true),
        (v("french").where_equal("country", "FR"), |(_, c, _)| c == Some("FR")),
        (v("empty").where_equal("country", ""), |(_, c, _)| c == Some("")),
        (v("either").where_in("country", ["FR", "DE", "XX"]), |(_, c, _)| {
            c == Some("FR") || c == Some("DE")
        }),
        (v("french sales").only_events(["sale"]).where_equal("country", "FR"), |(n, c, _)| {
            (n, c) == ("sale", Some("FR"))
        }),
        (v("both").where_equal("country", "FR").where_equal("shop", "north"), |(_, c, s)| {
            (c, s) == (Some("FR"), Some("north"))
        }),
        (v("never").where_equal("country", "FR").where_equal("country", "DE"), |_| false),
        (
            v("overlap").where_in("country", ["FR", "DE"]).where_in("country", ["DE", "IT"]),
            |(_, c, _)| c == Some("DE"),
        ),
        (v("by name").where_equal("event", "sale"), |(n, ..)| n == "sale"),
        (v("twice").only_events(["sale"]).where_equal("event", "visit"), |_| false),
        (v("unheard").where_equal("unheard of", "x"), |_| false),
    ];
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    {
        let db = options().open(&path).unwrap();
        for (view, _) in &views {
            db.define(view.clone()).unwrap();
        }
        let mut batch = db.batch();
        for (i, (name, country, shop)) in events.iter().enumerate() {
            let event = Event::new(name);
            let event = country.iter().fold(event, |event, country| event.dim("country", country));
            let event = shop.iter().fold(event, |event, shop| event.dim("shop", shop));
            batch.push(&event).unwrap();
            if i % 9 == 0 {
                db.record_batch(&mut batch).unwrap();
            }
        }
        db.record_batch(&mut batch).unwrap();
    }
    for _ in 0..2 {
        let db = options().open(&path).unwrap();
        for (view, takes) in &views {
            let expected = events.iter().filter(|event| takes(**event)).count() as u64;
            assert_eq!(count(&db, view.name()), expected, "{view}");
        }
    }
}

#[test]
fn the_same_definition_again_is_no_change_and_another_is_a_conflict() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let v = || View::new("v").by(["a", "b"]).only_events(["x", "y"]).stats("value");
    let same = || View::new("v").by(["a", "b"]).only_events(["y", "x", "y"]).count().stats("value");
    let others = || {
        [
            v().by(["b", "a"]),
            v().by(["a"]),
            v().only_events(["x"]),
            v().stats("other"),
            v().where_equal("a", "1"),
            v().grain(Grain::Day, Keep::All),
        ]
    };
    let check = |db: &Db| {
        let position = db.position();
        assert!(!db.define(v()).unwrap());
        assert!(!db.define(same()).unwrap());
        for other in others() {
            let text = other.to_string();
            let error = db.define(other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ViewConflict);
            assert!(error.to_string().contains(&v().to_string()), "{error}");
            assert!(error.to_string().contains(&text), "{error}");
        }
        assert_eq!(db.position(), position, "nothing was logged");
        assert_eq!(db.views().unwrap().len(), 1);
    };
    {
        let db = options().open(&path).unwrap();
        assert!(db.define(v()).unwrap());
        check(&db);
    }
    check(&options().open(&path).unwrap());
}

/// The error of a conflict is of use only if the two do not read the same.
#[test]
fn two_definitions_that_differ_read_differently() {
    let v = || View::new("v");
    let pairs = [
        (v().by(["a, b"]), v().by(["a", "b"])),
        (v().only_events(["a b"]), v().only_events(["a", "b"])),
        (v().where_in("x", ["a b", "c"]), v().where_in("x", ["a", "b c"])),
        (v().where_equal("x", "1, y = 2"), v().where_equal("x", "1").where_equal("y", "2")),
        (v().stats("a, stats of b"), v().stats("a").stats("b")),
        (v().where_equal("x", ""), v().where_equal("x", " ")),
        (v().grain(Grain::Day, Keep::Last(1)), v().grain(Grain::Day, Keep::All)),
    ];
    let alike: Vec<_> =
        pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).filter(|(a, b)| a == b).collect();
    assert!(alike.is_empty(), "{alike:#?}");
}

#[test]
fn a_view_that_is_dropped_and_defined_again_starts_empty() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let v = || View::new("v").by(["user"]).stats("value").grain(Grain::Day, Keep::All);
    let event = || Event::new("e").dim("user", "alice").value(1.0);
    for checkpoints in 0..8_u8 {
        let path = path.join(format!("{checkpoints}"));
        let checkpoint = |db: &Db, bit: u8| {
            if checkpoints & bit != 0 {
                db.checkpoint().unwrap();
            }
        };
        {
            let db = options().open(&path).unwrap();
            db.define(v()).unwrap();
            db.define(View::new("keeper").stats("value")).unwrap();
            db.record(&event()).unwrap();
            checkpoint(&db, 1);
            let before = db.query("v").unwrap();
            db.drop_view("v").unwrap();
            assert_eq!(db.query("v").unwrap_err().kind(), ErrorKind::UnknownView);
            assert_eq!(db.drop_view("v").unwrap_err().kind(), ErrorKind::UnknownView);
            checkpoint(&db, 2);
            db.record(&event()).unwrap();
            assert!(db.define(v().stats("other")).unwrap(), "the name is free");
            assert_eq!(rows(&db, "v"), []);
            db.record(&event()).unwrap();
            checkpoint(&db, 4);
            let _ = before.get(&["alice"]);
            assert_eq!(rows(&db, "v")[0].count, 1);
        }
        for _ in 0..2 {
            let db = options().open(&path).unwrap();
            assert_eq!(rows(&db, "v")[0].count, 1, "checkpoints {checkpoints}");
            assert_eq!(db.query("v").unwrap().key_count().unwrap(), 1);
            assert_eq!(db.query("v").unwrap().buckets(&["alice"], Grain::Day).unwrap().len(), 1);
            assert_eq!(rows(&db, "keeper")[0].count, 3);
            let names: Vec<_> =
                db.views().unwrap().iter().map(|v| v.view.name().to_owned()).collect();
            assert_eq!(names, ["keeper", "v"], "in the order of their definition");
            db.checkpoint().unwrap();
        }
    }
}

#[test]
fn keys_have_none_to_eight_parts() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let dims: Vec<String> = (0..8).map(|i| format!("d{i}")).collect();
    let values: Vec<String> = (0..8).map(|i| format!("v{i}")).collect();
    {
        let db = options().open(&path).unwrap();
        for arity in 0..=8 {
            db.define(View::new(format!("v{arity}")).by(&dims[..arity]).stats("value")).unwrap();
        }
        let error = db.define(View::new("v9").by((0..9).map(|i| format!("d{i}")))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        // Event n has the first n dimensions, the last of them said first.
        for n in 0..=8 {
            let dims = dims.iter().zip(&values).take(n).rev();
            let event = dims.fold(Event::new("e"), |event, (dim, value)| event.dim(dim, value));
            db.record(&event.value(f64::from(1 << n))).unwrap();
        }
    }
    for _ in 0..2 {
        let db = options().open(&path).unwrap();
        for arity in 0..=8_usize {
            let rows = rows(&db, &format!("v{arity}"));
            assert_eq!(rows.len(), 1);
            assert_eq!(rows[0].key, values[..arity]);
            let sum = (arity..=8).map(|n| f64::from(1 << n)).sum::<f64>();
            assert_eq!((rows[0].count, rows[0].stats[0].1.sum), (9 - arity as u64, sum));
            let key: Vec<&str> = values[..arity].iter().map(String::as_str).collect();
            let query = db.query(&format!("v{arity}")).unwrap();
            assert_eq!(query.get(&key).unwrap().unwrap(), rows[0]);
        }
        assert_eq!(db.views().unwrap().len(), 9);
        db.checkpoint().unwrap();
    }
}

#[test]
fn thirty_two_measures_are_kept_apart() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let names: Vec<String> = (0..33).map(|i| format!("m{i}")).collect();
    let view = |n: usize| names[..n].iter().fold(View::new("v").by(["k"]), View::stats);
    {
        let db = options().open(&path).unwrap();
        assert_eq!(db.define(view(33)).unwrap_err().kind(), ErrorKind::Invalid);
        db.define(view(32)).unwrap();
        for n in 0..32 {
            let event = names[n..32]
                .iter()
                .rev()
                .fold(Event::new("e").dim("k", "x"), |event, name| event.measure(name, n as f64));
            db.record(&event).unwrap();
        }
    }
    for _ in 0..2 {
        let db = options().open(&path).unwrap();
        let row = &rows(&db, "v")[0];
        assert_eq!((row.count, row.stats.len()), (32, 32));
        for (m, (name, summary)) in row.stats.iter().enumerate() {
            assert_eq!(name, &names[m]);
            assert_eq!(summary.count_value, m as u64 + 1);
            assert_eq!(summary.sum, (0..=m).sum::<usize>() as f64);
            assert_eq!((summary.min, summary.max), (Some(0.0), Some(m as f64)));
        }
        db.checkpoint().unwrap();
    }
}

#[test]
fn the_newest_buckets_are_kept_and_older_events_are_late() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let day = |n: i64| Timestamp::from_secs((NOW / 86_400 - 100 + n) * 86_400 + 77);
    let v = View::new("v").by(["user"]).stats("value");
    let open = || options().open(&path).unwrap();
    let mut db = open();
    db.define(v.grain(Grain::Day, Keep::Last(3)).grain(Grain::Year, Keep::All)).unwrap();
    let record = |db: &Db, user: &str, n: i64| {
        db.record(&Event::new("e").dim("user", user).at(day(n)).value(n as f64)).unwrap().late
    };
    let days = |db: &Db, user: &str| -> Vec<(i64, u64, f64)> {
        let buckets = db.query("v").unwrap().buckets(&[user], Grain::Day).unwrap();
        let n = |at: Timestamp| at.micros() / 86_400_000_000 - NOW / 86_400 + 100;
        assert!(buckets.iter().all(|b| n(b.end) == n(b.start) + 1));
        buckets.iter().map(|b| (n(b.start), b.count, b.summary().unwrap().sum)).collect()
    };
    assert!(!record(&db, "alice", 10));
    assert!(!record(&db, "alice", 8), "the oldest that is kept");
    assert!(record(&db, "alice", 7));
    assert!(!record(&db, "bob", 1), "each key has its own newest");
    assert_eq!(days(&db, "alice"), [(8, 1, 8.0), (10, 1, 10.0)]);
    for step in 0..3_u64 {
        // Late by what is in the store, too.
        match step {
            0 => db.checkpoint().unwrap(),
            1 => {
                drop(db);
                db = open();
                assert_eq!(db.statistics().late, 3);
            }
            _ => {}
        }
        let outcome = {
            let mut batch = db.batch();
            for (user, n) in [("alice", 10), ("alice", 6), ("bob", -5)] {
                batch.push(&Event::new("e").dim("user", user).at(day(n)).value(n as f64)).unwrap();
            }
            db.query("v").unwrap().get(&["alice"]).unwrap();
            if step == 1 {
                // A series that was not read yet learns of its past when it is.
                db.query("v").unwrap().get(&["bob"]).unwrap();
            }
            db.record_batch(&mut batch).unwrap()
        };
        assert_eq!((outcome.recorded, outcome.late), (3, 2));
        assert_eq!(db.statistics().late, 3 + 2 * step);
        assert_eq!(days(&db, "alice"), [(8, 1, 8.0), (10, step + 2, (10 * (step + 2)) as f64)]);
        assert_eq!(days(&db, "bob"), [(1, 1, 1.0)]);
    }
    let row = db.query("v").unwrap().get(&["alice"]).unwrap().unwrap();
    assert_eq!(row.count, 9, "late ones count in the totals");
    assert_eq!(row.first_seen, day(6));
    let years = db.query("v").unwrap().buckets(&["alice"], Grain::Year).unwrap();
    assert_eq!(
        years.iter().map(|b| b.count).sum::<u64>(),
        9,
        "and in the buckets all of which are kept"
    );
    assert!(!record(&db, "alice", 99));
    assert_eq!(days(&db, "alice"), [(99, 1, 99.0)], "the others have left");
    db.checkpoint().unwrap();
    drop(db);
    assert_eq!(days(&open(), "alice"), [(99, 1, 99.0)]);
}

#[test]
fn every_grain_cuts_at_its_own_borders() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let at = |text: &str| Timestamp::parse_rfc3339(text).unwrap();
    let times = [
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:00:00Z",
        "2020-02-29T23:59:59.999999Z",
        "2020-03-01T00:00:00Z",
        "2020-12-31T23:59:59.999999Z",
        "2021-01-03T23:59:59.999999Z",
        "2021-01-04T00:00:00Z",
    ];
    {
        let db = options().open(&path).unwrap();
        db.define(Grain::ALL.iter().fold(View::new("v"), |v, g| v.grain(*g, Keep::All))).unwrap();
        for time in times {
            db.record(&Event::new("e").at(at(time))).unwrap();
        }
    }
    let db = options().open(&path).unwrap();
    let starts = |grain| {
        let buckets = db.query("v").unwrap().buckets(&[], grain).unwrap();
        assert_eq!(buckets.iter().map(|b| b.count).sum::<u64>(), 7, "{grain}");
        for two in buckets.windows(2) {
            assert!(two[0].end <= two[1].start);
        }
        for bucket in &buckets {
            let within = |time: &&&str| bucket.start <= at(time) && at(time) < bucket.end;
            assert_eq!(times.iter().filter(within).count() as u64, bucket.count, "{grain}");
        }
        let day = |b: &quipu::Bucket| b.start.to_string()[..10].to_owned();
        buckets.iter().map(day).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(starts(Grain::Year), "1969-01-01 1970-01-01 2020-01-01 2021-01-01");
    assert_eq!(
        starts(Grain::Month),
        "1969-12-01 1970-01-01 2020-02-01 2020-03-01 2020-12-01 2021-01-01"
    );
    assert_eq!(starts(Grain::Week), "1969-12-29 2020-02-24 2020-12-28 2021-01-04");
    assert_eq!(
        starts(Grain::Day),
        "1969-12-31 1970-01-01 2020-02-29 2020-03-01 2020-12-31 2021-01-03 2021-01-04"
    );
    starts(Grain::Hour);
    starts(Grain::Minute);
}

#[test]
fn a_view_reads_as_a_sentence() {
    let check = |view: View, text: &str| assert_eq!(view.to_string(), text);
    check(View::new("all"), "all: all in one, count");
    check(
        View::new("v").by(["a", "b"]).stats("x").stats("y"),
        "v: by a, b, count, stats of x, stats of y",
    );
    check(
        View::new("v").only_events(["sale"]).grain(Grain::Hour, Keep::Last(24)),
        "v: all in one, events sale, count, 24 hours",
    );
    check(View::new("v").grain(Grain::Day, Keep::Last(1)), "v: all in one, count, 1 day");
    check(View::new("v").grain(Grain::Day, Keep::All), "v: all in one, count, all days");
}

#[test]
fn a_status_tells_keys_and_positions() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let check = |db: &Db| {
        let views = db.views().unwrap();
        assert_eq!((views[0].keys, views[0].defined_at.get()), (4, 1));
        assert_eq!((views[1].keys, views[1].defined_at.get()), (2, 4));
        assert_eq!(db.statistics().views, 2);
    };
    {
        let db = options().open(&path).unwrap();
        db.define(View::new("a").by(["user"])).unwrap();
        db.record(&Event::new("e").dim("user", "1")).unwrap();
        db.record(&Event::new("e").dim("user", "2")).unwrap();
        db.define(View::new("b").by(["user"])).unwrap();
        db.record(&Event::new("e").dim("user", "3")).unwrap();
        db.record(&Event::new("e").dim("user", "4")).unwrap();
        check(&db);
    }
    check(&options().open(&path).unwrap());
}

#[test]
fn views_come_and_go_while_events_are_recorded() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("db");
    let v = || View::new("v").by(["user"]).stats("value");
    let db = options().memory_budget(0).open(&path).unwrap();
    db.define(View::new("keeper")).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let recorded = std::thread::scope(|scope| {
        let recorders: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut n = 0_u64;
                    while !done.load(std::sync::atomic::Ordering::SeqCst) {
                        let user = (n % 40).to_string();
                        db.record(&Event::new("e").dim("user", &user).value(1.0)).unwrap();
                        n += 1;
                    }
                    n
                })
            })
            .collect();
        for round in 0..40 {
            assert!(db.define(v()).unwrap());
            if round % 3 == 0 {
                db.checkpoint().unwrap();
            }
            let query = db.query("v").unwrap();
            let rows = query.rows().unwrap().map(Result::unwrap);
            assert!(rows.map(|row| row.count).sum::<u64>() <= db.statistics().events);
            db.drop_view("v").unwrap();
            if round % 4 == 0 {
                db.checkpoint().unwrap();
            }
        }
        db.define(v()).unwrap();
        db.checkpoint().unwrap();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        recorders.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
    });
    db.record(&Event::new("e").dim("user", "0").value(1.0)).unwrap();
    let check = |db: &Db| {
        assert_eq!(count(db, "keeper"), recorded + 1);
        // Nothing but events came behind the last definition.
        let since = db.position().get() - db.views().unwrap()[1].defined_at.get();
        assert_eq!(count(db, "v"), since);
        let rows = rows(db, "v");
        assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), since);
        assert_eq!(rows.len() as u64, db.query("v").unwrap().key_count().unwrap());
    };
    check(&db);
    drop(db);
    check(&options().open(&path).unwrap());
}
