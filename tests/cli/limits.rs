//! `limit`: rules are set as text, and the exit code says whether something may happen.

use crate::Shop;

/// A shop whose logins and jobs are limited.
fn limited() -> Shop {
    let shop = Shop::loaded();
    let define = |name: &str, event: &str| {
        let grains = "minute=61,hour=25,day=31";
        let by = ["--by", "user", "--events", event, "--grain", grains, "--quiet"];
        shop.run(&[&["define", name], &by[..]].concat()).ok();
    };
    define("logins", "login");
    define("jobs", "job");
    define("refunds", "refund");
    shop.run(&[
        "limit",
        "set",
        "logins",
        "logins: at most 2 in any 60m",
        "burst = logins: at most 9 per day",
    ])
    .ok();
    shop.run(&["limit", "set", "jobs", "jobs but refunds: at most 5 in any 1d"]).ok();
    shop
}

#[test]
fn a_script_goes_by_the_exit_code() {
    let shop = limited();
    let record = ["limit", "record", "logins", "user=ann"];
    for left in [1, 0] {
        let told = shop.run(&record).ok().json();
        assert_eq!((&told["verdict"], &told["left"]), (&"allowed".into(), &left.into()), "{told}");
        let resets_in = told["resets_in_seconds"].as_f64().unwrap();
        assert!(resets_in > 0.0 && resets_in <= 3_660.0, "{told}");
    }
    let denied = shop.run(&record);
    assert_eq!((denied.code, denied.err.as_str()), (Some(5), ""));
    let told = denied.json();
    assert_eq!(told["verdict"], "denied");
    assert_eq!(told["rule"], "logins: at most 2 in any 1h");
    assert_eq!((&told["used"], &told["limit"]), (&2.into(), &2.into()));
    assert!(told["retry_after_seconds"].as_f64().unwrap() > 0.0, "{told}");
    assert!(told["retry_at"].as_str().unwrap().ends_with('Z'), "{told}");
    // Nothing was recorded of it; others are limited by themselves.
    assert_eq!(shop.row("logins", &["ann"])["count"], 2);
    let quiet = shop.run(&[&record[..], &["--quiet"]].concat());
    assert_eq!((quiet.code, quiet.out.as_str(), quiet.err.as_str()), (Some(5), "", ""));
    shop.run(&["limit", "check", "logins", "user=bob"]).ok();
    assert_eq!(shop.run(&["get", "logins", "bob"]).code, Some(1), "check records nothing");
}

#[test]
fn a_person_reads_sentences() {
    let shop = limited();
    let table = |args: &[&str]| shop.run(&[&["limit"], args, &["-f", "table"]].concat());
    assert_eq!(table(&["check", "logins", "user=ann"]).ok().out, "allowed: 2 left\n");
    let recorded = table(&["record", "logins", "user=ann", "--times", "2"]).ok().out;
    assert!(recorded.starts_with("recorded: 0 left; all of it again in 1h"), "{recorded}");
    assert!(recorded.ends_with(" UTC\n"), "{recorded}");
    let denied = table(&["check", "logins", "user=ann"]);
    assert_eq!(denied.code, Some(5));
    let lines: Vec<&str> = denied.out.lines().collect();
    assert_eq!(lines[0], "denied: logins: at most 2 in any 1h");
    assert!(lines[1].starts_with("2 of 2 used; again in "), "{denied:?}");
    let never = table(&["check", "logins", "user=bob", "--times", "3"]);
    assert_eq!(never.code, Some(5));
    assert!(never.out.ends_with("\n3 at once are more than it ever allows\n"), "{never:?}");
    let never = shop.run(&["limit", "check", "logins", "user=bob", "--times", "3"]).json();
    assert_eq!((&never["verdict"], &never["retry_at"]), (&"too_much".into(), &().into()));
    shop.run(&["limit", "set", "m", "logins: at least 3 in 7 days"]).ok();
    let denied = table(&["check", "m", "user=ann"]);
    assert!(denied.out.ends_with("\n2 of 3 there; waiting does not help\n"), "{denied:?}");
}

#[test]
fn usage_is_a_row_for_each_rule() {
    let shop = limited();
    shop.run(&[
        "limit",
        "set",
        "mixed",
        "logins: at most 2 in any 1h",
        "logins: none for 1h",
        "only always",
    ])
    .ok();
    shop.run(&["limit", "record", "mixed", "user=ann"]).ok();
    let rows = shop.run(&["limit", "usage", "mixed", "user=ann"]).ok().json_lines();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0]["rule"], "logins: at most 2 in any 1h");
    assert_eq!(
        (&rows[0]["used"], &rows[0]["limit"], &rows[0]["left"]),
        (&1.into(), &2.into(), &1.into())
    );
    assert_eq!((&rows[1]["used"], &rows[1]["limit"]), (&1.into(), &().into()));
    assert_eq!((&rows[2]["used"], &rows[2]["resets_at"]), (&().into(), &().into()));
    let table = shop.run(&["limit", "usage", "mixed", "user=ann", "-f", "table"]).ok().out;
    assert!(table.lines().next().unwrap().contains(" resets_in "), "{table}");
    // Of a calendar bucket the moment is that of the calendar, to the millisecond.
    let day = &shop.run(&["limit", "usage", "logins", "user=ann"]).ok().json_lines()[1];
    assert!(day["resets_at"].as_str().unwrap().ends_with("T00:00:00.000Z"), "{day}");
}

#[test]
fn what_was_used_is_given_back() {
    let shop = limited();
    shop.run(&["limit", "record", "jobs", "user=ann", "--times", "4"]).ok();
    let given = |args: &[&str]| {
        shop.run(&[&["limit"], args, &["jobs", "user=ann"]].concat()).ok().json()["given_back"]
            .clone()
    };
    assert_eq!(given(&["refund", "--times", "3"]), 3);
    assert_eq!(given(&["refund", "--times", "3"]), 1);
    shop.run(&["limit", "record", "jobs", "user=ann", "--times", "5"]).ok();
    assert_eq!(given(&["reset"]), 5);
    assert_eq!(given(&["reset"]), 0);
    let table = shop.run(&["limit", "reset", "jobs", "user=ann", "-f", "table"]).ok().out;
    assert_eq!(table, "0 given back\n");
    shop.run(&["limit", "refund", "logins", "user=ann"]).failed(1, "but refunds");
}

#[test]
fn policies_are_listed_as_they_are_set() {
    let shop = limited();
    let rules = |name: &str| {
        let rows = shop.run(&["limit", "list"]).ok().json_lines();
        let of = rows.into_iter().filter(|row| row["policy"] == name);
        of.map(|row| (row["rule"].as_str().unwrap().to_owned(), row["mode"].clone()))
            .collect::<Vec<_>>()
    };
    let before = rules("logins");
    assert_eq!(before[1], ("burst = logins: at most 9 per day".to_owned(), "enforced".into()));
    let set = |rest: &[&str]| {
        let texts = before.iter().map(|(rule, _)| rule.as_str());
        let args: Vec<&str> = ["limit", "set", "logins"].into_iter().chain(texts).collect();
        shop.run(&[&args[..], rest].concat()).ok().err
    };
    assert!(set(&[]).contains("was set so already"));
    assert!(set(&["--shadow", "--near", "50"]).contains("changed"));
    assert_eq!(set(&["--quiet"]), "");
    set(&["--shadow"]);
    assert_eq!(rules("logins")[0].1, "shadow");
    let db = quipu::Db::open(shop.dir()).unwrap();
    assert_eq!(rules("logins").len(), 2, "answered beside the process that has it open");
    shop.run(&["limit", "check", "logins", "user=ann"]).failed(4, "data");
    db.close().unwrap();
    drop(db);
    shop.run(&["limit", "remove", "logins"]).ok();
    assert_eq!(rules("logins"), []);
    shop.run(&["limit", "remove", "logins"]).failed(1, "there are: \"jobs\"");
    for format in ["table", "csv", "markdown", "json"] {
        let out = shop.run(&["limit", "list", "--format", format]).ok().out;
        assert!(out.contains("jobs but refunds: at most 5 in any 1d"), "{out}");
    }
}

#[test]
fn a_shadow_refuses_nothing_and_says_what_it_would() {
    let shop = limited();
    shop.run(&["limit", "set", "s", "logins: at most 1 in any 1h", "--shadow"]).ok();
    let verdict = |what: &str| {
        shop.run(&["limit", what, "s", "user=ann"]).ok().json()["verdict"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!([verdict("check"), verdict("record")], ["allowed", "allowed"]);
    assert_eq!([verdict("check"), verdict("record")], ["shadowed", "shadowed"]);
    assert_eq!(shop.row("logins", &["ann"])["count"], 2);
    let told = shop.run(&["limit", "check", "s", "user=ann", "-f", "table"]).ok().out;
    assert!(told.contains("allowed, as the policy is a shadow; it would be denied"), "{told}");
}

#[test]
fn what_is_wrong_is_told() {
    let shop = limited();
    let limit = |args: &[&str]| shop.run(&[&["limit"], args].concat());
    limit(&["check", "nope"]).failed(1, "there are: \"jobs\", \"logins\"");
    limit(&["check", "logins"]).failed(2, "user=VALUE");
    limit(&["check", "logins", "user"]).failed(2, "DIM=VALUE");
    limit(&["check", "logins", "event=x", "user=ann"]).failed(2, "--event");
    limit(&["check", "logins", "user=ann", "--times", "0"]).failed(2, "--times");
    limit(&["record", "logins", "user=ann", "--event", "sale"]).failed(1, "they take login");
    limit(&["record", "logins", "user=ann", "--measure", "value=x"]).failed(2, "NAME=NUMBER");
    limit(&["set", "x"]).failed(2, "RULE");
    limit(&["set", "x", "logins: at most many per day"]).failed(2, "\"many\" stands behind");
    limit(&["set", "x", "logouts: at most 5 per day"]).failed(1, "\"logins\"");
    limit(&["set", "x", "logins: at most 5 in any 30s", "logins: at most 5 in any 31d"])
        .failed(1, "32 days would do");
    limit(&["set", "x", "logins: at most 5 per day", "--near", "0"]).failed(2, "--near");
    let list = limit(&["list"]).ok().out;
    assert!(!list.contains("\"x\""), "{list}");
    // Views of several events do not say which is meant.
    shop.run(&["define", "all", "--by", "user", "--grain", "day=31", "--quiet"]).ok();
    limit(&["set", "all", "all: at most 5 per day"]).ok();
    limit(&["check", "all", "user=ann"]).ok();
    limit(&["record", "all", "user=ann"]).failed(2, "--event NAME");
    limit(&[
        "record",
        "all",
        "user=ann",
        "country=FR",
        "--event",
        "sale",
        "--measure",
        "value=2.5",
    ])
    .ok();
    assert_eq!(shop.row("all", &["ann"])["sum"], 2.5);
}

#[test]
fn only_load_makes_a_directory_for_limits_too() {
    let shop = Shop::new();
    for args in [&["list"][..], &["set", "x", "only always"], &["check", "x"], &["remove", "x"]] {
        shop.run(&[&["limit"], args].concat()).failed(1, "data");
        assert!(!crate::exists(&shop.dir()), "{args:?}");
    }
}

#[test]
fn several_processes_ask_one_after_the_other() {
    let shop = limited();
    shop.run(&["limit", "set", "logins", "logins: at most 5 per day"]).ok();
    let record = || shop.run(&["limit", "record", "logins", "user=ann", "--wait", "60s"]).code;
    let codes: Vec<Option<i32>> = std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..3).map(|_| scope.spawn(|| [record(), record(), record()])).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let allowed = codes.iter().filter(|code| **code == Some(0)).count();
    let denied = codes.iter().filter(|code| **code == Some(5)).count();
    assert_eq!((allowed, denied), (5, 4), "{codes:?}");
    // Who does not wait is told.
    let _held = quipu::Db::open(shop.dir()).unwrap();
    shop.run(&["limit", "check", "logins", "user=ann", "--wait", "0s"]).failed(4, "");
}

#[test]
fn what_would_not_be_recorded_is_not_allowed_either() {
    let shop = limited();
    for subject in [["user=a", "user=b"], ["user=a", &format!("ip={}", "1".repeat(3_000))]] {
        for command in ["check", "record"] {
            let args = [&["limit", command, "logins"], &subject[..]].concat();
            assert_eq!(shop.run(&args).code, Some(1), "{args:?}");
        }
    }
    shop.run(&["limit", "set", "x", "logins but logins: at most 1 per day"])
        .failed(2, "counts and gives back by the same view");
    // The event of a cooldown is the only one that its view takes.
    shop.run(&["limit", "set", "calm", "logins: none for 1h"]).ok();
    shop.run(&["limit", "record", "calm", "user=ann"]).ok();
    assert_eq!(shop.run(&["limit", "record", "calm", "user=ann"]).code, Some(5));
}
