//! `define`, `drop`, `views`, `stats`, `checkpoint`.

use crate::{Shop, exists, keys};

#[test]
fn a_view_is_defined_and_backfilled() {
    let shop = Shop::loaded();
    let run =
        shop.run(&["define", "fr", "--by", "user", "--where", "category=FR", "--backfill"]).ok();
    assert!(run.err.contains("6 events read"), "{run:?}");
    assert_eq!(keys(&shop.run(&["list", "fr"]).ok().json_lines()), ["bob"]);
    shop.run(&[
        "define",
        "sold",
        "--events",
        "sale,cancel",
        "--where",
        "category in UK,FR",
        "--backfill",
    ])
    .ok();
    let row = shop.row("sold", &[]);
    assert_eq!((&row["count"], &row["sum"]), (&5.into(), &132.75.into()));
    shop.run(&["define", "days", "--by", "user", "--grain", "day=7", "--count", "--backfill"]).ok();
    let days = shop.run(&["get", "days", "ann", "--buckets", "day"]).ok().json_lines();
    assert_eq!(days.iter().map(|day| day["count"].clone()).collect::<Vec<_>>(), [2, 1]);
    assert!(shop.row("days", &["ann"])["sum"].is_null(), "no stats were asked for");
}

#[test]
fn without_backfill_a_view_starts_now_and_says_so() {
    let shop = Shop::loaded();
    let run = shop.run(&["define", "late", "--by", "user"]).ok();
    assert!(run.err.contains("--backfill"), "{run:?}");
    assert_eq!(shop.run(&["list", "late"]).ok().out, "");
    let quiet = shop.run(&["define", "later", "--by", "user", "--quiet"]).ok();
    assert_eq!((quiet.out.as_str(), quiet.err.as_str()), ("", ""));
    shop.run(&["define", "late", "--by", "user", "--backfill"]).ok();
    assert_eq!(shop.run(&["list", "late"]).ok().json_lines().len(), 3);
}

#[test]
fn another_definition_under_a_name_is_refused() {
    let shop = Shop::loaded();
    let again = shop.run(&["define", "by_user", "--by", "user"]).ok();
    assert!(again.err.contains("was there already"), "{again:?}");
    shop.run(&["define", "by_user", "--by", "product"]).failed(1, "by_user");
    shop.run(&["define", "x", "--where", "nonsense"]).failed(2, "DIM=VALUE");
    shop.run(&["define", "x", "--grain", "fortnight"]).failed(2, "minute, hour");
}

#[test]
fn a_directory_is_loaded_in_its_time_zone_and_keeps_it() {
    let shop = Shop::new();
    let late = r#"{"event":"sale","ts":"2024-06-30T22:30:00Z","user":"ann","value":1}"#;
    let file = shop.file("events.ndjson", late);
    shop.run(&["load", &file, "--time-zone", "europe/paris"]).failed(2, "Europe/Paris");
    shop.run(&["load", &file, "--time-zone", "Europe/Paris", "--time", "ts"]).ok();
    let views = shop.run(&["views"]).ok().json_lines();
    assert!(views.iter().all(|view| view["time_zone"] == "Europe/Paris"), "{views:?}");
    shop.run(&["define", "d", "--grain", "day,6h=20,month30", "--backfill"]).ok();
    let day = |of: &str| shop.run(&["get", "d", "--buckets", of]).ok().json_lines()[0].clone();
    assert_eq!(day("day")["start"], "2024-06-30T22:00:00.000Z");
    assert_eq!(day("6h")["start"], "2024-06-30T18:00:00.000Z");
    let again = ["define", "e", "--grain", "day", "--time-zone"];
    shop.run(&[&again[..], &["Europe/Paris"]].concat()).ok();
    shop.run(&[&again[..], &["Asia/Tehran"]].concat()).failed(1, "Europe/Paris, not Asia/Tehran");
    shop.run(&["define", "f", "--grain", "ever"]).failed(2, "totals");
}

#[test]
fn views_come_and_go() {
    let shop = Shop::loaded();
    let names = || {
        let views = shop.run(&["views"]).ok().json_lines();
        views.iter().map(|view| view["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names().len(), 6);
    let views = shop.run(&["views"]).ok().json_lines();
    let pair = views.iter().find(|view| view["name"] == "by_user_product").unwrap();
    assert_eq!(pair["key"], serde_json::json!(["user", "product"]));
    assert_eq!((&pair["keys"], &pair["state"]), (&4.into(), &"ready".into()));
    shop.run(&["drop", "by_user"]).ok();
    assert!(!names().contains(&"by_user".to_owned()));
    shop.run(&["drop", "by_user"]).failed(1, "by_user");
    for format in ["table", "csv", "markdown", "json"] {
        let out = shop.run(&["views", "--format", format]).ok().out;
        assert!(out.contains("by_user_product"), "{out}");
    }
}

#[test]
fn stats_show_the_engines_own_figures() {
    let shop = Shop::loaded();
    shop.run(&["checkpoint"]).ok();
    let stats = shop.run(&["stats"]).ok().json();
    assert_eq!(stats["events"], 6);
    assert!(stats["last_checkpoint"]["position"].is_u64(), "{stats}");
    let csv = shop.run(&["stats", "--format", "csv"]).ok().out;
    assert!(csv.starts_with("figure,value\n") && csv.contains("\nevents,6\n"), "{csv}");
    let table = shop.run(&["stats", "--format", "table"]).ok().out;
    assert!(table.contains("last_checkpoint.position"), "{table}");
}

#[test]
fn another_definition_takes_the_place_of_one_on_request() {
    let shop = Shop::loaded();
    let days = |n: &str| format!("day={n}");
    let define = |rest: &[&str]| shop.run(&[&["define", "days", "--by", "user"], rest].concat());
    define(&["--grain", &days("1"), "--backfill", "--replace"]).ok();
    define(&["--grain", &days("7")]).failed(1, "--replace");
    let kept = || shop.run(&["get", "days", "ann", "--buckets", "day"]).ok().json_lines().len();
    assert_eq!(kept(), 1);
    for (n, buckets) in [("7", 2), ("1", 1), ("30", 2)] {
        let run = define(&["--grain", &days(n), "--replace"]).ok();
        assert!(run.err.contains("has this definition now"), "{run:?}");
        assert_eq!((kept(), &shop.row("days", &["ann"])["count"]), (buckets, &3.into()));
    }
    let again = define(&["--grain", &days("30"), "--replace"]).ok();
    assert!(again.err.contains("was there already"), "{again:?}");
    let views = shop.run(&["views"]).ok().json_lines();
    let days = views.iter().filter(|view| view["name"] == "days").collect::<Vec<_>>();
    assert_eq!((days.len(), &days[0]["state"]), (1, &"ready".into()));
}

#[test]
fn replace_says_what_was_converted_and_from_when_on_it_is_exact() {
    let shop = Shop::loaded();
    let define = |rest: &[&str]| shop.run(&[&["define", "days", "--by", "user"], rest].concat());
    let first = define(&["--grain", "day=1,hour=99", "--backfill"]).ok();
    assert!(!first.err.contains("converted"), "{first:?}");
    // Another program lets go of the log.
    let options = quipu::Options::new().retention(quipu::Retention::Recovery);
    let db = options.segment_bytes(64 << 10).open(shop.dir()).unwrap();
    for _ in 0..40 {
        let event = quipu::Event::new("other").payload(&[0; 4_000]);
        db.record_all([event], quipu::OnInvalid::Refuse).unwrap();
    }
    db.close().unwrap();
    drop(db);
    let run = define(&["--grain", "day=7,month", "--replace"]).ok();
    for told in
        ["has this definition now", "were converted", "by day: exact from 20", "by month: exact\n"]
    {
        assert!(run.err.contains(told), "{told}: {run:?}");
    }
    assert_eq!(shop.row("days", &["ann"])["count"], 3);
    let views = shop.run(&["views"]).ok().json_lines();
    let days = views.iter().find(|view| view["name"] == "days").unwrap();
    assert!(days["state"].as_str().unwrap().starts_with("ready, by day from 20"), "{days}");
    define(&["--grain", "day=7", "--stats", "weight", "--replace"]).failed(1, "other aggregates");
}

#[test]
fn a_view_is_defined_in_a_new_directory_only_if_that_is_said() {
    let shop = Shop::new();
    let define = ["define", "logins", "--by", "user", "--count"];
    shop.run(&define).failed(1, "quipu define --create");
    assert!(!exists(&shop.dir()));
    let create = [&define[..], &["--create"]].concat();
    shop.run(&create).ok();
    shop.run(&create).ok(); // it is there by now
    assert_eq!(shop.run(&["views"]).ok().json()["name"], "logins");
}
