//! `count-of` and `contains`: questions to sketches about single items.

use serde_json::Value;

use crate::Shop;
use crate::sketches::{asked, sold};

/// The shop of sales, with a view that has counts and members by country.
fn shop() -> Shop {
    let shop = sold();
    let sizes = "--count-min product,user=400x3 --membership user=500:1000,product";
    let define = format!("define points --by category {sizes} --grain hour=72 --backfill");
    asked(&shop, &define).ok();
    shop
}

fn counts(rows: &[Value]) -> Vec<(String, u64)> {
    let row =
        |row: &Value| (row["item"].as_str().unwrap().to_owned(), row["count"].as_u64().unwrap());
    rows.iter().map(row).collect()
}

fn seen(rows: &[Value]) -> Vec<(String, bool)> {
    let row =
        |row: &Value| (row["item"].as_str().unwrap().to_owned(), row["seen"].as_bool().unwrap());
    rows.iter().map(row).collect()
}

fn pairs<T: Copy>(pairs: &[(&str, T)]) -> Vec<(String, T)> {
    pairs.iter().map(|(item, of)| ((*item).to_owned(), *of)).collect()
}

#[test]
fn counts_are_of_all_keys_of_one_of_each_and_of_a_time() {
    let shop = shop();
    let of =
        |args: &str| counts(&asked(&shop, &format!("count-of points {args}")).ok().json_lines());
    assert_eq!(of("--item p29 p0 nope"), pairs(&[("p29", 30), ("p0", 1), ("nope", 0)]));
    assert_eq!(of("DE --item p29 p0"), pairs(&[("p29", 30), ("p0", 0)]));
    assert_eq!(of("--item p29 --last 24h"), pairs(&[("p29", 15)]));
    assert_eq!(of("--item u0 --of user"), pairs(&[("u0", 30)]));
    assert_eq!(of("--item p29 --each"), pairs(&[("p29", 30), ("p29", 0)]));
    let rows = asked(&shop, "count-of points --item p29 nope").ok().json_lines();
    let confidence = 1.0 - 0.5_f64.powi(7);
    assert_eq!(rows[0]["lower"], 30, "an error of 2 / 2000 of 465 is less than one");
    assert_eq!((&rows[0]["upper"], &rows[0]["exact"]), (&30.into(), &false.into()));
    assert_eq!(rows[0]["confidence"], confidence);
    assert_eq!((&rows[1]["exact"], &rows[1]["confidence"]), (&true.into(), &1.0.into()));
    let each = asked(&shop, "count-of points --item p29 --each").ok().json_lines();
    assert_eq!(each[0]["key"], serde_json::json!(["DE"]));
    // What fell together with it may be counted, too: at most 2 / 400 of 465 in most rows.
    let rows = asked(&shop, "count-of points --of user --item u3").ok().json_lines();
    assert!(rows[0]["lower"].as_u64() <= Some(27) && Some(27) <= rows[0]["upper"].as_u64());
}

#[test]
fn the_narrower_of_two_sketches_counts() {
    let shop = sold();
    // Of the tops the weighed one is no count.
    asked(&shop, "count-of revenue --item p29")
        .failed(1, "keeps no count-min sketch or top; these do");
    let top = asked(&shop, "count-of sales --item p29 nope").ok().json_lines();
    assert_eq!(counts(&top), pairs(&[("p29", 30), ("nope", 0)]));
    assert_eq!(top[0]["exact"], true);
    let both = |sizes: &str| {
        asked(&shop, &format!("define both {sizes} --replace --backfill")).ok();
        asked(&shop, "count-of both --item p29").ok().json_lines()[0].clone()
    };
    let row = both("--count-min product=1x1 --top product=100");
    assert_eq!((&row["count"], &row["exact"]), (&30.into(), &true.into()));
    let row = both("--count-min product=5000x3 --top product=1");
    assert_eq!((&row["count"], &row["confidence"]), (&30.into(), &0.875.into()));
    // A width of one tells no more than how many there are.
    let row = both("--count-min product=1x1");
    assert_eq!(
        (&row["count"], &row["lower"], &row["upper"]),
        (&465.into(), &0.into(), &465.into())
    );
}

#[test]
fn members_are_of_all_keys_of_one_of_each_and_of_a_time() {
    let shop = shop();
    let of = |args: &str| seen(&asked(&shop, &format!("contains points {args}")).ok().json_lines());
    assert_eq!(of("--item u29 nope"), pairs(&[("u29", true), ("nope", false)]));
    assert_eq!(of("FR --item u29"), pairs(&[("u29", false)]));
    assert_eq!(of("--item u29 u28 --last 24h"), pairs(&[("u29", false), ("u28", true)]));
    assert_eq!(of("DE --of product --item p1 p2"), pairs(&[("p1", true), ("p2", false)]));
    assert_eq!(of("--each --item u29"), pairs(&[("u29", true), ("u29", false)]));
    let rows = asked(&shop, "contains points --item u29").ok().json_lines();
    assert_eq!(rows[0]["exact"], true);
    assert!(rows[0]["false_positive_rate"].as_f64().unwrap() < 1e-15);
}

#[test]
fn a_set_that_is_too_small_says_how_little_a_yes_is_worth() {
    let shop = Shop::new();
    let line = |n| format!("{{\"event\":\"login\",\"ts\":1291191960000,\"user\":\"u{n}\"}}\n");
    let file = shop.file("events.ndjson", (0..2_000).map(line).collect::<String>());
    shop.run(&["load", &file]).ok();
    asked(&shop, "define fit --membership user=2000 --backfill").ok();
    asked(&shop, "define tight --membership user=10 --backfill").ok();
    let fit = asked(&shop, "contains fit --item u7 nope").ok();
    assert_eq!(seen(&fit.json_lines()), pairs(&[("u7", true), ("nope", false)]));
    let rows = fit.json_lines();
    assert!(rows[0]["false_positive_rate"].as_f64().unwrap() <= 0.01);
    assert_eq!((&rows[0]["exact"], &rows[1]["exact"]), (&false.into(), &true.into()));
    assert!(fit.err.is_empty(), "{fit:?}");
    let tight = asked(&shop, "contains tight --item u7").ok();
    assert!(tight.json_lines()[0]["false_positive_rate"].as_f64().unwrap() > 0.9);
    assert!(tight.err.contains("a yes says little"), "{tight:?}");
}

#[test]
fn scripts_can_ask_by_the_exit_code() {
    let shop = shop();
    asked(&shop, "contains points --item u1 u2 --exit-code").ok();
    asked(&shop, "contains points --item u1 nope").ok();
    let one = asked(&shop, "contains points --item nope --exit-code");
    one.failed(5, "it was not seen");
    assert_eq!(seen(&one.json_lines()), pairs(&[("nope", false)]));
    asked(&shop, "contains points --item u1 nope x --exit-code").failed(5, "2 of 3 were not seen");
}

#[test]
fn items_come_from_arguments_and_from_standard_input() {
    let shop = Shop::new();
    let odd = ["a b", "tab\there", "quote\"d", "-x", "-5", "ü|\u{202e}z", "with,comma", "-", ""];
    let line = |item: &&str| {
        let line = serde_json::json!({"event": "hit", "ts": 1_291_191_960_000_u64, "user": item});
        format!("{line}\n")
    };
    let file = shop.file("events.ndjson", odd.iter().map(line).collect::<String>());
    shop.run(&["load", &file]).ok();
    asked(&shop, "define hits --count-min user --membership user --backfill").ok();
    let all = |items: &[Value]| items.iter().all(|row| row["count"] == 1 || row["seen"] == true);
    for question in ["count-of", "contains"] {
        let lines = odd.join("\r\n");
        let run = shop.run_with(&format!("{lines}\nnope"), &[question, "hits", "--item", "-"]);
        let rows = run.ok().json_lines();
        // The empty line is none.
        assert_eq!(rows.len(), odd.len());
        assert!(all(&rows[..odd.len() - 1]) && !all(&rows), "{rows:?}");
        let given = ["a b", "with,comma", "", "-5", "-"];
        let args = [&[question, "hits", "--item"], &given[..]].concat();
        let rows = shop.run_with("-\nquote\"d\n", &args).ok().json_lines();
        let items: Vec<&str> = rows.iter().map(|row| row["item"].as_str().unwrap()).collect();
        assert_eq!(items, ["a b", "with,comma", "", "-5", "-", "quote\"d"]);
        assert!(all(&rows), "{rows:?}");
        assert!(all(&shop.run(&[question, "hits", "--item=-x"]).ok().json_lines()));
        let none = shop.run_with("", &[question, "hits", "--item", "-", "-f", "json"]);
        assert_eq!(none.ok().json(), serde_json::json!([]));
        shop.run(&[question, "hits"]).failed(2, "--item");
        shop.run(&[question, "hits", "--item"]).failed(2, "--item");
    }
    let mut binary = shop.command(&["contains", "hits", "--item", "-"]);
    let input = std::fs::File::open(shop.file("binary", b"a b\n\xff\n")).unwrap();
    let run: crate::Run = binary.stdin(input).output().unwrap().into();
    run.failed(1, "standard input, line 2: it is not UTF-8");
    assert!(run.out.is_empty());
}

#[test]
fn answers_have_their_columns_in_every_form() {
    let shop = shop();
    let of = |args: &str| asked(&shop, args).ok().out;
    let csv = of("count-of points --item p29 nope -f csv");
    let header = "item,count,lower,upper,exact,confidence\n";
    assert_eq!(csv, format!("{header}p29,30,30,30,false,0.9921875\nnope,0,0,0,true,1.0\n"));
    let csv = of("contains points FR --each --item u29 -f csv");
    assert!(
        csv.starts_with("category,item,seen,exact,false_positive_rate\nFR,u29,false,true,"),
        "{csv}"
    );
    let table = of("contains points --item u29 nope -f table");
    assert!(table.contains(" u29   yes   yes "), "{table}");
    assert!(table.contains(" nope  no    yes "), "{table}");
    let markdown = shop.run(&["count-of", "points", "--item", "a|b", "-f", "markdown"]).ok().out;
    assert!(markdown.lines().nth(2).unwrap().starts_with("| a\\|b |     0 |"), "{markdown}");
    let json = asked(&shop, "count-of points --item p29 -f json").ok().json();
    assert_eq!(json[0]["item"], "p29");
}

#[test]
fn what_cannot_be_asked_says_what_can() {
    let shop = shop();
    for (question, option, named) in [
        ("count-of", "--count-min", "these do: sales (of product), points (of product, user)"),
        ("contains", "--membership", "these do: points (of user, product)"),
    ] {
        let asked = |args: &str| asked(&shop, &format!("{question} {args}"));
        let none = asked("by_user --item x");
        none.failed(1, named);
        none.failed(1, &format!("hint: quipu define NAME {option} DIM --backfill"));
        assert!(none.out.is_empty());
        asked("points --of country --item x").failed(1, "of country; it does of: ");
        asked("nowhere --item x").failed(1, "\"points\"");
        asked("points ES --item x").failed(1, "no such key in points: ES");
        asked("points ES --each --item x").failed(1, "no such key in points: ES");
        asked("points FR x --item x").failed(1, "1 part");
        asked("points --last 5d --item x").failed(1, "keeps no buckets by day");
        asked("points --last 100h --item x -f csv").failed(1, "--kept");
        assert!(asked("points --last 100h --item x -f csv").out.is_empty());
    }
    let bare = Shop::loaded();
    asked(&bare, "contains by_user --item x")
        .failed(1, "keeps no set of members, and no other does");
    asked(&bare, "define empty --membership user").ok();
    asked(&bare, "contains empty --item x").failed(1, "the view empty has no events");
}
