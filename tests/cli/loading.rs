//! `load`: formats, fields, times, bad lines, ids.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::{EVENTS, Run, Shop, exists};

const CSV: &str = "\
event,ts,user,product,category,value
sale,1291191960000,ann,cup,UK,15.5
sale,1291191960000,ann,cup,UK,15.5
sale,1291195560000,bob,cup,FR,4.25
sale,1291195560001,,pot,FR,100
cancel,1291278360000,ann,pot,UK,-2.5
view,1291278360000,cem,pot,UK,
";

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// What all shapes of the six events must give.
#[track_caller]
fn check_events(shop: &Shop) {
    let ann = shop.row("by_user", &["ann"]);
    assert_eq!(ann["count"], 3);
    assert_eq!(ann["sum"], 28.5);
    assert_eq!(ann["min"], -2.5);
    assert_eq!(ann["max"], 15.5);
    assert_eq!(ann["mean"], 9.5);
    assert_eq!(ann["var_pop"], 72.0);
    assert_eq!(ann["var_samp"], 108.0);
    assert_eq!(ann["first_seen"], "2010-12-01T08:26:00.000Z");
    assert_eq!(ann["last_seen"], "2010-12-02T08:26:00.000Z");
    let cem = shop.row("by_user", &["cem"]);
    assert_eq!((&cem["count"], &cem["count_value"]), (&1.into(), &0.into()));
    assert!(["sum", "min", "max", "mean", "var_pop", "var_samp"].iter().all(|f| cem[f].is_null()));
    assert_eq!(shop.rows("by_user").len(), 3, "the event without a user is in no group");
    assert_eq!(shop.rows("by_product").len(), 2);
    assert_eq!(shop.row("by_product", &["pot"])["last_seen"], "2010-12-02T08:26:00.000Z");
    assert_eq!(shop.rows("by_user_product").len(), 4);
    assert_eq!(shop.rows("by_event").len(), 3);
    assert_eq!(shop.row("by_hour", &[])["count"], 6);
}

#[test]
fn every_format_gives_the_same_answers() {
    let tsv = CSV.replace(',', "\t");
    let quoted = CSV.replace("ann", "\"ann\"").replace('\n', "\r\n");
    let inputs: [(&str, Vec<u8>); 7] = [
        ("a.ndjson", EVENTS.into()),
        ("a.jsonl.gz", gzip(EVENTS)),
        ("gzip_by_its_bytes.json", gzip(EVENTS)),
        ("a.csv", CSV.into()),
        ("a.csv.gz", gzip(CSV)),
        ("a.tsv", tsv.into()),
        ("b.csv", quoted.into()),
    ];
    for (name, content) in inputs {
        let shop = Shop::new();
        let file = shop.file(name, content);
        shop.run(&["load", &file]).ok();
        check_events(&shop);
    }
}

#[test]
fn a_line_can_stand_for_several_events() {
    let shop = Shop::new();
    let csv = "event,ts,user,value,n\nsale,1291191960000,ann,2.5,4000000000\n\
               sale,1291191960000,ann,1,\nsale,1291191960000,ann,1,0\n";
    let file = shop.file("a.csv", csv);
    let run = shop.run(&["load", &file, "--times", "n"]).ok();
    assert!(run.err.contains("field \"n\": 0 is no number of events"), "{run:?}");
    let ann = shop.row("by_user", &["ann"]);
    assert_eq!((&ann["count"], &ann["sum"]), (&4_000_000_001_u64.into(), &10_000_000_001.0.into()));
}

#[test]
fn standard_input_is_ndjson_unless_said_otherwise() {
    let shop = Shop::new();
    shop.run_with(EVENTS, &["load", "-"]).ok();
    check_events(&shop);
    let shop = Shop::new();
    shop.run_with(CSV, &["load", "-", "--input-format", "csv"]).ok();
    check_events(&shop);
}

#[test]
fn several_files_are_one_load() {
    let shop = Shop::new();
    let (header, rows) = CSV.split_at(CSV.find('\n').unwrap() + 1);
    let one = shop.file("one.ndjson", EVENTS.lines().take(2).collect::<Vec<_>>().join("\n"));
    let two =
        shop.file("two.csv", [header, &rows[rows.find("sale,1291195560000").unwrap()..]].concat());
    let report = shop.run(&["load", &one, &two, "--format", "json"]).ok().json();
    assert_eq!(report["recorded"], 6);
    check_events(&shop);
}

#[test]
fn fields_are_mapped_by_name() {
    let shop = Shop::new();
    let file = shop.file(
        "orders.csv",
        "order;at;customer;sku;country;amount;tax\n\
         1;2010-12-01T08:26:00Z;ann;cup;UK;15.5;1\n\
         2;2010-12-01T09:26:00+01:00;ann;cup;;4.5;\n",
    );
    let args = ["load", &file, "--delimiter", ";", "--event-name", "sale", "--time", "at"];
    let fields = ["--dims", "user=customer,product=sku,country", "--measure", "value=amount"];
    let more = ["--measure", "tax", "--id", "order"];
    shop.run(&[args.as_slice(), &fields, &more].concat()).ok();
    let cup = shop.row("by_product", &["cup"]);
    assert_eq!((&cup["count"], &cup["sum"]), (&2.into(), &20.0.into()));
    assert_eq!(cup["first_seen"], cup["last_seen"]);
    let tax = shop.run(&["get", "by_product", "cup", "--measure", "tax"]).ok().json();
    assert_eq!((&tax["count_value"], &tax["sum"]), (&1.into(), &1.0.into()));
    assert_eq!(shop.rows("by_country").len(), 1);
    assert_eq!(shop.rows("by_event")[0].0, "sale");
}

#[test]
fn columns_can_be_named_where_there_is_no_header() {
    let shop = Shop::new();
    let rows = CSV.split_once('\n').unwrap().1;
    let file = shop.file("bare.csv", rows);
    shop.run(&["load", &file, "--columns", "event,ts,user,product,category,value"]).ok();
    check_events(&shop);
}

#[test]
fn a_column_that_was_asked_for_must_be_there() {
    let shop = Shop::new();
    let file = shop.file("a.csv", CSV);
    shop.run(&["load", &file, "--dims", "user,shop"]).failed(1, "no column \"shop\"");
    shop.run(&["load", &file, "--time", "when"]).failed(1, "the columns are event, ts, user");
}

#[test]
fn a_field_that_was_asked_for_and_never_came_is_told() {
    let shop = Shop::new();
    let file = shop.file("a.ndjson", EVENTS);
    let run = shop.run(&["load", &file, "--dims", "user,shop"]).ok();
    assert!(run.err.contains("no line has the field \"shop\""), "{run:?}");
}

#[test]
fn numbers_and_truths_are_dimensions_as_their_text() {
    let shop = Shop::new();
    let line = r#"{"event":"e","ts":1291191960000,"user":12345678901234567890123,"product":1.50,"category":true}"#;
    let file = shop.file("a.ndjson", line);
    shop.run(&["load", &file]).ok();
    assert_eq!(shop.rows("by_user")[0].0, "12345678901234567890123");
    assert_eq!(shop.rows("by_product")[0].0, "1.50");
    assert_eq!(shop.rows("by_category")[0].0, "true");
}

#[test]
fn bad_lines_are_told_with_their_number_and_passed_over() {
    let shop = Shop::new();
    let good = EVENTS.lines().next().unwrap();
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(1 << 20));
    let bad: [(&[u8], &str); 10] = [
        (b"{\"event\":", "not valid JSON"),
        (b"{\"event\":\"\xff\"}", "not UTF-8"),
        (long.as_bytes(), "longer than 1048576 bytes"),
        (br#"{"ts":1291191960000}"#, "--event-name"),
        (br#"{"event":"e"}"#, "--time"),
        (br#"{"event":"e","ts":1291191960}"#, "--time-unit"),
        (br#"{"event":"e","ts":"2010-12-01 08:26:00"}"#, "--assume-utc"),
        (br#"{"event":"e","ts":1291191960000,"value":1e999}"#, "out of the range"),
        (br#"{"event":"e","ts":1291191960000,"value":"NaN"}"#, "cannot be summed"),
        (br#"{"event":"e","ts":1291191960000,"user":{"id":1}}"#, "\"user\""),
    ];
    let mut input = Vec::new();
    for (line, _) in bad {
        input.extend([good.as_bytes(), b"\n", line, b"\n\n"].concat());
    }
    let file = shop.file("mixed.ndjson", input);
    let run = shop.run(&["load", &file, "--format", "json"]).ok();
    let report = run.json();
    assert_eq!((&report["recorded"], &report["bad"]), (&10.into(), &10.into()));
    assert_eq!(report["read"], 20);
    let told: Vec<_> = run.err.lines().collect();
    assert_eq!(told.len(), 10, "{told:?}");
    for (i, (told, (_, why))) in told.iter().zip(bad).enumerate() {
        assert!(told.contains(&format!("mixed.ndjson:{}: ", 3 * i + 2)), "{told}");
        assert!(told.contains(why), "{told}");
    }
    assert_eq!(shop.row("by_hour", &[])["count"], 10);
}

#[test]
fn only_the_first_bad_lines_are_told() {
    let shop = Shop::new();
    let file = shop.file("a.ndjson", "x\n".repeat(1_000));
    let run = shop.run(&["load", &file]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert_eq!(run.err.matches("not valid JSON").count(), 20);
    assert!(run.err.contains("every line was bad"), "{run:?}");
    assert!(run.out.contains("1,000 bad"), "{run:?}");
}

#[test]
fn an_event_the_engine_refuses_is_a_bad_line() {
    let shop = Shop::new();
    let future = r#"{"event":"e","ts":"2200-01-01T00:00:00Z"}"#;
    let file = shop.file("a.ndjson", [EVENTS, future, "\n", r#"{"event":"","ts":0}"#].concat());
    let run = shop.run(&["load", &file]).ok();
    assert!(run.err.contains("a.ndjson:7: ") && run.err.contains("a.ndjson:8: "), "{run:?}");
    check_events(&shop);
    let future = shop.file("b.ndjson", future);
    shop.run(&["load", &future, "--max-future", "100000d"]).ok();
    assert_eq!(shop.row("by_hour", &[])["count"], 7);
}

#[test]
fn strict_stops_at_the_first_bad_line_and_keeps_what_stands_before() {
    let shop = Shop::new();
    let lines: Vec<_> = EVENTS.lines().collect();
    let file = shop.file("a.ndjson", [lines[0], lines[1], "oops", lines[2]].join("\n"));
    let run = shop.run(&["load", &file, "--strict"]);
    run.failed(1, "a.ndjson:3: not valid JSON");
    run.failed(1, "2 events were recorded before this");
    assert_eq!(run.out, "");
    assert_eq!(shop.row("by_hour", &[])["count"], 2);
}

#[test]
fn a_damaged_gzip_keeps_what_could_be_read() {
    let shop = Shop::new();
    let whole = gzip(&EVENTS.repeat(5_000));
    let file = shop.file("a.ndjson.gz", &whole[..whole.len() / 2]);
    let run = shop.run(&["load", &file]);
    run.failed(1, "cannot be read from line");
    run.failed(1, "ends in the middle of what is compressed");
    let count = shop.row("by_hour", &[])["count"].as_u64().unwrap();
    assert!(count > 1_000 && count < 30_000, "{count}");
    let told: String =
        run.err.lines().last().unwrap().chars().filter(char::is_ascii_digit).collect();
    assert_eq!(told, count.to_string(), "{run:?}");
}

#[test]
fn a_quote_left_open_costs_one_line() {
    let shop = Shop::new();
    let file = shop.file("a.csv", CSV.replace(",bob,", ",\"bob,"));
    let run = shop.run(&["load", &file]).ok();
    assert!(run.err.contains("a.csv:4: a quote"), "{run:?}");
    assert_eq!(shop.row("by_hour", &[])["count"], 5);
}

#[test]
fn numbers_of_time_have_the_unit_that_was_said() {
    for (unit, ts) in [("s", "1291191960"), ("ms", "1291191960000"), ("ns", "1291191960000000000")]
    {
        let shop = Shop::new();
        let file = shop.file("a.csv", format!("event,ts\nsale,{ts}\n"));
        shop.run(&["load", &file, "--time-unit", unit]).ok();
        let row = shop.row("by_event", &["sale"]);
        assert_eq!(row["first_seen"], "2010-12-01T08:26:00.000Z", "{unit}");
    }
}

/// Two days of a shop, each event with its id.
fn with_ids(events: usize) -> String {
    let line = |i| {
        format!(
            "{{\"id\":{i},\"event\":\"sale\",\"ts\":{},\"value\":1}}\n",
            1_291_191_960_000_u64 + i as u64
        )
    };
    (0..events).map(line).collect()
}

#[test]
fn loading_a_file_with_ids_again_counts_nothing_twice() {
    let shop = Shop::new();
    let first = shop.file("first.ndjson", with_ids(5_000));
    let both = shop.file("both.ndjson", with_ids(6_000));
    let report = shop.run(&["load", &first, "--format", "json"]).ok().json();
    assert_eq!((&report["recorded"], &report["duplicates"]), (&5_000.into(), &0.into()));
    let again = shop.run(&["load", &first]).ok();
    assert!(again.out.contains("5,000 duplicates passed over"), "{again:?}");
    // A question in between must not make the directory forget.
    assert_eq!(shop.row("by_event", &["sale"])["count"], 5_000);
    let report = shop.run(&["load", &both, "--format", "json"]).ok().json();
    assert_eq!((&report["recorded"], &report["duplicates"]), (&1_000.into(), &5_000.into()));
    assert_eq!(shop.row("by_event", &["sale"])["count"], 6_000);
}

#[test]
fn a_load_that_was_killed_can_be_repeated() {
    let shop = Shop::new();
    let events = with_ids(6_000);
    let mut child = shop.command(&["load", "-"]);
    child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    // The bad line is told when the batches before it are recorded.
    let mut input = child.stdin.take().unwrap();
    for line in events.lines().take(4_000) {
        writeln!(input, "{line}").unwrap();
    }
    input.write_all("bad\n".repeat(30_000).as_bytes()).unwrap();
    let mut told = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut told).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // What comes between must not make the directory forget the ids.
    assert_eq!(shop.row("by_event", &["sale"])["count"], 4_000);
    let file = shop.file("a.ndjson", events);
    let report = shop.run(&["load", &file, "--format", "json"]).ok().json();
    assert_eq!((&report["recorded"], &report["duplicates"]), (&2_000.into(), &4_000.into()));
}

#[test]
fn a_directory_that_was_empty_remembers_ids() {
    let shop = Shop::new();
    quipu::Db::open(shop.dir()).unwrap().close().unwrap();
    let file = shop.file("a.ndjson", with_ids(10));
    shop.run(&["load", &file, &file]).ok();
    assert_eq!(shop.row("by_event", &["sale"])["count"], 10);
}

#[test]
fn the_rule_on_ids_is_the_directorys() {
    let shop = Shop::new();
    let file = shop.file("a.ndjson", with_ids(10));
    shop.run(&["load", &file, "--no-dedup"]).ok();
    shop.run(&["load", &file]).ok();
    assert_eq!(shop.row("by_event", &["sale"])["count"], 20);
    shop.run(&["load", &file, "--dedup", "5"]).ok();
    shop.run(&["load", &file]).ok();
    assert_eq!(shop.row("by_event", &["sale"])["count"], 35, "five are remembered");
}

#[test]
fn deduplication_can_be_turned_off() {
    let shop = Shop::new();
    let file = shop.file("a.ndjson", with_ids(10));
    shop.run(&["load", &file, &file, "--no-dedup"]).ok();
    assert_eq!(shop.row("by_event", &["sale"])["count"], 20);
}

#[test]
fn events_without_ids_are_never_duplicates() {
    let shop = Shop::loaded();
    let file = shop.file("again.ndjson", EVENTS);
    shop.run(&["load", &file]).ok();
    assert_eq!(shop.row("by_hour", &[])["count"], 12);
}

#[test]
fn a_misspelt_file_leaves_no_directory() {
    let shop = Shop::new();
    let file = shop.file("a.ndjson", EVENTS);
    shop.run(&["load", &file, "absent.ndjson"]).failed(1, "absent.ndjson");
    shop.run(&["load", &file, "--dims", "a,a"]).failed(2, "twice");
    let unclear = shop.file("a.txt", EVENTS);
    shop.run(&["load", &unclear]).failed(2, "--input-format");
    assert!(!exists(&shop.dir()));
    shop.run(&["load", &unclear, "--input-format", "ndjson"]).ok();
    check_events(&shop);
}

#[test]
fn the_report_tells_what_is_there() {
    let shop = Shop::new();
    let file = shop.file("a.ndjson", EVENTS);
    let report = shop.run(&["load", &file]).ok().out;
    for part in [
        "6 events recorded",
        "6 read, 0 bad, 0 duplicates",
        "6 events from 2010-12-01 08:26 to 2010-12-02 08:26 UTC",
        "Top product by sum of value",
        "Sum of value by category",
        "█",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert!(report.lines().all(|line| line.chars().count() <= 80), "{report}");
    let report = shop.run(&["load", &file, "--format", "json"]).ok().json();
    assert_eq!(report["events"], 12);
    assert_eq!(report["top"]["by_sum"][0]["key"][0], "pot");
    assert_eq!(report["top"]["by_count"][0]["count"], 6);
    assert_eq!(report["shares"]["rows"][0]["sum"], 208.5);
    assert_eq!(report["days"][0]["day"], "2010-12-01");
    assert_eq!(report["days"][1]["count"], 4);
    assert_eq!(report["views"].as_array().map(Vec::len), Some(6));
    assert_eq!(shop.run(&["load", &file, "--quiet"]).ok().out, "");
}

#[test]
fn the_report_does_without_views_that_are_not_there() {
    let shop = Shop::new();
    let file = shop.file("a.ndjson", EVENTS);
    shop.run(&["load", &file, "--no-default-views"]).ok();
    shop.run(&["define", "sales", "--by", "country", "--count", "-q"]).ok();
    let report = shop.run(&["load", &file]).ok().out;
    assert!(report.contains("12 events") && report.contains("sales"), "{report}");
    assert!(!report.contains("Top"), "{report}");
}

#[test]
fn default_views_see_the_events_that_are_there_already() {
    let shop = Shop::new();
    let file = shop.file("a.ndjson", EVENTS);
    shop.run(&["load", &file, "--no-default-views"]).ok();
    shop.run(&["load", &file]).ok();
    assert_eq!(shop.row("by_hour", &[])["count"], 12);
    assert_eq!(shop.row("by_user", &["ann"])["sum"], 57.0);
}

#[test]
fn default_views_are_completed_where_a_load_died_among_them() {
    let shop = Shop::new();
    let db = quipu::Db::open(shop.dir()).unwrap();
    db.define(quipu::View::new("by_event").by(["event"]).stats("value")).unwrap();
    db.close().unwrap();
    let file = shop.file("a.ndjson", EVENTS);
    shop.run(&["load", &file]).ok();
    check_events(&shop);
}

#[test]
fn views_of_the_owner_get_no_company() {
    let shop = Shop::new();
    let db = quipu::Db::open(shop.dir()).unwrap();
    db.define(quipu::View::new("mine").by(["user"])).unwrap();
    db.close().unwrap();
    let file = shop.file("a.ndjson", EVENTS);
    shop.run(&["load", &file]).ok();
    assert_eq!(shop.run(&["views"]).ok().json_lines().len(), 1);
}

#[test]
fn empty_input_is_no_error() {
    for name in ["a.ndjson", "a.csv", "a.ndjson.gz"] {
        let shop = Shop::new();
        let file = shop.file(name, "");
        let run = shop.run(&["load", &file]).ok();
        assert!(run.out.contains("0 events recorded"), "{run:?}");
    }
}

#[test]
fn names_need_not_be_text() {
    let shop = Shop::new();
    let name = OsStr::from_bytes(b"n\xff\xfe.ndjson");
    std::fs::write(shop.root.path().join(name), EVENTS).unwrap();
    let load = |bad: &str| {
        std::fs::write(shop.root.path().join(name), format!("{EVENTS}{bad}")).unwrap();
        let mut command = shop.command(&["load", "-q"]);
        Run::from(command.arg(name).output().unwrap()).ok().err
    };
    assert_eq!(load(""), "");
    assert!(load("bad").starts_with("n\u{fffd}\u{fffd}.ndjson:7: "));
    check_directory_names(&shop);
}

/// The directories' names, too.
fn check_directory_names(shop: &Shop) {
    let name = |bytes| OsStr::from_bytes(bytes);
    let run = |args: &[&OsStr]| {
        let mut command = shop.command(&[]);
        Run::from(command.args(args).output().unwrap()).ok()
    };
    let (kept, again) = (name(b"kept\xff"), name(b"again\xff"));
    run(&[name(b"backup"), kept]);
    run(&[name(b"restore"), kept, again]);
    run(&[name(b"verify"), name(b"--dir"), again]);
    let row = run(&[name(b"get"), name(b"by_hour"), name(b"--dir"), again]).json();
    assert_eq!(row["count"], 12);
}

#[test]
fn a_directory_is_no_file() {
    let shop = Shop::new();
    std::fs::create_dir(shop.root.path().join("files")).unwrap();
    shop.run(&["load", "files"]).failed(1, "files: a directory; name the files in it");
    assert!(!exists(&shop.dir()));
}
