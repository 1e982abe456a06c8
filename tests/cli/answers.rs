//! `top`, `get`, `list`, `totals`: the right rows in the right order.

use crate::{Shop, key, keys};

#[test]
fn top_orders_by_the_figure_and_then_by_key() {
    let shop = Shop::loaded();
    let top =
        |args: &[&str]| keys(&shop.run(&[&["top"], args].concat()).ok().json_lines()).join(" ");
    assert_eq!(top(&["by_user", "--by", "sum"]), "ann bob", "cem has no sum");
    assert_eq!(top(&["by_user", "--by", "sum", "--ascending"]), "bob ann");
    assert_eq!(top(&["by_user"]), "ann bob cem", "a tie is ordered by key");
    assert_eq!(top(&["by_user", "-n", "1"]), "ann");
    assert_eq!(top(&["by_user", "-n", "0"]), "");
    assert_eq!(top(&["by_user", "--by", "last_seen", "-n", "2"]), "ann cem");
    assert_eq!(top(&["by_user", "--by", "first_seen", "--ascending"]), "ann bob cem");
    assert_eq!(top(&["by_product", "--by", "min", "--ascending"]), "pot cup");
    for figure in ["count", "count_value", "sum", "mean", "min", "max", "first_seen", "last_seen"] {
        assert!(!top(&["by_category", "--by", figure]).is_empty(), "{figure}");
    }
}

#[test]
fn n_is_how_many_rows_at_most() {
    let shop = Shop::loaded();
    for command in
        [&["list", "by_user"][..], &["list", "by_user", "--unordered"], &["top", "by_user"]]
    {
        for limit in [&["-n", "2"][..], &["--limit", "2"], &["--n", "2"], &["-n2"]] {
            let rows = shop.run(&[command, limit].concat()).ok().json_lines();
            assert_eq!(rows.len(), 2, "{command:?} {limit:?}");
        }
        assert_eq!(shop.run(&[command, &["-n", "0"]].concat()).ok().out, "");
        assert_eq!(shop.run(&[command, &["-n", "99"]].concat()).ok().json_lines().len(), 3);
        shop.run(&[command, &["-n", "some"]].concat()).failed(2, "--limit <N>");
    }
}

#[test]
fn list_is_in_key_order_and_can_be_cut() {
    let shop = Shop::loaded();
    let list = |args: &[&str]| {
        let rows = shop.run(&[&["list", "by_user_product"], args].concat()).ok().json_lines();
        keys(&rows).join(" ")
    };
    assert_eq!(list(&[]), "ann/cup ann/pot bob/cup cem/pot");
    assert_eq!(list(&["--prefix", "ann"]), "ann/cup ann/pot");
    assert_eq!(list(&["--prefix", "ann", "pot"]), "ann/pot");
    assert_eq!(list(&["--prefix", "an"]), "", "parts are whole");
    assert_eq!(list(&["--limit", "2"]), "ann/cup ann/pot");
    let mut rows = shop.run(&["list", "by_user_product", "--unordered"]).ok().json_lines();
    rows.sort_by_key(key);
    assert_eq!(keys(&rows).join(" "), list(&[]));
}

#[test]
fn get_answers_one_key_or_says_that_there_is_none() {
    let shop = Shop::loaded();
    assert_eq!(shop.row("by_user_product", &["ann", "cup"])["count"], 2);
    let run = shop.run(&["get", "by_user", "eve"]);
    run.failed(1, "no such key");
    assert_eq!(run.out, "");
    shop.run(&["get", "by_user_product", "ann"]).failed(1, "2 parts (user, product)");
    shop.run(&["get", "by_hour", "x"]).failed(1, "0 parts");
    shop.run(&["get", "by_user", "ann", "cup"]).failed(1, "1 part (user)");
    shop.run(&["get", "by_user", "ann", "--buckets", "hour"]).failed(1, "no buckets by hour");
}

#[test]
fn buckets_are_listed_by_their_start() {
    let shop = Shop::loaded();
    let buckets = shop.run(&["get", "by_hour", "--buckets", "hour"]).ok().json_lines();
    let text: Vec<_> =
        buckets.iter().map(|b| format!("{} {} {}", b["start"], b["count"], b["sum"])).collect();
    assert_eq!(
        text,
        [
            "\"2010-12-01T08:00:00.000Z\" 2 31.0",
            "\"2010-12-01T09:00:00.000Z\" 2 104.25",
            "\"2010-12-02T08:00:00.000Z\" 2 -2.5",
        ]
    );
    assert_eq!(buckets[0]["end"], "2010-12-01T09:00:00.000Z");
    assert!(buckets[0]["key"].is_null());
    assert_eq!(shop.run(&["get", "by_user", "ann", "--buckets", "hour"]).code, Some(1));
}

#[test]
fn totals_are_those_of_all_keys() {
    let shop = Shop::loaded();
    let totals = shop.run(&["totals", "by_category"]).ok().json();
    assert_eq!(totals["key"].as_array().map(Vec::len), Some(0));
    assert_eq!((&totals["count"], &totals["count_value"]), (&6.into(), &5.into()));
    assert_eq!(totals["sum"], 132.75);
    assert_eq!(totals["last_seen"], "2010-12-02T08:26:00.000Z");
}

#[test]
fn an_unknown_view_is_told_with_those_that_are_known() {
    let shop = Shop::loaded();
    for command in [&["top", "by_prod"][..], &["list", "by_prod"], &["get", "by_prod", "x"]] {
        let run = shop.run(command);
        run.failed(1, "by_prod");
        run.failed(1, "by_product");
    }
    shop.run(&["list", "by_user", "--measure", "latency"]).failed(1, "latency");
}
