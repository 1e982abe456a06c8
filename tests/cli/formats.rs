//! The same rows as a table, JSON, NDJSON, CSV and Markdown.

use serde_json::Value;

use crate::{Shop, key};

fn list(shop: &Shop, format: &str) -> String {
    shop.run(&["list", "by_user_product", "--format", format]).ok().out
}

#[test]
fn fields_have_their_names_and_order() {
    let shop = Shop::loaded();
    let fields = "count,count_value,sum,min,max,mean,var_pop,var_samp,first_seen,last_seen";
    let csv = list(&shop, "csv");
    assert_eq!(csv.lines().next(), Some(format!("user,product,{fields}").as_str()));
    assert_eq!(
        csv.lines().nth(1),
        Some(
            "ann,cup,2,2,31.0,15.5,15.5,15.5,0.0,0.0,2010-12-01T08:26:00.000Z,2010-12-01T08:26:00.000Z"
        )
    );
    assert_eq!(
        csv.lines().last(),
        Some("cem,pot,1,0,,,,,,,2010-12-02T08:26:00.000Z,2010-12-02T08:26:00.000Z")
    );
    let ndjson = list(&shop, "ndjson");
    let first = ndjson.lines().next().unwrap();
    let at = |field: &str| first.find(&format!("\"{field}\":")).unwrap();
    assert!(fields.split(',').map(at).is_sorted(), "{first}");
    assert_eq!(at("key"), 1);
    let object: Value = serde_json::from_str(first).unwrap();
    assert_eq!(object.as_object().map(serde_json::Map::len), Some(11));
}

#[test]
fn json_and_ndjson_say_the_same() {
    let shop = Shop::loaded();
    let json: Vec<Value> = serde_json::from_str(&list(&shop, "json")).unwrap();
    let ndjson: Vec<Value> =
        list(&shop, "ndjson").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json, ndjson);
    assert_eq!(json.len(), 4);
}

#[test]
fn tables_are_aligned() {
    let shop = Shop::loaded();
    let table = list(&shop, "table");
    let widths: Vec<_> = table.lines().map(|line| line.chars().count()).collect();
    assert_eq!(widths.len(), 6, "{table}");
    // The rule below the header is as wide as the columns with their space.
    assert!(widths[2..].iter().all(|width| *width == widths[0]), "{table}");
    let markdown = list(&shop, "markdown");
    assert!(
        markdown.lines().all(|line| line.starts_with('|') && line.ends_with('|')),
        "{markdown}"
    );
    assert_eq!(markdown.lines().count(), 6);
}

#[test]
fn a_pipe_gets_ndjson() {
    let shop = Shop::loaded();
    assert_eq!(list(&shop, "ndjson"), shop.run(&["list", "by_user_product"]).ok().out);
}

#[test]
fn strange_keys_survive_every_format() {
    let shop = Shop::new();
    let strange = "a,\"b\"|\\\n\u{2028}\u{85}\u{1b}[31m日本 ";
    let line = serde_json::json!({"event": "e", "ts": 1_291_191_960_000_u64, "user": strange});
    let file = shop.file("a.ndjson", line.to_string());
    shop.run(&["load", &file]).ok();
    let run = |format| shop.run(&["list", "by_user", "--format", format]).ok();
    let ndjson = run("ndjson");
    assert!(!ndjson.out.contains(['\u{2028}', '\u{85}']), "{ndjson:?}");
    assert_eq!(key(&ndjson.json()), strange);
    let csv = run("csv").out;
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let record = reader.records().next().unwrap().unwrap();
    assert_eq!(&record[0], strange);
    for format in ["table", "markdown"] {
        let table = run(format).out;
        assert!(!table.contains('\u{1b}') && table.contains("日本"), "{table}");
        assert_eq!(table.lines().count(), 3, "{table}");
    }
    assert_eq!(shop.row("by_user", &[strange])["count"], 1);
}

#[test]
fn a_number_that_is_not_finite_is_null() {
    let shop = Shop::new();
    let line = r#"{"event":"e","ts":1291191960000,"value":1.7e308}"#;
    let file = shop.file("a.ndjson", [line, line].join("\n"));
    shop.run(&["load", &file]).ok();
    let row = shop.row("by_event", &["e"]);
    assert!(row["sum"].is_null(), "{row}");
    assert_eq!(row["max"], 1.7e308);
}
