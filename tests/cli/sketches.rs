//! `distinct`, `common`, `heavy`, `quantile`: questions to sketches.

use crate::Shop;
use quipu::{Clock, SystemClock};
use std::time::Duration;

/// Sales of this hour and of the day before yesterday: 30 products with 1, 2, 3 ... sales each of the users
/// 0, 1, 2 ...; those of even products in France.
pub(crate) fn sold() -> Shop {
    let shop = Shop::new();
    let now = SystemClock.now();
    let mut lines = String::new();
    for product in 0..30_u64 {
        for user in 0..=product {
            let ts = now.saturating_sub(Duration::from_hours(48 * (user % 2))).millis();
            let country = if product % 2 == 0 { "FR" } else { "DE" };
            let value = (product * 10 + user) as f64 / 4.0;
            let line = serde_json::json!({
                "event": "sale", "ts": ts, "product": format!("p{product}"),
                "user": format!("u{user}"), "category": country, "value": value,
            });
            lines.extend([line.to_string(), "\n".to_owned()]);
        }
    }
    let file = shop.file("events.ndjson", lines);
    shop.run(&["load", &file]).ok();
    let args = "define sales --by category --distinct user,product=14 --theta user=64 --top product \
                --quantiles value --grain hour=72 --backfill";
    shop.run(&args.split(' ').filter(|arg| !arg.is_empty()).collect::<Vec<_>>()).ok();
    shop.run(&["define", "revenue", "--top", "product by value=100", "--backfill"]).ok();
    shop
}

pub(crate) fn asked(shop: &Shop, args: &str) -> crate::Run {
    shop.run(&args.split(' ').collect::<Vec<_>>())
}

#[test]
fn distinct_is_of_all_keys_of_one_or_of_each() {
    let shop = sold();
    let count = |args: &str| {
        let answer = asked(&shop, args).ok().json();
        assert_eq!(
            (&answer["lower"], &answer["upper"]),
            (&answer["distinct"], &answer["distinct"])
        );
        assert_eq!(answer["confidence"], 1.0);
        answer["distinct"].as_u64().unwrap()
    };
    assert_eq!(count("distinct sales"), 30);
    assert_eq!(count("distinct sales FR"), 29);
    assert_eq!(count("distinct sales --last 24h"), 15);
    assert_eq!(count("distinct sales DE --of product --last 72h"), 15);
    let each = asked(&shop, "distinct sales --each").ok().json_lines();
    let of = |row: &serde_json::Value| (row["key"][0].to_string(), row["distinct"].as_u64());
    assert_eq!(
        each.iter().map(of).collect::<Vec<_>>(),
        [("\"DE\"".to_owned(), Some(30)), ("\"FR\"".to_owned(), Some(29)),]
    );
    asked(&shop, "distinct sales --of value").failed(1, "it does of: user, product");
    let none = asked(&shop, "distinct revenue");
    none.failed(1, "keeps no distinct count; these do: sales (of user, product)");
    none.failed(1, "quipu define NAME --distinct DIM --backfill");
    asked(&shop, "distinct sales ES").failed(1, "no such key in sales: ES");
    shop.run(&["distinct", "sales", ""]).failed(1, "no such key in sales: \"\"");
    asked(&shop, "distinct sales --measure value").failed(2, "--measure");
    asked(&shop, "distinct sales FR x").failed(1, "key");
    asked(&shop, "distinct sales --last 10d").failed(1, "keeps no buckets by day");
    asked(&shop, "distinct sales --last 100h").failed(1, "--kept");
    let kept = asked(&shop, "distinct sales --last 100h --kept").ok();
    assert!(kept.err.contains("what is kept begins with"), "{kept:?}");
}

#[test]
fn a_range_can_be_of_dates_and_says_when_nothing_was_in_it() {
    let shop = Shop::new();
    let midnight = "{\"event\":\"sale\",\"ts\":1304200800000,\"user\":\"ann\"}\n";
    let file = shop.file("events.ndjson", midnight);
    let zone = ["--grain", "day", "--time-zone", "Europe/Paris", "--create"];
    shop.run(&[&["define", "days", "--distinct", "user"], &zone[..]].concat()).ok();
    shop.run(&["load", &file]).ok();
    let of = |range: &str| {
        let run = asked(&shop, &format!("distinct days {range}")).ok();
        (run.json()["distinct"].as_u64().unwrap(), run.err)
    };
    // It is the first of May in Paris, and the last of April in UTC.
    assert_eq!(of("--from 2011-05-01 --to 2011-05-02"), (1, String::new()));
    let (users, told) = of("--from 2011-04-30 --to 2011-05-01");
    assert_eq!(users, 0);
    assert_eq!(told, "hint: no events in that time; the last was at 2011-04-30 22:00:00\n");
    let series = asked(&shop, "series days --from 2011-05-01 --to 2011-05-02 --grain day").ok();
    assert_eq!(series.json_lines()[0]["count"], 1);
    asked(&shop, "distinct days --from 2011-05-01T00:00 --to 2011-05-02").failed(2, "no time zone");
    asked(&shop, "distinct days --from 2011-05-32 --to 2011-06-02").failed(2, "neither");
    asked(&shop, "distinct days --from 2011-05-02 --to 2011-05-01").failed(1, "no range");
}

#[test]
fn common_is_what_keys_share_and_others_have_not() {
    let shop = sold();
    let count = |args: &str| asked(&shop, args).ok().json()["common"].as_u64().unwrap();
    assert_eq!(count("common sales FR DE"), 29);
    assert_eq!(count("common sales DE --without FR"), 1);
    assert_eq!(count("common sales FR DE --last 24h"), 15);
    asked(&shop, "common revenue a b").failed(1, "keeps no theta sketch");
    asked(&shop, "common sales FR ES").failed(1, "no such key in sales: ES");
    shop.run(&["define", "pairs", "--by", "user,product", "--theta", "category"]).ok();
    asked(&shop, "common pairs u1").failed(2, "keys of pairs have 2 parts each: user, product");
    shop.run(&["define", "all", "--theta", "user", "--backfill"]).ok();
    asked(&shop, "common all x").failed(2, "has no key");
}

#[test]
fn heavy_names_what_counts_most_and_what_surely_does() {
    let shop = sold();
    let rows = asked(&shop, "heavy sales -n 3").ok().json_lines();
    let row = |row: &serde_json::Value| (row["item"].to_string(), row["count"].as_u64());
    assert_eq!(
        rows.iter().map(row).collect::<Vec<_>>(),
        [
            ("\"p29\"".to_owned(), Some(30)),
            ("\"p28\"".to_owned(), Some(29)),
            ("\"p27\"".to_owned(), Some(28)),
        ]
    );
    assert!((rows[0]["share"].as_f64().unwrap() - 30.0 / 465.0).abs() < 1e-9);
    let above = asked(&shop, "heavy sales FR --above 26").ok().json_lines();
    assert_eq!(
        above.iter().map(|row| row["item"].to_string()).collect::<Vec<_>>(),
        ["\"p28\"", "\"p26\""]
    );
    assert_eq!(above[0]["above"], "surely");
    let cut = asked(&shop, "heavy sales --above 12").ok();
    assert_eq!(
        (cut.json_lines().len(), cut.err.as_str()),
        (10, "hint: there are 8 more; -n 18 shows all\n")
    );
    let weighed = asked(&shop, "heavy revenue -n 1").ok().json_lines();
    assert_eq!(weighed[0]["item"], "p29");
    assert!(weighed[0]["count"].as_u64().unwrap() > 2_000);
    asked(&shop, "heavy sales --by value")
        .failed(1, "keeps no top of product by value; it keeps the top of: product");
    asked(&shop, "heavy sales --of user").failed(1, "keeps no top of user; it does of: product");
    asked(&shop, "heavy sales --above -1").failed(2, "invalid digit");
    assert!(above[0]["exact"].as_bool().unwrap());
    assert_eq!(asked(&shop, "heavy revenue --by value -n 2").ok().json_lines().len(), 2);
}

#[test]
fn quantiles_are_by_percent_and_as_a_histogram() {
    let shop = sold();
    let rows = asked(&shop, "quantile sales --at p0,50,p100").ok().json_lines();
    let row = |row: &serde_json::Value| (row["percentile"].to_string(), row["value"].as_f64());
    assert_eq!(
        rows.iter().map(row).collect::<Vec<_>>(),
        [
            ("\"p0\"".to_owned(), Some(0.0)),
            // The 233rd of 465 values, which are products * 10 + users, in quarters: p21 and some.
            ("\"p50\"".to_owned(), rows[1]["value"].as_f64()),
            ("\"p100\"".to_owned(), Some(319.0 / 4.0)),
        ]
    );
    let median = rows[1]["value"].as_f64().unwrap();
    assert!((210.0 / 4.0..230.0 / 4.0).contains(&median), "{median}");
    let bars = asked(&shop, "quantile sales DE --edges 10,50").ok().json_lines();
    assert_eq!(bars.len(), 3);
    assert!(bars[0]["above"].is_null() && bars[2]["up_to"].is_null());
    assert_eq!(bars.iter().map(|bar| bar["count"].as_u64().unwrap()).sum::<u64>(), 240);
    let each = asked(&shop, "quantile sales --each --at p90").ok().json_lines();
    assert_eq!(each.len(), 2);
    asked(&shop, "quantile sales --at 0.99").failed(2, "p99 for that share");
    asked(&shop, "quantile sales --at p101").failed(2, "p0 to p100");
    asked(&shop, "quantile sales --edges 5,1").failed(1, "rise");
    let table = asked(&shop, "quantile sales -f table").ok();
    assert!(table.out.contains("p99") && table.out.contains("percentile"), "{}", table.out);
}

#[test]
fn a_definition_of_sketches_is_read_and_shown() {
    let shop = sold();
    let views = shop.run(&["views"]).ok().out;
    let shown = "distinct user, distinct product at precision 14, theta sketch 64 of user, top 256 of \
                 product, quantiles of value, 72 hours";
    assert!(views.contains(shown), "{views}");
    assert!(views.contains("top 100 of product by value"), "{views}");
    let define = |args: &str| asked(&shop, &format!("define x {args}"));
    define("--distinct user=3").failed(1, "4 to 18");
    define("--distinct user=999").failed(1, "4 to 18");
    define("--theta user=70000").failed(1, "64 to 16384");
    define("--top =9").failed(2, "expected a name");
    define("--top product=many").failed(2, "no whole number");
    define("--count-min product=0x7").failed(2, "1 to 32 rows");
    define("--count-min product=2000").failed(2, "WIDTHxDEPTH");
    define("--count-min product,product=1%").failed(1, "asked for twice");
    define("--membership user=0").failed(2, "at least one");
    define("--membership user=100:1").failed(2, "2 or more");
    define("--membership user=99999999999").failed(2, "gigabyte");
    define("--count-min product,user=0.01% --membership user=500:1000,product").ok();
    let views = shop.run(&["views"]).ok().out;
    let shown = "count-min sketch 2000 by 7 of product, count-min sketch 20000 by 7 of user, membership of \
                 500 values of user to one in 1000, membership of 1000000 values of product to one in 100";
    assert!(views.contains(shown), "{views}");
}

#[test]
fn keys_are_ranked_by_distinct_counts_and_percentiles() {
    let shop = sold();
    let args = "define products --by product --distinct user --theta category=64 --quantiles value --backfill";
    asked(&shop, args).ok();
    let first = |args: &str| {
        let out = asked(&shop, args).ok().out.clone();
        serde_json::from_str::<serde_json::Value>(out.lines().next().unwrap()).unwrap()
    };
    let row = first("top products --by distinct --format ndjson -n 2");
    assert_eq!((&row["key"], &row["distinct"]), (&serde_json::json!(["p29"]), &30.into()));
    let row = first("top products --by distinct --dimension category --format ndjson");
    assert_eq!((&row["key"], &row["distinct"]), (&serde_json::json!(["p0"]), &1.into()));
    assert_eq!((&row["lower"], &row["upper"]), (&1.into(), &1.into()));
    let row = first("top products --by p90 --ascending --format ndjson");
    assert_eq!((&row["key"], &row["p90"]), (&serde_json::json!(["p0"]), &0.0.into()));
    let row = first("top products --by p99.9 --format ndjson");
    assert_eq!((&row["key"], &row["p99.9"]), (&serde_json::json!(["p29"]), &79.75.into()));
    for (args, code, told) in [
        ("top products --by p101", 2, "0 to 100"),
        ("top products --by median", 2, "p50"),
        ("top products --by count --dimension user", 2, "--by distinct"),
        ("top products --by distinct --dimension shop", 1, "user, category"),
        ("top by_user --by distinct", 1, "keeps no distinct count"),
        ("top products --by sum", 1, "keeps no statistics"),
    ] {
        let run = asked(&shop, args);
        assert_eq!(run.code, Some(code), "{args}: {}", run.err);
        assert!(run.err.contains(told), "{args}: {}", run.err);
    }
}

#[test]
fn quantiles_by_rank_are_defined_and_asked_like_others() {
    let shop = sold();
    asked(&shop, "define ranks --kll value=8 --by category --backfill").ok();
    asked(&shop, "define both --kll value --quantiles value --backfill").ok();
    let run = asked(&shop, "quantile ranks FR --at p0,p50,p100 --format csv").ok();
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines[0], "percentile,value,lower,upper,exact,confidence");
    assert!(lines[1].ends_with(",0.0,0.0,0.0,true,1.0"), "{lines:?}");
    assert!(lines[2].ends_with(",false,0.99"), "{lines:?}");
    assert!(lines[3].ends_with(",77.0,77.0,77.0,true,1.0"), "{lines:?}");
    let run = asked(&shop, "quantile ranks --edges 10,20 --format csv");
    assert!(run.ok().out.starts_with("above,up_to,count,lower,upper,exact,confidence\n,10.0,"));
    // Of a view that has both the bounds that always hold are given.
    let run = asked(&shop, "quantile both --format csv");
    assert!(run.ok().out.starts_with("percentile,value,lower,upper,exact\n"));
    asked(&shop, "define wrong --kll value=7").failed(1, "8 to 65535");
}

#[test]
fn a_range_that_cuts_a_bucket_is_refused_and_the_whole_one_is_told() {
    let shop = Shop::new();
    let file = shop.file("e.ndjson", r#"{"event":"e","ts":"2020-06-15T09:00:00Z","user":"ann"}"#);
    shop.run(&["load", &file]).ok();
    asked(&shop, "define d --distinct user --top user --grain day --grain hour=100000 --backfill")
        .ok();
    let day = "--from 2020-06-15T12:00:00Z --to 2020-06-15T13:00:00Z --grain day";
    for question in ["distinct", "heavy"] {
        let run = asked(&shop, &format!("{question} d {day}"));
        run.failed(1, "ask --from 2020-06-15T00:00:00");
        assert!(run.err.contains(" --to 2020-06-16T00:00:00"), "{}", run.err);
    }
    let hour = day.replace("--grain day", "--format ndjson --kept");
    let run = asked(&shop, &format!("distinct d {hour}")).ok();
    assert_eq!(run.json_lines()[0]["distinct"], 0, "of the hour itself nothing is in it");
    asked(&shop, "distinct d --from 2020-06-15 --to 2020-06-16 --grain day").ok();
}
